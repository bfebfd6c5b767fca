// client/rowcast.js against a scripted server: what it does with each frame, close and silence.
// The clock is the test's (scripted.mjs), and so is the server (model.mjs): nothing here waits.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { begin, MOMENT_MS, patient } from "./scene.mjs";

describe("where it connects", () => {
  for (const [url, expected] of [
    ["https://a.example", "wss://a.example/socket/all/?hello=1"],
    ["http://127.0.0.1:8888/", "ws://127.0.0.1:8888/socket/all/?hello=1"],
    ["ws://a.example:81", "ws://a.example:81/socket/all/?hello=1"],
    ["wss://a.example/socket/all/", "wss://a.example/socket/all/?hello=1"],
  ]) {
    test(`${url} is ${expected}`, async (t) => {
      const { network } = await begin(t, { url });
      assert.deepEqual(network.wires.map((wire) => wire.url), [expected]);
    });
  }

  test("without a URL the page's own host is meant", async (t) => {
    const { network } = await begin(t, { url: null, page: true });
    assert.equal(network.last.url, "wss://care.example/socket/all/?hello=1");
  });

  test("the hello asks for topics, takes only what is wanted, and has a rid", async (t) => {
    const { network } = await begin(t, { options: { types: ["note"], mode: "latest" } });
    const [hello, ...others] = network.last.sent;
    assert.equal(hello.type, "sys:hello");
    assert.ok(Number.isInteger(hello.rid));
    assert.deepEqual([hello.topics, hello.mode, hello.since, hello.token], [true, "latest", undefined, undefined]);
    assert.ok(hello.types, "a hello without types takes all of them");
    const taken = [hello, ...others].flatMap(({ types = {} }) => Array.isArray(types) ? types : Object.keys(types));
    assert.deepEqual(taken, ["note"]);
  });

  test("the status goes from connecting to live, and everybody is told", async (t) => {
    const all = await begin(t, { connectAt: false });
    assert.equal(all.connect().status, "connecting");
    await all.clock.run(MOMENT_MS);
    assert.equal(all.rowcast.status, "live");
    assert.deepEqual(all.statuses.at(-1), { ...all.statuses.at(-1), type: "sys:status", status: "live" });
  });
});

describe("dispatch", () => {
  test("a frame goes to the handlers of its type, in order, and to no others", async (t) => {
    const { rowcast, world, clock } = await begin(t);
    const heard = [];
    rowcast.on("note", ({ data }) => heard.push(["note", data]));
    rowcast.on("note", ({ data }) => heard.push(["second", data]));
    rowcast.on("visit", ({ data }) => heard.push(["visit", data]));
    await clock.run(MOMENT_MS);
    world.publish("note", 1);
    world.publish("visit", 2);
    world.publish("note", 3);
    await clock.run(MOMENT_MS);
    assert.deepEqual(heard, [["note", 1], ["second", 1], ["visit", 2], ["note", 3], ["second", 3]]);
  });

  test("a handler gets the frame as it came", async (t) => {
    const { rowcast, world, clock } = await begin(t);
    const heard = [];
    rowcast.on("patient", (frame) => heard.push(frame));
    await clock.run(MOMENT_MS);
    world.put("patient", patient(9), { from: { id: 2 } });
    world.remove("patient", { id: 1 });
    await clock.run(MOMENT_MS);
    assert.deepEqual(heard, world.log.map(({ frame }) => frame));
  });

  test("`*` hears every frame that comes", async (t) => {
    const { rowcast, world, clock } = await begin(t, { options: { types: ["note"] } });
    const heard = [];
    rowcast.on("*", ({ type }) => heard.push(type));
    world.publish("note", 1);
    world.publish("visit", 2);
    await clock.run(6000);
    assert.deepEqual(heard.filter((type) => !type.startsWith("sys:")), ["note"]);
    assert.ok(heard.includes("sys:tick"));
  });

  test("a handler that was ended hears nothing, and its topic is unsubscribed", async (t) => {
    const { rowcast, world, clock, asked } = await begin(t);
    const heard = [];
    const first = rowcast.on("note", ({ data }) => heard.push(["first", data]));
    const second = rowcast.on("note", ({ data }) => heard.push(["second", data]));
    await clock.run(MOMENT_MS);
    first();
    first();
    world.publish("note", 1);
    await clock.run(10_000);
    assert.deepEqual(heard, [["second", 1]]);
    assert.equal(asked("sys:unsubscribe").length, 0);
    second();
    await clock.run(60_000);
    assert.deepEqual(asked("sys:unsubscribe").map(({ types }) => types), [["note"]]);
    world.publish("note", 2);
    await clock.run(MOMENT_MS);
    assert.deepEqual(heard, [["second", 1]]);
  });

  test("one function given twice is two handlers", async (t) => {
    const { rowcast, world, clock } = await begin(t);
    const heard = [];
    const hear = ({ data }) => heard.push(data);
    rowcast.on("note", hear);
    const end = rowcast.on("note", hear);
    await clock.run(MOMENT_MS);
    end();
    world.publish("note", 1);
    await clock.run(MOMENT_MS);
    assert.deepEqual(heard, [1]);
  });

  test("a handler that fails keeps no other from the frame, nor the list from the row", async (t) => {
    const all = await begin(t);
    const { rowcast, world, clock } = all;
    const heard = [];
    const list = rowcast.live("patient");
    all.watch(list);
    rowcast.on("patient", () => { throw new Error("the page's own fault"); });
    rowcast.on("patient", ({ op }) => heard.push(op));
    await clock.run(MOMENT_MS);
    const failed = [];
    const hear = (error) => failed.push(error.message);
    // A client may report it as the platform does: as an error that nobody caught.
    process.prependListener("uncaughtException", hear);
    const others = process.listeners("uncaughtException").filter((fn) => fn !== hear);
    for (const fn of others) process.removeListener("uncaughtException", fn);
    const quiet = t.mock.method(console, "error", () => {});
    world.put("patient", patient(4));
    await clock.run(MOMENT_MS);
    world.put("patient", patient(5));
    await clock.run(MOMENT_MS);
    quiet.mock.restore();
    process.removeListener("uncaughtException", hear);
    for (const fn of others) process.on("uncaughtException", fn);
    assert.deepEqual(heard, ["insert", "insert"]);
    all.holds(list, "patient");
  });
});

describe("queries", () => {
  test("resolve with the reply", async (t) => {
    const { rowcast, clock } = await begin(t);
    const asked = rowcast.query("patient", { page: 1, size: 2, order: "id desc", filter: { ward: "3" } });
    await clock.run(MOMENT_MS);
    const { type, op, data, page, cursor } = await asked;
    assert.deepEqual([type, op, data.map(({ id }) => id)], ["patient", "replace", [3, 2]]);
    assert.equal(page.total, 3);
    assert.ok(cursor);
  });

  test("by id, by an object, and with an id of 0", async (t) => {
    const { rowcast, clock, asked } = await begin(t);
    const one = rowcast.query("patient", { id: 2 });
    const two = rowcast.query("patient", { id: { id: 3 } });
    const none = rowcast.query("patient", { id: 0 });
    await clock.run(MOMENT_MS);
    assert.deepEqual((await one).data, [patient(2)]);
    assert.deepEqual((await two).data, [patient(3)]);
    assert.deepEqual((await none).data, []);
    assert.deepEqual(asked("patient").map(({ id, params }) => [id, params]), [[2, undefined], [{ id: 3 }, undefined], [0, undefined]]);
  });

  test("the parts of an `all` are one reply", async (t) => {
    const { rowcast, clock, world } = await begin(t);
    for (let id = 4; id <= 11; id += 1) world.put("patient", patient(id));
    const reply = rowcast.query("patient", { all: true });
    await clock.run(MOMENT_MS);
    const { data, part, last } = await reply;
    assert.deepEqual(data.map(({ id }) => id), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert.deepEqual([part, last], [undefined, undefined]);
  });

  test("two at once get each its own", async (t) => {
    const { rowcast, clock, world } = await begin(t);
    let slow = 500;
    world.reading = () => { slow -= 200; return slow; };
    const answers = [1, 2, 3].map((id) => rowcast.query("patient", { id }));
    await clock.run(MOMENT_MS);
    assert.deepEqual((await Promise.all(answers)).map(({ data }) => data[0].id), [1, 2, 3]);
  });

  test("reject with the server's error", async (t) => {
    const { rowcast, clock, world } = await begin(t);
    world.intercept = ({ type, rid }, session) => type === "patient"
      && (session.fail(rid, 400, "bad_param", { detail: "params.size: an integer from 1" }), true);
    const refused = assert.rejects(rowcast.query("patient", { size: 0 }), (error) => {
      assert.ok(error instanceof Error);
      assert.deepEqual([error.code, error.error, error.detail], [400, "bad_param", "params.size: an integer from 1"]);
      return true;
    });
    await clock.run(MOMENT_MS);
    await refused;
    const unknown = assert.rejects(rowcast.query("nobody"), { code: 404, error: "unknown_type" });
    await clock.run(MOMENT_MS);
    await unknown;
  });

  test("wait for the connection", async (t) => {
    const all = await begin(t, { connectAt: false });
    all.world.down.add("a.example");
    const reply = all.connect().query("patient", { id: 1 });
    await all.clock.run(10_000);
    all.world.down.clear();
    await all.clock.until("the connection", () => all.rowcast.status === "live");
    await all.clock.run(MOMENT_MS);
    assert.deepEqual((await reply).data, [patient(1)]);
  });

  test("are sent again where the connection broke before the answer", async (t) => {
    const { rowcast, clock, world, network } = await begin(t);
    world.reading = () => 3000;
    const reply = rowcast.query("patient", { all: true });
    await clock.run(500);
    world.cut(1006);
    await clock.until("the answer", () => network.wires.length === 2);
    await clock.run(4000);
    assert.equal((await reply).data.length, 3);
  });

  test("of which some parts came before the connection broke are asked again, and no row comes twice", async (t) => {
    const { rowcast, clock, world, network } = await begin(t);
    for (let id = 4; id <= 9; id += 1) world.put("patient", patient(id));
    let once = true;
    world.intercept = ({ type, rid }, session) => {
      if (type !== "patient" || !once) return false;
      once = false;
      session.say({ type, rid, op: "replace", data: [patient(1), patient(2)], cursor: world.cursor(), part: 1, last: false });
      session.end(1006);
      return true;
    };
    const reply = rowcast.query("patient", { all: true });
    await clock.until("the second connection", () => network.wires.length === 2);
    await clock.run(MOMENT_MS);
    assert.deepEqual((await reply).data.map(({ id }) => id), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("reject with `timeout` after 30 s without an answer", async (t) => {
    const { rowcast, clock, world } = await begin(t);
    world.intercept = ({ type }) => type === "patient";
    let outcome = null;
    rowcast.query("patient").catch((error) => { outcome = error; });
    await clock.run(29_000);
    assert.equal(outcome, null);
    await clock.run(2000);
    assert.deepEqual([outcome.code, outcome.error], [0, "timeout"]);
  });

  test("reject with `timeout` also while offline", async (t) => {
    const { rowcast, clock, world } = await begin(t);
    world.down.add("a.example");
    world.cut(1006);
    await clock.run(100);
    let outcome = null;
    rowcast.query("patient").catch((error) => { outcome = error; });
    await clock.run(31_000);
    assert.deepEqual([outcome?.code, outcome?.error], [0, "timeout"]);
  });

  test("that were too many are asked again after the time that the server names", async (t) => {
    const { rowcast, clock, world, asked } = await begin(t);
    let refusals = 2;
    world.intercept = ({ type, rid }, session) => type === "patient" && refusals-- > 0
      && (session.fail(rid, 429, "too_many_requests", { retry_after_ms: 250 }), true);
    const reply = rowcast.query("patient", { id: 1 });
    await clock.run(200);
    assert.equal(asked("patient").length, 1);
    await clock.run(5000);
    assert.equal((await reply).data.length, 1);
    assert.equal(asked("patient").length, 3);
  });

  test("are asked again while the database is away, and not in a hurry", async (t) => {
    const { rowcast, clock, world, asked } = await begin(t);
    let away = true;
    world.intercept = ({ type, rid }, session) => type === "patient" && away && (session.fail(rid, 503, "db_unavailable"), true);
    const reply = rowcast.query("patient", { id: 1 }).then((reply) => reply.data.length, (error) => error.error);
    await clock.run(8000);
    const tries = asked("patient").length;
    assert.ok(tries <= 20, `${tries} tries in 8 s`);
    away = false;
    await clock.run(15_000);
    // Either it was asked again, or the page was told what is wrong: never silence.
    assert.ok([1, "db_unavailable"].includes(await reply));
  });

  test("that a close ended are rejected with `closed`, and so are later ones", async (t) => {
    const { rowcast, world } = await begin(t);
    world.intercept = ({ type }) => type === "patient";
    const waiting = assert.rejects(rowcast.query("patient"), { code: 0, error: "closed" });
    rowcast.close();
    await waiting;
    await assert.rejects(rowcast.query("patient"), { code: 0, error: "closed" });
  });

  test("are rejected with `stopped` where the server will not have the connection", async (t) => {
    const { rowcast, world, clock } = await begin(t);
    world.intercept = ({ type }) => type === "patient";
    const waiting = assert.rejects(rowcast.query("patient"), { code: 0, error: "stopped" });
    world.cut(4403);
    await clock.run(MOMENT_MS);
    await waiting;
    await assert.rejects(rowcast.query("patient"), { code: 0, error: "stopped" });
  });

  test("their replies go to nobody else", async (t) => {
    const all = await begin(t);
    const { rowcast, clock } = all;
    const heard = [];
    rowcast.on("patient", (frame) => heard.push(frame));
    const list = rowcast.live("patient");
    all.watch(list);
    await clock.run(MOMENT_MS);
    const reply = rowcast.query("patient", { filter: { id: 1 }, all: true });
    await clock.run(MOMENT_MS);
    assert.equal((await reply).data.length, 1);
    assert.deepEqual(heard, []);
    all.holds(list, "patient");
  });
});

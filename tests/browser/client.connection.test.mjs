// The connection of client/rowcast.js: how it is lost, found again and resumed.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../../client/rowcast.js";
import { BACK_MS, begin, hello, living, MOMENT_MS, patient } from "./scene.mjs";
import { Clock, Network, random } from "./scripted.mjs";

describe("a connection that was lost", () => {
  test("is resumed with the last cursor, and the lists are not read again", async (t) => {
    const all = await living(t);
    all.world.publish("note", 1);
    await all.clock.run(MOMENT_MS);
    const { cursor } = all.rowcast;
    const reads = all.asked("patient").length;
    all.world.cut(1006);
    await all.clock.run(0);
    all.world.put("patient", patient(4));
    all.world.publish("note", 2);
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.equal(hello(all.network.last).since, cursor);
    assert.deepEqual(all.heard, [1, 2]);
    assert.equal(all.asked("patient").length, reads);
    all.holds(all.list, "patient");
    assert.deepEqual(all.resets, []);
  });

  test("leaves the rows as they were, as stale, and everybody is told", async (t) => {
    const all = await living(t);
    const { rows } = all.list.snapshot();
    all.world.down.add("a.example");
    all.world.cut(1006);
    await all.clock.run(MOMENT_MS);
    assert.deepEqual([all.rowcast.status, all.list.status, all.list.rows], ["offline", "stale", rows]);
    const { status, code, retry_at } = all.statuses.find(({ status }) => status === "offline");
    assert.deepEqual([status, code], ["offline", 1006]);
    assert.ok(retry_at >= all.clock.now - MOMENT_MS);
    all.world.down.clear();
    await all.back();
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
    assert.deepEqual([all.statuses.at(-1).status, all.statuses.at(-1).recovered], ["live", true]);
  });

  test("says how many events were replayed", async (t) => {
    const all = await living(t);
    all.world.down.add("a.example");
    all.world.cut(1006);
    await all.clock.run(10);
    for (let at = 0; at < 7; at += 1) all.world.publish("note", at);
    all.world.down.clear();
    await all.back();
    await all.clock.run(MOMENT_MS);
    const { recovered, replayed } = all.statuses.at(-1);
    assert.deepEqual([recovered, replayed], [true, 7]);
  });

  test("takes no frame twice, and misses none, wherever it breaks", async (t) => {
    const all = await living(t);
    all.world.stride = () => 1;
    for (let at = 0; at < 60; at += 1) {
      all.world.publish("note", at);
      all.world.put("patient", patient(10 + (at % 7), { age: at }));
      await all.clock.run(at % 5);
      if (at % 6 === 0) {
        all.world.cut(at % 12 ? 1006 : 1012);
        await all.clock.run((at % 4) * 500);
      }
    }
    await all.back();
    await all.clock.run(BACK_MS);
    assert.deepEqual(all.heard, Array.from({ length: 60 }, (_, at) => at));
    all.holds(all.list, "patient");
  });

  test("resumes behind a tick too", async (t) => {
    const all = await living(t);
    await all.clock.run(12_000);
    all.world.put("visit", { id: 1, patient_id: 1 }); // Nothing that this socket takes.
    await all.clock.run(6000);
    all.world.cut(1006);
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.equal(hello(all.network.last).since, all.world.cursor());
  });

  test("has no older socket's word taken for the new one's", async (t) => {
    const all = await living(t);
    const [old] = all.network.wires;
    all.world.vanish();
    await all.next(120_000);
    await all.clock.run(MOMENT_MS);
    all.world.put("patient", patient(4));
    await all.clock.run(MOMENT_MS);
    old.sayLate({ type: "patient", op: "truncate", data: null, cursor: "e1:999", ts: 1 });
    old.sayLate({ type: "sys:reset", reason: "trimmed", cursor: "e9:9", after_ms: [0, 10] });
    old.onclose?.({ code: 4403, reason: "" });
    await all.clock.run(BACK_MS);
    assert.equal(all.rowcast.status, "live");
    assert.deepEqual(all.resets, []);
    all.holds(all.list, "patient");
  });

  test("a list whose first reply never came is asked for again", async (t) => {
    const all = await begin(t);
    all.world.reading = () => 2000;
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(500);
    all.world.cut(1006);
    await all.clock.run(BACK_MS);
    all.holds(list, "patient");
  });

  test("a list of which some parts came is asked for again", async (t) => {
    const all = await begin(t);
    for (let id = 4; id < 12; id += 1) all.world.put("patient", patient(id));
    let once = true;
    all.world.intercept = ({ type, rid }, session) => {
      if (type !== "patient" || !once) return false;
      once = false;
      all.world.put("patient", patient(99));
      session.say({ type, rid, op: "replace", data: [patient(1), patient(2)], cursor: all.world.cursor(), part: 1, last: false });
      all.clock.in(50, () => session.end(1006));
      return true;
    };
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(BACK_MS);
    all.holds(list, "patient");
  });

  test("a list that was being read again when it broke is read again", async (t) => {
    const all = await living(t);
    all.world.reading = () => 3000;
    all.world.put("patient", patient(4), { too_large: true });
    await all.clock.run(MOMENT_MS);
    all.world.cut(1006);
    await all.clock.run(BACK_MS);
    all.holds(all.list, "patient");
  });

  test("an event between the parts of a reply is applied to the whole", async (t) => {
    const all = await begin(t);
    all.world.intercept = ({ type, rid }, session) => {
      if (type !== "patient") return false;
      const { world } = all;
      session.say({ type, rid, op: "replace", data: [patient(1), patient(2)], cursor: world.cursor(), part: 1, last: false });
      const cursor = world.cursor();
      world.remove("patient", { id: 1 });
      session.say({ type, rid, op: "replace", data: [patient(3)], cursor, part: 2, last: true });
      return true;
    };
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    all.holds(list, "patient");
  });
});

describe("a reset", () => {
  test("is told, waited for within `after_ms`, and all lists are read again", async (t) => {
    const all = await living(t);
    const visits = all.rowcast.live("visit");
    all.watch(visits);
    await all.clock.run(MOMENT_MS);
    const reads = all.asked("patient").length;
    t.mock.method(Math, "random", () => 0.5);
    all.world.after_ms = [1000, 3000];
    all.world.tables.patient.rows.delete("[1]"); // Nobody was told.
    all.world.renew();
    await all.clock.run(900);
    assert.deepEqual(all.resets, ["epoch"]);
    assert.equal(all.list.status, "stale");
    assert.equal(all.asked("patient").length, reads);
    await all.clock.run(2500);
    assert.equal(all.asked("patient").length, reads + 1);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
    all.holds(visits, "visit");
    assert.equal(all.network.wires.length, 1);
  });

  test("the wait is another for every client, within the bounds", async (t) => {
    const waits = [];
    for (const at of [0, 0.25, 0.5, 0.999]) {
      await t.test(`at ${at}`, async (t) => {
        const all = await living(t);
        t.mock.method(Math, "random", () => at);
        all.world.after_ms = [2000, 10_000];
        const reads = all.asked("patient").length;
        const begun = all.clock.now;
        all.world.renew();
        await all.clock.until("the list is read", () => all.asked("patient").length > reads);
        waits.push(all.clock.now - begun);
      });
    }
    assert.ok(waits.every((wait) => wait >= 1900 && wait <= 10_200), String(waits));
    assert.ok(waits.at(-1) - waits[0] > 5000, String(waits));
  });

  test("after it the new cursor is what is resumed from", async (t) => {
    const all = await living(t);
    all.world.renew();
    await all.clock.run(10_000);
    all.world.cut(1006);
    await all.clock.run(10);
    all.world.put("patient", patient(4));
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.match(hello(all.network.last).since, /^e2:/);
    all.holds(all.list, "patient");
    assert.deepEqual(all.resets, ["epoch"]);
  });

  test("a connection that breaks before the lists were read again loses nothing", async (t) => {
    const all = await living(t);
    all.world.after_ms = [4000, 5000];
    all.world.tables.patient.rows.delete("[1]");
    all.world.renew();
    await all.clock.run(1000);
    all.world.cut(1006);
    await all.clock.run(BACK_MS);
    all.holds(all.list, "patient");
  });

  test("at a resume is told, and all is read again", async (t) => {
    const all = await living(t);
    all.world.down.add("a.example");
    all.world.cut(1006);
    await all.clock.run(100);
    all.world.put("patient", patient(4));
    all.world.remove("patient", { id: 1 });
    all.world.trim();
    all.world.down.clear();
    await all.back();
    await all.clock.run(BACK_MS);
    assert.deepEqual(all.resets, ["trimmed"]);
    all.holds(all.list, "patient");
    assert.equal(all.statuses.at(-1).recovered, false);
  });

  test("a query that waits at a reset is answered all the same", async (t) => {
    const all = await living(t);
    all.world.reading = () => 1000;
    const reply = all.rowcast.query("patient", { id: 1 });
    await all.clock.run(100);
    all.world.renew();
    await all.clock.run(BACK_MS);
    assert.equal((await reply).data.length, 1);
  });
});

describe("close codes", () => {
  for (const code of [1001, 1006, 1012, 1013, 4008, 4408]) {
    test(`after ${code} it comes back with its cursor`, async (t) => {
      const all = await living(t);
      const { cursor } = all.rowcast;
      all.world.cut(code);
      const waited = await all.next();
      await all.clock.run(MOMENT_MS);
      assert.ok(waited <= BACK_MS);
      assert.equal(hello(all.network.last).since, cursor);
      all.holds(all.list, "patient");
    });
  }

  for (const code of [1008, 4400, 4403]) {
    test(`after ${code} it stops, and says why`, async (t) => {
      const all = await living(t);
      all.world.cut(code);
      await all.clock.run(600_000);
      assert.equal(all.network.wires.length, 1);
      assert.equal(all.rowcast.status, "stopped");
      assert.deepEqual([all.statuses.at(-1).status, all.statuses.at(-1).code], ["stopped", code]);
      assert.equal(all.list.rows.length, 3);
      assert.notEqual(all.list.status, "live");
    });
  }

  test("after 4401 it asks for a token, and comes back with another one", async (t) => {
    const tokens = ["old", "new"];
    const all = await living(t, { options: { token: () => tokens.shift() } });
    assert.equal(hello(all.network.last).token, "old");
    all.world.cut(4401);
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.equal(hello(all.network.last).token, "new");
    all.holds(all.list, "patient");
  });

  for (const [what, token] of [["the same", () => "old"], ["a fixed one", "old"], ["none", undefined]]) {
    test(`after 4401 it stops where it gets ${what}`, async (t) => {
      const all = await living(t, { options: { token } });
      all.world.cut(4401);
      await all.clock.run(600_000);
      assert.ok(all.network.wires.length <= 2);
      assert.deepEqual([all.rowcast.status, all.statuses.at(-1).code], ["stopped", 4401]);
    });
  }

  for (const [what, first, second] of [["at once", "bad", "bad"], ["when it comes back", "old", "bad"]]) {
    test(`it stops where the answer to its hello refuses the token ${what}`, async (t) => {
      const tokens = [first, second];
      const all = await begin(t, { connectAt: false, options: { token: () => tokens.shift() ?? "bad" } });
      all.world.intercept = ({ type, rid, token }, session) => {
        if (type !== "sys:hello" || token !== "bad") return false;
        session.fail(rid, 401, "token_invalid");
        session.end(4401);
        return true;
      };
      all.connect();
      all.watch(all.rowcast.live("patient", { filter: { ward: "3" } }));
      await all.clock.run(MOMENT_MS);
      all.world.cut(1006);
      await all.clock.run(600_000);
      assert.ok(all.network.wires.length <= 3, `${all.network.wires.length} sockets`);
      assert.deepEqual([all.rowcast.status, all.statuses.at(-1).code], ["stopped", 4401]);
    });
  }

  test("`sys:drain` says when to come back", async (t) => {
    for (const [at, least, most] of [[0, 3000, 3600], [0.999, 7000, 8100]]) {
      await t.test(`at ${at}`, async (t) => {
        const all = await living(t);
        t.mock.method(Math, "random", () => at);
        const [session] = all.world.sessions;
        session.say({ type: "sys:drain", after_ms: [3000, 8000] });
        session.wire.end(1012);
        session.over();
        const waited = await all.next();
        assert.ok(waited >= least && waited <= most, `${waited} ms`);
        await all.clock.run(MOMENT_MS);
        all.holds(all.list, "patient");
      });
    }
  });
});

describe("the waits", () => {
  test("grow from a moment to a limit, and are shorter again after a connection that held", async (t) => {
    const all = await living(t);
    t.mock.method(Math, "random", () => 0.999);
    all.world.down.add("a.example");
    all.world.cut(1006);
    const waits = [];
    for (let turn = 0; turn < 12; turn += 1) waits.push(await all.next(120_000));
    assert.ok(waits[0] <= 3300, String(waits));
    assert.ok(waits.every((wait, at) => at === 0 || wait >= waits[at - 1] - 1), String(waits));
    assert.ok(waits.at(-1) >= 5000 && waits.at(-1) <= 60_000, String(waits));
    assert.equal(Math.round(waits.at(-1)), Math.round(waits.at(-2)));
    all.world.down.clear();
    await all.back();
    await all.clock.run(60_000);
    all.world.cut(1006);
    assert.ok(await all.next() <= 3300);
  });

  test("stay long where the server takes the connection and drops it at once", async (t) => {
    const all = await living(t);
    all.world.intercept = ({ type }, session) => type === "sys:hello" && (session.end(1006), true);
    all.world.cut(1006);
    await all.clock.run(300_000);
    assert.ok(all.network.wires.length < 80, `${all.network.wires.length} sockets in 5 min`);
  });

  test("of many clients are spread over all of the time", async (t) => {
    const clock = new Clock().install();
    t.after(() => clock.restore());
    const dice = random(5);
    t.mock.method(Math, "random", dice.next);
    const times = Array.from({ length: 200 }, () => []);
    const clients = times.map((made) => {
      const network = new Network(clock);
      network.accept = (wire) => {
        made.push(clock.now);
        wire.end(1006);
      };
      return connect("wss://a.example/socket/all/", { socket: network.socket });
    });
    await clock.run(60_000);
    const waits = times.map((made) => made.slice(1).map((at, turn) => at - made[turn]));
    const shares = waits.flatMap((of) => of.slice(0, 6));
    assert.ok(Math.min(...waits.map((of) => of.length)) >= 3);
    for (let turn = 0; turn < 3; turn += 1) {
      const at = waits.map((of) => of[turn]).sort((a, b) => a - b);
      const [low, middle, high] = [at[10], at[100], at[190]];
      t.diagnostic(`wait ${turn + 1}: ${Math.round(low)} · ${Math.round(middle)} · ${Math.round(high)} ms`);
      assert.ok(high - low >= 0.5 * high, `wait ${turn + 1}: from ${low} to ${high} ms`);
      assert.ok(middle > low && middle < high);
    }
    // Nobody hammers: no two tries of one client in the same instant, again and again.
    assert.ok(shares.filter((wait) => wait < 20).length < shares.length / 10);
    for (const client of clients) client.close();
  });

  test("several URLs are gone round", async (t) => {
    const all = await begin(t, { url: ["https://a.example", "https://b.example", "https://c.example"], connectAt: false });
    for (const host of ["a.example", "b.example"]) all.world.down.add(host);
    all.connect();
    await all.clock.until("the connection", () => all.rowcast.status === "live");
    const hosts = () => all.network.wires.map(({ url }) => new URL(url).host);
    assert.deepEqual(new Set(hosts()), new Set(["a.example", "b.example", "c.example"]));
    assert.equal(hosts().length, 3);
    all.world.down = new Set(["c.example", "b.example"]);
    all.world.cut(1006);
    await all.clock.until("the connection", () => all.rowcast.status === "offline");
    await all.clock.until("the connection", () => all.rowcast.status === "live");
    assert.equal(hosts().at(-1), "a.example");
  });

  test("what changed meanwhile comes from another gateway as well", async (t) => {
    const all = await living(t, { url: ["https://a.example", "https://b.example"] });
    all.world.down.add("a.example");
    all.world.vanish("a.example");
    all.world.put("patient", patient(4));
    all.world.publish("note", 1);
    await all.clock.run(60_000);
    await all.back();
    await all.clock.run(MOMENT_MS);
    assert.equal(new URL(all.network.last.url).host, "b.example");
    assert.deepEqual(all.heard, [1]);
    all.holds(all.list, "patient");
  });
});

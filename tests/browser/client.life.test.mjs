// The life of client/rowcast.js: silence, sleep, pages that are hidden and shown, tokens, its end, and
// servers that are not what they were.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { connect } from "../../client/rowcast.js";
import { BACK_MS, begin, hello, living, MOMENT_MS, patient } from "./scene.mjs";

describe("a server that says nothing", () => {
  test("is noticed and left", async (t) => {
    const all = await living(t);
    all.world.vanish();
    const waited = await all.next(120_000);
    t.diagnostic(`noticed after ${Math.round(waited)} ms`);
    assert.ok(waited <= 60_000);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });

  test("before its welcome is left too", async (t) => {
    const all = await begin(t, { connectAt: false });
    let deaf = true;
    all.world.intercept = () => deaf;
    all.connect();
    await all.clock.until("another socket", () => all.network.wires.length === 2, 120_000);
    deaf = false;
    await all.clock.run(120_000);
    assert.equal(all.rowcast.status, "live");
  });

  test("where no connection comes about at all it tries again", async (t) => {
    const all = await begin(t, { connectAt: false });
    const { accept } = all.network;
    all.network.accept = () => {}; // Neither opened nor refused.
    all.connect();
    await all.clock.until("another socket", () => all.network.wires.length === 2, 120_000);
    all.network.accept = accept;
    await all.clock.run(120_000);
    assert.equal(all.rowcast.status, "live");
  });

  test("is kept as long as it ticks", async (t) => {
    const all = await living(t);
    await all.clock.run(3_600_000);
    assert.equal(all.network.wires.length, 1);
  });

  test("is kept where no source of changes is alive, so that nothing ticks, and pings are answered", async (t) => {
    const all = await living(t);
    all.world.ticks = false;
    await all.clock.run(3_600_000);
    assert.equal(all.network.wires.length, 1);
    assert.ok(all.asked("sys:ping").length < 3600 / 4, "it pings too often");
  });

  test("is not left while its answers take their time", async (t) => {
    const all = await living(t);
    all.network.lag = () => 1500;
    await all.clock.run(600_000);
    assert.equal(all.network.wires.length, 1);
  });
});

describe("a machine that sleeps", () => {
  test("finds after it that the connection is gone, soon", async (t) => {
    const all = await living(t);
    all.world.vanish();
    all.world.put("patient", patient(4));
    all.clock.sleep(8 * 3_600_000);
    const waited = await all.next(60_000);
    t.diagnostic(`noticed after ${Math.round(waited)} ms`);
    assert.ok(waited <= 15_000);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });

  test("and whose connection is still there holds its view", async (t) => {
    const all = await living(t);
    all.clock.sleep(600_000);
    all.world.put("patient", patient(4));
    await all.clock.run(BACK_MS);
    all.holds(all.list, "patient");
    assert.ok(all.network.wires.length <= 2);
  });

  test("while the page was hidden, finds it when the page is shown", async (t) => {
    const all = await living(t, { page: true });
    all.page.show("hidden");
    all.world.vanish();
    all.world.put("patient", patient(4));
    all.clock.sleep(3_600_000);
    all.page.show("visible");
    const waited = await all.next(60_000);
    assert.ok(waited <= 10_000, `${waited} ms`);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });
});

describe("a page", () => {
  /** Offline for so long that the next try is far away. */
  async function away(t) {
    const all = await living(t, { page: true });
    t.mock.method(Math, "random", () => 0.999);
    all.world.down.add("a.example");
    all.world.cut(1006);
    for (let turn = 0; turn < 9; turn += 1) await all.next(120_000);
    await all.clock.run(MOMENT_MS);
    all.world.down.clear();
    return all;
  }

  test("that is online again tries at once", async (t) => {
    const all = await away(t);
    all.page.online(true);
    assert.ok(await all.next() <= 1500);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });

  test("that is shown again tries at once", async (t) => {
    const all = await away(t);
    all.page.show("hidden");
    all.page.show("visible");
    assert.ok(await all.next() <= 1500);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });

  test("that comes online a hundred times opens no hundred sockets", async (t) => {
    const all = await away(t);
    const before = all.network.wires.length;
    for (let turn = 0; turn < 100; turn += 1) {
      all.page.online(true);
      all.page.show("visible");
      await all.clock.run(1);
    }
    await all.clock.run(MOMENT_MS);
    assert.ok(all.network.wires.length - before <= 3);
    all.holds(all.list, "patient");
  });

  test("whose network changed finds that its connection is gone", async (t) => {
    const all = await living(t, { page: true });
    all.world.vanish();
    all.page.online(false);
    await all.clock.run(2000);
    all.page.online(true);
    const waited = await all.next(60_000);
    assert.ok(waited <= 10_000, `${waited} ms`);
    await all.clock.run(MOMENT_MS);
    all.holds(all.list, "patient");
  });

  test("whose connection lives keeps it, however often it is hidden and shown", async (t) => {
    const all = await living(t, { page: true });
    for (let turn = 0; turn < 20; turn += 1) {
      all.page.show("hidden");
      await all.clock.run(2000);
      all.page.show("visible");
      all.page.online(true);
      await all.clock.run(2000);
    }
    assert.equal(all.network.wires.length, 1);
  });

  test("that closed its connection listens to nothing any more", async (t) => {
    const all = await living(t, { page: true });
    all.rowcast.close();
    all.page.online(true);
    all.page.show("visible");
    await all.clock.run(60_000);
    assert.equal(all.network.wires.length, 1);
    assert.equal(all.rowcast.status, "closed");
    assert.equal(all.page.listeners, 0);
  });
});

describe("tokens", () => {
  const jwt = (exp) => `h.${Buffer.from(JSON.stringify({ sub: "王芳", exp })).toString("base64url")}.s`;

  test("a token is sent with every hello", async (t) => {
    const all = await living(t, { options: { token: "fixed" } });
    all.world.cut(1006);
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(all.network.wires.map((wire) => hello(wire).token), ["fixed", "fixed"]);
  });

  test("a function is asked at every connect", async (t) => {
    let turn = 0;
    const all = await living(t, { options: { token: async () => `t${turn += 1}` } });
    all.world.cut(1006);
    await all.next();
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(all.network.wires.map((wire) => hello(wire).token), ["t1", "t2"]);
  });

  test("a function that gives none means none", async (t) => {
    const all = await living(t, { options: { token: async () => null } });
    assert.ok(hello(all.network.last).token == null);
    all.holds(all.list, "patient");
  });

  test("before a token expires another one is sent, on the same socket", async (t) => {
    const asked = [];
    const all = await begin(t, { connectAt: false });
    const lifetime = 300_000;
    all.rowcast = connect("https://a.example", {
      socket: all.network.socket,
      token: () => {
        asked.push(all.clock.now);
        return jwt(Math.floor((all.clock.now + lifetime) / 1000));
      },
    });
    const begun = all.clock.now;
    await all.clock.run(lifetime - 1000);
    const auths = all.asked("sys:auth");
    assert.ok(auths.length >= 1 && auths.length <= 3, `${auths.length} times`);
    assert.notEqual(auths[0].token, hello(all.network.last).token);
    assert.ok(asked[1] - begun >= lifetime / 4, "asked far too early");
    await all.clock.run(10 * lifetime);
    assert.ok(all.asked("sys:auth").length <= 40);
    assert.equal(all.network.wires.length, 1);
  });

  for (const [what, exp] of [["that lasts for a year", 365 * 86_400], ["that has expired", -60]]) {
    test(`a token ${what} is not renewed again and again`, async (t) => {
      let asked = 0;
      const all = await begin(t, { connectAt: false });
      const token = jwt(Math.floor(all.clock.now / 1000) + exp);
      all.rowcast = connect("https://a.example", {
        socket: all.network.socket,
        token: () => {
          asked += 1;
          return token;
        },
      });
      await all.clock.run(600_000);
      assert.ok(asked <= 40, `asked ${asked} times in 10 min`);
    });
  }

  test("a token that is no JWT is sent as it is", async (t) => {
    for (const token of ["a.b.c", "...", "opaque", `h.${Buffer.from("[1]").toString("base64url")}.s`, `h.${Buffer.from("null").toString("base64url")}.s`]) {
      await t.test(token, async (t) => {
        const all = await living(t, { options: { token: () => token } });
        assert.equal(hello(all.network.last).token, token);
      });
    }
  });

  test("a function that fails is asked again later", async (t) => {
    let failures = 2;
    const all = await begin(t, { connectAt: false, options: { token: async () => { if (failures-- > 0) throw new Error("the login server is away"); return "t"; } } });
    all.connect();
    await all.clock.until("the connection", () => all.rowcast.status === "live", 120_000);
    assert.equal(hello(all.network.last).token, "t");
  });

  test("a function that never answers does not hold the page for ever, and close() ends it", async (t) => {
    const all = await begin(t, { connectAt: false, options: { token: () => new Promise(() => {}) } });
    all.connect();
    const reply = assert.rejects(all.rowcast.query("patient"), { error: "timeout" });
    await all.clock.run(31_000);
    await reply;
    all.rowcast.close();
    await all.clock.run(120_000);
    assert.equal(all.network.wires.length, 0);
  });
});

describe("close()", () => {
  for (const [when, ms] of [["before it was ever connected", 0], ["when it is live", 5000]]) {
    test(`${when} ends everything`, async (t) => {
      const all = await begin(t, { connectAt: false });
      all.connect();
      const list = all.rowcast.live("patient");
      const told = all.watch(list);
      await all.clock.run(ms);
      all.rowcast.close();
      all.rowcast.close();
      const before = told.length;
      all.world.put("patient", patient(4));
      await all.clock.run(600_000);
      assert.equal(all.rowcast.status, "closed");
      assert.ok(all.network.wires.length <= 1);
      assert.ok(told.length <= before + 1);
      assert.notEqual(list.status, "live");
      assert.equal(all.statuses.at(-1)?.status, "closed");
    });
  }

  test("while it waits to try again ends everything", async (t) => {
    const all = await living(t);
    all.world.down.add("a.example");
    all.world.cut(1006);
    await all.clock.run(5000);
    all.rowcast.close();
    const sockets = all.network.wires.length;
    await all.clock.run(600_000);
    assert.equal(all.network.wires.length, sockets);
  });

  test("while a token is being got ends everything", async (t) => {
    let give;
    const all = await begin(t, { connectAt: false, options: { token: () => new Promise((resolve) => { give = resolve; }) } });
    all.connect();
    await all.clock.run(100);
    all.rowcast.close();
    give("late");
    await all.clock.run(60_000);
    assert.equal(all.network.wires.length, 0);
  });

  test("lists and handlers that are asked for afterwards do no harm", async (t) => {
    const all = await living(t);
    all.rowcast.close();
    const list = all.rowcast.live("visit");
    const stop = list.subscribe(() => {});
    all.rowcast.on("visit", () => {})();
    list.refresh();
    all.rowcast.refresh("patient");
    await all.clock.run(60_000);
    stop();
    assert.notEqual(list.status, "live");
  });
});

describe("reconnect()", () => {
  test("connects anew at once, resumes, and leaves the old socket", async (t) => {
    const all = await living(t);
    const { cursor } = all.rowcast;
    all.rowcast.reconnect();
    assert.ok(await all.next() <= 100);
    await all.clock.run(MOMENT_MS);
    assert.ok(all.network.wires[0].left);
    assert.equal(hello(all.network.last).since, cursor);
    all.world.publish("note", 1);
    all.world.put("patient", patient(4));
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(all.heard, [1]);
    all.holds(all.list, "patient");
  });

  test("does not wait for the next try", async (t) => {
    const all = await living(t);
    all.world.down.add("a.example");
    all.world.cut(1006);
    for (let turn = 0; turn < 8; turn += 1) await all.next(120_000);
    await all.clock.run(100);
    all.world.down.clear();
    const sockets = all.network.wires.length;
    all.rowcast.reconnect();
    await all.clock.run(100);
    assert.equal(all.rowcast.status, "live");
    await all.clock.run(120_000);
    assert.equal(all.network.wires.length, sockets + 1);
  });

  test("after `stopped` makes everything live again: lists, handlers, queries", async (t) => {
    const all = await living(t);
    all.world.cut(4403);
    await all.clock.run(60_000);
    assert.equal(all.rowcast.status, "stopped");
    all.world.put("patient", patient(4));
    all.rowcast.reconnect();
    await all.clock.run(10_000);
    assert.equal(all.rowcast.status, "live");
    all.holds(all.list, "patient");
    all.world.publish("note", 1);
    const reply = all.rowcast.query("patient", { id: 1 });
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(all.heard, [1]);
    assert.equal((await reply).data.length, 1);
  });

  test("after close() does nothing", async (t) => {
    const all = await living(t);
    all.rowcast.close();
    all.rowcast.reconnect();
    await all.clock.run(60_000);
    assert.deepEqual([all.rowcast.status, all.network.wires.length], ["closed", 1]);
  });

  test("called again and again it ends with one socket", async (t) => {
    const all = await living(t);
    for (let turn = 0; turn < 20; turn += 1) {
      all.rowcast.reconnect();
      await all.clock.run(turn % 3);
    }
    await all.clock.run(30_000);
    assert.equal(all.network.wires.filter(({ readyState }) => readyState === 1).length, 1);
    all.holds(all.list, "patient");
  });
});

describe("a hello that is refused", () => {
  test("because a topic is gone after a restart harms no other topic", async (t) => {
    const all = await living(t);
    const visits = all.rowcast.live("visit");
    all.watch(visits);
    await all.clock.run(MOMENT_MS);
    all.world.down.add("a.example");
    all.world.cut(1012);
    await all.clock.run(100);
    delete all.world.tables.visit;
    all.world.put("patient", patient(4));
    all.world.publish("note", 1);
    all.world.down.clear();
    await all.clock.run(120_000);
    assert.equal(all.rowcast.status, "live");
    all.holds(all.list, "patient");
    // What was published meanwhile came, or it was said that something may be missing.
    assert.ok(all.heard.length === 1 || all.resets.length === 1, `${all.heard} ${all.resets}`);
    all.world.publish("note", 2);
    await all.clock.run(MOMENT_MS);
    assert.equal(all.heard.at(-1), 2);
    assert.deepEqual([visits.status, visits.error?.error], ["error", "unknown_type"]);
  });

  test("a query that was sent behind it is answered", async (t) => {
    const all = await living(t);
    all.watch(all.rowcast.live("visit"));
    await all.clock.run(MOMENT_MS);
    all.world.down.add("a.example");
    all.world.cut(1012);
    await all.clock.run(100);
    const reply = all.rowcast.query("patient", { id: 1 });
    delete all.world.tables.visit;
    all.world.down.clear();
    await all.clock.run(20_000);
    assert.equal((await reply).data.length, 1);
  });

  test("because a filter does not fit the altered table is recovered from", async (t) => {
    const all = await begin(t);
    const filter = { ward: "3" };
    const list = all.rowcast.live("patient", { filter });
    all.watch(list);
    const others = all.rowcast.live("visit");
    all.watch(others);
    await all.clock.run(MOMENT_MS);
    all.world.down.add("a.example");
    all.world.cut(1012);
    await all.clock.run(100);
    all.world.tables.patient.judges = (asked) => !asked || !("ward" in asked);
    all.world.put("visit", { id: 1, patient_id: 1 });
    all.world.down.clear();
    await all.clock.run(120_000);
    assert.equal(all.rowcast.status, "live");
    all.holds(others, "visit");
    all.holds(list, "patient", { filter }); // The query still takes it.
    all.world.put("patient", patient(4));
    await all.clock.run(5000);
    all.holds(list, "patient", { filter });
  });
});

describe("frames that nobody expects", () => {
  test("do no harm", async (t) => {
    const all = await living(t);
    const [session] = all.world.sessions;
    session.say(
      { type: "sys:something", x: 1 }, { type: "patient", op: "what", key: { id: 1 }, data: null, cursor: all.world.cursor() },
      { type: "sys:error", code: 400, error: "bad_json", msg: "" }, { type: "sys:error", rid: 99_999, code: 400, error: "bad_param", msg: "" },
      { type: "patient", rid: 99_999, op: "replace", data: [], cursor: all.world.cursor() }, { type: "sys:pong", rid: 99_999 },
      { type: "nobody", op: "insert", key: { id: 1 }, data: { id: 1 }, cursor: all.world.cursor() }, {}, [], null, 7, "text",
    );
    await all.clock.run(MOMENT_MS);
    all.network.last.onmessage?.({ data: "no JSON" });
    await all.clock.run(20_000);
    all.world.put("patient", patient(4));
    await all.clock.run(MOMENT_MS);
    assert.equal(all.rowcast.status, "live");
    all.holds(all.list, "patient");
  });

  test("a list of an object's own words for a name, and rows with such columns, are like any other", async (t) => {
    const all = await living(t);
    all.world.tables["constructor"] = new all.world.tables.patient.constructor({ key: ["constructor"], order: ["constructor"], columns: { constructor: "text", toString: "text" } });
    all.world.cut(1006);
    await all.back();
    await all.clock.run(10_000);
    const list = all.rowcast.live("constructor");
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    all.world.put("constructor", { constructor: "a", toString: "b" });
    await all.clock.run(MOMENT_MS);
    all.holds(list, "constructor");
    await assert.doesNotReject(async () => {
      const heard = all.rowcast.on("toString", () => {});
      heard();
    });
  });
});

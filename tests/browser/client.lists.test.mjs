// The lists of client/rowcast.js: that `live` shows what the server would answer, whatever happens
// to the rows, and asks for no more than it must.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { begin, MOMENT_MS, patient } from "./scene.mjs";

/** A list that is being watched, and has its rows. */
async function watched(t, type = "patient", params = undefined, how = {}) {
  const all = await begin(t, how);
  const list = all.rowcast.live(type, params);
  const told = all.watch(list);
  await all.clock.run(MOMENT_MS);
  /** How often it was read since then. */
  const before = all.asked(type).length;
  return { ...all, list, told, params, type, again: () => all.asked(type).length - before };
}

describe("a list of a whole view", () => {
  test("is idle until somebody subscribes, then loading, then live", async (t) => {
    const all = await begin(t);
    const list = all.rowcast.live("patient");
    assert.deepEqual([list.status, list.rows, list.error, list.page, list.exact], ["idle", [], null, null, true]);
    await all.clock.run(MOMENT_MS);
    assert.equal(all.asked("patient").length, 0);
    const told = all.watch(list);
    assert.equal(list.status, "loading");
    assert.deepEqual([...told], [[]]);
    await all.clock.run(MOMENT_MS);
    all.holds(list, "patient");
    assert.deepEqual(told.at(-1), list.snapshot().rows);
    assert.equal(all.asked("patient").length, 1);
  });

  // What happens, and how often the list may be read because of it.
  const changes = {
    "an insert": [(world) => world.put("patient", patient(4)), 0],
    "an update": [(world) => world.put("patient", patient(2, { ward: "9" })), 0],
    "an update of a row that nobody had heard of": [(world) => world.push("patient", "update", { key: { id: 7 }, data: patient(7) }, world.tables.patient.rows.set("[7]", patient(7))), 0],
    "an insert of a row that is there": [(world) => world.push("patient", "insert", { key: { id: 2 }, data: patient(2, { age: 1 }) }, world.tables.patient.rows.set("[2]", patient(2, { age: 1 }))), 0],
    "a delete": [(world) => world.remove("patient", { id: 2 }), 0],
    "a delete of a row that nobody had heard of": [(world) => world.remove("patient", { id: 77 }), 0],
    "another key": [(world) => world.put("patient", patient(20), { from: { id: 2 } }), 0],
    "a key that becomes that of another row": [(world) => { world.remove("patient", { id: 3 }); world.put("patient", patient(3, { ward: "1" }), { from: { id: 1 } }); }, 0],
    "a value that the database did not send": [(world) => world.put("patient", patient(2, { ward: "5" }), { unchanged: ["name"] }), 0],
    "another key and a value that the database did not send": [(world) => world.put("patient", patient(8, { name: "n2" }), { from: { id: 2 }, unchanged: ["name"] }), 0],
    "a value that was not sent of a row that nobody had heard of": [(world) => { world.tables.patient.rows.set("[7]", patient(7)); world.put("patient", patient(7, { age: 1 }), { unchanged: ["name"] }); }, 1],
    "a row that is too large": [(world) => world.put("patient", patient(2, { ward: "x".repeat(20) }), { too_large: true }), 1],
    "a new row that is too large": [(world) => world.put("patient", patient(4), { too_large: true }), 1],
    "a truncate": [(world) => world.truncate("patient"), 0],
    "a truncate, and rows after it": [(world) => { world.truncate("patient"); world.put("patient", patient(5)); }, 0],
    "a reload": [(world) => { world.tables.patient.rows.delete("[1]"); world.reload("patient"); }, 1],
    "an event of an application": [(world) => world.publish("patient", { id: 1, name: "no row" }), 0],
    "an event that looks like rows": [(world) => world.publish("patient", [patient(50)]), 0],
  };
  for (const [what, [happen, reads]] of Object.entries(changes)) {
    test(`is right after ${what}`, async (t) => {
      const all = await watched(t);
      happen(all.world);
      await all.clock.run(5000);
      all.holds(all.list, "patient");
      assert.ok(all.again() <= reads, `it was read ${all.again()} times again`);
      assert.deepEqual(all.told.at(-1), all.list.snapshot().rows);
    });
  }

  test("does not change rows that it gave out", async (t) => {
    const { clock, world, list } = await watched(t);
    const before = list.snapshot();
    const copy = structuredClone(before);
    world.put("patient", patient(2, { ward: "9" }));
    world.remove("patient", { id: 1 });
    await clock.run(MOMENT_MS);
    assert.notEqual(list.snapshot(), before);
    assert.deepEqual(before, copy);
  });

  test("keeps the objects of rows that did not change", async (t) => {
    const { clock, world, list } = await watched(t);
    const [first, second] = list.snapshot().rows;
    world.put("patient", patient(2, { ward: "9" }));
    await clock.run(MOMENT_MS);
    assert.equal(list.snapshot().rows[0], first);
    assert.notEqual(list.snapshot().rows[1], second);
  });

  test("gives the same snapshot until something changes", async (t) => {
    const { clock, world, list } = await watched(t);
    const snapshot = list.snapshot();
    assert.equal(list.snapshot(), snapshot);
    await clock.run(30_000);
    assert.equal(list.snapshot(), snapshot);
    world.publish("patient", "no row");
    world.remove("patient", { id: 99 });
    await clock.run(MOMENT_MS);
    assert.equal(list.snapshot(), snapshot);
    assert.deepEqual([list.rows, list.status, list.error, list.page, list.exact],
      [snapshot.rows, snapshot.status, snapshot.error, snapshot.page, snapshot.exact]);
  });

  test("is told of a burst once", async (t) => {
    const { clock, world, list, told } = await watched(t);
    const before = told.length;
    for (let id = 10; id < 1010; id += 1) world.put("patient", patient(id));
    await clock.run(MOMENT_MS);
    assert.equal(list.rows.length, 1003);
    assert.ok(told.length - before <= 3, `told ${told.length - before} times`);
  });

  test("is told at most sixty times a second", async (t) => {
    const { clock, world, told } = await watched(t);
    const before = told.length;
    for (let at = 0; at < 1000; at += 2) {
      world.put("patient", patient(2, { age: at }));
      await clock.run(2);
    }
    const times = told.length - before;
    assert.ok(times <= 64, `told ${times} times`);
    assert.ok(times >= 10, `told only ${times} times`);
  });

  test("asks before it has its rows: what changes meanwhile is in them", async (t) => {
    const all = await begin(t);
    const list = all.rowcast.live("patient");
    all.world.reading = () => 300;
    all.network.lag = () => 50;
    all.watch(list);
    for (let id = 4; id < 40; id += 1) {
      await all.clock.run(20);
      all.world.put("patient", patient(id));
      if (id % 3 === 0) all.world.remove("patient", { id: id - 2 });
    }
    await all.clock.run(MOMENT_MS);
    all.holds(list, "patient");
  });

  test("is right where the reply comes before the subscription holds", async (t) => {
    const all = await begin(t);
    const { world, clock } = all;
    world.intercept = (frame, session) => frame.type === "sys:subscribe" && !frame.late
      && (clock.in(200, () => session.hear({ ...frame, late: true })), true);
    const list = all.rowcast.live("patient");
    all.watch(list);
    await clock.run(100);
    world.put("patient", patient(4));
    await clock.run(5000);
    all.holds(list, "patient");
  });

  test("of a table with a key of several columns, in which the same values stand the other way round", async (t) => {
    const all = await begin(t);
    const { world } = all;
    const table = new world.tables.patient.constructor({ key: ["a", "b"], order: ["a", "b"], columns: { a: "text", b: "text", n: "int" } });
    world.tables.patient = table;
    world.cut(1006); // The next welcome says so.
    await all.clock.until("another connection", () => all.network.wires.length === 2);
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    for (const [a, b] of [["x", "y"], ["y", "x"], ["x,y", ""], ["x", ",y"], ["1", "1"]]) world.put("patient", { a, b, n: 1 });
    world.put("patient", { a: "y", b: "x", n: 2 });
    world.remove("patient", { a: "x", b: "y" });
    world.put("patient", { a: "z", b: "", n: 3 }, { from: { a: "x,y", b: "" } });
    await all.clock.run(MOMENT_MS);
    all.holds(list, "patient");
  });
});

describe("subscribing", () => {
  test("the first subscriber starts a list, the last one ends it", async (t) => {
    const { rowcast, clock, asked, world } = await begin(t);
    const list = rowcast.live("patient");
    const one = list.subscribe(() => {});
    const two = list.subscribe(() => {});
    await clock.run(MOMENT_MS);
    assert.equal(asked("patient").length, 1);
    one();
    one();
    await clock.run(60_000);
    assert.equal(list.status, "live");
    two();
    await clock.run(60_000);
    assert.equal(list.status, "idle");
    assert.deepEqual(asked("sys:unsubscribe").flatMap(({ types }) => types), ["patient"]);
    world.put("patient", patient(4));
    await clock.run(MOMENT_MS);
    const told = [];
    list.subscribe((rows) => told.push(rows.length));
    await clock.run(MOMENT_MS);
    assert.equal(told.at(-1), 4);
  });

  test("who leaves and comes back at once finds the rows, and nothing is asked again", async (t) => {
    const { rowcast, clock, asked } = await begin(t);
    const list = rowcast.live("patient");
    list.subscribe(() => {})();
    const told = [];
    const stop = list.subscribe((rows) => told.push(rows.length));
    await clock.run(MOMENT_MS);
    stop();
    list.subscribe((rows) => told.push(rows.length));
    await clock.run(MOMENT_MS);
    assert.equal(told.at(-1), 3);
    assert.equal(asked("patient").length, 1);
    assert.equal(asked("sys:unsubscribe").length, 0);
  });

  test("the same type and parameters are the same list", async (t) => {
    const { rowcast } = await begin(t);
    assert.equal(rowcast.live("patient"), rowcast.live("patient"));
    assert.equal(rowcast.live("patient"), rowcast.live("patient", {}));
    assert.equal(rowcast.live("patient", { page: 1, filter: { ward: "3" } }), rowcast.live("patient", { page: 1, filter: { ward: "3" } }));
    assert.notEqual(rowcast.live("patient", { filter: { ward: "3" } }), rowcast.live("patient", { filter: { ward: 3 } }));
    assert.notEqual(rowcast.live("patient", { page: 1 }), rowcast.live("patient", { page: 2 }));
    assert.notEqual(rowcast.live("patient"), rowcast.live("visit"));
    assert.notEqual(rowcast.live("patient", { order: ["ward", "age"] }), rowcast.live("patient", { order: ["age", "ward"] }));
  });

  test("a component may call `live` at every turn", async (t) => {
    const { rowcast, clock, asked } = await begin(t);
    for (let turn = 0; turn < 50; turn += 1) {
      const stop = rowcast.live("patient", { filter: { ward: "3" } }).subscribe(() => {});
      await clock.run(10);
      stop();
    }
    rowcast.live("patient", { filter: { ward: "3" } }).subscribe(() => {});
    await clock.run(MOMENT_MS);
    assert.equal(asked("patient").length, 1);
  });

  test("its functions need no `this`", async (t) => {
    const { rowcast, clock } = await begin(t);
    const { subscribe, snapshot, refresh } = rowcast.live("patient");
    subscribe(() => {});
    await clock.run(MOMENT_MS);
    refresh();
    await clock.run(MOMENT_MS);
    assert.equal(snapshot().rows.length, 3);
  });

  test("a subscriber is called at once with the rows, and is not called after it left", async (t) => {
    const { clock, world, list } = await watched(t);
    const told = [];
    const stop = list.subscribe((rows) => told.push(rows.length));
    assert.deepEqual(told, [3]);
    world.put("patient", patient(4));
    await clock.run(5);
    stop();
    await clock.run(MOMENT_MS);
    assert.ok(told.length <= 2);
    const before = told.length;
    world.put("patient", patient(5));
    await clock.run(MOMENT_MS);
    assert.equal(told.length, before);
  });

  test("subscribers may leave while they are told", async (t) => {
    const { clock, world, list } = await watched(t);
    const told = [];
    const stops = [];
    for (const name of ["a", "b", "c"]) {
      let first = true;
      stops.push(list.subscribe(() => {
        if (!first) {
          told.push(name);
          for (const stop of stops) stop();
        }
        first = false;
      }));
    }
    world.put("patient", patient(4));
    await clock.run(MOMENT_MS);
    assert.ok(told.includes("a"));
    world.put("patient", patient(5));
    await clock.run(MOMENT_MS);
    assert.equal(told.filter((name) => name === "a").length, 1);
  });
});

describe("filters", () => {
  test("one list with a filter has the server send only its rows", async (t) => {
    const filter = { ward: "3" };
    const { asked, world, clock, list, holds, again, network } = await watched(t, "patient", { filter });
    const named = [...asked("sys:hello"), ...asked("sys:subscribe")].map(({ types }) => types.patient).filter(Boolean);
    assert.deepEqual(named.at(-1), { filter });
    world.put("patient", patient(2, { ward: "4" }));
    world.put("patient", patient(5, { ward: "4" }));
    world.put("patient", patient(6));
    await clock.run(MOMENT_MS);
    holds(list, "patient", { filter });
    assert.equal(again(), 0);
    assert.equal(network.wires.length, 1);
  });

  test("two lists of one type with different filters share the socket, and each has its own rows", async (t) => {
    const all = await begin(t);
    const { rowcast, clock, world } = all;
    const params = [{ filter: { ward: "3" } }, { filter: { age: { gte: 63 } } }, {}];
    const lists = params.map((params) => rowcast.live("patient", params));
    for (const list of lists) all.watch(list);
    await clock.run(MOMENT_MS);
    for (const row of [patient(1, { ward: "4" }), patient(2, { age: 70 }), patient(3, { age: 5 }), patient(4, { ward: "9", age: 99 })]) {
      world.put("patient", row);
      await clock.run(5000);
      lists.forEach((list, at) => all.holds(list, "patient", params[at]));
    }
    world.remove("patient", { id: 2 });
    world.put("patient", patient(8), { from: { id: 4 } });
    await clock.run(5000);
    lists.forEach((list, at) => all.holds(list, "patient", params[at]));
    assert.equal(all.network.wires.length, 1);
  });

  test("a handler of the type hears every event, also beside a list with a filter", async (t) => {
    const all = await watched(t, "patient", { filter: { ward: "4" } });
    const heard = [];
    all.rowcast.on("patient", ({ key }) => heard.push(key.id));
    await all.clock.run(MOMENT_MS);
    all.world.put("patient", patient(10));
    all.world.put("patient", patient(11, { ward: "4" }));
    await all.clock.run(5000);
    assert.deepEqual(heard, [10, 11]);
    all.holds(all.list, "patient", { filter: { ward: "4" } });
  });

  test("when the other list leaves, the first still has its rows", async (t) => {
    const all = await watched(t, "patient", { filter: { ward: "3" } });
    const { rowcast, world, clock } = all;
    const stop = rowcast.live("patient", { filter: { ward: "4" } }).subscribe(() => {});
    await clock.run(MOMENT_MS);
    stop();
    for (let id = 4; id < 30; id += 1) {
      world.put("patient", patient(id, { ward: id % 2 ? "3" : "4" }));
      await clock.run(1000);
    }
    world.put("patient", patient(5, { ward: "4" }));
    await clock.run(5000);
    all.holds(all.list, "patient", { filter: { ward: "3" } });
  });

  test("a filter that only the database can judge is followed all the same", async (t) => {
    const filter = { name: { gte: "n2" } };
    const all = await watched(t, "patient", { filter });
    all.holds(all.list, "patient", { filter });
    for (const row of [patient(4), patient(5, { name: "a" }), patient(3, { name: "B" })]) {
      all.world.put("patient", row);
      await all.clock.run(5000);
      all.holds(all.list, "patient", { filter });
    }
    all.world.cut(1006);
    await all.clock.run(10_000);
    all.world.put("patient", patient(6));
    await all.clock.run(5000);
    all.holds(all.list, "patient", { filter });
  });

  // Values that are not what they look like: the page does not know the columns' types.
  const doubtful = {
    "a decimal number as a number": [{ paid: 1.5 }, { paid: "1.50" }, { paid: "1.5" }],
    "a decimal number as text": [{ paid: "1.5" }, { paid: "1.500" }, { paid: "15" }],
    "decimal numbers, which are texts, in their order": [{ paid: { lt: "10" } }, { paid: "9.50" }, { paid: "10.50" }],
    "decimal numbers against a number": [{ paid: { gt: 9 } }, { paid: "9.50" }, { paid: "8" }],
    "a decimal number that is another one": [{ paid: { ne: 1.5 } }, { paid: "2.5" }, { paid: "1.5000" }],
    "some decimal numbers": [{ paid: ["1.5", "2"] }, { paid: "2.00" }, { paid: "3" }],
    "a text whose collation does not tell cases apart": [{ name: "ABC" }, { name: "abc" }, { name: "x" }],
    "a pattern": [{ ward: { like: "1_%" } }, { ward: "123" }, { ward: "1" }],
    "a pattern with the characters of another language of patterns": [{ ward: { like: "a.c%" } }, { ward: "A.c(" }, { ward: "abc" }],
    "an integer given as text": [{ age: "7" }, { age: 7 }, { age: 8 }],
    "a number given for a text": [{ ward: 7 }, { ward: "7" }, { ward: "8" }],
    "an integer beyond 2^53": [{ age: { gt: 9007199254740000 } }, { age: "9007199254740993" }, { age: "10000000000000000000" }],
    "a long integer, smaller as a text": [{ age: { lt: "9007199254740993" } }, { age: 5 }, { age: "10000000000000000000" }],
    "a time in another zone": [{ seen: "2026-11-23T03:00:00+01:00" }, { seen: "2026-11-23T02:00:00Z" }, { seen: "2026-11-23T03:00:00Z" }],
    "times in their order": [{ seen: { gte: "2026-11-23T02:00:00.5Z" } }, { seen: "2026-11-23T02:00:00.50Z" }, { seen: "2026-11-23T02:00:00Z" }],
    "null": [{ seen: null }, { seen: null }, { seen: "2026-11-23T02:00:00Z" }],
    "anything but null": [{ seen: { ne: null } }, { seen: "2026-11-23T02:00:00Z" }, { seen: null }],
    "anything but a value, which null is not": [{ age: { ne: 5 } }, { age: 6 }, { age: null }],
    "less than a value, which null is not": [{ age: { lt: 5 } }, { age: 4 }, { age: null }],
    "null or a value": [{ age: [null, 5] }, { age: null }, { age: 6 }],
    "one of none": [{ age: [] }, { age: 5 }, { age: null }],
    "a condition of two bounds": [{ age: { gte: 5, lt: 9 } }, { age: 5 }, { age: 9 }],
    "a value that is null, by its comparison": [{ age: { eq: null } }, { age: null }, { age: 1 }],
  };
  for (const [what, [filter, one, other]] of Object.entries(doubtful)) {
    test(`beside another list of the type, ${what} is judged as the database does`, async (t) => {
      const all = await begin(t, { told: "full" });
      const params = [{ filter }, { filter: { ward: "none such" } }];
      const lists = params.map((params) => all.rowcast.live("patient", params));
      for (const list of lists) all.watch(list);
      await all.clock.run(MOMENT_MS);
      const steps = [patient(50, one), patient(51, other), patient(50, other), patient(51, one), patient(1, one), patient(2, other), patient(1, other)];
      for (const row of steps) {
        all.world.put("patient", row);
        await all.clock.run(5000);
        lists.forEach((list, at) => all.holds(list, "patient", params[at]));
      }
    });
  }

  test("beside another list, a condition on a value that was not sent is judged as the database does", async (t) => {
    const all = await begin(t);
    const params = [{ filter: { name: "n1" } }, { filter: { age: { gt: 0 } } }];
    const lists = params.map((params) => all.rowcast.live("patient", params));
    for (const list of lists) all.watch(list);
    await all.clock.run(MOMENT_MS);
    all.world.put("patient", patient(1, { age: 7 }), { unchanged: ["name"] });
    all.world.put("patient", patient(2, { age: 8 }), { unchanged: ["name"] });
    all.world.tables.patient.rows.set("[9]", patient(9, { name: "n1" }));
    all.world.put("patient", patient(9, { name: "n1", age: -1 }), { unchanged: ["name"] });
    await all.clock.run(5000);
    lists.forEach((list, at) => all.holds(list, "patient", params[at]));
  });

  test("a filter whose values are plain numbers asks for nothing more, also beside another list", async (t) => {
    const all = await begin(t);
    const params = [{ filter: { age: { gte: 62 } } }, { filter: { id: [1, 3] } }];
    const lists = params.map((params) => all.rowcast.live("patient", params));
    for (const list of lists) all.watch(list);
    await all.clock.run(MOMENT_MS);
    const before = all.asked("patient").length;
    for (let turn = 0; turn < 20; turn += 1) {
      all.world.put("patient", patient(1 + (turn % 5), { age: 50 + turn }));
      await all.clock.run(1000);
    }
    lists.forEach((list, at) => all.holds(list, "patient", params[at]));
    const reads = all.asked("patient").length - before;
    t.diagnostic(`${reads} reads for 20 changes`);
    assert.ok(reads <= 40);
  });
});

describe("lists that are read again", () => {
  test("a paged list is, when its topic is touched", async (t) => {
    const params = { page: 2, size: 2, order: "age desc" };
    const all = await watched(t, "patient", params);
    all.holds(all.list, "patient", params);
    assert.deepEqual(all.list.page, { ...all.list.page, number: 2, size: 2, total: 3 });
    all.world.put("patient", patient(4, { age: 99 }));
    await all.clock.run(5000);
    all.holds(all.list, "patient", params);
    assert.equal(all.list.page.total, 4);
    all.world.remove("patient", { id: 4 });
    await all.clock.run(5000);
    all.holds(all.list, "patient", params);
  });

  test("once for a burst, and now and then while it goes on", async (t) => {
    const params = { page: 1, size: 2 };
    const all = await watched(t, "patient", params);
    for (let id = 10; id < 1010; id += 1) all.world.put("patient", patient(id));
    await all.clock.run(5000);
    assert.ok(all.again() >= 1 && all.again() <= 3, `read ${all.again()} times for a burst`);
    const before = all.again();
    for (let at = 0; at < 5000; at += 5) {
      all.world.put("patient", patient(1, { age: at }));
      await all.clock.run(5);
    }
    const reads = all.again() - before;
    assert.ok(reads >= 5 && reads <= 100, `read ${reads} times in 5 s`);
    await all.clock.run(5000);
    all.holds(all.list, "patient", params);
  });

  test("never twice at once", async (t) => {
    const all = await watched(t, "patient", { page: 1, size: 2 });
    let most = 0;
    all.world.reading = () => {
      for (const session of all.world.sessions) most = Math.max(most, session.asked);
      return 700;
    };
    for (let at = 0; at < 5000; at += 50) {
      all.world.put("patient", patient(1, { age: at }));
      await all.clock.run(50);
    }
    await all.clock.run(5000);
    assert.equal(most, 1);
    all.holds(all.list, "patient", { page: 1, size: 2 });
  });

  test("no event of an application touches it", async (t) => {
    const all = await watched(t, "patient", { page: 1 });
    all.world.publish("patient", 1);
    await all.clock.run(5000);
    assert.equal(all.again(), 0);
  });

  test("a whole view in the order of decimal numbers, which are texts, stays in it", async (t) => {
    const all = await watched(t, "patient", { order: "paid" });
    for (const id of [1, 2, 3]) all.world.remove("patient", { id });
    for (const [id, paid] of [[4, "-1.5"], [5, "-2.5"], [6, "10.00"], [7, "9.00"], [4, "-3.5"]]) {
      all.world.put("patient", patient(id, { paid }));
      await all.clock.run(5000);
      all.holds(all.list, "patient", { order: "paid" });
    }
  });

  for (const order of ["age", "age desc", ["ward", "age desc"], "name", "seen", "id desc", "paid desc"]) {
    test(`a whole view in the order ${JSON.stringify(order)} stays in it`, async (t) => {
      const all = await watched(t, "patient", { order });
      for (const row of [patient(4, { age: 1, name: "B" }), patient(5, { seen: "2026-11-23T02:00:00Z", name: "a" }), patient(1, { age: null, paid: "10" }), patient(2, { age: 61, paid: "9" })]) {
        all.world.put("patient", row);
        await all.clock.run(5000);
        all.holds(all.list, "patient", { order });
      }
    });
  }

  test("a whole view keeps the topic's own order where none is given", async (t) => {
    const all = await watched(t, "visit");
    for (const [id, patient_id] of [[1, 5], [2, 9], [3, 7], [1, 8], [4, 7]]) {
      all.world.put("visit", { id, patient_id });
      await all.clock.run(5000);
      all.holds(all.list, "visit");
    }
  });

  test("a page after another is, with its own question", async (t) => {
    const all = await begin(t);
    const first = all.rowcast.query("patient", { page: 1, size: 2, order: "id desc" });
    await all.clock.run(MOMENT_MS);
    const params = { after: (await first).page.next };
    const list = all.rowcast.live("patient", params);
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    all.holds(list, "patient", params);
    assert.equal(list.page.number, null);
    all.world.put("patient", patient(9));
    await all.clock.run(5000);
    all.holds(list, "patient", params);
  });

  test("`refresh` of a list reads that one, `refresh` of a type all of it", async (t) => {
    const all = await watched(t);
    const visits = all.rowcast.live("visit");
    const paged = all.rowcast.live("patient", { page: 1 });
    all.watch(visits);
    all.watch(paged);
    await all.clock.run(MOMENT_MS);
    const count = () => [all.asked("patient").length, all.asked("visit").length];
    const [patients, visited] = count();
    all.list.refresh();
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(count(), [patients + 1, visited]);
    all.rowcast.refresh("patient");
    await all.clock.run(MOMENT_MS);
    assert.deepEqual(count(), [patients + 3, visited]);
    all.rowcast.refresh("nobody");
    all.holds(all.list, "patient");
  });

  test("`refresh` while a list is being read has it read once more: what was asked before need not contain it", async (t) => {
    const all = await watched(t);
    all.world.reading = () => 300;
    all.list.refresh();
    await all.clock.run(100);
    all.list.refresh();
    all.list.refresh();
    await all.clock.run(5000);
    assert.equal(all.again(), 2);
    all.holds(all.list, "patient");
  });

  test("one that could not be placed exactly is read again by itself, and says so meanwhile", async (t) => {
    const all = await begin(t);
    let inexact = 1;
    all.world.exact = () => inexact-- <= 0;
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(500);
    assert.equal(list.exact, false);
    await all.clock.run(20_000);
    assert.equal(list.exact, true);
    all.holds(list, "patient");
    assert.equal(all.asked("patient").length, 2);
  });

  test("while none can be placed exactly, nobody is asked in a hurry", async (t) => {
    const all = await begin(t);
    all.world.exact = () => false;
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(60_000);
    const reads = all.asked("patient").length;
    assert.ok(reads >= 3 && reads <= 61, `read ${reads} times in a minute`);
    all.world.exact = () => true;
    await all.clock.run(60_000);
    all.holds(list, "patient");
  });
});

describe("page topics", () => {
  test("show the page that is pushed, without a query, where it is the whole view", async (t) => {
    const all = await watched(t, "news");
    for (let id = 1; id < 4; id += 1) {
      all.world.put("news", { id, text: `t${id}` });
      await all.clock.run(5000);
      all.holds(all.list, "news");
    }
  });

  test("show their page also where the view is larger", async (t) => {
    const all = await watched(t, "news");
    for (let id = 1; id < 15; id += 1) all.world.put("news", { id, text: `t${id}` });
    await all.clock.run(5000);
    all.holds(all.list, "news");
    assert.equal(all.list.page.total, 14);
    all.world.remove("news", { id: 3 });
    await all.clock.run(5000);
    all.holds(all.list, "news");
  });

  for (const params of [{ page: 1 }, { page: 2 }, { page: 1, size: 2 }, { size: 3, order: "id desc" }, { filter: { id: { gt: 4 } } }, { order: "text desc" }]) {
    test(`with ${JSON.stringify(params)} show what was asked for`, async (t) => {
      const all = await watched(t, "news", params);
      for (let id = 1; id < 9; id += 1) {
        all.world.put("news", { id, text: `t${id}` });
        await all.clock.run(3000);
        all.holds(all.list, "news", params);
      }
    });
  }

  test("reach a handler of the type as they are pushed", async (t) => {
    const { rowcast, world, clock } = await begin(t);
    const heard = [];
    rowcast.on("news", ({ op, data, page }) => heard.push([op, data.length, page.total]));
    await clock.run(MOMENT_MS);
    world.put("news", { id: 1, text: "a" });
    await clock.run(MOMENT_MS);
    assert.deepEqual(heard, [["replace", 1, 1]]);
  });

  test("an event of an application changes no row", async (t) => {
    const all = await watched(t, "news");
    all.world.publish("news", "更新数据了,个人信息");
    await all.clock.run(5000);
    all.holds(all.list, "news");
  });
});

describe("a list that cannot be had", () => {
  test("says why, and is had as soon as it can be", async (t) => {
    const all = await begin(t);
    const list = all.rowcast.live("nobody");
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    assert.equal(list.status, "error");
    assert.deepEqual([list.error.code, list.error.error], [404, "unknown_type"]);
    const snapshot = list.snapshot();
    assert.equal(list.snapshot(), snapshot);
    all.world.tables.nobody = new all.world.tables.patient.constructor({ columns: { id: "int" } });
    all.world.tables.nobody.rows.set("[1]", { id: 1 });
    all.world.cut(1012); // A topic is new with a new server.
    await all.clock.run(30_000);
    all.holds(list, "nobody");
    all.world.put("nobody", { id: 2 });
    await all.clock.run(MOMENT_MS);
    all.holds(list, "nobody");
  });

  test("does not harm the others", async (t) => {
    const all = await begin(t);
    for (const [type, params] of [["nobody", {}], ["note", {}], ["patient", { filter: { nothing: 1 } }]]) all.watch(all.rowcast.live(type, params));
    const list = all.rowcast.live("patient", { filter: { ward: "3" } });
    all.watch(list);
    const heard = [];
    all.rowcast.on("note", ({ data }) => heard.push(data));
    all.world.intercept = ({ type, rid, params }, session) => type === "patient" && params?.filter?.nothing !== undefined
      && (session.fail(rid, 400, "bad_param", { detail: "params.filter.nothing: the topic's own columns are allowed" }), true);
    await all.clock.run(MOMENT_MS);
    const refused = all.rowcast.live("patient", { filter: { nothing: 1 } });
    assert.equal(refused.error?.error, "bad_param");
    for (let turn = 0; turn < 3; turn += 1) {
      all.world.put("patient", patient(10 + turn));
      all.world.publish("note", turn);
      await all.clock.run(5000);
      all.holds(list, "patient", { filter: { ward: "3" } });
      all.world.cut(1006);
      await all.clock.run(10_000);
      all.holds(list, "patient", { filter: { ward: "3" } });
    }
    assert.deepEqual(heard, [0, 1, 2]);
  });

  test("is read again where the database was away for a while", async (t) => {
    const all = await begin(t);
    let away = true;
    all.world.intercept = ({ type, rid }, session) => type === "patient" && away && (session.fail(rid, 503, "db_unavailable"), true);
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(30_000);
    assert.ok(all.asked("patient").length <= 40);
    away = false;
    await all.clock.run(60_000);
    all.holds(list, "patient");
  });

  test("keeps its rows, as stale, where only reading it again fails", async (t) => {
    const all = await watched(t);
    let away = true;
    all.world.intercept = ({ type, rid }, session) => type === "patient" && away && (session.fail(rid, 503, "db_unavailable"), true);
    all.world.reload("patient");
    await all.clock.run(5000);
    assert.equal(all.list.rows.length, 3);
    assert.notEqual(all.list.status, "live");
    away = false;
    await all.clock.run(60_000);
    all.holds(all.list, "patient");
  });

  test("asks again after the time that the server names", async (t) => {
    const all = await begin(t);
    let refusals = 3;
    all.world.intercept = ({ type, rid }, session) => type === "patient" && refusals-- > 0
      && (session.fail(rid, 429, "too_many_requests", { retry_after_ms: 250 }), true);
    const list = all.rowcast.live("patient");
    all.watch(list);
    await all.clock.run(10_000);
    all.holds(list, "patient");
  });

  test("twenty lists at once are within what a socket may ask at once, or ask again", async (t) => {
    const all = await begin(t);
    all.world.reading = () => 100;
    all.world.intercept = ({ type, rid }, session) => type === "patient" && session.asked >= 10
      && (session.fail(rid, 429, "too_many_requests", { retry_after_ms: 250 }), true);
    const params = Array.from({ length: 20 }, (_, ward) => ({ filter: { ward: String(ward) } }));
    const lists = params.map((params) => all.rowcast.live("patient", params));
    for (const list of lists) all.watch(list);
    await all.clock.run(20_000);
    lists.forEach((list, at) => all.holds(list, "patient", params[at]));
  });
});

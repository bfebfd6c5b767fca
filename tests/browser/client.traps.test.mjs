// What a developer may do to client/rowcast.js, and what may happen to a server, without a list ever
// being wrong in silence.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../../client/rowcast.js";
import { begin, living, MOMENT_MS, patient } from "./scene.mjs";

test("more lists than are kept in mind stay each what they are", async (t) => {
  const all = await begin(t);
  const params = (at) => ({ filter: { id: at } });
  const lists = Array.from({ length: 1500 }, (_, at) => all.rowcast.live("patient", params(at)));
  lists.forEach((list) => all.watch(list));
  lists.forEach((list, at) => assert.equal(all.rowcast.live("patient", params(at)), list));
});

test("a list whose reads fail is not live while another one might be right", async (t) => {
  const all = await begin(t);
  const list = all.rowcast.live("patient", { page: 1, size: 2 });
  all.watch(list);
  await all.clock.run(MOMENT_MS);
  all.holds(list, "patient", { page: 1, size: 2 });
  const before = all.asked("patient").length;
  all.world.failing = { code: 503, error: "db_unavailable" };
  all.world.remove("patient", { id: 1 });
  await all.clock.run(600_000);
  assert.equal(list.status, "stale");
  const asked = all.asked("patient").length - before;
  assert.ok(asked > 20 && asked < 80, `asked ${asked} times in ten minutes`);
  all.world.failing = null;
  await all.clock.run(60_000);
  all.holds(list, "patient", { page: 1, size: 2 });
});

test("a query that is no JSON is refused, and takes nobody's place", async (t) => {
  const all = await living(t);
  for (let one = 0; one < 10; one += 1) await assert.rejects(all.rowcast.query("patient", { id: 5n }), TypeError);
  assert.throws(() => all.rowcast.live("patient", { filter: { id: 5n } }), TypeError);
  const reply = all.rowcast.query("patient", { id: 1 });
  await all.clock.run(MOMENT_MS);
  assert.equal((await reply).data.length, 1);
});

test("a condition that is not known yet shows no row, however deep it stands", async (t) => {
  const all = await begin(t);
  for (const filter of [{ ward: undefined }, { age: { gte: undefined } }, { id: [1, undefined] }]) {
    const list = all.rowcast.live("patient", { filter });
    all.watch(list);
    await all.clock.run(MOMENT_MS);
    assert.deepEqual([list.status, list.rows], ["idle", []]);
    await assert.rejects(all.rowcast.query("patient", { filter }), { error: "bad_param" });
  }
  await assert.rejects(all.rowcast.query("patient", { id: undefined }), { error: "bad_param" });
  assert.equal(all.asked("patient").length, 0);
});

test("parameters that are changed afterwards change nobody's list", async (t) => {
  const all = await begin(t);
  const params = { filter: { ward: "3" } };
  const list = all.rowcast.live("patient", params);
  all.watch(list);
  params.filter.ward = "4";
  await all.clock.run(MOMENT_MS);
  list.refresh();
  await all.clock.run(MOMENT_MS);
  assert.equal(all.rowcast.live("patient", { filter: { ward: "3" } }), list);
  all.holds(list, "patient", { filter: { ward: "3" } });
});

test("an order is the same with blanks around it, and texts are ordered by the database", async (t) => {
  const all = await begin(t);
  const lists = [" name desc", "ward"].map((order) => [order.trim(), all.rowcast.live("patient", { order })]);
  for (const [, list] of lists) all.watch(list);
  await all.clock.run(MOMENT_MS);
  all.world.put("patient", patient(1, { name: "zz", ward: "b" }));
  all.world.put("patient", patient(4, { ward: "A" }));
  await all.clock.run(5000);
  for (const [order, list] of lists) all.holds(list, "patient", { order });
});

test("parameters that nobody knows, and addresses that are none, are refused at once", async (t) => {
  const all = await begin(t);
  assert.throws(() => all.rowcast.live("patient", { where: {} }), { error: "bad_param" });
  await assert.rejects(all.rowcast.query("patient", { pge: 1 }), { error: "bad_param" });
  assert.throws(() => connect("127.0.0.1:8888", { socket: all.network.socket }), { error: "bad_url" });
});

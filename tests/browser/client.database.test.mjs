// The lists of client/rowcast.js on a real PostgreSQL, many filters and orders of one type on one
// socket: what the page judges by JSON alone, the database judges by types and collations. Every
// list must be what the same query answers.
//
//   ROWCAST_SEED  of the rows; default another one every time

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WebSocket } from "ws";
import { connect } from "../../client/rowcast.js";
import { random } from "./scripted.mjs";
import { Stack, waitFor } from "./stack.mjs";

const SEED = Number(process.env.ROWCAST_SEED ?? Math.floor(Math.random() * 1e9));
const ROUNDS = 6;
const WRITES = 8;

/** Columns with the values that they take; each value is SQL's as it is JSON's, or a text. */
const COLUMNS = {
  name: ["text", [null, "a", "b", "B", "bc", "10", "9"]],
  sorted: [`text collate "en-x-icu"`, [null, "a", "B", "b", "é", "王", "-a"]],
  age: ["int", [null, 1, 2, 3, 4]],
  paid: ["numeric", [null, "1.5", "1.50", "-2.5", "-1.5", "10.0", "9.5", "NaN"]],
  seen: ["timestamptz", [null, "2026-11-23 02:00:00+00", "2026-11-23 01:59:59.5+00", "2026-11-23 02:00:00.5+00", "infinity"]],
  day: ["date", [null, "2026-11-22", "2026-11-23", "0044-03-15 BC"]],
  ok: ["boolean", [null, true, false]],
  single: ["real", [null, 0.1, 0.2, 3]],
  twice: ["float8", [null, 0.1, "NaN", "Infinity", 5, 1e300]],
  big: ["bigint", [null, 5, "9007199254740993", "9007199254740994", "-9007199254740993"]],
  token: ["uuid", [null, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]],
  padded: ["char(4)", [null, "ab", "abc", "b"]],
};

const FILTERS = [
  { name: "b" }, { name: { ne: "b" } }, { name: { like: "b%" } }, { sorted: { gt: "b" } }, { padded: "ab" }, { padded: "ab  " },
  { age: [1, 3, null] }, { age: { gte: 2, lt: 4 } }, { age: "3" }, { age: { eq: null } }, { ok: true }, { ok: "true" }, { ok: { ne: null } },
  { paid: 1.5 }, { paid: { gt: 2 } }, { paid: ["1.5", null] }, { single: 0.1 }, { single: { gt: 0.1 } }, { twice: { lte: 0.1 } }, { twice: "NaN" },
  { big: { gt: "9007199254740992" } }, { big: "9007199254740993" }, { big: "5" }, { token: "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11" },
  { seen: "2026-11-23T03:00:00+01:00" }, { seen: { gte: "2026-11-23T02:00:00Z" } }, { day: { lt: "2026-11-23" } },
];
const ORDERS = ["age", "age desc", "name", "sorted desc", "paid", ["ok", "seen desc"], "token", "big desc", "twice", "padded"];
const LISTS = [
  {}, ...FILTERS.map((filter) => ({ filter })), ...ORDERS.map((order) => ({ order })),
  { page: 1, size: 3, order: "age" }, { page: 2, size: 2, filter: { ok: true } },
];

let stack;
let rowcast;

before(async () => {
  const columns = Object.entries(COLUMNS).map(([name, [type]]) => `${name} ${type}`);
  // Forty lists, and the question behind each, time and again over one socket.
  const limits = "[limits]\nmessages_per_second = 1000\nmessages_burst = 10000\n";
  stack = await Stack.start(`${limits}[[topics]]\ntype = "item"\ntable = "item"\npush = "row"\n`, `create table item (id int primary key, ${columns})`);
  rowcast = connect(stack.gateways.map(({ url }) => url), { socket: (url) => new WebSocket(url) });
});

after(async () => {
  rowcast?.close();
  await stack?.remove();
});

test(`${LISTS.length} lists of one type are what the same queries answer, from the seed ${SEED} on`, async () => {
  const dice = random(SEED);
  const literal = (value) => (typeof value === "string" ? `'${value}'` : String(value));
  const write = () => {
    const id = 1 + dice.below(9);
    if (dice.chance(0.1)) return `delete from item where id = ${id};`;
    if (dice.chance(0.1)) return `update item set id = ${100 + dice.below(100_000)} where id = ${id};`;
    const names = Object.keys(COLUMNS);
    const values = names.map((name) => literal(dice.pick(COLUMNS[name][1])));
    return `insert into item (id, ${names}) values (${id}, ${values}) on conflict (id) do update set ${names.map((name) => `${name} = excluded.${name}`)};`;
  };
  const lists = LISTS.map((params) => rowcast.live("item", params));
  const stops = lists.map((list) => list.subscribe(() => {}));
  for (let round = 0; round < ROUNDS; round += 1) {
    stack.postgres.sql(Array.from({ length: WRITES }, write).join("\n"));
    const wrong = () => lists.map(async (list, at) => {
      const params = LISTS[at];
      const { data } = await rowcast.query("item", params.page ? params : { ...params, all: true });
      try {
        assert.deepEqual([list.status, list.rows], ["live", data]);
        return null;
      } catch (error) {
        return `live("item", ${JSON.stringify(params)}) in round ${round}: ${error.message}`;
      }
    });
    let faults;
    await waitFor("every list is its query's answer", async () => {
      faults = (await Promise.all(wrong())).filter(Boolean);
      return faults.length === 0;
    }).catch((error) => assert.fail(faults?.join("\n") ?? error));
  }
  assert.ok(lists[0].rows.length > 0);
  for (const stop of stops) stop();
});

// A client on a world of its own, on the test's clock: what every test of client/rowcast.js begins
// with.

import assert from "node:assert/strict";
import { connect } from "../../client/rowcast.js";
import { Table, World } from "./model.mjs";
import { Clock, Network, Page } from "./scripted.mjs";

const PATIENT = { id: "int", name: "folded", ward: "text", age: "int", paid: "numeric", seen: "stamp" };

/** How long what should happen at once may take: a moment in which changes are gathered. */
export const MOMENT_MS = 1000;

export const patient = (id, more = {}) => ({ id, name: `n${id}`, ward: "3", age: 60 + id, paid: "1.50", seen: null, ...more });

/**
 * A client on a world of its own: a topic `patient` with three rows, a topic `visit` without any,
 * a page topic `news`, a topic `note` without a table.
 */
export async function begin(t, { url = "https://a.example", options = {}, page = false, told, columns = PATIENT, connectAt = true } = {}) {
  t.mock.method(console, "warn", () => {}); // What it tells a developer is not the test's.
  const clock = new Clock().install();
  const network = new Network(clock);
  const world = new World(network, {
    patient: new Table({ columns, told }),
    visit: new Table({ columns: { id: "int", patient_id: "int" }, order: ["patient_id desc", "id"] }),
    news: new Table({ push: "page", columns: { id: "int", text: "text" } }),
    note: { push: "row" },
  });
  for (const id of [1, 2, 3]) world.tables.patient.rows.set(`[${id}]`, patient(id));
  const shown = page ? new Page().install() : null;
  const all = { clock, network, world, page: shown, statuses: [] };
  all.connect = () => {
    all.rowcast = connect(url, { socket: network.socket, ...options });
    all.rowcast.on("sys:status", (frame) => all.statuses.push(frame));
    return all.rowcast;
  };
  t.after(async () => {
    all.rowcast?.close();
    await clock.run(60_000);
    const idle = clock.idle;
    shown?.restore();
    clock.restore();
    assert.ok(idle, "a timer goes on after close()");
  });
  if (connectAt) {
    all.connect();
    await clock.run(MOMENT_MS);
  }
  /** Subscribes to a list, and keeps every array of rows that it told. */
  all.watch = (list) => {
    const told = [];
    const stop = list.subscribe((rows) => told.push(rows));
    t.after(stop);
    return Object.assign(told, { stop });
  };
  /** Every request of that type that any server was sent. */
  all.asked = (type, from = 0) => network.wires.slice(from).flatMap((wire) => wire.sent).filter((frame) => frame.type === type);
  /** Fails unless the list shows what the world would answer. */
  all.holds = (list, type, params) => {
    const table = world.tables[type];
    const paged = table.push === "page" || ["page", "size", "after"].some((name) => params?.[name] !== undefined);
    const expected = paged ? table.page(params).data : table.select(params);
    assert.deepEqual(list.snapshot().rows, expected);
    assert.deepEqual([list.status, list.error], ["live", null]);
  };
  return all;
}

/** The longest that a client may take to come back to a server that is there. */
export const BACK_MS = 30_000;

/** A client with a list, and a handler that hears `note`. */
export async function living(t, how = {}) {
  const all = await begin(t, how);
  all.list = all.rowcast.live("patient");
  all.told = all.watch(all.list);
  all.heard = [];
  all.rowcast.on("note", ({ data }) => all.heard.push(data));
  all.resets = [];
  all.rowcast.on("sys:reset", (frame) => all.resets.push(frame.reason));
  await all.clock.run(MOMENT_MS);
  all.holds(all.list, "patient");
  /** Waits for the next socket, and returns how long it took. */
  all.next = (most = BACK_MS) => {
    const before = all.network.wires.length;
    return all.clock.until("another socket", () => all.network.wires.length > before, most);
  };
  /** Waits until it is live again. */
  all.back = () => all.clock.until("the connection", () => all.rowcast.status === "live", BACK_MS * 4);
  return all;
}

/** The hello that was sent on a socket. */
export const hello = (wire) => wire.sent.find(({ type }) => type === "sys:hello");

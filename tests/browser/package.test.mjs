// client/ as what it is published as: its size, its files, and how it works where it is used: in
// Node without a browser, with React, as a Svelte store.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import React from "react";
import ReactTestRenderer from "react-test-renderer";
import { minify } from "terser";
import { WebSocketServer } from "ws";
import { begin, MOMENT_MS, patient } from "./scene.mjs";

/** Bytes of client/rowcast.js, minified and gzipped, that a page is asked to load at the most. */
const MAX_BYTES = 6144;

const client = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../client");

test(`rowcast.js is at most ${MAX_BYTES} bytes, minified and gzipped`, async (t) => {
  const source = readFileSync(path.join(client, "rowcast.js"), "utf8");
  const { code } = await minify(source, { module: true, compress: { passes: 2 } });
  const { length } = gzipSync(code, { level: 9 });
  t.diagnostic(`rowcast.js: ${source.length} bytes, ${code.length} minified, ${length} gzipped`);
  assert.ok(length <= MAX_BYTES, `${length} bytes`);
});

describe("the package", () => {
  const manifest = JSON.parse(readFileSync(path.join(client, "package.json"), "utf8"));

  test("has all that it exports, the types, the README and the licence, and nothing else", () => {
    const [{ files }] = JSON.parse(execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: client, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
    const names = files.map(({ path }) => path).sort();
    const paths = (exported) => (typeof exported === "string" ? [exported] : Object.values(exported).flatMap(paths));
    for (const exported of paths(manifest.exports)) assert.ok(names.includes(exported.replace("./", "")), `${exported} is exported and not there`);
    for (const name of ["package.json", "README.md", "LICENSE", "rowcast.js", "rowcast.d.ts"]) assert.ok(names.includes(name), `${name} is not there`);
    assert.ok(names.every((name) => /^(package\.json|README\.md|LICENSE|[a-z]+\.(js|d\.ts))$/.test(name)), String(names));
  });

  test("depends on nothing, and is an ES module", () => {
    assert.deepEqual([manifest.dependencies, manifest.type, manifest.name], [undefined, "module", "rowcast"]);
    const source = readFileSync(path.join(client, "rowcast.js"), "utf8");
    assert.ok(!/^\s*import\s|\bimport\(|\brequire\(/m.test(source));
  });
});

/** A real WebSocket server that welcomes whoever comes; ends with the test. */
async function serve(t) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  t.after(() => server.close());
  await once(server, "listening");
  server.on("connection", (socket) => socket.on("message", (text) => {
    const { type, rid } = JSON.parse(text);
    const cursor = "e1:1";
    if (type === "sys:hello") socket.send(JSON.stringify({ type: "sys:welcome", rid, cursor, recovered: false, replay: 0, ping_ms: 25000, tick_ms: 5000, topics: { patient: { push: "row", key: ["id"], order: ["id"] } } }));
    else if (type.startsWith("sys:")) socket.send(JSON.stringify({ type: "sys:ok", rid, cursor }));
    else {
      socket.send(JSON.stringify({ type, rid, op: "replace", data: [{ id: 1 }], cursor, part: 1, last: true }));
      socket.send(JSON.stringify({ type, op: "insert", key: { id: 2 }, data: { id: 2 }, cursor: "e1:2", ts: 1 }));
    }
  }));
  return `ws://127.0.0.1:${server.address().port}/socket/all/`;
}

/** Runs a program in a Node of its own; what it printed, once it has ended by itself. */
async function node(program, ...args) {
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, ...args], { cwd: path.dirname(fileURLToPath(import.meta.url)), stdio: ["ignore", "pipe", "inherit"] });
  const killer = setTimeout(() => child.kill("SIGKILL"), 60_000);
  let printed = "";
  child.stdout.on("data", (data) => { printed += data; });
  const [code, signal] = await once(child, "close");
  clearTimeout(killer);
  assert.deepEqual([code, signal], [0, null], `it did not end by itself: ${printed}`);
  return printed.trim();
}

describe("in Node, which has nothing of a browser", () => {
  test("it works on a real socket, and after close() the process ends", async (t) => {
    const url = await serve(t);
    const printed = await node(`
      import { WebSocket } from "ws";
      import { connect } from ${JSON.stringify(path.join(client, "rowcast.js"))};
      const rowcast = connect(process.argv[1], { socket: (url) => new WebSocket(url) });
      const list = rowcast.live("patient");
      list.subscribe((rows) => {
        if (rows.length < 2) return;
        console.log(JSON.stringify(rows), rowcast.status, list.status, rowcast.cursor);
        rowcast.close();
      });
    `, url);
    assert.equal(printed.split("\n")[0], `[{"id":1},{"id":2}] live live e1:2`);
  });

  test("a connection that is refused does not keep the process after close()", async () => {
    const printed = await node(`
      import { WebSocket } from "ws";
      import { connect } from ${JSON.stringify(path.join(client, "rowcast.js"))};
      const rowcast = connect("ws://127.0.0.1:1/socket/all/", { socket: (url) => new WebSocket(url) });
      rowcast.on("sys:status", ({ status, code }) => { console.log(status, code); if (status !== "closed") rowcast.close(); });
    `);
    assert.equal(printed.split("\n").at(-1).split(" ")[0], "closed");
  });

  test("without a WebSocket it says what to do", async () => {
    const printed = await node(`
      import { connect } from ${JSON.stringify(path.join(client, "rowcast.js"))};
      delete globalThis.WebSocket;
      try { connect("https://a.example"); } catch (error) { console.log(error.message); }
    `);
    assert.match(printed, /socket/);
  });

  test("nothing of a page is needed in a worker either", async (t) => {
    // A worker has addEventListener and no document; some runtimes have neither.
    for (const globals of [{ addEventListener: () => {}, removeEventListener: () => {} }, {}]) {
      for (const [name, value] of Object.entries(globals)) globalThis[name] = value;
      const all = await begin(t);
      const list = all.rowcast.live("patient");
      all.watch(list);
      await all.clock.run(MOMENT_MS);
      all.holds(list, "patient");
      all.rowcast.close();
      await all.clock.run(30_000);
      all.clock.restore();
      for (const name of Object.keys(globals)) delete globalThis[name];
    }
  });
});

/** One of client/'s hooks, with its framework from here. */
function hook(framework) {
  const source = readFileSync(path.join(client, `${framework}.js`), "utf8").replace(`"${framework}"`, JSON.stringify(import.meta.resolve(framework)));
  return import(`data:text/javascript,${encodeURIComponent(source)}`);
}

test("a list is a Svelte store", async (t) => {
  const all = await begin(t);
  // What Svelte's \`get\` and \`$list\` do: subscribe, take the value that comes at once, unsubscribe.
  const get = (store) => {
    let value;
    const stop = store.subscribe((given) => { value = given; });
    (stop.unsubscribe ?? stop)();
    return value;
  };
  const list = all.rowcast.live("patient");
  const stop = list.subscribe(() => {});
  assert.deepEqual(get(list), []);
  await all.clock.run(MOMENT_MS);
  assert.deepEqual(get(list).map(({ id }) => id), [1, 2, 3]);
  stop();
});

describe("with React", () => {
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  const { act, StrictMode, createElement, useState, useSyncExternalStore } = React;

  /** Renders a component on a client of its own; what it last rendered is `shown()`. */
  async function rendered(t, component, wrap = (element) => element) {
    const quiet = t.mock.method(console, "error", (...said) => quiet.said.push(said.join(" ")));
    quiet.said = [];
    const all = await begin(t);
    let renders = 0;
    const Shown = (props) => {
      renders += 1;
      return createElement("p", null, component(all.rowcast, props));
    };
    const tree = (props) => wrap(createElement(Shown, props));
    let root;
    await act(async () => { root = ReactTestRenderer.create(tree({})); });
    return Object.assign(all, {
      shown: () => root.toJSON().children?.join(""),
      later: (ms = MOMENT_MS) => act(() => all.clock.run(ms)),
      render: (props) => act(async () => root.update(tree(props))),
      unmount: () => act(async () => root.unmount()),
      renders: () => renders,
      complaints: () => quiet.said.filter((said) => !/react-test-renderer is deprecated/.test(said)),
    });
  }

  const store = (list) => {
    const { rows, status } = useSyncExternalStore(list.subscribe, list.snapshot, list.snapshot);
    return `${status} ${rows.map(({ id, ward }) => `${id}/${ward}`).join(" ")}`;
  };

  for (const [what, wrap] of [["", undefined], [" in StrictMode", (element) => createElement(StrictMode, null, element)]]) {
    test(`useSyncExternalStore shows the list as it changes${what}`, async (t) => {
      const all = await rendered(t, (rowcast) => store(rowcast.live("patient", { filter: { ward: "3" } })), wrap);
      await all.later();
      assert.equal(all.shown(), "live 1/3 2/3 3/3");
      all.world.put("patient", patient(4));
      all.world.put("patient", patient(1, { ward: "4" }));
      await all.later();
      assert.equal(all.shown(), "live 2/3 3/3 4/3");
      const renders = all.renders();
      await all.later(30_000);
      assert.equal(all.renders(), renders, "it renders although nothing changed");
      await all.unmount();
      await all.later(60_000);
      assert.deepEqual(all.asked("sys:unsubscribe").flatMap(({ types }) => types), ["patient"]);
      assert.equal(all.asked("patient").length, 1);
      assert.deepEqual(all.complaints(), []);
    });
  }

  test("the hook of rowcast/react does, also where the question changes", async (t) => {
    const { useLive } = await hook("react");
    const all = await rendered(t, (rowcast, { ward = "3" }) => {
      const { rows, status } = useLive(rowcast, "patient", { filter: { ward } });
      useState(0);
      return `${status} ${rows.map(({ id }) => id).join(" ")}`;
    });
    await all.later();
    assert.equal(all.shown(), "live 1 2 3");
    all.world.put("patient", patient(5, { ward: "4" }));
    await all.render({ ward: "4" });
    await all.later();
    assert.equal(all.shown(), "live 5");
    assert.deepEqual(all.complaints(), []);
    await all.unmount();
  });
});

test("the hook of rowcast/vue shows the list as it changes, also where the question changes", async (t) => {
  const { effectScope, nextTick, ref } = await import("vue");
  const { useLive } = await hook("vue");
  const all = await begin(t);
  const ward = ref("3");
  const scope = effectScope();
  const shown = scope.run(() => useLive(all.rowcast, "patient", () => ({ filter: { ward: ward.value } })));
  const ids = () => [shown.value.status, ...shown.value.rows.map(({ id }) => id)];
  await all.clock.run(MOMENT_MS);
  assert.deepEqual(ids(), ["live", 1, 2, 3]);
  all.world.put("patient", patient(5, { ward: "4" }));
  all.world.remove("patient", { id: 1 });
  await all.clock.run(MOMENT_MS);
  assert.deepEqual(ids(), ["live", 2, 3]);
  ward.value = "4";
  await nextTick();
  await all.clock.run(MOMENT_MS);
  assert.deepEqual(ids(), ["live", 5]);
  scope.stop();
  await all.clock.run(60_000);
  assert.deepEqual(all.asked("sys:unsubscribe").flatMap(({ types }) => types), ["patient"]);
});

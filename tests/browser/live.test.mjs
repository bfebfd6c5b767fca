// client/rowcast.js in a real Chromium, on real gateways: two tabs at two gateways on PostgreSQL
// and NATS, and at one process on SQLite. The rows are written by psql and sqlite3.
//
//   ROWCAST_BIN  the binary; default target/release/rowcast, else target/debug/rowcast
//   CHROMIUM     the browser; default /usr/bin/chromium

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createServer } from "node:http";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Proxy, Stack, waitFor } from "./stack.mjs";
import { binary, deadline, launchBrowser, Server, Writer } from "./support.mjs";

const ITEM = `[[topics]]\ntype = "item"\ntable = "item"\npush = "row"\n`;

/** Rows of the table that everything is about before the test begins. */
const ROWS = 3;

/** Every 20 ms a numbered row. */
const WRITE_MS = 20;

/** A stall of the page's thread that a person notices, and how many of them, how long, are the machine's own: it
 *  stands still now and then. */
const STALL_MS = 500;
const STALLS = 2;
const STANDSTILL_MS = 5000;

/** Whether the binary under test is a release build. */
const optimized = binary?.split(path.sep).includes("release");

let browser;
let site;

/** A page of another origin than any gateway's, which knows nothing of Rowcast. */
async function serveSite() {
  const server = createServer((request, response) => {
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>a page</title><body>`);
  });
  await new Promise((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  return Object.assign(server, { url: `http://127.0.0.1:${server.address().port}/` });
}

before(async () => {
  [browser, site] = await Promise.all([launchBrowser(), serveSite()]);
});

after(async () => {
  await browser?.close();
  site?.close();
});

/** A tab that follows `item` on these gateways: a list, and the numbers that a handler heard. */
async function openTab(urls, module = urls[0]) {
  const context = await browser.newContext();
  const tab = await context.newPage();
  tab.complaints = [];
  tab.on("pageerror", (error) => tab.complaints.push(error.message));
  await tab.goto(site.url);
  await tab.evaluate(async ([urls, module]) => {
    const { connect } = await import(`${module}/rowcast.js`);
    const rowcast = connect(urls);
    Object.assign(window, { rowcast, heard: [], statuses: [], resets: [], list: rowcast.live("item") });
    window.list.subscribe(() => {});
    rowcast.on("item", ({ op, data }) => { if (op === "insert") window.heard.push(data.n); });
    rowcast.on("sys:status", ({ status, recovered, replayed }) => window.statuses.push({ status, recovered, replayed }));
    // How long its timers stood still: the proof that a frozen tab was frozen.
    let last = performance.now();
    window.stood = 0;
    setInterval(() => {
      const now = performance.now();
      window.stood = Math.max(window.stood, now - last);
      last = now;
    }, 50);
    rowcast.on("sys:reset", ({ reason }) => window.resets.push(reason));
  }, [urls, module]);
  await tab.waitForFunction((rows) => window.list.status === "live" && window.list.rows.length >= rows, ROWS);
  return tab;
}

const shows = (tab, what, condition, argument) => deadline(what, tab.waitForFunction(condition, argument));

/** Waits until the tab's list is the table. */
async function equals(tab, table) {
  const rows = JSON.stringify(table());
  await shows(tab, "the list equals the table", (rows) => window.list.status === "live" && JSON.stringify(window.list.rows) === rows, rows).catch(async (error) => {
    throw new Error(`${error.message}: the tab has ${JSON.stringify(await tab.evaluate(() => [window.list.status, window.list.rows.length]))}, the table ${JSON.parse(rows).length}`);
  });
}

/** Writes rows with the numbers 1, 2, 3, … into the standard input of psql or sqlite3, until stopped. */
function writeNumbers(program, args) {
  const child = spawn(program, args, { stdio: ["pipe", "ignore", "pipe"] });
  let errors = "";
  child.stderr.on("data", (data) => { errors += data; });
  let number = 0;
  const timer = setInterval(() => child.stdin.write(`insert into item (n) values (${number += 1});\n`), WRITE_MS);
  return {
    get number() {
      return number;
    },
    async stop() {
      clearInterval(timer);
      child.stdin.end();
      if (child.exitCode === null) await deadline(`${program} ends`, new Promise((resolve) => { child.on("exit", resolve); }));
      assert.equal(errors, "");
      return number;
    },
  };
}

/** Every number once, in order. */
async function heardAll(tab, last) {
  await shows(tab, `number ${last} is heard`, (last) => window.heard.at(-1) === last, last).catch(async (error) => {
    throw new Error(`${error.message}: ${JSON.stringify(await tab.evaluate(() => [window.heard.slice(-3), window.heard.length, window.rowcast.status, window.statuses]))}`);
  });
  assert.deepEqual(await tab.evaluate(() => window.heard), Array.from({ length: last }, (_, at) => at + 1));
  assert.deepEqual(await tab.evaluate(() => window.resets), []);
  assert.deepEqual(tab.complaints, []);
}

/** Goes on once so many more rows have been written. */
const written = (writer, rows) => {
  const end = writer.number + rows;
  return waitFor(`${rows} rows are written`, () => writer.number >= end);
};

/** Sees that the tab stood still for so long; its timer tells so when it runs again. A writer that was late catches
 *  up, so that what was written meanwhile took less than its usual time. */
async function stoodStill(tab, least) {
  await shows(tab, "that it was frozen", (ms) => window.stood > ms, least);
}

/** Has the tab stand still, as a frozen one does: nothing in it runs, what comes waits. Chromium's own
 *  `Page.setWebLifecycleState` does nothing where there is no screen, so the debugger holds it. */
async function freeze(tab, frozen) {
  const session = tab.session ??= await tab.context().newCDPSession(tab);
  if (!frozen) return session.send("Debugger.resume");
  const held = new Promise((resolve) => { session.once("Debugger.paused", resolve); });
  await session.send("Debugger.enable");
  await session.send("Debugger.pause");
  await deadline("the tab stands still", held);
}

describe("two tabs at two gateways, on PostgreSQL and NATS", { concurrency: false }, () => {
  let stack;
  let proxy;
  let tabs;
  let writer;
  const writing = () => { writer ??= writeNumbers("psql", ["-X", "-q", "-d", stack.postgres.url]); };
  const table = () => JSON.parse(stack.postgres.sql("select coalesce(json_agg(item order by id), '[]') from item"));

  before(async () => {
    stack = await Stack.start(ITEM, "create table item (id int generated by default as identity primary key, n int, note text); insert into item (n, note) select -i, 'before' from generate_series(1, 3) i");
    const [first, second] = stack.gateways.map(({ url }) => url);
    proxy = await Proxy.before(second);
    tabs = await Promise.all([openTab([first, second]), openTab([proxy.url, first])]);
  });

  after(async () => {
    await writer?.stop();
    for (const tab of tabs ?? []) await tab.context().close();
    await proxy?.remove();
    await stack?.remove();
  });

  test("a row that psql changes appears in both", async () => {
    stack.postgres.sql("update item set note = '王秀英' where id = 2");
    for (const tab of tabs) {
      await shows(tab, "the change", () => window.list.rows.find(({ id }) => id === 2).note === "王秀英");
      await equals(tab, table);
    }
  });

  test("the tab of a gateway that is killed goes on at the other, and misses nothing", async (t) => {
    writing();
    await written(writer, 25);
    const begun = Date.now();
    await stack.gateways[0].kill();
    await shows(tabs[0], "the tab is offline", () => window.statuses.some(({ status }) => status === "offline"));
    await shows(tabs[0], "the tab is live again", () => window.rowcast.status === "live");
    t.diagnostic(`back after ${Date.now() - begun} ms: ${JSON.stringify(await tabs[0].evaluate(() => window.statuses.at(-1)))}`);
    assert.ok(await tabs[0].evaluate(() => window.statuses.at(-1).recovered));
    await written(writer, 25);
    await stack.gateways[0].start();
  });

  test("a tab that was frozen wakes, and misses nothing", async () => {
    writing();
    await freeze(tabs[0], true);
    await written(writer, 100);
    await freeze(tabs[0], false);
    const { number } = writer;
    await shows(tabs[0], "what was written while it was frozen", (number) => window.heard.at(-1) >= number, number);
    await stoodStill(tabs[0], 20 * WRITE_MS);
  });

  test("a tab whose connection is cut for a while comes back, and misses nothing", async () => {
    writing();
    proxy.cut();
    // Its other gateway is there: so that one goes, too.
    await stack.gateways[0].kill();
    await shows(tabs[1], "the tab is offline", () => window.rowcast.status === "offline");
    await written(writer, 50);
    await stack.gateways[0].start();
    proxy.open = true;
    await shows(tabs[1], "the tab is live again", () => window.rowcast.status === "live");
  });

  test("a tab that is offline comes back, and misses nothing", async (t) => {
    writing();
    const tab = tabs[1];
    await tab.context().setOffline(true);
    await written(writer, 25);
    const kept = await tab.evaluate(() => window.rowcast.status);
    t.diagnostic(`a socket that stands is ${kept === "live" ? "not cut" : "cut"} by Chromium's offline mode`);
    proxy.cut();
    proxy.open = true;
    await stack.gateways[0].kill();
    await shows(tab, "the tab is offline", () => window.rowcast.status === "offline");
    await stack.gateways[0].start();
    const tries = await tab.evaluate(() => window.statuses.length);
    await tab.context().setOffline(false);
    const begun = Date.now();
    await shows(tab, "the tab is live again", () => window.rowcast.status === "live");
    t.diagnostic(`live ${Date.now() - begun} ms after it was online again, ${tries} changes of status before`);
  });

  test("in the end each has heard every number once, in order, and shows the table", async (t) => {
    writing();
    await written(writer, 1);
    const last = await writer.stop();
    writer = null;
    for (const tab of tabs) {
      await heardAll(tab, last);
      await equals(tab, table);
    }
    t.diagnostic(`${last} rows, ${JSON.stringify(await Promise.all(tabs.map((tab) => tab.evaluate(() => window.statuses.filter(({ status }) => status === "live").length))))} connections`);
  });
});

describe("two tabs at one process, on SQLite", { concurrency: false }, () => {
  let server;
  let tabs;
  let writer;
  let database;
  const sqlite3 = (...args) => execFileSync("sqlite3", ["-cmd", ".timeout 10000", ...args], { encoding: "utf8" });
  const table = () => JSON.parse(sqlite3("-json", database, "select * from item order by id") || "[]");

  before(async () => {
    server = await Server.create();
    database = server.database;
    sqlite3(database, "pragma journal_mode = wal; create table item (id integer primary key, n int, note text); insert into item (n, note) values (-1, 'before'), (-2, null), (-3, 'before')");
    await server.configure(ITEM);
    await server.start();
    tabs = await Promise.all([openTab([server.url]), openTab([server.url])]);
  });

  after(async () => {
    await writer?.stop();
    for (const tab of tabs ?? []) await tab.context().close();
    await server?.remove();
  });

  test("a row that sqlite3 changes appears in both", async () => {
    sqlite3(database, "update item set note = '王秀英' where id = 2");
    for (const tab of tabs) {
      await shows(tab, "the change", () => window.list.rows.find(({ id }) => id === 2).note === "王秀英");
      await equals(tab, table);
    }
  });

  test("both come back after the process was killed while one of them was frozen, and miss nothing", async () => {
    writer = writeNumbers("sqlite3", ["-cmd", ".timeout 10000", database]);
    await written(writer, 25);
    await freeze(tabs[1], true);
    await server.kill();
    await shows(tabs[0], "the tab is offline", () => window.rowcast.status === "offline");
    await written(writer, 25);
    await server.start();
    await shows(tabs[0], "the tab is live again", () => window.rowcast.status === "live");
    await freeze(tabs[1], false);
    await stoodStill(tabs[1], 10 * WRITE_MS);
    await shows(tabs[1], "the other tab is live again", () => window.rowcast.status === "live");
    await written(writer, 25);
    const last = await writer.stop();
    writer = null;
    for (const tab of tabs) {
      await heardAll(tab, last);
      await equals(tab, table);
    }
  });
});

describe("5,000 changes a second for 10 s", { concurrency: false }, () => {
  // Each row changes every five seconds: SQLite tells two changes that are read together as one, and
  // a server that keeps up never reads them together, unless the machine stands still for that long.
  const COUNT = 25_000;
  const RATE = 5000;
  const SHARE = 500;
  const SECONDS = 10;
  /** For a debug build, which is slower than the writer. */
  const CATCH_UP_MS = 60_000;

  test("do not freeze the page, and the list is the table in the end", async (t) => {
    const server = await Server.create();
    let writer;
    let context;
    t.after(async () => {
      await context?.close();
      await writer?.stop();
      await server.remove();
    });
    execFileSync("sqlite3", [server.database, `pragma journal_mode = wal; create table item (id integer primary key, n int, note text);
      with recursive i(i) as (select 1 union all select i + 1 from i where i < ${COUNT}) insert into item select i, 0, 'a row like any other' from i`]);
    await server.configure(`${ITEM}max_rows = ${COUNT}\n`);
    await server.start();
    writer = new Writer(server.database);
    const tab = await openTab([server.url]);
    context = tab.context();
    await tab.evaluate((noticed) => {
      const measured = Object.assign(window, { events: 0, calls: 0, stalls: [], frames: 0 });
      window.rowcast.on("item", () => { measured.events += 1; });
      const lines = Array.from({ length: 50 }, () => document.body.appendChild(document.createElement("p")));
      window.list.subscribe((rows) => {
        measured.calls += 1;
        lines.forEach((line, at) => { line.textContent = `${rows[at]?.id}: ${rows[at]?.n}, ${rows[at]?.note}`; });
      });
      let last = performance.now();
      const look = () => {
        const now = performance.now();
        if (now - last >= noticed) measured.stalls.push(Math.round(now - last));
        last = now;
      };
      // Timers that wait for 10 ms, and frames: whatever held the thread, one of them saw it.
      setInterval(look, 10);
      const frame = () => {
        measured.frames += 1;
        look();
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    }, STALL_MS);
    const begun = Date.now();
    const turns = (RATE / SHARE) * SECONDS;
    for (let turn = 0; turn < turns; turn += 1) {
      const from = (turn * SHARE) % COUNT;
      await writer.run("update item set n = n + 1 where id > ? and id <= ?", from, from + SHARE);
      const due = begun + ((turn + 1) * SHARE * 1000) / RATE;
      await waitFor("the next share is due", () => Date.now() >= due);
    }
    const took = Date.now() - begun;
    await tab.waitForFunction((times) => window.list.rows.every(({ n }) => n === times), (SECONDS * RATE) / COUNT, { timeout: CATCH_UP_MS });
    const behind = Date.now() - begun - took;
    const { events, calls, stalls, frames } = await tab.evaluate(() => ({ events: window.events, calls: window.calls, stalls: window.stalls, frames: window.frames }));
    const total = turns * SHARE;
    t.diagnostic(`${total} changes in ${took} ms, the list was right ${behind} ms later: ${events} events, ${calls} calls of a subscriber, `
      + `${frames} frames drawn, stalls of ${JSON.stringify(stalls)} ms`);
    assert.ok(events <= total);
    // A debug build may be slower than the writer, and this be no proof of the server's speed.
    if (!optimized) t.diagnostic("the binary is a debug build: how many events came is not judged");
    else assert.equal(events, total);
    assert.ok(stalls.length <= STALLS && stalls.every((stall) => stall < STANDSTILL_MS), `stalls of ${stalls} ms`);
    const { rows } = await writer.run("select * from item order by id");
    assert.deepEqual(await tab.evaluate(() => window.list.rows), rows);
    assert.deepEqual(await tab.evaluate(() => window.statuses.map(({ status }) => status)), ["live"]);
  });
});

describe("a page without the client", { concurrency: false }, () => {
  test("that opens one WebSocket and looks at `type`, as in the tutorial, works as it is", async (t) => {
    const server = await Server.create();
    let context;
    t.after(async () => {
      await context?.close();
      await server.remove();
    });
    await server.start();
    context = await browser.newContext();
    const tab = await context.newPage();
    await tab.goto(site.url);
    await tab.evaluate((url) => {
      document.body.innerHTML = `<table id="patients"></table><table id="visits"></table><p id="echo"></p>`;
      const show = (id, rows) => {
        document.getElementById(id).innerHTML = rows.map((row) => `<tr><td>${row.id}</td><td>${row.name ?? row.visitor ?? ""}</td></tr>`).join("");
      };
      // 前端只想维护一个全局的websocket对象
      const socket = window.socket = new WebSocket(`${url.replace("http", "ws")}/socket/all/`);
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "all_patient_page_data" }));
        socket.send(JSON.stringify({ type: "all_active_visit_data" }));
      };
      socket.onmessage = (event) => {
        const { type, data } = JSON.parse(event.data);
        if (type === "all_patient_page_data") show("patients", data);
        else if (type === "all_active_visit_data") show("visits", data);
      };
      const echo = new WebSocket(`${url.replace("http", "ws")}/chat/socket/`);
      echo.onopen = () => echo.send("你好");
      echo.onmessage = (event) => { document.getElementById("echo").textContent = event.data; };
    }, server.url);
    const count = (id) => tab.locator(`#${id} tr`).count();
    await deadline("both tables are shown", waitFor("both tables are shown", async () => await count("patients") > 0 && await count("visits") > 0));
    await shows(tab, "the echo answers", () => document.getElementById("echo").textContent.startsWith("我收到了,"));
    const before = await Promise.all([count("patients"), count("visits")]);
    for (const view of ["info", "record"]) assert.equal((await fetch(`${server.url}/chat/update/${view}/`, { method: "POST" })).status, 200);
    await waitFor("both tables have one row more", async () => await count("patients") === before[0] + 1 && await count("visits") === before[1] + 1);
    execFileSync("sqlite3", ["-cmd", ".timeout 10000", server.database, "update patient set name = '赵一' where id = 1"]);
    await shows(tab, "what sqlite3 wrote", () => document.getElementById("patients").textContent.includes("赵一"));
  });
});

// client/rowcast.js in Firefox, on a real gateway that is killed, and comes back.
//
//   FIREFOX  the browser; default /usr/bin/firefox-esr

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { Firefox } from "./firefox.mjs";
import { waitFor } from "./stack.mjs";
import { Server } from "./support.mjs";

const executable = process.env.FIREFOX ?? "/usr/bin/firefox-esr";

test("in Firefox a list stays true over the death of its server", async (t) => {
  assert.ok(existsSync(executable), "Firefox is missing: apt-get install -y firefox-esr, or name one in FIREFOX");
  const server = await Server.create();
  let firefox;
  t.after(async () => {
    await firefox?.close();
    await server.remove();
  });
  const sqlite3 = (sql) => execFileSync("sqlite3", ["-cmd", ".timeout 10000", "-json", server.database, sql], { encoding: "utf8" });
  sqlite3("pragma journal_mode = wal; create table item (id integer primary key, n int); insert into item (n) values (1), (2), (3)");
  await server.configure(`[[topics]]\ntype = "item"\ntable = "item"\npush = "row"\n`);
  await server.start();
  firefox = await Firefox.launch(executable);
  t.diagnostic(`Firefox ${firefox.version}`);
  await firefox.goto(server.url);
  await firefox.evaluate(async () => {
    const { connect } = await import("/rowcast.js");
    Object.assign(window, { rowcast: connect(), heard: [], resets: 0 });
    window.list = window.rowcast.live("item");
    window.list.subscribe(() => {});
    window.rowcast.on("item", ({ data }) => window.heard.push(data.n));
    window.rowcast.on("sys:reset", () => { window.resets += 1; });
  });
  const equals = async () => {
    const rows = sqlite3("select * from item order by id").trim();
    await waitFor("the list is the table", async () =>
      JSON.stringify(await firefox.evaluate(() => (window.list.status === "live" ? window.list.rows : null))) === JSON.stringify(JSON.parse(rows)));
  };
  await equals();
  sqlite3("update item set n = 7 where id = 2");
  await equals();
  await server.kill();
  await waitFor("the tab is offline", async () => await firefox.evaluate(() => window.rowcast.status) === "offline");
  sqlite3("insert into item (n) values (8)");
  await server.start();
  await waitFor("the tab is live again", async () => await firefox.evaluate(() => window.rowcast.status) === "live");
  sqlite3("update item set n = 9 where id = 1");
  await equals();
  await waitFor("it heard everything", async () => (await firefox.evaluate(() => window.heard)).length === 3);
  assert.deepEqual(await firefox.evaluate(() => [window.heard, window.resets]), [[7, 8, 9], 0]);
});

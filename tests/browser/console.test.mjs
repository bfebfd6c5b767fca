// The console in a real Chromium, on the real binary, with writers that know nothing of
// Rowcast: separate processes that open the same SQLite file.
//
//   ROWCAST_BIN          the binary; default target/release/rowcast, else target/debug/rowcast
//   CHROMIUM             the browser; default /usr/bin/chromium
//   ROWCAST_SCREENSHOTS  a folder for the README's pictures; none are taken where unset

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** Longest wait for anything that should happen at once, generous for a loaded machine. */
const DEADLINE_MS = 15_000;

/** Rows of a burst: far more than the page shows at once. */
const BURST_ROWS = 1000;

/** Writes whose way to the page is timed; the median of ten says enough, and is over soon. */
const TIMED_WRITES = 10;

const here = path.dirname(fileURLToPath(import.meta.url));
const binary = process.env.ROWCAST_BIN
  ?? ["release", "debug"].map((profile) => path.join(here, "../../target", profile, "rowcast")).find(existsSync);

/** Runs SQL given on its standard input, one JSON array a line: `[sql, ...values]`. Each is one
 *  transaction, answered by the time of its commit in ms, or by the rows of a SELECT. */
const WRITER = `
import json, sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    sql, *values = json.loads(line)
    cursor = database.execute(sql, values)
    rows = cursor.fetchall()
    committed = time.time() * 1000
    names = [column[0] for column in cursor.description or []]
    print(json.dumps({"committed": committed, "id": cursor.lastrowid, "rows": [dict(zip(names, row)) for row in rows]}), flush=True)
`;

// === processes ===

function deadline(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out: ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function kill(child, signal) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, "exit");
}

class Server {
  url = null;
  #child = null;

  constructor(folder) {
    this.folder = folder;
    this.database = path.join(folder, "rowcast.db");
  }

  /** Has these topics instead of the demo's, from the next start on. */
  configure(toml) {
    return writeFile(path.join(this.folder, "rowcast.toml"), toml);
  }

  /** Starts the server, on the port it had before if it had one. */
  async start() {
    const listen = this.url ? new URL(this.url).host : "127.0.0.1:0";
    const child = spawn(path.resolve(binary), ["serve", "--listen", listen, "--database", `sqlite:${this.database}`], {
      cwd: this.folder,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    let log = "";
    child.stderr.on("data", (data) => { log = (log + data).slice(-8000); });
    const exited = once(child, "exit").then(([code]) => {
      throw new Error(`the server ended with ${code} before it listened:\n${log}`);
    });
    exited.catch(() => {});
    const listening = new Promise((resolve) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        const found = /listening on (http:\/\/\S+)/.exec(line);
        if (found) resolve(found[1]);
      });
    });
    this.url = await deadline("the server listens", Promise.race([listening, exited]));
  }

  kill() {
    return kill(this.#child, "SIGKILL");
  }
}

/** Another program at the same database file. */
class Writer {
  constructor(database) {
    this.child = spawn("python3", ["-c", WRITER, database], { stdio: ["pipe", "pipe", "inherit"] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async run(sql, ...values) {
    this.child.stdin.write(`${JSON.stringify([sql, ...values])}\n`);
    const { value, done } = await deadline(`the writer answers ${sql}`, this.lines.next());
    assert.ok(!done, `the writer failed at ${sql}`);
    return JSON.parse(value);
  }

  stop() {
    this.child.stdin.end();
    return kill(this.child, "SIGTERM");
  }
}

// === the page ===

const row = (type, id) => `table[data-topic="${type}"] tr[data-key='${JSON.stringify({ id })}']`;
const cell = (type, id, column) => `${row(type, id)} td[data-column="${column}"]`;

/** What the table shows, by column; null where it shows a null. */
function shownRows(page, type) {
  return page.$$eval(`table[data-topic="${type}"] tbody tr`, (lines) => lines.map((line) =>
    Object.fromEntries([...line.children].map((shown) =>
      [shown.dataset.column, shown.hasAttribute("data-null") ? null : shown.textContent]))));
}

/** The same of the database: every value as its text. */
function asShown(rows) {
  return rows.map((values) => Object.fromEntries(Object.entries(values).map(([column, value]) =>
    [column, value === null ? null : String(value)])));
}

const byId = (a, b) => Number(a.id) - Number(b.id);

/**
 * Begins to watch for the moment at which the selector's text is `text`. What it resolves to
 * waits for that moment, as the clock's time in ms: the watch stands before a write is made.
 */
async function watchFor(page, selector, text) {
  const watch = await page.evaluateHandle(([selector, text, ms]) => ({
    shown: new Promise((resolve, reject) => {
      const look = () => {
        if (document.querySelector(selector)?.textContent !== text) return;
        observer.disconnect();
        resolve(performance.timeOrigin + performance.now());
      };
      const observer = new MutationObserver(look);
      observer.observe(document, { subtree: true, childList: true, characterData: true });
      setTimeout(() => reject(new Error(`timed out: ${selector} shows ${text}`)), ms);
      look();
    }),
  }), [selector, text, DEADLINE_MS]);
  return () => watch.evaluate(({ shown }) => shown);
}

describe("the console", { concurrency: false }, () => {
  let browser;
  let folder;
  let server;
  let writer;
  let opened = [];

  before(async () => {
    assert.ok(binary, "no binary: build it, or name it in ROWCAST_BIN");
    folder = await mkdtemp(path.join(tmpdir(), "rowcast-console-"));
    server = new Server(folder);
    await server.start();
    writer = new Writer(server.database);
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"],
    });
  });

  after(async () => {
    await browser?.close();
    await writer?.stop();
    await server?.kill();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  /** Opens the console and waits until both tables are read. What the browser complains of is kept. */
  async function open(options = {}, prepare = () => {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-US", colorScheme: "light", ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    page.complaints = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
    });
    page.on("pageerror", (error) => page.complaints.push(String(error)));
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.addInitScript(prepare);
    await page.goto(server.url);
    await page.waitForSelector("#state[data-state=live]");
    opened.push(context);
    await page.waitForFunction(() => {
      const tables = [...document.querySelectorAll("table[data-topic]")];
      return tables.length === 2 && tables.every((table) => table.querySelector("tbody tr"));
    });
    return page;
  }

  async function closePages() {
    for (const context of opened.splice(0)) await context.close();
  }

  async function screenshot(page, name) {
    const into = process.env.ROWCAST_SCREENSHOTS;
    if (!into) return;
    await mkdir(into, { recursive: true });
    await page.screenshot({ path: path.join(into, `${name}.png`) });
  }

  /** Waits until the page shows every row of the view, and nothing else. */
  async function showsTheDatabase(page, type, where = "1") {
    const wanted = async () => asShown((await writer.run(`select * from ${type} where ${where}`)).rows).sort(byId);
    const until = Date.now() + DEADLINE_MS;
    for (;;) {
      const [shown, held] = [(await shownRows(page, type)).sort(byId), await wanted()];
      if (JSON.stringify(shown) === JSON.stringify(held)) return;
      if (Date.now() > until) assert.deepEqual(shown, held, `${type} equals the database`);
      await page.evaluate(() => new Promise(requestAnimationFrame));
    }
  }

  test("a click on a trigger brings a row into its table", async (t) => {
    t.after(closePages);
    const page = await open();
    for (const [button, type] of [["#trigger-info", "patient"], ["#trigger-record", "visit"]]) {
      const [{ last }] = (await writer.run(`select max(id) as last from ${type}`)).rows;
      await page.click(button);
      await page.waitForSelector(row(type, last + 1));
      assert.match(await page.getAttribute(row(type, last + 1), "data-flash"), /^insert/);
    }
    await showsTheDatabase(page, "patient");
    await showsTheDatabase(page, "visit", "left_at is null");
    assert.deepEqual(page.complaints, []);
  });

  test("a row written by another process changes its cell, which flashes", async (t) => {
    t.after(closePages);
    const page = await open();
    const took = [];
    for (let write = 0; write < TIMED_WRITES; write += 1) {
      const ward = String(10 + write);
      const shown = await watchFor(page, cell("patient", 1, "ward"), ward);
      const { committed } = await writer.run("update patient set ward = ? where id = 1", ward);
      took.push(await shown() - committed);
      await page.waitForSelector(`${cell("patient", 1, "ward")}[data-flash^=cell]`);
    }
    took.sort((a, b) => a - b);
    t.diagnostic(`commit to page: median ${took[TIMED_WRITES >> 1].toFixed(1)} ms, longest ${took.at(-1).toFixed(1)} ms`);

    await writer.run("delete from patient where id = (select max(id) from patient)");
    await showsTheDatabase(page, "patient");
    assert.deepEqual(page.complaints, []);
  });

  test("a visitor who leaves is gone from the visits in progress", async (t) => {
    t.after(closePages);
    const page = await open();
    const [{ id }] = (await writer.run("select min(id) as id from visit where left_at is null")).rows;
    await page.waitForSelector(row("visit", id));
    await writer.run("update visit set left_at = '2026-11-23 10:00:00' where id = ?", id);
    await page.waitForSelector(row("visit", id), { state: "detached" });
    await writer.run("update visit set left_at = null where id = ?", id);
    await page.waitForSelector(row("visit", id));
    await showsTheDatabase(page, "visit", "left_at is null");
  });

  for (const [locale, colorScheme, ward, lost, notice] of [
    ["en-US", "light", "28", /connection lost/, "reconnected · 3 caught up · 0 lost"],
    ["zh-CN", "dark", "29", /连接已断开/, "已重连 · 补上 3 条 · 丢失 0 条"],
  ]) {
    test(`after a kill and three rows written meanwhile the page says: ${notice}`, async (t) => {
      t.after(closePages);
      const page = await open({ locale, colorScheme });
      const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;

      await server.kill();
      await page.waitForSelector("#state[data-state=reconnecting]");
      await page.waitForFunction((text) => new RegExp(text).test(document.querySelector("#notice").textContent), lost.source);
      await writer.run("update patient set ward = ? where id = 2", ward);
      await writer.run("insert into patient (id, name) values (?, ?)", last + 1, "沈玉兰");
      await writer.run("delete from patient where id = ?", last);
      await page.waitForSelector(row("patient", last));

      await server.start();
      await page.waitForSelector("#state[data-state=live]");
      await page.waitForFunction((text) => document.querySelector("#notice").textContent === text, notice);
      await showsTheDatabase(page, "patient");
      await showsTheDatabase(page, "visit", "left_at is null");
      assert.equal(await page.textContent(cell("patient", 2, "ward")), ward);
      // The browser itself reports each connection that was refused; nothing else may be there.
      assert.deepEqual(page.complaints.filter((text) => !/WebSocket connection .* failed/.test(text)), []);
    });
  }

  test("markup in a row is text, and the content security policy has nothing to refuse", async (t) => {
    t.after(closePages);
    const page = await open();
    const [{ name }] = (await writer.run("select name from patient where id = 3")).rows;
    const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    const shown = await watchFor(page, cell("patient", 3, "name"), markup);
    await writer.run("update patient set name = ? where id = 3", markup);
    await shown();
    assert.equal(await page.locator("table img, table script").count(), 0);
    assert.notEqual(await page.title(), "owned");

    await page.click("#tester-open");
    await page.waitForSelector("#tester-send:enabled");
    await page.fill("#tester-input", JSON.stringify({ type: "patient", rid: 1, id: 3 }));
    await page.click("#tester-send");
    await page.click(`#tester-frames li[data-direction="in"] button`);
    await page.waitForFunction((text) => JSON.parse(document.querySelector("#tester-frames pre").textContent).data[0].name === text, markup);
    assert.equal(await page.locator("#tester-frames img").count(), 0);
    await writer.run("update patient set name = ? where id = 3", name);
    await page.waitForFunction(([selector, text]) => document.querySelector(selector).textContent === text, [cell("patient", 3, "name"), name]);
    assert.deepEqual(page.complaints, []);
  });

  test("the tester shows the frames of the echo both ways", async (t) => {
    t.after(closePages);
    const page = await open({ locale: "zh-CN" });
    await page.fill("#tester-url", `${server.url.replace("http", "ws")}/chat/socket/`);
    await page.click("#tester-open");
    await page.waitForSelector("#tester-state[data-state=opened]");
    await page.fill("#tester-input", "你好");
    await page.click("#tester-send");
    const sent = page.locator(`#tester-frames li[data-direction="out"] .frame-text`);
    const received = page.locator(`#tester-frames li[data-direction="in"] .frame-text`);
    await received.waitFor();
    assert.equal(await sent.textContent(), "你好");
    assert.match(await received.textContent(), /^我收到了,\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);

    await page.fill("#tester-input", "close");
    await page.press("#tester-input", "Enter");
    await page.waitForSelector("#tester-state[data-state=closed]");
    assert.match(await page.textContent("#tester-frames li:last-child"), /已断开 1000/);
    await page.click("#tester-clear");
    assert.equal(await page.locator("#tester-frames li").count(), 0);
    assert.deepEqual(page.complaints, []);
  });

  test("an application's event is shown beside the table and not in it", async (t) => {
    t.after(closePages);
    const page = await open();
    const earlier = await shownRows(page, "patient");
    const answer = await page.request.post(`${server.url}/api/events`, {
      data: { type: "all_patient_page_data", data: "更新数据了,个人信息" },
    });
    assert.equal(answer.status(), 202);
    await page.waitForFunction(() => document.querySelector("[data-testid=toast]")?.textContent.includes("更新数据了,个人信息"));
    assert.deepEqual(await shownRows(page, "patient"), earlier);
  });

  test("the language is the browser's, can be switched by hand, and is remembered", async (t) => {
    t.after(closePages);
    const page = await open({ locale: "zh-CN" });
    assert.equal(await page.textContent("#state"), "实时");
    await page.click("[data-language=en]");
    assert.equal(await page.textContent("#state"), "live");
    assert.equal(await page.getAttribute("html", "lang"), "en");
    await page.reload();
    await page.waitForFunction(() => document.querySelector("#state").textContent === "live");
  });

  test("a phone shows it all without scrolling sideways", async (t) => {
    t.after(closePages);
    const page = await open({ locale: "zh-CN", viewport: { width: 390, height: 844 } });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  });

  test("a burst of a thousand rows is shown, and the page stays awake meanwhile", async (t) => {
    t.after(closePages);
    const page = await open();
    const count = page.locator("[data-panel=patient] .count");
    const [{ n, last }] = (await writer.run("select count(*) as n, max(id) as last from patient")).rows;
    await page.evaluate(() => {
      window.pictures = 0;
      const count = () => { window.pictures += 1; requestAnimationFrame(count); };
      count();
    });
    await writer.run(`with recursive i(x) as (select 1 union all select x + 1 from i where x < ?)
      insert into patient (name) select '压力' || x from i`, BURST_ROWS);
    await page.waitForFunction((text) => document.querySelector("[data-panel=patient] .count").textContent === text,
      `first 200 of ${(n + BURST_ROWS).toLocaleString("en")} rows`);
    assert.ok(await page.evaluate(() => window.pictures) > 1, "the page was drawn during the burst");
    const shown = await watchFor(page, cell("patient", 1, "ward"), "awake");
    await writer.run("update patient set ward = 'awake' where id = 1");
    await shown();
    await writer.run("delete from patient where id > ?", last);
    await showsTheDatabase(page, "patient");
    assert.equal(await count.textContent(), `${n} rows`);
    assert.deepEqual(page.complaints, []);
  });

  test("a query refused with a 429 is asked again, and an inexact reply is marked", async (t) => {
    t.after(closePages);
    // The server has no reason to do either here, so what the page hears is altered on its way.
    const page = await open({}, () => {
      let refused = false;
      window.WebSocket = class extends WebSocket {
        set onmessage(hear) {
          super.onmessage = hear && (({ data }) => {
            const frame = JSON.parse(data);
            if (frame.rid && frame.type === "patient" && !refused) {
              refused = true;
              hear({ data: JSON.stringify({ type: "sys:error", rid: frame.rid, code: 429, error: "too_many_requests", msg: "", retry_after_ms: 100 }) });
            } else {
              hear({ data: JSON.stringify(frame.rid && frame.type === "visit" ? { ...frame, exact: false } : frame) });
            }
          });
        }
      };
    });
    await showsTheDatabase(page, "patient");
    assert.ok(await page.isVisible("[data-panel=visit] .inexact"));
    assert.ok(await page.isHidden("[data-panel=patient] .inexact"));
  });

  test("with reduced motion a changed row is marked and nothing fades", async (t) => {
    t.after(closePages);
    const page = await open({ reducedMotion: "reduce" });
    await page.click("#trigger-info");
    const easing = await page.waitForFunction(() => {
      const line = document.querySelector("tr[data-flash]");
      return line && getComputedStyle(line).animationTimingFunction;
    });
    // What Chromium calls step-end.
    assert.equal(await easing.jsonValue(), "steps(1)");
  });

  test("it all works from the keyboard", async (t) => {
    t.after(closePages);
    const page = await open();
    const press = async (id) => {
      for (let step = 0; step < 40; step += 1) {
        await page.keyboard.press("Tab");
        if (await page.evaluate((id) => document.activeElement.id === id, id)) return page.keyboard.press("Enter");
      }
      throw new Error(`Tab does not lead to ${id}`);
    };
    const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;
    await press("trigger-info");
    await page.waitForSelector(row("patient", last + 1));
    await press("tester-open");
    await page.waitForSelector("#tester-send:enabled");
    await press("tester-input");
    await page.keyboard.type(`{"type":"sys:ping","rid":1}`);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(`#tester-frames li[data-direction="in"]`)?.textContent.includes("sys:pong"));
    assert.deepEqual(page.complaints, []);
  });

  test("where only pages are pushed, the pages are the tables", async (t) => {
    t.after(closePages);
    const pages = new Server(await mkdtemp(path.join(tmpdir(), "rowcast-pages-")));
    const usual = [server, writer];
    t.after(async () => {
      await pages.kill();
      await rm(pages.folder, { recursive: true, force: true });
      await writer.stop();
      [server, writer] = usual;
    });
    await pages.start(); // Once with the demo, which makes its tables.
    await pages.kill();
    await pages.configure(["patient", "visit"].map((table) =>
      `[[topics]]\ntype = "${table}_page"\ntable = "${table}"\npush = "page"\n`).join("\n"));
    await pages.start();
    [server, writer] = [pages, new Writer(pages.database)];

    const page = await open();
    await writer.run("update patient set ward = '77' where id = 1");
    await page.waitForFunction((selector) => document.querySelector(selector)?.textContent === "77", cell("patient_page", 1, "ward"));
    await pages.kill();
    await page.waitForSelector("#state[data-state=reconnecting]");
    await writer.run("update patient set ward = '78' where id = 1");
    await pages.start();
    await page.waitForFunction(() => document.querySelector("#notice").textContent === "reconnected · 0 lost · tables refreshed");
    await page.waitForFunction((selector) => document.querySelector(selector)?.textContent === "78", cell("patient_page", 1, "ward"));
  });

  test("the client in docs/protocol.md holds its view, whatever happens to the server", async (t) => {
    t.after(closePages);
    const page = await open();
    const text = await readFile(path.join(here, "../../docs/protocol.md"), "utf8");
    const [, lines] = /```js\n(\/\/ Holds a view[^]*?)```/.exec(text);
    await page.evaluate(`${lines.replace("export ", "")}
      window.close = live(location.origin.replace("http", "ws") + "/socket/all/", "patient", ["id"],
        (rows) => { window.held = [...rows.values()]; });`);
    const holds = async () => {
      const { rows } = await writer.run("select * from patient");
      await deadline("the view equals the database", page.waitForFunction(
        (rows) => JSON.stringify(rows) === JSON.stringify([...window.held ?? []].sort((a, b) => a.id - b.id)), rows));
    };
    await holds();
    await writer.run("update patient set ward = '77' where id = 3");
    await holds();
    await server.kill();
    const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;
    await writer.run("insert into patient (id, name) values (?, 'missed')", last + 1);
    await writer.run("update patient set id = ? where id = ?", last + 2, last + 1);
    await writer.run("delete from patient where id = 5");
    await server.start();
    await holds();
    await writer.run("update patient set id = ? where id = ?", last + 1, last + 2);
    await holds();
    await page.evaluate(() => window.close());
  });

  test("EventSource comes back by itself with what it missed", async (t) => {
    t.after(closePages);
    const page = await open();
    await page.evaluate(() => new Promise((resolve) => {
      window.wards = [];
      window.source = new EventSource("/api/stream?types=patient");
      window.source.onopen = resolve;
      window.source.onmessage = ({ data, lastEventId }) => {
        const frame = JSON.parse(data);
        if (frame.cursor !== lastEventId) throw new Error(`${lastEventId} is not that of ${data}`);
        if (frame.type === "patient") window.wards.push(frame.data.ward);
      };
    }));
    const says = (wards) => deadline(`the stream says ${wards}`, page.waitForFunction(
      (wards) => JSON.stringify(window.wards) === JSON.stringify(wards), wards));
    await writer.run("update patient set ward = 'a' where id = 1");
    await says(["a"]);
    await server.kill();
    await writer.run("update patient set ward = 'b' where id = 1");
    await server.start();
    await says(["a", "b"]);
    await writer.run("update patient set ward = 'c' where id = 1");
    await says(["a", "b", "c"]);
    await page.evaluate(() => window.source.close());
  });

  test("the pictures of the README", { skip: !process.env.ROWCAST_SCREENSHOTS }, async (t) => {
    t.after(closePages);
    const shown = new Server(await mkdtemp(path.join(tmpdir(), "rowcast-pictures-")));
    const usual = [server, writer];
    t.after(async () => {
      await shown.kill();
      await rm(shown.folder, { recursive: true, force: true });
      await writer.stop();
      [server, writer] = usual;
    });
    await shown.start();
    [server, writer] = [shown, new Writer(shown.database)];
    for (const [name, locale, colorScheme, ward] of [
      ["console-light", "en-US", "light", "5"],
      ["console-dark", "en-US", "dark", "6"],
      ["console-zh", "zh-CN", "light", "7"],
    ]) {
      const page = await open({ locale, colorScheme });
      await page.click("#tester-open");
      await page.waitForSelector("#tester-send:enabled");
      await page.fill("#tester-input", `{"type":"patient","rid":1,"id":1}`);
      await page.click("#tester-send");
      await page.waitForSelector(`#tester-frames li[data-direction="in"]`);
      await page.click("#trigger-record");
      await writer.run("update patient set ward = ? where id = 1", ward);
      await page.waitForSelector(`${cell("patient", 1, "ward")}[data-flash]`);
      await page.waitForSelector(`table[data-topic=visit] tr[data-flash]`);
      await screenshot(page, name);
      await closePages();
    }
    const page = await open();
    await shown.kill();
    await page.waitForSelector("#state[data-state=reconnecting]");
    await writer.run("update patient set ward = '8' where id = 2");
    await writer.run("update patient set care_level = '特级' where id = 4");
    await writer.run("update visit set left_at = '2026-11-23 10:00:00' where id = (select min(id) from visit where left_at is null)");
    await screenshot(page, "reconnect-before");
    await shown.start();
    await page.waitForFunction(() => document.querySelector("#notice").textContent === "reconnected · 3 caught up · 0 lost");
    await screenshot(page, "reconnect-after");
  });
});

// What the browser tests share: the real binary as a process, a writer that knows nothing of
// Rowcast (a separate process that opens the same SQLite file), Debian's Chromium, and what a
// table of the console shows.
//
//   ROWCAST_BIN  the binary; default target/release/rowcast, else target/debug/rowcast
//   CHROMIUM     the browser; default /usr/bin/chromium

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** Longest wait for anything that should happen at once: far longer than it takes, for CI is slow. */
export const DEADLINE_MS = 60_000;

const here = path.dirname(fileURLToPath(import.meta.url));
export const binary = process.env.ROWCAST_BIN
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

/** The promise, or a failure that names what was waited for. */
export function deadline(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out: ${what}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Ends a process, and waits until it is gone. */
export async function kill(child, signal) {
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, "exit");
}

/** One gateway: `rowcast serve` in a folder of its own, with the demo's database unless configured. */
export class Server {
  url = null;
  #child = null;

  /** A server in a new folder, which {@link Server.remove} takes away again. */
  static async create() {
    return new Server(await mkdtemp(path.join(tmpdir(), "rowcast-browser-")));
  }

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

  /** The process id, for signals other than a kill. */
  get pid() {
    return this.#child.pid;
  }

  kill() {
    return kill(this.#child, "SIGKILL");
  }

  /** Ends the server, and removes its folder. */
  async remove() {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Another program at the same database file. */
export class Writer {
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

export const row = (type, id) => `table[data-topic="${type}"] tr[data-key='${JSON.stringify({ id })}']`;
export const cell = (type, id, column) => `${row(type, id)} td[data-column="${column}"]`;

/** What the table shows, by column; null where it shows a null. */
export function shownRows(page, type) {
  return page.$$eval(`table[data-topic="${type}"] tbody tr`, (lines) => lines.map((line) =>
    Object.fromEntries([...line.children].map((shown) =>
      [shown.dataset.column, shown.hasAttribute("data-null") ? null : shown.textContent]))));
}

/** The same of the database: every value as its text. */
export function asShown(rows) {
  return rows.map((values) => Object.fromEntries(Object.entries(values).map(([column, value]) =>
    [column, value === null ? null : String(value)])));
}

export const byId = (a, b) => Number(a.id) - Number(b.id);

/**
 * Begins to watch for the moment at which the selector's text is `text`. What it resolves to
 * waits for that moment, as the clock's time in ms: the watch stands before a write is made.
 */
export async function watchFor(page, selector, text) {
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

/** Debian's Chromium, without what it would do on its own. */
export function launchBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
}

/** The console's views, in the order of their keys. */
export const VIEWS = ["tables", "frames", "topics", "pipeline", "letters"];

/**
 * Opens the console in a context of its own and waits until it is live, in the view of the tables
 * also until both are read. `complaints` of the page: errors, warnings, and what its content
 * security policy refused. `prepare` runs in the page before its scripts.
 */
export async function openConsole(browser, server, { view = "tables", ...options } = {}, prepare = () => {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-US", colorScheme: "light", ...options });
  try {
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
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
    await page.goto(`${server.url}/#${view}`);
    await page.waitForSelector("#state[data-state=live]");
    if (view === "tables") {
      await page.waitForFunction(() => {
        const tables = [...document.querySelectorAll("table[data-topic]")];
        return tables.length === 2 && tables.every((table) => table.querySelector("tbody tr"));
      });
    }
    return page;
  } catch (error) {
    await context.close();
    throw error;
  }
}

// The examples, each started by its one command and seen in a real Chromium, while a program that
// knows nothing of Rowcast writes to their database.
//
//   ROWCAST_BIN, CHROMIUM  as in support.mjs
//   ROWCAST_TEST_PYTHON    a Python that has Django; default: a virtual environment in tests/.cache

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { DEADLINE_MS, Writer, binary, deadline, launchBrowser } from "./support.mjs";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "../..");
const venv = path.join(root, "tests/.cache/venv/bin/python");

/** The first start of the React example fetches its packages, that of Django's may build an environment. */
const START_MS = 120_000;

let browser;
before(async () => { browser = await launchBrowser(); });
after(() => browser?.close());

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Runs an example as a shell does, and gives the test its page, its database's folder and a way to its end. */
async function run(t, name, database, env = {}) {
  const folder = await mkdtemp(path.join(tmpdir(), `rowcast-example-${name}-`));
  const port = await freePort();
  const child = spawn(path.join(root, "examples", name, "run"), [], {
    env: { ...process.env, ...env, ROWCAST_BIN: path.resolve(binary), ROWCAST__SERVER__LISTEN: "127.0.0.1:0", PORT: port, DATA: folder },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const ended = once(child, "exit");
  t.after(async () => {
    // Whatever the test came to: nothing of it is left.
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
    await ended;
    await rm(folder, { recursive: true, force: true });
  });
  let log = "";
  child.stderr.on("data", (data) => { log = (log + data).slice(-8000); });
  const url = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`examples/${name}/run is not ready:\n${log}`)), START_MS);
    createInterface({ input: child.stdout }).on("line", (line) => {
      const found = /^open (http:\S+)/.exec(line);
      if (found) resolve(found[1]);
    });
    ended.then(([code]) => reject(new Error(`examples/${name}/run ended with ${code}:\n${log}`)));
    ended.finally(() => clearTimeout(late));
  });
  const writer = new Writer(path.join(folder, database));
  t.after(() => writer.stop());
  const interrupt = async () => {
    // As a terminal does at Ctrl-C: everything in the foreground is told.
    process.kill(-child.pid, "SIGINT");
    const [code] = await deadline(`examples/${name}/run ends`, ended);
    assert.equal(code, 0, log);
    await assert.rejects(fetch(url), "its page's server is gone");
  };
  return { url, writer, interrupt };
}

/** Opens a page, and holds against the test whatever it complains about. */
async function open(t, url) {
  const page = await browser.newPage({ viewport: { width: 1100, height: 900 }, locale: "zh-CN" });
  page.setDefaultTimeout(DEADLINE_MS);
  const complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  t.after(() => page.close());
  await page.goto(url);
  return { page, complaints };
}

const shows = (page, selector, text) => page.locator(selector, { hasText: text }).first().waitFor();
const shownNot = (page, selector, text) => page.locator(selector, { hasText: text }).first().waitFor({ state: "detached" });
const texts = (page, selector) => page.locator(selector).allTextContents();

/** Waits until the texts of the selector are these. */
const become = (page, selector, wanted) => page.waitForFunction(([selector, wanted]) =>
  JSON.stringify([...document.querySelectorAll(selector)].map((one) => one.textContent)) === wanted, [selector, JSON.stringify(wanted)]);

test("the plain page and the tutorial's own code show what another program writes", async (t) => {
  const { url, writer, interrupt } = await run(t, "plain", "rowcast.db");
  const pages = await Promise.all(["", "naive.html"].map((name) => open(t, url + name)));
  for (const { page } of pages) {
    await page.waitForSelector("#status.live");
    await shows(page, "#all_patient_page_data td", "王秀英");
    await shows(page, "#all_active_visit_data td", "王芳");
  }
  const hostile = "<img src=x onerror=alert(1)>";
  await writer.run("UPDATE patient SET name = ? WHERE id = 1", hostile);
  await writer.run("UPDATE visit SET left_at = '2026-11-23 10:00:00' WHERE visitor = '王芳'");
  for (const { page } of pages) {
    await shows(page, "#all_patient_page_data td", hostile);
    await shownNot(page, "#all_active_visit_data td", "王芳");
    assert.equal(await page.locator("td img").count(), 0);
  }
  for (const { complaints } of pages) assert.deepEqual(complaints, []);
  const unknown = await Promise.all(["rowcast.db", "serve.py", "../gateway.sh"].map((name) => fetch(new URL(name, url))));
  assert.deepEqual(unknown.map(({ status }) => status), [404, 404, 404]);
  await interrupt();
  for (const { page } of pages) await page.waitForSelector("#status.offline");
});

test("the React page filters, sorts, turns pages and adds a row on one socket", async (t) => {
  const { url, writer, interrupt } = await run(t, "react", "rowcast.db");
  const { page, complaints } = await open(t, "about:blank");
  const sockets = [];
  page.on("websocket", (socket) => socket.url().includes("/socket/all/") && sockets.push(socket.url()));
  await page.goto(url);
  await page.waitForSelector("#status.live");
  const names = "#patients td[data-column=name]";
  const ward = "#ward td[data-column=name]";
  await page.waitForFunction((selector) => document.querySelectorAll(selector).length === 8, names);
  await shows(page, "#patients nav", "1 / 3");

  await writer.run("UPDATE patient SET ward = '3', age = 99 WHERE name = '张桂兰'");
  await shows(page, "#patients tr[data-id='3'] td", "99");
  await shows(page, ward, "张桂兰");
  assert.equal((await texts(page, ward))[0], "张桂兰");

  await page.getByText("下一页").click();
  await shows(page, "#patients nav", "2 / 3");
  await shows(page, names, "周凤霞");
  await page.getByRole("button", { name: "年龄" }).click();
  await shows(page, "#patients nav", "1 / 3");
  await shows(page, names, "高洪亮");
  assert.equal((await texts(page, names))[0], "高洪亮");
  await page.getByRole("button", { name: "年龄" }).click();
  await shows(page, names, "张桂兰");

  await page.getByPlaceholder("按姓名筛选").fill("秀");
  await become(page, names, ["马秀兰", "王秀英"]);
  await page.getByLabel("新老人的姓名").fill("赵秀珠");
  await page.getByText("新增到 3 病区").click();
  await shows(page, names, "赵秀珠");
  await shows(page, ward, "赵秀珠");
  await writer.run("DELETE FROM patient WHERE name = '赵秀珠'");
  await become(page, names, ["马秀兰", "王秀英"]);
  await shownNot(page, ward, "赵秀珠");

  await page.getByLabel("病区").selectOption("6");
  await shows(page, ward, "唐启明");
  assert.equal(sockets.length, 1);
  assert.deepEqual(complaints, []);
  await interrupt();
});

test("the Django page shows what its forms and other programs change", async (t) => {
  const python = process.env.ROWCAST_TEST_PYTHON ?? (existsSync(venv) ? venv : "python3");
  const { url, writer, interrupt } = await run(t, "django", "db.sqlite3", { PYTHON: python });
  const [{ page, complaints }, other] = [await open(t, url), await open(t, url)];
  const patients = "#all_patient_page_data td";
  const visits = "#all_active_visit_data td";
  await page.waitForSelector("#status.live");
  await shows(page, visits, "王芳");

  await page.getByPlaceholder("姓名").fill("<b>钱美玉</b>");
  await page.getByPlaceholder("年龄").fill("83");
  await page.getByText("新增").click();
  for (const seen of [page, other.page]) await shows(seen, patients, "<b>钱美玉</b>");

  await page.getByPlaceholder("来访人").fill("钱程");
  await page.getByLabel("老人").selectOption({ label: "<b>钱美玉</b>" });
  await page.getByRole("button", { name: "登记" }).click();
  for (const seen of [page, other.page]) await shows(seen, visits, "钱程");
  await page.locator("#all_active_visit_data tr", { hasText: "钱程" }).getByText("离开").click();
  for (const seen of [page, other.page]) await shownNot(seen, visits, "钱程");

  await writer.run("UPDATE chat_patient SET ward = '特护' WHERE name = '王秀英'");
  await shows(page, patients, "特护");
  await page.getByText("全部离开").click();
  for (const seen of [page, other.page]) await shownNot(seen, visits, "王芳");
  assert.deepEqual([...complaints, ...other.complaints], []);

  const forged = await fetch(new URL("visits/end/", url), { method: "POST" });
  assert.equal(forged.status, 403);
  await interrupt();
});

// What the console's views do beside showing rows: filter, sort and page them, inspect frames, say
// what a topic is and publish to it, show the pipeline; in both languages and both themes.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { en } from "../../web/en.js";
import { zh } from "../../web/zh.js";
import { asShown, cell, deadline, launchBrowser, openConsole, row, Server, shownRows, VIEWS, watchFor, Writer } from "./support.mjs";

/** Rows of a long table: as many as a view is read whole with. */
const LONG_ROWS = 10_000;

/** Changes in one burst, and the longest that the page may be busy at once meanwhile; how often that is tried,
 *  for the machine may stand still, too. */
const BURST_ROWS = 2000;
const BUSY_MS = 1000;
const TRIES = 3;

const web = path.join(path.dirname(fileURLToPath(import.meta.url)), "../../web");

/** Runs a program until it ends, or until `enough` is in what it says. */
async function output(command, args, enough = null, during = () => {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], env: { PATH: process.env.PATH } });
  let said = "";
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const heard = new Promise((resolve) => {
    lines.on("line", (line) => {
      said += `${line}\n`;
      if (enough?.test(said)) resolve();
    });
  });
  during();
  await deadline(`${command} says ${enough}`, enough ? Promise.race([heard, exited]) : exited);
  child.kill();
  return said;
}

describe("the console's views", { concurrency: false }, () => {
  let browser;
  let server;
  let writer;
  let opened = [];

  before(async () => {
    server = await Server.create();
    await server.start();
    writer = new Writer(server.database);
    browser = await launchBrowser();
  });

  after(async () => {
    await browser?.close();
    await writer?.stop();
    await server?.remove();
  });

  async function open(options, prepare) {
    const page = await openConsole(browser, server, options, prepare);
    opened.push(page.context());
    return page;
  }

  async function closePages() {
    for (const context of opened.splice(0)) await context.close();
  }

  /** Waits until the table shows these rows, in this order. */
  async function shows(page, type, sql) {
    const wanted = asShown((await writer.run(sql)).rows);
    await page.waitForFunction(([type, wanted]) => {
      const shown = [...document.querySelectorAll(`table[data-topic="${type}"] tbody tr`)].map((line) =>
        Object.fromEntries([...line.children].map((cell) => [cell.dataset.column, cell.hasAttribute("data-null") ? null : cell.textContent])));
      return JSON.stringify(shown) === JSON.stringify(wanted);
    }, [type, wanted]).catch(async () => assert.deepEqual(await shownRows(page, type), wanted));
  }

  const counted = (page, text, type = "patient") => page.waitForFunction(
    ([type, text]) => document.querySelector(`[data-panel=${type}] .count`).textContent === text, [type, text]);

  test("a filtered table shows what matches, also when that changes", async (t) => {
    t.after(closePages);
    const page = await open();
    const box = page.locator("[data-panel=patient] .filter");
    await box.fill("ward=3 age>=80 name~%王%");
    const matching = "select * from patient where ward = '3' and age >= 80 and name like '%王%' order by id";
    await shows(page, "patient", matching);
    await writer.run("update patient set ward = '3', age = 99, name = '王新来' where id = 7");
    await shows(page, "patient", matching);
    await page.waitForSelector(row("patient", 7));
    await writer.run("update patient set ward = '4' where id = 7");
    await page.waitForSelector(row("patient", 7), { state: "detached" });
    await shows(page, "patient", matching);

    // By a click on a cell, and taken back by another.
    await box.fill("");
    await shows(page, "patient", "select * from patient order by id");
    await page.click(cell("patient", 1, "care_level"));
    await shows(page, "patient", "select * from patient where care_level = (select care_level from patient where id = 1) order by id");
    await page.click(cell("patient", 1, "left_at"));
    assert.match(await box.inputValue(), /^care_level=\S+ left_at=null$/);
    await page.click(cell("patient", 1, "left_at"));
    await page.click(cell("patient", 1, "care_level"));
    await shows(page, "patient", "select * from patient order by id");

    for (const [written, said] of [["colour=red", /no column “colour”/], ["red", /“red” is no condition/]]) {
      await box.fill(written);
      await page.waitForFunction((said) => new RegExp(said).test(document.querySelector("[data-panel=patient] .wrong:not([hidden])")?.textContent), said.source);
    }
    assert.deepEqual(page.complaints, []);
  });

  test("a header sorts up, down, and not at all", async (t) => {
    t.after(closePages);
    const page = await open();
    const header = page.locator("table[data-topic=patient] th button[data-column=age]");
    for (const [order, sorted] of [["age, id", "ascending"], ["age desc, id", "descending"], ["id", null]]) {
      await header.click();
      await shows(page, "patient", `select * from patient order by ${order}`);
      assert.equal(await header.locator("..").getAttribute("aria-sort"), sorted);
    }
    await header.click();
    await writer.run("update patient set age = 1 where id = 12");
    await shows(page, "patient", "select * from patient order by age, id");
    assert.deepEqual(page.complaints, []);
  });

  test("a view too large to be held is shown page by page", async (t) => {
    t.after(closePages);
    const small = await Server.create();
    const usual = [server, writer];
    t.after(async () => {
      await small.remove();
      await writer.stop();
      [server, writer] = usual;
    });
    await small.start(); // Once with the demo, which makes its tables.
    await small.kill();
    await small.configure(["patient", "visit"].map((table) => `[[topics]]\ntype = "${table}"\ntable = "${table}"\nmax_rows = 100\n`).join("\n"));
    [server, writer] = [small, new Writer(small.database)];
    await writer.run("with recursive i(x) as (select 1 union all select x + 1 from i where x < 120) insert into patient (name, ward) select '压力' || x, '9' from i");
    await small.start();
    const page = await open();
    const all = "select * from patient order by id limit 50";
    await shows(page, "patient", all);
    await counted(page, "144 rows");
    const pager = page.locator("[data-panel=patient] .pager");
    assert.match(await pager.textContent(), /page 1 of 3 · rows 1–50/);
    await pager.getByText("Next").click();
    await shows(page, "patient", `${all} offset 50`);
    await writer.run("update patient set ward = '77' where id = 60");
    await shows(page, "patient", `${all} offset 50`);
    await pager.getByText("Next").click();
    await shows(page, "patient", `${all} offset 100`);
    assert.ok(await pager.getByText("Next").isDisabled());
    // What a filter leaves may be held again.
    await page.fill("[data-panel=patient] .filter", "ward=77");
    await shows(page, "patient", "select * from patient where ward = '77'");
    await pager.waitFor({ state: "hidden" });
    // The client tells the developer why the whole view could not be had; nothing else is wrong.
    assert.deepEqual(page.complaints.filter((text) => !/take pages/.test(text)), []);
  });

  test("ten thousand rows are scrolled, sorted and changed, and the page stays awake", async (t) => {
    t.after(closePages);
    const [{ last, n }] = (await writer.run("select max(id) as last, count(*) as n from patient")).rows;
    await writer.run(`with recursive i(x) as (select 1 union all select x + 1 from i where x < ?)
      insert into patient (name, age) select '长表' || x, x % 90 from i`, LONG_ROWS - n);
    t.after(() => writer.run("delete from patient where id > ?", last));
    const page = await open();
    await counted(page, "10,000 rows");
    await page.evaluate(() => {
      window.longest = 0;
      let before = performance.now();
      const picture = (now) => {
        window.longest = Math.max(window.longest, now - before);
        before = now;
        requestAnimationFrame(picture);
      };
      requestAnimationFrame(picture);
    });
    const [{ id }] = (await writer.run("select max(id) as id from patient")).rows;
    const header = page.locator("table[data-topic=patient] th button[data-column=age]");
    let longest = Infinity;
    for (let turn = 0; turn < TRIES && longest >= BUSY_MS; turn += 1) {
      await page.evaluate(() => { window.longest = 0; });
      await page.evaluate(() => { document.querySelector("[data-panel=patient] .scroll").scrollTop = 1e9; });
      await page.waitForSelector(row("patient", id));
      assert.ok(await page.locator("table[data-topic=patient] tbody tr").count() <= 200);
      const shown = await watchFor(page, cell("patient", id, "ward"), `last ${turn}`);
      await writer.run("update patient set ward = ? where id = ?", `last ${turn}`, id);
      await shown();
      await writer.run("update patient set ward = ? where id in (select id from patient order by id desc limit ?)", `burst ${turn}`, BURST_ROWS);
      await page.waitForFunction(([selector, text]) => document.querySelector(selector)?.textContent === text, [cell("patient", id, "ward"), `burst ${turn}`]);
      await header.click();
      await page.waitForSelector("table[data-topic=patient] th[aria-sort=ascending] button[data-column=age]");
      await counted(page, "10,000 rows");
      longest = await page.evaluate(() => window.longest);
      t.diagnostic(`longest between two pictures: ${longest.toFixed(0)} ms`);
      // Back to the order of the keys, where the last one is the last.
      await header.click();
      await header.click();
      await page.waitForFunction(() => !document.querySelector("table[data-topic=patient] th[aria-sort]"));
    }
    assert.ok(longest < BUSY_MS, `${longest} ms between two pictures`);
    assert.deepEqual(page.complaints, []);
  });

  test("the inspector shows the page's own frames; filters, pauses, copies, opens and forgets them", async (t) => {
    t.after(closePages);
    const page = await open({ view: "frames" });
    const frames = page.locator("#own-frames li");
    const seen = `#own-frames li[data-type=patient]:has-text('"op":"update"'):has-text('"ward":"seen"')`;
    const types = () => page.$$eval("#own-frames li[data-type]", (lines) => [...new Set(lines.map((line) => line.dataset.type))]);
    await page.waitForSelector(`#own-frames li[data-direction="out"][data-type="sys:hello"]`);
    await page.waitForSelector(`#own-frames li[data-direction="in"][data-type="sys:welcome"]`);
    // Before the page has asked for the rows their changes do not concern it.
    await page.waitForSelector(`#own-frames li[data-direction="in"][data-type=patient]`);
    await page.fill("#own-filter", "patient");
    await writer.run("update patient set ward = 'seen' where id = 2");
    await page.waitForSelector(seen);
    for (const type of await types()) assert.match(type, /patient/);

    // Opened, a frame is JSON that can be read; copied, it is what came.
    await page.click(`${seen} button.frame`);
    assert.match(await page.textContent("#own-frames .whole pre"), /\n {4}"ward": "seen"/);
    await page.click("#own-frames .whole button");
    assert.equal(JSON.parse(await page.evaluate(() => navigator.clipboard.readText())).data.ward, "seen");

    await page.click("#own-pause");
    assert.equal(await page.getAttribute("#own-pause", "aria-pressed"), "true");
    await writer.run("update patient set ward = 'unseen' where id = 2");
    await page.waitForFunction(() => /paused · [1-9]/.test(document.querySelector("#own-count").textContent));
    assert.equal(await page.locator("#own-frames li:has-text('unseen')").count(), 0);
    await page.click("#own-pause");
    await writer.run("update patient set ward = 'again' where id = 2");
    await page.waitForSelector("#own-frames li[data-type=patient]:has-text('again')");

    await page.click("#own-copy");
    const copied = (await page.evaluate(() => navigator.clipboard.readText())).split("\n").map((line) => JSON.parse(line));
    assert.ok(copied.some(({ data }) => data?.ward === "again"));

    await page.fill("#own-filter", "");
    await writer.run(`with recursive i(x) as (select 1 union all select x + 1 from i where x < ?)
      insert into visit (patient_id, visitor) select 1, '压力' || x from i`, BURST_ROWS);
    await page.waitForFunction(() => /^latest 500 · [\d,]+ dropped$/.test(document.querySelector("#own-count").textContent));
    assert.ok(await frames.count() <= 500);
    await writer.run("delete from visit where visitor like '压力%'");
    await page.click("#own-pause");
    await page.click("#own-clear");
    assert.equal(await frames.count(), 0);
    assert.deepEqual(page.complaints, []);
  });

  test("a test event is published, and seen coming back", async (t) => {
    t.after(closePages);
    const page = await open({ view: "topics/visit" });
    await page.fill("#publish-data", `{"to":"家属","n":1}`);
    await page.fill("#publish-id", "console-1");
    await page.press("#publish-id", "Enter");
    await page.waitForFunction(() => /^202 · stored at \S+ · [\d,]+ ms$/.test(document.querySelector("#publish-answer").textContent));
    await page.waitForFunction(() => /^came back to this page after [\d,]+ ms$/.test(document.querySelector("#publish-back").textContent));
    const frame = JSON.parse(await page.textContent("#publish-frame"));
    assert.deepEqual([frame.type, frame.op, frame.data], ["visit", "event", { to: "家属", n: 1 }]);
    assert.equal(await page.locator("[data-testid=toast]").count(), 0, "it is shown where it was asked for");

    // The same id again stores nothing: the event came before.
    await page.click("#publish-send");
    await page.waitForFunction(() => /^stored before/.test(document.querySelector("#publish-back").textContent));
    assert.deepEqual(page.complaints, []);
  });

  test("a topic says what it is made of, and where its types are", async (t) => {
    t.after(closePages);
    const page = await open({ view: "topics/visit" });
    const facts = await page.textContent("#topic .facts");
    for (const fact of ["left_at IS NULL", "arrived_at desc"]) assert.ok(facts.includes(fact), fact);
    const { topics } = await (await page.request.get(`${server.url}/api/topics`)).json();
    const { columns } = topics.find(({ type }) => type === "visit");
    assert.deepEqual(await page.$$eval("#topic .columns tbody tr td:first-child code", (cells) => cells.map((cell) => cell.textContent)), columns);
    const types = await page.request.get(new URL(await page.getAttribute("#topic .links a[href*='lang=ts']", "href"), server.url).href);
    assert.match(await types.text(), /visit/);
    await page.click("#topic .links a[href='#tables/visit']");
    await page.waitForSelector("#view-tables:visible [data-panel=visit]");
    assert.deepEqual(page.complaints, []);
  });

  test("the snippets of a topic run as they are", async (t) => {
    t.after(closePages);
    const page = await open({ view: "topics/patient" });
    const code = async (language, part) => {
      await page.click(`#snippet-${language}`);
      return page.textContent(`[data-snippet=${language}-${part}]`);
    };
    const name = (await writer.run("select name from patient where id = 1")).rows[0].name;
    let changes = 0;
    const change = () => writer.run("update patient set ward = ? where id = 1", String(500 + (changes += 1) % 100));

    for (const [language, command, flag] of [["curl", "bash", "-c"], ["python", "python3", "-c"]]) {
      assert.match(await output(command, [flag, await code(language, "read")]), new RegExp(name));
      assert.match(await output(command, [flag, await code(language, "publish")]), /"code":202/);
      // It says nothing before it follows, so it is given changes until it has said one.
      const follow = await code(language, "follow");
      let over = false;
      const heard = await output(command, [flag, follow], /ward\W+5\d\d/, async () => {
        while (!over) await change();
      }).finally(() => { over = true; });
      assert.match(heard, /ward\W+5\d\d/);
    }

    // JavaScript in a page of another origin, as a developer's own would be.
    const javascript = await Promise.all(["read"].map((part) => code("javascript", part)));
    javascript.push(await code("javascript", "follow"), await code("javascript", "publish"));
    const site = createServer(({ url }, answer) => {
      answer.setHeader("content-type", "text/html; charset=utf-8");
      answer.end(`<!doctype html><script>window.said = []; console.table = (rows) => said.push(rows); console.log = (frame) => said.push([frame]);</script>
        <script type="module">${javascript[Number(url.slice(1))] ?? ""}\nwindow.ran = true;</script>`);
    });
    await once(site.listen(0, "127.0.0.1"), "listening");
    t.after(() => site.close());
    const other = await page.context().newPage();
    const said = (text) => deadline(`the page says ${text}`, other.waitForFunction((text) => JSON.stringify(window.said).includes(text), text));
    const visit = (place) => other.goto(`http://127.0.0.1:${site.address().port}/${place}`);
    await visit(0);
    await said(name);
    await visit(1);
    await said(name);
    await change();
    await said(`"op":"update"`);
    await visit(2);
    await other.waitForFunction(() => window.ran);
    assert.match(await code("nats", "publish"), /rowcast\.event\.patient/);
    assert.deepEqual(page.complaints, []);
  });

  test("a server that shows its pipeline to operators only is said to, in both languages", async (t) => {
    t.after(closePages);
    const other = await Server.create();
    t.after(() => other.remove());
    await other.configure('[server]\noperator_listen = "127.0.0.1:0"\n');
    await other.start();
    for (const [language, words] of [["en", en], ["zh", zh]]) {
      const page = await openConsole(browser, other, { locale: language === "zh" ? "zh-CN" : "en-GB", view: "pipeline" });
      opened.push(page.context());
      await page.waitForSelector("#stages[data-stale=true]");
      await page.waitForFunction((text) => document.querySelector("#pipeline-state").textContent === text, words["pipeline.elsewhere"]);
      await page.click("[data-view=letters]");
      await page.waitForSelector("#letters-empty:not([hidden])");
      await page.waitForFunction((text) => document.querySelector("#letters-empty").textContent === text, words["letters.elsewhere"]);
      // All else is as ever.
      await page.waitForSelector("#state[data-state=live]");
    }
  });

  test("the pipeline is seen at work, and when its server is gone", async (t) => {
    t.after(closePages);
    const page = await open({ view: "pipeline" });
    for (const stage of ["source", "relay", "bus", "gateway"]) {
      await page.waitForSelector(`[data-stage=${stage}][data-state=up]`);
    }
    const rate = "[data-stage=source] dd:has-text('/s')";
    let over = false;
    const writing = (async () => {
      while (!over) await writer.run("update patient set ward = ward where id = 1");
    })();
    await page.waitForFunction((rate) => /^[1-9]/.test([...document.querySelectorAll("[data-stage=source] dd")].find((dd) => dd.textContent.endsWith("/s"))?.textContent), rate);
    over = true;
    await writing;
    await server.kill();
    await page.waitForSelector("#stages[data-stale=true]");
    await page.waitForFunction(() => document.querySelector("#pipeline-state").textContent.includes("no answer since"));
    await server.start();
    await page.waitForSelector("#stages[data-stale=false]");
    await page.waitForSelector("#state[data-state=live]");
  });

  test("several processes, one that is down, incidents and dead letters are told", async (t) => {
    t.after(closePages);
    const page = await open();
    const stages = [
      { stage: "source", process: "p1", state: "down", what: "postgres care", position: "0/3002D08", lag_ms: 12_000, total: 10, retained_bytes: 5 * 1024 ** 2, error: { text: "connection refused", at: 1790000000000 } },
      { stage: "source", process: "p2", state: "standby", what: "postgres care", error: null },
      { stage: "relay", process: "p1", state: "silent", position: "e1:41", lag_ms: null, total: 10, error: null },
      { stage: "bus", process: "g1", state: "up", what: "nats://bus:4222", position: "e1:41", first: "e1:1", durability: "replicated", error: { text: "was away", at: 1790000000000, over: true } },
      ...["g1", "g2"].map((process) => ({ stage: "gateway", process, state: "up", position: "e1:41", lag_ms: 3, total: 10, sockets: 4, behind: 1, pushed: 40, queries: 2, version: "0.1.0", started: 1790000000000, error: null })),
    ];
    const incidents = [{ seq: 1, at: 1790000000000, process: "g1", kind: "reset", what: "lagged", n: 3, text: "three sockets" }];
    await page.route("**/api/pipeline", (route) => route.fulfill({ json: { at: Date.now(), gateway: "g1", stages, incidents } }));
    await page.route("**/api/dead_letters*", (route) => route.fulfill({ json: {
      dead_letters: [{ seq: 7, at: 1790000000000, subject: "rowcast.event.visit", type: "visit", reason: "not JSON", of: 1234, size: 12, text: "{oops" }], total: 1, kept: true,
    } }));
    await page.keyboard.press("4");
    await page.waitForSelector("[data-stage=source][data-state=down]:has-text('connection refused')");
    assert.match(await page.textContent("[data-stage=source] .facts"), /12\.0 s.*5\.0 MiB/);
    assert.equal(await page.locator("[data-stage=gateway] .part").count(), 2);
    assert.equal(await page.locator("[data-stage=sockets] .part").count(), 2);
    assert.match(await page.textContent("[data-stage=bus] .stage-error[data-over=true]"), /was away/);
    assert.match(await page.textContent("#incidents tbody tr"), /resetlaggedg13three sockets$/);
    incidents.push({ seq: 2, at: 1790000000000, process: "g1", kind: "close", what: 4008, n: 1, text: "" });
    await page.waitForSelector("#incidents tbody tr:first-child:has-text('4008 too slow')");
    await page.keyboard.press("5");
    await page.waitForSelector("#letters tbody tr:has-text('not JSON')");
    await page.click("#letters summary");
    assert.equal(await page.textContent("#letters pre"), "{oops");
    assert.deepEqual(page.complaints, []);
  });

  test("with the embedded bus the dead letters say that there can be none", async (t) => {
    t.after(closePages);
    const page = await open({ view: "letters" });
    await page.waitForSelector("#letters-empty:has-text('There can be none here')");
    assert.deepEqual(page.complaints, []);
  });

  test("the theme is the system's until another is chosen, which is remembered", async (t) => {
    t.after(closePages);
    const page = await open({ colorScheme: "dark" });
    // What a reader sees: whether the page is darker than its text.
    const dark = () => page.evaluate(() => {
      const { backgroundColor, color } = getComputedStyle(document.body);
      const light = (text) => text.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
      return light(backgroundColor) < light(color);
    });
    assert.ok(await dark());
    await page.click("#theme");
    assert.ok(!await dark());
    await page.reload();
    await page.waitForSelector("#state[data-state=live]");
    assert.ok(!await dark());
    await page.click("#theme");
    await page.emulateMedia({ colorScheme: "light" });
    assert.ok(!await dark(), "back to the system's own, it follows the system again");
  });

  test("both languages have every word that the page says", async (t) => {
    t.after(closePages);
    assert.deepEqual(Object.keys(zh), Object.keys(en));
    const known = new Set(Object.keys(en));
    for (const file of (await readdir(web)).filter((name) => /\.(js|html)$/.test(name))) {
      const source = await readFile(path.join(web, file), "utf8");
      const named = /(?:data-t(?:-label|-title|-placeholder)?"?[=:] ?|(?:say|text|worded|notice|note|remark|known)\((?:[^()"]*?,\s*)?(?:"\w+",\s*)?)"([a-z]+\.[a-z_]+)"/g;
      for (const [, key] of source.matchAll(named)) assert.ok(known.has(key), `${file}: ${key}`);
    }
    const page = await open({ locale: "zh-CN" });
    for (const view of VIEWS) {
      await page.goto(`${server.url}/#${view}`);
      await page.waitForSelector(`#view-${view}:visible`);
      const [keys, missing] = await page.evaluate(() => {
        const said = [...document.querySelectorAll("[data-t]")];
        return [said.map((element) => element.dataset.t), said.filter((element) => element.textContent === element.dataset.t).map((element) => element.dataset.t)];
      });
      for (const key of keys) assert.ok(known.has(key), key);
      assert.deepEqual(missing.filter((key) => zh[key] !== key), [], view);
    }
    assert.equal(await page.textContent("#letters-title"), "死信");
  });
});

// The console in a real Chromium, on the real binary, with writers that know nothing of
// Rowcast: separate processes that open the same SQLite file.
//
// What its views do beside is in views.test.mjs.
//
//   ROWCAST_SCREENSHOTS  a folder for the README's pictures; none are taken where unset

import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { asShown, binary, byId, cell, DEADLINE_MS, deadline, launchBrowser, openConsole, row, Server, shownRows, VIEWS, watchFor, Writer } from "./support.mjs";

/** Rows of a burst: far more than the page shows at once. */
const BURST_ROWS = 1000;

/** Writes whose way to the page is timed; the median of ten says enough, and is over soon. */
const TIMED_WRITES = 10;

const here = path.dirname(fileURLToPath(import.meta.url));

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
    browser = await launchBrowser();
  });

  after(async () => {
    await browser?.close();
    await writer?.stop();
    await server?.kill();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  /** Opens the console; the page is closed after the test. */
  async function open(options, prepare) {
    const page = await openConsole(browser, server, options, prepare);
    opened.push(page.context());
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
      // The browser itself reports each connection that was refused or cut; nothing else may be there.
      assert.deepEqual(page.complaints.filter((text) => !/WebSocket connection .* failed|net::ERR_CONNECTION_/.test(text)), []);
    });
  }

  test("markup is text in every view, and the content security policy has nothing to refuse", async (t) => {
    t.after(closePages);
    const page = await open();
    const [{ name }] = (await writer.run("select name from patient where id = 3")).rows;
    const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    const shown = await watchFor(page, cell("patient", 3, "name"), markup);
    await writer.run("update patient set name = ? where id = 3", markup);
    await shown();

    // A condition written by a click, and one that is wrong.
    await page.click(cell("patient", 3, "name"));
    await page.waitForFunction(() => document.querySelector("[data-panel=patient] .count").textContent === "1 match");
    await page.fill("[data-panel=patient] .filter", markup);
    await page.waitForSelector("[data-panel=patient] .wrong:has-text('<img')");
    await page.fill("[data-panel=patient] .filter", "");

    await page.keyboard.press("Escape");
    await page.keyboard.press("2");
    await page.click("#tester-open");
    await page.waitForSelector("#tester-send:enabled");
    await page.fill("#tester-input", JSON.stringify({ type: "patient", rid: 1, id: 3 }));
    await page.click("#tester-send");
    await page.click(`#tester-frames li[data-direction="in"] button`);
    await page.waitForFunction((text) => JSON.parse(document.querySelector("#tester-frames pre").textContent).data[0].name === text, markup);

    await page.goto(`${server.url}/#topics/patient`);
    await page.fill("#publish-data", markup);
    await page.click("#publish-send");
    await page.waitForFunction((text) => document.querySelector("#publish-frame").textContent.includes(JSON.stringify(text)), markup);

    // The server has no reason to say such things: what the page hears is altered on its way.
    await page.route("**/api/pipeline", (route) => route.fulfill({ json: {
      at: 1790000000000, gateway: markup,
      stages: ["source", "relay", "bus", "gateway"].map((stage) => ({ stage, process: markup, state: "up", what: markup, position: markup, error: { text: markup, at: 1 } })),
      incidents: [{ seq: 1, at: 1, process: markup, kind: "reset", what: markup, n: 1, text: markup }],
    } }));
    await page.route("**/api/dead_letters*", (route) => route.fulfill({ json: {
      dead_letters: [{ seq: 1, at: 1, subject: markup, type: markup, reason: markup, of: 1, size: 9, text: markup }], total: 1, kept: true,
    } }));
    await page.goto(`${server.url}/#pipeline`);
    await page.waitForSelector("#stages .stage-error:has-text('<img')");
    await page.waitForSelector("#incidents tbody tr:has-text('<img')");
    await page.keyboard.press("5");
    await page.waitForSelector("#letters tbody tr:has-text('<img')");

    assert.equal(await page.locator("main img, main script, .toasts img").count(), 0);
    assert.notEqual(await page.title(), "owned");
    await writer.run("update patient set name = ? where id = 3", name);
    assert.deepEqual(page.complaints, []);
  });

  test("the tester shows the frames of the echo both ways", async (t) => {
    t.after(closePages);
    const page = await open({ locale: "zh-CN", view: "frames" });
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
    await page.waitForFunction(() => document.querySelector("#tester-frames li:last-child").textContent.includes("已断开 1000"));
    await page.click("#tester-clear");
    await page.waitForFunction(() => document.querySelectorAll("#tester-frames li").length === 0);
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
    for (const view of VIEWS) {
      await page.goto(`${server.url}/#${view}`);
      await page.waitForSelector(`#view-${view}:visible`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), view);
    }
  });

  test("a burst of a thousand rows is shown, and the page stays awake meanwhile", async (t) => {
    t.after(closePages);
    const page = await open();
    const [{ n, last }] = (await writer.run("select count(*) as n, max(id) as last from patient")).rows;
    await page.evaluate(() => {
      window.pictures = 0;
      const count = () => { window.pictures += 1; requestAnimationFrame(count); };
      count();
    });
    await writer.run(`with recursive i(x) as (select 1 union all select x + 1 from i where x < ?)
      insert into patient (name) select '压力' || x from i`, BURST_ROWS);
    await page.waitForFunction((text) => document.querySelector("[data-panel=patient] .count").textContent === text,
      `${(n + BURST_ROWS).toLocaleString("en")} rows`);
    assert.ok(await page.locator("[data-panel=patient] tbody tr").count() <= 200, "the page holds a window of them");
    assert.ok(await page.evaluate(() => window.pictures) > 1, "the page was drawn during the burst");
    const shown = await watchFor(page, cell("patient", 1, "ward"), "awake");
    await writer.run("update patient set ward = 'awake' where id = 1");
    await shown();
    await writer.run("delete from patient where id > ?", last);
    await showsTheDatabase(page, "patient");
    await page.waitForFunction((text) => document.querySelector("[data-panel=patient] .count").textContent === text, `${n} rows`);
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
    const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
    const tabTo = async (id) => {
      for (let step = 0; step < 120; step += 1) {
        await page.keyboard.press("Tab");
        if (await focused() === id) return;
      }
      throw new Error(`Tab does not lead to ${id}`);
    };
    await tabTo("trigger-info");
    await page.keyboard.press("Enter");
    await page.waitForSelector(row("patient", last + 1));

    // Digits go from view to view, and stay digits where something is written.
    for (const [place, view] of VIEWS.entries()) {
      await page.keyboard.press(String(place + 1));
      await page.waitForSelector(`#view-${view}:visible`);
      assert.equal(await page.getAttribute(`[data-view=${view}]`, "aria-current"), "page");
    }
    await page.keyboard.press("2");
    await tabTo("tester-open");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#tester-send:enabled");
    await tabTo("tester-input");
    await page.keyboard.type(`{"type":"sys:ping","rid":1}`);
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector(`#tester-frames li[data-direction="in"]`)?.textContent.includes("sys:pong"));
    await page.keyboard.press("Escape");

    await page.keyboard.press("?");
    await page.waitForSelector("#help[open]");
    await page.keyboard.press("Escape");
    await page.waitForSelector("#help", { state: "hidden" });

    // Into the filter, and from cell to cell.
    await page.keyboard.press("1");
    await page.keyboard.press("/");
    await page.keyboard.type("ward=3");
    await page.keyboard.press("Enter");
    const [{ n }] = (await writer.run("select count(*) as n from patient where ward = '3'")).rows;
    const counted = (text) => page.waitForFunction((text) => document.querySelector("[data-panel=patient] .count").textContent === text, text);
    await counted(`${n} match`);
    await page.keyboard.press("Escape");
    await counted(`${(await writer.run("select count(*) as n from patient")).rows[0].n} rows`);
    await page.focus("table[data-topic=patient]");
    for (const key of ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight"]) await page.keyboard.press(key);
    assert.equal(await page.textContent("#active-patient"), await page.textContent(cell("patient", 2, "name")));
    assert.equal(await page.getAttribute("table[data-topic=patient]", "aria-activedescendant"), "active-patient");
    await page.keyboard.press("Enter");
    await counted("1 match");
    assert.match(await page.inputValue("[data-panel=patient] .filter"), /^name=/);
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
    const viewport = { width: 1280, height: 800 };
    // The database stands in a folder of its own here; a reader's is where it was started.
    const picture = async (page, name) => {
      await page.evaluate(() => {
        const command = document.querySelector("#demo-command");
        command.textContent = command.textContent.replace(/\S*rowcast\.db/, "rowcast.db");
      });
      await page.mouse.move(0, 0);
      await screenshot(page, name);
    };
    for (const [name, locale, colorScheme, ward] of [
      ["console-light", "en-US", "light", "5"],
      ["console-dark", "en-US", "dark", "6"],
      ["console-zh", "zh-CN", "light", "7"],
    ]) {
      const page = await open({ locale, colorScheme, viewport });
      await page.click("#trigger-record");
      await writer.run("update patient set ward = ? where id = 2", ward);
      await page.waitForSelector(`${cell("patient", 2, "ward")}[data-flash]`);
      await page.waitForSelector(`table[data-topic=visit] tr[data-flash]`);
      await picture(page, name);
      await closePages();
    }
    const frames = await open({ viewport, view: "frames", colorScheme: "dark" });
    await frames.click("#tester-open");
    await frames.waitForSelector("#tester-send:enabled");
    await frames.fill("#tester-input", `{"type":"patient","rid":1,"id":1}`);
    await frames.click("#tester-send");
    await frames.click(`#tester-frames li[data-direction="in"] button`);
    await writer.run("update patient set ward = '3' where id = 1");
    await frames.waitForSelector("#own-frames li:has-text('update')");
    await picture(frames, "console-frames");
    const topics = await open({ viewport, view: "topics/patient" });
    await topics.click("#publish-send");
    await topics.waitForSelector("#publish-frame:visible");
    await picture(topics, "console-topics");
    const pipeline = await open({ viewport, view: "pipeline" });
    await pipeline.evaluate(() => {
      window.lost = new WebSocket(`${location.origin.replace("http", "ws")}/socket/all/?since=e000000000a:1`);
    });
    await pipeline.waitForSelector("#incidents tbody tr");
    // A curve takes a point a second.
    const points = () => pipeline.evaluate(() => document.querySelector("[data-stage=source] polyline").points.numberOfItems);
    for (let ward = 0; await points() < 12; ward += 1) {
      await writer.run("update patient set ward = ? where id = ?", String(1 + ward % 6), 3 + ward % 20);
      for (let pictures = ward % 50; pictures > 0; pictures -= 10) await pipeline.evaluate(() => new Promise(requestAnimationFrame));
    }
    await picture(pipeline, "console-pipeline");
    await closePages();
    const page = await open({ viewport });
    await shown.kill();
    await page.waitForSelector("#state[data-state=reconnecting]");
    await writer.run("update patient set ward = '8' where id = 2");
    await writer.run("update patient set care_level = '特级' where id = 4");
    await writer.run("update visit set left_at = '2026-11-23 10:00:00' where id = (select min(id) from visit where left_at is null)");
    await picture(page, "reconnect-before");
    await shown.start();
    await page.waitForFunction(() => document.querySelector("#notice").textContent === "reconnected · 3 caught up · 0 lost");
    await picture(page, "reconnect-after");
  });
});

// The console of a server that wants to know who is there: it asks for a token, says what is wrong
// with one, goes on where it was when one has expired, and lets go of what it knows.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { en } from "../../web/en.js";
import { zh } from "../../web/zh.js";
import { asShown, byId, DEADLINE_MS, deadline, launchBrowser, Server, shownRows, VIEWS, Writer } from "./support.mjs";

const SECRET = "a secret of the tests, of more than 32 bytes";

/** Long enough to open a page with on a crowded machine, and short enough to wait for. */
const SOON_S = 15;

/** What a browser, and the client, say of refusals that are expected here. */
const EXPECTED = /status of (401|403|431)|^rowcast: stopped: 4401/;

const run = promisify(execFile);
const now = () => Math.floor(Date.now() / 1000);

/** A token of the server's, for longer than any test takes. */
function signed(claims, secret = SECRET) {
  const text = [{ alg: "HS256", typ: "JWT" }, { exp: now() + 3600, iat: now(), ...claims }]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

describe("the console's sign-in", { concurrency: false }, () => {
  let browser;
  let server;
  let writer;
  let opened = [];

  before(async () => {
    server = await Server.create();
    await server.configure(`[auth]\nkey = "${SECRET}"\nleeway_ms = 0\noperator = { role = "admin" }\npublish = { sub = "ann" }\n`);
    await server.start();
    writer = new Writer(server.database);
    browser = await launchBrowser();
  });

  after(async () => {
    await browser?.close();
    await writer?.stop();
    await server?.remove();
  });

  async function closePages() {
    for (const context of opened.splice(0)) await context.close();
  }

  /** A page of the console, with all that it asks for. */
  async function visit({ view = "tables", of = server, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-US", colorScheme: "light", acceptDownloads: true, ...options });
    opened.push(context);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await context.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    Object.assign(page, { complaints: [], urls: [], answers: [] });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !EXPECTED.test(message.text())) page.complaints.push(message.text());
    });
    page.on("pageerror", (error) => page.complaints.push(String(error)));
    page.on("request", (request) => page.urls.push(request.url()));
    page.on("websocket", (socket) => page.urls.push(socket.url()));
    page.on("response", (response) => page.answers.push([new URL(response.url()).pathname, response.status()]));
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.goto(`${of.url}/#${view}`);
    return page;
  }

  /** Waits until the page asks for a token, for this reason. */
  async function asks(page, why, words = en) {
    await page.waitForSelector("#sign-in:visible");
    await page.waitForFunction((text) => document.querySelector("#sign-in-why").textContent === text, words[`signin.${why}`])
      .catch(async () => assert.equal(await page.textContent("#sign-in-why"), words[`signin.${why}`]));
  }

  async function signIn(page, token) {
    await page.fill("#sign-in-token", token);
    await page.press("#sign-in-token", "Enter");
  }

  const live = (page) => page.waitForSelector("#state[data-state=live]");

  /** A page on which somebody has signed in. */
  async function signedIn(token, options) {
    const page = await visit(options);
    await asks(page, "token_missing");
    await signIn(page, token);
    await live(page);
    return page;
  }

  /** Waits until the page shows the patients as they are. */
  async function showsTheDatabase(page) {
    const until = Date.now() + DEADLINE_MS;
    for (;;) {
      const held = asShown((await writer.run("select * from patient")).rows).sort(byId);
      const shown = (await shownRows(page, "patient")).sort(byId);
      if (JSON.stringify(shown) === JSON.stringify(held)) return;
      if (Date.now() > until) assert.deepEqual(shown, held);
      await page.evaluate(() => new Promise(requestAnimationFrame));
    }
  }

  /** Fails where the token, or a part of it, is anywhere but in the tab's own memory. */
  async function keepsToItself(page, token) {
    const { html, text, fields, local, address } = await page.evaluate(() => ({
      html: document.documentElement.outerHTML,
      text: document.body.innerText,
      fields: [...document.querySelectorAll("input, textarea")].map(({ value }) => value).join("\n"),
      local: JSON.stringify(localStorage),
      address: location.href + JSON.stringify(history.state),
    }));
    const cookies = JSON.stringify(await page.context().cookies());
    const places = { html, text, fields, local, address, cookies, urls: page.urls.join("\n") };
    for (const part of [token, ...token.split(".").slice(1)]) {
      for (const [place, shown] of Object.entries(places)) assert.ok(!shown.includes(part), `the token is in ${place}`);
    }
  }

  for (const [locale, colorScheme, words, width] of [["en-US", "light", en, 1440], ["zh-CN", "dark", zh, 390]]) {
    test(`who has not signed in is asked to, and shown nothing, in ${locale}`, async (t) => {
      t.after(closePages);
      const page = await visit({ locale, colorScheme, viewport: { width, height: 844 } });
      await asks(page, "token_missing", words);
      assert.equal(await page.textContent("#state"), words["state.signed_out"]);
      const field = await page.evaluate(() => {
        const { id, type, labels, autocomplete } = document.activeElement;
        return [id, type, labels[0].textContent, autocomplete];
      });
      assert.deepEqual(field, ["sign-in-token", "password", words["signin.token"], "off"]);
      // The page is the same for everybody: what it says of the server is that it was refused.
      const asked = page.answers.filter(([path]) => !/^\/($|console\/|rowcast\.js$)/.test(path));
      assert.deepEqual(asked, [["/api/topics", 401]]);
      assert.ok(!page.urls.some((url) => url.startsWith("ws")), "no socket is opened");
      assert.equal(await page.locator("[data-topic], [data-choose], #sign-out:visible, #demo:visible").count(), 0);
      const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} px too wide`);
      assert.deepEqual(page.complaints, []);
    });
  }

  test("a token that is wrong, over, or no token at all is told so, and is not kept", async (t) => {
    t.after(closePages);
    const page = await visit();
    await asks(page, "token_missing");
    for (const [token, why] of [
      ["wrong", "token_invalid"], [signed({ sub: "ann" }, "a secret of somebody else, of 32 bytes"), "token_invalid"],
      ["令牌", "token_invalid"], ["with a space", "token_invalid"], ["x".repeat(20_000), "token_invalid"],
      [signed({ sub: "ann", exp: now() - 1 }), "token_expired"], ["", "token_missing"],
    ]) {
      await signIn(page, token);
      await asks(page, why);
      await page.waitForSelector("#sign-in-submit:enabled");
      assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length]), [0, 0], token.slice(0, 20));
    }
    await signIn(page, signed({ sub: "ann" }));
    await live(page);
    await showsTheDatabase(page);
    assert.deepEqual(page.complaints, []);
  });

  test("who signs in sees the tables live, and the token stays in the tab", async (t) => {
    t.after(closePages);
    const token = signed({ sub: "ann", name: "王秀英" });
    const page = await visit();
    await asks(page, "token_missing");
    await page.keyboard.type(token); // The field has the focus.
    await page.keyboard.press("Enter");
    await live(page);
    await page.waitForSelector("#sign-in", { state: "hidden" });
    await writer.run("update patient set ward = 'seen' where id = 1");
    await showsTheDatabase(page);
    await keepsToItself(page, token);

    // The hello that carried it is among the frames, without it; also in a copy.
    await page.keyboard.press("2");
    const hello = `#own-frames li[data-direction="out"][data-type="sys:hello"]`;
    await page.click(`${hello} button.frame`);
    assert.match(await page.textContent(`${hello} .whole pre`), /"token": "\*\*\*"/);
    await page.click("#own-copy");
    assert.ok(!(await page.evaluate(() => navigator.clipboard.readText())).includes(token));
    await keepsToItself(page, token);

    await page.reload();
    await live(page);
    await page.waitForSelector("#sign-out:visible");
    const other = await page.context().newPage();
    await other.goto(server.url);
    await other.waitForSelector("#sign-in:visible");
    assert.deepEqual(page.complaints, []);
  });

  test("every view asks with the token", async (t) => {
    t.after(closePages);
    const token = signed({ sub: "ann", role: "admin" });
    const page = await signedIn(token, { view: "topics/visit" });
    await page.click("#publish-send");
    await page.waitForFunction(() => /^202 /.test(document.querySelector("#publish-answer").textContent));
    for (const [lang, told] of [["ts", /interface Visit/i], ["schema", /"\$defs"|"definitions"/]]) {
      const [download] = await Promise.all([page.waitForEvent("download"), page.click(`#topic .links a[href$='lang=${lang}']`)]);
      assert.match(await readFile(await download.path(), "utf8"), told);
    }
    await page.click("[data-view=pipeline]");
    await page.waitForSelector("[data-stage=gateway][data-state=up]");
    await page.click("[data-view=letters]");
    await page.waitForSelector("#letters-empty:has-text('There can be none here')");
    const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;
    await page.click("[data-view=tables]");
    await page.click("#trigger-info");
    await page.waitForSelector(`table[data-topic=patient] tr[data-key='{"id":${last + 1}}']`);

    // By hand: the token goes along, and to this server alone.
    await page.click("[data-view=frames]");
    await page.click("#tester-open");
    await page.click("#tester-samples button:has-text('sys:hello')");
    await page.click("#tester-send:enabled");
    await page.waitForSelector(`#tester-frames li[data-direction="in"][data-type="sys:welcome"]`);
    await page.fill("#tester-url", `${server.url.replace("http", "ws")}/chat/socket/`);
    await page.click("#tester-open");
    await page.fill("#tester-input", "你好");
    await page.click("#tester-send:enabled");
    await page.waitForSelector(`#tester-frames li[data-direction="in"]:has-text("我收到了")`);
    const offered = new Promise((resolve) => {
      const site = createServer().on("upgrade", ({ headers }, socket) => {
        resolve(headers["sec-websocket-protocol"]);
        socket.destroy();
      });
      t.after(() => site.close());
      once(site.listen(0, "127.0.0.1"), "listening").then(async () => {
        await page.fill("#tester-url", `ws://127.0.0.1:${site.address().port}/`);
        await page.click("#tester-open");
      });
    });
    assert.equal(await deadline("the other server is asked", offered), undefined);
    await keepsToItself(page, token);
    assert.deepEqual(page.complaints.filter((text) => !/WebSocket connection to/.test(text)), []);
  });

  test("who is no operator is told that pipeline and dead letters are for operators, in both languages", async (t) => {
    t.after(closePages);
    const page = await signedIn(signed({ sub: "ann", role: "nurse" }), { view: "pipeline" });
    for (const [language, words] of [["en", en], ["zh", zh]]) {
      await page.click(`[data-language=${language}]`);
      await page.click("[data-view=pipeline]");
      await page.waitForFunction((text) => document.querySelector("#pipeline-state").textContent === text, words["pipeline.operators"]);
      assert.equal(await page.locator("#stages .part, .incidents:visible").count(), 0);
      await page.click("[data-view=letters]");
      await page.waitForFunction((text) => document.querySelector("#letters-empty").textContent === text, words["letters.operators"]);
    }
    assert.deepEqual(page.complaints, []);
  });

  test("the code says where the token goes, never the token, and runs with it", async (t) => {
    t.after(closePages);
    const token = signed({ sub: "ann" });
    const page = await signedIn(token, { view: "topics/patient" });
    const code = async (language, part) => {
      await page.click(`#snippet-${language}`);
      return page.textContent(`[data-snippet=${language}-${part}]`);
    };
    const [{ name }] = (await writer.run("select name from patient where id = 1")).rows;
    const env = { PATH: process.env.PATH, TOKEN: token };
    for (const [language, command] of [["curl", "bash"], ["python", "python3"]]) {
      for (const [part, told] of [["read", new RegExp(name)], ["publish", /"code":202/]]) {
        const shown = await code(language, part);
        assert.ok(shown.includes("TOKEN") && !shown.includes(token), shown);
        assert.match((await run(command, ["-c", shown], { env })).stdout, told);
      }
      assert.match(await code(language, "follow"), /TOKEN/);
    }
    assert.match(await code("nats", "read"), /Rowcast-Token/);
    const [read, publish] = [await code("javascript", "read"), await code("javascript", "publish")];
    await keepsToItself(page, token);
    const site = createServer(({ url }, answer) => {
      answer.setHeader("content-type", "text/html; charset=utf-8");
      answer.end(`<!doctype html><script>window.said = ""; console.table = (rows) => { said = JSON.stringify(rows); };</script>
        <script type="module">${url === "/read" ? read.replace("$TOKEN", token) : `window.said = (${publish.replace("$TOKEN", token).replace("await ", "await (").replace(/;\s*$/, "")})).status;`}</script>`);
    });
    await once(site.listen(0, "127.0.0.1"), "listening");
    t.after(() => site.close());
    const other = await page.context().newPage();
    for (const [path, said] of [["read", name], ["publish", "202"]]) {
      await other.goto(`http://127.0.0.1:${site.address().port}/${path}`);
      await deadline(`${path} says ${said}`, other.waitForFunction((said) => String(window.said).includes(said), said));
    }
    assert.deepEqual(page.complaints, []);
  });

  for (const [locale, words] of [["en-US", en], ["zh-CN", zh]]) {
    test(`when the token expires the page asks again, and goes on without a gap, in ${locale}`, async (t) => {
      t.after(closePages);
      const page = await visit({ locale });
      await asks(page, "token_missing", words);
      await signIn(page, signed({ sub: "ann", role: "nurse", exp: now() + SOON_S }));
      await live(page);
      await showsTheDatabase(page);
      await page.evaluate(() => { window.stayed = true; });
      const before = await shownRows(page, "patient");
      await asks(page, "token_expired", words);
      assert.equal(await page.textContent("#state"), words["state.signed_out"]);
      const [{ last }] = (await writer.run("select max(id) as last from patient")).rows;
      await writer.run("update patient set ward = ? where id = 2", locale);
      await writer.run("insert into patient (id, name) values (?, '沈玉兰')", last + 1);
      await writer.run("delete from patient where id = ?", last);
      assert.deepEqual(await shownRows(page, "patient"), before, "what was last known is still there, and nothing else");
      await signIn(page, "wrong");
      await asks(page, "token_invalid", words);
      await signIn(page, signed({ role: "nurse", sub: "ann" }));
      await live(page);
      const caughtUp = words["notice.resumed"]({ n: 3 });
      await page.waitForFunction((text) => document.querySelector("#notice").textContent === text, caughtUp);
      await showsTheDatabase(page);
      assert.equal(await page.evaluate(() => window.stayed), true, "it is the same page");
      assert.ok(await page.locator("#sign-in").isHidden());
      assert.deepEqual(page.complaints, []);
    });
  }

  test("after a revocation the page says so, and somebody else begins anew", async (t) => {
    t.after(closePages);
    const page = await signedIn(signed({ sub: "ann", jti: "one" }));
    await showsTheDatabase(page);
    await page.evaluate(() => { window.stayed = true; });
    const headers = { token: signed({ sub: "root", role: "admin" }), "content-type": "application/json" };
    const answer = await fetch(`${server.url}/api/revoke`, { method: "POST", headers, body: JSON.stringify({ jti: "one" }) });
    assert.equal(answer.status, 202);
    await asks(page, "token_revoked");
    await signIn(page, signed({ sub: "bob" }));
    await page.waitForFunction(() => !window.stayed && document.querySelector("#state")?.dataset.state === "live");
    await showsTheDatabase(page);
    assert.deepEqual(page.complaints, []);
  });

  test("who signs out is forgotten, with all that was shown to him", async (t) => {
    t.after(closePages);
    const token = signed({ sub: "ann" });
    const page = await signedIn(token);
    await showsTheDatabase(page);
    await page.click("#sign-out");
    await asks(page, "token_missing");
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.equal(await page.locator("table[data-topic]").count(), 0);
    await keepsToItself(page, token);
    await page.reload();
    await asks(page, "token_missing");
    assert.deepEqual(page.complaints, []);
  });

  test("who is known by a cookie is not asked, and waited for where whoever knows him is away", async (t) => {
    t.after(closePages);
    let status = 500;
    const knows = createServer((asked, answer) => {
      answer.statusCode = /sessionid=abc/.test(asked.headers.cookie) ? status : 401;
      answer.end(JSON.stringify({ sub: "ann" }));
    });
    await once(knows.listen(0, "127.0.0.1"), "listening");
    t.after(() => knows.close());
    const other = await Server.create();
    t.after(() => other.remove());
    await other.configure(`[auth]\nforward_url = "http://127.0.0.1:${knows.address().port}/"\n`);
    await other.start();
    const page = await visit({ of: other });
    await asks(page, "token_missing");
    await page.context().addCookies([{ name: "sessionid", value: "abc", url: other.url }]);
    await page.reload();
    await page.waitForFunction((text) => document.querySelector("#notice").textContent === text, en["notice.unreachable"]);
    assert.ok(await page.locator("#sign-in").isHidden());
    status = 200;
    await live(page);
    await page.waitForSelector("table[data-topic=patient] tbody tr");
    assert.equal(await page.locator("#sign-in:visible, #sign-in-open:visible, #sign-out:visible").count(), 0);
  });

  test("where a token is not demanded one may be offered, and where none is judged there is no such thing", async (t) => {
    t.after(closePages);
    const other = await Server.create();
    t.after(() => other.remove());
    await other.configure(`[auth]\nanonymous = true\nkey = "${SECRET}"\n`);
    await other.start();
    const page = await visit({ of: other });
    await live(page);
    assert.ok(await page.locator("#sign-in, #sign-out").evaluateAll((all) => all.every(({ hidden }) => hidden)));
    await page.click("#sign-in-open");
    await asks(page, "more");
    await page.click("#sign-in-cancel");
    await page.waitForSelector("#sign-in", { state: "hidden" });
    await page.click("#sign-in-open");
    await signIn(page, signed({ sub: "ann" }));
    await page.waitForSelector("#sign-out:visible");
    await live(page);
    assert.ok(await page.locator("#sign-in-open").isHidden());
    await page.click("#sign-out");
    await page.waitForSelector("#sign-in-open:visible");
    await live(page);

    await other.kill();
    await other.configure("");
    await other.start();
    await page.reload();
    await live(page);
    assert.equal(await page.locator("#sign-in:visible, #sign-in-open:visible, #sign-out:visible").count(), 0);
  });

  test("signed in, the page fits a phone in every view", async (t) => {
    t.after(closePages);
    const page = await signedIn(signed({ sub: "ann" }), { viewport: { width: 390, height: 844 } });
    for (const view of VIEWS) {
      await page.goto(`${server.url}/#${view}`);
      await page.waitForSelector(`#view-${view}:visible`);
      const overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${view}: ${overflow} px too wide`);
    }
  });
});

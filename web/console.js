// The console page: fetches the topics, connects, and puts the views together.

import { Connection, dismiss, notice, showState, SIGNED_OUT } from "./connection.js";
import { byId, copies } from "./element.js";
import { FrameList } from "./frame-list.js";
import { start as startLanguage, text } from "./i18n.js";
import { DeadLetters } from "./letters.js";
import { Pipeline } from "./pipeline.js";
import { fetchTopics, SignIn } from "./sign-in.js";
import { Tables } from "./tables.js";
import { Tester } from "./tester.js";
import { start as startTheme } from "./theme.js";
import { toast } from "./toasts.js";
import { request, sayTheSame, token } from "./token.js";
import { Topics } from "./topics.js";
import { Views } from "./views.js";

/** Topics for which the tester offers a ready query. */
const SAMPLE_TOPICS = 4;

/** Pause between two tries to fetch the topics, in ms. */
const TOPICS_RETRY_MS = 1000;

/** Definitions are read anew at most this often, in ms: a transaction reloads many topics at once. */
const DESCRIBE_MS = 500;

/** The tutorial's topics, for which the demo's views and hint are offered. */
const DEMO_TOPICS = ["all_patient_page_data", "all_active_visit_data"];

// The page has nothing to show without the topics, so it waits for them as for the socket, and for a
// reader whom the server knows.
async function fetchTopicsAtLast() {
  for (;;) {
    try {
      const found = await fetchTopics();
      if (!found.refused) return found;
      if (found.refused === "auth_unavailable") throw new Error(found.refused); // Whoever knows may be back soon.
      dismiss("notice.unreachable");
      showState("stopped", SIGNED_OUT);
      document.body.dataset.closed = "";
      return await signIn.ask(found.refused);
    } catch {
      notice("warn", "notice.unreachable");
      await new Promise((wake) => setTimeout(wake, TOPICS_RETRY_MS));
    } finally {
      delete document.body.dataset.closed;
    }
  }
}

// The demo's views are there where the server gives its hint.
function offerDemo(topics, hint, tables) {
  const types = new Set(topics.map(({ type }) => type));
  byId("demo").hidden = !hint || !DEMO_TOPICS.every((type) => types.has(type));
  if (hint) byId("demo-command").textContent = hint;
  trigger(byId("trigger-info"), "/chat/update/info/", () => tables.get("patient")?.revealNext());
  trigger(byId("trigger-record"), "/chat/update/record/", () => tables.get("visit")?.revealNext());
  copies(byId("demo-copy"), () => byId("demo-command").textContent, byId("demo-command"));
}

// The answer carries no row: the row comes from the database, as every other one.
function trigger(button, url, before) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    before();
    try {
      const response = await request(url, { method: "POST" });
      if (!response.ok) {
        const { msg } = await response.json().catch(() => ({}));
        toast("error", url, text("trigger.failed", { status: response.status, msg }));
      }
    } catch {
      toast("error", url, text("notice.unreachable"));
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
}

startLanguage();
startTheme(byId("theme"));
const views = new Views();
const own = new FrameList(byId("own-list"), "own", "own-title", "frames.empty");
const tester = new Tester(location.origin.replace(/^http/, "ws"));
const signIn = new SignIn();

const { topics, hint, signed_in: signedIn } = await fetchTopicsAtLast();
dismiss("notice.unreachable");
signIn.offer(signedIn);
const pipeline = new Pipeline();
const letters = new DeadLetters();
const connection = new Connection(topics.map(({ type }) => type), own);
const tables = new Tables(topics, connection.rowcast, () => connection.readAgain());
const sheets = new Topics(topics, pipeline, signedIn === true);

let describing = 0;
function describeAgain() {
  describing ||= setTimeout(async () => {
    describing = 0;
    const { topics = [] } = await fetchTopics().catch(() => ({}));
    tables.describe(topics);
    sheets.describe(topics);
  }, DESCRIBE_MS);
}

// The same person goes on from the cursor. Another one, or one whose claims are not known here, begins
// anew: what has been shown before may not be for him.
let asking = false;
async function signInAgain() {
  if (asking) return;
  asking = true;
  const before = token();
  const { refused } = await fetchTopics().catch(() => ({}));
  await signIn.ask(refused ?? "token_missing");
  if (token() !== before && sayTheSame(before, token())) connection.rowcast.reconnect();
  else location.reload();
  asking = false;
}

connection.follow(tables, {
  event(frame) {
    if (sheets.cameBack(frame)) return;
    toast("event", frame.type, typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data));
  },
  reset: describeAgain,
  refused: signInAgain,
});
tester.offer([
  ...(token() === null ? [] : [["sys:hello", JSON.stringify({ type: "sys:hello", rid: 1 })]]),
  ...topics.slice(0, SAMPLE_TOPICS).map(({ type, push }) =>
    [type, JSON.stringify(push === "row" ? { type, rid: 1, params: { size: 3 } } : { type })]),
  ["sys:ping", JSON.stringify({ type: "sys:ping", rid: 2 })],
  ["你好", "你好"],
]);
offerDemo(topics, hint, tables);
tables.explain();

views.register("tables", (shown, type) => tables.visible(shown, type));
views.register("frames", (shown) => {
  own.visible(shown);
  tester.visible(shown);
});
views.register("topics", (shown, type) => sheets.visible(shown, type));
views.register("pipeline", (shown) => pipeline.visible(shown));
views.register("letters", (shown) => letters.visible(shown));
views.start();

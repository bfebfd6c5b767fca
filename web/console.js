// The console page: puts the topics' tables, the connection and the tester together, and
// says in words what happens to the connection.

import { known, say, sayPlain, start as startLanguage, text } from "./i18n.js";
import { DISCONNECTED, LiveSocket, reconnectDelay } from "./socket.js";
import { TopicTable, clock, element } from "./table.js";
import { Tester } from "./tester.js";

/** Tables side by side at once; the others stand behind tabs. */
const OPEN_TABLES = 2;

/** Application events shown at once, and for how long each. */
const TOASTS = 4;
const TOAST_MS = 8000;

/** Topics for which the tester offers a ready query. */
const SAMPLE_TOPICS = 4;

/** Wait before a query that the database could not answer is sent again. */
const QUERY_RETRY_MS = 1000;

/** The tutorial's topics, for which the demo's views and hint are offered. */
const DEMO_TOPICS = ["all_patient_page_data", "all_active_visit_data"];

const byId = (id) => document.getElementById(id);
const webSocketBase = location.origin.replace(/^http/, "ws");

/** The tables in the page, by topic. */
const tables = new Map();
/** Topics whose tables follow row by row; false where only pages are pushed. */
let followsRows = true;
/** The reason of a `sys:reset` until every table has been read again. */
let resetReason = null;
let socket;

// === what is said ===

function notice(kind, key, params) {
  document.querySelector(".notice").dataset.kind = kind;
  say(byId("notice"), key, params);
  byId("notice-time").textContent = clock().slice(0, 8);
  byId("notice-dismiss").hidden = false;
}

function dismissNotice() {
  document.querySelector(".notice").dataset.kind = "";
  sayPlain(byId("notice"), "");
  byId("notice-time").textContent = "";
  byId("notice-dismiss").hidden = true;
}

function toast(kind, title, body) {
  const box = byId("toasts");
  const shown = element("div", { class: "toast", "data-kind": kind, "data-testid": "toast" },
    element("code", {}, title), element("p", {}, body));
  const gone = () => shown.remove();
  shown.addEventListener("click", gone);
  setTimeout(gone, TOAST_MS);
  box.append(shown);
  while (box.childElementCount > TOASTS) box.firstElementChild.remove();
}

function showState(name) {
  byId("state").dataset.state = name;
  say(byId("state"), `state.${name}`);
  byId("reconnect").hidden = name !== "reconnecting" && name !== "stopped";
  document.body.dataset.state = name;
}

// === topics and their tables ===

async function fetchTopics() {
  const response = await fetch("/api/topics", { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`/api/topics answered ${response.status}`);
  const { topics, hint } = await response.json();
  if (hint) byId("demo-command").textContent = hint;
  byId("demo").dataset.hint = hint ?? "";
  return topics;
}

// The page has nothing to show without the topics, so it waits for them as for the socket.
async function fetchTopicsAtLast() {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await fetchTopics();
    } catch {
      notice("warn", "notice.unreachable");
      await new Promise((wake) => setTimeout(wake, reconnectDelay(attempt)));
    }
  }
}

function build(topics) {
  const byRow = topics.filter(({ push, table }) => push === "row" && table);
  followsRows = byRow.length > 0;
  const shown = followsRows ? byRow : topics.filter(({ push }) => push === "page");
  const built = shown.map((topic) => new TopicTable(topic));
  for (const table of built) tables.set(table.topic.type, table);
  byId("tables").append(...built.slice(0, OPEN_TABLES).map(({ panel }) => panel));
  if (built.length > OPEN_TABLES) byId("tables").append(tabs(built.slice(OPEN_TABLES)));
  if (!built.length) notice("info", "notice.no_topics");
  offerDemo(topics);
}

// A tab's table is read when it is first looked at, and followed from then on.
function tabs(hidden) {
  const list = element("div", { class: "tabs", role: "tablist", "data-t-label": "tables.more", "aria-label": text("tables.more") });
  const box = element("div", { class: "tabbed" }, list);
  const select = (chosen) => {
    for (const [index, tab] of [...list.children].entries()) {
      const active = index === chosen;
      tab.setAttribute("aria-selected", String(active));
      tab.tabIndex = active ? 0 : -1;
      hidden[index].panel.hidden = !active;
    }
    const table = hidden[chosen];
    table.wanted = true;
    if (socket && !table.rows.fresh) read(table);
  };
  for (const [index, table] of hidden.entries()) {
    const { type } = table.topic;
    table.panel.id = `panel-${type}`;
    table.panel.setAttribute("role", "tabpanel");
    table.panel.hidden = true;
    table.wanted = false;
    const tab = element("button", { type: "button", role: "tab", "aria-controls": table.panel.id }, type);
    tab.addEventListener("click", () => select(index));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = (index + step + hidden.length) % hidden.length;
      select(next);
      list.children[next].focus();
    });
    list.append(tab);
    box.append(table.panel);
  }
  select(0);
  return box;
}

// === the demo ===

// The demo's views are there where the server gives its hint.
function offerDemo(topics) {
  const types = new Set(topics.map(({ type }) => type));
  byId("demo").hidden = !byId("demo").dataset.hint || !DEMO_TOPICS.every((type) => types.has(type));
  trigger(byId("trigger-info"), "/chat/update/info/", "patient");
  trigger(byId("trigger-record"), "/chat/update/record/", "visit");
  byId("demo-copy").addEventListener("click", async ({ currentTarget: button }) => {
    try {
      await navigator.clipboard.writeText(byId("demo-command").textContent);
    } catch {
      getSelection().selectAllChildren(byId("demo-command")); // No clipboard outside of HTTPS.
      return;
    }
    say(button, "copied");
    setTimeout(() => say(button, "copy"), 1500);
  });
}

// The answer carries no row: the row comes from the database, as every other one.
function trigger(button, url, type) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    tables.get(type)?.revealNext();
    try {
      const response = await fetch(url, { method: "POST" });
      if (!response.ok) {
        const { msg } = await response.json().catch(() => ({}));
        toast("error", url, text("trigger.failed", { status: response.status, msg }));
      }
    } catch {
      toast("error", url, text("notice.unreachable"));
    } finally {
      button.disabled = false;
    }
  });
}

// === reading and following ===

function read(table) {
  socket.query(table.request, (frame) => {
    if (frame === DISCONNECTED) return; // Read when the connection is back, since it is not fresh.
    if (frame.type !== "sys:error") {
      table.replace(frame);
      if (table.rows.fresh && frame.last !== false) readAgain();
    } else if (frame.code === 429 || frame.code >= 500) {
      setTimeout(() => read(table), frame.retry_after_ms ?? QUERY_RETRY_MS);
    } else if (table.settleForPage()) {
      read(table);
    } else {
      table.fail(frame);
    }
  });
}

// Says that a reset is over once every table holds its view again.
function readAgain() {
  const wanted = [...tables.values()].filter((table) => table.wanted !== false);
  if (!resetReason || !wanted.every(({ rows }) => rows.fresh)) return;
  const n = wanted.reduce((sum, { rows }) => sum + rows.sorted.length, 0);
  notice("warn", "notice.reset_done", { reason: resetReason, n });
  resetReason = null;
}

// The definitions may be what changed: columns are read anew before the rows are.
async function describeAgain() {
  const topics = await fetchTopics().catch(() => []);
  for (const topic of topics) tables.get(topic.type)?.describe(topic);
}

async function readAll() {
  await describeAgain();
  for (const table of tables.values()) if (table.wanted !== false) read(table);
}

function follow(frame) {
  if (frame.op === "event") {
    toast("event", frame.type, typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data));
    return;
  }
  const table = tables.get(frame.type);
  if (!table) return;
  if (frame.op === "replace") {
    if (table.topic.push === "page") table.replace(frame);
    return;
  }
  // Before a reply has begun a table holds nothing to move on: that reply contains this event.
  if (!table.rows.fresh && !table.rows.replying) return;
  table.apply(frame);
  if (frame.op === "reload") describeAgain().then(() => read(table));
  if (frame.too_large) readRow(table, frame.key);
}

function readRow(table, key) {
  const columns = table.topic.key;
  const id = columns.length === 1 ? key[columns[0]] : key;
  socket.query({ type: table.topic.type, id }, (frame) => {
    if (frame === DISCONNECTED) table.rows.fresh = false;
    else if (frame.type !== "sys:error") table.settle(key, frame.data[0]);
    else if (frame.code === 429 || frame.code >= 500) {
      setTimeout(() => readRow(table, key), frame.retry_after_ms ?? QUERY_RETRY_MS);
    }
  });
}

function connect() {
  let opened = false;
  let broken = false;
  socket = new LiveSocket(`${webSocketBase}/socket/all/`, {
    state: showState,
    cursor: (cursor) => sayPlain(byId("cursor"), cursor),
    open(resuming) {
      if (byId("notice").dataset.t === "notice.unreachable") dismissNotice();
      if (opened && !resuming) notice("ok", "notice.reopened");
      opened = true;
      // A table that was being read when the connection broke is read again.
      for (const table of tables.values()) {
        if (table.wanted !== false && !table.rows.fresh) read(table);
      }
    },
    lost(code, reason) {
      for (const { rows } of tables.values()) rows.abandonReply();
      if (!opened) notice("warn", "notice.unreachable");
      // The first close says why; the ones that follow only that it is not back yet.
      else if (!broken) notice("warn", "notice.lost", { code, reason });
      broken = true;
    },
    resumed({ caughtUp }) {
      broken = false;
      if (resetReason) return; // Still being made good; its own notice follows.
      if (followsRows) notice("ok", "notice.resumed", { n: caughtUp });
      else notice("ok", "notice.resumed_pages");
    },
    lostContinuity(reason) {
      broken = false;
      resetReason = reason;
      // Still shown, but no longer held: a connection that breaks now reads them when it is back.
      for (const { rows } of tables.values()) rows.fresh = false;
      notice("warn", "notice.reset_wait", { reason });
    },
    reset: () => readAll(),
    stopped(code, reason) {
      const meaning = known(`close.${code}`) ? { t: `close.${code}` } : String(code);
      notice("error", "notice.stopped", { code, meaning, reason });
    },
    event: follow,
    error: ({ code, msg }) => toast("error", `sys:error ${code}`, msg ?? ""),
  });
  showState("connecting");
  socket.connectNow();
}

startLanguage();
byId("notice-dismiss").addEventListener("click", dismissNotice);
byId("reconnect").addEventListener("click", () => {
  if (byId("state").dataset.state === "stopped") showState("connecting");
  socket?.connectNow();
});
const tester = new Tester(webSocketBase);
const topics = await fetchTopicsAtLast();
tester.offer([
  ...topics.slice(0, SAMPLE_TOPICS).map(({ type, push }) =>
    [type, JSON.stringify(push === "row" ? { type, rid: 1, params: { size: 3 } } : { type })]),
  ["sys:ping", JSON.stringify({ type: "sys:ping", rid: 2 })],
  ["你好", "你好"],
]);
build(topics);
connect();

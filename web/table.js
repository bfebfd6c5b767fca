// One topic as a panel: a live list of the client's, what of it is asked for (filter, order, page),
// and what is to be said about it.

import { clock, eachPicture, element, shownValue } from "./element.js";
import { condition, FilterError, parseFilter, toggled } from "./filter.js";
import { Grid } from "./grid.js";
import { known, say, sayPlain, translateAll } from "./i18n.js";

/** A filter that is being written waits this long for its next letter. */
const TYPING_MS = 300;

/** Rows of a page, where the whole view is too large to be had. */
const PAGE_SIZE = 50;

/** A trigger's row comes within this time, or is not looked for. */
const REVEAL_MS = 3000;

export class TopicTable {
  #rowcast;
  #told;
  #list = null;
  #end = null;
  #snapshot = null;
  /** Keys of the page that was shown last, of a topic that pushes pages. */
  #held = null;
  #filter = null;
  #order = [];
  /** The page in sight, from 1; null where the whole view is here. */
  #page = null;
  /** Something of this list has been shown: what was asked for before it stays until then. */
  #begun = false;
  #typing = 0;
  #news = null;
  #revealUntil = 0;
  #revealKey = null;
  #grid;
  #tellSoon = eachPicture(() => this.#tellNews());

  #count = element("span", { class: "count" });
  #inexact = element("span", { class: "inexact", "data-t-label": "table.inexact", "data-t-title": "table.inexact", role: "img", hidden: "" }, "≈");
  #latest = element("button", { type: "button", class: "latest", "data-t-title": "table.latest_title", hidden: "" });
  #box = element("input", { type: "text", class: "filter", "data-filter": "", "data-t-label": "filter.label", "data-t-placeholder": "filter.placeholder",
    autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
  #clear = element("button", { type: "button", class: "quiet icon", "data-t-label": "filter.clear", hidden: "" }, "×");
  #wrong = element("p", { class: "wrong", role: "alert", hidden: "" });
  #empty = element("p", { class: "empty" });
  #pager = element("div", { class: "pager", hidden: "" });
  #where = element("span", { class: "muted" });
  #back = element("button", { type: "button", "data-t": "pager.previous" });
  #onward = element("button", { type: "button", "data-t": "pager.next" });

  /** `on.changed()`: the list has; `on.close()`: the reader has had enough of this table. */
  constructor(topic, rowcast, on) {
    this.topic = topic;
    this.#rowcast = rowcast;
    this.#told = on.changed;
    const titleId = `title-${topic.type}`;
    const title = element("h2", { id: titleId });
    if (known(`topic.${topic.type}`)) say(title, `topic.${topic.type}`);
    else title.textContent = topic.type;
    this.#grid = new Grid(topic, titleId, {
      sort: (column, more) => this.#sort(column, more),
      pick: (column, value) => this.#setFilter(toggled(this.#box.value, condition(column, value))),
    });
    this.#grid.box.append(this.#empty);
    const shut = element("button", { type: "button", class: "quiet icon shut", "data-t-label": "table.close", "data-t-title": "table.close" }, "×");
    shut.addEventListener("click", on.close);
    this.#pager.append(this.#back, this.#where, this.#onward);
    this.panel = element("section", { class: "panel topic", "aria-labelledby": titleId, "data-panel": topic.type },
      element("div", { class: "panel-head" }, title, element("code", { class: "type" }, topic.type), this.#count, this.#inexact,
        element("div", { class: "filter-box" }, this.#box, this.#clear), this.#latest, shut),
      this.#wrong, this.#grid.box, this.#pager);
    this.#listen();
    say(this.#empty, "table.loading");
    translateAll(this.panel);
    this.#grid.setOrder(topic.order ?? []);
    this.#read();
  }

  #listen() {
    this.#latest.addEventListener("click", () => this.#grid.reveal(this.#latest.dataset.key, true));
    this.#box.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#setFilter(this.#box.value), TYPING_MS);
    });
    this.#box.addEventListener("keydown", ({ key, isComposing }) => {
      if (key === "Enter" && !isComposing) this.#setFilter(this.#box.value);
      else if (key === "Escape" && this.#box.value) this.#setFilter("");
    });
    this.#clear.addEventListener("click", () => {
      this.#setFilter("");
      this.#box.focus();
    });
    this.#back.addEventListener("click", () => this.#turn(-1));
    this.#onward.addEventListener("click", () => this.#turn(1));
  }

  /** Gives the list up. */
  close() {
    clearTimeout(this.#typing);
    this.#end?.();
  }

  /** Whether the rows in sight are the view's. */
  get live() {
    return this.#snapshot?.status === "live";
  }

  /** Whether there is nothing to wait for: the rows are the view's, or refused. */
  get settled() {
    return this.live || this.#snapshot?.status === "error";
  }

  get #size() {
    return this.topic.push === "page" ? this.topic.page_size : PAGE_SIZE;
  }

  get rowCount() {
    return this.#snapshot?.page?.total ?? this.#snapshot?.rows.length ?? 0;
  }

  pause(paused) {
    this.#grid.pause(paused);
  }

  /** Takes the topic's definition anew. */
  describe(topic) {
    this.topic = topic;
    this.#grid.describe(topic);
  }

  /** An event of this topic has come; the list has it, or will have it in a moment. */
  touch({ op, key }) {
    const rowKey = key && op !== "truncate" ? this.#grid.keyOf(key) : null;
    if (rowKey && op !== "delete") this.#grid.touch(rowKey, op);
    this.#news = { op, key: key ? (this.topic.key ?? []).map((column) => `${column}=${shownValue(key[column])}`).join(" ") : "", rowKey, at: new Date() };
    if (op === "insert" && performance.now() < this.#revealUntil) this.#revealKey = rowKey;
    this.#tellSoon();
  }

  /** Scrolls the next inserted row into sight, if it comes within a moment: the reader asked for it. */
  revealNext() {
    this.#revealUntil = performance.now() + REVEAL_MS;
  }

  // === what is asked for ===

  #read() {
    this.#end?.();
    this.#snapshot = null;
    this.#grid.setOrder(this.#order.length ? this.#order : this.topic.order ?? []);
    const params = {};
    if (this.#filter) params.filter = this.#filter;
    if (this.#order.length) params.order = this.#order;
    if (this.#page) Object.assign(params, { page: this.#page, size: this.#size });
    const list = this.#rowcast.live(this.topic.type, params);
    this.#list = list;
    this.#begun = false;
    this.#end = list.subscribe(() => {
      if (this.#list === list) this.#changed(list.snapshot());
    });
  }

  #changed(snapshot) {
    this.#snapshot = snapshot;
    const { rows, status, error, page, exact } = snapshot;
    if (error && !this.#page && error.detail?.startsWith("params.all")) {
      this.#page = 1; // More than can be held: page by page.
      this.#read();
      return;
    }
    this.#tellError(error);
    // What was asked before stays in sight until there is something in its place.
    if (status === "loading" || (status === "stale" && !rows.length)) return;
    if (!this.#begun) this.#grid.begin();
    else if (this.topic.push === "page") this.#touchArrivals(rows);
    this.#begun = true;
    this.#held = this.topic.push === "page" ? new Set(rows.map((row) => this.#grid.keyOf(row))) : null;
    if (!this.#grid.columns.length && rows.length) this.#grid.setColumns(Object.keys(rows[0]));
    this.#grid.show(rows);
    this.#inexact.hidden = exact;
    this.panel.dataset.status = status;
    this.#tellCount(rows.length, page, status);
    if (this.#revealKey && this.#grid.reveal(this.#revealKey)) this.#revealKey = null;
    this.#told();
  }

  // A page that is pushed names no rows: those that it did not have before are the new ones.
  #touchArrivals(rows) {
    for (const key of rows.map((row) => this.#grid.keyOf(row))) if (!this.#held.has(key)) this.#grid.touch(key, "insert");
  }

  #setFilter(written) {
    clearTimeout(this.#typing);
    this.#box.value = written;
    this.#clear.hidden = !written;
    let filter;
    try {
      filter = parseFilter(written, this.topic);
    } catch (error) {
      if (!(error instanceof FilterError)) throw error;
      say(this.#wrong, error.key, error.params);
      this.#wrong.hidden = false;
      return;
    }
    this.#wrong.hidden = true;
    if (JSON.stringify(filter) === JSON.stringify(this.#filter)) return;
    this.#filter = filter;
    if (this.#page) this.#page = null; // What is left may fit.
    this.#read();
  }

  // A header in turn: up, down, and the topic's own order again.
  #sort(column, more) {
    const before = this.#order.find((by) => by === column || by === `${column} desc`);
    const after = { undefined: [column], [column]: [`${column} desc`] }[before] ?? [];
    this.#order = more ? [...this.#order.filter((by) => by !== before), ...after] : after;
    if (this.#page) this.#page = 1;
    this.#read();
  }

  #turn(step) {
    this.#page = Math.max(1, (this.#page ?? 1) + step);
    if (this.#page === 1 && this.topic.push === "page") this.#page = null; // The page that is pushed.
    this.#read();
  }

  // === what is said ===

  #tellError(error) {
    // That the connection was given up the page says, and once.
    if (!error || error.code === 0) {
      if (this.#wrong.dataset.t === "table.error") this.#wrong.hidden = true;
      return;
    }
    say(this.#wrong, "table.error", { code: error.code, msg: error.detail ?? error.message });
    this.#wrong.hidden = false;
    this.#empty.hidden = true;
  }

  #tellCount(n, page, status) {
    const total = page?.total ?? n;
    say(this.#count, this.#filter ? "table.matching" : "table.rows", { n: total });
    this.#empty.hidden = n > 0 || status === "error";
    say(this.#empty, this.#filter ? "table.none_match" : "table.empty");
    this.#pager.hidden = !this.#page && n >= total;
    if (this.#pager.hidden) return;
    const [at, size] = [this.#page ?? 1, this.#size];
    const pages = Math.max(1, Math.ceil(total / size));
    say(this.#where, "pager.where", { page: at, pages, from: n ? (at - 1) * size + 1 : 0, to: (at - 1) * size + n });
    this.#back.disabled = at <= 1;
    this.#onward.disabled = at >= pages;
    if (at > pages) this.#turn(pages - at); // The last page has gone.
  }

  #tellNews() {
    if (!this.#news) return;
    const { op, key, rowKey, at } = this.#news;
    this.#news = null;
    this.#latest.hidden = false;
    this.#latest.dataset.op = op;
    this.#latest.dataset.key = rowKey ?? "";
    say(this.#latest, "table.latest", { op: { t: `op.${op}` }, key, time: clock(at) });
  }
}

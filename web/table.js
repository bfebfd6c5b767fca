// One topic as a table that lives: rows come, change and go as their events arrive, and
// what changed flashes. Values reach the page as text only.

import { known, say, sayPlain, translateAll } from "./i18n.js";
import { Rows } from "./rows.js";

/** Rows in the page at once; more than anybody reads, and cheap to keep in order. */
const SHOWN_ROWS = 200;

/** Rows and cells that flash at once: each costs the browser work sixty times a second, and
 *  where more has changed than this nobody follows the single ones. */
const FLASHES = 100;

/** Creates an element with attributes, `class` among them, and children. */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) created.setAttribute(attribute, value);
  created.append(...children);
  return created;
}

/** The time of day in ms, as it is shown everywhere on the page. */
export function clock(date = new Date()) {
  const two = (n) => String(n).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

function shownValue(value) {
  return value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Two names for one animation: setting the other restarts it without a forced layout.
function flash(target, kind) {
  target.dataset.flash = target.dataset.flash === `${kind}-a` ? `${kind}-b` : `${kind}-a`;
}

export class TopicTable {
  #body = element("tbody");
  #head = element("tr");
  #scroll;
  #count = element("span", { class: "count" });
  #inexact = element("span", { class: "inexact", "data-t-label": "table.inexact", "data-t-title": "table.inexact", role: "img", hidden: "" }, "≈");
  #latest = element("button", { type: "button", class: "latest", "data-t-title": "table.latest_title", hidden: "" });
  #empty = element("p", { class: "empty" });
  /** The rows in the page, by key: `{ line, row }`. */
  #lines = new Map();
  #columns = [];
  #latestKey = null;
  #partial = false;
  /** Rows of the view as the server counts them, where only a page of them is here. */
  #total = null;
  #revealUntil = 0;
  #revealKey = null;
  /** What came since the page was last brought in line: the last operation on each row … */
  #touched = new Map();
  /** … and the last event of all. */
  #news = null;
  /** Rendered since the last picture: what comes now waits for the next. */
  #settling = false;
  #flashesLeft = FLASHES;

  constructor(topic) {
    this.topic = topic;
    this.rows = new Rows(topic);
    const titleId = `title-${topic.type}`;
    const title = element("h2", { id: titleId });
    if (known(`topic.${topic.type}`)) say(title, `topic.${topic.type}`);
    else title.textContent = topic.type;
    const table = element("table", { "data-topic": topic.type, "data-testid": `table-${topic.type}`, "aria-labelledby": titleId },
      element("thead", {}, this.#head), this.#body);
    this.#scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": titleId }, table, this.#empty);
    this.panel = element("section", { class: "panel topic", "aria-labelledby": titleId, "data-panel": topic.type },
      element("div", { class: "panel-head" }, title, element("code", { class: "type" }, topic.type), this.#count, this.#inexact, this.#latest),
      this.#scroll);
    this.#latest.addEventListener("click", () => {
      const line = this.#scrollTo(this.#latestKey);
      if (line) flash(line, "update");
    });
    this.#body.addEventListener("animationend", ({ target }) => delete target.dataset.flash);
    this.describe(topic);
    say(this.#empty, "table.loading");
    translateAll(this.panel);
  }

  /** Takes the topic's definition anew: columns come and go with the table's. */
  describe(topic) {
    this.topic = topic;
    this.rows.describe(topic);
    this.#setColumns(topic.columns ?? []);
  }

  #setColumns(columns) {
    if (columns.join("\n") === this.#columns.join("\n")) return;
    this.#columns = columns;
    const key = new Set(this.topic.key);
    this.#head.replaceChildren(...columns.map((column) =>
      element("th", { scope: "col", ...(key.has(column) ? { class: "key" } : {}) }, column)));
    this.#body.replaceChildren();
    this.#lines.clear();
  }

  /** The request whose reply fills this table. */
  get request() {
    const { type, push } = this.topic;
    return push === "row" && !this.#partial ? { type, params: { all: true } } : { type };
  }

  /** The whole view could not be had; the first page stands for it. Returns whether that is news. */
  settleForPage() {
    const news = this.topic.push === "row" && !this.#partial;
    this.#partial = true;
    return news;
  }

  /** Takes a reply, or a page that was pushed. Rows that were there before flash where they differ. */
  replace(frame) {
    const again = this.#lines.size > 0;
    if (!this.rows.replace(frame)) return;
    if (!this.#columns.length && frame.data?.length) this.#setColumns(Object.keys(frame.data[0]));
    this.#total = frame.page?.total ?? null;
    this.#inexact.hidden = frame.exact !== false;
    this.#render(again);
  }

  /** Applies an event of this topic. */
  apply(event) {
    this.rows.apply(event);
    const lineKey = event.key && event.op !== "truncate" ? this.rows.keyOf(event.key) : null;
    if (lineKey) this.#touched.set(lineKey, event.op);
    this.#news = { op: event.op, key: lineKey ? this.#keyText(event.key) : "", lineKey, time: clock() };
    if (event.op === "insert" && performance.now() < this.#revealUntil) {
      this.#revealUntil = 0;
      this.#revealKey = lineKey;
    }
    this.#renderSoon();
  }

  /** Puts in or takes out one row that was asked for by its key. */
  settle(key, row) {
    if (row) this.rows.put(row);
    else this.rows.remove(this.rows.keyOf(key));
    this.#render(true);
  }

  /** Scrolls the next inserted row into view, if it comes within a moment: the reader asked for it. */
  revealNext() {
    this.#revealUntil = performance.now() + 3000;
  }

  /** Says why there is nothing to show. */
  fail({ code, msg }) {
    say(this.#empty, "table.error", { code, msg: msg ?? "" });
    this.#empty.hidden = false;
  }

  #keyText(key) {
    return this.topic.key.map((column) => `${column}=${shownValue(key[column])}`).join(" ");
  }

  // The first event shows at once; those on its heels show together with the next picture, so
  // that a burst of a thousand costs some renderings and not a thousand.
  #renderSoon() {
    if (this.#settling) return;
    this.#render(true);
    this.#settle();
  }

  #settle() {
    this.#settling = true;
    requestAnimationFrame(() => {
      this.#settling = false;
      if (this.#news) this.#renderSoon();
    });
  }

  #tellNews() {
    if (!this.#news) return;
    const { op, key, lineKey, time } = this.#news;
    this.#news = null;
    this.#latestKey = lineKey;
    this.#latest.hidden = false;
    this.#latest.dataset.op = op;
    say(this.#latest, "table.latest", { op: { t: `op.${op}` }, key, time });
  }

  #scrollTo(key) {
    const line = this.#lines.get(key)?.line;
    if (!line) return null;
    // Only inside the panel: a page that jumps is worse than a row out of sight.
    const top = line.offsetTop - this.#head.offsetHeight;
    const bottom = line.offsetTop + line.offsetHeight;
    if (top < this.#scroll.scrollTop) this.#scroll.scrollTop = top;
    else if (bottom > this.#scroll.scrollTop + this.#scroll.clientHeight) this.#scroll.scrollTop = bottom - this.#scroll.clientHeight;
    return line;
  }

  // Brings the page in line with the first rows. With `flashing`, what is new or differs
  // flashes; a touched row flashes in any case: its event came, even if it altered nothing.
  #render(flashing) {
    const shown = this.rows.sorted.slice(0, SHOWN_ROWS);
    const keys = new Set(shown.map(({ key }) => key));
    this.#flashesLeft = FLASHES - this.#body.querySelectorAll("[data-flash]").length;
    for (const [key, { line }] of this.#lines) {
      if (!keys.has(key)) {
        line.remove();
        this.#lines.delete(key);
      }
    }
    let next = this.#body.firstElementChild;
    for (const { key, row } of shown) {
      const present = this.#lines.get(key);
      const line = present?.line ?? this.#newLine(key);
      if (line === next) next = next.nextElementSibling;
      else this.#body.insertBefore(line, next);
      if (present?.row !== row) {
        this.#fill(line, row, present?.row, flashing);
        this.#lines.set(key, { line, row });
        const op = this.#touched.get(key);
        if (flashing && (!present || op)) this.#flash(line, present || op === "update" ? "update" : "insert");
      }
    }
    this.#touched.clear();
    this.#tellNews();
    this.#tellCount(shown.length);
    if (this.#revealKey) this.#scrollTo(this.#revealKey);
    this.#revealKey = null;
  }

  #flash(target, kind) {
    if (!target.dataset.flash && this.#flashesLeft-- <= 0) return;
    flash(target, kind);
  }

  #newLine(key) {
    const keys = new Set(this.topic.key);
    return element("tr", { "data-key": key }, ...this.#columns.map((column) =>
      element("td", { "data-column": column, ...(keys.has(column) ? { class: "key" } : {}) })));
  }

  #fill(line, row, before, flashing) {
    for (const cell of line.children) {
      const value = row[cell.dataset.column];
      const shown = shownValue(value);
      if (before && cell.textContent === shown && cell.hasAttribute("data-null") === (value == null)) continue;
      cell.textContent = shown;
      cell.toggleAttribute("data-null", value == null);
      // Long values are cut by the style sheet; the pointer shows them whole.
      if (shown.length > 24) cell.title = shown;
      else cell.removeAttribute("title");
      if (before && flashing) this.#flash(cell, "cell");
    }
  }

  #tellCount(shown) {
    const n = this.rows.sorted.length;
    if (this.topic.push === "page" && this.#total > shown) say(this.#count, "table.shown", { n: this.#total, shown });
    else if (this.#partial) say(this.#count, "table.partial", { n });
    else if (shown < n) say(this.#count, "table.shown", { n, shown });
    else if (this.rows.fresh) say(this.#count, "table.rows", { n });
    else sayPlain(this.#count, "");
    this.#empty.hidden = n > 0;
    if (this.rows.fresh) say(this.#empty, "table.empty");
  }
}

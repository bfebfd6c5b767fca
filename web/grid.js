// Rows in a table that lives: they come, change and go, and what changed flashes. Of a long list
// only the rows around what is in sight are in the page. Values reach it as text only.

import { element, eachPicture, shownValue } from "./element.js";
import { text } from "./i18n.js";

/** Rows in the page at once: several screens, so that a turn of the wheel stays within them. */
const WINDOW_ROWS = 200;

/** Pixels of a row, as views.css has it: the place of a row is known without asking for it. */
const ROW_PX = 34;

/** Rows and cells that flash at once: each costs the browser work sixty times a second, and
 *  where more has changed than this nobody follows the single ones. */
const FLASHES = 100;

/** How long an event waits for its row to be there, and how many wait. */
const TOUCH_MS = 3000;
const TOUCHES = 1000;

/** A column's width in pixels, from its texts. */
const COLUMN_PX = { least: 52, most: 270, room: 26, narrow: 8.7, wide: 14 };

/** Rows that PageUp and PageDown move by. */
const PAGE_ROWS = 12;

// Two names for one animation: setting the other restarts it without a forced layout.
function flash(target, kind) {
  target.dataset.flash = target.dataset.flash === `${kind}-a` ? `${kind}-b` : `${kind}-a`;
}

/** Pixels that a text takes, near enough; asking the browser would cost a layout for every cell. */
function widthOf(shown) {
  let width = COLUMN_PX.room;
  for (const letter of shown.length > 60 ? shown.slice(0, 60) : shown) {
    width += letter > "\u2e7f" ? COLUMN_PX.wide : COLUMN_PX.narrow;
  }
  return Math.max(COLUMN_PX.least, Math.min(COLUMN_PX.most, Math.ceil(width)));
}

export class Grid {
  #topic;
  #on;
  #group = element("colgroup");
  #head = element("tr", { "aria-rowindex": "1" });
  #body = element("tbody");
  #table;
  #room;
  #columns = [];
  #widths = [];
  #rows = [];
  #from = 0;
  /** The rows in the page, by key: `{ line, row, shown }`. */
  #lines = new Map();
  /** The last event of a row that has not been shown yet: `{ op, at }`. */
  #touched = new Map();
  #flashesLeft = FLASHES;
  #active = null;
  #activeCell = null;
  #order = [];
  #paused = false;
  #soon = eachPicture(() => this.#render());

  /** The scrolling box, for the page. */
  box;

  /** `on.sort(column, more)`: a header was chosen, beside the others with `more`; `on.pick(column,
   *  value)`: a cell was. */
  constructor(topic, titleId, on) {
    this.#on = on;
    this.#table = element("table", {
      class: "grid", role: "grid", tabindex: "0", "data-topic": topic.type, "data-testid": `table-${topic.type}`, "aria-labelledby": titleId,
    }, this.#group, element("thead", {}, this.#head), this.#body);
    this.#room = element("div", { class: "room" }, this.#table);
    this.box = element("div", { class: "scroll" }, this.#room);
    this.box.addEventListener("scroll", () => {
      if (this.#windowStart() !== this.#from) this.#soon();
    }, { passive: true });
    this.#body.addEventListener("animationend", ({ target }) => delete target.dataset.flash);
    this.#body.addEventListener("click", (event) => this.#click(event));
    this.#head.addEventListener("click", ({ target, shiftKey }) => {
      const column = target.closest("button")?.dataset.column;
      if (column) this.#on.sort(column, shiftKey);
    });
    this.#table.addEventListener("keydown", (event) => this.#key(event));
    this.#table.addEventListener("blur", () => this.#activate(null));
    this.describe(topic);
  }

  /** Takes the topic's definition anew: columns come and go with the table's. */
  describe(topic) {
    this.#topic = topic;
    // While its database is away a topic comes without columns: those that it had stay.
    this.setColumns(topic.columns ?? this.#columns);
  }

  setColumns(columns) {
    if (columns.join("\n") === this.#columns.join("\n")) return;
    this.#columns = columns;
    this.#widths = columns.map(() => 0);
    this.#group.replaceChildren(...columns.map(() => element("col")));
    const key = new Set(this.#topic.key);
    this.#head.replaceChildren(...columns.map((column) =>
      element("th", { scope: "col", ...(key.has(column) ? { class: "key" } : {}) },
        element("button", { type: "button", class: "sort", "data-column": column, "data-t-title": "table.sort", title: text("table.sort") }, column))));
    for (const [place, column] of columns.entries()) this.#widen(place, `${column} ↓`);
    this.#body.replaceChildren();
    this.#lines.clear();
    this.#layOut();
    this.setOrder(this.#order);
    this.#soon();
  }

  get columns() {
    return this.#columns;
  }

  /** Marks the headers: `order` as the protocol has it. */
  setOrder(order) {
    this.#order = order;
    for (const cell of this.#head.children) {
      const column = cell.firstElementChild.dataset.column;
      const term = order.find((by) => by === column || by === `${column} desc`);
      if (term) cell.setAttribute("aria-sort", term === column ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
  }

  /** Shows these rows from now on. */
  show(rows) {
    this.#rows = rows;
    this.#soon();
  }

  /** Begins another list: nothing of what differs from the last one is a change. */
  begin() {
    this.#lines.clear();
    this.#body.replaceChildren();
    this.#touched.clear();
    this.#active = null;
    this.box.scrollTop = 0;
  }

  /** The row of that key had an event: it flashes when it is shown next, even if nothing in it altered. */
  touch(key, op) {
    if (this.#touched.size >= TOUCHES) return;
    this.#touched.set(key, { op, at: performance.now() });
    this.#soon();
  }

  /** Out of sight nothing is drawn; back in sight what is there by then. */
  pause(paused) {
    this.#paused = paused;
    if (!paused) this.#soon();
  }

  /** Identity of a row or of an event's key: JSON of its key columns, in the topic's order. */
  keyOf(row) {
    return JSON.stringify(Object.fromEntries((this.#topic.key ?? []).map((column) => [column, row[column]])));
  }

  /** Brings the row of that key into sight, inside of the box: a page that jumps is worse than a row
   *  out of sight. Returns whether it is there. */
  reveal(key, flashing = false) {
    const place = this.#rows.findIndex((row) => this.keyOf(row) === key);
    if (place < 0) return false;
    this.#scrollTo(place);
    this.#render();
    const line = this.#lines.get(key)?.line;
    if (line && flashing) flash(line, "update");
    return true;
  }

  #scrollTo(place) {
    const [top, height] = [place * ROW_PX, this.box.clientHeight - 2 * ROW_PX];
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + height) this.box.scrollTop = top - height;
  }

  // The window moves by quarters, so that most turns of the wheel move nothing.
  #windowStart() {
    const spare = this.#rows.length - WINDOW_ROWS;
    if (spare <= 0) return 0;
    const first = Math.floor(this.box.scrollTop / ROW_PX) - WINDOW_ROWS / 2;
    const step = WINDOW_ROWS / 4;
    return Math.max(0, Math.min(spare, Math.ceil(first / step) * step));
  }

  // Brings the page in line with the rows. A row in the page that differs flashes where it does;
  // one that is new flashes only for an event: it may just have been scrolled here.
  #render() {
    if (this.#paused) return;
    this.#from = this.#windowStart();
    const rows = this.#rows.slice(this.#from, this.#from + WINDOW_ROWS);
    const keyed = this.#topic.key?.length > 0 && rows.every((row) => this.#topic.key.every((column) => column in row));
    const keys = rows.map((row, place) => (keyed ? this.keyOf(row) : `#${this.#from + place}`));
    const wanted = new Set(keys);
    for (const [key, { line }] of this.#lines) {
      if (wanted.has(key)) continue;
      line.remove();
      this.#lines.delete(key);
    }
    this.#flashesLeft = FLASHES - this.#body.querySelectorAll("[data-flash]").length;
    let next = this.#body.firstElementChild;
    for (const [place, key] of keys.entries()) {
      const present = this.#lines.get(key);
      const line = present?.line ?? this.#newLine(key);
      if (line === next) next = next.nextElementSibling;
      else this.#body.insertBefore(line, next);
      line.ariaRowIndex = String(this.#from + place + 2);
      const touch = this.#touched.get(key);
      if (present?.row !== rows[place]) this.#fill(key, line, rows[place], present);
      if (!touch) continue;
      this.#touched.delete(key);
      this.#flash(line, present || touch.op !== "insert" ? "update" : "insert");
    }
    this.#forget();
    this.#layOut();
    this.#showActive();
  }

  #forget() {
    const late = performance.now() - TOUCH_MS;
    for (const [key, { at }] of this.#touched) if (at < late) this.#touched.delete(key);
  }

  // Room for all the rows, and the table at the place of those that it has.
  #layOut() {
    const places = [...this.#group.children];
    for (const [place, width] of this.#widths.entries()) {
      const wanted = `${width}px`;
      if (places[place].style.width !== wanted) places[place].style.width = wanted;
    }
    const set = (target, property, px) => {
      if (target.style[property] !== `${px}px`) target.style[property] = `${px}px`;
    };
    set(this.#table, "minWidth", this.#widths.reduce((sum, width) => sum + width, 0));
    set(this.#table, "marginTop", this.#from * ROW_PX);
    set(this.#room, "minHeight", this.#rows.length ? (this.#rows.length + 1) * ROW_PX : 0);
    this.#table.ariaRowCount = String(this.#rows.length + 1);
  }

  #widen(place, shown) {
    const width = widthOf(shown);
    if (width > this.#widths[place]) this.#widths[place] = width;
  }

  #flash(target, kind) {
    if (!target.dataset.flash && this.#flashesLeft-- <= 0) return;
    flash(target, kind);
  }

  #newLine(key) {
    const keys = new Set(this.#topic.key);
    return element("tr", { "data-key": key }, ...this.#columns.map((column) =>
      element("td", { "data-column": column, ...(keys.has(column) ? { class: "key" } : {}) })));
  }

  #fill(key, line, row, before) {
    const shown = this.#columns.map((column) => (row[column] == null ? null : shownValue(row[column])));
    for (const [place, value] of shown.entries()) {
      if (before && before.shown[place] === value) continue;
      const cell = line.children[place];
      cell.textContent = value ?? "";
      cell.toggleAttribute("data-null", value === null);
      // Long values are cut by the style sheet; the pointer shows them whole.
      if (value?.length > 20) cell.title = value;
      else cell.removeAttribute("title");
      this.#widen(place, value ?? "null");
      if (before) this.#flash(cell, "cell");
    }
    this.#lines.set(key, { line, row, shown });
  }

  // === choosing a cell ===

  #click({ target }) {
    const cell = target.closest("td");
    if (!cell || getSelection().type === "Range") return; // A text was marked, to be copied.
    const place = this.#from + [...this.#body.children].indexOf(cell.parentElement);
    this.#pick(place, cell.dataset.column);
  }

  #pick(place, column) {
    const row = this.#rows[place];
    if (row) this.#on.pick(column, row[column]);
  }

  #key(event) {
    if (event.target !== this.#table || event.ctrlKey || event.metaKey || event.altKey || !this.#rows.length) return;
    const [last, end] = [this.#rows.length - 1, this.#columns.length - 1];
    const { place, column } = this.#active ?? { place: -1, column: 0 };
    const move = {
      ArrowDown: [place + 1, column], ArrowUp: [place - 1, column], ArrowRight: [place, column + 1], ArrowLeft: [place, column - 1],
      PageDown: [place + PAGE_ROWS, column], PageUp: [place - PAGE_ROWS, column], Home: [0, column], End: [last, column],
    }[event.key];
    if (move) {
      event.preventDefault();
      this.#activate({ place: Math.max(0, Math.min(last, move[0])), column: Math.max(0, Math.min(end, move[1])) });
    } else if (event.key === "Enter" && this.#active) {
      event.preventDefault();
      this.#pick(place, this.#columns[column]);
    } else if (event.key === "Escape") {
      this.#activate(null);
    }
  }

  #activate(active) {
    this.#active = active;
    if (active) this.#scrollTo(active.place);
    this.#render();
    this.#activeCell?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // The focus stays on the table, whatever rows come and go: it names its active cell.
  #showActive() {
    this.#activeCell?.removeAttribute("id");
    this.#activeCell = this.#active && this.#body.children[this.#active.place - this.#from]?.children[this.#active.column];
    if (!this.#activeCell) return this.#table.removeAttribute("aria-activedescendant");
    this.#activeCell.id = `active-${this.#topic.type}`;
    this.#table.setAttribute("aria-activedescendant", this.#activeCell.id);
  }
}

// The view of the tables: which topics stand open, and what comes to those that do not.

import { byId, eachPicture, element } from "./element.js";
import { say } from "./i18n.js";
import { remember, remembered } from "./memory.js";
import { TopicTable } from "./table.js";

/** Tables that stand open when the reader has chosen none. */
const OPEN_TABLES = 2;

export class Tables {
  #rowcast;
  #changed;
  #topics = new Map();
  /** The tables in the page, by topic, in the order of the topics. */
  #open = new Map();
  #chips = new Map();
  /** Topics with events since the last picture. */
  #busy = new Set();
  #visible = false;
  #drawBusy = eachPicture(() => this.#showBusy());

  /** `changed` is called after a table's list has. */
  constructor(topics, rowcast, changed) {
    this.#rowcast = rowcast;
    this.#changed = changed;
    for (const topic of topics.filter(({ key }) => key)) this.#topics.set(topic.type, topic);
    for (const topic of this.#topics.values()) byId("table-choice").append(this.#chip(topic));
    byId("table-choice").hidden = this.#topics.size < 2;
    for (const type of this.#chosen()) this.#show(type);
  }

  // What was open last; else the first ones that are pushed row by row, before those of pages.
  #chosen() {
    const last = (remembered("tables") ?? "").split(",").filter((type) => this.#topics.has(type));
    if (last.length) return last;
    const types = [...this.#topics.values()].sort((a, b) => (a.push === "row" ? 0 : 1) - (b.push === "row" ? 0 : 1));
    const first = types[0]?.push;
    return types.filter(({ push }) => push === first).slice(0, OPEN_TABLES).map(({ type }) => type);
  }

  #chip(topic) {
    const chip = element("button", { type: "button", class: "chip choose", "aria-pressed": "false", "data-choose": topic.type },
      element("span", { class: "busy" }), topic.type);
    chip.addEventListener("animationend", ({ target }) => delete target.dataset.busy);
    chip.addEventListener("click", () => {
      if (this.#open.has(topic.type)) this.#hide(topic.type);
      else this.#show(topic.type);
      this.#remember();
    });
    this.#chips.set(topic.type, chip);
    return chip;
  }

  #show(type) {
    if (this.#open.has(type)) return this.#open.get(type);
    const table = new TopicTable(this.#topics.get(type), this.#rowcast, {
      changed: this.#changed,
      close: () => {
        this.#hide(type);
        this.#remember();
        this.#chips.get(type).focus();
      },
    });
    this.#open.set(type, table);
    table.pause(!this.#visible);
    const order = [...this.#topics.keys()];
    const next = order.slice(order.indexOf(type) + 1).find((other) => other !== type && this.#open.has(other));
    byId("tables").insertBefore(table.panel, next ? this.#open.get(next).panel : null);
    this.#chips.get(type).setAttribute("aria-pressed", "true");
    return table;
  }

  #hide(type) {
    const table = this.#open.get(type);
    table.close();
    table.panel.remove();
    this.#open.delete(type);
    this.#chips.get(type).setAttribute("aria-pressed", "false");
  }

  #remember() {
    remember("tables", [...this.#open.keys()].join(",") || null);
  }

  /** In or out of sight. An address that names a topic opens its table. */
  visible(shown, type = "") {
    this.#visible = shown;
    if (shown && this.#topics.has(type)) this.#show(type).panel.scrollIntoView({ block: "nearest" });
    for (const table of this.#open.values()) table.pause(!shown);
  }

  get size() {
    return this.#topics.size;
  }

  /** Whether any of the topics sends its rows one by one. */
  get followsRows() {
    return [...this.#topics.values()].some(({ push }) => push === "row");
  }

  /** The open tables. */
  get open() {
    return [...this.#open.values()];
  }

  get(type) {
    return this.#open.get(type);
  }

  /** Takes the topics' definitions anew. */
  describe(topics) {
    for (const topic of topics) {
      if (!this.#topics.has(topic.type)) continue;
      this.#topics.set(topic.type, topic);
      this.#open.get(topic.type)?.describe(topic);
    }
  }

  /** A frame of a topic has come. */
  touch(frame) {
    if (!this.#topics.has(frame.type)) return;
    this.#open.get(frame.type)?.touch(frame);
    this.#busy.add(frame.type);
    if (this.#visible) this.#drawBusy();
  }

  #showBusy() {
    for (const type of this.#busy) {
      const dot = this.#chips.get(type).firstElementChild;
      if (!dot.dataset.busy) dot.dataset.busy = "now";
    }
    this.#busy.clear();
  }

  /** Says what an empty view would not. */
  explain() {
    if (this.#topics.size) return;
    const empty = element("p", { class: "empty" });
    say(empty, "tables.none");
    byId("tables").append(empty);
  }
}

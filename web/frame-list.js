// Frames of one connection as a list: the last ones of many, filtered, held still, copied, opened.
// It is drawn with the page's pictures and not with the frames, so that any number may come.

import { clock, copies, element, eachPicture, pretty } from "./element.js";
import { say, translateAll } from "./i18n.js";

/** Frames kept; the oldest go first. */
const KEPT_FRAMES = 500;

/** Characters of a frame that its line shows; a click shows it whole. */
const PREVIEW_CHARS = 300;

/** The type, where a frame of the protocol has it: at its beginning. */
const TYPE = /^\s*\{\s*"type"\s*:\s*"([^"]{1,80})"/;

const ARROWS = { in: "↓", out: "↑", note: "·" };

export class FrameList {
  /** Frames that match, oldest first: `{ direction, at, text, type, key, params }`. */
  #kept = [];
  /** How many of them have their line already: those at the end have not. */
  #waiting = 0;
  #dropped = 0;
  #paused = false;
  #held = 0;
  #wanted = "";
  #visible = false;
  #draw = eachPicture(() => this.#drawNow());

  #list;
  #count = element("span", { class: "muted frame-count" });
  #empty;
  #filter;
  #pause;

  /** Fills `box`; ids begin with `prefix`, and `empty` is said while there is nothing. */
  constructor(box, prefix, titleId, empty) {
    const button = (name, attributes = {}) => element("button", { type: "button", id: `${prefix}-${name}`, class: "quiet", "data-t": `frames.${name}`, ...attributes });
    this.#list = element("ol", { id: `${prefix}-frames`, "data-testid": `${prefix}-frames`, class: "frames", "aria-labelledby": titleId, tabindex: "0" });
    this.#empty = element("p", { id: `${prefix}-empty`, class: "empty", "data-t": empty });
    this.#filter = element("input", { id: `${prefix}-filter`, type: "text", class: "filter", "data-filter": "", "data-t-label": "frames.filter",
      "data-t-placeholder": "frames.filter", autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    this.#pause = button("pause", { "aria-pressed": "false" });
    const copy = button("copy");
    const clear = button("clear");
    this.#count.id = `${prefix}-count`;
    box.append(element("div", { class: "frames-head" }, this.#filter, this.#count, this.#pause, copy, clear), this.#list, this.#empty);
    copies(copy, () => this.#kept.filter(({ key }) => !key).map(({ text }) => text).join("\n"));
    clear.addEventListener("click", () => this.clear());
    this.#pause.addEventListener("click", () => this.#setPaused(!this.#paused));
    this.#filter.addEventListener("input", () => this.#setFilter(this.#filter.value.trim().toLowerCase()));
    this.#filter.addEventListener("keydown", ({ key }) => {
      if (key !== "Escape") return;
      this.#filter.value = "";
      this.#setFilter("");
    });
    this.#list.addEventListener("click", ({ target }) => this.#toggle(target.closest("button.frame")));
    this.#list.addEventListener("keydown", (event) => this.#key(event));
    translateAll(box);
    this.#drawNow();
  }

  /** A frame's text, `in` or `out`. Costs little: it may be called thousands of times a second. */
  add(direction, text) {
    this.#take({ direction, at: Date.now(), text, type: TYPE.exec(text)?.[1] ?? "" });
  }

  /** A remark about the connection, translated. */
  note(key, params = {}) {
    this.#take({ direction: "note", at: Date.now(), text: "", type: "", key, params });
  }

  /** Something that came in and has no text to show. */
  remark(direction, key, params) {
    this.#take({ direction, at: Date.now(), text: "", type: "", key, params });
  }

  /** In or out of sight: nothing is drawn that nobody sees. */
  visible(shown) {
    this.#visible = shown;
    // What came meanwhile is drawn at once, as the lines from before would only be taken out again.
    this.#waiting = Math.min(this.#kept.length, KEPT_FRAMES);
    this.#list.replaceChildren();
    if (shown) this.#draw();
  }

  clear() {
    this.#kept = [];
    this.#waiting = this.#dropped = this.#held = 0;
    this.#list.replaceChildren();
    this.#drawNow();
  }

  #matches({ type, text, key }) {
    if (!this.#wanted) return true;
    if (key) return false; // A remark has no type.
    return (type || text.slice(0, PREVIEW_CHARS)).toLowerCase().includes(this.#wanted);
  }

  #take(frame) {
    if (this.#paused) {
      this.#held += 1;
    } else if (this.#matches(frame)) {
      this.#kept.push(frame);
      this.#waiting += 1;
      // In steps, as taking one from the front of an array each time would move all of them.
      if (this.#kept.length > 2 * KEPT_FRAMES) this.#trim();
    } else {
      return;
    }
    if (this.#visible) this.#draw();
  }

  #trim() {
    const over = this.#kept.length - KEPT_FRAMES;
    if (over <= 0) return;
    this.#kept.splice(0, over);
    this.#dropped += over;
    this.#waiting = Math.min(this.#waiting, KEPT_FRAMES);
  }

  #setPaused(paused) {
    this.#paused = paused;
    this.#held = 0;
    this.#pause.setAttribute("aria-pressed", String(paused));
    say(this.#pause, paused ? "frames.resume" : "frames.pause");
    this.#drawNow();
  }

  #setFilter(wanted) {
    this.#wanted = wanted;
    this.#kept = this.#kept.filter((frame) => this.#matches(frame));
    this.#waiting = this.#kept.length;
    this.#list.replaceChildren();
    this.#drawNow();
  }

  #drawNow() {
    this.#trim();
    const list = this.#list;
    if (this.#waiting && this.#visible) {
      // A reader who has scrolled up keeps the place.
      const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
      const lines = document.createDocumentFragment();
      for (const frame of this.#kept.slice(-this.#waiting)) lines.append(this.#line(frame));
      this.#waiting = 0;
      while (list.childElementCount + lines.childElementCount > this.#kept.length) list.firstElementChild.remove();
      list.append(lines);
      if (atEnd) list.scrollTop = list.scrollHeight;
    }
    const n = this.#kept.length;
    const state = this.#paused ? "frames.count_paused" : this.#dropped ? "frames.count_dropped" : "frames.count";
    say(this.#count, state, { n, dropped: this.#dropped, held: this.#held });
    this.#empty.hidden = n > 0 || this.#wanted !== "";
    list.hidden = n === 0;
  }

  #line(frame) {
    const { direction, at, text, type, key, params } = frame;
    const arrow = element("span", { class: "arrow", role: "img", "data-t-label": `frames.${direction}` }, ARROWS[direction]);
    const time = element("time", {}, clock(new Date(at)));
    const what = element("span", { class: "frame-text" });
    const line = element("li", { "data-direction": direction, ...(type ? { "data-type": type } : {}) });
    if (key) {
      say(what, key, params);
      line.append(element("div", { class: "frame" }, arrow, time, what));
    } else {
      what.textContent = text.slice(0, PREVIEW_CHARS);
      const size = element("span", { class: "frame-size" });
      say(size, "frames.bytes", { n: new TextEncoder().encode(text).length });
      line.append(element("button", { type: "button", class: "frame", "aria-expanded": "false" }, arrow, time, what, size));
      line.frame = frame;
    }
    translateAll(line);
    return line;
  }

  #toggle(button) {
    if (!button) return;
    const line = button.parentElement;
    const shown = line.querySelector(".whole");
    shown?.remove();
    if (!shown) {
      const { text } = line.frame;
      const copy = element("button", { type: "button", class: "quiet", "data-t": "copy" });
      const whole = element("pre", { tabindex: "0" }, pretty(text));
      line.append(element("div", { class: "whole" }, whole, copies(copy, () => text, whole)));
      translateAll(line);
    }
    button.setAttribute("aria-expanded", String(!shown));
  }

  // Up and down from frame to frame, as in any list.
  #key(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (!step || event.target.closest("pre")) return;
    const here = event.target.closest("li");
    let next = here ? here[step] : event.key === "ArrowUp" ? this.#list.lastElementChild : this.#list.firstElementChild;
    while (next && !next.querySelector("button.frame")) next = next[step];
    if (!next) return;
    event.preventDefault();
    next.querySelector("button.frame").focus();
  }
}

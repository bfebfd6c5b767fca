// The dead letters: what came over the bus and could not be understood, newest first, with why.

import { byId, element, moment, pretty, worded } from "./element.js";
import { say, sayPlain } from "./i18n.js";
import { request } from "./token.js";

/** Letters that are asked for, and the pause between two looks in ms. */
const LETTERS = 50;
const POLL_MS = 5000;

const COLUMNS = ["at", "subject", "reason", "size", "text"];

export class DeadLetters {
  #visible = false;
  #timer = 0;
  #shown = "";

  visible(shown) {
    this.#visible = shown;
    if (shown) this.#poll();
  }

  async #poll() {
    clearTimeout(this.#timer);
    try {
      const response = await request(`/api/dead_letters?limit=${LETTERS}`);
      if (response.status === 404 || response.status === 403) {
        this.#explainAlone(response.status === 404 ? "letters.elsewhere" : "letters.operators");
        return;
      }
      if (!response.ok) throw new Error(String(response.status));
      this.#show(await response.json());
    } catch {
      this.#explainAlone("letters.unreachable");
    }
    clearTimeout(this.#timer);
    if (this.#visible) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }

  #show({ dead_letters: letters, total, kept }) {
    const state = JSON.stringify([letters.map(({ seq }) => seq), total, kept]);
    if (state === this.#shown) return; // What is open stays open.
    this.#shown = state;
    if (total) say(byId("letters-count"), "letters.total", { n: total });
    else sayPlain(byId("letters-count"), "");
    byId("letters").hidden = !letters.length;
    byId("letters-empty").hidden = letters.length > 0;
    if (!letters.length) {
      if (kept) this.#explain("letters.none");
      else this.#explain("letters.embedded", "letters.embedded_more");
      return;
    }
    const heads = COLUMNS.map((column) => worded("th", `letter.${column}`, {}, { scope: "col" }));
    byId("letters").replaceChildren(element("thead", {}, element("tr", {}, ...heads)),
      element("tbody", {}, ...letters.map((letter) => this.#line(letter))));
  }

  #line({ seq, at, subject, reason, of, size, text }) {
    const whole = element("details", {}, element("summary", {}, element("code", {}, text.slice(0, 120))), element("pre", { tabindex: "0" }, pretty(text)));
    return element("tr", { "data-seq": String(seq) },
      element("td", {}, element("time", {}, moment(at))),
      element("td", {}, element("code", {}, subject), element("span", { class: "soft" }, ` #${of ?? seq}`)),
      element("td", { class: "reason" }, reason),
      element("td", { class: "n" }, worded("span", "frames.bytes", { n: size })),
      element("td", { class: "wide" }, whole));
  }

  #explainAlone(key) {
    this.#explain(key);
    byId("letters").hidden = true;
    this.#shown = "";
  }

  #explain(...keys) {
    byId("letters-empty").hidden = false;
    byId("letters-empty").replaceChildren(...keys.map((key, place) => worded("p", key, {}, place ? { class: "muted" } : {})));
  }
}

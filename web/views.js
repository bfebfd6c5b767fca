// The views behind the tabs: which one the address names, and the keys that work everywhere.

import { byId, element, worded } from "./element.js";

/** The views in the order of their digits. */
const NAMES = ["tables", "frames", "topics", "pipeline", "letters"];

/** What the help says: keys, and what they do. */
const KEYS = [
  ["1 – 5", "help.views"], ["/", "help.filter"], ["?", "help.help"], ["Esc", "help.escape"],
  ["↑ ↓ ← →", "help.arrows"], ["Enter", "help.enter"], ["Home End PgUp PgDn", "help.jump"],
];

// An address typed by hand may hold a % that stands for itself.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export class Views {
  #shown = null;
  #routed = null;
  #on = new Map();

  /** Calls `visible(true, rest)` when the view comes into sight, `rest` being what its address adds,
   *  and `visible(false)` when it goes. */
  register(name, visible) {
    this.#on.set(name, visible);
  }

  /** Shows the view that the address names, and follows it from now on. */
  start() {
    addEventListener("hashchange", () => this.#route());
    addEventListener("keydown", (event) => this.#key(event));
    this.#help();
    this.#route();
  }

  #route() {
    if (location.hash === this.#routed) return;
    this.#routed = location.hash;
    const [name, ...rest] = location.hash.slice(1).split("/");
    const next = NAMES.includes(name) ? name : NAMES[0];
    const before = this.#shown;
    this.#shown = next;
    for (const view of NAMES) {
      byId(`view-${view}`).hidden = view !== next;
      const tab = byId("views").querySelector(`[data-view=${view}]`);
      if (view === next) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    if (before && before !== next) this.#on.get(before)?.(false);
    this.#on.get(next)?.(true, rest.map(decoded).join("/"));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || byId("help").open) return;
    const writing = event.target.closest?.("input, textarea, select");
    if (event.key === "Escape" && writing) {
      writing.blur();
      return;
    }
    if (writing) return;
    const view = NAMES[Number(event.key) - 1];
    if (view) this.#go(view);
    else if (event.key === "?") byId("help").showModal();
    else if (event.key === "/") this.#filter(event);
  }

  // The event of a new address comes later, and the next key may be here before it.
  #go(view) {
    location.hash = view;
    this.#route();
  }

  // The filter nearest to where the reader is: in the panel with the focus, else the view's first.
  #filter(event) {
    const filter = document.activeElement.closest?.(".panel")?.querySelector("[data-filter]")
      ?? byId(`view-${this.#shown}`).querySelector("[data-filter]");
    if (!filter) return;
    event.preventDefault();
    filter.focus();
    filter.select();
  }

  #help() {
    byId("help-keys").append(...KEYS.flatMap(([keys, word]) =>
      [element("dt", {}, ...keys.split(" ").map((key) => element(key === "–" ? "span" : "kbd", {}, key))), worded("dd", word)]));
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    byId("help-close").addEventListener("click", () => byId("help").close());
    byId("help").addEventListener("click", ({ target }) => {
      if (target === byId("help")) byId("help").close(); // Beside it: the backdrop belongs to the dialog.
    });
  }
}

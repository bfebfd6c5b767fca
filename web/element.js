// Making elements and small texts: what every view of the console needs.

import { say } from "./i18n.js";

/** How long a button says that it has copied. */
const COPIED_MS = 1500;

export const byId = (id) => document.getElementById(id);

/** Creates an element with attributes, `class` among them, and children. A text is only ever text. */
export function element(name, attributes = {}, ...children) {
  const created = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) created.setAttribute(attribute, value);
  created.append(...children);
  return created;
}

/** An element that says `key` in the reader's language. */
export function worded(name, key, params = {}, attributes = {}) {
  const created = element(name, attributes);
  say(created, key, params);
  return created;
}

/** The time of day in ms, as it is shown everywhere on the page. */
export function clock(date = new Date()) {
  const two = (n) => String(n).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

/** The time of day in seconds, with the day before it where that is not today. */
export function moment(ms) {
  const date = new Date(ms);
  const time = clock(date).slice(0, 8);
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")} ${time}`;
}

/** A value of a row as text; a null has none. */
export function shownValue(value) {
  return value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** JSON with indentation; any other text as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Copies what `from` returns when the button is clicked, and says so on the button. */
export function copies(button, from, fallback = null) {
  const word = button.dataset.t;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(from());
    } catch {
      if (fallback) getSelection().selectAllChildren(fallback); // No clipboard outside of HTTPS.
      return;
    }
    say(button, "copied");
    setTimeout(() => say(button, word), COPIED_MS);
  });
  return button;
}

/** Calls `draw` with the next picture, however often it is asked for before. */
export function eachPicture(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

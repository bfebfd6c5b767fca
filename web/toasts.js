// What passes by: applications' events, and errors that answer no question.

import { byId, eachPicture, element } from "./element.js";

/** Shown at once, and for how long each. */
const TOASTS = 4;
const TOAST_MS = 8000;

/** Characters of a body that are shown. */
const BODY_CHARS = 400;

let waiting = [];

const draw = eachPicture(() => {
  const box = byId("toasts");
  for (const { kind, title, body } of waiting) {
    const shown = element("div", { class: "toast", "data-kind": kind, "data-testid": "toast" },
      element("code", {}, title), element("p", {}, body.slice(0, BODY_CHARS)));
    shown.addEventListener("click", () => shown.remove());
    setTimeout(() => shown.remove(), TOAST_MS);
    box.append(shown);
  }
  waiting = [];
  while (box.childElementCount > TOASTS) box.firstElementChild.remove();
});

/** Shows a text in the corner for a moment. `kind`: `event` or `error`. */
export function toast(kind, title, body) {
  waiting.push({ kind, title, body });
  // Of a thousand between two pictures nobody would see more than the last ones.
  if (waiting.length > TOASTS) waiting.shift();
  draw();
}

// Light or dark: the system's choice, until the reader makes another.

import { remember, remembered } from "./memory.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

function show(choice) {
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
}

/** Shows the theme that was chosen, and lets the button change it. Back to the system's own is no
 *  choice any more: the page follows the system again. */
export function start(button) {
  show(remembered("theme"));
  button.addEventListener("click", () => {
    const system = dark.matches ? "dark" : "light";
    const shown = document.documentElement.dataset.theme ?? system;
    const next = shown === "dark" ? "light" : "dark";
    const choice = next === system ? null : next;
    remember("theme", choice);
    show(choice);
  });
}

// The console's words in the reader's language. An element carries the key of its text
// (`data-t`, with parameters in `data-t-with`) and not the text, so that switching the
// language translates what is already on the page, notices included.

import { en } from "./en.js";
import { remember, remembered } from "./memory.js";
import { zh } from "./zh.js";

const TEXTS = { en, zh };

const chosen = remembered("language");
let language = Object.hasOwn(TEXTS, chosen ?? "") ? chosen : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

/** The text of `key` in the present language; the key itself where there is none. */
export function text(key, params = {}) {
  const entry = TEXTS[language][key];
  return typeof entry === "function" ? entry(params) : entry ?? key;
}

/** Whether `key` is known, for texts that only some topics and codes have. */
export function known(key) {
  return key in TEXTS[language];
}

/**
 * Puts a text on an element and keeps its key there, to be translated later.
 * A parameter that is itself to be translated is given as `{ t: key }`.
 */
export function say(element, key, params = {}) {
  element.dataset.t = key;
  element.dataset.tWith = JSON.stringify(params);
  translate(element);
}

/** Puts a text on an element that no language changes. */
export function sayPlain(element, plain) {
  delete element.dataset.t;
  delete element.dataset.tWith;
  element.textContent = plain;
}

function translate(element) {
  const { t, tWith, tLabel, tTitle, tPlaceholder } = element.dataset;
  if (t) {
    const params = JSON.parse(tWith ?? "{}");
    for (const [name, value] of Object.entries(params)) {
      if (value?.t) params[name] = text(value.t);
    }
    element.textContent = text(t, params);
  }
  if (tLabel) element.setAttribute("aria-label", text(tLabel));
  if (tTitle) element.title = text(tTitle);
  if (tPlaceholder) element.placeholder = text(tPlaceholder);
}

/** Translates everything inside `root` that carries a key. */
export function translateAll(root = document) {
  for (const element of root.querySelectorAll("[data-t],[data-t-label],[data-t-title],[data-t-placeholder]")) {
    translate(element);
  }
}

function show() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  translateAll();
}

/** Shows the page in the reader's language and lets the header's buttons change it. */
export function start() {
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      language = button.dataset.language;
      remember("language", language);
      show();
    });
  }
  show();
}

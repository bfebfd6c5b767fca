// The view of the topics: what each is made of, ready code for it, and a test event.

import { byId, copies, element, worded } from "./element.js";
import { typesOf } from "./filter.js";
import { text, translateAll } from "./i18n.js";
import { remember, remembered } from "./memory.js";
import { Publisher } from "./publish.js";
import { LANGUAGES, snippets } from "./snippets.js";
import { toast } from "./toasts.js";
import { request, token } from "./token.js";

// A link carries no token: what it leads to is fetched, and saved under a name.
function types(key, href, name) {
  const link = worded("a", key, {}, { href, target: "_blank", rel: "noopener" });
  link.addEventListener("click", async (event) => {
    if (token() === null) return;
    event.preventDefault();
    try {
      const response = await request(href);
      if (!response.ok) throw new Error(String(response.status));
      const url = URL.createObjectURL(await response.blob());
      element("a", { href: url, download: name }).click();
      URL.revokeObjectURL(url);
    } catch (error) {
      toast("error", href, error.message);
    }
  });
  return link;
}

export class Topics {
  #topics;
  #pipeline;
  #signedIn;
  #visible = false;
  #shown = null;
  #publisher = null;
  #language = remembered("snippet") ?? LANGUAGES[0][0];

  /** `pipeline` knows which bus there is; `signedIn` says that the code must bring a token. */
  constructor(topics, pipeline, signedIn) {
    this.#topics = topics;
    this.#pipeline = pipeline;
    this.#signedIn = signedIn;
    this.#list();
  }

  /** In or out of sight; the address may name a topic. */
  visible(shown, type = "") {
    this.#visible = shown;
    if (!shown) return;
    const wanted = this.#topics.find((topic) => topic.type === type)?.type ?? this.#shown ?? this.#topics[0]?.type;
    if (wanted && wanted !== this.#shown) this.#show(wanted);
  }

  /** Takes the definitions anew. */
  describe(topics) {
    if (!topics.length || JSON.stringify(topics) === JSON.stringify(this.#topics)) return;
    this.#topics = topics;
    this.#list();
    if (this.#shown) this.#show(this.#shown);
  }

  /** An application's event has come. Returns whether it is shown here. */
  cameBack(frame) {
    return this.#visible && frame.type === this.#shown && this.#publisher.cameBack(frame);
  }

  #list() {
    byId("topic-names").replaceChildren(...this.#topics.map(({ type, push }) =>
      element("li", {}, element("a", { href: `#topics/${encodeURIComponent(type)}`, "data-topic-name": type },
        element("code", {}, type), worded("span", `push.${push}`, {}, { class: "badge" })))));
    if (!this.#topics.length) byId("topic").replaceChildren(worded("p", "topics.none", {}, { class: "empty" }));
  }

  #show(type) {
    const topic = this.#topics.find((one) => one.type === type);
    if (!topic) return;
    this.#shown = type;
    for (const link of byId("topic-names").querySelectorAll("a")) {
      if (link.dataset.topicName === type) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    this.#publisher = new Publisher(topic);
    byId("topic").replaceChildren(
      element("div", { class: "topic-column" }, this.#about(topic), this.#test(), ...(topic.columns ? [this.#columns(topic)] : [])),
      element("div", { class: "topic-column" }, this.#code(topic)));
    translateAll(byId("topic"));
  }

  #panel(key, ...inside) {
    const id = `panel-${key.replace(".", "-")}`;
    return element("section", { class: "panel", "aria-labelledby": id },
      element("div", { class: "panel-head" }, worded("h2", key, {}, { id })), ...inside);
  }

  #about(topic) {
    // One without a table carries events only.
    const facts = topic.key ? [["topics.push", worded("span", `push.${topic.push}_long`)]] : [];
    if (topic.table) facts.push(["topics.table", element("code", {}, topic.table)]);
    if (topic.watch) facts.push(["topics.watch", element("code", {}, topic.watch.join(", "))]);
    if (topic.key) facts.push(["topics.key", element("code", {}, topic.key.join(", "))]);
    if (topic.where) facts.push(["topics.where", element("code", {}, topic.where)]);
    if (topic.order?.length) facts.push(["topics.order", element("code", {}, topic.order.join(", "))]);
    if (topic.page_size) {
      facts.push(["topics.pages", worded("span", "topics.pages_of", { size: topic.page_size, most: topic.max_page_size, rows: topic.max_rows })]);
    }
    const links = element("p", { class: "links" },
      ...(topic.key ? [worded("a", "topics.open", {}, { href: `#tables/${encodeURIComponent(topic.type)}` })] : []),
      types("topics.typescript", "/api/types?lang=ts", "rowcast-topics.ts"), types("topics.schema", "/api/types?lang=schema", "rowcast-topics.json"));
    const panel = this.#panel("topics.about",
      element("dl", { class: "facts" }, ...facts.flatMap(([key, what]) => [worded("dt", key), element("dd", {}, what)])), links);
    panel.querySelector("h2").replaceWith(element("h2", { id: "panel-topics-about", class: "mono" }, topic.type));
    return panel;
  }

  #columns(topic) {
    const body = topic.columns.map((column) => {
      const types = typesOf(topic, column);
      const shown = types.filter((type) => type !== "null").join(" | ") || text("topics.any");
      const { format, enum: values } = topic.schema?.properties?.[column] ?? {};
      const more = values ? ` ${values.join(" ")}` : format ? ` ${format}` : "";
      return element("tr", {}, element("td", {}, element("code", {}, column), ...(topic.key.includes(column) ? [worded("span", "topics.is_key", {}, { class: "badge" })] : [])),
        element("td", {}, element("code", {}, shown + more)),
        element("td", {}, types.includes("null") ? element("code", { class: "soft" }, "null") : ""));
    });
    const heads = ["topics.column", "topics.type", "topics.nullable"].map((key) => worded("th", key, {}, { scope: "col" }));
    const box = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "panel-topics-columns" },
      element("table", { class: "plain columns" }, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body)));
    return this.#panel("topics.columns", box);
  }

  // === code ===

  #code(topic) {
    const box = element("div", { class: "snippets", role: "tabpanel", id: "snippets" });
    const tabs = LANGUAGES.map(([language, name]) =>
      element("button", { type: "button", role: "tab", id: `snippet-${language}`, "aria-controls": "snippets", "data-language-of": language }, name));
    const select = (language) => {
      this.#language = language;
      for (const tab of tabs) {
        const chosen = tab.dataset.languageOf === language;
        tab.setAttribute("aria-selected", String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        if (chosen) box.setAttribute("aria-labelledby", tab.id);
      }
      this.#fill(box, topic, language);
    };
    for (const [place, tab] of tabs.entries()) {
      tab.addEventListener("click", () => {
        remember("snippet", tab.dataset.languageOf);
        select(tab.dataset.languageOf);
      });
      tab.addEventListener("keydown", ({ key }) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
        if (!step) return;
        const next = tabs[(place + step + tabs.length) % tabs.length];
        next.click();
        next.focus();
      });
    }
    const known = LANGUAGES.some(([language]) => language === this.#language);
    const panel = this.#panel("topics.code", element("div", { class: "tabs", role: "tablist", "data-t-label": "topics.code" }, ...tabs), box);
    select(known ? this.#language : LANGUAGES[0][0]);
    return panel;
  }

  #fill(box, topic, language) {
    const parts = Object.entries(snippets(language, topic, this.#signedIn)).map(([name, code]) => {
      const shown = element("pre", { tabindex: "0", "data-snippet": `${language}-${name}` }, code);
      const copy = copies(worded("button", "copy", {}, { type: "button", class: "quiet" }), () => code, shown);
      return element("div", { class: "snippet" }, element("div", { class: "snippet-head" }, worded("h3", `snippet.${name}`), copy), shown);
    });
    if (language === "nats") parts.unshift(worded("p", this.#pipeline.embedded ? "snippet.nats_embedded" : "snippet.nats_prefix", {}, { class: "muted" }));
    if (this.#signedIn) parts.unshift(worded("p", "snippet.token", {}, { class: "muted" }));
    box.replaceChildren(...parts);
  }

  #test() {
    return this.#panel("publish.title", this.#publisher.form);
  }
}

// Publishes a test event of one topic, and shows what the server answered and the event as it
// came back to this page: the whole way through the bus.

import { clock, element, pretty, worded } from "./element.js";
import { say, sayPlain, translateAll } from "./i18n.js";
import { sample } from "./snippets.js";
import { request } from "./token.js";

/** Events of this topic that are remembered, in case one is back before its answer is. */
const SEEN = 50;

export class Publisher {
  #topic;
  #seen = new Map();
  #wanted = null;
  /** On its way: its answer, which says the cursor, may come after the event itself. */
  #sending = false;
  #sentAt = 0;
  #data = element("textarea", { id: "publish-data", rows: "3", spellcheck: "false", "aria-describedby": "publish-note" });
  #id = element("input", { id: "publish-id", type: "text", autocomplete: "off", spellcheck: "false", "data-t-placeholder": "publish.id" , "data-t-label": "publish.id" });
  #send = element("button", { type: "submit", id: "publish-send", class: "primary", "data-t": "publish.send" });
  #answer = element("p", { id: "publish-answer", role: "status" });
  #back = element("p", { id: "publish-back", role: "status" });
  #frame = element("pre", { id: "publish-frame", tabindex: "0", hidden: "" });

  constructor(topic) {
    this.#topic = topic;
    this.#data.value = JSON.stringify(sample(topic).data);
    const form = element("form", { class: "publish" },
      worded("label", "publish.data", {}, { for: "publish-data" }), this.#data,
      worded("p", "publish.note", {}, { id: "publish-note", class: "muted" }),
      element("div", { class: "joined" }, this.#id, this.#send), this.#answer, this.#back, this.#frame);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#publish();
    });
    translateAll(form);
    this.form = form;
  }

  // What is no JSON is a text: nobody should have to put quotes around a word.
  #event() {
    const written = this.#data.value;
    let data = written;
    try {
      data = JSON.parse(written);
    } catch { /* a text */ }
    const id = this.#id.value.trim();
    return id ? { specversion: "1.0", id, source: "/console", type: this.#topic.type, data } : { type: this.#topic.type, data };
  }

  async #publish() {
    this.#send.disabled = this.#sending = true;
    this.#wanted = null;
    this.#frame.hidden = true;
    sayPlain(this.#answer, "");
    sayPlain(this.#back, "");
    this.#sentAt = performance.now();
    try {
      const response = await request("/api/events", {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(this.#event()),
      });
      const ms = Math.round(performance.now() - this.#sentAt);
      const body = await response.json().catch(() => ({}));
      this.#answer.dataset.kind = response.ok ? "ok" : "error";
      if (response.ok) {
        say(this.#answer, "publish.accepted", { status: response.status, cursor: body.cursor ?? "", ms });
        this.#wanted = body.cursor;
        const seen = this.#seen.get(body.cursor);
        if (seen) this.#show(seen);
        else say(this.#back, "publish.waiting");
      } else {
        say(this.#answer, "publish.refused", { status: response.status, error: body.error ?? "", msg: body.msg ?? "", detail: body.detail ?? "" });
      }
    } catch {
      this.#answer.dataset.kind = "error";
      say(this.#answer, "notice.unreachable");
    } finally {
      this.#send.disabled = this.#sending = false;
    }
  }

  /** An application's event of this topic has come over the page's connection. Returns whether it is
   *  the one that was published here. */
  cameBack(frame) {
    const seen = { frame, at: performance.now(), time: clock() };
    this.#seen.set(frame.cursor, seen);
    if (this.#seen.size > SEEN) this.#seen.delete(this.#seen.keys().next().value);
    if (frame.cursor !== this.#wanted) return this.#sending;
    this.#show(seen);
    return true;
  }

  #show({ frame, at, time }) {
    this.#wanted = null;
    if (at < this.#sentAt) say(this.#back, "publish.stored_before", { time });
    else say(this.#back, "publish.back", { ms: Math.max(0, Math.round(at - this.#sentAt)) });
    this.#frame.textContent = pretty(JSON.stringify(frame));
    this.#frame.hidden = false;
  }
}

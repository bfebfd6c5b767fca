// The connection tester: a second WebSocket by hand, to any address, with every frame both
// ways. It knows nothing of the protocol, so that it shows what really goes over the wire.

import { say, translateAll } from "./i18n.js";
import { clock, element } from "./table.js";

/** Frames kept in the list; the oldest go first. */
const KEPT_FRAMES = 200;

/** Characters of a frame that its line shows; a click shows it whole. */
const PREVIEW_CHARS = 300;

const byId = (id) => document.getElementById(id);
const ARROWS = { in: "↓", out: "↑", note: "·" };

export class Tester {
  #socket = null;
  #list = byId("tester-frames");

  /** Wires the pane. `base` is this server's WebSocket origin. */
  constructor(base) {
    const url = byId("tester-url");
    const addresses = ["/socket/all/", "/chat/socket/"].map((path) => [path, base + path]);
    url.value = addresses[0][1];
    for (const [path, address] of addresses) {
      byId("tester-urls").append(element("option", { value: address }));
      const chip = element("button", { type: "button", class: "chip" }, path);
      chip.addEventListener("click", () => { url.value = address; });
      byId("tester-presets").append(chip);
    }
    byId("tester-connection").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#open(url.value.trim());
    });
    byId("tester-close").addEventListener("click", () => this.#socket?.close(1000));
    byId("tester-message").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    byId("tester-input").addEventListener("keydown", (event) => {
      // Enter also ends the choice of a Chinese word in an input method: that one is not ours.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#send();
    });
    byId("tester-clear").addEventListener("click", () => {
      this.#list.replaceChildren();
      this.#count();
    });
    this.#show("closed");
    this.#count();
  }

  /** Offers texts to send, each as `[label, text]`. */
  offer(samples) {
    byId("tester-samples").replaceChildren(...samples.map(([label, sample]) => {
      const chip = element("button", { type: "button", class: "chip", title: sample }, label);
      chip.addEventListener("click", () => {
        byId("tester-input").value = sample;
        byId("tester-input").focus();
      });
      return chip;
    }));
  }

  #open(url) {
    this.#socket?.close(1000);
    let socket;
    try {
      socket = new WebSocket(url);
    } catch {
      this.#add("note", "", "tester.note_bad_url");
      return;
    }
    this.#socket = socket;
    this.#show("opening");
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#add("note", "", "tester.note_open", { url });
      if (this.#socket === socket) this.#show("opened");
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.#add("in", data);
      else this.#add("in", "", "tester.binary", { n: data.byteLength });
    };
    socket.onclose = ({ code, reason }) => {
      this.#add("note", "", "tester.note_close", { code, reason });
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#show("closed");
    };
  }

  #send() {
    const text = byId("tester-input").value;
    if (this.#socket?.readyState !== WebSocket.OPEN || !text) return;
    this.#socket.send(text);
    this.#add("out", text);
  }

  #show(state) {
    const shown = byId("tester-state");
    shown.dataset.state = state;
    say(shown, `tester.${state}`);
    byId("tester-close").disabled = state === "closed";
    byId("tester-send").disabled = state !== "opened";
  }

  // Adds a line: a frame's own text, or a translated remark about the connection.
  #add(direction, text, key = null, params = {}) {
    const atEnd = this.#list.scrollTop + this.#list.clientHeight >= this.#list.scrollHeight - 8;
    const what = element("span", { class: "frame-text" });
    const size = element("span", { class: "frame-size" });
    const arrow = element("span", { class: "arrow", role: "img", "data-t-label": `tester.${direction}` }, ARROWS[direction]);
    const line = element("li", { "data-direction": direction });
    if (key) {
      say(what, key, params);
      line.append(element("div", { class: "frame" }, arrow, element("time", {}, clock()), what));
    } else {
      what.textContent = text.slice(0, PREVIEW_CHARS);
      say(size, "tester.bytes", { n: new TextEncoder().encode(text).length });
      const button = element("button", { type: "button", class: "frame", "aria-expanded": "false" },
        arrow, element("time", {}, clock()), what, size);
      button.addEventListener("click", () => toggleWhole(line, button, text));
      line.append(button);
    }
    translateAll(line);
    this.#list.append(line);
    while (this.#list.childElementCount > KEPT_FRAMES) this.#list.firstElementChild.remove();
    // A reader who has scrolled up keeps the place.
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    this.#count();
  }

  #count() {
    const n = this.#list.childElementCount;
    say(byId("tester-count"), "tester.count", { n, limit: KEPT_FRAMES });
    byId("tester-count").hidden = n === 0;
    byId("tester-clear").hidden = n === 0;
    byId("tester-empty").hidden = n > 0;
    this.#list.hidden = n === 0;
  }
}

function toggleWhole(line, button, text) {
  const shown = line.querySelector("pre");
  shown?.remove();
  if (!shown) line.append(element("pre", { tabindex: "0" }, pretty(text)));
  button.setAttribute("aria-expanded", String(!shown));
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

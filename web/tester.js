// A connection by hand: a second WebSocket to any address, with every frame both ways. It knows
// nothing of the protocol, so that it shows what really goes over the wire; but to this server it
// brings the token of whoever has signed in.

import { byId, element } from "./element.js";
import { FrameList } from "./frame-list.js";
import { say } from "./i18n.js";
import { masked, subprotocols } from "./token.js";

export class Tester {
  #socket = null;
  #frames = new FrameList(byId("tester-list"), "tester", "tester-title", "tester.empty");

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
    this.#show("closed");
  }

  visible(shown) {
    this.#frames.visible(shown);
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
      const names = subprotocols(url);
      socket = new WebSocket(url, names);
      if (names.length) this.#frames.note("tester.note_token");
    } catch {
      this.#frames.note("tester.note_bad_url");
      return;
    }
    this.#socket = socket;
    this.#show("opening");
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#frames.note("frames.note_open", { url });
      if (this.#socket === socket) this.#show("opened");
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.#frames.add("in", data);
      else this.#frames.remark("in", "frames.binary", { n: data.byteLength });
    };
    socket.onclose = ({ code, reason }) => {
      this.#frames.note("frames.note_close", { code, reason });
      if (this.#socket !== socket) return;
      this.#socket = null;
      this.#show("closed");
    };
  }

  #send() {
    const text = byId("tester-input").value;
    if (this.#socket?.readyState !== WebSocket.OPEN || !text) return;
    this.#socket.send(text);
    this.#frames.add("out", masked(text));
  }

  #show(state) {
    const shown = byId("tester-state");
    shown.dataset.state = state;
    say(shown, `tester.${state}`);
    byId("tester-close").disabled = state === "closed";
    byId("tester-send").disabled = state !== "opened";
  }
}

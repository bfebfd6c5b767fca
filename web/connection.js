// The page's own connection: the client's, with every frame of its socket shown to the inspector,
// and with what happens to it said in words.

import { connect } from "/rowcast.js";
import { byId, clock, eachPicture } from "./element.js";
import { known, say, sayPlain } from "./i18n.js";
import { toast } from "./toasts.js";
import { masked, token } from "./token.js";

/** The pill's word for each of the client's states. */
const STATES = { connecting: "connecting", live: "live", offline: "reconnecting", stopped: "stopped", closed: "stopped" };

/** The close of a socket of somebody whom the server does not know, or no longer. */
export const SIGNED_OUT = 4401;

/** Operations that are an event and not an answer. */
const EVENTS = new Set(["insert", "update", "delete", "truncate", "reload", "replace", "event"]);

/** Says something about the connection, at the top of the page. `kind`: `ok`, `warn`, `error`, `info`. */
export function notice(kind, key, params) {
  document.querySelector(".notice").dataset.kind = kind;
  say(byId("notice"), key, params);
  byId("notice-time").textContent = clock().slice(0, 8);
  byId("notice-dismiss").hidden = false;
}

/** Takes the notice away; with a key only if it is that one. */
export function dismiss(key = byId("notice").dataset.t) {
  if (byId("notice").dataset.t !== key) return;
  document.querySelector(".notice").dataset.kind = "";
  sayPlain(byId("notice"), "");
  byId("notice-time").textContent = "";
  byId("notice-dismiss").hidden = true;
}

/** Shows how the connection is; `code` is that of the close. */
export function showState(status, code) {
  const name = code === SIGNED_OUT ? "signed_out" : STATES[status];
  byId("state").dataset.state = name;
  say(byId("state"), `state.${name}`);
  byId("reconnect").hidden = name !== "reconnecting" && name !== "stopped";
  document.body.dataset.state = name;
}

// A socket like any other, whose frames are also shown.
function watched(url, frames) {
  const socket = new WebSocket(url);
  const send = socket.send.bind(socket);
  socket.send = (text) => {
    frames.add("out", masked(text));
    send(text);
  };
  socket.addEventListener("open", () => frames.note("frames.note_open", { url }));
  socket.addEventListener("message", ({ data }) => frames.add("in", data));
  socket.addEventListener("close", ({ code, reason }) => frames.note("frames.note_close", { code, reason }));
  return socket;
}

export class Connection {
  #wasLive = false;
  #broken = false;
  /** The reason of a `sys:reset` until every table has been read again. */
  #resetReason = null;
  #tables = null;
  #refused = null;
  #events = 0;
  #drawCursor = eachPicture(() => sayPlain(byId("cursor"), this.rowcast.cursor ?? "–"));

  /** Connects. `types` are pushed from the start, `frames` is the list that shows the socket's. */
  constructor(types, frames) {
    showState("connecting");
    this.rowcast = connect(null, { types, token, socket: (url) => watched(url, frames) });
    byId("reconnect").addEventListener("click", () => this.rowcast.reconnect());
    byId("notice-dismiss").addEventListener("click", () => dismiss());
    setInterval(() => this.#showRate(), 1000);
  }

  /** Tells the tables what comes; `on.event(frame)` an application's event, `on.reset()` that
   *  definitions may have changed, `on.refused()` that nobody is signed in any more. */
  follow(tables, on) {
    this.#tables = tables;
    this.#refused = on.refused;
    this.rowcast.on("sys:status", (frame) => this.#status(frame));
    this.rowcast.on("sys:reset", ({ reason }) => {
      this.#resetReason = reason;
      notice("warn", "notice.reset_wait", { reason });
      on.reset();
    });
    this.rowcast.on("sys:error", ({ code, msg }) => toast("error", `sys:error ${code}`, msg ?? ""));
    this.rowcast.on("*", (frame) => {
      this.#drawCursor();
      if (!EVENTS.has(frame.op) || frame.rid !== undefined) return;
      this.#events += 1;
      if (frame.op === "event") on.event(frame);
      else tables.touch(frame);
      if (frame.op === "reload") on.reset();
    });
    this.#status({ status: this.rowcast.status });
  }

  /** A table has changed: perhaps it was the last that had to be read again after a reset. */
  readAgain() {
    const open = this.#tables?.open ?? [];
    if (!this.#resetReason || this.rowcast.status !== "live" || !open.every(({ settled }) => settled)) return;
    const n = open.reduce((sum, { rowCount }) => sum + rowCount, 0);
    notice("warn", "notice.reset_done", { reason: this.#resetReason, n });
    this.#resetReason = null;
  }

  #status({ status, code, reason = "", recovered, replayed }) {
    showState(status, code);
    if (code === SIGNED_OUT) {
      dismiss();
      this.#refused();
    } else if (status === "live") {
      dismiss("notice.unreachable");
      if (recovered) {
        if (this.#resetReason) return; // Still being made good; its own notice follows.
        if (this.#tables.followsRows) notice("ok", "notice.resumed", { n: replayed });
        else notice("ok", "notice.resumed_pages");
      } else if (this.#wasLive && recovered === undefined) {
        notice("ok", "notice.reopened");
      }
      this.#wasLive = true;
      this.#broken = false;
    } else if (status === "stopped" || status === "closed") {
      const meaning = known(`close.${code}`) ? { t: `close.${code}` } : String(code);
      notice("error", "notice.stopped", { code, meaning, reason });
    } else if (code !== undefined && !this.#broken) {
      // The first close says why; the ones that follow only that it is not back yet.
      if (this.#wasLive) notice("warn", "notice.lost", { code, reason });
      else notice("warn", "notice.unreachable");
      this.#broken = this.#wasLive;
    }
  }

  #showRate() {
    if (this.#events) say(byId("rate"), "rate", { n: this.#events });
    else sayPlain(byId("rate"), "");
    this.#events = 0;
  }
}

// One WebSocket to /socket/all/ that outlives its connections: it reconnects with the last
// cursor it saw, and says whether the server could replay what came in between
// (docs/protocol.md §1.3 Resume, §1.4 Errors and closes).

/** Reconnecting waits at random between these two, the upper bound doubling from try to try. */
const RECONNECT_MIN_MS = 200;
const RECONNECT_MAX_MS = 5000;

/** A server that says nothing for this long is asked whether it is there … */
const SILENCE_MS = 20_000;
/** … and has this long to answer, or to accept a connection. Both together stay below a minute. */
const ANSWER_MS = 10_000;

/** Closes after which the same connection would be closed again. All others are reconnected. */
const TERMINAL_CLOSES = new Set([1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403]);

/** Queries on their way at once: what the server runs for one socket. */
const QUERIES_AT_ONCE = 2;

/** What a query is answered where the connection broke before the server could. */
export const DISCONNECTED = { type: "sys:error", code: 0, error: "disconnected", msg: "" };

/** Operations that are something caught up on. A page (`replace`) is read afresh anyway. */
const CHANGES = new Set(["insert", "update", "delete", "truncate", "reload", "event"]);

/** A wait in ms, full jitter: many clients that lost one server do not come back in step. */
export function reconnectDelay(attempt) {
  const upper = Math.min(RECONNECT_MAX_MS, 2 * RECONNECT_MIN_MS * 2 ** attempt);
  return between(RECONNECT_MIN_MS, upper);
}

function between(low, high) {
  return low + Math.random() * (high - low);
}

/**
 * The console's connection. `on` holds its callbacks:
 * - `state(name)`: `connecting`, `replaying`, `live`, `reconnecting` or `stopped`
 * - `cursor(text)`: the position to resume from has moved
 * - `open(resuming)`: a connection stands; queries may be sent, also during a replay
 * - `lost(code, reason)`: it broke; a new one will be tried
 * - `resumed({ caughtUp })`: everything since the break has been replayed; nothing was lost
 * - `lostContinuity(reason)`: something was lost: what is shown is no longer held
 * - `reset(reason)`: now query again; called after the random wait the server asked for
 * - `stopped(code, reason)`: the server will not have us; `connectNow` tries nevertheless
 * - `event(frame)`: any topic's frame that answers no query
 * - `error(frame)`: a `sys:error` that answers no query
 */
export class LiveSocket {
  #url;
  #on;
  #socket = null;
  #cursor = null;
  #attempt = 0;
  #replaying = false;
  #caughtUp = 0;
  #rid = 0;
  #queries = new Map();
  #waiting = [];
  #heardAt = 0;
  #askedAt = 0;
  #reconnectTimer = 0;
  #resetTimer = 0;
  #drainTimer = 0;

  constructor(url, on) {
    this.#url = url;
    this.#on = on;
    setInterval(() => this.#watch(), 5000);
    addEventListener("online", () => {
      if (!this.#socket) this.connectNow();
    });
  }

  /** Opens a connection at once, whatever wait was going on. */
  connectNow() {
    clearTimeout(this.#reconnectTimer);
    this.#drop();
    const url = new URL(this.#url);
    if (this.#cursor) url.searchParams.set("since", this.#cursor);
    this.#replaying = Boolean(this.#cursor);
    this.#caughtUp = 0;
    this.#heardAt = Date.now();
    this.#askedAt = 0;

    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => {
      this.#heardAt = Date.now();
      this.#on.state(this.#replaying ? "replaying" : "live");
      this.#on.open(this.#replaying);
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  /**
   * Sends a direct query. `answer` is called with each part of the reply, or once with the
   * `sys:error`; with `DISCONNECTED` where no connection stands or it breaks first: ask again
   * in `open`.
   */
  query(request, answer) {
    if (!this.#isOpen()) {
      answer(DISCONNECTED);
      return;
    }
    this.#waiting.push([request, answer]);
    this.#sendQueries();
  }

  #sendQueries() {
    while (this.#waiting.length && this.#queries.size < QUERIES_AT_ONCE) {
      const [request, answer] = this.#waiting.shift();
      const rid = ++this.#rid;
      this.#queries.set(rid, answer);
      this.#socket.send(JSON.stringify({ ...request, rid }));
    }
  }

  #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #receive(data) {
    this.#heardAt = Date.now();
    this.#askedAt = 0;
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // Not of this protocol; the tester shows what a server really sends.
    }
    this.#handle(frame);
    // The cursor moves once the frame has been applied. A welcome's cursor is the head of the
    // stream, ahead of the replay that follows: resuming from there would skip it.
    if (frame.cursor && frame.type !== "sys:welcome") {
      this.#cursor = frame.cursor;
      this.#on.cursor(frame.cursor);
    }
  }

  #handle(frame) {
    const answer = this.#queries.get(frame.rid);
    if (answer) {
      if (frame.last !== false) this.#queries.delete(frame.rid);
      answer(frame);
      this.#sendQueries();
      return;
    }
    switch (frame.type) {
      case "sys:caught_up":
        if (this.#replaying) {
          this.#live();
          this.#on.resumed({ caughtUp: this.#caughtUp });
        }
        return;
      case "sys:reset":
        this.#live();
        clearTimeout(this.#resetTimer);
        this.#on.lostContinuity(frame.reason);
        this.#resetTimer = setTimeout(() => this.#on.reset(frame.reason), between(...(frame.after_ms ?? [0, 0])));
        return;
      case "sys:drain":
        // The server asks its clients to move on, spread over time; nothing is wrong.
        clearTimeout(this.#drainTimer);
        this.#drainTimer = setTimeout(() => this.connectNow(), between(...(frame.after_ms ?? [0, 0])));
        return;
      case "sys:error":
        // One with a `rid` answers a query that is over, or a ping: any answer is a sign of life.
        if (frame.rid === undefined) this.#on.error(frame);
        return;
    }
    if (frame.type?.startsWith("sys:")) return;
    if (this.#replaying && CHANGES.has(frame.op)) this.#caughtUp += 1;
    // Frames flow, so the next break starts counting its waits anew.
    this.#attempt = 0;
    this.#on.event(frame);
  }

  #live() {
    this.#replaying = false;
    this.#attempt = 0;
    this.#on.state("live");
  }

  #closed(code, reason) {
    this.#drop();
    if (TERMINAL_CLOSES.has(code)) {
      this.#on.state("stopped");
      this.#on.stopped(code, reason);
      return;
    }
    this.#on.state("reconnecting");
    this.#on.lost(code, reason);
    this.#reconnectTimer = setTimeout(() => this.connectNow(), reconnectDelay(this.#attempt));
    this.#attempt += 1;
  }

  // Forgets the present connection without waiting for its closing handshake, which a peer
  // that has gone away never completes.
  #drop() {
    clearTimeout(this.#resetTimer);
    clearTimeout(this.#drainTimer);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const unanswered = [...this.#queries.values(), ...this.#waiting.map(([, answer]) => answer)];
    this.#queries.clear();
    this.#waiting = [];
    for (const answer of unanswered) answer(DISCONNECTED);
  }

  // A server that vanished without a word leaves a socket that looks open for minutes.
  #watch() {
    if (!this.#socket) return;
    const now = Date.now();
    if (this.#askedAt ? now - this.#askedAt > ANSWER_MS : !this.#isOpen() && now - this.#heardAt > ANSWER_MS) {
      this.#closed(1006, "");
    } else if (!this.#askedAt && this.#isOpen() && now - this.#heardAt > SILENCE_MS) {
      this.#askedAt = now;
      this.#socket.send(JSON.stringify({ type: "sys:ping", rid: ++this.#rid }));
    }
  }
}

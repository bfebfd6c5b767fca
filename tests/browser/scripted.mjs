// What a client runs on, in the test's hands: a clock that stands still until it is moved, a
// network whose sockets say and do what the test wants, and the globals that a browser has. All
// of it in this process: no port is opened, and nothing is waited for.

/** The real one, before any clock takes its place. */
const immediate = globalThis.setImmediate;

/** Lets everything run that needs no time to pass. */
export const settled = () => new Promise((resolve) => immediate(resolve));

/**
 * The time, for everybody in this process, from {@link Clock.install} on until
 * {@link Clock.restore}: timers fire when {@link Clock.run} comes to them, in their order.
 */
export class Clock {
  now = 1_790_000_000_000;
  #timers = new Map();
  #next = 1;
  #kept = [];

  install() {
    const begun = this.now;
    const put = (target, name, value) => {
      this.#kept.push([target, name, Object.getOwnPropertyDescriptor(target, name)]);
      Object.defineProperty(target, name, { value, configurable: true, writable: true });
    };
    put(globalThis, "setTimeout", (fn, ms = 0, ...args) => this.#add(() => fn(...args), ms));
    put(globalThis, "setInterval", (fn, ms = 0, ...args) => this.#add(() => fn(...args), ms, Math.max(1, ms)));
    put(globalThis, "clearTimeout", (timer) => this.#timers.delete(timer?.id ?? timer));
    put(globalThis, "clearInterval", (timer) => this.#timers.delete(timer?.id ?? timer));
    put(Date, "now", () => this.now);
    put(performance, "now", () => this.now - begun);
    return this;
  }

  restore() {
    for (const [target, name, descriptor] of this.#kept.splice(0).reverse()) {
      if (descriptor) Object.defineProperty(target, name, descriptor);
      else delete target[name];
    }
    this.#timers.clear();
  }

  /** Whether anybody waits for time to pass. */
  get idle() {
    return this.#timers.size === 0;
  }

  /** Calls `fn` in `ms`. */
  in(ms, fn) {
    return this.#add(fn, ms);
  }

  #add(fn, ms, every = 0) {
    const id = this.#next;
    this.#next += 1;
    // As browsers do: what is no number is 0, and what does not fit 32 bits too.
    const wait = ms > 0 && ms < 2 ** 31 ? ms : 0;
    this.#timers.set(id, { at: this.now + wait, id, fn, every });
    const timer = { id, ref: () => timer, unref: () => timer, hasRef: () => true, [Symbol.toPrimitive]: () => id };
    return timer;
  }

  #due(end) {
    let first = null;
    for (const timer of this.#timers.values()) {
      if (timer.at <= end && (!first || timer.at < first.at || (timer.at === first.at && timer.id < first.id))) first = timer;
    }
    return first;
  }

  /** Moves the time on, and fires what becomes due, each at its time. */
  async run(ms = 0) {
    const end = this.now + ms;
    await settled();
    for (let timer = this.#due(end); timer; timer = this.#due(end)) {
      this.now = Math.max(this.now, timer.at);
      if (timer.every) timer.at = this.now + timer.every;
      else this.#timers.delete(timer.id);
      timer.fn();
      await settled();
    }
    this.now = end;
  }

  /** Moves the time on until the condition holds, for a minute at most; returns how long it took. */
  async until(what, condition, most = 60_000) {
    const begun = this.now;
    await settled();
    while (!condition()) {
      const timer = this.#due(begun + most);
      if (!timer) throw new Error(`this never came: ${what}`);
      await this.run(Math.max(0, timer.at - this.now));
    }
    return this.now - begun;
  }

  /** What a machine does that sleeps: time passes, and no timer fires before it is over. */
  sleep(ms) {
    this.now += ms;
  }
}

/**
 * The client's end of a connection, as strict as a browser's WebSocket, and the test's end of it:
 * `open`, `say`, `end`, `vanish`, and what was `sent`.
 */
export class Wire {
  readyState = 0;
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  /** The frames that the client sent, in order. */
  sent = [];
  /** Called with each of them. */
  hears = () => {};
  /** Called when the client has left. */
  gone = () => {};
  /** What the client gave to `close`. */
  left = null;
  #clock;
  #silent = false;
  #lag;
  #last = [0, 0];

  /** `lag()` is how long the next frame takes, in ms; frames do not overtake each other. */
  constructor(url, clock, lag = () => 0) {
    this.url = url;
    this.#clock = clock;
    this.#lag = lag;
  }

  /** Whether nothing is on its way. */
  get quiet() {
    return this.#silent || this.#last.every((at) => at <= this.#clock.now);
  }

  // === the client's ===

  send(text) {
    if (this.readyState === 0) throw new Error("InvalidStateError: still in CONNECTING state");
    if (typeof text !== "string") throw new Error("only texts are sent");
    if (this.readyState !== 1) return; // A browser drops it without a word.
    const frame = JSON.parse(text);
    this.#after(0, () => {
      if (this.#silent) return;
      this.sent.push(frame);
      this.hears(frame);
    });
  }

  close(code, reason) {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new Error(`InvalidAccessError: a browser may not close with ${code}`);
    }
    if (this.readyState >= 2) return;
    const connecting = this.readyState === 0;
    this.readyState = 2;
    this.left = { code: code ?? 1005, reason: reason ?? "" };
    // A peer that is gone answers no closing handshake: a browser waits for it.
    const wait = this.#silent ? 10_000 : this.#lag();
    this.#clock.in(wait, () => {
      this.readyState = 3;
      this.gone();
      this.onclose?.({ code: connecting || this.#silent ? 1006 : this.left.code, reason: this.left.reason, wasClean: !this.#silent });
    });
  }

  // === the test's ===

  /** The connection stands. */
  open() {
    this.#after(1, () => {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen?.({});
    });
  }

  /** Sends these frames. */
  say(...frames) {
    for (const frame of frames) {
      const text = JSON.stringify(frame);
      this.#after(1, () => {
        if (!this.#silent && this.readyState === 1) this.onmessage?.({ data: text });
      });
    }
  }

  /** Closes the connection, behind what was said. */
  end(code = 1006, reason = "") {
    this.#after(1, () => {
      if (this.#silent || this.readyState === 3) return;
      this.readyState = 3;
      if (code === 1006) this.onerror?.({});
      this.onclose?.({ code, reason, wasClean: code !== 1006 });
    });
  }

  /** From now on nothing comes and nothing goes, and nobody is told. */
  vanish() {
    this.#silent = true;
  }

  /** A frame that comes although the client has left, as some sockets let happen. */
  sayLate(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }

  /** In one direction, 0 to the server and 1 to the client, behind what is on its way. */
  #after(direction, fn) {
    const at = Math.max(this.#last[direction], this.#clock.now + this.#lag());
    this.#last[direction] = at;
    this.#clock.in(at - this.#clock.now, fn);
  }
}

/** Where sockets lead. Give {@link Network.socket} to a client. */
export class Network {
  /** Every socket that was made, in order. */
  wires = [];

  constructor(clock, lag = () => 0) {
    this.clock = clock;
    this.lag = lag;
    /** What happens to a new socket; nothing until the test says so. */
    this.accept = () => {};
    this.socket = (url) => {
      const wire = new Wire(url, this.clock, this.lag);
      this.wires.push(wire);
      this.accept(wire);
      return wire;
    };
  }

  get last() {
    return this.wires.at(-1);
  }
}

/** The globals of a page: events on `window` and `document`, `navigator.onLine`, visibility. */
export class Page {
  window = new EventTarget();
  document = Object.assign(new EventTarget(), { visibilityState: "visible", hidden: false });
  navigator = { onLine: true };
  /** How many listeners there are, of whatever event. */
  listeners = 0;
  #kept = [];

  install() {
    const put = (name, value) => {
      this.#kept.push([name, Object.getOwnPropertyDescriptor(globalThis, name)]);
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    };
    for (const target of [this.window, this.document]) {
      const { addEventListener, removeEventListener } = target;
      target.addEventListener = (...given) => {
        this.listeners += 1;
        addEventListener.apply(target, given);
      };
      target.removeEventListener = (...given) => {
        this.listeners -= 1;
        removeEventListener.apply(target, given);
      };
    }
    for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) put(name, this.window[name].bind(this.window));
    put("window", globalThis);
    put("self", globalThis);
    put("document", this.document);
    put("navigator", this.navigator);
    put("location", new URL("https://care.example/page"));
    return this;
  }

  restore() {
    for (const [name, descriptor] of this.#kept.splice(0).reverse()) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete globalThis[name];
    }
  }

  show(state) {
    this.document.visibilityState = state;
    this.document.hidden = state !== "visible";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  online(onLine) {
    this.navigator.onLine = onLine;
    this.window.dispatchEvent(new Event(onLine ? "online" : "offline"));
  }
}

/** Numbers that look random and are the same for the same seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    /** An integer from 0, below `limit`. */
    below: (limit) => Math.floor(next() * limit),
    /** True so often of one. */
    chance: (share) => next() < share,
    pick: (list) => list[Math.floor(next() * list.length)],
  };
}

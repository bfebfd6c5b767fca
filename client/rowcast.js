// Rowcast's client: one WebSocket for the whole page, and lists that stay true on it. It
// reconnects and resumes where it was, so that whoever uses it needs to know of neither.
// The contract is rowcast.d.ts; the wire is docs/protocol.md. No dependencies, no build step.

/** Closes after which the same connection would be closed again; 4401 is judged apart. */
const FINAL = new Set([1002, 1003, 1007, 1008, 1009, 4400, 4403]);

/** Reconnecting waits at random up to this, doubling from try to try up to the second (ms). */
const FIRST_WAIT = 1000;
const LONGEST_WAIT = 20_000;

/** A connection that held this long counts as a success: the waits begin anew (ms). */
const HELD = 5000;

/** How long a connection may take to be welcomed, and a probe to be answered (ms). */
const WELCOME = 15_000;
const PROBE = 4000;

/** Queries on their way at once. The server runs two and lets eight wait; `starting` ones retry. */
const AT_ONCE = 6;

/** Queries that may wait for a connection, and how long one may take (ms). */
const WAITING = 1000;
const QUERY = 30_000;

/** The pause between two reads of a list, twice what the last one took within these bounds, and the
 *  shortest one between two calls of its subscribers (ms). */
const READ_PAUSE = 100;
const LONGEST_PAUSE = 5000;
const CALL_PAUSE = 16;

/** How long a list outlives its last subscriber: a page that is left and entered at once (ms). */
const LINGER = 1000;

/** Lists that nobody subscribes to and that are kept in mind all the same. */
const IDLE_LISTS = 1000;

/** Filters that are known to be good. */
const REMEMBERED = 500;

/** Until a token's end, when a new one is asked for (ms). */
const TOKEN_AHEAD = 30_000;

/** What a query takes; a list takes the last five. */
const PARAMS = ["id", "all", "page", "size", "order", "filter", "after"];

export class RowcastError extends Error {
  constructor({ code = 0, error, msg, detail }) {
    super(`${error}: ${detail ?? msg}`);
    Object.assign(this, { name: "RowcastError", code, error, detail });
  }
}

export function connect(url, options = {}) {
  if (!options.socket && typeof WebSocket === "undefined") {
    throw fault("no_websocket");
  }
  const line = new Line([url ?? location.origin].flat().map(address), options);
  return {
    get status() { return line.status; },
    get cursor() { return line.cursor; },
    on: (type, fn) => line.on(type, fn),
    query: (type, params) => line.query(type, params),
    live: (type, params) => line.live(type, params),
    refresh: (type) => line.listsOf(type).forEach((list) => list.refresh()),
    reconnect: () => line.open(),
    close: () => line.end("closed"),
  };
}

function address(url) {
  if (!/^(\/|(http|ws)s?:)/.test(url)) throw fault("bad_url", `${url} is no http or ws address`);
  const whole = (url[0] === "/" ? location.origin + url : url).replace(/^http/, "ws").replace(/^(wss?:\/\/[^/?]+)\/?($|\?)/, "$1/socket/all/$2");
  return `${whole}${whole.includes("?") ? "&" : "?"}hello=1`;
}

// Grows from try to try, and differs from client to client.
const backoff = (tries, first = FIRST_WAIT) => between(0.5, 1.5) * Math.min(LONGEST_WAIT, first * 2 ** tries);
/** What is left of a pause that began then: never more than the pause, whatever became of the clock. */
const left = (began, pause) => Math.max(0, Math.min(pause, began + pause - Date.now()));
const between = (low, high) => low + Math.random() * (high - low);
/** The same JSON for the same value, in whatever order its members stand. */
const text = (value) => JSON.stringify(value, (_, one) =>
  (one && typeof one === "object" && !Array.isArray(one) ? Object.fromEntries(Object.entries(one).sort()) : one));
/** Whether a filter lacks a value; on the way it checks that all parameters are known. */
function unknown(params, known = PARAMS) {
  let missing = "id" in params && params.id == null;
  for (const name in params) if (!known.includes(name)) throw fault("bad_param", `no parameter ${name}, but ${known}`);
  JSON.stringify(params.filter ?? 0, (_, value) => {
    missing ||= value === undefined;
    return value;
  });
  return missing;
}
const remember = (set, one) => (set.size > REMEMBERED && set.clear(), set.add(one));
const warn = (said) => console.warn(`rowcast: ${said}`);
const fault = (error, detail) => new RowcastError({ error, detail });

// === the connection ===

class Line {
  status = "connecting";
  cursor = null;
  /** What the server's topics are: by type `{ push, key, order }`. */
  topics = null;
  /** Why it was given up; null while it was not. */
  ended = null;
  /** A reset's wait is going on: lists are read when it is over. */
  waiting = 0;
  #urls;
  #options;
  /** The turn of `#urls`, and how many tries in a row have failed. */
  #turn = 0;
  #failures = 0;
  #socket = null;
  #ready = false;
  #openedAt = 0;
  /** Ticks that have passed since the server said anything. */
  #silent = 0;
  #tick = 5000;
  #drain = null;
  #named = 0;
  /** Events that a replay has brought; null when none is going on. */
  #replayed = null;
  #token = null;
  #refusedToken;
  #rid = 0;
  /** What waits for an answer on this socket, by rid. */
  #answers = new Map();
  #jobs = [];
  #running = new Set();
  #handlers = new Map();
  /** Lists by name, and those that somebody subscribes to. */
  #lists = new Map();
  #active = new Set();
  /** What this socket was told to send, by type: `{ filter, sure }`. */
  #told = new Map();
  /** Filters that the server once took, and once refused: as `type filter`. */
  #taken = new Set();
  #refused = new Set();
  #telling = false;
  #retry = 0;
  #guard = 0;
  #beat = 0;
  #renewal = 0;
  #forget = [];

  constructor(urls, options) {
    this.#urls = urls;
    this.#options = options;
    const look = () => this.#look();
    for (const target of [globalThis, globalThis.document]) {
      for (const name of ["online", "offline", "pageshow", "visibilitychange", "resume"]) {
        target?.addEventListener?.(name, look);
        this.#forget.push(() => target?.removeEventListener?.(name, look));
      }
    }
    this.open();
  }

  // --- opening and losing ---

  /** Connects now, whatever was going on. */
  async open() {
    if (this.status === "closed") return;
    this.#cut();
    if (this.ended) for (const list of this.#active) list.fail(null);
    this.ended = null;
    if (this.status === "live" || this.status === "stopped") this.#say({ status: this.topics ? "offline" : "connecting" });
    const guard = this.#guard = setTimeout(() => this.#lost(1006, "no welcome"), WELCOME);
    const { token, socket: make = (at) => new WebSocket(at) } = this.#options;
    try {
      this.#token = (typeof token === "function" ? await token() : await token) ?? null;
    } catch (error) {
      if (guard === this.#guard) this.#lost(0, `token: ${error?.message ?? error}`);
      return;
    }
    if (guard !== this.#guard) return; // Another attempt has begun meanwhile.
    if (this.#token === this.#refusedToken) {
      this.end("stopped", 4401);
      return;
    }
    let socket;
    try {
      socket = make(this.#urls[this.#turn % this.#urls.length]);
    } catch (error) {
      this.end("stopped", 0, String(error?.message ?? error)); // An address that is none.
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      this.#openedAt = Date.now();
      this.#hello();
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    socket.onerror = () => {}; // A close follows, and tells more.
  }

  // Forgets the socket without waiting for its closing handshake, which a peer that is gone
  // never completes. What was asked on it is asked again on the next.
  #cut() {
    for (const timer of [this.#retry, this.#guard, this.#beat, this.#renewal, this.waiting]) clearTimeout(timer);
    this.#guard = this.waiting = 0;
    this.#ready = false;
    this.#replayed = null;
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      try {
        socket.close();
      } catch { /* It never was open. */ }
    }
    this.#answers.clear();
    this.#told.clear();
    for (const job of this.#running) job.parts = [];
    this.#jobs.unshift(...this.#running);
    this.#running.clear();
    for (const list of this.#active) list.lost();
  }

  #lost(code, reason = "") {
    const held = this.#ready && Date.now() - this.#openedAt > HELD;
    this.#cut();
    if (FINAL.has(code)) {
      this.end("stopped", code, reason);
      return;
    }
    if (code === 4401) {
      // A function may have a better one; the same again would be refused again.
      this.#refusedToken = this.#token;
      if (typeof this.#options.token !== "function") {
        this.end("stopped", code, reason);
        return;
      }
    }
    this.#failures = held ? 0 : this.#failures + 1;
    if (this.#failures === 3) warn(`no connection to ${this.#urls}: ${code} ${reason}`);
    this.#turn += 1;
    const upper = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.max(0, this.#failures - 1));
    const least = code === 1013 || code === 4429 ? FIRST_WAIT : 0; // It is overloaded.
    const wait = this.#drain ? between(...this.#drain) : least + Math.random() * upper;
    this.#named = this.#drain || least; // A wait that the server has named is not cut short.
    this.#drain = null;
    this.#retry = setTimeout(() => this.open(), wait);
    this.#say({ status: this.topics ? "offline" : "connecting", code, reason, retry_at: Date.now() + wait });
  }

  /** Gives up: `stopped` until `open`, or `closed` for good. */
  end(status, code, reason) {
    if (this.status === "closed") return;
    this.#cut();
    this.ended = fault(status, `${code ?? ""} ${reason ?? ""}`);
    for (const job of this.#jobs.splice(0)) job.done(this.ended);
    for (const list of this.#active) list.fail(this.ended);
    if (status === "closed") this.#forget.forEach((forget) => forget());
    else warn(this.ended.message);
    this.#say({ status, code, reason });
  }

  #say(said) {
    this.status = said.status;
    for (const list of this.#active) list.changed();
    this.#emit({ type: "sys:status", ...said });
  }

  // --- hearing ---

  #receive(text) {
    this.#silent = 0;
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return; // Not of this protocol.
    }
    const { type, rid, cursor } = frame ?? {};
    if (typeof type !== "string") return;
    // Of a reply in parts only the last part's is a place to resume from.
    if (cursor && frame.last !== false) this.cursor = cursor;
    if (rid !== undefined) {
      const answer = this.#answers.get(rid);
      if (frame.last !== false) this.#answers.delete(rid);
      answer?.(frame);
      this.#emit(frame, "*");
      return;
    }
    if (type === "sys:caught_up") this.#live({ recovered: true, replayed: this.#replayed ?? 0 });
    else if (type === "sys:reset") this.#reset(frame);
    else if (type === "sys:drain") this.#drain = frame.after_ms;
    else if (!type.startsWith("sys:")) {
      if (this.#replayed !== null && frame.op !== "replace") this.#replayed += 1;
      for (const list of this.listsOf(type)) list.apply(frame);
    }
    this.#emit(frame);
  }

  #emit(frame, only) {
    for (const name of only ? [only] : [frame.type, "*"]) {
      for (const fn of [...(this.#handlers.get(name) ?? [])]) {
        try {
          fn(frame);
        } catch (error) {
          console.error(error); // One handler's fault must not cost the others their frame.
        }
      }
    }
  }

  #live(said = {}) {
    if (this.status === "live") return;
    this.#replayed = null;
    this.#say({ status: "live", ...said });
  }

  #reset({ after_ms: [low, high] = [0, 0] }) {
    for (const list of this.#active) list.doubt();
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      this.waiting = 0;
      this.#readDoubted();
    }, between(low, high));
    this.#live({ recovered: false });
  }

  #readDoubted() {
    for (const list of this.#active) list.read();
  }

  // --- saying ---

  #send(frame, answer) {
    const rid = ++this.#rid;
    if (answer) this.#answers.set(rid, answer);
    this.#socket.send(JSON.stringify({ ...frame, rid }));
  }

  #hello() {
    const since = this.cursor;
    const types = {};
    if (since) {
      for (const [type, filter] of this.#wanted()) {
        if (!this.topics?.[type]) continue;
        // One that was never tried could be refused, and the whole hello with it.
        const sure = this.#taken.has(`${type} ${filter}`) ? filter : "";
        types[type] = sure ? { filter: JSON.parse(sure) } : {};
        this.#told.set(type, { filter: sure, sure: true });
      }
    }
    const [mode, token] = [this.#options.mode, this.#token ?? undefined];
    this.#send({ type: "sys:hello", types, topics: true, mode, token, since: since ?? undefined }, (frame) => {
      if (frame.type === "sys:welcome") this.#welcomed(frame, since);
      else if (frame.code === 401) this.#lost(4401, frame.error); // As the close that follows it says.
      else if (since && frame.code < 500) {
        // The topics are not what they were: there is nothing to resume.
        this.cursor = null;
        this.#told.clear();
        for (const list of this.#active) list.doubt();
        this.#emit({ type: "sys:reset", reason: "scope", cursor: null, after_ms: [0, 0] });
        this.#hello();
      } else if (since && this.#taken.size) {
        this.#taken.clear(); // Without filters it need not look at the database.
        this.#hello();
      } else this.#lost(1006, frame.error);
    });
  }

  #welcomed(frame, since) {
    clearTimeout(this.#guard);
    const before = this.topics;
    this.topics = frame.topics ?? {};
    for (const list of this.#active) {
      const [was, is] = [before, this.topics].map((topics) => JSON.stringify(topics?.[list.type]));
      if (was !== is) list.doubt();
    }
    this.#tick = frame.tick_ms || this.#tick;
    this.#ready = true;
    this.#refusedToken = undefined;
    this.#renew();
    this.#watch();
    if (since) this.#replayed = 0;
    else this.#live();
    this.#tell();
    this.#readDoubted();
    this.#pump();
  }

  /** Tells the server soon what is wanted now, if that has changed. */
  tell() {
    if (this.#telling) return;
    this.#telling = true;
    Promise.resolve().then(() => {
      this.#telling = false;
      this.#tell();
    });
  }

  #tell() {
    if (!this.#ready) return;
    const wanted = this.#wanted();
    for (const [type, filter] of wanted) {
      if (this.#told.get(type)?.filter === filter) continue;
      const said = { filter, sure: false };
      this.#told.set(type, said);
      this.#send({ type: "sys:subscribe", types: { [type]: filter ? { filter: JSON.parse(filter) } : {} } }, (frame) => {
        if (frame.type === "sys:ok") {
          said.sure = true;
          remember(this.#taken, `${type} ${filter}`);
          for (const list of this.listsOf(type)) list.read();
        } else if (this.#told.get(type) === said) this.#refuse(type, filter, frame);
      });
    }
    const gone = [...this.#told.keys()].filter((type) => !wanted.has(type));
    if (!gone.length) return;
    gone.forEach((type) => this.#told.delete(type));
    this.#send({ type: "sys:unsubscribe", types: gone }, () => {});
  }

  #refuse(type, filter, frame) {
    // Until it is told anew nothing of this type comes for certain.
    if (filter && frame.code === 400) {
      // Queries take more than filters do. Then all events come, and the lists judge them.
      remember(this.#refused, `${type} ${filter}`);
    } else if (frame.code < 500 && frame.code !== 429) {
      warn(`${type}: ${frame.error}`);
      for (const list of this.listsOf(type)) list.fail(new RowcastError(frame));
      this.#emit(frame);
      return; // It stays told, so that it is not told for ever.
    }
    for (const list of this.listsOf(type)) list.doubt();
    this.#told.delete(type);
    if (frame.code === 400) this.tell();
    else setTimeout(() => this.tell(), frame.retry_after_ms ?? between(FIRST_WAIT, 2 * FIRST_WAIT));
  }

  /** Types that somebody wants, each with the filter that all who want it share. */
  #wanted() {
    const wanted = new Map((this.#options.types ?? []).map((type) => [type, ""]));
    for (const [type, { size }] of this.#handlers) if (size && type !== "*" && !type.startsWith("sys:")) wanted.set(type, "");
    for (const { type, filter: own } of this.#active) {
      const filter = this.topics?.[type]?.push === "page" || this.#refused.has(`${type} ${own}`) ? "" : own;
      wanted.set(type, [undefined, filter].includes(wanted.get(type)) ? filter : "");
    }
    return wanted;
  }

  /** Whether this socket sends that type's events for certain; with `filter`, those of it alone. */
  sends(type, filter) {
    const told = this.#told.get(type);
    return Boolean(told?.sure && (filter === undefined || told.filter === filter));
  }

  /** Whether a query of that type can be placed: what follows its reply will come. */
  asks(type) {
    return this.#ready && this.#told.has(type) && !this.waiting;
  }

  // --- being alive ---

  // Ticks come when nothing else does. A server that says nothing for two of them is asked, and
  // left when it does not answer. A timer at the wrong time means that the machine slept.
  #watch() {
    const due = Date.now() + this.#tick;
    this.#beat = setTimeout(() => {
      this.#silent += 1;
      if (this.#silent > 2 || Math.abs(Date.now() - due) > PROBE) this.#probe();
      else this.#watch();
    }, this.#tick);
  }

  #probe() {
    clearTimeout(this.#beat);
    this.#silent = 1;
    this.#send({ type: "sys:ping" }, () => {});
    this.#beat = setTimeout(() => (this.#silent ? this.#lost(1006, "no answer") : this.#watch()), PROBE);
  }

  // Something has happened to the machine or to the page: is the connection still there?
  #look() {
    if (this.#ready) this.#probe();
    else if (!this.#socket && !this.#guard && !this.#named && !this.ended) this.open();
  }

  // Renews a token in place before it ends.
  #renew() {
    const { token } = this.#options;
    let exp;
    try {
      ({ exp } = JSON.parse(atob(this.#token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))));
    } catch { /* None, or of another kind: the server will say when it has ended. */ }
    if (!(exp > 0) || typeof token !== "function") return;
    const left = exp * 1000 - Date.now();
    const wait = Math.max(TOKEN_AHEAD, left - TOKEN_AHEAD);
    if (wait > 2 ** 31 - 1) return;
    this.#renewal = setTimeout(async () => {
      const guard = this.#socket;
      const renewed = await Promise.resolve().then(token).catch(() => null);
      if (guard !== this.#socket || !this.#ready) return;
      if (renewed && renewed !== this.#token) this.#send({ type: "sys:auth", token: renewed }, () => {});
      this.#token = renewed ?? this.#token;
      this.#renew();
    }, wait);
  }

  // --- queries ---

  /** Puts a query on its way: `{ type, params, done(error, reply), gone? }`. */
  ask(job) {
    job.parts = [];
    this.#jobs.push(job);
    this.#pump();
  }

  #pump() {
    while (this.#ready && this.#running.size < AT_ONCE && this.#jobs.length) {
      const job = this.#jobs.shift();
      if (!job.gone) this.#start(job);
    }
  }

  #start(job) {
    const { type, params: { id, ...params } } = job;
    this.#running.add(job);
    const asked = id !== undefined ? { id } : Object.keys(params).length ? { params } : {};
    this.#send({ type, ...asked }, (frame) => {
      const failed = frame.type === "sys:error";
      if (!failed) {
        for (const row of frame.data) job.parts.push(row);
        if (frame.last === false) return;
      }
      this.#running.delete(job);
      if (failed && job.tries >= 0 && !job.gone && (frame.code === 429 || frame.code === 503)) {
        const wait = Math.max(frame.retry_after_ms ?? 0, backoff(job.tries++, frame.retry_after_ms));
        setTimeout(() => (this.ended ? job.done(this.ended) : job.gone || this.ask(job)), wait);
      } else if (!job.gone) {
        const { part, last, rid, ...reply } = frame;
        if (failed) job.done(new RowcastError(frame));
        else job.done(null, { ...reply, data: job.parts });
      }
      this.#pump();
    });
  }

  query(type, params = {}) {
    return new Promise((resolve, reject) => {
      if (unknown(params)) throw fault("bad_param", "undefined");
      if (this.ended) throw this.ended;
      if (this.#jobs.length >= WAITING) throw fault("too_many", `${WAITING} queries wait already`);
      const job = {
        type,
        params: JSON.parse(text(params)),
        tries: 0,
        done: (error, reply) => {
          clearTimeout(timer);
          job.gone = true;
          this.#jobs = this.#jobs.filter((other) => other !== job);
          if (error) reject(error);
          else resolve(reply);
        },
      };
      const timer = setTimeout(() => job.done(fault("timeout", `${QUERY} ms`)), QUERY);
      this.ask(job);
    });
  }

  // --- who listens ---

  on(type, fn) {
    const fns = this.#handlers.get(type) ?? new Set();
    // The same function may be given twice; each is taken away by itself.
    const one = (frame) => fn(frame);
    this.#handlers.set(type, fns.add(one));
    this.tell();
    return () => {
      if (fns.delete(one)) this.tell();
    };
  }

  live(type, params = {}) {
    const waits = unknown(params, PARAMS.slice(2));
    const name = `${type} ${text(params)}${waits}`;
    let list = this.#lists.get(name);
    if (!list) {
      if (this.#lists.size >= IDLE_LISTS) {
        for (const [other, { active }] of this.#lists) if (!active) this.#lists.delete(other);
      }
      list = new List(this, name, type, JSON.parse(text(params)), waits);
      this.#lists.set(name, list);
    }
    return list.facade;
  }

  listsOf(type) {
    return [...this.#active].filter((list) => list.type === type);
  }

  /** A list has got its first subscriber, or lost its last. */
  follow(list, active) {
    if (active) {
      this.#active.add(list);
      this.#lists.set(list.name, list); // It may have been forgotten while it was idle.
    } else this.#active.delete(list);
    this.tell();
  }
}

// === a list ===

class List {
  active = false;
  #line;
  #params;
  /** Asked for page by page: an event that touches it has it read again. */
  #paged;
  /** A value of its filter is not known yet. Such a list must not show all rows: it is nobody's. */
  #waits;
  #subscribers = new Set();
  /** Its rows, each in a box: an update that moves none costs the same in a long list as in a
   *  short one. In their order, and by key. */
  #boxes = [];
  #byKey = new Map();
  /** Rows are held by their keys, and events applied to them. */
  #folds = false;
  #columns = [];
  #order = [];
  #page = null;
  #exact = true;
  #error = null;
  /** It has been read; it must be read (again); what it shows may be wrong until then. */
  #loaded = false;
  #due = true;
  #doubted = true;
  #job = null;
  #again = false;
  /** Events that came between the parts of a reply: they stand after it. */
  #held = [];
  #askedAt = 0;
  #pause = READ_PAUSE;
  #timer = 0;
  #inexact = 0;
  /** Reads in a row that failed, and replies that were not exact. */
  #failures = 0;
  #doubts = 0;
  #linger = 0;
  #snapshot = null;
  #calledAt = 0;
  #call = 0;

  constructor(line, name, type, params, waits) {
    this.#line = line;
    this.name = name;
    this.#waits = waits;
    this.#params = params;
    this.type = type;
    this.filter = params.filter && Object.keys(params.filter).length ? text(params.filter) : "";
    this.#paged = ["page", "size", "after"].some((name) => params[name] != null);
    const now = () => this.#now();
    this.facade = {
      get rows() { return now().rows; },
      get status() { return now().status; },
      get error() { return now().error; },
      get page() { return now().page; },
      get exact() { return now().exact; },
      snapshot: now,
      subscribe: (changed) => this.#subscribe(changed),
      refresh: () => this.refresh(),
    };
  }

  // --- who reads it ---

  #subscribe(changed) {
    const one = (rows) => changed(rows);
    clearTimeout(this.#linger);
    if (!this.active && !this.#waits) {
      this.active = this.#due = this.#doubted = true;
      this.#snapshot = null;
      this.#error = this.#line.ended;
      this.#line.follow(this, true);
      this.read();
    }
    this.#subscribers.add(one);
    one(this.#now().rows);
    return () => {
      if (!this.#subscribers.delete(one) || this.#subscribers.size) return;
      this.#linger = setTimeout(() => this.#subscribers.size || this.#leave(), LINGER);
    };
  }

  #leave() {
    this.active = false;
    if (this.#job) this.#job.gone = true;
    this.#job = null;
    this.#held = [];
    clearTimeout(this.#timer);
    clearTimeout(this.#inexact);
    this.#timer = 0;
    this.#line.follow(this, false);
    this.changed();
  }

  #now() {
    this.#snapshot ??= {
      rows: this.#boxes.map(({ row }) => row),
      status: this.#status(),
      error: this.#error,
      page: this.#page,
      exact: this.#exact,
    };
    return this.#snapshot;
  }

  #status() {
    if (!this.active) return "idle";
    if (this.#error) return "error";
    if (!this.#loaded) return "loading";
    return this.#doubted || this.#line.status !== "live" ? "stale" : "live";
  }

  /** Something has changed: subscribers are called, at most once in `CALL_PAUSE`. */
  changed(soon = false) {
    this.#snapshot = null;
    if (this.#call) return;
    const wait = left(this.#calledAt, CALL_PAUSE);
    const call = () => {
      this.#call = 0;
      this.#calledAt = Date.now();
      for (const one of [...this.#subscribers]) {
        try {
          one(this.#now().rows);
        } catch (error) {
          console.error(error);
        }
      }
    };
    if (wait <= 0 && !soon) call();
    else this.#call = setTimeout(call, Math.max(wait, soon ? CALL_PAUSE : 0));
  }

  // --- reading ---

  refresh() {
    this.#due = this.#again = true; // What was asked before this moment need not contain it.
    this.read();
  }

  /** What is shown may be wrong until it has been read again. */
  doubt() {
    this.#due = this.#doubted = this.#again = true;
    this.#error = null;
    this.changed();
  }

  /** Reads it now, if that is due and possible. */
  read() {
    if (!this.active || !this.#due || this.#job || !this.#line.asks(this.type)) return;
    clearTimeout(this.#timer);
    clearTimeout(this.#inexact);
    this.#timer = 0;
    this.#again = false;
    this.#askedAt = Date.now();
    const { push } = this.#line.topics[this.type] ?? {};
    const whole = push === "row" && !this.#paged ? { all: true } : {};
    const job = this.#job = {
      type: this.type,
      params: { ...this.#params, ...whole },
      done: (error, reply) => {
        this.#job = null;
        this.#pause = Math.min(LONGEST_PAUSE, Math.max(READ_PAUSE, 2 * (Date.now() - this.#askedAt)));
        if (error) this.#failed(error);
        else if (this.#line.sends(this.type)) this.#take(reply);
        this.#held.splice(0).forEach((event) => this.apply(event));
        this.#due ||= this.#again;
        if (this.#again) this.read();
      },
    };
    this.#line.ask(job);
  }

  // Has it read soon: at once, but not more often than it takes.
  #touch(wait = 0) {
    this.#due = true;
    // What came before the reply is contained in it.
    if (this.#job || this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.read();
    }, Math.max(wait, left(this.#askedAt, this.#pause)));
  }

  /** The connection is gone, and the parts of a reply that had come with it. */
  lost() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const job = this.#job;
    this.#job = null; // Asked anew when there is a connection: that reply stands after the replay.
    if (job) job.gone = this.#due = true;
    this.#held.splice(0).forEach((event) => this.apply(event));
  }

  /** It cannot be had; with null that is over. */
  fail(error) {
    this.#error = error;
    this.changed();
  }

  #failed(error) {
    if (error.code === 0) return; // The connection is given up, and says so.
    if (error.code === 429 || error.code >= 500) {
      this.#doubted = true; // By now it may be another.
      this.#touch(backoff(this.#failures++));
      this.changed();
    } else {
      warn(`${this.type}: ${error.message}`);
      this.fail(error);
    }
  }

  #take({ data, page = null, exact = true }) {
    const { push, key = [], order = [] } = this.#line.topics[this.type] ?? {};
    this.#folds = push === "row" && !this.#paged && key.length > 0 && data.every((row) => key.every((column) => column in row));
    this.#columns = key;
    this.#order = [this.#params.order ?? order].flat().concat(key).map((term) => {
      const [, column, down] = /^(.*?)(?:\s+(?:asc|(desc)))?$/i.exec(term.trim());
      return [column, down ? -1 : 1];
    });
    this.#boxes = data.map((row) => ({ row }));
    this.#byKey = new Map();
    if (this.#folds) {
      for (const box of this.#boxes) this.#byKey.set(this.#name(box.row), box);
    }
    this.#page = page;
    this.#exact = exact;
    this.#error = null;
    this.#loaded = true;
    this.#due = this.#doubted = false;
    clearTimeout(this.#inexact);
    this.#failures = 0;
    this.#doubts = exact ? 0 : this.#doubts + 1;
    if (!exact) this.#inexact = setTimeout(() => this.#touch(), backoff(this.#doubts));
    this.changed();
  }

  // --- following ---

  /** Applies one event of the stream. */
  apply(event) {
    const { op } = event;
    if (op === "event") return;
    if (this.#job?.parts.length) this.#held.push(event);
    else if (op === "replace") {
      // A page topic's own page is its list; any other part of the view is asked for.
      if (this.#paged || this.filter || this.#params.order) this.#touch();
      else if (this.#loaded) this.#take(event);
    } else if (op === "reload") {
      this.doubt();
      this.#touch(Math.random() * 500); // Every client is told at the same time.
    } else if (!this.#loaded) {
      // What is being asked for contains it.
    } else if (this.#folds) this.#fold(event);
    else this.#touch(); // Also by rows of other pages, which move those of this one.
  }

  #fold({ op, key, old_key: from = key, data, unchanged = [], tx }) {
    if (op === "truncate") {
      this.#boxes = [];
      this.#byKey.clear();
      this.changed();
      return;
    }
    const box = this.#byKey.get(this.#name(from));
    const old = box?.row;
    const row = data && { ...data };
    for (const column of unchanged) if (old && row) row[column] = old[column];
    const whole = row && (old || !unchanged.length);
    const inside = op === "delete" ? 0 : whole ? this.#judge(row) : -1;
    if (inside < 0) this.#touch(); // It takes the database to tell.
    if (inside < 0 && !(old && whole)) return;
    if (inside && old && this.#order.every(([column]) => text(row[column]) === text(old[column]))) box.row = row;
    else {
      const known = this.#remove(from) | this.#remove(key);
      if (inside) this.#put(row);
      else if (!known) return;
    }
    // What belongs together is shown together.
    this.changed(Boolean(tx));
  }

  // Takes a row out, if it is there.
  #remove(key) {
    const name = this.#name(key);
    const box = this.#byKey.get(name);
    if (box) this.#boxes.splice(this.#boxes.indexOf(box), 1);
    return this.#byKey.delete(name);
  }

  // Takes a row in, between its neighbours. Where that is the database's to say it is asked.
  #put(row) {
    let [low, high] = [0, this.#boxes.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const [order, certain] = this.#compare(this.#boxes[middle].row, row);
      if (!certain) this.#touch();
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    const box = { row };
    this.#byKey.set(this.#name(row), box);
    this.#boxes.splice(low, 0, box);
  }

  #name(row) {
    return JSON.stringify(this.#columns.map((column) => row[column]));
  }

  #compare(a, b) {
    for (const [column, direction] of this.#order) {
      const [order, certain] = compare(a[column], b[column]);
      if (order || !certain) return [order * direction, certain];
    }
    return [0, true];
  }

  // Whether a row is in the list: 1, 0, or -1 where only the database can tell.
  #judge(row) {
    if (!this.filter || this.#line.sends(this.type, this.filter)) return 1;
    if (!row) return -1;
    let all = 1;
    for (const [column, wanted] of Object.entries(this.#params.filter)) {
      const one = holds(row[column], wanted);
      if (one === 0) return 0;
      all = Math.min(all, one);
    }
    return all;
  }
}

// === values ===

// How the database orders two values, and whether that is certain: of texts that is known for UUIDs
// and for times in one form only.
function compare(a, b) {
  if (a === b) return [0, true];
  if (a === null || b === null) return [a === null ? -1 : 1, true];
  const shape = (one) => (typeof one !== "string" ? typeof one : FIXED.test(one) ? one.replace(/[0-9a-f]/g, 0) : NaN);
  return [a < b ? -1 : 1, typeof a !== "object" && shape(a) === shape(b)];
}

const FIXED = /^([0-9a-f-]{36}|\d+[-:.][\d :.TZ-]*)$/;

// One condition on a column's value: 1, 0, or -1 where the database may see it another way: it
// knows collations, types and times, and this does not.
function holds(value, wanted) {
  if (value === undefined) return -1;
  if (wanted === null) return value === null ? 1 : 0;
  if (Array.isArray(wanted)) {
    const each = wanted.map((one) => holds(value, one));
    return each.includes(1) ? 1 : Math.min(0, ...each);
  }
  if (typeof wanted !== "object") return value === null ? 0 : equal(value, wanted);
  let all = 1;
  for (const [operator, operand] of Object.entries(wanted)) {
    const one = operand === null ? -1 : value === null ? 0 : against(operator, value, operand);
    if (one === 0) return 0;
    all = Math.min(all, one);
  }
  return all;
}

function against(operator, value, operand) {
  if (operator === "eq") return equal(value, operand);
  if (operator === "ne") return [1, 0][equal(value, operand)] ?? -1;
  const numbers = typeof value === "number" && typeof operand === "number" && !near(value, operand);
  if (!numbers || operator === "like") return -1;
  const beyond = operator[0] === "l" ? value < operand : value > operand;
  return Number(beyond || (operator[2] === "e" && value === operand));
}

// Fractions: those of single precision, or in another spelling, may be one in the database.
const near = (a, b) => a % 1 || b % 1;

// Numbers, and words that differ in more than case and accents, are certainly not equal. Of all else
// (times, ranges, addresses, money) there are several spellings.
function equal(a, b) {
  if (a === b) return 1;
  const [x, y] = [a, b].map((one) => (one === "" ? NaN : Number(one)));
  if (!isNaN(x) && !isNaN(y)) return x === y || near(x, y) ? -1 : 0;
  const words = [a, b].map((one) => String(one).normalize("NFKD").replace(/\p{M}/gu, "").trim().toLowerCase());
  const plain = typeof a === typeof b && words.every((word) => /^[\p{L}\p{N} _.@-]*$/u.test(word) && !/^\d+-|^-?p\d/.test(word));
  return plain && words[0] !== words[1] ? 0 : -1;
}

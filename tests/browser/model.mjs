// A gateway as docs/protocol.md describes it, in a few hundred lines: tables, the stream of their
// changes, sessions that hello, subscribe, resume and query. What a client shows can be compared
// with what it holds.

/** How values of a column compare, by kind. Each turns a JSON value into what is compared. */
const KINDS = {
  int: (value) => BigInt(value),
  numeric: (value) => Number(value),
  text: (value) => String(value),
  /** A collation in which upper and lower case are the same. */
  folded: (value) => String(value).toLowerCase(),
  bool: (value) => Number(value === true || value === "true"),
  /** Times: the same moment has many spellings. */
  stamp: (value) => Date.parse(value),
};

/** Tests that only the database can judge: `sys:subscribe` refuses them, queries take them. */
const DATABASE_ONLY = { folded: ["lt", "lte", "gt", "gte"], int: ["like"], numeric: ["like"], bool: ["like"], stamp: ["like"] };

const OPS = {
  eq: (a, b) => a === b,
  lt: (a, b) => a < b,
  lte: (a, b) => a <= b,
  gt: (a, b) => a > b,
  gte: (a, b) => a >= b,
};

/** SQL's three truth values: true, false, null. */
function judge(kind, value, condition) {
  if (Array.isArray(condition)) {
    if (value === null) return condition.includes(null) || null;
    return condition.some((one) => one !== null && judge(kind, value, one));
  }
  if (condition === null) return value === null;
  if (typeof condition !== "object") condition = { eq: condition };
  let all = true;
  for (const [op, asked] of Object.entries(condition)) {
    let one;
    if (asked === null) one = op === "eq" ? value === null : value !== null;
    else if (value === null) one = null;
    else if (op === "like") one = like(String(asked)).test(String(value));
    else if (op === "ne") one = KINDS[kind](value) !== KINDS[kind](asked);
    else one = OPS[op](KINDS[kind](value), KINDS[kind](asked));
    if (one === false) return false;
    if (one === null) all = null;
  }
  return all;
}

function like(pattern) {
  const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replaceAll("%", "[^]*").replaceAll("_", "[^]");
  return new RegExp(`^${source}$`, "i");
}

/** Whether a filter holds for a row. */
export function holds(columns, filter, row) {
  return Object.entries(filter ?? {}).every(([column, condition]) => judge(columns[column], row[column], condition) === true);
}

const listed = (order) => (order === undefined ? [] : Array.isArray(order) ? order : [order]);

/** A table and the topic that shows it. */
export class Table {
  rows = new Map();

  /**
   * `push`, `key` and `order` as in the welcome; `columns`: the kind of each; `size` of a page;
   * `told`: what the database tells of a row before its change: `full`, `key` (PostgreSQL's
   * default) or `sqlite`.
   */
  constructor({ push = "row", key = ["id"], order = ["id"], columns, size = 5, told = "key" }) {
    Object.assign(this, { push, key, order, columns, size, told });
  }

  keyOf(row) {
    return Object.fromEntries(this.key.map((column) => [column, row[column]]));
  }

  name(key) {
    return JSON.stringify(this.key.map((column) => key[column]));
  }

  /** The rows of a query, all of them, in order; NULL is below everything. */
  select({ filter, order } = {}) {
    const asked = listed(order);
    const by = [...(asked.length ? asked : this.order), ...this.key].map((one) => {
      const [column, direction] = one.trim().split(" ");
      return { column, sign: direction === "desc" ? -1 : 1, of: KINDS[this.columns[column]] };
    });
    const compare = (a, b) => {
      for (const { column, sign, of } of by) {
        const [left, right] = [a[column], b[column]];
        if (left === null || right === null) {
          if (left !== right) return left === null ? -sign : sign;
        } else if (of(left) !== of(right)) return of(left) < of(right) ? -sign : sign;
      }
      return 0;
    };
    return [...this.rows.values()].filter((row) => holds(this.columns, filter, row)).sort(compare);
  }

  /** A page of them as a reply has it: `{ data, page }`; `next` is the place and the question. */
  page({ page, size = this.size, filter, order, after } = {}) {
    let from = ((page ?? 1) - 1) * size;
    if (after) ({ from, size, filter, order } = JSON.parse(after));
    const all = this.select({ filter, order });
    const end = from + size;
    const next = end < all.length ? JSON.stringify({ from: end, size, filter, order }) : null;
    return { data: all.slice(from, end), page: { number: after ? null : page ?? 1, size, total: all.length, next } };
  }

  /** Whether a filter can be judged without the database. */
  judges(filter) {
    return Object.entries(filter ?? {}).every(([column, condition]) =>
      column in this.columns && (typeof condition !== "object" || condition === null || Array.isArray(condition)
        || Object.keys(condition).every((op) => !DATABASE_ONLY[this.columns[column]]?.includes(op))));
  }
}

/** The form in which a session with this filter gets an event (the table in §1.3); null for none. */
function formed(table, event, filter) {
  const { op, now, before, frame } = event;
  if (!filter || ["truncate", "reload", "event"].includes(op)) return frame;
  const decides = (column) => column in filter;
  if (frame.too_large || frame.unchanged?.some(decides)) return { ...frame, op: "reload", data: null, key: undefined, old_key: undefined, too_large: undefined, unchanged: undefined };
  const inside = now !== null && holds(table.columns, filter, now);
  // Whether it was inside: null where that is not known.
  let was = null;
  if (table.told === "full") was = before !== null && holds(table.columns, filter, before);
  else if (table.told === "key" && op === "insert") was = false;
  if (inside) return was === false ? { ...frame, op: "insert" } : frame;
  if (table.told === "sqlite" && frame.old_key) return { ...frame, op: "reload", data: null, key: undefined, old_key: undefined };
  if (was === false) return null;
  return { ...frame, op: "delete", key: frame.old_key ?? frame.key, old_key: undefined, data: null, unchanged: undefined };
}

/** A server's world: its tables, its stream, and every session at any of its gateways. */
export class World {
  /** What every query is answered with; null where it is answered. */
  failing = null;

  log = [];
  epoch = 1;
  /** The offset of the first event that is still there. */
  first = 1;
  sessions = new Set();
  /** Hosts that do not answer. */
  down = new Set();
  /** Called with each request before it is answered: what it returns true for is the test's. */
  intercept = () => false;
  /** How long a query is under way before it reads, in ms. */
  reading = () => 0;
  /** Rows in a part of an `all`. */
  part = 3;
  /** How many events a session is sent at once. */
  stride = () => Infinity;
  /** Whether a reply could be placed. */
  exact = () => true;
  /** Whether a source of changes is alive: without one there are no ticks. */
  ticks = true;
  tick_ms = 5000;
  ping_ms = 25_000;
  after_ms = [0, 3000];

  /** `tables`: {@link Table}s by topic. */
  constructor(network, tables) {
    this.network = network;
    this.clock = network.clock;
    this.tables = tables;
    network.accept = (wire) => this.accept(wire);
  }

  get head() {
    return this.log.length;
  }

  cursor(offset = this.head) {
    return `e${this.epoch}:${offset}`;
  }

  accept(wire) {
    const host = new URL(wire.url).host;
    if (this.down.has(host)) return wire.end(1006);
    wire.open();
    this.sessions.add(new Session(this, wire, host));
  }

  // === what happens to the tables ===

  /** Inserts or updates a row, under another key where `from` says of which. `more`: `unchanged`
   *  columns, `too_large`. */
  put(type, row, { from, unchanged, too_large } = {}) {
    const table = this.tables[type];
    const key = table.keyOf(row);
    const before = table.rows.get(table.name(from ?? key)) ?? null;
    if (from) table.rows.delete(table.name(from));
    table.rows.set(table.name(key), row);
    const moved = from && table.name(from) !== table.name(key);
    const data = too_large ? null : Object.fromEntries(Object.entries(row).filter(([column]) => !unchanged?.includes(column)));
    this.push(type, before ? "update" : "insert", { key, ...(moved && { old_key: from }), data, ...(unchanged && { unchanged }), ...(too_large && { too_large }) }, row, before);
  }

  remove(type, key) {
    const table = this.tables[type];
    const before = table.rows.get(table.name(key)) ?? null;
    table.rows.delete(table.name(key));
    this.push(type, "delete", { key, data: null }, null, before);
  }

  truncate(type) {
    this.tables[type].rows.clear();
    this.push(type, "truncate", { data: null });
  }

  reload(type) {
    this.push(type, "reload", { data: null });
  }

  /** An application's event. */
  publish(type, data) {
    this.push(type, "event", { data });
  }

  push(type, op, members, now = null, before = null) {
    const offset = this.head + 1;
    const frame = { type, op, ...members, cursor: this.cursor(offset), ts: this.clock.now };
    this.log.push({ type, op, now, before, frame });
    for (const session of this.sessions) session.pump();
  }

  // === what happens to the stream and the gateways ===

  /** Forgets all events but the last `kept`. */
  trim(kept = 0) {
    this.first = Math.max(this.first, this.head + 1 - kept);
    for (const session of [...this.sessions]) if (session.live && session.at + 1 < this.first) session.reset("lagged");
  }

  /** Begins another history. */
  renew() {
    this.epoch += 1;
    this.first = this.head + 1;
    for (const session of [...this.sessions]) if (session.live) session.reset("epoch");
  }

  /** Ends every connection to a host, or to all. */
  cut(code, host) {
    for (const session of [...this.sessions]) if (!host || session.host === host) session.end(code);
  }

  /** As a gateway that dies: nobody is told. */
  vanish(host) {
    for (const session of [...this.sessions]) {
      if (host && session.host !== host) continue;
      session.wire.vanish();
      session.over();
    }
  }

  /** Whether nothing is on its way between anybody and the world. */
  get quiet() {
    return [...this.sessions].every((session) => session.live && session.wire.quiet && session.at === this.head && !session.held.length && !session.asked);
  }
}

class Session {
  /** Where it stands: the offset of the last event that was sent, or judged not to be. */
  at = 0;
  live = false;
  /** Topics and their filters; null takes all. */
  types = null;
  /** Replies that wait for their place. */
  held = [];
  /** Queries that have not read yet. */
  asked = 0;
  #pumping = false;
  #caughtUp = false;
  #ended = false;

  constructor(world, wire, host) {
    Object.assign(this, { world, wire, host });
    wire.hears = (frame) => {
      if (!this.#ended && !world.intercept(frame, this)) this.hear(frame);
    };
    wire.gone = () => this.over();
  }

  over() {
    this.#ended = true;
    this.live = false;
    this.world.sessions.delete(this);
  }

  end(code) {
    if (code === 1012 && this.live) this.say({ type: "sys:drain", after_ms: [200, 8000] });
    this.wire.end(code);
    this.over();
  }

  say(...frames) {
    if (!this.#ended) this.wire.say(...frames);
  }

  fail(rid, code, error, more = {}) {
    this.say({ type: "sys:error", rid, code, error, msg: "参数有误", ...more });
  }

  hear(frame) {
    const { type, rid } = frame;
    if (type === "sys:ping") return this.say({ type: "sys:pong", rid });
    if (type === "sys:hello") return this.hello(frame);
    if (type === "sys:auth") return this.say({ type: "sys:ok", rid, cursor: this.world.cursor(this.at) });
    if (type === "sys:subscribe" || type === "sys:unsubscribe") return this.interest(frame);
    if (type.startsWith("sys:")) return this.fail(rid, 404, "unknown_type");
    return this.query(frame);
  }

  /** Topics and filters out of either form; a failure where they cannot be had. */
  named(types) {
    const named = new Map();
    for (const [type, { filter } = {}] of Array.isArray(types) ? types.map((type) => [type, {}]) : Object.entries(types)) {
      const table = this.world.tables[type];
      if (!table) throw { code: 404, error: "unknown_type" };
      if (filter && !table.judges(filter)) throw { code: 400, error: "bad_param", detail: "filter: this test of this column is for queries only" };
      named.set(type, filter && Object.keys(filter).length ? filter : null);
    }
    return named;
  }

  hello({ rid, types, since, topics }) {
    if (this.live) return this.fail(rid, 400, "bad_param", { detail: "sys:hello: only once" });
    const { world } = this;
    try {
      if (types) this.types = this.named(types);
    } catch (refused) {
      return this.fail(rid, refused.code, refused.error, refused);
    }
    this.live = true;
    const [epoch, offset] = since ? since.slice(1).split(":").map(Number) : [world.epoch, world.head];
    const reason = epoch !== world.epoch ? "epoch" : offset > world.head ? "ahead" : offset + 1 < world.first ? "trimmed" : null;
    this.at = reason ? world.head : offset;
    const welcome = { type: "sys:welcome", rid, cursor: since ?? world.cursor(this.at), recovered: Boolean(since) && !reason, replay: since && !reason ? world.head - offset : 0, ping_ms: world.ping_ms, tick_ms: world.tick_ms };
    if (topics) {
      welcome.topics = Object.fromEntries(Object.entries(world.tables).map(([name, table]) =>
        [name, table.columns ? { push: table.push, key: table.key, order: table.order } : { push: table.push }]));
    }
    this.say(welcome);
    this.#caughtUp = !since;
    if (reason) this.reset(reason);
    this.tick();
    this.pump();
  }

  interest({ type, rid, types }) {
    try {
      if (type === "sys:unsubscribe") {
        this.types ??= new Map(Object.keys(this.world.tables).map((name) => [name, null]));
        for (const name of types) this.types.delete(name);
      } else {
        for (const [name, filter] of this.named(types)) {
          if (this.types) this.types.set(name, filter);
          else (this.filters ??= new Map()).set(name, filter);
        }
      }
    } catch (refused) {
      return this.fail(rid, refused.code, refused.error, refused);
    }
    this.say({ type: "sys:ok", rid, cursor: this.world.cursor(this.at) });
  }

  query({ type, rid, id, params = {} }) {
    const { world } = this;
    const table = world.tables[type];
    if (!table?.columns) return table ? this.fail(rid, 400, "bad_param") : this.fail(rid, 404, "unknown_type");
    if (!this.live) return this.fail(rid, 400, "bad_param", { detail: "sys:hello: first, with hello=1" });
    if (world.failing) return this.fail(rid, world.failing.code, world.failing.error);
    this.asked += 1;
    world.clock.in(world.reading(), () => {
      this.asked -= 1;
      if (this.#ended) return;
      const exact = world.exact();
      const reply = { type, rid, op: "replace" };
      let frames;
      if (id !== undefined) {
        const key = typeof id === "object" ? id : { [table.key[0]]: id };
        const found = table.rows.get(table.name(key));
        frames = [{ ...reply, data: found ? [found] : [] }];
      } else if (params.all) {
        const rows = table.select(params);
        if (!exact && rows.length) rows.pop(); // A moment old.
        const parts = Math.max(1, Math.ceil(rows.length / world.part));
        frames = Array.from({ length: parts }, (_, part) =>
          ({ ...reply, data: rows.slice(part * world.part, (part + 1) * world.part), part: part + 1, last: part + 1 === parts }));
      } else {
        frames = [{ ...reply, ...table.page(params) }];
        if (!exact) frames[0].data = frames[0].data.slice(1);
      }
      if (!exact) for (const frame of frames) frame.exact = false;
      this.held.push({ at: world.head, frames });
      this.pump();
    });
  }

  /** What was missed is lost: says so, and goes on from the head. */
  reset(reason) {
    const { world } = this;
    this.at = world.head;
    this.say({ type: "sys:reset", reason, cursor: world.cursor(this.at), after_ms: world.after_ms });
    this.#caughtUp = true;
    this.pump();
  }

  tick() {
    this.world.clock.in(this.world.tick_ms, () => {
      if (!this.live) return;
      if (this.world.ticks) this.say({ type: "sys:tick", cursor: this.world.cursor(this.at) });
      this.tick();
    });
  }

  filter(type) {
    return this.types ? this.types.get(type) : this.filters?.get(type);
  }

  /** Sends what comes next: events, replies at their places, some at a time. */
  pump() {
    const { world } = this;
    if (!this.live || this.#pumping) return;
    const pages = new Set();
    for (let left = world.stride(); ; left -= 1) {
      for (const { frames } of this.held.filter(({ at }) => at <= this.at)) {
        const cursor = world.cursor(this.at);
        this.say(...frames.map((frame) => ({ ...frame, cursor })));
      }
      this.held = this.held.filter(({ at }) => at > this.at);
      if (this.at >= world.head) break;
      if (left <= 0) {
        this.#pumping = true;
        world.clock.in(1, () => {
          this.#pumping = false;
          this.pump();
        });
        return;
      }
      this.at += 1;
      const event = world.log[this.at - 1];
      if (this.types && !this.types.has(event.type)) continue;
      const table = world.tables[event.type];
      if (table.push === "page" && event.op !== "event") {
        pages.add(event.type);
        continue;
      }
      const frame = formed(table, event, this.filter(event.type));
      if (frame) this.say(frame);
    }
    if (!this.#caughtUp) {
      this.#caughtUp = true;
      this.say({ type: "sys:caught_up", cursor: world.cursor(this.at) });
      for (const [type, { push }] of Object.entries(world.tables)) if (push === "page" && (!this.types || this.types.has(type))) pages.add(type);
    }
    for (const type of pages) this.say({ type, op: "replace", ...world.tables[type].page(), cursor: world.cursor(this.at), ts: world.clock.now });
  }
}

// The rows of one topic as the server has told them: replaced by a reply, moved on by
// events. No DOM here; table.js shows what stands in `sorted`.

/** Compares two values as SQLite orders them: null, then numbers, then text. */
function compareValues(a, b) {
  const rank = (value) => (value == null ? 0 : typeof value === "number" || typeof value === "boolean" ? 1 : 2);
  if (rank(a) !== rank(b)) return rank(a) - rank(b);
  if (a == null) return 0;
  if (typeof a === "object") [a, b] = [JSON.stringify(a), JSON.stringify(b)];
  return a < b ? -1 : a > b ? 1 : 0;
}

export class Rows {
  #topic;
  #byKey = new Map();
  #order;
  /** Rows that came in a reply's earlier parts; null outside of one. */
  #parts = null;
  /** Events that came between a reply's parts: they stand after it. */
  #held = [];

  /** `{ key, row }` in the topic's order. */
  sorted = [];
  /** The whole view is held: a reply has come, and nothing since made it doubtful. */
  fresh = false;

  constructor(topic) {
    this.describe(topic);
  }

  /** Takes a topic's definition, at first and when it has changed. */
  describe(topic) {
    this.#topic = topic;
    const ordered = (topic.order ?? []).map((term) => {
      const [column, direction] = term.split(/\s+(?=(?:asc|desc)$)/i);
      return [column, /^desc$/i.test(direction) ? -1 : 1];
    });
    const named = new Set(ordered.map(([column]) => column));
    this.#order = [...ordered, ...topic.key.filter((column) => !named.has(column)).map((column) => [column, 1])];
  }

  /** The identity of a row or of an event's key: JSON of its key columns, in the topic's order. */
  keyOf(row) {
    return JSON.stringify(Object.fromEntries(this.#topic.key.map((column) => [column, row[column]])));
  }

  /** Some parts of a reply have come, its last has not. */
  get replying() {
    return this.#parts !== null;
  }

  /** Takes one part of a reply; returns whether it was the last. */
  replace(frame) {
    this.#parts ??= [];
    this.#parts.push(...(frame.data ?? []));
    if (frame.last === false) return false;

    const rows = this.#parts;
    this.#parts = null;
    // Keyed by place where the server's key is not among the columns.
    const keyed = this.#topic.key.length > 0 && rows.every((row) => this.#topic.key.every((column) => column in row));
    const entries = rows.map((row, place) => ({ key: keyed ? this.keyOf(row) : `#${place}`, row }));
    this.#byKey = new Map(entries.map((entry) => [entry.key, entry]));
    this.sorted = entries;
    // A page keeps the order it came in; rows that change one by one need an order of their own.
    if (this.#topic.push === "row") entries.sort((a, b) => this.#compare(a.row, b.row));
    this.fresh = true;
    for (const event of this.#held.splice(0)) this.apply(event);
    return true;
  }

  /** A connection broke in the middle of a reply. */
  abandonReply() {
    this.#parts = null;
    for (const event of this.#held.splice(0)) this.apply(event);
  }

  /**
   * Applies one event. A row unknown to a `delete` is ignored, and `insert` and `update` are
   * the same thing: the server may not know what this client holds (docs/protocol.md §1.2).
   */
  apply(event) {
    if (this.#parts) {
      this.#held.push(event);
      return;
    }
    switch (event.op) {
      case "insert":
      case "update":
        if (event.old_key) this.remove(this.keyOf(event.old_key));
        this.#upsert(event);
        break;
      case "delete":
        this.remove(this.keyOf(event.key));
        break;
      case "truncate":
        this.#byKey.clear();
        this.sorted = [];
        break;
      case "reload":
        this.fresh = false;
        break;
    }
  }

  /** Takes a row out, if it is there. */
  remove(key) {
    const entry = this.#byKey.get(key);
    if (!entry) return;
    this.sorted.splice(this.#place(entry.row), 1);
    this.#byKey.delete(key);
  }

  /** Takes a row in, in its place, over an earlier one of the same key. */
  put(row) {
    const key = this.keyOf(row);
    this.remove(key);
    const entry = { key, row };
    this.#byKey.set(key, entry);
    this.sorted.splice(this.#place(row), 0, entry);
  }

  #upsert({ key, data, unchanged }) {
    if (!data) return; // Too large for the bus: the row is asked for by its key.
    const row = { ...data };
    const before = this.#byKey.get(this.keyOf(key))?.row;
    for (const column of unchanged ?? []) row[column] = before?.[column];
    this.put(row);
  }

  #compare(a, b) {
    for (const [column, direction] of this.#order) {
      const order = compareValues(a[column], b[column]) * direction;
      if (order) return order;
    }
    return 0;
  }

  // Where a row stands or would stand; the order ends with the key, so no two are equal.
  #place(row) {
    let low = 0;
    let high = this.sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#compare(this.sorted[middle].row, row) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** A row as JSON: docs/protocol.md §6 says which value of the database becomes which. */
export type Row = Record<string, any>;

/** The columns of a key, as events carry it. */
export type Key = Record<string, string | number>;

/** A condition on one column: a value (equality), null, an array (one of them), or comparisons. */
export type Condition =
  | string | number | boolean | null
  | (string | number | boolean | null)[]
  | { eq?: unknown; ne?: unknown; lt?: unknown; lte?: unknown; gt?: unknown; gte?: unknown; like?: string };

/** Conditions by column, all of which must hold. A list whose filter has an `undefined` value waits,
 *  `idle` and empty, until it has one. */
export type Filter<R = Row> = { [C in keyof R]?: Condition };

/** `"name"`, `"name asc"` or `"name desc"`. */
export type Order<R = Row> = (keyof R & string) | `${keyof R & string} ${"asc" | "desc"}`;

/** What {@link Rowcast.query} asks for: one row by `id`, a page, or the whole view. */
export interface QueryParams<R = Row> {
  /** The key: a number or string for one column, an object for several. Alone. */
  id?: string | number | Key;
  /** A page, from 1. */
  page?: number;
  /** Rows of a page. */
  size?: number;
  order?: Order<R> | Order<R>[];
  filter?: Filter<R>;
  /** The `page.next` of an earlier reply. */
  after?: string;
  /** The whole view, at one position. */
  all?: boolean;
}

/** Where a page stands in its view. `number` is null after `after`, `next` null at the end. */
export interface Page {
  number: number | null;
  size: number;
  total: number;
  next: string | null;
}

/** A reply, whole: the parts of an `all` are put together. */
export interface Reply<R = Row> {
  type: string;
  op: "replace";
  data: R[];
  cursor: string;
  page?: Page;
  /** False where the read could not be placed in the stream exactly. */
  exact?: false;
}

/** What every pushed frame may carry: docs/protocol.md §1.2. */
export interface Pushed {
  type: string;
  key?: Key;
  old_key?: Key;
  unchanged?: string[];
  too_large?: true;
  tx?: string;
  cursor?: string;
  /** Unix milliseconds: when it was committed. */
  ts?: number;
  page?: Page;
  [member: string]: any;
}

/** What the server pushes; `op` tells which it is. */
export type Frame<R = any> = Pushed & (
  | { op: "insert" | "update"; data: R | null }
  | { op: "delete" | "truncate" | "reload"; data: null }
  | { op: "replace"; data: R[]; page: Page }
  | { op: "event"; data: unknown }
);

/**
 * `connecting` (never yet connected), `live`, `offline` (lost, and being tried again), `stopped`
 * (the server will not have this connection: `code` says why), `closed` (by {@link Rowcast.close}).
 */
export type Status = "connecting" | "live" | "offline" | "stopped" | "closed";

/** What `on("sys:status", …)` is told. */
export interface StatusFrame {
  type: "sys:status";
  status: Status;
  /** The close code, after a close. */
  code?: number;
  reason?: string;
  /** When the next try is made, in Unix milliseconds; while `offline`. */
  retry_at?: number;
  /** After a reconnect: whether everything missed was replayed, and how many events that were. */
  recovered?: boolean;
  replayed?: number;
}

/** Why a query was refused (docs/protocol.md §1.4), or what the client itself has to say: `code` 0. */
export declare class RowcastError extends Error {
  /** An HTTP status; 0 for `timeout`, `closed` and `stopped`. */
  code: number;
  /** A stable word: `bad_param`, `unknown_type`, `timeout`, … */
  error: string;
  /** Which parameter. */
  detail?: string;
}

/** What a list shows; without `page`, `size` or `after` the whole view, of a page topic its page. */
export interface LiveParams<R = Row> {
  filter?: Filter<R>;
  /** The topic's own order where not given. */
  order?: Order<R> | Order<R>[];
  page?: number;
  size?: number;
  after?: string;
}

/**
 * `idle` (nobody subscribes), `loading` (no rows yet), `live` (the rows are the view's), `stale`
 * (the rows are what was last known: offline, or being read again), `error` (refused: see `error`).
 */
export type LiveStatus = "idle" | "loading" | "live" | "stale" | "error";

/** What a list holds at one moment. The same object until something changes. The rows are the list's
 *  own: whoever wants to change or sort them takes a copy. */
export interface Snapshot<R = Row> {
  readonly rows: readonly R[];
  readonly status: LiveStatus;
  /** Why it cannot be had; null otherwise. */
  readonly error: RowcastError | null;
  /** Of a paged list. */
  readonly page: Page | null;
  /** False while the last read could not be placed exactly; it is read again by itself. */
  readonly exact: boolean;
}

/**
 * A list that stays true. It is read when the first subscriber comes, and given up a moment
 * after the last has gone. Its functions need no `this`.
 */
export interface Live<R = Row> extends Snapshot<R> {
  /** Calls `changed` with the rows at once and after every change (many changes at once: one call,
   *  at most sixty a second). Returns the function that ends it. A Svelte store; for React's
   *  `useSyncExternalStore(list.subscribe, list.snapshot)`. */
  subscribe(changed: (rows: readonly R[]) => void): () => void;
  /** Rows, status, error and page together; the same object until one of them changes. */
  snapshot(): Snapshot<R>;
  /** Reads the list again. */
  refresh(): void;
}

/** What a browser's WebSocket has, as far as it is used. */
export interface SocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: { data: any }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror?: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export interface Options {
  /** A token, or a function that gets one: asked at every connect, before a JWT expires, and after
   *  the server has refused one (`4401`). */
  token?: string | (() => string | null | Promise<string | null>);
  /** Topics to be pushed from the start, beside those of `on` and `live`: for `on("*", …)`. */
  types?: string[];
  /** `latest`: once behind, only the newest event of each row. */
  mode?: "every" | "latest";
  /** Makes the socket where there is no `WebSocket`, or another is wanted. */
  socket?: (url: string) => SocketLike;
}

/** `R` as it was said, not as it could be guessed from a filter. */
export type Fixed<R> = [R][R extends any ? 0 : never];

/** Any topic, where the map of them is not known; else none. */
export type Untyped<T> = [keyof T] extends [never] ? string : never;

/** One connection for the whole page. `T` maps topics to their rows: `rowcast types --lang ts`. */
export interface Rowcast<T = {}> {
  readonly status: Status;
  /** The last cursor seen: where a lost connection is resumed from. */
  readonly cursor: string | null;

  /**
   * Calls `fn` with every frame of that `type` that is pushed, in the order of the stream. `"*"`:
   * with every frame that comes. `"sys:status"`: when {@link Rowcast.status} changes; `"sys:reset"`
   * when continuity was lost. Returns the function that ends it.
   */
  on(type: "sys:status", fn: (frame: StatusFrame) => void): () => void;
  on(type: "*" | `sys:${string}`, fn: (frame: Pushed & { op?: string; data?: any }) => void): () => void;
  on<R = any>(type: Untyped<T>, fn: (frame: Frame<R>) => void): () => void;
  on<K extends keyof T & string>(type: K, fn: (frame: Frame<T[K]>) => void): () => void;

  /**
   * Asks once. While offline it waits, and is sent again where the connection broke. Rejects with
   * a {@link RowcastError}: the server's, or `timeout` after 30 s.
   */
  query<R = Row>(type: Untyped<T>, params?: QueryParams<Fixed<R>>): Promise<Reply<R>>;
  query<K extends keyof T & string>(type: K, params?: QueryParams<T[K]>): Promise<Reply<T[K]>>;

  /** A list that stays true. The same type and parameters give the same list. */
  live<R = Row>(type: Untyped<T>, params?: LiveParams<Fixed<R>>): Live<R>;
  live<K extends keyof T & string>(type: K, params?: LiveParams<T[K]>): Live<T[K]>;

  /** Reads every list of that type again. */
  refresh(type: string): void;

  /** Connects anew at once, whatever was going on; also after `stopped`. */
  reconnect(): void;

  /** Gives the connection up for good. */
  close(): void;
}

/**
 * Connects to a gateway, and stays connected.
 *
 * `url`: a gateway (`https://host`, `wss://host/socket/all/`), several to go round when one is
 * away, or nothing for the page's own host.
 */
export declare function connect<T = {}>(url?: string | string[] | null, options?: Options): Rowcast<T>;

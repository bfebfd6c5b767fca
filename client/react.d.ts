import type { Fixed, LiveParams, Row, Rowcast, Snapshot, Untyped } from "rowcast";

/** Rows, status, error and page of a list; the component renders anew when one of them changes. */
export declare function useLive<R = Row, T = {}>(rowcast: Rowcast<T>, type: Untyped<T>, params?: LiveParams<Fixed<R>>): Snapshot<R>;
export declare function useLive<T, K extends keyof T & string>(rowcast: Rowcast<T>, type: K, params?: LiveParams<T[K]>): Snapshot<T[K]>;

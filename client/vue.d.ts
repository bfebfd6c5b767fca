import type { MaybeRefOrGetter, ShallowRef } from "vue";
import type { Fixed, LiveParams, Row, Rowcast, Snapshot, Untyped } from "rowcast";

/** Rows, status, error and page of a list; it follows `params` where they are a ref or a getter. */
export declare function useLive<R = Row, T = {}>(
  rowcast: Rowcast<T>, type: Untyped<T>, params?: MaybeRefOrGetter<LiveParams<Fixed<R>> | undefined>): Readonly<ShallowRef<Snapshot<R>>>;
export declare function useLive<T, K extends keyof T & string>(
  rowcast: Rowcast<T>, type: K, params?: MaybeRefOrGetter<LiveParams<T[K]> | undefined>): Readonly<ShallowRef<Snapshot<T[K]>>>;

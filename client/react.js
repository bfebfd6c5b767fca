import { useSyncExternalStore } from "react";

/** A list that stays true, in a component: `const { rows, status } = useLive(rowcast, "patient")`. */
export function useLive(rowcast, type, params) {
  const list = rowcast.live(type, params);
  return useSyncExternalStore(list.subscribe, list.snapshot, list.snapshot);
}

// One connection for the whole page, whichever components use it.
import { useState, useSyncExternalStore } from "react";
import { connect } from "rowcast";
import { useLive } from "rowcast/react";

export const gateway = GATEWAY;
export const rowcast = connect(gateway);

const watch = (changed) => rowcast.on("sys:status", changed);

/** `connecting`, `live`, `offline`, … */
export const useStatus = () => useSyncExternalStore(watch, () => rowcast.status);

/** As useLive, but shows the rows of the page before until the new page's have come. */
export function usePaged(type, params) {
  const list = useLive(rowcast, type, params);
  const [shown, setShown] = useState(list);
  if (list !== shown && list.status !== "loading" && list.status !== "idle") setShown(list);
  return shown;
}

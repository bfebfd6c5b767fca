import { shallowRef, toValue, watchEffect } from "vue";

/** A list that stays true, in a component: `const list = useLive(rowcast, "patient", () => ({ page: page.value }))`. */
export function useLive(rowcast, type, params) {
  const shown = shallowRef(rowcast.live(type, toValue(params)).snapshot());
  watchEffect((onCleanup) => {
    const list = rowcast.live(type, toValue(params));
    onCleanup(list.subscribe(() => { shown.value = list.snapshot(); }));
  });
  return shown;
}

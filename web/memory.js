// What the page remembers from visit to visit: the reader's choices, in the browser's storage.

/** What the browser's storage remembers; nothing where the reader's settings forbid it. */
export function remembered(name) {
  try {
    return localStorage.getItem(`rowcast.${name}`);
  } catch {
    return null;
  }
}

/** Remembers a text, or forgets it (null). */
export function remember(name, text) {
  try {
    if (text === null) localStorage.removeItem(`rowcast.${name}`);
    else localStorage.setItem(`rowcast.${name}`, text);
  } catch { /* not remembered, as above */ }
}

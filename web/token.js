// The token with which the reader is signed in. It is kept for this tab alone, in the session's
// storage, and goes to this server alone, in a header or in the first frame of a socket: never
// into an address, never into what the page shows.

const NAME = "rowcast.token";

/** What may be the name of a subprotocol (RFC 9110 §5.6.2), or of a part of one. */
const SUBPROTOCOL = /^[\w!#$%&'*+.^`|~-]+$/;

let held = read();

// Where the reader's settings forbid it, it is kept for as long as the page is open.
function read() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}

/** The token; null where nobody has signed in. */
export const token = () => held;

/** Keeps a token, or forgets the one that there is (null). */
export function keep(text) {
  held = text;
  try {
    if (text === null) sessionStorage.removeItem(NAME);
    else sessionStorage.setItem(NAME, text);
  } catch { /* kept as long as the page, as above */ }
}

/** Asks this server, as whoever is signed in, or as whom another token stands for. */
export function request(url, options = {}, text = held) {
  const authorization = text === null ? {} : { authorization: `Bearer ${text}` };
  return fetch(url, { ...options, headers: { ...options.headers, ...authorization } });
}

/** The subprotocols that sign a socket in: none for another server, which the token is no business of. */
export function subprotocols(url) {
  if (held === null || new URL(url).host !== location.host || !SUBPROTOCOL.test(held)) return [];
  return ["rowcast", `bearer.${held}`];
}

/** A frame as it may be shown: a screen is seen by others, and a copy is passed on. */
export function masked(text) {
  if (!text.includes(`"token"`)) return text;
  try {
    const frame = JSON.parse(text);
    return typeof frame.token === "string" ? JSON.stringify({ ...frame, token: "***" }) : text;
  } catch {
    return text;
  }
}

/** Whether two tokens say the same of somebody, but for when: what one was shown the other may see. */
export function sayTheSame(one, other) {
  const said = [one, other].map(claims);
  return said[0] !== null && said[0] === said[1];
}

// What a JWT claims, without what is another in each, as one text; null of any other token.
function claims(text) {
  try {
    const bytes = Uint8Array.from(atob(text.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
    const { exp, iat, nbf, jti, ...rest } = JSON.parse(new TextDecoder().decode(bytes));
    return JSON.stringify(Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1)));
  } catch {
    return null;
  }
}

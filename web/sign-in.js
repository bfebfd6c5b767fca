// Signing in and out: what the page says where the server wants to know who is there, and the field
// for a token. That it wants to know is learnt from its refusal alone.

import { byId } from "./element.js";
import { known, say } from "./i18n.js";
import { keep, request, token } from "./token.js";

/** What a header can carry, as no token can do without it. */
const SENDABLE = /^[\x21-\x7e]+$/;

/** What is asked to find out whether a token is good, and what the page needs first. */
const TOPICS = "/api/topics";

/** The topics as whoever has signed in sees them, or the error of a refusal: `{ topics, … }` or `{ refused }`. */
export async function fetchTopics(as = token()) {
  const response = await request(TOPICS, { headers: { accept: "application/json" } }, as);
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({}));
  if (response.status === 401) return { refused: error ?? "token_missing" };
  if (response.status === 431) return { refused: "token_invalid" }; // No token is as long as that.
  if (error === "auth_unavailable") return { refused: error };
  throw new Error(`${TOPICS} answered ${response.status}`);
}

export class SignIn {
  /** Who waits for a token that is good. */
  #asked = null;
  #resolve = null;

  constructor() {
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try();
    });
    byId("sign-in-cancel").addEventListener("click", () => this.#close());
    // What the page has shown to somebody goes with him: none of it is left in memory.
    byId("sign-out").addEventListener("click", () => {
      keep(null);
      location.reload();
    });
    byId("sign-in-open").addEventListener("click", async () => {
      await this.ask("more", true);
      location.reload();
    });
  }

  /** Shows what the reader can do, by whether the server knows him: nothing where it judges nobody. */
  offer(signedIn) {
    byId("sign-out").hidden = token() === null;
    byId("sign-in-open").hidden = signedIn !== false || token() !== null;
  }

  /** Asks for a token until the server takes one, which is then kept; resolves to the topics that it shows.
   *  Where it is only `offered` the reader may do without. */
  ask(why, offered = false) {
    byId("sign-in").hidden = false;
    byId("sign-in-cancel").hidden = !offered;
    byId("sign-out").hidden = token() === null;
    this.#say(why);
    // Who is writing elsewhere goes on there.
    if ([document.body, byId("sign-in-open"), null].includes(document.activeElement)) byId("sign-in-token").focus();
    this.#asked ??= new Promise((resolve) => { this.#resolve = resolve; });
    return this.#asked;
  }

  #say(why) {
    const key = `signin.${why}`;
    say(byId("sign-in-why"), known(key) ? key : "signin.token_missing");
  }

  // A field that is left empty means: perhaps I am known by now, by a cookie.
  async #try() {
    const field = byId("sign-in-token");
    const written = field.value.trim();
    if (written && !SENDABLE.test(written)) {
      this.#say("token_invalid");
      return;
    }
    byId("sign-in-submit").disabled = true;
    const resolve = this.#resolve;
    try {
      const found = await fetchTopics(written || null);
      if (resolve !== this.#resolve) return; // He would rather not.
      if (found.refused) {
        this.#say(found.refused);
        field.select();
        return;
      }
      keep(written || null);
      this.#close();
      this.offer(found.signed_in);
      resolve(found);
    } catch {
      this.#say("unreachable");
    } finally {
      byId("sign-in-submit").disabled = false;
    }
  }

  #close() {
    byId("sign-in").hidden = true;
    byId("sign-in-token").value = "";
    this.#asked = this.#resolve = null;
  }
}

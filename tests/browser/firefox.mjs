// Debian's Firefox, driven over WebDriver BiDi by hand: playwright-core wants a Firefox of its own,
// and over BiDi commands that this one does not know.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { WebSocket } from "ws";
import { deadline, kill } from "./support.mjs";

/** A Firefox with one tab. */
export class Firefox {
  #commands = new Map();
  #next = 1;

  static async launch(executable) {
    const firefox = new Firefox();
    firefox.profile = await mkdtemp(path.join(tmpdir(), "rowcast-firefox-"));
    firefox.child = spawn(executable, ["--headless", "--no-remote", "--profile", firefox.profile, "--remote-debugging-port", "0"], { stdio: ["ignore", "ignore", "pipe"] });
    const address = await deadline("Firefox listens", new Promise((resolve) => {
      let said = "";
      firefox.child.stderr.on("data", (data) => {
        said += data;
        const found = /WebDriver BiDi listening on (ws:\/\/\S+)/.exec(said);
        if (found) resolve(found[1]);
      });
    }));
    firefox.socket = new WebSocket(`${address}/session`);
    await new Promise((resolve, reject) => {
      firefox.socket.on("open", resolve);
      firefox.socket.on("error", reject);
    });
    firefox.socket.on("message", (text) => {
      const { id, type, result, error, message } = JSON.parse(text);
      const command = firefox.#commands.get(id);
      firefox.#commands.delete(id);
      if (type === "error") command?.reject(new Error(`${error}: ${message}`));
      else command?.resolve(result);
    });
    firefox.version = (await firefox.#send("session.new", { capabilities: {} })).capabilities.browserVersion;
    ({ context: firefox.tab } = await firefox.#send("browsingContext.create", { type: "tab" }));
    return firefox;
  }

  #send(method, params) {
    const id = this.#next;
    this.#next += 1;
    return deadline(method, new Promise((resolve, reject) => {
      this.#commands.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ id, method, params }));
    }));
  }

  goto(url) {
    return this.#send("browsingContext.navigate", { context: this.tab, url, wait: "complete" });
  }

  /** Calls `fn` in the tab with one argument; both it and the result go as JSON. */
  async evaluate(fn, argument = null) {
    const answer = await this.#send("script.callFunction", {
      functionDeclaration: `async () => JSON.stringify(await (${fn})(${JSON.stringify(argument)})) ?? "null"`,
      target: { context: this.tab },
      awaitPromise: true,
    });
    if (answer.type === "exception") throw new Error(answer.exceptionDetails.text);
    return JSON.parse(answer.result.value);
  }

  async close() {
    this.socket?.close();
    await kill(this.child, "SIGKILL");
    await rm(this.profile, { recursive: true, force: true });
  }
}

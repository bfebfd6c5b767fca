// The production stack for the browser tests: PostgreSQL, NATS, a producer and gateways, each a
// process of its own on a free port. And a TCP proxy, to cut what a browser would keep.
//
//   ROWCAST_TEST_NATS_SERVER  nats-server; default one in tests/.cache, else on the PATH

import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { binary, DEADLINE_MS, deadline, kill } from "./support.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const cached = path.join(here, "../.cache/nats-server/nats-server");
const natsServer = process.env.ROWCAST_TEST_NATS_SERVER ?? (existsSync(cached) ? cached : "nats-server");

/** Kills what it is told of when this process ends, in whatever way: a child that reads a pipe. */
const watcher = (() => {
  let child = null;
  return {
    /** `kind`: `pid` to kill, `folder` to remove. */
    told(kind, what) {
      child ??= spawn("sh", ["-c", `
        trap '' INT TERM HUP
        pids= folders=
        while read -r kind what; do case $kind in pid) pids="$pids $what";; folder) folders="$folders $what";; esac; done
        [ -z "$pids" ] || kill -s KILL $pids 2>/dev/null
        for turn in 1 2 3 4 5; do rm -rf $folders 2>/dev/null && exit; sleep 0.1; done`], { stdio: ["pipe", "ignore", "ignore"] });
      child.unref();
      child.stdin.unref?.();
      child.stdin.write(`${kind} ${what}\n`);
    },
  };
})();

/** A port that is free now. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Looks until the condition gives something; fails at the deadline. */
export async function waitFor(what, condition, ms = DEADLINE_MS) {
  const late = Date.now() + ms;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > late) throw new Error(`timed out: ${what}`);
    await pause(20);
  }
}

const folder = async (name) => {
  const made = await mkdtemp(path.join(tmpdir(), `rowcast-${name}-`));
  watcher.told("folder", made);
  return made;
};

function run(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  child.log = "";
  child.stderr?.on("data", (data) => { child.log = (child.log + data).slice(-8000); });
  if (child.pid) watcher.told("pid", child.pid);
  return child;
}

/** A PostgreSQL of one's own, with logical decoding. Nothing of it outlives this process. */
export class Postgres {
  static async start() {
    const postgres = new Postgres();
    const versions = existsSync("/usr/lib/postgresql") ? readdirSync("/usr/lib/postgresql").sort((a, b) => b - a) : [];
    const found = versions.map((version) => `/usr/lib/postgresql/${version}/bin`).find((bin) => existsSync(`${bin}/initdb`));
    const bin = found ?? execFileSync("pg_config", ["--bindir"], { encoding: "utf8" }).trim();
    postgres.folder = await folder("pg");
    const data = path.join(postgres.folder, "data");
    // It does not run as root.
    const root = process.getuid() === 0;
    if (root) execFileSync("chown", ["postgres:", postgres.folder]);
    const as = (program, args) => (root
      ? ["setpriv", ["--reuid=postgres", "--regid=postgres", "--init-groups", path.join(bin, program), ...args]]
      : [path.join(bin, program), args]);
    const [initdb, its] = as("initdb", ["-D", data, "--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
    execFileSync(initdb, its, { cwd: postgres.folder, stdio: "ignore" });
    postgres.port = await freePort();
    const settings = { port: postgres.port, listen_addresses: "127.0.0.1", unix_socket_directories: "", wal_level: "logical", fsync: "off", dynamic_shared_memory_type: "mmap", lc_messages: "C" };
    postgres.url = `postgres://postgres@127.0.0.1:${postgres.port}/postgres?sslmode=disable`;
    const [server, options] = as("postgres", ["-D", data, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])]);
    postgres.child = run(server, options, { cwd: postgres.folder });
    await waitFor(`PostgreSQL is ready: ${postgres.child.log}`, async () =>
      (await readFile(path.join(data, "postmaster.pid"), "utf8").catch(() => "")).split("\n").some((line) => line.trim() === "ready"));
    return postgres;
  }

  /** `psql -c`: what it prints, without headings. */
  sql(text) {
    return execFileSync("psql", ["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", this.url, "-c", text], { encoding: "utf8" }).trim();
  }

  async remove() {
    await kill(this.child, "SIGQUIT");
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** A nats-server with JetStream. */
export class Nats {
  static async start() {
    const nats = new Nats();
    nats.folder = await folder("nats");
    const port = await freePort();
    nats.url = `nats://127.0.0.1:${port}`;
    const config = path.join(nats.folder, "nats.conf");
    await writeFile(config, `listen: "127.0.0.1:${port}"\njetstream { store_dir: "${nats.folder}/store" }\n`);
    nats.child = run(natsServer, ["-c", config]);
    await waitFor("nats-server is ready", () => nats.child.log.includes("Server is ready"));
    return nats;
  }

  async remove() {
    await kill(this.child, "SIGKILL");
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** `rowcast produce` or `rowcast serve` with a configuration, in a folder of its own. */
export class Rowcast {
  url = null;

  static async start(command, toml) {
    const rowcast = new Rowcast();
    rowcast.command = command;
    rowcast.folder = await folder(command);
    await writeFile(path.join(rowcast.folder, "rowcast.toml"), toml);
    await rowcast.start();
    return rowcast;
  }

  /** Starts it, on the port that it had before if it had one. */
  async start() {
    const listen = this.url ? new URL(this.url).host : "127.0.0.1:0";
    const child = this.child = run(path.resolve(binary), [this.command, "--listen", listen], { cwd: this.folder });
    const lines = createInterface({ input: child.stdout });
    this.url = await deadline(`rowcast ${this.command} listens`, new Promise((resolve, reject) => {
      lines.on("line", (line) => {
        const found = /listening on (http:\/\/\S+)/.exec(line);
        if (found) resolve(found[1]);
      });
      child.on("exit", (code) => reject(new Error(`rowcast ${this.command} ended with ${code}:\n${child.log}`)));
    }));
    await waitFor(`rowcast ${this.command} is ready`, async () => (await fetch(`${this.url}/readyz`).catch(() => null))?.ok);
  }

  kill() {
    return kill(this.child, "SIGKILL");
  }

  async remove() {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** PostgreSQL, NATS, one producer, two gateways. */
export class Stack {
  static async start(topics, sql) {
    const stack = new Stack();
    const [postgres, nats] = await Promise.all([Postgres.start(), Nats.start()]);
    Object.assign(stack, { postgres, nats });
    postgres.sql(sql);
    const toml = `[database]\nurl = "${postgres.url}"\nheartbeat_interval_ms = 500\n\n[bus]\nurl = "${nats.url}"\n\n${topics}`;
    stack.producer = await Rowcast.start("produce", toml);
    stack.gateways = await Promise.all([1, 2].map(() => Rowcast.start("serve", toml)));
    return stack;
  }

  async remove() {
    for (const part of [...this.gateways, this.producer, this.nats, this.postgres]) await part.remove();
  }
}

/** A port in front of another one, whose connections can be cut, and refused for a while. */
export class Proxy {
  open = true;
  #sockets = new Set();

  static async before(url) {
    const proxy = new Proxy();
    const target = new URL(url);
    proxy.server = net.createServer((near) => {
      if (!proxy.open) return near.destroy();
      const far = net.connect(target.port, target.hostname);
      for (const [one, other] of [[near, far], [far, near]]) {
        proxy.#sockets.add(one);
        one.on("error", () => {});
        one.on("close", () => {
          proxy.#sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
    await new Promise((resolve) => { proxy.server.listen(0, "127.0.0.1", resolve); });
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  cut() {
    this.open = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  async remove() {
    this.cut();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}

"""The servers: how each is started on core 0, and where it is reached."""

import contextlib
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time

import install

# By name, as the table shows them.
KNOWN = {
    "floor": "floor: one send per event and socket",
    "floor_batched": "floor: ring and batched send",
    "floor_long": "floor: ring and batched send, frames as long as Rowcast's",
    "floor_echo": "floor: fixed echo",
    "injected": "**Rowcast**, socket layer alone",
    "injected_types": "**Rowcast**, socket layer alone, sockets that name their topics",
    "injected_deflate": "**Rowcast**, socket layer alone, compressed",
    "rowcast": "**Rowcast**, `POST` → embedded bus → socket",
    "sqlite": "**Rowcast**, SQLite → socket",
    "jetstream": "**Rowcast**, NATS JetStream → socket",
    "nats": "nats-server's WebSocket",
    "nats_deflate": "nats-server's WebSocket, compressed",
    "nchan": "Nchan",
    "tutorial": "the tutorial, uvicorn and Redis",
    "tutorial_memory": "the tutorial, uvicorn and memory",
}

TOPICS = """
[server]
max_connections = 100000
[limits]
messages_per_second = 100000
messages_burst = 100000
[[topics]]
type = "bench"
[[topics]]
type = "note"
table = "note"
"""

# Bytes of `type`, `op`, `cursor` and `ts` around what the load publishes.
OWN_MEMBERS = 81

EVENT = '{"type":"bench","data":"{mark}"}'

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    database.execute("INSERT INTO note(text) VALUES (?)", (line.rstrip(),))
"""


class Running:
    """A server that runs: flags of `rowcast bench` that reach it, and its processes."""

    def __init__(self, url, publish=None, flags=(), pids=()):
        self.flags = [url, *flags]
        if publish:
            self.flags += ["--publish", publish]
        self.pids = list(pids)


class Place:
    """A folder, ports and processes of one server; all of it ends with it."""

    def __init__(self, tools):
        self.tools = tools
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=install.CACHE))
        self.processes = []

    def start(self, command, port, **environment):
        log = open(self.folder / f"log-{len(self.processes)}", "wb")
        pinned = ["taskset", "-c", "0", *map(str, command)]
        env = {**os.environ, **environment}
        process = subprocess.Popen(pinned, cwd=self.folder, stdout=log, stderr=log, env=env)
        self.processes.append(process)
        deadline = time.monotonic() + 30
        while not is_open(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {tail(log.name)}")
            time.sleep(0.05)
        return process.pid

    def end(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def running(tools, name):
    place = Place(tools)
    try:
        yield START[name](place)
    finally:
        place.end()


def is_open(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def tail(path):
    return pathlib.Path(path).read_text(errors="replace")[-500:]


def free_port():
    # Below the ports that connections take for themselves.
    for port in range(18100 + os.getpid() % 1000 * 8, 32000):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in TAKEN:
            TAKEN.add(port)
            return port
    raise RuntimeError("no port is free")


TAKEN = set()


def two_ports(program, *modes, path="/"):
    def start(place):
        sockets, publish = free_port(), free_port()
        command = [place.tools[program], *modes, f"127.0.0.1:{sockets}", f"127.0.0.1:{publish}"]
        pid = place.start(command, publish)
        return Running(f"ws://127.0.0.1:{sockets}{path}", f"tcp://127.0.0.1:{publish}", pids=[pid])

    return start


def lengthened(start):
    """With the bytes that Rowcast's own members add to an event."""

    def started(place):
        server = start(place)
        server.flags += ["--size", str(200 + OWN_MEMBERS)]
        return server

    return started


def deflated(start):
    def started(place):
        server = start(place)
        server.flags += ["--deflate"]
        return server

    return started


def configured(place):
    """A database with a table of notes, and one of patients to ask for."""
    database = sqlite3.connect(place.folder / "rowcast.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    database.execute("INSERT INTO note VALUES (1, 'the first')")
    database.commit()
    database.close()
    (place.folder / "rowcast.toml").write_text(TOPICS)


def gateway(place, *flags):
    configured(place)
    port = free_port()
    pid = place.start([place.tools["rowcast"], "--listen", f"127.0.0.1:{port}", *flags], port)
    until_ready(port)
    return port, pid


def until_ready(port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.create_connection(("127.0.0.1", port)) as asked:
            asked.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if b" 200 " in asked.recv(4096).split(b"\r\n")[0]:
                return
        time.sleep(0.05)
    raise RuntimeError("the gateway does not get ready")


def rowcast(place):
    port, pid = gateway(place)
    at = f"127.0.0.1:{port}"
    publish = f"http://{at}/api/events"
    return Running(f"ws://{at}/socket/all/", publish, ["--publishers", "8"], [pid])


def sqlite(place):
    port, pid = gateway(place)
    writer = place.folder / "writer.py"
    writer.write_text(WRITER)
    command = f"exec python3 {writer} {place.folder}/rowcast.db"
    return Running(f"ws://127.0.0.1:{port}/socket/all/", f"exec:{command}", pids=[pid])


def jetstream(place):
    bus, nats = nats_server(place, "jetstream { store_dir: store }")
    url = f"nats://127.0.0.1:{bus}"
    configured(place)
    produce = free_port()
    command = [place.tools["rowcast"], "produce", "--bus", url, "--listen", f"127.0.0.1:{produce}"]
    producer = place.start(command, produce)
    until_ready(produce)
    port = free_port()
    command = [place.tools["rowcast"], "--bus", url, "--listen", f"127.0.0.1:{port}"]
    pid = place.start(command, port)
    until_ready(port)
    flags = ["--body", EVENT]
    publish = f"{url}/rowcast.event.bench"
    return Running(f"ws://127.0.0.1:{port}/socket/all/", publish, flags, [pid, producer, nats])


def nats_server(place, more):
    port = free_port()
    config = place.folder / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\n{more}\n')
    return port, place.start([place.tools["nats"], "-c", config], port)


def nats(place, compression="false"):
    sockets = free_port()
    websocket = f'websocket {{ listen: "127.0.0.1:{sockets}", no_tls: true, compression: {compression} }}'
    port, pid = nats_server(place, websocket)
    publish = f"nats://127.0.0.1:{port}/bench"
    return Running(f"ws://127.0.0.1:{sockets}/", publish, ["--speak", "nats"], [pid])


def nchan(place):
    port = free_port()
    config = place.folder / "nginx.conf"
    config.write_text(
        f"""load_module {place.tools["nchan_module"]};
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; nchan_shared_memory_size 256M; keepalive_requests 100000000;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location = /pub {{ nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 1000; }}
    location = /sub {{ nchan_subscriber websocket; nchan_channel_id all; nchan_subscriber_first_message newest; }}
  }}
}}
"""
    )
    pid = place.start(["nginx", "-p", f"{place.folder}/", "-c", config], port)
    flags = ["--publishers", "8"]
    return Running(f"ws://127.0.0.1:{port}/sub", f"http://127.0.0.1:{port}/pub", flags, [pid])


def tutorial(place, redis=True):
    pids, store = [], 0
    if redis:
        store = free_port()
        command = ["redis-server", "--port", store, "--bind", "127.0.0.1", "--save", ""]
        pids.append(place.start(command, store))
    port = free_port()
    command = [place.tools["python"], "-m", "uvicorn", "study_websocket.asgi:application"]
    command += ["--app-dir", install.HERE / "tutorial", "--port", port, "--log-level", "warning"]
    command += ["--ws-ping-interval", "300", "--ws-ping-timeout", "300"]
    pids.append(place.start(command, port, REDIS_PORT=str(store), PYTHONDONTWRITEBYTECODE="1"))
    at = f"127.0.0.1:{port}"
    publish = f"http://{at}/chat/update/info/"
    return Running(f"ws://{at}/socket/all/", publish, ["--publishers", "4"], pids)


START = {
    "floor": two_ports("floor", "plain"),
    "floor_batched": two_ports("floor", "batched"),
    "floor_long": lengthened(two_ports("floor", "batched")),
    "floor_echo": two_ports("floor", "echo"),
    "injected": two_ports("injected", path="/socket/all/"),
    "injected_types": two_ports("injected", path="/socket/all/?types=bench"),
    "injected_deflate": deflated(two_ports("injected", path="/socket/all/")),
    "rowcast": rowcast,
    "sqlite": sqlite,
    "jetstream": jetstream,
    "nats": nats,
    "nats_deflate": deflated(lambda place: nats(place, "true")),
    "nchan": nchan,
    "tutorial": tutorial,
    "tutorial_memory": lambda place: tutorial(place, redis=False),
}

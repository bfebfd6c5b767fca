"""`./tests/run --compose`: the whole stack of compose.yaml, in real containers.

Builds it, starts it, writes numbered rows in the database's container and sees each of them come
out of a WebSocket on the published port, once and in order, while every container in turn is
killed. Debian's docker.io, docker-compose, iptables and debootstrap are needed; see daemon.py and
images.py for what is done where no image registry is reached. The first run takes a quarter of an
hour, most of it for the release build in its container; ROWCAST_COMPOSE_BINARY=PATH puts a binary
that was built on Debian 12 into the image instead."""

import functools
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import time

import images
from browser import Browser
from daemon import Daemon

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICES = ["postgres", "nats", "producer-1", "producer-2", "gateway-1", "gateway-2", "front"]
SECONDS = 120
PASSWORDS = ["POSTGRES_PASSWORD", "ROWCAST_PRODUCER_PASSWORD", "ROWCAST_GATEWAY_PASSWORD"]
PASSWORDS += ["NATS_PRODUCER_PASSWORD", "NATS_GATEWAY_PASSWORD", "NATS_APPLICATION_PASSWORD"]
PASSWORDS += ["NATS_OPERATOR_PASSWORD"]


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update({name: "p" + secrets.token_hex(8) for name in PASSWORDS})
    os.environ.update(ROWCAST_PORT=str(port), ROWCAST_ADDRESS="127.0.0.1", DOCKER_BUILDKIT="0")
    with Daemon() as daemon:
        if daemon.own:
            images.prepare()
        stack = Stack()
        try:
            binary = os.environ.get("ROWCAST_COMPOSE_BINARY")
            if binary:
                images.rowcast(ROOT, pathlib.Path(binary))
            else:
                stack.compose("build")
            stack.compose("up", "--detach", "--no-build")
            stack.healthy("the start")
            try_it(stack, Browser(port))
        except BaseException:
            stack.compose("ps", check=False)
            stack.compose("logs", "--tail=60", check=False)
            raise
        finally:
            stack.compose("down", "--volumes", "--timeout", "20", check=False)


def try_it(stack, browser):
    browser.start()
    wait("a first reply", lambda: browser.cursor)
    rows = 0
    for service in [None, *SERVICES]:
        if service:
            stack.kill(service)
        if service == "postgres":
            stack.healthy("PostgreSQL", ["postgres"])
        rows += 1
        stack.write(rows)
        wait(f"row {rows}, with {service} killed", lambda: rows in browser.seen)
        print(f"row {rows} arrived" + (f", with {service} killed" if service else ""), flush=True)
        stack.healthy(f"{service} to be back")
    if browser.seen != list(range(1, rows + 1)) or browser.resets:
        raise SystemExit(f"seen {browser.seen}, resets {browser.resets}")
    print(
        f"{len(SERVICES)} containers killed, {rows} rows written, each seen once and in order "
        f"on {browser.opened} sockets; 0 resets"
    )


class Stack:
    """The project of compose.yaml, under a name of the test's own."""

    def compose(self, *arguments, check=True):
        print(f"docker-compose {' '.join(arguments)}", flush=True)
        command = ["docker-compose", "--project-name", "rowcast-test", *arguments]
        subprocess.run(command, cwd=ROOT, check=check, stdin=subprocess.DEVNULL)

    @functools.cache
    def container(self, service):
        """A container's id, which it keeps when it starts again."""
        command = ["docker-compose", "--project-name", "rowcast-test", "ps", "--quiet", service]
        return output(command, cwd=ROOT)

    def inspect(self, service, what):
        return output(["docker", "inspect", "--format", what, self.container(service)])

    def healthy(self, what, services=SERVICES):
        for service in services:
            state = "{{.State.Running}} {{.State.Health.Status}}"
            wait(f"{what}: {service}", lambda: self.inspect(service, state) == "true healthy")

    def kill(self, service):
        """Ends a container's process as a crash does. `docker kill` would be an order to stay down."""
        began = self.inspect(service, "{{.State.StartedAt}}")
        os.kill(int(self.inspect(service, "{{.State.Pid}}")), signal.SIGKILL)
        again = lambda: self.inspect(service, "{{.State.Running}} {{.State.StartedAt}}")
        # Until then its health would be the dead one's.
        wait(f"the restart of {service}", lambda: again() not in (f"true {began}", f"false {began}"))

    def write(self, age):
        statement = f"update patient set age = {age} where id = 1"
        psql = ["psql", "-qU", "care", "-c", statement]
        output(["docker", "exec", self.container("postgres"), *psql])


def output(command, **options):
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)
    return done.stdout.strip()


def wait(what, ask):
    deadline = time.monotonic() + SECONDS
    while not ask():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()

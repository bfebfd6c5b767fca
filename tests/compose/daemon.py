"""A Docker daemon of the test's own: its own socket, its own images, gone when the test is.

Two daemons on one machine would share the bridge and the firewall's chains, so none is started
beside another. ROWCAST_COMPOSE_DAEMON=running uses the one that runs, with the official images."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

CACHE = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "docker"
START_SECONDS = 60


class Daemon:
    """`with Daemon():` sets DOCKER_HOST for everything that is run inside."""

    def __init__(self):
        self.own = os.environ.get("ROWCAST_COMPOSE_DAEMON") != "running"
        self.process = None
        self.folder = None

    def __enter__(self):
        if not self.own:
            return self
        if alive():
            raise SystemExit(
                "A Docker daemon runs here already; the test starts none beside it. Stop it, or let "
                "the test use it with the official images: ROWCAST_COMPOSE_DAEMON=running"
            )
        if os.geteuid() != 0:
            raise SystemExit("A Docker daemon is started by root only: sudo ./tests/run --compose")
        # A socket's path has to be short.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rowcast-docker-"))
        CACHE.mkdir(parents=True, exist_ok=True)
        os.environ["DOCKER_HOST"] = f"unix://{self.folder}/docker.sock"
        for driver in ("overlay2", "vfs"):
            if self.start(driver):
                return self
        self.__exit__()
        raise SystemExit(f"dockerd does not start:\n{self.said[-3000:]}")

    def start(self, driver):
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            ["dockerd", "--host", os.environ["DOCKER_HOST"], "--data-root", str(CACHE)]
            + ["--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid")]
            + ["--storage-driver", driver],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if alive():
                print(f"dockerd runs with the storage driver {driver}", flush=True)
                return True
            time.sleep(0.2)
        self.said = (self.folder / "log").read_text(errors="replace")
        self.stop()
        return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __exit__(self, *_):
        self.stop()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def alive():
    """Whether a daemon answers."""
    asked = subprocess.run(["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The client ends well when there is no server; only this tells.
    version = ["docker", "version", "--format", "{{.Server.Version}}"]
    return asked.returncode == 0 and subprocess.run(version, capture_output=True).returncode == 0

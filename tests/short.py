"""What failed in a log of `cargo test` or `node --test`, in short: for each test its whole message and the last
lines of the logs that it has printed, and at the end the names of all that failed. Used by tests/run, for where
only the end of the output is kept.

    tests/short.py LOG
"""

import re
import sys

# Lines of each message, and of each log; characters of each line.
LINES = 40
WIDTH = 1000

# Tests of which more is told than their names: more than that fail for one reason.
TESTS = 10


def cut(lines):
    """The first of some lines, and whether there are more."""
    told = lines[:LINES]
    if len(lines) > LINES:
        told.append(f"… and {len(lines) - LINES} lines more")
    return told


def sections(lines):
    """The output of each test that failed, by its name, as cargo prints it at the end."""
    found, name = {}, None
    for line in lines:
        begun = re.fullmatch(r"---- (.+) stdout ----", line)
        if begun:
            name = begun[1]
            found[name] = []
        elif line == "failures:" or line.startswith("test result: "):
            name = None
        elif name:
            found[name].append(line)
    return found


def messages(lines):
    """Every message of a panic among some lines, each whole, and the end of every log."""
    told, message, log = [], None, None
    for line in [*lines, "---"]:
        if log is not None:
            if line == "---":
                told += [*log[:1], *([f"… {len(log) - 1 - LINES} lines"] if len(log) > LINES + 1 else []), *log[1:][-LINES:]]
                log = None
            else:
                log.append(line)
            continue
        begins = re.match(r"thread .+ panicked at ", line)
        if message is not None and (begins or line.startswith(("note: ", "--- ")) or line == "---"):
            while message and not message[-1].strip():
                message.pop()
            told += cut(message)
            message = None
        if begins:
            message = [line]
        elif line.startswith("--- "):
            log = [line]
        elif message is not None:
            message.append(line)
    return told


def of_node(lines):
    """What `node --test` says of each test that failed, and is not just what holds it."""
    told, names = [], []
    for at, line in enumerate(lines):
        if not re.match(r"\s*not ok ", line):
            continue
        end = next((end for end in range(at, len(lines)) if lines[end].strip() == "..."), at)
        block = lines[at : end + 1]
        if any("failureType: 'subtestsFailed'" in line for line in block):
            continue
        names.append(line.strip())
        if len(names) <= TESTS:
            told += ["", *cut(block)]
    return told, names


def short(text):
    """All of that."""
    lines = [line[:WIDTH] for line in text.splitlines()]
    told = []
    failed = sections(lines)
    for name in list(failed)[:TESTS]:
        told += ["", f"-- {name}", *messages(failed[name])]
    if not failed:
        # A test that runs without its output being kept, or one that never ended.
        told += messages(lines)
        errors = [at for at, line in enumerate(lines) if re.match(r"error(\[E\d+\])?: ", line)]
        for at in errors[:TESTS]:
            told += ["", *lines[at : at + 12]]
    more, names = of_node(lines)
    told += more
    names += [line for line in lines if re.match(r"test .+ FAILED$", line)]
    return "\n".join([*told, "", *names])


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", errors="replace") as log:
        print(short(log.read()))

"""The rows of the table: what load, against whom, and what is to be reached."""

import statistics


class Goal:
    """A figure of one server, by itself or as a multiple of another one's in the same round."""

    def __init__(self, text, column, of, to=None, at_least=None, at_most=None):
        self.text, self.column, self.of, self.to = text, column, of, to
        self.at_least, self.at_most = at_least, at_most

    def measured(self, results):
        mine = [figures.get(self.column) for figures in results.get(self.of, [])]
        if self.to is None:
            values = [value for value in mine if value is not None]
        else:
            theirs = [figures.get(self.column) for figures in results.get(self.to, [])]
            values = [a / b for a, b in zip(mine, theirs) if a is not None and b]
        return statistics.median(values) if values else None

    def reached(self, value):
        return value >= self.at_least if self.at_least is not None else value <= self.at_most

    def wanted(self):
        sign, value = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {value:,}{' ×' if self.to else ''}"

    def shown(self, value):
        return "–" if value is None else f"{value:,.2f}{' ×' if self.to else ''}"


class Row:
    """A load. `flags` are those of `rowcast bench`, for the server of that name."""

    def __init__(self, name, title, names, columns, flags, goals, more=None):
        self.name, self.title, self.servers = name, title, names
        self.columns, self.flags, self.goals = columns, flags, goals
        self.more = more or (lambda reports: {})

    def runs(self, name, quick):
        runs = self.flags(name)
        runs = runs if isinstance(runs[0], list) else [runs]
        return [shortened(run) for run in runs] if quick else runs


def shortened(run):
    at = run.index("--seconds") + 1 if "--seconds" in run else None
    return run if at is None else [*run[:at], 1, *run[at + 1 :]]


CPU = "per CPU second"
LATENCY = ["p50 ms", "p99 ms"]


def load(*flags, sockets=1000, seconds=3):
    def of(name):
        # The tutorial makes some events a second: it gets the time to show that.
        longer = 8 if name.startswith("tutorial") else seconds
        return ["-n", sockets, *flags, "--seconds", longer]

    return of


def ratio(name, to, factor, text=None, column=CPU):
    return Goal(text or f"{name} to {to}", column, name, to, at_least=factor)


def rows(open_files):
    """All of them; idle sockets as many as one process may open, 10,000 at the most."""
    many = min(10_000, open_files - 500)
    return [*bursts(), *paced(), *cost(many), *rest()]


def bursts():
    paths = ["rowcast", "sqlite", "jetstream"]
    all_servers = ["floor", "floor_batched", "injected", *paths, "nats", "nchan"]
    one = [
        ratio("injected", "floor", 0.85),
        ratio("injected", "nats", 1.9),
        ratio("injected", "nchan", 1.2),
        ratio("injected", "tutorial", 50),
    ]
    many = [
        ratio("injected", "floor_batched", 0.9),
        ratio("injected_types", "floor_batched", 0.9),
        ratio("injected", "floor_long", 0.9, "injected to floor with frames as long"),
        ratio("injected", "nats", 3.75),
        ratio("injected", "nchan", 30),
    ]
    columns = [CPU, "per second", *LATENCY, "out of order"]
    joined = ["floor", "floor_batched", "floor_long", "injected", "injected_types", *all_servers[3:]]
    five = ["floor_batched", "injected", "nats"]
    return [
        Row("one", "one event at a time", [*all_servers, "tutorial"], columns, load("--window", 1), one),
        Row("burst", "bursts of 64", joined, columns, load("--window", 64), many),
        Row(
            "crowd",
            "5000 sockets, bursts of 64",
            five,
            columns,
            load("--window", 64, sockets=5000),
            [ratio("injected", "nats", 10)],
        ),
    ]


def paced():
    names = ["floor_batched", "injected", "rowcast", "sqlite", "jetstream", "nats", "nchan"]
    slow = [Goal(f"injected to floor_batched, {key}", key, "injected", "floor_batched", at_most=1.4) for key in LATENCY]
    fast = [Goal("injected, p99 in ms", "p99 ms", "injected", at_most=25)]
    return [
        Row("paced", "20 events/s", names, [*LATENCY, CPU], load("--rate", 20, seconds=4), slow),
        Row(
            "flood",
            "2,000 events/s: 2 M deliveries/s",
            ["floor_batched", "floor_long", "injected", "nats"],
            [*LATENCY, "per second", CPU],
            load("--rate", 2000, seconds=3),
            fast,
        ),
    ]


def cost(many):
    names = ["floor_batched", "injected", "rowcast", "nats", "nchan"]
    idle = [
        Goal("rowcast, bytes", "bytes", "rowcast", at_most=4096),
        Goal("injected, bytes", "bytes", "injected", at_most=4096),
        Goal("rowcast, µs of CPU a second", "µs a second", "rowcast", at_most=2),
        ratio("injected", "floor_batched", 0.8, "handshakes, injected to floor", "handshakes"),
        ratio("injected", "nats", 5, "handshakes, injected to nats", "handshakes"),
    ]
    columns = ["bytes", "µs a second", "handshakes"]

    def open_only(_):
        return [["-n", many, "--idle", 4, "--events", 0]]

    def stalled(_):
        # Twice what the ring holds, so that those who do not read fall out of it.
        paced = ["--rate", 1000, "--size", 8192, "--seconds", 16]
        return [["-n", 90, *paced], ["-n", 90, "--stalled", 10, *paced]]

    def against(reports):
        without, with_them = (report["latency_ms"]["p99"] for report in reports)
        return {"p99 ratio": with_them / without, "p99 without": without}

    healthy = [
        Goal("injected, p99 with to p99 without", "p99 ratio", "injected", at_most=1.3),
        Goal("injected, MiB grown; the ring has 64", "MiB grown", "injected", at_most=64),
    ]
    stall_columns = ["p99 without", "p99 ms", "p99 ratio", "MiB grown"]
    return [
        Row("idle", f"{many:,} idle sockets", names, columns, open_only, idle),
        Row("stalled", "10 of 100 never read", ["floor_batched", "injected", "rowcast", "nats"], stall_columns, stalled, healthy, against),
    ]


def rest():
    compressed = ["injected", "injected_deflate", "nats_deflate"]
    own = [
        ratio("injected_deflate", "injected", 0.85),
        ratio("injected_deflate", "nats_deflate", 4),
    ]
    columns = [CPU, "bytes each", *LATENCY]

    def queries(name):
        asked = '{"type":"note","id":1,"rid":"{mark}"}'
        if name.startswith("tutorial"):
            asked = '{"type":"all_patient_page_data"}'
        return ["-n", 0, "--queries", 100, "--query", asked, "--seconds", 4]

    posts = ["-n", 50, "--rate", 600, "--events", 300, "--publishers", 300, "--seconds", 5]
    nothing = [Goal("rowcast, lost", "lost", "rowcast", at_most=0)]
    return [
        Row("deflate", "1 KiB, one at a time", compressed, columns, load("--window", 1, "--size", 1024), own),
        Row("deflate64", "1 KiB, bursts of 64", compressed, columns, load("--window", 64, "--size", 1024), []),
        Row(
            "queries",
            "queries on 100 sockets",
            ["floor_echo", "rowcast", "tutorial"],
            [CPU, "per second", *LATENCY],
            queries,
            [ratio("rowcast", "tutorial", 15)],
        ),
        Row(
            "posts",
            "300 parallel POSTs to 50 sockets",
            ["rowcast", "tutorial_memory", "tutorial"],
            ["lost %", *LATENCY],
            lambda _: posts,
            nothing,
        ),
    ]

"""One row against one server: runs of `rowcast bench` on core 1, and the figures of their reports."""

import json
import subprocess

import servers


def row(tools, asked, name, quick):
    """The figures that the row's columns name, and what was lost."""
    with servers.running(tools, name) as server:
        reports = [bench(tools, server, flags) for flags in asked.runs(name, quick)]
        # What was sent as it is must not pass for compressed.
        if "--deflate" in server.flags and not all(report["deflate"] for report in reports):
            raise RuntimeError("the server declines compression")
    return {**figures(reports[-1]), **asked.more(reports)}


def bench(tools, server, flags):
    command = ["taskset", "-c", "1", tools["rowcast"], "bench", *server.flags, *map(str, flags)]
    command += ["--json", "--server-pid", ",".join(map(str, server.pids))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if not done.stdout.startswith("{"):
        raise RuntimeError(f"{' '.join(map(str, flags))}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def figures(report):
    found = {}
    if events := report["events"]:
        deliveries = events["deliveries"]
        found["per CPU second"] = deliveries["per_cpu_second"]
        found["per second"] = deliveries["per_second"]
        found["bytes each"] = report["bytes"] / max(deliveries["count"], 1)
        # A share of the events that the server took.
        found["lost"] = events["lost"]
        found["lost %"] = 100 * events["lost"] / max(events["expected"], 1)
        found["out of order"] = events["reordered"]
    if queries := report["queries"]:
        found["per CPU second"] = queries["per_cpu_second"]
        found["per second"] = queries["per_second"]
    if latency := report["latency_ms"]:
        found["p50 ms"], found["p99 ms"] = latency["p50"], latency["p99"]
    if idle := report["idle"]:
        found["bytes"] = idle["rss_per_socket"]
        found["µs a second"] = idle["cpu_us_per_socket_second"]
        found["handshakes"] = report["opening"]["per_cpu_second"]
    rss = report["rss"]
    if rss["peak"] and rss["open"]:
        found["MiB grown"] = (rss["peak"] - rss["open"]) / 2**20
    return found

#!/usr/bin/env python3
"""What a durable append costs, side by side with what it could cost at least and what people do today.

    bench/append.py

Builds the static binary of the image, the ceiling and the disk's floor (examples/); loads them and nginx on loopback, every
server once a round; and writes docs/PERFORMANCE.md and its plot. Takes about a quarter of an hour, and a quiet machine.
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import goals
import measures
import plot
import report
import rows
import servers

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = [1 << 10, 16 << 10, 256 << 10, 4 << 20, 32 << 20, 127 << 20]
CLIENTS = [1, 4, 16, 64, 256, 1024]
EVENTS = [0, 1_000_000, 10_000_000]
DISKLESS = {"tmpfs", "ramfs"}


def say(text):
    """Tells how far it is."""
    print(f"# {text}", file=sys.stderr, flush=True)


def tools():
    """Where nginx is. wrk and nginx's module must be there as well."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    missing = [name for name, there in (("wrk", shutil.which("wrk")), ("nginx", nginx),
               ("nginx's module echo", os.path.exists(servers.ECHO_MODULE))) if not there]  # fmt: skip
    if missing:
        raise SystemExit(f"missing: {', '.join(missing)}; apt-get install --no-install-recommends wrk nginx-light")
    return nginx


def build(folder):
    """Builds the static binary and the examples, and returns where they are."""
    binary = f"{folder}/audit-log"
    subprocess.run([ROOT / "ci/build-static", binary], check=True)
    subprocess.run(["cargo", "build", "--release", "--locked", "--examples"], cwd=ROOT, check=True)
    return binary, pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release/examples")


def file_system(folder):
    """The type of the file system that a folder is on."""
    done = subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, stdout=subprocess.PIPE, text=True)
    kind = done.stdout.strip()
    return "ext4" if kind == "ext2/ext3" else kind


def idle_percent(seconds):
    """How idle the machine is. What others do on it makes figures noisy."""

    def times():
        numbers = [int(number) for number in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(numbers), numbers[3]

    all_before, idle_before = times()
    time.sleep(seconds)
    all_after, idle_after = times()
    return 100 * (idle_after - idle_before) // (all_after - all_before)


def machine(folder, nginx):
    """What the figures depend on."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ", 1)[1] for line in cpuinfo if line.startswith("model name")]
    version = subprocess.run([nginx, "-v"], stderr=subprocess.PIPE, text=True, check=True).stderr.split("/")[-1].strip()
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "nginx": version,
        "idle_percent": idle_percent(2),
    }


def compare(a, kinds, floor, group, folder, results):
    """The rounds: every server once at each number of connections, once under the quota, and the disk."""
    one = pathlib.Path(folder, "event.json")
    one.write_bytes(servers.body())
    many = pathlib.Path(folder, "batch.ndjson")
    many.write_bytes((servers.body() + b"\n") * measures.BATCH_LINES)
    ours = kinds[0]
    for number in range(a.rounds):
        say(f"round {number + 1} of {a.rounds}")
        for connections in a.connections:
            if connections == 1:
                results["floors"] += [measures.disk_floor(floor, folder, 500 * a.seconds, lines * 230) for lines in (1, 64)]
            for kind in kinds:
                row = measures.load(kind, folder, connections, a.seconds, one)
                results["load"].append(row)
                say(f"{kind.name}, {connections} connections: {row['answers_per_second']:,.0f}/s, p50 {row['p50']:.0f} µs, "
                    f"p99 {row['p99']:.0f} µs, {row['cpu_us']:.1f} µs of CPU a request")  # fmt: skip
        for kind in kinds if group else []:
            row = measures.quota(kind, folder, 64, a.seconds, one, group)
            results["quota"].append(row)
            say(f"{kind.name}, 0.1 CPU: {row['answers_per_second']:,.0f}/s, {row['answers_per_cpu_second']:,.0f} a CPU second")
        for connections in (1, 4):
            row = measures.batches(ours, folder, connections, a.seconds, many)
            results["batches"].append(row)
            say(f"batches, {connections} connections: {row['lines_per_second']:,.0f} lines/s")
            size = row["batch_bytes"] * connections
            row = measures.disk_floor(floor, folder, 100 * a.seconds // connections, size)
            results["batch_floors"].append(row | {"lines": connections * measures.BATCH_LINES})
        results["kills"] += [measures.kill(kind, folder, 64, 1) for kind in kinds if kind.writes]


def start(a, kinds, folder, results):
    """Starts, taking turns."""
    ours, ceiling = kinds[:2]
    for _ in range(a.starts):
        for name, kind, path in ((ours.name, ours, None), (f"{ours.name}, GET /healthz", ours, "/healthz"),
                                 (ceiling.name, ceiling, None)):  # fmt: skip
            results["starts"].setdefault(name, []).append(measures.start(kind, folder, path))


def grow(a, ours, folder, results):
    """Whether the cost of a line grows with the segment, the connections, the events before."""
    one = pathlib.Path(folder, "event.json")
    say("growth by size")
    growth = {"sizes": measures.growth_by_size(ours, folder, a.sizes, a.lines, a.passes)}
    say("growth by connections")
    growth["connections"] = measures.growth_by_connections(ours, folder, a.clients, a.seconds, a.passes, one)
    say("growth by events")
    growth["events"] = measures.growth_by_events(ours, folder, a.events, 64, a.seconds, a.passes, one)
    results["growth"] = growth


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of each load")
    parser.add_argument("--data", help="a folder on the disk to be measured; else this repository's `target`")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/PERFORMANCE.md", help="the plot goes beside it")
    parser.add_argument("--json", type=pathlib.Path, help="keeps every single result")
    parser.add_argument("--binary", help="measures this binary and does not build; wants --examples")
    parser.add_argument("--examples", type=pathlib.Path, help="the folder of the examples that were built")
    parser.add_argument("--quick", action="store_true", help="everything once and short, to see that it works")
    a = parser.parse_args()
    if (a.binary is None) != (a.examples is None):
        parser.error("--binary and --examples go together")
    if min(a.rounds, a.seconds) < 1:
        parser.error("--rounds and --seconds are at least 1")
    for file in filter(None, (a.page, a.binary, a.examples and a.examples / "ceiling", a.examples and a.examples / "disk_floor")):
        if not os.path.isfile(file):
            parser.error(f"there is no file `{file}`")
    a.connections, a.starts, a.passes = [1, 16, 64, 256], 20, 5
    a.sizes, a.lines, a.clients, a.events = SIZES, 300, CLIENTS, EVENTS
    if a.quick:
        a.connections, a.starts, a.rounds, a.seconds, a.passes = [1, 64, 256], 2, 1, 1, 1
        a.sizes, a.lines, a.clients, a.events = SIZES[:3], 20, [1, 1024], [0, 10_000]
    return a


def main():
    """Measures, and writes the page."""
    a = arguments()
    nginx = tools()
    before, after = report.split(a.page.read_text())
    # A thousand connections are a thousand files, of wrk's as of the server's.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parent = a.data or ROOT / "target"
    os.makedirs(parent, exist_ok=True)
    if file_system(parent) in DISKLESS and not a.quick:
        raise SystemExit(f"`{parent}` is in memory: name a folder on a disk by --data")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder:
        binary, examples = (a.binary, a.examples) if a.binary else build(folder)
        kinds = [
            servers.AuditLog(rows.OURS, binary),
            servers.Ceiling(rows.CEILING, str(examples / "ceiling"), writes=False),
            servers.Nginx("nginx", nginx),
            servers.Nginx("nginx with echo", nginx, read=servers.ECHOED, load=f"load_module {servers.ECHO_MODULE};"),
        ]
        results = {
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "machine": machine(folder, nginx),
            "rounds": a.rounds,
            "seconds": a.seconds,
            "connections": a.connections,
            "servers": [kind.name for kind in kinds],
            "binary_bytes": os.path.getsize(binary),
            "load": [], "floors": [], "quota": [], "batches": [], "batch_floors": [], "kills": [], "starts": {},
        }  # fmt: skip
        with measures.tenth_of_a_core() as group:
            if group is None:
                say("no control group can be made here (as root, cgroup v1 or v2): nothing is measured under a quota")
            compare(a, kinds, str(examples / "disk_floor"), group, folder, results)
        start(a, kinds, folder, results)
        grow(a, kinds[0], folder, results)
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))
    a.page.write_text(f"{before}\n{report.section(results)}{after}")
    a.page.with_name("performance.svg").write_text(plot.plot(results))
    for figure, goal, measured, met in goals.goals(results):
        print(f"{'met' if met else 'MISSED' if met is False else '-':8}{figure}: {measured} ({goal})")


if __name__ == "__main__":
    main()

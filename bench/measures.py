"""What is measured: one function a measure, each on a server that it starts itself. All of them load loopback only."""
import collections
import contextlib
import json
import os
import pathlib
import selectors
import statistics
import subprocess
import time

import servers

BATCH_LINES = 1000
HERE = pathlib.Path(__file__).parent


def wrk(running, connections, seconds, body_file, kind="application/json"):
    """Loads a server with as many requests as it answers, and returns wrk's summary."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency",
               "-s", str(HERE / "append.lua"), running.url]  # fmt: skip
    environment = dict(os.environ, BENCH_BODY=str(body_file), BENCH_TYPE=kind)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise SystemExit(f"wrk has no result for {running.server.name}:\n{done.stdout}")


def load_running(running, connections, seconds, body_file):
    """Answers a second, latency, CPU time and memory of a server under load, and whether each answer left its line."""
    # nginx answers first and writes its line then: the first answer's is waited for.
    before = settled(running, 1) if running.server.writes else 0
    idle_kib, cpu = running.memory_kib("VmRSS"), running.cpu_seconds()
    result = wrk(running, connections, seconds, body_file)
    cpu = running.cpu_seconds() - cpu
    answers = result["requests"] - result["refused"]
    result |= {
        "server": running.server.name,
        "connections": connections,
        "answers": answers,
        "answers_per_second": answers / result["seconds"],
        "answers_per_cpu_second": answers / cpu,
        "cpu_us": cpu * 1e6 / result["requests"],
        "idle_kib": idle_kib,
        "peak_kib": running.memory_kib("VmHWM"),
    }
    if running.server.writes:
        # wrk drops what is under way when its time is up: those lines come, their answers are not counted.
        result["lines"] = settled(running, before + answers) - before
        result["lines_match"] = 0 <= result["lines"] - answers <= connections
    return result


def settled(running, lines, seconds=3):
    """The lines on disk, once there are as many as expected or the time is up."""
    end = time.monotonic() + seconds
    while (found := running.lines()) < lines and time.monotonic() < end:
        time.sleep(0.05)
    return found


def load(server, data, connections, seconds, body_file):
    """As `load_running`, on a fresh server."""
    with servers.Running(server, data) as running:
        return load_running(running, connections, seconds, body_file)


def quota(server, data, connections, seconds, body_file, group):
    """As `load`, with the server held to the CPU time of a control group."""
    with servers.Running(server, data) as running:
        for pid in running.pids:
            (group / "cgroup.procs").write_text(str(pid))
        return load_running(running, connections, seconds, body_file)


@contextlib.contextmanager
def tenth_of_a_core():
    """A control group whose processes get 10 ms of CPU time in each 100 ms. None where none can be made."""
    root = pathlib.Path("/sys/fs/cgroup")
    controllers = root / "cgroup.controllers"
    try:
        if controllers.exists() and "cpu" in controllers.read_text().split():
            (root / "cgroup.subtree_control").write_text("+cpu")
            limits = {"cpu.max": "10000 100000"}
        else:
            root /= "cpu"
            limits = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000"}
        group = root / f"audit-log-bench-{os.getpid()}"
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        for name, value in limits.items():
            (group / name).write_text(value)
        yield group
    finally:
        # A process that was killed leaves its group a moment later.
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.02)


def batches(server, data, connections, seconds, file):
    """Lines a second when each request is a batch, and how many bytes a batch takes on disk."""
    with servers.Running(server, data) as running:
        before = running.lines()
        size = sum(segment.stat().st_size for segment in running.segments())
        result = wrk(running, connections, seconds, file, "application/x-ndjson")
        answers = result["requests"] - result["refused"]
        lines = settled(running, before + answers * BATCH_LINES) - before
        size = sum(segment.stat().st_size for segment in running.segments()) - size
        return result | {
            "connections": connections,
            "lines_per_second": answers * BATCH_LINES / result["seconds"],
            "batch_bytes": size * BATCH_LINES // lines,
            "lines_match": 0 <= lines - answers * BATCH_LINES <= connections * BATCH_LINES,
        }


def disk_floor(binary, data, count, size):
    """What the disk alone takes for each of `count` durable appends of `size` bytes, in microseconds."""
    done = subprocess.run([binary, data, str(count), str(size)], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def start(server, data, path=None):
    """Milliseconds from the start of the program to its first good answer: of `GET path`, or else of an append."""
    first = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() if path else None
    with servers.Running(server, data, first) as running:
        return running.start_ms


def kill(server, data, connections, seconds):
    """Kills a server in mid-load. Every event has a number: whose answer came, and which of those are not on disk?"""
    with servers.Running(server, data) as running, selectors.DefaultSelector() as selector:
        sent, answered, number = {}, set(), 0

        def send(client):
            nonlocal number
            number += 1
            sent[client] = number
            client.sendall(running.request(servers.body(f"number-{number}-end")))

        for _ in range(connections):
            client = running.connect()
            selector.register(client, selectors.EVENT_READ)
            send(client)
        end = time.monotonic() + seconds
        while selector.get_map():
            if running.process.returncode is None and time.monotonic() > end:
                running.kill()
            for key, _ in selector.select(0.1):
                # Each request has one answer, short enough to come at once; after the kill, the end.
                try:
                    answer = key.fileobj.recv(65536)
                    if answer[9:10] == b"2":
                        answered.add(sent[key.fileobj])
                    if answer:
                        send(key.fileobj)
                        continue
                except OSError:
                    pass
                selector.unregister(key.fileobj)
                key.fileobj.close()
        found = set()
        for segment in running.segments():
            with open(segment, "rb") as lines:
                for line in lines:
                    _, marker, rest = line.partition(b"number-")
                    if marker and line.endswith(b"\n"):
                        found.add(int(rest[: rest.index(b"-end")]))
        return {"server": server.name, "answered": len(answered), "lost": len(answered - found)}


class Sequence:
    """Appends by one client on one connection, one after the other."""

    def __init__(self, running):
        self.running = running
        self.client = running.connect()
        self.one = running.request(servers.body())
        self.many = running.request((servers.body() + b"\n") * BATCH_LINES, "application/x-ndjson")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def append(self, request):
        """Sends one request and waits for its answer, which must be 200."""
        self.client.sendall(request)
        answer = self.client.recv(65536)
        if answer[9:12] != b"200":
            raise SystemExit(f"an append was refused: {answer.decode(errors='replace')}")

    def fill(self, size):
        """Brings the active segment to about so many bytes."""
        line = None
        while True:
            now = self.running.segments()[-1].stat().st_size
            line = line or now
            missing = (size - now) // line
            if missing <= 0:
                return
            if missing >= BATCH_LINES:
                for _ in range(missing // BATCH_LINES):
                    self.append(self.many)
            else:
                for _ in range(missing):
                    self.append(self.one)

    def measure(self, count):
        """Wall time of each append, and CPU time of all, in microseconds."""
        walls = []
        cpu = self.running.cpu_seconds()
        for _ in range(count):
            begun = time.perf_counter()
            self.append(self.one)
            walls.append((time.perf_counter() - begun) * 1e6)
        return walls, (self.running.cpu_seconds() - cpu) * 1e6


def growth_by_size(server, data, sizes, lines, passes):
    """The cost of a line as the active segment grows: each size some times, the sizes taking turns, and the least of each, as
    what others do on the machine only adds to it.

    Between its first and last measured line a segment at most doubles, so the small sizes take many segments.
    """
    walls, cpus = collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(passes):
        for size in sizes:
            some, cpu = [], 0.0
            while len(some) < lines:
                with servers.Running(server, data) as running, Sequence(running) as sequence:
                    sequence.fill(size)
                    more, used = sequence.measure(min(lines - len(some), max(1, size // 256)))
                    some += more
                    cpu += used
            walls[size].append(statistics.median(some))
            cpus[size].append(cpu / lines)
    return [{"bytes": size, "wall_us": min(walls[size]), "cpu_us": min(cpus[size])} for size in sizes]


def growth_by_connections(server, data, connections, seconds, passes, body_file):
    """The cost of a line by the number of clients, taking turns."""
    return [load(server, data, count, seconds, body_file) for _ in range(passes) for count in connections]


def growth_by_events(server, data, totals, connections, seconds, passes, body_file):
    """The cost of a line after so many events, which come as batches, in one process."""
    rows = []
    with servers.Running(server, data) as running:
        sent = 0
        for total in totals:
            with Sequence(running) as sequence:
                while sent < total:
                    sequence.append(sequence.many)
                    sent += BATCH_LINES
            for _ in range(passes):
                row = load_running(running, connections, seconds, body_file)
                rows.append(row | {"events": total, "segments": len(running.segments())})
    return rows

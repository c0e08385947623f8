"""The goals, and whether they were met."""
import statistics

from rows import CEILING, OURS, disk_lines_per_second, floor_us, median, p50_of_one, values

KIB_PER_MIB = 1024
# Noise of a shared machine: a cost counts as flat if no point lies further above an earlier one.
FLAT = 1.25


def goals(results):
    """Figure, goal, what was measured, and whether it was met (None: not measured)."""

    def ours(key, connections):
        return median(results["load"], key, server=OURS, connections=connections)

    def to_ceiling(key, connections):
        return ours(key, connections) / median(results["load"], key, server=CEILING, connections=connections)

    batch = max(median(results["batches"], "lines_per_second", connections=count)
                for count in values(results["batches"], "connections"))  # fmt: skip
    disk = max(disk_lines_per_second(results).values())
    return [
        goal("durable answers a second, 64 connections", "≥", 0.60, to_ceiling("answers_per_second", 64), " of the ceiling"),
        goal("durable answers a second, 256 connections", "≥", 0.80, to_ceiling("answers_per_second", 256), " of the ceiling"),
        goal("CPU a request, 64 connections", "≤", 1.35, to_ceiling("cpu_us", 64), " × the ceiling's"),
        goal("median latency, 1 connection", "≤", 1.05, p50_of_one(results, OURS) / floor_us(results), " × the disk's floor"),
        goal("p99, 64 connections", "≤", 2, to_ceiling("p99", 64), " × the ceiling's"),
        *(goal("answers a CPU second, 0.1 CPU, 64 connections", "≥", 2, quota_ratio(results, name), f" × that of {name}")
          for name in results["servers"] if name not in (OURS, CEILING)),
        goal("lines a second, batches of 1,000", "≥", 1, batch / min(1_000_000, disk), " × 1,000,000, or the disk's if that is less"),
        goal("resident memory, idle", "≤", 4, ours("idle_kib", 256) / KIB_PER_MIB, " MiB"),
        goal("resident memory, 256 connections", "≤", 8, ours("peak_kib", 256) / KIB_PER_MIB, " MiB"),
        goal("start to the first 200", "≤", 4, statistics.median(results["starts"][OURS]), " ms"),
        goal("binary, static and stripped", "≤", 8, results["binary_bytes"] / (1 << 20), " MiB"),
        *(goal(f"cost of a line by {series}", "≤", FLAT, most, " × an earlier point")
          for series, most in rises(results["growth"]).items()),
    ]  # fmt: skip


def goal(figure, sign, limit, value, unit):
    """One goal, in words."""
    if value is None:
        return figure, f"{sign} {limit}{unit}", "no control group could be made", None
    met = value <= limit if sign == "≤" else value >= limit
    return figure, f"{sign} {limit}{unit}", f"{value:.2f}{unit}", met


def quota_ratio(results, name):
    """Ours to another server, under the quota; None without one."""
    if not results["quota"]:
        return None
    ours, its = (median(results["quota"], "answers_per_cpu_second", server=server) for server in (OURS, name))
    return ours / its


def rises(growth):
    """The largest rise of each series."""
    rows = growth["sizes"]
    most = {"size of the segment": max(rise([row[key] for row in rows]) for key in ("wall_us", "cpu_us"))}
    for series, name in (("connections", "connections"), ("events", "events before")):
        rows = growth[series]
        most[name] = rise([median(rows, "cpu_us", **{series: value}) for value in values(rows, series)])
    return most


def rise(costs):
    """How far a cost lies above an earlier, lower one, at most: 1.0 if it only falls."""
    return max(cost / min(costs[: index + 1]) for index, cost in enumerate(costs))

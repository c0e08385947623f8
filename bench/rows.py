"""Rows of results, and what is asked of them in more than one place."""
import statistics

OURS, CEILING = "audit-log", "ceiling"


def pick(rows, **wanted):
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def median(rows, key, **wanted):
    """The median of a value over rows."""
    return statistics.median(row[key] for row in pick(rows, **wanted))


def values(rows, key):
    """The values of a key, in their order."""
    return list(dict.fromkeys(row[key] for row in rows))


def floor_us(results, lines=1, key="median"):
    """The disk's time for a write of some lines, or its CPU time."""
    return median(results["floors"], key, bytes=lines * 230)


def p50_of_one(results, name):
    """A server's median latency at one connection."""
    return median(results["load"], "p50", server=name, connections=1)


def disk_lines_per_second(results):
    """The disk's bandwidth in lines, by the lines of a write."""
    floors = results["batch_floors"]
    return {
        count: count * 1e6 / statistics.median(floor["median"] for floor in pick(floors, lines=count))
        for count in values(floors, "lines")
    }

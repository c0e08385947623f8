"""What docs/PERFORMANCE.md says of the results."""
import statistics

from goals import goals
from rows import CEILING, OURS, disk_lines_per_second, floor_us, median, p50_of_one, pick, values

BEGIN, END = "<!-- begin generated -->", "<!-- end generated -->"
KIB_PER_MIB = 1024


def table(head, rows):
    """A table: the first column to the left, the others to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def loads(results):
    """The rows of the comparison."""
    rows = []
    for connections in results["connections"]:
        ceiling = median(results["load"], "answers_per_second", server=CEILING, connections=connections)
        for name in results["servers"]:
            mine = pick(results["load"], server=name, connections=connections)
            rate = median(mine, "answers_per_second")
            rows.append([
                name, connections, f"{rate:,.0f}", f"{rate / ceiling:.2f}", f"{median(mine, 'p50'):,.0f}",
                f"{median(mine, 'p99'):,.0f}", f"{median(mine, 'cpu_us'):.1f}",
                f"{median(mine, 'idle_kib') / KIB_PER_MIB:.1f}", f"{median(mine, 'peak_kib') / KIB_PER_MIB:.1f}", refused(mine), told(mine),
            ])  # fmt: skip
    head = ["server", "connections", "answers/s", "of the ceiling", "p50 µs", "p99 µs", "CPU µs a request",
            "MiB idle", "MiB at most", "refused", "lines = answers"]  # fmt: skip
    return table(head, rows)


def refused(rows):
    """Requests without a good answer."""
    return sum(row["refused"] + row["broken"] for row in rows)


def told(rows):
    """Whether every answer left its line."""
    known = [row["lines_match"] for row in rows if "lines_match" in row]
    return "-" if not known else "yes" if all(known) else "NO"


def quotas(results):
    """The rows under a quota."""
    rows = []
    for name in results["servers"] if results["quota"] else []:
        mine = pick(results["quota"], server=name)
        numbers = [median(mine, key) for key in ("answers_per_second", "answers_per_cpu_second", "p50", "p99")]
        rows.append([name, *(f"{number:,.0f}" for number in numbers), told(mine)])
    head = ["server, 0.1 CPU, 64 connections", "answers/s", "answers/CPU s", "p50 µs", "p99 µs", "lines = answers"]
    return table(head, rows)


def floors(results):
    """What one connection waits for."""
    floor, ceiling, ours = floor_us(results), p50_of_one(results, CEILING), p50_of_one(results, OURS)
    rows = [
        ["the disk alone: write and fdatasync of 230 bytes", f"{floor:.0f}", f"{ours / floor:.2f}"],
        ["the ceiling: HTTP alone", f"{ceiling:.0f}", ""],
        ["both", f"{floor + ceiling:.0f}", f"{ours / (floor + ceiling):.2f}"],
        [OURS, f"{ours:.0f}", "1.00"],
    ]
    return table(["one connection", "p50 µs", f"{OURS} to it"], rows)


def bounds(results):
    """What 64 connections wait for, and what they cost."""

    def requests(name):
        mine = pick(results["load"], server=name, connections=64)
        return 64e6 / median(mine, "answers_per_second"), 64 * median(mine, "cpu_us")

    ceiling, ours = requests(CEILING), requests(OURS)
    disk = [floor_us(results, 64, key) for key in ("median", "cpu")]
    both = [sum(parts) for parts in zip(ceiling, disk)]
    rows = [[name, *(f"{number:.0f}" for number in numbers), *(f"{mine / number:.2f}" for mine, number in zip(ours, numbers))]
            for name, numbers in (("the ceiling: HTTP alone", ceiling), ("the disk alone: write and fdatasync of 64 lines", disk),
                                  ("both, one after the other", both), (OURS, ours))]  # fmt: skip
    head = ["64 connections, 64 requests", "µs", "CPU µs", f"{OURS} to it", f"{OURS}'s CPU to it"]
    return table(head, rows)


def batches(results):
    """The rows of batches."""
    rows = []
    for connections in values(results["batches"], "connections"):
        mine = pick(results["batches"], connections=connections)
        rows.append([f"{OURS}, connections: {connections}", f"{median(mine, 'lines_per_second'):,.0f}", told(mine)])
    for count, rate in disk_lines_per_second(results).items():
        rows.append([f"the disk alone, {count:,} lines a write", f"{rate:,.0f}", "-"])
    return table(["batches of 1,000 lines", "lines/s", "lines = answers"], rows)


def growths(results):
    """The tables that show whether the cost of a line grows."""
    growth = results["growth"]
    sizes = [[size_name(row["bytes"]), f"{row['wall_us']:.0f}", f"{row['cpu_us']:.1f}"] for row in growth["sizes"]]
    loaded, later = [], []
    for connections in values(growth["connections"], "connections"):
        mine = pick(growth["connections"], connections=connections)
        loaded.append([f"{connections:,}", *growth_cells(mine)])
    for events in values(growth["events"], "events"):
        mine = pick(growth["events"], events=events)
        later.append([f"{events:,}", mine[0]["segments"], *growth_cells(mine)])
    cells = ["answers/s", "CPU µs a line", "MiB at most", "refused", "lines = answers"]
    return "\n".join([
        table(["size of the segment, one connection", "least p50 µs", "least CPU µs a line"], sizes),
        table(["connections", *cells], loaded),
        table(["events before, 64 connections", "segments", *cells], later),
    ])  # fmt: skip


def growth_cells(rows):
    """What a load was like, in cells."""
    return [f"{median(rows, 'answers_per_second'):,.0f}", f"{median(rows, 'cpu_us'):.1f}",
            f"{median(rows, 'peak_kib') / KIB_PER_MIB:.1f}", refused(rows), told(rows)]  # fmt: skip


def size_name(size):
    """1024 as 1 KiB."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def others(results):
    """Starts, and kills."""
    starts = [[name, f"{statistics.median(times):.2f}", f"{min(times):.2f}", len(times)]
              for name, times in results["starts"].items()]  # fmt: skip
    kills = []
    for name in values(results["kills"], "server"):
        mine = pick(results["kills"], server=name)
        kills.append([name, f"{sum(row['answered'] for row in mine):,}", sum(row["lost"] for row in mine)])
    return "\n".join([
        table(["start to the first answer", "median ms", "least ms", "starts"], starts),
        table(["SIGKILL under load", "answered", "of these not on disk"], kills),
    ])  # fmt: skip


def section(results):
    """The generated part of the page."""
    machine = results["machine"]
    answers = {True: "yes", False: "**no**", None: "not measured"}
    return "\n".join([
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores shared with the load generator, "
        f"Linux {machine['kernel']}, {machine['file_system']}, nginx {machine['nginx']}; {machine['idle_percent']} % idle before. "
        f"Medians of {results['rounds']} rounds of {results['seconds']} s.\n",
        "### Goals\n",
        table(["figure", "goal", "measured", "met"], [(*cells, answers[met]) for *cells, met in goals(results)]),
        "### Side by side\n",
        "![Answers a second by connections](performance.svg)\n",
        loads(results),
        quotas(results),
        floors(results),
        bounds(results),
        "### Batches, starts, kills\n",
        batches(results),
        others(results),
        "### Growth\n",
        growths(results),
    ])  # fmt: skip


def split(page):
    """The page before and after its generated part."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page has no `{BEGIN}` and `{END}`")
    return before + begin, end + after

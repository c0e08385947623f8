#!/usr/bin/env python3
"""What answers of the read side cost, side by side with DuckDB and with ripgrep and jq over the same files.

    bench/read.py

Makes 5 million lines with the example `generate`, asks every program the same questions in turns, holds the answers against one another, and
writes its section of docs/PERFORMANCE.md. The files are read from the page cache. Takes some ten minutes, a quiet machine and 10 GB of disk.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from questions import QUESTIONS, duckdb_view

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- begin reading -->", "<!-- end reading -->"
MIB = 1 << 20
# Noise of a shared machine: a cost counts as flat if no size lies further above a smaller one.
FLAT = 1.25
PEAK_MIB = 64
NEWEST_MS = 10
RG_MISSING = "SKIPPED: ripgrep and jq are not compared: apt-get install --no-install-recommends ripgrep jq"
DUCKDB_MISSING = "SKIPPED: DuckDB is not compared: pip install duckdb"


def say(text):
    """Tells how far it is."""
    print(f"# {text}", file=sys.stderr, flush=True)


def generate(examples, folder, **flags):
    """Makes a directory, and returns what is in it."""
    command = [examples / "generate", "--dir", folder]
    command += [part for flag, value in flags.items() for part in (f"--{flag.replace('_', '-')}", str(value))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run(command, output):
    """Runs a program on two cores; its time, CPU time and the most memory it had."""
    once = [sys.executable, "-I", "-S", ROOT / "bench/once.py", output, *command]
    done = subprocess.run([str(part) for part in once], check=True, capture_output=True, text=True)
    seconds, cpu_seconds, peak_kib, code = (float(part) for part in done.stdout.split())
    if code != 0:
        raise SystemExit(f"{command}: exit {code:.0f}: {done.stderr}")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_kib": peak_kib, "told": done.stderr}


def ours(binary, folder, question, output):
    """What audit-log takes, and how many records its answer tells of."""
    # An export is written to a file that takes no disk.
    is_export = "csv" in question["ours"]
    row = run([binary, *question["ours"], "--dir", str(folder)], "/dev/null" if is_export else output)
    if is_export:
        row["answer"] = int(re.search(r"([\d,]+) lines", row["told"])[1].replace(",", ""))
    elif question["count"] == "rows":
        row["answer"] = sum(1 for _ in open(output, "rb"))
    else:
        row["answer"] = total(json.load(open(output, encoding="utf-8")))
    return row


def total(answer):
    """All counts of an answer added up: of facets `{"event":{"values":[["E",7]…]…}}`, of a histogram `[{"start":…,"count":7}…]`."""
    if isinstance(answer, dict):
        return sum(count for facet in answer.values() for _, count in facet["values"]) + sum(
            facet["more"]["records"] for facet in answer.values() if facet.get("more"))  # fmt: skip
    return sum(row["count"] for row in answer)


def duckdb_connection(folder):
    """DuckDB with two threads; None where it is not installed."""
    try:
        import duckdb
    except ImportError:
        say(DUCKDB_MISSING)
        return None
    connection = duckdb.connect()
    connection.execute("set threads = 2; set enable_progress_bar = false; set preserve_insertion_order = false")
    connection.execute(duckdb_view(folder))
    return connection


def ask_duckdb(connection, question):
    """What DuckDB takes for the same."""
    before, begun = os.times(), time.monotonic()
    rows = connection.execute(question["sql"]).fetchall()
    seconds, after = time.monotonic() - begun, os.times()
    cpu = after.user + after.system - before.user - before.system
    return {"seconds": seconds, "cpu_seconds": cpu, "answer": sum(row[-1] for row in rows)}


def ask_ripgrep(command, folder, output):
    """What a pipe of ripgrep and jq takes."""
    row = run(["sh", "-c", command.format(folder=folder)], output)
    numbers = [line.split()[0] for line in open(output, encoding="utf-8")]
    return row | {"answer": sum(int(number.rsplit(":", 1)[-1]) for number in numbers)}


def warm(folder):
    """Brings the files back into the page cache: some kernels drop what was idle for seconds, and whoever asks first would pay for that."""
    part = bytearray(MIB)
    for path in folder.glob("*/*.jsonl"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(part):
                pass


def compare(options, folder, output):
    """Every program once a round, every question in turn. The files are made anew for each round: so they are cached as they were written."""
    made = generate(options.examples, folder, lines=options.lines)
    connection, has_ripgrep = duckdb_connection(folder), shutil.which("rg") and shutil.which("jq")
    if not has_ripgrep:
        say(RG_MISSING)
    runs = []
    for number in range(-1, options.rounds):
        say("a round that is not counted, to warm up" if number < 0 else f"round {number + 1} of {options.rounds}")
        if number >= 0:
            shutil.rmtree(folder)
            made = generate(options.examples, folder, lines=options.lines)
        for question in QUESTIONS:
            warm(folder)
            row = {"question": question["name"], "ours": ours(options.binary, folder, question, output)}
            if connection and "sql" in question:
                warm(folder)
                row["DuckDB"] = ask_duckdb(connection, question)
            for name, key in (("ripgrep and jq", "rg"), ("ripgrep alone", "rg alone")):
                if has_ripgrep and key in question:
                    warm(folder)
                    row[name] = ask_ripgrep(question[key], folder, output)
            answers = {name: part["answer"] for name, part in row.items() if name != "question"}
            if len(set(answers.values())) != 1:
                raise SystemExit(f"the answers to `{question['name']}` differ: {answers}")
            if number >= 0:
                runs.append(row)
    return made, runs


def recent(options, examples, data, output):
    """Of many small segments in folders of their own: what a question about a day opens."""
    folder = data / "folders"
    say(f"{options.folders:,} segments of 20 lines in {options.folders:,} folders")
    made = generate(examples, folder, lines=options.folders * 20, jobs=options.folders, ranks=1, segments_lines=1 << 20)
    newest = subprocess.run([options.binary, "query", "--limit", "1", "--format", "csv", "--columns", "ts", "--dir", folder],
                            check=True, capture_output=True, text=True)  # fmt: skip
    last = datetime.datetime.fromisoformat(newest.stdout.split()[1])
    since = (last - datetime.timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = [run([options.binary, "query", "--since", since, "--dir", folder], output) for _ in range(options.rounds)]
    searched = int(re.search(r"searched ([\d,]+) of", rows[0]["told"])[1].replace(",", ""))
    told = {"segments": made["segments"], "opened": searched, "seconds": statistics.median(row["seconds"] for row in rows),
            "peak_kib": max(row["peak_kib"] for row in rows)}  # fmt: skip
    shutil.rmtree(folder)
    return told


def growth(options, examples, data, output):
    """The cost of a byte, and the memory, by how much there is."""
    rows = []
    for lines in options.sizes:
        folder = data / "growth"
        say(f"growth: {lines:,} lines")
        made = generate(examples, folder, lines=lines)
        # What starts and lists is not the scan's: a question that opens nothing takes that too.
        for name in ("facets", "csv"):
            command = ["facets", "event", "meta.user.name"] if name == "facets" else ["query", "--format", "csv"]
            best = [run([options.binary, *command, "--dir", folder], "/dev/null") for _ in range(options.rounds)]
            empty = [run([options.binary, "facets", "event", "--until", "2000-01-01", "--dir", folder], output) for _ in range(options.rounds)]
            cpu = min(row["cpu_seconds"] for row in best) - min(row["cpu_seconds"] for row in empty)
            rows.append({"command": name, "bytes": made["bytes"], "ns_a_byte": cpu * 1e9 / made["bytes"],
                         "peak_kib": max(row["peak_kib"] for row in best)})  # fmt: skip
        shutil.rmtree(folder)
    return rows


def median(runs, program, key):
    """The median of a program's figure; None where it was not compared."""
    values = [row[program][key] for row in runs if program in row]
    return statistics.median(values) if values else None


def report(results):
    """The section of the page."""
    rows, met = [], {True: "yes", False: "**no**", None: "not measured"}
    for question in QUESTIONS:
        runs = [row for row in results["runs"] if row["question"] == question["name"]]
        mine = median(runs, "ours", "seconds")
        cells = [question["name"], f"{mine * 1e3:,.0f}", f"{median(runs, 'ours', 'cpu_seconds') * 1e3:,.0f}"]
        for program in ("DuckDB", "ripgrep and jq", "ripgrep alone"):
            seconds = median(runs, program, "seconds")
            cells += [f"{seconds * 1e3:,.0f}", f"{seconds / mine:.1f}"] if seconds else ["-", "-"]
        duck = median(runs, "DuckDB", "seconds")
        if question["goal"] is None:
            cells += [f"≤ {NEWEST_MS} ms", met[mine * 1e3 <= NEWEST_MS]]
        else:
            cells += [f"≥ {question['goal']} × DuckDB", met[duck / mine >= question["goal"] if duck else None]]
        rows.append([*cells, f"{max(row['ours']['peak_kib'] for row in runs) / 1024:.0f}"])
    head = ["question", "ms", "CPU ms", "DuckDB ms", "times", "rg and jq ms", "times", "rg ms", "times", "goal", "met", "MiB at most"]
    peak = max(row["ours"]["peak_kib"] for row in results["runs"]) / 1024
    recently, grown = results["recent"], results["growth"]
    sizes = [[f"{row['bytes'] / 1e6:,.0f} MB", row["command"], f"{row['ns_a_byte']:.2f}", f"{row['peak_kib'] / 1024:.0f}"] for row in grown]
    others = [
        ["most memory, any question above, the listing included", f"≤ {PEAK_MIB} MiB", f"{peak:.0f} MiB", met[peak <= PEAK_MIB]],
        [f"a day of {recently['segments']:,} segments in as many folders", "opens what may match",
         f"{recently['opened']:,} opened, {recently['seconds'] * 1e3:,.0f} ms, {recently['peak_kib'] / 1024:.0f} MiB", met[recently["opened"] * 50 <= recently["segments"]]],
        *growth_goals(grown, met),
    ]  # fmt: skip
    made = results["made"]
    return "\n".join([
        f"Measured on {results['date']} over {made['lines']:,} lines in {made['segments']:,} segments ({made['bytes'] / 1e9:.2f} GB), two cores, from the page "
        f"cache; {results['idle_percent']} % idle before. Medians of {results['rounds']} rounds in which the programs take turns, over files made anew for each and read once before each run; *times* is how many times as fast "
        "audit-log is. Its time includes its start and the listing of all segments.\n",
        table(head, rows),
        table(["figure", "goal", "measured", "met"], others),
        table(["what there is", "question", "CPU ns a byte", "MiB at most"], sizes),
    ])  # fmt: skip


def growth_goals(rows, met):
    """Whether the cost of a byte and the memory stay flat, from 16 MB on: below that, the start is most of it."""
    goals = []
    for command in dict.fromkeys(row["command"] for row in rows):
        large = [row for row in rows if row["command"] == command and row["bytes"] >= 16_000_000]
        costs = [row["ns_a_byte"] for row in large]
        rise = max((later / min(costs[:at]) for at, later in enumerate(costs) if at), default=None)
        value = f"{rise:.2f} × an earlier size" if rise else "-"
        goals.append([f"cost of a byte by size, {command}", f"≤ {FLAT} × an earlier size", value, met[rise <= FLAT if rise else None]])
    return goals


def table(head, rows):
    """A table: the first column to the left, the others to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def write(page, section):
    """Puts the section into the page."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no `{BEGIN}` and `{END}`")
    page.write_text(f"{before}{BEGIN}\n{section}{END}{after}", encoding="utf-8")


def idle_percent():
    """How idle the machine is in a second."""

    def times():
        return [int(value) for value in open("/proc/stat", encoding="ascii").readline().split()[1:]]

    before = times()
    time.sleep(1)
    spent = [after - earlier for earlier, after in zip(before, times())]
    return round(100 * (spent[3] + spent[4]) / max(sum(spent), 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, help="audit-log [default: built]")
    parser.add_argument("--examples", type=pathlib.Path, help="folder with the example `generate` [default: built]")
    parser.add_argument("--data", type=pathlib.Path, default=tempfile.gettempdir(), help="where files are made [default: %(default)s]")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs/PERFORMANCE.md")
    parser.add_argument("--json", type=pathlib.Path, help="keeps every single run")
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folders", type=int, default=90_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[3_000, 50_000, 500_000, 5_000_000], help="lines, for the growth")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: {options.data}: there is no such directory")
    if options.quick:
        options.lines, options.rounds, options.folders, options.sizes = 20_000, 1, 200, [1_000, 10_000]
    if not options.binary or not options.examples:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bins", "--examples"], cwd=ROOT, check=True)
        built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "release")
        options.binary, options.examples = options.binary or built / "audit-log", options.examples or built / "examples"
    with tempfile.TemporaryDirectory(prefix="read-", dir=options.data) as temporary:
        data = pathlib.Path(temporary)
        output = data / "out"
        results = {"date": datetime.date.today().isoformat(), "rounds": options.rounds, "idle_percent": idle_percent()}
        say(f"{options.lines:,} lines")
        results["made"], results["runs"] = compare(options, data / "lines", output)
        shutil.rmtree(data / "lines")
        results["recent"] = recent(options, options.examples, data, output)
        results["growth"] = growth(options, options.examples, data, output)
    section = report(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    write(options.page, section)
    print(section)


if __name__ == "__main__":
    main()

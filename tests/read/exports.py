"""Whether what was exported is read by other programs as the records that the oracle answers.

    exports.py ANSWERS EXPORTS [NAME=]PATH[@WORKSPACE]…

ANSWERS is the oracle's, whose only query is `asc`; EXPORTS holds the exports `ndjson`, `csv` and `json` of the same. Python's csv and
json, jq and DuckDB read them, and must find the same rows.
"""
import csv
import hashlib
import json
import pathlib
import subprocess
import sys

import duckdb
import oracle

COLUMNS = ["segment", "index", "ts", "jobId", "workspaceId", "rank", "event", "message", "meta"]


def main():
    answers, exports, *directories = sys.argv[1:]
    exports = pathlib.Path(exports)
    [answer] = json.loads(pathlib.Path(answers).read_text())
    found = {}
    for _, segment, path, rank, _ in oracle.listing([oracle.source(text) for text in directories]):
        found[segment] = (rank, [line for line, _ in oracle.lines(path)])
    rows = [(segment, index, found[segment][0], found[segment][1][index]) for segment, index in answer]
    assert len(rows) > 1000, len(rows)

    for name in ("ndjson", "csv", "json"):
        about = json.loads((exports / name / "manifest.json").read_text())["records"]
        content = (exports / name / about["file"]).read_bytes()
        assert about["rows"] == len(rows), about
        assert (about["bytes"], about["sha256"]) == (len(content), hashlib.sha256(content).hexdigest()), about

    lines = [line for *_, line in rows]
    ndjson = exports / "ndjson/records.ndjson"
    assert ndjson.read_bytes() == b"".join(line + b"\n" for line in lines)
    array = exports / "json/records.json"
    assert oracle.parsed(array.read_text()) == [oracle.parsed(line) for line in lines]
    events = [dict(oracle.parsed(line))["event"] for line in lines]
    by_jq = [subprocess.run(["jq", flag, program, path], check=True, capture_output=True, text=True).stdout
             for flag, program, path in (("-c", ".event", ndjson), ("-c", ".[].event", array))]  # fmt: skip
    assert all([json.loads(event) for event in text.split("\n")[:-1]] == events for text in by_jq)
    members = "columns = {event: 'VARCHAR'}, maximum_object_size = 4194304"
    for path, form in ((ndjson, "newline_delimited"), (array, "array")):
        by_duckdb = duckdb.sql(f"SELECT event FROM read_json('{path}', format = '{form}', {members})").fetchall()
        assert [event for (event,) in by_duckdb] == events, path

    csv.field_size_limit(1 << 30)
    table = exports / "csv/records.csv"
    with open(table, newline="", encoding="utf-8") as file:
        head, *cells = csv.reader(file, strict=True)
    assert head == COLUMNS, head
    for (segment, index, rank, line), row in zip(rows, cells, strict=True):
        record = dict(oracle.parsed(line))
        ts = record["ts"]
        record["ts"] = oracle.instant(int(ts)) if isinstance(ts, oracle.Number) else ts
        expected = [segment, str(index), *(record[name] for name in COLUMNS[2:5]), str(rank), record["event"], record["message"]]
        assert row[:-1] == expected, (row, expected)
        meta = record["meta"]
        assert row[-1] == meta if type(meta) is str else oracle.parsed(row[-1]) == meta, (row, meta)
    options = "header = true, all_varchar = true, nullstr = '\x01', max_line_size = 8388608, strict_mode = true, parallel = false"
    by_duckdb = duckdb.sql(f"SELECT * FROM read_csv('{table}', delim = ',', quote = '\"', escape = '\"', {options})").fetchall()
    assert [list(row) for row in by_duckdb] == cells


main()

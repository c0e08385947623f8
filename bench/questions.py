"""What auditors ask, of audit-log, of DuckDB and of ripgrep with jq: the same answer of each."""

SINCE, UNTIL = "2025-10-01", "2025-10-08"
# The year that the example `generate` fills: no name bounds it.
YEAR = ["--since", "2025-07-01", "--until", "2026-12-31"]
FACETS = ["event", "jobId", "meta.user.name", "meta.category", "meta.success", "meta.source.ip"]
COLUMNS = "{ts:'TIMESTAMP',jobId:'VARCHAR',workspaceId:'VARCHAR',event:'VARCHAR',message:'VARCHAR',meta:'JSON'}"
BY_EVENT = "select event, count(*) from lines {where} group by 1"
JQ_BY_EVENT = "jq -r .event | sort | uniq -c"


def duckdb_view(folder):
    """DuckDB reads the same files, and is told their columns."""
    return (f"create or replace view lines as select * from read_json('{folder}/*/*.jsonl', "
            f"format='newline_delimited', columns={COLUMNS})")  # fmt: skip


def facet_sql():
    """Six facets in one pass over the files."""
    columns = ["event f0", "jobId f1", *(f"meta->>'$.{path[5:]}' f{number}" for number, path in enumerate(FACETS) if path.startswith("meta."))]
    counts = " union all ".join(f"select {number} n, f{number}, count(*) from r where f{number} is not null group by 2" for number in range(6))
    return f"with r as materialized (select {', '.join(columns)} from lines) {counts}"


# Name, goal (times as fast as DuckDB), what audit-log is asked, DuckDB's query, what ripgrep and jq do, and how many records or values
# each answer tells of: "counts" are added up.
QUESTIONS = [
    {
        "name": "time range and event, all segments in range", "goal": 5, "count": "counts",
        "ours": ["facets", "event", *YEAR, "--event", "DATA_EXPORT"],
        "sql": BY_EVENT.format(where="where ts >= '2025-07-01' and ts < '2026-12-31' and event = 'DATA_EXPORT'"),
        "rg": "rg -j2 -IN '\"event\":\"DATA_EXPORT\"' {folder} | " + JQ_BY_EVENT,
    },
    {
        "name": "time range and event, bounded by names and tails", "goal": 25, "count": "counts",
        "ours": ["facets", "event", "--since", SINCE, "--until", UNTIL, "--event", "DATA_EXPORT"],
        "sql": BY_EVENT.format(where=f"where ts >= '{SINCE}' and ts < '{UNTIL}' and event = 'DATA_EXPORT'"),
    },
    {
        "name": "equality on meta.user.name", "goal": 6, "count": "counts",
        "ours": ["facets", "event", "--where", "meta.user.name = bob"],
        "sql": BY_EVENT.format(where="where meta->>'$.user.name' = 'bob'"),
        "rg": "rg -j2 -IN '\"name\":\"bob\"' {folder} | jq -r 'select(.meta.user.name == \"bob\") | .event' | sort | uniq -c",
    },
    {
        "name": "free text", "goal": 6, "count": "counts",
        "ours": ["facets", "event", "--text", "weights"],
        "sql": BY_EVENT.format(where="where contains(lower(event), 'weights') or contains(lower(message), 'weights') "
                                     "or contains(lower(meta::varchar), 'weights')"),
        "rg": "rg -j2 -i -IN weights {folder} | " + JQ_BY_EVENT,
        "rg alone": "rg -j2 -i -c -I weights {folder}",
    },
    {
        "name": "count by event", "goal": 4, "count": "counts",
        "ours": ["facets", "event"], "sql": BY_EVENT.format(where=""),
    },
    {
        "name": "histogram by hour", "goal": 4, "count": "counts",
        "ours": ["histogram", "--interval", "hour"],
        "sql": "select date_trunc('hour', ts), count(*) from lines group by 1",
    },
    {
        "name": "six facets", "goal": 2.5, "count": "counts",
        "ours": ["facets", *FACETS], "sql": facet_sql(),
    },
    {
        "name": "full CSV export, newest first", "goal": 2, "count": "rows",
        "ours": ["query", "--format", "csv", "--columns", "ts,jobId,workspaceId,event,message,meta"],
        "sql": "copy (select * from lines order by ts desc) to '/dev/null' (format csv)",
    },
    {"name": "the newest 40", "goal": None, "count": "rows", "ours": ["query", "--limit", "40", "--format", "ndjson"]},
]  # fmt: skip

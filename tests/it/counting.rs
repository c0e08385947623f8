//! What is counted: `facets` and `histogram` (contract of the read side, §2).

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{BINARY, binary, tool};

/// A line of job `j` at a time of 2026-01-28.
fn line(time: &str, event: &str, meta: &str) -> String {
    format!(
        "{{\"ts\":\"2026-01-28T{time}Z\",\"jobId\":\"j\",\"workspaceId\":\"w\",\"event\":\"{event}\",\"message\":\"m\",\"meta\":{meta}}}\n"
    )
}

fn directory(segments: &[&str]) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    for (rank, segment) in segments.iter().enumerate() {
        fs::write(temp.path().join(format!("audit-{rank}_20260128T000000.000Z.jsonl")), segment).unwrap();
    }
    temp
}

fn run(dir: &TempDir, args: &[&str]) -> Output {
    binary().args(args).arg("--dir").arg(dir.path()).output().unwrap()
}

fn text(dir: &TempDir, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn answer(dir: &TempDir, args: &[&str]) -> Value {
    serde_json::from_str(&text(dir, args)).unwrap()
}

/// Every kind of value, in two segments.
fn kinds() -> TempDir {
    let metas = ["{\"v\":1}", "{\"v\":1.0}", "{\"v\":10e-1}", "{\"v\":\"1\"}", "{\"v\":\"1\"}", "{\"v\":true}"];
    let more =
        ["{\"v\":null}", "{\"v\":[1]}", "{\"v\":{\"a\":1}}", "{\"v\":{}}", "{}", "{\"v\":5,\"v\":\"a,\\\"b\\\"\"}"];
    let segment = |metas: [&str; 6], event| metas.map(|meta| line("09:12:44.381", event, meta)).concat();
    directory(&[&segment(metas, "A"), &segment(more, "B")])
}

#[test]
fn facets_tell_each_kind_of_value_with_its_count() {
    let dir = kinds();
    let none = json!({"values": 0, "records": 0});
    assert_eq!(
        answer(&dir, &["facets", "meta.v", "event", "rank", "meta.nothing"]),
        json!({
            "meta.v": {"values": [
                [{"number": "1"}, 3], ["1", 2], [{"structure": "object"}, 2],
                [null, 1], [true, 1], ["a,\"b\"", 1], [{"structure": "array"}, 1],
            ], "more": none},
            "event": {"values": [["A", 6], ["B", 6]], "more": none},
            "rank": {"values": [[{"number": "0"}, 6], [{"number": "1"}, 6]], "more": none},
            "meta.nothing": {"values": [], "more": none},
        })
    );
    let output = run(&dir, &["facets", "meta.v"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.ends_with("searched 2 of 2 segments, 12 lines, 0 damaged, 0 foreign, 1 ambiguous (times in UTC)\n"),
        "{told}"
    );
    // A record is ambiguous once, be it for the filter or the field.
    let output = run(&dir, &["facets", "meta.v", "--where", "meta.v exists"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains(", 1 ambiguous"));
}

#[test]
fn facets_and_histograms_count_what_the_filters_let_through() {
    let dir = kinds();
    let facets = answer(&dir, &["facets", "event", "--where", "meta.v = 1"]);
    assert_eq!(facets["event"]["values"], json!([["A", 5]]));
    let rows = answer(&dir, &["histogram", "--event", "B", "--rank", "1"]);
    assert_eq!(rows, json!([{"start": "2026-01-28T09:00:00.000Z", "count": 6}]));
    assert_eq!(answer(&dir, &["histogram", "--event", "C"]), json!([]));
}

#[test]
fn facets_are_csv_and_a_table() {
    let dir = kinds();
    assert_eq!(
        text(&dir, &["facets", "meta.v", "--format", "csv"]),
        "field,value,kind,count\r\nmeta.v,1,number,3\r\nmeta.v,1,string,2\r\nmeta.v,,object,2\r\nmeta.v,null,null,1\r\n\
         meta.v,true,boolean,1\r\nmeta.v,\"a,\"\"b\"\"\",string,1\r\nmeta.v,,array,1\r\n"
    );
    assert_eq!(
        text(&dir, &["facets", "meta.v", "event", "--format", "table"]),
        "\
meta.v  records
1             3  ███████████████████████████████████████████████████████████████
\"1\"           2  ██████████████████████████████████████████
{…}           2  ██████████████████████████████████████████
null          1  █████████████████████
true          1  █████████████████████
a,\"b\"         1  █████████████████████
[…]           1  █████████████████████

event  records
A            6  ████████████████████████████████████████████████████████████████
B            6  ████████████████████████████████████████████████████████████████
"
    );
}

#[test]
fn a_table_makes_control_characters_visible_and_cuts_long_values() {
    let long = "x".repeat(100);
    let dir = directory(&[&[
        line("09:00:00.000", "E", "{\"v\":\"\\u001b[2J\\u202e\"}"),
        line("09:00:00.000", "E", &format!("{{\"v\":\"{long}\"}}")),
    ]
    .concat()]);
    let table = text(&dir, &["facets", "meta.v", "--format", "table"]);
    assert!(table.contains("\n\\u001b[2J\\u202e ") || table.contains("\n\\u001B[2J\\u202E "), "{table}");
    assert!(table.contains(&format!("\n{}…  ", "x".repeat(43))), "{table}");
}

#[test]
fn of_more_than_10_000_values_the_most_frequent_are_told_and_the_rest_counted() {
    let mut segment = String::new();
    // The last 20 are the most frequent.
    for nth in 0..10_005 {
        let lines = line("09:12:44.381", "E", &format!("{{\"v\":\"{nth:05}\"}}"));
        segment.push_str(&lines.repeat(if nth >= 9985 { 2 } else { 1 }));
    }
    let dir = directory(&[&segment]);
    let facet = &answer(&dir, &["facets", "meta.v"])["meta.v"];
    assert_eq!(facet["more"], json!({"values": 5, "records": 5}));
    let values = facet["values"].as_array().unwrap();
    assert_eq!(values.len(), 10_000);
    for (at, value) in
        [(0, json!(["09985", 2])), (19, json!(["10004", 2])), (20, json!(["00000", 1])), (9999, json!(["09979", 1]))]
    {
        assert_eq!(values[at], value);
    }
    let csv = text(&dir, &["facets", "meta.v", "--format", "csv"]);
    assert!(csv.ends_with("\r\nmeta.v,5,more,5\r\n"));
    let table = text(&dir, &["facets", "meta.v", "--format", "table"]);
    assert!(table.contains("\n(5 more) "), "{table}");
}

#[test]
fn a_histogram_counts_by_time_and_value() {
    let early = [
        line("08:59:59.999", "A", "{\"v\":\"x\"}"),
        line("09:00:00.000", "A", "{}"),
        line("09:59:59.999", "B", "{\"v\":null}"),
    ];
    let late = [
        line("09:30:00.000", "B", "{\"v\":\"x\"}"),
        line("23:30:00.000", "B", "{\"v\":7}"),
        line("09:30:10.000", "A", "{}"),
    ];
    let dir = directory(&[&early.concat(), &late.concat()]);
    let at = |time: &str| format!("2026-01-28T{time}:00.000Z");
    assert_eq!(
        answer(&dir, &["histogram"]),
        json!([{"start": at("08:00"), "count": 1}, {"start": at("09:00"), "count": 4}, {"start": at("23:00"), "count": 1}])
    );
    assert_eq!(
        answer(&dir, &["histogram", "--interval", "hour", "--by", "meta.v"]),
        json!([
            {"start": at("08:00"), "by": "x", "count": 1},
            {"start": at("09:00"), "by": {"missing": true}, "count": 2},
            {"start": at("09:00"), "by": null, "count": 1},
            {"start": at("09:00"), "by": "x", "count": 1},
            {"start": at("23:00"), "by": {"number": "7"}, "count": 1},
        ])
    );
    assert_eq!(
        text(&dir, &["histogram", "--interval", "minute", "--event", "B", "--format", "csv"]),
        "start,count\r\n2026-01-28T09:30:00.000Z,1\r\n2026-01-28T09:59:00.000Z,1\r\n2026-01-28T23:30:00.000Z,1\r\n"
    );
    assert_eq!(
        text(
            &dir,
            &["histogram", "--interval", "day", "--by", "event", "--tz", "Europe/Copenhagen", "--format", "table"]
        ),
        "\
start                   event  records
2026-01-28T00:00+01:00  A            3  ████████████████████████████████████████
2026-01-28T00:00+01:00  B            2  ██████████████████████████▊
2026-01-29T00:00+01:00  B            1  █████████████▍
"
    );
    assert_eq!(
        text(
            &dir,
            &["histogram", "--interval", "day", "--by", "meta.v", "--tz", "Europe/Copenhagen", "--format", "csv"]
        ),
        "start,by,kind,count\r\n2026-01-27T23:00:00.000Z,,missing,2\r\n2026-01-27T23:00:00.000Z,null,null,1\r\n\
         2026-01-27T23:00:00.000Z,x,string,2\r\n2026-01-28T23:00:00.000Z,7,number,1\r\n"
    );
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let dir = directory(&[]);
    let many: Vec<String> = (0..33).map(|nth| format!("meta.f{nth}")).collect();
    let many: Vec<&str> = std::iter::once("facets").chain(many.iter().map(String::as_str)).collect();
    for (args, part) in [
        (&["facets", "events"][..], "FIELD:\nevents\n^ no such field"),
        (&["facets", "meta."], "^"),
        (&["facets", "event", "event"], "`event` is there twice"),
        (&["facets", "meta.a", "meta.\"a\""], "is there twice"),
        (&["facets"], "<FIELD>"),
        (&many, "more than 32 fields"),
        (&["facets", "event", "--format", "xml"], "--format: must be `table`, `json` or `csv`"),
        (&["histogram", "--interval", "week"], "--interval: must be `minute`, `hour` or `day`"),
        (&["histogram", "--by", "rank[0]"], "--by:"),
        (&["histogram", "--since", "tomorrow"], "--since:"),
    ] {
        let output = run(&dir, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(part), "{args:?}: {told}");
        assert!(output.stdout.is_empty());
    }
    assert!(run(&dir, &many[..33]).status.success());
}

/// 150,000 values of 400 bytes would take 80 MB in a table. The limit is on all memory that a process writes to.
#[test]
fn endless_values_are_counted_in_64_mib() {
    if !tool("sh") {
        return;
    }
    let mut segments = [String::new(), String::new()];
    for nth in 0..150_000 {
        let meta = format!("{{\"v\":\"{:x<392}{nth:08}\"}}", "");
        segments[nth % 2].push_str(&line("09:12:44.381", "E", &meta));
    }
    // Some twice, in another segment than the first time.
    let again: String = segments[1].split_inclusive('\n').take(40_000).collect();
    segments[0].push_str(&again);
    let dir = directory(&[&segments[0], &segments[1]]);
    let limited = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -d 65536 && exec \"$0\" \"$@\"", BINARY]).args(args).arg("--dir").arg(dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let facets: Value = serde_json::from_slice(&limited(&["facets", "meta.v", "--format", "json"])).unwrap();
    let facet = &facets["meta.v"];
    let values = facet["values"].as_array().unwrap();
    assert!(values.iter().all(|value| value[1] == 2));
    assert_eq!(facet["more"], json!({"values": 140_000, "records": 170_000}));
    let rows = limited(&["histogram", "--by", "meta.v", "--format", "csv"]);
    assert_eq!(rows.split(|byte| *byte == b'\n').count(), 150_000 + 2);
}

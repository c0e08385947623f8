//! What `query` prints (contract of the read side, §2), and how other programs read it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{BINARY, binary, tool};

/// A directory with one segment of these lines, which have no newlines yet.
fn audit(lines: &[String]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    fs::write(temp.path().join("audit-3_20260128T000000.000Z.jsonl"), text).unwrap();
    temp
}

/// A line, as one that is not ours may spell it: with everything in it that need not be escaped as it is.
fn line(second: usize, event: &str, message: &str, meta: &Value) -> String {
    let (event, message) = (json!(event), json!(message));
    let ts = format!("2026-01-28T09:{:02}:{:02}.000Z", second / 60, second % 60);
    format!(r#"{{"ts":"{ts}","jobId":"j","workspaceId":"w","event":{event},"message":{message},"meta":{meta}}}"#)
}

const HOSTILE: [&str; 11] = [
    "",
    " both ends ",
    "a,b",
    "\"",
    "\"a\",\"b\"",
    "1\r\n2\n3",
    "3\r4",
    "=1+1",
    "\u{feff}é\u{202e}日本語\u{1b}[2J",
    "\0",
    "\\u0041\t;",
];

fn hostile_lines() -> Vec<String> {
    let hostile = HOSTILE.iter().enumerate();
    let mut lines: Vec<_> =
        hostile.map(|(nth, text)| line(nth, text, text, &json!({"a,b": text, "n": [nth, text]}))).collect();
    // A cell longer than Python takes unless told otherwise, and values that are no strings.
    lines.push(line(20, "e", &"x\"".repeat(100_000), &json!(null)));
    lines.push(line(21, "e", "", &json!({"a,b": true})));
    lines
}

fn query(dir: &Path, args: &[&str]) -> Output {
    binary().args(["query", "--dir"]).arg(dir).args(args).output().unwrap()
}

#[track_caller]
fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn elsewhere_than_on_a_terminal_lines_come_as_they_are() {
    let lines = hostile_lines();
    let temp = audit(&lines);
    let oldest_first = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(stdout(query(temp.path(), &["--order", "asc"])), oldest_first);
    assert_eq!(stdout(query(temp.path(), &["--order", "asc", "--format", "ndjson"])), oldest_first);
    let array = stdout(query(temp.path(), &["--format", "json"]));
    let records: Vec<Value> = serde_json::from_str(&array).unwrap();
    let newest_first: Vec<Value> = lines.iter().rev().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records, newest_first);
    assert_eq!(stdout(query(temp.path(), &["--format", "json", "--event", "none"])), "[]\n");
    let some = stdout(query(temp.path(), &["--format", "csv", "--columns", "ts", "--offset", "1", "--limit", "2"]));
    assert_eq!(some, "ts\r\n2026-01-28T09:00:20.000Z\r\n2026-01-28T09:00:10.000Z\r\n");
}

/// Compares a segment with what was printed of it as csv.
const CHECK: &str = r#"
import csv, io, json, sys
csv.field_size_limit(1 << 30)
lines, printed = (open(path, newline="", encoding="utf-8").read() for path in sys.argv[1:])
records = [json.loads(line) for line in lines.split("\n")[:-1]]
rows = list(csv.DictReader(io.StringIO(printed, newline=""), strict=True))
assert len(rows) == len(records) == 13, len(rows)
for row, record in zip(rows, records):
    assert None not in row and None not in row.values(), row
    for member in ["ts", "jobId", "workspaceId", "event", "message"]:
        assert row[member] == record[member], (row, record)
    assert row["rank"] == "3"
    assert json.loads(row["meta"]) == record["meta"]
    value = (record["meta"] or {}).get("a,b", "")
    assert row['meta."a,b"'] == ("true" if value is True else value), (row, record)
"#;

/// Python's csv module reads every cell back: strings as they were, other values as JSON of the same value.
#[test]
fn python_reads_the_csv_back() {
    if !tool("python3") {
        return;
    }
    let temp = audit(&hostile_lines());
    let columns = "ts,jobId,workspaceId,rank,event,message,meta,meta.\"a,b\"";
    let csv = stdout(query(temp.path(), &["--order", "asc", "--format", "csv", "--columns", columns]));
    let default = stdout(query(temp.path(), &["--order", "asc", "--format", "csv"]));
    assert!(default.starts_with("ts,jobId,workspaceId,rank,event,message,meta\r\n"), "{default}");
    let printed = temp.path().join("printed.csv");
    fs::write(&printed, csv).unwrap();
    let segment = temp.path().join("audit-3_20260128T000000.000Z.jsonl");
    let checked = Command::new("python3").args(["-c", CHECK]).args([segment, printed]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Runs a command on a terminal of 50 columns and passes on what it prints there.
const TERMINAL: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 50, 0, 0))
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL)
os.close(slave)
shown = b""
try:
    while part := os.read(master, 65536):
        shown += part
except OSError:
    pass
sys.stdout.buffer.write(shown.replace(b"\r\n", b"\n"))
sys.exit(child.wait())
"#;

/// On a terminal of 50 columns, which Python makes: each line of the table fits, and nothing in it is obeyed.
#[test]
fn a_terminal_gets_a_table_that_fits() {
    if !tool("python3") {
        return;
    }
    let temp = audit(&hostile_lines());
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, BINARY, "query", "--tz", "Asia/Tokyo", "--dir"]).arg(temp.path());
    let shown = stdout(command.output().unwrap());
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 14, "{shown}");
    assert_eq!(lines[0], "ts                             jobId  event  mess…");
    assert_eq!(lines[1], "2026-01-28T18:00:21.000+09:00  j      e");
    assert!(lines.iter().all(|line| line.chars().count() <= 50 && !line.contains(char::is_control)), "{shown}");
}

#[test]
fn a_table_elsewhere_is_80_wide_and_shows_the_columns_that_are_named() {
    let temp =
        audit(&[line(0, "\u{202e}EVIL\u{7}", &"long ".repeat(50), &json!({"user": {"name": "ada"}, "rows": 1.50}))]);
    let args = ["--format", "table", "--columns", "index, meta.user.name,meta.none,event,message"];
    let shown = stdout(query(temp.path(), &args));
    let (header, row) = shown.trim_end().split_once('\n').unwrap();
    assert_eq!(header, "index  meta.user.name  meta.none  event             message");
    assert_eq!(row, "0      ada                        \\u202eEVIL\\u0007  long long long long long lo…");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_fault() {
    let lines: Vec<_> = (0..3000).map(|nth| line(nth, "e", &"x".repeat(1000), &json!(nth))).collect();
    let temp = audit(&lines);
    for format in ["ndjson", "json", "csv", "table"] {
        // 80 bytes a line of the table: more than a pipe holds.
        let mut command = binary();
        command.args(["query", "--order", "asc", "--format", format, "--dir"]);
        let mut child = command.arg(temp.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{format}: {told}");
        assert!(told.starts_with("audit-log: searched 1 of 1") && told.lines().count() == 1, "{format}: {told}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_a_fault() {
    // Much is written on the way, little at the end.
    for lines in [hostile_lines(), vec![line(0, "e", "", &json!(0))]] {
        let temp = audit(&lines);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = binary();
        command.args(["query", "--dir"]).arg(temp.path()).stdout(full).stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
    }
}

#[test]
fn what_is_shown_of_a_repeated_key_is_counted_as_ambiguous_once() {
    let twice = line(0, "e", "", &json!(0)).replace("\"meta\":0", "\"meta\":{\"d\":1,\"d\":2}");
    let temp = audit(&[twice, line(1, "e", "", &json!({"d": 3}))]);
    let asked: [&[&str]; 4] = [
        &["--format", "csv", "--columns", "meta.d"],
        &["--format", "csv", "--columns", "meta.d,meta.d.x", "--where", "meta.d > 0"],
        &["--where", "meta.d > 0"],
        &["--format", "csv"],
    ];
    for (args, count) in asked.into_iter().zip([1, 1, 1, 0]) {
        let output = query(temp.path(), args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told.contains("1 ambiguous"), count == 1, "{args:?}: {told}");
        assert_eq!(told.contains("ambiguous"), count == 1, "{args:?}: {told}");
    }
    assert_eq!(stdout(query(temp.path(), asked[0])), "meta.d\r\n3\r\n2\r\n");
}

#[test]
fn a_bad_format_or_column_ends_with_2_and_a_caret_under_the_place() {
    let temp = audit(&[]);
    for (args, told) in [
        (&["--format", "xml"][..], "audit-log: --format: must be `table`, `ndjson`, `json` or `csv`\n".to_owned()),
        (
            &["--columns", "ts"],
            "audit-log: --columns: only `--format table` and `--format csv` have columns, or those of a `--view`\n"
                .to_owned(),
        ),
        (&["--format", "json", "--columns", "ts"], "audit-log: --columns: only".to_owned()),
        (&["--format", "csv", "--columns", "ts, jobid"], {
            let mut shown = "audit-log: --columns:\nts, jobid\n".to_owned();
            writeln!(shown, "{:4}^ no such field; this one is spelt `jobId`", "").unwrap();
            shown
        }),
        (
            &["--format", "table", "--columns", "meta."],
            "audit-log: --columns:\nmeta.\n     ^ expected a key".to_owned(),
        ),
    ] {
        let output = query(temp.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let shown = String::from_utf8(output.stderr).unwrap();
        assert!(shown.starts_with(&told) && output.stdout.is_empty(), "{args:?}: {shown}");
    }
}

/// All are told, so that nobody has to look for them; a terminal shows the first, and how to have the rest.
#[test]
fn lines_among_more_of_a_few_bytes_than_are_looked_at_at_once_are_found() {
    let many = 200_000;
    let mut lines = vec![String::new(); many];
    lines[0] = line(0, "FIRST", "", &json!({"a": "x"}));
    lines[many / 2] = line(1, "MIDDLE", "", &json!({"a": "x"}));
    lines[many / 2 + 1] = "{".to_owned();
    lines[many - 1] = line(2, "LAST", "", &json!({"a": "x"}));
    let temp = audit(&lines);
    let covered = "200,000 lines, 1 damaged, 0 foreign";
    for args in [&["--order", "asc"][..], &["--limit", "3"], &["--where", "meta.a = x"]] {
        let output = query(temp.path(), &[args, &["--format", "csv", "--columns", "index,event"]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(covered) && told.contains("100001"), "{args:?}: {told}");
        let mut found: Vec<_> = stdout(output).lines().skip(1).map(str::to_owned).collect();
        found.sort();
        assert_eq!(found, ["0,FIRST", "100000,MIDDLE", "199999,LAST"], "{args:?}");
    }
    let output = binary().args(["facets", "event", "--format", "csv", "--dir"]).arg(temp.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains(covered));
    assert_eq!(stdout(output).lines().count(), 4);
}

#[test]
fn every_damaged_line_is_told_where_stderr_is_no_terminal() {
    let lines: Vec<String> = (0..30).map(|nth| format!("damaged {nth}")).collect();
    let temp = audit(&lines);
    let told = String::from_utf8(query(temp.path(), &[]).stderr).unwrap();
    assert_eq!(told.matches("damaged: audit-3_").count(), 30, "{told}");
    if !tool("script") {
        return;
    }
    let command = format!("{BINARY} query --dir {} --format ndjson", temp.path().display());
    let shown = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.matches("damaged: audit-3_").count(), 20, "{shown}");
    assert!(shown.contains("10 more of these: `2> FILE` has all"), "{shown}");
}

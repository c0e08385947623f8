//! No answer takes more than 64 MiB beside the listing, however long lines and values are.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::reading_safety::{gzip, zstd};
use crate::support::{BINARY, IMAGE_ENVIRONMENT, tool};

/// With its newline, a line has no more.
const LINE_BYTES_MAX: usize = 2 << 20;
/// Segments: together their longest lines are more than any command may take.
const PLAIN: usize = 30;
const PACKED: usize = 4;
/// Lines of each.
const LINES: usize = 4;

/// A line of which `part`, again and again, makes a member of `meta` as long as it can be.
fn long_line(nth: usize, (begin, part, end): (&str, &str, &str)) -> String {
    let head = format!(
        r#"{{"ts":"2026-01-28T09:30:{nth:02}.000Z","jobId":"j{nth}","workspaceId":"w","event":"LONG","message":"","meta":{{"n":{nth},"a":{begin}{nth}"#
    );
    let room = LINE_BYTES_MAX - 1 - head.len() - end.len() - "}}".len();
    head + &part.repeat(room / part.len()) + end + "}}"
}

fn short_line(nth: usize, minute: usize) -> String {
    format!(
        r#"{{"ts":"2026-01-28T09:{minute:02}:00.000Z","jobId":"j{nth}","workspaceId":"w","event":"SHORT","message":"","meta":{{"n":{nth}}}}}"#
    )
}

/// The lines of a segment: values are strings, some with escapes, numbers, and arrays, of which a csv has twice the bytes.
fn segment(nth: usize) -> String {
    let shape = match nth % 16 {
        3 => ("[", ",\"\"", "]"),
        7 => ("1", "7", ""),
        even if even % 2 == 0 => ("\"", "x", "\""),
        _ => ("\"", "\\\"", "\""),
    };
    let lines = [short_line(nth, 0), short_line(nth, 1), long_line(nth, shape), short_line(nth, 59)];
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Two directories: of plain segments, and of packed ones.
fn audit() -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    for nth in 0..PLAIN + PACKED {
        let text = segment(nth);
        let (directory, suffix, bytes) = match nth.checked_sub(PLAIN) {
            None => ("plain", "", text.into_bytes()),
            Some(packed) if packed % 2 == 0 => ("packed", ".gz", gzip(text.as_bytes())),
            Some(_) => ("packed", ".zst", zstd(text.as_bytes())),
        };
        let folder = temp.path().join(directory).join(format!("j{nth}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("audit-0_20260128T000000.000Z.jsonl{suffix}")), bytes).unwrap();
    }
    temp
}

/// Runs a command with 56 MiB for all that it writes to; the rest of the 64 is for the pages of the binary itself.
#[track_caller]
fn run(args: &[&str], directories: &[&Path]) -> Output {
    let limited = "ulimit -d 57344 && exec timeout -s KILL 120 \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, BINARY]).args(args).env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1);
    for directory in directories {
        command.arg("--dir").arg(directory);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

fn count(bytes: &[u8], part: &str) -> usize {
    memchr::memmem::find_iter(bytes, part).count()
}

/// Segments are read side by side, as nothing is asked of their lines.
#[test]
fn all_of_a_range_takes_64_mib_at_most_however_long_its_lines_are() {
    if !["sh", "timeout"].iter().all(|name| tool(name)) {
        return;
    }
    let temp = audit();
    let plain = temp.path().join("plain");
    for (order, format) in [("asc", "csv"), ("desc", "json")] {
        let output = run(&["query", "--order", order, "--format", format], &[&plain]);
        assert_eq!(count(&output.stdout, "2026-01-28T09:"), PLAIN * LINES, "{order} {format}");
    }
    let out = temp.path().join("out");
    run(&["export", "--out", out.to_str().unwrap()], &[&plain]);
    assert_eq!(count(&fs::read(out.join("records.ndjson")).unwrap(), "2026-01-28T09:"), PLAIN * LINES);
}

/// Keys are sorted, and lines read again; or values are counted.
#[test]
fn what_is_sorted_or_counted_takes_64_mib_at_most_however_long_it_is() {
    if !["sh", "timeout"].iter().all(|name| tool(name)) {
        return;
    }
    let temp = audit();
    let both = ["plain", "packed"].map(|name| format!("{name}={}", temp.path().join(name).display()));
    let both = both.each_ref().map(Path::new);
    let (all, long) = ((PLAIN + PACKED) * LINES, PLAIN + PACKED);
    let commands: [(&[&str], usize); 4] = [
        (&["query", "--format", "csv", "--order", "asc", "--where", "meta.n >= 0"], all),
        (&["query", "--format", "json", "--limit", "60", "--text", "long"], long),
        (&["export", "--out", "-", "--event", "LONG"], long),
        (&["tail", "-n", "20000", "--format", "table", "--columns", "ts,event,message,meta"], all),
    ];
    for (args, expected) in commands {
        assert_eq!(count(&run(args, &both).stdout, "2026-01-28T09:"), expected, "{args:?}");
    }
    // Arrays are counted together, and in a histogram records without a value, too.
    let values = long - (0..long).filter(|nth| nth % 16 == 3).count();
    for (args, row, expected) in [
        (&["facets", "event", "meta.a", "--format", "csv"][..], "\r\nmeta.a,", values + 1),
        (&["facets", "meta.a", "--format", "table"], "\n", values + 2),
        (&["histogram", "--by", "meta.a", "--interval", "day", "--format", "csv"], "\n2026-01-28", values + 2),
    ] {
        assert_eq!(count(&run(args, &both).stdout, row), expected, "{args:?}");
    }
}

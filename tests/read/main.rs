//! The read side's answers to random queries are those of another program: `oracle.py`, which is written from the contract
//! and lets a database filter, order and count. `queries.py` makes the queries and says what an answer looks like.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod answers;
mod searches;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use audit_log::reader::listing::{Listing, Source, Sources};
use audit_log::reader::record::Record;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use answers::Reader;

/// The folder of the first job that is generated.
const FIRST_JOB: &str = "5003592";

#[test]
fn random_queries_of_many_segments_have_the_answers_of_another_program() {
    let temp = tempfile::tempdir().unwrap();
    generate(temp.path(), "--lines 40000 --jobs 100 --odd 0.01 --segments-lines 512");
    compare(&[temp.path().display().to_string()], 1, 300);
}

/// The two hold lines of the same times, so the directory decides their order; the third is a part of the first.
#[test]
fn several_directories_of_a_workspace_each_are_read_as_by_another_program() {
    let temp = tempfile::tempdir().unwrap();
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    for dir in [&one, &two] {
        generate(dir, "--lines 3000 --jobs 9 --odd 0.05 --segments-lines 100");
    }
    let workspace = workspace(&one.join(FIRST_JOB));
    let directories = [
        format!("z={}@{workspace}", one.display()),
        format!("a={}", two.display()),
        format!("m={}", one.join(FIRST_JOB).display()),
    ];
    compare(&directories, 2, 150);
}

#[test]
fn compressed_segments_are_read_as_by_another_program() {
    if !(support::tool("gzip") & support::tool("zstd")) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    generate(temp.path(), "--lines 3000 --jobs 9 --odd 0.05 --segments-lines 100 --seed 3");
    for (number, path) in segments(temp.path()).into_iter().enumerate() {
        // Some stay beside the plain one, which is then read alone.
        let command = ["gzip", "gzip --keep", "zstd -q --rm", "zstd -q", "true"][number % 5];
        let (program, flags) = command.split_once(' ').unwrap_or((command, ""));
        assert!(Command::new(program).args(flags.split_whitespace()).arg(path).status().unwrap().success());
    }
    compare(&[temp.path().display().to_string()], 3, 150);
}

/// A segment directly in `audit` is in no job's folder.
#[test]
fn job_folders_in_a_folder_audit_are_read_as_by_another_program() {
    let temp = tempfile::tempdir().unwrap();
    let audit = temp.path().join("audit");
    generate(&audit, "--lines 3000 --jobs 9 --odd 0.05 --segments-lines 100 --seed 4");
    let of_job = segments(&audit.join(FIRST_JOB));
    for (path, folder) in of_job.iter().zip([&audit, temp.path()]) {
        fs::rename(path, folder.join(path.file_name().unwrap())).unwrap();
    }
    fs::rename(audit.join(FIRST_JOB), audit.join("5")).unwrap();
    compare(&[temp.path().display().to_string()], 4, 150);
}

/// Of a key that is there twice, the last object has what columns show, even if that is nothing.
#[test]
fn keys_repeated_at_every_level_are_read_as_by_another_program() {
    let temp = tempfile::tempdir().unwrap();
    let metas = [
        r#"{"user":{"name":"ada","id":1},"user":{"id":2}}"#,
        r#"{"user":{"id":1},"user":{"name":"ada","name":"bo"}}"#,
        r#"{"user":{"name":"ada"},"user":null}"#,
        r#"{"user":null,"user":{"name":"ada","id":1.0e0}}"#,
        r#"{"files":["a","b"],"files":["c"]}"#,
        r#"{"files":[{"n":1},{"n":2,"n":3}],"files":[{"n":1,"m":1}]}"#,
        r#"[{"a":1,"a":[2,{"b":1}]},{"a":{"b":2},"a":{"b":3,"b":{}}}]"#,
        r#"{"":{"":1,"":2},"a.b":{"\"":"x","\u0022":"y"},"user":{"name":"ada"}}"#,
        r#"{"n":9007199254740993,"n":9007199254740992.0,"m":1e400,"m":-0}"#,
    ];
    let line = |(second, meta): (usize, &&str)| {
        format!(
            "{{\"ts\":\"2026-01-01T00:00:{second:02}.000Z\",\"jobId\":\"{FIRST_JOB}\",\"workspaceId\":\"w\",\"event\":\"E\",\
             \"message\":\"\",\"meta\":{meta}}}\n"
        )
    };
    let lines: String = metas.iter().enumerate().map(line).collect();
    fs::write(temp.path().join("audit-0_20260101T000000.000Z.jsonl"), lines).unwrap();
    compare(&[temp.path().display().to_string()], 5, 400);
}

/// Beyond 10,000 records, and without a limit, another way is taken.
#[test]
fn the_first_records_of_an_order_are_the_same_however_few_are_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    generate(temp.path(), "--lines 15000 --jobs 20 --odd 0.02 --segments-lines 64 --seed 6");
    let reader = Reader::new(&[temp.path().display().to_string()]);
    for filters in [r"{}", r#"{"rank":[1,2]}"#, r#"{"since":"2025-10-01","until":"2026-03-01"}"#] {
        for order in ["asc", "desc"] {
            let query = |limit: Option<usize>| {
                let filters: Value = serde_json::from_str(filters).unwrap();
                serde_json::json!({"kind": "query", "filters": filters, "order": order, "limit": limit})
            };
            let all = reader.answer(&query(None));
            let all = all.as_array().unwrap();
            assert!(all.len() > 1000, "{} records", all.len());
            for limit in [0, 1, 2, 63, 1000, 10_000, 10_001] {
                let first = reader.answer(&query(Some(limit)));
                let same = first.as_array().unwrap()[..] == all[..limit.min(all.len())];
                assert!(same, "the first {limit} of {filters} {order}");
            }
        }
    }
}

/// As files, in each format, read back by the programs of `exports.py`.
#[test]
fn exports_are_read_by_other_programs_as_the_records_that_another_program_finds() {
    if !has_oracle() || !support::tool("jq") {
        return;
    }
    let (temp, exports, files) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    generate(temp.path(), "--lines 5000 --jobs 9 --odd 0.05 --segments-lines 100 --seed 7");
    let (since, columns) = ("2025-09-01", "segment,index,ts,jobId,workspaceId,rank,event,message,meta");
    for (format, flags) in [("ndjson", &[][..]), ("json", &[]), ("csv", &["--columns", columns])] {
        let out = exports.path().join(format);
        let mut command = support::binary();
        command.args(["export", "--since", since, "--format", format]).args(flags).arg("--dir").arg(temp.path());
        let exported = command.arg("--out").arg(out).output().unwrap();
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    }
    let queries = files.path().join("queries");
    let query = serde_json::json!([{"kind": "query", "filters": {"since": since}, "order": "asc"}]);
    fs::write(&queries, query.to_string()).unwrap();
    let directory = temp.path().display().to_string();
    let answers = python("oracle.py", std::slice::from_ref(&directory), Some(&queries), &files);
    let paths = [answers.display().to_string(), exports.path().display().to_string(), directory];
    python("exports.py", &paths, None, &files);
}

/// Asks both programs, and holds their answers against one another.
fn compare(directories: &[String], seed: u64, count: usize) {
    if !has_oracle() {
        return;
    }
    let files = TempDir::new().unwrap();
    let queries = python("queries.py", &[&[seed.to_string(), count.to_string()], directories].concat(), None, &files);
    let answers = python("oracle.py", directories, Some(&queries), &files);
    let queries: Vec<Value> = serde_json::from_str(&fs::read_to_string(queries).unwrap()).unwrap();
    let answers = fs::read_to_string(answers).unwrap();
    let answers: Vec<&RawValue> = serde_json::from_str(&answers).unwrap();
    assert_eq!((queries.len(), answers.len()), (count, count));
    let reader = Reader::new(directories);
    let (mut different, mut empty) = (Vec::new(), 0);
    for (query, answer) in queries.iter().zip(answers) {
        let expected = answers::comparable(query, serde_json::from_str(answer.get()).unwrap());
        let found = answers::comparable(query, reader.answer(query));
        empty += usize::from(answers::is_empty(&found));
        if found != expected {
            different.push(format!("{query}\n{}", difference(&expected, &found)));
        }
    }
    assert!(empty < count / 2, "{empty} of {count} queries find nothing");
    let some = different.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} of {count} answers differ:\n{some}", different.len());
}

/// Where two answers begin to differ.
fn difference(expected: &Value, found: &Value) -> String {
    let Some((expected, found)) = expected.as_array().zip(found.as_array()) else {
        return format!("  expected {expected}\n  found    {found}");
    };
    let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    let show = |rows: &[Value]| format!("{:?} ({at} of {})", rows.get(at).map(ToString::to_string), rows.len());
    format!("  expected {}\n  found    {}", show(expected), show(found))
}

/// Whether the other program can run. Without it the test says so on stderr; under CI its absence is a failure.
fn has_oracle() -> bool {
    if !support::tool("python3") {
        return false;
    }
    let found = Command::new("python3").args(["-c", "import duckdb"]).stderr(Stdio::null()).status().unwrap().success();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "duckdb (PyPI) is not installed");
        std::io::stderr().write_all(b"SKIPPED: duckdb (PyPI) is not installed\n").unwrap();
    }
    found
}

/// Runs one of the programs beside this file; returns the file with its output.
fn python(program: &str, arguments: &[String], input: Option<&Path>, files: &TempDir) -> PathBuf {
    let path = files.path().join(program).with_extension("json");
    let input = input.map_or_else(Stdio::null, |input| File::open(input).unwrap().into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read").join(program);
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).stdin(input).stdout(File::create(&path).unwrap());
    assert!(command.env("PYTHONDONTWRITEBYTECODE", "1").status().unwrap().success(), "{program} failed");
    path
}

/// Makes a directory by the example `generate`.
fn generate(dir: &Path, flags: &str) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--quiet", "--locked", "--example", "generate", "--", "--dir"]).arg(dir);
    command.args(flags.split_whitespace()).current_dir(env!("CARGO_MANIFEST_DIR")).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

/// The paths of all segments in a directory.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let sources = Sources::new(vec![Source::parse(&format!("{}/", dir.display())).unwrap()]).unwrap();
    Listing::new(&sources).segments.iter().map(|segment| dir.join(segment.path(&sources))).collect()
}

/// The workspace of a folder's first good record.
fn workspace(folder: &Path) -> String {
    let content = fs::read(&segments(folder)[0]).unwrap();
    content
        .split(|byte| *byte == b'\n')
        .find_map(|line| Some(Record::parse(line).ok()?.workspace_id.into_owned()))
        .unwrap()
}

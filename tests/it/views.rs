//! Records as the columns of systems that somebody knows (contract of the read side, §4), and the page that tells applications how to be
//! shown so.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;

use audit_log::reader::view::{View, Views};
use serde_json::{Value, json};

use crate::docs::read;
use crate::support::{BINARY, Setup, binary};

/// A directory with one segment of these lines.
fn audit(lines: &[String]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
    std::fs::write(temp.path().join("audit-3_20260128T000000.000Z.jsonl"), text).unwrap();
    temp
}

fn line(second: u32, event: &str, meta: &Value) -> String {
    format!(
        r#"{{"ts":"2026-01-28T09:12:{second:02}.381Z","jobId":"j","workspaceId":"w","event":"{event}","message":"","meta":{meta}}}"#
    )
}

fn some() -> tempfile::TempDir {
    let user = |name: &str| json!({"user": {"name": name}, "service": "compute", "action": "create", "success": true});
    audit(&[
        line(1, "CREATE_CLUSTER", &user("ada")),
        line(2, "Add nodes", &json!({"user": "bob", "service": "Desktop service", "error": "full"})),
        line(3, "tick", &json!(null)),
    ])
}

fn run(command: &str, dir: &Path, args: &[&str]) -> Output {
    binary().arg(command).args(args).arg("--dir").arg(dir).output().unwrap()
}

#[track_caller]
fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_format_shows_the_views_columns() {
    let temp = some();
    let query = |args: &[&str]| stdout(run("query", temp.path(), args));
    let csv = query(&["--view", "fcp", "--format", "csv", "--order", "asc"]);
    let mut rows = csv.lines();
    let titles = "Region,Stack ID,Username,Service,Operation type,Source IP,Operator,User type,Object ID,Object name,Request data,Time";
    assert_eq!(rows.next(), Some(titles));
    assert_eq!(rows.next(), Some(",,ada,compute,CREATE_CLUSTER,,ada,user,,,,2026-01-28T09:12:01.381Z"));
    assert_eq!(rows.nth(1), Some(",,system,,tick,,system,system,,,,2026-01-28T09:12:03.381Z"));
    let table = query(&["--view", "pcd", "--format", "table"]);
    assert!(table.starts_with("Time (UTC) "), "{table}");
    let ndjson = query(&["--view", "native"]);
    assert!(ndjson.starts_with("{\"ts\":\"2026-01-28T09:12:03.381Z\",\"jobId\":\"j\""), "{ndjson}");
    let array: Vec<Value> = serde_json::from_str(&query(&["--view", "runai", "--format", "json"])).unwrap();
    let outcomes: Vec<_> = array.iter().map(|row| (&row["sourceName"], &row["status"])).collect();
    assert_eq!(
        outcomes,
        [(&json!("j"), &json!(null)), (&json!("bob"), &json!("Failed")), (&json!("ada"), &json!("Succeeded"))]
    );
    let ids: Vec<_> = array.iter().map(|row| row["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    let some = query(&["--view", "pcd", "--format", "json", "--columns", "username,meta.error", "--limit", "2"]);
    assert_eq!(
        some,
        "[\n{\"username\":\"unknown\",\"meta.error\":null},\n{\"username\":\"bob\",\"meta.error\":\"full\"}\n]\n"
    );
}

#[test]
fn a_views_columns_are_fields_of_conditions_facets_and_histograms() {
    let temp = some();
    let found =
        |args: &[&str]| stdout(run("query", temp.path(), &[&["--format", "csv", "--columns", "event"], args].concat()));
    assert_eq!(found(&["--view", "fcp", "--where", "username = bob"]), "event\r\nAdd nodes\r\n");
    assert_eq!(found(&["--view", "fcp", "--where", "userType = system"]), "event\r\ntick\r\n");
    assert_eq!(found(&["--view", "runai", "--where", "status = Succeeded"]), "event\r\nCREATE_CLUSTER\r\n");
    let facets = stdout(run("facets", temp.path(), &["--view", "pcd", "username", "outcome", "event"]));
    let facets: Value = serde_json::from_str(&facets).unwrap();
    assert_eq!(facets["username"]["values"], json!([["ada", 1], ["bob", 1], ["unknown", 1]]));
    assert_eq!(facets["outcome"]["values"], json!([["failure", 1], ["success", 1], ["unknown", 1]]));
    assert_eq!(facets["event"]["values"].as_array().unwrap().len(), 3);
    let by = stdout(run("histogram", temp.path(), &["--view", "fcp", "--interval", "day", "--by", "userType"]));
    let day = "2026-01-28T00:00:00.000Z";
    let rows: Value = serde_json::from_str(&by).unwrap();
    assert_eq!(rows, json!([{"start": day, "by": "system", "count": 1}, {"start": day, "by": "user", "count": 2}]));
}

#[test]
fn categories_are_a_filter_of_every_command() {
    let temp = some();
    let found = |names: &[&str]| {
        let args: Vec<_> = names
            .iter()
            .flat_map(|name| ["--category", *name])
            .chain(["--format", "csv", "--columns", "event"])
            .collect();
        stdout(run("query", temp.path(), &args))
    };
    assert_eq!(found(&["HPC clusters"]), "event\r\nCREATE_CLUSTER\r\n");
    assert_eq!(found(&["desktop service"]), "event\r\nAdd nodes\r\n");
    assert_eq!(found(&["HPC clusters", "Desktop service"]), "event\r\nAdd nodes\r\nCREATE_CLUSTER\r\n");
    let facets = stdout(run("facets", temp.path(), &["event", "--category", "HPC clusters"]));
    assert!(facets.contains("[[\"CREATE_CLUSTER\",1]]"), "{facets}");
}

#[test]
fn an_operators_file_adds_views_and_operations() {
    let temp = some();
    let file = temp.path().join("views.yaml");
    std::fs::write(&file, "views:\n  mine:\n    columns:\n      - {key: who, title: Who, from: [meta.user.name, meta.user], default: nobody}\n      - {key: tick, from: event}\ncategories:\n  Clock: [Tick]\n").unwrap();
    let file = file.to_str().unwrap();
    let csv = stdout(run("query", temp.path(), &["--views", file, "--view", "mine", "--format", "csv"]));
    assert_eq!(csv, "Who,tick\r\nnobody,tick\r\nbob,Add nodes\r\nada,CREATE_CLUSTER\r\n");
    let csv = stdout(run(
        "query",
        temp.path(),
        &["--views", file, "--view", "mine", "--category", "clock", "--format", "csv"],
    ));
    assert_eq!(csv, "Who,tick\r\nnobody,tick\r\n");
}

#[test]
fn what_is_no_view_ends_with_2_and_says_where() {
    let temp = some();
    let file = temp.path().join("views.yaml");
    std::fs::write(&file, "views:\n  fcp:\n    columns: [{key: a, from: event}]\n").unwrap();
    let path = file.to_str().unwrap();
    for (args, told) in [
        (
            &["--view", "fpc"][..],
            "audit-log: --view: no such view; there are `native`, `fcp`, `runai`, `runai-log`, `pcd`\n".to_owned(),
        ),
        (&["--category", "x"], "audit-log: --category: no such category; there are `HPC clusters`, ".to_owned()),
        (
            &["--views", path],
            format!("audit-log: {path}:3:5: views.fcp: there is such a view already; give it another name\n"),
        ),
        (&["--views", "/no/such/file"], "audit-log: /no/such/file: cannot read it: ".to_owned()),
        (
            &["--view", "fcp", "--where", "user = ada"],
            "audit-log: --where:\nuser = ada\n^ no such field; the view has region, stackId, ".to_owned(),
        ),
        (
            &["--view", "fcp", "--format", "csv", "--columns", "time,Username"],
            "audit-log: --columns:\ntime,Username\n     ^ no such field; the view has ".to_owned(),
        ),
    ] {
        let output = run("query", temp.path(), args);
        let shown = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && shown.starts_with(&told), "{args:?}: {shown}");
    }
}

const PAGE: &str = "docs/VOCABULARY.md";

/// What a page has between two of its marks.
fn between<'p>(page: &'p str, start: &str, end: &str) -> &'p str {
    let (_, rest) = page.split_once(start).unwrap_or_else(|| panic!("no {start} in {PAGE}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} in {PAGE}")).0.trim()
}

fn columns(view: &View) -> String {
    let mut table = "| Key | Title | From | Else |\n|---|---|---|---|\n".to_owned();
    for column in view.columns() {
        let from = column.sources().iter().map(|source| format!("`{source}`")).collect::<Vec<_>>().join(", ");
        let default = column.default_text().map(|text| format!("`{text}`")).unwrap_or_default();
        writeln!(table, "| `{}` | {} | {from} | {default} |", column.key(), column.title()).unwrap();
    }
    table
}

#[test]
fn the_tables_in_vocabulary_md_are_those_of_the_views() {
    let page = read(PAGE);
    let views = Views::built_in();
    for view in views.iter() {
        let table = columns(view);
        let told = between(&page, &format!("<!-- view {} -->", view.name()), "<!-- end of view -->");
        assert!(told == table.trim(), "the table of {} in {PAGE} should be\n{table}", view.name());
    }
    let mut table = "| Category | Operations |\n|---|---|\n".to_owned();
    for category in views.categories() {
        writeln!(table, "| {} | {} |", category.name, category.operations.join(", ")).unwrap();
    }
    let told = between(&page, "<!-- categories -->", "<!-- end of categories -->");
    assert!(told == table.trim(), "the categories in {PAGE} should be\n{table}");
}

/// Each example, as it stands on the page: what it appends is shown as the page shows it, but for the time.
#[test]
fn the_examples_in_vocabulary_md_show_what_they_say() {
    let sidecar = Setup::new().start();
    let page = read(PAGE);
    let blocks: Vec<_> = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n')).collect();
    assert_eq!(blocks.len(), 6);
    for pair in blocks.chunks(2) {
        let ((_, commands), (_, told)) = (pair[0], pair[1]);
        let commands = commands
            .replace("127.0.0.1:48291", &sidecar.address.to_string())
            .replace("audit-log query", &format!("echo; {BINARY} query --dir {}", sidecar.dir.display()));
        let output = std::process::Command::new("bash").args(["-c", &format!("set -e\n{commands}")]).output().unwrap();
        assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let (_, printed) = printed.split_once('\n').unwrap();
        assert_eq!(without_times(printed), without_times(told));
        assert_eq!(printed.split(',').count(), told.split(',').count(), "{printed}");
    }
}

/// JSON without what the time of the record is in.
fn without_times(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap();
    let row = if value.is_array() { &mut value[0] } else { &mut value };
    for key in ["time", "happenedAt", "timestamp_utc", "dateTime"] {
        if let Some(time) = row.get_mut(key) {
            assert!(time.is_string());
            *time = Value::Null;
        }
    }
    if let Some(id) = row.get_mut("id") {
        assert!(id.as_u64().unwrap() > 1 << 49);
        *id = Value::Null;
    }
    value
}

/// The views file of the page is one, and shows what its comments say.
#[test]
fn the_views_file_in_reading_md_is_understood() {
    let temp = audit(&[line(
        1,
        "ARCHIVE_FOLDER",
        &json!({"user": {"name": "ada"}, "path": "/p", "error": "x", "source": {"ip": "::1"}}),
    )]);
    let file = temp.path().join("views.yaml");
    std::fs::write(&file, crate::docs::block("docs/READING.md", "categories:")).unwrap();
    let args =
        ["--views", file.to_str().unwrap(), "--view", "exports", "--category", "Data management", "--format", "ndjson"];
    let row =
        r#"{"who":"ada","path":"/p","outcome":"failed","source":{"ip":"::1"},"version":"1.0","day":"28/01/2026"}"#;
    assert_eq!(stdout(run("query", temp.path(), &args)), format!("{row}\n"));
}

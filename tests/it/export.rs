//! What `export` hands over (contract of the read side, §2), and what it leaves when it cannot.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{BINARY, binary, tool, tools, wait_for};

fn line(second: usize, job: &str, meta: &Value) -> String {
    let ts = format!("2026-01-28T09:{:02}:{:02}.000Z", second / 60, second % 60);
    format!(
        "{{\"ts\":\"{ts}\",\"jobId\":\"{job}\",\"workspaceId\":\"w\",\"event\":\"E\",\"message\":\"\",\"meta\":{meta}}}\n"
    )
}

/// Two jobs whose lines take turns; one has a line that is damaged and one that is the other's.
fn audit() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for (job, seconds, odd) in [("1", [0, 2], "broken\n".to_owned()), ("2", [1, 3], line(4, "1", &json!(0)))] {
        let folder = temp.path().join(job);
        fs::create_dir(&folder).unwrap();
        let lines: String = seconds.iter().map(|second| line(*second, job, &json!({"n": second}))).collect();
        fs::write(folder.join("audit-0_20260128T000000.000Z.jsonl"), lines + &odd).unwrap();
    }
    temp
}

/// So many lines that nobody writes them before somebody else has looked.
fn large_audit() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let lines: String = (0..3000).map(|second| line(second, "1", &json!("x".repeat(10_000)))).collect();
    fs::write(temp.path().join("audit-0_20260128T000000.000Z.jsonl"), lines).unwrap();
    temp
}

fn command(dir: &Path, out: &Path, args: &[&str]) -> Command {
    let mut command = binary();
    command.args(["export", "--dir"]).arg(dir).arg("--out").arg(out).args(args).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

fn export(dir: &Path, out: &Path, args: &[&str]) -> Output {
    command(dir, out, args).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn manifest(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn an_export_is_the_records_oldest_first_and_a_manifest() {
    let (audit, temp) = (audit(), tempfile::tempdir().unwrap());
    let out = temp.path().join("march");
    let output = export(audit.path(), &out, &["--since", "2026-01-28", "--tz", "Europe/Copenhagen"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(names(&out), ["manifest.json", "records.ndjson"]);
    let records = fs::read_to_string(out.join("records.ndjson")).unwrap();
    let expected: String =
        [(0, "1"), (1, "2"), (2, "1"), (3, "2")].map(|(second, job)| line(second, job, &json!({"n": second}))).concat();
    assert_eq!(records, expected);
    let manifest = manifest(&out);
    assert_eq!(
        manifest["query"],
        json!({"dir": [audit.path()], "since": "2026-01-28", "tz": "Europe/Copenhagen", "strict": false})
    );
    assert_eq!(manifest["range"], json!({"since": "2026-01-27T23:00:00.000Z", "until": null}));
    let about = &manifest["records"];
    assert_eq!((&about["rows"], &about["bytes"], &about["columns"]), (&json!(4), &json!(expected.len()), &json!(null)));
    let times = (&about["oldest"], &about["newest"]);
    assert_eq!(times, (&json!("2026-01-28T09:00:00.000Z"), &json!("2026-01-28T09:00:03.000Z")));
    assert_eq!(manifest["auditLogVersion"], env!("CARGO_PKG_VERSION"));
    let [one, two] = ["1", "2"].map(|job| format!("{job}/audit-0_20260128T000000.000Z.jsonl"));
    let damaged = json!({"count": 1, "told": [{"path": one, "index": 2, "reason": "not JSON"}]});
    assert_eq!(manifest["damaged"], damaged);
    assert_eq!(manifest["foreign"], json!({"count": 1, "told": [{"path": two, "index": 2}]}));
    assert_eq!(manifest["unreadable"], json!({"count": 0, "told": []}));
    let read = |path: &str, damaged: u64, foreign: u64| {
        let bytes = fs::metadata(audit.path().join(path)).unwrap().len();
        json!({"path": path, "bytes": bytes, "lines": 3, "damaged": damaged, "foreign": foreign})
    };
    assert_eq!(manifest["segments"], json!([read(&one, 1, 0), read(&two, 0, 1)]));
    let searched = &manifest["searched"];
    assert_eq!((&searched["segments"], &searched["ofSegments"], &searched["lines"]), (&json!(2), &json!(2), &json!(6)));
    let told = told(&output);
    let shown = format!("audit-log: 4 records are in {}\n", out.join("records.ndjson").display());
    assert!(told.contains(&shown) && told.lines().last().unwrap().contains("searched 2 of 2 segments"), "{told}");
}

#[test]
fn two_exports_of_segments_that_are_closed_have_the_same_bytes() {
    let (audit, temp) = (audit(), tempfile::tempdir().unwrap());
    for (format, flags) in [("ndjson", &[][..]), ("json", &[]), ("csv", &["--columns", "index,meta.n"])] {
        let outs = ["one", "two"].map(|name| temp.path().join(format!("{name}-{format}")));
        for out in &outs {
            let output = export(audit.path(), out, &[&["--format", format], flags].concat());
            assert!(output.status.success(), "{}", told(&output));
        }
        for name in ["manifest.json", &format!("records.{format}")] {
            let [one, two] = outs.each_ref().map(|out| fs::read_to_string(out.join(name)).unwrap());
            assert_eq!(one, two);
        }
    }
    let about = &manifest(&temp.path().join("one-csv"))["records"];
    assert_eq!((&about["file"], &about["format"]), (&json!("records.csv"), &json!("csv")));
    assert_eq!(about["columns"], json!(["index", "meta.n"]));
}

#[test]
fn an_export_can_be_checked_with_the_line_of_the_page_on_reading() {
    if !(tool("jq") && tool("sha256sum")) {
        return;
    }
    let (audit, temp) = (audit(), tempfile::tempdir().unwrap());
    let out = temp.path().join("march");
    assert!(export(audit.path(), &out, &[]).status.success());
    let page = crate::docs::block("docs/READING.md", "sha256sum -c");
    let check = page.lines().find(|line| line.contains("sha256sum -c")).unwrap().split(" #").next().unwrap();
    let check = || Command::new("bash").args(["-c", check]).current_dir(temp.path()).output().unwrap();
    let good = check();
    assert!(good.status.success() && good.stdout == b"records.ndjson: OK\n", "{good:?}");
    let records = out.join("records.ndjson");
    fs::write(&records, fs::read_to_string(&records).unwrap().replacen("\"n\":3", "\"n\":4", 1)).unwrap();
    assert!(!check().status.success());
}

#[test]
fn an_export_overwrites_nothing_and_writes_to_no_audit_directory() {
    let (audit, temp) = (audit(), tempfile::tempdir().unwrap());
    let out = temp.path().join("out");
    assert!(export(audit.path(), &out, &[]).status.success());
    let before = fs::read(out.join("manifest.json")).unwrap();
    std::os::unix::fs::symlink(audit.path().join("1"), temp.path().join("link")).unwrap();
    for (out, args, why) in [
        (out.clone(), &[][..], "`records.ndjson` is there already"),
        (out.clone(), &["--format", "csv"], "`manifest.json` is there already"),
        (audit.path().join("new"), &[], "where nothing is written"),
        (temp.path().join("link/new"), &[], "where nothing is written"),
        (temp.path().join("none/new"), &[], "its parent directory is not there"),
        (out.join("manifest.json"), &[], "not a directory"),
        (temp.path().join("new"), &["--format", "table"], "must be `ndjson`, `csv` or `json`"),
        (temp.path().join("new"), &["--columns", "ts"], "--columns: only"),
    ] {
        let output = export(audit.path(), &out, args);
        assert_eq!(output.status.code(), Some(2), "{out:?}");
        assert!(told(&output).contains(why) && output.stdout.is_empty(), "{out:?}: {}", told(&output));
    }
    assert_eq!(fs::read(out.join("manifest.json")).unwrap(), before);
    assert_eq!((names(&out).len(), names(temp.path())), (2, vec!["link".to_owned(), "out".to_owned()]));
    assert_eq!(names(audit.path()), ["1", "2"]);
}

#[test]
fn what_cannot_be_read_and_with_strict_what_is_damaged_makes_exit_1_and_stands_in_the_manifest() {
    let (audit, temp) = (audit(), tempfile::tempdir().unwrap());
    let (strict, gone) = (temp.path().join("strict"), temp.path().join("gone"));
    assert_eq!(export(audit.path(), &strict, &["--strict"]).status.code(), Some(1));
    assert_eq!(manifest(&strict)["damaged"]["count"], 1);
    assert_eq!(export(&audit.path().join("none"), &gone, &[]).status.code(), Some(1));
    let manifest = manifest(&gone);
    assert_eq!((&manifest["records"]["rows"], &manifest["unreadable"]["count"]), (&json!(0), &json!(1)));
    assert!(manifest["unreadable"]["told"][0]["reason"].as_str().unwrap().contains("No such file"), "{manifest}");
}

#[test]
fn an_export_to_stdout_is_the_records_alone_and_says_so() {
    let audit = audit();
    let output = export(audit.path(), Path::new("-"), &[]);
    assert!(output.status.success());
    let query = binary().args(["query", "--order", "asc", "--dir"]).arg(audit.path()).output().unwrap();
    assert_eq!(output.stdout, query.stdout);
    let told = told(&output);
    assert!(told.starts_with("audit-log: no manifest: ") && told.contains("searched 2 of 2 segments"), "{told}");
}

/// Starts an export of much, and waits until something is written of it.
fn begun(audit: &Path, out: &Path) -> (std::process::Child, Pid) {
    let child = command(audit, out, &[]).spawn().unwrap();
    let part = out.join("records.ndjson.part");
    wait_for("some records", || fs::metadata(&part).ok().filter(|part| part.len() > 0));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    (child, pid)
}

#[test]
fn an_export_that_is_killed_leaves_nothing_that_looks_whole_and_is_begun_anew() {
    let (audit, temp) = (large_audit(), tempfile::tempdir().unwrap());
    let out = temp.path().join("out");
    let (mut child, pid) = begun(audit.path(), &out);
    let second = export(audit.path(), &out, &[]);
    assert!(told(&second).contains("another export to it is under way"), "{}", told(&second));
    kill_process(pid, Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(names(&out), ["manifest.json.part", "records.ndjson.part"]);
    let third = export(audit.path(), &out, &[]);
    assert!(third.status.success(), "{}", told(&third));
    assert_eq!(names(&out), ["manifest.json", "records.ndjson"]);
    assert_eq!(manifest(&out)["records"]["rows"], 3000);
}

#[test]
fn an_export_that_is_interrupted_ends_by_the_signal_and_leaves_nothing() {
    let (audit, temp) = (large_audit(), tempfile::tempdir().unwrap());
    for signal in [Signal::INT, Signal::TERM] {
        let (mut child, pid) = begun(audit.path(), &temp.path().join("out"));
        kill_process(pid, signal).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        assert!(names(temp.path()).is_empty());
    }
}

/// In a file system of its own, with room for a part of it.
#[test]
fn an_export_that_does_not_fit_is_told_and_leaves_nothing() {
    if !tools(&["unshare", "mount"]) {
        return;
    }
    let (audit, temp) = (large_audit(), tempfile::tempdir().unwrap());
    let script =
        "mount -t tmpfs -o size=1m tmpfs \"$1\" && cd \"$1\" && \"$2\" export --dir \"$3\" --out out; echo $?; ls -A";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(temp.path()).arg(BINARY).arg(audit.path());
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{}", told(&output));
    let said = told(&output);
    assert!(said.contains("cannot write to out: No space left on device") && !said.contains("searched"), "{said}");
}

/// Runs a command on a terminal and passes on what comes there.
const TERMINAL: &str = r"
import fcntl, os, pty, struct, subprocess, sys, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('4H', 24, 80, 0, 0))
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=dict(os.environ, TERM='xterm'))
os.close(slave)
try:
    while part := os.read(master, 65536):
        sys.stdout.buffer.write(part)
except OSError:
    pass
sys.exit(child.wait())
";

/// What a terminal shows in the end, of text that goes up and clears lines as indicatif does.
fn shown(text: &str) -> String {
    let lines = text.split('\n').map(|line| line.rsplit("\u{1b}[2K").next().unwrap().trim_matches('\r'));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_terminal_sees_how_far_a_long_export_is_and_then_only_what_came_of_it() {
    if !tool("python3") {
        return;
    }
    let (audit, temp) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // More than a debug build reads within half a second.
    let lines: String = (0..3600).map(|second| line(second, "1", &json!("x".repeat(10)))).collect();
    fs::write(audit.path().join("audit-0_20260128T000000.000Z.jsonl"), lines.repeat(20)).unwrap();
    let mut command = Command::new("python3");
    command
        .args(["-c", TERMINAL, BINARY, "export", "--dir"])
        .arg(audit.path())
        .arg("--out")
        .arg(temp.path().join("out"));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" segments") || text.contains("writing: "), "{text:?}");
    let shown = shown(&text);
    assert!(!shown.contains('\u{1b}') && shown.lines().count() == 2, "{shown:?} of {text:?}");
    assert!(
        shown.starts_with("audit-log: 72,000 records are in ") && shown.contains("searched 1 of 1 segments"),
        "{shown:?}"
    );
    // In a pipe, nothing of it.
    let output = export(audit.path(), Path::new("-"), &[]);
    assert!(!told(&output).contains('\u{1b}') && told(&output).lines().count() == 2, "{}", told(&output));
}

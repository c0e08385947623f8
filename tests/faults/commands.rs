//! Each call of a start, a sweep and an install on files fails.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::load::{Answers, post, verified};
use crate::report::{self, Row, alone, held};
use crate::support::{BINARY, Client, Request, Setup, wait_for};

const ERRNOS: [&str; 5] = ["EIO", "ENOSPC", "EROFS", "EDQUOT", "EINTR"];

/// Each call with each error at each number up to `full`, or in the gate at the first `gate` of them.
fn cells<'a>(calls: &[&'a str], gate: u64, full: u64) -> Vec<(&'a str, &'static str, String)> {
    let numbers = report::rounds(gate, full);
    let with_errnos = calls.iter().flat_map(|call| ERRNOS.map(|errno| (*call, errno)));
    let with_numbers = with_errnos.flat_map(|(call, errno)| (1..=numbers).map(move |number| (call, errno, number)));
    with_numbers
        .map(|(call, errno, number)| (call, errno, format!("inject={call}:error={errno}:when={number}")))
        .collect()
}

/// Whether strace has tampered with a call. Not every start makes every call so often.
fn was_struck(trace: &Path) -> bool {
    std::fs::read_to_string(trace).unwrap().contains("(INJECTED)")
}

/// Runs a command of the sidecar's under strace; returns its status and what it printed on both streams.
fn run(args: &[&str], injection: &str, paths: &[&Path], trace: &Path) -> (ExitStatus, String) {
    // One that hangs is let go after a minute, and fails the test by its status.
    let mut command = Command::new("timeout");
    command.args(["60", "strace", "-f", "-qq", "-e", "signal=none", "-o"]).arg(trace).args(["-e", injection]);
    for path in paths {
        command.arg("-P").arg(path);
    }
    let output = command.args(["--", BINARY]).args(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status, said)
}

/// A process that ends with the test, however that ends.
struct Process(Child);

impl Process {
    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a start has gone: where it listens, or how it has ended.
enum Start {
    Listening(std::net::SocketAddr),
    Ended(ExitStatus),
}

#[test]
fn a_start_serves_or_says_why_not() {
    const ROW: Row = Row {
        test: "commands::a_start_serves_or_says_why_not",
        promise: "§1 exit 2 with the setting and the reason, or 1; §4.4 what comes later is refused and passes",
        fault: "open, stat, access, statfs, utimensat and fsync of the directory fail at the Nth, from the start on",
        how: "strace around the whole sidecar",
        control: "each fault is seen in the trace; a start that says nothing, or an event that is never \
                  accepted, fails",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let calls = ["openat", "statx", "access", "fstatfs", "utimensat", "fsync"];
    let (mut struck, mut refused) = (0, 0);
    for (call, errno, injection) in cells(&calls, 2, 5) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("audit");
        std::fs::create_dir(&dir).unwrap();
        let (trace, log) = (temp.path().join("trace"), temp.path().join("log"));
        let mut setup = Setup::in_dir(&dir);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        // With `-D` the child is the sidecar itself.
        setup.wrap("strace", &["-D", "-f", "-qq", "-P", &text(&dir), "-o", &text(&trace), "-e", &injection, "--"]);
        let mut child = Process(setup.command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
        let start = wait_for("a start or an end", || {
            if let Some(status) = child.0.try_wait().unwrap() {
                return Some(Start::Ended(status));
            }
            let said = std::fs::read_to_string(&log).unwrap();
            let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let listening = lines.into_iter().find(|line| line["message"] == "listening")?;
            Some(Start::Listening(listening["address"].as_str()?.parse().unwrap()))
        });
        match start {
            Start::Ended(status) => {
                let said = std::fs::read_to_string(&log).unwrap();
                assert!(
                    matches!(status.code(), Some(1 | 2)) && said.contains("--dir"),
                    "{injection}: {status}: {said}"
                );
                refused += 1;
            }
            Start::Listening(address) => {
                let mut answers = Answers::new();
                let mut client = Client::connect(address);
                for number in 0..3 {
                    let id = format!("{call}-{errno}-{number}");
                    let told = post(&mut client, &id);
                    answers.insert(id, told);
                }
                let ready = Request::new("GET", "/readyz");
                wait_for("readiness", || (client.send(&ready).status == 200).then_some(()));
                child.end();
                let found = verified(&dir, &answers);
                assert!(found.acknowledged >= 2 && found.empty == 0, "{injection}: {found:?} {answers:?}");
            }
        }
        struck += u64::from(was_struck(&trace));
    }
    assert!(struck >= 30, "only {struck} faults");
    held(&ROW, struck, &format!("{refused} starts refused with the reason, the others served; 0 lost"));
}

#[test]
fn a_sweep_removes_nothing_young_or_held() {
    const ROW: Row = Row {
        test: "commands::a_sweep_removes_nothing_young_or_held",
        promise: "§5 what can't be looked at is kept; a hold keeps everything; exit 1 says that something was not done",
        fault: "open, openat, newfstatat, fstat, statx, getdents64, pread64, unlinkat fail at the Nth",
        how: "strace around `audit-log sweep`",
        control: "seen red with a hold that can't be looked for taken for none",
    };
    const OLD: &str = "audit-0_20200101T000000.000Z.jsonl";
    const YOUNG: &str = "audit-1_20200101T000000.000Z.jsonl";
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, config, trace) = (temp.path().join("audit"), temp.path().join("config"), temp.path().join("trace"));
    std::fs::write(&config, "provider:\n  auditLog:\n    retentionPeriodInDays: 1\n").unwrap();
    std::fs::create_dir(&dir).unwrap();
    let (old, young, hold) = (dir.join(OLD), dir.join(YOUNG), dir.join("audit-log.hold"));
    std::fs::write(&young, "{\"ts\":\"2020-01-01T00:00:00.000Z\"}\n").unwrap();
    let args = ["sweep", "--config", config.to_str().unwrap(), dir.to_str().unwrap()];
    let sweep = |injection: &str| run(&args, injection, &[&dir, &old, &young, &hold], &trace);
    let put_old = || {
        std::fs::write(&old, "{\"ts\":\"2020-01-01T00:00:00.000Z\"}\n").unwrap();
        let file = std::fs::File::options().write(true).open(&old).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let calls = ["open", "openat", "newfstatat", "fstat", "statx", "getdents64", "pread64", "unlinkat"];
    let (mut struck, mut kept, mut removed) = (0, 0, 0);
    for held_back in [false, true] {
        if held_back {
            std::fs::write(&hold, "").unwrap();
        }
        for (_, _, injection) in cells(&calls, 2, 5) {
            put_old();
            let (status, said) = sweep(&injection);
            let what = format!("{injection}, hold {held_back}: {status}: {said}");
            assert!(young.exists(), "{what}");
            assert!(matches!(status.code(), Some(0 | 1)), "{what}");
            let is_struck = was_struck(&trace);
            struck += u64::from(is_struck);
            if held_back {
                assert!(old.exists(), "{what}");
            } else if status.success() {
                assert!(!old.exists(), "{what}");
            }
            kept += u64::from(is_struck && old.exists());
            removed += u64::from(is_struck && !old.exists());
        }
    }
    // No look for a hold succeeds: there may be one (what is always interrupted is tried for ever). It is looked for by
    // this name within an open folder.
    for errno in ERRNOS.into_iter().filter(|errno| *errno != "EINTR") {
        let injection = format!("inject=newfstatat:error={errno}");
        let (status, said) = run(&args, &injection, &[Path::new("audit-log.hold")], &trace);
        assert!(was_struck(&trace) && old.exists() && status.code() == Some(1), "{errno}: {status}: {said}");
        struck += 1;
    }
    // Without faults, with the hold and then without it.
    put_old();
    assert!(sweep("trace=unlinkat").0.success() && old.exists());
    std::fs::remove_file(&hold).unwrap();
    assert!(sweep("trace=unlinkat").0.success() && !old.exists());
    assert!(struck >= 60, "only {struck} faults");
    held(&ROW, struck, &format!("0 young or held removed; the old one kept {kept} times, removed {removed} times"));
}

#[test]
fn an_install_leaves_the_old_or_the_whole_new() {
    const ROW: Row = Row {
        test: "commands::an_install_leaves_the_old_or_the_whole_new",
        promise: "§1 `install`: exit 0 only if the binary is there, whole; whoever runs it sees the old or the new",
        fault: "copy_file_range, fchmod, fsync and rename fail at the Nth",
        how: "strace around `audit-log install`",
        control: "seen red without the removal of the temporary file",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, trace) = (temp.path().join("bin"), temp.path().join("trace"));
    std::fs::create_dir(&dir).unwrap();
    let target = dir.join("audit-log");
    let new = std::fs::read(BINARY).unwrap();
    let (mut struck, mut failed) = (0, 0);
    for (_, _, injection) in cells(&["copy_file_range", "fchmod", "fsync", "rename"], 1, 2) {
        std::fs::write(&target, "old").unwrap();
        let (status, said) = run(&["install", dir.to_str().unwrap()], &injection, &[], &trace);
        let left = std::fs::read(&target).unwrap();
        assert!(left == new || left == b"old" && status.code() == Some(1), "{injection}: {status}: {said}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "{injection}: {said}");
        struck += u64::from(was_struck(&trace));
        failed += u64::from(!status.success());
    }
    assert!(struck >= 18, "only {struck} faults");
    held(&ROW, struck, &format!("{failed} said that they failed; 0 half files, 0 temporary ones left"));
}

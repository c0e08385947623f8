//! How often to try, one test at a time, and what came of it, for `docs/RELIABILITY.md`.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use crate::support::tools;

/// A row of the page's table.
pub(crate) struct Row {
    /// The test, as `module::function`; the row's name.
    pub(crate) test: &'static str,
    /// Where the promise stands, such as `§4.1`, and the promise in a few words.
    pub(crate) promise: &'static str,
    /// What is broken.
    pub(crate) fault: &'static str,
    /// By which means.
    pub(crate) how: &'static str,
    /// What shows that the test can fail: the broken thing that it was seen to find.
    pub(crate) control: &'static str,
}

/// Tests of faults measure, mount and load the machine: one at a time, whatever `--test-threads` says.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many rounds to run: as many as fit the gate, all of them with `AUDIT_LOG_FAULTS=full`, or `AUDIT_LOG_ROUNDS`.
pub(crate) fn rounds(gate: u64, full: u64) -> u64 {
    match std::env::var("AUDIT_LOG_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap_or_else(|_| panic!("AUDIT_LOG_ROUNDS={rounds} is not a number")),
        Err(_) if is_full() => full,
        Err(_) => gate,
    }
}

/// Whether the full counts are wanted.
pub(crate) fn is_full() -> bool {
    std::env::var_os("AUDIT_LOG_FAULTS").is_some_and(|counts| counts == "full")
        && std::env::var_os("AUDIT_LOG_ROUNDS").is_none()
}

/// Says something past the harness's capture.
pub(crate) fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// The test has held: `times` faults were tried, and `result` is what was counted, in a few words and figures.
///
/// Said as one line, `HELD {…}`, of which `ci/reliability` makes a row of the page after a full run. After any other, the page
/// must have that row already.
pub(crate) fn held(row: &Row, times: u64, result: &str) {
    let record = serde_json::json!({
        "test": row.test,
        "promise": row.promise,
        "fault": row.fault,
        "how": row.how,
        "control": row.control,
        "times": times,
        "result": result,
        "full": is_full(),
    });
    say(&format!("HELD {record}"));
    let cell = |text: &str| text.replace('|', "\\|");
    let begins = format!("| {} | {} | {} | ", cell(row.promise), cell(row.fault), cell(row.how));
    let ends = format!(" | {} | `{}` |", cell(row.control), row.test);
    let page = include_str!("../../docs/RELIABILITY.md");
    let is_told = page.lines().any(|line| line.starts_with(&begins) && line.ends_with(&ends));
    assert!(is_full() || is_told, "docs/RELIABILITY.md has not the row of {}: `ci/long` writes it", row.test);
}

//! The commit protocol on a simulated disk: random histories of appends, faults, crashes and restarts, held against a
//! model of what clients were told.
//!
//! A history is a seed: `ci/simulate COUNT [SEED]` lives through so many, from that one on. A failing seed is printed with
//! every call of its history, and lives through the same again.

mod disk;
mod history;
mod random;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::disk::Lie;
use self::history::{Covered, LOST, live};
use crate::metrics::Metrics;

#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{variable}={value}")))
}

/// Lives through histories on all cores, until one breaks a promise.
fn live_all(first: u64, count: u64) -> Result<Covered, (u64, String)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let broken = AtomicBool::new(false);
    let some = |thread: u64| {
        let metrics = Arc::new(Metrics::new("simulation"));
        let mut covered = Covered::default();
        for seed in (first + thread..first + count).step_by(usize::try_from(threads).unwrap()) {
            if broken.load(Ordering::Relaxed) {
                break;
            }
            let Ok(one) = live(seed, None, &metrics, false) else {
                broken.store(true, Ordering::Relaxed);
                // The same seed once more, with its trace.
                return Err((seed, live(seed, None, &metrics, true).unwrap_err()));
            };
            covered.add(&one);
        }
        Ok(covered)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || some(thread))).collect();
        let mut all = Covered::default();
        for thread in threads {
            all.add(&thread.join().unwrap()?);
        }
        Ok(all)
    })
}

/// The harness finds the loss, within so many histories.
fn control(lie: Lie, seeds_max: u64) {
    let metrics = Arc::new(Metrics::new("simulation"));
    let lost = |seed| live(seed, Some(lie), &metrics, false).err().filter(|broken| broken.contains(LOST));
    let found = (0..seeds_max).find_map(lost).expect("the loss is found");
    say(&format!("FOUND {lie:?} within {seeds_max} seeds: {}", found.lines().next().unwrap_or_default()));
}

fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[test]
fn promises_are_kept_in_every_history() {
    let (first, count) = (number("AUDIT_LOG_SEED", 0), number("AUDIT_LOG_HISTORIES", 10_000));
    match live_all(first, count) {
        Ok(covered) => {
            let row = row(count, &covered);
            say(&format!("HELD {row}"));
            let page = include_str!("../../../docs/RELIABILITY.md");
            let is_told =
                ["test", "fault", "how", "control"].iter().all(|cell| page.contains(row[cell].as_str().unwrap()));
            assert!(row["full"] == true || is_told, "docs/RELIABILITY.md has not this row: `ci/long` writes it");
        }
        Err((seed, broken)) => {
            panic!("{broken}\nagain: ci/simulate 1 {seed}")
        }
    }
}

/// The line of which `docs/RELIABILITY.md` makes a row.
fn row(count: u64, covered: &Covered) -> serde_json::Value {
    let Covered { acknowledged, no, unknown, faults, kills, power_cuts, deletions } = covered;
    serde_json::json!({
        "test": "simulation::promises_are_kept_in_every_history",
        "promise": "§2 `no` is never said wrongly; §3 times and names; §4.1–§4.4",
        "fault": "EIO, ENOSPC, EDQUOT, EROFS, EINTR, EFBIG, short and lying writes, hangs at any call; kill and power cut in any call; \
                  clock steps; the active segment deleted",
        "how": "the commit protocol on a simulated disk that keeps written and synced apart, random histories",
        "control": "a faked sync, a faked directory sync, a faked length, a sync after the answer: each found within 100 histories",
        "times": count,
        "result": format!(
            "{faults} faults, {kills} kills, {power_cuts} power cuts, {deletions} deletions; {acknowledged} acknowledged, 0 lost; \
             {no} `no`, 0 of them found; {unknown} `unknown`"
        ),
        "full": count >= 100_000,
    })
}

#[test]
fn a_faked_sync_is_found() {
    control(Lie::SyncFaked, 100);
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    control(Lie::DirectorySyncFaked, 100);
}

#[test]
fn a_length_that_is_not_checked_is_found() {
    control(Lie::LengthFaked, 100);
}

#[test]
fn an_answer_before_the_sync_is_found() {
    control(Lie::SyncLate, 100);
}

//! What retention removes and what it never does (contract §5).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use audit_log::clock::{Clock, ManualClock, SystemClock};
use audit_log::record::{DAY_MS, SegmentName, Timestamp};
use audit_log::retention::{Notice, Rule, Scope, Summary, sweep};

use crate::support::disk::Faults;
use crate::support::inside::{Inside, InsideApp, NOW, options};
use crate::support::{Setup, binary, wait_for};

const RULE: Rule = Rule { days: 30 };

fn days_before(now: Timestamp, days: i64) -> Timestamp {
    now.plus_millis(-days * DAY_MS)
}

fn set_modified(path: &Path, at: Timestamp) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(at.millis().try_into().unwrap());
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Makes a file of a name, a content and a modification time.
fn file(dir: &Path, name: &str, content: &str, modified: Timestamp) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    set_modified(&path, modified);
    path
}

fn segment(at: Timestamp) -> String {
    SegmentName::new(0, at).to_string()
}

fn line(at: Timestamp) -> String {
    format!("{{\"ts\":\"{at}\",\"event\":\"a\"}}\n")
}

fn run(dir: &Path, scope: Scope, rule: Rule, now: Timestamp) -> (Summary, Vec<String>) {
    let mut removed = Vec::new();
    let summary = sweep(dir, scope, rule, now, false, &mut |notice| match notice {
        Notice::Removed { path, .. } | Notice::RemovedFolder { path } => {
            removed.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
        }
        Notice::Kept { path, error } => panic!("{}: {error}", path.display()),
        Notice::Hold { .. } => {}
    })
    .unwrap();
    removed.sort();
    (summary, removed)
}

#[test]
fn a_segment_goes_when_its_name_its_file_and_its_last_line_are_all_too_old() {
    let now = NOW;
    let (old, young) = (days_before(now, 30).plus_millis(-1), days_before(now, 30));
    let temp = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut expected = Vec::new();
    for name_at in [old, young] {
        for modified in [old, young] {
            for last in [Some(old), Some(young), None] {
                number += 1;
                let name = SegmentName::new(number, name_at).to_string();
                file(temp.path(), &name, &last.map(line).unwrap_or_default(), modified);
                if name_at == old && modified == old && last != Some(young) {
                    expected.push(name);
                }
            }
        }
    }
    expected.sort();
    let (summary, removed) = run(temp.path(), Scope::Directory, RULE, now);
    assert_eq!(removed, expected);
    assert_eq!((summary.segments, summary.removed), (12, 2));
}

#[test]
fn ucloud_s_names_and_times_and_compressed_segments_are_known() {
    let now = Timestamp::parse_rfc3339("2026-03-01T00:00:00Z").unwrap();
    let long_ago = days_before(now, 365);
    let temp = tempfile::tempdir().unwrap();
    // 2026-01-29 ends at 2026-01-30T00:00Z, exactly 30 days before.
    file(temp.path(), "audit-0-2026-01-29.jsonl", "", long_ago);
    let gone = "audit-0-2026-01-28.jsonl";
    file(temp.path(), gone, &format!("{{\"ts\":{}}}\n", long_ago.millis()), long_ago);
    file(temp.path(), "audit-1-2026-01-28.jsonl", &format!("{{\"ts\":{}}}\n", now.millis()), long_ago);
    for (name, content) in [("audit-2_20250101T000000.000Z.jsonl.gz", "x"), ("audit-2-2025-01-01.jsonl.zst", "x")] {
        file(temp.path(), name, content, long_ago);
    }
    file(temp.path(), "audit-3_20250101T000000.000Z.jsonl.gz", "x", now);
    let (_, removed) = run(temp.path(), Scope::Directory, RULE, now);
    assert_eq!(removed, [gone, "audit-2-2025-01-01.jsonl.zst", "audit-2_20250101T000000.000Z.jsonl.gz"]);
}

#[test]
fn nothing_but_regular_files_of_an_exact_name_is_touched_and_no_link_followed() {
    let now = NOW;
    let old = days_before(now, 400);
    let temp = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let target = file(outside.path(), &segment(old), &line(old), old);
    let dir = temp.path();
    for name in [
        "audit-0.jsonl",
        "audit-00_20200101T000000.000Z.jsonl",
        "audit-0_20200101T000000.000Z.jsonl.bak",
        "config.yaml",
        "audit-log.hold.old",
    ] {
        file(dir, name, "x", old);
    }
    std::os::unix::fs::symlink(&target, dir.join("audit-1_20200101T000000.000Z.jsonl")).unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.join("job")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", dir.join("audit-2_20200101T000000.000Z.jsonl")).unwrap();
    fs::create_dir(dir.join("audit-3_20200101T000000.000Z.jsonl")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("audit-4_20200101T000000.000Z.jsonl"), rustix::fs::Mode::RUSR)
        .unwrap();
    let before = fs::read_dir(dir).unwrap().count();
    let (summary, removed) = run(dir, Scope::Tree, RULE, now);
    assert!(removed.is_empty(), "{removed:?}");
    assert_eq!(summary.segments, 0);
    assert_eq!(fs::read_dir(dir).unwrap().count(), before);
    assert!(target.exists());
}

#[test]
fn a_hold_keeps_everything_at_and_below_it() {
    let now = NOW;
    let old = days_before(now, 400);
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("audit");
    for job in ["held", "held/below/deep", "free"] {
        file(&dir.join(job), &segment(old), &line(old), old);
    }
    fs::create_dir(dir.join("held/empty")).unwrap();
    set_modified(&dir.join("held/empty"), old);
    file(&dir.join("held"), "audit-log.hold", "", old);
    let (summary, removed) = run(&dir, Scope::Tree, RULE, now);
    assert_eq!(removed, [format!("free/{}", segment(old))]);
    assert_eq!(summary.holds, 1);
    // One above the directory that is named counts as well, and so does a link of that name.
    fs::remove_file(dir.join("held/audit-log.hold")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", temp.path().join("audit-log.hold")).unwrap();
    let (summary, removed) = run(&dir, Scope::Tree, RULE, now);
    assert!(removed.is_empty());
    assert_eq!(summary.holds, 1);
    let (_, removed) = run(&dir.join("held"), Scope::Directory, RULE, now);
    assert!(removed.is_empty());
    fs::remove_file(temp.path().join("audit-log.hold")).unwrap();
    assert_eq!(run(&dir.join("held"), Scope::Directory, RULE, now).1, [segment(old)]);
}

#[test]
fn a_hold_that_is_placed_during_a_sweep_is_kept() {
    let now = NOW;
    let old = days_before(now, 400);
    let temp = tempfile::tempdir().unwrap();
    for number in 0..10 {
        file(&temp.path().join("job"), &SegmentName::new(number, old).to_string(), &line(old), old);
    }
    let hold = temp.path().join("audit-log.hold");
    let summary = sweep(temp.path(), Scope::Tree, RULE, now, false, &mut |_| fs::write(&hold, "").unwrap()).unwrap();
    assert_eq!(summary.removed, 1);
    assert_eq!(fs::read_dir(temp.path().join("job")).unwrap().count(), 9);
}

#[test]
fn only_empty_old_folders_of_jobs_are_removed_and_never_the_directory_named() {
    let now = NOW;
    let (old, young) = (days_before(now, 31), days_before(now, 29));
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("volume");
    for (folder, modified) in [
        ("1", old),
        ("2", young),
        ("3/sub", old),
        ("audit/4", old),
        ("audit/5", young),
        ("other/6/audit/7", old),
        (".snapshot", old),
        ("lost+found", old),
        (".git/refs/tags", old),
    ] {
        fs::create_dir_all(dir.join(folder)).unwrap();
        set_modified(&dir.join(folder), modified);
    }
    set_modified(&dir, old);
    let (summary, removed) = run(&dir, Scope::Tree, RULE, now);
    assert_eq!(removed, ["1", "audit/4", "other/6/audit/7"]);
    assert_eq!(summary.removed_folders, 3);
    assert!(dir.join(".git/refs/tags").exists() && dir.join("3/sub").exists());
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set_modified(&empty, old);
    run(&empty, Scope::Tree, RULE, now);
    assert!(empty.exists());
    // A folder whose segments go now was changed now: it goes a period later.
    file(&dir.join("8"), &segment(old), "", old);
    set_modified(&dir.join("8"), old);
    let later = SystemClock.now();
    assert_eq!(run(&dir.join("8"), Scope::Directory, RULE, later).1.len(), 1);
    assert!(!run(&dir, Scope::Tree, RULE, later).1.contains(&"8".to_owned()));
}

#[test]
fn serve_sweeps_its_own_directory_only_of_every_rank() {
    let now = NOW;
    let old = days_before(now, 400);
    let temp = tempfile::tempdir().unwrap();
    for rank in [0, 1, 77] {
        file(temp.path(), &SegmentName::new(rank, old).to_string(), &line(old), old);
    }
    file(&temp.path().join("below"), &segment(old), &line(old), old);
    assert_eq!(run(temp.path(), Scope::Directory, RULE, now).1.len(), 3);
    assert!(temp.path().join("below").join(segment(old)).exists());
}

#[test]
fn a_directory_of_100_000_segments_is_swept() {
    let now = NOW;
    let temp = tempfile::tempdir().unwrap();
    for number in 0..100_000 {
        let at = days_before(now, 1 + i64::from(number % 60));
        let name = SegmentName::new(number, at).to_string();
        fs::write(temp.path().join(&name), "").unwrap();
        set_modified(&temp.path().join(&name), at);
    }
    let (summary, _) = run(temp.path(), Scope::Directory, RULE, now);
    assert_eq!(summary.segments, 100_000);
    let left = fs::read_dir(temp.path()).unwrap().count();
    // Ages of 1 to 30 days are kept.
    assert_eq!((u64::try_from(left).unwrap() + summary.removed, left), (100_000, 50_010));
}

#[test]
fn a_tree_deeper_than_is_walked_is_kept_and_told() {
    let temp = tempfile::tempdir().unwrap();
    let mut deep = temp.path().to_owned();
    for _ in 0..40 {
        deep.push("d");
    }
    let old = days_before(NOW, 400);
    let path = file(&deep, &segment(old), "", old);
    let mut told = 0;
    let summary = sweep(temp.path(), Scope::Tree, RULE, NOW, false, &mut |notice| {
        told += usize::from(matches!(notice, Notice::Kept { .. }));
    })
    .unwrap();
    assert_eq!((summary.errors, told, path.exists()), (1, 1, true));
}

#[test]
fn sweeping_beside_writers_that_fall_idle_over_midnight_loses_nothing_young() {
    let clock = ManualClock::new(Timestamp::parse_rfc3339("2026-01-28T00:00:00Z").unwrap());
    let temp = tempfile::tempdir().unwrap();
    let writers: Vec<_> =
        (0..4).map(|_| Inside::in_dir(temp.path(), clock.clone(), &Faults::none(), options())).collect();
    let mut appended = 0;
    for day in 0..6 {
        for (number, writer) in writers.iter().enumerate() {
            if (day + number) % 2 == 0 {
                // Each takes a name of its own.
                clock.pass(Duration::from_millis(1));
                let ack = writer.append("a").unwrap();
                appended += 1;
                set_modified(&temp.path().join(&*ack.segment), clock.now());
            }
        }
        clock.pass(Duration::from_hours(24));
        let before = crate::support::lines(temp.path());
        run(temp.path(), Scope::Tree, Rule { days: 1 }, clock.now());
        let after = crate::support::lines(temp.path());
        for line in before {
            let ts = Timestamp::parse_rfc3339(line["ts"].as_str().unwrap()).unwrap();
            let young = clock.now().millis() - ts.millis() <= DAY_MS;
            assert!(!young || after.contains(&line), "day {day}: {line} is gone");
        }
    }
    assert_eq!(appended, 12);
    // What was swept has not been written back.
    assert!(crate::support::lines(temp.path()).len() < 12);
}

#[test]
fn a_clock_that_runs_ahead_removes_nothing() {
    let clock = ManualClock::new(NOW);
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    let set =
        |days: u32| fs::write(&config, format!("provider: {{auditLog: {{retentionPeriodInDays: {days}}}}}")).unwrap();
    set(36_500);
    let app = InsideApp::start(clock.clone(), &Faults::none(), options(), Some(&config));
    let aged = |days: i64| {
        let at = days_before(NOW, days);
        file(&app.dir, &segment(at), &line(at), at)
    };
    let (year, decade) = (aged(365), aged(3650));
    let text = || app.send(&crate::support::Request::new("GET", "/metrics")).text();
    // The time of the start is taken by now.
    wait_for("the first setting", || text().contains("audit_log_retention_days 36500").then_some(()));
    clock.set(NOW.plus_millis(3_600_001));
    set(1000);
    wait_for("the setting", || text().contains("audit_log_retention_days 1000").then_some(()));
    // By the time the next setting is in force, the last has been acted upon.
    set(999);
    wait_for("the next setting", || text().contains("audit_log_retention_days 999").then_some(()));
    assert!(decade.exists());
    // An hour and more ahead of the time since the start: not even what is old by any clock.
    clock.set(NOW.plus_millis(3_600_000));
    set(500);
    wait_for("the removal", || (!decade.exists()).then_some(()));
    assert!(year.exists());
    assert!(text().contains("audit_log_segments_removed_total 1"));
}

#[test]
fn the_sweep_command_prints_a_table_and_obeys_dry_run() {
    let now = SystemClock.now();
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("audit");
    let old = days_before(now, 200);
    let doomed = file(&dir.join("1"), &segment(old), &line(old), old);
    let kept = file(&dir.join("2"), &segment(days_before(now, 100)), "", old);
    file(&dir.join("3"), "audit-log.hold", "", old);
    let config = temp.path().join("config.yaml");
    fs::write(&config, "provider:\n  auditLog:\n    retentionPeriodInDays: 180\n").unwrap();
    let sweep = |args: &[&str]| {
        let output = binary()
            .arg("sweep")
            .args(args)
            .arg(&dir)
            .arg("--config")
            .arg(&config)
            .args(["--log-format", "json"])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, table, log) = sweep(&["--dry-run"]);
    assert_eq!(code, Some(0), "{log}");
    let would = format!("would remove: {} ({} bytes, newest {old})\n", doomed.display(), line(old).len());
    assert!(table.contains(&would) && table.contains("older than 180 days\n"), "{table}");
    let hold = format!("on hold: {}\n", dir.join("3").display());
    assert!(table.contains(&hold), "{table}");
    assert!(doomed.exists());

    let (code, table, log) = sweep(&[]);
    assert_eq!(code, Some(0));
    let row: Vec<_> = table.lines().last().unwrap().split_whitespace().collect();
    let bytes = line(old).len().to_string();
    assert_eq!(row[1..], ["4", "2", "1", &bytes, "0", "1", "0"], "{table}");
    assert!(!doomed.exists() && kept.exists());
    let removal: serde_json::Value = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .find(|line| line["message"] == "segment removed")
        .unwrap();
    assert_eq!(removal["path"], doomed.to_str().unwrap());
    assert_eq!(
        (removal["newest"].as_str().unwrap(), removal["rule"].as_str().unwrap()),
        (old.to_string().as_str(), "retentionPeriodInDays=180")
    );
    assert_eq!(removal["bytes"].as_u64().unwrap().to_string(), bytes);
}

#[test]
fn sweep_with_a_bad_setting_is_exit_2_and_removes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let old = days_before(SystemClock.now(), 4000);
    let segment = file(&temp.path().join("audit"), &segment(old), &line(old), old);
    let config = temp.path().join("config.yaml");
    for (text, args, code) in [
        (Some("provider: {auditLog: {retentionPeriodInDays: 0}}"), vec![], 2),
        (Some("provider: {auditLog: {retentionPeriodInDays: -5}}"), vec![], 2),
        (Some("provider: {auditLog: {retentionPeriodinDays: 5}}"), vec![], 2),
        (Some("provider: {auditLog: {retentionPeriodInDays: 29}}"), vec!["--retention-floor", "30"], 2),
        (Some("provider: ["), vec![], 2),
        (None, vec![], 2),
        (Some("provider: {}"), vec![], 0),
        (Some("provider: {auditLog: {retentionPeriodInDays: 30}}"), vec!["--retention-floor", "0"], 2),
    ] {
        match text {
            Some(text) => fs::write(&config, text).unwrap(),
            None => fs::remove_file(&config).unwrap(),
        }
        let output = binary()
            .arg("sweep")
            .args(&args)
            .arg("--config")
            .arg(&config)
            .arg(temp.path().join("audit"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{text:?}");
        assert!(segment.exists(), "{text:?}");
        if code == 2 {
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(message.contains("config.yaml") || message.contains("--retention-floor"), "{message}");
        }
    }
    let output = binary().args(["sweep", "/nonexistent/audit", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_running_sidecar_keeps_its_folder_young() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("5003592");
    fs::create_dir(&dir).unwrap();
    set_modified(&dir, days_before(SystemClock.now(), 400));
    let _sidecar = Setup::in_dir(&dir).start();
    wait_for("the folder's time", || {
        let age = fs::metadata(&dir).unwrap().modified().unwrap().elapsed().unwrap_or_default();
        (age < Duration::from_hours(1)).then_some(())
    });
    let (_, removed) = run(temp.path(), Scope::Tree, Rule { days: 1 }, SystemClock.now());
    assert!(removed.is_empty());
}

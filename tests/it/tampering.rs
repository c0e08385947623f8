//! What somebody with write access does to the active segment, and what becomes of it (contract §4.3 and §4.4).

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use audit_log::clock::ManualClock;
use audit_log::writer::{AppendError, Options, Written};

use crate::support::disk::{Call, Faults};
use crate::support::inside::{Inside, InsideApp, NOW, Ticking, options};
use crate::support::{Request, segments, wait_for};

/// A writer that checks only around commits, or also all the time.
fn start(idle_checks: bool) -> Inside {
    let check_every = if idle_checks { Duration::from_millis(5) } else { Duration::from_hours(1) };
    Inside::start(Ticking(ManualClock::new(NOW)), &Faults::none(), Options { check_every, ..options() })
}

fn tampering(inside: &Inside, kind: &str) -> u64 {
    inside.metrics.tampering_total.with_label_values(&[kind]).get()
}

type Act = fn(&PathBuf);

/// What is done to the segment, its kind, and how many of the three lines written before are then found.
const ACTS: [(&str, Act, &str); 6] = [
    ("deleted", |path| fs::remove_file(path).unwrap(), "abc"),
    ("renamed", |path| fs::rename(path, path.with_file_name("away.jsonl")).unwrap(), "abc"),
    (
        "replaced",
        |path| {
            fs::write(path.with_file_name("other"), "{\"event\":\"x\"}\n").unwrap();
            fs::rename(path.with_file_name("other"), path).unwrap();
        },
        "abcx",
    ),
    ("cut", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap(), ""),
    (
        "appended",
        |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"event\":\"x\"}\n").unwrap(),
        "abcx",
    ),
    (
        "replaced",
        |path| {
            fs::rename(path, path.with_file_name("away.jsonl")).unwrap();
            std::os::unix::fs::symlink("away.jsonl", path).unwrap();
        },
        "aabbcc",
    ),
];

/// The one-letter names of all events in the directory, sorted; a copy that is being made may still lack some.
fn events(inside: &Inside) -> String {
    let entries = fs::read_dir(&inside.dir).unwrap();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    let mut names: Vec<_> = texts
        .flat_map(|text| {
            text.lines().filter_map(|line| line.split("\"event\":\"").nth(1)?.chars().next()).collect::<Vec<_>>()
        })
        .collect();
    names.sort_unstable();
    names.into_iter().collect()
}

#[test]
fn a_segment_that_somebody_changed_is_noticed_at_the_next_commit_and_left() {
    for (kind, act, before) in ACTS {
        let inside = start(false);
        let first = inside.append("a").unwrap().segment;
        inside.append("b").unwrap();
        inside.append("c").unwrap();
        act(&inside.dir.join(&*first));
        let next = inside.append("d").unwrap();
        assert_ne!(next.segment, first, "{kind}");
        assert_eq!((next.index, tampering(&inside, kind)), (0, 1), "{kind}");
        let expected: String = {
            let mut all: Vec<_> = format!("{before}d").chars().collect();
            all.sort_unstable();
            all.into_iter().collect()
        };
        wait_for("the copy", || (events(&inside) == expected).then_some(()));
        assert_eq!(inside.append("e").unwrap().segment, next.segment);
    }
}

#[test]
fn a_segment_that_somebody_changed_is_noticed_while_idle() {
    for (kind, act, _) in ACTS {
        let inside = start(true);
        let first = inside.append("a").unwrap().segment;
        act(&inside.dir.join(&*first));
        wait_for(kind, || (tampering(&inside, kind) == 1).then_some(()));
    }
}

#[test]
fn a_segment_that_is_changed_during_the_commit_is_noticed_before_the_answer() {
    for (kind, act, _) in ACTS {
        let faults = Faults::none();
        let options = Options { check_every: Duration::from_hours(1), ..options() };
        let inside = Inside::start(Ticking(ManualClock::new(NOW)), &faults, options);
        let first = inside.append("a").unwrap().segment;
        let path = inside.dir.join(&*first);
        let mut armed = true;
        faults.set(move |call| {
            if call == Call::SyncData && std::mem::take(&mut armed) {
                act(&path);
            }
            Ok(())
        });
        let next = inside.append("d").unwrap();
        assert_ne!(next.segment, first, "{kind}");
        assert_eq!(tampering(&inside, kind), 1, "{kind}");
        let line = segments_text(&inside, &next.segment);
        assert!(line.contains("\"event\":\"d\""), "{kind}");
    }
}

fn segments_text(inside: &Inside, segment: &str) -> String {
    String::from_utf8(segments(&inside.dir)[segment].clone()).unwrap()
}

#[test]
fn a_deleted_segment_is_copied_back_under_its_name_whole() {
    let inside = start(false);
    let first = inside.append("a").unwrap().segment;
    for _ in 0..2000 {
        inside.append("b").unwrap();
    }
    let before = segments(&inside.dir)[&*first].clone();
    fs::remove_file(inside.dir.join(&*first)).unwrap();
    inside.append("c").unwrap();
    wait_for("the copy", || (segments(&inside.dir).get(&*first) == Some(&before)).then_some(()));
}

#[test]
fn a_deleted_segment_outlasts_a_directory_that_is_covered_for_a_while() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, away) = (temp.path().join("audit"), temp.path().join("away"));
    fs::create_dir(&dir).unwrap();
    let clock = ManualClock::new(NOW);
    let faults = Faults::none();
    let inside = Inside::in_dir(&dir, clock.clone(), &faults, options());
    let first = inside.append("a").unwrap().segment;
    fs::remove_file(dir.join(&*first)).unwrap();
    fs::rename(&dir, &away).unwrap();
    fs::create_dir(&dir).unwrap();
    // The clock steps back, so that the segment is closed while nothing can be copied back.
    clock.set(NOW.plus_millis(-5000));
    faults.calls();
    wait_for("some tries", || {
        (faults.calls().iter().filter(|call| **call == Call::Ensure).count() > 1)
            .then(|| clock.pass(Duration::from_secs(1)))
    });
    fs::remove_dir(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    wait_for("the copy", || {
        clock.pass(Duration::from_secs(1));
        (events(&inside) == "a").then_some(())
    });
}

#[test]
fn of_a_segment_that_was_cut_and_then_deleted_what_is_left_is_copied_back() {
    let mut inside = start(false);
    let first = inside.append("a").unwrap().segment;
    let length = fs::metadata(inside.dir.join(&*first)).unwrap().len();
    inside.append("b").unwrap();
    fs::OpenOptions::new().write(true).open(inside.dir.join(&*first)).unwrap().set_len(length).unwrap();
    fs::remove_file(inside.dir.join(&*first)).unwrap();
    inside.close();
    assert_eq!(inside.names(), [["a"]]);
}

#[test]
fn a_deleted_segment_is_copied_back_at_the_end_at_the_latest() {
    let mut inside = start(false);
    let first = inside.append("a").unwrap().segment;
    fs::remove_file(inside.dir.join(&*first)).unwrap();
    inside.close();
    assert_eq!(inside.names(), [["a"]]);
}

#[test]
fn copying_back_is_tried_until_it_succeeds_and_leaves_nothing_torn() {
    let faults = Faults::none();
    let inside = Inside::start(Ticking(ManualClock::new(NOW)), &faults, options());
    let first = inside.append("a").unwrap().segment;
    // Removed in the middle of a commit that lasts: the check before the next is what finds it.
    fs::remove_file(inside.dir.join(&*first)).unwrap();
    faults.break_calls([Call::Create], crate::support::disk::ENOSPC);
    assert!(inside.append("b").is_err());
    faults.break_calls([Call::Write], crate::support::disk::ENOSPC);
    assert!(inside.append("b").is_err());
    assert!(segments(&inside.dir).is_empty());
    faults.clear();
    inside.append("c").unwrap();
    drop_and_read(inside, &first);
}

fn drop_and_read(mut inside: Inside, first: &str) {
    inside.close();
    let names = inside.names();
    assert_eq!(names.concat().len(), 2, "{names:?}");
    assert!(segments(&inside.dir).contains_key(first));
}

#[test]
fn what_others_did_during_a_failing_write_is_neither_filled_up_nor_cut_off() {
    let acts: [(Act, &str); 2] = [
        (|path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap(), ""),
        (
            |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&[b'x'; 1000]).unwrap(),
            "xxxxxxxxxx",
        ),
    ];
    for (act, kept) in acts {
        let faults = Faults::none();
        let inside = Inside::start(Ticking(ManualClock::new(NOW)), &faults, options());
        let first = inside.append("a").unwrap().segment;
        let path = inside.dir.join(&*first);
        let target = path.clone();
        faults.set(move |call| {
            if call == Call::Write {
                act(&target);
                return Err(std::io::Error::from_raw_os_error(crate::support::disk::EIO));
            }
            Ok(())
        });
        match inside.append("b").unwrap_err() {
            AppendError::Refused(refusal) => assert_eq!(refusal.written, Written::Unknown),
            other => panic!("{other}"),
        }
        faults.clear();
        assert_ne!(inside.append("c").unwrap().segment, first);
        let left = fs::read(&path).unwrap();
        assert!(!left.contains(&0), "NUL bytes in what was acknowledged");
        assert!(String::from_utf8_lossy(&left).contains(kept));
    }
}

#[test]
fn a_hard_link_is_no_tampering() {
    let inside = start(false);
    let first = inside.append("a").unwrap().segment;
    fs::hard_link(inside.dir.join(&*first), inside.dir.join("link")).unwrap();
    assert_eq!(inside.append("b").unwrap().segment, first);
}

#[test]
fn a_directory_that_is_moved_away_or_covered_takes_no_events_until_it_is_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("audit");
    fs::create_dir(&dir).unwrap();
    let inside = Inside::in_dir(&dir, Ticking(ManualClock::new(NOW)), &Faults::none(), options());
    let first = inside.append("a").unwrap();
    fs::rename(&dir, temp.path().join("away")).unwrap();
    for replaced in [false, true] {
        if replaced {
            fs::create_dir(&dir).unwrap();
        }
        match inside.append("b").unwrap_err() {
            AppendError::Refused(refusal) => assert_eq!((refusal.full, refusal.written), (false, Written::No)),
            other => panic!("{other}"),
        }
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    fs::remove_dir(&dir).unwrap();
    fs::rename(temp.path().join("away"), &dir).unwrap();
    // The same segment goes on.
    assert_eq!(inside.append("c").unwrap().segment, first.segment);
    assert_eq!(inside.names(), [["a", "c"]]);
}

#[test]
fn a_directory_that_was_removed_is_adopted_when_it_is_made_again_and_its_lines_come_back() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("audit");
    fs::create_dir(&dir).unwrap();
    let inside = Inside::in_dir(&dir, Ticking(ManualClock::new(NOW)), &Faults::none(), options());
    inside.append("a").unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(inside.append("b"), Err(AppendError::Refused(_))));
    fs::create_dir(&dir).unwrap();
    inside.append("c").unwrap();
    wait_for("the copy", || (events(&inside) == "ac").then_some(()));
}

#[test]
fn readiness_tells_of_a_directory_that_is_gone_replaced_or_not_writable() {
    let app = InsideApp::start(audit_log::clock::SystemClock, &Faults::none(), options(), None);
    let ready = || app.send(&Request::new("GET", "/readyz"));
    assert_eq!(ready().status, 200);
    let away = app.dir.with_file_name("away");
    fs::rename(&app.dir, &away).unwrap();
    ready().refused(503, "not_ready");
    fs::create_dir(&app.dir).unwrap();
    let reason = ready().refused(503, "not_ready");
    assert!(reason.contains("another directory"), "{reason}");
    app.post("a").refused_unwritten(503, "storage_failed");
    fs::remove_dir(&app.dir).unwrap();
    fs::rename(&away, &app.dir).unwrap();
    assert_eq!(app.post("a").status, 200);
    assert_eq!(ready().status, 200);
}

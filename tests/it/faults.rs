//! What is said, and what is left, when the file system fails (contract §2 `Audit-Written`, §4.2 and §4.4).

use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use audit_log::clock::ManualClock;
use audit_log::writer::{AppendError, Options, Refusal, Written};

use crate::support::disk::{Call, EDQUOT, EFBIG, EIO, ENOSPC, EROFS, Faults};
use crate::support::inside::{Inside, InsideApp, NOW, Ticking, options};
use crate::support::{Request, Setup, segments, wait_for};

fn start(faults: &Faults) -> Inside {
    Inside::start(Ticking(ManualClock::new(NOW)), faults, options())
}

fn refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

#[test]
fn after_a_failed_sync_the_lines_go_to_a_new_segment_and_the_old_is_never_synced_again() {
    let faults = Faults::none();
    let inside = start(&faults);
    let first = inside.append("a").unwrap();
    faults.calls();
    faults.fail(Call::SyncData, 1, EIO);
    let second = inside.append("b").unwrap();
    assert_ne!(first.segment, second.segment);
    assert_eq!(second.index, 0);
    assert_eq!(inside.names(), [vec!["a"], vec!["b"]]);
    // The failed sync, its cut, and then only calls for the new segment: one data sync, one directory sync.
    let calls: Vec<_> =
        faults.calls().into_iter().filter(|c| !matches!(c, Call::Stat | Call::Ensure | Call::Write)).collect();
    assert_eq!(calls, [Call::SyncData, Call::Cut, Call::Create, Call::SyncData, Call::SyncDirectory]);
    assert_eq!(inside.append("c").unwrap().segment, second.segment);
}

#[test]
fn lines_are_moved_once_and_then_refused() {
    let faults = Faults::none();
    let inside = start(&faults);
    inside.append("a").unwrap();
    faults.fail(Call::SyncData, 2, EIO);
    let refused = refusal(inside.append("b").unwrap_err());
    assert_eq!((refused.full, refused.written), (false, Written::No));
    assert!(inside.appender.health().failure.is_some());
    inside.append("c").unwrap();
    assert!(inside.appender.health().failure.is_none());
    assert_eq!(inside.names(), [vec!["a"], vec!["c"]]);
}

#[test]
fn no_is_said_only_if_what_was_written_was_taken_back_durably() {
    // Each row: what fails, and whether the client may hear `no`.
    type Row = (&'static [Call], bool);
    let rows: [Row; 7] = [
        (&[Call::Write], true),
        (&[Call::Write, Call::Cut], false),
        (&[Call::SyncData], true),
        (&[Call::SyncData, Call::Cut], false),
        (&[Call::SyncData, Call::Cut, Call::Remove], false),
        (&[Call::SyncData, Call::Create], true),
        (&[Call::SyncData, Call::Cut, Call::Create], false),
    ];
    for (broken, taken_back) in rows {
        let faults = Faults::none();
        let inside = start(&faults);
        inside.append("a").unwrap();
        let kinds = broken.to_vec();
        faults.set(move |call| if kinds.contains(&call) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) });
        let refused = refusal(inside.append("b").unwrap_err());
        assert_eq!(refused.written, if taken_back { Written::No } else { Written::Unknown }, "{broken:?}");
        faults.clear();
        inside.append("c").unwrap();
        let left = segments(&inside.dir).values().any(|bytes| String::from_utf8_lossy(bytes).contains("\"b\""));
        assert!(!(left && taken_back), "{broken:?}: it said no, and the line is there");
    }
}

#[test]
fn a_new_segment_that_failed_is_removed_and_never_piles_up() {
    for broken in [Call::Write, Call::SyncData, Call::SyncDirectory] {
        let faults = Faults::none();
        let inside = start(&faults);
        faults.break_calls([broken], ENOSPC);
        for _ in 0..20 {
            assert!(refusal(inside.append("b").unwrap_err()).full);
            let left = std::fs::read_dir(&inside.dir).unwrap().count();
            assert!(left <= usize::from(broken == Call::SyncDirectory), "{broken:?}: {left} files");
        }
        faults.clear();
        inside.append("c").unwrap();
        assert_eq!(inside.names(), [["c"]]);
    }
}

#[test]
fn a_file_that_can_not_be_removed_is_the_only_one_left_and_goes_as_soon_as_it_can() {
    let faults = Faults::none();
    let inside = start(&faults);
    faults.break_calls([Call::Write, Call::Remove], EIO);
    for _ in 0..20 {
        refusal(inside.append("b").unwrap_err());
        assert_eq!(std::fs::read_dir(&inside.dir).unwrap().count(), 1);
    }
    faults.clear();
    inside.append("c").unwrap();
    assert_eq!(inside.names(), [["c"]]);
}

/// As in a directory that only lets files be added (chattr(1), `+a`).
#[test]
fn where_nothing_may_be_removed_an_empty_segment_takes_the_next_lines() {
    const EPERM: i32 = 1;
    let faults = Faults::none();
    let clock = ManualClock::new(NOW);
    let inside = Inside::start(Ticking(clock.clone()), &faults, options());
    let breaks = |write: bool| {
        faults.set(move |call| match call {
            Call::Remove => Err(io::Error::from_raw_os_error(EPERM)),
            Call::Write if write => Err(io::Error::from_raw_os_error(ENOSPC)),
            _ => Ok(()),
        });
    };
    breaks(true);
    for _ in 0..5 {
        let refused = refusal(inside.append("b").unwrap_err());
        assert_eq!((refused.full, refused.written), (true, Written::No));
        assert_eq!(std::fs::read_dir(&inside.dir).unwrap().count(), 1);
        // Not even midnight changes that.
        clock.pass(Duration::from_hours(12));
    }
    breaks(false);
    inside.append("c").unwrap();
    assert_eq!(inside.names(), [["c"]]);
}

/// An empty segment that could not be removed is active while the copy of a deleted one fails: both are remembered.
#[test]
fn an_empty_segment_and_a_copy_that_failed_are_both_removed_in_the_end() {
    let faults = Faults::none();
    let inside = start(&faults);
    let first = inside.append("a").unwrap();
    std::fs::remove_file(inside.dir.join(&*first.segment)).unwrap();
    faults.break_calls([Call::Write, Call::Remove], ENOSPC);
    refusal(inside.append("b").unwrap_err());
    wait_for("both files", || (std::fs::read_dir(&inside.dir).unwrap().count() == 2).then_some(()));
    faults.break_calls([Call::SyncData, Call::Remove], EIO);
    refusal(inside.append("c").unwrap_err());
    faults.clear();
    inside.append("d").unwrap();
    let lines = || segments(&inside.dir).into_values().map(|bytes| bytes.iter().filter(|b| **b == b'\n').count());
    wait_for("the deleted segment", || (lines().sum::<usize>() == 2).then_some(()));
    assert_eq!(inside.names(), [["a"], ["d"]]);
}

/// Somebody links a new segment, as a backup does, while its first sync fails: nothing of what was refused may be read
/// by the other name.
#[test]
fn what_was_taken_back_is_gone_under_every_name() {
    let faults = Faults::none();
    let inside = start(&faults);
    let dir = inside.dir.clone();
    let link = dir.join("backup");
    let linked = link.clone();
    faults.set(move |call| {
        if call != Call::SyncData {
            return Ok(());
        }
        if !linked.exists() {
            let segment = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
            std::fs::hard_link(segment, &linked).unwrap();
        }
        Err(io::Error::from_raw_os_error(EIO))
    });
    assert_eq!(refusal(inside.append("b").unwrap_err()).written, Written::No);
    assert_eq!(std::fs::read(link).unwrap(), b"");
}

#[test]
fn full_storage_is_told_as_such_and_over_as_soon_as_it_is() {
    for errno in [ENOSPC, EDQUOT, EFBIG, EIO, EROFS] {
        let faults = Faults::none();
        let inside = start(&faults);
        inside.append("a").unwrap();
        faults.break_calls([Call::Write], errno);
        for _ in 0..5 {
            let refused = refusal(inside.append("b").unwrap_err());
            assert_eq!(refused.full, [ENOSPC, EDQUOT, EFBIG].contains(&errno), "{errno}");
            assert_eq!(refused.written, Written::No);
        }
        faults.clear();
        inside.append("c").unwrap();
        assert_eq!(inside.names().concat(), ["a", "c"], "{errno}");
    }
}

#[test]
fn a_group_too_large_for_the_file_size_limit_is_split() {
    let faults = Faults::none();
    let inside = start(&faults);
    // The first sync waits until five more requests have gathered into one group.
    let (go, wait) = mpsc::channel::<()>();
    let mut first = true;
    faults.set(move |call| {
        if call == Call::SyncData && std::mem::take(&mut first) {
            wait.recv().unwrap();
        }
        Ok(())
    });
    let receipts: Vec<_> = ["a"].into_iter().map(|name| inside.queue(name).unwrap()).collect();
    wait_for("the first commit", || faults.calls().contains(&Call::SyncData).then_some(()));
    let more: Vec<_> = ["b", "c", "d", "e", "f"].into_iter().map(|name| inside.queue(name).unwrap()).collect();
    // From now on a file takes a single write of so many bytes: about two lines.
    let dir = inside.dir.clone();
    faults.set(move |call| {
        let largest = segments(&dir).values().map(Vec::len).max().unwrap_or_default();
        if call == Call::Write && largest > 300 { Err(io::Error::from_raw_os_error(EFBIG)) } else { Ok(()) }
    });
    go.send(()).unwrap();
    let acks: Vec<_> = receipts.into_iter().chain(more).map(|receipt| inside.outcome(receipt)).collect();
    let acked = acks.iter().filter(|ack| ack.is_ok()).count();
    assert_eq!(inside.names().concat().len(), acked);
    assert!(acked >= 4, "{acks:?}");
    for (ack, name) in acks.iter().zip(["a", "b", "c", "d", "e", "f"]) {
        let Ok(ack) = ack else { continue };
        let bytes = &segments(&inside.dir)[&*ack.segment];
        let line = std::str::from_utf8(bytes).unwrap().lines().nth(usize::try_from(ack.index).unwrap()).unwrap();
        assert!(line.contains(&format!("\"event\":\"{name}\"")), "{line}");
    }
}

#[test]
fn an_interrupted_or_short_write_is_gone_on_with() {
    let faults = Faults::none();
    let inside = start(&faults);
    let mut turn = 0;
    faults.set(move |call| {
        turn += 1;
        if call == Call::Write && turn % 2 == 0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    for name in ["a", "b", "c"] {
        inside.append(name).unwrap();
    }
    assert_eq!(inside.names(), [["a", "b", "c"]]);
}

/// A disk on which a sync takes until the test says so.
fn stuck(faults: &Faults) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel::<()>();
    faults.set(move |call| {
        if call == Call::SyncData {
            // An error says that the test lets go for good.
            wait.recv().unwrap_or(());
        }
        Ok(())
    });
    go
}

#[test]
fn a_full_queue_refuses_and_a_large_request_is_taken_when_it_is_empty() {
    let faults = Faults::none();
    let inside = Inside::start(ManualClock::new(NOW), &faults, Options { queue_bytes_max: 1000, ..options() });
    let go = stuck(&faults);
    let large = inside.queue(&"x".repeat(250)).unwrap();
    wait_for("the commit", || inside.appender.health().commit_for.map(drop));
    let mut queued = Vec::new();
    let refused = loop {
        match inside.queue("a") {
            Ok(receipt) => queued.push(receipt),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Busy));
    // The one that was refused would have passed the bound; none that was taken has.
    assert!((850..=1000).contains(&inside.metrics.queue_bytes.get()), "{}", inside.metrics.queue_bytes.get());
    assert!(queued.len() <= 5, "{}", queued.len());
    drop(go);
    inside.outcome(large).unwrap();
    let count = queued.len();
    for receipt in queued {
        inside.outcome(receipt).unwrap();
    }
    // Larger than the whole queue, but it is empty.
    let bodies: Vec<_> = (0..20).map(|number| format!("{{\"event\":\"b{number}\"}}")).collect();
    let events: Vec<_> = bodies.iter().map(|body| audit_log::record::Event::parse(body.as_bytes()).unwrap()).collect();
    let receipt = wait_for("an empty queue", || inside.appender.append(&events).ok());
    assert_eq!(inside.outcome(receipt).unwrap().count, 20);
    assert_eq!(inside.names().concat().len(), 1 + count + 20);
}

#[test]
fn nobody_waits_for_ever_and_what_was_not_begun_is_withdrawn() {
    let faults = Faults::none();
    let options = Options { stall_after: Duration::from_millis(100), ..options() };
    let inside = Inside::start(ManualClock::new(NOW), &faults, options);
    let go = stuck(&faults);
    let committing = inside.queue("committing").unwrap();
    wait_for("the commit", || inside.appender.health().commit_for.map(drop));
    let waiting = inside.queue("waiting").unwrap();
    assert!(matches!(inside.outcome(waiting), Err(AppendError::Stalled(Written::No))));
    assert!(matches!(inside.outcome(committing), Err(AppendError::Stalled(Written::Unknown))));
    drop(go);
    wait_for("the disk", || inside.append("later").ok());
    // The one that was unknown is there; the one that was withdrawn is not.
    assert!(inside.names().concat().iter().all(|name| name != "waiting"));
    assert_eq!(inside.names().concat()[0], "committing");
}

#[test]
fn whoever_comes_while_a_commit_is_slow_and_then_meets_another_waits_no_longer() {
    let faults = Faults::none();
    let options = Options { stall_after: Duration::from_secs(3), ..options() };
    let inside = Inside::start(ManualClock::new(NOW), &faults, options);
    let go = stuck(&faults);
    let slow = inside.queue("slow").unwrap();
    wait_for("the commit", || inside.appender.health().commit_for.map(drop));
    let next = inside.queue("next").unwrap();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(2500));
    // One sync ends, and the next one hangs.
    go.send(()).unwrap();
    assert!(inside.outcome(slow).is_ok());
    assert!(matches!(inside.outcome(next), Err(AppendError::Stalled(Written::Unknown))));
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert!(begun.elapsed() < Duration::from_secs(5), "its time began with its commit: {:?}", begun.elapsed());
    drop(go);
}

#[test]
fn closing_commits_what_is_queued_and_refuses_the_rest() {
    let faults = Faults::none();
    let mut inside = Inside::start(ManualClock::new(NOW), &faults, options());
    let receipts: Vec<_> = (0..100).map(|_| inside.queue("a").unwrap()).collect();
    inside.close();
    assert_eq!(inside.names().concat().len(), 100);
    for receipt in receipts {
        inside.outcome(receipt).unwrap();
    }
    assert!(matches!(inside.queue("late"), Err(AppendError::Closed)));
}

#[test]
fn statuses_of_failing_storage() {
    let faults = Faults::none();
    let options = Options { stall_after: Duration::from_millis(300), queue_bytes_max: 1000, ..options() };
    let mut app = InsideApp::start(audit_log::clock::SystemClock, &faults, options, None);
    assert_eq!(app.post("a").status, 200);
    let ready = |app: &InsideApp| app.send(&Request::new("GET", "/readyz"));
    assert_eq!(ready(&app).status, 200);

    faults.break_calls([Call::Write], ENOSPC);
    app.post("b").refused_unwritten(507, "storage_full");
    let reason = ready(&app).refused(503, "not_ready");
    assert!(reason.contains("the last commit failed"), "{reason}");

    faults.break_calls([Call::Write, Call::Cut], ENOSPC);
    let response = app.post("b");
    response.refused(507, "storage_full");
    assert_eq!(response.header("audit-written"), Some("unknown"));

    faults.break_calls([Call::Write], EIO);
    app.post("b").refused_unwritten(503, "storage_failed");
    faults.clear();
    assert_eq!(app.post("c").status, 200);
    assert_eq!(ready(&app).status, 200);

    let go = stuck(&faults);
    let response = app.post("d");
    response.refused(503, "storage_stalled");
    assert_eq!(response.header("audit-written"), Some("unknown"));
    // The queue holds no more than five lines of this length.
    let name = "x".repeat(200);
    let responses: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..12).map(|_| scope.spawn(|| app.post(&name))).collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    let overloaded = responses.iter().filter(|response| response.json()["code"] == "overloaded");
    let overloaded: Vec<_> = overloaded.collect();
    assert!(overloaded.len() >= 7, "{}", overloaded.len());
    for response in overloaded {
        response.refused_unwritten(503, "overloaded");
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    let stalled = responses.iter().filter(|response| response.json()["code"] == "storage_stalled");
    stalled.for_each(|response| drop(response.refused_unwritten(503, "storage_stalled")));
    drop(go);
    faults.clear();
    wait_for("the disk", || (app.post("e").status == 200).then_some(()));
    app.stop().unwrap();
    // The segment whose cut failed keeps its torn tail: evidence is not repaired.
    let segments = segments(&app.dir);
    assert!(segments.values().any(|bytes| String::from_utf8_lossy(bytes).contains("\"event\":\"e\"")));
    assert_eq!(segments.values().filter(|bytes| !bytes.ends_with(b"\n")).count(), 1);
}

#[test]
fn a_file_size_limit_does_not_kill_the_sidecar() {
    let mut setup = Setup::new();
    setup.wrap("prlimit", &["--fsize=2000:2000", "--"]);
    let sidecar = setup.start();
    let mut acked = 0;
    for _ in 0..40 {
        acked += usize::from(sidecar.post(r#"{"event":"a"}"#).status == 200);
    }
    assert_eq!(acked, 40);
    assert!(sidecar.segments().len() >= 3);
    assert!(sidecar.segments().values().all(|bytes| bytes.len() <= 2000));
    sidecar
        .post(format!("{{\"event\":\"a\",\"message\":\"{}\"}}", "x".repeat(2000)))
        .refused_unwritten(507, "storage_full");
    // A batch that can't be split, as it is one commit in one segment.
    sidecar.send(&Request::batch("{\"event\":\"a\"}\n".repeat(40))).refused_unwritten(507, "storage_full");
    sidecar.append(r#"{"event":"a"}"#);
    assert_eq!(sidecar.lines().len(), 41);
}

#[test]
fn a_log_that_nobody_reads_any_more_does_no_harm() {
    let mut setup = Setup::new();
    setup.command.env("RUST_LOG", "debug");
    let mut sidecar = setup.start();
    sidecar.close_log();
    for _ in 0..50 {
        sidecar.append(r#"{"event":"a"}"#);
    }
    assert!(sidecar.stop().success());
}

//! Segments and the clock: names, midnight, steps, and the size limit (contract §3).

use std::time::Duration;

use audit_log::clock::{Clock, ManualClock};
use audit_log::record::Timestamp;
use audit_log::writer::Options;

use crate::support::disk::Faults;
use crate::support::inside::{Inside, NOW, options};
use crate::support::wait_for;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn start(clock: &ManualClock) -> Inside {
    Inside::start(clock.clone(), &Faults::none(), options())
}

#[test]
fn a_segment_is_named_by_the_time_of_its_first_line() {
    let clock = ManualClock::new(NOW);
    let inside = start(&clock);
    let ack = inside.append("a").unwrap();
    assert_eq!(&*ack.segment, "audit-0_20260128T091244.381Z.jsonl");
    assert_eq!(ack.ts, NOW);
    clock.pass(Duration::from_hours(3));
    assert_eq!(inside.append("b").unwrap().segment, ack.segment);
}

#[test]
fn a_segment_ends_at_utc_midnight_to_the_millisecond() {
    let clock = ManualClock::new(at("2026-01-28T23:59:59.998Z"));
    let inside = start(&clock);
    let first = inside.append("a").unwrap();
    clock.pass(Duration::from_millis(1));
    assert_eq!(inside.append("b").unwrap().segment, first.segment);
    clock.pass(Duration::from_millis(1));
    assert_eq!(&*inside.append("c").unwrap().segment, "audit-0_20260129T000000.000Z.jsonl");
}

#[test]
fn an_idle_segment_is_closed_at_midnight_and_what_a_sweep_then_removes_is_not_written_back() {
    let clock = ManualClock::new(at("2026-01-28T12:00:00Z"));
    let inside = start(&clock);
    let first = inside.append("a").unwrap();
    clock.set(at("2026-01-29T00:00:00Z"));
    // It is closed once its file is no longer open in this process.
    let path = inside.dir.join(&*first.segment).canonicalize().unwrap();
    let is_open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        files.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).any(|open| open == path)
    };
    wait_for("the segment's close", || (!is_open()).then_some(()));
    std::fs::remove_file(&path).unwrap();
    clock.pass(Duration::from_mins(5));
    let second = inside.append("b").unwrap();
    assert_eq!(second.index, 0);
    assert_eq!(inside.names(), [["b"]]);
}

#[test]
fn a_process_that_slept_past_the_period_does_not_write_swept_lines_back() {
    let clock = ManualClock::new(at("2026-01-28T12:00:00Z"));
    let inside =
        Inside::start(clock.clone(), &Faults::none(), Options { check_every: Duration::from_hours(1), ..options() });
    let first = inside.append("a").unwrap();
    std::fs::remove_file(inside.dir.join(&*first.segment)).unwrap();
    clock.set(at("2026-01-30T12:00:00Z"));
    inside.append("b").unwrap();
    assert_eq!(inside.names(), [["b"]]);
}

#[test]
fn a_clock_that_steps_back_by_up_to_a_second_stands_still_and_by_more_begins_a_segment() {
    let clock = ManualClock::new(NOW);
    let inside = start(&clock);
    let first = inside.append("a").unwrap();
    for back in [1, 500, 1000] {
        clock.set(NOW.plus_millis(-back));
        let ack = inside.append("b").unwrap();
        assert_eq!((ack.segment, ack.ts), (first.segment.clone(), NOW), "{back}");
    }
    clock.set(NOW.plus_millis(-1001));
    let ack = inside.append("c").unwrap();
    assert_eq!(ack.ts, NOW.plus_millis(-1001));
    assert_eq!(&*ack.segment, "audit-0_20260128T091243.380Z.jsonl");
}

#[test]
fn leaps_of_the_clock_keep_every_promise_of_names_and_times() {
    let clock = ManualClock::new(NOW);
    let inside = start(&clock);
    let hour = 3_600_000;
    let mut state = 7u64;
    for number in 0..400 {
        // A small generator of leaps between -2 days and +2 days, mostly small.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let leap = i64::try_from(state >> 33).unwrap() % (if number % 5 == 0 { 48 * hour } else { 1500 });
        let sign = if state & 1 == 0 { 1 } else { -1 };
        clock.set(clock.now().plus_millis(sign * leap));
        // Two writers of names in the same millisecond would wait for the clock: let it go on meanwhile.
        clock.pass(Duration::from_millis(1));
        let receipt = inside.queue("a").unwrap();
        let ticking = clock.clone();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ticker = std::thread::spawn({
            let done = std::sync::Arc::clone(&done);
            move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    ticking.pass(Duration::from_millis(1));
                }
            }
        });
        inside.outcome(receipt).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        ticker.join().unwrap();
    }
    let mut count = 0;
    for (name, bytes) in crate::support::segments(&inside.dir) {
        let opened = name.strip_prefix("audit-0_").unwrap().strip_suffix(".jsonl").unwrap().to_owned();
        let mut last = opened.clone();
        for line in std::str::from_utf8(&bytes).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let ts = line["ts"].as_str().unwrap().replace(['-', ':'], "");
            assert!(ts >= last, "{name}: {ts} after {last}");
            last = ts;
            count += 1;
        }
        assert_eq!(last[..8], opened[..8], "{name} holds lines of another day");
    }
    assert_eq!(count, 400);
}

#[test]
fn a_commit_that_would_pass_the_size_limit_begins_a_segment_unless_it_is_empty() {
    let clock = ManualClock::new(NOW);
    let line = |inside: &Inside, name: &str| {
        clock.pass(Duration::from_millis(1));
        inside.append(name).unwrap()
    };
    let probe = start(&clock);
    line(&probe, "a");
    let bytes = u64::try_from(crate::support::segments(&probe.dir).values().next().unwrap().len()).unwrap();
    let options = |segment_bytes_max| Options { segment_bytes_max, ..options() };
    // Exactly three lines fit.
    for (max, lines_in_first) in [(3 * bytes, 3), (3 * bytes + 1, 3), (3 * bytes - 1, 2), (4 * bytes - 1, 3), (1, 1)] {
        let inside = Inside::start(clock.clone(), &Faults::none(), options(max));
        for _ in 0..4 {
            line(&inside, "a");
        }
        assert_eq!(inside.names()[0].len(), lines_in_first, "{max}");
    }
}

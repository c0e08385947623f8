//! Files may not grow beyond a limit (`RLIMIT_FSIZE`), which changes under load.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::load::{Load, Told, post_with, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Request, Sidecar, segments};

fn limit(sidecar: &Sidecar, bytes: u64) {
    // The hard limit stays, so that it can be raised again.
    let limit = Rlimit { current: Some(bytes), maximum: None };
    prlimit(Pid::from_raw(sidecar.pid()), Resource::Fsize, limit).unwrap();
}

#[test]
fn a_file_size_limit_begins_segments_and_refuses_nobody() {
    const ROW: Row = Row {
        test: "size_limit::a_file_size_limit_begins_segments_and_refuses_nobody",
        promise: "§2 507 only when even an empty segment can't take the line; SIGXFSZ kills nobody",
        fault: "RLIMIT_FSIZE of 64 KiB, 40 kB, 24 kB in turn under load, and of 100 bytes",
        how: "prlimit(2) on the running sidecar; 32 clients, a half of them with 10 kB in each event",
        control: "seen red with SIGXFSZ at its default",
    };
    const LIMITS: [u64; 3] = [64 << 10, 40_000, 24_000];
    let _alone = alone();
    let mut sidecar = Sidecar::start();
    limit(&sidecar, LIMITS[0]);
    let small = Load::start(sidecar.address, 16, "small", Duration::ZERO);
    let large = Load::start_with(sidecar.address, 16, "large", Duration::ZERO, 10_000);
    let changes = report::rounds(6, 60);
    for (change, bytes) in (1..=changes).zip(LIMITS.into_iter().cycle()) {
        limit(&sidecar, bytes);
        wait_within(Duration::from_mins(1), "answers", || (small.acknowledged() > change * 300).then_some(()));
        wait_within(Duration::from_mins(1), "answers", || (large.acknowledged() > change * 100).then_some(()));
    }
    let mut answers = small.stop();
    answers.extend(large.stop());
    assert!(answers.values().all(|told| matches!(told, Told::Durable { .. })), "somebody was refused");
    let under_load = answers.len();

    let mut client = sidecar.connect();
    limit(&sidecar, LIMITS[2]);
    answers.extend([("too-large".to_owned(), post_with(&mut client, "too-large", 24_000))]);
    assert_eq!(answers["too-large"], Told::No(507));
    sidecar.send(&Request::batch("{\"event\":\"a\"}\n".repeat(400))).refused_unwritten(507, "storage_full");
    limit(&sidecar, 100);
    let before = segments(&sidecar.dir).len();
    for number in 0..20 {
        let id = format!("no-room-{number}");
        let told = post_with(&mut client, &id, 0);
        assert_eq!(told, Told::No(507));
        answers.insert(id, told);
    }
    assert!(segments(&sidecar.dir).len() <= before, "files pile up");
    limit(&sidecar, LIMITS[0]);
    answers.extend([("room".to_owned(), post_with(&mut client, "room", 0))]);
    assert!(matches!(answers["room"], Told::Durable { .. }));
    sidecar.kill();
    let found = verified(&sidecar.dir, &answers);
    assert_eq!((found.lines, found.torn_tails, found.empty), (under_load + 1, 0, 0), "{found:?}");
    let longest = segments(&sidecar.dir).values().map(Vec::len).max().unwrap();
    assert!(u64::try_from(longest).unwrap() <= LIMITS[0]);
    held(
        &ROW,
        changes,
        &format!(
            "{} acknowledged, as many lines; {} segments of at most {longest} bytes",
            found.acknowledged, found.segments
        ),
    );
}

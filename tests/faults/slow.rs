//! A disk that is slow, or hangs for some time.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::load::{Answers, Load, Told, peak_bytes, post, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Setup, Sidecar};
use crate::tracer::{QUIET, Tracer};

/// Far above what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// The contract's 5 s and 30 s, and as much more as a busy machine may take to notice.
const UNREADY_AFTER: Range<Duration> = Duration::from_secs(5)..Duration::from_secs(8);
const STALLED_AFTER: Range<Duration> = Duration::from_secs(29)..Duration::from_secs(34);

fn start() -> Sidecar {
    let mut setup = Setup::new();
    setup.command.env(QUIET.0, QUIET.1);
    setup.start()
}

/// Waits until `/readyz` has this status, and returns its body.
fn wait_ready(sidecar: &Sidecar, status: u16) -> String {
    wait_within(PATIENCE, "readiness", || {
        let response = sidecar.get("/readyz");
        (response.status == status).then(|| response.text())
    })
}

/// How many requests were refused with this code, by `/metrics`.
fn refused(sidecar: &Sidecar, code: &str) -> u64 {
    let metrics = sidecar.get("/metrics").text();
    let label = format!("audit_log_refused_requests_total{{code=\"{code}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&label)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_slow_disk_is_shared() {
    const ROW: Row = Row {
        test: "slow::a_slow_disk_is_shared",
        promise: "§4.1 many clients share one sync",
        fault: "each sync of data takes 200 ms more",
        how: "strace delays fdatasync in the committer's thread; 64 clients",
        control: "answers are counted by sync: without group commit there would be one",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut sidecar = start();
    let tracer = Tracer::attach(&sidecar, &["fdatasync:delay_enter=200ms"], &[]);
    let load = Load::start(sidecar.address, 64, "slow", Duration::ZERO);
    let syncs_wanted = usize::try_from(report::rounds(12, 150)).unwrap();
    let count = |tracer: &Tracer| tracer.calls().iter().filter(|call| call.ends_with("(DELAYED)")).count();
    wait_within(PATIENCE, "slow syncs", || (count(&tracer) >= syncs_wanted).then_some(()));
    assert_eq!(sidecar.get("/readyz").status, 200);
    let answers = load.stop();
    let syncs = u64::try_from(count(&tracer)).unwrap();
    drop(tracer);
    sidecar.kill();
    let found = verified(&sidecar.dir, &answers);
    assert_eq!(found.acknowledged, answers.len(), "nobody is refused");
    let per_sync = u64::try_from(found.acknowledged).unwrap() / syncs;
    assert!(per_sync >= 16, "{per_sync} answers by sync");
    held(&ROW, syncs, &format!("{} acknowledged, 0 lost, 0 refused; {per_sync} by sync", found.acknowledged));
}

#[test]
fn a_disk_that_hangs_for_ten_seconds_is_waited_for() {
    const ROW: Row = Row {
        test: "slow::a_disk_that_hangs_for_ten_seconds_is_waited_for",
        promise: "§2 `/readyz` 503 once a commit has taken more than 5 s; §4.4",
        fault: "a write, or a sync, hangs for 10 s",
        how: "strace delays the call in the committer's thread",
        control: "seen red with readiness lost after 15 s instead of 5 s",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let calls: &[&str] =
        if report::is_full() { &["write", "fdatasync", "fsync", "openat", "statx"] } else { &["fdatasync"] };
    for call in calls {
        let mut sidecar = start();
        let tracer = Tracer::attach(&sidecar, &[&format!("{call}:delay_enter=10s:when=1")], &[]);
        let begun = Instant::now();
        let load = Load::start(sidecar.address, 8, call, Duration::ZERO);
        assert_eq!(sidecar.get("/readyz").status, 200);
        let reason = wait_ready(&sidecar, 503);
        assert!(UNREADY_AFTER.contains(&begun.elapsed()), "{call}: {:?} {reason}", begun.elapsed());
        assert!(reason.contains("more than 5 seconds"), "{reason}");
        wait_ready(&sidecar, 200);
        assert!(begun.elapsed() > Duration::from_secs(10), "{call}");
        wait_within(PATIENCE, "answers", || (load.acknowledged() > 100).then_some(()));
        assert_eq!(tracer.detach().len(), 1, "{call}");
        let answers = load.stop();
        sidecar.kill();
        assert_eq!(verified(&sidecar.dir, &answers).acknowledged, answers.len(), "{call}: nobody is refused");
    }
    held(&ROW, u64::try_from(calls.len()).unwrap(), "0 refused, 0 lost; unready after 5 s, ready when it is over");
}

#[test]
fn a_disk_that_hangs_for_ever_costs_neither_memory_nor_patience() {
    const ROW: Row = Row {
        test: "slow::a_disk_that_hangs_for_ever_costs_neither_memory_nor_patience",
        promise: "§4.4 nobody waits more than 30 s; §4.6 memory is bounded; §2 `overloaded`, `storage_stalled`, \
                  Audit-Written",
        fault: "a sync hangs until it is let go, while clients send bodies of 1 MB",
        how: "strace delays fdatasync; 64 clients; VmHWM",
        control: "seen red with 256 MiB for bodies (88 MiB), with withdrawn lines kept, and with an endless wait",
    };
    const MEMORY_BYTES_MAX: u64 = 64 << 20;
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut sidecar = start();
    let mut client = sidecar.connect();
    let mut answers = Answers::from([("before".to_owned(), post(&mut client, "before"))]);
    let tracer = Tracer::attach(&sidecar, &["fdatasync:delay_enter=3600s:when=1"], &[]);
    let begun = Instant::now();
    let address = sidecar.address;
    let stuck = std::thread::spawn(move || {
        let told = post(&mut client, "stuck");
        (told, begun.elapsed())
    });
    wait_within(PATIENCE, "the sync", || tracer.calls().iter().any(|call| call.starts_with("write(")).then_some(()));
    let load = Load::start_with(address, 64, "hang", Duration::from_millis(100), 1_000_000);
    wait_ready(&sidecar, 503);
    let unready_after = begun.elapsed();
    assert!(UNREADY_AFTER.contains(&unready_after), "{unready_after:?}");
    let (told, stalled_after) = stuck.join().unwrap();
    assert_eq!(told, Told::Unknown(503), "its lines had been taken up");
    assert!(STALLED_AFTER.contains(&stalled_after), "{stalled_after:?}");
    // Those that waited behind it are withdrawn.
    wait_within(PATIENCE, "stalled requests", || (refused(&sidecar, "storage_stalled") >= 6).then_some(()));
    let overloaded = refused(&sidecar, "overloaded");
    assert!(overloaded > 64, "{overloaded} refused as overloaded");
    let stalled = refused(&sidecar, "storage_stalled");
    assert_eq!(load.acknowledged(), 0);
    let peak = peak_bytes(sidecar.pid());
    assert!((8 << 20..MEMORY_BYTES_MAX).contains(&peak), "{peak} bytes");
    assert_eq!(sidecar.get("/healthz").status, 200);

    tracer.detach();
    let over = Instant::now();
    wait_ready(&sidecar, 200);
    wait_within(PATIENCE, "an answer", || (load.acknowledged() > 0).then_some(()));
    let recovered_after = over.elapsed();
    wait_within(PATIENCE, "answers", || (load.acknowledged() > 64).then_some(()));
    answers.extend(load.stop());
    answers.extend([("stuck".to_owned(), told)]);
    let peak = peak_bytes(sidecar.pid()).max(peak);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    sidecar.kill();
    let found = verified(&sidecar.dir, &answers);
    held(
        &ROW,
        1,
        &format!(
            "unready after {:.1} s, `storage_stalled` after {:.1} s ({stalled} in all), {overloaded} \
             `overloaded`, at most {} MiB; \
             accepted {:.1} s after its end; {} acknowledged, 0 lost, 0 withdrawn ones found",
            unready_after.as_secs_f64(),
            stalled_after.as_secs_f64(),
            peak >> 20,
            recovered_after.as_secs_f64(),
            found.acknowledged,
        ),
    );
}

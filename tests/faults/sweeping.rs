//! Another process sweeps what has expired, before the sidecar that wrote it has looked again.
//!
//! The sidecar runs in the test's process, on a clock of the test's own: the binary asks the kernel for the time
//! without the C library, so that libfaketime does not reach it. The sweep is the binary, by the real clock, up to which the
//! sidecar's leaps over midnights.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use audit_log::clock::{Clock, ManualClock, SystemClock};
use audit_log::record::{DAY_MS, Timestamp};
use audit_log::writer::Options;

use crate::report::{self, Row, alone, held};
use crate::support::disk::Faults;
use crate::support::inside::{InsideApp, options};
use crate::support::{Request, binary, segments, wait_for};

/// How the sidecar comes to look after the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The next event.
    Event,
    /// The check of an idle segment, which otherwise comes every minute.
    Idle,
    /// SIGTERM, without an event before.
    Drain,
}

/// A sidecar that has written one line and not looked at it since.
struct Scene {
    app: InsideApp,
    path: PathBuf,
    line: Vec<u8>,
    look: Look,
}

/// How often the sidecar looks by itself, instead of every minute: until then it must have been swept.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl Scene {
    /// Has a line written ten seconds before a midnight, and lets the clock leap to `wake`.
    fn new(midnight: Timestamp, wake: Timestamp, look: Look) -> Self {
        let written = midnight.plus_millis(-10_000);
        let clock = ManualClock::new(written);
        let check_every = if look == Look::Idle { LOOK_EVERY } else { Duration::from_hours(1) };
        let app = InsideApp::start(clock.clone(), &Faults::none(), Options { check_every, ..options() }, None);
        let answer = app.post("old");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let path = app.dir.join(answer.json()["segment"].as_str().unwrap());
        let line = fs::read(&path).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(written.millis().try_into().unwrap());
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
        clock.set(wake);
        Self { app, path, line, look }
    }

    /// The sidecar looks at its segment, which is gone.
    fn look(&self) {
        match self.look {
            Look::Event => assert_eq!(self.app.post("young").status, 200),
            Look::Idle => wait_for("a look", || (self.deletions() == 1).then_some(())),
            Look::Drain => {}
        }
    }

    fn deletions(&self) -> u64 {
        let text = self.app.send(&Request::new("GET", "/metrics")).text();
        let count = text.lines().find_map(|line| line.strip_prefix("audit_log_tampering_total{kind=\"deleted\"} "));
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// Drains it; returns what is left in the directory.
    fn end(mut self) -> Vec<Vec<u8>> {
        self.app.stop().unwrap();
        segments(&self.app.dir).into_values().filter(|bytes| !contains(bytes, b"\"young\"")).collect()
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Another process: one pass of the real sweep, by a period of a day.
fn sweep(dir: &Path) {
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    fs::write(&config, "provider: {auditLog: {retentionPeriodInDays: 1}}\n").unwrap();
    let output = binary().arg("sweep").arg("--config").arg(&config).arg(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What has expired while the sidecar slept over midnight is swept by another process; the sidecar, which has the file
/// open still, does not bring it back.
#[test]
fn what_another_process_has_swept_is_not_written_back() {
    const ROW: Row = Row {
        test: "sweeping::what_another_process_has_swept_is_not_written_back",
        promise: "§4.3, §5 expired lines stay gone, although a deleted segment is copied back",
        fault: "segment of an idle sidecar swept by another process after days, before the sidecar looks",
        how: "`audit-log sweep` on a sidecar whose clock leaps over midnights; then an event, a look, or a drain",
        control: "`sweeping::what_another_process_has_deleted_early_is_written_back`; seen red where age is \
                  not asked for",
    };
    let _alone = alone();
    let rounds = report::rounds(2, 30);
    for _ in 0..rounds {
        for look in [Look::Event, Look::Idle, Look::Drain] {
            let now = SystemClock.now();
            let midnight = now.plus_millis(-now.millis() % DAY_MS - 2 * DAY_MS);
            let scene = Scene::new(midnight, now, look);
            sweep(&scene.app.dir);
            assert!(!scene.path.exists(), "not swept");
            scene.look();
            let left = scene.end();
            assert!(left.is_empty(), "{look:?}: {left:?}");
        }
    }
    held(&ROW, 3 * rounds, "swept by another process, noticed, not written back by event, look or drain");
}

/// The control: the same with a line that is eleven seconds old, which no sweep removes.
#[test]
fn what_another_process_has_deleted_early_is_written_back() {
    let _alone = alone();
    for look in [Look::Event, Look::Idle, Look::Drain] {
        let now = SystemClock.now();
        let midnight = now.plus_millis(-now.millis() % DAY_MS);
        let scene = Scene::new(midnight, midnight.plus_millis(1000), look);
        fs::remove_file(&scene.path).unwrap();
        scene.look();
        let line = scene.line.clone();
        assert_eq!(scene.end(), [line], "{look:?}");
    }
}

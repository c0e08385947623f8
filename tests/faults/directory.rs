//! The audit directory is removed, moved, exchanged, unmounted or covered while the sidecar runs, and comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::load::{Answers, Load, Told, post, verified, verify, wait_within};
use crate::mounts::{Mount, image};
use crate::report::{self, Row, alone, held};
use crate::support::{Request, Setup, Sidecar, wait_for};

/// A way of taking the directory from its path, and of bringing it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `rm -r`, later `mkdir`.
    Removed,
    /// Renamed; nothing is at its path.
    Moved,
    /// Renamed; an empty directory is made at its path.
    Replaced,
    /// Renamed; another directory, with a segment in it, is renamed to its path.
    Exchanged,
    /// A bind mount, detached and bound again; an empty directory lies below.
    Unbound,
    /// An ext4, detached and mounted again; likewise.
    Unmounted,
    /// A tmpfs is mounted over it.
    Covered,
    /// Another directory of its file system is bound over it.
    Bound,
}

const WAYS: [Way; 8] =
    [Way::Removed, Way::Moved, Way::Replaced, Way::Exchanged, Way::Unbound, Way::Unmounted, Way::Covered, Way::Bound];

/// The directory, its surroundings and what is mounted on it.
struct Stage {
    way: Way,
    dir: PathBuf,
    away: PathBuf,
    other: PathBuf,
    mount: Option<Mount>,
    /// The device of a file system that is detached.
    device: PathBuf,
    temp: tempfile::TempDir,
}

/// What another writer has left in [`Stage::other`].
const OTHERS: &str = "audit-7_20260101T000000.000Z.jsonl";

impl Stage {
    fn new(way: Way) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let [dir, away, other] = ["audit", "away", "other"].map(|name| temp.path().join(name));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join(OTHERS), "{\"ts\":\"2026-01-01T00:00:00.000Z\"}\n").unwrap();
        let mut stage = Self { way, dir, away, other, mount: None, device: PathBuf::new(), temp };
        match way {
            Way::Unbound => {
                fs::create_dir(&stage.away).unwrap();
                stage.mount = Some(Mount::bind(&stage.dir, &stage.away));
            }
            Way::Unmounted => {
                let file = stage.temp.path().join("image");
                image(&file, 8, &[]);
                let mount = Mount::image(&stage.dir, &file, "errors=remount-ro");
                stage.device = mount.device();
                stage.mount = Some(mount);
            }
            _ => {}
        }
        stage
    }

    fn take_away(&mut self) {
        match self.way {
            Way::Removed => remove(&self.dir),
            Way::Moved => fs::rename(&self.dir, &self.away).unwrap(),
            Way::Replaced => {
                fs::rename(&self.dir, &self.away).unwrap();
                fs::create_dir(&self.dir).unwrap();
            }
            Way::Exchanged => {
                fs::rename(&self.dir, &self.away).unwrap();
                fs::rename(&self.other, &self.dir).unwrap();
            }
            Way::Unbound | Way::Unmounted => self.mount.take().unwrap().detach(),
            Way::Covered => self.mount = Some(Mount::tmpfs(&self.dir, "size=1m")),
            Way::Bound => self.mount = Some(Mount::bind(&self.dir, &self.other)),
        }
    }

    /// What lies at the path meanwhile: nobody may have put anything there.
    fn strangers(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != OTHERS).collect()
    }

    fn bring_back(&mut self) {
        match self.way {
            Way::Removed => fs::create_dir(&self.dir).unwrap(),
            Way::Moved => fs::rename(&self.away, &self.dir).unwrap(),
            Way::Replaced => {
                fs::remove_dir(&self.dir).unwrap();
                fs::rename(&self.away, &self.dir).unwrap();
            }
            Way::Exchanged => {
                fs::rename(&self.dir, &self.other).unwrap();
                fs::rename(&self.away, &self.dir).unwrap();
            }
            Way::Unbound => self.mount = Some(Mount::bind(&self.dir, &self.away)),
            Way::Unmounted => self.mount = Some(Mount::image(&self.dir, &self.device, "errors=remount-ro")),
            Way::Covered | Way::Bound => self.mount.take().unwrap().unmount(),
        }
    }
}

/// Removes a directory into which somebody writes: what was begun meanwhile is removed as well.
fn remove(dir: &Path) {
    wait_for("an empty directory", || fs::remove_dir_all(dir).ok());
}

fn unready(sidecar: &Sidecar) -> String {
    sidecar.get("/readyz").refused(503, "not_ready")
}

fn event(id: &str) -> Request {
    Request::post(format!("{{\"event\":\"E\",\"meta\":{{\"id\":\"{id}\"}}}}"))
}

/// Eight clients append while the directory goes and comes back.
#[test]
fn a_directory_that_goes_under_load_takes_no_events_until_it_is_back() {
    const ROW: Row = Row {
        test: "directory::a_directory_that_goes_under_load_takes_no_events_until_it_is_back",
        promise: "§4.3, §4.4 what is acknowledged is where auditors look; unready meanwhile, heals by itself",
        fault: "audit directory removed, moved, replaced, exchanged, unmounted, covered under load",
        how: "rm, rename, umount -l and mount of tmpfs, bind and loop ext4, 8 clients",
        control: "`directory::an_event_that_went_to_another_directory_is_found`; seen red where \
                  the directory is not compared",
    };
    let _alone = alone();
    if !report::tools(&["mount", "umount", "findmnt", "mkfs.ext4"]) {
        return;
    }
    let rounds = report::rounds(2, 15);
    let (mut acknowledged, mut refused) = (0, 0);
    for way in WAYS {
        for round in 0..rounds {
            let mut stage = Stage::new(way);
            let answers = under_load(&mut stage, &format!("{way:?}-{round}"));
            let found = verified(&stage.dir, &answers);
            assert_eq!((found.torn_tails, found.empty), (0, 0), "{way:?}: {found:?}");
            assert_eq!(fs::read_dir(&stage.other).unwrap().count(), 1, "{way:?}: written to another directory");
            acknowledged += found.acknowledged;
            refused += answers.values().filter(|told| matches!(told, Told::No(503) | Told::Unknown(503))).count();
        }
    }
    let ways = u64::try_from(WAYS.len()).unwrap();
    held(
        &ROW,
        ways * rounds,
        &format!("{ways} ways; {acknowledged} acknowledged, 0 lost; {refused} refused with 503; 0 accepted meanwhile"),
    );
}

/// A sidecar's life, in which its directory goes and comes back.
fn under_load(stage: &mut Stage, prefix: &str) -> Answers {
    let probe = Request::post(r#"{"event":"probe"}"#);
    let mut sidecar = Setup::in_dir(&stage.dir).start();
    let load = Load::start(sidecar.address, 8, prefix, Duration::from_millis(5));
    let more = |than| wait_for("answers", || (load.acknowledged() > than + 50).then_some(()));
    more(0);
    stage.take_away();
    let mut client = sidecar.connect();
    wait_for("refusal", || {
        let answer = client.send(&probe);
        (answer.status != 200).then(|| answer.refused(503, "storage_failed"))
    });
    unready(&sidecar);
    let before = settled(&load);
    for _ in 0..20 {
        client.send(&probe).refused_unwritten(503, "storage_failed");
    }
    assert_eq!(load.acknowledged(), before, "{prefix}: accepted meanwhile");
    assert!(stage.strangers().is_empty(), "{prefix}: {:?}", stage.strangers());
    stage.bring_back();
    wait_within(Duration::from_secs(5), "an event that is accepted", || {
        (client.send(&probe).status == 200).then_some(())
    });
    wait_for("readiness", || (sidecar.get("/readyz").status == 200).then_some(()));
    more(load.acknowledged());
    let answers = load.stop();
    assert!(sidecar.stop().success());
    answers
}

/// Waits until no answer from before is on its way any more.
fn settled(load: &Load) -> u64 {
    let mut last = load.acknowledged();
    wait_for("the last answers", || {
        std::thread::sleep(Duration::from_millis(20));
        let before = std::mem::replace(&mut last, load.acknowledged());
        (last == before).then_some(last)
    })
}

/// Nobody appends: the next probe sees it, and the first event is refused.
#[test]
fn a_directory_that_goes_while_idle_is_seen_by_the_next_probe() {
    const ROW: Row = Row {
        test: "directory::a_directory_that_goes_while_idle_is_seen_by_the_next_probe",
        promise: "§2 /readyz: the directory is gone, replaced; §4.4 heals by itself",
        fault: "audit directory removed, moved, replaced, exchanged, unmounted, covered while idle",
        how: "rm, rename, umount -l and mount of tmpfs, bind and loop ext4; half of the rounds end without an event",
        control: "`directory::an_event_that_went_to_another_directory_is_found`; seen red where \
                  the directory is not compared",
    };
    let _alone = alone();
    if !report::tools(&["mount", "umount", "findmnt", "mkfs.ext4"]) {
        return;
    }
    let rounds = report::rounds(2, 15);
    for way in WAYS {
        for round in 0..rounds {
            let mut stage = Stage::new(way);
            let mut sidecar = Setup::in_dir(&stage.dir).start();
            let mut client = sidecar.connect();
            let mut answers = Answers::from([("first".to_owned(), post(&mut client, "first"))]);
            assert_eq!(sidecar.get("/readyz").status, 200);
            stage.take_away();
            unready(&sidecar);
            if round % 2 == 0 {
                client.send(&event("refused")).refused_unwritten(503, "storage_failed");
                answers.insert("refused".to_owned(), Told::No(503));
                unready(&sidecar);
            }
            assert!(stage.strangers().is_empty(), "{way:?}: {:?}", stage.strangers());
            stage.bring_back();
            if round % 2 == 0 {
                answers.insert("last".to_owned(), post(&mut client, "last"));
                assert!(matches!(answers["last"], Told::Durable { .. }), "{way:?}: {answers:?}");
            }
            // Without an event, what is back is seen by the next probe too.
            assert_eq!(sidecar.get("/readyz").status, 200, "{way:?}");
            assert!(sidecar.stop().success());
            verified(&stage.dir, &answers);
        }
    }
    let ways = u64::try_from(WAYS.len()).unwrap();
    held(
        &ROW,
        ways * rounds,
        &format!("{ways} ways; unready at the first probe, ready at the first when back; 0 lost"),
    );
}

/// The control: an event that was acknowledged from a directory that is not the one at the path is found missing.
#[test]
fn an_event_that_went_to_another_directory_is_found() {
    let _alone = alone();
    let mut stage = Stage::new(Way::Replaced);
    let mut sidecar = Setup::in_dir(&stage.dir).start();
    let answers = Answers::from([("x".to_owned(), post(&mut sidecar.connect(), "x"))]);
    stage.take_away();
    sidecar.kill();
    let faults = verify(&stage.dir, &answers).unwrap_err();
    assert!(faults[0].contains("acknowledged as line 0"), "{faults:?}");
    stage.bring_back();
    verified(&stage.dir, &answers);
}

//! Somebody with write access changes the active segment, of the real binary, under load and while it is idle.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::load::{Answers, Load, Told, post, verified, verify, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Setup, Sidecar, wait_for};

/// What is done to the active segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Deleted,
    Renamed,
    /// Another file is renamed to its name, so that it is deleted too.
    Replaced,
    /// It has another name, and its own is given to a symbolic link to that.
    Linked,
    /// Cut in the middle of a line.
    Cut,
    Emptied,
    /// Half a line is appended to it.
    Appended,
}

const ACTS: [Act; 7] = [Act::Deleted, Act::Renamed, Act::Replaced, Act::Linked, Act::Cut, Act::Emptied, Act::Appended];

impl Act {
    /// The word for it in logs and metrics.
    fn kind(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Renamed => "renamed",
            Self::Replaced | Self::Linked => "replaced",
            Self::Cut | Self::Emptied => "cut",
            Self::Appended => "appended",
        }
    }
}

/// The directory, and what was done to which segment.
struct Scene {
    dir: PathBuf,
    aside: PathBuf,
    _temp: tempfile::TempDir,
    /// Segments that were renamed.
    renamed: BTreeSet<String>,
    /// How many lines were left of each that was cut.
    cut: HashMap<String, u64>,
    /// Segments that hold bytes of somebody else's, or end in the middle of a line.
    foreign: BTreeSet<String>,
}

impl Scene {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let [dir, aside] = ["audit", "aside"].map(|name| temp.path().join(name));
        for path in [&dir, &aside] {
            fs::create_dir(path).unwrap();
        }
        let (renamed, cut, foreign) = (BTreeSet::new(), HashMap::new(), BTreeSet::new());
        Self { dir, aside, _temp: temp, renamed, cut, foreign }
    }

    /// The active segment's name: the youngest. It is there at the latest with the next answer.
    fn active(&self) -> String {
        wait_for("a segment", || {
            let entries = fs::read_dir(&self.dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).max()
        })
    }

    fn act(&mut self, act: Act) -> String {
        let name = self.active();
        let path = self.dir.join(&name);
        match act {
            Act::Deleted => fs::remove_file(&path).unwrap(),
            Act::Renamed => {
                fs::rename(&path, self.aside.join(&name)).unwrap();
                self.renamed.insert(name.clone());
            }
            Act::Linked => {
                // In one step, or it would be seen without a name in between.
                let [target, link] = [name.as_str(), "link"].map(|name| self.aside.join(name));
                fs::hard_link(&path, &target).unwrap();
                std::os::unix::fs::symlink(&target, &link).unwrap();
                fs::rename(&link, &path).unwrap();
                self.renamed.insert(name.clone());
            }
            Act::Replaced => {
                let other = self.aside.join("other");
                fs::write(&other, "{\"event\":\"forged\"}\n").unwrap();
                fs::rename(&other, &path).unwrap();
            }
            Act::Cut => self.cut(&name, 2),
            Act::Emptied => self.cut(&name, usize::MAX),
            Act::Appended => {
                fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":").unwrap();
                self.foreign.insert(name.clone());
            }
        }
        name
    }

    /// Cuts a segment to a part of its length.
    fn cut(&mut self, name: &str, part: usize) {
        let path = self.dir.join(name);
        let bytes = fs::read(&path).unwrap();
        let left = bytes.len() / part;
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(left.try_into().unwrap()).unwrap();
        let lines = bytes[..left].iter().filter(|byte| **byte == b'\n').count();
        self.cut.insert(name.to_owned(), lines.try_into().unwrap());
        self.foreign.insert(name.to_owned());
    }

    /// Puts everything under the name that clients were told.
    fn put_back(&self, sidecar: &Sidecar) {
        for name in &self.renamed {
            fs::rename(self.aside.join(name), self.dir.join(name)).unwrap();
        }
        for copied in logged(sidecar, "deleted segment copied back") {
            let [from, to] = ["to", "segment"].map(|field| self.dir.join(copied[field].as_str().unwrap()));
            fs::rename(from, to).unwrap();
        }
    }

    /// Holds the files against the answers: only what was cut off may be missing. Returns how many lines are there, and
    /// how many were cut off.
    fn verified(&self, mut answers: Answers) -> (usize, usize) {
        let mut lost = 0;
        for told in answers.values_mut() {
            let Told::Durable { segment, index, .. } = &*told else {
                panic!("{told:?}: nobody is refused for tampering")
            };
            if self.cut.get(segment).is_some_and(|lines| index >= lines) {
                // It may be there all the same, where it was written first and that was not believed.
                *told = Told::Nothing;
                lost += 1;
            }
        }
        let mut faults = verify(&self.dir, &answers).err().unwrap_or_default();
        // Half a line of somebody else's, and what was written behind it before that was noticed.
        faults.retain(|fault| !self.foreign.iter().any(|name| fault.starts_with(&format!("{name}: line"))));
        assert!(faults.is_empty(), "{} violations, such as {:#?}", faults.len(), &faults[..faults.len().min(10)]);
        (answers.len() - lost, lost)
    }
}

/// The log's lines with this message.
fn logged(sidecar: &Sidecar, message: &str) -> Vec<Value> {
    let log = sidecar.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// How often tampering of this kind was noticed, by the metric and by the log's errors, which agree.
fn noticed(sidecar: &Sidecar, kind: &str) -> u64 {
    let metrics = sidecar.get("/metrics").text();
    let label = format!("audit_log_tampering_total{{kind=\"{kind}\"}} ");
    let counted = metrics.lines().find_map(|line| line.strip_prefix(&label)).map_or(0, |count| count.parse().unwrap());
    wait_for("the log", || (reported(sidecar, kind).len() >= counted).then_some(()));
    counted.try_into().unwrap()
}

/// The log's errors about tampering of this kind.
fn reported(sidecar: &Sidecar, kind: &str) -> Vec<Value> {
    let errors = logged(sidecar, "somebody else changed the active segment; a new one begins").into_iter();
    errors.filter(|error| error["kind"] == kind && error["level"] == "ERROR").collect()
}

/// Deletes the active segment again and again while sixteen clients append.
#[test]
fn a_segment_that_is_deleted_under_load_loses_nothing_while_the_process_lives() {
    const ROW: Row = Row {
        test: "tampering::a_segment_that_is_deleted_under_load_loses_nothing_while_the_process_lives",
        promise: "§4.3 a deleted segment is noticed, reported, left, and copied back under its name",
        fault: "active segment deleted under load",
        how: "rm of the youngest segment, 16 clients, one sidecar",
        control: "`tampering::a_segment_that_is_deleted_before_a_kill_is_missing`; seen red without the copy",
    };
    let _alone = alone();
    let rounds = report::rounds(10, 100);
    let mut scene = Scene::new();
    let mut sidecar = Setup::in_dir(&scene.dir).start();
    let load = Load::start(sidecar.address, 16, "deleted", Duration::ZERO);
    for round in 1..=rounds {
        let before = load.acknowledged();
        wait_for("answers", || (load.acknowledged() > before + 50 + 37 * (round % 10)).then_some(()));
        let name = scene.act(Act::Deleted);
        wait_for("the notice", || (noticed(&sidecar, "deleted") == round).then_some(()));
        wait_for("the copy", || scene.dir.join(&name).exists().then_some(()));
    }
    let answers = load.stop();
    assert!(sidecar.stop().success());
    let found = verified(&scene.dir, &answers);
    assert_eq!((found.torn_tails, found.empty, found.lines), (0, 0, found.acknowledged), "{found:?}");
    held(&ROW, rounds, &format!("{} acknowledged, 0 lost, {} segments whole", found.acknowledged, found.segments));
}

/// Does everything else to it, likewise.
#[test]
fn a_segment_that_is_changed_under_load_is_left_with_all_that_is_acknowledged() {
    const ROW: Row = Row {
        test: "tampering::a_segment_that_is_changed_under_load_is_left_with_all_that_is_acknowledged",
        promise: "§4.3 noticed, reported, left; lost is only what somebody cut off",
        fault: "active segment deleted, renamed, replaced, linked to, cut, emptied, appended to under load",
        how: "8 clients, one sidecar for each act",
        control: "`tampering::a_segment_that_is_deleted_before_a_kill_is_missing`; seen red without \
                  the copy, and without either check",
    };
    let _alone = alone();
    let rounds = report::rounds(5, 30);
    let (mut there, mut cut_off) = (0, 0);
    for act in ACTS {
        let mut scene = Scene::new();
        let mut sidecar = Setup::in_dir(&scene.dir).start();
        let load = Load::start(sidecar.address, 8, &format!("{act:?}"), Duration::ZERO);
        for round in 1..=rounds {
            let before = load.acknowledged();
            wait_for("answers", || (load.acknowledged() > before + 50).then_some(()));
            let name = scene.act(act);
            wait_for("the notice", || (noticed(&sidecar, act.kind()) == round).then_some(()));
            wait_for("the next segment", || (scene.active() > name).then_some(()));
        }
        let answers = load.stop();
        assert!(sidecar.stop().success());
        scene.put_back(&sidecar);
        let (some, lost) = scene.verified(answers);
        there += some;
        cut_off += lost;
    }
    let acts = u64::try_from(ACTS.len()).unwrap();
    held(
        &ROW,
        acts * rounds,
        &format!("{acts} acts; {there} acknowledged lines there, {cut_off} cut off by the act, 0 lost"),
    );
}

/// How an idle sidecar comes to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The next event.
    Event,
    /// SIGTERM.
    Drain,
    /// The minute's check.
    Minute,
}

/// Does it while nobody appends.
#[test]
fn a_segment_that_is_changed_while_idle_is_noticed_at_the_next_event_drain_or_minute() {
    const ROW: Row = Row {
        test: "tampering::a_segment_that_is_changed_while_idle_is_noticed_at_the_next_event_drain_or_minute",
        promise: "§4.3 checked before every write, on drain and every minute",
        fault: "active segment deleted, renamed, replaced, linked to, cut, emptied, appended to while idle",
        how: "an event, SIGTERM, and, with the full counts, a minute without either",
        control: "`tampering::a_segment_that_is_deleted_before_a_kill_is_missing`; seen red without \
                  the checks before and after a write, and without the one on drain",
    };
    let _alone = alone();
    let rounds = report::rounds(2, 20);
    for round in 0..rounds {
        for act in ACTS {
            for look in [Look::Event, Look::Drain] {
                let idle = Idle::start(act, &format!("{round}"));
                idle.end(look);
            }
        }
    }
    let mut times = 2 * rounds;
    if report::is_full() {
        // All at once: it is the same minute.
        let idle: Vec<_> = ACTS.iter().map(|act| Idle::start(*act, "minute")).collect();
        for idle in idle {
            idle.end(Look::Minute);
        }
        times += 1;
    }
    let acts = u64::try_from(ACTS.len()).unwrap();
    held(&ROW, acts * times, &format!("{acts} acts, all noticed; lost is only what was cut off"));
}

/// A sidecar whose segment was changed after some events.
struct Idle {
    act: Act,
    scene: Scene,
    sidecar: Sidecar,
    answers: Answers,
}

impl Idle {
    fn start(act: Act, prefix: &str) -> Self {
        let mut scene = Scene::new();
        let sidecar = Setup::in_dir(&scene.dir).start();
        let mut client = sidecar.connect();
        let ids = (0..5).map(|number| format!("{prefix}-{number}"));
        let answers = ids.map(|id| (id.clone(), post(&mut client, &id))).collect();
        scene.act(act);
        Self { act, scene, sidecar, answers }
    }

    fn end(mut self, look: Look) {
        let kind = self.act.kind();
        match look {
            Look::Event => {
                let last = post(&mut self.sidecar.connect(), "last");
                assert!(matches!(&last, Told::Durable { index: 0, .. }), "{last:?}");
                self.answers.insert("last".to_owned(), last);
                assert_eq!(noticed(&self.sidecar, kind), 1, "{:?}", self.act);
            }
            Look::Minute => {
                wait_within(Duration::from_secs(90), kind, || (noticed(&self.sidecar, kind) == 1).then_some(()));
            }
            Look::Drain => {}
        }
        assert!(self.sidecar.stop().success());
        wait_for(kind, || (reported(&self.sidecar, kind).len() == 1).then_some(()));
        self.scene.put_back(&self.sidecar);
        let (there, cut_off) = self.scene.verified(self.answers);
        let expected = match self.act {
            Act::Emptied => 5,
            Act::Cut => 3,
            _ => 0,
        };
        assert_eq!(cut_off, expected, "{:?}: {there} there", self.act);
    }
}

/// A second name for the active segment changes nothing.
#[test]
fn a_segment_that_is_hard_linked_goes_on() {
    const ROW: Row = Row {
        test: "tampering::a_segment_that_is_hard_linked_goes_on",
        promise: "§4.3 the path still names the open file: no tampering",
        fault: "active segment hard-linked, and the link removed, under load; linked while idle",
        how: "ln and rm, 8 clients",
        control: "the other tests of this module get the notice; seen red where a second name counts as tampering",
    };
    let _alone = alone();
    let rounds = report::rounds(20, 100);
    let scene = Scene::new();
    let mut sidecar = Setup::in_dir(&scene.dir).start();
    let load = Load::start(sidecar.address, 8, "linked", Duration::ZERO);
    wait_for("answers", || (load.acknowledged() > 0).then_some(()));
    let name = scene.active();
    for _ in 0..rounds {
        let before = load.acknowledged();
        fs::hard_link(scene.dir.join(&name), scene.aside.join("link")).unwrap();
        wait_for("answers", || (load.acknowledged() > before + 20).then_some(()));
        fs::remove_file(scene.aside.join("link")).unwrap();
    }
    let mut answers = load.stop();
    fs::hard_link(scene.dir.join(&name), scene.aside.join("link")).unwrap();
    answers.insert("idle".to_owned(), post(&mut sidecar.connect(), "idle"));
    assert!(ACTS.iter().all(|act| noticed(&sidecar, act.kind()) == 0));
    assert!(sidecar.stop().success());
    let found = verified(&scene.dir, &answers);
    assert_eq!((found.segments, found.lines), (1, found.acknowledged));
    held(&ROW, rounds, &format!("{} acknowledged, all in one segment; nothing reported", found.acknowledged));
}

/// The control: what the contract gives up is lost, and is found to be: a segment that is deleted just before a kill.
#[test]
fn a_segment_that_is_deleted_before_a_kill_is_missing() {
    let _alone = alone();
    let mut scene = Scene::new();
    let mut sidecar = Setup::in_dir(&scene.dir).start();
    let answers = Answers::from([("x".to_owned(), post(&mut sidecar.connect(), "x"))]);
    verified(&scene.dir, &answers);
    scene.act(Act::Deleted);
    sidecar.kill();
    let faults = verify(&scene.dir, &answers).unwrap_err();
    assert!(faults[0].contains("acknowledged as line 0"), "{faults:?}");
}

//! Each call of the committer on files fails, lies, or fails together with what would mend it.

use std::path::{Path, PathBuf};

use crate::load::{Answers, Found, Told, post, verified};
use crate::report::{self, Row, alone, held};
use crate::support::{Client, Setup, Sidecar};
use crate::tracer::{QUIET, Tracer};

const ERRNOS: [&str; 5] = ["EIO", "ENOSPC", "EROFS", "EDQUOT", "EINTR"];

/// What a client must hear of an event whose commit meets a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// 200: the fault can be survived.
    Accepted,
    /// A refusal, `Audit-Written: no`.
    No,
    /// A refusal, `Audit-Written: unknown`.
    Unknown,
    /// Anything that is true.
    Any,
}

/// What is broken, and what must come of it.
struct Fault<'a> {
    /// As strace's `inject=` has it.
    injections: &'a [&'a str],
    /// The files that it is about, or all.
    paths: &'a [&'a Path],
    /// The fault has struck once this call was tampered with so often.
    strikes: (&'a str, usize),
    expected: Expected,
    /// Of a refusal.
    status: u16,
}

impl Fault<'_> {
    fn may_end_in(&self, told: &Told) -> bool {
        match (told, self.expected) {
            (Told::Durable { .. }, Expected::Accepted | Expected::Any) => true,
            (Told::No(status), Expected::No) | (Told::Unknown(status), Expected::Unknown) => *status == self.status,
            (Told::No(status) | Told::Unknown(status), Expected::Any) => [503, self.status].contains(status),
            _ => false,
        }
    }
}

fn is_durable(told: &Told) -> bool {
    matches!(told, Told::Durable { .. })
}

/// A directory, the sidecar that writes to it at present, and all that its client was told.
struct Bench {
    sidecar: Sidecar,
    client: Client,
    answers: Answers,
    /// The segment of the last accepted event.
    active: PathBuf,
    temp: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let sidecar = start(temp.path());
        Self { client: sidecar.connect(), sidecar, answers: Answers::new(), active: PathBuf::new(), temp }
    }

    /// A new sidecar, which has no segment yet.
    fn restart(&mut self) {
        self.sidecar.kill();
        self.sidecar = start(self.temp.path());
        self.client = self.sidecar.connect();
    }

    fn post(&mut self) -> Told {
        let id = format!("{:06}", self.answers.len());
        let told = post(&mut self.client, &id);
        if let Told::Durable { segment, .. } = &told {
            self.active = self.temp.path().join(segment);
        }
        self.answers.insert(id, told.clone());
        told
    }

    /// An event must be accepted now, and the sidecar be ready.
    fn accepts(&mut self, what: &str) {
        let told = self.post();
        assert!(is_durable(&told), "{what}: {told:?} after the fault was over");
        assert_eq!(self.sidecar.get("/readyz").status, 200, "{what}: after the fault was over");
    }

    /// Posts events until the fault has struck, and compares what the client heard of the last of them. Those before
    /// must be accepted, unless anything is allowed. Then the fault is over.
    fn strike(&mut self, fault: &Fault<'_>) {
        let what = format!("{:?}", fault.injections);
        let (call, hits) = fault.strikes;
        let has_struck = |calls: Vec<String>| {
            calls.iter().filter(|line| line.starts_with(call) && line.ends_with("(INJECTED)")).count() >= hits
        };
        let tracer = Tracer::attach(&self.sidecar, fault.injections, fault.paths);
        for posts in 0.. {
            let told = self.post();
            if has_struck(tracer.calls()) {
                assert!(fault.may_end_in(&told), "{what}: {told:?}, not {:?}: {:#?}", fault.expected, tracer.calls());
                let ready = self.sidecar.get("/readyz").status;
                assert_eq!(ready == 200, is_durable(&told), "{what}: /readyz {ready} after {told:?}");
                break;
            }
            assert!(is_durable(&told) || fault.expected == Expected::Any, "{what}: {told:?} before the fault");
            assert!(posts < 30, "{what}: did not happen: {:#?}", tracer.calls());
        }
        tracer.detach();
        self.accepts(&what);
    }

    /// Kills the sidecar and holds the files against all that was said. Returns the figures as well as a text of them.
    fn end(mut self) -> (Found, String) {
        self.sidecar.kill();
        let found = verified(self.temp.path(), &self.answers);
        let count = |kind: fn(&Told) -> bool| self.answers.values().filter(|told| kind(told)).count();
        let text = format!(
            "{} accepted, 0 lost, {} refused with `no`, {} with `unknown`; {} lines, {} empty segments, {} torn",
            found.acknowledged,
            count(|told| matches!(told, Told::No(_))),
            count(|told| matches!(told, Told::Unknown(_))),
            found.lines,
            found.empty,
            found.torn_tails,
        );
        (found, text)
    }

    /// As [`Bench::end`]; nothing empty or torn is left.
    fn end_clean(self) -> String {
        let (found, text) = self.end();
        assert_eq!((found.empty, found.torn_tails), (0, 0), "{text}");
        text
    }
}

fn start(dir: &Path) -> Sidecar {
    let mut setup = Setup::in_dir(dir);
    setup.command.env(QUIET.0, QUIET.1);
    setup.start()
}

fn status_of(errno: &str) -> u16 {
    if ["ENOSPC", "EDQUOT"].contains(&errno) { 507 } else { 503 }
}

/// The calls of a commit to a segment that has lines already, and what comes of an error in each.
const NEXT: [(&str, Expected); 3] = [
    // A look before the write or after the sync.
    ("statx", Expected::No),
    ("write", Expected::No),
    // The lines are moved to a new segment.
    ("fdatasync", Expected::Accepted),
];

/// The calls of the first commit to a new segment.
const FIRST: [(&str, u64, Expected); 8] = [
    // The directory; which file was created; the look after the sync.
    ("statx", 1, Expected::No),
    ("statx", 2, Expected::No),
    ("statx", 3, Expected::No),
    ("openat", 1, Expected::No),
    // Only tells whether a network file system hides a deleted file.
    ("readlink", 1, Expected::Accepted),
    ("write", 1, Expected::No),
    ("fdatasync", 1, Expected::Accepted),
    ("fsync", 1, Expected::Accepted),
];

/// An interrupted call that is made again: where making it again promises nothing false.
fn is_retried(call: &str, errno: &str) -> bool {
    errno == "EINTR" && ["write", "openat", "unlinkat", "ftruncate"].contains(&call)
}

#[test]
fn any_file_call_may_fail() {
    const ROW: Row = Row {
        test: "calls::any_file_call_may_fail",
        promise: "§2 status and Audit-Written of every failure; §4.2 a failed sync; §4.4 the first event \
                  afterwards is accepted",
        fault: "openat, statx, readlink, write, fdatasync, fsync, ftruncate, unlinkat: EIO, ENOSPC, EROFS, \
                EDQUOT, EINTR at the Nth",
        how: "strace injects errors into the committer's thread",
        control: "seen red with the errors of fdatasync ignored, and without the care for an unidentified file \
                  (4 empty ones)",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut bench = Bench::new();
    let mut cells = 0;
    let numbers = report::rounds(3, 5);
    bench.accepts("the start");
    for (call, errno, number) in cells_of(&NEXT.map(|(call, _)| call), numbers) {
        let expected = NEXT.into_iter().find(|(name, _)| *name == call).unwrap().1;
        let active = bench.active.clone();
        bench.strike(&Fault {
            injections: &[&format!("{call}:error={errno}:when={number}")],
            paths: &[&active],
            strikes: (call, 1),
            expected: if is_retried(call, errno) { Expected::Accepted } else { expected },
            status: status_of(errno),
        });
        // Only after a failed sync does a segment get no more lines.
        assert_eq!(bench.active != active, call == "fdatasync", "{call} {errno} {number}");
        cells += 1;
    }
    for (call, number, expected) in FIRST {
        for errno in ERRNOS {
            bench.restart();
            bench.strike(&Fault {
                injections: &[&format!("{call}:error={errno}:when={number}")],
                paths: &[],
                strikes: (call, 1),
                expected: if is_retried(call, errno) { Expected::Accepted } else { expected },
                status: status_of(errno),
            });
            cells += 1;
        }
    }
    for (calls, storm) in STORMS {
        for (call, errno, number) in cells_of(calls, numbers) {
            bench.restart();
            bench.strike(&Fault {
                injections: &[&format!("{call}:error={errno}:when={number}"), storm],
                paths: &[],
                strikes: (call, 1),
                expected: Expected::Any,
                status: status_of(errno),
            });
            cells += 1;
        }
    }
    held(&ROW, cells, &bench.end_clean());
}

/// Each call with each error at each number.
fn cells_of<'a>(calls: &[&'a str], numbers: u64) -> Vec<(&'a str, &'static str, u64)> {
    let with_errnos = calls.iter().flat_map(|call| ERRNOS.map(|errno| (*call, errno)));
    with_errnos.flat_map(|(call, errno)| (1..=numbers).map(move |number| (call, errno, number))).collect()
}

/// Calls that are only made after another fault, and that fault: each commit cuts a segment back, opens another, and
/// moves its lines there; or it creates a file and removes it.
const STORMS: [(&[&str], &str); 2] = [
    (&["openat", "statx", "readlink", "fsync", "ftruncate"], "fdatasync:error=EIO:when=1+2"),
    (&["unlinkat"], "fdatasync:error=EIO"),
];

/// Faults that come together, and what must come of them: whether the segment is new, what is injected, which call is
/// the last to be hit and how often, and the answer.
type Together = (bool, &'static [&'static str], (&'static str, usize), Expected, u16);

const TOGETHER: [Together; 16] = [
    // What was written can't be taken back, or not durably.
    (false, &["write:error=EIO:when=1", "ftruncate:error=EIO"], ("ftruncate", 1), Expected::Unknown, 503),
    (false, &["write:error=ENOSPC:when=1", "ftruncate:error=EIO"], ("ftruncate", 1), Expected::Unknown, 507),
    (false, &["write:error=EDQUOT:when=1", "fsync:error=EIO:when=1"], ("fsync", 1), Expected::Unknown, 507),
    // It can't even be told how much was written.
    (false, &["write:error=EIO:when=1", "statx:error=EIO:when=2"], ("statx", 1), Expected::Unknown, 503),
    (false, &["statx:error=EIO:when=2..3"], ("statx", 2), Expected::Unknown, 503),
    // The lines are moved, although the old segment can't be cut.
    (false, &["fdatasync:error=EIO:when=1", "ftruncate:error=EIO"], ("ftruncate", 1), Expected::Accepted, 503),
    (false, &["fdatasync:error=EIO:when=1", "fsync:error=EIO:when=1"], ("fsync", 1), Expected::Accepted, 503),
    // They are moved once; then they are refused.
    (false, &["fdatasync:error=EIO:when=1..2"], ("fdatasync", 2), Expected::No, 503),
    (false, &["fdatasync:error=ENOSPC:when=1..2"], ("fdatasync", 2), Expected::No, 507),
    (false, &["fdatasync:error=EIO:when=1..2", "ftruncate:error=EIO"], ("fdatasync", 2), Expected::Unknown, 503),
    (false, &["fdatasync:error=EIO:when=1", "openat:error=ENOSPC"], ("openat", 1), Expected::No, 507),
    (
        false,
        &["fdatasync:error=EIO:when=1", "openat:error=EROFS", "ftruncate:error=EROFS"],
        ("openat", 1),
        Expected::Unknown,
        503,
    ),
    // A new file that can't be removed is emptied.
    (true, &["write:error=ENOSPC:when=1", "unlinkat:error=EIO"], ("unlinkat", 1), Expected::No, 507),
    (
        true,
        &["write:error=EIO:when=1", "unlinkat:error=EIO", "ftruncate:error=EIO"],
        ("ftruncate", 1),
        Expected::Unknown,
        503,
    ),
    (true, &["write:error=EIO:when=1", "fsync:error=EIO"], ("fsync", 2), Expected::Unknown, 503),
    // Nothing can be made durable at all.
    (true, &["fdatasync:error=EIO", "fsync:error=EIO"], ("fsync", 3), Expected::Unknown, 503),
];

#[test]
fn faults_may_come_together() {
    const ROW: Row = Row {
        test: "calls::faults_may_come_together",
        promise: "§2 `no` only where what was written was taken back and that was synced",
        fault: "a write or sync fails, and so do the cut, its sync, the removal, or the next segment",
        how: "strace injects two or three errors into one commit",
        control: "seen red with `no` said whether or not the cut succeeded",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut bench = Bench::new();
    for (is_new, injections, strikes, expected, status) in TOGETHER {
        bench.restart();
        if !is_new {
            bench.accepts("a segment");
        }
        bench.strike(&Fault { injections, paths: &[], strikes, expected, status });
    }
    held(&ROW, u64::try_from(TOGETHER.len()).unwrap(), &bench.end_clean());
}

/// Nothing is written, or not all of it, and the call says otherwise.
#[test]
fn a_write_may_lie() {
    const ROW: Row = Row {
        test: "calls::a_write_may_lie",
        promise: "§4.3 the size is what was written, or the lines go to a new segment; §4.1",
        fault: "write claims all, less, or more than it was given, or nothing, and writes nothing; once and \
                four times in a row",
        how: "strace injects the result into the committer's thread",
        control: "seen red without the look at the length after the sync",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut bench = Bench::new();
    bench.accepts("the start");
    let line = std::fs::read(&bench.active).unwrap().len();
    let mut lies = 0;
    for claim in [line, 1, line - 1, line + 1, line * 100, 1 << 31] {
        for is_new in [false, true] {
            bench.restart();
            if !is_new {
                bench.accepts("a segment");
            }
            // A commit that is betrayed in each of its four tries is given up; smaller claims are all heard in two.
            let given_up = if claim >= line { Expected::Unknown } else { Expected::Accepted };
            for (times, expected) in [(1, Expected::Accepted), (4, given_up)] {
                let injections = &[format!("write:retval={claim}:when=1..{times}")];
                bench.strike(&Fault {
                    injections: &[&injections[0]],
                    paths: &[],
                    strikes: ("write", times),
                    expected,
                    status: 503,
                });
                lies += 1;
            }
        }
    }
    // A file that takes nothing, and says so.
    bench.strike(&Fault {
        injections: &["write:retval=0:when=1"],
        paths: &[],
        strikes: ("write", 1),
        expected: Expected::No,
        status: 503,
    });
    // A file that does not have the length that was written is left as it is (§4.3), empty ones included.
    held(&ROW, lies + 1, &bench.end().1);
}

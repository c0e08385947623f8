//! The process is killed, under load and at each of its calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::load::{Answers, Found, Load, Told, verified, verify, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Setup, segments};
use crate::tracer::{QUIET, Tracer};

/// One directory in which sidecars are started and killed, one after the other, and all that their clients were told.
struct Graveyard {
    temp: tempfile::TempDir,
    answers: Answers,
    evidence: BTreeMap<String, Vec<u8>>,
}

impl Graveyard {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap(), answers: Answers::new(), evidence: BTreeMap::new() }
    }

    fn dir(&self) -> &Path {
        self.temp.path()
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup::in_dir(self.dir());
        setup.command.env(QUIET.0, QUIET.1);
        setup
    }

    /// Takes note of a round's answers; what earlier rounds have left must be as it was.
    fn bury(&mut self, answers: Answers) {
        self.answers.extend(answers);
        let left = segments(self.dir());
        for (name, bytes) in &self.evidence {
            assert!(left.get(name) == Some(bytes), "{name} is of an earlier round and was changed");
        }
        self.evidence = left;
    }
}

/// Sixteen clients append events with ids of their own until the sidecar is killed in the middle of it. The next one
/// starts beside what the killed ones have left.
#[test]
fn acknowledged_lines_survive_kill() {
    const ROW: Row = Row {
        test: "kill::acknowledged_lines_survive_kill",
        promise: "§4.1 an acknowledged line is on disk; §3 a start writes to no segment it finds",
        fault: "SIGKILL under load",
        how: "16 clients, a new sidecar in the same directory each round",
        control: "`kill::what_breaks_a_promise_is_found`; seen red with some writes left out",
    };
    let _alone = alone();
    let rounds = report::rounds(60, 200);
    let mut graveyard = Graveyard::new();
    for round in 0..rounds {
        let mut sidecar = graveyard.setup().start();
        // Some rounds end within the first commits, and some within large writes.
        let (bytes, enough) = if round % 8 == 7 { (100_000, round % 5) } else { (0, 23 * (round * 7 % 20)) };
        let load = Load::start_with(sidecar.address, 16, &format!("kill-{round}"), Duration::ZERO, bytes);
        wait_within(Duration::from_secs(30), "answers", || (load.acknowledged() >= enough).then_some(()));
        sidecar.kill();
        graveyard.bury(load.stop());
        if round % 20 == 19 {
            verified(graveyard.dir(), &graveyard.answers);
        }
    }
    let found = verified(graveyard.dir(), &graveyard.answers);
    assert!(found.acknowledged > usize::try_from(rounds).unwrap() * 100, "{found:?}: the load was none");
    held(
        &ROW,
        rounds,
        &format!(
            "{} acknowledged, 0 lost; {} segments, 0 damaged lines, {} torn tails",
            found.acknowledged, found.segments, found.torn_tails
        ),
    );
}

/// Calls of the committer, what else is injected so that it makes them, and the numbers at which it is killed in the
/// gate.
const LAST_CALLS: [(&str, &[&str], &[u64]); 8] = [
    ("write", &[], &[1, 2, 3, 8, 21, 40]),
    ("fdatasync", &[], &[1, 2, 17, 40]),
    ("statx", &[], &[1, 2, 3, 4, 9, 40]),
    // Every commit's first data sync fails: each opens a segment, and cuts one back.
    ("openat", &["fdatasync:error=EIO:when=2+2"], &[1, 2, 40]),
    ("readlink", &["fdatasync:error=EIO:when=2+2"], &[1, 9]),
    ("fsync", &["fdatasync:error=EIO:when=2+2"], &[1, 2, 3, 4, 40]),
    ("ftruncate", &["fdatasync:error=EIO:when=2+2"], &[1, 2, 40]),
    // Every new file is given up.
    ("unlinkat", &["fdatasync:error=EIO"], &[1, 2, 40]),
];

/// The sidecar is killed on its way into the Nth write, sync, look, cut or removal since its start.
#[test]
fn a_kill_at_any_call_loses_nothing() {
    const ROW: Row = Row {
        test: "kill::a_kill_at_any_call_loses_nothing",
        promise: "§4.1 an acknowledged line is on disk, whatever the committer was about to do",
        fault: "SIGKILL at the Nth write, fdatasync, statx, openat, readlink, fsync, ftruncate or unlinkat, N = 1…40",
        how: "strace injects the signal into the committer's thread; 8 clients",
        control: "`kill::what_breaks_a_promise_is_found`; seen red with some writes left out; each round must \
                  end by the signal",
    };
    let _alone = alone();
    if !report::tools(&["strace"]) {
        return;
    }
    let mut graveyard = Graveyard::new();
    let mut rounds = 0;
    for (call, others, gate) in LAST_CALLS {
        let full: Vec<u64> = (1..=40).collect();
        for number in if report::is_full() { &full[..] } else { gate } {
            let kill = format!("{call}:signal=KILL:when={number}");
            let mut sidecar = graveyard.setup().start();
            let tracer = Tracer::attach(&sidecar, &[&[kill.as_str()], others].concat(), &[]);
            let load = Load::start(sidecar.address, 8, &format!("{call}-{number}"), Duration::ZERO);
            let status = sidecar.wait();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{call} {number}: {status}");
            tracer.detach();
            graveyard.bury(load.stop());
            rounds += 1;
        }
        verified(graveyard.dir(), &graveyard.answers);
    }
    let found = verified(graveyard.dir(), &graveyard.answers);
    assert!(found.acknowledged > usize::try_from(rounds).unwrap(), "{found:?}: the load was none");
    held(
        &ROW,
        rounds,
        &format!(
            "{} acknowledged, 0 lost; {} segments, 0 damaged lines, {} torn tails, {} empty",
            found.acknowledged, found.segments, found.torn_tails, found.empty
        ),
    );
}

/// The control of all tests that hold files against answers: each broken promise is found, and nothing else is.
#[test]
fn what_breaks_a_promise_is_found() {
    const FIRST: &str = "audit-0_20260128T091244.381Z.jsonl";
    const SECOND: &str = "audit-0_20260128T091250.000Z.jsonl";
    fn line(ts: &str, id: &str) -> String {
        format!("{{\"ts\":\"2026-01-28T09:12:{ts}Z\",\"event\":\"E\",\"meta\":{{\"id\":\"{id}\"}}}}\n")
    }
    fn durable(segment: &str, index: u64, ts: &str) -> Told {
        Told::Durable { segment: segment.to_owned(), index, ts: format!("2026-01-28T09:12:{ts}Z") }
    }
    let answers = Answers::from([
        ("a".to_owned(), durable(FIRST, 0, "44.381")),
        ("b".to_owned(), durable(FIRST, 1, "44.500")),
        ("c".to_owned(), durable(FIRST, 2, "44.500")),
        ("d".to_owned(), durable(SECOND, 0, "50.000")),
        ("refused".to_owned(), Told::No(507)),
        ("unknown".to_owned(), Told::Unknown(503)),
        ("unheard".to_owned(), Told::Nothing),
    ]);
    let first = [line("44.381", "a"), line("44.500", "b"), line("44.500", "c")].concat();
    let second = [line("50.000", "d"), line("50.001", "unknown"), "{\"ts\":\"2026".to_owned()].concat();
    let of = |first: &str, second: &str| {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(FIRST), first).unwrap();
        std::fs::write(temp.path().join(SECOND), second).unwrap();
        verify(temp.path(), &answers)
    };
    // A torn tail and an event of which nothing was known break no promise.
    let whole = Found { acknowledged: 4, lines: 5, torn_tails: 1, segments: 2, empty: 0 };
    assert_eq!(of(&first, &second), Ok(whole));

    let refused = line("50.002", "refused");
    let nobodys = line("50.002", "nobody's");
    let rows: [(&str, String, String); 9] = [
        ("b: acknowledged as line 1", first.replace(&line("44.500", "b"), ""), second.clone()),
        ("c: acknowledged as line 2", first.replace(&line("44.500", "c"), ""), second.clone()),
        ("d: acknowledged as line 0", first.clone(), String::new()),
        ("d: acknowledged as line 0", first.clone(), second.replacen("50.000", "50.001", 1)),
        (
            "line 1 is damaged",
            first.replace("{\"ts\":\"2026-01-28T09:12:44.500Z\",\"event\":\"E\",\"meta\":{\"id\":\"b", "\0\0"),
            second.clone(),
        ),
        ("refused: refused with 507", first.clone(), format!("{}{refused}", line("50.000", "d"))),
        ("line 1 goes back", first.clone(), format!("{}{}", line("50.000", "d"), line("49.999", "unknown"))),
        (
            "named later than its first line",
            first.clone(),
            format!("{}{}", line("49.999", "unheard"), line("50.000", "d")),
        ),
        ("nobody's: nobody sent it", first.clone(), format!("{}{nobodys}", line("50.000", "d"))),
    ];
    for (expected, first, second) in rows {
        let faults = of(&first, &second).expect_err(expected);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
    }
}

//! The wall clock of a real, running sidecar leaps.
//!
//! The sidecar asks the kernel's own code for the time, which is mapped into every process (vdso(7)): no library can be
//! put before that. So that code is replaced, in the one process, by a function that adds an offset to the wall clock's
//! time. Other clocks stay as they are, and so do the times of files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::load::{Answers, Load, Told, post, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Setup, Sidecar, lines, segments, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The wall clock of one process.
struct WallClock {
    memory: File,
    /// Where the offset lies, in seconds.
    offset_at: u64,
}

/// `clock_gettime(edi: clock, rsi: timespec)`, with an offset in seconds behind it.
const CLOCK_GETTIME: [u8; 32] = [
    0xb8, 0xe4, 0, 0, 0, // mov eax, 228 (clock_gettime)
    0x0f, 0x05, // syscall
    0x85, 0xff, // test edi, edi (CLOCK_REALTIME is 0)
    0x75, 0x0a, // jnz the return
    0x48, 0x8b, 0x0d, 6, 0, 0, 0, // mov rcx, [offset]
    0x48, 0x01, 0x0e, // add [rsi], rcx
    0xc3, // ret
    0x90, 0x90, // so that the offset is aligned and changes at once
    0, 0, 0, 0, 0, 0, 0, 0, // offset
];
const OFFSET_WITHIN: u64 = 24;

impl WallClock {
    fn of(sidecar: &Sidecar) -> Self {
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", sidecar.pid())).unwrap();
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", sidecar.pid())).unwrap();
        let range = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap().split(' ').next().unwrap();
        let (begin, end) = range.split_once('-').unwrap();
        let (begin, end) = (u64::from_str_radix(begin, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut image = vec![0; usize::try_from(end - begin).unwrap()];
        memory.read_exact_at(&mut image, begin).unwrap();
        let function_at = begin + Elf(&image).function("__vdso_clock_gettime");
        assert_eq!(function_at % 8, 0);
        // Nobody is within that code while it changes: the sidecar is idle, and stopped.
        sidecar.signal(Signal::STOP);
        wait_for("the stop", || {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).unwrap();
            status.rsplit_once(") ").unwrap().1.starts_with('T').then_some(())
        });
        memory.write_all_at(&CLOCK_GETTIME, function_at).unwrap();
        sidecar.signal(Signal::CONT);
        Self { memory, offset_at: function_at + OFFSET_WITHIN }
    }

    /// From now on the clock is so many seconds ahead of the true time.
    fn set_ahead(&self, seconds: i64) {
        self.memory.write_all_at(&seconds.to_ne_bytes(), self.offset_at).unwrap();
    }
}

/// As much of an ELF-64 image as it takes to find a function.
struct Elf<'a>(&'a [u8]);

impl Elf<'_> {
    fn number(&self, at: u64, bytes: usize) -> u64 {
        let at = usize::try_from(at).unwrap();
        self.0[at..at + bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn name(&self, at: u64) -> &[u8] {
        self.0[usize::try_from(at).unwrap()..].split(|byte| *byte == 0).next().unwrap()
    }

    /// The function's address within the image.
    fn function(&self, name: &str) -> u64 {
        const DYNSYM: u64 = 11;
        let (sections_at, section_bytes, count) = (self.number(0x28, 8), self.number(0x3a, 2), self.number(0x3c, 2));
        let section = |index| sections_at + index * section_bytes;
        let symbols = (0..count).map(section).find(|at| self.number(at + 4, 4) == DYNSYM).unwrap();
        let strings_at = self.number(section(self.number(symbols + 0x28, 4)) + 0x18, 8);
        let (begin, bytes) = (self.number(symbols + 0x18, 8), self.number(symbols + 0x20, 8));
        let mut entries = (0..bytes / 24).map(|index| begin + index * 24);
        let entry = entries.find(|at| self.name(strings_at + self.number(*at, 4)) == name.as_bytes()).unwrap();
        self.number(entry + 8, 8)
    }
}

fn can_patch() -> bool {
    let can = cfg!(target_arch = "x86_64");
    if !can {
        assert!(std::env::var_os("CI").is_none(), "the clock's replacement is machine code of x86-64");
        report::say("SKIPPED: the clock's replacement is machine code of x86-64");
    }
    can
}

fn true_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// How far the newest time that was answered is ahead of the true time, in seconds.
fn seconds_ahead(told: &Told) -> i64 {
    let Told::Durable { ts, .. } = told else { panic!("{told:?}") };
    let ts = audit_log::record::Timestamp::parse_rfc3339(ts).unwrap();
    ts.millis().div_euclid(1000) - true_seconds()
}

#[test]
fn leaps_of_the_clock_under_load_keep_names_and_times() {
    const ROW: Row = Row {
        test: "clocks::leaps_of_the_clock_under_load_keep_names_and_times",
        promise: "§3 within a segment `ts` never decreases; no name is later than its first `ts`; a step back \
                  by more than 1 s \
                  and midnight begin a segment",
        fault: "the wall clock leaps by −1 h, +1 day, −1 day, ±1 s, ±2 s, to and over midnight",
        how: "the process's vDSO is replaced; 16 clients",
        control: "seen red without each of: the larger of both times, the step back, the end of the day",
    };
    let _alone = alone();
    if !can_patch() {
        return;
    }
    let mut sidecar = Sidecar::start();
    let clock = WallClock::of(&sidecar);
    let load = Load::start(sidecar.address, 16, "leap", Duration::ZERO);
    let mut client = sidecar.connect();
    let mut answers = Answers::new();
    let mut ahead = 0;
    let rounds = report::rounds(60, 1000);
    let leaps = [-HOUR, DAY, -1, 1, -2, 2, -DAY, HOUR, 3 * DAY, -3 * DAY + 2, -2];
    for (round, leap) in (0..rounds).zip(leaps.into_iter().cycle()) {
        // Every seventh leap is to just before midnight, which then passes by itself or with the next leap.
        ahead = if round % 7 == 6 { DAY - 2 - true_seconds().rem_euclid(DAY) } else { ahead + leap };
        let before = load.acknowledged();
        clock.set_ahead(ahead);
        wait_within(PATIENCE, "answers", || (load.acknowledged() > before + 40).then_some(()));
        let id = format!("round-{round}");
        let told = post(&mut client, &id);
        // Time that stands still does so for a second, and a busy machine takes a few.
        assert!((ahead - 20..=ahead + 1).contains(&seconds_ahead(&told)), "{round}: {told:?}, {ahead} s ahead");
        answers.insert(id, told);
    }
    answers.extend(load.stop());
    sidecar.kill();
    let found = verified(&sidecar.dir, &answers);
    assert_eq!(found.acknowledged, answers.len(), "nobody is refused");
    for (name, bytes) in segments(&sidecar.dir) {
        let mut times: Vec<_> = std::str::from_utf8(&bytes).unwrap().lines().map(time_of).collect();
        times.dedup();
        // A commit that midnight overtakes, between its look at the clock and its stamp, is the last.
        times.pop();
        let day = &name.strip_prefix("audit-0_").unwrap()[..8];
        assert!(times.iter().all(|ts| ts[..10].replace('-', "") == day), "{name} goes on after its day: {times:?}");
    }
    held(
        &ROW,
        rounds,
        &format!(
            "{} acknowledged, 0 refused, 0 lost; {} segments, 0 times go back",
            found.acknowledged, found.segments
        ),
    );
}

fn time_of(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["ts"].as_str().unwrap().to_owned()
}

/// Whether the sidecar has a file open.
fn has_open(sidecar: &Sidecar, path: &Path) -> bool {
    let files = std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().map(Result::unwrap);
    // A descriptor may be closed while we look.
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|open| open == path)
}

#[test]
fn midnight_closes_the_segment_of_an_idle_sidecar() {
    const ROW: Row = Row {
        test: "clocks::midnight_closes_the_segment_of_an_idle_sidecar",
        promise: "§3 a segment is closed at UTC midnight even if no event comes",
        fault: "midnight comes while no event does",
        how: "the process's vDSO is replaced, so that its midnight is 3 s away; /proc/PID/fd",
        control: "seen red where the committer does not wake at midnight",
    };
    let _alone = alone();
    if !can_patch() {
        return;
    }
    let mut sidecar = Sidecar::start();
    let clock = WallClock::of(&sidecar);
    let rounds = report::rounds(2, 5);
    let mut answers = Answers::new();
    for round in 0..rounds {
        let day = i64::try_from(round).unwrap() * DAY;
        let midnight = true_seconds() + 3;
        clock.set_ahead(day + DAY - midnight.rem_euclid(DAY));
        let id = format!("idle-{round}");
        let told = post(&mut sidecar.connect(), &id);
        let Told::Durable { segment, .. } = &told else { panic!("{told:?}") };
        let path = sidecar.dir.join(segment).canonicalize().unwrap();
        assert!(has_open(&sidecar, &path), "it is open until midnight");
        // Before the idle minute would be over.
        wait_within(Duration::from_secs(30), "its end", || (!has_open(&sidecar, &path)).then_some(()));
        assert!(true_seconds() >= midnight - 1, "closed too early");
        answers.insert(id, told);
    }
    sidecar.kill();
    let found = verified(&sidecar.dir, &answers);
    assert_eq!(found.segments, answers.len());
    held(&ROW, rounds, "closed at midnight each time, not before");
}

#[test]
fn nothing_is_removed_while_the_clock_is_ahead() {
    const ROW: Row = Row {
        test: "clocks::nothing_is_removed_while_the_clock_is_ahead",
        promise: "§5 `serve` removes nothing while the wall clock has run more than an hour ahead",
        fault: "the wall clock leaps by +61 min, +1 day, +10 years; by +50 min and −1 h",
        how: "the process's vDSO is replaced; a changed setting has it sweep",
        control: "seen red with any leap believed; and leaps of +50 min and −1 h remove the segment",
    };
    const OLD: &str = "audit-9_20200101T000000.000Z.jsonl";
    const LEAPS: [(i64, bool); 7] = [
        (3650 * DAY, false),
        (61 * 60, false),
        (50 * 60, true),
        (DAY, false),
        (-HOUR, true),
        (30 * DAY, false),
        (0, true),
    ];
    let _alone = alone();
    if !can_patch() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let config = temp.path().join("config.yaml");
    let mut days = 1000;
    // Each setting is another, of more days than the last, and of fewer than the old segment's age.
    let mut set_retention = || {
        days += 1;
        std::fs::write(&config, format!("provider:\n  auditLog:\n    retentionPeriodInDays: {days}\n")).unwrap();
    };
    set_retention();
    let mut setup = Setup::new();
    setup.command.env("AUDIT_LOG_CONFIG", temp.path().join("config.yaml"));
    let mut sidecar = setup.start();
    let clock = WallClock::of(&sidecar);
    let old = sidecar.dir.join(OLD);
    let logged = |sidecar: &Sidecar, text: &str| sidecar.log().matches(text).count();
    wait_for("the first sweep", || (logged(&sidecar, "\"swept\"") == 1).then_some(()));
    let rounds = report::rounds(3, 7);
    let (mut kept, mut removed) = (0, 0);
    for (_, (ahead, is_believed)) in (0..rounds).zip(LEAPS) {
        std::fs::write(&old, "{\"ts\":\"2020-01-01T00:00:00.000Z\"}\n").unwrap();
        File::options().write(true).open(&old).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        clock.set_ahead(ahead);
        sidecar.append(r#"{"event":"now"}"#);
        let text = if is_believed { "\"swept\"" } else { "ahead since the start: nothing is removed" };
        let before = logged(&sidecar, text);
        set_retention();
        wait_for("a sweep", || (logged(&sidecar, text) > before).then_some(()));
        assert_eq!(old.exists(), !is_believed, "{ahead} s ahead");
        kept += u64::from(!is_believed);
        removed += u64::from(is_believed);
    }
    // What was written meanwhile is there, however far ahead it is named.
    sidecar.kill();
    assert_eq!(u64::try_from(lines(&sidecar.dir).len()).unwrap(), rounds);
    let text =
        format!("{kept} leaps that are not believed: 0 removed; {removed} that are: the old one removed each time");
    held(&ROW, rounds, &text);
}

//! One random history: what clients ask, what the world does, and a model of what clients were told.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::super::commit::Committer;
use super::super::queue::{Encoded, Group};
use super::super::{Refusal, Written};
use super::disk::{Disk, End, Ended, Lie};
use super::random::Random;
use crate::clock::{Clock, ManualClock};
use crate::metrics::Metrics;
use crate::record::{DAY_MS, Event, Identity, SegmentName, Timestamp};

/// 2026-01-28T09:12:44.381Z.
const NOW: Timestamp = Timestamp::from_millis(1_769_591_564_381);
const STEPS_MAX: usize = 40;
/// How the worst of failures begins.
pub(super) const LOST: &str = "lost";

/// What a client knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Durable {
        segment: Arc<str>,
        index: u64,
        ts: Timestamp,
    },
    No,
    Unknown,
    /// The process ended first.
    Nothing,
    /// It was acknowledged; then somebody deleted the segment, and the process ended before it was copied back.
    Deleted {
        segment: Arc<str>,
    },
}

/// What a history covered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Covered {
    pub(super) acknowledged: u64,
    pub(super) no: u64,
    pub(super) unknown: u64,
    pub(super) faults: u64,
    pub(super) kills: u64,
    pub(super) power_cuts: u64,
    pub(super) deletions: u64,
}

impl Covered {
    pub(super) fn add(&mut self, other: &Self) {
        let Self { acknowledged, no, unknown, faults, kills, power_cuts, deletions } = self;
        *acknowledged += other.acknowledged;
        *no += other.no;
        *unknown += other.unknown;
        *faults += other.faults;
        *kills += other.kills;
        *power_cuts += other.power_cuts;
        *deletions += other.deletions;
    }
}

pub(super) struct History {
    random: Random,
    clock: Ticking,
    disk: Disk,
    metrics: Arc<Metrics>,
    identity: Identity,
    segment_bytes_max: u64,
    committer: Committer<Disk>,
    /// By number; the event's name is `e<number>`.
    told: Vec<Told>,
    /// Processes that may have left a file behind that they could not remove.
    troubled_ends: u64,
    /// The segment that somebody deleted, until it is back.
    deleted: Option<Arc<str>>,
    /// All that were ever deleted. They may be back under an earlier name: theirs may have been taken.
    ever_deleted: HashSet<Arc<str>>,
    covered: Covered,
}

/// A clock that goes on by a millisecond whenever somebody looks: a name that is taken is not taken for ever.
#[derive(Clone)]
struct Ticking(ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.pass(Duration::from_millis(1));
        self.0.now()
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }
}

/// Lives through the history of a seed.
///
/// # Errors
/// The promise that was broken, and with `trace` all that had happened.
pub(super) fn live(seed: u64, lie: Option<Lie>, metrics: &Arc<Metrics>, trace: bool) -> Result<Covered, String> {
    let mut history = History::new(seed, lie, metrics, trace);
    let lived = history.run();
    lived.map_err(|broken| {
        let trace = history.disk.lock().trace.take().unwrap_or_default();
        format!("seed {seed}: {broken}\n  {}", trace.join("\n  "))
    })?;
    history.covered.faults = history.disk.lock().faults;
    Ok(history.covered)
}

impl History {
    fn new(seed: u64, lie: Option<Lie>, metrics: &Arc<Metrics>, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let clock = Ticking(ManualClock::new(NOW));
        let disk = Disk::new(Random::new(random.next()), clock.0.clone(), lie);
        disk.lock().trace = trace.then(Vec::new);
        // A segment holds a few commits, or all of them.
        let segment_bytes_max = random.pick(&[400, 2_000, 1 << 20]);
        let identity = Identity::new("j", "w", 0).expect("ids are good");
        let committer = committer(&disk, &clock, metrics, segment_bytes_max);
        Self {
            random,
            clock,
            disk,
            metrics: Arc::clone(metrics),
            identity,
            segment_bytes_max,
            committer,
            told: Vec::new(),
            troubled_ends: 0,
            deleted: None,
            ever_deleted: HashSet::new(),
            covered: Covered::default(),
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.disk.lock().note(what);
    }

    fn run(&mut self) -> Result<(), String> {
        let steps = 1 + self.random.below(STEPS_MAX);
        for _ in 0..steps {
            self.step()?;
        }
        self.end_of_faults()?;
        self.verify("at the end")?;
        self.restart(Some(End::PowerCut));
        self.verify("after the last power cut")?;
        self.commit_must_succeed("after the last power cut")?;
        self.verify("after the last commit")
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(21) {
            0..=9 => {
                self.commit()?;
            }
            10 => {
                self.note(|| "check".to_owned());
                self.during(|history| history.committer.check())?;
            }
            // A deleted segment is not restored once it is a day old.
            11 | 12 if self.deleted.is_none() => self.time_goes_on(),
            11 | 12 => {}
            13 | 14 => {
                let calls = self.random.pick(&[2, 4, 10, 40]);
                self.note(|| format!("from now on a call fails once in {calls}"));
                self.disk.fail_once_in(calls);
            }
            15 | 16 => {
                self.note(|| "no more faults".to_owned());
                self.disk.fail_once_in(0);
            }
            17 => {
                let calls = self.random.below(20);
                let end = self.random.pick(&[End::Kill, End::PowerCut]);
                self.note(|| format!("in {calls} calls: {end:?}"));
                self.disk.end_in(calls, end);
            }
            18 => {
                let end = self.random.pick(&[Some(End::Kill), Some(End::PowerCut), None]);
                self.restart(end);
                self.verify("after a restart")?;
            }
            19 => self.delete_active()?,
            _ => self.end_of_faults()?,
        }
        Ok(())
    }

    fn time_goes_on(&mut self) {
        let hours = |hours: usize| i64::try_from(hours * 3_600_000).expect("hours fit");
        let (hour, day) = (self.random.below(30), self.random.below(3));
        let step = match self.random.below(6) {
            0 => -hours(hour),
            1 => -i64::try_from(self.random.below(3_000)).expect("milliseconds fit"),
            2 => DAY_MS * i64::try_from(day).expect("days fit"),
            3 => hours(hour),
            // To the last milliseconds of the day.
            4 => DAY_MS - self.clock.0.now().millis() % DAY_MS - 3,
            _ => i64::try_from(self.random.below(100)).expect("milliseconds fit"),
        };
        self.note(|| format!("the clock is set by {step} ms"));
        self.clock.0.set(self.clock.0.now().plus_millis(step));
        self.clock.0.pass(Duration::from_secs(1));
    }

    /// Faults end: the next event is accepted, and nothing is left lying about.
    fn end_of_faults(&mut self) -> Result<(), String> {
        self.note(|| "the trouble is over".to_owned());
        self.disk.fail_once_in(0);
        if let Some(end) = self.disk.take_end() {
            self.restart(Some(end));
        }
        self.commit_must_succeed("after the trouble")?;
        self.committer.check();
        while self.committer.has_orphans() {
            // The longest pause between two tries to copy a deleted segment back.
            self.clock.0.pass(Duration::from_mins(1));
            self.committer.check();
        }
        self.deleted = None;
        self.verify("after the trouble")?;
        self.nothing_is_left_over()
    }

    fn commit_must_succeed(&mut self, when: &str) -> Result<(), String> {
        if self.commit()? { Ok(()) } else { Err(format!("an event is refused {when}")) }
    }

    /// Somebody deletes the segment of a line that was acknowledged just now, so that it is the active one.
    fn delete_active(&mut self) -> Result<(), String> {
        if !self.commit()? {
            return Ok(());
        }
        let last = self.told.iter().rev().find_map(|told| match told {
            Told::Durable { segment, .. } => Some(Arc::clone(segment)),
            _ => None,
        });
        if let Some(segment) = last.filter(|segment| self.deleted.is_none() && self.disk.delete(segment)) {
            self.note(|| format!("somebody deletes {segment}"));
            self.covered.deletions += 1;
            self.ever_deleted.insert(Arc::clone(&segment));
            self.deleted = Some(segment);
        }
        Ok(())
    }

    /// Some requests of some events each, in one group. Returns whether all were acknowledged.
    fn commit(&mut self) -> Result<bool, String> {
        let mut group = Group::default();
        let first = self.told.len();
        let mut requests = Vec::new();
        for _ in 0..=self.random.below(4) {
            let begin = self.told.len();
            let bodies: Vec<_> = (0..=self.random.below(3))
                .map(|_| {
                    self.told.push(Told::Nothing);
                    body(self.told.len() - 1)
                })
                .collect();
            let events: Vec<_> = bodies.iter().map(|body| Event::parse(body.as_bytes()).expect("it is one")).collect();
            group.push(Encoded::new(&self.identity, &events).expect("short lines fit"), Duration::ZERO);
            requests.push(begin..self.told.len());
        }
        // A request whose time was over before the group was taken.
        if requests.len() > 1 && self.random.once_in(10) {
            let withdrawn = self.random.below(requests.len());
            group.withdraw(withdrawn);
            self.tell(requests[withdrawn].clone(), &Told::No);
            requests[withdrawn] = 0..0;
        }
        let outcome = self.during(|history| {
            let outcome = history.committer.commit(&mut group);
            if history.committer.has_orphans() && history.random.once_in(2) {
                history.committer.mend();
            }
            outcome
        });
        let Some(outcome) = outcome? else { return Ok(false) };
        let now = self.clock.0.now();
        let mut all = true;
        for (number, request) in requests.into_iter().enumerate().filter(|(_, request)| !request.is_empty()) {
            match outcome.of(number) {
                Ok(ack) => {
                    if ack.ts > now.plus_millis(1_000) {
                        return Err(format!("{} is more than a second ahead of {now}", ack.ts));
                    }
                    for (event, index) in request.zip(ack.index..) {
                        let segment = Arc::clone(&ack.segment);
                        self.tell(event..event + 1, &Told::Durable { segment, index, ts: ack.ts });
                    }
                }
                Err(Refusal { written, .. }) => {
                    all = false;
                    self.tell(request, if written == Written::No { &Told::No } else { &Told::Unknown });
                }
            }
        }
        let last = self.told.len();
        self.note(|| format!("commit of e{first} to e{}", last - 1));
        if self.deleted.as_ref().is_some_and(|name| !self.committer.has_orphans() && self.disk.has(name)) {
            self.note(|| "the deleted segment is back".to_owned());
            self.deleted = None;
        }
        if self.random.once_in(4) {
            self.verify("after a commit")?;
        }
        Ok(all)
    }

    fn tell(&mut self, events: std::ops::Range<usize>, told: &Told) {
        let count = events.len() as u64;
        match told {
            Told::Durable { .. } => self.covered.acknowledged += count,
            Told::No => self.covered.no += count,
            Told::Unknown => self.covered.unknown += count,
            Told::Nothing | Told::Deleted { .. } => {}
        }
        self.note(|| format!("e{} to e{}: {told:?}", events.start, events.end - 1));
        self.told[events].fill(told.clone());
    }

    /// Does what may be the end of the process; if it is, a new one starts.
    fn during<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<Option<T>, String> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(value) => Ok(Some(value)),
            Err(payload) if payload.is::<Ended>() => {
                let end = self.disk.take_end();
                self.restart(end);
                self.verify("after an end in a call").map(|()| None)
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// The process ends so, or in good order, and another begins.
    fn restart(&mut self, end: Option<End>) {
        self.note(|| end.map_or("stop and start".to_owned(), |end| format!("{end:?}, and start")));
        let mut troubled = end.is_some() || self.disk.lock().fails_once_in > 0;
        match end {
            Some(End::Kill) => self.covered.kills += 1,
            Some(End::PowerCut) => {
                self.covered.power_cuts += 1;
                self.disk.cut_power();
            }
            None => {
                // It may yet be ended while it stops.
                let stopped = catch_unwind(AssertUnwindSafe(|| self.committer.end()));
                let end = self.disk.take_end();
                match stopped {
                    Ok(()) => {}
                    Err(payload) if payload.is::<Ended>() => {
                        troubled = true;
                        if end == Some(End::PowerCut) {
                            self.disk.cut_power();
                        }
                    }
                    Err(payload) => resume_unwind(payload),
                }
            }
        }
        self.troubled_ends += u64::from(troubled);
        self.committer = committer(&self.disk, &self.clock, &self.metrics, self.segment_bytes_max);
        if let Some(gone) = self.deleted.take().filter(|_| troubled) {
            for told in &mut self.told {
                if matches!(told, Told::Durable { segment, .. } if *segment == gone) {
                    *told = Told::Deleted { segment: Arc::clone(&gone) };
                }
            }
        }
    }

    /// Holds what a reader finds against what clients were told.
    fn verify(&mut self, when: &str) -> Result<(), String> {
        let segments = self.disk.segments();
        self.verify_segments(&segments).map_err(|broken| {
            self.note(|| {
                format!("{:#?}", segments.iter().map(|(n, b)| (n, String::from_utf8_lossy(b))).collect::<Vec<_>>())
            });
            format!("{when}: {broken}")
        })
    }

    fn verify_segments(&self, segments: &[(String, Vec<u8>)]) -> Result<(), String> {
        let mut found: HashMap<usize, Timestamp> = HashMap::new();
        let mut in_place = HashSet::new();
        let clean = self.troubled_ends == 0 && self.disk.lock().faults == 0;
        for (name, bytes) in segments {
            let begun = name.parse::<SegmentName>().map_err(|error| format!("{name}: {error}"))?.youngest();
            let mut last_ts = begun;
            let mut damaged = false;
            for (index, line) in (0..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
                let Some((event, ts)) = read(line) else {
                    damaged = true;
                    continue;
                };
                if ts < last_ts {
                    return Err(format!("{name}: line {index} is of {ts}, after {last_ts}"));
                }
                last_ts = ts;
                if found.insert(event, ts).is_some_and(|other| other != ts || clean) {
                    return Err(format!("e{event} is there twice, with two times or for no reason"));
                }
                match self.told.get(event) {
                    Some(Told::Durable { segment, index: at, ts: told })
                        if (**segment == **name && *at == index) || self.ever_deleted.contains(segment) =>
                    {
                        in_place.insert(event);
                        if *told != ts {
                            return Err(format!("e{event} has the time {ts}, not {told}"));
                        }
                        if damaged && **segment == **name {
                            return Err(format!("{name}: a damaged line before line {index}, which is acknowledged"));
                        }
                    }
                    Some(Told::No) => return Err(format!("e{event} is in {name}, and a client heard `no`")),
                    Some(_) => {}
                    None => return Err(format!("e{event} was never sent")),
                }
            }
        }
        let must_be_there =
            |told: &Told| matches!(told, Told::Durable { segment, .. } if self.deleted.as_ref() != Some(segment));
        let lost: Vec<_> = (0..self.told.len())
            .filter(|event| must_be_there(&self.told[*event]) && !in_place.contains(event))
            .collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("{LOST}: {lost:?} are not where the answers said")) }
    }

    /// Files without a line that was acknowledged, or would have been, are what a process has left that was ended in
    /// trouble, one each: nobody touches evidence that he finds. And where nobody heard `unknown` and no process ended, no line is damaged.
    fn nothing_is_left_over(&mut self) -> Result<(), String> {
        let used: HashSet<&str> = self
            .told
            .iter()
            .filter_map(|told| match told {
                Told::Durable { segment, .. } | Told::Deleted { segment } => Some(&**segment),
                _ => None,
            })
            .collect();
        let segments = self.disk.segments();
        let unanswered = |line: &[u8]| read(line).is_some_and(|(event, _)| self.told[event] == Told::Nothing);
        let unused: Vec<_> = segments
            .iter()
            .filter(|(name, _)| !used.contains(&**name))
            .filter(|(_, bytes)| !bytes.split_inclusive(|byte| *byte == b'\n').any(unanswered))
            .map(|(name, _)| name)
            .collect();
        // A file that is shorter or longer than its writes said looks as if somebody had been at it, and is left, as evidence.
        let (ends, lying_writes) = (self.troubled_ends, self.disk.lock().lying_writes);
        if unused.len() as u64 > ends + lying_writes {
            return Err(format!("{ends} ends, and {} files without an acknowledged line: {unused:?}", unused.len()));
        }
        let excused = ends + lying_writes + self.covered.unknown > 0;
        let is_damaged = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').any(|line| read(line).is_none());
        match segments.iter().find(|(_, bytes)| is_damaged(bytes)) {
            Some((name, _)) if !excused => Err(format!("{name}: a damaged line")),
            _ => Ok(()),
        }
    }
}

fn committer(disk: &Disk, clock: &Ticking, metrics: &Arc<Metrics>, segment_bytes_max: u64) -> Committer<Disk> {
    Committer::new(disk.clone(), 0, Arc::new(clock.clone()), Arc::clone(metrics), segment_bytes_max)
}

/// An event whose every byte is known from its number.
fn body(number: usize) -> String {
    format!("{{\"event\":\"e{number}\",\"message\":\"{}\"}}", "x".repeat(number * 7 % 90))
}

/// The event and the time of a line that is whole, to the byte.
fn read(line: &[u8]) -> Option<(usize, Timestamp)> {
    let text = std::str::from_utf8(line).ok()?;
    let (ts, rest) = text.strip_prefix("{\"ts\":\"")?.split_at_checked(Timestamp::TEXT_BYTES)?;
    let (number, rest) =
        rest.strip_prefix("\",\"jobId\":\"j\",\"workspaceId\":\"w\",\"event\":\"e")?.split_once('"')?;
    let number: usize = number.parse().ok()?;
    let message = rest.strip_prefix(",\"message\":\"")?.strip_suffix("\",\"meta\":null}\n")?;
    let whole = message.len() == number * 7 % 90 && message.bytes().all(|byte| byte == b'x');
    Some((number, Timestamp::parse_rfc3339(ts)?)).filter(|_| whole)
}

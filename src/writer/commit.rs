//! The commit protocol, step by step; [the module above](super) says why. It runs on one thread and blocks.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::queue::{Committed, Group, Lines, Outcome, Part};
use super::segment::{Leftover, NAMES_TRIED_MAX, Segment, TakenBack, Tampering, create_no_later};
use super::{Refusal, Written};
use crate::clock::Clock;
use crate::durable::{Directory, SegmentFile};
use crate::metrics::Metrics;
use crate::record::{DAY_MS, SegmentName, Timestamp};

/// The owner of the segments: commits groups of lines, one after the other.
pub(super) struct Committer<D: Directory> {
    directory: D,
    rank: u32,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    segment_bytes_max: u64,
    /// The segment that the next lines go to.
    active: Option<Segment<D::File>>,
    /// Files of earlier failures that are to be removed. No other is created meanwhile, so there are two at most: what was
    /// the active segment, and a copy.
    leftovers: Vec<Leftover<D::File>>,
    /// Deleted segments that live on because they are open, until they are copied back.
    orphans: Vec<Segment<D::File>>,
    /// When copying back is tried again after it failed, and how long the pause was.
    orphans_retry: Option<(Duration, Duration)>,
    trouble: Trouble,
}

/// Deleted segments kept open at most: somebody who can delete faster than we can copy can also fill the disk.
const ORPHANS_MAX: usize = 8;
/// The pause after copying back failed; it doubles up to the second.
const ORPHANS_PAUSE: Duration = Duration::from_millis(500);
const ORPHANS_PAUSE_MAX: Duration = Duration::from_mins(1);
/// Tries for one commit: a failed sync, a full segment or tampering each lead to a new segment.
const ATTEMPTS_MAX: usize = 4;
/// How far the clock may step back within a segment, whose times then stand still.
const STEP_BACK_MAX_MS: i64 = 1000;
/// A segment whose last line is older than this may have been swept: no retention period is shorter.
const RESTORE_AGE_MAX_MS: i64 = DAY_MS;

/// Which step of a commit failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Before anything was written.
    Prepare,
    Write,
    Sync,
    /// The check after the sync.
    Verify,
}

/// One attempt did not end with durable lines.
struct Setback {
    step: Step,
    error: io::Error,
    /// Nothing of it is on disk, durably.
    taken_back: bool,
    /// The time that the lines carried.
    ts: Option<Timestamp>,
    /// The segment held acknowledged lines before.
    segment_was_used: bool,
    tampered: bool,
}

impl<D: Directory> Committer<D> {
    pub(super) fn new(
        directory: D,
        rank: u32,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        segment_bytes_max: u64,
    ) -> Self {
        Self {
            directory,
            rank,
            clock,
            metrics,
            segment_bytes_max,
            active: None,
            leftovers: Vec::new(),
            orphans: Vec::new(),
            orphans_retry: None,
            trouble: Trouble::default(),
        }
    }

    /// Makes the lines of a group durable, or says of which requests that failed.
    pub(super) fn commit(&mut self, group: &mut Group) -> Outcome {
        let begun = self.clock.steady();
        let mut parts = Vec::with_capacity(1);
        self.commit_entries(group, 0..group.entries.len(), &mut parts);
        let lines = group.line_starts.len();
        self.metrics.commit_events.observe(f64::from(u32::try_from(lines).unwrap_or(u32::MAX)));
        self.metrics.commit_duration_seconds.observe(self.clock.steady().saturating_sub(begun).as_secs_f64());
        Outcome { entries: std::mem::take(&mut group.entries), parts }
    }

    /// Commits some entries as one; if they are too large for the file size limit together, half by half.
    fn commit_entries(&mut self, group: &mut Group, entries: Range<usize>, parts: &mut Vec<Part>) {
        let mut lines = group.slice(entries.clone());
        let (count, bytes) = (lines.count(), lines.bytes.len());
        if count == 0 {
            // All withdrawn: nobody waits for an answer.
            return;
        }
        let result = match self.commit_lines(&mut lines) {
            Err((refusal, error)) if is_too_large(&error) && refusal.written == Written::No && entries.len() > 1 => {
                let middle = entries.start + entries.len() / 2;
                self.commit_entries(group, entries.start..middle, parts);
                self.commit_entries(group, middle..entries.end, parts);
                return;
            }
            Err((refusal, _)) => {
                self.trouble.report(&refusal, self.clock.steady());
                Err(refusal)
            }
            Ok(committed) => {
                self.trouble.is_over();
                self.metrics.appended_events_total.inc_by(count.try_into().expect("a group's lines fit"));
                self.metrics.appended_bytes_total.inc_by(bytes.try_into().expect("a group's bytes fit"));
                Ok(committed)
            }
        };
        parts.push(Part { entries_end: entries.end, result });
    }

    fn commit_lines(&mut self, lines: &mut Lines<'_>) -> Result<Committed, (Refusal, io::Error)> {
        let mut written = Written::No;
        // Lines that may be on disk already keep their time, so that the two can be known as one.
        let mut keep_ts = None;
        let mut moved = false;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let setback = match self.attempt(lines, keep_ts) {
                Ok(committed) => return Ok(committed),
                Err(setback) => setback,
            };
            if !setback.taken_back {
                written = Written::Unknown;
                keep_ts = keep_ts.or(setback.ts);
            }
            let again = match setback.step {
                Step::Sync => !std::mem::replace(&mut moved, true),
                Step::Write => is_too_large(&setback.error) && setback.segment_was_used,
                Step::Verify | Step::Prepare => setback.tampered,
            };
            if !again || attempts == ATTEMPTS_MAX {
                let refusal = Refusal {
                    full: is_full(&setback.error),
                    written,
                    cause: format!("{:?}: {}", setback.step, setback.error).into(),
                };
                return Err((refusal, setback.error));
            }
            warn!(step = ?setback.step, error = %setback.error, "the lines of a commit go to a new segment");
        }
    }

    /// Tries once to make lines durable in the active segment, or in a new one.
    fn attempt(&mut self, lines: &mut Lines<'_>, keep_ts: Option<Timestamp>) -> Result<Committed, Setback> {
        let prepare = |error| Setback {
            step: Step::Prepare,
            error,
            taken_back: true,
            ts: None,
            segment_was_used: false,
            tampered: false,
        };
        let bytes = u64::try_from(lines.bytes.len()).expect("a length fits");
        self.rotate_if_due(bytes);
        self.look().map_err(prepare)?;
        if self.active.is_none() {
            let segment = self.open(keep_ts).map_err(prepare)?;
            self.active = Some(segment);
        }
        let Self { active, directory, clock, .. } = self;
        let segment = active.as_mut().expect("it was opened above");
        let ts = keep_ts.unwrap_or_else(|| clock.now()).max(segment.last_ts);
        lines.stamp(ts);

        let mut written = 0;
        if let Err(error) = segment.file.write_all(lines.bytes, &mut written) {
            return Err(self.set_back(Step::Write, error, ts, written));
        }
        let synced = segment.file.sync_data();
        let synced = synced.and_then(|()| if segment.is_new() { directory.sync() } else { Ok(()) });
        if let Err(error) = synced {
            return Err(self.set_back(Step::Sync, error, ts, written));
        }
        let expected = segment.bytes + bytes;
        match segment.look(directory, expected) {
            Err(error) => return Err(self.set_back(Step::Verify, error, ts, written)),
            Ok(Some(tampering)) => {
                let segment_was_used = !segment.is_new();
                self.report_tampering(tampering);
                return Err(Setback {
                    step: Step::Verify,
                    error: io::Error::other(format!("the segment was {}", tampering.kind())),
                    taken_back: false,
                    ts: Some(ts),
                    segment_was_used,
                    tampered: true,
                });
            }
            Ok(None) => {}
        }
        let index = segment.lines;
        segment.bytes = expected;
        segment.lines += u64::try_from(lines.count()).expect("a count fits");
        segment.last_ts = ts;
        Ok(Committed { ts, segment: Arc::clone(&segment.text), first_line: lines.first, index })
    }

    /// Undoes an attempt. The segment stays in use only if a write failed and its bytes could be cut off again.
    fn set_back(&mut self, step: Step, error: io::Error, ts: Timestamp, written: u64) -> Setback {
        let mut segment = self.active.take().expect("an attempt has a segment");
        let segment_was_used = !segment.is_new();
        let taken_back = segment.take_back(&self.directory, written);
        if let Err(error) = &taken_back {
            error!(segment = %segment.text, %error, "what was written without success could not be taken back");
        }
        let removed = matches!(taken_back, Ok(TakenBack::Removed));
        let taken_back = taken_back.is_ok();
        let usable = step != Step::Sync && taken_back;
        if segment_was_used {
            if usable && !is_too_large(&error) {
                self.active = Some(segment);
            } else {
                self.retire(segment);
            }
        } else if !removed {
            let found = self.directory.stat(&segment.text);
            if usable && matches!(found, Ok(Some(stat)) if stat.id == segment.id) {
                // Empty, and still there: where nothing may be removed, the next lines are its first.
                self.active = Some(segment);
            } else {
                self.leftovers.push(Leftover { name: segment.text, file: segment.file });
            }
        }
        Setback { step, error, taken_back, ts: Some(ts), segment_was_used, tampered: false }
    }

    /// Closes the active segment if its day is over, if it would grow too large, or if the clock has stepped back. An
    /// empty one has neither day nor size yet.
    fn rotate_if_due(&mut self, bytes: u64) {
        let now = self.clock.now();
        let Some(segment) = &self.active else { return };
        let day_is_over = !segment.is_new() && now.day() > segment.name.youngest().day();
        let stepped_back = now.plus_millis(STEP_BACK_MAX_MS) < segment.last_ts;
        let full = !segment.is_new() && segment.bytes + bytes > self.segment_bytes_max;
        if day_is_over || stepped_back || full {
            self.close();
        }
    }

    /// Checks the active segment. One that was tampered with is reported and left.
    fn look(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.active else { return Ok(()) };
        let expected = segment.bytes;
        if let Some(tampering) = segment.look(&mut self.directory, expected)? {
            self.report_tampering(tampering);
        }
        Ok(())
    }

    fn report_tampering(&mut self, tampering: Tampering) {
        let segment = self.active.take().expect("what was tampered with was active");
        self.metrics.tampering_total.with_label_values(&[tampering.kind()]).inc();
        error!(
            segment = %segment.text,
            kind = tampering.kind(),
            lines = segment.lines,
            bytes = segment.bytes,
            "somebody else changed the active segment; a new one begins"
        );
        if tampering.is_deleted() {
            self.retire(segment);
        }
    }

    /// Lets go of a segment, unless it was deleted: then it is kept open until it is copied back.
    fn retire(&mut self, segment: Segment<D::File>) {
        // Where it can't be told, it is asked again before anything is copied.
        let deleted = segment.is_deleted().unwrap_or(true);
        let young = self.clock.now().millis().saturating_sub(segment.last_ts.millis()) < RESTORE_AGE_MAX_MS;
        if !deleted || !young || segment.is_new() {
            return;
        }
        if self.orphans.len() == ORPHANS_MAX {
            self.orphans.retain(|orphan| orphan.is_deleted().unwrap_or(true));
        }
        if self.orphans.len() == ORPHANS_MAX {
            report_lost(&self.orphans.remove(0));
        }
        self.orphans.push(segment);
        self.orphans_retry = None;
    }

    /// Creates a segment. It is named by the time taken just before its first line is stamped, or no later than
    /// `keep_ts` if the lines have their time already.
    fn open(&mut self, keep_ts: Option<Timestamp>) -> io::Result<Segment<D::File>> {
        self.directory.ensure()?;
        self.clear_leftovers()?;
        let (file, name) = match keep_ts {
            Some(ts) => create_no_later(&self.directory, &SegmentName::new(self.rank, ts))?,
            None => self.create_now()?,
        };
        let at = keep_ts.unwrap_or(name.youngest());
        let segment = Segment::adopt(file, name, at).map_err(|(leftover, error)| {
            self.leftovers.push(leftover);
            error
        })?;
        self.metrics.segments_opened_total.inc();
        info!(segment = %segment.text, "segment opened");
        Ok(segment)
    }

    /// Takes the time until it makes a name that nobody has.
    fn create_now(&self) -> io::Result<(D::File, SegmentName)> {
        for _ in 0..NAMES_TRIED_MAX {
            let name = SegmentName::new(self.rank, self.clock.now());
            match self.directory.create(&name.to_string()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                created => return created.map(|file| (file, name)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes what is left of earlier failures.
    fn clear_leftovers(&mut self) -> io::Result<()> {
        while let Some(leftover) = self.leftovers.last() {
            let removed = self.directory.ensure().and_then(|()| leftover.remove(&self.directory));
            let because =
                |error: &io::Error| format!("`{}`, of an earlier failure, can't be removed: {error}", leftover.name);
            removed.map_err(|error| io::Error::new(error.kind(), because(&error)))?;
            self.leftovers.pop();
        }
        Ok(())
    }

    /// Does so if it can be done now; it is tried again before the next segment is opened.
    fn try_to_clear_leftovers(&mut self) {
        if let Err(error) = self.clear_leftovers() {
            warn!(%error, "a file is left over");
        }
    }

    /// The work of an idle minute: closes the segment after midnight, checks it, and mends what is left to mend.
    pub(super) fn check(&mut self) {
        self.rotate_if_due(0);
        if let Err(error) = self.look() {
            warn!(%error, "the active segment can't be checked");
        }
        self.try_to_clear_leftovers();
        self.mend();
    }

    /// Whether there are deleted segments to be copied back.
    pub(super) fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Copies one deleted segment back; after a failure, not before its pause is over. One at a time, because lines
    /// wait meanwhile.
    pub(super) fn mend(&mut self) {
        let now = self.clock.steady();
        let pause = match self.orphans_retry {
            Some((again, _)) if now < again => return,
            Some((_, pause)) => (pause * 2).min(ORPHANS_PAUSE_MAX),
            None => ORPHANS_PAUSE,
        };
        let (orphan, deleted) = loop {
            let Some(orphan) = self.orphans.pop() else { return };
            match orphan.is_deleted() {
                // It was kept because it could not be told, and is in its place.
                Ok(false) => {}
                deleted => break (orphan, deleted),
            }
        };
        let may_copy = deleted.and_then(|_| self.clear_leftovers()).and_then(|()| self.directory.ensure());
        let copied = may_copy.and_then(|()| orphan.copy_back(&self.directory, &mut self.leftovers));
        self.try_to_clear_leftovers();
        match copied {
            Ok((name, bytes)) => {
                self.orphans_retry = None;
                if bytes < orphan.bytes {
                    error!(segment = %orphan.text, lost_bytes = orphan.bytes - bytes, "it had been cut before it was deleted");
                }
                warn!(segment = %orphan.text, to = %name, lines = orphan.lines, "deleted segment copied back");
            }
            Err(_) if orphan.is_stale() => report_lost(&orphan),
            Err(error) => {
                error!(segment = %orphan.text, %error, "deleted segment not copied back yet");
                self.orphans_retry = Some((now + pause, pause));
                // Behind the others: they may be smaller, and there may be room for them.
                self.orphans.insert(0, orphan);
            }
        }
    }

    /// Closes the active segment. All of its lines are durable already; this only makes sure that it is still there.
    fn close(&mut self) {
        if let Err(error) = self.look() {
            warn!(%error, "the active segment can't be checked as it is closed");
        }
        match self.active.take() {
            Some(empty) if empty.is_new() => self.leftovers.push(Leftover { name: empty.text, file: empty.file }),
            Some(segment) => self.retire(segment),
            None => {}
        }
    }

    /// Closes the active segment for the last time, and tries once more to mend what is left to mend.
    pub(super) fn end(&mut self) {
        self.close();
        self.try_to_clear_leftovers();
        for _ in 0..self.orphans.len() {
            self.orphans_retry = None;
            self.mend();
        }
        self.orphans.iter().for_each(report_lost);
    }
}

fn report_lost<F: SegmentFile>(orphan: &Segment<F>) {
    match orphan.is_deleted() {
        Ok(false) => {}
        Ok(true) => {
            error!(segment = %orphan.text, lines = orphan.lines, "a deleted segment could not be copied back; its lines are lost");
        }
        Err(error) => {
            error!(segment = %orphan.text, lines = orphan.lines, %error, "it can't be told whether a segment was deleted");
        }
    }
}

/// Failed commits are reported once, then every 10 s with their number, and once when they are over.
#[derive(Default)]
struct Trouble {
    failed: u64,
    reported: Option<Duration>,
}

impl Trouble {
    fn report(&mut self, refusal: &Refusal, now: Duration) {
        self.failed += 1;
        if self.reported.is_none_or(|last| now.saturating_sub(last) >= Duration::from_secs(10)) {
            self.reported = Some(now);
            error!(cause = %refusal.cause, written = ?refusal.written, failed = self.failed, "commit failed");
        }
    }

    fn is_over(&mut self) {
        if self.failed > 0 {
            info!(failed = self.failed, "commits succeed again");
            *self = Self::default();
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}

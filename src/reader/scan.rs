//! One segment -> the records in it that are asked for.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::filter::{Filter, Place, Scope};
use super::lines::{Backwards, Block, Bounds, Buffer, Content, Forwards, Line, OpenSegment, Span, to_u64};
use super::listing::{Listing, Segment, Sources};
use super::look::{Likeness, Sight};
use super::marks::Marks;
use super::record::{Damage, Record};
use super::search::{After, Coverage, Found, Notice, Progress};
use crate::record::{Compression, Timestamp};

/// What is asked of every segment.
pub(super) struct Asked<'s> {
    pub(super) sources: &'s Sources,
    pub(super) listing: &'s Listing,
    pub(super) filter: &'s Filter,
    pub(super) notice: &'s (dyn Fn(Notice<'_>) + Sync),
    pub(super) is_stopped: &'s AtomicBool,
    pub(super) progress: Option<&'s Progress>,
    /// Nothing is read of a plain segment beyond its length when it was listed.
    pub(super) is_as_listed: bool,
    /// Nothing is read of some segments beyond so many bytes.
    pub(super) limits: Option<&'s HashMap<u32, u64>>,
    /// Records up to this one were seen before.
    pub(super) after: Option<&'s After>,
    /// Every line is read in full.
    pub(super) is_strict: bool,
}

/// How much is read of a line that may match and is like those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// All of it.
    Whole,
    /// No more than its members, and of `meta` what is asked for.
    Look,
}

/// Waits for what it takes to unpack a segment: some MiB, so that one thread of the process at a time does.
pub(super) fn unpacking(open: &OpenSegment) -> Option<MutexGuard<'static, ()>> {
    static UNPACKING: Mutex<()> = Mutex::new(());
    let is_large = open.compression() == Compression::Zstd;
    is_large.then(|| UNPACKING.lock().unwrap_or_else(PoisonError::into_inner))
}

impl<'s> Asked<'s> {
    /// All lines of a listing that match.
    pub(super) fn new(
        (sources, listing): (&'s Sources, &'s Listing),
        filter: &'s Filter,
        notice: &'s (dyn Fn(Notice<'_>) + Sync),
        is_stopped: &'s AtomicBool,
    ) -> Self {
        let (progress, limits, after, is_as_listed, is_strict) = (None, None, None, false, false);
        Self { sources, listing, filter, notice, is_stopped, progress, is_as_listed, limits, after, is_strict }
    }

    pub(super) fn segment(&self, number: u32) -> &'s Segment {
        &self.listing.segments[number as usize]
    }

    /// How much of a segment may be read at most.
    pub(super) fn limit(&self, number: u32) -> u64 {
        self.limits.and_then(|limits| limits.get(&number)).copied().unwrap_or(u64::MAX)
    }

    fn workspace(&self, segment: &Segment) -> Option<&'s str> {
        self.sources.as_slice()[segment.source].workspace.as_deref()
    }

    /// Whether a segment may hold a record that matches, by where it lies.
    pub(super) fn may_be_in(&self, segment: &Segment) -> bool {
        self.filter.may_be_in(segment.name.rank(), segment.job(), self.workspace(segment))
    }

    pub(super) fn progress(&self, count: impl Fn(&Progress) -> (&AtomicU64, u64)) {
        if let Some((counter, more)) = self.progress.map(count) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// A segment that is being searched.
pub(super) struct Scan<'s> {
    asked: &'s Asked<'s>,
    number: u32,
    segment: &'s Segment,
    path: String,
    open: OpenSegment,
    span: Span,
    depth: Depth,
    /// Bytes that were told as done, as they lie on disk.
    bytes_told: Cell<u64>,
}

/// The memory that one segment after the other is read with.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    buffer: Buffer,
    marks: Marks,
    /// Of a block's lines.
    may_match: Vec<bool>,
}

/// Takes what is found; it may end the scan.
pub(super) trait Take {
    /// Takes a record.
    fn record(&mut self, found: &Found<'_>) -> ControlFlow<()>;

    /// Takes a record of which no more was read than its time and its event; `None` if that is too little.
    fn glance(&mut self, _at: Timestamp, _event: &[u8]) -> Option<ControlFlow<()>> {
        None
    }
}

impl<T: FnMut(&Found<'_>) -> ControlFlow<()>> Take for T {
    fn record(&mut self, found: &Found<'_>) -> ControlFlow<()> {
        self(found)
    }
}

impl<'s> Scan<'s> {
    /// Opens a segment; `None` if it has vanished, or can't be opened, which is told.
    pub(super) fn open(asked: &'s Asked<'s>, number: u32, depth: Depth, coverage: &mut Coverage) -> Option<Self> {
        let segment = asked.segment(number);
        let path = segment.path(asked.sources);
        let open = match OpenSegment::open(segment, asked.sources) {
            Ok(open) => open?,
            Err(error) => {
                coverage.unreadable += 1;
                (asked.notice)(Notice::Unreadable { path: &path, error: &error });
                return None;
            }
        };
        // The length of a compressed file says nothing of its content.
        let is_cut = asked.is_as_listed && segment.compression() == Compression::Plain;
        let listed = if is_cut { segment.bytes } else { u64::MAX };
        let until = asked.limit(number).min(listed);
        let span = Span { until, ..Span::ALL };
        Some(Self { asked, number, segment, path, open, span, depth, bytes_told: Cell::new(0) })
    }

    /// What bounds the times of the segment, if anything does; one that can't be read will be told when it is scanned.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let ts = |line: &[u8]| Record::parse(line).ok().map(|record| record.ts);
        self.open.bounds(&self.segment.name, self.span, ts).ok().flatten()
    }

    /// Hands over what is found in the segment from its first line to the last. Nothing of it is read where it is bounded by other times
    /// than those that are asked for.
    pub(super) fn forwards(
        &self,
        coverage: &mut Coverage,
        scratch: &mut Scratch,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        let range = self.asked.filter.range();
        if *range.start() > Timestamp::from_millis(0) || *range.end() < Timestamp::MAX {
            let is_outside = |bounds: Bounds| bounds.first > *range.end() || bounds.last < *range.start();
            if self.bounds().is_some_and(is_outside) {
                coverage.searched += u64::from(*self.asked.filter.scope() == Scope::All);
                return ControlFlow::Continue(());
            }
        }
        self.search(coverage, scratch, |coverage, Scratch { buffer, marks, may_match }| {
            let mut lines = Direction::Forwards(self.open.forwards(self.span, buffer)?);
            self.read(&mut lines, &|nth| nth, (marks, may_match), coverage, take)
        })
    }

    /// As `forwards`, from the last line to the first, whatever the times.
    pub(super) fn backwards(
        &self,
        coverage: &mut Coverage,
        scratch: &mut Scratch,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        self.search(coverage, scratch, |coverage, Scratch { buffer, marks, may_match }| {
            let count = self.open.count_lines(self.span)?;
            match self.open.backwards(self.span, buffer) {
                Some(lines) => {
                    let index = |nth: u64| count.saturating_sub(nth + 1);
                    self.read(&mut Direction::Backwards(lines), &index, (marks, may_match), coverage, take)
                }
                None => Err(io::Error::other("it was compressed while it was read")),
            }
        })
    }

    /// Reads the segment if it holds a record of the scope; of one that does not, nobody in it is told anything. Tells what was read, and
    /// why there is no more if that could not be read.
    fn search(
        &self,
        total: &mut Coverage,
        scratch: &mut Scratch,
        read: impl FnOnce(&mut Coverage, &mut Scratch) -> io::Result<ControlFlow<()>>,
    ) -> ControlFlow<()> {
        let _unpacking = unpacking(&self.open);
        let mut coverage = Coverage { searched: 1, ..Coverage::default() };
        let read = match self.is_in_scope(&mut scratch.buffer) {
            Ok(false) => return ControlFlow::Continue(()),
            Ok(true) => {
                // All that there are have been counted where everything is in the scope.
                coverage.segments = u64::from(*self.asked.filter.scope() != Scope::All);
                read(&mut coverage, scratch)
            }
            Err(error) => {
                coverage.searched = 0;
                Err(error)
            }
        };
        let flow = read.unwrap_or_else(|error| {
            coverage.unreadable += 1;
            (self.asked.notice)(Notice::Unreadable { path: &self.path, error: &error });
            ControlFlow::Continue(())
        });
        total.add(&coverage);
        let Coverage { bytes, lines, damaged, foreign, .. } = coverage;
        if coverage.searched > 0 {
            (self.asked.notice)(Notice::Searched { segment: &self.path, bytes, lines, damaged, foreign });
        }
        flow
    }

    /// Whether the segment holds a record of the scope.
    fn is_in_scope(&self, buffer: &mut Buffer) -> io::Result<bool> {
        let scope = self.asked.filter.scope();
        if *scope == Scope::All {
            return Ok(true);
        }
        let is_seen = |record: &Record<'_>| {
            scope.holds(&record.workspace_id) && !self.segment.is_foreign(record, self.asked.sources)
        };
        let mut lines = self.open.forwards(self.span, buffer)?;
        while let Some(block) = lines.next_block()? {
            if block.lines().any(|line| Record::parse(line.bytes).is_ok_and(|record| is_seen(&record))) {
                return Ok(true);
            }
            if self.is_stopped() {
                break;
            }
        }
        Ok(false)
    }

    /// Whether there is more than is read: a line may end there that was being written when the segment was listed.
    fn is_cut(&self) -> bool {
        let end = if self.open.compression() == Compression::Plain { self.open.bytes() } else { u64::MAX };
        self.span.until < end
    }

    fn told(&self, bytes: u64) {
        // What a segment has grown by since it was listed is in nobody's total.
        let bytes = bytes.min(self.segment.bytes.saturating_sub(self.bytes_told.get()));
        self.bytes_told.set(self.bytes_told.get() + bytes);
        self.asked.progress(|progress| (&progress.bytes_done, bytes));
    }

    /// How many of its bytes on disk were told as done.
    pub(super) fn bytes_told(&self) -> u64 {
        self.bytes_told.get()
    }

    fn is_stopped(&self) -> bool {
        self.asked.is_stopped.load(Ordering::Relaxed)
    }

    /// Looks at all lines; `index` turns a line's number in the direction of reading into its index.
    fn read(
        &self,
        lines: &mut Direction<'_>,
        index: &dyn Fn(u64) -> u64,
        (marks, may_match): (&mut Marks, &mut Vec<bool>),
        coverage: &mut Coverage,
        take: &mut dyn Take,
    ) -> io::Result<ControlFlow<()>> {
        let is_plain = self.open.compression() == Compression::Plain;
        let filter = self.asked.filter;
        let is_forwards = matches!(lines, Direction::Forwards(_));
        let is_glance_enough = self.depth == Depth::Look && filter.is_by_event() && self.asked.after.is_none();
        // Whether records are asked for of the job and workspace of lines that pass the look.
        let (mut likeness, mut is_whose) = (Likeness::default(), false);
        while !self.is_stopped()
            && let Some(block) = lines.next_block()?
        {
            coverage.bytes += block.bytes;
            if is_plain {
                self.told(block.bytes);
            }
            let mut count = 0;
            let damage = match block.content {
                Content::Lines(bytes) => {
                    let Some(sight) = Sight::of(bytes, marks) else {
                        for line in block.lines() {
                            coverage.lines += 1;
                            if self.line(&line, index, (&mut likeness, &mut is_whose), coverage, take).is_break() {
                                return Ok(ControlFlow::Break(()));
                            }
                        }
                        continue;
                    };
                    filter.sift(bytes, sight.marks(), may_match);
                    count = sight.marks().count();
                    for nth in 0..count {
                        let number = if is_forwards { nth } else { count - nth - 1 };
                        let at = &sight.marks().line(number);
                        let line = Line {
                            nth: block.nth + to_u64(nth),
                            offset: block.offset + to_u64(at.start),
                            bytes: sight.bytes(at),
                        };
                        let may_match = may_match.get(number).is_none_or(|may_match| *may_match);
                        let look = (!self.asked.is_strict).then(|| likeness.look(&sight, at)).flatten();
                        coverage.lines += 1;
                        let flow = match look {
                            Some(look) if !may_match || !is_whose || !filter.may_match_at(look.ts, look.event()) => {
                                continue;
                            }
                            Some(look) if self.depth == Depth::Look => {
                                let event = look.event().filter(|_| is_glance_enough);
                                let taken = event.and_then(|event| take.glance(look.ts, event));
                                taken.unwrap_or_else(|| {
                                    self.record(&likeness.record(&sight, at, &look), &line, index, coverage, take)
                                })
                            }
                            _ => self.line(&line, index, (&mut likeness, &mut is_whose), coverage, take),
                        };
                        if flow.is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    None
                }
                Content::TooLong => Some(Damage::TooLong),
                Content::Torn if self.is_cut() => None,
                Content::Torn => Some(Damage::Torn),
            };
            if let Some(damage) = damage {
                coverage.lines += 1;
                self.damaged(index(block.nth), damage, coverage);
            }
            if let Direction::Forwards(lines) = lines {
                lines.counted(to_u64(count));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads a line in full.
    fn line(
        &self,
        line: &Line<'_>,
        index: &dyn Fn(u64) -> u64,
        (likeness, is_whose): (&mut Likeness, &mut bool),
        coverage: &mut Coverage,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        if line.bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        match Record::parse(line.bytes) {
            Ok(record) if self.segment.is_foreign(&record, self.asked.sources) => {
                coverage.foreign += 1;
                (self.asked.notice)(Notice::Foreign { segment: &self.path, index: index(line.nth) });
                ControlFlow::Continue(())
            }
            Ok(record) => {
                if likeness.learn(&record) {
                    *is_whose = self.asked.filter.holds_whose(&record);
                }
                self.record(&record, line, index, coverage, take)
            }
            Err(damage) => {
                self.damaged(index(line.nth), damage, coverage);
                ControlFlow::Continue(())
            }
        }
    }

    /// Hands over a record whose place this is, if it is asked for.
    fn record(
        &self,
        record: &Record<'_>,
        line: &Line<'_>,
        index: &dyn Fn(u64) -> u64,
        coverage: &mut Coverage,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        let filter = self.asked.filter;
        let index = index(line.nth);
        let place = Place { segment: &self.path, index, rank: self.segment.name.rank() };
        let is_seen = || self.asked.after.is_some_and(|after| !after.is_before(record.ts, self.segment, index));
        let Some(is_ambiguous) = filter.answer(record, &place).filter(|_| !is_seen()) else {
            return ControlFlow::Continue(());
        };
        coverage.ambiguous += u64::from(is_ambiguous);
        let is_compressed = self.open.compression() != Compression::Plain;
        if self.depth == Depth::Look
            && let Some(taken) = take.glance(record.ts, record.event.as_bytes())
        {
            return taken;
        }
        take.record(&Found { record, place, is_ambiguous, segment: self.number, offset: line.offset, is_compressed })
    }

    fn damaged(&self, index: u64, damage: Damage, coverage: &mut Coverage) {
        coverage.damaged += 1;
        (self.asked.notice)(Notice::Damaged { segment: &self.path, index, damage });
    }
}

/// The lines of a segment in either direction.
enum Direction<'a> {
    Forwards(Forwards<'a>),
    Backwards(Backwards<'a>),
}

impl Direction<'_> {
    fn next_block(&mut self) -> io::Result<Option<Block<'_>>> {
        match self {
            Self::Forwards(lines) => lines.next_block(),
            Self::Backwards(lines) => lines.next_block(),
        }
    }
}

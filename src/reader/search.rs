//! Searching: segments are scanned by several threads; records come as they are found, or in the order of time.
//!
//! What cannot match is not opened: names tell rank, folder and, ours, the time before which no line of theirs was written.
//! Where the first and last line of a segment of ours are intact and in order, they bound the rest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::filter::{Filter, Place};
use super::lines::{Block, Bounds, Buffer, Content, OpenSegment, Span};
use super::listing::{Listing, Segment, Sources};
use super::record::{Damage, Record};
use super::sorted::{Key, Order, Sorted, Sorter, Spool};
use crate::record::{Compression, DAY_MS, Opened, Timestamp};

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Segments that there are.
    pub segments: u64,
    /// Segments whose lines, as far as they may match, were read.
    pub searched: u64,
    /// Lines that were read, empty and damaged ones too.
    pub lines: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Lines that are no record.
    pub damaged: u64,
    /// Records in another job's folder, or in a directory that is another workspace's.
    pub foreign: u64,
    /// Records asked for whose answer hangs on a key of `meta` that is there more than once.
    pub ambiguous: u64,
    /// Segments and folders that could not be read, or not to their end.
    pub unreadable: u64,
}

impl Coverage {
    fn add(&mut self, other: &Self) {
        self.searched += other.searched;
        self.lines += other.lines;
        self.bytes += other.bytes;
        self.damaged += other.damaged;
        self.foreign += other.foreign;
        self.ambiguous += other.ambiguous;
        self.unreadable += other.unreadable;
    }
}

/// Something that a reader must be told.
#[derive(Debug)]
pub enum Notice<'n> {
    /// A line is no record.
    Damaged {
        /// Its segment.
        segment: &'n str,
        /// Its number, from 0.
        index: u64,
        /// Why.
        damage: Damage,
    },
    /// A record is not where its job's or workspace's are.
    Foreign {
        /// Its segment.
        segment: &'n str,
        /// Its number, from 0.
        index: u64,
    },
    /// A segment or folder can't be read, or not to its end.
    Unreadable {
        /// Which.
        path: &'n str,
        /// Why.
        error: &'n io::Error,
    },
}

/// A record that was asked for, and where it lies.
#[derive(Debug)]
pub struct Found<'f> {
    /// The record.
    pub record: &'f Record<'f>,
    /// Where it lies.
    pub place: Place<'f>,
    /// Whether the answer hangs on a key of `meta` that is there more than once: see [`Coverage::ambiguous`].
    pub is_ambiguous: bool,
    /// The segment's number in the listing.
    segment: u32,
    offset: u64,
    is_compressed: bool,
}

/// A search through a listing.
pub struct Search<'s> {
    sources: &'s Sources,
    listing: &'s Listing,
    filter: &'s Filter,
    threads: usize,
    notice: &'s (dyn Fn(Notice<'_>) + Sync),
    is_stopped: &'s AtomicBool,
    /// Of each segment, its place by directory and path.
    ordinals: Vec<u32>,
}

impl<'s> Search<'s> {
    /// Prepares a search. `notice` is told what the reader must be told, by several threads; once `is_stopped`, all of them end.
    pub fn new(
        (sources, listing): (&'s Sources, &'s Listing),
        filter: &'s Filter,
        notice: &'s (dyn Fn(Notice<'_>) + Sync),
        is_stopped: &'s AtomicBool,
    ) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut by_path: Vec<u32> =
            (0..u32::try_from(listing.segments.len()).expect("fewer than 2^32 segments")).collect();
        by_path.sort_unstable_by(|a, b| segment_at(listing, *a).by_path(segment_at(listing, *b)));
        let mut ordinals = vec![0; by_path.len()];
        for (ordinal, segment) in by_path.into_iter().enumerate() {
            ordinals[segment as usize] = u32::try_from(ordinal).expect("fewer than 2^32 segments");
        }
        Self { sources, listing, filter, threads, notice, is_stopped, ordinals }
    }

    /// So many threads search at once, at most.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Hands every record that matches to `found`, with the state of the thread that found it, in no order; returns the
    /// states. `found` may end the search.
    pub fn each<S: Send>(
        &self,
        new: impl Fn() -> S + Sync,
        found: impl Fn(&mut S, &Found<'_>) -> ControlFlow<()> + Sync,
    ) -> (Vec<S>, Coverage) {
        let candidates = self.candidates();
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut state, mut coverage, mut buffer) = (new(), Coverage::default(), Buffer::default());
            while let Some(segment) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
                let scanned = self.scan(*segment, &mut coverage, &mut buffer, &mut |hit| found(&mut state, hit));
                if scanned.is_break() {
                    self.is_stopped.store(true, Ordering::Relaxed);
                }
                if self.is_stopped.load(Ordering::Relaxed) {
                    break;
                }
            }
            (state, coverage)
        };
        let (states, coverages): (Vec<S>, Vec<Coverage>) = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.min(candidates.len()).max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("a scan does not panic")).unzip()
        });
        let mut coverage = self.coverage();
        for part in &coverages {
            coverage.add(part);
        }
        (states, coverage)
    }

    /// The records that match, in order, at most `limit` of them.
    ///
    /// # Errors
    /// Where they take more memory than is given to one search, they are sorted in a temporary file, which can fail.
    pub fn sorted(&self, order: Order, limit: Option<usize>) -> io::Result<(Sorted, Coverage)> {
        if let Some(limit) = limit.filter(|limit| *limit <= FEW_MAX) {
            return self.first(order, limit);
        }
        let spool = Spool::default();
        let new = || Ok(Sorter::new(order, limit));
        let (sorters, coverage) = self.each(new, |sorter: &mut io::Result<Sorter>, found| {
            let Ok(sorted) = sorter else { return ControlFlow::Break(()) };
            match self.key(found, &spool).and_then(|key| sorted.push(key)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    *sorter = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        let sorters = sorters.into_iter().collect::<io::Result<Vec<_>>>()?;
        Ok((Sorted::merge(order, limit, sorters, spool)?, coverage))
    }

    /// The first few records in order: segments are read from the end at which those are, the most promising first, until no other can
    /// hold an earlier one.
    fn first(&self, order: Order, limit: usize) -> io::Result<(Sorted, Coverage)> {
        let spool = Spool::default();
        let (mut sorter, mut coverage, mut buffer) =
            (Sorter::new(order, Some(limit)), self.coverage(), Buffer::default());
        // By how early the first record of a segment can be in the order: first by its name, then by its lines.
        let mut promising = BinaryHeap::new();
        for segment in self.candidates() {
            let named = times_by_name(self.segment(segment));
            promising.push(Reverse((order.rank(named.first, named.last), segment, false)));
        }
        while let Some(Reverse((promise, segment, is_looked_at))) = promising.pop() {
            sorter.settle();
            if limit == 0
                || sorter.worst().is_some_and(|worst| order.rank(worst, worst) < promise)
                || self.is_stopped.load(Ordering::Relaxed)
            {
                break;
            }
            if !is_looked_at {
                let bounds = self.open(segment, &mut coverage).and_then(|open| self.bounds(segment, &open));
                let promise = bounds.map_or(i64::MIN, |bounds| order.rank(bounds.first, bounds.last));
                promising.push(Reverse((promise, segment, true)));
                continue;
            }
            let is_bounded = promise > i64::MIN;
            let mut failed = None;
            let mut take = |found: &Found<'_>| {
                if is_bounded && sorter.worst().is_some_and(|worst| order.is_later(found.record.ts, worst)) {
                    return ControlFlow::Break(());
                }
                match self.key(found, &spool).and_then(|key| sorter.push(key)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            // To end early is no reason to end the search.
            let _ended = if is_bounded && order == Order::Descending {
                self.scan_backwards(segment, &mut coverage, &mut buffer, &mut take)
            } else {
                self.scan(segment, &mut coverage, &mut buffer, &mut take)
            };
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok((Sorted::merge(order, Some(limit), vec![sorter], spool)?, coverage))
    }

    fn coverage(&self) -> Coverage {
        for trouble in &self.listing.troubles {
            (self.notice)(Notice::Unreadable { path: &trouble.path.display().to_string(), error: &trouble.error });
        }
        let (segments, unreadable) = (self.listing.segments.len() as u64, self.listing.troubles.len() as u64);
        Coverage { segments, unreadable, ..Coverage::default() }
    }

    /// The segments that may hold a match, by what their names say.
    fn candidates(&self) -> Vec<u32> {
        let range = self.filter.range();
        let may_match = |segment: &Segment| {
            let times = times_by_name(segment);
            let in_time = times.first <= *range.end() && times.last >= *range.start();
            in_time && self.filter.may_be_in(segment.name.rank(), segment.job())
        };
        let numbered = (0..).zip(&self.listing.segments);
        numbered.filter(|(_, segment)| may_match(segment)).map(|(number, _)| number).collect()
    }

    fn segment(&self, number: u32) -> &'s Segment {
        segment_at(self.listing, number)
    }

    /// Opens a segment; `None` if it has vanished, or can't be opened, which is told.
    fn open(&self, number: u32, coverage: &mut Coverage) -> Option<OpenSegment> {
        let segment = self.segment(number);
        OpenSegment::open(segment, self.sources).unwrap_or_else(|error| {
            self.unreadable(segment, &error, coverage);
            None
        })
    }

    fn unreadable(&self, segment: &Segment, error: &io::Error, coverage: &mut Coverage) {
        coverage.unreadable += 1;
        (self.notice)(Notice::Unreadable { path: &segment.path(self.sources), error });
    }

    /// What bounds the times of a segment, if anything does; a segment that can't be read will be told when it is scanned.
    fn bounds(&self, number: u32, open: &OpenSegment) -> Option<Bounds> {
        let ts = |line: &[u8]| Record::parse(line).ok().map(|record| record.ts);
        open.bounds(&self.segment(number).name, ts).ok().flatten()
    }

    fn scan(
        &self,
        number: u32,
        coverage: &mut Coverage,
        buffer: &mut Buffer,
        found: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(open) = self.open(number, coverage) else { return ControlFlow::Continue(()) };
        coverage.searched += 1;
        let range = self.filter.range();
        if *range.start() > Timestamp::from_millis(0) || *range.end() < Timestamp::MAX {
            let bounds = self.bounds(number, &open);
            if bounds.is_some_and(|bounds| bounds.first > *range.end() || bounds.last < *range.start()) {
                return ControlFlow::Continue(());
            }
        }
        let segment = self.segment(number);
        let path = segment.path(self.sources);
        let mut lines = match open.forwards(Span::ALL, buffer) {
            Ok(lines) => lines,
            Err(error) => {
                self.unreadable(segment, &error, coverage);
                return ControlFlow::Continue(());
            }
        };
        loop {
            let block = match lines.next_block() {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => {
                    self.unreadable(segment, &error, coverage);
                    break;
                }
            };
            self.block((number, &path), &block, &|nth| nth, coverage, found)?;
            if self.is_stopped.load(Ordering::Relaxed) {
                break;
            }
        }
        ControlFlow::Continue(())
    }

    /// As `scan`, from the last line to the first: the segment is one that has bounds, so it is plain.
    fn scan_backwards(
        &self,
        number: u32,
        coverage: &mut Coverage,
        buffer: &mut Buffer,
        found: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(open) = self.open(number, coverage) else { return ControlFlow::Continue(()) };
        let segment = self.segment(number);
        let path = segment.path(self.sources);
        let counted = open.count_lines(Span::ALL);
        let Some(mut lines) = open.backwards(Span::ALL, buffer) else {
            return self.scan(number, coverage, buffer, found);
        };
        coverage.searched += 1;
        let count = match counted {
            Ok(count) => count,
            Err(error) => {
                self.unreadable(segment, &error, coverage);
                return ControlFlow::Continue(());
            }
        };
        let index = |nth: u64| count.saturating_sub(nth + 1);
        loop {
            let block = match lines.next_block() {
                Ok(Some(block)) => block,
                Ok(None) => return ControlFlow::Continue(()),
                Err(error) => {
                    self.unreadable(segment, &error, coverage);
                    return ControlFlow::Continue(());
                }
            };
            self.block((number, &path), &block, &index, coverage, found)?;
        }
    }

    /// Looks at what was read at once; `index` turns a line's number in the direction of reading into its index.
    fn block(
        &self,
        (number, path): (u32, &str),
        block: &Block<'_>,
        index: &dyn Fn(u64) -> u64,
        coverage: &mut Coverage,
        found: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let damage = match block.content {
            Content::Lines(bytes) => {
                coverage.bytes += bytes.len() as u64;
                for line in block.lines() {
                    self.line((number, path), index(line.nth), (line.offset, line.bytes), coverage, found)?;
                }
                return ControlFlow::Continue(());
            }
            Content::TooLong => Damage::TooLong,
            Content::Torn => Damage::Torn,
        };
        coverage.lines += 1;
        self.damaged(path, index(block.nth), damage, coverage);
        ControlFlow::Continue(())
    }

    fn line(
        &self,
        (number, path): (u32, &str),
        index: u64,
        (offset, bytes): (u64, &[u8]),
        coverage: &mut Coverage,
        found: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        coverage.lines += 1;
        if bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        let record = match Record::parse(bytes) {
            Ok(record) => record,
            Err(damage) => {
                self.damaged(path, index, damage, coverage);
                return ControlFlow::Continue(());
            }
        };
        let segment = self.segment(number);
        let workspace = self.sources.as_slice()[segment.source].workspace.as_deref();
        let is_foreign = segment.job().is_some_and(|job| job != record.job_id)
            || workspace.is_some_and(|workspace| workspace != record.workspace_id);
        if is_foreign {
            coverage.foreign += 1;
            (self.notice)(Notice::Foreign { segment: path, index });
            return ControlFlow::Continue(());
        }
        let place = Place { segment: path, index, rank: segment.name.rank() };
        if !self.filter.matches(&record, &place) {
            return ControlFlow::Continue(());
        }
        let is_ambiguous = self.filter.is_ambiguous(&record, &place);
        coverage.ambiguous += u64::from(is_ambiguous);
        let is_compressed = segment.compression() != Compression::Plain;
        found(&Found { record: &record, place, is_ambiguous, segment: number, offset, is_compressed })
    }

    fn damaged(&self, segment: &str, index: u64, damage: Damage, coverage: &mut Coverage) {
        coverage.damaged += 1;
        (self.notice)(Notice::Damaged { segment, index, damage });
    }

    /// Where a record can be had again. A compressed segment would have to be unpacked for each of its lines: those are kept.
    fn key(&self, found: &Found<'_>, spool: &Spool) -> io::Result<Key> {
        let spooled = if found.is_compressed { Some(spool.keep(found.record.line)?) } else { None };
        Ok(Key {
            ts: found.record.ts,
            ordinal: self.ordinals[found.segment as usize],
            index: found.place.index,
            segment: found.segment,
            is_spooled: spooled.is_some(),
            offset: spooled.unwrap_or(found.offset),
        })
    }
}

/// So many records are had by reading from the end at which they are.
const FEW_MAX: usize = 10_000;

fn segment_at(listing: &Listing, number: u32) -> &Segment {
    &listing.segments[number as usize]
}

/// Between which times a segment's lines lie, as far as its name tells: ours are named by a time before the first line, and
/// closed at the end of that UTC day.
fn times_by_name(segment: &Segment) -> Bounds {
    match segment.name.opened() {
        Opened::At(at) => Bounds { first: at, last: Timestamp::from_millis((at.day() + 1).saturating_mul(DAY_MS) - 1) },
        Opened::OnDay(_) => Bounds { first: Timestamp::from_millis(0), last: Timestamp::MAX },
    }
}

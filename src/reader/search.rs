//! Searching: segments are scanned by several threads; records come as they are found, or in the order of time.
//!
//! What cannot match is not opened: names tell rank, folder and, ours, the time before which no line of theirs was written.
//! Where the first and last line of a segment of ours are intact and in order, they bound the rest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use super::filter::{Filter, Place, Scope};
use super::lines::Bounds;
use super::listing::{Listing, Segment, Sources};
use super::record::{Damage, Record};
use super::scan::{Asked, Depth, Scan, Scratch, Take};
use super::sorted::{Key, Order, Sorted, Sorter, Spool};
use super::stream::{self, Stream};
use crate::record::{DAY_MS, Opened, Timestamp};

/// What was looked at.
///
/// Where not all workspaces are in the [`Scope`], segments without a record of the scope are in none of these counts, `segments` included;
/// `unreadable` alone is of all, as nobody knows what was in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Segments that there are; of a narrower scope, those that were searched.
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
    pub(super) fn add(&mut self, other: &Self) {
        self.segments += other.segments;
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
    /// A segment's lines were read: told once for each, behind whatever else is told of it.
    Searched {
        /// Its path.
        segment: &'n str,
        /// What was read of it, unpacked: all, unless the search ended before.
        bytes: u64,
        /// Lines in that.
        lines: u64,
        /// Those that are no record.
        damaged: u64,
        /// Those that are another's record.
        foreign: u64,
    },
    /// A segment that is followed is shorter than what was read of it.
    Cut {
        /// Which.
        segment: &'n str,
        /// What is left of what was read, in bytes.
        bytes: u64,
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
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) is_compressed: bool,
}

impl Found<'_> {
    /// Where a record can be had again. A compressed segment would have to be unpacked for each of its lines: those are kept.
    fn key(&self, spool: &Spool) -> io::Result<Key> {
        let spooled = if self.is_compressed { Some(spool.keep(self.record.line)?) } else { None };
        Ok(Key {
            ts: self.record.ts,
            index: self.place.index,
            segment: self.segment,
            is_spooled: spooled.is_some(),
            bytes: u32::try_from(self.record.line.len()).expect("a record is no longer than a line"),
            offset: spooled.unwrap_or(self.offset),
        })
    }
}

/// A record's place in an order: what comes behind it is still to be seen.
#[derive(Debug, Clone)]
pub struct After {
    /// The order.
    pub order: Order,
    /// Its time.
    pub ts: Timestamp,
    /// Its segment, which may no longer be there.
    pub segment: Segment,
    /// The number of its line.
    pub index: u64,
}

impl After {
    /// Whether a record comes behind it.
    pub(super) fn is_before(&self, ts: Timestamp, segment: &Segment, index: u64) -> bool {
        let by_place = || segment.by_path(&self.segment).then(index.cmp(&self.index));
        let ascending = ts.cmp(&self.ts).then_with(by_place);
        match self.order {
            Order::Ascending => ascending.is_gt(),
            Order::Descending => ascending.is_lt(),
        }
    }
}

/// How far a search has come: what a terminal may show meanwhile. What was read is counted as it lies on disk.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the segments that may hold a match.
    pub bytes_total: AtomicU64,
    /// Bytes of those that were read, or found not to be needed.
    pub bytes_done: AtomicU64,
    /// Segments that may hold a match.
    pub segments_total: AtomicU64,
    /// Those that are done with.
    pub segments_done: AtomicU64,
}

/// A search through a listing.
pub struct Search<'s> {
    asked: Asked<'s>,
    threads: usize,
    memory_bytes: usize,
}

impl<'s> Search<'s> {
    /// Prepares a search. `notice` is told what the reader must be told, by several threads; once `is_stopped`, all of them end.
    pub fn new(
        (sources, listing): (&'s Sources, &'s Listing),
        filter: &'s Filter,
        notice: &'s (dyn Fn(Notice<'_>) + Sync),
        is_stopped: &'s AtomicBool,
    ) -> Self {
        let asked = Asked::new((sources, listing), filter, notice, is_stopped);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { asked, threads, memory_bytes: MEMORY_BYTES }
    }

    /// At most so many threads search at once; without it, as many as the machine has cores.
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The search takes at most so much memory beside its answer, but [`MEMORY_BYTES_MIN`] in any case; without it, 23 MiB. Whatever searches
    /// a process runs, they take 9 MiB more where segments of Zstandard are unpacked, by one thread at a time.
    #[must_use]
    pub fn memory(self, bytes: usize) -> Self {
        Self { memory_bytes: bytes.max(MEMORY_BYTES_MIN), ..self }
    }

    /// Of plain segments nothing beyond their length in the listing is read.
    #[must_use]
    pub fn as_listed(self) -> Self {
        Self { asked: Asked { is_as_listed: true, ..self.asked }, ..self }
    }

    /// Of these plain segments, by their numbers in the listing, no more is read than so many bytes, even if they are packed meanwhile;
    /// those of 0 bytes are not there.
    #[must_use]
    pub fn limited(self, limits: &'s HashMap<u32, u64>) -> Self {
        Self { asked: Asked { limits: Some(limits), ..self.asked }, ..self }
    }

    /// Leaves out the records up to one that was seen before.
    #[must_use]
    pub fn after(self, after: &'s After) -> Self {
        Self { asked: Asked { after: Some(after), ..self.asked }, ..self }
    }

    /// Tells meanwhile how far it has come.
    #[must_use]
    pub fn watched(self, progress: &'s Progress) -> Self {
        Self { asked: Asked { progress: Some(progress), ..self.asked }, ..self }
    }

    /// Reads every line of the searched segments in full, so that no damage is left unseen. Without it, a line that can't match and is
    /// like those before it gets a look that sees all but faults in the JSON of its `meta`.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { asked: Asked { is_strict: true, ..self.asked }, ..self }
    }

    /// So many threads search at once.
    fn workers(&self) -> usize {
        let for_threads = self.memory_bytes - SHARED_BYTES_MIN;
        self.threads.min(for_threads / THREAD_BYTES).max(1)
    }

    /// What all threads may hold of what they have found, in bytes.
    fn found_bytes(&self) -> usize {
        self.memory_bytes - self.workers() * THREAD_BYTES
    }

    /// What each thread may.
    pub(super) fn share_bytes(&self) -> usize {
        self.found_bytes() / self.workers()
    }

    /// Hands every record that matches to `found`, with the state of the thread that found it, in no order; returns the
    /// states. `found` may end the search.
    pub fn each<S: Send>(
        &self,
        new: impl Fn() -> S + Sync,
        found: impl Fn(&mut S, &Found<'_>) -> ControlFlow<()> + Sync,
    ) -> (Vec<S>, Coverage) {
        self.each_at(Depth::Whole, new, |_, _, _| None, found)
    }

    /// As `each`; at [`Depth::Look`] the records' `meta` may hold what is no JSON, and `glance` is asked first whether a record's time and
    /// event are all that is needed of it.
    pub(super) fn each_at<S: Send>(
        &self,
        depth: Depth,
        new: impl Fn() -> S + Sync,
        glance: impl Fn(&mut S, Timestamp, &[u8]) -> Option<ControlFlow<()>> + Sync,
        found: impl Fn(&mut S, &Found<'_>) -> ControlFlow<()> + Sync,
    ) -> (Vec<S>, Coverage) {
        let candidates = self.candidates();
        let (next, is_ended) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut taker = Taker { state: new(), glance: &glance, found: &found, is_ended: &is_ended };
            let (mut coverage, mut scratch) = (Coverage::default(), Scratch::default());
            while let Some(number) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.scan((*number, depth, Reading::Forwards), &mut coverage, &mut scratch, &mut taker).is_break() {
                    is_ended.store(true, Ordering::Relaxed);
                }
                if is_ended.load(Ordering::Relaxed) || self.is_stopped() {
                    break;
                }
            }
            (taker.state, coverage)
        };
        let (states, coverages): (Vec<S>, Vec<Coverage>) = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.workers().min(candidates.len()).max(1)).map(|_| scope.spawn(work)).collect();
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
        let (spool, listing) = (Spool::default(), self.asked.listing);
        let new = || Ok(Sorter::new(order, limit, self.share_bytes()));
        let (sorters, coverage) = self.each(new, |sorter: &mut io::Result<Sorter>, found| {
            let Ok(sorted) = sorter else { return ControlFlow::Break(()) };
            match found.key(&spool).and_then(|key| sorted.push(key, listing)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    *sorter = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        let sorters = sorters.into_iter().collect::<io::Result<Vec<_>>>()?;
        Ok((Sorted::merge(order, (limit, self.found_bytes()), sorters, spool, listing)?, coverage))
    }

    /// Hands all records that match to `take`, in order, as what `encode` adds of each, which says whether the record is ambiguous; it is
    /// called by several threads with what `new` makes for each. Damaged lines are all seen, as with [`Search::strict`].
    ///
    /// `None`, and nothing is handed over: many records are left out by their lines, or the lines of a segment are packed, too long or not
    /// in order. [`Search::sorted`] has them then.
    pub fn streamed<E>(
        &self,
        order: Order,
        new: impl Fn() -> E + Sync,
        encode: impl stream::Encode<E>,
        take: stream::Take<'_>,
    ) -> Option<Coverage> {
        let Asked { filter, after, limits, .. } = &self.asked;
        if !filter.is_by_place() || *filter.scope() != Scope::All || after.is_some() || limits.is_some() {
            return None;
        }
        let candidates = self.matching();
        let (asked, threads, memory_bytes) = (&self.asked, self.workers(), self.memory_bytes);
        let stream = Stream { asked, order, candidates: &candidates, threads, memory_bytes };
        let coverage = || {
            self.announce(&candidates);
            self.coverage()
        };
        stream.run(coverage, new, encode, take)
    }

    /// The first few records in order: segments are read from the end at which those are, the most promising first, until no other can
    /// hold an earlier one.
    fn first(&self, order: Order, limit: usize) -> io::Result<(Sorted, Coverage)> {
        let (spool, listing) = (Spool::default(), self.asked.listing);
        let (mut sorter, mut coverage, mut scratch) =
            (Sorter::new(order, Some(limit), self.share_bytes()), self.coverage(), Scratch::default());
        // By how early the first record of a segment can be in the order: first by its name, then by its lines.
        let mut promising = BinaryHeap::new();
        for segment in self.candidates() {
            let named = times_by_name(self.asked.segment(segment));
            promising.push(Reverse((order.rank(named.first, named.last), segment, false)));
        }
        while let Some(Reverse((promise, segment, is_looked_at))) = promising.pop() {
            sorter.settle(listing);
            if limit == 0 || sorter.worst().is_some_and(|worst| order.rank(worst, worst) < promise) || self.is_stopped()
            {
                break;
            }
            if !is_looked_at {
                let bounds =
                    Scan::open(&self.asked, segment, Depth::Whole, &mut coverage).and_then(|scan| scan.bounds());
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
                match found.key(&spool).and_then(|key| sorter.push(key, listing)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            // To end early is no reason to end the search.
            let is_backwards = is_bounded && order == Order::Descending;
            let reading = if is_backwards { Reading::Backwards } else { Reading::Forwards };
            let _ended = self.scan((segment, Depth::Whole, reading), &mut coverage, &mut scratch, &mut take);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok((Sorted::merge(order, (Some(limit), self.found_bytes()), vec![sorter], spool, listing)?, coverage))
    }

    fn is_stopped(&self) -> bool {
        self.asked.is_stopped.load(Ordering::Relaxed)
    }

    /// Scans a segment in a direction, and counts it as done.
    fn scan(
        &self,
        (number, depth, reading): (u32, Depth, Reading),
        coverage: &mut Coverage,
        scratch: &mut Scratch,
        take: &mut dyn Take,
    ) -> ControlFlow<()> {
        let scanned = Scan::open(&self.asked, number, depth, coverage);
        let (flow, bytes) = scanned.map_or((ControlFlow::Continue(()), 0), |scan| {
            let flow = match reading {
                Reading::Forwards => scan.forwards(coverage, scratch, take),
                Reading::Backwards => scan.backwards(coverage, scratch, take),
            };
            (flow, scan.bytes_told())
        });
        let left = self.asked.segment(number).bytes.saturating_sub(bytes);
        self.asked.progress(|progress| (&progress.bytes_done, left));
        self.asked.progress(|progress| (&progress.segments_done, 1));
        flow
    }

    fn coverage(&self) -> Coverage {
        let Asked { sources, listing, notice, filter, .. } = &self.asked;
        let mut unreadable = 0;
        for trouble in &listing.troubles {
            // What lies in another workspace's own directory is nobody's in the scope.
            let workspace = sources.as_slice()[trouble.source].workspace.as_deref();
            if workspace.is_none_or(|workspace| filter.scope().holds(workspace)) {
                unreadable += 1;
                notice(Notice::Unreadable { path: &trouble.path.display().to_string(), error: &trouble.error });
            }
        }
        let is_everybodys = *filter.scope() == Scope::All;
        let absent = self.asked.limits.map_or(0, |limits| limits.values().filter(|bytes| **bytes == 0).count());
        let segments = if is_everybodys { (listing.segments.len() - absent) as u64 } else { 0 };
        Coverage { segments, unreadable, ..Coverage::default() }
    }

    /// The segments that may hold a match, by what their names say; they are about to be read.
    fn candidates(&self) -> Vec<u32> {
        let candidates = self.matching();
        self.announce(&candidates);
        candidates
    }

    fn announce(&self, candidates: &[u32]) {
        self.asked.progress(|progress| (&progress.segments_total, candidates.len() as u64));
        let bytes = || candidates.iter().map(|number| self.asked.segment(*number).bytes).sum();
        self.asked.progress(|progress| (&progress.bytes_total, bytes()));
    }

    fn matching(&self) -> Vec<u32> {
        let range = self.asked.filter.range();
        let may_match = |segment: &Segment| {
            let times = times_by_name(segment);
            let in_time = times.first <= *range.end() && times.last >= *range.start();
            in_time && self.asked.may_be_in(segment)
        };
        let numbered = (0..).zip(&self.asked.listing.segments);
        numbered
            .filter(|(number, segment)| may_match(segment) && self.asked.limit(*number) > 0)
            .map(|(number, _)| number)
            .collect()
    }
}

/// In which direction a segment is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Forwards,
    Backwards,
}

/// What a search takes, unless its caller gives it another share: with what it takes to unpack, 32 MiB.
const MEMORY_BYTES: usize = 23 << 20;
/// The least memory that a search can do with, its parts at their worst: one thread, and what is shared.
pub const MEMORY_BYTES_MIN: usize = THREAD_BYTES + SHARED_BYTES_MIN;
/// What a thread takes whose lines are as long as can be: a line and what is read at once, 2.25 MiB; what is written down of these, 0.9;
/// and a message of 2 MiB without its escapes.
const THREAD_BYTES: usize = 21 << 18;
/// What the threads hold of what they have found, at least.
const SHARED_BYTES_MIN: usize = 2 << 20;

/// So many records are had by reading from the end at which they are.
const FEW_MAX: usize = 10_000;

/// Between which times a segment's lines lie, as far as its name tells: ours are named by a time before the first line, and
/// closed at the end of that UTC day.
fn times_by_name(segment: &Segment) -> Bounds {
    match segment.name.opened() {
        Opened::At(at) => Bounds { first: at, last: Timestamp::from_millis((at.day() + 1).saturating_mul(DAY_MS) - 1) },
        Opened::OnDay(_) => Bounds { first: Timestamp::from_millis(0), last: Timestamp::MAX },
    }
}

/// What a thread does with what it finds.
struct Taker<'w, S, G, F> {
    state: S,
    glance: &'w G,
    found: &'w F,
    is_ended: &'w AtomicBool,
}

impl<S, G, F> Take for Taker<'_, S, G, F>
where
    G: Fn(&mut S, Timestamp, &[u8]) -> Option<ControlFlow<()>>,
    F: Fn(&mut S, &Found<'_>) -> ControlFlow<()>,
{
    fn record(&mut self, found: &Found<'_>) -> ControlFlow<()> {
        if self.is_ended.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        (self.found)(&mut self.state, found)
    }

    fn glance(&mut self, at: Timestamp, event: &[u8]) -> Option<ControlFlow<()>> {
        if self.is_ended.load(Ordering::Relaxed) {
            return Some(ControlFlow::Break(()));
        }
        (self.glance)(&mut self.state, at, event)
    }
}

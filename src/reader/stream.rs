//! All records in order, without a sort of them all: the segments are read side by side, a short time of each at once.
//!
//! A first pass sees that the lines of each segment are in order, as those of every writer are whose clock does not jump. Then batches are
//! made: of each segment the lines of the next so many milliseconds, as many as give a few MiB. One thread after the other reads a batch;
//! they sort, parse and encode theirs at the same time, and hand over what has become of it in turn. Each line is parsed once.
//!
//! Memory: a batch and what becomes of it take a sixth of a thread's share each, so that the rest is for a line as long as can be: it may
//! be the batch, is unescaped, and becomes a cell that is twice as long, 8 MiB in all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::filter::Place;
use super::lines::{Block, Buffer, Content, OpenSegment, Position, Span};
use super::listing::Segment;
use super::look::Hour;
use super::output::Drain;
use super::record::{Damage, Record, utf8};
use super::scan::Asked;
use super::search::{Coverage, Notice};
use super::sorted::Order;
use crate::record::{Compression, Timestamp};

/// Records that were encoded one behind the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// The time of the first.
    pub first: Option<Timestamp>,
    /// The time of the last.
    pub last: Option<Timestamp>,
}

impl Rows {
    /// Adds one behind the others.
    pub fn add(&mut self, ts: Timestamp) {
        self.count += 1;
        self.first.get_or_insert(ts);
        self.last = Some(ts);
    }

    /// Adds more behind these.
    pub fn append(&mut self, rows: Self) {
        self.count += rows.count;
        self.first = self.first.or(rows.first);
        self.last = rows.last.or(self.last);
    }
}

/// Adds what a record becomes, long rows in pieces; tells whether the record is ambiguous.
pub trait Encode<E>: Fn(&mut E, &Record<'_>, &Place<'_>, &mut Vec<u8>, &mut Drain<'_>) -> bool + Sync {}

impl<E, F: Fn(&mut E, &Record<'_>, &Place<'_>, &mut Vec<u8>, &mut Drain<'_>) -> bool + Sync> Encode<E> for F {}

/// Is given what records have become, one part after the other, and which records end in it; tells whether it wants more.
pub type Take<'t> = &'t mut (dyn FnMut(&[u8], Rows) -> bool + Send);

/// What is read of a segment at once.
const CHUNK_BYTES: usize = 32 << 10;
/// What a line of a batch takes beside its bytes: its entry, twice while it is sorted.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>();
/// Segments that are open at once: fewer than a process may have by default.
const OPEN_MAX: usize = 400;
/// For how long the first batch is.
const FIRST_STEP_MS: i64 = 60_000;

/// What is left to be read of a segment.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// Its number in the listing.
    segment: u32,
    /// Where its lines begin and end.
    from: u64,
    until: u64,
    /// The index of the first line in it, or in the reverse order the one behind the last.
    index: u64,
    /// How early the next record can be in the order.
    rank: i64,
}

/// A segment whose lines are in order.
#[derive(Debug, Clone, Copy)]
struct Surveyed {
    rest: Rest,
    /// Bytes behind the last newline.
    torn: u64,
    /// Its lines lie at other times than those that are asked for: it is not read.
    is_outside: bool,
}

/// How early a time is in an order: the smaller, the earlier.
fn rank(order: Order, ts: Timestamp) -> i64 {
    order.rank(ts, ts)
}

/// The time of a line, if it is a record's.
fn ts_of(line: &[u8], hour: &mut Hour) -> Option<Timestamp> {
    hour.start(line).map_or_else(|| Record::parse(line).ok().map(|record| record.ts), |start| Some(start.at))
}

/// Passes over the segments that may hold a match. `None` if one of them can't be read so: it is compressed, not in order, holds a line
/// that is too long, or can't be read at all.
fn survey(asked: &Asked<'_>, order: Order, candidates: &[u32], threads: usize) -> Option<Vec<Surveyed>> {
    let (next, is_refused) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let (mut surveyed, mut buffer) = (Vec::new(), Buffer::default());
        while let Some(number) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            if is_refused.load(Ordering::Relaxed) || asked.is_stopped.load(Ordering::Relaxed) {
                break;
            }
            match survey_one(asked, order, *number, &mut buffer) {
                Ok(one) => surveyed.extend(one),
                Err(Refused) => is_refused.store(true, Ordering::Relaxed),
            }
        }
        surveyed
    };
    let surveyed = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(candidates.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a survey does not panic")).collect()
    });
    (!is_refused.into_inner()).then_some(surveyed)
}

/// A segment is not to be read side by side with others.
struct Refused;

impl From<io::Error> for Refused {
    /// It will be told when the segment is read in another way.
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Passes over a segment; nothing if it has vanished.
fn survey_one(asked: &Asked<'_>, order: Order, number: u32, buffer: &mut Buffer) -> Result<Option<Surveyed>, Refused> {
    let segment = asked.segment(number);
    let Some(open) = OpenSegment::open(segment, asked.sources)? else { return Ok(None) };
    if open.compression() != Compression::Plain || open.id() != segment.id {
        return Err(Refused);
    }
    let until = if asked.is_as_listed { segment.bytes } else { open.bytes() };
    let span = Span { until, ..Span::ALL };
    let rest = |from, until, index, rank| Rest { segment: number, from, until, index, rank };
    let range = asked.filter.range();
    if *range.start() > Timestamp::from_millis(0) || *range.end() < Timestamp::MAX {
        let bounds = open.bounds(&segment.name, span, |line| Record::parse(line).ok().map(|record| record.ts))?;
        if bounds.is_some_and(|bounds| bounds.first > *range.end() || bounds.last < *range.start()) {
            return Ok(Some(Surveyed { rest: rest(0, 0, 0, 0), torn: 0, is_outside: true }));
        }
    }
    let (mut first, mut last, mut torn, mut hour) = (None, Timestamp::from_millis(0), 0, Hour::default());
    let mut lines = open.forwards(span, buffer)?;
    while let Some(block) = lines.next_block()? {
        match block.content {
            Content::Lines(_) => {}
            Content::TooLong => return Err(Refused),
            Content::Torn => torn = block.bytes,
        }
        for ts in block.lines().filter(|line| !line.bytes.is_empty()).filter_map(|line| ts_of(line.bytes, &mut hour)) {
            if ts < last {
                return Err(Refused);
            }
            first.get_or_insert(ts);
            last = ts;
        }
        if asked.is_stopped.load(Ordering::Relaxed) {
            break;
        }
    }
    let end = lines.position();
    let (index, next) = match order {
        Order::Ascending => (0, first.unwrap_or(last)),
        Order::Descending => (end.index, last),
    };
    Ok(Some(Surveyed { rest: rest(0, end.offset, index, rank(order, next)), torn, is_outside: false }))
}

/// A line of a batch.
#[derive(Debug, Clone, Copy)]
struct Entry {
    rank: i64,
    index: u64,
    start: usize,
    bytes: u32,
    /// Its segment's number in the listing.
    segment: u32,
}

/// Lines of all segments for some time.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// In the order of segments, and of each in the order of reading.
    lines: Vec<Entry>,
}

impl Batch {
    fn size(&self) -> usize {
        self.bytes.len() + self.lines.len() * ENTRY_BYTES
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    fn line(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..][..entry.bytes as usize]
    }
}

/// What was read of a segment.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    bytes: u64,
    lines: u64,
    damaged: u64,
    foreign: u64,
    is_begun: bool,
}

/// Makes batches.
struct Batches<'s> {
    asked: &'s Asked<'s>,
    order: Order,
    /// In the order of the segments' paths.
    rests: Vec<Rest>,
    /// Those that are not at their end, by how early their next record can be.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    step_ms: i64,
    size_max: usize,
    open: HashMap<u32, OpenSegment>,
    buffer: Buffer,
    hour: Hour,
    read: HashMap<u32, Read>,
    /// Segments that were not what they had been, or could not be read.
    lost: BTreeMap<u32, io::Error>,
    made: u64,
}

/// How the lines of a segment that are early enough were added.
enum Added {
    /// All of them; what is left, if anything is.
    All(Option<Rest>),
    /// The batch is full; what is left.
    Full(Rest),
}

impl Batches<'_> {
    /// Makes the next batch, and gives it a number; nothing is left where it is `None`.
    fn next(&mut self, batch: &mut Batch) -> Option<u64> {
        while let Some(Reverse((earliest, _))) = self.next.peek().copied() {
            if self.asked.is_stopped.load(Ordering::Relaxed) {
                return None;
            }
            let end = earliest.saturating_add(self.step_ms);
            let mut early = Vec::new();
            while let Some(Reverse((rank, at))) = self.next.peek().copied().filter(|Reverse((rank, _))| *rank < end) {
                self.next.pop();
                early.push((at, rank));
            }
            early.sort_unstable();
            if self.fill(batch, (earliest, end), &early) {
                self.made += 1;
                return Some(self.made - 1);
            }
        }
        None
    }

    /// Fills a batch with the lines before `end`; tells whether it could.
    fn fill(&mut self, batch: &mut Batch, times: (i64, i64), early: &[(usize, i64)]) -> bool {
        batch.clear();
        // Of one millisecond, segments follow one another: a batch may end anywhere.
        let may_end_early = self.step_ms == 1;
        let mut after = Vec::with_capacity(early.len());
        let mut is_full = false;
        for (at, _) in early {
            let rest = self.rests[*at];
            after.push(if is_full {
                Some(rest)
            } else {
                match self.add(batch, rest, times) {
                    Ok(Added::All(left)) => left,
                    Ok(Added::Full(left)) => {
                        is_full = true;
                        Some(left)
                    }
                    Err(error) => {
                        self.lost.entry(rest.segment).or_insert(error);
                        None
                    }
                }
            });
            if is_full && !may_end_early {
                self.step_ms = (self.step_ms / 4).max(1);
                self.next.extend(early.iter().map(|(at, rank)| Reverse((*rank, *at))));
                return false;
            }
        }
        for ((at, _), left) in early.iter().zip(after) {
            self.settle(*at, left);
        }
        if batch.size() < self.size_max / 2 {
            self.step_ms = self.step_ms.saturating_mul(if batch.size() < self.size_max / 8 { 4 } else { 2 });
        }
        true
    }

    /// Counts what was read of a segment, and remembers what is left.
    fn settle(&mut self, at: usize, left: Option<Rest>) {
        let before = self.rests[at];
        let (bytes, lines) = match left {
            Some(left) => (before.until - before.from - (left.until - left.from), before.index.abs_diff(left.index)),
            None => (0, 0),
        };
        let read = self.read.entry(before.segment).or_default();
        read.bytes += bytes;
        read.lines += lines;
        self.asked.progress(|progress| (&progress.bytes_done, bytes));
        if let Some(left) = left.filter(|left| left.from < left.until) {
            self.rests[at] = left;
            self.next.push(Reverse((left.rank, at)));
        } else {
            self.open.remove(&before.segment);
            self.asked.progress(|progress| (&progress.segments_done, 1));
        }
    }

    /// Adds the lines of a segment that are before the end of the times.
    fn add(&mut self, batch: &mut Batch, mut rest: Rest, (earliest, end): (i64, i64)) -> io::Result<Added> {
        let segment = self.asked.segment(rest.segment);
        if !self.open.contains_key(&rest.segment) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let Some(open) = OpenSegment::open(segment, self.asked.sources)? else { return Ok(Added::All(None)) };
            if open.id() != segment.id || open.compression() != Compression::Plain {
                return Err(changed());
            }
            self.open.insert(rest.segment, open);
        }
        let open = &self.open[&rest.segment];
        self.read.entry(rest.segment).or_default().is_begun = true;
        let is_ascending = self.order == Order::Ascending;
        let span = Span { from: Position { offset: rest.from, index: 0 }, until: rest.until };
        let (size_max, order, hour) = (self.size_max, self.order, &mut self.hour);
        let mut add = |block: &Block<'_>| -> io::Result<Option<Added>> {
            if !matches!(block.content, Content::Lines(_)) {
                return Err(changed());
            }
            for line in block.lines() {
                let length = line.bytes.len();
                let line_rank = if length == 0 { None } else { ts_of(line.bytes, hour).map(|ts| rank(order, ts)) };
                if let Some(line_rank) = line_rank {
                    // Before what was handed over, it would be out of order.
                    if line_rank < earliest {
                        return Err(changed());
                    }
                    rest.rank = line_rank;
                    if line_rank >= end {
                        return Ok(Some(Added::All(Some(rest))));
                    }
                }
                if length > 0 && !batch.lines.is_empty() && batch.size() + length + ENTRY_BYTES > size_max {
                    return Ok(Some(Added::Full(rest)));
                }
                let index = if is_ascending { rest.index } else { rest.index - 1 };
                if length > 0 {
                    let (start, bytes) = (batch.bytes.len(), u32::try_from(length).expect("no longer than a line"));
                    batch.bytes.extend_from_slice(line.bytes);
                    let rank = line_rank.unwrap_or(earliest);
                    batch.lines.push(Entry { rank, index, start, bytes, segment: rest.segment });
                }
                if is_ascending {
                    rest.from += length as u64 + 1;
                    rest.index += 1;
                } else {
                    rest.until -= length as u64 + 1;
                    rest.index -= 1;
                }
            }
            Ok(None)
        };
        let found = if is_ascending {
            let mut lines = open.forwards(span, &mut self.buffer)?;
            loop {
                let Some(block) = lines.next_block()? else { break None };
                if let Some(added) = add(&block)? {
                    break Some(added);
                }
            }
        } else {
            let mut lines = open.backwards(span, &mut self.buffer).ok_or_else(changed)?;
            loop {
                let Some(block) = lines.next_block()? else { break None };
                if let Some(added) = add(&block)? {
                    break Some(added);
                }
            }
        };
        match found {
            Some(added) => Ok(added),
            None if rest.from == rest.until => Ok(Added::All(Some(rest))),
            None => Err(changed()),
        }
    }
}

fn changed() -> io::Error {
    io::Error::other("changed while it was read")
}

/// Whose turn it is to hand over, and to whom.
struct Turn<'t> {
    next: u64,
    take: Take<'t>,
    is_wanted: bool,
}

/// A search of all records, in order.
pub(super) struct Stream<'s> {
    pub(super) asked: &'s Asked<'s>,
    pub(super) order: Order,
    pub(super) candidates: &'s [u32],
    pub(super) threads: usize,
    /// What it may take.
    pub(super) memory_bytes: usize,
}

impl Stream<'_> {
    /// Hands over what `encode` makes of the records, and adds to what was looked at; nothing of both where the segments can't be read side
    /// by side.
    pub(super) fn run<E>(
        &self,
        coverage: impl FnOnce() -> Coverage,
        new: impl Fn() -> E + Sync,
        encode: impl Encode<E>,
        take: Take<'_>,
    ) -> Option<Coverage> {
        let (asked, order) = (self.asked, self.order);
        let mut surveyed = survey(asked, order, self.candidates, self.threads)?;
        surveyed.sort_unstable_by(|a, b| {
            let by_path = asked.segment(a.rest.segment).by_path(asked.segment(b.rest.segment));
            if order == Order::Ascending { by_path } else { by_path.reverse() }
        });
        let mut coverage = coverage();
        let rests: Vec<_> = surveyed.iter().filter(|one| !one.is_outside).map(|one| one.rest).collect();
        let is_left = |(_, rest): &(usize, &Rest)| rest.from < rest.until;
        let next = rests.iter().enumerate().filter(is_left).map(|(at, rest)| Reverse((rest.rank, at))).collect();
        let size_max = self.memory_bytes / (6 * self.threads);
        let batches = Mutex::new(Batches {
            asked,
            order,
            rests,
            next,
            step_ms: FIRST_STEP_MS,
            size_max,
            open: HashMap::new(),
            buffer: Buffer::new(CHUNK_BYTES),
            hour: Hour::default(),
            read: HashMap::new(),
            lost: BTreeMap::new(),
            made: 0,
        });
        let (turn, has_changed) = (Mutex::new(Turn { next: 0, take, is_wanted: true }), Condvar::new());
        let work = || {
            let worker =
                Worker { asked, batches: &batches, turn: &turn, has_changed: &has_changed, part_bytes_max: size_max };
            worker.run(new(), &encode)
        };
        let ambiguous: u64 = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("encoding does not panic")).sum()
        });
        coverage.ambiguous += ambiguous;
        let Batches { read, lost, .. } = batches.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (number, error) in &lost {
            coverage.unreadable += 1;
            let path = asked.segment(*number).path(asked.sources);
            (asked.notice)(Notice::Unreadable { path: &path, error });
        }
        let is_whole = turn.into_inner().unwrap_or_else(PoisonError::into_inner).is_wanted;
        for one in &surveyed {
            self.tell(one, read.get(&one.rest.segment).copied().unwrap_or_default(), is_whole, &mut coverage);
        }
        Some(coverage)
    }

    /// Tells what was read of a segment.
    fn tell(&self, one: &Surveyed, mut read: Read, is_whole: bool, coverage: &mut Coverage) {
        let is_empty = one.rest.from == one.rest.until;
        if one.is_outside {
            coverage.searched += 1;
            return;
        }
        if !(read.is_begun || is_empty && is_whole) {
            return;
        }
        let path = self.asked.segment(one.rest.segment).path(self.asked.sources);
        if one.torn > 0 && is_whole {
            let index = if self.order == Order::Ascending { read.lines } else { one.rest.index };
            (self.asked.notice)(Notice::Damaged { segment: &path, index, damage: Damage::Torn });
            read.lines += 1;
            read.damaged += 1;
            read.bytes += one.torn;
        }
        let Read { bytes, lines, damaged, foreign, .. } = read;
        coverage.searched += 1;
        coverage.lines += lines;
        coverage.bytes += bytes;
        coverage.damaged += damaged;
        coverage.foreign += foreign;
        (self.asked.notice)(Notice::Searched { segment: &path, bytes, lines, damaged, foreign });
    }
}

/// A thread that takes a batch after the other.
struct Worker<'w, 's, 't> {
    asked: &'w Asked<'s>,
    batches: &'w Mutex<Batches<'s>>,
    turn: &'w Mutex<Turn<'t>>,
    has_changed: &'w Condvar,
    part_bytes_max: usize,
}

impl<'w, 't> Worker<'w, '_, 't> {
    /// Does its part; returns how many records are ambiguous.
    fn run<E>(&self, mut encoder: E, encode: &impl Encode<E>) -> u64 {
        let (mut batch, mut bytes, mut rows, mut ambiguous) = (Batch::default(), Vec::new(), Rows::default(), 0);
        let mut paths = HashMap::new();
        loop {
            let nth = self.batches.lock().expect("whoever held it did not panic").next(&mut batch);
            let Some(nth) = nth else { return ambiguous };
            // Those of one time are in order already.
            batch.lines.sort_by_key(|entry| entry.rank);
            let mut is_wanted = true;
            let text = utf8(&batch.bytes);
            for entry in &batch.lines {
                let segment = self.asked.segment(entry.segment);
                if paths.len() >= OPEN_MAX && !paths.contains_key(&entry.segment) {
                    paths.clear();
                }
                let path = paths.entry(entry.segment).or_insert_with(|| segment.path(self.asked.sources));
                let place = Place { segment: path, index: entry.index, rank: segment.name.rank() };
                let line = text.and_then(|text| text.get(entry.start..entry.start + entry.bytes as usize));
                let parsed = line.map_or_else(|| Record::parse(batch.line(entry)), Record::parse_text);
                let Some(record) = self.record(parsed, segment, (entry.segment, &place)) else { continue };
                let Some(is_ambiguous) = self.asked.filter.answer(&record, &place) else { continue };
                let mut drain = |bytes: &mut Vec<u8>| is_wanted = self.hand_over(nth, bytes, &mut rows).is_wanted;
                let mut drain = Drain::new(self.part_bytes_max, &mut drain);
                let is_shown_ambiguous = encode(&mut encoder, &record, &place, &mut bytes, &mut drain);
                ambiguous += u64::from(is_shown_ambiguous || is_ambiguous);
                rows.add(record.ts);
                if is_wanted && bytes.len() >= self.part_bytes_max {
                    is_wanted = self.hand_over(nth, &mut bytes, &mut rows).is_wanted;
                }
                if !is_wanted {
                    break;
                }
            }
            let mut turn = self.hand_over(nth, &mut bytes, &mut rows);
            turn.next += 1;
            is_wanted &= turn.is_wanted;
            drop(turn);
            self.has_changed.notify_all();
            if !is_wanted {
                return ambiguous;
            }
        }
    }

    /// The record of a line that was read; tells of one that is nobody's.
    fn record<'l>(
        &self,
        parsed: Result<Record<'l>, Damage>,
        segment: &Segment,
        (number, place): (u32, &Place<'_>),
    ) -> Option<Record<'l>> {
        let (segment_path, index) = (place.segment, place.index);
        let count = |count: &dyn Fn(&mut Read)| {
            let mut batches = self.batches.lock().expect("whoever held it did not panic");
            count(batches.read.entry(number).or_default());
        };
        match parsed {
            Ok(record) if segment.is_foreign(&record, self.asked.sources) => {
                count(&|read| read.foreign += 1);
                (self.asked.notice)(Notice::Foreign { segment: segment_path, index });
                None
            }
            Ok(record) => Some(record),
            Err(damage) => {
                count(&|read| read.damaged += 1);
                (self.asked.notice)(Notice::Damaged { segment: segment_path, index, damage });
                None
            }
        }
    }

    /// Waits for the turn, and hands over what there is.
    fn hand_over(&self, nth: u64, bytes: &mut Vec<u8>, rows: &mut Rows) -> MutexGuard<'w, Turn<'t>> {
        let turn = self.turn.lock().expect("whoever held it did not panic");
        let mut turn = self.has_changed.wait_while(turn, |turn| turn.next != nth).expect("nor did whoever changed it");
        if turn.is_wanted && (rows.count > 0 || !bytes.is_empty()) {
            turn.is_wanted = (turn.take)(bytes, *rows);
        }
        bytes.clear();
        *rows = Rows::default();
        turn
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::filter::{Criteria, Filter};
    use super::super::listing::{Listing, Source, Sources};
    use super::*;

    fn line(ts: i64, workspace: &str, message: &str) -> String {
        let ts = Timestamp::from_millis(ts);
        format!(
            r#"{{"ts":"{ts}","jobId":"j","workspaceId":"{workspace}","event":"E","message":"{message}","meta":null}}"#
        )
    }

    /// How segments are streamed.
    #[derive(Clone, Copy)]
    struct How<'h> {
        order: Order,
        threads: usize,
        memory_bytes: usize,
        /// What stands behind each segment's last newline.
        torn: &'h str,
        /// Is asked behind each part whether more is wanted, and may do something to the directory or stop the search.
        is_wanted: &'h (dyn Fn(&Path, &AtomicBool) -> bool + Sync),
    }

    const ALL: How<'_> =
        How { order: Order::Ascending, threads: 1, memory_bytes: 1 << 20, torn: "", is_wanted: &|_, _| true };

    /// What is streamed of segments, by rank, how many parts it came in, and what is told; nothing where it is refused.
    #[derive(Debug)]
    struct Streamed {
        found: Vec<String>,
        parts: usize,
        coverage: Coverage,
        notices: Vec<String>,
    }

    fn streamed(segments: &[Vec<String>], how: How<'_>) -> Option<Streamed> {
        let temp = tempfile::tempdir().unwrap();
        for (rank, lines) in segments.iter().enumerate() {
            let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            fs::write(temp.path().join(format!("audit-{rank}_19700101T000000.000Z.jsonl")), text + how.torn).unwrap();
        }
        let source = Source { name: None, path: temp.path().to_owned(), workspace: Some("w".to_owned()) };
        let sources = Sources::new(vec![source]).unwrap();
        let (listing, filter) = (Listing::new(&sources), Filter::new(Criteria::default()));
        let (is_stopped, notices) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let notice = |notice: Notice<'_>| notices.lock().unwrap().push(format!("{notice:?}"));
        let asked = Asked::new((&sources, &listing), &filter, &notice, &is_stopped);
        let candidates: Vec<u32> = (0..).take(segments.len()).collect();
        let How { order, threads, memory_bytes, .. } = how;
        let stream = Stream { asked: &asked, order, candidates: &candidates, threads, memory_bytes };
        let (mut out, mut rows, mut parts) = (Vec::new(), Rows::default(), 0);
        let encode = |(): &mut (), record: &Record<'_>, place: &Place<'_>, out: &mut Vec<u8>, _: &mut Drain<'_>| {
            // Threads overtake one another.
            for _ in 0..record.ts.millis() % 3 * 20 {
                thread::yield_now();
            }
            let found = format!("{} {} {} {}\n", record.ts.millis(), place.rank, place.index, record.message().len());
            out.extend_from_slice(found.as_bytes());
            false
        };
        let coverage = stream.run(Coverage::default, || (), encode, &mut |bytes, more| {
            out.extend_from_slice(bytes);
            rows.append(more);
            parts += 1;
            (how.is_wanted)(temp.path(), &is_stopped)
        })?;
        let found: Vec<_> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(rows.count, found.len() as u64);
        Some(Streamed { found, parts, coverage, notices: notices.into_inner().unwrap() })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn records_come_in_order_however_small_the_batches(
            mut times in prop::collection::vec(prop::collection::vec((0..200_000_i64, 0..80_usize), 0..60), 1..5),
            times_max in prop::sample::select(vec![1, 9, 60, 200_000_i64]),
            is_torn: bool, is_ascending: bool, threads in 1..4_usize, memory_bytes in 2_000..120_000_usize,
        ) {
            let order = if is_ascending { Order::Ascending } else { Order::Descending };
            let (mut expected, mut segments, mut damaged, mut foreign) = (Vec::new(), Vec::new(), 0, 0);
            for (rank, times) in times.iter_mut().enumerate() {
                for (ts, _) in times.iter_mut() {
                    *ts %= times_max;
                }
                times.sort_unstable();
                let mut lines = Vec::new();
                for (ts, length) in times {
                    match *length % 8 {
                        0 => lines.push(String::new()),
                        1 => {
                            damaged += 1;
                            lines.push("damaged".to_owned());
                        }
                        2 => {
                            foreign += 1;
                            lines.push(line(*ts, "another", ""));
                        }
                        _ => {
                            expected.push((*ts, rank, lines.len(), *length));
                            lines.push(line(*ts, "w", &"x".repeat(*length)));
                        }
                    }
                }
                segments.push(lines);
            }
            expected.sort_unstable();
            if !is_ascending {
                expected.reverse();
            }
            let expected: Vec<_> =
                expected.iter().map(|(ts, rank, index, length)| format!("{ts} {rank} {index} {length}")).collect();
            let torn = if is_torn { "{\"ts\":" } else { "" };
            let told = streamed(&segments, How { order, threads, memory_bytes, torn, ..ALL }).unwrap();
            prop_assert_eq!(told.found, expected);
            let torn = if is_torn { segments.len() as u64 } else { 0 };
            let lines = segments.iter().map(Vec::len).sum::<usize>() as u64 + torn;
            let Coverage { lines: lines_read, damaged: damaged_read, foreign: foreign_read, .. } = told.coverage;
            prop_assert_eq!((lines_read, damaged_read, foreign_read), (lines, damaged + torn, foreign));
            prop_assert_eq!(told.coverage.searched, segments.len() as u64);
            let count = |name: &str| told.notices.iter().filter(|notice| notice.starts_with(name)).count() as u64;
            prop_assert_eq!([count("Damaged"), count("Foreign")], [damaged + torn, foreign]);
            prop_assert_eq!(count("Searched"), segments.len() as u64);
        }
    }

    /// Some segments of a line a second, in batches of a few.
    fn seconds() -> (Vec<Vec<String>>, How<'static>) {
        let lines = (0..300).map(|second| line(second * 1000, "w", "")).collect();
        (vec![lines; 3], How { threads: 3, memory_bytes: 100_000, torn: "torn", ..ALL })
    }

    /// What was handed over is the beginning of the answer, and nothing is told of what was not looked at.
    #[test]
    fn a_stream_ends_where_no_more_is_wanted_or_it_is_stopped() {
        let (segments, how) = seconds();
        let all = streamed(&segments, how).unwrap();
        assert!(all.found.len() == 900 && all.parts > 9, "{} parts", all.parts);
        let unwanted = streamed(&segments, How { is_wanted: &|_, _| false, ..how }).unwrap();
        assert_eq!(unwanted.parts, 1);
        let stop = |_: &Path, is_stopped: &AtomicBool| {
            is_stopped.store(true, Ordering::Relaxed);
            true
        };
        let stopped = streamed(&segments, How { is_wanted: &stop, ..how }).unwrap();
        // Each thread may have had a batch.
        assert!(stopped.parts <= 2 * how.threads, "{} parts", stopped.parts);
        for told in [unwanted, stopped] {
            assert!(!told.found.is_empty() && all.found.starts_with(&told.found));
            assert!(told.coverage.lines * 2 < all.coverage.lines);
        }
    }

    #[test]
    fn a_segment_that_is_cut_while_it_is_streamed_is_told() {
        let (segments, how) = seconds();
        for order in [Order::Ascending, Order::Descending] {
            let cut = |dir: &Path, _: &AtomicBool| {
                let path = dir.join("audit-1_19700101T000000.000Z.jsonl");
                fs::File::options().write(true).open(path).unwrap().set_len(9).unwrap();
                true
            };
            let told = streamed(&segments, How { order, is_wanted: &cut, ..how }).unwrap();
            assert_eq!(told.coverage.unreadable, 1, "{:?}", told.notices);
            assert!(told.notices.iter().any(|notice| notice.contains("Unreadable") && notice.contains("audit-1_")));
            let of = |rank: &str| told.found.iter().filter(|found| found.split(' ').nth(1) == Some(rank)).count();
            assert!(of("0") == 300 && of("1") < 300 && of("2") == 300);
        }
    }

    #[test]
    fn lines_out_of_order_are_left_to_a_sort() {
        let segments = [vec![line(2, "w", ""), line(1, "w", "")], vec![line(1, "w", "")]];
        assert!(streamed(&segments, ALL).is_none());
    }
}

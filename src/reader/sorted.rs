//! Records in order: their keys are sorted, in memory as far as they fit, and the lines are read again where they lie.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::lines::OpenSegment;
use super::listing::{Listing, Sources};
use crate::record::Timestamp;

/// Keys that one sorter holds in memory: 10 MiB.
const KEYS_MAX: usize = (10 << 20) / size_of::<Key>();
/// Segments that are open at once while lines are read again.
const OPEN_MAX: usize = 64;

/// The order of records by (`ts`, directory, segment, index), or its exact reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Ascending,
    /// The newest first.
    Descending,
}

impl Order {
    /// How early something can be in the order that begins and ends at these times: the smaller, the earlier.
    pub(super) fn rank(self, first: Timestamp, last: Timestamp) -> i64 {
        match self {
            Self::Ascending => first.millis(),
            Self::Descending => -last.millis(),
        }
    }

    /// Whether a time comes after another.
    pub(super) fn is_later(self, time: Timestamp, than: Timestamp) -> bool {
        match self {
            Self::Ascending => time > than,
            Self::Descending => time < than,
        }
    }

    fn compare(self, a: &Key, b: &Key) -> Ordering {
        let key = |key: &Key| (key.ts, key.ordinal, key.index);
        match self {
            Self::Ascending => key(a).cmp(&key(b)),
            Self::Descending => key(b).cmp(&key(a)),
        }
    }
}

/// What a record is sorted by, and where its line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ts: Timestamp,
    /// Its segment's place by directory and path.
    pub(super) ordinal: u32,
    pub(super) index: u64,
    /// Its segment's number in the listing.
    pub(super) segment: u32,
    /// The line is kept in the spool.
    pub(super) is_spooled: bool,
    /// Where the line begins, in the segment or in the spool.
    pub(super) offset: u64,
}

impl Key {
    const BYTES: usize = 33;

    fn write(self, out: &mut Vec<u8>) {
        out.extend(self.ts.millis().to_le_bytes());
        out.extend(self.ordinal.to_le_bytes());
        out.extend(self.index.to_le_bytes());
        out.extend(self.segment.to_le_bytes());
        out.push(u8::from(self.is_spooled));
        out.extend(self.offset.to_le_bytes());
    }

    fn read(bytes: &[u8; Self::BYTES]) -> Self {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self {
            ts: Timestamp::from_millis(long(0).cast_signed()),
            ordinal: short(8),
            index: long(12),
            segment: short(20),
            is_spooled: bytes[24] == 1,
            offset: long(25),
        }
    }
}

/// Lines that are kept because they can't be had again: a temporary file without a name.
#[derive(Debug, Default)]
pub(super) struct Spool(Mutex<Option<(File, u64)>>);

impl Spool {
    /// Keeps a line, and tells where.
    pub(super) fn keep(&self, line: &[u8]) -> io::Result<u64> {
        let mut spool = self.0.lock().expect("whoever held it did not panic");
        let (file, end) = match &mut *spool {
            Some(spool) => spool,
            empty => empty.insert((temporary_file()?, 0)),
        };
        let at = *end;
        file.write_all(line)?;
        file.write_all(b"\n")?;
        *end += line.len() as u64 + 1;
        Ok(at)
    }
}

/// Sorts the keys that one thread finds.
#[derive(Debug)]
pub(super) struct Sorter {
    order: Order,
    limit: Option<usize>,
    /// Keys that are held in memory.
    keys_max: usize,
    keys: Vec<Key>,
    worst: Option<Timestamp>,
    /// Sorted runs of keys that did not fit.
    runs: Vec<File>,
}

impl Sorter {
    pub(super) fn new(order: Order, limit: Option<usize>) -> Self {
        Self { order, limit, keys_max: KEYS_MAX, keys: Vec::new(), worst: None, runs: Vec::new() }
    }

    pub(super) fn push(&mut self, key: Key) -> io::Result<()> {
        self.keys.push(key);
        // Sorted once twice as many have come as are wanted, a key costs little more than its comparison.
        let kept = self.limit.filter(|limit| *limit <= self.keys_max / 2);
        if let Some(limit) = kept {
            if self.keys.len() >= (limit * 2).max(1) {
                self.settle();
            }
        } else if self.keys.len() >= self.keys_max {
            self.sort();
            let mut bytes = Vec::with_capacity(self.keys.len() * Key::BYTES);
            self.keys.drain(..).for_each(|key| key.write(&mut bytes));
            let mut run = temporary_file()?;
            run.write_all(&bytes)?;
            self.runs.push(run);
        }
        Ok(())
    }

    /// The time of the last of those that are wanted, as far as it is known: no record that comes later is among them.
    pub(super) fn worst(&self) -> Option<Timestamp> {
        self.worst
    }

    /// Lets go of what is not among those that are wanted.
    pub(super) fn settle(&mut self) {
        if let Some(limit) =
            self.limit.filter(|limit| self.keys.len() > *limit || self.keys.len() == *limit && self.worst.is_none())
        {
            self.sort();
            self.keys.truncate(limit);
            self.worst = self.keys.last().map(|key| key.ts);
        }
    }

    fn sort(&mut self) {
        let order = self.order;
        self.keys.sort_unstable_by(|a, b| order.compare(a, b));
    }
}

/// Records in order.
pub struct Sorted {
    order: Order,
    left: usize,
    runs: Vec<Run>,
    /// The next of each run, the first in the order on top.
    next: BinaryHeap<Next>,
    spool: Spool,
    open: BTreeMap<u32, OpenSegment>,
}

/// Where a record lies, and its line.
#[derive(Debug)]
pub struct SortedLine {
    /// The segment's number in the listing.
    pub segment: usize,
    /// The line's number in it.
    pub index: u64,
    /// Its bytes, without the newline.
    pub line: Vec<u8>,
}

struct Run(Box<dyn Iterator<Item = io::Result<Key>> + Send>);

struct Next {
    key: Key,
    run: usize,
    order: Order,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(&other.key, &self.key)
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

impl Sorted {
    pub(super) fn merge(order: Order, limit: Option<usize>, sorters: Vec<Sorter>, spool: Spool) -> io::Result<Self> {
        let mut runs = Vec::new();
        for mut sorter in sorters {
            sorter.sort();
            runs.push(Run(Box::new(sorter.keys.into_iter().map(Ok))));
            for mut file in sorter.runs {
                io::Seek::rewind(&mut file)?;
                runs.push(Run(Box::new(keys_of(BufReader::new(file)))));
            }
        }
        let left = limit.unwrap_or(usize::MAX);
        let mut sorted = Self { order, left, runs, next: BinaryHeap::new(), spool, open: BTreeMap::new() };
        for run in 0..sorted.runs.len() {
            sorted.advance(run)?;
        }
        Ok(sorted)
    }

    /// The next record's key.
    fn next_key(&mut self) -> io::Result<Option<Key>> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(Next { key, run, .. }) = self.next.pop() else { return Ok(None) };
        self.advance(run)?;
        self.left -= 1;
        Ok(Some(key))
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(key) = self.runs[run].0.next().transpose()? {
            self.next.push(Next { key, run, order: self.order });
        }
        Ok(())
    }

    /// The next record's line. One that was swept away since it was found is left out.
    ///
    /// # Errors
    /// Those of reading a segment or a temporary file.
    pub fn next_line(&mut self, listing: &Listing, sources: &Sources) -> io::Result<Option<SortedLine>> {
        while let Some(key) = self.next_key()? {
            if let Some(line) = self.read(&key, listing, sources)? {
                return Ok(Some(SortedLine { segment: key.segment as usize, index: key.index, line }));
            }
        }
        Ok(None)
    }

    fn read(&mut self, key: &Key, listing: &Listing, sources: &Sources) -> io::Result<Option<Vec<u8>>> {
        if key.is_spooled {
            let spool = self.spool.0.get_mut().expect("whoever held it did not panic");
            let Some((file, end)) = spool else { return Ok(None) };
            return line_at(file, key.offset, *end);
        }
        if !self.open.contains_key(&key.segment) {
            if self.open.len() >= OPEN_MAX {
                self.open.pop_first();
            }
            let segment = &listing.segments[key.segment as usize];
            let Some(open) = OpenSegment::open(segment, sources)? else { return Ok(None) };
            self.open.insert(key.segment, open);
        }
        let Some(open) = self.open.get(&key.segment) else { return Ok(None) };
        line_at(open.file(), key.offset, open.bytes())
    }
}

/// The keys of a run.
fn keys_of(mut run: BufReader<File>) -> impl Iterator<Item = io::Result<Key>> {
    std::iter::from_fn(move || {
        let mut bytes = [0; Key::BYTES];
        match run.read_exact(&mut bytes) {
            Ok(()) => Some(Ok(Key::read(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
        }
    })
}

/// The line that begins at an offset; nothing if the file ends before it does.
fn line_at(file: &File, offset: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let at = offset + line.len() as u64;
        let size = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
        let read = file.read_at(&mut chunk[..size], at)?;
        if read == 0 {
            return Ok(None);
        }
        if let Some(newline) = memchr::memchr(b'\n', &chunk[..read]) {
            line.extend_from_slice(&chunk[..newline]);
            return Ok(Some(line));
        }
        line.extend_from_slice(&chunk[..read]);
    }
}

fn temporary_file() -> io::Result<File> {
    tempfile::tempfile()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        (0..20_i64, 0..3_u32, 0..1_000_u64, any::<bool>(), any::<u64>()).prop_map(
            |(ts, ordinal, index, is_spooled, offset)| Key {
                ts: Timestamp::from_millis(ts),
                ordinal,
                index,
                segment: 7 - ordinal,
                is_spooled,
                offset,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_come_in_order_however_few_fit_in_memory(
            threads in prop::collection::vec(prop::collection::vec(key(), 0..60), 1..4),
            limit in prop::option::of(0..80_usize),
            keys_max in 1..40_usize,
            is_ascending in any::<bool>(),
        ) {
            let order = if is_ascending { Order::Ascending } else { Order::Descending };
            let mut all: Vec<_> = threads.concat();
            all.sort_by_key(|key| (key.ts, key.ordinal, key.index));
            if !is_ascending {
                all.reverse();
            }
            all.truncate(limit.unwrap_or(usize::MAX));
            let mut sorters = Vec::new();
            for keys in threads {
                let mut sorter = Sorter { keys_max, ..Sorter::new(order, limit) };
                for key in keys {
                    sorter.push(key).unwrap();
                    prop_assert!(sorter.keys.len() <= keys_max);
                }
                sorters.push(sorter);
            }
            let mut sorted = Sorted::merge(order, limit, sorters, Spool::default()).unwrap();
            let found: Vec<_> = std::iter::from_fn(|| sorted.next_key().unwrap()).collect();
            let place = |key: &Key| (key.ts, key.ordinal, key.index);
            prop_assert_eq!(found.iter().map(place).collect::<Vec<_>>(), all.iter().map(place).collect::<Vec<_>>());
        }

        #[test]
        fn a_key_is_what_was_written(key in key()) {
            let mut bytes = Vec::new();
            key.write(&mut bytes);
            prop_assert_eq!(Key::read(bytes.as_slice().try_into().unwrap()), key);
        }
    }

    #[test]
    fn lines_that_were_kept_are_had_again() {
        let spool = Spool::default();
        let long = "x".repeat(10_000);
        let at: Vec<_> = ["a", "", &long].iter().map(|line| spool.keep(line.as_bytes()).unwrap()).collect();
        let (file, end) = spool.0.into_inner().unwrap().unwrap();
        for (at, line) in at.iter().zip(["a", "", &long]) {
            assert_eq!(line_at(&file, *at, end).unwrap().unwrap(), line.as_bytes());
        }
        assert_eq!(line_at(&file, end, end).unwrap(), None);
    }
}

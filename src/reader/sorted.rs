//! Records in order: their keys are sorted, in memory as far as they fit, and the lines are read again where they lie.
//!
//! Memory: keys take what the search gives them; what does not fit is merged from temporary files, 32 at once by 8 KiB of each. Once all is
//! found and the threads are gone, half as much is for what is read ahead of the segments, but no more than 8 MiB. A line is held once.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use tempfile::SpooledTempFile;

use super::lines::OpenSegment;
use super::listing::{Listing, Segment, Sources};
use super::record::Record;
use super::runs::Runs;
use crate::record::Timestamp;

/// Segments that are open at once while lines are read again.
const OPEN_MAX: usize = 64;
/// What is read ahead of each at most: 8 MiB in all.
const WINDOW_BYTES_MAX: usize = 128 << 10;
/// What is read first: of many segments one line is wanted.
const FIRST_BYTES: usize = 4 << 10;

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

    fn compare(self, a: &Key, b: &Key, listing: &Listing) -> Ordering {
        let (a, b) = if self == Self::Ascending { (a, b) } else { (b, a) };
        // Few have one time and lie in different segments: paths are compared for those alone.
        let by_path = || {
            if a.segment == b.segment { Ordering::Equal } else { segment(listing, a).by_path(segment(listing, b)) }
        };
        a.ts.cmp(&b.ts).then_with(by_path).then_with(|| a.index.cmp(&b.index))
    }
}

/// What a record is sorted by, and where its line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ts: Timestamp,
    pub(super) index: u64,
    /// Its segment's number in the listing.
    pub(super) segment: u32,
    /// How long the line is.
    pub(super) bytes: u32,
    /// The line is kept in the spool.
    pub(super) is_spooled: bool,
    /// Where the line begins, in the segment or in the spool.
    pub(super) offset: u64,
}

impl Key {
    const BYTES: usize = 33;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.ts.millis().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.segment.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[24] = u8::from(self.is_spooled);
        bytes[25..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self {
            ts: Timestamp::from_millis(long(0).cast_signed()),
            index: long(8),
            segment: short(16),
            bytes: short(20),
            is_spooled: bytes[24] == 1,
            offset: long(25),
        }
    }
}

fn segment<'l>(listing: &'l Listing, key: &Key) -> &'l Segment {
    &listing.segments[key.segment as usize]
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
    /// Those that did not fit.
    runs: Runs,
}

/// Runs of keys that are merged at once.
const RUNS_MAX: usize = 32;

impl Sorter {
    /// `bytes` of keys are held in memory.
    pub(super) fn new(order: Order, limit: Option<usize>, bytes: usize) -> Self {
        let keys_max = bytes / size_of::<Key>();
        Self { order, limit, keys_max, keys: Vec::new(), worst: None, runs: Runs::new(RUNS_MAX) }
    }

    pub(super) fn push(&mut self, key: Key, listing: &Listing) -> io::Result<()> {
        self.keys.push(key);
        // Sorted once twice as many have come as are wanted, a key costs little more than its comparison.
        let kept = self.limit.filter(|limit| *limit <= self.keys_max / 2);
        if let Some(limit) = kept {
            if self.keys.len() >= (limit * 2).max(1) {
                self.settle(listing);
            }
        } else if self.keys.len() >= self.keys_max {
            self.sort(listing);
            let run = write_run(self.keys.drain(..).map(Ok))?;
            self.runs.push(run, |files| merge_files(self.order, files, listing))?;
        }
        Ok(())
    }

    /// The time of the last of those that are wanted, as far as it is known: no record that comes later is among them.
    pub(super) fn worst(&self) -> Option<Timestamp> {
        self.worst
    }

    /// Lets go of what is not among those that are wanted.
    pub(super) fn settle(&mut self, listing: &Listing) {
        if let Some(limit) =
            self.limit.filter(|limit| self.keys.len() > *limit || self.keys.len() == *limit && self.worst.is_none())
        {
            self.sort(listing);
            self.keys.truncate(limit);
            self.worst = self.keys.last().map(|key| key.ts);
        }
    }

    fn sort(&mut self, listing: &Listing) {
        let order = self.order;
        self.keys.sort_unstable_by(|a, b| order.compare(a, b, listing));
    }
}

/// Records in order.
pub struct Sorted {
    order: Order,
    left: usize,
    keys: Merge,
    spool: Spool,
    /// What is read ahead of a segment.
    window_bytes: usize,
    open: BTreeMap<u32, Reopened>,
    /// Lines read so far: which segment was read last.
    reads: u64,
    /// The lines that were kept.
    kept: Window,
    lost: BTreeMap<u32, io::Error>,
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

type Run = Box<dyn Iterator<Item = io::Result<Key>> + Send>;

/// The keys of several runs, in order.
struct Merge {
    order: Order,
    runs: Vec<Run>,
    /// The next key of each run and the run's number, the last in the order first. Runs are few.
    next: Vec<(Key, usize)>,
}

impl Merge {
    fn new(order: Order, runs: Vec<Run>, listing: &Listing) -> io::Result<Self> {
        let mut merge = Self { order, runs, next: Vec::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run, listing)?;
        }
        Ok(merge)
    }

    fn next_key(&mut self, listing: &Listing) -> io::Result<Option<Key>> {
        let Some((key, run)) = self.next.pop() else { return Ok(None) };
        self.advance(run, listing)?;
        Ok(Some(key))
    }

    fn advance(&mut self, run: usize, listing: &Listing) -> io::Result<()> {
        if let Some(key) = self.runs[run].next().transpose()? {
            let order = self.order;
            let at = self.next.partition_point(|(other, _)| order.compare(other, &key, listing).is_gt());
            self.next.insert(at, (key, run));
        }
        Ok(())
    }
}

fn merge_files(order: Order, files: Vec<File>, listing: &Listing) -> io::Result<File> {
    let mut merge = Merge::new(order, files.into_iter().map(read_run).collect::<io::Result<_>>()?, listing)?;
    write_run(std::iter::from_fn(|| merge.next_key(listing).transpose()))
}

fn write_run(mut keys: impl Iterator<Item = io::Result<Key>>) -> io::Result<File> {
    let mut run = BufWriter::new(temporary_file()?);
    keys.try_for_each(|key| run.write_all(&key?.to_bytes()))?;
    run.into_inner().map_err(io::IntoInnerError::into_error)
}

fn read_run(mut file: File) -> io::Result<Run> {
    file.rewind()?;
    Ok(Box::new(keys_of(BufReader::new(file))))
}

impl Sorted {
    /// Half of `bytes`, which keys may take, is for what is read ahead.
    pub(super) fn merge(
        order: Order,
        (limit, bytes): (Option<usize>, usize),
        sorters: Vec<Sorter>,
        spool: Spool,
        listing: &Listing,
    ) -> io::Result<Self> {
        let (mut runs, mut written) = (Vec::<Run>::new(), Runs::new(RUNS_MAX));
        for mut sorter in sorters {
            sorter.sort(listing);
            runs.push(Box::new(sorter.keys.into_iter().map(Ok)));
            written.append(sorter.runs);
        }
        for file in written.into_files(|files| merge_files(order, files, listing))? {
            runs.push(read_run(file)?);
        }
        Ok(Self {
            order,
            left: limit.unwrap_or(usize::MAX),
            keys: Merge::new(order, runs, listing)?,
            spool,
            window_bytes: (bytes / 2 / OPEN_MAX).clamp(FIRST_BYTES, WINDOW_BYTES_MAX),
            open: BTreeMap::new(),
            lost: BTreeMap::new(),
            reads: 0,
            kept: Window::default(),
        })
    }

    /// The same records in the reverse order. Where their keys are many, they lie in a temporary file.
    ///
    /// # Errors
    /// Those of a temporary file.
    pub fn reversed(mut self, listing: &Listing) -> io::Result<Self> {
        let (mut keys, mut count) = (BufWriter::new(SpooledTempFile::new(SPOOL_BYTES_MAX)), 0);
        while let Some(key) = self.next_key(listing)? {
            keys.write_all(&key.to_bytes())?;
            count += 1;
        }
        let order = match self.order {
            Order::Ascending => Order::Descending,
            Order::Descending => Order::Ascending,
        };
        let keys = keys.into_inner().map_err(io::IntoInnerError::into_error)?;
        let keys = Merge::new(order, vec![Box::new(keys_from_the_end(keys, count))], listing)?;
        Ok(Self { order, left: usize::MAX, keys, ..self })
    }

    /// The next record's key.
    fn next_key(&mut self, listing: &Listing) -> io::Result<Option<Key>> {
        if self.left == 0 {
            return Ok(None);
        }
        let key = self.keys.next_key(listing)?;
        self.left -= usize::from(key.is_some());
        Ok(key)
    }

    /// The next record's line. One that was swept away since it was found is left out; so is one that can't be read again,
    /// or is no longer what was found, and [`Sorted::lost`] tells of it.
    ///
    /// # Errors
    /// Those of reading a temporary file.
    pub fn next_line(&mut self, listing: &Listing, sources: &Sources) -> io::Result<Option<SortedLine>> {
        while let Some(key) = self.next_key(listing)? {
            match self.read(&key, listing, sources)? {
                Reread::Line(line) => {
                    return Ok(Some(SortedLine { segment: key.segment as usize, index: key.index, line }));
                }
                Reread::Swept => {}
                Reread::Lost(error) => {
                    self.lost.entry(key.segment).or_insert(error);
                }
            }
        }
        Ok(None)
    }

    /// How long the line of the next record is, as it was found.
    #[must_use]
    pub fn next_bytes(&self) -> Option<usize> {
        let (key, _) = self.keys.next.last().filter(|_| self.left > 0)?;
        Some(key.bytes as usize)
    }

    /// Whether as many records as were asked for have been found and taken, those that were left out since included: there may be
    /// more behind them.
    #[must_use]
    pub fn has_reached_limit(&self) -> bool {
        self.left == 0
    }

    /// The numbers of the segments of which records were left out so far that had been found in them, and why: they were cut,
    /// rewritten, compressed or replaced since. The answer is not complete.
    pub fn lost(&self) -> impl Iterator<Item = (usize, &io::Error)> {
        self.lost.iter().map(|(segment, error)| (*segment as usize, error))
    }

    fn read(&mut self, key: &Key, listing: &Listing, sources: &Sources) -> io::Result<Reread> {
        let changed = || Reread::Lost(io::Error::other("changed while it was read"));
        if key.is_spooled {
            let spool = self.spool.0.get_mut().expect("whoever held it did not panic");
            let Some((file, _)) = spool else { return Ok(changed()) };
            // What one thread has kept lies there in its order, more or less.
            let line = self.kept.line(file, key, (Order::Ascending, self.window_bytes))?;
            return Ok(line.map_or_else(changed, Reread::Line));
        }
        let segment = segment(listing, key);
        self.reads += 1;
        if !self.open.contains_key(&key.segment) {
            let mut window = Window::default();
            if self.open.len() >= OPEN_MAX {
                let oldest = self.open.iter().min_by_key(|(_, reopened)| reopened.read).map(|(number, _)| *number);
                if let Some(oldest) = oldest.and_then(|number| self.open.remove(&number)) {
                    window.bytes = oldest.window.bytes;
                    window.bytes.clear();
                }
            }
            match OpenSegment::open(segment, sources) {
                Ok(Some(open)) => drop(self.open.insert(key.segment, Reopened { segment: open, window, read: 0 })),
                Ok(None) => return Ok(Reread::Swept),
                Err(error) => return Ok(Reread::Lost(error)),
            }
        }
        let Some(reopened) = self.open.get_mut(&key.segment).filter(|open| open.segment.id() == segment.id) else {
            return Ok(changed());
        };
        reopened.read = self.reads;
        let is_same = |line: &Vec<u8>| Record::parse(line).is_ok_and(|record| record.ts == key.ts);
        Ok(match reopened.window.line(reopened.segment.file(), key, (self.order, self.window_bytes)) {
            Ok(line) => line.filter(is_same).map_or_else(changed, Reread::Line),
            Err(error) => Reread::Lost(error),
        })
    }
}

/// What has become of a line since it was found.
enum Reread {
    Line(Vec<u8>),
    Swept,
    Lost(io::Error),
}

/// A segment whose lines are read again.
struct Reopened {
    segment: OpenSegment,
    window: Window,
    /// When it was read last.
    read: u64,
}

/// A part of a file that was read at once: lines are asked for one after another, forwards or backwards.
#[derive(Debug, Default)]
struct Window {
    offset: u64,
    bytes: Vec<u8>,
    /// What was read last time, at most: more is read each time.
    size: usize,
}

impl Window {
    /// The line that lies here, without its newline; nothing if it is no longer there. So many bytes are read ahead at most: a line that
    /// is longer is read alone.
    fn line(&mut self, file: &File, key: &Key, (order, bytes_max): (Order, usize)) -> io::Result<Option<Vec<u8>>> {
        // With its newline: a file that was cut and has grown again holds other lines.
        let length = key.bytes as usize + 1;
        let whole = |mut line: Vec<u8>| (line.len() == length && line.pop() == Some(b'\n')).then_some(line);
        if length > bytes_max {
            let mut line = vec![0; length];
            let read = read_at(file, &mut line, key.offset)?;
            line.truncate(read);
            return Ok(whole(line));
        }
        let within = |window: &Self| usize::try_from(key.offset.checked_sub(window.offset)?).ok();
        let is_in = |at: &usize| self.bytes.len() >= at + length;
        let at = if let Some(at) = within(self).filter(is_in) {
            at
        } else {
            self.size = (self.size * 4).clamp(FIRST_BYTES, bytes_max);
            let size = self.size.max(length);
            let before = if order == Order::Ascending { 0 } else { (size - length) as u64 };
            self.offset = key.offset.saturating_sub(before);
            // No more than that: it is counted on.
            self.bytes.reserve_exact(size.saturating_sub(self.bytes.len()));
            self.bytes.resize(size, 0);
            let read = read_at(file, &mut self.bytes, self.offset)?;
            self.bytes.truncate(read);
            within(self).expect("the window begins before the line")
        };
        Ok(self.bytes.get(at..at + length).and_then(|line| whole(line.to_vec())))
    }
}

/// Reads as much as there is.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(some) => read += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The keys of a run.
fn keys_of(mut run: BufReader<File>) -> impl Iterator<Item = io::Result<Key>> {
    std::iter::from_fn(move || {
        let mut bytes = [0; Key::BYTES];
        match run.read_exact(&mut bytes) {
            Ok(()) => Some(Ok(Key::from_bytes(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(Err(error)),
        }
    })
}

/// The keys of a run of so many, the last first.
fn keys_from_the_end(mut run: SpooledTempFile, count: u64) -> impl Iterator<Item = io::Result<Key>> {
    /// Keys that are read at once.
    const BLOCK: u64 = 512;
    let (mut left, mut block) = (count, Vec::new());
    let mut read_before = move |block: &mut Vec<Key>| {
        let some = left.min(BLOCK);
        left -= some;
        let mut bytes = vec![0; usize::try_from(some).expect("a block is short") * Key::BYTES];
        run.seek(SeekFrom::Start(left * Key::BYTES as u64))?;
        run.read_exact(&mut bytes)?;
        block.extend(bytes.as_chunks().0.iter().map(Key::from_bytes));
        Ok(())
    };
    std::iter::from_fn(move || {
        if block.is_empty()
            && let Err(error) = read_before(&mut block)
        {
            return Some(Err(error));
        }
        block.pop().map(Ok)
    })
}

/// More keys than so many bytes of them that are to be reversed lie in a temporary file.
const SPOOL_BYTES_MAX: usize = 1 << 20;

fn temporary_file() -> io::Result<File> {
    tempfile::tempfile()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::cmp::Reverse;
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::super::filter::{Criteria, Filter};
    use super::super::listing::Source;
    use super::super::search::Search;
    use super::*;

    /// The numbers of the lines that are read of a segment of two, once it has become something else since they were found; and
    /// whether it is told that it has changed.
    fn found_before(becomes: impl FnOnce(&std::path::Path)) -> (Vec<u64>, bool) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit-0_19700101T000000.000Z.jsonl");
        fs::write(&path, [line(1, ""), line(2, "")].concat()).unwrap();
        let source = Source { name: None, path: temp.path().to_owned(), workspace: None };
        let sources = Sources::new(vec![source]).unwrap();
        let (listing, is_stopped) = (Listing::new(&sources), AtomicBool::new(false));
        let filter = Filter::new(Criteria::default());
        let search = Search::new((&sources, &listing), &filter, &|_| (), &is_stopped);
        let (mut sorted, _) = search.sorted(Order::Ascending, None).unwrap();
        becomes(&path);
        let mut indices = Vec::new();
        while let Some(line) = sorted.next_line(&listing, &sources).unwrap() {
            indices.push(line.index);
        }
        (indices, sorted.lost().any(|(segment, _)| segment == 0))
    }

    fn line(ts: u32, message: &str) -> String {
        format!(
            "{{\"ts\":\"1970-01-01T00:00:00.00{ts}Z\",\"jobId\":\"j\",\"workspaceId\":\"w\",\"event\":\"E\",\
             \"message\":\"{message}\",\"meta\":null}}\n"
        )
    }

    #[test]
    fn a_line_that_is_no_longer_what_was_found_is_left_out_and_told() {
        let (first, second) = (line(1, ""), line(2, ""));
        let rewritten = |lines: &[&str]| found_before(|path| fs::write(path, lines.concat()).unwrap());
        assert_eq!(rewritten(&[&first, &second]), (vec![0, 1], false));
        assert_eq!(rewritten(&[&first, &second[..9]]), (vec![0], true));
        assert_eq!(rewritten(&[&first, &first]), (vec![0], true));
        assert_eq!(rewritten(&[&first, "damaged\n"]), (vec![0], true));
        // A line may not grow without end.
        assert_eq!(rewritten(&[&first, &line(2, &"x".repeat(3 << 20))]), (vec![0], true));
        // Another file, be it with the same lines, may be anybody's.
        let replaced = found_before(|path| {
            fs::write(path.with_extension("new"), [&*first, &*second].concat()).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        });
        assert_eq!(replaced, (vec![], true));
        assert_eq!(found_before(|path| fs::remove_file(path).unwrap()), (vec![], false));
        let linked = found_before(|path| {
            fs::rename(path, path.with_extension("aside")).unwrap();
            std::os::unix::fs::symlink(path.with_extension("aside"), path).unwrap();
        });
        assert_eq!(linked, (vec![], true));
    }

    fn key() -> impl Strategy<Value = Key> {
        (0..20_i64, 0..3_u32, 0..1_000_u64, any::<bool>(), any::<u64>()).prop_map(
            |(ts, segment, index, is_spooled, offset)| Key {
                ts: Timestamp::from_millis(ts),
                segment,
                index,
                bytes: 7,
                is_spooled,
                offset,
            },
        )
    }

    /// Three segments, listed by their times; by path the last of these is the first.
    fn listing() -> Listing {
        let temp = tempfile::tempdir().unwrap();
        for (rank, second) in [(2, 1), (1, 2), (0, 3)] {
            File::create(temp.path().join(format!("audit-{rank}_20260128T09124{second}.000Z.jsonl"))).unwrap();
        }
        let source = Source { name: None, path: temp.path().to_owned(), workspace: None };
        Listing::new(&Sources::new(vec![source]).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_come_in_order_however_few_fit_in_memory(
            threads in prop::collection::vec(prop::collection::vec(key(), 0..60), 1..4),
            limit in prop::option::of(0..80_usize),
            keys_max in 1..40_usize,
            is_ascending in any::<bool>(),
            is_reversed in any::<bool>(),
        ) {
            let order = if is_ascending { Order::Ascending } else { Order::Descending };
            let mut all: Vec<_> = threads.concat();
            all.sort_by_key(|key| (key.ts, Reverse(key.segment), key.index));
            if !is_ascending {
                all.reverse();
            }
            all.truncate(limit.unwrap_or(usize::MAX));
            let has_reached_limit = limit.is_some_and(|limit| all.len() == limit);
            let (mut sorters, listing) = (Vec::new(), listing());
            for keys in threads {
                let mut sorter = Sorter { keys_max, ..Sorter::new(order, limit, 0) };
                for key in keys {
                    sorter.push(key, &listing).unwrap();
                    prop_assert!(sorter.keys.len() <= keys_max);
                }
                sorters.push(sorter);
            }
            let mut sorted = Sorted::merge(order, (limit, 0), sorters, Spool::default(), &listing).unwrap();
            if is_reversed {
                sorted = sorted.reversed(&listing).unwrap();
                all.reverse();
            }
            let found: Vec<_> = std::iter::from_fn(|| sorted.next_key(&listing).unwrap()).collect();
            prop_assert!(is_reversed || sorted.has_reached_limit() == has_reached_limit);
            let place = |key: &Key| (key.ts, key.segment, key.index);
            prop_assert_eq!(found.iter().map(place).collect::<Vec<_>>(), all.iter().map(place).collect::<Vec<_>>());
        }

        #[test]
        fn a_key_is_what_was_written(key in key()) {
            prop_assert_eq!(Key::from_bytes(&key.to_bytes()), key);
        }
    }

    #[test]
    fn lines_are_had_again_in_any_order_as_long_as_they_are_there() {
        let spool = Spool::default();
        let long = "x".repeat(2 * FIRST_BYTES);
        let lines = ["a", "", &long, "b", "", &long, "c"];
        let at: Vec<_> = lines.iter().map(|line| spool.keep(line.as_bytes()).unwrap()).collect();
        let (file, end) = spool.0.into_inner().unwrap().unwrap();
        let key = |number: usize| Key {
            ts: Timestamp::from_millis(0),
            segment: 0,
            index: 0,
            bytes: u32::try_from(lines[number].len()).unwrap(),
            is_spooled: true,
            offset: at[number],
        };
        let ways = [Order::Ascending, Order::Descending]
            .map(|order| [FIRST_BYTES, WINDOW_BYTES_MAX].map(|bytes| (order, bytes)));
        for way in ways.concat() {
            let mut window = Window::default();
            for number in (0..lines.len()).chain((0..lines.len()).rev()).chain([3, 0, 6, 2]) {
                let line = window.line(&file, &key(number), way).unwrap();
                assert!(line.as_deref() == Some(lines[number].as_bytes()), "{number}");
                assert!(window.bytes.capacity() <= way.1);
            }
            let beyond = Key { offset: end, ..key(0) };
            assert_eq!(window.line(&file, &beyond, way).unwrap(), None);
            assert_eq!(window.line(&file, &Key { offset: end, ..key(2) }, way).unwrap(), None);
            assert_eq!(window.line(&file, &Key { bytes: 0, ..key(0) }, way).unwrap(), None, "it is another line now");
            assert_eq!(
                window.line(&file, &Key { bytes: 1 << 20, ..key(0) }, way).unwrap(),
                None,
                "so much is not there"
            );
        }
    }
}

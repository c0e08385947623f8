//! Counting: the values of fields ([`facets`]), and records by time ([`histogram`]).
//!
//! Counts are exact however many values there are, and take no more memory than the search is given:
//!
//! - Each thread counts in a table. One that has grown to its share is written, sorted, to a temporary file
//!   without a name (a run), and emptied. Runs are merged (`runs`) by one thread at a time.
//! - A value of more than 4 KiB lies in a temporary file, too. It is counted by its beginning and its SHA-256, by which it is
//!   told from any other.
//! - At the end, what is left in tables and runs is merged. An answer lies in a file where it is long; of the values of a field,
//!   it is known in memory where the most frequent are.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::slice;
use std::sync::Mutex;

use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use super::field::{Field, Value};
use super::fields::{Fields, emptied};
use super::number::Decimal;
use super::runs::Runs;
use super::scan::Depth;
use super::search::{Coverage, Found, Search};
use super::tally::{Key, SLOT_BYTES, Tally};
use super::when::Zone;
use crate::record::{DAY_MS, Timestamp};

/// Fields that can be counted at once: where their most frequent values lie takes 8 MiB.
pub const FIELDS_MAX: usize = 32;
/// Values of a field that are in an answer.
pub const VALUES_MAX: usize = 10_000;

/// Runs that are merged at once, each by 8 KiB.
const RUNS_MAX: usize = 8;
/// What is told of a value by its text; a longer one is told by this beginning of it, and its SHA-256.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// An answer that is longer lies in a temporary file.
const SPOOL_BYTES_MAX: usize = 1 << 20;

/// What a field holds, as it is counted. The order is that of values which are counted equally often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counted {
    /// The record has no such field.
    Missing,
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number by its exact value, in the one spelling of [`Decimal::spelling`].
    Number(String),
    /// A string.
    String(String),
    /// Any array.
    Array,
    /// Any object.
    Object,
}

/// Values of fields, the most frequent first.
#[derive(Debug)]
pub struct Facets {
    fields: Vec<Facet>,
    spool: Spool,
    /// Long values.
    texts: Spool,
}

/// The values of one field.
#[derive(Debug, Default)]
struct Facet {
    top: Vec<Top>,
    more: More,
}

/// How often a value was found, and where it lies in the spool: there, lesser values are first. The most frequent is the greatest.
type Top = (u64, Reverse<u64>);

/// What is not in an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct More {
    /// Values.
    pub values: u64,
    /// Records with one of these.
    pub records: u64,
}

/// Counts the values of fields in the records that match; of a key that is there more than once, the last.
///
/// Records without a field do not count for it. At most [`VALUES_MAX`] values of each are kept: the most frequent, of equally frequent
/// ones the least. Records in which a field's path is there more than once are counted as ambiguous.
///
/// # Errors
/// Values that do not fit in memory go to temporary files, which can fail.
pub fn facets(search: &Search<'_>, fields: &[Field]) -> io::Result<(Facets, Coverage)> {
    let ready = Fields::new(fields);
    let glance = |_: Timestamp, event: &[u8], table: &mut Table<'_>| match fields {
        [Field::Event] if is_short(event) => Some(table.add(0, 0, Some((STRING, event)))),
        _ => None,
    };
    let (merge, texts, coverage) = count((search, fields.len()), glance, |found, table| {
        let values = table.values(&ready, found);
        for (group, value) in values.iter().enumerate() {
            if let Some(value) = value {
                let (kind, text) = kind_and_text(Some(value));
                table.add(group, group as u64, Some((kind, text.as_bytes())))?;
            }
        }
        table.room = emptied(values);
        Ok(())
    })?;
    Ok((Facets::of(fields.len(), (merge, texts), VALUES_MAX)?, coverage))
}

impl Facets {
    /// Takes what was counted, by field and value.
    fn of(fields: usize, (merge, texts): (Merge, Spool), values_max: usize) -> io::Result<Self> {
        let mut tops: Vec<BinaryHeap<Reverse<Top>>> = vec![BinaryHeap::new(); fields];
        let mut facets: Vec<Facet> = std::iter::repeat_with(Facet::default).take(fields).collect();
        let mut spool = Spool::new();
        for entry in merge {
            let entry = entry?;
            let field = usize::try_from(entry.group()).expect("it is the number of a field");
            let (top, more) = (&mut tops[field], &mut facets[field].more);
            let least = top.peek().map_or(0, |Reverse((count, _))| *count);
            if top.len() == values_max {
                more.values += 1;
                more.records += entry.count.min(least);
                // Of equals, those that came before are less.
                if entry.count <= least {
                    continue;
                }
                top.pop();
            }
            top.push(Reverse((entry.count, Reverse(spool.push_entry(&entry)?))));
        }
        for (facet, top) in facets.iter_mut().zip(tops) {
            // Sorted as they are reversed: the most frequent first.
            facet.top = top.into_sorted_vec().into_iter().map(|Reverse(top)| top).collect();
        }
        Ok(Self { fields: facets, spool, texts })
    }

    /// The values of a field, by its number in what was asked for, and how many records hold each.
    pub fn values(&mut self, field: usize) -> impl ExactSizeIterator<Item = io::Result<(Counted, u64)>> {
        let Self { fields, spool, texts } = self;
        fields[field]
            .top
            .iter()
            .map(|(count, Reverse(at))| Ok((spool.entry(*at)?.value(texts)?.unwrap_or(Counted::Missing), *count)))
    }

    /// What is not among a field's values, as there are too many.
    #[must_use]
    pub fn more(&self, field: usize) -> More {
        self.fields[field].more
    }
}

/// How long the times are by which records are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A minute.
    Minute,
    /// An hour of UTC.
    Hour,
    /// A day of a zone.
    Day,
}

impl Interval {
    /// Reads `minute`, `hour` or `day`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "minute" => Some(Self::Minute),
            "hour" => Some(Self::Hour),
            "day" => Some(Self::Day),
            _ => None,
        }
    }

    /// When the interval began that an instant is in; the zone is for days.
    #[must_use]
    pub fn start(self, at: Timestamp, zone: &Zone) -> Timestamp {
        let millis = at.millis();
        // Divided by what compilers know, as this is asked of every record.
        Timestamp::from_millis(match self {
            Self::Minute => millis / 60_000 * 60_000,
            Self::Hour => millis / 3_600_000 * 3_600_000,
            Self::Day if *zone != Zone::UTC => return zone.day(at),
            Self::Day => millis / DAY_MS * DAY_MS,
        })
    }
}

/// Records by time, the oldest first. Intervals without any are left out.
#[derive(Debug)]
pub struct Histogram {
    spool: Spool,
    /// Long values.
    texts: Spool,
}

/// Records of one interval, that hold one value if they were split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// When the interval begins.
    pub start: Timestamp,
    /// The value by which they were split; [`Counted::Missing`] for those without one.
    pub by: Option<Counted>,
    /// How many.
    pub count: u64,
}

/// Counts the records that match by time; and by a field's value, if one is named, as [`facets`] does.
///
/// # Errors
/// Those of [`facets`].
pub fn histogram(
    search: &Search<'_>,
    interval: Interval,
    by: Option<&Field>,
    zone: &Zone,
) -> io::Result<(Histogram, Coverage)> {
    let start = |at: Timestamp| interval.start(at, zone).millis().cast_unsigned();
    let glance = |at: Timestamp, event: &[u8], table: &mut Table<'_>| match by {
        None => Some(table.add(0, start(at), None)),
        Some(Field::Event) if is_short(event) => Some(table.add(0, start(at), Some((STRING, event)))),
        Some(_) => None,
    };
    let by = by.map(|field| Fields::new(slice::from_ref(field)));
    let (merge, texts, coverage) = count((search, 1), glance, |found, table| {
        let values = by.as_ref().map(|field| table.values(field, found));
        let value = values.as_deref().map(|values| kind_and_text(values[0].as_ref()));
        let value = value.as_ref().map(|(kind, text)| (*kind, text.as_bytes()));
        table.add(0, start(found.record.ts), value)?;
        table.room = emptied(values.unwrap_or_default());
        Ok(())
    })?;
    let mut spool = Spool::new();
    for entry in merge {
        spool.push_entry(&entry?)?;
    }
    Ok((Histogram { spool, texts }, coverage))
}

impl Histogram {
    /// The rows, by time and then value.
    ///
    /// # Errors
    /// Those of reading a temporary file, here and of each row.
    pub fn rows(&mut self) -> io::Result<impl Iterator<Item = io::Result<Row>>> {
        let Self { spool, texts } = self;
        let row = |entry: io::Result<Entry>| {
            let entry = entry?;
            let start = Timestamp::from_millis(entry.group().cast_signed());
            Ok(Row { start, by: entry.value(texts)?, count: entry.count })
        };
        Ok(entries_of(BufReader::new(spool.from(0)?)).map(row))
    }
}

/// Whether a text is told by itself.
fn is_short(text: &[u8]) -> bool {
    text.len() <= TEXT_BYTES_MAX
}

/// Counts in a table for each thread, of so many slots, and merges them; tells what was counted, and where its long values lie. `glance`
/// counts a record by its time and event where these are enough, and `each` one that was read.
fn count(
    (search, slots): (&Search<'_>, usize),
    glance: impl Fn(Timestamp, &[u8], &mut Table<'_>) -> Option<io::Result<()>> + Sync,
    each: impl Fn(&Found<'_>, &mut Table<'_>) -> io::Result<()> + Sync,
) -> io::Result<(Merge, Spool, Coverage)> {
    let written = Mutex::new(Written::new());
    let new = || Ok(Table::new(&written, search.share_bytes().saturating_sub(slots * SLOT_BYTES)));
    let fails = |table: &mut io::Result<Table<'_>>, counted: io::Result<()>| match counted {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *table = Err(error);
            ControlFlow::Break(())
        }
    };
    let glance = |table: &mut io::Result<Table<'_>>, at: Timestamp, event: &[u8]| {
        let Ok(counts) = table else { return Some(ControlFlow::Break(())) };
        let counted = glance(at, event, counts)?;
        Some(fails(table, counted))
    };
    let found = |table: &mut io::Result<Table<'_>>, found: &Found<'_>| {
        let Ok(counts) = table else { return ControlFlow::Break(()) };
        counts.is_ambiguous = found.is_ambiguous;
        let counted = each(found, counts);
        counts.ambiguous += u64::from(counts.is_ambiguous && !found.is_ambiguous);
        fails(table, counted)
    };
    let (tables, mut coverage) = search.each_at(Depth::Look, new, glance, found);
    let mut sorted = Vec::new();
    for table in tables {
        let mut table = table?;
        coverage.ambiguous += table.ambiguous;
        sorted.push(table.take_sorted()?);
    }
    let Written { runs, texts } = written.into_inner().expect("whoever held it did not panic");
    Ok((finish(runs, sorted)?, texts, coverage))
}

/// What threads have written to temporary files.
#[derive(Debug)]
struct Written {
    /// Counts that did not fit.
    runs: Runs,
    /// Long values.
    texts: Spool,
}

impl Written {
    fn new() -> Self {
        Self { runs: Runs::new(RUNS_MAX), texts: Spool::new() }
    }
}

/// What one thread counts.
struct Table<'r> {
    counts: Tally,
    /// Where the long values of these lie, by their digests.
    long: HashMap<Sha, u64>,
    /// For the values of a record.
    room: Vec<Option<Value<'static>>>,
    written: &'r Mutex<Written>,
    /// The present record is ambiguous.
    is_ambiguous: bool,
    /// Records that the search did not take for ambiguous, and that are.
    ambiguous: u64,
}

impl<'r> Table<'r> {
    fn new(written: &'r Mutex<Written>, bytes_max: usize) -> Self {
        let (counts, long) = (Tally::new(bytes_max), HashMap::new());
        Self { counts, long, room: Vec::new(), written, is_ambiguous: false, ambiguous: 0 }
    }

    /// The values that fields of a record have for counting.
    fn values<'v>(&mut self, fields: &Fields, found: &Found<'v>) -> Vec<Option<Value<'v>>> {
        let (values, is_ambiguous) = fields.last(found.record, &found.place, std::mem::take(&mut self.room));
        self.is_ambiguous |= is_ambiguous;
        values
    }

    /// Counts a value; those that may well be equal share a slot.
    #[inline]
    fn add(&mut self, slot: usize, group: u64, value: Option<(u8, &[u8])>) -> io::Result<()> {
        let (kind, text) = value.unwrap_or((NONE, &[]));
        let head = group << 8 | u64::from(kind);
        if is_short(text) { self.count(slot, (head, text)) } else { self.count_long(slot, head, utf8(text)) }
    }

    /// Counts a long value. One that is not in the table yet is kept.
    fn count_long(&mut self, slot: usize, head: u64, text: &str) -> io::Result<()> {
        let digest = Sha256::digest(text);
        let beginning = &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        let known = self.long.get(digest.as_slice()).copied();
        let keep = || self.written.lock().expect("whoever held it did not panic").texts.push_text(text);
        let at = known.map_or_else(keep, Ok)?;
        self.count(slot, (head, &[beginning, &[CUT], &digest].concat()))?;
        self.long.insert(digest.into(), at);
        Ok(())
    }

    /// Counts a key; where there is no room, what was counted is written.
    #[inline]
    fn count(&mut self, slot: usize, key: Key<'_>) -> io::Result<()> {
        if self.counts.add(slot, key) {
            return Ok(());
        }
        self.write()?;
        // What is empty has room for one.
        self.counts.add(slot, key);
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let run = write_run(self.sorted().map(Ok))?;
        self.written.lock().expect("whoever held it did not panic").runs.push(run, merge_files)
    }

    /// Takes out what was counted since the last run.
    fn take_sorted(&mut self) -> io::Result<impl Iterator<Item = Entry> + use<>> {
        while let Some(has_room) = self.counts.add_recent() {
            if !has_room {
                self.write()?;
            }
        }
        Ok(self.sorted())
    }

    fn sorted(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let long = std::mem::take(&mut self.long);
        self.counts.take_sorted(order).map(move |(head, text, count)| {
            let long = digest(&text).map(|digest| long[digest]);
            Entry { head, text, count, long }
        })
    }
}

/// A value, by its group (a field's number, or the time of an interval), and how often it was found.
#[derive(Debug)]
struct Entry {
    /// The group, and in the lowest byte the value's kind.
    head: u64,
    /// The value's text: of a long one its beginning, [`CUT`] and its SHA-256.
    text: Box<[u8]>,
    count: u64,
    /// Where a long text lies.
    long: Option<u64>,
}

/// Kinds of values, in their order.
const MISSING: u8 = 0;
const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const NUMBER: u8 = 4;
const STRING: u8 = 5;
const ARRAY: u8 = 6;
const OBJECT: u8 = 7;
/// There is only a group.
const NONE: u8 = 8;

/// What stands where a text is cut: no byte of one.
const CUT: u8 = 0xff;
type Sha = [u8; 32];

/// What a value, or that there is none, is counted as.
fn kind_and_text<'v>(value: Option<&'v Value<'_>>) -> (u8, Cow<'v, str>) {
    let (kind, text) = match value {
        None => (MISSING, ""),
        Some(Value::Null) => (NULL, ""),
        Some(Value::Boolean(false)) => (FALSE, ""),
        Some(Value::Boolean(true)) => (TRUE, ""),
        Some(Value::Number(text)) => {
            // Most numbers are spelt so: see `Decimal::spelling`.
            if text.len() <= 40 && !text.starts_with(['-', '0']) && text.bytes().all(|byte| byte.is_ascii_digit()) {
                return (NUMBER, Cow::Borrowed(text));
            }
            let number = Decimal::parse(text).expect("a number of a record is one");
            return (NUMBER, number.spelling().into());
        }
        Some(Value::String(text)) => (STRING, &**text),
        Some(Value::Structured(text)) if text.starts_with('[') => (ARRAY, ""),
        Some(Value::Structured(_)) => (OBJECT, ""),
    };
    (kind, text.into())
}

/// The digest of a long value.
fn digest(text: &[u8]) -> Option<&Sha> {
    let (text, digest) = text.split_last_chunk()?;
    (text.last() == Some(&CUT)).then_some(digest)
}

/// A value's text; the beginning of a long one.
fn beginning(text: &[u8]) -> &str {
    let behind = if digest(text).is_some() { 1 + size_of::<Sha>() } else { 0 };
    utf8(&text[..text.len() - behind])
}

/// The order of keys: by group and value; of values that begin alike for 4 KiB, by what tells them apart.
fn order((one, one_text): Key<'_>, (other, other_text): Key<'_>) -> Ordering {
    let numbers = || match one.to_le_bytes() {
        [NUMBER, ..] => Decimal::parse(beginning(one_text)).cmp(&Decimal::parse(beginning(other_text))),
        _ => Ordering::Equal,
    };
    one.cmp(&other).then_with(numbers).then_with(|| one_text.cmp(other_text))
}

impl Entry {
    const HEAD_BYTES: usize = 28;

    fn group(&self) -> u64 {
        self.head >> 8
    }

    fn key(&self) -> Key<'_> {
        (self.head, &self.text)
    }

    /// The value; a long one is had again.
    fn value(&self, texts: &mut Spool) -> io::Result<Option<Counted>> {
        let mut text = || self.long.map_or_else(|| Ok(beginning(&self.text).to_owned()), |at| texts.text(at));
        let [kind, ..] = self.head.to_le_bytes();
        Ok(Some(match kind {
            NONE => return Ok(None),
            MISSING => Counted::Missing,
            NULL => Counted::Null,
            FALSE => Counted::Boolean(false),
            TRUE => Counted::Boolean(true),
            NUMBER => Counted::Number(text()?),
            ARRAY => Counted::Array,
            OBJECT => Counted::Object,
            _ => Counted::String(text()?),
        }))
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&u32::try_from(self.text.len()).expect("longer texts are cut").to_le_bytes())?;
        for number in [self.head, self.count, self.long.unwrap_or(u64::MAX)] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&self.text)
    }

    /// Reads what was written; nothing at the end.
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; Self::HEAD_BYTES];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
        let [head, count, long] =
            [4, 12, 20].map(|at| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes")));
        let mut text = vec![0; length as usize].into_boxed_slice();
        from.read_exact(&mut text)?;
        Ok(Some(Self { head, text, count, long: Some(long).filter(|at| *at != u64::MAX) }))
    }
}

fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("it was written as UTF-8")
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        order(self.key(), other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

/// Merges all runs with what was never written to one.
fn finish(runs: Runs, sorted: Vec<impl Iterator<Item = Entry> + Send + 'static>) -> io::Result<Merge> {
    let mut all: Vec<Run> = Vec::new();
    for entries in sorted {
        all.push(Box::new(entries.map(Ok)));
    }
    for file in runs.into_files(merge_files)? {
        all.push(read_run(file)?);
    }
    Merge::new(all)
}

type Run = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

fn merge_files(files: Vec<File>) -> io::Result<File> {
    write_run(Merge::new(files.into_iter().map(read_run).collect::<io::Result<_>>()?)?)
}

fn write_run(entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<File> {
    let mut out = BufWriter::new(tempfile::tempfile()?);
    for entry in entries {
        entry?.write(&mut out)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

fn read_run(mut file: File) -> io::Result<Run> {
    file.rewind()?;
    Ok(Box::new(entries_of(BufReader::new(file))))
}

fn entries_of(mut from: impl Read) -> impl Iterator<Item = io::Result<Entry>> {
    std::iter::from_fn(move || Entry::read(&mut from).transpose())
}

/// The entries of several runs in order, equal ones added up.
struct Merge {
    runs: Vec<Run>,
    /// The next of each run, and its number.
    next: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Merge {
    fn new(runs: Vec<Run>) -> io::Result<Self> {
        let mut merge = Self { runs, next: BinaryHeap::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(entry) = self.runs[run].next().transpose()? {
            self.next.push(Reverse((entry, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((mut entry, run)) = self.next.pop()?;
        let mut advanced = self.advance(run);
        while advanced.is_ok() && self.next.peek().is_some_and(|Reverse((next, _))| next.key() == entry.key()) {
            let Some(Reverse((equal, run))) = self.next.pop() else { break };
            entry.count += equal.count;
            advanced = self.advance(run);
        }
        Some(advanced.map(|()| entry))
    }
}

/// What lies one behind the other: in memory while it is little, then in a temporary file without a name.
#[derive(Debug)]
struct Spool {
    file: SpooledTempFile,
    bytes: u64,
}

impl Spool {
    fn new() -> Self {
        Self { file: tempfile::spooled_tempfile(SPOOL_BYTES_MAX), bytes: 0 }
    }

    /// Adds an entry, and tells where it is.
    fn push_entry(&mut self, entry: &Entry) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(Entry::HEAD_BYTES + entry.text.len());
        entry.write(&mut bytes)?;
        self.push(&[&bytes])
    }

    fn entry(&mut self, at: u64) -> io::Result<Entry> {
        Entry::read(self.from(at)?)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Adds a text, and tells where it is.
    fn push_text(&mut self, text: &str) -> io::Result<u64> {
        let length = u32::try_from(text.len()).expect("a value is no longer than a line");
        self.push(&[&length.to_le_bytes(), text.as_bytes()])
    }

    fn text(&mut self, at: u64) -> io::Result<String> {
        let (file, mut length) = (self.from(at)?, [0; 4]);
        file.read_exact(&mut length)?;
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact(&mut text)?;
        Ok(String::from_utf8(text).expect("it was written as UTF-8"))
    }

    fn push(&mut self, parts: &[&[u8]]) -> io::Result<u64> {
        let at = self.bytes;
        for part in parts {
            self.file.write_all(part)?;
            self.bytes += part.len() as u64;
        }
        Ok(at)
    }

    /// Where something lies that is to be read.
    fn from(&mut self, at: u64) -> io::Result<&mut SpooledTempFile> {
        self.file.seek(SeekFrom::Start(at))?;
        Ok(&mut self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Counts in tables that are written after a few values; by group and value, in order.
    fn counted(values: &[(u64, u8, String)], bytes_max: usize) -> Vec<(u64, Option<Counted>, u64)> {
        let written = Mutex::new(Written::new());
        let mut tables = [Table::new(&written, bytes_max), Table::new(&written, bytes_max)];
        for (nth, (group, kind, text)) in values.iter().enumerate() {
            tables[nth % 2].add(nth % 3, *group, Some((*kind, text.as_bytes()))).unwrap();
        }
        let sorted = tables.map(|mut table| table.take_sorted().unwrap());
        let Written { runs, mut texts } = written.into_inner().unwrap();
        assert!(runs.counts().all(|count| count < RUNS_MAX));
        let entries = finish(runs, sorted.into()).unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.group(), entry.value(&mut texts).unwrap(), entry.count)).collect()
    }

    fn numbers(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u8, String)> {
        numbers.map(|number| (0, NUMBER, number.to_string())).collect()
    }

    #[test]
    fn counts_are_exact_when_tables_are_written_many_times() {
        // Each value thrice, far apart, so in different runs; 6,000 of them make three sizes of runs.
        let values = numbers((0..6000).map(|nth| nth % 2000));
        let expected: Vec<_> = (0..2000).map(|number| (0, Some(Counted::Number(format!("{number}"))), 3)).collect();
        for bytes_max in [0, 400, 10_000, 1 << 20] {
            assert_eq!(counted(&values, bytes_max), expected);
        }
    }

    #[test]
    fn of_too_many_values_the_most_frequent_are_kept_and_the_least_of_equals() {
        // 1 once, 2 twice, 9, 10 and 30 thrice, and 4 four times; in another field one value.
        let mut values = numbers([10, 9, 30, 4, 2, 1, 9, 10, 30, 4, 2, 30, 9, 10, 4, 4].into_iter());
        values.push((1, STRING, "x".to_owned()));
        let facets = |values_max| {
            let written = Mutex::new(Written::new());
            let mut table = Table::new(&written, 0);
            for (group, kind, text) in &values {
                table.add(0, *group, Some((*kind, text.as_bytes()))).unwrap();
            }
            let sorted = vec![table.take_sorted().unwrap()];
            let Written { runs, texts } = written.into_inner().unwrap();
            Facets::of(2, (finish(runs, sorted).unwrap(), texts), values_max).unwrap()
        };
        let number = |(text, count): (&str, u64)| (Counted::Number(text.to_owned()), count);
        let all = [("4", 4), ("9", 3), ("10", 3), ("30", 3), ("2", 2), ("1", 1)].map(number);
        for values_max in 1..8 {
            let mut facets = facets(values_max);
            let kept: Vec<_> = facets.values(0).map(Result::unwrap).collect();
            assert_eq!(kept, all[..values_max.min(6)]);
            let records = all.iter().skip(values_max).map(|(_, count)| count).sum();
            assert_eq!(facets.more(0), More { values: 6_u64.saturating_sub(values_max as u64), records });
            let other: Vec<_> = facets.values(1).map(Result::unwrap).collect();
            assert_eq!((other, facets.more(1)), (vec![(Counted::String("x".to_owned()), 1)], More::default()));
        }
    }

    #[test]
    fn values_are_in_the_order_of_their_kinds_and_numbers_by_value() {
        let ascending = [
            (MISSING, ""),
            (NULL, ""),
            (FALSE, ""),
            (TRUE, ""),
            (NUMBER, "-10"),
            (NUMBER, "-9.5"),
            (NUMBER, "9"),
            (NUMBER, "10"),
            (NUMBER, "1e41"),
            (STRING, ""),
            (STRING, "10"),
            (STRING, "9"),
            (ARRAY, ""),
            (OBJECT, ""),
        ];
        let values: Vec<_> = ascending.iter().rev().map(|(kind, text)| (7, *kind, (*text).to_owned())).collect();
        let kinds = counted(&values, 0).into_iter().map(|(_, value, _)| value.unwrap()).collect::<Vec<_>>();
        let mut expected = vec![Counted::Missing, Counted::Null, Counted::Boolean(false), Counted::Boolean(true)];
        expected.extend(["-10", "-9.5", "9", "10", "1e41"].map(|text| Counted::Number(text.to_owned())));
        expected.extend(["", "10", "9"].map(|text| Counted::String(text.to_owned())));
        expected.extend([Counted::Array, Counted::Object]);
        assert_eq!(kinds, expected);
    }

    #[test]
    fn intervals_begin_at_whole_minutes_and_hours_of_utc_and_days_of_a_zone() {
        let copenhagen = Zone::parse("Europe/Copenhagen").unwrap();
        let at = |text| Timestamp::parse_rfc3339(text).unwrap();
        for (interval, zone, instant, start) in [
            (Interval::Minute, &copenhagen, "2026-01-28T09:12:59.999Z", "2026-01-28T09:12:00Z"),
            (Interval::Hour, &copenhagen, "2026-01-28T09:59:59.999Z", "2026-01-28T09:00:00Z"),
            (Interval::Day, &Zone::UTC, "2026-01-28T23:59:59.999Z", "2026-01-28T00:00:00Z"),
            (Interval::Day, &copenhagen, "2026-01-28T22:59:59.999Z", "2026-01-27T23:00:00Z"),
            (Interval::Day, &copenhagen, "2026-01-28T23:00:00Z", "2026-01-28T23:00:00Z"),
            // The day on which summer time begins is 23 hours long, the one on which it ends 25.
            (Interval::Day, &copenhagen, "2026-03-29T21:59:59.999Z", "2026-03-28T23:00:00Z"),
            (Interval::Day, &copenhagen, "2026-10-25T22:59:59.999Z", "2026-10-24T22:00:00Z"),
            (Interval::Day, &copenhagen, "1970-01-01T01:00:00Z", "1970-01-01T00:00:00Z"),
            (Interval::Day, &copenhagen, "9999-12-31T23:59:59.999Z", "9999-12-31T00:00:00Z"),
        ] {
            assert_eq!(interval.start(at(instant), zone), at(start), "{interval:?} {instant}");
        }
        for (text, interval) in [("minute", Interval::Minute), ("hour", Interval::Hour), ("day", Interval::Day)] {
            assert_eq!(Interval::parse(text), Some(interval));
        }
        assert_eq!(Interval::parse("week"), None);
    }

    #[test]
    fn a_long_answer_is_read_back_from_where_it_was_put() {
        let mut spool = Spool::new();
        let entry = |nth: u64| Entry {
            head: nth << 8,
            text: nth.to_be_bytes().repeat(1000).into(),
            count: nth,
            long: Some(nth),
        };
        let places: Vec<_> = (0..400).map(|nth| spool.push_entry(&entry(nth)).unwrap()).collect();
        assert!(spool.bytes > 2 * SPOOL_BYTES_MAX as u64);
        for (nth, place) in (0..400_u32).zip(places).rev() {
            let read = spool.entry(place).unwrap();
            assert_eq!((read.count, read.long, &read), (u64::from(nth), Some(nth.into()), &entry(nth.into())));
        }
    }

    /// They begin alike, and one is as long as what is told by its text.
    #[test]
    fn long_values_are_told_apart_and_had_again() {
        let long = |end: &str| "é".repeat(TEXT_BYTES_MAX / 2) + end;
        // In their order: one that is no longer than that comes before those that begin like it.
        let texts = ["x".repeat(3 * TEXT_BYTES_MAX), long(""), long("a"), long("b"), long("a") + "\u{10ffff}"];
        let texts_thrice = (0..3).flat_map(|time| texts.iter().map(move |text| (time % 2, STRING, text.clone())));
        let values: Vec<_> = texts_thrice.collect();
        for bytes_max in [0, 2 * TEXT_BYTES_MAX, 1 << 20] {
            let counted = counted(&values, bytes_max);
            for group in [0, 1] {
                let of_group = counted.iter().filter(|(other, ..)| *other == group);
                let numbered = |(_, value, count): &(u64, Option<Counted>, u64)| {
                    let of = |text: &String| *value == Some(Counted::String(text.clone()));
                    (texts.iter().position(of), *count)
                };
                let mut found: Vec<_> = of_group.map(numbered).collect();
                assert_eq!(found[..2], [0, 1].map(|nth| (Some(nth), 2 - group)));
                found.sort_unstable();
                assert_eq!(found, [0, 1, 2, 3, 4].map(|nth| (Some(nth), 2 - group)));
            }
        }
        let mut numbers = ["9", "8"].map(|digit| (0, NUMBER, digit.repeat(TEXT_BYTES_MAX + 1))).to_vec();
        numbers.push((0, NUMBER, "7".to_owned()));
        let found: Vec<_> = counted(&numbers, 0).into_iter().map(|(_, value, _)| value).collect();
        assert!(found == [2, 1, 0].map(|nth: usize| Some(Counted::Number(numbers[nth].2.clone()))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn tables_of_any_size_count_what_a_map_counts(
            values in prop::collection::vec((0..3_u64, STRING..=STRING, "[ab]{0,3}"), 0..300),
            bytes_max in 0..4000_usize,
        ) {
            let mut model = BTreeMap::new();
            for (group, _, text) in &values {
                *model.entry((*group, text.clone())).or_insert(0) += 1;
            }
            let expected: Vec<_> =
                model.into_iter().map(|((group, text), count)| (group, Some(Counted::String(text)), count)).collect();
            prop_assert_eq!(counted(&values, bytes_max), expected);
        }
    }
}

//! Counting: the values of fields ([`facets`]), and records by time ([`histogram`]).
//!
//! Counts are exact however many values there are, and take no more memory than the search is given:
//!
//! - Each thread counts in a table. One that has grown to its share is written, sorted, to a temporary file
//!   without a name (a run), and emptied.
//! - As soon as there are eight runs of a size they are merged to one of the next, by one thread at a time: of
//!   each, one value is in memory, which is no longer than a line. So no value is written more often than the
//!   logarithm of their number, and few files are open.
//! - At the end, what is left in tables and runs is merged. An answer lies in a file where it is long; of the values of a field,
//!   it is known in memory where the most frequent are.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::slice;
use std::sync::Mutex;

use tempfile::SpooledTempFile;

use super::field::{Field, Value};
use super::fields::{Fields, emptied};
use super::number::Decimal;
use super::scan::Depth;
use super::search::{Coverage, Found, Search};
use super::tally::Tally;
use super::when::Zone;
use crate::record::{DAY_MS, Timestamp};

/// Fields that can be counted at once: where their most frequent values lie takes 8 MiB.
pub const FIELDS_MAX: usize = 32;
/// Values of a field that are in an answer.
pub const VALUES_MAX: usize = 10_000;

/// Longer keys are not kept as a slot's last: slots take next to nothing.
const RECENT_BYTES_MAX: usize = 256;
/// Runs that are merged at once: 16 MiB of values, as none is longer than a line.
const RUNS_MAX: usize = 8;
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
    let (merge, coverage) = count(search, |found, table| {
        let values = table.values(&ready, found);
        for (group, value) in values.iter().enumerate() {
            if let Some(value) = value {
                table.add(group, (group as u64, Some(kind_and_text(Some(value)))))?;
            }
        }
        table.room = emptied(values);
        Ok(())
    })?;
    Ok((Facets::of(fields.len(), merge, VALUES_MAX)?, coverage))
}

impl Facets {
    /// Takes what was counted, by field and value.
    fn of(fields: usize, merge: impl Iterator<Item = io::Result<Entry>>, values_max: usize) -> io::Result<Self> {
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
            top.push(Reverse((entry.count, Reverse(spool.push(&entry)?))));
        }
        for (facet, top) in facets.iter_mut().zip(tops) {
            // Sorted as they are reversed: the most frequent first.
            facet.top = top.into_sorted_vec().into_iter().map(|Reverse(top)| top).collect();
        }
        Ok(Self { fields: facets, spool })
    }

    /// The values of a field, by its number in what was asked for, and how many records hold each.
    pub fn values(&mut self, field: usize) -> impl ExactSizeIterator<Item = io::Result<(Counted, u64)>> {
        let (top, spool) = (&self.fields[field].top, &mut self.spool);
        top.iter().map(|(count, Reverse(at))| Ok((spool.at(*at)?.value().unwrap_or(Counted::Missing), *count)))
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
        let millis = match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day if *zone != Zone::UTC => return zone.day(at),
            Self::Day => DAY_MS,
        };
        Timestamp::from_millis(at.millis() / millis * millis)
    }
}

/// Records by time, the oldest first. Intervals without any are left out.
#[derive(Debug)]
pub struct Histogram(Spool);

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
    let by = by.map(|field| Fields::new(slice::from_ref(field)));
    let (merge, coverage) = count(search, |found, table| {
        let start = interval.start(found.record.ts, zone).millis().cast_unsigned();
        let values = by.as_ref().map(|field| table.values(field, found));
        table.add(0, (start, values.as_deref().map(|values| kind_and_text(values[0].as_ref()))))?;
        table.room = emptied(values.unwrap_or_default());
        Ok(())
    })?;
    let mut spool = Spool::new();
    for entry in merge {
        spool.push(&entry?)?;
    }
    Ok((Histogram(spool), coverage))
}

impl Histogram {
    /// The rows, by time and then value.
    ///
    /// # Errors
    /// Those of reading a temporary file, here and of each row.
    pub fn rows(&mut self) -> io::Result<impl Iterator<Item = io::Result<Row>>> {
        let Self(Spool(spool, _)) = self;
        spool.rewind()?;
        let row = |entry: Entry| Row {
            start: Timestamp::from_millis(entry.group().cast_signed()),
            by: entry.value(),
            count: entry.count,
        };
        Ok(entries_of(BufReader::new(spool)).map(move |entry| entry.map(row)))
    }
}

/// Counts in a table for each thread, and merges them.
fn count(
    search: &Search<'_>,
    each: impl Fn(&Found<'_>, &mut Table<'_>) -> io::Result<()> + Sync,
) -> io::Result<(Merge, Coverage)> {
    let runs = Mutex::new(Runs::default());
    let new = || Ok(Table::new(&runs, search.share_bytes()));
    let (tables, mut coverage) = search.each_at(Depth::Look, new, |table: &mut io::Result<Table<'_>>, found| {
        let Ok(counts) = table else { return ControlFlow::Break(()) };
        counts.is_ambiguous = found.is_ambiguous;
        match each(found, counts) {
            Ok(()) => {
                counts.ambiguous += u64::from(counts.is_ambiguous && !found.is_ambiguous);
                ControlFlow::Continue(())
            }
            Err(error) => {
                *table = Err(error);
                ControlFlow::Break(())
            }
        }
    });
    let mut sorted = Vec::new();
    for table in tables {
        let mut table = table?;
        coverage.ambiguous += table.ambiguous;
        sorted.push(table.take_sorted()?);
    }
    let runs = runs.into_inner().expect("whoever held it did not panic");
    Ok((runs.finish(sorted)?, coverage))
}

/// What one thread counts.
struct Table<'r> {
    counts: Tally,
    /// The short key that was counted last in each slot, and how often since then: lines in a row are often of one job or hour.
    recent: Vec<(Vec<u8>, u64)>,
    /// The key that is looked for.
    key: Vec<u8>,
    /// For the values of a record.
    room: Vec<Option<Value<'static>>>,
    runs: &'r Mutex<Runs>,
    /// The present record is ambiguous.
    is_ambiguous: bool,
    /// Records that the search did not take for ambiguous, and that are.
    ambiguous: u64,
}

impl<'r> Table<'r> {
    fn new(runs: &'r Mutex<Runs>, bytes_max: usize) -> Self {
        let (counts, recent, key) = (Tally::new(bytes_max), Vec::new(), Vec::new());
        Self { counts, recent, key, room: Vec::new(), runs, is_ambiguous: false, ambiguous: 0 }
    }

    /// The values that fields of a record have for counting.
    fn values<'v>(&mut self, fields: &Fields, found: &Found<'v>) -> Vec<Option<Value<'v>>> {
        let (values, is_ambiguous) = fields.last(found.record, &found.place, std::mem::take(&mut self.room));
        self.is_ambiguous |= is_ambiguous;
        values
    }

    /// Counts a value; those that may well be equal share a slot.
    fn add(&mut self, slot: usize, (group, value): (u64, Option<(u8, Cow<'_, str>)>)) -> io::Result<()> {
        self.key.clear();
        self.key.extend(group.to_be_bytes());
        if let Some((kind, text)) = value {
            self.key.push(kind);
            self.key.extend(text.as_bytes());
        }
        let mut times = 1;
        if self.key.len() <= RECENT_BYTES_MAX {
            if self.recent.len() <= slot {
                self.recent.resize_with(slot + 1, Default::default);
            }
            let (key, recently) = &mut self.recent[slot];
            if *key == self.key {
                *recently += 1;
                return Ok(());
            }
            std::mem::swap(key, &mut self.key);
            times = std::mem::replace(recently, 1);
        }
        self.count(times)
    }

    /// Counts `key` so many times.
    fn count(&mut self, times: u64) -> io::Result<()> {
        if times == 0 || self.counts.add(&self.key, times) {
            return Ok(());
        }
        let run = write_run(sorted(&mut self.counts).map(Ok))?;
        self.runs.lock().expect("whoever held it did not panic").push(run)?;
        // What is empty has room for one.
        self.counts.add(&self.key, times);
        Ok(())
    }

    /// Takes out what was counted since the last run.
    fn take_sorted(&mut self) -> io::Result<impl Iterator<Item = Entry> + use<>> {
        for (key, times) in std::mem::take(&mut self.recent) {
            self.key = key;
            self.count(times)?;
        }
        Ok(sorted(&mut self.counts))
    }
}

fn sorted(counts: &mut Tally) -> impl Iterator<Item = Entry> + use<> {
    counts.take_sorted(order).map(|(key, count)| Entry { key, count })
}

/// A value, by its group (a field's number, or the time of an interval), and how often it was found.
#[derive(Debug)]
struct Entry {
    /// The group in 8 bytes, big-endian; then, if there is a value, its kind and its text.
    key: Box<[u8]>,
    count: u64,
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

const GROUP_BYTES: usize = 8;

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

/// The kind of a key's value, and its text.
fn parts(key: &[u8]) -> Option<(u8, &[u8])> {
    key[GROUP_BYTES..].split_first().map(|(kind, text)| (*kind, text))
}

/// The order of keys: by group and value.
fn order(one: &[u8], other: &[u8]) -> Ordering {
    let groups = one[..GROUP_BYTES].cmp(&other[..GROUP_BYTES]);
    let numbers = match (parts(one), parts(other)) {
        (Some((NUMBER, a)), Some((NUMBER, b))) if groups.is_eq() => {
            Decimal::parse(utf8(a)).cmp(&Decimal::parse(utf8(b)))
        }
        _ => Ordering::Equal,
    };
    numbers.then_with(|| one.cmp(other))
}

impl Entry {
    fn group(&self) -> u64 {
        u64::from_be_bytes(self.key[..GROUP_BYTES].try_into().expect("8 bytes"))
    }

    fn value(&self) -> Option<Counted> {
        let (kind, text) = parts(&self.key)?;
        let text = utf8(text);
        Some(match kind {
            MISSING => Counted::Missing,
            NULL => Counted::Null,
            FALSE => Counted::Boolean(false),
            TRUE => Counted::Boolean(true),
            NUMBER => Counted::Number(text.to_owned()),
            ARRAY => Counted::Array,
            OBJECT => Counted::Object,
            _ => Counted::String(text.to_owned()),
        })
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&u32::try_from(self.key.len()).expect("a value is no longer than a line").to_le_bytes())?;
        out.write_all(&self.count.to_le_bytes())?;
        out.write_all(&self.key)
    }

    /// Reads what was written; nothing at the end.
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 12];
        match from.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes"));
        let mut key = vec![0; length as usize].into_boxed_slice();
        from.read_exact(&mut key)?;
        Ok(Some(Self { key, count: u64::from_le_bytes(head[4..].try_into().expect("8 bytes")) }))
    }
}

fn utf8(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("it was written as UTF-8")
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.key, &other.key)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

/// Sorted entries in temporary files, of each size fewer than [`RUNS_MAX`].
#[derive(Debug, Default)]
struct Runs(Vec<Vec<File>>);

impl Runs {
    fn push(&mut self, run: File) -> io::Result<()> {
        let mut run = run;
        for size in 0.. {
            if self.0.len() == size {
                self.0.push(Vec::new());
            }
            self.0[size].push(run);
            if self.0[size].len() < RUNS_MAX {
                break;
            }
            run = merge_files(self.0[size].drain(..))?;
        }
        Ok(())
    }

    /// Merges all runs with what was never written to one.
    fn finish(self, sorted: Vec<impl Iterator<Item = Entry> + Send + 'static>) -> io::Result<Merge> {
        // The smallest first.
        let mut files: Vec<File> = self.0.into_iter().flatten().collect();
        while files.len() > RUNS_MAX {
            let run = merge_files(files.drain(..RUNS_MAX))?;
            files.push(run);
        }
        let mut runs: Vec<Run> = Vec::new();
        for entries in sorted {
            runs.push(Box::new(entries.map(Ok)));
        }
        for file in files {
            runs.push(read_run(file)?);
        }
        Merge::new(runs)
    }
}

type Run = Box<dyn Iterator<Item = io::Result<Entry>> + Send>;

fn merge_files(files: impl Iterator<Item = File>) -> io::Result<File> {
    write_run(Merge::new(files.map(read_run).collect::<io::Result<_>>()?)?)
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
        while advanced.is_ok() && self.next.peek().is_some_and(|Reverse((next, _))| next.key == entry.key) {
            let Some(Reverse((equal, run))) = self.next.pop() else { break };
            entry.count += equal.count;
            advanced = self.advance(run);
        }
        Some(advanced.map(|()| entry))
    }
}

/// Entries one after another: in memory while they are few, then in a temporary file without a name.
#[derive(Debug)]
struct Spool(SpooledTempFile, u64);

impl Spool {
    fn new() -> Self {
        Self(tempfile::spooled_tempfile(SPOOL_BYTES_MAX), 0)
    }

    /// Adds an entry, and tells where it is.
    fn push(&mut self, entry: &Entry) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(entry.key.len() + 12);
        entry.write(&mut bytes)?;
        self.0.write_all(&bytes)?;
        let at = self.1;
        self.1 += bytes.len() as u64;
        Ok(at)
    }

    fn at(&mut self, at: u64) -> io::Result<Entry> {
        self.0.seek(SeekFrom::Start(at))?;
        Entry::read(&mut self.0)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Counts in tables that are written after a few values; by group and value, in order.
    fn counted(values: &[(u64, u8, String)], bytes_max: usize) -> Vec<(u64, Option<Counted>, u64)> {
        let runs = Mutex::new(Runs::default());
        let mut tables = [Table::new(&runs, bytes_max), Table::new(&runs, bytes_max)];
        for (nth, (group, kind, text)) in values.iter().enumerate() {
            tables[nth % 2].add(nth % 3, (*group, Some((*kind, text.into())))).unwrap();
        }
        let sorted = tables.map(|mut table| table.take_sorted().unwrap());
        let runs = runs.into_inner().unwrap();
        assert!(runs.0.iter().all(|size| size.len() < RUNS_MAX));
        let entries = runs.finish(sorted.into()).unwrap();
        entries.map(Result::unwrap).map(|entry| (entry.group(), entry.value(), entry.count)).collect()
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
            let runs = Mutex::new(Runs::default());
            let mut table = Table::new(&runs, 0);
            for (group, kind, text) in &values {
                table.add(0, (*group, Some((*kind, text.into())))).unwrap();
            }
            let sorted = vec![table.take_sorted().unwrap()];
            Facets::of(2, runs.into_inner().unwrap().finish(sorted).unwrap(), values_max).unwrap()
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
        let entry = |nth: u64| Entry { key: nth.to_be_bytes().repeat(1000).into(), count: nth };
        let places: Vec<_> = (0..400).map(|nth| spool.push(&entry(nth)).unwrap()).collect();
        assert!(spool.1 > 2 * SPOOL_BYTES_MAX as u64);
        for (nth, place) in (0..400_u32).zip(places).rev() {
            let read = spool.at(place).unwrap();
            assert_eq!((read.count, &read), (u64::from(nth), &entry(nth.into())));
        }
    }

    proptest! {
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

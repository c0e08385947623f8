//! A segment -> its lines, forwards or backwards, as bytes.
//!
//! - Lines come in [`Block`]s: as many whole lines as one read brings. A scan may search a block at once and look for
//!   lines only where it finds something.
//! - Memory is a [`Buffer`] of the caller's, for as many segments as they like, and a decoder where a segment is
//!   compressed. A line over [`LINE_BYTES_MAX`] is told as [`Content::TooLong`] and never kept, and of its holes, which are
//!   NULs that take no room on disk, nothing is read. What unpacks without end is not read to it (`packed`).
//! - What is read is what was there at opening. A file that is cut meanwhile is read as far as it goes.
//! - Lines have numbers in the direction of reading ([`Line::nth`]). Forwards that is the index, if the position that it
//!   started from has the right one. Backwards the index is known once the lines have been counted
//!   ([`OpenSegment::count_lines`], a pass at the speed of the memory), which only those need who have found something.

mod backwards;
mod packed;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use memchr::{memchr, memchr_iter, memrchr};

pub use self::backwards::Backwards;
use super::listing::{Segment, Sources, spellings};
use crate::durable::{EntryKind, FileId, data_from};
use crate::record::{Compression, LINE_BYTES_MAX, Opened, SegmentName, Timestamp};

/// What is read at once, unless the caller wants it otherwise: it fits a core's own cache.
const CHUNK_BYTES: usize = 256 << 10;

/// What is read at once to see a segment's first or last line.
const LOOK_BYTES: usize = 4 << 10;

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it; of a compressed segment, those of its content.
    pub offset: u64,
    /// Lines before it.
    pub index: u64,
}

/// A part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins; a line must begin there.
    pub from: Position,
    /// The offset at which it ends. What lies beyond what was there at opening is not there.
    pub until: u64,
}

impl Span {
    /// The whole segment.
    pub const ALL: Self = Self { from: Position { offset: 0, index: 0 }, until: u64::MAX };
}

/// Memory to read with. It grows where lines are long, up to twice [`LINE_BYTES_MAX`], and stays so.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    chunk_bytes: usize,
}

impl Buffer {
    /// Memory of which `chunk_bytes` (1 to [`LINE_BYTES_MAX`]) are read at once.
    #[must_use]
    pub fn new(chunk_bytes: usize) -> Self {
        Self { bytes: Vec::new(), chunk_bytes: chunk_bytes.clamp(1, LINE_BYTES_MAX) }
    }

    fn grow_to(&mut self, bytes: usize) {
        if self.bytes.len() < bytes {
            // No more than that: it is counted on.
            self.bytes.reserve_exact(bytes - self.bytes.len());
            self.bytes.resize(bytes, 0);
        }
    }
}

impl Default for Buffer {
    /// Memory of which 256 KiB are read at once.
    fn default() -> Self {
        Self::new(CHUNK_BYTES)
    }
}

/// What was read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'b> {
    /// The number of its first line in the direction of reading.
    pub nth: u64,
    /// Where it begins in the segment.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What it is.
    pub content: Content<'b>,
    is_backwards: bool,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'b> {
    /// One or more whole lines, in the file's order, each with its newline.
    Lines(&'b [u8]),
    /// One line that is longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// What lies behind the last newline: one line that is damaged, or not yet written.
    Torn,
}

/// A whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'b> {
    /// Its number in the direction of reading: forwards its index; backwards 0 for the last line of the span.
    pub nth: u64,
    /// Where it begins in the segment.
    pub offset: u64,
    /// Its bytes without the newline; an empty line has none.
    pub bytes: &'b [u8],
}

impl<'b> Block<'b> {
    /// The whole lines in it, in the direction of reading.
    #[must_use]
    pub fn lines(&self) -> Lines<'b> {
        let bytes = match self.content {
            Content::Lines(bytes) => bytes,
            Content::TooLong | Content::Torn => &[],
        };
        Lines { nth: self.nth, offset: self.offset, bytes, is_backwards: self.is_backwards }
    }
}

/// The lines of a [`Block`].
#[derive(Debug, Clone)]
pub struct Lines<'b> {
    nth: u64,
    offset: u64,
    bytes: &'b [u8],
    is_backwards: bool,
}

impl<'b> Iterator for Lines<'b> {
    type Item = Line<'b>;

    #[inline]
    fn next(&mut self) -> Option<Line<'b>> {
        let (nth, offset) = (self.nth, self.offset);
        let line = if self.is_backwards {
            let (_, before) = self.bytes.split_last()?;
            let start = memrchr(b'\n', before).map_or(0, |newline| newline + 1);
            self.bytes = &before[..start];
            Line { nth, offset: offset + to_u64(start), bytes: &before[start..] }
        } else {
            let length = memchr(b'\n', self.bytes)?;
            let line = &self.bytes[..length];
            self.bytes = &self.bytes[length + 1..];
            self.offset += to_u64(length + 1);
            Line { nth, offset, bytes: line }
        };
        self.nth += 1;
        Some(line)
    }
}

/// An open segment.
#[derive(Debug)]
pub struct OpenSegment {
    file: File,
    compression: Compression,
    bytes: u64,
    id: FileId,
}

impl OpenSegment {
    /// Opens a segment that was listed; `None` if it has vanished. If it was compressed meanwhile, or unpacked, it is opened
    /// as it is now.
    ///
    /// # Errors
    /// Those of `openat`; the segment's directory cannot be opened, or a link is where the segment was.
    pub fn open(segment: &Segment, sources: &Sources) -> io::Result<Option<Self>> {
        let Some(folder) = segment.open_folder(sources)? else { return Ok(None) };
        for name in spellings(&segment.name) {
            match folder.open_file(name.to_string().as_ref()) {
                Ok((file, facts)) if facts.kind == EntryKind::File => {
                    return Ok(Some(Self { file, compression: name.compression(), bytes: facts.bytes, id: facts.id }));
                }
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Its length on disk when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How its content is packed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The file, for reads at offsets that were told.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Which file it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Whether a line begins at an offset of a plain segment: it is the file's beginning, or a newline stands before it.
    pub(super) fn is_line_start(&self, offset: u64) -> io::Result<bool> {
        let Some(before) = offset.checked_sub(1) else { return Ok(true) };
        let mut byte = [0];
        Ok(self.file.read_at(&mut byte, before)? == 1 && byte == *b"\n")
    }

    /// Reads lines in their order. To begin within a compressed segment, all before is unpacked.
    ///
    /// # Errors
    /// As [`Forwards::next_block`], of what lies before the span.
    pub fn forwards<'a>(&'a self, span: Span, buffer: &'a mut Buffer) -> io::Result<Forwards<'a>> {
        let input = self.input(span, buffer)?;
        Ok(Forwards {
            input,
            buffer,
            start: 0,
            scanned: 0,
            end: 0,
            uncounted: 0..0,
            skipped: 0,
            at: span.from,
            is_done: false,
        })
    }

    /// Reads lines from the last to the first. `None` if the segment is compressed: that can be read forwards only.
    #[must_use]
    pub fn backwards<'a>(&'a self, span: Span, buffer: &'a mut Buffer) -> Option<Backwards<'a>> {
        (self.compression == Compression::Plain).then(|| {
            let until = span.until.min(self.bytes);
            Backwards::new(&self.file, span.from.offset..until, buffer)
        })
    }

    /// Counts the lines of a span, a torn one included: backwards, the line `nth` has the index
    /// `span.from.index + count - 1 - nth`. (A file that is cut between may count less than was told.)
    ///
    /// # Errors
    /// As [`Forwards::next_block`].
    pub fn count_lines(&self, span: Span) -> io::Result<u64> {
        let mut buffer = Buffer::default();
        let mut input = self.input(span, &mut buffer)?;
        buffer.grow_to(CHUNK_BYTES);
        let (mut count, mut last) = (0, b'\n');
        loop {
            let some = read_some(&mut input, &mut buffer.bytes)?;
            let Some(&byte) = buffer.bytes[..some].last() else { break };
            let newlines = count_newlines(&buffer.bytes[..some]);
            // A hole ends no line: what comes before it has no newline at its end.
            last = if newlines == 0 && input.skip_hole()? > 0 { 0 } else { byte };
            count += newlines;
        }
        Ok(count + u64::from(last != b'\n'))
    }

    /// The times of a span's first and last line, by which a segment of ours is bounded; `ts` is asked for the time of a
    /// line. `None` where nothing bounds it: a name that is not ours or later than the first line, a compressed file, a first or last
    /// line that is damaged (`ts` says `None`) or empty, or out of order.
    ///
    /// Complexity: two reads of 4 KiB, as long as the lines are shorter.
    ///
    /// # Errors
    /// Those of `pread`.
    pub fn bounds(
        &self,
        name: &SegmentName,
        span: Span,
        ts: impl Fn(&[u8]) -> Option<Timestamp>,
    ) -> io::Result<Option<Bounds>> {
        let mut buffer = Buffer::new(LOOK_BYTES);
        let first_of = |block: Option<Block<'_>>| block.and_then(|block| ts(block.lines().next()?.bytes));
        let Opened::At(opened) = name.opened() else { return Ok(None) };
        let Some(mut backwards) = self.backwards(span, &mut buffer) else { return Ok(None) };
        let Some(last) = first_of(backwards.next_block()?) else { return Ok(None) };
        let Some(first) = first_of(self.forwards(span, &mut buffer)?.next_block()?) else { return Ok(None) };
        Ok((opened <= first && first <= last).then_some(Bounds { first, last }))
    }

    /// The content of a span, unpacked.
    fn input(&self, span: Span, buffer: &mut Buffer) -> io::Result<Input<'_>> {
        let Span { from: Position { offset, .. }, until } = span;
        let on_disk = |range: std::ops::Range<u64>| Range { file: &self.file, at: range.start, end: range.end };
        let mut input: Box<dyn Read + Send + '_> = match self.compression {
            Compression::Plain => return Ok(Input::Plain(on_disk(offset..until.min(self.bytes)))),
            Compression::Gzip => Box::new(packed::bounded(packed::gzip(on_disk(0..self.bytes)), self.bytes)),
            Compression::Zstd => Box::new(packed::bounded(packed::zstd(on_disk(0..self.bytes)), self.bytes)),
        };
        let mut before = offset;
        buffer.grow_to(buffer.chunk_bytes);
        while before > 0 {
            let size = to_usize(before).min(buffer.bytes.len());
            match read_some(&mut input, &mut buffer.bytes[..size])? {
                0 => break,
                some => before -= to_u64(some),
            }
        }
        Ok(Input::Packed(input.take(until.saturating_sub(offset))))
    }
}

/// What lines are read from.
enum Input<'a> {
    Plain(Range<'a>),
    Packed(io::Take<Box<dyn Read + Send + 'a>>),
}

impl Input<'_> {
    /// Passes over the hole that begins here, if one does; returns its length.
    fn skip_hole(&mut self) -> io::Result<u64> {
        let Self::Plain(range) = self else { return Ok(0) };
        let from = range.at;
        range.at = data_from(range.file, from)?.map_or(range.end, |data| data.clamp(from, range.end.max(from)));
        Ok(range.at - from)
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(range) => range.read(buffer),
            Self::Packed(packed) => packed.read(buffer),
        }
    }
}

/// The times between which all lines of a segment lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// That of the first line.
    pub first: Timestamp,
    /// That of the last line.
    pub last: Timestamp,
}

/// A part of a file, by its offsets: several readers can share the file.
struct Range<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = to_usize(self.end.saturating_sub(self.at)).min(buffer.len());
        if size == 0 {
            return Ok(0);
        }
        let some = self.file.read_at(&mut buffer[..size], self.at)?;
        self.at += to_u64(some);
        Ok(some)
    }
}

/// The lines of a segment in their order, a block at a time.
pub struct Forwards<'a> {
    input: Input<'a>,
    buffer: &'a mut Buffer,
    /// Of the buffer: where the next line begins, up to where no newline is but in lines that were told, and where it ends.
    start: usize,
    scanned: usize,
    end: usize,
    /// Of the buffer: the last block, if its lines are not in `at` yet.
    uncounted: std::ops::Range<usize>,
    /// Bytes of the next line that were dropped, as it is too long.
    skipped: usize,
    /// Where the next line begins in the segment.
    at: Position,
    is_done: bool,
}

impl Forwards<'_> {
    /// Reads the next block; `None` behind the last one.
    ///
    /// # Errors
    /// Those of `pread`; [`io::ErrorKind::InvalidData`], [`io::ErrorKind::InvalidInput`] or
    /// [`io::ErrorKind::UnexpectedEof`] if a compressed stream is damaged; [`io::ErrorKind::FileTooLarge`] if it unpacks to more
    /// than any log does. All lines before were told; none comes after.
    pub fn next_block(&mut self) -> io::Result<Option<Block<'_>>> {
        self.at = self.position();
        self.uncounted = 0..0;
        let at = self.at;
        let found = self.advance();
        if !matches!(found, Ok(Some(Found::Lines { .. } | Found::TooLong))) {
            self.is_done = true;
        }
        let bytes = self.at.offset - at.offset;
        let (bytes, content) = match found? {
            None => return Ok(None),
            Some(Found::Lines { start, end }) => (bytes, Content::Lines(&self.buffer.bytes[start..end])),
            Some(Found::TooLong) => (bytes, Content::TooLong),
            Some(Found::Torn) => (to_u64(self.skipped.saturating_add(self.end - self.start)), Content::Torn),
        };
        Ok(Some(Block { nth: at.index, offset: at.offset, bytes, content, is_backwards: false }))
    }

    /// Where the next line begins: whoever follows a file goes on from there.
    #[must_use]
    pub fn position(&self) -> Position {
        let lines = count_newlines(&self.buffer.bytes[self.uncounted.clone()]);
        Position { index: self.at.index + lines, ..self.at }
    }

    /// Tells how many lines the last block had; else they are counted.
    pub(super) fn counted(&mut self, lines: u64) {
        self.at.index += lines;
        self.uncounted = 0..0;
    }

    fn advance(&mut self) -> io::Result<Option<Found>> {
        while !self.is_done {
            if let Some(found) = self.take_lines() {
                return Ok(Some(found));
            }
            // So much of a line without its end is too much.
            if self.skipped > 0 || self.end - self.start >= LINE_BYTES_MAX {
                self.skipped = self.skipped.saturating_add(self.end - self.start);
                self.end = self.start;
                self.skipped = self.skipped.saturating_add(to_usize(self.input.skip_hole()?));
            }
            self.buffer.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.scanned = self.end;
            let room = self.end + self.buffer.chunk_bytes;
            self.buffer.grow_to(room);
            match read_some(&mut self.input, &mut self.buffer.bytes[self.end..room])? {
                0 if self.end == 0 && self.skipped == 0 => return Ok(None),
                0 => return Ok(Some(Found::Torn)),
                some => self.end += some,
            }
        }
        Ok(None)
    }

    /// Takes the whole lines that are in the buffer, or the one that has grown too long.
    fn take_lines(&mut self) -> Option<Found> {
        let new = &self.buffer.bytes[self.scanned..self.end];
        let first = self.scanned + memchr(b'\n', new)?;
        let last = self.scanned + memrchr(b'\n', new)?;
        let start = self.start;
        // Only the first can be too long: the others lie within one chunk.
        let length = self.skipped.saturating_add(first + 1 - start);
        let (end, bytes, lines, found) = if length > LINE_BYTES_MAX {
            (first + 1, length, 1, Found::TooLong)
        } else {
            self.uncounted = start..last + 1;
            (last + 1, last + 1 - start, 0, Found::Lines { start, end: last + 1 })
        };
        (self.start, self.scanned, self.skipped) = (end, end, 0);
        self.at = Position { offset: self.at.offset + to_u64(bytes), index: self.at.index + lines };
        Some(found)
    }
}

/// What lies in the buffer.
enum Found {
    Lines { start: usize, end: usize },
    TooLong,
    Torn,
}

fn read_some(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn count_newlines(bytes: &[u8]) -> u64 {
    to_u64(memchr_iter(b'\n', bytes).count())
}

pub(super) fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a length in memory fits")
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use tempfile::TempDir;

    use super::super::listing::{Listing, Source};
    use super::*;

    const NAME: &str = "audit-0_19700101T000000.005Z.jsonl";

    /// A line as it was read; `None` for one that is too long, `Err` for a torn one.
    type Seen = (u64, u64, Result<Option<Vec<u8>>, ()>);

    /// A directory with one segment in it.
    struct One {
        temp: TempDir,
        sources: Sources,
        segment: Segment,
    }

    impl One {
        fn new(suffix: &str, content: &[u8]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            fs::write(temp.path().join(format!("{NAME}{suffix}")), content).unwrap();
            let source = Source { name: None, path: temp.path().to_owned(), workspace: None };
            let sources = Sources::new(vec![source]).unwrap();
            let segment = Listing::new(&sources).segments.remove(0);
            Self { temp, sources, segment }
        }

        fn path(&self, suffix: &str) -> PathBuf {
            self.temp.path().join(format!("{NAME}{suffix}"))
        }

        fn open(&self) -> OpenSegment {
            OpenSegment::open(&self.segment, &self.sources).unwrap().unwrap()
        }
    }

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    fn seen(block: &Block<'_>) -> Vec<Seen> {
        match block.content {
            Content::Lines(bytes) => {
                assert!(bytes.ends_with(b"\n"));
                block.lines().map(|line| (line.nth, line.offset, Ok(Some(line.bytes.to_vec())))).collect()
            }
            Content::TooLong => vec![(block.nth, block.offset, Ok(None))],
            Content::Torn => vec![(block.nth, block.offset, Err(()))],
        }
    }

    fn forwards(open: &OpenSegment, span: Span, buffer: &mut Buffer) -> io::Result<Vec<Seen>> {
        let mut all = Vec::new();
        let mut reader = open.forwards(span, buffer)?;
        let mut end = None;
        while let Some(block) = reader.next_block()? {
            assert!(end.is_none_or(|end| end == block.offset), "blocks lie one behind the other");
            end = Some(block.offset + block.bytes);
            all.extend(seen(&block));
        }
        assert!(reader.next_block()?.is_none());
        Ok(all)
    }

    /// The lines from the last to the first, but with the index in the place of `nth`.
    fn backwards(open: &OpenSegment, span: Span, buffer: &mut Buffer) -> Vec<Seen> {
        let mut all = Vec::new();
        let mut reader = open.backwards(span, buffer).unwrap();
        while let Some(block) = reader.next_block().unwrap() {
            all.extend(seen(&block));
        }
        let count = open.count_lines(span).unwrap();
        for line in &mut all {
            line.0 = span.from.index + count - 1 - line.0;
        }
        all
    }

    /// What there is to see, by the plainest means.
    fn naive(content: &[u8]) -> Vec<Seen> {
        let mut offset = 0;
        let split = content.split_inclusive(|&byte| byte == b'\n').zip(0..);
        let seen = split.map(|(line, index)| {
            let at = offset;
            offset += to_u64(line.len());
            let text = line.strip_suffix(b"\n").ok_or(());
            (index, at, text.map(|text| (line.len() <= LINE_BYTES_MAX).then(|| text.to_vec())))
        });
        seen.collect()
    }

    fn reversed(mut lines: Vec<Seen>) -> Vec<Seen> {
        lines.reverse();
        lines
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![Just(String::new()), "[a-z]{1,40}", "[a-z]{200,300}"];
        let torn = prop_oneof![Just(String::new()), "[a-z]{1,100}"];
        (prop::collection::vec(line, 0..30), torn).prop_map(|(lines, torn)| {
            let mut content: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            content.push_str(&torn);
            content.into_bytes()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn both_directions_tell_the_lines_of_a_naive_split(content in content(), chunk_bytes in 1..400_usize) {
            let (one, expected) = (One::new("", &content), naive(&content));
            let (open, buffer) = (one.open(), &mut Buffer::new(chunk_bytes));
            prop_assert_eq!(&forwards(&open, Span::ALL, buffer).unwrap(), &expected);
            prop_assert_eq!(backwards(&open, Span::ALL, buffer), reversed(expected));
        }

        #[test]
        fn compressed_segments_have_the_same_lines(content in content(), cut in 0..2000_usize, chunk_bytes in 1..400_usize) {
            let (expected, cut) = (naive(&content), cut.min(content.len()));
            for (suffix, pack) in [(".gz", gzipped as fn(&[u8]) -> Vec<u8>), (".zst", zstandard)] {
                // In two pieces, as whoever compresses a file by pieces leaves it.
                let one = One::new(suffix, &[pack(&content[..cut]), pack(&content[cut..])].concat());
                let (open, buffer) = (one.open(), &mut Buffer::new(chunk_bytes));
                prop_assert_eq!(&forwards(&open, Span::ALL, buffer).unwrap(), &expected, "{}", suffix);
                prop_assert_eq!(open.count_lines(Span::ALL).unwrap(), to_u64(expected.len()), "{}", suffix);
                prop_assert!(open.backwards(Span::ALL, buffer).is_none());
            }
        }

        #[test]
        fn a_span_holds_its_own_lines(content in content(), from in 0..40_usize, until in 0..3000_usize, pack: bool) {
            let all = naive(&content);
            let Some(&(index, offset, _)) = all.get(from) else { return Ok(()) };
            let until = until.clamp(usize::try_from(offset).unwrap(), content.len());
            let expected: Vec<_> = naive(&content[..until]).into_iter().skip(from).collect();
            let (suffix, bytes) = if pack { (".gz", gzipped(&content)) } else { ("", content) };
            let (one, buffer) = (One::new(suffix, &bytes), &mut Buffer::new(64));
            let span = Span { from: Position { offset, index }, until: to_u64(until) };
            prop_assert_eq!(&forwards(&one.open(), span, buffer).unwrap(), &expected);
            if !pack {
                prop_assert_eq!(backwards(&one.open(), span, buffer), reversed(expected));
            }
        }

        #[test]
        fn a_damaged_stream_is_told_and_never_a_panic(
            content in content(), at in 0..10_000_usize, byte in 1..=255_u8, cut: bool,
        ) {
            for (suffix, mut bytes) in [(".gz", gzipped(&content)), (".zst", zstandard(&content))] {
                let at = at % bytes.len();
                if cut {
                    bytes.truncate(at);
                } else {
                    bytes[at] ^= byte;
                }
                let one = One::new(suffix, &bytes);
                // A bit of a header may be one that does not matter; then nothing is lost.
                match forwards(&one.open(), Span::ALL, &mut Buffer::new(64)) {
                    Err(error) => drop(error),
                    Ok(lines) => prop_assert!(!cut && lines == naive(&content), "{} {}", suffix, at),
                }
            }
        }
    }

    #[test]
    fn a_line_of_more_than_2_mib_is_told_and_skipped() {
        let long = |bytes: usize| [vec![b'x'; bytes - 1], b"\n".to_vec()].concat();
        let (max, good) = (LINE_BYTES_MAX, b"good\n".to_vec());
        for content in [
            [good.clone(), long(3 << 20), good.clone()].concat(),
            [good.clone(), long(max - 1), long(max), long(max + 1), good.clone()].concat(),
            [long(max), long(max + 1), long(max + 1)].concat(),
            [long(max + 1), good.clone(), vec![b'y'; 3 << 20]].concat(),
            vec![b'y'; max + 1],
        ] {
            let (one, expected) = (One::new("", &content), naive(&content));
            let packed = One::new(".zst", &zstandard(&content));
            for chunk_bytes in [64 << 10, (1 << 20) + 1, max] {
                let buffer = &mut Buffer::new(chunk_bytes);
                // Not `assert_eq`, which would print megabytes.
                assert!(forwards(&one.open(), Span::ALL, buffer).unwrap() == expected, "{chunk_bytes}");
                assert!(forwards(&packed.open(), Span::ALL, buffer).unwrap() == expected, "{chunk_bytes}");
                assert!(backwards(&one.open(), Span::ALL, buffer) == reversed(expected.clone()), "{chunk_bytes}");
            }
        }
    }

    #[test]
    fn a_sparse_file_takes_no_memory() {
        let one = One::new("", b"good\n");
        let file = fs::OpenOptions::new().write(true).open(one.path("")).unwrap();
        file.set_len(512 << 20).unwrap();
        let expected = [(0, 0, Ok(Some(b"good".to_vec()))), (1, 5, Err(()))];
        let (open, buffer) = (one.open(), &mut Buffer::default());
        assert_eq!(forwards(&open, Span::ALL, buffer).unwrap(), expected);
        assert!(buffer.bytes.len() <= LINE_BYTES_MAX + CHUNK_BYTES);
        let mut reader = open.backwards(Span::ALL, buffer).unwrap();
        assert_eq!(seen(&reader.next_block().unwrap().unwrap()), [(0, 5, Err(()))]);
        assert_eq!(seen(&reader.next_block().unwrap().unwrap()), [(1, 0, Ok(Some(b"good".to_vec())))]);
        assert!(buffer.bytes.len() <= 2 * LINE_BYTES_MAX);
    }

    #[test]
    fn what_a_file_grows_by_meanwhile_is_not_read_and_a_follower_goes_on_there() {
        let one = One::new("", b"one\ntwo\ntor");
        let (open, buffer) = (one.open(), &mut Buffer::new(4));
        let mut file = fs::OpenOptions::new().append(true).open(one.path("")).unwrap();
        file.write_all(b"n\nfour\n").unwrap();
        let expected = naive(b"one\ntwo\ntor");
        assert_eq!(backwards(&open, Span::ALL, buffer), reversed(expected.clone()));
        assert_eq!(forwards(&open, Span::ALL, buffer).unwrap(), expected);
        let mut reader = open.forwards(Span::ALL, buffer).unwrap();
        while reader.next_block().unwrap().is_some() {}
        let from = reader.position();
        drop(reader);
        assert_eq!(from, Position { offset: 8, index: 2 });
        let rest = forwards(&one.open(), Span { from, until: u64::MAX }, buffer).unwrap();
        assert_eq!(rest, naive(b"one\ntwo\ntorn\nfour\n").split_off(2));
    }

    #[test]
    fn a_file_that_is_cut_meanwhile_is_read_as_far_as_it_goes() {
        let content = b"one\ntwo\nthree\nfour\nfive\n";
        for len in 0..content.len() {
            let (one, expected) = (One::new("", content), naive(&content[..len]));
            let open = one.open();
            fs::OpenOptions::new().write(true).open(one.path("")).unwrap().set_len(to_u64(len)).unwrap();
            for chunk_bytes in [1, 3, 100] {
                let buffer = &mut Buffer::new(chunk_bytes);
                assert_eq!(forwards(&open, Span::ALL, buffer).unwrap(), expected, "{len}");
                assert_eq!(backwards(&open, Span::ALL, buffer), reversed(expected.clone()), "{len}");
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_backwards_is_read_on_from_its_end() {
        let one = One::new("", b"one\ntwo\nthree\nfour\nfive\n");
        let (open, buffer) = (one.open(), &mut Buffer::new(6));
        let mut reader = open.backwards(Span::ALL, buffer).unwrap();
        assert_eq!(seen(&reader.next_block().unwrap().unwrap()), [(0, 19, Ok(Some(b"five".to_vec())))]);
        fs::OpenOptions::new().write(true).open(one.path("")).unwrap().set_len(10).unwrap();
        let mut rest = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            rest.extend(seen(&block));
        }
        assert_eq!(rest, [(1, 8, Err(())), (2, 4, Ok(Some(b"two".to_vec()))), (3, 0, Ok(Some(b"one".to_vec())))]);
    }

    #[test]
    fn a_segment_that_was_compressed_after_it_was_listed_is_opened_all_the_same() {
        let one = One::new("", b"one\n");
        fs::write(one.path(".zst"), zstandard(b"one\n")).unwrap();
        assert_eq!(one.open().compression(), Compression::Plain);
        fs::remove_file(one.path("")).unwrap();
        let open = one.open();
        assert_eq!((open.compression(), open.id() == one.segment.id), (Compression::Zstd, false));
        assert_eq!(forwards(&open, Span::ALL, &mut Buffer::default()).unwrap(), naive(b"one\n"));
        fs::remove_file(one.path(".zst")).unwrap();
        assert!(OpenSegment::open(&one.segment, &one.sources).unwrap().is_none());
    }

    #[test]
    fn what_has_become_a_link_or_a_fifo_is_not_read() {
        use rustix::fs::{CWD, FileType, Mode};
        let one = One::new("", b"one\n");
        fs::rename(one.path(""), one.path(".away")).unwrap();
        std::os::unix::fs::symlink(one.path(".away"), one.path("")).unwrap();
        assert!(OpenSegment::open(&one.segment, &one.sources).is_err());
        fs::remove_file(one.path("")).unwrap();
        rustix::fs::mknodat(CWD, one.path(""), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(OpenSegment::open(&one.segment, &one.sources).unwrap().is_none());
    }

    const TIB: u64 = 1 << 40;

    #[test]
    fn lines_around_holes_of_terabytes_are_read_in_both_directions() {
        let one = One::new("", b"one\n");
        let file = fs::OpenOptions::new().write(true).open(one.path("")).unwrap();
        for (offset, bytes) in [(TIB, &b"\ntwo\nx"[..]), (2 * TIB, b"y\nthree\n"), (3 * TIB, b"\nz")] {
            file.write_all_at(bytes, offset).unwrap();
        }
        file.set_len(4 * TIB).unwrap();
        let good = |text: &str| Ok(Some(text.as_bytes().to_vec()));
        let expected = vec![
            (0, 0, good("one")),
            (1, 4, Ok(None)),
            (2, TIB + 1, good("two")),
            (3, TIB + 5, Ok(None)),
            (4, 2 * TIB + 2, good("three")),
            (5, 2 * TIB + 8, Ok(None)),
            (6, 3 * TIB + 1, Err(())),
        ];
        for chunk_bytes in [64 << 10, CHUNK_BYTES, LINE_BYTES_MAX] {
            let (open, buffer) = (one.open(), &mut Buffer::new(chunk_bytes));
            assert_eq!(forwards(&open, Span::ALL, buffer).unwrap(), expected);
            assert_eq!(backwards(&open, Span::ALL, buffer), reversed(expected.clone()));
            assert_eq!(open.count_lines(Span::ALL).unwrap(), to_u64(expected.len()));
            assert!(buffer.bytes.len() <= 2 * LINE_BYTES_MAX);
        }
    }

    /// A frame of zeros: blocks of one repeated byte (RFC 8878 §3.1.1.2.3), 128 KiB in 4 bytes each.
    fn zeros(blocks: u32) -> Vec<u8> {
        let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
        for at in 1..=blocks {
            let header = (128 << 10 << 3) | 0b010 | u32::from(at == blocks);
            bytes.extend_from_slice(&header.to_le_bytes()[..3]);
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn a_compressed_stream_that_expands_without_end_takes_no_memory_and_is_not_read_to_it() {
        let mut bytes = zeros(2048);
        // 256 MiB, and then some.
        let (one, buffer) = (One::new(".zst", &bytes), &mut Buffer::default());
        assert_eq!(forwards(&one.open(), Span::ALL, buffer).unwrap(), [(0, 0, Err(()))]);
        assert!(buffer.bytes.len() <= LINE_BYTES_MAX + CHUNK_BYTES);
        let one = One::new(".zst", &[bytes.clone(), zstandard(b"\n")].concat());
        assert_eq!(forwards(&one.open(), Span::ALL, buffer).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // That is no more than 250 times the file's length: a frame to skip makes that 1.1 MB.
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18][..], &1_100_000_u32.to_le_bytes(), &vec![0; 1_100_000]].concat();
        let one = One::new(".zst", &[bytes.clone(), zstandard(b"\n"), skipped].concat());
        assert_eq!(forwards(&one.open(), Span::ALL, buffer).unwrap(), [(0, 0, Ok(None))]);
        // A window of 16 MiB is more than a reader has to have.
        bytes[5] = 0x70;
        let one = One::new(".zst", &bytes);
        assert_eq!(forwards(&one.open(), Span::ALL, buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_checksum_is_looked_at() {
        for (suffix, mut bytes, at) in [(".gz", gzipped(b"one\n"), 8), (".zst", zstandard(b"one\n"), 4)] {
            let at = bytes.len() - at;
            bytes[at] ^= 1;
            let error = forwards(&One::new(suffix, &bytes).open(), Span::ALL, &mut Buffer::default()).unwrap_err();
            assert!(
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput),
                "{suffix} {error}"
            );
        }
    }

    #[test]
    fn times_are_bounded_only_where_first_and_last_line_are_intact_and_in_order() {
        let ts = |line: &[u8]| Some(Timestamp::from_millis(std::str::from_utf8(line).ok()?.parse().ok()?));
        let bounds = |name: &str, content: &[u8]| {
            let bounds = One::new("", content).open().bounds(&name.parse().unwrap(), Span::ALL, ts).unwrap();
            bounds.map(|bounds| (bounds.first.millis(), bounds.last.millis()))
        };
        let long = [b"6\n".to_vec(), vec![b'x'; 9000], b"\n7\n".to_vec()].concat();
        for (content, expected) in [
            (&b"6\n9\n7\n"[..], Some((6, 7))),
            (b"5\n", Some((5, 5))),
            (b"4\n7\n", None),
            (b"7\n6\n", None),
            (b"", None),
            (b"6", None),
            (b"6\n7", None),
            (b"6\n\n", None),
            (b"\n6\n", None),
            (b"x\n6\n", None),
            (b"6\nx\n", None),
            (&long, Some((6, 7))),
        ] {
            assert_eq!(bounds(NAME, content), expected, "{:?}", String::from_utf8_lossy(content).get(..9));
        }
        assert_eq!(bounds("audit-0-1970-01-01.jsonl", b"6\n7\n"), None);
        let name = format!("{NAME}.gz").parse().unwrap();
        assert_eq!(One::new(".gz", &gzipped(b"6\n7\n")).open().bounds(&name, Span::ALL, ts).unwrap(), None);
    }
}

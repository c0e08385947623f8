//! A cheap look at a line that is like those before it.
//!
//! The lines of a segment differ little: they are of one job and workspace, and in one spelling. A line that goes on behind its time as
//! the last one did that was read in full, up to its event, needs no parser to tell its members from one another. What kills, power cuts
//! and other writers leave of a line does not pass: the look asks that
//!
//! - `ts`, `jobId` and `workspaceId` are spelt as they were, and `event` and `message` are whole strings;
//! - `meta` is an object, its brackets are in balance, and the line ends behind it: none is cut or has been added to;
//! - the line is UTF-8 without control characters, so without NUL bytes, and no bracket is opened right behind one that was closed, as
//!   where a second line begins in it.
//!
//! So all that a look leaves unseen is a fault in the JSON of `meta`, brackets in balance. Whatever does not pass takes the full parser:
//! it need not be damaged.

use std::borrow::Cow;

use super::marks::{MarkedLine, Marks, Strings};
use super::record::{LineStart, Record, canonical_ts, utf8};
use crate::record::json::{Scanner, Text};
use crate::record::{LINE_BYTES_MAX, Timestamp};

/// A block of whole lines that are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'b> {
    bytes: &'b [u8],
    marks: &'b Marks,
}

impl<'b> Sight<'b> {
    /// Sees the whole block at once; `None` if it has too many lines for that.
    pub(super) fn of(bytes: &'b [u8], marks: &'b mut Marks) -> Option<Self> {
        marks.read(bytes).then_some(Self { bytes, marks })
    }

    /// What was seen of its lines.
    pub(super) fn marks(&self) -> &'b Marks {
        self.marks
    }

    /// A line's bytes, without its newline.
    pub(super) fn bytes(&self, line: &MarkedLine) -> &'b [u8] {
        &self.bytes[line.start..line.end]
    }

    fn is_text(&self, line: &MarkedLine) -> bool {
        self.marks.is_text() || utf8(self.bytes(line)).is_some()
    }
}

/// How the lines of a segment go on behind their time.
#[derive(Debug, Default)]
pub(super) struct Likeness {
    /// Such as `,"jobId":"5003592","workspaceId":"651b3f72","event":"`; nothing before the first line was read in full.
    members: String,
    job_bytes: usize,
    workspace_bytes: usize,
    hour: Hour,
}

const JOB: &str = ",\"jobId\":\"";
const WORKSPACE: &str = "\",\"workspaceId\":\"";
const EVENT: &str = "\",\"event\":\"";
const MESSAGE: &[u8] = b"\",\"message\":\"";
const META: &[u8] = b"\",\"meta\":{";

impl Likeness {
    /// Remembers how a record is spelt; `false` if it is not remembered. Only records whose place this is may be: what is like them is no
    /// foreign line.
    pub(super) fn learn(&mut self, record: &Record<'_>) -> bool {
        // Those with escapes could be spelt in another way.
        let (Cow::Borrowed(job), Cow::Borrowed(workspace)) = (&record.job_id, &record.workspace_id) else {
            return false;
        };
        self.members.clear();
        self.members.extend([JOB, job, WORKSPACE, workspace, EVENT]);
        (self.job_bytes, self.workspace_bytes) = (job.len(), workspace.len());
        true
    }

    /// Tells where the members are of a line that passes the look. Its `meta` may hold what is no JSON.
    #[inline]
    pub(super) fn look<'b>(&mut self, sight: &Sight<'b>, at: &MarkedLine) -> Option<Look<'b>> {
        let line = sight.bytes(at);
        if !at.is_even || self.members.is_empty() || line.len() >= LINE_BYTES_MAX {
            return None;
        }
        let LineStart { at: ts, end } = self.hour.start(line)?;
        if !line[end..].starts_with(self.members.as_bytes()) {
            return None;
        }
        let event = Part::from(sight, at, end + self.members.len())?;
        if !line[event.end..].starts_with(MESSAGE) {
            return None;
        }
        let message = Part::from(sight, at, event.end + MESSAGE.len())?;
        let passes = line[message.end..].starts_with(META) && line.ends_with(b"}}") && sight.is_text(at);
        passes.then_some(Look { line, ts, event, message })
    }

    /// The record of a line that was looked at just now.
    pub(super) fn record<'b>(&'b self, sight: &Sight<'b>, at: &MarkedLine, look: &Look<'b>) -> Record<'b> {
        let Look { line, ts, event, message } = look;
        // What comes before is spelt as the members are. Of a whole number of blocks of 64 bytes nothing is copied to be seen.
        let is_start = |at: &usize| line[*at] & 0xC0 != 0x80;
        let before = event.start.checked_sub((line.len() - event.start).wrapping_neg() % 64).filter(is_start);
        let before = before.unwrap_or(event.start);
        let text = utf8(&line[before..]).expect("the look saw that it is");
        let workspace = JOB.len() + self.job_bytes + WORKSPACE.len();
        let meta = message.end + META.len() - 1;
        Record {
            line,
            ts: *ts,
            job_id: self.members[JOB.len()..][..self.job_bytes].into(),
            workspace_id: self.members[workspace..][..self.workspace_bytes].into(),
            event: event.text(text, before).value(),
            message: message.text(text, before),
            meta: &text[meta - before..text.len() - 1],
            is_compact: false,
            strings: Strings::at(sight.marks, at, at.start + meta),
        }
    }
}

/// What a look at a line has told.
#[derive(Debug)]
pub(super) struct Look<'b> {
    line: &'b [u8],
    /// The line's time.
    pub(super) ts: Timestamp,
    event: Part,
    message: Part,
}

impl Look<'_> {
    /// The line's event; `None` if it is spelt with escapes.
    pub(super) fn event(&self) -> Option<&[u8]> {
        (!self.event.is_escaped).then(|| &self.line[self.event.start..self.event.end])
    }
}

/// Where the value of a string is in a line.
#[derive(Debug)]
struct Part {
    start: usize,
    /// That of the quote behind it.
    end: usize,
    is_escaped: bool,
}

impl Part {
    /// The string whose value begins there, behind its quote.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "what is handed over in memory is waited for")]
    fn from(sight: &Sight<'_>, at: &MarkedLine, start: usize) -> Option<Self> {
        let (end, is_escaped) = match sight.marks.near_quote(at.start + start) {
            Some(end) if end < at.end => (end - at.start, false),
            Some(_) => return None,
            None => Self::long(sight, at, start)?,
        };
        Some(Self { start, end, is_escaped })
    }

    /// Where a string ends that is long or has escapes, and whether it has; its value begins there.
    #[inline(never)]
    fn long(sight: &Sight<'_>, at: &MarkedLine, start: usize) -> Option<(usize, bool)> {
        let line = sight.bytes(at);
        let (mut from, mut is_escaped) = (start, false);
        loop {
            let stop = sight.marks.stop_from(at.start + from) - at.start;
            if *line.get(stop)? == b'"' {
                return Some((stop, is_escaped));
            }
            match line.get(stop + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => (from, is_escaped) = (stop + 2, true),
                _ => return Self::scanned(utf8(line)?, start),
            }
        }
    }

    /// Where the string ends whose value begins there, with whatever escapes.
    fn scanned(text: &str, start: usize) -> Option<(usize, bool)> {
        let mut scanner = Scanner::over(&text[start - 1..]);
        let end = scanner.string("").map(|_| start - 1 + scanner.offset() - 1).ok()?;
        scanner.half_surrogate.is_none().then_some((end, true))
    }

    /// The string, of a line from a place on.
    fn text<'b>(&self, text: &'b str, before: usize) -> Text<'b> {
        Text::new(&text[self.start - before..self.end - before], self.is_escaped)
    }
}

/// The hour of the line before: most lines are of the same one, and differ in ten bytes of their time.
#[derive(Debug, Default)]
pub(super) struct Hour {
    /// Such as `{"ts":"2026-01-28T09:`.
    spelt: [u8; Self::BYTES],
    begins_ms: i64,
}

impl Hour {
    const BYTES: usize = "{\"ts\":\"2026-01-28T09:".len();
    const MINUTES: &[u8; 11] = b"00:00.000Z\"";
    const END: usize = Self::BYTES + Self::MINUTES.len();

    /// The time at the start of a line, as [`canonical_ts`] has it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "what it tells is not written to memory then")]
    pub(super) fn start(&mut self, line: &[u8]) -> Option<LineStart> {
        let end = Self::END;
        let of_this = |line: &[u8]| {
            let minutes: &[u8; Self::MINUTES.len()] = line.get(Self::BYTES..end)?.try_into().ok()?;
            let (most, [last, b'Z', b'"']) = minutes.split_first_chunk()? else { return None };
            // Bytes that are digits become their values, separators 0.
            let digits = u64::from_le_bytes(*most) ^ u64::from_le_bytes(*b"00:00.00");
            // What is greater than 9, or of a separator greater than 0, sets the high bit of its byte.
            let excess = digits.wrapping_add(u64::from_le_bytes([0x76, 0x76, 0x7F, 0x76, 0x76, 0x7F, 0x76, 0x76]));
            let is_spelt = (digits | excess) & u64::from_le_bytes([0x80; 8]) == 0 && last.is_ascii_digit();
            let digits = digits.to_le_bytes().map(i64::from);
            let (minute, second) = (digits[0] * 10 + digits[1], digits[3] * 10 + digits[4]);
            let ms = digits[6] * 100 + digits[7] * 10 + i64::from(last & 0xF);
            let ms = (minute * 60 + second) * 1000 + ms;
            (is_spelt && minute < 60 && second < 60).then(|| Timestamp::from_millis(self.begins_ms + ms))
        };
        if line.first_chunk() == Some(&self.spelt) {
            return of_this(line).map(|at| LineStart { at, end });
        }
        self.another(line)
    }

    #[inline(never)]
    fn another(&mut self, line: &[u8]) -> Option<LineStart> {
        let start = canonical_ts(line)?;
        if start.end == Self::END {
            self.spelt.copy_from_slice(&line[..Self::BYTES]);
            self.begins_ms = start.at.millis() / HOUR_MS * HOUR_MS;
        }
        Some(start)
    }
}

const HOUR_MS: i64 = 3_600_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::spelling::{Json, Spelling, any_model, damaged};

    const LINE: &str = concat!(
        r#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"5003592","workspaceId":"W","event":"DATA_EXPORT","#,
        r#""message":"Exported \"results\"","meta":{"files":["a",{"n":1.50}],"none":null}}"#
    );

    fn like(line: &str) -> Likeness {
        let mut likeness = Likeness::default();
        likeness.learn(&Record::parse(line.as_bytes()).unwrap());
        likeness
    }

    /// Looks at a line that stands alone, and among others; of those some may be no UTF-8.
    fn looks(likeness: &mut Likeness, line: &[u8], check: impl Fn(Option<Record<'_>>)) {
        for (before, behind) in [(&b""[..], &b""[..]), (b"{\"}\n\n", b"}\n"), (b"\xff\n", b"{\n")] {
            let (block, mut marks) = ([before, line, b"\n", behind].concat(), Marks::default());
            let sight = Sight::of(&block, &mut marks).unwrap();
            let at = sight.marks().lines().find(|at| at.start == before.len()).unwrap();
            let look = likeness.look(&sight, &at).filter(|_| sight.bytes(&at) == line);
            let is_compact = Record::parse(line).is_ok_and(|record| record.is_compact);
            check(look.map(|look| Record { is_compact, ..likeness.record(&sight, &at, &look) }));
        }
    }

    fn passes(likeness: &mut Likeness, line: &[u8]) -> bool {
        let all = std::cell::Cell::new([0, 0]);
        looks(likeness, line, |seen| {
            let [yes, no] = all.get();
            all.set(if seen.is_some() { [yes + 1, no] } else { [yes, no + 1] });
        });
        assert!(all.get().contains(&0), "the lines around it do not matter");
        all.get()[0] > 0
    }

    #[test]
    fn a_line_like_the_last_passes_and_is_the_record_that_the_parser_reads() {
        let other = LINE.replace("DATA_EXPORT", "caf\\u00e9").replace("09:12:44.381", "23:59:59.999");
        for line in [LINE, &other] {
            looks(&mut like(LINE), line.as_bytes(), |seen| assert_eq!(seen, Record::parse(line.as_bytes()).ok()));
        }
        assert!(!passes(&mut Likeness::default(), LINE.as_bytes()));
    }

    #[test]
    fn what_kills_power_cuts_and_other_writers_leave_does_not_pass() {
        let mut likeness = like(LINE);
        let mut passes = |line: &[u8]| passes(&mut likeness, line);
        assert!(passes(LINE.as_bytes()));
        for end in 0..LINE.len() {
            let torn = &LINE.as_bytes()[..end];
            assert!(!passes(torn), "cut at {end}");
            // The next line runs on, from the same or another process; or NUL bytes are in its place.
            let gone_on = [torn, LINE.as_bytes()].concat();
            assert!(torn.is_empty() || !passes(&gone_on), "cut at {end} and gone on");
            assert!(!passes(&[torn, &vec![0; LINE.len() - end]].concat()), "cut at {end} and filled");
        }
        assert!(!passes(&[LINE.as_bytes(), LINE.as_bytes()].concat()));
        for (from, to) in [
            ("}}", "}}}"),
            ("{\"files\"", "NaN{\"files\""),
            (":{\"files\"", "={\"files\""),
            ("}}", "},\"level\":\"info\"}"),
            ("}}", "},\"event\":\"X\"}"),
            ("\"DATA_EXPORT\"", "7"),
            ("2026-01-28", "2026-02-30"),
            ("\"5003592\"", "5003592"),
            ("5003592", "5003593"),
            ("\"W\"", "\"V\""),
            ("\"message\":\"Exported", "\"message\":\"Exported\t"),
        ] {
            assert!(!passes(LINE.replacen(from, to, 1).as_bytes()), "{to}");
        }
        let latin = LINE.as_bytes().iter().map(|byte| if *byte == b'E' { 0xE9 } else { *byte }).collect::<Vec<_>>();
        assert!(!passes(&latin));
    }

    #[test]
    fn a_time_is_the_same_by_the_hour_of_the_line_before() {
        let mut hour = Hour::default();
        for (ts, other) in [
            ("09:12:44.381", "09:12:44.382"),
            ("09:59:59.999", "09:60:00.000"),
            ("10:00:00.000", "10:00:60.000"),
            ("10:00:00.0x0", "10:00:0/.000"),
            ("10:00:00,000", "11:00:00.000"),
            ("11:00:00.001", "24:00:00.000"),
        ] {
            for ts in [ts, other, ts] {
                let line = LINE.replace("09:12:44.381", ts);
                assert_eq!(hour.start(line.as_bytes()), canonical_ts(line.as_bytes()), "{ts}");
            }
        }
        for end in 0..LINE.len() {
            assert_eq!(hour.start(&LINE.as_bytes()[..end]), canonical_ts(&LINE.as_bytes()[..end]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the look says of a record, the parser says too; of a damaged line it may say something where only `meta` is damaged.
        #[test]
        fn the_look_and_the_parser_agree(one in any_model(), mut other in any_model(), seed: u64, hurts: [u64; 2]) {
            (other.job_id, other.workspace_id) = (one.job_id.clone(), one.workspace_id.clone());
            other.meta = Json::Object(vec![("m".to_owned(), other.meta)]);
            for mut spelling in [Spelling::canonical(), Spelling::random(seed)] {
                let mut likeness = like(&one.spell(&mut Spelling::canonical()));
                let mut line = other.spell(&mut spelling).into_bytes();
                looks(&mut likeness, &line, |seen| {
                    if let Some(seen) = seen {
                        assert_eq!(Ok(seen), Record::parse(&line));
                    }
                });
                for hurt in hurts {
                    line = damaged(line, hurt);
                    looks(&mut likeness, &line, |seen| {
                        let Some(seen) = seen else { return };
                        let healed = [&line[..line.len() - seen.meta.len() - 1], b"{}}"].concat();
                        let parsed = Record::parse(&healed).unwrap();
                        assert_eq!((parsed.ts, &parsed.job_id, &parsed.workspace_id), (seen.ts, &seen.job_id, &seen.workspace_id));
                        assert_eq!((&parsed.event, parsed.message), (&seen.event, seen.message));
                    });
                }
            }
        }
    }
}

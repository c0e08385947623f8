//! A cheap look at a line that is like those before it.
//!
//! The lines of a segment differ little: they are of one job and workspace, and in one spelling. A line that goes on behind its time as
//! the last one did that was read in full, up to its event, needs no parser to tell its members from one another. What kills, power cuts
//! and other writers leave of a line does not pass: the look asks that
//!
//! - `ts`, `jobId` and `workspaceId` are spelt as they were, and `event` and `message` are whole strings;
//! - `meta` is an object, its brackets are in balance, and the line ends behind it: none is cut or has been added to;
//! - the line is UTF-8 without control characters, so without NUL bytes, and no second line's beginning is in it.
//!
//! So all that a look leaves unseen is a fault in the JSON of `meta`, brackets in balance. Whatever does not pass takes the full parser:
//! it need not be damaged.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::record::{LineStart, Record, canonical_ts, utf8};
use crate::record::json::Scanner;
use crate::record::{LINE_BYTES_MAX, Timestamp};

/// How the lines of a segment go on behind their time.
#[derive(Debug)]
pub(super) struct Likeness {
    /// Such as `,"jobId":"5003592","workspaceId":"651b3f72","event":"`; nothing before the first line was read in full.
    members: String,
    job_bytes: usize,
    workspace_bytes: usize,
    hour: Hour,
    second_line: Finder<'static>,
}

impl Default for Likeness {
    fn default() -> Self {
        let (members, hour) = (String::new(), Hour::default());
        Self { members, job_bytes: 0, workspace_bytes: 0, hour, second_line: Finder::new("}{\"ts\":") }
    }
}

const JOB: &str = ",\"jobId\":\"";
const WORKSPACE: &str = "\",\"workspaceId\":\"";
const EVENT: &str = "\",\"event\":\"";

impl Likeness {
    /// Remembers how a record is spelt. Only records whose place this is are remembered: what is like them is no foreign line.
    pub(super) fn learn(&mut self, record: &Record<'_>) {
        // Those with escapes could be spelt in another way.
        if let (Cow::Borrowed(job), Cow::Borrowed(workspace)) = (&record.job_id, &record.workspace_id) {
            self.members.clear();
            self.members.extend([JOB, job, WORKSPACE, workspace, EVENT]);
            (self.job_bytes, self.workspace_bytes) = (job.len(), workspace.len());
        }
    }

    /// The text of lines that are UTF-8 and hold no second line's beginning, seen of all of them at once.
    pub(super) fn clean<'b>(&self, lines: &'b [u8]) -> Option<&'b str> {
        utf8(lines).filter(|_| self.second_line.find(lines).is_none())
    }

    /// Tells the members of a line that passes the look; `clean` is its text if it was seen to be [`Likeness::clean`]. Its `meta` may hold
    /// what is no JSON.
    pub(super) fn look<'l>(&mut self, line: &'l [u8], clean: Option<&'l str>) -> Option<Record<'l>> {
        if self.members.is_empty() || line.len() >= LINE_BYTES_MAX {
            return None;
        }
        let LineStart { at: ts, end } = self.hour.start(line)?;
        if !line[end..].starts_with(self.members.as_bytes()) || !is_in_balance(&line[end..]) {
            return None;
        }
        let text = clean.or_else(|| self.clean(line))?;
        let members = &text[end..];
        let job_id = &members[JOB.len()..][..self.job_bytes];
        let workspace_id = &members[JOB.len() + self.job_bytes + WORKSPACE.len()..][..self.workspace_bytes];
        // The event's value begins behind its quote, which is the string's.
        let mut scanner = Scanner::over(&members[self.members.len() - 1..]);
        let event = scanner.string("").ok()?;
        if !scanner.takes(b",\"message\":") {
            return None;
        }
        let message = scanner.string("").ok()?;
        if !scanner.takes(b",\"meta\":") || scanner.half_surrogate.is_some() {
            return None;
        }
        let meta = scanner.rest().strip_suffix('}')?;
        if !meta.starts_with('{') || !meta.ends_with('}') {
            return None;
        }
        let (event, message) = (event.value(), message.value());
        Some(Record { line, ts, job_id: job_id.into(), workspace_id: workspace_id.into(), event, message, meta })
    }
}

/// The hour of the line before: most lines are of the same one, and differ in ten bytes of their time.
#[derive(Debug, Default)]
struct Hour {
    /// Such as `{"ts":"2026-01-28T09:`.
    spelt: [u8; Self::BYTES],
    begins_ms: i64,
}

impl Hour {
    const BYTES: usize = "{\"ts\":\"2026-01-28T09:".len();
    const MINUTES: &[u8; 11] = b"00:00.000Z\"";

    /// The time at the start of a line, as [`canonical_ts`] has it.
    fn start(&mut self, line: &[u8]) -> Option<LineStart> {
        let end = Self::BYTES + Self::MINUTES.len();
        let of_this = |line: &[u8]| {
            let minutes: &[u8; Self::MINUTES.len()] = line.get(Self::BYTES..end)?.try_into().ok()?;
            let digit = |at: usize| i64::from(minutes[at]) - i64::from(b'0');
            let is_spelt = minutes.iter().zip(Self::MINUTES).all(|(byte, like)| match like {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
            let (minute, second) = (digit(0) * 10 + digit(1), digit(3) * 10 + digit(4));
            let ms = ((minute * 60 + second) * 10 + digit(6)) * 100 + digit(7) * 10 + digit(8);
            (is_spelt && minute < 60 && second < 60).then(|| Timestamp::from_millis(self.begins_ms + ms))
        };
        if line.starts_with(&self.spelt) {
            return of_this(line).map(|at| LineStart { at, end });
        }
        let start = canonical_ts(line)?;
        if start.end == end {
            self.spelt.copy_from_slice(&line[..Self::BYTES]);
            self.begins_ms = start.at.millis() / HOUR_MS * HOUR_MS;
        }
        Some(start)
    }
}

const HOUR_MS: i64 = 3_600_000;

/// Whether a line, given from the end of its time on, closes as many brackets as it opens, and one more; and holds no control character.
/// Brackets in strings count, too: the full parser knows better.
// Apart from its caller, and in this form, compilers make vectors of it.
#[inline(never)]
fn is_in_balance(rest: &[u8]) -> bool {
    /// So often a lane can count before it overflows.
    const TIMES: usize = 120;
    let (blocks, tail) = rest.as_chunks();
    let mut end = [b' '; LANES];
    end[..tail.len()].copy_from_slice(tail);
    let (mut depths, mut least, mut depth) = ([0; LANES], [u8::MAX; LANES], 0);
    count_brackets(&end, &mut depths, &mut least);
    for blocks in blocks.chunks(TIMES) {
        for block in blocks {
            count_brackets(block, &mut depths, &mut least);
        }
        depth += depths.iter().map(|lane| i64::from(*lane)).sum::<i64>();
        depths = [0; LANES];
    }
    depth += depths.iter().map(|lane| i64::from(*lane)).sum::<i64>();
    // The brace that the line begins with stands before its time.
    depth == -1 && least.iter().all(|byte| *byte >= b' ')
}

/// What is counted at once, each byte in a lane of its own.
const LANES: usize = 32;

#[inline(always)]
#[expect(clippy::inline_always, reason = "its loop is the body of its caller's")]
fn count_brackets(block: &[u8; LANES], depths: &mut [i8; LANES], least: &mut [u8; LANES]) {
    for lane in 0..LANES {
        // The two kinds of brackets differ in this bit.
        let bracket = block[lane] | 0x20;
        depths[lane] += i8::from(bracket == b'{') - i8::from(bracket == b'}');
        least[lane] = least[lane].min(block[lane]);
    }
}

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

    #[test]
    fn a_line_like_the_last_passes_and_is_the_record_that_the_parser_reads() {
        let other = LINE.replace("DATA_EXPORT", "caf\\u00e9").replace("09:12:44.381", "23:59:59.999");
        for line in [LINE, &other] {
            assert_eq!(like(LINE).look(line.as_bytes(), None), Record::parse(line.as_bytes()).ok());
        }
        assert_eq!(Likeness::default().look(LINE.as_bytes(), None), None);
    }

    #[test]
    fn what_kills_power_cuts_and_other_writers_leave_does_not_pass() {
        let mut likeness = like(LINE);
        let mut passes = |line: &[u8]| likeness.look(line, None).is_some();
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
                let clean = likeness.clean(&line);
                prop_assert_eq!(likeness.look(&line, None), likeness.look(&line, clean));
                if let Some(seen) = likeness.look(&line, None) {
                    prop_assert_eq!(Ok(seen), Record::parse(&line));
                }
                for hurt in hurts {
                    line = damaged(line, hurt);
                    let Some(seen) = likeness.look(&line, None) else { continue };
                    let healed = [&line[..line.len() - seen.meta.len() - 1], b"{}}"].concat();
                    let parsed = Record::parse(&healed).unwrap();
                    prop_assert_eq!((parsed.ts, &parsed.job_id, &parsed.workspace_id), (seen.ts, &seen.job_id, &seen.workspace_id));
                    prop_assert_eq!((&parsed.event, &parsed.message), (&seen.event, &seen.message));
                }
            }
        }
    }
}

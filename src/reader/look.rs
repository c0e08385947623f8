//! A cheap look at a line that is like those before it.
//!
//! The lines of a segment differ little: they are of one job and workspace, and in one spelling. A line that goes on behind its time as
//! the last one did that was read in full, up to its event, needs no parser to tell its members from one another. What kills, power cuts
//! and other writers leave of a line does not pass: the look asks that
//!
//! - `ts`, `jobId` and `workspaceId` are spelt as they were, and `event` and `message` are whole strings;
//! - `meta` is an object, its brackets are in balance, and the line ends behind it: none is cut or has been added to;
//! - the line is UTF-8 without control characters, so without NUL bytes, and no `}{` is in it, where two lines would have run together.
//!
//! So all that a look leaves unseen is a fault in the JSON of `meta`, brackets in balance. Whatever does not pass takes the full parser:
//! it need not be damaged.

use std::borrow::Cow;

use super::record::{LineStart, Record, canonical_ts};
use crate::record::LINE_BYTES_MAX;
use crate::record::json::Scanner;

/// How the lines of a segment go on behind their time.
#[derive(Debug, Default)]
pub(super) struct Likeness {
    /// Such as `,"jobId":"5003592","workspaceId":"651b3f72","event":"`; nothing before the first line was read in full.
    members: String,
    job_bytes: usize,
    workspace_bytes: usize,
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

    /// Tells the members of a line that passes the look. Its `meta` may hold what is no JSON.
    pub(super) fn look<'l>(&self, line: &'l [u8]) -> Option<Record<'l>> {
        if self.members.is_empty() || line.len() >= LINE_BYTES_MAX {
            return None;
        }
        let LineStart { at: ts, end } = canonical_ts(line)?;
        if !line[end..].starts_with(self.members.as_bytes()) || !is_in_balance(&line[end..]) {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?;
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

/// Whether a line, given from the end of its time on, closes as many brackets as it opens, and one more; and holds neither a control
/// character nor `}{`. Brackets in strings count, too: the full parser knows better.
fn is_in_balance(rest: &[u8]) -> bool {
    /// So many are counted at once: no lane of the counts overflows.
    const BLOCK_BYTES: usize = 64;
    let (mut braces, mut brackets, mut is_odd) = (0_i64, 0_i64, false);
    for (block, next) in rest.chunks(BLOCK_BYTES).zip((1..).step_by(BLOCK_BYTES).map(|at| &rest[at.min(rest.len())..]))
    {
        let (mut open, mut square, mut odd) = (0_i8, 0_i8, false);
        for &byte in block {
            open += i8::from(byte == b'{') - i8::from(byte == b'}');
            square += i8::from(byte == b'[') - i8::from(byte == b']');
            odd |= byte < b' ';
        }
        for (&byte, &next) in block.iter().zip(next) {
            odd |= (byte, next) == (b'}', b'{');
        }
        braces += i64::from(open);
        brackets += i64::from(square);
        is_odd |= odd;
    }
    // The brace that the line begins with stands before its time.
    braces == -1 && brackets == 0 && !is_odd
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
            assert_eq!(like(LINE).look(line.as_bytes()), Record::parse(line.as_bytes()).ok());
        }
        assert_eq!(Likeness::default().look(LINE.as_bytes()), None);
    }

    #[test]
    fn what_kills_power_cuts_and_other_writers_leave_does_not_pass() {
        let likeness = like(LINE);
        let passes = |line: &[u8]| likeness.look(line).is_some();
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the look says of a record, the parser says too; of a damaged line it may say something where only `meta` is damaged.
        #[test]
        fn the_look_and_the_parser_agree(one in any_model(), mut other in any_model(), seed: u64, hurts: [u64; 2]) {
            (other.job_id, other.workspace_id) = (one.job_id.clone(), one.workspace_id.clone());
            other.meta = Json::Object(vec![("m".to_owned(), other.meta)]);
            for mut spelling in [Spelling::canonical(), Spelling::random(seed)] {
                let likeness = like(&one.spell(&mut Spelling::canonical()));
                let mut line = other.spell(&mut spelling).into_bytes();
                if let Some(seen) = likeness.look(&line) {
                    prop_assert_eq!(Ok(seen), Record::parse(&line));
                }
                for hurt in hurts {
                    line = damaged(line, hurt);
                    let Some(seen) = likeness.look(&line) else { continue };
                    let healed = [&line[..line.len() - seen.meta.len() - 1], b"{}}"].concat();
                    let parsed = Record::parse(&healed).unwrap();
                    prop_assert_eq!((parsed.ts, &parsed.job_id, &parsed.workspace_id), (seen.ts, &seen.job_id, &seen.workspace_id));
                    prop_assert_eq!((&parsed.event, &parsed.message), (&seen.event, &seen.message));
                }
            }
        }
    }
}

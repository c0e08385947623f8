//! One line becomes a record, or is damaged.
//!
//! Two readers give the same answer. The fast one takes lines as they are written: our six members in their order,
//! compact, with `ts` in 24 bytes or, as UCloud's own server writes it, an integer. It gives up at the first byte that
//! is spelt in another way, and the full one reads any JSON object of exactly these members.

use std::borrow::Cow;

use super::marks::Strings;
use crate::record::json::{self, Bad, Kind, Scanner, Stop, Text};
use crate::record::{LINE_BYTES_MAX, Timestamp};

/// A line of a segment, read.
///
/// ```
/// use audit_log::reader::record::Record;
///
/// let line = br#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"1","workspaceId":"w","event":"E","message":"","meta":{"a":1.0}}"#;
/// let record = Record::parse(line)?;
/// assert_eq!((&*record.event, record.meta), ("E", r#"{"a":1.0}"#));
/// # Ok::<(), audit_log::reader::record::Damage>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'l> {
    /// The line's own bytes, without the newline.
    pub line: &'l [u8],
    /// When it was written, by the sidecar's word.
    pub ts: Timestamp,
    /// Whose it is, by the sidecar's word.
    pub job_id: Cow<'l, str>,
    /// Whose it is, by the sidecar's word.
    pub workspace_id: Cow<'l, str>,
    /// What happened, by the job's word.
    pub event: Cow<'l, str>,
    /// See [`Record::message`].
    pub(super) message: Text<'l>,
    /// Any JSON value, at most 128 levels deep, as it is spelt in the line.
    pub meta: &'l str,
    /// `meta` is an array or object, there is no white space between its tokens, and no character that lines escape; else it is not known.
    pub(super) is_compact: bool,
    /// Those of `meta`.
    pub(super) strings: Strings<'l>,
}

/// Why a line is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Damage {
    /// With its newline it is longer than [`LINE_BYTES_MAX`].
    #[error("longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// It holds NUL bytes, as files do after a power cut.
    #[error("holds NUL bytes")]
    Nul,
    /// It is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// It is not one JSON text.
    #[error("not JSON")]
    NotJson,
    /// It is JSON, but no object of exactly our six members with values of their types.
    #[error("not a record")]
    NotARecord,
    /// It is what stands behind the last newline. [`Record::parse`], which sees no newlines, never says so.
    #[error("torn: without a newline")]
    Torn,
}

impl<'l> Record<'l> {
    /// What happened, for people; perhaps empty.
    #[must_use]
    pub fn message(&self) -> Cow<'l, str> {
        self.message.value()
    }

    /// Reads a line, given without its newline.
    ///
    /// The members may stand in any order and spelling, each once and no others. `ts` is an RFC 3339 string, or an
    /// integer of milliseconds, within the years 1970 to 9999; `meta` is any value; the others are strings. Half a
    /// surrogate pair (`\ud800`) is no string's: only in `meta`, which is kept as it is spelt, it may stand.
    ///
    /// # Errors
    /// The first [`Damage`] of these that is true: `TooLong`, `Nul`, `NotUtf8`, `NotJson`, `NotARecord`.
    pub fn parse(line: &'l [u8]) -> Result<Self, Damage> {
        if line.len() >= LINE_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        let Some(text) = utf8(line) else {
            return Err(if has_nul(line) { Damage::Nul } else { Damage::NotUtf8 });
        };
        Self::parse_text(text)
    }

    /// As [`Record::parse`], of a line that is UTF-8.
    pub(super) fn parse_text(text: &'l str) -> Result<Self, Damage> {
        if text.len() >= LINE_BYTES_MAX {
            return Err(Damage::TooLong);
        }
        parse_canonical(text).map_or_else(|| parse_any(text), Ok)
    }
}

/// The text of bytes that are UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

/// Reads a line in the spelling that is written, and gives up on any other.
fn parse_canonical(text: &str) -> Option<Record<'_>> {
    let ts = canonical_ts(text.as_bytes())?;
    let mut scanner = Scanner::over(&text[ts.end..]);
    let job_id = string_after(&mut scanner, b",\"jobId\":")?;
    let workspace_id = string_after(&mut scanner, b",\"workspaceId\":")?;
    let event = string_after(&mut scanner, b",\"event\":")?;
    let message = text_after(&mut scanner, b",\"message\":")?;
    if !scanner.takes(b",\"meta\":") {
        return None;
    }
    let meta = scanner.value().ok()?;
    let is_whole = scanner.takes(b"}") && scanner.rest().is_empty();
    let (line, ts, is_compact, meta) = (text.as_bytes(), ts.at, is_compact(&meta), meta.raw);
    let strings = Strings::default();
    is_whole.then_some(Record { line, ts, job_id, workspace_id, event, message, meta, is_compact, strings })
}

fn is_compact(meta: &json::Value<'_>) -> bool {
    meta.verbatim && matches!(meta.kind, Kind::Array | Kind::Object)
}

fn string_after<'l>(scanner: &mut Scanner<'l>, key: &[u8]) -> Option<Cow<'l, str>> {
    text_after(scanner, key).map(Text::value)
}

fn text_after<'l>(scanner: &mut Scanner<'l>, key: &[u8]) -> Option<Text<'l>> {
    if !scanner.takes(key) {
        return None;
    }
    let text = scanner.string("").ok()?;
    scanner.half_surrogate.is_none().then_some(text)
}

/// The time at the start of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineStart {
    pub(super) at: Timestamp,
    /// Where its value ends.
    pub(super) end: usize,
}

/// Reads `{"ts":"2026-01-28T09:12:44.381Z"` or `{"ts":1769591564381`, and no other spelling.
///
/// A record whose line begins so has this time, whatever its other members are.
pub(super) fn canonical_ts(line: &[u8]) -> Option<LineStart> {
    const HEAD: &[u8] = b"{\"ts\":";
    let rest = line.strip_prefix(HEAD)?;
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let (text, rest) = quoted.split_first_chunk()?;
        let at = Timestamp::parse_text(text).filter(|_| rest.first() == Some(&b'"'))?;
        return Some(LineStart { at, end: HEAD.len() + Timestamp::TEXT_BYTES + 2 });
    }
    // What follows the digits is the next token's, or makes another number of it.
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !matches!(rest.get(digits), Some(b',' | b'}')) {
        return None;
    }
    Some(LineStart { at: millis(&rest[..digits])?, end: HEAD.len() + digits })
}

/// Reads an integer of milliseconds within the years 1970 to 9999.
fn millis(digits: &[u8]) -> Option<Timestamp> {
    // 9999-12-31T23:59:59.999Z has 15 digits; a leading zero is not JSON, which the caller may not have seen yet.
    if !(1..=15).contains(&digits.len()) || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let millis =
        digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))?;
    (millis <= Timestamp::MAX.millis()).then(|| Timestamp::from_millis(millis))
}

/// Reads a line in any spelling.
fn parse_any(text: &str) -> Result<Record<'_>, Damage> {
    let mut scanner = Scanner::over(text);
    let mut members = Members::default();
    match members.read(&mut scanner) {
        Ok(()) => members.record(text).ok_or(Damage::NotARecord),
        Err(_) if has_nul(text.as_bytes()) => Err(Damage::Nul),
        Err(Stop::Bad(_)) => Err(Damage::NotJson),
        Err(Stop::TooDeep) => match scanner.whole_text_is_json() {
            Ok(()) => Err(Damage::NotARecord),
            Err(_) => Err(Damage::NotJson),
        },
    }
}

fn has_nul(line: &[u8]) -> bool {
    memchr::memchr(0, line).is_some()
}

/// The members met so far.
#[derive(Default)]
struct Members<'l> {
    ts: Option<Timestamp>,
    job_id: Option<Cow<'l, str>>,
    workspace_id: Option<Cow<'l, str>>,
    event: Option<Cow<'l, str>>,
    message: Option<Text<'l>>,
    meta: Option<json::Value<'l>>,
    /// Some member is none of ours, was there before or is of another type.
    is_other: bool,
}

impl<'l> Members<'l> {
    /// Reads the whole text, whatever its members are: one that ends badly is not JSON.
    fn read(&mut self, scanner: &mut Scanner<'l>) -> Result<(), Stop> {
        scanner.skip_space();
        if scanner.peek() != Some(b'{') {
            self.is_other = true;
            scanner.value()?;
            return Ok(scanner.end()?);
        }
        scanner.take(b'{', "expected an object")?;
        scanner.skip_space();
        if scanner.takes(b"}") {
            return Ok(scanner.end()?);
        }
        loop {
            self.member(scanner)?;
            scanner.skip_space();
            if scanner.takes(b"}") {
                return Ok(scanner.end()?);
            }
            scanner.take(b',', "expected `,` or `}`")?;
            scanner.skip_space();
        }
    }

    fn member(&mut self, scanner: &mut Scanner<'l>) -> Result<(), Stop> {
        let key = key(scanner)?;
        scanner.half_surrogate = None;
        let value = scanner.value()?;
        let string = match value.kind {
            Kind::String(text) if scanner.half_surrogate.is_none() => Some(text),
            _ => None,
        };
        // What a key replaces, and what it has in its place, is looked at alike: neither may be missing.
        let is_new = match (&*key.value(), string) {
            ("ts", string) => {
                let ts = match (value.kind, string) {
                    (Kind::Number, _) => millis(value.raw.as_bytes()),
                    (_, Some(text)) => instant(&text.value()),
                    _ => None,
                };
                ts.is_some_and(|ts| self.ts.replace(ts).is_none())
            }
            ("meta", _) => self.meta.replace(value).is_none(),
            ("jobId", Some(text)) => self.job_id.replace(text.value()).is_none(),
            ("workspaceId", Some(text)) => self.workspace_id.replace(text.value()).is_none(),
            ("event", Some(text)) => self.event.replace(text.value()).is_none(),
            ("message", Some(text)) => self.message.replace(text).is_none(),
            _ => false,
        };
        self.is_other |= !is_new;
        Ok(())
    }

    fn record(self, text: &'l str) -> Option<Record<'l>> {
        if self.is_other {
            return None;
        }
        Some(Record {
            line: text.as_bytes(),
            ts: self.ts?,
            job_id: self.job_id?,
            workspace_id: self.workspace_id?,
            event: self.event?,
            message: self.message?,
            meta: self.meta?.raw,
            is_compact: is_compact(&self.meta?),
            strings: Strings::default(),
        })
    }
}

/// Takes a member's name and the colon behind it.
fn key<'l>(scanner: &mut Scanner<'l>) -> Result<Text<'l>, Bad> {
    let key = scanner.string("expected a member's name in double quotes")?;
    scanner.skip_space();
    scanner.take(b':', "expected `:` after a member's name")?;
    scanner.skip_space();
    Ok(key)
}

/// Reads an RFC 3339 instant of the years 1970 to 9999; unlike [`Timestamp::parse_rfc3339`] it moves none there.
fn instant(text: &str) -> Option<Timestamp> {
    let millis = chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis();
    (0..=Timestamp::MAX.millis()).contains(&millis).then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::spelling::{Model, Spelling, any_model, damaged};

    const WRITTEN: &str = r#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"5003592","workspaceId":"651b3f72","event":"DATA_EXPORT","message":"Exported \"results\"","meta":{"rows":12500}}"#;

    fn parse(line: &str) -> Result<Record<'_>, Damage> {
        Record::parse(line.as_bytes())
    }

    /// A line whose `meta` is this, whose other members are short.
    fn with_meta(meta: &str) -> String {
        format!(r#"{{"ts":0,"jobId":"j","workspaceId":"w","event":"e","message":"","meta":{meta}}}"#)
    }

    #[test]
    fn the_documented_line_is_read_by_the_fast_path() {
        let ucloud = WRITTEN.replace("\"2026-01-28T09:12:44.381Z\"", "1769591564381");
        for line in [WRITTEN, &ucloud] {
            let record = parse_canonical(line).expect("canonical");
            assert_eq!(record.ts.to_string(), "2026-01-28T09:12:44.381Z");
            assert_eq!((&*record.job_id, &*record.workspace_id), ("5003592", "651b3f72"));
            assert_eq!((&*record.event, &*record.message()), ("DATA_EXPORT", "Exported \"results\""));
            assert_eq!((record.meta, record.line), ("{\"rows\":12500}", line.as_bytes()));
            assert_eq!(parse(line), Ok(record));
        }
    }

    #[test]
    fn each_damage_is_told_as_what_it_is() {
        let twice = WRITTEN.replace("\"jobId\"", "\"\\u0065vent\"");
        let missing = WRITTEN.replace(",\"meta\":{\"rows\":12500}", "");
        let more = WRITTEN.replace("\"meta\"", "\"x\":1,\"meta\"");
        let null = WRITTEN.replace("\"DATA_EXPORT\"", "null");
        let half = WRITTEN.replace("DATA_EXPORT", "\\ud800");
        for line in ["[]", "1", "{}", &twice, &missing, &more, &null, &half] {
            assert_eq!(parse(line), Err(Damage::NotARecord), "{line}");
        }
        let second = format!("{WRITTEN}{WRITTEN}");
        for line in ["", " ", "x", "{", "\u{feff}{}", &WRITTEN[..40], &WRITTEN[1..], &second, &format!("{more}}}")] {
            assert_eq!(parse(line), Err(Damage::NotJson), "{line}");
        }
        assert_eq!(Record::parse(b"{\xff}"), Err(Damage::NotUtf8));
        for line in [&b"\0\0\0"[..], b"{\"ts\":\0\0", b"\xff\0"] {
            assert_eq!(Record::parse(line), Err(Damage::Nul));
        }
    }

    #[test]
    fn a_time_is_an_instant_from_1970_to_9999_in_either_spelling() {
        let at = |ts: &str| {
            parse(&with_meta("1").replace("\"ts\":0", &format!("\"ts\":{ts}"))).map(|record| record.ts.millis())
        };
        for (ts, millis) in [
            ("0", 0),
            ("253402300799999", 253_402_300_799_999),
            ("\"1970-01-01T00:00:00Z\"", 0),
            ("\"2026-01-28T10:12:44.3819+01:00\"", 1_769_591_564_381),
            ("\"2000-02-29T23:59:59.999Z\"", 951_868_799_999),
            ("\"2016-12-31T23:59:60.000Z\"", 1_483_228_800_000),
        ] {
            assert_eq!(at(ts), Ok(millis), "{ts}");
        }
        for ts in [
            "253402300800000",
            "999999999999999",
            "1e3",
            "1.0",
            "-1",
            "-0",
            "null",
            "\"\"",
            "\"2026-01-28\"",
            "\"1769591564381\"",
            "\"1969-12-31T23:59:59.999Z\"",
            "\"2025-02-29T00:00:00.000Z\"",
            "\"2026-04-31T00:00:00.000Z\"",
            "\"2026-01-28T24:00:00.000Z\"",
            "\"2100-02-29T00:00:00.000Z\"",
        ] {
            assert_eq!(at(ts), Err(Damage::NotARecord), "{ts}");
        }
        for ts in ["01", "1.", "1 2", ""] {
            assert_eq!(at(ts), Err(Damage::NotJson), "{ts}");
        }
    }

    #[test]
    fn meta_nests_128_deep_and_no_deeper() {
        let nested = |depth: usize| with_meta(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        assert!(parse(&nested(127)).is_ok());
        assert!(parse(&nested(128)).is_ok());
        assert_eq!(parse(&nested(129)), Err(Damage::NotARecord));
        assert_eq!(parse(&nested(100_000)), Err(Damage::NotARecord));
        assert_eq!(parse(&with_meta(&"[".repeat(200))), Err(Damage::NotJson));
        assert!(parse(&nested(128).replace(":[", ": [")).is_ok());
    }

    #[test]
    fn a_line_is_as_long_as_the_longest_that_is_written() {
        let fixed = with_meta("\"\"").len() + 1;
        let line = |bytes: usize| with_meta(&format!("\"{}\"", "x".repeat(bytes - fixed)));
        assert!(parse(&line(LINE_BYTES_MAX - 1)).is_ok());
        assert!(parse(&line(LINE_BYTES_MAX)).is_ok());
        assert_eq!(parse(&line(LINE_BYTES_MAX + 1)), Err(Damage::TooLong));
        assert_eq!(Record::parse(&vec![0; LINE_BYTES_MAX]), Err(Damage::TooLong));
    }

    /// What both paths say of a text, which must be the same wherever the fast one says anything.
    fn both_paths_agree(line: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(text) = std::str::from_utf8(line)
            && let Some(fast) = parse_canonical(text)
        {
            prop_assert_eq!(Ok(fast), parse_any(text));
        }
        Ok(())
    }

    /// What an independent parser says of a line, but for members that stand twice and times that are none.
    fn is_record(line: &[u8]) -> bool {
        type Members<'l> = std::collections::BTreeMap<String, &'l serde_json::value::RawValue>;
        let Ok(members) = serde_json::from_slice::<Members<'_>>(line) else { return false };
        let raw = |name: &str| members.get(name).map_or("", |value| value.get());
        let is_string = |name: &str| serde_json::from_str::<String>(raw(name)).is_ok();
        members.len() == 6
            && members.contains_key("meta")
            && (is_string("ts") || raw("ts").parse().is_ok_and(|millis: i64| millis <= Timestamp::MAX.millis()))
            && ["jobId", "workspaceId", "event", "message"].into_iter().all(is_string)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

        #[test]
        fn a_record_is_the_same_in_every_spelling(model in any_model(), seed: u64) {
            let canonical = model.spell(&mut Spelling::canonical());
            let other = model.spell(&mut Spelling::random(seed));
            prop_assert!(parse_canonical(&canonical).is_some(), "{}", canonical);
            for line in [&canonical, &other] {
                both_paths_agree(line.as_bytes())?;
                let record = parse(line).map_err(|damage| TestCaseError::fail(format!("{damage}: {line}")))?;
                let Model { ts, job_id, workspace_id, event, message, .. } = &model;
                prop_assert_eq!(record.ts, *ts);
                prop_assert_eq!((&*record.job_id, &*record.workspace_id), (&**job_id, &**workspace_id));
                prop_assert_eq!((&*record.event, &*record.message()), (&**event, &**message));
            }
        }

        #[test]
        fn damaged_lines_are_damaged_on_both_paths(model in any_model(), seed: u64, hurts: [u64; 3]) {
            for mut spelling in [Spelling::canonical(), Spelling::random(seed)] {
                let mut line = model.spell(&mut spelling).into_bytes();
                for hurt in hurts {
                    line = damaged(line, hurt);
                    both_paths_agree(&line)?;
                    let parsed = Record::parse(&line);
                    if parsed.is_ok() {
                        prop_assert!(is_record(&line), "{}", String::from_utf8_lossy(&line));
                    } else if is_record(&line) {
                        // Times that are none, and members that a parser of values takes twice.
                        prop_assert_eq!(parsed, Err(Damage::NotARecord));
                    }
                }
            }
        }
    }
}

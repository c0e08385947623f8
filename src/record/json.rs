//! One pass over a JSON text (RFC 8259) that validates it and keeps the client's bytes.
//!
//! A JSON library gives values; an audit log needs the bytes: digits of numbers, order and repetition of keys,
//! escapes. So this scanner hands out slices of the input, and notes on the way what must be known of them: whether
//! a string holds escapes, whether a value can be copied as it is, how deep it nests. What it accepts is exactly what
//! `serde_json` accepts (a property test compares them), half surrogate pairs apart: those are JSON by the grammar,
//! but no string, and are reported as such.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Why a body is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The bytes are not JSON in UTF-8.
    #[error("{0}")]
    NotJson(Fault),
    /// It is JSON, but not an event.
    #[error("{0}")]
    NotAnEvent(Fault),
}

impl EventError {
    /// What is wrong, and where.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        match self {
            Self::NotJson(fault) | Self::NotAnEvent(fault) => fault,
        }
    }
}

/// What is wrong and where, in words of ours only: it never repeats the client's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong and, where there is a usual reason, what to do about it.
    pub what: Cow<'static, str>,
    /// The line, from 1.
    pub line: usize,
    /// The character of that line, from 1.
    pub column: usize,
}

impl Fault {
    /// Makes a fault at a byte of the text, which need not be UTF-8 from there on.
    pub(crate) fn at(text: &[u8], offset: usize, what: impl Into<Cow<'static, str>>) -> Self {
        let before = &text[..offset.min(text.len())];
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        Self {
            what: what.into(),
            line: before.split(|&b| b == b'\n').count(),
            // Continuation bytes do not begin a character.
            column: before[line_start..].iter().filter(|&&b| b & 0xC0 != 0x80).count() + 1,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (line {}, column {})", self.what, self.line, self.column)
    }
}

/// A string of the text, without its quotes. Equal are those of one value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl Eq for Text<'_> {}

impl<'a> Text<'a> {
    /// A string that was found, as it is spelt between its quotes, and whether there are escapes in it.
    pub(crate) fn new(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// Whether it is the string's value.
    pub(crate) fn is(self, value: &str) -> bool {
        // Most differ in their length or first byte, which takes no call.
        let is_near = || self.raw.len() == value.len() && self.raw.as_bytes().first() == value.as_bytes().first();
        if self.escaped { self.value() == value } else { is_near() && self.raw == value }
    }

    /// The string's value, with U+FFFD for each half of a surrogate pair that stands alone.
    #[inline]
    pub(crate) fn value(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(self.unescaped()) } else { Cow::Borrowed(self.raw) }
    }

    #[inline(never)]
    fn unescaped(self) -> String {
        let mut value = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(backslash) = memchr::memchr(b'\\', rest.as_bytes()) {
            let (before, escape) = (&rest[..backslash], &rest[backslash + 1..]);
            value.push_str(before);
            let (char, length) = unescape(escape);
            value.push(char);
            rest = escape.get(length..).unwrap_or_default();
        }
        value.push_str(rest);
        value
    }
}

/// The character of an escape, whose text begins behind the backslash, and that text's bytes.
fn unescape(escape: &str) -> (char, usize) {
    let bytes = escape.as_bytes();
    let char = match bytes.first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = |at: usize| bytes.get(at..).and_then(hex4);
            let (Some(first), second) = (unit(1), unit(7).filter(|_| bytes.get(5..7) == Some(b"\\u"))) else {
                return (char::REPLACEMENT_CHARACTER, 1);
            };
            return match char::decode_utf16([first].into_iter().chain(second)).next() {
                Some(Ok(char)) if char.len_utf16() == 2 => (char, 11),
                Some(Ok(char)) => (char, 5),
                _ => (char::REPLACEMENT_CHARACTER, 5),
            };
        }
        Some(&other) => char::from(other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (char, 1)
}

/// A value of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    /// The client's bytes.
    pub(crate) raw: &'a str,
    /// Where they begin.
    pub(crate) offset: usize,
    pub(crate) kind: Kind<'a>,
    /// There is neither white space between the tokens nor a character that must be escaped.
    pub(crate) verbatim: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    Null,
    Boolean,
    Number,
    String(Text<'a>),
    Array,
    Object,
}

impl Kind<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Number => "a number",
            Self::String(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// Levels of nesting that the scanner follows itself.
pub(crate) const DEPTH_MAX: u32 = 128;

/// A reader over one JSON text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    /// Where the first half of a surrogate pair stands alone.
    pub(crate) half_surrogate: Option<usize>,
    /// A character that lines must escape was seen in the present value.
    special: bool,
}

/// A fault of syntax at a byte offset.
#[derive(Debug)]
pub(crate) struct Bad {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

/// Why a value could not be scanned.
#[derive(Debug)]
pub(crate) enum Stop {
    Bad(Bad),
    /// The value nests deeper than [`DEPTH_MAX`]; the rest of the text was not looked at.
    TooDeep,
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl<'a> Scanner<'a> {
    /// Begins with a body, which must be UTF-8 without a byte order mark.
    pub(crate) fn new(body: &'a [u8]) -> Result<Self, Bad> {
        if body.starts_with(b"\xEF\xBB\xBF") {
            return Err(Bad { offset: 0, what: "a byte order mark; send UTF-8 without one" });
        }
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Self::over(text)),
            Err(error) => Err(Bad { offset: error.valid_up_to(), what: name_the_encoding(body, error.valid_up_to()) }),
        }
    }

    /// Begins with a text.
    pub(crate) fn over(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), pos: 0, half_surrogate: None, special: false }
    }

    pub(crate) fn offset(&self) -> usize {
        self.pos
    }

    /// Takes `bytes`, which are ASCII, if they stand here.
    pub(crate) fn takes(&mut self, bytes: &[u8]) -> bool {
        let stand_here = self.bytes[self.pos..].starts_with(bytes);
        self.pos += if stand_here { bytes.len() } else { 0 };
        stand_here
    }

    /// What is not yet scanned.
    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// Skips white space; returns whether there was some.
    pub(crate) fn skip_space(&mut self) -> bool {
        let start = self.pos;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
        self.pos > start
    }

    /// Takes `byte`, or fails with `what`.
    pub(crate) fn take(&mut self, byte: u8, what: &'static str) -> Result<(), Bad> {
        if self.peek() == Some(byte) {
            self.pos += 1;
            Ok(())
        } else {
            Err(self.unexpected(what))
        }
    }

    /// Fails if anything but white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Bad> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(b'{') => Err(self.bad("a second JSON text; send many events as application/x-ndjson, one a line")),
            Some(_) => Err(self.bad("bytes after the end of the JSON text")),
        }
    }

    pub(crate) fn bad(&self, what: &'static str) -> Bad {
        Bad { offset: self.pos, what }
    }

    /// The fault at a place where `what` was expected, with the usual slips named as such.
    fn unexpected(&self, what: &'static str) -> Bad {
        let rest = &self.bytes[self.pos..];
        self.bad(match rest.first() {
            None => "the JSON text ends too early",
            Some(b'\'') => "a single quote; JSON strings stand in double quotes",
            Some(b'/' | b'#') => "a comment; JSON has none",
            Some(b'\0') => "a NUL byte; is the body UTF-16? send UTF-8",
            _ if rest.starts_with(b"NaN") => "NaN is not JSON; send null or a string",
            _ if rest.starts_with(b"Infinity") || rest.starts_with(b"-Infinity") => {
                "Infinity is not JSON; send null or a string"
            }
            _ if [&b"True"[..], b"False", b"None"].iter().any(|word| rest.starts_with(word)) => {
                "a Python literal; JSON spells it true, false or null"
            }
            _ if rest.starts_with(b"undefined") => "undefined is not JSON; leave the member out or send null",
            Some(b'}' | b']') if self.after_comma() => "a comma before the closing bracket",
            Some(_) => what,
        })
    }

    fn after_comma(&self) -> bool {
        self.bytes[..self.pos].iter().rev().find(|b| !b.is_ascii_whitespace()) == Some(&b',')
    }

    /// Scans one value that begins here.
    pub(crate) fn value(&mut self) -> Result<Value<'a>, Stop> {
        let offset = self.pos;
        self.special = false;
        let mut spaced = false;
        let kind = match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            _ => self.scalar()?,
        };
        if matches!(kind, Kind::Object | Kind::Array) {
            self.nested(&mut spaced)?;
        }
        let raw = &self.text[offset..self.pos];
        Ok(Value { raw, offset, kind, verbatim: !spaced && !self.special })
    }

    /// Scans an array or object without recursion: bit n of `objects` says what level n is.
    fn nested(&mut self, spaced: &mut bool) -> Result<(), Stop> {
        let mut objects = 0u128;
        let mut depth = 0;
        loop {
            // A value begins here.
            let open = self.peek();
            if let Some(bracket @ (b'{' | b'[')) = open {
                if depth == DEPTH_MAX {
                    return Err(Stop::TooDeep);
                }
                self.pos += 1;
                let is_object = bracket == b'{';
                objects = objects << 1 | u128::from(is_object);
                depth += 1;
                *spaced |= self.skip_space();
                if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                    self.pos += 1;
                    objects >>= 1;
                    depth -= 1;
                } else {
                    if is_object {
                        self.key(spaced)?;
                    }
                    continue;
                }
            } else {
                self.scalar()?;
            }
            // A value has ended: close what closes here, or go on to the next.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                *spaced |= self.skip_space();
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.pos += 1;
                        *spaced |= self.skip_space();
                        if in_object {
                            self.key(spaced)?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => self.pos += 1,
                    Some(b']') if !in_object => self.pos += 1,
                    _ if in_object => return Err(self.unexpected("expected `,` or `}`").into()),
                    _ => return Err(self.unexpected("expected `,` or `]`").into()),
                }
                objects >>= 1;
                depth -= 1;
            }
        }
    }

    fn key(&mut self, spaced: &mut bool) -> Result<(), Bad> {
        self.string("expected a member's name in double quotes")?;
        *spaced |= self.skip_space();
        self.take(b':', "expected `:` after a member's name")?;
        *spaced |= self.skip_space();
        Ok(())
    }

    fn scalar(&mut self) -> Result<Kind<'a>, Bad> {
        match self.peek() {
            Some(b'"') => self.string("").map(Kind::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            _ => {
                for (word, kind) in [("true", Kind::Boolean), ("false", Kind::Boolean), ("null", Kind::Null)] {
                    if self.bytes[self.pos..].starts_with(word.as_bytes()) {
                        self.pos += word.len();
                        return Ok(kind);
                    }
                }
                Err(self.unexpected("expected a JSON value"))
            }
        }
    }

    fn number(&mut self) -> Result<(), Bad> {
        if self.bytes[self.pos..].starts_with(b"-I") {
            return Err(self.unexpected("expected a digit"));
        }
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        if self.peek() == Some(b'0') {
            self.pos += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.bad("a number with a leading zero; send it as a string"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Bad> {
        let start = self.pos;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
        if self.pos == start { Err(self.unexpected("expected a digit")) } else { Ok(()) }
    }

    /// Scans a string that begins here; `what` is the fault if none does.
    #[inline]
    pub(crate) fn string(&mut self, what: &'static str) -> Result<Text<'a>, Bad> {
        self.take(b'"', what)?;
        let start = self.pos;
        self.pos += plain_run(&self.bytes[start..]);
        if self.peek() != Some(b'"') {
            return self.string_from(start);
        }
        self.pos += 1;
        Ok(Text { raw: &self.text[start..self.pos - 1], escaped: false })
    }

    /// Scans the rest of a string that is not plain.
    fn string_from(&mut self, start: usize) -> Result<Text<'a>, Bad> {
        let mut escaped = false;
        loop {
            self.pos += plain_run(&self.bytes[self.pos..]);
            let Some(&byte) = self.bytes.get(self.pos) else {
                return Err(self.bad("the JSON text ends within a string"));
            };
            match byte {
                b'"' => {
                    let raw = &self.text[start..self.pos];
                    self.pos += 1;
                    return Ok(Text { raw, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                b'\n' | b'\r' => {
                    return Err(self.bad("a line break within a string; write it as \\n"));
                }
                0..0x20 => return Err(self.bad("a control character within a string; write it as \\uXXXX")),
                _ => {
                    self.special |= special_bytes(&self.bytes[self.pos..]) > 0;
                    self.pos += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<(), Bad> {
        let start = self.pos;
        match self.bytes.get(start + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let unit = self.code_unit()?;
                let low_follows = || {
                    self.bytes[self.pos..].starts_with(b"\\u")
                        && hex4(&self.bytes[self.pos + 2..]).is_some_and(|unit| (0xDC00..=0xDFFF).contains(&unit))
                };
                match unit {
                    0xD800..=0xDBFF if low_follows() => self.pos += 6,
                    0xD800..=0xDFFF if self.half_surrogate.is_none() => self.half_surrogate = Some(start),
                    _ => {}
                }
            }
            Some(_) => return Err(self.bad("an escape that JSON does not have; a backslash is written \\\\")),
            None => return Err(self.bad("the JSON text ends within a string")),
        }
        Ok(())
    }

    /// Takes `\uXXXX`.
    fn code_unit(&mut self) -> Result<u16, Bad> {
        let unit = hex4(&self.bytes[self.pos + 2..]).ok_or_else(|| self.bad("\\u without four hexadecimal digits"))?;
        self.pos += 6;
        Ok(unit)
    }

    /// Whether the whole text is JSON, however deep it nests; for texts that the scanner gave up as too deep.
    pub(crate) fn whole_text_is_json(&self) -> Result<(), Bad> {
        match serde_json::from_str::<&RawValue>(self.text) {
            Ok(_) => Ok(()),
            Err(error) => {
                let line_start: usize = self.text.split_inclusive('\n').take(error.line() - 1).map(str::len).sum();
                Err(Bad { offset: line_start + error.column().saturating_sub(1), what: "the text is not JSON" })
            }
        }
    }
}

fn hex4(bytes: &[u8]) -> Option<u16> {
    bytes.get(..4)?.iter().try_fold(0u16, |unit, &b| {
        let digit = char::from(b).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

fn name_the_encoding(body: &[u8], offset: usize) -> &'static str {
    let tail = &body[offset..];
    if body.starts_with(b"\xFF\xFE") || body.starts_with(b"\xFE\xFF") {
        return "not UTF-8 but, by its byte order mark, UTF-16; send UTF-8";
    }
    // A lone byte from 0xA0 on with ASCII behind it is how Latin-1 spells its letters.
    match (tail.first(), tail.get(1)) {
        (Some(0xA0..), Some(0..0x80)) => "not UTF-8; the byte looks like Latin-1, send UTF-8",
        (Some(0x80..0xA0), Some(0..0x80)) => "not UTF-8; the byte looks like Windows-1252, send UTF-8",
        _ => "not UTF-8",
    }
}

/// Bytes that a string can hold without a second look.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    // The first bytes of what lines write as `\uXXXX`, see `special_bytes`.
    plain[0x7F] = false;
    plain[0xC2] = false;
    plain[0xE2] = false;
    plain
};

/// How many bytes at the start of `bytes` are [`PLAIN`]; looks at eight at a time.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    let is_plain = |run: &usize| bytes.get(*run).is_some_and(|&byte| PLAIN[usize::from(byte)]);
    let mut run = 0;
    while let Some(word) = bytes[run..].first_chunk() {
        match first_stop(u64::from_le_bytes(*word)) {
            8 => run += 8,
            stop => {
                run += stop;
                if !is_plain(&run) {
                    return run;
                }
                // A character that is not ASCII, and those of its kind behind it.
                while is_plain(&run) && !bytes[run].is_ascii() {
                    run += 1;
                }
            }
        }
    }
    (run..bytes.len()).find(|run| !is_plain(run)).unwrap_or(bytes.len())
}

/// The first of eight bytes that is not both plain and ASCII, counted from the lowest; 8 if there is none.
fn first_stop(word: u64) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Sets the high bit of the lowest byte for which it is true. What it does to bytes above that does not matter.
    let below = |word: u64, byte: u8| word.wrapping_sub(ONES * u64::from(byte)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    // One more than 0x7F sets it, too.
    let stops = (word | word.wrapping_add(ONES) | below(word, b' ') | is(b'"') | is(b'\\')) & HIGH;
    stops.trailing_zeros() as usize / 8
}

/// How many bytes a special character takes at the start of `bytes`; 0 if there is none.
///
/// Special are those that a line reader, pager or terminal may take for something else: U+007F to U+009F, the
/// separators U+2028 and U+2029, and the bidirectional controls U+202A to U+202E and U+2066 to U+2069.
pub(crate) fn special_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [0x7F, ..] => 1,
        [0xC2, 0x80..=0x9F, ..] => 2,
        [0xE2, 0x80, 0xA8..=0xAE, ..] | [0xE2, 0x81, 0xA6..=0xA9, ..] => 3,
        _ => 0,
    }
}

/// Appends `value` as a JSON string in its canonical spelling: what JSON or [`special_bytes`] wants escaped is,
/// nothing else.
pub(crate) fn write_string(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = value.as_bytes();
    let mut start = 0;
    let mut pos = 0;
    loop {
        pos += plain_run(&bytes[pos..]);
        let Some(&byte) = bytes.get(pos) else { break };
        let length = match byte {
            b'"' | b'\\' | 0..0x20 => 1,
            _ => special_bytes(&bytes[pos..]),
        };
        if length == 0 {
            pos += 1;
            continue;
        }
        out.extend_from_slice(&bytes[start..pos]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            _ => write_escape(&value[pos..pos + length], out),
        }
        pos += length;
        start = pos;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Appends a value's bytes without the white space between tokens and with special characters escaped.
pub(crate) fn write_compact(value: &Value<'_>, out: &mut Vec<u8>) {
    let bytes = value.raw.as_bytes();
    if value.verbatim {
        out.extend_from_slice(bytes);
        return;
    }
    let mut in_string = false;
    let mut pos = 0;
    while let Some(&byte) = bytes.get(pos) {
        let special = if in_string { special_bytes(&bytes[pos..]) } else { 0 };
        if special > 0 {
            write_escape(&value.raw[pos..pos + special], out);
            pos += special;
            continue;
        }
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                // Only strings hold backslashes; the escaped byte is never the closing quote.
                out.push(byte);
                pos += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {
                pos += 1;
                continue;
            }
            _ => {}
        }
        out.push(bytes[pos]);
        pos += 1;
    }
}

/// Appends the one character of `text`, which lies below U+10000, as `\uXXXX`.
fn write_escape(text: &str, out: &mut Vec<u8>) {
    for c in text.chars() {
        out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &[u8]) -> Result<(bool, String), String> {
        let mut scanner = Scanner::new(text).map_err(|bad| bad.what.to_owned())?;
        scanner.skip_space();
        let value = scanner.value().map_err(|stop| format!("{stop:?}"))?;
        scanner.end().map_err(|bad| bad.what.to_owned())?;
        let mut out = Vec::new();
        write_compact(&value, &mut out);
        Ok((scanner.half_surrogate.is_some(), String::from_utf8(out).unwrap()))
    }

    #[test]
    fn eight_bytes_at_a_time_stop_at_the_same_byte_as_one_at_a_time() {
        let naive = |bytes: &[u8]| bytes.iter().take_while(|&&byte| PLAIN[usize::from(byte)]).count();
        // Every byte at every place, before and after every other kind of byte.
        for byte in 0..=u8::MAX {
            for other in [b'a', b' ', b'!', b'~', 0x1F, b'"', b'\\', 0x7F, 0x80, 0xC2, 0xFF] {
                for place in 0..20 {
                    let mut bytes = [b'a'; 20];
                    (bytes[(place + 1) % 20], bytes[place]) = (other, byte);
                    assert_eq!(plain_run(&bytes), naive(&bytes), "{bytes:x?}");
                }
            }
        }
    }

    #[test]
    fn a_line_and_a_column_are_counted_in_characters_from_1() {
        let text = "{\n\"é\": x".as_bytes();
        let fault = Fault::at(text, text.len() - 1, "here");
        assert_eq!((fault.line, fault.column), (2, 6));
    }

    #[test]
    fn a_half_surrogate_pair_is_noticed_wherever_it_stands() {
        for (text, half) in [
            (r#""\ud83d\ude00""#, false),
            (r#""\uD83D\uDE00x""#, false),
            (r#""\ud83d""#, true),
            (r#""\ude00""#, true),
            (r#""\ud83d\ud83d\ude00""#, true),
            (r#""\ud83dx\ude00""#, true),
            (r#""\ud83d\n""#, true),
            (r#"{"\ud83d":1}"#, true),
            (r#""\\ud83d""#, false),
        ] {
            assert_eq!(scan(text.as_bytes()).expect(text).0, half, "{text}");
        }
    }

    #[test]
    fn half_a_pair_becomes_a_replacement_character_and_nothing_else_does() {
        for (text, value) in [
            (r#""\b\f\n\r\t\/\\\"""#, "\u{8}\u{c}\n\r\t/\\\""),
            (r#""\u0000\u00E9\ud83d\ude00x""#, "\0é\u{1F600}x"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1F600}"),
            (r#""\ud83dx\ude00\n""#, "\u{fffd}x\u{fffd}\n"),
            (r#""\ud83d\u0061é""#, "\u{fffd}aé"),
        ] {
            assert_eq!(Scanner::over(text).string("").expect(text).value(), value, "{text}");
        }
    }

    #[test]
    fn special_characters_are_exactly_those_of_the_format() {
        for code in 0..=0x0010_FFFFu32 {
            let Some(c) = char::from_u32(code) else { continue };
            let special = matches!(code, 0x7F..=0x9F | 0x2028..=0x202E | 0x2066..=0x2069);
            let mut buffer = [0; 4];
            let text = c.encode_utf8(&mut buffer);
            assert_eq!(special_bytes(text.as_bytes()), if special { text.len() } else { 0 }, "U+{code:04X}");
        }
    }

    /// Texts near JSON: valid ones, and such with a few bytes changed.
    fn near_json() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            Just("\"k\":".to_owned()),
            Just(" \t\r\n".to_owned()),
            Just("true".to_owned()),
            Just("null".to_owned()),
            "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            "\"[a\\\\\"u/nd8c0\u{7f}\u{85}\u{2028}\u{2069}é\u{1F600}\u{1}]{0,6}\"",
        ];
        let soup = prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes());
        let valid = any_json(4);
        prop_oneof![
            soup,
            valid.clone(),
            (valid, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut text, at, byte)| {
                let at = at.index(text.len());
                text[at] = byte;
                text
            }),
        ]
    }

    fn any_json(depth: u32) -> impl Strategy<Value = Vec<u8>> + Clone {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("false".to_owned()),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
            "\"([a-z \u{7f}\u{85}\u{2028}\u{202e}é\u{1F600}]|\\\\[nrt\"/]|\\\\u00e9|\\\\ud83d\\\\ude00|\\\\\\\\){0,8}\"",
        ];
        leaf.prop_recursive(depth, 32, 4, |inner| {
            let space = "[ \t\r\n]{0,2}";
            prop_oneof![
                prop::collection::vec((space, inner.clone()), 0..4).prop_map(|items| {
                    let items: Vec<_> = items.into_iter().map(|(s, v)| format!("{s}{v}{s}")).collect();
                    format!("[{}]", items.join(","))
                }),
                prop::collection::vec((space, "[a-c\u{85}]{0,2}", inner), 0..4).prop_map(|items| {
                    let items: Vec<_> = items.into_iter().map(|(s, k, v)| format!("{s}\"{k}\"{s}:{s}{v}")).collect();
                    format!("{{{}}}", items.join(","))
                }),
            ]
        })
        .prop_map(String::into_bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

        #[test]
        fn the_scanner_accepts_what_serde_json_accepts(text in near_json()) {
            let library = serde_json::from_slice::<&RawValue>(&text).is_ok();
            let scanned = scan(&text);
            prop_assert_eq!(scanned.is_ok(), library, "{:?}", scanned);
        }

        #[test]
        fn compacting_changes_no_value(text in any_json(6)) {
            let (_, compact) = scan(&text).unwrap();
            let before: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let after: serde_json::Value = serde_json::from_str(&compact).unwrap();
            prop_assert_eq!(before, after);
            prop_assert!(!compact.chars().any(|c| special_bytes(c.encode_utf8(&mut [0; 4]).as_bytes()) > 0));
            // Doing it again changes nothing, and sees that nothing is to be done.
            let (_, again) = scan(compact.as_bytes()).unwrap();
            prop_assert_eq!(&again, &compact);
        }

        #[test]
        fn a_string_has_the_value_that_serde_json_reads(text in any_json(0)) {
            let text = String::from_utf8(text).unwrap();
            let mut scanner = Scanner::over(&text);
            if let Ok(string) = scanner.string("") {
                prop_assert_eq!(&*string.value(), &serde_json::from_str::<String>(&text).unwrap());
            }
        }

        #[test]
        fn a_written_string_reads_back(value in "[\\PC\u{0}-\u{20}\u{7f}-\u{a0}\u{2020}-\u{2070}\"\\\\]{0,20}") {
            let mut out = Vec::new();
            write_string(&value, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(&serde_json::from_str::<String>(&text).unwrap(), &value);
            prop_assert_eq!(text.chars().filter(|c| c.is_control()).count(), 0);
        }
    }
}

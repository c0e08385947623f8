//! Lines that a reader meets and would rather not: spelt otherwise, damaged, or somebody else's.

use std::fmt::Write as _;

use crate::event::{Parts, USERS, quoted, string};
use crate::random::Random;

/// What is odd about a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    /// The members in another order.
    Reordered,
    /// White space between tokens.
    Spaced,
    /// Keys repeated in `meta`, with other values.
    Repeated,
    /// Escapes in the place of characters, in names of members too.
    Escaped,
    /// Nothing but its newline.
    Empty,
    /// The job of another folder.
    Foreign,
    /// Cut off, without its newline: the last of its segment.
    Torn,
    /// Not JSON.
    NotJson,
    /// NUL bytes, in the line or alone.
    Nul,
    /// Not UTF-8.
    NotUtf8,
    /// JSON, but not our members.
    NotARecord,
    /// Longer than 2 MiB.
    TooLong,
}

impl Oddity {
    pub(crate) const ALL: [Self; 12] = [
        Self::Reordered,
        Self::Spaced,
        Self::Repeated,
        Self::Escaped,
        Self::Empty,
        Self::Foreign,
        Self::Torn,
        Self::NotJson,
        Self::Nul,
        Self::NotUtf8,
        Self::NotARecord,
        Self::TooLong,
    ];
    /// As counted in the output.
    pub(crate) const NAMES: [&str; 12] = [
        "reordered",
        "spaced",
        "repeated",
        "escaped",
        "empty",
        "foreign",
        "torn",
        "notJson",
        "nul",
        "notUtf8",
        "notARecord",
        "tooLong",
    ];

    /// One of them; the longest is rare, as it is 6,000 times as long.
    pub(crate) fn any(random: &mut Random) -> Self {
        if random.once_in(1000) { Self::TooLong } else { random.pick(&Self::ALL[..11]) }
    }
}

/// Bytes of a line that is longer than any reader takes.
const TOO_LONG_BYTES: usize = (2 << 20) + 1;

/// Writes the line in its odd form, without a newline. `ts` is raw JSON, and `other_job` not the job of `parts`.
pub(crate) fn write(oddity: Oddity, random: &mut Random, mut parts: Parts, ts: &str, other_job: &str) -> Vec<u8> {
    let mut plain = String::with_capacity(1024);
    match oddity {
        Oddity::Repeated => parts.meta = repeated(random, &parts.meta),
        Oddity::Foreign => parts.job = quoted(other_job),
        _ => {}
    }
    parts.write(ts, &mut plain);
    match oddity {
        Oddity::Repeated | Oddity::Foreign => plain.into_bytes(),
        Oddity::Reordered => reordered(random, &parts, ts).into_bytes(),
        Oddity::Spaced => spaced(random, &plain).into_bytes(),
        Oddity::Escaped => escaped(random, &plain).into_bytes(),
        Oddity::Empty => Vec::new(),
        Oddity::Torn => cut(random, plain.into_bytes()),
        Oddity::NotJson => not_json(random, plain).into_bytes(),
        Oddity::Nul => nul(random, plain.into_bytes()),
        Oddity::NotUtf8 => not_utf8(plain.into_bytes()),
        Oddity::NotARecord => not_a_record(random, &parts, ts).into_bytes(),
        Oddity::TooLong => {
            let mut line = plain.into_bytes();
            let brace = line.pop();
            line.resize(TOO_LONG_BYTES, b' ');
            line.extend(brace);
            line
        }
    }
}

fn cut(random: &mut Random, mut line: Vec<u8>) -> Vec<u8> {
    let bytes = u64::try_from(line.len()).expect("a length fits");
    line.truncate(usize::try_from(1 + random.below(bytes - 1)).expect("it is below a length"));
    line
}

fn not_json(random: &mut Random, mut line: String) -> String {
    match random.below(4) {
        0 => line.push('}'),
        1 => line = line.replacen(':', "=", 1),
        2 => {
            line.pop();
        }
        _ => line = line.replacen("\"meta\":", "\"meta\":NaN", 1),
    }
    line
}

fn nul(random: &mut Random, mut line: Vec<u8>) -> Vec<u8> {
    if random.once_in(2) {
        vec![0; line.len()]
    } else {
        let middle = line.len() / 2;
        line.splice(middle..middle, [0, 0, 0]);
        line
    }
}

/// Puts a Latin-1 letter into the message's string, or before it.
fn not_utf8(mut line: Vec<u8>) -> Vec<u8> {
    let message = b"\"message\":\"";
    let at = line.windows(message.len()).position(|window| window == message).expect("every line has a message");
    line.insert(at + message.len(), 0xE9);
    line
}

fn not_a_record(random: &mut Random, parts: &Parts, ts: &str) -> String {
    let mut members = parts.members(ts).to_vec();
    match random.below(8) {
        0 => {
            let left_out = usize::try_from(random.below(6)).expect("below 6");
            members.remove(left_out);
        }
        1 => members.push(("level", "\"info\"".to_owned())),
        2 => members.push(("event", parts.event.clone())),
        3 => members[3].1 = String::from("7"),
        4 => members[0].1 = String::from("\"yesterday\""),
        5 => members[0].1 = String::from("\"2026-02-30T00:00:00.000Z\""),
        6 => members[1].1 = String::from("5003592"),
        _ => return "[1,2,3]".to_owned(),
    }
    object(&members)
}

fn reordered(random: &mut Random, parts: &Parts, ts: &str) -> String {
    let mut members = parts.members(ts);
    for end in (2..=members.len()).rev() {
        members.swap(end - 1, usize::try_from(random.below(u64::try_from(end).expect("6 fit"))).expect("below 6"));
    }
    object(&members)
}

fn object(members: &[(&str, String)]) -> String {
    let mut out = String::from("{");
    for (number, (name, value)) in members.iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        string(&mut out, name);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// White space where JSON allows it: around every token.
fn spaced(random: &mut Random, line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 2);
    let mut in_string = false;
    let mut after_backslash = false;
    for c in line.chars() {
        if in_string {
            out.push(c);
            in_string = c != '"' || after_backslash;
            after_backslash = c == '\\' && !after_backslash;
            continue;
        }
        in_string = c == '"';
        let structural = "{}[]:,".contains(c);
        if structural {
            out.push_str(random.pick(&["", " ", "  ", "\t", "\r"]));
        }
        out.push(c);
        if structural {
            out.push_str(random.pick(&["", " ", "\t ", "\r"]));
        }
    }
    out
}

/// The same values with about every fourth character of the strings as `\u`, in either case of digits.
fn escaped(random: &mut Random, line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 3);
    let mut in_string = false;
    let mut after_backslash = false;
    for c in line.chars() {
        let special = c == '"' || c == '\\' || after_backslash;
        if in_string && !special && random.once_in(4) {
            let upper = random.once_in(2);
            for unit in c.encode_utf16(&mut [0; 2]) {
                if upper { write!(out, "\\u{unit:04X}") } else { write!(out, "\\u{unit:04x}") }
                    .expect("a String takes everything");
            }
        } else if in_string && c == '/' {
            out.push_str("\\/");
        } else {
            out.push(c);
        }
        if c == '"' && !after_backslash {
            in_string = !in_string;
        }
        after_backslash = c == '\\' && !after_backslash;
    }
    out
}

/// The same members, some of them twice or three times, the added ones before or behind.
fn repeated(random: &mut Random, meta: &str) -> String {
    let Some(members) = meta.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return r#"{"rows":1,"rows":2,"rows":"2"}"#.to_owned();
    };
    let (name, id) = random.pick(USERS);
    let user = format!("{{\"name\":{},\"id\":{id}}}", quoted(name));
    match random.below(5) {
        0 => format!("{{\"user\":{user},{members}}}"),
        1 => format!("{{{members},\"user\":{user}}}"),
        2 => format!("{{\"category\":null,{members},\"category\":{id},\"c\\u0061tegory\":\"user\"}}"),
        3 => format!("{{{members},\"rows\":12500,\"rows\":\"12500\"}}"),
        _ => format!("{{{},{members}}}", r#""request":{"nodes":1,"nodes":64,"gpu":true,"gpu":false}"#),
    }
}

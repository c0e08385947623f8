//! The time of a segment's last readable line, read from the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::record::{LINE_BYTES_MAX, Timestamp};

/// What is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How far back a readable line is looked for: twice what a segment of ours can hold.
const LOOK_BACK_BYTES: u64 = 256 << 20;

/// The one member of a line that counts here.
#[derive(Deserialize)]
struct Line {
    ts: Ts,
}

/// The time of a line: RFC 3339, or integer milliseconds as UCloud's own server writes it.
struct Ts(Option<Timestamp>);

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TsVisitor)
    }
}

/// Takes a string or a number and refuses everything else, so that nothing is kept of a hostile line.
struct TsVisitor;

impl Visitor<'_> for TsVisitor {
    type Value = Ts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a time")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Ts, E> {
        Ok(Ts(Timestamp::parse_rfc3339(text)))
    }

    fn visit_i64<E: de::Error>(self, millis: i64) -> Result<Ts, E> {
        Ok(Ts(Some(Timestamp::from_millis(millis))))
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Ts, E> {
        Ok(Ts(Some(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))))
    }
}

/// Finds the last line that is a JSON object with a time; `None` if the whole file has none.
///
/// # Errors
/// Those of reading; [`io::ErrorKind::FileTooLarge`] if there is none in the last 256 MiB of a file that is longer.
pub(super) fn last_ts(file: &File) -> io::Result<Option<Timestamp>> {
    let mut end = file.metadata()?.len();
    let mut looked = 0;
    // The part that is known of the line that begins before `end`; `None` once it is too long to be one.
    let mut tail = Some(Vec::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    while end > 0 {
        if looked >= LOOK_BACK_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let size = usize::try_from(end).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let start = end - u64::try_from(size).expect("a chunk's length fits");
        file.read_exact_at(&mut chunk[..size], start)?;
        let mut rest = &chunk[..size];
        while let Some(newline) = rest.iter().rposition(|&byte| byte == b'\n') {
            if let Some(ts) = tail.as_ref().and_then(|tail| read_ts(&rest[newline + 1..], tail)) {
                return Ok(Some(ts));
            }
            tail = Some(Vec::new());
            rest = &rest[..newline];
        }
        tail =
            tail.filter(|tail| tail.len() + rest.len() <= LINE_BYTES_MAX).map(|tail| [rest, tail.as_slice()].concat());
        end = start;
        looked += u64::try_from(size).expect("a chunk's length fits");
    }
    Ok(tail.and_then(|tail| read_ts(&[], &tail)))
}

fn read_ts(head: &[u8], tail: &[u8]) -> Option<Timestamp> {
    if head.len() + tail.len() > LINE_BYTES_MAX {
        return None;
    }
    // An array would do for serde; a line is an object.
    if head.iter().chain(tail).find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    let line: Line =
        if tail.is_empty() { serde_json::from_slice(head) } else { serde_json::from_slice(&[head, tail].concat()) }
            .ok()?;
    line.ts.0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn last(content: &[u8]) -> Option<i64> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        last_ts(&file).unwrap().map(Timestamp::millis)
    }

    #[test]
    fn the_last_readable_line_counts_wherever_it_is() {
        let line = |ts: u32| format!("{{\"ts\":{ts},\"event\":\"a\"}}\n");
        let long = |ts: u32, bytes: usize| format!("{{\"ts\":{ts},\"x\":\"{}\"}}\n", "y".repeat(bytes));
        let nul = "\0".repeat(3 * CHUNK_BYTES);
        for (content, expected) in [
            (String::new(), None),
            ("\n\n\n".to_owned(), None),
            ("no json\n{\"event\":1}\n[1]\n".to_owned(), None),
            (line(1), Some(1)),
            (line(1) + &line(2), Some(2)),
            (line(1).trim_end().to_owned(), Some(1)),
            (line(1) + "{\"ts\":2,\"eve", Some(1)),
            (line(1) + &nul, Some(1)),
            (line(1) + "\n\n" + &nul + "\n\n", Some(1)),
            (line(1) + &long(2, 5 * CHUNK_BYTES), Some(2)),
            (line(1) + &long(2, CHUNK_BYTES - 17) + "torn", Some(2)),
            (line(1) + &long(2, LINE_BYTES_MAX + 1), Some(1)),
            (line(1) + &"x".repeat(CHUNK_BYTES) + "\n" + &"z".repeat(CHUNK_BYTES), Some(1)),
            ("{\"ts\":\"1970-01-01T00:00:01.500Z\"}\n".to_owned(), Some(1500)),
            ("{\"ts\":\"1970-01-01T01:00:01.500+01:00\"}\n{\"ts\":\"yesterday\"}\n".to_owned(), Some(1500)),
        ] {
            assert_eq!(last(content.as_bytes()), expected, "{content:.60}");
        }
    }

    #[test]
    fn a_line_is_found_at_every_distance_from_a_chunks_edge() {
        for filler in CHUNK_BYTES - 40..CHUNK_BYTES + 40 {
            let content = format!("{{\"ts\":7}}\n{}", "x".repeat(filler));
            assert_eq!(last(content.as_bytes()), Some(7), "{filler}");
        }
    }
}

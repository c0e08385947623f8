//! Answers that are there as a whole: JSON, sent in parts, so that the connection holds no second copy of it.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::caller::Rows;
use super::gate::Room;
use crate::reader::output::Columns;

/// What is handed to the connection at once.
const PART_BYTES: usize = 64 << 10;

/// A value as JSON. What could fool a terminal or a reader of lines is escaped, as it is in segments.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    write_json(value, &mut out);
    out
}

/// Adds a value as JSON.
pub(crate) fn write_json(value: &impl Serialize, out: &mut Vec<u8>) {
    let mut serializer = serde_json::Serializer::with_formatter(out, Visible);
    value.serialize(&mut serializer).expect("what is answered can be written as JSON");
}

struct Visible;

/// What lines escape in strings, beside what JSON has escaped.
fn is_escaped(char: char) -> bool {
    matches!(char, '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(is_escaped) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let char = rest[at..].chars().next().unwrap_or_default();
            write!(writer, "\\u{:04x}", u32::from(char))?;
            rest = &rest[at + char.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, json: &str) -> io::Result<()> {
        // Such characters are nowhere in JSON but within strings.
        self.write_string_fragment(writer, json)
    }
}

/// Which members or columns of an answer are the job's own claim, as a list of RFC 9651.
const AUDIT_CLAIMED: HeaderName = HeaderName::from_static("audit-claimed");

/// The header that says which of the columns that an answer shows, or of the members of whole lines, are the job's own claim.
pub(crate) fn claims(columns: Option<&Columns>) -> [(HeaderName, HeaderValue); 1] {
    let claimed = columns.map_or_else(|| vec!["event", "message", "meta"], Columns::claimed);
    [(AUDIT_CLAIMED, HeaderValue::try_from(claimed.join(", ")).expect("keys and members are plain"))]
}

/// An answer of JSON that holds so many records, and takes room until it is sent.
pub(crate) fn whole((bytes, room): (Vec<u8>, Room), rows: u64) -> Response {
    let mut response = Response::new(Body::new(Parts { bytes: bytes.into(), _room: room }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(Rows(Arc::new(AtomicU64::new(rows))));
    response
}

/// An answer of a few bytes.
pub(crate) fn small(value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(json(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

struct Parts {
    bytes: Bytes,
    _room: Room,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(PART_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_fool_a_terminal_is_escaped_and_the_rest_is_as_it_was() {
        let raw = serde_json::value::RawValue::from_string("{\"\u{202e}\": [1.0e5, \"\u{85}é\"]}".to_owned()).unwrap();
        let told = String::from_utf8(json(&("a\u{2028}\u{7f}b\n\u{1b}é", raw))).unwrap();
        assert_eq!(told, r#"["a\u2028\u007fb\n\u001bé",{"\u202e": [1.0e5, "\u0085é"]}]"#);
        let back: (String, serde_json::Value) = serde_json::from_str(&told).unwrap();
        assert_eq!(back.0, "a\u{2028}\u{7f}b\n\u{1b}é");
    }
}

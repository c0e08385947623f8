//! Answers that are there as a whole: JSON, sent in parts, so that the connection holds no second copy of it. What no memory should hold of it
//! lies in a temporary file.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::ser::Formatter;
use tokio::task::{JoinHandle, spawn_blocking};

use super::caller::Rows;
use super::gate::Room;
use super::kept::Kept;
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

/// An answer that is there as a whole: what was moved to a temporary file, and what stands behind it and takes room until it is sent.
pub(crate) struct Whole {
    pub(crate) kept: Kept,
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: Room,
}

/// An answer of JSON that holds so many records.
///
/// # Errors
/// Those of the temporary file.
pub(crate) fn whole(Whole { kept, bytes, room }: Whole, rows: u64) -> io::Result<Response> {
    let left = kept.bytes() + bytes.len() as u64;
    let file = kept.end()?.map(FilePart::Read);
    let mut response = Response::new(Body::new(Parts { file, bytes: bytes.into(), left, _room: room }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(Rows(Arc::new(AtomicU64::new(rows))));
    Ok(response)
}

/// An answer of a few bytes.
pub(crate) fn small(value: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(json(value)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

struct Parts {
    /// What comes before the bytes, until all of it was sent.
    file: Option<FilePart>,
    bytes: Bytes,
    /// Of both.
    left: u64,
    _room: Room,
}

/// A file that is read on a thread that may block.
enum FilePart {
    Read(File),
    Reading(JoinHandle<io::Result<(File, Bytes)>>),
}

impl FilePart {
    fn read(mut file: File) -> io::Result<(File, Bytes)> {
        let mut part = Vec::with_capacity(PART_BYTES);
        file.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok((file, part.into()))
    }
}

impl Parts {
    /// The next part of the file; nothing if it has ended.
    fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut reading = match self.file.take() {
            None => return Poll::Ready(None),
            Some(FilePart::Read(file)) => spawn_blocking(|| FilePart::read(file)),
            Some(FilePart::Reading(reading)) => reading,
        };
        let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
            self.file = Some(FilePart::Reading(reading));
            return Poll::Pending;
        };
        Poll::Ready(match read.map_err(io::Error::other).flatten() {
            Ok((_, part)) if part.is_empty() => None,
            Ok((file, part)) => {
                self.file = Some(FilePart::Read(file));
                Some(Ok(part))
            }
            Err(error) => Some(Err(error)),
        })
    }
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = match ready!(self.poll_file(cx)) {
            Some(part) => part?,
            None if self.bytes.is_empty() => return Poll::Ready(None),
            None => {
                let length = self.bytes.len().min(PART_BYTES);
                self.bytes.split_to(length)
            }
        };
        self.left = self.left.saturating_sub(part.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
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

//! `POST /append`: from a request to a durable line and its answer.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::Response;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;

use super::body::{check_length, read};
use super::connections::Arriving;
use super::problem::{Code, Problem};
use super::{Api, Whole, date};
use crate::record::{Event, Timestamp, parse_batch};
use crate::writer::{Ack, Receipt};

/// Bytes of one event's body, and of one line of a batch.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a batch.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Bytes of a body that are parsed by the thread that serves everybody: well under a millisecond's work, where 8 MiB are
/// tens of them.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// One JSON object.
    Event,
    /// One JSON object a line.
    Batch,
}

/// The answers to a commit begin alike, and are given one after the other: what they share is written once.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Option<Shared>>);

#[derive(Debug)]
struct Shared {
    ts: Timestamp,
    segment: Arc<str>,
    /// `HTTP/1.1 200 OK`, and the headers up to the number of the content's length.
    head: String,
    /// `{"ts":"…","segment":"…","index":`.
    body: String,
}

/// What a request's headers allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    format: Format,
    bytes_max: usize,
}

/// Checks all that can be checked before the body is read.
pub(super) fn admit(api: &Api, parts: &Parts, body: &Arriving) -> Result<Admitted, Problem> {
    let format = format_of(parts)?;
    let bytes_max = match format {
        Format::Event => BODY_BYTES_MAX,
        Format::Batch => BATCH_BYTES_MAX,
    };
    if let Some(length) = body.size_hint().exact() {
        check_length(usize::try_from(length).unwrap_or(usize::MAX), bytes_max)?;
    }
    if api.drain.is_over() {
        return Err(Problem::new(Code::ShuttingDown, "no further events are taken"));
    }
    if api.appender.is_busy() {
        return Err(Problem::new(Code::Overloaded, "the queue of lines is full; try again"));
    }
    Ok(Admitted { format, bytes_max })
}

/// Appends the event or the batch in `body`, and answers when it is durable.
pub(super) async fn append(api: &Arc<Api>, admitted: Admitted, body: &mut Arriving) -> Result<Whole, Problem> {
    let receipt = queue(api, admitted, body).await?;
    let ack = receipt.wait().await?;
    Ok(api.answers.response(&ack, admitted.format))
}

/// Queues the event of a plain request, unless there is anything to refuse.
pub(super) fn queue_plain(api: &Api, body: &[u8]) -> Option<Receipt> {
    if api.drain.is_over() {
        return None;
    }
    parse(api, Format::Event, body).ok()
}

/// Reads, parses and queues; the body's memory is free again when this returns.
async fn queue(api: &Arc<Api>, admitted: Admitted, body: &mut Arriving) -> Result<Receipt, Problem> {
    let (bytes, reserved) = read(body, admitted.bytes_max, &api.budget).await?;
    if bytes.len() <= INLINE_BYTES_MAX {
        return parse(api, admitted.format, &bytes);
    }
    // On a thread of its own, that the others are served meanwhile; a client that goes away does not end it.
    let turn = Arc::clone(&api.large_turn).lock_owned().await;
    let api = Arc::clone(api);
    let parsing = tokio::task::spawn_blocking(move || {
        let receipt = parse(&api, admitted.format, &bytes);
        drop((bytes, reserved, turn));
        receipt
    });
    parsing.await.expect("parsing does not panic")
}

fn parse(api: &Api, format: Format, bytes: &[u8]) -> Result<Receipt, Problem> {
    let receipt = match format {
        Format::Event => api.appender.append(&[Event::parse(bytes)?])?,
        Format::Batch => api.appender.append(&parse_batch(bytes, BODY_BYTES_MAX)?)?,
    };
    Ok(receipt)
}

fn format_of(parts: &Parts) -> Result<Format, Problem> {
    let unsupported = |detail| Problem::new(Code::UnsupportedMediaType, detail);
    for encoding in parts.headers.get_all(CONTENT_ENCODING) {
        if !encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") {
            return Err(unsupported("the body is compressed or otherwise encoded; send it as it is"));
        }
    }
    let mut types = parts.headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    if second.is_some() {
        return Err(unsupported("there are two Content-Type headers"));
    }
    let essence = match first {
        None => "",
        Some(value) => {
            let text = value.to_str().map_err(|_| unsupported("the Content-Type is not ASCII"))?;
            text.split(';').next().unwrap_or_default().trim()
        }
    };
    let is = |name: &&str| essence.eq_ignore_ascii_case(name);
    let is_other_json = || essence.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case("json"));
    if ["", "application/json", "application/x-www-form-urlencoded"].iter().any(is) || is_other_json() {
        Ok(Format::Event)
    } else if ["application/x-ndjson", "application/jsonl"].iter().any(is) {
        Ok(Format::Batch)
    } else {
        Err(unsupported("send application/json, or application/x-ndjson for a batch"))
    }
}

impl Answers {
    /// The answer to a plain request, head and all; `close` tells the client that the connection ends with it.
    pub(super) fn bytes(&self, ack: &Ack, close: bool) -> Vec<u8> {
        self.with(ack, |shared| {
            let index = ack.index.to_string();
            let length = (shared.body.len() + index.len() + 1).to_string();
            let connection = if close { "\r\nconnection: close" } else { "" };
            [&shared.head, &length, connection, "\r\n\r\n", &shared.body, &index, "}"].concat().into_bytes()
        })
    }

    /// The answer to any request: for a batch it has `,"count":3` as well.
    fn response(&self, ack: &Ack, format: Format) -> Whole {
        let body = self.with(ack, |shared| match format {
            Format::Event => format!("{}{}}}", shared.body, ack.index),
            Format::Batch => format!(r#"{}{},"count":{}}}"#, shared.body, ack.index, ack.count),
        });
        let mut response = Response::new(body.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn with<T>(&self, ack: &Ack, write: impl FnOnce(&Shared) -> T) -> T {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(shared) if shared.ts == ack.ts && Arc::ptr_eq(&shared.segment, &ack.segment) => write(shared),
            _ => write(last.insert(Shared::new(ack))),
        }
    }
}

impl Shared {
    fn new(ack: &Ack) -> Self {
        let date = date();
        Self {
            ts: ack.ts,
            segment: Arc::clone(&ack.segment),
            head: format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: {date}\r\ncontent-length: "),
            // A segment's name holds nothing that JSON escapes.
            body: format!(r#"{{"ts":"{}","segment":"{}","index":"#, ack.ts, ack.segment),
        }
    }
}

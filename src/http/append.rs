//! `POST /append`: from a request to a durable line and its answer.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use serde::Serialize;

use super::Api;
use super::body::{check_length, read};
use super::problem::{Code, Problem};
use crate::record::{Event, parse_batch};
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

/// The answer to an appended request.
#[derive(Serialize)]
struct Answer<'a> {
    ts: String,
    segment: &'a str,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

/// What a request's headers allow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    format: Format,
    bytes_max: usize,
}

/// Checks all that can be checked before the body is read.
pub(super) fn admit(api: &Api, parts: &Parts, body: &Body) -> Result<Admitted, Problem> {
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
pub(super) async fn append(api: &Arc<Api>, admitted: Admitted, body: &mut Body) -> Result<Response, Problem> {
    let receipt = queue(api, admitted, body).await?;
    let ack = receipt.wait().await?;
    Ok(answer(&ack, admitted.format))
}

/// Reads, parses and queues; the body's memory is free again when this returns.
async fn queue(api: &Arc<Api>, admitted: Admitted, body: &mut Body) -> Result<Receipt, Problem> {
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
        None => String::new(),
        Some(value) => {
            let text = value.to_str().map_err(|_| unsupported("the Content-Type is not ASCII"))?;
            text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
        }
    };
    match essence.as_str() {
        "" | "application/json" | "application/x-www-form-urlencoded" => Ok(Format::Event),
        "application/x-ndjson" | "application/jsonl" => Ok(Format::Batch),
        other if other.ends_with("+json") => Ok(Format::Event),
        _ => Err(unsupported("send application/json, or application/x-ndjson for a batch")),
    }
}

fn answer(ack: &Ack, format: Format) -> Response {
    let answer = Answer {
        ts: ack.ts.to_string(),
        segment: &ack.segment,
        index: ack.index,
        count: (format == Format::Batch).then_some(ack.count),
    };
    let body = serde_json::to_vec(&answer).expect("strings and numbers can be written");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

//! The one place that knows status codes: every refusal, and how it is told (RFC 9457).

use std::borrow::Cow;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::date;
use crate::record::{BatchError, EventError};
use crate::writer::{AppendError, Written};

/// The header that says whether a refused request left anything on disk.
pub const AUDIT_WRITTEN: HeaderName = HeaderName::from_static("audit-written");

/// What went wrong, by a name that stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The body is not JSON.
    InvalidJson,
    /// The request can be read in two ways.
    AmbiguousRequest,
    /// A browser page sent it.
    ForbiddenOrigin,
    /// No such path.
    NotFound,
    /// The path does not know the method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    Timeout,
    /// The request, or an event's line, is too long.
    TooLarge,
    /// The body is of a type that is not read.
    UnsupportedMediaType,
    /// The request is for another host.
    WrongHost,
    /// The body is JSON, but not an event.
    InvalidEvent,
    /// The queue, or the memory for bodies, is full.
    Overloaded,
    /// The sidecar is about to exit.
    ShuttingDown,
    /// The file system failed.
    StorageFailed,
    /// The file system did not finish in time.
    StorageStalled,
    /// The disk, the quota or the file size limit is exhausted.
    StorageFull,
    /// A probe's answer: the next append would probably fail.
    NotReady,
    /// Whoever asks to read shows no token that is known and in force.
    Unauthorized,
    /// The route knows no parameter of this name.
    UnknownParameter,
    /// A parameter's value can't be used.
    BadParameter,
    /// The cursor is none of ours, or of another query.
    BadCursor,
}

impl Code {
    /// Every code by which a request can be refused.
    pub const REFUSALS: [Self; 15] = [
        Self::InvalidJson,
        Self::AmbiguousRequest,
        Self::ForbiddenOrigin,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Timeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::WrongHost,
        Self::InvalidEvent,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::StorageFailed,
        Self::StorageStalled,
        Self::StorageFull,
    ];

    /// The code on the wire, the status and the title.
    fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidJson => ("invalid_json", StatusCode::BAD_REQUEST, "The body is not JSON"),
            Self::AmbiguousRequest => ("ambiguous_request", StatusCode::BAD_REQUEST, "The request is ambiguous"),
            Self::ForbiddenOrigin => ("forbidden_origin", StatusCode::FORBIDDEN, "Browser pages may not do this"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is nothing at this path"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "The path does not know this method")
            }
            Self::Timeout => ("timeout", StatusCode::REQUEST_TIMEOUT, "The request took too long to arrive"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The request is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of a type that is not read")
            }
            Self::WrongHost => ("wrong_host", StatusCode::MISDIRECTED_REQUEST, "The request is for another host"),
            Self::InvalidEvent => ("invalid_event", StatusCode::UNPROCESSABLE_ENTITY, "The body is not an event"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too much is waiting already"),
            Self::ShuttingDown => ("shutting_down", StatusCode::SERVICE_UNAVAILABLE, "The audit log is shutting down"),
            Self::StorageFailed => ("storage_failed", StatusCode::SERVICE_UNAVAILABLE, "The file system failed"),
            Self::StorageStalled => {
                ("storage_stalled", StatusCode::SERVICE_UNAVAILABLE, "The file system did not finish in time")
            }
            Self::StorageFull => ("storage_full", StatusCode::INSUFFICIENT_STORAGE, "The audit storage is full"),
            Self::NotReady => ("not_ready", StatusCode::SERVICE_UNAVAILABLE, "Not ready"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "A token is needed"),
            Self::UnknownParameter => ("unknown_parameter", StatusCode::BAD_REQUEST, "There is no such parameter"),
            Self::BadParameter => ("bad_parameter", StatusCode::BAD_REQUEST, "A parameter can't be used"),
            Self::BadCursor => ("bad_cursor", StatusCode::BAD_REQUEST, "The cursor can't be used"),
        }
    }

    /// The code on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// The status of its answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.facts().1
    }

    /// What it is about, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.facts().2
    }
}

/// A refusal, on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its code, which also decides the status.
    pub code: Code,
    /// What is wrong and where. Never the data of an event.
    detail: Cow<'static, str>,
    /// What is on disk of a request to append; nothing where there is no appending.
    written: Option<Written>,
    /// The line of a batch.
    line: Option<usize>,
    parameter: Option<String>,
    /// The byte of the parameter's value at which it stops making sense.
    offset: Option<usize>,
    allow: Option<&'static str>,
}

/// A refusal, as `application/problem+json` (RFC 9457).
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Members<'a> {
    /// What it is about.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// What is wrong, and where.
    detail: &'a str,
    /// A name that stays the same.
    code: &'a str,
    /// The line of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The parameter that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
    /// The byte of its value at which it stops making sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
}

impl Problem {
    /// A refusal of something that left nothing on disk.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let written = Some(Written::No);
        Self { code, detail: detail.into(), written, line: None, parameter: None, offset: None, allow: None }
    }

    /// The refusal of a parameter, with the byte of its value that is at fault, if it is one.
    #[must_use]
    pub fn parameter(code: Code, name: &str, offset: Option<usize>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: Some(name.to_owned()), offset, ..Self::new(code, detail) }
    }

    /// The same where nothing can be appended, so that there is nothing to say about it.
    #[must_use]
    pub fn of_reading(self) -> Self {
        Self { written: None, ..self }
    }

    /// The refusal of a method, with those that are allowed.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, detail) }
    }

    /// The whole answer as bytes, for where hyper does not write it.
    pub(super) fn bytes(&self, close: bool) -> Vec<u8> {
        let response = self.response(close);
        let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
        for (name, value) in response.headers() {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        let (body, date) = (self.body(), date());
        bytes.extend(format!("date: {date}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes());
        bytes.extend(body);
        bytes
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let (name, status, title) = self.code.facts();
        let members = Members {
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code: name,
            line: self.line,
            parameter: self.parameter.as_deref(),
            offset: self.offset,
        };
        serde_json::to_vec(&members).expect("strings and numbers can be written")
    }

    /// The answer; `close` tells the client that the connection ends with it.
    #[must_use]
    pub fn response(&self, close: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body()));
        let status = self.code.facts().1;
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(written) = self.written {
            let written = match written {
                Written::No => "no",
                Written::Unknown => "unknown",
            };
            headers.insert(AUDIT_WRITTEN, HeaderValue::from_static(written));
        }
        if self.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.code, Code::Overloaded | Code::ShuttingDown) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        let code = match error {
            EventError::NotJson(_) => Code::InvalidJson,
            EventError::NotAnEvent(_) => Code::InvalidEvent,
        };
        Self::new(code, error.to_string())
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        let (code, line) = match &error {
            BatchError::Line { line, error: EventError::NotJson(_) } => (Code::InvalidJson, Some(*line)),
            BatchError::Line { line, error: EventError::NotAnEvent(_) } => (Code::InvalidEvent, Some(*line)),
            BatchError::LineTooLong { line, .. } | BatchError::TooMany { line } => (Code::TooLarge, Some(*line)),
            BatchError::Empty => (Code::InvalidEvent, None),
        };
        let place = line.map_or_else(String::new, |line| format!("line {line}: "));
        Self { line, ..Self::new(code, format!("{place}{error}")) }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Busy => Self::new(Code::Overloaded, "the queue of lines is full; try again"),
            AppendError::Closed => Self::new(Code::ShuttingDown, "no further events are taken"),
            AppendError::TooLong(error) => Self::new(Code::TooLarge, error.to_string()),
            AppendError::Stalled(written) => Self {
                written: Some(written),
                ..Self::new(Code::StorageStalled, "the file system has not finished for 30 seconds")
            },
            AppendError::Refused(refusal) if refusal.full => Self {
                written: Some(refusal.written),
                ..Self::new(Code::StorageFull, "no space left for audit events")
            },
            AppendError::Refused(refusal) => Self {
                written: Some(refusal.written),
                ..Self::new(Code::StorageFailed, "the file system of the audit log returned an error; see its log")
            },
        }
    }
}

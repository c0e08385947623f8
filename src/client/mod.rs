//! The client side: how `append`, `run` and `health` talk to the sidecar.

mod append;
mod health;
mod run;

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::append::{AppendFlags, append};
pub use self::health::health;
pub use self::run::{RunFlags, run};
use crate::http::AUDIT_WRITTEN;

/// Bytes of an answer that are read; ours have a few hundred.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// An answer of the sidecar.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    /// `Audit-Written` was `no`.
    not_written: bool,
    retry_after: Option<Duration>,
    body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// Nothing was sent: a retry is safe.
    #[error("cannot connect to the sidecar at {address}: {source}")]
    NotConnected {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    /// The event may have arrived.
    #[error("no answer from the sidecar: {0}")]
    Lost(String),
}

/// Why an event was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The sidecar refused it.
    #[error("refused with {status} {code}: {detail} (Audit-Written: {written})")]
    Refused {
        /// The status.
        status: u16,
        /// The stable code.
        code: String,
        /// What is wrong.
        detail: String,
        /// `no` or `unknown`.
        written: &'static str,
    },
    /// There was no answer; the event may have been recorded.
    #[error("{0}; the event may have been recorded, so it is not sent again")]
    Lost(String),
    /// It could not be sent in time.
    #[error("{0}; not recorded within {1:?}")]
    TimedOut(String, Duration),
}

/// The members of a refusal that are shown.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}

/// Posts one event until it is durable. Sent again is only what certainly left nothing on disk, for as long as `timeout`.
///
/// Returns the sidecar's answer, such as `{"ts":"…","segment":"audit-0_….jsonl","index":17}`.
///
/// # Errors
/// [`PostError`] says what is known of the event.
async fn post(address: SocketAddr, event: Bytes, timeout: Duration) -> Result<Bytes, PostError> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(50);
    loop {
        let tried = tokio::time::timeout_at(deadline, send(address, Method::POST, "/append", event.clone())).await;
        let (failure, wait) = match tried {
            Err(_) => return Err(PostError::Lost(format!("no answer within {timeout:?}"))),
            Ok(Ok(answer)) if answer.status == StatusCode::OK => return Ok(answer.body),
            Ok(Ok(answer)) => {
                let wait = answer.retry_after.unwrap_or(pause).min(RETRY_AFTER_MAX);
                let again = answer.not_written && (is_passing(answer.status) || answer.retry_after.is_some());
                let refused = answer.refusal();
                if !again {
                    return Err(refused);
                }
                (refused, wait)
            }
            Ok(Err(error @ NoAnswer::NotConnected { .. })) => (PostError::TimedOut(error.to_string(), timeout), pause),
            Ok(Err(NoAnswer::Lost(reason))) => return Err(PostError::Lost(reason)),
        };
        if Instant::now() + wait >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether a refusal may be over the next time: the disk, the queue, a slow start. A bad event stays bad.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

impl Answer {
    fn refusal(&self) -> PostError {
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        PostError::Refused {
            status: self.status.as_u16(),
            code: problem.code,
            detail: problem.detail,
            written: if self.not_written { "no" } else { "unknown" },
        }
    }
}

/// Sends one request on a connection of its own. No proxy is ever used.
async fn send(address: SocketAddr, method: Method, path: &str, body: Bytes) -> Result<Answer, NoAnswer> {
    let stream = TcpStream::connect(address).await.map_err(|source| NoAnswer::NotConnected { address, source })?;
    // 48291 lies in the ephemeral range: where nobody listens, a connection may be made to itself.
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        return Err(NoAnswer::NotConnected { address, source: std::io::ErrorKind::ConnectionRefused.into() });
    }
    let lost = |error: hyper::Error| NoAnswer::Lost(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| NoAnswer::Lost(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(lost)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| NoAnswer::Lost(error.to_string()))?.to_bytes();
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: parts.status,
            not_written: header(AUDIT_WRITTEN) == Some("no"),
            retry_after: header(RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs),
            body,
        })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The connection has ended badly, perhaps while the request was still being sent; the answer may be there.
        Err(error) = connection => {
            tokio::time::timeout(Duration::from_millis(100), exchange).await.unwrap_or(Err(lost(error)))
        }
    }
}

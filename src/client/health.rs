//! `audit-log health`: for exec probes.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use super::send;

/// How long a probe waits for an answer.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Asks whether the sidecar is ready, or, if `live`, whether it answers at all.
///
/// # Errors
/// Why it is not.
pub async fn health(address: SocketAddr, live: bool) -> anyhow::Result<()> {
    let path = if live { "/healthz" } else { "/readyz" };
    let asked = tokio::time::timeout(TIME_MAX, send(address, Method::GET, path, Bytes::new())).await;
    let answer = asked.map_err(|_| anyhow::anyhow!("no answer within {TIME_MAX:?}"))??;
    if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.refusal().into()) }
}

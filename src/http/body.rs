//! Request bodies: how much of them is read, and how much memory all of them together may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

use super::connections::{Arriving, BodyError};
use super::problem::{Code, Problem};

/// What is read and thrown away of a refused request, so that its client gets to see the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;
/// How long.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);

/// The memory that bodies may take, of requests or of answers, over all connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Makes a budget.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Reserves nothing yet.
    #[must_use]
    pub fn reserve(&self) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Reserves more, so that it is `bytes` in all; false if there is not so much.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let used = self.budget.used.fetch_add(more, Ordering::Relaxed) + more;
        if used > self.budget.bytes_max {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body of at most `bytes_max` bytes. The memory it takes is reserved as it arrives, not as it is announced.
///
/// # Errors
/// 413, 408, 503 `overloaded`, or 400 if the body's framing is broken.
pub(super) async fn read(body: &mut Arriving, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Reserved), Problem> {
    let mut reserved = budget.reserve();
    let first = next(body).await?.unwrap_or_default();
    check_length(first.len(), bytes_max)?;
    if body.is_end_stream() {
        // It came with its headers and lies in the connection's own buffer, so it takes no further memory: whoever fills
        // the budget with bodies that never end does not keep small events out.
        return Ok((first, reserved));
    }
    if !reserved.grow_to(first.len()) {
        return Err(overloaded());
    }
    let mut whole = first.to_vec();
    while let Some(more) = next(body).await? {
        let length = whole.len() + more.len();
        check_length(length, bytes_max)?;
        if length > whole.capacity() {
            // Twice as much as before, as a vector grows by itself, but reserved first.
            let capacity = length.max(whole.capacity() * 2).min(bytes_max);
            if !reserved.grow_to(capacity) {
                return Err(overloaded());
            }
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&more);
    }
    Ok((Bytes::from(whole), reserved))
}

/// Reads and throws away what is left of a refused request; returns whether that was all of it.
pub(super) async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> bool {
    if body.is_end_stream() {
        return true;
    }
    let discarding = async {
        let mut bytes = 0;
        while bytes <= DISCARD_BYTES_MAX {
            match next(body).await {
                Ok(Some(data)) => bytes += data.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    tokio::time::timeout(DISCARD_TIME_MAX, discarding).await.unwrap_or(false)
}

/// The refusal of a body of more than `bytes_max` bytes.
pub(super) fn check_length(length: usize, bytes_max: usize) -> Result<(), Problem> {
    if length > bytes_max {
        return Err(Problem::new(Code::TooLarge, format!("the body is longer than {bytes_max} bytes")));
    }
    Ok(())
}

fn overloaded() -> Problem {
    Problem::new(Code::Overloaded, "the memory for request bodies is full; try again")
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Late(_) => Code::Timeout,
            BodyError::Broken(_) => Code::AmbiguousRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// The next data of a body; trailers are passed over.
async fn next<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Result<Option<Bytes>, B::Error> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

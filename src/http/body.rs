//! Request bodies: how much of them is read, for how long, and how much memory all of them together may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use super::problem::{Code, Problem};

/// How long a body may take after its headers.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// What is read and thrown away of a refused request, so that its client gets to see the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;
/// How long.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(1);

/// The memory that bodies may take, over all connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Makes a budget.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    fn reserve(&self) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Reserves more, so that it is `bytes` in all; false if there is not so much.
    fn grow_to(&mut self, bytes: usize) -> bool {
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
pub(super) async fn read(body: &mut Body, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Reserved), Problem> {
    let reading = async {
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
    };
    match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(
            Code::Timeout,
            format!("the body was not complete {} seconds after its headers", BODY_TIME_MAX.as_secs()),
        )),
    }
}

/// Reads and throws away what is left of a refused request; returns whether that was all of it.
pub(super) async fn discard(body: &mut Body) -> bool {
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

/// The next data of a body; trailers are passed over.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|_| Problem::new(Code::AmbiguousRequest, "the body ended too early or its chunks are broken"))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

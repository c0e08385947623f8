//! Many events in one request: newline-delimited JSON.

use super::event::Event;
use super::json::EventError;

/// Events that one batch may hold.
pub const BATCH_EVENTS_MAX: usize = 10_000;

/// Why a batch was refused, as a whole.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A line is not an event. `line` counts from 1, blank lines included.
    #[error("{}, column {}", error.fault().what, error.fault().column)]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        error: EventError,
    },
    /// A line is longer than a single event's body may be.
    #[error("longer than {bytes_max} bytes")]
    LineTooLong {
        /// The line, from 1.
        line: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There are more than [`BATCH_EVENTS_MAX`] events.
    #[error("more than {BATCH_EVENTS_MAX} events in a batch")]
    TooMany {
        /// The line of the first event too many, from 1.
        line: usize,
    },
    /// There is no event.
    #[error("a batch without an event")]
    Empty,
}

/// Reads one event a line. Blank lines and a `\r` before the `\n` are allowed; a line without its newline at the end
/// counts as one. Line numbers are those of the body.
///
/// # Errors
/// The first line that is not an event refuses the batch, as does each limit.
pub fn parse_batch(body: &[u8], line_bytes_max: usize) -> Result<Vec<Event<'_>>, BatchError> {
    let mut events = Vec::new();
    for (index, text) in body.split(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            continue;
        }
        if text.len() > line_bytes_max {
            return Err(BatchError::LineTooLong { line, bytes_max: line_bytes_max });
        }
        if events.len() == BATCH_EVENTS_MAX {
            return Err(BatchError::TooMany { line });
        }
        events.push(Event::parse(text).map_err(|error| BatchError::Line { line, error })?);
    }
    if events.is_empty() { Err(BatchError::Empty) } else { Ok(events) }
}

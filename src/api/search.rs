//! Searching for a request: on a thread of its own, with its share of the memory, for as long as somebody waits for the answer.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderValue;
use serde::Serialize;
use tracing::{error, warn};

use super::gate::{SEARCH_BYTES_MAX, Turn};
use crate::clock::{Clock, SystemClock};
use crate::http::{Code, Problem};
use crate::reader::filter::Filter;
use crate::reader::listing::{Listing, Sources};
use crate::reader::search::{Coverage, Notice, Search};
use crate::reader::sorted::Sorted;

/// What was looked at for an answer. Of lines, segments and the rest, only those of segments that hold a record of the scope count.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[expect(clippy::struct_field_names, reason = "they are the words of the contract")]
pub(crate) struct Searched {
    /// Segments that there are.
    segments: u64,
    /// Segments whose lines were read, as far as they may match.
    searched: u64,
    /// Lines that were read, empty and damaged ones too.
    lines: u64,
    /// Bytes that were read.
    bytes: u64,
    /// Lines that are no record, and so in no answer.
    damaged: u64,
    /// Records that lie where those of another job or workspace belong, and so are in no answer.
    foreign: u64,
    /// Records whose answer hangs on a key of `meta` that is there more than once.
    ambiguous: u64,
    /// Segments and folders that could not be read, or not to their end: if this is not 0, the answer is not complete.
    unreadable: u64,
}

impl From<Coverage> for Searched {
    fn from(coverage: Coverage) -> Self {
        let Coverage { segments, searched, lines, bytes, damaged, foreign, ambiguous, unreadable } = coverage;
        Self { segments, searched, lines, bytes, damaged, foreign, ambiguous, unreadable }
    }
}

impl Searched {
    /// As a dictionary of RFC 9651, for a header.
    pub(super) fn header(&self) -> HeaderValue {
        let Self { segments, searched, lines, bytes, damaged, foreign, ambiguous, unreadable } = self;
        let text = format!(
            "segments={segments}, searched={searched}, lines={lines}, bytes={bytes}, damaged={damaged}, foreign={foreign}, \
             ambiguous={ambiguous}, unreadable={unreadable}"
        );
        HeaderValue::try_from(text).expect("names and numbers are plain")
    }
}

/// Ends a search when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Stop(pub(super) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `ask` on a thread that may block, and keeps the turn until it has ended. It is told so when nobody waits for it any more.
pub(crate) async fn run<T: Send + 'static>(
    turn: Turn,
    ask: impl FnOnce(&AtomicBool) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let stop = Stop::default();
    let is_stopped = Arc::clone(&stop.0);
    let asking = tokio::task::spawn_blocking(move || {
        let answer = ask(&is_stopped);
        drop(turn);
        answer
    });
    asking.await.expect("a search does not panic")
}

/// A search with the share of one request.
pub(crate) fn prepare<'s>(
    (sources, listing): (&'s Sources, &'s Listing),
    filter: &'s Filter,
    is_stopped: &'s AtomicBool,
) -> Search<'s> {
    Search::new((sources, listing), filter, &tell, is_stopped).memory(SEARCH_BYTES_MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "a notice is told by value")]
pub(super) fn tell(notice: Notice<'_>) {
    // Damaged and foreign lines are counted in the answer.
    let Notice::Unreadable { path, error } = notice else { return };
    let minute = SystemClock.steady().as_secs() / 60;
    let mut lately = LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    if lately.0 != minute {
        *lately = (minute, 0);
    }
    lately.1 += 1;
    match lately.1 {
        ..=UNREAD_LINES_MAX => warn!(path, %error, "not read"),
        more if more == UNREAD_LINES_MAX + 1 => warn!("more is not read than is told in a minute"),
        _ => {}
    }
}

/// Lines of the log in a minute about what can't be read: each search meets all of it again, and whoever can write to a folder can
/// make any number of such files.
const UNREAD_LINES_MAX: u32 = 100;
/// The minute, and such lines in it.
static LATELY: Mutex<(u64, u32)> = Mutex::new((0, 0));

/// In how many segments records were found that could not be read again; the log is told of each.
pub(crate) fn lost(sorted: &Sorted, listing: &Listing, sources: &Sources) -> u64 {
    let mut segments = 0;
    for (segment, error) in sorted.lost() {
        tell(Notice::Unreadable { path: &listing.segments[segment].path(sources), error });
        segments += 1;
    }
    segments
}

/// The refusal where a segment or a temporary file can't be read; the cause is for the log alone.
pub(crate) fn failed(error: &io::Error) -> Problem {
    error!(%error, "search failed");
    Problem::new(Code::StorageFailed, "a file can't be read or written; the log says why")
}

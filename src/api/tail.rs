//! Records as they appear: server-sent events.
//!
//! One thread reads for all streams: it looks at what the listing has noticed, and each stream's [`Follower`] reads on, as far as
//! the client has taken what was read before. A stream holds some KiB that were not taken yet, and no more is read for it; a long record waits
//! in a temporary file.
//!
//! Each record's id is where the follower is behind it, so that a client that comes back, here or at another console over the same
//! directories, goes on there. So it is behind what else a reader must be told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::error;

use super::Console;
use super::answer::{self, write_json};
use super::caller::{Caller, Rows};
use super::events::Item;
use super::filters::{self, FILTERS};
use super::gate::{LONG_BYTES, STREAMS_MAX};
use super::kept::Kept;
use super::library::News;
use super::parameters::{Parameter, Parameters};
use super::search;
use crate::clock::{Clock, SystemClock};
use crate::http::{Code, Problem};
use crate::reader::filter::Filter;
use crate::reader::follow::{Bookmark, Followed, Follower, Pace, Progress};
use crate::reader::lines::Buffer;
use crate::reader::listing::{Changes, Listing, Sources};
use crate::reader::output::{Columns, Drain};
use crate::reader::search::Notice;
use crate::reader::view::View;
use crate::record::{LINE_BYTES_MAX, Timestamp};

/// What a stream is asked for by, beside the filters.
pub(super) const TAIL: &[Parameter] = &[Parameter::text(
    "lastEventId",
    "",
    "The id of the last event that was received: the records behind it. The header `Last-Event-ID`, which browsers send by themselves, \
     comes first.",
)];

/// What is handed to the connection at once, and what is read for a stream before it is: the record that makes that longer is the last.
const PART_BYTES: usize = 32 << 10;
/// Damaged and foreign lines that are told one by one of what is read at once.
const NOTICES_MAX: u32 = 100;
/// Where nothing happens, so often a stream is told where it is, so that whoever is in between knows that it lives.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// How long is rested between two looks at segments in which something was found, and whether clients are gone.
const REST_MAX: Duration = Duration::from_millis(200);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The streams that there are.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    joining: Mutex<Joining>,
    /// There is something to do.
    called: Condvar,
}

#[derive(Debug, Default)]
struct Joining {
    streams: Vec<Joiner>,
    /// Those that there are, these included.
    count: usize,
    /// A client has taken what was read for it, or there is more to read.
    is_called: bool,
    is_running: bool,
}

/// A stream that is about to begin.
#[derive(Debug)]
struct Joiner {
    filter: Filter,
    columns: Option<Columns>,
    from: Option<Bookmark>,
    parts: mpsc::Sender<Bytes>,
    rows: Rows,
    /// The token's, as long as the stream is there.
    place: Option<OwnedSemaphorePermit>,
}

/// `GET /api/v1/events/tail`.
pub(super) async fn tail(
    State(console): State<Arc<Console>>,
    caller: Caller,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[FILTERS, TAIL])?;
    let unusable = |reason: String| Problem::parameter(Code::BadParameter, "lastEventId", None, reason);
    let from = match headers.get(LAST_EVENT_ID) {
        Some(id) => Some(id.to_str().map_err(|_| unusable("it is not the id of an event".to_owned()))?),
        None => parameters.one("lastEventId"),
    };
    let sources = console.library.sources();
    let from = from.filter(|id| !id.is_empty()).map(|id| Bookmark::parse(id, sources)).transpose();
    let from = from.map_err(|error| unusable(error.to_string()))?;
    let (criteria, _) = filters::criteria(&parameters, &console.views, SystemClock.now(), caller.scope.clone())?;
    let columns = filters::view(&parameters, &console.views)?.map(View::all);
    let claims = answer::claims(columns.as_ref());
    let (parts, receiver) = mpsc::channel(1);
    let (rows, place) = (Rows::default(), console.gate.stream(&caller)?);
    console.join(Joiner { filter: Filter::new(criteria), columns, from, parts, rows: rows.clone(), place })?;
    let mut ending = console.ending.clone();
    let over = Box::pin(async move {
        tokio::select! {
            () = caller.ended() => {}
            // That nobody can say it any more says it too.
            _ = ending.wait_for(|is_ending| *is_ending) => {}
        }
    });
    let mut response = Response::new(Body::new(Stream { console, receiver, over }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would gather events until it has some KiB of them.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response.extensions_mut().insert(rows);
    Ok((claims, response).into_response())
}

/// The body of an answer; it ends when the caller may no longer have it, or the console ends.
struct Stream {
    console: Arc<Console>,
    receiver: mpsc::Receiver<Bytes>,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        let part = self.receiver.poll_recv(cx);
        if part.is_ready() {
            self.console.tails.call();
        }
        part.map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

impl Console {
    /// Has a stream begin; the first one has the thread start.
    fn join(self: &Arc<Self>, joiner: Joiner) -> Result<(), Problem> {
        let mut joining = self.tails.lock();
        if joining.count == STREAMS_MAX {
            return Err(Problem::new(Code::Overloaded, "32 streams are open already; try again"));
        }
        if !joining.is_running {
            let console = Arc::clone(self);
            let started = std::thread::Builder::new().name("tail".to_owned()).spawn(move || run(&console));
            started.map_err(|_| Problem::new(Code::Overloaded, "there is no thread for it; try again"))?;
            joining.is_running = true;
        }
        joining.count += 1;
        joining.streams.push(joiner);
        self.tails.called.notify_one();
        Ok(())
    }
}

impl Tails {
    fn lock(&self) -> MutexGuard<'_, Joining> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread go on at once.
    fn call(&self) {
        self.lock().is_called = true;
        self.called.notify_one();
    }

    /// Waits so long, or until a stream comes or it is called, and takes those that have come; nothing if there is none any
    /// more, of which so many have gone.
    fn wait(&self, gone: usize, time: Duration) -> Option<Vec<Joiner>> {
        let mut joining = self.lock();
        joining.count -= gone;
        if joining.count > 0 {
            let is_quiet = |joining: &mut Joining| joining.streams.is_empty() && !joining.is_called;
            let waited = self.called.wait_timeout_while(joining, time, is_quiet);
            joining = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        joining.is_called = false;
        joining.is_running = joining.count > 0;
        joining.is_running.then(|| std::mem::take(&mut joining.streams))
    }
}

/// Reads for all streams, until there are none.
fn run(console: &Console) {
    let (mut tailing, mut buffer, mut pace) = (Vec::<Tailing>::new(), Buffer::default(), Pace::default());
    let (mut rest, mut gone) = (Duration::ZERO, 0);
    let mut look_at = Instant::now();
    while let Some(joiners) = console.tails.wait(gone, rest) {
        let sources = console.library.sources();
        let is_due = Instant::now() >= look_at || !joiners.is_empty();
        if is_due {
            let began = Instant::now();
            // At once, so that what was noticed before is not told to those who begin with what there is now.
            let News { changes, listing, at } = console.library.news();
            for tailing in &mut tailing {
                for (changes, at) in &changes {
                    tailing.follower.listed(sources, changes, *at);
                }
            }
            tailing.extend(joiners.into_iter().map(|joiner| Tailing::new(joiner, (sources, &listing), at)));
            let has_news = changes.iter().any(|(changes, _)| *changes != Changes::default());
            drop(listing);
            look_at = Instant::now() + pace.rest(began.elapsed(), has_news);
        }
        let count = tailing.len();
        tailing.retain_mut(|tailing| tailing.go_on(console, &mut buffer).is_continue());
        gone = count - tailing.len();
        rest = look_at.saturating_duration_since(Instant::now()).min(REST_MAX);
    }
    console.library.no_news();
}

/// A stream that goes on.
struct Tailing {
    follower: Follower,
    columns: Option<Columns>,
    parts: mpsc::Sender<Bytes>,
    rows: Rows,
    /// Events that the connection has not taken yet.
    waiting: Waiting,
    told_at: Instant,
    _place: Option<OwnedSemaphorePermit>,
}

impl Tailing {
    fn new(joiner: Joiner, files: (&Sources, &Listing), now: Timestamp) -> Self {
        let Joiner { filter, columns, from, parts, rows, place } = joiner;
        let follower = match &from {
            Some(bookmark) => Follower::resume(files, filter, now, bookmark),
            None => Follower::new(files, filter, now),
        };
        let begin = format!("retry: 1000\nid: {}\n\n", follower.bookmark(files.0)).into_bytes();
        let waiting = Waiting::Few(begin);
        Self { follower, columns, parts, rows, waiting, told_at: Instant::now(), _place: place }
    }

    /// Reads on, as far as the client takes it; breaks once that is gone.
    fn go_on(&mut self, console: &Console, buffer: &mut Buffer) -> ControlFlow<()> {
        let sources = console.library.sources();
        self.send()?;
        self.follower.look_again();
        if !self.waiting.is_empty() {
            return ControlFlow::Continue(());
        }
        let Self { follower, columns, rows, .. } = self;
        let part = RefCell::new(Part::default());
        let mut found = |found: &Followed<'_>| {
            let mut part = part.borrow_mut();
            part.record(found, columns.as_ref());
            rows.0.fetch_add(1, Ordering::Relaxed);
            let is_long = part.kept.bytes() > 0 || part.bytes.len() >= PART_BYTES;
            if is_long { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        // Nobody knows how long a line is before it is read.
        let progress = console.gate.long.alone(LINE_BYTES_MAX, || {
            follower.read(sources, buffer, &|notice| part.borrow_mut().tell(notice), &mut found)
        });
        let mut part = part.into_inner().end(|| self.follower.bookmark(sources));
        if part.is_empty() && self.told_at.elapsed() >= TELL_EVERY {
            part.bytes = format!(": still here\nid: {}\n\n", self.follower.bookmark(sources)).into_bytes();
        }
        match Waiting::new(part) {
            Ok(waiting) => self.waiting = waiting,
            Err(error) => return cut_off(&error),
        }
        if progress == Progress::More {
            console.tails.call();
        }
        self.send()
    }

    fn send(&mut self) -> ControlFlow<()> {
        if self.waiting.is_empty() {
            return if self.parts.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        match self.parts.try_reserve() {
            Ok(room) => {
                match self.waiting.take() {
                    Ok(part) => room.send(part),
                    Err(error) => return cut_off(&error),
                }
                self.told_at = Instant::now();
                ControlFlow::Continue(())
            }
            Err(TrySendError::Full(())) => ControlFlow::Continue(()),
            Err(TrySendError::Closed(())) => ControlFlow::Break(()),
        }
    }
}

/// Whoever comes back goes on where this has ended.
fn cut_off(error: &io::Error) -> ControlFlow<()> {
    error!(%error, "stream cut off");
    ControlFlow::Break(())
}

/// What waits to be sent.
enum Waiting {
    Few(Vec<u8>),
    /// In a temporary file, of which so many bytes are left.
    Many(File, u64),
}

impl Waiting {
    fn new(Part { mut bytes, mut kept, .. }: Part) -> io::Result<Self> {
        if kept.bytes() == 0 && bytes.len() <= 2 * PART_BYTES {
            return Ok(Self::Few(bytes));
        }
        kept.take(&mut bytes);
        let length = kept.bytes();
        Ok(kept.end()?.map_or(Self::Few(Vec::new()), |file| Self::Many(file, length)))
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(part) => part.is_empty(),
            Self::Many(_, left) => *left == 0,
        }
    }

    /// The next part to send.
    fn take(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Few(part) => Ok(std::mem::take(part).into()),
            Self::Many(file, left) => {
                let mut part = Vec::with_capacity(PART_BYTES);
                file.take(PART_BYTES as u64).read_to_end(&mut part)?;
                *left = if part.is_empty() { 0 } else { left.saturating_sub(part.len() as u64) };
                Ok(part.into())
            }
        }
    }
}

/// What was read at once, as events.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// What came before them.
    kept: Kept,
    has_notices: bool,
    /// Damaged and foreign lines that were told.
    told: u32,
    /// How many more there are, by their kinds and segments.
    more: BTreeMap<(&'static str, String), u64>,
}

/// A line or segment of which a stream tells by an event with a name.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Told<'t> {
    /// The path of the segment below its directory, without `.gz` and `.zst`.
    segment: &'t str,
    /// The number of the line in it, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    /// Why the line is no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of what was read of a segment that was cut, how much is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// How many more such lines there are in the segment, which are not told one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u64>,
}

impl<'t> Told<'t> {
    fn of(segment: &'t str) -> Self {
        Self { segment, index: None, reason: None, bytes: None, more: None }
    }
}

impl Part {
    fn tell(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Damaged { segment, index, damage } => {
                self.line(
                    "damaged",
                    &Told { index: Some(index), reason: Some(damage.to_string()), ..Told::of(segment) },
                );
            }
            Notice::Foreign { segment, index } => {
                self.line("foreign", &Told { index: Some(index), ..Told::of(segment) });
            }
            Notice::Cut { segment, bytes } => self.event("cut", &Told { bytes: Some(bytes), ..Told::of(segment) }),
            Notice::Unreadable { path, .. } => {
                self.event("unreadable", &Told::of(path));
                search::tell(notice);
            }
            Notice::Searched { .. } => {}
        }
    }

    fn line(&mut self, name: &'static str, told: &Told<'_>) {
        self.told += 1;
        if self.told <= NOTICES_MAX {
            self.event(name, told);
        } else {
            *self.more.entry((name, told.segment.to_owned())).or_default() += 1;
        }
    }

    fn event(&mut self, name: &str, told: &Told<'_>) {
        self.has_notices = true;
        self.bytes.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
        write_json(told, &mut self.bytes);
        self.bytes.extend_from_slice(b"\n\n");
    }

    /// All of it, with where the follower is if more than records is told.
    fn end(mut self, bookmark: impl FnOnce() -> Bookmark) -> Self {
        for ((name, segment), more) in std::mem::take(&mut self.more) {
            self.event(name, &Told { more: Some(more), ..Told::of(&segment) });
        }
        if self.has_notices {
            self.bytes.extend_from_slice(format!("id: {}\n\n", bookmark()).as_bytes());
        }
        self
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.kept.bytes() == 0
    }

    /// Adds an event: where the follower is behind it, and the record as pages show it.
    fn record(&mut self, found: &Followed<'_>, columns: Option<&Columns>) {
        let Self { bytes, kept, .. } = self;
        bytes.extend_from_slice(format!("id: {}\ndata: ", found.bookmark()).as_bytes());
        if let Some(columns) = columns {
            let mut keep = |bytes: &mut Vec<u8>| kept.take(bytes);
            columns.write_object(found.record, &found.place, bytes, &mut Drain::new(LONG_BYTES, &mut keep));
        } else {
            let start = bytes.len();
            write_json(&Item::new(found.record, &found.place), bytes);
            // Between the tokens of somebody else's line there may be one, which would end ours.
            bytes[start..].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        }
        bytes.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::filter::Criteria;
    use crate::reader::listing::Source;
    use crate::reader::record::Damage;

    #[test]
    fn of_many_damaged_lines_some_are_told_one_by_one_and_the_others_counted() {
        let mut part = Part::default();
        for index in 0..u64::from(NOTICES_MAX) + 7 {
            for segment in ["a", "b"] {
                let damage = Damage::NotJson;
                part.tell(if index % 2 == 0 {
                    Notice::Damaged { segment, index, damage }
                } else {
                    Notice::Foreign { segment, index }
                });
            }
        }
        let text = String::from_utf8(part.bytes.clone()).unwrap();
        assert_eq!(text.matches("\n\n").count(), NOTICES_MAX as usize);
        let first = "event: damaged\ndata: {\"segment\":\"a\",\"index\":0,\"reason\":\"not JSON\"}\n\n";
        assert!(text.starts_with(first), "{text}");
        assert_eq!(part.more.values().sum::<u64>(), u64::from(NOTICES_MAX) + 14);
        let more = part.more[&("foreign", "b".to_owned())];
        let temp = tempfile::tempdir().unwrap();
        let source = Source { name: None, path: temp.path().to_owned(), workspace: None };
        let sources = Sources::new(vec![source]).unwrap();
        let follower =
            Follower::new((&sources, &Listing::default()), Filter::new(Criteria::default()), Timestamp::from_millis(0));
        let bookmark = || follower.bookmark(&sources);
        let text = String::from_utf8(part.end(bookmark).bytes).unwrap();
        assert!(text.ends_with(&format!("id: {}\n\n", bookmark())), "{text}");
        assert!(text.contains(&format!("event: foreign\ndata: {{\"segment\":\"b\",\"more\":{more}}}\n\n")), "{text}");
    }

    /// However long, all of it is sent, in parts of a size.
    #[test]
    fn what_waits_is_sent_in_parts_and_a_long_record_is_not_held() {
        for length in [0, 1, 2 * PART_BYTES, 2 * PART_BYTES + 1, 7 * PART_BYTES + 5] {
            let bytes: Vec<u8> = (0..length).map(|nth| u8::try_from(nth % 251).unwrap()).collect();
            let mut waiting = Waiting::new(Part { bytes: bytes.clone(), ..Part::default() }).unwrap();
            assert_eq!(matches!(waiting, Waiting::Many(..)), length > 2 * PART_BYTES);
            let mut sent = Vec::new();
            while !waiting.is_empty() {
                let part = waiting.take().unwrap();
                assert!(!part.is_empty() && part.len() <= 2 * PART_BYTES);
                sent.extend_from_slice(&part);
            }
            assert!(sent == bytes, "{length}");
        }
    }
}

//! The write path: from an event to a durable line.
//!
//! One thread, the committer, owns every segment file. Whoever has events encodes them into the group that gathers in
//! the [`Appender`], and waits. When no commit is going on and the runtime's thread has nothing else to do, the
//! [`Dispatcher`] hands the group to the committer, and while that writes and syncs, the next one gathers: all that have
//! arrived share one sync, and no timer is needed (group commit).
//!
//! ```text
//! append() ──► group that gathers ──hand over──► commit: check, stamp, write, sync, check ──► outcome ──► every waiter
//!              (bounded, in memory)  (when idle)  (the thread `commit`, blocking calls)        (one wake-up a group)
//! ```
//!
//! # The commit protocol
//! 1. Rotate if the day has changed, the segment is full, or the clock has stepped back.
//! 2. Check that the segment's path still names the open file and that its length is what was written.
//! 3. If there is no segment: create one, named by the time taken just before its first line is stamped.
//! 4. Stamp all lines with one time, never less than the last; write them; sync the data; sync the directory if the
//!    segment is new.
//! 5. Check again. Only then are the lines acknowledged.
//!
//! # Failure
//! What was written without success is taken back: a segment is cut to its last durable length, a new one is removed,
//! and that change is synced. Only then may a client hear that nothing was written ([`Written::No`]). After a failed
//! sync the segment gets no more lines and its data is never synced again; the lines go, once, to a new segment.

mod commit;
mod queue;
mod segment;
#[cfg(test)]
mod simulation;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use self::commit::Committer;
use self::queue::{Encoded, Group, Ticket};
use crate::clock::{self, Clock};
use crate::durable::Directory;
use crate::metrics::Metrics;
use crate::record::{DAY_MS, Event, Identity, Timestamp, TooLong};

/// How the writer works. The defaults are those of the contract.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of lines that may wait for a commit or be in one. A larger request is admitted when there are none.
    pub queue_bytes_max: usize,
    /// Bytes of a segment. The next commit begins a new one if it would pass this, unless the segment is empty.
    pub segment_bytes_max: u64,
    /// How long a request waits for its commit.
    pub stall_after: Duration,
    /// How often an idle segment is checked.
    pub check_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_bytes_max: 8 << 20,
            segment_bytes_max: 128 << 20,
            stall_after: Duration::from_secs(30),
            check_every: Duration::from_mins(1),
        }
    }
}

/// Where a request's lines are, once they are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// The time that all of its lines carry.
    pub ts: Timestamp,
    /// The segment's file name.
    pub segment: Arc<str>,
    /// The number of the first line in the segment, from 0.
    pub index: u64,
    /// The lines.
    pub count: usize,
}

/// What is known of the lines of a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// None is on disk, and none will be. A retry is safe.
    No,
    /// They may be there; a retry may leave them twice.
    Unknown,
}

/// Why a commit failed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// No space, no quota, or the file size limit is too low for even one line.
    pub full: bool,
    /// What is known of the lines.
    pub written: Written,
    /// The error, for the log.
    pub cause: Arc<str>,
}

/// Why events were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// [`Options::queue_bytes_max`] bytes of lines wait already. Nothing was written.
    #[error("the queue is full")]
    Busy,
    /// The writer has been closed. Nothing was written.
    #[error("the writer is closed")]
    Closed,
    /// A line would be longer than readers accept, or a batch than memory allows. Nothing was written.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// No commit within [`Options::stall_after`].
    #[error("no commit within the time limit")]
    Stalled(Written),
    /// The commit failed.
    #[error("the commit failed: {}", .0.cause)]
    Refused(Refusal),
}

/// How the last commits went.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Why the last commit failed, if it did and none has succeeded since.
    pub failure: Option<Arc<str>>,
    /// How long the present commit has been going on.
    pub commit_for: Option<Duration>,
}

/// The handle by which events are appended. Clones share one queue.
#[derive(Clone)]
pub struct Appender {
    shared: Arc<Shared>,
}

/// The committer's thread. Dropping it without [`Writer::close`] leaves the thread running.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<()>,
    appender: Appender,
}

/// Hands groups of lines to the committer, and the outcomes of commits to the requests that wait for them.
///
/// It is a task on the same thread as the requests: the first line of a group wakes it, and so does the committer at the
/// end of a commit. It also keeps the time for all of them.
pub struct Dispatcher {
    shared: Arc<Shared>,
    finished: mpsc::UnboundedReceiver<Arc<Ticket>>,
    /// The group that is being committed.
    committing: Option<Arc<Ticket>>,
    /// How many requests the next group will have, if all that have had their answers come again.
    expected: usize,
}

struct Shared {
    identity: Identity,
    options: Options,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Held only to add to the gathering group, or to take it. Never across a system call on files.
    state: Mutex<State>,
    /// The committer waits here for work.
    work: Condvar,
    /// The dispatcher waits here for the first line of a group.
    gathered: Notify,
}

#[derive(Default)]
struct State {
    gathering: Group,
    /// The gathering group is the committer's to take.
    handed_over: bool,
    /// Bytes of the group that the committer has taken.
    committing_bytes: usize,
    /// Since when, by the steady clock.
    committing_since: Option<Duration>,
    failure: Option<Arc<str>>,
    closing: bool,
}

/// Starts the committer's thread on a directory.
///
/// [`Dispatcher::run`] must be polled, or nothing is committed before [`Writer::close`].
///
/// # Errors
/// Those of starting a thread.
pub fn spawn<D: Directory>(
    directory: D,
    identity: Identity,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    options: Options,
) -> std::io::Result<(Appender, Writer, Dispatcher)> {
    let committer =
        Committer::new(directory, identity.rank(), Arc::clone(&clock), Arc::clone(&metrics), options.segment_bytes_max);
    let (state, work, gathered) = Default::default();
    let shared = Arc::new(Shared { identity, options, clock, metrics, state, work, gathered });
    let appender = Appender { shared: Arc::clone(&shared) };
    let (finished_tx, finished) = mpsc::unbounded_channel();
    let dispatcher = Dispatcher { shared: Arc::clone(&shared), finished, committing: None, expected: 0 };
    let thread = std::thread::Builder::new()
        .name("commit".to_owned())
        // The deepest call chain copies a file through a buffer on the heap; 256 KiB are plenty.
        .stack_size(256 << 10)
        .spawn(move || commit_loop(&shared, committer, &finished_tx))?;
    Ok((appender.clone(), Writer { thread, appender }, dispatcher))
}

impl Appender {
    /// Queues the events of one request, which will share a commit, a segment and a time, in this order.
    ///
    /// Requests queued one after the other are committed in that order.
    ///
    /// # Errors
    /// [`AppendError::Busy`], [`AppendError::Closed`] or [`AppendError::TooLong`]; nothing was queued then.
    pub fn append(&self, events: &[Event<'_>]) -> Result<Receipt, AppendError> {
        drop(self.admit(0)?);
        // Not under the lock: many lines take many milliseconds, and everybody else would wait for it.
        let request = Encoded::new(&self.shared.identity, events)?;
        let mut state = self.admit(request.bytes.len())?;
        let now = clock::coarse();
        let number = state.gathering.push(request, now);
        let ticket = Arc::clone(&state.gathering.ticket);
        self.shared.metrics.queue_bytes.set(state.queue_bytes().try_into().unwrap_or(i64::MAX));
        drop(state);
        if number == 0 {
            self.shared.gathered.notify_one();
        }
        let late_at = now + self.shared.options.stall_after;
        Ok(Receipt { shared: Arc::clone(&self.shared), ticket, number, late_at })
    }

    /// The state, if it has room for so many bytes of lines: any number if there are no others.
    fn admit(&self, bytes: usize) -> Result<MutexGuard<'_, State>, AppendError> {
        let state = self.shared.lock();
        let (queued, bytes_max) = (state.queue_bytes(), self.shared.options.queue_bytes_max);
        if state.closing {
            return Err(AppendError::Closed);
        }
        if queued >= bytes_max || (queued > 0 && queued + bytes > bytes_max) {
            return Err(AppendError::Busy);
        }
        Ok(state)
    }

    /// Whether a request would be refused as [`AppendError::Busy`] whatever its size.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.shared.lock().queue_bytes() >= self.shared.options.queue_bytes_max
    }

    /// How the last commits went.
    #[must_use]
    pub fn health(&self) -> Health {
        let state = self.shared.lock();
        Health {
            failure: state.failure.clone(),
            commit_for: state.committing_since.map(|since| self.shared.clock.steady().saturating_sub(since)),
        }
    }
}

impl std::fmt::Debug for Appender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Appender").finish_non_exhaustive()
    }
}

impl Writer {
    /// Refuses further events, waits until every queued one is committed or refused, and ends the thread.
    ///
    /// Blocks as long as the file system does.
    pub fn close(self) {
        self.appender.shared.lock().closing = true;
        self.appender.shared.work.notify_one();
        // The thread only ends otherwise if it panicked, which ends the process in release builds.
        self.thread.join().expect("the committer does not panic");
    }
}

/// Bytes of lines at which a group is handed over although more requests are waiting to be read: sharing a sync among yet
/// more of them saves nothing that could be measured.
const GROUP_BYTES_ENOUGH: usize = 64 << 10;
/// How often it is looked in vain for requests that are expected: some 15 µs, where a commit takes a hundred and more.
const LOOKS_MAX: u32 = 16;
/// While a commit takes longer than anybody may wait, requests look so often in that time whether theirs is over.
const LATE_LOOKS: u32 = 300;
/// By how much [`clock::coarse`] is behind, at most: the longest tick that kernels have.
const TICK: Duration = Duration::from_millis(10);

impl Dispatcher {
    /// Hands groups over, and wakes waiting requests, until the writer is closed.
    pub async fn run(mut self) {
        let stall_after = self.shared.options.stall_after;
        let late = tokio::time::sleep(stall_after);
        tokio::pin!(late);
        loop {
            tokio::select! {
                biased;
                finished = self.finished.recv() => {
                    let Some(ticket) = finished else { return };
                    self.committing = None;
                    let answered = ticket.outcome.get().map_or(0, |outcome| outcome.entries.len());
                    self.expected = answered + self.shared.lock().gathering.entries.len();
                    ticket.done.notify_waiters();
                }
                () = self.shared.gathered.notified() => {}
                () = &mut late, if self.committing.is_some() => {
                    self.shared.lock().gathering.ticket.done.notify_waiters();
                    if let Some(ticket) = &self.committing {
                        ticket.done.notify_waiters();
                    }
                    late.as_mut().reset(Instant::now() + stall_after / LATE_LOOKS);
                }
            }
            if self.committing.is_none()
                && let Some(since) = self.hand_over().await
            {
                let left = (since + stall_after + TICK).saturating_sub(clock::coarse());
                late.as_mut().reset(Instant::now() + left);
            }
        }
    }

    /// Hands the gathering group to the committer once it holds all that clients have sent by now, or enough. Returns since
    /// when its first request has waited, if there is one.
    ///
    /// A commit costs as much CPU as twenty requests or more, so it should carry all that have arrived: every task that was
    /// ready has run without adding to the group. While there are fewer requests than expected it is looked some more times,
    /// which takes some microseconds; no time is waited for.
    async fn hand_over(&mut self) -> Option<Duration> {
        let (mut before, mut looks) = (0, 0);
        loop {
            let (requests, bytes) = {
                let state = self.shared.lock();
                (state.gathering.entries.len(), state.gathering.bytes.len())
            };
            if requests == 0 || bytes >= GROUP_BYTES_ENOUGH {
                break;
            }
            looks = if requests == before { looks + 1 } else { 0 };
            if looks >= if requests < self.expected { LOOKS_MAX } else { 1 } {
                break;
            }
            before = requests;
            tokio::task::yield_now().await;
        }
        let mut state = self.shared.lock();
        if state.gathering.is_empty() {
            return None;
        }
        state.handed_over = true;
        self.committing = Some(Arc::clone(&state.gathering.ticket));
        let since = state.gathering.since;
        drop(state);
        self.shared.work.notify_one();
        Some(since)
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// The promise of an outcome for one request.
pub struct Receipt {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
    number: usize,
    /// By [`clock::coarse`].
    late_at: Duration,
}

impl Receipt {
    /// Waits until the lines are durable.
    ///
    /// `Ok` means that the lines, their file and its directory entry are on stable storage.
    /// Cancellation: the lines are committed all the same; only the answer is lost.
    ///
    /// # Errors
    /// [`AppendError::Refused`] if the commit failed; [`AppendError::Stalled`] if there was none in time. Lines that
    /// the committer had not yet taken by then are withdrawn, and are [`Written::No`].
    pub async fn wait(self) -> Result<Ack, AppendError> {
        let outcome = loop {
            let done = self.ticket.done.notified();
            if let Some(outcome) = self.ticket.outcome.get() {
                break outcome;
            }
            if clock::coarse() >= self.late_at {
                return Err(AppendError::Stalled(self.withdraw()));
            }
            done.await;
        };
        outcome.of(self.number).map_err(AppendError::Refused)
    }

    fn withdraw(&self) -> Written {
        let mut state = self.shared.lock();
        if !Arc::ptr_eq(&state.gathering.ticket, &self.ticket) {
            return Written::Unknown;
        }
        state.gathering.withdraw(self.number);
        Written::No
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt").field("number", &self.number).finish_non_exhaustive()
    }
}

impl State {
    fn queue_bytes(&self) -> usize {
        self.gathering.bytes.len() + self.committing_bytes
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work. A group that has gathered is swapped for `spare`.
    fn take(&self, spare: &mut Group) -> Work {
        let wait = self.options.check_every.min(until_midnight(self.clock.now()));
        let mut state = self.lock();
        if !state.handed_over && !state.closing {
            state = self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.handed_over || (state.closing && !state.gathering.is_empty()) {
            state.handed_over = false;
            std::mem::swap(&mut state.gathering, spare);
            state.committing_bytes = spare.bytes.len();
            state.committing_since = Some(self.clock.steady());
            Work::Commit
        } else if state.closing {
            Work::Close
        } else {
            Work::Check
        }
    }

    /// Notes how a group ended. A group without lines, all of them withdrawn, says nothing of the disk.
    fn done(&self, outcome: &queue::Outcome) {
        let mut state = self.lock();
        state.committing_bytes = 0;
        state.committing_since = None;
        if let Some(last) = outcome.parts.last() {
            state.failure = last.result.as_ref().err().map(|refusal| Arc::clone(&refusal.cause));
        }
        self.metrics.queue_bytes.set(state.queue_bytes().try_into().unwrap_or(i64::MAX));
    }

    /// Does work that is no commit but keeps commits waiting, so that readiness sees how long it takes.
    fn meanwhile(&self, work: impl FnOnce()) {
        self.lock().committing_since = Some(self.clock.steady());
        work();
        self.lock().committing_since = None;
    }
}

enum Work {
    Commit,
    Check,
    Close,
}

fn commit_loop<D: Directory>(
    shared: &Shared,
    mut committer: Committer<D>,
    finished: &mpsc::UnboundedSender<Arc<Ticket>>,
) {
    /// Capacity that an empty group keeps for the next: above what a busy second needs, far below a burst's peak.
    const KEEP_BYTES: usize = 256 << 10;
    let mut group = Group::default();
    loop {
        match shared.take(&mut group) {
            Work::Commit => {
                let outcome = committer.commit(&mut group);
                shared.done(&outcome);
                let ticket = Arc::clone(&group.ticket);
                ticket.outcome.set(outcome).expect("a group is committed once");
                // Nobody listens once the process is about to end; the outcome is in the ticket all the same.
                drop(finished.send(ticket));
                group.recycle(KEEP_BYTES);
                if committer.has_orphans() {
                    shared.meanwhile(|| committer.mend());
                }
            }
            Work::Check => shared.meanwhile(|| committer.check()),
            Work::Close => return committer.end(),
        }
    }
}

fn until_midnight(now: Timestamp) -> Duration {
    let millis = DAY_MS - now.millis() % DAY_MS;
    Duration::from_millis(millis.try_into().expect("a day has its remainder before it"))
}

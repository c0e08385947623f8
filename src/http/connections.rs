//! Connections: accepted, served, bounded in number and in how long they may idle.
//!
//! A connection's plain requests are served here; from the first one that is not, hyper parses and frames. It knows no
//! bound on connections and no difference between an idle connection and one that is slow to send its headers. So each
//! connection notes what it is waiting for, and one task looks after all of
//! them twice a second. When there are as many as allowed, the one that has waited longest without a complete request
//! makes room for a new one: whoever holds many open can't lock others out.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::Either;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tracing::{debug, warn};

use super::append::queue_plain;
use super::problem::{Code, Problem};
use super::{Answer, Api, Routes, Tls, plain};
use crate::clock;
use crate::writer::Receipt;

/// Bounds on connections. The defaults are those of the contract.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// How long headers may take, from their first byte.
    pub header_time_max: Duration,
    /// How long a body may take after its headers.
    pub body_time_max: Duration,
    /// How long a connection may idle between requests.
    pub idle_time_max: Duration,
    /// How long whoever reads an answer that comes in parts may take nothing of it.
    pub stall_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_bytes_max: 16 << 10,
            header_time_max: Duration::from_secs(5),
            body_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(75),
            stall_time_max: Duration::from_secs(30),
        }
    }
}

/// How often connections are looked after; their time limits are kept to this exactness.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause after an accept that failed, for instance because the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves routes on listeners.
#[derive(Debug, Clone)]
pub struct Server {
    routes: Routes,
    /// Encrypts what whoever reads is told.
    tls: Option<Tls>,
    registry: Arc<Registry>,
    /// Set to true when nothing more is to be accepted.
    ending: watch::Sender<bool>,
}

#[derive(Debug)]
struct Registry {
    limits: Limits,
    connections: Mutex<Vec<Arc<Connection>>>,
    /// A connection has ended, or the first one has begun, or, when `crowded`, one has become idle.
    changed: Notify,
    /// Somebody waits in `admit`.
    crowded: AtomicBool,
    /// Connections are to end after their present request.
    ending: AtomicBool,
    gauge: IntGauge,
}

/// What one connection is doing. All fields are written by tasks of the one runtime thread.
#[derive(Debug)]
struct Connection {
    phase: AtomicU8,
    /// Since when there has been no complete request, by [`now_ms`].
    waiting_since_ms: AtomicU64,
    /// When the present headers, or the present body, began.
    phase_since_ms: AtomicU64,
    /// Since when the client has taken nothing of what lies ready for it; 0 while it does.
    stalled_since_ms: AtomicU64,
    /// The phase that has taken too long, if one has since the last answer.
    late: AtomicU8,
    /// Tells the connection's task that it is late, in the way of another, or to end.
    end: Notify,
}

/// What a connection is waiting for.
mod phase {
    /// The first byte of a request.
    pub(super) const IDLE: u8 = 0;
    /// The rest of the headers.
    pub(super) const HEADERS: u8 = 1;
    /// The rest of the body.
    pub(super) const BODY: u8 = 2;
    /// Us.
    pub(super) const ANSWER: u8 = 3;
    /// The rest of an answer that comes in parts; of those for whoever reads only.
    pub(super) const SENDING: u8 = 4;
    /// None of these.
    pub(super) const NONE: u8 = 5;
}

impl Server {
    /// Makes a server; `gauge` shows the number of its connections.
    #[must_use]
    pub fn new(routes: Routes, limits: Limits, gauge: IntGauge) -> Self {
        let registry = Registry {
            limits,
            connections: Mutex::default(),
            changed: Notify::new(),
            crowded: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            gauge,
        };
        Self { routes, tls: None, registry: Arc::new(registry), ending: watch::Sender::new(false) }
    }

    /// The same, with encrypted connections.
    #[must_use]
    pub fn encrypted(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Accepts connections until [`Server::end`] is called, and then those that wait already.
    pub async fn accept(&self, listener: TcpListener) {
        let mut ending = self.ending.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                // The sender lives in `self`, so this never fails.
                _ = ending.wait_for(|ending| *ending) => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = self.registry.admit().await;
            debug!(%peer, "connection accepted");
            // Answers are small and whole; waiting to fill a segment would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "TCP_NODELAY not set");
            }
            let server = self.clone();
            tokio::spawn(async move {
                server.serve(stream, &connection).await;
                server.registry.remove(&connection);
            });
        }
    }

    /// Closes connections that idle, or are slow to send their requests. Runs for ever.
    pub async fn look_after(&self) {
        loop {
            if self.registry.lock().is_empty() {
                self.registry.changed.notified().await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let now = now_ms();
            for connection in self.registry.lock().iter() {
                let phase = connection.phase.load(Ordering::Relaxed);
                if connection.is_late(phase, now, &self.registry.limits) {
                    connection.late.store(phase, Ordering::Relaxed);
                    connection.end.notify_one();
                }
            }
        }
    }

    /// Whether a request is being received or answered.
    #[must_use]
    pub fn has_open_request(&self) -> bool {
        self.registry.lock().iter().any(|connection| connection.phase.load(Ordering::Relaxed) != phase::IDLE)
    }

    /// Ends every connection after its present request, and waits until there is none. Requests whose body is still
    /// arriving after `patience`, and answers that nobody takes, are given up; those that wait for us are not.
    pub async fn end(&self, patience: Duration) {
        self.registry.ending.store(true, Ordering::Relaxed);
        self.ending.send_replace(true);
        self.registry.lock().iter().for_each(|connection| connection.end.notify_one());
        let none_left = async {
            loop {
                let changed = self.registry.changed.notified();
                if self.registry.lock().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        tokio::pin!(none_left);
        while tokio::time::timeout(patience, &mut none_left).await.is_err() {
            self.registry.lock().iter().for_each(|connection| connection.end.notify_one());
        }
    }

    async fn serve(&self, mut stream: TcpStream, connection: &Arc<Connection>) {
        if let Some(tls) = &self.tls {
            return Box::pin(self.serve_encrypted(tls, stream, connection)).await;
        }
        let rest = match &self.routes.api {
            Some(api) => self.serve_plain(api, &mut stream, connection).await,
            None => Some(Vec::new()),
        };
        if let Some(ahead) = rest {
            // In a box, as most connections never need the room that it takes.
            Box::pin(self.serve_any(stream, ahead, connection)).await;
        }
    }

    /// Serves a connection once both sides agree on keys, for which there is as much time as for headers.
    async fn serve_encrypted(&self, tls: &Tls, stream: TcpStream, connection: &Arc<Connection>) {
        connection.begin(phase::HEADERS);
        let accepted = tokio::select! {
            accepted = tls.accept(stream) => accepted,
            () = connection.end.notified() => return,
        };
        match accepted {
            Ok(stream) => {
                self.registry.answered(connection);
                self.serve_any(stream, Vec::new(), connection).await;
            }
            Err(error) => debug!(%error, "connection not encrypted"),
        }
    }

    /// Serves a connection for as long as its requests are plain. Returns what was read of one that is not, or nothing once
    /// the connection has ended.
    async fn serve_plain(&self, api: &Api, stream: &mut TcpStream, connection: &Connection) -> Option<Vec<u8>> {
        loop {
            let ending = || self.registry.ending.load(Ordering::Relaxed);
            let read = tokio::select! {
                // What has arrived is read before anything else is looked at.
                biased;
                read = poll_fn(|cx| self.poll_plain(api, stream, connection, cx)) => read,
                () = connection.end.notified() => {
                    if ending() {
                        continue;
                    }
                    return None;
                }
                // By then, it is known what lies in the socket.
                () = yield_now(), if ending() => return None,
            };
            let receipt = match read {
                Ok(Some(Read::Queued(receipt))) => receipt,
                Ok(Some(Read::Other(bytes))) => return Some(bytes),
                Ok(None) => return None,
                Err(error) => {
                    debug!(%error, "connection ended");
                    return None;
                }
            };
            let heard = api.drain.hear();
            let outcome = {
                let waiting = receipt.wait();
                tokio::pin!(waiting);
                loop {
                    tokio::select! {
                        biased;
                        outcome = &mut waiting => break outcome,
                        // It has a request by now; somebody else makes room.
                        () = connection.end.notified() => self.registry.changed.notify_waiters(),
                    }
                }
            };
            let close = self.registry.ending.load(Ordering::Relaxed);
            let answer = match outcome {
                Ok(ack) => api.answers.bytes(&ack, close),
                Err(error) => self.routes.count(error.into()).bytes(close),
            };
            drop(heard);
            self.registry.answered(connection);
            if !self.write(stream, &answer, connection).await || close {
                return None;
            }
        }
    }

    /// Sends an answer; false if the client is gone, or does not take it and has to go.
    async fn write(&self, stream: &mut TcpStream, answer: &[u8], connection: &Connection) -> bool {
        let writing = stream.write_all(answer);
        tokio::pin!(writing);
        let mut last_notice = false;
        loop {
            tokio::select! {
                biased;
                written = &mut writing => return written.inspect_err(|error| debug!(%error, "connection ended")).is_ok(),
                () = connection.end.notified() => {}
            }
            // The first notice of the end: it has until the second to be taken.
            if !self.registry.ending.load(Ordering::Relaxed) || std::mem::replace(&mut last_notice, true) {
                return false;
            }
        }
    }

    /// Reads once, into memory that all connections share, and queues what was read if it is a plain request.
    fn poll_plain(
        &self,
        api: &Api,
        stream: &mut TcpStream,
        connection: &Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Read>>> {
        let mut shared = api.read_buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = ReadBuf::new(&mut shared);
        std::task::ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let queued = plain::body(bytes, &self.routes.hosts).and_then(|body| queue_plain(api, body));
        Poll::Ready(Ok(Some(match queued {
            Some(receipt) => {
                connection.phase.store(phase::ANSWER, Ordering::Relaxed);
                Read::Queued(receipt)
            }
            None => Read::Other(bytes.to_vec()),
        })))
    }

    /// Serves a connection with all of HTTP; `ahead` was read from it already.
    async fn serve_any<S: Stream>(&self, stream: S, ahead: Vec<u8>, connection: &Arc<Connection>) {
        let registry = &self.registry;
        let is_for_readers = self.routes.is_for_readers();
        let io = TokioIo::new(Watched { stream, ahead, is_writing: false, connection: Arc::clone(connection) });
        let service = service_fn(|request: hyper::Request<Incoming>| async {
            let request = request.map(|body| Arriving::new(body, registry.limits.body_time_max, connection));
            let response = self.routes.answer(request).await;
            if is_for_readers {
                connection.begin(phase::SENDING);
                let sending =
                    |body| Sending { body, registry: Arc::clone(registry), connection: Arc::clone(connection) };
                return Ok::<_, Infallible>(response.map(|body| Either::Right(Body::new(sending(body)))));
            }
            registry.answered(connection);
            Ok(response)
        });
        let mut served = http1::Builder::new()
            // Whoever says that nothing more will come still wants the answer. A search ends when its client goes away, which
            // looks no different.
            .half_close(!is_for_readers)
            .writev(false)
            .max_header_size(registry.limits.header_bytes_max)
            // Beyond the head, so that it is the limit above that refuses one.
            .max_buf_size(registry.limits.header_bytes_max + 1024)
            .serve_connection(io, service);
        let mut last_request = false;
        loop {
            let ending = || registry.ending.load(Ordering::Relaxed);
            let notice = tokio::select! {
                // What has arrived is read before anything else is looked at.
                biased;
                result = &mut served => return log_end(result),
                () = connection.end.notified() => true,
                // By then, it is known what lies in the socket.
                () = yield_now(), if ending() && !last_request => false,
            };
            if ending() && !last_request {
                // The first notice of the end: the present request may still arrive.
                if !notice {
                    last_request = true;
                    Pin::new(&mut served).graceful_shutdown();
                }
                continue;
            }
            let (phase, late) = (connection.phase.load(Ordering::Relaxed), connection.late.load(Ordering::Relaxed));
            match phase {
                // A request that has become complete meanwhile is answered first; somebody else makes room.
                phase::ANSWER => registry.changed.notify_waiters(),
                // Whoever reads the body is told so by `Arriving`.
                phase::BODY if late == phase::BODY => {}
                // What was late has arrived meanwhile.
                _ if late != phase::NONE && late != phase => connection.late.store(phase::NONE, Ordering::Relaxed),
                _ => break,
            }
        }
        let late = connection.late.load(Ordering::Relaxed);
        let watched = served.into_parts().io.into_inner();
        if late == phase::HEADERS && !watched.is_writing {
            // What hyper can't say by itself: there is no request yet.
            let limit = registry.limits.header_time_max.as_secs();
            let detail = format!("the headers were not complete {limit} seconds after their first byte");
            let answer = self.routes.count(Problem::new(Code::Timeout, detail)).bytes(true);
            let mut stream = watched.stream;
            // Whoever does not take it within the second has been told to go all the same.
            let told = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&answer)).await;
            debug!(?told, "headers not complete in time");
        }
    }
}

fn log_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        debug!(%error, "connection ended");
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a connection, if need be by ending the one that has waited longest without a complete request,
    /// and registers it. Where every one has its request and waits for us, it waits until one is answered.
    async fn admit(&self) -> Arc<Connection> {
        loop {
            let changed = self.changed.notified();
            {
                let mut connections = self.lock();
                if connections.len() < self.limits.connections_max {
                    let connection = Arc::new(Connection {
                        phase: AtomicU8::new(phase::IDLE),
                        waiting_since_ms: AtomicU64::new(now_ms()),
                        phase_since_ms: AtomicU64::new(0),
                        stalled_since_ms: AtomicU64::new(0),
                        late: AtomicU8::new(phase::NONE),
                        end: Notify::new(),
                    });
                    connections.push(Arc::clone(&connection));
                    self.gauge.set(i64::try_from(connections.len()).expect("a small number"));
                    if connections.len() == 1 {
                        self.changed.notify_waiters();
                    }
                    return connection;
                }
                let longest = connections
                    .iter()
                    .filter(|connection| match connection.phase.load(Ordering::Relaxed) {
                        phase::ANSWER => false,
                        phase::SENDING => connection.stalled_since_ms.load(Ordering::Relaxed) > 0,
                        _ => true,
                    })
                    .min_by_key(|connection| connection.waiting_since_ms.load(Ordering::Relaxed));
                if let Some(longest) = longest {
                    longest.end.notify_one();
                }
                self.crowded.store(true, Ordering::Relaxed);
            }
            changed.await;
        }
    }

    /// Notes that a connection waits for its next request.
    fn answered(&self, connection: &Connection) {
        connection.waiting_since_ms.store(now_ms(), Ordering::Relaxed);
        connection.late.store(phase::NONE, Ordering::Relaxed);
        connection.phase.store(phase::IDLE, Ordering::Relaxed);
        if self.crowded.swap(false, Ordering::Relaxed) {
            self.changed.notify_waiters();
        }
    }

    fn remove(&self, ended: &Arc<Connection>) {
        let mut connections = self.lock();
        connections.retain(|connection| !Arc::ptr_eq(connection, ended));
        self.gauge.set(i64::try_from(connections.len()).expect("a small number"));
        self.changed.notify_waiters();
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::coarse().as_millis()).expect("no machine runs for 500 million years")
}

impl Connection {
    fn begin(&self, phase: u8) {
        self.phase_since_ms.store(now_ms(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn is_late(&self, phase: u8, now_ms: u64, limits: &Limits) -> bool {
        let passed = |since: &AtomicU64| Duration::from_millis(now_ms.saturating_sub(since.load(Ordering::Relaxed)));
        match phase {
            phase::IDLE => passed(&self.waiting_since_ms) >= limits.idle_time_max,
            phase::HEADERS => passed(&self.phase_since_ms) >= limits.header_time_max,
            phase::BODY => passed(&self.phase_since_ms) >= limits.body_time_max,
            phase::SENDING => {
                let is_stalled = self.stalled_since_ms.load(Ordering::Relaxed) > 0;
                is_stalled && passed(&self.stalled_since_ms) >= limits.stall_time_max
            }
            // Commits have their own limit.
            _ => false,
        }
    }
}

/// What one read of a connection gave.
enum Read {
    /// A plain request, which waits for its commit.
    Queued(Receipt),
    /// Something else.
    Other(Vec<u8>),
}

/// What requests come from, and answers go to.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream that notes when the first byte of a request arrives, and since when nothing of an answer is taken.
struct Watched<S> {
    stream: S,
    /// What was read before.
    ahead: Vec<u8>,
    /// An answer is on its way that the client has not taken in full.
    is_writing: bool,
    connection: Arc<Connection>,
}

impl<S: Stream> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = if self.ahead.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            // Whole, as a rule; the memory is given back.
            self.ahead = self.ahead.split_off(length);
            Poll::Ready(Ok(()))
        };
        // RFC 9112 §2.2: an empty line before a request is none.
        let begun = buffer.filled()[before..].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if begun && self.connection.phase.load(Ordering::Relaxed) == phase::IDLE {
            self.connection.begin(phase::HEADERS);
        }
        read
    }
}

impl<S> Watched<S> {
    fn note<T>(&mut self, written: &Poll<T>) {
        let was_writing = std::mem::replace(&mut self.is_writing, written.is_pending());
        if self.is_writing != was_writing {
            let since = if self.is_writing { now_ms().max(1) } else { 0 };
            self.connection.stalled_since_ms.store(since, Ordering::Relaxed);
        }
    }
}

impl<S: Stream> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The body of an answer that comes in parts: when it ends, or nobody wants it any more, the connection waits for the next
/// request.
struct Sending {
    body: Answer,
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.registry.answered(&self.connection);
    }
}

/// A body that notes when it is complete, and says so when its time is over.
pub(super) struct Arriving {
    body: Incoming,
    /// How long it may take; nothing once it was said that it has taken longer.
    time_max: Option<Duration>,
    connection: Arc<Connection>,
}

/// Why the rest of a body can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It took longer than [`Limits::body_time_max`].
    #[error("the body was not complete {} seconds after its headers", .0.as_secs())]
    Late(Duration),
    /// The connection ended, or its framing is wrong.
    #[error("the body ended too early or its chunks are broken")]
    Broken(#[source] hyper::Error),
}

impl Arriving {
    fn new(body: Incoming, time_max: Duration, connection: &Arc<Connection>) -> Self {
        let is_complete = hyper::body::Body::is_end_stream(&body);
        connection.begin(if is_complete { phase::ANSWER } else { phase::BODY });
        Self { body, time_max: Some(time_max), connection: Arc::clone(connection) }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let is_complete = match &frame {
            Poll::Pending if self.connection.late.load(Ordering::Relaxed) == phase::BODY => {
                // Said once: what is left may still be read and thrown away.
                return self
                    .time_max
                    .take()
                    .map_or(Poll::Pending, |time| Poll::Ready(Some(Err(BodyError::Late(time)))));
            }
            Poll::Pending => false,
            Poll::Ready(None) => true,
            Poll::Ready(Some(_)) => hyper::body::Body::is_end_stream(&self.body),
        };
        if is_complete {
            self.connection.phase.store(phase::ANSWER, Ordering::Relaxed);
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}

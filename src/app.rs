//! Wiring: what `serve` is made of, in the order in which it starts and stops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::rand::GetRandomFlags;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::file::FileSettings;
use crate::config::reload::Reload;
use crate::config::{Listen, ServeSettings, SettingError};
use crate::durable::{self, AuditDirectory, Directory, Owner};
use crate::http::{Answers, Api, BODIES_BYTES_MAX, Budget, Drain, Limits, PLAIN_BYTES_MAX, Readiness, Routes, Server};
use crate::metrics::Metrics;
use crate::retention::{self, Notice, Rule, Scope};
use crate::writer;

/// How long a port that is in use is tried again: 48291 lies in Linux's ephemeral range, so a client's own connection
/// may hold it for a moment.
const BIND_TIME_MAX: Duration = Duration::from_secs(5);
/// Connections that the kernel completes before they are accepted: as many as may be open, so that a burst of them fits. Whoever
/// finds this full tries again after a second, and the usual 128 are filled by one client within a few milliseconds.
const BACKLOG: u32 = 1024;
/// How often the directory is swept.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// How far the wall clock may run ahead of the time since the start, before it is not trusted with removals.
const CLOCK_AHEAD_MAX: Duration = Duration::from_hours(1);
/// Open files that connections may not take: segments, listeners, probes, sweeps.
const FILES_RESERVED: u64 = 64;
/// Connections of the metrics listener: a few scrapers and kubelets.
const METRICS_CONNECTIONS_MAX: usize = 32;
/// How often it is looked, while draining, whether there was an event.
const QUIET_LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long requests may still arrive once the drain is over.
const ARRIVE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the file system may take once every request has been answered, which is after 30 s at the latest.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// Where Kubernetes takes the reason of an exit from.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The sockets of a sidecar.
#[derive(Debug)]
pub struct Listeners {
    /// For the job.
    pub api: Vec<TcpListener>,
    /// For Prometheus.
    pub metrics: Option<TcpListener>,
}

/// The requests to stop. The first begins the drain, the second ends its waiting.
pub trait Signals: Send {
    /// Waits for the next request to stop.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// Parts of a sidecar that tests replace.
#[derive(Clone)]
pub struct Parts {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How the writer works.
    pub writer: writer::Options,
    /// Bounds on connections.
    pub limits: Limits,
}

impl Parts {
    /// Those of the real sidecar, for a process that may have `files_max` open files.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, files_max: Option<u64>) -> Self {
        Self { clock, writer: writer::Options::default(), limits: limits(files_max) }
    }
}

/// Bounds on connections, for a process that may have `files_max` open files.
#[must_use]
pub fn limits(files_max: Option<u64>) -> Limits {
    let mut limits = Limits::default();
    if let Some(files) = files_max {
        let connections = usize::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
        limits.connections_max = limits.connections_max.min(connections.max(1));
    }
    limits
}

/// Opens the audit directory.
///
/// # Errors
/// It does not exist, or may not be written to; the error names the setting, whose the directory is, and what helps.
pub fn open_directory(settings: &ServeSettings) -> Result<AuditDirectory, SettingError> {
    let dir = &settings.dir;
    let fault =
        |reason: String| SettingError { name: "--dir".to_owned(), reason: format!("{}: {reason}", dir.display()) };
    if settings.create_dir {
        durable::create_directories(dir).map_err(|error| fault(format!("cannot create it: {error}")))?;
    }
    let mut directory = AuditDirectory::open(dir, settings.file_mode).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => fault("does not exist; is the volume mounted? (--create-dir makes it)".to_owned()),
        _ => fault(format!("cannot be opened {}", by_whom_and_why(&error, dir))),
    })?;
    directory.probe().map_err(|error| fault(format!("cannot be written to {}", by_whom_and_why(&error, dir))))?;
    Ok(directory)
}

/// The user that is not allowed to, the error, and what helps against the usual ones: kubelet makes the folder of a subPath as
/// root's, and the job's mount of it, which is read-only, is easily copied to the sidecar.
fn by_whom_and_why(error: &io::Error, dir: &Path) -> String {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let reason = format!("by uid {uid}, gid {gid}: {error}");
    match (error.kind(), durable::owner(dir)) {
        (io::ErrorKind::ReadOnlyFilesystem, _) => {
            format!("{reason}; it is mounted read-only: the sidecar's volumeMount must not be readOnly")
        }
        (io::ErrorKind::PermissionDenied, Ok(Owner { uid, gid, mode })) => format!(
            "{reason}; it belongs to uid {uid}, gid {gid}, mode {mode:04o}: set fsGroup in the pod's securityContext, or \
             create the folder for this uid beforehand"
        ),
        _ => reason,
    }
}

/// Has the kernel make room for all the files that `limits` allow, which must be done before there are threads: it enlarges
/// the table by doubling it, and once a process has threads it waits 10 to 20 ms each time for every CPU to let go of the old
/// one. A thousand connections would be five such pauses, in which nobody is served.
///
/// # Errors
/// The process may not have so many files.
pub fn reserve_files(limits: &Limits) -> io::Result<()> {
    let last = limits.connections_max.saturating_add(usize::try_from(FILES_RESERVED).unwrap_or(usize::MAX)) - 1;
    let last = i32::try_from(last).unwrap_or(i32::MAX);
    // The table keeps its size when the copy is closed.
    rustix::io::fcntl_dupfd_cloexec(io::stderr(), last)?;
    Ok(())
}

/// Binds all sockets.
///
/// # Errors
/// A port is still in use after 5 s, or the host does not have the address.
pub async fn bind(settings: &ServeSettings) -> anyhow::Result<Listeners> {
    let deadline = Instant::now() + BIND_TIME_MAX;
    let mut api = Vec::new();
    for Listen { address, required } in &settings.listen {
        match bind_one(*address, deadline).await {
            Ok(listener) => api.push(listener),
            Err(error) if !required && is_missing_address(&error) => {
                info!(%address, "not listening: the host does not have this address");
            }
            Err(error) => return Err(error).with_context(|| format!("--listen: cannot listen on {address}")),
        }
    }
    let metrics = match settings.metrics_listen {
        None => None,
        Some(address) => {
            let bound = bind_one(address, deadline).await;
            Some(bound.with_context(|| format!("--metrics-listen: cannot listen on {address}"))?)
        }
    };
    Ok(Listeners { api, metrics })
}

/// Binds a socket.
///
/// # Errors
/// As [`bind`].
pub async fn bind_socket(address: SocketAddr) -> io::Result<TcpListener> {
    bind_one(address, Instant::now() + BIND_TIME_MAX).await
}

async fn bind_one(address: SocketAddr, deadline: Instant) -> io::Result<TcpListener> {
    loop {
        match listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bound => return bound,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a predecessor that are still in TIME_WAIT do not matter.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_missing_address(error: &io::Error) -> bool {
    /// Linux's number for "address family not supported": a kernel without IPv6.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Runs a sidecar until it is told to stop, and drains it.
///
/// # Errors
/// A thread can't be started, or the file system does not finish the last commit in time.
pub async fn run<D: Directory>(
    settings: ServeSettings,
    directory: D,
    listeners: Listeners,
    parts: Parts,
    mut signals: impl Signals,
) -> anyhow::Result<()> {
    let instance = unique_id(&*parts.clock)?;
    let metrics = Arc::new(Metrics::new(&instance));
    let probed = AuditDirectory::open(&settings.dir, settings.file_mode).context("--dir: cannot open it again")?;
    let (appender, writer, dispatcher) = writer::spawn(
        directory,
        settings.identity.clone(),
        Arc::clone(&parts.clock),
        Arc::clone(&metrics),
        parts.writer.clone(),
    )
    .context("cannot start the committer")?;
    let readiness = Arc::new(Readiness::new(instance.clone(), appender.clone(), Arc::clone(&metrics), probed));
    let drain = Arc::new(Drain::default());
    let api = Api {
        appender,
        metrics: Arc::clone(&metrics),
        readiness: Arc::clone(&readiness),
        drain: Arc::clone(&drain),
        budget: Budget::new(BODIES_BYTES_MAX),
        answers: Answers::default(),
        read_buffer: Mutex::new(vec![0; PLAIN_BYTES_MAX].into()),
        large_turn: Arc::default(),
    };
    let server = Server::new(Routes::sidecar(api, settings.hosts), parts.limits.clone(), metrics.connections.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(dispatcher.run());
    for listener in listeners.api {
        info!(address = %listener.local_addr().context("a bound socket has an address")?, instance, "listening");
        let server = server.clone();
        tasks.spawn(async move { server.accept(listener).await });
    }
    tasks.spawn({
        let server = server.clone();
        async move { server.look_after().await }
    });
    if let Some(listener) = listeners.metrics {
        info!(address = %listener.local_addr().context("a bound socket has an address")?, "metrics listening");
        let limits = Limits { connections_max: METRICS_CONNECTIONS_MAX, ..parts.limits.clone() };
        let gauge = prometheus::IntGauge::new("unlisted", "Scrapers are not counted.").context("the name is valid")?;
        let server = Server::new(Routes::probes(&readiness, &metrics), limits, gauge);
        tasks.spawn({
            let server = server.clone();
            async move { server.look_after().await }
        });
        tasks.spawn(async move { server.accept(listener).await });
    }
    let (reload, retention_rx) = Reload::new(settings.retention.clone(), Arc::clone(&metrics));
    tasks.spawn(reload.run());
    tasks.spawn(keep_swept(settings.dir.clone(), Arc::clone(&parts.clock), Arc::clone(&metrics), retention_rx));

    signals.next().await;
    info!("draining");
    let deadline = tokio::time::sleep(settings.drain_max);
    tokio::select! {
        () = quiet(&server, &drain, settings.drain_quiet) => {}
        () = signals.next() => info!("told twice, not waiting"),
        () = deadline => info!("drained for as long as allowed"),
    }
    drain.finish();
    let ended = end(&server, writer).await;
    tasks.abort_all();
    sum_up(&metrics, &instance);
    ended
}

/// A new UUIDv7 (RFC 9562 §5.7).
///
/// # Errors
/// The system has no random bytes.
pub fn unique_id(clock: &dyn Clock) -> anyhow::Result<String> {
    let random: [u8; 10] = random_bytes()?;
    let millis = clock.now().millis().unsigned_abs();
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string())
}

/// Bytes that nobody can foresee.
///
/// # Errors
/// The system has none.
pub fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut random = [0; N];
    let filled = rustix::rand::getrandom(&mut random, GetRandomFlags::empty()).context("no random bytes")?;
    anyhow::ensure!(filled == N, "not enough random bytes");
    Ok(random)
}

/// Waits until there has been neither an event nor an open request for the quiet time.
async fn quiet(server: &Server, drain: &Drain, time: Duration) {
    let (mut heard, mut since) = (drain.heard(), Instant::now());
    loop {
        if drain.heard() != heard || server.has_open_request() {
            (heard, since) = (drain.heard(), Instant::now());
        } else if since.elapsed() >= time {
            return;
        }
        tokio::time::sleep(QUIET_LOOK_EVERY).await;
    }
}

/// Finishes the open requests and closes the writer.
async fn end(server: &Server, writer: writer::Writer) -> anyhow::Result<()> {
    server.end(ARRIVE_TIME_MAX).await;
    let closing = tokio::task::spawn_blocking(move || writer.close());
    match tokio::time::timeout(CLOSE_TIME_MAX, closing).await {
        Ok(closed) => closed.context("the committer ended badly"),
        Err(_) => bail!(
            "the file system has not finished the last commit {} s after the last answer",
            CLOSE_TIME_MAX.as_secs()
        ),
    }
}

/// Sweeps the directory when the setting changes, at first included, and every hour.
async fn keep_swept(
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    mut settings: watch::Receiver<Option<FileSettings>>,
) {
    let (wall_begun, steady_begun) = (clock.now(), clock.steady());
    loop {
        // A sweep of the whole volume removes folders that are empty and old: this one is in use.
        let touched = dir.clone();
        let touched = tokio::task::spawn_blocking(move || durable::touch_directory(&touched)).await;
        if let Ok(Err(error)) = touched {
            warn!(%error, "the audit directory's time can't be set: a sweep of the whole volume may take it for an old one");
        }
        let days = settings.borrow_and_update().and_then(|settings| settings.retention_days);
        if let Some(days) = days {
            let now = clock.now();
            let believable = clock.steady().saturating_sub(steady_begun) + CLOCK_AHEAD_MAX;
            if now.millis() - wall_begun.millis() > i64::try_from(believable.as_millis()).unwrap_or(i64::MAX) {
                error!("the clock has run more than an hour ahead since the start: nothing is removed");
            } else {
                let (dir, metrics) = (dir.clone(), Arc::clone(&metrics));
                let swept = tokio::task::spawn_blocking(move || {
                    retention::sweep(&dir, Scope::Directory, Rule { days }, now, false, &mut |notice| {
                        if matches!(notice, Notice::Removed { .. }) {
                            metrics.segments_removed_total.inc();
                        }
                        log_notice(&notice);
                    })
                });
                match swept.await {
                    Ok(Ok(summary)) => info!(
                        segments = summary.segments,
                        removed = summary.removed,
                        removed_bytes = summary.removed_bytes,
                        errors = summary.errors,
                        "swept"
                    ),
                    Ok(Err(error)) => error!(%error, "the audit directory can't be swept"),
                    Err(error) => error!(%error, "the sweep ended badly"),
                }
            }
        }
        let changed = tokio::time::timeout(SWEEP_EVERY, settings.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            // Nobody reads the file any more: the sidecar is about to end.
            return;
        }
    }
}

/// Logs what a sweep tells.
pub fn log_notice(notice: &Notice<'_>) {
    match notice {
        Notice::Removed { path, bytes, newest, rule } => {
            let path = path.display();
            let rule = format!("retentionPeriodInDays={}", rule.days);
            info!(%path, bytes, %newest, rule, "segment removed");
        }
        Notice::RemovedFolder { path } => info!(path = %path.display(), "empty folder removed"),
        Notice::Hold { path } => info!(path = %path.display(), "on hold: nothing is removed at or below"),
        Notice::Kept { path, error } => warn!(path = %path.display(), %error, "kept because of an error"),
    }
}

/// One line about the whole run, for the log and for Kubernetes.
fn sum_up(metrics: &Metrics, instance: &str) {
    let events = metrics.appended_events_total.get();
    let bytes = metrics.appended_bytes_total.get();
    let segments = metrics.segments_opened_total.get();
    let refusals = metrics.refusals();
    let refusals: Vec<_> = refusals.iter().map(|(code, count)| format!("{code}={count}")).collect();
    let refusals = if refusals.is_empty() { "none".to_owned() } else { refusals.join(",") };
    info!(events, bytes, refusals, segments, instance, "stopped");
    let line = format!("appended {events} events, {bytes} bytes in {segments} segments; refusals: {refusals}\n");
    if let Err(error) = durable::overwrite_if_there(Path::new(TERMINATION_LOG), line.as_bytes()) {
        info!(%error, "no line for {TERMINATION_LOG}");
    }
}

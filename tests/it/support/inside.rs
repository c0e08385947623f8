//! The sidecar, or its writer alone, within the test's process: with a clock and a disk of the test's own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audit_log::app::{self, Listeners, Parts, Signals};
use audit_log::clock::{Clock, ManualClock};
use audit_log::config::ServeFlags;
use audit_log::http::Limits;
use audit_log::metrics::Metrics;
use audit_log::record::{Event, Identity, Timestamp};
use audit_log::writer::{self, Ack, AppendError, Appender, Writer};
use tokio::sync::mpsc;

use super::disk::{Faults, FaultyDirectory};
use super::{Client, JOB, Request, Response, WORKSPACE};

/// An ordinary moment: 2026-01-28T09:12:44.381Z.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_769_591_564_381);

/// A clock that goes on by a millisecond whenever somebody looks.
pub(crate) struct Ticking(pub(crate) ManualClock);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.pass(Duration::from_millis(1));
        self.0.now()
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }
}

/// A writer on a directory; its dispatcher runs on a thread of its own until the writer is closed.
pub(crate) struct Inside {
    runtime: tokio::runtime::Handle,
    pub(crate) appender: Appender,
    writer: Option<Writer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dir: PathBuf,
    temp: Option<tempfile::TempDir>,
}

/// Options by which an idle writer looks around often.
pub(crate) fn options() -> writer::Options {
    writer::Options { check_every: Duration::from_millis(5), ..writer::Options::default() }
}

impl Inside {
    pub(crate) fn start(clock: impl Clock, faults: &Faults, options: writer::Options) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut inside = Self::in_dir(temp.path(), clock, faults, options);
        inside.temp = Some(temp);
        inside
    }

    pub(crate) fn in_dir(dir: &Path, clock: impl Clock, faults: &Faults, options: writer::Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let metrics = Arc::new(Metrics::new("test"));
        let identity = Identity::new(JOB, WORKSPACE, 0).unwrap();
        let directory = FaultyDirectory::new(dir, faults);
        let (appender, writer, dispatcher) =
            writer::spawn(directory, identity, Arc::new(clock), Arc::clone(&metrics), options).unwrap();
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(dispatcher.run()));
        Self { runtime: handle, appender, writer: Some(writer), metrics, dir: dir.to_owned(), temp: None }
    }

    /// Queues an event of this name; the outcome is awaited by `outcome`.
    pub(crate) fn queue(&self, name: &str) -> Result<writer::Receipt, AppendError> {
        let body = format!("{{\"event\":\"{name}\"}}");
        self.appender.append(&[Event::parse(body.as_bytes()).unwrap()])
    }

    pub(crate) fn outcome(&self, receipt: writer::Receipt) -> Result<Ack, AppendError> {
        self.runtime.block_on(receipt.wait())
    }

    pub(crate) fn append(&self, name: &str) -> Result<Ack, AppendError> {
        let receipt = self.queue(name)?;
        self.outcome(receipt)
    }

    /// Has so many tasks of the dispatcher's thread append an event each, all of them ready at the same time.
    pub(crate) fn at_once(&self, requests: usize) {
        let appender = self.appender.clone();
        let all = self.runtime.spawn(async move {
            let tasks = (0..requests).map(|_| {
                let appender = appender.clone();
                tokio::spawn(async move {
                    let receipt = appender.append(&[Event::parse(br#"{"event":"at once"}"#).unwrap()]).unwrap();
                    receipt.wait().await.unwrap();
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        self.runtime.block_on(all).unwrap();
    }

    /// Names of events on disk, segment by segment; damaged lines fail the test.
    pub(crate) fn names(&self) -> Vec<Vec<String>> {
        super::segments(&self.dir)
            .into_iter()
            .map(|(segment, bytes)| {
                assert!(bytes.ends_with(b"\n"), "{segment} has a torn tail, or is empty");
                let lines = std::str::from_utf8(&bytes).unwrap().lines();
                let json = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                json.map(|line| line["event"].as_str().unwrap().to_owned()).collect()
            })
            .collect()
    }

    pub(crate) fn close(&mut self) {
        self.writer.take().unwrap().close();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take().filter(|_| !std::thread::panicking()) {
            writer.close();
        }
    }
}

/// The whole sidecar on a thread of its own.
pub(crate) struct InsideApp {
    pub(crate) address: SocketAddr,
    pub(crate) dir: PathBuf,
    stop: mpsc::UnboundedSender<Meanwhile>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
    _temp: tempfile::TempDir,
}

/// What is done when the signal is heard, before the app goes on.
type Meanwhile = Box<dyn FnOnce() + Send>;

struct Told(mpsc::UnboundedReceiver<Meanwhile>);

impl Signals for Told {
    async fn next(&mut self) {
        if let Some(meanwhile) = self.0.recv().await {
            meanwhile();
        }
    }
}

impl InsideApp {
    pub(crate) fn start(clock: impl Clock, faults: &Faults, options: writer::Options, config: Option<&Path>) -> Self {
        Self::with_limits(clock, faults, options, config, Limits::default())
    }

    pub(crate) fn with_limits(
        clock: impl Clock,
        faults: &Faults,
        options: writer::Options,
        config: Option<&Path>,
        limits: Limits,
    ) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("audit");
        std::fs::create_dir(&dir).unwrap();
        let mut flags = ServeFlags {
            job_id: Some(JOB.to_owned()),
            workspace_id: Some(WORKSPACE.to_owned()),
            dir: Some(dir.to_str().unwrap().to_owned()),
            ..ServeFlags::default()
        };
        flags.retention.config =
            Some(config.map_or("/nonexistent".to_owned(), |path| path.to_str().unwrap().to_owned()));
        let settings = flags.settings(&|_| None, None).unwrap();
        let directory = FaultyDirectory::new(&dir, faults);
        let mut parts = Parts::new(Arc::new(clock), None);
        parts.writer = options;
        parts.limits = limits;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, told) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let ended = runtime.block_on(async {
                let api = vec![tokio::net::TcpListener::from_std(listener).unwrap()];
                app::run(settings, directory, Listeners { api, metrics: None }, parts, Told(told)).await
            });
            runtime.shutdown_background();
            ended
        });
        Self { address, dir, stop, thread: Some(thread), _temp: temp }
    }

    pub(crate) fn send(&self, request: &Request) -> Response {
        Client::connect(self.address).send(request)
    }

    pub(crate) fn post(&self, name: &str) -> Response {
        self.send(&Request::post(format!("{{\"event\":\"{name}\"}}")))
    }

    pub(crate) fn tell_to_stop(&self) {
        self.tell_to_stop_and(|| {});
    }

    /// Tells it to stop, and has it hear of nothing else before `meanwhile` is done.
    pub(crate) fn tell_to_stop_and(&self, meanwhile: impl FnOnce() + Send + 'static) {
        // It may have stopped already.
        drop(self.stop.send(Box::new(meanwhile)));
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.tell_to_stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

//! `/healthz`, `/readyz` and `/metrics`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::problem::{Code, Problem};
use crate::durable::{AuditDirectory, Space};
use crate::metrics::Metrics;
use crate::writer::Appender;

/// A commit that takes longer makes the sidecar unready.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a probe waits for the file system.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// How often a probe changes something, where nobody appends. Commits are evidence enough where somebody does.
const CHANGE_EVERY: Duration = Duration::from_mins(1);

/// Knows whether the next append would probably succeed.
#[derive(Debug)]
pub struct Readiness {
    instance: String,
    appender: Appender,
    metrics: Arc<Metrics>,
    /// Locked by the one thread that asks the file system, so that one that hangs holds one thread and no more.
    watched: Arc<tokio::sync::Mutex<Watched>>,
}

/// The directory, and what the last probes have seen.
#[derive(Debug)]
struct Watched {
    directory: AuditDirectory,
    appended_events: u64,
    changed: Option<Instant>,
}

impl Watched {
    fn probe(&mut self, appended_events: u64) -> io::Result<Space> {
        let space = self.directory.probe()?;
        let idle = self.appended_events == appended_events;
        self.appended_events = appended_events;
        if idle && self.changed.is_none_or(|changed| changed.elapsed() >= CHANGE_EVERY) {
            self.directory.change()?;
            self.changed = Some(Instant::now());
        }
        Ok(space)
    }
}

impl Readiness {
    /// Watches an appender and its directory; `instance` is the id of this process.
    #[must_use]
    pub fn new(instance: String, appender: Appender, metrics: Arc<Metrics>, directory: AuditDirectory) -> Self {
        let watched = Watched { directory, appended_events: 0, changed: None };
        Self { instance, appender, metrics, watched: Arc::new(tokio::sync::Mutex::new(watched)) }
    }

    /// The reason why the sidecar is not ready, if it is not. Brings the metrics up to date.
    async fn check(&self) -> Result<(), String> {
        let space = self.look_at_directory().await;
        if let Ok(space) = space {
            self.metrics.directory_free_bytes.set(i64::try_from(space.free_bytes).unwrap_or(i64::MAX));
        }
        let health = self.appender.health();
        let checked = if let Some(cause) = health.failure {
            Err(format!("the last commit failed ({cause})"))
        } else if health.commit_for.is_some_and(|time| time > COMMIT_TIME_MAX) {
            Err(format!("a commit has taken more than {} seconds", COMMIT_TIME_MAX.as_secs()))
        } else {
            space.map(|_| ())
        };
        self.metrics.ready.set(checked.is_ok().into());
        checked
    }

    async fn look_at_directory(&self) -> Result<Space, String> {
        let silent = || "the file system of the audit directory does not answer".to_owned();
        let watched = Arc::clone(&self.watched);
        let appended_events = self.metrics.appended_events_total.get();
        let look = async {
            let mut watched = watched.lock_owned().await;
            tokio::task::spawn_blocking(move || watched.probe(appended_events)).await
        };
        match tokio::time::timeout(PROBE_TIME_MAX, look).await {
            Ok(Ok(Ok(space))) => Ok(space),
            Ok(Ok(Err(error))) => Err(format!("the audit directory can't be used ({error})")),
            Ok(Err(_)) | Err(_) => Err(silent()),
        }
    }

    pub(super) async fn readyz(&self) -> Response {
        match self.check().await {
            Ok(()) => json(&serde_json::json!({ "ready": true, "instance": self.instance })),
            Err(reason) => Problem::new(Code::NotReady, format!("{reason}; instance {}", self.instance))
                .response(false)
                .map(Body::new),
        }
    }

    pub(super) async fn metrics(&self) -> Response {
        // The reason is what /readyz is for; here it only sets the gauges.
        drop(self.check().await);
        let mut response = Response::new(Body::from(self.metrics.text()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
        response
    }
}

pub(super) fn healthz() -> Response {
    json(&serde_json::json!({ "alive": true }))
}

fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

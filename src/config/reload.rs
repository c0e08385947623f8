//! Watching the configuration file: read, compare, validate, publish. A bad file changes nothing.
//!
//! The file is read every second and its content compared. Notification by inotify loses the swap of `..data` by which
//! Kubernetes updates a ConfigMap volume; a read of a few kilobytes a second costs nothing.
//!
//! A file that is being written may hold, for a moment, `retentionPeriodInDays: 18` on its way to `180`. So content is
//! taken only once two reads in a row have found the same, at start as well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::RetentionSettings;
use super::file::{self, FileError, FileSettings};
use crate::metrics::Metrics;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What a read of the file gave.
type Content = Result<Vec<u8>, FileError>;

/// Watches a configuration file.
pub struct Reload {
    settings: RetentionSettings,
    metrics: Arc<Metrics>,
    publish: watch::Sender<Option<FileSettings>>,
    content: Settling<Content>,
}

/// What a file holds, as soon as two reads in a row have found the same.
#[derive(Debug)]
pub(super) struct Settling<T> {
    /// What was taken last.
    taken: Option<T>,
    /// What the last read found instead.
    seen: Option<T>,
}

impl<T: PartialEq> Settling<T> {
    /// Begins with what is taken already.
    pub(super) fn of(taken: T) -> Self {
        Self { taken: Some(taken), seen: None }
    }

    /// Looks at what a read has found, and hands it back if it is to be taken now.
    pub(super) fn consider(&mut self, content: T, is_settled: bool) -> Option<&T> {
        if self.taken.as_ref() == Some(&content) {
            self.seen = None;
        } else if is_settled || self.seen.as_ref() == Some(&content) {
            self.seen = None;
            return Some(self.taken.insert(content));
        } else {
            self.seen = Some(content);
        }
        None
    }
}

impl Reload {
    /// Makes a watcher. Settings are `None` until the file was good for the first time.
    #[must_use]
    pub fn new(settings: RetentionSettings, metrics: Arc<Metrics>) -> (Self, watch::Receiver<Option<FileSettings>>) {
        let (publish, settings_rx) = watch::channel(None);
        (Self { settings, metrics, publish, content: Settling { taken: None, seen: None } }, settings_rx)
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        loop {
            let path = self.settings.config.clone();
            // A file system that hangs holds up this task, and nothing else.
            let read = tokio::task::spawn_blocking(move || file::bytes(&path)).await;
            if let Ok(read) = read {
                self.consider(read);
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn consider(&mut self, content: Content) {
        // At start, a file that is not there is told at once.
        let is_settled = self.content.taken.is_none() && content.is_err();
        if let Some(content) = self.content.consider(content, is_settled).cloned() {
            self.take(&content);
        }
    }

    fn take(&self, content: &Content) {
        let parsed = content
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|bytes| file::parse(&self.settings.config, bytes, self.settings.floor_days));
        self.metrics.config_valid.set(parsed.is_ok().into());
        match parsed {
            Ok(settings) => {
                if let Some(days) = settings.retention_days {
                    info!(retention_days = days, "configuration read");
                } else {
                    warn!("configuration read: no retention period is set, nothing is ever removed");
                }
                self.metrics.retention_days.set(settings.retention_days.unwrap_or(0).into());
                self.publish.send_if_modified(|published| published.replace(settings) != Some(settings));
            }
            Err(error) if self.publish.borrow().is_none() => {
                error!(%error, "bad configuration: retention is off until it is mended");
            }
            Err(error) => error!(%error, "bad configuration: the old settings stay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: u32) -> Vec<u8> {
        format!("provider: {{auditLog: {{retentionPeriodInDays: {days}}}}}").into_bytes()
    }

    #[test]
    fn content_is_taken_once_it_stands_still_and_a_bad_file_changes_nothing() {
        let settings = RetentionSettings { config: "c".into(), floor_days: 1 };
        let (mut reload, published) = Reload::new(settings, Arc::new(Metrics::new("i")));
        let in_force = || published.borrow().map(|settings| settings.retention_days);
        let bad = || b"provider: [".to_vec();
        let steps: [(Vec<u8>, Option<Option<u32>>); 18] = [
            (bad(), None),
            (bad(), None),
            (days(180), None),
            (days(180), Some(Some(180))),
            (days(18), Some(Some(180))),
            (days(180), Some(Some(180))),
            (days(18), Some(Some(180))),
            (days(18), Some(Some(18))),
            (days(0), Some(Some(18))),
            (days(0), Some(Some(18))),
            (b"a: 1".to_vec(), Some(Some(18))),
            (b"a: 1".to_vec(), Some(None)),
            (days(7), Some(None)),
            (days(7), Some(Some(7))),
            (Vec::new(), Some(Some(7))),
            (days(7), Some(Some(7))),
            (Vec::new(), Some(Some(7))),
            (days(7), Some(Some(7))),
        ];
        for (number, (content, expected)) in steps.into_iter().enumerate() {
            reload.consider(Ok(content));
            assert_eq!(in_force(), expected, "step {number}");
        }
    }
}

//! Watching the configuration file: read, compare, validate, publish. A bad file changes nothing.
//!
//! The file is read every second and its content compared. Notification by inotify loses the swap of `..data` by which
//! Kubernetes updates a ConfigMap volume; a read of a few kilobytes a second costs nothing.
//!
//! A file that is being written may hold, for a moment, `retentionPeriodInDays: 18` on its way to `180`. So new content
//! is taken only once two reads in a row have found the same, or if it has not been changed for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::RetentionSettings;
use super::file::{self, FileError, FileSettings};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Content that is older than this is not just being written.
const SETTLED_MS: i64 = 2000;

/// What a read of the file gave.
type Content = Result<Vec<u8>, FileError>;

/// Watches a configuration file.
pub struct Reload {
    settings: RetentionSettings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    publish: watch::Sender<Option<FileSettings>>,
    /// What is in force, or was refused.
    taken: Option<Content>,
    /// What the last read found instead.
    seen: Option<Content>,
}

impl Reload {
    /// Makes a watcher. Settings are `None` until the file was good for the first time.
    #[must_use]
    pub fn new(
        settings: RetentionSettings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> (Self, watch::Receiver<Option<FileSettings>>) {
        let (publish, settings_rx) = watch::channel(None);
        (Self { settings, clock, metrics, publish, taken: None, seen: None }, settings_rx)
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        loop {
            let path = self.settings.config.clone();
            // A file system that hangs holds up this task, and nothing else.
            let read = tokio::task::spawn_blocking(move || file::bytes(&path)).await;
            if let Ok(read) = read {
                let settled = match &read {
                    Ok((_, modified)) => self.clock.now().millis().saturating_sub(modified.millis()) > SETTLED_MS,
                    Err(_) => self.taken.is_none(),
                };
                self.consider(read.map(|(bytes, _)| bytes), settled);
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    fn consider(&mut self, content: Content, settled: bool) {
        if self.taken.as_ref() == Some(&content) {
            self.seen = None;
        } else if settled || self.seen.as_ref() == Some(&content) {
            self.seen = None;
            self.take(&content);
            self.taken = Some(content);
        } else {
            self.seen = Some(content);
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
                self.publish.send_replace(Some(settings));
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
    use crate::clock::ManualClock;
    use crate::record::Timestamp;

    fn days(days: u32) -> Vec<u8> {
        format!("provider: {{auditLog: {{retentionPeriodInDays: {days}}}}}").into_bytes()
    }

    #[test]
    fn content_is_taken_once_it_stands_still_and_a_bad_file_changes_nothing() {
        let settings = RetentionSettings { config: "c".into(), floor_days: 1 };
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(0)));
        let (mut reload, published) = Reload::new(settings, clock, Arc::new(Metrics::new("i")));
        let in_force = || published.borrow().map(|settings| settings.retention_days);
        let steps: [(Vec<u8>, bool, Option<Option<u32>>); 11] = [
            (b"provider: [".to_vec(), true, None),
            (days(180), true, Some(Some(180))),
            (days(18), false, Some(Some(180))),
            (days(180), false, Some(Some(180))),
            (days(18), false, Some(Some(180))),
            (days(18), false, Some(Some(18))),
            (days(0), true, Some(Some(18))),
            (b"a: 1".to_vec(), true, Some(None)),
            (days(7), true, Some(Some(7))),
            (Vec::new(), false, Some(Some(7))),
            (days(7), false, Some(Some(7))),
        ];
        for (number, (content, settled, expected)) in steps.into_iter().enumerate() {
            reload.consider(Ok(content), settled);
            assert_eq!(in_force(), expected, "step {number}");
        }
    }
}

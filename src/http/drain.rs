//! When to stop taking events: after the job's last, if possible.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

/// Knows when the last event was heard of, and whether more are taken.
#[derive(Debug)]
pub struct Drain {
    heard: Mutex<Instant>,
    over: AtomicBool,
}

impl Default for Drain {
    fn default() -> Self {
        Self { heard: Mutex::new(Instant::now()), over: AtomicBool::new(false) }
    }
}

impl Drain {
    /// When an event was last sent or answered.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, no events are taken.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether events are refused.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes that an event is being sent, and, when the guard is dropped, that it was answered.
    pub(super) fn hear(&self) -> Hearing<'_> {
        self.note();
        Hearing(self)
    }

    fn note(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// An event that is being dealt with.
#[derive(Debug)]
pub(super) struct Hearing<'a>(&'a Drain);

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        self.0.note();
    }
}

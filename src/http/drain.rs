//! When to stop taking events: after the job's last, if possible.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Knows whether events have been heard of since somebody last looked, and whether more are taken.
#[derive(Debug, Default)]
pub struct Drain {
    heard: AtomicU64,
    over: AtomicBool,
}

impl Drain {
    /// How often an event was sent or answered.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
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
        self.heard.fetch_add(1, Ordering::Relaxed);
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

//! The only door to the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::record::Timestamp;

/// A wall clock, which may jump, and a steady one, which does not.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock's time.
    fn now(&self) -> Timestamp;

    /// Time since some fixed instant, sleep of the machine included. It never goes back.
    fn steady(&self) -> Duration;
}

/// Time since some fixed instant, behind by up to a tick of the kernel (1 to 10 ms), for limits of seconds: it costs a fraction
/// of what the exact time does.
#[must_use]
pub fn coarse() -> Duration {
    duration(clock_gettime(ClockId::MonotonicCoarse))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(
        time.tv_sec.try_into().expect("the time since boot is not negative"),
        time.tv_nsec.try_into().expect("nanoseconds are within a second"),
    )
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let time = clock_gettime(ClockId::Realtime);
        Timestamp::from_millis(time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000))
    }

    fn steady(&self) -> Duration {
        duration(clock_gettime(ClockId::Boottime))
    }
}

/// A clock for tests, which stands still until it is set. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    wall_ms: Arc<AtomicI64>,
    steady_ms: Arc<AtomicI64>,
}

impl ManualClock {
    /// Makes a clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { wall_ms: Arc::new(AtomicI64::new(now.millis())), steady_ms: Arc::default() }
    }

    /// Lets time pass, on both clocks.
    pub fn pass(&self, time: Duration) {
        let millis = i64::try_from(time.as_millis()).expect("tests let little time pass");
        self.wall_ms.fetch_add(millis, Ordering::SeqCst);
        self.steady_ms.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock, as an operator or NTP would: no time passes.
    pub fn set(&self, now: Timestamp) {
        self.wall_ms.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Duration {
        Duration::from_millis(self.steady_ms.load(Ordering::SeqCst).try_into().expect("it starts at 0 and grows"))
    }
}

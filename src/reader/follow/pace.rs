//! How long whoever follows rests between two looks.

use std::time::Duration;

/// As long as something is new.
const REST_MIN: Duration = Duration::from_millis(100);
/// Where nothing has been new for a while.
const REST_MAX: Duration = Duration::from_secs(1);
/// A look takes at most one part in so many of the time.
const SHARE: u32 = 20;

/// Rests that grow where nothing is new, from 100 ms to 1 s, and with what a look takes: 20 times as long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace(Duration);

impl Pace {
    /// How long to rest after a look that took so long.
    pub fn rest(&mut self, took: Duration, has_news: bool) -> Duration {
        self.0 = if has_news { REST_MIN } else { (self.0 * 2).clamp(REST_MIN, REST_MAX) };
        self.0.max(took * SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_nothing_rests_longer_and_who_looks_long_rests_longer_still() {
        let (mut pace, ms) = (Pace::default(), Duration::from_millis);
        let quiet: Vec<_> = (0..6).map(|_| pace.rest(ms(1), false).as_millis()).collect();
        assert_eq!(quiet, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pace.rest(ms(1), true), ms(100));
        assert_eq!(pace.rest(ms(300), true), ms(6000));
    }
}

//! Retention: which segments are old enough to go, and one pass that removes them.
//!
//! What decides is pure ([`Rule`]); what acts is [`sweep()`]. A segment goes when the youngest of three instants is older
//! than the period: its name's, its modification time, and the time of its last readable line. So neither a file
//! that somebody touched nor one that holds young events under an old name is removed, and an active segment, which is
//! never older than a day, is never old.

mod last_line;
mod sweep;

pub use self::sweep::{HOLD_FILE, Notice, Scope, Summary, sweep};
use crate::record::{DAY_MS, SegmentName, Timestamp};

/// The setting that removals are done by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The period in days of 86,400 s.
    pub days: u32,
}

/// What is to be done with a segment, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is young.
    Keep,
    /// Its name and its modification time are old; its last line decides.
    AskLastLine,
    /// It is old. The youngest instant that was found is `newest`.
    Remove {
        /// The youngest of its times.
        newest: Timestamp,
    },
}

impl Rule {
    /// Judges a segment by its name and its modification time.
    #[must_use]
    pub fn judge(self, name: &SegmentName, modified: Timestamp, now: Timestamp) -> Verdict {
        let newest = name.youngest().max(modified);
        if !self.is_old(newest, now) {
            Verdict::Keep
        } else if name.is_compressed() {
            Verdict::Remove { newest }
        } else {
            Verdict::AskLastLine
        }
    }

    /// Judges a segment that was to be asked, by the time of its last readable line, if it has one.
    #[must_use]
    pub fn judge_asked(
        self,
        name: &SegmentName,
        modified: Timestamp,
        last_line: Option<Timestamp>,
        now: Timestamp,
    ) -> Verdict {
        let newest = name.youngest().max(modified).max(last_line.unwrap_or(modified));
        if self.is_old(newest, now) { Verdict::Remove { newest } } else { Verdict::Keep }
    }

    /// Whether an instant lies more than the period before `now`.
    #[must_use]
    pub fn is_old(self, instant: Timestamp, now: Timestamp) -> bool {
        now.millis() - instant.millis() > i64::from(self.days) * DAY_MS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn name_at(millis: i64) -> SegmentName {
        SegmentName::new(0, Timestamp::from_millis(millis))
    }

    #[test]
    fn a_segment_is_old_one_millisecond_after_its_period() {
        let rule = Rule { days: 180 };
        let edge = NOW.millis() - 180 * DAY_MS;
        for (millis, old) in [(edge + 1, false), (edge, false), (edge - 1, true)] {
            let name = name_at(millis);
            let at = Timestamp::from_millis(millis);
            let expected = if old { Verdict::AskLastLine } else { Verdict::Keep };
            assert_eq!(rule.judge(&name, at, NOW), expected);
            let expected = if old { Verdict::Remove { newest: at } } else { Verdict::Keep };
            assert_eq!(rule.judge_asked(&name, at, Some(at), NOW), expected);
        }
    }

    #[test]
    fn a_daily_name_is_as_old_as_the_end_of_its_day() {
        let rule = Rule { days: 1 };
        let name: SegmentName = "audit-0-2026-01-28.jsonl".parse().unwrap();
        let old = Timestamp::from_millis(0);
        let end = Timestamp::parse_rfc3339("2026-01-30T00:00:00Z").unwrap();
        assert_eq!(rule.judge(&name, old, end), Verdict::Keep);
        assert_eq!(rule.judge(&name, old, end.plus_millis(1)), Verdict::AskLastLine);
    }

    #[test]
    fn a_compressed_segment_is_judged_without_its_lines() {
        let name: SegmentName = "audit-0_20200101T000000.000Z.jsonl.gz".parse().unwrap();
        assert!(matches!(Rule { days: 1 }.judge(&name, Timestamp::from_millis(0), NOW), Verdict::Remove { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_one_young_instant_keeps_a_segment(days in 1..=400u32, ages in prop::array::uniform3(-500..500i64), rest in 0..DAY_MS) {
            let rule = Rule { days };
            let [name, modified, line] = ages.map(|age| Timestamp::from_millis(NOW.millis() - age * DAY_MS - rest));
            let segment = SegmentName::new(3, name);
            let old = |at: Timestamp| NOW.millis() - at.millis() > i64::from(days) * DAY_MS;
            let verdict = match rule.judge(&segment, modified, NOW) {
                Verdict::AskLastLine => rule.judge_asked(&segment, modified, Some(line), NOW),
                verdict => verdict,
            };
            let all_old = old(name) && old(modified) && old(line);
            prop_assert_eq!(matches!(verdict, Verdict::Remove { .. }), all_old);
            if let Verdict::Remove { newest } = verdict {
                prop_assert_eq!(newest, name.max(modified).max(line));
            }
        }
    }
}

//! Instants as the format writes them: UTC, milliseconds.

use std::fmt;

use chrono::DateTime;
use serde::{Serialize, Serializer};

/// Milliseconds of a day of 86,400 s.
pub const DAY_MS: i64 = 86_400_000;

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z, within the years 1970 to 9999.
///
/// `Display` writes RFC 3339 with milliseconds and `Z`, always 24 bytes: `2026-01-28T09:12:44.381Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Bytes of the RFC 3339 form.
    pub const TEXT_BYTES: usize = 24;
    /// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Makes an instant of milliseconds since the epoch; what lies outside the years 1970 to 9999 is clamped.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < 0 {
            Self(0)
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole UTC days since the epoch.
    #[must_use]
    pub const fn day(self) -> i64 {
        self.0 / DAY_MS
    }

    /// This instant moved by `millis`, clamped like [`Timestamp::from_millis`].
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The RFC 3339 form as the bytes that go into a line.
    #[must_use]
    pub fn text(self) -> [u8; Self::TEXT_BYTES] {
        // Counted from 1 March of the year 0, so that the leap day is a year's last: Howard Hinnant, "chrono-Compatible Low-Level Date
        // Algorithms", `civil_from_days`, without its negative years. A library takes ten times as long, for every line of an export.
        let days = self.day() + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        let millis = u32::try_from(self.0 % DAY_MS).expect("a day has 86,400,000");
        let (seconds, ms) = (millis / 1000, millis % 1000);
        let (year, day) = (year + era * 400, u32::try_from(day).expect("at most 31"));
        let (year, month) = (u32::try_from(year).expect("at most 9999"), u32::try_from(month).expect("at most 12"));
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut write = |at: usize, value: u32| {
            let tens = value / 10;
            text[at] += u8::try_from(tens).expect("less than ten");
            text[at + 1] += u8::try_from(value - tens * 10).expect("a digit");
        };
        for (at, value) in [
            (0, year / 100),
            (2, year % 100),
            (5, month),
            (8, day),
            (11, seconds / 3600),
            (14, seconds / 60 % 60),
            (17, seconds % 60),
            (20, ms / 10),
        ] {
            write(at, value);
        }
        text[22] += u8::try_from(ms % 10).expect("a digit");
        text
    }

    /// Reads the form that [`Timestamp::text`] writes, and nothing else: without leap seconds.
    #[must_use]
    pub fn parse_text(text: &[u8; Self::TEXT_BYTES]) -> Option<Self> {
        let part = |from: usize, to: usize, range: std::ops::RangeInclusive<i64>| {
            digits(&text[from..to]).filter(|value| range.contains(value))
        };
        let separators = [text[4], text[7], text[10], text[13], text[16], text[19], text[23]];
        if separators != *b"--T::.Z" {
            return None;
        }
        let (year, month) = (part(0, 4, 1970..=9999)?, part(5, 7, 1..=12)?);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_in_month = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let day = part(8, 10, 1..=days_in_month)?;
        // Counted from 1 March of the year 0, so that the leap day is a year's last: Howard Hinnant, "chrono-Compatible
        // Low-Level Date Algorithms", `days_from_civil`, without its negative years.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        let (hours, minutes, seconds) = (part(11, 13, 0..=23)?, part(14, 16, 0..=59)?, part(17, 19, 0..=59)?);
        let seconds = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
        Some(Self::from_millis(seconds * 1000 + part(20, 23, 0..=999)?))
    }

    /// Reads an RFC 3339 instant with any offset, cut to milliseconds.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|at| Self::from_millis(at.timestamp_millis()))
    }

    /// The form used in segment names: `20260128T091244.381Z`.
    pub(crate) fn compact(self) -> String {
        self.text().iter().filter(|byte| !matches!(byte, b'-' | b':')).copied().map(char::from).collect()
    }

    /// Reads the form used in segment names, and nothing else.
    pub(crate) fn parse_compact(text: &str) -> Option<Self> {
        let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
        let (mut compact, mut spread) = (text.iter(), *b"____-__-__T__:__:__.___Z");
        for byte in spread.iter_mut().filter(|byte| !matches!(byte, b'-' | b':')) {
            *byte = *compact.next()?;
        }
        Self::parse_text(&spread)
    }

    #[cfg(test)]
    fn date_time(self) -> DateTime<chrono::Utc> {
        DateTime::from_timestamp_millis(self.0).expect("years 1970 to 9999 are in chrono's range")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).expect("it is ASCII"))
    }
}

/// The same text.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn digits(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instant_is_written_in_24_bytes_and_read_back() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_769_591_564_381, "2026-01-28T09:12:44.381Z"),
            (Timestamp::MAX.millis(), "9999-12-31T23:59:59.999Z"),
        ] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(at.to_string(), text);
            assert_eq!(at.text(), text.as_bytes());
            assert_eq!(Timestamp::parse_rfc3339(text), Some(at));
            assert_eq!(Timestamp::parse_compact(&at.compact()), Some(at));
        }
    }

    #[test]
    fn every_day_is_written_as_the_calendar_has_it() {
        let days = Timestamp::MAX.day();
        // The first and last instant of each day of three leap years' cycles, and of every eleventh day from then on.
        for day in (0..=1200 * 366).chain((1200 * 366..days).step_by(11)).chain([days]) {
            for millis in [day * DAY_MS, day * DAY_MS + DAY_MS - 1] {
                let at = Timestamp::from_millis(millis);
                assert_eq!(at.to_string(), at.date_time().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
            }
        }
    }

    #[test]
    fn what_rfc_3339_cannot_write_is_clamped() {
        assert_eq!(Timestamp::from_millis(-1).millis(), 0);
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus_millis(1), Timestamp::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_is_what_chrono_reads(millis in 0..=Timestamp::MAX.millis(), at in 0..24usize, byte: u8) {
            let mut text = Timestamp::from_millis(millis).text();
            prop_assert_eq!(Timestamp::parse_text(&text), Some(Timestamp::from_millis(millis)));
            text[at] = byte;
            if let Some(read) = Timestamp::parse_text(&text) {
                prop_assert_eq!(Timestamp::parse_rfc3339(str::from_utf8(&text).unwrap()), Some(read));
            }
        }
    }
}

//! Times as people write them, and the zones that they live in.

use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::error::FilterError;
use crate::record::{DAY_MS, Timestamp};

/// A time zone: whose rules turn a time on the wall into an instant and back.
///
/// The rules are in the program, and change with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Finds a zone: `UTC`, `local` (this machine's, by `TZ` or `/etc/localtime`), or a name of the IANA time zone
    /// database such as `Europe/Copenhagen`, in any case.
    ///
    /// # Errors
    /// There is no such zone, or it cannot be told which the machine's is.
    pub fn parse(name: &str) -> Result<Self, FilterError> {
        match name {
            "UTC" => Ok(Self::UTC),
            "local" => TimeZone::try_system().map(Self).map_err(|_| {
                FilterError::at(0, "this machine does not say what its time zone is; name one, as in Europe/Copenhagen")
            }),
            _ => TimeZone::get(name).map(Self).map_err(|_| {
                FilterError::at(0, "no such time zone; expected UTC, local or an IANA name, as in Europe/Copenhagen")
            }),
        }
    }

    /// Its name, as it was found.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("this machine's zone")
    }

    /// Writes an instant as a time of this zone: `2026-01-28T10:12:44.381+01:00`, with `Z` in UTC.
    #[must_use]
    pub fn text(&self, at: Timestamp) -> String {
        // The last day of 9999 is beyond jiff's instants.
        let instant = jiff::Timestamp::from_millisecond(at.millis()).ok().filter(|_| *self != Self::UTC);
        let Some(instant) = instant else { return at.to_string() };
        let offset = self.0.to_offset(instant);
        format!("{:.3}{}", offset.to_datetime(instant), offset_text(offset))
    }

    /// The first instant of the day that an instant is in.
    pub(super) fn day(&self, at: Timestamp) -> Timestamp {
        let Ok(instant) = jiff::Timestamp::from_millisecond(at.millis()) else {
            return Timestamp::from_millis(at.day() * DAY_MS);
        };
        let nanos = self.start_of_day(self.0.to_datetime(instant).date());
        Timestamp::from_millis(i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }

    /// The first instant of a day of this zone, in nanoseconds since 1970.
    fn start_of_day(&self, date: Date) -> i128 {
        let start = date.to_zoned(self.0.clone()).and_then(|midnight| midnight.start_of_day());
        start.map_or_else(|_| nanos_in_utc(date.at(0, 0, 0, 0)), |start| start.timestamp().as_nanosecond())
    }

    /// What this zone's clocks were ahead of UTC at a time that they showed, in seconds.
    fn offset_at(&self, local: DateTime) -> Result<i32, FilterError> {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => Ok(offset.seconds()),
            AmbiguousOffset::Gap { .. } => Err(FilterError::at(0, "the zone's clocks skip this time")),
            AmbiguousOffset::Fold { before, after } => {
                let (before, after) = (offset_text(before), offset_text(after));
                Err(FilterError::at(0, format!("the zone's clocks show this time twice; add {before} or {after}")))
            }
        }
    }
}

/// How times are written, as strftime(3) has it: `%d/%m/%Y %I:%M %p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat(String);

impl TimeFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// It has a conversion that there is none of, or that a time with a zone cannot fill.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let sample = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        match strtime::format(text, &sample) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(FilterError::at(0, format!("no format of a time: {error}"))),
        }
    }

    /// Writes an instant as a time of a zone.
    #[must_use]
    pub fn text(&self, at: Timestamp, zone: &Zone) -> String {
        let instant = jiff::Timestamp::from_millisecond(at.millis()).ok();
        let written = instant.and_then(|instant| strtime::format(&self.0, &instant.to_zoned(zone.0.clone())).ok());
        // The last day of 9999 is beyond jiff's instants.
        written.unwrap_or_else(|| at.to_string())
    }
}

/// The offset as RFC 3339 has it; the odd seconds that some zone had until 1972 are cut.
fn offset_text(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if offset.is_negative() { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// Nanoseconds from 1970 to a time on a clock that shows UTC.
fn nanos_in_utc(local: DateTime) -> i128 {
    local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_nanos()
}

/// Reads a time: an instant of RFC 3339 (`2026-01-28T09:12:44Z`), the same without an offset as a time of `zone`, a
/// date (`2026-01-28`, `2026-1-28`) as its first instant in `zone`, or an age before `now` (`90s`, `90m`, `24h`, `7d`,
/// `2w`; a day is 24 hours).
///
/// A space may stand for the `T`, and seconds may be missing. What is finer than a millisecond is rounded up, so that
/// "from T on" and "before T" hold for lines, whose times are whole milliseconds. What lies outside the years 1970 to
/// 9999 becomes the first or last instant of them.
///
/// # Errors
/// Tells what is wrong with the text. A time that the zone's clocks skip, or show twice, is none: with an offset it is
/// one.
pub fn parse(text: &str, zone: &Zone, now: Timestamp) -> Result<Timestamp, FilterError> {
    let mut reader = Reader { text, at: 0 };
    let nanos = match reader.date()? {
        Start::Age(millis) => return Ok(now.plus_millis(-millis)),
        Start::Date(date) if reader.is_at_end() => zone.start_of_day(date),
        Start::Date(date) => reader.time(date, zone)?,
    };
    let millis = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0);
    Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
}

/// What a time begins with.
enum Start {
    /// In milliseconds; that is all there is.
    Age(i64),
    Date(Date),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

const EXPECTED: &str = "expected a time (2026-01-28T09:12:44Z), a date (2026-01-28) or an age (24h, 7d, 90m)";

impl<'t> Reader<'t> {
    fn date(&mut self) -> Result<Start, FilterError> {
        let count = self.digits();
        if count.is_empty() {
            return Err(FilterError::at(0, EXPECTED));
        }
        if !self.takes('-') {
            let unit = self.at;
            let seconds = match self.text.get(unit..) {
                Some("s") => 1,
                Some("m") => 60,
                Some("h") => 3600,
                Some("d") => 86_400,
                Some("w") => 604_800,
                Some("") => {
                    return Err(FilterError::at(unit, "a number alone is no time; ages have a unit: s, m, h, d or w"));
                }
                _ => return Err(FilterError::at(unit, EXPECTED)),
            };
            let millis = count.parse().ok().and_then(|count: i64| count.checked_mul(seconds * 1000));
            return millis.map(Start::Age).ok_or_else(|| FilterError::at(0, "an age beyond all times"));
        }
        if count.len() != 4 {
            return Err(FilterError::at(0, "a year has four digits"));
        }
        let month = self.number(1, "a month")?;
        if !self.takes('-') {
            return Err(FilterError::at(self.at, "expected `-` and a day"));
        }
        let day = self.number(1, "a day")?;
        let year = count.parse().unwrap_or_default();
        Date::new(year, month, day).map(Start::Date).map_err(|_| FilterError::at(0, "no such day"))
    }

    /// Reads the rest of an instant, in nanoseconds since 1970.
    fn time(&mut self, date: Date, zone: &Zone) -> Result<i128, FilterError> {
        if !(self.takes('T') || self.takes('t') || self.takes(' ')) {
            return Err(FilterError::at(self.at, "expected `T` and a time of day, or the end"));
        }
        let start = self.at;
        let hour = self.number(2, "an hour")?;
        if !self.takes(':') {
            return Err(FilterError::at(self.at, "expected `:` and minutes"));
        }
        let minute = self.number(2, "minutes")?;
        let second = if self.takes(':') { self.number(2, "seconds")? } else { 0 };
        let mut nanos = 0;
        if self.takes('.') {
            let digits = self.digits();
            if digits.is_empty() {
                return Err(FilterError::at(self.at, "expected digits of a second"));
            }
            let padded = format!("{digits:0<9}");
            // What is finer than a nanosecond counts as one.
            let rest = padded.bytes().skip(9).any(|digit| digit != b'0');
            nanos = padded.get(..9).and_then(|digits| digits.parse().ok()).unwrap_or(0) + i128::from(rest);
        }
        // A leap second is the one after it to every clock of ours (RFC 3339 §5.7).
        let (second, leap) = if second == 60 { (59, 1_000_000_000) } else { (second, 0) };
        if hour > 23 || minute > 59 || second > 59 {
            return Err(FilterError::at(start, "no such time of day"));
        }
        let local = date.at(hour, minute, second, 0);
        let offset = self.offset(local, zone)?;
        Ok(nanos_in_utc(local) + leap + nanos - i128::from(offset) * 1_000_000_000)
    }

    /// Reads the offset, or takes the zone's; in seconds.
    fn offset(&mut self, local: DateTime, zone: &Zone) -> Result<i32, FilterError> {
        if self.is_at_end() {
            return zone.offset_at(local);
        }
        let start = self.at;
        let sign = match self.text.as_bytes()[start] {
            b'Z' | b'z' => 0,
            b'+' => 1,
            b'-' => -1,
            _ => return Err(FilterError::at(start, "expected `Z`, an offset as in +01:00, or the end")),
        };
        self.at += 1;
        let mut offset = 0;
        if sign != 0 {
            let hours = self.number(2, "an offset's hours")?;
            if !self.takes(':') {
                return Err(FilterError::at(self.at, "expected `:` and the offset's minutes"));
            }
            let minutes = self.number(2, "an offset's minutes")?;
            if hours > 23 || minutes > 59 {
                return Err(FilterError::at(start, "no such offset"));
            }
            offset = sign * (i32::from(hours) * 60 + i32::from(minutes)) * 60;
        }
        if self.is_at_end() { Ok(offset) } else { Err(FilterError::at(self.at, "expected the end")) }
    }

    /// Takes one or two digits, and at least so many.
    fn number(&mut self, digits_min: usize, what: &str) -> Result<i8, FilterError> {
        let start = self.at;
        let digits = self.digits();
        let is_right = (digits_min..=2).contains(&digits.len());
        let number = digits.parse().ok().filter(|_| is_right);
        number.ok_or_else(|| FilterError::at(start, format!("expected {what} of two digits")))
    }

    fn digits(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += count;
        &rest[..count]
    }

    fn takes(&mut self, char: char) -> bool {
        let stands_here = self.text[self.at..].starts_with(char);
        self.at += if stands_here { char.len_utf8() } else { 0 };
        stands_here
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_769_591_564_381);

    fn copenhagen() -> Zone {
        Zone::parse("Europe/Copenhagen").unwrap()
    }

    fn read(text: &str, zone: &Zone) -> String {
        parse(text, zone, NOW).unwrap_or_else(|error| panic!("{}", error.show(text))).to_string()
    }

    #[test]
    fn instants_dates_and_ages_are_read() {
        for (text, instant) in [
            ("2026-01-28T09:12:44.381Z", "2026-01-28T09:12:44.381Z"),
            ("2026-01-28t09:12:44z", "2026-01-28T09:12:44.000Z"),
            ("2026-01-28 10:12:44.5+01:00", "2026-01-28T09:12:44.500Z"),
            ("2026-01-28T00:00:00-23:59", "2026-01-28T23:59:00.000Z"),
            ("2026-01-28T09:12", "2026-01-28T09:12:00.000Z"),
            ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250Z"),
            ("2026-01-28", "2026-01-28T00:00:00.000Z"),
            ("2026-1-28", "2026-01-28T00:00:00.000Z"),
            ("2024-2-29", "2024-02-29T00:00:00.000Z"),
            ("24h", "2026-01-27T09:12:44.381Z"),
            ("7d", "2026-01-21T09:12:44.381Z"),
            ("90m", "2026-01-28T07:42:44.381Z"),
            ("0s", "2026-01-28T09:12:44.381Z"),
            ("2w", "2026-01-14T09:12:44.381Z"),
            ("99999999d", "1970-01-01T00:00:00.000Z"),
            ("1969-12-31", "1970-01-01T00:00:00.000Z"),
            ("9999-12-31", "9999-12-31T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(read(text, &Zone::UTC), instant, "{text}");
        }
    }

    #[test]
    fn without_an_offset_a_time_is_the_zones() {
        for (text, instant) in [
            ("2026-01-28T10:12:44.381", "2026-01-28T09:12:44.381Z"),
            ("2026-07-28T10:12:44", "2026-07-28T08:12:44.000Z"),
            ("2026-07-28T10:12:44Z", "2026-07-28T10:12:44.000Z"),
            ("2026-7-28", "2026-07-27T22:00:00.000Z"),
        ] {
            assert_eq!(read(text, &copenhagen()), instant, "{text}");
        }
        // Where a day begins at one, as its first hour is skipped.
        assert_eq!(read("2018-11-04", &Zone::parse("America/Sao_Paulo").unwrap()), "2018-11-04T03:00:00.000Z");
    }

    #[test]
    fn a_time_that_clocks_skip_or_show_twice_is_none() {
        let error = |text| parse(text, &copenhagen(), NOW).unwrap_err().to_string();
        assert!(error("2026-03-29T02:30:00").contains("skip"));
        assert!(error("2026-10-25T02:30:00").contains("add +02:00 or +01:00"));
        assert_eq!(read("2026-10-25T02:30:00+01:00", &copenhagen()), "2026-10-25T01:30:00.000Z");
    }

    #[test]
    fn what_is_finer_than_a_millisecond_is_rounded_up() {
        for (text, instant) in
            [("44.381", "44.381Z"), ("44.3810", "44.381Z"), ("44.3810000000001", "44.382Z"), ("44.9999", "45.000Z")]
        {
            assert_eq!(read(&format!("2026-01-28T09:12:{text}Z"), &Zone::UTC), format!("2026-01-28T09:12:{instant}"));
        }
    }

    #[test]
    fn what_is_no_time_is_refused_at_its_place() {
        for (text, offset, part) in [
            ("", 0, "expected a time"),
            ("yesterday", 0, "expected a time"),
            ("-1h", 0, "expected a time"),
            ("24", 2, "unit"),
            ("24 h", 2, "expected a time"),
            ("99999999999999999999d", 0, "beyond"),
            ("26-01-28", 0, "four digits"),
            ("2026-01", 7, "a day"),
            ("2026-001-28", 5, "a month"),
            ("2026-02-29", 0, "no such day"),
            ("2026-13-01", 0, "no such day"),
            ("2026-01-28x", 10, "`T`"),
            ("2026-01-28T9:12", 11, "an hour"),
            ("2026-01-28T24:00:00Z", 11, "no such time of day"),
            ("2026-01-28T09:60:00Z", 11, "no such time of day"),
            ("2026-01-28T09:12:61Z", 11, "no such time of day"),
            ("2026-01-28T09", 13, "minutes"),
            ("2026-01-28T09:12:44.Z", 20, "digits of a second"),
            ("2026-01-28T09:12:44é", 19, "offset"),
            ("2026-01-28T09:12:44+0100", 20, "hours"),
            ("2026-01-28T09:12:44+24:00", 19, "no such offset"),
            ("2026-01-28T09:12:44Zx", 20, "the end"),
        ] {
            let error = parse(text, &Zone::UTC, NOW).expect_err(text);
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn zones_are_found_by_name_and_write_their_times() {
        assert_eq!(Zone::UTC.text(NOW), "2026-01-28T09:12:44.381Z");
        for (name, text) in [
            ("UTC", "2026-01-28T09:12:44.381Z"),
            ("europe/copenhagen", "2026-01-28T10:12:44.381+01:00"),
            ("Asia/Kolkata", "2026-01-28T14:42:44.381+05:30"),
            ("America/St_Johns", "2026-01-28T05:42:44.381-03:30"),
        ] {
            assert_eq!(Zone::parse(name).unwrap().text(NOW), text);
        }
        // Where a machine says none, that is told.
        match Zone::parse("local") {
            Ok(zone) => assert_eq!(parse(&zone.text(NOW), &Zone::UTC, NOW), Ok(NOW)),
            Err(error) => assert!(error.to_string().contains("does not say")),
        }
        for name in ["", "Europe/Atlantis", "../../etc/passwd", "CPH"] {
            assert!(Zone::parse(name).is_err(), "{name}");
        }
        assert_eq!(copenhagen().text(Timestamp::MAX), Timestamp::MAX.to_string());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_zone_writes_is_read_back(millis in 0..=Timestamp::MAX.millis(), zone in 0..4usize) {
            // Not before 1972, when the last zone gave up its odd seconds.
            let at = Timestamp::from_millis(millis.max(2 * 366 * 86_400_000));
            let zone = Zone::parse(["UTC", "Europe/Copenhagen", "Asia/Kathmandu", "America/New_York"][zone]).unwrap();
            prop_assert_eq!(parse(&zone.text(at), &Zone::UTC, NOW).unwrap(), at);
        }

        #[test]
        fn any_text_is_a_time_or_has_a_fault_in_it(text in "(2026-01-28)?[T0-9:.+Z \\-hdé]{0,16}") {
            if let Err(error) = parse(&text, &copenhagen(), NOW) {
                prop_assert!(text.is_char_boundary(error.offset), "{} in {:?}", error.offset, text);
            }
        }
    }
}

//! Names of segments: `audit-<rank>_<timestamp>.jsonl`, and the daily names of UCloud's own server.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveDate;

use super::timestamp::{DAY_MS, Timestamp};

/// The name of a segment, as found in or given to an audit directory.
///
/// Ours is `audit-<rank>_<YYYYMMDDTHHMMSS.mmmZ>.jsonl`; UCloud's own server writes `audit-<rank>-<YYYY-MM-DD>.jsonl`.
/// Either may carry `.gz` or `.zst` once it was compressed. [`FromStr`] and [`fmt::Display`] are inverses: a name that
/// is not spelt exactly so (leading zeros, another case, an impossible date) is not a segment's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentName {
    rank: u32,
    opened: Opened,
    compression: Compression,
}

/// How a segment's content is packed, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Lines as they were written.
    Plain,
    /// gzip (RFC 1952): `.gz`.
    Gzip,
    /// Zstandard (RFC 8878): `.zst`.
    Zstd,
}

impl Compression {
    /// All of them, in the order in which readers prefer one name over another.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Gzip, Self::Zstd];

    /// What is added to the name: nothing, `.gz` or `.zst`.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// What a segment's name says of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// The instant just before the first line was stamped.
    At(Timestamp),
    /// A UTC day, in days since the epoch (UCloud's own server).
    OnDay(i64),
}

/// The text is not the name of a segment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not the name of a segment (`audit-<rank>_<YYYYMMDDTHHMMSS.mmmZ>.jsonl`)")]
pub struct SegmentNameError;

impl SegmentName {
    /// Names a new segment of `rank`, opened at `at`.
    #[must_use]
    pub fn new(rank: u32, at: Timestamp) -> Self {
        Self { rank, opened: Opened::At(at), compression: Compression::Plain }
    }

    /// The job's rank, from the name.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// The time that the name tells.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// The youngest instant that the name stands for: its own, or the end of its UTC day.
    #[must_use]
    pub fn youngest(&self) -> Timestamp {
        match self.opened {
            Opened::At(at) => at,
            Opened::OnDay(day) => Timestamp::from_millis((day + 1).saturating_mul(DAY_MS)),
        }
    }

    /// Whether the name says that the content is compressed.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.compression != Compression::Plain
    }

    /// How the name says that the content is packed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The name that the same segment has when it is packed so.
    #[must_use]
    pub fn packed(&self, compression: Compression) -> Self {
        Self { compression, ..self.clone() }
    }

    /// The oldest instant that the name stands for: its own, or the beginning of its UTC day.
    #[must_use]
    pub fn oldest(&self) -> Timestamp {
        match self.opened {
            Opened::At(at) => at,
            Opened::OnDay(day) => Timestamp::from_millis(day.saturating_mul(DAY_MS)),
        }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opened {
            Opened::At(at) => write!(f, "audit-{}_{}.jsonl{}", self.rank, at.compact(), self.compression.suffix()),
            Opened::OnDay(day) => {
                let date = i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days).expect("made from a date");
                write!(f, "audit-{}-{}.jsonl{}", self.rank, date.format("%Y-%m-%d"), self.compression.suffix())
            }
        }
    }
}

impl FromStr for SegmentName {
    type Err = SegmentNameError;

    fn from_str(text: &str) -> Result<Self, SegmentNameError> {
        parse(text).filter(|name| name.to_string() == text).ok_or(SegmentNameError)
    }
}

/// Reads a name without minding its exact spelling; the caller compares it with what `Display` makes of it.
fn parse(text: &str) -> Option<SegmentName> {
    let rest = text.strip_prefix("audit-")?;
    let (stem, compression) = Compression::ALL.iter().find_map(|&compression| {
        Some((rest.strip_suffix(compression.suffix())?.strip_suffix(".jsonl")?, compression))
    })?;
    let digits = stem.bytes().take_while(u8::is_ascii_digit).count();
    let rank = stem[..digits].parse().ok()?;
    let (separator, time) = stem[digits..].split_at_checked(1)?;
    let opened = match separator {
        "_" => Opened::At(Timestamp::parse_compact(time)?),
        "-" => {
            // Years of more or fewer digits, and of a sign, are chrono's, not UCloud's.
            let date = NaiveDate::parse_from_str(time, "%Y-%m-%d").ok().filter(|_| is_four_digits(time))?;
            Opened::OnDay(i64::from(date.to_epoch_days()))
        }
        _ => return None,
    };
    Some(SegmentName { rank, opened, compression })
}

fn is_four_digits(date: &str) -> bool {
    date.split('-').next().is_some_and(|year| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_servers_names_are_read_and_written_back() {
        for text in [
            "audit-0_20260128T091244.381Z.jsonl",
            "audit-4294967295_19700101T000000.000Z.jsonl",
            "audit-7_99991231T235959.999Z.jsonl.gz",
            "audit-7_20240229T000000.000Z.jsonl.zst",
            "audit-0-2026-01-28.jsonl",
            "audit-12-2024-02-29.jsonl.gz",
            "audit-12-2024-02-29.jsonl.zst",
        ] {
            let name: SegmentName = text.parse().expect(text);
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn a_look_alike_is_not_a_segment() {
        for text in [
            "",
            "audit-",
            "audit-0.jsonl",
            "audit-_20260128T091244.381Z.jsonl",
            "audit-00_20260128T091244.381Z.jsonl",
            "audit-01_20260128T091244.381Z.jsonl",
            "audit--1_20260128T091244.381Z.jsonl",
            "audit-+1_20260128T091244.381Z.jsonl",
            "audit-4294967296_20260128T091244.381Z.jsonl",
            "audit-0_20260128T091244.38Z.jsonl",
            "audit-0_20260128T091244.3811Z.jsonl",
            "audit-0_20260128T091244Z.jsonl",
            "audit-0_20260128t091244.381z.jsonl",
            "audit-0_20260228T246000.000Z.jsonl",
            "audit-0_20260128T091260.000Z.jsonl",
            "audit-0_20250229T000000.000Z.jsonl",
            "audit-0_2026-01-28.jsonl",
            "audit-0-2026-1-28.jsonl",
            "audit-0-2026-13-01.jsonl",
            "audit-0-+2026-01-28.jsonl",
            "audit-0-12026-01-28.jsonl",
            "audit-0-+12026-01-28.jsonl",
            "audit-0-+262142-12-31.jsonl",
            "audit-0--0001-01-28.jsonl",
            "audit-0_20260128T091244.381Z.json",
            "audit-0_20260128T091244.381Z.jsonl ",
            " audit-0_20260128T091244.381Z.jsonl",
            "Audit-0_20260128T091244.381Z.jsonl",
            "audit-0_20260128T091244.381Z.jsonl.bz2",
            "audit-0_20260128T091244.381Z.jsonl.gz.gz",
            "audit-0_20260128T091244.381Z.jsonl~",
            "audit-é_20260128T091244.381Z.jsonl",
            "audit-0é20260128T091244.381Z.jsonl",
            "audit-log.hold",
        ] {
            assert_eq!(text.parse::<SegmentName>(), Err(SegmentNameError), "{text}");
        }
    }

    #[test]
    fn a_name_tells_how_its_content_is_packed() {
        let plain: SegmentName = "audit-0-2026-01-28.jsonl".parse().unwrap();
        assert!(!plain.is_compressed());
        for compression in Compression::ALL {
            let name: SegmentName = format!("audit-0-2026-01-28.jsonl{}", compression.suffix()).parse().unwrap();
            assert_eq!((name.compression(), name.is_compressed()), (compression, compression != Compression::Plain));
            assert_eq!(name, plain.packed(compression));
        }
    }

    #[test]
    fn a_daily_name_stands_for_its_whole_day() {
        let name: SegmentName = "audit-0-2026-01-28.jsonl".parse().unwrap();
        assert_eq!(name.oldest().to_string(), "2026-01-28T00:00:00.000Z");
        assert_eq!(name.youngest().to_string(), "2026-01-29T00:00:00.000Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_name_we_make_is_read_back(rank: u32, millis in 0..=Timestamp::MAX.millis()) {
            let name = SegmentName::new(rank, Timestamp::from_millis(millis));
            prop_assert_eq!(name.to_string().parse::<SegmentName>(), Ok(name));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(audit-)?[0-9]{0,11}[-_é]?[0-9TZ:.-]{0,22}(\\.jsonl)?(\\.gz|\\.zst)?") {
            if let Ok(name) = text.parse::<SegmentName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}

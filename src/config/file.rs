//! The part of the platform's `config.yaml` that is ours.
//!
//! ```yaml
//! provider:
//!   auditLog:                      # or jobAuditLog
//!     retentionPeriodInDays: 180
//! ```
//!
//! The file is shared: what stands outside of that subtree is nobody's business here. Within it, whatever is not
//! understood is a fault, because a setting that is silently ignored is how evidence gets lost or kept too long.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

/// Days that a retention period may have; 100 years.
pub const RETENTION_DAYS_MAX: u32 = 36_500;
/// Bytes of a configuration file. A platform's has a few thousand.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The settings of the file that are ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSettings {
    /// Days after which a segment is removed; `None`: never.
    pub retention_days: Option<u32>,
}

/// What is wrong with a configuration file: file, line, column, key and reason.
///
/// ```text
/// /etc/cloud/config.yaml:5:28: provider.auditLog.retentionPeriodInDays: must be a whole number from 1 to 36500
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    file: PathBuf,
    /// Line and column, both from 1, where the fault has a place.
    place: Option<(u64, u64)>,
    key: Option<String>,
    reason: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Reads the settings from a file's text. `floor_days` is the shortest period that is allowed.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(file: &Path, text: &[u8], floor_days: u32) -> Result<FileSettings, FileError> {
    let fault = |place: Option<Location>, key: Option<&str>, reason: String| FileError {
        file: file.to_owned(),
        place: place.filter(|place| *place != Location::UNKNOWN).map(|place| (place.line(), place.column())),
        key: key.map(str::to_owned),
        reason,
    };
    let text = std::str::from_utf8(text).map_err(|_| fault(None, None, "not UTF-8".to_owned()))?;
    // Repeated keys outside of our subtree are let through; within it `Mapping` finds them.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let root: Option<Root> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        let reason = message.lines().next().unwrap_or_default();
        // The library begins with the place, which is told already.
        let reason = error.location().map_or(reason, |_| reason.splitn(3, ':').nth(2).unwrap_or(reason)).trim();
        fault(error.location(), None, reason.to_owned())
    })?;

    let root = root.unwrap_or_default();
    let provider = one("provider", root.0, &fault)?;
    let Some(Provider(sections)) = provider.and_then(|(_, provider)| provider) else {
        return Ok(FileSettings::default());
    };
    if let [(first, _), (second, _), ..] = sections.as_slice() {
        let reason =
            if first.value == second.value { "given twice" } else { "auditLog and jobAuditLog are the same; give one" };
        return Err(fault(Some(second.referenced), Some(&format!("provider.{}", second.value)), reason.to_owned()));
    }
    let Some((section, Some(settings))) = sections.into_iter().next() else {
        return Ok(FileSettings::default());
    };
    let path = |key: &str| format!("provider.{}.{key}", section.value);
    let mut retention = None;
    for (key, value) in settings.0 {
        match key.value.as_str() {
            RETENTION => {
                if retention.replace(value).is_some() {
                    return Err(fault(Some(key.referenced), Some(&path(RETENTION)), "given twice".to_owned()));
                }
            }
            free if free.starts_with("x-") => {}
            unknown => {
                let reason = format!("unknown key; only {RETENTION} is known here (x-… keys are free)");
                return Err(fault(Some(key.referenced), Some(&path(unknown)), reason));
            }
        }
    }
    let Some(value) = retention else { return Ok(FileSettings::default()) };
    let spelt = value.defined.span().byte_offset().zip(value.defined.span().byte_len()).and_then(|(offset, length)| {
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        text.get(offset..offset + length)
    });
    let days = spelt
        // A leading zero makes it octal for some readers of YAML.
        .filter(|spelt| spelt.bytes().all(|byte| byte.is_ascii_digit()) && !spelt.starts_with('0'))
        .and_then(|spelt| spelt.parse().ok())
        .filter(|days| (1..=RETENTION_DAYS_MAX).contains(days));
    let key = path(RETENTION);
    let Some(days) = days else {
        let reason = format!("must be a whole number of days from 1 to {RETENTION_DAYS_MAX}");
        return Err(fault(Some(value.referenced), Some(&key), reason));
    };
    if days < floor_days {
        let reason = format!("{days} days is shorter than the retention floor of {floor_days} days");
        return Err(fault(Some(value.referenced), Some(&key), reason));
    }
    Ok(FileSettings { retention_days: Some(days) })
}

/// Reads a file and the settings in it.
///
/// # Errors
/// The file can't be read, is no regular file, is larger than [`FILE_BYTES_MAX`], or [`parse`] finds a fault.
pub fn read(file: &Path, floor_days: u32) -> Result<FileSettings, FileError> {
    parse(file, &bytes(file)?, floor_days)
}

/// A file's content.
///
/// # Errors
/// As those of [`read`] that concern the file as such.
pub(super) fn bytes(file: &Path) -> Result<Vec<u8>, FileError> {
    crate::durable::read_file(file, FILE_BYTES_MAX).map_err(|error| FileError {
        file: file.to_owned(),
        place: None,
        key: None,
        reason: format!("cannot read it: {error}"),
    })
}

const RETENTION: &str = "retentionPeriodInDays";

/// The one entry of a key, if there is one.
fn one<T>(
    key: &str,
    mut entries: Vec<(Spanned<String>, T)>,
    fault: &impl Fn(Option<Location>, Option<&str>, String) -> FileError,
) -> Result<Option<(Spanned<String>, T)>, FileError> {
    if let Some((second, _)) = entries.get(1) {
        return Err(fault(Some(second.referenced), Some(key), "given twice".to_owned()));
    }
    Ok(entries.pop())
}

/// The file: its `provider` entries.
#[derive(Debug, Default)]
struct Root(Vec<(Spanned<String>, Option<Provider>)>);

/// `provider`: its `auditLog` and `jobAuditLog` entries.
#[derive(Debug, Default)]
struct Provider(Vec<(Spanned<String>, Option<Section>)>);

/// Our subtree: all of its entries. The values are looked up in the text, where their spelling is.
#[derive(Debug)]
struct Section(Vec<(Spanned<String>, Spanned<IgnoredAny>)>);

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(&["provider"], std::marker::PhantomData)).map(Root)
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = &["auditLog", "jobAuditLog"];
        deserializer.deserialize_map(Entries(names, std::marker::PhantomData)).map(Provider)
    }
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(&[], std::marker::PhantomData)).map(Section)
    }
}

/// Collects a mapping's entries of some names, or all where no name is given, in their order and with their places.
struct Entries<T>(&'static [&'static str], std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Vec<(Spanned<String>, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let Spanned { value: Key(name), referenced, defined } = key;
            if self.0.is_empty() || self.0.contains(&name.as_str()) {
                entries.push((Spanned { value: name, referenced, defined }, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(entries)
    }
}

/// A key: its text, or nothing where it is no text, for instance a null or a list. None of ours is empty.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<Key, E> {
        Ok(Key(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
        Ok(Key(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Key, E> {
        Ok(Key(String::new()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Key, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Key(String::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Key, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Key(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Option<u32>, String> {
        parse(Path::new("c.yaml"), text.as_bytes(), 1).map(|s| s.retention_days).map_err(|error| error.to_string())
    }

    #[test]
    fn the_period_is_read_under_both_names_and_among_the_platforms_own_keys() {
        for (text, days) in [
            ("", None),
            ("# nothing\n", None),
            ("provider:\n", None),
            ("provider:\n  id: k8s\n", None),
            ("provider:\n  auditLog:\n", None),
            ("provider:\n  auditLog: {}\n", None),
            ("provider:\n  auditLog:\n    x-note: 1\n", None),
            ("provider:\n  id: k8s\n\n  auditLog:\n    retentionPeriodInDays: 180\n", Some(180)),
            ("provider:\n  jobAuditLog:\n    retentionPeriodInDays: 1\n", Some(1)),
            ("provider: {auditLog: {retentionPeriodInDays: 36500, x-a: {b: [1]}}}", Some(36_500)),
            (
                "a: 1\na: 2\nother: [1, {b: !secret c}]\nprovider:\n  auditLog:\n    retentionPeriodInDays: 7 # days\n",
                Some(7),
            ),
            ("auditLog:\n  retentionPeriodInDays: 5\n", None),
            ("days: &days 90\nprovider:\n  auditLog:\n    retentionPeriodInDays: *days\n", Some(90)),
            ("---\nprovider:\r\n  auditLog:\r\n    retentionPeriodInDays: 30\r\n", Some(30)),
            (
                "~: x\n? {a: b}\n: 1\n? [c]\n: 2\n1: 2\ntrue: x\nprovider:\n  2: 3\n  auditLog: {retentionPeriodInDays: 3}\n",
                Some(3),
            ),
            ("{\"provider\": {\"auditLog\": {\"retentionPeriodInDays\": 12}}}", Some(12)),
        ] {
            assert_eq!(settings(text), Ok(days), "{text}");
        }
    }

    #[test]
    fn a_bad_setting_is_told_with_file_line_column_key_and_reason() {
        let days = |value: &str| format!("provider:\n  auditLog:\n    retentionPeriodInDays: {value}\n");
        for value in [
            "0",
            "-1",
            "36501",
            "1.5",
            "180.0",
            "\"180\"",
            "'180'",
            "1_000",
            "0xB4",
            "1e3",
            "",
            "~",
            "null",
            "true",
            "180 days",
            "[1]",
            "{a: 1}",
            "99999999999999999999",
            "180d",
            "+180",
            "010",
        ] {
            let error = settings(&days(value)).expect_err(value);
            assert!(error.starts_with("c.yaml:3:"), "{value}: {error}");
            assert!(
                error.contains("provider.auditLog.retentionPeriodInDays: must be a whole number"),
                "{value}: {error}"
            );
        }
        for (text, expected) in [
            (
                "provider:\n  auditLog:\n    retentionPeriodinDays: 1\n",
                "c.yaml:3:5: provider.auditLog.retentionPeriodinDays: unknown key",
            ),
            (
                "provider:\n  auditLog:\n    retentionPeriodInDays: 1\n    retentionPeriodInDays: 2\n",
                "c.yaml:4:5: provider.auditLog.retentionPeriodInDays: given twice",
            ),
            (
                "provider:\n  auditLog: {}\n  jobAuditLog: {}\n",
                "c.yaml:3:3: provider.jobAuditLog: auditLog and jobAuditLog are the same",
            ),
            ("provider:\n  auditLog: {}\n  auditLog: {}\n", "c.yaml:3:3: provider.auditLog: given twice"),
            ("provider: {}\nprovider: {}\n", "c.yaml:2:1: provider: given twice"),
            ("provider: 1\n", "c.yaml:1:11: "),
            ("- a\n", "c.yaml:1:1: "),
            ("provider:\n  auditLog: [1]\n", "c.yaml:2:13: "),
            ("provider:\n  auditLog: 180\n", "c.yaml:2:13: "),
            ("a: [\n", "c.yaml:1:4: "),
            ("a: 'b\n", "c.yaml:"),
            ("a: 1\n---\nb: 2\n", "c.yaml:3:1: "),
        ] {
            let error = settings(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert_eq!(parse(Path::new("c.yaml"), b"\xFF", 1).unwrap_err().to_string(), "c.yaml: not UTF-8");
    }

    #[test]
    fn a_period_below_the_floor_is_a_bad_setting() {
        let text = b"provider: {auditLog: {retentionPeriodInDays: 29}}";
        assert!(parse(Path::new("c"), text, 29).is_ok());
        assert!(parse(Path::new("c"), text, 30).unwrap_err().to_string().contains("floor of 30 days"));
    }
}

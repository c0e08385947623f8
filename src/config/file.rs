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

use std::path::Path;

pub use crate::yaml::FileError;
use crate::yaml::{Document, Entry, Fault, Place};

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

/// Reads the settings from a file's text. `floor_days` is the shortest period that is allowed.
///
/// # Errors
/// The first fault, with its place.
pub fn parse(file: &Path, text: &[u8], floor_days: u32) -> Result<FileSettings, FileError> {
    let fault = |place: Place, key: &str, reason: String| FileError::new(file, Some(key), Fault { place, reason });
    let unread = |error: Fault, key: Option<&str>| FileError::new(file, key, error);
    let text = std::str::from_utf8(text).map_err(|_| FileError::whole(file, "not UTF-8"))?;
    let document = Document::parse(text).map_err(|error| unread(error, None))?;
    let named = |entries: &[Entry], names: &[&str]| -> Vec<Entry> {
        entries.iter().copied().filter(|(key, _)| names.contains(&document.text(*key))).collect()
    };

    let Some(root) = document.root else { return Ok(FileSettings::default()) };
    let root = document.entries(root).map_err(|error| unread(error, None))?;
    let providers = named(&root, &["provider"]);
    if let Some((second, _)) = providers.get(1) {
        return Err(fault(second.place, "provider", "given twice".to_owned()));
    }
    let Some((_, provider)) = providers.first() else { return Ok(FileSettings::default()) };
    let provider = document.entries(*provider).map_err(|error| unread(error, Some("provider")))?;
    let sections = named(&provider, &["auditLog", "jobAuditLog"]);
    let Some((section, settings)) = sections.first() else { return Ok(FileSettings::default()) };
    let section = document.text(*section);
    if let Some((second, _)) = sections.get(1) {
        let name = document.text(*second);
        let reason = if section == name { "given twice" } else { "auditLog and jobAuditLog are the same; give one" };
        return Err(fault(second.place, &format!("provider.{name}"), reason.to_owned()));
    }
    let settings = document.entries(*settings).map_err(|error| unread(error, Some(&format!("provider.{section}"))))?;
    let path = |key: &str| format!("provider.{section}.{key}");
    let mut retention = None;
    for (key, value) in settings {
        match document.text(key) {
            RETENTION => {
                if retention.replace(value).is_some() {
                    return Err(fault(key.place, &path(RETENTION), "given twice".to_owned()));
                }
            }
            free if free.starts_with("x-") => {}
            unknown => {
                let reason = format!("unknown key; only {RETENTION} is known here (x-… keys are free)");
                return Err(fault(key.place, &path(unknown), reason));
            }
        }
    }
    let Some(value) = retention else { return Ok(FileSettings::default()) };
    // A leading zero makes it octal for some readers of YAML.
    let days = Some(document.spelling(value))
        .filter(|spelt| spelt.bytes().all(|byte| byte.is_ascii_digit()) && !spelt.starts_with('0'))
        .and_then(|spelt| spelt.parse().ok())
        .filter(|days| (1..=RETENTION_DAYS_MAX).contains(days));
    let key = path(RETENTION);
    let Some(days) = days else {
        let reason = format!("must be a whole number of days from 1 to {RETENTION_DAYS_MAX}");
        return Err(fault(value.place, &key, reason));
    };
    if days < floor_days {
        let reason = format!("{days} days is shorter than the retention floor of {floor_days} days");
        return Err(fault(value.place, &key, reason));
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
    crate::durable::read_file(file, FILE_BYTES_MAX)
        .map_err(|error| FileError::whole(file, format!("cannot read it: {error}")))
}

const RETENTION: &str = "retentionPeriodInDays";

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
            ("days: &x {retentionPeriodInDays: 9}\nprovider:\n  auditLog: {<<: *x, x-a: 1}\n", Some(9)),
            ("days: &x {auditLog: {retentionPeriodInDays: 9}}\nprovider: {id: k8s, <<: [*x]}\n", Some(9)),
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
            ("provider: 1\n", "c.yaml:1:11: provider: must be a mapping"),
            ("- a\n", "c.yaml:1:1: "),
            ("provider:\n  auditLog: [1]\n", "c.yaml:2:13: provider.auditLog: must be a mapping"),
            ("provider:\n  auditLog: 180\n", "c.yaml:2:13: provider.auditLog: must be a mapping"),
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

//! Any bytes as the platform's configuration file: a setting within its bounds, or a fault with its place.
//!
//! The first byte is the retention floor.

#![no_main]

use std::path::Path;

use audit_log::config::file::{self, RETENTION_DAYS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((floor, text)) = input.split_first() else { return };
    let floor = u32::from(*floor).max(1);
    match file::parse(Path::new("/etc/cloud/config.yaml"), text, floor) {
        Ok(settings) => {
            if let Some(days) = settings.retention_days {
                assert!((floor..=RETENTION_DAYS_MAX).contains(&days));
                let text = std::str::from_utf8(text).expect("a setting was read from UTF-8");
                assert!(text.contains(&days.to_string()), "{days} days stand nowhere");
                assert!(text.contains("ditLog") || text.contains('\\'), "no key of ours");
                // A shorter floor finds the same; one above the period refuses it.
                let again = file::parse(Path::new("f"), text.as_bytes(), 1).expect("a lower floor");
                assert_eq!(again, settings);
                assert!(file::parse(Path::new("f"), text.as_bytes(), days + 1).is_err());
            }
        }
        Err(error) => {
            let told = error.to_string();
            let rest = told.strip_prefix("/etc/cloud/config.yaml:").expect("the file is named first");
            assert!(!rest.trim().is_empty());
            if let Some(line) = rest.split(':').next().and_then(|line| line.parse::<usize>().ok()) {
                let breaks = text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
                assert!((1..=breaks + 2).contains(&line), "line {line} of {}", breaks + 1);
            }
        }
    }
});

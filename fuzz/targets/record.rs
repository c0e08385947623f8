//! Any bytes as a line: a record of the values that serde_json reads, or the damage that serde_json agrees with; and the
//! same in another spelling.

#![no_main]

#[path = "model.rs"]
mod model;

use std::collections::BTreeMap;

use audit_log::reader::record::{Damage, Record};
use audit_log::record::{LINE_BYTES_MAX, Timestamp};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use self::model::read;

/// Far above what a line of the fuzzer's length can nest; serde_json recurses.
const DEPTH_MAX: usize = 10_000;

fuzz_target!(|line: &[u8]| {
    if line.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEPTH_MAX {
        return;
    }
    let is_json = || std::str::from_utf8(line).is_ok() && read::<IgnoredAny>(line).is_ok();
    match Record::parse(line) {
        Ok(record) => {
            let members: BTreeMap<String, &RawValue> = read(line).expect("a record is an object");
            let keys: Vec<_> = members.keys().map(String::as_str).collect();
            assert_eq!(keys, ["event", "jobId", "message", "meta", "ts", "workspaceId"]);
            let string = |name: &str| read::<String>(members[name].get().as_bytes()).expect("a string");
            assert_eq!(string("jobId"), record.job_id);
            assert_eq!(string("workspaceId"), record.workspace_id);
            assert_eq!(string("event"), record.event);
            assert_eq!(string("message"), record.message());
            assert_eq!(members["meta"].get(), record.meta);
            assert_eq!(record.line, line);
            match read(members["ts"].get().as_bytes()).expect("a value") {
                Value::String(text) => assert_eq!(Timestamp::parse_rfc3339(&text), Some(record.ts)),
                number => assert_eq!(number.as_i64(), Some(record.ts.millis())),
            }
            same_in_another_spelling(&record, &members);
        }
        Err(Damage::TooLong) => assert!(line.len() >= LINE_BYTES_MAX),
        Err(Damage::Nul) => assert!(line.contains(&0)),
        Err(Damage::NotUtf8) => assert!(std::str::from_utf8(line).is_err()),
        Err(Damage::NotJson) => assert!(!is_json()),
        Err(Damage::NotARecord) => assert!(is_json()),
        Err(Damage::Torn) => panic!("a line is not torn"),
    }
});

/// The canonical spelling, which takes the fast path, and one that takes the full one, say the same.
fn same_in_another_spelling(record: &Record<'_>, members: &BTreeMap<String, &RawValue>) {
    let spell = |names: [&str; 6], space: &str| {
        let members: Vec<_> = names.iter().map(|name| format!("\"{name}\":{space}{}", members[*name].get())).collect();
        format!("{{{}}}", members.join(","))
    };
    let canonical = spell(["ts", "jobId", "workspaceId", "event", "message", "meta"], "");
    let other = spell(["meta", "message", "event", "workspaceId", "jobId", "ts"], " ");
    for line in [canonical, other] {
        let mut again = Record::parse(line.as_bytes()).expect("a record in another spelling");
        again.line = record.line;
        assert_eq!(again, *record);
    }
}

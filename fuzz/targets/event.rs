//! Any bytes as a request's body: the parser says the same as serde_json of what is JSON, and keeps its own rules.

#![no_main]

#[path = "model.rs"]
mod model;

use audit_log::record::{EVENT_NAME_BYTES_MAX, Event, EventError, RESERVED_PREFIX, parse_batch};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

use self::model::read;

/// Far above what a body of the fuzzer's length can nest; serde_json recurses.
const DEPTH_MAX: usize = 10_000;

fuzz_target!(|body: &[u8]| {
    if body.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEPTH_MAX {
        return;
    }
    let parsed = Event::parse(body);
    match &parsed {
        Ok(event) => {
            assert!(is_json(body));
            let value: Value = read(body).expect("a model without a bound of depth reads what was accepted");
            let members = value.as_object().expect("an event is an object");
            assert!(members.keys().all(|key| matches!(key.as_str(), "event" | "message" | "meta")));
            assert_eq!(members["event"].as_str(), Some(event.name()));
            assert!((1..=EVENT_NAME_BYTES_MAX).contains(&event.name().len()));
            assert!(!event.name().starts_with(RESERVED_PREFIX));
            assert_eq!(members.get("message").and_then(Value::as_str).unwrap_or_default(), event.message());
        }
        Err(EventError::NotAnEvent(fault)) => {
            assert!(is_json(body), "{fault}");
            place_is_in(body, fault.line, fault.column);
        }
        Err(EventError::NotJson(fault)) => {
            assert!(!is_json(body), "{fault}");
            place_is_in(body, fault.line, fault.column);
        }
    }
    // One line of a batch is what the line is alone.
    if !body.contains(&b'\n') && !body.ends_with(b"\r") {
        let blank = body.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        assert_eq!(parse_batch(body, 1 << 20).is_ok(), parsed.is_ok() && !blank);
    } else if let Ok(events) = parse_batch(body, 1 << 20) {
        assert!(!events.is_empty());
    }
});

fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && read::<IgnoredAny>(body).is_ok()
}

fn place_is_in(body: &[u8], line: usize, column: usize) {
    let text = body.split(|byte| *byte == b'\n').nth(line - 1).expect("the line is there");
    assert!((1..=text.len() + 1).contains(&column), "column {column} of {}", text.len());
}

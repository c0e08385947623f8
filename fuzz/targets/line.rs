//! Any event and any identity as a line: it is one line, of the same values, and keeps the bytes of `meta`.
//!
//! The input is `job 0xFF workspace 0xFF body`; 0xFF is in no UTF-8 text.

#![no_main]

#[path = "model.rs"]
mod model;

use audit_log::record::{Event, Identity, Timestamp, stamp};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

use self::model::read;

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(3, |byte| *byte == 0xFF);
    let (Some(job), Some(workspace), Some(body)) = (parts.next(), parts.next(), parts.next()) else { return };
    let (Ok(job), Ok(workspace), Ok(event)) =
        (std::str::from_utf8(job), std::str::from_utf8(workspace), Event::parse(body))
    else {
        return;
    };
    let Ok(identity) = Identity::new(job, workspace, 0) else {
        assert!(Identity::check_id(job).is_err() || Identity::check_id(workspace).is_err());
        return;
    };
    let line = line(&identity, &event);
    let text = std::str::from_utf8(&line).expect("a line is UTF-8");

    assert_eq!(text.chars().filter(|char| splits(*char)).count(), 1, "{text:?}");
    assert!(text.ends_with('\n'));
    assert!(!text.trim_end().chars().any(|char| char.is_control() || is_special(char)), "{text:?}");
    let value: Value = read(text.as_bytes()).expect("a line is JSON");
    assert_eq!(value["ts"], "2026-01-28T09:12:44.381Z");
    assert_eq!(value["jobId"], job);
    assert_eq!(value["workspaceId"], workspace);
    assert_eq!(value["event"], event.name());
    assert_eq!(value["message"], event.message());

    let sent: Value = read(body).expect("an event is JSON");
    assert_eq!(value["meta"], sent.get("meta").cloned().unwrap_or_default());
    let written = meta_of(text);
    if sent.get("meta").is_some() {
        assert_eq!(written.get(), compact(meta_of(std::str::from_utf8(body).expect("it is JSON")).get()));
    }

    // Encoding what was written changes nothing more.
    let again = format!("{{\"event\":\"E\",\"meta\":{}}}", written.get());
    let again = self::line(&identity, &Event::parse(again.as_bytes()).expect("what was written can be sent"));
    assert_eq!(meta_of(std::str::from_utf8(&again).expect("UTF-8")).get(), written.get());
});

fn line(identity: &Identity, event: &Event<'_>) -> Vec<u8> {
    let mut line = Vec::new();
    identity.encode(event, &mut line).expect("no input of the fuzzer is near the limit");
    stamp(&mut line, &Timestamp::from_millis(1_769_591_564_381).text());
    line
}

/// The bytes of the member `meta`.
fn meta_of(object: &str) -> &RawValue {
    let mut members: std::collections::BTreeMap<std::borrow::Cow<'_, str>, &RawValue> =
        read(object.as_bytes()).expect("an object");
    members.remove("meta").expect("a meta")
}

/// Whether some reader takes this for the end of a line.
fn splits(char: char) -> bool {
    matches!(char, '\u{a}'..='\u{d}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_special(char: char) -> bool {
    matches!(char, '\u{7f}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The model of what changes in `meta`: white space outside of strings goes, special characters are escaped.
fn compact(meta: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for char in meta.chars() {
        if is_special(char) {
            out.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else if in_string || !matches!(char, ' ' | '\t' | '\r' | '\n') {
            out.push(char);
        }
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    out
}

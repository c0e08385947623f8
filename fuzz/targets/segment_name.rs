//! Any text as a file's name: what is taken for a segment is spelt exactly as we would, and is no path.

#![no_main]

use audit_log::record::{Opened, SegmentName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(name) = text.parse::<SegmentName>() else { return };
    assert_eq!(name.to_string(), text);
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')));
    assert!(text.starts_with("audit-"));
    assert_eq!(name.is_compressed(), !text.ends_with(".jsonl"));
    let bare = text.trim_end_matches(".gz").trim_end_matches(".zst");
    if let Opened::At(at) = name.opened() {
        assert_eq!(SegmentName::new(name.rank(), at).to_string(), bare);
        assert_eq!(name.youngest(), at);
    }
});

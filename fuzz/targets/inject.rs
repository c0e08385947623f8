//! Any text as manifests: refused with a place in it, or injected so that injecting again changes nothing.

#![no_main]

use audit_log::inject::{Options, inject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let options = Options { fs_group: Some(7), ..Options::default() };
    match inject(text, &options) {
        Ok(injected) => {
            if injected.notes.is_empty() {
                assert_eq!(injected.text, text);
            }
            let again = inject(&injected.text, &options)
                .unwrap_or_else(|error| panic!("injected, it is refused: {error}\n{}", injected.text));
            assert_eq!(again.text, injected.text);
            let pods = |notes: &[String]| notes.iter().filter(|note| note.contains(": sidecar ")).count();
            assert_eq!(pods(&again.notes), pods(&injected.notes));
            assert!(again.notes.iter().all(|note| !note.contains("added") && !note.contains("replaced")));
        }
        Err(error) => {
            let told = error.to_string();
            let line: usize = told.split(':').next().and_then(|line| line.parse().ok()).expect("a line comes first");
            let breaks = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
            assert!((1..=breaks + 2).contains(&line), "line {line} of {}", breaks + 1);
        }
    }
});

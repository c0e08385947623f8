//! Everything around the sidecar is broken, and what it has promised is looked for afterwards.
//!
//! Each test stands for rows of `docs/RELIABILITY.md`: it says what it tried, how often, and which control shows that
//! it can fail ([`report`]). `ci/test` runs as many rounds as fit the gate, `ci/long` the full counts.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod calls;
mod clocks;
mod commands;
mod directory;
mod forced_down;
mod full;
mod good_client;
mod hostile;
mod kill;
mod load;
mod mounts;
mod power_cut;
mod report;
mod size_limit;
mod slow;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "each test binary uses a part of the harness")]
mod support;
mod sweeping;
mod tampering;
mod tracer;

//! Writes the manual's pages, one a command: `cargo run --example manual -- DIR`, and then `man DIR/audit-log-query.1`.

use std::path::PathBuf;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).context("usage: manual DIR")?);
    clap_mangen::generate_to(audit_log::cli::command(), &dir)
        .with_context(|| format!("cannot write to {}", dir.display()))
}

//! `token`: makes a token, shown once, and its entry in the file of tokens.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{Failure, print};
use crate::api::tokens::{Digest, PREFIX};
use crate::clock::{Clock, SystemClock};
use crate::config::file::FILE_BYTES_MAX;
use crate::config::tokens;
use crate::reader::when::{self, Zone};
use crate::record::json::write_string;
use crate::{app, durable};

/// The flags of `token`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenFlags {
    /// Whose it is, for the log; no other token in the file has this name
    name: String,
    /// It may read everything
    #[arg(long, conflicts_with = "workspaces", required_unless_present = "workspaces")]
    all: bool,
    /// It may read this workspace's records; may be repeated
    #[arg(long = "workspace", value_name = "ID")]
    workspaces: Vec<String>,
    /// From when on it is void: RFC 3339 or a date (of UTC) [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// The file that it is added to [default: the entry is printed on stderr]
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

/// Makes a token.
pub(super) fn token(flags: &TokenFlags) -> Result<ExitCode, Failure> {
    tokens::check_name(&flags.name).map_err(|reason| Failure::Usage(format!("NAME: {reason}")))?;
    let expires = flags.expires.as_ref().map(|text| expiry(text)).transpose()?;
    let secret = secret()?;
    let digest = Digest::of(secret.as_bytes());
    let scope = if flags.all {
        "all".to_owned()
    } else {
        let ids: Vec<_> = flags.workspaces.iter().map(|id| quoted(id)).collect();
        format!("{{workspaces: [{}]}}", ids.join(", "))
    };
    let mut entry = format!("- name: {}\n  sha256: {}\n  scope: {scope}\n", quoted(&flags.name), digest.hex());
    if let Some(expires) = expires {
        writeln!(entry, "  expires: {expires}").expect("a String takes all");
    }
    match &flags.tokens {
        Some(file) => add(file, &entry)?,
        None => {
            // Whoever says so on stdout, where the token comes, would have both in one file.
            io::stderr().write_all(entry.as_bytes()).context("cannot write to stderr")?;
        }
    }
    print(&format!("{secret}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn expiry(text: &str) -> Result<crate::record::Timestamp, Failure> {
    let fault = |reason: &str| Failure::Usage(format!("--expires: {reason}"));
    let now = SystemClock.now();
    if !text.contains('-') {
        return Err(fault("expected a time (2027-01-01T00:00:00Z) or a date (2027-01-01)"));
    }
    let at = when::parse(text, &Zone::UTC, now).map_err(|error| super::read::with_caret("--expires", text, &error))?;
    if at <= now { Err(fault("it is past")) } else { Ok(at) }
}

/// 256 bits of the system's randomness, in hexadecimal digits.
fn secret() -> anyhow::Result<String> {
    let random: [u8; 32] = app::random_bytes()?;
    let mut secret = PREFIX.to_owned();
    for byte in random {
        write!(secret, "{byte:02x}").expect("a String takes all");
    }
    Ok(secret)
}

/// Adds an entry behind what the file holds, which keeps every byte.
fn add(file: &std::path::Path, entry: &str) -> Result<(), Failure> {
    let mut text = match durable::read_file(file, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::Usage(format!("--tokens: {}: {error}", file.display()))),
    };
    let before = tokens::parse(file, &text).map_err(|error| Failure::Usage(format!("--tokens: {error}")))?;
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(entry.as_bytes());
    let after = tokens::parse(file, &text).map_err(|error| Failure::Usage(format!("--tokens: {error}")))?;
    if after.0.len() != before.0.len() + 1 {
        let reason = "the list in it is not written as `- name: …`, so that nothing can be added behind it";
        return Err(Failure::Usage(format!("--tokens: {}: {reason}", file.display())));
    }
    let unique = app::unique_id(&SystemClock)?;
    // A link stays one: what it leads to is replaced.
    let file = durable::real_path(file).unwrap_or_else(|_| file.to_owned());
    durable::replace_file(&file, &text, 0o600, &unique)
        .map_err(|error| Failure::Usage(format!("--tokens: {}: cannot be written: {error}", file.display())))
}

/// A text as YAML takes it: JSON's strings are its own.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text, &mut out);
    String::from_utf8(out).expect("a string of UTF-8 is spelt in UTF-8")
}

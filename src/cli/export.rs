//! `export`: every record that matches, oldest first, as a file with a manifest, to be handed over.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use indicatif::HumanCount;
use sha2::{Digest as _, Sha256};

use super::read::{HowFlags, What, WhatFlags};
use super::{Failure, complain, interrupt};
use crate::durable::{self, Staging};
use crate::reader::manifest::{Gathered, Manifest, Records, Searched};
use crate::reader::output::Layout;
use crate::reader::search::Notice;
use crate::reader::sorted::Order;
use crate::reader::stream::Rows;

/// The file that says what the other one is.
const MANIFEST: &str = "manifest.json";
/// The `--out` that is no directory.
const STDOUT: &str = "-";

/// Which records of those that match: all, the oldest first.
const ALL: (Order, usize, Option<usize>) = (Order::Ascending, 0, None);

/// The flags of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportFlags {
    /// Directory for the records and their manifest.json, made if its parent is there; - writes the records alone to stdout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    what: WhatFlags,
    /// ndjson (the lines' own bytes), csv or json
    #[arg(long, value_name = "FORMAT", default_value = "ndjson")]
    format: String,
    /// What a csv shows, such as ts,event,meta.path [default: ts,jobId,workspaceId,rank,event,message,meta; with --view, its columns]
    #[arg(long, value_name = "FIELDS")]
    columns: Option<String>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  audit-log export --since 2026-03-01 --until 2026-04-01 --tz Europe/Copenhagen --out march
  audit-log export --job 5003592 --format csv --columns ts,event,meta.path --out job-5003592
  audit-log export --since 30d --out - | gzip > month.ndjson.gz";

/// Writes the records that match.
pub(super) fn export(flags: &ExportFlags) -> Result<ExitCode, Failure> {
    if !["ndjson", "csv", "json"].contains(&flags.format.as_str()) {
        return Err(Failure::Usage("--format: must be `ndjson`, `csv` or `json`".to_owned()));
    }
    let what = flags.what.prepare()?;
    let how = HowFlags { format: Some(flags.format.clone()), columns: flags.columns.clone() };
    let layout = how.layout(&what)?;
    if flags.out == Path::new(STDOUT) {
        complain("no manifest: stdout gets the records alone");
        let ((), code) = what.search(|looking| Ok(((), what.print(looking.exact(), ALL, layout)?)))?;
        return Ok(code);
    }
    to_directory(flags, &what, layout)
}

fn to_directory(flags: &ExportFlags, what: &What, layout: Layout) -> Result<ExitCode, Failure> {
    let bad_out = |error: &dyn std::fmt::Display| Failure::Usage(format!("--out: {}: {error}", flags.out.display()));
    for source in what.sources.as_slice() {
        if durable::lies_in(&flags.out, &source.path).map_err(|error| bad_out(&error))? {
            let why = format!("lies in the audit directory {}, where nothing is written", source.path.display());
            return Err(bad_out(&why));
        }
    }
    let name = format!("records.{}", flags.format);
    let (staging, [records, manifest]) =
        Staging::begin(&flags.out, [&name, MANIFEST]).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => bad_out(&"another export to it is under way"),
            io::ErrorKind::AlreadyExists => bad_out(&format!("{error}: an export goes to a directory of its own")),
            io::ErrorKind::NotFound => bad_out(&"its parent directory is not there"),
            io::ErrorKind::NotADirectory => bad_out(&error),
            _ => Failure::Other(anyhow::Error::new(error).context(format!("--out: {}", flags.out.display()))),
        })?;
    interrupt::before_the_end(staging.abandon())?;
    let cannot_write = || format!("cannot write to {}", flags.out.display());

    let gathered = Mutex::new(Gathered::default());
    let gather = |notice: &Notice<'_>| gathered.lock().unwrap_or_else(PoisonError::into_inner).add(notice);
    let ((), code) = what.search_and_tell(&gather, |looking| {
        let (columns, shown) = (layout.clone(), looking.shown);
        let mut written = Written::to(records);
        let coverage = what.write(looking.exact(), ALL, layout, &mut |bytes, rows| {
            shown.count_written(rows.count);
            written.add(bytes, rows).with_context(cannot_write)?;
            Ok(true)
        })?;
        let records = written.finish(&name, &flags.format, columns.columns(), coverage.ambiguous);
        let manifest_of = Manifest {
            version: env!("CARGO_PKG_VERSION"),
            query: &flags.what,
            range: what.range,
            records: records.with_context(cannot_write)?,
            searched: Searched::from(&coverage),
            gathered: std::mem::take(&mut *gathered.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        let mut out = BufWriter::new(manifest);
        manifest_of.write(&mut out).and_then(|()| out.flush()).with_context(cannot_write)?;
        staging.finish().with_context(cannot_write)?;
        let rows = HumanCount(manifest_of.records.rows);
        shown.complain(&format!("{rows} records are in {}", flags.out.join(&name).display()));
        Ok(((), coverage))
    })?;
    Ok(code)
}

/// What was written of the records so far.
struct Written {
    out: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
    rows: Rows,
}

impl Written {
    fn to(file: File) -> Self {
        let out = BufWriter::with_capacity(BUFFER_BYTES, file);
        Self { out, hash: Sha256::new(), bytes: 0, rows: Rows::default() }
    }

    fn add(&mut self, bytes: &[u8], rows: Rows) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.rows.append(rows);
        Ok(())
    }

    fn finish<'m>(
        mut self,
        file: &'m str,
        format: &'m str,
        columns: Option<Vec<&'m str>>,
        ambiguous: u64,
    ) -> io::Result<Records<'m>> {
        self.out.flush()?;
        let Self { hash, bytes, rows: Rows { count: rows, first: oldest, last: newest }, .. } = self;
        let sha256 = hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Ok(Records { file, format, columns, rows, bytes, sha256, oldest, newest, ambiguous })
    }
}

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 64 << 10;

//! The commands of auditors: what is asked for, and how the answer is told.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::HumanCount;
use serde::Serialize;

use super::progress::Shown;
use super::{Failure, complain};
use crate::clock::{Clock, SystemClock};
use crate::reader::error::FilterError;
use crate::reader::filter::{Condition, Criteria, Filter, Place, Scope};
use crate::reader::listing::{Listing, Source, Sources};
use crate::reader::manifest::Range;
use crate::reader::output::{CSV_COLUMNS, Columns, Drain, Encoder, Layout, TABLE_COLUMNS, visible};
use crate::reader::record::Record;
use crate::reader::search::{Coverage, Notice, Search};
use crate::reader::sorted::{Order, Sorted};
use crate::reader::stream::Rows;
use crate::reader::view::{Column, View, Views};
use crate::reader::when::{self, Zone};

/// Damaged and foreign lines that are told one by one on a terminal; in a file, all are.
const NOTICES_MAX: u64 = 20;
/// Segments and folders that can't be read are told one by one, up to so many; the last line counts all.
const UNREADABLE_MAX: u64 = 100;

/// Where to look, and for what. As JSON it is what was given, by the flags' names.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub(super) struct WhatFlags {
    /// Directory with segments, walked; may be repeated
    #[arg(long = "dir", value_name = "[NAME=]PATH[@WORKSPACE]", default_value = "/audit")]
    #[serde(rename = "dir")]
    dirs: Vec<String>,
    /// From this time on: RFC 3339, a date, or an age such as 24h, 7d or 90m
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Zone of times without one, and of times that are shown: UTC, local, or a name such as Europe/Copenhagen
    #[arg(long, value_name = "NAME", default_value = "UTC")]
    tz: String,
    /// The event is this; repeated: any of them
    #[arg(long = "event", value_name = "EVENT")]
    #[serde(rename = "event", skip_serializing_if = "Vec::is_empty")]
    events: Vec<String>,
    /// The job's id is this; repeated: any of them
    #[arg(long = "job", value_name = "ID")]
    #[serde(rename = "job", skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<String>,
    /// The workspace's id is this; repeated: any of them
    #[arg(long = "workspace", value_name = "ID")]
    #[serde(rename = "workspace", skip_serializing_if = "Vec::is_empty")]
    workspaces: Vec<String>,
    /// The rank is this; repeated: any of them
    #[arg(long = "rank", value_name = "N")]
    #[serde(rename = "rank", skip_serializing_if = "Vec::is_empty")]
    ranks: Vec<u32>,
    /// A condition, such as 'meta.user.name = ada'; repeated: all of them. Operators: = != < <= > >= ~ !~ ^= $= exists missing
    #[arg(long = "where", value_name = "FIELD OP VALUE")]
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<String>,
    /// Every word occurs in event, message or meta's strings; case does not matter
    #[arg(long = "text", value_name = "WORDS")]
    #[serde(rename = "text", skip_serializing_if = "Vec::is_empty")]
    texts: Vec<String>,
    /// Show records as this view does, and take its columns for fields: native, fcp, runai, runai-log, pcd or one of --views
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    /// File with more views and categories, in YAML
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<PathBuf>,
    /// The operation is of this category of FCP's catalogue, such as 'HPC clusters'; repeated: any of them
    #[arg(long = "category", value_name = "NAME")]
    #[serde(rename = "category", skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    /// Damaged lines are an error: exit 1
    #[arg(long)]
    strict: bool,
}

/// The flags of `query`.
#[derive(Debug, clap::Args)]
pub(super) struct QueryFlags {
    #[command(flatten)]
    what: WhatFlags,
    /// At most so many records
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave out so many first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: usize,
    /// Oldest first: asc; newest first: desc
    #[arg(long, value_name = "ORDER", default_value = "desc")]
    order: String,
    #[command(flatten)]
    how: HowFlags,
}

pub(super) const QUERY_EXAMPLES: &str = "\
Examples:
  audit-log query --limit 10
  audit-log query --job 5003592 --order asc
  audit-log query --where 'meta.path = /work/output/results.csv'
  audit-log query --since 7d --where 'meta.user.name ^= ada' --tz local
  audit-log query --format csv --columns ts,jobId,meta.user.name,meta.path > exports.csv";

/// How records are printed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct HowFlags {
    /// table, ndjson (the lines' own bytes), json or csv [default: table on a terminal, else ndjson]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<String>,
    /// What a table or csv shows, such as ts,event,meta.path [default: ts,jobId,event,message; of csv also workspaceId, rank and meta; with
    /// --view, its columns]
    #[arg(long, value_name = "FIELDS")]
    pub(super) columns: Option<String>,
}

impl HowFlags {
    pub(super) fn layout(&self, what: &What) -> Result<Layout, Failure> {
        let named = self.columns.as_deref().map(|text| {
            let columns = Columns::parse_among(text, what.columns());
            columns.map_err(|error| with_caret("--columns", text, &error))
        });
        let named = named.transpose()?;
        let default = |text| Columns::parse(text).expect("these are fields");
        match self.format.as_deref().unwrap_or(if io::stdout().is_terminal() { "table" } else { "ndjson" }) {
            "table" => {
                let of_view = || what.view.as_ref().map(View::of_table);
                let columns = named.or_else(of_view).unwrap_or_else(|| default(TABLE_COLUMNS));
                Ok(Layout::Table { columns, zone: what.zone.clone(), width: terminal_width() })
            }
            "csv" => {
                let of_view = || what.view.as_ref().map(View::all);
                Ok(Layout::Csv(named.or_else(of_view).unwrap_or_else(|| default(CSV_COLUMNS))))
            }
            "ndjson" | "json" if named.is_some() && what.view.is_none() => Err(Failure::Usage(
                "--columns: only `--format table` and `--format csv` have columns, or those of a `--view`".to_owned(),
            )),
            "ndjson" => Ok(Layout::Ndjson(named.or_else(|| what.view.as_ref().map(View::all)))),
            "json" => Ok(Layout::Json(named.or_else(|| what.view.as_ref().map(View::all)))),
            _ => Err(Failure::Usage("--format: must be `table`, `ndjson`, `json` or `csv`".to_owned())),
        }
    }
}

/// How many columns the terminal has that shows the answer, perhaps through a pager.
pub(super) fn terminal_width() -> usize {
    let columns = |size: rustix::io::Result<rustix::termios::Winsize>| size.ok().map(|size| usize::from(size.ws_col));
    let of_stdout = columns(rustix::termios::tcgetwinsize(io::stdout()));
    let of_stderr = || columns(rustix::termios::tcgetwinsize(io::stderr()));
    of_stdout.or_else(of_stderr).filter(|columns| *columns > 0).unwrap_or(TERMINAL_WIDTH)
}

/// Columns of a terminal that does not say how many it has.
const TERMINAL_WIDTH: usize = 80;

/// What was asked for, ready to be looked for.
pub(super) struct What {
    pub(super) sources: Sources,
    pub(super) filter: Filter,
    /// The times that were meant by it.
    pub(super) range: Range,
    pub(super) zone: Zone,
    view: Option<View>,
    pub(super) is_strict: bool,
}

/// The directories to read, by default `/audit`.
pub(super) fn sources(dirs: &[String]) -> Result<Sources, Failure> {
    let default = ["/audit".to_owned()];
    let dirs = if dirs.is_empty() { &default[..] } else { dirs };
    let bad_dir = |error: &dyn std::fmt::Display| Failure::Usage(format!("--dir: {error}"));
    let sources = dirs.iter().map(|text| Source::parse(text)).collect::<Result<_, _>>().map_err(|e| bad_dir(&e))?;
    Sources::new(sources).map_err(|error| bad_dir(&error))
}

impl WhatFlags {
    pub(super) fn prepare(&self) -> Result<What, Failure> {
        let sources = sources(&self.dirs)?;
        let zone = Zone::parse(&self.tz).map_err(|error| with_caret("--tz", &self.tz, &error))?;
        let now = SystemClock.now();
        let time = |flag: &str, text: Option<&String>| {
            text.map(|text| when::parse(text, &zone, now).map_err(|error| with_caret(flag, text, &error))).transpose()
        };
        // To read those that are built in takes most of a millisecond.
        let is_any_asked_for = self.view.is_some() || self.views.is_some() || !self.categories.is_empty();
        let views = is_any_asked_for.then(|| views(self.views.as_deref())).transpose()?.unwrap_or_default();
        let unknown = |flag: &str, error: &dyn std::fmt::Display| Failure::Usage(format!("{flag}: {error}"));
        let view = self.view.as_ref().map(|name| views.named(name).cloned());
        let view = view.transpose().map_err(|error| unknown("--view", &error))?;
        let category = (!self.categories.is_empty()).then(|| views.in_category(&self.categories));
        let category = category.transpose().map_err(|error| unknown("--category", &error))?;
        let columns = view.as_ref().map(View::columns).unwrap_or_default();
        let condition =
            |text: &String| Condition::parse_among(text, columns).map_err(|error| with_caret("--where", text, &error));
        let conditions = self.conditions.iter().map(condition).collect::<Result<_, _>>()?;
        let range =
            Range { since: time("--since", self.since.as_ref())?, until: time("--until", self.until.as_ref())? };
        let filter = Filter::new(Criteria {
            since: range.since,
            until: range.until,
            events: self.events.clone(),
            jobs: self.jobs.clone(),
            workspaces: self.workspaces.clone(),
            ranks: self.ranks.clone(),
            conditions,
            category,
            texts: self.texts.clone(),
            scope: Scope::All,
        });
        Ok(What { sources, filter, range, zone, view, is_strict: self.strict })
    }
}

/// The views that are built in, and those of a file.
pub(super) fn views(file: Option<&Path>) -> Result<Views, Failure> {
    file.map_or_else(|| Ok(Views::built_in()), Views::read).map_err(|error| Failure::Usage(error.to_string()))
}

/// A fault in what was asked for, with a caret under its place.
pub(super) fn with_caret(flag: &str, text: &str, error: &FilterError) -> Failure {
    Failure::Usage(format!("{flag}:\n{}", error.show(text)))
}

impl What {
    /// The columns that are fields too.
    pub(super) fn columns(&self) -> &[Arc<Column>] {
        self.view.as_ref().map(View::columns).unwrap_or_default()
    }

    /// Searches, tells on stderr what the reader must be told, and what was covered.
    pub(super) fn search<T>(
        &self,
        ask: impl FnOnce(Looking<'_>) -> anyhow::Result<(T, Coverage)>,
    ) -> Result<(T, ExitCode), Failure> {
        self.search_and_tell(&|_| (), ask)
    }

    /// The same; `tell` is told what the reader is.
    pub(super) fn search_and_tell<T>(
        &self,
        tell: &(dyn Fn(&Notice<'_>) + Sync),
        ask: impl FnOnce(Looking<'_>) -> anyhow::Result<(T, Coverage)>,
    ) -> Result<(T, ExitCode), Failure> {
        let shown = Shown::start()?;
        let listing = Listing::new(&self.sources);
        let is_to_be_told = |notice: &Notice<'_>| {
            tell(notice);
            true
        };
        self.search_in((&listing, &shown), &is_to_be_told, ask)
    }

    /// The same in a listing. What is not to be told is not counted as damaged.
    pub(super) fn search_in<T>(
        &self,
        (listing, shown): (&Listing, &Shown),
        is_to_be_told: &(dyn Fn(&Notice<'_>) -> bool + Sync),
        ask: impl FnOnce(Looking<'_>) -> anyhow::Result<(T, Coverage)>,
    ) -> Result<(T, ExitCode), Failure> {
        let (told, untold_damaged, is_stopped) = (Mutex::new((0u64, 0u64)), AtomicU64::new(0), AtomicBool::new(false));
        let is_terminal = io::stderr().is_terminal();
        let notice = |notice: Notice<'_>| {
            if !is_to_be_told(&notice) {
                untold_damaged.fetch_add(u64::from(matches!(notice, Notice::Damaged { .. })), Ordering::Relaxed);
                return;
            }
            let Some(text) = text_of(&notice) else { return };
            let is_unreadable = matches!(notice, Notice::Unreadable { .. });
            let mut told = told.lock().expect("whoever held it did not panic");
            let (lines, files) = &mut *told;
            let (told, max) = if is_unreadable { (files, UNREADABLE_MAX) } else { (lines, NOTICES_MAX) };
            *told += 1;
            if *told <= max || !is_terminal && !is_unreadable {
                shown.complain(&text);
            }
        };
        let search = Search::new((&self.sources, listing), &self.filter, &notice, &is_stopped).watched(shown.search());
        let search = if self.is_strict { search.strict() } else { search };
        let (answer, mut coverage) = ask(Looking { search, listing, shown, notice: &notice })?;
        shown.clear();
        let (lines, _) = told.into_inner().expect("whoever held it did not panic");
        let more = lines.saturating_sub(NOTICES_MAX);
        if is_terminal && more > 0 {
            complain(&format!("{} more of these: `2> FILE` has all", HumanCount(more)));
        }
        coverage.damaged -= untold_damaged.into_inner();
        let counts = [coverage.searched, coverage.segments, coverage.lines, coverage.damaged, coverage.foreign];
        let [searched, segments, lines, damaged, foreign] = counts.map(HumanCount);
        let few = |count, what| if count == 0 { String::new() } else { format!(", {} {what}", HumanCount(count)) };
        let (ambiguous, unreadable) = (few(coverage.ambiguous, "ambiguous"), few(coverage.unreadable, "unreadable"));
        complain(&format!(
            "searched {searched} of {segments} segments, {lines} lines, {damaged} damaged, {foreign} foreign{ambiguous}{unreadable} (times in {})",
            self.zone.name(),
        ));
        let failed = coverage.unreadable > 0 || self.is_strict && coverage.damaged > 0;
        Ok((answer, if failed { ExitCode::from(super::FAILED) } else { ExitCode::SUCCESS }))
    }
}

/// What the reader is told on stderr.
pub(super) fn text_of(notice: &Notice<'_>) -> Option<String> {
    let text = match notice {
        Notice::Damaged { segment, index, damage } => format!("damaged: {segment}:{index}: {damage}"),
        Notice::Foreign { segment, index } => {
            format!("foreign: {segment}:{index}: not of this folder's job or directory's workspace")
        }
        Notice::Cut { segment, bytes } => {
            format!("cut: {segment}: {bytes} bytes are left of what was read; followed from there")
        }
        Notice::Unreadable { path, error } => format!("unreadable: {path}: {error}"),
        Notice::Searched { .. } => return None,
    };
    // Whoever named a folder or a file may have meant to say something to a terminal.
    Some(visible(&text))
}

/// A search that is about to begin.
pub(super) struct Looking<'s> {
    pub(super) search: Search<'s>,
    pub(super) listing: &'s Listing,
    pub(super) shown: &'s Shown,
    /// What the reader must be told.
    pub(super) notice: &'s (dyn Fn(Notice<'_>) + Sync),
}

impl Looking<'_> {
    /// The same, of what the listing saw and with all damage counted: asked twice, the answer is the same.
    pub(super) fn exact(self) -> Self {
        Self { search: self.search.strict().as_listed(), ..self }
    }
}

/// Prints the records that match.
pub(super) fn query(flags: &QueryFlags) -> Result<ExitCode, Failure> {
    let what = flags.what.prepare()?;
    let order = match flags.order.as_str() {
        "asc" => Order::Ascending,
        "desc" => Order::Descending,
        _ => return Err(Failure::Usage("--order: must be `asc` or `desc`".to_owned())),
    };
    let layout = flags.how.layout(&what)?;
    let limit = flags.limit.map(|limit| limit.saturating_add(flags.offset));
    let ((), code) = what.search(|looking| Ok(((), what.print(looking, (order, flags.offset, limit), layout)?)))?;
    Ok(code)
}

impl What {
    /// Prints records as [`What::write`] does.
    pub(super) fn print(
        &self,
        looking: Looking<'_>,
        which: (Order, usize, Option<usize>),
        layout: Layout,
    ) -> anyhow::Result<Coverage> {
        let (mut out, shown, is_terminal) = (BufWriter::new(io::stdout()), looking.shown, io::stdout().is_terminal());
        let coverage = self.write(looking, which, layout, &mut |bytes, rows| {
            if is_terminal {
                shown.clear();
            }
            shown.count_written(rows.count);
            is_read_on(out.write_all(bytes))
        })?;
        is_read_on(out.flush())?;
        Ok(coverage)
    }

    /// Hands the bytes of the records that match, in order, but the first few of them and at most so many, to `write`; returns what was
    /// looked at.
    pub(super) fn write(
        &self,
        Looking { search, listing, notice, .. }: Looking<'_>,
        (order, offset, limit): (Order, usize, Option<usize>),
        layout: Layout,
        write: &mut (impl FnMut(&[u8], Rows) -> anyhow::Result<bool> + Send),
    ) -> anyhow::Result<Coverage> {
        if offset == 0
            && limit.is_none()
            && let Some(coverage) = stream(&search, order, layout.clone(), write)?
        {
            return Ok(coverage);
        }
        let (mut sorted, mut coverage) = search.sorted(order, limit)?;
        for _ in 0..offset {
            if sorted.next_line(listing, &self.sources)?.is_none() {
                break;
            }
        }
        coverage.ambiguous += self.encode(&mut sorted, listing, layout, write)?;
        coverage.unreadable += self.tell_lost(&sorted, listing, notice);
        Ok(coverage)
    }

    /// Tells of which segments records could not be had again; returns how many.
    pub(super) fn tell_lost(&self, sorted: &Sorted, listing: &Listing, notice: &dyn Fn(Notice<'_>)) -> u64 {
        let tell = |(segment, error): (usize, &io::Error)| {
            let path = listing.segments[segment].path(&self.sources);
            notice(Notice::Unreadable { path: &path, error });
        };
        sorted.lost().map(tell).count() as u64
    }

    /// Hands the bytes of records in a format to `write`, until it wants no more; returns how many are ambiguous by what is shown of them,
    /// and not by what was asked for.
    fn encode(
        &self,
        sorted: &mut Sorted,
        listing: &Listing,
        layout: Layout,
        write: &mut Take<'_>,
    ) -> anyhow::Result<u64> {
        let (mut encoder, mut bytes) = (Encoder::new(layout), Vec::new());
        encoder.begin(&mut bytes);
        if !write(&bytes, Rows::default())? {
            return Ok(0);
        }
        let (is_wanted, ambiguous) = self.encode_records(sorted, listing, &mut encoder, write)?;
        bytes.clear();
        encoder.end(&mut bytes);
        if is_wanted {
            write(&bytes, Rows::default())?;
        }
        Ok(ambiguous)
    }

    /// The same of what is neither the format's beginning nor its end; tells whether more is wanted, too.
    pub(super) fn encode_records(
        &self,
        sorted: &mut Sorted,
        listing: &Listing,
        encoder: &mut Encoder,
        write: &mut Take<'_>,
    ) -> anyhow::Result<(bool, u64)> {
        let (mut bytes, mut ambiguous) = (Vec::new(), 0);
        while let Some(line) = sorted.next_line(listing, &self.sources)? {
            let segment = &listing.segments[line.segment];
            let path = segment.path(&self.sources);
            let place = Place { segment: &path, index: line.index, rank: segment.name.rank() };
            let record = Record::parse(&line.line).expect("what is no record is left out");
            bytes.clear();
            let mut is_wanted = Ok(true);
            let mut drain = |bytes: &mut Vec<u8>| {
                if matches!(is_wanted, Ok(true)) {
                    is_wanted = write(bytes, Rows::default());
                }
                bytes.clear();
            };
            let drain = &mut Drain::new(PIECE_BYTES, &mut drain);
            let is_ambiguous = encoder.record_drained(&record, &place, &mut bytes, drain);
            ambiguous += u64::from(is_ambiguous && !self.filter.is_ambiguous(&record, &place));
            let mut row = Rows::default();
            row.add(record.ts);
            if !is_wanted? || !write(&bytes, row)? {
                return Ok((false, ambiguous));
            }
        }
        Ok((true, ambiguous))
    }
}

/// Of a long row so much is written at once.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Is given bytes, and which records end in them; tells whether it wants more.
pub(super) type Take<'t> = dyn FnMut(&[u8], Rows) -> anyhow::Result<bool> + 't;

/// Hands the bytes of all records that match to `write`, encoded by several threads; nothing where the search or the format does not
/// allow that.
fn stream(
    search: &Search<'_>,
    order: Order,
    layout: Layout,
    write: &mut (impl FnMut(&[u8], Rows) -> anyhow::Result<bool> + Send),
) -> anyhow::Result<Option<Coverage>> {
    let mut encoder = Encoder::new(layout);
    let Some(following) = encoder.following() else { return Ok(None) };
    let mut begun = Vec::new();
    encoder.begin(&mut begun);
    let mut written = Ok(true);
    let coverage = search.streamed(order, || following.clone(), Encoder::record_drained, &mut |bytes, rows| {
        if !begun.is_empty() {
            written = write(&std::mem::take(&mut begun), Rows::default());
        }
        if matches!(written, Ok(true)) {
            written = write(encoder.place_first(bytes), rows);
        }
        matches!(written, Ok(true))
    });
    if coverage.is_some() && written? {
        encoder.end(&mut begun);
        write(&begun, Rows::default())?;
    }
    Ok(coverage)
}

/// Whether there still is somebody who reads what was written: that `head` has seen enough is no fault.
pub(super) fn is_read_on(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
    }
}

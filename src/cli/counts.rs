//! `facets` and `histogram`: what is counted, and how it is told.

use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use super::Failure;
use super::read::{Looking, What, WhatFlags, with_caret};
use crate::reader::counts::{self, Counted, FIELDS_MAX, Facets, Histogram, Interval, More, Row};
use crate::reader::field::Field;
use crate::reader::number::Decimal;
use crate::reader::when::Zone;
use crate::record::json::write_string;

/// The flags of `facets`.
#[derive(Debug, clap::Args)]
pub(super) struct FacetsFlags {
    /// Fields whose values are counted, such as event or meta.user.name
    #[arg(required = true, value_name = "FIELD")]
    fields: Vec<String>,
    #[command(flatten)]
    what: WhatFlags,
    /// table, json or csv [default: table on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) const FACETS_EXAMPLES: &str = "\
Examples:
  audit-log facets event meta.user.name --since 30d
  audit-log facets jobId --where 'meta.path ^= /work/secret/' --format csv";

/// The flags of `histogram`.
#[derive(Debug, clap::Args)]
pub(super) struct HistogramFlags {
    #[command(flatten)]
    what: WhatFlags,
    /// minute, hour (of UTC) or day (of --tz)
    #[arg(long, value_name = "INTERVAL", default_value = "hour")]
    interval: String,
    /// Count the records of each value of this field apart
    #[arg(long, value_name = "FIELD")]
    by: Option<String>,
    /// table, json or csv [default: table on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) const HISTOGRAM_EXAMPLES: &str = "\
Examples:
  audit-log histogram --interval day --since 90d --tz Europe/Copenhagen
  audit-log histogram --by event --since 24h --format csv > day.csv";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Table,
    Json,
    Csv,
}

impl Format {
    fn parse(flag: Option<&str>) -> Result<Self, Failure> {
        match flag {
            None if io::stdout().is_terminal() => Ok(Self::Table),
            Some("table") => Ok(Self::Table),
            None | Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some(_) => Err(Failure::Usage("--format: must be `table`, `json` or `csv`".to_owned())),
        }
    }
}

/// Prints the values of fields, the most frequent first.
pub(super) fn facets(flags: &FacetsFlags) -> Result<ExitCode, Failure> {
    let format = Format::parse(flags.format.as_deref())?;
    let what = flags.what.prepare()?;
    let mut names: Vec<&str> = Vec::new();
    let mut fields = Vec::new();
    for name in &flags.fields {
        let field = field("FIELD", name, &what)?;
        if fields.contains(&field) {
            return Err(Failure::Usage(format!("FIELD: `{name}` is there twice")));
        }
        names.push(name);
        fields.push(field);
    }
    if fields.len() > FIELDS_MAX {
        return Err(Failure::Usage(format!("FIELD: more than {FIELDS_MAX} fields")));
    }
    let ((), code) = what.search(|Looking { search, shown, .. }| {
        let (mut facets, coverage) = counts::facets(&search, &fields)?;
        shown.clear();
        print(|out| write_facets(format, &names, &mut facets, out))?;
        Ok(((), coverage))
    })?;
    Ok(code)
}

/// Prints how many records there are by time.
pub(super) fn histogram(flags: &HistogramFlags) -> Result<ExitCode, Failure> {
    let format = Format::parse(flags.format.as_deref())?;
    let what = flags.what.prepare()?;
    let by = flags.by.as_ref().map(|name| field("--by", name, &what)).transpose()?;
    let Some(interval) = Interval::parse(&flags.interval) else {
        return Err(Failure::Usage("--interval: must be `minute`, `hour` or `day`".to_owned()));
    };
    let ((), code) = what.search(|Looking { search, shown, .. }| {
        let (mut histogram, coverage) = counts::histogram(&search, interval, by.as_ref(), &what.zone)?;
        shown.clear();
        print(|out| write_histogram(format, by.is_some(), &what.zone, &mut histogram, out))?;
        Ok(((), coverage))
    })?;
    Ok(code)
}

fn field(flag: &str, name: &str, what: &What) -> Result<Field, Failure> {
    Field::parse_among(name, what.columns()).map_err(|error| with_caret(flag, name, &error))
}

/// Prints an answer; whoever reads no further has had enough.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// In JSON `{"event": {"values": [["DATA_EXPORT", 12], …], "more": {"values": 3, "records": 5}}}`; in CSV a row for each value, with its
/// kind, and one of the kind `more` where there are more.
fn write_facets(format: Format, names: &[&str], facets: &mut Facets, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Json => out.write_all(b"{")?,
        Format::Csv => out.write_all(b"field,value,kind,count\r\n")?,
        Format::Table => {}
    }
    for (number, name) in names.iter().enumerate() {
        let More { values, records } = facets.more(number);
        match format {
            Format::Json => {
                let (comma, name) = (if number > 0 { "," } else { "" }, quoted(name));
                write!(out, "{comma}{name}:{{\"values\":[")?;
                for (nth, counted) in facets.values(number).enumerate() {
                    let (value, count) = counted?;
                    write!(out, "{}[{},{count}]", if nth > 0 { "," } else { "" }, json(&value))?;
                }
                write!(out, "],\"more\":{{\"values\":{values},\"records\":{records}}}}}")?;
            }
            Format::Csv => {
                for counted in facets.values(number) {
                    let (value, count) = counted?;
                    write!(out, "{},{},{count}\r\n", cell(name), csv(&value))?;
                }
                if values > 0 {
                    write!(out, "{},{values},more,{records}\r\n", cell(name))?;
                }
            }
            Format::Table => {
                let mut rows = Vec::new();
                for counted in facets.values(number) {
                    let (value, count) = counted?;
                    rows.push((label(&value), count));
                }
                let count_max = rows.first().map_or(0, |(_, count)| *count);
                if values > 0 {
                    rows.push((format!("({values} more)"), records));
                }
                let widths = Widths::of(rows.iter().map(|(label, count)| (label.as_str(), *count)), name);
                if number > 0 {
                    out.write_all(b"\n")?;
                }
                writeln!(out, "{}", widths.row(&short(name), "records", ""))?;
                for (label, count) in rows {
                    let bar = bar(count, count_max);
                    writeln!(out, "{}", widths.row(&label, &count.to_string(), &bar))?;
                }
            }
        }
    }
    if format == Format::Json { out.write_all(b"}\n") } else { Ok(()) }
}

/// In JSON `[{"start": "2026-01-28T09:00:00.000Z", "by": "DATA_EXPORT", "count": 3}, …]`, without `by` if they are not split. Times are
/// in UTC, but in the zone in a table.
fn write_histogram(
    format: Format,
    is_split: bool,
    zone: &Zone,
    histogram: &mut Histogram,
    out: &mut dyn Write,
) -> io::Result<()> {
    let by = |row: &Row, text: fn(&Counted) -> String| row.by.as_ref().map(text);
    match format {
        Format::Json => {
            let mut separator = "[";
            for row in histogram.rows()? {
                let row = row?;
                let by = by(&row, json).map_or(String::new(), |value| format!("\"by\":{value},"));
                write!(out, "{separator}{{\"start\":\"{}\",{by}\"count\":{}}}", row.start, row.count)?;
                separator = ",\n";
            }
            out.write_all(if separator == "[" { b"[]\n" } else { b"]\n" })
        }
        Format::Csv => {
            out.write_all(if is_split { b"start,by,kind,count\r\n" } else { b"start,count\r\n" })?;
            for row in histogram.rows()? {
                let row = row?;
                let by = by(&row, csv).map_or(String::new(), |cells| cells + ",");
                write!(out, "{},{by}{}\r\n", row.start, row.count)?;
            }
            Ok(())
        }
        Format::Table => {
            // Minutes are the finest.
            let start = |row: &Row| {
                let text = zone.text(row.start);
                format!("{}{}", &text[..16], &text[23..])
            };
            let text =
                |row: &Row| by(row, label).map_or_else(|| start(row), |value| format!("{}  {value}", start(row)));
            let (mut widths, mut count_max) = (Widths::default(), 0);
            for row in histogram.rows()? {
                let row = row?;
                widths.widen(&text(&row), row.count);
                count_max = count_max.max(row.count);
            }
            for row in histogram.rows()? {
                let row = row?;
                let bar = bar(row.count, count_max);
                writeln!(out, "{}", widths.row(&text(&row), &row.count.to_string(), &bar))?;
            }
            Ok(())
        }
    }
}

/// A value as JSON: a number keeps its digits, and what is no scalar is told by an object.
fn json(value: &Counted) -> String {
    match value {
        Counted::Missing => "{\"missing\":true}".to_owned(),
        Counted::Null => "null".to_owned(),
        Counted::Boolean(value) => value.to_string(),
        Counted::Number(text) => format!("{{\"number\":\"{text}\"}}"),
        Counted::String(text) => quoted(text),
        Counted::Array => "{\"structure\":\"array\"}".to_owned(),
        Counted::Object => "{\"structure\":\"object\"}".to_owned(),
    }
}

/// A value as two cells of CSV: its text and its kind.
fn csv(value: &Counted) -> String {
    match value {
        Counted::Missing => ",missing".to_owned(),
        Counted::Null => "null,null".to_owned(),
        Counted::Boolean(value) => format!("{value},boolean"),
        Counted::Number(text) => format!("{text},number"),
        Counted::String(text) => cell(text) + ",string",
        Counted::Array => ",array".to_owned(),
        Counted::Object => ",object".to_owned(),
    }
}

/// A cell of CSV (RFC 4180 §2).
fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// A value as a table shows it; a string that could be taken for something else in its quotes.
fn label(value: &Counted) -> String {
    match value {
        Counted::Missing => "(none)".to_owned(),
        Counted::Null => "null".to_owned(),
        Counted::Boolean(value) => value.to_string(),
        Counted::Number(text) => short(text),
        Counted::Array => "[…]".to_owned(),
        Counted::Object => "{…}".to_owned(),
        Counted::String(text) => {
            let looks_odd = text.is_empty() || text.starts_with(['"', '(', '[', '{', ' ']) || text.ends_with(' ');
            let is_word = matches!(text.as_str(), "null" | "true" | "false");
            if looks_odd || is_word || Decimal::parse(text).is_some() { short(&quoted(text)) } else { short(text) }
        }
    }
}

/// Characters of a label, at most.
const LABEL_MAX: usize = 44;
/// Characters of the longest bar.
const BAR_MAX: u64 = 24;

/// The start of a text, with control and bidirectional characters made visible.
fn short(text: &str) -> String {
    // No character is spelt with more than 12.
    let mut start: String = text.chars().take(LABEL_MAX + 1).collect();
    if start.chars().any(|char| !(' '..='~').contains(&char)) {
        let spelt = quoted(&start);
        start = spelt[1..spelt.len() - 1].replace("\\\"", "\"");
    }
    if start.chars().count() > LABEL_MAX {
        start = start.chars().take(LABEL_MAX - 1).chain(['…']).collect();
    }
    start
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text, &mut out);
    String::from_utf8(out).expect("a string of UTF-8 is spelt in UTF-8")
}

/// A bar for what is not nothing: at least an eighth of a block.
fn bar(count: u64, count_max: u64) -> String {
    let eighths = (u128::from(count.min(count_max)) * u128::from(BAR_MAX * 8)).div_ceil(u128::from(count_max.max(1)));
    let eighths = usize::try_from(eighths).expect("a bar is short");
    let mut bar = "█".repeat(eighths / 8);
    bar.extend([None, Some('▏'), Some('▎'), Some('▍'), Some('▌'), Some('▋'), Some('▊'), Some('▉')][eighths % 8]);
    bar
}

/// How wide a table's columns are.
#[derive(Default)]
struct Widths {
    label: usize,
    count: usize,
}

impl Widths {
    /// Of a table with a header.
    fn of<'r>(rows: impl Iterator<Item = (&'r str, u64)>, header: &str) -> Self {
        let mut widths = Self { label: short(header).chars().count(), count: "records".len() };
        for (label, count) in rows {
            widths.widen(label, count);
        }
        widths
    }

    fn widen(&mut self, label: &str, count: u64) {
        self.label = self.label.max(label.chars().count());
        self.count = self.count.max(count.to_string().len());
    }

    fn row(&self, label: &str, count: &str, bar: &str) -> String {
        let Self { label: wide, count: digits } = self;
        let mut row = String::new();
        write!(row, "{label:<wide$}  {count:>digits$}  {bar}").expect("a String takes all");
        row.truncate(row.trim_end().len());
        row
    }
}

//! `facets` and `histogram`: what is counted, and how it is told.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use super::Failure;
use super::read::{Looking, What, WhatFlags, terminal_width, with_caret};
use crate::reader::counts::{self, Counted, FIELDS_MAX, Facets, Histogram, Interval, More, Row};
use crate::reader::field::Field;
use crate::reader::number::Decimal;
use crate::reader::output::{Cell, write_csv};
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
        print(|out| write_histogram(format, flags.by.as_deref(), &what.zone, &mut histogram, out))?;
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
                    let (text, kind) = csv(&value);
                    write_row(&[name, &text, kind, &count.to_string()], out)?;
                }
                if values > 0 {
                    write_row(&[name, &values.to_string(), "more", &records.to_string()], out)?;
                }
            }
            Format::Table => {
                let (mut bars, mut rows) = (Bars::new(), Vec::new());
                bars.widen(name, RECORDS);
                for counted in facets.values(number) {
                    let (value, count) = counted?;
                    // No more than is shown: values are many, and may be as long as a line.
                    let shown = bars.label(&label(&value)).text;
                    bars.add(&shown, count);
                    rows.push((shown, count));
                }
                let more = format!("({values} more)");
                if values > 0 {
                    bars.widen(&more, &records.to_string());
                }
                if number > 0 {
                    out.write_all(b"\n")?;
                }
                writeln!(out, "{}", bars.cells(name, RECORDS, ""))?;
                for (label, count) in rows {
                    writeln!(out, "{}", bars.row(&label, count))?;
                }
                if values > 0 {
                    writeln!(out, "{}", bars.row(&more, records))?;
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
    split_by: Option<&str>,
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
            out.write_all(if split_by.is_some() { b"start,by,kind,count\r\n" } else { b"start,count\r\n" })?;
            for row in histogram.rows()? {
                let row = row?;
                let (start, count) = (row.start.to_string(), row.count.to_string());
                match row.by.as_ref().map(csv) {
                    Some((text, kind)) => write_row(&[&start, &text, kind, &count], out)?,
                    None => write_row(&[&start, &count], out)?,
                }
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
            let heading = |first: &Row| {
                let width = start(first).len();
                split_by.map_or("start".to_owned(), |name| format!("{:width$}  {name}", "start"))
            };
            let (mut bars, mut heads) = (Bars::new(), None);
            for row in histogram.rows()? {
                let row = row?;
                if heads.is_none() {
                    let heading = heading(&row);
                    bars.widen(&heading, RECORDS);
                    heads = Some(heading);
                }
                bars.add(&text(&row), row.count);
            }
            if let Some(heading) = heads {
                writeln!(out, "{}", bars.cells(&heading, RECORDS, ""))?;
            }
            for row in histogram.rows()? {
                let row = row?;
                writeln!(out, "{}", bars.row(&text(&row), row.count))?;
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
fn csv(value: &Counted) -> (Cow<'_, str>, &'static str) {
    match value {
        Counted::Missing => ("".into(), "missing"),
        Counted::Null => ("null".into(), "null"),
        Counted::Boolean(value) => (value.to_string().into(), "boolean"),
        Counted::Number(text) => (text.into(), "number"),
        Counted::String(text) => (text.into(), "string"),
        Counted::Array => ("".into(), "array"),
        Counted::Object => ("".into(), "object"),
    }
}

fn write_row(cells: &[&str], out: &mut dyn Write) -> io::Result<()> {
    let mut row = Vec::new();
    write_csv(cells.iter().copied(), &mut row);
    out.write_all(&row)
}

/// A value as a table shows it; a string that could be taken for something else in its quotes.
fn label(value: &Counted) -> String {
    match value {
        Counted::Missing => "(none)".to_owned(),
        Counted::Null => "null".to_owned(),
        Counted::Boolean(value) => value.to_string(),
        Counted::Number(text) => text.clone(),
        Counted::Array => "[…]".to_owned(),
        Counted::Object => "{…}".to_owned(),
        Counted::String(text) => {
            let looks_odd = text.is_empty() || text.starts_with(['"', '(', '[', '{', ' ']) || text.ends_with(' ');
            let is_word = matches!(text.as_str(), "null" | "true" | "false");
            if looks_odd || is_word || Decimal::parse(text).is_some() { quoted(text) } else { text.clone() }
        }
    }
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text, &mut out);
    String::from_utf8(out).expect("a string of UTF-8 is spelt in UTF-8")
}

/// A bar for what is not nothing: at least an eighth of a block.
fn bar(count: u64, count_max: u64, width: usize) -> String {
    let eighths = (u128::from(count.min(count_max)) * (width as u128 * 8)).div_ceil(u128::from(count_max.max(1)));
    let eighths = usize::try_from(eighths).expect("a bar is no wider than its column");
    let mut bar = "█".repeat(eighths / 8);
    bar.extend([None, Some('▏'), Some('▎'), Some('▍'), Some('▌'), Some('▋'), Some('▊'), Some('▉')][eighths % 8]);
    bar
}

/// A table of labels, counts and bars, as wide as the terminal.
struct Bars {
    terminal: usize,
    label: usize,
    count: usize,
    count_max: u64,
}

impl Bars {
    fn new() -> Self {
        Self { terminal: terminal_width(), label: 0, count: 0, count_max: 0 }
    }

    /// A label has at most this part of the terminal.
    fn label(&self, text: &str) -> Cell {
        Cell::fit(text, (self.terminal * 5 / 9).max(1))
    }

    fn widen(&mut self, label: &str, count: &str) {
        self.label = self.label.max(self.label(label).width);
        self.count = self.count.max(count.len());
    }

    /// Makes room for a row, all of which are told before the first is written.
    fn add(&mut self, label: &str, count: u64) {
        self.widen(label, &count.to_string());
        self.count_max = self.count_max.max(count);
    }

    fn row(&self, label: &str, count: u64) -> String {
        let room = self.terminal.saturating_sub(self.label + self.count + 2 * GAP.len());
        let bar = if room < BAR_MIN { String::new() } else { bar(count, self.count_max, room) };
        self.cells(label, &count.to_string(), &bar)
    }

    fn cells(&self, label: &str, count: &str, bar: &str) -> String {
        let cell = self.label(label);
        let (padding, digits) = (self.label - cell.width, self.count);
        let row = format!("{}{:padding$}{GAP}{count:>digits$}{GAP}{bar}", cell.text, "");
        row.trim_end().to_owned()
    }
}

/// What heads the counts of a table.
const RECORDS: &str = "records";
/// Bars that are narrower tell nothing.
const BAR_MIN: usize = 8;
/// What stands between the columns.
const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fit_the_terminal_and_their_columns_stand_under_one_another() {
        let long = "x".repeat(300);
        for terminal in [1, 20, 40, 80, 200] {
            let mut bars = Bars { terminal, ..Bars::new() };
            let rows = [("模型训练", 3), ("søgning", 12), ("\u{202e}", 1), (long.as_str(), 7)];
            for (label, count) in &rows {
                bars.add(label, *count);
            }
            let width = |text: &str| Cell::fit(text, usize::MAX / CHARS).width;
            for (label, count) in rows {
                let row = bars.row(label, count);
                assert!(width(&row) <= terminal.max(bars.label + GAP.len() + bars.count), "{terminal}: {row}");
                let (before, _) = row.split_once(&format!("{count:>2}")).unwrap();
                assert_eq!(width(before), bars.label + GAP.len(), "{terminal}: {row}");
            }
            let longest = bars.row("søgning", 12);
            assert!(terminal < 40 || width(&longest) == terminal, "{terminal}: {longest}");
        }
    }

    /// A cell's width times this is counted, and must not overflow.
    const CHARS: usize = 16;
}

//! Records become bytes, in the formats that are printed and downloaded.
//!
//! | Format | Form |
//! |---|---|
//! | ndjson | the lines' own bytes, each with a newline; or objects of a view's columns |
//! | json | one array of these |
//! | csv | RFC 4180: a header, CRLF, quotes where they are needed |
//! | table | columns that fit a terminal, for people: what does not fit is cut, what is hidden is made visible |
//!
//! Every format is streamed: no more than one record is held, and of a table its first rows, cut, from which the columns get their widths.
//! Many columns may show the same long value, each another part of it: a [`Drain`] keeps no more than one of them.

use std::sync::Arc;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::doubled::write_doubled;
use super::error::{FilterError, is_hidden};
use super::field::{Field, Place, Value};
use super::number::Decimal;
use super::record::Record;
use super::view;
use super::when::Zone;
use crate::record::Timestamp;
use crate::record::json::write_string;

/// The columns of a csv where nobody names any.
pub const CSV_COLUMNS: &str = "ts,jobId,workspaceId,rank,event,message,meta";
/// The columns of a table where nobody names any.
pub const TABLE_COLUMNS: &str = "ts,jobId,event,message";

/// Rows of a table that are held until its columns have their widths.
const HELD_MAX: usize = 100;
/// What stands between the columns of a table.
const GAP: &str = "  ";

/// The fields that a csv or table shows, in order; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    /// What heads it, and what its value is called in JSON: as it was asked for, or as the view has it.
    title: String,
    key: String,
    field: Field,
}

impl Columns {
    /// Reads fields with commas between them: `ts,event,meta.path`, `meta."a,b"`. White space around them does not count.
    ///
    /// # Errors
    /// Tells at which byte the text ceases to be a list of fields, each named once.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Self::parse_among(text, &[])
    }

    /// As [`Columns::parse`]; a name may also be the key of a view's column.
    ///
    /// # Errors
    /// Those of [`Columns::parse`].
    pub fn parse_among(text: &str, of_view: &[Arc<view::Column>]) -> Result<Self, FilterError> {
        let mut columns: Vec<Column> = Vec::new();
        let mut rest = text;
        loop {
            let end = column_end(rest);
            let (spaced, title) = (rest[..end].trim_start(), rest[..end].trim());
            let start = text.len() - rest.len() + end - spaced.len();
            let field = Field::parse_among(title, of_view).map_err(|error| error.moved(start))?;
            if columns.iter().any(|column| column.field == field) {
                return Err(FilterError::at(start, format!("`{title}` is there twice")));
            }
            columns.push(Column::of(title, field));
            match rest.get(end + 1..) {
                Some(behind) => rest = behind,
                None => return Ok(Self(columns)),
            }
        }
    }

    /// Which of them show what is the job's own claim: columns of a view by their keys, fields by the member that they are or lie in.
    #[must_use]
    pub fn claimed(&self) -> Vec<&str> {
        let mut claimed: Vec<&str> = Vec::new();
        for column in self.0.iter().filter(|column| column.field.is_claimed()) {
            let name = if matches!(column.field, Field::Meta(_)) { "meta" } else { column.key.as_str() };
            if !claimed.contains(&name) {
                claimed.push(name);
            }
        }
        claimed
    }

    /// Writes what they show of a record as a JSON object, null where that is nothing; returns whether the record is ambiguous. An object
    /// may be as long as all its values: `drain` takes what it has become.
    pub fn write_object(
        &self,
        record: &Record<'_>,
        place: &Place<'_>,
        out: &mut Vec<u8>,
        drain: &mut Drain<'_>,
    ) -> bool {
        let mut is_any_ambiguous = false;
        for (nth, column) in self.0.iter().enumerate() {
            out.push(if nth == 0 { b'{' } else { b',' });
            write_string(&column.key, out);
            out.push(b':');
            let (value, is_ambiguous) = column.field.last_of(record, place);
            value.unwrap_or(Value::Null).write_json(out);
            is_any_ambiguous |= is_ambiguous;
            drain.after_cell(out);
        }
        out.push(b'}');
        is_any_ambiguous
    }
}

impl FromIterator<Arc<view::Column>> for Columns {
    /// Those of a view, which has at least one.
    fn from_iter<C: IntoIterator<Item = Arc<view::Column>>>(columns: C) -> Self {
        Self(columns.into_iter().map(|column| Column::of("", Field::Column(column))).collect())
    }
}

impl Column {
    fn of(asked: &str, field: Field) -> Self {
        let (title, key) = match &field {
            Field::Column(column) => (column.title(), column.key()),
            _ => (asked, asked),
        };
        Self { title: title.to_owned(), key: key.to_owned(), field }
    }
}

/// Where the next comma stands that is not between quotes; the text's length if none does.
fn column_end(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// A format, with what it has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// The lines' own bytes; or of columns, an object a line.
    Ndjson(Option<Columns>),
    /// One array of the lines' own objects; or of columns, of an object for each record.
    Json(Option<Columns>),
    /// RFC 4180. Times are in UTC.
    Csv(Columns),
    /// For people. A backslash stands for itself, so that a text `\u001b` and a character made visible look alike.
    Table {
        /// What is shown.
        columns: Columns,
        /// Whose times are shown.
        zone: Zone,
        /// How many columns the terminal has.
        width: usize,
    },
}

impl Layout {
    /// What heads the columns, or what the members of objects are called; nothing where the lines' own bytes are given.
    #[must_use]
    pub fn columns(&self) -> Option<Vec<&str>> {
        match self {
            Self::Ndjson(columns) | Self::Json(columns) => {
                Some(columns.as_ref()?.0.iter().map(|column| column.key.as_str()).collect())
            }
            Self::Csv(columns) | Self::Table { columns, .. } => {
                Some(columns.0.iter().map(|column| column.title.as_str()).collect())
            }
        }
    }

    /// What it shows of records; nothing: the lines as they are.
    #[must_use]
    pub fn shown(&self) -> Option<&Columns> {
        match self {
            Self::Ndjson(columns) | Self::Json(columns) => columns.as_ref(),
            Self::Csv(columns) | Self::Table { columns, .. } => Some(columns),
        }
    }
}

/// Turns records into bytes: [`Encoder::begin`], [`Encoder::record`] for each, [`Encoder::end`]; each adds to the end of `out`.
///
/// Values: a string is its value, any other value its JSON text, without white space between its tokens and otherwise as it is spelt
/// (the characters that lines escape are escaped); what is missing is empty. Of a key that is there more than once, the last is shown.
///
/// ```
/// use audit_log::reader::field::Place;
/// use audit_log::reader::output::{Columns, Encoder, Layout};
/// use audit_log::reader::record::Record;
///
/// let line = br#"{"ts":0,"jobId":"1","workspaceId":"w","event":"E","message":"\"a\"","meta":{"n": 1.0}}"#;
/// let place = Place { segment: "audit-0_20260128T091244.381Z.jsonl", index: 7, rank: 0 };
/// let mut encoder = Encoder::new(Layout::Csv(Columns::parse("index,message,meta,meta.x")?));
/// let mut out = Vec::new();
/// encoder.begin(&mut out);
/// encoder.record(&Record::parse(line)?, &place, &mut out);
/// encoder.end(&mut out);
/// assert_eq!(out, b"index,message,meta,meta.x\r\n7,\"\"\"a\"\"\",\"{\"\"n\"\":1.0}\",\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Encoder(Form);

#[derive(Debug, Clone)]
enum Form {
    Ndjson(Option<Columns>),
    Json { columns: Option<Columns>, is_first: bool },
    Csv { columns: Columns, is_safe: bool },
    Table(Table),
}

/// Takes what a row has become before its end.
pub struct Drain<'d> {
    bytes_max: usize,
    drain: &'d mut dyn FnMut(&mut Vec<u8>),
}

impl<'d> Drain<'d> {
    /// Once the output holds so many bytes behind a cell, `drain` is to empty it. If nobody wants more of it, that is for `drain` to know: the
    /// row goes on to its end.
    pub fn new(bytes_max: usize, drain: &'d mut dyn FnMut(&mut Vec<u8>)) -> Self {
        Self { bytes_max, drain }
    }

    fn never(drain: &'d mut dyn FnMut(&mut Vec<u8>)) -> Self {
        Self::new(usize::MAX, drain)
    }

    fn after_cell(&mut self, out: &mut Vec<u8>) {
        if out.len() >= self.bytes_max {
            (self.drain)(out);
        }
    }
}

impl Encoder {
    /// Makes an encoder of a format.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self(match layout {
            Layout::Ndjson(columns) => Form::Ndjson(columns),
            Layout::Json(columns) => Form::Json { columns, is_first: true },
            Layout::Csv(columns) => Form::Csv { columns, is_safe: false },
            Layout::Table { columns, zone, width } => Form::Table(Table::new(columns, zone, width)),
        })
    }

    /// The same for spreadsheets: in csv, a cell that they would run as a formula gets a `'` before it, by which they take it for text.
    /// Numbers stay as they are.
    #[must_use]
    pub fn for_spreadsheets(mut self) -> Self {
        if let Form::Csv { is_safe, .. } = &mut self.0 {
            *is_safe = true;
        }
        self
    }

    /// An encoder of records that come behind others, for another thread: [`Encoder::place_first`] makes what it adds the beginning. A
    /// table has none, as its widths hang on its first rows.
    #[must_use]
    pub fn following(&self) -> Option<Self> {
        match &self.0 {
            Form::Ndjson(columns) => Some(Self(Form::Ndjson(columns.clone()))),
            Form::Json { columns, .. } => Some(Self(Form::Json { columns: columns.clone(), is_first: false })),
            Form::Csv { columns, is_safe } => Some(Self(Form::Csv { columns: columns.clone(), is_safe: *is_safe })),
            Form::Table(_) => None,
        }
    }

    /// What an [`Encoder::following`] has added, as it is where this one has not added a record yet: without what would part it from
    /// those before.
    pub fn place_first<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        if let Form::Json { is_first, .. } = &mut self.0
            && std::mem::take(is_first)
        {
            return bytes.strip_prefix(b",").unwrap_or(bytes);
        }
        bytes
    }

    /// Adds what comes before all records.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        match &mut self.0 {
            Form::Ndjson(_) => {}
            Form::Json { .. } => out.push(b'['),
            Form::Csv { columns, .. } => write_csv(columns.0.iter().map(|column| column.title.as_str()), out),
            Form::Table(table) => table.begin(),
        }
    }

    /// Adds a record; returns whether it is ambiguous, as a key on a column's path is there more than once.
    ///
    /// **Complexity**: linear in the bytes of the line, times the number of columns.
    pub fn record(&mut self, record: &Record<'_>, place: &Place<'_>, out: &mut Vec<u8>) -> bool {
        self.record_drained(record, place, out, &mut Drain::never(&mut |_| {}))
    }

    /// As [`Encoder::record`]; a long row is taken from `out` in pieces.
    pub fn record_drained(
        &mut self,
        record: &Record<'_>,
        place: &Place<'_>,
        out: &mut Vec<u8>,
        drain: &mut Drain<'_>,
    ) -> bool {
        match &mut self.0 {
            Form::Ndjson(columns) => {
                let is_ambiguous = write_object(columns.as_ref(), record, place, out, drain);
                out.push(b'\n');
                is_ambiguous
            }
            Form::Json { columns, is_first } => {
                out.extend_from_slice(if *is_first { b"\n" } else { b",\n" });
                *is_first = false;
                write_object(columns.as_ref(), record, place, out, drain)
            }
            Form::Csv { columns, is_safe } => write_csv_record((columns, *is_safe), record, place, out, drain),
            Form::Table(table) => table.record(record, place, out),
        }
    }

    /// Adds what is held back of the records so far, as nobody knows when the next one comes.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if let Form::Table(table) = &mut self.0 {
            table.settle(out);
        }
    }

    /// Adds what is held back, and what comes after all records.
    pub fn end(mut self, out: &mut Vec<u8>) {
        self.flush(out);
        if let Form::Json { is_first, .. } = self.0 {
            out.extend_from_slice(if is_first { b"]\n" } else { b"\n]\n" });
        }
    }
}

/// Writes a record as JSON: its own line, or an object of columns. Returns whether it is ambiguous.
fn write_object(
    columns: Option<&Columns>,
    record: &Record<'_>,
    place: &Place<'_>,
    out: &mut Vec<u8>,
    drain: &mut Drain<'_>,
) -> bool {
    if let Some(columns) = columns {
        return columns.write_object(record, place, out, drain);
    }
    out.extend_from_slice(record.line);
    false
}

/// Whether a spreadsheet may take a cell for a formula (OWASP, "CSV Injection"). A number is none, with its sign.
fn is_formula(cell: &str) -> bool {
    const SIGNS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    cell.starts_with(SIGNS) && Decimal::parse(cell).is_none()
}

/// Writes what columns show of a record as a row; returns whether it is ambiguous.
fn write_csv_record(
    (columns, is_safe): (&Columns, bool),
    record: &Record<'_>,
    place: &Place<'_>,
    out: &mut Vec<u8>,
    drain: &mut Drain<'_>,
) -> bool {
    let mut is_any_ambiguous = false;
    for (at, column) in columns.0.iter().enumerate() {
        let mut write = |cell: &str| {
            if at > 0 {
                out.push(b',');
            }
            let sign = if is_safe && is_formula(cell) { "'" } else { "" };
            write_csv_cell(sign, cell.as_bytes(), columns.0.len() == 1, out);
        };
        match &column.field {
            Field::Ts => write(str::from_utf8(&record.ts.text()).expect("it is ASCII")),
            Field::Meta(steps) if steps.is_empty() && record.is_compact => write(record.meta),
            field => {
                let (value, is_ambiguous) = field.last_of(record, place);
                is_any_ambiguous |= is_ambiguous;
                match value {
                    Some(Value::String(text)) => write(&text),
                    value => write(&value.map(Value::text).unwrap_or_default()),
                }
            }
        }
        drain.after_cell(out);
    }
    out.extend_from_slice(b"\r\n");
    is_any_ambiguous
}

/// Writes a row as RFC 4180 §2 has it.
pub(crate) fn write_csv<'c>(cells: impl ExactSizeIterator<Item = &'c str>, out: &mut Vec<u8>) {
    let is_alone = cells.len() == 1;
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_csv_cell("", cell.as_bytes(), is_alone, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a sign and a cell, with quotes around them where they need them.
fn write_csv_cell(sign: &str, cell: &[u8], is_alone: bool, out: &mut Vec<u8>) {
    // All bytes are looked at, so that compilers make vectors of it.
    let is_special = cell.iter().fold(false, |is_any, byte| is_any | matches!(byte, b'"' | b',' | b'\r' | b'\n'));
    // A line without a byte would be no row to most readers.
    let is_quoted = is_special || is_alone && cell.is_empty();
    out.extend_from_slice(if is_quoted { b"\"" } else { b"" });
    out.extend_from_slice(sign.as_bytes());
    if is_special {
        write_doubled(cell, out);
    } else {
        out.extend_from_slice(cell);
    }
    out.extend_from_slice(if is_quoted { b"\"" } else { b"" });
}

#[derive(Debug, Clone)]
struct Table {
    columns: Columns,
    zone: Zone,
    width: usize,
    /// How wide each column would have to be to cut none of its cells, the present row's included; at most `width`.
    wanted: Vec<usize>,
    /// The first rows, until the widths are settled.
    held: Option<Vec<Vec<Cell>>>,
}

/// What a terminal may be given.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Cell {
    pub(crate) text: String,
    /// Columns of a terminal.
    pub(crate) width: usize,
}

impl Table {
    fn new(columns: Columns, zone: Zone, width: usize) -> Self {
        // So wide are times from the first row on, so that the same columns are left out of each.
        let time = |field: &Field| field.time_text(Timestamp::from_millis(0), &zone).width();
        let wanted = columns.0.iter().map(|column| if column.field.is_time() { time(&column.field) } else { 0 });
        Self { wanted: wanted.collect(), columns, zone, width: width.max(1), held: Some(Vec::new()) }
    }

    fn begin(&mut self) {
        let titles = self.columns.0.iter().map(|column| Cell::fit(&column.title, self.width)).collect();
        self.row(titles, &mut Vec::new());
    }

    fn record(&mut self, record: &Record<'_>, place: &Place<'_>, out: &mut Vec<u8>) -> bool {
        let mut is_any_ambiguous = false;
        let cell = |column: &Column| {
            if column.field.is_time() {
                return Cell::fit(&column.field.time_text(record.ts, &self.zone), self.width);
            }
            let (value, is_ambiguous) = column.field.last_of(record, place);
            is_any_ambiguous |= is_ambiguous;
            Cell::fit(&value.map(Value::text).unwrap_or_default(), self.width)
        };
        let row = self.columns.0.iter().map(cell).collect();
        self.row(row, out);
        is_any_ambiguous
    }

    /// Adds a row. One that comes after the widths were settled may widen a column, rather than be cut where there is room.
    fn row(&mut self, row: Vec<Cell>, out: &mut Vec<u8>) {
        for (wanted, cell) in self.wanted.iter_mut().zip(&row) {
            *wanted = cell.width.max(*wanted);
        }
        let Some(held) = &mut self.held else {
            write_row(&row, &self.widths(), out);
            return;
        };
        held.push(row);
        if held.len() > HELD_MAX {
            self.settle(out);
        }
    }

    fn settle(&mut self, out: &mut Vec<u8>) {
        let widths = self.widths();
        for row in self.held.take().unwrap_or_default() {
            write_row(&row, &widths, out);
        }
    }

    /// How wide each column is: as it wants to be if all fit. Else the widest give way, and then those that are named last, whose width is 0
    /// then, rather than that a time is cut.
    fn widths(&self) -> Vec<usize> {
        /// Below this, nobody can tell what a cell says.
        const LEAST: usize = 4;
        let is_time = |at: usize| self.columns.0[at].field.is_time();
        let all = vec![true; self.wanted.len()];
        let room = |shown: &[bool]| {
            let count = shown.iter().filter(|is_shown| **is_shown).count();
            let mark = if count < shown.len() { GAP.len() + 1 } else { 0 };
            self.width.saturating_sub(count.saturating_sub(1) * GAP.len() + mark)
        };
        let needed = |shown: &[bool]| -> usize {
            let of = |at: usize| if is_time(at) { self.wanted[at] } else { LEAST };
            (0..shown.len()).filter(|at| shown[*at]).map(of).sum()
        };
        let mut shown = all.clone();
        while needed(&shown) > room(&shown) {
            let last = (0..shown.len()).rfind(|at| shown[*at] && !is_time(*at));
            let Some(last) = last.filter(|_| (0..shown.len()).any(is_time)) else { break };
            shown[last] = false;
        }
        let are_times_whole = needed(&shown) <= room(&shown);
        let shown = if are_times_whole { shown } else { all };
        let (stays, room) = (|at: usize| are_times_whole && is_time(at), room(&shown));
        let width = |at: usize, limit: usize| if stays(at) { self.wanted[at] } else { self.wanted[at].min(limit) };
        let taken =
            |limit: usize| -> usize { (0..shown.len()).filter(|at| shown[*at]).map(|at| width(at, limit)).sum() };
        // Every limit that fits comes before every one that does not.
        let widest = self.wanted.iter().copied().max().unwrap_or_default();
        let limit = (2..=widest).rev().find(|limit| taken(*limit) <= room).unwrap_or(1);
        let mut left = room.saturating_sub(taken(limit));
        let mut widths = Vec::with_capacity(shown.len());
        for (at, is_shown) in shown.into_iter().enumerate() {
            let width = if is_shown { width(at, limit) } else { 0 };
            let more = usize::from(is_shown && width < self.wanted[at] && left > 0);
            left -= more;
            widths.push(width + more);
        }
        widths
    }
}

/// Stands where something is left out.
const CUT: char = '…';

fn write_row(row: &[Cell], widths: &[usize], out: &mut Vec<u8>) {
    let mut padding = 0;
    for (cell, width) in row.iter().zip(widths).filter(|(_, width)| **width > 0) {
        let cell = Cell::fit(&cell.text, *width);
        // Padding is written before the next cell, so that no line ends in it.
        if cell.width > 0 {
            out.resize(out.len() + padding, b' ');
            padding = 0;
        }
        out.extend_from_slice(cell.text.as_bytes());
        padding += width.saturating_sub(cell.width) + GAP.len();
    }
    if widths.contains(&0) {
        out.resize(out.len() + padding, b' ');
        out.extend_from_slice(CUT.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.push(b'\n');
}

/// A text in which nothing is hidden: control, bidirectional and invisible characters are shown as in `\u001b`. A message with
/// somebody else's words in it stays one line, and a terminal obeys none of them.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|char| push_visible(char, &mut shown));
    shown
}

fn push_visible(char: char, shown: &mut String) {
    if is_hidden(char) {
        shown.extend(format!("\\u{:04x}", u32::from(char)).chars());
    } else {
        shown.push(char);
    }
}

impl Cell {
    /// Makes visible what is hidden in a text, and cuts it to a width, which is at least 1.
    pub(crate) fn fit(text: &str, width_max: usize) -> Self {
        let mut cell = Self { text: String::new(), width: 0 };
        // How much of it would leave room for the sign that something is missing.
        let mut kept = (0, 0);
        for (nth, char) in text.chars().enumerate() {
            let width = if is_hidden(char) { "\\u0000".len() } else { char.width().unwrap_or(0) };
            // Marks without a width may be heaped up without end.
            if cell.width + width > width_max || nth >= width_max * CHARS_PER_COLUMN_MAX {
                cell.text.truncate(kept.0);
                cell.text.push(CUT);
                cell.width = kept.1 + 1;
                return cell;
            }
            push_visible(char, &mut cell.text);
            cell.width += width;
            if cell.width < width_max {
                kept = (cell.text.len(), cell.width);
            }
        }
        cell
    }
}

/// Characters in a column of a terminal: a letter and the marks above and below it that languages have.
const CHARS_PER_COLUMN_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::spelling::{Spelling, any_model};

    #[test]
    fn what_is_hidden_in_a_text_is_made_visible() {
        assert_eq!(visible("a\nb\u{1b}[2J\u{202e}é\u{9b}"), "a\\u000ab\\u001b[2J\\u202eé\\u009b");
    }

    const HERE: Place<'_> = Place { segment: "1/audit-3_20260128T091244.381Z.jsonl", index: 7, rank: 3 };

    fn line(event: &str, message: &str, meta: &str) -> String {
        format!(
            r#"{{"ts":1769591564381,"jobId":"j","workspaceId":"w","event":"{event}","message":"{message}","meta":{meta}}}"#
        )
    }

    /// All that is written of some lines.
    fn encoded(layout: Layout, lines: &[String]) -> String {
        let (mut encoder, mut out) = (Encoder::new(layout), Vec::new());
        encoder.begin(&mut out);
        for line in lines {
            encoder.record(&Record::parse(line.as_bytes()).unwrap(), &HERE, &mut out);
        }
        encoder.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn columns(text: &str) -> Columns {
        Columns::parse(text).unwrap()
    }

    fn table(text: &str, width: usize) -> Layout {
        Layout::Table { columns: columns(text), zone: Zone::UTC, width }
    }

    /// What a csv reader that takes quotes at their word makes of a text.
    fn read_csv(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell, mut is_quoted) = (vec![], vec![], String::new(), false);
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => row.push(std::mem::take(&mut cell)),
                '\r' if !is_quoted => {
                    assert_eq!(chars.next(), Some('\n'));
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                '\n' => {
                    assert!(is_quoted);
                    cell.push(char);
                }
                char => cell.push(char),
            }
        }
        assert!(row.is_empty() && cell.is_empty() && !is_quoted);
        rows
    }

    #[test]
    fn columns_stand_between_commas_that_are_not_quoted() {
        let parsed = columns(" ts ,meta.\"a,\\\"b\".c,\u{a0}rank");
        let titles: Vec<_> = parsed.0.iter().map(|column| column.title.as_str()).collect();
        assert_eq!(titles, ["ts", "meta.\"a,\\\"b\".c", "rank"]);
        assert_eq!(parsed.0[1].field, Field::parse("meta.\"a,\\\"b\".c").unwrap());
        for (text, offset) in [
            ("", 0),
            ("ts,", 3),
            ("ts, ,event", 4),
            ("ts, path", 4),
            ("ts,  meta.,event", 10),
            ("meta.\"a,b", 9),
            ("ts event", 2),
            ("event,meta.\"a\", meta.a", 16),
        ] {
            assert_eq!(Columns::parse(text).expect_err(text).offset, offset, "{text}");
        }
        assert!(Columns::parse(CSV_COLUMNS).is_ok() && Columns::parse(TABLE_COLUMNS).is_ok());
    }

    #[test]
    fn ndjson_and_json_are_the_lines_own_bytes() {
        let lines = [line("a", "", r#"{ "n" : 1.0, "n":1e0 }"#), format!("  {} ", line("b", "\\u0061", "null"))];
        assert_eq!(encoded(Layout::Ndjson(None), &lines), format!("{}\n{}\n", lines[0], lines[1]));
        assert_eq!(encoded(Layout::Json(None), &lines), format!("[\n{},\n{}\n]\n", lines[0], lines[1]));
        assert_eq!(encoded(Layout::Json(None), &[]), "[]\n");
        assert_eq!(encoded(Layout::Ndjson(None), &[]), "");
    }

    #[test]
    fn csv_shows_values_of_strings_and_the_json_of_all_else() {
        let meta =
            r#"{"s":"a\u0022b, \r\n","n": -1.50e+3,"t":true,"z":null,"o":{ "x" : [ 1 , "a  \u0062" ] },"d":1,"d":[2]}"#;
        let all =
            "ts,jobId,workspaceId,rank,segment,index,event,message,meta.s,meta.n,meta.t,meta.z,meta.o,meta.d,meta.no";
        let csv = encoded(Layout::Csv(columns(all)), &[line("e", "", meta)]);
        let row = "2026-01-28T09:12:44.381Z,j,w,3,1/audit-3_20260128T091244.381Z.jsonl,7,e,,\"a\"\"b, \r\n\",-1.50e+3,true,null,\
            \"{\"\"x\"\":[1,\"\"a  \\u0062\"\"]}\",[2],\r\n";
        assert_eq!(csv, format!("{all}\r\n{row}"));
        assert_eq!(encoded(Layout::Csv(columns("message")), &[line("e", "", "0")]), "message\r\n\"\"\r\n");
        assert_eq!(encoded(Layout::Csv(columns("meta.\"a\",ts")), &[]), "\"meta.\"\"a\"\"\",ts\r\n");
    }

    #[test]
    fn a_record_is_ambiguous_by_the_columns_that_are_shown() {
        let line = line("e", "", r#"{"d":1,"d":2,"x":0}"#);
        let record = Record::parse(line.as_bytes()).unwrap();
        for layout in [|text: &str| Layout::Csv(columns(text)), |text: &str| table(text, 80)] {
            let is_ambiguous = |text: &str| Encoder::new(layout(text)).record(&record, &HERE, &mut Vec::new());
            assert!(is_ambiguous("meta.d,event"));
            assert!(!is_ambiguous("meta.x,meta"));
        }
        assert!(!Encoder::new(Layout::Json(None)).record(&record, &HERE, &mut Vec::new()));
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_no_wider_than_the_terminal() {
        let lines = [line("short", "a", "0"), line("some_what_longer", "日本語 is wide", "0"), line("b", "", "0")];
        let expected = "\
ts                        event             message
2026-01-28T09:12:44.381Z  short             a
2026-01-28T09:12:44.381Z  some_what_longer  日本語 is wide
2026-01-28T09:12:44.381Z  b
";
        assert_eq!(encoded(table("ts,event,message", 58), &lines), expected);
        let expected = "\
ts                        event     message
2026-01-28T09:12:44.381Z  short     a
2026-01-28T09:12:44.381Z  some_wh…  日本語…
2026-01-28T09:12:44.381Z  b
";
        assert_eq!(encoded(table("ts,event,message", 43), &lines), expected);
        assert_eq!(encoded(table("event,message", 11), &lines[1..2]), "event  mes…\nsome…  日…\n");
        // Rather than that a time is cut, the last columns are left out.
        let narrow = "\
ts                        jobId  eve…  …
2026-01-28T09:12:44.381Z  j      som…  …
";
        assert_eq!(encoded(table("ts,jobId,event,message", 40), &lines[1..2]), narrow);
        let narrower = "ts                        …\n2026-01-28T09:12:44.381Z  …\n";
        assert_eq!(encoded(table("event,ts,message", 30), &lines[1..2]), narrower);
        assert_eq!(encoded(table("ts,event", 20), &lines[1..2]), "ts         event\n2026-01-…  some_wha…\n");
    }

    #[test]
    fn a_table_shows_times_of_its_zone_and_nothing_that_a_terminal_obeys() {
        let zone = Zone::parse("Europe/Copenhagen").unwrap();
        let layout = Layout::Table { columns: columns("ts,message,meta"), zone, width: 200 };
        let lines = [line("e", "\\u001b[2J\\n\u{202e}\u{9b}\u{200b}é👩\\u200d🚀", "\"\u{2066}\"")];
        let shown = encoded(layout, &lines);
        let row = "2026-01-28T10:12:44.381+01:00  \\u001b[2J\\u000a\\u202e\\u009b\\u200bé👩\u{200d}🚀  \\u2066";
        assert_eq!(shown.lines().nth(1), Some(row));
    }

    #[test]
    fn what_comes_late_widens_a_column_only_where_there_is_room() {
        let first = line("a", "b", "0");
        let mut encoder = Encoder::new(table("event,message", 20));
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for nth in 0..HELD_MAX {
            assert!(out.is_empty(), "{nth}");
            encoder.record(&Record::parse(first.as_bytes()).unwrap(), &HERE, &mut out);
        }
        assert_eq!(String::from_utf8_lossy(&out).lines().count(), 1 + HELD_MAX);
        for (late, shown) in [
            (line("bcdefgh", "x", "0"), "bcdefgh  x\n"),
            (line("b", &"x".repeat(30), "0"), "b        xxxxxxxxxx…\n"),
            (line("b", "x", "0"), "b        x\n"),
        ] {
            out.clear();
            encoder.record(&Record::parse(late.as_bytes()).unwrap(), &HERE, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), shown);
        }
    }

    #[test]
    fn a_flush_holds_nothing_back() {
        let (mut encoder, mut out) = (Encoder::new(table("event", 12)), Vec::new());
        encoder.begin(&mut out);
        encoder.flush(&mut out);
        assert_eq!(out, b"event\n");
        encoder.end(&mut out);
        assert_eq!(out, b"event\n");
    }

    #[test]
    fn marks_without_a_width_are_not_heaped_up() {
        let heap = format!("a{}", "\u{301}".repeat(1000));
        let cell = Cell::fit(&heap, 10);
        assert_eq!((cell.text.chars().count(), cell.width), (41, 2));
        assert_eq!(Cell::fit("e\u{301}\u{323}", 1), Cell { text: "e\u{301}\u{323}".to_owned(), width: 1 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn csv_is_read_back_and_tables_fit(models in proptest::collection::vec(any_model(), 0..4), seed: u64, width in 40..120usize) {
            let lines: Vec<_> = models.iter().map(|model| model.spell(&mut Spelling::random(seed))).collect();
            let rows = read_csv(&encoded(Layout::Csv(columns(CSV_COLUMNS)), &lines));
            prop_assert_eq!(rows.len(), models.len() + 1);
            for (row, model) in rows[1..].iter().zip(&models) {
                let members = [&model.job_id, &model.workspace_id, &model.event, &model.message];
                prop_assert_eq!([&row[1], &row[2], &row[4], &row[5]], members);
            }
            let shown = encoded(table("ts,jobId,event,message,meta", width), &lines);
            prop_assert_eq!(shown.lines().count(), models.len() + 1);
            for line in shown.lines() {
                prop_assert!(!line.chars().any(is_hidden), "{:?}", line);
                prop_assert!(line.chars().filter_map(UnicodeWidthChar::width).sum::<usize>() <= width, "{:?}", line);
            }
        }
    }

    #[test]
    fn formulas_are_neutralised_where_that_is_asked_for_and_nothing_else_is_changed() {
        let layout = || Layout::Csv(columns("event,message,meta.n"));
        let lines = |event: &str, message: &str, n: &str| line(event, message, &format!("{{\"n\":{n}}}"));
        for (event, safe) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
            ("\\t=1", "'\t=1"),
            ("＝1", "'＝1"),
            ("-12.5e3", "-12.5e3"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            let line = lines(event, "x", "-7");
            let mut encoder = Encoder::new(layout()).for_spreadsheets();
            let mut out = Vec::new();
            encoder.record(&Record::parse(line.as_bytes()).unwrap(), &HERE, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{safe},x,-7\r\n"), "{event}");
            let plain = encoded(layout(), &[line]);
            let asked: String = serde_json::from_str(&format!("\"{event}\"")).unwrap();
            assert_eq!(plain, format!("event,message,meta.n\r\n{asked},x,-7\r\n"), "{event}");
        }
    }
}

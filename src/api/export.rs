//! All records that match, as a file.

use std::io::{self, Write};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};

use super::Console;
use super::answer;
use super::caller::Caller;
use super::filters::{self, FILTERS, ORDER};
use super::parameters::{Kind, Parameter, Parameters, bad, fault};
use super::search;
use super::stream::{self, Label, Out};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::field::Place;
use crate::reader::filter::{Criteria, Filter};
use crate::reader::listing::{Listing, Sources};
use crate::reader::output::{CSV_COLUMNS, Columns, Encoder, Layout};
use crate::reader::record::Record;
use crate::reader::sorted::{Order, Sorted};
use crate::reader::view::View;

/// What an export is asked for by, beside the filters.
pub(super) const EXPORT: &[Parameter] = &[
    ORDER,
    Parameter::new(
        "format",
        Kind::OneOf(&["ndjson", "csv", "json"]),
        "The lines' own bytes, RFC 4180, or one array of the lines' own objects; by a view, its objects.",
    ),
    Parameter::text(
        "columns",
        "ts,event,meta.path",
        "The fields of a csv, or of a view's objects, each once, with commas between them.",
    ),
    Parameter::new(
        "csvSafe",
        Kind::OneOf(&["false", "true"]),
        "Put `'` before what a spreadsheet would run as a formula. It changes the values, so it has to be asked for.",
    ),
];

/// `GET /api/v1/events/export`.
pub(super) async fn export(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[FILTERS, EXPORT])?;
    let order = filters::order(&parameters)?;
    let (criteria, _) = filters::criteria(&parameters, &console.views, SystemClock.now(), caller.scope.clone())?;
    let view = filters::view(&parameters, &console.views)?;
    let format = parameters.word("format")?;
    if format != "csv" && parameters.one("csvSafe").is_some() {
        return Err(bad("csvSafe", None, "only `format=csv` has cells"));
    }
    if format != "csv" && view.is_none() && parameters.one("columns").is_some() {
        return Err(bad("columns", None, "only `format=csv` has columns, or a `view`"));
    }
    let of_view = view.map(View::columns).unwrap_or_default();
    let named = parameters.one("columns").map(|text| Columns::parse_among(text, of_view));
    let columns = named.transpose().map_err(|error| fault("columns", &error))?.or_else(|| view.map(View::all));
    let (layout, content_type, file_name) = match format {
        "csv" => {
            let columns = columns.unwrap_or_else(|| Columns::parse(CSV_COLUMNS).expect("these are fields"));
            (Layout::Csv(columns), "text/csv; charset=utf-8; header=present", "audit.csv")
        }
        "json" => (Layout::Json(columns), "application/json", "audit.json"),
        _ => (Layout::Ndjson(columns), "application/x-ndjson", "audit.ndjson"),
    };
    let is_safe = parameters.word("csvSafe")? == "true";
    let label = Label { content_type, file_name: Some(file_name) };
    Export { criteria, order, offset: 0, limit: None, layout, is_safe }.answer(console, caller, label).await
}

/// Records that match, to be written as they are read.
pub(super) struct Export {
    pub(super) criteria: Criteria,
    pub(super) order: Order,
    /// So many are left out first.
    pub(super) offset: usize,
    /// And at most so many follow.
    pub(super) limit: Option<usize>,
    pub(super) layout: Layout,
    /// For spreadsheets.
    pub(super) is_safe: bool,
}

impl Export {
    /// Answers with them.
    ///
    /// # Errors
    /// Those of [`stream::answer`].
    pub(super) async fn answer(self, console: Arc<Console>, caller: Caller, label: Label) -> Result<Response, Problem> {
        let Self { criteria, order, offset, limit, layout, is_safe } = self;
        let (filter, exporting) = (Filter::new(criteria), Arc::clone(&console));
        let claims = answer::claims(layout.shown());
        let response = stream::answer(&console, caller, label, move |is_stopped, answer| {
            let listing = exporting.library.listing();
            let directories = (exporting.library.sources(), &*listing);
            let search = search::prepare(directories, &filter, is_stopped);
            match search.sorted(order, limit.map(|limit| limit.saturating_add(offset))) {
                Ok((sorted, coverage)) => {
                    let mut out = answer.begin(coverage.into());
                    let encoder = Encoder::new(layout);
                    let encoder = if is_safe { encoder.for_spreadsheets() } else { encoder };
                    let written = write(encoder, sorted, offset, directories, &mut out);
                    out.end(written);
                }
                Err(error) => answer.refuse(search::failed(&error)),
            }
        })
        .await?;
        Ok((claims, response).into_response())
    }
}

/// Writes records, but the first `offset` of them.
pub(super) fn write(
    mut encoder: Encoder,
    mut sorted: Sorted,
    offset: usize,
    (sources, listing): (&Sources, &Listing),
    out: &mut Out,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    encoder.begin(&mut bytes);
    out.write_all(&bytes)?;
    for _ in 0..offset {
        if sorted.next_line(listing, sources)?.is_none() {
            break;
        }
    }
    while let Some(length) = sorted.next_bytes() {
        let mut is_there = false;
        out.write_row(length, |bytes, drain| {
            let Some(line) = sorted.next_line(listing, sources)? else { return Ok(()) };
            let segment = &listing.segments[line.segment];
            let path = segment.path(sources);
            let place = Place { segment: &path, index: line.index, rank: segment.name.rank() };
            let record = Record::parse(&line.line).expect("what is no record is left out");
            encoder.record_drained(&record, &place, bytes, drain);
            is_there = true;
            Ok(())
        })?;
        if is_there {
            out.count_row();
        }
    }
    bytes.clear();
    encoder.end(&mut bytes);
    out.write_all(&bytes)?;
    match search::lost(&sorted, listing, sources) {
        0 => Ok(()),
        segments => Err(io::Error::other(format!("{segments} segments changed while they were read"))),
    }
}

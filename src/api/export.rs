//! All records that match, as a file.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::Console;
use super::caller::Caller;
use super::filters::{self, FILTERS, ORDER};
use super::parameters::{Kind, Parameter, Parameters, bad, fault};
use super::search;
use super::stream::{self, Answer, Label, Out};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::field::Place;
use crate::reader::filter::Filter;
use crate::reader::listing::Listing;
use crate::reader::output::{CSV_COLUMNS, Columns, Encoder, Layout};
use crate::reader::record::Record;
use crate::reader::sorted::{Order, Sorted};

/// What an export is asked for by, beside the filters.
pub(super) const EXPORT: &[Parameter] = &[
    ORDER,
    Parameter::new(
        "format",
        Kind::OneOf(&["ndjson", "csv", "json"]),
        "The lines' own bytes, RFC 4180, or one array of the lines' own objects.",
    ),
    Parameter::text("columns", "ts,event,meta.path", "The fields of a csv, with commas between them."),
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
    let (criteria, _) = filters::criteria(&parameters, SystemClock.now(), caller.scope.clone())?;
    let format = parameters.word("format")?;
    let is_safe = parameters.word("csvSafe")? == "true";
    let columns = parameters.one("columns");
    for name in ["columns", "csvSafe"] {
        if format != "csv" && parameters.one(name).is_some() {
            return Err(bad(name, None, "only `format=csv` has columns"));
        }
    }
    let columns = Columns::parse(columns.unwrap_or(CSV_COLUMNS)).map_err(|error| fault("columns", &error))?;
    let (layout, content_type, file_name) = match format {
        "csv" => (Layout::Csv(columns), "text/csv; charset=utf-8; header=present", "audit.csv"),
        "json" => (Layout::Json(None), "application/json", "audit.json"),
        _ => (Layout::Ndjson(None), "application/x-ndjson", "audit.ndjson"),
    };
    let encoder = if is_safe { Encoder::new(layout).for_spreadsheets() } else { Encoder::new(layout) };
    let asked = Asked { filter: Filter::new(criteria), order, encoder };
    let label = Label { content_type, file_name: Some(file_name) };
    let exporting = Arc::clone(&console);
    stream::answer(&console, caller, label, move |is_stopped, answer| asked.answer(&exporting, is_stopped, answer))
        .await
}

struct Asked {
    filter: Filter,
    order: Order,
    encoder: Encoder,
}

impl Asked {
    fn answer(self, console: &Console, is_stopped: &AtomicBool, answer: Answer) {
        let listing = console.library.listing();
        let search = search::prepare((console.library.sources(), &listing), &self.filter, is_stopped);
        match search.sorted(self.order, None) {
            Ok((sorted, coverage)) => {
                let mut out = answer.begin(coverage.into());
                let written = write(self.encoder, sorted, &listing, console, &mut out);
                out.end(written);
            }
            Err(error) => answer.refuse(search::failed(&error)),
        }
    }
}

fn write(
    mut encoder: Encoder,
    mut sorted: Sorted,
    listing: &Listing,
    console: &Console,
    out: &mut Out,
) -> io::Result<()> {
    let sources = console.library.sources();
    let mut bytes = Vec::new();
    encoder.begin(&mut bytes);
    while let Some(line) = sorted.next_line(listing, sources)? {
        let segment = &listing.segments[line.segment];
        let path = segment.path(sources);
        let place = Place { segment: &path, index: line.index, rank: segment.name.rank() };
        let record = Record::parse(&line.line).expect("what is no record is left out");
        encoder.record(&record, &place, &mut bytes);
        out.count_row();
        out.write_all(&bytes)?;
        bytes.clear();
    }
    encoder.end(&mut bytes);
    out.write_all(&bytes)?;
    match search::lost(&sorted, listing, sources) {
        0 => Ok(()),
        segments => Err(io::Error::other(format!("{segments} segments changed while they were read"))),
    }
}

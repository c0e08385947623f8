//! Counts: the values of fields, and records by time. They may be many, so they are written as they are read.

use std::io::{self, Write};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;

use super::Console;
use super::answer::json;
use super::caller::Caller;
use super::filters::{self, FILTERS};
use super::parameters::{Kind, Parameter, Parameters, bad};
use super::search::{self, Searched};
use super::stream::{self, Answer, Label, Out};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::counts::{self, Counted, Histogram, Interval, More};
use crate::reader::filter::Filter;

/// Fields that are counted for one request: where their values lie takes 256 KiB each.
const FIELDS_MAX: usize = 8;

const JSON: Label = Label { content_type: "application/json", file_name: None };

/// What counts of values are asked for by, beside the filters.
pub(super) const FACETS: &[Parameter] = &[Parameter::text(
    "field",
    "event",
    "A field whose values are counted: a member, or a path into `meta`; repeated, at most 8: each of them.",
)
.repeatable()
.required()];

/// What counts by time are asked for by, beside the filters.
pub(super) const HISTOGRAM: &[Parameter] = &[
    Parameter::new(
        "interval",
        Kind::OneOf(&["hour", "minute", "day"]),
        "How long the times are: days are those of `tz`.",
    ),
    Parameter::text("by", "event", "A field: the records of each of its values are counted apart."),
];

/// The values of fields.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Facets {
    /// As they were asked for.
    facets: Vec<Facet>,
    /// What was looked at.
    searched: Searched,
}

/// The values of a field.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Facet {
    /// Its name.
    field: String,
    /// The most frequent first; at most 10,000.
    values: Vec<FacetValue>,
    /// What is left out, as there are more.
    more: Left,
}

/// What is left out of the values of a field.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Left {
    /// Values.
    values: u64,
    /// Records with one of these.
    records: u64,
}

/// A value of a field, and in how many records it was found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FacetValue {
    /// A string's value; a number's digits; empty for what is neither.
    value: String,
    kind: ValueKind,
    count: u64,
}

/// What a value is. Arrays are counted together, and so are objects.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ValueKind {
    /// There is none.
    Missing,
    Null,
    True,
    False,
    Number,
    String,
    Array,
    Object,
}

/// Records by time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Intervals {
    /// The oldest first; those without a record are left out.
    rows: Vec<Row>,
    /// What was looked at.
    searched: Searched,
}

/// Records of one interval, with one value if they were split.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Row {
    /// When it begins, in UTC.
    #[schema(value_type = String, format = DateTime)]
    start: String,
    /// The value by which they were split.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<ByValue>,
    count: u64,
}

/// A value by which records are split.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ByValue {
    /// As in facets.
    value: String,
    kind: ValueKind,
}

fn text_and_kind(value: Counted) -> (String, ValueKind) {
    let kind = match &value {
        Counted::Missing => ValueKind::Missing,
        Counted::Null => ValueKind::Null,
        Counted::Boolean(true) => ValueKind::True,
        Counted::Boolean(false) => ValueKind::False,
        Counted::Number(_) => ValueKind::Number,
        Counted::String(_) => ValueKind::String,
        Counted::Array => ValueKind::Array,
        Counted::Object => ValueKind::Object,
    };
    match value {
        Counted::Number(text) | Counted::String(text) => (text, kind),
        _ => (String::new(), kind),
    }
}

/// `GET /api/v1/facets`.
pub(super) async fn facets(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[FILTERS, FACETS])?;
    let (criteria, _) = filters::criteria(&parameters, &console.views, SystemClock.now(), caller.scope.clone())?;
    let columns = filters::columns(&parameters, &console.views)?;
    let (names, fields): (Vec<_>, Vec<_>) =
        parameters.fields("field", columns)?.into_iter().map(|(name, field)| (name.to_owned(), field)).unzip();
    if fields.len() > FIELDS_MAX {
        return Err(bad("field", None, format!("more than {FIELDS_MAX} fields")));
    }
    let (filter, counting) = (Filter::new(criteria), Arc::clone(&console));
    stream::answer(&console, caller, JSON, move |is_stopped, answer| {
        let listing = counting.library.listing();
        let search = search::prepare((counting.library.sources(), &listing), &filter, is_stopped);
        told(answer, counts::facets(&search, &fields), |counted, out, searched| {
            write_facets(&names, counted, searched, out)
        });
    })
    .await
}

/// `GET /api/v1/histogram`.
pub(super) async fn histogram(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[FILTERS, HISTOGRAM])?;
    let (criteria, zone) = filters::criteria(&parameters, &console.views, SystemClock.now(), caller.scope.clone())?;
    let interval = Interval::parse(parameters.word("interval")?).expect("these are the words");
    let by = parameters.fields("by", filters::columns(&parameters, &console.views)?)?.pop().map(|(_, field)| field);
    let (filter, counting) = (Filter::new(criteria), Arc::clone(&console));
    stream::answer(&console, caller, JSON, move |is_stopped, answer| {
        let listing = counting.library.listing();
        let search = search::prepare((counting.library.sources(), &listing), &filter, is_stopped);
        told(answer, counts::histogram(&search, interval, by.as_ref(), &zone), write_histogram);
    })
    .await
}

/// Writes what was counted.
pub(super) fn told<T>(
    answer: Answer,
    counted: io::Result<(T, crate::reader::search::Coverage)>,
    write: impl FnOnce(T, &mut Out, &Searched) -> io::Result<()>,
) {
    match counted {
        Ok((counted, coverage)) => {
            let searched = Searched::from(coverage);
            let mut out = answer.begin(searched.clone());
            let written = write(counted, &mut out, &searched);
            out.end(written);
        }
        Err(error) => answer.refuse(search::failed(&error)),
    }
}

/// Writes [`Facets`], a value at a time.
fn write_facets(names: &[String], mut facets: counts::Facets, searched: &Searched, out: &mut Out) -> io::Result<()> {
    out.write_all(b"{\"facets\":[")?;
    for (number, name) in names.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        out.write_all(&[comma.as_bytes(), b"{\"field\":", &json(name), b",\"values\":["].concat())?;
        let More { values, records } = facets.more(number);
        for (nth, counted) in facets.values(number).enumerate() {
            let (value, count) = counted?;
            let (value, kind) = text_and_kind(value);
            out.count_row();
            out.write_all(if nth > 0 { b"," } else { b"" })?;
            let mut bytes = json(&FacetValue { value, kind, count });
            out.write_value(&mut bytes)?;
        }
        out.write_all(&[b"],\"more\":", &json(&Left { values, records })[..], b"}"].concat())?;
    }
    out.write_all(&[b"],\"searched\":", &json(searched)[..], b"}"].concat())
}

/// Writes [`Intervals`], a row at a time.
fn write_histogram(mut histogram: Histogram, out: &mut Out, searched: &Searched) -> io::Result<()> {
    out.write_all(b"{\"rows\":[")?;
    for (nth, row) in histogram.rows()?.enumerate() {
        let counts::Row { start, by, count } = row?;
        let by = by.map(text_and_kind).map(|(value, kind)| ByValue { value, kind });
        out.count_row();
        out.write_all(if nth > 0 { b"," } else { b"" })?;
        let mut bytes = json(&Row { start: start.to_string(), by, count });
        out.write_value(&mut bytes)?;
    }
    out.write_all(&[b"],\"searched\":", &json(searched)[..], b"}"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written a value at a time is what the types say.
    #[test]
    fn the_parts_are_those_of_the_whole() {
        let coverage = || Searched::from(crate::reader::search::Coverage::default());
        let empty = json(&Facets { facets: vec![], searched: coverage() });
        assert_eq!(empty, [b"{\"facets\":[],\"searched\":", &json(&coverage())[..], b"}"].concat());
        let value = FacetValue { value: "a".to_owned(), kind: ValueKind::String, count: 1 };
        let facet = Facet { field: "event".to_owned(), values: vec![value], more: Left { values: 0, records: 0 } };
        let text = String::from_utf8(json(&facet)).unwrap();
        assert_eq!(
            text,
            r#"{"field":"event","values":[{"value":"a","kind":"string","count":1}],"more":{"values":0,"records":0}}"#
        );
        let empty = json(&Intervals { rows: vec![], searched: coverage() });
        assert_eq!(empty, [b"{\"rows\":[],\"searched\":", &json(&coverage())[..], b"}"].concat());
    }
}

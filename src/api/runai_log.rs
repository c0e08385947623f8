//! Run:ai's present API (`/api/v1/audit/log`) over the view `runai-log`, as its Python client asks it.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};

use super::Console;
use super::answer;
use super::borrowed;
use super::caller::Caller;
use super::export::{self, Export};
use super::parameters::{Kind, Parameter, Parameters, bad, fault};
use super::search;
use super::stream::{self, Label};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::error::FilterError;
use crate::reader::filter::{Condition, Criteria, Filter};
use crate::reader::output::{Encoder, Layout};
use crate::reader::sorted::Order;
use crate::reader::view::View;
use crate::reader::when::{self, Zone};

const START: Parameter = Parameter::text("start", "2023-06-06T12:09:18.211Z", "From this time on.").required();
const END: Parameter = Parameter::text("end", "2023-06-07T12:09:18.211Z", "Before this time.").required();
const FILTER_BY: Parameter = Parameter::text(
    "filterBy",
    "cluster_name==lattice,entity_type==project",
    "Conditions with commas between them, all of which hold: a field (`timestamp`, `subject`, `subject_type`, `source_ip`, `action`, `result`, \
     `url`, `entity_type`, `entity_name`, `cluster_name`), an operator (`==`, `!=`, `<=`, `>=`, `=@` contains, `!@` does not, `=^` starts, `=$` \
     ends), and a value; or a JSON array of such texts.",
)
.repeatable();
/// Records of a page at most, as Run:ai has it.
const SAMPLES_MAX: u64 = 1_000;
const OFFSET_MAX: u64 = i32::MAX as u64;

/// What a page is asked for by.
pub(super) const LOG: &[Parameter] = &[
    START,
    END,
    Parameter::new("offset", Kind::Number { min: 0, max: OFFSET_MAX, default: Some(0) }, "Leave out so many first."),
    Parameter::new(
        "numberOfSamples",
        Kind::Number { min: 0, max: SAMPLES_MAX, default: Some(20) },
        "At most so many records.",
    ),
    Parameter::new("sortOrder", Kind::OneOf(&["asc", "desc"]), "The oldest first, or the newest."),
    Parameter::new("sortBy", Kind::OneOf(&["timestamp"]), "Records are in the order of time, and in no other."),
    FILTER_BY,
];

/// What a file is asked for by.
pub(super) const FILE: &[Parameter] = &[
    START,
    END,
    Parameter::new("fileType", Kind::OneOf(&["CSV", "JSON"]), "RFC 4180, or an array of objects."),
    Parameter::new(
        "numberOfSamples",
        Kind::Number { min: 0, max: u64::MAX, default: None },
        "At most so many records, the oldest; left out: all of them.",
    ),
    FILTER_BY,
];

/// Fields that `filterBy` knows: columns of the view.
const FIELDS: [&str; 10] = [
    "timestamp",
    "subject_type",
    "subject",
    "source_ip",
    "action",
    "result",
    "url",
    "entity_type",
    "entity_name",
    "cluster_name",
];
/// Operators of `filterBy`, and ours.
const OPERATORS: [(&str, &str); 8] =
    [("==", "="), ("!=", "!="), ("<=", "<="), (">=", ">="), ("=@", "~"), ("!@", "!~"), ("=^", "^="), ("=$", "$=")];

fn criteria(parameters: &Parameters, view: &View, caller: &Caller) -> Result<Criteria, Problem> {
    let mut conditions = Vec::new();
    for text in parameters.all("filterBy").filter(|text| !text.is_empty()) {
        if let Ok(texts) = serde_json::from_str::<Vec<String>>(text) {
            for text in texts {
                // Where in the array it is, nobody needs to know who has written it.
                conditions.extend(filter_by(&text, view).map_err(|error| bad("filterBy", None, error.reason))?);
            }
        } else {
            conditions.extend(filter_by(text, view).map_err(|error| fault("filterBy", &error))?);
        }
    }
    Ok(Criteria {
        since: borrowed::instant(parameters, "start")?,
        until: borrowed::instant(parameters, "end")?,
        conditions,
        scope: caller.scope.clone(),
        ..Criteria::default()
    })
}

/// Reads conditions with commas between them. A comma that is followed by no field and operator is part of a value.
fn filter_by(text: &str, view: &View) -> Result<Vec<Condition>, FilterError> {
    let begins = |at: usize| {
        let field = FIELDS.into_iter().find(|field| text[at..].starts_with(field))?;
        let operator = OPERATORS.into_iter().find(|(operator, _)| text[at + field.len()..].starts_with(operator))?;
        Some((field, operator))
    };
    let mut starts: Vec<usize> =
        text.match_indices(',').map(|(at, _)| at + 1).filter(|at| begins(*at).is_some()).collect();
    starts.insert(0, 0);
    let mut conditions = Vec::new();
    for (nth, start) in starts.iter().enumerate() {
        let end = starts.get(nth + 1).map_or(text.len(), |next| next - 1);
        let Some((field, (symbol, operator))) = begins(*start) else {
            let expected =
                format!("expected a field ({}) and an operator (==, !=, <=, >=, =@, !@, =^, =$)", FIELDS.join(", "));
            return Err(FilterError { offset: *start, reason: expected.into() });
        };
        let at = start + field.len() + symbol.len();
        let value = &text[at..end];
        if field == "timestamp" {
            let moved = |error: FilterError| FilterError { offset: at + error.offset, ..error };
            let value = when::parse(value, &Zone::UTC, SystemClock.now()).map_err(moved)?;
            conditions.push(borrowed::shows(view, field, operator, &value.to_string()));
        } else {
            conditions.push(borrowed::shows(view, field, operator, value));
        }
    }
    Ok(conditions)
}

/// `GET /api/v1/audit/log`: `{"audit_logs":[…],"total":2000,"next":100}`; `next` is the offset of the next page, null on the last one.
pub(super) async fn log(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[LOG])?;
    let view = borrowed::built_in(&console.views, "runai-log");
    let filter = Filter::new(criteria(&parameters, view, &caller)?);
    let order = if parameters.word("sortOrder")? == "desc" { Order::Descending } else { Order::Ascending };
    parameters.word("sortBy")?;
    let (offset, limit) = (borrowed::count(&parameters, "offset")?, borrowed::count(&parameters, "numberOfSamples")?);
    let columns = view.all();
    let searching = Arc::clone(&console);
    let label = Label { content_type: "application/json", file_name: None };
    let claims = answer::claims(Some(&columns));
    let response = stream::answer(&console, caller, label, move |is_stopped, answer| {
        let listing = searching.library.listing();
        let search = search::prepare((searching.library.sources(), &listing), &filter, is_stopped);
        let (counts, _) = search.each(
            || 0_u64,
            |count, _| {
                *count += 1;
                ControlFlow::Continue(())
            },
        );
        let total: u64 = counts.iter().sum();
        let (sorted, coverage) = match search.sorted(order, Some(offset + limit)) {
            Ok(found) => found,
            Err(error) => return answer.refuse(search::failed(&error)),
        };
        let mut out = answer.begin(coverage.into());
        let next = (offset + limit) as u64;
        let next = if next < total && limit > 0 { next.to_string() } else { "null".to_owned() };
        let written = write!(out, "{{\"audit_logs\":").and_then(|()| {
            let encoder = Encoder::new(Layout::Json(Some(columns)));
            export::write(encoder, sorted, offset, (searching.library.sources(), &listing), &mut out)?;
            write!(out, ",\"total\":{total},\"next\":{next}}}")
        });
        out.end(written);
    })
    .await?;
    Ok((claims, response).into_response())
}

/// `GET /api/v1/audit/log/file`.
pub(super) async fn file(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[FILE])?;
    let view = borrowed::built_in(&console.views, "runai-log");
    let criteria = criteria(&parameters, view, &caller)?;
    let limit =
        parameters.one("numberOfSamples").map(|_| borrowed::count(&parameters, "numberOfSamples")).transpose()?;
    let (layout, file_name) = match parameters.word("fileType")? {
        "JSON" => (Layout::Json(Some(view.all())), "audit.json"),
        _ => (Layout::Csv(view.all()), "audit.csv"),
    };
    let export = Export { criteria, order: Order::Ascending, offset: 0, limit, layout, is_safe: false };
    export.answer(console, caller, Label { content_type: "application/octet-stream", file_name: Some(file_name) }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::field::Field;
    use crate::reader::view::Views;

    #[test]
    fn conditions_have_commas_between_them_and_may_have_them_in_values() {
        let views = Views::built_in();
        let view = views.named("runai-log").unwrap();
        let of = |field: &str, operator: &str, value: &str| {
            Condition::compare(Field::Column(borrowed::column(view, field)), operator, value).unwrap()
        };
        for (text, expected) in [
            ("subject==ada", vec![of("subject", "=", "ada")]),
            (
                "subject_type==User,entity_name=@a,b",
                vec![of("subject_type", "=", "User"), of("entity_name", "~", "a,b")],
            ),
            ("url=^x,subject,url=$y", vec![of("url", "^=", "x,subject"), of("url", "$=", "y")]),
            ("action!=,result!@S", vec![of("action", "!=", ""), of("result", "!~", "S")]),
            ("timestamp>=2026-01-28", vec![of("timestamp", ">=", "2026-01-28T00:00:00.000Z")]),
            ("timestamp<=2026-01-28T10:00:00+01:00", vec![of("timestamp", "<=", "2026-01-28T09:00:00.000Z")]),
        ] {
            assert_eq!(filter_by(text, view).unwrap(), expected, "{text}");
        }
        for (text, offset) in [("id==1", 0), ("subject=ada", 0), ("subject==a,timestamp==soon", 22), ("ä", 0)] {
            assert_eq!(filter_by(text, view).expect_err(text).offset, offset, "{text}");
        }
    }
}

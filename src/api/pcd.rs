//! The audit log API of Platform9 Private Cloud Director over the view `pcd`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::Console;
use super::answer::json;
use super::borrowed;
use super::caller::Caller;
use super::counts::told;
use super::export::Export;
use super::parameters::{Kind, Parameter, Parameters};
use super::search;
use super::stream::{self, Label, Out};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::counts::{self, Counted, Facets};
use crate::reader::field::Field;
use crate::reader::filter::{Criteria, Filter};
use crate::reader::output::Layout;
use crate::reader::sorted::Order;
use crate::record::DAY_MS;

/// What an export is asked for by.
pub(super) const EXPORT: &[Parameter] = &[
    Parameter::text("region", "RegionOne", "The region is this."),
    Parameter::text("project_id", "4ad1138f-880a-4c09-87b8-b70be45a12d1", "The project's id is this."),
    Parameter::text("user_id", "e608aebe-0391-4619-855d-aad53765f0f7", "The user's id is this."),
    Parameter::text("username", "ada", "The user's name is this."),
    Parameter::text("action", "create", "The action is this."),
    Parameter::text("resource_type", "vm", "The type of what it was done to is this."),
    Parameter::text("service", "compute", "The service is this."),
    Parameter::text("start_time", "2026-01-28T00:00:00Z", "From this time on; left out: from 24 hours ago on."),
    Parameter::text("end_time", "2026-01-29T00:00:00Z", "Before this time."),
    Parameter::new(
        "limit",
        Kind::Number { min: 0, max: u64::MAX, default: None },
        "At most so many records, the oldest; left out: all of them.",
    ),
];

/// The parameters that ask for what a column shows, and its key in the view.
const EQUAL: [(&str, &str); 7] = [
    ("region", "region"),
    ("project_id", "project_id"),
    ("user_id", "user_id"),
    ("username", "username"),
    ("action", "action_name"),
    ("resource_type", "resource_type"),
    ("service", "service"),
];

/// What can be chosen from: a list of the answer, and the column whose values are in it.
const CHOICES: [(&str, &str); 6] = [
    ("outcomes", "outcome"),
    ("regions", "region"),
    ("project_ids", "project_id"),
    ("domains", "domain"),
    ("action_names", "action_name"),
    ("action_results", "action_result"),
];

/// `GET /resmgr/audit/export`.
pub(super) async fn export(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[EXPORT])?;
    let view = borrowed::built_in(&console.views, "pcd");
    let yesterday = SystemClock.now().plus_millis(-DAY_MS);
    let criteria = Criteria {
        since: Some(borrowed::instant(&parameters, "start_time")?.unwrap_or(yesterday)),
        until: borrowed::instant(&parameters, "end_time")?,
        conditions: borrowed::equal(&parameters, view, &EQUAL),
        scope: caller.scope.clone(),
        ..Criteria::default()
    };
    let limit = parameters.one("limit").map(|_| borrowed::count(&parameters, "limit")).transpose()?;
    let layout = Layout::Ndjson(Some(view.all()));
    let export = Export { criteria, order: Order::Ascending, offset: 0, limit, layout, is_safe: false };
    export
        .answer(console, caller, Label { content_type: "application/x-ndjson", file_name: Some("audit.ndjson") })
        .await
}

/// `GET /resmgr/audit/filters`.
pub(super) async fn choices(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Parameters::parse(query.as_deref(), &[])?;
    let view = borrowed::built_in(&console.views, "pcd");
    let fields: Vec<Field> = CHOICES.iter().map(|(_, key)| Field::Column(borrowed::column(view, key))).collect();
    let filter = Filter::new(Criteria { scope: caller.scope.clone(), ..Criteria::default() });
    let searching = Arc::clone(&console);
    let label = Label { content_type: "application/json", file_name: None };
    stream::answer(&console, caller, label, move |is_stopped, answer| {
        let listing = searching.library.listing();
        let search = search::prepare((searching.library.sources(), &listing), &filter, is_stopped);
        told(answer, counts::facets(&search, &fields), |facets, out, _| write(facets, out));
    })
    .await
}

/// Writes the values of each list, the most frequent first; and, where a list has not all, how many are left out, as `more`.
fn write(mut facets: Facets, out: &mut Out) -> io::Result<()> {
    for (field, (name, _)) in CHOICES.iter().enumerate() {
        let separator = if field == 0 { '{' } else { ',' };
        write!(out, "{separator}\"{name}\":[")?;
        let mut separator: &[u8] = b"";
        for counted in facets.values(field) {
            // These columns show texts alone.
            let (Counted::String(text), _) = counted? else { continue };
            out.write_all(separator)?;
            let mut bytes = json(&text);
            drop(text);
            out.write_value(&mut bytes)?;
            separator = b",";
        }
        out.write_all(b"]")?;
    }
    let more = |field: usize| facets.more(field).values;
    let left_out: BTreeMap<_, _> = CHOICES
        .iter()
        .enumerate()
        .map(|(field, (name, _))| (*name, more(field)))
        .filter(|(_, more)| *more > 0)
        .collect();
    if !left_out.is_empty() {
        out.write_all(&[b",\"more\":", &json(&left_out)[..]].concat())?;
    }
    out.write_all(b"}")
}

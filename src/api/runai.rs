//! Run:ai's documented API (`/v1/k8s/audit`) over the view `runai`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;

use super::Console;
use super::borrowed;
use super::caller::Caller;
use super::export::Export;
use super::parameters::{Kind, Parameter, Parameters};
use super::stream::Label;
use crate::http::Problem;
use crate::reader::filter::Criteria;
use crate::reader::output::{Columns, Layout};
use crate::reader::sorted::Order;
use crate::reader::view::View;

/// What the documented API knows.
pub(super) const AUDIT: &[Parameter] = &[
    Parameter::text("start", "2022-1-1", "From this time on, in UTC: `yyyy-MM-dd` or `yyyy-MM-ddThh:mm:ss`."),
    Parameter::text("end", "2022-07-07T09:45:32", "Before this time, spelt as `start` is."),
    Parameter::text(
        "action",
        "Update",
        "The event's type: `Create`, `Update`, `Delete`, `Login`, or any that applications tell.",
    ),
    Parameter::text("source_type", "User", "Who did it: `User` or `Application`."),
    Parameter::text("source_id", "a79500fb-c452-471f-adc0-b65c972bd5c2", "The id of who did it."),
    Parameter::text("source_name", "ada@example.com", "The name of who did it."),
    Parameter::text("entity_type", "Project", "The type of what it was done to."),
    Parameter::text("entity_id", "1", "The id of what it was done to."),
    Parameter::new("limit", Kind::Number { min: 0, max: COUNT_MAX, default: Some(40) }, "At most so many records."),
    Parameter::new("offset", Kind::Number { min: 0, max: COUNT_MAX, default: Some(0) }, "Leave out so many first."),
    Parameter::new(
        "success",
        Kind::OneOf(&["", "true", "false"]),
        "Those that succeeded, or those that failed; left out: both, and those of which nobody told.",
    ),
    Parameter::new("download", Kind::OneOf(&["false", "true"]), "Answer as a file."),
];

/// Records that a page can have, and can leave out.
const COUNT_MAX: u64 = 1_000_000;

/// The parameters that ask for what a column shows, and its key in the view.
const EQUAL: [(&str, &str); 6] = [
    ("action", "action"),
    ("source_type", "sourceType"),
    ("source_id", "sourceId"),
    ("source_name", "sourceName"),
    ("entity_type", "entityType"),
    ("entity_id", "entityId"),
];

/// The members of an answer's objects: the view has more, for its table.
const MEMBERS: [&str; 12] = [
    "id",
    "tenantId",
    "happenedAt",
    "action",
    "version",
    "entityId",
    "entityType",
    "entityName",
    "sourceType",
    "sourceId",
    "sourceName",
    "context",
];

/// `GET /v1/k8s/audit`.
pub(super) async fn audit(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[AUDIT])?;
    let view = borrowed::built_in(&console.views, "runai");
    let mut conditions = borrowed::equal(&parameters, view, &EQUAL);
    conditions.extend(match parameters.word("success")? {
        "true" => Some(borrowed::shows(view, "status", "=", "Succeeded")),
        "false" => Some(borrowed::shows(view, "status", "=", "Failed")),
        _ => None,
    });
    let criteria = Criteria {
        since: borrowed::instant(&parameters, "start")?,
        until: borrowed::instant(&parameters, "end")?,
        conditions,
        scope: caller.scope.clone(),
        ..Criteria::default()
    };
    let file_name = (parameters.word("download")? == "true").then_some("audit.json");
    let export = Export {
        criteria,
        order: Order::Descending,
        offset: borrowed::count(&parameters, "offset")?,
        limit: Some(borrowed::count(&parameters, "limit")?),
        layout: Layout::Json(Some(members(view))),
        is_safe: false,
    };
    export.answer(console, caller, Label { content_type: "application/json", file_name }).await
}

fn members(view: &View) -> Columns {
    MEMBERS.iter().map(|key| borrowed::column(view, key)).collect()
}

//! The parameters by which records are asked for, the same on all routes and the same as on the command line.

use std::sync::Arc;

use super::parameters::{Kind, Parameter, Parameters, bad, fault};
use crate::http::Problem;
use crate::reader::filter::{Condition, Criteria, Scope};
use crate::reader::sorted::Order;
use crate::reader::view::{Column, View, Views};
use crate::reader::when::{self, Zone};
use crate::record::Timestamp;

/// What is asked for.
pub(crate) const FILTERS: &[Parameter] = &[
    Parameter::text(
        "since",
        "2026-01-28",
        "From this time on: RFC 3339 (without a zone: that of `tz`), a date, or an age such as `24h`, `7d` or `90m`.",
    ),
    Parameter::text("until", "2026-01-29T12:00:00Z", "Before this time, spelt as `since` is."),
    Parameter::text("tz", "Europe/Copenhagen", "The zone of times without one: `UTC` (the default) or an IANA name."),
    Parameter::text("event", "DATA_EXPORT", "The event is this; repeated: any of them.").repeatable(),
    Parameter::text("job", "5003592", "The job's id is this; repeated: any of them.").repeatable(),
    Parameter::text("workspace", "651b3f72", "The workspace's id is this; repeated: any of them.").repeatable(),
    Parameter::new(
        "rank",
        Kind::Number { min: 0, max: u32::MAX as u64, default: None },
        "The rank is this; repeated: any of them.",
    )
    .repeatable(),
    Parameter::text(
        "where",
        "meta.user.name = ada",
        "A condition, `FIELD OP VALUE`; repeated: all of them. Operators: `=` `!=` `<` `<=` `>` `>=` `~` contains `!~` `^=` \
         starts `$=` ends `exists` `missing`.",
    )
    .repeatable(),
    Parameter::text("text", "results csv", "Every word occurs in event, message or the strings in `meta`, whatever the case.")
        .repeatable(),
    VIEW,
    Parameter::text(
        "category",
        "HPC clusters",
        "The operation is of this category of FCP's catalogue, which `/api/v1/views` has; repeated: any of them.",
    )
    .repeatable(),
];

/// How records are shown.
pub(crate) const VIEW: Parameter = Parameter::text(
    "view",
    "fcp",
    "Show records as this view does, and take its columns for fields: one of `/api/v1/views`. What a view shows of `meta` is the \
     job's own claim.",
);

/// In which order.
pub(crate) const ORDER: Parameter = Parameter::new(
    "order",
    Kind::OneOf(&["desc", "asc"]),
    "The newest first, or the oldest: by time, then directory, segment and line.",
);

/// What a request asks for, within the scope of whoever asks; `now` is what ages count from. With it comes the zone of days.
///
/// # Errors
/// 400 `bad_parameter`.
pub(crate) fn criteria(
    parameters: &Parameters,
    views: &Views,
    now: Timestamp,
    scope: Scope,
) -> Result<(Criteria, Zone), Problem> {
    let columns = columns(parameters, views)?;
    let zone = match parameters.one("tz") {
        None => Zone::UTC,
        Some("local") => return Err(bad("tz", Some(0), "name the zone: `local` would be the server's")),
        Some(name) => Zone::parse(name).map_err(|error| fault("tz", &error))?,
    };
    let time = |name: &str| {
        let text = parameters.one(name);
        text.map(|text| when::parse(text, &zone, now).map_err(|error| fault(name, &error))).transpose()
    };
    let strings = |name: &str| parameters.all(name).map(str::to_owned).collect();
    let ranks = parameters.all("rank").map(|text| {
        let rank = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        rank.ok_or_else(|| bad("rank", None, "must be a number from 0 to 4294967295"))
    });
    let conditions = parameters
        .all("where")
        .map(|text| Condition::parse_among(text, columns).map_err(|error| fault("where", &error)));
    let categories: Vec<String> = strings("category");
    let category = (!categories.is_empty()).then(|| views.in_category(&categories));
    let category = category.transpose().map_err(|error| bad("category", None, error.to_string()))?;
    let criteria = Criteria {
        since: time("since")?,
        until: time("until")?,
        events: strings("event"),
        jobs: strings("job"),
        workspaces: strings("workspace"),
        ranks: ranks.collect::<Result<_, _>>()?,
        conditions: conditions.collect::<Result<_, _>>()?,
        category,
        texts: strings("text"),
        scope,
    };
    Ok((criteria, zone))
}

/// The view by which a request wants its answer.
///
/// # Errors
/// 400 `bad_parameter`: there is none of this name.
pub(crate) fn view<'v>(parameters: &Parameters, views: &'v Views) -> Result<Option<&'v View>, Problem> {
    let named = parameters.one("view").map(|name| views.named(name));
    named.transpose().map_err(|error| bad("view", None, error.to_string()))
}

/// The columns that are fields, too, by the request's view.
///
/// # Errors
/// As [`view`].
pub(crate) fn columns<'v>(parameters: &Parameters, views: &'v Views) -> Result<&'v [Arc<Column>], Problem> {
    Ok(view(parameters, views)?.map(View::columns).unwrap_or_default())
}

/// In which order a request wants its answer.
///
/// # Errors
/// 400 `bad_parameter`.
pub(crate) fn order(parameters: &Parameters) -> Result<Order, Problem> {
    Ok(if parameters.word(ORDER.name)? == "asc" { Order::Ascending } else { Order::Descending })
}

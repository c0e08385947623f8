//! What the interfaces of other systems have in common: parameters that ask for what a view's columns show.

use std::sync::Arc;

use super::parameters::{Parameters, fault};
use crate::clock::{Clock, SystemClock};
use crate::http::Problem;
use crate::reader::field::Field;
use crate::reader::filter::Condition;
use crate::reader::view::{Column, View, Views};
use crate::reader::when::{self, Zone};
use crate::record::Timestamp;

/// A view that is built in.
pub(crate) fn built_in<'v>(views: &'v Views, name: &str) -> &'v View {
    views.named(name).expect("the views of other systems are built in")
}

/// A column of a view that is built in.
pub(crate) fn column(view: &View, key: &str) -> Arc<Column> {
    Arc::clone(view.column(key).expect("the view is built in with its columns"))
}

/// The condition that what a column shows compares so with a value.
pub(crate) fn shows(view: &View, key: &str, operator: &str, value: &str) -> Condition {
    let field = Field::Column(column(view, key));
    Condition::compare(field, operator, value).expect("an operator")
}

/// The conditions that columns show what parameters say, each with its column's key. A parameter that is empty asks for nothing.
pub(crate) fn equal(parameters: &Parameters, view: &View, names: &[(&str, &str)]) -> Vec<Condition> {
    let given =
        names.iter().filter_map(|(name, key)| Some((key, parameters.one(name).filter(|value| !value.is_empty())?)));
    given.map(|(key, value)| shows(view, key, "=", value)).collect()
}

/// A time that a parameter tells, in UTC where it names no zone.
///
/// # Errors
/// 400 `bad_parameter`.
pub(crate) fn instant(parameters: &Parameters, name: &str) -> Result<Option<Timestamp>, Problem> {
    let text = parameters.one(name).filter(|text| !text.is_empty());
    let now = SystemClock.now();
    text.map(|text| when::parse(text, &Zone::UTC, now).map_err(|error| fault(name, &error))).transpose()
}

/// A number of records.
///
/// # Errors
/// 400 `bad_parameter`.
pub(crate) fn count(parameters: &Parameters, name: &'static str) -> Result<usize, Problem> {
    Ok(parameters.number(name)?.unwrap_or_default().try_into().unwrap_or(usize::MAX))
}

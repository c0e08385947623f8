//! The views by which records can be shown.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;

use super::Console;
use super::answer;
use super::parameters::Parameters;
use crate::http::Problem;
use crate::reader::view;

/// What there is to show records by.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Catalogue<'v> {
    /// The views, those that are built in first.
    views: Vec<Shown<'v>>,
    /// The operations that `category` asks for.
    categories: Vec<Category<'v>>,
}

/// A view: columns, and where what they show comes from. What comes from `meta` is the job's own claim.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Shown<'v> {
    /// What `view` asks for.
    name: &'v str,
    /// The same for people.
    title: &'v str,
    /// In order.
    columns: Vec<Column<'v>>,
}

/// A column of a view.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Column<'v> {
    /// What it is called in JSON and in conditions.
    key: &'v str,
    /// The same for people, in CSV.
    title: &'v str,
    /// The fields of which the first that holds something is shown; `id` is the permalink's, `number` one that grows with time.
    from: Vec<&'v str>,
    /// Whether it may show what is the job's own claim, as all of `event`, `message` and `meta` is.
    claimed: bool,
    /// What is shown where none of them holds anything; null: nothing.
    default: Option<String>,
}

/// Operations of one kind.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Category<'v> {
    /// What `category` asks for.
    name: &'v str,
    /// Their names, compared by letters and digits, whatever the case.
    operations: &'v [String],
}

/// `GET /api/v1/views`.
pub(super) async fn all(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Parameters::parse(query.as_deref(), &[])?;
    let views = console.views.iter().map(|view| Shown {
        name: view.name(),
        title: view.title(),
        columns: view.columns().iter().map(|column| Column::of(column)).collect(),
    });
    let categories = console.views.categories().iter();
    let categories = categories.map(|category| Category { name: &category.name, operations: &category.operations });
    Ok(answer::small(&Catalogue { views: views.collect(), categories: categories.collect() }))
}

impl<'v> Column<'v> {
    fn of(column: &'v view::Column) -> Self {
        Self {
            key: column.key(),
            title: column.title(),
            from: column.sources(),
            claimed: column.is_claimed(),
            default: column.default_text(),
        }
    }
}

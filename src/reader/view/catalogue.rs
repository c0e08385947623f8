//! The catalogue of operations by category, as a filter.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::column::{Column, folded};
use crate::reader::field::{Place, Value};
use crate::reader::record::Record;

/// A category of operations, such as `HPC clusters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// Its operations, such as `Create cluster`.
    pub operations: Vec<String>,
}

/// Asks for records of some categories.
///
/// A record is of a category if its operation is one of the category's, and its service is not another category. Names are compared by their letters
/// and digits, whatever their case: `CREATE_CLUSTER` is `Create cluster`.
#[derive(Debug, Clone)]
pub struct InCategory {
    operation: Arc<Column>,
    service: Arc<Column>,
    wanted: Vec<Operations>,
    /// All categories' names, [`folded`].
    categories: BTreeSet<String>,
}

/// A category, with its names [`folded`].
#[derive(Debug, Clone)]
struct Operations {
    category: String,
    operations: BTreeSet<String>,
}

impl InCategory {
    pub(super) fn new(
        (operation, service): (Arc<Column>, Arc<Column>),
        all: &[Category],
        wanted: &[&Category],
    ) -> Self {
        let wanted = wanted.iter().map(|category| Operations {
            category: folded(&category.name),
            operations: category.operations.iter().map(|operation| folded(operation)).collect(),
        });
        let categories = all.iter().map(|category| folded(&category.name)).collect();
        Self { operation, service, wanted: wanted.collect(), categories }
    }

    /// Whether a record is of one of the categories.
    #[must_use]
    pub fn holds(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        let texts = |column: &Column| {
            let mut texts = BTreeSet::new();
            column.each(record, place, &mut |value| {
                if let Value::String(text) = value {
                    texts.insert(folded(&text));
                }
            });
            texts
        };
        let operations = texts(&self.operation);
        let mut are_of = self.wanted.iter().filter(|wanted| !wanted.operations.is_disjoint(&operations)).peekable();
        if are_of.peek().is_none() {
            return false;
        }
        let services = texts(&self.service);
        let is_told = !services.is_disjoint(&self.categories);
        are_of.any(|wanted| !is_told || services.contains(&wanted.category))
    }

    /// Whether the answer for a record hangs on a key of `meta` that is there more than once.
    #[must_use]
    pub fn is_ambiguous(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        [&self.operation, &self.service].into_iter().any(|column| column.each(record, place, &mut |_| {}))
    }
}

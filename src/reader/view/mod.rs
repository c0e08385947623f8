//! Views: records as the columns of a system that somebody knows, whatever their `meta` is like.
//!
//! The line's format is fixed; what an action was, who did it and to what lies in `meta`, and is the job's own claim. A view names columns and says
//! where each comes from. Views are data: those that are built in and those of an operator's file are written in the same YAML ([`Views::read`]).
//! `docs/READING.md` has that language, by an example.

mod catalogue;
mod column;
mod file;
mod number;

use std::path::Path;
use std::sync::Arc;

pub use self::catalogue::{Category, InCategory};
pub use self::column::Column;
use super::output::Columns;
pub use crate::yaml::FileError;

/// Named columns, in order; at least one.
#[derive(Debug, Clone)]
pub struct View {
    name: String,
    title: String,
    columns: Vec<Arc<Column>>,
    /// Which of them a table shows.
    table: Vec<usize>,
}

impl View {
    /// What it is asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is called for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Its columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[Arc<Column>] {
        &self.columns
    }

    /// All of its columns, to be written.
    #[must_use]
    pub fn all(&self) -> Columns {
        self.columns.iter().cloned().collect()
    }

    /// Those of its columns that a table shows where nobody names any.
    #[must_use]
    pub fn of_table(&self) -> Columns {
        self.table.iter().map(|column| Arc::clone(&self.columns[*column])).collect()
    }

    /// The column of a key.
    #[must_use]
    pub fn column(&self, key: &str) -> Option<&Arc<Column>> {
        self.columns.iter().find(|column| column.key() == key)
    }
}

/// All views that there are, and the catalogue of operations; by default none.
#[derive(Debug, Clone, Default)]
pub struct Views {
    views: Vec<View>,
    categories: Vec<Category>,
}

/// Files with the views that are built in.
const BUILT_IN: [(&str, &str); 5] = [
    ("native.yaml", include_str!("native.yaml")),
    ("fcp.yaml", include_str!("fcp.yaml")),
    ("runai.yaml", include_str!("runai.yaml")),
    ("runai-log.yaml", include_str!("runai-log.yaml")),
    ("pcd.yaml", include_str!("pcd.yaml")),
];
/// Bytes of an operator's file.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Views {
    /// The views that are built in: `native`, `fcp`, `runai`, `runai-log` and `pcd`.
    #[must_use]
    pub fn built_in() -> Self {
        let mut views = Self::default();
        for (file, text) in BUILT_IN {
            file::add(&mut views, Path::new(file), text).expect("what is built in is well-formed");
        }
        views
    }

    /// Those that are built in, and those of an operator's file.
    ///
    /// # Errors
    /// The file can't be read, or something in it is not understood: file, line, column, key and reason.
    pub fn read(file: &Path) -> Result<Self, FileError> {
        let mut views = Self::built_in();
        file::add(&mut views, file, &crate::yaml::read_file(file, FILE_BYTES_MAX)?)?;
        Ok(views)
    }

    /// All views, those that are built in first.
    pub fn iter(&self) -> impl Iterator<Item = &View> {
        self.views.iter()
    }

    /// The view of a name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<&View, UnknownName> {
        let names = || self.views.iter().map(View::name);
        self.views.iter().find(|view| view.name == name).ok_or_else(|| UnknownName::of("view", names()))
    }

    /// The catalogue of operations.
    #[must_use]
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// Asks for records whose operation is of one of these categories, named in any case; see [`InCategory`]. Operation and service are those
    /// that the view `fcp` shows.
    ///
    /// # Errors
    /// There is no category of a name.
    pub fn in_category(&self, names: &[String]) -> Result<InCategory, UnknownName> {
        let folded = column::folded;
        let category = |name: &String| {
            let found = self.categories.iter().find(|category| folded(&category.name) == folded(name));
            found.ok_or_else(|| {
                UnknownName::of("category", self.categories.iter().map(|category| category.name.as_str()))
            })
        };
        let wanted = names.iter().map(category).collect::<Result<Vec<_>, _>>()?;
        let column = |key| {
            let fcp = self.views.iter().find(|view| view.name == "fcp");
            Arc::clone(fcp.and_then(|view| view.column(key)).expect("the view fcp is built in"))
        };
        Ok(InCategory::new((column("operation"), column("service")), &self.categories, &wanted))
    }
}

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such {what}; there are {known}")]
pub struct UnknownName {
    what: &'static str,
    /// The names that there are.
    known: String,
}

impl UnknownName {
    fn of<'n>(what: &'static str, known: impl Iterator<Item = &'n str>) -> Self {
        Self { what, known: known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") }
    }
}

#[cfg(test)]
mod tests;

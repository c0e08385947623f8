//! YAML becomes views. Whatever is not understood is a fault: a column that silently stays empty would look like nothing happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::column::{Column, Constant, Origin, Source, folded};
use super::{Category, View, Views};
use crate::reader::field::Field;
use crate::reader::number::Decimal;
use crate::reader::when::TimeFormat;
use crate::yaml::{Document, Fault, FileError, Node, ScalarStyle};

/// Adds the views and categories of a file's text.
///
/// # Errors
/// The first fault, with its place.
pub(super) fn add(views: &mut Views, file: &Path, text: &str) -> Result<(), FileError> {
    let document = Document::parse(text).map_err(|fault| FileError::new(file, None, fault))?;
    let reader = Reader { file, document: &document };
    let Some(root) = document.root else {
        return Err(FileError::whole(file, "is empty; expected `views` or `categories`"));
    };
    for (name, _, value) in reader.entries(root, "", &["views", "categories"])? {
        for (name, at, value) in reader.entries(value, name, &[])? {
            if document.text(value).is_empty() && document.is_null(value) {
                return Err(reader.fault(value, &at, "must not be empty"));
            }
            if at.starts_with("categories.") {
                reader.add_category(views, name, value, &at)?;
            } else {
                let view = reader.view(views, name, value, &at)?;
                views.views.push(view);
            }
        }
    }
    Ok(())
}

struct Reader<'d> {
    file: &'d Path,
    document: &'d Document<'d>,
}

/// A key, where it is in the file as `views.exports.title`, and its value.
type Entry<'d> = (&'d str, String, Node);

impl<'d> Reader<'d> {
    fn fault(&self, node: Node, at: &str, reason: impl Into<String>) -> FileError {
        let key = Some(at).filter(|at| !at.is_empty());
        FileError::new(self.file, key, Fault { place: node.place, reason: reason.into() })
    }

    fn faulty(&self, at: &str) -> impl Fn(Fault) -> FileError {
        move |fault| FileError::new(self.file, Some(at).filter(|at| !at.is_empty()), fault)
    }

    /// The entries of a mapping; each key is known, where only some are, and there once.
    fn entries(&self, node: Node, at: &str, known: &[&str]) -> Result<Vec<Entry<'d>>, FileError> {
        let mut entries: Vec<Entry<'d>> = Vec::new();
        for (key, value) in self.document.entries(node).map_err(self.faulty(at))? {
            let (name, _) = self.document.scalar(key).map_err(self.faulty(at))?;
            let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            if !known.is_empty() && !known.contains(&name) {
                return Err(self.fault(key, &path, format!("unknown key; known are {}", known.join(", "))));
            }
            if entries.iter().any(|(other, ..)| *other == name) {
                return Err(self.fault(key, &path, "given twice"));
            }
            entries.push((name, path, value));
        }
        Ok(entries)
    }

    /// A text that is not empty.
    fn text(&self, node: Node, at: &str) -> Result<&'d str, FileError> {
        match self.document.scalar(node).map_err(self.faulty(at))? {
            (text, _) if text.is_empty() || self.document.is_null(node) => {
                Err(self.fault(node, at, "must not be empty"))
            }
            (text, _) => Ok(text),
        }
    }

    fn view(&self, views: &Views, name: &str, node: Node, at: &str) -> Result<View, FileError> {
        if views.views.iter().any(|view| view.name == name) {
            return Err(self.fault(node, at, "there is such a view already; give it another name"));
        }
        if !is_name(name) {
            return Err(self.fault(node, at, NAMES));
        }
        let mut view = View { name: name.to_owned(), title: name.to_owned(), columns: Vec::new(), table: Vec::new() };
        let mut table = None;
        for (name, at, value) in self.entries(node, at, &["title", "table", "columns"])? {
            match name {
                "title" => self.text(value, &at)?.clone_into(&mut view.title),
                "table" => table = Some((value, at)),
                _ => view.columns = self.columns(value, &at)?.into_iter().map(Arc::new).collect(),
            }
        }
        if view.columns.is_empty() {
            return Err(self.fault(node, at, "has no columns"));
        }
        view.table = (0..view.columns.len()).collect();
        if let Some((node, at)) = table {
            view.table.clear();
            for key in self.document.parts(node).map_err(self.faulty(&at))? {
                let name = self.text(*key, &at)?;
                let found = view.columns.iter().position(|column| column.key == name);
                view.table.push(found.ok_or_else(|| self.fault(*key, &at, format!("no column has the key `{name}`")))?);
            }
            if view.table.is_empty() {
                return Err(self.fault(node, &at, "must not be empty"));
            }
        }
        Ok(view)
    }

    fn columns(&self, node: Node, at: &str) -> Result<Vec<Column>, FileError> {
        let mut columns: Vec<Column> = Vec::new();
        for (nth, part) in self.document.parts(node).map_err(self.faulty(at))?.iter().enumerate() {
            let at = format!("{at}[{nth}]");
            let column = self.column(*part, &at)?;
            if columns.iter().any(|other| other.key == column.key) {
                return Err(self.fault(*part, &at, format!("another column has the key `{}`", column.key)));
            }
            columns.push(column);
        }
        if columns.is_empty() {
            return Err(self.fault(node, at, "must not be empty"));
        }
        Ok(columns)
    }

    fn column(&self, node: Node, at: &str) -> Result<Column, FileError> {
        const KEYS: [&str; 9] = ["key", "title", "from", "text", "map", "members", "constant", "default", "time"];
        let entries: BTreeMap<&str, (String, Node)> =
            self.entries(node, at, &KEYS)?.into_iter().map(|(name, at, value)| (name, (at, value))).collect();
        let entry = |name: &str| entries.get(name).map(|(at, node)| (*node, at.as_str()));
        let Some((key_node, key_at)) = entry("key") else { return Err(self.fault(node, at, "has no `key`")) };
        let key = self.text(key_node, key_at)?;
        if !is_name(key) {
            return Err(self.fault(key_node, key_at, NAMES));
        }
        let title = entry("title").map(|(node, at)| self.text(node, at)).transpose()?.unwrap_or(key);
        let from = entry("from").map(|(node, at)| self.sources(node, at)).transpose()?.unwrap_or_default();
        let map = entry("map").map(|(node, at)| self.map(node, at)).transpose()?.unwrap_or_default();
        let members = entry("members").map(|(node, at)| self.columns(node, at)).transpose()?.unwrap_or_default();
        let constant = entry("constant").map(|(node, at)| self.constant(node, at)).transpose()?;
        let default = entry("default").map(|(node, at)| self.constant(node, at)).transpose()?;
        let is_text = match entry("text").map(|(node, at)| Ok((self.constant(node, at)?, node, at))).transpose()? {
            None => false,
            Some((Constant::Boolean(is_text), ..)) => is_text,
            Some((_, node, at)) => return Err(self.fault(node, at, "must be true or false")),
        };
        if constant.is_some() {
            if let Some((node, at)) = ["from", "text", "map", "members", "default", "time"].into_iter().find_map(entry)
            {
                return Err(self.fault(node, at, "a column with a constant shows nothing else"));
            }
        } else if from.is_empty() && members.is_empty() {
            return Err(self.fault(node, at, "needs `from`, `members` or `constant`"));
        }
        if let (Some((node, at)), true) = (entry("map"), from.is_empty()) {
            return Err(self.fault(node, at, "there is no `from` whose values it could be for"));
        }
        let (key, title, default) = (key.to_owned(), title.to_owned(), constant.or(default));
        let mut column = Column { key, title, from, is_text, members, default, map, time: None };
        if let Some((node, at)) = entry("time") {
            if !column.is_time() {
                return Err(self.fault(node, at, "only a column `from: ts` is a time"));
            }
            let format = TimeFormat::parse(self.text(node, at)?);
            column.time = Some(format.map_err(|error| self.fault(node, at, error.reason))?);
        }
        let key = &column.key;
        if Field::is_name(key)
            && !matches!(column.from.as_slice(), [source] if source.name == *key && source.show.is_none())
        {
            return Err(self.fault(
                key_node,
                key_at,
                format!("`{key}` is a field of every line; only a column `from: {key}` has this key"),
            ));
        }
        Ok(column)
    }

    /// One source, or a list of them.
    fn sources(&self, node: Node, at: &str) -> Result<Vec<Source>, FileError> {
        let Ok(parts) = self.document.parts(node) else { return Ok(vec![self.source(node, at)?]) };
        if parts.is_empty() {
            return Err(self.fault(node, at, "must not be empty"));
        }
        parts.iter().enumerate().map(|(nth, part)| self.source(*part, &format!("{at}[{nth}]"))).collect()
    }

    fn source(&self, node: Node, at: &str) -> Result<Source, FileError> {
        if self.document.scalar(node).is_ok() {
            let name = self.text(node, at)?.to_owned();
            let origin = self.origin(node, at)?;
            return Ok(Source { name, origin, show: None });
        }
        let (mut field, mut show) = (None, None);
        for (name, at, value) in self.entries(node, at, &["field", "show"])? {
            match name {
                "field" => field = Some((self.text(value, &at)?.to_owned(), self.origin(value, &at)?)),
                _ => show = Some(self.constant(value, &at)?),
            }
        }
        match (field, show) {
            (Some((name, origin)), Some(show)) => Ok(Source { name, origin, show: Some(show) }),
            _ => Err(self.fault(node, at, "needs `field` and `show`")),
        }
    }

    fn origin(&self, node: Node, at: &str) -> Result<Origin, FileError> {
        match self.text(node, at)? {
            "id" => Ok(Origin::Id),
            "number" => Ok(Origin::Number),
            field => Field::parse(field).map(Origin::Field).map_err(|error| {
                let before = field[..error.offset].chars().count() as u64;
                // What is in quotes may be spelt with escapes.
                let is_plain = self.document.spelling(node) == field;
                let (line, column) = node.place;
                let place = (line, column + if is_plain { before } else { 0 });
                FileError::new(self.file, Some(at), Fault { place, reason: error.reason.into_owned() })
            }),
        }
    }

    fn map(&self, node: Node, at: &str) -> Result<BTreeMap<String, Constant>, FileError> {
        let mut map = BTreeMap::new();
        for (name, at, value) in self.entries(node, at, &[])? {
            let folded = folded(name);
            if folded.is_empty() {
                return Err(self.fault(value, &at, "a value to map has letters or digits"));
            }
            if map.insert(folded, self.constant(value, &at)?).is_some() {
                return Err(self.fault(value, &at, "given twice: only letters and digits count, in any case"));
            }
        }
        Ok(map)
    }

    /// A value of JSON, by YAML's rules: in quotes it is a string.
    fn constant(&self, node: Node, at: &str) -> Result<Constant, FileError> {
        let (text, style) = self.document.scalar(node).map_err(self.faulty(at))?;
        Ok(match text {
            _ if self.document.is_null(node) => return Err(self.fault(node, at, "must not be empty")),
            _ if style != ScalarStyle::Plain => Constant::String(text.to_owned()),
            "true" => Constant::Boolean(true),
            "false" => Constant::Boolean(false),
            _ if Decimal::parse(text).is_some() => Constant::Number(text.to_owned()),
            _ => Constant::String(text.to_owned()),
        })
    }

    /// Adds operations to a category, which may be new.
    fn add_category(&self, views: &mut Views, name: &str, node: Node, at: &str) -> Result<(), FileError> {
        if folded(name).is_empty() {
            return Err(self.fault(node, at, "a category's name has letters or digits"));
        }
        let mut operations = Vec::new();
        for (nth, part) in self.document.parts(node).map_err(self.faulty(at))?.iter().enumerate() {
            let at = format!("{at}[{nth}]");
            let operation = self.text(*part, &at)?;
            if folded(operation).is_empty() {
                return Err(self.fault(*part, &at, "an operation has letters or digits"));
            }
            operations.push(operation.to_owned());
        }
        let is_same = |category: &&mut Category| folded(&category.name) == folded(name);
        match views.categories.iter_mut().find(is_same) {
            Some(category) => category.operations.extend(operations),
            None => views.categories.push(Category { name: name.to_owned(), operations }),
        }
        Ok(())
    }
}

/// Whether a text can be the name of a view or the key of a column: without quotes, in a condition.
fn is_name(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

const NAMES: &str = "a name has letters, digits, `_` and `-`, and begins with a letter or `_`";

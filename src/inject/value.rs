//! Values as manifests have them: with their order, and with scalars as they are spelt.

use std::collections::BTreeMap;

use crate::yaml::{Document, Node, ScalarStyle, Written};

/// A value of a manifest.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A null, a boolean or a number, as it is spelt.
    Plain(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A mapping.
    Map(Vec<(String, Value)>),
    /// What stands at another place, as the document's anchors are counted.
    Alias(usize),
    /// Something with an anchor or a tag before it, or before its key.
    Marked(Box<Value>),
}

/// What becomes of a node.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Another value takes its place.
    Replaced(Value),
    /// Members are added to the mapping.
    Members(Vec<(String, Value)>),
    /// Parts are added at the front of the list.
    Parts(Vec<Value>),
}

impl Value {
    /// The value of a node.
    pub(super) fn read(document: &Document<'_>, node: Node) -> Self {
        Self::read_changed(document, node, &BTreeMap::new())
    }

    /// The value that a node has when contents of the document have changed.
    pub(super) fn read_changed(document: &Document<'_>, node: Node, changes: &BTreeMap<usize, Vec<Change>>) -> Self {
        let read = |node: Node| Self::read_changed(document, node, changes);
        let mut value = match document.written(node) {
            Written::Alias => return Self::Alias(document.anchor_number(node)),
            Written::Scalar { value: spelt, style: ScalarStyle::Plain } if is_plain(spelt) => {
                Self::Plain(if document.is_null(node) { "null" } else { spelt }.to_owned())
            }
            Written::Scalar { value, .. } => Self::Text(value.to_owned()),
            Written::Sequence(parts) => Self::List(parts.iter().map(|part| read(*part)).collect()),
            Written::Mapping(entries) => {
                let member = |(key, value): &(Node, Node)| {
                    let value = read(*value);
                    let marked = document.is_marked(*key);
                    (document.text(*key).to_owned(), if marked { Self::Marked(value.into()) } else { value })
                };
                Self::Map(entries.iter().map(member).collect())
            }
        };
        for change in changes.get(&node.content()).into_iter().flatten() {
            match (&mut value, change) {
                (value, Change::Replaced(by)) => *value = by.clone(),
                (Self::Map(members), Change::Members(added)) => members.extend(added.iter().cloned()),
                (Self::List(parts), Change::Parts(added)) => {
                    parts.splice(0..0, added.iter().cloned());
                }
                (value, _) => unreachable!("{value:?} has neither members nor parts"),
            }
        }
        if document.is_marked(node) { Self::Marked(value.into()) } else { value }
    }

    /// A mapping.
    pub(super) fn map<const N: usize>(members: [(&str, Value); N]) -> Self {
        Self::members(members.into())
    }

    /// A mapping.
    pub(super) fn members(members: Vec<(&str, Value)>) -> Self {
        Self::Map(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The member of a mapping.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The member of a mapping, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let Self::Map(entries) = self else { return None };
        entries.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The parts of a list.
    pub(super) fn parts(&self) -> &[Value] {
        if let Self::List(parts) = self { parts } else { &[] }
    }

    /// A string's characters.
    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Appends it in block style, from the place where it begins: further lines begin in that column.
    pub(super) fn write_block(&self, column: usize, out: &mut String) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        break_line(column, out);
                    }
                    write_scalar(key, out);
                    out.push(':');
                    if value.is_nested() {
                        break_line(column + 2, out);
                        value.write_block(column + 2, out);
                    } else {
                        out.push(' ');
                        value.write_block(column, out);
                    }
                }
            }
            Self::List(parts) if self.is_nested() => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        break_line(column, out);
                    }
                    out.push_str("- ");
                    part.write_block(column + 2, out);
                }
            }
            Self::List(parts) => {
                out.push('[');
                for (index, part) in parts.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    part.write_block(column, out);
                }
                out.push(']');
            }
            Self::Map(_) => out.push_str("{}"),
            Self::Plain(text) => out.push_str(text),
            Self::Text(text) => write_scalar(text, out),
            Self::Alias(_) | Self::Marked(_) => unreachable!("nothing of that kind is written"),
        }
    }

    /// Whether it takes lines of its own: lists of scalars stand in brackets.
    fn is_nested(&self) -> bool {
        match self {
            Self::Map(entries) => !entries.is_empty(),
            Self::List(parts) => parts.iter().any(|part| matches!(part, Self::Map(_) | Self::List(_))),
            _ => false,
        }
    }

    /// Appends it as JSON: in one line, or in lines that begin in a column and deeper.
    pub(super) fn write_json(&self, column: Option<usize>, out: &mut String) {
        let deeper = column.map(|column| column + 2);
        let (open, close, count) = match self {
            Self::Plain(text) => return out.push_str(text),
            Self::Text(text) => return out.push_str(&quoted(text)),
            Self::List(parts) => ('[', ']', parts.len()),
            Self::Map(entries) => ('{', '}', entries.len()),
            Self::Alias(_) | Self::Marked(_) => unreachable!("nothing of that kind is written"),
        };
        out.push(open);
        for index in 0..count {
            out.push_str(if index > 0 { "," } else { "" });
            match deeper {
                Some(column) => break_line(column, out),
                None if index > 0 => out.push(' '),
                None => {}
            }
            match self {
                Self::Map(entries) => {
                    let (key, value) = &entries[index];
                    out.push_str(&quoted(key));
                    out.push_str(": ");
                    value.write_json(deeper, out);
                }
                _ => self.parts()[index].write_json(deeper, out),
            }
        }
        if let Some(column) = column.filter(|_| count > 0) {
            break_line(column, out);
        }
        out.push(close);
    }
}

/// As Kubernetes compares them: the order of a mapping's members says nothing.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(a), Self::Plain(b)) | (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Alias(a), Self::Alias(b)) => a == b,
            (Self::Marked(a), Self::Marked(b)) => a == b,
            (Self::Map(a), Self::Map(_)) => {
                let Self::Map(b) = other else { return false };
                a.len() == b.len() && a.iter().all(|(key, value)| other.get(key) == Some(value))
            }
            _ => false,
        }
    }
}

/// Whether an unquoted scalar is no string.
fn is_plain(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    matches!(text, "" | "~" | "null" | "Null" | "NULL" | "true" | "false")
        || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Ends a line; the next begins in a column.
pub(super) fn break_line(column: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', column));
}

/// A string as JSON, which is YAML too.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Appends a string, without quotes where no version of YAML could take it for something else.
fn write_scalar(text: &str, out: &mut String) {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    // Quantities of Kubernetes, such as 128Mi.
    const UNITS: [&str; 7] = ["m", "k", "M", "G", "Ki", "Mi", "Gi"];
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_quantity = unit.len() < text.len() && UNITS.contains(&unit);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:@".contains(&byte));
    let is_word = first && rest && !text.ends_with(':') && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    out.push_str(&if is_quantity || is_word { text.to_owned() } else { quoted(text) });
}

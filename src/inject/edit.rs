//! Changes to the text of a manifest. What is not changed keeps every byte: comments, order, quotes, line ends.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Refusal;
use super::at::At;
use super::value::{Change, Value, break_line, quoted};
use crate::yaml::{Document, ScalarStyle, Written};

/// A text and where its lines begin.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) text: &'a str,
    starts: Vec<usize>,
    /// They end as Windows has them.
    crlf: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { text, starts, crlf: text.contains("\r\n") }
    }

    fn start(&self, at: usize) -> usize {
        self.starts[self.starts.partition_point(|start| *start <= at) - 1]
    }

    fn column(&self, at: usize) -> usize {
        self.text[self.start(at)..at].chars().count()
    }

    /// Whether nothing precedes a byte on its line.
    fn is_first(&self, at: usize) -> bool {
        self.text[self.start(at)..at].bytes().all(|byte| byte == b' ' || byte == b'\t')
    }
}

/// The changes to a document: those to its text, and what they mean.
pub(super) struct Editor<'l, 'a> {
    lines: &'l Lines<'a>,
    changes: Vec<(Range<usize>, String)>,
    meant: BTreeMap<usize, Vec<Change>>,
}

impl<'l, 'a> Editor<'l, 'a> {
    /// No changes yet.
    pub(super) fn new(lines: &'l Lines<'a>) -> Self {
        Self { lines, changes: Vec::new(), meant: BTreeMap::new() }
    }

    /// The changes: parts of the text, and what takes their place. None overlap.
    pub(super) fn changes(&self) -> &[(Range<usize>, String)] {
        &self.changes
    }

    /// What the document's root is after the changes.
    pub(super) fn expected(&self, document: &Document<'_>) -> Option<Value> {
        document.root.map(|root| Value::read_changed(document, root, &self.meant))
    }

    /// Inserts members before one of a mapping.
    ///
    /// # Errors
    /// The mapping stands in other places too, or has no braces where it needs them.
    pub(super) fn insert_members(
        &mut self,
        mapping: &At<'_, 'a>,
        before: &At<'_, 'a>,
        members: &[(&str, Value)],
    ) -> Result<(), Refusal> {
        mapping.only_here()?;
        let document = mapping.document;
        let start = document.span(before.key.unwrap_or(before.node)).start;
        let mut inserted = String::new();
        if document.is_flow(mapping.node) {
            // `[a: b]` is a list of one mapping.
            if !self.lines.text[document.span(mapping.node)].starts_with('{') {
                return Err(mapping.refuse("is a mapping without braces: put them around it"));
            }
            let pretty = self.pretty(mapping, start);
            for (name, value) in members {
                inserted.push_str(&quoted(name));
                inserted.push_str(": ");
                value.write_json(pretty, &mut inserted);
                end_part(pretty, &mut inserted);
            }
            self.change(start..start, inserted);
        } else {
            let column = self.lines.column(start);
            for (name, value) in members {
                Value::map([(name, value.clone())]).write_block(column, &mut inserted);
                break_line(column, &mut inserted);
            }
            let start = self.above_comments(start, column);
            self.change(start..start, inserted);
        }
        let members = members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.mean(mapping, Change::Members(members));
        Ok(())
    }

    /// Inserts parts at the front of a list, which may be a null.
    ///
    /// # Errors
    /// The list stands in other places too, or is something else.
    pub(super) fn insert_parts(&mut self, list: &At<'_, 'a>, parts: &[Value]) -> Result<(), Refusal> {
        list.only_here()?;
        let document = list.document;
        let first = match document.written(list.node) {
            Written::Sequence([first, ..]) => *first,
            Written::Sequence([]) => return self.set(list, &Value::List(parts.to_vec())),
            _ if list.is_null() => return self.set(list, &Value::List(parts.to_vec())),
            _ => return Err(list.refuse("must be a list")),
        };
        let mut inserted = String::new();
        if document.is_flow(list.node) {
            let start = document.span(first).start;
            let pretty = self.pretty(list, start);
            for part in parts {
                part.write_json(pretty, &mut inserted);
                end_part(pretty, &mut inserted);
            }
            self.change(start..start, inserted);
        } else {
            let dash = self.skip_blank(self.after_colon(list)?);
            let column = self.lines.column(dash);
            for part in parts {
                inserted.push_str("- ");
                part.write_block(column + 2, &mut inserted);
                break_line(column, &mut inserted);
            }
            let start = self.above_comments(dash, column);
            self.change(start..start, inserted);
        }
        self.mean(list, Change::Parts(parts.to_vec()));
        Ok(())
    }

    /// Puts a value in the place of a list's part.
    ///
    /// # Errors
    /// The part stands in other places too.
    pub(super) fn replace_part(&mut self, part: &At<'_, 'a>, value: &Value) -> Result<(), Refusal> {
        part.only_here()?;
        let span = part.document.span(part.node);
        let mut replacement = String::new();
        if part.document.is_flow(part.node) {
            let line = self.lines.start(span.start);
            let indentation = self.lines.text[line..span.start].bytes().take_while(|byte| *byte == b' ').count();
            let pretty = self.lines.text[span.clone()].contains('\n').then_some(indentation);
            value.write_json(pretty, &mut replacement);
            self.change(span, replacement);
        } else {
            value.write_block(self.lines.column(span.start), &mut replacement);
            // A block of lines has the white space that follows it.
            let end = span.start + self.lines.text[span.clone()].trim_end().len();
            self.change(span.start..end, replacement);
        }
        self.mean(part, Change::Replaced(value.clone()));
        Ok(())
    }

    /// Puts a value in the place of a member's: of a scalar, or of something empty.
    ///
    /// # Errors
    /// The member stands in other places too, or is a block of lines.
    pub(super) fn set(&mut self, member: &At<'_, 'a>, value: &Value) -> Result<(), Refusal> {
        member.only_here()?;
        let document = member.document;
        if let Written::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = document.written(member.node)
        {
            return Err(member.refuse("is a block of lines: write it on one line"));
        }
        let after_colon = self.after_colon(member)?;
        let mut span = document.span(member.node);
        // A null may be nothing at all, and its place is then not behind the colon.
        if span.is_empty() || self.lines.text[after_colon..span.start].trim().is_empty() {
            span = after_colon..span.end.max(after_colon);
        }
        let key = document.span(member.key.unwrap_or(member.node)).start;
        let mut replacement = String::new();
        match value {
            Value::List(_) | Value::Map(_) if !member.in_flow => {
                let column = self.lines.column(key) + 2;
                break_line(column, &mut replacement);
                value.write_block(column, &mut replacement);
            }
            _ => {
                replacement.push(' ');
                let pretty = self.lines.is_first(key).then(|| self.lines.column(key));
                value.write_json(pretty, &mut replacement);
            }
        }
        self.change(span, replacement);
        self.mean(member, Change::Replaced(value.clone()));
        Ok(())
    }

    fn change(&mut self, span: Range<usize>, mut replacement: String) {
        if self.lines.crlf {
            replacement = replacement.replace('\n', "\r\n");
        }
        self.changes.push((span, replacement));
    }

    fn mean(&mut self, at: &At<'_, '_>, change: Change) {
        self.meant.entry(at.node.content()).or_default().push(change);
    }

    /// The column of what a collection in brackets has on lines of its own.
    fn pretty(&self, collection: &At<'_, '_>, first: usize) -> Option<usize> {
        let open = collection.document.span(collection.node).start;
        self.lines.text[open..first].contains('\n').then(|| self.lines.column(first))
    }

    /// The byte after a member's colon.
    fn after_colon(&self, member: &At<'_, '_>) -> Result<usize, Refusal> {
        let key = member.key.ok_or_else(|| member.refuse("has no key"))?;
        let colon = self.skip_blank(member.document.span(key).end);
        if !self.lines.text[colon..].starts_with(':') {
            return Err(member.refuse("is a key without a colon"));
        }
        Ok(colon + 1)
    }

    /// The first byte from one on that is neither white space nor in a comment.
    fn skip_blank(&self, mut at: usize) -> usize {
        let text = self.lines.text;
        loop {
            at += text[at..].len() - text[at..].trim_start().len();
            if !text[at..].starts_with('#') {
                return at;
            }
            at += text[at..].find('\n').unwrap_or(text.len() - at);
        }
    }

    /// Where the comments begin that stand right above a line and in its column: they are about what follows.
    fn above_comments(&self, start: usize, column: usize) -> usize {
        let mut at = start;
        loop {
            let line = self.lines.start(at);
            if line == 0 || !self.lines.is_first(at) {
                return at;
            }
            let above = self.lines.start(line - 1);
            let indentation = self.lines.text[above..].bytes().take_while(|byte| *byte == b' ').count();
            if indentation != column || !self.lines.text[above + column..].starts_with('#') {
                return at;
            }
            at = above + column;
        }
    }
}

/// What follows a part that was put before others in brackets.
fn end_part(pretty: Option<usize>, out: &mut String) {
    out.push(',');
    match pretty {
        Some(column) => break_line(column, out),
        None => out.push(' '),
    }
}

/// Makes changes to a text. None of them overlap.
pub(super) fn apply(text: &str, mut changes: Vec<(Range<usize>, String)>) -> String {
    changes.sort_by_key(|(range, _)| range.start);
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (range, replacement) in changes {
        out.push_str(&text[done..range.start]);
        out.push_str(&replacement);
        done = range.end;
    }
    out + &text[done..]
}

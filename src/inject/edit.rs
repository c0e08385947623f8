//! Changes to the text of a manifest. What is not changed keeps every byte: comments, order, quotes, line ends.

use std::ops::Range;

use super::value::{Value, break_line, quoted};
use super::{Refusal, refuse_anchor};
use crate::yaml::{Document, Entry, Node, ScalarStyle, Written};

/// A document and the changes to be made to its text.
pub(super) struct Editor<'d, 'a> {
    document: &'d Document<'a>,
    text: &'a str,
    changes: Vec<(Range<usize>, String)>,
}

impl<'d, 'a> Editor<'d, 'a> {
    /// No changes yet.
    pub(super) fn new(document: &'d Document<'a>, text: &'a str) -> Self {
        Self { document, text, changes: Vec::new() }
    }

    /// The document.
    pub(super) fn document(&self) -> &'d Document<'a> {
        self.document
    }

    /// The changes: parts of the text, and what takes their place. None overlap.
    pub(super) fn into_changes(self) -> Vec<(Range<usize>, String)> {
        self.changes
    }

    /// Inserts members before one of a mapping.
    ///
    /// # Errors
    /// The mapping has an anchor, so that other places would change too; or it has no braces where it needs them.
    pub(super) fn insert_members(
        &mut self,
        mapping: Node,
        before: Node,
        members: &[(&str, Value)],
        path: &str,
    ) -> Result<(), Refusal> {
        refuse_anchor(self.document, mapping, path)?;
        let start = self.document.span(before).start;
        let column = self.column(start);
        let mut inserted = String::new();
        if self.document.is_flow(mapping) {
            // `[a: b]` is a list of one mapping.
            if !self.text[self.document.span(mapping)].starts_with('{') {
                return Err(Refusal::at(mapping.place, path, "is a mapping without braces: put them around it"));
            }
            let pretty = self.pretty(mapping, start).then_some(column);
            for (name, value) in members {
                inserted.push_str(&quoted(name));
                inserted.push_str(": ");
                value.write_json(pretty, &mut inserted);
                end_part(pretty, &mut inserted);
            }
            self.changes.push((start..start, inserted));
        } else {
            for (name, value) in members {
                Value::map([(name, value.clone())]).write_block(column, &mut inserted);
                break_line(column, &mut inserted);
            }
            let start = self.above_comments(start, column);
            self.changes.push((start..start, inserted));
        }
        Ok(())
    }

    /// Inserts parts at the front of the list that a member of a mapping has, which may be null.
    ///
    /// # Errors
    /// The list has an anchor, or is something else.
    pub(super) fn insert_parts(
        &mut self,
        member: Entry,
        in_flow: bool,
        parts: &[Value],
        path: &str,
    ) -> Result<(), Refusal> {
        let (key, list) = member;
        refuse_anchor(self.document, list, path)?;
        let first = match self.document.written(list) {
            Written::Sequence([first, ..]) => *first,
            Written::Sequence([]) | Written::Scalar { value: "" | "~" | "null", style: ScalarStyle::Plain } => {
                return self.replace_member(member, in_flow, &Value::List(parts.to_vec()), path);
            }
            _ => return Err(Refusal::at(list.place, path, "must be a list")),
        };
        let mut inserted = String::new();
        if self.document.is_flow(list) {
            refuse_anchor(self.document, first, path)?;
            let start = self.document.span(first).start;
            let pretty = self.pretty(list, start).then(|| self.column(start));
            for part in parts {
                part.write_json(pretty, &mut inserted);
                end_part(pretty, &mut inserted);
            }
            self.changes.push((start..start, inserted));
        } else {
            let dash = self.skip_blank(self.after_colon(key, path)?);
            let column = self.column(dash);
            for part in parts {
                inserted.push_str("- ");
                part.write_block(column + 2, &mut inserted);
                break_line(column, &mut inserted);
            }
            let start = self.above_comments(dash, column);
            self.changes.push((start..start, inserted));
        }
        Ok(())
    }

    /// Puts a value in the place of a list's part.
    ///
    /// # Errors
    /// It has an anchor.
    pub(super) fn replace_part(&mut self, list: Node, part: Node, value: &Value, path: &str) -> Result<(), Refusal> {
        refuse_anchor(self.document, list, path)?;
        refuse_anchor(self.document, part, path)?;
        let span = self.document.span(part);
        let mut replacement = String::new();
        if self.document.is_flow(part) {
            let pretty = self.text[span.clone()].contains('\n').then(|| self.indentation(span.start));
            value.write_json(pretty, &mut replacement);
            self.changes.push((span, replacement));
        } else {
            value.write_block(self.column(span.start), &mut replacement);
            self.changes.push((span.start..self.trimmed(&span), replacement));
        }
        Ok(())
    }

    /// Puts a string in the place of a scalar.
    ///
    /// # Errors
    /// It has an anchor, or is a block of lines.
    pub(super) fn replace_scalar(&mut self, scalar: Node, text: &str, path: &str) -> Result<(), Refusal> {
        refuse_anchor(self.document, scalar, path)?;
        if let Written::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = self.document.written(scalar)
        {
            return Err(Refusal::at(scalar.place, path, "is a block of lines: write it on one line"));
        }
        self.changes.push((self.document.span(scalar), quoted(text)));
        Ok(())
    }

    /// Puts a list in the place of an empty one, or of a null.
    fn replace_member(&mut self, (key, value): Entry, in_flow: bool, list: &Value, path: &str) -> Result<(), Refusal> {
        let after_colon = self.after_colon(key, path)?;
        let mut span = self.document.span(value);
        // A null may be nothing at all, and its place is then not behind the colon.
        if span.is_empty() || self.text[after_colon..span.start].trim().is_empty() {
            span = after_colon..span.end.max(after_colon);
        }
        let key = self.document.span(key).start;
        let mut replacement = String::new();
        if in_flow {
            let pretty = self.text[self.line_start(key)..key].trim().is_empty().then(|| self.column(key));
            replacement.push(' ');
            list.write_json(pretty, &mut replacement);
        } else {
            let column = self.column(key) + 2;
            break_line(column, &mut replacement);
            list.write_block(column, &mut replacement);
        }
        self.changes.push((span, replacement));
        Ok(())
    }

    /// Whether a collection in brackets has its parts on lines of their own.
    fn pretty(&self, collection: Node, first: usize) -> bool {
        self.text[self.document.span(collection).start..first].contains('\n')
    }

    /// The byte after a key's colon.
    fn after_colon(&self, key: Node, path: &str) -> Result<usize, Refusal> {
        let colon = self.skip_blank(self.document.span(key).end);
        if !self.text[colon..].starts_with(':') {
            return Err(Refusal::at(key.place, path, "is a key without a colon"));
        }
        Ok(colon + 1)
    }

    /// The first byte from one on that is neither white space nor in a comment.
    fn skip_blank(&self, mut at: usize) -> usize {
        loop {
            let rest = &self.text[at..];
            at += rest.len() - rest.trim_start().len();
            if !self.text[at..].starts_with('#') {
                return at;
            }
            at += self.text[at..].find('\n').unwrap_or(self.text.len() - at);
        }
    }

    /// Where a span ends without the white space that a block scalar's may have.
    fn trimmed(&self, span: &Range<usize>) -> usize {
        span.start + self.text[span.clone()].trim_end().len()
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    fn column(&self, at: usize) -> usize {
        self.text[self.line_start(at)..at].chars().count()
    }

    /// The column in which a line's first character stands.
    fn indentation(&self, at: usize) -> usize {
        let line = &self.text[self.line_start(at)..at];
        line.len() - line.trim_start().len()
    }

    /// Where the comments begin that stand right above a line and in its column: they are about what follows.
    fn above_comments(&self, start: usize, column: usize) -> usize {
        let mut at = start;
        loop {
            let line = self.line_start(at);
            if line == 0 || !self.text[line..at].bytes().all(|byte| byte == b' ') {
                return at;
            }
            let above = self.line_start(line - 1);
            let comment = self.text[above..].get(column..).is_some_and(|rest| rest.starts_with('#'));
            if !comment || !self.text[above..].bytes().take(column).all(|byte| byte == b' ') {
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

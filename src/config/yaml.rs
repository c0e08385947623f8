//! A YAML document as nodes that know their places, made of a parser's events. Aliases and merge keys are followed.
//! Scalars stay text: what type one has is for its reader to say.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

/// Nodes of a document. A platform's file has a few hundred.
const NODES_MAX: usize = 250_000;

/// Line and column, both from 1.
pub(super) type Place = (u64, u64);

/// Why a text is no document, or a node not what it should be.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) reason: String,
}

/// A node of a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Where it stands. An alias has its own place, not that of what it refers to.
    pub(super) place: Place,
    /// Which of the document's contents it has. An alias shares that of what it refers to.
    content: usize,
}

/// A key and its value.
pub(super) type Entry = (Node, Node);

/// A document.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) root: Option<Node>,
    contents: Vec<Content<'a>>,
}

#[derive(Debug)]
enum Content<'a> {
    Scalar { value: Cow<'a, str>, plain: bool, spelling: &'a str },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

impl<'a> Document<'a> {
    /// Reads a text's only document.
    ///
    /// # Errors
    /// The text is not YAML, or has several documents, or more than [`NODES_MAX`] nodes.
    pub(super) fn parse(text: &'a str) -> Result<Self, Fault> {
        let parser = Parser::new_from_str(text);
        let mut composer = Composer { text, parser, anchors: BTreeMap::new(), contents: Vec::new(), nodes_count: 0 };
        let mut root = None;
        while let Some((event, span)) = composer.next()? {
            if event.is_node() {
                if root.is_some() {
                    return Err(fault(&span.start, "more than one document"));
                }
                root = Some(composer.node(event, &span)?);
            }
        }
        Ok(Self { root, contents: composer.contents })
    }

    /// A scalar's value; of anything else, nothing.
    pub(super) fn text(&self, node: Node) -> &str {
        match &self.contents[node.content] {
            Content::Scalar { value, .. } => value,
            _ => "",
        }
    }

    /// How a scalar is written in the file, quotes included; of anything else, nothing.
    pub(super) fn spelling(&self, node: Node) -> &'a str {
        match self.contents[node.content] {
            Content::Scalar { spelling, .. } => spelling,
            _ => "",
        }
    }

    /// The entries of a mapping in their order, then those that it merges in and does not have; of a null, none.
    ///
    /// # Errors
    /// It, or what it merges in, is neither.
    pub(super) fn entries(&self, node: Node) -> Result<Vec<Entry>, Fault> {
        let (mut entries, mut names) = (Vec::new(), BTreeSet::new());
        // A mapping adds nothing when it is merged again; with each visited once, no document takes long.
        let mut visited = BTreeSet::new();
        let mut sources = vec![node];
        while let Some(source) = sources.pop() {
            let own = visited.is_empty();
            if !visited.insert(source.content) {
                continue;
            }
            match &self.contents[source.content] {
                Content::Mapping(mapping) => {
                    for (key, value) in mapping.iter().filter(|(key, _)| !self.is_plain(*key, &["<<"])) {
                        if names.insert(self.text(*key)) || own {
                            entries.push((*key, *value));
                        }
                    }
                    let merged = mapping.iter().filter(|(key, _)| self.is_plain(*key, &["<<"]));
                    sources.extend(merged.rev().map(|(_, source)| source));
                }
                Content::Sequence(parts) if !own => sources.extend(parts.iter().rev()),
                _ if self.is_plain(source, &["", "~", "null", "Null", "NULL"]) => {}
                _ => return Err(Fault { place: source.place, reason: "must be a mapping".to_owned() }),
            }
        }
        Ok(entries)
    }

    fn is_plain(&self, node: Node, values: &[&str]) -> bool {
        let content = &self.contents[node.content];
        matches!(content, Content::Scalar { value, plain: true, .. } if values.contains(&value.as_ref()))
    }
}

struct Composer<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// The contents that have an anchor, by the parser's number for it.
    anchors: BTreeMap<usize, usize>,
    contents: Vec<Content<'a>>,
    nodes_count: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Fault> {
        self.parser.next().transpose().map_err(|error| fault(error.marker(), &error.info()))
    }

    /// The node that begins with an event. The parser bounds how deep nodes nest.
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Fault> {
        self.nodes_count += 1;
        if self.nodes_count > NODES_MAX {
            return Err(fault(&span.start, &format!("more than {NODES_MAX} values")));
        }
        let place = place(&span.start);
        let anchor = event.anchor_id();
        let content = match event {
            Event::Alias(id) => {
                let content = self.anchors.get(&id).copied();
                let content = content.ok_or_else(|| fault(&span.start, "an alias within what it refers to"))?;
                return Ok(Node { place, content });
            }
            Event::Scalar(value, style, ..) => Content::Scalar {
                value,
                plain: style == ScalarStyle::Plain,
                spelling: span.slice(self.text).unwrap_or_default(),
            },
            Event::SequenceStart(..) => {
                let mut parts = Vec::new();
                while let Some(part) = self.part()? {
                    parts.push(part);
                }
                Content::Sequence(parts)
            }
            _ => {
                let mut entries = Vec::new();
                while let Some(key) = self.part()? {
                    let value = self.part()?.ok_or_else(|| fault(&span.start, "a key without a value"))?;
                    entries.push((key, value));
                }
                Content::Mapping(entries)
            }
        };
        self.contents.push(content);
        let content = self.contents.len() - 1;
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, content);
        }
        Ok(Node { place, content })
    }

    /// The next node of a sequence or mapping, until it ends.
    fn part(&mut self) -> Result<Option<Node>, Fault> {
        match self.next()? {
            Some((event, span)) if event.is_node() => self.node(event, &span).map(Some),
            _ => Ok(None),
        }
    }
}

fn fault(at: &Marker, reason: &str) -> Fault {
    Fault { place: place(at), reason: reason.to_owned() }
}

fn place(at: &Marker) -> Place {
    // The parser's columns begin with 0.
    (at.line() as u64, at.col() as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of the document's last key, as text.
    fn last(text: &str) -> Result<Vec<(String, String)>, String> {
        let told = |fault: Fault| format!("{}:{}: {}", fault.place.0, fault.place.1, fault.reason);
        let document = Document::parse(text).map_err(told)?;
        let root = document.entries(document.root.expect("a document")).map_err(told)?;
        let (_, last) = *root.last().expect("a key");
        let text = |node: Node| document.text(node).to_owned();
        Ok(document.entries(last).map_err(told)?.iter().map(|(key, value)| (text(*key), text(*value))).collect())
    }

    #[test]
    fn entries_of_a_mapping_precede_and_beat_those_that_it_merges_in() {
        let bases = "a: &a {k: a, l: a, l: x}\nb: &b {<<: *a, l: b, m: b}\n";
        for (mapping, expected) in [
            ("{m: 1, <<: *b, n: 2}", vec![("m", "1"), ("n", "2"), ("l", "b"), ("k", "a")]),
            ("{<<: [*a, *b]}", vec![("k", "a"), ("l", "a"), ("m", "b")]),
            ("{<<: *a, <<: *b, m: 1, m: 2}", vec![("m", "1"), ("m", "2"), ("k", "a"), ("l", "a")]),
            ("{<<: , \"<<\": 1}", vec![("<<", "1")]),
            ("*a", vec![("k", "a"), ("l", "a"), ("l", "x")]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(last(&format!("{bases}c: {mapping}\n")), Ok(expected), "{mapping}");
        }
    }

    #[test]
    fn what_cannot_be_read_has_a_place() {
        for (text, expected) in [
            ("a: [1]\n", "1:4: must be a mapping"),
            ("a: {<<: 1}\n", "1:9: must be a mapping"),
            ("a: {<<: [{}, 1]}\n", "1:14: must be a mapping"),
            ("a: &a {b: *a}\n", "1:11: an alias within what it refers to"),
            ("a: 1\n---\n", "2:4: more than one document"),
        ] {
            assert_eq!(last(text), Err(expected.to_owned()), "{text}");
        }
        let unknown = last("a: *b\n").expect_err("no anchor");
        assert!(unknown.starts_with("1:4: "), "{unknown}");
        let many = last(&format!("a: [{}]", "1,".repeat(NODES_MAX))).expect_err("too many");
        assert!(many.ends_with("more than 250000 values"), "{many}");
    }

    #[test]
    fn deep_documents_and_those_that_multiply_end() {
        assert!(Document::parse(&"[".repeat(100_000)).is_err());
        assert!(Document::parse(&"{a: ".repeat(100_000)).is_err());
        let merging = |n: usize| format!("a{n}: &a{n} {{<<: [*a{m}, *a{m}, *a{m}]}}\n", m = n - 1);
        let laughs = "a0: &a0 {k: 1}\n".to_owned() + &(1..10_000).map(merging).collect::<String>();
        assert_eq!(last(&laughs), Ok(vec![("k".to_owned(), "1".to_owned())]));
    }
}

//! YAML documents as nodes that know their places, made of a parser's events. Scalars stay text: what type one has is for
//! its reader to say.
//!
//! Readers of settings have aliases and merge keys followed ([`Document::entries`]); who edits the text looks at what is
//! written and where ([`Document::written`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) use granit_parser::ScalarStyle;
use granit_parser::{Event, Marker, Parser, Span, StrInput, StructureStyle};

/// Nodes of a file of settings. A platform's has a few hundred.
const NODES_MAX: usize = 250_000;
/// Nodes of a text of many documents. A listing of a thousand pods has some 300,000.
const NODES_OF_ALL_MAX: usize = 10_000_000;

/// Line and column, both from 1.
pub(crate) type Place = (u64, u64);

/// Why a text is no document, or a node not what it should be.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) place: Place,
    pub(crate) reason: String,
}

/// What is wrong with a file of settings: file, line, column, key and reason.
///
/// ```text
/// /etc/cloud/config.yaml:5:28: provider.auditLog.retentionPeriodInDays: must be a whole number from 1 to 36500
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    file: PathBuf,
    /// Line and column, both from 1, where the fault has a place.
    place: Option<Place>,
    key: Option<String>,
    reason: String,
}

impl FileError {
    /// A fault at a place, of a key where it has one.
    pub(crate) fn new(file: &Path, key: Option<&str>, fault: Fault) -> Self {
        let Fault { place, reason } = fault;
        Self { file: file.to_owned(), place: Some(place), key: key.map(str::to_owned), reason }
    }

    /// A fault of the whole file.
    pub(crate) fn whole(file: &Path, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, key: None, reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Reads a file of settings, of at most so many bytes.
///
/// # Errors
/// It can't be read, is no regular file, is larger, or not UTF-8.
pub(crate) fn read_file(file: &Path, bytes_max: u64) -> Result<String, FileError> {
    let bytes = crate::durable::read_file(file, bytes_max)
        .map_err(|error| FileError::whole(file, format!("cannot read it: {error}")))?;
    String::from_utf8(bytes).map_err(|_| FileError::whole(file, "not UTF-8"))
}

/// A node of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// Where it stands. An alias has its own place, not that of what it refers to.
    pub(crate) place: Place,
    /// Which of the document's contents it has. An alias shares that of what it refers to.
    content: usize,
    alias: bool,
}

impl Node {
    /// Which of its document's contents it has.
    pub(crate) fn content(self) -> usize {
        self.content
    }
}

/// What is written in a node's place.
#[derive(Debug)]
pub(crate) enum Written<'d> {
    /// `*name`: the node stands elsewhere.
    Alias,
    /// A scalar's value; plain, it may be a null, a boolean or a number.
    Scalar { value: &'d str, style: ScalarStyle },
    /// A list.
    Sequence(&'d [Node]),
    /// A mapping, with its merge keys as they are written.
    Mapping(&'d [Entry]),
}

/// A key and its value.
pub(crate) type Entry = (Node, Node);

/// A document.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub(crate) root: Option<Node>,
    text: &'a str,
    contents: Vec<Content<'a>>,
}

#[derive(Debug)]
struct Content<'a> {
    kind: Kind<'a>,
    /// Bytes of the text. That of a collection in block style ends with its last scalar.
    span: Range<usize>,
    /// In brackets or braces.
    flow: bool,
    anchored: bool,
    tagged: bool,
}

#[derive(Debug)]
enum Kind<'a> {
    Scalar { value: Cow<'a, str>, style: ScalarStyle },
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

impl<'a> Document<'a> {
    /// Reads a text's only document.
    ///
    /// # Errors
    /// The text is not YAML, or has several documents, or more than [`NODES_MAX`] nodes.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Fault> {
        let mut composer = Composer::new(text, NODES_MAX);
        let document = composer.document()?.unwrap_or(Self { root: None, text, contents: Vec::new() });
        match composer.document()? {
            Some(Document { root: Some(second), .. }) => {
                Err(Fault { place: second.place, reason: "more than one document".to_owned() })
            }
            _ => Ok(document),
        }
    }

    /// Reads all documents of a text.
    ///
    /// # Errors
    /// The text is not YAML, or has more than [`NODES_OF_ALL_MAX`] nodes.
    pub(crate) fn parse_all(text: &'a str) -> Result<Vec<Self>, Fault> {
        let mut composer = Composer::new(text, NODES_OF_ALL_MAX);
        std::iter::from_fn(|| composer.document().transpose()).collect()
    }

    /// What is written in a node's place.
    pub(crate) fn written(&self, node: Node) -> Written<'_> {
        match &self.contents[node.content].kind {
            _ if node.alias => Written::Alias,
            Kind::Scalar { value, style } => Written::Scalar { value, style: *style },
            Kind::Sequence(parts) => Written::Sequence(parts),
            Kind::Mapping(entries) => Written::Mapping(entries),
        }
    }

    /// Where in the text a node is, but an alias: from its first byte to the end of its last scalar or bracket.
    pub(crate) fn span(&self, node: Node) -> Range<usize> {
        self.contents[node.content].span.clone()
    }

    /// Whether a collection is in brackets or braces.
    pub(crate) fn is_flow(&self, node: Node) -> bool {
        self.contents[node.content].flow
    }

    /// Whether other places may refer to a node.
    pub(crate) fn is_anchored(&self, node: Node) -> bool {
        self.contents[node.content].anchored
    }

    /// A scalar's value; of anything else, nothing.
    pub(crate) fn text(&self, node: Node) -> &str {
        match &self.contents[node.content].kind {
            Kind::Scalar { value, .. } => value,
            _ => "",
        }
    }

    /// How a scalar is written in the file, quotes included; of anything else, nothing.
    pub(crate) fn spelling(&self, node: Node) -> &'a str {
        match &self.contents[node.content] {
            Content { kind: Kind::Scalar { .. }, span, .. } => &self.text[span.clone()],
            _ => "",
        }
    }

    /// The entries of a mapping in their order, then those that it merges in and does not have; of a null, none.
    ///
    /// # Errors
    /// It, or what it merges in, is neither.
    pub(crate) fn entries(&self, node: Node) -> Result<Vec<Entry>, Fault> {
        let (mut entries, mut names) = (Vec::new(), BTreeSet::new());
        // A mapping adds nothing when it is merged again; with each visited once, no document takes long.
        let mut visited = BTreeSet::new();
        let mut sources = vec![node];
        while let Some(source) = sources.pop() {
            let own = visited.is_empty();
            if !visited.insert(source.content) {
                continue;
            }
            match &self.contents[source.content].kind {
                Kind::Mapping(mapping) => {
                    for (key, value) in mapping.iter().filter(|(key, _)| !self.is_plain(*key, &["<<"])) {
                        if names.insert(self.text(*key)) || own {
                            entries.push((*key, *value));
                        }
                    }
                    let merged = mapping.iter().filter(|(key, _)| self.is_plain(*key, &["<<"]));
                    sources.extend(merged.rev().map(|(_, source)| source));
                }
                Kind::Sequence(parts) if !own => sources.extend(parts.iter().rev()),
                _ if self.is_null(source) => {}
                _ => return Err(Fault { place: source.place, reason: "must be a mapping".to_owned() }),
            }
        }
        Ok(entries)
    }

    /// The parts of a list, or of what an alias refers to.
    ///
    /// # Errors
    /// It is no list.
    pub(crate) fn parts(&self, node: Node) -> Result<&[Node], Fault> {
        match &self.contents[node.content].kind {
            Kind::Sequence(parts) => Ok(parts),
            _ => Err(Fault { place: node.place, reason: "must be a list".to_owned() }),
        }
    }

    /// A scalar's value and how it is written, or that of what an alias refers to.
    ///
    /// # Errors
    /// It is a list or a mapping.
    pub(crate) fn scalar(&self, node: Node) -> Result<(&str, ScalarStyle), Fault> {
        match &self.contents[node.content].kind {
            Kind::Scalar { value, style } => Ok((value, *style)),
            _ => Err(Fault { place: node.place, reason: "must be one value".to_owned() }),
        }
    }

    /// Whether an anchor or a tag stands before a node.
    pub(crate) fn is_marked(&self, node: Node) -> bool {
        let content = &self.contents[node.content];
        !node.alias && (content.anchored || content.tagged)
    }

    /// Whether a node is a null, written or left out.
    pub(crate) fn is_null(&self, node: Node) -> bool {
        self.is_plain(node, &["", "~", "null", "Null", "NULL"])
    }

    /// How many nodes with an anchor precede what an alias refers to: what it is in another text with the same anchors.
    pub(crate) fn anchor_number(&self, alias: Node) -> usize {
        self.contents[..alias.content].iter().filter(|content| content.anchored).count()
    }

    fn is_plain(&self, node: Node, values: &[&str]) -> bool {
        let content = &self.contents[node.content].kind;
        matches!(content, Kind::Scalar { value, style: ScalarStyle::Plain } if values.contains(&value.as_ref()))
    }
}

struct Composer<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// The contents that have an anchor, by the parser's number for it.
    anchors: BTreeMap<usize, usize>,
    /// Those of the document that is being read.
    contents: Vec<Content<'a>>,
    nodes_count: usize,
    nodes_max: usize,
}

impl<'a> Composer<'a> {
    fn new(text: &'a str, nodes_max: usize) -> Self {
        let parser = Parser::new_from_str(text);
        Self { text, parser, anchors: BTreeMap::new(), contents: Vec::new(), nodes_count: 0, nodes_max }
    }

    /// The next document; one without a node has no root.
    fn document(&mut self) -> Result<Option<Document<'a>>, Fault> {
        let mut root = None;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentEnd => {
                    self.anchors.clear();
                    return Ok(Some(Document { root, text: self.text, contents: std::mem::take(&mut self.contents) }));
                }
                event if event.is_node() => root = Some(self.node(event, &span)?),
                _ => {}
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Fault> {
        self.parser.next().transpose().map_err(|error| fault(error.marker(), &error.info()))
    }

    /// The node that begins with an event. The parser bounds how deep nodes nest.
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Fault> {
        self.nodes_count += 1;
        if self.nodes_count > self.nodes_max {
            return Err(fault(&span.start, &format!("more than {} values", self.nodes_max)));
        }
        let place = place(&span.start);
        let anchor = event.anchor_id();
        let tagged = span.tag_start.is_some();
        let mut bytes = span.byte_range().unwrap_or_default();
        let mut flow = false;
        let kind = match event {
            Event::Alias(id) => {
                let content = self.anchors.get(&id).copied();
                let content = content.ok_or_else(|| fault(&span.start, "an alias within what it refers to"))?;
                return Ok(Node { place, content, alias: true });
            }
            Event::Scalar(value, style, ..) => Kind::Scalar { value, style },
            Event::SequenceStart(style, ..) => {
                flow = style == StructureStyle::Flow;
                let mut parts = Vec::new();
                while let Some(part) = self.part(flow, &mut bytes.end)? {
                    parts.push(part);
                }
                Kind::Sequence(parts)
            }
            Event::MappingStart(style, ..) => {
                flow = style == StructureStyle::Flow;
                let mut entries = Vec::new();
                while let Some(key) = self.part(flow, &mut bytes.end)? {
                    let value = self.part(flow, &mut bytes.end)?;
                    entries.push((key, value.ok_or_else(|| fault(&span.start, "a key without a value"))?));
                }
                Kind::Mapping(entries)
            }
            _ => return Err(fault(&span.start, "not understood")),
        };
        self.contents.push(Content { kind, span: bytes, flow, anchored: anchor.is_some(), tagged });
        let content = self.contents.len() - 1;
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, content);
        }
        Ok(Node { place, content, alias: false })
    }

    /// The next node of a collection, until it ends; and where in the text what has been read of it ends.
    fn part(&mut self, flow: bool, end: &mut usize) -> Result<Option<Node>, Fault> {
        let Some((event, span)) = self.next()? else { return Ok(None) };
        let own_end = span.byte_range().map_or(*end, |range| range.end);
        if !event.is_node() {
            // The bracket; in block style there is none, and the event's place is that of what comes next.
            *end = if flow { own_end } else { *end };
            return Ok(None);
        }
        let node = self.node(event, &span)?;
        *end = if node.alias { own_end } else { self.contents[node.content].span.end };
        Ok(Some(node))
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

//! A place in a manifest, and the path that leads to it.

use super::Refusal;
use crate::yaml::{Document, Node, ScalarStyle, Written};

/// A node of a document, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<'d, 'a> {
    pub(super) document: &'d Document<'a>,
    pub(super) node: Node,
    /// Its key, if it is a mapping's member.
    pub(super) key: Option<Node>,
    /// Whether what it is a part of stands in brackets or braces.
    pub(super) in_flow: bool,
    /// Such as `spec.containers[0]`.
    pub(super) path: String,
}

impl<'d, 'a> At<'d, 'a> {
    /// The root of a document, if it has one.
    pub(super) fn root(document: &'d Document<'a>) -> Option<Self> {
        document.root.map(|node| Self { document, node, key: None, in_flow: false, path: String::new() })
    }

    /// Refuses for something that is here.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Refusal {
        Refusal { place: self.key.unwrap_or(self.node).place, path: self.path.clone(), reason: reason.into() }
    }

    /// The member of a mapping that has a name. A null has none.
    ///
    /// # Errors
    /// It is no mapping, has the member twice, or may have it from elsewhere.
    pub(super) fn member(&self, name: &str) -> Result<Option<Self>, Refusal> {
        let dot = if self.path.is_empty() { "" } else { "." };
        let found = Self { path: format!("{}{dot}{name}", self.path), ..self.clone() };
        let entries = match self.document.written(self.node) {
            Written::Mapping(entries) => entries,
            Written::Alias => return Err(self.refuse("is an alias: write it out")),
            _ if self.is_null() => return Ok(None),
            _ => return Err(self.refuse("must be a mapping")),
        };
        let mut named = entries.iter().filter(|(key, _)| self.document.text(*key) == name);
        let Some((key, node)) = named.next().copied() else {
            return match entries.iter().find(|(key, _)| self.document.text(*key) == "<<") {
                Some((key, _)) => {
                    Err(Self { key: Some(*key), ..found }.refuse("may stand in what is merged here: write it out"))
                }
                None => Ok(None),
            };
        };
        if let Some((second, _)) = named.next() {
            return Err(Self { key: Some(*second), ..found }.refuse("given twice"));
        }
        Ok(Some(Self { node, key: Some(key), in_flow: self.document.is_flow(self.node), ..found }))
    }

    /// The members of a mapping, merge keys included; of anything else none.
    pub(super) fn members(&self) -> impl Iterator<Item = Self> {
        let entries = match self.document.written(self.node) {
            Written::Mapping(entries) => entries,
            _ => &[],
        };
        entries.iter().map(|(key, node)| Self {
            document: self.document,
            node: *node,
            key: Some(*key),
            in_flow: self.document.is_flow(self.node),
            path: format!("{}.{}", self.path, self.document.text(*key)),
        })
    }

    /// The first member of a mapping that has any.
    pub(super) fn first_member(&self) -> Option<Self> {
        self.members().next()
    }

    /// The name of a member.
    pub(super) fn key_text(&self) -> &'d str {
        self.key.map_or("", |key| self.document.text(key))
    }

    /// A member that must be there, and leads to what is to be changed.
    ///
    /// # Errors
    /// It is missing, or stands in other places too.
    pub(super) fn required(&self, name: &str) -> Result<Self, Refusal> {
        let found = self.member(name)?.ok_or_else(|| self.refuse(format!("`{name}` is missing")))?;
        found.only_here()?;
        Ok(found)
    }

    /// The parts of the list that a member is. A null has none, and neither has a member that is not there.
    ///
    /// # Errors
    /// It is no list, or it or a part of it is an alias.
    pub(super) fn parts_of(&self, name: &str) -> Result<Vec<Self>, Refusal> {
        let Some(list) = self.member(name)? else { return Ok(Vec::new()) };
        let nodes = match self.document.written(list.node) {
            Written::Sequence(nodes) => nodes,
            Written::Alias => return Err(list.refuse("is an alias: write it out")),
            _ if list.is_null() => &[],
            _ => return Err(list.refuse("must be a list")),
        };
        let in_flow = self.document.is_flow(list.node);
        let part = |(index, node): (usize, &Node)| {
            let part =
                Self { node: *node, key: None, in_flow, path: format!("{}[{index}]", list.path), ..list.clone() };
            match self.document.written(*node) {
                Written::Alias => Err(part.refuse("is an alias: write it out")),
                _ => Ok(part),
            }
        };
        nodes.iter().enumerate().map(part).collect()
    }

    /// The text of a member; none where it is not there.
    ///
    /// # Errors
    /// Those of [`At::member`].
    pub(super) fn text_of(&self, name: &str) -> Result<&'d str, Refusal> {
        Ok(self.member(name)?.map_or("", |member| member.text()))
    }

    /// Whether a member is true. One that is not there is not.
    ///
    /// # Errors
    /// It is neither true nor false in any version of YAML.
    pub(super) fn is_true(&self, name: &str) -> Result<bool, Refusal> {
        let Some(member) = self.member(name)?.filter(|member| !member.is_null()) else { return Ok(false) };
        let plain = matches!(self.document.written(member.node), Written::Scalar { style: ScalarStyle::Plain, .. });
        // Kubernetes reads YAML 1.1.
        match member.text().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" if plain => Ok(true),
            "false" | "no" | "off" | "n" if plain => Ok(false),
            _ => Err(member.refuse("must be true or false")),
        }
    }

    /// A scalar's value.
    pub(super) fn text(&self) -> &'d str {
        self.document.text(self.node)
    }

    /// Whether it is a null, written or left out.
    pub(super) fn is_null(&self) -> bool {
        self.document.is_null(self.node)
    }

    /// What is an alias, or has an anchor, stands in other places too, which would change with it.
    ///
    /// # Errors
    /// It is such a node.
    pub(super) fn only_here(&self) -> Result<(), Refusal> {
        if let Written::Alias = self.document.written(self.node) {
            return Err(self.refuse("is an alias: write it out"));
        }
        if self.document.is_anchored(self.node) {
            return Err(self.refuse("has an anchor, so that other places would change too: write it out"));
        }
        Ok(())
    }
}

//! `audit-log inject`: manifests in, the same manifests with the sidecar out. Pure: no file, no cluster.
//!
//! What is added stands in `deploy/chart/sidecar.yaml`. The text is edited, not written anew: whatever is not changed keeps
//! its bytes, comments included, so that what `diff` shows is what was added. Injecting twice is injecting once.
//!
//! ```text
//! spec:                                      spec:
//!   template:                                  template:
//!     spec:                                      spec:
//!       # the job                                  initContainers:
//!       containers:                                  - name: audit-log
//!         - name: train                                …
//!                                                  volumes:
//!                                                    …
//!                                                  # the job
//!                                                  containers:
//!                                                    - name: train
//! ```
//!
//! What can't be edited safely is refused with its place: aliases, anchors and merge keys where something would have to
//! change, members given twice, and pods in which the log would not be what it promises (`pod`).

mod edit;
mod pod;
mod value;

use std::fmt;

use self::pod::{Identity, inject_pod};
use crate::yaml::{Document, Entry, Node, Place, ScalarStyle, Written};

/// What may differ from the sidecar as it is given.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The image; by default that of this version.
    pub image: Option<String>,
    /// The claim of the volume that is mounted at `/audit`. By default `audit-log`, but a pod that has a volume named
    /// `audit-log` keeps it.
    pub claim: Option<String>,
    /// The `ConfigMap` with the retention period. By default `audit-log`, but a pod that has a volume named
    /// `audit-log-config` keeps it.
    pub config_map: Option<String>,
    /// The group that owns volumes, for pods that set none. By default none is set.
    pub fs_group: Option<u32>,
}

/// Manifests with the sidecar.
#[derive(Debug)]
pub struct Injected {
    /// The manifests.
    pub text: String,
    /// What was done, a line each, such as `Job train: sidecar added`.
    pub notes: Vec<String>,
}

/// Why manifests are refused: the place, which object, which member, and the reason.
///
/// ```text
/// 12:7: Job train: spec.template.spec.hostNetwork: the log would listen for the whole node
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InjectError {
    place: Place,
    object: Option<String>,
    path: String,
    reason: String,
}

impl fmt::Display for InjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.place;
        write!(f, "{line}:{column}: ")?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// Why an object can't be injected.
#[derive(Debug)]
struct Refusal {
    place: Place,
    path: String,
    reason: String,
}

impl Refusal {
    fn at(place: Place, path: &str, reason: impl Into<String>) -> Self {
        Self { place, path: path.to_owned(), reason: reason.into() }
    }
}

/// Adds the sidecar to every pod in YAML or JSON manifests: Pods, Jobs, `CronJobs`, Deployments, `StatefulSets`, `DaemonSets`,
/// `ReplicaSets`, and Lists of them, in any number of documents. Other objects stay as they are.
///
/// # Errors
/// The text is neither YAML nor JSON, or an object can't be injected. Nothing is injected then.
pub fn inject(text: &str, options: &Options) -> Result<Injected, InjectError> {
    let unread = |place, reason| InjectError { place, object: None, path: String::new(), reason };
    // Lines are looked for by their newlines.
    if let Some(line) = text.split('\n').position(|line| line.strip_suffix('\r').unwrap_or(line).contains('\r')) {
        return Err(unread((line as u64 + 1, 1), "a carriage return that ends no line".to_owned()));
    }
    let documents = Document::parse_all(text).map_err(|fault| unread(fault.place, fault.reason))?;
    let (mut changes, mut notes) = (Vec::new(), Vec::new());
    for document in &documents {
        let Some(root) = document.root else { continue };
        let mut editor = edit::Editor::new(document, text);
        inject_object(&mut editor, root, None, "", options, &mut notes)?;
        changes.extend(editor.into_changes());
    }
    Ok(Injected { text: edit::apply(text, changes), notes })
}

/// Injects an object, or those of a list.
fn inject_object(
    editor: &mut edit::Editor<'_, '_>,
    object: Node,
    listed_as: Option<(&str, &str)>,
    path: &str,
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<(), InjectError> {
    let document = editor.document();
    let Written::Mapping(_) = document.written(object) else { return Ok(()) };
    let told = |kind: &str, refusal: Refusal| {
        let metadata = member(document, object, "metadata", "").ok().flatten();
        let name = metadata.and_then(|(_, metadata)| member(document, metadata, "name", "").ok().flatten());
        let name = name.map_or("(no name)", |(_, name)| document.text(name));
        InjectError {
            place: refusal.place,
            object: Some(format!("{kind} {name}")),
            path: refusal.path,
            reason: refusal.reason,
        }
    };
    let text_of = |name: &str| -> Result<Option<&str>, Refusal> {
        Ok(member(document, object, name, name)?.map(|(_, value)| document.text(value)))
    };
    let kind = text_of("kind").map_err(|refusal| told("object", refusal))?;
    let version = text_of("apiVersion").map_err(|refusal| told("object", refusal))?;
    // The items of a `JobList` need not say that they are Jobs.
    let (Some(version), Some(kind)) = (version.or(listed_as.map(|l| l.0)), kind.or(listed_as.map(|l| l.1))) else {
        return Ok(());
    };
    if let Some(item_kind) = kind.strip_suffix("List") {
        let items = member(document, object, "items", "items").map_err(|refusal| told(kind, refusal))?;
        let Some((_, items)) = items else { return Ok(()) };
        let Written::Sequence(parts) = document.written(items) else { return Ok(()) };
        let listed_as = (!item_kind.is_empty()).then_some((version, item_kind));
        for (index, item) in parts.iter().enumerate() {
            inject_object(editor, *item, listed_as, &format!("{path}items[{index}]."), options, notes)?;
        }
        return Ok(());
    }
    let Some(way) = way_to_pod(version, kind) else { return Ok(()) };
    let injected = inject_template(editor, object, kind, way, path, options).map_err(|refusal| told(kind, refusal))?;
    let name = told(kind, Refusal::at((0, 0), "", "")).object.unwrap_or_default();
    notes.extend(injected.into_iter().map(|note| format!("{name}: {note}")));
    Ok(())
}

/// The members that lead from an object to its pod's; of other objects nothing.
fn way_to_pod(version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("batch", "Job") | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => {
            Some(&["spec", "template"])
        }
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Injects the pod at the end of the way, and says what was done.
fn inject_template(
    editor: &mut edit::Editor<'_, '_>,
    object: Node,
    kind: &str,
    way: &[&str],
    path: &str,
    options: &Options,
) -> Result<Vec<String>, Refusal> {
    let document = editor.document();
    let mut path = path.trim_end_matches('.').to_owned();
    let mut node = object;
    for name in way {
        node = required(document, node, name, &mut path)?;
    }
    let labelled_as_job = || -> Result<bool, Refusal> {
        let Some((_, metadata)) = member(document, node, "metadata", &path)? else { return Ok(false) };
        let Some((_, labels)) = member(document, metadata, "labels", &path)? else { return Ok(false) };
        Ok(member(document, labels, "batch.kubernetes.io/job-name", &path)?.is_some())
    };
    let of_job = matches!(kind, "Job" | "CronJob") || labelled_as_job()?;
    let identity = if of_job { Identity::Job } else { Identity::Pod };
    let spec = required(document, node, "spec", &mut path)?;
    inject_pod(editor, spec, identity, &path, options)
}

/// A member that leads to what is to be changed.
fn required(document: &Document<'_>, mapping: Node, name: &str, path: &mut String) -> Result<Node, Refusal> {
    path.push_str(if path.is_empty() { "" } else { "." });
    path.push_str(name);
    let found = member(document, mapping, name, path)?;
    let (_, value) = found.ok_or_else(|| Refusal::at(mapping.place, path, "is missing"))?;
    refuse_anchor(document, value, path)?;
    Ok(value)
}

/// What is an alias, or has an anchor, stands in other places too, which would change with it.
fn refuse_anchor(document: &Document<'_>, node: Node, path: &str) -> Result<(), Refusal> {
    if let Written::Alias = document.written(node) {
        return Err(Refusal::at(node.place, path, "is an alias: write it out"));
    }
    if document.is_anchored(node) {
        return Err(Refusal::at(
            node.place,
            path,
            "has an anchor, so that other places would change too: write it out",
        ));
    }
    Ok(())
}

/// The member of a mapping that has a name; a null has none.
fn member(document: &Document<'_>, mapping: Node, name: &str, path: &str) -> Result<Option<Entry>, Refusal> {
    let entries = match document.written(mapping) {
        Written::Mapping(entries) => entries,
        Written::Scalar { value: "" | "~" | "null", style: ScalarStyle::Plain } => return Ok(None),
        Written::Alias => return Err(Refusal::at(mapping.place, path, "is within an alias: write it out")),
        _ => return Err(Refusal::at(mapping.place, path, "is not within a mapping")),
    };
    let mut named = entries.iter().filter(|(key, _)| document.text(*key) == name);
    let Some(found) = named.next() else {
        return match entries.iter().find(|(key, _)| document.text(*key) == "<<") {
            Some((key, _)) => Err(Refusal::at(key.place, path, "may stand in what is merged here: write it out")),
            None => Ok(None),
        };
    };
    if let Some((second, _)) = named.next() {
        return Err(Refusal::at(second.place, path, "given twice"));
    }
    Ok(Some(*found))
}

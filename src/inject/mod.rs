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

mod at;
mod edit;
mod pod;
mod value;

use std::fmt;

use self::at::At;
use self::edit::{Editor, Lines};
use self::pod::{Identity, Sidecar, inject_pod};
use self::value::Value;
use crate::yaml::{Document, Place, Written};

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

/// Adds the sidecar to every pod in YAML or JSON manifests: Pods, Jobs, `CronJobs`, Deployments, `StatefulSets`, `DaemonSets`,
/// `ReplicaSets`, `ReplicationControllers`, and Lists of them, in any number of documents. Other objects stay as they are.
///
/// # Errors
/// The text is neither YAML nor JSON, or an object can't be injected. Nothing is injected then.
pub fn inject(text: &str, options: &Options) -> Result<Injected, InjectError> {
    refuse_odd_line_ends(text)?;
    let documents = parse(text)?;
    let lines = Lines::new(text);
    let sidecar = Sidecar::new(options);
    let (mut changes, mut expected, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for document in &documents {
        let mut editor = Editor::new(&lines);
        if let Some(root) = At::root(document) {
            inject_object(&mut editor, &root, None, &sidecar, &mut notes)?;
        }
        changes.extend_from_slice(editor.changes());
        expected.push(editor.expected(document));
    }
    let injected = edit::apply(text, changes);
    // There is always another way to write YAML: what was written is read again, and is what was meant, or it is refused.
    let read = parse(&injected).unwrap_or_default();
    let read: Vec<_> = read.iter().map(|document| document.root.map(|root| Value::read(document, root))).collect();
    if read != expected {
        let odd = read.iter().zip(&expected).position(|(read, expected)| read != expected).unwrap_or_default();
        let place = documents[odd].root.map_or((1, 1), |root| root.place);
        let reason = "is written in a way that can't be edited: write its pods' members plainly, one a line";
        return Err(unread(place, reason));
    }
    Ok(Injected { text: injected, notes })
}

fn unread(place: Place, reason: impl Into<String>) -> InjectError {
    InjectError { place, object: None, path: String::new(), reason: reason.into() }
}

fn parse(text: &str) -> Result<Vec<Document<'_>>, InjectError> {
    Document::parse_all(text).map_err(|fault| {
        let several = fault.reason.contains("document start");
        let help = if several { "; between objects stands a line with `---`" } else { "" };
        unread(fault.place, fault.reason + help)
    })
}

/// Versions of YAML disagree on what else than a newline ends a line, and thereby on what is a comment.
fn refuse_odd_line_ends(text: &str) -> Result<(), InjectError> {
    let odd = |line: &str| line.strip_suffix('\r').unwrap_or(line).contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']);
    match text.split('\n').position(odd) {
        Some(line) => {
            let reason = "holds a character that ends a line for some readers only (a lone carriage return, U+0085, U+2028, U+2029)";
            Err(unread((line as u64 + 1, 1), reason))
        }
        None => Ok(()),
    }
}

/// Injects an object, or those of a list.
fn inject_object<'a>(
    editor: &mut Editor<'_, 'a>,
    object: &At<'_, 'a>,
    listed_as: Option<(&str, &str)>,
    sidecar: &Sidecar,
    notes: &mut Vec<String>,
) -> Result<(), InjectError> {
    let Written::Mapping(_) = object.document.written(object.node) else { return Ok(()) };
    let refused = |kind: &str, refusal: Refusal| InjectError {
        place: refusal.place,
        object: Some(name_of(object, kind)),
        path: refusal.path,
        reason: refusal.reason,
    };
    let said = |name: &str| {
        let member = object.member(name).map_err(|refusal| refused("object", refusal))?;
        Ok(member.map(|member| member.text()))
    };
    // The items of a `JobList` need not say that they are Jobs.
    let version = said("apiVersion")?.or(listed_as.map(|listed| listed.0));
    let kind = said("kind")?.or(listed_as.map(|listed| listed.1));
    let (Some(version), Some(kind)) = (version, kind) else { return Ok(()) };
    if let Some(item_kind) = kind.strip_suffix("List") {
        let listed_as = (!item_kind.is_empty()).then_some((version, item_kind));
        for item in object.parts_of("items").map_err(|refusal| refused(kind, refusal))? {
            inject_object(editor, &item, listed_as, sidecar, notes)?;
        }
        return Ok(());
    }
    let Some(way) = way_to_pod(version, kind) else { return Ok(()) };
    let injected = inject_template(editor, object, kind, way, sidecar).map_err(|refusal| refused(kind, refusal))?;
    let name = name_of(object, kind);
    notes.extend(injected.into_iter().map(|note| format!("{name}: {note}")));
    Ok(())
}

/// An object's kind and name.
fn name_of(object: &At<'_, '_>, kind: &str) -> String {
    let metadata = object.member("metadata").ok().flatten();
    let name = metadata.and_then(|metadata| metadata.member("name").ok().flatten());
    format!("{kind} {}", name.map_or("(no name)", |name| name.text()))
}

/// The members that lead from an object to its pod's; of other objects nothing.
fn way_to_pod(version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("batch", "Job")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Injects the pod at the end of the way, and says what was done.
fn inject_template<'a>(
    editor: &mut Editor<'_, 'a>,
    object: &At<'_, 'a>,
    kind: &str,
    way: &[&str],
    sidecar: &Sidecar,
) -> Result<Vec<String>, Refusal> {
    let template = way.iter().try_fold(object.clone(), |at, name| at.required(name))?;
    let labels = template.member("metadata")?.map_or(Ok(None), |metadata| metadata.member("labels"))?;
    let job_name = labels.map_or(Ok(None), |labels| labels.member("batch.kubernetes.io/job-name"))?;
    let of_job = matches!(kind, "Job" | "CronJob") || job_name.is_some();
    let identity = if of_job { Identity::Job } else { Identity::Pod };
    inject_pod(editor, &template.required("spec")?, identity, sidecar)
}

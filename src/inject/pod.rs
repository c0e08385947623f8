//! One pod: what is added to it, and when it is refused.
//!
//! It is refused where the log would not be what it promises, by the same rules as the admission policy: where it would
//! listen for the whole node, where other containers may write to `/audit`, or see its process.

use super::edit::Editor;
use super::value::Value;
use super::{Options, Refusal, member, refuse_anchor};
use crate::yaml::{Document, Entry, Node, ScalarStyle, Written};

/// What every form of deployment adds.
const SIDECAR: &str = include_str!("../../deploy/chart/sidecar.yaml");
/// What is never sent through a proxy.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];
/// The variables that programs take that from: some read one, some the other.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// What a pod's events are those of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity {
    /// A Job: its name, and the completion index.
    Job,
    /// The pod itself, and its index in a `StatefulSet`.
    Pod,
}

/// The sidecar as the options have it.
struct Sidecar {
    container: Value,
    volumes: Vec<Value>,
    name: String,
}

impl Sidecar {
    fn new(identity: Identity, options: &Options) -> Self {
        let document = Document::parse(SIDECAR).expect("it is YAML");
        let root = document.root.and_then(|root| Value::read(&document, root)).expect("it has no aliases");
        let mut container = root.get("container").expect("it has a container").clone();
        let identity = match identity {
            Identity::Job => "job",
            Identity::Pod => "pod",
        };
        let identity = root.get("identity").and_then(|all| all.get(identity)).expect("it has both").parts().to_vec();
        if let Some(Value::List(env)) = container.get_mut("env") {
            env.splice(0..0, identity);
        }
        let mut volumes = root.get("volumes").expect("it has volumes").parts().to_vec();
        let set = |value: Option<&mut Value>, option: &Option<String>| {
            if let (Some(value), Some(option)) = (value, option) {
                *value = Value::text(option);
            }
        };
        set(container.get_mut("image"), &options.image);
        for volume in &mut volumes {
            set(volume.get_mut("persistentVolumeClaim").and_then(|claim| claim.get_mut("claimName")), &options.claim);
            set(volume.get_mut("configMap").and_then(|config| config.get_mut("name")), &options.config_map);
        }
        let name = container.get("name").and_then(Value::as_text).expect("it has a name").to_owned();
        Self { container, volumes, name }
    }

    /// The volume that is mounted at `/audit`.
    fn audit_volume(&self) -> &str {
        self.volumes[0].get("name").and_then(Value::as_text).expect("it has a name")
    }
}

/// Adds the sidecar to a pod, or puts it in the place of another version; and says what was done.
///
/// # Errors
/// The pod is one in which the log would not keep its promises, or can't be edited.
pub(super) fn inject_pod(
    editor: &mut Editor<'_, '_>,
    spec: Node,
    identity: Identity,
    path: &str,
    options: &Options,
) -> Result<Vec<String>, Refusal> {
    let document = editor.document();
    let sidecar = Sidecar::new(identity, options);
    refuse_shared(document, spec, path)?;
    let containers = member(document, spec, "containers", path)?;
    let (before, containers) = containers.ok_or_else(|| Refusal::at(spec.place, path, "has no containers"))?;
    let containers = parts(document, Some((before, containers)), &format!("{path}.containers"))?;
    let init_member = member(document, spec, "initContainers", path)?;
    let init_containers = parts(document, init_member, &format!("{path}.initContainers"))?;
    let ephemeral = member(document, spec, "ephemeralContainers", path)?;
    let ephemeral = parts(document, ephemeral, &format!("{path}.ephemeralContainers"))?;

    let present = init_containers.iter().find(|part| name(document, part.node) == sidecar.name);
    for container in containers.iter().chain(&ephemeral) {
        if name(document, container.node) == sidecar.name {
            let reason = format!("`{}` is the sidecar's name, and this is none: it must go", sidecar.name);
            return Err(Refusal::at(container.node.place, &container.path, reason));
        }
    }
    let others = || {
        let init = init_containers.iter().filter(|part| name(document, part.node) != sidecar.name);
        init.chain(&containers)
    };
    for container in others() {
        refuse_anchor(document, container.node, &container.path)?;
    }
    for container in others().chain(&ephemeral) {
        refuse_writable(document, container, sidecar.audit_volume())?;
    }

    let mut notes = Vec::new();
    let mut missing = Vec::new();
    match present {
        None => {
            notes.push("sidecar added".to_owned());
            let first = std::slice::from_ref(&sidecar.container);
            match init_entry(document, spec, "initContainers") {
                None => missing.push(("initContainers", Value::List(first.to_vec()))),
                Some(entry) => {
                    editor.insert_parts(entry, document.is_flow(spec), first, &format!("{path}.initContainers"))?;
                }
            }
        }
        Some(part) => {
            let always = member(document, part.node, "restartPolicy", &part.path)?;
            if always.is_none_or(|(_, policy)| document.text(policy) != "Always") {
                let reason = format!("`{}` is the sidecar's name, and this is none: it must go", sidecar.name);
                return Err(Refusal::at(part.node.place, &part.path, reason));
            }
            if Value::read(document, part.node).as_ref() == Some(&sidecar.container) {
                notes.push("sidecar is there".to_owned());
            } else {
                notes.push("sidecar replaced".to_owned());
                let (_, list) = init_member.expect("it has parts");
                editor.replace_part(list, part.node, &sidecar.container, &part.path)?;
            }
        }
    }
    add_volumes(editor, spec, &sidecar, path, options, &mut missing)?;
    add_fs_group(editor, spec, path, options, &mut missing)?;
    if !missing.is_empty() {
        editor.insert_members(spec, before, &missing, path)?;
    }
    for container in others() {
        if let Some(note) = add_no_proxy(editor, container)? {
            notes.push(note);
        }
    }
    Ok(notes)
}

/// A part of a list, and its path.
struct Part {
    node: Node,
    path: String,
}

/// The parts of the list that a member is, which may be missing or null.
fn parts(document: &Document<'_>, list: Option<Entry>, path: &str) -> Result<Vec<Part>, Refusal> {
    let Some((_, list)) = list else { return Ok(Vec::new()) };
    refuse_anchor(document, list, path)?;
    let parts = match document.written(list) {
        Written::Sequence(parts) => parts,
        Written::Scalar { value: "" | "~" | "null", style: ScalarStyle::Plain } => &[],
        _ => return Err(Refusal::at(list.place, path, "must be a list")),
    };
    Ok(parts.iter().enumerate().map(|(index, node)| Part { node: *node, path: format!("{path}[{index}]") }).collect())
}

/// The member as it is written, null or not.
fn init_entry(document: &Document<'_>, mapping: Node, name: &str) -> Option<Entry> {
    let Written::Mapping(entries) = document.written(mapping) else { return None };
    entries.iter().copied().find(|(key, _)| document.text(*key) == name)
}

fn name<'d>(document: &'d Document<'_>, part: Node) -> &'d str {
    init_entry(document, part, "name").map_or("", |(_, name)| document.text(name))
}

fn is_true(document: &Document<'_>, entry: Option<Entry>) -> bool {
    entry.is_some_and(|(_, value)| document.text(value) == "true")
}

/// Loopback and processes must be the pod's own.
fn refuse_shared(document: &Document<'_>, spec: Node, path: &str) -> Result<(), Refusal> {
    for (name, reason) in [
        ("hostNetwork", "the log would listen for the whole node: anybody there could write to it"),
        ("hostPID", "the job could see and end the sidecar's process"),
        ("shareProcessNamespace", "the job could see and end the sidecar's process"),
    ] {
        let entry = member(document, spec, name, path)?;
        if is_true(document, entry) {
            let place = entry.map_or(spec.place, |(key, _)| key.place);
            return Err(Refusal::at(place, &format!("{path}.{name}"), reason));
        }
    }
    let Some((_, os)) = member(document, spec, "os", path)? else { return Ok(()) };
    match member(document, os, "name", path)? {
        Some((_, os)) if document.text(os) != "linux" => {
            Err(Refusal::at(os.place, &format!("{path}.os.name"), "the sidecar runs on linux only"))
        }
        _ => Ok(()),
    }
}

/// Nobody but the sidecar may write to `/audit`.
fn refuse_writable(document: &Document<'_>, container: &Part, audit_volume: &str) -> Result<(), Refusal> {
    let path = format!("{}.volumeMounts", container.path);
    for mount in parts(document, member(document, container.node, "volumeMounts", &container.path)?, &path)? {
        let text = |name: &str| -> Result<&str, Refusal> {
            Ok(member(document, mount.node, name, &mount.path)?.map_or("", |(_, value)| document.text(value)))
        };
        let mut folders = text("mountPath")?.split('/').filter(|folder| !folder.is_empty());
        let is_audit = folders.next() == Some("audit") || text("name")? == audit_volume;
        if is_audit && text("readOnly")? != "true" {
            let reason = "only the sidecar may write to /audit: mount it with `readOnly: true`, or not at all";
            return Err(Refusal::at(mount.node.place, &mount.path, reason));
        }
    }
    Ok(())
}

/// Adds the volumes that the pod does not have.
fn add_volumes(
    editor: &mut Editor<'_, '_>,
    spec: Node,
    sidecar: &Sidecar,
    path: &str,
    options: &Options,
    missing: &mut Vec<(&'static str, Value)>,
) -> Result<(), Refusal> {
    let document = editor.document();
    let path = format!("{path}.volumes");
    let present = parts(document, member(document, spec, "volumes", &path)?, &path)?;
    let mut added = Vec::new();
    for (volume, option) in sidecar.volumes.iter().zip([&options.claim, &options.config_map]) {
        let wanted = volume.get("name").and_then(Value::as_text).expect("it has a name");
        match present.iter().find(|part| name(document, part.node) == wanted) {
            None => added.push(volume.clone()),
            Some(part) if option.is_some() && Value::read(document, part.node).as_ref() != Some(volume) => {
                let reason =
                    format!("another volume is named `{wanted}` already: remove it, or leave the flag out to use it");
                return Err(Refusal::at(part.node.place, &part.path, reason));
            }
            Some(_) => {}
        }
    }
    if added.is_empty() {
        return Ok(());
    }
    match init_entry(document, spec, "volumes") {
        None => missing.push(("volumes", Value::List(added))),
        Some(entry) => editor.insert_parts(entry, document.is_flow(spec), &added, &path)?,
    }
    Ok(())
}

/// Sets the group of volumes, where one is wanted and none is set.
fn add_fs_group(
    editor: &mut Editor<'_, '_>,
    spec: Node,
    path: &str,
    options: &Options,
    missing: &mut Vec<(&'static str, Value)>,
) -> Result<(), Refusal> {
    let Some(group) = options.fs_group else { return Ok(()) };
    let document = editor.document();
    let path = format!("{path}.securityContext");
    let group = Value::Plain(group.to_string());
    let Some((key, context)) = init_entry(document, spec, "securityContext") else {
        missing.push(("securityContext", Value::map([("fsGroup", group)])));
        return Ok(());
    };
    if member(document, context, "fsGroup", &path)?.is_some() {
        return Ok(());
    }
    match document.written(context) {
        Written::Mapping([(first, _), ..]) => editor.insert_members(context, *first, &[("fsGroup", group)], &path),
        _ => Err(Refusal::at(key.place, &path, "is empty: leave it out")),
    }
}

/// Has what is sent to loopback go around proxies; and says where that can't be done.
fn add_no_proxy(editor: &mut Editor<'_, '_>, container: &Part) -> Result<Option<String>, Refusal> {
    let document = editor.document();
    let path = format!("{}.env", container.path);
    let variables = parts(document, member(document, container.node, "env", &path)?, &path)?;
    let mut is_set = false;
    for variable in variables.iter().filter(|part| NO_PROXY.contains(&name(document, part.node))) {
        is_set = true;
        refuse_anchor(document, variable.node, &variable.path)?;
        let path = format!("{}.value", variable.path);
        let Some((_, value)) = member(document, variable.node, "value", &path)? else {
            return Ok(Some(format!(
                "{}: its value comes from elsewhere; see that it has {}",
                variable.path,
                LOOPBACK.join(",")
            )));
        };
        let hosts: Vec<_> = document.text(value).split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        let added: Vec<_> =
            LOOPBACK.into_iter().filter(|host| !hosts.contains(host) && !hosts.contains(&"*")).collect();
        if !added.is_empty() {
            editor.replace_scalar(value, &[hosts, added].concat().join(","), &path)?;
        }
    }
    if is_set {
        return Ok(None);
    }
    if !parts(document, member(document, container.node, "envFrom", &container.path)?, &container.path)?.is_empty() {
        return Ok(Some(format!(
            "{}.envFrom: may set NO_PROXY, which is left alone; see that it has {}",
            container.path,
            LOOPBACK.join(",")
        )));
    }
    let variables =
        NO_PROXY.map(|name| Value::map([("name", Value::text(name)), ("value", Value::text(LOOPBACK.join(",")))]));
    if let Some(entry) = init_entry(document, container.node, "env") {
        editor.insert_parts(entry, document.is_flow(container.node), &variables, &path)?;
        return Ok(None);
    }
    let Written::Mapping(entries) = document.written(container.node) else {
        return Err(Refusal::at(container.node.place, &container.path, "must be a mapping"));
    };
    // After the lines that say what it is.
    let before = entries.iter().find(|(key, _)| !["name", "image"].contains(&document.text(*key)));
    let Some((before, _)) = before.or(entries.first()) else {
        return Err(Refusal::at(container.node.place, &container.path, "is empty"));
    };
    editor.insert_members(container.node, *before, &[("env", Value::List(variables.into()))], &container.path)?;
    Ok(None)
}

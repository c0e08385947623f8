//! One pod: what is added to it, and when it is refused.
//!
//! It is refused where the log would not be what it promises, by the rules of the admission policy: where it would listen
//! for the whole node, where other containers may write to `/audit`, or see its process.

use super::at::At;
use super::edit::Editor;
use super::value::Value;
use super::{Options, Refusal};
use crate::yaml::Document;

/// What every form of deployment adds.
const SIDECAR: &str = include_str!("../../deploy/chart/sidecar.yaml");
/// What is never sent through a proxy.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];
/// The variables that programs take that from: some read one, some the other.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// The folder that only the sidecar may write to.
const AUDIT: &str = "audit";

/// What a pod's events are those of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity {
    /// A Job: its name, and the completion index.
    Job,
    /// The pod itself, and its index in a `StatefulSet`.
    Pod,
}

/// The sidecar as the options have it.
#[derive(Debug)]
pub(super) struct Sidecar {
    of_job: Value,
    of_pod: Value,
    audit: Value,
    config: Value,
    /// Volumes in the pod are what the options say, and not what the pod has.
    claim_given: bool,
    config_given: bool,
    fs_group: Option<u32>,
}

impl Sidecar {
    pub(super) fn new(options: &Options) -> Self {
        let document = Document::parse(SIDECAR).expect("it is YAML");
        let root = Value::read(&document, document.root.expect("it is not empty"));
        let set = |value: &mut Value, path: &[&str], option: Option<&String>| {
            let value = path.iter().try_fold(value, |value, name| value.get_mut(name));
            if let Some(option) = option {
                *value.expect("it has that member") = Value::text(option);
            }
        };
        let mut container = root.get("container").expect("it has a container").clone();
        set(&mut container, &["image"], options.image.as_ref());
        let [of_job, of_pod] = ["job", "pod"].map(|identity| {
            let identity =
                root.get("identity").and_then(|all| all.get(identity)).expect("it has both").parts().to_vec();
            let mut container = container.clone();
            if let Some(Value::List(env)) = container.get_mut("env") {
                env.splice(0..0, identity);
            }
            container
        });
        let [audit, config] = root.get("volumes").expect("it has volumes").parts() else { unreachable!("it has two") };
        let (mut audit, mut config) = (audit.clone(), config.clone());
        set(&mut audit, &["persistentVolumeClaim", "claimName"], options.claim.as_ref());
        set(&mut config, &["configMap", "name"], options.config_map.as_ref());
        let (claim_given, config_given) = (options.claim.is_some(), options.config_map.is_some());
        Self { of_job, of_pod, audit, config, claim_given, config_given, fs_group: options.fs_group }
    }

    fn container(&self, identity: Identity) -> &Value {
        match identity {
            Identity::Job => &self.of_job,
            Identity::Pod => &self.of_pod,
        }
    }

    fn name(&self) -> &str {
        name_of(&self.of_pod)
    }
}

fn name_of(value: &Value) -> &str {
    value.get("name").and_then(Value::as_text).expect("it has a name")
}

/// Adds the sidecar to a pod, or puts it in the place of another version; and says what was done.
///
/// # Errors
/// The pod is one in which the log would not keep its promises, or can't be edited.
pub(super) fn inject_pod<'a>(
    editor: &mut Editor<'_, 'a>,
    spec: &At<'_, 'a>,
    identity: Identity,
    sidecar: &Sidecar,
) -> Result<Vec<String>, Refusal> {
    refuse_shared(spec)?;
    let first = spec.member("containers")?.ok_or_else(|| spec.refuse("has no containers"))?;
    first.only_here()?;
    let containers = spec.parts_of("containers")?;
    if containers.is_empty() {
        return Err(first.refuse("is empty"));
    }
    let ephemeral = spec.parts_of("ephemeralContainers")?;
    for container in containers.iter().chain(&ephemeral) {
        if container.text_of("name")? == sidecar.name() {
            return Err(refuse_namesake(container, sidecar));
        }
    }
    let mut present = None;
    let mut others = Vec::new();
    for (index, container) in spec.parts_of("initContainers")?.into_iter().enumerate() {
        if container.text_of("name")? == sidecar.name() {
            present = Some((index, container));
        } else {
            others.push(container);
        }
    }
    others.extend(containers);
    let audit_volumes = audit_volumes(spec, sidecar)?;
    for container in others.iter().chain(&ephemeral) {
        refuse_writable(container, &audit_volumes)?;
    }

    let mut notes = Vec::new();
    let mut missing = Vec::new();
    let container = sidecar.container(identity);
    match present {
        None => {
            notes.push("sidecar added".to_owned());
            match spec.member("initContainers")? {
                None => missing.push(("initContainers", Value::List(vec![container.clone()]))),
                Some(list) => editor.insert_parts(&list, std::slice::from_ref(container))?,
            }
        }
        Some((index, there)) => {
            if there.text_of("restartPolicy")? != "Always" {
                return Err(refuse_namesake(&there, sidecar));
            }
            if Value::read(there.document, there.node) == *container {
                notes.push("sidecar is there".to_owned());
            } else {
                notes.push("sidecar replaced".to_owned());
                editor.replace_part(&there, container)?;
            }
            if index > 0 {
                notes.push(format!("{}: is not the first: what stands before it runs without the log", there.path));
            }
        }
    }
    add_volumes(editor, spec, sidecar, &mut missing)?;
    add_fs_group(editor, spec, sidecar, &mut missing)?;
    if !missing.is_empty() {
        editor.insert_members(spec, &first, &missing)?;
    }
    for container in &others {
        notes.extend(add_no_proxy(editor, container)?);
    }
    Ok(notes)
}

fn refuse_namesake(container: &At<'_, '_>, sidecar: &Sidecar) -> Refusal {
    container.refuse(format!("`{}` is the sidecar's name, and this is none: it must go", sidecar.name()))
}

/// Loopback and processes must be the pod's own.
fn refuse_shared(spec: &At<'_, '_>) -> Result<(), Refusal> {
    for (name, reason) in [
        ("hostNetwork", "the log would listen for the whole node: anybody there could write to it"),
        ("hostPID", "the job could see and end the sidecar's process"),
        ("shareProcessNamespace", "the job could see and end the sidecar's process"),
    ] {
        if spec.is_true(name)? {
            return Err(spec.member(name)?.unwrap_or_else(|| spec.clone()).refuse(reason));
        }
    }
    let Some(os) = spec.member("os")? else { return Ok(()) };
    match os.member("name")? {
        Some(name) if name.text() != "linux" => Err(name.refuse("the sidecar runs on linux only")),
        _ => Ok(()),
    }
}

/// The names of the pod's volumes that hold the claim with everyone's events.
fn audit_volumes<'d>(spec: &At<'d, '_>, sidecar: &'d Sidecar) -> Result<Vec<&'d str>, Refusal> {
    let claim_of = |volume: &At<'d, '_>| -> Result<&'d str, Refusal> {
        volume.member("persistentVolumeClaim")?.map_or(Ok(""), |claim| claim.text_of("claimName"))
    };
    let own = name_of(&sidecar.audit);
    let volumes = spec.parts_of("volumes")?;
    let claim = sidecar.audit.get("persistentVolumeClaim").and_then(|claim| claim.get("claimName"));
    let mut claim = claim.and_then(Value::as_text).unwrap_or_default();
    for volume in &volumes {
        if volume.text_of("name")? == own {
            claim = claim_of(volume)?;
        }
    }
    let mut names = vec![own];
    for volume in &volumes {
        if !claim.is_empty() && claim_of(volume)? == claim {
            names.push(volume.text_of("name")?);
        }
    }
    Ok(names)
}

/// Nobody but the sidecar may write to `/audit`, nor to the volume behind it.
fn refuse_writable(container: &At<'_, '_>, audit_volumes: &[&str]) -> Result<(), Refusal> {
    const REASON: &str = "only the sidecar may write to /audit: mount it with `readOnly: true`, or not at all";
    for mount in container.parts_of("volumeMounts")? {
        let mut folders = mount.text_of("mountPath")?.split('/').filter(|folder| !["", "."].contains(folder));
        // What climbs may end there.
        let climbs = folders.clone().any(|folder| folder == "..");
        let is_audit = folders.next() == Some(AUDIT) || audit_volumes.contains(&mount.text_of("name")?);
        if (is_audit || climbs) && !mount.is_true("readOnly")? {
            return Err(mount.refuse(REASON));
        }
    }
    for device in container.parts_of("volumeDevices")? {
        if audit_volumes.contains(&device.text_of("name")?) {
            return Err(device.refuse(REASON));
        }
    }
    Ok(())
}

/// Adds the volumes that the pod does not have.
fn add_volumes<'a>(
    editor: &mut Editor<'_, 'a>,
    spec: &At<'_, 'a>,
    sidecar: &Sidecar,
    missing: &mut Vec<(&'static str, Value)>,
) -> Result<(), Refusal> {
    let mut added = Vec::new();
    for (wanted, source, member, given) in [
        (&sidecar.audit, "persistentVolumeClaim", "claimName", sidecar.claim_given),
        (&sidecar.config, "configMap", "name", sidecar.config_given),
    ] {
        let mut there = None;
        for volume in spec.parts_of("volumes")? {
            if volume.text_of("name")? == name_of(wanted) {
                there = Some(volume);
            }
        }
        let Some(volume) = there else {
            added.push(wanted.clone());
            continue;
        };
        let named = volume.member(source)?.map_or(Ok(""), |source| source.text_of(member))?;
        if given && wanted.get(source).and_then(|source| source.get(member)).and_then(Value::as_text) != Some(named) {
            return Err(volume.refuse(format!(
                "another volume is named `{}` already: remove it, or leave the flag out to use it",
                name_of(wanted)
            )));
        }
    }
    if added.is_empty() {
        return Ok(());
    }
    match spec.member("volumes")? {
        None => missing.push(("volumes", Value::List(added))),
        Some(list) => editor.insert_parts(&list, &added)?,
    }
    Ok(())
}

/// Sets the group of volumes, where one is wanted and none is set.
fn add_fs_group<'a>(
    editor: &mut Editor<'_, 'a>,
    spec: &At<'_, 'a>,
    sidecar: &Sidecar,
    missing: &mut Vec<(&'static str, Value)>,
) -> Result<(), Refusal> {
    let Some(group) = sidecar.fs_group else { return Ok(()) };
    let mut wanted = vec![
        ("fsGroup", Value::Plain(group.to_string())),
        // Else kubelet walks the whole claim at each start.
        ("fsGroupChangePolicy", Value::text("OnRootMismatch")),
    ];
    let Some(context) = spec.member("securityContext")? else {
        missing.push(("securityContext", Value::members(wanted)));
        return Ok(());
    };
    if context.member("fsGroup")?.is_some() {
        return Ok(());
    }
    if context.member("fsGroupChangePolicy")?.is_some() {
        wanted.pop();
    }
    match context.first_member() {
        Some(first) => editor.insert_members(&context, &first, &wanted),
        None => editor.set(&context, &Value::members(wanted)),
    }
}

/// Has what is sent to loopback go around proxies; and says where that can't be done.
fn add_no_proxy<'a>(editor: &mut Editor<'_, 'a>, container: &At<'_, 'a>) -> Result<Option<String>, Refusal> {
    let all = LOOPBACK.join(",");
    let mut is_set = false;
    for variable in container.parts_of("env")? {
        if !NO_PROXY.contains(&variable.text_of("name")?) {
            continue;
        }
        is_set = true;
        container.only_here()?;
        variable.only_here()?;
        if variable.member("valueFrom")?.is_some() {
            return Ok(Some(format!("{}: its value comes from elsewhere; see that it has {all}", variable.path)));
        }
        let Some(value) = variable.member("value")? else {
            // As kubectl prints an empty one.
            let first = variable.first_member().ok_or_else(|| variable.refuse("is empty"))?;
            editor.insert_members(&variable, &first, &[("value", Value::text(&all))])?;
            continue;
        };
        let hosts = if value.is_null() { "" } else { value.text() };
        let hosts: Vec<_> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
        let added: Vec<_> =
            LOOPBACK.into_iter().filter(|host| !hosts.contains(host) && !hosts.contains(&"*")).collect();
        if !added.is_empty() {
            editor.set(&value, &Value::text([hosts, added].concat().join(",")))?;
        }
    }
    if is_set {
        return Ok(None);
    }
    if !container.parts_of("envFrom")?.is_empty() {
        let path = &container.path;
        return Ok(Some(format!("{path}.envFrom: may set NO_PROXY, which is left alone; see that it has {all}")));
    }
    container.only_here()?;
    let variables = NO_PROXY.map(|name| Value::map([("name", Value::text(name)), ("value", Value::text(&all))]));
    if let Some(list) = container.member("env")? {
        editor.insert_parts(&list, &variables)?;
        return Ok(None);
    }
    // After the lines that say what it is.
    let before = container.members().find(|member| !["name", "image"].contains(&member.key_text()));
    let before = before.or_else(|| container.first_member()).ok_or_else(|| container.refuse("is empty"))?;
    editor.insert_members(container, &before, &[("env", Value::List(variables.into()))])?;
    Ok(None)
}

//! Manifests: valid, the sidecar's container in each, and no trap in them that schemas don't see.

use std::path::PathBuf;
use std::process::Command;

use audit_log::inject::{Options, inject};
use k8s_openapi::api::{admissionregistration, apps, batch, core, networking};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::tool;
use crate::{documents, read, root, sidecar, volumes};

/// Manifests as they are applied: files of `deploy`, and what injection makes.
fn manifests() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = ["deploy/examples", "deploy/policy", "tests/deploy/golden"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.to_string_lossy().contains(".in."))
        .collect();
    files.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The objects of manifests, those of lists included.
fn objects(text: &str) -> Vec<Value> {
    let flat = |object: Value| {
        let Some(items) = object["items"].as_array() else { return vec![object] };
        let (version, kind) =
            (object["apiVersion"].clone(), object["kind"].as_str().unwrap().strip_suffix("List").unwrap());
        let typed = |item: &Value| {
            let mut item = item.clone();
            if !kind.is_empty() {
                item["apiVersion"] = version.clone();
                item["kind"] = json!(kind);
            }
            item
        };
        items.iter().map(typed).collect()
    };
    documents(text).into_iter().filter(|object| !object.is_null()).flat_map(flat).collect()
}

/// The pod that an object makes.
fn pod(object: &Value) -> Option<&Value> {
    let template = match object["kind"].as_str()? {
        "Pod" => object,
        "Job" | "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => &object["spec"]["template"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    Some(&template["spec"])
}

fn parts<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// What is wrong with a pod that has the sidecar, beyond what schemas see.
fn faults(pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |good: bool, fault: String| {
        if !good {
            faults.push(fault);
        }
    };
    let containers = || parts(pod, "initContainers").iter().chain(parts(pod, "containers"));
    for container in containers() {
        let name = &container["name"];
        for mount in parts(container, "volumeMounts") {
            let is_there = parts(pod, "volumes").iter().any(|volume| volume["name"] == mount["name"]);
            must(is_there, format!("{name}: {} has no volume", mount["name"]));
            let of_config = mount["mountPath"] == "/etc/cloud";
            let whole = mount["subPath"].is_null() && mount["subPathExpr"].is_null();
            must(!of_config || whole, format!("{name}: a file that is mounted alone never changes"));
        }
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let reached = container[probe].is_null() || container[probe]["exec"]["command"].is_array();
            must(reached, format!("{name}: {probe} can't reach loopback"));
        }
        // Pod Security Standards, "restricted".
        let context = &container["securityContext"];
        for (member, wanted) in [
            ("/runAsNonRoot", json!(true)),
            ("/allowPrivilegeEscalation", json!(false)),
            ("/readOnlyRootFilesystem", json!(true)),
            ("/capabilities/drop", json!(["ALL"])),
            ("/capabilities/add", Value::Null),
            ("/seccompProfile/type", json!("RuntimeDefault")),
            ("/privileged", Value::Null),
        ] {
            let found = context.pointer(member).unwrap_or(&Value::Null);
            must(*found == wanted, format!("{name}: securityContext{member} is {found}"));
        }
        must(context["runAsUser"].as_u64().is_some_and(|user| user > 0), format!("{name}: no user"));
        for (amount, of) in ["requests", "limits"].into_iter().flat_map(|of| [("cpu", of), ("memory", of)]) {
            must(container["resources"][of][amount].is_string(), format!("{name}: no {amount} in {of}"));
        }
    }
    for member in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
        must(pod[member].is_null(), format!("{member} is set"));
    }
    for volume in parts(pod, "volumes") {
        let kinds = ["configMap", "emptyDir", "persistentVolumeClaim"];
        must(
            kinds.iter().any(|kind| volume[kind].is_object()),
            format!("{}: not of a restricted kind", volume["name"]),
        );
    }
    let sidecars: Vec<_> = containers().filter(|container| container["name"] == "audit-log").collect();
    must(sidecars.len() == 1, format!("{} sidecars", sidecars.len()));
    if let Some(first) = parts(pod, "initContainers").first() {
        must(first["name"] == "audit-log", "the sidecar is not the first".to_owned());
        must(first["restartPolicy"] == "Always", "the sidecar is none".to_owned());
    }
    let writers = containers().filter(|container| {
        parts(container, "volumeMounts").iter().any(|mount| mount["name"] == "audit-log" && mount["readOnly"] != true)
    });
    must(writers.count() == 1, "/audit has not one writer".to_owned());
    faults
}

/// The examples that are a Job with the sidecar.
pub(crate) const JOBS: [&str; 4] = ["job", "job-read-only", "job-own-folder", "indexed-job"];

/// The pod of the last object of an example.
pub(crate) fn example(name: &str) -> Value {
    let text = read(&format!("deploy/examples/{name}.yaml"));
    pod(documents(&text).last().unwrap()).unwrap().clone()
}

#[test]
fn the_examples_have_the_sidecar_word_for_word() {
    for name in JOBS {
        let pod = example(name);
        assert_eq!(pod["initContainers"], json!([sidecar("job")]), "{name}");
        assert_eq!(pod["volumes"], json!(volumes()), "{name}");
        let text = read(&format!("deploy/examples/{name}.yaml"));
        let (_, job) = text.rsplit_once("apiVersion: batch/v1\n").unwrap();
        let injected = inject(&format!("apiVersion: batch/v1\n{job}"), &Options::default()).unwrap();
        assert_eq!(injected.text, format!("apiVersion: batch/v1\n{job}"), "{name}: injection would add something");
    }
    let version = format!("audit-log:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(sidecar("job")["image"], version.as_str());
    let sweep = example("sweep");
    assert_eq!(sweep["containers"][0]["image"], version.as_str());
    assert_eq!(sweep["volumes"], json!(volumes()));
    let port = &sidecar("job")["ports"][0];
    let policy = &documents(&read("deploy/examples/network-policy.yaml"))[0];
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], port["containerPort"]);
    let monitor = &documents(&read("deploy/examples/pod-monitor.yaml"))[0];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], port["name"]);
    let listens = format!("--metrics-listen=0.0.0.0:{}", port["containerPort"]);
    assert_eq!(sidecar("job")["command"][2], listens.as_str());
}

#[test]
fn the_examples_have_no_fault_that_schemas_do_not_see() {
    for name in JOBS {
        assert_eq!(faults(&example(name)), Vec::<String>::new(), "{name}");
    }
    let sweep = faults(&example("sweep"));
    assert_eq!(sweep, ["0 sidecars"]);
    // Each fault is found: one change of a good pod.
    for (member, value, expected) in [
        ("/initContainers/0/volumeMounts/0/name", json!("x"), "\"audit-log\": \"x\" has no volume"),
        (
            "/initContainers/0/volumeMounts/1/subPath",
            json!("config.yaml"),
            "\"audit-log\": a file that is mounted alone never changes",
        ),
        (
            "/initContainers/0/livenessProbe",
            json!({"httpGet": {"port": 48291}}),
            "\"audit-log\": livenessProbe can't reach loopback",
        ),
        (
            "/initContainers/0/securityContext/runAsNonRoot",
            json!(null),
            "\"audit-log\": securityContext/runAsNonRoot is null",
        ),
        (
            "/containers/0/securityContext/capabilities/drop",
            json!([]),
            "\"job\": securityContext/capabilities/drop is []",
        ),
        (
            "/containers/0/securityContext/capabilities/add",
            json!(["CHOWN"]),
            "\"job\": securityContext/capabilities/add is [\"CHOWN\"]",
        ),
        ("/containers/0/securityContext/runAsUser", json!(0), "\"job\": no user"),
        ("/containers/0/resources/limits/memory", json!(null), "\"job\": no memory in limits"),
        ("/hostNetwork", json!(true), "hostNetwork is set"),
        (
            "/volumes/0",
            json!({"name": "audit-log", "hostPath": {"path": "/"}}),
            "\"audit-log\": not of a restricted kind",
        ),
        ("/initContainers/0/name", json!("other"), "0 sidecars"),
        ("/initContainers/0/restartPolicy", json!("always"), "the sidecar is none"),
        ("/containers/0/volumeMounts", json!([{"name": "audit-log", "mountPath": "/x"}]), "/audit has not one writer"),
    ] {
        let mut pod = example("job");
        let (parent, name) = member.rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap() {
            Value::Array(parts) => parts[name.parse::<usize>().unwrap()] = value,
            parent => parent[name] = value,
        }
        let found = faults(&pod);
        assert!(found.iter().any(|fault| fault == expected), "{member}: {found:?}");
    }
}

/// An object through the API's own type: what the type does not know is lost.
fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}\n{object:#}"));
    serde_json::to_value(typed).unwrap()
}

fn through_types(object: &Value) -> Option<Value> {
    Some(match (object["apiVersion"].as_str()?, object["kind"].as_str()?) {
        ("v1", "Pod") => through::<core::v1::Pod>(object),
        ("v1", "ConfigMap") => through::<core::v1::ConfigMap>(object),
        ("v1", "Service") => through::<core::v1::Service>(object),
        ("v1", "PersistentVolumeClaim") => through::<core::v1::PersistentVolumeClaim>(object),
        ("batch/v1", "Job") => through::<batch::v1::Job>(object),
        ("batch/v1", "CronJob") => through::<batch::v1::CronJob>(object),
        ("apps/v1", "Deployment") => through::<apps::v1::Deployment>(object),
        ("apps/v1", "StatefulSet") => through::<apps::v1::StatefulSet>(object),
        ("apps/v1", "DaemonSet") => through::<apps::v1::DaemonSet>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<networking::v1::NetworkPolicy>(object),
        ("admissionregistration.k8s.io/v1", kind) => {
            use admissionregistration::v1;
            match kind {
                "MutatingAdmissionPolicy" => through::<v1::MutatingAdmissionPolicy>(object),
                "MutatingAdmissionPolicyBinding" => through::<v1::MutatingAdmissionPolicyBinding>(object),
                "ValidatingAdmissionPolicy" => through::<v1::ValidatingAdmissionPolicy>(object),
                "ValidatingAdmissionPolicyBinding" => through::<v1::ValidatingAdmissionPolicyBinding>(object),
                _ => return None,
            }
        }
        _ => return None,
    })
}

#[test]
fn manifests_are_what_the_types_of_the_api_hold() {
    let mut count = 0;
    for (file, text) in manifests() {
        for object in objects(&text) {
            // Of the Prometheus operator, and not of Kubernetes.
            if object["kind"] == "PodMonitor" {
                continue;
            }
            let typed = through_types(&object).unwrap_or_else(|| panic!("{file}: {} of what type?", object["kind"]));
            assert_eq!(without_nulls(typed), without_nulls(object), "{file}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count} objects");
    let mut misspelt = documents(&read("deploy/examples/sweep.yaml")).remove(0);
    misspelt["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = json!([]);
    assert_ne!(through_types(&misspelt).unwrap(), misspelt);
}

/// Types leave out what is null or an empty list.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, without_nulls(value)))
            .filter(|(_, value)| !value.is_null() && *value != json!([]))
            .collect(),
        Value::Array(parts) => parts.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// By the schemas of each version that is supported. The mutating policy is served from 1.36 on.
#[test]
fn manifests_are_valid_in_every_supported_version() {
    if !tool("kubernetes-validate") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for version in ["1.33", "1.34", "1.35", "1.36", "1.37"] {
        let mut files = Vec::new();
        for (index, (_, text)) in manifests().iter().enumerate() {
            let known = objects(text).into_iter().filter(|object| {
                let kind = object["kind"].as_str().unwrap();
                let served = !kind.starts_with("Mutating") || ["1.36", "1.37"].contains(&version);
                // Its schema is the Prometheus operator's.
                served && kind != "PodMonitor"
            });
            for (number, object) in known.enumerate() {
                let file = temp.path().join(format!("{version}-{index}-{number}.json"));
                std::fs::write(&file, object.to_string()).unwrap();
                files.push(file);
            }
        }
        assert!(files.len() >= 15, "{} objects", files.len());
        let output = validate(version, &files);
        let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !told.contains("WARN") && !told.contains("ERROR"), "{version}: {told}");
    }
    let bad = temp.path().join("bad.json");
    std::fs::write(
        &bad,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"container": []}}).to_string(),
    )
    .unwrap();
    assert!(!validate("1.37", &[bad]).status.success());
}

fn validate(version: &str, files: &[PathBuf]) -> std::process::Output {
    Command::new("kubernetes-validate").args(["--strict", "-k", version]).args(files).output().unwrap()
}

/// A patch of the component: what injection adds to an object of that kind.
fn patch(version: &str, kind: &str, way: &[&str]) -> String {
    let way_lines: String = way.iter().enumerate().map(|(depth, name)| "  ".repeat(depth) + name + ":\n").collect();
    let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: any\n{way_lines}");
    let containers = format!("{}containers:\n", "  ".repeat(way.len()));
    let injected = inject(&format!("{text}{containers}{}- name: any\n", "  ".repeat(way.len())), &Options::default());
    let injected = injected.unwrap().text;
    let (patch, _) = injected.split_once(&containers).unwrap();
    format!("# From deploy/chart/sidecar.yaml: `BLESS=1 cargo test --test deploy` writes it.\n{patch}")
}

/// With `BLESS=1` in the environment the patches are written anew.
#[test]
fn the_kustomize_component_is_what_injection_adds() {
    for (file, version, kind, way) in [
        ("job", "batch/v1", "Job", ["spec", "template", "spec"].as_slice()),
        ("cron-job", "batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template", "spec"]),
        ("template", "apps/v1", "Deployment", &["spec", "template", "spec"]),
        ("pod", "v1", "Pod", &["spec"]),
    ] {
        let file = format!("deploy/kustomize/{file}.yaml");
        let patch = patch(version, kind, way);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(root().join(&file), &patch).unwrap();
        }
        assert_eq!(patch, read(&file), "{file}");
    }
}

#[test]
fn kustomize_gives_every_kind_of_pod_the_sidecar() {
    if !tool("kubectl") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let copied =
        Command::new("cp").arg("-r").arg(root().join("deploy/kustomize")).arg(temp.path().join("component")).status();
    assert!(copied.unwrap().success());
    let own = json!({
        "containers": [{"name": "a", "image": "a:1", "env": [{"name": "A", "value": "b"}]}],
        "initContainers": [{"name": "first", "image": "f:1"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let bare = json!({"containers": [{"name": "a", "image": "a:1"}]});
    let mut objects = Vec::new();
    for (name, spec) in [("own", &own), ("bare", &bare)] {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
        let object = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        objects.push(object("v1", "Pod", spec.clone()));
        objects.push(object("batch/v1", "Job", json!({"template": template})));
        objects.push(object(
            "batch/v1",
            "CronJob",
            json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
        ));
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"] {
            objects.push(object("apps/v1", kind, json!({"template": template})));
        }
        objects.push(object("v1", "Service", json!({"clusterIP": "None"})));
        // Another maker's Job is none of ours.
        objects.push(object("batch.volcano.sh/v1alpha1", "Job", json!({"template": template})));
    }
    let all: Vec<_> = objects.iter().map(Value::to_string).collect();
    std::fs::create_dir(temp.path().join("app")).unwrap();
    std::fs::write(temp.path().join("app/objects.yaml"), all.join("\n---\n")).unwrap();
    std::fs::write(
        temp.path().join("app/kustomization.yaml"),
        "resources: [objects.yaml]\ncomponents: [../component]\nimages: [{name: audit-log, newName: r.example/a, newTag: '5'}]\n",
    )
    .unwrap();
    let output = Command::new("kubectl").arg("kustomize").arg(temp.path().join("app")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = documents(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(made.len(), objects.len());
    for before in &objects {
        let same =
            |object: &&Value| ["kind", "apiVersion", "metadata"].iter().all(|member| object[member] == before[member]);
        let after = made.iter().find(same).unwrap();
        let ours = !before["apiVersion"].as_str().unwrap().contains("volcano");
        let Some(pod_before) = pod(before).filter(|_| ours) else {
            assert_eq!(after, before);
            continue;
        };
        let kind = before["kind"].as_str().unwrap();
        let mut container = sidecar(if kind.ends_with("Job") { "job" } else { "pod" });
        container["image"] = json!("r.example/a:5");
        let mut expected = pod_before.clone();
        expected["initContainers"] = json!([&[container], parts(pod_before, "initContainers")].concat());
        let after = pod(after).unwrap();
        assert_eq!(after["initContainers"], expected["initContainers"], "{kind}");
        assert_eq!(after["containers"], expected["containers"], "{kind}");
        for volume in volumes().iter().chain(parts(pod_before, "volumes")) {
            assert!(parts(after, "volumes").contains(volume), "{kind}: {volume}");
        }
    }
}

//! The chart: what its values change, and what they can't be.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::policy::cluster::{Cluster, Request, list, text};
use crate::policy::{INJECT, bare};
use crate::read;
use crate::support::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Turns on everything that is off by default.
const ALL: &str = "sweep.enabled=true,podMonitor.enabled=true,claim.create=true,retentionPeriodInDays=180";

fn helm(args: &[&str]) -> Output {
    Command::new("helm").args(args).current_dir(ROOT).output().unwrap()
}

/// What the chart makes with some values, beside those of [`ALL`].
fn render(values: &[&str]) -> String {
    let mut args = vec!["template", "audit-log", "deploy/chart", "--kube-version", "1.36.0", "--set", ALL];
    args.extend(values.iter().flat_map(|value| ["--set", value]));
    let output = helm(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The documents by kind and name.
fn documents(manifests: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    documents
        .into_iter()
        .map(|document| (format!("{}/{}", text(&document["kind"]), text(&document["metadata"]["name"])), document))
        .collect()
}

fn sweep_pod(manifests: &str) -> Value {
    let spec = &documents(manifests)["CronJob/audit-log-sweep"]["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    json!({"metadata": {"name": "sweep-1", "labels": {"batch.kubernetes.io/job-name": "sweep"}}, "spec": spec})
}

#[test]
fn the_policies_without_helm_are_the_chart_s() {
    if !tool("helm") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let status = Command::new(format!("{ROOT}/ci/render")).arg(temp.path()).status().unwrap();
    assert!(status.success());
    for file in ["mutating.yaml", "validating.yaml"] {
        let rendered = std::fs::read_to_string(temp.path().join(file)).unwrap();
        assert!(rendered == read(&format!("deploy/policy/{file}")), "ci/render makes another {file}");
    }
}

#[test]
fn the_chart_is_of_the_package_s_version() {
    let chart: Value = serde_saphyr::from_str(&read("deploy/chart/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let parts: Value = serde_saphyr::from_str(&read("deploy/chart/sidecar.yaml")).unwrap();
    assert_eq!(parts["container"]["image"], concat!("audit-log:", env!("CARGO_PKG_VERSION")));
}

#[test]
fn helm_has_nothing_to_say_against_the_chart() {
    if !tool("helm") {
        return;
    }
    let output = helm(&["lint", "--strict", "--kube-version", "1.36.0", "--set", ALL, "deploy/chart"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
}

/// A value changes the lines that hold it, in both policies and in the sweep, and no other.
#[test]
fn a_value_changes_the_policies_and_the_sweep_alike() {
    if !tool("helm") {
        return;
    }
    let before = render(&[]);
    let image = "registry.example/audit-log@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for (value, old, new) in [
        ("image", "audit-log:0.1.0", image),
        ("claim.name", "audit-log", "evidence"),
        ("configMap.name", "audit-log", "retention"),
        ("resources.limits.memory", "128Mi", "256Mi"),
    ] {
        let set = &format!("{value}={new}");
        let compared = !set.starts_with("resources");
        let after = render(&[set]);
        assert_eq!(before.lines().count(), after.lines().count(), "{set}");
        let mut changed = BTreeMap::<&str, usize>::new();
        let mut file = "";
        for (was, is) in before.lines().zip(after.lines()) {
            if let Some(source) = was.strip_prefix("# Source: audit-log/templates/") {
                file = source;
            }
            if was != is {
                assert_eq!(is.replace(new, old), was, "{set}");
                *changed.entry(file).or_default() += 1;
            }
        }
        assert_eq!(changed.get("sweep.yaml"), Some(&1), "{set}: {changed:?}");
        assert!(changed.contains_key("mutating.yaml"), "{set}: {changed:?}");
        assert_eq!(changed.contains_key("validating.yaml"), compared, "{set}: {changed:?}");

        // What it injects, it accepts; and its sweep goes without.
        let cluster = Cluster::new(&after);
        let pod = cluster.mutate(&Request::create(&bare()));
        assert!(pod.to_string().contains(new), "{set}");
        assert_eq!(cluster.refusals(&Request::create(&pod)), [].into(), "{set}");
        let sweep = Request::create(&sweep_pod(&after)).in_namespace(INJECT);
        assert_eq!(cluster.mutate(&sweep), sweep.object, "{set}");
        assert_eq!(cluster.refusals(&sweep), [].into(), "{set}");
        // What the default injects, it refuses, if that is compared.
        let other = Cluster::new(&before).mutate(&Request::create(&bare()));
        let refused = !cluster.refusals(&Request::create(&other)).is_empty();
        assert_eq!(refused, compared, "{set}");
    }
}

/// During an upgrade manifests have the image of before, and a sweep runs with it.
#[test]
fn an_accepted_image_is_taken_beside_the_image() {
    if !tool("helm") {
        return;
    }
    let before = render(&[]);
    let [during, after] = [
        &["image=audit-log:0.2.0", "acceptedImages={audit-log:0.0.9,audit-log:0.1.0}"][..],
        &["image=audit-log:0.2.0"],
    ]
    .map(|values| Cluster::new(&render(values)));
    let pod = Cluster::new(&before).mutate(&Request::create(&bare()));
    let old = Request::create(&pod);
    let sweep = Request::create(&sweep_pod(&before)).in_namespace(INJECT);
    let mut other = old.clone();
    other.object["spec"]["initContainers"][0]["image"] = json!("audit-log:0.3.0");
    let mut other_sweep = sweep.clone();
    other_sweep.object["spec"]["containers"][0]["image"] = json!("audit-log:0.3.0");

    for request in [&old, &sweep] {
        assert_eq!(during.refusals(request), [].into());
        assert_eq!(during.mutate(request), request.object);
    }
    let given = during.mutate(&Request::create(&bare()));
    assert_eq!(given["spec"]["initContainers"][0]["image"], "audit-log:0.2.0");
    assert_eq!(during.refusals(&Request::create(&given)), [].into());

    let another = "the sidecar has another image: it must be `audit-log:0.2.0`; see docs/KUBERNETES.md";
    for (cluster, pod, sweep) in
        [(&during, &other, &other_sweep), (&after, &old, &sweep), (&after, &other, &other_sweep)]
    {
        assert_eq!(cluster.refusals(pod), [another.to_owned()].into());
        assert!(cluster.refusals(sweep).iter().any(|refusal| refusal.starts_with("the pod has no")));
        assert_eq!(cluster.mutate(sweep)["spec"]["initContainers"][0]["name"], "audit-log");
    }
}

#[test]
fn a_group_is_given_to_pods_without_one() {
    if !tool("helm") {
        return;
    }
    let (before, after) = (documents(&render(&[])), documents(&render(&["fsGroup=0"])));
    for (name, document) in &before {
        let changes =
            ["MutatingAdmissionPolicy/inject.audit-log.dev", "CronJob/audit-log-sweep"].contains(&name.as_str());
        assert_eq!(document != &after[name], changes, "{name}");
    }
    let manifests = render(&["fsGroup=0"]);
    // Without the policy kubelet would walk the whole claim at each start.
    let given = json!({"fsGroup": 0, "fsGroupChangePolicy": "OnRootMismatch"});
    assert_eq!(sweep_pod(&manifests)["spec"]["securityContext"], given);
    // A large one in a file of values is a floating-point number to helm.
    let values = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(values.path(), "fsGroup: 1000650000").unwrap();
    let file = values.path().to_str().unwrap();
    let output = helm(&["template", "audit-log", "deploy/chart", "--kube-version", "1.36.0", "--set", ALL, "-f", file]);
    let large = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        large,
        manifests
            .replace("fsGroup: 0", "fsGroup: 1000650000")
            .replace("value: 0}", "value: 1000650000}")
            .replace("\"fsGroup\": dyn(0)", "\"fsGroup\": dyn(1000650000)")
    );
    let cluster = Cluster::new(&manifests);
    for (theirs, made) in [
        (Value::Null, given.clone()),
        (json!({}), given.clone()),
        (json!({"runAsUser": 7}), json!({"runAsUser": 7, "fsGroup": 0, "fsGroupChangePolicy": "OnRootMismatch"})),
        (json!({"fsGroupChangePolicy": "Always"}), json!({"fsGroup": 0, "fsGroupChangePolicy": "Always"})),
        (json!({"fsGroup": 7}), json!({"fsGroup": 7})),
        (
            json!({"fsGroup": 7, "fsGroupChangePolicy": "Always"}),
            json!({"fsGroup": 7, "fsGroupChangePolicy": "Always"}),
        ),
    ] {
        let mut pod = bare();
        if !theirs.is_null() {
            pod["spec"]["securityContext"] = theirs;
        }
        let pod = cluster.mutate(&Request::create(&pod));
        assert_eq!(pod["spec"]["securityContext"], made);
        assert_eq!(cluster.refusals(&Request::create(&pod)), [].into());
    }
}

#[test]
fn what_is_off_is_not_there() {
    if !tool("helm") {
        return;
    }
    let policies = ["mutatingPolicy.enabled=false", "validatingPolicy.enabled=false"];
    let rest: Vec<_> = documents(&render(&policies)).into_keys().collect();
    let expected =
        ["ConfigMap/audit-log", "CronJob/audit-log-sweep", "PersistentVolumeClaim/audit-log", "PodMonitor/audit-log"];
    assert_eq!(rest, expected);
    let all = "sweep.enabled=false,podMonitor.enabled=false,claim.create=false,retentionPeriodInDays=null";
    assert!(documents(&render(&[all])).keys().all(|name| name.contains("AdmissionPolicy")));
}

#[test]
fn the_config_map_is_what_the_sidecar_reads() {
    if !tool("helm") {
        return;
    }
    let config = &documents(&render(&[]))["ConfigMap/audit-log"]["data"]["config.yaml"];
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text(config)).unwrap();
    let status = crate::support::binary().arg("check-config").arg(file.path()).status().unwrap();
    assert!(status.success(), "{config}");
    let config: Value = serde_saphyr::from_str(text(config)).unwrap();
    assert_eq!(config, json!({"provider": {"auditLog": {"retentionPeriodInDays": 180}}}));
}

#[test]
fn a_bad_value_is_refused_by_its_name() {
    if !tool("helm") {
        return;
    }
    for (value, name) in [
        ("image=audit log", "/image"),
        ("image=", "/image"),
        ("image=audit-log@sha256:0123", "/image"),
        ("acceptedImages=audit-log:0.1.0", "/acceptedImages"),
        ("acceptedImages={audit-log:0.1.0,audit log}", "/acceptedImages/1"),
        ("acceptedImages={audit-log@sha256:0123}", "/acceptedImages/0"),
        ("acceptedImages=null", "acceptedImages"),
        ("resources.limits.memory=lots", "/resources/limits/memory"),
        ("resources.claims=1", "/resources"),
        ("fsGroup=staff", "/fsGroup"),
        ("fsGroup=-1", "/fsGroup"),
        ("retentionPeriodInDays=0", "/retentionPeriodInDays"),
        ("retentionPeriodInDays=36501", "/retentionPeriodInDays"),
        ("configMap.name=Audit", "/configMap/name"),
        ("claim.name=a_b", "/claim/name"),
        ("claim.accessModes={ReadOnlyMany}", "/claim/accessModes"),
        ("claim.size=big", "/claim/size"),
        ("sweep.schedule=daily", "/sweep/schedule"),
        ("mutatingPolicy.enabled=maybe", "/mutatingPolicy/enabled"),
        ("retentionDays=180", "retentionDays"),
        ("sweep.shedule=x", "shedule"),
    ] {
        let output = helm(&["template", "audit-log", "deploy/chart", "--kube-version", "1.36.0", "--set", value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("schema") && said.contains(name), "{value}: {said}");
    }
}

#[test]
fn an_older_kubernetes_is_told_what_it_lacks() {
    if !tool("helm") {
        return;
    }
    let template =
        |values: &str| helm(&["template", "audit-log", "deploy/chart", "--kube-version", "1.35.9", "--set", values]);
    let output = template("mutatingPolicy.enabled=true");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("mutatingPolicy needs Kubernetes 1.36"), "{said}");
    assert!(template("mutatingPolicy.enabled=false").status.success());
}

/// Against the schemas of each Kubernetes that is looked after, with no field too many.
#[test]
fn every_manifest_is_valid_for_every_kubernetes() {
    if !tool("helm") || !tool("kubernetes-validate") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let documents = documents(&render(&["fsGroup=0"]));
    for version in ["1.33.0", "1.34.0", "1.35.0", "1.36.0", "1.37.0"] {
        let mut files = Vec::new();
        for (name, document) in &documents {
            // The PodMonitor's schema is its operator's.
            let mutating = name.starts_with("MutatingAdmissionPolicy");
            if name.starts_with("PodMonitor/") || mutating && version < "1.36" {
                continue;
            }
            let file = temp.path().join(format!("{}.yaml", name.replace('/', "-")));
            std::fs::write(&file, document.to_string()).unwrap();
            files.push(file);
        }
        let output =
            Command::new("kubernetes-validate").args(["--strict", "-k", version]).args(&files).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // It only warns where it knows no schema.
        let passed = said.matches("passed for resource").count();
        assert!(output.status.success() && passed == files.len(), "{version}: {said}");
    }
    assert_eq!(
        list(&documents["PodMonitor/audit-log"]["spec"]["podMetricsEndpoints"]),
        [json!({"port": "audit-metrics"})]
    );
}

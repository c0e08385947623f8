//! The admission policies: who gets the sidecar, and who is refused.

pub(crate) mod cluster;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cluster::{Cluster, Request, list, text};
use serde_json::{Value, json};

use crate::manifests::{JOBS, example};
use crate::support::tool;
use crate::{documents, read};

pub(crate) const INJECT: &str = "audit-log.dev/inject";
const LOCKED: &str = "audit-log.dev/locked";

/// One with the policies as they are applied without Helm.
fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
        Cluster::new(&(read("deploy/policy/mutating.yaml") + "---\n" + &read("deploy/policy/validating.yaml")))
    });
    &CLUSTER
}

fn parts() -> Value {
    serde_saphyr::from_str(&read("deploy/chart/sidecar.yaml")).unwrap()
}

/// A labelled pod as someone writes it.
pub(crate) fn bare() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train", "namespace": "research", "labels": {INJECT: "true"}},
        "spec": {"containers": [{"name": "job", "image": "train:1"}]},
    })
}

/// A pod that has the sidecar.
fn good() -> Value {
    static GOOD: LazyLock<Value> = LazyLock::new(|| cluster().mutate(&Request::create(&bare())));
    GOOD.clone()
}

fn with(pod: &Value, changes: &[(&str, Value)]) -> Value {
    let mut pod = pod.clone();
    for (path, value) in changes {
        set(&mut pod, path, value.clone());
    }
    pod
}

/// Sets what is at a path; its end may be missing, and be `-` to append. Null removes.
fn set(pod: &mut Value, path: &str, value: Value) {
    let (parent, last) = path.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/");
    match pod.pointer_mut(parent).unwrap_or_else(|| panic!("nothing is at {parent}")) {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) if value.is_null() => drop(items.remove(last.parse().unwrap())),
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => assert!(fields.remove(&last).is_some(), "{path} is there"),
        Value::Object(fields) => drop(fields.insert(last, value)),
        other => panic!("{other} has no members"),
    }
}

/// Asserts that a request is refused with the one message that begins so, and returns it.
#[track_caller]
fn refused(cluster: &Cluster, request: &Request, message: &str, what: &str) -> String {
    let refusals = cluster.refusals(request);
    assert!(
        refusals.len() == 1 && refusals.iter().all(|refusal| refusal.starts_with(message)),
        "{what}: {refusals:#?}"
    );
    let refusal = refusals.into_iter().next().unwrap();
    assert!(refusal.ends_with("see docs/KUBERNETES.md"), "{refusal}");
    refusal
}

#[track_caller]
fn accepted(cluster: &Cluster, request: &Request, what: &str) {
    assert_eq!(cluster.refusals(request), BTreeSet::new(), "{what}");
}

/// Pods of every kind that come to the API server.
fn pods() -> Vec<(&'static str, Value, &'static str)> {
    let of_a_job = json!({INJECT: "true", "batch.kubernetes.io/job-name": "train"});
    let of_an_indexed_job = with(&of_a_job, &[("/batch.kubernetes.io~1job-completion-index", json!("3"))]);
    let of_a_stateful_set = json!({INJECT: "true", "apps.kubernetes.io/pod-index": "2"});
    vec![
        ("bare", bare(), "pod"),
        ("of a Job", with(&bare(), &[("/metadata/labels", of_a_job)]), "job"),
        ("of an Indexed Job", with(&bare(), &[("/metadata/labels", of_an_indexed_job)]), "job"),
        ("of a StatefulSet", with(&bare(), &[("/metadata/labels", of_a_stateful_set)]), "pod"),
        ("without labels", with(&bare(), &[("/metadata/labels", Value::Null)]), "pod"),
        (
            "with annotations",
            with(&bare(), &[("/metadata/annotations", json!({"audit-log.dev/workspace-id": "w"}))]),
            "pod",
        ),
        (
            "with init containers",
            with(&bare(), &[("/spec/initContainers", json!([{"name": "fetch", "image": "fetch:1"}]))]),
            "pod",
        ),
        ("with volumes", with(&bare(), &[("/spec/volumes", json!([{"name": "work", "emptyDir": {}}]))]), "pod"),
        ("with a security context", with(&bare(), &[("/spec/securityContext", json!({"fsGroup": 7}))]), "pod"),
        (
            "that reads the audit log",
            with(
                &bare(),
                &[
                    ("/spec/volumes", json!([{"name": "work", "emptyDir": {}}, parts()["volumes"][0]])),
                    (
                        "/spec/containers/0/volumeMounts",
                        json!([{"name": "audit-log", "mountPath": "/audit", "readOnly": true}]),
                    ),
                ],
            ),
            "pod",
        ),
    ]
}

/// The sidecar is what sidecar.yaml says, first of the init containers, and nothing else changes.
/// By hand, by `inject` or by the policy: the sidecar is the same.
#[test]
fn pods_of_the_examples_are_accepted_as_they_are() {
    let of_a_job = json!({INJECT: "true", "batch.kubernetes.io/job-name": "example"});
    for name in JOBS.into_iter().chain(["sweep"]) {
        let pod = json!({"metadata": {"name": name, "labels": of_a_job}, "spec": example(name)});
        let request = Request::create(&pod).in_namespace(INJECT);
        assert_eq!(cluster().mutate(&request), request.object, "{name}");
        accepted(cluster(), &request, name);
    }
}

#[test]
fn pods_that_are_to_have_the_sidecar_get_it_once() {
    let (cluster, parts) = (cluster(), parts());
    for (what, pod, identity) in pods() {
        let labelled = pod["metadata"]["labels"][INJECT] == "true";
        let mut request = Request::create(&pod);
        if !labelled {
            assert_eq!(cluster.mutate(&request), pod, "{what}, in a namespace without the label");
            accepted(cluster, &request, what);
        }
        for by_namespace in [false, true] {
            if by_namespace {
                request = request.in_namespace(INJECT);
            } else if !labelled {
                continue;
            }
            let made = cluster.mutate(&request);

            let mut container = parts["container"].clone();
            let env = [list(&parts["identity"][identity]), list(&container["env"])].concat();
            container["env"] = env.into();
            let theirs = list(&pod["spec"]["volumes"]);
            let volumes =
                list(&parts["volumes"]).iter().filter(|ours| theirs.iter().all(|v| v["name"] != ours["name"]));
            let mut expected = pod.clone();
            expected["spec"]["volumes"] = theirs.iter().chain(volumes).cloned().collect();
            let inits = list(&pod["spec"]["initContainers"]);
            expected["spec"]["initContainers"] = std::iter::once(&container).chain(inits).cloned().collect();
            assert_eq!(made, expected, "{what}");

            let request = Request { object: made.clone(), ..request.clone() };
            accepted(cluster, &request, what);
            assert_eq!(cluster.mutate(&request), made, "{what}: twice is once");
        }
    }
}

/// The API server has filled in defaults and the token's mount by the time that policies look.
#[test]
fn what_the_api_server_adds_is_accepted() {
    let mut pod = good();
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = json!({"name": "kube-api-access", "mountPath": path, "readOnly": true});
    set(&mut pod, "/spec/volumes/-", json!({"name": "kube-api-access", "projected": {"sources": []}}));
    set(&mut pod, "/spec/containers/0/volumeMounts", json!([token]));
    set(&mut pod, "/spec/initContainers/0/volumeMounts/-", token);
    for field in ["terminationMessagePath", "imagePullPolicy"] {
        set(&mut pod, &format!("/spec/initContainers/0/{field}"), json!("some"));
    }
    for env in pod.pointer_mut("/spec/initContainers/0/env").unwrap().as_array_mut().unwrap() {
        env["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        set(&mut pod, &format!("/spec/initContainers/0/{probe}/successThreshold"), json!(1));
    }
    set(&mut pod, "/spec/securityContext", json!({}));
    accepted(cluster(), &Request::create(&pod), "with defaults");
}

/// What may differ from the given shape.
#[test]
fn other_shapes_of_a_good_pod_are_accepted() {
    let sidecar = "/spec/initContainers/0";
    let env: Value = list(&good()["spec"]["initContainers"][0]["env"]).iter().rev().cloned().collect();
    let reads = json!([
        {"name": "audit-log", "mountPath": "/mine", "readOnly": true},
        {"name": "audit-log-config", "mountPath": "/x"},
    ]);
    let beside = json!([
        {"name": "w", "mountPath": "/auditor"},
        {"name": "w", "mountPath": "/work/audit"},
        {"name": "w", "mountPath": "/..a"},
    ]);
    for (what, path, value) in [
        ("resources", format!("{sidecar}/resources"), Value::Null),
        ("the order of the environment", format!("{sidecar}/env"), env),
        ("said not to be privileged", format!("{sidecar}/securityContext/privileged"), json!(false)),
        ("said not to be the host's", "/spec/hostNetwork".to_owned(), json!(false)),
        ("it only reads", "/spec/containers/0/volumeMounts".to_owned(), reads),
        ("mounts beside /audit", "/spec/containers/0/volumeMounts".to_owned(), beside),
    ] {
        accepted(cluster(), &Request::create(&with(&good(), &[(&path, value)])), what);
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        for value in
            [Value::Null, json!({"tcpSocket": {"port": 28291}}), json!({"exec": {"command": ["/audit-log", "health"]}})]
        {
            let pod = with(&good(), &[(&format!("{sidecar}/{probe}"), value)]);
            accepted(cluster(), &Request::create(&pod), probe);
        }
    }
}

/// Each is one change to a good pod, refused for that and for nothing else. Together they break every rule.
#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn a_pod_whose_sidecar_is_not_the_given_one_is_refused() {
    let cluster = cluster();
    let sidecar = "/spec/initContainers/0";
    let claim = || json!({"name": "mine", "persistentVolumeClaim": {"claimName": "audit-log"}});
    // Beside one that is as it should be.
    let mounts = |mount: Value| json!([{"name": "work", "mountPath": "/work"}, mount]);
    let devices =
        |name: &str| json!([{"name": "disk", "devicePath": "/dev/d"}, {"name": name, "devicePath": "/dev/x"}]);
    let at = |path: &str| mounts(json!({"name": "other", "mountPath": path}));
    let cases: Vec<(&str, &str, Value)> = vec![
        ("the pod has no", "/spec/initContainers", Value::Null),
        ("the pod has no", "/spec/initContainers/0", Value::Null),
        ("the pod has no", "/spec/initContainers/0/restartPolicy", Value::Null),
        ("the pod has no", "/spec/initContainers/0/restartPolicy", json!("OnFailure")),
        ("the sidecar has another image", "/spec/initContainers/0/image", json!("audit-log:0.2.0")),
        ("the sidecar has another image", "/spec/initContainers/0/image", json!("audit-log:0.1.0-mine")),
        ("the sidecar runs something else", "/spec/initContainers/0/command", Value::Null),
        ("the sidecar runs something else", "/spec/initContainers/0/command", json!(["/audit-log", "serve"])),
        ("the sidecar runs something else", "/spec/initContainers/0/command/-", json!("--dir=/tmp")),
        ("the sidecar runs something else", "/spec/initContainers/0/args", json!(["--dir=/tmp"])),
        (
            "the sidecar runs something else",
            "/spec/initContainers/0/lifecycle",
            json!({"postStart": {"exec": {"command": ["/audit-log", "install", "/audit"]}}}),
        ),
        (
            "the sidecar runs something else",
            "/spec/initContainers/0/startupProbe/exec/command",
            json!(["/audit-log", "sweep"]),
        ),
        ("the sidecar runs something else", "/spec/initContainers/0/livenessProbe/exec/command/1", json!("sweep")),
        (
            "the sidecar runs something else",
            "/spec/initContainers/0/readinessProbe/exec/command/-",
            json!("--config=/audit/x"),
        ),
        ("the sidecar's environment", "/spec/initContainers/0/env", Value::Null),
        ("the sidecar's environment", "/spec/initContainers/0/env/0", Value::Null),
        (
            "the sidecar's environment",
            "/spec/initContainers/0/env/-",
            json!({"name": "AUDIT_LOG_DIR", "value": "/tmp"}),
        ),
        ("the sidecar's environment", "/spec/initContainers/0/env/1", json!({"name": "UCLOUD_RANK", "value": "7"})),
        ("the sidecar's environment", "/spec/initContainers/0/env/1/name", json!("UCLOUD_JOB_ID")),
        (
            "the sidecar's environment",
            "/spec/initContainers/0/env/0/valueFrom/fieldRef/fieldPath",
            json!("metadata.labels['batch.kubernetes.io/job-name']"),
        ),
        (
            "the sidecar's environment",
            "/spec/initContainers/0/env/0/valueFrom",
            json!({"configMapKeyRef": {"name": "mine", "key": "job"}}),
        ),
        ("the sidecar's environment", "/spec/initContainers/0/envFrom", json!([{"configMapRef": {"name": "mine"}}])),
        ("the sidecar's environment", "/metadata/labels/batch.kubernetes.io~1job-name", json!("train")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts", Value::Null),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0", Value::Null),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/1", Value::Null),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0/name", json!("scratch")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/1/name", json!("scratch")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0/mountPath", json!("/audit/deeper")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0/subPathExpr", Value::Null),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0/subPathExpr", json!("other")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/0/subPath", json!("other")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/1/subPath", json!("config.yaml")),
        ("the sidecar's mounts", "/spec/initContainers/0/volumeMounts/1/subPathExpr", json!("config.yaml")),
        (
            "the sidecar's mounts",
            "/spec/initContainers/0/volumeMounts/-",
            json!({"name": "mine", "mountPath": "/audit-log"}),
        ),
        (
            "the sidecar's mounts",
            "/spec/initContainers/0/volumeDevices",
            json!([{"name": "disk", "devicePath": "/dev/x"}]),
        ),
        ("the sidecar's volumes", "/spec/volumes/0", Value::Null),
        ("the sidecar's volumes", "/spec/volumes/1", Value::Null),
        ("the sidecar's volumes", "/spec/volumes", Value::Null),
        ("the sidecar's volumes", "/spec/volumes/0", json!({"name": "audit-log", "emptyDir": {}})),
        ("the sidecar's volumes", "/spec/volumes/0/persistentVolumeClaim/claimName", json!("mine")),
        ("the sidecar's volumes", "/spec/volumes/1/configMap/name", json!("mine")),
        ("the sidecar's volumes", "/spec/volumes/1", json!({"name": "audit-log-config", "emptyDir": {}})),
        ("the sidecar runs as another user", "/spec/initContainers/0/securityContext", Value::Null),
        ("the sidecar runs as another user", "/spec/initContainers/0/securityContext/runAsUser", Value::Null),
        ("the sidecar runs as another user", "/spec/initContainers/0/securityContext/runAsUser", json!(0)),
        ("the sidecar runs as another user", "/spec/initContainers/0/securityContext/privileged", json!(true)),
        ("others reach the sidecar", "/spec/hostNetwork", json!(true)),
        ("others reach the sidecar", "/spec/hostPID", json!(true)),
        ("others reach the sidecar", "/spec/shareProcessNamespace", json!(true)),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/audit")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/audit/")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("//audit")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/./audit")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("audit")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/audit/train")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/x/../audit")),
        ("another container than the sidecar has something", "/spec/containers/0/volumeMounts", at("/x/..")),
        (
            "another container than the sidecar has something",
            "/spec/containers/0/volumeMounts",
            mounts(json!({"name": "other", "mountPath": "/audit", "readOnly": false})),
        ),
        (
            "another container than the sidecar has something",
            "/spec/initContainers/-",
            json!({"name": "fetch", "volumeMounts": at("/audit")}),
        ),
        (
            "another container than the sidecar has the audit volume",
            "/spec/containers/0/volumeMounts",
            mounts(json!({"name": "audit-log", "mountPath": "/elsewhere"})),
        ),
        (
            "another container than the sidecar has the audit volume",
            "/spec/containers/0/volumeMounts",
            mounts(json!({"name": "audit-log", "mountPath": "/elsewhere", "readOnly": false})),
        ),
        (
            "another container than the sidecar has the audit volume",
            "/spec/containers/0/volumeDevices",
            devices("audit-log"),
        ),
        (
            "another container than the sidecar has the audit volume",
            "/spec/initContainers/-",
            json!({"name": "fetch", "volumeMounts": [{"name": "audit-log", "mountPath": "/elsewhere"}]}),
        ),
    ];
    let mut broken = BTreeSet::new();
    for (message, path, value) in cases {
        let pod = with(&good(), &[(path, value)]);
        broken.insert(refused(cluster, &Request::create(&pod), message, path));
    }

    // The claim by another volume, in any other container.
    let twice = with(&good(), &[("/spec/volumes/-", claim())]);
    accepted(cluster, &Request::create(&twice), "the claim twice");
    let mount = json!([{"name": "mine", "mountPath": "/mine"}]);
    for (path, value) in [
        ("/spec/containers/0/volumeMounts", mount.clone()),
        ("/spec/containers/-", json!({"name": "second", "volumeMounts": mount})),
        ("/spec/initContainers/-", json!({"name": "fetch", "volumeMounts": mount})),
        ("/spec/containers/0/volumeDevices", devices("mine")),
    ] {
        let request = Request::create(&with(&twice, &[(path, value)]));
        refused(cluster, &request, "another container than the sidecar has the audit volume", path);
    }

    // A pod of a Job that says it is none.
    let of_a_job = with(&bare(), &[("/metadata/labels/batch.kubernetes.io~1job-name", json!("train"))]);
    let of_a_job = cluster.mutate(&Request::create(&of_a_job));
    let own = json!("metadata.name");
    let request = Request::create(&with(&of_a_job, &[(&format!("{sidecar}/env/0/valueFrom/fieldRef/fieldPath"), own)]));
    refused(cluster, &request, "the sidecar's environment", "a Job's pod");

    let unbroken: Vec<_> = cluster.messages().difference(&broken).cloned().collect();
    // Those of changes and of locked namespaces, in the tests below.
    let later = ["the label", "the image of", "an ephemeral container", "the namespace is"];
    assert_eq!(unbroken.len(), later.len(), "{unbroken:#?}");
    assert!(unbroken.iter().all(|message| later.iter().any(|start| message.starts_with(start))), "{unbroken:#?}");
}

/// A pod that nobody asked about is nobody's business.
#[test]
fn other_pods_are_left_alone() {
    for labels in [json!({}), json!({INJECT: "false"})] {
        let pod = with(&bare(), &[("/metadata/labels", labels), ("/spec/hostNetwork", json!(true))]);
        assert_eq!(cluster().mutate(&Request::create(&pod)), pod);
        accepted(cluster(), &Request::create(&pod), "no label");
    }
}

#[test]
fn the_label_and_the_images_stay_while_the_pod_is_there() {
    let cluster = cluster();
    let label = "/metadata/labels/audit-log.dev~1inject";
    let sweep = with(&bare(), &[("/spec", sweep())]);
    for (message, old, changes) in [
        ("the label", good(), vec![(label, Value::Null)]),
        ("the label", good(), vec![(label, json!("false"))]),
        ("the label", good(), vec![("/metadata/labels", Value::Null)]),
        ("the image of", good(), vec![("/spec/initContainers/0/image", json!("audit-log:0.2.0"))]),
        ("the image of", sweep, vec![("/spec/containers/0/image", json!("mine:1"))]),
    ] {
        let new = with(&old, &changes);
        refused(cluster, &Request::update("pods", &old, &new), message, changes[0].0);
        if message == "the label" {
            refused(cluster, &Request::update("pods", &new, &old), message, "added");
            refused(cluster, &Request::update("pods/status", &old, &new), message, "by its status");
        }
    }
}

/// A change of the policy must not block whatever goes on with the pods that were made before.
#[test]
fn other_changes_are_accepted_whatever_the_pod_was_before() {
    let cluster = cluster();
    let mounts = json!([
        {"name": "work", "mountPath": "/work"},
        {"name": "audit-log", "mountPath": "/x", "readOnly": true},
    ]);
    let older = with(
        &good(),
        &[
            ("/metadata/finalizers", json!(["batch.kubernetes.io/job-tracking"])),
            ("/spec/initContainers/0/image", json!("audit-log:0.0.9")),
            ("/spec/initContainers/0/command/2", Value::Null),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "e", "volumeMounts": [{"name": "audit-log", "mountPath": "/audit"}]}]),
            ),
        ],
    );
    for (old, path, value) in [
        (older.clone(), "/metadata/finalizers", Value::Null),
        (older.clone(), "/metadata/labels/more", json!("yes")),
        (older.clone(), "/spec/containers/0/image", json!("train:2")),
        (with(&older, &[("/spec/containers/0/volumeMounts", mounts)]), "/spec/containers/0/image", json!("train:2")),
        (older, "/spec/ephemeralContainers/-", json!({"name": "f", "targetContainerName": "job"})),
        // Without the sidecar, from before there was a policy.
        (bare(), "/metadata/labels/more", json!("yes")),
        (bare(), "/metadata/labels", json!({INJECT: "true", "more": "yes"})),
    ] {
        let new = with(&old, &[(path, value)]);
        for resource in ["pods", "pods/status", "pods/ephemeralcontainers"] {
            accepted(cluster, &Request::update(resource, &old, &new), path);
            accepted(cluster, &Request::update(resource, &old, &new).in_namespace(INJECT), path);
        }
    }
}

#[test]
fn an_ephemeral_container_can_not_write_to_the_audit_log() {
    let cluster = cluster();
    let claim = json!({"name": "mine", "persistentVolumeClaim": {"claimName": "audit-log"}});
    let pod = with(&good(), &[("/spec/volumes/-", claim)]);
    let sweep = with(&bare(), &[("/spec", sweep())]);
    let add = |pod: &Value, container: Value| {
        let changed = with(pod, &[("/spec/ephemeralContainers", json!([container]))]);
        Request::update("pods/ephemeralcontainers", pod, &changed)
    };
    let mounts = |name: &str, path: &str| {
        let beside = json!({"name": "work", "mountPath": "/work"});
        json!({"name": "e", "volumeMounts": [beside, {"name": name, "mountPath": path}]})
    };
    let devices = json!([{"name": "disk", "devicePath": "/dev/d"}, {"name": "mine", "devicePath": "/dev/x"}]);
    // From before there was a policy, or another claim was named in it.
    let writes = json!([{"name": "mine", "mountPath": "/mine"}]);
    let two = with(&pod, &[("/spec/containers/0/volumeMounts", writes)]);
    let older = with(&good(), &[("/spec/volumes/0/persistentVolumeClaim/claimName", json!("older"))]);
    for (message, pod, container) in [
        ("another container than the sidecar has the audit volume", &pod, mounts("audit-log", "/x")),
        ("another container than the sidecar has the audit volume", &older, mounts("audit-log", "/x")),
        ("another container than the sidecar has the audit volume", &pod, mounts("mine", "/x")),
        (
            "another container than the sidecar has the audit volume",
            &pod,
            json!({"name": "e", "volumeDevices": devices}),
        ),
        ("another container than the sidecar has something", &pod, mounts("other", "/audit")),
        ("an ephemeral container", &two, json!({"name": "e", "targetContainerName": "audit-log"})),
        ("an ephemeral container", &pod, json!({"name": "e", "targetContainerName": "audit-log"})),
        ("an ephemeral container", &sweep, json!({"name": "e", "targetContainerName": "sweep"})),
    ] {
        refused(cluster, &add(pod, container.clone()), message, &container.to_string());
    }
    let mount = json!({"name": "mine", "mountPath": "/x", "readOnly": true});
    let reads = json!({"name": "e", "targetContainerName": "job", "volumeMounts": [mount]});
    accepted(cluster, &add(&pod, reads), "it only reads");
    accepted(cluster, &add(&pod, mounts("other", "/x")), "it writes elsewhere");
}

#[test]
fn nobody_enters_a_pod_of_a_locked_namespace() {
    let cluster = cluster();
    let ephemeral = with(&bare(), &[("/spec/ephemeralContainers", json!([{"name": "e"}]))]);
    for request in [
        Request::update("pods/ephemeralcontainers", &bare(), &ephemeral),
        Request::connect("pods/exec"),
        Request::connect("pods/attach"),
        Request::connect("pods/portforward"),
    ] {
        accepted(cluster, &request, request.resource);
        refused(cluster, &request.clone().in_namespace(LOCKED), "the namespace is labelled", request.resource);
    }
    accepted(cluster, &Request::connect("pods/log").in_namespace(LOCKED), "reading logs");
    accepted(cluster, &Request::update("pods", &bare(), &bare()).in_namespace(LOCKED), "a change");
}

/// The pod of a sweep by hand; the chart's is in `chart`.
fn sweep() -> Value {
    json!({
        "containers": [{
            "name": "sweep",
            "image": "audit-log:0.1.0",
            "command": ["/audit-log", "sweep", "/audit"],
            "volumeMounts": [
                {"name": "audit-log", "mountPath": "/audit"},
                {"name": "audit-log-config", "mountPath": "/etc/cloud", "readOnly": true},
            ],
        }],
        "volumes": parts()["volumes"],
    })
}

/// It has the whole volume, so it must be beyond doubt that it only sweeps.
#[test]
fn only_the_sweep_itself_goes_without_the_sidecar() {
    let cluster = cluster();
    let pod = with(&bare(), &[("/spec", sweep())]);
    assert_eq!(cluster.mutate(&Request::create(&pod)), pod);
    accepted(cluster, &Request::create(&pod), "the sweep");
    let look = with(&pod, &[("/spec/containers/0/command/-", json!("--dry-run"))]);
    assert_eq!(cluster.mutate(&Request::create(&look)), look);
    accepted(cluster, &Request::create(&look), "a first look");
    let probe = json!({"exec": {"command": ["/audit-log", "install", "/audit"]}});
    for (path, value) in [
        ("/spec/containers/-", json!({"name": "second", "image": "mine:1"})),
        ("/spec/initContainers", json!([{"name": "fetch", "image": "mine:1"}])),
        ("/spec/containers/0/image", json!("mine:1")),
        ("/spec/containers/0/command", Value::Null),
        ("/spec/containers/0/command", json!(["/audit-log", "serve"])),
        ("/spec/containers/0/command/2", json!("/audit/other")),
        ("/spec/containers/0/command/-", json!("--config=/audit/x")),
        ("/spec/containers/0/command/-", json!("--dry-run=false")),
        ("/spec/containers/0/command", json!(["/audit-log", "sweep", "--dry-run"])),
        ("/spec/containers/0/command", json!(["/audit-log", "sweep", "--dry-run", "/audit"])),
        ("/spec/containers/0/command", json!(["/audit-log", "sweep", "/audit", "--dry-run", "--config=/audit/x"])),
        ("/spec/containers/0/args", json!(["--config=/audit/x"])),
        ("/spec/containers/0/env", json!([{"name": "AUDIT_LOG_CONFIG", "value": "/audit/x"}])),
        ("/spec/containers/0/envFrom", json!([{"configMapRef": {"name": "mine"}}])),
        ("/spec/containers/0/lifecycle", json!({"postStart": probe})),
        ("/spec/containers/0/startupProbe", probe.clone()),
        ("/spec/containers/0/livenessProbe", probe.clone()),
        ("/spec/containers/0/readinessProbe", probe),
        ("/spec/containers/0/volumeMounts", Value::Null),
        ("/spec/containers/0/volumeMounts/-", json!({"name": "mine", "mountPath": "/audit-log"})),
        ("/spec/containers/0/volumeMounts/1", Value::Null),
        ("/spec/containers/0/volumeMounts/1/name", json!("mine")),
        ("/spec/containers/0/volumeMounts/0/mountPath", json!("/audit-log")),
        ("/spec/containers/0/volumeMounts/1/mountPath", json!("/audit-log")),
        ("/spec/containers/0/volumeDevices", json!([{"name": "mine", "devicePath": "/audit-log"}])),
        ("/spec/volumes", Value::Null),
        ("/spec/volumes/0", json!({"name": "audit-log", "emptyDir": {}})),
        ("/spec/volumes/0/persistentVolumeClaim/claimName", json!("mine")),
        ("/spec/volumes/1/configMap/name", json!("mine")),
        ("/spec/volumes/1", json!({"name": "audit-log-config", "emptyDir": {}})),
    ] {
        let pod = with(&pod, &[(path, value)]);
        let refusals = cluster.refusals(&Request::create(&pod));
        assert!(refusals.iter().any(|refusal| refusal.starts_with("the pod has no")), "{path}: {refusals:#?}");
        let made = cluster.mutate(&Request::create(&pod));
        assert_eq!(text(&made["spec"]["initContainers"][0]["name"]), "audit-log", "{path}");
    }
}

/// By the command of the page: all of it but the cluster at both ends.
#[test]
fn the_first_look_of_the_page_is_let_through_and_removes_nothing() {
    if !tool("kubectl") {
        return;
    }
    let page = read("docs/KUBERNETES.md");
    let block = page.split("```").find(|block| block.contains("--from=cronjob/audit-log-sweep")).unwrap();
    let (pipe, _) = block.split_once("\nkubectl logs").unwrap();
    let [create, change, apply] = pipe.split('|').collect::<Vec<_>>().try_into().expect("a pipe of three");
    assert!(
        create.contains("kubectl create job look --from=cronjob/audit-log-sweep --dry-run=client -o json"),
        "{create}"
    );
    assert_eq!(apply.trim(), "kubectl apply -f -");

    let text = read("deploy/examples/sweep.yaml");
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "look"},
        "spec": documents(&text)[0]["spec"]["jobTemplate"]["spec"],
    });
    let mut change =
        Command::new("sh").args(["-c", change]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    change.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = change.wait_with_output().unwrap();
    assert!(output.status.success());
    let look = &documents(&String::from_utf8(output.stdout).unwrap())[0];

    let command = ["/audit-log", "sweep", "/audit", "--dry-run"];
    let path = "/spec/template/spec/containers/0/command";
    assert_eq!(*look, with(&job, &[(path, json!(command))]));
    let pod = json!({"metadata": {"name": "look"}, "spec": look["spec"]["template"]["spec"]});
    let request = Request::create(&pod).in_namespace(INJECT);
    assert_eq!(cluster().mutate(&request), pod);
    accepted(cluster(), &request, "a first look");
}

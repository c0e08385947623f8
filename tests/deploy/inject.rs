//! `audit-log inject`: what comes out, what stays as it was, and what is refused.

use std::fmt::Write;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use audit_log::inject::{Injected, Options, inject};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{documents, root, sidecar, volumes};

fn injected(text: &str) -> String {
    inject(text, &Options::default()).unwrap_or_else(|error| panic!("{error}\n{text}")).text
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-log"))
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With a bad flag it ends without reading.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

/// Each `golden/NAME.in.yaml` becomes `golden/NAME.out.yaml`, byte by byte, by the real binary. With `BLESS=1` in the
/// environment the outputs are written anew, to be read with `git diff`.
#[test]
fn manifests_become_what_the_golden_files_show() {
    let folder = root().join("tests/deploy/golden");
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".in."))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 5, "{inputs:?}");
    for input in inputs {
        let text = std::fs::read_to_string(&input).unwrap();
        let arguments: Vec<_> =
            text.lines().next().and_then(|line| line.strip_prefix("# inject ")).unwrap_or("").split(' ').collect();
        let arguments: Vec<_> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
        let output = run(&arguments, &text);
        assert!(output.status.success(), "{}: {}", input.display(), String::from_utf8_lossy(&output.stderr));
        let expected = PathBuf::from(input.to_string_lossy().replace(".in.", ".out."));
        let shown = [output.stdout, output.stderr.clone()].map(|bytes| String::from_utf8(bytes).unwrap());
        let notes: String = shown[1].lines().fold(String::new(), |all, line| all + "# stderr: " + line + "\n");
        let separator = if input.extension().is_some_and(|kind| kind == "json") { "" } else { notes.as_str() };
        let shown = format!("{separator}{}", shown[0]);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(&expected).unwrap(), "{}", expected.display());
        let again = run(&arguments, &shown);
        assert_eq!(String::from_utf8(again.stdout).unwrap(), shown, "{}: twice is not once", input.display());
    }
}

#[test]
fn an_older_sidecar_is_replaced_and_the_rest_stays() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n    - name: a\n      image: i\n";
    let options = |image: &str| Options { image: Some(image.to_owned()), ..Options::default() };
    let first = inject(pod, &options("r/audit-log:1")).unwrap();
    assert_eq!(first.notes, ["Pod p: sidecar added"]);
    let second = inject(&first.text, &options("r/audit-log:2")).unwrap();
    assert_eq!(second.notes, ["Pod p: sidecar replaced"]);
    assert_eq!(second.text, first.text.replace("r/audit-log:1", "r/audit-log:2"));
    let third = inject(&second.text, &options("r/audit-log:2")).unwrap();
    assert_eq!((third.notes.concat(), third.text), ("Pod p: sidecar is there".to_owned(), second.text.clone()));
    // With the line ends of Windows, those are its own.
    assert_eq!(injected(&pod.replace('\n', "\r\n")), injected(pod).replace('\n', "\r\n"));
    // As kubectl prints it: other order, other quotes, other style.
    let printed = serde_json::to_string_pretty(&documents(&second.text)[0]).unwrap();
    assert_eq!(inject(&printed, &options("r/audit-log:2")).unwrap().text, printed);
    // One that is not the first stays where it is, and that is told.
    let moved = "apiVersion: v1\nkind: Pod\nspec:\n  initContainers:\n  - name: first # stays\n    image: i\n    env: []\n  - restartPolicy: Always # goes\n    name: audit-log\n    command: |\n      x\n\n  # stays\n  - name: last\n    image: i\n    args: []\n  containers: [{name: a}]\n";
    let Injected { text: replaced, notes } = inject(moved, &Options::default()).unwrap();
    assert_eq!(
        notes[1],
        "Pod (no name): spec.initContainers[1]: is not the first: what stands before it runs without the log"
    );
    assert_eq!(documents(&replaced)[0]["spec"]["initContainers"][1], sidecar("pod"));
    assert!(
        replaced.contains("- name: first # stays\n") && replaced.contains("\n  # stays\n  - name: last\n"),
        "{replaced}"
    );
}

#[test]
fn options_change_what_they_name_and_nothing_else() {
    let pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers: [{name: a}]\n";
    let plain = injected(pod);
    for (options, from, to) in [
        (
            Options { image: Some("r:5/i@sha256:0".to_owned()), ..Options::default() },
            "audit-log:0.1.0",
            "r:5/i@sha256:0",
        ),
        (Options { claim: Some("all".to_owned()), ..Options::default() }, "claimName: audit-log", "claimName: all"),
        (
            Options { config_map: Some("c".to_owned()), ..Options::default() },
            "configMap:\n        name: audit-log",
            "configMap:\n        name: c",
        ),
        (
            Options { fs_group: Some(2000), ..Options::default() },
            "  containers:",
            "  securityContext:\n    fsGroup: 2000\n    fsGroupChangePolicy: OnRootMismatch\n  containers:",
        ),
    ] {
        assert!(plain.contains(from), "{from}");
        assert_eq!(inject(pod, &options).unwrap().text, plain.replace(from, to));
    }
    let group = Options { fs_group: Some(2000), ..Options::default() };
    for (before, after) in [
        ("{runAsUser: 1}", json!({"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch", "runAsUser": 1})),
        ("{}", json!({"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"})),
        ("", json!({"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"})),
        ("{fsGroupChangePolicy: Always}", json!({"fsGroup": 2000, "fsGroupChangePolicy": "Always"})),
        ("{fsGroup: 1}", json!({"fsGroup": 1})),
    ] {
        let pod =
            format!("apiVersion: v1\nkind: Pod\nspec:\n  securityContext: {before}\n  containers: [{{name: a}}]\n");
        assert_eq!(documents(&inject(&pod, &group).unwrap().text)[0]["spec"]["securityContext"], after, "{before}");
    }
    for (flag, value) in
        [("--image", ""), ("--image", "a b"), ("--claim", ""), ("--claim", "A"), ("--config-map", "a\nb")]
    {
        let output = run(&[flag, value], pod);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{flag} {value}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with(&format!("audit-log: {flag}: must be ")));
    }
}

#[test]
fn a_pods_own_volume_of_the_name_is_used() {
    let pod = "apiVersion: v1\nkind: Pod\nspec:\n  volumes:\n    - {name: audit-log, emptyDir: {}}\n  containers: [{name: a}]\n";
    let spec = &documents(&injected(pod))[0]["spec"];
    assert_eq!(spec["volumes"], json!([volumes()[1], {"name": "audit-log", "emptyDir": {}}]));
    // The API server fills in what was left out.
    let filled = "apiVersion: v1\nkind: Pod\nspec:\n  volumes:\n  - {name: audit-log-config, configMap: {name: c, defaultMode: 420}}\n  containers: [{name: a}]\n";
    let same = Options { config_map: Some("c".to_owned()), ..Options::default() };
    assert_eq!(documents(&inject(filled, &same).unwrap().text)[0]["spec"]["volumes"].as_array().unwrap().len(), 2);
    let error = inject(pod, &Options { claim: Some("audit-log".to_owned()), ..Options::default() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "5:7: Pod (no name): spec.volumes[0]: another volume is named `audit-log` already: remove it, or leave the flag out to use it"
    );
}

/// A Job whose pod has these lines.
fn job(spec: &str) -> String {
    format!("apiVersion: batch/v1\nkind: Job\nmetadata: {{name: j}}\nspec:\n  template:\n    spec:\n{spec}")
}

/// Each text is refused with what is expected: the place, the object, the member and the reason.
fn assert_refused(text: &str, expected: &str) {
    let error = inject(text, &Options::default()).map(|done| done.text).expect_err(text).to_string();
    assert!(error.starts_with(expected), "{error}\n{text}");
}

#[test]
fn a_pod_in_which_the_log_would_keep_no_promise_is_refused() {
    for (spec, expected) in [
        (
            "      containers: [{name: a}]\n      hostNetwork: true\n",
            "8:7: Job j: spec.template.spec.hostNetwork: the log would listen for the whole node: anybody there could write to it",
        ),
        (
            "      containers: [{name: a}]\n      hostNetwork: YES\n",
            "8:7: Job j: spec.template.spec.hostNetwork: the log would listen for the whole node: anybody there could write to it",
        ),
        (
            "      containers: [{name: a}]\n      hostPID: on\n",
            "8:7: Job j: spec.template.spec.hostPID: the job could see and end the sidecar's process",
        ),
        (
            "      containers: [{name: a}]\n      shareProcessNamespace: y\n",
            "8:7: Job j: spec.template.spec.shareProcessNamespace: the job could see and end the sidecar's process",
        ),
        (
            "      containers: [{name: a}]\n      hostNetwork: \"true\"\n",
            "8:7: Job j: spec.template.spec.hostNetwork: must be true or false",
        ),
        (
            "      containers: [{name: a}]\n      os: {name: windows}\n",
            "8:12: Job j: spec.template.spec.os.name: the sidecar runs on linux only",
        ),
        (
            "      containers:\n        - name: audit-log\n",
            "8:11: Job j: spec.template.spec.containers[0]: `audit-log` is the sidecar's name, and this is none: it must go",
        ),
        (
            "      containers: [{name: a}]\n      initContainers: [{name: audit-log}]\n",
            "8:24: Job j: spec.template.spec.initContainers[0]: `audit-log` is the sidecar's name, and this is none: it must go",
        ),
        (
            "      containers: [{name: a}]\n      ephemeralContainers: [{name: audit-log}]\n",
            "8:29: Job j: spec.template.spec.ephemeralContainers[0]: `audit-log` is the sidecar's name, and this is none: it must go",
        ),
        (
            "      containers: [{name: a, volumeMounts: [{name: v, mountPath: //audit/x}]}]\n",
            "7:45: Job j: spec.template.spec.containers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `read",
        ),
        (
            "      containers: [{name: a, volumeMounts: [{name: v, mountPath: /x/../audit}]}]\n",
            "7:45: Job j: spec.template.spec.containers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `read",
        ),
        (
            "      containers: [{name: a, volumeMounts: [{name: audit-log, mountPath: /x}]}]\n",
            "7:45: Job j: spec.template.spec.containers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `read",
        ),
        (
            "      containers: [{name: a, volumeMounts: [{name: d, mountPath: /d}]}]\n      volumes: [{name: d, persistentVolumeClaim: {claimName: audit-log}}]\n",
            "7:45: Job j: spec.template.spec.containers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `read",
        ),
        (
            "      containers: [{name: a, volumeMounts: [{name: d, mountPath: /d}]}]\n      volumes: [{name: d, persistentVolumeClaim: {claimName: x}}, {name: audit-log, persistentVolumeClaim: {claimName: x}}]\n",
            "7:45: Job j: spec.template.spec.containers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `read",
        ),
        (
            "      containers: [{name: a, volumeDevices: [{name: audit-log, devicePath: /d}]}]\n",
            "7:46: Job j: spec.template.spec.containers[0].volumeDevices[0]: only the sidecar may write to /audit: mount it with `rea",
        ),
        (
            "      containers: [{name: a}]\n      initContainers: [{name: b, volumeMounts: [{name: v, mountPath: /audit, readOnly: false}]}]\n",
            "8:49: Job j: spec.template.spec.initContainers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it with `",
        ),
        (
            "      containers: [{name: a}]\n      ephemeralContainers: [{name: b, volumeMounts: [{name: v, mountPath: /audit}]}]\n",
            "8:54: Job j: spec.template.spec.ephemeralContainers[0].volumeMounts[0]: only the sidecar may write to /audit: mount it w",
        ),
    ] {
        assert_refused(&job(spec), expected);
    }
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_place_and_nothing_comes_out() {
    for (text, expected) in [
        ("a: [\n".to_owned(), "1:4: unclosed bracket '['"),
        ("{\"a\": 1} x".to_owned(), "1:10: did not find expected <document start>; between objects stands a line with `---`"),
        ("{\"a\": 1}\n{\"b\": 1}\n".to_owned(), "2:1: did not find expected <document start>; between objects stands a line with `---`"),
        ("a: 1\r\nb: 2\r# c\n".to_owned(), "2:1: holds a character that ends a line for some readers only (a lone carriage return, U+0085, U+2028, U+2029)"),
        ("a: 1 # \u{2028}b: 2\n".to_owned(), "1:1: holds a character that ends a line for some readers only (a lone carriage return, U+0085, U+2028, U+2029)"),
        (job("      restartPolicy: Never\n"), "6:5: Job j: spec.template.spec: has no containers"),
        (job("      containers: 1\n"), "7:7: Job j: spec.template.spec.containers: must be a list"),
        (job("      containers: []\n"), "7:7: Job j: spec.template.spec.containers: is empty"),
        (job("      containers: [{name: a}]\n      containers: []\n"), "8:7: Job j: spec.template.spec.containers: given twice"),
        (job("      <<: {}\n"), "7:7: Job j: spec.template.spec.hostNetwork: may stand in what is merged here: write it out"),
        (job("      containers: &c [{name: a}]\n"), "7:7: Job j: spec.template.spec.containers: has an anchor, so that other places would change too: write it out"),
        (job("      containers:\n        - &a {name: a}\n        - *a\n"), "9:11: Job j: spec.template.spec.containers[1]: is an alias: write it out"),
        ("x: &s {containers: []}\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    spec: *s\n".to_owned(), "7:5: Job j: spec.template.spec: is an alias: write it out"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: &s\n  containers: [{name: a}]\n".to_owned(), "4:1: Pod p: spec: has an anchor, so that other places would change too: write it out"),
        ("apiVersion: apps/v1\nkind: Deployment\nspec: {}\n".to_owned(), "3:1: Deployment (no name): spec: `template` is missing"),
        ("kind: Service\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    spec:\n      containers: 1\n".to_owned(), "9:7: Job j: spec.template.spec.containers: must be a list"),
        ("apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec: {}\n".to_owned(), "7:3: Pod p: items[0].spec: has no containers"),
        (job("      containers: [{name: a, env: [{name: NO_PROXY, value: &v x}]}]\n"), "7:53: Job j: spec.template.spec.containers[0].env[0].value: has an anchor, so that other places would change too: write "),
        (job("      containers: [{name: a, env: &e []}, {name: b, env: *e}]\n"), "7:30: Job j: spec.template.spec.containers[0].env: has an anchor, so that other places would change too: write it out"),
        // The anchor and the tag would be those of what is put before.
        (job("      containers: [{name: a, env: [&x {name: A}]}]\n"), "1:1: is written in a way that can't be edited"),
        (job("      containers: [{name: a, env: [!!map {name: A}]}]\n"), "1:1: is written in a way that can't be edited"),
        (job("      containers: [{&x name: a}]\n"), "1:1: is written in a way that can't be edited"),
        (job("      containers: [{name: a, env: [&x {name: A}, *x]}]\n"), "7:50: Job j: spec.template.spec.containers[0].env[1]: is an alias: write it out"),
        (job("      containers: [{name: a, env: [&x {name: A}, {<<: *x}]}]\n"), "7:51: Job j: spec.template.spec.containers[0].env[1].name: may stand in what is merged here: write it out"),
        (job("      containers:\n        - name: a\n          env:\n            - name: no_proxy\n              value: >-\n                x\n"), "11:15: Job j: spec.template.spec.containers[0].env[0].value: is a block of lines: write it on one line"),
        (job("      containers: [name: a]\n"), "7:20: Job j: spec.template.spec.containers[0]: is a mapping without braces: put them around it"),
        (job("      containers: [{name: a}]\n      volumes: {volumes}\n"), "8:7: Job j: spec.template.spec.volumes: must be a list"),
        (job("      containers: [{name: a, env}]\n"), "7:30: Job j: spec.template.spec.containers[0].env: is a key without a colon"),
        (job("      schedulerName: \"x\n      # y\"\n      containers: [{name: a}]\n"), "1:1: is written in a way that can't be edited: write its pods' members plainly, one a line"),
        (job("      ? containers\n      : - name: a\n"), "1:1: is written in a way that can't be edited: write its pods' members plainly, one a line"),
        (job("      &x containers:\n        - name: a\n"), "1:1: is written in a way that can't be edited: write its pods' members plainly, one a line"),
        (job("      containers:\n        - name: a\n          env: !!seq\n            - name: B\n"), "1:1: is written in a way that can't be edited: write its pods' members plainly, one a line"),
        (job("      initContainers:\n        - name: audit-log\n          restartPolicy: Always\n          resources: &r {}\n      containers: [{name: a, resources: *r}]\n"), "1:1: is written in a way that can't be edited: write its pods' members plainly, one a line"),
    ] {
        assert_refused(&text, expected);
    }
    let output = run(&[], &job("      containers: 1\n"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("audit-log: stdin:7:7: Job j: spec.template.spec.containers: must be a list"), "{told}");
    let nothing = run(&[], "kind: Service\n");
    assert_eq!((nothing.status.code(), nothing.stdout.as_slice()), (Some(0), b"kind: Service\n".as_slice()));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("nothing was injected"));
}

#[test]
fn jobs_of_other_makers_and_what_is_no_pod_stay_as_they_were() {
    for text in [
        "",
        "---\n---\n",
        "# nothing\n",
        "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {template: {spec: {containers: [{name: a}]}}}\n",
        "apiVersion: v1\nkind: ConfigMap\ndata: {kind: Pod}\n",
        "apiVersion: v1\nkind: List\nitems:\n",
        "- a\n- b\n",
        "text\n",
    ] {
        assert_eq!(injected(text), text);
    }
}

// The property: on any manifest, in any style, injection does to the values what `model` does, and to the text nothing
// else: every comment is still there.

/// What injection does, said over values.
fn model(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List" {
        object["items"].as_array_mut().unwrap().iter_mut().for_each(model);
        return;
    }
    let template = match kind.as_str() {
        "Pod" => object,
        "CronJob" => &mut object["spec"]["jobTemplate"]["spec"]["template"],
        "Job" | "Deployment" => &mut object["spec"]["template"],
        _ => return,
    };
    let of_job = matches!(kind.as_str(), "Job" | "CronJob")
        || !template["metadata"]["labels"]["batch.kubernetes.io/job-name"].is_null();
    let spec = template["spec"].as_object_mut().unwrap();
    for (name, added) in [("initContainers", vec![sidecar(if of_job { "job" } else { "pod" })]), ("volumes", volumes())]
    {
        let list = spec.entry(name).or_insert(Value::Null);
        let before = list.as_array().cloned().unwrap_or_default();
        *list = json!([added, before].concat());
    }
    let all = ["initContainers", "containers"].map(|name| spec[name].as_array().unwrap().len());
    for (name, count) in ["initContainers", "containers"].into_iter().zip(all) {
        for index in usize::from(name == "initContainers")..count {
            no_proxy(spec[name][index].as_object_mut().unwrap());
        }
    }
}

fn no_proxy(container: &mut Map<String, Value>) {
    let loopback = ["127.0.0.1", "localhost", "::1"];
    let env = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_no_proxy = |variable: &Value| ["NO_PROXY", "no_proxy"].contains(&variable["name"].as_str().unwrap());
    if !env.iter().any(is_no_proxy) {
        let added = ["NO_PROXY", "no_proxy"].map(|name| json!({"name": name, "value": loopback.join(",")}));
        container.insert("env".to_owned(), json!([added.to_vec(), env].concat()));
        return;
    }
    for variable in container["env"].as_array_mut().unwrap().iter_mut().filter(|variable| is_no_proxy(variable)) {
        let value = variable["value"].as_str().unwrap_or_default().to_owned();
        let mut hosts: Vec<_> = value.split(',').filter(|host| !host.is_empty()).collect();
        if !hosts.contains(&"*") {
            let missing: Vec<_> = loopback.into_iter().filter(|host| !hosts.contains(host)).collect();
            hosts.extend(missing);
        }
        variable["value"] = json!(hosts.join(","));
    }
}

/// Writes values in every style that YAML has, as the choices say.
struct Writer {
    choices: Vec<u8>,
    next: usize,
    comments: usize,
    out: String,
}

impl Writer {
    fn choose(&mut self, of: u8) -> u8 {
        self.next += 1;
        self.choices[self.next % self.choices.len()] % of
    }

    fn line(&mut self, column: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', column));
    }

    fn comment(&mut self) {
        self.comments += 1;
        write!(self.out, "# comment {}.", self.comments).unwrap();
    }

    /// Begins a line of a block, perhaps with comments above.
    fn block_line(&mut self, column: usize) {
        for _ in 0..self.choose(12).saturating_sub(8) {
            let at = if self.choose(2) == 0 { column } else { usize::from(self.choose(9)) };
            self.line(at);
            self.comment();
        }
        self.line(column);
    }

    fn scalar(&mut self, value: &Value, key: bool) {
        match value {
            Value::Null => {
                let choice = if key { 1 } else { self.choose(2) };
                self.out.push_str(["~", "null"][usize::from(choice)]);
            }
            Value::String(text) => match self.choose(3) {
                0 => write!(self.out, "'{}'", text.replace('\'', "''")).unwrap(),
                1 if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte))
                    && text.starts_with(|c: char| c.is_ascii_alphabetic())
                    && !["true", "y", "n", "no", "on", "yes", "off", "null", "false"]
                        .contains(&text.to_ascii_lowercase().as_str()) =>
                {
                    self.out.push_str(text);
                }
                _ => write!(self.out, "{value}").unwrap(),
            },
            other => write!(self.out, "{other}").unwrap(),
        }
    }

    /// In brackets: on one line, or on lines of its own.
    fn flow(&mut self, value: &Value, column: usize) {
        let lines = self.choose(2) == 0;
        let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
        let mut parts: Vec<(Option<&String>, &Value)> = match value {
            Value::Array(parts) => parts.iter().map(|part| (None, part)).collect(),
            Value::Object(members) => members.iter().map(|(key, value)| (Some(key), value)).collect(),
            scalar => return self.scalar(scalar, false),
        };
        if self.choose(2) == 0 && value.is_object() {
            parts.reverse();
        }
        self.out.push(open);
        for (index, (key, part)) in parts.iter().enumerate() {
            if index > 0 {
                self.out.push_str(if lines { "," } else { ", " });
            }
            if lines {
                self.line(column + 2);
            }
            if let Some(key) = key {
                write!(self.out, "\"{key}\": ").unwrap();
            }
            self.flow(part, column + 2);
        }
        if lines && !parts.is_empty() {
            self.line(column + 1);
        }
        self.out.push(close);
    }

    /// A value after `key:`, or after a dash.
    fn block(&mut self, value: &Value, column: usize, after_dash: bool) {
        match value {
            Value::Object(members) if !members.is_empty() && self.choose(5) > 0 => {
                let inner = if after_dash { column } else { column + 1 + usize::from(self.choose(3)) };
                for (index, (key, value)) in members.iter().enumerate() {
                    if !(after_dash && index == 0) {
                        self.block_line(inner);
                    }
                    self.scalar(&Value::String(key.clone()), true);
                    self.out.push(':');
                    if value.is_null() && self.choose(2) == 0 {
                        continue;
                    }
                    self.block(value, inner, false);
                }
            }
            Value::Array(parts) if !parts.is_empty() && self.choose(5) > 0 => {
                let inner = column + usize::from(self.choose(3));
                for (index, part) in parts.iter().enumerate() {
                    // A list right after a dash would begin on its line.
                    if !(after_dash && index == 0) {
                        self.block_line(inner);
                    }
                    self.out.push_str("- ");
                    self.block(part, inner + 2, true);
                }
            }
            other => {
                if !after_dash {
                    self.out.push(' ');
                }
                self.flow(other, column + 1);
                if self.choose(4) == 0 {
                    self.out.push_str("  ");
                    self.comment();
                }
            }
        }
    }
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof!["[a-z]{1,6}", "[ -~]{0,8}", Just("true".to_owned()), Just("a: b # c".to_owned())].prop_map(Value::from)
}

fn env() -> impl Strategy<Value = Value> {
    let name = prop_oneof![3 => "[A-Z]{1,4}", 1 => Just("NO_PROXY".to_owned()), 1 => Just("no_proxy".to_owned())];
    let value = prop_oneof!["[a-z]{0,4}", Just("*".to_owned()), Just("10.0.0.0/8,localhost".to_owned())];
    (name, prop::option::of(prop::option::of(value))).prop_map(|(name, value)| match value {
        None => json!({"name": name}),
        Some(value) => json!({"name": name, "value": value}),
    })
}

fn container() -> impl Strategy<Value = Value> {
    let env = prop::option::of(prop::option::of(prop::collection::vec(env(), 0..3)));
    let mounts = prop::option::of(Just(json!([{"name": "v", "mountPath": "/audit", "readOnly": true}])));
    ("[b-z]{1,5}", env, prop::option::of(prop::collection::vec(text(), 0..3)), mounts).prop_map(
        |(name, env, command, mounts)| {
            let mut container = json!({"name": name, "image": "i:1"});
            for (key, value) in [("env", json!(env)), ("args", json!(command)), ("volumeMounts", json!(mounts))] {
                // `Some(None)` is a null that is written.
                let written = key == "env" && matches!(env, Some(None));
                if written || !value.is_null() {
                    container[key] = value;
                }
            }
            container
        },
    )
}

fn pod_template() -> impl Strategy<Value = Value> {
    let list = || prop::option::of(prop::option::of(prop::collection::vec(container(), 0..3)));
    let volumes =
        prop::option::of(prop::option::of(prop::collection::vec(Just(json!({"name": "v", "emptyDir": {}})), 0..2)));
    (prop::collection::vec(container(), 1..4), list(), volumes, any::<bool>(), any::<bool>(), text()).prop_map(
        |(containers, init, volumes, labelled, policy, other)| {
            let mut template = json!({"metadata": {"labels": {"a": other}}, "spec": {"containers": containers}});
            if labelled {
                template["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!("j");
            }
            if policy {
                template["spec"]["restartPolicy"] = json!("Never");
            }
            for (name, list) in
                [("initContainers", init.map(|list| json!(list))), ("volumes", volumes.map(|list| json!(list)))]
            {
                if let Some(list) = list {
                    template["spec"][name] = list;
                }
            }
            template
        },
    )
}

fn object() -> impl Strategy<Value = Value> {
    let one = (pod_template(), 0..5).prop_map(|(template, kind)| match kind {
        0 => {
            let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
            pod["metadata"] = template["metadata"].clone();
            pod["spec"] = template["spec"].clone();
            pod
        }
        1 => json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": template}}),
        2 => json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": template}}, "schedule": "* * * * *"}}),
        3 => json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1, "template": template}}),
        _ => json!({"apiVersion": "v1", "kind": "Service", "spec": {"template": template}}),
    });
    let one = one.boxed();
    prop_oneof![
        3 => one.clone(),
        1 => prop::collection::vec(one, 0..3).prop_map(|items| json!({"apiVersion": "v1", "kind": "List", "items": items})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn injection_changes_values_as_the_model_does_and_twice_is_once(
        objects in prop::collection::vec(object(), 1..3),
        choices in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut writer = Writer { choices, next: 0, comments: 0, out: String::new() };
        for object in &objects {
            writer.out.push_str("---");
            writer.block(object, 0, false);
            writer.out.push('\n');
        }
        let text = writer.out;
        prop_assert_eq!(&documents(&text), &objects, "the test's own writer:\n{}", text);
        let once = inject(&text, &Options::default()).unwrap_or_else(|error| panic!("{error}\n{text}")).text;
        let mut expected = objects;
        expected.iter_mut().for_each(model);
        prop_assert_eq!(&documents(&once), &expected, "{}\nbecame\n{}", text, once);
        for comment in 1..=writer.comments {
            let comment = format!("# comment {comment}.");
            prop_assert_eq!(once.matches(&comment).count(), 1, "{} in\n{}\nbecame\n{}", comment, text, once);
        }
        prop_assert_eq!(&injected(&once), &once);
        // JSON is YAML.
        let json = serde_json::to_string_pretty(&expected[0]).unwrap();
        prop_assert_eq!(&injected(&json), &json);
    }
}

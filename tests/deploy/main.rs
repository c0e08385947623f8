//! What is deployed: manifests, injection, policies and the chart, all held against `deploy/chart/sidecar.yaml`.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod chart;
mod inject;
mod manifests;
mod policy;
#[path = "../it/support/mod.rs"]
#[allow(dead_code, reason = "each test binary uses a part of the harness")]
mod support;

use std::path::Path;

use serde_json::{Value, json};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All documents of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The container that pods of a kind of identity get.
fn sidecar(identity: &str) -> Value {
    let source = &documents(&read("deploy/chart/sidecar.yaml"))[0];
    let mut container = source["container"].clone();
    let [own, common] = [&source["identity"][identity], &source["container"]["env"]].map(|env| env.as_array().unwrap());
    container["env"] = json!([own.as_slice(), common].concat());
    container
}

/// The volumes that pods get.
fn volumes() -> Vec<Value> {
    documents(&read("deploy/chart/sidecar.yaml"))[0]["volumes"].as_array().unwrap().clone()
}

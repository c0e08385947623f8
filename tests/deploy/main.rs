//! What is deployed: manifests, injection, policies and the chart, all held against `deploy/chart/sidecar.yaml`.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod inject;

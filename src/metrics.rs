//! The counters that `/metrics` shows, in the Prometheus text format.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Everything that is counted. The names on the wire are `audit_log_` and the field's name, units last.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events that were answered with 200.
    pub appended_events_total: IntCounter,
    /// Bytes of their lines.
    pub appended_bytes_total: IntCounter,
    /// Requests that were answered with an error, by `code`.
    pub refused_requests_total: IntCounterVec,
    /// Seconds from taking a group of lines to knowing that it is durable, or that it is not.
    pub commit_duration_seconds: Histogram,
    /// Events in a commit.
    pub commit_events: Histogram,
    /// Bytes of lines that wait for a commit or are in one.
    pub queue_bytes: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Segments created.
    pub segments_opened_total: IntCounter,
    /// Segments that retention removed.
    pub segments_removed_total: IntCounter,
    /// Segments that somebody else changed, by `kind`.
    pub tampering_total: IntCounterVec,
    /// 1 if `/readyz` would answer 200.
    pub ready: IntGauge,
    /// 1 if the configuration file was good when it was last read.
    pub config_valid: IntGauge,
    /// Days after which segments are removed; 0 if never.
    pub retention_days: IntGauge,
    /// Free bytes of the audit directory's file system, for whoever is not root.
    pub directory_free_bytes: IntGauge,
}

impl Metrics {
    /// Registers everything; `instance` is this process's id.
    ///
    /// # Panics
    /// Never: the names are constants, valid and distinct, as any test shows.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        let registry = Registry::new_custom(Some("audit_log".to_owned()), None).expect("the prefix is not empty");
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let by = |name: &str, help: &str, label: &str| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            register(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        let build_info = register(
            &registry,
            IntGaugeVec::new(
                Opts::new("build_info", "Version and instance of this process."),
                &["version", "instance"],
            ),
        );
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), instance]).set(1);
        let tampering_total = by("tampering_total", "Segments changed by somebody else, by kind.", "kind");
        for kind in TAMPERING_KINDS {
            // An alert needs the zero that it rises from.
            tampering_total.with_label_values(&[kind]).inc_by(0);
        }
        Self {
            appended_events_total: counter("appended_events_total", "Events acknowledged as durable."),
            appended_bytes_total: counter("appended_bytes_total", "Bytes of the lines of acknowledged events."),
            refused_requests_total: by("refused_requests_total", "Requests refused, by code.", "code"),
            commit_duration_seconds: histogram(
                "commit_duration_seconds",
                "Time of a commit: write, sync and checks.",
                &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0],
            ),
            commit_events: histogram(
                "commit_events",
                "Events that shared a commit.",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 10_000.0],
            ),
            queue_bytes: gauge("queue_bytes", "Bytes of lines waiting for a commit or in one."),
            connections: gauge("connections", "Open connections."),
            segments_opened_total: counter("segments_opened_total", "Segments created."),
            segments_removed_total: counter("segments_removed_total", "Segments removed by retention."),
            tampering_total,
            ready: gauge("ready", "1 if ready, 0 if not; see /readyz."),
            config_valid: gauge("config_valid", "1 if the configuration file is good."),
            retention_days: gauge("retention_days", "Days after which segments are removed; 0 if never."),
            directory_free_bytes: gauge("directory_free_bytes", "Free bytes of the audit directory's file system."),
            registry,
        }
    }

    /// All metrics in the Prometheus text format, version 0.0.4.
    ///
    /// # Panics
    /// Never: whatever can be registered can be written.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("registered metrics can be written")
    }

    /// Refused requests by code, those codes left out that never occurred.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        let mut refusals = BTreeMap::new();
        for family in self.refused_requests_total.collect() {
            for metric in family.get_metric() {
                let code: String = metric.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
                let count = self.refused_requests_total.with_label_values(&[&code]).get();
                if count > 0 {
                    refusals.insert(code, count);
                }
            }
        }
        refusals
    }
}

/// The kinds of tampering that the writer tells apart.
pub const TAMPERING_KINDS: [&str; 5] = ["deleted", "renamed", "replaced", "cut", "appended"];

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("the names are valid");
    registry.register(Box::new(collector.clone())).expect("the names are distinct");
    collector
}

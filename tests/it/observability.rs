//! What operators see: metrics, probes, the log, the line at the end (contract §1, §2 and §5).

use std::process::{Command, Stdio};

use crate::support::{Client, Request, Setup, Sidecar, tool, wait_for};

#[test]
fn metrics_have_the_names_of_the_contract_and_a_real_parser_reads_them() {
    let sidecar = Sidecar::start();
    sidecar.append(r#"{"event":"a"}"#);
    assert_eq!(sidecar.send(&Request::batch("{\"event\":\"a\"}\n{\"event\":\"b\"}")).status, 200);
    sidecar.post("x").refused(400, "invalid_json");
    sidecar.post("{}").refused(422, "invalid_event");
    sidecar.get("/nowhere").refused(404, "not_found");
    let response = sidecar.get("/metrics");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    let bytes: usize = sidecar.segments().values().map(Vec::len).sum();
    for line in [
        "audit_log_appended_events_total 3",
        &format!("audit_log_appended_bytes_total {bytes}"),
        "audit_log_refused_requests_total{code=\"invalid_json\"} 1",
        "audit_log_refused_requests_total{code=\"invalid_event\"} 1",
        "audit_log_refused_requests_total{code=\"not_found\"} 1",
        "audit_log_commit_duration_seconds_count 2",
        "audit_log_commit_events_count 2",
        "audit_log_commit_events_sum 3",
        "audit_log_queue_bytes 0",
        "audit_log_segments_opened_total 1",
        "audit_log_segments_removed_total 0",
        "audit_log_ready 1",
        "audit_log_tampering_total{kind=\"cut\"} 0",
        "audit_log_refused_requests_total{code=\"storage_full\"} 0",
        "audit_log_config_valid 0",
        "audit_log_retention_days 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
    }
    for name in ["audit_log_connections ", "audit_log_directory_free_bytes ", "audit_log_build_info{"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{text}");
    }
    let instance = sidecar.logged("listening").unwrap()["instance"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("instance=\"{instance}\"")));
    assert_eq!(sidecar.get("/readyz").json()["instance"], instance.as_str());

    if !tool("python3") {
        return;
    }
    let script = "import sys\n\
        try:\n    from prometheus_client.parser import text_string_to_metric_families as parse\n\
        except ImportError:\n    sys.exit(77)\n\
        for family in parse(sys.stdin.read()):\n    print(family.name, family.type, len(family.samples))";
    let mut python =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    if output.status.code() == Some(77) {
        assert!(!tool("prometheus_client (PyPI)"));
        return;
    }
    let families = String::from_utf8(output.stdout).unwrap();
    for (name, kind) in [
        ("audit_log_appended_events", "counter"),
        ("audit_log_appended_bytes", "counter"),
        ("audit_log_refused_requests", "counter"),
        ("audit_log_commit_duration_seconds", "histogram"),
        ("audit_log_commit_events", "histogram"),
        ("audit_log_queue_bytes", "gauge"),
        ("audit_log_connections", "gauge"),
        ("audit_log_segments_opened", "counter"),
        ("audit_log_segments_removed", "counter"),
        ("audit_log_ready", "gauge"),
        ("audit_log_tampering", "counter"),
        ("audit_log_config_valid", "gauge"),
        ("audit_log_retention_days", "gauge"),
        ("audit_log_directory_free_bytes", "gauge"),
        ("audit_log_build_info", "gauge"),
    ] {
        assert!(families.lines().any(|line| line.starts_with(&format!("{name} {kind} "))), "{name} in\n{families}");
    }
    std::fs::remove_file(sidecar.dir.join(sidecar.segments().keys().next().unwrap())).unwrap();
    sidecar.append(r#"{"event":"a"}"#);
    assert!(sidecar.get("/metrics").text().contains("audit_log_tampering_total{kind=\"deleted\"} 1"));
}

#[test]
fn the_metrics_listener_serves_probes_and_metrics_alone_to_any_host() {
    let sidecar = Setup::new().args(["--metrics-listen", "127.0.0.1:0"]).start();
    let address = sidecar.metrics_address.unwrap();
    let send = |request: Request| Client::connect(address).send(&request);
    for path in ["/metrics", "/healthz", "/readyz"] {
        for host in ["10.1.2.3:9090", "prometheus.example"] {
            let request = Request::new("GET", path).without_host().header("Host", host);
            assert_eq!(send(request).status, 200, "{path} {host}");
        }
    }
    send(Request::post(r#"{"event":"a"}"#)).refused_unwritten(404, "not_found");
    assert!(sidecar.segments().is_empty());
    // HEAD is GET without the body.
    let mut client = sidecar.connect();
    client.write(&Request::new("HEAD", "/healthz").header("Connection", "close").bytes());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn the_log_is_one_fact_a_line_and_holds_no_events_content() {
    let mut setup = Setup::new();
    setup.command.env("RUST_LOG", "trace");
    let mut sidecar = setup.start();
    sidecar.append(r#"{"event":"SECRET","message":"SECRET","meta":{"SECRET":["SECRET"]}}"#);
    sidecar.post(r#"{"event":"a","SECRET":"SECRET"}"#).refused(422, "invalid_event");
    sidecar.post("SECRET").refused(400, "invalid_json");
    sidecar.send(&Request::batch("{\"event\":\"SECRET\"}\nSECRET")).refused(400, "invalid_json");
    assert!(sidecar.stop().success());
    let summary = sidecar.wait_logged("stopped");
    assert_eq!((&summary["events"], &summary["segments"]), (&1.into(), &1.into()));
    assert_eq!(summary["refusals"], "invalid_event=1,invalid_json=2");
    let bytes: usize = sidecar.segments().values().map(Vec::len).sum();
    assert_eq!(summary["bytes"], bytes);
    let log = sidecar.log();
    assert!(!log.contains("SECRET"), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
    }
}

#[test]
fn the_log_can_be_text() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = crate::support::binary();
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log-format",
            "text",
            "--job-id",
            "j",
            "--workspace-id",
            "w",
            "--dir",
        ])
        .arg(temp.path());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stderr.as_mut().unwrap()), &mut line).unwrap();
    assert!(line.contains(" INFO listening address=127.0.0.1:"), "{line}");
    assert!(!line.contains('\u{1b}'), "colours go to terminals only");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_stopped_commit_makes_it_unready_after_five_seconds() {
    use crate::support::disk::{Call, Faults};
    use crate::support::inside::{InsideApp, NOW, options};
    let clock = audit_log::clock::ManualClock::new(NOW);
    let faults = Faults::none();
    let app = InsideApp::start(clock.clone(), &faults, options(), None);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    faults.set(move |call| {
        if call == Call::SyncData {
            wait.recv().unwrap_or(());
        }
        Ok(())
    });
    let mut client = Client::connect(app.address);
    client.write(&Request::post(r#"{"event":"a"}"#).bytes());
    let ready = || app.send(&Request::new("GET", "/readyz"));
    wait_for("the commit", || faults.calls().contains(&Call::SyncData).then_some(()));
    clock.pass(std::time::Duration::from_secs(5));
    assert_eq!(ready().status, 200);
    clock.pass(std::time::Duration::from_millis(1));
    let reason = ready().refused(503, "not_ready");
    assert!(reason.contains("more than 5 seconds"), "{reason}");
    assert_eq!(app.send(&Request::new("GET", "/healthz")).status, 200);
    drop(go);
    assert_eq!(client.read().unwrap().status, 200);
    wait_for("readiness", || (ready().status == 200).then_some(()));
}

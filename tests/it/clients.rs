//! The documented event from whatever a job may use, and the examples that users copy.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Sidecar, tool, wait_for};

const BODY: &str = r#"{"event":"DATA_EXPORT","message":"Exported results to CSV","meta":{"path":"/work/output/results.csv","rows":12500}}"#;
const META: &str = r#""meta":{"path":"/work/output/results.csv","rows":12500}}"#;

/// A command in an environment whose proxy leads nowhere.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY").stdin(Stdio::null());
    command
}

#[track_caller]
fn succeed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}: {out} {err}", output.status);
    out.into_owned()
}

/// The one line on disk, checked for the documented meta; returned as text.
#[track_caller]
fn documented_line(sidecar: &Sidecar) -> String {
    let segments = sidecar.segments();
    let text = String::from_utf8(segments.into_values().next().expect("a segment")).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("\"event\":\"DATA_EXPORT\"") && text.trim_end().ends_with(META), "{text}");
    text
}

#[test]
fn curl_with_and_without_a_content_type() {
    let sidecar = Sidecar::start();
    let url = format!("http://{}/append", sidecar.address);
    for args in [vec!["-H", "Content-Type: application/json"], vec![], vec!["-X", "POST", "-H", "Content-Type:"]] {
        let output = command("curl")
            .args(["-sS", "--fail", "--noproxy", "*", "-d", BODY])
            .args(args)
            .arg(&url)
            .output()
            .unwrap();
        assert!(succeed(&output).contains("\"index\":"));
    }
    // More than a mebibyte makes curl ask first.
    let large = format!("{{\"event\":\"a\",\"message\":\"{}\"}}", "x".repeat(1_048_000));
    let mut curl = command("curl")
        .args(["-sS", "--noproxy", "*", "--data-binary", "@-"])
        .arg(&url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(large.as_bytes()).unwrap();
    succeed(&curl.wait_with_output().unwrap());
    assert_eq!(sidecar.lines().len(), 4);
}

#[test]
fn wget() {
    if !tool("wget") {
        return;
    }
    let sidecar = Sidecar::start();
    let url = format!("http://{}/append", sidecar.address);
    succeed(&command("wget").args(["-q", "-O", "-", "--no-proxy", "--post-data", BODY, &url]).output().unwrap());
    documented_line(&sidecar);
}

#[test]
fn bash_alone() {
    if !tool("bash") {
        return;
    }
    let sidecar = Sidecar::start();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; printf 'POST /append HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s' {} '{BODY}' >&3; cat <&3",
        sidecar.address.port(),
        BODY.len()
    );
    assert!(succeed(&command("bash").args(["-c", &script]).output().unwrap()).starts_with("HTTP/1.1 200 OK"));
    documented_line(&sidecar);
}

/// Runs an example against a sidecar, then against a refusal, then against nobody.
fn example(program: &str, file: &str) {
    if !tool(program) {
        return;
    }
    let path = format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let run = |url: &str| command(program).arg(&path).env("AUDIT_LOG_URL", url).output().unwrap();
    let mut sidecar = Sidecar::start();
    let url = format!("http://localhost:{}/append", sidecar.address.port());
    let begun = Instant::now();
    succeed(&run(&url));
    let took = begun.elapsed();
    let line = documented_line(&sidecar);
    assert!(line.contains(r#""message":"Exported results to \"CSV\"""#), "{line}");
    // A refusal that stays one stops the program at once.
    let output = run(&format!("http://localhost:{}/wrong", sidecar.address.port()));
    assert!(!output.status.success());
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("not recorded") && told.contains("not_found"), "{told}");
    // An unknown outcome is not sent again, a safe one is.
    let unknown = Canned::start(&[(503, "unknown"), (200, "")]);
    assert!(!run(&unknown.url()).status.success());
    assert_eq!(unknown.requests(), 1);
    let safe = Canned::start(&[(507, "no"), (200, "")]);
    succeed(&run(&safe.url()));
    assert_eq!(safe.requests(), 2);
    // A sidecar that starts late is waited for.
    let port = sidecar.address.port();
    sidecar.kill();
    let child =
        command(program).arg(&path).env("AUDIT_LOG_URL", format!("http://127.0.0.1:{port}/append")).spawn().unwrap();
    // In twice the time that a whole run took, its first try has found nobody.
    std::thread::sleep(2 * took);
    let late = Canned::on(port, &[(200, "")]);
    succeed(&child.wait_with_output().unwrap());
    assert_eq!(late.requests(), 1);
}

#[test]
fn the_bash_example() {
    example("bash", "append.sh");
}

#[test]
fn the_python_example() {
    example("python3", "append.py");
}

#[test]
fn the_node_example() {
    example("node", "append.mjs");
}

#[test]
fn the_r_example() {
    example("Rscript", "append.R");
}

/// A server that gives answers that were written down beforehand.
struct Canned {
    port: u16,
    requests: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Canned {
    fn start(answers: &[(u16, &str)]) -> Self {
        Self::on(0, answers)
    }

    fn on(port: u16, answers: &[(u16, &str)]) -> Self {
        let listener = wait_for("the port", || std::net::TcpListener::bind(("127.0.0.1", port)).ok());
        let port = listener.local_addr().unwrap().port();
        let answers: Vec<_> = answers.iter().map(|(status, written)| (*status, (*written).to_owned())).collect();
        let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                // Small requests: whole once the body's last bracket is there.
                while !request.ends_with(b"}") {
                    match std::io::Read::read(&mut stream, &mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => request.extend_from_slice(&buffer[..read]),
                    }
                }
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let Some((status, written)) = answers.next() else { return };
                let (header, body) = match status {
                    200 => (String::new(), r#"{"ts":"x","segment":"x","index":0}"#),
                    _ => (format!("Audit-Written: {written}\r\n"), r#"{"code":"canned","detail":"canned"}"#),
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\n{header}Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { port, requests }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/append", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(std::sync::atomic::Ordering::SeqCst)
    }
}

fn client(sidecar: &Sidecar) -> Command {
    let mut command = command(BINARY);
    command.env("AUDIT_LOG_LISTEN", sidecar.address.to_string());
    command
}

fn client_of(port: u16) -> Command {
    let mut command = command(BINARY);
    command.env("AUDIT_LOG_LISTEN", format!("127.0.0.1:{port}"));
    command
}

#[test]
fn append_posts_one_event_and_prints_the_answer() {
    let sidecar = Sidecar::start();
    let meta_file = sidecar.dir.join("meta.json");
    std::fs::write(&meta_file, "{ \"n\": 1.10 }").unwrap();
    let rows: [(&[&str], &str); 9] = [
        (&["A"], r#""event":"A","message":"","meta":null}"#),
        (&["A", "m"], r#""event":"A","message":"m","meta":null}"#),
        (&["A", "-5 degrees"], r#""event":"A","message":"-5 degrees","meta":null}"#),
        (&["A", "--meta", "{\"n\":1.10}"], r#""event":"A","message":"","meta":{"n":1.10}}"#),
        (&["A", "m", "--meta", "[1]"], r#""event":"A","message":"m","meta":[1]}"#),
        (&["A", "--meta-file", meta_file.to_str().unwrap()], r#""event":"A","message":"","meta":{"n":1.10}}"#),
        (
            &["A", "--field", "a=1", "--field", "b=x=y", "--field", "c="],
            r#""event":"A","message":"","meta":{"a":"1","b":"x=y","c":""}}"#,
        ),
        (&["--meta", "12345678901234567890123", "A"], r#""event":"A","message":"","meta":12345678901234567890123}"#),
        (&["A", "--timeout", "5s", "--", "--meta"], r#""event":"A","message":"--meta","meta":null}"#),
    ];
    for (args, expected) in rows {
        let output = client(&sidecar).arg("append").args(args).output().unwrap();
        let answer: serde_json::Value = serde_json::from_str(&succeed(&output)).unwrap();
        let segments = sidecar.segments();
        let text = std::str::from_utf8(&segments[answer["segment"].as_str().unwrap()]).unwrap();
        assert!(text.lines().last().unwrap().ends_with(expected), "{args:?}: {text}");
    }
    let mut child = client(&sidecar)
        .args(["append", "A", "--meta-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[true]").unwrap();
    succeed(&child.wait_with_output().unwrap());
    assert_eq!(sidecar.lines().last().unwrap()["meta"], serde_json::json!([true]));
    // Recorded is recorded, whether or not anybody reads the answer.
    let script = format!("set -o pipefail; '{BINARY}' append A | true");
    succeed(
        &command("bash").args(["-c", &script]).env("AUDIT_LOG_LISTEN", sidecar.address.to_string()).output().unwrap(),
    );
}

#[test]
fn append_says_what_is_wrong_and_exits_accordingly() {
    let sidecar = Sidecar::start();
    let rows: [(&[&str], i32, &str); 13] = [
        (&[], 2, "<EVENT>"),
        (&["A", "--meta", "{"], 2, "--meta: not JSON"),
        (&["A", "--meta", "1},\"ts\":{"], 2, "--meta: not JSON"),
        (&["A", "--meta-file", "/nonexistent"], 2, "--meta-file: /nonexistent"),
        (&["A", "--meta-file", "/"], 2, "--meta-file: /"),
        (&["A", "--field", "x"], 2, "--field: must be KEY=VALUE"),
        (&["A", "--field", "x=1", "--field", "x=2"], 2, "--field: `x` is given twice"),
        (&["A", "--meta", "1", "--field", "x=1"], 2, "--field"),
        (&["A", "--timeout", "soon"], 2, "--timeout: must be a time"),
        (&["A", "--timeout", "18446744073709551615s"], 2, "--timeout: must be at most"),
        (&["A", "--listen", "localhost"], 2, "--listen: must be an IP address"),
        (&[""], 1, "422 invalid_event"),
        (&["audit-log.x"], 1, "reserved"),
    ];
    for (args, code, expected) in rows {
        let output = client(&sidecar).arg("append").args(args).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
        assert!(output.stdout.is_empty());
    }
    assert!(sidecar.segments().is_empty());
}

#[test]
fn append_sends_again_only_what_left_nothing() {
    for (answers, code, requests) in [
        (&[(503, "no"), (507, "no"), (200, "")][..], 0, 3),
        (&[(503, "unknown"), (200, "")], 1, 1),
        (&[(400, "no"), (200, "")], 1, 1),
        (&[(408, "no"), (429, "no"), (200, "")], 0, 3),
    ] {
        let canned = Canned::start(answers);
        let output = client_of(canned.port).args(["append", "A"]).output().unwrap();
        assert_eq!((output.status.code(), canned.requests()), (Some(code), requests), "{answers:?}");
    }
    // An answer that never comes: it may have been recorded.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output =
        client_of(silent.local_addr().unwrap().port()).args(["append", "A", "--timeout", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("may have been recorded"));
    // Nobody listens, or only later.
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let output = client_of(port).args(["append", "A", "--timeout", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot connect"));
    let child = client_of(port).args(["append", "A"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let late = Canned::on(port, &[(200, "")]);
    succeed(&child.wait_with_output().unwrap());
    assert_eq!(late.requests(), 1);
}

#[test]
fn run_audits_a_command_from_its_start_to_its_exit() {
    let sidecar = Sidecar::start();
    let temp = tempfile::tempdir().unwrap();
    let run = |args: &[&str], command: &[&str]| {
        client(&sidecar).arg("run").args(args).arg("--").args(command).current_dir(temp.path()).output().unwrap()
    };
    // The start is on disk before the command runs.
    let list = format!("cat {}/*.jsonl", sidecar.dir.display());
    let output = run(&[], &["sh", "-c", &list]);
    assert!(succeed(&output).contains("PROCESS_START"));
    let lines = sidecar.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[1]["event"]), (&"PROCESS_START".into(), &"PROCESS_EXIT".into()));
    let start = &lines[0]["meta"];
    assert_eq!(start["argv"], serde_json::json!(["sh", "-c", list]));
    assert_eq!(start["cwd"], temp.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(start["user"]["uid"], rustix::process::getuid().as_raw());
    let exit = &lines[1]["meta"];
    assert_eq!((&exit["status"], &exit["signal"]), (&0.into(), &serde_json::Value::Null));
    assert!(exit["duration"].as_f64().unwrap() > 0.0);

    let output = run(&["--event", "TRAIN"], &["sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(sidecar.lines()[3]["event"], "TRAIN_EXIT");
    assert_eq!(sidecar.lines()[3]["meta"]["status"], 7);
    let output = run(&[], &["sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
    assert_eq!(
        (&sidecar.lines()[5]["meta"]["signal"], &sidecar.lines()[5]["meta"]["status"]),
        (&9.into(), &serde_json::Value::Null)
    );
    let output = run(&[], &["/nonexistent"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(sidecar.lines()[7]["meta"]["error"].is_string());
    assert_eq!(run(&[], &["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(client(&sidecar).args(["run", "true"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn run_passes_signals_on_and_does_not_start_what_it_can_not_record() {
    let sidecar = Sidecar::start();
    for (signal, code) in [("TERM", 42), ("INT", 43), ("HUP", 44), ("USR1", 45)] {
        // It ends by itself where the signal does not arrive.
        let script = format!("trap 'exit {code}' {signal}; echo ready; for i in $(seq 1000); do sleep 0.01; done");
        let mut child =
            client(&sidecar).args(["run", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        assert_eq!(sidecar.lines().last().unwrap()["meta"]["status"], code);
    }
    // `nohup` stays nohup.
    let script = format!("trap '' HUP; '{BINARY}' run -- sh -c 'kill -HUP $PPID; sleep 0.2; exit 5'");
    let output = client(&sidecar)
        .output()
        .map(|_| {
            command("sh").args(["-c", &script]).env("AUDIT_LOG_LISTEN", sidecar.address.to_string()).output().unwrap()
        })
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");

    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let output = client_of(port).args(["run", "--timeout", "200ms", "--", "echo", "started"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the command was not started"));
    // Told to stop while it waits for the sidecar, it does.
    let child = client_of(port).args(["run", "--", "echo", "started"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("its handlers", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        (u64::from_str_radix(&caught, 16).ok()? & (1 << 14) != 0).then_some(())
    });
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(143), 0));
}

#[test]
fn a_signal_that_overtakes_the_start_leaves_no_start_without_its_exit() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = client_of(listener.local_addr().unwrap().port())
        .args(["run", "--", "sleep", "30"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let take = |signal: bool| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"}}") {
            let read = std::io::Read::read(&mut stream, &mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
        }
        if signal {
            assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        String::from_utf8(request).unwrap()
    };
    assert!(take(true).contains("PROCESS_START"));
    let exit = take(false);
    assert!(exit.contains("PROCESS_EXIT") && exit.contains("\"signal\":15"), "{exit}");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn health_tells_by_its_exit_code() {
    let mut sidecar = Sidecar::start();
    let health = |sidecar: &Sidecar, args: &[&str]| client(sidecar).arg("health").args(args).output().unwrap();
    assert_eq!(health(&sidecar, &[]).status.code(), Some(0));
    assert_eq!(health(&sidecar, &["--live"]).status.code(), Some(0));
    std::fs::remove_dir_all(&sidecar.dir).unwrap();
    let output = health(&sidecar, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("audit directory"), "{output:?}");
    assert_eq!(health(&sidecar, &["--live"]).status.code(), Some(0));
    sidecar.kill();
    assert_eq!(health(&sidecar, &["--live"]).status.code(), Some(1));
}

#[test]
fn install_copies_the_binary_so_that_others_can_run_it() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let output = command(BINARY).arg("install").arg(temp.path()).output().unwrap();
        assert_eq!(succeed(&output).trim(), temp.path().join("audit-log").to_str().unwrap());
    }
    let installed = temp.path().join("audit-log");
    assert_eq!(std::fs::read(&installed).unwrap(), std::fs::read(BINARY).unwrap());
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&installed).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o755);
    assert!(command(installed.to_str().unwrap()).arg("--version").output().unwrap().status.success());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    assert_eq!(command(BINARY).args(["install", "/nonexistent"]).output().unwrap().status.code(), Some(2));
}

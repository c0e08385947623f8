//! How the sidecar starts, or says why not, and how it drains (contract §1 and §4.5).

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use audit_log::clock::SystemClock;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Signal;

use crate::support::disk::Faults;
use crate::support::inside::{InsideApp, options};
use crate::support::{BINARY, Client, JOB, Request, Setup, Sidecar, WORKSPACE, binary, tools, wait_for};

/// Arguments, environment, exit code, and a part of the message.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

#[test]
fn each_bad_start_has_its_message_and_exit_code() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_str().unwrap().to_owned();
    let file = temp.path().join("file");
    std::fs::write(&file, "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let taken_address = format!("127.0.0.1:{taken_port}");
    let taken_port = taken_port.to_string();
    let rows: [Row<'_>; 27] = [
        (&["serve"], &[("UCLOUD_JOB_ID", "")], 2, "--job-id: is required; give it, or set UCLOUD_JOB_ID"),
        (&["serve"], &[("UCLOUD_WORKSPACE_ID", "")], 2, "--workspace-id: is required"),
        (&["serve", "--job-id", ""], &[], 2, "--job-id: is empty"),
        (&["serve"], &[("UCLOUD_JOB_ID", "a\tb")], 2, "UCLOUD_JOB_ID: holds a control character"),
        (&["serve"], &[("UCLOUD_RANK", "-1")], 2, "UCLOUD_RANK: must be a whole number from 0 to 4294967295"),
        (&["serve", "--rank", "x"], &[], 2, "--rank: must be"),
        (&["serve", "--listen", "0.0.0.0:1"], &[], 2, "--listen: 0.0.0.0:1 is not a loopback address"),
        (&["serve", "--listen", "[::]:1"], &[], 2, "--listen: [::]:1 is not a loopback address"),
        (&["serve", "--listen", "localhost:1"], &[], 2, "--listen: must be an IP address and a port"),
        (&["serve", "--listen", "127.0.0.1:99999"], &[], 2, "--listen: the port must be"),
        (&["serve"], &[("AUDIT_LOG_LISTEN", "x")], 2, "AUDIT_LOG_LISTEN: must be"),
        (&["serve", "--metrics-listen", "x"], &[], 2, "--metrics-listen: must be"),
        (
            &["serve", "--dir", "/nonexistent/audit"],
            &[],
            2,
            "--dir: /nonexistent/audit: does not exist; is the volume mounted?",
        ),
        (&["serve", "--dir", file.to_str().unwrap()], &[], 2, "--dir: "),
        (&["serve", "--dir", ""], &[], 2, "--dir: is empty"),
        (&["serve", "--file-mode", "abc"], &[], 2, "--file-mode: must be an octal file mode"),
        (&["serve", "--drain-max", "20"], &[], 2, "--drain-max: must be a time such as"),
        (&["serve", "--drain-quiet", "1d"], &[], 2, "--drain-quiet: must be a time such as"),
        (&["serve", "--retention-floor", "0"], &[], 2, "--retention-floor: must be a whole number from 1"),
        (&["serve", "--log-format", "xml"], &[], 2, "--log-format: must be `text` or `json`"),
        (&["serve"], &[("RUST_LOG", "=x=")], 2, "RUST_LOG: not a list of levels"),
        (&["serve", "--nonsense"], &[], 2, "--nonsense"),
        (&["start-job-audit-log-server", "0"], &[], 2, "PORT: must be a number from 1 to 65535"),
        (&["start-job-audit-log-server", "65536"], &[], 2, "PORT: must be a number from 1 to 65535"),
        (&["start-job-audit-log-server", "x"], &[], 2, "PORT: must be a number"),
        (&["serve", "--listen", &taken_address], &[], 1, "--listen: cannot listen on 127.0.0.1:"),
        (&["start-job-audit-log-server", &taken_port], &[], 1, "--listen: cannot listen on 127.0.0.1:"),
    ];
    std::thread::scope(|scope| {
        for (args, env, code, expected) in rows {
            let dir = &dir;
            scope.spawn(move || {
                let mut command = binary();
                command.env("UCLOUD_JOB_ID", JOB).env("UCLOUD_WORKSPACE_ID", WORKSPACE).env("AUDIT_LOG_DIR", dir);
                let output = command.envs(env.iter().copied()).args(args).output().unwrap();
                let message = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}: {message}");
                assert!(message.contains(expected), "{args:?} {env:?}: {message}");
            });
        }
    });
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "a bad start leaves nothing");
}

/// Kubelet makes the folder of a subPath as root's, and a volume may be mounted read-only.
#[test]
fn a_directory_that_may_not_be_written_to_is_told_with_its_owner_and_what_helps() {
    if !tools(&["unshare", "mount", "setpriv"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    // The test's own directories are root's; the binary must be where another user can reach it.
    let program = temp.path().join("audit-log");
    std::fs::copy(BINARY, &program).unwrap();
    let dir = temp.path().join("audit");
    std::fs::create_dir(&dir).unwrap();
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    set_mode(temp.path(), 0o755);
    let help = "set fsGroup in the pod's securityContext, or create the folder for this uid beforehand";
    let denied = "by uid 65532, gid 65533: Permission denied (os error 13)";
    let rows = [
        ((0, 0), 0o755, "rw", format!("written to {denied}; it belongs to uid 0, gid 0, mode 0755: {help}")),
        ((11042, 7), 0o3700, "rw", format!("opened {denied}; it belongs to uid 11042, gid 7, mode 3700: {help}")),
        (
            (65532, 65533),
            0o755,
            "ro",
            "written to by uid 65532, gid 65533: Read-only file system (os error 30); it is mounted read-only: the \
             sidecar's volumeMount must not be readOnly"
                .to_owned(),
        ),
    ];
    for ((uid, gid), mode, mount, expected) in rows {
        std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).unwrap();
        set_mode(&dir, mode);
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", r#"mount -o "bind,$1" "$2" "$2"; shift 2; exec "$@""#, "sh", mount])
            .arg(&dir)
            .args(["setpriv", "--reuid", "65532", "--regid", "65533", "--clear-groups"])
            .arg(&program)
            .args(["serve", "--job-id", "j", "--workspace-id", "w", "--log-format", "json", "--dir"])
            .arg(&dir)
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        let line = format!("--dir: {}: cannot be {expected}\n", dir.display());
        assert!(message.ends_with(&line) && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn create_dir_makes_the_directory_and_files_have_the_mode_that_was_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b");
    for (mode, expected) in [(None, 0o640), (Some("0600"), 0o600), (Some("644"), 0o644)] {
        let mut setup = Setup::in_dir(&dir).args(["--create-dir"]);
        if let Some(mode) = mode {
            setup = setup.args(["--file-mode", mode]);
        }
        let sidecar = setup.start();
        let answer = sidecar.append(r#"{"event":"a"}"#);
        let metadata = std::fs::metadata(dir.join(answer["segment"].as_str().unwrap())).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, expected);
    }
}

#[test]
fn several_addresses_are_listened_on() {
    let sidecar = Setup::new().args(["--listen", "127.0.0.2:0"]).start();
    wait_for("both addresses", || (sidecar.log().matches("\"listening\"").count() == 2).then_some(()));
    let log = sidecar.log();
    let second = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["message"] == "listening")
        .nth(1)
        .unwrap();
    let address: std::net::SocketAddr = second["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(address.ip().to_string(), "127.0.0.2");
    assert_eq!(Client::connect(address).send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    sidecar.append(r#"{"event":"a"}"#);
    assert_eq!(sidecar.lines().len(), 2);
}

#[test]
fn a_port_that_is_in_use_for_a_moment_is_waited_for() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["start-job-audit-log-server", &address.port().to_string(), "--log-format", "json"]);
    command
        .env("UCLOUD_JOB_ID", JOB)
        .env("UCLOUD_WORKSPACE_ID", WORKSPACE)
        .env("UCLOUD_RANK", "3")
        .env("AUDIT_LOG_DIR", temp.path());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    drop(held);
    wait_for("the port", || std::net::TcpStream::connect(address).ok());
    // UCloud's job builder calls it so, and finds both loopback addresses, where there are two.
    let answer = Client::connect(address).send(&Request::post(r#"{"event":"a"}"#)).json();
    assert!(answer["segment"].as_str().unwrap().starts_with("audit-3_"));
    if TcpListener::bind("[::1]:0").is_ok() {
        let v6: std::net::SocketAddr = format!("[::1]:{}", address.port()).parse().unwrap();
        assert_eq!(Client::connect(v6).send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    }
    let begun = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
        Signal::TERM,
    )
    .unwrap();
    assert!(child.wait().unwrap().success());
    // It waits for 5 s without an event.
    assert!(begun.elapsed() >= Duration::from_millis(4900));
}

#[test]
fn events_are_taken_after_sigterm_until_it_is_quiet() {
    let mut sidecar = Setup::new().args(["--drain-quiet", "500ms", "--drain-max", "30s"]).start();
    sidecar.signal(Signal::TERM);
    sidecar.wait_logged("draining");
    for _ in 0..5 {
        sidecar.append(r#"{"event":"late"}"#);
        std::thread::sleep(Duration::from_millis(150));
    }
    assert!(sidecar.wait().success());
    assert_eq!(sidecar.lines().len(), 5);
    assert_eq!(sidecar.wait_logged("stopped")["events"], 5);
}

#[test]
fn an_open_request_keeps_the_drain_open_and_is_answered() {
    let mut sidecar = Setup::new().args(["--drain-quiet", "50ms", "--drain-max", "30s"]).start();
    let request = Request::post(r#"{"event":"slow"}"#).bytes();
    let mut client = sidecar.connect();
    client.write(&request[..request.len() - 1]);
    let mut idle = sidecar.connect();
    wait_for("the connections", || sidecar.get("/metrics").text().contains("audit_log_connections 3").then_some(()));
    sidecar.signal(Signal::TERM);
    sidecar.wait_logged("draining");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(sidecar.append(r#"{"event":"meanwhile"}"#)["index"], 0);
    client.write(&request[request.len() - 1..]);
    assert_eq!(client.read().unwrap().status, 200);
    assert!(sidecar.wait().success());
    assert!(idle.is_closed());
    assert_eq!(sidecar.lines().len(), 2);
}

#[test]
fn what_comes_after_the_drain_is_told_to_come_again_or_not_connected() {
    let mut sidecar = Setup::new().args(["--drain-quiet", "10s", "--drain-max", "300ms"]).start();
    let request = Request::post(r#"{"event":"late"}"#).bytes();
    let mut client = sidecar.connect();
    client.write(&request[..20]);
    wait_for("the connection", || sidecar.get("/metrics").text().contains("audit_log_connections 2").then_some(()));
    sidecar.signal(Signal::TERM);
    sidecar.wait_logged("drained for as long as allowed");
    client.write(&request[20..]);
    let response = client.read().expect("an answer");
    response.refused_unwritten(503, "shutting_down");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(sidecar.wait().success());
    assert!(std::net::TcpStream::connect(sidecar.address).is_err());
}

#[test]
fn what_arrives_at_the_very_end_of_the_drain_is_answered() {
    let mut app = InsideApp::start(SystemClock, &Faults::none(), options(), None);
    let request = Request::post(r#"{"event":"late"}"#).bytes();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(app.address)).collect();
    for client in &mut clients {
        // It has sent plain requests only.
        assert_eq!(client.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    }
    app.tell_to_stop();
    // With the second signal the drain is over; one client has sent an event just before, and one a part of one.
    let mut streams: Vec<_> = clients.iter().map(|client| client.stream.try_clone().unwrap()).collect();
    let (head, tail) = request.split_at(30);
    let (whole, head) = (request.clone(), head.to_vec());
    app.tell_to_stop_and(move || {
        std::io::Write::write_all(&mut streams[0], &whole).unwrap();
        std::io::Write::write_all(&mut streams[1], &head).unwrap();
    });
    clients[0].read().expect("an answer").refused_unwritten(503, "shutting_down");
    // The rest has 2 s to arrive.
    clients[1].write(tail);
    clients[1].read().expect("an answer").refused_unwritten(503, "shutting_down");
    assert!(clients[2].is_closed());
    app.stop().unwrap();
}

#[test]
fn answers_that_are_taken_late_are_not_cut_off_by_the_end() {
    let mut sidecar = Setup::new().args(["--drain-quiet", "50ms"]).start();
    let appended = |sidecar: &Sidecar| {
        let text = sidecar.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix("audit_log_appended_events_total "));
        line.unwrap().parse::<usize>().unwrap()
    };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &sidecar.address).unwrap();
    let mut client = Client::over(std::net::TcpStream::from(socket));
    // One event at a time, whose answers nobody reads, until an answer fits nowhere: then the next event is not read.
    let sent = (1..100_000).find(|sent| {
        client.write(&Request::post(r#"{"event":"a"}"#).bytes());
        let begun = Instant::now();
        while appended(&sidecar) < *sent && begun.elapsed() < Duration::from_secs(2) {}
        appended(&sidecar) < *sent
    });
    sidecar.signal(Signal::TERM);
    sidecar.wait_logged("draining");
    wait_for("the end", || std::net::TcpStream::connect(sidecar.address).is_err().then_some(()));
    for _ in 1..sent.unwrap() {
        assert_eq!(client.read().expect("an answer").status, 200);
    }
    client.read().expect("an answer").refused_unwritten(503, "shutting_down");
    assert!(client.is_closed());
    assert!(sidecar.wait().success());
}

#[test]
fn a_second_signal_ends_the_wait() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut sidecar = Setup::new().args(["--drain-quiet", "30s", "--drain-max", "60s"]).start();
        sidecar.append(r#"{"event":"a"}"#);
        sidecar.signal(first);
        sidecar.wait_logged("draining");
        let begun = Instant::now();
        sidecar.signal(second);
        assert!(sidecar.wait().success());
        assert!(begun.elapsed() < Duration::from_secs(20), "it waited all the same");
        assert_eq!(sidecar.lines().len(), 1);
    }
}

#[test]
fn clients_that_do_not_read_or_do_not_finish_do_not_keep_the_sidecar() {
    let mut sidecar = Setup::new().args(["--drain-max", "200ms"]).start();
    let mut deaf = sidecar.connect();
    let mut bytes = Vec::new();
    for _ in 0..2000 {
        bytes.extend(Request::new("GET", "/metrics").bytes());
    }
    deaf.stream.set_nonblocking(true).unwrap();
    deaf.write(&bytes);
    let mut half = sidecar.connect();
    half.write(b"POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{");
    wait_for("both", || sidecar.get("/metrics").text().contains("audit_log_connections 3").then_some(()));
    let begun = Instant::now();
    assert!(sidecar.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_client_that_has_said_its_last_is_answered() {
    let sidecar = Sidecar::start();
    for _ in 0..20 {
        let mut client = sidecar.connect();
        client.write(&Request::post(r#"{"event":"a"}"#).bytes());
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read().expect("an answer").status, 200);
        assert!(client.is_closed());
    }
    assert_eq!(sidecar.lines().len(), 20);
}

//! The image: what the Dockerfile says, and the static binary that it holds, run in a root with nothing else in it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Client, IMAGE_ENVIRONMENT, JOB, Request, WORKSPACE, tool, tools, wait_for};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

#[test]
fn the_dockerfile_ends_in_scratch_with_the_binary_alone() {
    let dockerfile = read("Dockerfile");
    let last_stage = dockerfile.rsplit("\nFROM ").next().unwrap();
    let lines: Vec<_> = last_stage.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "scratch",
            "COPY --from=build /audit-log /audit-log",
            &format!("ENV {}={}", IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1),
            "USER 65532:65532",
            "ENTRYPOINT [\"/audit-log\"]",
            "CMD [\"serve\"]"
        ]
    );
    assert!(dockerfile.contains("RUN ci/build-static /audit-log"));
    // What the build stage copies is what the context lets through.
    for path in ["Cargo.toml", "Cargo.lock", "ci/build-static", "src", "benches"] {
        assert!(dockerfile.contains(path) && read(".dockerignore").contains(&format!("!{path}")), "{path}");
    }
    let version = read("Cargo.toml")
        .lines()
        .find_map(|line| Some(line.strip_prefix("rust-version = \"")?.trim_end_matches('"').to_owned()))
        .unwrap();
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-")),
        "the image is built by the toolchain that the package names"
    );
}

/// Builds the static binary, for the first of those that ask.
pub(crate) fn build(binary: &Path) {
    let mut command = Command::new(format!("{}/ci/build-static", env!("CARGO_MANIFEST_DIR")));
    assert!(command.arg(binary).stderr(Stdio::inherit()).status().unwrap().success());
}

#[test]
fn the_static_binary_asks_the_time_without_a_system_call() {
    if !tool("strace") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (binary, calls) = (temp.path().join("audit-log"), temp.path().join("calls"));
    build(&binary);
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=clock_gettime,rename,exit_group", "-o"])
        .arg(&calls)
        .arg(&binary)
        // It takes the time for the temporary name.
        .args(["install".as_ref(), temp.path()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(traced.success());
    let calls = std::fs::read_to_string(&calls).unwrap();
    assert!(calls.contains("rename") && !calls.contains("clock_gettime"), "{calls}");
}

#[test]
fn the_static_binary_runs_in_an_empty_root_as_nobody() {
    if !tools(&["chroot"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let binary = root.path().join("audit-log");
    build(&binary);
    let size = std::fs::metadata(&binary).unwrap().len();
    assert!(size <= 3 << 20, "the image has {size} bytes");
    let audit = root.path().join("audit");
    std::fs::create_dir(&audit).unwrap();
    for path in [root.path(), &audit] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    // Kubernetes puts a file there for the reason of the exit.
    let termination_log = root.path().join("dev/termination-log");
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(&termination_log, "before").unwrap();
    std::fs::set_permissions(&termination_log, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    // UCloud's user as well: the binary must not mind who it is.
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    for user in [65532, 11042] {
        std::os::unix::fs::chown(&audit, Some(user), Some(user)).unwrap();
        let mut child = Command::new("chroot")
            .arg(format!("--userspec={user}:{user}"))
            .arg(root.path())
            .args(["/audit-log", "serve"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1)
            .env("UCLOUD_JOB_ID", JOB)
            .env("UCLOUD_WORKSPACE_ID", WORKSPACE)
            .env("AUDIT_LOG_LISTEN", format!("127.0.0.1:{port}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address: std::net::SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        wait_for("the sidecar", || std::net::TcpStream::connect(address).ok());
        let response = Client::connect(address).send(&Request::post(r#"{"event":"a"}"#));
        assert_eq!(response.status, 200, "{}", response.text());
        let health = Command::new("chroot")
            .arg(root.path())
            .args(["/audit-log", "health", "--listen", &address.to_string()])
            .status()
            .unwrap();
        assert!(health.success());
        // A directory that may no longer be written to is told before the next event finds out.
        std::os::unix::fs::chown(&audit, Some(0), Some(0)).unwrap();
        let reason = Client::connect(address).send(&Request::new("GET", "/readyz")).refused(503, "not_ready");
        assert!(reason.contains("Permission denied"), "{reason}");
        std::os::unix::fs::chown(&audit, Some(user), Some(user)).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(child.wait().unwrap().success());
        let line = std::fs::read_to_string(&termination_log).unwrap();
        assert!(
            line.starts_with("appended 1 events, ") && line.ends_with(" in 1 segments; refusals: none\n"),
            "{line}"
        );
    }
    assert_eq!(crate::support::lines(&audit).len(), 2);
}

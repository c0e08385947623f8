//! The image: what the Dockerfile says, and the static binary that it holds, run in a root with nothing else in it.

use std::collections::BTreeSet;
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
    let package = |key: &str| {
        let manifest = read("Cargo.toml");
        let value = manifest.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        value.unwrap().trim_end_matches('"').to_owned()
    };
    assert_eq!(
        lines,
        [
            "scratch",
            "LABEL org.opencontainers.image.title=\"audit-log\" \\",
            &format!("      org.opencontainers.image.version=\"{}\" \\", package("version")),
            &format!("      org.opencontainers.image.licenses=\"{}\"", package("license")),
            "COPY --from=build /audit-log /audit-log",
            &format!("ENV {}={}", IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1),
            "USER 65532:65532",
            "ENTRYPOINT [\"/audit-log\"]",
            "CMD [\"serve\"]"
        ]
    );
    // CI: the list of dependencies must be in it.
    assert!(dockerfile.contains("RUN CI=true ci/build-static /audit-log"));
    // The build stage copies what the context lets through; that it is enough, ci/reproducible shows.
    for path in read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(dockerfile.contains(&format!("{path} ")), "{path}");
    }
    assert!(
        dockerfile.contains(&format!("FROM rust:{}-", package("rust-version"))),
        "the image is built by the toolchain that the package names"
    );
}

/// Builds the static binary, for the first of those that ask.
pub(crate) fn build(binary: &Path) {
    let mut command = Command::new(format!("{}/ci/build-static", env!("CARGO_MANIFEST_DIR")));
    assert!(command.arg(binary).stderr(Stdio::inherit()).status().unwrap().success());
}

/// The package and the crates that it depends on, each as name and version, as Cargo has resolved them.
fn dependencies(edges: &str) -> BTreeSet<String> {
    let tree = Command::new("cargo")
        .args(["tree", "--locked", "--edges", edges, "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success());
    let tree = String::from_utf8(tree.stdout).unwrap();
    // `tokio v1.54.1`, and `(proc-macro)` or a path may follow.
    tree.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ").replace(" v", " ")).collect()
}

/// The crates that a list names, but the one that `cargo metadata`, of which both lists are made, adds to what is linked:
/// jiff's feature `log?/std` counts there as a dependency.
fn linked(listed: BTreeSet<String>) -> BTreeSet<String> {
    listed.into_iter().filter(|package| !package.starts_with("log ")).collect()
}

/// What a Python script prints about a file, line by line.
fn python(script: &str, path: &Path) -> BTreeSet<String> {
    let python = Command::new("python3").args(["-c", script]).arg(path).stderr(Stdio::inherit()).output().unwrap();
    assert!(python.status.success());
    String::from_utf8(python.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_static_binary_says_what_it_is_made_of() {
    if !tool("cargo-auditable") || !tool("objcopy") || !tool("python3") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (binary, section) = (temp.path().join("audit-log"), temp.path().join("dep-v0"));
    build(&binary);
    let copied = Command::new("objcopy")
        .arg("--dump-section")
        .arg(format!(".dep-v0={}", section.display()))
        .args([binary.as_path(), Path::new("/dev/null")])
        .status()
        .unwrap();
    assert!(copied.success());
    let script = r"
import json, sys, zlib
for package in json.loads(zlib.decompress(open(sys.argv[1], 'rb').read()))['packages']:
    if package.get('kind') != 'build':
        print(package['name'], package['version'])
";
    // Macros count as tools there.
    assert_eq!(linked(python(script, &section)), dependencies("normal,no-proc-macro"));
}

#[test]
fn the_static_binary_of_the_image_is_not_built_without_its_dependencies() {
    let rustc = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let toolchain = String::from_utf8(rustc.stdout).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let refused = Command::new(format!("{}/ci/build-static", env!("CARGO_MANIFEST_DIR")))
        .arg(temp.path().join("audit-log"))
        // Nothing that was installed by Cargo.
        .env("PATH", format!("{}/bin:/usr/bin:/bin", toolchain.trim_end()))
        .env("CI", "true")
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert_eq!(String::from_utf8(refused.stderr).unwrap(), "cargo-auditable is not installed\n");
}

#[test]
fn the_bill_of_materials_is_valid_and_lists_what_ships() {
    if !tool("cargo-cyclonedx") || !tool("python3") {
        return;
    }
    let validator = Command::new("python3").args(["-c", "import cyclonedx.validation, jsonschema"]).output().unwrap();
    if !validator.status.success() {
        assert!(!tool("cyclonedx-python-lib[json-validation] (PyPI)"));
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let bill = temp.path().join("audit-log.cdx.json");
    let listed = Command::new(format!("{}/ci/sbom", env!("CARGO_MANIFEST_DIR"))).arg(&bill).status().unwrap();
    assert!(listed.success());
    let script = r"
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text = open(sys.argv[1]).read()
bill = json.loads(text)
error = JsonStrictValidator(SchemaVersion.from_version(bill['specVersion'])).validate_str(text)
assert error is None, str(error)[:1000]
package = bill['metadata']['component']
print(package['name'], package['version'])
for crate in bill['components']:
    assert crate['licenses'] and crate['hashes'], crate
    assert crate['purl'].split('?')[0] == 'pkg:cargo/%s@%s' % (crate['name'], crate['version']), crate
    print(crate['name'], crate['version'])
";
    assert_eq!(linked(python(script, &bill)), dependencies("normal"));
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

/// What the sidecar has resident at rest: less than before commands that read were in the same binary (2,988 KiB). The kernel
/// maps 64 KiB around a page that is touched; so what the sidecar runs stands together (`ci/static.ld`).
#[test]
fn the_sidecar_does_not_carry_what_only_commands_run() {
    if !tool("dd") {
        return;
    }
    // Pages of 4 KiB, as on most machines.
    if rustix::param::page_size() != 4096 {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (built, binary) = (temp.path().join("built"), temp.path().join("audit-log"));
    build(&built);
    // Written in pages: of what is cached in larger folios, some kernels map the whole folio.
    let copied = Command::new("dd")
        .args([format!("if={}", built.display()), format!("of={}", binary.display())])
        .args(["bs=4k", "status=none"])
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let mut child = Command::new(&binary)
        .args(["serve", "--config", "/nonexistent", "--job-id", JOB, "--workspace-id", WORKSPACE, "--dir"])
        .arg(temp.path())
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address: std::net::SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    wait_for("the sidecar", || std::net::TcpStream::connect(address).ok());
    assert_eq!(Client::connect(address).send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    // The last that a start does.
    let logged = std::io::BufReader::new(child.stderr.take().unwrap());
    assert!(std::io::BufRead::lines(logged).any(|line| line.unwrap().contains("retention is off")));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB")).unwrap();
    let resident: u32 = resident.trim().parse().unwrap();
    assert!(resident <= 2988, "{resident} KiB are resident: list what the sidecar runs anew (ci/trace-sidecar)");
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
    // With the read side in it; the sidecar alone had 3 MiB.
    assert!(size <= 8 << 20, "the image has {size} bytes");
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

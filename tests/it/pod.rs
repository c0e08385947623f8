//! A pod without Kubernetes: a network namespace, and in it the sidecar and the job, each with mounts and a user of its own.
//!
//! The sidecar is the static binary as UCloud's user, without any right. The job is root with those rights over files that
//! container runtimes leave it: nothing but its read-only mount keeps it from the segments.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{IMAGE_ENVIRONMENT, JOB, WORKSPACE, lines, segments, tools, wait_for};

/// As in Kubernetes.
const SERVE: [&str; 3] = ["serve", "--metrics-listen", "0.0.0.0:48292"];
/// As UCloud's job builder has it, a plain container; by itself it would wait for 5 s without an event.
const UCLOUD: [&str; 4] = ["start-job-audit-log-server", "48291", "--drain-quiet", "1s"];
/// How long the sidecar may drain, if nothing else is said.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// The job: says what it was answered and what it can do, and has more to record when it is told to stop.
const JOB_SCRIPT: &str = r#"
export LC_ALL=C
send() {
  curl --silent --show-error --fail --max-time 10 --json "{\"event\":\"$1\"}" http://127.0.0.1:48291/append && echo
}
try() {
  echo "tried $*: $("$@" 2>&1 </dev/null)"
}
trap 'send LATE_1 && send LATE_2 && send LATE_3; exit' TERM
send STARTED || exit
segment=$(echo /audit/*.jsonl)
echo "has read $(cat "$segment")"
try tee --append "$segment"
try truncate --size=0 "$segment"
try rm --force "$segment"
try mv "$segment" /audit/other
try chmod 777 "$segment"
try touch /audit/new
try mkdir /audit/new
echo ready
read -r
"#;

#[test]
fn in_a_pod_only_the_job_reaches_the_sidecar_and_only_the_sidecar_writes() {
    let Some(pod) = Pod::start(&SERVE) else { return };
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.sidecar.child.id())).unwrap();
    for (name, expected) in [
        ("Uid", "11042\t11042\t11042\t11042"),
        ("Gid", "11042\t11042\t11042\t11042"),
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        assert_eq!(found.map(str::trim), Some(expected), "{name}");
    }

    let said = pod.job.said();
    let read = said.lines().find_map(|line| line.strip_prefix("has read ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(read).unwrap()["event"], "STARTED");
    let tried: Vec<_> = said.lines().filter(|line| line.starts_with("tried ")).collect();
    assert_eq!(tried.len(), 7, "{said}");
    assert!(tried.iter().all(|line| line.ends_with(": Read-only file system")), "{said}");
    pod.assert_recorded(&["STARTED"]);

    // The metrics show that there is a way, so that it is the sidecar's address that keeps the neighbour out.
    let metrics = pod.asked_by_neighbour(48292, "/metrics");
    assert!(String::from_utf8_lossy(&metrics.stdout).contains("\naudit_log_appended_events_total 1\n"), "{metrics:?}");
    let append = pod.asked_by_neighbour(48291, "/append");
    let curl_could_not_connect = 7;
    assert_eq!(append.status.code(), Some(curl_could_not_connect), "{append:?}");
}

/// Kubernetes tells a native sidecar to stop once the job has ended.
#[test]
fn a_native_sidecar_hears_what_the_job_sends_at_its_end() {
    let Some(mut pod) = Pod::start(&SERVE) else { return };
    pod.job.terminate();
    assert!(pod.job.wait().success(), "{}", pod.job.said());
    pod.sidecar.terminate();
    pod.assert_drained_with(&["STARTED", "LATE_1", "LATE_2", "LATE_3"]);
}

/// Kubernetes tells plain containers to stop all at once.
#[test]
fn a_plain_container_hears_what_the_job_sends_at_once() {
    let Some(mut pod) = Pod::start(&UCLOUD) else { return };
    pod.sidecar.terminate();
    pod.job.terminate();
    assert!(pod.job.wait().success(), "{}", pod.job.said());
    pod.assert_drained_with(&["STARTED", "LATE_1", "LATE_2", "LATE_3"]);
}

/// A pod whose job has done its work, and waits to be told to stop.
struct Pod {
    // The processes end before the network goes, and the directories go last.
    job: Container,
    sidecar: Container,
    network: Network,
    audit: PathBuf,
    _temp: tempfile::TempDir,
}

impl Pod {
    /// Starts the sidecar with these arguments and, when it is ready, as after a native sidecar's startup probe, the job.
    /// Nothing if that can't be done here.
    fn start(arguments: &[&str]) -> Option<Self> {
        if !tools(&["ip", "unshare", "mount", "chroot", "setpriv", "bash", "curl"]) {
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let audit = temp.path().join("audit");
        std::fs::create_dir(&audit).unwrap();
        std::os::unix::fs::chown(&audit, Some(11042), Some(11042)).unwrap();
        let network = Network::new();

        let mut command = container(&network, &temp.path().join("sidecar"), &audit, "rw");
        command.args(["--reuid=11042", "--regid=11042", "--bounding-set=-all", "/audit-log"]).args(arguments);
        command.env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1).env("AUDIT_LOG_CONFIG", "/nonexistent/config.yaml");
        command.env("UCLOUD_JOB_ID", JOB).env("UCLOUD_WORKSPACE_ID", WORKSPACE);
        let mut sidecar = Container::start(command, temp.path().join("sidecar.output"));
        wait_for("the sidecar", || {
            sidecar.assert_runs();
            let health = within(&network.pod, &*BINARY).arg("health").output().unwrap();
            health.status.success().then_some(())
        });

        let mut command = container(&network, &temp.path().join("job"), &audit, "ro");
        command.args(["--bounding-set=-all,+chown,+dac_override,+fowner", "bash", "-c", JOB_SCRIPT]);
        let mut job = Container::start(command, temp.path().join("job.output"));
        wait_for("the job", || {
            job.assert_runs();
            job.said().ends_with("ready\n").then_some(())
        });
        Some(Self { job, sidecar, network, audit, _temp: temp })
    }

    /// What the neighbour's curl is told.
    fn asked_by_neighbour(&self, port: u16, path: &str) -> Output {
        let mut curl = within(&self.network.neighbour, "curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "10"]);
        curl.arg(format!("http://{POD_ADDRESS}:{port}{path}")).output().unwrap()
    }

    /// The sidecar, which has been told to stop, drains in time, and these events are what it leaves.
    fn assert_drained_with(&mut self, events: &[&str]) {
        let begun = Instant::now();
        assert!(self.sidecar.wait().success(), "{}", self.sidecar.said());
        assert!(begun.elapsed() < DRAIN_MAX, "{}", self.sidecar.said());
        self.assert_recorded(events);
    }

    /// These events and no others were acknowledged, and each is in its place in the only file.
    fn assert_recorded(&self, events: &[&str]) {
        let said = self.job.said();
        let segments = segments(&self.audit);
        let answers = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let acknowledged = answers.map(|answer| {
            let segment = &segments[answer["segment"].as_str().unwrap()];
            let index = answer["index"].as_u64().unwrap().try_into().unwrap();
            let line = segment.split(|byte| *byte == b'\n').nth(index).unwrap();
            serde_json::from_slice::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned()
        });
        assert_eq!(acknowledged.collect::<Vec<_>>(), events, "{said}");
        assert_eq!(lines(&self.audit).len(), events.len(), "{segments:?}");
        assert_eq!(std::fs::read_dir(&self.audit).unwrap().count(), 1);
    }
}

/// Two hosts and a cable: the pod's network and its neighbour's.
struct Network {
    pod: String,
    neighbour: String,
}

/// The two ends of the cable (RFC 5737 leaves 198.51.100.0/24 to examples).
const POD_ADDRESS: &str = "198.51.100.1";
const NEIGHBOUR_ADDRESS: &str = "198.51.100.2";

impl Network {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("audit-log-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Whatever fails from here on, both are removed.
        let network = Self { pod: format!("{unique}-pod"), neighbour: format!("{unique}-neighbour") };
        let (pod, neighbour) = (&network.pod, &network.neighbour);
        ip(&["netns", "add", pod]);
        ip(&["netns", "add", neighbour]);
        ip(&["-n", pod, "link", "set", "lo", "up"]);
        ip(&["-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", neighbour]);
        for (host, address) in [(pod, POD_ADDRESS), (neighbour, NEIGHBOUR_ADDRESS)] {
            ip(&["-n", host, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", host, "link", "set", "eth0", "up"]);
        }
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The cable goes with its ends.
        for name in [&self.pod, &self.neighbour] {
            drop(Command::new("ip").args(["netns", "delete", name]).status());
        }
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A command in a network namespace, with an environment of nothing but the path.
fn within(network: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.args(["netns", "exec", network]).arg(program);
    command
}

/// Makes a container's root of the host's programs, with the audit directory at `/audit`, and goes there. All is read-only, but
/// for the audit directory of the sidecar. Each program replaces the one before, so that the test's signals reach the last.
const CONTAINER: &str = r#"
root=$1 binary=$2 audit=$3 mode=$4
shift 4
mount -t tmpfs none "$root"
for dir in bin lib lib64 usr etc dev proc; do
  if [ -d "/$dir" ]; then
    mkdir "$root/$dir"
    mount -o bind,ro "/$dir" "$root/$dir"
  fi
done
touch "$root/audit-log"
mount -o bind,ro "$binary" "$root/audit-log"
mkdir "$root/audit"
mount -o "bind,$mode" "$audit" "$root/audit"
mount -o remount,ro "$root"
exec chroot "$root" setpriv --no-new-privs --clear-groups --inh-caps=-all "$@"
"#;

/// A container, to which its user, its rights and its program are to be added, in setpriv's words.
fn container(network: &Network, root: &Path, audit: &Path, mode: &str) -> Command {
    std::fs::create_dir(root).unwrap();
    let mut command = within(&network.pod, "unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", CONTAINER, "sh"]);
    command.arg(root).arg(&*BINARY).arg(audit).arg(mode);
    command
}

/// The static binary.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("audit-log");
    crate::image::build(&binary);
    binary
});

/// A container's process, and what it says.
struct Container {
    child: Child,
    output: PathBuf,
}

impl Container {
    fn start(mut command: Command, output: PathBuf) -> Self {
        let file = File::create(&output).unwrap();
        // The job ends with its input, which is the test's end at the latest.
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), output }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    fn assert_runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?}: {}", self.said());
    }

    fn terminate(&self) {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the container's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

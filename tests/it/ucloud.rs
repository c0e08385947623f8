//! What docs/UCLOUD.md says of us: the container that UCloud's job builder is to make, its folder, and the sweep of all folders.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use audit_log::clock::{Clock, SystemClock};
use audit_log::record::{DAY_MS, SegmentName, Timestamp};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::docs::{block, read};
use crate::support::{BINARY, Client, IMAGE_ENVIRONMENT, JOB, Request, Response, WORKSPACE, lines, tool, wait_for};

const PAGE: &str = "docs/UCLOUD.md";
/// UCloud's user, who owns the folders.
const USER: u32 = 11042;

/// The one YAML document of the page that contains a text.
fn manifest(containing: &str) -> Value {
    serde_saphyr::from_str(&block(PAGE, containing)).unwrap()
}

/// The pod, as the page shows it.
fn pod() -> Value {
    manifest("restartPolicy: Always")
}

/// The words of a list of strings.
fn words(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// The members that two objects do not have alike, those of `securityContext` by name.
fn differences(ours: &Value, theirs: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    for name in names(ours).union(&names(theirs)).filter(|name| ours.get(name) != theirs.get(name)) {
        if name == "securityContext" {
            let inner = differences(&ours[name], &theirs[name]);
            found.extend(inner.into_iter().map(|inner| format!("{name}.{inner}")));
        } else {
            found.insert(name.clone());
        }
    }
    found
}

#[test]
fn the_container_of_the_page_is_that_of_the_chart_but_for_what_the_page_lists() {
    let chart: Value = serde_saphyr::from_str(&read("deploy/chart/sidecar.yaml")).unwrap();
    let pod = pod();
    let container = &pod["spec"]["initContainers"][0];
    let page = read(PAGE);
    let (_, table) = page.split_once("| Differs | Why |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let listed =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned());
    assert_eq!(differences(container, &chart["container"]), listed.collect());

    // A later init container would run before the log answers.
    assert_eq!((&container["name"], &container["restartPolicy"]), (&json!("audit-log"), &json!("Always")));
    // Both see the same folder, and only the sidecar may write.
    let job = &pod["spec"]["containers"][0]["volumeMounts"];
    let (mut ours, theirs) = (container["volumeMounts"][0].clone(), job[0].clone());
    assert_eq!(ours.get("readOnly"), None);
    ours["readOnly"] = json!(true);
    assert_eq!((&ours, job.as_array().unwrap().len()), (&theirs, 1));
    // The configuration is a directory: a file mounted alone would never change.
    let config = &container["volumeMounts"][1];
    assert_eq!((&config["mountPath"], config.get("subPath")), (&json!("/etc/cloud"), None));
    assert_eq!(pod["spec"]["volumes"][0]["name"], config["name"]);

    let cron_job = manifest("kind: CronJob");
    let sweep = &cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(sweep["containers"][0]["image"], container["image"]);
    assert_eq!(sweep["containers"][0]["securityContext"], container["securityContext"]);
    assert_eq!(sweep["containers"][0]["volumeMounts"][0]["subPath"], "audit");
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&sweep["containers"][0]["volumeMounts"]), names(&sweep["volumes"]));

    for containing in ["curl -X POST", "\"ts\":\"2026-01-28T09:12:44.381Z\",\"jobId\""] {
        assert_eq!(block(PAGE, containing), block("README.md", containing));
    }
}

/// A volume with a job's folder, as UCloud makes it.
struct Volume {
    temp: tempfile::TempDir,
    folder: PathBuf,
}

/// A sidecar of the page's command line and variables, in a mount and a network namespace of its own.
struct Rank {
    child: Child,
}

impl Volume {
    /// `None`, and a word about it, where such namespaces can't be made.
    fn new() -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "the tests are not run as root");
            std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: only root makes namespaces\n").unwrap();
            return None;
        }
        if !["unshare", "setpriv", "ip", "mount"].into_iter().all(tool) {
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        // The test's own directories are root's; the binary must be where UCloud's user reaches it.
        fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
        fs::copy(BINARY, temp.path().join("audit-log")).unwrap();
        fs::create_dir(temp.path().join("mnt")).unwrap();
        let folder = temp.path().join("volume/audit").join(JOB);
        fs::create_dir_all(folder.parent().unwrap()).unwrap();
        let volume = Self { temp, folder };
        volume.make_folder();
        Some(volume)
    }

    fn make_folder(&self) {
        fs::create_dir(&self.folder).unwrap();
        fs::set_permissions(&self.folder, PermissionsExt::from_mode(0o770)).unwrap();
        chown(&self.folder, Some(USER), Some(USER)).unwrap();
    }

    fn start(&self, rank: u32) -> Rank {
        const SETUP: &str = r#"ip link set lo up; mount --bind "$1" "$2"; shift 2; exec "$@""#;
        let pod = pod();
        let container = &pod["spec"]["initContainers"][0];
        let context = &container["securityContext"];
        let mount = self.temp.path().join("mnt");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-ec", SETUP, "sh"]).arg(&self.folder).arg(&mount);
        command.args(["setpriv", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args(["--reuid", &context["runAsUser"].to_string(), "--regid", &context["runAsGroup"].to_string()]);
        let argv = words(&container["command"]);
        assert_eq!(argv[0], "/audit-log");
        command.arg(self.temp.path().join("audit-log")).args(&argv[1..]);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1);
        for variable in container["env"].as_array().unwrap() {
            command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        }
        // Where the container has /audit, this one has a mount in its own namespace.
        command.env("UCLOUD_RANK", rank.to_string()).env("AUDIT_LOG_DIR", &mount);
        let rank = Rank { child: command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() };
        let name = format!("/proc/{}/comm", rank.child.id());
        wait_for("the sidecar's own program", || (fs::read_to_string(&name).ok()? == "audit-log\n").then_some(()));
        rank.inside(|| wait_for("the sidecar", || std::net::TcpStream::connect(("127.0.0.1", 48291)).ok()));
        rank
    }
}

impl Rank {
    /// Does something on the loopback that the job shares with its sidecar.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", self.child.id())).unwrap();
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn send(&self, request: &Request) -> Response {
        self.inside(|| Client::connect(([127, 0, 0, 1], 48291).into()).send(request))
    }

    fn stop(&mut self) -> ExitStatus {
        kill_process(Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        wait_for("the sidecar's end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[test]
fn the_job_builder_s_command_writes_for_each_rank_in_the_folder_that_ucloud_makes() {
    let Some(volume) = Volume::new() else { return };
    let mut ranks = [0, 1].map(|rank| volume.start(rank));
    for (number, rank) in ranks.iter().enumerate() {
        let answer = rank.send(&Request::post(r#"{"event":"DATA_EXPORT"}"#));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let name = answer.json()["segment"].as_str().unwrap().to_owned();
        assert!(name.starts_with(&format!("audit-{number}_")), "{name}");
        let file = fs::metadata(volume.folder.join(name)).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (USER, USER, 0o640));
    }
    for line in lines(&volume.folder) {
        assert_eq!((&line["jobId"], &line["workspaceId"]), (&json!(JOB), &json!(WORKSPACE)));
    }
    // The alias would drain for 5 s, if the page did not set 300 ms.
    let begun = Instant::now();
    assert!(ranks.iter_mut().all(|rank| rank.stop().success()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(lines(&volume.folder).len(), 2);
}

#[test]
fn an_empty_folder_removed_under_a_sidecar_makes_it_refuse_until_it_is_started_anew() {
    let Some(volume) = Volume::new() else { return };
    let rank = volume.start(0);
    let (event, ready) = (Request::post(r#"{"event":"a"}"#), Request::new("GET", "/readyz"));
    assert_eq!(rank.send(&ready).status, 200);
    // UCloud's clean-up.
    fs::remove_dir(&volume.folder).unwrap();
    for made_anew in [false, true] {
        if made_anew {
            volume.make_folder();
        }
        rank.send(&ready).refused(503, "not_ready");
        rank.send(&event).refused_unwritten(503, "storage_failed");
        assert_eq!(rank.send(&Request::new("GET", "/healthz")).status, 200);
    }
    assert_eq!(fs::read_dir(&volume.folder).unwrap().count(), 0);
    drop(rank);
    assert_eq!(volume.start(0).send(&event).status, 200);
}

fn set_modified(path: &Path, at: Timestamp) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(at.millis().try_into().unwrap());
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn the_cron_job_of_the_page_sweeps_both_kinds_of_files_and_spares_folders_of_quiet_jobs() {
    let cron_job = manifest("kind: CronJob");
    let argv = words(&cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]);
    let [program, arguments @ .., directory] = argv.as_slice() else { panic!("{argv:?}") };
    assert_eq!((*program, *directory), ("/audit-log", "/audit"));

    let now = SystemClock.now();
    let [old, young] = [200, 100].map(|days| now.plus_millis(-days * DAY_MS));
    let temp = tempfile::tempdir().unwrap();
    let audit = temp.path().join("audit");
    let theirs = |rank: u32, at: Timestamp| {
        let name = format!("audit-{rank}-{}.jsonl", &at.to_string()[..10]);
        (name, format!("{{\"ts\":{},\"event\":\"a\"}}\n", at.millis()))
    };
    let ours = |rank, at| (SegmentName::new(rank, at).to_string(), format!("{{\"ts\":\"{at}\",\"event\":\"a\"}}\n"));
    let mut kept = BTreeSet::new();
    for (job, at, ((name, line), stays)) in [
        ("1", old, (theirs(0, old), false)),
        ("1", old, (ours(1, old), false)),
        ("2", old, (theirs(0, old), false)),
        ("2", young, (theirs(0, young), true)),
        ("2", young, (ours(0, young), true)),
        // A hold keeps UCloud's files as well.
        ("held", old, (theirs(0, old), true)),
        ("held", old, (("audit-log.hold".to_owned(), String::new()), true)),
    ] {
        let path = audit.join(job).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, line).unwrap();
        set_modified(&path, at);
        kept.extend(stays.then_some(path));
    }
    for (job, at, stays) in [("long over", old, false), ("quiet", young, true)] {
        fs::create_dir(audit.join(job)).unwrap();
        set_modified(&audit.join(job), at);
        kept.extend(stays.then(|| audit.join(job)));
    }
    let config = temp.path().join("config.yaml");
    fs::write(&config, read("config.example.yaml")).unwrap();
    let output =
        crate::support::binary().args(arguments).arg(&audit).env("AUDIT_LOG_CONFIG", &config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut left = BTreeSet::new();
    for job in fs::read_dir(&audit).unwrap() {
        let job = job.unwrap().path();
        let files: Vec<_> = fs::read_dir(&job).unwrap().map(|file| file.unwrap().path()).collect();
        // Its segments went now: it stays for another period.
        left.extend(if files.is_empty() && !job.ends_with("1") { vec![job] } else { files });
    }
    assert_eq!(left, kept);
    assert!(audit.join("1").exists());
}

//! The file system is full, of bytes or of files, and has room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::load::{Answers, Load, Told, post, verified, verify};
use crate::mounts::{Ballast, Mount, image};
use crate::report::{self, Row, alone, held};
use crate::support::{Request, Setup, Sidecar, lines, wait_for};

/// A small file system, with room for few files only.
struct Disk {
    name: &'static str,
    point: PathBuf,
    _mount: Mount,
    _temp: tempfile::TempDir,
}

impl Disk {
    /// Memory, and ext4 on an image file.
    fn both() -> [Self; 2] {
        [
            Self::new("tmpfs", |_, point| Mount::tmpfs(point, "size=8m,nr_inodes=64")),
            Self::new("ext4", |temp, point| {
                image(&temp.join("image"), 16, &["-N", "128"]);
                Mount::image(point, &temp.join("image"), "errors=remount-ro")
            }),
        ]
    }

    fn new(name: &'static str, mount: impl FnOnce(&Path, &Path) -> Mount) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let point = temp.path().join("volume");
        let mount = mount(temp.path(), &point);
        Self { name, point, _mount: mount, _temp: temp }
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.point.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

/// What makes a file system full, until it is dropped.
trait Hog {
    /// Takes what is left.
    fn fill(&mut self);
}

impl Hog for Ballast {
    fn fill(&mut self) {
        Ballast::fill(self);
    }
}

/// Empty files in a directory, as many as there can be.
struct Files {
    directory: PathBuf,
    count: u32,
}

impl Hog for Files {
    fn fill(&mut self) {
        loop {
            match fs::File::create_new(self.directory.join(self.count.to_string())) {
                Ok(_) => self.count += 1,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        (0..self.count).for_each(|number| fs::remove_file(self.directory.join(number.to_string())).unwrap());
    }
}

/// Sees that events are refused while the disk is full, frees it, and returns how long it took until one was accepted.
fn episode(sidecar: &Sidecar, mut hog: Box<dyn Hog>) -> Duration {
    let mut client = sidecar.connect();
    let event = Request::post(r#"{"event":"probe"}"#);
    wait_for("507", || {
        // What refused events have given back is taken again, and so is the rest of a page that was begun.
        hog.fill();
        let answer = client.send(&event);
        (answer.status != 200).then(|| answer.refused(507, "storage_full"))
    });
    wait_for("unreadiness", || {
        hog.fill();
        (sidecar.get("/readyz").status == 503).then_some(())
    });
    drop(hog);
    let freed = Instant::now();
    wait_for("an event that is accepted", || (client.send(&event).status == 200).then_some(()));
    let took = freed.elapsed();
    wait_for("readiness", || (sidecar.get("/readyz").status == 200).then_some(()));
    took
}

/// What came of all episodes.
#[derive(Default)]
struct Sum {
    acknowledged: usize,
    refused: usize,
    times: Vec<Duration>,
}

impl Sum {
    /// Looks at a directory after its sidecar has ended: nothing lost, torn, empty, left over or unaccounted for.
    fn add(&mut self, dir: &Path, answers: &Answers) {
        let found = verified(dir, answers);
        for told in answers.values().filter(|told| !matches!(told, Told::Durable { .. })) {
            assert!(matches!(told, Told::No(507)), "{told:?}");
            self.refused += 1;
        }
        let files = fs::read_dir(dir).unwrap().count();
        assert_eq!((found.torn_tails, found.empty, files), (0, 0, 1), "{found:?}");
        let probes = lines(dir).iter().filter(|line| line["event"] == "probe").count();
        assert_eq!(found.lines - probes, found.acknowledged, "lines that nobody was told of");
        self.acknowledged += found.acknowledged;
    }

    /// The result in words, once it is sure that the half of the times were a second at most.
    fn result(mut self) -> String {
        self.times.sort_unstable();
        let (median, slowest) = (self.times[self.times.len() / 2], self.times[self.times.len() - 1]);
        assert!(slowest <= Duration::from_secs(1), "{:?}", self.times);
        format!(
            "{} acknowledged, {} refused with 507 and `no`; 0 lost, 0 torn, 0 empty or left over; accepted {} ms \
             after the disk was freed (median), {} ms at most",
            self.acknowledged,
            self.refused,
            median.as_millis(),
            slowest.as_millis()
        )
    }
}

/// A ballast file takes the last byte while eight clients append; then it goes.
#[test]
fn a_full_disk_refuses_and_accepts_again_once_it_is_freed() {
    const ROW: Row = Row {
        test: "full::a_full_disk_refuses_and_accepts_again_once_it_is_freed",
        promise: "§4.4 full storage: 507, unready, nothing torn or empty, accepted within a second after it",
        fault: "disk full, then freed",
        how: "tmpfs and loop ext4, filled to the last byte by another file, 8 clients",
        control: "`full::a_refused_event_that_is_there_is_found`; seen red where what was written is not cut off again",
    };
    let _alone = alone();
    if !report::tools(&["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let rounds = report::rounds(6, 100);
    let mut sum = Sum::default();
    for disk in Disk::both() {
        let dir = disk.directory("audit");
        let mut sidecar = Setup::in_dir(&dir).start();
        let load = Load::start(sidecar.address, 8, disk.name, Duration::from_millis(5));
        for _ in 0..rounds {
            let before = load.acknowledged();
            wait_for("answers", || (load.acknowledged() > before + 50).then_some(()));
            sum.times.push(episode(&sidecar, Box::new(Ballast::new(&disk.point.join("ballast")))));
        }
        let answers = load.stop();
        assert!(sidecar.stop().success());
        sum.add(&dir, &answers);
    }
    held(&ROW, 2 * rounds, &sum.result());
}

/// The same where the next commit needs a file of its own, being the first: for lack of bytes, and for lack of inodes.
#[test]
fn a_disk_without_room_for_a_segment_is_left_without_empty_files() {
    const ROW: Row = Row {
        test: "full::a_disk_without_room_for_a_segment_is_left_without_empty_files",
        promise: "§4.4 full storage: 507, unready, nothing torn or empty, accepted within a second after it",
        fault: "no room, or no inode, for a new segment, then freed",
        how: "tmpfs and loop ext4, filled before the first event, 8 clients",
        control: "`full::a_refused_event_that_is_there_is_found`; seen red where a new segment is not removed again",
    };
    let _alone = alone();
    if !report::tools(&["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let rounds = report::rounds(6, 100);
    let mut sum = Sum::default();
    for disk in Disk::both() {
        for round in 0..rounds {
            let dir = disk.directory(&format!("audit-{round}"));
            let mut hog: Box<dyn Hog> = if round % 2 == 0 {
                Box::new(Files { directory: disk.directory("files"), count: 0 })
            } else {
                Box::new(Ballast::new(&disk.point.join("ballast")))
            };
            hog.fill();
            let mut sidecar = Setup::in_dir(&dir).start();
            let load = Load::start(sidecar.address, 8, disk.name, Duration::from_millis(5));
            sum.times.push(episode(&sidecar, hog));
            wait_for("answers", || (load.acknowledged() > 50).then_some(()));
            let answers = load.stop();
            assert!(sidecar.stop().success());
            sum.add(&dir, &answers);
            fs::remove_dir_all(&dir).unwrap();
            if round % 2 == 0 {
                fs::remove_dir(disk.point.join("files")).unwrap();
            }
        }
    }
    held(&ROW, 2 * rounds, &sum.result());
}

/// The control: what the episodes are checked by sees an event that was refused with `no` and is there all the same.
#[test]
fn a_refused_event_that_is_there_is_found() {
    let _alone = alone();
    let sidecar = Sidecar::start();
    assert!(matches!(post(&mut sidecar.connect(), "x"), Told::Durable { .. }));
    let answers = Answers::from([("x".to_owned(), Told::No(507))]);
    let faults = verify(&sidecar.dir, &answers).unwrap_err();
    assert!(faults[0].contains("refused with 507 and `no`, found at"), "{faults:?}");
}

//! What `tail` prints (contract of the read side, §2), and that it follows without loss or repetition whatever happens to the files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use audit_log::clock::{Clock, SystemClock};
use audit_log::record::SegmentName;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{BINARY, PATIENCE, Request, Setup, binary, tool, wait_for};

/// `tail` as a process of its own, and the lines that it has printed so far.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    told: Arc<Mutex<String>>,
}

impl Tail {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = binary();
        command.args(["tail", "--dir"]).arg(dir).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to_lines, to_told) = (Arc::clone(&lines), Arc::clone(&told));
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().for_each(|line| to_lines.lock().unwrap().push(line.unwrap()));
        });
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().for_each(|line| *to_told.lock().unwrap() += &(line.unwrap() + "\n"));
        });
        let tail = Self { child, lines, told };
        wait_for("the end of the search", || tail.told().contains("searched").then_some(()));
        tail
    }

    fn told(&self) -> String {
        self.told.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until so many lines were printed.
    fn wait_lines(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} lines"), || (self.lines.lock().unwrap().len() >= count).then_some(()));
        self.lines()
    }

    fn wait_told(&self, text: &str) {
        wait_for(text, || self.told().contains(text).then_some(()));
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn line(job: &str, event: &str) -> String {
    let ts = "2026-01-28T09:12:44.381Z";
    format!(r#"{{"ts":"{ts}","jobId":"{job}","workspaceId":"w","event":"{event}","message":"","meta":null}}"#)
}

fn append(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn events(lines: &[String]) -> Vec<String> {
    let event = |line: &String| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
    lines.iter().map(event).collect()
}

const A: &str = "audit-0_20260128T091200.000Z.jsonl";
const B: &str = "audit-0_20260128T091300.000Z.jsonl";

#[test]
fn the_last_records_come_the_oldest_of_them_first() {
    let temp = tempfile::tempdir().unwrap();
    let text = (0..30).fold(String::new(), |text, n| text + &line("7", &format!("e{n}")) + "\n");
    append(&temp.path().join("7").join(A), &text);
    append(&temp.path().join("8").join(A), &(line("8", "other") + "\n"));
    let tail = |args: &[&str]| {
        let output = binary().args(["tail", "--dir"]).arg(temp.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        events(&lines)
    };
    let of = |numbers: std::ops::Range<usize>| numbers.map(|n| format!("e{n}")).collect::<Vec<_>>();
    assert_eq!(tail(&["--job", "7"]), of(20..30));
    assert_eq!(tail(&["-n", "2"]), ["e29", "other"]);
    assert_eq!(tail(&["--lines", "40", "--where", "event ^= e"]), of(0..30));
    assert!(tail(&["-n", "0"]).is_empty());
}

#[test]
fn followed_records_go_on_where_the_last_ones_end_and_a_begun_line_is_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second) = (temp.path().join("7").join(A), temp.path().join("7").join(B));
    let begun = line("7", "begun");
    append(&first, &format!("{}\n{}\n{}", line("7", "a"), line("7", "b"), &begun[..30]));
    let tail = Tail::start(temp.path(), &["-f", "-n", "1"]);
    assert_eq!(events(&tail.wait_lines(1)), ["b"]);
    append(&first, &format!("{}\n{}", &begun[30..], &line("7", "never ended")[..40]));
    assert_eq!(events(&tail.wait_lines(2)), ["b", "begun"]);
    assert!(!tail.told().contains("damaged:"), "{}", tail.told());
    // With its successor, nobody ends the line any more.
    append(&second, &(line("7", "c") + "\n\0\n" + &line("8", "foreign") + "\n"));
    append(&temp.path().join("9").join(A), &(line("9", "of a new job") + "\n"));
    assert_eq!(events(&tail.wait_lines(4)), ["b", "begun", "of a new job", "c"]);
    tail.wait_told(&format!("damaged: 7/{A}:3: torn: without a newline"));
    tail.wait_told(&format!("damaged: 7/{B}:1: holds NUL bytes"));
    tail.wait_told(&format!("foreign: 7/{B}:2: not of this folder's job"));
}

#[test]
fn what_was_taken_back_is_told_and_followed_from_there() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("7").join(A);
    let kept = line("7", "kept") + "\n";
    append(&path, &kept);
    let tail = Tail::start(temp.path(), &["-f"]);
    append(&path, &(line("7", "taken back") + "\n"));
    tail.wait_lines(2);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(kept.len() as u64).unwrap();
    tail.wait_told(&format!("cut: 7/{A}: {} bytes are left of what was read; followed from there", kept.len()));
    append(&path, &(line("7", "new") + "\n"));
    assert_eq!(events(&tail.wait_lines(3)), ["kept", "taken back", "new"]);
}

#[test]
fn only_what_is_asked_for_is_followed() {
    let temp = tempfile::tempdir().unwrap();
    let tail = Tail::start(temp.path(), &["-f", "--job", "7", "--where", "event ^= x"]);
    let first: String = ["a", "xb"].into_iter().map(|event| line("7", event) + "\n").collect();
    append(&temp.path().join("7").join(A), &first);
    append(&temp.path().join("8").join(A), &(line("8", "xc") + "\n"));
    append(&temp.path().join("7").join(B), &(line("7", "xd") + "\n"));
    assert_eq!(events(&tail.wait_lines(2)), ["xb", "xd"]);
}

#[test]
fn an_interrupt_or_a_closed_pipe_ends_it_and_a_damaged_line_only_if_it_is_strict() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("7").join(A);
    append(&path, &(line("7", "a") + "\n"));
    let mut tail = Tail::start(temp.path(), &["-f"]);
    let pid = Pid::from_raw(tail.child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let status = wait_for("its end", || tail.child.try_wait().unwrap());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));

    // Nobody writes a record: the pipe alone tells that nobody reads.
    let mut command = binary();
    command.args(["tail", "-f", "--dir"]).arg(temp.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let status = wait_for("its end", || child.try_wait().unwrap());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((status.code(), told.lines().count()), (Some(0), 1), "{told}");

    let mut strict = Tail::start(temp.path(), &["-f", "--strict"]);
    append(&path, "\0\n");
    assert_eq!(wait_for("its end", || strict.child.try_wait().unwrap()).code(), Some(1));
}

/// As in a pager that nobody scrolls: what it took to print is not taken for what it takes to look at the directory.
#[test]
fn what_appears_is_told_soon_after_a_pause_of_whoever_reads() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["tail", "-f", "-n", "0", "--format", "csv", "--columns", "event", "--dir"]).arg(temp.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut head = String::new();
    out.read_line(&mut head).unwrap();
    let many: String = (0..40_000).map(|nth| line("7", &format!("e{nth}")) + "\n").collect();
    append(&temp.path().join("7").join(A), &many);
    wait_for("a full pipe", || (rustix::io::ioctl_fionread(out.get_ref()).unwrap() >= 48 << 10).then_some(()));
    let paused = Instant::now();
    wait_for("the end of the pause", || (paused.elapsed() >= PATIENCE / 15).then_some(()));
    let lines = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lines);
    let reading = std::thread::spawn(move || {
        for _line in out.lines().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    wait_for("what was written", || (lines.load(Ordering::Relaxed) == 40_000).then_some(()));
    append(&temp.path().join("8").join(A), &(line("8", "new") + "\n"));
    wait_for("what appeared", || (lines.load(Ordering::Relaxed) == 40_001).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
}

#[test]
fn an_array_cannot_be_followed() {
    let output = binary().args(["tail", "-f", "--format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "audit-log: --format: an array that is followed never ends: use `ndjson`\n");
}

/// Follows on a terminal of 60 columns until two rows have come, the second of which is appended after the first was shown.
const TERMINAL: &str = r#"
import fcntl, os, pty, struct, subprocess, sys, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
child = subprocess.Popen(sys.argv[3:], stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.DEVNULL)
os.close(slave)
shown = b""
while b"first" not in shown:
    shown += os.read(master, 65536)
with open(sys.argv[1], "a") as segment:
    segment.write(sys.argv[2] + "\n")
while b"second" not in shown:
    shown += os.read(master, 65536)
child.kill()
sys.stdout.buffer.write(shown.replace(b"\r\n", b"\n"))
"#;

#[test]
fn on_a_terminal_the_table_goes_on() {
    if !tool("python3") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("7").join(A);
    append(&path, &(line("7", "first") + "\n"));
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL]).arg(&path).arg(line("7", "second"));
    let output = command.args([BINARY, "tail", "-f", "--dir"]).arg(temp.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = shown.lines().collect();
    let head = ["ts                        jobId  event  message", "2026-01-28T09:12:44.381Z  7      first"];
    assert_eq!(lines, [head[0], head[1], "2026-01-28T09:12:44.381Z  7      second"]);
}

/// Real sidecars in job folders of their own, each killed and started again three times while clients append, and one tail on them all.
#[test]
fn what_sidecars_that_are_killed_have_written_is_followed_each_line_once() {
    let temp = tempfile::tempdir().unwrap();
    let tail = Tail::start(temp.path(), &["-f", "--format", "csv", "--columns", "segment,index,event"]);
    std::thread::scope(|scope| {
        for job in ["job-a", "job-b", "job-c"] {
            let dir = temp.path().join(job);
            scope.spawn(move || {
                fs::create_dir(&dir).unwrap();
                for life in 0..4 {
                    let mut setup = Setup::in_dir(&dir);
                    setup.command.env("UCLOUD_JOB_ID", job);
                    let mut sidecar = setup.start();
                    let before = whole_lines(&dir).len();
                    let mut client = sidecar.connect();
                    let posting = std::thread::spawn(move || {
                        let mut is_answered = |nth: usize| {
                            let event = |n: usize| format!("{{\"event\":\"{life}-{nth}-{n}\"}}\n");
                            client.write(&Request::batch((0..5).map(event).collect::<String>()).bytes());
                            client.read().is_some()
                        };
                        (0..usize::MAX).take_while(|nth| is_answered(*nth)).count()
                    });
                    wait_for("a hundred lines of this life", || {
                        (whole_lines(&dir).len() >= before + 100).then_some(())
                    });
                    sidecar.kill();
                    assert!(posting.join().unwrap() >= 19);
                }
            });
        }
    });
    let mut written = Vec::new();
    for job in ["job-a", "job-b", "job-c"] {
        let event = |line: &str| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned();
        let lines = whole_lines(&temp.path().join(job)).into_iter();
        written.extend(lines.map(|(segment, index, line)| format!("{job}/{segment},{index},{}", event(&line))));
    }
    assert!(written.len() >= 3 * 400);
    let mut followed = tail.wait_lines(1 + written.len()).split_off(1);
    let per_segment = |lines: &[String]| {
        let mut segments: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            segments.entry(line.split(',').next().unwrap().to_owned()).or_default().push(line.clone());
        }
        segments
    };
    assert_eq!(per_segment(&followed), per_segment(&written), "each segment's lines come in its order");
    followed.sort();
    written.sort();
    assert_eq!(followed, written);
}

/// The lines that are in a folder's segments, each with its segment and number; a torn one is none.
fn whole_lines(dir: &Path) -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let content = fs::read_to_string(entry.path()).unwrap();
        let whole = content.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate();
        let segment = entry.file_name().into_string().unwrap();
        lines.extend(whole.map(|(index, line)| (segment.clone(), index, line.to_owned())));
    }
    lines.sort();
    lines
}

const WRITERS: usize = 4;
const LINES_EACH: usize = 250_000;
/// A segment's lines; and a job's.
const SEGMENT_LINES: usize = 2_500;
const JOB_LINES: usize = 10_000;

/// Writes lines as fast as it can, in pieces that end anywhere; after some it begins a new segment, after more a new job.
fn write_fast(root: &Path, writer: usize, closed: &Mutex<Vec<(usize, PathBuf)>>) {
    let mut path = PathBuf::new();
    let mut waiting = Vec::new();
    for number in 0..LINES_EACH {
        if number.is_multiple_of(SEGMENT_LINES) {
            append_bytes(&path, &mut waiting, 0);
            closed.lock().unwrap().push((number, path.clone()));
            let folder = root.join(format!("job-{writer}-{}", number / JOB_LINES));
            fs::create_dir_all(&folder).unwrap();
            // Named by the time, as segments are, and by no name that was there: the next writer is a restarted one.
            path = wait_for("a free name", || {
                let path = folder.join(SegmentName::new(0, SystemClock.now()).to_string());
                fs::File::create_new(&path).ok().map(|_| path)
            });
        }
        let job = format!("job-{writer}-{}", number / JOB_LINES);
        waiting.extend_from_slice(line(&job, &format!("{writer} {number}")).as_bytes());
        waiting.push(b'\n');
        if waiting.len() > 200_000 {
            append_bytes(&path, &mut waiting, 77);
        }
    }
    append_bytes(&path, &mut waiting, 0);
}

/// Appends all but so many of the bytes, which stay.
fn append_bytes(path: &Path, bytes: &mut Vec<u8>, left: usize) {
    if !bytes.is_empty() {
        let rest = bytes.split_off(bytes.len() - left);
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
        *bytes = rest;
    }
}

/// Four writers write a million lines, in segments and job folders that come anew, while closed segments are compressed and
/// swept away behind the one that follows.
#[test]
fn every_line_is_followed_across_rotation_jobs_compression_and_sweeps() {
    if !tool("gzip") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.args(["tail", "-f", "-n", "0", "--format", "csv", "--columns", "event", "--dir"]).arg(temp.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Of each writer's segments, how many lines were seen.
    let seen: [Vec<AtomicUsize>; WRITERS] =
        std::array::from_fn(|_| (0..LINES_EACH / SEGMENT_LINES).map(|_| AtomicUsize::new(0)).collect());
    let closed: [Mutex<Vec<(usize, PathBuf)>>; WRITERS] = std::array::from_fn(|_| Mutex::new(Vec::new()));
    let root = temp.path();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "event", "nothing is written before it follows");
    let (compressed, swept, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (writer, closed) in closed.iter().enumerate() {
            scope.spawn(move || write_fast(root, writer, closed));
        }
        let (seen, closed, compressed, swept, is_over) = (&seen, &closed, &compressed, &swept, &is_over);
        scope.spawn(move || {
            let mut packed: Vec<(usize, usize, PathBuf)> = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                for (writer, closed) in closed.iter().enumerate() {
                    for (number, path) in closed.lock().unwrap().drain(..).filter(|(number, _)| number % 3 > 0) {
                        assert!(Command::new("gzip").arg(&path).status().unwrap().success());
                        compressed.fetch_add(1, Ordering::Relaxed);
                        packed.push((writer, number, path.with_extension("jsonl.gz")));
                    }
                }
                // What was swept away before it was read would be lost.
                packed.retain(|(writer, number, path)| {
                    let seen = &seen[*writer][number / SEGMENT_LINES - 1];
                    let is_read = seen.load(Ordering::Relaxed) == SEGMENT_LINES;
                    if is_read {
                        fs::remove_file(path).unwrap();
                        swept.fetch_add(1, Ordering::Relaxed);
                    }
                    !is_read
                });
                std::thread::yield_now();
            }
        });
        let mut wrong = None;
        for (count, event) in (1..).zip(lines) {
            let event = event.unwrap();
            let (writer, number) = event.split_once(' ').unwrap();
            let (writer, number): (usize, usize) = (writer.parse().unwrap(), number.parse().unwrap());
            let expected = seen[writer][number / SEGMENT_LINES].fetch_add(1, Ordering::Relaxed);
            if number % SEGMENT_LINES != expected {
                wrong = Some(format!("{event} as line {expected} of its segment"));
            }
            if wrong.is_some() || count == WRITERS * LINES_EACH {
                break;
            }
        }
        // A failure must not leave the sweeper waiting.
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
        child.kill().unwrap();
    });
    child.wait().unwrap();
    assert!(compressed.into_inner() >= 40 && swept.into_inner() >= 40);
}

//! What somebody plants in a folder of a volume harms nobody who reads it: no command hangs, grows or loses a good record,
//! none leaves the directory, and what could not be read is told.
//!
//! Each command runs with 64 MiB for all that it writes to, and is ended when it takes longer than anything should.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use flate2::write::GzEncoder;
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::support::console::Console;
use crate::support::{BINARY, PATIENCE, binary, tool, tools, wait_for};

/// Every command of auditors, as it answers with records of all segments.
const COMMANDS: [&[&str]; 11] = [
    &["query", "--format", "ndjson", "--order", "asc"],
    &["query", "--format", "ndjson", "--order", "desc"],
    &["query", "--format", "ndjson", "--limit", "10"],
    &["query", "--format", "csv", "--columns", "ts,segment,index,rank,jobId,meta.n", "--text", "good"],
    &["query", "--format", "table", "--since", "2026-01-28", "--where", "meta.n >= 0"],
    &["query", "--format", "json", "--order", "asc", "--limit", "10", "--since", "2026-01-28"],
    &["export", "--out", "-"],
    &["tail", "-n", "50", "--format", "csv"],
    &["facets", "event", "meta.n", "jobId", "segment"],
    &["histogram", "--interval", "minute", "--by", "jobId"],
    &["histogram", "--until", "2026-01-29"],
];

const SEGMENT: &str = "audit-0_20260128T000000.000Z.jsonl";

fn line(job: &str, nth: usize) -> String {
    let (minute, second) = (nth / 60, nth % 60);
    format!(
        "{{\"ts\":\"2026-01-28T09:{minute:02}:{second:02}.000Z\",\"jobId\":\"{job}\",\"workspaceId\":\"w\",\"event\":\"GOOD\",\
         \"message\":\"a good record\",\"meta\":{{\"n\":{nth}}}}}\n"
    )
}

fn lines(job: &str, range: std::ops::Range<usize>) -> String {
    range.map(|nth| line(job, nth)).collect()
}

/// Writes good segments: of each kind one, in two jobs' folders.
fn plant_good(dir: &Path) {
    for (job, shift) in [("5003592", 0), ("5003593", 7)] {
        let folder = dir.join(job);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(SEGMENT), lines(job, shift..100)).unwrap();
        fs::write(folder.join("audit-0_20260128T010000.000Z.jsonl.gz"), gzip(lines(job, 100..200).as_bytes())).unwrap();
        fs::write(folder.join("audit-0_20260128T020000.000Z.jsonl.zst"), zstd(lines(job, 200..300).as_bytes()))
            .unwrap();
        fs::write(folder.join("audit-1-2026-01-28.jsonl"), lines(job, 300..400 + shift)).unwrap();
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A frame of Zstandard of `blocks` times 128 KiB of zeros, 4 bytes each (RFC 8878 §3.1.1.2.3); `window` is its descriptor.
fn zstd_bomb(blocks: u32, window: u8) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, window];
    for at in 0..blocks {
        let header = (128 << 10 << 3) | 0b010 | u32::from(at + 1 == blocks);
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

/// A file with holes: each part lies at an offset, and all ends at `bytes`.
fn sparse(path: &Path, parts: &[(u64, &[u8])], bytes: u64) {
    let mut file = fs::File::create(path).unwrap();
    for (at, part) in parts {
        file.seek(SeekFrom::Start(*at)).unwrap();
        file.write_all(part).unwrap();
    }
    file.set_len(bytes).unwrap();
}

/// Runs the binary with 64 MiB for what it writes to, and for two minutes at most.
#[track_caller]
fn run(args: &[&str], dir: &Path) -> Output {
    let limited = "ulimit -d 65536 && exec timeout -s KILL 120 \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, BINARY]).args(args).arg("--dir").arg(dir);
    command.output().unwrap()
}

/// What was told, where nothing in it may be obeyed by a terminal, or pass for a message of ours.
#[track_caller]
fn told(output: &Output) -> String {
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    for line in told.lines() {
        assert!(line.starts_with("audit-log: ") && !line.contains(char::is_control), "{line:?}");
    }
    told
}

/// The code that a command ends with, unless a signal ended it: it ran out of memory, or was not done in time.
#[track_caller]
fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// What is planted, and a part of the path that is told as unreadable then; `None` where what is there is passed over, or damaged lines.
type Plant = (&'static str, Option<&'static str>, fn(&Path));

/// Each is planted in a folder of its own. In a folder `outside` beside the directory is a segment that nobody may see.
const PLANTS: [Plant; 26] = [
    ("a FIFO with nobody at its other end", None, |dir| {
        rustix::fs::mknodat(CWD, dir.join(SEGMENT), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }),
    ("a FIFO that somebody holds open", None, |dir| {
        rustix::fs::mknodat(CWD, dir.join(SEGMENT), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let both = fs::OpenOptions::new().read(true).write(true).open(dir.join(SEGMENT)).unwrap();
        // As long as the tests run.
        std::mem::forget(both);
    }),
    ("a FIFO in the place of a folder's plain segment", None, |dir| {
        rustix::fs::mknodat(CWD, dir.join(SEGMENT), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::write(dir.join(SEGMENT.to_owned() + ".gz"), gzip(b"damaged\n")).unwrap();
    }),
    ("a socket", None, |dir| drop(std::os::unix::net::UnixListener::bind(dir.join(SEGMENT)).unwrap())),
    ("devices", None, |dir| {
        for (minor, rank) in [(5, 0), (8, 1)] {
            let (path, device) =
                (dir.join(format!("audit-{rank}_20260128T000000.000Z.jsonl")), rustix::fs::makedev(1, minor));
            match rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, device) {
                // Not everybody may make one.
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }),
    ("a link to a segment outside", None, |dir| {
        symlink(dir.join("../../outside").join(SEGMENT), dir.join(SEGMENT)).unwrap();
    }),
    ("a link to a device", None, |dir| symlink("/dev/zero", dir.join(SEGMENT)).unwrap()),
    ("a link to a folder outside", None, |dir| symlink(dir.join("../../outside"), dir.join("evil")).unwrap()),
    ("links to themselves", None, |dir| {
        symlink(SEGMENT, dir.join(SEGMENT)).unwrap();
        symlink(".", dir.join("again")).unwrap();
        symlink("..", dir.join("up")).unwrap();
    }),
    ("a link to nothing", None, |dir| symlink("nothing", dir.join(SEGMENT)).unwrap()),
    ("another job's segments under earlier names", None, |dir| {
        for (nth, name) in [SEGMENT, "audit-1-2026-01-28.jsonl"].into_iter().enumerate() {
            let earlier = format!("audit-{nth}_20250101T000000.000Z.jsonl");
            fs::hard_link(dir.join("../5003592").join(name), dir.join(earlier)).unwrap();
        }
    }),
    ("a folder with a segment's name", None, |dir| {
        fs::create_dir(dir.join(SEGMENT)).unwrap();
        fs::write(dir.join(SEGMENT).join(SEGMENT), "damaged\n").unwrap();
    }),
    ("a hole of 1 TiB", None, |dir| sparse(&dir.join(SEGMENT), &[], 1 << 40)),
    ("a hole as long as the file system can make it", None, |dir| {
        let file = fs::File::create(dir.join(SEGMENT)).unwrap();
        let bytes = (40..63).rev().map(|bits| (1 << bits) - 1).find(|bytes| file.set_len(*bytes).is_ok());
        assert!(bytes.is_some(), "not even 1 TiB");
    }),
    ("holes of 1 TiB between damaged lines", None, |dir| {
        let parts: [(u64, &[u8]); 3] = [(0, b"x\n"), (1 << 40, b"\nx\nx"), (2 << 40, b"\n")];
        sparse(&dir.join(SEGMENT), &parts, 3 << 40);
    }),
    ("a line without end", None, |dir| fs::write(dir.join(SEGMENT), vec![b'x'; 64 << 20]).unwrap()),
    ("empty files", Some(""), |dir| {
        for name in [SEGMENT, "audit-1_20260128T000000.000Z.jsonl.gz", "audit-2_20260128T000000.000Z.jsonl.zst"] {
            fs::write(dir.join(name), "").unwrap();
        }
    }),
    ("gzip that unpacks to 10 GiB", Some(""), |dir| {
        let member = gzip(&vec![0; 16 << 20]);
        fs::write(dir.join(SEGMENT.to_owned() + ".gz"), member.repeat(640)).unwrap();
    }),
    ("gzip of 100,000 members", None, |dir| {
        fs::write(dir.join(SEGMENT.to_owned() + ".gz"), gzip(b"").repeat(100_000)).unwrap();
    }),
    ("gzip within gzip", None, |dir| {
        fs::write(dir.join(SEGMENT.to_owned() + ".gz"), gzip(&gzip(&vec![0; 16 << 20]))).unwrap();
    }),
    ("Zstandard that unpacks to 100 GiB", Some(""), |dir| {
        fs::write(dir.join(SEGMENT.to_owned() + ".zst"), zstd_bomb(819_200, 0x38)).unwrap();
    }),
    ("Zstandard of 100,000 frames", None, |dir| {
        fs::write(dir.join(SEGMENT.to_owned() + ".zst"), zstd(b"").repeat(100_000)).unwrap();
    }),
    ("Zstandard that wants a window of 1 GiB", Some(""), |dir| {
        fs::write(dir.join(SEGMENT.to_owned() + ".zst"), zstd_bomb(2, 0xa0)).unwrap();
    }),
    ("streams that are cut, and none", Some(""), |dir| {
        let (gzip, zstd) = (gzip(b"damaged\n"), zstd(b"damaged\n"));
        for (rank, bytes) in [&gzip[..gzip.len() - 1], b"no gzip", &[0x1f, 0x8b][..]].into_iter().enumerate() {
            fs::write(dir.join(format!("audit-{rank}_20260128T000000.000Z.jsonl.gz")), bytes).unwrap();
        }
        for (rank, bytes) in [&zstd[..zstd.len() - 1], b"no zstd", &zstd[..3]].into_iter().enumerate() {
            fs::write(dir.join(format!("audit-{rank}_20260129T000000.000Z.jsonl.zst")), bytes).unwrap();
        }
    }),
    ("folders in folders", Some("/d"), |dir| {
        let deep = (0..60).fold(dir.to_owned(), |deep, _| deep.join("d"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join(SEGMENT), lines("d", 0..1)).unwrap();
    }),
    ("names that are no text, or more than that", Some("\u{fffd}"), |dir| {
        for name in
            [&b"\xff\xfe"[..], b"a\naudit-log: searched 9 of 9\r\x1b[2J\xe2\x80\xae\x9b", b"audit-log\x1b]0;x\x07\n"]
        {
            let folder = dir.join(OsStr::from_bytes(name));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(SEGMENT), "damaged\n").unwrap();
            fs::write(folder.join("audit-0_20260129T000000.000Z.jsonl.gz"), "no gzip").unwrap();
        }
    }),
];

/// A directory that has good segments beside the folders in which something is planted.
fn planted(plants: &[Plant]) -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("outside")).unwrap();
    fs::write(temp.path().join("outside").join(SEGMENT), lines("evil", 0..1).replace("GOOD", "SECRET")).unwrap();
    let dir = temp.path().join("audit");
    fs::create_dir(&dir).unwrap();
    plant_good(&dir);
    for (nth, (_, _, plant)) in plants.iter().enumerate() {
        let folder = dir.join(format!("evil{nth:02}"));
        fs::create_dir(&folder).unwrap();
        plant(&folder);
    }
    (temp, dir)
}

/// All at once, for every command. What nobody can read to its end is told and makes exit 1; the answers are, byte for byte,
/// those without anything planted.
#[test]
fn what_is_planted_changes_no_answer_and_is_told() {
    if !["sh", "timeout"].iter().all(|name| tool(name)) {
        return;
    }
    let (_good, dir) = planted(&[]);
    let expected: Vec<Output> = COMMANDS.iter().map(|args| run(args, &dir)).collect();
    assert!(expected.iter().all(|output| output.status.success() && !output.stdout.is_empty()), "{expected:?}");
    let (_all, dir) = planted(&PLANTS);
    for (args, expected) in COMMANDS.iter().zip(&expected) {
        let output = run(args, &dir);
        let told = told(&output);
        assert_eq!(code(&output), 1, "{args:?}: {told}");
        assert!(output.stdout == expected.stdout, "{args:?}: {told}\n{}", String::from_utf8_lossy(&output.stdout));
        for (nth, (what, part, _)) in PLANTS.iter().enumerate() {
            let is_told = told.lines().any(|line| {
                line.starts_with("audit-log: unreadable: ")
                    && line.contains(&format!("evil{nth:02}"))
                    && part.is_none_or(|part| line.contains(part))
            });
            assert_eq!(is_told, part.is_some(), "{args:?}: {what}: {told}");
        }
    }
}

/// Where files can be as long as offsets can tell: 8 EiB, of which nothing is there.
#[test]
fn the_longest_file_takes_neither_time_nor_memory() {
    let shared = Path::new("/dev/shm");
    if !["sh", "timeout"].iter().all(|name| tool(name)) || !shared.is_dir() {
        return;
    }
    let temp = tempfile::tempdir_in(shared).unwrap();
    let record = line("j", 0);
    let end = (1_u64 << 63) - 1 - (1 << 20);
    sparse(
        &temp.path().join(SEGMENT),
        &[(0, record.as_bytes()), (end, b"\n"), (end + 1, record.as_bytes())],
        end + (1 << 19),
    );
    for order in ["asc", "desc"] {
        for limit in [&["--limit", "5"][..], &[]] {
            let output = run(&[&["query", "--order", order], limit].concat(), temp.path());
            let told = told(&output);
            assert!(output.status.success(), "{told}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), record.repeat(2), "{told}");
            assert!(told.contains("4 lines, 2 damaged"), "{told}");
        }
    }
}

/// A value as long as a line may be, in so many objects that all of them together are far more than there is memory for.
#[test]
fn a_long_value_that_many_columns_show_is_held_once() {
    const DEPTH: usize = 40;
    let temp = TempDir::new().unwrap();
    let (dir, views) = (temp.path().join("audit"), temp.path().join("views.yaml"));
    let paths: Vec<_> = (0..DEPTH).map(|depth| format!("meta{}", ".a".repeat(depth))).collect();
    let columns = paths.join(",");
    let of_view = |path: &String| format!("      - {{key: {}, from: {path}}}\n", path.replace('.', "_"));
    let of_view: String = paths.iter().map(of_view).collect();
    fs::write(&views, format!("views:\n  deep:\n    columns:\n{of_view}")).unwrap();
    let value = "x".repeat((2 << 20) - 1000);
    let meta = (1..DEPTH).fold(format!("\"{value}\""), |meta, _| format!("{{\"a\":{meta}}}"));
    fs::create_dir(&dir).unwrap();
    for second in 0..2 {
        let line = line("1", second).replace(&format!("{{\"n\":{second}}}"), &meta);
        fs::write(dir.join(format!("audit-{second}_20260128T000000.000Z.jsonl")), line).unwrap();
    }
    let (csv, views) = (["--format", "csv", "--columns", &columns], views.to_str().unwrap());
    let ways: [&[&str]; 6] = [
        &[&["query"][..], &csv].concat(),
        &[&["query", "--where", "meta exists"][..], &csv].concat(),
        &[&["export", "--out", "-"][..], &csv].concat(),
        &[&["tail"][..], &csv].concat(),
        &["query", "--views", views, "--view", "deep", "--format", "ndjson"],
        &["query", "--views", views, "--view", "deep", "--where", "meta exists", "--format", "json"],
    ];
    for way in ways {
        let output = run(way, &dir);
        assert_eq!(code(&output), 0, "{way:?}: {}", told(&output));
        // All of it is in each cell.
        let least = 2 * DEPTH * value.len();
        assert!((least..least + (1 << 20)).contains(&output.stdout.len()), "{way:?}: {}", output.stdout.len());
    }
    let table = run(&["query", "--format", "table", "--columns", &columns], &dir);
    assert_eq!(code(&table), 0, "{}", told(&table));
}

/// A console, too, answers what it answers without anything planted, but that it says that something could not be read.
#[test]
fn a_console_answers_whatever_is_planted() {
    let targets = [
        "/api/v1/events?limit=1000&order=asc",
        "/api/v1/events?limit=30&text=good",
        "/api/v1/events/export?format=csv",
        "/api/v1/facets?field=jobId&field=segment",
        "/api/v1/histogram?interval=minute",
    ];
    let answers = |dir: &Path| {
        let console = Console::over(dir);
        let answers = targets.map(|target| {
            let answer = console.get(target);
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            // What was looked at differs, and the cursor tells when.
            let end = |text: &str| ["\"next\":", "\"searched\":"].iter().filter_map(|part| text.find(part)).min();
            let searched = format!("{}{:?}", answer.text(), answer.header("audit-searched"));
            let is_whole = searched.contains("\"unreadable\":0") || searched.contains("unreadable=0");
            let text = answer.text();
            (text[..end(&text).unwrap_or(text.len())].to_owned(), is_whole)
        });
        (answers, console.peak_kib())
    };
    let ((_good, good), (_all, all)) = (planted(&[]), planted(&PLANTS));
    let ((expected, _), (given, peak)) = (answers(&good), answers(&all));
    for (nth, target) in targets.iter().enumerate() {
        assert_eq!(given[nth].0, expected[nth].0, "{target}");
        assert!(expected[nth].1 && !given[nth].1, "{target}");
    }
    assert!(peak < 96 << 10, "{peak} KiB");
}

/// 3,000 files and folders that can't be read: they are counted, and fill neither a terminal nor a log.
#[test]
fn what_cannot_be_read_is_told_in_a_few_lines() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("j")).unwrap();
    fs::create_dir(temp.path().join("names")).unwrap();
    for nth in 0..1500_u32 {
        fs::write(temp.path().join("j").join(format!("audit-{nth}_20260128T000000.000Z.jsonl.gz")), "no gzip").unwrap();
        let name = [&[0xff][..], nth.to_string().as_bytes()].concat();
        fs::create_dir(temp.path().join("names").join(OsStr::from_bytes(&name))).unwrap();
    }
    let output = binary().args(["query", "--dir"]).arg(temp.path()).output().unwrap();
    let told = told(&output);
    assert_eq!(code(&output), 1);
    assert!(told.ends_with("0 foreign, 1,501 unreadable (times in UTC)\n"), "{told}");
    assert_eq!(told.lines().count(), 101, "{told}");
    let console = Console::over(temp.path());
    for _ in 0..3 {
        assert_eq!(console.json("/api/v1/events")["searched"]["unreadable"], 1501);
    }
    let requests =
        wait_for("the requests in the log", || Some(console.lines("request").len()).filter(|lines| *lines == 3));
    // A minute may end meanwhile.
    assert!(console.lines("not read").len() <= 200 && requests == 3, "{}", console.log());
}

/// Planted before a follower begins, or while it follows: a record that is written then is told, and by a process of 64 MiB.
#[test]
fn following_goes_on_whatever_is_planted() {
    if !tool("sh") {
        return;
    }
    for is_before in [true, false] {
        let (_temp, dir) = planted(if is_before { &PLANTS } else { &[] });
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -d 65536 && exec \"$0\" \"$@\"", BINARY, "tail", "-f", "-n", "1", "--dir"])
            .arg(&dir);
        let told = fs::File::create(dir.join("../told")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(told).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let reader = thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let next = |what: &str| {
            let told = || fs::read_to_string(dir.join("../told")).unwrap();
            lines.recv_timeout(PATIENCE * 4).unwrap_or_else(|error| panic!("{what}: {error}: {}", told()))
        };
        assert!(next("the last record").contains("GOOD"));
        if !is_before {
            for (nth, (_, _, plant)) in PLANTS.iter().enumerate() {
                let folder = dir.join(format!("evil{nth:02}"));
                fs::create_dir(&folder).unwrap();
                plant(&folder);
            }
        }
        let mut segment = fs::OpenOptions::new().append(true).open(dir.join("5003592").join(SEGMENT)).unwrap();
        segment.write_all(line("5003592", 3000).as_bytes()).unwrap();
        assert_eq!(next("the record that has appeared") + "\n", line("5003592", 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        // That nobody waits for more is no fault.
        drop(reader.join().unwrap());
    }
}

/// Whoever adds a command adds it to the list.
#[test]
fn every_command_that_reads_directories_is_among_those_that_are_run() {
    let help = |args: &[&str]| String::from_utf8(binary().args(args).arg("--help").output().unwrap().stdout).unwrap();
    let (_, commands) = help(&[]).split_once("Commands:").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let names =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let reading: Vec<_> = names.filter(|name| help(&[name]).contains("[NAME=]PATH")).map(str::to_owned).collect();
    assert!(reading.len() >= 4, "{reading:?}");
    // What a console answers is held against this elsewhere.
    for name in reading.iter().filter(|name| *name != "console") {
        assert!(COMMANDS.iter().any(|args| args[0] == name), "{name}");
    }
}

/// Does something again and again, until it is dropped.
struct Meanwhile {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Meanwhile {
    fn again(mut act: impl FnMut() + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !is_ended.load(Ordering::Relaxed) {
                act();
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // A panic of it fails the test, unless that has failed already.
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// The good records are all there, whatever happens to a folder beside them; and what is no good record never is.
#[test]
fn what_changes_while_it_is_read_takes_no_other_record_along() {
    if !["sh", "timeout"].iter().all(|name| tool(name)) {
        return;
    }
    let (temp, dir) = planted(&[]);
    let expected: Vec<_> = COMMANDS.iter().map(|args| run(args, &dir)).collect();
    // A folder that is a link to one outside, every other moment.
    let (folder, link, aside) = (dir.join("evil"), temp.path().join("link"), temp.path().join("aside"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(SEGMENT), "damaged\n").unwrap();
    let outside = temp.path().join("outside");
    let _swapped = Meanwhile::again(move || {
        symlink(&outside, &link).unwrap();
        fs::rename(&folder, &aside).unwrap();
        fs::rename(&link, &folder).unwrap();
        fs::remove_file(&folder).unwrap();
        fs::rename(&aside, &folder).unwrap();
    });
    // Segments that are cut, grow, are rewritten and compressed.
    let folder = dir.join("5003594");
    fs::create_dir(&folder).unwrap();
    let bytes = lines("5003594", 0..2000).replace("GOOD", "CHANGING").into_bytes();
    let packed = gzip(&bytes);
    let _changing = Meanwhile::again(move || {
        let path = folder.join(SEGMENT);
        fs::write(&path, &bytes).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2 + 7]).unwrap();
        fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        fs::write(folder.join(SEGMENT.to_owned() + ".gz"), &packed).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
        fs::remove_file(folder.join(SEGMENT.to_owned() + ".gz")).unwrap();
    });
    for round in 0..60 {
        let nth = round % COMMANDS.len();
        let (args, expected) = (COMMANDS[nth], &expected[nth]);
        let is_whole = args[0] == "export" || args.contains(&"ndjson") && !args.contains(&"--limit");
        let output = if is_whole { run(args, &dir) } else { run(&[args, &["--event", "GOOD"][..]].concat(), &dir) };
        let told = told(&output);
        assert!(matches!(code(&output), 0 | 1), "{args:?}: {told}");
        assert!(told.contains("audit-log: searched "), "{args:?}: {told}");
        let answer = String::from_utf8(output.stdout).unwrap();
        let kept: String =
            answer.split_inclusive('\n').filter(|line| !(is_whole && line.contains("CHANGING"))).collect();
        assert!(kept.as_bytes() == expected.stdout, "{args:?}: {told}\n{kept}");
    }
}

/// Another user than root runs the binary.
#[test]
fn what_may_not_be_read_is_told_and_the_rest_is_answered() {
    if !tools(&["sh", "timeout", "setpriv"]) {
        return;
    }
    let (temp, dir) = planted(&[]);
    let expected = run(COMMANDS[0], &dir);
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("closed", 0o000), ("unlisted", 0o311), ("listed", 0o644)] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join(SEGMENT), "damaged\n").unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let segment = dir.join("5003592").join("audit-9_20260128T000000.000Z.jsonl");
    fs::write(&segment, "damaged\n").unwrap();
    fs::set_permissions(&segment, fs::Permissions::from_mode(0o200)).unwrap();
    // Where a container's volume is, not everybody may pass: the binary is where the user may.
    let copy = temp.path().join("audit-log");
    fs::copy(BINARY, &copy).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy).args(COMMANDS[0]);
    let output = command.arg("--dir").arg(&dir).output().unwrap();
    let told = told(&output);
    assert_eq!(code(&output), 1, "{told}");
    assert!(output.stdout == expected.stdout, "{told}");
    for part in ["audit/closed: ", "audit/unlisted: ", "audit/listed: ", "5003592/audit-9_20260128T000000.000Z.jsonl: "]
    {
        let is_told = |line: &str| line.starts_with("audit-log: unreadable: ") && line.contains(part);
        assert!(told.lines().any(is_told), "{part}: {told}");
    }
    assert_eq!(told.matches("Permission denied").count(), 4, "{told}");
}

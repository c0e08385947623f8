//! A block device over a [`Disk`] whose power can be cut.
//!
//! The kernel has no block device that forgets. So a FUSE file system of one file (its root is that file) serves the
//! disk, and a loop device lies on the file: it turns a flush into `fsync`, which arrives here. The file is opened with
//! `FOPEN_DIRECT_IO`, so the kernel keeps nothing of it back, and each write and flush is seen when it is made.
//!
//! The protocol is that of `linux/fuse.h`, version 7.31: a header and a structure of integers in the machine's order,
//! by `read` and `write` on `/dev/fuse`. Nothing here may touch the file system on the device: the kernel would wait
//! for us.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::{Dice, Disk, Keep};
use crate::report::say;
use crate::support::{PATIENCE, wait_for};

/// A request's header, its longest structure, and the longest write we have said to take.
const REQUEST_MAX: usize = 40 + 4096 + WRITE_MAX;
const WRITE_MAX: usize = 128 << 10;

const EIO: i32 = 5;
const ENODEV: i32 = 19;
const ENOSYS: i32 = 38;

/// The disk and its power.
struct Machine {
    disk: Disk,
    is_on: bool,
    /// The power is cut instead of this write or flush, counted from 1, or of the first flush from there on.
    cut_at: Option<u64>,
    cuts_flushes_only: bool,
    writes: u64,
    flushes: u64,
}

impl Machine {
    /// Whether a write or flush is still done.
    fn is_on_for_one_more(&mut self, is_flush: bool) -> bool {
        if let Some(left) = &mut self.cut_at {
            *left = left.saturating_sub(1);
            self.is_on &= *left > 0 || self.cuts_flushes_only && !is_flush;
        }
        self.is_on
    }
}

/// A loop device whose power can be cut.
pub(super) struct Device {
    machine: Arc<Mutex<Machine>>,
    server: Option<JoinHandle<()>>,
    file: PathBuf,
    /// Such as `/dev/loop3`.
    pub(super) path: PathBuf,
    _temp: tempfile::TempDir,
}

impl Device {
    /// A device with this content, switched on.
    pub(super) fn new(image: Vec<u8>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("disk");
        File::create(&file).unwrap();
        let fuse = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        // The connection is handed to mount(8) as its standard input.
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=100600,user_id=0,group_id=0", "forgetful"]).arg(&file);
        run(mount.stdin(Stdio::from(fuse.try_clone().unwrap())));
        drop(mount);
        let machine = Machine {
            disk: Disk::new(image),
            is_on: true,
            cut_at: None,
            cuts_flushes_only: false,
            writes: 0,
            flushes: 0,
        };
        let machine = Arc::new(Mutex::new(machine));
        let server = std::thread::spawn({
            let machine = Arc::clone(&machine);
            move || serve(&fuse, &machine)
        });
        let mut device = Self { machine, server: Some(server), file, path: PathBuf::new(), _temp: temp };
        let path = run(Command::new("losetup").args(["--find", "--show"]).arg(&device.file));
        device.path = path.trim().into();
        device
    }

    /// Writes and flushes that were made.
    pub(super) fn counts(&self) -> (u64, u64) {
        let machine = self.machine.lock().unwrap();
        (machine.writes, machine.flushes)
    }

    /// Writes that have not been flushed.
    pub(super) fn pending(&self) -> usize {
        self.machine.lock().unwrap().disk.pending()
    }

    /// Whether the device takes writes and flushes.
    pub(super) fn is_on(&self) -> bool {
        self.machine.lock().unwrap().is_on
    }

    /// Cuts the power: from now on everything fails with EIO.
    pub(super) fn cut(&self) {
        self.machine.lock().unwrap().is_on = false;
    }

    /// Cuts the power instead of the write or flush with this number, from 1, counted from now.
    pub(super) fn cut_at(&self, number: u64) {
        self.machine.lock().unwrap().cut_at = Some(number);
    }

    /// Cuts the power instead of the first flush from there on: something is in the cache then.
    pub(super) fn cut_at_flush(&self, number: u64) {
        let mut machine = self.machine.lock().unwrap();
        (machine.cut_at, machine.cuts_flushes_only) = (Some(number), true);
    }

    /// Takes the device away and returns what is on the disk when the power is back. Nothing may be mounted from it.
    pub(super) fn after_cut(mut self, keep: Keep, dice: &mut Dice) -> Vec<u8> {
        self.cut();
        self.remove().unwrap();
        // The server has ended, so this is the only one left.
        let machine = Arc::clone(&self.machine);
        drop(self);
        let machine = Arc::into_inner(machine).unwrap().into_inner().unwrap();
        machine.disk.after_cut(keep, dice)
    }

    /// Detaches the loop device and unmounts the file below it, which ends the server.
    fn remove(&mut self) -> Result<(), String> {
        let Some(server) = self.server.take() else { return Ok(()) };
        if !self.path.as_os_str().is_empty() {
            try_run(Command::new("losetup").arg("--detach").arg(&self.path))?;
        }
        // The kernel detaches a moment later if somebody, such as blkid, has the device open just now. This runs in
        // `drop`, too, and so must not panic.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = try_run(Command::new("umount").arg(&self.file)) {
            if Instant::now() > deadline {
                try_run(Command::new("umount").arg("--lazy").arg(&self.file))?;
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server.join().map_err(|_| "the server has panicked".to_owned())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            say(&format!("the device was not taken away: {error}"));
        }
    }
}

/// An ext4 file system on a device, mounted on a directory of its own.
pub(super) struct Mounted {
    pub(super) dir: PathBuf,
    is_in_use: bool,
    _temp: tempfile::TempDir,
}

impl Mounted {
    pub(super) fn new(device: &Device, options: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("audit");
        std::fs::create_dir(&dir).unwrap();
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(&device.path).arg(&dir));
        Self { dir, is_in_use: true, _temp: temp }
    }

    /// Unmounts; a process whose end is still under way may hold the file system for a moment.
    pub(super) fn unmount(mut self) {
        wait_for("the unmount", || try_run(Command::new("umount").arg(&self.dir)).ok().map(drop));
        self.is_in_use = false;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_in_use {
            // A test has failed: what is still in use goes when its user does.
            if let Err(error) = try_run(Command::new("umount").arg("--lazy").arg(&self.dir)) {
                say(&format!("the file system was not unmounted: {error}"));
            }
        }
    }
}

/// Runs a program that must succeed; returns what it prints.
#[track_caller]
pub(super) fn run(command: &mut Command) -> String {
    try_run(command).unwrap()
}

fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Answers requests until the file is unmounted.
fn serve(mut fuse: &File, machine: &Mutex<Machine>) {
    let mut request = vec![0; REQUEST_MAX];
    loop {
        let length = match fuse.read(&mut request) {
            Ok(length) => length,
            // ENOENT: the request was withdrawn before it was read.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => continue,
            Err(error) => return unmounted(&error),
        };
        let Some(answer) = answer(&request[..length], &mut machine.lock().unwrap()) else { continue };
        let (error, body) = answer.map_or_else(|error| (-error, Vec::new()), |body| (0, body));
        let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend_from_slice(&request[8..16]);
        reply.extend(body);
        match fuse.write_all(&reply) {
            Ok(()) => {}
            // ENOENT: nobody waits for the answer any more.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return unmounted(&error),
        }
    }
}

/// ENODEV is the end that we expect.
fn unmounted(error: &Error) {
    assert_eq!(error.raw_os_error(), Some(ENODEV), "the kernel does not talk to us: {error}");
}

/// The answer to one request: the bytes behind the header, or an error number. `None`: it gets none.
fn answer(request: &[u8], machine: &mut Machine) -> Option<Result<Vec<u8>, i32>> {
    let u32_at = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
    // Of a read and of a write, behind the header of 40 bytes and the file handle of 8.
    let offset = || usize::try_from(u64_at(48)).unwrap();
    let length = || usize::try_from(u32_at(56)).unwrap();
    Some(match u32_at(4) {
        INIT => Ok(init()),
        GETATTR => Ok(attributes(machine.disk.len())),
        // The handle, FOPEN_DIRECT_IO, padding.
        OPEN => Ok(words(&[0, 0, 1, 0])),
        READ if machine.is_on => Ok(machine.disk.read(offset(), length())),
        WRITE if machine.is_on_for_one_more(false) => {
            machine.writes += 1;
            let bytes = request[80..80 + length()].to_vec();
            machine.disk.write(offset(), bytes).ok_or(EIO).map(|()| words(&[u32_at(56), 0]))
        }
        FSYNC if machine.is_on_for_one_more(true) => {
            machine.flushes += 1;
            machine.disk.flush();
            Ok(Vec::new())
        }
        READ | WRITE | FSYNC => Err(EIO),
        FLUSH | RELEASE | DESTROY => Ok(Vec::new()),
        FORGET | INTERRUPT | BATCH_FORGET => return None,
        // Discards among them (FALLOCATE): the kernel asks once, and does without.
        _ => Err(ENOSYS),
    })
}

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `fuse_init_out`: version 7.31, no flags, writes of at most [`WRITE_MAX`].
fn init() -> Vec<u8> {
    let mut words_of = [0; 16];
    (words_of[0], words_of[1], words_of[5]) = (7, 31, u32::try_from(WRITE_MAX).unwrap());
    words(&words_of)
}

/// `fuse_attr_out`: a regular file, good for an hour.
fn attributes(length: usize) -> Vec<u8> {
    let mut bytes = 3600_u64.to_ne_bytes().to_vec();
    bytes.extend(words(&[0, 0]));
    let length = u64::try_from(length).unwrap();
    // Inode, size, blocks, three times.
    bytes.extend([1, length, length / 512, 0, 0, 0].into_iter().flat_map(u64::to_ne_bytes));
    // Three fractions of seconds, mode, links, user, group, device, block size, flags.
    bytes.extend(words(&[0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0]));
    bytes
}

/// Whether the kernel lets us serve files; said as [`crate::report::tools`] does.
pub(super) fn has_fuse() -> bool {
    let found = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "no /dev/fuse or no /dev/loop-control");
        say("SKIPPED: no /dev/fuse or no /dev/loop-control");
    }
    found
}

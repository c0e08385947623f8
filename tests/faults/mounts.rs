//! File systems of a test's own: memory and image files, mounted under a temporary directory and gone with it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, which is unmounted when it is dropped; a sidecar on it is to be dropped before.
pub(crate) struct Mount {
    point: PathBuf,
}

impl Mount {
    /// Mounts memory at a directory, which is made if need be.
    pub(crate) fn tmpfs(point: &Path, options: &str) -> Self {
        Self::new(point, &["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// Mounts an image file, or a device, likewise.
    pub(crate) fn image(point: &Path, image: &Path, options: &str) -> Self {
        let how = if image.starts_with("/dev") { options.to_owned() } else { format!("loop,{options}") };
        Self::new(point, &["-t", "ext4", "-o", &how, image.to_str().unwrap()])
    }

    /// Mounts a directory at another one, likewise.
    pub(crate) fn bind(point: &Path, directory: &Path) -> Self {
        Self::new(point, &["--bind", directory.to_str().unwrap()])
    }

    fn new(point: &Path, args: &[&str]) -> Self {
        fs::create_dir_all(point).unwrap();
        run("mount", args, point);
        Self { point: point.to_owned() }
    }

    /// Mounts it again with other options; says whether that was possible.
    pub(crate) fn remount(&self, options: &str) -> bool {
        let output = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.point).output();
        output.unwrap().status.success()
    }

    /// The block device below it, such as `/dev/loop3`.
    pub(crate) fn device(&self) -> PathBuf {
        let output = Command::new("findmnt").args(["-n", "-o", "SOURCE", "-M"]).arg(&self.point).output().unwrap();
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    /// Takes it from the tree of names; whoever has it open keeps it.
    pub(crate) fn detach(self) {
        run("umount", &["-l"], &self.point);
        std::mem::forget(self);
    }

    /// Unmounts it; nobody has it open any more.
    pub(crate) fn unmount(self) {
        run("umount", &[], &self.point);
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that fails may have a sidecar on it still: then it goes with the sidecar.
        let status = Command::new("umount").arg("-l").arg(&self.point).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "{} is not unmounted", self.point.display());
    }
}

/// Makes a file with an empty ext4 in it.
pub(crate) fn image(path: &Path, mebibytes: u64, args: &[&str]) {
    File::create(path).unwrap().set_len(mebibytes << 20).unwrap();
    run("mkfs.ext4", &[&["-q", "-F", "-m", "0"], args].concat(), path);
}

/// Repairs an image as a boot does: without questions.
pub(crate) fn repair(image: &Path) {
    let output = Command::new("fsck.ext4").arg("-p").arg(image).output().unwrap();
    // 1: errors were corrected.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
}

/// Runs a program, with a path as its last argument, that must succeed.
pub(crate) fn run(program: &str, args: &[&str], path: &Path) {
    let output = Command::new(program).args(args).arg(path).output().unwrap();
    assert!(output.status.success(), "{program} {args:?} {}: {output:?}", path.display());
}

/// A file that takes all the room there is, until it is dropped.
pub(crate) struct Ballast {
    path: PathBuf,
    file: File,
}

impl Ballast {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: File::create(path).unwrap() }
    }

    /// Takes the room that is left, to the last byte.
    pub(crate) fn fill(&mut self) {
        let block = vec![0; 64 << 10];
        let mut size = block.len();
        while size > 0 {
            match self.file.write_all(&block[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("{}: {error}", self.path.display()),
            }
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

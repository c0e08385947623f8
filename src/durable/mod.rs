//! The only door to segment files and their directories.
//!
//! The writer reaches files through [`Directory`] and [`SegmentFile`] alone. [`AuditDirectory`] is the real thing; a
//! test puts a directory behind the same traits that forgets what was not synced, or fails where it is told to.
//! Each method is one system call (or says otherwise), so that a fault can be put before and after every one.
//!
//! What the calls promise is POSIX's and Linux's (fsync(2), open(2), ext4's and XFS's behaviour):
//! - [`SegmentFile::sync_data`] makes the bytes and the length durable, not the file's name.
//! - [`Directory::sync`] makes names durable: after a creation and after a removal.
//! - After a failed sync the kernel may have dropped the dirty pages and will report success next time. So nobody
//!   asks twice.

#![expect(clippy::disallowed_methods, reason = "this is the door")]

mod folder;
mod holes;
mod staging;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

pub use self::folder::{EntryKind, Facts, Folder};
pub use self::holes::{data_end, data_from};
pub use self::staging::{Staging, lies_in};

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Which file it is.
    pub id: FileId,
    /// Its length in bytes.
    pub len: u64,
    /// How many names it has. 0: it was deleted and lives on only because it is open.
    pub links: u64,
}

/// A directory of segments.
pub trait Directory: Send + 'static {
    /// An open segment.
    type File: SegmentFile;

    /// Makes sure that the directory's path still leads to the directory that was opened.
    ///
    /// One that was deleted has a successor as soon as there is a directory of the same file system at its path. One
    /// that lives on elsewhere (moved, unmounted, mounted over) has none: what is written at its path then would not
    /// be where auditors look for it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no directory at the path, [`io::ErrorKind::StaleNetworkFileHandle`] if
    /// there is another one.
    fn ensure(&mut self) -> io::Result<()>;

    /// Creates a new file to append to.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken, by whatever; else those of `open`.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// What lies under a name now, found by the directory's path and without following a link; `None` if nothing does.
    ///
    /// # Errors
    /// Those of `stat`, other than that there is no such file or directory.
    fn stat(&self, name: &str) -> io::Result<Option<Stat>>;

    /// Removes a name.
    ///
    /// # Errors
    /// Those of `unlink`.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// Those of `fsync`.
    fn sync(&self) -> io::Result<()>;
}

/// A segment that was created by this process and is open for appending.
pub trait SegmentFile: Send + 'static {
    /// Appends some of `bytes` at the end of the file and returns how many, as `write` does.
    ///
    /// # Errors
    /// Those of `write`.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes the content durable.
    ///
    /// # Errors
    /// Those of `fdatasync`.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes and makes that durable: `ftruncate`, then `fsync`.
    ///
    /// # Errors
    /// Those of either; the cut may then have been made or not.
    fn cut(&mut self, len: u64) -> io::Result<()>;

    /// What the open file is like, whatever its name.
    ///
    /// # Errors
    /// Those of `fstat`.
    fn stat(&self) -> io::Result<Stat>;

    /// Reads some bytes at an offset and returns how many, 0 at the end.
    ///
    /// # Errors
    /// Those of `pread`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Appends all of `bytes`, in as many writes as it takes, and counts in `written` what the writes claim.
    ///
    /// # Errors
    /// The first error but [`io::ErrorKind::Interrupted`]; some of the bytes may have been written.
    fn write_all(&mut self, mut bytes: &[u8], written: &mut u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // A file that claims more than it was given is caught by the check of its length.
                Ok(some) => {
                    bytes = bytes.get(some..).unwrap_or_default();
                    *written = written.saturating_add(u64::try_from(some).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct AuditDirectory {
    path: PathBuf,
    file_mode: u32,
    /// The directory that was opened. Kept open, so that its inode is not given to another.
    home: File,
    id: FileId,
}

impl AuditDirectory {
    /// Opens a directory; new segments get `file_mode`, less the umask.
    ///
    /// # Errors
    /// Those of `open`; [`io::ErrorKind::NotADirectory`] if it is something else.
    pub fn open(path: &Path, file_mode: u32) -> io::Result<Self> {
        let home = open_directory(path)?;
        let id = file_id(&home.metadata()?);
        Ok(Self { path: path.to_owned(), file_mode, home, id })
    }
}

/// The state of an audit directory, for probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free to whoever is not root.
    pub free_bytes: u64,
}

impl AuditDirectory {
    /// Checks that the directory is there, is the one that was opened, and may be written to.
    ///
    /// # Errors
    /// Those of [`Directory::ensure`] and `access`.
    pub fn probe(&mut self) -> io::Result<Space> {
        self.ensure()?;
        retry(|| rustix::fs::access(&self.path, Access::WRITE_OK | Access::EXEC_OK))?;
        let space = retry(|| rustix::fs::fstatvfs(&self.home))?;
        Ok(Space { free_bytes: space.f_bavail.saturating_mul(space.f_frsize) })
    }
}

impl AuditDirectory {
    /// Changes something, the directory's modification time, to see whether the file system still takes changes: one that
    /// has shut itself down goes on answering whoever only looks.
    ///
    /// # Errors
    /// The file system is read-only, or its device fails. That it has no room, or does not keep such times, is no error.
    pub fn change(&self) -> io::Result<()> {
        match retry(|| touch(&self.home)) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::ROFS | Errno::IO)) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Directory for AuditDirectory {
    type File = File;

    fn ensure(&mut self) -> io::Result<()> {
        let found = fs::metadata(&self.path)?;
        // A bind mount still leads to a directory that was removed on its volume; nothing can be created in it.
        if found.nlink() == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        if file_id(&found) == self.id {
            return Ok(());
        }
        let deleted = match self.home.metadata() {
            Ok(home) => home.nlink() == 0,
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => true,
            Err(error) => return Err(error),
        };
        if !deleted || found.dev() != self.id.dev {
            return Err(io::Error::new(
                io::ErrorKind::StaleNetworkFileHandle,
                "another directory lies at the path of the audit directory",
            ));
        }
        let home = open_directory(&self.path)?;
        let id = file_id(&home.metadata()?);
        // Its own entry is as new as it is.
        sync_parent(&self.path)?;
        (self.home, self.id) = (home, id);
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry(|| rustix::fs::openat(&self.home, name, flags, Mode::from_raw_mode(self.file_mode)))?;
        Ok(file.into())
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match fs::symlink_metadata(self.path.join(name)) {
            Ok(metadata) => Ok(Some(stat_of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        retry(|| rustix::fs::unlinkat(&self.home, name, AtFlags::empty()))
    }

    fn sync(&self) -> io::Result<()> {
        // Not `File::sync_all`, which asks again when it is interrupted.
        Ok(rustix::fs::fsync(&self.home)?)
    }
}

impl SegmentFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        // Not `File::sync_data`, which asks again when it is interrupted.
        Ok(rustix::fs::fdatasync(&*self)?)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        Ok(rustix::fs::fsync(&*self)?)
    }

    fn stat(&self) -> io::Result<Stat> {
        let mut stat = stat_of(&self.metadata()?);
        // NFS and FUSE clients rename a file that is deleted while it is open, until it is closed.
        let path = fs::read_link(format!("/proc/self/fd/{}", self.as_raw_fd())).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if name.starts_with(b".nfs") || name.starts_with(b".fuse_hidden") {
            stat.links = 0;
        }
        Ok(stat)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let directory = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::DIRECTORY.bits()).expect("open's flags fit an int"))
        .open(path)?;
    Ok(directory)
}

fn file_id(metadata: &fs::Metadata) -> FileId {
    FileId { dev: metadata.dev(), ino: metadata.ino() }
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    Stat { id: file_id(metadata), len: metadata.len(), links: metadata.nlink() }
}

fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    Ok(rustix::io::retry_on_intr(call)?)
}

/// Reads a whole regular file of at most `bytes_max` bytes; links are followed.
///
/// # Errors
/// Those of `open` and `read`; it is no regular file, or larger.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // A FIFO must not keep us waiting.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("open's flags fit an int");
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// A path without links, `.` and `..`.
///
/// # Errors
/// Those of `realpath`.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Creates a directory and those above it, as far as they do not exist. Their entries are durable then.
///
/// # Errors
/// Those of `mkdir` and `fsync`.
pub fn create_directories(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|level| !level.exists()).map(Path::to_owned).collect();
    fs::create_dir_all(path)?;
    missing.iter().filter(|level| !level.as_os_str().is_empty()).try_for_each(|level| sync_parent(level))
}

/// Whose a file or directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions, such as 0o755.
    pub mode: u32,
}

/// Tells whose a file or directory is; links are followed.
///
/// # Errors
/// Those of `stat`.
pub fn owner(path: &Path) -> io::Result<Owner> {
    let metadata = fs::metadata(path)?;
    Ok(Owner { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 })
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match fs::canonicalize(path)?.parent() {
        Some(parent) => open_directory(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Sets a directory's modification time to now, by which a sweep of the whole volume knows that it is in use.
///
/// # Errors
/// Those of `open` and `utimensat`.
pub fn touch_directory(path: &Path) -> io::Result<()> {
    let directory = open_directory(path)?;
    retry(|| touch(&directory))
}

fn touch(directory: &File) -> rustix::io::Result<()> {
    // Both times to now, and not to a time of ours: for that it is enough to have the right to write.
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    rustix::fs::futimens(directory, &Timestamps { last_access: now, last_modification: now })
}

/// Replaces the content of a file, if there is one and it may be written to.
///
/// # Errors
/// Those of `open` and `write`, other than that there is no such file.
pub fn overwrite_if_there(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).truncate(true).open(path) {
        Ok(mut file) => Write::write_all(&mut file, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies an executable file into a directory, so that whoever runs it sees the old one or the whole new one. `unique` is
/// a part of the temporary name that nobody else uses at the same time.
///
/// # Errors
/// Those of reading, creating, writing, syncing and renaming.
pub fn install_executable(from: &Path, directory: &Path, name: &str, unique: &str) -> io::Result<PathBuf> {
    let target = directory.join(name);
    let mut source = File::open(from)?;
    // Whatever the umask is, other users' containers are to run it.
    put(&target, 0o755, unique, |copy| io::copy(&mut source, copy).map(drop))?;
    Ok(target)
}

/// Puts a file in the place of another, if there is one, so that whoever reads it sees the old one or the whole new one. `unique` is as
/// for [`install_executable`].
///
/// # Errors
/// Those of creating, writing, syncing and renaming.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32, unique: &str) -> io::Result<()> {
    put(path, mode, unique, |file| Write::write_all(file, bytes))
}

fn put(target: &Path, mode: u32, unique: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = directory.join(format!(".{}.{unique}", name.display()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let done = (|| {
        write(&mut file)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, target)?;
        open_directory(directory)?.sync_all()
    })();
    if done.is_err() {
        // What was renamed already is no longer there to be removed.
        fs::remove_file(&temporary).unwrap_or(());
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_a_network_client_only_hides_counts_as_deleted() {
        let temp = tempfile::tempdir().unwrap();
        let mut directory = AuditDirectory::open(temp.path(), 0o640).unwrap();
        for (hidden, links) in [(".nfs000000000000a1b2", 0), (".fuse_hidden0001", 0), ("renamed.jsonl", 1)] {
            let file = directory.create("segment").unwrap();
            assert_eq!(SegmentFile::stat(&file).unwrap().links, 1);
            fs::rename(temp.path().join("segment"), temp.path().join(hidden)).unwrap();
            assert_eq!(SegmentFile::stat(&file).unwrap().links, links, "{hidden}");
        }
        let file = directory.create("segment").unwrap();
        fs::remove_file(temp.path().join("segment")).unwrap();
        assert_eq!(SegmentFile::stat(&file).unwrap().links, 0);
        directory.ensure().unwrap();
    }
}

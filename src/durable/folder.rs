//! Walking directory trees and removing from them, by file descriptor: whoever swaps a folder for a link while it is
//! walked leads the walk nowhere else.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{FileId, retry};
use crate::record::Timestamp;

/// An open directory.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which file it is.
    pub id: FileId,
    /// What it is.
    pub kind: EntryKind,
    /// Its length.
    pub bytes: u64,
    /// When its content last changed.
    pub modified: Timestamp,
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A link, a FIFO, a device.
    Other,
    /// The directory does not say; [`Folder::facts`] does.
    Unknown,
}

impl Folder {
    /// Opens a directory by its path, through links if need be.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a directory in this one; a link is an error.
    ///
    /// # Errors
    /// Those of `openat`.
    pub fn open_child(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))?;
        Ok(Self { fd, path: self.path.join(name) })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entries, `.` and `..` left out, in the file system's order and a buffer at a time.
    ///
    /// # Errors
    /// Those of `openat` and `getdents`.
    pub fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<(OsString, EntryKind)>> + use<>> {
        let entries = Dir::read_from(self.fd.as_fd())?;
        Ok(entries.filter_map(|entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            (name != "." && name != "..").then(|| Ok((name.to_owned(), kind_of(entry.file_type()))))
        }))
    }

    /// What lies under a name, links not followed; `None` if nothing does.
    ///
    /// # Errors
    /// Those of `fstatat`, other than that there is nothing.
    pub fn facts(&self, name: &OsStr) -> io::Result<Option<Facts>> {
        match retry(|| rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(facts_of(&stat))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory to look for names in it only, which needs no more than the right to pass through it.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open_to_look(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// What this directory is like; it is modified when an entry is added or removed.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub fn itself(&self) -> io::Result<Facts> {
        Ok(facts_of(&rustix::fs::fstat(&self.fd)?))
    }

    /// Opens a file to read from it, and says what it is; a link is an error, and a FIFO keeps nobody waiting.
    ///
    /// # Errors
    /// Those of `openat`.
    pub fn open_file(&self, name: &OsStr) -> io::Result<(File, Facts)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = retry(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))?;
        let facts = facts_of(&rustix::fs::fstat(&file)?);
        Ok((file.into(), facts))
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// Those of `unlinkat`.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        retry(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of `unlinkat`; one that is not empty is not removed.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        retry(|| rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR))
    }
}

fn facts_of(stat: &rustix::fs::Stat) -> Facts {
    Facts {
        id: FileId { dev: stat.st_dev, ino: stat.st_ino },
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        bytes: stat.st_size.try_into().unwrap_or_default(),
        modified: timestamp(stat.st_mtime, stat.st_mtime_nsec.try_into().unwrap_or_default()),
    }
}

fn kind_of(kind: FileType) -> EntryKind {
    match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Unknown => EntryKind::Unknown,
        _ => EntryKind::Other,
    }
}

fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000))
}

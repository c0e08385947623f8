//! One segment file that this process created: what is durable in it, and how it is looked at, cut and copied.

use std::io;
use std::sync::Arc;

use crate::durable::{Directory, FileId, SegmentFile};
use crate::record::{SegmentName, Timestamp};

/// A segment that is open for appending.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) file: F,
    pub(super) id: FileId,
    pub(super) name: SegmentName,
    /// The name as text, shared with every answer.
    pub(super) text: Arc<str>,
    /// The durable length. Bytes beyond it are not acknowledged.
    pub(super) bytes: u64,
    /// The lines in those bytes.
    pub(super) lines: u64,
    /// The instant in the name, then that of the last line.
    pub(super) last_ts: Timestamp,
}

/// What somebody else did to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tampering {
    /// It has no name any more.
    Deleted,
    /// It has another name only.
    Renamed,
    /// Another file has its name. `deleted`: and it has none at all.
    Replaced { deleted: bool },
    /// It is shorter than what was written.
    Cut,
    /// It is longer than what was written.
    Appended,
}

impl Tampering {
    /// The word for logs and metrics.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Renamed => "renamed",
            Self::Replaced { .. } => "replaced",
            Self::Cut => "cut",
            Self::Appended => "appended",
        }
    }

    /// The content lives on only while the file is open.
    pub(super) fn is_deleted(self) -> bool {
        matches!(self, Self::Deleted | Self::Replaced { deleted: true })
    }
}

impl<F: SegmentFile> Segment<F> {
    /// Takes a file that was just created for a segment; neither it nor its name is durable yet.
    ///
    /// # Errors
    /// It can't be told which file that is; it is to be removed.
    pub(super) fn adopt(file: F, name: SegmentName, at: Timestamp) -> Result<Self, (Leftover<F>, io::Error)> {
        let text = name.to_string().into();
        match file.stat() {
            Ok(stat) => Ok(Self { file, id: stat.id, name, text, bytes: 0, lines: 0, last_ts: at }),
            Err(error) => Err((Leftover { name: text, file }, error)),
        }
    }

    /// Looks whether the path still names this file and whether it has `expected` bytes.
    ///
    /// # Errors
    /// It can't be told, or the directory itself is gone or replaced: then the segment is not to blame.
    pub(super) fn look<D: Directory<File = F>>(
        &self,
        directory: &mut D,
        expected: u64,
    ) -> io::Result<Option<Tampering>> {
        let found = directory.stat(&self.text)?;
        if let Some(stat) = found.filter(|stat| stat.id == self.id) {
            return Ok(match stat.len.cmp(&expected) {
                std::cmp::Ordering::Less => Some(Tampering::Cut),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => Some(Tampering::Appended),
            });
        }
        directory.ensure()?;
        let deleted = self.is_deleted()?;
        Ok(Some(match (found.is_some(), deleted) {
            (true, deleted) => Tampering::Replaced { deleted },
            (false, true) => Tampering::Deleted,
            (false, false) => Tampering::Renamed,
        }))
    }

    /// Whether nothing in it was ever acknowledged.
    pub(super) fn is_new(&self) -> bool {
        self.bytes == 0
    }

    /// Whether the file lives on only because it is open.
    pub(super) fn is_deleted(&self) -> io::Result<bool> {
        match self.file.stat() {
            Ok(stat) => Ok(stat.links == 0),
            // Deleted by another client of a network file system: it does not even live on.
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether the file was deleted by another client of a network file system, so that it can't even be read.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self.file.stat(), Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle)
    }

    /// Takes back what lies beyond the durable length, durably; a new segment is removed. `written` is how much of it our
    /// writes have put there.
    ///
    /// # Errors
    /// What was written may still be there. If the length of a segment with durable lines is not what our writing has led
    /// to, somebody else has cut or appended: then nothing is done, so that neither NUL bytes are put into what was acknowledged nor
    /// anything of theirs is destroyed.
    pub(super) fn take_back<D: Directory<File = F>>(&mut self, directory: &D, written: u64) -> io::Result<TakenBack> {
        if self.is_new() {
            // Cut first: under another name that somebody has given it by now, it would outlast the removal.
            let cut = self.file.cut(0);
            let removed = matches!(remove_if_same(directory, &self.text, self.id), Ok(Removal::Removed));
            return match cut {
                Ok(()) if removed => Ok(TakenBack::Removed),
                Ok(()) => Ok(TakenBack::Cut),
                Err(_) if removed && self.file.stat()?.links == 0 => Ok(TakenBack::Removed),
                Err(error) => Err(error),
            };
        }
        if self.file.stat()?.len != self.bytes + written {
            return Err(io::Error::other("somebody else has changed its length"));
        }
        self.file.cut(self.bytes).map(|()| TakenBack::Cut)
    }

    /// Copies the durable lines to a new file under the same name, or, if that is taken, to a segment of an earlier
    /// time, since none may be named later than its first line. Returns the name, and how many bytes there were: fewer
    /// than were acknowledged if somebody had cut the file before.
    ///
    /// A copy that fails goes to `leftovers`, to be removed.
    pub(super) fn copy_back<D: Directory<File = F>>(
        &self,
        directory: &D,
        leftovers: &mut Vec<Leftover<F>>,
    ) -> io::Result<(SegmentName, u64)> {
        let (mut copy, name) = create_no_later(directory, &self.name)?;
        match self.copy_to(&mut copy).and_then(|bytes| directory.sync().map(|()| bytes)) {
            Ok(bytes) => Ok((name, bytes)),
            Err(error) => {
                leftovers.push(Leftover { name: name.to_string().into(), file: copy });
                Err(error)
            }
        }
    }

    fn copy_to(&self, copy: &mut F) -> io::Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let mut offset = 0;
        while offset < self.bytes {
            let want = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.file.read_at(&mut buffer[..want], offset)?;
            if read == 0 {
                break;
            }
            copy.write_all(&buffer[..read], &mut offset)?;
        }
        copy.sync_data()?;
        // As for a commit, what the writes claim is not what counts.
        if copy.stat()?.len == offset {
            Ok(offset)
        } else {
            Err(io::Error::other("the copy has not the length that was written"))
        }
    }
}

/// Creates a file under `name` or, where that is taken, under the name of the latest free instant before.
pub(super) fn create_no_later<D: Directory>(directory: &D, name: &SegmentName) -> io::Result<(D::File, SegmentName)> {
    for back in 0..NAMES_TRIED_MAX {
        let name = SegmentName::new(name.rank(), name.youngest().plus_millis(-back));
        match directory.create(&name.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (file, name)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Names tried before giving up: at one a millisecond, as many as a second has.
pub(super) const NAMES_TRIED_MAX: i64 = 1000;

/// A file that holds nothing acknowledged and is to be removed. It is kept open, so that its name is only removed while
/// it is this file's.
#[derive(Debug)]
pub(super) struct Leftover<F> {
    pub(super) name: Arc<str>,
    pub(super) file: F,
}

impl<F: SegmentFile> Leftover<F> {
    /// Removes it durably, unless its name is somebody else's by now.
    pub(super) fn remove<D: Directory<File = F>>(&self, directory: &D) -> io::Result<()> {
        let removal = match self.file.stat() {
            Ok(stat) => remove_if_same(directory, &self.name, stat.id)?,
            // Another client of a network file system has removed it.
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Removal::NotOurs,
            Err(error) => return Err(error),
        };
        match removal {
            Removal::Removed => Ok(()),
            // An earlier try may have removed it and then failed to sync.
            Removal::NotOurs => directory.sync(),
        }
    }
}

/// How what was written was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TakenBack {
    Cut,
    /// The file is gone, durably.
    Removed,
}

/// What became of a name that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    Removed,
    /// It names nothing, or somebody else's file.
    NotOurs,
}

/// Removes a name durably if it still names the file `id`.
fn remove_if_same<D: Directory>(directory: &D, name: &str, id: FileId) -> io::Result<Removal> {
    if directory.stat(name)?.is_none_or(|stat| stat.id != id) {
        return Ok(Removal::NotOurs);
    }
    directory.remove(name)?;
    directory.sync()?;
    Ok(Removal::Removed)
}

//! One retention pass over a directory, or over a tree of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use super::{Rule, Verdict, last_line};
use crate::durable::{EntryKind, Facts, Folder};
use crate::record::{SegmentName, Timestamp};

/// A file of this name in a directory keeps everything at and below it: a legal hold.
pub const HOLD_FILE: &str = "audit-log.hold";

/// Folders within folders; a deeper one is left alone and reported. Each level takes two file descriptors.
const DEPTH_MAX: usize = 32;

/// What a pass covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The files that lie directly in the directory.
    Directory,
    /// All folders below it too. Those that are empty and old are removed, never the directory itself.
    Tree,
}

/// What a pass tells as it goes.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A segment was removed, or would be.
    Removed {
        /// Its path.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The youngest of its times.
        newest: Timestamp,
        /// The rule it was removed by.
        rule: Rule,
    },
    /// An empty folder was removed, or would be.
    RemovedFolder {
        /// Its path.
        path: PathBuf,
    },
    /// A hold keeps everything at and below a folder.
    Hold {
        /// The folder.
        path: &'a Path,
    },
    /// Something could not be looked at or removed, and was kept.
    Kept {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Folders looked at.
    pub folders: u64,
    /// Segments looked at, those under a hold not among them.
    pub segments: u64,
    /// Segments removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Empty folders removed.
    pub removed_folders: u64,
    /// Holds met.
    pub holds: u64,
    /// Things kept because of an error.
    pub errors: u64,
}

struct Sweep<'a> {
    scope: Scope,
    rule: Rule,
    now: Timestamp,
    dry_run: bool,
    summary: Summary,
    notice: &'a mut dyn FnMut(Notice<'_>),
}

/// Removes old segments from a directory. It never follows a link, touches nothing but regular files with a segment's
/// name and, in a [`Scope::Tree`], empty job folders: those directly in `directory`, or in one named `audit`. It goes on
/// where something fails.
///
/// Memory does not grow with the number of files or folders. Removals are not synced: what a power cut brings back, the
/// next pass removes again, and an `fsync` a folder would take most of the time of a large tree.
///
/// # Errors
/// The directory itself can't be opened or checked for holds.
pub fn sweep(
    directory: &Path,
    scope: Scope,
    rule: Rule,
    now: Timestamp,
    dry_run: bool,
    notice: &mut dyn FnMut(Notice<'_>),
) -> io::Result<Summary> {
    let folder = Folder::open(directory)?;
    let real = crate::durable::real_path(directory)?;
    let above = real.ancestors().skip(1).map(Folder::open_to_look).collect::<io::Result<Vec<_>>>()?;
    let mut sweep = Sweep { scope, rule, now, dry_run, summary: Summary::default(), notice };
    for above in &above {
        if has_hold(above)? {
            sweep.summary.holds += 1;
            (sweep.notice)(Notice::Hold { path: above.path() });
            return Ok(sweep.summary);
        }
    }
    sweep.folder(&Place { folder: &folder, depth: 0, parent: Err(&above) });
    Ok(sweep.summary)
}

/// An open folder and how the sweep came to it.
struct Place<'a> {
    folder: &'a Folder,
    depth: usize,
    /// The folder that it was found in; for the directory itself, all that lie above it.
    parent: Result<&'a Place<'a>, &'a [Folder]>,
}

impl Place<'_> {
    /// Whether a hold is in this folder or anywhere above it, by now.
    fn is_held(&self) -> io::Result<bool> {
        let mut place = self;
        loop {
            if has_hold(place.folder)? {
                return Ok(true);
            }
            match place.parent {
                Ok(parent) => place = parent,
                Err(above) => {
                    for folder in above {
                        if has_hold(folder)? {
                            return Ok(true);
                        }
                    }
                    return Ok(false);
                }
            }
        }
    }
}

fn has_hold(folder: &Folder) -> io::Result<bool> {
    folder.facts(OsStr::new(HOLD_FILE)).map(|facts| facts.is_some())
}

impl Sweep<'_> {
    fn kept(&mut self, path: PathBuf, error: io::Error) {
        self.summary.errors += 1;
        (self.notice)(Notice::Kept { path, error });
    }

    /// Sweeps an open folder; returns whether it was seen to be empty.
    fn folder(&mut self, place: &Place<'_>) -> bool {
        self.summary.folders += 1;
        let folder = place.folder;
        let entries = match has_hold(folder) {
            Ok(false) => folder.entries(),
            Ok(true) => {
                self.summary.holds += 1;
                (self.notice)(Notice::Hold { path: folder.path() });
                return false;
            }
            Err(error) => Err(error),
        };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.kept(folder.path().to_owned(), error);
                return false;
            }
        };
        let mut is_empty = true;
        for entry in entries {
            is_empty = false;
            match entry {
                Ok((name, kind)) => self.entry(place, name, kind),
                Err(error) => {
                    self.kept(folder.path().to_owned(), error);
                    break;
                }
            }
        }
        is_empty
    }

    fn entry(&mut self, place: &Place<'_>, name: OsString, kind: EntryKind) {
        let segment = name.to_str().and_then(|name| name.parse::<SegmentName>().ok());
        let done = match (kind, segment) {
            (EntryKind::File | EntryKind::Unknown, Some(segment)) => self.segment(place, &name, &segment),
            (EntryKind::Folder | EntryKind::Unknown, _) if self.scope == Scope::Tree => self.child(place, &name, kind),
            _ => Ok(()),
        };
        if let Err(error) = done {
            // Another sweep, or the job's own end, was faster.
            if error.kind() != io::ErrorKind::NotFound {
                self.kept(place.folder.path().join(name), error);
            }
        }
    }

    fn segment(&mut self, place: &Place<'_>, name: &OsStr, segment: &SegmentName) -> io::Result<()> {
        let folder = place.folder;
        let Some(mut facts) = folder.facts(name)?.filter(|facts| facts.kind == EntryKind::File) else {
            return Ok(());
        };
        self.summary.segments += 1;
        let verdict = match self.rule.judge(segment, facts.modified, self.now) {
            Verdict::AskLastLine => {
                let (file, opened) = folder.open_file(name)?;
                facts = opened;
                if facts.kind != EntryKind::File {
                    return Ok(());
                }
                self.rule.judge_asked(segment, facts.modified, last_line::last_ts(&file)?, self.now)
            }
            verdict => verdict,
        };
        let Verdict::Remove { newest } = verdict else { return Ok(()) };
        // Meanwhile somebody may have put a hold here, touched the file to keep it, or given its name to another.
        if place.is_held()? || folder.facts(name)? != Some(facts) {
            return Ok(());
        }
        if !self.dry_run {
            folder.remove_file(name)?;
        }
        self.summary.removed += 1;
        self.summary.removed_bytes += facts.bytes;
        let path = folder.path().join(name);
        (self.notice)(Notice::Removed { path, bytes: facts.bytes, newest, rule: self.rule });
        Ok(())
    }

    fn child(&mut self, place: &Place<'_>, name: &OsStr, kind: EntryKind) -> io::Result<()> {
        let folder = place.folder;
        let is_folder = |facts: Facts| facts.kind == EntryKind::Folder;
        // `lost+found` is the file system's own, and often root's alone.
        if name == "lost+found" || (kind == EntryKind::Unknown && !folder.facts(name)?.is_some_and(is_folder)) {
            return Ok(());
        }
        if place.depth == DEPTH_MAX {
            return Err(io::Error::other(format!("more than {DEPTH_MAX} folders deep; name it to sweep it")));
        }
        let child = folder.open_child(name)?;
        let is_empty = self.folder(&Place { folder: &child, depth: place.depth + 1, parent: Ok(place) });
        if is_empty
            && is_for_jobs(place)
            && !name.as_encoded_bytes().starts_with(b".")
            && self.rule.is_old(child.itself()?.modified, self.now)
            && !place.is_held()?
        {
            if !self.dry_run {
                match folder.remove_folder(name) {
                    // A mount point, or somebody has just put something in.
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) =>
                    {
                        return Ok(());
                    }
                    removed => removed?,
                }
            }
            self.summary.removed_folders += 1;
            (self.notice)(Notice::RemovedFolder { path: child.path().to_owned() });
        }
        Ok(())
    }
}

/// Whether the folders in this one are those of jobs, and not just anybody's.
fn is_for_jobs(place: &Place<'_>) -> bool {
    place.depth == 0 || place.folder.path().file_name().is_some_and(|name| name == "audit")
}

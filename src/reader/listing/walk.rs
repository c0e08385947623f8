//! Folders -> the segments in them, and what is known of each folder, so that it is not read again as long as nothing in it
//! can have changed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Segment, Source, Trouble, has_vanished, look_at};
use crate::durable::{EntryKind, Facts, FileId, Folder};
use crate::record::{SegmentName, Timestamp};

/// Folders within folders; a deeper one is not read and told. Each level takes two file descriptors.
pub(super) const DEPTH_MAX: usize = 32;

/// A folder that was read so soon after its last change is read again: another change may have come within the same tick of
/// the file system's clock, and a file server's clock is not ours. (git's index calls such an entry racy.)
const SETTLES_AFTER_MS: i64 = 60_000;

/// A folder as it was looked at, and those below it: 72 bytes, and its path, which its segments share.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Relative to the directory.
    path: Arc<str>,
    id: FileId,
    modified: Timestamp,
    /// As long as it is the same folder, last modified then, the same entries lie in it.
    is_settled: bool,
    /// By path.
    children: Vec<Known>,
}

impl Known {
    fn new(path: Arc<str>) -> Self {
        let id = FileId { dev: 0, ino: 0 };
        Self { path, id, modified: Timestamp::from_millis(0), is_settled: false, children: Vec::new() }
    }

    fn is_still(&self, facts: &Facts) -> bool {
        self.is_settled && self.id == facts.id && self.modified == facts.modified
    }
}

/// A walk through one directory.
#[derive(Debug)]
pub(super) struct Walk {
    source: usize,
    /// When it began.
    now: Timestamp,
    /// The segments of the folders that were read, in no order.
    pub(super) segments: Vec<Segment>,
    /// The folders that were known, and were read again or are gone: no segments are left in them but those found.
    pub(super) read: HashSet<Arc<str>>,
    pub(super) troubles: Vec<Trouble>,
}

impl Walk {
    pub(super) fn new(source: usize, now: Timestamp) -> Self {
        Self { source, now, segments: Vec::new(), read: HashSet::new(), troubles: Vec::new() }
    }

    /// Looks at a directory, of which so much is `known`, and returns what is known of it now.
    pub(super) fn directory(&mut self, source: &Source, known: Option<Known>) -> Option<Known> {
        match Folder::open(&source.path) {
            Ok(folder) => self.folder(&folder, known.unwrap_or_else(|| Known::new(Arc::from(""))), 0),
            Err(error) => {
                self.trouble(source.path.clone(), "", error);
                known
            }
        }
    }

    fn trouble(&mut self, path: PathBuf, below: &str, error: io::Error) {
        self.troubles.push(Trouble { source: self.source, path, error: Arc::new(error), below: below.to_owned() });
    }

    /// A folder that was known is no longer there, nor are those below it.
    fn gone(&mut self, known: Known) {
        self.read.insert(known.path);
        known.children.into_iter().for_each(|child| self.gone(child));
    }

    /// Looks at an open folder; `None` if it has vanished.
    fn folder(&mut self, folder: &Folder, known: Known, depth: usize) -> Option<Known> {
        // Asked before it is read: what changes meanwhile is seen next time.
        let facts = match folder.itself() {
            Ok(facts) => facts,
            Err(error) => {
                self.trouble(folder.path().to_owned(), &known.path, error);
                return Some(Known { is_settled: false, ..known });
            }
        };
        if known.is_still(&facts) {
            let children = known.children.into_iter();
            let children = children.filter_map(|child| self.child(folder, child, depth + 1)).collect();
            return Some(Known { children, ..known });
        }
        let is_new = known.id.ino == 0;
        if !is_new {
            self.read.insert(Arc::clone(&known.path));
        }
        let (Known { path, children, .. }, Facts { id, modified, .. }) = (known, facts);
        let is_met = vec![false; children.len()];
        let mut reading = Reading { path, before: children, is_met, children: Vec::new(), is_whole: true };
        let found = self.segments.len();
        let ended = self.read(folder, &mut reading, depth);
        let Reading { path, before, is_met, mut children, mut is_whole } = reading;
        let missing = before.into_iter().zip(is_met).filter_map(|(known, is_met)| (!is_met).then_some(known));
        match ended {
            Ok(()) => missing.for_each(|child| self.gone(child)),
            Err(error) if has_vanished(&error) => {
                missing.chain(children).for_each(|child| self.gone(child));
                self.segments.truncate(found);
                return None;
            }
            Err(error) => {
                self.trouble(folder.path().to_owned(), &path, error);
                children.extend(missing);
                is_whole = false;
            }
        }
        children.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        children.shrink_to_fit();
        let has_settled = modified.plus_millis(SETTLES_AFTER_MS) < self.now;
        // What could not be looked at is tried again, and told again.
        Some(Known { path, id, modified, is_settled: has_settled && is_whole, children })
    }

    fn read(&mut self, folder: &Folder, reading: &mut Reading, depth: usize) -> io::Result<()> {
        for entry in folder.entries()? {
            let (name, kind) = entry?;
            let segment = name.to_str().and_then(|name| name.parse::<SegmentName>().ok());
            let done = match (kind, segment) {
                (EntryKind::File | EntryKind::Unknown, Some(segment)) => look_at(folder, &name, segment).map(|found| {
                    let Some((name, facts)) = found else { return };
                    let folder = Arc::clone(&reading.path);
                    self.segments.push(Segment::new(self.source, folder, name, &facts));
                }),
                (EntryKind::Folder | EntryKind::Unknown, _) => self.entry(folder, &name, kind, reading, depth),
                _ => Ok(()),
            };
            match done {
                Err(error) if !has_vanished(&error) => {
                    // One is enough to say that the folder is not all there; whoever fills it with such names fills no memory.
                    if reading.is_whole {
                        self.trouble(folder.path().join(name), &reading.path, error);
                    }
                    reading.is_whole = false;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks at an entry that may be a folder.
    fn entry(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        kind: EntryKind,
        reading: &mut Reading,
        depth: usize,
    ) -> io::Result<()> {
        let is_folder = |facts: Facts| facts.kind == EntryKind::Folder;
        // `lost+found` is the file system's own, and often root's alone.
        if name == "lost+found" || (kind == EntryKind::Unknown && !folder.facts(name)?.is_some_and(is_folder)) {
            return Ok(());
        }
        let Some(text) = name.to_str() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the folder's name is not UTF-8"));
        };
        if depth == DEPTH_MAX {
            return Err(io::Error::other(format!("more than {DEPTH_MAX} folders deep; name it to read it")));
        }
        let known = reading.take(text);
        let child = self.child(folder, known, depth + 1);
        reading.children.extend(child);
        Ok(())
    }

    /// Looks at a folder in an open one; `None` if it has vanished. One that has not changed and has no folders in it is not
    /// even opened.
    fn child(&mut self, parent: &Folder, known: Known, depth: usize) -> Option<Known> {
        let name = OsStr::new(known.path.rsplit('/').next().unwrap_or_default());
        let is_leaf = known.is_settled && known.children.is_empty();
        if is_leaf && matches!(parent.facts(name), Ok(Some(facts)) if known.is_still(&facts)) {
            return Some(known);
        }
        match parent.open_child(name) {
            Ok(folder) => self.folder(&folder, known, depth),
            Err(error) if has_vanished(&error) => {
                self.gone(known);
                None
            }
            Err(error) => {
                self.trouble(parent.path().join(name), &known.path, error);
                Some(Known { is_settled: false, ..known })
            }
        }
    }
}

/// A folder while it is read.
struct Reading {
    path: Arc<str>,
    /// The folders in it that were known, by path, and which of them were met.
    before: Vec<Known>,
    is_met: Vec<bool>,
    children: Vec<Known>,
    /// Nothing in it could not be looked at.
    is_whole: bool,
}

impl Reading {
    /// What is known of a folder in this one.
    fn take(&mut self, name: &str) -> Known {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        match self.before.binary_search_by(|known| (*known.path).cmp(&path)) {
            Ok(at) => {
                self.is_met[at] = true;
                let path = Arc::clone(&self.before[at].path);
                std::mem::replace(&mut self.before[at], Known::new(path))
            }
            Err(_) => Known::new(Arc::from(path)),
        }
    }
}

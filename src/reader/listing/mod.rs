//! Directories -> segments: what there is to read, in order.
//!
//! - Walked by file descriptor: no link is followed below a source, nothing but regular files with a segment's name counts.
//! - Whatever cannot be looked at is told as a [`Trouble`] and keeps nobody from the rest. What vanishes meanwhile is
//!   no trouble: retention removes segments every hour.
//! - Walked once, it keeps up: a folder is read again only if it has changed, and a segment is asked for its length again
//!   only as long as it may grow ([`Listing::refresh`]).
//! - Memory grows with the number of segments and folders: 184 bytes where each segment lies in a job folder of its own.

mod walk;

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::walk::{Known, Walk};
use super::record::Record;
use crate::clock::{Clock, SystemClock};
use crate::durable::{EntryKind, Facts, FileId, Folder};
use crate::record::{Compression, DAY_MS, Identity, SegmentName, Timestamp};

/// A directory to read, as `--dir [NAME=]PATH[@WORKSPACE]` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What its segments' paths begin with, where there are several directories.
    pub name: Option<String>,
    /// Where it is.
    pub path: PathBuf,
    /// The workspace that its lines are of; lines of another are foreign.
    pub workspace: Option<String>,
}

/// Directories cannot be read as they were named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing is left for the path.
    #[error("`{0}` has no path: write `[NAME=]PATH[@WORKSPACE]`")]
    NoPath(String),
    /// What stands before the `=` cannot be a name.
    #[error(
        "`{name}` in `{text}` cannot be a name (ASCII letters, digits, `.`, `-` and `_`, not `.` or `..`); if it belongs to \
         the path, write `./{text}`"
    )]
    Name {
        /// What stands before the `=`.
        name: String,
        /// The whole.
        text: String,
    },
    /// What stands behind the `@` cannot be a workspace.
    #[error("the workspace behind the `@` of `{text}` {reason}; if the `@` belongs to the path, end the path with `/`")]
    Workspace {
        /// The whole.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two directories have one name.
    #[error("two directories are called `{0}`: tell them apart as `NAME=PATH`")]
    SameName(String),
    /// One of several directories has no name, and its path has no last part that could be one.
    #[error("`{}` needs a name beside other directories: write `NAME=PATH`", .0.display())]
    NoName(PathBuf),
}

impl Source {
    /// Reads `[NAME=]PATH[@WORKSPACE]`, such as `eu=/srv/audit@651b3f72`.
    ///
    /// NAME is what stands before the first `=`, if no `/` does; WORKSPACE is what stands behind the last `@`, if no `/`
    /// does. So a path whose first part has a `=` is written `./a=b`, and one whose last part has an `@` is written `a@b/`.
    ///
    /// # Errors
    /// [`SourceError::NoPath`], [`SourceError::Name`], [`SourceError::Workspace`].
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) if !name.contains('/') => (Some(name.to_owned()), rest),
            _ => (None, text),
        };
        if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
            return Err(SourceError::Name { name: name.clone(), text: text.to_owned() });
        }
        let (path, workspace) = match rest.rsplit_once('@') {
            Some((path, workspace)) if !workspace.contains('/') => (path, Some(workspace.to_owned())),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(SourceError::NoPath(text.to_owned()));
        }
        if let Some(Err(error)) = workspace.as_deref().map(Identity::check_id) {
            return Err(SourceError::Workspace { text: text.to_owned(), reason: error.to_string() });
        }
        Ok(Self { name, path: path.into(), workspace })
    }
}

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(text, "" | "." | "..") && text.bytes().all(is_plain)
}

/// The directories of a query: one, or several of different names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// Puts directories together. Where there are several, one without a name is called by the last part of its path.
    ///
    /// # Errors
    /// [`SourceError::SameName`], [`SourceError::NoName`].
    pub fn new(mut sources: Vec<Source>) -> Result<Self, SourceError> {
        if sources.len() > 1 {
            for at in 0..sources.len() {
                let (before, source) = (&sources[..at], &sources[at]);
                let of_path = || source.path.file_name().and_then(OsStr::to_str).filter(|name| is_name(name));
                let name = source.name.as_deref().or_else(of_path);
                let name = name.ok_or_else(|| SourceError::NoName(source.path.clone()))?.to_owned();
                if before.iter().any(|other| other.name.as_ref() == Some(&name)) {
                    return Err(SourceError::SameName(name));
                }
                sources[at].name = Some(name);
            }
        }
        Ok(Self(sources))
    }

    /// The directories, in the order in which they were named; [`Segment::source`] counts in it.
    #[must_use]
    pub fn as_slice(&self) -> &[Source] {
        &self.0
    }

    /// What paths in each directory begin with.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &str> {
        (0..self.0.len()).filter_map(|source| self.prefix(source))
    }

    /// What paths in a directory begin with: its name, where there are several.
    fn prefix(&self, source: usize) -> Option<&str> {
        if self.0.len() > 1 { self.0[source].name.as_deref() } else { None }
    }
}

/// A folder, by its directory's number and its path, and a rank.
pub(super) type Series = (usize, Arc<str>, u32);

/// A segment that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The number of its directory among the [`Sources`].
    pub source: usize,
    /// The folder it lies in, relative to the directory: `5003592`, or nothing.
    folder: Arc<str>,
    /// Its name, `.gz` and `.zst` included.
    pub name: SegmentName,
    /// Its length on disk when it was found.
    pub bytes: u64,
    /// Which file it was.
    pub id: FileId,
    /// When it was last written to.
    modified: Timestamp,
}

impl Segment {
    fn new(source: usize, folder: Arc<str>, name: SegmentName, facts: &Facts) -> Self {
        let Facts { id, bytes, modified, .. } = *facts;
        Self { source, folder, name, bytes, id, modified }
    }

    /// The path that records tell, such as `eu/5003592/audit-0_20260128T091244.381Z.jsonl`: relative to the directory,
    /// without `.gz` and `.zst`, with the directory's name before it where there are several.
    #[must_use]
    pub fn path(&self, sources: &Sources) -> String {
        let name = self.name.packed(Compression::Plain).to_string();
        let parts = [sources.prefix(self.source).unwrap_or(""), &self.folder, &name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// What a segment of this path would be listed as, whether or not there is one: the inverse of [`Segment::path`]. `None` if no
    /// segment has such a path.
    #[must_use]
    pub fn named(sources: &Sources, path: &str) -> Option<Self> {
        let prefix = |source| sources.prefix(source).map_or(String::new(), |name| format!("{name}/"));
        let source = (0..sources.0.len()).find(|source| path.starts_with(&prefix(*source)))?;
        let below = &path[prefix(source).len()..];
        let (folder, name) = below.rsplit_once('/').unwrap_or(("", below));
        let name: SegmentName = name.parse().ok()?;
        let (id, modified) = (FileId { dev: 0, ino: 0 }, Timestamp::from_millis(0));
        let segment = Self { source, folder: folder.into(), name, bytes: 0, id, modified };
        (segment.path(sources) == path).then_some(segment)
    }

    /// The job whose lines it should hold: the name of the folder that it lies in. `None` directly in the directory, or in
    /// a folder `audit` directly in that.
    #[must_use]
    pub fn job(&self) -> Option<&str> {
        self.folder.rsplit('/').next().filter(|_| !matches!(&*self.folder, "" | "audit"))
    }

    /// How its content is packed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.name.compression()
    }

    /// Opens the folder that it lies in; `None` if that has vanished.
    pub(super) fn open_folder(&self, sources: &Sources) -> io::Result<Option<Folder>> {
        let directory = Folder::open(&sources.0[self.source].path)?;
        if self.folder.is_empty() { Ok(Some(directory)) } else { self.open_folder_in(&directory) }
    }

    /// Opens the folder that it lies in, which is not the directory itself.
    fn open_folder_in(&self, directory: &Folder) -> io::Result<Option<Folder>> {
        let mut names = self.folder.split('/').map(OsStr::new);
        let first = directory.open_child(names.next().unwrap_or_default());
        match first.and_then(|first| names.try_fold(first, |folder, name| folder.open_child(name))) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if has_vanished(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What it is like now; `None` if it has vanished.
    fn facts(&self, directory: &Folder) -> io::Result<Option<Facts>> {
        let name = self.name.to_string();
        if self.folder.is_empty() {
            return directory.facts(OsStr::new(&name));
        }
        match self.open_folder_in(directory)? {
            Some(folder) => folder.facts(OsStr::new(&name)),
            None => Ok(None),
        }
    }

    /// Whether a record that lies in it is another job's or workspace's than those whose place this is.
    pub(super) fn is_foreign(&self, record: &Record<'_>, sources: &Sources) -> bool {
        let workspace = sources.0[self.source].workspace.as_deref();
        self.job().is_some_and(|job| job != record.job_id)
            || workspace.is_some_and(|workspace| workspace != record.workspace_id)
    }

    /// The segments that one writer writes, one after the other: those of its folder and rank.
    pub(super) fn series(&self) -> Series {
        (self.source, Arc::clone(&self.folder), self.name.rank())
    }

    /// The order of segments: by the time in the name, directory, path. Equal are those of one path, however they are packed.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |segment: &Self| (segment.name.oldest(), segment.source);
        key(self).cmp(&key(other)).then_with(|| self.path_order(other))
    }

    /// The same; of one segment's names the plain one comes first.
    fn shown_order(&self, other: &Self) -> Ordering {
        self.order(other).then_with(|| self.compression().cmp(&other.compression()))
    }

    /// Whether it may grow, as it was modified or opened lately: ours are closed at the end of their day, and clocks may differ by
    /// the second day.
    pub(super) fn may_grow(&self, now: Timestamp) -> bool {
        let lately = now.plus_millis(-2 * DAY_MS);
        self.modified >= lately || self.compression() == Compression::Plain && self.name.youngest() >= lately
    }

    /// The order by directory and path.
    pub(super) fn by_path(&self, other: &Self) -> Ordering {
        self.source.cmp(&other.source).then_with(|| self.path_order(other))
    }

    /// The order of the paths' bytes.
    fn path_order(&self, other: &Self) -> Ordering {
        let name = |segment: &Self| segment.name.packed(Compression::Plain).to_string();
        if self.folder == other.folder {
            return if self.name.rank() == other.name.rank() && self.name.opened() == other.name.opened() {
                Ordering::Equal
            } else {
                name(self).cmp(&name(other))
            };
        }
        // The names are made only where the folders leave it open, as one lies below the other.
        let folder = |segment: &Self| {
            let slash = if segment.folder.is_empty() { "" } else { "/" };
            (Arc::clone(&segment.folder), slash)
        };
        let ((a, a_slash), (b, b_slash)) = (folder(self), folder(other));
        let (a, b) = (a.bytes().chain(a_slash.bytes()), b.bytes().chain(b_slash.bytes()));
        match a.clone().zip(b.clone()).map(|(a, b)| a.cmp(&b)).find(|order| order.is_ne()) {
            Some(order) => order,
            None => a.chain(name(self).into_bytes()).cmp(b.chain(name(other).into_bytes())),
        }
    }
}

/// Something that could not be looked at: segments may lie there that nobody has seen.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// The number of the directory among the [`Sources`].
    pub source: usize,
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub error: Arc<io::Error>,
    /// The folder below which the view is not complete, relative to the directory.
    below: String,
}

/// All segments of some directories, and what could not be looked at.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// By the time in the name (of a daily name: the beginning of its day), directory and path.
    pub segments: Vec<Segment>,
    /// In no order.
    pub troubles: Vec<Trouble>,
    /// What does not count: files under another of their paths, and compressed ones beside the plain one.
    hidden: Vec<Segment>,
    /// Of each directory, what is known of its folders.
    folders: Vec<Option<Known>>,
    /// How often it was refreshed.
    rounds: u64,
}

/// What a [`Listing::refresh`] found. Each in the order of segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Segments that were not there before.
    pub appeared: Vec<Segment>,
    /// Segments that are no longer there.
    pub vanished: Vec<Segment>,
    /// Segments that are another file than before, or have another name or length.
    pub changed: Vec<Change>,
}

/// A segment that is there as before, but not quite the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it was.
    pub before: Segment,
    /// As it is.
    pub now: Segment,
}

impl Listing {
    /// Walks the directories. A file counts once, under the first of its paths, or once in the folder of each job that has
    /// a link to it; where a segment lies there plain and compressed, the plain one counts alone.
    ///
    /// Complexity: for a folder seven system calls, for a segment one. While it sorts, it takes 9 bytes a segment more.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let mut listing = Self::default();
        for walk in listing.walk(sources, SystemClock.now()) {
            listing.segments.extend(walk.segments);
        }
        listing.segments.sort_unstable_by(Segment::shown_order);
        listing.hide_repeated(sources);
        listing.segments.shrink_to_fit();
        listing
    }

    /// Walks the directories again, as far as they have changed, and tells what is new, what is gone and what is different.
    ///
    /// - A folder is read again if it is another one, or if its modification time is another than when it was read, or
    ///   was then less than a minute ago. So whatever is created, removed or renamed is noticed.
    /// - A segment's length is asked again if its folder is read, if it was modified within the last two days, or if it
    ///   is plain and named by a time within these; of all others, every 64th. So what is written to an old segment is noticed within
    ///   64 rounds, and from then on in each.
    /// - A segment is the same as long as its path is: one that was compressed meanwhile has neither appeared nor vanished. One
    ///   that lies where there is trouble now has not vanished.
    ///
    /// Complexity: for a folder without change one system call, for a segment that may grow three.
    pub fn refresh(&mut self, sources: &Sources) -> Changes {
        let now = SystemClock.now();
        let walks = self.walk(sources, now);
        let mut changes = Changes::default();
        self.ask_lengths(sources, &walks, now, &mut changes);
        self.put(walks, sources, &mut changes);
        self.rounds += 1;
        changes.changed.sort_unstable_by(|a, b| a.now.order(&b.now));
        changes
    }

    /// Walks all directories; `troubles` are then those of this walk.
    fn walk(&mut self, sources: &Sources, now: Timestamp) -> Vec<Walk> {
        self.troubles.clear();
        self.folders.resize_with(sources.0.len(), || None);
        let mut walks = Vec::new();
        for (number, (source, folders)) in sources.0.iter().zip(&mut self.folders).enumerate() {
            let mut walk = Walk::new(number, now);
            *folders = walk.directory(source, folders.take());
            self.troubles.append(&mut walk.troubles);
            walks.push(walk);
        }
        walks
    }

    /// Asks the segments that may have grown, of folders that were not read, for their lengths.
    fn ask_lengths(&mut self, sources: &Sources, walks: &[Walk], now: Timestamp, changes: &mut Changes) {
        let directories: Vec<_> = sources.0.iter().map(|source| Folder::open(&source.path).ok()).collect();
        let counted = self.segments.len();
        for (at, segment) in self.segments.iter_mut().chain(&mut self.hidden).enumerate() {
            let is_turn = segment.id.ino % ROUNDS == self.rounds % ROUNDS;
            // What cannot be opened, the walk has told.
            let Some(directory) = &directories[segment.source] else { continue };
            if !(is_turn || segment.may_grow(now)) || walks[segment.source].read.contains(&segment.folder) {
                continue;
            }
            match segment.facts(directory) {
                Ok(Some(facts)) if facts.kind == EntryKind::File => {
                    let now = Segment::new(segment.source, Arc::clone(&segment.folder), segment.name.clone(), &facts);
                    let before = std::mem::replace(segment, now);
                    changes.changed.extend(Change::of(before, segment).filter(|_| at < counted));
                }
                // The folder's own time tells that it must be read.
                Ok(_) => {}
                Err(error) if has_vanished(&error) => {}
                Err(error) => {
                    let path = sources.0[segment.source].path.join(&*segment.folder).join(segment.name.to_string());
                    let below = segment.folder.to_string();
                    self.troubles.push(Trouble { source: segment.source, path, error: Arc::new(error), below });
                }
            }
        }
    }

    /// Puts what was found in the folders that were read in the place of what was there.
    fn put(&mut self, walks: Vec<Walk>, sources: &Sources, changes: &mut Changes) {
        let is_read = |segment: &Segment| walks[segment.source].read.contains(&segment.folder);
        let before: Vec<_> = self.segments.extract_if(.., |segment| is_read(segment)).collect();
        self.hidden.retain(|segment| !is_read(segment));
        let mut found: Vec<_> = walks.into_iter().flat_map(|walk| walk.segments).collect();
        if before.is_empty() && found.is_empty() {
            return;
        }
        found.sort_unstable_by(Segment::shown_order);
        let lost = before.iter().filter(|segment| !is_among(&found, segment) && self.is_in_trouble(segment));
        let lost: Vec<_> = lost.cloned().collect();
        // What did not count may count now.
        found.extend(lost.into_iter().chain(std::mem::take(&mut self.hidden)));
        found.sort_unstable_by(Segment::shown_order);
        merge_into(&mut self.segments, &found);
        self.hide_repeated(sources);
        for old in &before {
            match self.position(old) {
                Ok(at) => changes.changed.extend(Change::of(old.clone(), &self.segments[at])),
                Err(_) => changes.vanished.push(old.clone()),
            }
        }
        let was_shown = |segment: &&Segment| found.binary_search_by(|other| other.shown_order(segment)).is_err();
        changes.vanished.extend(self.hidden.iter().filter(was_shown).cloned());
        changes.changed.retain(|change| self.position(&change.now).is_ok());
        changes.vanished.sort_unstable_by(Segment::order);
        found.dedup_by(|later, earlier| later.order(earlier).is_eq());
        // Of those beside another of their name, that one was there all along.
        let is_shown = |segment: &Segment| self.position(segment).is_ok_and(|at| self.segments[at] == *segment);
        changes.appeared = found;
        changes.appeared.retain(|segment| !is_among(&before, segment) && is_shown(segment));
    }

    /// The number of the segment of the same path, however it is packed.
    ///
    /// # Errors
    /// There is none; it would have this number.
    pub fn position(&self, segment: &Segment) -> Result<usize, usize> {
        self.segments.binary_search_by(|other| other.order(segment))
    }

    /// Puts aside what does not count.
    fn hide_repeated(&mut self, sources: &Sources) {
        let segments = &self.segments;
        let mut is_repeated = vec![false; segments.len()];
        for (at, pair) in (1..).zip(segments.windows(2)) {
            is_repeated[at] = pair[0].order(&pair[1]).is_eq();
        }
        let mut by_id: Vec<usize> = (0..segments.len()).filter(|at| !is_repeated[*at]).collect();
        by_id.sort_unstable_by_key(|&at| (segments[at].id, at));
        for same in by_id.chunk_by(|&a, &b| segments[a].id == segments[b].id).filter(|same| same.len() > 1) {
            // Where a line of any job may lie comes first, so that no line is read twice.
            let mut same: Vec<_> = same.iter().map(|&at| (Owners::of(&segments[at], sources), at)).collect();
            same.sort_unstable();
            for (nth, (owners, at)) in same.iter().enumerate() {
                let mut kept = same[..nth].iter().filter(|(_, other)| !is_repeated[*other]);
                is_repeated[*at] = kept.any(|(other, _)| owners.overlap(other));
            }
        }
        let mut is_repeated = is_repeated.into_iter();
        self.hidden.extend(self.segments.extract_if(.., |_| is_repeated.next() == Some(true)));
    }

    fn is_in_trouble(&self, segment: &Segment) -> bool {
        self.troubles.iter().any(|trouble| {
            trouble.source == segment.source && Path::new(&*segment.folder).starts_with(Path::new(&trouble.below))
        })
    }
}

/// Whose lines a path may hold; all others are foreign there. `None`: anybody's.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Owners<'a> {
    job: Option<&'a str>,
    workspace: Option<&'a str>,
}

impl<'a> Owners<'a> {
    fn of(segment: &'a Segment, sources: &'a Sources) -> Self {
        Self { job: segment.job(), workspace: sources.0[segment.source].workspace.as_deref() }
    }

    /// Whether one line may be of both. If not, two paths of a file both count: a link in another job's folder, where all lines
    /// are foreign, hides none.
    fn overlap(&self, other: &Self) -> bool {
        let may_be_same = |a: Option<&str>, b: Option<&str>| a.is_none() || b.is_none() || a == b;
        may_be_same(self.job, other.job) && may_be_same(self.workspace, other.workspace)
    }
}

/// Segments that will hardly grow are asked once in so many rounds.
const ROUNDS: u64 = 64;

impl Change {
    fn of(before: Segment, now: &Segment) -> Option<Self> {
        let is_same = (before.id, before.bytes, &before.name) == (now.id, now.bytes, &now.name);
        (!is_same).then(|| Self { before, now: now.clone() })
    }
}

/// Whether segments in order hold one of the same path.
fn is_among(segments: &[Segment], segment: &Segment) -> bool {
    segments.binary_search_by(|other| other.order(segment)).is_ok()
}

/// Puts segments in order among others in order. From the end, so that only those are moved that come after the first.
fn merge_into(segments: &mut Vec<Segment>, new: &[Segment]) {
    let (mut left, mut hole) = (segments.len(), segments.len() + new.len());
    segments.reserve_exact(new.len());
    segments.extend_from_slice(new);
    for segment in new.iter().rev() {
        while left > 0 && segments[left - 1].shown_order(segment).is_gt() {
            (left, hole) = (left - 1, hole - 1);
            segments.swap(left, hole);
        }
        hole -= 1;
        segments[hole] = segment.clone();
    }
}

/// Looks at what lies under a name, that is one of a segment. If that has just vanished, it may have been compressed.
fn look_at(folder: &Folder, name: &OsStr, segment: SegmentName) -> io::Result<Option<(SegmentName, Facts)>> {
    match folder.facts(name)? {
        Some(facts) => Ok((facts.kind == EntryKind::File).then_some((segment, facts))),
        None => look(folder, &segment),
    }
}

/// Looks for a regular file of a segment's name. If it has just vanished, it may have been compressed.
fn look(folder: &Folder, name: &SegmentName) -> io::Result<Option<(SegmentName, Facts)>> {
    for name in spellings(name) {
        match folder.facts(OsStr::new(&name.to_string()))? {
            Some(facts) if facts.kind == EntryKind::File => return Ok(Some((name, facts))),
            Some(_) => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

/// The names under which a segment may lie, the given one first.
pub(super) fn spellings(name: &SegmentName) -> impl Iterator<Item = SegmentName> {
    let others = Compression::ALL.into_iter().filter(|&compression| compression != name.compression());
    std::iter::once(name.clone()).chain(others.map(|compression| name.packed(compression)))
}

/// Whether something is no longer there, or something else is in its place.
fn has_vanished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use rustix::fs::{CWD, FileType, Mode};
    use tempfile::TempDir;

    use super::walk::DEPTH_MAX;
    use super::*;

    const A: &str = "audit-0_20260128T091244.381Z.jsonl";
    const B: &str = "audit-1_20260128T091244.381Z.jsonl";

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    fn sources_of(directories: &[&TempDir]) -> Sources {
        let of = |(at, directory): (usize, &&TempDir)| source(&format!("d{at}={}", directory.path().display()));
        Sources::new(directories.iter().enumerate().map(of).collect()).unwrap()
    }

    /// Makes files in a new directory, each with its own path as its content.
    fn directory(paths: &[&str]) -> TempDir {
        let temp = tempfile::tempdir().unwrap();
        for path in paths {
            let file = temp.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, path).unwrap();
        }
        temp
    }

    fn paths(segments: &[Segment], sources: &Sources) -> Vec<String> {
        segments.iter().map(|segment| segment.path(sources)).collect()
    }

    #[test]
    fn a_source_is_read_as_it_is_documented() {
        let of = |name: Option<&str>, path: &str, workspace: Option<&str>| {
            Ok(Source { name: name.map(Into::into), path: path.into(), workspace: workspace.map(Into::into) })
        };
        for (text, expected) in [
            ("/audit", of(None, "/audit", None)),
            ("eu=/audit", of(Some("eu"), "/audit", None)),
            ("/audit@w-1", of(None, "/audit", Some("w-1"))),
            ("eu=/audit@w-1", of(Some("eu"), "/audit", Some("w-1"))),
            ("eu=x=y", of(Some("eu"), "x=y", None)),
            ("./x=y", of(None, "./x=y", None)),
            ("/x=y/z", of(None, "/x=y/z", None)),
            ("a@b@c", of(None, "a@b", Some("c"))),
            ("a@b/", of(None, "a@b/", None)),
            ("a@b/@c", of(None, "a@b/", Some("c"))),
            ("", Err("`` has no path: write `[NAME=]PATH[@WORKSPACE]`")),
            ("eu=", Err("`eu=` has no path: write `[NAME=]PATH[@WORKSPACE]`")),
            ("eu=@w", Err("`eu=@w` has no path: write `[NAME=]PATH[@WORKSPACE]`")),
            (
                "=/audit",
                Err(
                    "`` in `=/audit` cannot be a name (ASCII letters, digits, `.`, `-` and `_`, not `.` or `..`); if it \
                     belongs to the path, write `./=/audit`",
                ),
            ),
            (
                "..=x",
                Err(
                    "`..` in `..=x` cannot be a name (ASCII letters, digits, `.`, `-` and `_`, not `.` or `..`); if it \
                     belongs to the path, write `./..=x`",
                ),
            ),
            (
                "/audit@",
                Err(
                    "the workspace behind the `@` of `/audit@` is empty; if the `@` belongs to the path, end the path \
                     with `/`",
                ),
            ),
        ] {
            let found = Source::parse(text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn several_directories_have_different_names() {
        let names = |texts: &[&str]| {
            let sources = Sources::new(texts.iter().map(|text| source(text)).collect());
            sources.map(|sources| sources.0.into_iter().map(|source| source.name).collect::<Vec<_>>())
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(names(&[]), Ok(vec![]));
        assert_eq!(names(&["/"]), Ok(vec![None]));
        assert_eq!(names(&["/srv/eu", "/srv/us/"]), Ok(vec![some("eu"), some("us")]));
        assert_eq!(names(&["x=/srv/eu", "/srv/eu"]), Ok(vec![some("x"), some("eu")]));
        assert_eq!(names(&["/a/audit", "/b/audit"]), Err(SourceError::SameName("audit".to_owned())));
        assert_eq!(names(&["b=/a", "/b"]), Err(SourceError::SameName("b".to_owned())));
        assert_eq!(names(&["/a", "/"]), Err(SourceError::NoName("/".into())));
        assert_eq!(names(&["/a", "/b c"]), Err(SourceError::NoName("/b c".into())));
    }

    #[test]
    fn only_regular_files_with_a_segments_name_are_found_and_no_link_is_followed() {
        let temp = directory(&[
            A,
            "5003592/audit-0-2026-01-27.jsonl",
            "audit.txt",
            "5003592/x.jsonl",
            "lost+found/audit-0-2026-01-01.jsonl",
        ]);
        let outside = directory(&[B, "7/audit-7-2026-01-01.jsonl"]);
        symlink(outside.path().join(B), temp.path().join(B)).unwrap();
        symlink(outside.path().join("7"), temp.path().join("7")).unwrap();
        symlink("nowhere", temp.path().join("audit-2-2026-01-01.jsonl")).unwrap();
        rustix::fs::mknodat(CWD, temp.path().join("audit-3-2026-01-01.jsonl"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::create_dir(temp.path().join("audit-4-2026-01-01.jsonl")).unwrap();
        fs::write(temp.path().join("audit-4-2026-01-01.jsonl").join(B), "").unwrap();
        let sources = sources_of(&[&temp]);
        let listing = Listing::new(&sources);
        let inner = format!("audit-4-2026-01-01.jsonl/{B}");
        assert_eq!(paths(&listing.segments, &sources), ["5003592/audit-0-2026-01-27.jsonl", A, &inner]);
        assert!(listing.troubles.is_empty(), "{:?}", listing.troubles);
        assert_eq!(listing.segments[0].bytes, 32);
        assert_eq!(listing.segments[0].source, 0);
    }

    #[test]
    fn a_directory_that_does_not_say_what_its_entries_are_is_asked() {
        let temp = directory(&[A]);
        rustix::fs::mknodat(CWD, temp.path().join(B), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let folder = Folder::open(temp.path()).unwrap();
        let found = |name: &str| look(&folder, &name.parse().unwrap()).unwrap().map(|(name, _)| name.to_string());
        assert_eq!(found(A).as_deref(), Some(A));
        assert_eq!(found(&format!("{A}.gz")).as_deref(), Some(A));
        assert_eq!(found(B), None);
        assert_eq!(found("audit-0-2026-01-01.jsonl"), None);
    }

    #[test]
    fn the_job_is_the_folders_name_but_for_the_directory_and_its_audit() {
        let temp = directory(&[
            "audit-0-2026-01-01.jsonl",
            "audit/audit-0-2026-01-02.jsonl",
            "5/audit-0-2026-01-03.jsonl",
            "audit/6/audit-0-2026-01-04.jsonl",
            "7/audit/audit-0-2026-01-05.jsonl",
        ]);
        let listing = Listing::new(&sources_of(&[&temp]));
        let jobs: Vec<_> = listing.segments.iter().map(Segment::job).collect();
        assert_eq!(jobs, [None, None, Some("5"), Some("6"), Some("audit")]);
    }

    #[test]
    fn segments_are_ordered_by_time_directory_and_path() {
        // A daily name stands for the beginning of its day; `a/` comes after `a-`, and `audit-10` before `audit-2`.
        let day = "audit-0-2026-01-28.jsonl";
        let more = ["audit-10-2026-01-28.jsonl", "audit-2-2026-01-28.jsonl"];
        let first = directory(&[&format!("a/{A}"), &format!("a-/{A}"), A, "z/audit-9-2026-01-27.jsonl"]);
        let second =
            directory(&[day, more[0], more[1], &format!("b/{day}"), &format!("audit-/{day}"), &format!("a/{A}")]);
        let sources = sources_of(&[&first, &second]);
        let expected = [
            "d0/z/audit-9-2026-01-27.jsonl".to_owned(),
            format!("d1/audit-/{day}"),
            format!("d1/{day}"),
            format!("d1/{}", more[0]),
            format!("d1/{}", more[1]),
            format!("d1/b/{day}"),
            format!("d0/a-/{A}"),
            format!("d0/a/{A}"),
            format!("d0/{A}"),
            format!("d1/a/{A}"),
        ];
        assert_eq!(paths(&Listing::new(&sources).segments, &sources), expected);
    }

    #[test]
    fn a_file_counts_once_and_the_plain_one_beats_the_compressed() {
        let temp = directory(&[
            &format!("1/{A}"),
            &format!("1/{A}.gz"),
            &format!("1/{A}.zst"),
            &format!("2/{A}.zst"),
            &format!("2/{A}.gz"),
            &format!("3/{A}.zst"),
        ]);
        fs::create_dir(temp.path().join("0")).unwrap();
        fs::hard_link(temp.path().join("3").join(format!("{A}.zst")), temp.path().join("0").join(format!("{A}.zst")))
            .unwrap();
        // The same directory again, and a part of it, where lines may be of any job. A link in another job's folder hides nothing.
        let path = temp.path().display().to_string();
        let texts = [format!("x={path}"), format!("y={path}"), format!("z={path}/1")];
        let sources = Sources::new(texts.iter().map(|text| source(text)).collect()).unwrap();
        let segments = Listing::new(&sources).segments;
        assert_eq!(paths(&segments, &sources), ["x/0", "x/2", "x/3", "z"].map(|folder| format!("{folder}/{A}")));
        let compressions: Vec<_> = segments.iter().map(Segment::compression).collect();
        assert_eq!(compressions, [Compression::Zstd, Compression::Gzip, Compression::Zstd, Compression::Plain]);
    }

    #[test]
    fn a_file_of_several_names_is_read_once_for_each_job_and_workspace_that_its_lines_may_be_of() {
        let temp = directory(&[&format!("1/{B}")]);
        for link in [format!("1/{A}"), format!("2/{A}")] {
            fs::create_dir_all(temp.path().join(&link[..1])).unwrap();
            fs::hard_link(temp.path().join(format!("1/{B}")), temp.path().join(link)).unwrap();
        }
        let path = temp.path().display();
        for (dirs, expected) in [
            (vec![format!("x={path}")], vec![format!("1/{A}"), format!("2/{A}")]),
            (vec![format!("x={path}@w"), format!("y={path}@w")], vec![format!("x/1/{A}"), format!("x/2/{A}")]),
            (vec![format!("x={path}/2@v"), format!("y={path}/2@w")], vec![format!("x/{A}"), format!("y/{A}")]),
            (vec![format!("x={path}@w"), format!("y={path}/2")], vec![format!("y/{A}")]),
        ] {
            let sources = Sources::new(dirs.iter().map(|text| source(text)).collect()).unwrap();
            assert_eq!(paths(&Listing::new(&sources).segments, &sources), expected, "{dirs:?}");
        }
    }

    #[test]
    fn what_cannot_be_looked_at_is_told_and_keeps_nobody_from_the_rest() {
        let deep = vec!["d"; DEPTH_MAX].join("/");
        let temp = directory(&[A, &format!("{deep}/{B}"), &format!("{deep}/e/{B}")]);
        let odd = temp.path().join(OsStr::from_bytes(b"\xff"));
        fs::create_dir(&odd).unwrap();
        let nowhere = temp.path().join("nowhere");
        let sources = Sources::new(vec![
            source(&format!("a={}", temp.path().display())),
            source(&format!("b={}", nowhere.display())),
        ]);
        let listing = Listing::new(&sources.unwrap());
        assert_eq!(listing.segments.len(), 2);
        let mut troubles: Vec<_> =
            listing.troubles.iter().map(|t| (t.source, t.path.clone(), t.error.to_string())).collect();
        troubles.sort();
        assert_eq!(
            troubles,
            [
                (0, temp.path().join(deep).join("e"), "more than 32 folders deep; name it to read it".to_owned()),
                (0, odd, "the folder's name is not UTF-8".to_owned()),
                (1, nowhere, "No such file or directory (os error 2)".to_owned()),
            ]
        );
    }

    #[test]
    fn a_refresh_tells_what_appeared_and_what_vanished() {
        let temp =
            directory(&["1/audit-0-2026-01-01.jsonl", "2/audit-0-2026-01-02.jsonl", "3/audit-0-2026-01-03.jsonl"]);
        let sources = sources_of(&[&temp]);
        let mut listing = Listing::new(&sources);
        assert_eq!(listing.refresh(&sources), Changes::default());
        let at = |path: &str| temp.path().join(path);
        fs::remove_dir_all(at("1")).unwrap();
        fs::rename(at("2/audit-0-2026-01-02.jsonl"), at("2/audit-0-2026-01-02.jsonl.gz")).unwrap();
        fs::write(at("3/audit-1-2026-01-02.jsonl"), "new").unwrap();
        fs::write(at("3/audit-0-2026-01-03.jsonl"), "now longer than its path").unwrap();
        let changes = listing.refresh(&sources);
        assert_eq!(paths(&changes.appeared, &sources), ["3/audit-1-2026-01-02.jsonl"]);
        assert_eq!(paths(&changes.vanished, &sources), ["1/audit-0-2026-01-01.jsonl"]);
        assert_eq!(listing.segments, Listing::new(&sources).segments);
        assert_eq!((listing.segments[0].compression(), listing.segments[2].bytes), (Compression::Gzip, 24));
    }

    /// Sets when a file or folder was last modified, in hours ago.
    fn age(path: &Path, hours: i64) {
        let seconds = SystemClock.now().millis() / 1000 - hours * 3600;
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
    }

    #[test]
    fn a_folder_is_read_again_only_if_its_time_has_changed_or_was_young_when_it_was_read() {
        let temp = directory(&[&format!("1/{A}"), &format!("2/{A}")]);
        let sources = sources_of(&[&temp]);
        let at = |path: &str| temp.path().join(path);
        for path in ["1", "."] {
            age(&at(path), 1);
        }
        let young = fs::metadata(at("2")).unwrap().modified().unwrap();
        let mut listing = Listing::new(&sources);
        for folder in ["1", "2"] {
            fs::write(at(folder).join(B), "").unwrap();
        }
        age(&at("1"), 1);
        fs::File::open(at("2")).unwrap().set_modified(young).unwrap();
        assert_eq!(paths(&listing.refresh(&sources).appeared, &sources), [format!("2/{B}")]);
        age(&at("1"), 2);
        assert_eq!(paths(&listing.refresh(&sources).appeared, &sources), [format!("1/{B}")]);
        assert_eq!(listing.segments, Listing::new(&sources).segments);
    }

    #[test]
    fn what_is_written_to_an_old_segment_is_noticed_within_64_rounds_and_then_in_each() {
        let temp = directory(&[&format!("1/{A}"), &format!("1/{B}")]);
        let sources = sources_of(&[&temp]);
        let at = |path: &str| temp.path().join(path);
        for path in [&format!("1/{A}"), &format!("1/{B}"), "1", "."] {
            age(&at(path), 50);
        }
        let mut listing = Listing::new(&sources);
        let append = || fs::write(at("1").join(A), format!("1/{A} and more")).unwrap();
        append();
        let noticed = (0..64).map(|_| listing.refresh(&sources).changed).find(|changed| !changed.is_empty()).unwrap();
        assert_eq!((noticed[0].before.bytes, noticed[0].now.bytes, noticed.len()), (36, 45, 1));
        fs::write(at("1").join(A), "").unwrap();
        let Changes { appeared, vanished, changed } = listing.refresh(&sources);
        assert_eq!((changed[0].before.bytes, changed[0].now.bytes, changed.len()), (45, 0, 1));
        assert!(appeared.is_empty() && vanished.is_empty());
    }

    /// Something that happens to one of a few paths.
    #[derive(Debug, Clone)]
    enum Act {
        Write(usize, usize, &'static str, usize),
        Remove(usize, usize, &'static str),
        Link(usize, usize),
        RemoveFolder(usize),
        MoveFolder(usize, usize),
        Decoy(usize, bool),
    }

    fn acts() -> impl Strategy<Value = Vec<Vec<Act>>> {
        let (folder, name) = (0..FOLDERS.len(), 0..3_usize);
        let suffix = || prop::sample::select(vec!["", ".gz", ".zst"]);
        let act = prop_oneof![
            8 => (folder.clone(), name.clone(), suffix(), 0..50_usize).prop_map(|(f, n, s, b)| Act::Write(f, n, s, b)),
            4 => (folder.clone(), name.clone(), suffix()).prop_map(|(f, n, s)| Act::Remove(f, n, s)),
            1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Act::Link(from, to)),
            1 => folder.clone().prop_map(Act::RemoveFolder),
            1 => (folder.clone(), folder.clone()).prop_map(|(from, to)| Act::MoveFolder(from, to)),
            1 => (folder, any::<bool>()).prop_map(|(folder, is_there)| Act::Decoy(folder, is_there)),
        ];
        prop::collection::vec(prop::collection::vec(act, 0..4), 1..12)
    }

    const FOLDERS: [&str; 6] = [".", "1", "2", "2/a", "2/a/b", "3"];

    impl Act {
        /// Does it; what is impossible does not happen.
        fn perform(&self, root: &Path) -> io::Result<()> {
            let segment = |nth: usize| format!("audit-{nth}-2026-01-0{}.jsonl", 3 - nth);
            let at = |folder: usize| root.join(FOLDERS[folder]);
            match *self {
                Self::Write(folder, nth, suffix, bytes) => {
                    fs::create_dir_all(at(folder))?;
                    fs::write(at(folder).join(segment(nth) + suffix), vec![b'x'; bytes])
                }
                Self::Remove(folder, nth, suffix) => fs::remove_file(at(folder).join(segment(nth) + suffix)),
                Self::Link(from, to) => fs::hard_link(at(from).join(segment(0)), at(to).join(segment(1))),
                Self::RemoveFolder(0) => Ok(()),
                Self::RemoveFolder(folder) => fs::remove_dir_all(at(folder)),
                Self::MoveFolder(from, to) => fs::rename(at(from), at(to)),
                // A link that looks like neither a segment nor a folder.
                Self::Decoy(folder, true) => symlink("nowhere", at(folder).join("audit-9")),
                Self::Decoy(folder, false) => fs::remove_file(at(folder).join("audit-9")),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn a_refreshed_listing_is_that_of_a_new_walk_and_its_changes_are_the_difference(rounds in acts()) {
            let temp = directory(&[]);
            let sources = sources_of(&[&temp]);
            let mut listing = Listing::new(&sources);
            let mut old: BTreeMap<String, Segment> = BTreeMap::new();
            for (round, acts) in (100..).zip(rounds) {
                for act in acts {
                    // A folder's time is set to an hour at which it counts as settled, another one each time.
                    drop(act.perform(temp.path()));
                    for folder in FOLDERS.map(|folder| temp.path().join(folder)).iter().filter(|folder| folder.exists()) {
                        let modified = Folder::open(folder).unwrap().itself().unwrap().modified;
                        if SystemClock.now().millis() - modified.millis() < 3_600_000 {
                            age(folder, round);
                        }
                    }
                }
                let Changes { appeared, vanished, changed } = listing.refresh(&sources);
                let fresh = Listing::new(&sources);
                prop_assert_eq!(&listing.segments, &fresh.segments);
                prop_assert_eq!(&listing.hidden, &fresh.hidden);
                let new: BTreeMap<_, _> = fresh.segments.iter().map(|s| (s.path(&sources), s.clone())).collect();
                let only = |these: &BTreeMap<String, Segment>, others: &BTreeMap<String, Segment>| -> BTreeSet<String> {
                    these.keys().filter(|path| !others.contains_key(*path)).cloned().collect()
                };
                let told = |segments: &[Segment]| paths(segments, &sources).into_iter().collect::<BTreeSet<_>>();
                prop_assert_eq!(told(&appeared), only(&new, &old));
                prop_assert_eq!(told(&vanished), only(&old, &new));
                let kept = old.iter().filter_map(|(path, before)| Some((before, new.get(path)?)));
                let mut different: Vec<_> = kept.filter_map(|(before, now)| Change::of(before.clone(), now)).collect();
                different.sort_by(|a, b| a.now.order(&b.now));
                prop_assert_eq!(changed, different);
                old = new;
            }
        }
    }

    #[test]
    fn what_lies_where_there_is_trouble_has_not_vanished() {
        let (temp, other) = (directory(&["1/audit-0-2026-01-01.jsonl"]), directory(&[A]));
        let sources = sources_of(&[&temp, &other]);
        let mut listing = Listing::new(&sources);
        let away = other.path().with_extension("away");
        fs::rename(other.path(), &away).unwrap();
        fs::remove_dir_all(temp.path().join("1")).unwrap();
        let changes = listing.refresh(&sources);
        fs::rename(&away, other.path()).unwrap();
        assert_eq!(paths(&changes.vanished, &sources), ["d0/1/audit-0-2026-01-01.jsonl"]);
        assert_eq!(paths(&listing.segments, &sources), [format!("d1/{A}")]);
        assert_eq!(listing.troubles.len(), 1);
    }
}

//! Directories -> segments: what there is to read, in order.
//!
//! - Walked by file descriptor: no link is followed below a source, nothing but regular files with a segment's name counts.
//! - Whatever cannot be looked at is told as a [`Trouble`] and keeps nobody from the rest. What vanishes meanwhile is
//!   no trouble: retention removes segments every hour.
//! - Memory grows with the number of segments: 104 bytes each, where each lies in a job folder of its own.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::durable::{EntryKind, Facts, FileId, Folder};
use crate::record::{Compression, Identity, SegmentName};

/// Folders within folders; a deeper one is not read and told. Each level takes two file descriptors.
const DEPTH_MAX: usize = 32;

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

    /// What paths in a directory begin with: its name, where there are several.
    fn prefix(&self, source: usize) -> Option<&str> {
        if self.0.len() > 1 { self.0[source].name.as_deref() } else { None }
    }
}

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
}

impl Segment {
    /// The path that records tell, such as `eu/5003592/audit-0_20260128T091244.381Z.jsonl`: relative to the directory,
    /// without `.gz` and `.zst`, with the directory's name before it where there are several.
    #[must_use]
    pub fn path(&self, sources: &Sources) -> String {
        let name = self.name.packed(Compression::Plain).to_string();
        let parts = [sources.prefix(self.source).unwrap_or(""), &self.folder, &name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
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
        let mut folder = Folder::open(&sources.0[self.source].path)?;
        for name in self.folder.split('/').filter(|name| !name.is_empty()) {
            folder = match folder.open_child(OsStr::new(name)) {
                Ok(child) => child,
                Err(error) if has_vanished(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(folder))
    }

    /// The order of segments: by the time in the name, directory, path.
    fn order(&self, other: &Self) -> Ordering {
        let key = |segment: &Self| (segment.name.oldest(), segment.source);
        key(self).cmp(&key(other)).then_with(|| self.path_order(other))
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
#[derive(Debug)]
pub struct Trouble {
    /// The number of the directory among the [`Sources`].
    pub source: usize,
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
    /// The folder below which the view is not complete, relative to the directory.
    below: String,
}

/// All segments of some directories, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Listing {
    /// By the time in the name (of a daily name: the beginning of its day), directory and path.
    pub segments: Vec<Segment>,
    /// In no order.
    pub troubles: Vec<Trouble>,
}

/// What a [`Listing::refresh`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Segments that were not there before, in order.
    pub appeared: Vec<Segment>,
    /// Segments that are no longer there, in order.
    pub vanished: Vec<Segment>,
}

impl Listing {
    /// Walks the directories. A file counts once, under the first of its paths; where a segment lies there plain and
    /// compressed, the plain one counts alone.
    ///
    /// Complexity: for a folder six system calls, for a segment one. While it sorts, it takes 9 bytes a segment more.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let mut listing = Self::default();
        for (source, Source { path, .. }) in sources.0.iter().enumerate() {
            let mut walk = Walk { source, listing: &mut listing };
            match Folder::open(path) {
                Ok(folder) => walk.folder(&folder, "", 0),
                Err(error) => walk.trouble(path.clone(), "", error),
            }
        }
        // Of a segment's names the plain one comes first, and stays.
        listing.segments.sort_unstable_by(|a, b| a.order(b).then_with(|| a.compression().cmp(&b.compression())));
        listing.segments.dedup_by(|later, earlier| later.order(earlier).is_eq());
        drop_repeated_files(&mut listing.segments);
        listing.segments.shrink_to_fit();
        listing
    }

    /// Walks the directories again, and tells what is new and what is gone.
    ///
    /// A segment is the same as long as its path is: one that was compressed meanwhile has neither appeared nor vanished,
    /// but its name, length and [`FileId`] are now those of the compressed one. One that lies where there is trouble now
    /// has not vanished.
    pub fn refresh(&mut self, sources: &Sources) -> Changes {
        let Self { segments: found, troubles } = Self::new(sources);
        self.troubles = troubles;
        let mut changes = Changes::default();
        let before = std::mem::replace(&mut self.segments, Vec::with_capacity(found.len()));
        let (mut before, mut found) = (before.into_iter().peekable(), found.into_iter().peekable());
        loop {
            let order = match (before.peek(), found.peek()) {
                (None, None) => return changes,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.order(new),
            };
            let old = if order.is_le() { before.next() } else { None };
            let new = if order.is_ge() { found.next() } else { None };
            match (old, new) {
                (Some(_), Some(new)) => self.segments.push(new),
                (Some(old), None) if self.is_in_trouble(&old) => self.segments.push(old),
                (Some(old), None) => changes.vanished.push(old),
                (None, Some(new)) => {
                    changes.appeared.push(new.clone());
                    self.segments.push(new);
                }
                (None, None) => {}
            }
        }
    }

    fn is_in_trouble(&self, segment: &Segment) -> bool {
        self.troubles.iter().any(|trouble| {
            trouble.source == segment.source && Path::new(&*segment.folder).starts_with(Path::new(&trouble.below))
        })
    }
}

/// Leaves of files that are there under several paths the first.
fn drop_repeated_files(segments: &mut Vec<Segment>) {
    let mut by_id: Vec<usize> = (0..segments.len()).collect();
    by_id.sort_unstable_by_key(|&at| (segments[at].id, at));
    let mut is_repeated = vec![false; segments.len()];
    for pair in by_id.windows(2) {
        is_repeated[pair[1]] = segments[pair[0]].id == segments[pair[1]].id;
    }
    let mut is_repeated = is_repeated.into_iter();
    segments.retain(|_| is_repeated.next() == Some(false));
}

struct Walk<'a> {
    source: usize,
    listing: &'a mut Listing,
}

impl Walk<'_> {
    fn trouble(&mut self, path: PathBuf, below: &str, error: io::Error) {
        self.listing.troubles.push(Trouble { source: self.source, path, error, below: below.to_owned() });
    }

    fn folder(&mut self, folder: &Folder, relative: &str, depth: usize) {
        let entries = match folder.entries() {
            Ok(entries) => entries,
            Err(error) if has_vanished(&error) => return,
            Err(error) => return self.trouble(folder.path().to_owned(), relative, error),
        };
        // One allocation for all segments of a folder.
        let mut shared = None;
        for entry in entries {
            let (name, kind) = match entry {
                Ok(entry) => entry,
                Err(error) if has_vanished(&error) => return,
                Err(error) => return self.trouble(folder.path().to_owned(), relative, error),
            };
            let segment = name.to_str().and_then(|name| name.parse::<SegmentName>().ok());
            let done = match (kind, segment) {
                (EntryKind::File | EntryKind::Unknown, Some(segment)) => look(folder, &segment).map(|found| {
                    let Some((name, facts)) = found else { return };
                    let folder = Arc::clone(shared.get_or_insert_with(|| Arc::from(relative)));
                    let Facts { id, bytes, .. } = facts;
                    self.listing.segments.push(Segment { source: self.source, folder, name, bytes, id });
                }),
                (EntryKind::Folder | EntryKind::Unknown, _) => self.child(folder, relative, &name, kind, depth),
                _ => Ok(()),
            };
            match done {
                Err(error) if !has_vanished(&error) => self.trouble(folder.path().join(name), relative, error),
                _ => {}
            }
        }
    }

    fn child(
        &mut self,
        folder: &Folder,
        relative: &str,
        name: &OsStr,
        kind: EntryKind,
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
        let relative = if relative.is_empty() { text.to_owned() } else { format!("{relative}/{text}") };
        match folder.open_child(name) {
            Ok(child) => self.folder(&child, &relative, depth + 1),
            Err(error) if has_vanished(&error) => {}
            Err(error) => self.trouble(folder.path().join(name), &relative, error),
        }
        Ok(())
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
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode};
    use tempfile::TempDir;

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
        // The same directory again, and a part of it.
        let path = temp.path().display().to_string();
        let texts = [format!("x={path}"), format!("y={path}"), format!("z={path}/1")];
        let sources = Sources::new(texts.iter().map(|text| source(text)).collect()).unwrap();
        let segments = Listing::new(&sources).segments;
        assert_eq!(paths(&segments, &sources), [format!("x/0/{A}"), format!("x/1/{A}"), format!("x/2/{A}")]);
        let compressions: Vec<_> = segments.iter().map(Segment::compression).collect();
        assert_eq!(compressions, [Compression::Zstd, Compression::Plain, Compression::Gzip]);
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

//! Following: records come in the order in which they appear in the files, each once.
//!
//! A [`Follower`] is told what a [`Listing`] has noticed, and reads on in the segments that have something new.
//!
//! - Of a segment whose lines may still come, it keeps a track: how far it was read. What can't grow any more needs none: it has been read.
//! - Only whole lines count. What stands behind the last newline is waited for; once nobody writes there any more (a
//!   newer segment of that folder and rank is there, it was compressed, its day is long over) it is damaged.
//! - A segment that was compressed has the same content: it is read on at the same offset of that.
//! - A writer takes back what it could not sync. A segment that is shorter than what was read of it is told, and read on
//!   from its new end: what was seen of it was never acknowledged.
//! - A segment that vanishes and comes back under its path (a writer restores one that somebody deleted; a volume is mounted
//!   again) is read on where it was.

mod bookmark;
mod pace;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;

pub use self::bookmark::{BOOKMARK_CHARS_MAX, Bookmark, BookmarkError};
pub use self::pace::Pace;
use super::filter::{Filter, Place, Scope};
use super::lines::{Block, Buffer, Content, OpenSegment, Position, Span};
use super::listing::{Change, Changes, Listing, Segment, Series, Sources};
use super::record::{Damage, Record};
use super::scan::unpacking;
use super::search::Notice;
use crate::record::{Compression, Timestamp};

/// A segment that appears under a name older than others by so much is noticed by whoever resumes all the same: clocks of
/// writers differ, and disks hang between naming and creating.
const LATE_MS: i64 = 600_000;

/// Bytes that are read at once, before the caller may do something else.
const BYTES_AT_ONCE: u64 = 4 << 20;

/// Vanished segments that are remembered, in case they come back: some 50 MiB at most.
const GONE_MAX: usize = 1 << 20;

/// What is read at once to see whose a segment is, and how much of it at most.
const LOOK_BYTES: usize = 4 << 10;
const LOOK_BYTES_MAX: u64 = 4 << 20;

/// Segments that are looked at between two listings, as they have grown lately.
const HOT_MAX: usize = 256;
/// So often, after something was found in them.
const HOT_LOOKS: u32 = 50;

/// Which segment it is: by the time in its name first, so that older ones are read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    opened: Timestamp,
    hash: u64,
}

impl Key {
    fn of(path: &str, segment: &Segment) -> Self {
        Self { opened: segment.name.oldest(), hash: bookmark::hash(path) }
    }
}

/// How far a segment was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Up to this line.
    Line(Position),
    /// Up to the last newline within so many bytes of its content, or all of them.
    Bytes(u64),
}

impl At {
    const START: Self = Self::Line(Position { offset: 0, index: 0 });

    /// All that a segment held when it was like this.
    fn end_of(segment: &Segment) -> Self {
        Self::Bytes(if segment.compression() == Compression::Plain { segment.bytes } else { u64::MAX })
    }
}

/// A segment that is followed.
#[derive(Debug)]
struct Track {
    segment: Segment,
    path: String,
    at: At,
    /// The length of the file when it was looked at.
    looked_at_bytes: u64,
    /// Nobody writes there any more.
    is_closed: bool,
    tail: Tail,
    /// A record of the filter's scope was seen in it: else nobody in that is told anything of it.
    is_in_scope: bool,
    is_told_unreadable: bool,
}

impl Track {
    /// Whether whoever has this scope may know of it.
    fn is_told(&self, scope: &Scope) -> bool {
        self.is_in_scope || *scope == Scope::All
    }
}

/// What stands behind the last newline of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Nothing,
    /// The beginning of a line whose rest may come.
    Awaited,
    /// A torn line.
    Told,
}

/// A record that appeared.
pub struct Followed<'f> {
    /// The record.
    pub record: &'f Record<'f>,
    /// Where it lies.
    pub place: Place<'f>,
    bookmark: &'f dyn Fn() -> Bookmark,
}

impl Followed<'_> {
    /// Where the follower is behind this record.
    #[must_use]
    pub fn bookmark(&self) -> Bookmark {
        (self.bookmark)()
    }
}

/// How a [`Follower::read`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that was noticed has been read.
    UpToDate,
    /// There is more, for the next call.
    More,
    /// The caller did not want more.
    Stopped,
}

/// Follows the records that match a filter.
///
/// Memory: 300 bytes for each segment that may grow.
#[derive(Debug)]
pub struct Follower {
    filter: Filter,
    /// Segments that are named before it and have no track were read.
    fence: Timestamp,
    tracks: BTreeMap<Key, Track>,
    /// Of each folder and rank, the segment that is named last.
    newest: HashMap<Series, Key>,
    /// Tracks to be looked at.
    waiting: BTreeSet<Key>,
    /// Those that could not be read, to be tried again.
    failed: BTreeSet<Key>,
    /// Those in which something was found lately, and how often they are still looked at.
    hot: BTreeMap<Key, u32>,
    /// How far segments were read that have vanished.
    gone: BTreeMap<Key, At>,
}

impl Follower {
    /// Follows from the end of what a listing saw, a line that was not whole then included. `now` is the time before the
    /// listing began.
    #[must_use]
    pub fn new((sources, listing): (&Sources, &Listing), filter: Filter, now: Timestamp) -> Self {
        let mut follower = Self::empty(filter, now);
        let fence = follower.fence;
        for segment in listing.segments.iter().filter(|segment| Self::may_come(fence, segment, now)) {
            let path = segment.path(sources);
            let is_in_scope = follower.begins_in_scope(segment, sources);
            let at = At::end_of(segment);
            let track = follower.track(Key::of(&path, segment), path, segment.clone(), at, segment.bytes);
            track.is_in_scope = is_in_scope;
        }
        follower.forget(now);
        follower
    }

    /// Goes on where another follower was. `now` is the time before the listing began.
    #[must_use]
    pub fn resume(
        (sources, listing): (&Sources, &Listing),
        filter: Filter,
        now: Timestamp,
        bookmark: &Bookmark,
    ) -> Self {
        let said = bookmark.said().expect("it was read when it was made");
        let mut entries: HashMap<u64, At> = said.entries.into_iter().collect();
        let mut follower = Self::empty(filter, now);
        let from = said.oldest.min(said.fence);
        for segment in &listing.segments {
            let may_come = Self::may_come(follower.fence, segment, now);
            if segment.name.oldest() < from && !may_come {
                continue;
            }
            let path = segment.path(sources);
            let key = Key::of(&path, segment);
            let (at, looked_at_bytes) = match entries.remove(&key.hash) {
                Some(At::Line(position)) if segment.compression() != Compression::Plain => {
                    (At::Bytes(position.offset), 0)
                }
                Some(at) => (at, 0),
                None if key.opened >= said.fence => (At::START, 0),
                None if may_come => (At::end_of(segment), segment.bytes),
                None => continue,
            };
            let is_in_scope = at != At::START && follower.begins_in_scope(segment, sources);
            follower.track(key, path, segment.clone(), at, looked_at_bytes).is_in_scope = is_in_scope;
            if looked_at_bytes == 0 {
                follower.waiting.insert(key);
            }
        }
        follower.forget(now);
        follower
    }

    fn empty(filter: Filter, now: Timestamp) -> Self {
        Self {
            filter,
            fence: now.plus_millis(-LATE_MS),
            tracks: BTreeMap::new(),
            newest: HashMap::new(),
            waiting: BTreeSet::new(),
            failed: BTreeSet::new(),
            hot: BTreeMap::new(),
            gone: BTreeMap::new(),
        }
    }

    /// Whether lines may still come in a segment, or it counts as new to whoever resumes.
    fn may_come(fence: Timestamp, segment: &Segment, now: Timestamp) -> bool {
        segment.name.oldest() >= fence || segment.may_grow(now)
    }

    /// Whether the first record of a segment that has been read is one of the scope: then its place is a part of bookmarks. Of a segment
    /// of others not even its length may be told; where records of several workspaces lie in one, somebody has tampered with it.
    fn begins_in_scope(&self, segment: &Segment, sources: &Sources) -> bool {
        let scope = self.filter.scope();
        if *scope == Scope::All {
            return true;
        }
        let is_first = |block: Block<'_>| {
            let mut records = block.lines().filter_map(|line| {
                let record = Record::parse(line.bytes).ok().filter(|record| !segment.is_foreign(record, sources))?;
                Some(scope.holds(&record.workspace_id))
            });
            records.next()
        };
        // What can't be read is told when it is read.
        let Ok(Some(open)) = OpenSegment::open(segment, sources) else { return false };
        let mut buffer = Buffer::new(LOOK_BYTES);
        let Ok(mut lines) = open.forwards(Span { until: LOOK_BYTES_MAX, ..Span::ALL }, &mut buffer) else {
            return false;
        };
        while let Ok(Some(block)) = lines.next_block() {
            if let Some(is_in_scope) = is_first(block) {
                return is_in_scope;
            }
        }
        false
    }

    fn track(&mut self, key: Key, path: String, segment: Segment, at: At, looked_at_bytes: u64) -> &mut Track {
        let newest = self.newest.entry(segment.series()).or_insert(key);
        let replaced = (*newest < key).then(|| std::mem::replace(newest, key));
        let is_closed = *newest > key || segment.compression() != Compression::Plain;
        if let Some(replaced) = replaced {
            self.close(replaced);
        }
        let (tail, is_in_scope, is_told_unreadable) = (Tail::Nothing, false, false);
        let track = Track { segment, path, at, looked_at_bytes, is_closed, tail, is_in_scope, is_told_unreadable };
        self.tracks.entry(key).insert_entry(track).into_mut()
    }

    fn close(&mut self, key: Key) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        track.is_closed = true;
        // What stands behind its last newline is damaged now.
        if track.tail == Tail::Awaited {
            self.waiting.insert(key);
        }
    }

    /// Takes note of what a listing has noticed; [`Follower::read`] then reads it. `now` is the time before that began.
    pub fn listed(&mut self, sources: &Sources, changes: &Changes, now: Timestamp) {
        for segment in &changes.vanished {
            let key = Key::of(&segment.path(sources), segment);
            let at = self.tracks.remove(&key).map_or_else(|| At::end_of(segment), |track| track.at);
            self.gone.insert(key, at);
            if self.gone.len() > GONE_MAX {
                self.gone.pop_first();
            }
            self.waiting.remove(&key);
            self.failed.remove(&key);
            self.hot.remove(&key);
        }
        for Change { before, now } in &changes.changed {
            let path = now.path(sources);
            let key = Key::of(&path, now);
            if let Some(track) = self.tracks.get_mut(&key) {
                track.segment = now.clone();
                track.is_closed |= now.compression() != Compression::Plain;
            } else {
                let is_in_scope = self.begins_in_scope(now, sources);
                let track = self.track(key, path, now.clone(), At::end_of(before), before.bytes);
                track.is_in_scope = is_in_scope;
                // The same content, packed: what is torn in it has been told.
                if now.compression() != Compression::Plain {
                    track.tail = Tail::Told;
                }
            }
            self.waiting.insert(key);
        }
        for segment in &changes.appeared {
            let path = segment.path(sources);
            let key = Key::of(&path, segment);
            let at = self.gone.remove(&key).unwrap_or(At::START);
            self.track(key, path, segment.clone(), at, 0);
            self.waiting.insert(key);
        }
        self.waiting.append(&mut self.failed);
        self.fence = self.fence.max(now.plus_millis(-LATE_MS));
        self.forget(now);
    }

    /// Lets go of what was read and can't grow any more.
    fn forget(&mut self, now: Timestamp) {
        let is_over = |track: &Track| !track.segment.may_grow(now) && !track.is_closed;
        let over: Vec<_> = self.tracks.iter().filter(|(_, track)| is_over(track)).map(|(key, _)| *key).collect();
        for key in over {
            self.close(key);
        }
        let Self { tracks, newest, waiting, failed, fence, .. } = self;
        tracks.retain(|key, track| {
            let is_read =
                track.looked_at_bytes == track.segment.bytes && !waiting.contains(key) && !failed.contains(key);
            let stays = !track.is_closed || !is_read || key.opened >= *fence;
            if !stays && newest.get(&track.segment.series()) == Some(key) {
                newest.remove(&track.segment.series());
            }
            stays
        });
    }

    /// Has the segments in which something was found lately looked at again, though no listing has noticed anything; returns
    /// whether there are any.
    pub fn look_again(&mut self) -> bool {
        self.waiting.extend(self.hot.keys());
        self.hot.retain(|_, looks| {
            *looks -= 1;
            *looks > 0
        });
        !self.waiting.is_empty()
    }

    /// Whether lines may still come in a segment, given by its path.
    #[must_use]
    pub fn is_awaited(&self, segment: &str) -> bool {
        self.tracks.values().any(|track| track.path == segment && !track.is_closed)
    }

    /// Where this follower is: all that it has handed over, and nothing else, is behind it.
    #[must_use]
    pub fn bookmark(&self, sources: &Sources) -> Bookmark {
        let scope = self.filter.scope();
        let told = self.tracks.iter().filter(|(_, track)| track.is_told(scope));
        Bookmark::new(sources, self.fence, told.map(|(key, track)| (*key, track.at)))
    }

    /// Reads what was noticed and hands the records that match to `found`, which may end it; some MiB at most.
    ///
    /// `notice` is told of damaged and foreign lines, of segments that can't be read (once, until they can) and of those
    /// that are shorter than they were.
    pub fn read(
        &mut self,
        sources: &Sources,
        buffer: &mut Buffer,
        notice: &dyn Fn(Notice<'_>),
        found: Take<'_>,
    ) -> Progress {
        let mut left = BYTES_AT_ONCE;
        while let Some(key) = self.waiting.pop_first() {
            match self.read_track(key, (sources, buffer), &mut left, (notice, found)) {
                Ok(Progress::UpToDate) => {}
                Ok(progress) => {
                    self.waiting.insert(key);
                    return progress;
                }
                Err(error) => self.cannot_read(key, &error, notice),
            }
        }
        Progress::UpToDate
    }

    fn cannot_read(&mut self, key: Key, error: &io::Error, notice: &dyn Fn(Notice<'_>)) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let is_told = std::mem::replace(&mut track.is_told_unreadable, true);
        if !is_told && track.is_told(self.filter.scope()) {
            notice(Notice::Unreadable { path: &track.path, error });
        }
        // A compressed stream does not mend itself.
        if track.segment.compression() == Compression::Plain {
            self.failed.insert(key);
        } else {
            track.looked_at_bytes = track.segment.bytes;
        }
    }

    fn read_track(
        &mut self,
        key: Key,
        (sources, buffer): (&Sources, &mut Buffer),
        left: &mut u64,
        (notice, found): (&dyn Fn(Notice<'_>), Take<'_>),
    ) -> io::Result<Progress> {
        let Some(mut track) = self.tracks.remove(&key) else { return Ok(Progress::UpToDate) };
        let (tracks, filter, fence) = (&self.tracks, &self.filter, self.fence);
        let bookmark = |at: Position| {
            let others = |(key, track): (&Key, &Track)| track.is_told(filter.scope()).then_some((*key, track.at));
            let this = std::iter::once((key, At::Line(at)));
            Bookmark::new(
                sources,
                fence,
                tracks.range(..key).filter_map(others).chain(this).chain(tracks.range(key..).filter_map(others)),
            )
        };
        let follow = Follow { filter, sources, bookmark: &bookmark, notice };
        let bytes_before = *left;
        let progress = follow.track(&mut track, buffer, left, found);
        if *left < bytes_before && self.hot.len() < HOT_MAX {
            self.hot.insert(key, HOT_LOOKS);
        }
        self.tracks.insert(key, track);
        progress
    }
}

type Take<'t> = &'t mut dyn FnMut(&Followed<'_>) -> ControlFlow<()>;

/// What is done with every segment.
struct Follow<'f> {
    filter: &'f Filter,
    sources: &'f Sources,
    /// Where the follower is, if it is so far in the segment.
    bookmark: &'f dyn Fn(Position) -> Bookmark,
    notice: &'f dyn Fn(Notice<'_>),
}

impl Follow<'_> {
    /// Reads on in a segment.
    fn track(&self, track: &mut Track, buffer: &mut Buffer, left: &mut u64, found: Take<'_>) -> io::Result<Progress> {
        let segment = &track.segment;
        let workspace = self.sources.as_slice()[segment.source].workspace.as_deref();
        if !self.filter.may_be_in(segment.name.rank(), segment.job(), workspace) {
            (track.at, track.looked_at_bytes) = (At::end_of(segment), segment.bytes);
            return Ok(Progress::UpToDate);
        }
        // What has vanished, the next listing tells.
        let Some(open) = OpenSegment::open(segment, self.sources)? else { return Ok(Progress::UpToDate) };
        let _unpacking = unpacking(&open);
        let is_plain = open.compression() == Compression::Plain;
        let is_closed = track.is_closed || !is_plain;
        if is_plain && open.bytes() == track.looked_at_bytes && !(is_closed && track.tail == Tail::Awaited) {
            return Ok(Progress::UpToDate);
        }
        let from = self.start(track, &open, buffer)?;
        track.at = At::Line(from);
        let mut lines = open.forwards(Span { from, until: u64::MAX }, buffer)?;
        let mut tail = Tail::Nothing;
        while let Some(block) = lines.next_block()? {
            match block.content {
                Content::Lines(bytes) => {
                    *left = left.saturating_sub(bytes.len() as u64);
                    for line in block.lines() {
                        let behind =
                            Position { offset: line.offset + line.bytes.len() as u64 + 1, index: line.nth + 1 };
                        track.at = At::Line(behind);
                        if self.line(track, line.nth, line.bytes, behind, found).is_break() {
                            return Ok(Progress::Stopped);
                        }
                    }
                }
                Content::TooLong => self.damaged(track, block.nth, Damage::TooLong),
                Content::Torn if !is_closed => tail = Tail::Awaited,
                Content::Torn => {
                    tail = Tail::Told;
                    if track.tail != Tail::Told {
                        self.damaged(track, block.nth, Damage::Torn);
                    }
                }
            }
            track.at = At::Line(lines.position());
            // To go on in a compressed one, all before would have to be unpacked again.
            if *left == 0 && is_plain {
                return Ok(Progress::More);
            }
        }
        (track.tail, track.looked_at_bytes, track.is_told_unreadable) = (tail, open.bytes(), false);
        Ok(Progress::UpToDate)
    }

    /// Where to go on in a segment: the beginning of a line.
    fn start(&self, track: &Track, open: &OpenSegment, buffer: &mut Buffer) -> io::Result<Position> {
        let bytes = match track.at {
            At::Line(position)
                if open.compression() != Compression::Plain || open.is_line_start(position.offset)? =>
            {
                return Ok(position);
            }
            At::Line(position) => position.offset,
            At::Bytes(bytes) => bytes,
        };
        let is_cut = bytes > open.bytes() || matches!(track.at, At::Line(_));
        if is_cut && open.compression() == Compression::Plain && bytes < u64::MAX && self.tells(track) {
            (self.notice)(Notice::Cut { segment: &track.path, bytes: open.bytes().min(bytes) });
        }
        let mut lines = open.forwards(Span { until: bytes, ..Span::ALL }, buffer)?;
        while lines.next_block()?.is_some() {}
        Ok(lines.position())
    }

    /// Looks at a line, behind which the follower is at `behind`.
    fn line(&self, track: &mut Track, index: u64, bytes: &[u8], behind: Position, found: Take<'_>) -> ControlFlow<()> {
        if bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        let record = match Record::parse(bytes) {
            Ok(record) => record,
            Err(damage) => {
                self.damaged(track, index, damage);
                return ControlFlow::Continue(());
            }
        };
        if track.segment.is_foreign(&record, self.sources) {
            if self.tells(track) {
                (self.notice)(Notice::Foreign { segment: &track.path, index });
            }
            return ControlFlow::Continue(());
        }
        track.is_in_scope |= self.filter.scope().holds(&record.workspace_id);
        let place = Place { segment: &track.path, index, rank: track.segment.name.rank() };
        if !self.filter.matches(&record, &place) {
            return ControlFlow::Continue(());
        }
        found(&Followed { record: &record, place, bookmark: &|| (self.bookmark)(behind) })
    }

    fn damaged(&self, track: &Track, index: u64, damage: Damage) {
        if self.tells(track) {
            (self.notice)(Notice::Damaged { segment: &track.path, index, damage });
        }
    }

    /// Whether the reader may know of a segment.
    fn tells(&self, track: &Track) -> bool {
        track.is_told(self.filter.scope())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::super::filter::Criteria;
    use super::super::listing::Source;
    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::record::SegmentName;

    fn append(dir: &Path, folder: &str, opened: Timestamp, text: &str) {
        fs::create_dir_all(dir.join(folder)).unwrap();
        let path = dir.join(folder).join(SegmentName::new(0, opened).to_string());
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn line(job: &str, workspace: &str, event: &str) -> String {
        format!(r#"{{"ts":0,"jobId":"{job}","workspaceId":"{workspace}","event":"{event}","message":"","meta":0}}"#)
            + "\n"
    }

    fn sources(dir: &Path) -> Sources {
        Sources::new(vec![Source { name: None, path: dir.to_owned(), workspace: None }]).unwrap()
    }

    /// The events that are new, and what is told.
    fn read(follower: &mut Follower, sources: &Sources) -> (Vec<String>, Vec<String>) {
        let (mut events, told) = (Vec::new(), RefCell::new(Vec::new()));
        let notice = |notice: Notice<'_>| told.borrow_mut().push(format!("{notice:?}"));
        let mut found = |found: &Followed<'_>| {
            events.push(found.record.event.to_string());
            ControlFlow::Continue(())
        };
        while follower.read(sources, &mut Buffer::default(), &notice, &mut found) == Progress::More {}
        (events, told.into_inner())
    }

    #[test]
    fn where_more_writers_are_alive_than_a_bookmark_has_room_for_none_of_their_lines_is_lost() {
        const WRITERS: i64 = 1_000;
        let temp = tempfile::tempdir().unwrap();
        let (sources, now) = (sources(temp.path()), SystemClock.now());
        let all = || Filter::new(Criteria::default());
        let write = |event: &str| {
            for n in 0..WRITERS {
                let job = format!("job-{n}");
                append(temp.path(), &job, now.plus_millis(-n * 10_000), &line(&job, "w", &format!("{event}-{n}")));
            }
        };
        write("old");
        let listing = Listing::new(&sources);
        let text = Follower::new((&sources, &listing), all(), now).bookmark(&sources).to_string();
        assert!(text.len() <= BOOKMARK_CHARS_MAX);
        write("new");
        let bookmark = Bookmark::parse(&text, &sources).unwrap();
        let listing = Listing::new(&sources);
        let mut follower = Follower::resume((&sources, &listing), all(), now, &bookmark);
        let (mut seen, _) = read(&mut follower, &sources);
        let repeated = seen.iter().filter(|event| event.starts_with("old")).count();
        assert!((1..700).contains(&repeated), "{repeated}");
        seen.retain(|event| event.starts_with("new"));
        seen.sort();
        let mut written: Vec<_> = (0..WRITERS).map(|n| format!("new-{n}")).collect();
        written.sort();
        assert_eq!(seen, written);
    }

    #[test]
    fn a_segment_that_appears_late_is_noticed_by_whoever_resumes() {
        let temp = tempfile::tempdir().unwrap();
        let (sources, now) = (sources(temp.path()), SystemClock.now());
        let all = || Filter::new(Criteria::default());
        append(temp.path(), "1", now, &line("1", "w", "before"));
        let listing = Listing::new(&sources);
        let bookmark = Follower::new((&sources, &listing), all(), now).bookmark(&sources);
        append(temp.path(), "2", now.plus_millis(1_000 - LATE_MS), &line("2", "w", "late"));
        let listing = Listing::new(&sources);
        let mut follower = Follower::resume((&sources, &listing), all(), now.plus_millis(5_000), &bookmark);
        assert_eq!(read(&mut follower, &sources).0, ["late"]);
    }

    #[test]
    fn nobody_is_told_of_a_segment_before_a_record_of_their_scope_is_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let (sources, now) = (sources(temp.path()), SystemClock.now());
        let mut listing = Listing::new(&sources);
        let scope = Scope::Workspaces(vec!["mine".to_owned()]);
        let filter = Filter::new(Criteria { scope, ..Criteria::default() });
        let mut follower = Follower::new((&sources, &listing), filter, now);
        let damaged = "\0\n".to_owned();
        append(
            temp.path(),
            "1",
            now,
            &(damaged.clone() + &line("1", "another's", "a") + &line("2", "mine", "foreign")),
        );
        follower.listed(&sources, &listing.refresh(&sources), now);
        assert_eq!(read(&mut follower, &sources), (vec![], vec![]));
        append(temp.path(), "1", now, &(line("1", "mine", "b") + &damaged));
        follower.listed(&sources, &listing.refresh(&sources), now);
        let (seen, told) = read(&mut follower, &sources);
        assert_eq!((seen, told.len()), (vec!["b".to_owned()], 1), "{told:?}");
    }

    #[test]
    fn a_track_is_let_go_of_once_its_segment_is_read_and_closed_for_long() {
        let temp = tempfile::tempdir().unwrap();
        let (sources, now) = (sources(temp.path()), SystemClock.now());
        let mut listing = Listing::new(&sources);
        let mut follower = Follower::new((&sources, &listing), Filter::new(Criteria::default()), now);
        for n in 0..100 {
            let now = now.plus_millis(n * 60_000);
            append(temp.path(), "1", now, &line("1", "w", "e"));
            follower.listed(&sources, &listing.refresh(&sources), now);
            assert_eq!(read(&mut follower, &sources).0, ["e"]);
            assert!(follower.tracks.len() <= 13, "{}", follower.tracks.len());
        }
        assert_eq!(follower.newest.len(), 1);
    }
}

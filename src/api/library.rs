//! The segments that there are, kept up to date, and what they were like at earlier moments.
//!
//! Pages of one answer must show what was readable at the first of them, while writers go on. So the first page takes a
//! [`Snapshot`]: the segments and their lengths at that moment. Segments only grow, so a snapshot is no copy: it notes, of those that
//! have appeared or grown since, how long they were. A page reads no further than that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};
use crate::reader::listing::{Change, Changes, Listing, Segment, Sources};
use crate::record::{Compression, Timestamp};

/// Snapshots that are kept: those that were asked for last.
const SNAPSHOTS_MAX: usize = 256;
/// What all of them note, over all segments: some 8 MiB.
const NOTES_MAX: usize = 50_000;
/// A listing is brought up to date once it is so many times as old as that took: walking takes at most a tenth of the time.
const AGE_FACTOR: u32 = 10;
/// And as soon as it is so old.
const AGE_MAX: Duration = Duration::from_secs(2);

/// The segments of some directories.
#[derive(Debug)]
pub(crate) struct Library {
    sources: Sources,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Searches hold it as it was when they began.
    listing: Arc<Listing>,
    /// When it was last brought up to date.
    refreshed: Option<Instant>,
    /// How long that took.
    took: Duration,
    /// The most recently used last.
    snapshots: VecDeque<Snapshot>,
    taken: u64,
    /// The wall clock's time before that began.
    at: Option<Timestamp>,
    /// What has changed since news were taken last, with the time before it was looked for; nothing if nobody takes them.
    news: Option<Vec<(Changes, Timestamp)>>,
}

/// What has changed, and what there is then.
pub(crate) struct News {
    /// In the order in which it was noticed, each with the time before it was looked for.
    pub(crate) changes: Vec<(Changes, Timestamp)>,
    pub(crate) listing: Arc<Listing>,
    /// The time before the listing was made.
    pub(crate) at: Timestamp,
}

#[derive(Debug)]
struct Snapshot {
    id: u64,
    /// In the order of segments.
    notes: Vec<Note>,
}

/// What a segment was like that has changed since.
#[derive(Debug, Clone)]
struct Note {
    segment: Segment,
    /// Bytes of its content; 0 if it was not there.
    bytes: u64,
}

/// Segments, and how far each may be read.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) listing: Arc<Listing>,
    /// By their numbers in the listing, those of which not all may be read; 0: nothing of it.
    pub(crate) limits: HashMap<u32, u64>,
}

impl Library {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { sources, state: Mutex::default() }
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The segments that there are. Whatever was there two seconds ago is among them; in a small tree, some milliseconds ago.
    pub(crate) fn listing(&self) -> Arc<Listing> {
        Arc::clone(&self.up_to_date().listing)
    }

    /// Looks what has changed since it was asked last; for one who asks.
    pub(crate) fn news(&self) -> News {
        let mut state = self.up_to_date();
        let changes = state.news.replace(Vec::new()).unwrap_or_default();
        News { changes, listing: Arc::clone(&state.listing), at: state.at.expect("it was brought up to date") }
    }

    /// Nobody asks for news any more.
    pub(crate) fn no_news(&self) {
        self.lock().news = None;
    }

    /// Takes a snapshot; with it comes its id.
    pub(crate) fn take(&self) -> (u64, View) {
        let mut state = self.up_to_date();
        let id = state.taken;
        state.taken += 1;
        // Without a note it is like the listing, which costs nothing until something changes.
        state.snapshots.push_back(Snapshot { id, notes: Vec::new() });
        state.shrink();
        (id, View { listing: Arc::clone(&state.listing), limits: HashMap::new() })
    }

    /// What a snapshot shows; `None` if it is no longer kept.
    pub(crate) fn view(&self, id: u64) -> Option<View> {
        let mut state = self.lock();
        let at = state.snapshots.iter().position(|snapshot| snapshot.id == id)?;
        let snapshot = state.snapshots.remove(at)?;
        let mut limits = HashMap::new();
        for note in &snapshot.notes {
            if let Ok(number) = state.listing.position(&note.segment) {
                limits.insert(u32::try_from(number).expect("fewer than 2^32 segments"), note.bytes);
            }
        }
        state.snapshots.push_back(snapshot);
        Some(View { listing: Arc::clone(&state.listing), limits })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever finds it too old brings it up to date; the others wait for that.
    fn up_to_date(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let age_max = (state.took * AGE_FACTOR).min(AGE_MAX);
        if state.refreshed.is_none_or(|refreshed| refreshed.elapsed() >= age_max) {
            state.refresh(&self.sources);
        }
        state
    }
}

impl State {
    fn refresh(&mut self, sources: &Sources) {
        let (began, at) = (Instant::now(), SystemClock.now());
        if self.refreshed.is_none() {
            self.listing = Arc::new(Listing::new(sources));
        } else {
            // A copy is made only if a search still looks at it.
            let changes = Arc::make_mut(&mut self.listing).refresh(sources);
            if let Some(news) = &mut self.news {
                news.push((changes.clone(), at));
            }
            let Changes { appeared, changed, .. } = changes;
            let absent = appeared.into_iter().map(|segment| Note { segment, bytes: 0 });
            // What was packed was closed by then.
            let grown = changed.into_iter().filter(|change| change.before.compression() == Compression::Plain);
            let grown = grown.map(|Change { before, .. }| Note { bytes: before.bytes, segment: before });
            let notes: Vec<Note> = absent.chain(grown).collect();
            for snapshot in &mut self.snapshots {
                snapshot.note(&notes);
            }
            self.shrink();
        }
        (self.refreshed, self.took, self.at) = (Some(Instant::now()), began.elapsed(), Some(at));
    }

    /// Lets go of the snapshots that were not asked for lately.
    fn shrink(&mut self) {
        let mut notes: usize = self.snapshots.iter().map(|snapshot| snapshot.notes.len()).sum();
        while self.snapshots.len() > SNAPSHOTS_MAX || notes > NOTES_MAX {
            let Some(oldest) = self.snapshots.pop_front() else { return };
            notes -= oldest.notes.len();
        }
    }
}

impl Snapshot {
    /// Notes what has changed since, of that of which nothing is noted yet.
    fn note(&mut self, changed: &[Note]) {
        let is_new = |note: &&Note| self.notes.binary_search_by(|noted| noted.segment.order(&note.segment)).is_err();
        let new: Vec<Note> = changed.iter().filter(is_new).cloned().collect();
        self.notes.extend(new);
        // Two sorted runs, which is what this sort is quick with.
        self.notes.sort_by(|a, b| a.segment.order(&b.segment));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::reader::listing::Source;

    fn name(rank: u32) -> String {
        format!("audit-{rank}_20260128T000000.000Z.jsonl")
    }

    /// How far each segment may be read, by its name; what may be read in full is left out.
    fn limits(library: &Library, id: u64) -> BTreeMap<String, u64> {
        let View { listing, limits } = library.view(id).expect("it is kept");
        limits.iter().map(|(at, bytes)| (listing.segments[*at as usize].path(library.sources()), *bytes)).collect()
    }

    #[test]
    fn a_snapshot_notes_what_was_there_and_is_forgotten_once_many_others_were_asked_for() {
        let temp = tempfile::tempdir().unwrap();
        let source = Source::parse(temp.path().to_str().unwrap()).unwrap();
        let library = Library::new(Sources::new(vec![source]).unwrap());
        let write = |rank: u32, bytes: usize| {
            fs::write(temp.path().join(name(rank)), vec![b'\n'; bytes]).unwrap();
            library.lock().refresh(library.sources());
        };
        (0..3).for_each(|rank| write(rank, 10));
        let (first, _) = library.take();
        assert_eq!(limits(&library, first), BTreeMap::new());
        write(1, 20);
        let (second, _) = library.take();
        write(1, 30);
        write(3, 5);
        fs::remove_file(temp.path().join(name(0))).unwrap();
        write(2, 11);
        assert_eq!(limits(&library, first), [(name(1), 10), (name(2), 10), (name(3), 0)].into());
        assert_eq!(limits(&library, second), [(name(1), 20), (name(2), 10), (name(3), 0)].into());
        // Asked for again and again, it outlives others.
        for _ in 0..SNAPSHOTS_MAX {
            library.take();
            assert!(library.view(first).is_some());
        }
        assert!(library.view(second).is_none());
    }
}

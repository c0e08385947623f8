//! Writers, sweepers and a follower that is killed again and again, in random order, against a model of what must be seen.

#![expect(clippy::disallowed_methods, reason = "the files of the test itself")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tempfile::TempDir;

use super::{Bookmark, Followed, Follower, Progress};
use crate::clock::{Clock, SystemClock};
use crate::reader::filter::{Criteria, Filter};
use crate::reader::lines::Buffer;
use crate::reader::listing::{Listing, Source, Sources};
use crate::reader::search::Notice;
use crate::record::{SegmentName, Timestamp};

/// Folders with one writer each.
const WRITERS: usize = 3;

#[derive(Debug, Clone)]
enum Act {
    /// A writer appends lines, the last perhaps not to its end.
    Append { writer: usize, lines: usize, is_torn: bool },
    /// A writer appends a line that is none, or is of another job.
    Spoil { writer: usize, is_foreign: bool },
    /// A writer begins a new segment with its next line, as after a kill, some seconds later.
    Rotate { writer: usize, seconds: i64 },
    /// A writer's segment loses its last lines; nothing more is written to it.
    CutBack { writer: usize, lines: usize },
    /// Somebody deletes a writer's segment, which the writer restores.
    Restore { writer: usize },
    /// The oldest segment that is closed and plain is compressed.
    Compress { is_gzip: bool },
    /// The oldest closed segment is swept away.
    Sweep,
    /// The follower reads what there is; it may be killed behind some record.
    Follow { killed_after: Option<usize> },
    /// The follower is killed after all was read.
    Kill,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let writer = || 0..WRITERS;
    let act = prop_oneof![
        8 => (writer(), 1..4_usize, any::<bool>()).prop_map(|(writer, lines, is_torn)| Act::Append { writer, lines, is_torn }),
        1 => (writer(), any::<bool>()).prop_map(|(writer, is_foreign)| Act::Spoil { writer, is_foreign }),
        3 => (writer(), 1..500_i64).prop_map(|(writer, seconds)| Act::Rotate { writer, seconds }),
        1 => (writer(), 0..4_usize).prop_map(|(writer, lines)| Act::CutBack { writer, lines }),
        1 => writer().prop_map(|writer| Act::Restore { writer }),
        2 => any::<bool>().prop_map(|is_gzip| Act::Compress { is_gzip }),
        1 => Just(Act::Sweep),
        6 => prop::option::of(1..6_usize).prop_map(|killed_after| Act::Follow { killed_after }),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 1..60)
}

/// What a line is to whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Record(u64),
    Damaged,
    Foreign,
}

/// A segment, as its writer knows it.
#[derive(Debug, Default)]
struct Model {
    writer: usize,
    suffix: &'static str,
    lines: Vec<(Kind, String)>,
    /// What stands behind the last newline, of which line.
    torn: Option<String>,
    /// Lines that were seen.
    seen: usize,
    is_torn_told: bool,
    is_closed: bool,
}

struct World {
    temp: TempDir,
    sources: Sources,
    listing: Listing,
    follower: Result<Follower, String>,
    now: Timestamp,
    next: u64,
    /// By the time in the name, which no two share.
    segments: BTreeMap<Timestamp, Model>,
    active: [Option<Timestamp>; WRITERS],
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let source = Source { name: None, path: temp.path().to_owned(), workspace: None };
        let sources = Sources::new(vec![source]).unwrap();
        let (listing, now) = (Listing::new(&sources), SystemClock.now());
        let follower = Ok(Follower::new((&sources, &listing), Filter::new(Criteria::default()), now));
        (0..WRITERS).for_each(|writer| fs::create_dir(temp.path().join(format!("job{writer}"))).unwrap());
        Self { temp, sources, listing, follower, now, next: 0, segments: BTreeMap::new(), active: [None; WRITERS] }
    }

    fn path(&self, opened: Timestamp, suffix: &str) -> PathBuf {
        let folder = self.temp.path().join(format!("job{}", self.segments[&opened].writer));
        folder.join(SegmentName::new(0, opened).to_string() + suffix)
    }

    fn line(&mut self, writer: usize) -> (Kind, String) {
        self.next += 1;
        let ts = self.now;
        let next = self.next;
        let line = format!(
            r#"{{"ts":"{ts}","jobId":"job{writer}","workspaceId":"w","event":"e{next}","message":"","meta":null}}"#
        );
        (Kind::Record(next), line + "\n")
    }

    fn write(&mut self, opened: Timestamp, text: &str) {
        let path = self.path(opened, "");
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The segment that a writer appends to; a new one if it has none.
    fn active(&mut self, writer: usize) -> Timestamp {
        *self.active[writer].get_or_insert_with(|| {
            self.now = self.now.plus_millis(1);
            for older in self.segments.values_mut().filter(|older| older.writer == writer) {
                older.is_closed = true;
            }
            self.segments.insert(self.now, Model { writer, ..Model::default() });
            self.now
        })
    }

    fn perform(&mut self, act: &Act) {
        match *act {
            Act::Append { writer, lines, is_torn } => {
                let opened = self.active(writer);
                for nth in 0..lines {
                    let (kind, line) = self.line(writer);
                    // What was begun is written to its end, as the same record.
                    let begun = self.segments.get_mut(&opened).unwrap().torn.take();
                    let (line, from) = begun.map_or((line, 0), |begun| (begun, 20));
                    let model = self.segments.get_mut(&opened).unwrap();
                    if is_torn && nth + 1 == lines && from == 0 {
                        model.torn = Some(line.clone());
                        self.write(opened, &line[..20]);
                    } else {
                        let number = line.split("\"event\":\"e").nth(1).unwrap().split('"').next().unwrap();
                        let kind = if from == 0 { kind } else { Kind::Record(number.parse().unwrap()) };
                        model.lines.push((kind, line.clone()));
                        self.write(opened, &line[from..]);
                    }
                }
            }
            Act::Spoil { writer, is_foreign } => {
                let opened = self.active(writer);
                if self.segments[&opened].torn.is_none() {
                    let foreign = is_foreign.then(|| (Kind::Foreign, self.line(writer + 1).1));
                    let (kind, line) = foreign.unwrap_or_else(|| (Kind::Damaged, "\0\0\n".to_owned()));
                    self.write(opened, &line);
                    self.segments.get_mut(&opened).unwrap().lines.push((kind, line));
                }
            }
            Act::Rotate { writer, seconds } => {
                self.now = self.now.plus_millis(seconds * 1000);
                self.active[writer] = None;
            }
            Act::CutBack { writer, lines } => {
                if let Some(opened) = self.active[writer].take() {
                    let model = self.segments.get_mut(&opened).unwrap();
                    model.lines.truncate(model.lines.len().saturating_sub(lines));
                    model.seen = model.seen.min(model.lines.len());
                    model.torn = None;
                    let left = model.lines.iter().map(|(_, line)| line.len() as u64).sum();
                    fs::OpenOptions::new().write(true).open(self.path(opened, "")).unwrap().set_len(left).unwrap();
                }
            }
            Act::Restore { writer } => {
                if let Some(opened) = self.active[writer] {
                    let path = self.path(opened, "");
                    let content = fs::read(&path).unwrap();
                    self.follow(None);
                    fs::remove_file(&path).unwrap();
                    self.listed_while_missing();
                    fs::write(&path, content).unwrap();
                }
            }
            Act::Compress { is_gzip } => {
                let closed = |model: &Model| model.is_closed && model.suffix.is_empty();
                let oldest = self.segments.iter().find(|(_, model)| closed(model)).map(|(opened, _)| *opened);
                if let Some(opened) = oldest {
                    let plain = self.path(opened, "");
                    let content = fs::read(&plain).unwrap();
                    let (suffix, packed) = if is_gzip {
                        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                        encoder.write_all(&content).unwrap();
                        (".gz", encoder.finish().unwrap())
                    } else {
                        (".zst", compress_to_vec(&*content, CompressionLevel::Fastest))
                    };
                    fs::write(self.path(opened, suffix), packed).unwrap();
                    fs::remove_file(plain).unwrap();
                    self.segments.get_mut(&opened).unwrap().suffix = suffix;
                }
            }
            Act::Sweep => {
                let oldest = self.segments.iter().find(|(_, model)| model.is_closed).map(|(opened, _)| *opened);
                if let Some(opened) = oldest {
                    fs::remove_file(self.path(opened, self.segments[&opened].suffix)).unwrap();
                    self.segments.remove(&opened);
                }
            }
            Act::Follow { killed_after } => self.follow(killed_after),
            Act::Kill => {
                self.follow(None);
                let sources = self.sources.clone();
                self.follower = Err(self.follower().bookmark(&sources).to_string());
            }
        }
    }

    /// The follower, which goes on in a new process if it was killed.
    fn follower(&mut self) -> &mut Follower {
        if let Err(bookmark) = &self.follower {
            let bookmark = Bookmark::parse(bookmark, &self.sources).unwrap();
            self.listing = Listing::new(&self.sources);
            let all = Filter::new(Criteria::default());
            self.follower = Ok(Follower::resume((&self.sources, &self.listing), all, self.now, &bookmark));
        }
        self.follower.as_mut().unwrap()
    }

    fn listed_while_missing(&mut self) {
        let changes = self.listing.refresh(&self.sources);
        let (sources, now) = (self.sources.clone(), self.now);
        self.follower().listed(&sources, &changes, now);
        let nothing = |_: Notice<'_>| panic!("nothing is left to be told");
        let progress = self
            .follower()
            .read(&sources, &mut Buffer::default(), &nothing, &mut |_| panic!("nothing is left to be seen"));
        assert_eq!(progress, Progress::UpToDate);
    }

    /// Lets the follower read, and compares what it hands over and tells with what it must.
    fn follow(&mut self, killed_after: Option<usize>) {
        let (mut expected, mut expected_told) = (Vec::new(), Vec::new());
        let mut left = killed_after.unwrap_or(usize::MAX);
        'segments: for (opened, model) in &mut self.segments {
            let told = format!("job{}/{}", model.writer, SegmentName::new(0, *opened));
            for (index, (kind, _)) in model.lines.iter().enumerate().skip(model.seen) {
                model.seen += 1;
                match kind {
                    Kind::Record(number) => {
                        expected.push((told.clone(), index as u64, format!("e{number}")));
                        left -= 1;
                        if left == 0 {
                            break 'segments;
                        }
                    }
                    Kind::Damaged => expected_told.push(format!("damaged {told}:{index}")),
                    Kind::Foreign => expected_told.push(format!("foreign {told}:{index}")),
                }
            }
            if model.torn.is_some() && model.is_closed && !model.is_torn_told {
                model.is_torn_told = true;
                expected_told.push(format!("damaged {told}:{}", model.lines.len()));
            }
        }
        let is_killed = left == 0;
        let is_resumed = self.follower.is_err();
        let (sources, now) = (self.sources.clone(), self.now);
        self.follower();
        let changes = self.listing.refresh(&sources);
        let follower = self.follower();
        follower.listed(&sources, &changes, now);
        let (mut seen, told, mut bookmark) = (Vec::new(), RefCell::new(Vec::new()), None);
        let notice = |notice: Notice<'_>| match notice {
            Notice::Damaged { segment, index, .. } => told.borrow_mut().push(format!("damaged {segment}:{index}")),
            Notice::Foreign { segment, index } => told.borrow_mut().push(format!("foreign {segment}:{index}")),
            Notice::Cut { .. } => {}
            other => panic!("{other:?}"),
        };
        let progress = follower.read(&sources, &mut Buffer::default(), &notice, &mut |found: &Followed<'_>| {
            seen.push((found.place.segment.to_owned(), found.place.index, found.record.event.to_string()));
            bookmark = Some(found.bookmark().to_string());
            if is_killed && seen.len() == expected.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, expected);
        // Whoever resumes is told of a torn tail again.
        let told = told.into_inner();
        let news: Vec<_> = told.iter().filter(|told| expected_told.contains(told)).cloned().collect();
        assert_eq!(news, expected_told);
        assert!(is_resumed || told == expected_told, "{told:?} instead of {expected_told:?}");
        if is_killed {
            assert_eq!(progress, Progress::Stopped);
            self.follower = Err(bookmark.unwrap());
        } else {
            assert_eq!(progress, Progress::UpToDate);
            let same = self.follower().bookmark(&sources).to_string();
            assert!(bookmark.is_none_or(|bookmark| bookmark.len() <= same.len() + 24));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_line_is_seen_once_and_in_its_order_whatever_happens_to_files_and_follower(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.perform(act);
        }
        world.follow(None);
    }
}

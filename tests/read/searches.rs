//! What a search promises beside its answer: whose records there are for somebody, how much is read, and what is told meanwhile.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use audit_log::reader::filter::{Condition, Criteria, Filter, Scope};
use audit_log::reader::listing::{Listing, Source, Sources};
use audit_log::reader::record::Record;
use audit_log::reader::search::{Coverage, Notice, Progress, Search};
use audit_log::reader::sorted::Order;
use audit_log::record::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

/// What a search tells: the records' places and what they say, what was covered, and the notices in order.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    rows: Vec<(String, u64, String)>,
    coverage: Coverage,
    notices: Vec<String>,
}

/// How a search is made ready.
#[derive(Clone, Copy, Default)]
struct How<'p> {
    is_as_listed: bool,
    is_strict: bool,
    threads: Option<usize>,
    memory: Option<usize>,
    progress: Option<&'p Progress>,
}

/// Directories that are searched.
struct Directories {
    sources: Sources,
    listing: Listing,
}

impl Directories {
    fn new(texts: &[String]) -> Self {
        let sources = Sources::new(texts.iter().map(|text| Source::parse(text).unwrap()).collect()).unwrap();
        Self { listing: Listing::new(&sources), sources }
    }

    fn one(dir: &Path) -> Self {
        Self::new(&[format!("{}/", dir.display())])
    }

    /// Searches; the newest first, `limit` of them at most.
    fn ask(&self, criteria: Criteria, limit: Option<usize>, how: How<'_>) -> Told {
        let (filter, notices, is_stopped) = (Filter::new(criteria), Mutex::new(Vec::new()), AtomicBool::new(false));
        let notice = |notice: Notice<'_>| notices.lock().unwrap().push(format!("{notice:?}"));
        let mut search = Search::new((&self.sources, &self.listing), &filter, &notice, &is_stopped);
        search = if how.is_as_listed { search.as_listed() } else { search };
        search = if how.is_strict { search.strict() } else { search };
        if let Some(threads) = how.threads {
            search = search.threads(threads);
        }
        if let Some(bytes) = how.memory {
            search = search.memory(bytes);
        }
        if let Some(progress) = how.progress {
            search = search.watched(progress);
        }
        let (mut sorted, coverage) = search.sorted(Order::Descending, limit).unwrap();
        let mut rows = Vec::new();
        while let Some(line) = sorted.next_line(&self.listing, &self.sources).unwrap() {
            let path = self.listing.segments[line.segment].path(&self.sources);
            rows.push((path, line.index, String::from_utf8(line.line).unwrap()));
        }
        let mut notices = notices.into_inner().unwrap();
        notices.sort();
        Told { rows, coverage, notices }
    }
}

/// A line, at the second of its number.
fn line(job: &str, workspace: &str, second: usize) -> String {
    format!(
        "{{\"ts\":\"2026-01-28T09:{:02}:{:02}.000Z\",\"jobId\":\"{job}\",\"workspaceId\":\"{workspace}\",\"event\":\"E\",\
         \"message\":\"\",\"meta\":{{\"n\":{second}}}}}\n",
        second / 60,
        second % 60
    )
}

fn segment(dir: &Path, job: &str, rank: usize, lines: &str) {
    fs::create_dir_all(dir.join(job)).unwrap();
    fs::write(dir.join(job).join(format!("audit-{rank}_20260128T090000.000Z.jsonl")), lines).unwrap();
}

const WORKSPACES: [&str; 3] = ["w0", "w1", "w2"];

/// The lines of some segments: of each its directory, its job, and of each line whose it is or what damage.
fn any_segments() -> impl Strategy<Value = Vec<(usize, usize, Vec<usize>)>> {
    // Few workspaces in a segment, so that many hold none of the scope.
    let lines = (0..3_usize, prop::collection::vec(prop_oneof![6 => Just(0_usize), 1 => 1..6_usize], 0..8))
        .prop_map(|(workspace, kinds)| kinds.into_iter().map(|kind| kind * 3 + workspace).collect());
    prop::collection::vec((0..2_usize, 0..3_usize, lines), 1..8)
}

fn write(segments: &[(usize, usize, Vec<usize>)], dirs: [&Path; 2], is_kept: impl Fn(usize, &[usize]) -> bool) {
    for dir in dirs {
        fs::create_dir_all(dir).unwrap();
    }
    for (rank, (dir, job, kinds)) in segments.iter().enumerate() {
        let job = format!("{job}");
        let lines = kinds.iter().enumerate().map(|(second, kind)| match (kind / 3, WORKSPACES[kind % 3]) {
            (0, workspace) => line(&job, workspace, second),
            (1, workspace) => line("another", workspace, second),
            (2, _) => "damaged\n".to_owned(),
            (3, _) => "\n".to_owned(),
            (4, workspace) => line(&job, workspace, second).replace("\"n\"", "\"n\":0,\"n\""),
            (_, workspace) => line(&job, workspace, second).replace(":{\"n\"", ":\0{\"n\""),
        });
        if is_kept(*dir, kinds) {
            segment(dirs[*dir], &job, rank, &lines.collect::<String>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// For whoever has a scope, segments without a record of it are not there: answers, counts and notices are those of directories
    /// in which they never were; and there, those of everybody's who asks for these workspaces.
    #[test]
    fn what_lies_outside_a_scope_does_not_exist(
        segments in any_segments(),
        scope in prop::sample::subsequence(&WORKSPACES[..], 0..3),
        since in prop::option::of(0..8_usize),
        limit in prop::option::of(0..5_usize),
    ) {
        let temp = TempDir::new().unwrap();
        let dirs = ["all/one", "all/two", "seen/one", "seen/two"].map(|name| temp.path().join(name));
        let workspaces: Vec<String> = scope.iter().map(|text| (*text).to_owned()).collect();
        // A record of the scope is in its job's folder; the second directory is the workspace w1's.
        let is_seen = |dir: usize, kind: &usize| {
            matches!(kind / 3, 0 | 4) && scope.contains(&WORKSPACES[kind % 3]) && (dir == 0 || kind % 3 == 1)
        };
        write(&segments, [&dirs[0], &dirs[1]], |_, _| true);
        write(&segments, [&dirs[2], &dirs[3]], |dir, kinds| kinds.iter().any(|kind| is_seen(dir, kind)));
        let sources = |at: usize| [format!("one={}/", dirs[at].display()), format!("two={}@w1", dirs[at + 1].display())];
        let [all, seen] = [0, 2].map(|at| Directories::new(&sources(at)));
        let condition = since.map(|second| Condition::parse(&format!("meta.n >= {second}")).unwrap());
        let criteria = |workspaces, scope| Criteria {
            workspaces, scope, conditions: condition.clone().into_iter().collect(), ..Criteria::default()
        };
        let scoped = || criteria(Vec::new(), Scope::Workspaces(workspaces.clone()));
        let told = all.ask(scoped(), limit, How::default());
        prop_assert_eq!(&told, &seen.ask(scoped(), limit, How::default()));
        if limit.is_none() && !workspaces.is_empty() {
            prop_assert_eq!(&told, &seen.ask(criteria(workspaces.clone(), Scope::All), limit, How::default()));
        }
    }
}

#[test]
fn what_was_written_after_the_listing_is_read_unless_it_is_answered_as_listed() {
    let temp = TempDir::new().unwrap();
    segment(temp.path(), "1", 0, &[line("1", "w", 0), line("1", "w", 1)].concat());
    let directories = Directories::one(temp.path());
    segment(temp.path(), "1", 0, &(0..4).map(|second| line("1", "w", second)).collect::<String>());
    for limit in [None, Some(10)] {
        let rows = |told: Told| told.rows.iter().map(|(_, index, _)| *index).collect::<Vec<_>>();
        assert_eq!(rows(directories.ask(Criteria::default(), limit, How::default())), [3, 2, 1, 0]);
        assert_eq!(
            rows(directories.ask(Criteria::default(), limit, How { is_as_listed: true, ..How::default() })),
            [1, 0]
        );
    }
}

/// A line that was being written when its segment was listed is not yet there; one that stays so is damaged.
#[test]
fn the_half_of_a_line_that_was_listed_is_no_damage_once_there_is_the_other() {
    let temp = TempDir::new().unwrap();
    let last = line("1", "w", 1);
    let (first_half, other_half) = last.split_at(last.len() / 2);
    let whole = line("1", "w", 0);
    segment(temp.path(), "1", 0, &(whole.clone() + first_half));
    let directories = Directories::one(temp.path());
    for (damaged, text) in [(1, whole.clone() + first_half), (0, whole.clone() + first_half + other_half)] {
        segment(temp.path(), "1", 0, &text);
        for limit in [None, Some(10)] {
            let told = directories.ask(Criteria::default(), limit, How { is_as_listed: true, ..How::default() });
            assert_eq!((told.rows.len(), told.coverage.damaged), (1, damaged), "{told:?}");
        }
    }
}

#[test]
fn progress_ends_at_its_total_and_each_segment_that_was_read_is_told_once() {
    let temp = TempDir::new().unwrap();
    let lines: String = (0..9).map(|second| line("1", "w", second)).collect();
    for rank in 0..5 {
        segment(temp.path(), "1", rank, &lines);
    }
    segment(temp.path(), "1", 5, &(lines.clone() + "torn"));
    let directories = Directories::one(temp.path());
    let progress = Progress::default();
    let told = directories.ask(
        Criteria::default(),
        None,
        How { progress: Some(&progress), threads: Some(2), ..How::default() },
    );
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let bytes = 6 * lines.len() as u64 + 4;
    assert_eq!((of(&progress.bytes_total), of(&progress.bytes_done)), (bytes, bytes));
    assert_eq!((of(&progress.segments_total), of(&progress.segments_done)), (6, 6));
    assert_eq!((told.coverage.bytes, told.coverage.lines, told.coverage.damaged), (bytes, 55, 1));
    let searched: Vec<_> = told.notices.iter().filter(|notice| notice.starts_with("Searched")).collect();
    assert_eq!(searched.len(), 6);
    let last = format!(
        "Searched {{ segment: \"1/audit-5_20260128T090000.000Z.jsonl\", bytes: {}, lines: 10, damaged: 1, foreign: 0 }}",
        lines.len() + 4
    );
    assert_eq!(*searched[5], last);
}

/// The one fault that a look leaves unseen: JSON of `meta` that is none, its brackets in balance, on a line that can't match.
#[test]
fn a_strict_search_reads_in_full_what_cannot_match() {
    let temp = TempDir::new().unwrap();
    let odd = line("1", "w", 2).replace("\"n\":", "\"n\"=");
    segment(temp.path(), "1", 0, &[line("1", "w", 0), line("1", "w", 1), odd].concat());
    let directories = Directories::one(temp.path());
    let criteria = || Criteria { events: vec!["nothing".to_owned()], ..Criteria::default() };
    let damaged = |is_strict| directories.ask(criteria(), None, How { is_strict, ..How::default() }).coverage.damaged;
    assert_eq!((damaged(false), damaged(true)), (0, 1));
    assert_eq!(directories.ask(Criteria::default(), None, How::default()).coverage.damaged, 1);
}

/// What kills, power cuts and other writers leave of a line: each of these a look at a line promises to see, whatever is asked for.
fn spoilt(kind: usize, line: &str, at: usize) -> Vec<u8> {
    let bytes = line.trim_end().as_bytes();
    let at = 1 + at % (bytes.len() - 2);
    let (before, behind) = bytes.split_at(at);
    let mut spoilt = match kind {
        0 => before.to_vec(),
        1 => [before, &[0; 7]].concat(),
        2 => [before, &[0], &behind[1..]].concat(),
        3 => [before, &[0xff], &behind[1..]].concat(),
        4 => [before, &[7], &behind[1..]].concat(),
        5 => [before, bytes].concat(),
        6 => [bytes, bytes].concat(),
        7 => behind.to_vec(),
        8 => [bytes, b"}"].concat(),
        9 => [bytes, b" x"].concat(),
        10 => line.trim_end().replace("\"message\":\"\"", "\"message\":0").into_bytes(),
        11 => line.trim_end().replace(",\"event\"", ",\"rank\":1,\"event\"").into_bytes(),
        12 => line.trim_end().replace("2026-01-28", "2026-02-31").into_bytes(),
        13 => line.trim_end().replace("\"jobId\":\"1\"", "\"jobId\":\"2\"").into_bytes(),
        14 => line.trim_end().replace("\"w\"", "\"v\"").into_bytes(),
        15 => line.trim_end().replace("message", "massage").into_bytes(),
        16 => line.trim_end().replace("meta", "mate").into_bytes(),
        _ => bytes.to_vec(),
    };
    spoilt.push(b'\n');
    spoilt
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A line that can't match gets a look alone; what that counts and tells is what reading each line in full does.
    #[test]
    fn damaged_and_foreign_lines_are_counted_alike_whatever_is_asked_for(
        segments in prop::collection::vec(prop::collection::vec((0..34_usize, any::<usize>()), 0..30), 1..4),
        torn in any::<bool>(),
        asked in 0..7_usize,
        limit in prop::option::of(0..5_usize),
    ) {
        let temp = TempDir::new().unwrap();
        let (mut damaged, mut foreign, mut lines) = (0, 0, 0);
        for (rank, kinds) in segments.iter().enumerate() {
            let mut text: Vec<u8> = Vec::new();
            for (second, (kind, at)) in kinds.iter().enumerate() {
                text.extend(spoilt(*kind, &line("1", "w", second), *at));
            }
            if torn {
                text.extend_from_slice(&line("1", "w", 40).as_bytes()[..20]);
                (damaged, lines) = (damaged + 1, lines + 1);
            }
            for line in text.split(|byte| *byte == b'\n').take(kinds.len()) {
                lines += 1;
                match Record::parse(line) {
                    Ok(record) => foreign += u64::from(record.job_id != "1" || record.workspace_id != "w"),
                    Err(_) => damaged += u64::from(!line.is_empty()),
                }
            }
            fs::create_dir_all(temp.path().join("1")).unwrap();
            // A name that bounds no times: all of it is read.
            fs::write(temp.path().join("1").join(format!("audit-{rank}-2026-01-28.jsonl")), text).unwrap();
        }
        let directories = Directories::new(&[format!("{}@w", temp.path().display())]);
        let of = |condition: &str| vec![Condition::parse(condition).unwrap()];
        let criteria = || match asked {
            0 => Criteria::default(),
            1 => Criteria { events: vec!["nothing".to_owned()], ..Criteria::default() },
            2 => Criteria { conditions: of("meta.n = 3"), ..Criteria::default() },
            3 => Criteria { conditions: of("meta.n > 9"), ..Criteria::default() },
            4 => Criteria { texts: vec!["nothing".to_owned()], ..Criteria::default() },
            5 => Criteria { workspaces: vec!["w".to_owned()], conditions: of("message exists"), ..Criteria::default() },
            _ => Criteria { since: Some(Timestamp::parse_rfc3339("2026-01-28T09:00:05Z").unwrap()), ..Criteria::default() },
        };
        let looked = directories.ask(criteria(), None, How::default());
        prop_assert_eq!(&looked, &directories.ask(criteria(), None, How { is_strict: true, ..How::default() }));
        let Coverage { lines: found_lines, damaged: found_damaged, foreign: found_foreign, .. } = looked.coverage;
        prop_assert_eq!((found_lines, found_damaged, found_foreign), (lines, damaged, foreign));
        prop_assert_eq!(looked.notices.iter().filter(|notice| notice.starts_with("Damaged")).count() as u64, damaged);
        prop_assert_eq!(looked.notices.iter().filter(|notice| notice.starts_with("Foreign")).count() as u64, foreign);
        if limit != Some(0) {
            prop_assert_eq!(directories.ask(criteria(), limit, How::default()).coverage, looked.coverage);
        }
    }
}

/// However little memory a search is given and however many threads, the answer is the same.
#[test]
fn an_answer_minds_neither_threads_nor_memory() {
    let temp = TempDir::new().unwrap();
    for rank in 0..4 {
        let lines: String = (0..300).map(|second| line("1", "w", second)).collect();
        segment(temp.path(), "1", rank, &lines);
    }
    let directories = Directories::one(temp.path());
    let expected = directories.ask(Criteria::default(), None, How::default());
    assert_eq!(expected.rows.len(), 1200);
    for (threads, memory) in [(1, 0), (7, 0), (7, 1 << 30), (0, 64 << 20)] {
        let told = directories.ask(
            Criteria::default(),
            None,
            How { threads: Some(threads), memory: Some(memory), ..How::default() },
        );
        assert_eq!(told, expected, "{threads} threads, {memory} bytes");
    }
}

/// Whoever takes a record may end the search, and may search again.
#[test]
fn a_search_that_was_ended_can_be_asked_again() {
    let temp = TempDir::new().unwrap();
    segment(temp.path(), "1", 0, &(0..9).map(|second| line("1", "w", second)).collect::<String>());
    let directories = Directories::one(temp.path());
    let (filter, is_stopped) = (Filter::new(Criteria::default()), AtomicBool::new(false));
    let search = Search::new((&directories.sources, &directories.listing), &filter, &|_| {}, &is_stopped);
    for _ in 0..2 {
        let (found, _) = search.each(
            || 0,
            |count, _| {
                *count += 1;
                if *count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        assert_eq!(found.iter().sum::<u32>(), 3);
    }
}

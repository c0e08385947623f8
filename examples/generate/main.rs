//! Makes an audit directory of any size, to read: job folders, a year of realistic events, and, if asked for, odd lines.
//!
//! `generate --dir DIR --lines N [--jobs 200] [--ranks 4] [--seed 1] [--odd SHARE] [--segments-lines 4096]`
//!
//! - `<jobId>/audit-<rank>_<time>.jsonl`, a new segment at UTC midnight and after `--segments-lines` lines. Within a segment
//!   times never decrease; lines with the same time, in one segment and in several, are there.
//! - `--odd` is the share of [`Oddity`] lines, from 0 (none) to 1. With any, every sixteenth job, from the eighth on, is
//!   written as UCloud's own server does: numeric `ts`, a file a day.
//! - The same arguments make the same bytes. The directory is made; a folder of a job that is there already is refused.
//! - The answer is one JSON object: `{"lines":…,"segments":…,"bytes":…,"ucloud":…,"odd":{"reordered":…,…}}`. `lines` has
//!   the odd ones, `ucloud` counts lines too, whether odd or not.

#![expect(clippy::disallowed_methods, reason = "it makes files, none of which has to be durable")]
#![expect(clippy::print_stdout, reason = "that is its answer")]

mod event;
mod odd;
mod random;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use audit_log::record::{DAY_MS, SegmentName, Timestamp};

use event::Parts;
use odd::Oddity;
use random::Random;

/// 2025-07-01T00:00:00Z.
const YEAR_BEGINS_MS: i64 = 1_751_328_000_000;
const YEAR_DAYS: u64 = 365;

struct Options {
    dir: PathBuf,
    lines: u64,
    jobs: u64,
    ranks: u32,
    seed: u64,
    odd: f64,
    segments_lines: u64,
}

/// What was made.
#[derive(Default)]
struct Counts {
    lines: u64,
    segments: u64,
    bytes: u64,
    ucloud: u64,
    odd: [u64; Oddity::ALL.len()],
}

/// The lines of one rank of one job.
struct Stream<'o> {
    options: &'o Options,
    folder: &'o Path,
    job: &'o str,
    other_job: &'o str,
    workspace: &'o str,
    rank: u32,
    ucloud: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut random = Random::new(options.seed);
    let workspaces: Vec<_> = (0..=options.jobs / 8).map(|_| uuid(&mut random)).collect();
    let streams = options.jobs * u64::from(options.ranks);
    // A stream has from none to twice the mean, and the sum is exact.
    let mut ends: Vec<_> = (1..=streams).map(|stream| stream * 1024 - random.below(1024)).collect();
    if let Some(last) = ends.last_mut() {
        *last = streams * 1024;
    }
    let share = |end: u64| u128::from(options.lines) * u128::from(end) / u128::from(streams * 1024);
    let mut ends = ends.into_iter().map(|end| u64::try_from(share(end)).expect("no more than all lines"));
    let mut counts = Counts::default();
    let mut done = 0;
    for number in 0..options.jobs {
        let job = job_id(number);
        let folder = options.dir.join(&job);
        fs::create_dir_all(&options.dir)?;
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let begins = YEAR_BEGINS_MS + millis(random.below((YEAR_DAYS - 3) * 86_400_000));
        // A rank runs for a day or so, however many lines it writes.
        let step_ms = 1 + random.below((2 * 86_400_000 * streams / options.lines.max(1)).min(86_400_000));
        for rank in 0..options.ranks {
            let stream = Stream {
                options: &options,
                folder: &folder,
                job: &job,
                other_job: &job_id(number + 1),
                workspace: &workspaces[usize::try_from(number / 8)?],
                rank,
                ucloud: options.odd > 0.0 && number % 16 == 7,
            };
            let end = ends.next().expect("there is one for each stream");
            stream.write(&mut random, end - done, begins, step_ms, &mut counts)?;
            done = end;
        }
    }
    counts.print();
    Ok(())
}

impl Stream<'_> {
    fn write(
        &self,
        random: &mut Random,
        lines: u64,
        begins: i64,
        step_ms: u64,
        counts: &mut Counts,
    ) -> std::io::Result<()> {
        let mut now = begins;
        let mut segment = Vec::new();
        let (mut segment_lines, mut opened) = (0, 0);
        for number in 0..lines {
            // Several in a burst have one time, and ranks meet at whole minutes.
            if !random.once_in(4) {
                now += millis(random.below(step_ms));
            }
            if random.once_in(16) {
                now = (now / 60_000 + 1) * 60_000;
            }
            let new_day = now / DAY_MS != opened / DAY_MS;
            if new_day || (!self.ucloud && segment_lines == self.options.segments_lines) {
                self.close(&mut segment, opened, counts)?;
                segment_lines = 0;
            }
            if segment_lines == 0 {
                // No two of a rank have the same name.
                now = now.max(opened + 1);
                opened = now;
            }
            let torn = self.line(random, now, number, &mut segment, counts);
            segment_lines += 1;
            counts.lines += 1;
            counts.ucloud += u64::from(self.ucloud);
            if torn {
                self.close(&mut segment, opened, counts)?;
                segment_lines = 0;
            }
        }
        self.close(&mut segment, opened, counts)
    }

    /// Adds a line, and says whether it was torn.
    fn line(&self, random: &mut Random, now: i64, number: u64, segment: &mut Vec<u8>, counts: &mut Counts) -> bool {
        let parts = Parts::any(random, self.job, self.workspace);
        let ts = if self.ucloud { now.to_string() } else { format!("\"{}\"", Timestamp::from_millis(now)) };
        if !random.chance(self.options.odd) {
            let mut line = String::with_capacity(512);
            parts.write(&ts, &mut line);
            segment.extend_from_slice(line.as_bytes());
            segment.push(b'\n');
            return false;
        }
        let mut oddity = Oddity::any(random);
        // A day's file goes on after a crash, and a segment of a torn line alone would hold no line.
        if oddity == Oddity::Torn && (self.ucloud || number == 0) {
            oddity = Oddity::NotJson;
        }
        let kind = Oddity::ALL.iter().position(|one| *one == oddity).expect("all are there");
        counts.odd[kind] += 1;
        segment.extend(odd::write(oddity, random, parts, &ts, self.other_job));
        if oddity != Oddity::Torn {
            segment.push(b'\n');
        }
        oddity == Oddity::Torn
    }

    fn close(&self, segment: &mut Vec<u8>, opened: i64, counts: &mut Counts) -> std::io::Result<()> {
        if segment.is_empty() {
            return Ok(());
        }
        let opened = Timestamp::from_millis(opened);
        let name = if self.ucloud {
            format!("audit-{}-{}.jsonl", self.rank, &opened.to_string()[..10])
        } else {
            SegmentName::new(self.rank, opened).to_string()
        };
        fs::write(self.folder.join(name), &segment)?;
        counts.segments += 1;
        counts.bytes += u64::try_from(segment.len()).expect("a length fits");
        segment.clear();
        Ok(())
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options =
            Self { dir: PathBuf::new(), lines: 0, jobs: 200, ranks: 4, seed: 1, odd: 0.0, segments_lines: 4096 };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} has no value"))?;
            match flag.as_str() {
                "--dir" => options.dir = value.into(),
                "--lines" => options.lines = value.parse()?,
                "--jobs" => options.jobs = value.parse()?,
                "--ranks" => options.ranks = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--odd" => options.odd = value.parse()?,
                "--segments-lines" => options.segments_lines = value.parse()?,
                _ => return Err(format!("unknown flag {flag}").into()),
            }
        }
        if options.dir.as_os_str().is_empty() || options.jobs == 0 || options.ranks == 0 || options.segments_lines == 0
        {
            return Err("--dir is required; jobs, ranks and lines of a segment are 1 at least".into());
        }
        Ok(options)
    }
}

impl Counts {
    fn print(&self) {
        let odd: Vec<_> =
            Oddity::NAMES.iter().zip(self.odd).map(|(name, count)| format!("\"{name}\":{count}")).collect();
        let Self { lines, segments, bytes, ucloud, .. } = self;
        println!(
            "{{\"lines\":{lines},\"segments\":{segments},\"bytes\":{bytes},\"ucloud\":{ucloud},\"odd\":{{{}}}}}",
            odd.join(",")
        );
    }
}

fn job_id(number: u64) -> String {
    (5_003_592 + number * 17).to_string()
}

fn uuid(random: &mut Random) -> String {
    let (high, low) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFF,
        low >> 52,
        low & 0xFFFF_FFFF_FFFF
    )
}

fn millis(value: u64) -> i64 {
    i64::try_from(value).expect("no more than a year")
}

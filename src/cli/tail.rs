//! `tail`: the last records, and those that appear.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::print::Printer;
use super::progress::Shown;
use super::read::{HowFlags, Looking, What, WhatFlags, text_of};
use super::{FAILED, Failure, complain};
use crate::clock::{Clock, SystemClock};
use crate::reader::follow::{Followed, Follower, Pace, Progress};
use crate::reader::lines::Buffer;
use crate::reader::listing::{Changes, Listing};
use crate::reader::output::Layout;
use crate::reader::record::Damage;
use crate::reader::search::Notice;
use crate::reader::sorted::Order;

/// The flags of `tail`.
#[derive(Debug, clap::Args)]
pub(super) struct TailFlags {
    #[command(flatten)]
    what: WhatFlags,
    /// So many of the last records, the oldest of them first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Go on with the records that appear, in the order in which they do
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    how: HowFlags,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  audit-log tail -n 20 --job 5003592
  audit-log tail -f -n 0 --event LOGIN_FAILED";

/// How often segments in which something was found lately are looked at, where a listing takes longer.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Prints the last records that match; with `--follow` those that appear from then on, until nobody reads them.
pub(super) fn tail(flags: &TailFlags) -> Result<ExitCode, Failure> {
    let what = flags.what.prepare()?;
    let layout = flags.how.layout(&what)?;
    if flags.follow && matches!(layout, Layout::Json(_)) {
        return Err(Failure::Usage("--format: an array that is followed never ends: use `ndjson`".to_owned()));
    }
    let (shown, now) = (Shown::start()?, SystemClock.now());
    let listing = Listing::new(&what.sources);
    let follower = flags.follow.then(|| Follower::new((&what.sources, &listing), what.filter.clone(), now));
    let mut printer = Printer::new(layout);
    // The rest of a line that is being written is waited for.
    let is_told = |notice: &Notice<'_>| match notice {
        Notice::Damaged { segment, damage: Damage::Torn, .. } => {
            !follower.as_ref().is_some_and(|follower| follower.is_awaited(segment))
        }
        _ => true,
    };
    let asked = (&listing, &shown);
    let (is_read_on, code) = what.search_in(asked, &is_told, |Looking { search, listing, shown, notice }| {
        let (sorted, mut coverage) = search.as_listed().sorted(Order::Descending, Some(flags.lines))?;
        let mut sorted = sorted.reversed(listing)?;
        shown.clear();
        let (is_read_on, ambiguous) = printer.sorted(&what, &mut sorted, listing)?;
        coverage.ambiguous += ambiguous;
        coverage.unreadable += what.tell_lost(&sorted, listing, notice);
        Ok((is_read_on && (!flags.follow || printer.flush()?), coverage))
    })?;
    match follower {
        // What can't be read has been told; it keeps nobody from the rest.
        Some(follower) if is_read_on && (code == ExitCode::SUCCESS || !what.is_strict) => {
            let ended = Following::new(&what, listing, follower, printer).run()?;
            Ok(if ended == ExitCode::SUCCESS { code } else { ended })
        }
        Some(_) => Ok(code),
        None => {
            printer.end()?;
            Ok(code)
        }
    }
}

/// Records that appear, on their way to stdout.
struct Following<'w> {
    what: &'w What,
    listing: Listing,
    follower: Follower,
    printer: Printer,
    buffer: Buffer,
    /// What can't be looked at, which has been told.
    troubles: BTreeSet<PathBuf>,
}

impl<'w> Following<'w> {
    fn new(what: &'w What, listing: Listing, follower: Follower, printer: Printer) -> Self {
        let troubles = listing.troubles.iter().map(|trouble| trouble.path.clone()).collect();
        Self { what, listing, follower, printer, buffer: Buffer::default(), troubles }
    }

    /// Follows until nobody reads, or a damaged line is an error.
    fn run(mut self) -> Result<ExitCode, Failure> {
        let mut pace = Pace::default();
        loop {
            let (began, now) = (SystemClock.steady(), SystemClock.now());
            let changes = self.listing.refresh(&self.what.sources);
            self.tell_troubles();
            self.follower.listed(&self.what.sources, &changes, now);
            // Not what it takes to print what is new, to a pager that nobody scrolls perhaps.
            let took = SystemClock.steady().saturating_sub(began);
            if let ControlFlow::Break(code) = self.read()? {
                return Ok(code);
            }
            let rest = pace.rest(took, changes != Changes::default());
            let until = SystemClock.steady() + rest;
            loop {
                let left = until.saturating_sub(SystemClock.steady());
                let step = if self.follower.look_again() { left.min(LOOK_AGAIN_AFTER) } else { left };
                if !self.printer.wait(step)? {
                    return Ok(ExitCode::SUCCESS);
                }
                if step == left {
                    break;
                }
                if let ControlFlow::Break(code) = self.read()? {
                    return Ok(code);
                }
            }
        }
    }

    /// Prints what there is to read; breaks with the exit code when that is the end.
    fn read(&mut self) -> anyhow::Result<ControlFlow<ExitCode>> {
        let Self { what, follower, printer, buffer, .. } = self;
        let (is_read, is_damaged, failure) = (Cell::new(true), Cell::new(false), RefCell::new(None));
        let notice = |notice: Notice<'_>| {
            is_damaged.set(is_damaged.get() || matches!(notice, Notice::Damaged { .. }));
            tell(&notice);
        };
        let mut found = |found: &Followed<'_>| match printer.record(found.record, &found.place) {
            Ok(true) if !(what.is_strict && is_damaged.get()) => ControlFlow::Continue(()),
            Ok(is_read_on) => {
                is_read.set(is_read_on);
                ControlFlow::Break(())
            }
            Err(error) => {
                failure.replace(Some(error));
                ControlFlow::Break(())
            }
        };
        while follower.read(&what.sources, buffer, &notice, &mut found) == Progress::More {}
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        if !is_read.get() || !printer.flush()? {
            return Ok(ControlFlow::Break(ExitCode::SUCCESS));
        }
        let is_over = what.is_strict && is_damaged.get();
        Ok(if is_over { ControlFlow::Break(ExitCode::from(FAILED)) } else { ControlFlow::Continue(()) })
    }

    fn tell_troubles(&mut self) {
        let mut troubles = BTreeSet::new();
        for trouble in &self.listing.troubles {
            if !self.troubles.contains(&trouble.path) {
                let path = trouble.path.display().to_string();
                tell(&Notice::Unreadable { path: &path, error: &trouble.error });
            }
            troubles.insert(trouble.path.clone());
        }
        self.troubles = troubles;
    }
}

fn tell(notice: &Notice<'_>) {
    if let Some(text) = text_of(notice) {
        complain(&text);
    }
}

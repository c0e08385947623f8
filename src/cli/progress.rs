//! How far a search has come, shown on the terminal of whoever waits for it.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{complain, interrupt};
use crate::reader::search::Progress;

/// What is done sooner is not worth a look.
const APPEARS_AFTER: Duration = Duration::from_millis(500);
const REDRAWN_AFTER: Duration = Duration::from_millis(100);

/// A line on stderr, if that is a terminal, from half a second on until it is cleared.
pub(super) struct Shown {
    counts: Arc<Counts>,
    bar: ProgressBar,
    drawing: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

#[derive(Default)]
struct Counts {
    search: Progress,
    written: AtomicU64,
}

impl Shown {
    pub(super) fn start() -> anyhow::Result<Self> {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let shown = Self { counts: Arc::default(), bar, drawing: Mutex::default() };
        if !io::stderr().is_terminal() {
            return Ok(shown);
        }
        let (bar, counts) = (shown.bar.clone(), Arc::clone(&shown.counts));
        let (stop, stopped) = channel();
        let draw = move || {
            let mut wait = APPEARS_AFTER;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                counts.draw(&bar);
                wait = REDRAWN_AFTER;
            }
            bar.finish_and_clear();
        };
        *shown.drawing.lock().unwrap_or_else(PoisonError::into_inner) = Some((stop, thread::spawn(draw)));
        let bar = shown.bar.clone();
        interrupt::before_the_end(move || bar.finish_and_clear())?;
        Ok(shown)
    }

    /// What a search is to tell.
    pub(super) fn search(&self) -> &Progress {
        &self.counts.search
    }

    /// So many more records were written.
    pub(super) fn count_written(&self, records: u64) {
        self.counts.written.fetch_add(records, Ordering::Relaxed);
    }

    /// Clears the line for good: the answer follows.
    pub(super) fn clear(&self) {
        if let Some((stop, drawing)) = self.drawing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(stop);
            drawing.join().expect("drawing does not panic");
        }
    }

    /// Writes a message above the line.
    pub(super) fn complain(&self, message: &str) {
        self.bar.suspend(|| complain(message));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Counts {
    fn draw(&self, bar: &ProgressBar) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (done, total) = (count(&self.search.bytes_done), count(&self.search.bytes_total));
        let (template, message) = if count(&self.written) > 0 {
            ("{wide_msg}", format!("writing: {} records", HumanCount(count(&self.written))))
        } else if total == 0 {
            ("{wide_msg}", "looking for segments".to_owned())
        } else {
            let segments = (count(&self.search.segments_done), count(&self.search.segments_total));
            let (segments_done, segments_total) = (HumanCount(segments.0), HumanCount(segments.1));
            let bytes = (HumanBytes(done.min(total)), HumanBytes(total));
            let message = format!("{} of {}, {segments_done} of {segments_total} segments", bytes.0, bytes.1);
            ("{bar:16} {percent:>3} % {wide_msg} {eta:>4} left", message)
        };
        if bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_style(ProgressStyle::with_template(template).expect("this is a template"));
        bar.set_length(total);
        bar.set_position(done.min(total));
        bar.set_message(message);
        bar.tick();
    }
}

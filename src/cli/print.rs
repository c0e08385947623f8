//! Records on their way to stdout.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::read::{PIECE_BYTES, What, is_read_on};
use crate::reader::field::Place;
use crate::reader::listing::Listing;
use crate::reader::output::{Drain, Encoder, Layout};
use crate::reader::record::Record;
use crate::reader::sorted::Sorted;

/// Prints records in a layout.
///
/// Each call tells whether anybody still reads: that `head` has seen enough is no fault, and whoever prints may end.
pub(super) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    encoder: Encoder,
    bytes: Vec<u8>,
}

impl Printer {
    pub(super) fn new(layout: Layout) -> Self {
        let (mut encoder, mut bytes) = (Encoder::new(layout), Vec::new());
        encoder.begin(&mut bytes);
        Self { out: BufWriter::new(io::stdout().lock()), encoder, bytes }
    }

    pub(super) fn record(&mut self, record: &Record<'_>, place: &Place<'_>) -> anyhow::Result<bool> {
        let Self { out, encoder, bytes } = self;
        let mut written = Ok(());
        let mut drain = |bytes: &mut Vec<u8>| {
            if written.is_ok() {
                written = out.write_all(bytes);
            }
            bytes.clear();
        };
        encoder.record_drained(record, place, bytes, &mut Drain::new(PIECE_BYTES, &mut drain));
        Ok(is_read_on(written)? && self.write()?)
    }

    /// Prints records of a search; tells how many are ambiguous by what is shown of them, too.
    pub(super) fn sorted(
        &mut self,
        what: &What,
        sorted: &mut Sorted,
        listing: &Listing,
    ) -> anyhow::Result<(bool, u64)> {
        let Self { out, encoder, bytes } = self;
        let mut write = |bytes: &[u8]| is_read_on(out.write_all(bytes));
        if !write(bytes)? {
            return Ok((false, 0));
        }
        bytes.clear();
        what.encode_records(sorted, listing, encoder, &mut |bytes, _| write(bytes))
    }

    /// Shows all that was printed so far.
    pub(super) fn flush(&mut self) -> anyhow::Result<bool> {
        self.encoder.flush(&mut self.bytes);
        Ok(self.write()? && is_read_on(self.out.flush())?)
    }

    pub(super) fn end(mut self) -> anyhow::Result<bool> {
        self.encoder.end(&mut self.bytes);
        is_read_on(self.out.write_all(&self.bytes).and_then(|()| self.out.flush()))
    }

    fn write(&mut self) -> anyhow::Result<bool> {
        let written = self.out.write_all(&self.bytes);
        self.bytes.clear();
        is_read_on(written)
    }

    /// Waits so long, or until nobody reads any more, which a pipe tells though nothing is written.
    pub(super) fn wait(&self, time: Duration) -> anyhow::Result<bool> {
        let out = self.out.get_ref();
        let mut watched = [PollFd::new(out, PollFlags::empty())];
        let time = Timespec::try_from(time)?;
        rustix::io::retry_on_intr(|| poll(&mut watched, Some(&time)))?;
        Ok(watched[0].revents().is_empty())
    }
}

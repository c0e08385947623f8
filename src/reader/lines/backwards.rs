//! Lines from the last to the first, by reads at offsets.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::{memchr, memrchr};

use super::{Block, Buffer, Content, count_newlines, to_u64, to_usize};
use crate::durable::data_end;
use crate::record::LINE_BYTES_MAX;

/// The lines of a segment from the last to the first, a block at a time.
#[derive(Debug)]
pub struct Backwards<'a> {
    file: &'a File,
    buffer: &'a mut Buffer,
    /// What is still to be read.
    left: Range<u64>,
    /// Whether a newline stands before the end of that.
    is_at_newline: bool,
    /// Lines told.
    nth: u64,
}

impl<'a> Backwards<'a> {
    pub(super) fn new(file: &'a File, left: Range<u64>, buffer: &'a mut Buffer) -> Self {
        Self { file, buffer, left, is_at_newline: false, nth: 0 }
    }

    /// Reads the block before; `None` before the first one.
    ///
    /// # Errors
    /// Those of `pread`.
    pub fn next_block(&mut self) -> io::Result<Option<Block<'_>>> {
        // A longer line is read again with twice the size, until it is known to be too long.
        let mut size_max = self.buffer.chunk_bytes;
        while self.left.start < self.left.end {
            let end = self.left.end;
            if !self.is_at_newline {
                let is_torn;
                (self.left.end, is_torn) = self.after_newline(end)?;
                self.is_at_newline = true;
                if is_torn {
                    return Ok(Some(self.one_line(end, Content::Torn)));
                }
                continue;
            }
            let size = to_usize(end - self.left.start).min(size_max);
            let start = end - to_u64(size);
            let read = self.read(start, size)?;
            if read < size {
                // The file was cut: what is left of it may end anywhere.
                (self.left.end, self.is_at_newline) = (start + to_u64(read), false);
                continue;
            }
            // The last byte is the newline that the last line ends with.
            let begin = match memchr(b'\n', &self.buffer.bytes[..size - 1]) {
                // What comes before the first newline is the end of a line that begins further up.
                Some(newline) if start > self.left.start => newline + 1,
                None if size > LINE_BYTES_MAX => {
                    (self.left.end, _) = self.after_newline(end - 1)?;
                    return Ok(Some(self.one_line(end, Content::TooLong)));
                }
                None if start > self.left.start => {
                    size_max = size.saturating_mul(2).min(LINE_BYTES_MAX + 1);
                    continue;
                }
                _ => 0,
            };
            self.left.end = start + to_u64(begin);
            let bytes = &self.buffer.bytes[begin..size];
            let nth = self.nth;
            self.nth += count_newlines(bytes);
            let content = Content::Lines(bytes);
            let (offset, bytes) = (self.left.end, to_u64(bytes.len()));
            return Ok(Some(Block { nth, offset, bytes, content, is_backwards: true }));
        }
        Ok(None)
    }

    /// Tells the line that begins where what is left ends.
    fn one_line(&mut self, end: u64, content: Content<'static>) -> Block<'static> {
        let (nth, offset) = (self.nth, self.left.end);
        self.nth += 1;
        Block { nth, offset, bytes: end - offset, content, is_backwards: true }
    }

    /// Finds the offset behind the last newline before `end`, or where what is left begins; and whether any byte of the
    /// file stands between there and `end`.
    fn after_newline(&mut self, mut end: u64) -> io::Result<(u64, bool)> {
        let mut is_any = false;
        while self.left.start < end {
            let size = to_usize(end - self.left.start).min(self.buffer.chunk_bytes);
            let start = end - to_u64(size);
            let read = self.read(start, size)?;
            if let Some(newline) = memrchr(b'\n', &self.buffer.bytes[..read]) {
                return Ok((start + to_u64(newline) + 1, is_any || newline + 1 < read));
            }
            is_any |= read > 0;
            // Holes have no newline. What was cut off since is none.
            end = if read == size { data_end(self.file, self.left.start..start)? } else { start };
        }
        Ok((end, is_any))
    }

    /// Reads `size` bytes at an offset into the buffer, or fewer where the file ends before.
    fn read(&mut self, offset: u64, size: usize) -> io::Result<usize> {
        self.buffer.grow_to(size);
        let mut read = 0;
        while read < size {
            match self.file.read_at(&mut self.buffer.bytes[read..size], offset + to_u64(read)) {
                Ok(0) => break,
                Ok(some) => read += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

//! What is longer than anybody wants to hold: it waits in a temporary file.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::mem;

/// Bytes that were moved to a temporary file, one after the other; none if there were no more than memory holds.
#[derive(Debug)]
pub(crate) struct Kept {
    file: io::Result<Option<File>>,
    bytes: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { file: Ok(None), bytes: 0 }
    }
}

impl Kept {
    /// Moves bytes behind those that are here, and leaves nothing of them in memory. Where that fails, [`Kept::end`] tells it.
    pub(crate) fn take(&mut self, bytes: &mut Vec<u8>) {
        let bytes = mem::take(bytes);
        self.bytes += bytes.len() as u64;
        self.file = mem::replace(&mut self.file, Ok(None)).and_then(|file| {
            let mut file = file.map_or_else(tempfile::tempfile, Ok)?;
            file.write_all(&bytes)?;
            Ok(Some(file))
        });
    }

    /// How many there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A file that begins with them, of which they are all; nothing if there are none.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(crate) fn end(self) -> io::Result<Option<File>> {
        let Some(mut file) = self.file? else { return Ok(None) };
        file.rewind()?;
        Ok(Some(file))
    }
}

//! Sorted runs of what did not fit in memory, in temporary files without a name: few of each size, as many of one size are merged to one
//! of the next. So few files are open, and nothing is written more often than the logarithm of their number.

use std::fs::File;
use std::io;

/// Sorted runs, of each size fewer than are merged at once.
#[derive(Debug)]
pub(super) struct Runs {
    /// Runs that are merged at once.
    count_max: usize,
    of_size: Vec<Vec<File>>,
}

impl Runs {
    pub(super) fn new(count_max: usize) -> Self {
        Self { count_max, of_size: Vec::new() }
    }

    /// Adds a run of the least size.
    pub(super) fn push(&mut self, run: File, merge: impl Fn(Vec<File>) -> io::Result<File>) -> io::Result<()> {
        let mut run = run;
        for size in 0.. {
            if self.of_size.len() == size {
                self.of_size.push(Vec::new());
            }
            let runs = &mut self.of_size[size];
            runs.push(run);
            if runs.len() < self.count_max {
                break;
            }
            run = merge(std::mem::take(runs))?;
        }
        Ok(())
    }

    /// Adds those of another.
    pub(super) fn append(&mut self, other: Self) {
        self.of_size.resize_with(self.of_size.len().max(other.of_size.len()), Vec::new);
        for (runs, others) in self.of_size.iter_mut().zip(other.of_size) {
            runs.extend(others);
        }
    }

    /// All runs, no more than are merged at once.
    pub(super) fn into_files(self, merge: impl Fn(Vec<File>) -> io::Result<File>) -> io::Result<Vec<File>> {
        // The smallest first.
        let mut files: Vec<File> = self.of_size.into_iter().flatten().collect();
        while files.len() > self.count_max {
            let run = merge(files.drain(..self.count_max).collect())?;
            files.push(run);
        }
        Ok(files)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> impl Iterator<Item = usize> {
        self.of_size.iter().map(Vec::len)
    }
}

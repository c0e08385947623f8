//! Holes in files: parts that take no room on disk, and read as NULs.
//!
//! A file of a terabyte may be one: whoever has no use for NULs need not read them. A file system that does not tell its holes
//! has none (lseek(2)). The position that the calls move is nobody's: whoever reads files that others share gives an offset.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::SeekFrom;
use rustix::io::{Errno, retry_on_intr};

/// The offset of the first byte that is not in a hole, from an offset on; `None` if there is none.
///
/// # Errors
/// Those of `lseek`.
pub fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match retry_on_intr(|| rustix::fs::seek(file, SeekFrom::Data(offset))) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

/// The offset at which the hole begins that ends where `range` does, or lies beyond it; the end of `range` if none does.
///
/// Complexity: one call, and the logarithm of the range's length where there is a hole.
///
/// # Errors
/// Those of `lseek`.
pub fn data_end(file: &File, range: Range<u64>) -> io::Result<u64> {
    let (mut from, mut until) = (range.start, range.end);
    // Whether no data lies between an offset and the end is false up to some offset, and true from there on.
    let mut at = until.saturating_sub(1);
    while from < until {
        match data_from(file, at)?.filter(|data| *data < range.end) {
            Some(data) => from = data + 1,
            None => until = at,
        }
        at = from + (until.saturating_sub(from)) / 2;
    }
    Ok(until)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_found_from_both_ends() {
        const MIB: u64 = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        // Data in the second and the fifth MiB of eight.
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&vec![1; 1 << 20], MIB).unwrap();
        file.write_all_at(&vec![1; 1 << 20], 4 * MIB).unwrap();
        for (offset, data) in [(0, Some(1)), (1, Some(1)), (2, Some(4)), (4, Some(4)), (5, None), (8, None), (9, None)]
        {
            assert_eq!(data_from(&file, offset * MIB).unwrap(), data.map(|data| data * MIB), "{offset}");
        }
        let mut ends = vec![];
        for end in 0..=8 {
            ends.push(data_end(&file, 0..end * MIB).unwrap() / MIB);
        }
        assert_eq!(ends, [0, 0, 2, 2, 2, 5, 5, 5, 5]);
        assert_eq!(data_end(&file, 3 * MIB..4 * MIB).unwrap(), 3 * MIB);
        assert_eq!(data_end(&file, 4 * MIB..4 * MIB + 5).unwrap(), 4 * MIB + 5);
        assert_eq!(data_end(&file, 7 * MIB..7 * MIB).unwrap(), 7 * MIB);
    }
}

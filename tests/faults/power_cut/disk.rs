//! A disk with a volatile cache: what was written is read back at once, and kept only once it was flushed.

use std::collections::BTreeMap;

/// What a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;

/// Which of the writes that were not flushed a power cut leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The cache is gone.
    Nothing,
    /// The cache had just been emptied.
    Everything,
    /// The writes up to some moment, the last of them in part.
    Prefix,
    /// Of each write, each piece of so many bytes or not, by chance.
    Pieces(usize),
}

/// Small, and the same on every machine: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number from 0 to `end` - 1.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = u64::try_from(end).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % end).unwrap()
    }
}

/// The disk.
pub(super) struct Disk {
    /// What survives: all that was flushed.
    flushed: Vec<u8>,
    /// What was written since the last flush, in order, each write with its offset.
    pending: Vec<(usize, Vec<u8>)>,
    /// What is read: the pending writes on top of what was flushed, by sector.
    cached: BTreeMap<usize, Vec<u8>>,
}

impl Disk {
    pub(super) fn new(image: Vec<u8>) -> Self {
        assert_eq!(image.len() % SECTOR, 0, "a disk has whole sectors");
        Self { flushed: image, pending: Vec::new(), cached: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.flushed.len()
    }

    /// Reads what was written last, flushed or not; fewer bytes at the end of the disk.
    pub(super) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let (start, end) = (offset.min(self.len()), offset.saturating_add(length).min(self.len()));
        let mut bytes = self.flushed[start..end].to_vec();
        for (sector, content) in self.cached.range(start / SECTOR * SECTOR..end) {
            let (from, to) = (start.max(*sector), end.min(sector + SECTOR));
            bytes[from - start..to - start].copy_from_slice(&content[from - sector..to - sector]);
        }
        bytes
    }

    /// Takes a write into the cache; `None` if it reaches beyond the disk.
    pub(super) fn write(&mut self, offset: usize, bytes: Vec<u8>) -> Option<()> {
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.len())?;
        let mut position = offset;
        while position < end {
            let sector = position / SECTOR * SECTOR;
            let to = end.min(sector + SECTOR);
            let Self { flushed, cached, .. } = self;
            let content = cached.entry(sector).or_insert_with(|| flushed[sector..sector + SECTOR].to_vec());
            content[position - sector..to - sector].copy_from_slice(&bytes[position - offset..to - offset]);
            position = to;
        }
        self.pending.push((offset, bytes));
        Some(())
    }

    /// Makes what was written durable.
    pub(super) fn flush(&mut self) {
        for (offset, bytes) in self.pending.drain(..) {
            self.flushed[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        self.cached.clear();
    }

    /// How many writes have not been flushed.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is on the disk when the power is back.
    pub(super) fn after_cut(mut self, keep: Keep, dice: &mut Dice) -> Vec<u8> {
        let whole = if keep == Keep::Prefix { dice.below(self.pending.len() + 1) } else { 0 };
        for (number, (offset, bytes)) in self.pending.iter().enumerate() {
            let piece_length = if let Keep::Pieces(length) = keep { length } else { SECTOR };
            // In part: the sectors before one of them.
            let part = dice.below(bytes.len() / SECTOR + 1) * SECTOR;
            let mut start = *offset;
            while start < offset + bytes.len() {
                // Pieces lie where the disk has them, not where a write happens to begin.
                let end = (start / piece_length * piece_length + piece_length).min(offset + bytes.len());
                let kept = match keep {
                    Keep::Nothing => false,
                    Keep::Everything => true,
                    Keep::Prefix => number < whole || number == whole && start - offset < part,
                    Keep::Pieces(_) => dice.below(2) == 0,
                };
                if kept {
                    self.flushed[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
                }
                start = end;
            }
        }
        self.flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: usize = 64;

    fn disk() -> Disk {
        Disk::new(vec![0; SECTORS * SECTOR])
    }

    /// The value of each sector; one that is neither the one nor the other whole fails.
    fn values(image: &[u8]) -> Vec<u8> {
        let value = |sector: &[u8]| {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
            sector[0]
        };
        image.chunks(SECTOR).map(value).collect()
    }

    #[test]
    fn what_was_written_is_read_back_and_lost_until_it_is_flushed() {
        let mut disk = disk();
        disk.write(3 * SECTOR, vec![1; 2 * SECTOR]).unwrap();
        disk.flush();
        disk.write(4 * SECTOR, vec![2; 2 * SECTOR]).unwrap();
        assert_eq!(values(&disk.read(2 * SECTOR, 5 * SECTOR)), [0, 1, 2, 2, 0]);
        assert_eq!(disk.read(4 * SECTOR - 1, 2), [1, 2]);
        assert_eq!(disk.pending(), 1);
        assert_eq!(values(&disk.after_cut(Keep::Nothing, &mut Dice(1)))[2..7], [0, 1, 1, 0, 0]);
    }

    #[test]
    fn bytes_within_a_sector_can_be_written_and_none_beyond_the_end() {
        let mut disk = disk();
        disk.write(10, vec![7; 3]).unwrap();
        assert_eq!(disk.read(9, 5), [0, 7, 7, 7, 0]);
        assert_eq!(disk.write(SECTORS * SECTOR - 1, vec![1; 2]), None);
        assert_eq!(disk.read(SECTORS * SECTOR - 1, 2), [0]);
        disk.flush();
        assert_eq!(disk.after_cut(Keep::Nothing, &mut Dice(1))[9..14], [0, 7, 7, 7, 0]);
    }

    #[test]
    fn a_cut_keeps_nothing_everything_a_prefix_or_pieces_by_chance() {
        let written = |keep, seed| {
            let mut disk = disk();
            for (number, value) in (0..8).zip(1..) {
                disk.write(number * 8 * SECTOR, vec![value; 8 * SECTOR]).unwrap();
            }
            values(&disk.after_cut(keep, &mut Dice(seed)))
        };
        let mut seen = [0; 3];
        for seed in 0..100 {
            assert!(written(Keep::Nothing, seed).iter().all(|value| *value == 0));
            assert!(written(Keep::Everything, seed).iter().all(|value| *value != 0));
            let prefix = written(Keep::Prefix, seed);
            let kept = prefix.iter().take_while(|value| **value != 0).count();
            assert!(prefix[kept..].iter().all(|value| *value == 0), "{prefix:?}");
            seen[0] += usize::from(kept % 8 != 0);
            let sectors = written(Keep::Pieces(SECTOR), seed);
            seen[1] += usize::from(sectors.chunks(8).any(|write| write.contains(&0) && write.iter().any(|v| *v != 0)));
            let blocks = written(Keep::Pieces(8 * SECTOR), seed);
            assert!(blocks.chunks(8).all(|block| block.iter().all(|value| *value == block[0])), "{blocks:?}");
            seen[2] += usize::from(blocks.contains(&0) && blocks.iter().any(|value| *value != 0));
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
    }

    #[test]
    fn the_same_seed_cuts_the_same_way() {
        let cut = |seed| {
            let mut disk = disk();
            disk.write(0, vec![1; SECTORS * SECTOR]).unwrap();
            disk.after_cut(Keep::Pieces(SECTOR), &mut Dice(seed))
        };
        assert_eq!(cut(7), cut(7));
        assert_ne!(cut(7), cut(8));
    }
}

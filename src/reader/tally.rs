//! Keys and how often each was counted, in as much memory as is given.
//!
//! Keys stand one behind another in one piece of memory, and slots of 16 bytes tell where: a value that is found a million times takes
//! no more than one that is found once, and next to nothing beside its own bytes.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// Where a key lies, and how often it was counted.
#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u32,
    bytes: u32,
    count: u64,
}

impl Slot {
    fn key<'k>(&self, keys: &'k [u8]) -> &'k [u8] {
        &keys[self.start as usize..][..self.bytes as usize]
    }
}

/// What a place in the table takes: a slot and a byte, and as much as its slot where those are sorted, as seven of eight are used.
const PLACE_BYTES: usize = 16 + 1 + 14;

/// Counts of keys.
#[derive(Debug)]
pub(super) struct Tally {
    slots: HashTable<Slot>,
    slots_max: usize,
    keys: Vec<u8>,
    keys_bytes_max: usize,
    hasher: RandomState,
}

impl Tally {
    /// One of at most so many bytes, unless a single key takes more.
    pub(super) fn new(bytes_max: usize) -> Self {
        // Tables grow by doubling. Most values are shorter than what they take beside their own bytes.
        let places = (bytes_max / 5 * 3 / PLACE_BYTES + 1).next_power_of_two() / 2;
        let slots_max = (places / 8 * 7).max(1);
        // Where a key lies is told in 32 bits.
        let keys_bytes_max = (bytes_max - places * PLACE_BYTES).min(1 << 30);
        Self { slots: HashTable::new(), slots_max, keys: Vec::new(), keys_bytes_max, hasher: RandomState::default() }
    }

    /// Counts a key so many times. `false` if there is no room for it; then nothing was counted.
    pub(super) fn add(&mut self, key: &[u8], times: u64) -> bool {
        let Self { slots, keys, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        if let Some(slot) = slots.find_mut(hash, |slot| slot.key(keys) == key) {
            slot.count += times;
            return true;
        }
        let is_full = slots.len() == self.slots_max || keys.len() + key.len() > self.keys_bytes_max;
        if is_full && !slots.is_empty() {
            return false;
        }
        if keys.capacity() == 0 {
            // What is not used of it takes no memory; nothing is ever moved.
            keys.reserve_exact(self.keys_bytes_max.max(key.len()));
        }
        let length = |bytes: usize| u32::try_from(bytes).expect("keys take no more than 1 GiB");
        let slot = Slot { start: length(keys.len()), bytes: length(key.len()), count: times };
        keys.extend_from_slice(key);
        slots.insert_unique(hash, slot, |slot| hasher.hash_one(slot.key(keys)));
        true
    }

    /// Takes all keys and their counts out, in order.
    pub(super) fn take_sorted(&mut self, order: impl Fn(&[u8], &[u8]) -> Ordering) -> Sorted {
        let keys = std::mem::take(&mut self.keys);
        let mut slots: Vec<Slot> = std::mem::take(&mut self.slots).into_iter().collect();
        slots.sort_unstable_by(|a, b| order(a.key(&keys), b.key(&keys)));
        Sorted { keys, slots: slots.into_iter() }
    }
}

/// Keys and their counts, in order.
#[derive(Debug)]
pub(super) struct Sorted {
    keys: Vec<u8>,
    slots: std::vec::IntoIter<Slot>,
}

impl Iterator for Sorted {
    type Item = (Box<[u8]>, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.slots.next()?;
        Some((slot.key(&self.keys).into(), slot.count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_full_counts_what_it_knows_and_one_key_has_room_in_any_case() {
        let mut tally = Tally::new(8);
        assert!(tally.add(b"longer than all", 1));
        assert!(!tally.add(b"b", 1));
        assert!(tally.add(b"longer than all", 2));
        assert_eq!(tally.take_sorted(Ord::cmp).collect::<Vec<_>>(), [(Box::from(&b"longer than all"[..]), 3)]);
        assert!(tally.add(b"b", 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_and_nothing_counted_twice(keys in prop::collection::vec("[ab]{0,3}", 0..200), bytes_max in 0..4096usize) {
            let (mut tally, mut counted, mut expected) = (Tally::new(bytes_max), BTreeMap::new(), BTreeMap::new());
            let mut take = |tally: &mut Tally| {
                let taken: Vec<_> = tally.take_sorted(Ord::cmp).collect();
                assert!(taken.is_sorted());
                taken.into_iter().for_each(|(key, count)| *counted.entry(key).or_insert(0) += count);
            };
            for (times, key) in (1..).zip(&keys) {
                *expected.entry(Box::from(key.as_bytes())).or_insert(0) += times;
                if !tally.add(key.as_bytes(), times) {
                    take(&mut tally);
                    prop_assert!(tally.add(key.as_bytes(), times));
                }
            }
            take(&mut tally);
            prop_assert_eq!(counted, expected);
        }
    }
}

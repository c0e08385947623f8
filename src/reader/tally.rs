//! Keys and how often each was counted, in as much memory as is given.
//!
//! A value that is found a million times takes no more than one that is found once. Most keys are short, and lie with their count in
//! 32 bytes, so that to count one more is one place in memory beside a small index; the others stand one behind another. Where there are
//! many, their places are in no cache, and a processor waits for several at once where they are looked up one right after another: so short
//! keys are gathered first.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A key and how often it was counted.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Short,
    count: u64,
}

/// A key of at most 23 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Short(
    /// The key behind its length; or behind [`LONG`] where a longer one begins and how long it is.
    [u8; 24],
);

const LONG: u8 = u8::MAX;

impl Short {
    /// A key of two parts, of which the first has so many bytes; `None` if it is too long.
    #[inline]
    pub(super) fn of((head, head_bytes): ([u8; 8], usize), rest: &[u8]) -> Option<Self> {
        let mut short = [0; 24];
        short[1..9].copy_from_slice(&head);
        let length = head_bytes + rest.len();
        short[1..].get_mut(head_bytes..length)?.copy_from_slice(rest);
        short[0] = u8::try_from(length).ok()?;
        Some(Self(short))
    }

    fn new(key: &[u8]) -> Option<Self> {
        Self::of(([0; 8], 0), key)
    }
}

impl Slot {
    fn key<'k>(&'k self, keys: &'k [u8]) -> &'k [u8] {
        let Short(key) = &self.key;
        match key {
            [LONG, ..] => {
                let number = |at: usize| u32::from_le_bytes(key[at..at + 4].try_into().expect("4 bytes")) as usize;
                &keys[number(4)..][..number(8)]
            }
            [length, ..] => &key[1..=usize::from(*length)],
        }
    }
}

/// What a place in the table takes: a number of 4 bytes and a byte more, and a slot for seven of eight.
const PLACE_BYTES: usize = 5 + 28;

/// Counts of keys.
#[derive(Debug)]
pub(super) struct Tally {
    /// Numbers of slots.
    places: HashTable<u32>,
    slots: Vec<Slot>,
    slots_max: usize,
    /// Long ones.
    keys: Vec<u8>,
    keys_bytes_max: usize,
    gathered: Vec<Gathered>,
    hasher: RandomState,
}

/// A short key that was not looked up yet.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    hash: u64,
    slot: Slot,
}

const GATHERED_MAX: usize = 64;

impl Tally {
    /// One of at most so many bytes, unless a single key takes more.
    pub(super) fn new(bytes_max: usize) -> Self {
        // Tables grow by doubling. While they do they have half as much again, of numbers only.
        let places = (bytes_max / 3 * 2 / PLACE_BYTES + 1).next_power_of_two() / 2;
        let slots_max = (places / 8 * 7).max(1);
        // Where a key lies is told in 32 bits.
        let keys_bytes_max = (bytes_max - places * PLACE_BYTES).min(1 << 30);
        let (places, slots, keys, hasher) = (HashTable::new(), Vec::new(), Vec::new(), RandomState::default());
        Self { places, slots, slots_max, keys, keys_bytes_max, gathered: Vec::new(), hasher }
    }

    /// Counts a key so many times. `false` if there is no room for it; then nothing was counted.
    pub(super) fn add(&mut self, key: &[u8], times: u64) -> bool {
        if let Some(short) = Short::new(key) {
            return self.add_short(short, times);
        }
        let has_room = self.makes_room(key.len());
        if has_room {
            self.add_long(key, times);
        }
        has_room
    }

    /// As `add`.
    pub(super) fn add_short(&mut self, key: Short, times: u64) -> bool {
        let has_room = self.makes_room(0);
        if has_room {
            self.gathered.push(Gathered { hash: hash_short(&self.hasher, &key), slot: Slot { key, count: times } });
            if self.gathered.len() == GATHERED_MAX {
                self.settle();
            }
        }
        has_room
    }

    /// Whether there is room for a key, which takes so many bytes beside its slot.
    fn makes_room(&mut self, key_bytes: usize) -> bool {
        let is_full = self.slots.len() + self.gathered.len() >= self.slots_max
            || self.keys.len() + key_bytes > self.keys_bytes_max;
        if is_full && !(self.slots.is_empty() && self.gathered.is_empty()) {
            return false;
        }
        if self.slots.capacity() == 0 {
            // What is not used of them takes no memory, and nothing is ever moved.
            self.slots.reserve_exact(self.slots_max);
            self.keys.reserve_exact(self.keys_bytes_max.max(key_bytes));
            self.gathered.reserve_exact(GATHERED_MAX);
        }
        true
    }

    /// Counts what was gathered.
    fn settle(&mut self) {
        let Self { places, slots, keys, gathered, hasher, .. } = self;
        for Gathered { hash, slot } in gathered.drain(..) {
            match places.find(hash, |number| slots[*number as usize].key == slot.key) {
                Some(number) => slots[*number as usize].count += slot.count,
                None => insert(places, slots, keys, hasher, (hash, slot)),
            }
        }
    }

    fn add_long(&mut self, key: &[u8], times: u64) {
        let Self { places, slots, keys, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        let is_it = |slot: &Slot| slot.key.0[0] == LONG && slot.key(keys) == key;
        if let Some(number) = places.find(hash, |number| is_it(&slots[*number as usize])) {
            slots[*number as usize].count += times;
            return;
        }
        let mut long = [0; 24];
        long[0] = LONG;
        long[4..8].copy_from_slice(&number(keys.len()).to_le_bytes());
        long[8..12].copy_from_slice(&number(key.len()).to_le_bytes());
        keys.extend_from_slice(key);
        insert(places, slots, keys, hasher, (hash, Slot { key: Short(long), count: times }));
    }

    /// Takes all keys and their counts out, in order.
    pub(super) fn take_sorted(&mut self, order: impl Fn(&[u8], &[u8]) -> Ordering) -> Sorted {
        self.settle();
        let (mut slots, keys) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.keys));
        self.places = HashTable::new();
        slots.sort_unstable_by(|a, b| order(a.key(&keys), b.key(&keys)));
        Sorted { keys, slots: slots.into_iter() }
    }
}

fn insert(
    places: &mut HashTable<u32>,
    slots: &mut Vec<Slot>,
    keys: &[u8],
    hasher: &RandomState,
    (hash, slot): (u64, Slot),
) {
    slots.push(slot);
    places.insert_unique(hash, number(slots.len() - 1), |number| {
        let slot = &slots[*number as usize];
        if slot.key.0[0] == LONG { hasher.hash_one(slot.key(keys)) } else { hash_short(hasher, &slot.key) }
    });
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("there are no more than 1 Gi")
}

fn hash_short(hasher: &RandomState, key: &Short) -> u64 {
    let (words, _) = key.0.as_chunks();
    hasher.hash_one((u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]), u64::from_le_bytes(words[2])))
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
    fn what_is_full_takes_no_more_and_one_key_has_room_in_any_case() {
        let mut tally = Tally::new(8);
        let long = [b'a'; 99];
        assert!(tally.add(&long, 1));
        assert!(!tally.add(b"b", 1));
        assert_eq!(tally.take_sorted(Ord::cmp).collect::<Vec<_>>(), [(Box::from(long), 1)]);
        assert!(tally.add(b"b", 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_and_nothing_counted_twice(keys in prop::collection::vec("[ab]{0,3}|a{21,26}|[ab]b{30}", 0..200), bytes_max in 0..4096usize) {
            let (mut tally, mut counted, mut expected) = (Tally::new(bytes_max), BTreeMap::new(), BTreeMap::new());
            let mut take = |tally: &mut Tally| {
                let taken: Vec<_> = tally.take_sorted(Ord::cmp).collect();
                assert!(taken.is_sorted());
                for (key, count) in taken {
                    *counted.entry(key).or_insert(0) += count;
                }
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

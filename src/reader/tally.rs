//! Keys and how often each was counted, in as much memory as is given.
//!
//! A value that is found a million times takes no more than one that is found once. Most keys are short, and lie with their count in
//! 32 bytes, so that to count one more is one place in memory beside a small index; the others stand one behind another. Where there are
//! many, their places are in no cache, and a processor waits for several at once where they are looked up one right after another: so short
//! keys are gathered first. And where few keys are counted again and again, each is counted in a place of its own at hand.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A key: a number of at most 56 bits, and bytes.
pub(super) type Key<'k> = (u64, &'k [u8]);

/// A key and how often it was counted.
#[derive(Debug, Clone, Copy)]
struct Slot {
    key: Short,
    count: u64,
}

/// A key of at most 16 bytes beside its number. It is made and compared in registers: bytes that are written one by one can't be had
/// again at once as words.
#[derive(Debug, Clone, Copy)]
struct Short {
    /// The number, and in the lowest byte how many bytes there are, or [`LONG`].
    head: u64,
    /// The bytes, and zeros; or where those of a longer key begin and how many they are.
    bytes: [u64; 2],
}

const SHORT_BYTES_MAX: usize = 16;
const LONG: u8 = u8::MAX;

impl Short {
    #[inline]
    fn of((number, bytes): Key<'_>) -> Option<Self> {
        let length = u8::try_from(bytes.len()).ok().filter(|length| usize::from(*length) <= SHORT_BYTES_MAX)?;
        let eight = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        // The last bytes are those that are not among the first, where they are shifted by how many they share.
        let ends_of_eight = bytes.first_chunk().zip(bytes.last_chunk());
        let ends_of_four = bytes.first_chunk().zip(bytes.last_chunk());
        let padded = if let Some((first, last)) = ends_of_eight {
            let shared = 8 * (SHORT_BYTES_MAX - bytes.len());
            [eight(first), (eight(last) >> (shared / 2)) >> (shared - shared / 2)]
        } else if let Some((first, last)) = ends_of_four {
            [four(first) | (four(last) >> (8 * (8 - bytes.len()))) << 32, 0]
        } else {
            [bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0]
        };
        Some(Self { head: number << 8 | u64::from(length), bytes: padded })
    }

    #[inline]
    fn is(&self, other: &Self) -> bool {
        let [first, last] = [0, 1].map(|word| self.bytes[word] ^ other.bytes[word]);
        (self.head ^ other.head) | first | last == 0
    }
}

impl Slot {
    fn is_long(&self) -> bool {
        self.key.head.to_le_bytes()[0] == LONG
    }

    #[inline]
    fn is(&self, keys: &[u8], key: Key<'_>) -> bool {
        self.with_key(keys, |other| other == key)
    }

    /// Hands over the key.
    fn with_key<R>(&self, keys: &[u8], take: impl FnOnce(Key<'_>) -> R) -> R {
        let [length, ..] = self.key.head.to_le_bytes();
        let number = self.key.head >> 8;
        if length == LONG {
            let [start, length] = self.key.bytes.map(|place| usize::try_from(place).expect("it was one"));
            return take((number, &keys[start..start + length]));
        }
        let [first, last] = self.key.bytes;
        let bytes = (u128::from(last) << 64 | u128::from(first)).to_le_bytes();
        take((number, &bytes[..usize::from(length)]))
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
    /// For each slot of [`Tally::add`], [`RECENT`] keys that were counted there last, by a byte of their hashes.
    recent: Vec<Gathered>,
    /// Slots of long keys that were counted last, by a number that is made of a key's ends. Another key may be there by now, or none.
    recent_long: [u32; 1 << RECENT_LONG_BITS],
    hasher: RandomState,
}

/// A short key that was not looked up yet.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    hash: u64,
    slot: Slot,
}

impl Gathered {
    /// No short key is like this one.
    const NOTHING: Self =
        Self { hash: 0, slot: Slot { key: Short { head: u64::from_le_bytes([LONG; 8]), bytes: [0; 2] }, count: 0 } };
}

const GATHERED_MAX: usize = 64;
const RECENT: usize = 1 << u8::BITS;
const RECENT_LONG_BITS: u32 = 10;
/// What a slot of [`Tally::add`] takes beside what is given to a tally.
pub(super) const SLOT_BYTES: usize = RECENT * size_of::<Gathered>();

impl Tally {
    /// One of at most so many bytes, unless a single key takes more.
    pub(super) fn new(bytes_max: usize) -> Self {
        // Tables grow by doubling. While they do they have half as much again, of numbers only.
        let places = (bytes_max / 3 * 2 / PLACE_BYTES + 1).next_power_of_two() / 2;
        let slots_max = (places / 8 * 7).max(1);
        // Where a key lies is told in 32 bits.
        let keys_bytes_max = (bytes_max - places * PLACE_BYTES).min(1 << 30);
        let (places, slots, keys, hasher) = (HashTable::new(), Vec::new(), Vec::new(), RandomState::default());
        let (gathered, recent) = (Vec::new(), Vec::new());
        let recent_long = [u32::MAX; 1 << RECENT_LONG_BITS];
        Self { places, slots, slots_max, keys, keys_bytes_max, gathered, recent, recent_long, hasher }
    }

    /// Counts a key, that may well be like others that are counted in this slot. `false` if there is no room for it; then nothing was
    /// counted.
    #[inline]
    pub(super) fn add(&mut self, slot: usize, key: Key<'_>) -> bool {
        let Some(short) = Short::of(key) else { return self.add_long(key) };
        let hash = hash_short(&self.hasher, &short);
        let [place, ..] = hash.to_le_bytes();
        let at = slot * RECENT + usize::from(place);
        if let Some(recent) = self.recent.get_mut(at)
            && recent.slot.key.is(&short)
        {
            recent.slot.count += 1;
            return true;
        }
        self.replace_recent(at, Gathered { hash, slot: Slot { key: short, count: 1 } })
    }

    fn add_long(&mut self, key: Key<'_>) -> bool {
        let recent = self.recent_long[ends_of(key)] as usize;
        if let Some(slot) = self.slots.get_mut(recent).filter(|slot| slot.is(&self.keys, key)) {
            slot.count += 1;
            return true;
        }
        let has_room = self.makes_room(key.1.len());
        if has_room {
            self.recent_long[ends_of(key)] = self.count_long(key);
        }
        has_room
    }

    fn replace_recent(&mut self, at: usize, new: Gathered) -> bool {
        if self.recent.len() <= at {
            self.recent.resize((at / RECENT + 1) * RECENT, Gathered::NOTHING);
        }
        let has_room = self.recent[at].slot.count == 0 || self.gather(self.recent[at]);
        if has_room {
            self.recent[at] = new;
        }
        has_room
    }

    /// Counts one of those keys that are at hand in a slot; `None` if there are no more. `false` as of `add`.
    pub(super) fn add_recent(&mut self) -> Option<bool> {
        let last = *self.recent.last()?;
        let has_room = last.slot.count == 0 || self.gather(last);
        if has_room {
            self.recent.pop();
        }
        Some(has_room)
    }

    fn gather(&mut self, gathered: Gathered) -> bool {
        let has_room = self.makes_room(0);
        if has_room {
            self.gathered.push(gathered);
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
            match places.find(hash, |number| slots[*number as usize].key.is(&slot.key)) {
                Some(number) => slots[*number as usize].count += slot.count,
                None => _ = insert(places, slots, keys, hasher, (hash, slot)),
            }
        }
    }

    /// Counts a long key, and returns the number of its slot.
    fn count_long(&mut self, key: Key<'_>) -> u32 {
        let Self { places, slots, keys, hasher, .. } = self;
        let hash = hasher.hash_one(key);
        let known = places.find(hash, |number| slots[*number as usize].is(keys, key)).copied();
        if let Some(number) = known {
            slots[number as usize].count += 1;
            return number;
        }
        let (head, bytes) = key;
        let place = [keys.len(), bytes.len()].map(|place| place as u64);
        let key = Short { head: head << 8 | u64::from(LONG), bytes: place };
        keys.extend_from_slice(bytes);
        insert(places, slots, keys, hasher, (hash, Slot { key, count: 1 }))
    }

    /// Takes all keys and their counts out, in order, but those that are at hand in slots.
    pub(super) fn take_sorted(&mut self, order: impl Fn(Key<'_>, Key<'_>) -> Ordering) -> Sorted {
        self.settle();
        let (mut slots, keys) = (std::mem::take(&mut self.slots), std::mem::take(&mut self.keys));
        self.places = HashTable::new();
        slots.sort_unstable_by(|a, b| a.with_key(&keys, |a| b.with_key(&keys, |b| order(a, b))));
        Sorted { keys, slots: slots.into_iter() }
    }
}

/// Takes a new key, and returns the number of its slot.
fn insert(
    places: &mut HashTable<u32>,
    slots: &mut Vec<Slot>,
    keys: &[u8],
    hasher: &RandomState,
    (hash, slot): (u64, Slot),
) -> u32 {
    let number = number(slots.len());
    slots.push(slot);
    places.insert_unique(hash, number, |number| {
        let slot = &slots[*number as usize];
        if slot.is_long() { slot.with_key(keys, |key| hasher.hash_one(key)) } else { hash_short(hasher, &slot.key) }
    });
    number
}

/// A number that is made of a long key's ends, in which most others differ.
#[inline]
fn ends_of((number, bytes): Key<'_>) -> usize {
    let eight = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let ends = eight(bytes.first_chunk()) ^ eight(bytes.last_chunk()).rotate_left(29) ^ number ^ bytes.len() as u64;
    (ends.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - RECENT_LONG_BITS)) as usize
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("there are no more than 1 Gi")
}

#[inline]
fn hash_short(hasher: &RandomState, key: &Short) -> u64 {
    hasher.hash_one((key.head, key.bytes[0], key.bytes[1]))
}

/// Keys and their counts, in order.
#[derive(Debug)]
pub(super) struct Sorted {
    keys: Vec<u8>,
    slots: std::vec::IntoIter<Slot>,
}

impl Iterator for Sorted {
    type Item = (u64, Box<[u8]>, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = self.slots.next()?;
        Some(slot.with_key(&self.keys, |(number, bytes)| (number, bytes.into(), slot.count)))
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
        assert!(tally.add(0, (1, &long)));
        assert!(!tally.add(0, (2, &long)));
        assert_eq!(tally.take_sorted(|a, b| a.cmp(&b)).collect::<Vec<_>>(), [(1, Box::from(long), 1)]);
        assert!(tally.add(0, (2, &long)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_lost_and_nothing_counted_twice(
            keys in prop::collection::vec((prop_oneof![0..3_u64, Just((1 << 56) - 1)], "[ab]{0,3}|[a-z]{2}|[ab]{4,9}|a{14,18}|[ab]b{30}"), 0..400),
            bytes_max in 0..4096usize,
        ) {
            let (mut tally, mut counted, mut expected) = (Tally::new(bytes_max), BTreeMap::new(), BTreeMap::new());
            let mut take = |tally: &mut Tally| {
                let taken: Vec<_> = tally.take_sorted(|a, b| a.cmp(&b)).collect();
                assert!(taken.is_sorted());
                for (number, bytes, count) in taken {
                    *counted.entry((number, bytes)).or_insert(0) += count;
                }
            };
            for (slot, (number, bytes)) in keys.iter().enumerate() {
                *expected.entry((*number, Box::from(bytes.as_bytes()))).or_insert(0) += 1;
                if !tally.add(slot % 3, (*number, bytes.as_bytes())) {
                    take(&mut tally);
                    prop_assert!(tally.add(slot % 3, (*number, bytes.as_bytes())));
                }
            }
            while let Some(has_room) = tally.add_recent() {
                if !has_room {
                    take(&mut tally);
                }
            }
            take(&mut tally);
            prop_assert_eq!(counted, expected);
        }
    }
}

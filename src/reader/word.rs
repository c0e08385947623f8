//! A word of a text that is looked for in either case, over many lines at once.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, prelude::*, u8x64};

/// How many places are looked at at once: a bit of a word for each.
const PLACES: usize = 64;

/// A word to look for, ignoring ASCII case.
#[derive(Debug, Clone)]
pub(super) struct Word {
    level: Level,
    lower: Vec<u8>,
    /// Two of its first bytes that few lines hold: only where both are it is looked for.
    rare: [Rare; 2],
}

/// A byte of a word.
#[derive(Debug, Clone, Copy)]
struct Rare {
    /// Where it is in the word.
    at: usize,
    byte: u8,
    /// The bit in which the cases of a letter differ.
    case: u8,
}

/// How frequent a byte is, roughly: letters by their frequency in English; digits and the like are between them, and bytes beyond ASCII
/// rare.
pub(super) fn commonness(byte: u8) -> usize {
    let frequency = b"zjqxkvbypgwfmucdlhrsnioate".iter().position(|letter| *letter == byte);
    match byte {
        b'a'..=b'z' => frequency.unwrap_or_default(),
        b'0'..=b'9' | b'-' | b'/' | b'.' | b'_' | b',' | b':' | b' ' => 24,
        b'"' => 26,
        _ => 3,
    }
}

impl Word {
    /// How much of a word is compared at a place of a line, so that no line of like bytes takes long.
    const LOOK_BYTES_MAX: usize = 32;

    pub(super) fn new(word: &str) -> Self {
        let lower = word.to_ascii_lowercase().into_bytes();
        let looked_at = &lower[..lower.len().min(Self::LOOK_BYTES_MAX)];
        let mut places: Vec<usize> = (0..looked_at.len()).collect();
        places.sort_by_key(|at| commonness(looked_at[*at]));
        let rare = |nth: usize| {
            let at = *places.get(nth).or(places.first()).unwrap_or(&0);
            let byte = lower.get(at).copied().unwrap_or_default();
            Rare { at, byte, case: u8::from(byte.is_ascii_lowercase()) * 0x20 }
        };
        Self { level: Level::new(), rare: [rare(0), rare(1)], lower }
    }

    /// Whether the word is there.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        let is_found = self.find_start(bytes).is_some();
        if !self.is_long() {
            return is_found;
        }
        is_found && memchr::memmem::find(&bytes.to_ascii_lowercase(), &self.lower).is_some()
    }

    /// Whether it is longer than what is compared at a place.
    pub(super) fn is_long(&self) -> bool {
        self.lower.len() > Self::LOOK_BYTES_MAX
    }

    /// Where the word, which is not long, is each time.
    pub(super) fn each_in<'b>(&'b self, bytes: &'b [u8]) -> impl Iterator<Item = Range<usize>> + 'b {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = from + self.find_start(bytes.get(from..)?)?;
            from = start + 1;
            Some(start..start + self.lower.len())
        })
    }

    /// Where the word's first 32 bytes are next.
    pub(super) fn find_start(&self, bytes: &[u8]) -> Option<usize> {
        let start = &self.lower[..self.lower.len().min(Self::LOOK_BYTES_MAX)];
        if start.is_empty() {
            return Some(0);
        }
        let count = (bytes.len() + 1).checked_sub(start.len())?;
        let is_there = |at: usize| bytes[at..at + start.len()].eq_ignore_ascii_case(start);
        let places = count / PLACES * PLACES;
        let found = dispatch!(self.level, simd => find(simd, bytes, places, self.rare, is_there));
        found.or_else(|| (places..count).find(|at| self.may_be_at(bytes, *at) && is_there(*at)))
    }

    fn may_be_at(&self, bytes: &[u8], at: usize) -> bool {
        self.rare.iter().all(|rare| bytes[at + rare.at] | rare.case == rare.byte)
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "`dispatch` compiles it for each kind of processor")]
fn find<S: Simd>(
    simd: S,
    bytes: &[u8],
    places: usize,
    rare: [Rare; 2],
    is_there: impl Fn(usize) -> bool,
) -> Option<usize> {
    let [(ones, _), (others, _)] = rare.map(|rare| bytes[rare.at..rare.at + places].as_chunks::<PLACES>());
    for (number, pair) in ones.iter().zip(others).enumerate() {
        let is_byte = |chunk: &[u8; PLACES], rare: Rare| {
            let bytes: u8x64<S> = (*chunk).simd_into(simd);
            (bytes | rare.case).simd_eq(rare.byte)
        };
        let mut both = (is_byte(pair.0, rare[0]) & is_byte(pair.1, rare[1])).to_bitmask();
        while both != 0 {
            let at = number * PLACES + both.trailing_zeros() as usize;
            if is_there(at) {
                return Some(at);
            }
            both &= both - 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_word_is_found_where_a_simple_search_finds_it(
            word in "[abA0é]{0,3}|[abAB]{30,40}", before in "[abAB0@`é ]{0,200}", behind in "[ab ]{0,80}", is_there: bool,
        ) {
            let within = if is_there { word.to_uppercase() } else { String::new() };
            let text = [before, within, behind].concat();
            let lower = word.to_ascii_lowercase();
            let expected = text.to_ascii_lowercase().find(&lower);
            let found = Word::new(&word);
            prop_assert_eq!(found.is_in(text.as_bytes()), expected.is_some());
            let start = &lower.as_bytes()[..lower.len().min(32)];
            let lower = text.to_ascii_lowercase().into_bytes();
            let expected = (0..=lower.len()).find(|at| lower[*at..].starts_with(start));
            prop_assert_eq!(found.find_start(text.as_bytes()), expected);
        }
    }
}

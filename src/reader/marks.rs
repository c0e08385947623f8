//! A block of lines -> in one pass over its bytes, what tells lines and strings from one another.
//!
//! All that a look at a line asks of each of its bytes is asked here of 64 bytes at once: where lines end, where quotes
//! stand, whether brackets are in balance, and whether there is anything that no line of ours holds.

use std::ops::{Range, RangeInclusive};

use fearless_simd::{Level, Simd, dispatch, prelude::*, u8x64};

use super::record::utf8;

/// How many bytes are looked at at once: a bit of a word for each.
const BYTES: usize = 64;

/// What was seen of a block of lines.
#[derive(Debug)]
pub(super) struct Marks {
    level: Level,
    seen: Words,
    is_text: bool,
}

/// A line of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MarkedLine {
    /// Where it begins in the block.
    pub(super) start: usize,
    /// Where its newline is.
    pub(super) end: usize,
    /// It closes as many brackets as it opens, none is opened right behind one that was closed, as where a second line's beginning is in
    /// it, and it holds no control character. Brackets in strings count, too: the full parser knows better.
    pub(super) is_even: bool,
    /// A quote in it may be no end of a string.
    pub(super) has_backslash: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Self { level: Level::new(), seen: Words::default(), is_text: true }
    }
}

impl Marks {
    /// Looks at a block of whole lines, each with its newline, of less than 1 GiB. `false` if it has so many lines that what is written
    /// down of them would take too much memory; then not all were seen.
    #[must_use]
    pub(super) fn read(&mut self, block: &[u8]) -> bool {
        assert!(block.len() < 1 << PLACE_BITS, "no buffer is so long");
        let is_whole = dispatch!(self.level, simd => self.seen.read(simd, block));
        self.is_text = self.seen.is_text(block);
        is_whole
    }

    /// How many lines there are in the block.
    pub(super) fn count(&self) -> usize {
        self.seen.ends.len()
    }

    /// The lines of the block, in its order.
    #[cfg(test)]
    pub(super) fn lines(&self) -> impl Iterator<Item = MarkedLine> {
        (0..self.count()).map(|number| self.line(number))
    }

    /// A line of the block, by its number.
    #[inline]
    pub(super) fn line(&self, number: usize) -> MarkedLine {
        let place = |end: u32| (end & (UNEVEN - 1)) as usize;
        let end = self.seen.ends[number];
        let start = number.checked_sub(1).map_or(0, |before| place(self.seen.ends[before]) + 1);
        MarkedLine { start, end: place(end), is_even: end & UNEVEN == 0, has_backslash: end & BACKSLASH != 0 }
    }

    /// Whether all of the block is UTF-8.
    pub(super) fn is_text(&self) -> bool {
        self.is_text
    }

    /// Where the first quote is at or behind a place in the block, if it is near, and no backslash is before it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is asked for each string of each line")]
    pub(super) fn near_quote(&self, at: usize) -> Option<usize> {
        let quotes = near(&self.seen.quotes, at)?;
        let before = (quotes & quotes.wrapping_neg()).wrapping_sub(1);
        let is_end = quotes != 0 && near(&self.seen.backslashes, at)? & before == 0;
        is_end.then(|| at + quotes.trailing_zeros() as usize)
    }

    /// How far behind its quote a byte of a string may be for [`Marks::each_string`].
    pub(super) const BEHIND: RangeInclusive<usize> = 1..=BYTES - 1;

    /// Hands over, in the order of the block that was read, each quote behind which a byte stands at such a distance.
    #[inline]
    pub(super) fn each_string(&self, block: &[u8], (byte, behind): (u8, usize), mut found: impl FnMut(usize)) {
        assert!(Self::BEHIND.contains(&behind), "two words tell of no more");
        dispatch!(self.level, simd => each_string(simd, (block, &self.seen.quotes), (byte, behind), &mut found));
    }

    /// Where the first quote or backslash is at or behind a place in the block; behind all of it if there is none.
    pub(super) fn stop_from(&self, mut at: usize) -> usize {
        loop {
            match near(&self.seen.quotes, at).zip(near(&self.seen.backslashes, at)) {
                Some((0, 0)) => at += BYTES,
                Some((quotes, backslashes)) => return at + (quotes | backslashes).trailing_zeros() as usize,
                None => return usize::MAX,
            }
        }
    }

    /// Hands over, in the order of the block, where backslashes are.
    pub(super) fn each_backslash(&self, mut found: impl FnMut(usize)) {
        let (tiles, _) = self.seen.backslashes.as_chunks();
        dispatch!(self.level, _ => tiles.iter().enumerate().for_each(|(number, tile)| each_place(number, tile, &mut found)));
    }

    /// Where backslashes are in a part of the block.
    pub(super) fn backslashes(&self, part: Range<usize>) -> impl Iterator<Item = usize> {
        let words = part.start / BYTES..part.end.div_ceil(BYTES);
        let places = words.flat_map(|word| {
            let mut left = self.seen.backslashes[word];
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(word * BYTES + bit)
            })
        });
        places.filter(move |at| part.contains(at))
    }
}

/// Where strings end in a text that lies in a block, if that was seen: a help, on which no answer depends.
#[derive(Clone, Copy, Default)]
pub(super) struct Strings<'b> {
    /// The block's, and where the text begins in it.
    seen: Option<(&'b Marks, usize)>,
    has_no_backslash: bool,
}

impl<'b> Strings<'b> {
    /// Those of a text in a line, which begins there in the block.
    pub(super) fn at(marks: &'b Marks, line: &MarkedLine, start: usize) -> Self {
        Self { seen: Some((marks, start)), has_no_backslash: !line.has_backslash }
    }

    /// Whether it is known that no `\uXXXX` spells a character in the text from a place on.
    pub(super) fn has_no_unicode_escape(self, text: &str, from: usize) -> bool {
        let none_is_seen = |(marks, start): (&Marks, usize)| {
            let mut behind = marks.backslashes(start + from..start + text.len()).map(|at| at + 1 - start);
            !behind.any(|at| text.as_bytes().get(at) == Some(&b'u'))
        };
        self.has_no_backslash || self.seen.is_some_and(none_is_seen)
    }

    /// Where the string ends that begins at a place in the text, behind its quote, if that is near and no escape is in it.
    #[inline]
    pub(super) fn near_end(self, at: usize) -> Option<usize> {
        let (marks, start) = self.seen?;
        marks.near_quote(start + at).map(|end| end - start)
    }
}

impl PartialEq for Strings<'_> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Strings<'_> {}

impl std::fmt::Debug for Strings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Strings").finish_non_exhaustive()
    }
}

/// As many bits as a word has, from a place on.
#[inline]
fn near(words: &[u64], at: usize) -> Option<u64> {
    let (word, bit) = (at / BYTES, at % BYTES);
    // Behind all bytes of a block is a word without any.
    let [first, second] = words.get(word..)?.first_chunk()?;
    Some(first >> bit | (second << 1) << (BYTES - 1 - bit))
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "`dispatch` compiles it for each kind of processor")]
fn each_string<S: Simd>(
    simd: S,
    (block, quotes): (&[u8], &[u64]),
    (byte, behind): (u8, usize),
    found: &mut impl FnMut(usize),
) {
    let (tiles, rest) = block.as_chunks::<{ WORDS * BYTES }>();
    let mut last = [b' '; WORDS * BYTES];
    last[..rest.len()].copy_from_slice(rest);
    let (tiles_quotes, _) = quotes.as_chunks::<WORDS>();
    let (mut places, mut quotes) = ([0; WORDS], [0; 1 + WORDS]);
    for (number, (bytes, tile_quotes)) in tiles.iter().chain([&last]).zip(tiles_quotes).enumerate() {
        let (words, _) = bytes.as_chunks::<BYTES>();
        for (places, bytes) in places.iter_mut().zip(words) {
            let bytes: u8x64<S> = (*bytes).simd_into(simd);
            *places = bytes.simd_eq(byte).to_bitmask();
        }
        quotes[0] = quotes[WORDS];
        quotes[1..].copy_from_slice(tile_quotes);
        for word in 0..WORDS {
            places[word] &= quotes[1 + word] << behind | quotes[word] >> (BYTES - behind);
        }
        each_place(number, &places, |at| found(at - behind));
    }
}

/// Hands over the places in the block that the bits of a tile's words tell.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
fn each_place(tile: usize, words: &[u64; WORDS], mut found: impl FnMut(usize)) {
    let mut has_place = 0;
    for (word, places) in words.iter().enumerate() {
        has_place |= u64::from(*places != 0) << word;
    }
    while has_place != 0 {
        let word = has_place.trailing_zeros() as usize;
        let mut places = words[word];
        while places != 0 {
            found((tile * WORDS + word) * BYTES + places.trailing_zeros() as usize);
            places &= places - 1;
        }
        has_place &= has_place - 1;
    }
}

/// A number of [`Words::ends`] tells of a place in its lower bits.
const PLACE_BITS: u32 = 30;
const UNEVEN: u32 = 1 << PLACE_BITS;
const BACKSLASH: u32 = UNEVEN << 1;

/// How many bytes are gathered; where there are more, the whole block is looked at again.
const GATHERED_MAX: usize = 64 << 10;

/// About how many lines are written down. In a block with more of them most are no longer than a few bytes: they are no records.
const LINES_MAX: usize = 32 << 10;

/// What is written down of a block; none of it shrinks. Of the longest one, a line of 2 MiB and what is read at once, it takes 0.9 MiB.
#[derive(Debug, Default)]
struct Words {
    /// Where quotes are.
    quotes: Vec<u64>,
    backslashes: Vec<u64>,
    /// Where newlines are; and whether the line before is [`UNEVEN`] or has a [`BACKSLASH`].
    ends: Vec<u32>,
    /// The words that are not all ASCII, spaces between those that do not stand together: only in these may be what is not UTF-8.
    gathered: Vec<u8>,
    /// The last word was gathered.
    ends_gathered: bool,
}

/// How many words are seen before it is written down what they mean.
const WORDS: usize = 64;

/// What is seen of words that stand together: a bit for each byte, and a bit for each word.
#[derive(Debug)]
struct Tile {
    opening: [u64; WORDS],
    /// Those of the word before stand first.
    closing: [u64; 1 + WORDS],
    newlines: [u64; WORDS],
    beyond_ascii: [u64; WORDS],
    /// What was counted before each word, and with the last.
    before: [Counted; WORDS],
    counted: Counted,
    has_newline: u64,
    is_not_ascii: u64,
    /// There are control characters but newlines, or brackets that are opened right behind one that was closed: in hardly any.
    has_odd: bool,
}

/// How many brackets are open, in the lower half, and backslashes were seen, in the upper one; from wherever.
#[derive(Debug, Clone, Copy, Default)]
struct Counted(u64);

impl Counted {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn and(self, opening: u64, closing: u64, backslashes: u64) -> Self {
        let count = |bits: u64| u64::from(bits.count_ones());
        Self(self.0.wrapping_add(count(opening) + (count(backslashes) << 32)).wrapping_sub(count(closing)))
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// Whether there were as many closed as opened since, and whether there was a backslash: no more than a line is long.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn since(self, before: Self) -> (bool, bool) {
        let more = self.0.wrapping_sub(before.0);
        // What is less than nothing has borrowed from the upper half.
        let open = (more << 32).cast_signed() >> 32;
        (open == 0, more != open.cast_unsigned())
    }
}

/// A line that has begun.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    /// What was counted before it.
    counted: Counted,
    is_odd: bool,
}

impl Words {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "`dispatch` compiles it for each kind of processor")]
    fn read<S: Simd>(&mut self, simd: S, block: &[u8]) -> bool {
        let (tiles, rest) = block.as_chunks::<{ WORDS * BYTES }>();
        // Behind the last newline is nothing.
        let mut last = [b' '; WORDS * BYTES];
        last[..rest.len()].copy_from_slice(rest);
        for words in [&mut self.quotes, &mut self.backslashes] {
            words.resize((tiles.len() + 1) * WORDS, 0);
            words.push(0);
        }
        self.ends.clear();
        self.gathered.clear();
        self.ends_gathered = false;
        let (mut tile, mut begun, mut start) = (Tile::default(), Begun::default(), 0);
        let ((quotes, _), (backslashes, _)) = (self.quotes.as_chunks_mut(), self.backslashes.as_chunks_mut());
        for (bytes, (quotes, backslashes)) in tiles.iter().chain([&last]).zip(quotes.iter_mut().zip(backslashes)) {
            tile.see(simd, bytes, quotes, backslashes);
            tile.write_lines((start, bytes), backslashes, &mut begun, &mut self.ends);
            if self.ends.len() > LINES_MAX {
                return false;
            }
            if self.gathered.len() <= GATHERED_MAX {
                tile.gather(bytes, &mut self.gathered, &mut self.ends_gathered);
            }
            start += WORDS * BYTES;
        }
        true
    }

    fn is_text(&self, block: &[u8]) -> bool {
        let is_all = self.gathered.len() <= GATHERED_MAX;
        utf8(if is_all { &self.gathered } else { block }).is_some()
    }
}

impl Default for Tile {
    fn default() -> Self {
        let [opening, newlines, beyond_ascii] = [[0; WORDS]; 3];
        let (closing, before, counted) = ([0; 1 + WORDS], [Counted::default(); WORDS], Counted::default());
        let ([has_newline, is_not_ascii], has_odd) = ([0; 2], false);
        Self { opening, closing, newlines, beyond_ascii, before, counted, has_newline, is_not_ascii, has_odd }
    }
}

impl Tile {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn see<S: Simd>(
        &mut self,
        simd: S,
        bytes: &[u8; WORDS * BYTES],
        quotes: &mut [u64; WORDS],
        backslashes: &mut [u64; WORDS],
    ) {
        let (words, _) = bytes.as_chunks::<BYTES>();
        let mut least = u8x64::splat(simd, u8::MAX);
        self.closing[0] = self.closing[WORDS];
        for (word, bytes) in words.iter().enumerate() {
            let bytes: u8x64<S> = (*bytes).simd_into(simd);
            quotes[word] = bytes.simd_eq(b'"').to_bitmask();
            backslashes[word] = bytes.simd_eq(b'\\').to_bitmask();
            // The two kinds of brackets differ in this bit.
            let brackets = bytes | 0x20;
            self.opening[word] = brackets.simd_eq(b'{').to_bitmask();
            self.closing[1 + word] = brackets.simd_eq(b'}').to_bitmask();
            self.newlines[word] = bytes.simd_eq(b'\n').to_bitmask();
            self.beyond_ascii[word] = bytes.simd_ge(0x80).to_bitmask();
            // What was a newline is the greatest number of all then, and other control characters are the smallest.
            least = least.min((bytes ^ b'\n') - 1);
        }
        // What follows from masks alone is worked out apart from them: the compiler does it for several words at once.
        let mut touching = 0;
        for word in 0..WORDS {
            touching |= self.opening[word] & (self.closing[1 + word] << 1 | self.closing[word] >> (BYTES - 1));
        }
        self.has_odd = touching != 0 || least.simd_lt(b' ' - 1).any_true();
        (self.has_newline, self.is_not_ascii) = (0, 0);
        let mut counts = [Counted::default(); WORDS];
        for word in 0..WORDS {
            self.has_newline |= u64::from(self.newlines[word] != 0) << word;
            self.is_not_ascii |= u64::from(self.beyond_ascii[word] != 0) << word;
            counts[word] = Counted::default().and(self.opening[word], self.closing[1 + word], backslashes[word]);
        }
        // Of four words at once: each sum has to wait for the one before.
        let ((befores, _), (counts, _)) = (self.before.as_chunks_mut(), counts.as_chunks());
        for (before, [first, second, third, fourth]) in befores.iter_mut().zip(counts) {
            let (two, last_two) = (first.plus(*second), third.plus(*fourth));
            let counted = self.counted;
            *before = [counted, counted.plus(*first), counted.plus(two), counted.plus(two.plus(*third))];
            self.counted = counted.plus(two.plus(last_two));
        }
    }

    /// Writes down the lines that end here; `begun` is the line that has begun before.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn write_lines(
        &self,
        (start, bytes): (usize, &[u8; WORDS * BYTES]),
        backslashes: &[u64; WORDS],
        begun: &mut Begun,
        ends: &mut Vec<u32>,
    ) {
        let (mut words, mut from) = (self.has_newline, 0);
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            let place = u32::try_from(start + word * BYTES).expect("blocks are shorter");
            let mut newlines = self.newlines[word];
            while newlines != 0 {
                let line = (newlines & newlines.wrapping_neg()) - 1;
                let (opening, closing) = (self.opening[word] & line, self.closing[1 + word] & line);
                let counted = self.before[word].and(opening, closing, backslashes[word] & line);
                let bit = newlines.trailing_zeros();
                if self.has_odd {
                    let until = word * BYTES + bit as usize;
                    begun.is_odd |= self.is_odd(bytes, from..until);
                    from = until;
                }
                let end = place + bit;
                let (is_even, has_backslash) = counted.since(begun.counted);
                let is_uneven = u32::from(begun.is_odd || !is_even);
                ends.push(end | is_uneven << PLACE_BITS | u32::from(has_backslash) << (PLACE_BITS + 1));
                *begun = Begun { counted, is_odd: false };
                newlines &= newlines - 1;
            }
            words &= words - 1;
        }
        if self.has_odd {
            begun.is_odd |= self.is_odd(bytes, from..WORDS * BYTES);
        }
    }

    /// Whether there is something odd in a part of a line.
    #[cold]
    fn is_odd(&self, bytes: &[u8; WORDS * BYTES], part: Range<usize>) -> bool {
        let is_behind_closed = |at: usize| match at.checked_sub(1) {
            Some(before) => matches!(bytes[before], b'}' | b']'),
            None => self.closing[0] >> (BYTES - 1) == 1,
        };
        part.into_iter().any(|at| match bytes[at] {
            b'{' | b'[' => is_behind_closed(at),
            byte => byte < b' ' && byte != b'\n',
        })
    }

    /// Gathers the words that are not all ASCII.
    fn gather(&self, bytes: &[u8; WORDS * BYTES], gathered: &mut Vec<u8>, ends_gathered: &mut bool) {
        let (words, _) = bytes.as_chunks::<BYTES>();
        let mut left = self.is_not_ascii;
        let mut next = if *ends_gathered { 0 } else { usize::MAX };
        while left != 0 {
            let word = left.trailing_zeros() as usize;
            if word != next {
                gathered.push(b' ');
            }
            gathered.extend_from_slice(&words[word]);
            next = word + 1;
            left &= left - 1;
        }
        *ends_gathered = next == WORDS;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block's lines, as a look at one byte after the other tells them.
    fn lines(block: &[u8]) -> Vec<MarkedLine> {
        let mut lines = Vec::new();
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            let start = lines.last().map_or(0, |line: &MarkedLine| line.end + 1);
            let line = &line[..line.len() - 1];
            let of = |bytes: &[u8; 2]| line.iter().filter(|byte| bytes.contains(byte)).count();
            let is_odd = line.iter().any(|byte| *byte < b' ')
                || line.windows(2).any(|pair| matches!(pair, [b'}' | b']', b'{' | b'[']));
            lines.push(MarkedLine {
                start,
                end: start + line.len(),
                is_even: of(b"{[") == of(b"}]") && !is_odd,
                has_backslash: line.contains(&b'\\'),
            });
        }
        lines
    }

    fn any_block() -> impl Strategy<Value = Vec<u8>> {
        // Long runs of what says nothing bring the others to every place of a word and of a tile.
        let filler = prop_oneof![Just(b'a'), Just(b' '), Just(b'7')];
        let run = (filler, 0..400_usize).prop_map(|(byte, length)| vec![byte; length]);
        let text = prop::sample::select(vec![
            "\"",
            "{",
            "}",
            "[",
            "]",
            "\\",
            "\n",
            "{}",
            "}{",
            "][",
            "{\"a\":[]}",
            "\\\"",
            "é",
            "李小龙",
            "🦀",
            "\t",
            "\u{0}",
            "\n\n",
        ]);
        let text = text.prop_map(|text| text.as_bytes().to_vec());
        let no_text = any::<u8>().prop_map(|byte| vec![byte | 0x80]);
        let part = prop_oneof![4 => run, 12 => text, 1 => no_text];
        prop::collection::vec(part, 0..120).prop_map(|parts| [parts.concat(), b"\n".to_vec()].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_seen_at_once_is_what_is_seen_byte_by_byte(blocks in prop::collection::vec(any_block(), 1..4)) {
            let mut marks = Marks::default();
            for block in blocks {
                prop_assert!(marks.read(&block));
                prop_assert_eq!(marks.lines().collect::<Vec<_>>(), lines(&block));
                prop_assert_eq!(marks.is_text(), std::str::from_utf8(&block).is_ok());
                for at in 0..block.len() {
                    let stop = |byte: &u8| matches!(byte, b'"' | b'\\');
                    let near = block[at..].iter().take(BYTES).position(stop).map(|near| at + near);
                    let near = near.filter(|near| block[*near] == b'"');
                    prop_assert_eq!(marks.near_quote(at), near, "{}", at);
                    let stop = block[at..].iter().position(stop).map_or(block.len(), |stop| at + stop);
                    prop_assert_eq!(marks.stop_from(at).min(block.len()), stop, "{}", at);
                }
                for line in marks.lines() {
                    let backslashes = (line.start..line.end).filter(|at| block[*at] == b'\\');
                    prop_assert!(marks.backslashes(line.start..line.end).eq(backslashes), "{:?}", line);
                }
            }
        }
    }

    #[test]
    fn a_character_is_whole_where_words_and_tiles_meet_and_only_there() {
        let mut marks = Marks::default();
        for word in [BYTES, (WORDS - 1) * BYTES, WORDS * BYTES] {
            for behind in [0, BYTES] {
                let mut block = vec![b'a'; 2 * WORDS * BYTES];
                block[word - 2..word].copy_from_slice(&"€".as_bytes()[..2]);
                block[word + behind] = "€".as_bytes()[2];
                block.push(b'\n');
                assert!(marks.read(&block));
                assert_eq!(marks.is_text(), behind == 0);
            }
        }
    }

    #[test]
    fn text_is_told_however_much_of_it_is_not_ascii() {
        let mut marks = Marks::default();
        for repeated in [10, GATHERED_MAX / 9, GATHERED_MAX] {
            let mut block = "李小龙".repeat(repeated).into_bytes();
            block.push(b'\n');
            assert!(marks.read(&block) && marks.is_text());
            // A character's last byte becomes a letter.
            block[repeated * 9 - 1] = b'a';
            assert!(marks.read(&block) && !marks.is_text());
        }
    }

    #[test]
    fn what_is_written_down_of_lines_is_bounded() {
        let mut marks = Marks::default();
        assert!(marks.read(&vec![b'\n'; LINES_MAX]));
        assert!(!marks.read(&vec![b'\n'; 2 << 20]));
        assert!(marks.seen.ends.capacity() <= 2 * LINES_MAX);
        assert!(marks.read(b"{}\n") && marks.count() == 1);
    }
}

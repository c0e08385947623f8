//! A block of lines -> in one pass over its bytes, what tells lines and strings from one another.
//!
//! All that a look at a line asks of each of its bytes is asked here of 64 bytes at once: where lines end, where quotes
//! stand, whether brackets are in balance, and whether there is anything that no line of ours holds.

use fearless_simd::{Level, Simd, dispatch, prelude::*, u8x64};

/// How many bytes are looked at at once: a bit of a word for each.
const BYTES: usize = 64;

/// What was seen of a block of lines.
#[derive(Debug)]
pub(super) struct Marks {
    level: Level,
    quotes: Vec<u64>,
    lines: Vec<MarkedLine>,
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
        Self { level: Level::new(), quotes: Vec::new(), lines: Vec::new() }
    }
}

impl Marks {
    /// Looks at a block of whole lines, each with its newline.
    pub(super) fn read(&mut self, block: &[u8]) {
        let Self { level, quotes, lines } = self;
        lines.clear();
        quotes.resize(block.len().div_ceil(BYTES), 0);
        dispatch!(*level, simd => read(simd, block, quotes, lines));
    }

    /// The lines of the block, in its order.
    pub(super) fn lines(&self) -> &[MarkedLine] {
        &self.lines
    }

    /// Where the first quote is at or behind a place in the block; the end of all words if there is none.
    #[inline]
    pub(super) fn quote_from(&self, at: usize) -> usize {
        let (mut word, bit) = (at / BYTES, at % BYTES);
        let mut quotes = self.quotes.get(word).map_or(0, |quotes| quotes >> bit << bit);
        while quotes == 0 {
            word += 1;
            match self.quotes.get(word) {
                Some(next) => quotes = *next,
                None => return self.quotes.len() * BYTES,
            }
        }
        word * BYTES + quotes.trailing_zeros() as usize
    }
}

/// What has been seen of the present line.
#[derive(Default)]
struct Seen {
    depth: i32,
    odd: u64,
    backslashes: u64,
}

/// The bits of 64 bytes.
struct Bits {
    opening: u64,
    closing: u64,
    /// Control characters but newlines, and brackets that are opened right behind one that was closed.
    odd: u64,
    backslashes: u64,
}

impl Seen {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is compiled for the processor that its caller is for")]
    fn add(&mut self, bits: &Bits, among: u64) {
        let count = |bits: u64| (bits & among).count_ones().cast_signed();
        self.depth += count(bits.opening) - count(bits.closing);
        self.odd |= bits.odd & among;
        self.backslashes |= bits.backslashes & among;
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "`dispatch` compiles it for each kind of processor")]
fn read<S: Simd>(simd: S, block: &[u8], quotes: &mut [u64], lines: &mut Vec<MarkedLine>) {
    let (chunks, tail) = block.as_chunks::<BYTES>();
    // Behind the last newline is nothing.
    let mut last = [b' '; BYTES];
    last[..tail.len()].copy_from_slice(tail);
    let last = (!tail.is_empty()).then_some(&last);
    let (mut seen, mut start, mut closed_before) = (Seen::default(), 0, 0);
    for (number, (chunk, quotes)) in chunks.iter().chain(last).zip(quotes).enumerate() {
        let bytes: u8x64<S> = (*chunk).simd_into(simd);
        *quotes = bytes.simd_eq(b'"').to_bitmask();
        // The two kinds of brackets differ in this bit.
        let brackets = bytes | 0x20;
        let (opening, closing) = (brackets.simd_eq(b'{').to_bitmask(), brackets.simd_eq(b'}').to_bitmask());
        let mut newlines = bytes.simd_eq(b'\n').to_bitmask();
        let odd = bytes.simd_lt(b' ').to_bitmask() & !newlines | opening & (closing << 1 | closed_before);
        closed_before = closing >> (BYTES - 1);
        let backslashes = bytes.simd_eq(b'\\').to_bitmask();
        let bits = Bits { opening, closing, odd, backslashes };
        let mut left = u64::MAX;
        while newlines != 0 {
            let newline = newlines & newlines.wrapping_neg();
            seen.add(&bits, left & (newline - 1));
            let end = number * BYTES + newline.trailing_zeros() as usize;
            let (is_even, has_backslash) = (seen.depth == 0 && seen.odd == 0, seen.backslashes != 0);
            lines.push(MarkedLine { start, end, is_even, has_backslash });
            (seen, start) = (Seen::default(), end + 1);
            left &= !(newline | (newline - 1));
            newlines &= newlines - 1;
        }
        seen.add(&bits, left);
    }
}

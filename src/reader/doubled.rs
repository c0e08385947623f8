//! A text -> the same with each of its quotes twice, as CSV has it.

use std::sync::LazyLock;

use fearless_simd::{Level, Simd, dispatch, prelude::*, u8x16};

/// How many bytes are looked at at once, and of how many a table tells what becomes of them.
const BYTES: usize = 16;
const HALF: usize = BYTES / 2;

/// Which of eight bytes come one behind another, by which of them are quotes: a quote comes twice.
static ORDERS: [[u8; BYTES]; 1 << HALF] = {
    let mut orders = [[0; BYTES]; 1 << HALF];
    let mut quotes = 0;
    while quotes < orders.len() {
        let (mut byte, mut at) = (0, 0);
        while (byte as usize) < HALF {
            let mut times = 1 + (quotes >> byte & 1);
            while times > 0 {
                orders[quotes][at] = byte;
                at += 1;
                times -= 1;
            }
            byte += 1;
        }
        quotes += 1;
    }
    orders
};

/// Appends a text with each of its quotes twice. Quotes are too many to be guessed: there is no branch for any.
pub(super) fn write_doubled(text: &[u8], out: &mut Vec<u8>) {
    static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);
    let begun = out.len();
    let doubled = text.len() + memchr::memchr_iter(b'"', text).count();
    // More is written than is kept.
    out.resize(begun + doubled + 2 * BYTES, 0);
    let room = &mut out[begun..];
    let written = dispatch!(*LEVEL, simd => write(simd, text, room));
    debug_assert_eq!(written, doubled);
    out.truncate(begun + doubled);
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "`dispatch` compiles it for each kind of processor")]
fn write<S: Simd>(simd: S, text: &[u8], room: &mut [u8]) -> usize {
    let (chunks, tail) = text.as_chunks::<BYTES>();
    let mut last = [0; BYTES];
    last[..tail.len()].copy_from_slice(tail);
    let mut written = 0;
    for chunk in chunks.iter().chain([&last]) {
        let bytes: u8x16<S> = (*chunk).simd_into(simd);
        let quotes = bytes.simd_eq(b'"').to_bitmask();
        let mut write = |quotes: u64, first: u8| {
            let order: u8x16<S> = ORDERS[usize::from(quotes.to_le_bytes()[0])].simd_into(simd);
            let ordered: [u8; BYTES] = bytes.swizzle_dyn(order + first).into();
            room[written..written + BYTES].copy_from_slice(&ordered);
            written += HALF + (quotes & 0xFF).count_ones() as usize;
        };
        write(quotes, 0);
        write(quotes >> HALF, 8);
    }
    written - (BYTES - tail.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_quote_comes_twice_and_nothing_else_is_different(text in "([\"a-h\u{0}é]|[\"]{0,9}){0,60}", before in "[a\"]{0,3}") {
            let mut out = before.clone().into_bytes();
            write_doubled(text.as_bytes(), &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), before + &text.replace('"', "\"\""));
        }
    }
}

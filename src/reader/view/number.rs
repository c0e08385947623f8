//! A number for each record that grows with time, for systems whose records have one.

use crate::reader::field::Place;
use crate::record::Timestamp;

/// 2020-01-01T00:00:00.000Z.
const EPOCH_MS: i64 = 1_577_836_800_000;
/// Numbers of one millisecond.
const PER_MS: i64 = 1 << 12;

/// The number of a record: its time, and within a millisecond, where it lies.
///
/// Of two records the one of a later millisecond has the greater number. Within one, 4,096 lines that follow each other in a segment have
/// numbers of their own; those of two segments may be the same, with a chance of 1 in 4,096. It is the same whenever it is asked for, and below 2^53,
/// so that every reader of JSON keeps it whole, until 2089.
pub(super) fn of(ts: Timestamp, place: &Place<'_>) -> i64 {
    // FNV-1a of 32 bits (draft-eastlake-fnv): the same in every version of the program.
    let hash =
        place.segment.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let within = u64::from(hash).wrapping_add(place.index).cast_signed().rem_euclid(PER_MS);
    (ts.millis() - EPOCH_MS) * PER_MS + within
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64, segment: &str, index: u64) -> i64 {
        of(Timestamp::from_millis(millis), &Place { segment, index, rank: 0 })
    }

    #[test]
    fn lines_of_a_batch_have_numbers_of_their_own() {
        let numbers: BTreeSet<_> = (5..5 + 4096).map(|index| at(1_769_591_564_381, "audit-0.jsonl", index)).collect();
        assert_eq!(numbers.len(), 4096);
        assert_eq!(at(1_769_591_564_381, "audit-0.jsonl", 5), at(1_769_591_564_381, "audit-0.jsonl", 5 + 4096));
    }

    #[test]
    fn every_reader_of_json_keeps_it_whole_until_2089() {
        assert!(at(3_776_000_000_000, "s", 4095) < 1 << 53);
        assert!(at(0, "s", 0) > -(1 << 53));
        assert_eq!(at(EPOCH_MS, "", 0), 0x9dc5 % PER_MS);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_grows_with_every_millisecond(ms in 0..Timestamp::MAX.millis(), a in ".*", b in ".*", i: u64, j: u64) {
            prop_assert!(at(ms, &a, i) < at(ms + 1, &b, j));
        }
    }
}

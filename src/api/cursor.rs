//! Where a page ends and the next one begins.
//!
//! A cursor holds nothing that its holder may not know, and nothing that widens what they may see: the scope always comes from the
//! token. It names the snapshot of the first page, the moment that ages (`since=24h`) count from, and the last record; and a
//! fingerprint of the parameters, as it belongs to one query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::record::Timestamp;

/// The form of cursors; another one is not understood.
const VERSION: u8 = 1;

/// What a page passes on to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The process that took the snapshot.
    pub(super) process: u64,
    /// The snapshot's id there.
    pub(super) snapshot: u64,
    /// When the first page was asked for.
    pub(super) asked: Timestamp,
    pub(super) fingerprint: u64,
    /// Of the last record of the page.
    pub(super) ts: Timestamp,
    pub(super) index: u64,
    pub(super) segment: String,
}

impl Cursor {
    pub(super) fn text(&self) -> String {
        let numbers = [
            self.process,
            self.snapshot,
            self.asked.millis().cast_unsigned(),
            self.fingerprint,
            self.ts.millis().cast_unsigned(),
            self.index,
        ];
        let mut bytes = vec![VERSION];
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        bytes.extend(self.segment.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Cursor::text`] writes; `None` if it is anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (VERSION, mut rest) = bytes.split_first().map(|(version, rest)| (*version, rest))? else { return None };
        let mut number = || {
            let (number, behind) = rest.split_first_chunk()?;
            rest = behind;
            Some(u64::from_be_bytes(*number))
        };
        let (process, snapshot) = (number()?, number()?);
        let (asked, fingerprint, ts, index) = (time(number()?)?, number()?, time(number()?)?, number()?);
        let segment = String::from_utf8(rest.to_vec()).ok()?;
        Some(Self { process, snapshot, asked, fingerprint, ts, index, segment })
    }
}

/// An instant of the years 1970 to 9999.
fn time(millis: u64) -> Option<Timestamp> {
    let millis = i64::try_from(millis).ok().filter(|millis| *millis <= Timestamp::MAX.millis())?;
    Some(Timestamp::from_millis(millis))
}

/// A number that two queries hardly share.
pub(super) fn fingerprint(parameters: &[(&str, &str)]) -> u64 {
    let mut digest = Sha256::new();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    let digest = digest.finalize();
    u64::from_be_bytes(*digest.first_chunk().expect("it has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_cursor_is_what_was_written_and_nothing_else_is_one(
            numbers in any::<[u64; 4]>(),
            times in [0..=Timestamp::MAX.millis(), 0..=Timestamp::MAX.millis()],
            segment in ".{0,40}",
            cut in any::<prop::sample::Index>(),
            junk in "[A-Za-z0-9_-]{0,100}",
        ) {
            let [process, snapshot, fingerprint, index] = numbers;
            let [asked, ts] = times.map(Timestamp::from_millis);
            let cursor = Cursor { process, snapshot, asked, fingerprint, ts, index, segment };
            let text = cursor.text();
            prop_assert_eq!(Cursor::parse(&text), Some(cursor.clone()));
            // Cut short it is another cursor or none, and whatever is made up panics nowhere.
            let cut = &text[..cut.index(text.len())];
            prop_assert_ne!(Cursor::parse(cut), Some(cursor));
            drop(Cursor::parse(&junk));
        }
    }

    #[test]
    fn parameters_that_differ_have_different_fingerprints() {
        let different = [&[][..], &[("a", "b")], &[("a", ""), ("b", "")], &[("ab", "")], &[("a", "b"), ("a", "b")]];
        let mut fingerprints: Vec<_> = different.iter().map(|parameters| fingerprint(parameters)).collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        assert_eq!(fingerprints.len(), different.len());
    }
}

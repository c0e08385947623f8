//! Where a follower is, as a text that any other can go on from.
//!
//! ```text
//! base64url( version: 1 byte = 1
//!            fence: varint, milliseconds     segments named before it and not among the entries have been read
//!            oldest: varint, milliseconds    no entry is of a segment named before it
//!            entries: path's hash 8 bytes, offset varint, index + 1 varint (0: unknown)
//!            check: 4 bytes )
//! ```
//!
//! Hashes and the check are the first bytes of SHA-256; the check covers the directories' names too, so that what was said of some is not taken
//! for what was said of others.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{At, Key};
use crate::reader::lines::Position;
use crate::reader::listing::Sources;
use crate::record::Timestamp;

/// Characters of a bookmark.
pub const BOOKMARK_CHARS_MAX: usize = 8192;
/// Bytes of which as many characters are made.
const BYTES_MAX: usize = BOOKMARK_CHARS_MAX / 4 * 3;
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;

/// Where a [`Follower`](super::Follower) is: for each segment that may grow, what has been read of it.
///
/// As a text it has at most [`BOOKMARK_CHARS_MAX`] characters of base64url. Where more segments are alive than fit (some 400),
/// those named last are left out, and whoever goes on reads them from their beginning: lines may come again, none is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark(Vec<u8>);

/// A text is no bookmark of these directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position in these directories: it must be one that was told here, whole and unchanged")]
pub struct BookmarkError;

/// What a bookmark says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) fence: Timestamp,
    pub(super) oldest: Timestamp,
    pub(super) entries: Vec<(u64, At)>,
}

/// The first bytes of a path's SHA-256: nobody finds another path that has the same.
pub(super) fn hash(path: &str) -> u64 {
    let digest = Sha256::digest(path);
    u64::from_le_bytes(digest[..8].try_into().expect("32 bytes"))
}

impl Bookmark {
    /// Makes a bookmark of what is known of segments, the oldest first.
    pub(super) fn new(sources: &Sources, fence: Timestamp, entries: impl Iterator<Item = (Key, At)> + Clone) -> Self {
        let oldest = entries.clone().next().map_or(fence, |(key, _)| key.opened);
        let (mut fence, mut written) = (fence, Vec::new());
        let room = BYTES_MAX - (1 + 2 * VARINT_BYTES_MAX + CHECK_BYTES);
        for (key, at) in entries {
            let length = written.len();
            written.extend(key.hash.to_le_bytes());
            let (offset, index) = match at {
                At::Line(Position { offset, index }) => (offset, index + 1),
                At::Bytes(bytes) => (bytes, 0),
            };
            put(offset, &mut written);
            put(index, &mut written);
            if written.len() > room {
                written.truncate(length);
                fence = fence.min(key.opened);
                break;
            }
        }
        let mut bytes = vec![VERSION];
        put(fence.millis().unsigned_abs(), &mut bytes);
        put(oldest.millis().unsigned_abs(), &mut bytes);
        bytes.extend(written);
        bytes.extend(check(sources, &bytes));
        Self(bytes)
    }

    /// Reads a bookmark that was told for directories of the same names.
    ///
    /// # Errors
    /// [`BookmarkError`].
    pub fn parse(text: &str, sources: &Sources) -> Result<Self, BookmarkError> {
        if text.len() > BOOKMARK_CHARS_MAX {
            return Err(BookmarkError);
        }
        let bookmark = Self(URL_SAFE_NO_PAD.decode(text).map_err(|_| BookmarkError)?);
        let (said, told) = bookmark.0.split_last_chunk::<CHECK_BYTES>().ok_or(BookmarkError)?;
        if *told != check(sources, said) || bookmark.said().is_none() {
            return Err(BookmarkError);
        }
        Ok(bookmark)
    }

    pub(super) fn said(&self) -> Option<Said> {
        let (mut rest, _) = self.0.split_last_chunk::<CHECK_BYTES>()?;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let time = |rest: &mut &[u8]| i64::try_from(get(rest)?).ok().map(Timestamp::from_millis);
        let (fence, oldest) = (time(&mut rest)?, time(&mut rest)?);
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let hash = u64::from_le_bytes(take(&mut rest)?);
            let (offset, index) = (get(&mut rest)?, get(&mut rest)?);
            let at = match index.checked_sub(1) {
                Some(index) => At::Line(Position { offset, index }),
                None => At::Bytes(offset),
            };
            entries.push((hash, at));
        }
        Some(Said { fence, oldest, entries })
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

fn check(sources: &Sources, said: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new_with_prefix(said);
    for name in sources.prefixes() {
        hasher.update(name);
        hasher.update("/");
    }
    hasher.finalize()[..CHECK_BYTES].try_into().expect("32 bytes")
}

/// LEB128: seven bits a byte, the lowest first.
const VARINT_BYTES_MAX: usize = 10;

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn get(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::listing::Source;

    fn sources(texts: &[&str]) -> Sources {
        Sources::new(texts.iter().map(|text| Source::parse(text).unwrap()).collect()).unwrap()
    }

    fn at() -> impl Strategy<Value = At> {
        prop_oneof![
            any::<u64>().prop_map(At::Bytes),
            (any::<u64>(), 0..u64::MAX).prop_map(|(offset, index)| At::Line(Position { offset, index })),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_fits_comes_back_and_of_more_than_fits_the_newest_are_left_out(
            fence in 0..=Timestamp::MAX.millis(),
            entries in prop::collection::btree_map((0..=Timestamp::MAX.millis(), any::<u64>()), at(), 0..900),
        ) {
            let sources = sources(&["a=/a", "b=/b"]);
            let fence = Timestamp::from_millis(fence);
            let key = |(opened, hash): (i64, u64)| Key { opened: Timestamp::from_millis(opened), hash };
            let entries: Vec<_> = entries.into_iter().map(|(at, said)| (key(at), said)).collect();
            let bookmark = Bookmark::new(&sources, fence, entries.iter().copied());
            let text = bookmark.to_string();
            prop_assert!(text.len() <= BOOKMARK_CHARS_MAX);
            prop_assert_eq!(Bookmark::parse(&text, &sources), Ok(bookmark.clone()));
            let said = bookmark.said().unwrap();
            let expected: Vec<_> = entries.iter().map(|(key, at)| (key.hash, *at)).take(said.entries.len()).collect();
            prop_assert_eq!(&said.entries, &expected);
            prop_assert_eq!(said.oldest, entries.first().map_or(fence, |(key, _)| key.opened));
            match entries.get(said.entries.len()) {
                None => prop_assert_eq!(said.fence, fence),
                Some((left_out, _)) => {
                    prop_assert!(said.entries.len() > 200);
                    prop_assert_eq!(said.fence, fence.min(left_out.opened));
                }
            }
        }

        #[test]
        fn no_other_text_passes_for_a_bookmark(text in "[A-Za-z0-9_-]{0,60}", at in 0..200_usize, by in 1..64_u8) {
            let sources = sources(&["/a"]);
            prop_assert_eq!(Bookmark::parse(&text, &sources), Err(BookmarkError));
            let entries = (0..9).map(|n| (Key { opened: Timestamp::from_millis(n), hash: 7 }, At::Bytes(9)));
            let mut text = Bookmark::new(&sources, Timestamp::from_millis(5), entries).to_string().into_bytes();
            let at = at % text.len();
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let now = alphabet.iter().position(|byte| *byte == text[at]).unwrap();
            text[at] = alphabet[(now + usize::from(by)) % 64];
            prop_assert_eq!(Bookmark::parse(std::str::from_utf8(&text).unwrap(), &sources), Err(BookmarkError));
            prop_assert_eq!(Bookmark::parse(std::str::from_utf8(&text[..at]).unwrap(), &sources), Err(BookmarkError));
        }
    }

    #[test]
    fn a_bookmark_of_other_directories_is_refused() {
        let told = sources(&["eu=/a", "us=/b"]);
        let text = Bookmark::new(&told, Timestamp::from_millis(5), std::iter::empty()).to_string();
        assert!(Bookmark::parse(&text, &sources(&["eu=/elsewhere", "us=/b"])).is_ok());
        for other in [&["us=/b", "eu=/a"][..], &["eu=/a"], &["eu=/a", "us=/b", "x=/c"]] {
            assert_eq!(Bookmark::parse(&text, &sources(other)), Err(BookmarkError), "{other:?}");
        }
        assert_eq!(Bookmark::parse("", &told), Err(BookmarkError));
        assert_eq!(Bookmark::parse(&"A".repeat(9000), &told), Err(BookmarkError));
    }
}

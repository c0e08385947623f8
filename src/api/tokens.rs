//! Who may read what: tokens, of which only digests are known here.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::reader::filter::Scope;
use crate::record::Timestamp;

/// What a token begins with, so that one that has leaked can be found by those who look for such things.
pub const PREFIX: &str = "al_";

/// The SHA-256 of a token. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of a token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Its 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes all");
            hex
        })
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is, for the log.
    pub name: String,
    /// By what it is recognized.
    pub digest: Digest,
    /// The records that exist for its holder.
    pub scope: Scope,
    /// From when on it is void.
    pub expires: Option<Timestamp>,
}

/// All tokens that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens(pub Vec<Token>);

impl Tokens {
    /// The token of this digest, if it is known and in force. How long that takes says nothing about the digests that are known.
    #[must_use]
    pub fn find(&self, digest: &Digest, now: Timestamp) -> Option<&Token> {
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.0.ct_eq(&digest.0)) {
                found = Some(token);
            }
        }
        found.filter(|token| token.expires.is_none_or(|expires| now < expires))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: &str, expires: Option<i64>) -> Token {
        Token {
            name: secret.to_owned(),
            digest: Digest::of(secret.as_bytes()),
            scope: Scope::All,
            expires: expires.map(Timestamp::from_millis),
        }
    }

    #[test]
    fn a_token_is_found_by_its_digest_until_it_expires() {
        let tokens = Tokens(vec![token("a", None), token("b", Some(10))]);
        let find = |secret: &str, now| {
            tokens.find(&Digest::of(secret.as_bytes()), Timestamp::from_millis(now)).map(|token| token.name.as_str())
        };
        assert_eq!((find("a", 99), find("b", 9)), (Some("a"), Some("b")));
        assert_eq!((find("b", 10), find("c", 0), find("", 0)), (None, None, None));
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits_and_is_not_shown() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Digest::of(b"test").hex(), hex);
        assert_eq!(Digest::parse(&hex.to_uppercase()), Some(Digest::of(b"test")));
        for bad in ["", &hex[1..], &format!("{hex}0"), &hex.replace('9', "+"), &hex.replace('9', "g")] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
        assert_eq!(format!("{:?}", Digest::of(b"test")), "Digest(…)");
    }
}

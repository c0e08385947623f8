//! A way over JSON that was read or looked at before: it tells the tokens from one another, and looks at no more of them.
//!
//! Of what is no JSON it tells something or other, and ends.

use std::ops::Range;

use memchr::memmem::Finder;

use super::field::Value;
use super::marks::Strings;
use crate::record::json::{Scanner, Text};

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Skim<'j> {
    text: &'j str,
    at: usize,
    strings: Strings<'j>,
}

impl<'j> Skim<'j> {
    /// Begins at the start of a text.
    pub(super) fn over(text: &'j str, strings: Strings<'j>) -> Self {
        Self { text, at: 0, strings }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes behind the bracket that stands here; returns whether there is an item behind it, which may be a member of an object.
    pub(super) fn enter(&mut self) -> bool {
        self.at += 1;
        self.skip_space();
        self.peek().is_some_and(|byte| !matches!(byte, b'}' | b']')) || {
            self.at += 1;
            false
        }
    }

    /// Goes on behind an item; returns whether there is another one.
    pub(super) fn next_item(&mut self) -> bool {
        self.skip_space();
        let is_comma = self.peek() == Some(b',');
        self.at += 1;
        if is_comma {
            self.skip_space();
        }
        is_comma
    }

    /// Takes the name of a member, and goes to its value.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a text that is handed over in memory is waited for")]
    pub(super) fn key(&mut self) -> Option<Text<'j>> {
        let key = self.string()?;
        self.skip_space();
        self.at += 1;
        self.skip_space();
        Some(key)
    }

    /// Whether it is known that no string in the rest is, or ends with, what stands in what is looked for before a quote; that has no escape
    /// but `\uXXXX`.
    #[inline]
    pub(super) fn lacks(&self, string_end: &Finder<'_>) -> bool {
        self.strings.has_no_unicode_escape(self.text, self.at)
            && self.text.as_bytes().get(self.at..).is_none_or(|rest| string_end.find(rest).is_none())
    }

    /// Takes the value that begins here, as it is spelt.
    #[inline]
    pub(super) fn skip(&mut self) -> Option<&'j str> {
        let (start, bytes) = (self.at, self.text.as_bytes());
        let mut depth = 0;
        loop {
            match bytes.get(self.at)? {
                b'"' => _ = self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => self.at += scalar(&bytes[self.at..]),
            }
            if depth <= 0 {
                return self.text.get(start..self.at);
            }
        }
    }

    /// Takes the value that begins here. Numbers are numbers.
    pub(super) fn value(&mut self) -> Option<Value<'j>> {
        match self.peek()? {
            b'"' => Some(Value::String(self.string()?.value())),
            b'{' | b'[' => Some(Value::Structured(self.skip()?.into())),
            _ => match self.skip()? {
                "true" => Some(Value::Boolean(true)),
                "false" => Some(Value::Boolean(false)),
                "null" => Some(Value::Null),
                other => {
                    let mut scanner = Scanner::over(other);
                    let number = scanner.value().ok()?;
                    scanner.rest().is_empty().then(|| number.into())
                }
            },
        }
    }

    /// Goes on to the next string that is no key, across anything.
    pub(super) fn next_string(&mut self) -> Option<Text<'j>> {
        loop {
            self.at += memchr::memchr(b'"', self.text.as_bytes().get(self.at..)?)?;
            let text = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Some(text);
            }
        }
    }

    /// Whether a range of the text, behind those that were asked for before, lies in a string that is no key.
    pub(super) fn is_in_value(&mut self, range: &Range<usize>) -> Option<bool> {
        loop {
            self.at += memchr::memchr(b'"', self.text.as_bytes().get(self.at..)?)?;
            let start = self.at + 1;
            if start > range.start {
                return Some(false);
            }
            self.string()?;
            let end = self.at - 1;
            if end > range.start {
                self.skip_space();
                return Some(range.end <= end && self.peek() != Some(b':'));
            }
        }
    }

    /// Takes the string that begins here.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a text that is handed over in memory is waited for")]
    fn string(&mut self) -> Option<Text<'j>> {
        let start = self.at + 1;
        let (end, is_escaped) = match self.strings.near_end(start) {
            Some(end) => (end, false),
            None => self.string_end(start)?,
        };
        self.at = end + 1;
        self.text.get(start..end).map(|raw| Text::new(raw, is_escaped))
    }

    /// Where the string ends whose value begins there, and whether escapes are in it.
    #[inline(never)]
    fn string_end(&self, start: usize) -> Option<(usize, bool)> {
        let bytes = self.text.as_bytes();
        let (mut at, mut is_escaped) = (start, false);
        loop {
            at += run(bytes.get(at..)?);
            if *bytes.get(at)? == b'"' {
                return Some((at, is_escaped));
            }
            is_escaped = true;
            at += 2;
        }
    }
}

/// How many bytes come before the first that ends a number or a word; looks at eight at a time.
#[inline]
fn scalar(bytes: &[u8]) -> usize {
    // Brackets differ in a bit alone, and space is the greatest of those below `!`.
    let end = |word: u64| equal(word, b',') | equal(word | (ONES * 0x20), b'}') | below(word, b'!');
    let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | ..=b' ');
    first(bytes, end, is_end)
}

/// How many bytes come before the first quote or backslash; looks at eight at a time.
#[inline]
fn run(bytes: &[u8]) -> usize {
    first(bytes, |word| equal(word, b'"') | equal(word, b'\\'), |byte| matches!(byte, b'"' | b'\\'))
}

/// How many bytes come before the first of a kind. Of eight, `of_eight` sets the high bit of the lowest that is such a byte; what it does
/// to bytes above that does not matter.
#[inline]
fn first(bytes: &[u8], of_eight: impl Fn(u64) -> u64, is_one: impl Fn(&u8) -> bool) -> usize {
    let mut passed = 0;
    while let Some(word) = bytes[passed..].first_chunk() {
        match of_eight(u64::from_le_bytes(*word)) {
            0 => passed += 8,
            found => return passed + (found.trailing_zeros() / 8) as usize,
        }
    }
    passed + bytes[passed..].iter().take_while(|byte| !is_one(byte)).count()
}

const ONES: u64 = u64::from_le_bytes([1; 8]);

/// Sets the high bit of the lowest byte that is equal, if one is.
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * byte as u64), 1)
}

/// Sets the high bit of the lowest byte that is less, if one is, and less than 0x80.
const fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(ONES * byte as u64) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::marks::Marks;
    use crate::reader::spelling::{Json, Spelling, any_value, damaged};

    /// Goes over all that is there, and returns the members' names and the scalars on the way; of numbers, that there are such.
    fn all(skim: &mut Skim<'_>, found: &mut Vec<String>) -> Option<()> {
        let bracket = skim.peek()?;
        if !matches!(bracket, b'{' | b'[') {
            found.push(match skim.value()? {
                Value::Number(_) => "number".to_owned(),
                other => format!("{other:?}"),
            });
            return Some(());
        }
        let mut passed = skim.clone();
        let mut more = skim.enter();
        while more {
            if bracket == b'{' {
                found.push(skim.key()?.value().into_owned());
            }
            all(skim, found)?;
            more = skim.next_item();
        }
        passed.skip()?;
        (passed.at == skim.at).then_some(())
    }

    fn all_of(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Object(members) => members.iter().for_each(|(key, value)| {
                found.push(key.clone());
                all_of(value, found);
            }),
            Json::Array(items) => items.iter().for_each(|item| all_of(item, found)),
            Json::Null => found.push(format!("{:?}", Value::Null)),
            Json::Boolean(value) => found.push(format!("{:?}", Value::Boolean(*value))),
            Json::Number(..) | Json::Integer(_) => found.push("number".to_owned()),
            Json::String(text) => found.push(format!("{:?}", Value::String(text.into()))),
        }
    }

    #[test]
    fn tokens_are_told_from_one_another() {
        let json = r#"{"a" : [ ] , "b\"" :{ }, "c": [1,-2.5e+3 , true,false,null, "\\", "x\\\"{", {"d":"}]"}]} "#;
        let mut skim = Skim::over(json, Strings::default());
        let mut found = Vec::new();
        assert_eq!(all(&mut skim, &mut found), Some(()));
        let strings = ["String(\"\\\\\")", "String(\"x\\\\\\\"{\")", "d", "String(\"}]\")"];
        let expected = ["a", "b\"", "c", "number", "number", "Boolean(true)", "Boolean(false)", "Null"];
        assert_eq!(found, [&expected[..], &strings].concat());
        assert_eq!(&json[skim.at..], " ");
    }

    #[test]
    fn what_is_no_number_is_not_taken_for_one() {
        for text in ["NaN", "01", "1x", "-", "tru", "+1", ""] {
            assert_eq!(Skim::over(text, Strings::default()).value(), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_finds_all_that_is_there_and_ends_on_what_is_no_json(json in any_value(), seed: u64, hurts: [u64; 4]) {
            let mut text = String::new();
            Spelling::random(seed).value(&json, &mut text);
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            prop_assert_eq!(all(&mut Skim::over(&text, Strings::default()), &mut found), Some(()), "{}", text);
            all_of(&json, &mut expected);
            prop_assert_eq!(found, expected, "{}", text);
            for hurt in hurts {
                if let Ok(hurt) = String::from_utf8(damaged(text.clone().into_bytes(), hurt)) {
                    // Where strings end in the block that it lies in is a help, and changes nothing.
                    let block = [b"{\"before\":", hurt.as_bytes(), b"\\\"}\n\"behind\"\n"].concat();
                    let mut marks = Marks::default();
                    prop_assert!(marks.read(&block));
                    let [alone, helped] = [Strings::default(), Strings::at(&marks, &marks.line(0), 10)].map(|strings| {
                        let mut found = Vec::new();
                        (all(&mut Skim::over(&hurt, strings), &mut found), found)
                    });
                    prop_assert_eq!(alone, helped, "{}", hurt);
                }
            }
        }
    }
}

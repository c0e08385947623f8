//! A text that a line must hold, looked for over many lines at once.

use std::ops::Range;

use memchr::memmem::Finder;

use super::marks::Marks;
use super::word::commonness;

/// A text to look for.
#[derive(Debug, Clone)]
pub(super) struct Needle {
    finder: Finder<'static>,
    opening: Option<Opening>,
}

/// A text that begins with a quote: where quotes are is known, and to look for one more byte takes half as long as to look for two.
#[derive(Debug, Clone, Copy)]
struct Opening {
    /// A byte that is not so frequent, and how far behind the quote it is.
    rare: (u8, usize),
    /// Its first bytes, and which bits of a word they are.
    first: u64,
    bits: u64,
}

impl Opening {
    fn of(text: &str) -> Option<Self> {
        let value = text.strip_prefix('"')?;
        // To compare it ends at the next quote: however many there are, what is compared is no more than the block.
        if value.strip_suffix('"').unwrap_or(value).contains('"') {
            return None;
        }
        let behind = text.bytes().enumerate().filter(|(at, _)| Marks::BEHIND.contains(at));
        let (behind, byte) = behind.min_by_key(|(_, byte)| commonness(*byte))?;
        let mut first = [0; size_of::<u64>()];
        let mut bits = first;
        for (at, byte) in text.bytes().take(first.len()).enumerate() {
            (first[at], bits[at]) = (byte, u8::MAX);
        }
        Some(Self { rare: (byte, behind), first: u64::from_le_bytes(first), bits: u64::from_le_bytes(bits) })
    }
}

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self { finder: Finder::new(text).into_owned(), opening: Opening::of(text) }
    }

    pub(super) fn is_in(&self, line: &[u8]) -> bool {
        self.finder.find(line).is_some()
    }

    /// Of the lines of a block that are left, leaves those in which it is.
    pub(super) fn keep(&self, block: &[u8], lines: &mut Left<'_>) {
        let Some(opening) = &self.opening else {
            return lines.keep(|from| self.finder.find(&block[from..]).map(|at| from + at));
        };
        let text = self.finder.needle();
        let is_there = |at: usize| match block[at..].first_chunk() {
            Some(near) if u64::from_le_bytes(*near) & opening.bits != opening.first => false,
            Some(near) if text.len() <= near.len() => true,
            _ => block[at..].starts_with(text),
        };
        lines.marks.each_string(block, opening.rare, |at| {
            if is_there(at) {
                lines.found(at);
            }
        });
        lines.end();
    }
}

/// The lines of a block that may hold what is looked for.
pub(super) struct Left<'l> {
    marks: &'l Marks,
    lines: &'l mut [bool],
    /// What is found next lies in this line or behind it; and before this place in the block it does not matter.
    next: usize,
    from: usize,
}

impl<'l> Left<'l> {
    /// All lines of the block.
    pub(super) fn all(marks: &'l Marks, are_left: &'l mut Vec<bool>) -> Self {
        are_left.clear();
        are_left.resize(marks.count(), true);
        Self { marks, lines: are_left, next: 0, from: 0 }
    }

    /// Leaves those in which something is found. Most are passed over without a search of their own.
    pub(super) fn keep(&mut self, find: impl Fn(usize) -> Option<usize>) {
        while let Some(passed) = self.lines[self.next..].iter().position(|is_left| *is_left) {
            self.next += passed;
            match find(self.marks.line(self.next).start) {
                Some(at) => self.found(at),
                None => break,
            }
        }
        self.end();
    }

    /// Leaves the line, too, in which a place is, whatever was found. Places come in the order of the block.
    pub(super) fn spare(&mut self, at: usize) {
        if let Some(passed) = self.passed_before(at) {
            self.lines[passed.end] = true;
        }
    }

    /// What is looked for is there, and in no line between this and where it was found before.
    #[inline]
    fn found(&mut self, at: usize) {
        if let Some(passed) = self.passed_before(at) {
            self.lines[passed].fill(false);
        }
    }

    /// Goes on behind the line in which a place is, and returns those that were passed before it; nothing if the last place was in it, too.
    #[inline]
    fn passed_before(&mut self, at: usize) -> Option<Range<usize>> {
        (at >= self.from).then(|| {
            let start = self.next;
            while self.marks.line(self.next).end < at {
                self.next += 1;
            }
            let passed = start..self.next;
            self.from = self.marks.line(self.next).end + 1;
            self.next += 1;
            passed
        })
    }

    /// It is in no other line.
    fn end(&mut self) {
        self.lines[self.next..].fill(false);
        (self.next, self.from) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::marks::MarkedLine;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lines_are_left_that_hold_it_or_are_spared(
            text in "\"?[ab\"é]{0,3}\"?|\"[ab]{5,8}\"|\"[ab]{60,70}\"",
            // Long runs bring what is looked for to every place of a word and of a tile.
            parts in prop::collection::vec((0..300_usize, "[ab\"é\n]{0,6}", 0..4_usize), 0..40),
        ) {
            let part = |(run, other, ends): (usize, String, usize)| {
                let almost = text.char_indices().next_back().map_or("", |(last, _)| &text[..last]);
                ["c".repeat(run).as_str(), &other, [&text, almost, "", ""][ends]].concat()
            };
            let block = parts.into_iter().map(part).collect::<String>() + "\n";
            let (mut marks, mut are_left) = (Marks::default(), Vec::new());
            prop_assert!(marks.read(block.as_bytes()));
            let is_spared = |line: &MarkedLine| line.start.is_multiple_of(7);
            let needle = Needle::new(&text);
            let mut lines = Left::all(&marks, &mut are_left);
            // What was left once is left again.
            needle.keep(block.as_bytes(), &mut lines);
            needle.keep(block.as_bytes(), &mut lines);
            // A place of a line may be any, and there may be several.
            for line in marks.lines().filter(is_spared) {
                lines.spare(line.start);
                lines.spare(line.end);
            }
            for (line, is_left) in marks.lines().zip(are_left) {
                let line_text = &block[line.start..line.end];
                // Of a line without a byte it does not matter: it is no record.
                let is_expected = line_text.contains(&text) || is_spared(&line);
                prop_assert!(is_left == is_expected || line_text.is_empty(), "{:?} in {:?}", text, line_text);
            }
        }
    }
}

//! Lines on their way to a commit, and the answers on their way back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Ack, Refusal};
use crate::record::{Event, Identity, REQUEST_LINES_BYTES_MAX, Timestamp, TooLong};

/// Lines that will share a commit, encoded one behind the other.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The lines, without their time.
    pub(super) bytes: Vec<u8>,
    /// Where each line begins in `bytes`.
    pub(super) line_starts: Vec<usize>,
    /// One for each request.
    pub(super) entries: Vec<Entry>,
    /// When the first request came.
    pub(super) since: Duration,
    /// Where the requests wait.
    pub(super) ticket: Arc<Ticket>,
}

/// The lines of one request, encoded before anybody else has to wait for it.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    line_starts: Vec<usize>,
}

impl Encoded {
    pub(super) fn new(identity: &Identity, events: &[Event<'_>]) -> Result<Self, TooLong> {
        let bytes: usize = events.iter().map(|event| identity.bytes_hint(event)).sum();
        let mut encoded = Self {
            bytes: Vec::with_capacity(bytes.min(REQUEST_LINES_BYTES_MAX)),
            line_starts: Vec::with_capacity(events.len()),
        };
        for event in events {
            encoded.line_starts.push(encoded.bytes.len());
            identity.encode(event, &mut encoded.bytes)?;
            if encoded.bytes.len() > REQUEST_LINES_BYTES_MAX {
                return Err(TooLong::REQUEST);
            }
        }
        Ok(encoded)
    }
}

/// The lines of one request: they stay together and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first of its lines, counted in the group.
    pub(super) first_line: usize,
    pub(super) lines: usize,
}

/// The answer to all requests of a group.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    pub(super) outcome: OnceLock<Outcome>,
    pub(super) done: Notify,
}

/// What became of a group.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) entries: Vec<Entry>,
    /// In order; each speaks for the entries up to its `entries_end`. There is more than one only where a group had to
    /// be split.
    pub(super) parts: Vec<Part>,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) entries_end: usize,
    pub(super) result: Result<Committed, Refusal>,
}

/// Where the lines of a part are.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) ts: Timestamp,
    pub(super) segment: Arc<str>,
    /// The part's first line, counted in the group.
    pub(super) first_line: usize,
    /// The same line, counted in the segment.
    pub(super) index: u64,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a request that has come `now` and returns its number.
    pub(super) fn push(&mut self, request: Encoded, now: Duration) -> usize {
        if self.is_empty() {
            self.since = now;
        }
        let (offset, first_line) = (self.bytes.len(), self.line_starts.len());
        let lines = request.line_starts.len();
        if self.is_empty() && request.bytes.len() > self.bytes.capacity() {
            (self.bytes, self.line_starts) = (request.bytes, request.line_starts);
        } else {
            self.bytes.extend_from_slice(&request.bytes);
            self.line_starts.extend(request.line_starts.iter().map(|start| offset + start));
        }
        self.entries.push(Entry { first_line, lines });
        self.entries.len() - 1
    }

    /// Takes a request's lines out again.
    pub(super) fn withdraw(&mut self, number: usize) {
        let Entry { first_line, lines } = self.entries[number];
        let end_line = first_line + lines;
        let start = self.line_starts.get(first_line).copied().unwrap_or(self.bytes.len());
        let end = self.line_starts.get(end_line).copied().unwrap_or(self.bytes.len());
        self.bytes.drain(start..end);
        self.line_starts.drain(first_line..end_line);
        for later in &mut self.line_starts[first_line..] {
            *later -= end - start;
        }
        self.entries[number].lines = 0;
        for later in &mut self.entries[number + 1..] {
            later.first_line -= lines;
        }
    }

    /// The bytes of the lines of some entries, and where each line begins in them.
    pub(super) fn slice(&mut self, entries: std::ops::Range<usize>) -> Lines<'_> {
        let line_end = |group: &Self, number: usize| {
            number.checked_sub(1).map_or(0, |last| group.entries[last].first_line + group.entries[last].lines)
        };
        let (first, end) = (line_end(self, entries.start), line_end(self, entries.end));
        let byte = |line: usize| self.line_starts.get(line).copied().unwrap_or(self.bytes.len());
        let bytes = byte(first)..byte(end);
        Lines { bytes: &mut self.bytes[bytes], starts: &self.line_starts[first..end], first }
    }

    /// Empties the group for its next use and gives it a new ticket. Memory beyond `keep_bytes` is given back.
    pub(super) fn recycle(&mut self, keep_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep_bytes);
        self.line_starts.clear();
        self.line_starts.shrink_to(keep_bytes / 128);
        self.entries = Vec::new();
        self.ticket = Arc::default();
    }
}

/// Some consecutive lines of a group.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) bytes: &'a mut [u8],
    /// Where each line begins, counted in the group's bytes.
    starts: &'a [usize],
    /// The number of the first line in the group.
    pub(super) first: usize,
}

impl Lines<'_> {
    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// Puts the time into every line.
    pub(super) fn stamp(&mut self, ts: Timestamp) {
        let text = ts.text();
        let base = self.starts.first().copied().unwrap_or_default();
        for start in self.starts {
            crate::record::stamp(&mut self.bytes[start - base..], &text);
        }
    }
}

impl Outcome {
    /// The answer to the request with this number.
    pub(super) fn of(&self, number: usize) -> Result<Ack, Refusal> {
        let entry = self.entries[number];
        let part = self.parts.iter().find(|part| number < part.entries_end).expect("the parts cover every entry");
        let Committed { ts, segment, first_line, index } = part.result.clone()?;
        let index = index + u64::try_from(entry.first_line - first_line).expect("lines fit");
        Ok(Ack { ts, segment, index, count: entry.lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(messages: &[&[&str]]) -> Group {
        let identity = Identity::new("j", "w", 0).unwrap();
        let mut group = Group::default();
        for request in messages {
            let bodies: Vec<_> = request.iter().map(|event| format!("{{\"event\":\"{event}\"}}")).collect();
            let events: Vec<_> = bodies.iter().map(|body| Event::parse(body.as_bytes()).unwrap()).collect();
            group.push(Encoded::new(&identity, &events).unwrap(), Duration::ZERO);
        }
        group
    }

    fn names(lines: &Lines<'_>) -> Vec<String> {
        let text = std::str::from_utf8(lines.bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_slice_holds_the_lines_of_its_entries() {
        let mut group = group(&[&["a"], &["b", "c"], &["d"]]);
        for (range, expected, first) in
            [(0..3, vec!["a", "b", "c", "d"], 0), (0..1, vec!["a"], 0), (1..2, vec!["b", "c"], 1), (2..3, vec!["d"], 3)]
        {
            let mut lines = group.slice(range);
            lines.stamp(Timestamp::from_millis(1));
            assert_eq!(
                (names(&lines), lines.first, lines.count()),
                (expected.iter().map(ToString::to_string).collect(), first, expected.len())
            );
            assert_eq!(lines.bytes.windows(24).filter(|w| w == b"1970-01-01T00:00:00.001Z").count(), expected.len());
        }
    }

    #[test]
    fn a_withdrawn_request_leaves_no_line_and_moves_no_other() {
        for gone in 0..4 {
            let mut group = group(&[&["a"], &["b", "c"], &["d"], &["e", "f"]]);
            let fresh: Vec<Vec<&str>> = vec![vec!["a"], vec!["b", "c"], vec!["d"], vec!["e", "f"]];
            group.withdraw(gone);
            for (number, expected) in fresh.iter().enumerate() {
                let expected = if number == gone { &vec![] } else { expected };
                assert_eq!(&names(&group.slice(number..number + 1)), expected, "{gone} {number}");
            }
        }
    }
}

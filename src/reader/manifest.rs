//! What an export says of itself: what was asked for, what was found, what had to be left out, and where it was looked for.
//!
//! It holds nothing of the run: two exports of the same, over segments that are closed, have the same manifest.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde::Serialize;

use super::search::{Coverage, Notice};
use crate::record::Timestamp;

/// Lines, or paths, that are told one by one, of each kind.
pub const TOLD_MAX: usize = 10_000;

/// An export's `manifest.json`.
///
/// ```json
/// {
///   "auditLogVersion": "0.1.0",
///   "query": {"dir": ["/audit"], "since": "2026-03-01", "tz": "Europe/Copenhagen"},
///   "range": {"since": "2026-02-28T23:00:00.000Z", "until": null},
///   "records": {"file": "records.ndjson", "format": "ndjson", "columns": null, "rows": 12, "bytes": 3456, "sha256": "9f86…",
///     "oldest": "2026-03-01T09:12:44.381Z", "newest": "2026-03-09T17:00:00.000Z", "ambiguous": 0},
///   "searched": {"segments": 3, "ofSegments": 1347, "lines": 5120, "bytes": 1048576},
///   "damaged": {"count": 1, "told": [{"path": "5003592/audit-0_20260128T091244.381Z.jsonl", "index": 17, "reason": "not JSON"}]},
///   "foreign": {"count": 0, "told": []},
///   "unreadable": {"count": 0, "told": []},
///   "segments": [{"path": "5003592/audit-0_20260128T091244.381Z.jsonl", "bytes": 4096, "lines": 20, "damaged": 1, "foreign": 0}]
/// }
/// ```
#[derive(Debug, Serialize)]
pub struct Manifest<'m, Q> {
    /// The program's version.
    #[serde(rename = "auditLogVersion")]
    pub version: &'static str,
    /// What was asked for, as it was given.
    pub query: Q,
    /// The times that were meant by it.
    pub range: Range,
    /// The file and what is in it.
    pub records: Records<'m>,
    /// What was looked at.
    pub searched: Searched,
    /// What was left out, and where it was looked for.
    #[serde(flatten)]
    pub gathered: Gathered,
}

/// Instants between which records were asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Range {
    /// From this one on.
    pub since: Option<Timestamp>,
    /// Before this one.
    pub until: Option<Timestamp>,
}

/// The file with the records.
#[derive(Debug, Serialize)]
pub struct Records<'m> {
    /// Its name, in the directory of the manifest.
    pub file: &'m str,
    /// How records are written in it.
    pub format: &'m str,
    /// What heads its columns; nothing where it holds the lines' own bytes.
    pub columns: Option<Vec<&'m str>>,
    /// Records in it.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in small hexadecimal digits.
    pub sha256: String,
    /// The time of its first record.
    pub oldest: Option<Timestamp>,
    /// The time of its last.
    pub newest: Option<Timestamp>,
    /// Those whose answer hangs on a key that is there more than once.
    pub ambiguous: u64,
}

/// What was looked at: see [`Coverage`].
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Searched {
    segments: u64,
    of_segments: u64,
    lines: u64,
    bytes: u64,
}

impl From<&Coverage> for Searched {
    fn from(coverage: &Coverage) -> Self {
        let Coverage { searched: segments, segments: of_segments, lines, bytes, .. } = *coverage;
        Self { segments, of_segments, lines, bytes }
    }
}

/// What a search told of segments and of lines that are no record of anybody's, in an order that does not hang on the threads that
/// found it.
///
/// Of each kind the first [`TOLD_MAX`] are kept, and all are counted. Of segments all are kept, some 100 bytes each.
#[derive(Debug, Default, Serialize)]
pub struct Gathered {
    damaged: Kind,
    foreign: Kind,
    unreadable: Kind,
    segments: BTreeSet<Segment>,
}

#[derive(Debug, Default, Serialize)]
struct Kind {
    count: u64,
    told: BTreeSet<Told>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Told {
    path: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Segment {
    path: Box<str>,
    bytes: u64,
    lines: u64,
    damaged: u64,
    foreign: u64,
}

impl Gathered {
    /// Keeps what was told.
    pub fn add(&mut self, notice: &Notice<'_>) {
        match *notice {
            Notice::Damaged { segment, index, damage } => {
                self.damaged.add(segment, Some(index), Some(damage.to_string()));
            }
            Notice::Foreign { segment, index } => self.foreign.add(segment, Some(index), None),
            Notice::Unreadable { path, error } => self.unreadable.add(path, None, Some(error.to_string())),
            Notice::Searched { segment, bytes, lines, damaged, foreign } => {
                self.segments.insert(Segment { path: segment.into(), bytes, lines, damaged, foreign });
            }
            // Nobody follows what is exported.
            Notice::Cut { .. } => {}
        }
    }
}

impl Kind {
    fn add(&mut self, path: &str, index: Option<u64>, reason: Option<String>) {
        self.count += 1;
        self.told.insert(Told { path: path.into(), index, reason: reason.map(String::into) });
        if self.told.len() > TOLD_MAX {
            self.told.pop_last();
        }
    }
}

impl<Q: Serialize> Manifest<'_, Q> {
    /// Writes it as JSON for people, with a newline at the end.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::record::Damage;

    /// Whatever the order in which threads tell it: the first are kept, and all are counted.
    #[test]
    fn what_is_gathered_does_not_hang_on_the_order_in_which_it_is_told() {
        let count = TOLD_MAX as u64 + 7;
        let gathered = |indices: &mut dyn Iterator<Item = u64>| {
            let mut gathered = Gathered::default();
            for index in indices {
                gathered.add(&Notice::Damaged { segment: "a", index, damage: Damage::Torn });
                gathered.add(&Notice::Searched {
                    segment: &index.to_string(),
                    bytes: 1,
                    lines: 2,
                    damaged: 3,
                    foreign: 4,
                });
            }
            serde_json::to_value(gathered).unwrap()
        };
        let forwards = gathered(&mut (0..count));
        assert_eq!(forwards, gathered(&mut (0..count).rev()));
        assert_eq!(forwards["damaged"]["count"], count);
        let told = forwards["damaged"]["told"].as_array().unwrap();
        assert_eq!((told.len(), &told[TOLD_MAX - 1]["index"]), (TOLD_MAX, &(TOLD_MAX as u64 - 1).into()));
        assert_eq!(forwards["segments"].as_array().unwrap().len() as u64, count);
    }
}

//! The read side: directories of segments, their lines, the records in them, and what is asked of those.
//!
//! It meets the writer through files alone, writes nothing, and expects whatever `docs/FORMAT.md` says a reader must
//! expect: files that grow, shrink and vanish, torn tails, NUL bytes, lines that somebody else wrote.

pub mod lines;
pub mod listing;

mod doubled;
pub mod error;
mod look;
mod marks;
mod needle;
pub mod number;
pub mod record;

pub mod field;
mod fields;
pub mod filter;
mod skim;
pub mod view;
pub mod when;
mod word;

pub mod counts;
pub mod follow;
mod runs;
mod scan;
pub mod search;
pub mod sorted;
pub mod stream;
mod tally;

pub mod manifest;
pub mod output;

#[cfg(test)]
mod spelling;

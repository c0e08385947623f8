//! Reads what was written: lines become records, and records answer questions.
//!
//! Readers meet the writer only through files; all they need to know of these is in `docs/FORMAT.md`. Nothing here
//! writes to an audit directory.

pub mod error;
pub mod field;
pub mod filter;

pub mod number;
pub mod record;
pub mod when;

#[cfg(test)]
mod spelling;

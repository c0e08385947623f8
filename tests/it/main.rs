//! The promises of the contract, kept by the real binary: real sockets, real files, real signals.

#![expect(clippy::disallowed_methods, reason = "tests look at files from outside")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod accepted;
mod borrowed;
mod clients;
mod clock;
mod config;
mod console;
mod console_clients;
mod console_scopes;
mod console_streams;
mod console_tail;
mod counting;
mod docs;
mod durability;
mod export;
mod faults;
mod following;
mod image;
mod limits;
mod manual;
mod memory;
mod observability;
mod performance;
mod plain;
mod pod;
mod reading;
mod reading_safety;
mod refused;
mod retention;
mod start_stop;
mod support;
mod tampering;
mod ucloud;
mod views;

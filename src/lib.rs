//! An audit log for compute jobs: what is acknowledged is on disk.
//!
//! # The life of an event
//! 1. A job's `curl` connects. `http::connections` accepts, bounded in number and time.
//! 2. `http::plain` recognizes a plain request; any other is hyper's to parse, and `http::guard` sees that it is for this
//!    host and from no browser page.
//! 3. `http::append` has the body, and [`record::Event`] makes an event of it, or says why not.
//! 4. [`writer::Appender`] encodes the event's line ([`record::Identity`]) into the group that gathers, and waits.
//! 5. The dispatcher hands the group over once there is nothing else to do.
//! 6. The committer's thread stamps it, writes it to the active segment, syncs, and checks (`writer::commit`), through
//!    the only door to files, [`durable`].
//! 7. The dispatcher wakes the request, which answers with the time, the segment and the line's number.
//!
//! [`retention`] removes segments when they are old enough, by the setting that [`config`] reads from the platform's
//! file. [`app`] wires all that together, and [`cli`] starts it; [`client`] is the other side, for scripts in the job.
//!
//! [`reader`] is the read side: it meets the writer through files alone. [`api`] serves it over HTTP.
//!
//! Modules are declared in reading order. Each uses those of lower rows only: `record`; `durable`, `clock` and `yaml`; `writer`;
//! `http`, `retention` and `reader`; `api`; `config`; `app` and `cli`.

pub mod record;

pub mod clock;
pub mod durable;
pub mod metrics;
pub mod writer;
mod yaml;

pub mod http;
pub mod retention;

pub mod reader;

pub mod api;

pub mod config;
pub mod inject;

pub mod app;
pub mod cli;
pub mod client;
pub mod telemetry;

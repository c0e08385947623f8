//! What an event is and how it is spelt on disk: bytes in, bytes out.
//!
//! Nothing here opens a file, asks for the time or knows of HTTP, so every rule of the format can be tested
//! by a function call. `docs/FORMAT.md` says the same in words.

mod batch;
mod event;
pub(crate) mod json;
mod line;
mod segment_name;
mod timestamp;

pub use batch::{BATCH_EVENTS_MAX, BatchError, parse_batch};
pub use event::{EVENT_NAME_BYTES_MAX, Event, META_DEPTH_MAX, RESERVED_PREFIX};
pub use json::{EventError, Fault};
pub use line::{ID_BYTES_MAX, Identity, IdentityError, LINE_BYTES_MAX, REQUEST_LINES_BYTES_MAX, TooLong, stamp};
pub use segment_name::{Compression, Opened, SegmentName, SegmentNameError};
pub use timestamp::{DAY_MS, Timestamp};

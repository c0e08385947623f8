//! The line that an event becomes.

use super::event::Event;
use super::json::write_string;
use super::timestamp::Timestamp;

/// Bytes of a job's or workspace's id. Kubernetes names have at most 253; the bound is there because every line of a
/// batch repeats both: 10,000 lines × 2 × 256 bytes are 5 MiB at worst.
pub const ID_BYTES_MAX: usize = 256;

/// Bytes of a line with its newline. A body of 1 MiB becomes a longer line only where its characters must be escaped
/// (one byte of U+007F becomes six); what is longer than this, readers would report as damaged.
pub const LINE_BYTES_MAX: usize = 2 << 20;

/// Bytes of the lines of one request. A batch of 8 MiB with 10,000 events and the longest ids stays below 15 MiB; only
/// characters that must be escaped can take it further.
pub const REQUEST_LINES_BYTES_MAX: usize = 16 << 20;

/// Who the sidecar speaks for: the same in every line it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    rank: u32,
    /// A line up to the event's name, with zeros where the time goes.
    head: Box<[u8]>,
}

/// An id cannot stand in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It holds a control character.
    #[error("holds a control character")]
    ControlCharacter,
    /// It is longer than [`ID_BYTES_MAX`].
    #[error("is longer than {ID_BYTES_MAX} bytes")]
    TooLong,
}

/// The body is within its limits, but escaped for the log it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("escaped for the log, {what} takes more than {bytes_max} bytes")]
pub struct TooLong {
    what: &'static str,
    bytes_max: usize,
}

impl TooLong {
    const LINE: Self = Self { what: "an event", bytes_max: LINE_BYTES_MAX };
    /// The lines of one request take more than [`REQUEST_LINES_BYTES_MAX`].
    pub(crate) const REQUEST: Self = Self { what: "the batch", bytes_max: REQUEST_LINES_BYTES_MAX };
}

impl Identity {
    /// Checks an id as [`Identity::new`] does.
    ///
    /// # Errors
    /// [`IdentityError`] says what is wrong with it.
    pub fn check_id(id: &str) -> Result<(), IdentityError> {
        if id.is_empty() {
            Err(IdentityError::Empty)
        } else if id.chars().any(char::is_control) {
            Err(IdentityError::ControlCharacter)
        } else if id.len() > ID_BYTES_MAX {
            Err(IdentityError::TooLong)
        } else {
            Ok(())
        }
    }

    /// Makes the identity of a job's rank in a workspace.
    ///
    /// # Errors
    /// [`IdentityError`] if an id is empty, too long or holds a control character.
    pub fn new(job_id: &str, workspace_id: &str, rank: u32) -> Result<Self, IdentityError> {
        Self::check_id(job_id)?;
        Self::check_id(workspace_id)?;
        let mut head = b"{\"ts\":\"000000000000000000000000\",\"jobId\":".to_vec();
        write_string(job_id, &mut head);
        head.extend_from_slice(b",\"workspaceId\":");
        write_string(workspace_id, &mut head);
        head.extend_from_slice(b",\"event\":");
        Ok(Self { rank, head: head.into() })
    }

    /// The rank, which is part of the segments' names.
    #[must_use]
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// About how many bytes an event's line takes: more if there is something to escape.
    pub(crate) fn bytes_hint(&self, event: &Event<'_>) -> usize {
        self.head.len() + event.bytes_hint()
    }

    /// Appends the event's line, newline included, with zeros in the place of the time: whoever writes it to a file
    /// puts the time in with [`stamp`], so that the order in the file is the order in time.
    ///
    /// # Errors
    /// [`TooLong`]; `out` is then as it was.
    pub fn encode(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let start = out.len();
        out.extend_from_slice(&self.head);
        event.write(out);
        out.extend_from_slice(b"}\n");
        if out.len() - start > LINE_BYTES_MAX {
            out.truncate(start);
            return Err(TooLong::LINE);
        }
        Ok(())
    }
}

/// Writes the time into a line that [`Identity::encode`] made. The line may be followed by others.
///
/// # Panics
/// If `line` is shorter than a line's head, which no encoded line is.
pub fn stamp(line: &mut [u8], ts: &[u8; Timestamp::TEXT_BYTES]) {
    const TS_START: usize = "{\"ts\":\"".len();
    line[TS_START..TS_START + Timestamp::TEXT_BYTES].copy_from_slice(ts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_event_becomes_the_documented_line() {
        let identity = Identity::new("5003592", "651b3f72-b49d-4ad5-8bbe-4ff2d4889002", 0).unwrap();
        let body = br#"{
            "event": "DATA_EXPORT",
            "message": "Exported results to CSV",
            "meta": {
              "path": "/work/output/results.csv",
              "rows": 12500
            }
        }"#;
        let mut line = Vec::new();
        identity.encode(&Event::parse(body).unwrap(), &mut line).unwrap();
        stamp(&mut line, &Timestamp::from_millis(1_769_591_564_381).text());
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"5003592","workspaceId":"651b3f72-b49d-4ad5-8bbe-4ff2d4889002","#,
                r#""event":"DATA_EXPORT","message":"Exported results to CSV","#,
                r#""meta":{"path":"/work/output/results.csv","rows":12500}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_id_is_neither_empty_nor_endless_and_holds_no_control_character() {
        assert_eq!(Identity::check_id(""), Err(IdentityError::Empty));
        assert_eq!(Identity::check_id(&"x".repeat(ID_BYTES_MAX)), Ok(()));
        assert_eq!(Identity::check_id(&"x".repeat(ID_BYTES_MAX + 1)), Err(IdentityError::TooLong));
        for id in ["a\nb", "\0", "a\u{7f}", "\u{85}"] {
            assert_eq!(Identity::check_id(id), Err(IdentityError::ControlCharacter), "{id:?}");
        }
        assert_eq!(Identity::check_id("Zoë \u{202e}"), Ok(()));
    }

    #[test]
    fn a_line_ends_within_its_limit() {
        let identity = Identity::new("j", "w", 0).unwrap();
        let line = |letters: usize| {
            let body = format!("{{\"event\":\"a\",\"message\":\"{}\"}}", "x".repeat(letters));
            let mut out = b"before".to_vec();
            identity.encode(&Event::parse(body.as_bytes()).unwrap(), &mut out).map(|()| out.len() - 6).map_err(|_| out)
        };
        let fixed = line(0).unwrap();
        assert_eq!(line(LINE_BYTES_MAX - fixed), Ok(LINE_BYTES_MAX));
        assert_eq!(line(LINE_BYTES_MAX - fixed + 1), Err(b"before".to_vec()));
    }
}

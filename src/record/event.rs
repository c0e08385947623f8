//! What a client sent, once it is known to be an event.

use std::borrow::Cow;

use super::json::{Bad, EventError, Fault, Kind, Scanner, Stop, Value, write_compact, write_string};

/// Bytes of an event's name.
pub const EVENT_NAME_BYTES_MAX: usize = 256;
/// Levels of nesting in `meta`; `[]` is one.
pub const META_DEPTH_MAX: u32 = super::json::DEPTH_MAX;
/// Names that begin so are for the sidecar's own use.
pub const RESERVED_PREFIX: &str = "audit-log.";

/// One event of a job: a name, a message and any JSON value, borrowed from the request's body.
///
/// It is made by [`Event::parse`] only, so whoever holds one need not check it again.
///
/// ```
/// let event = audit_log::record::Event::parse(br#"{"event":"DATA_EXPORT","meta":{"rows":12500}}"#)?;
/// assert_eq!(event.name(), "DATA_EXPORT");
/// # Ok::<(), audit_log::record::EventError>(())
/// ```
#[derive(Debug)]
pub struct Event<'a> {
    name: Cow<'a, str>,
    message: Cow<'a, str>,
    meta: Option<Value<'a>>,
}

impl<'a> Event<'a> {
    /// Reads one JSON object with the members `event` (1 to 256 bytes), `message` (a string, or null for `""`) and
    /// `meta` (any value, at most 128 levels deep). Only `event` is required; no other member is allowed, and none twice.
    ///
    /// # Errors
    /// [`EventError::NotJson`] if the bytes are not one JSON text in UTF-8, else [`EventError::NotAnEvent`] for the
    /// first rule that is broken. Both say where.
    pub fn parse(body: &'a [u8]) -> Result<Self, EventError> {
        let not_json = |bad: Bad| EventError::NotJson(Fault::at(body, bad.offset, bad.what));
        let mut scanner = Scanner::new(body).map_err(not_json)?;
        let mut members = Members::default();
        match members.read(&mut scanner) {
            Ok(()) => {}
            Err(Stop::Bad(bad)) => return Err(not_json(bad)),
            Err(Stop::TooDeep) => {
                scanner.whole_text_is_json().map_err(not_json)?;
                members.refuse(scanner.offset(), format!("nested more than {META_DEPTH_MAX} levels deep"));
            }
        }
        if let Some(offset) = scanner.half_surrogate {
            members.refuse(offset, "a \\u escape that is half a surrogate pair");
        }
        members.event().map_err(|(offset, what)| EventError::NotAnEvent(Fault::at(body, offset, what)))
    }

    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message, `""` if there was none.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// About how many bytes the three members take in a line: more if there is something to escape.
    pub(super) fn bytes_hint(&self) -> usize {
        self.name.len() + self.message.len() + self.meta.as_ref().map_or(0, |value| value.raw.len()) + 32
    }

    /// Appends the three members as they stand at the end of a line: `"DATA_EXPORT","message":"…","meta":{…}`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_string(&self.name, out);
        out.extend_from_slice(b",\"message\":");
        write_string(&self.message, out);
        out.extend_from_slice(b",\"meta\":");
        match &self.meta {
            Some(value) => write_compact(value, out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// The members met so far, and the first rule that was broken.
#[derive(Default)]
struct Members<'a> {
    name: Option<Cow<'a, str>>,
    message: Option<Cow<'a, str>>,
    meta: Option<Value<'a>>,
    broken: Option<(usize, Cow<'static, str>)>,
}

impl<'a> Members<'a> {
    /// Notes a broken rule; the one that stands first in the text is kept.
    fn refuse(&mut self, offset: usize, what: impl Into<Cow<'static, str>>) {
        if self.broken.as_ref().is_none_or(|(first, _)| offset < *first) {
            self.broken = Some((offset, what.into()));
        }
    }

    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Stop> {
        scanner.skip_space();
        match scanner.peek() {
            None => return Err(scanner.bad("the body is empty").into()),
            Some(b'{') => {}
            Some(first) => {
                let offset = scanner.offset();
                let value = scanner.value().map_err(|stop| match stop {
                    // `event=…&message=…`, which is what curl's -d is usually for.
                    Stop::Bad(bad) if bad.offset == offset && first.is_ascii_alphabetic() && is_form(scanner) => {
                        Bad { what: "a form, not JSON; send one JSON object", ..bad }.into()
                    }
                    stop => stop,
                })?;
                scanner.end()?;
                self.refuse(offset, not_an_object(value.kind));
                return Ok(());
            }
        }
        scanner.take(b'{', "expected an object")?;
        scanner.skip_space();
        if scanner.peek() == Some(b'}') {
            scanner.take(b'}', "expected `}`")?;
            return Ok(scanner.end()?);
        }
        loop {
            let offset = scanner.offset();
            let key = scanner.string("expected a member's name in double quotes")?;
            scanner.skip_space();
            scanner.take(b':', "expected `:` after a member's name")?;
            scanner.skip_space();
            let value = scanner.value()?;
            self.member(offset, &key.value(), value);
            scanner.skip_space();
            if scanner.peek() == Some(b'}') {
                scanner.take(b'}', "expected `}`")?;
                return Ok(scanner.end()?);
            }
            scanner.take(b',', "expected `,` or `}`")?;
            scanner.skip_space();
        }
    }

    fn member(&mut self, offset: usize, key: &str, value: Value<'a>) {
        match (key, value.kind) {
            ("event", Kind::String(text)) => {
                let name = text.value();
                match name.len() {
                    0 => self.refuse(value.offset, "`event` is empty"),
                    1..=EVENT_NAME_BYTES_MAX => {}
                    _ => self.refuse(value.offset, format!("`event` is longer than {EVENT_NAME_BYTES_MAX} bytes")),
                }
                if name.starts_with(RESERVED_PREFIX) {
                    self.refuse(value.offset, format!("names that begin with `{RESERVED_PREFIX}` are reserved"));
                }
                if self.name.replace(name).is_some() {
                    self.refuse(offset, "`event` is given twice");
                }
            }
            ("message", Kind::String(_) | Kind::Null) => {
                let message = if let Kind::String(text) = value.kind { text.value() } else { Cow::Borrowed("") };
                if self.message.replace(message).is_some() {
                    self.refuse(offset, "`message` is given twice");
                }
            }
            ("meta", _) => {
                if self.meta.replace(value).is_some() {
                    self.refuse(offset, "`meta` is given twice");
                }
            }
            ("event" | "message", kind) => {
                let key = if key == "event" { "event" } else { "message" };
                self.refuse(value.offset, format!("`{key}` must be a string, not {}", kind.name()));
            }
            ("ts" | "jobId" | "workspaceId", _) => {
                self.refuse(offset, "`ts`, `jobId` and `workspaceId` are the sidecar's to set; leave them out");
            }
            _ => {
                self.refuse(
                    offset,
                    "unknown member; only `event`, `message` and `meta` are known, put the rest into `meta`",
                );
            }
        }
    }

    fn event(self) -> Result<Event<'a>, (usize, Cow<'static, str>)> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let Some(name) = self.name else {
            return Err((0, "`event` is missing".into()));
        };
        Ok(Event { name, message: self.message.unwrap_or_default(), meta: self.meta })
    }
}

fn is_form(scanner: &Scanner<'_>) -> bool {
    scanner.rest().bytes().take_while(u8::is_ascii_graphic).any(|b| b == b'=')
}

fn not_an_object(kind: Kind<'_>) -> Cow<'static, str> {
    match kind {
        Kind::Array => "an array; send the event itself, and many events as application/x-ndjson, one a line".into(),
        Kind::String(_) => "a string; was the event encoded twice? send the object itself".into(),
        kind => format!("{}; an event is an object", kind.name()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> EventError {
        Event::parse(body.as_bytes()).expect_err(body)
    }

    #[test]
    fn what_is_not_json_is_refused_as_such_even_if_a_member_is_wrong_too() {
        for body in ["{\"x\":1", "{\"event\":\"\",}", "{\"ts\":1}}", "[1", "[{\"event\":\"a\"}"] {
            assert!(matches!(refusal(body), EventError::NotJson(_)), "{body}");
        }
    }

    #[test]
    fn the_first_broken_rule_is_told_with_its_place() {
        let fault = refusal("{\n  \"event\": \"a\",\n  \"ts\": 1,\n  \"x\": 2}");
        assert_eq!((fault.fault().line, fault.fault().column), (3, 3));
        assert!(fault.to_string().contains("`ts`"), "{fault}");
    }

    #[test]
    fn nesting_is_counted_from_the_value_of_meta() {
        let nested = |depth: usize| format!("{{\"event\":\"a\",\"meta\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        for depth in [0, 1, 127, 128] {
            let body = if depth == 0 { "{\"event\":\"a\",\"meta\":1}".to_owned() } else { nested(depth) };
            Event::parse(body.as_bytes()).expect("deep enough");
        }
        for depth in [129, 100_000] {
            assert!(refusal(&nested(depth)).to_string().contains("128"));
        }
        let unclosed = format!("{{\"event\":\"a\",\"meta\":{}", "[".repeat(200));
        assert!(matches!(refusal(&unclosed), EventError::NotJson(_)));
    }

    #[test]
    fn a_key_is_known_by_its_value_not_by_its_spelling() {
        assert_eq!(Event::parse(br#"{"\u0065vent":"a"}"#).unwrap().name(), "a");
        assert!(refusal(r#"{"event":"a","\u0065vent":"b"}"#).to_string().contains("twice"));
    }

    #[test]
    fn no_refusal_repeats_what_the_client_sent() {
        for body in [r#"{"event":"a","zebra":1}"#, r#"{"event":"audit-log.zebra"}"#, "zebra", r#"{"event":zebra}"#] {
            assert!(!refusal(body).to_string().contains("zebra"), "{body}");
        }
    }
}

//! The fields of a record: its members, paths into `meta`, and where it lies.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memmem::Finder;

use super::error::FilterError;
use super::record::Record;
use super::skim::Skim;
use super::view::Column;
use super::when::Zone;
use crate::record::Timestamp;
use crate::record::json::{self, DEPTH_MAX, Kind, Scanner, write_compact, write_string};

/// Where a record lies: the fields that no line holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'p> {
    /// The segment's path below its directory, without `.gz` or `.zst`.
    pub segment: &'p str,
    /// The line's number in it, from 0.
    pub index: u64,
    /// The rank that the segment's name tells.
    pub rank: u32,
}

/// What a filter or a column asks for: `ts`, `jobId`, `workspaceId`, `event`, `message`, `segment`, `index`, `rank`,
/// `meta` or a path into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// When it was written, always as RFC 3339 with milliseconds in UTC.
    Ts,
    /// The job's id.
    JobId,
    /// The workspace's id.
    WorkspaceId,
    /// What happened.
    Event,
    /// The same for people.
    Message,
    /// The value at a path in `meta`; the empty path is all of it.
    Meta(Vec<Step>),
    /// [`Place::segment`].
    Segment,
    /// [`Place::index`].
    Index,
    /// [`Place::rank`].
    Rank,
    /// What a column of a view shows.
    Column(Arc<Column>),
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `.name` or `."any name"`: the value of an object's key.
    Key(String),
    /// `[0]`: an array's item, from 0.
    Item(usize),
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'v> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as it is spelt.
    Number(Cow<'v, str>),
    /// A string's value. Half a surrogate pair is U+FFFD.
    String(Cow<'v, str>),
    /// An array or object, as it is spelt.
    Structured(Cow<'v, str>),
}

impl Value<'_> {
    /// The value as columns show it: a string's own value, of any other its JSON, without white space between its tokens.
    #[must_use]
    pub fn text(self) -> String {
        if let Self::String(text) = self {
            return text.into_owned();
        }
        let mut json = Vec::new();
        self.write_json(&mut json);
        String::from_utf8(json).expect("JSON without some of its white space is UTF-8 as before")
    }

    /// Adds the value as JSON: what is no string as it is spelt, but for white space between its tokens and what lines escape.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(text) => out.extend_from_slice(text.as_bytes()),
            Self::String(text) => write_string(text, out),
            Self::Structured(raw) => match Scanner::over(raw).value() {
                Ok(value) => write_compact(&value, out),
                // A record's `meta` is JSON; of one that somebody made up, it is shown as it is.
                Err(_) => out.extend_from_slice(raw.as_bytes()),
            },
        }
    }
}

/// Steps of a path that may lead somewhere: `meta` nests no deeper.
pub(super) const PATH_MAX: usize = DEPTH_MAX as usize;

const MEMBERS: [(&str, Field); 8] = [
    ("ts", Field::Ts),
    ("jobId", Field::JobId),
    ("workspaceId", Field::WorkspaceId),
    ("event", Field::Event),
    ("message", Field::Message),
    ("segment", Field::Segment),
    ("index", Field::Index),
    ("rank", Field::Rank),
];

impl<'v> From<json::Value<'v>> for Value<'v> {
    fn from(value: json::Value<'v>) -> Self {
        match value.kind {
            Kind::Null => Self::Null,
            Kind::Boolean => Self::Boolean(value.raw == "true"),
            Kind::Number => Self::Number(value.raw.into()),
            Kind::String(text) => Self::String(text.value()),
            Kind::Array | Kind::Object => Self::Structured(value.raw.into()),
        }
    }
}

impl Field {
    /// Reads a field's name: `event`, `meta.user.name`, `meta.files[0]`, `meta."a.b"`.
    ///
    /// A key without quotes ends before white space, `.`, `[`, `]`, `"` and every operator of a condition; between
    /// quotes it is spelt as a JSON string.
    ///
    /// # Errors
    /// Tells at which byte the name ceases to be one.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Self::parse_among(text, &[])
    }

    /// As [`Field::parse`]; a name may also be the key of a view's column.
    ///
    /// # Errors
    /// Those of [`Field::parse`].
    pub fn parse_among(text: &str, columns: &[Arc<Column>]) -> Result<Self, FilterError> {
        match Self::parse_start(text, columns)? {
            (field, end) if end == text.len() => Ok(field),
            (_, end) => Err(FilterError::at(end, "expected `.`, `[` or the end of the field")),
        }
    }

    /// Whether a name is that of a field, or begins one.
    pub(super) fn is_name(name: &str) -> bool {
        name == "meta" || MEMBERS.iter().any(|(member, _)| *member == name)
    }

    /// Reads the field at the start of a text; with it comes where it ends.
    pub(super) fn parse_start(text: &str, columns: &[Arc<Column>]) -> Result<(Self, usize), FilterError> {
        let end = bare_key(text);
        let name = &text[..end];
        if name != "meta" {
            let member = MEMBERS.into_iter().find(|(member, _)| *member == name).map(|(_, field)| field);
            let column = || columns.iter().find(|column| column.key() == name);
            let Some(field) = member.or_else(|| column().cloned().map(Self::Column)) else {
                return Err(unknown(name, columns));
            };
            if text[end..].starts_with(['.', '[']) {
                return Err(FilterError::at(end, format!("`{name}` has no parts; only `meta` has")));
            }
            return Ok((field, end));
        }
        let (mut steps, mut at) = (Vec::new(), end);
        while let Some((step, length)) = Step::parse_start(&text[at..]).map_err(|error| error.moved(at))? {
            steps.push(step);
            at += length;
        }
        Ok((Self::Meta(steps), at))
    }

    /// Hands over each value of the field in a record, in the line's order; returns whether the record is ambiguous, as
    /// a key of the path is there more than once in one object.
    ///
    /// **Complexity**: linear in the bytes of `meta`.
    pub fn each<'v>(&self, record: &'v Record<'_>, place: &Place<'v>, found: impl FnMut(Value<'v>)) -> bool {
        self.each_before(None, record, place, found)
    }

    /// As `each`; the end of the path's first key as lines spell it, with the quote behind it, spares the way to where it is no more.
    pub(super) fn each_before<'v>(
        &self,
        first_key: Option<&Finder<'_>>,
        record: &'v Record<'_>,
        place: &Place<'v>,
        mut found: impl FnMut(Value<'v>),
    ) -> bool {
        self.walk(first_key, record, place, |value| {
            if let Some(value) = value {
                found(value);
            }
        })
    }

    /// The value of the field in a record, as columns show it. Of keys that are there more than once the last counts, at
    /// every level: of two `user`, the `name` in the second, if there is one.
    #[must_use]
    pub fn last<'v>(&self, record: &'v Record<'_>, place: &Place<'v>) -> Option<Value<'v>> {
        self.last_of(record, place).0
    }

    /// As [`Field::last`], and whether the record is ambiguous.
    pub(super) fn last_of<'v>(&self, record: &'v Record<'_>, place: &Place<'v>) -> (Option<Value<'v>>, bool) {
        let mut last = None;
        let is_ambiguous = self.walk(None, record, place, |value| last = value);
        (last, is_ambiguous)
    }

    /// Whether it shows what is the job's own claim: event, message, or anything from `meta`.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        match self {
            Self::Event | Self::Message | Self::Meta(_) => true,
            Self::Column(column) => column.is_claimed(),
            _ => false,
        }
    }

    /// Whether it shows the time of the line and nothing else.
    pub(super) fn is_time(&self) -> bool {
        match self {
            Self::Ts => true,
            Self::Column(column) => column.is_time(),
            _ => false,
        }
    }

    /// What it shows of a time in a zone, if [`Field::is_time`].
    pub(super) fn time_text(&self, at: Timestamp, zone: &Zone) -> String {
        match self {
            Self::Column(column) => column.time_text(at, zone),
            _ => zone.text(at),
        }
    }

    /// As `each`; nothing is handed over where a key of the path is there again, so that what came before no longer counts.
    fn walk<'v>(
        &self,
        first_key: Option<&Finder<'_>>,
        record: &'v Record<'_>,
        place: &Place<'v>,
        mut found: impl FnMut(Option<Value<'v>>),
    ) -> bool {
        let string = |text: &'v str| Value::String(Cow::Borrowed(text));
        found(Some(match self {
            Self::Ts => Value::String(record.ts.to_string().into()),
            Self::JobId => string(&record.job_id),
            Self::WorkspaceId => string(&record.workspace_id),
            Self::Event => string(&record.event),
            Self::Message => Value::String(record.message()),
            Self::Segment => string(place.segment),
            Self::Index => Value::Number(place.index.to_string().into()),
            Self::Rank => Value::Number(place.rank.to_string().into()),
            Self::Column(column) => return column.each(record, place, &mut |value| found(Some(value))),
            // No value lies so deep.
            Self::Meta(steps) if steps.len() > PATH_MAX => return false,
            Self::Meta(steps) => {
                let skim = Skim::over(record.meta, record.strings);
                let mut walk = Walk { skim, first_key, found, is_ambiguous: false };
                // A record's `meta` is JSON; of what is none, what was found before it ended counts.
                let _whole = walk.to(steps);
                return walk.is_ambiguous;
            }
        }));
        false
    }
}

fn unknown(name: &str, columns: &[Arc<Column>]) -> FilterError {
    if !columns.is_empty() {
        let keys: Vec<_> = columns.iter().map(|column| column.key()).collect();
        return FilterError::at(
            0,
            format!("no such field; the view has {}; a path into meta begins with `meta.`", keys.join(", ")),
        );
    }
    let fields = "ts, jobId, workspaceId, event, message, meta, segment, index or rank";
    let known = MEMBERS.iter().find(|(member, _)| member.eq_ignore_ascii_case(name));
    match known {
        _ if name.is_empty() => FilterError::at(0, format!("expected a field: {fields}")),
        Some((member, _)) => FilterError::at(0, format!("no such field; this one is spelt `{member}`")),
        None => FilterError::at(0, format!("no such field; expected {fields} (a path into meta begins with `meta.`)")),
    }
}

/// How many bytes a key without quotes takes at the start of a text.
fn bare_key(text: &str) -> usize {
    let ends = |(at, char): (usize, char)| {
        let is_operator = || ["!=", "!~", "^=", "$="].iter().any(|operator| text[at..].starts_with(operator));
        char.is_whitespace() || matches!(char, '.' | '[' | ']' | '"' | '=' | '<' | '>' | '~') || is_operator()
    };
    text.char_indices().find(|place| ends(*place)).map_or(text.len(), |(at, _)| at)
}

impl Step {
    /// Reads a step and how many bytes it takes; nothing if none begins here.
    fn parse_start(text: &str) -> Result<Option<(Self, usize)>, FilterError> {
        if let Some(rest) = text.strip_prefix('[') {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let Ok(item) = rest[..digits].parse() else {
                return Err(FilterError::at(1, "expected the number of an item, from 0"));
            };
            if !rest[digits..].starts_with(']') {
                return Err(FilterError::at(1 + digits, "expected `]`"));
            }
            return Ok(Some((Self::Item(item), digits + 2)));
        }
        let Some(rest) = text.strip_prefix('.') else { return Ok(None) };
        if rest.starts_with('"') {
            let mut scanner = Scanner::over(rest);
            let key = scanner.string("").map_err(|bad| FilterError::at(1 + bad.offset, bad.what))?;
            if let Some(offset) = scanner.half_surrogate {
                return Err(FilterError::at(1 + offset, "half a surrogate pair"));
            }
            return Ok(Some((Self::Key(key.value().into_owned()), 1 + scanner.offset())));
        }
        match bare_key(rest) {
            0 => Err(FilterError::at(1, "expected a key; one with such characters stands in double quotes")),
            length => Ok(Some((Self::Key(rest[..length].to_owned()), 1 + length))),
        }
    }
}

/// A way through `meta` to the values at a path.
struct Walk<'v, 'k, F> {
    skim: Skim<'v>,
    /// What finds the end of the first key of a path, until it is entered.
    first_key: Option<&'k Finder<'k>>,
    found: F,
    is_ambiguous: bool,
}

impl<'v, F: FnMut(Option<Value<'v>>)> Walk<'v, '_, F> {
    /// Goes over the value that begins here, handing over what lies in it at the path. It goes as deep as the value,
    /// which nests at most 128 levels, however long the path.
    fn to(&mut self, path: &[Step]) -> Option<()> {
        match (path, self.skim.peek()?) {
            ([], _) => (self.found)(Some(self.skim.value()?)),
            ([Step::Key(name), rest @ ..], b'{') => {
                let (mut first_key, mut times) = (self.first_key.take(), 0);
                let mut more = self.skim.enter();
                while more {
                    if self.skim.key()?.is(name) {
                        times += 1;
                        if times > 1 {
                            self.is_ambiguous = true;
                            (self.found)(None);
                        }
                        self.to(rest)?;
                        // Nothing else is on the way then. To ask again at each repetition would not be linear.
                        if first_key.take().is_some_and(|key| self.skim.lacks(key)) {
                            return Some(());
                        }
                    } else {
                        self.skim.skip()?;
                    }
                    more = self.skim.next_item();
                }
            }
            ([Step::Item(wanted), rest @ ..], b'[') => {
                let (mut number, mut more) = (0, self.skim.enter());
                while more {
                    if number == *wanted {
                        self.to(rest)?;
                    } else {
                        self.skim.skip()?;
                    }
                    (number, more) = (number + 1, self.skim.next_item());
                }
            }
            _ => _ = self.skim.skip()?,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const HERE: Place<'_> = Place { segment: "1/audit-3_20260128T091244.381Z.jsonl", index: 7, rank: 3 };

    fn line(meta: &str) -> String {
        format!(r#"{{"ts":0,"jobId":"j","workspaceId":"w","event":"e","message":"m","meta":{meta}}}"#)
    }

    /// What a field finds in a `meta`, in short, and whether that is ambiguous.
    fn found(field: &str, meta: &str) -> (Vec<String>, bool) {
        let line = line(meta);
        let record = Record::parse(line.as_bytes()).unwrap();
        let mut values = Vec::new();
        let is_ambiguous = Field::parse(field).unwrap().each(&record, &HERE, |value| {
            values.push(match value {
                Value::Null => "null".to_owned(),
                Value::Boolean(value) => value.to_string(),
                Value::Number(text) | Value::Structured(text) => text.into_owned(),
                Value::String(text) => format!("{text:?}"),
            });
        });
        (values, is_ambiguous)
    }

    #[test]
    fn members_and_places_have_one_value() {
        for (field, value) in [
            ("ts", "\"1970-01-01T00:00:00.000Z\""),
            ("jobId", "\"j\""),
            ("workspaceId", "\"w\""),
            ("event", "\"e\""),
            ("message", "\"m\""),
            ("meta", "[1, 2]"),
            ("segment", "\"1/audit-3_20260128T091244.381Z.jsonl\""),
            ("index", "7"),
            ("rank", "3"),
        ] {
            assert_eq!(found(field, "[1, 2]"), (vec![value.to_owned()], false), "{field}");
        }
    }

    #[test]
    fn a_path_leads_to_the_values_at_its_end() {
        let meta = r#" { "user" : { "na\u006de" : "Zoë\ud800" } , "files" : [ {"n":1.50} , null , [ true ] ] , "a.b" : {"" : {}} , "$ref": 1, "é[": 2 } "#;
        for (field, value) in [
            ("meta.user.name", "\"Zoë\u{fffd}\""),
            ("meta.files[0].n", "1.50"),
            ("meta.files[1]", "null"),
            ("meta.files[2][0]", "true"),
            ("meta.\"a.b\".\"\"", "{}"),
            ("meta.\"\\u0061.b\"", "{\"\" : {}}"),
            ("meta.$ref", "1"),
            ("meta.\"é[\"", "2"),
        ] {
            assert_eq!(found(field, meta), (vec![value.to_owned()], false), "{field}");
        }
        for field in [
            "meta.user.nam",
            "meta.user.name.x",
            "meta.files[3]",
            "meta.files.n",
            "meta.files.\"0\"",
            "meta[0]",
            "meta.\"a\".b",
        ] {
            assert_eq!(found(field, meta), (vec![], false), "{field}");
        }
    }

    #[test]
    fn a_key_that_is_repeated_on_the_way_is_ambiguous() {
        let meta = r#"{"a":{"b":1,"x":0,"x":0},"a":{"c":2},"a":{"b":{},"b":3},"d":0}"#;
        assert_eq!(found("meta.a.b", meta), (vec!["1".into(), "{}".into(), "3".into()], true));
        assert_eq!(found("meta.a.c", meta), (vec!["2".into()], true));
        assert_eq!(found("meta.d", meta), (vec!["0".into()], false));
        let line = line(meta);
        let record = Record::parse(line.as_bytes()).unwrap();
        let last = |field: &str| Field::parse(field).unwrap().last(&record, &HERE);
        assert_eq!(last("meta.a.b"), Some(Value::Number("3".into())));
        // The last `a` has none, whatever an earlier one has.
        assert_eq!(last("meta.a.c"), None);
        assert_eq!(last("meta.d"), Some(Value::Number("0".into())));
    }

    #[test]
    fn what_is_no_field_is_refused_at_its_place() {
        for (text, offset, part) in [
            ("", 0, "expected a field"),
            ("path", 0, "begins with `meta.`"),
            ("jobid", 0, "`jobId`"),
            ("event.x", 5, "no parts"),
            ("meta.", 5, "expected a key"),
            ("meta.a..b", 7, "expected a key"),
            ("meta.a[", 7, "number of an item"),
            ("meta.a[-1]", 7, "number of an item"),
            ("meta.a[99999999999999999999]", 7, "number of an item"),
            ("meta.a[1", 8, "`]`"),
            ("meta.a[1]x", 9, "expected"),
            ("meta.\"a", 7, "ends"),
            ("meta.\"\\x\"", 6, "escape"),
            ("meta.\"\\ud800\"", 6, "surrogate"),
            ("meta.a b", 6, "expected"),
            ("event ", 5, "expected"),
        ] {
            let error = Field::parse(text).expect_err(text);
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }
}

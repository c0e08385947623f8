//! A view's column: what it is called, and where its value comes from.

use std::collections::BTreeMap;

use super::number;
use crate::reader::field::{Field, Place, Value};
use crate::reader::record::Record;
use crate::reader::when::{TimeFormat, Zone};
use crate::record::Timestamp;
use crate::record::json::write_string;

/// A column of a view.
///
/// Its value is that of the first source that holds something; else its members, if any of them holds something; else its
/// default; else, where a source is there and is empty, the empty string. Null, the empty string and what is missing hold nothing; nor do objects and lists where it shows texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(super) key: String,
    pub(super) title: String,
    pub(super) from: Vec<Source>,
    /// It shows texts: numbers and booleans become strings, objects and lists hold nothing.
    pub(super) is_text: bool,
    pub(super) members: Vec<Column>,
    pub(super) default: Option<Constant>,
    /// What some values are shown as, by [`folded`] text.
    pub(super) map: BTreeMap<String, Constant>,
    /// How a time is written, if not as RFC 3339.
    pub(super) time: Option<TimeFormat>,
}

/// Where a value may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// As it is written in the view.
    pub(super) name: String,
    pub(super) origin: Origin,
    /// Shown in place of whatever it holds.
    pub(super) show: Option<Constant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Field(Field),
    /// The permalink: `segment:index`.
    Id,
    /// [`number::of`].
    Number,
}

/// A value that a view brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Constant {
    Boolean(bool),
    /// As it is spelt, in JSON's way.
    Number(String),
    String(String),
}

impl Constant {
    fn value<'v>(&self) -> Value<'v> {
        match self {
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Number(text) => Value::Number(text.clone().into()),
            Self::String(text) => Value::String(text.clone().into()),
        }
    }
}

impl Column {
    /// What it is called in JSON, in conditions and in lists of columns.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it is called for people, in CSV and tables.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Where its value may come from, in the order in which these are asked, its members' sources too: fields, `id` and `number`.
    #[must_use]
    pub fn sources(&self) -> Vec<&str> {
        let own = self.from.iter().map(|source| source.name.as_str());
        own.chain(self.members.iter().flat_map(Self::sources)).collect()
    }

    /// What it shows where no source holds anything, as text.
    #[must_use]
    pub fn default_text(&self) -> Option<String> {
        self.default.as_ref().map(|default| match default {
            Constant::Boolean(value) => value.to_string(),
            Constant::Number(text) | Constant::String(text) => text.clone(),
        })
    }

    /// Whether what it shows may come from what is the job's own claim: event, message or `meta`.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        let is_claim = |source: &Source| matches!(&source.origin, Origin::Field(field) if field.is_claimed());
        self.from.iter().any(is_claim) || self.members.iter().any(Self::is_claimed)
    }

    /// Whether a text, if it shows that, is a string of the line, as all else that it may show is another text.
    pub(in crate::reader) fn has_from_line(&self, text: &str) -> bool {
        let is_other = |constant: &Constant| !matches!(constant, Constant::String(value) if value == text);
        let is_in_line = |source: &Source| {
            let place = |field: &Field| matches!(field, Field::Ts | Field::Segment | Field::Index | Field::Rank);
            matches!(&source.origin, Origin::Field(field) if !place(field)) && source.show.as_ref().is_none_or(is_other)
        };
        self.from.iter().all(is_in_line)
            && self.map.values().all(is_other)
            && self.default.as_ref().is_none_or(is_other)
    }

    /// Hands over what it shows of a record; where a key on the path of the source is there more than once, what it would show for
    /// each, the last one last. Returns whether that is so.
    pub(in crate::reader) fn each<'v>(
        &self,
        record: &'v Record<'_>,
        place: &Place<'v>,
        found: &mut dyn FnMut(Value<'v>),
    ) -> bool {
        let (mut is_ambiguous, mut is_empty) = (false, false);
        for source in &self.from {
            let (last, repeated) = match &source.origin {
                Origin::Field(field) => field.last_of(record, place),
                Origin::Id => (Some(Value::String(format!("{}:{}", place.segment, place.index).into())), false),
                Origin::Number => (Some(Value::Number(number::of(record.ts, place).to_string().into())), false),
            };
            is_ambiguous |= repeated;
            let Some(last) = last else { continue };
            if !self.takes(&last) {
                is_empty |= source.show.is_none() && matches!(last, Value::String(_));
                continue;
            }
            if let (Origin::Field(field), true) = (&source.origin, repeated) {
                field.each(record, place, |value| {
                    if self.takes(&value) {
                        found(self.shown(source, value, record));
                    }
                });
            }
            found(self.shown(source, last, record));
            return is_ambiguous;
        }
        if let Some(object) = self.object(record, place, &mut is_ambiguous) {
            found(Value::Structured(object.into()));
        } else if let Some(default) = &self.default {
            found(default.value());
        } else if is_empty {
            found(Value::String("".into()));
        }
        is_ambiguous
    }

    /// Whether a value is one that can be shown.
    fn takes(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Structured(_) => !self.is_text,
            Value::Boolean(_) | Value::Number(_) => true,
        }
    }

    fn shown<'v>(&self, source: &Source, value: Value<'v>, record: &Record<'_>) -> Value<'v> {
        if let Some(constant) = &source.show {
            return constant.value();
        }
        if let (Some(format), Origin::Field(Field::Ts)) = (&self.time, &source.origin) {
            return Value::String(format.text(record.ts, &Zone::UTC).into());
        }
        let mapped = match &value {
            Value::String(text) | Value::Number(text) if !self.map.is_empty() => self.map.get(&folded(text)),
            Value::Boolean(boolean) => self.map.get(if *boolean { "true" } else { "false" }),
            _ => None,
        };
        match mapped.map_or(value, Constant::value) {
            scalar @ (Value::Number(_) | Value::Boolean(_)) if self.is_text => Value::String(scalar.text().into()),
            shown => shown,
        }
    }

    /// The members as a JSON object; nothing if all of them are empty.
    fn object(&self, record: &Record<'_>, place: &Place<'_>, is_ambiguous: &mut bool) -> Option<String> {
        let (mut object, mut is_empty) = (Vec::new(), true);
        for member in &self.members {
            object.push(if object.is_empty() { b'{' } else { b',' });
            write_string(&member.key, &mut object);
            object.push(b':');
            let mut last = None;
            *is_ambiguous |= member.each(record, place, &mut |value| last = Some(value));
            is_empty &= last.is_none();
            last.unwrap_or(Value::Null).write_json(&mut object);
        }
        object.push(b'}');
        (!is_empty).then(|| String::from_utf8(object).expect("JSON of strings is UTF-8"))
    }

    /// Whether all that it shows is the time of the line.
    pub(in crate::reader) fn is_time(&self) -> bool {
        matches!(self.from.as_slice(), [Source { origin: Origin::Field(Field::Ts), show: None, .. }])
    }

    /// What it shows of a time in a zone, if [`Column::is_time`].
    pub(in crate::reader) fn time_text(&self, at: Timestamp, zone: &Zone) -> String {
        self.time.as_ref().map_or_else(|| zone.text(at), |format| format.text(at, zone))
    }
}

/// A text by which names are compared: its letters and digits, in lower case.
pub(super) fn folded(text: &str) -> String {
    text.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

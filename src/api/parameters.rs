//! What a request asks for: the parameters behind the `?`, each known by its name.
//!
//! A route says in a table which ones it knows. The description of the API is made of the same tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::http::{Code, Problem};
use crate::reader::error::FilterError;
use crate::reader::field::Field;
use crate::reader::view::Column;

/// A parameter that a route knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    /// What it is for; a sentence.
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
    /// How an answer may differ that repeats it: not at all, as it is refused, if it may not.
    pub(crate) is_repeatable: bool,
    pub(crate) is_required: bool,
}

/// What a parameter's value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Any text, such as this one.
    Text { example: &'static str },
    /// A number, both ends included.
    Number { min: u64, max: u64, default: Option<u64> },
    /// One of a few words, the first if it is left out.
    OneOf(&'static [&'static str]),
}

impl Parameter {
    pub(crate) const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, about, kind, is_repeatable: false, is_required: false }
    }

    pub(crate) const fn text(name: &'static str, example: &'static str, about: &'static str) -> Self {
        Self::new(name, Kind::Text { example }, about)
    }

    pub(crate) const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    pub(crate) const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }
}

/// The parameters of a request: all are known to its route, and given more than once only where that is of use.
#[derive(Debug)]
pub(crate) struct Parameters {
    known: Vec<Parameter>,
    given: Vec<(String, String)>,
}

impl Parameters {
    /// Reads what stands behind the `?`, as forms are encoded: `%20` and `+` are a space.
    ///
    /// # Errors
    /// 400 `unknown_parameter`, `bad_parameter`: one that is unknown, given twice, not given, or no UTF-8.
    pub(crate) fn parse(query: Option<&str>, tables: &[&[Parameter]]) -> Result<Self, Problem> {
        let known: Vec<Parameter> = tables.iter().copied().flatten().copied().collect();
        let mut given = Vec::new();
        let mut names = BTreeSet::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| bad("", None, "the name of a parameter is not UTF-8"))?;
            let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                let names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
                let detail = if names.is_empty() {
                    "this route knows no parameters".to_owned()
                } else {
                    format!("this route knows {}", names.join(", "))
                };
                return Err(Problem::parameter(Code::UnknownParameter, &name, None, detail));
            };
            if !names.insert(parameter.name) && !parameter.is_repeatable {
                return Err(bad(parameter.name, None, "given twice"));
            }
            let value = decode(value).ok_or_else(|| bad(parameter.name, None, "not UTF-8"))?;
            given.push((name, value));
        }
        if let Some(missing) = known.iter().find(|parameter| parameter.is_required && !names.contains(parameter.name)) {
            return Err(bad(missing.name, None, "it must be given"));
        }
        Ok(Self { known, given })
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that is not given twice.
    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// A number, or its default.
    ///
    /// # Errors
    /// 400 `bad_parameter`: it is none, or too large.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        let kind = self.known.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.kind);
        let Some(Kind::Number { min, max, default }) = kind else { return Ok(None) };
        let Some(text) = self.one(name) else { return Ok(default) };
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_plain && (min..=max).contains(number));
        number.map(Some).ok_or_else(|| bad(name, None, format!("must be a number from {min} to {max}")))
    }

    /// One of the words that a parameter may be, or the first of them.
    ///
    /// # Errors
    /// 400 `bad_parameter`: it is none of them.
    pub(crate) fn word(&self, name: &'static str) -> Result<&'static str, Problem> {
        let kind = self.known.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.kind);
        let Some(Kind::OneOf(words)) = kind else { return Ok("") };
        let Some(text) = self.one(name) else { return Ok(words[0]) };
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| bad(name, None, format!("must be one of {}", words.join(", "))))
    }

    /// Fields by their names; columns of a view are fields, too.
    ///
    /// # Errors
    /// 400 `bad_parameter`: one is no field.
    pub(crate) fn fields(&self, name: &str, columns: &[Arc<Column>]) -> Result<Vec<(&str, Field)>, Problem> {
        let field = |text| Ok((text, Field::parse_among(text, columns).map_err(|error| fault(name, &error))?));
        self.all(name).map(field).collect()
    }

    /// What is given, but these parameters; in an order that does not hang on how it was given.
    pub(crate) fn all_but(&self, names: &[&str]) -> Vec<(&str, &str)> {
        let mut rest: Vec<_> = self.given.iter().filter(|(name, _)| !names.contains(&name.as_str())).collect();
        rest.sort_unstable();
        rest.into_iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// The refusal of a parameter's value.
pub(crate) fn bad(name: &str, offset: Option<usize>, detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::parameter(Code::BadParameter, name, offset, detail)
}

/// The refusal of a parameter whose value stops making sense at some byte.
pub(crate) fn fault(name: &str, error: &FilterError) -> Problem {
    bad(name, Some(error.offset), error.reason.clone())
}

fn decode(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Parameter] = &[
        Parameter::text("event", "A", "One.").repeatable(),
        Parameter::text("since", "24h", "One."),
        Parameter::new("limit", Kind::Number { min: 1, max: 10, default: Some(4) }, "One."),
        Parameter::new("order", Kind::OneOf(&["desc", "asc"]), "One."),
    ];

    fn parse(query: &str) -> Result<Parameters, String> {
        Parameters::parse(Some(query), &[TABLE]).map_err(|problem| text(&problem))
    }

    fn text(problem: &Problem) -> String {
        let body: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
        format!("{} {} {}", body["code"].as_str().unwrap(), body["parameter"], body["detail"])
    }

    #[test]
    fn parameters_are_read_as_forms_are_encoded() {
        let parameters = parse("event=a%20b+c&event=%2B&&event&since=x=y").unwrap();
        assert_eq!(parameters.all("event").collect::<Vec<_>>(), ["a b c", "+", ""]);
        assert_eq!((parameters.one("since"), parameters.one("order")), (Some("x=y"), None));
        assert_eq!(parameters.number("limit").unwrap(), Some(4));
        assert_eq!(parameters.word("order").unwrap(), "desc");
        let same = parse("since=x%3Dy&event=&event=a+b+c&event=%2b").unwrap();
        assert_eq!(same.all_but(&["limit"]), parameters.all_but(&["limit"]));
        assert!(Parameters::parse(None, &[]).is_ok());
    }

    #[test]
    fn what_is_unknown_repeated_or_no_text_is_refused_by_its_name() {
        for (query, expected) in [
            ("evnt=a", r#"unknown_parameter "evnt" "this route knows event, since, limit, order""#),
            ("since=a&since=a", r#"bad_parameter "since" "given twice""#),
            ("event=%ff", r#"bad_parameter "event" "not UTF-8""#),
        ] {
            assert_eq!(parse(query).unwrap_err(), expected, "{query}");
        }
        for limit in ["0", "11", "-1", "+1", "1.0", "", "99999999999999999999999"] {
            let parameters = parse(&format!("limit={}", limit.replace('+', "%2B"))).unwrap();
            let refused = parameters.number("limit").map_err(|problem| text(&problem));
            assert_eq!(refused, Err(r#"bad_parameter "limit" "must be a number from 1 to 10""#.to_owned()), "{limit}");
        }
        let refused = parse("order=ASC").unwrap().word("order").map_err(|problem| text(&problem));
        assert_eq!(refused, Err(r#"bad_parameter "order" "must be one of desc, asc""#.to_owned()));
        let required: &[Parameter] = &[Parameter::text("field", "event", "One.").required()];
        let refused = Parameters::parse(Some(""), &[required]).map_err(|problem| text(&problem)).unwrap_err();
        assert_eq!(refused, r#"bad_parameter "field" "it must be given""#);
    }
}

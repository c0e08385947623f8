//! What is asked for: conditions that a record meets or does not.
//!
//! A filter is asked twice. [`Filter::may_match`] looks at a line's bytes and throws away most of those that cannot
//! match, never one that does; [`Filter::matches`] then has the record.

use std::ops::RangeInclusive;
use std::sync::Arc;

use memchr::memmem::Finder;

pub use super::error::FilterError;
pub use super::field::Place;
use super::field::{Field, Step, Value};
use super::marks::Marks;
use super::needle::{Left, Needle};
use super::number::Decimal;
use super::record::{Record, canonical_ts};
use super::skim::Skim;
use super::view::{Column, InCategory};
use super::word::Word;
use crate::record::Timestamp;

/// The parts of a filter, joined by AND. An empty list, and nothing, ask for nothing.
#[derive(Debug, Clone, Default)]
pub struct Criteria {
    /// From this instant on.
    pub since: Option<Timestamp>,
    /// Before this instant.
    pub until: Option<Timestamp>,
    /// `event` is one of these.
    pub events: Vec<String>,
    /// `jobId` is one of these.
    pub jobs: Vec<String>,
    /// `workspaceId` is one of these.
    pub workspaces: Vec<String>,
    /// The rank is one of these.
    pub ranks: Vec<u32>,
    /// Each of these holds.
    pub conditions: Vec<Condition>,
    /// The operation is of one of these categories.
    pub category: Option<InCategory>,
    /// Each of these texts' words, split at white space, occurs in event, message or a string in `meta` (not in a key),
    /// ignoring ASCII case.
    pub texts: Vec<String>,
    /// Whose records there are at all, for whoever asks.
    pub scope: Scope,
}

/// Whose records there are for somebody: those of other workspaces are not counted either, see [`Coverage`](super::search::Coverage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    #[default]
    All,
    /// Those of these workspaces.
    Workspaces(Vec<String>),
}

impl Scope {
    /// Whether a workspace's records are in it.
    #[must_use]
    pub fn holds(&self, workspace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Workspaces(workspaces) => workspaces.iter().any(|one| one == workspace),
        }
    }
}

/// Criteria made ready for many records.
#[derive(Debug, Clone)]
pub struct Filter {
    criteria: Criteria,
    /// See [`Filter::range`].
    range: RangeInclusive<Timestamp>,
    /// In lower case.
    words: Vec<Word>,
    /// What a line must hold to spell what is asked for in another way: only `\u` spells a character that has no shorter escape.
    escape: Finder<'static>,
    /// What is asked of members: of each list, a line without such an escape must hold at least one to match.
    of_members: Vec<Vec<Finder<'static>>>,
    /// What conditions ask: it must hold each of these.
    needles: Vec<Needle>,
    /// See [`Condition::first_key`], of each condition.
    first_keys: Vec<Option<Finder<'static>>>,
}

impl Filter {
    /// Makes a filter.
    #[must_use]
    pub fn new(criteria: Criteria) -> Self {
        let words = criteria.texts.iter().flat_map(|text| text.split_whitespace()).map(Word::new).collect();
        let lists = [&criteria.events, &criteria.jobs, &criteria.workspaces];
        let strings = lists.into_iter().filter(|list| (1..=NEEDLES_MAX).contains(&list.len()));
        let of_members = strings.map(|list| list.iter().map(|text| needle(&format!("\"{text}\""))).collect()).collect();
        let needles = criteria.conditions.iter().flat_map(Condition::needles).map(|text| Needle::new(&text)).collect();
        let start = criteria.since.unwrap_or(Timestamp::from_millis(0));
        let range = match criteria.until.map(Timestamp::millis) {
            None => start..=Timestamp::MAX,
            // Nothing is before the first instant.
            Some(0) => Timestamp::MAX..=Timestamp::from_millis(0),
            Some(until) => start..=Timestamp::from_millis(until - 1),
        };
        let texts = [&criteria.events, &criteria.jobs, &criteria.workspaces, &criteria.texts].into_iter().flatten();
        let is_plain =
            texts.map(String::as_str).chain(criteria.conditions.iter().flat_map(Condition::texts)).all(is_plain);
        let escape = needle(if is_plain { "\\u" } else { "\\" });
        let first_keys = criteria.conditions.iter().map(Condition::first_key).collect();
        Self { criteria, range, words, escape, of_members, needles, first_keys }
    }

    /// Whether a record is asked for.
    #[must_use]
    pub fn matches(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        self.answer(record, place).is_some()
    }

    /// As [`Filter::matches`] and [`Filter::is_ambiguous`] of what matches.
    pub(super) fn answer(&self, record: &Record<'_>, place: &Place<'_>) -> Option<bool> {
        let Criteria { ranks, conditions, category, .. } = &self.criteria;
        if !(ranks.is_empty() || ranks.contains(&place.rank)) || !self.matches_members(record) {
            return None;
        }
        let mut is_ambiguous = false;
        for (condition, first_key) in conditions.iter().zip(&self.first_keys) {
            let (holds, is_repeated) = condition.answer(first_key.as_ref(), record, place);
            if !holds {
                return None;
            }
            is_ambiguous |= is_repeated;
        }
        if let Some(category) = category {
            if !category.holds(record, place) {
                return None;
            }
            is_ambiguous |= category.is_ambiguous(record, place);
        }
        self.says_all_words(record).then_some(is_ambiguous)
    }

    /// Whether a record of this time and event (`None` if it is not known) might match.
    pub(super) fn may_match_at(&self, ts: Timestamp, event: Option<&[u8]>) -> bool {
        let Criteria { events, .. } = &self.criteria;
        let is_wanted = |event: &[u8]| events.is_empty() || events.iter().any(|wanted| wanted.as_bytes() == event);
        self.range.contains(&ts) && event.is_none_or(is_wanted)
    }

    /// Whether records of a record's job and workspace are asked for.
    pub(super) fn holds_whose(&self, record: &Record<'_>) -> bool {
        let Criteria { jobs, workspaces, scope, .. } = &self.criteria;
        is_any(jobs, &record.job_id) && is_any(workspaces, &record.workspace_id) && scope.holds(&record.workspace_id)
    }

    fn matches_members(&self, record: &Record<'_>) -> bool {
        self.range.contains(&record.ts) && is_any(&self.criteria.events, &record.event) && self.holds_whose(record)
    }

    /// Tells of each line of a block whether it might match, members apart; nothing is told if all lines might.
    pub(super) fn sift(&self, block: &[u8], marks: &Marks, may_match: &mut Vec<bool>) {
        may_match.clear();
        if self.needles.is_empty() && self.words.is_empty() {
            return;
        }
        let mut lines = Left::all(marks, may_match);
        for needle in &self.needles {
            needle.keep(block, &mut lines);
        }
        for word in &self.words {
            lines.keep(|from| word.find_start(&block[from..]).map(|at| from + at));
        }
        // As `may_be_escaped`: where backslashes are is known.
        let behind = self.escape.needle().get(1);
        marks.each_backslash(|at| {
            if behind.is_none_or(|byte| block[at + 1] == *byte) {
                lines.spare(at);
            }
        });
    }

    /// Whether a line may spell what is looked for in another way.
    fn may_be_escaped(&self, line: &[u8]) -> bool {
        self.escape.find(line).is_some()
    }

    /// Whether a segment of this rank, in this job's folder and this workspace's directory if in one, may hold a record that matches:
    /// there, those of others are in nobody's scope.
    #[must_use]
    pub fn may_be_in(&self, rank: u32, job: Option<&str>, workspace: Option<&str>) -> bool {
        let Criteria { ranks, jobs, workspaces, scope, .. } = &self.criteria;
        let is_wanted = |wanted: &[String], one: Option<&str>| {
            wanted.is_empty() || one.is_none_or(|one| wanted.iter().any(|text| text == one))
        };
        (ranks.is_empty() || ranks.contains(&rank))
            && is_wanted(jobs, job)
            && is_wanted(workspaces, workspace)
            && workspace.is_none_or(|workspace| scope.holds(workspace))
    }

    /// Whether records are chosen by their times and by where they lie, and few others are beside them.
    pub(super) fn is_by_place(&self) -> bool {
        self.criteria.events.is_empty() && self.is_by_event()
    }

    /// Whether records are chosen by their times and events, and by where they lie and whose they are.
    pub(super) fn is_by_event(&self) -> bool {
        let Criteria { conditions, category, .. } = &self.criteria;
        conditions.is_empty() && category.is_none() && self.words.is_empty()
    }

    /// Whose records there are.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.criteria.scope
    }

    /// Whether the answer for a record hangs on a key of `meta` that is there more than once.
    #[must_use]
    pub fn is_ambiguous(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        self.criteria.conditions.iter().any(|condition| condition.field.each(record, place, |_| {}))
            || self.criteria.category.as_ref().is_some_and(|category| category.is_ambiguous(record, place))
    }

    /// Whether a line, given without its newline, might match; never false for a record that does.
    ///
    /// It looks for bytes only: a line may pass for a record that does not match, or be damaged.
    #[must_use]
    pub fn may_match(&self, line: &[u8]) -> bool {
        if canonical_ts(line).is_some_and(|start| !self.range.contains(&start.at)) {
            return false;
        }
        let is_there = |needle: &Finder<'_>| needle.find(line).is_some();
        let holds_all = self.of_members.iter().all(|any| any.iter().any(is_there))
            && self.needles.iter().all(|needle| needle.is_in(line))
            && self.words.iter().all(|word| word.find_start(line).is_some());
        holds_all || self.may_be_escaped(line)
    }

    /// The instants at which a record may match, both ends included; empty if there are none.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<Timestamp> {
        self.range.clone()
    }

    fn says_all_words(&self, record: &Record<'_>) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let has_backslash = memchr::memchr(b'\\', record.meta.as_bytes()).is_some();
        let says = |word: &Word| {
            let is_in = |text: &str| word.is_in(text.as_bytes());
            let mut skim = Skim::over(record.meta, record.strings);
            is_in(&record.event)
                || is_in(&record.message())
                || if has_backslash || word.is_long() {
                    std::iter::from_fn(|| skim.next_string()).any(|text| is_in(&text.value()))
                } else {
                    word.each_in(record.meta.as_bytes()).any(|range| skim.is_in_value(&range) == Some(true))
                }
        };
        self.words.iter().all(says)
    }
}

/// Whether a value is wanted; a list without any wants all.
fn is_any(wanted: &[String], value: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|text| text == value)
}

/// Whether none of a text's characters has an escape but `\uXXXX`.
fn is_plain(text: &str) -> bool {
    !text.contains(|char: char| matches!(char, '"' | '\\' | '/') || char.is_ascii_control())
}

/// Lists longer than this are left to `matches`: looking for each would take longer than reading the record.
const NEEDLES_MAX: usize = 16;

fn needle(text: &str) -> Finder<'static> {
    Finder::new(text.as_bytes()).into_owned()
}

/// What `--where` asks for: `FIELD OP VALUE`, or `FIELD exists`, or `FIELD missing`.
///
/// ```
/// use audit_log::reader::filter::Condition;
///
/// assert!(Condition::parse("meta.rows >= 1e3").is_ok());
/// let error = Condition::parse("meta.rows => 1e3").unwrap_err();
/// assert_eq!(error.offset, 10);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    Compare { operator: Operator, text: String, is_number: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    ContainsNot,
    Starts,
    Ends,
}

/// Each before those that it begins with.
const OPERATORS: [(&str, Operator); 10] = [
    ("!=", Operator::NotEqual),
    ("!~", Operator::ContainsNot),
    ("^=", Operator::Starts),
    ("$=", Operator::Ends),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("~", Operator::Contains),
];

impl Condition {
    /// Reads a condition.
    ///
    /// The value is the rest of the text behind the operator and the white space that follows it, to the last byte, and
    /// may be empty; it has no quotes. If it is a JSON number, numbers are compared with it by their exact value and
    /// strings with its text; else strings alone, byte by byte. A path that is there more than once holds if any of its
    /// values does; `= true` and `= false` are for these values, and for strings of that text. What cannot be compared
    /// (null, arrays, objects, a number with a text, or by `~`, `!~`, `^=`, `$=`) makes every operator false, `!=` and
    /// `!~` too.
    ///
    /// # Errors
    /// Tells at which byte the text ceases to be a condition.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Self::parse_among(text, &[])
    }

    /// As [`Condition::parse`]; a field may also be a column of a view, by its key.
    ///
    /// # Errors
    /// Those of [`Condition::parse`].
    pub fn parse_among(text: &str, columns: &[Arc<Column>]) -> Result<Self, FilterError> {
        let start = text.len() - text.trim_start().len();
        let (field, length) = Field::parse_start(&text[start..], columns).map_err(|error| error.moved(start))?;
        let rest = text[start + length..].trim_start();
        let at = text.len() - rest.len();
        for (word, test) in [("exists", Test::Exists), ("missing", Test::Missing)] {
            let Some(behind) = rest.strip_prefix(word) else { continue };
            if !behind.trim().is_empty() {
                return Err(FilterError::at(at + word.len(), format!("expected nothing behind `{word}`")));
            }
            return Ok(Self { field, test });
        }
        let Some((symbol, operator)) = OPERATORS.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) else {
            return Err(FilterError::at(at, "expected =, !=, <, <=, >, >=, ~, !~, ^=, $=, exists or missing"));
        };
        let slips = [
            ("==", "equals is `=`"),
            ("=~", "contains is `~`"),
            ("=>", "write `>=`"),
            ("=<", "write `<=`"),
            ("<>", "write `!=`"),
            (">>", "greater is `>`"),
            ("<<", "less is `<`"),
        ];
        if let Some((_, hint)) = slips.into_iter().find(|(slip, _)| rest.starts_with(slip)) {
            let value = "; a value that begins so stands behind a space";
            return Err(FilterError::at(at, format!("no such operator: {hint}{value}")));
        }
        Ok(Self::of(field, operator, rest[symbol.len()..].trim_start()))
    }

    /// The condition that a field compares so with a value, which may be any text; `None` if there is no such operator.
    #[must_use]
    pub fn compare(field: Field, symbol: &str, value: &str) -> Option<Self> {
        let (_, operator) = OPERATORS.into_iter().find(|(known, _)| *known == symbol)?;
        Some(Self::of(field, operator, value))
    }

    fn of(field: Field, operator: Operator, value: &str) -> Self {
        let is_number = Decimal::parse(value).is_some();
        Self { field, test: Test::Compare { operator, text: value.to_owned(), is_number } }
    }

    /// Whether it holds for a record.
    #[must_use]
    pub fn holds(&self, record: &Record<'_>, place: &Place<'_>) -> bool {
        self.answer(None, record, place).0
    }

    /// As `holds`, and whether that hangs on a key that is there more than once; with what [`Field::each_before`] wants.
    fn answer(&self, first_key: Option<&Finder<'_>>, record: &Record<'_>, place: &Place<'_>) -> (bool, bool) {
        let (mut is_there, mut is_met) = (false, false);
        let is_ambiguous = self.field.each_before(first_key, record, place, |value| {
            is_there = true;
            is_met = is_met || self.test.is_met(&value);
        });
        (if self.test == Test::Missing { !is_there } else { is_met }, is_ambiguous)
    }

    /// The end of its path's first key as lines without `\u` spell it, with the quote behind it; nothing if it has other escapes.
    fn first_key(&self) -> Option<Finder<'static>> {
        let Field::Meta(steps) = &self.field else { return None };
        match steps.first()? {
            Step::Key(key) if is_plain(key) => Some(needle(&format!("{key}\""))),
            _ => None,
        }
    }

    /// The texts in it that lines may spell.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let value = match &self.test {
            Test::Compare { text, .. } => Some(text.as_str()),
            Test::Exists | Test::Missing => None,
        };
        let steps = if let Field::Meta(steps) = &self.field { steps.as_slice() } else { &[] };
        let keys = steps.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        });
        value.into_iter().chain(keys)
    }

    /// What a line that spells no text of it by escapes must hold for this to be true, as bytes.
    fn needles(&self) -> Vec<String> {
        let mut needles = Vec::new();
        // A time is spelt in many ways, a place is not in the line, and what a column shows need not be.
        let is_in_line = match (&self.field, &self.test) {
            (Field::Column(column), Test::Compare { operator: Operator::Equal, text, .. }) => {
                column.has_from_line(text)
            }
            (Field::Ts | Field::Segment | Field::Index | Field::Rank | Field::Column(_), _) => false,
            _ => true,
        };
        if let (Test::Compare { operator, text, is_number }, true) = (&self.test, is_in_line) {
            match operator {
                // As a number it has many spellings, and no quotes.
                Operator::Equal if *is_number => {}
                Operator::Equal if text == "true" || text == "false" => needles.push(text.clone()),
                Operator::Equal => needles.push(format!("\"{text}\"")),
                Operator::Starts => needles.push(format!("\"{text}")),
                Operator::Ends => needles.push(format!("{text}\"")),
                Operator::Contains => needles.push(text.clone()),
                _ => {}
            }
        }
        // Fewer lines hold a value than its key, and few of those have another key: to look for that, too, takes longer than it spares.
        let is_told = !needles.is_empty();
        if let (Field::Meta(steps), false, true) = (&self.field, is_told, self.test != Test::Missing) {
            needles.extend(steps.iter().rev().filter_map(|step| match step {
                Step::Key(key) => Some(format!("\"{key}\"")),
                Step::Item(_) => None,
            }));
        }
        needles
    }
}

impl Test {
    fn is_met(&self, value: &Value<'_>) -> bool {
        let Self::Compare { operator, text, is_number } = self else {
            return *self == Self::Exists;
        };
        match value {
            Value::Boolean(value) => *operator == Operator::Equal && *text == value.to_string(),
            Value::String(value) => operator.holds_for_strings(value, text),
            Value::Number(value) if *is_number => match (Decimal::parse(value), Decimal::parse(text)) {
                (Some(value), Some(wanted)) => operator.holds(value.cmp(&wanted)).unwrap_or(false),
                _ => false,
            },
            Value::Null | Value::Number(_) | Value::Structured(_) => false,
        }
    }
}

impl Operator {
    fn holds_for_strings(self, value: &str, wanted: &str) -> bool {
        match self {
            Self::Contains => value.contains(wanted),
            Self::ContainsNot => !value.contains(wanted),
            Self::Starts => value.starts_with(wanted),
            Self::Ends => value.ends_with(wanted),
            _ => self.holds(value.cmp(wanted)).unwrap_or(false),
        }
    }

    /// What it says of two values in this order; nothing if it is about texts.
    fn holds(self, order: std::cmp::Ordering) -> Option<bool> {
        Some(match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Contains | Self::ContainsNot | Self::Starts | Self::Ends => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::marks::Strings;
    use crate::reader::spelling::{Json, Model, Spelling, any_model, any_string, damaged};

    const HERE: Place<'_> = Place { segment: "1/audit-3_20260128T091244.381Z.jsonl", index: 7, rank: 3 };
    const LINE: &str = concat!(
        r#"{"ts":"2026-01-28T09:12:44.381Z","jobId":"5003592","workspaceId":"W","event":"DATA_EXPORT","#,
        r#""message":"Exported Zoë's \"results\"","meta":{"path":"/work/out.csv","rows":12500,"big":9007199254740993,"#,
        r#""version":"1.0","ok":true,"bad":false,"none":null,"files":["a",{"n":1.50}],"twice":1,"twice":"x"}}"#
    );

    fn holds(condition: &str) -> bool {
        Condition::parse(condition).expect(condition).holds(&Record::parse(LINE.as_bytes()).unwrap(), &HERE)
    }

    fn matches(filter: &Filter) -> bool {
        filter.matches(&Record::parse(LINE.as_bytes()).unwrap(), &HERE)
    }

    #[test]
    fn conditions_hold_as_the_contract_says() {
        for condition in [
            "event = DATA_EXPORT",
            "event=DATA_EXPORT",
            "  event   =   DATA_EXPORT",
            "event != data_export",
            "event ^= DATA",
            "event $= EXPORT",
            "event ~ A_E",
            "event !~ a_e",
            "message = Exported Zoë's \"results\"",
            "jobId = 5003592",
            "jobId = 5003592",
            "jobId ~ 0035",
            "ts >= 2026-01-28",
            "ts < 2026-01-28T09:12:44.382Z",
            "rank = 3.0",
            "index < 1e1",
            "segment ^= 1/audit-",
            "meta.rows = 12500",
            "meta.rows = 1.25e4",
            "meta.rows = 12500.0",
            "meta.rows > 12499.999",
            "meta.rows <= 12500",
            "meta.rows != 12501",
            "meta.big = 9007199254740993",
            "meta.big != 9007199254740992",
            "meta.big > 9007199254740992",
            "meta.version = 1.0",
            "meta.version != 1",
            "meta.version $= .0",
            "meta.version < 1.1",
            "meta.ok = true",
            "meta.bad = false",
            "meta.none exists",
            "meta.nothing missing",
            "meta.ok exists ",
            "meta exists",
            "meta.files[0] = a",
            "meta.files[1].n = 1.5",
            "meta.files[2] missing",
            "meta.twice = 1",
            "meta.twice = x",
            "meta.twice != 1",
            "meta.path >= /work",
            "meta.path ~",
            "meta.\"path\" $= .csv",
        ] {
            assert!(holds(condition), "{condition}");
        }
        for condition in [
            "event = DATA_EXPORT ",
            "event = \"DATA_EXPORT\"",
            "event = data_export",
            "event < A",
            "jobId = 5003592.0",
            "rank = x",
            "rank != x",
            "rank ~ 3",
            "index !~ 3",
            "meta.rows = abc",
            "meta.rows != abc",
            "meta.rows ~ 25",
            "meta.rows !~ 9",
            "meta.rows ^= 1",
            "meta.rows < 12500",
            "meta.big = 9007199254740992",
            "meta.version = 1",
            "meta.nothing != 1",
            "meta.nothing !~ x",
            "meta.nothing = ",
            "meta.nothing exists",
            "meta.none missing",
            "meta.none = null",
            "meta.none != 1",
            "meta.none !~ x",
            "meta.ok != false",
            "meta.ok !~ x",
            "meta.ok = false",
            "meta.bad = true",
            "meta.bad != true",
            "meta.ok ~ true",
            "meta.ok >= true",
            "meta.files = []",
            "meta.files != 1",
            "meta.files !~ x",
            "meta != 1",
            "meta.files[0] = 0",
            "meta.twice missing",
            "meta.twice = y",
        ] {
            assert!(!holds(condition), "{condition}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_at_its_place() {
        for (text, offset, part) in [
            ("", 0, "expected a field"),
            ("  path = x", 2, "begins with `meta.`"),
            ("meta.a", 6, "expected ="),
            ("meta.a is 1", 7, "expected ="),
            ("meta.a == 1", 7, "equals is `=`"),
            ("meta.a =~ 1", 7, "contains is `~`"),
            ("meta.a => 1", 7, "`>=`"),
            ("meta.a =< 1", 7, "`<=`"),
            ("meta.a <> 1", 7, "`!=`"),
            ("meta.a >> 1", 7, "greater is `>`"),
            ("meta.a << 1", 7, "less is `<`"),
            ("meta.a exists 1", 13, "nothing behind `exists`"),
            ("meta.a missing=", 14, "nothing behind `missing`"),
            ("é = 1", 0, "no such field"),
            ("meta.\"é = 1", 12, "ends"),
        ] {
            let error = Condition::parse(text).expect_err(text);
            assert_eq!(error.offset, offset, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn criteria_are_joined_and_lists_are_any_of() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let at = |millis: i64| Some(Timestamp::from_millis(1_769_591_564_381 + millis));
        let everything = || Criteria {
            since: at(0),
            until: at(1),
            events: strings(&["X", "DATA_EXPORT"]),
            jobs: strings(&["5003592"]),
            workspaces: strings(&["W", "w"]),
            ranks: vec![0, 3],
            conditions: vec![Condition::parse("meta.ok = true").unwrap(), Condition::parse("meta.rows > 1").unwrap()],
            texts: strings(&["RESULTS zoë", "/WORK data_"]),
            scope: Scope::Workspaces(strings(&["w", "W"])),
            ..Criteria::default()
        };
        assert!(matches(&Filter::new(Criteria::default())));
        assert!(matches(&Filter::new(everything())));
        let changes: [fn(&mut Criteria); 9] = [
            |criteria| criteria.since = criteria.until,
            |criteria| criteria.until = criteria.since,
            |criteria| criteria.events = vec!["DATA_EXPOR".to_owned()],
            |criteria| criteria.jobs = vec!["500".to_owned()],
            |criteria| criteria.workspaces = vec!["w".to_owned()],
            |criteria| criteria.ranks = vec![0],
            |criteria| criteria.conditions.push(Condition::parse("meta.rows > 1e9").unwrap()),
            |criteria| criteria.texts.push("nowhere".to_owned()),
            |criteria| criteria.scope = Scope::Workspaces(Vec::new()),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut criteria = everything();
            change(&mut criteria);
            assert!(!matches(&Filter::new(criteria)), "{number}");
        }
    }

    #[test]
    fn words_are_looked_for_in_strings_and_not_in_keys() {
        let says = |text: &str| matches(&Filter::new(Criteria { texts: vec![text.to_owned()], ..Criteria::default() }));
        for text in ["", "  ", "export", "EXPORTED out.CSV", "\"results\"", "zoë's", "1.0", "x A"] {
            assert!(says(text), "{text}");
        }
        for text in ["path", "version", "12500", "5003592", "true", "ZOË", "export nowhere", "exported_zoë"] {
            assert!(!says(text), "{text}");
        }
        // One that is longer than what is compared at a place, in a value and in a key.
        let long = "a".repeat(40);
        for (meta, is_said) in
            [(format!("{{\"k\":\"{long}\"}}"), true), (format!("{{\"{long}\":\"{}b\"}}", &long[1..]), false)]
        {
            let line = format!(
                "{{\"ts\":0,\"jobId\":\"j\",\"workspaceId\":\"w\",\"event\":\"e\",\"message\":\"\",\"meta\":{meta}}}"
            );
            let filter = Filter::new(Criteria { texts: vec![long.to_uppercase()], ..Criteria::default() });
            assert_eq!(filter.matches(&Record::parse(line.as_bytes()).unwrap(), &HERE), is_said, "{meta}");
        }
    }

    #[test]
    fn the_range_holds_the_first_instant_and_the_last() {
        let range = |since, until| {
            let at = |millis: Option<i64>| millis.map(Timestamp::from_millis);
            Filter::new(Criteria { since: at(since), until: at(until), ..Criteria::default() }).range()
        };
        assert_eq!(range(None, None), Timestamp::from_millis(0)..=Timestamp::MAX);
        assert_eq!(range(Some(5), Some(7)), Timestamp::from_millis(5)..=Timestamp::from_millis(6));
        assert!(range(Some(5), Some(5)).is_empty());
        assert!(range(None, Some(0)).is_empty());
    }

    #[test]
    fn a_filter_tells_what_hangs_on_a_repeated_key() {
        let is_ambiguous = |condition: &str| {
            let conditions = vec![Condition::parse("event exists").unwrap(), Condition::parse(condition).unwrap()];
            let filter = Filter::new(Criteria { conditions, ..Criteria::default() });
            filter.is_ambiguous(&Record::parse(LINE.as_bytes()).unwrap(), &HERE)
        };
        assert!(is_ambiguous("meta.twice = 1"));
        assert!(is_ambiguous("meta.twice missing"));
        assert!(!is_ambiguous("meta.rows = 1"));
    }

    #[test]
    fn bytes_throw_away_what_cannot_match() {
        let passes = |criteria: Criteria| Filter::new(criteria).may_match(LINE.replace('\\', "").as_bytes());
        let condition =
            |text: &str| Criteria { conditions: vec![Condition::parse(text).unwrap()], ..Criteria::default() };
        let text = |text: &str| Criteria { texts: vec![text.to_owned()], ..Criteria::default() };
        for text in [
            "event = XX",
            "meta.z > 1",
            "meta.rows.z exists",
            "message ~ nothing",
            "meta.path $= out",
            "meta.path ^= out",
            "meta.path = /",
        ] {
            assert!(!passes(condition(text)), "{text}");
        }
        assert!(passes(condition("meta.x missing")) && passes(condition("meta.rows = 1")));
        assert!(!passes(text("nowhere")) && !passes(text("zoé")) && passes(text("ZOë OUT.csv")));
        assert!(!passes(Criteria { events: vec!["X".to_owned(), "Y".to_owned()], ..Criteria::default() }));
        assert!(!passes(Criteria { since: Some(Timestamp::from_millis(1_769_591_564_382)), ..Criteria::default() }));
        assert!(!passes(Criteria { until: Some(Timestamp::from_millis(1_769_591_564_381)), ..Criteria::default() }));
        // What has no escape but `\u` is spelt as it is, whatever else is escaped.
        assert!(!Filter::new(condition("event = X")).may_match(LINE.as_bytes()));
        assert!(Filter::new(condition("event = X")).may_match(LINE.replace("DATA", "D\\u0041TA").as_bytes()));
        for escaped in ["event = a\"b", "event = a/b", "meta.\"a/b\" exists", "event ~ a\\b"] {
            assert!(Filter::new(condition(escaped)).may_match(LINE.as_bytes()), "{escaped}");
        }
    }

    /// A condition about something that may well be in a model.
    fn any_condition() -> impl Strategy<Value = String> {
        let field = prop_oneof![
            2 => prop::sample::select(&["ts", "jobId", "workspaceId", "event", "message", "meta", "segment", "index", "rank"][..]).prop_map(str::to_owned),
            5 => prop::collection::vec(prop_oneof![4 => "\\.[abc]", 1 => "\\[[01]\\]"], 1..4).prop_map(|steps| format!("meta{}", steps.concat())),
        ];
        let value = prop_oneof![
            any_string(),
            "-?[0-9]{1,2}(\\.[0-9])?".prop_filter("JSON", |text| Decimal::parse(text).is_some()),
            Just("2026-01-28T09:12:44.382Z".to_owned())
        ];
        let operators = &["=", "=", "=", "!=", "<", "<=", ">", ">=", "~", "!~", "^=", "$=", "exists", "missing"][..];
        (field, prop::sample::select(operators), value).prop_map(|(field, operator, value)| match operator {
            "exists" | "missing" => format!("{field} {operator}"),
            _ => format!("{field} {operator} {value}"),
        })
    }

    fn any_criteria() -> impl Strategy<Value = Criteria> {
        let instant = || {
            prop::option::weighted(
                0.2,
                prop_oneof![0..4i64, 1_769_591_564_381..1_769_591_564_385i64].prop_map(Timestamp::from_millis),
            )
        };
        let list = || prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any_string(), 1..4)];
        let texts = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec("[abAB\"\\\\é0]{1,2}", 1..3)];
        ((instant(), instant()), list(), list(), list(), prop::collection::vec(any_condition(), 0..3), texts).prop_map(
            |((since, until), events, jobs, workspaces, conditions, texts)| Criteria {
                since,
                until,
                events,
                jobs,
                workspaces,
                ranks: Vec::new(),
                conditions: conditions.iter().map(|text| Condition::parse(text).expect(text)).collect(),
                texts,
                ..Criteria::default()
            },
        )
    }

    /// What `--text` says of a value, by the model.
    fn says(value: &Json, word: &str) -> bool {
        match value {
            Json::String(text) => text.to_ascii_lowercase().contains(&word.to_ascii_lowercase()),
            Json::Array(items) => items.iter().any(|item| says(item, word)),
            Json::Object(members) => members.iter().any(|(_, item)| says(item, word)),
            _ => false,
        }
    }

    /// Two spellings of a model.
    fn spellings(model: &Model, seed: u64) -> [String; 3] {
        [Spelling::canonical(), Spelling::random(seed), Spelling::random(!seed)]
            .map(|mut spelling| model.spell(&mut spelling))
    }

    #[test]
    fn a_repeated_key_is_seen_however_it_is_spelt() {
        for (condition, meta) in [
            (r#"meta."a\"b" = 1"#, r#"{"a\"b":1,"a\"b":2}"#),
            (r#"meta."a/b" = 1"#, r#"{"a/b":1,"a\/b":2}"#),
            ("meta.ab = 1", r#"{"ab":1,"\n":0,"a\u0062":2}"#),
            ("meta.ab = 1", r#"{"ab":1,"\n":0,"ab":2}"#),
        ] {
            let condition = Condition::parse(condition).unwrap();
            let (block, mut marks) = (format!("{{\"meta\":{meta}}}\n"), Marks::default());
            assert!(marks.read(block.as_bytes()));
            let strings = Strings::at(&marks, &marks.line(0), 8);
            let record = Record { meta, strings, ..Record::parse(LINE.as_bytes()).unwrap() };
            assert_eq!(condition.answer(condition.first_key().as_ref(), &record, &HERE), (true, true), "{meta}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1536) })]

        #[test]
        fn a_filter_minds_no_spelling_and_bytes_throw_no_match_away(criteria in any_criteria(), model in any_model(), seed: u64) {
            let filter = Filter::new(criteria);
            let lines = spellings(&model, seed);
            let records = [0, 1, 2].map(|at| Record::parse(lines[at].as_bytes()).unwrap());
            let answers = [0, 1, 2].map(|at| filter.matches(&records[at], &HERE));
            prop_assert_eq!(answers, [answers[0]; 3], "{:?}", lines);
            for (line, answer) in lines.iter().zip(answers) {
                prop_assert!(!answer || filter.may_match(line.as_bytes()), "{}", line);
            }
            prop_assert!(!answers[0] || filter.range().contains(&model.ts));
        }

        #[test]
        fn one_part_alone_minds_no_spelling(condition in any_condition(), word in "[abAB\"\\\\é0]{1,2}", model in any_model(), seed: u64) {
            let condition = Condition::parse(&condition).unwrap();
            let by_condition = Filter::new(Criteria { conditions: vec![condition.clone()], ..Criteria::default() });
            let by_text = Filter::new(Criteria { texts: vec![word.clone()], ..Criteria::default() });
            let is_said = [&model.event, &model.message].into_iter().any(|text| says(&Json::String(text.clone()), &word)) || says(&model.meta, &word);
            let lines = spellings(&model, seed);
            let first = condition.holds(&Record::parse(lines[0].as_bytes()).unwrap(), &HERE);
            for line in &lines {
                let record = Record::parse(line.as_bytes()).unwrap();
                prop_assert_eq!(by_condition.matches(&record, &HERE), first, "{}", line);
                prop_assert!(!first || by_condition.may_match(line.as_bytes()), "{}", line);
                prop_assert_eq!(by_text.matches(&record, &HERE), is_said, "{}", line);
                prop_assert!(!is_said || by_text.may_match(line.as_bytes()), "{}", line);
            }
        }

        #[test]
        fn a_line_among_others_may_match_as_it_may_alone(
            criteria in any_criteria(), models in prop::collection::vec(any_model(), 1..6), seed: u64,
        ) {
            let filter = Filter::new(criteria);
            let lines: Vec<_> = models.iter().map(|model| model.spell(&mut Spelling::random(seed)) + "\n").collect();
            let (block, mut marks, mut may_match) = (lines.concat(), Marks::default(), Vec::new());
            prop_assert!(marks.read(block.as_bytes()));
            filter.sift(block.as_bytes(), &marks, &mut may_match);
            // Alone, members are asked for, too.
            let alone = Filter { of_members: Vec::new(), range: Timestamp::from_millis(0)..=Timestamp::MAX, ..filter };
            for (number, line) in lines.iter().enumerate() {
                let may_match = may_match.get(number).is_none_or(|may_match| *may_match);
                prop_assert_eq!(may_match, alone.may_match(line.trim_end().as_bytes()), "{}", line);
            }
        }

        #[test]
        fn what_spares_a_way_changes_no_answer(condition in any_condition(), model in any_model(), seed: u64, hurts: [u64; 8]) {
            let condition = Condition::parse(&condition).unwrap();
            let first_key = condition.first_key();
            let [mut plain, mut spelt] = [const { String::new() }; 2];
            Spelling::canonical().value(&model.meta, &mut plain);
            Spelling::random(seed).value(&model.meta, &mut spelt);
            let hurt = |seed| String::from_utf8(damaged(plain.clone().into_bytes(), seed)).ok();
            let hurt: Vec<_> = hurts.into_iter().filter_map(hurt).collect();
            for meta in [&plain, &spelt].into_iter().chain(&hurt).filter(|meta| !meta.contains('\n')) {
                let (block, mut marks) = (format!("{{\"meta\":{meta}}}\n"), Marks::default());
                prop_assert!(marks.read(block.as_bytes()));
                let record = Record { meta, ..Record::parse(LINE.as_bytes()).unwrap() };
                let helped = Record { strings: Strings::at(&marks, &marks.line(0), 8), ..record.clone() };
                let answer = condition.answer(first_key.as_ref(), &helped, &HERE);
                prop_assert_eq!(answer, condition.answer(None, &record, &HERE), "{}", meta);
            }
        }

        #[test]
        fn any_text_is_a_condition_or_has_a_fault_in_it(text in "(meta|event|ts)?[ .\\[\\]\"\\\\a-c0-9=!<>~^$é\u{2028}]{0,12}") {
            if let Err(error) = Condition::parse(&text) {
                prop_assert!(text.is_char_boundary(error.offset), "{} in {:?}", error.offset, text);
                prop_assert!(error.show(&text).contains('^'));
            }
        }
    }
}

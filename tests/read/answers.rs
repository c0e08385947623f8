//! The library's answers, in the form that `queries.py` describes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use audit_log::reader::field::{self, Field};
use audit_log::reader::filter::{Condition, Criteria, Filter, Place};
use audit_log::reader::listing::{Listing, Source, Sources};
use audit_log::reader::record::{Damage, Record};
use audit_log::reader::search::{Found, Notice, Search};
use audit_log::reader::sorted::Order;
use audit_log::reader::when::{self, Zone};
use audit_log::record::Timestamp;
use serde_json::{Value, json};

/// Directories that queries are asked of.
pub(crate) struct Reader {
    sources: Sources,
    listing: Listing,
    paths: Vec<String>,
}

impl Reader {
    /// Reads which segments there are; the directories are spelt as on the command line.
    pub(crate) fn new(directories: &[String]) -> Self {
        let sources = directories.iter().map(|text| Source::parse(text).unwrap()).collect();
        let sources = Sources::new(sources).unwrap();
        let listing = Listing::new(&sources);
        assert!(listing.troubles.is_empty(), "{:?}", listing.troubles);
        let paths = listing.segments.iter().map(|segment| segment.path(&sources)).collect();
        Self { sources, listing, paths }
    }

    /// The answer to a query.
    pub(crate) fn answer(&self, query: &Value) -> Value {
        let filter = filter(&query["filters"]);
        let (damaged, foreign) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let notice = |notice: Notice<'_>| match notice {
            Notice::Damaged { segment, index, damage } => {
                damaged.lock().unwrap().push((segment.to_owned(), index, kind_of(damage)));
            }
            Notice::Foreign { segment, index } => foreign.lock().unwrap().push((segment.to_owned(), index)),
            Notice::Unreadable { path, error } => panic!("{path}: {error}"),
            Notice::Searched { .. } | Notice::Cut { .. } => {}
        };
        let is_stopped = AtomicBool::new(false);
        let search = Search::new((&self.sources, &self.listing), &filter, &notice, &is_stopped);
        match query["kind"].as_str().unwrap() {
            "query" => self.rows(query, &search, &filter),
            "facets" => facets(&fields(query), &search),
            "histogram" => histogram(query, &search),
            "counts" => {
                let (records, coverage) = search.each(
                    || 0_u64,
                    |count, _| {
                        *count += 1;
                        ControlFlow::Continue(())
                    },
                );
                let (mut damaged, mut foreign) = (damaged.lock().unwrap(), foreign.lock().unwrap());
                damaged.sort();
                foreign.sort();
                assert_eq!((coverage.damaged, coverage.foreign), (damaged.len() as u64, foreign.len() as u64));
                json!({
                    "segments": coverage.segments, "lines": coverage.lines, "records": records.iter().sum::<u64>(),
                    "damaged": *damaged, "foreign": *foreign,
                })
            }
            kind => panic!("unknown kind {kind}"),
        }
    }

    fn rows(&self, query: &Value, search: &Search<'_>, filter: &Filter) -> Value {
        let number = |name: &str| query[name].as_u64().map(|number| usize::try_from(number).unwrap());
        let offset = number("offset").unwrap_or(0);
        let order = if query["order"] == "asc" { Order::Ascending } else { Order::Descending };
        let (mut sorted, _) = search.sorted(order, number("limit").map(|limit| limit + offset)).unwrap();
        let fields = fields(query);
        let (mut rows, mut passed) = (Vec::new(), 0);
        while let Some(line) = sorted.next_line(&self.listing, &self.sources).unwrap() {
            let segment = self.paths[line.segment].as_str();
            let text = || String::from_utf8_lossy(&line.line);
            assert!(
                filter.may_match(&line.line),
                "a look at its bytes throws {segment}:{} away: {}",
                line.index,
                text()
            );
            passed += 1;
            if passed <= offset {
                continue;
            }
            if query["fields"].is_null() {
                rows.push(json!([segment, line.index]));
                continue;
            }
            let record = Record::parse(&line.line).unwrap();
            let rank = self.listing.segments[line.segment].name.rank();
            let place = Place { segment, index: line.index, rank };
            let values: Vec<_> = fields.iter().map(|(_, field)| value(field.last(&record, &place))).collect();
            rows.push(json!([segment, line.index, values]));
        }
        rows.into()
    }
}

/// An answer without what is not to be compared: the order of equal counts, and how many records the oracle calls ambiguous, as the
/// library asks whether an answer hangs on it.
pub(crate) fn comparable(query: &Value, mut answer: Value) -> Value {
    let sort = |rows: &mut Value| rows.as_array_mut().unwrap().sort_by_cached_key(ToString::to_string);
    match query["kind"].as_str().unwrap() {
        "facets" => answer.as_object_mut().unwrap().values_mut().for_each(sort),
        "histogram" => sort(&mut answer),
        "counts" => drop(answer.as_object_mut().unwrap().remove("ambiguous")),
        _ => {}
    }
    answer
}

/// Whether an answer says that nothing was found.
pub(crate) fn is_empty(answer: &Value) -> bool {
    match answer {
        Value::Array(rows) => rows.is_empty(),
        Value::Object(parts) => parts.values().all(is_empty),
        _ => false,
    }
}

fn filter(filters: &Value) -> Filter {
    let texts = |name: &str| -> Vec<String> {
        let list = filters[name].as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let utc = Zone::parse("UTC").unwrap();
    let time = |name: &str| filters[name].as_str().map(|text| when::parse(text, &utc, Timestamp::MAX).unwrap());
    let ranks = filters["rank"].as_array().into_iter().flatten();
    Filter::new(Criteria {
        since: time("since"),
        until: time("until"),
        events: texts("event"),
        jobs: texts("job"),
        workspaces: texts("workspace"),
        ranks: ranks.map(|rank| u32::try_from(rank.as_u64().unwrap()).unwrap()).collect(),
        conditions: texts("where").iter().map(|text| Condition::parse(text).unwrap()).collect(),
        texts: filters["text"].as_str().into_iter().map(str::to_owned).collect(),
        ..Criteria::default()
    })
}

/// The fields that a query names, with their names.
fn fields(query: &Value) -> Vec<(&str, Field)> {
    let names = query["fields"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap());
    names.map(|name| (name, Field::parse(name).unwrap())).collect()
}

fn facets(fields: &[(&str, Field)], search: &Search<'_>) -> Value {
    let counted = counts(search, |found, add| {
        for (name, field) in fields {
            if let Some(last) = field.last(found.record, &found.place) {
                add([(*name).to_owned(), value(Some(last)).to_string()]);
            }
        }
    });
    let mut answer: BTreeMap<&str, Vec<Value>> = fields.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for ([name, value], count) in &counted {
        let rows = answer.get_mut(name.as_str()).unwrap();
        rows.push(json!([serde_json::from_str::<Value>(value).unwrap(), count]));
    }
    json!(answer)
}

fn histogram(query: &Value, search: &Search<'_>) -> Value {
    let width_ms = match query["interval"].as_str().unwrap() {
        "minute" => 60_000,
        "hour" => 3_600_000,
        _ => 86_400_000,
    };
    let by = query["by"].as_str().map(|name| Field::parse(name).unwrap());
    let counted = counts(search, |found, add| {
        let start = Timestamp::from_millis(found.record.ts.millis() / width_ms * width_ms);
        let value = by.as_ref().map(|field| value(field.last(found.record, &found.place)));
        add([start.to_string(), value.unwrap_or_default().to_string()]);
    });
    let rows = counted
        .iter()
        .map(|([start, value], count)| json!([start, serde_json::from_str::<Value>(value).unwrap(), count]));
    rows.collect()
}

/// How often each key was added.
fn counts(
    search: &Search<'_>,
    each: impl Fn(&Found<'_>, &mut dyn FnMut([String; 2])) + Sync,
) -> BTreeMap<[String; 2], u64> {
    let (parts, _) = search.each(BTreeMap::new, |counts, found| {
        each(found, &mut |key| *counts.entry(key).or_insert(0) += 1);
        ControlFlow::Continue(())
    });
    let mut counts = BTreeMap::new();
    for (key, count) in parts.into_iter().flatten() {
        *counts.entry(key).or_insert(0) += count;
    }
    counts
}

fn value(value: Option<field::Value<'_>>) -> Value {
    match value {
        None => json!({"missing": true}),
        Some(field::Value::Null) => Value::Null,
        Some(field::Value::Boolean(value)) => value.into(),
        Some(field::Value::Number(text)) => json!({"number": plain(&text)}),
        Some(field::Value::String(text)) => text.into(),
        Some(field::Value::Structured(text)) => {
            json!({"structure": if text.starts_with('{') { "object" } else { "array" }})
        }
    }
}

/// One spelling for all of a number's: no exponent for up to 40 digits, no zeros that say nothing.
fn plain(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    // The number is 0.`digits` times ten to this power.
    let power =
        power.parse::<i64>().unwrap() + i64::try_from(digits.len()).unwrap() - i64::try_from(fraction.len()).unwrap();
    let digits = digits.trim_end_matches('0');
    if let Some(whole) = usize::try_from(power).ok().filter(|whole| (1..=40).contains(whole)) {
        if digits.len() <= whole {
            return format!("{sign}{digits:0<whole$}");
        }
        return format!("{sign}{}.{}", &digits[..whole], &digits[whole..]);
    }
    if (-40..=0).contains(&power) {
        return format!("{sign}0.{}{digits}", "0".repeat(usize::try_from(-power).unwrap()));
    }
    let (first, rest) = digits.split_at(1);
    format!("{sign}{first}{}{rest}e{}", if rest.is_empty() { "" } else { "." }, power - 1)
}

fn kind_of(damage: Damage) -> &'static str {
    match damage {
        Damage::TooLong => "tooLong",
        Damage::Nul => "nul",
        Damage::NotUtf8 => "notUtf8",
        Damage::NotJson => "notJson",
        Damage::NotARecord => "notARecord",
        Damage::Torn => "torn",
    }
}

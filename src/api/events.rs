//! Records: by pages, and one by one.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::extract::{RawQuery, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::Ref;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, Array, ArrayBuilder, ObjectBuilder};

use super::Console;
use super::answer::{self, Whole, write_json};
use super::caller::Caller;
use super::cursor::{self, Cursor};
use super::filters::{self, FILTERS, ORDER, VIEW};
use super::gate::Gate;
use super::kept::Kept;
use super::library::View as Snapshot;
use super::parameters::{Kind, Parameter, Parameters, bad};
use super::search::{self, Searched};
use crate::clock::{Clock, SystemClock};
use crate::http::{Code, Problem};
use crate::reader::field::Place;
use crate::reader::filter::{Condition, Criteria, Filter, Scope};
use crate::reader::listing::{Listing, Segment, Sources};
use crate::reader::output::{Columns, Drain};
use crate::reader::record::Record;
use crate::reader::search::{After, Coverage};
use crate::reader::sorted::Order;
use crate::reader::view::View;
use crate::record::Timestamp;

/// Records of a page where nobody says how many.
const LIMIT: u64 = 40;
/// Records of a page at most.
const LIMIT_MAX: u64 = 1_000;
/// Records that can be left out; whoever wants those behind goes on by cursor.
const OFFSET_MAX: u64 = 1_000_000;
/// A page ends with the record that makes it longer; a record has 2 MiB at most.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// What a page is asked for by, beside the filters.
pub(super) const PAGE: &[Parameter] = &[
    ORDER,
    Parameter::new(
        "limit",
        Kind::Number { min: 1, max: LIMIT_MAX, default: Some(LIMIT) },
        "At most so many records. A page may have fewer, as it ends when it has more than 2 MiB; `next` goes on.",
    ),
    Parameter::new(
        "offset",
        Kind::Number { min: 0, max: OFFSET_MAX, default: Some(0) },
        "Leave out so many first. What is written meanwhile moves the others; a cursor does not mind.",
    ),
    Parameter::text(
        "cursor",
        "",
        "`next` of the page before, with the same filters and order: the records behind it, of those that could be read at the first page.",
    ),
];

/// A record: the members of its line, and where that lies.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Item<'r> {
    /// The permalink's id, `segment:index`.
    id: String,
    /// The path of its segment below its directory, without `.gz` and `.zst`.
    segment: &'r str,
    /// The number of its line in the segment, from 0.
    index: u64,
    /// The rank that the segment's name tells.
    rank: u32,
    /// When it was written, in UTC: the sidecar's word.
    #[schema(value_type = String, format = DateTime)]
    ts: String,
    /// The job that it is of: the sidecar's word.
    job_id: &'r str,
    /// The workspace that it is of: the sidecar's word.
    workspace_id: &'r str,
    /// What happened: the job's word.
    event: &'r str,
    /// The same for people: the job's word.
    #[schema(value_type = String)]
    message: Cow<'r, str>,
    /// Any value, as it is spelt in the line: the job's word.
    #[schema(value_type = serde_json::Value)]
    meta: &'r RawValue,
}

impl<'r> Item<'r> {
    pub(crate) fn new(record: &'r Record<'r>, place: &Place<'r>) -> Self {
        Self {
            id: format!("{}:{}", place.segment, place.index),
            segment: place.segment,
            index: place.index,
            rank: place.rank,
            ts: record.ts.to_string(),
            job_id: &record.job_id,
            workspace_id: &record.workspace_id,
            event: &record.event,
            message: record.message(),
            meta: serde_json::from_str(record.meta).expect("a record's meta is JSON"),
        }
    }
}

/// Writes a record: an [`Item`], or what columns show of it; returns whether that hangs on a key that is there more than once.
fn write_item(
    columns: Option<&Columns>,
    (record, place): (&Record<'_>, &Place<'_>),
    out: &mut Vec<u8>,
    drain: &mut Drain<'_>,
) -> bool {
    let Some(columns) = columns else {
        write_json(&Item::new(record, place), out);
        return false;
    };
    columns.write_object(record, place, out, drain)
}

/// A page of records.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Page<'r> {
    /// The records, in order.
    #[schema(schema_with = shown)]
    items: Vec<Item<'r>>,
    /// The cursor of the next page; null on the last one.
    next: Option<String>,
    /// What was looked at.
    searched: Searched,
}

/// Records as they are, or as a view shows them.
fn shown() -> Array {
    let row = ObjectBuilder::new()
        .description(Some("With `view`: the values of its columns, by their keys."))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)));
    ArrayBuilder::new().items(AnyOfBuilder::new().item(Ref::from_schema_name("Item")).item(row)).build()
}

/// `GET /api/v1/events`.
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Asked::new(&console, query.as_deref(), caller)?;
    let claims = answer::claims(asked.columns.as_ref());
    let turn = console.gate.search().await?;
    let asking = Arc::clone(&console);
    let (body, count) = search::run(turn, move |is_stopped| asked.answer(&asking, is_stopped)).await?;
    Ok((claims, answer::whole(body, count).map_err(|error| search::failed(&error))?).into_response())
}

/// What a page is asked for.
struct Asked {
    criteria: Criteria,
    /// What is shown of each record; nothing: all of it.
    columns: Option<Columns>,
    order: Order,
    limit: usize,
    offset: usize,
    /// When the first page was asked for.
    at: Timestamp,
    fingerprint: u64,
    /// The last record of the page before, and the snapshot that is shown.
    after: Option<(After, Option<u64>)>,
}

impl Asked {
    fn new(console: &Console, query: Option<&str>, caller: Caller) -> Result<Self, Problem> {
        let parameters = Parameters::parse(query, &[FILTERS, PAGE])?;
        let number = |name| -> Result<usize, Problem> {
            Ok(parameters.number(name)?.unwrap_or_default().try_into().unwrap_or(usize::MAX))
        };
        let (limit, offset) = (number("limit")?, number("offset")?);
        let order = filters::order(&parameters)?;
        let fingerprint = cursor::fingerprint(&parameters.all_but(&["limit", "cursor"]));
        let (mut at, mut after) = (SystemClock.now(), None);
        if let Some(text) = parameters.one("cursor") {
            let unusable = |detail| Problem::parameter(Code::BadCursor, "cursor", None, detail);
            if parameters.one("offset").is_some() {
                return Err(bad("offset", None, "a cursor says where to go on; leave the offset out"));
            }
            let cursor = Cursor::parse(text).ok_or_else(|| unusable("it is not the `next` of a page"))?;
            if cursor.fingerprint != fingerprint {
                return Err(unusable("it is the `next` of other filters, or of another order; send those of its page"));
            }
            let segment = Segment::named(console.library.sources(), &cursor.segment);
            let segment = segment.ok_or_else(|| unusable("it is the `next` of other directories"))?;
            at = cursor.asked;
            let snapshot = (cursor.process == console.process).then_some(cursor.snapshot);
            after = Some((After { order, ts: cursor.ts, segment, index: cursor.index }, snapshot));
        }
        let (criteria, _) = filters::criteria(&parameters, &console.views, at, caller.scope)?;
        let columns = filters::view(&parameters, &console.views)?.map(View::all);
        Ok(Self { criteria, columns, order, limit, offset, at, fingerprint, after })
    }

    /// The page, and how many records are on it.
    fn answer(self, console: &Console, is_stopped: &AtomicBool) -> Result<(Whole, u64), Problem> {
        let Self { mut criteria, columns, order, limit, offset, at, fingerprint, after } = self;
        let library = &console.library;
        let (after, snapshot) = after.map_or((None, None), |(after, snapshot)| (Some(after), snapshot));
        if let Some(After { ts, .. }) = after {
            // What is before or behind the last record's time is on none of the pages to come.
            match order {
                Order::Ascending => criteria.since = criteria.since.max(Some(ts)),
                Order::Descending => {
                    let end = ts.plus_millis(1);
                    criteria.until = Some(criteria.until.map_or(end, |until| until.min(end)));
                }
            }
        }
        let filter = Filter::new(criteria);
        let wanted = Wanted { filter: &filter, columns: columns.as_ref(), order, limit, offset, after: after.as_ref() };
        // A snapshot that is no longer kept is taken anew: what is behind the last record is still neither left out nor repeated.
        let kept = snapshot.and_then(|id| Some((id, library.view(id)?)));
        let (snapshot, mut shown) = kept.unwrap_or_else(|| library.take());
        let mut attempt = 1;
        let Filled { mut body, count, last, has_more, coverage, .. } = loop {
            let filled = wanted.fill(&shown, library.sources(), &console.gate, is_stopped)?;
            if !filled.is_disturbed() || attempt == ATTEMPTS_MAX {
                break filled;
            }
            // Segments were packed or swept between finding a record and reading it; by now that is known.
            attempt += 1;
            library.listing();
            shown = library.view(snapshot).unwrap_or(shown);
        };
        if has_more && last.is_none() {
            return Err(Problem::new(Code::Overloaded, "segments are swept away while they are read; try again"));
        }
        let next = last.filter(|_| has_more).map(|(ts, index, segment)| {
            Cursor { process: console.process, snapshot, asked: at, fingerprint, ts, index, segment }.text()
        });
        finish(&mut body.bytes, next, coverage);
        Ok((body, count as u64))
    }
}

/// How often a page is filled whose segments change meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// The records of a page.
struct Wanted<'w> {
    filter: &'w Filter,
    columns: Option<&'w Columns>,
    order: Order,
    limit: usize,
    offset: usize,
    after: Option<&'w After>,
}

/// A page that is to be ended.
struct Filled {
    body: Whole,
    count: usize,
    /// Where the last record lies.
    last: Option<(Timestamp, u64, String)>,
    has_more: bool,
    coverage: Coverage,
    /// Segments of which records are missing.
    segments_lost: u64,
}

impl Filled {
    /// Whether records are missing that were found, or all that were found are gone.
    fn is_disturbed(&self) -> bool {
        self.segments_lost > 0 || self.has_more && self.last.is_none()
    }
}

impl Wanted<'_> {
    fn fill(
        &self,
        Snapshot { listing, limits }: &Snapshot,
        sources: &Sources,
        gate: &Gate,
        is_stopped: &AtomicBool,
    ) -> Result<Filled, Problem> {
        let failed = |error| search::failed(&error);
        let mut searching = search::prepare((sources, listing), self.filter, is_stopped).as_listed().limited(limits);
        if let Some(after) = self.after {
            searching = searching.after(after);
        }
        let (mut sorted, mut coverage) =
            searching.sorted(self.order, Some(self.offset + self.limit + 1)).map_err(failed)?;
        for _ in 0..self.offset {
            if sorted.next_line(listing, sources).map_err(failed)?.is_none() {
                break;
            }
        }
        let (mut bytes, mut kept, mut room) = (b"{\"items\":[".to_vec(), Kept::default(), gate.room());
        let (mut count, mut last, mut is_full) = (0, None, false);
        while let Some(line) = sorted.next_line(listing, sources).map_err(failed)? {
            is_full = count == self.limit || kept.bytes() > 0 || bytes.len() > PAGE_BYTES_MAX;
            if is_full {
                break;
            }
            let segment = &listing.segments[line.segment];
            let path = segment.path(sources);
            let record = Record::parse(&line.line).expect("what is no record is left out");
            let place = Place { segment: &path, index: line.index, rank: segment.name.rank() };
            if count > 0 {
                bytes.push(b',');
            }
            let mut keep = |bytes: &mut Vec<u8>| kept.take(bytes);
            let mut drain = Drain::new(PAGE_BYTES_MAX, &mut keep);
            let write = || write_item(self.columns, (&record, &place), &mut bytes, &mut drain);
            let is_ambiguous = gate.long.alone(line.line.len(), write);
            room.grow_to(bytes.len())?;
            coverage.ambiguous += u64::from(is_ambiguous && !self.filter.is_ambiguous(&record, &place));
            last = Some((record.ts, line.index, path));
            count += 1;
        }
        bytes.shrink_to_fit();
        let body = Whole { kept, bytes, room };
        let segments_lost = search::lost(&sorted, listing, sources);
        coverage.unreadable += segments_lost;
        Ok(Filled { body, count, last, has_more: is_full || sorted.has_reached_limit(), coverage, segments_lost })
    }
}

/// Ends a page; the pages that clients see are those of [`Page`].
fn finish(body: &mut Vec<u8>, next: Option<String>, coverage: Coverage) {
    let rest = answer::json(&Page { items: Vec::new(), next, searched: coverage.into() });
    let items = b"{\"items\":[";
    body.extend_from_slice(&rest[items.len()..]);
}

/// What one record is asked for by.
pub(super) const ONE: &[Parameter] = &[VIEW];

/// `GET /api/v1/events/{id}`.
pub(super) async fn one(
    State(console): State<Arc<Console>>,
    caller: Caller,
    uri: Uri,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let parameters = Parameters::parse(query.as_deref(), &[ONE])?;
    let columns = filters::view(&parameters, &console.views)?.map(View::all);
    let claims = answer::claims(columns.as_ref());
    let nothing = || Problem::new(Code::NotFound, "there is no such record");
    let id =
        uri.path().rsplit('/').next().and_then(|id| percent_decode_str(id).decode_utf8().ok()).ok_or_else(nothing)?;
    let (segment, index) = id.rsplit_once(':').ok_or_else(nothing)?;
    let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let index: u64 = index.parse().ok().filter(|_| is_number).ok_or_else(nothing)?;
    let segment = Segment::named(console.library.sources(), segment).ok_or_else(nothing)?;
    let turn = console.gate.search().await?;
    let asking = Arc::clone(&console);
    let body = search::run(turn, move |is_stopped| {
        let listing = asking.library.listing();
        let mut alone = Listing::default();
        alone.segments.extend(listing.position(&segment).map(|number| listing.segments[number].clone()));
        let conditions =
            vec![Condition::parse(&format!("index = {index}")).expect("a field, an operator and a number")];
        let is_everybodys = caller.scope == Scope::All;
        let filter = Filter::new(Criteria { conditions, scope: caller.scope, ..Criteria::default() });
        let search = search::prepare((asking.library.sources(), &alone), &filter, is_stopped);
        let (found, coverage) = search.each(Vec::new, |found: &mut Vec<Whole>, hit| {
            let (mut bytes, mut kept) = (Vec::new(), Kept::default());
            let mut keep = |bytes: &mut Vec<u8>| kept.take(bytes);
            let mut drain = Drain::new(PAGE_BYTES_MAX, &mut keep);
            let write = || write_item(columns.as_ref(), (hit.record, &hit.place), &mut bytes, &mut drain);
            asking.gate.long.alone(hit.record.line.len(), write);
            bytes.shrink_to_fit();
            found.push(Whole { kept, bytes, room: asking.gate.room() });
            std::ops::ControlFlow::Break(())
        });
        if let Some(mut item) = found.into_iter().flatten().next() {
            item.room.grow_to(item.bytes.len())?;
            return Ok(item);
        }
        // Of a segment that no record of the scope is known to be in, nobody in it is told that it is there.
        let is_unread = coverage.unreadable > 0 && (is_everybodys || coverage.searched > 0);
        Err(if is_unread { Problem::new(Code::StorageFailed, "its segment can't be read") } else { nothing() })
    })
    .await?;
    Ok((claims, answer::whole(body, 1).map_err(|error| search::failed(&error))?).into_response())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files of the test itself")]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::api::library::Library;
    use crate::reader::listing::Source;

    /// A page of some records of a library, as far as it could be filled: how many, whether there are more, whether it is whole.
    fn fill(library: &Library, shown: &Snapshot, limit: usize) -> (usize, bool, bool) {
        let filter = Filter::new(Criteria::default());
        let wanted = Wanted { filter: &filter, columns: None, order: Order::Ascending, limit, offset: 0, after: None };
        let filled = wanted.fill(shown, library.sources(), &Gate::new(), &AtomicBool::new(false)).unwrap();
        (filled.count, filled.has_more, !filled.is_disturbed())
    }

    /// A file that was put in the place of another since it was listed is read as soon as that is known.
    #[test]
    fn a_page_that_lacks_records_is_known_to_and_is_whole_once_the_listing_is_up_to_date() {
        let temp = tempfile::tempdir().unwrap();
        let (segment, other) = (temp.path().join("audit-0_20260128T000000.000Z.jsonl"), temp.path().join("other"));
        let line = r#"{"ts":1769591564381,"jobId":"j","workspaceId":"w","event":"e","message":"","meta":null}"#;
        fs::write(&segment, format!("{line}\n{line}\n")).unwrap();
        let source = Source::parse(temp.path().to_str().unwrap()).unwrap();
        let library = Library::new(Sources::new(vec![source]).unwrap());
        let (id, shown) = library.take();
        for (limit, has_more) in [(1, true), (2, false), (3, false)] {
            assert_eq!(fill(&library, &shown, limit), (limit.min(2), has_more, true), "{limit}");
        }
        fs::copy(&segment, &other).unwrap();
        fs::rename(&other, &segment).unwrap();
        assert_eq!(fill(&library, &shown, 2), (0, false, false));
        let is_whole = || {
            library.listing();
            fill(&library, &library.view(id).unwrap(), 2) == (2, false, true)
        };
        let begun = Instant::now();
        while !is_whole() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it stays as it was");
            std::thread::yield_now();
        }
    }
}

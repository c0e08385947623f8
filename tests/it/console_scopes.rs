//! Another workspace's records can't be reached: whatever is asked, by whichever route, parameter, id or cursor, a token gets the
//! answer that there would be if they had never been written.
//!
//! Directories are drawn at random, with segments in which somebody has planted what is not theirs. Beside each is another one for
//! each scope: without the segments in which the scope has no record; where a segment has some, and also records that are not of the
//! scope, these have other contents there, as long as before. Both are asked the same, through the routes without a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use audit_log::api::tokens::{Digest, Token, Tokens};
use audit_log::api::{Access, Console, router};
use audit_log::http::Hosts;
use audit_log::reader::filter::Scope;
use audit_log::reader::listing::{Source, Sources};
use audit_log::reader::view::Views;
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, StatusCode};
use proptest::prelude::*;
use serde_json::Value;
use sha2::Digest as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tower_service::Service;

use crate::support::PATIENCE;
use crate::support::console::encoded;

const WORKSPACES: [&str; 3] = ["w1", "w2", "w3"];
const JOBS: [&str; 3] = ["j1", "j2", "j3"];

/// The directories that are named: of each, the workspace that its lines must be of.
const LAYOUTS: [&[Option<usize>]; 4] = [&[None], &[None], &[None, Some(0)], &[Some(0), Some(1)]];

#[derive(Debug, Clone)]
struct Segment {
    source: usize,
    folder: Option<usize>,
    rank: u8,
    hour: u8,
    packing: u8,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
enum Line {
    Record { millis: u16, job: usize, workspace: usize, content: u8 },
    Damaged(u8),
    Empty,
}

impl Segment {
    fn path(&self) -> String {
        let folder = self.folder.map(|job| format!("{}/", JOBS[job])).unwrap_or_default();
        // Of the last hour, one as UCloud's own server names it.
        if self.hour == 4 {
            return format!("{folder}audit-{}-2026-01-28.jsonl", self.rank);
        }
        format!("{folder}audit-{}_20260128T0{}0000.000Z.jsonl", self.rank, self.hour)
    }

    /// Whether a line is a record that is where it belongs, and of one of some workspaces.
    fn shows(&self, line: &Line, layout: &[Option<usize>], scope: &[usize]) -> bool {
        let Line::Record { job, workspace, .. } = line else { return false };
        scope.contains(workspace)
            && self.folder.is_none_or(|folder| folder == *job)
            && layout[self.source].is_none_or(|own| own == *workspace)
    }

    /// The segment's lines as they are, or as they might be for a scope.
    fn text(&self, layout: &[Option<usize>], scope: Option<&[usize]>) -> String {
        let is_other = |line: &Line| scope.is_some_and(|scope| !self.shows(line, layout, scope));
        self.lines.iter().map(|line| line.text(self.hour, is_other(line))).collect()
    }
}

impl Line {
    fn text(&self, hour: u8, is_other: bool) -> String {
        let (millis, job, workspace, content) = match self {
            Self::Record { millis, job, workspace, content } => (millis, JOBS[*job], WORKSPACES[*workspace], content),
            Self::Damaged(0) => return "not JSON\n".to_owned(),
            Self::Damaged(1) => return "{\"ts\":\"2026-01-28T00:00:00.000Z\"}\n".to_owned(),
            Self::Damaged(_) => return "\0\0\0\n".to_owned(),
            Self::Empty => return "\n".to_owned(),
        };
        let ts = 1_769_558_400_000 + u64::from(hour) * 3_600_000 + u64::from(*millis);
        // Nothing that others have in common with what the scope sees.
        let (letter, n) = if is_other { ('z', 9 - content % 5) } else { ('a', content % 5) };
        let meta = match content % 8 {
            7 => format!("{{\"user\":{{\"name\":\"u{letter}{n}\"}},\"region\":\"r{letter}{n}\"}}"),
            6 => format!("{{\"k\":\"v{letter}{n}\",\"k\":\"u{letter}{n}\"}}"),
            5 => "null".to_owned(),
            _ => format!("{{\"k\":\"v{letter}{n}\",\"n\":{n}}}"),
        };
        format!(
            "{{\"ts\":{ts},\"jobId\":\"{job}\",\"workspaceId\":\"{workspace}\",\"event\":\"E{letter}{n}\",\"message\":\"m{letter}{n}\",\
             \"meta\":{meta}}}\n"
        )
    }
}

/// Most lines belong where they are.
fn segments(sources: usize) -> impl Strategy<Value = Vec<Segment>> {
    let place = (0..sources, prop::option::weighted(0.8, 0..JOBS.len()), 0..2_u8, 0..5_u8, 0..4_u8);
    let line = prop_oneof![
        8 => (0..3000_u16, 0..10_usize, 0..8_usize, any::<u8>()).prop_map(|(millis, job, workspace, content)| {
            Line::Record { millis, job, workspace, content }
        }),
        1 => (0..3_u8).prop_map(Line::Damaged),
        1 => Just(Line::Empty),
    ];
    let segment = (place, 0..WORKSPACES.len(), prop::collection::vec(line, 0..12), any::<bool>());
    let segment = segment.prop_map(|((source, folder, rank, hour, packing), owner, mut lines, is_sorted)| {
        let mut all: Vec<u16> = Vec::new();
        for line in &mut lines {
            if let Line::Record { millis, job, workspace, .. } = line {
                // Of ten jobs, all but three are the folder's; of eight workspaces, all but three the segment's.
                *job = if *job < JOBS.len() { *job } else { folder.unwrap_or(0) };
                *workspace = if *workspace < WORKSPACES.len() { *workspace } else { owner };
                all.push(*millis);
            }
        }
        if is_sorted {
            all.sort_unstable();
            let mut all = all.into_iter();
            for line in &mut lines {
                if let Line::Record { millis, .. } = line {
                    *millis = all.next().unwrap();
                }
            }
        }
        Segment { source, folder, rank, hour, packing, lines }
    });
    prop::collection::vec(segment, 0..10)
}

/// Directories as they are, or as they might be for a scope, and a console over them.
struct World {
    router: Router,
    temp: TempDir,
    _publish: watch::Sender<Arc<Tokens>>,
    _end: watch::Sender<bool>,
}

impl World {
    fn new(layout: &[Option<usize>], segments: &[Segment], scopes: &[Vec<usize>], scope: Option<&[usize]>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), layout, segments, scope);
        let sources = layout.iter().enumerate().map(|(nth, workspace)| {
            let path = temp.path().join(format!("s{nth}"));
            fs::create_dir_all(&path).unwrap();
            Source { name: Some(format!("s{nth}")), path, workspace: workspace.map(|own| WORKSPACES[own].to_owned()) }
        });
        let sources = Sources::new(sources.collect()).unwrap();
        let tokens = scopes.iter().enumerate().map(|(nth, scope)| Token {
            name: format!("token {nth}"),
            digest: Digest::of(format!("secret {nth}").as_bytes()),
            scope: Scope::Workspaces(scope.iter().map(|workspace| WORKSPACES[*workspace].to_owned()).collect()),
            expires: None,
        });
        let (publish, tokens) = watch::channel(Arc::new(Tokens(tokens.collect())));
        let (end, ending) = watch::channel(false);
        let console = Console::new((sources, Views::built_in()), Access::Tokens(tokens), Hosts::Loopback, 7, ending);
        Self { router: router(Arc::new(console)), temp, _publish: publish, _end: end }
    }

    /// Begins a stream; what it answers first tells where it is.
    async fn open(&self, token: usize, target: &str) -> Body {
        let request =
            Request::get(target).header("host", "localhost").header("x-auth-token", format!("secret {token}"));
        let response = self.router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"retry: "));
        body
    }

    async fn get(&self, token: usize, target: &str) -> Answer {
        let request =
            Request::get(target).header("host", "localhost").header("x-auth-token", format!("secret {token}"));
        let response = self.router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body =
            axum::body::to_bytes(body, usize::MAX).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Answer { status: parts.status, headers: parts.headers, body: body.unwrap_or_else(|error| format!("{error}")) }
    }
}

/// Writes segments as they are, or as they might be for a scope.
fn write(dir: &Path, layout: &[Option<usize>], segments: &[Segment], scope: Option<&[usize]>) {
    for segment in segments {
        let is_there = |scope| segment.lines.iter().any(|line| segment.shows(line, layout, scope));
        if scope.is_some_and(|scope| !is_there(scope)) {
            continue;
        }
        let text = segment.text(layout, scope).into_bytes();
        let path = format!("s{}/{}", segment.source, segment.path());
        let (suffix, bytes) = match segment.packing {
            0 => (".gz", super::reading_safety::gzip(&text)),
            1 => (".zst", super::reading_safety::zstd(&text)),
            _ => ("", text),
        };
        put(dir, &(path + suffix), &bytes);
    }
}

fn put(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    /// Takes the cursor of the next page out: it holds when the first one was asked for.
    fn take_cursor(&mut self) -> Option<String> {
        let (before, rest) = self.body.split_once("\"next\":\"")?;
        let (cursor, rest) = rest.split_once('"')?;
        let (cursor, body) = (cursor.to_owned(), format!("{before}\"next\":\"…\"{rest}"));
        self.body = body;
        self.headers.remove("content-length");
        Some(cursor)
    }
}

/// A route and its parameters, as the description tells them.
#[derive(Debug)]
struct Route {
    path: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    values: Vec<String>,
    /// It is given in any case: it must be, or nothing would be found without it.
    is_given: bool,
}

/// All routes that answer and end, with values for all of their parameters.
fn described() -> Vec<Route> {
    let world = World::new(LAYOUTS[0], &[], &[vec![0]], None);
    let described = runtime().block_on(world.get(0, "/api/openapi.json"));
    let described: Value = serde_json::from_str(&described.body).unwrap();
    let mut routes = Vec::new();
    for (path, operations) in described["paths"].as_object().unwrap() {
        let Some(get) = operations.get("get") else { continue };
        if get["responses"]["200"]["content"].get("text/event-stream").is_some() {
            continue;
        }
        let parameters = get["parameters"].as_array().unwrap().iter().filter(|parameter| parameter["in"] == "query");
        let parameters = parameters.map(|parameter| {
            let name = parameter["name"].as_str().unwrap();
            let is_given = parameter["required"] == true || name == "start_time";
            Parameter { name: name.to_owned(), values: values(name, &parameter["schema"]), is_given }
        });
        routes.push(Route { path: path.clone(), parameters: parameters.collect() });
    }
    routes
}

/// Those that are asked in different ways, and those that are not.
static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| described().into_iter().filter(Route::is_asked).collect());
static CONSTANT: LazyLock<Vec<String>> = LazyLock::new(|| {
    let constant = described().into_iter().filter(|route| !route.is_asked());
    constant.map(|route| route.path).collect()
});

impl Route {
    fn is_asked(&self) -> bool {
        !self.parameters.is_empty() || self.path.contains('{')
    }
}

/// What a parameter may be asked to be: such that it finds something, and such that it is refused.
fn values(name: &str, schema: &Value) -> Vec<String> {
    let schema = schema.get("items").unwrap_or(schema);
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    }
    if schema["type"] == "boolean" {
        return vec!["true".to_owned(), "false".to_owned()];
    }
    if schema["type"] == "integer" {
        return [0, 1, 2, 3, 5].map(|number| number.to_string()).to_vec();
    }
    let values: &[&str] = match name {
        "start" => &["2026-01-28T00:00:01.500Z", "2026-1-28", "2026-01-28T01:00:00.000Z", "2026-01-01T00:00:00"],
        "end" => &["2026-01-28T01:00:01.500Z", "2027-1-1", "2026-01-28T03:00:00.000Z", "2027-01-01T00:00:00"],
        "since" | "start_time" => {
            &["2026-01-28T00:00:01.500Z", "2026-01-28T02:00:00Z", "1970-01-01T00:00:00Z", "never"]
        }
        "until" | "end_time" => &["2026-01-28T01:00:01.500Z", "2026-01-28T03:00:00Z", "2027-01-01T00:00:00Z"],
        "tz" => &["Europe/Copenhagen", "UTC", "nowhere"],
        "where" => &[
            "workspaceId = w2",
            "workspaceId != w2",
            "segment ~ j2",
            "meta.k exists",
            "meta.n >= 2",
            "meta.k ^= va",
            "index < 2",
            "event != Ea1",
            "jobId = j2",
            "meta.k $= 2",
            "meta.k = uz5",
            "rank = 1",
            "event =",
        ],
        "field" | "by" | "columns" => {
            &["event", "workspaceId", "jobId", "segment", "meta.k", "meta.n", "rank", "index", "message", "x"]
        }
        "view" => &["native", "fcp", "runai", "pcd", "none"],
        _ => &["w1", "w2", "w3", "j1", "j2", "Ea1", "Ea2", "Ez7", "va1", "m", "vz8", "x"],
    };
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A route, its parameters by number and value, and what stands in its path.
type Pick = (u16, Vec<(u16, u16)>, u16);

/// What is asked: a path with parameters, and whether a cursor can be added to it.
fn target((route, parameters, id): &Pick, ids: &[String]) -> (String, bool) {
    let Route { path, parameters: known } = nth(&ROUTES, *route);
    let mut target = path.replace("{id}", &encoded(nth::<String>(ids, *id)));
    let (mut separator, mut given) = ('?', BTreeSet::new());
    let is_paged = known.iter().any(|parameter| parameter.name == "cursor");
    let always = known.iter().filter(|parameter| parameter.is_given).map(|parameter| (parameter, *id));
    let picked = parameters.iter().filter(|_| !known.is_empty());
    for (parameter, value) in always.chain(picked.map(|(parameter, value)| (nth(known, *parameter), *value))) {
        let (name, value) = (parameter.name.as_str(), nth(&parameter.values, value));
        // What is given twice is refused, mostly.
        let is_new = given.insert(name) || matches!(name, "where" | "field");
        if is_new && name != "cursor" && !(is_paged && name == "offset") {
            write!(target, "{separator}{name}={}", encoded(value)).unwrap();
            separator = '&';
        }
    }
    (target, is_paged)
}

/// One of some, whatever the number.
fn nth<T>(all: &[T], number: u16) -> &T {
    &all[usize::from(number) % all.len()]
}

/// The ids of all lines that there are, and of some that there are not.
fn ids(layout: &[Option<usize>], segments: &[Segment]) -> Vec<String> {
    let mut ids: Vec<_> =
        ["", ":0", "x:0", "..:0", "../s0:0", "s0/../s1/j1:0", "%2e%2e%2f:0"].map(str::to_owned).to_vec();
    for segment in segments {
        let name = if layout.len() > 1 { format!("s{}/{}", segment.source, segment.path()) } else { segment.path() };
        ids.extend((0..=segment.lines.len()).map(|index| format!("{name}:{index}")));
        ids.push(format!("./{name}:0"));
        ids.push(format!("{name}.gz:0"));
    }
    ids
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_records_of_others_do_not_exist(
        (layout, segments) in (0..LAYOUTS.len()).prop_flat_map(|nth| (Just(LAYOUTS[nth]), segments(LAYOUTS[nth].len()))),
        scopes in prop::collection::vec(prop::sample::subsequence(vec![0, 1, 2], 1..=2), 2),
        picks in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<(u16, u16)>(), 0..4), any::<u16>()), 40),
    ) {
        // One segment of a name.
        let segments: BTreeMap<_, _> =
            segments.into_iter().map(|segment| ((segment.source, segment.path()), segment)).collect();
        let segments: Vec<_> = segments.into_values().collect();
        let all = World::new(layout, &segments, &scopes, None);
        let worlds: Vec<_> = scopes.iter().map(|scope| World::new(layout, &segments, &scopes, Some(scope))).collect();
        let ids = ids(layout, &segments);
        assert!(ROUTES.len() >= 5 && !CONSTANT.is_empty());
        let constant = CONSTANT.iter().map(|path| (path.clone(), false));
        let targets: Vec<_> = picks.iter().map(|pick| target(pick, &ids)).chain(constant).collect();
        runtime().block_on(async {
            for (target, is_paged) in targets {
                let mut cursors = Vec::new();
                for (token, world) in worlds.iter().enumerate() {
                    let (mut given, mut expected) = (all.get(token, &target).await, world.get(token, &target).await);
                    let (cursor, other) = (given.take_cursor(), expected.take_cursor());
                    prop_assert_eq!(cursor.is_some(), other.is_some(), "{}", &target);
                    prop_assert_eq!(&given, &expected, "{}", &target);
                    cursors.extend(cursor);
                }
                // Every token goes on by every cursor.
                for cursor in cursors.into_iter().filter(|_| is_paged) {
                    let separator = if target.contains('?') { '&' } else { '?' };
                    let target = format!("{target}{separator}cursor={cursor}");
                    for (token, world) in worlds.iter().enumerate() {
                        let (mut given, mut expected) = (all.get(token, &target).await, world.get(token, &target).await);
                        prop_assert_eq!(given.take_cursor().is_some(), expected.take_cursor().is_some(), "{}", &target);
                        prop_assert_eq!(&given, &expected, "{}", &target);
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// A record of each workspace that may lie in the first directory, in segments that are read after all others.
fn last(layout: &[Option<usize>], scope: &[usize]) -> Vec<(String, String)> {
    let workspaces = scope.iter().filter(|workspace| layout[0].is_none_or(|own| own == **workspace));
    let segment = |workspace: &usize| {
        let line = Line::Record { millis: 0, job: 0, workspace: *workspace, content: 5 }.text(0, false);
        (format!("s0/j1/audit-{workspace}_20260129T000000.000Z.jsonl"), line.replace("\"Ea0\"", "\"LAST\""))
    };
    workspaces.map(segment).collect()
}

/// The blocks of a stream, but their ids, until so many last records have come; in whichever order segments were noticed.
async fn streamed(mut body: Body, last: usize) -> Vec<String> {
    let mut text = String::new();
    while text.matches("\"LAST\"").count() < last {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("more is streamed");
        text += std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap();
    }
    let lines = |block: &str| block.lines().filter(|line| !line.starts_with("id: ")).collect::<Vec<_>>().join("\n");
    let mut blocks: Vec<_> = text.split("\n\n").map(lines).filter(|block| block.contains("data: ")).collect();
    blocks.sort();
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// What appears while somebody listens: records, and lines that are none.
    #[test]
    fn the_records_of_others_do_not_appear(
        (layout, segments) in (0..LAYOUTS.len()).prop_flat_map(|nth| (Just(LAYOUTS[nth]), segments(LAYOUTS[nth].len()))),
        scopes in prop::collection::vec(prop::sample::subsequence(vec![0, 1, 2], 1..=2), 2),
        filter in prop::sample::select(vec!["", "?view=native", "?event=Ea1&event=LAST", "?where=workspaceId+!%3D+w2"]),
    ) {
        let segments: BTreeMap<_, _> =
            segments.into_iter().map(|segment| ((segment.source, segment.path()), segment)).collect();
        let segments: Vec<_> = segments.into_values().collect();
        let every: Vec<_> = (0..WORKSPACES.len()).collect();
        runtime().block_on(async {
            for (token, scope) in scopes.iter().enumerate() {
                let mut told = Vec::new();
                for seen in [None, Some(&scope[..])] {
                    let world = World::new(layout, &[], &scopes, None);
                    let stream = world.open(token, &format!("/api/v1/events/tail{filter}")).await;
                    write(world.temp.path(), layout, &segments, seen);
                    for (path, line) in last(layout, seen.unwrap_or(&every)) {
                        put(world.temp.path(), &path, line.as_bytes());
                    }
                    let is_asked = |workspace: &usize| *workspace != 1 || !filter.contains("where");
                    let scope: Vec<_> = scope.iter().copied().filter(is_asked).collect();
                    told.push(streamed(stream, last(layout, &scope).len()).await);
                }
                prop_assert_eq!(&told[0], &told[1], "{:?}", scope);
            }
            Ok(())
        })?;
    }
}

/// Nobody can tell whose a segment or a folder is that can't be read: everybody is told that there is one, and nobody which. Where the
/// directory is another workspace's own, it is theirs alone.
#[test]
fn what_cannot_be_read_does_not_tell_where_it_is() {
    let record = Line::Record { millis: 0, job: 1, workspace: 1, content: 0 };
    let here = Segment { source: 0, folder: Some(1), rank: 0, hour: 0, packing: 0, lines: vec![record.clone()] };
    let scopes = [vec![0], vec![1]];
    for (layout, told) in [(&[None][..], [2, 2]), (&[Some(1)], [0, 2])] {
        let world = World::new(layout, std::slice::from_ref(&here), &scopes, None);
        put(world.temp.path(), "s0/j2/audit-1_20260128T000000.000Z.jsonl.gz", b"no gzip");
        let folder = std::ffi::OsStr::from_bytes(b"\xff");
        fs::create_dir(world.temp.path().join("s0").join(folder)).unwrap();
        runtime().block_on(async {
            for (token, told) in told.into_iter().enumerate() {
                let page = world.get(token, "/api/v1/events").await;
                let page: Value = serde_json::from_str(&page.body).unwrap();
                assert_eq!(page["searched"]["unreadable"], told, "{layout:?}: {page}");
                let mut answers = Vec::new();
                for segment in ["j2/audit-1_20260128T000000.000Z", "j2/audit-7_20260128T000000.000Z"] {
                    let id = encoded(&format!("{segment}.jsonl:0"));
                    answers.push(world.get(token, &format!("/api/v1/events/{id}")).await);
                }
                assert_eq!(answers[0].status, StatusCode::NOT_FOUND);
                assert_eq!(answers[0], answers[1]);
            }
        });
    }
}

/// An event's id says how far each segment was read, for everybody to decode: of other workspaces' it must not say even that they are
/// there.
#[test]
fn the_ids_of_events_tell_nothing_of_others() {
    let segment = |job: usize, workspace: usize| {
        let lines = vec![Line::Damaged(0), Line::Record { millis: 0, job, workspace, content: 0 }];
        Segment { source: 0, folder: Some(job), rank: 0, hour: 0, packing: 3, lines }
    };
    let segments = [segment(0, 0), segment(1, 1)];
    let world = World::new(&[None], &segments, &[vec![0], vec![1], vec![0, 1]], None);
    let is_among = |id: &[u8], job: usize| {
        let digest = sha2::Sha256::digest(segments[job].path());
        id.windows(8).any(|bytes| bytes == &digest[..8])
    };
    let first = async |token: usize, from: &str| {
        let request = Request::get("/api/v1/events/tail").header("host", "localhost").header("last-event-id", from);
        let request = request.header("x-auth-token", format!("secret {token}")).body(Body::empty()).unwrap();
        let mut body = world.router.clone().call(request).await.unwrap().into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned()
    };
    runtime().block_on(async {
        let everything = first(2, "").await;
        for (token, expected) in [[true, false], [false, true], [true, true]].into_iter().enumerate() {
            // Whether it is the first id, or one behind that of somebody else.
            for from in ["", everything.as_str()] {
                let id = first(token, from).await;
                let decoded = URL_SAFE_NO_PAD.decode(&id).unwrap();
                assert_eq!([is_among(&decoded, 0), is_among(&decoded, 1)], expected, "{token}: {id}");
            }
        }
    });
}

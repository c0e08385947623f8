//! Records as they appear, as server-sent events (contract of the read side, §3), over real sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use audit_log::clock::{Clock, SystemClock};
use audit_log::record::SegmentName;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::console_streams::with_little_room;
use crate::support::console::Console;
use crate::support::{Request, Response, binary, wait_for};

const TAIL: &str = "/api/v1/events/tail";
const SEGMENT: &str = "audit-0_20260128T000000.000Z.jsonl";
const NEXT_SEGMENT: &str = "audit-0_20260128T010000.000Z.jsonl";

fn line(job: &str, workspace: &str, event: &str) -> String {
    let ts = "2026-01-28T09:12:44.381Z";
    format!(
        r#"{{"ts":"{ts}","jobId":"{job}","workspaceId":"{workspace}","event":"{event}","message":"","meta":{{"a":{{"n":1.0}}}}}}"#
    )
}

fn append(dir: &Path, path: &str, lines: &[String]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(lines.iter().fold(String::new(), |text, line| text + line + "\n").as_bytes()).unwrap();
}

/// What came in an event stream, read as WHATWG's HTML Standard has it (§9.2.6).
#[derive(Debug, Default)]
struct Received {
    /// The last id, of an event or of none.
    id: String,
    /// The id and the data of each event.
    events: Vec<(String, Value)>,
    /// The name and the data of those with a name.
    named: Vec<(String, Value)>,
    /// Whether the answer ended as it should.
    is_ended: Option<bool>,
}

/// A client that listens.
struct Listener {
    stream: TcpStream,
    received: Arc<Mutex<Received>>,
}

impl Listener {
    /// Asks, and waits until the stream has begun.
    fn start(console: &Console, request: &Request) -> Self {
        let mut stream = TcpStream::connect(console.address).unwrap();
        stream.write_all(&request.bytes()).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream\r\n"), "{head}");
        let received = Arc::new(Mutex::new(Received::default()));
        let into = Arc::clone(&received);
        std::thread::spawn(move || {
            let is_whole = receive(reader, &into).is_ok();
            into.lock().unwrap().is_ended = Some(is_whole);
        });
        let listener = Self { stream, received };
        wait_for("the first id", || (!listener.id().is_empty()).then_some(()));
        listener
    }

    /// One that takes nothing once the stream has begun.
    fn start_stalled(console: &Console) -> TcpStream {
        let mut stream = with_little_room(console.address);
        stream.write_all(&Request::new("GET", TAIL).bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    }

    fn over(console: &Console, target: &str) -> Self {
        Self::start(console, &Request::new("GET", target))
    }

    fn id(&self) -> String {
        self.received.lock().unwrap().id.clone()
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().events.len()
    }

    fn wait_events(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} events"), || (self.count() >= count).then_some(()));
        self.received.lock().unwrap().events.iter().map(|(_, data)| data.clone()).collect()
    }

    fn wait_end(&self) -> bool {
        wait_for("the end of the stream", || self.received.lock().unwrap().is_ended)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// Reads the chunks of an answer and the events in them, until it ends.
fn receive(mut reader: BufReader<TcpStream>, into: &Mutex<Received>) -> std::io::Result<()> {
    let mut text = Vec::new();
    loop {
        // Up to here no block has ended.
        let mut looked_at = text.len().saturating_sub(1);
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk)?;
        text.extend_from_slice(&chunk[..size]);
        while let Some(end) = text[looked_at..].windows(2).position(|pair| pair == b"\n\n") {
            let block = String::from_utf8(text.drain(..looked_at + end + 2).collect()).unwrap();
            looked_at = 0;
            assert!(!block.contains('\r'));
            let mut received = into.lock().unwrap();
            let mut name = None;
            for line in block.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut received.id),
                    Some(("event", event)) => name = Some(event.to_owned()),
                    Some(("data", data)) => {
                        let data = serde_json::from_str(data).unwrap();
                        if let Some(name) = name.take() {
                            received.named.push((name, data));
                        } else {
                            let id = received.id.clone();
                            received.events.push((id, data));
                        }
                    }
                    Some(("retry" | "", _)) => {}
                    _ => assert_eq!(line, ""),
                }
            }
        }
        if size == 0 {
            return Ok(());
        }
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[track_caller]
fn refused(response: &Response, status: u16, code: &str) {
    assert_eq!((response.status, response.json()["code"].as_str()), (status, Some(code)), "{}", response.text());
}

#[test]
fn records_come_as_they_appear_and_as_pages_show_them() {
    let temp = tempfile::tempdir().unwrap();
    append(temp.path(), &format!("1/{SEGMENT}"), &[line("1", "w", "before")]);
    let console = Console::over(temp.path());
    let all = Listener::over(&console, TAIL);
    let some = Listener::over(&console, &format!("{TAIL}?job=2&where=event+%5E%3D+x"));
    let view = Listener::over(&console, &format!("{TAIL}?view=fcp&job=2"));
    append(temp.path(), &format!("1/{SEGMENT}"), &[line("1", "w", "a"), "\0".to_owned(), line("9", "w", "foreign")]);
    append(temp.path(), &format!("2/{SEGMENT}"), &[line("2", "w", "b")]);
    append(
        temp.path(),
        &format!("2/{NEXT_SEGMENT}"),
        &[line("2", "w", "xc").replace(":{", ":\r{").replace(",\"m", ",\r\"m")],
    );
    let events = all.wait_events(3);
    let mut sorted = names(&events);
    sorted.sort_unstable();
    assert_eq!(sorted, ["a", "b", "xc"]);
    let items = console.json("/api/v1/events?order=asc");
    for event in &events {
        assert!(items["items"].as_array().unwrap().contains(event), "{event}");
    }
    assert_eq!(names(&some.wait_events(1)), ["xc"]);
    let shown = view.wait_events(2);
    assert!(shown.iter().all(|event| event.get("operation").is_some()), "{shown:?}");
    assert_eq!(all.count(), 3);
    let segment = format!("1/{SEGMENT}");
    let told = [
        ("damaged".to_owned(), json!({ "segment": segment, "index": 2, "reason": "holds NUL bytes" })),
        ("foreign".to_owned(), json!({ "segment": segment, "index": 3 })),
    ];
    assert_eq!(all.received.lock().unwrap().named, told);
    // What was told is behind the last id.
    let id = all.id();
    let again = Listener::start(&console, &Request::new("GET", TAIL).header("Last-Event-ID", &id));
    append(temp.path(), &format!("1/{SEGMENT}"), &["{}".to_owned(), line("1", "w", "c")]);
    assert_eq!(names(&again.wait_events(1)), ["c"]);
    let again = again.received.lock().unwrap().named.clone();
    assert_eq!(again, [("damaged".to_owned(), json!({ "segment": segment, "index": 4, "reason": "not a record" }))]);
}

/// Each has had what waits for it written to a file: 31 streams of records of 2 MiB.
#[test]
fn streams_that_nobody_takes_hold_some_kib_each() {
    let temp = tempfile::tempdir().unwrap();
    let console = Console::over(temp.path());
    let stalled: Vec<_> = (0..31).map(|_| Listener::start_stalled(&console)).collect();
    let listener = Listener::over(&console, TAIL);
    let long = "x".repeat((2 << 20) - 300);
    for number in 0..3 {
        append(temp.path(), &format!("1/{SEGMENT}"), &[line("1", "w", "long").replace("1.0", &format!("\"{long}\""))]);
        listener.wait_events(number + 1);
    }
    assert!(console.peak_kib() < 64 << 10, "{} KiB", console.peak_kib());
    drop(stalled);
}

/// Three writers go on, rotating, while the console is killed again and again, and the client comes back to the next one with the last id
/// that it has got, by header or by parameter.
#[test]
fn whoever_comes_back_with_the_last_id_misses_nothing_and_sees_nothing_twice() {
    const LINES: usize = 6_000;
    let temp = tempfile::tempdir().unwrap();
    let mut console = Console::over(temp.path());
    let mut listener = Listener::over(&console, TAIL);
    let root = temp.path().to_owned();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writing = std::thread::spawn(move || {
        let mut segments: BTreeMap<&str, String> = BTreeMap::new();
        for number in 0..LINES {
            let job = ["a", "b", "c"][number % 3];
            if number % 500 < 3 {
                let name = SegmentName::new(0, SystemClock.now());
                segments.insert(job, format!("{job}/{name}"));
            }
            append(&root, &segments[job], &[line(job, "w", &number.to_string())]);
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut received: Vec<Value> = Vec::new();
    for life in 1..=5 {
        wait_for("some events", || (received.len() + listener.count() >= LINES * life / 8).then_some(()));
        // Killed, as its owner drops it; what the client has got by then is what counts.
        drop(console);
        assert!(!listener.wait_end(), "it was cut off");
        let id = listener.id();
        received.extend(listener.wait_events(0));
        console = Console::over(temp.path());
        let request = Request::new("GET", TAIL);
        listener = if life % 2 == 0 {
            Listener::start(&console, &request.header("Last-Event-ID", &id))
        } else {
            Listener::start(&console, &request.to(&format!("{TAIL}?lastEventId={id}")))
        };
    }
    writing.join().unwrap();
    assert_eq!(written.load(Ordering::Relaxed), LINES);
    received.extend(listener.wait_events(LINES - received.len()));
    let mut numbers: Vec<usize> = names(&received).iter().map(|name| name.parse().unwrap()).collect();
    for job in 0..3 {
        let of_job: Vec<_> = numbers.iter().filter(|number| *number % 3 == job).collect();
        assert!(of_job.is_sorted(), "each job's lines come in their order");
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
}

#[test]
fn an_id_that_was_not_told_here_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let console = Console::over(temp.path());
    let id = Listener::over(&console, TAIL).id();
    let cut = &id[..id.len() - 1];
    for bad in [cut, "x", "%00", &"A".repeat(9000)] {
        refused(&console.get(&format!("{TAIL}?lastEventId={bad}")), 400, "bad_parameter");
    }
    refused(&console.send(&Request::new("GET", TAIL).header("Last-Event-ID", cut)), 400, "bad_parameter");
    // A browser goes on sending the parameter that it began with; what it has got since comes first.
    drop(Listener::start(
        &console,
        &Request::new("GET", &format!("{TAIL}?lastEventId=x")).header("Last-Event-ID", &id),
    ));
}

#[test]
fn a_token_sees_its_scope_alone_and_its_stream_ends_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let (audit, file) = (temp.path().join("audit"), temp.path().join("tokens.yaml"));
    fs::create_dir(&audit).unwrap();
    let token = |name: &str, args: &[&str]| {
        let output = binary().args(["token", name, "--tokens"]).arg(&file).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let everything = token("all", &["--all"]);
    let before = fs::read_to_string(&file).unwrap();
    let one = token("one", &["--workspace", "w1"]);
    let console = Console::start(&audit, &["--tokens", file.to_str().unwrap()]);
    refused(&console.get(TAIL), 401, "unauthorized");
    let ask = |token: &str| Request::new("GET", TAIL).header("Authorization", &format!("Bearer {token}"));
    let (all, one) = (Listener::start(&console, &ask(&everything)), Listener::start(&console, &ask(&one)));
    append(&audit, &format!("1/{SEGMENT}"), &[line("1", "w1", "mine"), line("1", "w2", "another's")]);
    append(&audit, &format!("2/{SEGMENT}"), &[line("2", "w2", "another's"), line("2", "w1", "mine")]);
    all.wait_events(4);
    assert_eq!(names(&one.wait_events(2)), ["mine", "mine"]);
    fs::write(&file, before).unwrap();
    one.wait_end();
    append(&audit, &format!("1/{SEGMENT}"), &[line("1", "w1", "later")]);
    all.wait_events(5);
    assert_eq!(one.count(), 2);
}

#[test]
fn streams_end_when_the_console_does() {
    let temp = tempfile::tempdir().unwrap();
    let mut console = Console::over(temp.path());
    let listener = Listener::over(&console, TAIL);
    console.signal(Signal::TERM);
    assert!(listener.wait_end(), "it ends as it should");
    assert!(console.wait().success());
}

/// A value as long as a line may be, that each column of a view shows within another object: an answer is far longer than what it takes.
#[test]
fn what_many_columns_show_is_held_by_no_answer() {
    const DEPTH: usize = 20;
    let temp = tempfile::tempdir().unwrap();
    let (dir, views) = (temp.path().join("audit"), temp.path().join("views.yaml"));
    let columns = (0..DEPTH).fold(String::new(), |columns, depth| {
        columns + &format!("      - {{key: c{depth}, from: meta{}}}\n", ".a".repeat(depth))
    });
    fs::write(&views, format!("views:\n  deep:\n    columns:\n{columns}")).unwrap();
    let value = "x".repeat((2 << 20) - 1000);
    // No writer of ours leaves a return, which would end a line of an event stream.
    let meta = (1..DEPTH).fold(format!("\"{value}\""), |meta, _| format!("{{\"a\":\r{meta}}}"));
    let line = |event: &str| line("1", "w", event).replace("{\"a\":{\"n\":1.0}}", &meta);
    append(&dir, &format!("1/{SEGMENT}"), &[line("first"), line("second")]);
    let console = Console::start(&dir, &["--views", views.to_str().unwrap()]);
    let is_whole = |item: &Value| {
        for depth in 0..DEPTH {
            let shown = (depth + 1..DEPTH).fold(&item[format!("c{depth}")], |shown, _| &shown["a"]);
            assert!(*shown == value.as_str(), "column {depth}");
        }
        assert_eq!(item.as_object().unwrap().len(), DEPTH);
    };
    assert_eq!(console.json("/api/v1/events?event=none")["items"], json!([]));
    let before = console.peak_kib();
    let first = console.json("/api/v1/events?view=deep&limit=2&order=asc");
    let next = first["next"].as_str().expect("a page ends with a long record");
    let second = console.json(&format!("/api/v1/events?view=deep&limit=2&order=asc&cursor={next}"));
    assert_eq!(second["next"], Value::Null);
    for page in [first, second] {
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        is_whole(&page["items"][0]);
    }
    is_whole(&console.json(&format!("/api/v1/events/1%2F{SEGMENT}:1?view=deep")));
    let listener = Listener::over(&console, &format!("{TAIL}?view=deep"));
    append(&dir, &format!("1/{SEGMENT}"), &[line("third"), line("fourth")]);
    listener.wait_events(2).iter().for_each(is_whole);
    let taken = console.peak_kib() - before;
    assert!(taken < 20 << 10, "{taken} KiB");
}

/// One client reads nothing of megabytes, others go away: who reads gets all the same, and there is room for as many again.
#[test]
fn neither_a_client_that_reads_nothing_nor_those_that_are_gone_are_in_the_way() {
    let temp = tempfile::tempdir().unwrap();
    let console = Console::over(temp.path());
    let mut idle = TcpStream::connect(console.address).unwrap();
    idle.write_all(&Request::new("GET", TAIL).bytes()).unwrap();
    let listeners: Vec<_> = (0..30).map(|_| Listener::over(&console, &format!("{TAIL}?event=none"))).collect();
    let reader = Listener::over(&console, TAIL);
    refused(&console.get(TAIL), 503, "overloaded");
    let long = "x".repeat(10_000);
    for _ in 0..10 {
        append(temp.path(), &format!("1/{SEGMENT}"), &vec![line("1", "w", &long); 100]);
    }
    reader.wait_events(1_000);
    drop(listeners);
    // Whoever is gone is noticed at the next look.
    wait_for("a free place", || {
        let mut client = console.connect();
        client.write(&Request::new("GET", TAIL).bytes());
        let mut status = [0; 12];
        client.stream.read_exact(&mut status).unwrap();
        (status == *b"HTTP/1.1 200").then_some(())
    });
    let last = Listener::over(&console, TAIL);
    append(temp.path(), &format!("1/{SEGMENT}"), &[line("1", "w", "last")]);
    assert_eq!(names(&last.wait_events(1)), ["last"]);
}

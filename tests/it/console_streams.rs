//! Answers of the console that take their time: to clients that are slow, or lose their token, and while writers write.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use audit_log::api::{self, Access};
use audit_log::http::{Hosts, Limits, Routes, Server};
use audit_log::reader::listing::{Source, Sources};
use audit_log::reader::view::Views;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::console::Console;
use crate::support::{Client, Request, wait_for};

const SEGMENT: &str = "audit-0_20260128T000000.000Z.jsonl";

fn line(job: usize, nth: usize, filler: &str) -> String {
    let ts = 1_769_558_400_000 + nth;
    format!(
        r#"{{"ts":{ts},"jobId":"j{job}","workspaceId":"w","event":"E{}","message":"{filler}","meta":{{"n":{nth},"job":{job}}}}}"#,
        nth % 7
    )
}

/// Some jobs, each with a segment of so many lines.
fn audit(jobs: usize, lines: usize, filler: &str) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for job in 0..jobs {
        let folder = temp.path().join(format!("j{job}"));
        fs::create_dir(&folder).unwrap();
        let text = (0..lines).fold(String::new(), |text, nth| text + &line(job, nth, filler) + "\n");
        fs::write(folder.join(SEGMENT), text).unwrap();
    }
    temp
}

/// A client that asks for something and takes nothing of the answer but its first bytes.
fn stalled(console: &Console, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(console.address).unwrap();
    stream.write_all(&Request::new("GET", target).bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// Exports wait for those who take them; queries do not wait for exports.
#[test]
fn exports_that_nobody_takes_hold_up_no_query() {
    let temp = audit(2, 5000, &"x".repeat(1000));
    let mut console = Console::over(temp.path());
    let clients: Vec<_> = (0..4).map(|_| stalled(&console, "/api/v1/events/export")).collect();
    assert_eq!(console.json("/api/v1/events?limit=7")["items"].as_array().unwrap().len(), 7);
    // Whoever does not wait for an answer is told of all the same, by its status 499.
    drop({
        let mut gone = console.connect();
        gone.write(&Request::new("GET", "/api/v1/events/export?event=GONE").bytes());
        gone
    });
    let is_gone = |line: &Value| line["query"] == "event=GONE" && line["status"] == 499;
    wait_for("the line of the one that is gone", || console.lines("request").iter().any(is_gone).then_some(()));
    console.get("/api/v1/events/export").problem(503, "overloaded");
    // Whoever goes away makes room.
    clients[0].shutdown(Shutdown::Both).unwrap();
    let whole = console.get("/api/v1/events/export");
    assert_eq!((whole.status, whole.body.iter().filter(|byte| **byte == b'\n').count()), (200, 10_000));
    // The end does not wait for those who take nothing.
    console.signal(Signal::TERM);
    assert_eq!(console.wait().code(), Some(0), "{}", console.log());
    drop(clients);
}

/// What waits for them is in files: of these lines of 2 MiB, a csv has twice the bytes.
#[test]
fn exports_of_long_lines_that_nobody_takes_hold_some_kib_each() {
    let temp = audit(1, 0, "");
    let texts = format!("{{\"a\":[\"\"{}],", ",\"\"".repeat((2 << 20) / 3 - 200));
    let lines = (0..6).fold(String::new(), |text, nth| {
        text + &line(0, nth, "").replace("\"meta\":{", &format!("\"meta\":{texts}")) + "\n"
    });
    fs::write(temp.path().join("j0").join(SEGMENT), lines).unwrap();
    let console = Console::over(temp.path());
    let before = console.peak_kib();
    let clients: Vec<_> = (0..4).map(|_| stalled(&console, "/api/v1/events/export?format=csv")).collect();
    for _ in 0..4 {
        assert_eq!(console.json("/api/v1/events?limit=1&order=asc")["items"][0]["meta"]["n"], 0);
    }
    // What is left is one that is being encoded.
    let taken = console.peak_kib() - before;
    assert!(taken < 20 << 10, "{taken} KiB");
    drop(clients);
}

/// Nobody has an answer to its end by a token that was removed meanwhile, and a cut answer can't be taken for a whole one.
#[test]
fn an_answer_that_is_being_sent_ends_with_its_token() {
    let temp = audit(2, 5000, &"x".repeat(1000));
    let file = temp.path().join("tokens.yaml");
    let made = crate::support::binary().args(["token", "ada", "--all", "--tokens"]).arg(&file).output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    let console = Console::start(temp.path(), &["--tokens", file.to_str().unwrap()]);
    let mut client = console.connect();
    client.write(&Request::new("GET", "/api/v1/events/export").header("X-Auth-Token", &token).bytes());
    // It has begun once the console waits for this client.
    wait_for("an export that waits", || {
        let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", console.pid())).unwrap();
        let port = format!(":{:04X}", console.address.port());
        let queued = |line: &str| line.split_whitespace().nth(4).is_some_and(|queues| !queues.starts_with("00000000:"));
        sockets
            .lines()
            .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)) && queued(line))
            .then_some(())
    });
    fs::write(&file, "[]\n").unwrap();
    wait_for("the end of the token", || {
        let request = Request::new("GET", "/api/v1/events").header("X-Auth-Token", &token);
        (console.send(&request).status == 401).then_some(())
    });
    assert!(client.read().is_none(), "the answer was whole");
}

/// A console within the test's process, with other limits.
fn within(dir: &Path, limits: Limits, test: impl FnOnce(std::net::SocketAddr, &prometheus::IntGauge)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sources = Sources::new(vec![Source::parse(dir.to_str().unwrap()).unwrap()]).unwrap();
    let (_end_streams, ending) = tokio::sync::watch::channel(false);
    let console = Arc::new(api::Console::new((sources, Views::built_in()), Access::Open, Hosts::Loopback, 1, ending));
    let connections = prometheus::IntGauge::new("connections", "Open connections.").unwrap();
    let server = Server::new(Routes::reading(api::router(console)), limits, connections.clone());
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = server.accept(listener) => {}
                    () = server.look_after() => {}
                    _ = ended => {}
                }
            });
            runtime.shutdown_background();
        });
        // Dropped with the test, also if that fails.
        let _end = end;
        test(address, &connections);
    });
}

/// A connection of a client for whom little lies ready in the kernel.
pub(crate) fn with_little_room(address: std::net::SocketAddr) -> TcpStream {
    let family = rustix::net::AddressFamily::INET;
    let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    socket.into()
}

#[test]
fn whoever_takes_nothing_of_an_answer_is_let_go_and_whoever_is_slow_is_not() {
    let temp = audit(2, 5000, &"x".repeat(1000));
    let limits =
        Limits { stall_time_max: Duration::from_secs(2), idle_time_max: Duration::from_mins(10), ..Limits::default() };
    within(temp.path(), limits, |address, connections| {
        let [mut stalled, mut slow] = [(); 2].map(|()| Client::over(with_little_room(address)));
        for client in [&mut stalled, &mut slow] {
            client.write(&Request::new("GET", "/api/v1/events/export").bytes());
        }
        // The slow one takes a little every now and then, for longer than the limit.
        let (mut taken, mut part) = (Vec::new(), [0; 4 << 10]);
        wait_for("the end of the one that takes nothing", || {
            let some = slow.stream.read(&mut part).unwrap();
            taken.extend_from_slice(&part[..some]);
            (connections.get() == 1).then_some(())
        });
        loop {
            let some = slow.stream.read(&mut part).unwrap();
            taken.extend_from_slice(&part[..some]);
            if some == 0 || taken.ends_with(b"\r\n0\r\n\r\n") {
                break;
            }
        }
        assert!(taken.ends_with(b"\r\n0\r\n\r\n"), "the slow one was cut off");
        assert!(stalled.read().is_none());
    });
}

/// Writers append and rotate while pages are read, whose size does not matter: they hold what there was at the first one, in order.
#[test]
fn pages_are_exact_while_writers_write() {
    let temp = audit(4, 300, "");
    let console = Console::over(temp.path());
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for job in 0..4 {
            let (write, orders) = mpsc::channel::<()>();
            writers.push(write);
            let folder = temp.path().join(format!("j{job}"));
            scope.spawn(move || {
                let mut path = folder.join(SEGMENT);
                for (nth, ()) in (300..).zip(orders) {
                    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
                    file.write_all((line(job, nth, "") + "\n").as_bytes()).unwrap();
                    if nth % 50 == 0 {
                        path = folder.join(format!("audit-0_20260128T000000.{:03}Z.jsonl", nth / 50));
                    }
                }
            });
        }
        let page = |target: String| {
            for write in writers.iter().flat_map(|write| [write; 7]) {
                write.send(()).unwrap();
            }
            console.json(&target)
        };
        for order in ["asc", "desc"].repeat(3) {
            let first = page(format!("/api/v1/events?limit=97&order={order}"));
            // All that is behind the first page, by pages of some size.
            let behind = |limit: usize| {
                let (mut items, mut next) = (Vec::new(), first["next"].as_str().map(str::to_owned));
                while let Some(cursor) = next {
                    let more = page(format!("/api/v1/events?limit={limit}&order={order}&cursor={cursor}"));
                    items.extend(more["items"].as_array().unwrap().iter().cloned());
                    next = more["next"].as_str().map(str::to_owned);
                }
                items
            };
            let key = |item: &Value| (item["ts"].to_string(), item["segment"].to_string(), item["index"].as_u64());
            let keys = |items: &[Value]| items.iter().map(key).collect::<Vec<_>>();
            let (large, small) = (keys(&behind(1000)), keys(&behind(97)));
            assert_eq!(small, large, "{order}");
            let all = [keys(first["items"].as_array().unwrap()), small].concat();
            let in_order = |pair: &[_]| if order == "asc" { pair[0] < pair[1] } else { pair[0] > pair[1] };
            assert!(all.len() >= 1200 && all.windows(2).all(in_order), "{order}");
        }
    });
}

//! Each limit at n−1, n and n+1, and what is bounded in number, memory and time (contract §2 and §4.6).

use std::time::{Duration, Instant};

use audit_log::clock::SystemClock;
use audit_log::http::Limits;

use crate::support::disk::Faults;
use crate::support::inside::{InsideApp, options};
use crate::support::{Client, Request, Setup, Sidecar, wait_for};

const MIB: usize = 1 << 20;

/// An event whose body has exactly so many bytes.
fn event_of(bytes: usize) -> String {
    let frame = r#"{"event":"a","message":""}"#;
    format!(r#"{{"event":"a","message":"{}"}}"#, "x".repeat(bytes - frame.len()))
}

#[test]
fn the_name_of_an_event_has_at_most_256_bytes() {
    let sidecar = Sidecar::start();
    let event = |name: &str| format!("{{\"event\":\"{name}\"}}");
    for name in ["a".to_owned(), "a".repeat(255), "a".repeat(256), "é".repeat(128), "\\u00e9".repeat(128)] {
        sidecar.append(event(&name));
    }
    for name in [String::new(), "a".repeat(257), "é".repeat(128) + "a", "\\u00e9".repeat(129)] {
        sidecar.post(event(&name)).refused_unwritten(422, "invalid_event");
    }
}

#[test]
fn a_body_has_at_most_1_mib_announced_or_not() {
    let sidecar = Sidecar::start();
    for bytes in [MIB - 1, MIB] {
        sidecar.append(event_of(bytes));
        let chunked = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", event_of(bytes));
        assert_eq!(sidecar.send(&Request::post(chunked).header("Transfer-Encoding", "chunked")).status, 200);
    }
    sidecar.post(event_of(MIB + 1)).refused_unwritten(413, "too_large");
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", MIB + 1, event_of(MIB + 1));
    sidecar.send(&Request::post(chunked).header("Transfer-Encoding", "chunked")).refused_unwritten(413, "too_large");
}

#[test]
fn a_batch_has_at_most_8_mib_10_000_events_and_1_mib_a_line() {
    let sidecar = Sidecar::start();
    let events = |count: usize| "{\"event\":\"a\"}\n".repeat(count);
    for count in [9_999, 10_000] {
        let response = sidecar.send(&Request::batch(events(count)));
        assert_eq!((response.status, response.json()["count"].as_u64()), (200, Some(count as u64)));
    }
    let response = sidecar.send(&Request::batch(events(10_001)));
    response.refused_unwritten(413, "too_large");
    assert_eq!(response.json()["line"], 10_001);

    for bytes in [MIB - 1, MIB] {
        assert_eq!(sidecar.send(&Request::batch(event_of(bytes) + "\r\n")).status, 200);
    }
    let response = sidecar.send(&Request::batch(format!("\n{}\n", event_of(MIB + 1))));
    response.refused_unwritten(413, "too_large");
    assert_eq!(response.json()["line"], 2);

    let of = |bytes: usize| {
        let mut batch = format!("{}\n", event_of(MIB - 1)).repeat(7);
        batch += &event_of(bytes - batch.len());
        batch
    };
    for bytes in [8 * MIB - 1, 8 * MIB] {
        assert_eq!(sidecar.send(&Request::batch(of(bytes))).status, 200);
    }
    sidecar.send(&Request::batch(of(8 * MIB) + "\n")).refused_unwritten(413, "too_large");
}

#[test]
fn a_line_has_at_most_2_mib_however_its_characters_are_escaped() {
    let sidecar = Sidecar::start();
    // One byte of U+007F becomes six.
    let event = |deletes: usize| format!("{{\"event\":\"a\",\"meta\":\"{}\"}}", "\u{7f}".repeat(deletes));
    let answer = sidecar.append(event(0));
    let empty = sidecar.segments()[answer["segment"].as_str().unwrap()].len();
    let most = (2 * MIB - empty) / 6;
    sidecar.append(event(most));
    sidecar.post(event(most + 1)).refused_unwritten(413, "too_large");
    assert_eq!(sidecar.lines().len(), 2);
}

#[test]
fn meta_nests_at_most_128_levels() {
    let sidecar = Sidecar::start();
    for (open, close) in [("[", "]"), ("{\"k\":", "}")] {
        let event = |depth: usize| {
            let inner = if open == "[" { "" } else { "1" };
            format!("{{\"event\":\"a\",\"meta\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth))
        };
        for depth in [1, 127, 128] {
            sidecar.append(event(depth));
        }
        for depth in [129, 1000, 100_000] {
            let detail = sidecar.post(event(depth)).refused_unwritten(422, "invalid_event");
            assert!(detail.contains("128"), "{detail}");
        }
    }
}

#[test]
fn headers_have_at_most_16_kib() {
    let sidecar = Sidecar::start();
    let request = |bytes: usize| {
        let head = |fill: usize| Request::post(r#"{"event":"a"}"#).header("X-Fill", &"x".repeat(fill));
        let body = r#"{"event":"a"}"#.len();
        let frame = head(0).bytes().len() - body;
        head(bytes - frame)
    };
    for bytes in [16 * 1024 - 1, 16 * 1024] {
        assert_eq!(sidecar.send(&request(bytes)).status, 200, "{bytes}");
    }
    for bytes in [16 * 1024 + 1, 20 * 1024, 64 * 1024] {
        let mut client = sidecar.connect();
        client.write(&request(bytes).bytes());
        if let Some(response) = client.read() {
            assert_eq!(response.status, 431, "{bytes}");
        }
        assert!(client.is_closed());
    }
}

#[test]
fn an_answer_is_seen_though_the_body_was_not_wanted() {
    let sidecar = Sidecar::start();
    // Larger than what socket buffers hold: a client that writes all before it reads must still get its answer.
    for bytes in [2 * MIB, 12 * MIB] {
        let mut client = sidecar.connect();
        let response = client.send(&Request::post(vec![b'x'; bytes]));
        response.refused_unwritten(413, "too_large");
    }
    // A client that asks first is answered without sending.
    let request = Request::new("POST", "/append").header("Content-Length", "10000000").header("Expect", "100-continue");
    let mut client = sidecar.connect();
    client.send(&request).refused_unwritten(413, "too_large");
    assert!(client.is_closed());
    // One that announces much and sends nothing waits a second, not for ever.
    let request = Request::new("POST", "/append").header("Content-Length", "10000000000");
    let mut client = sidecar.connect();
    client.send(&request).refused_unwritten(413, "too_large");
    assert!(client.is_closed());
    // A refused request whose body was small leaves its connection open.
    let mut client = sidecar.connect();
    for _ in 0..3 {
        client.send(&Request::post("x")).refused_unwritten(400, "invalid_json");
        client
            .send(&Request::post("xyz").header("Content-Type", "text/plain"))
            .refused_unwritten(415, "unsupported_media_type");
    }
    assert_eq!(client.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
}

#[test]
fn slow_headers_and_slow_bodies_are_408() {
    let sidecar = Sidecar::start();
    let mut slow_headers = sidecar.connect();
    slow_headers.write(b"POST /append HTTP/1.1\r\nHost: localhost\r\nX");
    let mut slow_body = sidecar.connect();
    slow_body.write(b"POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"event");
    let mut dripping = sidecar.connect();
    let mut idle = sidecar.connect();
    assert_eq!(idle.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    let begun = Instant::now();
    // A byte now and then does not help.
    let mut stream = dripping.stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        for byte in
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: xxxxxxxxxxxxxxxxxxxxxx".iter().cycle().take(100)
        {
            if std::io::Write::write_all(&mut stream, &[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    slow_headers.read().expect("an answer").refused_unwritten(408, "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(4900));
    assert!(slow_headers.is_closed());
    dripping.read().expect("an answer").refused_unwritten(408, "timeout");
    slow_body.read().expect("an answer").refused_unwritten(408, "timeout");
    assert!(begun.elapsed() >= Duration::from_millis(9900));
    assert!(slow_body.is_closed());
    drip.join().unwrap();
    // The connection that only idled is still good.
    assert_eq!(idle.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    assert_eq!(sidecar.lines().len(), 2);
}

#[test]
fn what_is_left_of_a_late_body_is_read_and_its_client_told() {
    let limits = Limits { body_time_max: Duration::from_millis(100), ..Limits::default() };
    let app = InsideApp::with_limits(SystemClock, &Faults::none(), options(), None, limits);
    let request = Request::post(r#"{"event":"late"}"#).bytes();
    let (first, rest) = request.split_at(request.len() - 5);
    let mut client = Client::connect(app.address);
    client.write(first);
    let refused = r#"audit_log_refused_requests_total{code="timeout"} 1"#;
    wait_for("the refusal", || app.send(&Request::new("GET", "/metrics")).text().contains(refused).then_some(()));
    // It has a second for the rest, sees the answer, and keeps its connection.
    client.write(rest);
    client.read().expect("an answer").refused_unwritten(408, "timeout");
    assert_eq!(client.send(&Request::post(r#"{"event":"next"}"#)).status, 200);
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    assert_eq!(Limits::default().idle_time_max, Duration::from_secs(75));
    let limits = Limits { idle_time_max: Duration::from_secs(2), ..Limits::default() };
    let app = InsideApp::with_limits(SystemClock, &Faults::none(), options(), None, limits);
    let (mut idle, mut busy) = (Client::connect(app.address), Client::connect(app.address));
    let begun = Instant::now();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(busy.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(idle.is_closed());
        assert!(begun.elapsed() >= Duration::from_secs(2));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn nobody_locks_others_out_by_holding_connections() {
    // 100 open files leave 36 connections.
    let mut setup = Setup::new();
    setup.wrap("prlimit", &["--nofile=100:100", "--"]);
    let sidecar = setup.start();
    let metric = |name: &str| {
        let text = sidecar.get("/metrics").text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let mut held: Vec<_> = (0..200)
        .map(|number| {
            let mut client = sidecar.connect();
            match number % 3 {
                0 => {}
                1 => client.write(b"POST /append HTTP/1.1\r\nHost: loc"),
                _ => client.write(b"POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"),
            }
            client
        })
        .collect();
    // A good client gets through at once, and again on the same connection.
    let mut good = sidecar.connect();
    for _ in 0..5 {
        assert_eq!(good.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    }
    wait_for("the bound", || (metric("audit_log_connections") <= 36.0).then_some(()));
    // The one that has waited longest had to go.
    assert!(held[0].is_closed());
}

#[test]
fn the_kernel_need_not_enlarge_the_table_of_files_while_connections_come() {
    let table_size = |limit: &str| -> u64 {
        let mut setup = Setup::new();
        setup.wrap("prlimit", &[limit, "--"]);
        let sidecar = setup.start();
        let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        size.trim().parse().unwrap()
    };
    assert!(table_size("--nofile=4096:4096") >= 1024 + 64);
    // As far as the limit allows.
    assert_eq!(table_size("--nofile=512:512"), 512);
}

#[test]
fn memory_for_bodies_is_bounded_and_given_back() {
    let sidecar = Sidecar::start();
    let length = MIB;
    let body = event_of(length);
    // 24 MiB of bodies that lack their last byte fill the budget.
    let mut waiting: Vec<_> = (0..40)
        .map(|_| {
            let mut client = sidecar.connect();
            let request = Request::post(&body).bytes();
            client.stream.set_nonblocking(false).unwrap();
            client.write(&request[..request.len() - 1]);
            client
        })
        .collect();
    let overloaded = || {
        let text = sidecar.get("/metrics").text();
        let line = text.lines().find(|line| line.contains("code=\"overloaded\"")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    // No more than 24 bodies of a mebibyte fit, and nearly as many must.
    wait_for("the refusals", || (overloaded() >= 16).then_some(()));
    let refused = |client: &mut Client| {
        client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        client.read().map(|response| {
            assert_eq!(response.header("retry-after"), Some("1"));
            response.refused_unwritten(503, "overloaded")
        })
    };
    let told = waiting.iter_mut().filter_map(refused).count();
    assert!((16..=25).contains(&overloaded()) && told > 0, "{} of 40 were refused, {told} were told", overloaded());
    drop(waiting);
    wait_for("the memory to be free again", || (sidecar.post(&body).status == 200).then_some(()));
}

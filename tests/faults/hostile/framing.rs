//! Requests: where they begin and end, and what they announce.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::{Attack, CONTROL, Target, event, refused_or_closed, withstood};
use crate::report::Row;
use crate::support::{Client, Request};

const BODY: &str = r#"{"event":"HOSTILE"}"#;
const HEAD: &str = "POST /append HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn whatever_is_wrong_with_a_requests_frame_is_refused_and_smuggles_nothing() {
    const ROW: Row = Row {
        test: "hostile::framing::whatever_is_wrong_with_a_requests_frame_is_refused_and_smuggles_nothing",
        promise: "§2 framing is refused with 4xx or a close; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "chunks with every flaw, both length headers, odd lengths, huge and many headers, 10 GB announced",
        how: "a second request behind each that must not be heard; 256 connections that announce and send nothing",
        control: "seen red without the close behind a chunked request; as for latency and memory, `hostile::a_good_client_that_waits_and_memory_that_grows_are_found`",
    };
    withstood(
        &ROW,
        &[
            Attack::new("chunks", 2, chunks),
            Attack::new("lengths", 2, lengths),
            Attack::new("headers", 2, headers),
            Attack::new("10 GB announced", 1, announced),
            Attack::new("100-continue", 2, continues),
        ],
    );
}

#[test]
fn whoever_sends_without_waiting_or_reading_holds_nobody_up() {
    const ROW: Row = Row {
        test: "hostile::framing::whoever_sends_without_waiting_or_reading_holds_nobody_up",
        promise: "§4.6 order, bounded memory; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "pipelining, with the answers read and never read",
        how: "200 events in one write; 64 connections that ask for /metrics or append and take no answer",
        control: CONTROL,
    };
    withstood(
        &ROW,
        &[
            Attack::new("pipelined events", 2, pipelined),
            Attack::new("pipelined probes", 2, pipelined_probes),
            Attack::new("events unread", 1, events_unread),
            Attack::new("metrics unread", 1, metrics_unread),
        ],
    );
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Recorded,
    Refused,
    /// The contract allows both.
    Either,
}

/// Sends a request with another one behind it, which is never to be heard.
#[track_caller]
fn try_one(target: &Target<'_>, request: &[u8], fate: Fate) {
    target.tried(1);
    let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
    let mut client = target.connect();
    client.write(&[request, &event().bytes()].concat());
    // It need not wait for what does not come.
    drop(client.stream.shutdown(Shutdown::Write));
    let response = client.read();
    match (fate, &response) {
        (Fate::Recorded, Some(response)) => target.recorded(response),
        (Fate::Recorded, None) => panic!("{shown}: no answer"),
        (Fate::Either, Some(response)) if response.status == 200 => target.recorded(response),
        (Fate::Either | Fate::Refused, response) => refused_or_closed(response.as_ref(), &shown),
    }
    assert!(client.is_closed(), "{shown}: what came behind it was heard");
}

fn chunks(target: &Target<'_>) {
    let size = format!("{:x}", BODY.len());
    let chunked = |rest: &str| format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{rest}");
    let with_size = |size: &str| chunked(&format!("{size}\r\n{BODY}\r\n0\r\n\r\n"));
    let bytewise: String = BODY.chars().flat_map(|c| ['1', '\r', '\n', c, '\r', '\n']).collect();
    let mut cases = vec![
        (with_size(&size), Fate::Recorded),
        (with_size(&size.to_uppercase()), Fate::Recorded),
        (with_size(&format!("0000{size}")), Fate::Recorded),
        (with_size(&format!("{size};name=value")), Fate::Recorded),
        (with_size(&format!("{size};{}", "x".repeat(1 << 20))), Fate::Refused),
        (chunked(&format!("{bytewise}0\r\n\r\n")), Fate::Recorded),
        (chunked(&format!("{bytewise}0\r\nX-Trailer: 1\r\n\r\n")), Fate::Recorded),
        (chunked(&format!("{bytewise}0\r\nContent-Length: 1\r\nHost: evil.example\r\n\r\n")), Fate::Recorded),
        (chunked(&format!("{bytewise}0\r\n{}\r\n", "X: y\r\n".repeat(1000))), Fate::Refused),
        (chunked(&format!("{bytewise}0\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))), Fate::Refused),
        (chunked("0\r\n\r\n"), Fate::Refused),
        (chunked(&format!("{size}\r\n{BODY}\r\n")), Fate::Refused),
        (chunked(&format!("{size}\r\n{BODY}0\r\n\r\n")), Fate::Refused),
        (chunked(&format!("{size}\n{BODY}\n0\n\n")), Fate::Refused),
        (chunked(&format!("{size}\r{BODY}\r0\r\r")), Fate::Refused),
        (chunked(&format!("{size}\r\n{BODY}\n\n0\r\n\r\n")), Fate::Refused),
        (chunked(BODY), Fate::Refused),
        (chunked(""), Fate::Refused),
    ];
    for bad in ["", "-1", "+13", "0x13", "g", "12", "14", "1 3", "\u{0}13", "ffffffffffffffff", "10000000000000013"] {
        cases.push((with_size(bad), Fate::Refused));
    }
    for (coding, fate) in [
        ("Chunked", Fate::Recorded),
        (" chunked ", Fate::Recorded),
        ("gzip, chunked", Fate::Either),
        ("chunked, chunked", Fate::Either),
        ("chunked, identity", Fate::Refused),
        ("identity", Fate::Refused),
        ("xchunked", Fate::Refused),
        ("chunked;q=1", Fate::Refused),
        ("\"chunked\"", Fate::Refused),
        ("\u{b}chunked", Fate::Refused),
        ("", Fate::Refused),
    ] {
        cases.push((format!("{HEAD}Transfer-Encoding: {coding}\r\n\r\n{size}\r\n{BODY}\r\n0\r\n\r\n"), fate));
    }
    let old = HEAD.replace("1.1", "1.0");
    cases.push((format!("{old}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{BODY}\r\n0\r\n\r\n"), Fate::Refused));
    cases.push((format!("{HEAD}Transfer-Encoding : chunked\r\n\r\n{size}\r\n{BODY}\r\n0\r\n\r\n"), Fate::Refused));
    all_of(target, &cases);
}

fn lengths(target: &Target<'_>) {
    let length = BODY.len();
    let chunks = format!("{length:x}\r\n{BODY}\r\n0\r\n\r\n");
    let mut cases = Vec::new();
    for both in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", chunks.len()),
        "Content-Length: 0\r\nTransfer-Encoding: chunked".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 99999".to_owned(),
    ] {
        cases.push((format!("{HEAD}{both}\r\n\r\n{chunks}"), Fate::Either));
    }
    for bad in ["-1", "+19", "19, 20", "0x13", "1e1", "19 19", "19.0", "\u{b}19", "x", "", "99999999999999999999"] {
        cases.push((format!("{HEAD}Content-Length: {bad}\r\n\r\n{BODY}"), Fate::Refused));
    }
    let two = |second: usize| format!("{HEAD}Content-Length: {length}\r\nContent-Length: {second}\r\n\r\n{BODY}");
    cases.push((two(length + 1), Fate::Refused));
    cases.push((two(0), Fate::Refused));
    // Its body is what is behind it: a request, and thus not JSON.
    cases.push((format!("{HEAD}Content-Length: {}\r\n\r\n", event().bytes().len()), Fate::Refused));
    // One that ends too late.
    cases.push((format!("{HEAD}Content-Length: 100000\r\n\r\n{BODY}"), Fate::Refused));
    all_of(target, &cases);
}

fn all_of(target: &Target<'_>, cases: &[(String, Fate)]) {
    while target.goes_on() {
        for (request, fate) in cases {
            try_one(target, request.as_bytes(), *fate);
        }
    }
}

fn headers(target: &Target<'_>) {
    let with = |headers: &str| format!("{HEAD}{headers}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let good = [with(&"X: y\r\n".repeat(98)), with(&format!("X: {}\r\n", "y".repeat(16_000)))];
    let bad = [
        with(&"X: y\r\n".repeat(99)),
        with(&"X: y\r\n".repeat(100_000)),
        with(&format!("X: {}\r\n", "y".repeat(17_000))),
        with(&format!("X: {}\r\n", "y".repeat(1 << 20))),
        with(&format!("{}: y\r\n", "X".repeat(1 << 20))),
        with(": y\r\n"),
        with("X\r\n"),
        with("X : y\r\n"),
        with(" X: y\r\n"),
        with("X: y\r\n folded\r\n"),
        with("X\u{0}: y\r\n"),
        with("X: \u{0}\r\n"),
        with("X: \rContent-Length: 1\r\n"),
        with("X(\u{7f}): y\r\n"),
        format!("POST /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1 << 20)),
        format!("{} /append HTTP/1.1\r\nHost: localhost\r\n\r\n", "P".repeat(1 << 20)),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    while target.goes_on() {
        for request in &good {
            let (_, response) = target.ask(request.as_bytes());
            target.recorded(&response.expect("an answer"));
        }
        for request in &bad {
            try_one(target, request.as_bytes(), Fate::Refused);
        }
        // Headers without an end, sent as fast as they are taken.
        let mut endless = target.connect();
        endless.write(HEAD.as_bytes());
        while endless.stream.write_all(&b"X: y\r\n".repeat(100)).is_ok() {}
        refused_or_closed(endless.read().as_ref(), "endless headers");
        assert!(endless.is_closed());
    }
}

fn announced(target: &Target<'_>) {
    let head = Request::new("POST", "/append").header("Content-Length", "10000000000").bytes();
    while target.goes_on() {
        let mut clients: Vec<_> = (0..256).map(|_| target.connect()).collect();
        for client in &mut clients {
            client.write(&head);
        }
        for client in &mut clients {
            target.tried(1);
            client.read().expect("an answer").refused_unwritten(413, "too_large");
            assert!(client.is_closed());
        }
    }
}

fn continues(target: &Target<'_>) {
    let ask = |length: usize| {
        Request::new("POST", "/append")
            .header("Content-Length", &length.to_string())
            .header("Expect", "100-continue")
            .bytes()
    };
    while target.goes_on() {
        // As it is meant to be.
        target.tried(5);
        let mut polite = target.connect();
        polite.write(&ask(BODY.len()));
        let mut go_on = [0; 25];
        polite.stream.read_exact(&mut go_on).unwrap();
        assert_eq!(go_on, *b"HTTP/1.1 100 Continue\r\n\r\n");
        polite.write(BODY.as_bytes());
        target.recorded(&polite.read().expect("an answer"));
        // Not waiting for it, twice on one connection.
        let request = event().header("Expect", "100-continue").bytes();
        polite.write(&request.repeat(2));
        target.recorded(&polite.read().expect("an answer"));
        target.recorded(&polite.read().expect("an answer"));
        // Asking, and going away.
        let mut gone = target.connect();
        gone.write(&ask(BODY.len()));
        drop(gone);
        // Asking for too much; nothing is waited for.
        let mut greedy = target.connect();
        greedy.write(&ask(10_000_000_000));
        greedy.read().expect("an answer").refused_unwritten(413, "too_large");
        assert!(greedy.is_closed());
        // Expecting something else.
        let (_, response) = target.ask(&event().header("Expect", "a-miracle").bytes());
        match response.expect("an answer") {
            response if response.status == 200 => target.recorded(&response),
            response => assert_eq!(response.status, 417),
        }
    }
}

/// Events in one write.
const PIPELINED: usize = 200;

fn pipelined(target: &Target<'_>) {
    let requests = event().bytes().repeat(PIPELINED);
    let mut client = target.connect();
    let mut last = (String::new(), 0);
    while target.goes_on() {
        target.tried(PIPELINED);
        let mut stream = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| stream.write_all(&requests).unwrap());
            for _ in 0..PIPELINED {
                let response = client.read().expect("an answer");
                target.recorded(&response);
                let answer = response.json();
                let place = (answer["segment"].as_str().unwrap().to_owned(), answer["index"].as_u64().unwrap());
                assert!(last.0 != place.0 || last.1 < place.1, "{place:?} after {last:?}");
                last = place;
            }
        });
    }
}

fn pipelined_probes(target: &Target<'_>) {
    let requests =
        [Request::new("GET", "/metrics").bytes(), Request::new("GET", "/readyz").bytes()].concat().repeat(20);
    let mut clients: Vec<_> = (0..32).map(|_| target.connect()).collect();
    while target.goes_on() {
        for client in &mut clients {
            client.write(&requests);
        }
        for client in &mut clients {
            target.tried(40);
            for _ in 0..40 {
                assert_eq!(client.read().expect("an answer").status, 200);
            }
        }
    }
}

fn events_unread(target: &Target<'_>) {
    let requests = event().bytes().repeat(PIPELINED);
    // What was sent may be recorded, whether or not its answer was taken.
    send_unread(target, &requests, || target.may_be_there(PIPELINED));
}

fn metrics_unread(target: &Target<'_>) {
    send_unread(target, &Request::new("GET", "/metrics").bytes().repeat(PIPELINED), || {});
}

/// Sends requests on 64 connections for as long as they are taken, and reads nothing.
fn send_unread(target: &Target<'_>, requests: &[u8], mut sent: impl FnMut()) {
    let connect = || {
        let client = target.connect();
        client.stream.set_nonblocking(true).unwrap();
        client
    };
    let mut clients: Vec<(Client, usize)> = (0..64).map(|_| (connect(), 0)).collect();
    while target.goes_on() {
        let mut is_stuck = true;
        for (client, at) in &mut clients {
            match client.stream.write(&requests[*at..]) {
                Ok(written) => {
                    if *at == 0 {
                        sent();
                        target.tried(PIPELINED);
                    }
                    *at = (*at + written) % requests.len();
                    is_stuck = false;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Given up by the sidecar, as it may.
                Err(_) => (*client, *at) = (connect(), 0),
            }
        }
        if is_stuck {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

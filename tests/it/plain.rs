//! Plain requests are answered without hyper, and exactly as hyper would have had them answered.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::Sidecar;

/// Once a connection has sent this, hyper serves it to its end.
const NOT_PLAIN: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Everything that is answered to some bytes, after which the client sends no more.
fn answers(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    // The sidecar may have closed already, for what it was sent.
    stream.shutdown(Shutdown::Write).unwrap_or(());
    let mut answers = Vec::new();
    // A connection that is reset ends what can be read.
    stream.read_to_end(&mut answers).unwrap_or_default();
    answers
}

/// One answer, without what is different each time, and in an order of its own.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: String,
    headers: Vec<String>,
    body: String,
}

fn parsed(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n").map(ToOwned::to_owned);
        let status = lines.next().unwrap();
        let mut headers: Vec<String> = lines.collect();
        let length = headers.iter().find_map(|header| header.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let body = std::str::from_utf8(&bytes[end + 4..end + 4 + length]).unwrap();
        bytes = &bytes[end + 4 + length..];
        // Time, segment and number of the line differ, and the length with them.
        let body = match serde_json::from_str::<serde_json::Value>(body) {
            Ok(mut value) if value.get("segment").is_some() => {
                headers.retain(|header| !header.starts_with("content-length: "));
                for member in ["ts", "segment", "index"] {
                    assert!(!value[member].is_null(), "{body}");
                    value[member] = 0.into();
                }
                value.to_string()
            }
            _ => body.to_owned(),
        };
        for header in &mut headers {
            if header.starts_with("date: ") {
                "date".clone_into(header);
            }
        }
        headers.sort();
        all.push(Answer { status, headers, body });
    }
    assert!(bytes.is_empty(), "{bytes:?}");
    all
}

/// What both ways have answered, and how many lines each has left.
#[track_caller]
fn alike(sidecar: &Sidecar, request: &[u8]) -> Vec<Answer> {
    let lines = || sidecar.lines().len();
    let before = lines();
    let direct = parsed(&answers(sidecar.address, request));
    let between = lines();
    let mut by_hyper = parsed(&answers(sidecar.address, &[NOT_PLAIN, request].concat()));
    by_hyper.remove(0);
    assert_eq!(direct, by_hyper, "{}", String::from_utf8_lossy(request));
    assert_eq!(between - before, lines() - between, "{}", String::from_utf8_lossy(request));
    direct
}

#[test]
fn whatever_is_sent_is_answered_as_hyper_has_it_answered() {
    let sidecar = Sidecar::start();
    let line = prop_oneof![
        12 => Just("POST /append HTTP/1.1"),
        1 => Just("POST /append HTTP/1.0"),
        1 => Just("GET /append HTTP/1.1"),
        1 => Just("POST //append HTTP/1.1"),
        1 => Just("POST /append?x HTTP/1.1"),
        1 => Just("POST /elsewhere HTTP/1.1"),
        1 => Just("POST /append HTTP/2.0"),
        1 => Just("POST http://localhost/append HTTP/1.1"),
        1 => Just("\r\nPOST /append HTTP/1.1"),
        1 => Just("POST /append  HTTP/1.1"),
    ];
    let host = prop_oneof![
        8 => Just("Host: 127.0.0.1:48291"),
        4 => Just("host: localhost"),
        2 => Just("HOST:[::1]:1"),
        1 => Just("Host: example.com"),
        1 => Just("Host: 127.0.0.1:99999"),
        1 => Just("Host: 127.0.0.1\r\nHost: 127.0.0.1"),
        1 => Just("X-Host: 127.0.0.1"),
        1 => Just("Host : 127.0.0.1"),
        1 => Just("Host: 127.0.0.1\u{80}"),
    ];
    let more = prop_oneof![
        8 => Just("Accept: */*"),
        4 => Just("User-Agent: curl/8"),
        4 => Just("Content-Type: application/json"),
        2 => Just("content-type: Application/JSON"),
        2 => Just("Content-Type: application/x-www-form-urlencoded"),
        1 => Just("Content-Type: application/json; charset=utf-8"),
        1 => Just("Content-Type: application/x-ndjson"),
        1 => Just("Content-Type: text/plain"),
        1 => Just("Content-Type:"),
        2 => Just("Connection: Keep-Alive"),
        2 => Just("Connection: close"),
        1 => Just("Origin: http://localhost"),
        1 => Just("Sec-Fetch-Site: cross-site"),
        1 => Just("Content-Encoding: gzip"),
        1 => Just("Transfer-Encoding: chunked"),
        1 => Just("Content-Length: 13"),
        1 => Just("X: \t y \t"),
        1 => Just("no colon"),
        1 => Just("Accept: a\u{7f}"),
        1 => Just(" folded"),
    ];
    let body = prop_oneof![
        12 => Just(r#"{"event":"a"}"#),
        2 => Just(r#"{"event":"a","message":"é\u0001","meta":[1, {"b":null}]}"#),
        1 => Just(r#"{"event":""}"#),
        1 => Just("{"),
        1 => Just(""),
        1 => Just("{\"event\":\"a\"}\n{\"event\":\"b\"}"),
    ];
    let length = prop_oneof![12 => Just(Some(0_isize)), 1 => Just(None), 1 => Just(Some(-1)), 1 => Just(Some(1))];
    let requests =
        (line, host, proptest::collection::vec(more, 0..4), body, length, 1..=2_usize, any::<prop::sample::Index>());
    let mut plain = 0;
    let mut runner = TestRunner::new(Config::with_cases(400));
    let ran = runner.run(&requests, |(line, host, more, body, length, times, place)| {
        let mut headers = vec![host.to_owned()];
        headers.extend(more.into_iter().map(ToOwned::to_owned));
        if let Some(more) = length {
            let length = body.len().saturating_add_signed(more);
            headers.insert(place.index(headers.len() + 1), format!("Content-Length: {length}"));
        }
        let request = format!("{line}\r\n{}\r\n\r\n{body}", headers.join("\r\n"));
        alike(&sidecar, request.repeat(times).as_bytes());
        Ok(())
    });
    ran.unwrap();
    // Not for want of requests that succeed.
    for times in 1..3 {
        let request =
            "POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}".repeat(times);
        plain += alike(&sidecar, request.as_bytes()).iter().filter(|answer| answer.status.ends_with("200 OK")).count();
    }
    assert_eq!(plain, 3);
}

//! What is refused, with which status, code and place (contract §2).

use crate::support::{Request, Sidecar};

/// Bodies that are not JSON.
const NOT_JSON: &[&str] = &[
    "",
    " ",
    "\n",
    "{",
    "}",
    "{}}",
    "{\"event\":\"a\"",
    "{\"event\":\"a\"}}",
    "{\"event\":\"a\"} x",
    "{\"event\":\"a\"}{\"event\":\"b\"}",
    "{\"event\":\"a\",}",
    "{,\"event\":\"a\"}",
    "{\"event\"}",
    "{\"event\":}",
    "{\"event\" \"a\"}",
    "{\"event\":\"a\" \"meta\":1}",
    "{event:\"a\"}",
    "{'event':'a'}",
    "{\"event\":'a'}",
    "{\"event\":\"a}",
    "{\"event\":\"a\\\"}",
    "nul",
    "nulll",
    "tru",
    "NaN",
    "undefined",
    "{\"event\":\"a\",\"meta\":NaN}",
    "{\"event\":\"a\",\"meta\":Infinity}",
    "{\"event\":\"a\",\"meta\":-Infinity}",
    "{\"event\":\"a\",\"meta\":True}",
    "{\"event\":\"a\",\"meta\":None}",
    "{\"event\":\"a\",\"meta\":undefined}",
    "{\"event\":\"a\",\"meta\":01}",
    "{\"event\":\"a\",\"meta\":-}",
    "{\"event\":\"a\",\"meta\":+1}",
    "{\"event\":\"a\",\"meta\":.5}",
    "{\"event\":\"a\",\"meta\":1.}",
    "{\"event\":\"a\",\"meta\":1e}",
    "{\"event\":\"a\",\"meta\":1e+}",
    "{\"event\":\"a\",\"meta\":0x1}",
    "{\"event\":\"a\",\"meta\":1_000}",
    "{\"event\":\"a\",\"meta\":00}",
    "{\"event\":\"a\",\"meta\":-01}",
    "{\"event\":\"a\",\"meta\":1 2}",
    "{\"event\":\"a\",\"meta\":[1,]}",
    "{\"event\":\"a\",\"meta\":[,1]}",
    "{\"event\":\"a\",\"meta\":[1 2]}",
    "{\"event\":\"a\",\"meta\":[1}",
    "{\"event\":\"a\",\"meta\":{1:2}}",
    "{\"event\":\"a\",\"meta\":{\"a\"}}",
    "{\"event\":\"a\",\"meta\":{\"a\":1,}}",
    "{\"event\":\"a\",\"meta\":]}",
    "{\"event\":\"a\\x\"}",
    "{\"event\":\"a\\u12\"}",
    "{\"event\":\"a\\u12g4\"}",
    "{\"event\":\"a\\u\"}",
    "{\"event\":\"\\ud83d\\u12\"}",
    "{\"event\":\"a\nb\"}",
    "{\"event\":\"a\tb\"}",
    "{\"event\":\"a\u{0}b\"}",
    "{\"event\":\"a\u{1f}b\"}",
    "{\"event\":\"a\rb\"}",
    "{\"event\":\"a\"} // x",
    "/* x */{\"event\":\"a\"}",
    "# x\n{\"event\":\"a\"}",
    "\u{feff}{\"event\":\"a\"}",
    "{\u{a0}\"event\":\"a\"}",
    "{\u{2028}\"event\":\"a\"}",
    "{\u{b}\"event\":\"a\"}",
    "{\u{c}\"event\":\"a\"}",
    "{\"event\":\"a\"}\u{0}",
    "\u{0}{\"event\":\"a\"}",
    "event=a&message=b",
    "<event>a</event>",
    "event: a",
];

/// Bodies that are JSON, but not an event.
const NOT_EVENTS: &[(&str, &str)] = &[
    ("null", "null; an event is an object"),
    ("true", "an event is an object"),
    ("1", "a number; an event is an object"),
    ("\"{}\"", "encoded twice"),
    ("[]", "an array"),
    ("[{\"event\":\"a\"}]", "an array"),
    ("{}", "`event` is missing"),
    ("{\"message\":\"m\"}", "`event` is missing"),
    ("{\"event\":\"\"}", "`event` is empty"),
    ("{\"event\":null}", "`event` must be a string, not null"),
    ("{\"event\":1}", "`event` must be a string, not a number"),
    ("{\"event\":[]}", "`event` must be a string, not an array"),
    ("{\"event\":{}}", "`event` must be a string, not an object"),
    ("{\"event\":true}", "`event` must be a string"),
    ("{\"event\":\"a\",\"message\":1}", "`message` must be a string, not a number"),
    ("{\"event\":\"a\",\"message\":[]}", "`message` must be a string"),
    ("{\"event\":\"a\",\"message\":{}}", "`message` must be a string"),
    ("{\"event\":\"a\",\"message\":false}", "`message` must be a string"),
    ("{\"event\":\"a\",\"event\":\"a\"}", "`event` is given twice"),
    ("{\"event\":\"a\",\"message\":\"\",\"message\":\"\"}", "`message` is given twice"),
    ("{\"event\":\"a\",\"message\":null,\"message\":null}", "`message` is given twice"),
    ("{\"event\":\"a\",\"meta\":null,\"meta\":null}", "`meta` is given twice"),
    ("{\"event\":\"a\",\"\\u006deta\":1,\"meta\":2}", "`meta` is given twice"),
    ("{\"event\":\"a\",\"ts\":\"2026-01-28T09:12:44.381Z\"}", "`ts`"),
    ("{\"event\":\"a\",\"jobId\":\"1\"}", "`jobId`"),
    ("{\"event\":\"a\",\"workspaceId\":null}", "`workspaceId`"),
    ("{\"event\":\"a\",\"\\u0074s\":1}", "`ts`"),
    ("{\"event\":\"a\",\"x\":1}", "unknown member"),
    ("{\"event\":\"a\",\"Event\":\"b\"}", "unknown member"),
    ("{\"event\":\"a\",\"\":1}", "unknown member"),
    ("{\"event\":\"a\",\"meta \":1}", "unknown member"),
    ("{\"event\":\"audit-log.\"}", "reserved"),
    ("{\"event\":\"audit-log.sealed\"}", "reserved"),
    ("{\"event\":\"\\u0061udit-log.x\"}", "reserved"),
    ("{\"event\":\"\\ud83d\"}", "half a surrogate pair"),
    ("{\"event\":\"a\",\"message\":\"\\ude00\"}", "half a surrogate pair"),
    ("{\"event\":\"a\",\"meta\":\"\\uD800\\uD800\"}", "half a surrogate pair"),
    ("{\"event\":\"a\",\"meta\":{\"\\udfff\":1}}", "half a surrogate pair"),
    ("{\"event\":\"a\",\"meta\":[\"\\ud83d\\n\"]}", "half a surrogate pair"),
];

#[test]
fn what_is_not_json_is_400() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    for body in NOT_JSON {
        let response = client.send(&Request::post(body));
        let detail = response.refused_unwritten(400, "invalid_json");
        assert!(detail.contains("(line ") && detail.contains(", column "), "{detail}");
    }
    assert!(sidecar.segments().is_empty());
}

#[test]
fn what_is_json_but_no_event_is_422_and_says_why() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    for (body, reason) in NOT_EVENTS {
        let detail = client.send(&Request::post(body)).refused_unwritten(422, "invalid_event");
        assert!(detail.contains(reason), "{body}: {detail}");
    }
    assert!(sidecar.segments().is_empty());
}

#[test]
fn common_slips_are_named_as_such() {
    let sidecar = Sidecar::start();
    for (body, name) in [
        (&b"{\"event\":\"a\",\"meta\":NaN}"[..], "NaN"),
        (b"{\"event\":\"a\",\"meta\":[-Infinity]}", "Infinity"),
        (b"{\"event\":\"a\",\"meta\":{\"x\":None}}", "Python"),
        (b"{\"event\":\"a\",\"meta\":{\"x\":1,}}", "comma"),
        (b"{'event':'a'}", "single quote"),
        (b"{\"event\":\"caf\xE9\"}", "Latin-1"),
        (b"{\"event\":\"\x93a\x94\"}", "Windows-1252"),
        (b"\xFF\xFE{\x00}\x00", "UTF-16"),
        (b"\xEF\xBB\xBF{}", "byte order mark"),
        (b"{\"event\":\"a\"}\n{\"event\":\"b\"}", "application/x-ndjson"),
        (b"event=a&message=b", "form"),
        (b"{\"event\":\"a\nb\"}", "\\n"),
        (b"", "empty"),
        (b"// x", "comment"),
    ] {
        let detail = sidecar.post(body).refused_unwritten(400, "invalid_json");
        assert!(detail.contains(name), "{name}: {detail}");
    }
}

#[test]
fn a_fault_is_told_with_line_and_column() {
    let sidecar = Sidecar::start();
    for (body, line, column) in [
        ("{\"event\":x}", 1, 10),
        ("{\n  \"event\": \"a\",\n  \"message\": \"é\" x\n}", 3, 18),
        ("{\"event\":\"a\"}\n\n x", 3, 2),
        ("{\"event\":\"é\u{1}\"}", 1, 12),
    ] {
        let detail = sidecar.post(body).refused_unwritten(400, "invalid_json");
        assert!(detail.ends_with(&format!("(line {line}, column {column})")), "{body}: {detail}");
    }
}

#[test]
fn invalid_utf8_is_refused_at_every_position() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    let good = "{\"event\":\"aé\",\"message\":\"日本\",\"meta\":{\"k\":\"😀\"}}".as_bytes();
    assert_eq!(client.send(&Request::post(good)).status, 200);
    for at in 0..good.len() {
        for byte in [0x80, 0xC0, 0xC1, 0xED, 0xF5, 0xFF] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            if std::str::from_utf8(&bad).is_ok() {
                continue;
            }
            client.send(&Request::post(&bad)).refused_unwritten(400, "invalid_json");
        }
        // Surrogates and overlong forms, which UTF-8 does not have.
        for bytes in [&b"\xED\xA0\x80"[..], b"\xC0\x80", b"\xF4\x90\x80\x80"] {
            let mut bad = good[..at].to_vec();
            bad.extend_from_slice(bytes);
            bad.extend_from_slice(&good[at..]);
            client.send(&Request::post(&bad)).refused_unwritten(400, "invalid_json");
        }
    }
    assert_eq!(sidecar.lines().len(), 1);
}

#[test]
fn every_cut_of_a_good_body_is_refused() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    let good = br#"{"event":"a\u00e9","message":null,"meta":{"k":[1.5e-3,true,"x"]}}"#;
    for end in 0..good.len() {
        client.send(&Request::post(&good[..end])).refused_unwritten(400, "invalid_json");
    }
    assert!(sidecar.segments().is_empty());
}

#[test]
fn a_batch_is_all_or_nothing_and_names_the_line() {
    let sidecar = Sidecar::start();
    for (body, status, code, line) in [
        ("{\"event\":\"a\"}\n{\"event\":\"b\"", 400, "invalid_json", Some(2)),
        ("{\"event\":\"a\"}\n\n\r\n{\"event\":\"\"}\n{\"event\":\"c\"}", 422, "invalid_event", Some(4)),
        ("\u{feff}{\"event\":\"a\"}", 400, "invalid_json", Some(1)),
        ("[{\"event\":\"a\"}]", 422, "invalid_event", Some(1)),
        ("{\"event\":\n\"a\"}", 400, "invalid_json", Some(1)),
        ("", 422, "invalid_event", None),
        ("\n \r\n\n", 422, "invalid_event", None),
    ] {
        let response = sidecar.send(&Request::batch(body));
        response.refused_unwritten(status, code);
        assert_eq!(response.json().get("line").and_then(serde_json::Value::as_u64), line, "{body}");
    }
    assert!(sidecar.segments().is_empty());
}

#[test]
fn content_types_that_are_not_read() {
    let sidecar = Sidecar::start();
    for content_type in [
        "text/plain",
        "text/json",
        "application/xml",
        "multipart/form-data; boundary=x",
        "json",
        "application/jsonx",
        "application/x-ndjson+gzip",
        "*/*",
        "application/json, text/plain",
    ] {
        let request = Request::post(r#"{"event":"a"}"#).header("Content-Type", content_type);
        sidecar.send(&request).refused_unwritten(415, "unsupported_media_type");
    }
    for encoding in ["gzip", "deflate", "br", "identity, gzip", "x"] {
        let request = Request::post(r#"{"event":"a"}"#).header("Content-Encoding", encoding);
        sidecar.send(&request).refused_unwritten(415, "unsupported_media_type");
    }
    let request = Request::post(r#"{"event":"a"}"#)
        .header("Content-Type", "application/json")
        .header("Content-Type", "text/plain");
    sidecar.send(&request).refused_unwritten(415, "unsupported_media_type");
}

#[test]
fn paths_and_methods() {
    let sidecar = Sidecar::start();
    for target in ["/", "/append/", "/Append", "/append/x", "/x//append", "/%61ppend", "/audit", "/events"] {
        let request = Request::post(r#"{"event":"a"}"#).to(target);
        sidecar.send(&request).refused_unwritten(404, "not_found");
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let response = sidecar.send(&Request::new(method, "/append"));
        response.refused_unwritten(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some("POST"));
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = sidecar.send(&Request::new("POST", path));
        response.refused_unwritten(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
        assert_eq!(sidecar.get(path).status, 200);
    }
}

#[test]
fn hosts_that_are_not_this_one() {
    let sidecar = Sidecar::start();
    let event = || Request::post(r#"{"event":"a"}"#).without_host();
    for host in [
        "evil.example",
        "evil.example:48291",
        "10.0.0.1",
        "0.0.0.0",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "user@localhost",
        "",
    ] {
        sidecar.send(&event().header("Host", host)).refused_unwritten(421, "wrong_host");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:9", "127.9.9.9", "[::1]", "[::1]:48291"] {
        assert_eq!(sidecar.send(&event().header("Host", host)).status, 200, "{host}");
    }
    sidecar.send(&event()).refused_unwritten(400, "ambiguous_request");
    sidecar
        .send(&event().header("Host", "localhost").header("Host", "localhost"))
        .refused_unwritten(400, "ambiguous_request");
    sidecar
        .send(&event().header("Host", "localhost").header("host", "evil.example"))
        .refused_unwritten(400, "ambiguous_request");
    for target in ["http://evil.example/append", "http://evil.example:80/append", "http://10.0.0.1/append"] {
        let request = event().header("Host", "localhost").to(target);
        sidecar.send(&request).refused_unwritten(421, "wrong_host");
    }
    let mut client = sidecar.connect();
    client.write(b"POST /append HTTP/1.0\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}");
    client.read().unwrap().refused_unwritten(400, "ambiguous_request");
}

#[test]
fn where_other_addresses_are_allowed_names_still_are_not() {
    let sidecar = crate::support::Setup::new().args(["--allow-non-loopback"]).start();
    let event = || Request::post(r#"{"event":"a"}"#).without_host();
    assert_eq!(sidecar.send(&event().header("Host", "10.1.2.3:48291")).status, 200);
    sidecar.send(&event().header("Host", "evil.example")).refused_unwritten(421, "wrong_host");
}

#[test]
fn browser_pages_may_not_write_history() {
    let sidecar = Sidecar::start();
    for (name, value) in [
        ("Origin", "http://localhost:8888"),
        ("Origin", "null"),
        ("Origin", ""),
        ("Origin", "http://127.0.0.1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "x"),
    ] {
        sidecar.send(&Request::post(r#"{"event":"a"}"#).header(name, value)).refused_unwritten(403, "forbidden_origin");
        sidecar.send(&Request::new("GET", "/metrics").header(name, value)).refused_unwritten(403, "forbidden_origin");
    }
    for site in ["none", "same-origin"] {
        assert_eq!(sidecar.send(&Request::post(r#"{"event":"a"}"#).header("Sec-Fetch-Site", site)).status, 200);
    }
    // What Node's fetch sends.
    assert_eq!(sidecar.send(&Request::post(r#"{"event":"a"}"#).header("Sec-Fetch-Mode", "cors")).status, 200);
}

/// Each request breaks a rule and all rules that are checked later.
#[test]
fn rules_are_checked_in_the_order_of_the_contract() {
    let sidecar = Sidecar::start();
    let long = (2 << 20).to_string();
    let request = |target: &str, method: &str| Request::new(method, "/").to(target);
    let host = |r: Request| r.without_host().header("Host", "evil.example");
    let origin = |r: Request| r.header("Origin", "null");
    let body = |r: Request| {
        r.header("Content-Type", "text/plain").header("Content-Length", &long).header("Expect", "100-continue")
    };
    for (request, status, code) in [
        (body(origin(request("/x", "PUT").without_host())), 400, "ambiguous_request"),
        (body(origin(host(request("/x", "PUT")))), 421, "wrong_host"),
        (body(origin(request("/x", "PUT"))), 403, "forbidden_origin"),
        (body(request("/x", "PUT")), 404, "not_found"),
        (body(request("/append", "PUT")), 405, "method_not_allowed"),
        (body(request("/append", "POST")), 415, "unsupported_media_type"),
        (request("/append", "POST").header("Content-Length", &long).header("Expect", "100-continue"), 413, "too_large"),
        (Request::post("x"), 400, "invalid_json"),
    ] {
        sidecar.send(&request).refused_unwritten(status, code);
    }
}

#[test]
fn no_refusal_repeats_the_clients_data() {
    let sidecar = Sidecar::start();
    for body in [
        "{\"zebra\":1}",
        "zebra",
        "{\"event\":\"audit-log.zebra\"}",
        "{\"event\":\"a\",\"meta\":zebra}",
        "{\"event\":\"\\ud83dzebra\"}",
        "{\"event\":{\"zebra\":1}}",
    ] {
        let response = sidecar.post(body);
        assert!(!response.text().contains("zebra"), "{}", response.text());
        assert!(!sidecar.send(&Request::batch(body)).text().contains("zebra"));
    }
    assert!(!sidecar.get("/zebra").text().contains("zebra"));
    assert!(!sidecar.log().contains("zebra"));
}

#[test]
fn broken_framing_ends_the_connection_and_writes_nothing() {
    let sidecar = Sidecar::start();
    for head in [
        "POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n{\"event\":\"a\"}",
        "POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n{\"event\":\"a\"}",
        "POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\nContent-Length: 14\r\n\r\n{\"event\":\"a\"}",
        "POST /append HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n{\"event\":\"a\"}",
        "POST /append HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "POST /append HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}",
        "POST /append HTTP/3.0\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{\"event\":\"a\"}",
        "\u{16}\u{3}\u{1}hello TLS",
    ] {
        let mut client = sidecar.connect();
        client.write(head.as_bytes());
        if let Some(response) = client.read() {
            assert!((400..500).contains(&response.status), "{head}: {}", response.status);
        }
        assert!(client.is_closed(), "{head}");
    }
    // A body that ends before its length.
    let mut client = sidecar.connect();
    client.write(b"POST /append HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{\"event\":\"a\"}");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    if let Some(response) = client.read() {
        response.refused_unwritten(400, "ambiguous_request");
    }
    assert!(sidecar.segments().is_empty());
}

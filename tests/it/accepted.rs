//! What is accepted, and the line it becomes (contract §2 and §3).

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;

use crate::support::{JOB, Request, Setup, Sidecar, WORKSPACE, wait_for};

/// The line's text without its time, and the time.
fn line_of(sidecar: &Sidecar, answer: &Value) -> (String, String) {
    let segment = &sidecar.segments()[answer["segment"].as_str().unwrap()];
    let index = usize::try_from(answer["index"].as_u64().unwrap()).unwrap();
    let line = segment.split_inclusive(|byte| *byte == b'\n').nth(index).expect("the line is there");
    let line = String::from_utf8(line.to_vec()).unwrap();
    let ts = answer["ts"].as_str().unwrap();
    let rest = line.strip_prefix(&format!("{{\"ts\":\"{ts}\",")).expect("the line begins with the answer's time");
    (rest.to_owned(), ts.to_owned())
}

fn expected(event: &str, message: &str, meta: &str) -> String {
    format!(
        "\"jobId\":\"{JOB}\",\"workspaceId\":\"{WORKSPACE}\",\"event\":{event},\"message\":{message},\"meta\":{meta}}}\n"
    )
}

#[test]
fn the_documented_call_leaves_the_documented_line() {
    let sidecar = Sidecar::start();
    let body = "{\n    \"event\": \"DATA_EXPORT\",\n    \"message\": \"Exported results to CSV\",\n    \"meta\": {\n      \"path\": \"/work/output/results.csv\",\n      \"rows\": 12500\n    }\n  }";
    let response = sidecar.send(&Request::post(body).header("Content-Type", "application/json"));
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    assert_eq!(response.header("audit-written"), None);
    let answer = response.json();
    assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["index", "segment", "ts"]);
    assert_eq!(answer["index"], 0);
    let (line, ts) = line_of(&sidecar, &answer);
    let meta = r#"{"path":"/work/output/results.csv","rows":12500}"#;
    assert_eq!(line, expected("\"DATA_EXPORT\"", "\"Exported results to CSV\"", meta));
    assert_eq!(ts.len(), 24);
    // The segment is named by a time that is not later than the first line's.
    let name = answer["segment"].as_str().unwrap();
    let compact = ts.replace(['-', ':'], "");
    let opened = name.strip_prefix("audit-0_").unwrap().strip_suffix(".jsonl").unwrap();
    assert!(opened <= compact.as_str(), "{opened} {compact}");
    assert_eq!(sidecar.append(body)["index"], 1);
}

#[test]
fn members_are_put_in_order_and_filled_in() {
    let sidecar = Sidecar::start();
    for (body, event, message, meta) in [
        (r#"{"event":"a"}"#, "\"a\"", "\"\"", "null"),
        (r#"{"event":"a","message":null,"meta":null}"#, "\"a\"", "\"\"", "null"),
        (r#"{"meta":[1,2],"message":"m","event":"a"}"#, "\"a\"", "\"m\"", "[1,2]"),
        (r#"{"event":"a","meta":false}"#, "\"a\"", "\"\"", "false"),
        (r#"{"event":"a","meta":"s"}"#, "\"a\"", "\"\"", "\"s\""),
        (r#"{"event":"a","meta":{"b":1,"a":2,"b":3}}"#, "\"a\"", "\"\"", r#"{"b":1,"a":2,"b":3}"#),
        (
            r#"{"event":"a","meta":{"event":1,"ts":2,"jobId":3,"":4}}"#,
            "\"a\"",
            "\"\"",
            r#"{"event":1,"ts":2,"jobId":3,"":4}"#,
        ),
        (
            "\t\r\n {\r\n\t\"event\" : \"a\" , \"meta\" : [ 1 , { \"k\" : [ ] } ] }\n\n",
            "\"a\"",
            "\"\"",
            r#"[1,{"k":[]}]"#,
        ),
        (r#"{"\u0065vent":"\u0061\u00e9\ud83d\ude00\/","message":"\u0041"}"#, "\"aé😀/\"", "\"A\"", "null"),
        (r#"{"event":"audit-log"}"#, "\"audit-log\"", "\"\"", "null"),
        (r#"{"event":"Audit-log.x"}"#, "\"Audit-log.x\"", "\"\"", "null"),
        (r#"{"event":" "}"#, "\" \"", "\"\"", "null"),
    ] {
        let answer = sidecar.append(body);
        assert_eq!(line_of(&sidecar, &answer).0, expected(event, message, meta), "{body}");
    }
}

#[test]
fn meta_keeps_the_clients_bytes() {
    let sidecar = Sidecar::start();
    let mut values: Vec<String> = [
        "0",
        "-0",
        "0.0",
        "-0.0e-0",
        "1e0",
        "1E+2",
        "1e-2",
        "1.10",
        "100",
        "0.1",
        "1e999999",
        "-1e-999999",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        "9007199254740993",
        "1.7976931348623157e309",
        "4.9e-324",
        "18446744073709551616",
        "-9223372036854775809",
        "true",
        "false",
        "null",
        r#""""#,
        r#""\/""#,
        r#""/""#,
        r#""\u0041""#,
        r#""\u00E9\u00e9""#,
        r#""\ud83D\uDe00""#,
        r#""\b\f\n\r\t\"\\""#,
        r#""\u0000\u001f""#,
        r#""\u2028\u2029\u202e""#,
        r#""\\u2028""#,
        r#""\\\\""#,
        r#""é日本😀""#,
        "\"\u{a0}\u{3000}\u{feff}\"",
        "\"\u{200b}\u{200e}\u{200f}\u{2065}\u{206a}\u{2027}\u{202f}\u{a0}\"",
        r#""<script>&'""#,
        "[]",
        "{}",
        "[[],{}]",
        r#"{"a":{"a":{"a":[1,[2,[3]]]}}}"#,
        r#"{"":"","":""}"#,
        r#"[1,1.0,1e0,"1"]"#,
    ]
    .map(str::to_owned)
    .to_vec();
    values.push("7".repeat(5000));
    values.push(format!("[{}]", vec!["0"; 5000].join(",")));
    for value in values {
        let answer = sidecar.append(format!("{{\"event\":\"a\",\"meta\":{value}}}"));
        assert_eq!(line_of(&sidecar, &answer).0, expected("\"a\"", "\"\"", &value), "{value}");
    }
}

#[test]
fn what_fools_line_readers_and_terminals_is_escaped_in_every_string() {
    let sidecar = Sidecar::start();
    let special = (0x7F..=0x9F).chain(0x2028..=0x202E).chain(0x2066..=0x2069);
    for c in special.filter_map(char::from_u32) {
        let escaped = format!("\"x\\u{:04x}y\"", u32::from(c));
        let body = format!("{{\"event\":\"x{c}y\",\"message\":\"x{c}y\",\"meta\":{{\"x{c}y\":[\"x{c}y\"]}}}}");
        let answer = sidecar.append(body);
        let meta = format!("{{{escaped}:[{escaped}]}}");
        assert_eq!(line_of(&sidecar, &answer).0, expected(&escaped, &escaped, &meta), "U+{:04X}", u32::from(c));
    }
    // The escapes that a client sends for controls become JSON's shortest in the event and the message.
    let answer = sidecar.append(r#"{"event":"\u000a\u0009\u0008\u000c\u000d\u0022\u005c\u0001\u001F\u007f"}"#);
    assert_eq!(line_of(&sidecar, &answer).0, expected(r#""\n\t\b\f\r\"\\\u0001\u001f\u007f""#, "\"\"", "null"));
}

#[test]
fn the_identity_is_in_every_line_escaped_like_every_string() {
    let mut setup = Setup::new();
    setup.command.env("UCLOUD_RANK", "4294967295").args([
        "--job-id",
        "a\"b\\é",
        "--workspace-id",
        "w\u{202e}\u{2028}x",
    ]);
    let sidecar = setup.start();
    let answer = sidecar.append(r#"{"event":"a"}"#);
    assert!(answer["segment"].as_str().unwrap().starts_with("audit-4294967295_"));
    let (line, _) = line_of(&sidecar, &answer);
    let start = r#""jobId":"a\"b\\é","workspaceId":"w\u202e\u2028x","event":"a""#;
    assert!(line.starts_with(start), "{line}");
}

#[test]
fn content_types_of_an_event() {
    let sidecar = Sidecar::start();
    for content_type in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"x\"",
        " application/json ;",
        "application/cloudevents+json",
        "application/vnd.api+json; v=1",
        "application/x-www-form-urlencoded",
        "",
    ] {
        let request = Request::post(r#"{"event":"a"}"#).header("Content-Type", content_type);
        assert_eq!(sidecar.send(&request).status, 200, "{content_type}");
    }
    assert_eq!(sidecar.post(r#"{"event":"a"}"#).status, 200);
    for encoding in ["identity", "Identity", " identity "] {
        let request = Request::post(r#"{"event":"a"}"#).header("Content-Encoding", encoding);
        assert_eq!(sidecar.send(&request).status, 200, "{encoding}");
    }
}

#[test]
fn a_batch_is_one_commit_with_one_time_and_keeps_its_order() {
    let sidecar = Sidecar::start();
    for content_type in ["application/x-ndjson", "application/jsonl", "application/x-ndjson; charset=utf-8"] {
        let body = "\n{\"event\":\"a\"}\r\n\r\n  \n{\"event\":\"b\",\"meta\":{ }}\n{\"event\":\"c\"}";
        let request = Request::post(body).header("Content-Type", content_type);
        let response = sidecar.send(&request);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.json()["count"], 3);
    }
    let lines = sidecar.lines();
    let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"].repeat(3));
    for batch in lines.chunks(3) {
        assert!(batch.iter().all(|line| line["ts"] == batch[0]["ts"]));
    }
    assert_eq!(sidecar.send(&Request::batch("{\"event\":\"a\"}")).json()["index"], 9);
}

#[test]
fn repeated_slashes_and_queries_lead_to_the_same_path() {
    let sidecar = Sidecar::start();
    for target in ["/append", "//append", "///append", "/append?x=//y", "//append?"] {
        let request = Request::post(r#"{"event":"a"}"#).to(target);
        assert_eq!(sidecar.send(&request).status, 200, "{target}");
    }
    for target in ["http://127.0.0.1/append", "http://localhost:1//append"] {
        let request = Request::post(r#"{"event":"a"}"#).to(target);
        assert_eq!(sidecar.send(&request).status, 200, "{target}");
    }
}

#[test]
fn a_chunked_body_is_read_and_the_connection_then_closed() {
    let sidecar = Sidecar::start();
    let request = Request::post("5\r\n{\"eve\r\n8;x=1\r\nnt\":\"a\"}\r\n0\r\nTrailer: x\r\n\r\n")
        .header("Transfer-Encoding", "chunked");
    let mut client = sidecar.connect();
    let response = client.send(&request);
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(client.is_closed());
    // So is that of a refused one.
    for (name, value) in [("Origin", "null"), ("Content-Encoding", "gzip")] {
        let mut client = sidecar.connect();
        let response = client.send(&request.clone().header(name, value));
        assert!((400..500).contains(&response.status), "{}", response.status);
        assert_eq!(response.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
    // With a length as well it is read as chunked, or refused; never as two requests.
    for (first, second) in
        [("Transfer-Encoding: chunked", "Content-Length: 3"), ("Content-Length: 3", "Transfer-Encoding: chunked")]
    {
        let mut client = sidecar.connect();
        client.write(format!("POST /append HTTP/1.1\r\nHost: localhost\r\n{first}\r\n{second}\r\n\r\nd\r\n{{\"event\":\"a\"}}\r\n0\r\n\r\n").as_bytes());
        let response = client.read();
        assert!(response.is_none_or(|response| matches!(response.status, 200 | 400)));
        assert!(client.is_closed());
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    let mut bytes = Vec::new();
    for number in 0..200 {
        bytes.extend(Request::post(format!("{{\"event\":\"e{number}\"}}")).bytes());
    }
    client.write(&bytes);
    for number in 0..200 {
        let response = client.read().expect("an answer");
        assert_eq!(response.json()["index"], number);
    }
    let names: Vec<_> = sidecar.lines().iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (0..200).map(|number| format!("e{number}")).collect::<Vec<_>>());
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    let body = r#"{"event":"a"}"#;
    client.write(
        format!(
            "POST /append HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    let mut first = [0; 25];
    std::io::Read::read_exact(&mut client.stream, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write(body.as_bytes());
    assert_eq!(client.read().unwrap().status, 200);
}

/// Any event that a client could mean, as JSON text with odd spacing.
fn any_event() -> impl Strategy<Value = (String, String, String)> {
    let text = "[\\PC\u{7f}-\u{a0}\u{2027}-\u{202f}\u{2065}-\u{206a}\u{0}-\u{20}\"\\\\/]{0,12}";
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?",
        text.prop_map(|value| serde_json::to_string(&value).unwrap()),
        "\"(\\\\u[0-9a-cA-C][0-9a-fA-F]{3}|[a-z]|\\\\/){0,6}\"",
    ];
    let meta = leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), "[ \t\r\n]{0,2}")
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},{space}")))),
            (prop::collection::vec((text, inner), 0..5), "[ \t\r\n]{0,2}").prop_map(|(items, space)| {
                let items: Vec<_> = items
                    .iter()
                    .map(|(k, v)| format!("{}{space}:{space}{v}", serde_json::to_string(k).unwrap()))
                    .collect();
                format!("{{{space}{}{space}}}", items.join(&format!("{space},{space}")))
            }),
        ]
    });
    ("[a-z][\\PC\u{7f}-\u{a0}\u{2027}-\u{202f}\u{0}-\u{20}\"\\\\/]{0,12}", text, meta)
}

/// Whatever event is accepted: its line parses back to the same values, is one line for every line reader, and keeps
/// the bytes of `meta` but for white space and the escaped characters.
#[test]
fn every_accepted_event_becomes_one_line_of_the_same_values() {
    let sidecar = Sidecar::start();
    let client = std::cell::RefCell::new(sidecar.connect());
    let segment = || wait_for("the segment", || sidecar.segments().into_iter().next());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let offset = std::cell::Cell::new(0);
    runner
        .run(&any_event(), |(name, message, meta)| {
            let body = format!(
                "{{\"meta\": {meta}, \"event\":{},\"message\" :{}}}",
                serde_json::to_string(&name).unwrap(),
                serde_json::to_string(&message).unwrap()
            );
            let response = client.borrow_mut().send(&Request::post(&body));
            prop_assert_eq!(response.status, 200, "{} {}", response.text(), body);
            let (_, bytes) = segment();
            let text = std::str::from_utf8(&bytes[offset.get()..]).unwrap();
            offset.set(bytes.len());
            let splits =
                |c: char| matches!(c, '\u{a}'..='\u{d}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
            prop_assert_eq!(text.matches(splits).count(), 1);
            prop_assert!(text.ends_with('\n'));
            let line: Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(line["event"].as_str(), Some(name.as_str()));
            prop_assert_eq!(line["message"].as_str(), Some(message.as_str()));
            prop_assert_eq!(&line["meta"], &serde_json::from_str::<Value>(&meta).unwrap());
            let kept = text.split_once("\"meta\":").unwrap().1.strip_suffix("}\n").unwrap();
            prop_assert_eq!(kept, compact(&meta));
            Ok(())
        })
        .unwrap();
}

/// The independent model of what changes in `meta`: white space outside of strings goes, special characters are escaped.
fn compact(meta: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for c in meta.chars() {
        if in_string || !matches!(c, ' ' | '\t' | '\r' | '\n') {
            let shown = u32::from(c);
            if matches!(shown, 0x7F..=0x9F | 0x2028..=0x202E | 0x2066..=0x2069) {
                write!(out, "\\u{shown:04x}").unwrap();
            } else {
                out.push(c);
            }
        }
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '"' {
            in_string = !in_string;
        }
    }
    out
}

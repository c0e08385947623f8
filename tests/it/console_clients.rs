//! Clients that mean harm, that vanish, or that are many: web pages that guess, readers that stop reading, and a thousand questions at
//! once. None gets what is not theirs, and none leaves anything behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::console::Console;
use crate::support::{Client, PATIENCE, Request, binary, tool, wait_for};

/// A directory of 40 segments of two jobs, of so many lines each; a line has some 300 bytes.
fn audit(lines: u64) -> TempDir {
    let temp = tempfile::tempdir().unwrap();
    for nth in 0..40_u64 {
        let job = format!("j{}", nth % 2);
        let mut text = String::new();
        for line in 0..lines {
            let ts = 1_769_558_400_000 + nth * 60_000 + line * 7;
            let message = format!("{:x<200}", line % 11);
            writeln!(
                text,
                "{{\"ts\":{ts},\"jobId\":\"{job}\",\"workspaceId\":\"w\",\"event\":\"E{}\",\"message\":\"{message}\",\"meta\":{{\"n\":{line}}}}}",
                line % 7
            )
            .unwrap();
        }
        fs::create_dir_all(temp.path().join(&job)).unwrap();
        let name = format!("audit-0_20260128T00{nth:02}00.000Z.jsonl");
        fs::write(temp.path().join(job).join(name), text).unwrap();
    }
    temp
}

/// Makes a token for everything by the command, in a file of tokens.
fn token(file: &Path) -> String {
    let output = binary().args(["token", "ada", "--all", "--tokens"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("al_"));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn files(console: &Console) -> usize {
    fs::read_dir(format!("/proc/{}/fd", console.pid())).unwrap().count()
}

/// Every route that the description knows, with something in the place of an id.
fn routes(console: &Console, token: &str) -> Vec<String> {
    let described = console.get_as(token, "/api/openapi.json").json();
    let paths = described["paths"].as_object().unwrap();
    let routes: Vec<_> = paths.keys().map(|path| path.replace("{id}", "j0%3A0")).collect();
    assert!(routes.len() >= 7, "{routes:?}");
    routes
}

/// What a browser sends for a page of somebody else's: its own name as the host, where that was made to lead here (DNS rebinding), or
/// our address with the page's origin. Whoever asks has a valid token, as a browser might have that is logged in.
#[test]
fn a_web_page_reads_nothing_from_any_route() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("tokens.yaml");
    let token = token(&file);
    let bearer = format!("Bearer {token}");
    fs::create_dir(temp.path().join("audit")).unwrap();
    let console = Console::start(&temp.path().join("audit"), &["--tokens", file.to_str().unwrap()]);
    for route in routes(&console, &token).iter().map(String::as_str).chain(["/", "/nothing"]) {
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let request = || Request::new(method, route).header("Authorization", &bearer);
            let named = |host: &str| request().without_host().header("Host", host);
            for (request, status) in [
                (named("evil.example"), 421),
                (named("evil.example:48292"), 421),
                (named("localhost.evil.example"), 421),
                (named("127.0.0.1.evil.example"), 421),
                (named("127.0.0.1@evil.example"), 421),
                (named("10.0.0.1"), 421),
                (named(""), 421),
                (named("127.0.0.1").to(&format!("http://evil.example{route}")), 421),
                (request().without_host(), 400),
                (request().header("Host", "evil.example"), 400),
                (request().header("Origin", "https://evil.example"), 403),
                (request().header("Origin", "null"), 403),
                (request().header("Sec-Fetch-Site", "cross-site"), 403),
                (request().header("Sec-Fetch-Site", "same-site"), 403),
            ] {
                let mut client = console.connect();
                client.write(&request.bytes());
                let text = read_all(&mut client.stream);
                assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {route}: {text}");
                // No other site is told that it may read anything.
                assert!(!text.to_ascii_lowercase().contains("access-control-"), "{text}");
            }
        }
    }
}

/// What comes within a moment, or until the other side closes.
fn read_all(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// At the level that tells most, whatever is asked with it, and wherever somebody has put it.
#[test]
fn a_token_is_in_no_log_and_no_list_of_processes() {
    let temp = tempfile::tempdir().unwrap();
    let (file, dir) = (temp.path().join("tokens.yaml"), audit(10));
    let token = token(&file);
    let mut command = binary();
    command.env("RUST_LOG", "trace").args(["console", "--listen", "127.0.0.1:0", "--log-format", "json", "--dir"]);
    command.arg(dir.path()).arg("--tokens").arg(&file);
    let console = Console::run(command);
    // Of an answer no more is read than its head: one of them has no end.
    let ask = |request: &Request| {
        let mut client = console.connect();
        client.write(&request.bytes());
        read_all(&mut client.stream);
    };
    for route in routes(&console, &token) {
        ask(&Request::new("GET", &route).header("Authorization", &format!("Bearer {token}")));
        ask(&Request::new("GET", &route).header("X-Auth-Token", &token));
        ask(&Request::new("GET", &format!("{route}?text={token}")).header("Authorization", &format!("Basic {token}")));
        ask(&Request::new("GET", &format!("/{token}?{token}={token}#{token}")));
        ask(&Request::new("POST", &route).header("Authorization", &token));
        ask(&Request::new("GET", &route).header("Authorization", &format!("Bearer {token}")).header("Origin", &token));
        ask(&Request::new("GET", &route).without_host().header("Host", &token));
        let mut broken = console.connect();
        broken.write(
            format!("GET {route} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nbad header {token}\r\n\r\n").as_bytes(),
        );
        read_all(&mut broken.stream);
    }
    // As Run:ai's clients ask for one, rightly and wrongly.
    let mut granted = 0;
    for (name, kind) in [("ada", "app_token"), ("eve", "app_token"), ("ada", "password"), (token.as_str(), "app_token")]
    {
        let body = format!("{{\"grantType\":\"{kind}\",\"AppId\":\"{name}\",\"AppSecret\":\"{token}\"}}");
        let request = Request::post(&body).to("/api/v1/token").header("Content-Type", "application/json");
        let answer = console.send(&request);
        if let Some(dressed) = answer.text().contains("accessToken").then(|| answer.json()) {
            let dressed = dressed["accessToken"].as_str().unwrap().to_owned();
            granted += 1;
            assert_eq!(console.get_as(&dressed, "/api/v1/events").status, 200);
            console.get(&format!("/nothing?token={dressed}"));
        }
        console.send(&Request::post(&body[1..]).to("/api/v1/token"));
    }
    assert_eq!(granted, 1);
    let lines = wait_for("the log", || Some(console.lines("request")).filter(|lines| lines.len() > 20));
    assert!(lines.iter().any(|line| line["token"] == "ada"), "{lines:?}");
    let secret = token.strip_prefix("al_").unwrap();
    assert!(!console.log().contains(secret), "{}", console.log());
    for told in ["cmdline", "environ", "comm"] {
        let told = fs::read(format!("/proc/{}/{told}", console.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&told).contains(secret));
    }
    assert!(!fs::read_to_string(&file).unwrap().contains(secret));
}

/// 200 clients ask for exports, read a little, and read no further; most wait for a place in vain. Then all are gone.
#[test]
fn readers_that_stop_reading_and_vanish_leave_nothing_behind() {
    // 12 MB: more than lies between two sockets.
    let dir = audit(1000);
    let console = Console::over(dir.path());
    console.json("/api/v1/events?limit=1");
    let state = || (console.status("Threads"), files(&console));
    let (threads, files) = state();
    let resident = console.status("VmRSS");
    let mut clients: Vec<Client> = (0..200).map(|_| console.connect()).collect();
    for client in &mut clients {
        rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, 4096).unwrap();
        client.write(&Request::new("GET", "/api/v1/events/export").bytes());
    }
    // Some have got a place, and have been sent as much as fits between us.
    wait_for("the first exports", || {
        let begun = clients.iter().filter(|client| {
            client.stream.set_nonblocking(true).unwrap();
            let is_begun = client.stream.peek(&mut [0; 9]).is_ok_and(|bytes| bytes > 0);
            client.stream.set_nonblocking(false).unwrap();
            is_begun
        });
        (begun.count() >= 4).then_some(())
    });
    // Others are answered all the while.
    assert_eq!(console.json("/api/v1/events?limit=3")["items"].as_array().unwrap().len(), 3);
    assert!(console.peak_kib() < resident + (64 << 10), "{}", console.peak_kib());
    drop(clients);
    // Threads that wait for work end after ten seconds.
    wait_for("the end of all that was for them", || (state().0 <= threads + 2 && state().1 <= files).then_some(()));
    wait_for("their memory", || (console.status("VmRSS") <= resident + (16 << 10)).then_some(()));
    // Their places are free again.
    let exports: Vec<_> = (0..6).map(|_| console.get("/api/v1/events/export?event=E3&job=j1")).collect();
    assert!(exports.iter().all(|export| export.status == 200 && export.body == exports[0].body));
}

/// All of them stay within 64 MiB beside what the console takes when it has a listing and nothing to do.
#[test]
fn a_thousand_questions_at_once_are_answered_or_told_to_come_again() {
    let dir = audit(100);
    // Lines that take memory to read: as long as lines may be.
    for (job, nth) in [("j0", 60_u64), ("j1", 61), ("j0", 62), ("j1", 63)] {
        let line = format!(
            "{{\"ts\":{},\"jobId\":\"{job}\",\"workspaceId\":\"w\",\"event\":\"LONG\",\"message\":\"{}\",\"meta\":null}}\n",
            1_769_558_400_000 + nth * 60_000,
            "y".repeat(2_000_000)
        );
        fs::write(dir.path().join(job).join(format!("audit-0_20260128T0{}0000.000Z.jsonl", nth - 59)), line).unwrap();
    }
    let console = Console::over(dir.path());
    let targets = [
        "/api/v1/events?limit=20&where=meta.n%20%3E%2010&order=asc",
        "/api/v1/events?limit=20&text=7xx&offset=30",
        "/api/v1/facets?field=event&field=meta.n",
        "/api/v1/histogram?interval=minute&by=event",
        "/api/v1/events/export?event=E3&where=meta.n%20%3C%2050&format=csv",
    ];
    let expected: BTreeMap<&str, Vec<u8>> = targets
        .into_iter()
        .map(|target| {
            let answer = console.get(target);
            assert_eq!(answer.status, 200, "{}", answer.text());
            (target, without_cursor(&answer.body))
        })
        .collect();
    let idle = console.status("VmRSS");
    fs::write(format!("/proc/{}/clear_refs", console.pid()), "5").unwrap();
    let mut clients: Vec<(Client, &str)> = (0..1000).map(|nth| (console.connect(), targets[nth % 5])).collect();
    for (client, target) in &mut clients {
        client.write(&Request::new("GET", target).bytes());
    }
    let (mut right, mut later) = (0, 0);
    for (client, target) in &mut clients {
        client.stream.set_read_timeout(Some(PATIENCE * 4)).unwrap();
        let answer = client.read().expect("an answer");
        if answer.status == 200 {
            assert!(without_cursor(&answer.body) == expected[target], "{target}: {}", answer.text());
            right += 1;
        } else {
            answer.problem(503, "overloaded");
            assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
            later += 1;
        }
    }
    assert!(right > 0, "{later} told to come again");
    let most = console.peak_kib();
    assert!(most <= idle + (64 << 10), "{most} KiB, of which {idle} when idle; {right} right, {later} later");
    // Nobody is told to come again for long.
    wait_for("an answer", || (console.get(targets[0]).status == 200).then_some(()));
}

/// What a fuzzer makes of the description, and of what is not in it, is answered as the description says. Texts that have a grammar
/// (times, conditions, fields, cursors) are refused by it, which JSON Schema has no words for: that check is left out.
#[test]
fn schemathesis_finds_nothing() {
    if !tool("schemathesis") {
        return;
    }
    let (temp, dir) = (tempfile::tempdir().unwrap(), audit(20));
    let file = temp.path().join("tokens.yaml");
    let token = token(&file);
    let console = Console::start(dir.path(), &["--tokens", file.to_str().unwrap()]);
    let output = Command::new("schemathesis")
        .args(["run", "--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"])
        .args(["--max-examples", "30", "--seed", "1", "--continue-on-failure", "--warnings", "off"])
        // It has no end.
        .args(["--exclude-path", "/api/v1/events/tail"])
        // An id in a path is hard to draw.
        .args(["--suppress-health-check", "filter_too_much"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("http://{}/api/openapi.json", console.address))
        .current_dir(temp.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    // It has found the description, and asked what is in it.
    let asked = console.lines("request").len();
    assert!(asked > 500, "{asked} requests: {told}");
}

/// An answer without the cursor of the next page, which holds when the first one was asked for.
fn without_cursor(body: &[u8]) -> Vec<u8> {
    let Ok(mut page) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    if page.get("next").is_some_and(Value::is_string) {
        page["next"] = "…".into();
    }
    page.to_string().into_bytes()
}

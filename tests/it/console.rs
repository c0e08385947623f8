//! What the console answers (contract of the read side, §3), over real sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use audit_log::config::tokens;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::docs;
use crate::support::console::{Console, encoded};
use crate::support::{BINARY, Client, Request, Setup, binary, tools, wait_for};

const SEGMENT: &str = "audit-0_20260128T000000.000Z.jsonl";
/// As UCloud's own server names them.
const DAILY: &str = "audit-0-2026-01-28.jsonl";

fn line(millis: u64, job: &str, workspace: &str, event: &str, meta: &str) -> String {
    let ts = 1_769_558_400_000 + millis;
    format!(r#"{{"ts":{ts},"jobId":"{job}","workspaceId":"{workspace}","event":"{event}","message":"","meta":{meta}}}"#)
}

fn put(dir: &Path, path: &str, lines: &[String]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(lines.iter().fold(String::new(), |text, line| text + line + "\n").as_bytes()).unwrap();
}

/// Three jobs of two workspaces, and a line in one job's folder that claims to be another's.
fn audit() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let lines = |job: &str, workspace: &str, from: u64| -> Vec<String> {
        (from..from + 50)
            .map(|n| line(n / 3, job, workspace, &format!("E{}", n % 5), &format!("{{\"n\":{n}.0}}")))
            .collect()
    };
    put(temp.path(), &format!("j1/{SEGMENT}"), &lines("j1", "w1", 0));
    put(temp.path(), &format!("j2/{SEGMENT}"), &lines("j2", "w2", 10));
    put(temp.path(), &format!("j3/{SEGMENT}"), &lines("j3", "w1", 20));
    put(temp.path(), &format!("j2/{SEGMENT}"), &[line(99, "j1", "w1", "FORGED", "null"), "not JSON".to_owned()]);
    temp
}

/// Makes a token by the command, in a file of tokens.
fn token(file: &Path, name: &str, args: &[&str]) -> String {
    let output = binary().args(["token", name, "--tokens"]).arg(file).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// What `query` prints of the same.
fn queried(dir: &Path, args: &[&str]) -> Vec<Value> {
    let output = binary().args(["query", "--dir"]).arg(dir).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All records of all pages, by their cursors.
fn all_pages(console: &Console, target: &str) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let page = console.json(&format!("{target}{next}"));
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => return items,
        }
    }
}

fn events(items: &[Value]) -> Vec<&Value> {
    items.iter().map(|item| &item["meta"]["n"]).collect()
}

#[test]
fn pages_hold_what_query_prints_in_the_same_order() {
    let temp = audit();
    let console = Console::over(temp.path());
    for (target, args) in [
        ("order=desc", &["--order", "desc"][..]),
        ("order=asc", &["--order", "asc"]),
        ("event=E1&event=E2&where=meta.n+%3E+20", &["--event", "E1", "--event", "E2", "--where", "meta.n > 20"]),
        ("job=j1&until=2026-01-28T00:00:00.009Z", &["--job", "j1", "--until", "2026-01-28T00:00:00.009Z"]),
        ("workspace=w2&rank=0&text=e3", &["--workspace", "w2", "--rank", "0", "--text", "e3"]),
        ("event=none", &["--event", "none"]),
    ] {
        let expected = queried(temp.path(), args);
        for limit in [1, 7, 1000] {
            let items = all_pages(&console, &format!("/api/v1/events?{target}&limit={limit}"));
            assert_eq!(events(&items), events(&expected), "{target}");
        }
        let offset = console.json(&format!("/api/v1/events?{target}&limit=1000&offset=5"));
        assert_eq!(events(offset["items"].as_array().unwrap()), events(&expected)[5.min(expected.len())..], "{target}");
    }
    let page = console.json("/api/v1/events");
    assert_eq!(page["items"].as_array().unwrap().len(), 40);
    let searched = &console.json("/api/v1/events?limit=1000")["searched"];
    assert_eq!((&searched["segments"], &searched["foreign"], &searched["damaged"]), (&json!(3), &json!(1), &json!(1)));
}

#[test]
fn a_record_is_had_by_its_permalink_and_nothing_else_is() {
    let temp = audit();
    put(temp.path(), "secret/other.txt", &["x".to_owned()]);
    std::os::unix::fs::symlink(temp.path().join("j1"), temp.path().join("link")).unwrap();
    let console = Console::over(temp.path());
    let items = all_pages(&console, "/api/v1/events?limit=1000");
    for item in items.iter().step_by(17) {
        let one = console.json(&format!("/api/v1/events/{}", encoded(item["id"].as_str().unwrap())));
        assert_eq!(one, *item);
    }
    let there = format!("j1/{SEGMENT}:0");
    assert_eq!(console.get(&format!("/api/v1/events/{}", encoded(&there))).status, 200);
    let not_there = console.get(&format!("/api/v1/events/{}", encoded(&format!("j1/{SEGMENT}:50"))));
    // The forged line, the damaged one, paths that lead elsewhere, numbers that are none, double encoding.
    for id in [
        format!("j2/{SEGMENT}:50"),
        format!("j2/{SEGMENT}:51"),
        format!("j1/../j1/{SEGMENT}:0"),
        format!("../{}/j1/{SEGMENT}:0", temp.path().file_name().unwrap().display()),
        format!("{}/j1/{SEGMENT}:0", temp.path().display()),
        format!("/j1/{SEGMENT}:0"),
        format!("./j1/{SEGMENT}:0"),
        format!("j1//{SEGMENT}:0"),
        format!("link/{SEGMENT}:0"),
        "secret/other.txt:0".to_owned(),
        format!("j1/{SEGMENT}.gz:0"),
        format!("j1/{SEGMENT}:+0"),
        format!("j1/{SEGMENT}:-1"),
        format!("j1/{SEGMENT}:"),
        format!("j1/{SEGMENT}:18446744073709551616"),
        format!("j1/{SEGMENT}"),
        format!("j1/{SEGMENT}\0:0"),
        encoded(&there),
        ":0".to_owned(),
    ] {
        let response = console.get(&format!("/api/v1/events/{}", encoded(&id)));
        assert_eq!((response.status, &response.body), (404, &not_there.body), "{id}: {}", response.text());
    }
    for target in [format!("/api/v1/events/j1/{SEGMENT}:0"), format!("/api/v1/events/../events/{}", encoded(&there))] {
        assert_eq!(console.get(&target).status, 404, "{target}");
    }
}

#[test]
fn only_a_token_that_is_in_force_opens_anything() {
    let temp = audit();
    let file = temp.path().join("tokens.yaml");
    let ada = token(&file, "ada", &["--all"]);
    let late = token(&file, "late", &["--all", "--expires", "2100-01-01"]);
    let expired = fs::read_to_string(&file).unwrap().replace("expires: 2100-01-01", "expires: 2000-01-01");
    fs::write(&file, expired).unwrap();
    let console = Console::start(temp.path(), &["--tokens", file.to_str().unwrap()]);
    assert_eq!(console.get_as(&ada, "/api/v1/events").status, 200);
    let by_header = Request::new("GET", "/api/v1/events").header("x-auth-token", &ada);
    assert_eq!(console.send(&by_header).status, 200);
    let unknown = console.get_as("al_0000", "/api/v1/events");
    let same = unknown.problem(401, "unauthorized");
    assert_eq!(unknown.header("www-authenticate"), Some("Bearer"));
    for (response, what) in [
        (console.get_as(&late, "/api/v1/events"), "expired"),
        (console.get_as(&ada[..ada.len() - 1], "/api/v1/events"), "a part"),
        (console.get_as(&format!("{ada}0"), "/api/v1/events"), "more"),
        (console.get("/api/v1/events"), "none"),
        (console.get("/nothing"), "no path"),
        (console.get("/api/openapi.json"), "the description"),
    ] {
        assert_eq!(response.problem(401, "unauthorized"), same, "{what}");
    }
    assert_eq!((console.get("/healthz").status, console.get("/readyz").status), (200, 200));
    // Removed, it is void at once; others stay.
    let eve = token(&file, "eve", &["--all"]);
    wait_for("the new token", || (console.get_as(&eve, "/api/v1/events").status == 200).then_some(()));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[text.find("- name: \"eve\"").unwrap()..]).unwrap();
    wait_for("the end of the old token", || (console.get_as(&ada, "/api/v1/events").status == 401).then_some(()));
    fs::write(&file, "- what: is this").unwrap();
    wait_for("the complaint", || console.log().contains("tokens.yaml:1:3: what: unknown key").then_some(()));
    assert_eq!(console.get_as(&eve, "/api/v1/events").status, 200);
    for secret in [&ada, &late, &eve] {
        assert!(!console.log().contains(&secret[3..]), "{}", console.log());
    }
    let cmdline = fs::read_to_string(format!("/proc/{}/cmdline", console.pid())).unwrap();
    assert!(!cmdline.contains("al_"));
}

/// Whoever holds a token for `w1` is answered as if nothing else had ever been there.
#[test]
fn what_is_not_in_the_scope_does_not_exist() {
    let temp = audit();
    let file = temp.path().join("tokens.yaml");
    let own = token(&file, "w1", &["--workspace", "w1"]);
    let all = token(&file, "all", &["--all"]);
    let console = Console::start(temp.path(), &["--tokens", file.to_str().unwrap()]);
    let alone = tempfile::tempdir().unwrap();
    for job in ["j1", "j3"] {
        fs::create_dir(alone.path().join(job)).unwrap();
        fs::copy(temp.path().join(job).join(SEGMENT), alone.path().join(job).join(SEGMENT)).unwrap();
    }
    let without = Console::over(alone.path());
    for target in [
        "/api/v1/events?limit=1000&order=asc",
        "/api/v1/events?workspace=w2",
        "/api/v1/events?event=FORGED",
        "/api/v1/events?limit=1000&offset=20",
        "/api/v1/facets?field=workspaceId&field=jobId&field=event&field=segment",
        "/api/v1/histogram?interval=minute&by=jobId",
        "/api/v1/events/export?format=csv",
        "/api/v1/events/export?job=j2",
    ] {
        let (seen, expected) = (console.get_as(&own, target), without.get(target));
        assert_eq!((seen.status, seen.text()), (200, expected.text()), "{target}");
        // Where a search need not look into all segments, those of the scope that it did not look into are in no count.
        let (seen, expected) = (seen.header("audit-searched"), expected.header("audit-searched"));
        assert!(seen == expected || target.contains("job=j2"), "{target}: {seen:?}, {expected:?}");
    }
    let hidden = format!("/api/v1/events/{}", encoded(&format!("j2/{SEGMENT}:0")));
    assert_eq!(console.get_as(&all, &hidden).status, 200);
    let (seen, expected) = (console.get_as(&own, &hidden), without.get(&hidden));
    assert_eq!((seen.status, seen.body), (404, expected.body));
    // A cursor of somebody else's widens nothing.
    let page = console.get_as(&all, "/api/v1/events?limit=1").json();
    let next = format!("/api/v1/events?limit=1000&cursor={}", page["next"].as_str().unwrap());
    let items = console.get_as(&own, &next).json();
    assert!(items["items"].as_array().unwrap().iter().all(|item| item["workspaceId"] == "w1"), "{items}");
    let warning = console.log();
    assert!(warning.contains("lines here may claim any"), "{warning}");
}

#[test]
fn what_is_wrong_with_a_request_is_told_by_its_parameter_and_place() {
    let temp = audit();
    let console = Console::over(temp.path());
    let cursor = console.json("/api/v1/events?limit=1")["next"].as_str().unwrap().to_owned();
    for (target, code, parameter, offset) in [
        ("/api/v1/events?evnt=A".to_owned(), "unknown_parameter", "evnt", Value::Null),
        ("/api/v1/events/export?limit=1".to_owned(), "unknown_parameter", "limit", Value::Null),
        ("/api/v1/facets".to_owned(), "bad_parameter", "field", Value::Null),
        ("/api/v1/facets?field=metta".to_owned(), "bad_parameter", "field", json!(0)),
        ("/api/v1/events?where=meta.n+%3D%3D+1".to_owned(), "bad_parameter", "where", json!(7)),
        ("/api/v1/events?since=2026-02-30".to_owned(), "bad_parameter", "since", json!(0)),
        ("/api/v1/events?tz=Mars".to_owned(), "bad_parameter", "tz", json!(0)),
        ("/api/v1/events?limit=1001".to_owned(), "bad_parameter", "limit", Value::Null),
        ("/api/v1/events?order=up".to_owned(), "bad_parameter", "order", Value::Null),
        ("/api/v1/events?rank=-1".to_owned(), "bad_parameter", "rank", Value::Null),
        ("/api/v1/events?event=%FF".to_owned(), "bad_parameter", "event", Value::Null),
        ("/api/v1/events?order=asc&order=asc".to_owned(), "bad_parameter", "order", Value::Null),
        ("/api/v1/histogram?interval=year".to_owned(), "bad_parameter", "interval", Value::Null),
        ("/api/v1/events/export?format=xml".to_owned(), "bad_parameter", "format", Value::Null),
        ("/api/v1/events/export?columns=ts".to_owned(), "bad_parameter", "columns", Value::Null),
        ("/api/v1/events/export?format=csv&columns=ts,x".to_owned(), "bad_parameter", "columns", json!(3)),
        ("/api/v1/events?cursor=x".to_owned(), "bad_cursor", "cursor", Value::Null),
        (format!("/api/v1/events?cursor={cursor}&event=A"), "bad_cursor", "cursor", Value::Null),
        (format!("/api/v1/events?cursor={cursor}&offset=1"), "bad_parameter", "offset", Value::Null),
    ] {
        let response = console.get(&target);
        let body = response.json();
        assert_eq!(response.status, 400, "{target}: {body}");
        assert_eq!(
            (&body["code"], &body["parameter"], &body["offset"]),
            (&json!(code), &json!(parameter), &offset),
            "{body}"
        );
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
    let response = console.send(&Request::new("POST", "/api/v1/events"));
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
    let head = console.send(&Request::new("GET", "/api/v1/events"));
    assert_eq!(
        (head.header("cache-control"), head.header("x-content-type-options")),
        (Some("no-store"), Some("nosniff"))
    );
    assert_eq!(head.header("audit-written"), None);
    for (name, value, status) in
        [("Host", "evil.example", 400), ("Origin", "http://127.0.0.1", 403), ("Sec-Fetch-Site", "cross-site", 403)]
    {
        let request = Request::new("GET", "/api/v1/events").header(name, value);
        assert_eq!(console.send(&request).status, status, "{name}");
    }
    let rebound = Request::new("GET", "/api/v1/events").without_host().header("Host", "evil.example");
    console.send(&rebound).problem(421, "wrong_host");
}

#[test]
fn each_request_is_a_line_of_the_log() {
    let temp = audit();
    let file = temp.path().join("tokens.yaml");
    let ada = token(&file, "ada", &["--all"]);
    let console = Console::start(temp.path(), &["--tokens", file.to_str().unwrap()]);
    console.get_as(&ada, "/api/v1/events?limit=3&text=al_secret%0A");
    console.get_as(&ada, "/api/v1/events/export");
    console.get("/api/v1/events");
    let lines = wait_for("three lines", || Some(console.lines("request")).filter(|lines| lines.len() == 3));
    let told = |line: &Value| {
        let fields = ["token", "method", "path", "query", "status", "rows"];
        json!(fields.map(|field| line[field].clone()))
    };
    assert_eq!(told(&lines[0]), json!(["ada", "GET", "/api/v1/events", "limit=3&text=al_…%0A", 200, 0]));
    assert_eq!(told(&lines[1]), json!(["ada", "GET", "/api/v1/events/export", "", 200, 150]));
    assert_eq!(told(&lines[2]), json!(["-", "GET", "/api/v1/events", "", 401, 0]));
    assert!(lines.iter().all(|line| line["bytes"].as_u64() > Some(0) && line["duration_ms"].is_u64()), "{lines:?}");
}

#[test]
fn exports_hold_what_query_prints() {
    let temp = audit();
    put(temp.path(), &format!("j1/{SEGMENT}"), &[line(500, "j1", "w1", "=1+1", "null")]);
    let console = Console::over(temp.path());
    for (target, args, content_type, name) in [
        ("", &["--format", "ndjson"][..], "application/x-ndjson", "audit.ndjson"),
        (
            "?order=asc&event=E1",
            &["--format", "ndjson", "--order", "asc", "--event", "E1"],
            "application/x-ndjson",
            "audit.ndjson",
        ),
        ("?format=json", &["--format", "json"], "application/json", "audit.json"),
        ("?format=csv", &["--format", "csv"], "text/csv; charset=utf-8; header=present", "audit.csv"),
        (
            "?format=csv&columns=ts,meta.n",
            &["--format", "csv", "--columns", "ts,meta.n"],
            "text/csv; charset=utf-8; header=present",
            "audit.csv",
        ),
    ] {
        let response = console.get(&format!("/api/v1/events/export{target}"));
        let output = binary().args(["query", "--dir"]).arg(temp.path()).args(args).output().unwrap();
        assert_eq!(response.text(), String::from_utf8(output.stdout).unwrap(), "{target}");
        assert_eq!(response.header("content-type"), Some(content_type));
        assert_eq!(response.header("content-disposition"), Some(format!("attachment; filename=\"{name}\"").as_str()));
        let searched = response.header("audit-searched").unwrap();
        assert!(
            searched.starts_with("segments=3, searched=3, lines=153,") && searched.contains("damaged=1, foreign=1"),
            "{searched}"
        );
    }
    let row = |target: &str| console.get(target).text().lines().last().unwrap().to_owned();
    assert_eq!(row("/api/v1/events/export?format=csv&columns=event&event=%3D1%2B1"), "=1+1");
    assert_eq!(row("/api/v1/events/export?format=csv&columns=event&event=%3D1%2B1&csvSafe=true"), "'=1+1");
}

#[test]
fn counts_are_those_of_the_command_line() {
    let temp = audit();
    let console = Console::over(temp.path());
    let printed = |args: &[&str]| -> Value {
        let output = binary().args(args).arg("--dir").arg(temp.path()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let facets = console.json("/api/v1/facets?field=event&field=jobId&where=meta.n+%3E+30");
    let expected = printed(&["facets", "event", "jobId", "--where", "meta.n > 30", "--format", "json"]);
    for facet in facets["facets"].as_array().unwrap() {
        let name = facet["field"].as_str().unwrap();
        let values: Vec<Value> =
            facet["values"].as_array().unwrap().iter().map(|value| json!([value["value"], value["count"]])).collect();
        assert_eq!(json!(values), expected[name]["values"]);
        assert_eq!(facet["more"], expected[name]["more"]);
    }
    let rows = console.json("/api/v1/histogram?interval=day&tz=Asia/Tokyo&by=event");
    let expected =
        printed(&["histogram", "--interval", "day", "--tz", "Asia/Tokyo", "--by", "event", "--format", "json"]);
    let flat = |row: &Value| json!([row["start"], row["by"]["value"], row["count"]]);
    let flat_printed = |row: &Value| json!([row["start"], row["by"], row["count"]]);
    let rows: Vec<_> = rows["rows"].as_array().unwrap().iter().map(flat).collect();
    assert_eq!(rows, expected.as_array().unwrap().iter().map(flat_printed).collect::<Vec<_>>());
}

/// While writers go on, rotate, and segments are compressed: pages hold what was there at the first one, each record once.
#[test]
fn pages_hold_what_could_be_read_at_the_first_one_exactly_once() {
    let temp = audit();
    put(temp.path(), &format!("j1/{DAILY}"), &[line(12, "j1", "w1", "E0", "null"), line(3, "j1", "w1", "E1", "null")]);
    let console = Console::over(temp.path());
    for order in ["asc", "desc"] {
        let target = format!("/api/v1/events?limit=7&order={order}");
        // Once the listing is up to date.
        let count = queried(temp.path(), &[]).len();
        let all = || all_pages(&console, &format!("/api/v1/events?limit=1000&order={order}"));
        let expected = wait_for("all that was written", || Some(all()).filter(|items| items.len() == count));
        let (mut items, mut next, mut round) = (Vec::new(), String::new(), 0);
        loop {
            let page = console.json(&format!("{target}{next}"));
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next"].as_str() else { break };
            next = format!("&cursor={cursor}");
            round += 1;
            // Segments of ours grow by later lines, UCloud's by any; and new ones appear, whose times lie before, among and behind what is
            // still to be shown.
            let late = |n: u64, job: &str| line(n, job, "w1", "LATE", "null");
            put(temp.path(), &format!("j1/{SEGMENT}"), &[late(10_000 + round, "j1")]);
            put(temp.path(), &format!("j1/{DAILY}"), &[late(1000, "j1"), late(0, "j1"), late(8, "j1")]);
            put(temp.path(), &format!("j1/audit-0_20260128T0000{round:02}.000Z.jsonl"), &[late(100_000, "j1")]);
            let job = format!("j{order}{round}");
            put(temp.path(), &format!("{job}/{SEGMENT}"), &[late(1, &job), late(9, &job), late(17, &job)]);
            if order == "asc" && round < 5 {
                put(temp.path(), &format!("j3/{SEGMENT}"), &[late(20 + round, "j3")]);
            }
            if order == "asc" && round == 5 {
                let packed = Command::new("gzip").arg(temp.path().join("j3").join(SEGMENT)).status().unwrap();
                assert!(packed.success());
            }
            // Others see it, and so the listing has changed.
            let seen = || all_pages(&console, "/api/v1/events?limit=1000&event=LATE").len();
            let late = queried(temp.path(), &["--event", "LATE"]).len();
            wait_for("the late ones", || (seen() == late).then_some(()));
        }
        assert!(round > 15, "{round}");
        let ids = |items: &[Value]| items.iter().map(|item| item["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&items), ids(&expected), "{order}");
    }
}

/// Another process knows nothing of the first one's snapshots: pages go on behind the last record all the same.
#[test]
fn a_cursor_outlives_its_console() {
    let temp = audit();
    let first = Console::over(temp.path());
    let expected = all_pages(&first, "/api/v1/events?limit=1000");
    let page = first.json("/api/v1/events?limit=9");
    let cursor = page["next"].as_str().unwrap().to_owned();
    drop(first);
    let second = Console::over(temp.path());
    let rest = all_pages(&second, &format!("/api/v1/events?limit=1000&cursor={cursor}"));
    let mut items = page["items"].as_array().unwrap().clone();
    items.extend(rest);
    assert_eq!(items, expected);
}

/// A real sidecar's events are there as soon as they are acknowledged, or a moment later.
#[test]
fn what_a_sidecar_has_written_is_found() {
    let sidecar = Setup::new().start();
    let console = Console::over(&sidecar.dir);
    for n in 0..20 {
        let answer = sidecar.append(format!(r#"{{"event":"N{n}","meta":{{"rows":12345678901234567890.10}}}}"#));
        let target = format!("/api/v1/events?event=N{n}");
        let item =
            wait_for("the event", || Some(console.json(&target)["items"][0].clone()).filter(|item| !item.is_null()));
        assert_eq!(
            (&item["ts"], &item["index"], &item["segment"]),
            (&answer["ts"], &answer["index"], &answer["segment"])
        );
    }
    let text = console.get("/api/v1/events?limit=1").text();
    assert!(text.contains(r#""meta":{"rows":12345678901234567890.10}"#), "{text}");
}

#[test]
fn it_serves_beyond_loopback_only_what_is_protected() {
    let temp = audit();
    let file = temp.path().join("tokens.yaml");
    token(&file, "ada", &["--all"]);
    let tokens = file.to_str().unwrap();
    let refused = |args: &[&str]| {
        let output = binary().args(["console", "--dir"]).arg(temp.path()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = refused(&["--listen", "0.0.0.0:0", "--behind-proxy"]);
    assert!(told.contains("--listen: 0.0.0.0:0 is not a loopback address, and without --tokens"), "{told}");
    let told = refused(&["--listen", "0.0.0.0:0", "--tokens", tokens]);
    assert!(
        told.contains("--listen: 0.0.0.0:0 is not a loopback address: tokens would cross the network in the clear"),
        "{told}"
    );
    let told = refused(&["--tokens", "/nonexistent.yaml"]);
    assert!(told.contains("--tokens: /nonexistent.yaml: cannot read it"), "{told}");
    let told = refused(&["--allow-host", "a:1"]);
    assert!(told.contains("--allow-host: must be the name of a host"), "{told}");
}

#[test]
fn a_name_that_was_allowed_is_this_host_and_no_other_is() {
    let temp = audit();
    let console = Console::start(temp.path(), &["--allow-host", "audit.example"]);
    for (host, status) in
        [("audit.example", 200), ("audit.example:443", 200), ("127.0.0.1", 200), ("evil.example", 421)]
    {
        let request = Request::new("GET", "/api/v1/events").without_host().header("Host", host);
        assert_eq!(console.send(&request).status, status, "{host}");
    }
}

#[test]
fn sigterm_ends_it_with_0() {
    let temp = audit();
    let mut console = Console::over(temp.path());
    let mut idle = console.connect();
    assert_eq!(idle.send(&Request::new("GET", "/healthz")).status, 200);
    console.signal(Signal::TERM);
    assert_eq!(console.wait().code(), Some(0), "{}", console.log());
    assert!(idle.is_closed());
}

#[test]
fn the_description_knows_every_route_parameter_and_status_that_is_seen() {
    let temp = audit();
    let console = Console::over(temp.path());
    let description = console.json("/api/openapi.json");
    assert_eq!(description["openapi"], "3.1.0");
    let paths: BTreeMap<String, Value> = serde_json::from_value(description["paths"].clone()).unwrap();
    for (path, item) in &paths {
        let (method, operation) = item.as_object().unwrap().iter().next().unwrap();
        let ask = |target: &str| console.send(&Request::new(&method.to_uppercase(), target));
        let is_endless = operation["responses"]["200"]["content"].get("text/event-stream").is_some();
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "path" || is_endless {
                continue;
            }
            // It is known: whatever is wrong with the request, it is not that.
            let response = ask(&format!("{path}?{name}=1"));
            assert!(!response.text().contains("unknown_parameter"), "{path} {name}");
            assert!(operation["responses"][response.status.to_string()].is_object(), "{path} {}", response.status);
        }
        if !["/healthz", "/readyz", "/api/openapi.json"].contains(&path.as_str()) {
            let response = ask(&format!("{path}?nobody-knows-this=1"));
            assert_eq!(response.json()["code"], "unknown_parameter", "{path}");
        }
    }
}

#[test]
fn a_token_is_shown_once_and_its_entry_added_behind_what_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("tokens.yaml");
    fs::write(&file, "# who may read\n").unwrap();
    let first = token(&file, "ada", &["--all"]);
    let second =
        token(&file, "eu: \"auditors\"", &["--workspace", "w-1", "--workspace", "w2", "--expires", "2100-01-01"]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# who may read\n- name: \"ada\"\n  sha256: "), "{text}");
    assert!(text.contains("  scope: {workspaces: [\"w-1\", \"w2\"]}\n  expires: 2100-01-01T00:00:00.000Z\n"), "{text}");
    for secret in [&first, &second] {
        assert!(secret.starts_with("al_") && secret.len() == 67 && !text.contains(&secret[3..]), "{secret}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = |args: &[&str]| {
        let output = binary().arg("token").args(args).arg("--tokens").arg(&file).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["ada", "--all"]).contains("another token has this name"));
    assert!(refused(&["x"]).contains("--all"));
    assert!(refused(&["x", "--all", "--expires", "2000-01-01"]).contains("--expires: it is past"));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    fs::write(&file, "[]\n").unwrap();
    assert!(refused(&["x", "--all"]).contains("tokens.yaml"));
    let output = binary().args(["token", "x", "--all"]).output().unwrap();
    let entry = String::from_utf8(output.stderr).unwrap();
    assert!(entry.starts_with("- name: \"x\"\n  sha256: "), "{entry}");
}

/// The table of the page holds every code that a route can be refused by, with its status, and no other.
#[test]
fn the_refusals_of_the_page_are_those_of_the_description() {
    let temp = audit();
    let description = Console::over(temp.path()).json("/api/openapi.json");
    let mut described = BTreeSet::new();
    for item in description["paths"].as_object().unwrap().values() {
        let operations = item.as_object().unwrap().values();
        for (status, response) in operations.flat_map(|operation| operation["responses"].as_object().unwrap()) {
            let about = response["description"].as_str().unwrap();
            let codes = about.split('`').skip(1).step_by(2).filter(|_| status != "200");
            described.extend(codes.map(|code| (status.clone(), code.to_owned())));
        }
    }
    let page = docs::read("docs/API.md");
    let (_, table) = page.split_once("| Status | `code` | When |").unwrap();
    let mut documented = BTreeSet::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.split(" | ").collect();
        let codes = cells[1].split('`').skip(1).step_by(2);
        documented.extend(codes.map(|code| (cells[0].trim_start_matches("| ").to_owned(), code.to_owned())));
    }
    assert_eq!(documented, described);
    for path in description["paths"].as_object().unwrap().keys() {
        let shown = path.replace("/readyz", "`, `/readyz");
        assert!(page.contains(path.as_str()) || page.contains(&shown), "{path}");
    }
}

/// The commands of the page, as they stand there, over what a sidecar wrote.
#[test]
fn the_calls_of_the_page_can_be_run() {
    let sidecar = Setup::new().start();
    sidecar.append(r#"{"event":"DATA_EXPORT","meta":{"path":"/work/output/results.csv","user":{"name":"ada"}}}"#);
    let temp = tempfile::tempdir().unwrap();
    let run = |command: &str, token: &str| {
        let output =
            Command::new("bash").args(["-c", command]).env("TOKEN", token).current_dir(temp.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let block = docs::block("docs/API.md", "audit-log token ada");
    let commands: Vec<_> = block.lines().map(|line| line.replacen("audit-log", BINARY, 1)).collect();
    let token = run(&commands[0], "");
    run(&commands[1], "");
    let mut words = commands[2].split(" #").next().unwrap().split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words.map(|word| if word == "/audit" { sidecar.dir.to_str().unwrap() } else { word }));
    command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).current_dir(temp.path());
    let console = Console::run(command);
    let calls = docs::block("docs/API.md", "curl -H");
    for call in calls.lines() {
        let call = call.replacen("curl", "curl -sSf", 1).replace("127.0.0.1:48292", &console.address.to_string());
        let answer = run(&call, token.trim_end());
        assert!(answer.contains("DATA_EXPORT") || call.contains("-OJ"), "{call}: {answer}");
    }
    let saved = fs::read_to_string(temp.path().join("audit.csv")).unwrap();
    assert!(
        saved.starts_with("ts,event,meta.path\r\n") && saved.contains("DATA_EXPORT,/work/output/results.csv"),
        "{saved}"
    );
    let parsed = tokens::parse(Path::new("API.md"), docs::block("docs/API.md", "- name: ada").as_bytes()).unwrap();
    assert_eq!(parsed.0.len(), 2);
}

/// Makes a certificate for 127.0.0.1 and its key.
fn certificate(dir: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "new.key", "-out", "new.crt"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for part in ["key", "crt"] {
        fs::copy(dir.join(format!("new.{part}")), dir.join(format!("{name}.{part}"))).unwrap();
        fs::rename(dir.join(format!("new.{part}")), dir.join(format!("tls.{part}"))).unwrap();
    }
}

#[test]
fn tls_keeps_tokens_from_the_network_and_certificates_are_renewed() {
    if !tools(&["openssl", "curl"]) {
        return;
    }
    let (temp, files) = (audit(), tempfile::tempdir().unwrap());
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    certificate(files.path(), "first");
    let ada = token(&files.path().join("tokens.yaml"), "ada", &["--all"]);
    let (tokens, cert, key) = (path("tokens.yaml"), path("tls.crt"), path("tls.key"));
    let args = ["--tokens", &tokens, "--tls-cert", &cert, "--tls-key", &key];
    let console = Console::start(temp.path(), &args);
    let call = |ca: &str, args: &[&str]| {
        let url = format!("https://127.0.0.1:{}/api/v1/events?limit=1000", console.address.port());
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &path(ca), "-H", &format!("X-Auth-Token: {ada}"), &url]);
        curl.args(args).output().unwrap()
    };
    for versions in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http1.1"]] {
        let output = call("first.crt", versions);
        let page: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(page["items"].as_array().unwrap().len(), 150);
    }
    assert!(!call("first.crt", &["--tls-max", "1.1"]).status.success());
    // Whoever does not speak it is not answered, and keeps nobody else waiting.
    let mut plain = Client::connect(([127, 0, 0, 1], console.address.port()).into());
    plain.write(&Request::new("GET", "/healthz").bytes());
    assert!(plain.read().is_none_or(|response| response.status != 200));
    let _silent = Client::connect(([127, 0, 0, 1], console.address.port()).into());
    certificate(files.path(), "second");
    wait_for("the new certificate", || call("second.crt", &[]).status.success().then_some(()));
    assert!(!call("first.crt", &[]).status.success());
    // A bad one changes nothing.
    fs::write(files.path().join("tls.crt"), "-----BEGIN").unwrap();
    wait_for("the complaint", || console.log().contains("tls.crt: no certificate in PEM").then_some(()));
    assert!(call("second.crt", &[]).status.success());
    let refused = |cert: &str, key: &str| {
        let mut command = binary();
        command.args(["console", "--dir"]).arg(temp.path()).args(["--tls-cert", &path(cert), "--tls-key", &path(key)]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = refused("first.crt", "second.key");
    assert!(told.contains("first.crt: certificate and key can't be used: "), "{told}");
    let told = refused("first.crt", "first.crt");
    assert!(told.contains("first.crt: no private key in PEM"), "{told}");
}

//! The interfaces of other systems (contract of the read side, §3): Run:ai's and Platform9 PCD's, over real sockets.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use audit_log::record::Timestamp;
use serde_json::{Value, json};

use crate::docs;
use crate::support::console::{Console, encoded};
use crate::support::{Request, Setup, binary, tool};

/// A line of the second `second` of 2022-07-07.
fn line(second: usize, workspace: &str, event: &str, meta: &Value) -> String {
    let ts = format!("2022-07-07T08:{:02}:{:02}.069Z", second / 60, second % 60);
    spelt(&ts, workspace, event, meta)
}

fn spelt(ts: &str, workspace: &str, event: &str, meta: &Value) -> String {
    format!(r#"{{"ts":"{ts}","jobId":"j","workspaceId":"{workspace}","event":"{event}","message":"","meta":{meta}}}"#)
}

fn put(dir: &Path, segment: &str, lines: &[String]) {
    fs::write(dir.join(segment), lines.iter().fold(String::new(), |text, line| text + line + "\n")).unwrap();
}

/// 100 updates of projects by Ada and Bob, half of them failed, half of them in another workspace; and one event that tells nothing.
fn audit() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let lines = (0..100).map(|nth| {
        let meta = json!({
            "action": if nth % 5 == 0 { "create" } else { "update" },
            "success": nth % 2 == 0,
            "object": {"type": "Project", "id": nth, "name": format!("team, {nth}")},
            "user": {"id": format!("u{}", nth % 3), "name": if nth % 3 == 0 { "ada" } else { "bob" }},
            "source": {"ip": "10.244.0.7"}, "userAgent": "curl", "cluster": {"name": "lattice"}, "region": "eu",
        });
        line(nth, if nth < 50 { "w1" } else { "w2" }, "PROJECT", &meta)
    });
    let lines: Vec<String> = lines.chain([line(100, "w1", "tick", &Value::Null)]).collect();
    put(temp.path(), "audit-0_20220707T000000.000Z.jsonl", &lines);
    temp
}

fn rows(response: &Value) -> &[Value] {
    response.as_array().unwrap()
}

/// The numbers of the projects in rows.
fn projects(rows: &[Value], key: &str) -> Vec<u64> {
    rows.iter().filter_map(|row| row[key].as_str()?.parse().ok()).collect()
}

#[test]
fn run_ai_s_documented_call_answers_40_records_the_newest_first_with_its_members() {
    let temp = audit();
    let console = Console::over(temp.path());
    // The page's own call, but for host and token.
    let call = format!(
        "curl -sS -X 'GET' \\\n'http://{}/v1/k8s/audit?start=2022-1-1' \\\n-H 'accept: application/json' \\\n-H 'Authorization: Bearer x'",
        console.address
    );
    let output = Command::new("bash").args(["-c", &call]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let rows = rows(&answer);
    assert_eq!(rows.len(), 40);
    assert_eq!(projects(rows, "entityId"), (61..100).rev().collect::<Vec<_>>());
    assert_eq!(
        (&rows[0]["sourceType"], &rows[0]["sourceName"], &rows[0]["action"]),
        (&json!("Application"), &json!("j"), &json!("tick"))
    );
    let id = rows[1]["id"].clone();
    let expected = json!({
        "id": id, "tenantId": 1, "happenedAt": "2022-07-07T08:01:39.069Z", "action": "Update", "version": "1.0", "entityId": "99",
        "entityType": "Project", "entityName": "team, 99", "sourceType": "User", "sourceId": "u0", "sourceName": "ada",
        "context": {"user_agent": "curl", "ip_address": "10.244.0.7"},
    });
    assert_eq!(rows[1], expected);
    assert!(rows.iter().map(|row| row["id"].as_u64().unwrap()).is_sorted_by(|newer, older| newer > older));
}

#[test]
fn run_ai_s_parameters_filter_and_page() {
    let temp = audit();
    let console = Console::over(temp.path());
    let found = |query: &str| projects(rows(&console.json(&format!("/v1/k8s/audit?{query}"))), "entityId");
    let all = found("limit=1000");
    assert_eq!(all.len(), 100);
    // `offset` counts the event without a project.
    let pages =
        [found("limit=30"), found("limit=30&offset=30"), found("limit=30&offset=60"), found("limit=30&offset=90")];
    assert_eq!(pages.concat(), all);
    let only = |wanted: fn(&u64) -> bool| all.iter().copied().filter(wanted).collect::<Vec<_>>();
    for (query, expected) in [
        ("action=Create", only(|nth| nth % 5 == 0)),
        ("action=create", vec![]),
        ("source_type=Application", vec![]),
        ("source_name=ada", only(|nth| nth % 3 == 0)),
        ("source_id=u2&success=true", only(|nth| nth % 3 == 2 && nth % 2 == 0)),
        ("success=false", only(|nth| nth % 2 == 1)),
        ("success=&entity_type=Project", all.clone()),
        ("entity_id=7", vec![7]),
        ("start=2022-07-07T08:01:30", only(|nth| *nth >= 90)),
        ("start=2022-07-07&end=2022-07-07T08:00:02", vec![1, 0]),
        ("start=2022-7-8", vec![]),
        ("limit=0", vec![]),
    ] {
        let limit = if query.contains("limit") { "" } else { "&limit=1000" };
        assert_eq!(found(&format!("{query}{limit}")), expected, "{query}");
    }
    let file = console.get("/v1/k8s/audit?download=true&limit=1");
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"audit.json\""));
    assert_eq!(console.get("/v1/k8s/audit?limit=1").header("content-disposition"), None);
    for (query, parameter) in
        [("start=soon", "start"), ("limit=-1", "limit"), ("success=yes", "success"), ("cluster=1", "cluster")]
    {
        let refused = console.get(&format!("/v1/k8s/audit?{query}"));
        assert_eq!((refused.status, refused.json()["parameter"].as_str()), (400, Some(parameter)), "{query}");
    }
}

fn ndjson(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn pcd_streams_ndjson_of_the_last_24_hours_unless_told_otherwise() {
    let temp = audit();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let ago = |hours: i64| Timestamp::from_millis(now - hours * 3_600_000);
    for hours in [25, 23] {
        let at = ago(hours);
        let segment = audit_log::record::SegmentName::new(1, at).to_string();
        put(
            temp.path(),
            &segment,
            &[spelt(&at.to_string(), "w1", "recent", &json!({"user": "eve", "service": "compute"}))],
        );
    }
    let console = Console::over(temp.path());
    let export = |query: &str| console.get(&format!("/resmgr/audit/export?{query}"));
    let recent = export("");
    assert_eq!(recent.header("content-type"), Some("application/x-ndjson"));
    let nil = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        ndjson(&recent.text()),
        [json!({
            "timestamp_utc": ago(23).to_string(), "region": "unknown", "service": "compute", "domain": "unknown", "project_id": "w1",
            "user_id": nil, "request_id": "unknown", "username": "eve", "action_name": "recent", "resource_type": "unknown",
            "resource_id": nil, "resource_name": "unknown", "outcome": "unknown", "action_result": "unknown", "source_ip": "unknown",
        })]
    );
    let found = |query: &str| {
        projects(&ndjson(&export(&format!("start_time=2022-01-01T00:00:00Z&{query}")).text()), "resource_id")
    };
    let only = |wanted: fn(&u64) -> bool| (0..100).filter(wanted).collect::<Vec<u64>>();
    for (query, expected) in [
        ("", only(|_| true)),
        ("limit=3", vec![0, 1, 2]),
        ("username=ada&limit=2", vec![0, 3]),
        ("user_id=u1", only(|nth| nth % 3 == 1)),
        ("project_id=w2", only(|nth| *nth >= 50)),
        ("action=create", only(|nth| nth % 5 == 0)),
        ("resource_type=Project&region=eu", only(|_| true)),
        ("service=compute", vec![]),
        ("end_time=2022-07-07T08:00:02Z", vec![0, 1]),
    ] {
        assert_eq!(found(query), expected, "{query}");
    }
    // Unix time and the like is refused, not misread.
    assert_eq!(export("start_time=1657180000").status, 400);
}

#[test]
fn pcd_s_filters_are_the_values_that_there_are() {
    let temp = audit();
    let console = Console::over(temp.path());
    assert_eq!(
        console.json("/resmgr/audit/filters"),
        json!({
            "outcomes": ["failure", "success", "unknown"],
            "regions": ["eu", "unknown"],
            "project_ids": ["w1", "w2"],
            "domains": ["unknown"],
            "action_names": ["update", "create", "tick"],
            "action_results": ["failure", "success", "unknown"],
        })
    );
}

#[test]
fn pcd_s_filters_say_how_many_values_they_leave_out() {
    let temp = tempfile::tempdir().unwrap();
    let lines: Vec<_> = (0..10_003).map(|nth| line(0, "w", &format!("e{nth}"), &json!({"region": "eu"}))).collect();
    put(temp.path(), "audit-0_20220707T000000.000Z.jsonl", &lines);
    let choices = Console::over(temp.path()).json("/resmgr/audit/filters");
    assert_eq!((rows(&choices["action_names"]).len(), &choices["more"]), (10_000, &json!({"action_names": 3})));
}

#[test]
fn run_ai_s_present_api_pages_filters_and_counts() {
    let temp = audit();
    let console = Console::over(temp.path());
    let range = "start=2022-01-01T00:00:00Z&end=2023-01-01T00:00:00Z";
    let page = |query: &str| console.json(&format!("/api/v1/audit/log?{range}&{query}"));
    let first = page("");
    assert_eq!((&first["total"], &first["next"]), (&json!(101), &json!(20)));
    assert_eq!(projects(rows(&first["audit_logs"]), "entity_id"), (0..20).collect::<Vec<_>>());
    let row = &first["audit_logs"][0];
    assert_eq!(
        (&row["subject"], &row["subject_type"], &row["result"]),
        (&json!("ada"), &json!("User"), &json!("Succeeded"))
    );
    assert_eq!(row["id"], "audit-0_20220707T000000.000Z.jsonl:0");
    let last = page("offset=90&numberOfSamples=11");
    assert_eq!((rows(&last["audit_logs"]).len(), &last["next"]), (11, &Value::Null));
    assert_eq!(page("numberOfSamples=0")["audit_logs"], json!([]));
    let newest = page("sortOrder=desc&sortBy=timestamp&numberOfSamples=2");
    assert_eq!(newest["audit_logs"][0]["action"], "tick");
    for (filter, expected) in [
        ("subject==ada,entity_name==team, 3", vec![3]),
        (r#"["entity_name=^team, 1","entity_name=$5"]"#, vec![15]),
        ("timestamp<=2022-07-07T08:00:01.069Z", vec![0, 1]),
        ("timestamp>=2022-07-07T10:01:39.069+02:00,subject_type==User", vec![99]),
        ("action!=update,result==Failed,entity_name!@5", vec![]),
        ("cluster_name=@att,entity_name=$00", vec![]),
    ] {
        let found = page(&format!("filterBy={}", encoded(filter)));
        assert_eq!(projects(rows(&found["audit_logs"]), "entity_id"), expected, "{filter}");
        assert_eq!(found["total"], expected.len(), "{filter}");
    }
    for (query, parameter) in [
        (format!("{range}&sortBy=subject"), "sortBy"),
        (format!("{range}&filterBy=id==1"), "filterBy"),
        (format!("{range}&numberOfSamples=1001"), "numberOfSamples"),
        ("start=2022-01-01".to_owned(), "end"),
    ] {
        let refused = console.get(&format!("/api/v1/audit/log?{query}"));
        assert_eq!((refused.status, refused.json()["parameter"].as_str()), (400, Some(parameter)), "{query}");
    }
    let csv = console.get(&format!("/api/v1/audit/log/file?{range}&numberOfSamples=1"));
    let text = csv.text();
    assert!(text.starts_with("Event ID,Date & time,") && text.lines().count() == 2, "{text}");
    assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"audit.csv\""));
    let file = console.json(&format!("/api/v1/audit/log/file?{range}&fileType=JSON"));
    assert_eq!(rows(&file).len(), 101);
}

/// Makes a token by the command, in a file of tokens.
fn token(file: &Path, name: &str, args: &[&str]) -> String {
    let output = binary().args(["token", name, "--tokens"]).arg(file).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_scope_is_part_of_every_interface() {
    let temp = audit();
    let tokens = temp.path().join("tokens.yaml");
    let (w2, none) = (token(&tokens, "w2", &["--workspace", "w2"]), token(&tokens, "none", &["--workspace", "w9"]));
    let console = Console::start(temp.path(), &["--tokens", tokens.to_str().unwrap()]);
    let ask = |token: &str, target: &str| console.send(&Request::new("GET", target).header("X-Auth-Token", token));
    let range = "start=2022-01-01&end=2023-01-01";
    for (target, of_w2) in [
        ("/v1/k8s/audit?limit=1000".to_owned(), 50),
        ("/resmgr/audit/export?start_time=2022-01-01T00:00:00Z".to_owned(), 50),
        (format!("/api/v1/audit/log?{range}&numberOfSamples=1000"), 50),
        (format!("/api/v1/audit/log/file?{range}&fileType=JSON"), 50),
    ] {
        let count = |token: &str| ask(token, &target).text().matches("\"Project\"").count();
        assert_eq!((count(&w2), count(&none)), (of_w2, 0), "{target}");
        assert_eq!(console.get(&target).status, 401, "{target}");
    }
    let choices = ask(&w2, "/resmgr/audit/filters").json();
    assert_eq!((&choices["project_ids"], &choices["action_names"]), (&json!(["w2"]), &json!(["update", "create"])));
    assert_eq!(ask(&none, "/resmgr/audit/filters").json()["regions"], json!([]));
    let total = ask(&w2, &format!("/api/v1/audit/log?{range}")).json();
    assert_eq!(total["total"], 50);
}

#[test]
fn an_export_by_a_view_has_the_bytes_that_query_prints() {
    let temp = audit();
    let console = Console::over(temp.path());
    for view in ["native", "fcp", "runai", "runai-log", "pcd"] {
        for format in ["csv", "json", "ndjson"] {
            let exported = console
                .get(&format!("/api/v1/events/export?view={view}&format={format}&where=meta.success%20=%20true"));
            let args = ["query", "--view", view, "--format", format, "--where", "meta.success = true", "--dir"];
            let printed = binary().args(args).arg(temp.path()).output().unwrap();
            assert_eq!(exported.text(), String::from_utf8(printed.stdout).unwrap(), "{view} {format}");
            assert!(exported.text().lines().count() > 49, "{view} {format}");
        }
    }
}

#[test]
fn answers_say_what_is_the_jobs_own_claim() {
    let temp = audit();
    let console = Console::over(temp.path());
    let pcd = "service, domain, project_id, user_id, request_id, username, action_name, resource_type, resource_id, resource_name, \
               outcome, action_result, source_ip";
    let runai_log = "tenant_id, subject, subject_type, source_ip, action, http_method, url, entity_type, entity_name, entity_id, result, \
                     http_status_code, cluster_name, cluster_id, request_id, metadata";
    let fcp =
        "region, stackId, username, service, operation, sourceIp, operator, userType, objectId, objectName, request";
    let id = encoded("audit-0_20220707T000000.000Z.jsonl:0");
    for (target, claimed) in [
        ("/api/v1/events?limit=1".to_owned(), "event, message, meta"),
        (format!("/api/v1/events/{id}"), "event, message, meta"),
        (format!("/api/v1/events/{id}?view=fcp"), fcp),
        ("/api/v1/events?view=native".to_owned(), "event, message, meta"),
        ("/api/v1/events/export".to_owned(), "event, message, meta"),
        ("/api/v1/events/export?format=csv&columns=ts,meta.b,meta.a,jobId".to_owned(), "meta"),
        ("/api/v1/events/export?view=pcd&columns=timestamp_utc,username,event".to_owned(), "username, event"),
        (
            "/v1/k8s/audit".to_owned(),
            "tenantId, action, entityId, entityType, entityName, sourceType, sourceId, sourceName, context",
        ),
        ("/resmgr/audit/export".to_owned(), &format!("region, {pcd}")),
        ("/api/v1/audit/log?start=2022-1-1&end=2023-1-1".to_owned(), runai_log),
        ("/api/v1/audit/log/file?start=2022-1-1&end=2023-1-1".to_owned(), runai_log),
    ] {
        assert_eq!(console.get(&target).header("audit-claimed"), Some(claimed), "{target}");
    }
}

#[test]
fn a_page_counts_records_whose_columns_hang_on_a_repeated_key() {
    let temp = tempfile::tempdir().unwrap();
    let twice =
        line(0, "w", "e", &Value::Null).replace("\"meta\":null", "\"meta\":{\"user\":\"ada\",\"user\":\"bob\"}");
    put(temp.path(), "audit-0_20220707T000000.000Z.jsonl", &[twice, line(1, "w", "e", &json!({"user": "eve"}))]);
    let console = Console::over(temp.path());
    let page = |query: &str| console.json(&format!("/api/v1/events?{query}"));
    let by_view = page("view=fcp");
    assert_eq!((&by_view["items"][1]["username"], &by_view["searched"]["ambiguous"]), (&json!("bob"), &json!(1)));
    let asked = page(&format!("view=fcp&where={}", encoded("username = ada")));
    assert_eq!((asked["items"].as_array().unwrap().len(), &asked["searched"]["ambiguous"]), (1, &json!(1)));
    assert_eq!(page("")["searched"]["ambiguous"], 0);
}

#[test]
fn views_are_listed_and_asked_for_by_every_route_of_ours() {
    let temp = audit();
    let file = temp.path().join("views.yaml");
    fs::write(&file, "views: {mine: {columns: [{key: who, title: Who, from: meta.user.name, default: nobody}]}}\ncategories: {Clock: [Tick]}\n").unwrap();
    let console = Console::start(temp.path(), &["--views", file.to_str().unwrap()]);
    let listed = console.json("/api/v1/views");
    let names: Vec<_> = rows(&listed["views"]).iter().map(|view| view["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["native", "fcp", "runai", "runai-log", "pcd", "mine"]);
    assert_eq!(
        listed["views"][5]["columns"],
        json!([{"key": "who", "title": "Who", "from": ["meta.user.name"], "claimed": true, "default": "nobody"}])
    );
    assert_eq!(rows(&listed["categories"]).len(), 10);
    let page = console.json("/api/v1/events?view=mine&limit=2");
    assert_eq!(page["items"], json!([{"who": "nobody"}, {"who": "ada"}]));
    let next = page["next"].as_str().unwrap();
    let page = console.json(&format!("/api/v1/events?view=mine&limit=1&cursor={next}"));
    assert_eq!(page["items"], json!([{"who": "bob"}]));
    let id = encoded("audit-0_20220707T000000.000Z.jsonl:0");
    assert_eq!(console.json(&format!("/api/v1/events/{id}?view=mine")), json!({"who": "ada"}));
    assert_eq!(console.get(&format!("/api/v1/events/{id}?view=x")).status, 400);
    let clock = console.json("/api/v1/events?category=clock");
    assert_eq!((rows(&clock["items"]).len(), &clock["items"][0]["event"]), (1, &json!("tick")));
    let nobody = encoded("who = nobody");
    let export = |query: &str| console.get(&format!("/api/v1/events/export?{query}")).text();
    assert_eq!(export(&format!("view=mine&where={nobody}")), "{\"who\":\"nobody\"}\n");
    assert_eq!(export("view=mine&format=csv&until=2022-07-07T08:00:01Z"), "Who\r\nada\r\n");
    assert_eq!(export("view=fcp&format=json&columns=userType&category=clock"), "[\n{\"userType\":\"system\"}\n]\n");
    let facets = console.json("/api/v1/facets?view=mine&field=who");
    assert_eq!(facets["facets"][0]["values"][0], json!({"value": "bob", "kind": "string", "count": 66}));
    let by = console.json("/api/v1/histogram?view=mine&interval=day&by=who");
    assert_eq!(rows(&by["rows"]).len(), 3);
    for (query, parameter, told) in [
        ("view=x", "view", "no such view; there are `native`"),
        ("category=x", "category", "no such category; there are `HPC clusters`"),
        ("where=who%20=%201", "where", "no such field"),
    ] {
        let refused = console.get(&format!("/api/v1/events?{query}"));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(refused.json()["parameter"] == parameter && detail.starts_with(told), "{query}: {detail}");
    }
}

/// Run:ai's own client (`PyPI`: runapy), as its documentation has it called. It exits with 3 if it is not installed.
const CLIENT: &str = r#"
import sys
try:
    from runai.configuration import Configuration
    from runai.api_client import ApiClient
    from runai.runai_client import RunaiClient
    from runai.models import GetAuditLogs200Response
except ImportError:
    sys.exit(3)
from datetime import datetime, timezone

url, name, secret = sys.argv[1:]
configuration = Configuration(client_id=name, client_secret=secret, runai_base_url=url, retry_enabled=False)
client = RunaiClient(ApiClient(configuration))
start, end = datetime(2022, 1, 1, tzinfo=timezone.utc), datetime(2023, 1, 1)

rows, offset, pages = [], 0, 0
while offset is not None:
    page = client.audit.audit_logs.get_audit_logs(
        start=start, end=end, offset=offset, number_of_samples=30, sort_order="desc", filter_by=["entity_type==Project"]
    ).data
    rows, offset, pages = rows + page["audit_logs"], page["next"], pages + 1
    assert page["total"] == 50, page["total"]
    # Its own types take what came, whose actions are those that they know.
    assert len(GetAuditLogs200Response.from_dict(page).audit_logs) == len(page["audit_logs"])
assert pages == 2 and [row["entity_id"] for row in rows] == [str(n) for n in range(99, 49, -1)], (pages, rows)

some = client.audit.audit_logs.get_audit_logs(
    start="2022-07-07T08:00:00.000Z", end="2022-07-08T00:00:00Z", filter_by=["subject==ada", "result==Failed", "entity_name=@team, 5"]
).data["audit_logs"]
assert [row["entity_id"] for row in some] == ["51", "57"], some

file = client.audit.audit_logs.download_audit_logs(start=start, end=end, file_type="JSON", number_of_samples=3).data
assert [row["entity_id"] for row in file] == ["50", "51", "52"], file

# What it has been given tells when it ends, and is asked for anew a minute before.
assert client.api_client.token_refresher._token_expiry > datetime.now().timestamp() + 60
client.api_client.token_refresher._refresh_token()
assert client.audit.audit_logs.get_audit_logs(start=start, end=end, number_of_samples=1).data["total"] == 50

try:
    ApiClient(Configuration(client_id=name, client_secret="al_wrong", runai_base_url=url, retry_enabled=False))
except Exception as refused:
    assert "unauthorized" in str(refused), refused
else:
    raise SystemExit("a wrong secret was taken")
"#;

#[test]
fn run_ai_s_python_client_works_unchanged() {
    if !tool("python3") {
        return;
    }
    let temp = audit();
    let tokens = temp.path().join("tokens.yaml");
    let secret = token(&tokens, "auditor", &["--workspace", "w2", "--expires", "2099-01-01"]);
    let console = Console::start(temp.path(), &["--tokens", tokens.to_str().unwrap()]);
    let url = format!("http://{}", console.address);
    let output = Command::new("python3").args(["-c", CLIENT, &url, "auditor", &secret]).output().unwrap();
    if output.status.code() == Some(3) {
        assert!(!tool("runapy (PyPI)"));
        return;
    }
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), console.log());
    assert!(!console.log().contains(&secret));
}

#[test]
fn an_application_gets_its_token_and_nobody_else_does() {
    let temp = audit();
    let tokens = temp.path().join("tokens.yaml");
    let (a, b) = (token(&tokens, "a", &["--all"]), token(&tokens, "b", &["--all"]));
    let console = Console::start(temp.path(), &["--tokens", tokens.to_str().unwrap()]);
    let ask = |body: &str| console.send(&Request::post(body).to("/api/v1/token"));
    let asked =
        |name: &str, secret: &str| json!({"grantType": "app_token", "AppId": name, "AppSecret": secret}).to_string();
    let granted = ask(&asked("a", &a));
    assert_eq!(granted.status, 200, "{}", granted.text());
    let granted = granted.json()["accessToken"].as_str().unwrap().to_owned();
    assert_eq!(console.get_as(&granted, "/api/v1/events").status, 200);
    for (name, secret) in [("a", b.as_str()), ("c", &a), ("a", ""), ("", "")] {
        assert_eq!(
            ask(&asked(name, secret)).problem(401, "unauthorized"),
            "no token in force has this name and secret"
        );
    }
    assert_eq!(console.get_as(&granted.replace(&a, &b[..b.len() - 1]), "/api/v1/events").status, 401);
    ask("{}").problem(400, "invalid_json");
    ask(&asked("a", &"x".repeat(17 << 10))).problem(413, "too_large");
    ask(&json!({"grantType": "password", "appId": "a", "appSecret": a}).to_string()).problem(400, "invalid_json");
    let refused = console.get("/api/v1/token");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    assert!(!console.log().contains(&a), "{}", console.log());
}

/// The calls of the page, as they stand there, over what a sidecar wrote.
#[test]
fn the_calls_of_other_systems_in_api_md_can_be_run() {
    let sidecar = Setup::new().start();
    sidecar.append(r#"{"event":"DATA_EXPORT","meta":{"user":{"name":"ada"}}}"#);
    let console = Console::over(&sidecar.dir);
    for (containing, calls_count) in [("curl -X 'GET'", 2), ("x-auth-token", 2)] {
        let block = docs::block("docs/API.md", containing);
        let calls: Vec<_> = block.lines().collect();
        assert_eq!(calls.len(), calls_count, "{block}");
        for call in calls {
            let call = call.replacen("curl", "curl -sSf", 1).replace("127.0.0.1:48292", &console.address.to_string());
            let output = Command::new("bash").args(["-c", &call]).env("TOKEN", "x").output().unwrap();
            let answer = String::from_utf8(output.stdout).unwrap();
            assert!(answer.contains("DATA_EXPORT"), "{call}: {answer} {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

use std::path::Path;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::*;
use crate::reader::field::{Field, Place};
use crate::reader::filter::{Condition, Criteria, Filter};
use crate::reader::output::{Encoder, Layout};
use crate::reader::record::Record;
use crate::reader::spelling::{Spelling, any_model};

const HERE: Place<'_> = Place { segment: "1/audit-3_20260128T091244.381Z.jsonl", index: 7, rank: 3 };

fn line(event: &str, meta: &str) -> String {
    format!(
        r#"{{"ts":"2026-01-28T09:12:44.381Z","jobId":"5003592","workspaceId":"w","event":"{event}","message":"","meta":{meta}}}"#
    )
}

/// The built-in views and those of a text.
fn views(text: &str) -> Result<Views, String> {
    let mut views = Views::built_in();
    file::add(&mut views, Path::new("v.yaml"), text).map_err(|error| error.to_string())?;
    Ok(views)
}

/// The views of some columns, as the view `v`.
fn of(columns: &str) -> Views {
    views(&format!("views: {{v: {{columns: [{columns}]}}}}")).unwrap()
}

/// What a view shows of a line, as JSON.
fn shown(views: &Views, name: &str, line: &str) -> Json {
    let layout = Layout::Ndjson(Some(views.named(name).unwrap().all()));
    let (mut encoder, mut out) = (Encoder::new(layout), Vec::new());
    encoder.record(&Record::parse(line.as_bytes()).unwrap(), &HERE, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_first_source_that_holds_something_wins_then_members_then_the_default() {
    let columns = of(
        "{key: a, from: [meta.x, meta.y, event], default: none}, {key: b, from: [meta.x, meta.y], text: true, default: 0.50}, \
         {key: c, from: meta.x, members: [{key: d, from: meta.y}, {key: e, from: meta.no}], default: false}",
    );
    for (meta, expected) in [
        (r#"{"x":"v","y":1}"#, json!({"a": "v", "b": "v", "c": "v"})),
        (r#"{"x":"","y":1.5}"#, json!({"a": 1.5, "b": "1.5", "c": {"d": 1.5, "e": null}})),
        (r#"{"x":null,"y":false}"#, json!({"a": false, "b": "false", "c": {"d": false, "e": null}})),
        (r#"{"x":[ 1 ],"y":"z"}"#, json!({"a": [1], "b": "z", "c": [1]})),
        (r#"{"x":{},"y":{"a" : 1}}"#, json!({"a": {}, "b": 0.5, "c": {}})),
        ("null", json!({"a": "E", "b": 0.5, "c": false})),
    ] {
        assert_eq!(shown(&columns, "v", &line("E", meta)), expected, "{meta}");
    }
    let none = of("{key: a, from: [meta.x, meta.no]}");
    for (meta, expected) in [("0", json!(null)), (r#"{"x":null}"#, json!(null)), (r#"{"x":""}"#, json!(""))] {
        assert_eq!(shown(&none, "v", &line("E", meta))["a"], expected, "{meta}");
    }
}

#[test]
fn values_are_mapped_by_their_letters_and_digits_and_sources_may_stand_for_a_constant() {
    let columns = of("{key: a, from: [meta.x, {field: meta.error, show: Failed}], \
         map: {Signed in: Login, 200: \"ok\", true: 1, naïve: x}}");
    for (meta, expected) in [
        (r#"{"x":"SIGNED_IN"}"#, json!("Login")),
        (r#"{"x":"signed-in!"}"#, json!("Login")),
        (r#"{"x":"signed out"}"#, json!("signed out")),
        (r#"{"x":200}"#, json!("ok")),
        (r#"{"x":"NAÏVE"}"#, json!("x")),
        (r#"{"x":true}"#, json!(1)),
        (r#"{"x":false,"error":1}"#, json!(false)),
        (r#"{"error":{"code":1}}"#, json!("Failed")),
    ] {
        assert_eq!(shown(&columns, "v", &line("E", meta))["a"], expected, "{meta}");
    }
}

#[test]
fn constants_are_of_their_yaml_types() {
    let columns =
        of(r#"{key: a, constant: "1.0"}, {key: b, constant: 1.0}, {key: c, constant: true}, {key: d, constant: 0x1f},
        {key: e, constant: 'true'}, {key: f, constant: 01}"#);
    let expected = r#"{"a":"1.0","b":1.0,"c":true,"d":"0x1f","e":"true","f":"01"}"#;
    assert_eq!(shown(&columns, "v", &line("E", "0")).to_string(), expected);
}

#[test]
fn a_record_has_a_permalink_a_number_and_times_in_a_format() {
    let columns = of(
        "{key: a, from: id}, {key: b, from: number}, {key: c, from: ts, time: '%d/%m/%Y %I:%M %p'}, {key: ts, from: ts}",
    );
    let row = shown(&columns, "v", &line("E", "0"));
    assert_eq!(row["a"], "1/audit-3_20260128T091244.381Z.jsonl:7");
    let number = row["b"].as_i64().unwrap();
    assert_eq!(number / 4096, 1_769_591_564_381 - 1_577_836_800_000);
    assert_eq!((&row["c"], &row["ts"]), (&json!("28/01/2026 09:12 AM"), &json!("2026-01-28T09:12:44.381Z")));

    // A table shows both in its zone.
    let zone = crate::reader::when::Zone::parse("Asia/Tokyo").unwrap();
    let layout = Layout::Table { columns: columns.named("v").unwrap().all(), zone, width: 200 };
    let (mut encoder, mut out) = (Encoder::new(layout), Vec::new());
    let line = line("E", "0");
    encoder.record(&Record::parse(line.as_bytes()).unwrap(), &HERE, &mut out);
    encoder.end(&mut out);
    let table = String::from_utf8(out).unwrap();
    assert!(table.contains("28/01/2026 06:12 PM") && table.contains("2026-01-28T18:12:44.381+09:00"), "{table}");
}

/// Whether a condition on a view's columns holds, and whether that is ambiguous.
fn holds(views: &Views, condition: &str, line: &str) -> (bool, bool) {
    let columns = views.named("v").unwrap().columns();
    let conditions = vec![Condition::parse_among(condition, columns).unwrap()];
    let filter = Filter::new(Criteria { conditions, ..Criteria::default() });
    let record = Record::parse(line.as_bytes()).unwrap();
    assert!(filter.may_match(line.as_bytes()) || !filter.matches(&record, &HERE));
    (filter.matches(&record, &HERE), filter.is_ambiguous(&record, &HERE))
}

#[test]
fn conditions_are_about_what_columns_show() {
    let columns = of("{key: who, from: meta.user, default: nobody}, {key: ok, from: meta.s, map: {true: Succeeded}}");
    for (condition, meta, expected) in [
        ("who = ada", r#"{"user":"ada"}"#, true),
        ("who = nobody", "null", true),
        ("who != nobody", "null", false),
        ("ok = Succeeded", r#"{"s":true}"#, true),
        ("ok = true", r#"{"s":true}"#, false),
        ("ok missing", r#"{"user":"ada"}"#, true),
        ("who exists", "1", true),
        ("meta.user = ada", r#"{"user":"ada"}"#, true),
        ("event = E", "1", true),
        ("who = nobody", r#"{"user":"no\u0062ody"}"#, true),
        ("ok = Succeeded", r#"{"s":"Succeeded"}"#, true),
    ] {
        assert_eq!(holds(&columns, condition, &line("E", meta)), (expected, false), "{condition} {meta}");
    }
}

/// What is only in the line is looked for in its bytes; what a view brings is not.
#[test]
fn lines_without_the_value_that_a_column_is_asked_for_are_passed_over() {
    let columns = of(
        "{key: a, from: meta.x}, {key: b, from: meta.x, map: {y: z}}, {key: c, from: meta.x, default: z}, \
         {key: d, from: [meta.x, {field: event, show: z}]}, {key: e, from: [meta.x, segment]}, {key: f, from: meta.x, text: true}",
    );
    let line = line("E", r#"{"x":"y"}"#);
    let may_match = |condition: &str| {
        let conditions = vec![Condition::parse_among(condition, columns.named("v").unwrap().columns()).unwrap()];
        Filter::new(Criteria { conditions, ..Criteria::default() }).may_match(line.as_bytes())
    };
    for key in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(may_match(&format!("{key} = z")), matches!(key, "b" | "c" | "d" | "e"), "{key}");
        assert!(
            may_match(&format!("{key} = y")) && may_match(&format!("{key} = 1")) && may_match(&format!("{key} != z"))
        );
    }
}

#[test]
fn of_a_key_that_is_repeated_any_value_matches_and_the_last_is_shown() {
    let columns = of("{key: who, from: [meta.user, meta.other], default: nobody}");
    let twice = line("E", r#"{"user":"ada","user":"bob","other":"eve"}"#);
    assert_eq!(shown(&columns, "v", &twice), json!({"who": "bob"}));
    assert_eq!(holds(&columns, "who = ada", &twice), (true, true));
    assert_eq!(holds(&columns, "who = bob", &twice), (true, true));
    assert_eq!(holds(&columns, "who = eve", &twice), (false, true));
    let columns = of("{key: who, from: [meta.user.name, event]}");
    let emptied = line("E", r#"{"user":{"name":"ada"},"user":{}}"#);
    assert_eq!(shown(&columns, "v", &emptied), json!({"who": "E"}));
}

#[test]
fn a_bad_file_is_told_with_line_column_key_and_reason() {
    let column = |text: &str| format!("views:\n  v:\n    columns:\n      - {text}\n");
    let at = "v.yaml:4:";
    for (text, expected) in [
        (String::new(), "v.yaml: is empty".to_owned()),
        ("view: {}".to_owned(), "v.yaml:1:1: view: unknown key; known are views, categories".to_owned()),
        ("views: [a]".to_owned(), "v.yaml:1:8: views: must be a mapping".to_owned()),
        ("views: {v: }".to_owned(), "v.yaml:1:1".to_owned()),
        (
            "views: {fcp: {columns: [{key: a, from: ts}]}}".to_owned(),
            "v.yaml:1:14: views.fcp: there is such a view already".to_owned(),
        ),
        ("views: {a b: {columns: [{key: a, from: ts}]}}".to_owned(), "v.yaml:1:14: views.a b: a name has".to_owned()),
        ("views: {v: {title: V}}".to_owned(), "v.yaml:1:12: views.v: has no columns".to_owned()),
        ("views: {v: {columns: []}}".to_owned(), "v.yaml:1:22: views.v.columns: must not be empty".to_owned()),
        ("views: {v: {colums: []}}".to_owned(), "v.yaml:1:13: views.v.colums: unknown key".to_owned()),
        (
            "views: {v: {columns: [{key: a, from: ts}], table: [b]}}".to_owned(),
            "v.yaml:1:52: views.v.table: no column has the key `b`".to_owned(),
        ),
        (
            "views: {v: {columns: [{key: a, from: ts}, {key: a, from: ts}]}}".to_owned(),
            "v.yaml:1:43: views.v.columns[1]: another column has the key `a`".to_owned(),
        ),
        (column("{from: ts}"), format!("{at}9: views.v.columns[0]: has no `key`")),
        (column("{key: a}"), format!("{at}9: views.v.columns[0]: needs `from`")),
        (column("{key: 1a, from: ts}"), format!("{at}15: views.v.columns[0].key: a name has")),
        (
            column("{key: event, from: meta.kind}"),
            format!("{at}15: views.v.columns[0].key: `event` is a field of every line"),
        ),
        (column("{key: a, from: meta.x., title: A}"), format!("{at}31: views.v.columns[0].from: expected a key")),
        (
            column("{key: a, from: [event, jobid]}"),
            format!("{at}32: views.v.columns[0].from[1]: no such field; this one is spelt `jobId`"),
        ),
        (
            column("{key: a, from: {field: event}}"),
            format!("{at}24: views.v.columns[0].from: needs `field` and `show`"),
        ),
        (column("{key: a, from: event, from: ts}"), format!("{at}31: views.v.columns[0].from: given twice")),
        (column("{key: a, from: event, default: }"), format!("{at}38: views.v.columns[0].default: must not be empty")),
        (
            column("{key: a, from: event, default: [1]}"),
            format!("{at}40: views.v.columns[0].default: must be one value"),
        ),
        (column("{key: a, from: event, text: yes}"), format!("{at}37: views.v.columns[0].text: must be true or false")),
        (
            column("{key: a, from: event, constant: 1}"),
            format!("{at}24: views.v.columns[0].from: a column with a constant"),
        ),
        (
            column("{key: a, from: event, map: {a-b: 1, ab: 2}}"),
            format!("{at}49: views.v.columns[0].map.ab: given twice"),
        ),
        (column("{key: a, from: event, map: {'*': 1}}"), format!("{at}42: views.v.columns[0].map.*: a value to map")),
        (column("{key: a, from: event, time: '%Y'}"), format!("{at}37: views.v.columns[0].time: only a column")),
        (column("{key: a, from: ts, time: '%Ö'}"), format!("{at}34: views.v.columns[0].time: no format of a time")),
        (column("{key: a, members: [{key: b}]}"), format!("{at}28: views.v.columns[0].members[0]: needs `from`")),
        ("categories: {A: [x, '--']}".to_owned(), "v.yaml:1:21: categories.A[1]: an operation has".to_owned()),
        ("categories: {A: x}".to_owned(), "v.yaml:1:17: categories.A: must be a list".to_owned()),
        ("views: [".to_owned(), "v.yaml:1:".to_owned()),
    ] {
        let error = views(&text).expect_err(&text);
        assert!(error.starts_with(&expected), "{text}\n{error}\n{expected}");
    }
}

#[test]
fn a_views_table_shows_the_columns_that_it_names() {
    let views =
        views("views: {v: {table: [b], columns: [{key: a, from: ts}, {key: b, title: B!, from: event}]}}").unwrap();
    let header = |columns| {
        let (mut encoder, mut out) = (Encoder::new(Layout::Csv(columns)), Vec::new());
        encoder.begin(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(header(views.named("v").unwrap().all()), "a,B!\r\n");
    assert_eq!(header(views.named("v").unwrap().of_table()), "\"B!\"\r\n".replace('"', ""));
    assert_eq!(
        views.named("w").unwrap_err().to_string(),
        "no such view; there are `native`, `fcp`, `runai`, `runai-log`, `pcd`, `v`"
    );
}

#[test]
fn fcps_catalogue_has_nine_categories() {
    let views = Views::built_in();
    let counts: Vec<_> =
        views.categories().iter().map(|category| (category.name.as_str(), category.operations.len())).collect();
    assert_eq!(
        counts,
        [
            ("HPC clusters", 20),
            ("Desktop service", 16),
            ("User management", 21),
            ("Data management", 7),
            ("Approval management", 4),
            ("Approval policy", 1),
            ("Approval data", 3),
            ("Billing", 4),
            ("License management", 2),
        ]
    );
}

fn is_in(views: &Views, category: &str, line: &str) -> bool {
    let category = Some(views.in_category(&[category.to_owned()]).unwrap());
    let filter = Filter::new(Criteria { category, ..Criteria::default() });
    let record = Record::parse(line.as_bytes()).unwrap();
    assert!(filter.may_match(line.as_bytes()));
    filter.matches(&record, &HERE)
}

#[test]
fn an_operation_is_of_each_category_that_has_it_unless_its_service_is_one() {
    let views = views("categories: {billing: [Refund], Genomics: [START_RUN]}").unwrap();
    for (event, meta, category, expected) in [
        ("CREATE_CLUSTER", "null", "HPC clusters", true),
        ("create-cluster", "null", "hpc clusters", true),
        ("x", r#"{"operation":"Create cluster"}"#, "HPC clusters", true),
        ("CREATE_CLUSTER", r#"{"operation":"Create desktop"}"#, "HPC clusters", false),
        ("CREATE_CLUSTERS", "null", "HPC clusters", false),
        ("Add nodes", "null", "HPC clusters", true),
        ("Add nodes", "null", "Desktop service", true),
        ("Add nodes", r#"{"service":"desktop-service"}"#, "HPC clusters", false),
        ("Add nodes", r#"{"service":"desktop-service"}"#, "Desktop service", true),
        ("Add nodes", r#"{"service":"billing"}"#, "Desktop service", false),
        ("Add nodes", r#"{"service":"nova"}"#, "Desktop service", true),
        ("Refund", "null", "Billing", true),
        ("Export license usage details", "null", "Billing", true),
        ("start run", "null", "genomics", true),
        ("RELEASE_REMOVE_NODE", "null", "HPC clusters", true),
    ] {
        assert_eq!(is_in(&views, category, &line(event, meta)), expected, "{event} {meta} {category}");
    }
    let error = views.in_category(&["HPC".to_owned()]).unwrap_err().to_string();
    assert!(error.starts_with("no such category; there are `HPC clusters`, "), "{error}");
}

#[test]
fn the_records_of_run_ai_s_page_are_shown_as_it_shows_them() {
    let context = json!({"user_agent": "Mozilla/5.0", "ip_address": "10.244.0.0"});
    let meta = json!({
        "action": "update", "success": true, "object": {"type": "Project", "id": "1", "name": "team-a"},
        "user": {"id": "a79500fb-c452-471f-adc0-b65c972bd5c2", "name": "ada@example.com", "type": "person"},
        "source": {"ip": "10.244.0.0"}, "userAgent": "Mozilla/5.0", "cluster": {"name": "c1", "id": 5},
    });
    let row = shown(&Views::built_in(), "runai", &line("PROJECT_UPDATED", &meta.to_string()));
    let id = row["id"].clone();
    assert_eq!(
        row,
        json!({
            "id": id, "tenantId": 1, "happenedAt": "2026-01-28T09:12:44.381Z", "action": "Update", "version": "1.0",
            "entityId": "1", "entityType": "Project", "entityName": "team-a", "sourceType": "User",
            "sourceId": "a79500fb-c452-471f-adc0-b65c972bd5c2", "sourceName": "ada@example.com", "context": context,
            "status": "Succeeded", "clusterName": "c1", "clusterId": "5", "dateTime": "28/01/2026 09:12 AM",
        })
    );
    // Of what nobody told, nothing is claimed: neither a success nor a person.
    let row = shown(&Views::built_in(), "runai", &line("DATA_EXPORT", "null"));
    assert_eq!(
        (&row["sourceType"], &row["sourceName"], &row["sourceId"]),
        (&json!("Application"), &json!("5003592"), &json!("5003592"))
    );
    assert_eq!(
        (&row["status"], &row["action"], &row["context"], &row["entityId"]),
        (&Json::Null, &json!("DATA_EXPORT"), &Json::Null, &Json::Null)
    );
}

#[test]
fn what_pcd_cannot_fill_is_unknown_or_the_nil_uuid() {
    let row =
        shown(&Views::built_in(), "pcd", &line("create", r#"{"user":{"email":"pf9@example.com"},"error":"quota"}"#));
    let (unknown, nil) = ("unknown", "00000000-0000-0000-0000-000000000000");
    assert_eq!(
        row,
        json!({
            "timestamp_utc": "2026-01-28T09:12:44.381Z", "region": unknown, "service": unknown, "domain": unknown,
            "project_id": "w", "user_id": nil, "request_id": unknown, "username": "pf9@example.com", "action_name": "create",
            "resource_type": unknown, "resource_id": nil, "resource_name": unknown, "outcome": "failure",
            "action_result": "failure", "source_ip": unknown,
        })
    );
}

#[test]
fn what_the_platform_does_by_itself_fcp_shows_as_done_by_system() {
    let row = shown(&Views::built_in(), "fcp", &line("Delete expired data", "null"));
    assert_eq!([&row["username"], &row["operator"], &row["userType"]], ["system"; 3]);
    let meta = r#"{"user":"ada","request":{"days": 30},"service":{"name":"approval"},"object":{"id":7}}"#;
    let row = shown(&Views::built_in(), "fcp", &line("Delete expired data", meta));
    assert_eq!(
        [&row["username"], &row["operator"], &row["userType"], &row["service"]],
        ["ada", "ada", "user", "approval"]
    );
    assert_eq!(
        (&row["request"], &row["objectId"], &row["objectName"]),
        (&json!({"days": 30}), &json!("7"), &Json::Null)
    );
}

#[test]
fn native_shows_the_line_and_its_place() {
    let line = line("E", r#"{ "n" : 1.50 }"#);
    let (columns, mut out) = (Views::built_in().named("native").unwrap().all(), Vec::new());
    Encoder::new(Layout::Ndjson(Some(columns))).record(&Record::parse(line.as_bytes()).unwrap(), &HERE, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"ts\":\"2026-01-28T09:12:44.381Z\",\"jobId\":\"5003592\",\"workspaceId\":\"w\",\"rank\":3,\
         \"segment\":\"1/audit-3_20260128T091244.381Z.jsonl\",\"index\":7,\"event\":\"E\",\"message\":\"\",\"meta\":{\"n\":1.50}}\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_record_has_an_object_of_each_views_keys_in_order(model in any_model(), seed: u64) {
        let line = model.spell(&mut Spelling::random(seed));
        let record = Record::parse(line.as_bytes()).unwrap();
        for view in Views::built_in().iter() {
            let mut out = Vec::new();
            Encoder::new(Layout::Json(Some(view.all()))).record(&record, &HERE, &mut out);
            let row = entries(&out[1..]);
            let keys: Vec<&str> = row.iter().map(|(key, _)| key.as_str()).collect();
            prop_assert_eq!(keys, view.columns().iter().map(|column| column.key()).collect::<Vec<_>>());
            // What a condition says is what is shown.
            for (column, (_, value)) in view.columns().iter().zip(&row) {
                let Ok(text) = serde_json::from_str::<String>(value.get()) else { continue };
                let field = Field::Column(Arc::clone(column));
                let shown = field.last(&record, &HERE).map(crate::reader::field::Value::text);
                prop_assert_eq!(shown.as_ref(), Some(&text));
                // And no line is passed over whose column is asked for.
                let conditions = vec![Condition::compare(field, "=", &text).unwrap()];
                let filter = Filter::new(Criteria { conditions, ..Criteria::default() });
                prop_assert!(filter.matches(&record, &HERE) && filter.may_match(line.as_bytes()), "{}", text);
            }
        }
    }
}

/// The entries of a JSON object, in their order.
fn entries(json: &[u8]) -> Vec<(String, Box<RawValue>)> {
    struct Entries;
    impl<'de> serde::de::Visitor<'de> for Entries {
        type Value = Vec<(String, Box<RawValue>)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_slice(json), Entries).unwrap()
}

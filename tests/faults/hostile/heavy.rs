//! Requests that are as much work as the contract allows.

use std::time::Duration;

use super::connections::answer_so_far;
use super::{Attack, Target, withstood};
use crate::report::Row;
use crate::support::{Client, Request};

#[test]
fn requests_that_are_much_work_hold_nobody_up() {
    const ROW: Row = Row {
        test: "hostile::heavy::requests_that_are_much_work_hold_nobody_up",
        promise: "§2 limits, §4.6 bounded memory; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "10,000-line batches, batches of 8 MiB, batches that escaping makes twice as long, 128-deep and bottomless meta, bodies of escapes, unfinished bodies",
        how: "one after the other on connections of their own, good ones and ones whose last line is bad",
        control: "seen red with large bodies parsed by the one thread, and with small bodies in the budget of the large ones; as for memory, `hostile::a_good_client_that_waits_and_memory_that_grows_are_found`",
    };
    withstood(
        &ROW,
        &[
            Attack::new("10,000-line batches", 2, batches),
            Attack { fills_the_queue: true, ..Attack::new("8 MiB batches", 4, large_batches) },
            Attack { fills_the_queue: true, ..Attack::new("batches that grow", 6, growing_batches) },
            Attack::new("deep meta", 2, deep),
            Attack::new("escapes", 2, escapes),
            Attack::new("unfinished bodies", 1, unfinished),
        ],
    );
}

const MIB: usize = 1 << 20;

/// Batches whose last line is bad are as much work, but leave no megabytes on disk. Every tenth is good.
fn batches(target: &Target<'_>) {
    let good = "{\"event\":\"HOSTILE\"}\n".repeat(10_000);
    let bad = good.strip_suffix("\"HOSTILE\"}\n").unwrap().to_owned() + "\"\"}\n";
    post_batches(target, &good, &bad, 10);
}

fn large_batches(target: &Target<'_>) {
    let line = format!("{{\"event\":\"HOSTILE\",\"meta\":\"{}\"}}\n", "x".repeat(900));
    let good = line.repeat(8 * MIB / line.len());
    let bad = good.strip_suffix("\"}\n").unwrap().to_owned() + "\n";
    post_batches(target, &good, &bad, 10);
}

/// Six bytes on disk for each U+007F: 8 MiB become nearly the 16 that a batch may, or more.
fn growing_batches(target: &Target<'_>) {
    let batch = |deletes: usize| {
        let line = format!("{{\"event\":\"HOSTILE\",\"meta\":\"{}{}\"}}\n", "x".repeat(740), "\u{7f}".repeat(deletes));
        line.repeat(8 * MIB / line.len())
    };
    let (good, bad) = (batch(120), batch(200));
    post_batches(target, &good, &bad, 3);
}

fn post_batches(target: &Target<'_>, good: &str, bad: &str, good_every: usize) {
    let mut client = target.connect();
    for number in 0.. {
        if !target.goes_on() {
            return;
        }
        target.tried(1);
        let is_good = number % good_every == 0;
        let response = client.send(&Request::batch(if is_good { good } else { bad }));
        match response.status {
            200 => target.recorded(&response),
            503 => {
                response.refused_unwritten(503, "overloaded");
                client = target.connect();
            }
            status => {
                assert!(!is_good && matches!(status, 400 | 413 | 422), "{status}: {}", response.text());
                assert_eq!(response.header("audit-written"), Some("no"));
            }
        }
    }
}

fn deep(target: &Target<'_>) {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{{\"event\":\"HOSTILE\",\"meta\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth))
    };
    let good = [nested("[", "", "]", 128), nested("{\"k\":", "1", "}", 128)];
    let bad = [
        nested("[", "", "]", 129),
        nested("[", "", "]", MIB / 2 - 100),
        nested("[", "", "", MIB - 100),
        nested("{\"\":", "1", "}", MIB / 6),
        "[".repeat(MIB),
    ];
    let mut client = target.connect();
    while target.goes_on() {
        for body in &good {
            target.tried(1);
            target.recorded(&client.send(&Request::post(body)));
        }
        for body in &bad {
            target.tried(1);
            let response = client.send(&Request::post(body));
            assert!(matches!(response.status, 400 | 422), "{}", response.text());
            assert_eq!(response.header("audit-written"), Some("no"));
        }
    }
}

/// Strings of which every character is looked at: escapes, such as must be escaped, and such as are six times as long then.
fn escapes(target: &Target<'_>) {
    let of = |text: &str| {
        let frame = "{\"event\":\"\",\"message\":\"\"}".len();
        format!("{{\"event\":\"\",\"message\":\"{}\"}}", text.repeat((MIB - frame) / text.len()))
    };
    let bodies = [of("\\u0041"), of("\\n"), of("\u{7f}"), of("\u{2028}"), of("\\ud83d\\ude00"), of("\\udead")];
    let mut client = target.connect();
    while target.goes_on() {
        for body in &bodies {
            target.tried(1);
            // The event's name is empty, so all of it is read and nothing written.
            client.send(&Request::post(body)).refused_unwritten(422, "invalid_event");
        }
    }
}

/// As many bodies as there is memory for, and more, none of which is ever complete.
fn unfinished(target: &Target<'_>) {
    let head = |length: usize, kind: &str| {
        Request::new("POST", "/append")
            .header("Content-Length", &length.to_string())
            .header("Content-Type", kind)
            .bytes()
    };
    let single = [head(MIB, "application/json"), vec![b' '; MIB - 1]].concat();
    let batch = [head(8 * MIB, "application/x-ndjson"), vec![b' '; 8 * MIB - 1]].concat();
    let (mut kept, mut refused) = (Vec::new(), 0);
    while target.goes_on() {
        kept.retain_mut(|client| answer_so_far(client).is_open);
        // Three of them, one after the other, fill it to the last byte.
        if kept.len() < 3 {
            let client = sent(target, &batch);
            client.stream.set_nonblocking(true).unwrap();
            kept.push(client);
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        // It hears so when its last byte has not come for a second, or takes the place of one whose 10 s are over.
        let mut one_more = sent(target, &single);
        let response = one_more.read().expect("an answer");
        if response.status == 408 {
            response.refused_unwritten(408, "timeout");
            continue;
        }
        response.refused_unwritten(503, "overloaded");
        refused += 1;
    }
    assert!(refused > 0, "the memory for bodies was never full");
}

fn sent(target: &Target<'_>, bytes: &[u8]) -> Client {
    target.tried(1);
    let mut client = target.connect();
    client.write(bytes);
    client
}

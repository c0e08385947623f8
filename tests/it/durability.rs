//! Answers come after the sync and keep order (contract §4.1, §4.5, §4.6). That they survive a kill is shown in `tests/faults/kill.rs`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use audit_log::clock::ManualClock;
use rustix::process::Signal;

use crate::support::disk::Faults;
use crate::support::inside::{Inside, NOW, Ticking, options};
use crate::support::{Client, Request, Setup, Sidecar, segments, tool, wait_for};

/// The calls in strace's output, each with what it was about, in the order in which they ended; answers in that in which
/// they began.
fn traced(log: &str) -> Vec<(String, String)> {
    // By thread, as much of a call as there was before another thread's came in between.
    let mut unfinished = HashMap::new();
    let mut calls = Vec::new();
    let mut add =
        |call: &str| calls.extend(call.split_once('(').map(|(name, rest)| (name.to_owned(), rest.to_owned())));
    for line in log.lines() {
        // `1234 fdatasync(7</tmp/x/audit-0_….jsonl>) = 0`
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            if begun.contains("HTTP/1.1 200 OK") {
                add(begun);
            } else {
                unfinished.insert(thread, begun);
            }
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|call| call.split_once(" resumed>")) {
            if let Some(begun) = unfinished.remove(thread) {
                add(&format!("{begun}{rest}"));
            }
        } else {
            add(call);
        }
    }
    calls
}

/// Requests, one after the other, whose calls are traced.
const EVENTS: usize = 20;

/// The calls of an append, seen from outside: for each answer, what came before it.
#[test]
fn the_answer_comes_after_the_data_sync_and_the_directorys() {
    if !tool("strace") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let trace = temp.path().join("trace");
    let mut setup = Setup::new();
    let calls = "trace=write,writev,sendto,sendmsg,fdatasync,fsync,openat";
    setup.wrap("strace", &["-D", "-f", "-y", "-e", calls, "-o", trace.to_str().unwrap(), "--"]);
    let mut sidecar = setup.start();
    let mut client = sidecar.connect();
    for _ in 0..EVENTS {
        assert_eq!(client.send(&Request::post(r#"{"event":"a"}"#)).status, 200);
    }
    sidecar.signal(Signal::TERM);
    sidecar.wait();
    let text = wait_for("the whole trace", || {
        std::fs::read_to_string(&trace).ok().filter(|text| text.contains("+++ exited with 0 +++"))
    });
    let calls = traced(&text);
    let dir = sidecar.dir.to_str().unwrap();
    let of_segment = |rest: &str| rest.contains(dir) && rest.contains(".jsonl");
    let (mut data_synced, mut entry_synced, mut written) = (0, false, 0);
    let mut answers = 0;
    for (name, rest) in &calls {
        match name.as_str() {
            "write" if of_segment(rest) && rest.contains("{\\\"ts\\\"") => written += 1,
            "fdatasync" if of_segment(rest) && rest.trim_end().ends_with("= 0") => data_synced += 1,
            "fsync" if rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(&format!("<{dir}>")) => {
                entry_synced = true;
            }
            "write" | "writev" | "sendto" | "sendmsg" if rest.contains("HTTP/1.1 200 OK") => {
                answers += 1;
                assert_eq!(
                    (written, data_synced),
                    (answers, answers),
                    "an answer before its sync, or two syncs for one"
                );
                assert!(entry_synced, "an answer before the directory's sync");
            }
            _ => {}
        }
    }
    assert_eq!(answers, EVENTS);
    // Sequential requests: one sync each, and one of the directory for the one segment.
    assert_eq!(data_synced, EVENTS);
}

#[test]
fn many_clients_share_a_sync_and_nobody_waits_for_a_batch_to_fill() {
    let faults = Faults::none();
    let inside = Inside::start(Ticking(ManualClock::new(NOW)), &faults, options());
    let syncs = || faults.calls().into_iter().filter(|call| *call == crate::support::disk::Call::SyncData).count();
    for _ in 0..10 {
        inside.append("alone").unwrap();
    }
    assert_eq!(syncs(), 10);
    // While one sync takes its time, the next group gathers.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    faults.set(move |call| {
        if call == crate::support::disk::Call::SyncData {
            wait.recv().unwrap_or(());
        }
        Ok(())
    });
    let first = inside.queue("first").unwrap();
    wait_for("the first commit", || inside.appender.health().commit_for.map(drop));
    let rest: Vec<_> = (0..500).map(|_| inside.queue("rest").unwrap()).collect();
    drop(go);
    inside.outcome(first).unwrap();
    let acks: Vec<_> = rest.into_iter().map(|receipt| inside.outcome(receipt).unwrap()).collect();
    assert_eq!(syncs(), 2);
    assert!(acks.iter().zip(11..).all(|(ack, index)| ack.index == index));
}

#[test]
fn all_that_have_arrived_share_a_sync() {
    let faults = Faults::none();
    let inside = Inside::start(ManualClock::new(NOW), &faults, options());
    for requests in [1, 2, 100, 300] {
        let before = faults.calls().into_iter().filter(|call| *call == crate::support::disk::Call::SyncData).count();
        inside.at_once(requests);
        let after = faults.calls().into_iter().filter(|call| *call == crate::support::disk::Call::SyncData).count();
        assert_eq!(after - before, 1, "{requests} requests");
    }
}

/// Sends events with ids of its own until the sidecar is gone; returns what was answered with 200: where each id is.
fn load(address: SocketAddr, client_number: usize, stop: &AtomicBool) -> HashMap<String, (String, u64)> {
    let mut acked = HashMap::new();
    let Some(mut client) = std::net::TcpStream::connect(address).ok().map(|_| Client::connect(address)) else {
        return acked;
    };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("c{client_number}-{number}");
        client.write(
            &Request::post(format!("{{\"event\":\"{id}\",\"meta\":{{\"pad\":\"{}\"}}}}", "x".repeat(number % 300)))
                .bytes(),
        );
        let Some(response) = client.read() else { break };
        if response.status == 200 {
            let answer = response.json();
            acked.insert(id, (answer["segment"].as_str().unwrap().to_owned(), answer["index"].as_u64().unwrap()));
        }
        if response.header("connection") == Some("close") {
            break;
        }
    }
    acked
}

#[test]
fn a_drain_under_load_leaves_as_many_lines_as_answers() {
    for round in 0..5 {
        let mut sidecar = Setup::new().args(["--drain-max", "300ms"]).start();
        let stop = AtomicBool::new(false);
        let address = sidecar.address;
        let acked: Vec<_> = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..16)
                .map(|number| {
                    scope.spawn({
                        let stop = &stop;
                        move || load(address, number, stop)
                    })
                })
                .collect();
            wait_for("some lines", || (!segments(&sidecar.dir).is_empty()).then_some(()));
            assert!(sidecar.stop().success());
            loads.into_iter().flat_map(|load| load.join().unwrap()).collect()
        });
        assert_eq!(sidecar.lines().len(), acked.len(), "round {round}");
    }
}

#[test]
fn time_never_goes_back_in_a_segment_and_each_connection_keeps_its_order() {
    let mut sidecar = Sidecar::start();
    let stop = AtomicBool::new(false);
    let address = sidecar.address;
    std::thread::scope(|scope| {
        for number in 0..8 {
            let stop = &stop;
            scope.spawn(move || load(address, number, stop));
        }
        wait_for("enough lines", || {
            (segments(&sidecar.dir).values().map(Vec::len).sum::<usize>() > 200_000).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert!(sidecar.stop().success());
    let mut last_of_client: HashMap<String, usize> = HashMap::new();
    let mut last_ts = String::new();
    for line in sidecar.lines() {
        let ts = line["ts"].as_str().unwrap().to_owned();
        assert!(ts >= last_ts);
        last_ts = ts;
        let (client, number) = line["event"].as_str().unwrap().split_once('-').unwrap();
        let number: usize = number.parse().unwrap();
        let last = last_of_client.insert(client.to_owned(), number);
        assert_eq!(number, last.map_or(0, |last| last + 1), "{client}");
    }
    assert_eq!(last_of_client.len(), 8);
}

#[test]
fn writers_of_one_rank_started_in_the_same_millisecond_share_no_file() {
    // One clock for all, which goes on only when somebody looks: every first name is taken by the others too.
    let temp = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW);
    let stop = Arc::new(AtomicBool::new(false));
    let ticker = std::thread::spawn({
        let (clock, stop) = (clock.clone(), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
                clock.pass(Duration::from_millis(1));
            }
        }
    });
    let faults = Faults::none();
    let writers: Vec<_> = (0..4).map(|_| Inside::in_dir(temp.path(), clock.clone(), &faults, options())).collect();
    let barrier = std::sync::Barrier::new(4);
    let segments_of: Vec<String> = std::thread::scope(|scope| {
        let appends: Vec<_> = writers
            .into_iter()
            .map(|writer| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let first = writer.append("a").unwrap();
                    for _ in 0..5 {
                        assert_eq!(writer.append("a").unwrap().segment, first.segment);
                    }
                    first.segment.to_string()
                })
            })
            .collect();
        appends.into_iter().map(|append| append.join().unwrap()).collect()
    });
    stop.store(true, Ordering::Relaxed);
    ticker.join().unwrap();
    let distinct: std::collections::BTreeSet<_> = segments_of.iter().collect();
    assert_eq!(distinct.len(), 4, "{segments_of:?}");
    assert!(segments(temp.path()).values().all(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count() == 6));
}

#[test]
fn four_real_sidecars_of_one_rank_share_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let sidecars: Vec<_> = (0..4).map(|_| Setup::in_dir(temp.path()).start()).collect();
    let barrier = std::sync::Barrier::new(4);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for sidecar in &sidecars {
            let (barrier, count) = (&barrier, &count);
            scope.spawn(move || {
                let mut client = sidecar.connect();
                barrier.wait();
                let mut segment = None;
                for _ in 0..20 {
                    let answer = client.send(&Request::post(r#"{"event":"a"}"#)).json();
                    let name = answer["segment"].as_str().unwrap().to_owned();
                    assert_eq!(segment.get_or_insert(name.clone()), &name);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 80);
    let segments = segments(temp.path());
    assert_eq!(segments.len(), 4);
    assert!(segments.values().all(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count() == 20));
}

#[test]
fn an_event_whose_client_has_gone_is_recorded_all_the_same() {
    let sidecar = Sidecar::start();
    let mut client = sidecar.connect();
    client.write(&Request::post(r#"{"event":"gone"}"#).bytes());
    drop(client);
    wait_for("the line", || sidecar.segments().values().any(|bytes| bytes.ends_with(b"\n")).then_some(()));
    assert_eq!(sidecar.lines()[0]["event"], "gone");
}

#[test]
fn an_idle_job_leaves_no_empty_file() {
    let mut sidecar = Sidecar::start();
    assert_eq!(sidecar.get("/readyz").status, 200);
    assert!(sidecar.stop().success());
    assert_eq!(std::fs::read_dir(&sidecar.dir).unwrap().count(), 0);
}

#[test]
fn a_start_never_writes_to_a_segment_it_finds() {
    let temp = tempfile::tempdir().unwrap();
    let torn = temp.path().join("audit-0_20200101T000000.000Z.jsonl");
    std::fs::write(&torn, "{\"ts\":\"torn").unwrap();
    for _ in 0..3 {
        let mut sidecar = Setup::in_dir(temp.path()).start();
        sidecar.append(r#"{"event":"a"}"#);
        sidecar.kill();
    }
    assert_eq!(std::fs::read_to_string(&torn).unwrap(), "{\"ts\":\"torn");
    assert_eq!(segments(temp.path()).len(), 4);
}

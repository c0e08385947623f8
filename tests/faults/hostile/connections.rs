//! Connections: many, slow, idle, silent, short.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use super::{Attack, CONTROL, Target, event, raise_file_limit, reset, withstood};
use crate::report::{self, Row, alone, held};
use crate::support::{Client, Request, Sidecar};

/// More than the sidecar allows.
const HELD: usize = 1_100;
/// Between two bytes of a slow client.
const DRIP_EVERY: Duration = Duration::from_millis(100);

#[test]
fn whoever_holds_connections_holds_nobody_up() {
    const ROW: Row = Row {
        test: "hostile::connections::whoever_holds_connections_holds_nobody_up",
        promise: "§2 nobody can lock others out; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "1,100 slow, idle or silent connections from one client, and connection churn",
        how: "headers and bodies by the byte, keep-alive without a request, no request at all, FIN and RST at once",
        control: CONTROL,
    };
    withstood(
        &ROW,
        &[
            Attack::new("slow headers", 1, slow_headers),
            Attack::new("large heads without an end", 1, large_heads),
            Attack::new("slow bodies", 1, slow_bodies),
            Attack::new("slow chunks", 1, slow_chunks),
            Attack::new("idle keep-alive", 1, idle),
            Attack::new("silent", 1, silent),
            Attack::new("churn", 2, churn),
        ],
    );
}

#[test]
fn a_burst_of_connections_is_not_told_to_come_again() {
    const ROW: Row = Row {
        test: "hostile::connections::a_burst_of_connections_is_not_told_to_come_again",
        promise: "§2 up to 1,024 connections, none of them kept waiting for a retransmission",
        fault: "1,000 connections at once, from a client that does not wait for them to be accepted",
        how: "SIGSTOP while they connect, SIGCONT; every one is answered",
        control: "seen red with the backlog of 128 that `TcpListener::bind` gives",
    };
    let _alone = alone();
    raise_file_limit();
    let sidecar = Sidecar::start();
    let rounds = report::rounds(1, 10);
    for _ in 0..rounds {
        sidecar.signal(Signal::STOP);
        let connect = |_| {
            // A SYN that finds the queue full is sent again after a second.
            let connected = TcpStream::connect_timeout(&sidecar.address, Duration::from_millis(900));
            Client::over(connected.expect("the kernel completes it"))
        };
        let mut clients: Vec<_> = (0..1000).map(connect).collect();
        sidecar.signal(Signal::CONT);
        for client in &mut clients {
            assert_eq!(client.send(&event()).status, 200);
        }
    }
    held(&ROW, rounds * 1000, "all of them were connected at once, and answered");
}

fn slow_headers(target: &Target<'_>) {
    hold(target, b"POST /append HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"x", HELD);
}

/// They come fifty at a time and stand still, as what is wanted is their memory: without optimizations the parser, which reads
/// a head anew whenever more of it comes, would be what is measured.
fn large_heads(target: &Target<'_>) {
    let head = Request::new("POST", "/append").header("X-Large", &"x".repeat(16_000)).bytes();
    hold(target, head.strip_suffix(b"\r\n\r\n").unwrap(), b"", 50);
}

fn slow_bodies(target: &Target<'_>) {
    hold(target, &Request::new("POST", "/append").header("Content-Length", "1000000").bytes(), b" ", HELD);
}

fn slow_chunks(target: &Target<'_>) {
    hold(target, &Request::new("POST", "/append").header("Transfer-Encoding", "chunked").bytes(), b"1\r\n \r\n", HELD);
}

fn silent(target: &Target<'_>) {
    hold(target, b"", b"", HELD);
}

fn idle(target: &Target<'_>) {
    let mut held: Vec<Client> = Vec::new();
    while target.goes_on() {
        held.retain_mut(|client| answer_so_far(client).is_open);
        while held.len() < HELD && target.goes_on() {
            target.tried(1);
            let mut client = target.connect();
            target.recorded(&client.send(&event()));
            client.stream.set_nonblocking(true).unwrap();
            held.push(client);
        }
        std::thread::sleep(DRIP_EVERY);
    }
}

/// Holds connections that have sent `start` and go on with `drip`; new ones, `at_once` of them at a time, take the places of those
/// that are closed.
fn hold(target: &Target<'_>, start: &[u8], drip: &[u8], at_once: usize) {
    let mut held: Vec<Client> = Vec::new();
    while target.goes_on() {
        held.retain_mut(|client| {
            let written = client.stream.write_all(drip);
            let answer = answer_so_far(client);
            // Without a complete request there is but one answer.
            assert!(answer.text.is_empty() || answer.text.starts_with("HTTP/1.1 408 "), "{}", answer.text);
            written.is_ok() && answer.is_open
        });
        let wanted = HELD.min(held.len() + at_once);
        while held.len() < wanted && target.goes_on() {
            target.tried(1);
            let mut client = target.connect();
            client.write(start);
            client.stream.set_nonblocking(true).unwrap();
            held.push(client);
        }
        std::thread::sleep(DRIP_EVERY);
    }
}

pub(super) struct Answer {
    pub(super) text: String,
    pub(super) is_open: bool,
}

/// What has arrived on a connection that does not block.
pub(super) fn answer_so_far(client: &mut Client) -> Answer {
    let mut bytes = [0; 1024];
    match client.stream.read(&mut bytes) {
        Ok(0) => Answer { text: String::new(), is_open: false },
        Ok(length) => Answer { text: String::from_utf8_lossy(&bytes[..length]).into_owned(), is_open: false },
        Err(error) => Answer { text: String::new(), is_open: error.kind() == ErrorKind::WouldBlock },
    }
}

fn churn(target: &Target<'_>) {
    let complete = event().bytes();
    while target.goes_on() {
        target.tried(6);
        drop(target.connect());
        reset(target.connect());
        let mut half = target.connect();
        half.write(&complete[..complete.len() / 2]);
        reset(half);
        let mut unheard = target.connect();
        unheard.write(&complete);
        target.may_be_there(1);
        reset(unheard);
        let mut polite = target.connect();
        target.recorded(&polite.send(&event()));
        let mut unread = target.connect();
        unread.write(&complete);
        target.may_be_there(1);
        drop(unread);
    }
}

//! A hostile client on a host of its own, which vanishes or loses packets: no FIN, no RST, no answer taken.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Favoured, MEMORY_DISK, connections, measured, mebibytes, millis, raise_file_limit};
use crate::good_client::GoodClients;
use crate::load::{peak_bytes, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Request, Setup, Sidecar};

/// Two hosts and a cable: network namespaces, one for the sidecar and the good clients, one for the hostile.
struct Hosts {
    ours: String,
    theirs: String,
}

/// The two ends of the cable (RFC 5737 leaves 198.51.100.0/24 to examples).
const OURS: &str = "198.51.100.1";
const THEIRS: &str = "198.51.100.2";

impl Hosts {
    fn new() -> Self {
        let [ours, theirs] = ["a", "b"].map(|end| format!("audit-log-{}-{end}", std::process::id()));
        for name in [&ours, &theirs] {
            ip(&["netns", "add", name]);
        }
        let hosts = Self { ours, theirs };
        ip(&["-n", &hosts.ours, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &hosts.theirs]);
        ip(&["-n", &hosts.ours, "link", "set", "lo", "up"]);
        for (host, end, address) in [(&hosts.ours, "near", OURS), (&hosts.theirs, "far", THEIRS)] {
            ip(&["-n", host, "address", "add", &format!("{address}/24"), "dev", end]);
            ip(&["-n", host, "link", "set", end, "up"]);
        }
        hosts
    }

    /// Does something on our host: all threads and processes that it starts are there as well.
    fn on_ours(&self, work: impl FnOnce() + Send) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.ours)).unwrap();
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work();
        };
        std::thread::scope(|scope| scope.spawn(there).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.theirs, program]);
        command
    }

    /// From now on nothing comes from their host and nothing arrives there, and nobody is told.
    fn vanish(&self) {
        ip(&["-n", &self.theirs, "link", "set", "far", "down"]);
    }

    /// Every n-th packet, by chance, is lost in either direction.
    fn lose_one_in(&self, n: u32) {
        let chain = |hook: &str| {
            format!("chain {hook} {{\ntype filter hook {hook} priority 0\nnumgen random mod {n} 0 drop\n}}\n")
        };
        let rules = format!("table inet loss {{\n{}{}}}\n", chain("input"), chain("output"));
        let mut nft = self.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // The cable goes with its ends.
        for name in [&self.ours, &self.theirs] {
            drop(Command::new("ip").args(["netns", "delete", name]).status());
        }
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A program on their host that speaks one line when it is ready.
struct Hostile(Child);

impl Hostile {
    fn start(hosts: &Hosts, script: &str, args: &[String]) -> (Self, String) {
        let mut command = hosts.command("python3");
        let child = command.args(["-c", script]).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut hostile = Self(child);
        let mut said = String::new();
        BufReader::new(hostile.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        (hostile, said.trim().to_owned())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The sidecar listens on loopback for the good clients, and on the cable.
fn on_the_cable(dir: &Path) -> (Sidecar, SocketAddr) {
    let listen = format!("{OURS}:0");
    let mut setup = Setup::in_dir(dir);
    setup.command.args(["--listen", &listen, "--allow-non-loopback"]);
    let sidecar = setup.start();
    let address = wait_within(Duration::from_secs(30), "the address on the cable", || {
        let log = sidecar.log();
        let line = log.lines().find(|line| line.contains(OURS) && line.contains("listening"))?;
        serde_json::from_str::<serde_json::Value>(line).ok()?["address"].as_str()?.parse().ok()
    });
    (sidecar, address)
}

/// Opens more connections than are allowed, a quarter each silent, in the headers, in the body, and with pipelined requests whose
/// answers it does not read, and keeps them.
const HOLD: &str = r#"
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
head = b"POST /append HTTP/1.1\r\nHost: " + sys.argv[1].encode() + b"\r\n"
whole = b"GET /metrics HTTP/1.1\r\nHost: " + sys.argv[1].encode() + b"\r\n\r\n"
sends = [b"", head + b"X-Half", head + b"Content-Length: 100\r\n\r\n{", whole * 20]
held = []
for number in range(1100):
    held.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
    held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        held[-1].sendall(sends[number % 4])
    except ConnectionError:
        pass
print("held", flush=True)
time.sleep(600)
"#;

#[test]
fn a_client_that_vanished_locks_nobody_out() {
    const ROW: Row = Row {
        test: "hostile::vanished::a_client_that_vanished_locks_nobody_out",
        promise: "§2 at the limit the longest waiting connection goes; headers 5 s, bodies 10 s, idle 75 s; p99, memory",
        fault: "1,100 connections of a host that vanishes without a FIN, in each state of a request",
        how: "a network namespace whose end of the veth pair is set down (`ip netns`)",
        control: super::CONTROL,
    };
    if !report::tools(&["ip", "python3"]) {
        return;
    }
    let _alone = alone();
    let _favoured = Favoured::by_the_scheduler();
    raise_file_limit();
    let memory = tempfile::tempdir_in(MEMORY_DISK).unwrap();
    let hosts = Hosts::new();
    hosts.on_ours(|| vanish(&ROW, &hosts, memory.path()));
}

fn vanish(row: &Row, hosts: &Hosts, dir: &Path) {
    let (sidecar, address) = on_the_cable(dir);
    let (mut hostile, said) = Hostile::start(hosts, HOLD, &[OURS.to_owned(), address.port().to_string()]);
    assert_eq!(said, "held");
    let before = connections(&sidecar);
    assert!((1000..=1024).contains(&before), "{before}");
    hosts.vanish();
    hostile.0.kill().unwrap();
    let service = GoodClients::serve_for(sidecar.address, Duration::from_millis(report::rounds(1_500, 15_000)));
    assert_eq!(measured(&service, peak_bytes(sidecar.pid()), false), Ok(()), "{:?}", service.p99());
    verified(dir, &service.answers);
    // Half of them were in a request: that ends after 10 s at most. The others idle.
    wait_within(Duration::from_secs(30), "the end of the requests", || (connections(&sidecar) < 600).then_some(()));
    if report::is_full() {
        // Unsent answers end with their connections, too.
        wait_within(Duration::from_mins(2), "the end of all", || (connections(&sidecar) <= 1).then_some(()));
    }
    let result = format!(
        "{before} connections; p99 {:.1} ms, {:.1} MiB",
        millis(service.p99()),
        mebibytes(peak_bytes(sidecar.pid()))
    );
    held(row, 1100, &result);
}

/// Appends events one after the other, each on a connection of its own, and says how many were acknowledged.
const APPEND: &str = r#"
import socket, sys
acknowledged = 0
for number in range(int(sys.argv[3])):
    body = b'{"event":"LOSSY"}'
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
        head = b"POST /append HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (sys.argv[1].encode(), len(body)) + body)
        acknowledged += connection.recv(4096).startswith(b"HTTP/1.1 200 ")
print(acknowledged, flush=True)
"#;

#[test]
fn lost_packets_lose_and_double_no_event() {
    const ROW: Row = Row {
        test: "hostile::vanished::lost_packets_lose_and_double_no_event",
        promise: "§4.1 each acknowledged event is there, once; p99 of others under 50 ms meanwhile",
        fault: "one packet in ten is lost, in both directions",
        how: "nftables' random numbers in a network namespace",
        control: "the count of lines is exact: one less or more fails",
    };
    if !report::tools(&["ip", "nft", "python3"]) {
        return;
    }
    let _alone = alone();
    let _favoured = Favoured::by_the_scheduler();
    let memory = tempfile::tempdir_in(MEMORY_DISK).unwrap();
    let hosts = Hosts::new();
    hosts.on_ours(|| lose_packets(&ROW, &hosts, memory.path()));
}

fn lose_packets(row: &Row, hosts: &Hosts, dir: &Path) {
    let (sidecar, address) = on_the_cable(dir);
    hosts.lose_one_in(10);
    let events = report::rounds(30, 200);
    let clients = GoodClients::start(sidecar.address);
    let args = [OURS.to_owned(), address.port().to_string(), events.to_string()];
    let (_, said) = Hostile::start(hosts, APPEND, &args);
    let service = clients.stop();
    assert_eq!(said, events.to_string());
    assert_eq!(measured(&service, peak_bytes(sidecar.pid()), false), Ok(()), "{:?}", service.p99());
    let found = verified(dir, &service.answers);
    assert_eq!(found.lines as u64, found.acknowledged as u64 + events);
    // It was the cable of the lossy host, and it lost something.
    let dropped = hosts.command("nstat").args(["-asz", "TcpRetransSegs"]).output().unwrap();
    let dropped = String::from_utf8_lossy(&dropped.stdout).into_owned();
    let retransmitted = dropped.lines().find_map(|line| line.strip_prefix("TcpRetransSegs")).unwrap();
    let retransmitted: u64 = retransmitted.split_whitespace().next().unwrap().parse().unwrap();
    assert!(retransmitted > 0, "no packet was lost");
    held(
        row,
        events,
        &format!("{retransmitted} segments sent again by the client; p99 of others {:.1} ms", millis(service.p99())),
    );
    assert_eq!(sidecar.send(&Request::new("GET", "/readyz")).status, 200);
}

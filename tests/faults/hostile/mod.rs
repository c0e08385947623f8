//! Hostile clients: each attack goes on for a while against a sidecar of its own, and meanwhile two good clients post.
//!
//! What must hold, whatever the attack: the good clients' p99 stays under 50 ms and all of their events are
//! acknowledged and there; the process never takes 64 MiB; the attackers are answered as the contract says, and of what
//! they sent there is on disk what was acknowledged and nothing that was refused; their connections are given up.

mod browser;
mod connections;
mod cuts;
mod framing;
mod heavy;
mod injection;
mod vanished;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::good_client::{GoodClients, Service};
use crate::load::{Told, peak_bytes, verified, wait_within};
use crate::report::{self, Row, alone, held};
use crate::support::{Client, Request, Response, Setup, Sidecar};

/// What a good client may have to wait, 99 times of 100, whatever others do.
const P99_MAX: Duration = Duration::from_millis(50);
/// What the sidecar may have resident, ever.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// How often an attack is tried until good clients don't wait too long.
const TRIES: u32 = 3;
/// A directory without a disk behind it: what a disk takes that others are using is not what is measured.
const MEMORY_DISK: &str = "/dev/shm";
/// Sockets that attackers hold, and then some.
const FILES: u64 = 8192;

/// Something that hostile clients do.
struct Attack {
    name: &'static str,
    /// How many threads of them there are.
    threads: usize,
    /// It keeps the bounded queue full, so that the contract has good clients told so, `Audit-Written: no`, and to try
    /// again in a second.
    fills_the_queue: bool,
    /// Goes on until the target says that it is over. It asserts the answers that it gets.
    run: fn(&Target<'_>),
}

/// What an attack is directed at, and what has come of it so far.
struct Target<'a> {
    address: SocketAddr,
    over: &'a AtomicBool,
    /// Requests, connections or whatever the attack consists of.
    tries: &'a AtomicU64,
    /// Lines that were acknowledged.
    acknowledged: &'a AtomicU64,
    /// Lines of complete requests whose answer nobody waited for.
    possible: &'a AtomicU64,
}

impl Attack {
    fn new(name: &'static str, threads: usize, run: fn(&Target<'_>)) -> Self {
        Self { name, threads, fills_the_queue: false, run }
    }
}

impl Target<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    fn tried(&self, times: usize) {
        self.tries.fetch_add(times as u64, Ordering::SeqCst);
    }

    fn may_be_there(&self, lines: usize) {
        self.possible.fetch_add(lines as u64, Ordering::SeqCst);
    }

    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends bytes on a connection of their own; `None` if that was closed without an answer.
    fn ask(&self, bytes: &[u8]) -> (Client, Option<Response>) {
        self.tried(1);
        let mut client = self.connect();
        client.write(bytes);
        let response = client.read();
        (client, response)
    }

    /// Notes an event's acknowledgement.
    #[track_caller]
    fn recorded(&self, response: &Response) {
        assert_eq!(response.status, 200, "{}", response.text());
        let lines = response.json()["count"].as_u64().unwrap_or(1);
        self.acknowledged.fetch_add(lines, Ordering::SeqCst);
    }
}

/// An event that is none of the good clients'.
fn event() -> Request {
    Request::post(r#"{"event":"HOSTILE"}"#)
}

/// Closes a connection with a RST instead of a FIN.
fn reset(client: Client) {
    // `client.reader` is closed here as well; the last of the two sends it.
    tokio::net::TcpSocket::from_std_stream(client.stream).set_zero_linger().unwrap();
}

/// What may come for a request that is not one: a refusal, or a close.
#[track_caller]
fn refused_or_closed(response: Option<&Response>, what: &str) {
    if let Some(response) = response {
        assert!((400..500).contains(&response.status), "{what}: {} {}", response.status, response.text());
    }
}

/// How one try of an attack went.
struct Outcome {
    tries: u64,
    service: Service,
    peak_bytes: u64,
}

/// Runs attacks, one after the other, each against a sidecar of its own; what they have to show goes into the row.
fn withstood(row: &Row, attacks: &[Attack]) {
    let _alone = alone();
    let _favoured = Favoured::by_the_scheduler();
    raise_file_limit();
    let time = Duration::from_millis(report::rounds(1_500, 15_000));
    let quiet = baseline();
    let (mut tries, mut refused, mut worst_p99, mut worst_peak) = (0, 0, (Duration::ZERO, ""), (0, ""));
    for attack in attacks {
        let outcome = endured(attack, time);
        assert!(outcome.tries > 0, "{}: nothing was tried", attack.name);
        report::say(&format!("  {}: {}", attack.name, figures(&outcome)));
        tries += outcome.tries;
        refused += outcome.service.refused().len();
        worst_p99 = worst_p99.max((outcome.service.p99(), attack.name));
        worst_peak = worst_peak.max((outcome.peak_bytes, attack.name));
    }
    let result = format!(
        "worst p99 {:.1} ms ({}), without an attack {:.1} ms; {refused} good events told `overloaded`; at most {:.1} MiB ({})",
        millis(worst_p99.0),
        worst_p99.1,
        millis(quiet.p99()),
        mebibytes(worst_peak.0),
        worst_peak.1,
    );
    held(row, tries, &result);
}

/// Repeats an attack while good clients wait too long: the machine does other things too, and an attack that works fails
/// every try. What no load excuses ends the test at once. The memory is the most of all tries.
fn endured(attack: &Attack, time: Duration) -> Outcome {
    let mut peak_bytes = 0;
    for _ in 0..TRIES {
        let outcome = attacked(attack, time);
        peak_bytes = peak_bytes.max(outcome.peak_bytes);
        match measured(&outcome.service, outcome.peak_bytes, attack.fills_the_queue) {
            Ok(()) => return Outcome { peak_bytes, ..outcome },
            Err(Fault::Slow) => report::say(&format!("  {}: slow: {}", attack.name, figures(&outcome))),
            Err(fault) => panic!("{}: {fault:?}: {}", attack.name, figures(&outcome)),
        }
    }
    panic!("{}: {:?}, {TRIES} times", attack.name, Fault::Slow);
}

/// Runs an attack once. What does not depend on how busy the machine is, is asserted here.
fn attacked(attack: &Attack, time: Duration) -> Outcome {
    let memory = tempfile::tempdir_in(MEMORY_DISK).unwrap();
    let sidecar = Setup::in_dir(memory.path()).start();
    let (over, tries) = (AtomicBool::new(false), AtomicU64::new(0));
    let (acknowledged, possible) = (AtomicU64::new(0), AtomicU64::new(0));
    let target = Target {
        address: sidecar.address,
        over: &over,
        tries: &tries,
        acknowledged: &acknowledged,
        possible: &possible,
    };
    let service = std::thread::scope(|scope| {
        for _ in 0..attack.threads {
            scope.spawn(|| (attack.run)(&target));
        }
        let service = GoodClients::serve_for(sidecar.address, time);
        over.store(true, Ordering::SeqCst);
        service
    });
    let peak_bytes = peak_bytes(sidecar.pid());
    given_up(&sidecar);
    let found = verified(&sidecar.dir, &service.answers);
    let least = found.acknowledged as u64 + acknowledged.into_inner();
    let lines = least..=least + possible.into_inner();
    assert!(lines.contains(&(found.lines as u64)), "{}: {} lines instead of {lines:?}", attack.name, found.lines);
    assert_eq!(found.torn_tails, 0, "{}", attack.name);
    injection::nothing_was_smuggled(&sidecar);
    Outcome { tries: tries.into_inner(), service, peak_bytes }
}

/// A promise that was broken to good clients.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Refused { events: usize, such_as: Told },
    Slow,
    Memory { bytes: u64 },
}

/// The promises that are measured.
fn measured(service: &Service, peak_bytes: u64, fills_the_queue: bool) -> Result<(), Fault> {
    let refused = service.refused();
    // Where the queue is full, so that the contract has it, one in five at most.
    let is_told = |told: &Told| fills_the_queue && *told == Told::No(503) && refused.len() * 5 < service.answers.len();
    if let Some((_, told)) = refused.iter().find(|(_, told)| !is_told(told)) {
        return Err(Fault::Refused { events: refused.len(), such_as: (*told).clone() });
    }
    if peak_bytes >= MEMORY_BYTES_MAX {
        return Err(Fault::Memory { bytes: peak_bytes });
    }
    if service.p99() >= P99_MAX { Err(Fault::Slow) } else { Ok(()) }
}

/// The good clients alone.
fn baseline() -> Service {
    let memory = tempfile::tempdir_in(MEMORY_DISK).unwrap();
    let sidecar = Setup::in_dir(memory.path()).start();
    let service = GoodClients::serve_for(sidecar.address, Duration::from_secs(1));
    verified(&sidecar.dir, &service.answers);
    service
}

/// Waits until the sidecar has noticed that the attackers are gone.
fn given_up(sidecar: &Sidecar) {
    // The one that asks counts as well.
    wait_within(Duration::from_secs(30), "the end of the attackers' connections", || {
        (connections(sidecar) <= 1).then_some(())
    });
}

fn connections(sidecar: &Sidecar) -> u64 {
    let text = sidecar.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("audit_log_connections ")).unwrap();
    line.parse().unwrap()
}

/// Lets this process, and the sidecars that it starts, have as many sockets as the attacks take.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|files| files < FILES) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum: limit.maximum }).unwrap();
    }
    // The kernel enlarges the table of files here, and not while connections of this process are measured: it waits 10 to
    // 20 ms for that in a process with threads.
    rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), i32::try_from(FILES).unwrap() - 1).unwrap();
}

/// Whatever else runs on the machine gets a small share of it while this lives, so that what is measured is the attack: of
/// its processes, the sidecar and the good clients, none is favoured over another.
struct Favoured;

/// The weight of a session (sched(7), "The autogroup feature").
const AUTOGROUP: &str = "/proc/self/autogroup";

impl Favoured {
    fn by_the_scheduler() -> Option<Self> {
        let may = rustix::process::geteuid().is_root() && std::path::Path::new(AUTOGROUP).exists();
        // Not everybody who is root may.
        (may && std::fs::write(AUTOGROUP, "-20").is_ok()).then_some(Self)
    }
}

impl Drop for Favoured {
    fn drop(&mut self) {
        drop(std::fs::write(AUTOGROUP, "0"));
    }
}

fn figures(outcome: &Outcome) -> String {
    format!(
        "{} tries; p99 {:.1} ms kept, {:.1} ms fresh of {} events, {} refused; {:.1} MiB",
        outcome.tries,
        millis(outcome.service.kept_p99),
        millis(outcome.service.fresh_p99),
        outcome.service.answers.len(),
        outcome.service.refused().len(),
        mebibytes(outcome.peak_bytes)
    )
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Negative control: the measurements fail for a sidecar that stands still for 100 ms, and for a process with 80 MiB.
#[test]
fn a_good_client_that_waits_and_memory_that_grows_are_found() {
    use rustix::process::Signal;
    let _alone = alone();
    let sidecar = Sidecar::start();
    let clients = GoodClients::start(sidecar.address);
    for _ in 0..5 {
        sidecar.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(100));
        sidecar.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(100));
    }
    let service = clients.stop();
    let found = measured(&service, peak_bytes(sidecar.pid()), false);
    assert_eq!(found, Err(Fault::Slow), "{:?}", service.p99());

    // It keeps what it has read until a line ends.
    let mut tail = std::process::Command::new("tail");
    let mut tail = tail.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(tail.stdin.as_mut().unwrap(), &vec![b'x'; 80 << 20]).unwrap();
    let quiet = GoodClients::serve_for(sidecar.address, Duration::from_millis(20));
    let good = Service { kept_p99: Duration::ZERO, fresh_p99: Duration::ZERO, ..quiet };
    let found = measured(&good, peak_bytes(tail.id().try_into().unwrap()), false);
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(matches!(found, Err(Fault::Memory { bytes }) if bytes > 80 << 20), "{found:?}");
    assert_eq!(measured(&good, peak_bytes(sidecar.pid()), false), Ok(()));
}

const CONTROL: &str = "`hostile::a_good_client_that_waits_and_memory_that_grows_are_found`";

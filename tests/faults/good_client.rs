//! Two well-behaved clients, and how long they wait while somebody else attacks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::load::{Answers, Told, post};
use crate::support::Client;

/// How often each of them has an event to tell.
const EVERY: Duration = Duration::from_millis(5);

/// One client that keeps its connection, and one that opens a new one for each event.
pub(crate) struct GoodClients {
    stop: Arc<AtomicBool>,
    kept: JoinHandle<Seen>,
    fresh: JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    answers: Answers,
}

/// What the good clients have seen.
pub(crate) struct Service {
    /// The 99th percentile of the client that keeps its connection.
    pub(crate) kept_p99: Duration,
    /// That of the client with new connections, the connecting included.
    pub(crate) fresh_p99: Duration,
    pub(crate) answers: Answers,
}

impl GoodClients {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |prefix: &'static str, fresh: bool| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || one_client(address, prefix, fresh, &stop))
        };
        Self { kept: start("kept", false), fresh: start("fresh", true), stop }
    }

    /// Ends the clients; each waits for its last answer.
    pub(crate) fn stop(self) -> Service {
        self.stop.store(true, Ordering::SeqCst);
        let (mut kept, mut fresh) = (self.kept.join().unwrap(), self.fresh.join().unwrap());
        let (kept_p99, fresh_p99) = (p99(&mut kept.latencies), p99(&mut fresh.latencies));
        kept.answers.extend(fresh.answers);
        Service { kept_p99, fresh_p99, answers: kept.answers }
    }

    /// Lets the clients work for a while.
    pub(crate) fn serve_for(address: SocketAddr, time: Duration) -> Service {
        let clients = Self::start(address);
        std::thread::sleep(time);
        clients.stop()
    }
}

impl Service {
    /// The worse of the two percentiles.
    pub(crate) fn p99(&self) -> Duration {
        self.kept_p99.max(self.fresh_p99)
    }

    /// The events that were not acknowledged, and what was said instead.
    pub(crate) fn refused(&self) -> Vec<(&String, &Told)> {
        self.answers.iter().filter(|(_, told)| !matches!(told, Told::Durable { .. })).collect()
    }
}

fn one_client(address: SocketAddr, prefix: &str, fresh: bool, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut client = Client::connect(address);
    while !stop.load(Ordering::SeqCst) {
        let sent = Instant::now();
        if fresh {
            client = Client::connect(address);
        }
        let id = format!("{prefix}-{}", seen.answers.len());
        let told = post(&mut client, &id);
        let took = sent.elapsed();
        seen.latencies.extend(with_those_held_up(took));
        if told == Told::Nothing {
            client = Client::connect(address);
        }
        seen.answers.insert(id, told);
        std::thread::sleep(EVERY.saturating_sub(took));
    }
    seen
}

/// A latency, and those of the events that were due while it lasted: one long wait would else count but once.
fn with_those_held_up(took: Duration) -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(took), |left| left.checked_sub(EVERY).filter(|left| !left.is_zero()))
}

/// The latency that 99 of 100 don't exceed.
fn p99(latencies: &mut [Duration]) -> Duration {
    assert!(!latencies.is_empty(), "a good client has measured nothing");
    latencies.sort_unstable();
    latencies[(latencies.len() * 99).div_ceil(100) - 1]
}

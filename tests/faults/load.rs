//! Clients that append events with ids of their own, note each answer, and hold the files against them afterwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::support::{Client, Request, Response, segments};

/// What a client knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// 200: the line is durable, in this segment, under this index, with this time.
    Durable { segment: String, index: u64, ts: String },
    /// Refused, `Audit-Written: no`.
    No(u16),
    /// Refused, `Audit-Written: unknown`.
    Unknown(u16),
    /// The connection ended without an answer.
    Nothing,
}

/// What clients were told, by event id.
pub(crate) type Answers = HashMap<String, Told>;

/// Posts one event with this id and notes the answer; `None` from the connection ends it.
pub(crate) fn post(client: &mut Client, id: &str) -> Told {
    post_with(client, id, 0)
}

/// As [`post`], with so many bytes of message.
pub(crate) fn post_with(client: &mut Client, id: &str, bytes: usize) -> Told {
    let message = "x".repeat(bytes);
    let event = format!("{{\"event\":\"E\",\"message\":\"{message}\",\"meta\":{{\"id\":\"{id}\"}}}}");
    client.write(&Request::post(event).bytes());
    client.read().map_or(Told::Nothing, |response| told(&response))
}

/// What an answer to one event says of it.
pub(crate) fn told(response: &Response) -> Told {
    match (response.status, response.header("audit-written")) {
        (200, _) => {
            let answer = response.json();
            Told::Durable {
                segment: answer["segment"].as_str().unwrap().to_owned(),
                index: answer["index"].as_u64().unwrap(),
                ts: answer["ts"].as_str().unwrap().to_owned(),
            }
        }
        (status, Some("no")) => Told::No(status),
        (status, Some("unknown")) => Told::Unknown(status),
        (status, other) => panic!("{status} with Audit-Written {other:?}"),
    }
}

/// Clients that go on until they are told to stop, or until the sidecar is gone.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Answers>>,
}

impl Load {
    /// Starts `clients` of them; ids begin with `prefix`. After a refusal a client pauses for `pause`.
    pub(crate) fn start(address: SocketAddr, clients: usize, prefix: &str, pause: Duration) -> Self {
        Self::start_with(address, clients, prefix, pause, 0)
    }

    /// As [`Load::start`], with so many bytes of message in each event.
    pub(crate) fn start_with(address: SocketAddr, clients: usize, prefix: &str, pause: Duration, bytes: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|number| {
                let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
                let prefix = format!("{prefix}-{number}");
                std::thread::spawn(move || one_client(address, &prefix, pause, bytes, &stop, &acknowledged))
            })
            .collect();
        Self { stop, acknowledged, clients }
    }

    /// How many events were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Ends the clients; each waits for its last answer.
    pub(crate) fn stop(self) -> Answers {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn one_client(
    address: SocketAddr,
    prefix: &str,
    pause: Duration,
    bytes: usize,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> Answers {
    let mut answers = Answers::new();
    let mut connection = None;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        let Some(client) = connection.as_mut() else {
            match std::net::TcpStream::connect(address) {
                Ok(stream) => connection = Some(Client::over(stream)),
                // It is gone: this client has seen all that there is to see.
                Err(_) => return answers,
            }
            continue;
        };
        let id = format!("{prefix}-{number}");
        number += 1;
        let told = post_with(client, &id, bytes);
        match &told {
            Told::Durable { .. } => {
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Told::No(_) | Told::Unknown(_) => std::thread::sleep(pause),
            Told::Nothing => connection = None,
        }
        answers.insert(id, told);
    }
    answers
}

/// What was found on disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) acknowledged: usize,
    /// Whole lines, acknowledged or not.
    pub(crate) lines: usize,
    /// Segments whose last bytes are not a line: a kill or a crash was in the middle of them.
    pub(crate) torn_tails: usize,
    pub(crate) segments: usize,
    /// Segments without a byte.
    pub(crate) empty: usize,
}

/// What is looked at in a line. A `meta` that is 128 deep is one level more, within a line, than the library follows; it is
/// checked, but not taken apart.
#[derive(serde::Deserialize)]
struct Line<'a> {
    ts: String,
    #[serde(borrow)]
    meta: &'a RawValue,
}

/// The id of an event of [`post`].
fn id_in(meta: &RawValue) -> Option<String> {
    let meta: Value = serde_json::from_str(meta.get()).ok()?;
    Some(meta["id"].as_str()?.to_owned())
}

/// Holds the files of a directory against what clients were told.
///
/// # Errors
/// Each violated promise, in words: an acknowledged event that is not there, or not where the answer said, or with
/// another time; an event that is there though `no` was said; a damaged line that is not the last of its segment; a time that
/// goes back within a segment; a segment that is named later than its first line.
pub(crate) fn verify(dir: &Path, answers: &Answers) -> Result<Found, Vec<String>> {
    let mut faults = Vec::new();
    let mut found = Found::default();
    let mut places: HashMap<String, Vec<(String, u64, String)>> = HashMap::new();
    let segments: BTreeMap<String, Vec<u8>> = segments(dir);
    found.segments = segments.len();
    for (name, bytes) in &segments {
        found.empty += usize::from(bytes.is_empty());
        let mut last_ts = String::new();
        for (index, line) in (0..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let is_last = line.as_ptr_range().end == bytes.as_ptr_range().end;
            let parsed = serde_json::from_slice::<Line<'_>>(line).ok().filter(|_| line.ends_with(b"\n"));
            let Some(line) = parsed else {
                if is_last {
                    found.torn_tails += 1;
                } else {
                    faults.push(format!("{name}: line {index} is damaged: {:?}", String::from_utf8_lossy(line)));
                }
                continue;
            };
            found.lines += 1;
            let ts = line.ts;
            if ts < last_ts {
                faults.push(format!("{name}: line {index} goes back from {last_ts} to {ts}"));
            }
            let digits: String = ts.chars().filter(|char| !matches!(char, '-' | ':')).collect();
            if index == 0
                && name.rsplit_once('_').is_some_and(|(_, stamp)| stamp.trim_end_matches(".jsonl") > &digits[..])
            {
                faults.push(format!("{name}: named later than its first line, {ts}"));
            }
            if let Some(id) = id_in(line.meta) {
                places.entry(id).or_default().push((name.clone(), index, ts.clone()));
            }
            last_ts = ts;
        }
    }
    let nowhere = Vec::new();
    for (id, told) in answers {
        let places = places.get(id).unwrap_or(&nowhere);
        match told {
            Told::Durable { segment, index, ts } => {
                found.acknowledged += 1;
                if !places.iter().any(|place| (&place.0, &place.1, &place.2) == (segment, index, ts)) {
                    faults
                        .push(format!("{id}: acknowledged as line {index} of {segment} at {ts}, found at {places:?}"));
                }
            }
            Told::No(status) if !places.is_empty() => {
                faults.push(format!("{id}: refused with {status} and `no`, found at {places:?}"));
            }
            Told::No(_) | Told::Unknown(_) | Told::Nothing => {}
        }
    }
    let ids: HashSet<_> = answers.keys().collect();
    for id in places.keys().filter(|id| !ids.contains(id)) {
        faults.push(format!("{id}: nobody sent it"));
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// As [`verify`]; a violated promise fails the test.
#[track_caller]
pub(crate) fn verified(dir: &Path, answers: &Answers) -> Found {
    verify(dir, answers).unwrap_or_else(|faults| {
        let shown: Vec<_> = faults.iter().take(10).collect();
        panic!("{} violations, such as {shown:#?}", faults.len())
    })
}

/// Polls until `condition` gives something, for `patience` at most.
#[track_caller]
pub(crate) fn wait_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory that a process has ever had resident (proc(5), `VmHWM`).
pub(crate) fn peak_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib << 10
}

//! The harness: a sidecar of one's own, requests down to the byte, and the files that it left.

pub(crate) mod console;
pub(crate) mod disk;
pub(crate) mod inside;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that is waited for. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_audit-log");
/// What the image sets for every command.
pub(crate) const IMAGE_ENVIRONMENT: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");
pub(crate) const JOB: &str = "5003592";
pub(crate) const WORKSPACE: &str = "651b3f72-b49d-4ad5-8bbe-4ff2d4889002";

/// Polls until `condition` gives something.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a program is there that a test needs. Without it the test says so on stderr, past the harness's capture; under
/// CI, where everything is installed, its absence is a failure.
pub(crate) fn tool(name: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(name).is_file());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed");
        std::io::stderr().write_all(format!("SKIPPED: {name} is not installed\n").as_bytes()).unwrap();
    }
    found
}

/// Whether all these programs are there, and the right to mount, to make namespaces and to become another user. See [`tool`].
pub(crate) fn tools(names: &[&str]) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "not root");
        std::io::stderr().write_all(b"SKIPPED: mounts, namespaces and other users need root\n").unwrap();
    }
    // All of them, so that all that are missing are named.
    names.iter().filter(|name| !tool(name)).count() == 0 && root
}

/// A sidecar under test, as a process of its own, and its directory.
pub(crate) struct Sidecar {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: Option<SocketAddr>,
    pub(crate) dir: PathBuf,
    log: Arc<Mutex<String>>,
    log_wanted: Arc<AtomicBool>,
    _temp: Option<tempfile::TempDir>,
}

/// How to start a sidecar.
pub(crate) struct Setup {
    pub(crate) command: Command,
    dir: PathBuf,
    temp: Option<tempfile::TempDir>,
}

/// A command for the binary with an environment of nothing but what the image and the test give.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(BINARY);
    bare(&mut command);
    command
}

fn bare(command: &mut Command) {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    command.env(IMAGE_ENVIRONMENT.0, IMAGE_ENVIRONMENT.1);
}

impl Setup {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("audit");
        std::fs::create_dir(&dir).unwrap();
        let mut setup = Self::in_dir(&dir);
        setup.temp = Some(temp);
        setup
    }

    pub(crate) fn in_dir(dir: &Path) -> Self {
        let mut command = binary();
        // Settings come by environment, so that a test can override each by its flag.
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.env("UCLOUD_JOB_ID", JOB).env("UCLOUD_WORKSPACE_ID", WORKSPACE).env("AUDIT_LOG_DIR", dir);
        command.env("AUDIT_LOG_CONFIG", "/nonexistent/config.yaml");
        Self { command, dir: dir.to_owned(), temp: None }
    }

    pub(crate) fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.command.args(args);
        self
    }

    /// Has another program start the sidecar, such as prlimit or strace.
    pub(crate) fn wrap(&mut self, program: &str, args: &[&str]) {
        let inner = std::mem::replace(&mut self.command, Command::new(program));
        bare(&mut self.command);
        self.command.args(args).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            self.command.env(name, value.expect("only set variables"));
        }
    }

    pub(crate) fn start(mut self) -> Sidecar {
        let mut child = self.command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        let copy = Arc::clone(&log);
        let log_wanted = Arc::new(AtomicBool::new(true));
        let wanted = Arc::clone(&log_wanted);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(copy.lock().unwrap(), "{line}").unwrap();
                if !wanted.load(Ordering::SeqCst) {
                    // The reading end is closed with this thread.
                    return;
                }
            }
        });
        let metrics = self.command.get_args().any(|arg| arg == "--metrics-listen");
        let mut sidecar = Sidecar {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            metrics_address: None,
            dir: self.dir,
            log,
            log_wanted,
            _temp: self.temp,
        };
        sidecar.address = sidecar.logged_address("listening");
        if metrics {
            sidecar.metrics_address = Some(sidecar.logged_address("metrics listening"));
        }
        sidecar
    }
}

impl Sidecar {
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    fn logged_address(&mut self, message: &str) -> SocketAddr {
        wait_for("the address in the log", || {
            if let Some(line) = self.logged(message) {
                return line["address"].as_str()?.parse().ok();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the sidecar has ended, {ended:?}: {}", self.log());
            None
        })
    }

    /// The first line of the log with this message.
    pub(crate) fn logged(&self, message: &str) -> Option<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|l| l["message"] == message)
    }

    /// Waits for a line of the log with this message.
    pub(crate) fn wait_logged(&self, message: &str) -> Value {
        wait_for(message, || self.logged(message))
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Closes the reading end of the sidecar's stderr, at its next line.
    pub(crate) fn close_log(&self) {
        self.log_wanted.store(false, Ordering::SeqCst);
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn send(&self, request: &Request) -> Response {
        self.connect().send(request)
    }

    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.send(&Request::post(body))
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&Request::new("GET", path))
    }

    /// Appends an event that must be accepted; returns the answer.
    pub(crate) fn append(&self, body: impl AsRef<[u8]>) -> Value {
        let response = self.post(body);
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    }

    pub(crate) fn segments(&self) -> BTreeMap<String, Vec<u8>> {
        segments(&self.dir)
    }

    /// All lines of all segments, as JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        lines(&self.dir)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the sidecar's end", || self.child.try_wait().unwrap())
    }

    /// Stops the sidecar as Kubernetes does.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The segments of a directory and their bytes.
pub(crate) fn segments(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut segments = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|end| end == "jsonl") {
            segments.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    segments
}

/// All lines of all segments of a directory, in order; a damaged one fails the test.
pub(crate) fn lines(dir: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for (name, bytes) in segments(dir) {
        assert!(bytes.ends_with(b"\n"), "{name} has a torn tail, or is empty");
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.push(serde_json::from_slice(line).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    lines
}

/// A request, to be written byte by byte.
#[derive(Clone)]
pub(crate) struct Request {
    target: String,
    method: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let headers = vec![("Host".to_owned(), "127.0.0.1".to_owned())];
        Self { target: target.to_owned(), method: method.to_owned(), headers, body: None }
    }

    pub(crate) fn post(body: impl AsRef<[u8]>) -> Self {
        Self { body: Some(body.as_ref().to_vec()), ..Self::new("POST", "/append") }
    }

    pub(crate) fn batch(body: impl AsRef<[u8]>) -> Self {
        Self::post(body).header("Content-Type", "application/x-ndjson")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn to(self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self }
    }

    pub(crate) fn without_host(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "Host");
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        let chunked = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
        let length = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some(body) = self.body.as_ref().filter(|_| !chunked && !length) {
            write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the sidecar takes connections"))
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub(crate) fn send(&mut self, request: &Request) -> Response {
        self.write(&request.bytes());
        self.read().expect("an answer")
    }

    /// Writes; that the other side has closed already is found out by reading.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Reads one answer; `None` if the connection was closed instead.
    pub(crate) fn read(&mut self) -> Option<Response> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let body = if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.read_chunks()?
        } else {
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body).ok()?;
            body
        };
        if status == 100 {
            return self.read();
        }
        Some(Response { status, headers, body })
    }

    /// The body of an answer that comes in chunks; `None` if it is cut off.
    fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let (mut body, mut line) = (Vec::new(), String::new());
        loop {
            line.clear();
            self.reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let start = body.len();
            body.resize(start + length + 2, 0);
            self.reader.read_exact(&mut body[start..]).ok()?;
            body.truncate(start + length);
            if length == 0 {
                return Some(body);
            }
        }
    }

    /// Whether the other side has closed the connection; waits until it does or says something.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.reader.read(&mut byte), Ok(0) | Err(_))
    }
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Checks everything that each refusal promises, and returns the detail.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        assert!(matches!(self.header("audit-written"), Some("no" | "unknown")), "{}", self.text());
        self.problem(status, code)
    }

    /// Asserts that it is a problem of this code, and returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty());
        detail.to_owned()
    }

    /// As `refused`, and nothing was written.
    #[track_caller]
    pub(crate) fn refused_unwritten(&self, status: u16, code: &str) -> String {
        assert_eq!(self.header("audit-written"), Some("no"), "{}", self.text());
        self.refused(status, code)
    }
}

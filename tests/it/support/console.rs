//! A console under test, as a process of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{Client, Request, Response, binary, wait_for};

/// A console; it is killed when this is dropped.
pub(crate) struct Console {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Console {
    /// Starts a console over a directory.
    pub(crate) fn over(dir: &Path) -> Self {
        Self::start(dir, &[])
    }

    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = binary();
        command.args(["console", "--listen", "127.0.0.1:0", "--log-format", "json", "--dir"]).arg(dir).args(args);
        Self::run(command)
    }

    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, copy) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writeln!(copy.lock().unwrap(), "{line}").unwrap();
            }
        });
        let mut console = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        console.address = wait_for("the address in the log", || {
            if let Some(line) = console.lines("listening").pop() {
                return line["address"].as_str()?.parse().ok();
            }
            let ended = console.child.try_wait().unwrap();
            assert!(ended.is_none(), "the console has ended, {ended:?}: {}", console.log());
            None
        });
        console
    }

    /// The lines of the log with this message.
    pub(crate) fn lines(&self, message: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The most memory that it has ever had resident, in KiB (proc(5), `VmHWM`).
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status("VmHWM")
    }

    /// A number of `/proc/PID/status`.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn send(&self, request: &Request) -> Response {
        self.connect().send(request)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.send(&Request::new("GET", target))
    }

    /// What a route answers with 200.
    #[track_caller]
    pub(crate) fn json(&self, target: &str) -> Value {
        let response = self.get(target);
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        response.json()
    }

    pub(crate) fn get_as(&self, token: &str, target: &str) -> Response {
        self.send(&Request::new("GET", target).header("Authorization", &format!("Bearer {token}")))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the console", || self.child.try_wait().unwrap())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A text as a parameter's value or an element of a path.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

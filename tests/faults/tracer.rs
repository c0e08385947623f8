//! strace, attached to the committer of a running sidecar: its calls fail, lie, hang, or are its last.
//!
//! Only the thread `commit` is traced, so that its calls are counted and nobody else's. What it does beside file calls
//! is a `write` to an eventfd after each commit, by which the clients are woken.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Sidecar, wait_for};

/// All that the committer calls on files.
const CALLS: &str = "trace=openat,statx,readlink,write,fdatasync,fsync,ftruncate,unlinkat";

/// A strace of a committer. When it is dropped, the calls go on as they are.
pub(crate) struct Tracer {
    strace: Child,
    trace: tempfile::NamedTempFile,
}

impl Tracer {
    /// Tampers as strace's `inject=` says, such as `write:error=EIO:when=3`; calls count from now on. Where there are
    /// `paths`, only calls about these files are tampered with and counted.
    pub(crate) fn attach(sidecar: &Sidecar, injections: &[&str], paths: &[&Path]) -> Self {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-p", &committer(sidecar).to_string(), "-y", "-e", CALLS, "-o"]).arg(trace.path());
        for injection in injections {
            command.args(["-e", &format!("inject={injection}")]);
        }
        for path in paths {
            command.arg("-P").arg(path);
        }
        let mut strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        // The thread is stopped by then, or will be before its next call.
        BufReader::new(strace.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("attached"), "strace: {said}");
        Self { strace, trace }
    }

    /// Lets go of the thread; a call that hangs goes on. Returns the calls that were tampered with.
    pub(crate) fn detach(mut self) -> Vec<String> {
        self.end();
        self.calls().into_iter().filter(|call| call.ends_with("(INJECTED)") || call.ends_with("(DELAYED)")).collect()
    }

    /// The calls so far, as strace prints them.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::fs::read_to_string(self.trace.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn end(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            let strace = rustix::process::Pid::from_child(&self.strace);
            // It may have ended by itself since, with the sidecar; it is not yet waited for, so the id is still its
            // own.
            rustix::process::kill_process(strace, rustix::process::Signal::TERM).unwrap();
        }
        wait_for("strace's end", || self.strace.try_wait().unwrap());
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The id of the committer's thread, once it has given itself its name.
fn committer(sidecar: &Sidecar) -> u32 {
    wait_for("the committer", || {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", sidecar.pid())).unwrap().map(Result::unwrap);
        let committer = threads
            .find(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "commit\n"));
        Some(committer?.file_name().to_str().unwrap().parse().unwrap())
    })
}

/// Says nothing in the committer's thread, so that all of its writes but those of the eventfd are to segments.
pub(crate) const QUIET: (&str, &str) = ("RUST_LOG", "off,audit_log::app=info");

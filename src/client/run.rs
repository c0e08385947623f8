//! `audit-log run`: audits a program that nobody edits.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::append::body;
use super::post;

/// The flags of `run`.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
pub struct RunFlags {
    /// The events are named NAME_START and NAME_EXIT
    #[arg(long, value_name = "NAME", default_value = "PROCESS")]
    pub event: String,
    /// How long to try to record each event
    #[arg(long, value_name = "TIME", default_value = "45s")]
    pub timeout: String,
    /// The sidecar's address [env: AUDIT_LOG_LISTEN] [default: 127.0.0.1:48291]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What shells exit with if a command is not found, or can't be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// What shells add to the number of the signal that ended a command.
const SIGNALED: i32 = 128;

/// How long a signal waits for the start that is being recorded, so that its exit can be recorded as well.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// The signals that are passed on.
const PASSED_ON: [SignalKind; 6] = [
    SignalKind::terminate(),
    SignalKind::interrupt(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// Runs the command between two events: it starts once the first is durable. Returns the command's exit status, 128 and
/// the signal's number if one ended it.
///
/// # Errors
/// The first event could not be recorded, and the command was not started; or the last could not, which is told on
/// stderr by the caller, along with the status.
pub async fn run(flags: &RunFlags, address: SocketAddr, timeout: Duration) -> anyhow::Result<(u8, anyhow::Result<()>)> {
    let argv: Vec<_> = flags.command.iter().map(|argument| argument.to_string_lossy()).collect();
    let cwd = std::env::current_dir().map(|path| path.to_string_lossy().into_owned()).ok();
    let meta = to_raw_value(&json!({ "argv": argv, "cwd": cwd, "user": user() })).context("meta can be written")?;
    let start = body(&format!("{}_START", flags.event), None, Some(&meta));
    // Signals are caught before the event is sent: one that comes in between must not leave a start without its exit.
    let mut signals = catch_signals()?;
    let starting = post(address, start, timeout);
    tokio::pin!(starting);
    tokio::select! {
        biased;
        started = &mut starting => {
            started.context("the start could not be recorded, so the command was not started")?;
        }
        Some(kind) = signals.recv() => {
            let code = u8::try_from(SIGNALED + kind.as_raw_value()).unwrap_or(u8::MAX);
            let told = "told to stop before the command was started";
            if !matches!(tokio::time::timeout(START_PATIENCE, starting).await, Ok(Ok(_))) {
                return Ok((code, Err(anyhow::anyhow!("{told}; its start may have been recorded"))));
            }
            let meta = json!({ "status": null, "signal": kind.as_raw_value(), "error": told, "duration": 0.0 });
            let recorded = record_exit(flags, address, timeout, &meta).await;
            return Ok((code, recorded.and(Err(anyhow::anyhow!(told)))));
        }
    }

    let begun = Instant::now();
    let spawned = Command::new(&flags.command[0]).args(&flags.command[1..]).spawn();
    let (code, mut meta) = match spawned {
        Ok(mut child) => {
            let status = wait(&mut child, &mut signals).await.context("the command can't be waited for")?;
            (exit_code(status), json!({ "status": status.code(), "signal": status.signal() }))
        }
        Err(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            (code, json!({ "status": code, "signal": null, "error": error.to_string() }))
        }
    };
    meta["duration"] = json!(begun.elapsed().as_secs_f64());
    let failed = meta["error"].as_str().map(|error| format!("{}: {error}", argv[0]));
    let recorded = record_exit(flags, address, timeout, &meta).await;
    Ok((code, recorded.and(failed.map_or(Ok(()), |failed| Err(anyhow::anyhow!(failed))))))
}

async fn record_exit(
    flags: &RunFlags,
    address: SocketAddr,
    timeout: Duration,
    meta: &serde_json::Value,
) -> anyhow::Result<()> {
    let meta = to_raw_value(meta).context("meta can be written")?;
    let exit = body(&format!("{}_EXIT", flags.event), None, Some(&meta));
    post(address, exit, timeout).await.context("the exit could not be recorded").map(drop)
}

fn catch_signals() -> anyhow::Result<mpsc::UnboundedReceiver<SignalKind>> {
    let (caught, signals) = mpsc::unbounded_channel();
    let ignored = ignored_signals();
    for kind in PASSED_ON {
        // What `nohup`, or a shell that starts a job in its background, has the command ignore, stays ignored.
        if ignored & (1 << (kind.as_raw_value() - 1)) != 0 {
            continue;
        }
        let mut stream = signal(kind).context("cannot catch signals")?;
        let caught = caught.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && caught.send(kind).is_ok() {} });
    }
    Ok(signals)
}

/// The signals that this process was started to ignore, as a set of bits (proc(5), `SigIgn`).
fn ignored_signals() -> u64 {
    let status = crate::durable::read_file(Path::new("/proc/self/status"), 1 << 20).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

async fn wait(child: &mut Child, signals: &mut mpsc::UnboundedReceiver<SignalKind>) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            Some(kind) = signals.recv() => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                let signal = Signal::from_named_raw(kind.as_raw_value());
                if let Some((pid, signal)) = pid.zip(signal) {
                    // It fails only if the child has ended, which the next turn finds out.
                    drop(kill_process(pid, signal).map_err(std::io::Error::from));
                }
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| SIGNALED + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The user that the command runs as.
fn user() -> serde_json::Value {
    let uid = rustix::process::getuid().as_raw();
    json!({ "uid": uid, "gid": rustix::process::getgid().as_raw(), "name": user_name(uid) })
}

/// The user's name by `/etc/passwd`; images often have none for theirs.
fn user_name(uid: u32) -> Option<String> {
    let bytes = crate::durable::read_file(Path::new("/etc/passwd"), 1 << 20).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

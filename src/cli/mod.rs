//! The command line: parsing, dispatch, and exit codes.

mod console;
mod counts;
mod export;
mod interrupt;
mod print;
mod progress;
mod read;
mod tail;
mod token;

use std::future::Future;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, LogFlags, RetentionFlags, ServeFlags, SettingError, file, process_environment};
use crate::retention::{Notice, Rule, Scope, Summary, sweep};
use crate::{app, client, durable, inject, telemetry};

/// Exit code of bad usage.
const USAGE: u8 = 2;
/// Exit code of everything else that went wrong.
const FAILED: u8 = 1;
/// What `install` names the binary.
const BINARY: &str = "audit-log";

/// An audit log for compute jobs: what is acknowledged is on disk.
#[derive(Debug, Parser)]
#[command(name = "audit-log", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
enum Command {
    /// Receive events and append them (the sidecar container)
    Serve(Deferred<ServeFlags>),
    /// Post one event and print the answer; exit 0 only when it is durable
    Append(Deferred<client::AppendFlags>),
    /// Run a command between two events
    Run(Deferred<client::RunFlags>),
    /// Copy this binary into a directory (an init container)
    Install {
        /// The directory
        dir: PathBuf,
    },
    /// Exit 0 if the sidecar is ready, else 1 (exec probes)
    Health {
        /// Ask only whether it answers at all
        #[arg(long)]
        live: bool,
        /// The sidecar's address [env: AUDIT_LOG_LISTEN] [default: 127.0.0.1:48291]
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<String>,
    },
    /// Remove old segments from directory trees, once (a CronJob)
    Sweep(Deferred<SweepFlags>),
    /// Print the records that match, newest first
    #[command(after_help = read::QUERY_EXAMPLES)]
    Query(Deferred<read::QueryFlags>),
    /// Write every record that matches, oldest first, to a file with a manifest
    #[command(after_help = export::EXAMPLES)]
    Export(Deferred<export::ExportFlags>),
    /// Print the last records that match, and with -f those that appear
    #[command(after_help = tail::EXAMPLES)]
    Tail(Deferred<tail::TailFlags>),
    /// Count the values of fields in the records that match
    #[command(after_help = counts::FACETS_EXAMPLES)]
    Facets(Deferred<counts::FacetsFlags>),
    /// Count the records that match by minute, hour or day
    #[command(after_help = counts::HISTOGRAM_EXAMPLES)]
    Histogram(Deferred<counts::HistogramFlags>),
    /// Serve the records over HTTP, to whoever holds a token
    Console(Deferred<console::ConsoleFlags>),
    /// Make a token for `console`, and print it once
    Token(Deferred<token::TokenFlags>),
    /// Print what a shell needs to complete commands and flags
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell: bash, zsh or fish
        shell: String,
    },
    /// Check a configuration file: exit 0, or 2 with file, line, key and reason
    CheckConfig {
        /// The file
        file: PathBuf,
        /// The shortest retention period that is accepted [env: AUDIT_LOG_RETENTION_FLOOR] [default: 1]
        #[arg(long, value_name = "DAYS")]
        retention_floor: Option<String>,
    },
    /// Add the sidecar to the pods of manifests: YAML or JSON on stdin, the same on stdout
    #[command(after_help = INJECT_EXAMPLES)]
    Inject(Deferred<InjectFlags>),
    /// `serve` as UCloud's job builder calls it
    #[command(hide = true)]
    StartJobAuditLogServer {
        /// The port to listen on
        port: Option<String>,
        #[command(flatten)]
        flags: Box<ServeFlags>,
    },
}

/// Arguments that are built once their command is chosen: the sidecar does not carry those of all others.
#[derive(Debug)]
struct Deferred<T>(T);

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| {
            // What the arguments say of themselves is not for the users of the command.
            let about = command.get_about().cloned().unwrap_or_default();
            T::augment_args(command).about(about)
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

#[derive(Debug, Args)]
struct SweepFlags {
    /// The directories; all folders below them are swept too
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    retention: RetentionFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
struct InjectFlags {
    /// The sidecar's image [default: audit-log of this version]
    #[arg(long)]
    image: Option<String>,
    /// The PersistentVolumeClaim with the jobs' folders [default: audit-log, or the pod's own volume of this name]
    #[arg(long, value_name = "NAME")]
    claim: Option<String>,
    /// The ConfigMap with config.yaml [default: audit-log, or the pod's own volume audit-log-config]
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,
    /// The group that volumes are given to, for pods that set none: the sidecar must be able to write to /audit
    #[arg(long, value_name = "GID")]
    fs_group: Option<u32>,
}

const INJECT_EXAMPLES: &str = "\
Examples:
  audit-log inject < job.yaml | kubectl apply -f -
  kubectl get deployment web -o yaml | audit-log inject --image registry.example/audit-log:0.1.0 | kubectl apply -f -";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(audit-log completions bash)                                       # in ~/.bashrc
  audit-log completions zsh > ~/.zfunc/_audit-log                            # ~/.zfunc is in fpath
  audit-log completions fish > ~/.config/fish/completions/audit-log.fish";

/// Why a command ended badly.
enum Failure {
    /// The command line, the environment or a named file is at fault.
    Usage(String),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<SettingError> for Failure {
    fn from(error: SettingError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// The command line, as manuals and shells are told of it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    // Usage errors and help end the process here, with 2 and 0.
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(Failure::Usage(message)) => {
            complain(&message);
            ExitCode::from(USAGE)
        }
        Err(Failure::Other(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(Deferred(flags)) => serve(&flags, None),
        Command::StartJobAuditLogServer { port, flags } => {
            let port = match port {
                None => config::PORT,
                Some(text) => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| SettingError {
                    name: "PORT".to_owned(),
                    reason: "must be a number from 1 to 65535".to_owned(),
                })?,
            };
            serve(&flags, Some(port))
        }
        command => one_shot(command),
    }
}

/// What ends by itself or is for people: apart from `dispatch`, as the pages of that are resident in each sidecar.
#[inline(never)]
fn one_shot(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(_) | Command::StartJobAuditLogServer { .. } => unreachable!("`dispatch` serves"),
        Command::Append(Deferred(flags)) => {
            let address = config::server_address(flags.listen.as_ref(), &process_environment)?;
            let timeout = config::time("--timeout", &flags.timeout)?;
            let event = flags.prepare()?;
            let answer = block_on(client::append(address, event, timeout))?.map_err(anyhow::Error::from)?;
            // It is durable, whether or not anybody reads where.
            if let Err(error) = print(&format!("{answer}\n")) {
                complain(&format!("recorded, but the answer can't be printed: {error:#}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(Deferred(flags)) => {
            let address = config::server_address(flags.listen.as_ref(), &process_environment)?;
            let timeout = config::time("--timeout", &flags.timeout)?;
            let (code, recorded) = block_on(client::run(&flags, address, timeout))??;
            if let Err(error) = recorded {
                complain(&format!("{error:#}"));
            }
            Ok(ExitCode::from(code))
        }
        Command::Install { dir } => {
            let binary = std::env::current_exe().map_err(anyhow::Error::from)?;
            let unique = app::unique_id(&SystemClock)?;
            let installed = durable::install_executable(&binary, &dir, BINARY, &unique).map_err(|error| {
                let message = format!("DIR: {}: {error}", dir.display());
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::Usage(message),
                    _ => Failure::Other(anyhow::anyhow!(message)),
                }
            })?;
            print(&format!("{}\n", installed.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Health { live, listen } => {
            let address = config::server_address(listen.as_ref(), &process_environment)?;
            block_on(client::health(address, live))??;
            Ok(ExitCode::SUCCESS)
        }
        Command::Sweep(Deferred(flags)) => sweep_all(&flags),
        Command::Inject(Deferred(flags)) => inject_all(flags),
        Command::Query(Deferred(flags)) => read::query(&flags),
        Command::Export(Deferred(flags)) => export::export(&flags),
        Command::Tail(Deferred(flags)) => tail::tail(&flags),
        Command::Facets(Deferred(flags)) => counts::facets(&flags),
        Command::Histogram(Deferred(flags)) => counts::histogram(&flags),
        Command::Console(Deferred(flags)) => console::console(&flags),
        Command::Token(Deferred(flags)) => token::token(&flags),
        Command::Completions { shell } => completions(&shell),
        Command::CheckConfig { file, retention_floor } => {
            let flags = RetentionFlags { config: None, retention_floor };
            let floor_days = flags.settings(&process_environment)?.floor_days;
            file::read(&file, floor_days).map_err(|error| Failure::Usage(error.to_string()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn completions(shell: &str) -> Result<ExitCode, Failure> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => return Err(Failure::Usage("SHELL: must be `bash`, `zsh` or `fish`".to_owned())),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), BINARY, &mut script);
    let script = String::from_utf8(script).expect("names and help texts are UTF-8");
    // It spells a hyphen in the name of the binary in two ways (clap's issue 6421), and would complete no flags.
    print(&script.replace("audit__subcmd__log", "audit__log"))?;
    Ok(ExitCode::SUCCESS)
}

fn serve(flags: &ServeFlags, ucloud_port: Option<u16>) -> Result<ExitCode, Failure> {
    let settings = flags.settings(&process_environment, ucloud_port)?;
    telemetry::start(&flags.log.settings(&process_environment)?);
    let directory = app::open_directory(&settings)?;
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let parts = app::Parts::new(Arc::new(SystemClock), files_max);
    if let Err(error) = app::reserve_files(&parts.limits) {
        warn!(%error, "the first connections will be slow");
    }
    let ran = block_on(async {
        let signals = StopSignals::new()?;
        // By default it kills the process; caught, the write fails with EFBIG instead.
        let _file_too_large = signal(SignalKind::from_raw(SIGXFSZ))?;
        let listeners = app::bind(&settings).await?;
        app::run(settings, directory, listeners, parts, signals).await
    })?;
    ran?;
    Ok(ExitCode::SUCCESS)
}

/// Linux's number for "file size limit exceeded".
const SIGXFSZ: i32 = 25;

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl app::Signals for StopSignals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn sweep_all(flags: &SweepFlags) -> Result<ExitCode, Failure> {
    let retention = flags.retention.settings(&process_environment)?;
    let log = flags.log.settings(&process_environment)?;
    let settings =
        file::read(&retention.config, retention.floor_days).map_err(|error| Failure::Usage(error.to_string()))?;
    telemetry::start(&log);
    let Some(days) = settings.retention_days else {
        print("no retention period is set: nothing is removed\n")?;
        return Ok(ExitCode::SUCCESS);
    };
    let now = SystemClock.now();
    let mut rows = Vec::new();
    let mut failed = false;
    for dir in &flags.dirs {
        let mut printed = Ok(());
        let mut say = |line: String| {
            if printed.is_ok() {
                printed = print(&line);
            }
        };
        let swept = sweep(dir, Scope::Tree, Rule { days }, now, flags.dry_run, &mut |notice| match &notice {
            Notice::Hold { path } => say(format!("on hold: {}\n", path.display())),
            Notice::Removed { path, bytes, newest, .. } if flags.dry_run => {
                say(format!("would remove: {} ({bytes} bytes, newest {newest})\n", path.display()));
            }
            Notice::RemovedFolder { path } if flags.dry_run => {
                say(format!("would remove: {} (an empty folder)\n", path.display()));
            }
            _ => app::log_notice(&notice),
        });
        printed?;
        match swept {
            Ok(summary) => {
                failed |= summary.errors > 0;
                rows.push((dir.display().to_string(), summary));
            }
            Err(error) => {
                failed = true;
                complain(&format!("{}: {error}", dir.display()));
            }
        }
    }
    print(&table(&rows, days, flags.dry_run))?;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Bytes of manifests: those of some thousand pods.
const MANIFESTS_BYTES_MAX: u64 = 64 << 20;

fn inject_all(flags: InjectFlags) -> Result<ExitCode, Failure> {
    let InjectFlags { image, claim, config_map, fs_group } = flags;
    if image.as_ref().is_some_and(|image| image.is_empty() || image.contains(|c: char| !c.is_ascii_graphic())) {
        return Err(Failure::Usage("--image: must be the name of an image".to_owned()));
    }
    for (flag, name) in [("--claim", &claim), ("--config-map", &config_map)] {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 253 || !name.bytes().all(known)) {
            return Err(Failure::Usage(format!("{flag}: must be a name: small letters, digits, `-` and `.`")));
        }
    }
    let mut text = String::new();
    let mut stdin = io::stdin().lock().take(MANIFESTS_BYTES_MAX + 1);
    stdin.read_to_string(&mut text).map_err(|error| Failure::Usage(format!("stdin: {error}")))?;
    if text.len() as u64 > MANIFESTS_BYTES_MAX {
        return Err(Failure::Usage(format!("stdin: more than {MANIFESTS_BYTES_MAX} bytes")));
    }
    let options = inject::Options { image, claim, config_map, fs_group };
    let injected = inject::inject(&text, &options).map_err(|error| Failure::Usage(format!("stdin:{error}")))?;
    print(&injected.text)?;
    for note in &injected.notes {
        complain(note);
    }
    if injected.notes.is_empty() {
        complain("nothing was injected: no Pod, Job, CronJob, Deployment, StatefulSet, DaemonSet or ReplicaSet");
    }
    Ok(ExitCode::SUCCESS)
}

/// What a sweep did, a row a directory.
fn table(rows: &[(String, Summary)], days: u32, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let header = ["directory", "folders", "segments", verb, "bytes", "empty folders", "holds", "errors"];
    let cells: Vec<[String; 8]> = std::iter::once(header.map(str::to_owned))
        .chain(rows.iter().map(|(dir, s)| {
            let numbers = [s.folders, s.segments, s.removed, s.removed_bytes, s.removed_folders, s.holds, s.errors];
            let [folders, segments, removed, bytes, empty, holds, errors] = numbers.map(|number| number.to_string());
            [dir.clone(), folders, segments, removed, bytes, empty, holds, errors]
        }))
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let mut text = format!("older than {days} days\n");
    for row in &cells {
        let first = format!("{:<width$}", row[0], width = width(0));
        let rest =
            row.iter().enumerate().skip(1).map(|(column, cell)| format!("  {cell:>width$}", width = width(column)));
        text.push_str(&rest.fold(first, |line, cell| line + &cell));
        text.push('\n');
    }
    text
}

/// One runtime thread: with the committer's own, the measured best for a pod with a tenth of a CPU.
fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    // A sweep or a probe that hangs in the file system must not keep the process.
    runtime.shutdown_background();
    Ok(result)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn complain(message: &str) {
    // Whoever has closed stderr does not want to know.
    drop(writeln!(io::stderr(), "audit-log: {message}"));
}

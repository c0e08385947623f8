//! `console`: serves the read side over HTTP; what it is made of, in the order in which it starts and stops.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::read::{sources, views};
use super::{Failure, StopSignals, block_on};
use crate::api::tokens::Tokens;
use crate::api::{self, Access, Console};
use crate::app::{self, Signals};
use crate::config::{LogFlags, PORT, SettingError, listen_address, process_environment, tokens};
use crate::http::{Hosts, Limits, Routes, Server};
use crate::reader::filter::Scope;
use crate::reader::listing::Sources;
use crate::reader::view::Views;
use crate::telemetry;

/// How long requests that run may take, once it is to end; streams end at once.
const FINISH_TIME_MAX: Duration = Duration::from_secs(5);

/// The flags of `console`.
#[derive(Debug, clap::Args)]
pub(super) struct ConsoleFlags {
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], PORT + 1)).to_string())]
    listen: String,
    /// Directory with segments, walked; may be repeated [default: /audit]
    #[arg(long = "dir", value_name = "[NAME=]PATH[@WORKSPACE]")]
    dirs: Vec<String>,
    /// File with the tokens of those who may ask; without one everybody may, on loopback only
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// File with more views and categories, in YAML
    #[arg(long, value_name = "FILE")]
    views: Option<PathBuf>,
    /// Name by which clients may call this host, beside its addresses; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    allow_hosts: Vec<String>,
    /// Something in front of it does TLS: listen beyond loopback without
    #[arg(long)]
    behind_proxy: bool,
    #[command(flatten)]
    log: LogFlags,
}

/// What `console` works with.
struct Settings {
    address: SocketAddr,
    sources: Sources,
    views: Views,
    hosts: Hosts,
}

impl ConsoleFlags {
    fn settings(&self) -> Result<Settings, Failure> {
        let address = listen_address(&self.listen)?;
        let fault = |name: &str, reason: String| SettingError { name: name.to_owned(), reason };
        let is_open = !address.ip().to_canonical().is_loopback();
        if is_open && self.tokens.is_none() {
            let reason =
                format!("{address} is not a loopback address, and without --tokens everybody could read everything");
            return Err(fault("--listen", reason).into());
        }
        if is_open && !self.behind_proxy {
            let reason = format!(
                "{address} is not a loopback address: tokens would cross the network in the clear; give --behind-proxy if a proxy in front of it does TLS"
            );
            return Err(fault("--listen", reason).into());
        }
        for name in &self.allow_hosts {
            let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_');
            if name.is_empty() || !name.chars().all(is_part) {
                return Err(fault("--allow-host", "must be the name of a host, without a port".to_owned()).into());
            }
        }
        let hosts = if is_open || !self.allow_hosts.is_empty() {
            Hosts::Named(self.allow_hosts.clone().into())
        } else {
            Hosts::Loopback
        };
        Ok(Settings { address, sources: sources(&self.dirs)?, views: views(self.views.as_deref())?, hosts })
    }
}

/// Serves until it is told to stop.
pub(super) fn console(flags: &ConsoleFlags) -> Result<ExitCode, Failure> {
    let settings = flags.settings()?;
    let watched = flags.tokens.as_ref().map(|file| tokens::Watch::new(file)).transpose();
    let watched = watched.map_err(|error| Failure::Usage(format!("--tokens: {error}")))?;
    telemetry::start(&flags.log.settings(&process_environment)?);
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = app::limits(files_max);
    block_on(async {
        let signals = StopSignals::new()?;
        let address = settings.address;
        let listener =
            app::bind_socket(address).await.with_context(|| format!("--listen: cannot listen on {address}"))?;
        run(settings, watched, listener, limits, signals).await
    })??;
    Ok(ExitCode::SUCCESS)
}

async fn run(
    settings: Settings,
    watched: Option<(tokens::Watch, watch::Receiver<Arc<Tokens>>)>,
    listener: tokio::net::TcpListener,
    limits: Limits,
    mut signals: impl Signals,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let access = match watched {
        None => {
            warn!("without --tokens everybody on this host may read everything");
            Access::Open
        }
        Some((watch, tokens)) => {
            warn_of_claims(&settings.sources, &tokens.borrow());
            tasks.spawn(watch.run());
            Access::Tokens(tokens)
        }
    };
    let (end_streams, ending) = watch::channel(false);
    let process = u64::from_ne_bytes(app::random_bytes()?);
    let console = Arc::new(Console::new((settings.sources, settings.views), access, settings.hosts, process, ending));
    let routes = Routes::reading(api::router(Arc::clone(&console)));
    let connections = IntGauge::new("connections", "Open connections.").context("cannot count connections")?;
    let server = Server::new(routes, limits, connections);
    info!(address = %listener.local_addr().context("the listener has no address")?, "listening");
    // The first request need not wait for it, if it comes late enough.
    tokio::task::spawn_blocking(move || console.walk());
    let looking = server.clone();
    tasks.spawn(async move { looking.look_after().await });
    let accepting = server.clone();
    tasks.spawn(async move { accepting.accept(listener).await });
    signals.next().await;
    info!("stopping");
    end_streams.send_replace(true);
    tokio::select! {
        () = server.end(FINISH_TIME_MAX) => info!("stopped"),
        () = tokio::time::sleep(2 * FINISH_TIME_MAX) => info!("stopped, though a request was still running"),
        () = signals.next() => info!("told to stop twice, not waiting"),
    }
    tasks.abort_all();
    Ok(())
}

/// Whoever can write to a folder of a directory without `@WORKSPACE` can claim any workspace there.
fn warn_of_claims(sources: &Sources, tokens: &Tokens) {
    let is_limited = tokens.0.iter().any(|token| token.scope != Scope::All);
    for source in sources.as_slice().iter().filter(|source| is_limited && source.workspace.is_none()) {
        let directory = source.path.display();
        warn!(%directory, "tokens are for workspaces, but lines here may claim any: name the directory's own as PATH@WORKSPACE");
    }
}

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
use crate::config::{LogFlags, PORT, SettingError, certificate, listen_address, process_environment, tokens};
use crate::http::{Hosts, Identity, Limits, Routes, Server, Tls};
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
    /// File with the certificate to serve with, and its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// File with the certificate's key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
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
        if is_open && !self.behind_proxy && self.tls_cert.is_none() {
            let reason = format!(
                "{address} is not a loopback address: tokens would cross the network in the clear; give --tls-cert and --tls-key, or --behind-proxy if a proxy in front of it does TLS"
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
    let certificate = flags.tls_cert.as_ref().zip(flags.tls_key.as_ref());
    let certificate = certificate.map(|(certificate, key)| certificate::Watch::new(certificate, key)).transpose();
    let certificate = certificate.map_err(|error| Failure::Usage(format!("--tls-cert, --tls-key: {error}")))?;
    telemetry::start(&flags.log.settings(&process_environment)?);
    let files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limits = app::limits(files_max);
    block_on(async {
        let signals = StopSignals::new()?;
        let address = settings.address;
        let listener =
            app::bind_socket(address).await.with_context(|| format!("--listen: cannot listen on {address}"))?;
        run(settings, Watched { tokens: watched, certificate }, listener, limits, signals).await
    })??;
    Ok(ExitCode::SUCCESS)
}

/// Files that are read again when they change.
struct Watched {
    tokens: Option<(tokens::Watch, watch::Receiver<Arc<Tokens>>)>,
    certificate: Option<(certificate::Watch, watch::Receiver<Identity>)>,
}

async fn run(
    settings: Settings,
    watched: Watched,
    listener: tokio::net::TcpListener,
    limits: Limits,
    mut signals: impl Signals,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let access = match watched.tokens {
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
    let mut server = Server::new(routes, limits, connections);
    if let Some((watch, identity)) = watched.certificate {
        tasks.spawn(watch.run());
        server = server.encrypted(Tls(identity));
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        flags: ConsoleFlags,
    }

    /// The hosts that requests may name, or why there is nothing to serve.
    fn hosts(args: &[&str]) -> Result<Hosts, String> {
        let flags = Flags::try_parse_from([&["console"], args].concat()).map_err(|error| error.to_string())?.flags;
        match flags.settings() {
            Ok(settings) => Ok(settings.hosts),
            Err(Failure::Usage(reason)) => Err(reason),
            Err(Failure::Other(error)) => Err(error.to_string()),
        }
    }

    #[test]
    fn beyond_loopback_it_wants_tokens_and_that_they_are_encrypted() {
        let named = |names: &[&str]| Ok(Hosts::Named(names.iter().map(|name| (*name).to_owned()).collect()));
        let open = ["--listen", "10.0.0.1:48292", "--tokens", "t"];
        assert_eq!(hosts(&[]), Ok(Hosts::Loopback));
        assert_eq!(hosts(&["--listen", "[::1]:1"]), Ok(Hosts::Loopback));
        assert_eq!(hosts(&["--allow-host", "a.example"]), named(&["a.example"]));
        assert_eq!(hosts(&[&open[..], &["--behind-proxy"]].concat()), named(&[]));
        assert_eq!(hosts(&[&open[..], &["--tls-cert", "c", "--tls-key", "k"]].concat()), named(&[]));
        for bad in [
            &open[..],
            &["--listen", "10.0.0.1:48292", "--behind-proxy"],
            &["--listen", "10.0.0.1:48292", "--tls-cert", "c", "--tls-key", "k"],
            &["--tls-cert", "c"],
            &["--tls-key", "k"],
            &["--allow-host", ""],
        ] {
            assert!(hosts(bad).is_err(), "{bad:?}");
        }
    }
}

//! Settings: from flags, the environment and the configuration file to what each part of the program is given.
//!
//! A flag beats its environment variable, which beats the default. An environment variable that is set but empty
//! counts as not set. Everything is checked here, before any port or file is opened; the fault of a setting names the
//! flag or the variable that it came from.

pub mod certificate;
pub mod file;
pub mod reload;
pub mod tokens;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::http::Hosts;
use crate::record::Identity;

/// The port that jobs are told to send to. It is UCloud's.
pub const PORT: u16 = 48291;

/// A flag or variable has a value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct SettingError {
    /// The flag or variable.
    pub name: String,
    /// What is wrong with its value.
    pub reason: String,
}

/// Where a value came from, for messages.
#[derive(Debug, Clone)]
struct Given {
    name: String,
    value: String,
}

impl Given {
    fn error(&self, reason: impl Into<String>) -> SettingError {
        SettingError { name: self.name.clone(), reason: reason.into() }
    }
}

/// The process's environment, or a test's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's environment.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The flags of `serve`, as they were given.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
pub struct ServeFlags {
    /// Address to listen on; may be repeated [env: AUDIT_LOG_LISTEN, comma-separated] [default: port 48291 of 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<String>,
    /// Listen on, and answer to, addresses that are not loopback
    #[arg(long)]
    pub allow_non_loopback: bool,
    /// Address for /metrics, /healthz and /readyz alone [env: AUDIT_LOG_METRICS_LISTEN] [default: off]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// Directory for the segments; it must exist [env: AUDIT_LOG_DIR] [default: /audit]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<String>,
    /// Create the directory if it does not exist
    #[arg(long)]
    pub create_dir: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the command's own help")]
    pub retention: RetentionFlags,
    /// The job's id, in every line [env: UCLOUD_JOB_ID] (required)
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// The workspace's id, in every line [env: UCLOUD_WORKSPACE_ID, or else AUDIT_LOG_NAMESPACE] (required)
    #[arg(long, value_name = "ID")]
    pub workspace_id: Option<String>,
    /// The job's rank, in every segment's name [env: UCLOUD_RANK] [default: 0]
    #[arg(long, value_name = "N")]
    pub rank: Option<String>,
    /// Mode of new segments, less the umask [env: AUDIT_LOG_FILE_MODE] [default: 0640]
    #[arg(long, value_name = "MODE")]
    pub file_mode: Option<String>,
    /// On SIGTERM, wait for this long without an event [env: AUDIT_LOG_DRAIN_QUIET] [default: 300ms]
    #[arg(long, value_name = "TIME")]
    pub drain_quiet: Option<String>,
    /// On SIGTERM, wait no longer than this [env: AUDIT_LOG_DRAIN_MAX] [default: 20s]
    #[arg(long, value_name = "TIME")]
    pub drain_max: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the command's own help")]
    pub log: LogFlags,
}

/// The flags that say where the retention period stands and how short it may be.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
pub struct RetentionFlags {
    /// Configuration file with the retention period [env: AUDIT_LOG_CONFIG] [default: /etc/cloud/config.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// The shortest retention period that is accepted [env: AUDIT_LOG_RETENTION_FLOOR] [default: 1]
    #[arg(long, value_name = "DAYS")]
    pub retention_floor: Option<String>,
}

/// The flags of the log.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
pub struct LogFlags {
    /// Format of the log on stderr: text or json [env: AUDIT_LOG_FORMAT] [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What `serve` works with.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Addresses to listen on.
    pub listen: Vec<Listen>,
    /// The hosts that requests may name.
    pub hosts: Hosts,
    /// Address for the probes and metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// The audit directory.
    pub dir: PathBuf,
    /// Create it.
    pub create_dir: bool,
    /// Where the retention period stands.
    pub retention: RetentionSettings,
    /// Who the sidecar speaks for.
    pub identity: Identity,
    /// Mode of new segments.
    pub file_mode: u32,
    /// Quiet time that ends a drain.
    pub drain_quiet: Duration,
    /// Time that ends a drain in any case.
    pub drain_max: Duration,
}

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: SocketAddr,
    /// Fail if the host does not have it.
    pub required: bool,
}

/// Where the retention period stands, and how short it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// The configuration file.
    pub config: PathBuf,
    /// The shortest period in days.
    pub floor_days: u32,
}

/// The log's format and levels.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// JSON rather than text; `None` leaves it to whether stderr is a terminal.
    pub json: Option<bool>,
    /// Levels by target.
    pub filter: tracing_subscriber::filter::Targets,
}

/// The longest time that can be set; Kubernetes' own limits are far below.
const TIME_MAX: Duration = Duration::from_hours(1);

impl ServeFlags {
    /// Checks everything that `serve` is given. `ucloud_port` is that of the UCloud alias, which also drains longer.
    ///
    /// # Errors
    /// The first setting that can't be used.
    pub fn settings(&self, env: Environment<'_>, ucloud_port: Option<u16>) -> Result<ServeSettings, SettingError> {
        let listen = match (ucloud_port, self.listen.as_slice()) {
            (Some(port), []) => default_listen(port),
            (_, []) => match variable(env, "AUDIT_LOG_LISTEN")? {
                None => default_listen(PORT),
                Some(given) => listen_addresses(&given)?,
            },
            (_, flags) => {
                let mut addresses = Vec::new();
                for value in flags {
                    addresses.extend(listen_addresses(&Given { name: "--listen".to_owned(), value: value.clone() })?);
                }
                addresses
            }
        };
        if !self.allow_non_loopback
            && let Some(open) = listen.iter().find(|listen| !listen.address.ip().to_canonical().is_loopback())
        {
            let name = if self.listen.is_empty() { "AUDIT_LOG_LISTEN" } else { "--listen" };
            return Err(SettingError {
                name: name.to_owned(),
                reason: format!("{} is not a loopback address; give --allow-non-loopback if it must be", open.address),
            });
        }
        let job_id = required(self.job_id.as_ref(), "--job-id", env, &["UCLOUD_JOB_ID"])?;
        // A pod's annotation that is not there makes an empty variable; its namespace always is.
        let workspace_variables = ["UCLOUD_WORKSPACE_ID", "AUDIT_LOG_NAMESPACE"];
        let workspace_id = required(self.workspace_id.as_ref(), "--workspace-id", env, &workspace_variables)?;
        for id in [&job_id, &workspace_id] {
            Identity::check_id(&id.value).map_err(|error| id.error(error.to_string()))?;
        }
        let rank = match given(self.rank.as_ref(), "--rank", env, "UCLOUD_RANK")? {
            Some(given) if !given.value.is_empty() => number(&given, 0, u32::MAX)?,
            _ => 0,
        };
        let identity =
            Identity::new(&job_id.value, &workspace_id.value, rank).map_err(|error| job_id.error(error.to_string()))?;
        let metrics_listen = given(self.metrics_listen.as_ref(), "--metrics-listen", env, "AUDIT_LOG_METRICS_LISTEN")?
            .map(|given| address(&given, &given.value))
            .transpose()?;
        let file_mode = match given(self.file_mode.as_ref(), "--file-mode", env, "AUDIT_LOG_FILE_MODE")? {
            None => 0o640,
            Some(given) => u32::from_str_radix(&given.value, 8)
                .ok()
                .filter(|mode| *mode <= 0o777 && given.value.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| given.error("must be an octal file mode from 0 to 0777"))?,
        };
        let quiet = if ucloud_port.is_some() { Duration::from_secs(5) } else { Duration::from_millis(300) };
        Ok(ServeSettings {
            listen,
            hosts: if self.allow_non_loopback { Hosts::AnyAddress } else { Hosts::Loopback },
            metrics_listen,
            dir: path(self.dir.as_ref(), "--dir", env, "AUDIT_LOG_DIR", "/audit")?,
            create_dir: self.create_dir,
            retention: self.retention.settings(env)?,
            identity,
            file_mode,
            drain_quiet: duration(self.drain_quiet.as_ref(), "--drain-quiet", env, "AUDIT_LOG_DRAIN_QUIET", quiet)?,
            drain_max: duration(
                self.drain_max.as_ref(),
                "--drain-max",
                env,
                "AUDIT_LOG_DRAIN_MAX",
                Duration::from_secs(20),
            )?,
        })
    }
}

impl RetentionFlags {
    /// Checks the flags.
    ///
    /// # Errors
    /// The floor is no number of days.
    pub fn settings(&self, env: Environment<'_>) -> Result<RetentionSettings, SettingError> {
        let floor_days =
            match given(self.retention_floor.as_ref(), "--retention-floor", env, "AUDIT_LOG_RETENTION_FLOOR")? {
                None => 1,
                Some(given) => number(&given, 1, file::RETENTION_DAYS_MAX)?,
            };
        let config = path(self.config.as_ref(), "--config", env, "AUDIT_LOG_CONFIG", "/etc/cloud/config.yaml")?;
        Ok(RetentionSettings { config, floor_days })
    }
}

impl LogFlags {
    /// Checks the flags and `RUST_LOG`.
    ///
    /// # Errors
    /// An unknown format, or levels that can't be parsed.
    pub fn settings(&self, env: Environment<'_>) -> Result<LogSettings, SettingError> {
        let json = match given(self.log_format.as_ref(), "--log-format", env, "AUDIT_LOG_FORMAT")? {
            None => None,
            Some(given) => match given.value.as_str() {
                "json" => Some(true),
                "text" => Some(false),
                _ => return Err(given.error("must be `text` or `json`")),
            },
        };
        let filter = match variable(env, "RUST_LOG")? {
            None => tracing_subscriber::filter::Targets::new().with_default(tracing::Level::INFO),
            Some(given) => {
                given.value.parse().map_err(|error| given.error(format!("not a list of levels: {error}")))?
            }
        };
        Ok(LogSettings { json, filter })
    }
}

/// The address that `append`, `run` and `health` find the sidecar at: the first that it listens on.
///
/// # Errors
/// It is no address.
pub fn server_address(flag: Option<&String>, env: Environment<'_>) -> Result<SocketAddr, SettingError> {
    let given = match flag {
        Some(value) => Some(Given { name: "--listen".to_owned(), value: value.clone() }),
        None => variable(env, "AUDIT_LOG_LISTEN")?,
    };
    let Some(given) = given else { return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))) };
    Ok(listen_addresses(&given)?[0].address)
}

/// A time on the command line of a client, such as `30s`.
///
/// # Errors
/// It is no time.
pub fn time(name: &str, value: &str) -> Result<Duration, SettingError> {
    check_time(&Given { name: name.to_owned(), value: value.to_owned() })
}

/// The one address that is listened on.
///
/// # Errors
/// It is no address.
pub fn listen_address(text: &str) -> Result<SocketAddr, SettingError> {
    address(&Given { name: "--listen".to_owned(), value: text.to_owned() }, text)
}

fn default_listen(port: u16) -> Vec<Listen> {
    vec![
        Listen { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), required: true },
        Listen { address: SocketAddr::from((Ipv6Addr::LOCALHOST, port)), required: false },
    ]
}

fn listen_addresses(given: &Given) -> Result<Vec<Listen>, SettingError> {
    given.value.split(',').map(|text| Ok(Listen { address: address(given, text.trim())?, required: true })).collect()
}

fn address(given: &Given, text: &str) -> Result<SocketAddr, SettingError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let reason = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() && host.parse::<IpAddr>().is_ok() => {
            "the port must be a number from 0 to 65535"
        }
        _ => "must be an IP address and a port, such as 127.0.0.1:48291 or [::1]:48291",
    };
    Err(given.error(reason))
}

fn variable(env: Environment<'_>, name: &str) -> Result<Option<Given>, SettingError> {
    let Some(value) = env(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.into_string() {
        Ok(value) => Ok(Some(Given { name: name.to_owned(), value })),
        Err(_) => Err(SettingError { name: name.to_owned(), reason: "is not UTF-8".to_owned() }),
    }
}

fn given(
    flag: Option<&String>,
    flag_name: &str,
    env: Environment<'_>,
    variable_name: &str,
) -> Result<Option<Given>, SettingError> {
    match flag {
        Some(value) => Ok(Some(Given { name: flag_name.to_owned(), value: value.clone() })),
        None => variable(env, variable_name),
    }
}

/// A setting that has no default, from its flag or the first of its variables that is set.
fn required(
    flag: Option<&String>,
    flag_name: &str,
    env: Environment<'_>,
    variable_names: &[&str],
) -> Result<Given, SettingError> {
    for variable_name in variable_names {
        if let Some(given) = given(flag, flag_name, env, variable_name)? {
            return Ok(given);
        }
    }
    let reason = format!("is required; give it, or set {}", variable_names.join(" or "));
    Err(SettingError { name: flag_name.to_owned(), reason })
}

fn path(
    flag: Option<&String>,
    flag_name: &str,
    env: Environment<'_>,
    variable_name: &str,
    default: &str,
) -> Result<PathBuf, SettingError> {
    match given(flag, flag_name, env, variable_name)? {
        None => Ok(default.into()),
        Some(given) if given.value.is_empty() => Err(given.error("is empty")),
        Some(given) => Ok(given.value.into()),
    }
}

fn number(given: &Given, min: u32, max: u32) -> Result<u32, SettingError> {
    let digits = given.value.bytes().all(|byte| byte.is_ascii_digit());
    let number = given.value.parse().ok().filter(|number| digits && (min..=max).contains(number));
    number.ok_or_else(|| given.error(format!("must be a whole number from {min} to {max}")))
}

fn duration(
    flag: Option<&String>,
    flag_name: &str,
    env: Environment<'_>,
    variable_name: &str,
    default: Duration,
) -> Result<Duration, SettingError> {
    match given(flag, flag_name, env, variable_name)? {
        None => Ok(default),
        Some(given) => check_time(&given),
    }
}

fn check_time(given: &Given) -> Result<Duration, SettingError> {
    match parse_duration(&given.value) {
        Some(time) if time <= TIME_MAX => Ok(time),
        Some(_) => Err(given.error(format!("must be at most {}m", TIME_MAX.as_secs() / 60))),
        None => Err(given.error("must be a time such as `300ms`, `5s` or `2m`")),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit].parse().ok()?;
    match &text[unit..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &ServeFlags, env: &[(&str, &str)]) -> Result<ServeSettings, String> {
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        flags.settings(&env, None).map_err(|error| error.to_string())
    }

    fn ids() -> ServeFlags {
        ServeFlags { job_id: Some("j".to_owned()), workspace_id: Some("w".to_owned()), ..ServeFlags::default() }
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let settings = resolve(&ids(), &[]).unwrap();
        assert_eq!(settings.listen, default_listen(48291));
        assert_eq!(settings.metrics_listen, None);
        assert_eq!(settings.dir, PathBuf::from("/audit"));
        assert_eq!(settings.retention.config, PathBuf::from("/etc/cloud/config.yaml"));
        assert_eq!(settings.retention.floor_days, 1);
        assert_eq!(settings.identity.rank(), 0);
        assert_eq!(settings.file_mode, 0o640);
        assert_eq!((settings.drain_quiet, settings.drain_max), (Duration::from_millis(300), Duration::from_secs(20)));
        let ucloud = ids().settings(&|_| None, Some(1234)).unwrap();
        assert_eq!(ucloud.listen, default_listen(1234));
        assert_eq!(ucloud.drain_quiet, Duration::from_secs(5));
    }

    #[test]
    fn a_flag_beats_its_variable_and_an_empty_variable_is_none() {
        let env = [
            ("UCLOUD_JOB_ID", "ej"),
            ("UCLOUD_WORKSPACE_ID", "ew"),
            ("UCLOUD_RANK", "7"),
            ("AUDIT_LOG_DIR", "/e"),
            ("AUDIT_LOG_LISTEN", "127.0.0.1:1, [::1]:2"),
            ("AUDIT_LOG_CONFIG", ""),
            ("AUDIT_LOG_RETENTION_FLOOR", "30"),
            ("AUDIT_LOG_DRAIN_MAX", "2m"),
            ("AUDIT_LOG_FILE_MODE", "600"),
        ];
        let settings = resolve(&ServeFlags::default(), &env).unwrap();
        assert_eq!(settings.identity.rank(), 7);
        assert_eq!(settings.dir, PathBuf::from("/e"));
        assert_eq!(settings.listen.len(), 2);
        assert_eq!(settings.retention.config, PathBuf::from("/etc/cloud/config.yaml"));
        assert_eq!(settings.retention.floor_days, 30);
        assert_eq!(settings.drain_max, Duration::from_mins(2));
        assert_eq!(settings.file_mode, 0o600);
        let flags = ServeFlags { rank: Some("4294967295".to_owned()), dir: Some("/f".to_owned()), ..ids() };
        let settings = resolve(&flags, &env).unwrap();
        assert_eq!((settings.identity.rank(), settings.dir), (u32::MAX, PathBuf::from("/f")));
        assert_eq!(
            resolve(
                &ServeFlags::default(),
                &[("UCLOUD_JOB_ID", "j"), ("UCLOUD_WORKSPACE_ID", "w"), ("UCLOUD_RANK", "")]
            )
            .unwrap()
            .identity
            .rank(),
            0
        );
    }

    #[test]
    fn the_workspace_is_the_namespace_where_none_is_named() {
        let workspace = |named: &str| {
            let flags = ServeFlags { workspace_id: None, ..ids() };
            let env = [("UCLOUD_WORKSPACE_ID", named), ("AUDIT_LOG_NAMESPACE", "ns")];
            resolve(&flags, &env).unwrap().identity
        };
        let of = |workspace: &str| Identity::new("j", workspace, 0).unwrap();
        assert_eq!(workspace("named"), of("named"));
        assert_eq!(workspace(""), of("ns"));
    }

    #[test]
    fn a_bad_setting_names_its_flag_or_variable() {
        type Case = (ServeFlags, &'static [(&'static str, &'static str)], &'static str);
        let mut cases: Vec<Case> = vec![
            (ServeFlags::default(), &[], "--job-id: is required; give it, or set UCLOUD_JOB_ID"),
            (
                ServeFlags { workspace_id: None, ..ids() },
                &[("UCLOUD_WORKSPACE_ID", ""), ("AUDIT_LOG_NAMESPACE", "")],
                "--workspace-id: is required; give it, or set UCLOUD_WORKSPACE_ID or AUDIT_LOG_NAMESPACE",
            ),
            (
                ServeFlags { workspace_id: None, ..ids() },
                &[("AUDIT_LOG_NAMESPACE", "a\u{85}")],
                "AUDIT_LOG_NAMESPACE: holds a control",
            ),
            (ServeFlags { job_id: Some(String::new()), ..ids() }, &[], "--job-id: is empty"),
            (ServeFlags { job_id: Some("a\nb".to_owned()), ..ids() }, &[], "--job-id: holds a control character"),
            (ServeFlags { job_id: None, ..ids() }, &[("UCLOUD_JOB_ID", "a\u{85}")], "UCLOUD_JOB_ID: holds a control"),
            (ids(), &[("AUDIT_LOG_LISTEN", "10.0.0.1:80")], "AUDIT_LOG_LISTEN: 10.0.0.1:80 is not a loopback address"),
            (ids(), &[("UCLOUD_RANK", "4294967296")], "UCLOUD_RANK: must be a whole number from 0 to 4294967295"),
            (ids(), &[("AUDIT_LOG_DIR", ""), ("AUDIT_LOG_FILE_MODE", "9")], "AUDIT_LOG_FILE_MODE: must be an octal"),
        ];
        for rank in ["-1", "+1", "1.0", "x", "0x1", " 1"] {
            cases.push((ServeFlags { rank: Some(rank.to_owned()), ..ids() }, &[], "--rank: must be a whole number"));
        }
        for listen in ["localhost:1", "127.0.0.1", "127.0.0.1:", "::1:80x", "a,b", "127.0.0.1:1,"] {
            cases.push((ServeFlags { listen: vec![listen.to_owned()], ..ids() }, &[], "--listen: "));
        }
        cases.push((
            ServeFlags { listen: vec!["127.0.0.1:65536".to_owned()], ..ids() },
            &[],
            "--listen: the port must",
        ));
        for mode in ["1000", "0o640", "u=rw", "-1", "+640"] {
            cases.push((ServeFlags { file_mode: Some(mode.to_owned()), ..ids() }, &[], "--file-mode: "));
        }
        for time in ["", "5", "5h", "-1s", "1.5s", "s", "61m", "99999999999999999999s"] {
            cases.push((ServeFlags { drain_quiet: Some(time.to_owned()), ..ids() }, &[], "--drain-quiet: must be"));
        }
        for floor in ["0", "36501", "x"] {
            let retention = RetentionFlags { retention_floor: Some(floor.to_owned()), ..RetentionFlags::default() };
            cases.push((ServeFlags { retention, ..ids() }, &[], "--retention-floor: must be a whole number"));
        }
        for (flags, env, expected) in cases {
            let error = resolve(&flags, env).expect_err(expected);
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
        let open = ServeFlags { listen: vec!["0.0.0.0:1".to_owned()], allow_non_loopback: true, ..ids() };
        assert_eq!(resolve(&open, &[]).unwrap().hosts, Hosts::AnyAddress);
    }
}

//! `audit-log append`: for shell scripts in the job.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{PostError, post};
use crate::config::SettingError;

/// The flags of `append`.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these are the help texts")]
pub struct AppendFlags {
    /// The event's name, 1 to 256 bytes
    pub event: String,
    /// A message
    #[arg(allow_hyphen_values = true)]
    pub message: Option<String>,
    /// Any JSON value
    #[arg(long, value_name = "JSON", conflicts_with_all = ["meta_file", "field"])]
    pub meta: Option<String>,
    /// A file with a JSON value; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "field")]
    pub meta_file: Option<String>,
    /// A member of meta, as a string; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub field: Vec<String>,
    /// How long to try
    #[arg(long, value_name = "TIME", default_value = "45s")]
    pub timeout: String,
    /// The sidecar's address [env: AUDIT_LOG_LISTEN] [default: 127.0.0.1:48291]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<String>,
}

/// The body of a request.
#[derive(Serialize)]
struct Body<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

/// An event that is ready to be sent.
#[derive(Debug)]
pub struct Prepared(Bytes);

impl AppendFlags {
    /// Makes the request's body. The bytes of `--meta` and `--meta-file` are kept.
    ///
    /// # Errors
    /// A flag's value is not JSON or can't be read.
    pub fn prepare(&self) -> Result<Prepared, SettingError> {
        let fault = |name: &str, reason: String| SettingError { name: name.to_owned(), reason };
        let json = |name: &str, text: String| {
            RawValue::from_string(text).map(Some).map_err(|error| fault(name, format!("not JSON: {error}")))
        };
        let meta = match (&self.meta, &self.meta_file) {
            (Some(text), _) => json("--meta", text.clone())?,
            (None, Some(file)) => {
                let read = if file == "-" { read_input() } else { read_file(file) };
                json("--meta-file", read.map_err(|error| fault("--meta-file", format!("{file}: {error}")))?)?
            }
            (None, None) if self.field.is_empty() => None,
            (None, None) => {
                let mut members = serde_json::Map::new();
                for field in &self.field {
                    let (key, value) =
                        field.split_once('=').ok_or_else(|| fault("--field", "must be KEY=VALUE".to_owned()))?;
                    if members.insert(key.to_owned(), value.into()).is_some() {
                        return Err(fault("--field", format!("`{key}` is given twice")));
                    }
                }
                json("--field", serde_json::Value::Object(members).to_string())?
            }
        };
        Ok(Prepared(body(&self.event, self.message.as_deref(), meta.as_deref())))
    }
}

/// The body of an event.
pub(super) fn body(event: &str, message: Option<&str>, meta: Option<&RawValue>) -> Bytes {
    serde_json::to_vec(&Body { event, message, meta }).expect("strings and JSON can be written").into()
}

/// Posts the event; returns the sidecar's answer once it is durable.
///
/// # Errors
/// [`PostError`].
pub async fn append(address: SocketAddr, event: Prepared, timeout: Duration) -> Result<String, PostError> {
    let answer = post(address, event.0, timeout).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read_input() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

fn read_file(file: &str) -> std::io::Result<String> {
    let bytes = crate::durable::read_file(file.as_ref(), 8 << 20)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

//! The log: one fact a line on stderr, as text or JSON. No event's content is ever in it.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogSettings;

/// Starts the log. To be called once, before anything is logged.
///
/// # Panics
/// If it is called twice.
pub fn start(settings: &LogSettings) {
    let terminal = std::io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(settings.filter.clone());
    // `log_internal_errors` would report a closed stderr on stderr, and panic.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .log_internal_errors(false);
    if settings.json.unwrap_or(!terminal) {
        registry.with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
    } else {
        registry.with(layer).init();
    }
}

//! What is to be done before a signal ends the process, as it then does at once.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

type CleanUp = Box<dyn Fn() + Send>;

/// Has `clean_up` called when the process is interrupted, terminated or left by its terminal, wherever it is then; the process ends by
/// that signal.
///
/// # Errors
/// The signals can't be caught.
pub(super) fn before_the_end(clean_up: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    static ALL: OnceLock<Mutex<Vec<CleanUp>>> = OnceLock::new();
    let is_first = ALL.get().is_none();
    ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(clean_up));
    if !is_first {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    let wait = move || {
        for signal in signals.forever() {
            for clean_up in &*ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner) {
                clean_up();
            }
            // It does not return for a signal that ends processes.
            emulate_default_handler(signal).expect("these are signals whose default is known");
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).context("cannot start a thread")?;
    Ok(())
}

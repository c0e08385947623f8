//! `/healthz` and `/readyz`, for whoever runs the console.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tracing::warn;

use super::{Console, answer};
use crate::durable::Folder;
use crate::http::{Code, Problem};

/// The process answers.
pub(super) async fn healthz() -> Response {
    answer::small(&serde_json::json!({ "alive": true }))
}

/// The directories can be read.
pub(super) async fn readyz(State(console): State<Arc<Console>>) -> Result<Response, Problem> {
    let looking = tokio::task::spawn_blocking(move || -> Result<(), &'static str> {
        // One at a time, so that a file system that hangs holds one thread.
        let _turn = console.probing.try_lock().map_err(|_| "a directory does not answer")?;
        for source in console.library.sources().as_slice() {
            Folder::open(&source.path).map_err(|error| {
                warn!(directory = %source.path.display(), %error, "not ready");
                "a directory can't be read; the log says which"
            })?;
        }
        Ok(())
    });
    match looking.await.expect("a probe does not panic") {
        Ok(()) => Ok(answer::small(&serde_json::json!({ "ready": true }))),
        Err(reason) => Err(Problem::new(Code::NotReady, reason)),
    }
}

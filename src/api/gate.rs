//! How much is done at once: searches take turns, and what waits for slow readers has its own room.
//!
//! Memory, over all requests: [`SEARCHES_MAX`] × [`SEARCH_BYTES_MAX`] for searches; what is left of a search once it has found all,
//! some 2 MiB, for each of [`EXPORTS_MAX`] exports; and [`ANSWERS_BYTES_MAX`] for answers that are being sent: 58 MiB.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::{Budget, Code, Problem, Reserved};

/// Searches at once.
const SEARCHES_MAX: usize = 2;
/// Exports at once. They wait for those who take them, so they have places of their own once they have found all.
const EXPORTS_MAX: usize = 4;
/// What a search may take beside its answer: enough for two threads.
pub(crate) const SEARCH_BYTES_MAX: usize = 21 << 20;
/// Answers that are there as a whole and are being sent.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// Requests that wait for their turn.
const WAITING_MAX: usize = 256;
/// How long each.
const WAIT_TIME_MAX: Duration = Duration::from_secs(10);

/// Lets in as many as there is room for.
#[derive(Debug)]
pub(crate) struct Gate {
    searches: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    waiting: Semaphore,
    answers: Budget,
}

/// A place; it is free again when this is dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
            answers: Budget::new(ANSWERS_BYTES_MAX),
        }
    }

    /// Waits for a place to search.
    ///
    /// # Errors
    /// 503 `overloaded`: too many wait, or none came free in time.
    pub(crate) async fn search(&self) -> Result<Turn, Problem> {
        self.wait(&self.searches).await
    }

    /// Waits for a place to export.
    ///
    /// # Errors
    /// As [`Gate::search`].
    pub(crate) async fn export(&self) -> Result<Turn, Problem> {
        self.wait(&self.exports).await
    }

    async fn wait(&self, places: &Arc<Semaphore>) -> Result<Turn, Problem> {
        if let Ok(turn) = Arc::clone(places).try_acquire_owned() {
            return Ok(turn);
        }
        let busy = |detail| Problem::new(Code::Overloaded, detail);
        let _waiting = self.waiting.try_acquire().map_err(|_| busy("too many requests wait already; try again"))?;
        match tokio::time::timeout(WAIT_TIME_MAX, Arc::clone(places).acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("nobody closes it")),
            Err(_) => Err(busy("others took all places for 10 seconds; try again")),
        }
    }

    /// Takes room for an answer of so many bytes until it is sent.
    ///
    /// # Errors
    /// 503 `overloaded`: the answers that are being sent take all of it.
    pub(crate) fn answer(&self, bytes: usize) -> Result<Reserved, Problem> {
        let mut reserved = self.answers.reserve();
        if reserved.grow_to(bytes) {
            return Ok(reserved);
        }
        Err(Problem::new(Code::Overloaded, "the memory for answers is full; try again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_finds_no_place_waits_and_whoever_finds_no_place_to_wait_is_told_so() {
        let gate = Arc::new(Gate::new());
        let mut turns = Vec::new();
        for _ in 0..SEARCHES_MAX {
            turns.push(gate.search().await.unwrap());
        }
        // Exports do not wait for searches.
        drop(gate.export().await.unwrap());
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.search().await.map(drop) })
            })
            .collect();
        while gate.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(gate.search().await.unwrap_err().code, Code::Overloaded);
        drop(turns);
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
        assert!(gate.search().await.is_ok());
    }

    #[test]
    fn answers_share_one_room() {
        let gate = Gate::new();
        let most = gate.answer(ANSWERS_BYTES_MAX).unwrap();
        assert_eq!(gate.answer(1).unwrap_err().code, Code::Overloaded);
        drop(most);
        assert!(gate.answer(1).is_ok());
    }
}

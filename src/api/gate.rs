//! How much is done at once: searches take turns, and what waits for slow readers has its own room.
//!
//! Memory, over all requests: [`SEARCHES_MAX`] × [`SEARCH_BYTES_MAX`] for searches, and 9 MiB for what one of them unpacks; what is left of a
//! search once it has found all, some 3 MiB, for each of [`EXPORTS_MAX`] exports; 8 MiB for the one long record that is being encoded; 96 KiB
//! for each of 32 streams; and [`ANSWERS_BYTES_MAX`] for answers that are there as a whole: 63 MiB.
//!
//! No token has more than half of the places for exports and streams: whoever holds one keeps nobody else out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::caller::Caller;
use crate::http::{Budget, Code, Problem, Reserved};

/// Searches at once.
const SEARCHES_MAX: usize = 2;
/// Exports at once. They wait for those who take them, so they have places of their own once they have found all.
const EXPORTS_MAX: usize = 4;
/// What a search may take beside its answer: enough for two threads.
pub(crate) const SEARCH_BYTES_MAX: usize = 25 << 19;
/// Streams at once.
pub(crate) const STREAMS_MAX: usize = 32;
/// Answers that are there as a whole, while they are made and while they are sent.
const ANSWERS_BYTES_MAX: usize = 6 << 20;
/// Records with longer lines are encoded one at a time.
pub(crate) const LONG_BYTES: usize = 128 << 10;
/// Requests that wait for their turn.
const WAITING_MAX: usize = 256;
/// How long each.
const WAIT_TIME_MAX: Duration = Duration::from_secs(10);

/// Lets in as many as there is room for.
#[derive(Debug)]
pub(crate) struct Gate {
    searches: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    export_shares: Shares,
    stream_shares: Shares,
    waiting: Semaphore,
    answers: Budget,
    /// Held by whoever encodes a long record.
    pub(crate) long: Long,
}

/// A place, and one of those that a token may have; they are free again when this is dropped.
pub(crate) type Turn = Vec<OwnedSemaphorePermit>;

/// Room that an answer takes; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Room(Reserved);

/// Has long records encoded one at a time. Those that wait for their clients are encoded already.
#[derive(Debug, Clone, Default)]
pub(crate) struct Long(Arc<Mutex<()>>);

impl Long {
    /// Does something with a line of so many bytes.
    pub(crate) fn alone<T>(&self, bytes: usize, work: impl FnOnce() -> T) -> T {
        let _alone = (bytes > LONG_BYTES).then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner));
        work()
    }
}

/// The places that each token may have, while it has any.
#[derive(Debug)]
struct Shares {
    places: usize,
    of: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Shares {
    fn new(places: usize) -> Self {
        Self { places, of: Mutex::default() }
    }

    /// Those of a token.
    fn of(&self, token: &str) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, places| places.strong_count() > 0);
        of.get(token).and_then(Weak::upgrade).unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(self.places));
            of.insert(token.to_owned(), Arc::downgrade(&places));
            places
        })
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            export_shares: Shares::new(EXPORTS_MAX / 2),
            stream_shares: Shares::new(STREAMS_MAX / 2),
            waiting: Semaphore::new(WAITING_MAX),
            answers: Budget::new(ANSWERS_BYTES_MAX),
            long: Long::default(),
        }
    }

    /// Waits for a place to search.
    ///
    /// # Errors
    /// 503 `overloaded`: too many wait, or none came free in time.
    pub(crate) async fn search(&self) -> Result<Turn, Problem> {
        self.wait(&[&self.searches]).await
    }

    /// Waits for a place to export.
    ///
    /// # Errors
    /// As [`Gate::search`].
    pub(crate) async fn export(&self, caller: &Caller) -> Result<Turn, Problem> {
        match caller.token() {
            Some(token) => self.wait(&[&self.export_shares.of(token), &self.exports]).await,
            None => self.wait(&[&self.exports]).await,
        }
    }

    /// Takes a place of a token's for a stream; nothing where there are no tokens.
    ///
    /// # Errors
    /// 503 `overloaded`: it has none left.
    pub(crate) fn stream(&self, caller: &Caller) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let Some(token) = caller.token() else { return Ok(None) };
        let place = self.stream_shares.of(token).try_acquire_owned();
        let place =
            place.map_err(|_| Problem::new(Code::Overloaded, "16 streams of this token are open already; try again"));
        place.map(Some)
    }

    /// Waits for one of each of these places.
    async fn wait(&self, places: &[&Arc<Semaphore>]) -> Result<Turn, Problem> {
        let at_once = places.iter().map(|place| Arc::clone(place).try_acquire_owned()).collect();
        if let Ok(turn) = at_once {
            return Ok(turn);
        }
        let busy = |detail| Problem::new(Code::Overloaded, detail);
        let _waiting = self.waiting.try_acquire().map_err(|_| busy("too many requests wait already; try again"))?;
        let all = async {
            let mut turn = Turn::new();
            for place in places {
                turn.push(Arc::clone(place).acquire_owned().await.expect("nobody closes it"));
            }
            turn
        };
        let turn = tokio::time::timeout(WAIT_TIME_MAX, all).await;
        turn.map_err(|_| busy("others took all places for 10 seconds; try again"))
    }

    /// Room for an answer, from its first record until it is sent.
    pub(crate) fn room(&self) -> Room {
        Room(self.answers.reserve())
    }
}

impl Room {
    /// Takes so many bytes in all.
    ///
    /// # Errors
    /// 503 `overloaded`: the answers that are made and sent take all that there is.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        // One that is longer than all of it has it alone.
        if self.0.grow_to(bytes.min(ANSWERS_BYTES_MAX)) {
            return Ok(());
        }
        Err(Problem::new(Code::Overloaded, "the memory for answers is full; try again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_has_half_of_the_places_and_waits_for_its_own() {
        let gate = Gate::new();
        let [ada, bob, anybody] = [Some("ada"), Some("bob"), None].map(Caller::with_token);
        let mut of_ada = Vec::new();
        for _ in 0..EXPORTS_MAX / 2 {
            of_ada.push(gate.export(&ada).await.unwrap());
        }
        let mut third = Box::pin(gate.export(&ada));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut third).await.is_err());
        let others = [gate.export(&bob).await.unwrap(), gate.export(&anybody).await.unwrap()];
        of_ada.pop();
        let third = third.await.unwrap();
        drop((others, third, of_ada));
        assert!(gate.export(&ada).await.is_ok());

        let streams: Vec<_> = (0..STREAMS_MAX / 2).map(|_| gate.stream(&ada).unwrap()).collect();
        assert_eq!(gate.stream(&ada).unwrap_err().code, Code::Overloaded);
        assert!(gate.stream(&bob).unwrap().is_some() && gate.stream(&anybody).unwrap().is_none());
        drop(streams);
        assert!(gate.stream(&ada).is_ok());
        // What nobody has is not remembered.
        gate.stream_shares.of("bob");
        assert_eq!(gate.stream_shares.of.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn whoever_finds_no_place_waits_and_whoever_finds_no_place_to_wait_is_told_so() {
        let gate = Arc::new(Gate::new());
        let mut turns = Vec::new();
        for _ in 0..SEARCHES_MAX {
            turns.push(gate.search().await.unwrap());
        }
        // Exports do not wait for searches.
        drop(gate.export(&Caller::with_token(None)).await.unwrap());
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
        let [mut one, mut other] = [gate.room(), gate.room()];
        one.grow_to(1).unwrap();
        one.grow_to(ANSWERS_BYTES_MAX).unwrap();
        assert_eq!(other.grow_to(1).unwrap_err().code, Code::Overloaded);
        drop(one);
        other.grow_to(2 * ANSWERS_BYTES_MAX).unwrap();
        assert!(gate.room().grow_to(1).is_err());
    }
}

//! A file system in memory that keeps what is written apart from what is synced, and fails where chance says so.
//!
//! Processes see `content` and `names`. A power cut leaves `durable`, `durable_names` and whatever part of the changes
//! since the last sync chance leaves: each is there or not, whatever its neighbours are; a write may be torn at any byte or
//! have left NUL bytes where its data should be; a file may have its name or not.
//!
//! A failed data sync has written some of what it should, and the rest is forgotten: later syncs succeed without it
//! (<https://www.usenix.org/conference/atc20/presentation/rebello>). A failed directory sync has written some, and a
//! later one writes the rest, as a journal does.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::random::Random;
use crate::clock::ManualClock;
use crate::durable::{Directory, FileId, SegmentFile, Stat};

/// A promise of the file system that is broken on purpose, to see that the harness finds the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// The data sync does nothing and succeeds.
    SyncFaked,
    /// The directory's sync does nothing and succeeds.
    DirectorySyncFaked,
    /// A file's length is told as if every write had done what it said.
    LengthFaked,
    /// The data sync is done later, before the next write to the file: answers come first.
    SyncLate,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// What was written is still there.
    Kill,
    /// What was not synced is there or not.
    PowerCut,
}

/// What a call unwinds with when the process is to end in it.
pub(super) struct Ended;

const EINTR: i32 = 4;
const ERRORS: &[i32] = &[
    5,   // EIO
    28,  // ENOSPC
    122, // EDQUOT
    30,  // EROFS
    27,  // EFBIG
    EINTR,
];

#[derive(Debug)]
pub(super) struct State {
    random: Random,
    clock: ManualClock,
    lie: Option<Lie>,
    /// A call fails once in so many times; 0: never.
    pub(super) fails_once_in: usize,
    /// Calls until the process ends in one of them, and how.
    ends_in: Option<(usize, End)>,
    /// Errors that were returned, and other faults, since the beginning.
    pub(super) faults: u64,
    /// Writes that did not do what they said.
    pub(super) lying_writes: u64,
    /// What happened, for whoever has to understand a failure.
    pub(super) trace: Option<Vec<String>>,
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// The length that it should have by what its writes returned.
    claimed: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone)]
struct NameChange {
    name: String,
    /// `None`: removed.
    to: Option<usize>,
}

/// The disk and the directory on it. Clones share it; a process has one.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct File {
    disk: Disk,
    number: usize,
}

impl Disk {
    pub(super) fn new(random: Random, clock: ManualClock, lie: Option<Lie>) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            clock,
            lie,
            fails_once_in: 0,
            ends_in: None,
            faults: 0,
            lying_writes: 0,
            trace: None,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A call that ends the process unwinds with the lock held; nothing is half done then.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a call fails once in so many times; 0: never.
    pub(super) fn fail_once_in(&self, calls: usize) {
        self.lock().fails_once_in = calls;
    }

    /// Ends the process in one of the next calls.
    pub(super) fn end_in(&self, calls: usize, end: End) {
        self.lock().ends_in = Some((calls, end));
    }

    /// How the process ended, if it was to end and did not get that far: how it ends now.
    pub(super) fn take_end(&self) -> Option<End> {
        self.lock().ends_in.take().map(|(_, end)| end)
    }

    /// Forgets what was not synced, as chance has it.
    pub(super) fn cut_power(&self) {
        let state = &mut *self.lock();
        for file in &mut state.files {
            file.lose(&mut state.random);
            file.content.clone_from(&file.durable);
            file.claimed = file.content.len() as u64;
        }
        for change in std::mem::take(&mut state.unsynced_names) {
            if state.random.once_in(2) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names.clone_from(&state.durable_names);
    }

    /// Whether there is such a name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.lock().names.contains_key(name)
    }

    /// Somebody removes a name; whether it was there.
    pub(super) fn delete(&self, name: &str) -> bool {
        let mut state = self.lock();
        let there = state.names.contains_key(name);
        if there {
            state.change_name(name, None);
        }
        there
    }

    /// What a reader finds, name by name.
    pub(super) fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.lock();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[*file].content.clone())).collect()
    }
}

impl State {
    /// Notes what happens, if anybody wants to know.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    /// Begins a call. Returns whether a fault is to happen in it.
    fn call(&mut self, call: &str) -> bool {
        if let Some((left, end)) = &mut self.ends_in {
            if *left == 0 {
                let end = *end;
                self.note(|| format!("    {end:?} before {call}"));
                std::panic::resume_unwind(Box::new(Ended));
            }
            *left -= 1;
        }
        let fault = self.fails_once_in > 0 && self.random.once_in(self.fails_once_in);
        self.note(|| format!("    {call}{}", if fault { ": a fault" } else { "" }));
        if fault {
            self.faults += 1;
            if self.random.once_in(8) {
                // It hangs for a while, and then fails or not.
                self.clock.pass(Duration::from_secs(1 + self.random.next() % 60));
                return self.random.once_in(2);
            }
        }
        fault
    }

    /// As [`State::call`], for a call whose faults have no effect on the disk.
    fn call_or_fail(&mut self, call: &str) -> io::Result<()> {
        if self.call(call) { Err(self.error()) } else { Ok(()) }
    }

    fn error(&mut self) -> io::Error {
        io::Error::from_raw_os_error(self.random.pick(ERRORS))
    }

    /// The process may end right behind what the call did.
    fn done(&mut self) {
        if matches!(self.ends_in, Some((0, _))) && self.random.once_in(2) {
            self.note(|| "    and the end, right behind it".to_owned());
            std::panic::resume_unwind(Box::new(Ended));
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Keeps some of what was not synced, and forgets the rest.
    fn lose(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Cut(_) if random.once_in(2) => change.apply(&mut self.durable),
                Change::Cut(_) => {}
                Change::Write { offset, bytes } => {
                    if let Some(change) = torn(offset, bytes, random) {
                        change.apply(&mut self.durable);
                    }
                }
            }
        }
    }
}

/// What a power cut leaves of a write.
fn torn(offset: usize, mut bytes: Vec<u8>, random: &mut Random) -> Option<Change> {
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 => return None,
        1 => {}
        2 => bytes.truncate(at),
        // The length was written, the data before or behind this byte was not.
        3 => bytes[..at].fill(0),
        _ => bytes[at..].fill(0),
    }
    Some(Change::Write { offset, bytes })
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Cut(len) => content.resize(*len, 0),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self.to {
            Some(file) => names.insert(self.name.clone(), file),
            None => names.remove(&self.name),
        };
    }
}

fn stat(state: &State, number: usize) -> Stat {
    let file = &state.files[number];
    let len = if state.lie == Some(Lie::LengthFaked) { file.claimed } else { file.content.len() as u64 };
    let links = u64::from(state.names.values().any(|named| *named == number));
    Stat { id: FileId { dev: 1, ino: number as u64 }, len, links }
}

impl Directory for Disk {
    type File = File;

    fn ensure(&mut self) -> io::Result<()> {
        self.lock().call_or_fail("ensure")
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut state = self.lock();
        state.call_or_fail("create")?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.files.len();
        state.files.push(Inode::default());
        state.change_name(name, Some(number));
        state.done();
        Ok(File { disk: self.clone(), number })
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        let mut state = self.lock();
        state.call_or_fail("stat a name")?;
        let found = state.names.get(name).copied();
        Ok(found.map(|number| stat(&state, number)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.call("remove");
        // A network file system may have done it, and lost the answer.
        if fault && !state.random.once_in(8) {
            return Err(state.error());
        }
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(name, None);
        if fault {
            return Err(state.error());
        }
        state.done();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.call("sync the directory");
        if state.lie == Some(Lie::DirectorySyncFaked) {
            return Ok(());
        }
        let State { random, durable_names, unsynced_names, .. } = &mut *state;
        let mut kept = Vec::new();
        for change in std::mem::take(unsynced_names) {
            // The changes of one name stay in order.
            let waits = kept.iter().any(|earlier: &NameChange| earlier.name == change.name);
            if waits || (fault && random.once_in(2)) {
                kept.push(change);
            } else {
                change.apply(durable_names);
            }
        }
        *unsynced_names = kept;
        if fault {
            return Err(state.error());
        }
        state.done();
        Ok(())
    }
}

impl State {
    fn change_name(&mut self, name: &str, to: Option<usize>) {
        let change = NameChange { name: name.to_owned(), to };
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn sync_file(&mut self, number: usize) -> io::Result<()> {
        let fault = self.call("sync");
        let State { random, files, lie, .. } = self;
        match lie {
            Some(Lie::SyncFaked) => return Ok(()),
            Some(Lie::SyncLate) if !fault => return Ok(()),
            _ if fault => files[number].lose(random),
            _ => files[number].sync(),
        }
        if fault {
            return Err(self.error());
        }
        self.done();
        Ok(())
    }
}

impl SegmentFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.lock();
        if state.lie == Some(Lie::SyncLate) {
            state.files[self.number].sync();
        }
        let fault = state.call("write");
        let len = bytes.len();
        let (some, claimed) = match fault.then(|| state.random.below(4)) {
            None => (len, len),
            Some(0) => return Err(state.error()),
            Some(1) => {
                let some = state.random.below(len + 1);
                (some, some)
            }
            // It says that it did more than it has, or more than it was asked to.
            Some(2) => (state.random.below(len), len),
            Some(_) => (len, len + 1 + state.random.below(3)),
        };
        state.lying_writes += u64::from(some != claimed);
        state.note(|| format!("      {some} of {len} bytes, {claimed} claimed"));
        let file = &mut state.files[self.number];
        let offset = file.content.len();
        file.change(Change::Write { offset, bytes: bytes[..some].to_vec() });
        file.claimed += claimed as u64;
        state.done();
        Ok(claimed)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.disk.lock().sync_file(self.number)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.call_or_fail("cut")?;
        let file = &mut state.files[self.number];
        file.change(Change::Cut(usize::try_from(len).expect("a length fits")));
        file.claimed = len;
        state.done();
        state.sync_file(self.number)
    }

    fn stat(&self) -> io::Result<Stat> {
        let mut state = self.disk.lock();
        state.call_or_fail("stat a file")?;
        Ok(stat(&state, self.number))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.call_or_fail("read")?;
        let content = &state.files[self.number].content;
        let rest = content.get(usize::try_from(offset).expect("a length fits")..).unwrap_or_default();
        let some = rest.len().min(buffer.len());
        buffer[..some].copy_from_slice(&rest[..some]);
        Ok(some)
    }
}

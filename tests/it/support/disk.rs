//! A directory that fails where it is told to, in front of the real one.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use audit_log::durable::{AuditDirectory, Directory, SegmentFile, Stat};

/// A call that the writer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Ensure,
    Create,
    Stat,
    Remove,
    SyncDirectory,
    Write,
    SyncData,
    Cut,
}

type Plan = Arc<Mutex<dyn FnMut(Call) -> io::Result<()> + Send>>;

/// The faults to come, and the calls that were made. Clones share them.
#[derive(Clone)]
pub(crate) struct Faults {
    plan: Arc<Mutex<Plan>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Faults {
    pub(crate) fn none() -> Self {
        let plan: Plan = Arc::new(Mutex::new(|_| Ok(())));
        Self { plan: Arc::new(Mutex::new(plan)), calls: Arc::default() }
    }

    /// From now on, `plan` decides on each call; it may take its time.
    pub(crate) fn set(&self, plan: impl FnMut(Call) -> io::Result<()> + Send + 'static) {
        *self.plan.lock().unwrap() = Arc::new(Mutex::new(plan));
    }

    /// The next `count` calls of a kind fail with an error number; others go through.
    pub(crate) fn fail(&self, kind: Call, count: usize, errno: i32) {
        let mut left = count;
        self.set(move |call| {
            if call == kind && left > 0 {
                left -= 1;
                return Err(io::Error::from_raw_os_error(errno));
            }
            Ok(())
        });
    }

    /// Calls of these kinds fail, until told otherwise.
    pub(crate) fn break_calls<const N: usize>(&self, kinds: [Call; N], errno: i32) {
        self.set(move |call| if kinds.contains(&call) { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) });
    }

    pub(crate) fn clear(&self) {
        self.set(|_| Ok(()));
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn at(&self, call: Call) -> io::Result<()> {
        self.calls.lock().unwrap().push(call);
        // A plan that takes its time must not keep the test from setting the next.
        let plan = Arc::clone(&self.plan.lock().unwrap());
        (plan.lock().unwrap())(call)
    }
}

pub(crate) const EIO: i32 = 5;
pub(crate) const EFBIG: i32 = 27;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EROFS: i32 = 30;
pub(crate) const EDQUOT: i32 = 122;

pub(crate) struct FaultyDirectory {
    inner: AuditDirectory,
    faults: Faults,
}

pub(crate) struct FaultyFile {
    inner: File,
    /// The error of a write that has put down a part of its bytes already.
    pending: Option<io::Error>,
    faults: Faults,
}

impl FaultyDirectory {
    pub(crate) fn new(path: &Path, faults: &Faults) -> Self {
        Self { inner: AuditDirectory::open(path, 0o640).unwrap(), faults: faults.clone() }
    }
}

impl Directory for FaultyDirectory {
    type File = FaultyFile;

    fn ensure(&mut self) -> io::Result<()> {
        self.faults.at(Call::Ensure)?;
        self.inner.ensure()
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        self.faults.at(Call::Create)?;
        Ok(FaultyFile { inner: self.inner.create(name)?, pending: None, faults: self.faults.clone() })
    }

    fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        self.faults.at(Call::Stat)?;
        self.inner.stat(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.at(Call::Remove)?;
        self.inner.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.at(Call::SyncDirectory)?;
        self.inner.sync()
    }
}

impl SegmentFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        if let Err(error) = self.faults.at(Call::Write) {
            if error.kind() == io::ErrorKind::Interrupted {
                return Err(error);
            }
            // As a full disk does: a part is written, and the next write fails.
            self.pending = Some(error);
        }
        // Short writes are the rule here.
        let some = bytes.len().div_ceil(2);
        SegmentFile::write(&mut self.inner, &bytes[..some])
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.faults.at(Call::SyncData)?;
        SegmentFile::sync_data(&mut self.inner)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.faults.at(Call::Cut)?;
        self.inner.cut(len)
    }

    fn stat(&self) -> io::Result<Stat> {
        SegmentFile::stat(&self.inner)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        SegmentFile::read_at(&self.inner, buffer, offset)
    }
}

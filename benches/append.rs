//! What a durable append is made of: parsing an event, encoding its line, committing lines.
//!
//! A commit is measured from [`Appender::append`] to the acknowledgement, with the thread that it goes to and back from:
//! once on a directory that does nothing, which leaves our own share, and once on a real one in `target`.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit_log::clock::SystemClock;
use audit_log::durable::{AuditDirectory, Directory, FileId, SegmentFile, Stat};
use audit_log::metrics::Metrics;
use audit_log::record::{Event, Identity};
use audit_log::writer::{self, Appender};
use criterion::{BenchmarkId, Criterion, Throughput};

const BODY: &[u8] = br#"{"event":"DATA_EXPORT","message":"Exported results to CSV","meta":{"path":"/work/output/results.csv","rows":12500}}"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    encode(&mut criterion);
    commit(&mut criterion, "commit, no disk", || Nowhere { len: Arc::default() });
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let temp = tempfile::tempdir_in(target).expect("the build's folder can be written to");
    commit(&mut criterion, "commit", || AuditDirectory::open(temp.path(), 0o640).expect("it was just made"));
    criterion.final_summary();
}

fn event() -> Event<'static> {
    Event::parse(BODY).expect("the documented event is valid")
}

fn identity() -> Identity {
    Identity::new("5003592", "651b3f72-b49d-4ad5-8bbe-4ff2d4889002", 0).expect("both are ordinary")
}

fn parse(criterion: &mut Criterion) {
    criterion.bench_function("parse", |bencher| {
        bencher.iter(|| Event::parse(black_box(BODY)).map(|event| event.name().len()));
    });
}

fn encode(criterion: &mut Criterion) {
    let (identity, event) = (identity(), event());
    let mut line = Vec::with_capacity(1024);
    criterion.bench_function("encode", |bencher| {
        bencher.iter(|| {
            line.clear();
            identity.encode(black_box(&event), &mut line).map(|()| line.len())
        });
    });
}

fn commit<D: Directory>(criterion: &mut Criterion, name: &str, directory: impl Fn() -> D) {
    let mut group = criterion.benchmark_group(name);
    for lines in [1, 16, 256] {
        let events: Vec<_> = (0..lines).map(|_| event()).collect();
        group.throughput(Throughput::Elements(lines.try_into().expect("256 is no more than an u64 holds")));
        group.bench_function(BenchmarkId::from_parameter(lines), |bencher| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let (appender, writer, dispatcher) = writer::spawn(
                directory(),
                identity(),
                Arc::new(SystemClock),
                Arc::new(Metrics::new("bench")),
                writer::Options::default(),
            )
            .expect("a thread");
            runtime.spawn(dispatcher.run());
            bencher.iter(|| runtime.block_on(append(&appender, &events)));
            writer.close();
        });
    }
    group.finish();
}

async fn append(appender: &Appender, events: &[Event<'_>]) -> u64 {
    let receipt = appender.append(events).expect("the queue has room");
    receipt.wait().await.expect("the disk takes it").index
}

/// A directory that takes everything and keeps only how long the one segment is that is in use.
struct Nowhere {
    len: Arc<AtomicU64>,
}

impl Nowhere {
    fn stat(&self) -> Stat {
        Stat { id: FileId { dev: 0, ino: 0 }, len: self.len.load(Ordering::Relaxed), links: 1 }
    }
}

impl Directory for Nowhere {
    type File = Self;

    fn ensure(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, _: &str) -> io::Result<Self> {
        self.len.store(0, Ordering::Relaxed);
        Ok(Self { len: Arc::clone(&self.len) })
    }

    fn stat(&self, _: &str) -> io::Result<Option<Stat>> {
        Ok(Some(self.stat()))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl SegmentFile for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.len.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.stat())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
}

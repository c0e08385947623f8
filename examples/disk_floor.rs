//! The floor of `bench/append.py`: what the disk alone takes to make appended bytes durable.
//!
//! `disk_floor DIR COUNT [BYTES]` appends BYTES (230: a line) to a new file COUNT times, with an fdatasync each, and prints
//! as JSON the microseconds that one append took, and those of CPU time on average. The file is removed.

#![expect(clippy::disallowed_methods, reason = "it measures files, and nothing else")]
#![expect(clippy::print_stdout, reason = "that is its answer")]

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let (dir, count, bytes) = match args.as_slice() {
        [dir, count] => (dir, count.parse()?, 230),
        [dir, count, bytes] => (dir, count.parse()?, bytes.parse()?),
        _ => return Err("usage: disk_floor DIR COUNT [BYTES]".into()),
    };
    let path = Path::new(dir).join("disk_floor");
    let cpu = cpu_seconds();
    let measured = appends(&path, count, bytes);
    let cpu = (cpu_seconds() - cpu) * 1e6 / f64::from(count);
    fs::remove_file(&path)?;
    let mut micros = measured?;
    micros.sort_by(f64::total_cmp);
    let percentile = |percent: usize| micros.get(micros.len() * percent / 100).ok_or("COUNT is 0");
    println!(
        "{{\"bytes\":{bytes},\"count\":{count},\"median\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"cpu\":{cpu:.1}}}",
        percentile(50)?,
        percentile(90)?,
        percentile(99)?
    );
    Ok(())
}

fn appends(path: &Path, count: u32, bytes: usize) -> std::io::Result<Vec<f64>> {
    let line = vec![b'x'; bytes];
    let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
    let mut micros = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&line)?;
        file.sync_data()?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(micros)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::try_from(time).expect("a time since the start").as_secs_f64()
}

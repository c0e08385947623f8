//! Answers that come in parts: written by a thread that blocks, as fast as the client takes them, in constant memory: a long record waits for
//! its client in a temporary file.
//!
//! A search may fail; what is sent can't be taken back. So nothing is sent before the search has found all that it looks for, and what
//! fails later cuts the answer off, which every client notices: an answer that ends as it should is whole.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::Console;
use super::caller::{Caller, Rows};
use super::gate::{LONG_BYTES, Long, Turn};
use super::kept::Kept;
use super::search::{Searched, Stop};
use crate::http::Problem;
use crate::reader::output::Drain;

/// What was looked at for an answer that has no room for it, as a dictionary of RFC 9651.
const AUDIT_SEARCHED: HeaderName = HeaderName::from_static("audit-searched");
/// What is handed to the connection at once.
const PART_BYTES: usize = 64 << 10;
/// Parts that wait for the client.
const PARTS_MAX: usize = 2;

type Part = io::Result<Bytes>;

/// How an answer is labelled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    pub(crate) content_type: &'static str,
    /// The name under which browsers keep it.
    pub(crate) file_name: Option<&'static str>,
}

/// To be begun once the search is over.
pub(crate) struct Answer {
    begun: oneshot::Sender<Result<Searched, Problem>>,
    parts: mpsc::Sender<Part>,
    rows: Rows,
    searching: Turn,
    long: Long,
}

/// Where an answer is written to. Whoever no longer wants it makes it a broken pipe.
pub(crate) struct Out {
    parts: mpsc::Sender<Part>,
    buffer: Vec<u8>,
    /// Without bytes, to be used again for the next row.
    row: Vec<u8>,
    rows: Rows,
    long: Long,
}

impl Answer {
    /// Begins the answer, and makes room for the next search.
    pub(crate) fn begin(self, searched: Searched) -> Out {
        drop(self.searching);
        // Whoever is gone is noticed by the first part.
        drop(self.begun.send(Ok(searched)));
        let (buffer, row) = (Vec::with_capacity(PART_BYTES), Vec::new());
        Out { parts: self.parts, buffer, row, rows: self.rows, long: self.long }
    }

    /// Refuses instead.
    pub(crate) fn refuse(self, problem: Problem) {
        drop(self.begun.send(Err(problem)));
    }
}

impl Out {
    /// Counts a record of the answer.
    pub(crate) fn count_row(&self) {
        self.rows.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes what `encode` makes of a line of so many bytes. A long row is in a temporary file until it has its end: whoever waits for a
    /// client keeps no other long record from being encoded.
    pub(crate) fn write_row(
        &mut self,
        line_bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>, &mut Drain<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut bytes, mut kept) = (mem::take(&mut self.row), Kept::default());
        let mut keep = |bytes: &mut Vec<u8>| kept.take(bytes);
        self.long.alone(line_bytes, || encode(&mut bytes, &mut Drain::new(LONG_BYTES, &mut keep)))?;
        self.write_kept(kept, &mut bytes)?;
        self.row = bytes;
        Ok(())
    }

    /// Writes a value that may be as long as a record, and leaves nothing of it in memory.
    pub(crate) fn write_value(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.write_kept(Kept::default(), bytes)
    }

    fn write_kept(&mut self, mut kept: Kept, bytes: &mut Vec<u8>) -> io::Result<()> {
        if kept.bytes() == 0 && bytes.len() <= LONG_BYTES {
            self.write_all(bytes)?;
            bytes.clear();
            return Ok(());
        }
        kept.take(bytes);
        if let Some(mut file) = kept.end()? {
            io::copy(&mut file, self)?;
        }
        Ok(())
    }

    /// Ends the answer as it should, or cuts it off where it could not be written to its end.
    pub(crate) fn end(mut self, written: io::Result<()>) {
        if let Err(error) = written.and_then(|()| self.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            error!(%error, "answer cut off");
            drop(self.parts.blocking_send(Err(io::ErrorKind::Other.into())));
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.buffer, Vec::with_capacity(PART_BYTES));
        self.parts.blocking_send(Ok(part.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(PART_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..some]);
        if self.buffer.len() == PART_BYTES {
            self.send()?;
        }
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

/// Has an answer searched for and written on a thread of its own; it ends when nobody wants it any more, or the caller may no longer
/// have it.
///
/// # Errors
/// Those of the gate, and with what the search refuses.
pub(crate) async fn answer(
    console: &Console,
    caller: Caller,
    label: Label,
    work: impl FnOnce(&AtomicBool, Answer) + Send + 'static,
) -> Result<Response, Problem> {
    let writing = console.gate.export(&caller).await?;
    let searching = console.gate.search().await?;
    let (begun, begins) = oneshot::channel();
    let (parts, receiver) = mpsc::channel(PARTS_MAX);
    let (rows, stop) = (Rows::default(), Stop::default());
    let answer = Answer { begun, parts, rows: rows.clone(), searching, long: console.gate.long.clone() };
    let is_stopped = Arc::clone(&stop.0);
    tokio::task::spawn_blocking(move || {
        work(&is_stopped, answer);
        drop(writing);
    });
    let searched = begins.await.expect("an answer is begun or refused")?;
    let ended = Box::pin(caller.ended());
    let mut response = Response::new(Body::new(Parts { receiver, ended, _stop: stop }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(label.content_type));
    headers.insert(AUDIT_SEARCHED, searched.header());
    if let Some(name) = label.file_name {
        let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        headers.insert(CONTENT_DISPOSITION, disposition.expect("our names are plain"));
    }
    response.extensions_mut().insert(rows);
    Ok(response)
}

struct Parts {
    receiver: mpsc::Receiver<Part>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    _stop: Stop,
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::PermissionDenied.into())));
        }
        self.receiver.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::field::Place;
    use crate::reader::output::{Columns, Encoder, Layout};
    use crate::reader::record::Record;

    #[test]
    fn a_long_record_is_sent_in_parts_and_not_held() {
        let (parts, mut receiver) = mpsc::channel(100);
        let (rows, long) = (Rows::default(), Long::default());
        let (buffer, row) = (Vec::with_capacity(PART_BYTES), Vec::new());
        let mut out = Out { parts, buffer, row, rows, long };
        let mut all = Vec::new();
        for length in [3, LONG_BYTES, LONG_BYTES + 1, 0, 5 * PART_BYTES + 7, 1] {
            let mut value: Vec<u8> = (0..length).map(|nth| u8::try_from(nth % 251).unwrap()).collect();
            all.extend_from_slice(&value);
            out.write_value(&mut value).unwrap();
            assert!(value.is_empty() && value.capacity() <= LONG_BYTES, "{length}");
        }
        // As many cells as a row can have, each as long as the line.
        let cell = "x".repeat(LONG_BYTES - 1);
        let meta = (0..10).fold(format!("\"{cell}\""), |meta, _| format!("{{\"a\":{meta}}}"));
        let line = format!(
            "{{\"ts\":0,\"jobId\":\"j\",\"workspaceId\":\"w\",\"event\":\"e\",\"message\":\"m\",\"meta\":{meta}}}"
        );
        let columns: Vec<_> = (0..11).map(|depth| format!("meta{}", ".a".repeat(depth))).collect();
        let mut encoder = Encoder::new(Layout::Csv(Columns::parse(&columns.join(",")).unwrap()));
        let (record, place) = (Record::parse(line.as_bytes()).unwrap(), Place { segment: "s", index: 0, rank: 0 });
        let mut held_max = 0;
        let encode = |bytes: &mut Vec<u8>, drain: &mut Drain<'_>| {
            encoder.record_drained(&record, &place, bytes, drain);
            held_max = bytes.capacity();
            Ok(())
        };
        out.write_row(line.len(), encode).unwrap();
        assert!(held_max <= 3 * LONG_BYTES, "{held_max}");
        encoder.record(&record, &place, &mut all);
        assert!(all.len() > 10 * LONG_BYTES);
        out.end(Ok(()));
        let mut sent = Vec::new();
        while let Some(part) = receiver.blocking_recv() {
            let part = part.unwrap();
            assert!(part.len() <= PART_BYTES);
            sent.extend_from_slice(&part);
        }
        assert!(sent == all);
    }
}

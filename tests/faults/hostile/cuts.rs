//! Requests that end too early.

use std::net::Shutdown;

use super::{Attack, CONTROL, Target, event, refused_or_closed, reset, withstood};
use crate::report::Row;
use crate::support::Request;

#[test]
fn a_request_that_is_cut_anywhere_is_neither_recorded_nor_acknowledged() {
    const ROW: Row = Row {
        test: "hostile::cuts::a_request_that_is_cut_anywhere_is_neither_recorded_nor_acknowledged",
        promise: "§2 only a complete request is recorded; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "an event, a chunked event and a batch, cut behind every byte",
        how: "FIN and RST",
        control: CONTROL,
    };
    withstood(&ROW, &[Attack::new("cuts", 2, cut_everywhere)]);
}

fn cut_everywhere(target: &Target<'_>) {
    let chunked = "9\r\n{\"event\":\r\n4\r\n\"a\"}\r\n0\r\n\r\n";
    let requests = [
        event().bytes(),
        Request::post(chunked).header("Transfer-Encoding", "chunked").bytes(),
        Request::batch("{\"event\":\"a\"}\n{\"event\":\"b\"}\n").bytes(),
    ];
    while target.goes_on() {
        for request in &requests {
            (0..=request.len()).for_each(|end| cut(target, request, end));
        }
    }
}

fn cut(target: &Target<'_>, request: &[u8], end: usize) {
    let is_complete = end == request.len();
    target.tried(2);
    let mut finished = target.connect();
    finished.write(&request[..end]);
    finished.stream.shutdown(Shutdown::Write).unwrap();
    match finished.read() {
        Some(response) if is_complete => target.recorded(&response),
        None if is_complete => panic!("a complete request was not answered"),
        response => refused_or_closed(response.as_ref(), &format!("{end} of {} bytes", request.len())),
    }
    assert!(finished.is_closed());

    let mut torn = target.connect();
    torn.write(&request[..end]);
    if is_complete {
        // Two lines at most: the batch's.
        target.may_be_there(2);
    }
    reset(torn);
}

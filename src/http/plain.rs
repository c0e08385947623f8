//! Plain requests: one event, as curl and most HTTP libraries send it, whole in one read.
//!
//! hyper can do all of HTTP, and for that takes as much time as the rest of an append together. What is plain needs little of it,
//! so it is recognized here, by the parser that hyper uses too; whatever is not plain in every respect, were it only an unusual
//! header, is left to hyper as it came. So nothing is refused here, and nothing is accepted that hyper would refuse (a test sends
//! each request both ways).

use super::guard::{self, Hosts};

/// Headers of a plain request at most.
const HEADERS_MAX: usize = 16;
/// Headers that say nothing about how a request is to be read.
const IGNORED: [&str; 4] = ["user-agent", "accept", "accept-encoding", "accept-language"];

/// The body of a plain request, if that is all that there is in `bytes`.
pub(super) fn body<'b>(bytes: &'b [u8], hosts: &Hosts) -> Option<&'b [u8]> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head_length)) = request.parse(bytes) else { return None };
    if (request.method, request.path, request.version) != (Some("POST"), Some("/append"), Some(1)) {
        return None;
    }
    let (mut host, mut length, mut content_type) = (None, None, None);
    for header in request.headers {
        let slot = match header.name {
            name if name.eq_ignore_ascii_case("host") => &mut host,
            name if name.eq_ignore_ascii_case("content-length") => &mut length,
            name if name.eq_ignore_ascii_case("content-type") => &mut content_type,
            name if name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"keep-alive") => {
                continue;
            }
            name if IGNORED.iter().any(|ignored| name.eq_ignore_ascii_case(ignored)) => continue,
            _ => return None,
        };
        if slot.replace(header.value).is_some() {
            return None;
        }
    }
    let body = &bytes[head_length..];
    let is_plain = host.is_some_and(|host| guard::is_allowed(host, hosts))
        && length.and_then(number) == Some(body.len())
        && content_type.is_none_or(is_event);
    is_plain.then_some(body)
}

fn is_event(content_type: &[u8]) -> bool {
    [&b"application/json"[..], b"application/x-www-form-urlencoded"]
        .iter()
        .any(|event| content_type.eq_ignore_ascii_case(event))
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"event":"a"}"#;

    fn request(line: &str, headers: &[&str]) -> Vec<u8> {
        [&[line], headers, &["", BODY]].concat().join("\r\n").into()
    }

    fn is_plain(bytes: &[u8]) -> bool {
        body(bytes, &Hosts::Loopback).inspect(|body| assert_eq!(*body, BODY.as_bytes())).is_some()
    }

    #[test]
    fn what_curl_and_the_libraries_send_is_plain() {
        for headers in [
            // curl -d, curl --json
            &[
                "Host: 127.0.0.1:48291",
                "User-Agent: curl/8.14.1",
                "Accept: */*",
                "Content-Length: 13",
                "Content-Type: application/x-www-form-urlencoded",
            ][..],
            &[
                "Host: localhost:48291",
                "User-Agent: curl/8.14.1",
                "Content-Type: application/json",
                "Accept: application/json",
                "Content-Length: 13",
            ],
            // Go
            &[
                "Host: 127.0.0.1:48291",
                "User-Agent: Go-http-client/1.1",
                "Content-Length: 13",
                "Content-Type: application/json",
                "Accept-Encoding: gzip",
            ],
            // python-requests
            &[
                "Host: 127.0.0.1:48291",
                "User-Agent: python-requests/2.32",
                "Accept-Encoding: gzip, deflate",
                "Accept: */*",
                "Connection: keep-alive",
                "Content-Length: 13",
            ],
            &["host: [::1]:48291", "content-length: 13"],
        ] {
            assert!(is_plain(&request("POST /append HTTP/1.1", headers)), "{headers:?}");
        }
    }

    #[test]
    fn whatever_is_unusual_is_left_to_hyper() {
        let usual = ["Host: localhost", "Content-Length: 13"];
        assert!(is_plain(&request("POST /append HTTP/1.1", &usual)));
        // RFC 9112 §2.2: an empty line before a request is none.
        assert!(is_plain(&request("\r\nPOST /append HTTP/1.1", &usual)));
        for line in [
            "PUT /append HTTP/1.1",
            "POST //append HTTP/1.1",
            "POST /append? HTTP/1.1",
            "POST /append/ HTTP/1.1",
            "POST http://localhost/append HTTP/1.1",
            "POST /append HTTP/1.0",
            "POST  /append HTTP/1.1",
        ] {
            assert!(!is_plain(&request(line, &usual)), "{line:?}");
        }
        for more in [
            "Host: localhost",
            "Content-Length: 13",
            "content-length: 13",
            "Transfer-Encoding: chunked",
            "Content-Encoding: identity",
            "Expect: 100-continue",
            "Connection: close",
            "Connection: upgrade",
            "Origin: http://localhost",
            "Sec-Fetch-Site: none",
            "Content-Type: application/x-ndjson",
            "Content-Type: application/json; charset=utf-8",
            "Trailer: x",
            "X-Whatever: 1",
            "no colon",
            "Accept : x",
            " folded",
        ] {
            assert!(!is_plain(&request("POST /append HTTP/1.1", &[&usual[..], &[more]].concat())), "{more}");
        }
        for headers in [
            &["Host: localhost"][..],
            &["Content-Length: 13"],
            &["Host: example.com", "Content-Length: 13"],
            &["Host: ", "Content-Length: 13"],
            &["Host: localhost", "Content-Length: 12"],
            &["Host: localhost", "Content-Length: 14"],
            &["Host: localhost", "Content-Length: +13"],
            &["Host: localhost", "Content-Length: 13, 13"],
            &["Host: localhost", "Content-Length: 0x0d"],
            &["Host: localhost", "Content-Length: 18446744073709551629"],
            &["Host: localhost", "Content-Length: "],
        ] {
            assert!(!is_plain(&request("POST /append HTTP/1.1", headers)), "{headers:?}");
        }
        // In part, or with something behind it.
        let whole = request("POST /append HTTP/1.1", &usual);
        for length in 0..whole.len() {
            assert!(!is_plain(&whole[..length]), "{length}");
        }
        assert!(!is_plain(&[&whole[..], b"P"].concat()));
    }
}

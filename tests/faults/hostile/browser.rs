//! A page in a browser that tries to write history.

use super::{Attack, Target, event, withstood};
use crate::report::Row;
use crate::support::Request;

#[test]
fn a_page_in_a_browser_writes_no_history() {
    const ROW: Row = Row {
        test: "hostile::browser::a_page_in_a_browser_writes_no_history",
        promise: "§2 forbidden_origin, wrong_host; p99 under 50 ms and memory under 64 MiB meanwhile",
        fault: "fetch, form, preflight, WebSocket and DNS rebinding",
        how: "Origin, Sec-Fetch-Site, Host and absolute targets as browsers send them; no CORS header comes back",
        control: "seen red without the checks of Origin and Host; as for latency and memory, `hostile::a_good_client_that_waits_and_memory_that_grows_are_found`",
    };
    withstood(&ROW, &[Attack::new("browser", 2, browse)]);
}

fn browse(target: &Target<'_>) {
    let from = |site: &str| event().header("Sec-Fetch-Site", site).header("Sec-Fetch-Mode", "no-cors");
    let rebound = |host: &str| event().without_host().header("Host", host);
    let forbidden = [
        event().header("Origin", "https://evil.example").header("Content-Type", "text/plain"),
        event().header("Origin", "null").header("Content-Type", "application/x-www-form-urlencoded"),
        event().header("Origin", "http://127.0.0.1:8888"),
        event().header("Origin", "http://localhost").header("Sec-Fetch-Site", "same-origin"),
        event().header("Origin", ""),
        from("cross-site"),
        from("same-site"),
        from("none, same-origin"),
        from("none").header("Sec-Fetch-Site", "cross-site"),
        Request::new("OPTIONS", "/append")
            .header("Origin", "https://evil.example")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Private-Network", "true"),
        Request::new("GET", "/metrics").header("Sec-Fetch-Site", "cross-site").header("Sec-Fetch-Dest", "image"),
        Request::new("GET", "/append")
            .header("Origin", "https://evil.example")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket"),
    ];
    let elsewhere = [
        rebound("evil.example"),
        rebound("evil.example:48291").header("Sec-Fetch-Site", "same-origin"),
        rebound("127.0.0.1.evil.example"),
        rebound("localhost.evil.example:80"),
        rebound("evil.example@localhost"),
        rebound("localhost@evil.example"),
        rebound("0.0.0.0"),
        rebound("2130706433"),
        rebound("[::ffff:8.8.8.8]"),
        event().to("http://evil.example/append"),
        event().to("http://localhost:80@evil.example/append"),
    ];
    while target.goes_on() {
        for (requests, status, code) in [(&forbidden[..], 403, "forbidden_origin"), (&elsewhere, 421, "wrong_host")] {
            for request in requests {
                target.tried(1);
                let response = target.connect().send(request);
                response.refused_unwritten(status, code);
                let cors = response.headers.keys().find(|name| name.starts_with("access-control-"));
                assert_eq!(cors, None);
            }
        }
    }
}

//! What clients send, and what must not come of it in logs and files.

use std::net::SocketAddr;
use std::process::Child;

use serde_json::Value;

use super::{Attack, Target, refused_or_closed, withstood};
use crate::report::{Row, alone};
use crate::support::{Client, Request, Response, Sidecar, binary, wait_for};

/// What fools line readers, terminals and whoever looks at them, raw.
const TRICKS: [&str; 12] = [
    "\n{\"level\":\"ERROR\",\"message\":\"HOSTILE\"}\n",
    "\r\nHOSTILE",
    "\r",
    "\u{0}",
    "\u{1b}[2J\u{1b}[31m",
    "\u{1b}]0;title\u{7}",
    "\u{8}\u{8}\u{8}",
    "\u{7f}",
    "\u{85}\u{9b}31m",
    "\u{2028}\u{2029}",
    "\u{202e}\u{202d}\u{2066}\u{2069}",
    "\u{b}\u{c}",
];

#[test]
fn what_clients_send_forges_no_line_of_log_or_file() {
    const ROW: Row = Row {
        test: "hostile::injection::what_clients_send_forges_no_line_of_log_or_file",
        promise: "§1 logs: one fact a line, no event's content; §3 one line an event, no raw controls; p99, memory",
        fault: "newlines, ANSI, NUL, other controls and bidi in bodies, paths, methods, headers and hosts",
        how: "raw, escaped and percent-encoded; every line of stderr and of the segments is looked at",
        control: "`hostile::injection::a_forged_line_is_found`",
    };
    withstood(&ROW, &[Attack::new("injection", 2, inject)]);
}

/// As above, with the log that says most, in both of its formats.
#[test]
fn not_even_the_log_that_says_all_repeats_what_clients_send() {
    let _alone = alone();
    for format in ["json", "text"] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        let mut command = binary();
        command.args(["serve", "--listen", "127.0.0.1:0", "--job-id", "j", "--workspace-id", "w"]);
        command.args(["--log-format", format, "--dir"]).arg(temp.path()).env("RUST_LOG", "trace");
        let mut child = Running(command.stderr(std::fs::File::create(&path).unwrap()).spawn().unwrap());
        let log = || std::fs::read_to_string(&path).unwrap();
        let address = wait_for("the address", || address_in(&log()));
        inject_once(&mut |request| {
            let mut client = Client::connect(address);
            client.write(request);
            client.read()
        });
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let log = log();
        assert!(log.lines().count() > 50, "trace says little: {log}");
        assert!(!log.contains("HOSTILE"), "{log}");
        for line in log.lines() {
            assert_eq!(raw_control(line), None, "{line:?}");
            let is_whole = if format == "json" {
                serde_json::from_str::<Value>(line).is_ok()
            } else {
                // It begins with the time.
                line.starts_with("20") && line.contains("Z ")
            };
            assert!(is_whole, "{line:?}");
        }
    }
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The address that a log of either format says that it listens on.
fn address_in(log: &str) -> Option<SocketAddr> {
    let port = log.lines().find(|line| line.contains("listening"))?.split_once("127.0.0.1:")?.1;
    let port = port.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Negative control.
#[test]
fn a_forged_line_is_found() {
    for bad in ["a\u{1b}[31mb", "\u{0}", "x\r", "\u{202e}", "\u{2028}", "\u{9b}"] {
        assert!(raw_control(bad).is_some(), "{bad:?}");
        assert!(forgery(&format!("{{\"event\":\"{bad}\"}}\n"), "").is_some(), "{bad:?}");
    }
    assert!(forgery("", "{\"message\":\"x\"}\nHOSTILE\n").is_some());
    assert!(forgery("", "{\"message\":\"HOSTILE\"}\n").is_some());
    assert!(forgery("", "not json\n").is_some());
    assert_eq!(forgery("{\"event\":\"HOSTILE\\u001b\"}\n", "{\"message\":\"x\"}\n"), None);
}

/// Whatever an attack was: neither the log nor the files hold more than they may.
#[track_caller]
pub(super) fn nothing_was_smuggled(sidecar: &Sidecar) {
    let log = sidecar.log();
    assert_eq!(forgery("", &log), None);
    for bytes in sidecar.segments().values() {
        assert_eq!(forgery(std::str::from_utf8(bytes).unwrap(), ""), None);
    }
}

/// The first line of a segment or of a log that is not what it should be.
fn forgery(segment: &str, log: &str) -> Option<String> {
    let is_log = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object());
    let forged = log.lines().find(|line| !is_log(line) || line.contains("HOSTILE"));
    forged.or_else(|| segment.split('\n').find(|line| raw_control(line).is_some())).map(str::to_owned)
}

/// The first character that the contract wants escaped.
fn raw_control(line: &str) -> Option<char> {
    line.chars().find(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fn inject(target: &Target<'_>) {
    while target.goes_on() {
        let mut accepted = 0;
        inject_once(&mut |request| {
            let (_, response) = target.ask(request);
            if let Some(response) = response.as_ref().filter(|response| response.status == 200) {
                target.recorded(response);
                accepted += 1;
            }
            response
        });
        // The escaped ones at least.
        assert!(accepted >= 3 * TRICKS.len(), "{accepted}");
    }
}

/// Sends every trick in every place, each in a request of its own.
fn inject_once(ask: &mut dyn FnMut(&[u8]) -> Option<Response>) {
    let event = |name: &str, message: &str, key: &str| {
        Request::post(format!(
            "{{\"event\":\"HOSTILE{name}\",\"message\":\"{message}\",\"meta\":{{\"{key}\":\"{key}\"}}}}"
        ))
    };
    let plain = || event("", "", "");
    for trick in TRICKS {
        let escaped = trick.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat();
        for request in [event(&escaped, "", ""), event("", &escaped, ""), event("", "", &escaped)] {
            let response = ask(&request.bytes()).expect("an answer");
            assert_eq!(response.status, 200, "{}", response.text());
        }
        let encoded = trick.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
        for request in [
            event(trick, "", ""),
            event("", trick, ""),
            event("", "", trick),
            plain().to(&format!("/HOSTILE{encoded}")),
            plain().to(&format!("/HOSTILE{trick}")),
            plain().to(&format!("/append?HOSTILE{trick}")),
            plain().header("X-Hostile", &format!("HOSTILE{trick}x")),
            plain().header(&format!("HOSTILE{trick}x"), "x"),
            plain().header("User-Agent", &format!("HOSTILE{trick}")),
            plain().header("Content-Type", &format!("HOSTILE/{trick}x")),
            plain().without_host().header("Host", &format!("HOSTILE{trick}")),
            plain().header("Origin", &format!("HOSTILE{trick}")),
            Request::new(&format!("HOSTILE{trick}"), "/append"),
        ] {
            let response = ask(&request.bytes());
            if response.as_ref().is_none_or(|response| response.status != 200) {
                refused_or_closed(response.as_ref(), &format!("{trick:?}"));
            }
        }
    }
}

//! What is asked of a request before it is routed: who it is for, and that no browser page sent it.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;

use super::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which hosts a request may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// `localhost` and loopback addresses.
    Loopback,
    /// `localhost` and any IP address. A name would allow DNS rebinding.
    AnyAddress,
    /// These names, and what [`Hosts::AnyAddress`] allows.
    Named(Arc<[String]>),
    /// Whatever it says; for the metrics listener, which has nothing to protect.
    Any,
}

/// Checks the host and the origin.
///
/// # Errors
/// 400 `ambiguous_request`, 421 `wrong_host`, 403 `forbidden_origin`, in this order.
pub fn check(parts: &Parts, hosts: &Hosts) -> Result<(), Problem> {
    let mut named = parts.headers.get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host,
        (None, _) => return Err(Problem::new(Code::AmbiguousRequest, "there is no Host header")),
        (Some(_), Some(_)) => return Err(Problem::new(Code::AmbiguousRequest, "there are two Host headers")),
    };
    // An absolute-form target names a host too, and by RFC 9112 §3.2.2 that is the one that counts.
    let target = parts.uri.authority().map(hyper::http::uri::Authority::as_str);
    if !is_allowed(host.as_bytes(), hosts) || target.is_some_and(|target| !is_allowed(target.as_bytes(), hosts)) {
        return Err(Problem::new(Code::WrongHost, wrong_host(hosts)));
    }
    if parts.headers.contains_key(ORIGIN) {
        return Err(Problem::new(Code::ForbiddenOrigin, "the request has an Origin header, as browsers send it"));
    }
    let mut sites = parts.headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| site != "same-origin" && site != "none") {
        return Err(Problem::new(Code::ForbiddenOrigin, "a page of another site sent the request"));
    }
    Ok(())
}

fn wrong_host(hosts: &Hosts) -> &'static str {
    match hosts {
        Hosts::Named(_) => "the Host is neither an IP address nor a name that was allowed by --allow-host",
        _ => "the Host is neither `localhost` nor a loopback address; send to http://127.0.0.1:<port>",
    }
}

/// Whether a Host header, or what stands in its place, names an allowed host.
pub(super) fn is_allowed(host: &[u8], hosts: &Hosts) -> bool {
    if *hosts == Hosts::Any {
        return true;
    }
    let Some(name) = std::str::from_utf8(host).ok().and_then(without_port) else { return false };
    if name == "127.0.0.1" {
        return true;
    }
    let names = if let Hosts::Named(names) = hosts { &names[..] } else { &[] };
    if name.eq_ignore_ascii_case("localhost") || names.iter().any(|allowed| name.eq_ignore_ascii_case(allowed)) {
        return true;
    }
    let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    address.is_some_and(|address| *hosts != Hosts::Loopback || address.to_canonical().is_loopback())
}

/// The host without its port, if the port is one.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.rfind(']').map_or(0, |bracket| bracket + 1) } else { 0 };
    match host[end..].split_once(':') {
        None => Some(host),
        Some((name, port)) => {
            let is_port = port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
            is_port.then_some(&host[..end + name.len()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_localhost_and_loopback_addresses_are_this_host() {
        for host in [
            "localhost",
            "LocalHost:48291",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.255.255.254:65535",
            "127.0.0.1:",
            "[::1]",
            "[::1]:48291",
            "[::ffff:127.0.0.1]:80",
            "[0:0:0:0:0:0:0:1]",
        ] {
            assert!(is_allowed(host.as_bytes(), &Hosts::Loopback), "{host}");
        }
        for host in [
            "",
            "localhost.evil.example",
            "evil.example",
            "evil.example:48291",
            "localhost.",
            "localhost:48291:1",
            "localhost:x",
            "localhost:65536",
            "user@localhost",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "10.0.0.1",
            "[::]",
            "[::2]",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "0x7f.1",
            "127.1",
            "2130706433",
        ] {
            assert!(!is_allowed(host.as_bytes(), &Hosts::Loopback), "{host}");
        }
    }

    #[test]
    fn any_address_is_allowed_where_that_was_asked_for_but_no_name() {
        for (host, allowed) in
            [("10.0.0.1:48291", true), ("[fd00::1]", true), ("localhost", true), ("evil.example", false)]
        {
            assert_eq!(is_allowed(host.as_bytes(), &Hosts::AnyAddress), allowed, "{host}");
        }
    }

    #[test]
    fn a_name_is_allowed_where_it_was_named_and_no_other() {
        let hosts = Hosts::Named(["audit.example".to_owned()].into());
        for (host, allowed) in [
            ("audit.example", true),
            ("Audit.Example:443", true),
            ("10.0.0.1", true),
            ("localhost", true),
            ("audit.example.", false),
            ("x.audit.example", false),
            ("audit.example.evil", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(host.as_bytes(), &hosts), allowed, "{host}");
        }
    }
}

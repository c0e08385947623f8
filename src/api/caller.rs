//! Who asks: looked at before anything else is, and told to the log when the answer has been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::HeaderMap;
use hyper::body::{Frame, SizeHint};
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use tokio::sync::watch;
use tracing::{debug, info};

use super::Console;
use super::app_token;
use super::tokens::{Digest, PREFIX, Token, Tokens};
use crate::clock::{Clock, SystemClock};
use crate::http::{Code, Problem, check_host};
use crate::reader::filter::Scope;
use crate::record::Timestamp;

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// Whoever has no token may ask these.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
/// How long a token that expires is waited for at once: the clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Who may ask.
#[derive(Debug, Clone)]
pub enum Access {
    /// Everybody, for everything: on loopback only.
    Open,
    /// Holders of tokens, by what the file says now.
    Tokens(watch::Receiver<Arc<Tokens>>),
}

/// Whoever has sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The records that exist for them.
    pub(crate) scope: Scope,
    /// The token, and where it is known from; nothing where everybody may ask.
    held: Option<(Token, watch::Receiver<Arc<Tokens>>)>,
}

impl Access {
    /// Until when a token is in force that somebody has by this name, or nothing if it has no end; where everybody may ask, every
    /// token is.
    ///
    /// # Errors
    /// 401 `unauthorized`, whatever is wrong with the name or the token.
    pub(super) fn verify(&self, name: &str, token: &[u8], now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Self::Tokens(tokens) = self else { return Ok(None) };
        let tokens = tokens.borrow();
        let found = tokens.find(&Digest::of(token), now).filter(|found| found.name == name);
        found
            .map(|found| found.expires)
            .ok_or_else(|| Problem::new(Code::Unauthorized, "no token in force has this name and secret"))
    }

    /// Who it is that shows these headers.
    ///
    /// # Errors
    /// 401 `unauthorized`, whatever is wrong with the token.
    fn admit(&self, headers: &HeaderMap, now: Timestamp) -> Result<Caller, Problem> {
        let Self::Tokens(tokens) = self else { return Ok(Caller { scope: Scope::All, held: None }) };
        let refused = || {
            Problem::new(
                Code::Unauthorized,
                "send a token that is in force, as `Authorization: Bearer …` or `X-Auth-Token: …`",
            )
        };
        let digest = Digest::of(app_token::undressed(shown(headers).ok_or_else(refused)?));
        let token = tokens.borrow().find(&digest, now).cloned().ok_or_else(refused)?;
        Ok(Caller { scope: token.scope.clone(), held: Some((token, tokens.clone())) })
    }
}

/// The token that headers show.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(token) = headers.get(X_AUTH_TOKEN) {
        return Some(token.as_bytes());
    }
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

impl Caller {
    /// The name of the token, if there is one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.held.as_ref().map(|(token, _)| token.name.as_str())
    }

    /// The same for the log.
    fn name(&self) -> &str {
        self.token().unwrap_or("-")
    }

    #[cfg(test)]
    pub(crate) fn with_token(name: Option<&str>) -> Self {
        let token = |name: &str| Token {
            name: name.to_owned(),
            digest: Digest::of(name.as_bytes()),
            scope: Scope::All,
            expires: None,
        };
        let held = name.map(|name| (token(name), watch::channel(Arc::default()).1));
        Self { scope: Scope::All, held }
    }

    /// Waits until the token is void: removed, changed or expired.
    pub(crate) async fn ended(mut self) {
        let Some((token, tokens)) = &mut self.held else { return std::future::pending().await };
        loop {
            let now = SystemClock.now();
            if tokens.borrow_and_update().find(&token.digest, now) != Some(&*token) {
                return;
            }
            let left = token.expires.map(|expires| expires.millis().saturating_sub(now.millis()).unsigned_abs());
            let left = left.map_or(LOOK_EVERY, Duration::from_millis).min(LOOK_EVERY);
            tokio::select! {
                changed = tokens.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get().cloned();
        caller.ok_or_else(|| Problem::new(Code::Unauthorized, "nobody has asked"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.of_reading().response(false).map(Body::new)
    }
}

/// How many records an answer holds; streams count on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(pub(crate) Arc<AtomicU64>);

/// Lets a request in, if it may, and sees its answer out.
pub(super) async fn enter(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (mut parts, body) = request.into_parts();
    let is_probe = PROBES.contains(&parts.uri.path());
    let mut told = Told {
        token: "-".to_owned(),
        method: parts.method.to_string(),
        path: masked(parts.uri.path()),
        query: masked(parts.uri.query().unwrap_or_default()),
        status: CLIENT_GONE,
        rows: Rows::default(),
        bytes: 0,
        began,
        is_probe,
    };
    let admitted =
        check_host(&parts, &console.hosts).and_then(|()| match is_probe || parts.uri.path() == app_token::PATH {
            true => Ok(None),
            false if *console.ending.borrow() => Err(Problem::new(Code::ShuttingDown, "the console is about to exit")),
            false => console.access.admit(&parts.headers, SystemClock.now()).map(Some),
        });
    let mut response = match admitted {
        Err(problem) => problem.into_response(),
        Ok(caller) => {
            if let Some(caller) = caller {
                caller.name().clone_into(&mut told.token);
                parts.extensions.insert(caller);
            }
            next.run(Request::from_parts(parts, body)).await
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    told.rows = response.extensions_mut().remove::<Rows>().unwrap_or_default();
    told.status = response.status().as_u16();
    response.map(|body| Body::new(Answering { body, told }))
}

/// A text of a request as the log shows it: without what a terminal obeys, and without tokens that somebody has put there.
fn masked(text: &str) -> String {
    let mut parts = text.split(PREFIX);
    let mut shown: String = parts.next().unwrap_or_default().escape_debug().collect();
    for part in parts {
        let rest = part.trim_start_matches(|char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_'));
        shown.push_str(PREFIX);
        shown.push('…');
        shown.extend(rest.escape_debug());
    }
    shown
}

/// What the log has for the status of an answer that its client did not wait for, as others have it since nginx.
const CLIENT_GONE: u16 = 499;

/// What the log tells of a request, once its answer was sent or nobody took it any more.
#[derive(Debug)]
struct Told {
    token: String,
    method: String,
    path: String,
    query: String,
    status: u16,
    rows: Rows,
    bytes: u64,
    began: Instant,
    is_probe: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        let Self { token, method, path, query, status, rows, bytes, began, is_probe } = self;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rows = rows.0.load(Ordering::Relaxed);
        if *is_probe {
            debug!(method, path, status, "probe");
        } else {
            info!(token, method, path, query, status, rows, bytes, duration_ms, "request");
        }
    }
}

struct Answering {
    body: Body,
    told: Told,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.told.bytes += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_control_characters_are_not_in_the_log() {
        for (text, expected) in [
            ("event=A&where=x", "event=A&where=x"),
            ("t=al_ab-C_9&x=1", "t=al_…&x=1"),
            ("al_al_x", "al_…al_…"),
            ("a\u{1b}[2J", "a\\u{1b}[2J"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_shown_by_either_header() {
        let shown = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            shown(&headers).map(<[u8]>::to_vec)
        };
        let token = Some(b"al_x".to_vec());
        assert_eq!(shown("authorization", "Bearer al_x"), token);
        assert_eq!(shown("authorization", "bearer  al_x"), token);
        assert_eq!(shown("x-auth-token", "al_x"), token);
        for none in ["Basic al_x", "Bearer", "", "Bearer\tal_x"] {
            assert_eq!(shown("authorization", none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_caller_has_ended_once_the_token_is_removed_or_changed() {
        let token = |scope| Token { name: "a".to_owned(), digest: Digest::of(b"x"), scope, expires: None };
        for after in [vec![], vec![token(Scope::Workspaces(vec!["w".to_owned()]))]] {
            let (publish, tokens) = watch::channel(Arc::new(Tokens(vec![token(Scope::All)])));
            let headers = HeaderMap::from_iter([(X_AUTH_TOKEN, HeaderValue::from_static("x"))]);
            let caller = Access::Tokens(tokens).admit(&headers, SystemClock.now()).unwrap();
            let mut ended = tokio::spawn(caller.ended());
            // What changes nothing for it does not end it.
            publish.send_replace(Arc::new(Tokens(vec![token(Scope::All)])));
            assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err());
            publish.send_replace(Arc::new(Tokens(after)));
            ended.await.unwrap();
        }
    }
}

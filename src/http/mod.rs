//! The sidecar's HTTP interface: routes, and what every request goes through before them.
//!
//! Checks come in the order of the contract: framing (hyper), `Host`, `Origin` (`guard`), path and method, content type,
//! length, drain and queue, body (`append`). Events are what there are many of, so `/append` is looked for before the router,
//! which has the rest.

mod append;
mod body;
mod connections;
mod drain;
mod guard;
mod plain;
mod probes;
mod problem;
mod tls;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http_body_util::{Either, Full};
use httpdate::HttpDate;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{EXPECT, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Uri};
use tower_service::Service;

pub use self::append::{Answers, BATCH_BYTES_MAX, BODY_BYTES_MAX};
pub use self::body::{Budget, Reserved};
use self::connections::Arriving;
pub use self::connections::{Limits, Server};
pub use self::drain::Drain;
pub use self::guard::{Hosts, check as check_host};
pub use self::probes::Readiness;
pub(crate) use self::problem::Members as ProblemMembers;
pub use self::problem::{AUDIT_WRITTEN, Code, Problem};
pub use self::tls::{Identity, IdentityError, Tls};
use crate::clock::{Clock, SystemClock};
use crate::metrics::Metrics;
use crate::writer::Appender;

/// Bytes of request bodies in memory, over all connections.
pub const BODIES_BYTES_MAX: usize = 24 << 20;

/// Bytes of a plain request, head and body, at most.
pub const PLAIN_BYTES_MAX: usize = 16 << 10;

/// What the routes work with.
#[derive(Debug)]
pub struct Api {
    /// Takes the events.
    pub appender: Appender,
    /// Counts the refusals.
    pub metrics: Arc<Metrics>,
    /// Answers the probes.
    pub readiness: Arc<Readiness>,
    /// Says when no more events are taken.
    pub drain: Arc<Drain>,
    /// The memory for bodies.
    pub budget: Budget,
    /// What answers share.
    pub answers: Answers,
    /// What plain requests are read into.
    pub read_buffer: Mutex<Box<[u8]>>,
    /// Whose turn it is to have a large body parsed: one at a time, as what comes of it is not in the budget.
    pub large_turn: Arc<tokio::sync::Mutex<()>>,
}

/// The routes behind the guard; one for every kind of listener.
#[derive(Debug, Clone)]
pub struct Routes {
    api: Option<Arc<Api>>,
    router: Router,
    hosts: Hosts,
    /// Counts refusals; nothing does where there are only answers to whoever reads.
    metrics: Option<Arc<Metrics>>,
}

/// The body of an answer: to events and refusals it is there as a whole, else it is axum's.
type Answer = Either<Full<Bytes>, Body>;

impl Routes {
    /// All routes, for the job's own listener.
    #[must_use]
    pub fn sidecar(api: Api, hosts: Hosts) -> Self {
        let metrics = Arc::clone(&api.metrics);
        for code in Code::REFUSALS {
            // An alert needs the zero that it rises from.
            metrics.refused_requests_total.with_label_values(&[code.name()]).inc_by(0);
        }
        let router = probe_routes(&api.readiness, &metrics);
        Self { api: Some(Arc::new(api)), router, hosts, metrics: Some(metrics) }
    }

    /// The probes and the metrics alone, for Prometheus and whoever else is outside of the pod.
    #[must_use]
    pub fn probes(readiness: &Arc<Readiness>, metrics: &Arc<Metrics>) -> Self {
        let router = probe_routes(readiness, metrics);
        Self { api: None, router, hosts: Hosts::Any, metrics: Some(Arc::clone(metrics)) }
    }

    /// Routes for whoever reads. All of their requests go to the router as they are, which looks at the `Host` itself
    /// ([`check_host`]); answers may take as long as somebody takes them.
    #[must_use]
    pub fn reading(router: Router) -> Self {
        Self { api: None, router, hosts: Hosts::Any, metrics: None }
    }

    fn is_for_readers(&self) -> bool {
        self.metrics.is_none()
    }

    /// Counts a refusal.
    pub(crate) fn count(&self, problem: Problem) -> Problem {
        match &self.metrics {
            Some(metrics) => count(metrics, &problem),
            None => return problem.of_reading(),
        }
        problem
    }

    /// Answers one request.
    async fn answer(&self, request: hyper::Request<Arriving>) -> hyper::Response<Answer> {
        let (mut parts, mut body) = request.into_parts();
        let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
        if !self.is_for_readers() && parts.uri.path().contains("//") {
            parts.uri = collapse_slashes(&parts.uri);
        }
        let guarded = self.metrics.as_ref().zip(guard::check(&parts, &self.hosts).err());
        let mut response = if let Some((metrics, problem)) = guarded {
            refuse(metrics, &problem, &parts, &mut body).await.map(Either::Left)
        } else if let Some(api) = self.api.as_ref().filter(|_| parts.uri.path() == "/append") {
            append_or_refuse(api, &parts, &mut body).await.map(Either::Left)
        } else {
            let Ok(response) = self.router.clone().call(Request::from_parts(parts, Body::new(body))).await;
            response.map(Either::Right)
        };
        if chunked {
            // RFC 9112 §6.1: it may have had a Content-Length as well, and then the connection must not go on.
            response.headers_mut().insert(hyper::header::CONNECTION, hyper::header::HeaderValue::from_static("close"));
        }
        response
    }
}

fn probe_routes(readiness: &Arc<Readiness>, metrics: &Arc<Metrics>) -> Router {
    let only_get = || any(refusing(metrics, || Problem::method_not_allowed("GET, HEAD")));
    Router::new()
        .route("/healthz", only_get().get(async || probes::healthz()))
        .route("/readyz", only_get().get(async |State(readiness): State<Arc<Readiness>>| readiness.readyz().await))
        .route("/metrics", only_get().get(async |State(readiness): State<Arc<Readiness>>| readiness.metrics().await))
        .fallback(refusing(metrics, || {
            Problem::new(Code::NotFound, "there are POST /append, GET /healthz, GET /readyz and GET /metrics")
        }))
        .with_state(Arc::clone(readiness))
}

/// A handler that always refuses.
fn refusing(
    metrics: &Arc<Metrics>,
    problem: fn() -> Problem,
) -> impl Fn(Request) -> Pin<Box<dyn Future<Output = Response> + Send>> + Clone + Send + Sync + 'static {
    let metrics = Arc::clone(metrics);
    move |request: Request| {
        let metrics = Arc::clone(&metrics);
        Box::pin(async move {
            let (parts, mut body) = request.into_parts();
            refuse(&metrics, &problem(), &parts, &mut body).await.map(Body::new)
        })
    }
}

/// An answer that is there as a whole.
type Whole = hyper::Response<Full<Bytes>>;

async fn append_or_refuse(api: &Arc<Api>, parts: &Parts, body: &mut Arriving) -> Whole {
    if parts.method != Method::POST {
        return refuse(&api.metrics, &Problem::method_not_allowed("POST"), parts, body).await;
    }
    let _heard = api.drain.hear();
    let admitted = match append::admit(api, parts, body) {
        Ok(admitted) => admitted,
        Err(problem) => return refuse(&api.metrics, &problem, parts, body).await,
    };
    match append::append(api, admitted, body).await {
        Ok(response) => response,
        Err(problem) => refuse_begun(&api.metrics, &problem, body).await,
    }
}

/// Refuses a request whose body has not been looked at.
async fn refuse<B>(metrics: &Metrics, problem: &Problem, parts: &Parts, body: &mut B) -> Whole
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let waits = parts.headers.get(EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !waits || body.is_end_stream() {
        return refuse_begun(metrics, problem, body).await;
    }
    // A client that waits for 100 Continue has not sent its body, and now need not.
    count(metrics, problem);
    problem.response(true)
}

/// Refuses a request whose client sends its body: reads what is left of it, so that the client gets to see the answer.
async fn refuse_begun<B>(metrics: &Metrics, problem: &Problem, body: &mut B) -> Whole
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    count(metrics, problem);
    let complete = body::discard(body).await;
    problem.response(!complete)
}

fn count(metrics: &Metrics, problem: &Problem) {
    metrics.refused_requests_total.with_label_values(&[problem.code.name()]).inc();
}

/// The Date header of an answer that hyper does not write.
fn date() -> HttpDate {
    let millis = SystemClock.now().millis();
    HttpDate::from(UNIX_EPOCH + Duration::from_millis(millis.try_into().expect("not before 1970")))
}

fn collapse_slashes(uri: &Uri) -> Uri {
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    // What is left of a path that was valid, is valid.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

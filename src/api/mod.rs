//! The HTTP interface of the read side: routes over [`reader`](crate::reader), for whoever holds a token.
//!
//! - A request is looked at in this order: `Host` and cross-site rules, token (`caller`), path and method, parameters, room (`gate`).
//! - The scope of the token is part of every question. What is not in it is answered as what is not there.
//! - Searches block, so each has a thread; it ends when nobody waits for it any more.
//! - No answer names a file, but by the path that records tell.

mod answer;
mod app_token;
mod borrowed;
pub(crate) mod caller;
mod counts;
mod cursor;
mod description;
mod events;
mod export;
pub(crate) mod filters;
pub(crate) mod gate;
mod kept;
pub(crate) mod library;
pub(crate) mod parameters;
mod pcd;
mod probes;
mod runai;
mod runai_log;
pub(crate) mod search;
pub(crate) mod stream;
mod tail;
pub mod tokens;
mod views;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use tokio::sync::watch;

pub use self::caller::Access;
use self::filters::FILTERS;
use self::gate::Gate;
use self::library::Library;
use self::parameters::Parameter;
use self::tail::Tails;
use crate::http::{Code, Hosts, Problem};
use crate::reader::listing::Sources;
use crate::reader::view::Views;

/// What the routes work with.
#[derive(Debug)]
pub struct Console {
    library: Library,
    views: Views,
    gate: Gate,
    tails: Tails,
    access: Access,
    hosts: Hosts,
    /// Tells cursors of this process from those of others.
    process: u64,
    /// True once the process is about to end.
    ending: watch::Receiver<bool>,
    /// Held by the probe that looks at the directories.
    probing: Mutex<()>,
}

impl Console {
    /// Makes what the routes work with; `process` is a number that no other process has, and `ending` becomes true when streams are to
    /// end.
    #[must_use]
    pub fn new(
        (sources, views): (Sources, Views),
        access: Access,
        hosts: Hosts,
        process: u64,
        ending: watch::Receiver<bool>,
    ) -> Self {
        Self {
            library: Library::new(sources),
            views,
            gate: Gate::new(),
            tails: Tails::default(),
            access,
            hosts,
            process,
            ending,
            probing: Mutex::new(()),
        }
    }

    /// Walks the directories, so that the first request need not wait for it.
    pub fn walk(&self) {
        self.library.listing();
    }
}

/// The routes of the read side.
pub fn router(console: Arc<Console>) -> Router {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .fallback(async || {
            Problem::new(Code::NotFound, "there is nothing at this path; /api/openapi.json says what there is")
        })
        .method_not_allowed_fallback(async || Problem::method_not_allowed("GET, HEAD"))
        .layer(from_fn_with_state(Arc::clone(&console), caller::enter))
        .with_state(console)
}

/// A path that is answered, and what the description says of it.
struct Route {
    path: &'static str,
    handler: fn() -> MethodRouter<Arc<Console>>,
    /// What it answers; a sentence.
    about: &'static str,
    parameters: &'static [&'static [Parameter]],
    /// The schema of the body that is posted; without one the route is only asked.
    body: Option<&'static str>,
    /// Types of content, each with the name of its schema where it has one.
    answers: &'static [(&'static str, &'static str)],
    wants_token: bool,
}

const JSON: &str = "application/json";

const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        handler: || get(probes::healthz),
        about: "The process answers.",
        parameters: &[],
        body: None,
        answers: &[(JSON, "")],
        wants_token: false,
    },
    Route {
        path: "/readyz",
        handler: || get(probes::readyz),
        about: "The directories can be read.",
        parameters: &[],
        body: None,
        answers: &[(JSON, "")],
        wants_token: false,
    },
    Route {
        path: "/api/openapi.json",
        handler: || get(description::openapi),
        about: "This description.",
        parameters: &[],
        body: None,
        answers: &[(JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events",
        handler: || get(events::page),
        about: "The records that match, by pages.",
        parameters: &[FILTERS, events::PAGE],
        body: None,
        answers: &[(JSON, "Page")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events/export",
        handler: || get(export::export),
        about: "All records that match, as a file; the header `Audit-Searched` says what was looked at.",
        parameters: &[FILTERS, export::EXPORT],
        body: None,
        answers: &[("application/x-ndjson", ""), ("text/csv", ""), (JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events/tail",
        handler: || get(tail::tail),
        about: "The records that match as they appear, as server-sent events. Each event's id says where to go on behind it. Events with the \
                names `damaged`, `foreign`, `cut` and `unreadable` tell of lines and segments, as `Told`.",
        parameters: &[FILTERS, tail::TAIL],
        body: None,
        answers: &[("text/event-stream", "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events/{id}",
        handler: || get(events::one),
        about: "One record, by its permalink.",
        parameters: &[events::ONE],
        body: None,
        answers: &[(JSON, "Item")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/facets",
        handler: || get(counts::facets),
        about: "The values of fields in the records that match, with their counts.",
        parameters: &[FILTERS, counts::FACETS],
        body: None,
        answers: &[(JSON, "Facets")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/histogram",
        handler: || get(counts::histogram),
        about: "How many of the records that match there are by time.",
        parameters: &[FILTERS, counts::HISTOGRAM],
        body: None,
        answers: &[(JSON, "Intervals")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/views",
        handler: || get(views::all),
        about: "The views by which records can be shown, and the catalogue of operations.",
        parameters: &[],
        body: None,
        answers: &[(JSON, "Catalogue")],
        wants_token: true,
    },
    Route {
        path: "/v1/k8s/audit",
        handler: || get(runai::audit),
        about: "Run:ai's documented API: records by the view `runai`, the newest first.",
        parameters: &[runai::AUDIT],
        body: None,
        answers: &[(JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/audit/log",
        handler: || get(runai_log::log),
        about: "Run:ai's present API: records by the view `runai-log`, with `total` and the offset of the `next` page.",
        parameters: &[runai_log::LOG],
        body: None,
        answers: &[(JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/audit/log/file",
        handler: || get(runai_log::file),
        about: "Run:ai's present API: records by the view `runai-log` as a file, the oldest first.",
        parameters: &[runai_log::FILE],
        body: None,
        answers: &[("application/octet-stream", "")],
        wants_token: true,
    },
    Route {
        path: app_token::PATH,
        handler: || post(app_token::grant).fallback(async || Problem::method_not_allowed("POST")),
        about: "Run:ai's present API: the name of a token and the token, in the dress of a JSON Web Token.",
        parameters: &[],
        body: Some("AppToken"),
        answers: &[(JSON, "Granted")],
        wants_token: false,
    },
    Route {
        path: "/resmgr/audit/export",
        handler: || get(pcd::export),
        about: "Platform9 PCD's API: records by the view `pcd`, the oldest first.",
        parameters: &[pcd::EXPORT],
        body: None,
        answers: &[("application/x-ndjson", "")],
        wants_token: true,
    },
    Route {
        path: "/resmgr/audit/filters",
        handler: || get(pcd::choices),
        about: "Platform9 PCD's API: the values that records have, the most frequent first.",
        parameters: &[],
        body: None,
        answers: &[(JSON, "")],
        wants_token: true,
    },
];

impl Route {
    /// By what a request can be refused.
    fn codes(&self) -> Vec<Code> {
        let mut codes = vec![Code::AmbiguousRequest, Code::ForbiddenOrigin, Code::MethodNotAllowed, Code::WrongHost];
        if self.wants_token {
            codes.extend([Code::Unauthorized, Code::ShuttingDown]);
            codes.push(Code::UnknownParameter);
        } else if self.body.is_some() {
            codes.extend([Code::InvalidJson, Code::TooLarge, Code::Unauthorized, Code::UnknownParameter]);
        } else {
            codes.push(Code::NotReady);
        }
        if !self.parameters.is_empty() {
            codes.push(Code::BadParameter);
        }
        if self.parameters.iter().copied().flatten().any(|parameter| parameter.name == "cursor") {
            codes.push(Code::BadCursor);
        }
        if self.path.contains('{') {
            codes.push(Code::NotFound);
        }
        if self.wants_token && self.path != "/api/openapi.json" {
            codes.extend([Code::Overloaded, Code::StorageFailed]);
        }
        codes
    }
}

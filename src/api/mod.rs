//! The HTTP interface of the read side: routes over [`reader`](crate::reader), for whoever holds a token.
//!
//! - A request is looked at in this order: `Host` and cross-site rules, token (`caller`), path and method, parameters, room (`gate`).
//! - The scope of the token is part of every question. What is not in it is answered as what is not there.
//! - Searches block, so each has a thread; it ends when nobody waits for it any more.
//! - No answer names a file, but by the path that records tell.

mod answer;
pub(crate) mod caller;
mod counts;
mod cursor;
mod description;
mod events;
mod export;
pub(crate) mod filters;
pub(crate) mod gate;
pub(crate) mod library;
pub(crate) mod parameters;
mod probes;
pub(crate) mod search;
pub(crate) mod stream;
pub mod tokens;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get};
use tokio::sync::watch;

pub use self::caller::Access;
use self::filters::FILTERS;
use self::gate::Gate;
use self::library::Library;
use self::parameters::Parameter;
use crate::http::{Code, Hosts, Problem};
use crate::reader::listing::Sources;

/// What the routes work with.
#[derive(Debug)]
pub struct Console {
    library: Library,
    gate: Gate,
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
    pub fn new(sources: Sources, access: Access, hosts: Hosts, process: u64, ending: watch::Receiver<bool>) -> Self {
        Self {
            library: Library::new(sources),
            gate: Gate::new(),
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
        answers: &[(JSON, "")],
        wants_token: false,
    },
    Route {
        path: "/readyz",
        handler: || get(probes::readyz),
        about: "The directories can be read.",
        parameters: &[],
        answers: &[(JSON, "")],
        wants_token: false,
    },
    Route {
        path: "/api/openapi.json",
        handler: || get(description::openapi),
        about: "This description.",
        parameters: &[],
        answers: &[(JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events",
        handler: || get(events::page),
        about: "The records that match, by pages.",
        parameters: &[FILTERS, events::PAGE],
        answers: &[(JSON, "Page")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events/export",
        handler: || get(export::export),
        about: "All records that match, as a file; the header `Audit-Searched` says what was looked at.",
        parameters: &[FILTERS, export::EXPORT],
        answers: &[("application/x-ndjson", ""), ("text/csv", ""), (JSON, "")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/events/{id}",
        handler: || get(events::one),
        about: "One record, by its permalink.",
        parameters: &[],
        answers: &[(JSON, "Item")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/facets",
        handler: || get(counts::facets),
        about: "The values of fields in the records that match, with their counts.",
        parameters: &[FILTERS, counts::FACETS],
        answers: &[(JSON, "Facets")],
        wants_token: true,
    },
    Route {
        path: "/api/v1/histogram",
        handler: || get(counts::histogram),
        about: "How many of the records that match there are by time.",
        parameters: &[FILTERS, counts::HISTOGRAM],
        answers: &[(JSON, "Intervals")],
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
        } else {
            codes.push(Code::NotReady);
        }
        if !self.parameters.is_empty() {
            codes.extend([Code::BadParameter, Code::BadCursor]);
        }
        if self.path.contains('{') {
            codes.push(Code::NotFound);
        }
        if self.path.starts_with("/api/v1/") {
            codes.extend([Code::Overloaded, Code::StorageFailed]);
        }
        codes
    }
}

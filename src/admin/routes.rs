//! The table of routes: path, method, parameters, access and handler. The router is built from it, and a test compares the
//! OpenAPI document with it.
//!
//! Every handler runs behind the rate limit and the guard, with a timeout, and a panic in it ends one request. Every
//! response has headers that restrict what a browser does with it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{RawPathParams, Request};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, RequestExt, Router};
use tokio::time::timeout;

use crate::admin::call::{Call, ResponseFuture};
use crate::admin::guard::{Access, Barred, Shown, admit, shown};
use crate::admin::listener::Peer;
use crate::admin::problem::Problem;
use crate::admin::query::Query;
use crate::admin::rate::Lane;
use crate::admin::{Shared, api, page, ready, scrape};
use crate::net::catch_panic::catch_panic;

/// For one response; an audit of a domain whose DNS servers are silent may need most of it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of a body.
const MOST_BODY: usize = 16 << 10;

pub(super) const ROUTES: &[Route] = &[
    Route { access: Access::Open, ..Route::get("/", page::index) },
    Route { access: Access::Open, ..Route::get("/ui/{name}", page::file) },
    Route { access: Access::Open, ..Route::get("/healthz", ready::healthz) },
    Route { access: Access::Open, ..Route::get("/readyz", ready::readyz) },
    Route::get("/metrics", scrape::metrics),
    Route::get("/api/v1/openapi.json", api::openapi::document),
    Route {
        parameters: &["client", "helo", "mail_from", "from[]", "reply_to[]"],
        ..Route::dns("/api/v1/check", api::check::check)
    },
    Route { parameters: &["domain", "egress[]"], ..Route::dns("/api/v1/audit", api::audit::audit) },
    Route::get("/api/v1/status", api::status::status),
    Route { parameters: &["minutes"], ..Route::get("/api/v1/series", api::series::series) },
    Route { parameters: api::decisions::PARAMETERS, ..Route::get("/api/v1/decisions", api::decisions::list) },
    Route { parameters: api::decisions::ONE, ..Route::get("/api/v1/decisions/{id}", api::decisions::one) },
    Route { parameters: &["minutes"], ..Route::get("/api/v1/top", api::past::top) },
    Route { parameters: api::would::WOULD, ..Route::get("/api/v1/would", api::would::would) },
    Route { verb: Verb::Delete, ..Route::get("/api/v1/cache/{domain}", api::cache::remove) },
    Route::get("/api/v1/permits", api::permits::list),
    Route { verb: Verb::Post, access: Access::Write, ..Route::get("/api/v1/permits", api::permits::make) },
    Route {
        verb: Verb::Delete,
        access: Access::Write,
        ..Route::get("/api/v1/permits/{number}", api::permits::remove)
    },
];

pub(super) struct Route {
    /// In axum's form, which is OpenAPI's too; at most one `{parameter}`.
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    pub(super) access: Access,
    /// Names of the allowed query parameters; a name that ends in `[]` may occur more than once.
    pub(super) parameters: &'static [&'static str],
    /// Requests that cause DNS queries share a rate limit of their own.
    pub(super) queries_dns: bool,
    pub(super) handler: fn(Call) -> ResponseFuture,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// And HEAD.
    Get,
    /// With a body of JSON.
    Post,
    Delete,
}

impl Verb {
    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => *method == Method::GET || *method == Method::HEAD,
            Self::Post => *method == Method::POST,
            Self::Delete => *method == Method::DELETE,
        }
    }

    /// For `Allow:`.
    fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

impl Route {
    /// A GET that needs the token and has no parameters.
    const fn get(path: &'static str, handler: fn(Call) -> ResponseFuture) -> Self {
        Self { path, verb: Verb::Get, access: Access::Token, parameters: &[], queries_dns: false, handler }
    }

    /// A GET that causes DNS queries.
    const fn dns(path: &'static str, handler: fn(Call) -> ResponseFuture) -> Self {
        Self { queries_dns: true, ..Self::get(path, handler) }
    }
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().filter(|route| is_first_of_its_path(route)) {
        let shared = Arc::clone(&shared);
        let handler = move |request| dispatch(Arc::clone(&shared), route.path, request);
        router = router.route(route.path, any(handler));
    }
    router.fallback(not_found).layer(from_fn_with_state(shared, around))
}

fn is_first_of_its_path(route: &Route) -> bool {
    ROUTES.iter().find(|other| other.path == route.path).is_some_and(|first| std::ptr::eq(first, route))
}

async fn not_found() -> Problem {
    Problem::not_found("no such path; /api/v1/openapi.json lists all paths")
}

/// Finds the route for the method and checks access before the handler runs.
async fn dispatch(
    shared: Arc<Shared>,
    path: &'static str,
    mut request: Request,
) -> Result<Response, Problem> {
    let rows = || ROUTES.iter().filter(|route| route.path == path);
    let Some(route) = rows().find(|route| route.verb.is(request.method())) else {
        let methods: Vec<_> = rows().map(|route| route.verb.methods()).collect();
        return Err(Problem::method(request.method().as_str(), &methods.join(", ")));
    };
    let arguments = request.extract_parts::<RawPathParams>().await;
    let arguments = arguments.map_err(|error| Problem::parameter("the path", error))?;
    let argument = arguments.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
    let peer = request.extensions().get::<Peer>().copied();
    let (parts, body) = request.into_parts();
    let state = shared.state();
    if let Err(barred) = admit(&parts, route.access, &state.settings) {
        return Err(denied(peer, barred));
    }
    let body = if route.verb == Verb::Post { json_of(&parts.headers, body).await? } else { nothing(&body)? };
    let query = Query::read(&parts.uri, route.parameters)?;
    let call = Call { state, shared: Arc::clone(&shared), argument, query, headers: parts.headers, body };
    if !route.queries_dns {
        return (route.handler)(call).await;
    }
    let _permit = shared.rates.dns_request().map_err(|wait| {
        Problem::too_many("requests that query DNS are limited to 5 a second and 8 at a time", wait)
    })?;
    (route.handler)(call).await
}

fn nothing(body: &Body) -> Result<Bytes, Problem> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "a request must not have a body"))
}

/// A form of another site's page can't send this type.
async fn json_of(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let detail = "the body must be JSON: Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let too_large = |_error| {
        let detail = format!("a body of more than {MOST_BODY} octets, the limit, or one that broke off");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    to_bytes(body, MOST_BODY).await.map_err(too_large)
}

fn denied(peer: Option<Peer>, barred: Barred) -> Problem {
    match barred {
        Barred::Problem(problem) => problem,
        Barred::WrongToken => {
            if let Some(Peer(address)) = peer {
                tracing::warn!(peer = %address, "a request to listen.admin has a wrong token");
            }
            Problem::unauthorized("the token is wrong; the value of admin.token is needed")
        }
    }
}

/// What every request passes and every response gets.
async fn around(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let path = request.uri().path().to_owned();
    let lane = lane(request.uri().path(), shown(request.headers(), &shared.state().settings));
    let mut response = match shared.rates.request(peer, lane) {
        Err(wait) => Problem::too_many("too many requests", wait).into_response(),
        Ok(()) => complete(next.run(request)).await.unwrap_or_else(|failure| {
            if let Failure::Panic(panic) = &failure {
                shared.state().metrics.panic();
                tracing::error!(path = ?path, panic, "a request to listen.admin caused a panic");
            }
            failure.into_response()
        }),
    };
    guard_against_browsers(response.headers_mut(), is_api);
    response
}

fn lane(path: &str, shown: Shown) -> Lane {
    match shown {
        // on every path, since any response could reveal that the token is wrong
        Shown::Wrong => Lane::Guesser,
        Shown::Right | Shown::Nothing if matches!(path, "/healthz" | "/readyz") => Lane::Health,
        Shown::Right => Lane::Known,
        Shown::Nothing if is_protected(path) => Lane::Stranger,
        Shown::Nothing => Lane::Open,
    }
}

/// Whether the routes below this path need the token.
fn is_protected(path: &str) -> bool {
    path.starts_with("/api/") || path == "/metrics"
}

/// Why a handler returned no response.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// With the panic message.
    Panic(String),
    Timeout,
}

/// Runs a handler; a panic or a timeout ends this request only.
async fn complete(response: impl Future<Output = Response>) -> Result<Response, Failure> {
    let result = timeout(TIMEOUT, catch_panic(response)).await;
    result.map_err(|_elapsed| Failure::Timeout)?.map_err(Failure::Panic)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Panic(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the log has the error")
            }
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "no response within 60 seconds"),
        };
        Problem::new(status, detail).into_response()
    }
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; frame-ancestors 'none'; form-action 'none'";

fn guard_against_browsers(headers: &mut HeaderMap, is_api: bool) {
    let always: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in always {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A handler may set its own value for static files.
    if is_api || !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Path, method, whether it needs no token, and the parameters with whether each may be repeated.
    type Row = (String, String, bool, BTreeSet<(String, bool)>);

    fn documented() -> BTreeSet<Row> {
        let document: Value = serde_json::from_str(api::openapi::DOCUMENT).unwrap();
        let mut rows = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let open = operation["security"].as_array().is_some_and(Vec::is_empty);
                let described = operation["parameters"].as_array().cloned().unwrap_or_default();
                for parameter in described.iter().filter(|parameter| parameter["in"] == "path") {
                    let name = parameter["name"].as_str().unwrap();
                    assert!(path.contains(&format!("{{{name}}}")), "{path} has no {name}");
                }
                let in_path = described.iter().filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(in_path, path.matches('{').count(), "{path}");
                let of_query = described.iter().filter(|parameter| parameter["in"] == "query");
                let parameters = of_query.map(|parameter| {
                    let repeats = parameter["schema"]["type"] == "array";
                    (parameter["name"].as_str().unwrap().to_owned(), repeats)
                });
                rows.insert((path.clone(), method.clone(), open, parameters.collect()));
            }
        }
        rows
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let routed: BTreeSet<Row> = ROUTES
            .iter()
            .filter(|route| {
                route.path.starts_with("/api/") || matches!(route.path, "/healthz" | "/readyz" | "/metrics")
            })
            .map(|route| {
                let method = match route.verb {
                    Verb::Get => "get",
                    Verb::Post => "post",
                    Verb::Delete => "delete",
                };
                let parameter = |name: &&str| (name.trim_end_matches("[]").to_owned(), name.ends_with("[]"));
                let parameters = route.parameters.iter().map(parameter).collect();
                (route.path.to_owned(), method.to_owned(), route.access == Access::Open, parameters)
            })
            .collect();
        assert_eq!(documented(), routed);
    }

    #[test]
    fn every_reference_in_the_document_has_its_target() {
        let document: Value = serde_json::from_str(api::openapi::DOCUMENT).unwrap();
        let references: Vec<&str> = api::openapi::DOCUMENT
            .split("\"$ref\": \"#")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert!(!references.is_empty());
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_a_timeout_end_one_request() {
        let panics = async { panic!("stepped on {}", 7) };
        assert_eq!(complete(panics).await.unwrap_err(), Failure::Panic("stepped on 7".to_owned()));
        assert_eq!(complete(std::future::pending()).await.unwrap_err(), Failure::Timeout);
        assert_eq!(complete(async { "ok".into_response() }).await.unwrap().status(), StatusCode::OK);
        let shown = Failure::Panic("secret".to_owned()).into_response();
        assert_eq!(shown.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(shown.into_body(), 1000).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[test]
    fn each_route_occurs_once_and_the_api_and_metrics_need_the_token() {
        for (at, route) in ROUTES.iter().enumerate() {
            let twice =
                ROUTES.iter().skip(at + 1).any(|other| other.path == route.path && other.verb == route.verb);
            assert!(!twice, "{}", route.path);
            assert_eq!(route.access != Access::Open, is_protected(route.path), "{}", route.path);
        }
    }
}

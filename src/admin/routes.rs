//! The table of all there is: path, method, parameters, who may, and the function that answers. The router is made of it,
//! and the OpenAPI document is held against it.
//!
//! Around each answer stand the rate, the guard, a time limit, a net for panics, and the headers that keep a browser from
//! doing more with it than is meant.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{RawPathParams, Request};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, RequestExt, Router};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::admin::guard::{Access, Barred, Shown, admit, shown};
use crate::admin::listener::Peer;
use crate::admin::problem::Problem;
use crate::admin::query::Query;
use crate::admin::rate::Lane;
use crate::admin::{Shared, State, api, page, ready, scrape};

/// For an answer; an audit that meets silent servers may take most of it.
const TIME: Duration = Duration::from_secs(60);

/// Everything that is answered.
pub(super) const ROUTES: &[Route] = &[
    Route { access: Access::Open, ..Route::get("/", page::index) },
    Route { access: Access::Open, ..Route::get("/ui/{name}", page::part) },
    Route { access: Access::Open, ..Route::get("/healthz", ready::healthz) },
    Route { access: Access::Open, ..Route::get("/readyz", ready::readyz) },
    Route::get("/metrics", scrape::metrics),
    Route::get("/api/v1/openapi.json", api::openapi::document),
    Route {
        parameters: &["client", "helo", "mail_from", "from[]", "reply_to[]"],
        ..Route::asking("/api/v1/check", api::check::check)
    },
    Route { parameters: &["domain", "egress[]"], ..Route::asking("/api/v1/audit", api::audit::audit) },
    Route::get("/api/v1/status", api::status::status),
    Route::get("/api/v1/series", api::status::series),
    Route { parameters: api::decisions::PARAMETERS, ..Route::get("/api/v1/decisions", api::decisions::list) },
    Route::get("/api/v1/decisions/{id}", api::decisions::one),
    Route { parameters: &["minutes"], ..Route::get("/api/v1/top", api::past::top) },
    Route { parameters: api::past::WOULD, ..Route::get("/api/v1/would", api::past::would) },
    Route { verb: Verb::Delete, ..Route::get("/api/v1/cache/{domain}", api::cache::remove) },
];

/// One row.
pub(super) struct Route {
    /// In axum's form, which is OpenAPI's too; at most one `{parameter}`.
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    pub(super) access: Access,
    /// What may stand behind the `?`; with `[]` behind the name more than once.
    pub(super) parameters: &'static [&'static str],
    /// Whether DNS is asked, which has a rate of its own.
    pub(super) asks_dns: bool,
    pub(super) answer: fn(Call) -> ResponseFuture,
}

/// The methods that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// And HEAD.
    Get,
    Delete,
}

impl Verb {
    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => *method == Method::GET || *method == Method::HEAD,
            Self::Delete => *method == Method::DELETE,
        }
    }

    /// As `Allow:` has it.
    fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Delete => "DELETE",
        }
    }
}

impl Route {
    /// A GET for who has the token, without parameters, that costs little.
    const fn get(path: &'static str, answer: fn(Call) -> ResponseFuture) -> Self {
        Self { path, verb: Verb::Get, access: Access::Token, parameters: &[], asks_dns: false, answer }
    }

    /// One that asks DNS.
    const fn asking(path: &'static str, answer: fn(Call) -> ResponseFuture) -> Self {
        Self { asks_dns: true, ..Self::get(path, answer) }
    }
}

/// A request that was let in, with parameters that are known.
pub(super) struct Call {
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    /// The value of the path's parameter; empty where it has none.
    pub(super) argument: String,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
}

/// What becomes of it.
pub(super) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// The router for the table.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().filter(|route| is_first_of_its_path(route)) {
        let shared = Arc::clone(&shared);
        let answer = move |request| dispatch(Arc::clone(&shared), route.path, request);
        router = router.route(route.path, any(answer));
    }
    router.fallback(nothing_here).layer(from_fn_with_state(shared, around))
}

fn is_first_of_its_path(route: &Route) -> bool {
    ROUTES.iter().find(|other| other.path == route.path).is_some_and(|first| std::ptr::eq(first, route))
}

async fn nothing_here() -> Problem {
    Problem::not_found("there is nothing here; /api/v1/openapi.json names all there is")
}

/// Finds the row for the method, and asks whether the request may.
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
        return Err(turned_away(peer, barred));
    }
    if !body.is_end_stream() {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body"));
    }
    let query = Query::read(&parts.uri, route.parameters)?;
    let call = Call { state, shared: Arc::clone(&shared), argument, query, headers: parts.headers };
    if !route.asks_dns {
        return (route.answer)(call).await;
    }
    let _permit = shared
        .rates
        .asking()
        .map_err(|wait| too_many("what asks DNS is bounded: 5 requests a second, 8 at one time", wait))?;
    (route.answer)(call).await
}

fn turned_away(peer: Option<Peer>, barred: Barred) -> Problem {
    match barred {
        Barred::Problem(problem) => problem,
        Barred::WrongToken => {
            if let Some(Peer(address)) = peer {
                tracing::warn!(peer = %address, "a request to listen.admin with a wrong token");
            }
            Problem::unauthorized("that is not admin.token")
        }
    }
}

pub(super) fn too_many(detail: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::too_many(detail, u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// What every answer has around it.
async fn around(
    axum::extract::State(shared): axum::extract::State<Arc<Shared>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let what = request.uri().path().to_owned();
    let lane = lane(request.uri().path(), shown(request.headers(), &shared.state().settings));
    let mut response = match shared.rates.request(peer, lane) {
        Err(wait) => too_many("too many requests", wait).into_response(),
        Ok(()) => contained(next.run(request)).await.unwrap_or_else(|failure| {
            if let Failure::Panic(panic) = &failure {
                shared.state().metrics.panic();
                tracing::error!(path = ?what, panic, "a request to listen.admin ended in a panic");
            }
            failure.into_response()
        }),
    };
    guard_against_browsers(response.headers_mut(), is_api);
    response
}

fn lane(path: &str, shown: Shown) -> Lane {
    match shown {
        // wherever it is shown: the answer might tell that it is wrong
        Shown::Wrong => Lane::Guesser,
        Shown::Right | Shown::Nothing if matches!(path, "/healthz" | "/readyz") => Lane::Health,
        Shown::Right => Lane::Known,
        Shown::Nothing if is_protected(path) => Lane::Stranger,
        Shown::Nothing => Lane::Open,
    }
}

/// Whether the routes there want the token.
fn is_protected(path: &str) -> bool {
    path.starts_with("/api/") || path == "/metrics"
}

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// With what it said.
    Panic(String),
    Late,
}

/// A panic ends one request, and so does an answer that doesn't come.
async fn contained(answer: impl Future<Output = Response>) -> Result<Response, Failure> {
    let outcome = timeout(TIME, AssertUnwindSafe(answer).catch_unwind()).await;
    outcome.map_err(|_elapsed| Failure::Late)?.map_err(|panic| Failure::Panic(said(panic.as_ref())))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not a text").to_owned()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::Panic(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the request failed; the log says more"),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "no answer within a minute"),
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
    // What a handler says of its own assets stays.
    if is_api || !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Path, method, who may, and the parameters with whether they repeat.
    type Row = (String, String, bool, BTreeSet<(String, bool)>);

    fn of_the_document() -> BTreeSet<Row> {
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
    fn the_document_names_what_there_is_and_nothing_else() {
        let of_the_table: BTreeSet<Row> = ROUTES
            .iter()
            .filter(|route| {
                route.path.starts_with("/api/") || matches!(route.path, "/healthz" | "/readyz" | "/metrics")
            })
            .map(|route| {
                let method = if route.verb == Verb::Get { "get" } else { "delete" };
                let parameter = |name: &&str| (name.trim_end_matches("[]").to_owned(), name.ends_with("[]"));
                let parameters = route.parameters.iter().map(parameter).collect();
                (route.path.to_owned(), method.to_owned(), route.access == Access::Open, parameters)
            })
            .collect();
        assert_eq!(of_the_document(), of_the_table);
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
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
    async fn a_panic_and_an_answer_that_never_comes_end_one_request() {
        let panics = async { panic!("stepped on {}", 7) };
        assert_eq!(contained(panics).await.unwrap_err(), Failure::Panic("stepped on 7".to_owned()));
        assert_eq!(contained(std::future::pending()).await.unwrap_err(), Failure::Late);
        assert_eq!(contained(async { "ok".into_response() }).await.unwrap().status(), StatusCode::OK);
        let shown = Failure::Panic("secret".to_owned()).into_response();
        assert_eq!(shown.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(shown.into_body(), 1000).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
    }

    #[test]
    fn each_row_is_there_once_and_only_what_tells_nothing_is_open() {
        for (at, route) in ROUTES.iter().enumerate() {
            let twice =
                ROUTES.iter().skip(at + 1).any(|other| other.path == route.path && other.verb == route.verb);
            assert!(!twice, "{}", route.path);
            assert_eq!(route.access == Access::Token, is_protected(route.path), "{}", route.path);
        }
    }
}

//! The client of the API, for commands that ask a running daemon. Each request has a connection of its own, so that a
//! restart of the daemon costs the next one nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{Settings, Token};
use crate::net::{Endpoint, Stream};
use crate::smtp::escape::OneLine;

/// For a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// For a whole answer; a search in a long history takes longest.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of an answer: a thousand decisions have a few at most.
const LONGEST: usize = 16 << 20;

/// Why a daemon gave no answer; shown without its address.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{}", connecting(.0))]
    Connect(#[source] io::Error),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The connection broke, or its peer speaks something else than HTTP.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    /// 401.
    #[error("it has another admin.token than this configuration (401)")]
    Token,
    /// Another error of the API.
    #[error("{status}: {detail}")]
    Problem { status: u16, detail: String },
    #[error("what answers there is no rmxd, or one of another version")]
    Foreign,
}

/// Asks the daemon whose configuration this is.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    token: Option<Token>,
    /// Octets of an answer that are read.
    longest: usize,
}

impl Client {
    /// `None` if the configuration has no `listen.admin`.
    #[must_use]
    pub fn new(settings: &Settings) -> Option<Self> {
        let endpoint = reachable(settings.listen.as_ref()?);
        Some(Self { endpoint, token: settings.token.clone(), longest: LONGEST })
    }

    /// Another daemon, where it says that it answers; a longer answer is none.
    #[must_use]
    pub fn at(address: SocketAddr, token: Option<Token>, longest: usize) -> Self {
        Self { endpoint: Endpoint::Tcp(address), token, longest }
    }

    /// Where it asks.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The JSON at this path and query, whether the status is 200 or that of a daemon that isn't ready.
    ///
    /// # Errors
    /// There is no such answer.
    pub async fn get(&self, target: &str) -> Result<Value, AskError> {
        self.get_within(target, PATIENCE).await
    }

    /// The same, with this time for it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_within(&self, target: &str, patience: Duration) -> Result<Value, AskError> {
        self.ask(Method::GET, target, None, patience).await
    }

    /// The JSON that is the answer to a POST of this JSON.
    ///
    /// # Errors
    /// There is no such answer.
    pub async fn post(&self, target: &str, body: &Value) -> Result<Value, AskError> {
        self.ask(Method::POST, target, Some(body), PATIENCE).await
    }

    /// The JSON that is the answer, most often none: null.
    ///
    /// # Errors
    /// It wasn't done.
    pub async fn delete(&self, target: &str) -> Result<Value, AskError> {
        self.ask(Method::DELETE, target, None, PATIENCE).await
    }

    /// Whether the configuration has a token, without which the daemon changes nothing.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Value, AskError> {
        let exchange = timeout(patience, self.exchange(method, target, body)).await;
        let (status, media, body) = exchange.map_err(|_elapsed| AskError::Silent(patience))??;
        let json = serde_json::from_slice::<Value>(&body);
        match (media.as_str(), json) {
            _ if status == StatusCode::NO_CONTENT => Ok(Value::Null),
            ("application/json", Ok(json)) => Ok(json),
            ("application/problem+json", Ok(_)) if status == StatusCode::UNAUTHORIZED => Err(AskError::Token),
            ("application/problem+json", Ok(problem)) => {
                let detail = problem.get("detail").and_then(Value::as_str).unwrap_or_default();
                Err(AskError::Problem { status: status.as_u16(), detail: OneLine(detail).to_string() })
            }
            _ if status == StatusCode::SERVICE_UNAVAILABLE => {
                let detail = "too many others ask it, try again".to_owned();
                Err(AskError::Problem { status: status.as_u16(), detail })
            }
            _ => Err(AskError::Foreign),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, String, Vec<u8>), AskError> {
        let stream = timeout(CONNECT, self.connect()).await.map_err(|_elapsed| AskError::Silent(CONNECT))?;
        let stream = TokioIo::new(stream.map_err(AskError::Connect)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(AskError::Broken)?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let host = self.endpoint.tcp().map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(value) = self.token.as_ref().and_then(Token::authorization) {
            request = request.header(AUTHORIZATION, value);
        }
        let body = body.map_or_else(Body::empty, |json| Body::from(json.to_string()));
        let request = request.body(body).map_err(|_not_http| AskError::Foreign)?;
        let response = sender.send_request(request).await.map_err(AskError::Broken)?;
        let status = response.status();
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().to_owned();
        let body = to_bytes(Body::new(response.into_body()), self.longest).await;
        Ok((status, media, body.map_err(|_too_long| AskError::Foreign)?.into()))
    }

    async fn connect(&self) -> io::Result<Stream> {
        match &self.endpoint {
            Endpoint::Tcp(address) => TcpStream::connect(address).await.map(Stream::Tcp),
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }
}

/// A listener on every address is asked by loopback.
fn reachable(endpoint: &Endpoint) -> Endpoint {
    let Some(address) = endpoint.tcp().filter(|address| address.ip().is_unspecified()) else {
        return endpoint.clone();
    };
    let loopback: IpAddr =
        if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    Endpoint::Tcp(SocketAddr::new(loopback, address.port()))
}

fn connecting(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: it doesn't run".to_owned(),
        io::ErrorKind::NotFound => "there is no such socket: it doesn't run".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied: only root and the group of the socket may ask".to_owned()
        }
        _ => error.to_string(),
    }
}

/// A value for a query (RFC 3986 2.1).
#[must_use]
pub fn encoded(value: &str) -> String {
    let unreserved = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:".contains(&octet);
    let encode = |octet: u8| {
        if unreserved(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") }
    };
    value.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Purpose;

    #[test]
    fn a_listener_on_every_address_is_asked_by_loopback() {
        let rows = [
            ("0.0.0.0:8025", "127.0.0.1:8025"),
            ("[::]:8025", "[::1]:8025"),
            ("192.0.2.1:8025", "192.0.2.1:8025"),
            ("unix:/run/rmxd/admin", "unix:/run/rmxd/admin"),
        ];
        for (listens, asked) in rows {
            let endpoint = Endpoint::parse(listens, Purpose::Admin).unwrap();
            assert_eq!(reachable(&endpoint).to_string(), asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_says_nothing_is_waited_for_no_longer_than_an_operator_would() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = Some(Endpoint::Tcp(silent.local_addr().unwrap()));
        let client = Client::new(&Settings { listen, token: None }).unwrap();
        let began = tokio::time::Instant::now();
        let error = client.get("/readyz").await.unwrap_err();
        assert!(matches!(error, AskError::Silent(_)), "{error}");
        assert!(error.to_string().starts_with("no answer within "), "{error}");
        assert!(began.elapsed() <= CONNECT + PATIENCE);
        assert!(Client::new(&Settings { listen: None, token: None }).is_none());
    }

    #[test]
    fn a_value_of_a_query_has_no_character_that_ends_it() {
        assert_eq!(encoded("b\u{fc}ro.test&x=1 +"), "b%C3%BCro.test%26x%3D1%20%2B");
        assert_eq!(encoded("2026-11-29T10:00:00.123Z"), "2026-11-29T10:00:00.123Z");
    }
}

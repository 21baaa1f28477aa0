//! Access control. With `admin.token`, a request needs the token. Without it, a request must come from this machine, and
//! its `Host:` must be an IP address or `localhost`.
//!
//! A listener on loopback alone doesn't ensure that: after a reload a connection to the previous listener may still be open.
//! A page of another origin can make a browser send requests to loopback, and by DNS rebinding even read the responses:
//! its host name then resolves to 127.0.0.1, but the browser still puts that name into `Host:`. For that reason other names
//! are refused, and so are requests that the browser marks as coming from another site (`Sec-Fetch-Site`). There is no
//! cookie to steal.

use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};

use crate::admin::Settings;
use crate::admin::listener::Peer;
use crate::admin::problem::Problem;

/// What a route requires of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: health checks, and the page, which contains no data.
    Open,
    /// The token, if there is one.
    Token,
    /// The token, and there must be one: without it every user of this machine, and every page in a browser on it, could
    /// write.
    Write,
}

/// Why a request is not admitted.
#[derive(Debug)]
pub(super) enum Barred {
    Problem(Problem),
    /// The caller logs it with the client's address.
    WrongToken,
}

/// Whether a request has the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// The right token, or none is configured.
    Right,
    Wrong,
    Nothing,
}

pub(super) fn shown(headers: &HeaderMap, settings: &Settings) -> Shown {
    match (&settings.token, bearer(headers)) {
        (None, _) => Shown::Right,
        (Some(token), Some(given)) if token.is(given) => Shown::Right,
        (Some(_), Some(_)) => Shown::Wrong,
        (Some(_), None) => Shown::Nothing,
    }
}

pub(super) fn admit(request: &Parts, access: Access, settings: &Settings) -> Result<(), Barred> {
    if settings.token.is_none() {
        local(request, access).map_err(Barred::Problem)?;
        return if access == Access::Write { Err(Barred::Problem(no_token())) } else { Ok(()) };
    }
    if access == Access::Open {
        return Ok(());
    }
    match shown(&request.headers, settings) {
        Shown::Right if access == Access::Write && is_of_another_site(request) => {
            Err(Barred::Problem(of_another_site()))
        }
        Shown::Right => Ok(()),
        Shown::Wrong => Err(Barred::WrongToken),
        Shown::Nothing => Err(Barred::Problem(Problem::unauthorized(
            "the token is missing: Authorization: Bearer, then the value of admin.token",
        ))),
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, given) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
}

fn local(request: &Parts, access: Access) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, detail));
    let peer = request.extensions.get::<Peer>();
    if !peer.is_some_and(|Peer(address)| address.to_canonical().is_loopback()) {
        return refused("without admin.token only clients on this machine are allowed");
    }
    let of_uri = request.uri.authority().map(|authority| is_local(authority.as_str()));
    let mut of_header = request.headers.get_all(HOST).iter().map(|host| host.to_str().is_ok_and(is_local));
    if of_uri == Some(false) || of_header.any(|local| !local) {
        return refused("without admin.token the host in the URL must be an IP address or localhost");
    }
    if access != Access::Open && is_of_another_site(request) { Err(of_another_site()) } else { Ok(()) }
}

fn is_of_another_site(request: &Parts) -> bool {
    let site = request.headers.get("sec-fetch-site").map(|site| site.as_bytes());
    matches!(site, Some(b"cross-site" | b"same-site"))
}

fn of_another_site() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "requests from a page of another site are not allowed")
}

fn no_token() -> Problem {
    let detail = "permits can only be made and removed with a token: set admin.token in the configuration, reload, and \
                  send Authorization: Bearer with its value";
    Problem::new(StatusCode::FORBIDDEN, detail)
}

/// `127.0.0.1:8025`, `[::1]` and `localhost:8025` are; any other name is not.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    literal.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::admin::Token;

    fn verdict(uri: &str, headers: &[(&str, &str)], access: Access, token: Option<&str>) -> &'static str {
        verdict_from("127.0.0.1", uri, headers, access, token)
    }

    fn verdict_from(
        peer: &str,
        uri: &str,
        headers: &[(&str, &str)],
        access: Access,
        token: Option<&str>,
    ) -> &'static str {
        let request =
            headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(Peer(peer.parse().unwrap()));
        let settings = Settings { listen: None, token: token.and_then(Token::new) };
        match admit(&parts, access, &settings) {
            Ok(()) => "in",
            Err(Barred::WrongToken) => "wrong",
            Err(Barred::Problem(_)) => "out",
        }
    }

    #[test]
    fn without_a_token_the_host_must_be_an_address_or_localhost() {
        let rows = [
            ("127.0.0.1:8025", "in"),
            ("127.0.0.1", "in"),
            ("[::1]:8025", "in"),
            ("192.0.2.7:8025", "in"),
            ("localhost:8025", "in"),
            ("LOCALHOST", "in"),
            ("evil.test", "out"),
            ("evil.test:8025", "out"),
            ("localhost.evil.test", "out"),
            ("127.0.0.1.evil.test", "out"),
            ("localhost@evil.test", "out"),
            ("evil.test@127.0.0.1", "out"),
            ("", "out"),
            ("[::1", "out"),
            ("1.2.3", "out"),
        ];
        for (host, expected) in rows {
            for access in [Access::Open, Access::Token] {
                assert_eq!(verdict("/", &[("host", host)], access, None), expected, "{host}");
            }
        }
        assert_eq!(verdict("http://evil.test/", &[("host", "127.0.0.1")], Access::Open, None), "out");
        assert_eq!(verdict("http://127.0.0.1/", &[("host", "evil.test")], Access::Open, None), "out");
        assert_eq!(verdict("/", &[("host", "127.0.0.1"), ("host", "evil.test")], Access::Open, None), "out");
        assert_eq!(
            verdict("/", &[], Access::Open, None),
            "in",
            "HTTP/1.0 has no Host:, and no browser uses it"
        );
    }

    #[test]
    fn without_a_token_the_client_must_be_on_this_machine() {
        for (peer, expected) in [
            ("127.0.0.1", "in"),
            ("127.9.9.9", "in"),
            ("::1", "in"),
            ("::ffff:127.0.0.1", "in"),
            ("192.0.2.7", "out"),
            ("::ffff:192.0.2.7", "out"),
            ("2001:db8::7", "out"),
        ] {
            for access in [Access::Open, Access::Token] {
                let host = [("host", "127.0.0.1")];
                assert_eq!(verdict_from(peer, "/", &host, access, None), expected, "{peer}");
                let shown = [("host", "gate.test"), ("authorization", "Bearer s3cret")];
                assert_eq!(verdict_from(peer, "/", &shown, access, Some("s3cret")), "in", "{peer}");
            }
        }
    }

    #[test]
    fn a_page_of_another_site_reaches_open_routes_only() {
        for (site, access, expected) in [
            ("cross-site", Access::Token, "out"),
            ("same-site", Access::Token, "out"),
            ("same-origin", Access::Token, "in"),
            ("none", Access::Token, "in"),
            ("cross-site", Access::Open, "in"),
        ] {
            let headers = [("host", "127.0.0.1"), ("sec-fetch-site", site)];
            assert_eq!(verdict("/", &headers, access, None), expected, "{site} {access:?}");
        }
    }

    #[test]
    fn writing_needs_a_token_even_on_this_machine_and_nothing_stands_for_it() {
        let cookie = ("cookie", "token=s3cret; authorization=Bearer s3cret");
        let right = ("authorization", "Bearer s3cret");
        let rows: [(&[(&str, &str)], Option<&str>, &str); 9] = [
            (&[], None, "out"),
            (&[right], None, "out"),
            (&[("sec-fetch-site", "same-origin")], None, "out"),
            (&[], Some("s3cret"), "out"),
            (&[cookie], Some("s3cret"), "out"),
            (&[("authorization", "Bearer other"), cookie], Some("s3cret"), "wrong"),
            (&[right], Some("s3cret"), "in"),
            (&[right, ("sec-fetch-site", "same-origin")], Some("s3cret"), "in"),
            (&[right, ("sec-fetch-site", "cross-site")], Some("s3cret"), "out"),
        ];
        for (headers, token, expected) in rows {
            let headers: Vec<_> = headers.iter().copied().chain([("host", "127.0.0.1")]).collect();
            assert_eq!(verdict("/", &headers, Access::Write, token), expected, "{headers:?} {token:?}");
        }
    }

    #[test]
    fn with_a_token_any_host_is_allowed_and_only_the_token_counts() {
        let rows = [
            (None, Access::Token, "out"),
            (None, Access::Open, "in"),
            (Some("Bearer s3cret"), Access::Token, "in"),
            (Some("bearer s3cret"), Access::Token, "in"),
            (Some("Bearer s3cre"), Access::Token, "wrong"),
            (Some("Bearer "), Access::Token, "wrong"),
            (Some("Bearer"), Access::Token, "out"),
            (Some("Basic s3cret"), Access::Token, "out"),
            (Some("s3cret"), Access::Token, "out"),
        ];
        for (given, access, expected) in rows {
            let headers: Vec<_> = given
                .map(|given| ("authorization", given))
                .into_iter()
                .chain([("host", "gate.test")])
                .collect();
            assert_eq!(verdict("/", &headers, access, Some("s3cret")), expected, "{given:?}");
        }
    }
}

//! What the daemon says over HTTP: to whom, of what, and that mail never suffers for it.

pub(crate) mod certificate;
mod counted;
pub(crate) mod http;
mod limits;
mod moving;
mod promtool;
mod schemas;
mod seen;
mod waited;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rmxd::zone::{Server, Zone};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::admin::http::{Answer, Request};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{SOON, free_address};

/// An exchanger of good.test.
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));

/// A daemon with `listen.admin`, and the name server that it asks.
pub(crate) struct Site {
    daemon: Daemon,
    admin: SocketAddr,
    smtp: SocketAddr,
    zone: Server,
}

impl Site {
    async fn start(more: &str) -> Self {
        Self::set(more, "history.path=").await
    }

    /// With a history.
    pub(crate) async fn remembering(more: &str) -> Self {
        Self::set(more, "history.path=history").await
    }

    async fn set(more: &str, line: &str) -> Self {
        let zone = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Zone::sample()).await.unwrap();
        let (admin, smtp) = (free_address(), free_address());
        let daemon = Daemon::start(
            &text(zone.address(), admin, smtp, more),
            &["--set", "dns.timeout=1s", "--set", line],
        )
        .await;
        Self { daemon, admin, smtp, zone }
    }

    /// The configuration with other words below it.
    fn text(&self, admin: SocketAddr, more: &str) -> String {
        text(self.zone.address(), admin, self.smtp, more)
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        Request::get(target).send(self.admin).await
    }

    async fn json(&self, target: &str) -> Value {
        let answer = self.get(target).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "application/json"),
            "{target}: {answer:?}"
        );
        answer.json()
    }

    /// Status of `/readyz` and what it says.
    async fn ready(&self) -> (u16, Value) {
        let answer = self.get("/readyz").await;
        (answer.status, answer.json())
    }

    /// Waits until `/readyz` has this status; what it says then.
    async fn becomes(&self, status: u16) -> Value {
        let began = Instant::now();
        loop {
            let (found, said) = self.ready().await;
            if found == status {
                return said;
            }
            assert!(began.elapsed() < SOON, "{said}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The reply to a message, or to what came before it and was refused.
    pub(crate) async fn deliver(&self, sender: &str, from: &str) -> u16 {
        let mut client = Client::greeted(GOOD, self.smtp, "mail.good.test").await;
        let message = format!("From: {from}\r\n\r\nHello\r\n");
        client.deliver(sender, "user@here.test", message.as_bytes()).await.code
    }
}

fn text(dns: SocketAddr, admin: SocketAddr, smtp: SocketAddr, more: &str) -> String {
    let text = configuration("gate.test", &[smtp], dns, more);
    text.replace("admin = \"\"", &format!("admin = \"{admin}\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_well_and_ready_once_it_listens() {
    let site = Site::start("").await;
    let well = site.get("/healthz").await;
    assert_eq!((well.status, well.text()), (200, "ok\n"));
    let ready = site.becomes(200).await;
    for part in ["listeners", "relay", "dns"] {
        assert_eq!(ready[part]["ok"], true, "{ready}");
    }
    assert_eq!(ready["ready"], true);
    assert!(
        ready["dns"]["detail"].as_str().unwrap().starts_with(&site.zone.address().to_string()),
        "{ready}"
    );
    site.daemon.logged(&format!("metrics and API address={}", site.admin)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_judged_as_mail_would_be() {
    let site = Site::start("").await;
    let accepted = site.json("/api/v1/check?client=127.0.0.10&mail_from=a@good.test&from=a@good.test").await;
    assert_eq!(accepted["verdict"], "accept", "{accepted}");
    let refused = site.json("/api/v1/check?client=127.0.0.10&mail_from=%3Ca@nodomain.test%3E").await;
    assert_eq!(
        (&refused["verdict"], &refused["reason"]),
        (&"reject".into(), &"no_such_domain".into()),
        "{refused}"
    );
    assert!(
        refused["findings"].as_array().unwrap().iter().any(|finding| finding["result"] == "fail"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_said_in_one_shape_that_names_what_is_allowed() {
    let site = Site::start("").await;
    let rows = [
        ("GET /nothing", 404, "/api/v1/openapi.json lists all paths"),
        (
            "GET /api/v1/check?client=127.0.0.10&sender=a@b.test",
            400,
            "\"sender\": is not a parameter; allowed are client, helo,",
        ),
        ("GET /api/v1/check", 400, "client: is missing; it must be an IP address"),
        ("GET /api/v1/check?client=me", 400, "client: \"me\" must be an IP address such as 192.0.2.7"),
        ("GET /api/v1/check?client=127.0.0.1&client=127.0.0.2", 400, "client: occurs more than once"),
        (
            "GET /api/v1/check?client=127.0.0.1&mail_from=a@@b",
            400,
            "mail_from: \"a@@b\" is not an address such as",
        ),
        (
            "GET /api/v1/check?client=127.0.0.1&from=a@b.test&from=b",
            400,
            "from: \"b\" is not an address such as",
        ),
        ("GET /api/v1/audit?domain=good.test", 400, "egress: is missing"),
        ("GET /api/v1/audit?domain=x&egress=127.0.0.1", 400, "domain: \"x\" must be a domain name"),
        ("GET /healthz?verbose=1", 400, "\"verbose\": is not a parameter; this path has none"),
        ("DELETE /api/v1/cache/a%20b", 400, "domain: \"a b\" is not a domain"),
        ("DELETE /api/v1/cache/%ff", 400, "the path: "),
        ("DELETE /api/v1/cache/com", 400, "domain: \"com\" is a single label or a public suffix"),
        ("DELETE /api/v1/cache/co.uk", 400, "domain: \"co.uk\" is a single label or a public suffix"),
        ("DELETE /healthz", 405, "DELETE is not allowed on this path; allowed are GET, HEAD"),
        ("OPTIONS /api/v1/check", 405, "OPTIONS is not allowed on this path; allowed are GET, HEAD"),
        ("GET /api/v1/cache/good.test", 405, "GET is not allowed on this path; allowed are DELETE"),
        ("GET /api/v1/cache/", 404, "no such path"),
    ];
    for (line, status, detail) in rows {
        let (method, target) = line.split_once(' ').unwrap();
        let answer = Request::new(method, target).send(site.admin).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{line}"
        );
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{line}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{line}: {problem}");
        assert_eq!(problem.as_object().unwrap().len(), 3, "{problem}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{line}");
        if status == 405 {
            assert!(detail.ends_with(answer.header("allow")), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_name_for_a_host_is_refused_and_with_one_the_token_decides() {
    let site = Site::start("").await;
    let (evil, bearer) = (("host", "evil.test:8025"), ("authorization", "Bearer s3cret"));
    for (target, header, status) in [
        ("/healthz", evil, 403),
        ("/api/v1/openapi.json", evil, 403),
        ("/api/v1/openapi.json", ("host", "localhost:8025"), 200),
        ("/api/v1/openapi.json", ("sec-fetch-site", "cross-site"), 403),
        ("/api/v1/openapi.json", bearer, 200),
    ] {
        let answer = Request::get(target).with(header.0, header.1).send(site.admin).await;
        assert_eq!(answer.status, status, "{target} {header:?}");
    }
    let site = Site::start("[admin]\ntoken = \"s3cret\"").await;
    for (target, header, status) in [
        ("/healthz", evil, 200),
        ("/", evil, 200),
        ("/api/v1/openapi.json", evil, 401),
        ("/api/v1/openapi.json", ("authorization", "Bearer s3cre"), 401),
        ("/api/v1/openapi.json", bearer, 200),
    ] {
        let answer = Request::get(target).with(header.0, header.1).send(site.admin).await;
        assert_eq!(answer.status, status, "{target} {header:?}");
        assert_eq!(answer.header("www-authenticate").is_empty(), status != 401, "{answer:?}");
    }
    let told = site.becomes(200).await;
    let part = serde_json::json!({ "ok": true });
    assert_eq!(
        told,
        serde_json::json!({ "ready": true, "listeners": part, "relay": part, "dns": part }),
        "strangers learn no more"
    );
    let told = Request::get("/readyz").with(bearer.0, bearer.1).send(site.admin).await.json();
    for part in ["listeners", "relay", "dns"] {
        assert!(told[part]["detail"].is_string(), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_to_do_nothing_with_it_that_is_not_meant() {
    let site = Site::start("").await;
    for target in ["/healthz", "/readyz", "/api/v1/openapi.json", "/nothing", "/api/v1/check"] {
        let answer = site.get(target).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_in_dns_counts_at_once_when_the_cache_is_told() {
    let site = Site::start("").await;
    let check = "/api/v1/check?client=127.0.0.10&mail_from=a@new.mended.test";
    let mended =
        "$TTL 300\n$ORIGIN mended.test.\n@ SOA ns root 1 1 1 1 300\nmail A 127.0.0.10\nnew MX 10 mail\n";
    let missing = mended.replace("new MX 10 mail", "other A 127.0.0.10");
    site.zone.replace(Zone::parse(&missing, None).unwrap());
    assert_eq!(site.json(check).await["reason"], "no_such_domain");
    site.zone.replace(Zone::parse(mended, None).unwrap());
    assert_eq!(site.json(check).await["reason"], "no_such_domain", "it is held");
    let forgotten = Request::new("DELETE", "/api/v1/cache/Mended.test").send(site.admin).await;
    assert_eq!(forgotten.json()["domain"], "mended.test");
    assert!(forgotten.json()["removed"].as_u64().unwrap() >= 1, "{forgotten:?}");
    assert_eq!(site.json(check).await["verdict"], "accept");
    let others = Request::new("DELETE", "/api/v1/cache/nded.test").send(site.admin).await.json();
    assert_eq!(others["removed"], 0, "not the end of a label");
    let below = Request::new("DELETE", "/api/v1/cache/new.mended.test").send(site.admin).await.json();
    assert_eq!(below["removed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_that_of_the_command() {
    let site = Site::start("").await;
    let audit = site.json("/api/v1/audit?domain=good.test&egress=127.0.0.10&egress=127.0.0.99").await;
    assert_eq!((&audit["domain"], &audit["exit"]), (&"good.test".into(), &1.into()), "{audit}");
    let lost = |at: usize| audit["addresses"][at]["lost"].as_array().unwrap().len();
    assert!(lost(0) == 0 && lost(1) > 0, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_the_answer() {
    let site = Site::start("").await;
    for target in ["/healthz", "/metrics", "/api/v1/openapi.json"] {
        let answer = Request::new("HEAD", target).send(site.admin).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{target}");
        assert_eq!(answer.header("content-type"), site.get(target).await.header("content-type"), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_can_be_watched() {
    let mut site = Site::start("").await;
    let mut open = Client::greeted(GOOD, site.smtp, "mail.good.test").await;
    assert_eq!(open.command("MAIL FROM:<a@good.test>").await.code, 250);
    site.daemon.signal("TERM");
    let said = site.becomes(503).await;
    assert_eq!(
        (&said["listeners"]["ok"], &said["listeners"]["detail"]),
        (&false.into(), &"shutting down".into()),
        "{said}"
    );
    assert_eq!(site.get("/healthz").await.status, 200);
    assert_eq!(open.command("RCPT TO:<user@here.test>").await.code, 250);
    drop(open);
    assert!(site.daemon.ended(SOON).await.success());
    assert!(std::net::TcpStream::connect(site.admin).is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_stops_the_start() {
    let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = held.local_addr().unwrap();
    let home = Home::with(&text(free_address(), taken, free_address(), ""));
    let mut daemon = Daemon::launch(home.serve(), home);
    let status = daemon.ended(SOON).await;
    drop(held);
    assert_eq!(status.code(), Some(75));
}

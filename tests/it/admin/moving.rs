//! What changes while it runs: the servers behind it die and come back, the configuration is read again.

use rmxd::zone::Zone;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::admin::http::Request;
use crate::admin::{GOOD, Site};
use crate::support::client::Client;
use crate::support::process::{free_address, refused};
use crate::support::relay::Relay;

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_dns_to_its_death_and_back() {
    let site = Site::start("").await;
    site.becomes(200).await;
    site.zone.replace(Zone::parse(";! silent .\n", None).unwrap());
    for number in 0..4 {
        let mut client = Client::greeted(GOOD, site.smtp, "mail.good.test").await;
        client.command(&format!("MAIL FROM:<a@nowhere{number}.test>")).await;
        assert_eq!(client.command("RCPT TO:<user@here.test>").await.code, 451);
    }
    let said = site.becomes(503).await;
    assert_eq!((&said["dns"]["ok"], &said["relay"]["ok"]), (&false.into(), &true.into()), "{said}");
    assert!(said["dns"]["detail"].as_str().unwrap().starts_with("no server answers (127.0.0.1:"), "{said}");
    assert_eq!(site.get("/healthz").await.status, 200);
    let down = site.get("/metrics").await;
    assert!(down.text().contains("\nrmxd_dns_answering 0\n"), "{}", down.text());

    site.zone.replace(Zone::sample());
    assert_eq!(site.becomes(200).await["ready"], true);
    assert!(site.get("/metrics").await.text().contains("\nrmxd_dns_answering 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_relay_to_its_death_and_back() {
    let place = free_address();
    let more = format!(
        "[relay]\nnext_hop = \"smtp://{place}\"\nidentity = \"none\"\ndomains = [\"here.test\"]\nconnect_timeout = \"2s\""
    );
    let mut site = Site::start(&more).await;
    // DNS wants a look first
    while site.ready().await.1["dns"]["ok"] != true {}
    let (status, said) = site.ready().await;
    assert_eq!((status, &said["relay"]["ok"]), (503, &false.into()), "{said}");
    assert!(said["relay"]["detail"].as_str().unwrap().contains(&place.to_string()), "{said}");

    let mut relay = Relay::at(place).await;
    assert_eq!(site.becomes(200).await["relay"]["ok"], true);
    site.daemon.logged("the relay can be used now").await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    let seen = std::iter::from_fn(|| relay.seen.try_recv().ok()).filter(|line| line == "(connect)").count();
    for _ in 0..20 {
        assert_eq!(site.ready().await.0, 200);
    }
    let more = std::iter::from_fn(|| relay.seen.try_recv().ok()).filter(|line| line == "(connect)").count();
    assert!(seen <= 4 && more <= 1, "who asks often costs the relay {seen} and {more} connections");

    // a message is the first to notice; the connection that waits is used up by it
    let dead =
        [("connect", "(close)"), ("MAIL", "(close)")].map(|(at, what)| (at.to_owned(), what.to_owned()));
    relay.rules.lock().unwrap().extend(dead);
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 451);
    let (status, said) = site.ready().await;
    assert_eq!((status, &said["relay"]["ok"]), (503, &false.into()), "{said}");
    site.daemon.logged("the relay can't be used any more; mail is deferred").await;
    relay.rules.lock().unwrap().clear();
    site.becomes(200).await;

    // other settings are tried at once
    site.daemon.home().configure(&site.text(site.admin, ""));
    site.daemon.reload().await;
    assert_eq!(site.ready().await.0, 200, "a Maildir");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_token_and_address_and_what_can_not_be_had_changes_nothing() {
    let mut site = Site::start("").await;
    let mut kept = TcpStream::connect(site.admin).await.unwrap();
    let ask = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let mut first = [0; 12];
    kept.write_all(ask).await.unwrap();
    kept.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    site.daemon.home().configure(&site.text(site.admin, "[admin]\ntoken = \"s3cret\""));
    site.daemon.reload().await;
    let status = |answer: crate::admin::http::Answer| answer.status;
    let with = |token: &str| Request::get("/metrics").with("authorization", &format!("Bearer {token}"));
    assert_eq!(status(site.get("/metrics").await), 401);
    assert_eq!(status(with("s3cret").send(site.admin).await), 200);
    // on a connection from before too
    kept.write_all(ask).await.unwrap();
    let mut rest = vec![0; 64 << 10];
    let mut said = String::new();
    while !said.contains("HTTP/1.1 401") {
        let length = kept.read(&mut rest).await.unwrap();
        assert_ne!(length, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&rest[..length]));
    }

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    site.daemon.home().configure(&site.text(address, "[admin]\ntoken = \"other\""));
    let log = site.daemon.reload().await;
    assert!(log.contains(&format!("listen.admin: {address}: Address already in use")), "{log}");
    assert_eq!(status(with("s3cret").send(site.admin).await), 200, "nothing has changed");

    let before = std::mem::replace(&mut site.admin, free_address());
    site.daemon.home().configure(&site.text(site.admin, "[admin]\ntoken = \"other\""));
    let log = site.daemon.reload().await;
    assert!(log.contains(&format!("metrics and API address={}", site.admin)), "{log}");
    assert_eq!(status(with("other").send(site.admin).await), 200);
    refused(before).await;

    let off = site.text(site.admin, "").replace(&format!("admin = \"{}\"", site.admin), "admin = \"\"");
    site.daemon.home().configure(&off);
    site.daemon.reload().await;
    refused(site.admin).await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    let home = site.daemon.terminate().await;
    assert!(!home.log().contains("s3cret"), "the token is never shown");
}

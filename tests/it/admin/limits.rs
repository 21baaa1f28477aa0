//! Who asks too much, too large or too slowly is cut short, and mail goes on meanwhile.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::admin::Site;
use crate::admin::http::{Request, answer};
use crate::support::process::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_and_any_body_are_refused() {
    let site = Site::start("").await;
    let long = "x".repeat(40_000);
    let answer = Request::get("/healthz").with("x-long", &long).send(site.admin).await;
    assert_eq!(answer.status, 431, "{answer:?}");
    let answer = Request::get(&format!("/healthz?{long}")).send(site.admin).await;
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    let many =
        (0..200).fold(Request::get("/healthz"), |request, number| request.with(&format!("x-{number}"), "1"));
    assert_eq!(many.send(site.admin).await.status, 431);
    let answer = Request::new("GET", "/healthz").with("content-length", "1000000000").send(site.admin).await;
    assert_eq!((answer.status, answer.header("content-type")), (413, "application/problem+json"));
    let answer = Request::new("DELETE", "/api/v1/cache/a.test")
        .with("transfer-encoding", "chunked")
        .send(site.admin)
        .await;
    assert_eq!(answer.status, 413, "{answer:?}");
    let answer =
        Request::new("DELETE", "/api/v1/cache/a.test").with("content-length", "0").send(site.admin).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_gets_400_and_no_more() {
    let site = Site::start("").await;
    for octets in [
        &b"EHLO me\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(site.admin).await.unwrap();
        stream.write_all(octets).await.unwrap();
        assert_eq!(answer(&mut stream).await.status, 400, "{}", octets.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_only_half_is_cut_off_and_mail_goes_on() {
    let site = Site::start("").await;
    let mut slow = Vec::new();
    for octets in [
        &b""[..],
        b"GET /healthz HTTP/1.1\r\nHost: 127.0",
        b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(site.admin).await.unwrap();
        stream.write_all(octets).await.unwrap();
        slow.push(stream);
    }
    let began = Instant::now();
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    assert!(began.elapsed() < Duration::from_secs(5));
    for mut stream in slow {
        let mut said = Vec::new();
        // an answer first for the one that was whole
        timeout(SOON, stream.read_to_end(&mut said)).await.expect("an end").unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Opens so many connections with half a request, from these addresses in turn.
async fn half_requests(site: &Site, from: &[IpAddr], count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for address in from.iter().cycle().take(count) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((*address, 0).into()).unwrap();
        let mut stream = timeout(SOON, socket.connect(site.admin)).await.expect("a connection").unwrap();
        // it may be closed for another one by now
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0").await.ok();
        held.push(stream);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_find_a_bound_and_mail_does_not_notice() {
    let site = Site::start("").await;
    let held = half_requests(&site, &[IpAddr::V4(Ipv4Addr::LOCALHOST)], 60).await;
    let (mut open, mut closed) = (0, 0);
    let looks = held
        .into_iter()
        .map(|mut stream| async move { timeout(Duration::from_millis(500), stream.read_u8()).await });
    for look in join_all(looks).await {
        match look {
            Err(_waits) => open += 1,
            Ok(read) => {
                assert!(read.is_err(), "an answer to half a request");
                closed += 1;
            }
        }
    }
    assert_eq!((open, closed), (32, 28), "the oldest make way");
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    assert_eq!(site.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_keep_no_health_answer_away() {
    let site = Site::start("").await;
    site.becomes(200).await;
    let many: Vec<IpAddr> = (1..=200).map(|number| IpAddr::V4(Ipv4Addr::new(127, 8, number, 1))).collect();
    for (from, count) in [(&many[..1], 128), (&many[..], 128), (&many[..1], 1000), (&many[..], 1000)] {
        let held = half_requests(&site, from, count).await;
        let began = Instant::now();
        for target in ["/healthz", "/readyz", "/metrics"] {
            let answer = site.get(target).await;
            assert_eq!(answer.status, 200, "{target} beside {count} of {}: {answer:?}", from.len());
            // from one that sends half requests itself
            let mut own = half_requests(&site, &from[..1], 1).await.remove(0);
            own.write_all(
                format!(".0.1\r\n\r\nGET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await
            .unwrap();
            assert_eq!(self::answer(&mut own).await.status, 200, "{target}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_when_to_come_again() {
    let site = Site::start("").await;
    let check = "/api/v1/check?client=127.0.0.10&mail_from=a@good.test";
    let mut answers = Vec::new();
    for _ in 0..60 {
        answers.push(site.get(check).await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty(), "as fast as it goes, without end");
    for answer in refused {
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
        assert!(
            answer.json()["detail"].as_str().unwrap().starts_with("requests that query DNS are limited"),
            "{answer:?}"
        );
    }
    assert_eq!(site.get("/healthz").await.status, 200, "the rest has a rate of its own");

    // a slow machine asks less than 50 times a second: all on one connection
    let mut stream = TcpStream::connect(site.admin).await.unwrap();
    let one = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let last = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let asked = [&one.repeat(599)[..], last].concat();
    let write = async {
        // it may be closed before all is said
        stream.write_all(&asked).await.ok();
        let mut said = Vec::new();
        timeout(SOON, stream.read_to_end(&mut said)).await.expect("an end").ok();
        String::from_utf8(said).unwrap()
    };
    let said = write.await;
    assert!(said.contains("HTTP/1.1 200 OK") && said.contains("HTTP/1.1 429 Too Many Requests"), "{said}");
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
}

//! Who asks too much, too large or too slowly is cut short, and mail goes on meanwhile.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::admin::Site;
use crate::admin::http::{Request, answer};
use crate::daemon::SOON;

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

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_find_a_bound_and_mail_does_not_notice() {
    let site = Site::start("").await;
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..60 {
        let mut stream = TcpStream::connect(site.admin).await.unwrap();
        let mut first = [0; 12];
        match timeout(Duration::from_millis(100), stream.read_exact(&mut first)).await {
            Err(_waits) => held.push(stream),
            Ok(read) => {
                assert!(read.is_ok() && first == *b"HTTP/1.1 503", "{read:?} {}", first.escape_ascii());
                turned_away += 1;
            }
        }
    }
    assert_eq!((held.len(), turned_away), (32, 28));
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    drop(held);
    let began = Instant::now();
    loop {
        let answer = site.get("/healthz").await;
        if answer.status == 200 {
            break;
        }
        assert!(answer.status == 503 && began.elapsed() < SOON, "{answer:?}");
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
            answer.json()["detail"].as_str().unwrap().starts_with("what asks DNS is bounded"),
            "{answer:?}"
        );
    }
    assert_eq!(site.get("/healthz").await.status, 200, "the rest has a rate of its own");

    // a slow machine asks less than 50 times a second: all on one connection
    let mut stream = TcpStream::connect(site.admin).await.unwrap();
    let one = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let asked = one.repeat(600);
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

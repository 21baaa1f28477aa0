//! What answers become, and which server gives them.

use super::*;

#[tokio::test]
async fn each_type_is_answered_in_plain_data() {
    let server = TestServer::start(
        "good.test MX 20 Second.good.test\ngood.test MX 10 .\ngood.test MX 10 bad\\032host.test
         mail.good.test A 127.0.0.10\nmail.good.test AAAA ::1
         10.0.0.127.in-addr.arpa PTR mail.good.test\nunder_score.test A 127.0.0.1
         txt.test TXT here
         alias.test CNAME Mail.good.test
loop.test CNAME loop.test",
    )
    .await;
    let (dns, _) = server.dns();
    let rows = [
        (RecordType::Cname, "alias.test", "mail.good.test"),
        (RecordType::Cname, "loop.test", "loop.test"),
        (RecordType::Cname, "good.test", "no record of this type"),
        (RecordType::Cname, "gone.test", "NXDOMAIN"),
        (RecordType::A, "alias.test", "127.0.0.10"),
        (RecordType::Mx, "good.test", "10 ., 10 bad\\032host.test, 20 second.good.test"),
        (RecordType::A, "mail.good.test", "127.0.0.10"),
        (RecordType::Aaaa, "mail.good.test", "::1"),
        (RecordType::Ptr, "10.0.0.127.in-addr.arpa", "mail.good.test"),
        (RecordType::A, "under_score.test", "127.0.0.1"),
        (RecordType::Mx, "txt.test", "no record of this type"),
        (RecordType::Mx, "0.0.127.in-addr.arpa", "no record of this type"),
        (RecordType::Mx, "gone.test", "NXDOMAIN"),
    ];
    for (rtype, name, expected) in rows {
        let lookup = dns.ask(question(rtype, name), &account(CLIENT)).await;
        assert_eq!(lookup.evidence.answer.to_string(), expected, "{name}");
        assert_eq!(lookup.evidence.question, question(rtype, name));
        assert_eq!(lookup.stale, None);
    }
}

#[tokio::test]
async fn aliases_are_followed_and_loops_are_failures() {
    let mut zone = "full.test CNAME half.test\nhalf.test CNAME good.test\ngood.test MX 10 m.test
        bare.test CNAME half.test\nbare.test BARE\nnodata.test CNAME txt.test\ntxt.test TXT x
        loop1.test CNAME loop2.test\nloop2.test CNAME loop1.test
        bareloop1.test CNAME bareloop2.test\nbareloop2.test CNAME bareloop1.test\nbareloop1.test BARE\nbareloop2.test BARE
        bareend.test CNAME txt.test\nbareend.test BARE\nrefused.test CNAME no.test\nrefused.test BARE\nno.test REFUSED\n"
        .to_owned();
    for step in 0..30 {
        zone.push_str(&format!("s{step}.test CNAME s{}.test\ns{step}.test BARE\n", step + 1));
    }
    let server = TestServer::start(&zone).await;
    let (dns, _) = server.dns();
    let rows = [
        ("full.test", "fresh 10 m.test", 1),
        ("bare.test", "fresh 10 m.test", 2),
        ("nodata.test", "fresh no record of this type", 1),
        ("bareend.test", "fresh no record of this type", 2),
        ("loop1.test", "fresh CNAME loop", 1),
        ("bareloop1.test", "fresh CNAME loop", 2),
        ("s0.test", "fresh CNAME loop", 8),
        ("refused.test", "fresh REFUSED", 2),
    ];
    for (name, expected, asked) in rows {
        assert_eq!(text(&mx(&dns, name).await), expected, "{name}");
        assert_eq!(server.asked().len(), asked, "{name}");
    }
}

#[tokio::test]
async fn a_big_answer_is_fetched_over_tcp() {
    let zone: String = (0..120).map(|at| format!("big.test MX {at} host-number-{at}.big.test\n")).collect();
    let server = TestServer::start(&zone).await;
    let (dns, _) = server.dns();
    let lookup = mx(&dns, "big.test").await;
    let Answer::Found(Records::Mx(list)) = &*lookup.evidence.answer else { panic!("{lookup:?}") };
    assert_eq!(list.len(), 120);
    assert_eq!(list[119], (119, Target::Host(DomainName::parse("host-number-119.big.test").unwrap())));
    assert_eq!(server.asked(), ["udp MX big.test", "tcp MX big.test"]);
}

/// A link-local address of this machine with its interface, from the kernel's list (proc_net(5)).
fn link_local() -> Option<String> {
    let list = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    list.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let address = u128::from_str_radix(words.first()?, 16).ok().map(std::net::Ipv6Addr::from_bits)?;
        address.is_unicast_link_local().then(|| format!("{address}%{}", words.last().unwrap()))
    })
}

#[tokio::test]
async fn a_link_local_server_is_asked_over_its_interface_udp_and_tcp() {
    let Some(text) = link_local() else {
        eprintln!("skipped: no interface has a link-local address");
        return;
    };
    let big: String = (0..120).map(|at| format!("big.test MX {at} host-number-{at}.big.test\n")).collect();
    let mut at = parse_server(&text).unwrap();
    at.set_port(0);
    let server =
        TestServer::start_at(at, &format!("good.test MX 10 m.test\nsigned.test SECURE\n{big}")).await;
    let mut asked = parse_server(&text).unwrap();
    asked.set_port(server.address().port());
    let dns = Dns::new(settings(&[asked])).unwrap();
    assert_eq!(text_of(&dns, "good.test").await, "fresh 10 m.test");
    assert!(matches!(*mx(&dns, "big.test").await.evidence.answer, Answer::Found(_)));
    assert_eq!(server.asked(), ["udp MX good.test", "udp MX big.test", "tcp MX big.test"]);
    let down = Health { down: true, ..dns.health() };
    assert_eq!(down.to_string(), format!("no server answers ([{text}]:{})", asked.port()));
    // its way is no loopback, so what it says of DNSSEC doesn't count
    assert_eq!(text_of(&dns, "gone.signed.test").await, "fresh NXDOMAIN");
    assert_eq!(text_of(&dns, "below.gone.signed.test").await, "fresh NXDOMAIN");
}

#[tokio::test]
async fn a_question_that_comes_back_in_another_case_is_asked_again_over_tcp() {
    let name = "a-name-long-enough-for-its-case-to-matter.test";
    let server = TestServer::start(&format!("{name} MX 10 m.test\n{name} FOLDS")).await;
    let (dns, _) = server.dns();
    assert_eq!(text(&mx(&dns, name).await), "fresh 10 m.test");
    assert_eq!(server.asked(), [format!("udp MX {name}"), format!("tcp MX {name}")]);
}

#[tokio::test]
async fn the_next_server_is_asked_when_tcp_is_refused() {
    let zone: String = (0..120).map(|at| format!("big.test MX {at} host-number-{at}.big.test\n")).collect();
    let (bad, good) = (TestServer::udp_only(&zone).await, TestServer::start(&zone).await);
    let dns = Dns::new(settings(&[bad.address(), good.address()])).unwrap();
    let lookup = mx(&dns, "big.test").await.evidence;
    assert!(matches!(*lookup.answer, Answer::Found(_)), "{lookup:?}");
    assert!(lookup.took < SECOND, "{:?}", lookup.took);
    let dns = Dns::new(settings(&[bad.address()])).unwrap();
    assert_eq!(text(&mx(&dns, "big.test").await), "fresh too long for UDP, and no connection over TCP");
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails() {
    let good = TestServer::start("good.test MX 10 m.test").await;
    for behaviour in ["SERVFAIL", "REFUSED", "DROP", "REFERRAL"] {
        let bad = TestServer::start(&format!("good.test {behaviour}")).await;
        let dns = Dns::new(settings(&[bad.address(), good.address()])).unwrap();
        let lookup = mx(&dns, "good.test").await;
        assert_eq!(text(&lookup), "fresh 10 m.test", "{behaviour}");
        assert!(!bad.asked().is_empty(), "{behaviour}");
        assert!(lookup.evidence.took < SECOND, "{behaviour} {:?}", lookup.evidence.took);
    }
    let closed = TestServer::start("").await.address();
    let dns = Dns::new(settings(&[closed, good.address()])).unwrap();
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
}

#[tokio::test]
async fn a_server_that_failed_is_asked_last_for_a_while() {
    let bad = TestServer::start("one.test REFUSED\ntwo.test REFUSED\nthree.test REFUSED").await;
    let good =
        TestServer::start("one.test MX 10 m.test\ntwo.test MX 10 m.test\nthree.test MX 10 m.test").await;
    let clock = Clock::standing();
    let dns = Dns::with_clock(settings(&[bad.address(), good.address()]), clock.clone()).unwrap();
    mx(&dns, "one.test").await;
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 1));
    mx(&dns, "two.test").await;
    assert_eq!((bad.asked().len(), good.asked().len()), (0, 1));
    clock.advance(30 * SECOND);
    mx(&dns, "three.test").await;
    assert_eq!((bad.asked().len(), good.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_failure_keeps_the_deadline_and_is_the_most_specific_one() {
    let silent = TestServer::start("x.test DROP\ny.test DROP").await;
    let failing = TestServer::start("x.test SERVFAIL\ny.test REFUSED").await;
    let rows: [(&[SocketAddr], &str, &str); 3] = [
        (&[silent.address()], "x.test", "fresh timeout"),
        (&[silent.address(), failing.address()], "x.test", "fresh SERVFAIL"),
        (&[failing.address(), silent.address()], "y.test", "fresh REFUSED"),
    ];
    for (servers, name, expected) in rows {
        let quick = Settings { timeout: Duration::from_millis(600), ..settings(servers) };
        let began = std::time::SystemTime::now();
        let lookup = mx(&Dns::new(quick).unwrap(), name).await;
        assert_eq!(text(&lookup), expected);
        let took = began.elapsed().unwrap();
        assert!((500..1_150).contains(&took.as_millis()), "{took:?}");
        assert!(took.abs_diff(lookup.evidence.took) < Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_lost_packet_is_sent_again() {
    let server = TestServer::start("good.test MX 10 m.test\ngood.test ONCE-LOST").await;
    let (dns, _) = server.dns();
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn without_servers_those_of_the_system_count_or_the_error_names_them() {
    match Dns::new(settings(&[])) {
        Ok(dns) => assert_eq!(
            Some(dns.0.settings.servers.len()),
            server::system_servers().ok().map(|list| list.len())
        ),
        Err(error) => assert!(error.to_string().starts_with("dns.servers is empty"), "{error}"),
    }
}

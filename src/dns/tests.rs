//! The whole of `dns` against a real server on loopback.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::test_server::{NEGATIVE_TTL, TestServer, settings};
use super::*;
use crate::evidence::{RecordType, Records, Target};
use crate::metrics::{Format, Gauges};
use crate::smtp::address::DomainName;

/// On whose account it is asked, where that doesn't matter.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SECOND: Duration = Duration::from_secs(1);

fn question(rtype: RecordType, name: &str) -> Question {
    Question { name: DomainName::parse(name).unwrap().into(), rtype }
}

fn account(client: IpAddr) -> Account {
    Account::new(client, Budget::of(u32::MAX), Urgency::Refuses)
}

async fn mx(dns: &Dns, name: &str) -> Lookup {
    dns.ask(question(RecordType::Mx, name), &account(CLIENT)).await
}

async fn a(dns: &Dns, name: &str) -> Lookup {
    dns.ask(question(RecordType::A, name), &account(CLIENT)).await
}

fn text(lookup: &Lookup) -> String {
    format!("{} {}", lookup.evidence.freshness.name(), lookup.evidence.answer)
}

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
async fn an_answer_is_kept_for_its_ttl() {
    let server = TestServer::start(
        "good.test 100 MX 10 m.test\nzero.test 0 MX 10 m.test\nlong.test 900000 MX 10 m.test
         alias.test 40 CNAME good.test",
    )
    .await;
    let (dns, clock) = server.dns();
    let rows = [("good.test", 100), ("zero.test", 5), ("long.test", 86_400), ("alias.test", 40)];
    for (name, ttl) in rows {
        let first = mx(&dns, name).await.evidence;
        assert_eq!(
            (first.freshness, first.ttl_left, first.age),
            (Freshness::Fresh, ttl * SECOND, Duration::ZERO)
        );
        clock.advance((ttl - 1) * SECOND);
        let again = mx(&dns, name).await.evidence;
        assert_eq!((again.freshness, again.ttl_left), (Freshness::Cached, SECOND), "{name}");
        assert_eq!((again.age, again.took), ((ttl - 1) * SECOND, Duration::ZERO), "{name}");
        server.asked();
        clock.advance(SECOND);
        assert_eq!(mx(&dns, name).await.evidence.freshness, Freshness::Fresh, "{name}");
        assert_eq!(server.asked().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_is_held_outlives_other_settings_but_not_other_servers() {
    let zone = "good.test 100 MX 10 m.test";
    let (server, other) = (TestServer::start(zone).await, TestServer::start(zone).await);
    let (dns, clock) = server.dns();
    mx(&dns, "good.test").await;
    mx(&dns, "gone.test").await;
    clock.advance(SECOND);
    server.asked();
    let cache = |change: fn(&mut CacheSettings)| {
        let mut settings = settings(&[server.address()]);
        change(&mut settings.cache);
        settings
    };
    let rows = [
        cache(|_| {}),
        Settings { timeout: 3 * SECOND, ..cache(|_| {}) },
        cache(|cache| cache.max_ttl = 50 * SECOND),
        cache(|cache| cache.memory = 1 << 20),
    ];
    for settings in rows {
        let with_settings = dns.with_settings(settings.clone()).await.unwrap();
        let held = mx(&with_settings, "good.test").await.evidence;
        assert_eq!((held.freshness, held.ttl_left), (Freshness::Cached, 99 * SECOND), "{settings:?}");
        assert_eq!(text(&mx(&with_settings, "gone.test").await), "cached NXDOMAIN", "{settings:?}");
        assert_eq!(server.asked(), Vec::<String>::new());
        let name = format!("long{}.test", settings.cache.max_ttl.as_secs());
        server.set(&format!("{name} 900 MX 10 m.test"));
        let expected = settings.cache.max_ttl.min(900 * SECOND);
        assert_eq!(mx(&with_settings, &name).await.evidence.ttl_left, expected, "{settings:?}");
        server.asked();
    }
    let elsewhere = dns.with_settings(settings(&[other.address()])).await.unwrap();
    assert_eq!(mx(&elsewhere, "good.test").await.evidence.freshness, Freshness::Fresh);
    assert_eq!((server.asked().len(), other.asked().len()), (0, 1));
}

#[tokio::test]
async fn absence_is_kept_by_the_soa_and_shortly_without() {
    let server = TestServer::start("txt.test TXT x\nnosoa.test TXT x\nnosoa.test NOSOA").await;
    let (dns, clock) = server.dns();
    let rows = [
        ("txt.test", NEGATIVE_TTL),
        ("gone.test", NEGATIVE_TTL),
        ("nosoa.test", 5 * SECOND),
        ("gone.nosoa.test", 5 * SECOND),
    ];
    for (name, ttl) in rows {
        assert_eq!(mx(&dns, name).await.evidence.ttl_left, ttl, "{name}");
        clock.advance(ttl - SECOND);
        assert_eq!(mx(&dns, name).await.evidence.freshness, Freshness::Cached, "{name}");
        clock.advance(SECOND);
        assert_eq!(mx(&dns, name).await.evidence.freshness, Freshness::Fresh, "{name}");
    }
    let bounded = Settings {
        cache: CacheSettings { max_negative_ttl: 7 * SECOND, ..settings(&[]).cache },
        ..settings(&[server.address()])
    };
    let dns = Dns::with_clock(bounded, Clock::standing()).unwrap();
    assert_eq!(mx(&dns, "txt.test").await.evidence.ttl_left, 7 * SECOND);
}

#[tokio::test]
async fn many_askers_cost_one_question() {
    let server = TestServer::start("good.test MX 10 m.test\ngood.test DELAY 100").await;
    let (dns, clock) = server.dns();
    for round in 0..2 {
        let lookups = join_all((0..200).map(|_| mx(&dns, "good.test"))).await;
        assert!(lookups.iter().all(|lookup| text(lookup) == "fresh 10 m.test"), "round {round}");
        assert_eq!(server.asked(), ["udp MX good.test"], "round {round}");
        clock.advance(300 * SECOND); // the second round finds an entry that expired
    }
}

#[tokio::test]
async fn an_asker_who_leaves_takes_no_answer_away() {
    let server = TestServer::start("good.test MX 10 m.test\ngood.test DELAY 200").await;
    let (dns, _) = server.dns();
    let impatient = tokio::time::timeout(Duration::from_millis(50), mx(&dns, "good.test"));
    let (left, stayed) = tokio::join!(impatient, mx(&dns, "good.test"));
    assert!(left.is_err());
    assert_eq!(text(&stayed), "fresh 10 m.test");
    assert_eq!(server.asked().len(), 1);

    let alone = TestServer::start("good.test MX 10 m.test\ngood.test DELAY 200").await;
    let (dns, _) = alone.dns();
    let before = tasks();
    assert!(tokio::time::timeout(Duration::from_millis(50), mx(&dns, "good.test")).await.is_err());
    until("the answer", || tasks() == before).await;
    assert_eq!(text(&mx(&dns, "good.test").await), "cached 10 m.test");
    assert_eq!(alone.asked().len(), 1);
}

/// Each question with what is said and whether the server was asked.
async fn play(server: &TestServer, dns: &Dns, rows: &[(RecordType, &str, &str)]) {
    for (rtype, name, expected) in rows {
        let lookup = dns.ask(question(*rtype, name), &account(CLIENT)).await;
        assert_eq!(text(&lookup), *expected, "{rtype} {name}");
        assert_eq!(lookup.evidence.question, question(*rtype, name));
        let asked = usize::from(expected.starts_with("fresh"));
        assert_eq!(server.asked().len(), asked, "{rtype} {name}");
    }
}

#[tokio::test]
async fn nxdomain_denies_the_type_that_was_asked_for_and_no_name_below() {
    use RecordType::{A, Aaaa, Mx};
    let zone = "half.test NXDOMAIN AAAA\nhalf.test NXDOMAIN MX\nhalf.test A 192.0.2.1\ntest TXT x
         ent.test NXDOMAIN MX\nent.test NXDOMAIN A\nhost.ent.test MX 10 m.test";
    let server = TestServer::start(zone).await;
    let (dns, clock) = server.dns();
    let rows = [
        (Aaaa, "half.test", "fresh NXDOMAIN"),
        (A, "half.test", "fresh 192.0.2.1"),
        (Mx, "half.test", "fresh NXDOMAIN"),
        (Mx, "half.test", "cached NXDOMAIN"),
        (A, "half.test", "cached 192.0.2.1"),
        // an empty non-terminal that is broken
        (Mx, "ent.test", "fresh NXDOMAIN"),
        (A, "ent.test", "fresh NXDOMAIN"),
        (Mx, "host.ent.test", "fresh 10 m.test"),
        // a stranger asks for the name above
        (Mx, "gone.test", "fresh NXDOMAIN"),
        (Mx, "a.gone.test", "fresh NXDOMAIN"),
        (A, "gone.test", "fresh NXDOMAIN"),
        (A, "a.gone.test", "fresh NXDOMAIN"),
        (A, "gone.test", "cached NXDOMAIN"),
    ];
    play(&server, &dns, &rows).await;
    clock.advance(NEGATIVE_TTL);
    play(&server, &dns, &[(Mx, "gone.test", "fresh NXDOMAIN")]).await;
}

#[tokio::test]
async fn what_dnssec_proves_not_to_exist_has_no_type_and_nothing_below_it() {
    use RecordType::{A, Mx, Txt};
    let server = TestServer::start("secure.test SECURE\nsecure.test TXT x").await;
    let (dns, clock) = server.dns();
    let rows = [
        (Mx, "gone.secure.test", "fresh NXDOMAIN"),
        (A, "gone.secure.test", "cached NXDOMAIN"),
        (Txt, "b.a.gone.secure.test", "cached NXDOMAIN"),
        (Mx, "notgone.secure.test", "fresh NXDOMAIN"),
        (Mx, "secure.test", "fresh no record of this type"),
        (A, "secure.test", "fresh no record of this type"),
    ];
    play(&server, &dns, &rows).await;
    assert_eq!(a(&dns, "gone.secure.test").await.evidence.ttl_left, NEGATIVE_TTL);
    clock.advance(NEGATIVE_TTL);
    play(&server, &dns, &[(A, "a.gone.secure.test", "fresh NXDOMAIN")]).await;
}

#[tokio::test]
async fn nxdomain_behind_an_alias_denies_its_target_where_all_of_the_way_is_proven() {
    use RecordType::{A, Mx};
    let zone = "signed.test SECURE\nsigned.test TXT x\nplain.test TXT x
         s.signed.test CNAME gone1.signed.test\np.plain.test CNAME gone2.signed.test
         out.signed.test CNAME gone3.plain.test\nbelow.s.signed.test A 127.0.0.1
         bare.plain.test CNAME gone4.signed.test\nbare.plain.test BARE
         fine.signed.test CNAME gone5.signed.test\nfine.signed.test BARE";
    let server = TestServer::start(zone).await;
    let (dns, _) = server.dns();
    let rows = [
        (Mx, "s.signed.test", "fresh NXDOMAIN"),
        (A, "below.gone1.signed.test", "cached NXDOMAIN"),
        (A, "below.s.signed.test", "fresh 127.0.0.1"), // the alias exists
        (A, "s.signed.test", "fresh NXDOMAIN"),
        (Mx, "p.plain.test", "fresh NXDOMAIN"),
        (Mx, "p.plain.test", "cached NXDOMAIN"),
        (Mx, "gone2.signed.test", "fresh NXDOMAIN"),
        (A, "below.gone2.signed.test", "cached NXDOMAIN"), // by the question before
        (Mx, "out.signed.test", "fresh NXDOMAIN"),
        (Mx, "gone3.plain.test", "fresh NXDOMAIN"),
        (A, "below.gone3.plain.test", "fresh NXDOMAIN"),
    ];
    play(&server, &dns, &rows).await;
    for (alias, target, proven) in [
        ("bare.plain.test", "gone4.signed.test", "fresh NXDOMAIN"),
        ("fine.signed.test", "gone5.signed.test", "cached NXDOMAIN"),
    ] {
        assert_eq!(text(&mx(&dns, alias).await), "fresh NXDOMAIN");
        assert_eq!(server.asked().len(), 2, "the alias, and what it leads to");
        assert_eq!(text(&a(&dns, target).await), proven, "{alias}");
        server.asked();
    }
}

#[tokio::test]
async fn aliases_are_followed_and_circles_are_trouble() {
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

async fn text_of(dns: &Dns, name: &str) -> String {
    text(&mx(dns, name).await)
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
    assert_eq!(text(&mx(&dns, "big.test").await), "fresh broken answer");
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
async fn trouble_keeps_the_deadline_and_tells_what_was_said() {
    let silent = TestServer::start("x.test DROP\ny.test DROP").await;
    let failing = TestServer::start("x.test SERVFAIL\ny.test REFUSED").await;
    let rows: [(&[SocketAddr], &str, &str); 3] = [
        (&[silent.address()], "x.test", "fresh time-out"),
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
async fn trouble_is_forgotten_after_seconds() {
    let server = TestServer::start("good.test SERVFAIL").await;
    let (dns, clock) = server.dns();
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh SERVFAIL");
    server.set("good.test MX 10 m.test");
    clock.advance(4 * SECOND);
    assert_eq!(text(&mx(&dns, "good.test").await), "cached SERVFAIL");
    clock.advance(SECOND);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
}

#[tokio::test]
async fn an_expired_answer_is_held_while_dns_fails_and_no_longer_than_stale() {
    let server = TestServer::start("good.test 10 MX 10 m.test\ntxt.test TXT x").await;
    let (dns, clock) = server.dns();
    mx(&dns, "good.test").await;
    mx(&dns, "txt.test").await;
    server.set("good.test SERVFAIL\ntxt.test SERVFAIL");
    clock.advance(NEGATIVE_TTL);
    assert_eq!(mx(&dns, "txt.test").await.stale, None, "absence is never used stale");
    for round in 0..3 {
        let lookup = mx(&dns, "good.test").await;
        assert_eq!(text(&lookup), "fresh SERVFAIL");
        let stale = lookup.stale.unwrap();
        assert_eq!((stale.freshness, stale.ttl_left), (Freshness::Stale, Duration::ZERO));
        assert_eq!(stale.age, NEGATIVE_TTL + round * 5 * SECOND);
        assert_eq!(stale.answer.to_string(), "10 m.test");
        assert!(mx(&dns, "good.test").await.stale.is_some(), "from the cached failure too");
        clock.advance(5 * SECOND);
    }
    clock.advance(86_400 * SECOND);
    assert_eq!(mx(&dns, "good.test").await.stale, None);

    server.set("good.test TXT x");
    clock.advance(5 * SECOND);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh no record of this type");
    server.set("good.test SERVFAIL");
    clock.advance(NEGATIVE_TTL);
    assert_eq!(mx(&dns, "good.test").await.stale, None, "what was revoked does not come back");
}

#[tokio::test]
async fn past_the_bound_an_asker_is_told_busy_which_is_not_remembered() {
    let server = TestServer::start("good.test MX 10 m.test").await;
    let quick = Settings { timeout: Duration::from_millis(100), ..settings(&[server.address()]) };
    let dns = Dns::new(quick).unwrap();
    let all: Vec<_> = (0..MAX_PER_CLIENT).map(|_| dns.0.quota.admit(CLIENT, Urgency::Refuses)).collect();
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh too many questions under way");
    drop(all);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
    assert_eq!(dns.0.quota.counts(), (0, 0, 0));
}

#[tokio::test]
async fn without_servers_the_system_is_asked_for_them_or_the_error_says_so() {
    match Dns::new(settings(&[])) {
        Ok(dns) => assert_eq!(
            Some(dns.0.settings.servers.len()),
            server::system_servers().ok().map(|list| list.len())
        ),
        Err(error) => assert!(error.to_string().starts_with("dns.servers is empty"), "{error}"),
    }
}

#[tokio::test]
async fn a_client_with_a_thousand_names_leaves_room_for_the_others() {
    let names: Vec<String> = (0..MAX_UNDER_WAY * 2).map(|nth| format!("n{nth}.slow.test")).collect();
    let zone: String = names.iter().map(|name| format!("{name} DROP\n")).collect();
    let server =
        TestServer::start(&format!("{zone}good.test MX 10 mail.good.test\nwarm.test MX 10 m.test")).await;
    let patient = Settings { timeout: 5 * SECOND, ..settings(&[server.address()]) };
    let dns = Dns::with_clock(patient, Clock::standing()).unwrap();
    mx(&dns, "warm.test").await;
    server.asked();
    let flood = {
        let dns = dns.clone();
        tokio::spawn(async move { join_all(names.iter().map(|name| mx(&dns, name))).await })
    };
    let under_way = RefCell::new(HashSet::new());
    until("as many questions as it may have under way", || {
        under_way.borrow_mut().extend(server.asked());
        under_way.borrow().len() >= MAX_PER_CLIENT
    })
    .await;
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    let under_way = under_way.into_inner().into_iter().chain(server.asked()).collect::<HashSet<_>>();
    assert_eq!(under_way.len(), MAX_PER_CLIENT + 1, "no more than that, and the other client's");
    assert_eq!(text(&mx(&dns, "warm.test").await), "cached 10 m.test", "its own warm answers are there too");
    let flood = flood.await.unwrap();
    let busy = flood.iter().filter(|lookup| text(lookup).ends_with("too many questions under way")).count();
    assert!(busy >= MAX_UNDER_WAY, "{busy} of {} were too many", flood.len());
    assert_eq!(text(&mx(&dns, "n0.good.test").await), "fresh NXDOMAIN", "afterwards it may ask again");
}

/// Nothing below `slow.test` is answered.
const SILENT_BUT_FOR_ONE: &str = "*.slow.test DROP\ngood.test MX 10 mail.good.test";

/// Waits until this holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(30 * SECOND, wait).await.unwrap_or_else(|_elapsed| panic!("{what}: not in time"));
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Another client asks for the name that is answered.
async fn another(dns: &Dns) -> String {
    let other = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    text(&dns.ask(question(RecordType::Mx, "good.test"), &account(other)).await)
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_any_more_is_not_asked() {
    let server = TestServer::start(SILENT_BUT_FOR_ONE).await;
    let (dns, _) = server.dns();
    let (before, began) = (tasks(), tokio::time::Instant::now());
    for nth in 0..5_000 {
        // MAIL and RSET at once, without end
        assert!(mx(&dns, &format!("n{nth}.slow.test")).now_or_never().is_none());
        if nth % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, 0, 1), "those that began are still asked");
    assert!(tasks() - before <= 4 * MAX_PER_CLIENT, "{} tasks more than {before}", tasks() - before);
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    // each time-out makes room for others: on a busy machine the loop may take longer than one
    let rounds =
        usize::try_from(began.elapsed().as_millis() / settings(&[]).timeout.as_millis()).unwrap() + 1;
    until("the end of those that began", || dns.0.quota.counts() == (0, 0, 0)).await;
    let asked: HashSet<String> = server.asked().into_iter().collect();
    assert!((MAX_PER_CLIENT + 1..=rounds * MAX_PER_CLIENT + 1).contains(&asked.len()), "{}", asked.len());
    assert_eq!(text(&mx(&dns, "n0.good.test").await), "fresh NXDOMAIN", "afterwards it may ask again");
}

#[tokio::test]
async fn of_too_many_questions_that_wait_the_last_are_told_busy_at_once() {
    let server = TestServer::start(SILENT_BUT_FOR_ONE).await;
    let patient = Settings { timeout: 20 * SECOND, ..settings(&[server.address()]) };
    let dns = Dns::new(patient).unwrap();
    let before = tasks();
    let (mut waiting, mut busy) = (Vec::new(), 0);
    const ADMITTED: usize = MAX_PER_CLIENT + MAX_WAITING_PER_CLIENT;
    for nth in 0..ADMITTED + 500 {
        let dns = dns.clone();
        let mut asked = Box::pin(async move { mx(&dns, &format!("n{nth}.slow.test")).await });
        match (&mut asked).now_or_never() {
            None => waiting.push(asked),
            Some(lookup) => {
                assert_eq!(text(&lookup), "fresh too many questions under way");
                busy += 1;
            }
        }
        if nth % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((waiting.len(), busy), (ADMITTED, 500));
    assert!(tasks() - before <= 4 * MAX_PER_CLIENT, "{} tasks more than {before}", tasks() - before);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh too many questions under way");
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    assert_eq!(text(&mx(&dns, "good.test").await), "cached 10 mail.good.test", "busy is not remembered");
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, MAX_WAITING_PER_CLIENT, 1));
    drop(waiting);
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, 0, 1), "those that began are still asked");
}

#[tokio::test]
async fn one_who_is_told_busy_has_the_expired_answer() {
    let server = TestServer::start("good.test 10 MX 10 m.test").await;
    let (dns, clock) = server.dns();
    mx(&dns, "good.test").await;
    clock.advance(10 * SECOND);
    let all: Vec<_> = (0..MAX_PER_CLIENT + MAX_WAITING_PER_CLIENT)
        .map(|_| dns.0.quota.admit(CLIENT, Urgency::Refuses).unwrap())
        .collect();
    let lookup = mx(&dns, "good.test").await;
    assert_eq!(text(&lookup), "fresh too many questions under way");
    assert_eq!(lookup.stale.unwrap().answer.to_string(), "10 m.test");
    drop(all);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
}

#[tokio::test]
async fn what_is_forgotten_is_asked_again_with_all_below_it_and_what_denies_it_from_above() {
    let zone = "good.test MX 10 m.good.test\nm.good.test A 192.0.2.1\nverygood.test MX 10 m.test\nother.test TXT x\nsigned.test SECURE";
    let server = TestServer::start(zone).await;
    let dns = Dns::new(settings(&[server.address()])).unwrap();
    let name = |text: &str| DomainName::parse(text).unwrap();
    for asked in ["good.test", "verygood.test", "gone.test", "gone.signed.test"] {
        mx(&dns, asked).await;
    }
    mx(&dns, "m.good.test").await;
    assert_eq!(dns.forget(&name("unknown.test")).await, 0);
    assert_eq!(dns.forget(&name("good.test")).await, 2);
    assert_eq!(dns.forget(&name("good.test")).await, 0);
    server.asked();
    assert_eq!(mx(&dns, "verygood.test").await.evidence.freshness, Freshness::Cached);
    assert_eq!(mx(&dns, "good.test").await.evidence.freshness, Freshness::Fresh);
    assert_eq!(server.asked().len(), 1);
    assert_eq!(dns.forget(&name("x.gone.test")).await, 0, "that gone.test has no MX says nothing of it");
    assert_eq!(dns.forget(&name("x.gone.signed.test")).await, 1, "this is proven not to exist from above");
    assert_eq!(dns.forget(&name("gone.test")).await, 1);
}

#[tokio::test]
async fn each_look_up_is_counted_once_by_what_the_cache_held() {
    let zone = "good.test 10 MX 10 m.test\nslow.test MX 10 m.test\nslow.test DELAY 200\nfails.test SERVFAIL";
    let server = TestServer::start(zone).await;
    let (metrics, clock) = (Metrics::default(), Clock::standing());
    let dns = Dns::start(settings(&[server.address()]), clock.clone(), metrics.clone()).unwrap();
    let counted = |name: &str| {
        let text = metrics.text(&gauges(), Format::Prometheus);
        let line = text.lines().find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let results = || {
        ["hit", "negative", "miss", "coalesced", "stale"]
            .map(|result| counted(&format!("rmxd_cache_lookups_total{{result=\"{result}\"}}")))
    };
    mx(&dns, "good.test").await;
    assert_eq!(results(), [0, 0, 1, 0, 0]);
    mx(&dns, "good.test").await;
    assert_eq!(results(), [1, 0, 1, 0, 0]);
    mx(&dns, "gone.test").await;
    mx(&dns, "gone.test").await;
    mx(&dns, "gone.test").await;
    assert_eq!(results(), [1, 2, 2, 0, 0]);
    tokio::join!(mx(&dns, "slow.test"), mx(&dns, "slow.test"), mx(&dns, "slow.test"));
    assert_eq!(results(), [1, 2, 3, 2, 0]);
    mx(&dns, "fails.test").await;
    mx(&dns, "fails.test").await;
    assert_eq!(results(), [1, 3, 4, 2, 0], "that asking failed is held too");
    server.set("good.test SERVFAIL");
    clock.advance(Duration::from_secs(20));
    assert!(mx(&dns, "good.test").await.stale.is_some());
    assert_eq!(results(), [1, 3, 4, 2, 1]);
    let queries =
        |outcome: &str| counted(&format!("rmxd_dns_queries_total{{type=\"MX\",outcome=\"{outcome}\"}}"));
    assert_eq!(["found", "no_such_domain", "servfail", "timeout"].map(queries), [2, 1, 2, 0]);
    assert_eq!(counted("rmxd_dns_query_seconds_count"), 5);
}

fn gauges() -> Gauges {
    Gauges {
        connections_open: 0,
        connections_limit: 0,
        cache_entries: 0,
        cache_bytes: 0,
        cache_limit_bytes: 0,
        dns_answering: true,
        relay_reachable: true,
        relay_connections_limit: 0,
        history: None,
        started: std::time::SystemTime::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_question_that_others_ask_too_or_the_cache_answers_costs_nothing_and_past_the_budget_none_is_asked()
{
    let zone = "a.test MX 10 m.test\nb.test MX 10 m.test\nslow.test MX 10 m.test\nslow.test DELAY 200";
    let server = TestServer::start(zone).await;
    let (dns, _) = server.dns();
    let poor = Account::new(CLIENT, Budget::of(2), Urgency::Refuses);
    let ask = async |name| text(&dns.ask(question(RecordType::Mx, name), &poor).await);
    mx(&dns, "a.test").await;
    assert_eq!(ask("a.test").await, "cached 10 m.test");
    let (_, joined) = tokio::join!(mx(&dns, "slow.test"), ask("slow.test"));
    assert_eq!((joined.as_str(), poor.budget.left()), ("fresh 10 m.test", 2));
    assert_eq!(ask("b.test").await, "fresh 10 m.test");
    assert_eq!(ask("c.test").await, "fresh NXDOMAIN");
    server.asked();
    assert_eq!(ask("d.test").await, "fresh too many questions");
    assert_eq!((ask("a.test").await.as_str(), server.asked().len()), ("cached 10 m.test", 0));
    assert_eq!(text(&mx(&dns, "d.test").await), "fresh NXDOMAIN", "it is not remembered");
}

#[tokio::test]
async fn every_step_along_aliases_is_paid_for_and_who_can_pay_more_is_not_held_to_another_s_budget() {
    let zone =
        "a.test CNAME b.test\na.test BARE\nb.test CNAME c.test\nb.test BARE\nc.test CNAME d.test\nc.test BARE
        d.test MX 10 m.test\na.test DELAY 100";
    let server = TestServer::start(zone).await;
    let (dns, _) = server.dns();
    let poor = Account::new(CLIENT, Budget::of(2), Urgency::Refuses);
    let ask = async || text(&dns.ask(question(RecordType::Mx, "a.test"), &poor).await);
    let (short, whole) = tokio::join!(ask(), mx(&dns, "a.test"));
    assert_eq!((short.as_str(), text(&whole).as_str()), ("fresh too many questions", "fresh 10 m.test"));
    assert_eq!(server.asked().len(), 2 + 4);
    let rich = Account::new(CLIENT, Budget::of(9), Urgency::Refuses);
    server.set("x.test CNAME y.test\nx.test BARE\ny.test MX 10 m.test");
    dns.ask(question(RecordType::Mx, "x.test"), &rich).await;
    assert_eq!(rich.budget.left(), 7);
}

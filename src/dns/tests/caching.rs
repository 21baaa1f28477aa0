//! What is kept of answers, and for how long.

use super::*;

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
async fn cached_answers_outlive_other_settings_but_not_other_servers() {
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
async fn many_callers_cost_one_question() {
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
async fn a_cancelled_caller_takes_no_answer_from_another() {
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
async fn a_failure_is_cached_for_five_seconds() {
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
async fn each_lookup_is_counted_once_by_what_the_cache_held() {
    let zone = "good.test 10 MX 10 m.test\nslow.test MX 10 m.test\nslow.test DELAY 200\nfails.test SERVFAIL";
    let server = TestServer::start(zone).await;
    let (metrics, clock) = (Metrics::default(), Clock::standing());
    let dns = Dns::start(settings(&[server.address()]), clock.clone(), metrics.clone()).unwrap();
    let counted = |name: &str| {
        let text = metrics.text(&Gauges::of_nothing(), Format::Prometheus);
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

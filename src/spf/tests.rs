//! Evaluation over a real server on loopback; what the conformance suite has (tests/it/spf.rs) is not repeated here.

use super::*;
use crate::dns::test_server::TestServer;
use crate::evidence::Freshness;

/// The result for `u@DOMAIN`, and what was asked.
async fn checked(server: &TestServer, domain: &str, client: &str) -> (String, Vec<String>) {
    let (dns, _) = server.dns();
    result(&dns, "u", domain, client).await
}

fn account(client: &str) -> Account {
    Account::new(client.parse().unwrap(), crate::dns::Budget::of(u32::MAX), crate::dns::Urgency::Refuses)
}

async fn result(dns: &Dns, local: &str, domain: &str, client: &str) -> (String, Vec<String>) {
    let domain = DomainName::parse(domain).unwrap();
    let sender = Sender { local, domain: &domain, helo: "helo.test" };
    let checked = check(dns, &account(client), &sender).await;
    let asked = checked.evidence.iter().map(|seen| seen.question.to_string()).collect();
    (checked.outcome.to_string(), asked)
}

const POLICIES: &str = "
    big.test TXT v=spf1 include:_spf.big.test ~all
    _spf.big.test TXT v=spf1 include:_net1.big.test include:_net2.big.test -all
    _net1.big.test TXT v=spf1 ip4:192.0.2.0/24 ip6:2001:db8:1::/48 -all
    _net2.big.test TXT v=spf1 ip4:198.51.100.0/24 -all
    moved.test TXT v=spf1 redirect=big.test
    nowhere.test TXT v=spf1 redirect=gone.test
    emptyinc.test TXT v=spf1 include:gone.test -all
    servfail.test SERVFAIL
    halfbroken.test TXT v=spf1 ip4:192.0.2.1 include:servfail.test -all
    verp.test TXT v=spf1 exists:%{l}._u.verp.test -all
    b+a=x.y._u.verp.test A 127.0.0.2
    perip.test TXT v=spf1 exists:%{ir}.%{v}._ip.perip.test -all
    3.2.0.192.in-addr._ip.perip.test A 127.0.0.2
    hello.test TXT v=spf1 a:%{h} -all
    helo.test A 192.0.2.7
    named.test TXT v=spf1 exists:%{p}._p.named.test -all
    host.named.test._p.named.test A 127.0.0.2
    9.2.0.192.in-addr.arpa PTR other.test
    9.2.0.192.in-addr.arpa PTR host.named.test
    9.2.0.192.in-addr.arpa PTR servfail.test
    other.test A 192.0.2.9
    host.named.test A 192.0.2.9
    bare.test TXT v=spf1 -all
    bare.test TXT proof=of-ownership
    twice.test TXT v=spf1 +all
    twice.test TXT v=spf1 -all
    notext.test A 192.0.2.1
    mapped.test TXT v=spf1 ip4:192.0.2.1 -all
    v4hosts.test TXT v=spf1 mx -all
    v4hosts.test MX 10 a.v4hosts.test
    v4hosts.test MX 20 b.v4hosts.test
    v4hosts.test MX 30 c.v4hosts.test
    a.v4hosts.test A 192.0.2.31
    b.v4hosts.test A 192.0.2.32
    c.v4hosts.test A 192.0.2.33
    mxhalf.test TXT v=spf1 mx -all
    mxhalf.test MX 10 servfail.test
    mxhalf.test MX 20 a.v4hosts.test
    wide.test TXT v=spf1 a:a.v4hosts.test/24 -all
    notset.test TXT v=spf1 a:%{l}.test ?all
";

#[tokio::test]
async fn policies_are_evaluated_as_rfc_7208_says() {
    let server = TestServer::start(POLICIES).await;
    let rows = [
        ("u", "big.test", "192.0.2.77", "pass"),
        ("u", "big.test", "198.51.100.1", "pass"),
        ("u", "big.test", "2001:db8:1::25", "pass"),
        ("u", "big.test", "203.0.113.1", "softfail"),
        ("u", "moved.test", "192.0.2.77", "pass"),
        ("u", "moved.test", "203.0.113.1", "softfail"),
        ("u", "nowhere.test", "192.0.2.1", "permerror"),
        ("u", "emptyinc.test", "192.0.2.1", "permerror"),
        ("u", "servfail.test", "192.0.2.1", "temperror"),
        ("u", "halfbroken.test", "192.0.2.1", "pass"),
        ("u", "halfbroken.test", "192.0.2.2", "temperror"),
        ("B+a=X.y", "verp.test", "192.0.2.1", "pass"),
        ("b+a=x", "verp.test", "192.0.2.1", "fail"),
        ("a..b", "verp.test", "192.0.2.1", "fail"),
        ("b\u{fc}cher", "verp.test", "192.0.2.1", "fail"),
        ("u", "perip.test", "192.0.2.3", "pass"),
        ("u", "perip.test", "192.0.2.4", "fail"),
        ("u", "hello.test", "192.0.2.7", "pass"),
        ("u", "hello.test", "192.0.2.8", "fail"),
        ("u", "named.test", "192.0.2.9", "pass"),
        ("u", "bare.test", "192.0.2.1", "fail"),
        ("u", "twice.test", "192.0.2.1", "permerror"),
        ("u", "notext.test", "192.0.2.1", "none"),
        ("u", "gone.test", "192.0.2.1", "none"),
        ("u", "test", "192.0.2.1", "none"),
        ("u", "mapped.test", "::ffff:192.0.2.1", "pass"),
        ("u", "v4hosts.test", "192.0.2.33", "pass"),
        ("u", "v4hosts.test", "2001:db8::1", "fail"),
        ("u", "mxhalf.test", "192.0.2.31", "pass"),
        ("u", "mxhalf.test", "192.0.2.32", "temperror"),
        ("u", "wide.test", "192.0.2.200", "pass"),
        ("", "notset.test", "192.0.2.1", "neutral"),
    ];
    let (dns, _) = server.dns();
    for (local, domain, client, expected) in rows {
        assert_eq!(result(&dns, local, domain, client).await.0, expected, "{local}@{domain} {client}");
    }
    let (_, asked) = result(&dns, "", "notset.test", "192.0.2.1").await;
    assert_eq!(asked, ["TXT notset.test", "A postmaster.test"]);
}

#[tokio::test]
async fn every_question_is_evidence_once_and_in_order() {
    let server = TestServer::start(POLICIES).await;
    let (outcome, asked) = checked(&server, "big.test", "198.51.100.1").await;
    let expected = ["TXT big.test", "TXT _spf.big.test", "TXT _net1.big.test", "TXT _net2.big.test"];
    assert_eq!((outcome.as_str(), asked), ("pass", expected.map(str::to_owned).to_vec()));
    let (_, asked) = checked(&server, "named.test", "192.0.2.9").await;
    let expected = [
        "TXT named.test",
        "PTR 9.2.0.192.in-addr.arpa",
        "A other.test",
        "A host.named.test",
        "A servfail.test",
        "A host.named.test._p.named.test",
    ];
    assert_eq!(asked, expected);
}

/// A policy whose terms each cost as much as a term may.
fn greedy(terms: usize, hosts: usize) -> String {
    let mut zone = String::from("greedy.test TXT v=spf1");
    for at in 0..terms {
        zone.push_str(&format!(" mx:m{at}.test"));
    }
    zone.push_str(" ?all\n");
    for at in 0..terms {
        for host in 0..hosts {
            zone.push_str(&format!(
                "m{at}.test MX 10 h{host}.m{at}.test\nh{host}.m{at}.test A 192.0.2.200\n"
            ));
        }
    }
    zone
}

#[tokio::test]
async fn no_policy_costs_more_look_ups_than_rfc_7208_allows() {
    let server = TestServer::start(&greedy(10, 10)).await;
    let (outcome, asked) = checked(&server, "greedy.test", "192.0.2.1").await;
    assert_eq!((outcome.as_str(), asked.len()), ("neutral", 111));
    server.set(&greedy(11, 10));
    let (outcome, asked) = checked(&server, "greedy.test", "192.0.2.1").await;
    assert_eq!((outcome.as_str(), asked.len()), ("permerror", 111));
    server.set(&greedy(1, 11));
    let (outcome, asked) = checked(&server, "greedy.test", "192.0.2.200").await;
    assert_eq!((outcome.as_str(), asked.len()), ("permerror", 2), "eleven MX records are one too many");
}

#[tokio::test]
async fn loops_and_depths_end() {
    let mut zone = String::from(
        "loop.test TXT v=spf1 include:loop.test -all
        round.test TXT v=spf1 redirect=trip.test
        trip.test TXT v=spf1 redirect=round.test
        fan.test TXT v=spf1 include:fan.test include:fan.test include:fan.test -all
        grow.test TXT v=spf1 include:x.%{d} -all\n*.grow.test TXT v=spf1 include:x.%{d} -all\n",
    );
    for at in 0..12 {
        zone.push_str(&format!("d{at}.test TXT v=spf1 include:d{}.test ?all\n", at + 1));
    }
    zone.push_str("d12.test TXT v=spf1 +all\n");
    let server = TestServer::start(&zone).await;
    for domain in ["loop.test", "round.test", "fan.test", "d0.test", "d1.test"] {
        let (outcome, asked) = checked(&server, domain, "192.0.2.1").await;
        assert_eq!(outcome, "permerror", "{domain}");
        assert!(asked.len() <= 11, "{domain}: {asked:?}");
    }
    assert_eq!(checked(&server, "d2.test", "192.0.2.1").await.0, "pass", "ten includes, one in the other");
    assert_eq!(checked(&server, "grow.test", "192.0.2.1").await.0, "permerror");
}

#[tokio::test]
async fn two_terms_may_find_nothing() {
    let server = TestServer::start(
        "two.test TXT v=spf1 a:gone1.test mx:gone2.test +all
        three.test TXT v=spf1 a:gone1.test mx:gone2.test exists:gone3.test +all
        ptr.test TXT v=spf1 ptr ptr ptr +all
        nodata.test TXT v=spf1 mx mx a +all",
    )
    .await;
    let rows = [
        ("two.test", "pass"),
        ("three.test", "permerror"),
        ("ptr.test", "permerror"),
        ("nodata.test", "permerror"),
    ];
    for (domain, expected) in rows {
        assert_eq!(checked(&server, domain, "192.0.2.1").await.0, expected, "{domain}");
    }
}

#[tokio::test]
async fn a_record_as_large_as_an_answer_can_be_is_read() {
    // 65 535 octets of message, with the strings' lengths
    let ballast = "ip4:192.0.2.0/24 ".repeat(3_700);
    let zone = |end: &str| format!("large.test TXT v=spf1 {ballast}{end}");
    let server = TestServer::start(&zone("ip4:203.0.113.1 -all")).await;
    assert!(ballast.len() > 62_000);
    for (client, expected) in [("203.0.113.1", "pass"), ("203.0.113.2", "fail")] {
        assert_eq!(checked(&server, "large.test", client).await.0, expected);
    }
    server.set(&zone("ip4:203.0.113 -all"));
    assert_eq!(checked(&server, "large.test", "192.0.2.1").await.0, "permerror", "an error at the very end");
}

#[tokio::test]
async fn a_pass_may_rest_on_an_expired_answer() {
    let server = TestServer::start("held.test TXT v=spf1 ip4:192.0.2.1 -all").await;
    let (dns, clock) = server.dns();
    assert_eq!(result(&dns, "u", "held.test", "192.0.2.1").await.0, "pass");
    server.set("held.test SERVFAIL");
    clock.advance(std::time::Duration::from_secs(3_600));
    let domain = DomainName::parse("held.test").unwrap();
    let sender = Sender { local: "u", domain: &domain, helo: "helo.test" };
    let checked = check(&dns, &account("192.0.2.1"), &sender).await;
    let freshness: Vec<_> = checked.evidence.iter().map(|seen| seen.freshness).collect();
    assert_eq!((checked.outcome, freshness), (SpfResult::Pass, vec![Freshness::Fresh, Freshness::Stale]));
}

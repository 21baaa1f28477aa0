//! The rules over a real server on loopback: one row per domain.

use std::time::Duration;

use super::*;
use std::net::IpAddr;

use crate::dns::test_server::TestServer;
use crate::dns::{Budget, Clock, Urgency};
use crate::evidence::{DnsFailure, Freshness, Target};
use crate::policy::rule::{Action, Rung};

const DOMAINS: &str = "
    good.test MX 10 mail.good.test
    mail.good.test A 127.0.0.10
    several.test MX 30 mx3.several.test
    several.test MX 10 mx1.several.test
    several.test MX 20 mx2.several.test
    mx1.several.test A 127.0.0.21
    mx2.several.test A 127.0.0.22
    mx3.several.test A 127.0.0.23
    v6only.test MX 10 mx.v6only.test
    mx.v6only.test AAAA ::1
    under_score.test MX 10 mail.good.test
    alias.test CNAME good.test
    nomx.test TXT nothing
    a-only.test A 127.0.0.30
    aaaa-only.test AAAA ::1
    nullmx.test MX 0 .
    nullmx-a.test MX 0 .
    nullmx-a.test A 127.0.0.30
    nullmix.test MX 0 .
    nullmix.test MX 10 mail.good.test
    cnamemx.test MX 10 alias.cnamemx.test
    alias.cnamemx.test CNAME mail.good.test
    ipmx.test MX 10 127.0.0.10
    127.0.0.10 A 127.0.0.10
    oddmx.test MX 10 bad\\032name.test
    deadmx.test MX 10 gone.deadmx.test
    emptymx.test MX 10 nomx.test
    oneofthree.test MX 10 gone.deadmx.test
    oneofthree.test MX 20 nomx.test
    oneofthree.test MX 30 mail.good.test
    deadmx-a.test MX 10 gone.deadmx.test
    deadmx-a.test A 127.0.0.30
    loop1.test CNAME loop2.test
    loop2.test CNAME loop1.test
    loopmx.test MX 10 loop1.test
    bogon-priv.test MX 10 mx.bogon-priv.test
    mx.bogon-priv.test A 10.1.2.3
    bogon-mapped.test MX 10 mx.bogon-mapped.test
    mx.bogon-mapped.test AAAA ::ffff:10.1.2.3
    mixedmx.test MX 10 mx.bogon-priv.test
    mixedmx.test MX 20 mx.globalmx.test
    mx.globalmx.test A 9.9.9.9
    servfail.test SERVFAIL
    refused.test REFUSED
    hostfail.test MX 10 servfail.test
    hostmix.test MX 10 servfail.test
    hostmix.test MX 20 mail.good.test
    hostmixdead.test MX 10 servfail.test
    hostmixdead.test MX 20 gone.deadmx.test
    host1.out.good.test A 127.0.3.8
    host.nomxorg.test A 127.0.3.9
    nomxorg.test TXT nothing
    out.servfail.test TXT nothing
    mxdenied.test NXDOMAIN MX
    mxdenied.test AAAA ::1
    mxdenied.test A 127.0.0.30
    mxdeniedonly.test NXDOMAIN MX
    mxdeniedonly.test TXT nothing
    mxdeniedfail.test NXDOMAIN MX
    mxdeniedfail.test SERVFAIL A
    adenied.test MX 10 mx.adenied.test
    mx.adenied.test NXDOMAIN A
    mx.adenied.test AAAA ::1
    ent.test NXDOMAIN MX
    host.ent.test MX 10 mail.good.test
    broken.good.test NXDOMAIN MX
    broken.good.test TXT nothing
    brokenfail.good.test NXDOMAIN MX
    brokenfail.good.test NXDOMAIN A
    brokenfail.good.test SERVFAIL AAAA
    sends.good.test TXT nothing
    nullmx.good.test MX 0 .
    deadmx.good.test MX 10 gone.deadmx.test
    servfail.good.test SERVFAIL
    matchfail.test MX 10 mx1.several.test
    matchfail.test MX 20 servfail.test
    mapped.test MX 10 mx.mapped.test
    mx.mapped.test AAAA ::ffff:127.0.0.10
    prefix.test MX 10 mx.prefix.test
    mx.prefix.test A 127.0.5.10
    prefix6.test MX 10 mx.prefix6.test
    mx.prefix6.test AAAA 2001:db8:0:1::1
";

fn settings(private_addresses: PrivateAddresses) -> Settings {
    Settings { max_mx_hosts: 20, private_addresses, match_prefix_v4: 24, match_prefix_v6: 64 }
}

fn rules(exists_by: &[Rung], matches_by: &[Rung]) -> IdentityRules {
    let action = |rungs: &[Rung]| if rungs.is_empty() { Action::Off } else { Action::Reject };
    IdentityRules {
        exists: action(exists_by),
        matches: action(matches_by),
        exists_by: exists_by.to_vec(),
        matches_by: matches_by.to_vec(),
    }
}

fn account(client: IpAddr) -> Account {
    Account::new(client, Budget::of(u32::MAX), Urgency::Refuses)
}

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn text(outcome: RuleResult) -> String {
    match outcome {
        RuleResult::Pass(rung) => format!("pass {rung}"),
        RuleResult::Fail(reason) => format!("fail {reason}"),
        RuleResult::TempError(trouble) => format!("temperror {trouble}"),
        RuleResult::None(_) => "none".to_owned(),
    }
}

/// Zone server and rules over it.
struct Bench {
    server: TestServer,
    clock: Clock,
    rules: ReverseMx,
}

impl Bench {
    async fn new(zone: &str, settings: Settings) -> Self {
        let server = TestServer::start(zone).await;
        let (dns, clock) = server.dns();
        Self { server, clock, rules: ReverseMx::new(dns, settings) }
    }

    async fn inspect(&self, name: &str, rules: &IdentityRules, client: &str) -> Vec<Finding> {
        let client = client.parse().unwrap();
        let (text, domain) = (format!("u@{name}"), domain(name));
        let (identity, helo) = (Identity::MailFrom, "helo.test");
        let subject = Subject { identity, text: &text, domain: &domain, helo, envelope: None };
        self.rules.inspect(&subject, rules, &account(client)).await
    }

    async fn exists(&self, name: &str, by: &[Rung]) -> String {
        text(self.inspect(name, &rules(by, &[]), "127.0.0.10").await[0].outcome)
    }

    async fn matches(&self, name: &str, by: &[Rung], client: &str) -> String {
        text(self.inspect(name, &rules(&[], by), client).await[0].outcome)
    }
}

#[tokio::test]
async fn exists_passes_for_valid_domains_only() {
    use Rung::{Address, Mx, Organization};
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    let rows: [(&str, &[Rung], &str); 64] = [
        ("good.test", &[Mx], "pass mx"),
        ("several.test", &[Mx], "pass mx"),
        ("v6only.test", &[Mx], "pass mx"),
        ("under_score.test", &[Mx], "pass mx"),
        ("alias.test", &[Mx], "pass mx"),
        ("nullmix.test", &[Mx], "pass mx"),
        ("cnamemx.test", &[Mx], "pass mx"),
        ("oneofthree.test", &[Mx], "pass mx"),
        ("hostmix.test", &[Mx], "pass mx"),
        ("bogon-priv.test", &[Mx], "pass mx"),
        ("nxdomain.test", &[Mx], "fail no_such_domain"),
        ("nomx.test", &[Mx], "fail no_mx"),
        ("a-only.test", &[Mx], "fail no_mx"),
        ("nullmx.test", &[Mx], "fail null_mx"),
        ("ipmx.test", &[Mx], "fail mx_unresolvable"),
        ("oddmx.test", &[Mx], "fail mx_unresolvable"),
        ("deadmx.test", &[Mx], "fail mx_unresolvable"),
        ("emptymx.test", &[Mx], "fail mx_unresolvable"),
        ("localhost", &[Mx], "fail invalid_domain"),
        ("127.0.0.10", &[Mx], "fail invalid_domain"),
        ("servfail.test", &[Mx], "temperror SERVFAIL"),
        ("refused.test", &[Mx], "temperror REFUSED"),
        ("loop1.test", &[Mx], "temperror CNAME loop"),
        ("loopmx.test", &[Mx], "temperror CNAME loop"),
        ("hostfail.test", &[Mx], "temperror SERVFAIL"),
        ("hostmixdead.test", &[Mx], "temperror SERVFAIL"),
        ("a-only.test", &[Mx, Address], "pass address"),
        ("aaaa-only.test", &[Mx, Address], "pass address"),
        ("nomx.test", &[Mx, Address], "fail no_mx"),
        ("nxdomain.test", &[Mx, Address], "fail no_such_domain"),
        ("nullmx-a.test", &[Mx, Address], "fail null_mx"),
        ("deadmx-a.test", &[Mx, Address], "fail mx_unresolvable"),
        ("servfail.test", &[Mx, Address], "temperror SERVFAIL"),
        // NXDOMAIN of one type is an answer about that type
        ("mxdenied.test", &[Mx], "fail no_such_domain"),
        ("mxdenied.test", &[Mx, Address], "pass address"),
        ("mxdeniedonly.test", &[Mx, Address], "fail no_such_domain"),
        ("mxdeniedfail.test", &[Mx], "fail no_such_domain"),
        ("mxdeniedfail.test", &[Mx, Address], "temperror SERVFAIL"),
        ("adenied.test", &[Mx], "pass mx"),
        ("ent.test", &[Mx], "fail no_such_domain"),
        ("host.ent.test", &[Mx], "pass mx"),
        ("broken.good.test", &[Mx], "fail no_such_domain"),
        ("broken.good.test", &[Mx, Organization], "pass organization"),
        ("broken.good.test", &[Mx, Address, Organization], "pass organization"),
        ("brokenfail.good.test", &[Mx, Organization], "temperror SERVFAIL"),
        // names below arpa
        ("1.0.0.127.in-addr.arpa", &[Mx, Address], "fail invalid_domain"),
        ("x.ARPA", &[Mx], "fail invalid_domain"),
        ("arpa", &[Mx], "fail invalid_domain"),
        ("arpa.test", &[Mx], "fail no_such_domain"),
        ("xarpa", &[Mx], "fail invalid_domain"),
        ("good.xarpa", &[Mx], "fail no_such_domain"),
        ("host1.out.good.test", &[Mx, Organization], "pass organization"),
        ("gone.good.test", &[Mx, Organization], "fail no_such_domain"),
        ("sends.good.test", &[Mx, Address, Organization], "pass organization"),
        ("deadmx.good.test", &[Mx, Organization], "pass organization"),
        ("gone.good.test", &[Mx, Address, Organization], "fail no_such_domain"),
        ("gone.good.test", &[Organization], "fail no_such_domain"),
        ("nullmx.good.test", &[Mx, Address, Organization], "fail null_mx"),
        ("nullmx.good.test", &[Organization], "fail null_mx"),
        ("servfail.good.test", &[Organization], "temperror SERVFAIL"),
        ("good.test", &[Organization], "pass organization"),
        ("host.nomxorg.test", &[Mx, Organization], "fail no_mx"),
        ("nomxorg.test", &[Mx, Organization], "fail no_mx"),
        ("out.servfail.test", &[Mx, Organization], "temperror SERVFAIL"),
    ];
    for (name, by, expected) in rows {
        assert_eq!(bench.exists(name, by).await, expected, "{name} {by:?}");
    }
}

#[tokio::test]
async fn unroutable_exchangers_do_not_count_unless_the_operator_says_so() {
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Reject)).await;
    let rows = [
        ("bogon-priv.test", "fail mx_unroutable"),
        ("bogon-mapped.test", "fail mx_unroutable"),
        ("v6only.test", "fail mx_unroutable"),
        ("a-only.test", "fail no_mx"),
        ("mixedmx.test", "pass mx"),
    ];
    for (name, expected) in rows {
        assert_eq!(bench.exists(name, &[Rung::Mx, Rung::Address]).await, expected, "{name}");
    }
    assert_eq!(bench.matches("bogon-priv.test", &[Rung::Mx], "10.1.2.3").await, "fail not_an_exchanger");
    assert_eq!(bench.matches("mixedmx.test", &[Rung::Mx], "9.9.9.9").await, "pass mx");
    for (address, expected) in [("9.9.9.9", true), ("::ffff:9.9.9.9", true), ("::ffff:10.1.2.3", false)] {
        assert_eq!(bench.rules.is_usable(address.parse().unwrap()), expected, "{address}");
    }
}

#[tokio::test]
async fn a_domain_that_may_be_its_own_exchanger_matches_by_its_own_address() {
    use Rung::{Address, Mx};
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    let rows: [(&[Rung], &str, &str); 3] = [
        (&[Mx, Address], "127.0.0.30", "pass mx"),
        (&[Mx, Address], "127.0.0.31", "fail not_an_exchanger"),
        (&[Mx], "127.0.0.30", "fail not_an_exchanger"),
    ];
    for name in ["a-only.test", "mxdenied.test"] {
        for (exists_by, client, expected) in rows {
            let findings = bench.inspect(name, &rules(exists_by, &[Mx]), client).await;
            assert_eq!(text(findings[1].outcome), expected, "{name} {exists_by:?} {client}");
        }
    }
    let findings = bench.inspect("mxdeniedfail.test", &rules(&[Mx, Address], &[Mx]), "127.0.0.30").await;
    assert_eq!(text(findings[1].outcome), "temperror SERVFAIL");
}

#[tokio::test]
async fn matches_compares_the_client_with_every_exchanger() {
    use Rung::{Mx, Network};
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    let rows: [(&str, &[Rung], &str, &str); 21] = [
        ("several.test", &[Mx], "127.0.0.21", "pass mx"),
        ("several.test", &[Mx], "127.0.0.23", "pass mx"),
        ("several.test", &[Mx], "::ffff:127.0.0.23", "pass mx"),
        ("several.test", &[Mx], "127.0.0.99", "fail not_an_exchanger"),
        ("several.test", &[Mx, Network], "127.0.0.99", "pass network"),
        ("several.test", &[Network, Mx], "127.0.0.21", "pass network"),
        ("several.test", &[Mx, Network], "127.0.0.21", "pass mx"),
        ("several.test", &[Mx, Network], "127.0.1.21", "fail not_an_exchanger"),
        ("v6only.test", &[Mx], "::1", "pass mx"),
        ("v6only.test", &[Mx], "127.0.0.1", "fail not_an_exchanger"),
        ("prefix.test", &[Mx, Network], "127.0.5.77", "pass network"),
        ("prefix.test", &[Mx, Network], "127.0.6.77", "fail not_an_exchanger"),
        ("prefix6.test", &[Network], "2001:db8:0:1:ffff::9", "pass network"),
        ("prefix6.test", &[Network], "2001:db8:0:2::1", "fail not_an_exchanger"),
        ("matchfail.test", &[Mx], "127.0.0.21", "pass mx"),
        ("matchfail.test", &[Mx], "127.0.0.99", "temperror SERVFAIL"),
        ("nxdomain.test", &[Mx], "127.0.0.10", "fail not_an_exchanger"),
        ("nomx.test", &[Mx], "127.0.0.10", "fail not_an_exchanger"),
        ("nullmx.test", &[Mx], "127.0.0.10", "fail not_an_exchanger"),
        ("servfail.test", &[Mx], "127.0.0.10", "temperror SERVFAIL"),
        ("localhost", &[Mx], "127.0.0.10", "fail invalid_domain"),
    ];
    for (name, by, client, expected) in rows {
        assert_eq!(bench.matches(name, by, client).await, expected, "{name} {by:?} {client}");
    }
}

#[tokio::test]
async fn only_the_first_hosts_by_preference_are_looked_at() {
    let mut zone = String::new();
    for at in 1..=25 {
        zone.push_str(&format!("many.test MX {at} h{at}.many.test\nh{at}.many.test A 127.0.2.{at}\n"));
        let host = if at > 20 { format!("h{at}.many.test") } else { format!("n{at}.dead.test") };
        zone.push_str(&format!("manydead.test MX {at} {host}\n"));
    }
    let bench = Bench::new(&zone, settings(PrivateAddresses::Accept)).await;
    let rows = [("127.0.2.1", "pass mx"), ("127.0.2.20", "pass mx"), ("127.0.2.21", "fail not_an_exchanger")];
    for (client, expected) in rows {
        assert_eq!(bench.matches("many.test", &[Rung::Mx], client).await, expected, "{client}");
    }
    assert_eq!(bench.exists("manydead.test", &[Rung::Mx]).await, "fail mx_unresolvable");
}

#[tokio::test]
async fn hosts_with_an_unroutable_address_are_not_counted_as_dead() {
    let mut zone = String::new();
    for at in 1..=12 {
        let address = if at == 12 { "9.9.9.9" } else { "10.1.2.3" };
        zone.push_str(&format!("late.test MX {at} h{at}.late.test\nh{at}.late.test A {address}\n"));
    }
    let bench = Bench::new(&zone, settings(PrivateAddresses::Reject)).await;
    assert_eq!(bench.exists("late.test", &[Rung::Mx]).await, "pass mx");
}

#[tokio::test]
async fn one_lookup_is_enough_for_a_domain_in_order_and_none_for_what_cannot_be_asked() {
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    let both = rules(&[Rung::Mx], &[Rung::Mx]);
    let findings = bench.inspect("several.test", &rules(&[Rung::Mx], &[]), "127.0.0.21").await;
    assert_eq!(bench.server.asked(), ["udp MX several.test", "udp A mx1.several.test"]);
    assert_eq!(findings.len(), 1);
    let finding = &findings[0];
    assert_eq!((finding.domain.as_str(), finding.subject.as_str()), ("several.test", "u@several.test"));
    let shown: Vec<_> =
        finding.evidence.iter().map(|seen| format!("{} -> {}", seen.question, seen.answer)).collect();
    assert_eq!(
        shown,
        [
            "MX several.test -> 10 mx1.several.test, 20 mx2.several.test, 30 mx3.several.test",
            "A mx1.several.test -> 127.0.0.21"
        ]
    );

    let findings = bench.inspect("localhost", &both, "127.0.0.21").await;
    assert_eq!(findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), Rule::ALL);
    assert!(findings.iter().all(|finding| finding.evidence.is_empty()));
    assert!(bench.inspect("good.test", &rules(&[], &[]), "127.0.0.21").await.is_empty());
    assert!(bench.server.asked().is_empty());

    bench.inspect("good.test", &both, "127.0.0.10").await;
    let mut asked = bench.server.asked();
    asked.sort();
    assert_eq!(asked, ["udp A mail.good.test", "udp MX good.test"], "both rules share their questions");
}

#[tokio::test]
async fn a_name_that_does_not_exist_costs_three_questions_or_one_where_dnssec_proves_it() {
    let all = [Rung::Mx, Rung::Address, Rung::Organization];
    let both = rules(&all, &[Rung::Mx]);
    let bench = Bench::new("test TXT x\nsigned.test SECURE", settings(PrivateAddresses::Accept)).await;
    let rows: [(&str, &[&str]); 4] = [
        ("one.gone.test", &["udp A one.gone.test", "udp AAAA one.gone.test", "udp MX one.gone.test"]),
        ("one.gone.test", &[]),
        ("gone.signed.test", &["udp MX gone.signed.test"]),
        ("below.gone.signed.test", &[]),
    ];
    for (name, expected) in rows {
        let findings = bench.inspect(name, &both, "127.0.0.10").await;
        assert_eq!(text(findings[0].outcome), "fail no_such_domain", "{name}");
        assert_eq!(text(findings[1].outcome), "fail not_an_exchanger", "{name}");
        let mut asked = bench.server.asked();
        asked.sort();
        assert_eq!(asked, expected, "{name}");
        let shown: Vec<_> = findings[0].evidence.iter().map(|seen| seen.question.to_string()).collect();
        let expected = ["MX", "A", "AAAA"].map(|rtype| format!("{rtype} {name}"));
        assert_eq!(shown, expected, "the answers that the refusal rests on");
    }
}

#[tokio::test]
async fn names_below_arpa_are_no_senders_and_are_not_asked_for_but_a_client_may_have_such_a_name() {
    let zone = "4.4.0.127.in-addr.arpa PTR host.4.0.127.in-addr.arpa\nhost.4.0.127.in-addr.arpa A 127.0.4.4
        host.4.0.127.in-addr.arpa MX 10 host.4.0.127.in-addr.arpa";
    let bench = Bench::new(zone, settings(PrivateAddresses::Accept)).await;
    let (client, domain) = ("127.0.4.4".parse::<IpAddr>().unwrap(), domain("host.4.0.127.in-addr.arpa"));
    let both = rules(&[Rung::Mx, Rung::Address, Rung::Organization], &[Rung::Mx, Rung::Ptr, Rung::Spf]);
    for identity in [Identity::Helo, Identity::MailFrom, Identity::From, Identity::ReplyTo] {
        let subject = Subject { identity, text: "u@x", domain: &domain, helo: "helo.test", envelope: None };
        let findings = bench.rules.inspect(&subject, &both, &account(client)).await;
        let outcomes: Vec<_> = findings.iter().map(|finding| text(finding.outcome)).collect();
        assert_eq!(outcomes, ["fail invalid_domain"; 2], "{identity:?}");
        assert!(findings.iter().all(|finding| finding.evidence.is_empty()));
    }
    assert!(bench.server.asked().is_empty());
    let names = bench.rules.names_of(&account(client)).await;
    let mut findings = Vec::new();
    for rule in both.active() {
        findings.push(bench.rules.inspect_ptr(rule, &names, &both, &account(client)).await);
    }
    let outcomes: Vec<_> = findings.iter().map(|finding| text(finding.outcome)).collect();
    assert_eq!(outcomes, ["pass mx", "pass mx"]);
}

#[tokio::test]
async fn evidence_is_complete_in_order_and_without_repetition() {
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    let rungs = rules(&[Rung::Mx, Rung::Address, Rung::Organization], &[]);
    let finding = &bench.inspect("host.nomxorg.test", &rungs, "127.0.0.1").await[0];
    let asked: Vec<_> = finding.evidence.iter().map(|seen| seen.question.to_string()).collect();
    assert_eq!(asked, ["MX host.nomxorg.test", "A host.nomxorg.test"]);
    let finding = &bench.inspect("oneofthree.test", &rungs, "127.0.0.1").await[0];
    let asked: Vec<_> = finding.evidence.iter().map(|seen| seen.question.to_string()).collect();
    assert_eq!(asked[..2], ["MX oneofthree.test", "A gone.deadmx.test"]);
    let finding = &bench.inspect("deadmx.test", &rungs, "127.0.0.1").await[0];
    let asked: Vec<_> = finding.evidence.iter().map(|seen| seen.question.to_string()).collect();
    assert_eq!(asked, ["MX deadmx.test", "A gone.deadmx.test", "AAAA gone.deadmx.test"]);
}

#[tokio::test]
async fn a_silent_first_host_does_not_keep_the_others_waiting() {
    let zone =
        "slow.test MX 10 silent.test\nslow.test MX 20 mail.test\nsilent.test DROP\nmail.test A 127.0.0.1";
    let bench = Bench::new(zone, settings(PrivateAddresses::Accept)).await;
    let finding = &bench.inspect("slow.test", &rules(&[Rung::Mx], &[]), "127.0.0.1").await[0];
    assert_eq!(text(finding.outcome), "pass mx");
    let asked: Vec<_> = finding.evidence.iter().map(|seen| seen.question.to_string()).collect();
    assert_eq!(asked, ["MX slow.test", "A mail.test"], "what was not awaited is no evidence");
    let waited = bench.server.asked().iter().filter(|entry| entry.contains("silent.test")).count();
    assert!(waited <= 4, "{waited}");
}

#[tokio::test]
async fn expired_answers_may_carry_a_pass_and_never_a_failure() {
    let both = rules(&[Rung::Mx], &[Rung::Mx]);
    let bench = Bench::new(DOMAINS, settings(PrivateAddresses::Accept)).await;
    for name in ["good.test", "deadmx.test", "nomx.test"] {
        bench.inspect(name, &both, "127.0.0.10").await;
    }
    bench
        .server
        .set("good.test SERVFAIL\nmail.good.test A 127.0.0.10\ndeadmx.test SERVFAIL\nnomx.test SERVFAIL");
    bench.clock.advance(Duration::from_secs(3_600));
    let outcomes = async |name, client| {
        let findings = bench.inspect(name, &both, client).await;
        findings.into_iter().map(|finding| text(finding.outcome)).collect::<Vec<_>>()
    };
    assert_eq!(outcomes("good.test", "127.0.0.10").await, ["pass mx", "pass mx"]);
    assert_eq!(outcomes("good.test", "127.0.0.99").await, ["pass mx", "temperror SERVFAIL"]);
    assert_eq!(outcomes("deadmx.test", "127.0.0.10").await, ["temperror SERVFAIL"; 2]);
    assert_eq!(outcomes("nomx.test", "127.0.0.10").await, ["temperror SERVFAIL"; 2]);
    let evidence = &bench.inspect("good.test", &both, "127.0.0.10").await[0].evidence;
    let shown: Vec<_> = evidence.iter().map(|seen| (seen.question.to_string(), seen.freshness)).collect();
    let expected = [
        ("MX good.test".to_owned(), Freshness::Cached),
        ("MX good.test".to_owned(), Freshness::Stale),
        ("A mail.good.test".to_owned(), Freshness::Cached),
    ];
    assert_eq!(shown, expected, "the failure, what is held from before, and what was asked on from it");
    bench.clock.advance(Duration::from_secs(86_400));
    assert_eq!(outcomes("good.test", "127.0.0.10").await, ["temperror SERVFAIL"; 2]);
}

const CLIENTS: &str = "
    good.test MX 10 mail.good.test
    mail.good.test A 127.0.0.10
    gw.ptrok.test A 127.0.3.2
    gw.ptrok.test MX 10 mail.good.test
    liar.good.test A 127.0.3.99
    host4.good.test A 127.0.3.4
    fwdfail.test SERVFAIL
    host1.out.good.test A 127.0.3.8
    host.nomxorg.test A 127.0.3.9
    host.nomxorg.test A 127.0.3.14
    host.nomxorg.test A 127.0.3.17
    nomxorg.test TXT nothing
    host13.good.test A 127.0.3.13
    localhost6.good.test AAAA ::1
    10.0.0.127.in-addr.arpa PTR mail.good.test
    2.3.0.127.in-addr.arpa PTR gw.ptrok.test
    3.3.0.127.in-addr.arpa PTR liar.good.test
    4.3.0.127.in-addr.arpa PTR liar.good.test
    4.3.0.127.in-addr.arpa PTR gone.test
    4.3.0.127.in-addr.arpa PTR host4.good.test
    5.3.0.127.in-addr.arpa PTR bad\\032name.good.test
    6.3.0.127.in-addr.arpa SERVFAIL
    7.3.0.127.in-addr.arpa PTR fwdfail.test
    8.3.0.127.in-addr.arpa PTR host1.out.good.test
    9.3.0.127.in-addr.arpa PTR host.nomxorg.test
    11.3.0.127.in-addr.arpa PTR ctl\\013\\010X:\\032yes.good.test
    12.3.0.127.in-addr.arpa PTR localhost
    13.3.0.127.in-addr.arpa CNAME 13.0/26.3.0.127.in-addr.arpa
    13.0/26.3.0.127.in-addr.arpa PTR host13.good.test
    14.3.0.127.in-addr.arpa PTR fwdfail.test
    14.3.0.127.in-addr.arpa PTR host.nomxorg.test
    17.3.0.127.in-addr.arpa PTR host.nomxorg.test
    17.3.0.127.in-addr.arpa PTR host17.good.test
    host17.good.test A 127.0.3.17
    1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa PTR localhost6.good.test
";

#[tokio::test]
async fn a_client_has_the_names_that_lead_back_to_it() {
    use Rung::{Mx, Organization};
    let bench = Bench::new(CLIENTS, settings(PrivateAddresses::Accept)).await;
    let by = rules(&[Mx, Organization], &[Mx]);
    let rows = [
        ("127.0.0.10", "mail.good.test", "pass organization", "fail not_an_exchanger", "mail.good.test"),
        ("::ffff:127.0.3.2", "gw.ptrok.test", "pass mx", "fail not_an_exchanger", "gw.ptrok.test"),
        ("127.0.3.1", "none", "fail no_ptr", "fail no_ptr", ""),
        ("127.0.3.3", "not liar.good.test", "fail ptr_not_confirmed", "fail ptr_not_confirmed", ""),
        ("127.0.3.4", "host4.good.test", "pass organization", "fail not_an_exchanger", "host4.good.test"),
        ("127.0.3.5", "not bad\\032name.good.test", "fail ptr_not_confirmed", "fail ptr_not_confirmed", ""),
        ("127.0.3.6", "SERVFAIL", "temperror SERVFAIL", "temperror SERVFAIL", ""),
        ("127.0.3.7", "SERVFAIL", "temperror SERVFAIL", "temperror SERVFAIL", ""),
        (
            "127.0.3.8",
            "host1.out.good.test",
            "pass organization",
            "fail not_an_exchanger",
            "host1.out.good.test",
        ),
        ("127.0.3.9", "host.nomxorg.test", "fail no_mx", "fail not_an_exchanger", "host.nomxorg.test"),
        (
            "127.0.3.11",
            "not ctl\\013\\010X:\\032yes.good.test",
            "fail ptr_not_confirmed",
            "fail ptr_not_confirmed",
            "",
        ),
        ("127.0.3.12", "not localhost", "fail ptr_not_confirmed", "fail ptr_not_confirmed", ""),
        ("127.0.3.13", "host13.good.test", "pass organization", "fail not_an_exchanger", "host13.good.test"),
        ("127.0.3.14", "host.nomxorg.test", "temperror SERVFAIL", "temperror SERVFAIL", "host.nomxorg.test"),
        (
            "127.0.3.17",
            "host.nomxorg.test host17.good.test",
            "pass organization",
            "fail not_an_exchanger",
            "host17.good.test",
        ),
        ("::1", "localhost6.good.test", "pass organization", "fail not_an_exchanger", "localhost6.good.test"),
    ];
    for (client, expected, exists, matches, domain) in rows {
        let client = client.parse().unwrap();
        let names = bench.rules.names_of(&account(client)).await;
        let shown = match &names.outcome {
            FcrdnsResult::Confirmed(names) => {
                names.iter().map(DomainName::as_str).collect::<Vec<_>>().join(" ")
            }
            FcrdnsResult::NoPtr => "none".to_owned(),
            FcrdnsResult::NotConfirmed(names) => format!("not {}", names.join(" ")),
            FcrdnsResult::TempError(trouble) => trouble.to_string(),
        };
        assert_eq!(shown, expected, "{client}");
        let mut findings = Vec::new();
        for rule in by.active() {
            findings.push(bench.rules.inspect_ptr(rule, &names, &by, &account(client)).await);
        }
        let outcomes: Vec<_> = findings.iter().map(|finding| text(finding.outcome)).collect();
        assert_eq!(outcomes, [exists, matches], "{client}");
        assert_eq!(findings[0].domain, domain, "{client}");
        let subject = if domain.is_empty() { client.to_canonical().to_string() } else { domain.to_owned() };
        assert_eq!(findings[0].subject, subject, "{client}");
        assert!(findings[0].evidence.starts_with(&names.evidence), "{client}");
    }
}

#[tokio::test]
async fn a_client_matches_its_own_names_when_it_is_their_exchanger() {
    let zone = "mx.self.test A 127.0.0.77\nmx.self.test MX 10 mx.self.test\n77.0.0.127.in-addr.arpa PTR mx.self.test";
    let bench = Bench::new(zone, settings(PrivateAddresses::Accept)).await;
    let client = "127.0.0.77".parse().unwrap();
    let names = bench.rules.names_of(&account(client)).await;
    let by = rules(&[], &[Rung::Mx]);
    let findings = [bench.rules.inspect_ptr(Rule::Matches, &names, &by, &account(client)).await];
    assert_eq!(findings.iter().map(|finding| text(finding.outcome)).collect::<Vec<_>>(), ["pass mx"]);
    assert_eq!(findings[0].identity, Identity::Ptr);
}

#[tokio::test]
async fn of_many_ptr_names_three_are_confirmed() {
    let mut zone = String::new();
    for at in 1..=60 {
        zone.push_str(&format!("15.3.0.127.in-addr.arpa PTR p{at}.test\np{at}.test A 127.0.0.1\n"));
    }
    let bench = Bench::new(&zone, settings(PrivateAddresses::Accept)).await;
    let names = bench.rules.names_of(&account("127.0.3.15".parse().unwrap())).await;
    let FcrdnsResult::NotConfirmed(list) = names.outcome else { panic!("{names:?}") };
    assert_eq!((list.len(), names.evidence.len()), (10, 4));
}

const LADDER: &str = "
    good.test MX 10 mail.good.test
    good.test TXT v=spf1 ip4:127.0.4.4 -all
    mail.good.test A 127.0.4.1
    1.4.0.127.in-addr.arpa PTR mail.good.test
    2.4.0.127.in-addr.arpa PTR other.test
    2.4.0.127.in-addr.arpa PTR web.out.good.test
    other.test A 127.0.4.2
    web.out.good.test A 127.0.4.2
    3.4.0.127.in-addr.arpa PTR mail.good.test
    5.4.0.127.in-addr.arpa SERVFAIL
    6.4.0.127.in-addr.arpa PTR other.test
    other.test A 127.0.4.6
    7.4.0.127.in-addr.arpa PTR host.notgood.test
    host.notgood.test A 127.0.4.7
    8.4.0.127.in-addr.arpa PTR host.co.uk
    host.co.uk A 127.0.4.8
    sub.good.test MX 10 mail.good.test
    half.test MX 10 servfail.test
    half.test TXT v=spf1 ip4:127.0.4.5 -all
    servfail.test SERVFAIL
    include.test MX 10 mail.good.test
    include.test TXT v=spf1 include:servfail.test ip4:127.0.4.4 -all
";

#[tokio::test]
async fn a_client_may_match_by_its_name_or_by_spf() {
    use Rung::{Mx, Network, Ptr, Spf};
    let bench = Bench::new(LADDER, settings(PrivateAddresses::Accept)).await;
    let all = &[Mx, Ptr, Spf];
    let rows: [(&str, &[Rung], &str, &str); 20] = [
        ("good.test", all, "127.0.4.1", "pass mx"),
        ("good.test", &[Ptr, Mx], "127.0.4.1", "pass ptr"),
        ("good.test", all, "127.0.4.2", "pass ptr"),
        ("sub.good.test", all, "127.0.4.2", "pass ptr"),
        ("good.test", &[Network, Ptr], "127.0.4.2", "pass network"),
        ("good.test", &[Mx, Ptr, Network], "127.0.4.2", "pass ptr"),
        ("good.test", all, "127.0.4.3", "fail not_an_exchanger"),
        ("good.test", all, "127.0.4.4", "pass spf"),
        ("good.test", &[Spf, Network], "127.0.4.4", "pass spf"),
        ("good.test", all, "127.0.4.5", "temperror SERVFAIL"),
        ("good.test", &[Mx, Spf], "127.0.4.5", "fail not_an_exchanger"),
        ("good.test", all, "127.0.4.6", "fail not_an_exchanger"),
        ("good.test", all, "127.0.4.7", "fail not_an_exchanger"),
        ("another.co.uk", &[Ptr], "127.0.4.8", "fail not_an_exchanger"),
        ("co.uk", &[Ptr], "127.0.4.8", "fail not_an_exchanger"),
        ("half.test", all, "127.0.4.5", "pass spf"),
        ("half.test", all, "127.0.4.6", "temperror SERVFAIL"),
        ("include.test", all, "127.0.4.4", "temperror SERVFAIL"),
        ("include.test", all, "127.0.4.1", "pass mx"),
        ("nowhere.test", all, "127.0.4.6", "fail not_an_exchanger"),
    ];
    for (name, by, client, expected) in rows {
        assert_eq!(bench.matches(name, by, client).await, expected, "{name} {by:?} {client}");
    }
}

#[tokio::test]
async fn what_a_rung_needs_is_asked_once_it_comes_to_it() {
    use Rung::{Mx, Network, Ptr, Spf};
    let (mx, ptr, spf) =
        (["MX good.test", "A mail.good.test"], "PTR 2.4.0.127.in-addr.arpa", "TXT good.test");
    // of the client's two names only the one below good.test can hold
    let names = ["A web.out.good.test"];
    let rows: [(&[Rung], &str, Vec<&str>); 5] = [
        (&[Mx, Ptr, Spf], "127.0.4.1", mx.to_vec()),
        (&[Mx, Network, Ptr, Spf], "127.0.4.2", mx.to_vec()),
        (&[Mx, Ptr, Spf], "127.0.4.2", [&mx[..], &[ptr], &names].concat()),
        (&[Spf, Mx], "127.0.4.4", vec![spf]),
        (&[Spf, Mx], "127.0.4.1", [&[spf], &mx[..]].concat()),
    ];
    for (by, client, expected) in rows {
        let bench = Bench::new(LADDER, settings(PrivateAddresses::Accept)).await;
        let finding = &bench.inspect("good.test", &rules(&[], by), client).await[0];
        let asked: Vec<_> = finding.evidence.iter().map(|seen| seen.question.to_string()).collect();
        assert_eq!(asked, expected, "{by:?} {client}");
    }
}

#[tokio::test]
async fn an_expired_spf_record_may_carry_a_pass_and_never_a_failure() {
    let bench = Bench::new(LADDER, settings(PrivateAddresses::Accept)).await;
    assert_eq!(bench.matches("good.test", &[Rung::Spf], "127.0.4.4").await, "pass spf");
    bench.server.set("good.test SERVFAIL");
    bench.clock.advance(Duration::from_secs(3_600));
    assert_eq!(bench.matches("good.test", &[Rung::Spf], "127.0.4.4").await, "pass spf");
    assert_eq!(bench.matches("good.test", &[Rung::Spf], "127.0.4.1").await, "temperror SERVFAIL");
}

/// On whose account it is asked.
const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn an_mx_report_has_every_exchanger_with_its_addresses_and_whether_it_counts() {
    let bench = Bench::new(DOMAINS, Settings { max_mx_hosts: 2, ..settings(PrivateAddresses::Accept) }).await;
    let rows = [
        ("good.test", "10 mail.good.test [127.0.0.10] usable"),
        (
            "several.test",
            "10 mx1.several.test [127.0.0.21] usable, 20 mx2.several.test [127.0.0.22] usable, \
             30 mx3.several.test [127.0.0.23] usable uncounted",
        ),
        ("alias.test", "alias of good.test; 10 mail.good.test [127.0.0.10] usable"),
        ("nullmx.test", "null"),
        ("nullmix.test", "0 . uncounted, 10 mail.good.test [127.0.0.10] usable"),
        ("cnamemx.test", "10 alias.cnamemx.test alias of mail.good.test [127.0.0.10] usable"),
        ("ipmx.test", "10 127.0.0.10 uncounted"),
        ("oddmx.test", "10 bad\\032name.test uncounted"),
        ("deadmx.test", "10 gone.deadmx.test []"),
        ("a-only.test", "absent"),
        ("gone.test", "no such domain"),
        ("servfail.test", "SERVFAIL"),
        ("hostfail.test", "10 servfail.test [] SERVFAIL; SERVFAIL"),
        ("mapped.test", "10 mx.mapped.test [127.0.0.10] usable"),
    ];
    for (name, expected) in rows {
        let mx_report = bench.rules.mx_report(&domain(name), &account(ASKER)).await;
        let own = mx_report.own.alias.as_ref().map(|alias| format!("alias of {alias}; ")).unwrap_or_default();
        let listed: Vec<String> = mx_report.listed().iter().map(exchanger).collect();
        let trouble = mx_report.trouble().map(|trouble| format!("; {trouble}")).unwrap_or_default();
        let shown = match mx_report.exchangers {
            Exchangers::Listed(_) => format!("{own}{}{trouble}", listed.join(", ")),
            Exchangers::Null => "null".to_owned(),
            Exchangers::Absent => "absent".to_owned(),
            Exchangers::NoSuchDomain => "no such domain".to_owned(),
            Exchangers::Unavailable(trouble) => trouble.to_string(),
        };
        assert_eq!(shown, expected, "{name}");
    }
}

fn exchanger(exchanger: &Exchanger) -> String {
    let Exchanger { preference, target, counts, holding, usable } = exchanger;
    assert_eq!(exchanger.host().is_some(), *counts, "{target}");
    let mut text = format!("{preference} {target}");
    if let Some(Holding { addresses, alias, trouble }) = holding {
        text += &alias.as_ref().map(|alias| format!(" alias of {alias}")).unwrap_or_default();
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        text += &format!(" [{}]", addresses.join(" "));
        text += &trouble.map(|trouble| format!(" {trouble}")).unwrap_or_default();
    }
    text + if *usable { " usable" } else { "" } + if *counts { "" } else { " uncounted" }
}

#[test]
fn a_name_is_free_for_an_address_of_a_family_that_it_does_not_have() {
    let holding = |addresses: &[&str]| Holding {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        alias: None,
        trouble: None,
    };
    let (alias, trouble) = (Some(Target::Root), Some(DnsFailure::Timeout));
    let rows = [
        (holding(&[]), true, true),
        (holding(&["127.0.0.10"]), false, true),
        (holding(&["::1"]), true, false),
        (holding(&["127.0.0.10", "::1"]), false, false),
        (Holding { alias, ..holding(&[]) }, false, false),
        (Holding { trouble, ..holding(&[]) }, false, false),
    ];
    for (holding, v4, v6) in rows {
        let free = |address: &str| holding.is_free_for(address.parse().unwrap());
        assert_eq!((free("127.0.0.11"), free("::2")), (v4, v6), "{holding:?}");
    }
}

#[tokio::test]
async fn mail_comes_in_at_the_hosts_that_count_or_without_any_at_the_domain_itself() {
    let bench = Bench::new(DOMAINS, Settings { max_mx_hosts: 2, ..settings(PrivateAddresses::Accept) }).await;
    let rows = [
        ("several.test", "127.0.0.22", true),
        ("several.test", "127.0.0.23", false),
        ("cnamemx.test", "127.0.0.10", true),
        ("ipmx.test", "127.0.0.10", false),
        ("a-only.test", "127.0.0.30", true),
        ("nullmx-a.test", "127.0.0.30", false),
        ("deadmx-a.test", "127.0.0.30", false),
    ];
    for (name, address, expected) in rows {
        let mx_report = bench.rules.mx_report(&domain(name), &account(ASKER)).await;
        assert_eq!(mx_report.takes_mail_at(address.parse().unwrap()), expected, "{name} {address}");
    }
}

//! How many questions one client can cause, and that a flood of them makes nobody else wait: counted and timed at a name
//! server that is as bad as it can be. `benches/starved` prints the same figures.

mod flood;
mod responder;
mod worst;

use std::net::Ipv4Addr;
use std::time::Duration;

use rmxd::evidence::{Answer as Seen, DnsFailure};
use rmxd::policy::finding::Finding;

use crate::support::daemon::{Daemon, any_port, configuration};
use flood::{Flood, honest_messages};
use responder::{Answer, Responder, Type};
use worst::{CLIENT, ENVELOPE, PROFILES, five, gate, message, worst};

/// Big senders as they should be: 20 exchangers of which the client is the 15th; a policy with ten includes.
fn heavy(name: &str, rtype: Type) -> Answer {
    let number =
        |start: &str| name.strip_prefix(start).and_then(|rest| rest.split('.').next()?.parse::<u8>().ok());
    match rtype {
        Type::Ptr => Answer::Ptr(vec!["out.heavy.test".to_owned()]),
        Type::Mx if name == "heavy.test" => {
            Answer::Mx((1..=20).map(|nth| format!("mx{nth}.heavy.test")).collect())
        }
        Type::Mx if name == "spf.test" => Answer::Mx(vec!["mx1.spf.test".to_owned()]),
        Type::A if name == "out.heavy.test" || name == "mx15.heavy.test" => Answer::A(CLIENT),
        Type::A if number("mx").is_some() => Answer::A(Ipv4Addr::new(127, 9, 9, number("mx").unwrap())),
        Type::Txt if name == "spf.test" => {
            let terms: Vec<String> = (1..=10).map(|nth| format!("include:i{nth}.spf.test")).collect();
            Answer::Txt(format!("v=spf1 {} -all", terms.join(" ")))
        }
        Type::Txt if name == "i10.spf.test" => Answer::Txt(format!("v=spf1 ip4:{CLIENT} -all")),
        Type::Txt if number("i").is_some() => Answer::Txt("v=spf1 ip4:192.0.2.1 -all".to_owned()),
        _ => Answer::NoData,
    }
}

fn has_spent_its_budget(findings: &[Finding]) -> bool {
    let mut seen = findings.iter().flat_map(|finding| &finding.evidence);
    seen.any(|seen| *seen.answer == Seen::Unavailable(DnsFailure::TooMany))
}

#[tokio::test]
async fn the_worst_zone_costs_no_more_than_the_budgets_in_every_shipped_configuration() {
    let (five, other) = (five("from"), five("reply"));
    let (five, other): (Vec<_>, Vec<_>) =
        (five.iter().map(String::as_str).collect(), other.iter().map(String::as_str).collect());
    for profile in PROFILES {
        for (from, reply_to) in [(&five[..], &other[..]), (&five[..1], &other[..1]), (&five[..1], &[])] {
            let dns = Responder::start(worst).await;
            let gate = gate(profile, dns.address);
            let (findings, asked) = message(&gate, &dns, ENVELOPE, [from, reply_to]).await;
            println!("{profile}, {} From: and {} Reply-To: domains: {asked:?}", from.len(), reply_to.len());
            let [silent, envelope, whole] = asked;
            assert!((2..=6).contains(&silent) && envelope <= 50 && whole <= 120, "{profile}: {asked:?}");
            if reply_to.is_empty() {
                assert!(whole - envelope <= 45, "{profile}: one identity: {asked:?}");
            }
            assert!(has_spent_its_budget(&findings), "{profile}: the zone is not bad enough: {asked:?}");
            let passed = findings.iter().filter(|finding| finding.outcome.word() == "pass").count();
            assert_eq!(passed, 0, "{profile}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn honest_senders_with_much_in_dns_are_judged_within_their_budgets() {
    for profile in PROFILES {
        for domain in ["heavy.test", "spf.test"] {
            let dns = Responder::start(heavy).await;
            let gate = gate(profile, dns.address);
            let (findings, asked) =
                message(&gate, &dns, ["out.heavy.test", domain], [&[domain], &[domain]]).await;
            println!("{profile}, {domain}: {asked:?}");
            assert!(!has_spent_its_budget(&findings), "{profile} {domain}: {findings:#?}");
            let temporary: Vec<_> = findings.iter().filter(|it| it.outcome.word() == "temperror").collect();
            assert!(temporary.is_empty(), "{profile} {domain}: {temporary:#?}");
            assert!(asked[0] <= 2 && asked[2] <= 60, "{profile} {domain}: {asked:?}");
        }
    }
}

/// 0 of 100 deferred, and p99 under 1 s.
#[tokio::test(flavor = "multi_thread")]
async fn while_sixty_networks_ask_for_silent_names_an_honest_sender_is_answered_within_a_second() {
    let dns = Responder::start(flood::zone).await;
    let daemon =
        Daemon::start_measured(&configuration("gate.test", &[any_port()], dns.address, ""), &[]).await;
    let address = daemon.address();
    let flood = Flood::start(address);
    flood.filled().await;
    let honest = honest_messages(address).await;
    let (asked, connections) = (dns.count(), flood.connections());
    drop(flood);
    println!("{connections} flooding connections, {asked} questions; {honest}");
    assert_eq!(honest.refused, Vec::<String>::new(), "{honest}");
    assert!(honest.p99() < Duration::from_secs(1), "{honest}");
    let log = daemon.whole_log().await;
    assert!(!log.contains("no DNS server answers"), "strangers' names are no proof against the server");
}

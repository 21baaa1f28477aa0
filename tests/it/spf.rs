//! SPF over the zone server: the conformance suite of RFC 7208 (openspf, 2014.04), and the time that a policy may take.
//!
//! The suite is no part of the repository: `RMXD_SPF_SUITE` names it, else it is looked for beside the repository; without
//! it the test says so and is skipped. Explanations are not compared, as they are never fetched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rmxd::dns::{Account, Budget, Clock, Dns, Settings, Urgency};
use rmxd::gate::Gate;
use rmxd::reverse_mx::ReverseMx;
use rmxd::smtp::address::{DomainName, ForwardPath, ReversePath};
use rmxd::spf::{self, Sender};
use rmxd::zone::{Behaviour, Name, RData, RecordType, Server, Zone, rdata};
use saphyr::{LoadableYamlNode, Yaml};
use tokio::time::Instant;

const BESIDE: &str = "../shared/spf/rfc7208-tests.yml";
const TYPES: [RecordType; 5] =
    [RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::PTR, RecordType::TXT];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_of_the_conformance_suite_has_a_result_that_it_allows() {
    let path = std::env::var_os("RMXD_SPF_SUITE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(BESIDE), PathBuf::from);
    if std::env::var_os("RMXD_SPF_SUITE").is_none() && !path.is_file() {
        eprintln!("skipped: there is no SPF conformance suite at {}", path.display());
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let (mut played, mut wrong) = (0, Vec::new());
    for scenario in Yaml::load_from_str(&text).unwrap() {
        let title = scenario["description"].as_str().unwrap();
        let server =
            Server::start("127.0.0.1:0".parse().unwrap(), zone(&scenario["zonedata"])).await.unwrap();
        for (name, vector) in scenario["tests"].as_mapping().unwrap() {
            played += 1;
            let (found, allowed) = (play(&server, vector).await, allowed(&vector["result"]));
            if !allowed.contains(&found) {
                wrong.push(format!("{title}: {}: {found}, allowed: {allowed:?}", name.as_str().unwrap()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {played} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(played > 200, "only {played} vectors");
    eprintln!("{played} vectors hold");
}

/// Ten includes, each answered within the time of a question, and all together not within the time of a decision.
#[tokio::test]
async fn a_policy_that_takes_too_long_is_dns_trouble_and_no_refusal() {
    let mut text = String::from("$ORIGIN test.\n$TTL 60\ni0 MX 10 mail.i0\nmail.i0 A 127.0.0.1\n");
    for at in 0..10 {
        text.push_str(&format!(
            "i{at} TXT \"v=spf1 include:i{}.test -all\"\n;! delay 400ms i{at} TXT\n",
            at + 1
        ));
    }
    text.push_str("i10 TXT \"v=spf1 +all\"\n");
    let zone = Zone::parse(&text, None).unwrap();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap();
    // The daemon's deadline, 20 s for SPF, would make this test slow.
    for (deadline, expected) in [(3, Some("451 4.4.3 ")), (15, None)] {
        let lines = ["dns.timeout=1s", "policy.mail_from.matches=reject", "policy.matches_by=mx,spf"];
        let settings = crate::support::settings(lines);
        let dns = crate::support::dns(&settings, server.address(), Clock::running());
        let reverse_mx = ReverseMx::new(dns, settings.reverse_mx.clone());
        let gate = Gate::new(settings.gate, reverse_mx, Duration::from_secs(deadline));
        let mut client = gate.client("127.0.0.2".parse().unwrap());
        let mut transaction = client.transaction(&ReversePath::parse("a@i0.test").unwrap());
        let began = Instant::now();
        let recipient = ForwardPath::parse("b@here.test").unwrap();
        let reply = transaction.rcpt(&mut client, &recipient).await.err().map(|reply| reply.to_string());
        match expected {
            Some(start) => assert!(reply.as_ref().is_some_and(|it| it.starts_with(start)), "{reply:?}"),
            None => assert_eq!(reply, None),
        }
        let within = if expected.is_some() { 2_900..4_900 } else { 3_900..15_000 };
        let took = began.elapsed().as_millis();
        assert!(within.contains(&took), "{deadline} s: {took} ms");
    }
}

async fn play(server: &Server, vector: &Yaml<'_>) -> &'static str {
    let dns = Dns::new(settings(server)).unwrap();
    let text = |key: &str| vector[key].as_str().unwrap();
    let (helo, mail_from) = (text("helo"), text("mailfrom"));
    // RFC 7208 2.4: the null sender is postmaster at the HELO name
    let (local, domain) = match mail_from {
        "" => ("postmaster", helo),
        mailbox => mailbox.rsplit_once('@').unwrap(),
    };
    // RFC 7208 4.3: what is no domain name has no policy; a DomainName can't be one
    let Ok(domain) = DomainName::parse(domain) else { return "none" };
    let sender = Sender { local, domain: &domain, helo };
    let account = Account::new(text("host").parse().unwrap(), Budget::of(200), Urgency::Refuses);
    spf::check(&dns, &account, &sender).await.outcome.name()
}

fn settings(server: &Server) -> Settings {
    let mut settings = crate::support::settings(["dns.timeout=5s"]).dns;
    settings.servers = vec![server.address()];
    settings.cache.min_ttl = Duration::ZERO;
    settings
}

fn allowed<'a>(result: &'a Yaml<'_>) -> Vec<&'a str> {
    match result.as_vec() {
        Some(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        None => vec![result.as_str().unwrap()],
    }
}

/// SPF records are TXT records too, unless the name says something else of TXT. What times out is SERVFAIL here, so that
/// nobody waits; both are DNS in trouble.
fn zone(data: &Yaml<'_>) -> Zone {
    let mut zone = Zone::new();
    for (owner, entries) in data.as_mapping().unwrap() {
        let (owner, entries) = (name(owner.as_str().unwrap()), entries.as_vec().unwrap());
        let says_txt = entries.iter().any(|entry| entry.contains_mapping_key("TXT"));
        // The behaviour of a name is that of those below it as well; these have one of their own.
        zone.behave(&owner, None, Behaviour::Delay(Duration::ZERO));
        for (kind, value) in entries.iter().filter_map(Yaml::as_mapping).flatten() {
            match kind.as_str().unwrap() {
                "SPF" if says_txt => {}
                "TXT" if value.as_str() == Some("NONE") => {}
                "SPF" | "TXT" => insert_text(&mut zone, &owner, value),
                kind => zone.insert(&owner, 60, record(kind, value)),
            }
        }
        if entries.iter().any(|entry| entry.as_str() == Some("TIMEOUT")) {
            for rtype in
                TYPES.into_iter().filter(|rtype| zone.records(&owner, *rtype).is_empty()).collect::<Vec<_>>()
            {
                zone.behave(&owner, Some(rtype), Behaviour::ServFail);
            }
        }
    }
    zone
}

fn record(kind: &str, value: &Yaml<'_>) -> RData {
    let text = || value.as_str().unwrap();
    match kind {
        "A" => RData::A(rdata::A(text().parse().unwrap())),
        "AAAA" => RData::AAAA(rdata::AAAA(text().parse().unwrap())),
        "PTR" => RData::PTR(rdata::PTR(name(text()))),
        "CNAME" => RData::CNAME(rdata::CNAME(name(text()))),
        "MX" => {
            let preference = value[0].as_integer().unwrap().try_into().unwrap();
            RData::MX(rdata::MX::new(preference, name(value[1].as_str().unwrap())))
        }
        other => panic!("{other} records"),
    }
}

/// One string or several; each character is one octet.
fn insert_text(zone: &mut Zone, owner: &Name, value: &Yaml<'_>) {
    let octets = |text: &Yaml<'_>| -> Vec<u8> {
        text.as_str().unwrap().chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
    };
    let strings: Vec<Vec<u8>> = match value.as_vec() {
        Some(several) => several.iter().map(octets).collect(),
        None => vec![octets(value)],
    };
    // RFC 1035 3.3.14: a text without any string can't be sent; the nearest to it is one empty string
    let strings = if strings.is_empty() { vec![Vec::new()] } else { strings };
    let data = rdata::TXT::from_bytes(strings.iter().map(Vec::as_slice).collect());
    // a set has a record once; the suite has one name with the same record twice, and allows either
    zone.insert(owner, 60, RData::TXT(data));
}

fn name(text: &str) -> Name {
    if text.is_empty() {
        return Name::root();
    }
    Name::from_labels(text.strip_suffix('.').unwrap_or(text).split('.').map(str::as_bytes)).unwrap()
}

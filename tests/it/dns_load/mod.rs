//! How many questions one client can cause, and that a flood of them makes nobody else wait: counted and timed at a name
//! server that is as bad as it can be.

mod responder;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmxd::config::{DRAIN, Flags, load};
use rmxd::dns::Clock;
use rmxd::gate::Gate;
use rmxd::message::header::{Author, Field, Header};
use rmxd::policy::evidence::{Answer as Seen, Trouble};
use rmxd::policy::finding::Finding;
use rmxd::smtp::address::{DomainName, ReversePath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep};

use crate::daemon::{Daemon, configuration, free_address};
use crate::interop::client::Client;
use crate::support;
use responder::{Answer, Responder, Type};

const PROFILES: [&str; 4] = ["rmxd.toml", "monitor.toml", "strict.toml", "ladder.toml"];
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);

/// Every question leads to more, and at the end there is nothing.
fn worst(name: &str, rtype: Type) -> Answer {
    let numbered =
        |count, start: &str, below: &str| (1..=count).map(|nth| format!("{start}{nth}.{below}")).collect();
    let is = |start: char| {
        name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_digit()))
    };
    match rtype {
        Type::Ptr => Answer::Ptr((1..=10).map(|nth| format!("p{nth}.ptr{nth}.test")).collect()),
        Type::A if is('p') => Answer::A(CLIENT),
        Type::A | Type::Aaaa | Type::Txt if is('h') || name.contains("_domainkey") => {
            Answer::Alias(format!("k1.{name}"))
        }
        _ if is('k') && !is('3') && name.as_bytes()[1] < b'3' => {
            Answer::Alias(format!("k{}{}", name.as_bytes()[1] - b'0' + 1, name.get(2..).unwrap()))
        }
        Type::Mx if is('h') || is('k') => Answer::NoData,
        Type::Mx if is('m') => Answer::Mx(numbered(10, "h", name)),
        Type::Mx => Answer::Mx(numbered(20, "h", name)),
        Type::Txt => {
            let terms: Vec<String> = (1..=10).map(|nth| format!("mx:m{nth}.{name}")).collect();
            Answer::Txt(format!("v=spf1 {} -all", terms.join(" ")))
        }
        _ => Answer::NoData,
    }
}

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

/// The gate of a shipped configuration.
fn gate(profile: &str, dns: SocketAddr) -> Arc<Gate> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(profile);
    let set = [
        ("dns.private_addresses", "accept"),
        ("dns.timeout", "2s"),
        ("relay.next_hop", "maildir:mail"),
        ("hostname", "gate.test"),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let loaded = load(Some(&path), [], &Flags { set, drain: DRAIN });
    let settings = loaded.unwrap_or_else(|problems| panic!("{profile}: {problems:?}")).settings;
    support::gate(&settings, dns, Clock::running())
}

fn authors(domains: &[&str]) -> Field {
    let author = |domain: &&str| Author {
        address: format!("u@{domain}").into(),
        domain: DomainName::parse(domain).ok(),
    };
    Field::Authors(domains.iter().map(author).collect())
}

/// The findings of a message, and what the name server was asked at the connection, up to RCPT, and in all.
async fn message(
    gate: &Arc<Gate>,
    dns: &Responder,
    [helo, mail_from]: [&str; 2],
    [from, reply_to]: [&[&str]; 2],
) -> (Vec<Finding>, [usize; 3]) {
    // What comes late is counted too.
    let settled = async |before: usize| {
        sleep(Duration::from_millis(50)).await;
        before + dns.count()
    };
    dns.count();
    let mut guest = gate.guest(IpAddr::V4(CLIENT));
    guest.names().await;
    let silent = settled(0).await;
    guest.hello(helo);
    let mut inspection = guest.inspect(&ReversePath::parse(&format!("u@{mail_from}")).unwrap());
    inspection.envelope(&mut guest).await;
    let mut envelope = settled(silent).await;
    let mut block = String::new();
    for nth in 1..=12 {
        for domain in from {
            block.push_str(&format!(
                "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=s{nth}; c=relaxed/relaxed; h=from;\r\n bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
            ));
        }
    }
    // What only tags goes on behind the reply to RCPT.
    for _ in 0..6 {
        envelope = settled(envelope).await;
    }
    let header = Header { from: authors(from), reply_to: authors(reply_to), received: 0 };
    inspection.header(&mut guest, &header, block.as_bytes()).await;
    if inspection.awaits_body() {
        inspection.whole().await;
    }
    (inspection.findings().to_vec(), [silent, envelope, settled(envelope).await])
}

fn has_spent_its_budget(findings: &[Finding]) -> bool {
    let mut seen = findings.iter().flat_map(|finding| &finding.evidence);
    seen.any(|seen| *seen.answer == Seen::Unavailable(Trouble::TooMany))
}

#[tokio::test]
async fn the_worst_zone_costs_no_more_than_the_budgets_in_every_shipped_configuration() {
    let five: Vec<String> = (1..=5).map(|nth| format!("from{nth}.bad.org{nth}.test")).collect();
    let other: Vec<String> = (1..=5).map(|nth| format!("reply{nth}.bad.other{nth}.test")).collect();
    let (five, other): (Vec<_>, Vec<_>) =
        (five.iter().map(String::as_str).collect(), other.iter().map(String::as_str).collect());
    for profile in PROFILES {
        for (from, reply_to) in [(&five[..], &other[..]), (&five[..1], &other[..1]), (&five[..1], &[])] {
            let dns = Responder::start(worst).await;
            let gate = gate(profile, dns.address);
            let (findings, asked) =
                message(&gate, &dns, ["helo.bad.test", "mail.bad.example.test"], [from, reply_to]).await;
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

/// Names below `silent.test` are never answered, and the flooding clients' PTR records lead to ever new ones; all else is as
/// it should be.
fn flooded(name: &str, rtype: Type) -> Answer {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let here = Answer::A(Ipv4Addr::new(127, 0, 200, 1));
    match rtype {
        _ if name.ends_with(".silent.test") => Answer::Silence,
        Type::Ptr if name == "1.200.0.127.in-addr.arpa" => Answer::Ptr(vec!["out.honest.test".to_owned()]),
        Type::Ptr => Answer::Ptr(vec![format!("p{}.silent.test", NAMES.fetch_add(1, Ordering::Relaxed))]),
        Type::Mx if name.starts_with("mx.") => Answer::NoData,
        Type::Mx => Answer::Mx(vec![format!("mx.{name}")]),
        Type::A => here,
        _ => Answer::NoData,
    }
}

/// One of the flooding connections, over and over: it waits for no answer, and comes again at once with new names.
async fn flood(from: Ipv4Addr, to: SocketAddr, names: Arc<AtomicU64>) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let Ok(mut stream) = socket.connect(to).await else { continue };
        let name = names.fetch_add(1, Ordering::Relaxed);
        let said = format!("EHLO x\r\nMAIL FROM:<a@d{name}.silent.test>\r\nRCPT TO:<user@here.test>\r\n");
        let mut greeting = [0; 512];
        if stream.read(&mut greeting).await.is_ok() && stream.write_all(said.as_bytes()).await.is_ok() {
            sleep(Duration::from_millis(400)).await;
        }
    }
}

/// A message of the honest sender, which must be accepted; how long that took.
async fn honest(nth: u32, address: SocketAddr, daemon: &Daemon) -> Duration {
    let began = Instant::now();
    let from = Ipv4Addr::new(127, 0, 200, 1).into();
    let mut client = Client::greeted(from, address, "out.honest.test").await;
    let message = format!("From: a@from{nth}.test\r\nReply-To: b@reply{nth}.test\r\n\r\nhello\r\n");
    let reply = client.deliver(&format!("a@mail{nth}.test"), "user@here.test", message.as_bytes()).await;
    assert_eq!(reply.code, 250, "message {nth}: {}\n{}", reply.text, daemon.log());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_sixty_networks_ask_for_silent_names_an_honest_sender_is_answered_within_a_second() {
    const MESSAGES: u32 = 100;
    let dns = Responder::start(flooded).await;
    let address = free_address();
    let text = configuration("gate.test", &[address], dns.address, "[dns.cache]\nmin_ttl = \"0s\"");
    let daemon = Daemon::start(&text, &[]).await;
    let names = Arc::new(AtomicU64::new(0));
    let mut flooding = tokio::task::JoinSet::new();
    for nth in 1..=60 {
        flooding.spawn(flood(Ipv4Addr::new(127, 0, nth, 1), address, Arc::clone(&names)));
    }
    // The same message again, whose answers are in the cache: how long the machine takes for everything else.
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for nth in 0..MESSAGES {
        sleep(Duration::from_millis(30)).await;
        for times in [&mut new, &mut known] {
            let took = honest(nth, address, &daemon).await;
            times.push(took);
        }
    }
    drop(flooding);
    let p99 = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() * 99 / 100 - 1]
    };
    let (asked, connections, slowest) = (dns.count(), names.load(Ordering::Relaxed), p99(&mut known));
    let p99 = p99(&mut new);
    let measured = format!("new domains: p50 {:?}, p99 {p99:?}; known: p99 {slowest:?}", new[new.len() / 2]);
    println!("{connections} flooding connections, {asked} questions; {measured}");
    assert!(p99 < slowest + Duration::from_secs(1), "{measured}");
    assert!(
        !daemon.log().contains("no DNS server answers"),
        "strangers' names are no proof against the server"
    );
}

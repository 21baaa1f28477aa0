//! What one message costs in questions: the worst zone, the gate of a shipped configuration, and a message that is played to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rmxd::config::{DRAIN, Flags, load};
use rmxd::daemon::gate_over;
use rmxd::dns::{Clock, Dns};
use rmxd::gate::Gate;
use rmxd::policy::finding::Finding;
use rmxd::smtp::address::{ForwardPath, ReversePath};

use super::responder::{Answer, Responder, Type};
use crate::support::process::{SOON, eventually};

pub(super) const PROFILES: [&str; 4] = ["rmxd.toml", "monitor.toml", "strict.toml", "ladder.toml"];
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 1);
/// HELO and MAIL FROM in the worst zone.
pub(super) const ENVELOPE: [&str; 2] = ["helo.bad.test", "mail.bad.example.test"];

/// Every question leads to more, and at the end there is nothing.
pub(super) fn worst(name: &str, rtype: Type) -> Answer {
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

/// Five visible senders in zones of their own, for From: or for Reply-To:.
pub(super) fn five(field: &str) -> Vec<String> {
    (1..=5).map(|nth| format!("{field}{nth}.bad.{field}-org{nth}.test")).collect()
}

/// The gate of a shipped configuration.
pub(super) fn gate(profile: &str, dns: SocketAddr) -> Arc<Gate> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(profile);
    let set = [
        ("policy.mode", "monitor"), // so that the header of a message is seen that is refused at RCPT
        ("dns.private_addresses", "accept"),
        ("dns.timeout", "2s"),
        ("relay.next_hop", "maildir:mail"),
        ("hostname", "gate.test"),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let loaded = load(Some(&path), [], &Flags { set, drain: DRAIN });
    let settings = loaded.unwrap_or_else(|problems| panic!("{profile}: {problems:?}")).settings;
    let dns = rmxd::dns::Settings { servers: vec![dns], ..settings.dns.clone() };
    gate_over(Dns::with_clock(dns, Clock::running()).unwrap(), &settings).unwrap()
}

/// A field with one address at each domain; none without a domain.
fn field(name: &str, domains: &[&str]) -> String {
    let addresses: Vec<_> = domains.iter().map(|domain| format!("u@{domain}")).collect();
    if addresses.is_empty() { String::new() } else { format!("{name}: {}\r\n", addresses.join(",\r\n ")) }
}

/// The findings of a message, and what the name server was asked at the connection, up to RCPT, and in all.
pub(super) async fn message(
    gate: &Arc<Gate>,
    dns: &Responder,
    [helo, mail_from]: [&str; 2],
    [from, reply_to]: [&[&str]; 2],
) -> (Vec<Finding>, [usize; 3]) {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let quiet = tasks();
    // What goes on behind a reply is counted too: it has a task of its own.
    let settled = async |before: usize| {
        eventually("the end of all lookups", SOON, || (tasks() <= quiet).then_some(())).await;
        before + dns.count()
    };
    dns.count();
    let mut client = gate.client(IpAddr::V4(CLIENT));
    client.names().await;
    let silent = settled(0).await;
    client.helo(helo);
    let mut transaction = client.transaction(&ReversePath::parse(&format!("u@{mail_from}")).unwrap());
    let path = ForwardPath::parse("u@here.test").unwrap();
    let permit = transaction.rcpt(&mut client, &path).await.unwrap();
    transaction.accepted(permit, path);
    let envelope = settled(silent).await;
    let mut block = field("From", from) + &field("Reply-To", reply_to);
    for nth in 1..=12 {
        for domain in from {
            block.push_str(&format!(
                "DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=s{nth}; c=relaxed/relaxed; h=from;\r\n bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
            ));
        }
    }
    transaction.header(&mut client, block.as_bytes()).await.unwrap();
    transaction.end().await.unwrap();
    (transaction.findings().to_vec(), [silent, envelope, settled(envelope).await])
}

//! What was refused, or would have been, counted by identity, rule, reason and sender domain: for the monitor's report
//! and for `rmxd replay`.
//!
//! Bounded, whatever comes: of each kind of refusal `KEPT` to `HELD` domains are held, and where there is no room
//! the smallest go. Who invents a new domain for each message pushes out domains that were seen as seldom, never the
//! big ones, and those of another kind not at all. The totals of a kind are exact; a domain that went and came again
//! is counted from its return on, so its number is "at least".

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::ops::AddAssign;

use compact_str::{CompactString, ToCompactString};
use foldhash::quality::RandomState;
use serde_json::{Value, json};

use crate::policy::decide::Cause;
use crate::policy::finding::Finding;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};
use crate::record::Record;
use crate::smtp::address::DomainName;
use crate::smtp::escape::Escaped;

/// Domains of one kind that are left when the smallest go.
const KEPT: usize = 500;
/// Domains of one kind that are held at most.
const HELD: usize = 1000;
/// Octets of a domain; what is longer is no domain, and cut.
const LONGEST: usize = 255;

/// One kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// Whose domain, and which rule failed; `None` where no rule refused.
    pub rule: Option<(Identity, Rule)>,
    /// Why.
    pub reason: Reason,
    /// What that leads to where it is enforced.
    pub action: Action,
}

impl Kind {
    /// The kind of a decision's cause; `finding` is the one that refused, where a rule did.
    #[must_use]
    pub fn of(cause: &Cause, finding: Option<&Finding>) -> Self {
        let rule = finding.map(|finding| (finding.identity, finding.rule));
        Self { rule, reason: cause.reason, action: cause.action }
    }

    /// The name of the identity.
    #[must_use]
    pub fn identity_name(self) -> Option<&'static str> {
        self.rule.map(|(identity, _)| identity.name())
    }

    /// The name of the rule.
    #[must_use]
    pub fn rule_name(self) -> Option<&'static str> {
        self.rule.map(|(_, rule)| rule.name())
    }

    /// Whether it is DNS that is in trouble: it says nothing about the sender.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        self.reason == Reason::DnsError
    }
}

/// How many messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Volume {
    /// Taken all the same. These come first wherever volumes are compared: they are what enforcing would cost.
    pub taken: u64,
    /// Refused.
    pub refused: u64,
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.taken = self.taken.saturating_add(other.taken);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

/// The count; empty at first.
#[derive(Debug, Default)]
pub struct Tally {
    kinds: HashMap<Kind, Domains, RandomState>,
}

#[derive(Debug, Default)]
struct Domains {
    total: Volume,
    rows: HashMap<CompactString, Sender, RandomState>,
}

#[derive(Debug)]
struct Sender {
    volume: Volume,
    client: IpAddr,
    clients_differ: bool,
}

impl Tally {
    /// Counts messages of one client that were judged alike; `finding` is the one that refused, where a rule did.
    pub fn add(&mut self, cause: &Cause, finding: Option<&Finding>, client: IpAddr, volume: Volume) {
        let domain = finding.map(|finding| finding.domain.as_str()).unwrap_or_default();
        self.add_domain(Kind::of(cause, finding), domain, client, volume);
    }

    /// Counts a decision; what passed is none.
    pub fn add_record(&mut self, record: &Record) {
        let Some(cause) = &record.cause else { return };
        let refused = record.refused();
        let volume = Volume { taken: u64::from(!refused), refused: u64::from(refused) };
        self.add(cause, cause.finding_of(&record.findings), record.client, volume);
    }

    fn add_domain(&mut self, kind: Kind, domain: &str, client: IpAddr, volume: Volume) {
        let domains = self.kinds.entry(kind).or_default();
        domains.total += volume;
        // Where there is no domain, it is the client that is to be told apart.
        let name = match cut(domain) {
            "" => client.to_compact_string(),
            name => CompactString::new(name),
        };
        let fresh = || Sender { volume: Volume::default(), client, clients_differ: false };
        let sender = domains.rows.entry(name).or_insert_with(fresh);
        sender.volume += volume;
        sender.clients_differ |= sender.client != client;
        if domains.rows.len() > HELD {
            domains.forget_the_smallest();
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The volume of every kind, the largest first.
    #[must_use]
    pub fn kinds(&self) -> Vec<(Kind, Volume)> {
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, domains)| (*kind, domains.total)).collect();
        kinds.sort_unstable_by_key(|(kind, volume)| (Reverse(*volume), *kind));
        kinds
    }

    /// Every domain that is held, the largest first.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.kinds.iter().flat_map(|(kind, domains)| {
            domains.rows.iter().map(|(domain, sender)| Row {
                kind: *kind,
                domain: domain.clone(),
                volume: sender.volume,
                client: sender.client,
                clients_differ: sender.clients_differ,
            })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable_by(|a, b| {
            (Reverse(a.volume), a.kind, &a.domain).cmp(&(Reverse(b.volume), b.kind, &b.domain))
        });
        rows
    }
}

impl Tally {
    /// For programs: the volumes of all kinds, the `top` largest senders, and the lines that exempt those whose mail was
    /// taken.
    #[must_use]
    pub fn json(&self, top: usize) -> Value {
        let (kinds, mut rows) = (self.kinds(), self.rows());
        rows.truncate(top);
        let mut total = Volume::default();
        kinds.iter().for_each(|(_, volume)| total += *volume);
        json!({
            "would_be_refused": total.taken,
            "refused": total.refused,
            "kinds": kinds.iter().map(|(kind, volume)| kind.json(*volume)).collect::<Vec<_>>(),
            "senders": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "exempt": exempt_lines(rows.iter().filter(|row| row.volume.taken > 0)),
        })
    }
}

impl Domains {
    /// One pass over all for every `HELD - KEPT` new ones.
    fn forget_the_smallest(&mut self) {
        let mut volumes: Vec<_> = self.rows.values().map(|sender| Reverse(sender.volume)).collect();
        if volumes.len() <= KEPT {
            return;
        }
        let (larger, smallest, _) = volumes.select_nth_unstable(KEPT - 1);
        let mut alike = KEPT - larger.iter().filter(|volume| *volume < smallest).count();
        let smallest = smallest.0;
        self.rows.retain(|_, sender| {
            let stays = sender.volume > smallest || (sender.volume == smallest && alike > 0);
            if sender.volume == smallest {
                alike = alike.saturating_sub(1);
            }
            stays
        });
    }
}

fn cut(domain: &str) -> &str {
    let mut end = domain.len().min(LONGEST);
    while !domain.is_char_boundary(end) {
        end -= 1;
    }
    domain.split_at_checked(end).map_or(domain, |(head, _)| head)
}

/// One sender domain with one kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is refused for.
    pub kind: Kind,
    /// The domain as far as it could be read, or the client's address where there is none.
    pub domain: CompactString,
    /// At least so many messages.
    pub volume: Volume,
    /// A client that it came from, the first.
    pub client: IpAddr,
    /// Whether there were others.
    pub clients_differ: bool,
}

impl Row {
    /// What lets this mail pass. Nothing for DNS in trouble, which is over before the exemption is, or
    /// for what no rule refuses, which is refused to the exempt too; and nothing where no one entry covers it.
    #[must_use]
    pub fn exemption(&self) -> Option<Exemption> {
        let (_, rule) = self.kind.rule.filter(|_| !self.kind.is_trouble())?;
        let only_client = (!self.clients_differ).then_some(Exemption::Client(self.client));
        if let Ok(client) = self.domain.parse() {
            return Some(Exemption::Client(client));
        }
        if rule == Rule::Matches && only_client.is_some() {
            // Narrower than the domain: others still can't send in its name.
            return only_client;
        }
        DomainName::parse(&self.domain).ok().map(Exemption::Domain).or(only_client)
    }
}

impl Kind {
    /// For programs.
    #[must_use]
    pub fn json(self, volume: Volume) -> Value {
        json!({
            "identity": self.identity_name(), "rule": self.rule_name(), "reason": self.reason.name(),
            "action": self.action.name(), "taken": volume.taken, "refused": volume.refused,
        })
    }
}

impl Row {
    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "identity": self.kind.identity_name(), "rule": self.kind.rule_name(),
            "reason": self.kind.reason.name(), "action": self.kind.action.name(),
            "domain": Escaped::new(self.domain.as_str()).to_string(), "taken": self.volume.taken, "refused": self.volume.refused,
            "client": self.client, "more_clients": self.clients_differ,
            "exempt": self.exemption().map(|exemption| exemption.to_string()),
        })
    }
}

/// An entry of `[exempt]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exemption {
    /// Of `clients`.
    Client(IpAddr),
    /// Of `domains`.
    Domain(DomainName),
}

impl fmt::Display for Exemption {
    /// A line of TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "clients = [\"{client}\"]"),
            Self::Domain(domain) => write!(f, "domains = [\"{domain}\"]"),
        }
    }
}

/// All entries as lines below `[exempt]`, each key once.
#[must_use]
pub fn exempt_lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<String> {
    let (mut clients, mut domains) = (BTreeSet::new(), BTreeSet::new());
    for exemption in rows.into_iter().filter_map(Row::exemption) {
        match exemption {
            Exemption::Client(client) => clients.insert(format!("\"{client}\"")),
            Exemption::Domain(domain) => domains.insert(format!("\"{domain}\"")),
        };
    }
    let line = |key: &str, entries: BTreeSet<String>| {
        let entries: Vec<_> = entries.into_iter().collect();
        (!entries.is_empty()).then(|| format!("{key} = [{}]", entries.join(", ")))
    };
    [line("clients", clients), line("domains", domains)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NXDOMAIN: Kind = Kind {
        rule: Some((Identity::MailFrom, Rule::Exists)),
        reason: Reason::NoSuchDomain,
        action: Action::Reject,
    };
    const ONE: Volume = Volume { taken: 1, refused: 0 };

    fn exists(identity: Identity) -> Option<(Identity, Rule)> {
        Some((identity, Rule::Exists))
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn row(tally: &Tally, domain: &str) -> Option<Row> {
        tally.rows().into_iter().find(|row| row.domain == domain)
    }

    #[test]
    fn a_flood_of_invented_domains_pushes_out_neither_the_big_ones_nor_other_kinds() {
        let mut tally = Tally::default();
        let no_mx = Kind { reason: Reason::NoMx, ..NXDOMAIN };
        tally.add_domain(no_mx, "rare.test", client(1), ONE);
        for number in 0..50_000u32 {
            tally.add_domain(NXDOMAIN, &format!("spoof{number}.test"), client(2), ONE);
            if number % 100 == 0 {
                tally.add_domain(NXDOMAIN, &format!("big{}.test", number / 100 % 5), client(3), ONE);
            }
            assert!(number % 500 != 0 || tally.rows().len() <= HELD + 1);
        }
        for number in 0..5 {
            let row = row(&tally, &format!("big{number}.test")).expect("a big one stays");
            assert_eq!(row.volume, Volume { taken: 100, refused: 0 });
        }
        assert_eq!(row(&tally, "rare.test").map(|row| row.volume), Some(ONE));
        let kinds = tally.kinds();
        assert_eq!(
            kinds,
            [(NXDOMAIN, Volume { taken: 50_500, refused: 0 }), (no_mx, ONE)],
            "totals are exact"
        );
    }

    #[test]
    fn what_was_taken_stays_before_what_was_refused_anyway() {
        let mut tally = Tally::default();
        tally.add_domain(NXDOMAIN, "wanted.test", client(1), ONE);
        for number in 0..5_000u32 {
            let refused = Volume { taken: 0, refused: 9 };
            tally.add_domain(NXDOMAIN, &format!("spoof{number}.test"), client(2), refused);
        }
        assert_eq!(tally.rows().first().map(|row| row.domain.as_str()), Some("wanted.test"));
    }

    #[test]
    fn an_exemption_is_as_narrow_as_it_can_be() {
        let matches = Kind { rule: Some((Identity::MailFrom, Rule::Matches)), reason: Reason::NotAnExchanger, ..NXDOMAIN };
        let no_ptr = Kind { rule: exists(Identity::Ptr), reason: Reason::NoPtr, ..NXDOMAIN };
        let invalid = Kind { reason: Reason::InvalidDomain, ..NXDOMAIN };
        let trouble = Kind { reason: Reason::DnsError, action: Action::Defer, ..NXDOMAIN };
        let malformed = Kind { reason: Reason::MalformedHeader, rule: exists(Identity::From), ..NXDOMAIN };
        let no_rule = |reason| Kind { rule: None, reason, ..NXDOMAIN };
        let (one, two): (&[u8], &[u8]) = (&[7], &[7, 8]);
        let rows = [
            (NXDOMAIN, "a.test", one, Some("domains = [\"a.test\"]")),
            (NXDOMAIN, "a.test", two, Some("domains = [\"a.test\"]")),
            (matches, "a.test", one, Some("clients = [\"192.0.2.7\"]")),
            (matches, "a.test", two, Some("domains = [\"a.test\"]")),
            (no_ptr, "192.0.2.7", one, Some("clients = [\"192.0.2.7\"]")),
            (no_ptr, "2001:db8::7", one, Some("clients = [\"2001:db8::7\"]")),
            (invalid, "[192.0.2.1]", one, Some("clients = [\"192.0.2.7\"]")),
            (invalid, "[192.0.2.1]", two, None),
            (invalid, "localhost", two, Some("domains = [\"localhost\"]")),
            (invalid, "a\"]\nclients = [\"0.0.0.0/0", two, None),
            (malformed, "", one, Some("clients = [\"192.0.2.7\"]")),
            (trouble, "a.test", one, None),
            (no_rule(Reason::RelayingDenied), "", one, None),
            (no_rule(Reason::MalformedHeader), "", one, None),
            (no_rule(Reason::BadAddress), "a.test", one, None),
        ];
        for (kind, domain, clients, expected) in rows {
            let mut tally = Tally::default();
            clients.iter().for_each(|last| tally.add_domain(kind, domain, client(*last), ONE));
            let row = tally.rows().remove(0);
            assert_eq!(row.exemption().map(|it| it.to_string()).as_deref(), expected, "{kind:?} {domain}");
            assert_eq!(exempt_lines([&row]), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn entries_are_gathered_under_their_keys_once() {
        let mut tally = Tally::default();
        let helo = Kind { rule: exists(Identity::Helo), ..NXDOMAIN };
        let no_ptr = Kind { rule: exists(Identity::Ptr), reason: Reason::NoPtr, ..NXDOMAIN };
        for (kind, domain) in
            [(NXDOMAIN, "b.test"), (helo, "b.test"), (NXDOMAIN, "a.test"), (no_ptr, "192.0.2.1")]
        {
            tally.add_domain(kind, domain, client(1), ONE);
        }
        assert_eq!(
            exempt_lines(&tally.rows()),
            ["clients = [\"192.0.2.1\"]", "domains = [\"a.test\", \"b.test\"]"]
        );
    }

    #[test]
    fn what_is_too_long_for_a_domain_is_cut() {
        let mut tally = Tally::default();
        tally.add_domain(NXDOMAIN, &"\u{e4}".repeat(100_000), client(1), ONE);
        assert_eq!(tally.rows()[0].domain.len(), 254);
    }
}

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

use crate::decision::DecisionRecord;
use crate::policy::decide::Cause;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Rule};
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
pub struct RefusalStats {
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
    confirmed: bool,
}

/// Whether the client of a finding was shown to send for its domain: a rung of `matches` held. What a sender merely wrote
/// is no reason to trust it.
#[must_use]
pub fn is_confirmed(of: &Finding, findings: &[Finding]) -> bool {
    findings.iter().any(|finding| {
        (finding.identity, finding.rule, &finding.domain) == (of.identity, Rule::Matches, &of.domain)
            && matches!(finding.outcome, RuleResult::Pass(_))
    })
}

impl RefusalStats {
    /// Counts messages of one client that were judged alike, by `findings`.
    pub fn add(&mut self, cause: &Cause, findings: &[Finding], client: IpAddr, volume: Volume) {
        let finding = cause.finding_of(findings);
        let domain = finding.map(|finding| finding.domain.as_str()).unwrap_or_default();
        let confirmed = finding.is_some_and(|finding| is_confirmed(finding, findings));
        self.add_domain(Kind::of(cause, finding), domain, (client, confirmed), volume);
    }

    /// Counts a decision; what passed is none.
    pub fn add_record(&mut self, record: &DecisionRecord) {
        let Some(cause) = &record.cause else { return };
        let refused = record.refused();
        let volume = Volume { taken: u64::from(!refused), refused: u64::from(refused) };
        self.add(cause, &record.findings, record.client, volume);
    }

    fn add_domain(&mut self, kind: Kind, domain: &str, (client, confirmed): (IpAddr, bool), volume: Volume) {
        let domains = self.kinds.entry(kind).or_default();
        domains.total += volume;
        // Where there is no domain, it is the client that is to be told apart.
        let name = match cut(domain) {
            "" => client.to_compact_string(),
            name => CompactString::new(name),
        };
        let fresh = || Sender { volume: Volume::default(), client, clients_differ: false, confirmed };
        let sender = domains.rows.entry(name).or_insert_with(fresh);
        sender.volume += volume;
        sender.clients_differ |= sender.client != client;
        sender.confirmed &= confirmed;
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
                confirmed: sender.confirmed,
            })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable_by(|a, b| {
            (Reverse(a.volume), a.kind, &a.domain).cmp(&(Reverse(b.volume), b.kind, &b.domain))
        });
        rows
    }
}

impl RefusalStats {
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
            "exempt": as_toml(&exempt_lines(&rows)),
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
    /// Whether every client of these messages was shown to send for the domain ([`is_confirmed`]).
    pub confirmed: bool,
}

impl Row {
    /// What lets this mail pass: the domain if it was confirmed for every message, else the client if it was only one. A
    /// domain that wasn't confirmed is what a sender wrote, perhaps somebody else's or made up, and to exempt it would
    /// open the gate to whoever writes it. Nothing for DNS in trouble, which is over before the exemption is, and for
    /// what no rule refuses, which is refused to the exempt too.
    #[must_use]
    pub fn exemption(&self) -> Option<Exemption> {
        if self.kind.is_trouble() || self.kind.rule.is_none() {
            return None;
        }
        let domain = DomainName::parse(&self.domain).ok().filter(|_| self.confirmed);
        let client = (!self.clients_differ).then_some(Exemption::Client(self.client));
        domain.map(Exemption::Domain).or(client)
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
            "opens": self.exemption().map(|exemption| exemption.opens()),
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

impl Exemption {
    /// What the entry lets pass, beside the mail that it was proposed for.
    #[must_use]
    pub fn opens(&self) -> &'static str {
        match self {
            Self::Client(_) => "all mail from this client passes, whatever sender it names",
            Self::Domain(_) => "this domain passes as a sender, whoever names it",
        }
    }
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

/// A line below `[exempt]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemptLine {
    /// What its entries let pass.
    pub opens: &'static str,
    /// A line of TOML.
    pub line: String,
}

/// The entries for all whose mail was taken, each key once.
#[must_use]
pub fn exempt_lines(rows: &[Row]) -> Vec<ExemptLine> {
    let (mut clients, mut domains) = (BTreeSet::new(), BTreeSet::new());
    for exemption in rows.iter().filter(|row| row.volume.taken > 0).filter_map(Row::exemption) {
        match exemption {
            Exemption::Client(client) => clients.insert(format!("\"{client}\"")),
            Exemption::Domain(domain) => domains.insert(format!("\"{domain}\"")),
        };
    }
    let line = |key: &str, opens, entries: BTreeSet<String>| {
        let entries: Vec<_> = entries.into_iter().collect();
        let line = format!("{key} = [{}]", entries.join(", "));
        (!entries.is_empty()).then_some(ExemptLine { opens, line })
    };
    let clients = line("clients", "all mail from these clients passes, whatever sender it names", clients);
    let domains = line("domains", "these domains pass as senders, whoever names them", domains);
    clients.into_iter().chain(domains).collect()
}

/// The lines with what they open as a comment above each.
#[must_use]
pub fn as_toml(lines: &[ExemptLine]) -> Vec<String> {
    lines.iter().flat_map(|line| [format!("# {}", line.opens), line.line.clone()]).collect()
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

    /// A client that nothing ties to the domain.
    fn seen(last: u8) -> (IpAddr, bool) {
        (client(last), false)
    }

    fn row(stats: &RefusalStats, domain: &str) -> Option<Row> {
        stats.rows().into_iter().find(|row| row.domain == domain)
    }

    #[test]
    fn a_flood_of_invented_domains_pushes_out_neither_the_big_ones_nor_other_kinds() {
        let mut stats = RefusalStats::default();
        let no_mx = Kind { reason: Reason::NoMx, ..NXDOMAIN };
        stats.add_domain(no_mx, "rare.test", seen(1), ONE);
        for number in 0..50_000u32 {
            stats.add_domain(NXDOMAIN, &format!("spoof{number}.test"), seen(2), ONE);
            if number % 100 == 0 {
                stats.add_domain(NXDOMAIN, &format!("big{}.test", number / 100 % 5), seen(3), ONE);
            }
            assert!(number % 500 != 0 || stats.rows().len() <= HELD + 1);
        }
        for number in 0..5 {
            let row = row(&stats, &format!("big{number}.test")).expect("a big one stays");
            assert_eq!(row.volume, Volume { taken: 100, refused: 0 });
        }
        assert_eq!(row(&stats, "rare.test").map(|row| row.volume), Some(ONE));
        let kinds = stats.kinds();
        assert_eq!(
            kinds,
            [(NXDOMAIN, Volume { taken: 50_500, refused: 0 }), (no_mx, ONE)],
            "totals are exact"
        );
    }

    #[test]
    fn what_was_taken_stays_before_what_was_refused_anyway() {
        let mut stats = RefusalStats::default();
        stats.add_domain(NXDOMAIN, "wanted.test", seen(1), ONE);
        for number in 0..5_000u32 {
            let refused = Volume { taken: 0, refused: 9 };
            stats.add_domain(NXDOMAIN, &format!("spoof{number}.test"), seen(2), refused);
        }
        assert_eq!(stats.rows().first().map(|row| row.domain.as_str()), Some("wanted.test"));
    }

    #[test]
    fn a_domain_is_exempted_only_where_it_was_confirmed_else_the_one_client() {
        let matches = Kind {
            rule: Some((Identity::MailFrom, Rule::Matches)),
            reason: Reason::NotAnExchanger,
            ..NXDOMAIN
        };
        let no_mx = Kind { reason: Reason::NoMx, ..NXDOMAIN };
        let no_ptr = Kind { rule: exists(Identity::Ptr), reason: Reason::NoPtr, ..NXDOMAIN };
        let invalid = Kind { reason: Reason::InvalidDomain, ..NXDOMAIN };
        let trouble = Kind { reason: Reason::DnsError, action: Action::Defer, ..NXDOMAIN };
        let malformed = Kind { reason: Reason::MalformedHeader, rule: exists(Identity::From), ..NXDOMAIN };
        let no_rule = |reason| Kind { rule: None, reason, ..NXDOMAIN };
        let (only_client, domain) = (Some("clients = [\"192.0.2.7\"]"), Some("domains = [\"a.test\"]"));
        let one: &[(u8, bool)] = &[(7, false)];
        let two: &[(u8, bool)] = &[(7, false), (8, false)];
        let rows: [(Kind, &str, &[(u8, bool)], Option<&str>); 18] = [
            (NXDOMAIN, "a.test", one, only_client),
            (NXDOMAIN, "a.test", two, None),
            (no_mx, "a.test", &[(7, true)], domain),
            (no_mx, "a.test", &[(7, true), (8, true)], domain),
            // somebody else wrote the name of a confirmed sender
            (no_mx, "a.test", &[(7, true), (8, false)], None),
            (matches, "a.test", one, only_client),
            (matches, "a.test", two, None),
            (no_ptr, "", one, only_client),
            // an address that stands in MAIL FROM
            (invalid, "192.0.2.99", one, only_client),
            (invalid, "192.0.2.99", two, None),
            (invalid, "[192.0.2.99]", two, None),
            (invalid, "localhost", two, None),
            (invalid, "a\"]\nclients = [\"0.0.0.0/0", two, None),
            (malformed, "", one, only_client),
            (trouble, "a.test", one, None),
            (no_rule(Reason::RelayingDenied), "a.test", one, None),
            (no_rule(Reason::MalformedHeader), "", one, None),
            (no_rule(Reason::BadAddress), "a.test", &[(7, true)], None),
        ];
        for (kind, domain, clients, expected) in rows {
            let mut stats = RefusalStats::default();
            for (last, confirmed) in clients {
                stats.add_domain(kind, domain, (client(*last), *confirmed), ONE);
            }
            let rows = stats.rows();
            let proposed = rows[0].exemption().map(|it| it.to_string());
            assert_eq!(proposed.as_deref(), expected, "{kind:?} {domain}");
            let lines: Vec<_> = exempt_lines(&rows).into_iter().map(|it| it.line).collect();
            assert_eq!(lines, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_a_rung_of_the_same_domain_and_identity_confirms() {
        use crate::policy::rule::Rung;
        let finding = |identity, rule, domain: &str, outcome| Finding {
            identity,
            rule,
            domain: CompactString::new(domain),
            subject: CompactString::default(),
            outcome,
            evidence: Vec::new(),
        };
        let no_mx = finding(Identity::MailFrom, Rule::Exists, "a.test", RuleResult::Fail(Reason::NoMx));
        let (pass, fail) = (RuleResult::Pass(Rung::Spf), RuleResult::Fail(Reason::NotAnExchanger));
        let rows = [
            (finding(Identity::MailFrom, Rule::Matches, "a.test", pass), true),
            (finding(Identity::MailFrom, Rule::Matches, "a.test", fail), false),
            (finding(Identity::MailFrom, Rule::Matches, "b.test", pass), false),
            (finding(Identity::From, Rule::Matches, "a.test", pass), false),
            (finding(Identity::MailFrom, Rule::Exists, "a.test", pass), false),
        ];
        for (other, expected) in rows {
            assert_eq!(is_confirmed(&no_mx, &[no_mx.clone(), other.clone()]), expected, "{other:?}");
        }
    }

    #[test]
    fn entries_are_gathered_under_their_keys_once_with_what_they_open() {
        let mut stats = RefusalStats::default();
        let helo = Kind { rule: exists(Identity::Helo), ..NXDOMAIN };
        for (kind, domain, last, confirmed) in [
            (NXDOMAIN, "b.test", 1, true),
            (helo, "b.test", 1, true),
            (NXDOMAIN, "a.test", 1, true),
            (NXDOMAIN, "c.test", 1, false),
            (helo, "d.test", 1, false),
        ] {
            stats.add_domain(kind, domain, (client(last), confirmed), ONE);
        }
        stats.add_domain(NXDOMAIN, "refused.test", seen(9), Volume { taken: 0, refused: 1 });
        assert_eq!(
            as_toml(&exempt_lines(&stats.rows())),
            [
                "# all mail from these clients passes, whatever sender it names",
                "clients = [\"192.0.2.1\"]",
                "# these domains pass as senders, whoever names them",
                "domains = [\"a.test\", \"b.test\"]"
            ]
        );
    }

    #[test]
    fn what_is_too_long_for_a_domain_is_cut() {
        let mut stats = RefusalStats::default();
        stats.add_domain(NXDOMAIN, &"\u{e4}".repeat(100_000), seen(1), ONE);
        assert_eq!(stats.rows()[0].domain.len(), 254);
    }
}

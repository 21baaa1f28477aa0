//! Counts of refusals, real or in monitor mode, by identity, rule, reason and sender domain: for the monitor's report and
//! for `rmxd replay`.
//!
//! The memory is bounded: each kind of refusal has at most `HELD` domains; beyond that, only the `KEPT` largest stay. A
//! sender that invents a new domain for each message pushes out only domains with as few messages, and none of another
//! kind. The totals of a kind are exact; a domain that was removed is counted anew, so its number means "at least".

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

/// Domains of one kind that stay when the smallest are removed.
const KEPT: usize = 500;
/// Domains of one kind at most.
const HELD: usize = 1000;
/// Octets of a domain name at most; a longer text is cut.
const MAX_DOMAIN: usize = 255;

/// One kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// The identity and the rule that failed; `None` for a refusal without a rule.
    pub rule: Option<(Identity, Rule)>,
    pub reason: Reason,
    /// The action in mode `enforce`.
    pub action: Action,
}

impl Kind {
    /// The kind of a decision's cause. `finding` is the finding that refused, if a rule did.
    #[must_use]
    pub fn of(cause: &Cause, finding: Option<&Finding>) -> Self {
        let rule = finding.map(|finding| (finding.identity, finding.rule));
        Self { rule, reason: cause.reason, action: cause.action }
    }

    #[must_use]
    pub fn identity_name(self) -> Option<&'static str> {
        self.rule.map(|(identity, _)| identity.name())
    }

    #[must_use]
    pub fn rule_name(self) -> Option<&'static str> {
        self.rule.map(|(_, rule)| rule.name())
    }

    /// Whether the cause is a DNS failure, for which the sender isn't responsible.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        self.reason == Reason::DnsError
    }
}

/// Numbers of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize)]
pub struct Volume {
    /// Accepted in monitor mode. They are compared first, as mode `enforce` would refuse them.
    pub taken: u64,
    pub refused: u64,
}

impl AddAssign for Volume {
    fn add_assign(&mut self, other: Self) {
        self.taken = self.taken.saturating_add(other.taken);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

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

/// Whether a rung of `matches` held for the finding's domain, so that its client does send for the domain. A domain that a
/// sender merely wrote is no reason to trust it.
#[must_use]
pub fn is_confirmed(of: &Finding, findings: &[Finding]) -> bool {
    findings.iter().any(|finding| {
        (finding.identity, finding.rule, &finding.domain) == (of.identity, Rule::Matches, &of.domain)
            && matches!(finding.outcome, RuleResult::Pass(_))
    })
}

impl RefusalStats {
    /// Counts messages of one client with the same cause and findings.
    pub fn add(&mut self, cause: &Cause, findings: &[Finding], client: IpAddr, volume: Volume) {
        let finding = cause.finding_of(findings);
        let domain = finding.map(|finding| finding.domain.as_str()).unwrap_or_default();
        let confirmed = finding.is_some_and(|finding| is_confirmed(finding, findings));
        self.add_domain(Kind::of(cause, finding), domain, (client, confirmed), volume);
    }

    /// Counts a decision, unless it accepted the message.
    pub fn add_record(&mut self, record: &DecisionRecord) {
        let Some(cause) = &record.cause else { return };
        let refused = record.refused();
        let volume = Volume { taken: u64::from(!refused), refused: u64::from(refused) };
        self.add(cause, &record.findings, record.client, volume);
    }

    fn add_domain(&mut self, kind: Kind, domain: &str, (client, confirmed): (IpAddr, bool), volume: Volume) {
        let domains = self.kinds.entry(kind).or_default();
        domains.total += volume;
        // Without a domain, messages are counted by client.
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
            domains.remove_smallest();
        }
    }

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

    /// All counted domains, the largest first.
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
    /// The volumes of all kinds, the `top` largest senders, and the lines that exempt those whose mail was accepted.
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
    /// Takes one pass over all domains for every `HELD - KEPT` new ones.
    fn remove_smallest(&mut self) {
        let mut volumes: Vec<_> = self.rows.values().map(|sender| Reverse(sender.volume)).collect();
        if volumes.len() <= KEPT {
            return;
        }
        let (larger, smallest, _) = volumes.select_nth_unstable(KEPT - 1);
        let mut equal = KEPT - larger.iter().filter(|volume| *volume < smallest).count();
        let smallest = smallest.0;
        self.rows.retain(|_, sender| {
            let stays = sender.volume > smallest || (sender.volume == smallest && equal > 0);
            if sender.volume == smallest {
                equal = equal.saturating_sub(1);
            }
            stays
        });
    }
}

fn cut(domain: &str) -> &str {
    let mut end = domain.len().min(MAX_DOMAIN);
    while !domain.is_char_boundary(end) {
        end -= 1;
    }
    domain.split_at_checked(end).map_or(domain, |(head, _)| head)
}

/// One sender domain with one kind of refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub kind: Kind,
    /// The domain as far as it could be parsed, or the client's address if there is none.
    pub domain: CompactString,
    /// A lower bound.
    pub volume: Volume,
    /// The first client.
    pub client: IpAddr,
    /// Whether there were other clients.
    pub clients_differ: bool,
    /// Whether [`is_confirmed`] held for all of these messages.
    pub confirmed: bool,
}

impl Row {
    /// The exemption that lets this mail pass: the domain if it was confirmed for every message, else the client if there
    /// was only one. An unconfirmed domain may be forged, and an exemption for it would let every forger pass. `None` for DNS
    /// failures, which end before an exemption is made, and for refusals without a rule, which apply to exempt clients too.
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
    #[must_use]
    pub fn json(self, volume: Volume) -> Value {
        json!({
            "identity": self.identity_name(), "rule": self.rule_name(), "reason": self.reason.name(),
            "action": self.action.name(), "taken": volume.taken, "refused": volume.refused,
        })
    }
}

impl Row {
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
    Client(IpAddr),
    Domain(DomainName),
}

impl Exemption {
    /// All mail that the entry lets pass.
    #[must_use]
    pub fn opens(&self) -> &'static str {
        match self {
            Self::Client(_) => "all mail from this client passes, whatever sender it names",
            Self::Domain(_) => "all mail with this sender domain passes, from any client",
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
    /// The mail that its entries let pass.
    pub opens: &'static str,
    /// A line of TOML.
    pub line: String,
}

/// The exemptions for all senders whose mail was accepted, one line for each key.
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
    let domains = line("domains", "all mail with these sender domains passes, from any client", domains);
    clients.into_iter().chain(domains).collect()
}

/// The lines, each below a comment with what it opens.
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

    /// A client without a confirmed domain.
    fn unconfirmed(last: u8) -> (IpAddr, bool) {
        (client(last), false)
    }

    fn row(stats: &RefusalStats, domain: &str) -> Option<Row> {
        stats.rows().into_iter().find(|row| row.domain == domain)
    }

    #[test]
    fn a_flood_of_invented_domains_pushes_out_neither_large_domains_nor_other_kinds() {
        let mut stats = RefusalStats::default();
        let no_mx = Kind { reason: Reason::NoMx, ..NXDOMAIN };
        stats.add_domain(no_mx, "rare.test", unconfirmed(1), ONE);
        for number in 0..50_000u32 {
            stats.add_domain(NXDOMAIN, &format!("spoof{number}.test"), unconfirmed(2), ONE);
            if number % 100 == 0 {
                stats.add_domain(NXDOMAIN, &format!("big{}.test", number / 100 % 5), unconfirmed(3), ONE);
            }
            assert!(number % 500 != 0 || stats.rows().len() <= HELD + 1);
        }
        for number in 0..5 {
            let row = row(&stats, &format!("big{number}.test")).expect("a large domain stays");
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
    fn accepted_mail_ranks_before_refused_mail() {
        let mut stats = RefusalStats::default();
        stats.add_domain(NXDOMAIN, "wanted.test", unconfirmed(1), ONE);
        for number in 0..5_000u32 {
            let refused = Volume { taken: 0, refused: 9 };
            stats.add_domain(NXDOMAIN, &format!("spoof{number}.test"), unconfirmed(2), refused);
        }
        assert_eq!(stats.rows().first().map(|row| row.domain.as_str()), Some("wanted.test"));
    }

    #[test]
    fn the_exemption_is_a_confirmed_domain_or_else_the_only_client() {
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
            // Another client used the domain of a confirmed sender.
            (no_mx, "a.test", &[(7, true), (8, false)], None),
            (matches, "a.test", one, only_client),
            (matches, "a.test", two, None),
            (no_ptr, "", one, only_client),
            // An address in MAIL FROM instead of a domain.
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
        let finding =
            |identity, rule, domain: &str, outcome| Finding::new(identity, rule, domain, "", outcome);
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
    fn each_key_has_one_line_with_what_it_opens() {
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
        stats.add_domain(NXDOMAIN, "refused.test", unconfirmed(9), Volume { taken: 0, refused: 1 });
        assert_eq!(
            as_toml(&exempt_lines(&stats.rows())),
            [
                "# all mail from these clients passes, whatever sender it names",
                "clients = [\"192.0.2.1\"]",
                "# all mail with these sender domains passes, from any client",
                "domains = [\"a.test\", \"b.test\"]"
            ]
        );
    }

    #[test]
    fn a_text_too_long_for_a_domain_is_cut() {
        let mut stats = RefusalStats::default();
        stats.add_domain(NXDOMAIN, &"\u{e4}".repeat(100_000), unconfirmed(1), ONE);
        assert_eq!(stats.rows()[0].domain.len(), 254);
    }
}

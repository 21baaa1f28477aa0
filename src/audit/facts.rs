//! Gathers the facts of an audit concurrently: the DNS records of the domain and of each address, and the decision of each
//! policy.
//!
//! The gate makes the decisions, as in the daemon. `standing` and `remedy` draw the conclusions.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{join, join_all, join3};

use crate::audit::owner::Owner;
use crate::audit::{Auditor, Judge, Question};
use crate::dns::{Account, Budget, Urgency};
use crate::gate::{DryMessage, DryRun};
use crate::message::header::{Author, Field};
use crate::policy::decide::Decision;
use crate::policy::finding::RuleResult;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules, Rule, Rung};
use crate::reverse_mx::{FcrdnsResult, Holding, MxReport, Subject};
use crate::smtp::address::{DomainName, Mailbox, ReversePath};
use crate::spf::{self, Published, Sender};

/// How long SPF may take (RFC 7208 4.6.4).
const SPF_TIME: Duration = Duration::from_secs(20);

/// DNS questions of one step: the MX report needs 3 for each of `dns.max_mx_hosts` hosts.
const MAX_QUESTIONS: u32 = 500;

/// Numbers that are tried for the name of a new host: `mx2` and so on.
const LABELS: std::ops::RangeInclusive<u8> = 2..=20;

/// The rungs of both rules, in the order of the report.
const RUNGS: [(Rule, Rung); 7] = [
    (Rule::Exists, Rung::Mx),
    (Rule::Exists, Rung::Address),
    (Rule::Exists, Rung::Organization),
    (Rule::Matches, Rung::Mx),
    (Rule::Matches, Rung::Network),
    (Rule::Matches, Rung::Ptr),
    (Rule::Matches, Rung::Spf),
];

pub(super) struct Facts {
    pub(super) domain: DomainName,
    pub(super) sender: Mailbox,
    pub(super) mx_report: MxReport,
    /// The SPF record.
    pub(super) published: Published,
    pub(super) owner: Owner,
    /// `dns.max_mx_hosts`.
    pub(super) max_hosts: usize,
    pub(super) lines: Vec<Line>,
}

/// One outgoing address.
pub(super) struct Line {
    pub(super) address: IpAddr,
    pub(super) names: FcrdnsResult,
    /// The names in its PTR records, confirmed or not, at or below the domain.
    pub(super) own_names: Vec<(DomainName, Holding)>,
    /// An unused name below the domain, if the address needs one and one was found.
    pub(super) fresh: Option<DomainName>,
    /// The argument of EHLO.
    pub(super) helo: String,
    pub(super) spf: spf::SpfResult,
    pub(super) judged: Vec<Judged>,
    /// Empty unless [`Question::rungs`] is set.
    pub(super) rungs: Vec<Climbed>,
}

impl Line {
    /// A PTR name in the domain that has the address or is free for it.
    pub(super) fn own_name(&self) -> Option<&DomainName> {
        let usable = |(_, holding): &&(DomainName, Holding)| match self.names {
            FcrdnsResult::Confirmed(_) => holding.alias.is_none(),
            FcrdnsResult::NotConfirmed(_) => holding.is_free_for(self.address),
            FcrdnsResult::NoPtr | FcrdnsResult::TempError(_) => false,
        };
        self.own_names.iter().find(usable).map(|(name, _)| name)
    }

    /// Whether one of its names is forward-confirmed.
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.names, FcrdnsResult::Confirmed(_))
    }
}

/// The decision of one policy.
pub(super) struct Judged {
    pub(super) policy: &'static str,
    pub(super) decision: Decision,
    /// The rule that refused.
    pub(super) refused_by: Option<(Identity, Rule)>,
    /// The result of `matches` for MAIL FROM; `None` if the rule is off or the client is exempt.
    pub(super) matches: Option<RuleResult>,
}

impl Judged {
    /// The reason why a rule of this identity refused, unless it was a DNS failure.
    pub(super) fn refused_for(&self, identity: Identity) -> Option<Reason> {
        let (refused, _) = self.refused_by?;
        let reason = self.decision.cause.as_ref()?.reason;
        (refused == identity && reason != Reason::DnsError).then_some(reason)
    }
}

/// Whether a rung holds for MAIL FROM.
pub(super) struct Climbed {
    pub(super) rule: Rule,
    pub(super) rung: Rung,
    pub(super) outcome: RuleResult,
}

/// An audit in progress.
pub(super) struct Inquiry<'a> {
    pub(super) auditor: &'a Auditor,
    pub(super) question: &'a Question,
}

impl Inquiry<'_> {
    pub(super) async fn gather(&self) -> Facts {
        let Question { domain, sender, egress, .. } = self.question;
        // Each address has an account of its own; questions for all of them are on that of the first.
        let first = egress.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let account = account(first);
        let mx_report = self.auditor.reverse_mx.mx_report(domain, &account);
        let published = spf::published(&self.auditor.dns, domain, &account);
        let owner = Owner::of(&self.auditor.dns, domain, &account);
        let (mx_report, published, owner) = join3(mx_report, published, owner).await;
        let mut lines = join_all(egress.iter().map(|address| self.line(*address))).await;
        let mut labels = LABELS;
        for line in &mut lines {
            let placed = mx_report.trouble().is_some() || mx_report.takes_mail_at(line.address);
            if !placed && line.own_name().is_none() {
                line.fresh = self.fresh_name(&mut labels, &mx_report, line.address).await;
            }
        }
        let (domain, sender) = (domain.clone(), sender.clone());
        let max_hosts = self.auditor.max_hosts;
        Facts { domain, sender, mx_report, published, owner, max_hosts, lines }
    }

    async fn line(&self, address: IpAddr) -> Line {
        let names = self.auditor.reverse_mx.names_of(&account(address)).await;
        let helo = match (&self.question.helo, names.first()) {
            (Some(helo), _) => helo.clone(),
            (None, Some(name)) => name.to_string(),
            (None, None) => self.question.domain.to_string(),
        };
        let own_names = self.own_names(&names.outcome, address);
        let (own_names, spf) = join(own_names, self.spf(address, &helo)).await;
        let judged =
            join_all(self.auditor.judges.iter().map(|judge| self.judge(judge, address, &helo))).await;
        let rungs = if self.question.rungs {
            join_all(RUNGS.map(|(rule, rung)| self.climb(rule, rung, address, &helo))).await
        } else {
            Vec::new()
        };
        let rungs = rungs.into_iter().flatten().collect();
        Line { address, names: names.outcome, own_names, fresh: None, helo, spf, judged, rungs }
    }

    /// The PTR names at or below the domain, for which its administrator can add addresses.
    async fn own_names(&self, names: &FcrdnsResult, address: IpAddr) -> Vec<(DomainName, Holding)> {
        let names: Vec<DomainName> = match names {
            FcrdnsResult::Confirmed(names) => names.clone(),
            FcrdnsResult::NotConfirmed(names) => {
                names.iter().filter_map(|name| DomainName::parse(name).ok()).collect()
            }
            FcrdnsResult::NoPtr | FcrdnsResult::TempError(_) => Vec::new(),
        };
        let own = names.into_iter().filter(|name| name.is_at_or_below(&self.question.domain));
        let account = account(address);
        join_all(own.map(async |name| {
            let holding = self.auditor.reverse_mx.holding(&name, &account).await;
            (name, holding)
        }))
        .await
    }

    async fn spf(&self, address: IpAddr, helo: &str) -> spf::SpfResult {
        let sender = Sender { local: self.question.sender.local(), domain: &self.question.domain, helo };
        let account = account(address);
        let checked = tokio::time::timeout(SPF_TIME, spf::check(&self.auditor.dns, &account, &sender)).await;
        checked.map_or(spf::SpfResult::TempError, |checked| checked.outcome)
    }

    async fn judge(&self, judge: &Judge, address: IpAddr, helo: &str) -> Judged {
        let author = Author {
            address: self.question.sender.to_string().into(),
            domain: Some(self.question.domain.clone()),
        };
        let message = DryMessage::of_addresses(Field::Authors(vec![author]), Field::Absent);
        let dry_run = DryRun {
            client: address,
            helo: Some(helo.to_owned()),
            mail_from: Some(ReversePath::Mailbox(self.question.sender.clone())),
            message: Some(message),
        };
        let record = judge.gate.dry_run(&dry_run).await;
        let refusing = record.cause.as_ref().and_then(|cause| cause.finding_of(&record.findings));
        let refused_by = refusing.map(|finding| (finding.identity, finding.rule));
        let mut findings = record.findings.iter();
        let matches = findings
            .find(|finding| finding.identity == Identity::MailFrom && finding.rule == Rule::Matches)
            .map(|finding| finding.outcome);
        let decision = Decision { verdict: record.verdict, cause: record.cause, mode: record.mode };
        Judged { policy: judge.name, decision, refused_by, matches }
    }

    /// The result of one rung alone.
    async fn climb(&self, rule: Rule, rung: Rung, address: IpAddr, helo: &str) -> Option<Climbed> {
        let action = |wanted| if rule == wanted { Action::Tag } else { Action::Off };
        let rules = IdentityRules {
            exists: action(Rule::Exists),
            matches: action(Rule::Matches),
            exists_by: vec![if rule == Rule::Exists { rung } else { Rung::Mx }],
            matches_by: vec![if rule == Rule::Matches { rung } else { Rung::Mx }],
        };
        let text = self.question.sender.to_string();
        let subject = Subject {
            identity: Identity::MailFrom,
            text: &text,
            domain: &self.question.domain,
            helo,
            envelope: None,
        };
        let findings = self.auditor.reverse_mx.inspect(&subject, &rules, &account(address)).await;
        findings.first().map(|finding| Climbed { rule, rung, outcome: finding.outcome })
    }

    /// A host name without records. If a wildcard answers for every name, the name is made from the address: such a name is
    /// hardly in use, and its own records go before the wildcard's.
    async fn fresh_name(
        &self,
        labels: &mut std::ops::RangeInclusive<u8>,
        mx_report: &MxReport,
        address: IpAddr,
    ) -> Option<DomainName> {
        let is_listed = |name: &DomainName| mx_report.listed().iter().any(|known| known.host() == Some(name));
        for number in labels {
            let name = DomainName::parse(&format!("mx{number}.{}", self.question.domain)).ok()?;
            let holding = self.auditor.reverse_mx.holding(&name, &account(address)).await;
            if holding.trouble.is_some() {
                return None;
            }
            if holding.alias.is_none() && holding.addresses.is_empty() && !is_listed(&name) {
                return Some(name);
            }
        }
        DomainName::parse(&format!("{}.{}", label_of(address), self.question.domain)).ok()
    }
}

/// The account of one step of the audit.
fn account(address: IpAddr) -> Account {
    Account::new(address, Budget::of(MAX_QUESTIONS), Urgency::Refuses)
}

/// `mx-192-0-2-1`, `mx-20010db8000000000000000000000001`.
fn label_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("mx-{}", address.to_string().replace('.', "-")),
        IpAddr::V6(address) => format!("mx-{:032x}", u128::from(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_gives_a_valid_label() {
        let rows = [
            ("192.0.2.1", "mx-192-0-2-1"),
            ("2001:db8::1", "mx-20010db8000000000000000000000001"),
            ("::1", "mx-00000000000000000000000000000001"),
        ];
        for (address, label) in rows {
            assert_eq!(label_of(address.parse().unwrap()), label);
            assert!(DomainName::parse(&format!("{label}.test")).is_ok(), "{label}");
        }
    }
}

//! From a domain to its mail exchangers, and the two rules over them.
//!
//! `exists` and `matches` are the rules, `ptr` finds the client's names, `mx_report` is for audits. A rule fails only where each
//! of its lookups has an answer, and none of these has expired; a pass may rest on an expired one. The policy decides on actions
//! and replies.

mod address;
mod again;
mod exists;
mod matches;
mod mx_report;
mod ptr;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use compact_str::{CompactString, ToCompactString};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ipnet::IpNet;

use crate::dns::lookups::{Lookups, trouble};
use crate::dns::{Account, Dns};
use crate::evidence::Evidence;
use crate::policy::authentication::{Authentication, SpfCheck, SpfResult};
use crate::policy::client::network_of;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{IdentityRules, Rule};
use crate::reverse_mx::matches::Matched;
use crate::smtp::address::DomainName;
use crate::spf::Sender;

pub(crate) use crate::reverse_mx::again::{again, again_ptr};
pub use crate::reverse_mx::mx_report::{Exchanger, Exchangers, Holding, MxReport};
pub use crate::reverse_mx::ptr::{ClientNames, FcrdnsResult};

/// Whether special-purpose addresses count as ones that mail can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateAddresses {
    /// They don't.
    Reject,
    /// They do (test networks).
    Accept,
}

/// The keys of `[policy]` and `[dns]` that the rules need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// MX hosts that count, by preference.
    pub max_mx_hosts: usize,
    /// `dns.private_addresses`.
    pub private_addresses: PrivateAddresses,
    /// Prefix length of [`crate::policy::rule::Rung::Network`] for IPv4, 0 to 32.
    pub match_prefix_v4: u8,
    /// The same for IPv6, 0 to 128.
    pub match_prefix_v6: u8,
}

impl Settings {
    /// Whether an exchanger can be reached at this address.
    fn is_usable(&self, address: IpAddr) -> bool {
        self.private_addresses == PrivateAddresses::Accept || address::is_routable(address)
    }
}

/// One domain of one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Whose domain.
    pub identity: Identity,
    /// The address that the domain was taken from, printable.
    pub text: &'a str,
    /// The domain.
    pub domain: &'a DomainName,
    /// What the client called itself, if it did.
    pub helo: &'a str,
    /// For From: the sender of the envelope, whose SPF counts where it is of the same organisation.
    pub envelope: Option<Envelope<'a>>,
}

/// The sender of the envelope as SPF sees it: MAIL FROM, or HELO for the null sender (RFC 7208 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub identity: Identity,
    pub sender: Sender<'a>,
}

impl Envelope<'_> {
    /// SPF for it, as a result to be shown.
    #[must_use]
    pub fn checked(&self, result: SpfResult) -> SpfCheck {
        SpfCheck { result, identity: self.identity, domain: self.sender.domain.as_str().into() }
    }
}

impl<'a> Subject<'a> {
    /// In whose name SPF sees the client: the whole address for MAIL FROM, else postmaster (RFC 7208 2.3, 2.4).
    fn sender(&self) -> Sender<'a> {
        let local = match self.identity {
            Identity::MailFrom => self.text.rsplit_once('@').map_or("", |(local, _)| local),
            Identity::Helo | Identity::Ptr | Identity::From | Identity::ReplyTo => "",
        };
        Sender { local, domain: self.domain, helo: self.helo }
    }
}

/// Judges domains by DNS; clones share the cache.
#[derive(Debug, Clone)]
pub struct ReverseMx {
    dns: Dns,
    settings: Settings,
}

impl ReverseMx {
    /// By this DNS and these settings.
    #[must_use]
    pub fn new(dns: Dns, settings: Settings) -> Self {
        Self { dns, settings }
    }

    /// The DNS that it judges by.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// The network of a client, by `match_prefix_v4` and `_v6`.
    #[must_use]
    pub fn network_of(&self, client: IpAddr) -> IpNet {
        network_of(client, self.settings.match_prefix_v4, self.settings.match_prefix_v6)
    }

    /// Both rules of one domain of one identity, one after the other: what `exists` finds, `matches` has from the cache. A rule
    /// whose action is off is not looked up and gives no finding.
    pub async fn inspect(
        &self,
        subject: &Subject<'_>,
        rules: &IdentityRules,
        account: &Account,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for rule in rules.active() {
            findings.push(self.inspect_by(rule, subject, rules, account).await);
        }
        findings
    }

    /// One rule of one domain of one identity.
    pub async fn inspect_by(
        &self,
        rule: Rule,
        subject: &Subject<'_>,
        rules: &IdentityRules,
        account: &Account,
    ) -> Finding {
        let Subject { identity, text, domain, .. } = *subject;
        let (Matched { outcome, spf }, evidence) = self.judge(rule, subject, rules, account).await;
        let authentication =
            spf.map(|spf| Box::new(Authentication { spf: Some(spf), ..Authentication::default() }));
        let (domain, subject) = (CompactString::new(domain.as_str()), CompactString::new(text));
        Finding {
            identity,
            rule,
            domain,
            subject,
            outcome,
            action: rules.action(rule),
            entry: None,
            authentication,
            evidence,
        }
    }

    /// The names that the client's PTR records give, confirmed by their own addresses.
    pub async fn names_of(&self, account: &Account) -> ClientNames {
        ptr::names_of(&self.dns, account).await
    }

    /// One rule of the client's names. Without a confirmed name it doesn't hold; of several, any that passes counts.
    pub async fn inspect_ptr(
        &self,
        rule: Rule,
        names: &ClientNames,
        rules: &IdentityRules,
        account: &Account,
    ) -> Finding {
        let missing = |outcome| Finding {
            identity: Identity::Ptr,
            rule,
            domain: CompactString::default(),
            subject: account.client().to_compact_string(),
            outcome,
            action: rules.action(rule),
            entry: None,
            authentication: None,
            evidence: names.evidence.clone(),
        };
        match &names.outcome {
            FcrdnsResult::Confirmed(confirmed) => {
                match self.best_name(rule, names, confirmed, rules, account).await {
                    Some(finding) => finding,
                    None => missing(RuleResult::Fail(Reason::PtrNotConfirmed)),
                }
            }
            FcrdnsResult::NoPtr => missing(RuleResult::Fail(Reason::NoPtr)),
            FcrdnsResult::NotConfirmed(_) => missing(RuleResult::Fail(Reason::PtrNotConfirmed)),
            FcrdnsResult::TempError(trouble) => missing(RuleResult::TempError(*trouble)),
        }
    }

    async fn judge(
        &self,
        rule: Rule,
        subject: &Subject<'_>,
        rules: &IdentityRules,
        account: &Account,
    ) -> (Matched, Vec<Evidence>) {
        let mut lookups = Lookups::new(&self.dns, account);
        let matched = judge(&mut lookups, &self.settings, rule, subject, rules).await;
        (matched, lookups.into_evidence())
    }

    /// The first name found to pass; without one the first name's failure, unless any lookup failed.
    async fn best_name(
        &self,
        rule: Rule,
        names: &ClientNames,
        confirmed: &[DomainName],
        rules: &IdentityRules,
        account: &Account,
    ) -> Option<Finding> {
        let shares = account.shares(confirmed.len());
        let judge = async |(at, (name, account)): (usize, (_, &Account))| {
            // The names are known before the client says HELO.
            let subject =
                Subject { identity: Identity::Ptr, text: "", domain: name, helo: "", envelope: None };
            (at, name, self.judge(rule, &subject, rules, account).await)
        };
        let mut pending: FuturesUnordered<_> = confirmed.iter().zip(&shares).enumerate().map(judge).collect();
        let mut judged = Vec::new();
        let mut passed = None;
        while let Some((at, name, (Matched { outcome, .. }, evidence))) = pending.next().await {
            judged.push((at, name, outcome, evidence));
            if let RuleResult::Pass(_) = outcome {
                passed = Some((name, outcome));
                break;
            }
        }
        judged.sort_by_key(|(at, ..)| *at);
        let first = judged.first().map(|(_, name, outcome, _)| (*name, *outcome));
        let mut evidence = names.evidence.clone();
        evidence.extend(judged.into_iter().flat_map(|(.., evidence)| evidence));
        let (name, outcome) = match (passed, first, trouble(&evidence)) {
            (Some(passed), ..) => passed,
            (None, Some((name, _)), Some(trouble)) => (name, RuleResult::TempError(trouble)),
            (None, Some(first), None) => first,
            (None, None, _) => return None,
        };
        let domain = CompactString::new(name.as_str());
        Some(Finding {
            identity: Identity::Ptr,
            rule,
            subject: domain.clone(),
            domain,
            outcome,
            action: rules.action(rule),
            entry: None,
            authentication: None,
            evidence,
        })
    }
}

/// One rule of one domain, by these lookups.
async fn judge(
    lookups: &mut Lookups<'_>,
    settings: &Settings,
    rule: Rule,
    subject: &Subject<'_>,
    rules: &IdentityRules,
) -> Matched {
    let domain = subject.domain;
    let is_infrastructure = subject.identity != Identity::Ptr && is_infrastructure(domain);
    if is_infrastructure || domain.is_single_label() || domain.is_ip_text() {
        return RuleResult::Fail(Reason::InvalidDomain).into();
    }
    match rule {
        Rule::Exists => exists::exists(lookups, settings, domain, &rules.exists_by).await.into(),
        Rule::Matches => matches::matches(lookups, settings, subject, rules).await,
    }
}

/// Names below `arpa` are those of addresses and the like (RFC 3172): they are the infrastructure's, and no sender's.
fn is_infrastructure(domain: &DomainName) -> bool {
    domain.as_str().ends_with(".arpa")
}

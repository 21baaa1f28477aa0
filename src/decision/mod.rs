//! The record of a decision, which can explain it later (contract 1.8).
//!
//! A [`DecisionRecord`] holds the facts of the decision, not their text: a session makes it, so that takes a few small
//! copies and no formatting. [`report`] formats it on demand. The reply isn't stored either, since the table of reasons
//! gives the same reply for the same facts.

mod id;
mod misread;
mod notes;
mod refusal;
pub mod report;
mod results;
mod sequence;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;
use smallvec::SmallVec;

pub use crate::decision::id::{Id, Node};
pub use crate::decision::refusal::{refusal, suffix};
use crate::evidence::{Answer, DnsFailure, Freshness, Question};
use crate::policy::decide::{Cause, Verdict};
use crate::policy::door::DoorName;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::{DomainName, ReversePath};

/// A decision with its evidence at that time.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// `None` in a dry run (`rmxd check`). A transaction with several decisions (greylisting decides for each recipient)
    /// has several records with one id.
    pub id: Option<Id>,
    pub at: SystemTime,
    pub client: IpAddr,
    pub door: DoorName,
    /// The id of the message at Postfix, at the doors where Postfix gives it; empty if it isn't known.
    pub queue: CompactString,
    /// The version of TLS between client and mail server, such as `TLSv1.3`; empty for plain text. The history doesn't keep it.
    pub tls: CompactString,
    /// The PTR names of the client; `None` if they weren't looked up, or not known in time.
    pub names: Option<FcrdnsResult>,
    pub extent: Scope,
    pub mode: Mode,
    /// The actions of the policy in force.
    pub actions: Actions,
    /// The verdict of the policy, even in monitor mode.
    pub verdict: Verdict,
    /// `None` exactly if the verdict is accept.
    pub cause: Option<Cause>,
    /// `None` in a dry run, and in records of older versions.
    pub end: Option<End>,
    /// `reply.help_url`, empty for none.
    pub help_url: Arc<str>,
    /// The HELO argument, unchanged.
    pub helo: CompactString,
    /// The reverse path with its angle brackets; empty before MAIL.
    pub mail_from: CompactString,
    /// The recipient, or the first of several; empty at a stage before RCPT.
    pub rcpt: CompactString,
    /// The number of recipients that the next hop has accepted so far.
    pub rcpts: usize,
    /// The recipients behind `rcpt`, where the decision is about all that were accepted; bounded, so there may be fewer.
    pub recipients: Vec<CompactString>,
    /// Addresses in From:; empty at a stage before the header.
    pub from: CompactString,
    /// Addresses in Reply-To:.
    pub reply_to: CompactString,
    /// From MAIL to the decision.
    pub duration: Duration,
    /// All findings so far.
    pub findings: Arc<Vec<Finding>>,
    /// The temporary permit by which it was let in; `None` if it was refused nevertheless.
    pub permit: Option<LetIn>,
    /// The findings have all of their evidence: the history keeps less of a very large decision.
    pub whole: bool,
}

/// A temporary permit (contract 3.5), as a decision names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetIn {
    pub number: u64,
    /// `None` = until it is removed.
    pub until: Option<SystemTime>,
}

/// The part of a transaction that a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing: the client is exempt.
    ExemptClient,
    /// Nothing: all recipients are exempt.
    ExemptRecipients,
    /// Nothing: a temporary permit lets in the whole message.
    Permit,
    /// Nothing: the transaction ended before any lookup.
    Nothing,
    /// The rules of helo, ptr and mail_from that can refuse.
    Envelope,
    /// All five identities.
    Message,
}

/// The end of a transaction, or of a part of it that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub outcome: Outcome,
    /// The reason if the next hop refused or failed: [`Reason::RelayRefused`] and the like.
    pub trouble: Option<Reason>,
    /// The next hop's last reply, on one line; empty if there was none.
    pub relay_reply: CompactString,
    /// The reply to the client, if it isn't that of the table of reasons; else empty.
    pub answer: CompactString,
}

impl End {
    /// An end with the outcome alone.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        let (relay_reply, answer) = (CompactString::default(), CompactString::default());
        Self { outcome, trouble: None, relay_reply, answer }
    }
}

/// The actions of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions([[Action; 2]; 5]);

impl Actions {
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self(Identity::ALL.map(|identity| {
            let rules = policy.rules(identity);
            Rule::ALL.map(|rule| rules.action(rule))
        }))
    }

    /// The actions of each identity in turn, first of `exists`, then of `matches`.
    pub fn all(&self) -> impl Iterator<Item = Action> {
        self.0.into_iter().flatten()
    }

    /// The inverse of [`Actions::all`].
    #[must_use]
    pub fn from_all([a, b, c, d, e, f, g, h, i, j]: [Action; 10]) -> Self {
        Self([[a, b], [c, d], [e, f], [g, h], [i, j]])
    }

    /// The action if this rule fails.
    #[must_use]
    pub fn action(&self, identity: Identity, rule: Rule) -> Action {
        let actions = self.0.get(identity as usize);
        actions.and_then(|actions| actions.get(rule as usize)).copied().unwrap_or(Action::Off)
    }

    /// Whether any rule of this identity is looked up.
    #[must_use]
    pub fn looks(&self, identity: Identity) -> bool {
        Rule::ALL.into_iter().any(|rule| self.action(identity, rule) != Action::Off)
    }
}

impl DecisionRecord {
    /// Whether the client was refused: the verdict isn't accept, and the mode is enforce.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.mode == Mode::Enforce && self.verdict != Verdict::Accept
    }

    /// Whether the client would have been refused in mode enforce.
    #[must_use]
    pub fn would_be_refused(&self) -> bool {
        self.mode == Mode::Monitor && self.verdict != Verdict::Accept
    }

    /// The reason of the refusal, real or in monitor mode, or of the next hop's failure.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let trouble = || self.end.as_ref().and_then(|end| end.trouble);
        self.cause.as_ref().map(|cause| cause.reason).or_else(trouble)
    }

    /// The identity whose rule refused, really or in monitor mode; `None` if nothing or no rule refused.
    #[must_use]
    pub fn refusing_rule(&self) -> Option<Identity> {
        Some(self.cause.as_ref()?.finding_of(&self.findings)?.identity)
    }

    /// The sender that a permit made from this refusal is for, and the identity that has its domain: From: or Reply-To: where
    /// one of them was refused; else MAIL FROM, or HELO for the null sender, under the identity that was refused. `None` if no
    /// rule refused, or nothing names a domain.
    #[must_use]
    pub fn permit_for(&self) -> Option<(Identity, DomainName)> {
        let refused = self.refusing_rule()?;
        let of_envelope = || match ReversePath::parse(&self.mail_from).ok()? {
            ReversePath::Mailbox(mailbox) => mailbox.domain().name().cloned(),
            ReversePath::Null => DomainName::parse(&self.helo).ok(),
            ReversePath::NoDomain(_) => None,
        };
        match refused {
            Identity::From | Identity::ReplyTo => {
                let visible = self.deciding().and_then(|finding| DomainName::parse(&finding.domain).ok());
                let visible = visible.map(|domain| (refused, domain));
                visible.or_else(|| Some((Identity::MailFrom, of_envelope()?)))
            }
            Identity::MailFrom | Identity::Helo | Identity::Ptr => Some((refused, of_envelope()?)),
        }
    }

    /// The recipients that the decision is about, as far as they are known.
    pub fn all_recipients(&self) -> impl Iterator<Item = &CompactString> {
        std::iter::once(&self.rcpt).chain(&self.recipients).filter(|recipient| !recipient.is_empty())
    }

    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.end.as_ref().map(|end| end.outcome)
    }

    /// The next hop's last reply.
    #[must_use]
    pub fn relay_reply(&self) -> Option<&str> {
        self.end.as_ref().map(|end| end.relay_reply.as_str()).filter(|reply| !reply.is_empty())
    }

    /// The failures that were only tagged, as `identity.rule.reason`, each once.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        let all = self.findings.iter().enumerate();
        for (_, finding) in all.filter(|(at, _)| self.cause.as_ref().and_then(|it| it.finding) != Some(*at)) {
            let RuleResult::Fail(reason) = finding.outcome else { continue };
            let by_malformed = reason == Reason::MalformedHeader && self.cause.is_none();
            let action = finding.action;
            let tag = || format!("{}.{}.{reason}", finding.identity, finding.rule);
            if (action == Action::Tag || by_malformed) && !tags.contains(&tag()) {
                tags.push(tag());
            }
        }
        tags
    }

    /// The finding that decided: the one that refused, or for an accepted message the strongest pass. A pass of `matches`
    /// counts most if a failure would have refused; then one of From:, the sender that people see.
    #[must_use]
    pub fn deciding(&self) -> Option<&Finding> {
        if let Some(cause) = &self.cause {
            return cause.finding_of(&self.findings);
        }
        let passed = self.findings.iter().filter(|finding| matches!(finding.outcome, RuleResult::Pass(_)));
        let refuses = |finding: &Finding| finding.action.refuses();
        let rank = |finding: &&Finding| {
            (finding.rule == Rule::Matches && refuses(finding), finding.identity == Identity::From)
        };
        passed.min_by_key(|finding| std::cmp::Reverse(rank(finding)))
    }

    /// The rung by which the deciding finding passed.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        match self.deciding()?.outcome {
            RuleResult::Pass(rung) => Some(rung),
            RuleResult::Fail(_) | RuleResult::TempError(_) | RuleResult::None(_) => None,
        }
    }

    /// The client's first confirmed name.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        match &self.names {
            Some(FcrdnsResult::Confirmed(names)) => names.first(),
            Some(FcrdnsResult::NoPtr | FcrdnsResult::NotConfirmed(_) | FcrdnsResult::TempError(_)) | None => {
                None
            }
        }
    }

    /// The client's confirmed names.
    #[must_use]
    pub fn ptr(&self) -> Vec<String> {
        match &self.names {
            Some(FcrdnsResult::Confirmed(names)) => names.iter().map(ToString::to_string).collect(),
            Some(FcrdnsResult::NoPtr | FcrdnsResult::NotConfirmed(_) | FcrdnsResult::TempError(_)) | None => {
                Vec::new()
            }
        }
    }

    /// The number of questions to DNS. A question of several findings counts once, an answer from the cache not at all.
    #[must_use]
    pub fn queries(&self) -> usize {
        queries(&self.findings)
    }

    /// The reply of the refusal, real or in monitor mode, as the door has it. Without an id, the text has "ID" in its place.
    #[must_use]
    pub fn reply(&self) -> Option<String> {
        if let Some(End { answer, .. }) = self.end.as_ref().filter(|end| !end.answer.is_empty()) {
            return Some(answer.to_string());
        }
        let cause = self.cause.as_ref()?;
        let id = self.id.as_ref().map_or("ID", Id::as_str);
        Some(refusal(cause, cause.finding_of(&self.findings), self.door, id, &self.help_url).to_string())
    }
}

/// As [`DecisionRecord::queries`].
#[must_use]
pub fn queries(findings: &[Finding]) -> usize {
    let evidence = findings.iter().flat_map(|finding| &finding.evidence);
    let not_sent = |answer: &Answer| {
        matches!(answer, Answer::Unavailable(DnsFailure::Busy | DnsFailure::TooMany | DnsFailure::Down))
    };
    let fresh =
        evidence.filter(|evidence| evidence.freshness == Freshness::Fresh && !not_sent(&evidence.answer));
    let mut questions: SmallVec<[&Question; 16]> = fresh.map(|evidence| &evidence.question).collect();
    questions.sort_unstable();
    questions.dedup();
    questions.len()
}

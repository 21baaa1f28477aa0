//! One decision as it was: everything that explains it later, to whoever asks (contract 1.8).
//!
//! A [`DecisionRecord`] holds what the decision was made of, not the words for it: making one copies a few small things and
//! formats nothing, since it is made on the session's time. Words come from [`report`], when somebody asks. The reply is
//! not kept either: the table of reasons gives the same one for the same facts.

mod id;
mod refusal;
pub mod report;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;

pub use crate::decision::id::Id;
pub use crate::decision::refusal::{refusal, suffix};
use crate::evidence::{Answer, DnsFailure, Evidence, Freshness};
use crate::policy::decide::{Cause, Verdict};
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Policy, Rule, Rung};
use crate::reverse_mx::FcrdnsResult;
use crate::smtp::address::DomainName;

/// A question, and its share of an answer that others have too.
const WEIGHT_OF_EVIDENCE: usize = size_of::<Evidence>() + 64;

/// One decision, with its evidence as it was then.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// Its name; `None` where nobody was told one (`rmxd check`). A transaction with several decisions (greylisting
    /// decides for each recipient) has several records of one id.
    pub id: Option<Id>,
    /// When it was made.
    pub at: SystemTime,
    /// The client's address.
    pub client: IpAddr,
    /// What DNS calls the client; `None` = not asked, or not known by then.
    pub names: Option<FcrdnsResult>,
    /// How much was looked at.
    pub extent: Scope,
    /// Whether refusals were carried out.
    pub mode: Mode,
    /// What the failures would have led to.
    pub actions: Actions,
    /// What the policy said, whatever the mode.
    pub verdict: Verdict,
    /// What refused; `None` exactly when the verdict is accept.
    pub cause: Option<Cause>,
    /// What became of it; `None` in a dry run, and in records of versions that didn't keep it.
    pub end: Option<End>,
    /// `reply.help_url`; empty = none.
    pub help_url: Arc<str>,
    /// The HELO argument, as it came.
    pub helo: CompactString,
    /// The reverse path in its brackets; empty = none was given.
    pub mail_from: CompactString,
    /// The recipient, or the first of several; empty = not known at this stage.
    pub rcpt: CompactString,
    /// Recipients that the next hop has accepted by then.
    pub rcpts: usize,
    /// Addresses in From:; empty = not known at this stage.
    pub from: CompactString,
    /// Addresses in Reply-To:.
    pub reply_to: CompactString,
    /// From MAIL to the decision.
    pub duration: Duration,
    /// Everything that was found by then.
    pub findings: Arc<Vec<Finding>>,
}

/// How much of a transaction a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing, the client is exempt.
    ExemptClient,
    /// Nothing, its recipients are exempt.
    ExemptRecipients,
    /// Nothing, it ended before that.
    Nothing,
    /// What can refuse of helo, ptr and mail_from.
    Envelope,
    /// All five identities.
    Message,
}

/// How a transaction ended, or a part of it that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What became of it.
    pub outcome: Outcome,
    /// Why not, where it was the next hop's doing: [`Reason::RelayRefused`] and the like.
    pub trouble: Option<Reason>,
    /// The next hop's last reply, on one line; empty = it gave none.
    pub relay_reply: CompactString,
    /// The reply to the client where the table of reasons doesn't give it; empty = it does.
    pub answer: CompactString,
}

impl End {
    /// An end of which nothing more is known.
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
    /// Of this policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self(Identity::ALL.map(|identity| {
            let rules = policy.rules(identity);
            Rule::ALL.map(|rule| rules.action(rule))
        }))
    }

    /// All of them: those of each identity in turn, first of `exists`, then of `matches`.
    pub fn all(&self) -> impl Iterator<Item = Action> {
        self.0.into_iter().flatten()
    }

    /// From [`Actions::all`].
    #[must_use]
    pub fn from_all([a, b, c, d, e, f, g, h, i, j]: [Action; 10]) -> Self {
        Self([[a, b], [c, d], [e, f], [g, h], [i, j]])
    }

    /// What a failure of this rule leads to.
    #[must_use]
    pub fn action(&self, identity: Identity, rule: Rule) -> Action {
        let actions = self.0.get(identity as usize);
        actions.and_then(|actions| actions.get(rule as usize)).copied().unwrap_or(Action::Off)
    }

    /// Whether anything is asked about this identity.
    #[must_use]
    pub fn looks(&self, identity: Identity) -> bool {
        Rule::ALL.into_iter().any(|rule| self.action(identity, rule) != Action::Off)
    }
}

impl DecisionRecord {
    /// About how many octets of memory it holds.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { helo, mail_from, rcpt, from, reply_to, findings, .. } = self;
        let end = self.end.iter().flat_map(|end| [&end.relay_reply, &end.answer]);
        let subject = self.cause.iter().map(|cause| &cause.subject);
        let texts = [helo, mail_from, rcpt, from, reply_to].into_iter().chain(end).chain(subject);
        let texts: usize = texts.map(|text| text.len()).sum();
        let evidence: usize = findings.iter().map(|finding| finding.evidence.len()).sum();
        size_of::<Self>() + texts + findings.len() * size_of::<Finding>() + evidence * WEIGHT_OF_EVIDENCE
    }

    /// Whether the client was refused: the verdict says so and the mode carried it out.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.mode == Mode::Enforce && self.verdict != Verdict::Accept
    }

    /// Whether the client would have been refused, had the mode carried it out.
    #[must_use]
    pub fn would_be_refused(&self) -> bool {
        self.mode == Mode::Monitor && self.verdict != Verdict::Accept
    }

    /// Why it was refused, or would have been; or why the next hop didn't take it.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let trouble = || self.end.as_ref().and_then(|end| end.trouble);
        self.cause.as_ref().map(|cause| cause.reason).or_else(trouble)
    }

    /// What became of it.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.end.as_ref().map(|end| end.outcome)
    }

    /// What the next hop said last.
    #[must_use]
    pub fn relay_reply(&self) -> Option<&str> {
        self.end.as_ref().map(|end| end.relay_reply.as_str()).filter(|reply| !reply.is_empty())
    }

    /// What failed and was only tagged, as `identity.rule.reason`, each once.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let mut tags = Vec::new();
        let all = self.findings.iter().enumerate();
        for (_, finding) in all.filter(|(at, _)| self.cause.as_ref().and_then(|it| it.finding) != Some(*at)) {
            let RuleResult::Fail(reason) = finding.outcome else { continue };
            let by_malformed = reason == Reason::MalformedHeader && self.cause.is_none();
            let action = self.actions.action(finding.identity, finding.rule);
            let tag = || format!("{}.{}.{reason}", finding.identity, finding.rule);
            if (action == Action::Tag || by_malformed) && !tags.contains(&tag()) {
                tags.push(tag());
            }
        }
        tags
    }

    /// The finding that decided: what refused, where a rule did, or of an accepted message what passed that was hardest to pass. That is
    /// that the client matches, where it would have been refused otherwise; before other senders the one that people see.
    #[must_use]
    pub fn deciding(&self) -> Option<&Finding> {
        if let Some(cause) = &self.cause {
            return cause.finding_of(&self.findings);
        }
        let passed = self.findings.iter().filter(|finding| matches!(finding.outcome, RuleResult::Pass(_)));
        let refuses = |finding: &Finding| self.actions.action(finding.identity, finding.rule).refuses();
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

    /// Questions that DNS was asked; several findings may rest on the same one, and what the cache knew is none.
    #[must_use]
    pub fn queries(&self) -> usize {
        queries(&self.findings)
    }

    /// The reply to the client that was refused; where the mode is monitor, the one that it would have been. An id that
    /// nobody was told is left out of it.
    #[must_use]
    pub fn reply(&self) -> Option<String> {
        if let Some(End { answer, .. }) = self.end.as_ref().filter(|end| !end.answer.is_empty()) {
            return Some(answer.to_string());
        }
        let cause = self.cause.as_ref()?;
        let id = self.id.as_ref().map_or("ID", Id::as_str);
        Some(refusal(cause, cause.finding_of(&self.findings), id, &self.help_url).to_string())
    }
}

/// [`DecisionRecord::queries`] of these findings.
#[must_use]
pub fn queries(findings: &[Finding]) -> usize {
    let evidence = findings.iter().flat_map(|finding| &finding.evidence);
    let unasked = |answer: &Answer| {
        matches!(answer, Answer::Unavailable(DnsFailure::Busy | DnsFailure::TooMany | DnsFailure::Down))
    };
    let fresh =
        evidence.filter(|evidence| evidence.freshness == Freshness::Fresh && !unasked(&evidence.answer));
    fresh.map(|evidence| &evidence.question).collect::<HashSet<_>>().len()
}

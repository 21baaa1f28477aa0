//! One decision as it was: everything that explains it later, to whoever asks (DESIGN 1.7).
//!
//! A [`Record`] holds what the decision was made of, not the words for it: making one copies a few small things and
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

use crate::policy::decide::{Cause, Decision, Verdict};
use crate::policy::evidence::{Answer, Evidence, Freshness, Trouble};
use crate::policy::finding::{Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Policy, Rule, Rung};
pub use crate::record::id::Id;
pub use crate::record::refusal::refusal;
use crate::reverse_mx::NamesOutcome;
use crate::smtp::address::DomainName;
use crate::smtp::reply::Reply;

/// A question, and its share of an answer that others have too.
const WEIGHT_OF_EVIDENCE: usize = size_of::<Evidence>() + 64;

/// One decision, with its evidence as it was then.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name; `None` where nobody was told one (`rmxd check`). A transaction with several decisions (greylisting
    /// decides for each recipient) has several records of one id.
    pub id: Option<Id>,
    /// When it was made.
    pub at: SystemTime,
    /// The client's address.
    pub client: IpAddr,
    /// What DNS calls the client; `None` = not asked, or not known by then.
    pub names: Option<NamesOutcome>,
    /// How much was looked at.
    pub extent: Extent,
    /// Whether refusals were carried out.
    pub mode: Mode,
    /// What the failures would have led to.
    pub actions: Actions,
    /// What the policy said, whatever the mode.
    pub verdict: Verdict,
    /// What refused, and the place of its finding; `None` exactly when the verdict is accept.
    pub because: Option<(Because, usize)>,
    /// `reply.help_url`; empty = none.
    pub help_url: Arc<str>,
    /// The HELO argument, as it came.
    pub helo: CompactString,
    /// The reverse path in its brackets; empty = none was given.
    pub mail_from: CompactString,
    /// The recipient, or the first of several; empty = not known at this stage.
    pub rcpt: CompactString,
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
pub enum Extent {
    /// Nothing, the client is exempt.
    ExemptClient,
    /// Nothing, its recipients are exempt.
    ExemptRecipients,
    /// What can refuse of helo, ptr and mail_from.
    Envelope,
    /// All five identities.
    Message,
}

/// How a finding refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Because {
    /// [`Cause::reason`].
    pub reason: Reason,
    /// [`Cause::action`].
    pub action: Action,
    /// [`Cause::wait`].
    pub wait: Option<Duration>,
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

impl Record {
    /// Sets what the decision says. A finding that decided is among the findings, or is put there.
    pub fn decide(&mut self, decision: &Decision) {
        self.verdict = decision.verdict;
        self.because = decision.cause.as_ref().map(|cause| self.because(cause));
    }

    fn because(&mut self, cause: &Cause) -> (Because, usize) {
        let known = self.findings.iter().position(|finding| *finding == cause.finding);
        let at = known.unwrap_or_else(|| {
            Arc::make_mut(&mut self.findings).push(cause.finding.clone());
            self.findings.len() - 1
        });
        (Because { reason: cause.reason, action: cause.action, wait: cause.wait }, at)
    }

    /// About how many octets of memory it holds.
    #[must_use]
    pub fn weight(&self) -> usize {
        let Self { helo, mail_from, rcpt, from, reply_to, findings, .. } = self;
        let texts: usize = [helo, mail_from, rcpt, from, reply_to].iter().map(|text| text.len()).sum();
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

    /// Why it was refused, or would have been.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.because.map(|(because, _)| because.reason)
    }

    /// The finding that decided: what refused, or of an accepted message what passed that was hardest to pass. That is
    /// that the client matches, where it would have been refused otherwise; before other senders the one that people see.
    #[must_use]
    pub fn deciding(&self) -> Option<&Finding> {
        if let Some((_, at)) = self.because {
            return self.findings.get(at);
        }
        let passed = self.findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Pass(_)));
        let refuses = |finding: &Finding| self.actions.action(finding.identity, finding.rule).refuses();
        let rank = |finding: &&Finding| {
            (finding.rule == Rule::Matches && refuses(finding), finding.identity == Identity::From)
        };
        passed.min_by_key(|finding| std::cmp::Reverse(rank(finding)))
    }

    /// [`Record::deciding`], where it is a rule that decided; relaying is denied without one.
    #[must_use]
    pub fn deciding_rule(&self) -> Option<&Finding> {
        self.deciding().filter(|_| self.reason() != Some(Reason::RelayingDenied))
    }

    /// The rung by which the deciding finding passed.
    #[must_use]
    pub fn rung(&self) -> Option<Rung> {
        match self.deciding()?.outcome {
            Outcome::Pass(rung) => Some(rung),
            Outcome::Fail(_) | Outcome::TempError(_) | Outcome::None(_) => None,
        }
    }

    /// The client's first confirmed name.
    #[must_use]
    pub fn name(&self) -> Option<&DomainName> {
        match &self.names {
            Some(NamesOutcome::Confirmed(names)) => names.first(),
            Some(NamesOutcome::NoPtr | NamesOutcome::NotConfirmed(_) | NamesOutcome::TempError(_)) | None => {
                None
            }
        }
    }

    /// The client's confirmed names.
    #[must_use]
    pub fn ptr(&self) -> Vec<String> {
        match &self.names {
            Some(NamesOutcome::Confirmed(names)) => names.iter().map(ToString::to_string).collect(),
            Some(NamesOutcome::NoPtr | NamesOutcome::NotConfirmed(_) | NamesOutcome::TempError(_)) | None => {
                Vec::new()
            }
        }
    }

    /// Questions that DNS was asked; several findings may rest on the same one, and what the cache knew is none.
    #[must_use]
    pub fn queries(&self) -> usize {
        queries(&self.findings)
    }

    /// The reply to the client; where the mode is monitor, the one that it would have been. An id that nobody was told is
    /// left out of it.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        let (because, at) = self.because?;
        let id = self.id.as_ref().map_or("ID", Id::as_str);
        Some(refusal(self.findings.get(at)?, because, id, &self.help_url))
    }
}

/// [`Record::queries`] of these findings.
#[must_use]
pub fn queries(findings: &[Finding]) -> usize {
    let evidence = findings.iter().flat_map(|finding| &finding.evidence);
    let unasked = |answer: &Answer| {
        matches!(answer, Answer::Unavailable(Trouble::Busy | Trouble::TooMany | Trouble::Down))
    };
    let fresh =
        evidence.filter(|evidence| evidence.freshness == Freshness::Fresh && !unasked(&evidence.answer));
    fresh.map(|evidence| &evidence.question).collect::<HashSet<_>>().len()
}

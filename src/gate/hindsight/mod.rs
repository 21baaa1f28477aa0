//! What another configuration would have decided on mail of the past, by the findings and answers that were kept.
//!
//! The rules judge again by their own code, over the answers of then (`dns::kept`); the decision is made by
//! [`crate::policy::decide`], the owner's request by `gate::owner`. What was not asked then is unknown: the result is
//! the weakest and the strongest decision that are possible, and what makes the difference.
//!
//! - A refusal that no rule made stays as it is. A transaction that ended before its header is judged as far as it came.
//! - Where the envelope was refused and would be taken, the header is unknown, since it did not come.
//! - Exemptions of the new configuration are known; what the old one exempted was not looked up.
//! - A message that a temporary permit let in is let in by it. Of another permit the record has no conditions: what it may have
//!   let in is unknown. A permit that wasn't asked for isn't known.
//! - Of several recipients, exempt ones are taken where others are refused; the decision is that on the others.
//! - A DNS failure of then is one now.
//! - A transaction that ended at MAIL meets no rule where recipients are refused, and is unknown where it is decided at MAIL.
//! - The greylist of then isn't known: a decision to greylist is one of its own kind, for a client that is new to it. Mail that had
//!   passed it then passes.

mod owner;
mod past;
mod rules;
mod stages;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::decision::{DecisionRecord, Scope};
use crate::exempt::Exemptions;
use crate::gate::Settings;
use crate::gate::evaluation::is_malformed_from;
use crate::gate::hindsight::past::Past;
use crate::gate::hindsight::rules::Judged;
use crate::gate::hindsight::stages::{Greylist, Stages};
use crate::policy::door::DoorName;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::policy::rule::{Action, Mode, RejectAt, Rule};
use crate::reverse_mx;
use crate::stats::hindsight::{Fate, Missing, Why, Would};

/// The configuration that is tried.
#[derive(Debug, Clone)]
pub struct Candidate {
    policy: Policy,
    exempt: Exemptions,
    reverse_mx: reverse_mx::Settings,
}

impl Candidate {
    #[must_use]
    pub fn new(settings: &Settings, reverse_mx: &reverse_mx::Settings) -> Self {
        let Settings { policy, exempt, .. } = settings.clone();
        Self { policy, exempt, reverse_mx: reverse_mx.clone() }
    }

    /// The decision on the same mail.
    #[must_use]
    pub fn decides(&self, record: &DecisionRecord) -> Would {
        let before = Fate::of_past(record);
        if record.cause.as_ref().is_some_and(|cause| cause.finding.is_none()) {
            return Would::be(before);
        }
        if self.policy.mode == Mode::Monitor || self.exempt.client(record.client) {
            return Would::be(Fate::Taken);
        }
        let past = Past::new(record);
        let all_exempt = past.recipients_are(|path| self.exempt.recipient(path));
        if all_exempt && self.policy.reject_at == RejectAt::Rcpt {
            return Would::be(Fate::Taken);
        }
        if record.mail_from.is_empty() || (past.ended_at_mail() && self.policy.reject_at == RejectAt::Rcpt) {
            return Would::be(before);
        }
        match record.extent {
            // A permit is no matter of the configuration.
            Scope::Permit => Would::be(Fate::Taken),
            Scope::Nothing if past.ended_at_mail() => self.unknown(Why::NotLookedUp, true),
            // The permit that is kept may be that of one recipient beside exempt ones, or of the sender; and without a
            // recipient that was taken, the one that the record names was exempt.
            Scope::Nothing | Scope::ExemptClient | Scope::ExemptRecipients => {
                self.unknown(Why::Exempt, all_exempt)
            }
            Scope::Envelope | Scope::Message if !record.whole => self.unknown(Why::NotKept, all_exempt),
            Scope::Envelope | Scope::Message => {
                let would = self.judge(&past, before, all_exempt);
                if past.others_may_be_let_in(|path| self.exempt.recipient(path)) {
                    would.or_taken(Missing::of_message(Why::Exempt))
                } else {
                    would
                }
            }
        }
    }

    fn judge(&self, past: &Past<'_>, before: Fate, all_exempt: bool) -> Would {
        let mut judged = Judged::default();
        self.envelope(past, &mut judged);
        // Where it is decided at MAIL, greylisting waits for a recipient that isn't exempt.
        let waits = all_exempt || past.ended_at_mail();
        let greylist = if waits { Greylist::Passed } else { past.greylist() };
        let mut stages = Stages::new(&self.policy, greylist);
        if let Some(would) = stages.pass(&judged.findings, &judged.unknown, |_finding| true) {
            return would;
        }
        let record = past.record;
        if all_exempt || record.door == DoorName::Policy {
            return stages.end();
        }
        if record.extent == Scope::Message {
            self.header(past, &mut judged);
            let nameless = past.is_nameless();
            let counts = |finding: &Finding| !nameless || !is_malformed_from(finding);
            let Judged { findings, waits, unknown } = &judged;
            let open = waiting(findings, waits);
            let refuses = stages.pass(&open, unknown, counts);
            return refuses
                .or_else(|| stages.pass(findings, unknown, counts))
                .unwrap_or_else(|| stages.end());
        }
        if before > Fate::Taken {
            let header = [Identity::From, Identity::ReplyTo].map(|identity| self.rules_of(identity)).concat();
            stages.unknown(&Missing::of_message(Why::HeaderNotSeen), &header);
        }
        stages.end()
    }

    /// All that could refuse the header, or the envelope.
    fn rules_of(&self, identity: Identity) -> Vec<Action> {
        let policy = &self.policy;
        let of_entries = policy.senders.entries().iter().filter_map(|entry| match identity {
            Identity::MailFrom => entry.mail_from.as_ref(),
            Identity::From => entry.from.as_ref(),
            Identity::Helo | Identity::Ptr | Identity::ReplyTo => None,
        });
        let rules = std::iter::once(policy.rules(identity)).chain(of_entries);
        let actions = rules.flat_map(|rules| Rule::ALL.map(|rule| rules.action(rule)));
        let header = matches!(identity, Identity::From | Identity::ReplyTo);
        actions.chain(header.then_some(policy.malformed)).filter(|action| action.refuses()).collect()
    }

    /// Nothing was looked up.
    fn unknown(&self, why: Why, only_envelope: bool) -> Would {
        let mut stages = Stages::new(&self.policy, Greylist::New);
        let identities = if only_envelope {
            [Identity::Helo, Identity::Ptr, Identity::MailFrom].as_slice()
        } else {
            &Identity::ALL
        };
        let actions = identities.iter().map(|identity| self.rules_of(*identity)).collect::<Vec<_>>().concat();
        stages.unknown(&Missing::of_message(why), &actions);
        stages.end()
    }
}

/// The findings at the end of the header, when those with a signature still wait for the body.
fn waiting<'f>(findings: &'f [Finding], waits: &[usize]) -> Cow<'f, [Finding]> {
    let mut open = Cow::Borrowed(findings);
    for at in waits {
        if let Some(finding) = open.to_mut().get_mut(*at) {
            finding.outcome = RuleResult::None(Absence::AwaitsBody);
        }
    }
    open
}

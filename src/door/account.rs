//! What is logged and kept of one transaction, each of it once.
//!
//! What rmxd or the relay refuses is told when it is refused, as its reply bears the id and somebody may ask for it at
//! once. Whatever else becomes of the transaction is told when it ends, with its outcome: there is one event for a
//! message that is delivered, and one for a client that leaves. An account that is dropped is one that ended so.

use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::decision::End;
use crate::gate::{Inspection, MessageInfo};
use crate::policy::decide::{Decision, always_refused, exempt};
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::relay::{HopReply, NextHopFailure};
use crate::session::{Refusal, Refused};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::{Enhanced, Reply};

/// Events of one transaction; more are only counted.
const MOST_EVENTS: usize = 100;

/// What is to be told of one transaction.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) inspection: Inspection,
    /// Those that were accepted; only the first is remembered by name.
    pub(super) accepted: usize,
    pub(super) first: Option<ForwardPath>,
    /// A recipient was accepted that is not exempt, so the message itself is judged.
    pub(super) judged: bool,
    /// The addresses in From: and Reply-To:, once they are known.
    pub(super) authors: Authors,
    /// Octets of the message so far, dot-stuffed.
    pub(super) octets: u64,
    mail_from: CompactString,
    /// What let it pass so far, and how long after MAIL; what is in monitor mode counts as passed.
    passed: Option<(Decision, Duration)>,
    /// What the last refusal means for the whole, if nothing comes after it.
    refused: Option<Outcome>,
    /// A refusal that is the same for each recipient was told.
    refusal_told: bool,
    events: usize,
    /// The outcome was counted.
    over: bool,
}

/// The addresses in From: and Reply-To:.
#[derive(Debug, Default)]
pub(super) struct Authors {
    pub(super) from: CompactString,
    pub(super) reply_to: CompactString,
}

impl Account {
    pub(super) fn new(inspection: Inspection, path: &ReversePath) -> Self {
        Self::of(inspection, format_compact!("<{path}>"))
    }

    fn of(inspection: Inspection, mail_from: CompactString) -> Self {
        Self {
            inspection,
            accepted: 0,
            first: None,
            judged: false,
            authors: Authors::default(),
            octets: 0,
            mail_from,
            passed: None,
            refused: None,
            refusal_told: false,
            events: 0,
            over: false,
        }
    }

    /// The reply to what the dialogue itself refuses outside of any transaction. `inspection` is of nothing.
    pub(super) fn refuse_alone(inspection: Inspection, refusal: Refusal) -> Reply {
        let mail_from = match &refusal.refused {
            Refused::Sender(argument) => argument.clone(),
            Refused::Recipient(_) | Refused::Other => CompactString::default(),
        };
        let had_mail = matches!(refusal.refused, Refused::Sender(_));
        let mut account = Self::of(inspection, mail_from);
        account.over = !had_mail;
        account.refuse_command(refusal)
    }

    /// The reply to what the dialogue itself refuses.
    pub(super) fn refuse_command(&mut self, refusal: Refusal) -> Reply {
        let rcpt = match &refusal.refused {
            Refused::Recipient(argument) => argument.as_str(),
            Refused::Sender(_) | Refused::Other => "",
        };
        let Some(reason) = refusal.reason else {
            return refusal.reply.ending_with(&self.inspection.suffix());
        };
        let subject = refusal.reply.text().to_owned();
        let reply = self.refuse_as(reason, &subject, rcpt, refusal.reply);
        if refusal.closes {
            self.close_refused();
        }
        reply
    }

    /// The reply to what is refused whatever the policy says.
    pub(super) fn refuse_always(
        &mut self,
        reason: Reason,
        subject: &str,
        rcpt: Option<&ForwardPath>,
    ) -> Reply {
        let decision = always_refused(reason, subject);
        let reply = self.inspection.refusal(&decision).unwrap_or_else(no_decision);
        let rcpt = rcpt.map(ToCompactString::to_compact_string);
        self.tell_refusal(&decision, rcpt.as_deref(), None);
        reply
    }

    /// The same with a reply of its own, to which the id is added.
    pub(super) fn refuse_with(&mut self, reason: Reason, reply: Reply) -> Reply {
        let subject = reply.text().to_owned();
        self.refuse_as(reason, &subject, "", reply)
    }

    fn refuse_as(&mut self, reason: Reason, subject: &str, rcpt: &str, reply: Reply) -> Reply {
        let reply = reply.ending_with(&self.inspection.suffix());
        let rcpt = Some(rcpt).filter(|rcpt| !rcpt.is_empty());
        self.tell_refusal(&always_refused(reason, subject), rcpt, Some(&reply));
        reply
    }

    /// The reply where a decision refuses; else it is remembered. Greylisting decides for each recipient, all else once.
    pub(super) fn decided(&mut self, decision: Decision, rcpt: Option<&ForwardPath>) -> Result<(), Reply> {
        let Some(reply) = self.inspection.refusal(&decision) else {
            self.passed = Some((decision, self.inspection.age()));
            return Ok(());
        };
        if decision.greylists() || !std::mem::replace(&mut self.refusal_told, true) {
            let rcpt = rcpt.map(ToCompactString::to_compact_string);
            self.tell_refusal(&decision, rcpt.as_deref(), None);
        }
        Err(reply)
    }

    /// The client's reply for what the next hop said of a recipient, or of everything; what it didn't take is told.
    pub(super) fn relayed(&mut self, answer: HopReply, rcpt: Option<&ForwardPath>) -> Result<Reply, Reply> {
        let HopReply { reply, trouble } = answer;
        let Some(NextHopFailure { reason, reply: said }) = trouble else {
            return if reply.is_positive() { Ok(reply) } else { Err(reply) };
        };
        let reply = if reason == Reason::RelayRefused {
            reply.followed_by(&format!(" (id {})", self.inspection.id()))
        } else {
            reply.ending_with(&self.inspection.suffix())
        };
        let outcome = outcome_of(reason);
        let end = End {
            outcome,
            trouble: Some(reason),
            relay_reply: said.map(|said| said.on_one_line().into()).unwrap_or_default(),
            answer: reply.on_one_line().into(),
        };
        self.inspection.count_refusal(reason);
        self.refused = Some(outcome);
        let rcpt = rcpt.map(ToCompactString::to_compact_string);
        let (decision, took) = self.passed();
        self.tell(&decision, rcpt.as_deref(), Some(took), end);
        Err(reply)
    }

    /// The next hop has the message.
    pub(super) fn delivered(&mut self, reply: &Reply) {
        let end = End { relay_reply: reply.on_one_line().into(), ..End::of(Outcome::Delivered) };
        self.end(end);
    }

    /// The message was refused by rmxd, so the transaction is over.
    pub(super) fn close_refused(&mut self) {
        self.passed = None; // that refusal was counted as the decision
        self.close();
    }

    /// The transaction is over, for what was refused last.
    pub(super) fn close(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some((decision, took)) = &self.passed {
            self.inspection.count(decision, *took);
        }
        self.inspection.count_outcome(self.refused.unwrap_or(Outcome::NotCompleted));
    }

    fn end(&mut self, end: End) {
        if self.over {
            return;
        }
        let outcome = end.outcome;
        let (decision, took) = self.passed();
        self.tell(&decision, None, Some(took), end);
        self.refused = Some(outcome);
        self.close();
    }

    /// What let it pass, and when.
    fn passed(&self) -> (Decision, Duration) {
        self.passed.clone().unwrap_or_else(|| (exempt(), self.inspection.age()))
    }

    fn tell_refusal(&mut self, decision: &Decision, rcpt: Option<&str>, answer: Option<&Reply>) {
        let answer = answer.map(|reply| reply.to_compact_string()).unwrap_or_default();
        let end = End { answer, ..End::of(Outcome::Refused) };
        self.inspection.count(decision, self.inspection.age());
        if let Some(cause) = decision.cause.as_ref().filter(|cause| cause.finding.is_none()) {
            self.inspection.count_refusal(cause.reason);
        }
        self.refused = Some(Outcome::Refused);
        self.tell(decision, rcpt, None, end);
    }

    fn tell(&mut self, decision: &Decision, rcpt: Option<&str>, took: Option<Duration>, end: End) {
        self.events += 1;
        if self.events > MOST_EVENTS && end.outcome != Outcome::Delivered {
            return;
        }
        let first = self.first.as_ref().map(ToCompactString::to_compact_string);
        let facts = MessageInfo {
            mail_from: &self.mail_from,
            rcpt: rcpt.or(first.as_deref()).unwrap_or_default(),
            rcpts: self.accepted,
            exempt_recipients: self.accepted > 0 && !self.judged,
            from: &self.authors.from,
            reply_to: &self.authors.reply_to,
            octets: self.octets,
            took,
        };
        self.inspection.tell(decision, &facts, end);
    }
}

impl Drop for Account {
    /// The client has left, or has given the transaction up. Where all that it asked for was refused, that was told.
    fn drop(&mut self) {
        if self.accepted > 0 || self.refused.is_none() {
            self.end(End::of(Outcome::NotCompleted));
        }
        self.close();
    }
}

fn outcome_of(trouble: Reason) -> Outcome {
    if trouble == Reason::RelayRefused { Outcome::RelayRefused } else { Outcome::RelayFailed }
}

/// Neither a permit nor a refusal, which no decision is; were it otherwise, nothing would be lost.
pub(super) fn no_decision() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "no decision was made")
}

//! What is logged, kept and counted of one transaction, each of it once.
//!
//! A refusal, by rmxd or by the next hop, is recorded when it happens, as its reply contains the id and the sender may ask
//! for it at once. Everything else is recorded when the transaction ends, with its outcome: one event for a message
//! that is delivered, one for a client that leaves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::{CompactString, ToCompactString};
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::decision::{DecisionRecord, End, Id, LetIn, Scope};
use crate::gate::client::Client;
use crate::gate::evaluation::Evaluation;
use crate::gate::event;
use crate::message::header::{Field, Header};
use crate::metrics::{Exemption, GreylistResult};
use crate::policy::decide::{Decision, Verdict, exempt};
use crate::policy::door::DoorName;
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode};
use crate::reverse_mx::ClientNames;
use crate::smtp::address::ForwardPath;
use crate::smtp::reply::Reply;

/// Events of one transaction; more are only counted.
const MOST_EVENTS: usize = 100;
/// Recipients of one transaction that are remembered by name, and their octets.
const MOST_RECIPIENTS: usize = 100;
const MOST_OCTETS: usize = 8 << 10;

/// What is known of one transaction beside its findings.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) id: Id,
    pub(super) started: Instant,
    client: IpAddr,
    pub(super) door: DoorName,
    /// As in [`DecisionRecord`].
    pub(super) queue: CompactString,
    tls: CompactString,
    exempt_client: bool,
    helo: CompactString,
    names: Option<Arc<SetOnce<ClientNames>>>,
    /// The reverse path in its brackets, or the argument of a refused MAIL.
    pub(super) mail_from: CompactString,
    /// Recipients that the next hop has accepted; the first; and the others, within bounds.
    pub(super) accepted: usize,
    pub(super) first: Option<ForwardPath>,
    others: Vec<CompactString>,
    others_octets: usize,
    /// The permit of a recipient.
    pub(super) permit: Option<LetIn>,
    /// A recipient was accepted that is not exempt, so that the message is judged.
    pub(super) judged: bool,
    /// The addresses in From: and Reply-To:, once they are known.
    from: CompactString,
    reply_to: CompactString,
    /// Octets of the message so far, as they came.
    pub(super) octets: u64,
    /// The decision that let it pass so far, and how long after MAIL; in monitor mode all pass.
    pub(super) passed: Option<(Decision, Duration)>,
    /// The last decision that refused, unless a later one passed.
    refused_by: Option<Decision>,
    /// The outcome of the whole, if nothing comes after the last refusal.
    outcome: Option<Outcome>,
    /// A refusal that is the same for each recipient was recorded.
    refusal_recorded: bool,
    events: usize,
    /// The outcome was counted.
    pub(super) over: bool,
}

impl Journal {
    pub(super) fn new(client: &Client, mail_from: CompactString) -> Self {
        Self {
            id: Id::next(client.node()),
            started: Instant::now(),
            client: client.address(),
            door: client.door(),
            queue: CompactString::default(),
            tls: client.tls().into(),
            exempt_client: client.is_exempt(),
            helo: client.helo_argument().into(),
            names: client.shared_names(),
            mail_from,
            accepted: 0,
            first: None,
            others: Vec::new(),
            others_octets: 0,
            permit: None,
            judged: false,
            from: CompactString::default(),
            reply_to: CompactString::default(),
            octets: 0,
            passed: None,
            refused_by: None,
            outcome: None,
            refusal_recorded: false,
            events: 0,
            over: false,
        }
    }

    pub(super) fn decision(&self) -> Option<&Decision> {
        self.refused_by.as_ref().or(self.passed.as_ref().map(|(decision, _)| decision))
    }

    /// The next hop has accepted a recipient.
    pub(super) fn accept(&mut self, path: ForwardPath) {
        self.accepted += 1;
        if self.first.is_none() {
            self.first = Some(path);
        } else if self.others.len() + 1 < MOST_RECIPIENTS {
            let path = path.to_compact_string();
            if self.others_octets + path.len() <= MOST_OCTETS {
                self.others_octets += path.len();
                self.others.push(path);
            }
        }
    }

    /// The header has come.
    pub(super) fn read(&mut self, header: &Header) {
        self.from = addresses(&header.from);
        self.reply_to = addresses(&header.reply_to);
    }

    /// A decision let it pass.
    pub(super) fn passed(&mut self, decision: Decision) {
        self.passed = Some((decision, self.started.elapsed()));
        self.refused_by = None;
    }

    /// A decision of the policy refused. Greylisting decides for each recipient, every other refusal is recorded once.
    pub(super) fn refused_by_rule(
        &mut self,
        evaluation: &Evaluation,
        decision: Decision,
        rcpt: Option<&ForwardPath>,
    ) {
        if decision.greylists() || !std::mem::replace(&mut self.refusal_recorded, true) {
            let rcpt = rcpt.map(ToCompactString::to_compact_string);
            self.refused(evaluation, decision, rcpt.as_deref(), None);
        } else {
            self.refused_by = Some(decision);
        }
    }

    /// rmxd refused. `answer` is the reply to the client where the table of reasons doesn't give it.
    pub(super) fn refused(
        &mut self,
        evaluation: &Evaluation,
        decision: Decision,
        rcpt: Option<&str>,
        answer: Option<&Reply>,
    ) {
        let answer = answer.map(|reply| reply.to_compact_string()).unwrap_or_default();
        let end = End { answer, ..End::of(Outcome::Refused) };
        let took = self.started.elapsed();
        self.count(evaluation, &decision, took);
        if let Some(cause) = decision.cause.as_ref().filter(|cause| cause.finding.is_none()) {
            evaluation.gate.services.metrics.refusal(cause.reason);
        }
        self.outcome = Some(Outcome::Refused);
        self.write(evaluation, &decision, rcpt, took, end);
        self.refused_by = Some(decision);
    }

    /// The next hop did not take a recipient, or the message.
    pub(super) fn not_taken(
        &mut self,
        evaluation: &Evaluation,
        reason: Reason,
        relay_reply: Option<&Reply>,
        answer: &Reply,
        rcpt: Option<&ForwardPath>,
    ) {
        let outcome = match reason {
            Reason::RelayRefused => Outcome::RelayRefused,
            _ => Outcome::RelayFailed,
        };
        let end = End {
            outcome,
            trouble: Some(reason),
            relay_reply: relay_reply.map(|reply| reply.on_one_line().into()).unwrap_or_default(),
            answer: answer.on_one_line().into(),
        };
        evaluation.gate.services.metrics.refusal(reason);
        self.outcome = Some(outcome);
        let rcpt = rcpt.map(ToCompactString::to_compact_string);
        let (decision, took) = self.what_passed();
        self.write(evaluation, &decision, rcpt.as_deref(), took, end);
    }

    /// The transaction ended so.
    pub(super) fn end(&mut self, evaluation: &Evaluation, end: End) {
        if self.over {
            return;
        }
        let outcome = end.outcome;
        let (decision, took) = self.what_passed();
        self.write(evaluation, &decision, None, took, end);
        self.outcome = Some(outcome);
        self.close(evaluation);
    }

    /// The transaction is over, for what was refused last.
    pub(super) fn close(&mut self, evaluation: &Evaluation) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some((decision, took)) = &self.passed {
            self.count(evaluation, decision, *took);
        }
        let outcome = self.outcome.unwrap_or(Outcome::NotCompleted);
        let metrics = &evaluation.gate.services.metrics;
        metrics.outcome(self.door, outcome);
        metrics.findings(evaluation.findings());
        if let Some(by) = self.exemption(evaluation) {
            metrics.exemption(by);
        }
    }

    fn exemption(&self, evaluation: &Evaluation) -> Option<Exemption> {
        let is_exempt = |finding: &Finding| finding.outcome == RuleResult::None(Absence::Exempt);
        if self.exempt_client {
            Some(Exemption::Client)
        } else if self.permit(evaluation).is_some() {
            Some(Exemption::Permit)
        } else if self.accepted > 0 && !self.judged {
            Some(Exemption::Recipient)
        } else {
            evaluation.findings().iter().any(is_exempt).then_some(Exemption::Domain)
        }
    }

    fn permit(&self, evaluation: &Evaluation) -> Option<LetIn> {
        evaluation.permit().or(self.permit)
    }

    /// The client has left or given up; at the policy service, as much is known of it as ever will be. Where each of its
    /// recipients was refused, there are events of that already.
    pub(super) fn left(&mut self, evaluation: &Evaluation) {
        if self.accepted > 0 || self.outcome.is_none() {
            let outcome = match self.door {
                DoorName::Smtp | DoorName::Milter => Outcome::NotCompleted,
                DoorName::Policy => Outcome::Passed,
            };
            self.end(evaluation, End::of(outcome));
        }
        self.close(evaluation);
    }

    /// A decision with everything that explains it.
    pub(super) fn record(
        &self,
        evaluation: &Evaluation,
        decision: &Decision,
        rcpt: Option<&str>,
        took: Duration,
    ) -> DecisionRecord {
        let gate = &evaluation.gate;
        let names = self.names.as_ref().and_then(|names| names.get());
        DecisionRecord {
            id: Some(self.id),
            at: SystemTime::now(),
            client: self.client,
            door: self.door,
            queue: self.queue.clone(),
            tls: self.tls.clone(),
            names: names.map(|names| names.outcome.clone()),
            extent: self.scope(evaluation, decision),
            mode: mode(evaluation, decision),
            actions: gate.actions,
            verdict: decision.verdict,
            cause: decision.cause.clone(),
            end: None,
            help_url: Arc::clone(&gate.help_url),
            helo: self.helo.clone(),
            mail_from: self.mail_from.clone(),
            rcpt: rcpt.map(CompactString::new).or_else(|| self.first_rcpt()).unwrap_or_default(),
            rcpts: self.accepted,
            recipients: if rcpt.is_none() { self.others.clone() } else { Vec::new() },
            from: self.from.clone(),
            reply_to: self.reply_to.clone(),
            duration: took,
            findings: Arc::clone(evaluation.findings()),
            permit: self.permit(evaluation).filter(|_| decision.cause.is_none()),
            whole: true,
        }
    }

    fn first_rcpt(&self) -> Option<CompactString> {
        self.first.as_ref().map(ToCompactString::to_compact_string)
    }

    /// The decision that let it pass, and how long after MAIL.
    fn what_passed(&self) -> (Decision, Duration) {
        self.passed.clone().unwrap_or_else(|| (exempt(), self.started.elapsed()))
    }

    fn scope(&self, evaluation: &Evaluation, decision: &Decision) -> Scope {
        match &decision.cause {
            _ if self.exempt_client => Scope::ExemptClient,
            _ if evaluation.is_let_in() => Scope::Permit,
            None if self.accepted > 0 && !self.judged => Scope::ExemptRecipients,
            _ if evaluation.is_whole() => Scope::Message,
            _ if evaluation.has_envelope() => Scope::Envelope,
            _ => Scope::Nothing,
        }
    }

    /// Writes the event of a decision (contract 9), and keeps its record.
    fn write(
        &mut self,
        evaluation: &Evaluation,
        decision: &Decision,
        rcpt: Option<&str>,
        took: Duration,
        end: End,
    ) {
        self.events += 1;
        if self.events > MOST_EVENTS && end.outcome != Outcome::Delivered {
            return;
        }
        let record = DecisionRecord { end: Some(end), ..self.record(evaluation, decision, rcpt, took) };
        event::write(&record, self.octets);
        if let Some(history) = &evaluation.gate.services.history {
            history.record(record);
        }
    }

    /// Counts a decision for the metrics and the monitor's report.
    fn count(&self, evaluation: &Evaluation, decision: &Decision, took: Duration) {
        let services = &evaluation.gate.services;
        let findings = evaluation.findings();
        let why = decision.cause.as_ref().map(|cause| {
            let finding = cause.finding_of(findings);
            (finding.map(|finding| finding.identity), cause.reason)
        });
        services.monitor.record(decision, findings, self.client);
        if let Some(result) = of_greylist(decision, findings) {
            services.metrics.greylist(result);
        }
        services.metrics.verdict(self.door, decision.verdict, why, mode(evaluation, decision), took);
    }
}

/// What the greylist said, where the decision rests on it.
fn of_greylist(decision: &Decision, findings: &[Finding]) -> Option<GreylistResult> {
    let failed = |finding: &Finding| {
        matches!(finding.outcome, RuleResult::Fail(_)) && finding.action == Action::Greylist
    };
    match decision.verdict {
        Verdict::Defer if decision.greylists() => Some(GreylistResult::Waits),
        Verdict::Accept if findings.iter().any(failed) => Some(GreylistResult::Passed),
        Verdict::Accept | Verdict::Defer | Verdict::Reject => None,
    }
}

/// Refusals that no policy makes are carried out in mode monitor too.
fn mode(evaluation: &Evaluation, decision: &Decision) -> Mode {
    if decision.refuses() { decision.mode } else { evaluation.gate.policy().mode }
}

/// The addresses of a field, for the log.
fn addresses(field: &Field) -> CompactString {
    match field {
        Field::Absent => CompactString::default(),
        Field::Malformed(malformed) => CompactString::new(malformed.name()),
        Field::Authors(authors) => {
            let mut text = CompactString::default();
            for (at, author) in authors.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                text.push_str(&author.address);
            }
            text
        }
    }
}

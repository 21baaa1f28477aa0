//! One transaction, and the one order in which it is judged:
//!
//! `client -> transaction(mail_from) -> mail -> rcpt* -> header -> body* -> end | abort`
//!
//! A door, the dry run and the tests of verdicts all drive it. It knows the exempt recipients and what is
//! refused whatever the policy is, permits the use of the next hop, and logs, keeps and counts each decision once. Only
//! this module makes a [`Permit`], without which no next hop takes a recipient or the end of a message.

use std::sync::Arc;

use compact_str::{CompactString, ToCompactString, format_compact};
use tokio::time::Instant;

use crate::decision::{self, DecisionRecord, Id};
use crate::gate::Gate;
use crate::gate::client::Client;
use crate::gate::evaluation::Evaluation;
use crate::gate::journal::Journal;
use crate::message::header::{self, Header};
use crate::metrics::Wait;
use crate::policy::decide::{Decision, always_refused, exempt};
use crate::policy::finding::Finding;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::RejectAt;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::{Enhanced, Reply};

/// More Received: fields than these mean a loop (RFC 5321 6.3).
const MAX_RECEIVED: usize = 100;

/// Proof that the gate let a recipient, or a whole message, pass. The next hop takes neither without one (contract 1.2).
#[derive(Debug, Clone, Copy)]
pub struct Permit {
    /// The recipient is exempt, so that nothing is judged for it.
    exempt: bool,
}

#[cfg(test)]
impl Permit {
    /// For the tests of the next hops, which have no gate.
    pub(crate) fn of_a_test() -> Self {
        Self { exempt: true }
    }
}

/// One transaction. Dropping it ends the lookups that only it waits for, and records how it ended.
#[derive(Debug)]
pub struct Transaction {
    evaluation: Evaluation,
    journal: Journal,
}

impl Client {
    /// A transaction begins. The lookup of its sender starts now, and with the first transaction that of identity `ptr`.
    #[must_use]
    pub fn transaction(&mut self, path: &ReversePath) -> Transaction {
        let (allowance, let_in) = self.begin();
        let evaluation = Evaluation::new(self, path, allowance, let_in);
        Transaction::new(self, evaluation, format_compact!("<{path}>"))
    }

    /// For what is refused outside of any transaction; nothing is looked up. `mail_from` is the argument of a refused
    /// MAIL; without one the refusal is recorded, but no transaction is counted.
    #[must_use]
    pub fn without_transaction(&self, mail_from: Option<&str>) -> Transaction {
        let path = mail_from.unwrap_or_default().into();
        let mut transaction = Transaction::new(self, Evaluation::of_nothing(self), path);
        transaction.journal.over = mail_from.is_none();
        transaction
    }

    /// One that is only tried: each decision is on the message, as if a recipient was accepted, and its end is not recorded.
    pub(super) fn dry_transaction(&mut self, path: Option<&ReversePath>) -> Transaction {
        let mut transaction = self.transaction(path.unwrap_or(&ReversePath::Null));
        if path.is_none() {
            transaction.journal.mail_from.clear();
        }
        transaction.journal.over = true;
        transaction.journal.judged = true;
        transaction
    }
}

impl Transaction {
    fn new(client: &Client, evaluation: Evaluation, mail_from: CompactString) -> Self {
        Self { evaluation, journal: Journal::new(client, mail_from) }
    }

    fn gate(&self) -> &Arc<Gate> {
        &self.evaluation.gate
    }

    /// The client waited for a verdict since then.
    fn waited(&self, wait: Wait, began: Instant) {
        self.gate().services.metrics.waited(self.journal.door, wait, began.elapsed());
    }

    /// The id in reply, log and trace fields.
    #[must_use]
    pub fn id(&self) -> Id {
        self.journal.id
    }

    /// The id of the message at Postfix, once Postfix gives it.
    pub fn set_queue(&mut self, queue: &str) {
        if !queue.is_empty() && self.journal.queue != queue {
            self.journal.queue = queue.into();
        }
    }

    /// Everything found so far: what `Authentication-Results` is made of.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        self.evaluation.findings()
    }

    /// The recipients that the next hop has accepted: how many, and the first.
    #[must_use]
    pub fn recipients(&self) -> (usize, Option<&ForwardPath>) {
        (self.journal.accepted, self.journal.first.as_ref())
    }

    /// The last decision.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.journal.decision()
    }

    /// MAIL. Where the policy refuses at MAIL, the envelope is judged now; greylisting waits for the recipient.
    ///
    /// # Errors
    /// The reply that refuses.
    pub async fn mail(&mut self, client: &mut Client) -> Result<(), Reply> {
        if self.gate().policy().reject_at != RejectAt::Mail {
            return Ok(());
        }
        let began = Instant::now();
        let decision = self.envelope(client).await;
        self.waited(Wait::Mail, began);
        if decision.greylists() { Ok(()) } else { self.decided(decision, None) }
    }

    /// RCPT: what the policy decides on the envelope for this recipient.
    ///
    /// # Errors
    /// The reply that refuses.
    pub async fn rcpt(&mut self, client: &mut Client, path: &ForwardPath) -> Result<Permit, Reply> {
        let mut exempt = self.gate().settings.exempt.recipient(path);
        if !exempt && let Some(permit) = self.evaluation.permit_of_recipient(client, path) {
            self.journal.permit.get_or_insert(permit);
            exempt = true;
        }
        if !exempt {
            let began = Instant::now();
            let decision = self.evaluation.envelope_for(client, path).await;
            self.waited(Wait::Rcpt, began);
            self.decided(decision, Some(path))?;
        }
        Ok(Permit { exempt })
    }

    /// The next hop has accepted this recipient, with the permit that [`Transaction::rcpt`] gave for it.
    pub fn accepted(&mut self, permit: Permit, path: ForwardPath) {
        if !permit.exempt {
            self.journal.judged = true;
            self.evaluation.add_recipient(&path);
        }
        self.journal.accept(path);
    }

    /// The header block has come: strict CRLF, without stuffed dots and without the empty line. Where this refuses, the
    /// transaction is over.
    ///
    /// # Errors
    /// The reply that refuses.
    pub async fn header(&mut self, client: &mut Client, block: &[u8]) -> Result<(), Reply> {
        let began = Instant::now();
        let decision = self.judge_header(client, &header::read(block), block).await;
        self.waited(Wait::Header, began);
        self.decided_on_all(decision)
    }

    /// Whether the octets of the body decide: only then [`Transaction::body`] needs them.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.evaluation.awaits_body()
    }

    /// The next octets of the body, without stuffed dots.
    pub fn body(&mut self, plain: &[u8]) {
        self.evaluation.body(plain);
    }

    /// The body has come. Only with this permit may the next hop have the end of the message. Where this refuses, the
    /// transaction is over.
    ///
    /// # Errors
    /// The reply that refuses.
    pub async fn end(&mut self) -> Result<Permit, Reply> {
        if self.evaluation.awaits_body() {
            let began = Instant::now();
            let decision = self.evaluation.end().await;
            self.waited(Wait::Body, began);
            self.decided_on_all(decision)?;
        }
        Ok(Permit { exempt: !self.journal.judged })
    }

    /// The next hop has the message, and this was its reply.
    pub fn delivered(&mut self, relay_reply: &Reply) {
        let relay_reply = relay_reply.on_one_line().into();
        let end = decision::End { relay_reply, ..decision::End::of(Outcome::Delivered) };
        self.journal.end(&self.evaluation, end);
    }

    /// The whole message passed, with this permit, and the mail server that asked has it: what becomes of it there isn't
    /// known.
    pub fn passed(&mut self, _permit: Permit) {
        self.journal.end(&self.evaluation, decision::End::of(Outcome::Passed));
    }

    /// The next hop did not take a recipient, or the whole message (`rcpt` is `None`). `relay_reply` is what it replied,
    /// `reply` what the client is to be answered; returns the client's reply with the id.
    pub fn not_taken(
        &mut self,
        reason: Reason,
        relay_reply: Option<&Reply>,
        reply: Reply,
        rcpt: Option<&ForwardPath>,
    ) -> Reply {
        let reply = if reason == Reason::RelayRefused {
            reply.followed_by(&format!(" (id {})", self.id()))
        } else {
            reply.ending_with(&self.suffix())
        };
        self.journal.not_taken(&self.evaluation, reason, relay_reply, &reply, rcpt);
        reply
    }

    /// Refuses in every mode and for exempt clients too; the transaction goes on. Returns the reply.
    pub fn refuse(&mut self, reason: Reason, subject: &str, rcpt: Option<&ForwardPath>) -> Reply {
        let decision = always_refused(reason, subject);
        let reply = self.refusal(&decision).unwrap_or_else(no_decision);
        let rcpt = rcpt.map(ToCompactString::to_compact_string);
        self.journal.refused(&self.evaluation, decision, rcpt.as_deref(), None);
        reply
    }

    /// The same with a reply of its own, to which the id is added. `rcpt` is the argument of the refused RCPT.
    pub fn refuse_with(&mut self, reason: Reason, reply: Reply, rcpt: Option<&str>) -> Reply {
        let decision = always_refused(reason, reply.text());
        let reply = reply.ending_with(&self.suffix());
        self.journal.refused(&self.evaluation, decision, rcpt, Some(&reply));
        reply
    }

    /// The message can't go on: refuses as [`Transaction::refuse_with`], and the transaction is over.
    pub fn abort(&mut self, reason: Reason, reply: Reply) -> Reply {
        let reply = self.refuse_with(reason, reply, None);
        self.close_refused();
        reply
    }

    /// Nothing more is expected, though it may come: the outcome is recorded now rather than when this is dropped. What is
    /// refused later is recorded nevertheless.
    pub fn settle(&mut self) {
        self.journal.left(&self.evaluation);
    }

    /// The transaction is over, for what was refused last.
    pub fn close(&mut self) {
        self.journal.close(&self.evaluation);
    }

    /// rmxd's last refusal was that of the whole transaction, which is over.
    pub fn close_refused(&mut self) {
        self.journal.passed = None; // the refusal was counted as the decision
        self.close();
    }

    /// Octets of the message came, as they count for its size.
    pub fn received(&mut self, octets: usize) {
        self.journal.octets += octets as u64;
    }

    /// How many octets of the message came.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.journal.octets
    }

    /// The end of a reply of our own that isn't made of a decision: the id.
    #[must_use]
    pub fn suffix(&self) -> String {
        decision::suffix(self.id().as_str(), &self.gate().help_url)
    }

    /// The decision on helo, ptr and mail_from, before any recipient.
    pub(super) async fn envelope(&mut self, client: &mut Client) -> Decision {
        self.evaluation.envelope(client).await
    }

    /// The decision on all five identities, as [`Transaction::header`] and [`Transaction::end`] make it.
    pub(super) async fn message(
        &mut self,
        client: &mut Client,
        header: &Header,
        block: &[u8],
        body: &[u8],
    ) -> Decision {
        let decision = self.judge_header(client, header, block).await;
        if !self.evaluation.awaits_body() {
            return decision;
        }
        self.evaluation.body(body);
        self.evaluation.end().await
    }

    /// The decision on the header block, which the body may still change.
    async fn judge_header(&mut self, client: &mut Client, header: &Header, block: &[u8]) -> Decision {
        self.journal.read(header);
        match always_refused_header(header, block) {
            Some(decision) => decision,
            None if self.journal.judged => self.evaluation.header(client, header, block).await,
            None => exempt(),
        }
    }

    /// A decision with everything that explains it.
    #[must_use]
    pub fn record(&self, decision: &Decision) -> DecisionRecord {
        self.journal.record(&self.evaluation, decision, None, self.journal.started.elapsed())
    }

    /// The reply for a decision that refuses; `None` for one that doesn't.
    fn refusal(&self, decision: &Decision) -> Option<Reply> {
        let cause = decision.cause.as_ref().filter(|_| decision.refuses())?;
        let finding = cause.finding_of(self.findings());
        Some(decision::refusal(cause, finding, self.journal.door, self.id().as_str(), &self.gate().help_url))
    }

    fn decided(&mut self, decision: Decision, rcpt: Option<&ForwardPath>) -> Result<(), Reply> {
        match self.refusal(&decision) {
            None => {
                self.journal.passed(decision);
                Ok(())
            }
            Some(reply) => {
                self.journal.refused_by_rule(&self.evaluation, decision, rcpt);
                Err(reply)
            }
        }
    }

    fn decided_on_all(&mut self, decision: Decision) -> Result<(), Reply> {
        self.decided(decision, None).inspect_err(|_reply| self.close_refused())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.journal.left(&self.evaluation);
    }
}

/// Headers that are refused in every mode and for exempt clients too.
fn always_refused_header(header: &Header, block: &[u8]) -> Option<Decision> {
    if block.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        // Behind our own trace fields it would become a part of them: a forged result in our name.
        let subject = "the header begins with a continuation line";
        return Some(always_refused(Reason::MalformedHeader, subject));
    }
    if header.received > MAX_RECEIVED {
        let subject = format!("more than {MAX_RECEIVED} Received: fields, a mail loop");
        return Some(always_refused(Reason::MailLoop, subject));
    }
    None
}

/// For a decision that is neither a permit nor a refusal, which none is; were it otherwise, no message would be lost.
fn no_decision() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "no decision was made")
}

//! One transaction, seen by the gate: findings of the envelope, then of the header, and the decision on each.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::{CompactString, ToCompactString};
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::decision::{self, DecisionRecord, End, Id, Scope};
use crate::dns::Budget;
use crate::gate::Gate;
use crate::gate::allowance::Allowance;
use crate::gate::client::{Client, all_rules, look, temperror};
use crate::gate::event::{self, MessageInfo};
use crate::gate::lookup::{Findings, Look, Wanted};
use crate::gate::signed::{self, AwaitsBody};
use crate::gate::visible::Visible;
use crate::message::header::{Field, Header};
use crate::policy::decide::{Decision, decide_by, exempt};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::Mode;
use crate::reverse_mx::ClientNames;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;
use crate::store::greylist::{GreylistAnswer, Triple};

/// One transaction. Dropping it ends the look-ups that only it waits for.
#[derive(Debug)]
pub struct Inspection {
    gate: Arc<Gate>,
    id: Id,
    client: IpAddr,
    exempt_client: bool,
    /// What the client called itself.
    helo: CompactString,
    names: Option<Arc<SetOnce<ClientNames>>>,
    started: Instant,
    /// Nothing of the envelope can refuse.
    exempt: bool,
    sender: Look,
    allowance: Allowance,
    envelope: Option<Decision>,
    findings: Arc<Vec<Finding>>,
    /// They are those of the whole message.
    whole: bool,
    /// By the null sender: nobody would learn that this message was lost.
    bounce: bool,
    /// From: of a bounce names no domain, which is a tag, whatever `policy.malformed` says.
    nameless: bool,
    /// What the body decides.
    signed: Option<Box<AwaitsBody>>,
    /// The domain of the reverse path, where there is a greylist to ask; empty for the null sender.
    domain: CompactString,
    /// The recipients so far, for the greylist.
    triples: Vec<Triple>,
}

impl Inspection {
    pub(super) fn new(guest: &Client, path: &ReversePath, allowance: Allowance) -> Self {
        let gate = Arc::clone(&guest.gate);
        let exempt = guest.exempt || exempt_sender(&gate, path);
        let sender = if guest.exempt {
            Look::ready(Findings::default())
        } else {
            sender(guest, path, allowance.mail_from())
        };
        let domain = gate.services.greylist.as_ref().map(|_| domain(path)).unwrap_or_default();
        let bounce = matches!(path, ReversePath::Null);
        Self { exempt, sender, domain, bounce, allowance, ..Self::of_nothing(guest) }
    }

    /// Nothing is looked up.
    pub(super) fn of_nothing(guest: &Client) -> Self {
        Self {
            id: Id::next(),
            client: guest.client,
            exempt_client: guest.exempt,
            helo: guest.helo.clone(),
            names: guest.shared_names(),
            started: Instant::now(),
            exempt: guest.exempt,
            sender: Look::ready(Findings::default()),
            allowance: Allowance::new(),
            envelope: None,
            findings: Arc::default(),
            whole: false,
            bounce: false,
            nameless: false,
            signed: None,
            domain: CompactString::default(),
            triples: Vec::new(),
            gate: Arc::clone(&guest.gate),
        }
    }

    /// The id in reply, log and trace fields.
    #[must_use]
    pub fn id(&self) -> Id {
        self.id
    }

    /// How long ago the transaction began.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything found so far.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The decision on helo, ptr and mail_from. Waits for those whose failure can refuse, the first time.
    pub async fn envelope(&mut self, guest: &mut Client) -> Decision {
        if let Some(decision) = &self.envelope {
            return decision.clone();
        }
        self.findings = Arc::new(self.envelope_findings(guest, Wanted::Refusing).await);
        let decision = self.greylisted(self.decision(), &[]);
        self.envelope = Some(decision.clone());
        decision
    }

    /// [`Inspection::envelope`] for one recipient: where it greylists, the client may have come before.
    pub async fn envelope_for(&mut self, guest: &mut Client, recipient: &ForwardPath) -> Decision {
        let decision = self.envelope(guest).await;
        if !decision.greylists() {
            return decision;
        }
        let triple = self.triple(recipient);
        self.greylisted(decision, triple.as_slice())
    }

    /// The message is to go to this recipient too: the header's verdict is on it as well.
    pub fn accepted(&mut self, recipient: &ForwardPath) {
        if self.gate.policy().greylists() {
            self.triples.extend(self.triple(recipient));
        }
    }

    /// The decision on all five identities, at the end of the header block, which `block` is. Where it greylists, the
    /// client must have come before with each of the recipients: the message goes to all of them or to none. Where it
    /// refuses nothing, it may still depend on the body: see [`Inspection::awaits_body`].
    pub async fn header(&mut self, guest: &mut Client, header: &Header, block: &[u8]) -> Decision {
        if guest.exempt {
            return exempt();
        }
        let (gate, client, helo) = (Arc::clone(&self.gate), self.client, guest.helo.clone());
        let [from, reply_to] = self.allowance.visible();
        let visible = Visible { gate, client, helo, budgets: [from.clone(), reply_to] };
        let (envelope, visible) =
            tokio::join!(self.envelope_findings(guest, Wanted::All), visible.senders(header));
        let mut findings = [envelope, visible].concat();
        self.nameless =
            self.bounce && matches!(&header.from, Field::Malformed(malformed) if malformed.names_no_domain());
        let open = signed::open(&self.gate, &mut findings, block);
        (self.findings, self.whole) = (Arc::new(findings), true);
        let decision = self.greylisted(self.decision(), &self.triples);
        match open {
            None => {}
            Some(open) if decision.refuses() => open.close(Arc::make_mut(&mut self.findings).as_mut_slice()),
            Some(open) => self.signed = Some(Box::new(open.start(&self.gate, self.client, from))),
        }
        decision
    }

    /// Whether the decision is not final before the body has come: a DKIM signature may count. What refused nothing so
    /// far may go to the next hop meanwhile, but must not end there before [`Inspection::whole`] has decided.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.signed.is_some()
    }

    /// The next octets of the body, dot-stuffed; costs nothing where it isn't awaited.
    pub fn body(&mut self, stuffed: &[u8]) {
        if let Some(signed) = &mut self.signed {
            signed.push(stuffed);
        }
    }

    /// The decision when the body has come.
    pub async fn whole(&mut self) -> Decision {
        if let Some(signed) = self.signed.take() {
            signed.decide(Arc::make_mut(&mut self.findings).as_mut_slice()).await;
        }
        self.greylisted(self.decision(), &self.triples)
    }

    /// Questions that DNS was asked for the findings so far; what the cache knew is none.
    #[must_use]
    pub fn queries(&self) -> usize {
        decision::queries(&self.findings)
    }

    /// The reply for a decision that refuses; `None` for one that doesn't.
    #[must_use]
    pub fn refusal(&self, decision: &Decision) -> Option<Reply> {
        let cause = decision.cause.as_ref().filter(|_| decision.refuses())?;
        let finding = cause.finding_of(&self.findings);
        Some(decision::refusal(cause, finding, self.id.as_str(), &self.gate.help_url))
    }

    /// What stands at the end of a reply of our own that isn't made of a decision.
    #[must_use]
    pub fn suffix(&self) -> String {
        decision::suffix(self.id.as_str(), &self.gate.help_url)
    }

    /// Writes the event of a decision (contract 9), and remembers it.
    pub fn tell(&self, decision: &Decision, facts: &MessageInfo<'_>, end: End) {
        let record = DecisionRecord { end: Some(end), ..self.record(decision, facts) };
        event::write(&record, facts.octets);
        if let Some(history) = &self.gate.services.history {
            history.record(record);
        }
    }

    /// Counts a decision for the metrics and the monitor's report: each once, however often it is told.
    pub fn count(&self, decision: &Decision, took: Duration) {
        let services = &self.gate.services;
        let why = decision.cause.as_ref().map(|cause| {
            let finding = cause.finding_of(&self.findings);
            (finding.map(|finding| finding.identity), cause.reason)
        });
        services.monitor.record(decision, &self.findings, self.client);
        services.metrics.verdict(decision.verdict, why, self.mode(decision), took);
    }

    /// Counts what no rule refused, or what the next hop didn't take.
    pub fn count_refusal(&self, reason: Reason) {
        self.gate.services.metrics.refusal(reason);
    }

    /// Counts what became of the transaction in the end.
    pub fn count_outcome(&self, outcome: Outcome) {
        self.gate.services.metrics.outcome(outcome);
    }

    /// This decision with everything that explains it.
    #[must_use]
    pub fn record(&self, decision: &Decision, facts: &MessageInfo<'_>) -> DecisionRecord {
        let gate = &self.gate;
        let extent = match &decision.cause {
            _ if self.exempt_client => Scope::ExemptClient,
            None if facts.exempt_recipients => Scope::ExemptRecipients,
            _ if self.whole => Scope::Message,
            _ if self.envelope.is_some() => Scope::Envelope,
            _ => Scope::Nothing,
        };
        let names = self.names.as_ref().and_then(|names| names.get());
        DecisionRecord {
            id: Some(self.id),
            at: SystemTime::now(),
            client: self.client,
            names: names.map(|names| names.outcome.clone()),
            extent,
            mode: self.mode(decision),
            actions: gate.actions,
            verdict: decision.verdict,
            cause: decision.cause.clone(),
            end: None,
            help_url: Arc::clone(&gate.help_url),
            helo: self.helo.clone(),
            mail_from: CompactString::new(facts.mail_from),
            rcpt: CompactString::new(facts.rcpt),
            rcpts: facts.rcpts,
            from: CompactString::new(facts.from),
            reply_to: CompactString::new(facts.reply_to),
            duration: facts.took.unwrap_or_else(|| self.age()),
            findings: Arc::clone(&self.findings),
        }
    }

    /// What is refused whatever the policy says is refused in mode monitor too.
    fn mode(&self, decision: &Decision) -> Mode {
        if decision.refuses() { decision.mode } else { self.gate.policy().mode }
    }

    fn decision(&self) -> Decision {
        let is_malformed_from = |finding: &Finding| {
            finding.identity == Identity::From && finding.outcome == RuleResult::Fail(Reason::MalformedHeader)
        };
        decide_by(self.gate.policy(), &self.findings, |finding| !self.nameless || !is_malformed_from(finding))
    }

    fn triple(&self, recipient: &ForwardPath) -> Option<Triple> {
        let greylist = self.gate.services.greylist.as_ref()?;
        Some(greylist.triple(self.client, &self.domain, recipient))
    }

    /// What becomes of a decision that greylists when these come: all are asked for, so that all are remembered.
    fn greylisted(&self, decision: Decision, triples: &[Triple]) -> Decision {
        let Some(greylist) = self.gate.services.greylist.as_ref().filter(|_| decision.greylists()) else {
            return decision;
        };
        if triples.is_empty() {
            return decision.with_wait(Some(greylist.delay()));
        }
        let waits = triples.iter().map(|triple| match greylist.check(triple) {
            GreylistAnswer::Passed => None,
            GreylistAnswer::Wait(time) => Some(time),
        });
        decision.with_wait(waits.max().flatten())
    }

    /// Of helo, ptr and mail_from; what is wanted of those that can refuse, or of all.
    async fn envelope_findings(&mut self, guest: &mut Client, wanted: Wanted) -> Vec<Finding> {
        let gate = Arc::clone(&self.gate);
        let policy = gate.policy();
        let looked_at = |identity| wanted == Wanted::All || policy.rules(identity).refuses();
        let mut findings = Vec::new();
        for identity in [Identity::Helo, Identity::Ptr] {
            if !self.exempt && looked_at(identity) {
                findings.extend_from_slice(&guest.findings(identity, wanted).await);
            }
        }
        if looked_at(Identity::MailFrom) {
            let lost = || temperror(&policy.mail_from, Identity::MailFrom, "", "").into();
            findings.extend_from_slice(&wanted.of(&mut self.sender, lost).await);
        }
        findings
    }
}

/// Behind the `@`.
fn domain(path: &ReversePath) -> CompactString {
    match path {
        ReversePath::Null | ReversePath::NoDomain(_) => CompactString::default(),
        ReversePath::Mailbox(mailbox) => mailbox.domain().to_compact_string(),
    }
}

fn exempt_sender(gate: &Gate, path: &ReversePath) -> bool {
    match path {
        ReversePath::Null | ReversePath::NoDomain(_) => false,
        ReversePath::Mailbox(mailbox) => {
            mailbox.domain().name().is_some_and(|name| gate.settings.exempt.domain(name))
        }
    }
}

fn sender(guest: &Client, path: &ReversePath, budget: Budget) -> Look {
    let rules = &guest.gate.policy().mail_from;
    if !rules.looks() {
        return Look::ready(Findings::default());
    }
    match path {
        ReversePath::Null => {
            let absent = RuleResult::None(Absence::NotGiven);
            Look::ready(all_rules(rules, Identity::MailFrom, "<>", "", absent).into())
        }
        ReversePath::NoDomain(local) => look(guest, Identity::MailFrom, local, None, local, budget),
        ReversePath::Mailbox(mailbox) => {
            let (subject, domain) = (mailbox.to_compact_string(), mailbox.domain());
            look(guest, Identity::MailFrom, &subject, domain.name(), &domain.to_compact_string(), budget)
        }
    }
}

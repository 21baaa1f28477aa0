//! One transaction, seen by the gate: findings of the envelope, then of the header, and the decision on each.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::{CompactString, ToCompactString};
use tokio::time::Instant;

use crate::dns::Budget;
use crate::gate::Gate;
use crate::gate::allowance::Allowance;
use crate::gate::event::{self, Facts};
use crate::gate::guest::{Guest, all_rules, look, temperror};
use crate::gate::look::{Findings, Look, Wanted};
use crate::gate::signed::{self, AwaitsBody};
use crate::gate::visible::Visible;
use crate::message::header::Header;
use crate::policy::decide::{Decision, decide, exempt};
use crate::policy::finding::{Absence, Finding, Outcome};
use crate::policy::identity::Identity;
use crate::record::{self, Extent, Id, Record};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::store::greylist::{Answer, Triple};

/// One transaction. Dropping it ends the look-ups that only it waits for.
#[derive(Debug)]
pub struct Inspection {
    gate: Arc<Gate>,
    id: Id,
    client: IpAddr,
    started: Instant,
    /// Nothing of the envelope can refuse.
    exempt: bool,
    sender: Look,
    allowance: Allowance,
    envelope: Option<Decision>,
    findings: Arc<Vec<Finding>>,
    /// They are those of the whole message.
    whole: bool,
    /// What the body decides.
    signed: Option<Box<AwaitsBody>>,
    /// The domain of the reverse path, where there is a greylist to ask; empty for the null sender.
    domain: CompactString,
    /// The recipients so far, for the greylist.
    triples: Vec<Triple>,
}

impl Inspection {
    pub(super) fn new(guest: &Guest, path: &ReversePath, allowance: Allowance) -> Self {
        let gate = Arc::clone(&guest.gate);
        let exempt = guest.exempt || exempt_sender(&gate, path);
        let sender = if guest.exempt {
            Look::ready(Findings::default())
        } else {
            sender(guest, path, allowance.mail_from())
        };
        Self {
            id: Id::next(),
            client: guest.client,
            started: Instant::now(),
            exempt,
            sender,
            allowance,
            envelope: None,
            findings: Arc::default(),
            whole: false,
            signed: None,
            domain: gate.memory.greylist.as_ref().map(|_| domain(path)).unwrap_or_default(),
            triples: Vec::new(),
            gate,
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
    pub async fn envelope(&mut self, guest: &mut Guest) -> Decision {
        if let Some(decision) = &self.envelope {
            return decision.clone();
        }
        self.findings = Arc::new(self.envelope_findings(guest, Wanted::Refusing).await);
        let decision = self.greylisted(self.decision(), &[]);
        self.envelope = Some(decision.clone());
        decision
    }

    /// [`Inspection::envelope`] for one recipient: where it greylists, the client may have come before.
    pub async fn envelope_for(&mut self, guest: &mut Guest, recipient: &ForwardPath) -> Decision {
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
    pub async fn header(&mut self, guest: &mut Guest, header: &Header, block: &[u8]) -> Decision {
        if guest.exempt {
            return exempt();
        }
        let (gate, client, helo) = (Arc::clone(&self.gate), self.client, guest.hello.clone());
        let [from, reply_to] = self.allowance.visible();
        let visible = Visible { gate, client, helo, budgets: [from.clone(), reply_to] };
        let (envelope, visible) =
            tokio::join!(self.envelope_findings(guest, Wanted::All), visible.senders(header));
        let mut findings = [envelope, visible].concat();
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
        record::queries(&self.findings)
    }

    /// Writes the one event of this decision (DESIGN 6), counts it for the monitor's report, and remembers it.
    pub fn log(&self, guest: &Guest, decision: &Decision, facts: &Facts<'_>) {
        self.log_record(self.record(guest, decision, facts), decision, None);
    }

    /// The same for a message that ends before its body could decide: `record` is of the decision on its header, and
    /// `why` it ended.
    pub fn log_undecided(&self, record: Record, decision: &Decision, why: &str) {
        self.log_record(record, decision, Some(why));
    }

    fn log_record(&self, record: Record, decision: &Decision, undecided: Option<&str>) {
        let memory = &self.gate.memory;
        event::write(&record, undecided);
        memory.monitor.record(decision, &self.findings, self.client);
        memory.metrics.verdict(decision, record.mode, self.age());
        if let Some(history) = &memory.history {
            history.record(record);
        }
    }

    /// This decision with everything that explains it.
    #[must_use]
    pub fn record(&self, guest: &Guest, decision: &Decision, facts: &Facts<'_>) -> Record {
        let gate = &self.gate;
        let extent = match &decision.cause {
            _ if guest.exempt => Extent::ExemptClient,
            _ if self.whole => Extent::Message,
            Some(_) => Extent::Envelope,
            None => Extent::ExemptRecipients,
        };
        let mut record = Record {
            id: Some(self.id),
            at: SystemTime::now(),
            client: self.client,
            names: guest.names_if_known().map(|names| names.outcome.clone()),
            extent,
            // what is refused whatever the policy says is refused in mode monitor too
            mode: if decision.refuses() { decision.mode } else { gate.policy().mode },
            actions: gate.actions,
            verdict: decision.verdict,
            because: None,
            help_url: Arc::clone(&gate.help_url),
            helo: guest.hello.clone(),
            mail_from: CompactString::new(facts.mail_from),
            rcpt: CompactString::new(facts.rcpt),
            from: CompactString::new(facts.from),
            reply_to: CompactString::new(facts.reply_to),
            duration: self.age(),
            findings: Arc::clone(&self.findings),
        };
        record.decide(decision);
        record
    }

    fn decision(&self) -> Decision {
        decide(self.gate.policy(), &self.findings)
    }

    fn triple(&self, recipient: &ForwardPath) -> Option<Triple> {
        let greylist = self.gate.memory.greylist.as_ref()?;
        Some(greylist.triple(self.client, &self.domain, recipient))
    }

    /// What becomes of a decision that greylists when these come: all are asked for, so that all are remembered.
    fn greylisted(&self, decision: Decision, triples: &[Triple]) -> Decision {
        let Some(greylist) = self.gate.memory.greylist.as_ref().filter(|_| decision.greylists()) else {
            return decision;
        };
        if triples.is_empty() {
            return decision.with_wait(Some(greylist.delay()));
        }
        let waits = triples.iter().map(|triple| match greylist.ask(triple) {
            Answer::Passed => None,
            Answer::Wait(time) => Some(time),
        });
        decision.with_wait(waits.max().flatten())
    }

    /// Of helo, ptr and mail_from; what is wanted of those that can refuse, or of all.
    async fn envelope_findings(&mut self, guest: &mut Guest, wanted: Wanted) -> Vec<Finding> {
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
        ReversePath::Null => CompactString::default(),
        ReversePath::Mailbox(mailbox) => mailbox.domain().to_compact_string(),
    }
}

fn exempt_sender(gate: &Gate, path: &ReversePath) -> bool {
    match path {
        ReversePath::Null => false,
        ReversePath::Mailbox(mailbox) => {
            mailbox.domain().name().is_some_and(|name| gate.settings.exempt.domain(name))
        }
    }
}

fn sender(guest: &Guest, path: &ReversePath, budget: Budget) -> Look {
    let rules = &guest.gate.policy().mail_from;
    if !rules.looks() {
        return Look::ready(Findings::default());
    }
    match path {
        ReversePath::Null => {
            let absent = Outcome::None(Absence::NotGiven);
            Look::ready(all_rules(rules, Identity::MailFrom, "<>", "", absent).into())
        }
        ReversePath::Mailbox(mailbox) => {
            let (subject, domain) = (mailbox.to_compact_string(), mailbox.domain());
            look(guest, Identity::MailFrom, &subject, domain.name(), &domain.to_compact_string(), budget)
        }
    }
}

//! What one transaction is judged by: the findings of the envelope, then of the header and the body, and the decision on
//! them. Nothing here is logged, counted or answered; [`crate::gate::Transaction`] does that.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::{CompactString, ToCompactString};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::decision::LetIn;
use crate::dns::{Account, Budget, Urgency};
use crate::evidence::{DnsFailure, Evidence};
use crate::gate::Gate;
use crate::gate::allowance::Allowance;
use crate::gate::client::Client;
use crate::gate::known::{for_each_rule, timed_out};
use crate::gate::lookup::{EnvelopeSender, Findings, Lookup, Wanted};
use crate::gate::owner::{Asked, EnvelopeState, Way};
use crate::gate::permitted::{self, Permitted, domain_name, domain_text, is_exempt_sender};
use crate::gate::signed::{self, AwaitsBody};
use crate::gate::visible::{Visible, VisibleFindings};
use crate::message::header::{Field, Header};
use crate::message::way::WaySigns;
use crate::policy::decide::{Decision, decide_by, exempt};
use crate::policy::finding::{Absence, Finding, RuleResult};
use crate::policy::identity::Identity;
use crate::policy::operator::{InForce, Policy};
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, IdentityRules, Rule};
use crate::reverse_mx::Subject;
use crate::smtp::address::{Domain, ForwardPath, ReversePath};
use crate::store::greylist::{GreylistAnswer, Triple};
use crate::store::shared::Patience;

/// The findings of one transaction. Dropping it ends the lookups that only it waits for.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) gate: Arc<Gate>,
    pub(super) client: IpAddr,
    /// Nothing of the envelope can refuse.
    exempt: bool,
    /// What permits let in.
    permitted: Permitted,
    /// The permit of a visible sender.
    visible_permit: Option<LetIn>,
    sender: Lookup,
    /// The sender as SPF sees it; `None` where that has no domain name.
    envelope_sender: Option<Arc<EnvelopeSender>>,
    allowance: Allowance,
    envelope: Option<Decision>,
    findings: Arc<Vec<Finding>>,
    /// The findings are those of the whole message.
    whole: bool,
    /// By the null sender: a bounce that is lost is missed by no one.
    bounce: bool,
    /// From: of a bounce names no domain, which is a tag, whatever `policy.malformed` is.
    nameless: bool,
    /// The findings that wait for the body.
    signed: Option<Box<AwaitsBody>>,
    /// The domain of the reverse path, where there is a greylist; empty for the null sender.
    domain: CompactString,
    /// The recipients so far, for the greylist.
    triples: Vec<Triple>,
    /// The client's, with what the other nodes are asked.
    patience: Patience,
}

impl Evaluation {
    /// `let_in` is the permit for all of the client's mail, without which `ptr` and `helo` were looked up.
    pub(super) fn new(
        client: &Client,
        path: &ReversePath,
        allowance: Allowance,
        let_in: Option<LetIn>,
    ) -> Self {
        let gate = &client.gate;
        let envelope_sender = envelope_sender(client.helo_argument(), path).map(Arc::new);
        let is_listed = is_exempt_sender(&gate.settings.exempt, path);
        let permitted = if client.is_exempt() {
            Permitted::default()
        } else {
            let sender = envelope_sender.as_deref().map(|sender| &sender.domain);
            let mail_from = domain_name(path).filter(|_| !is_listed);
            let found = gate.permits_of_envelope(client.address(), sender, mail_from, client.helo_argument());
            // The client's own may have ended since.
            Permitted { message: found.message.or(let_in), ..found }
        };
        let is_let_in = permitted.message.is_some() || permitted.envelope.is_some();
        let exempt = client.is_exempt() || is_listed || is_let_in;
        let sender = if client.is_exempt() || permitted.message.is_some() {
            Lookup::ready(Findings::default())
        } else if let Some(name) = domain_name(path).filter(|_| permitted.envelope.is_some()) {
            Lookup::ready(permitted::mail_from(gate.policy(), path, name).into())
        } else {
            sender(client, path, allowance.mail_from())
        };
        let domain = gate.services.greylist.as_ref().map(|_| domain_text(path)).unwrap_or_default();
        let bounce = matches!(path, ReversePath::Null);
        Self {
            exempt,
            permitted,
            sender,
            envelope_sender,
            domain,
            bounce,
            allowance,
            ..Self::of_nothing(client)
        }
    }

    /// Nothing is looked up.
    pub(super) fn of_nothing(client: &Client) -> Self {
        Self {
            gate: Arc::clone(&client.gate),
            client: client.address(),
            exempt: client.is_exempt(),
            permitted: Permitted::default(),
            visible_permit: None,
            sender: Lookup::ready(Findings::default()),
            envelope_sender: None,
            allowance: Allowance::new(),
            envelope: None,
            findings: Arc::default(),
            whole: false,
            bounce: false,
            nameless: false,
            signed: None,
            domain: CompactString::default(),
            triples: Vec::new(),
            patience: client.patience(),
        }
    }

    pub(super) fn findings(&self) -> &Arc<Vec<Finding>> {
        &self.findings
    }

    /// The findings are those of the whole message.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// A permit lets in the whole message.
    pub(super) fn is_let_in(&self) -> bool {
        self.permitted.message.is_some()
    }

    /// The permit that let in all or a part of it so far.
    pub(super) fn permit(&self) -> Option<LetIn> {
        self.permitted.any().or(self.visible_permit)
    }

    /// The permit for this recipient, where the rest needs one.
    pub(super) fn permit_of_recipient(&self, client: &Client, recipient: &ForwardPath) -> Option<LetIn> {
        if client.is_exempt() || self.is_let_in() {
            return None;
        }
        let sender = self.envelope_sender.as_deref().map(|sender| &sender.domain);
        self.gate.permit_of_recipient(self.client, sender, recipient)
    }

    /// The envelope was judged.
    pub(super) fn has_envelope(&self) -> bool {
        self.envelope.is_some()
    }

    /// The decision on helo, ptr and mail_from. The first call waits for the rules that can refuse.
    pub(super) async fn envelope(&mut self, client: &mut Client) -> Decision {
        if let Some(decision) = &self.envelope {
            return decision.clone();
        }
        self.findings = Arc::new(self.envelope_findings(client, Wanted::Refusing).await);
        let decision = self.greylisted(self.decision(), &[]).await;
        self.envelope = Some(decision.clone());
        decision
    }

    /// [`Evaluation::envelope`] for one recipient: where it greylists, the client may have come before.
    pub(super) async fn envelope_for(&mut self, client: &mut Client, recipient: &ForwardPath) -> Decision {
        let decision = self.envelope(client).await;
        if !decision.greylists() {
            return decision;
        }
        let triple = self.triple(recipient);
        self.greylisted(decision, triple.as_slice()).await
    }

    /// The message is to go to this recipient too, so that the verdict on the header holds for it.
    pub(super) fn add_recipient(&mut self, recipient: &ForwardPath) {
        if self.gate.policy().greylists() {
            self.triples.extend(self.triple(recipient));
        }
    }

    /// The decision on all five identities, at the end of the header block `block`. Where it greylists, the client must
    /// have come before with each of the recipients: the message goes to all of them or to none. Where it refuses
    /// nothing, it may still depend on the body: see [`Evaluation::awaits_body`].
    pub(super) async fn header(&mut self, client: &mut Client, header: &Header, block: &[u8]) -> Decision {
        if client.is_exempt() || self.is_let_in() {
            return exempt();
        }
        let (gate, address, helo) = (Arc::clone(&self.gate), self.client, client.helo_argument().into());
        let [from, reply_to] = self.allowance.visible();
        let envelope = self.envelope_sender.clone();
        let visible = Visible { gate, client: address, helo, envelope, budgets: [from.clone(), reply_to] };
        let (mut findings, VisibleFindings { findings: visible, asked, permit }) =
            tokio::join!(self.envelope_findings(client, Wanted::All), visible.senders(header));
        self.visible_permit = permit;
        let way = self.way(&asked, &findings, block, client.helo_argument()).await;
        findings.extend(visible);
        self.nameless =
            self.bounce && matches!(&header.from, Field::Malformed(malformed) if malformed.names_no_domain());
        let open = signed::open(self.gate.policy(), &mut findings, block, asked, way);
        (self.findings, self.whole) = (Arc::new(findings), true);
        let decision = self.greylisted(self.decision(), &self.triples).await;
        match open {
            None => {}
            Some(open) if decision.refuses() => open.close(Arc::make_mut(&mut self.findings).as_mut_slice()),
            Some(open) => self.signed = Some(Box::new(open.start(&self.gate, self.client, from))),
        }
        decision
    }

    /// Whether the decision is not final before the body has come, since a DKIM signature may count.
    pub(super) fn awaits_body(&self) -> bool {
        self.signed.is_some()
    }

    /// The next octets of the body, without the dots of RFC 5321 4.5.2.
    pub(super) fn body(&mut self, plain: &[u8]) {
        if let Some(signed) = &mut self.signed {
            signed.push(plain);
        }
    }

    /// The decision when the body has come.
    pub(super) async fn end(&mut self) -> Decision {
        if let Some(signed) = self.signed.take() {
            signed.decide(Arc::make_mut(&mut self.findings).as_mut_slice()).await;
        }
        self.greylisted(self.decision(), &self.triples).await
    }

    fn decision(&self) -> Decision {
        decide_by(self.gate.policy(), &self.findings, |finding| !self.nameless || !is_malformed_from(finding))
    }

    fn triple(&self, recipient: &ForwardPath) -> Option<Triple> {
        let greylist = self.gate.services.greylist.as_ref()?;
        Some(greylist.triple(self.client, &self.domain, recipient))
    }

    /// A decision that greylists, with what the greylist knows of these triples. Each is asked for, so that the
    /// greylist remembers all of them; all at once, since other nodes may have to be asked.
    async fn greylisted(&self, decision: Decision, triples: &[Triple]) -> Decision {
        let Some(greylist) = self.gate.services.greylist.as_ref().filter(|_| decision.greylists()) else {
            return decision;
        };
        if triples.is_empty() {
            return decision.with_wait(Some(greylist.delay()));
        }
        let began = Instant::now();
        let answers = join_all(triples.iter().map(|triple| greylist.check(triple, &self.patience))).await;
        self.patience.waited_since(began);
        let waits = answers.into_iter().map(|answer| match answer {
            GreylistAnswer::Passed => None,
            GreylistAnswer::Wait(time) => Some(time),
        });
        decision.with_wait(waits.max().flatten())
    }

    /// The findings of helo, ptr and mail_from: those that can refuse, or all.
    async fn envelope_findings(&mut self, client: &mut Client, wanted: Wanted) -> Vec<Finding> {
        let gate = Arc::clone(&self.gate);
        let policy = gate.policy();
        let looked_at = |identity| wanted == Wanted::All || policy.rules(identity).refuses();
        let mail_from = self.rules_of_sender(policy);
        let mut findings = Vec::new();
        for identity in [Identity::Helo, Identity::Ptr] {
            if self.exempt || !looked_at(identity) {
                continue;
            }
            if identity == Identity::Helo && self.permitted.helo.is_some() {
                findings.extend(permitted::helo(policy, client.helo_argument()));
                continue;
            }
            let found = client.findings(identity, wanted).await;
            match client.names_if_known().filter(|_| identity == Identity::Ptr && !found.is_empty()) {
                Some(names) if let Some((permit, exempt)) = gate.permit_of_names(names) => {
                    self.permitted.ptr = Some(permit);
                    findings.extend(exempt);
                }
                Some(_) | None => findings.extend_from_slice(&found),
            }
        }
        if wanted == Wanted::All || mail_from.rules.refuses() {
            let lost = || timed_out(mail_from, Identity::MailFrom, "", "").into();
            findings.extend_from_slice(&wanted.of(&mut self.sender, lost).await);
        }
        findings
    }

    /// The rules of `mail_from` that apply to the sender.
    fn rules_of_sender<'p>(&self, policy: &'p Policy) -> InForce<'p> {
        match self.envelope_sender.as_deref() {
            Some(EnvelopeSender { identity: Identity::MailFrom, domain, .. }) => {
                policy.in_force(Identity::MailFrom, domain)
            }
            Some(_) | None => policy.general(Identity::MailFrom),
        }
    }

    /// How the message came, as far as what was asked for depends on it. `findings` are those of the envelope; where
    /// they don't have `mail_from.matches`, since it is off or the sender exempt, it is looked up now.
    async fn way(&self, asked: &[Asked], findings: &[Finding], block: &[u8], helo: &str) -> Way {
        let quarantine = self.gate.policy().dmarc_quarantine;
        let (signs, envelope) = (WaySigns::default(), EnvelopeState::DoesNotHold);
        let mut way = Way { signs, envelope, evidence: Vec::new(), quarantine };
        if !asked.iter().any(Asked::needs_way) {
            return way;
        }
        way.signs = WaySigns::read(block);
        let mut known = findings.iter().filter_map(|finding| match finding.outcome {
            RuleResult::None(_) => None,
            result => {
                (finding.identity == Identity::MailFrom && finding.rule == Rule::Matches).then_some(result)
            }
        });
        (way.envelope, way.evidence) = match known.next() {
            Some(result) => (result.into(), Vec::new()),
            None => self.envelope_state(helo).await,
        };
        way
    }

    /// Whether `mail_from.matches` holds, whatever its action is.
    async fn envelope_state(&self, helo: &str) -> (EnvelopeState, Vec<Evidence>) {
        let policy = self.gate.policy();
        let Some(sender) = self.envelope_sender.as_deref() else {
            return (EnvelopeState::DoesNotHold, Vec::new());
        };
        let rules = IdentityRules { matches: Action::Tag, ..self.rules_of_sender(policy).rules.clone() };
        let text = format!("{}@{}", sender.local, sender.domain);
        let (identity, domain) = (Identity::MailFrom, &sender.domain);
        let subject = Subject { identity, text: &text, domain, helo, envelope: None };
        let account = Account::new(self.client, self.allowance.mail_from(), Urgency::Refuses);
        let work = self.gate.reverse_mx.inspect_by(Rule::Matches, &subject, &rules, &account);
        match timeout(self.gate.deadline, Box::pin(work)).await {
            Ok(finding) => (finding.outcome.into(), finding.evidence),
            Err(_elapsed) => (EnvelopeState::Unknown(DnsFailure::Timeout), Vec::new()),
        }
    }
}

/// MAIL FROM, or HELO for the null sender (RFC 7208 2.4).
pub(super) fn envelope_sender(helo: &str, path: &ReversePath) -> Option<EnvelopeSender> {
    match path {
        ReversePath::NoDomain(_) => None,
        ReversePath::Null => {
            let domain = Domain::parse(helo).ok()?.name()?.clone();
            Some(EnvelopeSender { identity: Identity::Helo, local: CompactString::default(), domain })
        }
        ReversePath::Mailbox(mailbox) => {
            let domain = mailbox.domain().name()?.clone();
            Some(EnvelopeSender { identity: Identity::MailFrom, local: mailbox.local().into(), domain })
        }
    }
}

pub(super) fn is_malformed_from(finding: &Finding) -> bool {
    finding.identity == Identity::From && finding.outcome == RuleResult::Fail(Reason::MalformedHeader)
}

fn sender(client: &Client, path: &ReversePath, budget: Budget) -> Lookup {
    let policy = client.gate.policy();
    let rules = policy.general(Identity::MailFrom);
    let in_force = match path {
        ReversePath::Mailbox(mailbox) => {
            mailbox.domain().name().map(|name| policy.in_force(Identity::MailFrom, name))
        }
        ReversePath::Null | ReversePath::NoDomain(_) => None,
    };
    if !in_force.unwrap_or(rules).rules.looks() {
        return Lookup::ready(Findings::default());
    }
    match path {
        ReversePath::Null => {
            let absent = RuleResult::None(Absence::NotGiven);
            Lookup::ready(for_each_rule(rules, Identity::MailFrom, "<>", "", absent).into())
        }
        ReversePath::NoDomain(local) => client.look_up(Identity::MailFrom, local, None, local, budget),
        ReversePath::Mailbox(mailbox) => {
            let (subject, domain) = (mailbox.to_compact_string(), mailbox.domain());
            let text = domain.to_compact_string();
            client.look_up(Identity::MailFrom, &subject, domain.name(), &text, budget)
        }
    }
}

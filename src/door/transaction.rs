//! One mail transaction: the verdict on its sender, its recipients, and the relay's side of it.
//!
//! The relay is contacted at the first recipient that may pass, with the permit of the gate's decision, and each
//! recipient is answered with the relay's own words, so that no bounce is ever owed.

use std::net::SocketAddr;

use compact_str::{CompactString, ToCompactString, format_compact};

use crate::door::Door;
use crate::gate::{Facts, Guest, Inspection};
use crate::policy::decide::{Cause, Decision, Permit, Verdict};
use crate::policy::finding::{Finding, Outcome};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule};
use crate::record::{Id, Record};
use crate::relay::{self, ClientInfo, ClientName, Envelope, Hold, Recipient, Visit};
use crate::reverse_mx::{ClientNames, NamesOutcome};
use crate::session::Hello;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{Body, MailParameters, RcptParameters};
use crate::smtp::reply::{Enhanced, Reply};
use crate::tls::Negotiated;

/// One transaction. Dropping it closes the relay's side without a message.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) inspection: Inspection,
    pub(super) path: ReversePath,
    pub(super) parameters: MailParameters,
    pub(super) client: SocketAddr,
    pub(super) hello: Option<Hello>,
    /// How it is encrypted; `None` = not.
    pub(super) tls: Option<Negotiated>,
    /// Those that were accepted; only the first is remembered by name.
    pub(super) accepted: usize,
    pub(super) first: Option<ForwardPath>,
    /// A recipient was accepted that is not exempt, so the message itself is judged.
    judged: bool,
    refusal_logged: bool,
    relay: Next,
}

/// The relay's side.
#[derive(Debug)]
enum Next {
    NotYet,
    Open(relay::Transaction),
    /// It could not be opened; what the client is told.
    Failed(Reply),
}

impl Transaction {
    pub(super) fn new(
        inspection: Inspection,
        path: ReversePath,
        parameters: MailParameters,
        client: SocketAddr,
        hello: Option<Hello>,
        tls: Option<Negotiated>,
    ) -> Self {
        Self {
            inspection,
            path,
            parameters,
            client,
            hello,
            tls,
            accepted: 0,
            first: None,
            judged: false,
            refusal_logged: false,
            relay: Next::NotYet,
        }
    }

    pub(super) fn id(&self) -> Id {
        self.inspection.id()
    }

    /// The reply where the envelope's verdict refuses at MAIL. Greylisting waits for the recipient.
    pub(super) async fn refusal_at_mail(&mut self, door: &Door, guest: &mut Guest) -> Option<Reply> {
        let decision = self.inspection.envelope(guest).await;
        if decision.greylists() {
            return None;
        }
        self.carry_out(door, guest, &decision, None).err()
    }

    /// The permit of the envelope's verdict for a recipient, or the reply where that refuses.
    async fn permit(&mut self, door: &Door, guest: &mut Guest, rcpt: &ForwardPath) -> Result<Permit, Reply> {
        let decision = self.inspection.envelope_for(guest, rcpt).await;
        self.carry_out(door, guest, &decision, Some(rcpt))
    }

    fn carry_out(
        &mut self,
        door: &Door,
        guest: &Guest,
        decision: &Decision,
        rcpt: Option<&ForwardPath>,
    ) -> Result<Permit, Reply> {
        if let Some(permit) = decision.permit() {
            return Ok(permit);
        }
        let reply = door.gate.refusal(decision, self.id()).unwrap_or_else(no_decision);
        // Greylisting decides for each recipient, all else once for the transaction.
        if decision.greylists() || !std::mem::replace(&mut self.refusal_logged, true) {
            let rcpt = rcpt.map(ToCompactString::to_compact_string).unwrap_or_default();
            self.log(guest, decision, &Facts { rcpt: &rcpt, ..Facts::default() });
        }
        Err(reply)
    }

    /// The answer to one RCPT.
    pub(super) async fn recipient(
        &mut self,
        door: &Door,
        guest: &mut Guest,
        visit: &Visit,
        path: ForwardPath,
        parameters: &RcptParameters,
    ) -> Reply {
        if is_foreign(door, &path) {
            let rcpt = path.to_compact_string();
            let decision = always_refused(Reason::RelayingDenied, Identity::MailFrom, &rcpt);
            self.log(guest, &decision, &Facts { rcpt: &rcpt, ..Facts::default() });
            return door.gate.refusal(&decision, self.id()).unwrap_or_else(no_decision);
        }
        let exempt = door.gate.exempts_recipient(&path);
        let permit = if exempt {
            crate::policy::decide::exempt().permit().ok_or_else(no_decision)
        } else {
            self.permit(door, guest, &path).await
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(reply) => return reply,
        };
        let reply = self.ask_relay(guest, visit, permit, Recipient { path: &path, parameters }).await;
        if reply.is_positive() {
            self.accepted += 1;
            if !exempt {
                self.judged = true;
                self.inspection.accepted(&path);
            }
            self.first.get_or_insert(path);
        }
        reply
    }

    async fn ask_relay(
        &mut self,
        guest: &mut Guest,
        visit: &Visit,
        permit: Permit,
        recipient: Recipient<'_>,
    ) -> Reply {
        match &mut self.relay {
            Next::Open(relay) => relay.rcpt(recipient).await,
            Next::Failed(reply) => reply.clone(),
            Next::NotYet => {
                let (relay, reply) = match self.open(guest, visit, permit, recipient).await {
                    Ok((transaction, reply)) => (Next::Open(transaction), reply),
                    Err(reply) => (Next::Failed(reply.clone()), reply),
                };
                self.relay = relay;
                reply
            }
        }
    }

    async fn open(
        &self,
        guest: &mut Guest,
        visit: &Visit,
        permit: Permit,
        first: Recipient<'_>,
    ) -> Result<(relay::Transaction, Reply), Reply> {
        // DNS may take its time for the name.
        let name = if visit.wants_name() { client_name(guest.names().await) } else { ClientName::Unknown };
        let client = ClientInfo {
            address: self.client,
            name,
            helo: self.helo().into(),
            esmtp: self.hello.as_ref().is_some_and(|hello| hello.extended),
        };
        let id = self.id();
        let envelope = Envelope {
            size: self.parameters.size,
            eight_bit: self.parameters.body == Some(Body::EightBitMime),
            smtputf8: self.parameters.smtputf8,
            ret: self.parameters.ret.as_deref(),
            envid: self.parameters.envid.as_deref(),
            ..Envelope::new(&client, &self.path, id.as_str())
        };
        visit.begin(permit, envelope, first).await
    }

    /// Whether the message is judged: some recipient of it is not exempt.
    pub(super) fn judged(&self) -> bool {
        self.judged
    }

    /// The relay's side, which is open once a recipient was accepted; nobody else gets it afterwards.
    pub(super) fn take_relay(&mut self) -> Result<relay::Transaction, Reply> {
        let not_asked = || Reply::new(451, Enhanced(4, 4, 1), "the relay was not asked");
        match std::mem::replace(&mut self.relay, Next::Failed(not_asked())) {
            Next::Open(relay) => Ok(relay),
            Next::Failed(reply) => Err(reply),
            Next::NotYet => Err(not_asked()),
        }
    }

    /// What the client holds of the relay.
    pub(super) fn hold(&self) -> Option<Hold> {
        match &self.relay {
            Next::Open(relay) => relay.hold(),
            Next::NotYet | Next::Failed(_) => None,
        }
    }

    /// Ends the relay's side in good order, without a message.
    pub(super) async fn abandon(self) {
        if let Next::Open(relay) = self.relay {
            relay.abandon().await;
        }
    }

    pub(super) fn helo(&self) -> &str {
        self.hello.as_ref().map(|hello| hello.argument.as_str()).unwrap_or_default()
    }

    /// Logs a decision with everything that is known of the transaction.
    pub(super) fn log(&self, guest: &Guest, decision: &Decision, facts: &Facts<'_>) {
        let mail_from = format_compact!("<{}>", self.path);
        self.inspection.log(guest, decision, &Facts { mail_from: &mail_from, ..*facts });
    }

    /// What would be logged of it.
    pub(super) fn record(&self, guest: &Guest, decision: &Decision, facts: &Facts<'_>) -> Record {
        let mail_from = format_compact!("<{}>", self.path);
        self.inspection.record(guest, decision, &Facts { mail_from: &mail_from, ..*facts })
    }

    /// What Authentication-Results is made of.
    pub(super) fn findings(&self) -> &[Finding] {
        self.inspection.findings()
    }
}

/// The decision where no policy is asked, whatever its mode and whoever is exempt. The identity is the one that the
/// refusal is next to; what it is about is the subject.
pub(super) fn always_refused(reason: Reason, identity: Identity, subject: &str) -> Decision {
    let finding = Finding {
        identity,
        rule: Rule::Exists,
        domain: CompactString::default(),
        subject: CompactString::new(subject),
        outcome: Outcome::Fail(reason),
        evidence: Vec::new(),
    };
    let cause = Cause { finding, reason, action: Action::Reject, wait: None };
    Decision { verdict: Verdict::Reject, cause: Some(cause), mode: Mode::Enforce }
}

/// Neither a permit nor a refusal, which no decision is; were it otherwise, nothing would be lost.
pub(super) fn no_decision() -> Reply {
    Reply::new(451, Enhanced(4, 3, 0), "no decision was made")
}

/// A recipient that rmxd itself refuses (DESIGN 1.6): outside `relay.domains`, or with a route of its own in the local
/// part, which a server behind might follow.
fn is_foreign(door: &Door, path: &ForwardPath) -> bool {
    let ours = &door.settings.recipient_domains;
    if ours.is_empty() || path.is_bare_postmaster() {
        return false;
    }
    let Some(domain) = path.domain() else {
        return true; // the relay might complete it with any domain
    };
    let covered = domain.name().is_some_and(|name| ours.iter().any(|pattern| pattern.covers(name)));
    !covered || path.local().contains(['%', '!', '@'])
}

fn client_name(names: Option<&ClientNames>) -> ClientName {
    match names {
        Some(ClientNames { outcome: NamesOutcome::TempError(_), .. }) => ClientName::TempUnknown,
        _ => names.and_then(ClientNames::first).cloned().map_or(ClientName::Unknown, ClientName::Confirmed),
    }
}

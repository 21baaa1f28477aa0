//! One mail transaction: the verdict on its sender, its recipients, and the relay's side of it.
//!
//! The relay is contacted at the first recipient that may pass, with the permit of the gate's decision, and each
//! recipient is answered with the relay's own words, so that no bounce is ever owed.

use std::net::SocketAddr;

use compact_str::ToCompactString;

use crate::decision::Id;
use crate::door::Door;
use crate::door::account::{Account, no_decision};
use crate::gate::{Client, Inspection};
use crate::policy::decide::{Permit, exempt};
use crate::policy::finding::Finding;
use crate::policy::reason::Reason;
use crate::relay::{self, ClientInfo, ClientLease, ClientName, Envelope, Hold, HopReply, Recipient};
use crate::reverse_mx::{ClientNames, FcrdnsResult};
use crate::session::Helo;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{Body, MailParameters, RcptParameters};
use crate::smtp::reply::{Enhanced, Reply};
use crate::tls::Negotiated;

/// One transaction. Dropping it closes the relay's side without a message.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) account: Account,
    pub(super) path: ReversePath,
    pub(super) parameters: MailParameters,
    pub(super) client: SocketAddr,
    pub(super) helo: Option<Helo>,
    /// How it is encrypted; `None` = not.
    pub(super) tls: Option<Negotiated>,
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
        helo: Option<Helo>,
        tls: Option<Negotiated>,
    ) -> Self {
        Self {
            account: Account::new(inspection, &path),
            path,
            parameters,
            client,
            helo,
            tls,
            relay: Next::NotYet,
        }
    }

    pub(super) fn id(&self) -> Id {
        self.account.inspection.id()
    }

    /// The reply where the envelope's verdict refuses at MAIL. Greylisting waits for the recipient.
    pub(super) async fn refusal_at_mail(&mut self, guest: &mut Client) -> Option<Reply> {
        let decision = self.account.inspection.envelope(guest).await;
        if decision.greylists() {
            return None;
        }
        self.account.decided(decision, None).err()
    }

    /// The permit of the envelope's verdict for a recipient, or the reply where that refuses.
    async fn permit(&mut self, guest: &mut Client, rcpt: &ForwardPath) -> Result<Permit, Reply> {
        let decision = self.account.inspection.envelope_for(guest, rcpt).await;
        let permit = decision.permit();
        self.account.decided(decision, Some(rcpt))?;
        permit.ok_or_else(no_decision)
    }

    /// The answer to one RCPT.
    pub(super) async fn recipient(
        &mut self,
        door: &Door,
        guest: &mut Client,
        lease: &ClientLease,
        path: ForwardPath,
        parameters: &RcptParameters,
    ) -> Reply {
        if is_foreign(door, &path) {
            let rcpt = path.to_compact_string();
            return self.account.refuse_always(Reason::RelayingDenied, &rcpt, Some(&path));
        }
        let is_exempt = door.gate.exempts_recipient(&path);
        let permit = if is_exempt {
            exempt().permit().ok_or_else(no_decision)
        } else {
            self.permit(guest, &path).await
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(reply) => return reply,
        };
        let recipient = Recipient { path: &path, parameters };
        match self.ask_relay(guest, lease, permit, recipient).await {
            Err(reply) => reply,
            Ok(reply) => {
                self.account.accepted += 1;
                if !is_exempt {
                    self.account.judged = true;
                    self.account.inspection.accepted(&path);
                }
                self.account.first.get_or_insert(path);
                reply
            }
        }
    }

    /// The relay's answer for a recipient: [`Account::relayed`].
    async fn ask_relay(
        &mut self,
        guest: &mut Client,
        lease: &ClientLease,
        permit: Permit,
        recipient: Recipient<'_>,
    ) -> Result<Reply, Reply> {
        let path = recipient.path;
        match &mut self.relay {
            Next::Open(relay) => {
                let answer = relay.rcpt(recipient).await;
                self.account.relayed(answer, Some(path))
            }
            Next::Failed(reply) => Err(reply.clone()),
            Next::NotYet => match self.open(guest, lease, permit, recipient).await {
                Ok((transaction, answer)) => {
                    self.relay = Next::Open(transaction);
                    self.account.relayed(answer, Some(path))
                }
                Err(answer) => {
                    let told = self.account.relayed(answer, Some(path));
                    if let Err(reply) = &told {
                        self.relay = Next::Failed(reply.clone());
                    }
                    told
                }
            },
        }
    }

    async fn open(
        &self,
        guest: &mut Client,
        lease: &ClientLease,
        permit: Permit,
        first: Recipient<'_>,
    ) -> Result<(relay::Transaction, HopReply), HopReply> {
        // DNS may take its time for the name.
        let name = if lease.wants_name() { client_name(guest.names().await) } else { ClientName::Unknown };
        let client = ClientInfo {
            address: self.client,
            name,
            helo: self.helo().into(),
            esmtp: self.helo.as_ref().is_some_and(|helo| helo.extended),
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
        lease.begin(permit, envelope, first).await
    }

    /// The relay's side, which is open once a recipient was accepted; nobody else gets it afterwards.
    pub(super) fn take_relay(&mut self) -> Result<relay::Transaction, HopReply> {
        let not_asked = || Reply::new(451, Enhanced(4, 4, 1), "the relay was not asked");
        match std::mem::replace(&mut self.relay, Next::Failed(not_asked())) {
            Next::Open(relay) => Ok(relay),
            Next::Failed(reply) => Err(HopReply::not_taken(reply, Reason::RelayUnreachable)),
            Next::NotYet => Err(HopReply::not_taken(not_asked(), Reason::RelayUnreachable)),
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
        self.helo.as_ref().map(|helo| helo.argument.as_str()).unwrap_or_default()
    }

    /// What Authentication-Results is made of.
    pub(super) fn findings(&self) -> &[Finding] {
        self.account.inspection.findings()
    }
}

/// A recipient that rmxd itself refuses (contract 1.7): outside `relay.domains`, or with a route of its own in the local
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
        Some(ClientNames { outcome: FcrdnsResult::TempError(_), .. }) => ClientName::TempUnknown,
        _ => names.and_then(ClientNames::first).cloned().map_or(ClientName::Unknown, ClientName::Confirmed),
    }
}

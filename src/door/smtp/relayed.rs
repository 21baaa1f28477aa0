//! A transaction with its relay's side: the relay is contacted at the first recipient that may pass, with the permit of
//! the gate, and each recipient is answered with the relay's own reply, so that no bounce is ever owed.

use std::net::SocketAddr;

use compact_str::ToCompactString;

use crate::door::smtp::SmtpDoor;
use crate::gate::{Client, Permit, Transaction};
use crate::policy::reason::Reason;
use crate::relay::{self, ClientInfo, ClientLease, ClientName, Hold, HopReply, NextHopFailure, Recipient};
use crate::reverse_mx::{ClientNames, FcrdnsResult};
use crate::session::{Helo, Refusal, Refused};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::command::{Body, MailParameters, RcptParameters};
use crate::smtp::reply::{Enhanced, Reply};
use crate::tls::Negotiated;

/// One transaction. Dropping it closes the relay's side without a message.
#[derive(Debug)]
pub(super) struct Relayed {
    pub(super) gate: Transaction,
    pub(super) envelope: Envelope,
    relay: Next,
}

/// MAIL, and the session that it came in.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) path: ReversePath,
    pub(super) parameters: MailParameters,
    pub(super) client: SocketAddr,
    pub(super) helo: Option<Helo>,
    /// How it is encrypted; `None` = not.
    pub(super) tls: Option<Negotiated>,
}

impl Envelope {
    pub(super) fn helo(&self) -> &str {
        self.helo.as_ref().map(|helo| helo.argument.as_str()).unwrap_or_default()
    }

    /// EHLO, not HELO.
    pub(super) fn esmtp(&self) -> bool {
        self.helo.as_ref().is_some_and(|helo| helo.extended)
    }
}

/// The relay's side.
#[derive(Debug)]
enum Next {
    NotYet,
    Open(relay::Transaction),
    /// It could not be opened; the client's reply.
    Failed(Reply),
}

impl Relayed {
    pub(super) fn new(gate: Transaction, envelope: Envelope) -> Self {
        Self { gate, envelope, relay: Next::NotYet }
    }

    /// The reply to one RCPT.
    pub(super) async fn recipient(
        &mut self,
        door: &SmtpDoor,
        client: &mut Client,
        lease: &ClientLease,
        path: ForwardPath,
        parameters: &RcptParameters,
    ) -> Reply {
        if is_foreign(door, &path) {
            return self.gate.refuse(Reason::RelayingDenied, &path.to_compact_string(), Some(&path));
        }
        let permit = match self.gate.rcpt(client, &path).await {
            Ok(permit) => permit,
            Err(reply) => return reply,
        };
        match self.ask_relay(client, lease, permit, Recipient { path: &path, parameters }).await {
            Err(reply) => reply,
            Ok(reply) => {
                self.gate.accepted(permit, path);
                reply
            }
        }
    }

    /// The relay's reply for a recipient: [`relayed`].
    async fn ask_relay(
        &mut self,
        client: &mut Client,
        lease: &ClientLease,
        permit: Permit,
        recipient: Recipient<'_>,
    ) -> Result<Reply, Reply> {
        let path = recipient.path;
        match &mut self.relay {
            Next::Open(relay) => {
                let answer = relay.rcpt(permit, recipient).await;
                relayed(&mut self.gate, answer, Some(path))
            }
            Next::Failed(reply) => Err(reply.clone()),
            Next::NotYet => match self.open(client, lease, permit, recipient).await {
                Ok((transaction, answer)) => {
                    self.relay = Next::Open(transaction);
                    relayed(&mut self.gate, answer, Some(path))
                }
                Err(answer) => {
                    let replied = relayed(&mut self.gate, answer, Some(path));
                    if let Err(reply) = &replied {
                        self.relay = Next::Failed(reply.clone());
                    }
                    replied
                }
            },
        }
    }

    async fn open(
        &self,
        client: &mut Client,
        lease: &ClientLease,
        permit: Permit,
        first: Recipient<'_>,
    ) -> Result<(relay::Transaction, HopReply), HopReply> {
        // DNS may take its time for the name.
        let name = if lease.wants_name() { client_name(client.names().await) } else { ClientName::Unknown };
        let Envelope { path, parameters, client, .. } = &self.envelope;
        let client = ClientInfo {
            address: *client,
            name,
            helo: self.envelope.helo().into(),
            esmtp: self.envelope.esmtp(),
        };
        let id = self.gate.id();
        let envelope = relay::Envelope {
            size: parameters.size,
            eight_bit: parameters.body == Some(Body::EightBitMime),
            smtputf8: parameters.smtputf8,
            ret: parameters.ret.as_deref(),
            envid: parameters.envid.as_deref(),
            ..relay::Envelope::new(&client, path, id.as_str())
        };
        lease.begin(permit, envelope, first).await
    }

    /// The relay's side, which is open once a recipient was accepted; it can be taken once.
    pub(super) fn take_relay(&mut self) -> Result<relay::Transaction, HopReply> {
        let not_asked = || Reply::new(451, Enhanced(4, 4, 1), "the relay was not asked");
        match std::mem::replace(&mut self.relay, Next::Failed(not_asked())) {
            Next::Open(relay) => Ok(relay),
            Next::Failed(reply) => Err(HopReply::not_taken(reply, Reason::RelayUnreachable)),
            Next::NotYet => Err(HopReply::not_taken(not_asked(), Reason::RelayUnreachable)),
        }
    }

    /// The client's hold on a connection of the relay.
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
}

/// The client's reply for the relay's reply to a recipient, or to the whole message (`rcpt` is `None`); a refusal or a
/// failure is recorded.
pub(super) fn relayed(
    transaction: &mut Transaction,
    answer: HopReply,
    rcpt: Option<&ForwardPath>,
) -> Result<Reply, Reply> {
    match answer {
        HopReply { reply, trouble: Some(NextHopFailure { reason, reply: relay_reply }) } => {
            Err(transaction.not_taken(reason, relay_reply.as_ref(), reply, rcpt))
        }
        HopReply { reply, trouble: None } if reply.is_positive() => Ok(reply),
        HopReply { reply, trouble: None } => Err(reply),
    }
}

/// The reply to what the dialogue itself refuses, with the id.
pub(super) fn refuse_command(transaction: &mut Transaction, refusal: Refusal) -> Reply {
    let Refusal { reason, reply, refused, closes } = refusal;
    let Some(reason) = reason else {
        return reply.ending_with(&transaction.suffix());
    };
    let rcpt = match &refused {
        Refused::Recipient(argument) if !argument.is_empty() => Some(argument.as_str()),
        Refused::Recipient(_) | Refused::Sender(_) | Refused::Other => None,
    };
    let reply = transaction.refuse_with(reason, reply, rcpt);
    if closes {
        transaction.close_refused();
    }
    reply
}

/// A recipient that rmxd itself refuses (contract 1.7): outside `relay.domains`, or with a route of its own in the local
/// part, which a server behind might follow.
fn is_foreign(door: &SmtpDoor, path: &ForwardPath) -> bool {
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

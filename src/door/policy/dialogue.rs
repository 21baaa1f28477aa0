//! The requests of one connection: which belong to one transaction, and the answer to each.
//!
//! Postfix asks several times about one message, for each recipient and in each list of restrictions that names the
//! service. All these requests have the same `instance`, and are one transaction. At MAIL there is no instance yet; the
//! first recipient of the same envelope goes on with what began there.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use compact_str::CompactString;
use tokio::sync::watch;

use crate::delegation::{Answer, Request, State};
use crate::door::unknown_client;
use crate::gate::{Client, Gate, Transaction};
use crate::policy::door::DoorName;
use crate::policy::reason::Reason;
use crate::policy::rule::RejectAt;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;

/// Recipients whose answers are remembered; Postfix takes as many by default (`smtpd_recipient_limit`).
const MOST_RECIPIENTS: usize = 1000;

#[derive(Debug)]
pub(super) struct Dialogue {
    /// The gate of the settings in effect.
    gate: watch::Receiver<Arc<Gate>>,
    current: Option<Instance>,
}

/// One message, and the session of SMTP in which it came.
#[derive(Debug)]
struct Instance {
    session: Session,
    client: Client,
    /// Empty until the first recipient.
    name: CompactString,
    helo: CompactString,
    /// As Postfix writes it.
    sender: CompactString,
    transaction: Transaction,
    /// The answers so far, by recipient; `None` is DUNNO.
    answers: HashMap<CompactString, Option<Reply>>,
    /// The outcome was recorded.
    settled: bool,
}

/// A session of SMTP, as far as requests tell one from another.
#[derive(Debug, Clone)]
struct Session {
    address: Option<IpAddr>,
    port: u16,
    /// The client has logged in.
    user: bool,
    gate: Arc<Gate>,
}

impl Dialogue {
    pub(super) fn new(gate: watch::Receiver<Arc<Gate>>) -> Self {
        Self { gate, current: None }
    }

    /// Whether a message was asked about whose outcome isn't recorded yet.
    pub(super) fn is_open(&self) -> bool {
        self.current.as_ref().is_some_and(|instance| !instance.settled && !instance.answers.is_empty())
    }

    /// How many recipients have an answer that is remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.current.as_ref().map_or(0, |instance| instance.answers.len())
    }

    /// Records the outcome of the last message; further requests about it get the same answers.
    pub(super) fn settle(&mut self) {
        if let Some(instance) = &mut self.current {
            instance.settled = true;
            instance.transaction.settle();
        }
    }

    /// Appends the answer to a request.
    pub(super) async fn answer(&mut self, request: &Request<'_>, answers: &mut Vec<u8>) {
        let is_verdict_at_mail = self.gate.borrow().policy().reject_at == RejectAt::Mail;
        match request.state {
            State::Rcpt => {}
            State::Mail if is_verdict_at_mail => {}
            State::Mail | State::Connect | State::Helo | State::Data | State::EndOfMessage | State::Other => {
                self.note(request);
                return Answer::Dunno.write_to(answers);
            }
        }
        let instance = self.instance(request);
        let reply = match request.state {
            State::Rcpt => instance.recipient(request).await,
            _ => instance.sender().await,
        };
        reply.as_ref().map_or(Answer::Dunno, Answer::Refuse).write_to(answers);
    }

    /// A request was not carried out to its end: the transaction is given up, and the answer is a temporary failure.
    pub(super) fn fail(&mut self, answers: &mut Vec<u8>) {
        self.current = None;
        Answer::Trouble.write_to(answers);
    }

    /// A request that asks for no verdict may name the queue file of the current message, or end the message by being about
    /// another session.
    fn note(&mut self, request: &Request<'_>) {
        let Some(instance) = &mut self.current else { return };
        if !request.instance.is_empty() && instance.name == request.instance {
            instance.transaction.set_queue(&request.queue_id);
        } else if request.client_address != instance.session.address
            || request.client_port != instance.session.port
        {
            self.current = None;
        }
    }

    /// The transaction that a request is about: the current one, or a new one.
    fn instance(&mut self, request: &Request<'_>) -> &mut Instance {
        let before = self.current.take();
        let instance = match before {
            Some(instance) if instance.is_of(request) => instance,
            before => self.begin(request, before),
        };
        let instance = self.current.insert(instance);
        if instance.name.is_empty() {
            instance.name = (&*request.instance).into();
        }
        instance.transaction.set_queue(&request.queue_id);
        instance
    }

    /// Within one session of SMTP the client stays, with the names that were looked up for it.
    fn begin(&self, request: &Request<'_>, before: Option<Instance>) -> Instance {
        let session = Session::of(request, Arc::clone(&self.gate.borrow()));
        let mut client = match (before, session.address) {
            (Some(Instance { client, session: of, .. }), _) if session.goes_on(&of) => client,
            (_, Some(address)) if session.user => session.gate.user_at(DoorName::Policy, address),
            (_, Some(address)) => session.gate.client_at(DoorName::Policy, address),
            // Nothing is known of it, as when a gateway announces none by XCLIENT.
            (_, None) => session.gate.user_at(DoorName::Policy, Ipv4Addr::UNSPECIFIED.into()),
        };
        if !request.helo_name.is_empty() {
            client.helo(&request.helo_name);
        }
        client.set_tls(&request.encryption_protocol);
        // Postfix takes addresses that RFC 5321 doesn't have. Their domain is none that can be looked up.
        let path =
            request.reverse_path().unwrap_or_else(|_error| ReversePath::NoDomain((&*request.sender).into()));
        Instance {
            transaction: client.transaction(&path),
            session,
            client,
            name: CompactString::default(),
            helo: (&*request.helo_name).into(),
            sender: (&*request.sender).into(),
            answers: HashMap::new(),
            settled: false,
        }
    }
}

impl Session {
    fn of(request: &Request<'_>, gate: Arc<Gate>) -> Self {
        let (address, port) = (request.client_address, request.client_port);
        Self { address, port, user: !request.sasl_username.is_empty(), gate }
    }

    /// Whether the client waits until its address is known.
    fn defers(&self) -> bool {
        self.address.is_none() && !self.user && self.gate.defers_unknown()
    }

    /// Whether this is the same session. Without a port it can't be known.
    fn goes_on(&self, before: &Self) -> bool {
        self.port != 0
            && (self.address, self.port, self.user) == (before.address, before.port, before.user)
            && Arc::ptr_eq(&self.gate, &before.gate)
    }
}

impl Instance {
    fn is_of(&self, request: &Request<'_>) -> bool {
        let is_named = self.name == request.instance || self.name.is_empty();
        let Session { address: known, port, user, .. } = self.session;
        is_named
            && (self.helo.as_str(), self.sender.as_str()) == (&*request.helo_name, &*request.sender)
            && (known, port, user)
                == (request.client_address, request.client_port, !request.sasl_username.is_empty())
    }

    /// The verdict at MAIL: not greylisting, which needs the recipient.
    async fn sender(&mut self) -> Option<Reply> {
        if self.session.defers() {
            return None; // at the recipient, which may be exempt
        }
        self.transaction.mail(&mut self.client).await.err()
    }

    /// The verdict for one recipient, the same each time.
    async fn recipient(&mut self, request: &Request<'_>) -> Option<Reply> {
        if let Some(answer) = self.answers.get(&*request.recipient) {
            return answer.clone();
        }
        let path = request
            .forward_path()
            .unwrap_or_else(|_error| ForwardPath::NoDomain((&*request.recipient).into()));
        let answer = if self.session.defers() && !self.session.gate.exempts_recipient(&path) {
            let rcpt = path.to_string();
            Some(self.transaction.refuse_with(Reason::DnsError, unknown_client(), Some(&rcpt)))
        } else {
            match self.transaction.rcpt(&mut self.client, &path).await {
                Ok(permit) => {
                    self.transaction.accepted(permit, path);
                    None
                }
                Err(reply) => Some(reply),
            }
        };
        if self.answers.len() < MOST_RECIPIENTS {
            self.answers.insert((&*request.recipient).into(), answer.clone());
        }
        answer
    }
}

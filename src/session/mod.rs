//! The SMTP dialogue (RFC 5321 4.1, 4.3), pure: one event in, one effect out.
//!
//! The session knows the order of commands and the replies to them. It has no clock, socket or resolver: where it needs
//! an outside result (the verdict on the sender, the relay's reply to the recipient or the message), it returns an
//! [`Effect`], and the outcome of that effect is the next [`Event`]. Session and transaction are separate values; a
//! transaction ends when it is dropped.

mod event;
mod refusal;
mod replies;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use compact_str::CompactString;

pub use crate::session::event::{Effect, Event};
pub use crate::session::refusal::{Refusal, Refused};

use crate::policy::reason::Reason;
use crate::smtp::address::{DomainName, ForwardPath, ReversePath};
use crate::smtp::command::{Command, CommandError, MailParameters, RcptParameters};
use crate::smtp::not_smtp::is_foreign;
use crate::smtp::reply::Reply;
use crate::smtp::xclient::Xclient;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// For the banner and the reply to EHLO.
    pub hostname: DomainName,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Errors before 421.
    pub errors: usize,
    /// Commands without mail in between before 421.
    pub junk_commands: usize,
}

/// The extensions that EHLO offers only where the next hop has them, too, or the client may use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Largest message in octets: the smaller of ours and the relay's.
    pub size: u64,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// XCLIENT: this client is a trusted gateway.
    pub xclient: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207); after it, it is offered no more.
    pub starttls: bool,
}

/// Most recipients that a client may have pipelined behind a refused MAIL (RFC 5321 4.5.3.1.8), unless
/// `limits.recipients` is more.
const PIPELINED_RECIPIENTS: usize = 100;

/// The client's HELO or EHLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helo {
    /// As the client sent it: printable, without white space.
    pub argument: CompactString,
    /// EHLO, not HELO.
    pub extended: bool,
}

/// One SMTP session.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    offer: Offer,
    helo: Option<Helo>,
    /// The client's own greeting from XCLIENT; it replaces the gateway's.
    announced: Announced,
    transaction: Option<Transaction>,
    secured: bool,
    /// Of the MAIL whose reply is awaited.
    smtputf8: bool,
    /// Commands out of order that don't count as errors: a pipelining client sent them behind a MAIL or RCPT that was
    /// refused (RFC 2920 3.1).
    excused: usize,
    errors: usize,
    /// Commands since a recipient or a message was last accepted.
    junk: usize,
}

/// The greeting of the client behind a gateway.
#[derive(Debug, Default)]
struct Announced {
    helo: Option<CompactString>,
    extended: Option<bool>,
}

/// One mail transaction (RFC 5321 3.3), open since its sender was accepted.
#[derive(Debug)]
struct Transaction {
    accepted: usize,
    smtputf8: bool,
    chunks: Chunks,
}

/// The state of a message in chunks (RFC 3030 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunks {
    None,
    /// Some were accepted; recipients and DATA are out of order.
    Open {
        /// The current chunk is the last.
        last: bool,
    },
    /// One was refused; the next valid command is RSET, EHLO or QUIT.
    Failed,
}

impl Session {
    /// A session before its banner.
    #[must_use]
    pub fn new(settings: Arc<Settings>, offer: Offer) -> Self {
        Self {
            settings,
            offer,
            helo: None,
            announced: Announced::default(),
            transaction: None,
            secured: false,
            smtputf8: false,
            excused: 0,
            errors: 0,
            junk: 0,
        }
    }

    /// The banner (RFC 5321 4.2).
    #[must_use]
    pub fn greeting(&self) -> Reply {
        Reply::plain(220, format!("{} ESMTP rmxd", self.settings.hostname))
    }

    /// The last HELO or EHLO.
    #[must_use]
    pub fn helo(&self) -> Option<&Helo> {
        self.helo.as_ref()
    }

    pub fn step(&mut self, event: Event<'_>) -> Effect {
        match event {
            Event::Line(line) => self.command(line),
            Event::LineTooLong => self.mistake(replies::line_too_long()),
            Event::Fault(fault) => Effect::Refuse(Refusal::of_fault(fault)),
            Event::MessageBroken(reply) => Effect::Close(reply),
            Event::SenderAnswered(reply) => {
                if reply.is_positive() {
                    let smtputf8 = self.smtputf8;
                    self.transaction = Some(Transaction { accepted: 0, smtputf8, chunks: Chunks::None });
                    self.excused = 0;
                    return Effect::Reply(reply);
                }
                self.refuse(reply)
            }
            Event::RecipientAnswered(reply) => match &mut self.transaction {
                Some(transaction) if reply.is_positive() => {
                    transaction.accepted += 1;
                    self.junk = 0;
                    Effect::Reply(reply)
                }
                _ => self.refuse(reply),
            },
            Event::MessageAnswered(reply) => {
                self.message_answered(&reply);
                self.transaction = None;
                Effect::Reply(reply)
            }
            Event::ClientAnnounced { xclient } => {
                self.junk = 0; // the session belongs to another client now
                self.offer.xclient = xclient;
                Effect::Reply(self.greeting())
            }
            Event::SpokeEarly => Effect::Close(replies::spoke_early()),
            Event::TlsStarted => self.secured(),
            Event::PlainTextBehindStartTls => Effect::Close(replies::plain_text_behind_starttls()),
            Event::TlsUnavailable => Effect::Reply(replies::tls_unavailable()),
            Event::ChunkAnswered(reply) => self.chunk_answered(reply),
            Event::TimedOut => Effect::Close(replies::timed_out(&self.settings.hostname)),
            Event::TooSlow => Effect::Refuse(Refusal::too_slow(&self.settings.hostname)),
            Event::ShuttingDown => Effect::Close(replies::shutting_down(&self.settings.hostname)),
        }
    }

    fn command(&mut self, line: &[u8]) -> Effect {
        if is_foreign(line) {
            return Effect::Close(replies::not_smtp());
        }
        let command = Command::parse(line);
        if command.as_ref().is_ok_and(is_junk) && self.is_too_much_junk() {
            return Effect::Close(replies::too_many_commands(&self.settings.hostname));
        }
        match command {
            Ok(Command::Helo(argument)) => self.greet(Helo { argument, extended: false }),
            Ok(Command::Ehlo(argument)) => self.greet(Helo { argument, extended: true }),
            Ok(Command::Mail(path, parameters)) => self.mail(line, path, parameters),
            Ok(Command::Rcpt(path, parameters)) => self.recipient(line, path, parameters),
            Ok(Command::Data) => self.data(),
            Ok(Command::Bdat { octets, last }) => self.chunk(octets, last),
            Ok(Command::Rset) => {
                self.transaction = None;
                Effect::Reset(replies::ok())
            }
            Ok(Command::Noop) => Effect::Reply(replies::ok()),
            Ok(Command::Quit) => Effect::Close(replies::bye(&self.settings.hostname)),
            Ok(Command::Vrfy) => Effect::Reply(replies::no_verify()),
            Ok(Command::Xclient(arguments)) => self.xclient(&arguments),
            Ok(Command::Help) => Effect::Reply(replies::help()),
            Ok(Command::StartTls) => self.start_tls(),
            Err(CommandError::ChunkSize) => Effect::Close(replies::bad_command(&CommandError::ChunkSize)),
            Err(error @ (CommandError::Unknown | CommandError::NotImplemented)) => {
                self.error(replies::bad_command(&error))
            }
            Err(error) => {
                let reason = refusal::reason(&error, &Refused::by(line));
                let effect = self.mistake(replies::bad_command(&error));
                match reason {
                    Some(reason) => recorded(effect, reason, line),
                    None => effect,
                }
            }
        }
    }

    /// As Postfix's `smtpd_junk_command_limit`, except for the reply, and that an accepted recipient resets the count:
    /// the session timeout limits a client that sends RCPT alone.
    fn is_too_much_junk(&mut self) -> bool {
        self.junk += 1;
        self.junk > self.settings.junk_commands
    }

    fn message_answered(&mut self, reply: &Reply) {
        if reply.is_positive() {
            self.junk = 0;
        }
    }

    /// EHLO resets like RSET (RFC 5321 4.1.4).
    fn greet(&mut self, helo: Helo) -> Effect {
        let reply = if helo.extended {
            replies::extended_hello(&self.settings.hostname, self.offer)
        } else {
            Reply::plain(250, self.settings.hostname.to_string())
        };
        self.helo = Some(Helo {
            argument: self.announced.helo.clone().unwrap_or(helo.argument),
            extended: self.announced.extended.unwrap_or(helo.extended),
        });
        self.transaction = None;
        Effect::Helo(reply)
    }

    /// The session returns to its state at the banner, for the announced client (XCLIENT_README).
    fn xclient(&mut self, arguments: &str) -> Effect {
        if !self.offer.xclient {
            return self.error(replies::bad_command(&CommandError::NotImplemented));
        }
        if self.transaction.is_some() {
            return self.error(replies::out_of_order("a transaction is open"));
        }
        match Xclient::parse(arguments) {
            Err(error) => self.error(replies::bad_xclient(&error)),
            Ok(announced) => {
                self.helo = None;
                self.announced.helo = announced.helo.clone().or(self.announced.helo.take());
                self.announced.extended = announced.extended.or(self.announced.extended);
                Effect::Client(announced)
            }
        }
    }

    fn mail(&mut self, line: &[u8], path: ReversePath, parameters: MailParameters) -> Effect {
        if self.helo.is_none() {
            return self.mistake(replies::out_of_order("send HELO or EHLO first"));
        }
        if self.transaction.is_some() {
            return self.error(replies::out_of_order("a transaction is open already"));
        }
        let not_offered = [
            ("BODY", parameters.body.is_some() && !self.offer.eight_bit_mime),
            ("SMTPUTF8", parameters.smtputf8 && !self.offer.smtputf8),
            ("RET", parameters.ret.is_some() && !self.offer.dsn),
            ("ENVID", parameters.envid.is_some() && !self.offer.dsn),
        ];
        if let Some((name, _)) = not_offered.into_iter().find(|(_, missing)| *missing) {
            let effect = self.mistake(replies::parameter_not_offered(name));
            return recorded(effect, Reason::BadParameter, line);
        }
        if parameters.size.is_some_and(|size| size > self.offer.size) {
            let effect = self.refuse(replies::too_big(self.offer.size));
            return recorded(effect, Reason::TooBig, line);
        }
        self.smtputf8 = parameters.smtputf8;
        Effect::Sender(path, parameters)
    }

    fn recipient(&mut self, line: &[u8], path: ForwardPath, parameters: RcptParameters) -> Effect {
        match &self.transaction {
            None => self.out_of_order(replies::out_of_order("send MAIL FROM first")),
            Some(transaction) if transaction.chunks != Chunks::None => {
                self.error(replies::out_of_order("the message has begun"))
            }
            Some(transaction) if transaction.accepted >= self.settings.recipients => {
                let effect = self.refuse(replies::too_many_recipients());
                recorded(effect, Reason::TooManyRecipients, line)
            }
            Some(transaction) if parameters.utf8 && !transaction.smtputf8 => {
                recorded(self.mistake(replies::not_ascii()), Reason::BadAddress, line)
            }
            Some(_) if parameters.asks_dsn() && !self.offer.dsn => {
                let effect = self.mistake(replies::parameter_not_offered("NOTIFY"));
                recorded(effect, Reason::BadParameter, line)
            }
            Some(_) => Effect::Recipient(path, parameters),
        }
    }

    fn data(&mut self) -> Effect {
        match &self.transaction {
            None => self.out_of_order(replies::out_of_order("send MAIL FROM and RCPT TO first")),
            Some(transaction) if transaction.chunks != Chunks::None => {
                self.error(replies::out_of_order("the message came in chunks"))
            }
            Some(transaction) if transaction.accepted == 0 => {
                refused(self.out_of_order(replies::no_recipients()), None, Refused::Other)
            }
            Some(_) => Effect::Message,
        }
    }

    fn start_tls(&mut self) -> Effect {
        if self.secured {
            return self.error(replies::out_of_order("TLS is in use already"));
        }
        if !self.offer.starttls {
            return self.error(replies::bad_command(&CommandError::NotImplemented));
        }
        if !self.helo.as_ref().is_some_and(|helo| helo.extended) {
            return self.error(replies::out_of_order("send EHLO first"));
        }
        Effect::StartTls(replies::ready_for_tls())
    }

    /// RFC 3207 4.2: the state from before the handshake is dropped, since anyone on the path may have sent it.
    fn secured(&mut self) -> Effect {
        self.helo = None;
        self.transaction = None;
        self.announced = Announced::default();
        self.excused = 0;
        self.offer.starttls = false;
        self.secured = true;
        Effect::Listen
    }

    /// The octets of a chunk follow whatever the reply is.
    fn chunk(&mut self, octets: u64, last: bool) -> Effect {
        let refusal = match &mut self.transaction {
            None => replies::out_of_order("send MAIL FROM and RCPT TO first"),
            Some(Transaction { chunks: Chunks::Failed, .. }) => {
                replies::out_of_order("an earlier chunk was refused")
            }
            Some(Transaction { accepted: 0, .. }) => replies::no_recipients(),
            Some(transaction) => {
                transaction.chunks = Chunks::Open { last };
                return Effect::Chunk { octets, last };
            }
        };
        match self.out_of_order(refusal) {
            Effect::Reply(reply) => Effect::Discard { octets, reply },
            other => other,
        }
    }

    fn chunk_answered(&mut self, reply: Reply) -> Effect {
        self.message_answered(&reply);
        match &mut self.transaction {
            Some(transaction) if transaction.chunks == (Chunks::Open { last: false }) => {
                if !reply.is_positive() {
                    transaction.chunks = Chunks::Failed;
                }
            }
            _ => self.transaction = None,
        }
        Effect::Reply(reply)
    }

    /// Refused mail is no protocol error, nor are the recipients and the DATA that may follow it.
    fn refuse(&mut self, reply: Reply) -> Effect {
        self.excused = self.settings.recipients.max(PIPELINED_RECIPIENTS) + 1;
        Effect::Reply(reply)
    }

    /// A command that can't be carried out is an error; the commands that the client pipelined behind it aren't.
    fn mistake(&mut self, reply: Reply) -> Effect {
        let is_within = self.transaction.as_ref().is_some_and(|transaction| transaction.accepted > 0);
        match self.error(reply) {
            Effect::Reply(reply) if !is_within => self.refuse(reply),
            other => other,
        }
    }

    /// An error, unless a refusal of ours led to it.
    fn out_of_order(&mut self, reply: Reply) -> Effect {
        match self.excused.checked_sub(1) {
            Some(left) => {
                self.excused = left;
                Effect::Reply(reply)
            }
            None => self.error(reply),
        }
    }

    /// Ends the session after too many protocol errors (RFC 5321 3.8); refused mail doesn't count.
    fn error(&mut self, reply: Reply) -> Effect {
        self.errors += 1;
        if self.errors > self.settings.errors {
            return Effect::Close(replies::too_many_errors(&self.settings.hostname));
        }
        Effect::Reply(reply)
    }
}

/// Commands that don't advance a transaction. Invalid commands count as errors instead.
fn is_junk(command: &Command) -> bool {
    match command {
        Command::Helo(_) | Command::Ehlo(_) | Command::Rset | Command::Noop => true,
        Command::Vrfy | Command::Help | Command::StartTls => true,
        Command::Mail(..) | Command::Rcpt(..) | Command::Data | Command::Bdat { .. } => false,
        Command::Quit | Command::Xclient(_) => false,
    }
}

/// The same reply, as a recorded refusal. The end of a session for its errors isn't recorded.
fn recorded(effect: Effect, reason: Reason, line: &[u8]) -> Effect {
    refused(effect, Some(reason), Refused::by(line))
}

fn refused(effect: Effect, reason: Option<Reason>, refused: Refused) -> Effect {
    match effect {
        Effect::Reply(reply) => Effect::Refuse(Refusal { reason, reply, refused, closes: false }),
        other => other,
    }
}

//! A whole session: what a client sends, in any cut, against the dialogue with a script for what it can't know.
//!
//! Input: an octet of settings, one for the cuts, six for the outcomes of effects, then what the client sends. The
//! driver here does what the door does, with vectors for sockets, and keeps a second account of what is allowed.

use std::sync::Arc;

use rmxd::session::{Effect, Event, Offer, Refusal, Session, Settings};
use rmxd::smtp::address::DomainName;
use rmxd::smtp::chunk::ChunkEncoder;
use rmxd::smtp::framing::{BareNewline, CommandReader, CommandStep, DataEvent, DataReader, Fault};
use rmxd::smtp::reply::{Enhanced, Reply};

use super::wire::{assert_message, reply_codes, splits};

const LINE: usize = 512;
const RECIPIENTS: usize = 3;
const ERRORS: usize = 5;
const SIZE: u64 = 5000;
/// What a client may have sent behind a refusal: a hundred recipients and DATA.
const PIPELINED: usize = 101;
/// Answers to what was pipelined behind a refusal.
const BEHIND_A_REFUSAL: [&str; 4] = [
    "send MAIL FROM first",
    "send MAIL FROM and RCPT TO first",
    "no valid recipients",
    "an earlier chunk was refused",
];

pub fn check(input: &[u8]) {
    let Some(([settings, seed, outcomes @ ..], octets)) = input.split_first_chunk::<8>() else { return };
    let runs = splits(octets, *seed).map(|pieces| {
        let mut connection = Connection::new(*settings, outcomes);
        for piece in pieces {
            connection.receive(piece);
        }
        connection.assert_answered();
        connection.seen
    });
    assert_eq!(runs[0], runs[1], "octet by octet");
    assert_eq!(runs[0], runs[2], "cut");
}

/// What can be seen from outside.
#[derive(Debug, PartialEq, Eq, Default)]
struct Seen {
    /// What the client reads.
    output: Vec<u8>,
    /// What was asked of gate and relay.
    effects: Vec<String>,
    /// What the relay took, as the octets between DATA and the final dot.
    messages: Vec<Vec<u8>>,
    closed: bool,
}

/// What the octets that come next are.
enum Place {
    Commands,
    Data { reader: DataReader, content: Vec<u8> },
    Chunk { left: u64, last: bool },
    Discard { left: u64, reply: Reply },
}

/// What the dialogue is allowed, by its own reading of the rules.
#[derive(Default)]
struct Allowed {
    greeted: bool,
    secured: bool,
    /// A sender was accepted, and so many recipients.
    open: Option<usize>,
    /// So many commands out of order are no errors: the client had sent them before it knew of a refusal.
    excused: usize,
    chunk_refused: bool,
    errors: usize,
}

struct Connection {
    session: Session,
    offer: Offer,
    reader: CommandReader,
    mode: BareNewline,
    outcomes: Vec<u8>,
    buffer: Vec<u8>,
    place: Place,
    /// The message as far as it came, where it comes in chunks.
    chunked: Option<(ChunkEncoder, Vec<u8>)>,
    allowed: Allowed,
    /// The last command is XCLIENT.
    is_xclient: bool,
    /// Replies that the client is owed for what it has sent.
    owed: usize,
    seen: Seen,
}

impl Connection {
    fn new(settings: u8, outcomes: &[u8]) -> Self {
        let mode = if settings & 1 == 0 { BareNewline::Reject } else { BareNewline::Normalize };
        let offer = Offer {
            size: SIZE,
            eight_bit_mime: settings & 2 == 0,
            smtputf8: settings & 4 == 0,
            dsn: settings & 8 == 0,
            starttls: settings & 16 == 0,
            xclient: settings & 32 != 0,
        };
        let hostname = DomainName::parse("gate.test").unwrap();
        let session = Session::new(
            Arc::new(Settings {
                hostname,
                recipients: RECIPIENTS,
                errors: ERRORS,
                junk_commands: usize::MAX,
            }),
            offer,
        );
        let mut seen = Seen::default();
        session.greeting().write_to(&mut seen.output);
        Self {
            session,
            offer,
            reader: CommandReader::new(LINE, mode),
            mode,
            outcomes: outcomes.to_vec(),
            buffer: Vec::new(),
            place: Place::Commands,
            chunked: None,
            allowed: Allowed::default(),
            is_xclient: false,
            owed: 1,
            seen,
        }
    }

    fn receive(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
        while !self.seen.closed && self.step() {}
        if !self.seen.closed {
            assert!(self.buffer.len() <= LINE, "{} octets are held", self.buffer.len());
        }
    }

    /// Works on the front of the buffer; false when more is needed.
    fn step(&mut self) -> bool {
        match std::mem::replace(&mut self.place, Place::Commands) {
            Place::Commands => self.command(),
            Place::Data { reader, content } => self.data(reader, content),
            Place::Chunk { left, last } => self.chunk(left, last),
            Place::Discard { left, reply } => {
                let taken = self.take_up_to(left).len() as u64;
                if taken < left {
                    self.place = Place::Discard { left: left - taken, reply };
                    return false;
                }
                self.answer(&reply);
                true
            }
        }
    }

    fn command(&mut self) -> bool {
        match self.reader.next(&self.buffer) {
            CommandStep::Line { length, consumed } => {
                let taken: Vec<u8> = self.buffer.drain(..consumed).collect();
                self.owed += 1;
                let line = &taken[..length];
                self.is_xclient = line.trim_ascii().to_ascii_uppercase().starts_with(b"XCLIENT");
                let effect = self.session.step(Event::Line(line));
                self.carry_out(effect);
                true
            }
            CommandStep::TooLong { consumed } => {
                self.buffer.drain(..consumed);
                self.owed += 1;
                self.is_xclient = false;
                let effect = self.session.step(Event::LineTooLong);
                self.carry_out(effect);
                true
            }
            CommandStep::More { discard } => {
                self.buffer.drain(..discard);
                false
            }
            CommandStep::Fault(fault) => {
                self.owed += 1;
                self.fault(fault)
            }
        }
    }

    fn data(&mut self, mut reader: DataReader, mut content: Vec<u8>) -> bool {
        let step = reader.next(&self.buffer);
        content.extend_from_slice(&self.buffer[..step.content]);
        content.extend_from_slice(step.insert);
        self.buffer.drain(..step.consumed);
        match step.event {
            DataEvent::Again | DataEvent::More => {
                self.place = Place::Data { reader, content };
                step.event == DataEvent::Again
            }
            DataEvent::Fault(fault) => self.fault(fault),
            DataEvent::End => {
                let reply = self.message_taken(content);
                self.answered(Event::MessageAnswered(reply.clone()), &reply);
                true
            }
        }
    }

    fn chunk(&mut self, left: u64, last: bool) -> bool {
        let octets = self.take_up_to(left);
        let (encoder, content) = self.chunked.as_mut().expect("a chunk without a message");
        if let Err(fault) = encoder.push(&octets, content) {
            return self.fault(fault);
        }
        let left = left - octets.len() as u64;
        if left > 0 {
            self.place = Place::Chunk { left, last };
            return false;
        }
        let reply = if last {
            if let Err(fault) = encoder.finish(content) {
                return self.fault(fault);
            }
            let content = std::mem::take(content);
            self.message_taken(content)
        } else {
            let reply = self.outcome();
            self.allowed.chunk_refused |= !reply.is_positive();
            reply
        };
        self.answered(Event::ChunkAnswered(reply.clone()), &reply);
        true
    }

    /// The message went to the relay, which answers; the transaction is over.
    fn message_taken(&mut self, content: Vec<u8>) -> Reply {
        assert_message(&content);
        self.seen.messages.push(content);
        self.end_transaction();
        self.outcome()
    }

    /// The answer takes the place of the one that the client waits for, be it in the middle of a message.
    fn fault(&mut self, fault: Fault) -> bool {
        let effect = self.session.step(Event::Fault(fault));
        let closes = |refusal: &Refusal| refusal.closes && refusal.reply.code() == 521;
        assert!(matches!(&effect, Effect::Refuse(refusal) if closes(refusal)), "{effect:?}");
        self.carry_out(effect);
        false
    }

    fn take_up_to(&mut self, octets: u64) -> Vec<u8> {
        let length = usize::try_from(octets).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.drain(..length).collect()
    }

    /// What a line led to.
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(reply) => {
                self.count_error(&reply);
                self.answer(&reply);
            }
            Effect::Helo(reply) => {
                self.allowed.greeted = true;
                self.end_transaction();
                self.answer(&reply);
            }
            Effect::Reset(reply) => {
                self.end_transaction();
                self.answer(&reply);
            }
            Effect::Close(reply) => {
                if reply.text().ends_with("too many errors, closing connection") {
                    assert_eq!(self.allowed.errors, ERRORS, "closed for its errors");
                }
                self.answer(&reply);
                self.seen.closed = true;
            }
            Effect::Refuse(refusal) => {
                assert!(!refusal.reply.is_positive(), "{refusal:?}");
                if !refusal.closes {
                    self.count_error(&refusal.reply);
                }
                self.answer(&refusal.reply);
                self.seen.closed |= refusal.closes;
            }
            Effect::Sender(path, parameters) => {
                assert!(self.allowed.greeted && self.allowed.open.is_none(), "a sender out of order");
                assert!(parameters.size.is_none_or(|size| size <= SIZE), "{parameters:?}");
                assert!(self.offer.eight_bit_mime || parameters.body.is_none(), "{parameters:?}");
                assert!(self.offer.smtputf8 || !parameters.smtputf8, "{parameters:?}");
                assert!(
                    self.offer.dsn || parameters.ret.is_none() && parameters.envid.is_none(),
                    "{parameters:?}"
                );
                self.seen.effects.push(format!("sender <{path}> {parameters:?}"));
                let reply = self.outcome();
                self.allowed.excused = if reply.is_positive() { 0 } else { PIPELINED };
                if reply.is_positive() {
                    self.allowed.open = Some(0);
                }
                self.answered(Event::SenderAnswered(reply.clone()), &reply);
            }
            Effect::Recipient(path, parameters) => {
                let accepted = self.allowed.open.expect("a recipient without a sender");
                assert!(accepted < RECIPIENTS && self.chunked.is_none(), "a recipient out of order");
                assert!(self.offer.dsn || !parameters.asks_dsn(), "{parameters:?}");
                assert!(self.offer.smtputf8 || !parameters.utf8, "{parameters:?}");
                self.seen.effects.push(format!("recipient <{path}> {parameters:?}"));
                let reply = self.outcome();
                if !reply.is_positive() {
                    self.allowed.excused = PIPELINED;
                }
                self.allowed.open = Some(accepted + usize::from(reply.is_positive()));
                self.answered(Event::RecipientAnswered(reply.clone()), &reply);
            }
            Effect::Message => {
                self.assert_has_recipient();
                assert!(self.chunked.is_none(), "DATA within a message in chunks");
                self.answer(&Reply::plain(354, "go ahead"));
                self.owed += 1;
                self.place = Place::Data { reader: DataReader::new(self.mode), content: Vec::new() };
            }
            Effect::StartTls(reply) => self.start_tls(&reply),
            Effect::Client(announced) => {
                assert!(self.offer.xclient && self.allowed.open.is_none(), "XCLIENT out of order");
                self.seen.effects.push(format!("{announced:?}"));
                self.offer.xclient = self.outcome().is_positive();
                self.allowed.greeted = false;
                let effect = self.session.step(Event::ClientAnnounced { xclient: self.offer.xclient });
                assert_eq!(effect, Effect::Reply(self.session.greeting()));
                self.carry_out(effect);
            }
            Effect::Listen => panic!("nothing was answered"),
            Effect::Chunk { octets, last } => {
                self.assert_has_recipient();
                assert!(!self.allowed.chunk_refused, "a chunk behind one that was refused");
                let mode = self.mode;
                self.chunked.get_or_insert_with(|| (ChunkEncoder::new(mode), Vec::new()));
                self.place = Place::Chunk { left: octets, last };
            }
            Effect::Discard { octets, reply } => {
                self.count_error(&reply);
                self.place = Place::Discard { left: octets, reply };
            }
        }
    }

    /// A handshake by the script, behind which the octets are the client's own again.
    fn start_tls(&mut self, reply: &Reply) {
        assert!(self.offer.starttls && self.allowed.greeted && !self.allowed.secured, "TLS out of order");
        self.seen.effects.push("TLS".to_owned());
        match self.outcome().code() {
            250 => {
                self.answer(reply);
                assert_eq!(self.session.step(Event::TlsStarted), Effect::Listen);
                self.end_transaction();
                let errors = self.allowed.errors;
                self.allowed = Allowed { secured: true, errors, ..Allowed::default() };
            }
            450 => {
                let effect = self.session.step(Event::TlsUnavailable);
                assert!(matches!(&effect, Effect::Reply(reply) if reply.code() == 454), "{effect:?}");
                self.carry_out(effect);
            }
            _ => {
                let effect = self.session.step(Event::PlainTextBehindStartTls);
                assert!(matches!(effect, Effect::Close(_)), "{effect:?}");
                self.carry_out(effect);
            }
        }
    }

    fn assert_has_recipient(&self) {
        assert!(self.allowed.open.is_some_and(|accepted| accepted > 0), "a message without a recipient");
    }

    /// What the gate or the relay said becomes the client's answer, word for word.
    fn answered(&mut self, event: Event<'_>, reply: &Reply) {
        assert_eq!(self.session.step(event), Effect::Reply(reply.clone()));
        self.answer(reply);
    }

    /// Errors of protocol are the replies that the dialogue gives by itself; what is too big or too much is none.
    fn count_error(&mut self, reply: &Reply) {
        match (reply.code(), reply.text()) {
            (200..=399 | 454, _) => {}
            (452 | 552, _) => self.allowed.excused = PIPELINED,
            (503 | 554, text) if BEHIND_A_REFUSAL.contains(&text) && self.allowed.excused > 0 => {
                self.allowed.excused -= 1;
            }
            (code, text) => {
                self.allowed.errors += 1;
                assert!(self.allowed.errors <= ERRORS, "{} errors", self.allowed.errors);
                // What stands behind a command that can't be carried out may have been sent before its answer came. Behind an
                // unknown verb, a command out of order or a bad XCLIENT nothing of a transaction can follow.
                let is_mistake = match code {
                    500 => text == "line too long",
                    501 => !self.is_xclient || reply.enhanced() == Some(Enhanced(5, 5, 2)),
                    503 => text == "send HELO or EHLO first",
                    553 | 555 => true,
                    _ => false,
                };
                if is_mistake && self.allowed.open.is_none_or(|accepted| accepted == 0) {
                    self.allowed.excused = PIPELINED;
                }
            }
        }
    }

    fn end_transaction(&mut self) {
        self.allowed.open = None;
        self.allowed.chunk_refused = false;
        self.chunked = None;
    }

    fn answer(&mut self, reply: &Reply) {
        assert!(!self.seen.closed);
        reply.write_to(&mut self.seen.output);
    }

    /// What gate or relay say, by the script.
    fn outcome(&mut self) -> Reply {
        self.outcomes.rotate_left(1);
        match self.outcomes.last().copied().unwrap_or_default() % 8 {
            6 => Reply::new(450, Enhanced(4, 2, 0), "later\nor never"),
            7 => Reply::plain(550, "no\r\n250 yes\0"),
            _ => Reply::new(250, Enhanced(2, 0, 0), "ok"),
        }
    }

    /// One reply for each command, two for DATA, and one for the connection; none for what has not come to its end.
    fn assert_answered(&self) {
        let under_way = !self.seen.closed && !matches!(self.place, Place::Commands);
        let codes = reply_codes(&self.seen.output);
        assert_eq!(codes.len(), self.owed - usize::from(under_way), "{}", self.seen.output.escape_ascii());
        assert_eq!(codes.first(), Some(&220));
    }
}

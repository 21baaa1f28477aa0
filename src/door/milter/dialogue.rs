//! The events of one session, carried out on a transaction of the gate.

use compact_str::CompactString;

use crate::door::iprev::iprev;
use crate::door::milter::client::SmtpClient;
use crate::door::milter::{MilterDoor, Results, edits};
use crate::door::unknown_client;
use crate::gate::{self, Transaction};
use crate::message::authentication_results::authentication_results;
use crate::message::forged_results::{OwnResults, own_results};
use crate::milter::{Answer, Client, Event, Header, Macros, Path, Terms, TooOld, Wants};
use crate::policy::reason::Reason;
use crate::policy::rule::RejectAt;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::reply::Reply;

/// Longest address that isn't one, as it is kept for log and reply, in octets.
const MOST_OF_A_BAD_ADDRESS: usize = 256;

/// Forged results times lines of the header: the mail server looks through the header for each deletion. Three seconds of
/// Postfix's time are a hundred million.
const MOST_STEPS: usize = 4_000_000;

pub(super) struct Dialogue {
    door: MilterDoor,
    /// What was negotiated.
    terms: Option<Terms>,
    client: Option<SmtpClient>,
    /// The argument of HELO.
    helo: CompactString,
    /// Of the MAIL that follows: the client has logged in.
    logged_in: bool,
    /// The id of the message at the mail server.
    queue: String,
    stage: Stage,
}

/// Where the session is.
enum Stage {
    /// Between two transactions.
    Between,
    Open(Box<Open>),
    /// The transaction is over; whatever still comes of it has this answer.
    Over(Verdict),
}

/// A transaction that is not refused as a whole.
struct Open {
    transaction: Transaction,
    logged_in: bool,
    /// No recipient but an exempt one can pass, as nothing is known of the client.
    unknown: bool,
    header: Block,
}

enum Block {
    Coming(Vec<u8>),
    TooBig,
    /// It passed, with these results in our name.
    Judged(Vec<OwnResults>),
}

#[derive(Debug, Clone)]
enum Verdict {
    Continue,
    Refuse(Reply),
    /// Our own trouble, or events in an order that makes no sense.
    Trouble,
}

/// What follows an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Event,
    /// The session is over.
    End,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OutOfOrder {
    #[error(transparent)]
    TooOld(#[from] TooOld),
    #[error("an event before the negotiation")]
    NotNegotiated,
}

impl Dialogue {
    pub(super) fn new(door: MilterDoor) -> Self {
        let (helo, queue) = (CompactString::default(), String::new());
        Self { door, terms: None, client: None, helo, logged_in: false, queue, stage: Stage::Between }
    }

    /// Whether a transaction is open.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Between)
    }

    /// Carries out an event, and appends what it is answered.
    pub(super) async fn take(
        &mut self,
        event: &Event<'_>,
        answers: &mut Vec<u8>,
    ) -> Result<Next, OutOfOrder> {
        if let Event::Negotiate(offer) = event {
            let terms = offer.agree(Wants { body: self.door.needs_body() })?;
            terms.write_to(answers);
            self.terms = Some(terms);
            return Ok(Next::Event);
        }
        let terms = self.terms.ok_or(OutOfOrder::NotNegotiated)?;
        let verdict = match event {
            Event::Negotiate(_) | Event::Data | Event::Unknown(_) => self.over().unwrap_or(Verdict::Continue),
            Event::Macros(macros) => self.macros(macros),
            Event::Connect { client, .. } => self.connect(*client),
            Event::Helo(argument) => self.helo(argument),
            Event::Mail(path) => self.mail(path).await,
            Event::Rcpt(path) => self.rcpt(path).await,
            Event::Header(header) => self.header(header, &terms),
            Event::EndOfHeader => self.end_of_header().await,
            Event::Body(octets) => self.body(octets),
            Event::EndOfMessage(octets) => self.end_of_message(octets, &terms, answers).await,
            Event::Abort => self.abort(),
            Event::Quit => return Ok(Next::End),
            Event::QuitNewConnection => {
                self.client = None;
                self.helo = CompactString::default();
                self.abort()
            }
        };
        if event.expects_answer(&terms) {
            write(&verdict, &terms, answers);
        }
        Ok(Next::Event)
    }

    /// An event was not carried out to its end: the transaction is given up, with a temporary failure to all that comes of
    /// it.
    pub(super) fn fail(&mut self, event: &Event<'_>, answers: &mut Vec<u8>) {
        self.stage = Stage::Over(Verdict::Trouble);
        if let Some(terms) = self.terms.filter(|terms| event.expects_answer(terms)) {
            write(&Verdict::Trouble, &terms, answers);
        }
    }

    fn over(&self) -> Option<Verdict> {
        match &self.stage {
            Stage::Over(verdict) => Some(verdict.clone()),
            Stage::Between | Stage::Open(_) => None,
        }
    }

    fn macros(&mut self, macros: &Macros<'_>) -> Verdict {
        let text = |name| macros.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        if macros.is_for_mail() {
            self.logged_in = text("auth_authen").is_some_and(|user| !user.is_empty());
            self.queue.clear();
        }
        if let (Some(version), Some(client)) = (text("tls_version"), &mut self.client) {
            client.gate.set_tls(&version);
        }
        if let Some(queue) = text("i") {
            if let Stage::Open(open) = &mut self.stage {
                open.transaction.set_queue(&queue);
            }
            self.queue = queue;
        }
        Verdict::Continue
    }

    fn connect(&mut self, client: Client) -> Verdict {
        self.stage = Stage::Between;
        self.helo = CompactString::default();
        self.client = Some(SmtpClient::new(&self.door, client));
        Verdict::Continue
    }

    fn helo(&mut self, argument: &[u8]) -> Verdict {
        self.helo = Event::helo_argument(argument);
        if let Some(SmtpClient { gate, user, .. }) = &mut self.client {
            gate.helo(&self.helo);
            if let Some(user) = user {
                user.helo(&self.helo);
            }
        }
        Verdict::Continue
    }

    async fn mail(&mut self, path: &Path<'_>) -> Verdict {
        let logged_in = std::mem::take(&mut self.logged_in);
        let client = self.client.get_or_insert_with(|| SmtpClient::new(&self.door, Client::Unknown));
        let unknown = client.unknown && !logged_in && self.door.gate.defers_unknown();
        let client = client.of(logged_in, &self.door, &self.helo);
        // A mail server takes addresses that RFC 5321 doesn't have. Their domain is none that can be looked up.
        let path = path.reverse().unwrap_or_else(|_error| ReversePath::NoDomain(bad_address(path.argument)));
        let mut transaction = client.transaction(&path);
        transaction.set_queue(&self.queue);
        let refused = if unknown && self.door.gate.policy().reject_at == RejectAt::Mail {
            Some(transaction.abort(Reason::DnsError, unknown_client()))
        } else {
            transaction.mail(client).await.err()
        };
        match refused {
            Some(reply) => self.refused(reply),
            None => {
                let header = Block::Coming(Vec::new());
                self.stage = Stage::Open(Box::new(Open { transaction, logged_in, unknown, header }));
                Verdict::Continue
            }
        }
    }

    async fn rcpt(&mut self, path: &Path<'_>) -> Verdict {
        let Some((Open { transaction, unknown, header, .. }, client)) =
            open(&mut self.stage, &mut self.client)
        else {
            return self.over().unwrap_or(Verdict::Trouble);
        };
        if !matches!(header, Block::Coming(block) if block.is_empty()) {
            return self.trouble(); // the header was judged, or is coming, for the recipients before it
        }
        let path = path.forward().unwrap_or_else(|_error| ForwardPath::NoDomain(bad_address(path.argument)));
        if *unknown && !self.door.gate.exempts_recipient(&path) {
            let rcpt = path.to_string();
            return Verdict::Refuse(transaction.refuse_with(Reason::DnsError, unknown_client(), Some(&rcpt)));
        }
        match transaction.rcpt(client, &path).await {
            Ok(permit) => {
                transaction.accepted(permit, path);
                Verdict::Continue
            }
            Err(reply) => Verdict::Refuse(reply),
        }
    }

    fn header(&mut self, header: &Header<'_>, terms: &Terms) -> Verdict {
        let Stage::Open(open) = &mut self.stage else { return self.over().unwrap_or(Verdict::Continue) };
        if let Block::Coming(block) = &mut open.header {
            let before = block.len();
            header.write_to(terms, block);
            open.transaction.received(block.len() - before);
            if block.len() > self.door.header_block {
                open.header = Block::TooBig;
            }
        }
        Verdict::Continue
    }

    async fn end_of_header(&mut self) -> Verdict {
        let Some((Open { transaction, header, .. }, client)) = open(&mut self.stage, &mut self.client) else {
            return self.over().unwrap_or(Verdict::Trouble);
        };
        if transaction.recipients().0 == 0 {
            // Without a recipient nothing would be judged, and there is none to deliver to.
            return self.trouble();
        }
        let refused = match std::mem::replace(header, Block::TooBig) {
            Block::Coming(block) => match transaction.header(client, &block).await {
                Ok(()) => {
                    let forged = own_results(&block, self.door.hostname.as_str());
                    let is_too_much = self.door.settings.results != Results::Keep
                        && forged.len().saturating_mul(memchr::memchr_iter(b'\n', &block).count())
                            > MOST_STEPS;
                    if !is_too_much {
                        *header = Block::Judged(forged);
                        return Verdict::Continue;
                    }
                    let what =
                        format!("{} Authentication-Results fields in the name of this server", forged.len());
                    transaction.abort(Reason::MalformedHeader, Reason::MalformedHeader.plain_reply(&what, ""))
                }
                Err(reply) => reply,
            },
            Block::TooBig => transaction.abort(Reason::TooBig, too_big(self.door.header_block)),
            Block::Judged(_) => return self.trouble(),
        };
        self.refused(refused)
    }

    fn body(&mut self, octets: &[u8]) -> Verdict {
        let Stage::Open(open) = &mut self.stage else { return self.over().unwrap_or(Verdict::Continue) };
        open.transaction.received(octets.len());
        if open.transaction.awaits_body() {
            open.transaction.body(octets);
        }
        Verdict::Continue
    }

    async fn end_of_message(&mut self, octets: &[u8], terms: &Terms, answers: &mut Vec<u8>) -> Verdict {
        self.body(octets);
        let Some((Open { transaction, logged_in, header, .. }, client)) =
            open(&mut self.stage, &mut self.client)
        else {
            return self.over().unwrap_or(Verdict::Trouble);
        };
        let Block::Judged(forged) = header else { return self.trouble() };
        let permit = match transaction.end().await {
            Ok(permit) => permit,
            Err(reply) => return self.refused(reply),
        };
        let results = self.door.settings.results;
        if results != Results::Keep {
            if !forged.is_empty() && !terms.can_change_headers() {
                tracing::warn!(
                    target: "rmxd::door", door = "milter", id = %transaction.id(),
                    "deferred: the mail server doesn't let a milter delete results in our name"
                );
                return self.trouble();
            }
            let ours = if results == Results::Add && !*logged_in {
                let iprev = iprev(client).await;
                authentication_results(&self.door.hostname, iprev, transaction.findings())
            } else {
                Vec::new()
            };
            edits::write(forged, &ours, terms, answers);
        }
        transaction.passed(permit);
        self.stage = Stage::Between;
        Verdict::Continue
    }

    fn abort(&mut self) -> Verdict {
        self.stage = Stage::Between;
        self.logged_in = false;
        self.queue.clear();
        Verdict::Continue
    }

    fn refused(&mut self, reply: Reply) -> Verdict {
        let verdict = Verdict::Refuse(reply);
        self.stage = Stage::Over(verdict.clone());
        verdict
    }

    fn trouble(&mut self) -> Verdict {
        self.stage = Stage::Over(Verdict::Trouble);
        Verdict::Trouble
    }
}

/// The open transaction and its client.
fn open<'a>(
    stage: &'a mut Stage,
    client: &'a mut Option<SmtpClient>,
) -> Option<(&'a mut Open, &'a mut gate::Client)> {
    let Stage::Open(open) = stage else { return None };
    let SmtpClient { gate, user, .. } = client.as_mut()?;
    let client = if open.logged_in { user.as_mut()? } else { gate };
    Some((open, client))
}

fn write(verdict: &Verdict, terms: &Terms, answers: &mut Vec<u8>) {
    let answer = match verdict {
        Verdict::Continue => Answer::Continue,
        Verdict::Refuse(reply) => Answer::Refuse(reply),
        Verdict::Trouble => Answer::TemporaryFailure,
    };
    answer.write_to(terms, answers);
}

fn bad_address(argument: &[u8]) -> CompactString {
    let bare = argument.strip_prefix(b"<").unwrap_or(argument);
    let bare = bare.strip_suffix(b">").unwrap_or(bare);
    CompactString::from_utf8_lossy(bare.get(..MOST_OF_A_BAD_ADDRESS).unwrap_or(bare))
}

fn too_big(limit: usize) -> Reply {
    Reason::TooBig.plain_reply(&format!("the header is larger than {limit} octets"), "")
}

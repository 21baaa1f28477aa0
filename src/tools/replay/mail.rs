//! From lines to messages: the client of a queue id, the recipients of one refusal, and each different sender once.
//!
//! A message that Postfix took is told in two lines: the client when it began, the sender when it went into the queue.
//! What is open between them is bounded, and so is the table of senders: [`Mail::is_full`] says when it is to be judged
//! and emptied. An address is read as the daemon reads it. Of senders of the same domain one address stands for all: no
//! rule looks at the local part but SPF's macro `l`, which hardly any domain uses.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use compact_str::CompactString;
use foldhash::fast::RandomState;

use crate::smtp::address::{Domain, ReversePath};
use crate::smtp::escape::Escaped;
use crate::stats::refusals::Volume;
use crate::tools::replay::bounded::Bounded;
use crate::tools::replay::line::{Entry, Event, Line, Origin, read};

/// Queue ids between their two lines.
const OPEN: usize = 100_000;
/// Connections.
const SESSIONS: usize = 20_000;
/// Lines that can't be read, shown, and octets of each.
const SAMPLES: (usize, usize) = (5, 200);

/// What a decision rests on, as far as a log has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sender {
    pub(super) client: IpAddr,
    /// Lower case; empty where the log doesn't tell it.
    pub(super) helo: CompactString,
    /// Whom the message is from.
    pub(super) path: Path,
}

/// A sender's address. Two of the same domain are the same.
#[derive(Debug, Clone)]
pub(super) struct Path(pub(super) ReversePath);

impl Path {
    fn key(&self) -> Option<&Domain> {
        match &self.0 {
            ReversePath::Null | ReversePath::NoDomain(_) => None,
            ReversePath::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        (self.0 == ReversePath::Null) == (other.0 == ReversePath::Null) && self.key() == other.key()
    }
}

impl Eq for Path {}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 == ReversePath::Null).hash(state);
        self.key().hash(state);
    }
}

/// What was read, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    /// All lines.
    pub(super) lines: u64,
    /// Of other programs.
    pub(super) foreign: u64,
    /// Of Postfix.
    pub(super) postfix: u64,
    /// That can't be read.
    pub(super) unreadable: u64,
    /// The first of these, escaped.
    pub(super) unreadable_samples: Vec<String>,
    /// Messages that Postfix took from elsewhere, and attempts that it refused.
    pub(super) messages: Volume,
    /// Of these, by the null sender, which has no domain.
    pub(super) null_sender: Volume,
    /// Of these, by senders without an address that SMTP allows.
    pub(super) no_address: Volume,
    /// Messages of users who authenticated, or came by a service for them.
    pub(super) authenticated: u64,
    /// Messages that a filter gave back, or a program on the machine sent.
    pub(super) internal: u64,
    /// Clients refused before they named a sender.
    pub(super) refused_early: u64,
    /// The first and the last time stamp of Postfix's lines, in the order of reading.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

#[derive(Debug)]
pub(super) struct Mail {
    pub(super) counts: Counts,
    pub(super) senders: HashMap<Sender, Volume, RandomState>,
    room: usize,
    open: Bounded<IpAddr>,
    sessions: Bounded<Session>,
    hasher: RandomState,
    last: String,
}

#[derive(Debug)]
struct Session {
    client: IpAddr,
    /// One message to several recipients is refused for each of them.
    refused: Option<u64>,
}

impl Mail {
    /// With room for so many different senders.
    pub(super) fn new(room: usize) -> Self {
        Self {
            counts: Counts::default(),
            senders: HashMap::default(),
            room,
            open: Bounded::new(OPEN),
            sessions: Bounded::new(SESSIONS),
            hasher: RandomState::default(),
            last: String::new(),
        }
    }

    /// Whether the senders are to be judged before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.senders.len() >= self.room
    }

    /// What was read in all, at the end.
    pub(super) fn counts(&self) -> Counts {
        let last = (!self.last.is_empty()).then(|| self.last.clone());
        Counts { last, ..self.counts.clone() }
    }

    /// A line that is longer than any of Postfix's; its beginning.
    pub(super) fn too_long(&mut self, start: &[u8]) {
        self.counts.lines += 1;
        self.unreadable(start);
    }

    /// One line, without its end.
    pub(super) fn line(&mut self, octets: &[u8]) {
        self.counts.lines += 1;
        let line = String::from_utf8_lossy(octets);
        match read(&line) {
            Line::Foreign => self.counts.foreign += 1,
            Line::Unreadable => self.unreadable(octets),
            Line::Postfix(stamp, entry) => {
                self.counts.postfix += 1;
                self.counts.first.get_or_insert_with(|| stamp.to_owned());
                self.last.clear();
                self.last.push_str(stamp);
                self.event(&entry);
            }
        }
    }

    fn unreadable(&mut self, octets: &[u8]) {
        self.counts.unreadable += 1;
        if self.counts.unreadable_samples.len() < SAMPLES.0 {
            let start = octets.get(..SAMPLES.1).unwrap_or(octets);
            self.counts.unreadable_samples.push(Escaped::new(start).to_string());
        }
    }

    fn event(&mut self, entry: &Entry<'_>) {
        let session = self.hasher.hash_one((entry.host, entry.process));
        match &entry.event {
            Event::Nothing => {}
            Event::RefusedEarly => self.counts.refused_early += 1,
            Event::Connect { client } => {
                self.sessions.insert(session, Session { client: *client, refused: None });
            }
            Event::Disconnect => drop(self.sessions.remove(session)),
            Event::Begin { id, client, origin } => {
                self.begin(entry, session, *id, *client, *origin);
            }
            Event::Queued { id, sender } => {
                if let Some(client) = self.open.remove(self.key(entry, id)) {
                    self.count(client, None, sender, true);
                }
            }
            Event::Proxied { accepted, sender, helo } => {
                if let Some(Session { client, .. }) =
                    self.sessions.get_mut(session).filter(|_| !entry.submission)
                {
                    let client = *client;
                    self.count(client, *helo, sender, *accepted);
                }
            }
            Event::Refused { id, client, session: port, sender, helo } => {
                let waiting = id.and_then(|id| self.open.remove(self.key(entry, id)));
                // One that was known by its id and isn't any more came from our own users.
                let from_elsewhere = id.is_none() || waiting.is_some();
                if let Some(client) = client.or(waiting).filter(|_| from_elsewhere && !entry.submission) {
                    let session = port.map_or(session, |port| self.hasher.hash_one((entry.host, port)));
                    if id.is_some() || self.is_new(session, client, sender) {
                        self.count(client, *helo, sender, false);
                    }
                }
            }
        }
    }

    fn begin(&mut self, entry: &Entry<'_>, session: u64, id: Option<&str>, client: IpAddr, origin: Origin) {
        let origin = if entry.submission { Origin::Authenticated } else { origin };
        match (origin, id) {
            (Origin::Authenticated, _) => self.counts.authenticated += 1,
            (Origin::Internal, _) => self.counts.internal += 1,
            (Origin::Elsewhere, Some(id)) => {
                self.open.insert(self.key(entry, id), client);
                return;
            }
            (Origin::Elsewhere, None) => {
                self.sessions.insert(session, Session { client, refused: None });
                return;
            }
        }
        // Neither what the filter says of it nor its way through the queue counts.
        match id {
            Some(id) => drop(self.open.remove(self.key(entry, id))),
            None => drop(self.sessions.remove(session)),
        }
    }

    /// An id means something within its host and instance only.
    fn key(&self, entry: &Entry<'_>, id: &str) -> u64 {
        self.hasher.hash_one((entry.host, entry.instance, id))
    }

    /// Whether this is another message than the one that was refused in this session before.
    fn is_new(&mut self, session: u64, client: IpAddr, sender: &str) -> bool {
        let refused = Some(self.hasher.hash_one(sender));
        match self.sessions.get_mut(session) {
            Some(session) => std::mem::replace(&mut session.refused, refused) != refused,
            None => {
                self.sessions.insert(session, Session { client, refused });
                true
            }
        }
    }

    fn count(&mut self, client: IpAddr, helo: Option<&str>, sender: &str, taken: bool) {
        let volume = Volume { taken: u64::from(taken), refused: u64::from(!taken) };
        self.counts.messages += volume;
        let Ok(path) = ReversePath::parse(sender) else {
            self.counts.no_address += volume;
            return;
        };
        if path == ReversePath::Null {
            self.counts.null_sender += volume;
        }
        let helo = lower(helo.filter(|helo| helo.len() <= 255).unwrap_or_default());
        *self.senders.entry(Sender { client, helo, path: Path(path) }).or_default() += volume;
    }
}

fn lower(text: &str) -> CompactString {
    let mut text = CompactString::new(text);
    text.make_ascii_lowercase();
    text
}

#[cfg(test)]
mod tests;

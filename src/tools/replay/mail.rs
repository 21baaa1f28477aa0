//! Collects the lines of a log into messages and counts each different sender.
//!
//! A message that Postfix accepted has two lines: one with the client when it begins, one with the sender when it is queued.
//! The number of open messages is bounded, and so is the table of senders: when [`Mail::is_full`], its senders must be judged
//! and removed. Addresses are parsed as in the daemon. Senders of the same domain count as one: no rule depends on the local
//! part except the SPF macro `l`, which hardly any domain uses.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use compact_str::CompactString;
use foldhash::fast::RandomState;

use crate::smtp::address::{Domain, ReversePath};
use crate::smtp::escape::Escaped;
use crate::stats::refusals::Volume;
use crate::tools::replay::bounded::Bounded;
use crate::tools::replay::form::MONTHS;
use crate::tools::replay::journal::{self, Export, Exported, JournalEntry};
use crate::tools::replay::line::{self, Entry, Event, Line, Origin, parse};

/// Maximum number of queue ids between their two lines.
const OPEN: usize = 100_000;
/// Maximum number of open connections.
const SESSIONS: usize = 20_000;
/// Unreadable lines in the report, and octets of each.
const SAMPLES: (usize, usize) = (5, 200);

/// The input of a decision, as far as a log has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sender {
    pub(super) client: IpAddr,
    /// Lower case; empty if the log has none.
    pub(super) helo: CompactString,
    pub(super) path: Path,
}

/// The address of a sender. Two addresses of the same domain are equal.
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

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Counts {
    /// All lines.
    pub(super) lines: u64,
    /// Lines of other programs.
    pub(super) foreign: u64,
    /// Lines of Postfix.
    pub(super) postfix: u64,
    /// Unreadable lines.
    pub(super) unreadable: u64,
    /// The first of them, escaped.
    pub(super) unreadable_samples: Vec<String>,
    /// Messages from other servers that Postfix accepted, and attempts that it refused.
    pub(super) messages: Volume,
    /// Those of the null sender.
    pub(super) null_sender: Volume,
    /// Those whose sender is not an address (RFC 5321 4.1.2).
    pub(super) no_address: Volume,
    /// Messages of authenticated users, or over a service for them.
    pub(super) authenticated: u64,
    /// Messages from a filter or another program on this machine.
    pub(super) internal: u64,
    /// Clients refused before MAIL FROM.
    pub(super) refused_early: u64,
    /// The first and the last time stamp of Postfix lines, in the order of reading.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

#[derive(Debug)]
pub(super) struct Mail {
    pub(super) counts: Counts,
    pub(super) senders: HashMap<Sender, Volume, RandomState>,
    capacity: usize,
    open: Bounded<IpAddr>,
    sessions: Bounded<Session>,
    hasher: RandomState,
    last: String,
    export: Export,
    /// The format has texts alone (`journalctl -o cat`).
    bare: bool,
    /// Turns of the year between the first and the last stamp, by stamps without a year.
    years: i32,
    month: Option<usize>,
}

#[derive(Debug)]
struct Session {
    client: IpAddr,
    /// Hash of the last refused sender: a message has a refusal for each of its recipients.
    refused: Option<u64>,
}

impl Mail {
    /// `capacity`: maximum number of different senders.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            counts: Counts::default(),
            senders: HashMap::default(),
            capacity,
            open: Bounded::new(OPEN),
            sessions: Bounded::new(SESSIONS),
            hasher: RandomState::default(),
            last: String::new(),
            export: Export::default(),
            bare: false,
            years: 0,
            month: None,
        }
    }

    /// Whether the senders must be judged before more lines are read.
    pub(super) fn is_full(&self) -> bool {
        self.senders.len() >= self.capacity
    }

    pub(super) fn counts(&self) -> Counts {
        let last = (!self.last.is_empty()).then(|| self.last.clone());
        Counts { last, ..self.counts.clone() }
    }

    /// Turns of the year from the first stamp to the last, as far as stamps without a year show them.
    pub(super) fn years(&self) -> i32 {
        self.years
    }

    /// `start` is the beginning of a line that is longer than any line of Postfix.
    pub(super) fn too_long(&mut self, start: &[u8]) {
        self.export.too_long();
        self.counts.lines += 1;
        self.unreadable(start);
    }

    /// A line without its LF.
    pub(super) fn line(&mut self, octets: &[u8]) {
        match self.export.line(octets) {
            Exported::No => {}
            Exported::Part => return,
            Exported::End(entry) => return self.journal_entry(&entry),
        }
        let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
        // journalctl -o json-sse has a blank line behind each entry
        if octets.is_empty() {
            return;
        }
        self.counts.lines += 1;
        let line = String::from_utf8_lossy(octets);
        if let Some(entry) = journal::json(&line) {
            return self.found(line::entry(entry.head()), octets);
        }
        let mut found = parse(&line);
        if found == Line::Unreadable {
            if let Some(bare) = line::bare(&line) {
                (found, self.bare) = (bare, true);
            } else if self.bare {
                found = Line::Foreign;
            }
        }
        self.found(found, octets);
    }

    /// The end of a file.
    pub(super) fn end(&mut self) {
        if let Exported::End(entry) = self.export.end() {
            self.journal_entry(&entry);
        }
        self.bare = false;
    }

    fn journal_entry(&mut self, entry: &JournalEntry) {
        self.counts.lines += 1;
        let head = entry.head();
        self.found(line::entry(head), head.text.as_bytes());
    }

    fn found(&mut self, line: Line<'_>, octets: &[u8]) {
        match line {
            Line::Foreign => self.counts.foreign += 1,
            Line::Unreadable => self.unreadable(octets),
            Line::Postfix(stamp, entry) => {
                self.counts.postfix += 1;
                self.stamp(stamp);
                self.event(&entry);
            }
        }
    }

    fn stamp(&mut self, stamp: &str) {
        if stamp.is_empty() {
            return;
        }
        self.counts.first.get_or_insert_with(|| stamp.to_owned());
        self.last.clear();
        self.last.push_str(stamp);
        let month = stamp.get(..3).and_then(|name| MONTHS.iter().position(|month| *month == name));
        if let (Some(month), Some(before)) = (month, self.month) {
            // Several programs write: their lines are not quite in order.
            self.years += i32::from(before >= 9 && month <= 2) - i32::from(before <= 2 && month >= 9);
        }
        self.month = month.or(self.month);
    }

    fn unreadable(&mut self, octets: &[u8]) {
        self.counts.unreadable += 1;
        if self.counts.unreadable_samples.len() < SAMPLES.0 {
            let start = octets.get(..SAMPLES.1).unwrap_or(octets);
            self.counts.unreadable_samples.push(Escaped::new(start).to_string());
        }
    }

    fn event(&mut self, entry: &Entry<'_>) {
        let session = self.hasher.hash_one((entry.host, entry.program, entry.pid));
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
                // A queue id without an open message belongs to mail of authenticated users or programs on this machine.
                let is_external = id.is_none() || waiting.is_some();
                if let Some(client) = client.or(waiting).filter(|_| is_external && !entry.submission) {
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
            (Origin::External, Some(id)) => {
                self.open.insert(self.key(entry, id), client);
                return;
            }
            (Origin::External, None) => {
                self.sessions.insert(session, Session { client, refused: None });
                return;
            }
        }
        // Later lines about this message must not count.
        match id {
            Some(id) => drop(self.open.remove(self.key(entry, id))),
            None => drop(self.sessions.remove(session)),
        }
    }

    /// A queue id is unique within its host and instance only.
    fn key(&self, entry: &Entry<'_>, id: &str) -> u64 {
        self.hasher.hash_one((entry.host, entry.instance, id))
    }

    /// Whether the refusal belongs to another message than the previous one of this session.
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

//! Temporary permits: exemptions that an operator gives at run time, for a time or until they are removed (contract 3.5).
//!
//! All conditions of a permit must hold. What it lets in depends on which it has:
//!
//! - client, or client and domain of the envelope's sender: the whole message, as of an exempt client;
//! - client and domain, where only From: or Reply-To: has the domain: this identity;
//! - client and domain with the identity `from` or `reply_to`, as made from a refusal of that field: this identity only;
//! - domain alone: as a domain of `[exempt]`, so that a forged MAIL FROM doesn't exempt the visible sender;
//! - recipient, alone or with others: this recipient, as one of `[exempt]`. The domain is that of the envelope's sender.
//!
//! The set is pure: the time is a parameter. A permit is found by the hash of its conditions, with one lookup for each prefix
//! length and each depth of a domain with sub-domains that some permit has; so ten thousand permits cost as much as ten.
//! Permits of another source are merged by their numbers: [`Permits::insert`] replaces, [`Permits::remove`] takes one out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;
use foldhash::quality::RandomState;
use ipnet::IpNet;
use smallvec::{SmallVec, smallvec};

use crate::decision::{Id, LetIn, Node};
use crate::policy::identity::Identity;
use crate::smtp::address::{DomainName, ForwardPath};
use crate::smtp::pattern::DomainPattern;

/// Permits at one time.
pub const MOST: usize = 10_000;
/// Characters of a note.
pub const MOST_NOTE: usize = 200;
/// The time of a permit for which none is given.
pub const DEFAULT_TIME: Duration = Duration::from_secs(24 * 3600);
/// A permit for longer is one without an end.
pub const LONGEST_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What has to hold; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    pub client: Option<IpNet>,
    /// Of a sender; with a leading dot also the names below.
    pub domain: Option<DomainPattern>,
    /// A local part in any domain, or an address; case doesn't matter.
    pub recipient: Option<CompactString>,
    /// Of the decision that the permit was made from. With `from` or `reply_to` the domain counts in that field only, and
    /// lets in no other identity.
    pub identity: Option<Identity>,
}

/// A permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporaryPermit {
    /// Never given twice.
    pub number: u64,
    /// Tells it from another one that got its number, as a fleet can't rule out; `None` without a fleet.
    pub uid: Option<u64>,
    pub conditions: Conditions,
    /// Of the operator; may be empty.
    pub note: String,
    pub created: SystemTime,
    /// `None` = until it is removed.
    pub until: Option<SystemTime>,
    /// The refused decision that it was made from.
    pub decision: Option<Id>,
}

impl TemporaryPermit {
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The node of a fleet that made it.
    #[must_use]
    pub fn node(&self) -> Option<Node> {
        self.uid.map(|_| Node::of_number(self.number))
    }

    /// As decisions name it.
    #[must_use]
    pub fn let_in(&self) -> LetIn {
        LetIn { number: self.number, until: self.until }
    }
}

impl Conditions {
    /// Whether none is given, which no permit has. An identity alone is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        Self { identity: None, ..self.clone() } == Self::default()
    }

    /// The field of the header that the domain has to be in, and that alone is let in.
    #[must_use]
    pub fn only_in(&self) -> Option<Identity> {
        self.identity.filter(|identity| matches!(identity, Identity::From | Identity::ReplyTo))
    }

    fn key(&self) -> Key {
        let domain = self.domain.as_ref();
        Key {
            client: self.client.map(canonical),
            domain: domain.map(|pattern| (pattern.name().as_str().into(), pattern.is_wide())),
            recipient: self.recipient.as_ref().map(|text| text.to_ascii_lowercase()),
            only_in: self.only_in(),
        }
    }
}

impl fmt::Display for Conditions {
    /// `client 192.0.2.0/24, domain example.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        let mut put = |name: &str, value: Option<&dyn fmt::Display>| {
            let Some(value) = value else { return Ok(()) };
            write!(f, "{}{name} {value}", std::mem::replace(&mut before, ", "))
        };
        put("client", self.client.as_ref().map(|it| it as _))?;
        put("domain", self.domain.as_ref().map(|it| it as _))?;
        put("recipient", self.recipient.as_ref().map(|it| it as _))?;
        put("only in", self.only_in().as_ref().map(|it| it as _))
    }
}

/// The envelope's sender, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'s> {
    /// Canonical: IPv4, not IPv4-mapped.
    pub client: IpAddr,
    /// Of MAIL FROM; for `<>` the HELO name.
    pub domain: Option<&'s DomainName>,
}

/// A network of IPv4-mapped addresses is an IPv4 network.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = network.prefix_len().checked_sub(MAPPED).filter(|_| matches!(network, IpNet::V6(_)));
    match (network.network().to_canonical(), mapped) {
        (address @ IpAddr::V4(_), Some(prefix)) => IpNet::new(address, prefix).unwrap_or(network),
        _ => network.trunc(),
    }
}

/// The conditions in the form that is compared; a domain with whether it covers the names below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    client: Option<IpNet>,
    domain: Option<(CompactString, bool)>,
    recipient: Option<CompactString>,
    only_in: Option<Identity>,
}

/// Possible values of one condition; `None` is a permit without it.
type Candidates<T> = SmallVec<[Option<T>; 4]>;

/// A set of permits.
#[derive(Debug, Clone, Default)]
pub struct Permits {
    all: BTreeMap<u64, TemporaryPermit>,
    ends: BTreeSet<(SystemTime, u64)>,
    index: HashMap<Key, SmallVec<[u64; 1]>, RandomState>,
    /// How many permits have these forms; entries of zero are removed.
    prefixes_v4: BTreeMap<u8, usize>,
    prefixes_v6: BTreeMap<u8, usize>,
    exact_domains: usize,
    /// By the number of labels.
    wide_domains: BTreeMap<usize, usize>,
    recipients: usize,
}

impl Permits {
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// By their numbers.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &TemporaryPermit> {
        self.all.values()
    }

    #[must_use]
    pub fn get(&self, number: u64) -> Option<&TemporaryPermit> {
        self.all.get(&number)
    }

    /// Adds a permit, in place of the one with its number.
    pub fn insert(&mut self, permit: TemporaryPermit) {
        self.remove(permit.number);
        let key = permit.conditions.key();
        self.note(&key, |count| *count += 1);
        self.index.entry(key).or_default().push(permit.number);
        self.ends.extend(permit.until.map(|until| (until, permit.number)));
        self.all.insert(permit.number, permit);
    }

    /// Takes a permit out.
    pub fn remove(&mut self, number: u64) -> Option<TemporaryPermit> {
        let permit = self.all.remove(&number)?;
        if let Some(until) = permit.until {
            self.ends.remove(&(until, number));
        }
        let key = permit.conditions.key();
        self.note(&key, |count| *count = count.saturating_sub(1));
        if let Some(numbers) = self.index.get_mut(&key) {
            numbers.retain(|known| *known != number);
            if numbers.is_empty() {
                self.index.remove(&key);
            }
        }
        Some(permit)
    }

    /// When the next permit is over.
    #[must_use]
    pub fn next_end(&self) -> Option<SystemTime> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// The permits that are over, by their ends.
    pub fn over(&self, now: SystemTime) -> impl Iterator<Item = &TemporaryPermit> {
        let over = self.ends.iter().take_while(move |(until, _)| *until <= now);
        over.filter_map(|(_, number)| self.all.get(number))
    }

    /// The permit for all of a message: of its client, or of client and sender.
    #[must_use]
    pub fn message(&self, sender: Sender<'_>, now: SystemTime) -> Option<&TemporaryPermit> {
        let (clients, mut domains) = (self.clients(sender.client), self.domains(sender.domain));
        domains.push(None);
        self.find(&clients, &domains, &[None], None, now)
    }

    /// The permit for the envelope of this sender, by its domain alone. HELO counts as a sender too.
    #[must_use]
    pub fn envelope(&self, domain: &DomainName, now: SystemTime) -> Option<&TemporaryPermit> {
        self.find(&[None], &self.domains(Some(domain)), &[None], None, now)
    }

    /// The permit for a domain in From: or Reply-To:, which `identity` is.
    #[must_use]
    pub fn visible(
        &self,
        client: IpAddr,
        identity: Identity,
        domain: &DomainName,
        now: SystemTime,
    ) -> Option<&TemporaryPermit> {
        let (mut clients, domains) = (self.clients(client), self.domains(Some(domain)));
        clients.push(None);
        let find = |only_in| self.find(&clients, &domains, &[None], only_in, now);
        find(None).or_else(|| find(Some(identity)))
    }

    /// The permit for a recipient.
    #[must_use]
    pub fn recipient(
        &self,
        sender: Sender<'_>,
        recipient: &ForwardPath,
        now: SystemTime,
    ) -> Option<&TemporaryPermit> {
        if self.recipients == 0 {
            return None;
        }
        let (mut clients, mut domains) = (self.clients(sender.client), self.domains(sender.domain));
        clients.push(None);
        domains.push(None);
        let (address, local) = (recipient.to_string(), recipient.local());
        let forms = [address.as_str(), local].map(|text| Some(text.to_ascii_lowercase().into()));
        self.find(&clients, &domains, &forms, None, now)
    }

    fn find(
        &self,
        clients: &[Option<IpNet>],
        domains: &[Option<(CompactString, bool)>],
        recipients: &[Option<CompactString>],
        only_in: Option<Identity>,
        now: SystemTime,
    ) -> Option<&TemporaryPermit> {
        for client in clients {
            for domain in domains {
                for recipient in recipients {
                    let (domain, recipient) = (domain.clone(), recipient.clone());
                    let key = Key { client: *client, domain, recipient, only_in };
                    let Some(numbers) = self.index.get(&key) else { continue };
                    let permits = numbers.iter().filter_map(|number| self.all.get(number));
                    if let Some(permit) = permits.into_iter().find(|permit| !permit.is_over(now)) {
                        return Some(permit);
                    }
                }
            }
        }
        None
    }

    /// The networks of this address, as large as permits have them.
    fn clients(&self, address: IpAddr) -> Candidates<IpNet> {
        let prefixes = if address.is_ipv4() { &self.prefixes_v4 } else { &self.prefixes_v6 };
        let networks = prefixes.keys().rev().filter_map(|prefix| IpNet::new(address, *prefix).ok());
        networks.map(|network| Some(network.trunc())).collect()
    }

    /// The domain, and the parents of which permits have the sub-domains.
    fn domains(&self, domain: Option<&DomainName>) -> Candidates<(CompactString, bool)> {
        let Some(name) = domain.map(DomainName::as_str) else { return smallvec![] };
        let exact = (self.exact_domains > 0).then(|| Some((name.into(), false)));
        let depth = labels(name);
        let wide = self.wide_domains.keys().rev().filter(|wanted| **wanted <= depth);
        let wide = wide.filter_map(|wanted| Some(Some((last(name, *wanted)?.into(), true))));
        exact.into_iter().chain(wide).collect()
    }

    /// Counts the forms of a permit's conditions.
    fn note(&mut self, key: &Key, mut count: impl FnMut(&mut usize)) {
        if let Some(network) = key.client {
            let prefixes =
                if network.addr().is_ipv4() { &mut self.prefixes_v4 } else { &mut self.prefixes_v6 };
            count(prefixes.entry(network.prefix_len()).or_default());
            prefixes.retain(|_, count| *count > 0);
        }
        match &key.domain {
            None => {}
            Some((_, false)) => count(&mut self.exact_domains),
            Some((name, true)) => {
                count(self.wide_domains.entry(labels(name)).or_default());
                self.wide_domains.retain(|_, count| *count > 0);
            }
        }
        if key.recipient.is_some() {
            count(&mut self.recipients);
        }
    }
}

impl FromIterator<TemporaryPermit> for Permits {
    fn from_iter<I: IntoIterator<Item = TemporaryPermit>>(permits: I) -> Self {
        let mut all = Self::default();
        permits.into_iter().for_each(|permit| all.insert(permit));
        all
    }
}

fn labels(name: &str) -> usize {
    memchr::memchr_iter(b'.', name.as_bytes()).count() + 1
}

/// The last labels of a name.
fn last(name: &str, count: usize) -> Option<&str> {
    match memchr::memrchr_iter(b'.', name.as_bytes()).nth(count.checked_sub(1)?) {
        Some(dot) => name.get(dot + 1..),
        None => Some(name),
    }
}

#[cfg(test)]
mod tests;

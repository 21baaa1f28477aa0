//! A filter for decisions. The keys, values and error messages are those of the command line and of the API.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use compact_str::CompactString;
use ipnet::IpNet;

use crate::decision::{DecisionRecord, Id};
use crate::policy::decide::Verdict;
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::smtp::address::DomainName;
use crate::store::history::row::domain_of;

/// Conditions on a decision. Fields that are `None` are not compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub id: Option<Id>,
    /// The address in MAIL FROM, From: or Reply-To:, in any case; `<>` is the null sender.
    pub sender: Option<CompactString>,
    /// The verdict of the policy, even in monitor mode.
    pub verdict: Option<Verdict>,
    pub reason: Option<Reason>,
    /// The identity of the deciding finding.
    pub identity: Option<Identity>,
    /// One of the sender domains is this domain or below it; with `identity`, only that identity's domains are compared.
    pub domain: Option<DomainName>,
    /// The network of the client's address.
    pub client: Option<IpNet>,
    /// One of the recipients, in any case.
    pub rcpt: Option<CompactString>,
    /// The id of the message at Postfix.
    pub queue: Option<CompactString>,
    pub outcome: Option<Outcome>,
    /// The reason of a failure that was only tagged.
    pub tag: Option<Reason>,
    /// At or after this time.
    pub since: Option<SystemTime>,
    /// Before this time.
    pub until: Option<SystemTime>,
    /// Whether the message would have been refused in another mode.
    pub would: Option<bool>,
}

impl Filter {
    /// The keys of [`Filter::set`].
    pub const KEYS: [&'static str; 14] = [
        "id", "verdict", "reason", "identity", "domain", "sender", "client", "rcpt", "queue", "outcome",
        "tag", "since", "until", "would",
    ];

    /// Sets one key. A duration as a time means that long before `now`.
    ///
    /// # Errors
    /// What is allowed, to be put behind the key.
    pub fn set(&mut self, key: &str, value: &str, now: SystemTime) -> Result<(), String> {
        match key {
            "id" => self.id = Some(id(value)?),
            "sender" => self.sender = Some(address(value)?),
            "verdict" => self.verdict = Some(choice(&Verdict::ALL, Verdict::name, value)?),
            "reason" => self.reason = Some(choice(&Reason::ALL, Reason::name, value)?),
            "identity" => self.identity = Some(choice(&Identity::ALL, Identity::name, value)?),
            "domain" => self.domain = Some(domain(value)?),
            "client" => self.client = Some(network(value)?),
            "rcpt" => self.rcpt = Some(given(value)?),
            "queue" => self.queue = Some(given(value)?),
            "outcome" => self.outcome = Some(choice(&Outcome::ALL, Outcome::name, value)?),
            "tag" => self.tag = Some(choice(&Reason::ALL, Reason::name, value)?),
            "since" => self.since = Some(time(value, now)?),
            "until" => self.until = Some(time(value, now)?),
            "would" => self.would = Some(yes_or_no(value)?),
            _ => return Err(format!("is not known: {}", Self::KEYS.join(", "))),
        }
        Ok(())
    }

    /// Compares the fields that are decoded first.
    pub(super) fn fits_head(&self, record: &DecisionRecord) -> bool {
        self.id.is_none_or(|id| record.id == Some(id))
            && self.verdict.is_none_or(|verdict| record.verdict == verdict)
            && self.client.is_none_or(|client| client.contains(&record.client.to_canonical()))
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
            && self.would.is_none_or(|would| record.would_be_refused() == would)
    }

    /// Compares the other fields.
    pub(super) fn fits_rest(&self, record: &DecisionRecord) -> bool {
        let decided = |identity| record.deciding().is_some_and(|finding| finding.identity == identity);
        let is_recipient =
            |wanted: &CompactString| record.all_recipients().any(|it| it.eq_ignore_ascii_case(wanted));
        self.reason.is_none_or(|reason| record.reason() == Some(reason))
            && self.outcome.is_none_or(|outcome| record.outcome() == Some(outcome))
            && self.queue.as_ref().is_none_or(|queue| record.queue == *queue)
            && self.rcpt.as_ref().is_none_or(is_recipient)
            && self.identity.is_none_or(decided)
            && self.tag.is_none_or(|reason| record.tags().iter().any(|tag| is_of(tag, reason)))
            && self.domain.as_ref().is_none_or(|domain| self.has_domain(record, domain))
            && self.sender.as_ref().is_none_or(|sender| is_sender(record, sender))
    }

    /// The domain that all matching records have among their sender domains.
    pub(super) fn common_domain(&self) -> Option<DomainName> {
        let of_sender = || DomainName::parse_unicode(domain_of(self.sender.as_deref()?)).ok();
        self.domain.clone().or_else(of_sender)
    }

    fn has_domain(&self, record: &DecisionRecord, domain: &DomainName) -> bool {
        let DecisionRecord { helo, mail_from, from, reply_to, .. } = record;
        let wanted = |identity| self.identity.is_none_or(|wanted| wanted == identity);
        let under = |text: &str| {
            DomainName::parse_unicode(domain_of(text)).is_ok_and(|name| name.is_at_or_below(domain))
        };
        let found = record.findings.iter().any(|it| wanted(it.identity) && under(&it.domain));
        // An exempt identity, or one that wasn't looked up, has no finding.
        let in_texts = || {
            let texts = [(Identity::Helo, helo), (Identity::MailFrom, mail_from)].into_iter();
            texts
                .chain([(Identity::From, from), (Identity::ReplyTo, reply_to)])
                .any(|(identity, text)| wanted(identity) && text.split(", ").any(under))
        };
        found || in_texts()
    }
}

/// Whether an address is the sender in one of the places that name one.
fn is_sender(record: &DecisionRecord, sender: &str) -> bool {
    let DecisionRecord { mail_from, from, reply_to, .. } = record;
    let mut places = [mail_from, from, reply_to].into_iter().flat_map(|text| text.split(", "));
    let wanted = bare(sender);
    if wanted.is_empty() {
        return mail_from == sender;
    }
    places.any(|one| bare(one).eq_ignore_ascii_case(wanted))
}

/// An address without its angle brackets.
fn bare(address: &str) -> &str {
    address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address)
}

/// A position of a record; the next page has the records before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(super) seq: i64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.seq)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        i64::from_str_radix(text, 16).map(|seq| Self { seq }).map_err(|_no_number| {
            format!("{text:?} is not a position in the history: take the value of \"next\" from an answer")
        })
    }
}

fn choice<T: Copy>(all: &[T], name: fn(T) -> &'static str, value: &str) -> Result<T, String> {
    all.iter().copied().find(|it| name(*it) == value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|it| name(*it)).collect();
        format!("{value:?} is not allowed: {}", names.join(", "))
    })
}

/// Whether a tag, `identity.rule.reason`, has this reason.
fn is_of(tag: &str, reason: Reason) -> bool {
    tag.rsplit('.').next() == Some(reason.name())
}

/// Blanks and hyphens of an id that was noted on the telephone are dropped.
fn id(value: &str) -> Result<Id, String> {
    let bare: String = value.chars().filter(|one| !one.is_whitespace() && *one != '-').collect();
    Id::parse(&bare).ok_or_else(|| format!("{value:?} is not an id: {}", Id::why_malformed(&bare)))
}

fn address(value: &str) -> Result<CompactString, String> {
    let given = given(value)?;
    let has_domain =
        bare(value).rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if has_domain || value == "<>" {
        return Ok(given);
    }
    Err(format!("{value:?} is neither an address such as \"a@example.com\" nor <>, the null sender"))
}

fn given(value: &str) -> Result<CompactString, String> {
    if value.is_empty() { Err("is empty".to_owned()) } else { Ok(CompactString::new(value)) }
}

fn domain(value: &str) -> Result<DomainName, String> {
    let name = value.strip_prefix('.').unwrap_or(value);
    DomainName::parse_unicode(name).map_err(|_no_name| format!("{value:?} is not a domain name"))
}

fn network(value: &str) -> Result<IpNet, String> {
    let network = value.parse::<IpNet>().or_else(|_no_prefix| value.parse::<IpAddr>().map(IpNet::from));
    network.map(|network| canonical(network.trunc())).map_err(|_no_address| {
        format!("{value:?} is neither an address nor a network such as \"192.0.2.0/24\"")
    })
}

/// An IPv4-mapped IPv6 network (RFC 4291 2.5.5.2) becomes an IPv4 network, as for client addresses.
fn canonical(network: IpNet) -> IpNet {
    let address = network.addr().to_canonical();
    let shorter = network.prefix_len().checked_sub(96).filter(|_| address != network.addr());
    shorter.and_then(|prefix| IpNet::new(address, prefix).ok()).unwrap_or(network)
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{value:?} is not allowed: true, false")),
    }
}

fn time(value: &str, now: SystemTime) -> Result<SystemTime, String> {
    let ago = || humantime::parse_duration(value).ok().and_then(|ago: Duration| now.checked_sub(ago));
    let day = || humantime::parse_rfc3339_weak(&format!("{value}T00:00:00")).ok();
    humantime::parse_rfc3339_weak(value).ok().or_else(day).or_else(ago).ok_or_else(|| {
        format!("{value:?} is neither a duration back from now such as \"2h\" nor a time (UTC) such as \"2026-01-31\" or \"2026-01-31T12:00:00Z\"")
    })
}

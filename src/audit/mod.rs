//! Would mail over each outgoing address of one's own domain be accepted by a reverse MX look-up?
//!
//! DNS is asked as a receiver would, and gates decide as they do for mail; nothing is sent. What is missing is told as
//! records for a zone file. It changes no zone, and doesn't try whether anybody answers at the addresses. Which policies
//! judge is the caller's choice, and so is how the result is shown.

mod facts;
mod record;
mod remedy;
mod report;
mod standing;

use std::net::IpAddr;
use std::sync::Arc;

use crate::dns::Dns;
use crate::gate::Gate;
use crate::reverse_mx::{self, ReverseMx};
use crate::smtp::address::{Domain, DomainName, Mailbox};

use facts::Inquiry;

pub use report::Report;
pub use standing::COUNTING;

/// Marks what is as it should be.
pub const RIGHT: char = '\u{2713}';
/// Marks what is not.
pub const WRONG: char = '\u{2717}';

/// A policy to be asked. Those that [`COUNTING`] names decide the outcome; others are shown.
#[derive(Debug, Clone)]
pub struct Judge {
    /// How the report calls it.
    pub name: &'static str,
    /// What decides; with a greylist of its own, or the audit would teach the daemon's.
    pub gate: Arc<Gate>,
}

/// Whoever audits: DNS, and the policies to be asked.
#[derive(Debug, Clone)]
pub struct Auditor {
    dns: Dns,
    reverse_mx: ReverseMx,
    most_hosts: usize,
    judges: Vec<Judge>,
}

/// What is to be audited.
#[derive(Debug, Clone)]
pub struct Question {
    domain: DomainName,
    sender: Mailbox,
    egress: Vec<IpAddr>,
    /// The argument of EHLO; without it the confirmed PTR name of the address, else the domain.
    pub helo: Option<String>,
    /// Whether each rung is tried too.
    pub rungs: bool,
}

/// What can't be audited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nobody outside sees such an address: it would make nonsense of the rest.
    #[error("{0}: not an address of the public Internet; give the one that receivers see")]
    Address(IpAddr),
    /// A sender elsewhere.
    #[error("{sender}: must be an address at {domain}")]
    Sender {
        /// As it was given.
        sender: Mailbox,
        /// What is audited.
        domain: DomainName,
    },
    /// No sender was given, and the domain is too long for `postmaster` to stand before it.
    #[error("{0}")]
    Postmaster(String),
}

/// How an audit ends; as a number, the exit code of `rmxd audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditResult {
    /// Mail over every address is accepted.
    Accepted = 0,
    /// Over at least one address mail would be lost.
    Lost = 1,
    /// DNS trouble kept it from knowing, and nothing else is wrong.
    Unknown = 75,
}

impl Question {
    /// Each address once. Without a sender it is the domain's postmaster.
    ///
    /// # Errors
    /// A sender that isn't at the domain.
    pub fn new(domain: DomainName, sender: Option<Mailbox>, egress: &[IpAddr]) -> Result<Self, Unfit> {
        let sender = match sender {
            Some(sender) => sender,
            None => mailbox(&format!("postmaster@{domain}")).map_err(Unfit::Postmaster)?,
        };
        if sender.domain().name() != Some(&domain) {
            return Err(Unfit::Sender { sender, domain });
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in egress.iter().map(IpAddr::to_canonical) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Self { domain, sender, egress: addresses, helo: None, rungs: false })
    }
}

impl Auditor {
    /// Asks this DNS. The judges are shown in this order.
    pub fn new(dns: Dns, settings: reverse_mx::Settings, judges: Vec<Judge>) -> Self {
        let most_hosts = settings.max_mx_hosts;
        Self { reverse_mx: ReverseMx::new(dns.clone(), settings), dns, most_hosts, judges }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// An address that mail can't be sent from.
    pub async fn audit(&self, question: &Question) -> Result<Report, Unfit> {
        if let Some(address) = question.egress.iter().find(|address| !self.reverse_mx.is_usable(**address)) {
            return Err(Unfit::Address(*address));
        }
        Ok(Report::of(Inquiry { auditor: self, question }.gather().await))
    }
}

/// The domain to audit, from a text.
///
/// # Errors
/// What it must be.
pub fn domain(text: &str) -> Result<DomainName, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match DomainName::parse_unicode(name) {
        Ok(name) if !name.is_single_label() && !name.is_ip_text() => Ok(name),
        Ok(_) | Err(_) => Err("must be a domain name such as example.com".to_owned()),
    }
}

/// A sender, from a text, in angle brackets or not.
///
/// # Errors
/// What it must be.
pub fn mailbox(text: &str) -> Result<Mailbox, String> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    let mailbox = Mailbox::parse(inner).map_err(|error| error.to_string())?;
    match mailbox.domain() {
        Domain::Name(_) => Ok(mailbox),
        Domain::Literal(_) => Err("must have a domain name behind the @".to_owned()),
    }
}

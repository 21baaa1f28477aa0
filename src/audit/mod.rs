//! The audit of a sender domain: would a reverse MX lookup accept its mail from each of its outgoing addresses?
//!
//! The audit looks up DNS as a receiver does, and gates decide as for mail; no mail is sent. The report has the missing
//! records in the form of a zone file. The audit changes no zone, and doesn't connect to the addresses. The caller chooses
//! the policies and the form of the report.

mod facts;
mod owner;
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

/// Marks a good result.
pub const RIGHT: char = '\u{2713}';
/// Marks a bad result.
pub const WRONG: char = '\u{2717}';
/// Marks what the reader should look at.
const WARNING: char = '!';

/// A policy of the audit. Those in [`COUNTING`] decide the result; others are only shown.
#[derive(Debug, Clone)]
pub struct Judge {
    /// The name in the report.
    pub name: &'static str,
    /// It needs a greylist of its own, otherwise the audit would add triples to the daemon's.
    pub gate: Arc<Gate>,
}

/// Runs audits with one DNS and a list of policies.
#[derive(Debug, Clone)]
pub struct Auditor {
    dns: Dns,
    reverse_mx: ReverseMx,
    max_hosts: usize,
    judges: Vec<Judge>,
}

/// The input of an audit.
#[derive(Debug, Clone)]
pub struct Question {
    domain: DomainName,
    sender: Mailbox,
    egress: Vec<IpAddr>,
    /// The argument of EHLO; `None` for the confirmed PTR name of the address, or else the domain.
    pub helo: Option<String>,
    /// Whether the report has each rung too.
    pub rungs: bool,
}

/// Why a question can't be audited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Receivers never see such an address, so that the rest of the audit would be meaningless.
    #[error("{0}: not an address of the public Internet; give the one that receivers see")]
    Address(IpAddr),
    /// The sender isn't at the domain.
    #[error("{sender}: must be an address at {domain}")]
    Sender { sender: Mailbox, domain: DomainName },
    /// The domain is too long for an address of `postmaster`.
    #[error("{0}")]
    Postmaster(String),
}

/// The result of an audit; the number is the exit code of `rmxd audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AuditResult {
    /// Mail over every address is accepted.
    Accepted = 0,
    /// Mail over at least one address would be lost.
    Lost = 1,
    /// DNS failures left the result open, and there is no other fault.
    Unknown = 75,
}

impl Question {
    /// Takes each address once. The default sender is the domain's postmaster.
    ///
    /// # Errors
    /// The sender isn't at the domain.
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
    /// The report lists the judges in this order.
    pub fn new(dns: Dns, settings: reverse_mx::Settings, judges: Vec<Judge>) -> Self {
        let max_hosts = settings.max_mx_hosts;
        Self { reverse_mx: ReverseMx::new(dns.clone(), settings), dns, max_hosts, judges }
    }

    /// # Errors
    /// A receiver can't see one of the addresses.
    pub async fn audit(&self, question: &Question) -> Result<Report, Unfit> {
        if let Some(address) = question.egress.iter().find(|address| !self.reverse_mx.is_usable(**address)) {
            return Err(Unfit::Address(*address));
        }
        Ok(Report::of(Inquiry { auditor: self, question }.gather().await))
    }
}

/// Parses the domain of an audit.
///
/// # Errors
/// What is allowed.
pub fn domain(text: &str) -> Result<DomainName, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match DomainName::parse_unicode(name) {
        Ok(name) if !name.is_single_label() && !name.is_ip_text() => Ok(name),
        Ok(_) | Err(_) => Err("must be a domain name such as example.com".to_owned()),
    }
}

/// Parses a sender, with or without angle brackets.
///
/// # Errors
/// What is allowed.
pub fn mailbox(text: &str) -> Result<Mailbox, String> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    let mailbox = Mailbox::parse(inner).map_err(|error| error.to_string())?;
    match mailbox.domain() {
        Domain::Name(_) => Ok(mailbox),
        Domain::Literal(_) => Err("must have a domain name behind the @".to_owned()),
    }
}

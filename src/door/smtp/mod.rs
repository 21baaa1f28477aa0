//! The SMTP door: one connection, from the banner to the close.
//!
//! The door owns the socket and drives the pure [`crate::session`]: each effect is carried out here (the gate is
//! asked, the relay opened with the permit of the gate, the message streamed) and its result is the next event.

mod connection;
mod incoming;
mod message;
mod relayed;
mod wire;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use crate::door::smtp::connection::SmtpDoor;
use crate::gate::Client;
use crate::smtp::framing::BareNewline;
use crate::smtp::pattern::DomainPattern;

/// The limits of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Longest command line in octets, with CRLF.
    pub command_line: usize,
    /// Largest header block in octets.
    pub header_block: usize,
    /// Largest message in octets.
    pub message: u64,
    /// For the client's next command.
    pub command_timeout: Duration,
    /// For the client's next piece of the message.
    pub data_timeout: Duration,
    /// For the whole connection.
    pub session: Duration,
    /// How long the banner is held back; a client that sends something before it is refused. Zero: not at all.
    pub banner_delay: Duration,
    /// Clients that may announce another client by XCLIENT.
    pub trusted_xclient: Vec<IpNet>,
    /// Line ends that aren't CRLF, of clients that aren't exempt.
    pub bare_newline: BareNewline,
    /// Recipient domains accepted; empty = the relay decides.
    pub recipient_domains: Vec<DomainPattern>,
}

impl Settings {
    /// Line ends of a client. Those of an exempt client are always normalised: it is to get through (contract 1.9, 3.7).
    fn bare_newline(&self, client: &Client) -> BareNewline {
        if client.is_exempt() { BareNewline::Normalize } else { self.bare_newline }
    }

    /// Whether a client (canonical address) may say XCLIENT.
    fn trusts_xclient(&self, client: IpAddr) -> bool {
        self.trusted_xclient.iter().any(|network| network.contains(&client))
    }
}

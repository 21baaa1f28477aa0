//! The SMTP door's settings, and what all its connections share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::gate::{Client, Gate};
use crate::relay::Relay;
use crate::session::{self, Offer};
use crate::smtp::framing::BareNewline;
use crate::smtp::pattern::DomainPattern;
use crate::tls;

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
    pub(super) fn bare_newline(&self, client: &Client) -> BareNewline {
        if client.is_exempt() { BareNewline::Normalize } else { self.bare_newline }
    }

    /// Whether a client (canonical address) may send XCLIENT.
    pub(super) fn trusts_xclient(&self, client: IpAddr) -> bool {
        self.trusted_xclient.iter().any(|network| network.contains(&client))
    }
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct SmtpDoor {
    /// The limits of one connection.
    pub settings: Arc<Settings>,
    /// The dialogue's host name and limits.
    pub session: Arc<session::Settings>,
    /// Makes the decisions.
    pub gate: Arc<Gate>,
    /// The next hop of accepted mail.
    pub relay: Relay,
    /// Our certificate; with one, STARTTLS is offered.
    pub tls: Option<tls::Acceptor>,
}

impl SmtpDoor {
    /// What the reply to EHLO offers this client.
    pub(super) fn offer(&self, client: IpAddr) -> Offer {
        let relay = self.relay.capabilities();
        let limit = self.settings.message;
        Offer {
            size: relay.size_for_clients().map_or(limit, |size| size.min(limit)),
            eight_bit_mime: relay.eight_bit_mime,
            xclient: self.settings.trusts_xclient(client),
            smtputf8: relay.smtputf8,
            dsn: relay.dsn,
            starttls: self.tls.is_some(),
        }
    }
}

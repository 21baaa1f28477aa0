//! The input of a transaction at the next hop: client, sender, recipient and the parameters of their commands.

use std::net::SocketAddr;

use compact_str::CompactString;

use crate::smtp::address::{DomainName, ForwardPath, ReversePath};
use crate::smtp::command::RcptParameters;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    pub address: SocketAddr,
    pub name: ClientName,
    /// The argument of its HELO or EHLO as given; not to be trusted.
    pub helo: CompactString,
    /// EHLO, not HELO.
    pub esmtp: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// The name of the PTR record; it has the client's address.
    Confirmed(DomainName),
    /// No PTR record, or the name isn't confirmed.
    Unknown,
    /// The DNS lookup failed.
    TempUnknown,
}

/// Client, sender and parameters of MAIL. The parameters are as the client gave them, and checked.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    pub client: &'a ClientInfo,
    pub reverse_path: &'a ReversePath,
    /// SIZE as the client declared it.
    pub size: Option<u64>,
    /// BODY=8BITMIME.
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531): the message doesn't go to a relay without it.
    pub smtputf8: bool,
    /// RET (RFC 3461 4.3); sent where the relay offers DSN.
    pub ret: Option<&'a str>,
    /// ENVID (RFC 3461 4.4), still in xtext; sent where the relay offers DSN.
    pub envid: Option<&'a str>,
    /// The transaction's id, for the log.
    pub id: &'a str,
}

impl<'a> Envelope<'a> {
    #[must_use]
    pub fn new(client: &'a ClientInfo, reverse_path: &'a ReversePath, id: &'a str) -> Self {
        Self {
            client,
            reverse_path,
            size: None,
            eight_bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
            id,
        }
    }
}

/// A recipient as the client named it.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    pub path: &'a ForwardPath,
    /// NOTIFY and ORCPT (RFC 3461 4); sent where the relay offers DSN.
    pub parameters: &'a RcptParameters,
}

static NO_PARAMETERS: RcptParameters = RcptParameters { notify: None, orcpt: None, utf8: false };

impl<'a> Recipient<'a> {
    #[must_use]
    pub fn new(path: &'a ForwardPath) -> Self {
        Self { path, parameters: &NO_PARAMETERS }
    }
}

//! What opens a transaction at the next hop: the client, the sender, a recipient, and what their commands said besides.

use std::net::SocketAddr;

use compact_str::CompactString;

use crate::smtp::address::{DomainName, ForwardPath, ReversePath};
use crate::smtp::command::RcptParameters;

/// Who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its name.
    pub name: ClientName,
    /// How it greeted: as given, not to be trusted.
    pub helo: CompactString,
    /// Whether it greeted with EHLO.
    pub esmtp: bool,
}

/// What is known of the client's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientName {
    /// The PTR record's name, which has the client's address.
    Confirmed(DomainName),
    /// There is none, or it isn't confirmed.
    Unknown,
    /// DNS didn't say.
    TempUnknown,
}

/// What opens a transaction. Values of parameters are as the client gave them, and checked.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Who sends it to us.
    pub client: &'a ClientInfo,
    /// Where bounces go.
    pub reverse_path: &'a ReversePath,
    /// SIZE as the client declared it.
    pub size: Option<u64>,
    /// Whether the client said BODY=8BITMIME.
    pub eight_bit: bool,
    /// Whether the client said SMTPUTF8 (RFC 6531): a relay that can't take it gets nothing.
    pub smtputf8: bool,
    /// RET (RFC 3461 4.3); sent where the relay offers DSN.
    pub ret: Option<&'a str>,
    /// ENVID (RFC 3461 4.4), still in xtext; sent where the relay offers DSN.
    pub envid: Option<&'a str>,
    /// The transaction's id, for the log.
    pub id: &'a str,
}

impl<'a> Envelope<'a> {
    /// Without parameters.
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
    /// Its address.
    pub path: &'a ForwardPath,
    /// What RCPT said besides (RFC 3461 4); sent where the relay offers DSN.
    pub parameters: &'a RcptParameters,
}

/// What RCPT says besides when it says nothing.
static NO_PARAMETERS: RcptParameters = RcptParameters { notify: None, orcpt: None, utf8: false };

impl<'a> Recipient<'a> {
    /// Without parameters.
    #[must_use]
    pub fn new(path: &'a ForwardPath) -> Self {
        Self { path, parameters: &NO_PARAMETERS }
    }
}

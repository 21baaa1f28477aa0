//! `[relay]` as the next hop needs it: where mail goes, who is named there, and the bounds of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// `relay.next_hop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// `maildir:PATH`.
    Maildir(PathBuf),
    /// `smtp://HOST:PORT`; the host is a name or an address (IPv6 in brackets), the port is 25 when left out.
    Smtp {
        /// Name or address, without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl fmt::Display for NextHop {
    /// As the configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maildir(path) => write!(f, "maildir:{}", path.display()),
            Self::Smtp { host, port } if host.contains(':') => write!(f, "smtp://[{host}]:{port}"),
            Self::Smtp { host, port } => write!(f, "smtp://{host}:{port}"),
        }
    }
}

/// How the relay learns who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdentity {
    /// XCLIENT where the relay offers it, else XFORWARD where it offers that, else nothing.
    Auto,
    /// XCLIENT; a relay without it is not used.
    Xclient,
    /// XFORWARD, for the relay's log; a relay without it is not used.
    Xforward,
    /// A PROXY header, version 2, before everything else. Nothing tells whether the relay expects one.
    ProxyV2,
    /// Nothing is said.
    None,
}

/// Whether the connection to the relay is encrypted. Its certificate isn't checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    None,
    /// Where the relay offers STARTTLS and the handshake works (RFC 7435), else not.
    Opportunistic,
    /// Always; to a relay that can't, no mail goes.
    Required,
}

/// `[relay]` as the next hop needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where mail goes.
    pub next_hop: NextHop,
    /// How the relay learns the client.
    pub identity: ClientIdentity,
    /// Connections to the relay at one time.
    pub max_connections: usize,
    /// Messages after which a connection is closed.
    pub messages_per_connection: u32,
    /// Octets a second that keep a client's hold on a connection while others wait for one.
    pub data_rate: u64,
    /// How long a client is waited for in one transaction, while others wait for a connection.
    pub message_time: Duration,
    /// For the connection and the greeting.
    pub connect_timeout: Duration,
    /// For each reply, and for each write that makes no progress; for the answer to the final dot, twice as long.
    pub reply_timeout: Duration,
    /// Whether XCLIENT is needed because rmxd has no list of recipient domains of its own (contract 1.7).
    pub xclient_required: bool,
    /// Our own name, for EHLO.
    pub hostname: String,
    /// Encryption.
    pub tls: Tls,
}

impl Settings {
    /// Whether a connection made by these may serve a session that has the others.
    pub(super) fn makes_the_same_connections(&self, others: &Self) -> bool {
        let what = |it: &Self| {
            (it.identity, it.tls, it.xclient_required, it.reply_timeout, it.messages_per_connection)
        };
        what(self) == what(others) && self.next_hop == others.next_hop && self.hostname == others.hostname
    }
}

//! The resolved settings of `[relay]`: the next hop, the client's identity there and the limits.

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

/// The way in which the relay learns the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIdentity {
    /// XCLIENT where the relay offers it, else XFORWARD where it offers that, else nothing.
    Auto,
    /// XCLIENT; a relay without it is not used.
    Xclient,
    /// XFORWARD, for the relay's log; a relay without it is not used.
    Xforward,
    /// A PROXY header, version 2, before everything else. Whether the relay expects one can't be detected.
    ProxyV2,
    /// The relay sees rmxd alone.
    None,
}

/// Whether the connection to the relay is encrypted. Its certificate isn't checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    None,
    /// Where the relay offers STARTTLS and the handshake works (RFC 7435), else not.
    Opportunistic,
    /// Always; a relay without STARTTLS gets no mail.
    Required,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub next_hop: NextHop,
    pub identity: ClientIdentity,
    /// Connections to the relay at one time.
    pub max_connections: usize,
    /// Messages after which a connection is closed.
    pub messages_per_connection: u32,
    /// Octets a second: a slower client loses its connection to the relay while others wait for one.
    pub data_rate: u64,
    /// The longest wait for a client in one transaction while others wait for a connection.
    pub message_time: Duration,
    /// For the connection and the greeting.
    pub connect_timeout: Duration,
    /// For each reply, and for each write that makes no progress; for the answer to the final dot, twice as long.
    pub reply_timeout: Duration,
    /// Without `relay.domains` XCLIENT is required: the relay has to decide which domains it accepts (contract 1.7).
    pub xclient_required: bool,
    /// For EHLO.
    pub hostname: String,
    pub tls: Tls,
}

impl Settings {
    /// Whether a connection made with these settings may serve a session with the others.
    pub(super) fn makes_the_same_connections(&self, others: &Self) -> bool {
        let what = |it: &Self| {
            (it.identity, it.tls, it.xclient_required, it.reply_timeout, it.messages_per_connection)
        };
        what(self) == what(others) && self.next_hop == others.next_hop && self.hostname == others.hostname
    }
}

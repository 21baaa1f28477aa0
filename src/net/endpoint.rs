//! Where a listener is, as the configuration has it: an address with a port, or the path of a unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What stands before the path of a unix socket.
const UNIX: &str = "unix:";
/// The longest path in octets: `sun_path` has 108 octets, and the last is NUL (unix(7)).
const LONGEST_PATH: usize = 107;

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `127.0.0.1:25`
    Tcp(SocketAddr),
    /// `unix:/run/rmxd/admin`
    Unix(PathBuf),
}

/// What the connections of a listener are for. Each has a key below `[listen]`, and sockets that systemd passes have
/// its name (contract 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Clients deliver mail.
    Smtp,
    /// Postfix presents mail as to a milter.
    Milter,
    /// Postfix asks for a policy.
    Policy,
    /// Operators ask by HTTP.
    Admin,
}

impl Purpose {
    pub const ALL: [Self; 4] = [Self::Smtp, Self::Milter, Self::Policy, Self::Admin];

    /// As in `FileDescriptorName=` and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Milter => "milter",
            Self::Policy => "policy",
            Self::Admin => "admin",
        }
    }

    /// The SMTP door judges a client by its address, which a unix socket doesn't have.
    #[must_use]
    pub fn allows_unix(self) -> bool {
        self != Self::Smtp
    }
}

impl Endpoint {
    /// The address; `None` for a unix socket.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }

    /// Reads the endpoint of a listener for this purpose.
    ///
    /// # Errors
    /// What is allowed, to be put behind the value.
    pub fn parse(text: &str, purpose: Purpose) -> Result<Self, String> {
        let Some(path) = text.strip_prefix(UNIX) else {
            let address = text.parse().map(Self::Tcp);
            return address.map_err(|_syntax: std::net::AddrParseError| purpose.allowed());
        };
        if !purpose.allows_unix() {
            return Err(format!(
                "must be an address with a port: {} needs the address of the client, which a unix socket doesn't have",
                purpose.name()
            ));
        }
        unix_path(path).map(|path| Self::Unix(path.to_owned()))
    }
}

impl Purpose {
    fn allowed(self) -> String {
        let address = "must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\"";
        if self.allows_unix() {
            format!("{address}, or a unix socket such as \"unix:/run/rmxd/{}\"", self.name())
        } else {
            address.to_owned()
        }
    }
}

fn unix_path(path: &str) -> Result<&Path, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(
            "must name a unix socket by its absolute path, such as \"unix:/run/rmxd/admin\"".to_owned()
        );
    }
    if path.len() > LONGEST_PATH {
        return Err(format!("has a path of {} octets: at most {LONGEST_PATH}", path.len()));
    }
    Ok(Path::new(path))
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "{UNIX}{}", path.display()),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_or_a_path_and_reads_as_it_was_written() {
        let longest = format!("unix:/{}", "x".repeat(LONGEST_PATH - 1));
        for text in ["127.0.0.1:25", "[::1]:2525", "[::]:0", "unix:/run/rmxd/milter", longest.as_str()] {
            assert_eq!(
                Endpoint::parse(text, Purpose::Milter).map(|endpoint| endpoint.to_string()),
                Ok(text.into())
            );
        }
    }

    #[test]
    fn an_error_names_what_is_allowed() {
        let address = "must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\"";
        let either = |name| format!("{address}, or a unix socket such as \"unix:/run/rmxd/{name}\"");
        let absolute =
            "must name a unix socket by its absolute path, such as \"unix:/run/rmxd/admin\"".to_owned();
        let rows = [
            ("localhost:25", Purpose::Smtp, address.to_owned()),
            ("127.0.0.1", Purpose::Admin, either("admin")),
            ("/run/rmxd/policy", Purpose::Policy, either("policy")),
            ("UNIX:/run/rmxd/policy", Purpose::Policy, either("policy")),
            ("unix:", Purpose::Admin, absolute.clone()),
            ("unix:run/rmxd", Purpose::Milter, absolute.clone()),
            ("unix:/run/rmxd/", Purpose::Milter, absolute.clone()),
            ("unix:/run/\0", Purpose::Milter, absolute),
            (
                "unix:/run/rmxd/smtp",
                Purpose::Smtp,
                "must be an address with a port: smtp needs the address of the client, which a unix socket doesn't have"
                    .to_owned(),
            ),
        ];
        for (text, purpose, expected) in rows {
            assert_eq!(Endpoint::parse(text, purpose), Err(expected), "{text}");
        }
        let long = Endpoint::parse(&format!("unix:/{}", "x".repeat(LONGEST_PATH)), Purpose::Admin);
        assert_eq!(long, Err("has a path of 108 octets: at most 107".to_owned()));
    }

    #[test]
    fn a_unix_socket_and_loopback_are_local() {
        let rows = [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("unix:/run/rmxd/admin", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.0.2.1:1", false),
        ];
        for (text, local) in rows {
            assert_eq!(Endpoint::parse(text, Purpose::Admin).unwrap().is_local(), local, "{text}");
        }
    }
}

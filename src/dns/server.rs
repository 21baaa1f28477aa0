//! The addresses of DNS servers as text: in the configuration, in /etc/resolv.conf, in messages.
//!
//! A link-local address means something only with its interface (RFC 4007 11): `fe80::1%eth0`. Interfaces are looked up
//! by name when the text is read, and by number when an address is shown. resolv.conf is read here because hickory
//! drops the interface.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::net::netdevice::{index_to_name, name_to_index};

use crate::dns::settings::SetupError;

const PORT: u16 = 53;
const SYSTEM: &str = "/etc/resolv.conf";

/// Why a text is no server's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address at all.
    #[error("is not an address such as \"192.0.2.53\", \"127.0.0.1:5353\", \"[::1]:53\" or \"fe80::1%eth0\"")]
    Syntax,
    /// The address is link-local and has no interface.
    #[error("is a link-local address without its interface, such as \"fe80::1%eth0\"")]
    Unscoped,
    /// The address has an interface and is not link-local.
    #[error("has an interface, and only a link-local address (fe80::/10) can")]
    NotLinkLocal,
    /// There is no such interface.
    #[error("names the network interface {0:?}, and this machine has none of that name")]
    Interface(String),
}

/// Reads `192.0.2.53`, `127.0.0.1:5353`, `::1`, `[::1]:5353`, `fe80::1%eth0` or `[fe80::1%eth0]:5353`.
///
/// # Errors
/// It is none of these, or the interface doesn't exist.
pub fn parse_server(text: &str) -> Result<SocketAddr, AddressError> {
    if let Some(address) = text.parse::<SocketAddr>().ok().filter(|server| !has_scope(server)) {
        return scoped(address.ip(), None, address.port());
    }
    let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        Some((address, port)) => (address, port.parse().map_err(|_not_a_number| AddressError::Syntax)?),
        None => (text, PORT),
    };
    let (address, interface) = match address.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (address, None),
    };
    let address = address.parse().map_err(|_syntax| AddressError::Syntax)?;
    scoped(address, interface, port)
}

fn has_scope(server: &SocketAddr) -> bool {
    matches!(server, SocketAddr::V6(server) if server.scope_id() != 0)
}

fn scoped(address: IpAddr, interface: Option<&str>, port: u16) -> Result<SocketAddr, AddressError> {
    if port == 0 || interface == Some("") {
        return Err(AddressError::Syntax);
    }
    match (address, interface) {
        (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
            let scope = scope(interface).ok_or_else(|| AddressError::Interface(interface.to_owned()))?;
            Ok(SocketAddrV6::new(address, port, 0, scope).into())
        }
        (IpAddr::V6(address), None) if address.is_unicast_link_local() => Err(AddressError::Unscoped),
        (IpAddr::V4(_) | IpAddr::V6(_), Some(_)) => Err(AddressError::NotLinkLocal),
        (address, None) => Ok(SocketAddr::new(address, port)),
    }
}

/// The number of an interface, by its name or number. A name may consist of digits, so it goes first.
fn scope(interface: &str) -> Option<u32> {
    let socket = any_socket()?;
    name_to_index(&socket, interface).ok().or_else(|| {
        let number = interface.parse().ok()?;
        index_to_name(&socket, number).ok().map(|_name| number)
    })
}

/// The system calls that know interfaces want a socket.
fn any_socket() -> Option<UdpSocket> {
    let v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok();
    v4.or_else(|| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).ok())
}

/// A server's address as it is written in the configuration, with the port: `[fe80::1%eth0]:53`.
#[derive(Debug, Clone, Copy)]
pub struct ServerName(pub SocketAddr);

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interface = match self.0 {
            SocketAddr::V6(server) if server.scope_id() != 0 => {
                any_socket().and_then(|socket| index_to_name(socket, server.scope_id()).ok())
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => None,
        };
        match interface {
            Some(name) => write!(f, "[{}%{name}]:{}", self.0.ip(), self.0.port()),
            None => self.0.fmt(f),
        }
    }
}

/// The servers of the system's resolver configuration.
pub(super) fn system_servers() -> Result<Vec<SocketAddr>, SetupError> {
    let octets = std::fs::read(SYSTEM).map_err(|error| SetupError::System(error.to_string()))?;
    listed(&String::from_utf8_lossy(&octets))
}

/// The `nameserver` lines (resolv.conf(5)). A line that can't be used is skipped, as the C library does, unless none
/// can be used.
fn listed(text: &str) -> Result<Vec<SocketAddr>, SetupError> {
    let (mut servers, mut problem) = (Vec::new(), None);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("nameserver"), Some(address)) = (words.next(), words.next()) else {
            continue;
        };
        match parse_server(address) {
            Ok(server) if !servers.contains(&server) => servers.push(server),
            Ok(_) => {}
            Err(error) => problem = problem.or_else(|| Some(format!("nameserver {address:?} {error}"))),
        }
    }
    if servers.is_empty() {
        let problem = problem.unwrap_or_else(|| "it names no server".to_owned());
        return Err(SetupError::System(problem));
    }
    if let Some(problem) = problem {
        tracing::warn!(target: "rmxd::dns", "{SYSTEM}: {problem}: not used");
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interface 1 is the loopback on any Linux.
    #[test]
    fn an_address_has_a_port_or_not_and_where_it_is_link_local_an_interface() {
        let rows = [
            ("192.0.2.53", Ok("192.0.2.53:53")),
            ("127.0.0.1:5353", Ok("127.0.0.1:5353")),
            ("::1", Ok("[::1]:53")),
            ("[::1]:5353", Ok("[::1]:5353")),
            ("fe80::1%lo", Ok("[fe80::1%lo]:53")),
            ("fe80::1%1", Ok("[fe80::1%lo]:53")),
            ("[fe80::1%lo]:5353", Ok("[fe80::1%lo]:5353")),
            ("[fe80::1%1]:5353", Ok("[fe80::1%lo]:5353")),
            ("fe80::1", Err(AddressError::Unscoped)),
            ("[fe80::1]:53", Err(AddressError::Unscoped)),
            ("febf::1", Err(AddressError::Unscoped)),
            ("fe80::1%no-such", Err(AddressError::Interface("no-such".to_owned()))),
            ("fe80::1%4000000000", Err(AddressError::Interface("4000000000".to_owned()))),
            ("2001:db8::1%lo", Err(AddressError::NotLinkLocal)),
            ("192.0.2.53%lo", Err(AddressError::NotLinkLocal)),
            ("fe80::1%", Err(AddressError::Syntax)),
            ("[fe80::1%lo]:0", Err(AddressError::Syntax)),
            ("[fe80::1%lo]", Err(AddressError::Syntax)),
            ("127.0.0.1:0", Err(AddressError::Syntax)),
            ("127.0.0.1:99999", Err(AddressError::Syntax)),
            ("resolver.example", Err(AddressError::Syntax)),
            ("", Err(AddressError::Syntax)),
        ];
        for (text, expected) in rows {
            let read = parse_server(text).map(|server| ServerName(server).to_string());
            assert_eq!(read, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn the_systems_servers_are_its_nameserver_lines() {
        let names = |text| match listed(text) {
            Ok(servers) => servers.into_iter().map(|server| ServerName(server).to_string()).collect(),
            Err(error) => vec![error.to_string()],
        };
        let none =
            "dns.servers is empty and the system's resolver configuration (/etc/resolv.conf) is of no use: ";
        let rows: [(&str, Vec<String>); 6] = [
            (
                "# nameserver 192.0.2.1\n;nameserver 192.0.2.2\nsearch a.test\nnameserver 192.0.2.3 \nnameserver\t::1\n",
                vec!["192.0.2.3:53".into(), "[::1]:53".into()],
            ),
            ("nameserver fe80::1%lo # the router", vec!["[fe80::1%lo]:53".into()]),
            ("nameserver fe80::1%gone\nnameserver ::1\nnameserver ::1", vec!["[::1]:53".into()]),
            ("options edns0", vec![format!("{none}it names no server")]),
            ("", vec![format!("{none}it names no server")]),
            (
                "nameserver fe80::1%gone",
                vec![format!(
                    "{none}nameserver \"fe80::1%gone\" names the network interface \"gone\", and this machine has none of that name"
                )],
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(names(text), expected, "{text:?}");
        }
    }
}

//! Why a question didn't reach a server, by the error of the system.

use std::io::{self, ErrorKind};

use crate::evidence::DnsFailure;

/// The failure that an error of a socket stands for.
pub(super) fn failure(error: &io::Error) -> DnsFailure {
    match error.kind() {
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => {
            DnsFailure::NoRoute
        }
        ErrorKind::PermissionDenied => DnsFailure::Forbidden,
        ErrorKind::AddrNotAvailable => DnsFailure::NoAddress,
        ErrorKind::ConnectionRefused => DnsFailure::PortClosed,
        ErrorKind::TimedOut => DnsFailure::Timeout,
        _ => DnsFailure::NoSocket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_system_has_its_words() {
        let rows = [
            (rustix::io::Errno::NETUNREACH, "no answer, no route to the server"),
            (rustix::io::Errno::HOSTUNREACH, "no answer, no route to the server"),
            (rustix::io::Errno::NETDOWN, "no answer, no route to the server"),
            (rustix::io::Errno::ACCESS, "no answer, this machine doesn't let the question out"),
            (rustix::io::Errno::PERM, "no answer, this machine doesn't let the question out"),
            (rustix::io::Errno::ADDRNOTAVAIL, "no answer, no local address to ask from"),
            (rustix::io::Errno::CONNREFUSED, "no answer, the server's port is closed"),
            (rustix::io::Errno::TIMEDOUT, "timeout"),
            (rustix::io::Errno::MFILE, "no answer, no socket to ask by"),
            (rustix::io::Errno::NOBUFS, "no answer, no socket to ask by"),
        ];
        for (errno, words) in rows {
            assert_eq!(failure(&errno.into()).to_string(), words, "{errno:?}");
        }
    }
}

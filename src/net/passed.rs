//! Sockets that the service manager passes (sd_listen_fds(3)), told apart by their names (contract 7.4).

use std::io;

use listenfd::ListenFd;

use crate::net::{ListenError, Listener, Purpose};

/// Takes the sockets that were passed. Must be called before there are threads, and once: they are taken, and the
/// variables that announce them go with them.
///
/// # Errors
/// [`ListenError::Passed`]: a socket that isn't of a kind that its door can use, that doesn't listen (`Accept=yes`), or
/// that has a name of its own.
pub fn passed() -> Result<Vec<Listener>, ListenError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(descriptors.len());
    for index in 0..descriptors.len() {
        let listener = purpose(names.next().unwrap_or_default())
            .and_then(|purpose| take(&mut descriptors, index, purpose));
        listeners.extend(listener.map_err(|error| ListenError::Passed { number: index + 1, error })?);
    }
    Ok(listeners)
}

/// What a socket of this name is for. Without `FileDescriptorName=`, systemd gives the name of the unit (`rmxd.socket`),
/// and `unknown` where there is none.
fn purpose(name: &str) -> io::Result<Purpose> {
    if name.is_empty() || name == "unknown" || name.ends_with(".socket") {
        return Ok(Purpose::Smtp);
    }
    Purpose::ALL.into_iter().find(|purpose| purpose.name() == name).ok_or_else(|| {
        let what = format!(
            "it has the name {name:?}: FileDescriptorName= must be smtp, milter, policy or admin, or not be there (smtp)"
        );
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })
}

fn take(descriptors: &mut ListenFd, index: usize, purpose: Purpose) -> io::Result<Option<Listener>> {
    match descriptors.take_tcp_listener(index) {
        Err(_not_tcp) if purpose.allows_unix() => {
            let socket = descriptors.take_unix_listener(index)?;
            socket.map(|socket| Listener::of_passed_unix(purpose, socket)).transpose()
        }
        socket => socket?.map(|socket| Listener::of_passed_tcp(purpose, socket)).transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_the_door_of_its_name_and_without_a_name_for_smtp() {
        for (name, expected) in [
            ("", Purpose::Smtp),
            ("unknown", Purpose::Smtp),
            ("rmxd.socket", Purpose::Smtp),
            ("smtp", Purpose::Smtp),
            ("milter", Purpose::Milter),
            ("policy", Purpose::Policy),
            ("admin", Purpose::Admin),
        ] {
            assert_eq!(purpose(name).unwrap(), expected, "{name}");
        }
        for name in ["SMTP", "submission", "connection"] {
            let error = purpose(name).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("it has the name {name:?}: FileDescriptorName= must be")),
                "{error}"
            );
        }
    }
}

//! The listeners of a start: those that the service manager passed, each for the door of its name, and rmxd's own.

use crate::config::Settings;
use crate::daemon::StartError;
use crate::net::{Endpoint, Listener, OwnPlace, Purpose};
use crate::server;

/// All listeners, by the server that uses them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) doors: Vec<Listener>,
    pub(super) admin: Vec<Listener>,
}

impl Sockets {
    /// Binds the endpoints for which no socket was passed.
    ///
    /// # Errors
    /// An endpoint can't be bound.
    pub(super) fn open(settings: &Settings, passed: Vec<Listener>) -> Result<Self, StartError> {
        let (mut doors, mut admin) = (Vec::new(), Vec::new());
        for listener in passed {
            match listener.purpose() {
                Purpose::Smtp | Purpose::Milter | Purpose::Policy => doors.push(listener),
                Purpose::Admin => admin.push(listener),
            }
        }
        let doors = server::listeners(&settings.server, doors)?;
        let wanted = settings.admin.listen.iter();
        let missing: Vec<&Endpoint> =
            wanted.filter(|wanted| admin.iter().all(|passed| passed.endpoint() != *wanted)).collect();
        let passed: Vec<Endpoint> = admin.iter().map(|listener| listener.endpoint().clone()).collect();
        require_token(&passed, settings)?;
        for endpoint in missing {
            admin.push(Listener::bind(Purpose::Admin, endpoint)?);
        }
        Ok(Self { doors, admin })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = OwnPlace<'_>> {
        self.doors.iter().chain(&self.admin).map(Listener::own_place)
    }

    /// Whether mail comes by SMTP, so that a next hop is needed.
    pub(super) fn take_mail(&self) -> bool {
        self.doors.iter().any(|listener| listener.purpose() == Purpose::Smtp)
    }
}

/// The rule of `listen.admin`, for passed sockets: only this machine can connect, or there is a token.
pub(super) fn require_token(admin: &[Endpoint], settings: &Settings) -> Result<(), StartError> {
    match admin.iter().find(|endpoint| !endpoint.is_local()) {
        Some(endpoint) if settings.admin.token.is_none() => Err(StartError::NoToken(endpoint.clone())),
        Some(_) | None => Ok(()),
    }
}

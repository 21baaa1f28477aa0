//! Why a daemon can't start, or can't take other settings.

use crate::dns::SetupError;
use crate::net::{Endpoint, ListenError, OwnListener};
use crate::relay::RelayError;
use crate::store::OpenError;
use crate::store::shared::FleetError;
use crate::tls;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("dns.servers: {0}")]
    Dns(#[from] SetupError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(
        "the service manager passed {0} for the admin server: an address that is not loopback needs admin.token"
    )]
    NoToken(Endpoint),
    #[error("greylist: {0}")]
    Greylist(OpenError),
    #[error("permits: {0}")]
    Permits(OpenError),
    #[error("history.path: {0}")]
    History(OpenError),
    #[error("cluster.redis: {0}")]
    Fleet(FleetError),
    #[error("the store could not be opened: {0}")]
    StoreDied(tokio::task::JoinError),
    #[error(transparent)]
    Tls(#[from] tls::LoadError),
    #[error("relay.next_hop: {0}")]
    Relay(#[from] RelayError),
    #[error("relay.next_hop: {0}")]
    OwnRelay(#[from] OwnListener),
    #[error("the shipped policies of rmxd audit: {0}")]
    Auditor(String),
    #[error("no random numbers: {0}")]
    Random(std::io::Error),
}

impl StartError {
    /// Whether another attempt may succeed without a change of the configuration.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Listen(error) => matches!(error, ListenError::Bind { .. }),
            Self::Greylist(error) | Self::Permits(error) | Self::History(error) => error.is_temporary(),
            Self::StoreDied(_) | Self::Random(_) | Self::Fleet(FleetError::Cryptography) => true,
            Self::Fleet(FleetError::Refused(_)) => false,
            Self::Dns(_)
            | Self::NoToken(_)
            | Self::Tls(_)
            | Self::Relay(_)
            | Self::OwnRelay(_)
            | Self::Auditor(_) => false,
        }
    }
}

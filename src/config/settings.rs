//! The settings of all layers.

use crate::smtp::address::DomainName;
use crate::store::{greylist, history};
use crate::{admin, dns, door, gate, log, relay, reverse_mx, server, session, tls};

/// Everything, resolved: one value for each layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our own name, the authserv-id too.
    pub hostname: DomainName,
    /// The dialogue.
    pub session: session::Settings,
    /// One connection.
    pub door: door::Settings,
    /// The verdict.
    pub gate: gate::Settings,
    /// The look-ups.
    pub reverse_mx: reverse_mx::Settings,
    /// Who came before; `None` = no rule asks for that.
    pub greylist: Option<greylist::Settings>,
    /// What was decided; `None` = it is not kept.
    pub history: Option<history::Settings>,
    /// DNS.
    pub dns: dns::Settings,
    /// The next hop.
    pub relay: relay::Settings,
    /// Listeners.
    pub server: server::Settings,
    /// Health, metrics and the API.
    pub admin: admin::Settings,
    /// Our certificate; `None` = STARTTLS is not offered.
    pub tls: Option<tls::Settings>,
    /// The log.
    pub log: log::Settings,
}

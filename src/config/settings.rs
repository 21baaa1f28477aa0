//! The settings of all layers, resolved.

use std::path::PathBuf;

use crate::config::base::Base;
use crate::decision::Node;
use crate::smtp::address::DomainName;
use crate::store::{greylist, history, shared};
use crate::{admin, dns, door, gate, log, relay, reverse_mx, server, session, tls};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// rmxd's own host name, also its authserv-id (RFC 8601 2.5).
    pub hostname: DomainName,
    pub session: session::Settings,
    pub door: door::Settings,
    pub milter: door::milter::Settings,
    pub gate: gate::Settings,
    pub reverse_mx: reverse_mx::Settings,
    /// The file of greylist and permits.
    pub state: PathBuf,
    /// `None` if no rule has the action `greylist`.
    pub greylist: Option<greylist::Settings>,
    /// `None` if decisions aren't kept.
    pub history: Option<history::Settings>,
    pub dns: dns::Settings,
    pub relay: relay::Settings,
    pub server: server::Settings,
    pub admin: admin::Settings,
    /// `None` if STARTTLS isn't offered.
    pub tls: Option<tls::Settings>,
    /// This gate among several; 0 without others.
    pub node: Node,
    /// `None` without `cluster.redis`.
    pub cluster: Option<shared::Settings>,
    pub log: log::Settings,
    /// What these settings were made of; `None` for those that no configuration was read for.
    pub base: Option<Base>,
}

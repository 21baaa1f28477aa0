//! A next hop that is a listener of rmxd itself.

use std::net::{IpAddr, SocketAddr};

use crate::config::Settings;
use crate::config::reader::Reader;
use crate::net::own::reached;
use crate::net::{OwnListener, OwnPlace, Purpose};
use crate::relay::NextHop;
use crate::{admin, server};

/// Refuses a next hop whose address is in the configuration. Names are looked up later (`Settings::own_relay`), as reading a
/// configuration must not wait for DNS.
pub(super) fn refuse(
    next_hop: &NextHop,
    server: &server::Settings,
    admin: &admin::Settings,
    reader: &mut Reader<'_>,
) {
    let NextHop::Smtp { host, port } = next_hop else { return };
    let Ok(address) = host.parse::<IpAddr>() else { return };
    if let Some(own) = find(next_hop, &[SocketAddr::new(address, *port)], server, admin) {
        let listen = format!("listen.{}", own.purpose);
        reader.refuse_together(&["relay.next_hop", &listen], own.to_string());
    }
}

impl Settings {
    /// The listener of these settings that a connection to one of these addresses of the next hop reaches. Sockets that the
    /// service manager passes aren't known here.
    #[must_use]
    pub fn own_relay(&self, targets: &[SocketAddr]) -> Option<OwnListener> {
        find(&self.relay.next_hop, targets, &self.server, &self.admin)
    }
}

/// `None` without an SMTP listener too: nothing is sent to the next hop then.
fn find(
    next_hop: &NextHop,
    targets: &[SocketAddr],
    server: &server::Settings,
    admin: &admin::Settings,
) -> Option<OwnListener> {
    let doors = server.listen.iter().map(|(purpose, endpoint)| (*purpose, endpoint));
    if doors.clone().all(|(purpose, _)| purpose != Purpose::Smtp) {
        return None;
    }
    let all = doors.chain(admin.listen.iter().map(|endpoint| (Purpose::Admin, endpoint)));
    // rmxd's own listeners on [::] take IPv4 too.
    let all = all.map(|(purpose, endpoint)| OwnPlace { purpose, endpoint, only_v6: false });
    let OwnPlace { purpose, endpoint, .. } = reached(targets, all)?;
    Some(OwnListener { next_hop: next_hop.to_string(), purpose, endpoint: endpoint.clone(), origin: "" })
}

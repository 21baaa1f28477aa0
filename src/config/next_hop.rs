//! `[relay]`: the next hop and the connections to it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::config::raw::Raw;
use crate::config::reader::{MAX_COUNT, MAX_OCTETS, Reader};
use crate::relay;
use crate::smtp::address::DomainName;

pub(super) fn relay(
    raw: &Raw,
    hostname: Option<&DomainName>,
    reader: &mut Reader<'_>,
) -> Option<relay::Settings> {
    use relay::ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
    let identities = [
        ("auto", Auto),
        ("xclient", Xclient),
        ("xforward", Xforward),
        ("proxy-v2", ProxyV2),
        ("none", Nothing),
    ];
    let identity = reader.choice("relay.identity", &raw.relay.identity, &identities);
    let tls_modes = [
        ("none", relay::Tls::None),
        ("opportunistic", relay::Tls::Opportunistic),
        ("required", relay::Tls::Required),
    ];
    let tls = reader.choice("relay.tls", &raw.relay.tls, &tls_modes);
    let next_hop = reader.parsed("relay.next_hop", next_hop(&raw.relay.next_hop));
    let max_connections = reader.count("relay.max_connections", raw.relay.max_connections, 1..=MAX_COUNT);
    let messages =
        reader.count("relay.messages_per_connection", raw.relay.messages_per_connection, 1..=MAX_COUNT);
    let data_rate = reader.size("limits.data_rate", &raw.limits.data_rate, MAX_OCTETS);
    let message_time = reader.positive_duration("limits.message_time", &raw.limits.message_time);
    let connect_timeout = reader.positive_duration("relay.connect_timeout", &raw.relay.connect_timeout);
    let reply_timeout = reader.positive_duration("relay.reply_timeout", &raw.relay.reply_timeout);
    let xclient_required =
        matches!(next_hop, Some(relay::NextHop::Smtp { .. })) && raw.relay.domains.is_empty();
    if let Some(why) = identity.filter(|_| xclient_required).and_then(reason_for_domains) {
        reader.refuse_together(
            &["relay.identity", "relay.domains", "relay.next_hop"],
            format!(
                "relay.identity {:?} with an SMTP next hop needs relay.domains: {why}",
                raw.relay.identity
            ),
        );
    }
    if tls == Some(relay::Tls::Required) && matches!(next_hop, Some(relay::NextHop::Maildir(_))) {
        reader.refuse_together(
            &["relay.tls", "relay.next_hop"],
            "relay.tls \"required\" needs an SMTP next hop: a Maildir has no connection to encrypt",
        );
    }
    Some(relay::Settings {
        next_hop: next_hop?,
        identity: identity?,
        max_connections: max_connections?,
        messages_per_connection: messages.and_then(|messages| u32::try_from(messages).ok())?,
        data_rate: data_rate?,
        message_time: message_time?,
        connect_timeout: connect_timeout?,
        reply_timeout: reply_timeout?,
        xclient_required,
        hostname: hostname?.as_str().to_owned(),
        tls: tls?,
    })
}

/// Why a way to name the client needs `relay.domains`. Contract 1.7: only XCLIENT, which the relay must offer, can replace
/// that list.
fn reason_for_domains(identity: relay::ClientIdentity) -> Option<&'static str> {
    use relay::ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
    match identity {
        Auto | Xclient => None,
        Nothing => Some(
            "the relay sees rmxd's own host as the client, so that rmxd without a list would be an open relay",
        ),
        Xforward => Some(
            "XFORWARD is for the relay's log only, and its restrictions still see rmxd's own host as the client, so that \
             rmxd without a list would be an open relay",
        ),
        ProxyV2 => Some(
            "rmxd can't know whether the relay trusts the PROXY header; if it doesn't, rmxd without a list would be an open \
             relay",
        ),
    }
}

fn next_hop(text: &str) -> Result<relay::NextHop, String> {
    let invalid = || format!("{text:?} is not allowed: \"maildir:PATH\" or \"smtp://HOST:PORT\"");
    if let Some(path) = text.strip_prefix("maildir:") {
        let usable = !path.is_empty() && !path.contains('\0');
        return if usable { Ok(relay::NextHop::Maildir(PathBuf::from(path))) } else { Err(invalid()) };
    }
    let rest = text.strip_prefix("smtp://").ok_or_else(invalid)?;
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner.split_once(']').ok_or_else(invalid)?;
            let address: Ipv6Addr = address.parse().map_err(|_not_an_address| invalid())?;
            let port =
                if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(invalid)?) };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            let name = DomainName::parse_unicode(host).map_err(|_not_a_name| invalid())?;
            if name.is_ip_text() && host.parse::<Ipv4Addr>().is_err() {
                return Err(invalid());
            }
            (name.as_str().to_owned(), port)
        }
    };
    match port.map_or(Ok(25), str::parse) {
        Ok(port) if port != 0 => Ok(relay::NextHop::Smtp { host, port }),
        Ok(_) | Err(_) => Err(invalid()),
    }
}

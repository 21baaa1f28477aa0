//! From what the operator wrote to the settings of the layers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::problem::Problem;
use crate::config::raw::{self, Raw};
use crate::config::reader::Reader;
use crate::config::{Settings, exempt, later, rules};
use crate::policy::rule::Policy;
use crate::reverse_mx::PrivateAddresses;
use crate::smtp::address::DomainName;
use crate::smtp::framing::BareNewline;
use crate::smtp::pattern::DomainPattern;
use crate::store::{greylist, history};
use crate::{admin, dns, door, gate, log, relay, reverse_mx, server, session, tls};

/// What a socket address looks like.
pub(super) const SOCKET_WANTED: &str =
    "must be an address with a port, such as \"127.0.0.1:2525\" or \"[::1]:2525\"";
/// The header block is held in memory (contract 1.6), so that its bound has one of its own.
const MOST_HEADER: u64 = 16 << 20;
/// A client waits five minutes for the banner (RFC 5321 4.5.3.2.1).
const MOST_BANNER_DELAY: Duration = Duration::from_secs(240);
/// Far above what is useful, far below what overflows.
const MOST_OCTETS: u64 = 1 << 50;
/// The same for counts; it is also below what a semaphore can count to.
const MOST: i64 = 1_000_000;

/// A few thousand decisions.
const LEAST_HISTORY: u64 = 1 << 20;

/// What the greylist's file is called.
const GREYLIST: &str = "rmxd-greylist";

/// Every problem, or the settings. `system_name` is asked when the operator gave no `hostname`; what outlives a restart
/// goes to `state`.
pub(super) fn resolve(
    raw: &Raw,
    drain: Duration,
    state: &Path,
    system_name: impl FnOnce() -> String,
    mut reader: Reader<'_>,
) -> Result<Settings, Vec<Problem>> {
    let reading = &mut reader;
    later::refuse_unavailable(raw, reading);
    let hostname = hostname(&raw.hostname, system_name, reading);
    let domains = reading.list("relay.domains", &raw.relay.domains, pattern).unwrap_or_default();
    let relay = relay(raw, hostname.as_ref(), reading);
    let gate = gate::Settings {
        policy: rules::policy(&raw.policy, reading),
        exempt: exempt::exemptions(&raw.exempt, reading),
        help_url: help_url(&raw.reply.help_url, reading),
    };
    let door = door(raw, domains, reading);
    let session = session(raw, hostname.clone(), reading);
    let reverse_mx = reverse_mx(raw, reading);
    let greylist = greylist(raw, &gate.policy, reverse_mx.as_ref(), state, reading);
    let history = history(&raw.history, state, reading);
    let dns = dns(raw, reading);
    let server = server(raw, drain, reading);
    let admin = admin(raw, reading);
    let tls = tls(&raw.tls, reading);
    let log = log_settings(raw, reading);
    let problems = reader.into_problems();
    match (hostname, session, relay, reverse_mx, log) {
        (Some(hostname), Some(session), Some(relay), Some(reverse_mx), Some(log)) if problems.is_empty() => {
            Ok(Settings {
                hostname,
                session,
                door,
                gate,
                reverse_mx,
                greylist,
                history,
                dns,
                relay,
                server,
                admin,
                tls,
                log,
            })
        }
        _ => Err(problems),
    }
}

fn hostname(text: &str, system_name: impl FnOnce() -> String, reader: &mut Reader<'_>) -> Option<DomainName> {
    let own;
    let (text, hint) = if text.is_empty() {
        own = system_name();
        (own.as_str(), " (the system's name; set hostname to another)")
    } else {
        (text, "")
    };
    match DomainName::parse_unicode(text) {
        Ok(name) if !name.is_ip_text() => Some(name),
        Ok(_) | Err(_) => {
            reader
                .refuse("hostname", format!("{text:?} is not a host name such as \"mx.example.com\"{hint}"));
            None
        }
    }
}

fn relay(raw: &Raw, hostname: Option<&DomainName>, reader: &mut Reader<'_>) -> Option<relay::Settings> {
    use relay::ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
    let words = [
        ("auto", Auto),
        ("xclient", Xclient),
        ("xforward", Xforward),
        ("proxy-v2", ProxyV2),
        ("none", Nothing),
    ];
    let identity = reader.choice("relay.identity", &raw.relay.identity, &words);
    let words = [
        ("none", relay::Tls::None),
        ("opportunistic", relay::Tls::Opportunistic),
        ("required", relay::Tls::Required),
    ];
    let tls = reader.choice("relay.tls", &raw.relay.tls, &words);
    let next_hop = reader.parsed("relay.next_hop", next_hop(&raw.relay.next_hop));
    let max_connections = reader.count("relay.max_connections", raw.relay.max_connections, 1..=MOST);
    let messages = reader.count("relay.messages_per_connection", raw.relay.messages_per_connection, 1..=MOST);
    let data_rate = reader.size("limits.data_rate", &raw.limits.data_rate, MOST_OCTETS);
    let message_time = reader.time("limits.message_time", &raw.limits.message_time);
    let connect_timeout = reader.time("relay.connect_timeout", &raw.relay.connect_timeout);
    let reply_timeout = reader.time("relay.reply_timeout", &raw.relay.reply_timeout);
    let xclient_required =
        matches!(next_hop, Some(relay::NextHop::Smtp { .. })) && raw.relay.domains.is_empty();
    if let Some(why) = identity.filter(|_| xclient_required).and_then(needs_domains) {
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

/// contract 1.7: only XCLIENT, which the relay must have offered, stands in for a list of one's own.
fn needs_domains(identity: relay::ClientIdentity) -> Option<&'static str> {
    use relay::ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
    match identity {
        Auto | Xclient => None,
        Nothing => Some(
            "the relay takes every client for rmxd's own host, so that without a list this would be an open relay",
        ),
        Xforward => Some(
            "XFORWARD is for the relay's log, and its restrictions still see rmxd's own host, so that without a list \
             this would be an open relay",
        ),
        ProxyV2 => Some(
            "nothing shows whether the relay believes the PROXY header, and if it doesn't, without a list this would be \
             an open relay",
        ),
    }
}

fn next_hop(text: &str) -> Result<relay::NextHop, String> {
    let wrong = || format!("{text:?} is not allowed: \"maildir:PATH\" or \"smtp://HOST:PORT\"");
    if let Some(path) = text.strip_prefix("maildir:") {
        let usable = !path.is_empty() && !path.contains('\0');
        return if usable { Ok(relay::NextHop::Maildir(PathBuf::from(path))) } else { Err(wrong()) };
    }
    let rest = text.strip_prefix("smtp://").ok_or_else(wrong)?;
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner.split_once(']').ok_or_else(wrong)?;
            let address: Ipv6Addr = address.parse().map_err(|_not_an_address| wrong())?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(wrong)?) };
            (address.to_string(), port)
        }
        None => {
            let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
            let name = DomainName::parse_unicode(host).map_err(|_not_a_name| wrong())?;
            if name.is_ip_text() && host.parse::<Ipv4Addr>().is_err() {
                return Err(wrong());
            }
            (name.as_str().to_owned(), port)
        }
    };
    match port.map_or(Ok(25), str::parse) {
        Ok(port) if port != 0 => Ok(relay::NextHop::Smtp { host, port }),
        Ok(_) | Err(_) => Err(wrong()),
    }
}

/// An item of `relay.domains` and the like.
pub(super) fn pattern(text: &str) -> Result<DomainPattern, String> {
    DomainPattern::parse(text).map_err(|_not_a_name| {
        "is not a domain such as \"example.com\", or \".example.com\" with sub-domains".to_owned()
    })
}

/// An item of `exempt.clients` and the like.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_no_prefix| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_not_an_address| {
        "is not a network such as \"192.0.2.0/24\" or \"2001:db8::/32\", nor an address".to_owned()
    })?;
    if network != network.trunc() {
        return Err(format!("has bits set behind its prefix: \"{}\" is the network", network.trunc()));
    }
    Ok(network)
}

fn help_url(text: &str, reader: &mut Reader<'_>) -> String {
    // The reply line has room for 512 octets, and the id behind the URL must not be cut off.
    const MOST: usize = 200;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = host
        .is_some_and(|host| host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '['))
        && text.len() <= MOST
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.is_empty() && !good {
        reader.refuse(
            "reply.help_url",
            format!(
                "{text:?} is not allowed: an http:// or https:// URL of at most {MOST} octets, no blanks"
            ),
        );
    }
    text.trim_end_matches('/').to_owned()
}

fn door(raw: &Raw, recipient_domains: Vec<DomainPattern>, reader: &mut Reader<'_>) -> door::Settings {
    let limits = &raw.limits;
    let words = [("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
    let banner_delay = reader.duration("limits.banner_delay", &limits.banner_delay).unwrap_or_default();
    if banner_delay > MOST_BANNER_DELAY {
        reader.refuse(
            "limits.banner_delay",
            format!(
                "{:?} is not allowed: at most 4 minutes, since clients wait \
            for the banner no longer than 5 (RFC 5321 4.5.3.2.1)",
                limits.banner_delay
            ),
        );
    }
    let header_block = reader.size("limits.header_block", &limits.header_block, MOST_HEADER);
    door::Settings {
        // RFC 5321 4.5.3.1.4: 512 octets must be taken; a line is held in memory whole.
        command_line: reader
            .count("limits.command_line", limits.command_line, 512..=65536)
            .unwrap_or_default(),
        header_block: header_block.and_then(|octets| usize::try_from(octets).ok()).unwrap_or_default(),
        message: reader.size("limits.message", &limits.message, MOST_OCTETS).unwrap_or_default(),
        command_timeout: reader.time("limits.command_timeout", &limits.command_timeout).unwrap_or_default(),
        data_timeout: reader.time("limits.data_timeout", &limits.data_timeout).unwrap_or_default(),
        session: reader.time("limits.session", &limits.session).unwrap_or_default(),
        banner_delay,
        trusted_xclient: reader.list("trusted.xclient", &raw.trusted.xclient, network).unwrap_or_default(),
        bare_newline: reader
            .choice("limits.bare_newline", &limits.bare_newline, &words)
            .unwrap_or(BareNewline::Reject),
        recipient_domains,
    }
}

fn session(raw: &Raw, hostname: Option<DomainName>, reader: &mut Reader<'_>) -> Option<session::Settings> {
    let recipients = reader.count("limits.recipients", raw.limits.recipients, 1..=MOST);
    let errors = reader.count("limits.errors", raw.limits.errors, 1..=MOST);
    let junk_commands = reader.count("limits.junk_commands", raw.limits.junk_commands, 1..=MOST);
    Some(session::Settings {
        hostname: hostname?,
        recipients: recipients?,
        errors: errors?,
        junk_commands: junk_commands?,
    })
}

fn reverse_mx(raw: &Raw, reader: &mut Reader<'_>) -> Option<reverse_mx::Settings> {
    let words = [("reject", PrivateAddresses::Reject), ("accept", PrivateAddresses::Accept)];
    let max_mx_hosts = reader.count("dns.max_mx_hosts", raw.dns.max_mx_hosts, 1..=1000);
    let private_addresses = reader.choice("dns.private_addresses", &raw.dns.private_addresses, &words);
    let v4 = reader.count("policy.match_prefix_v4", raw.policy.match_prefix_v4, 0..=32);
    let v6 = reader.count("policy.match_prefix_v6", raw.policy.match_prefix_v6, 0..=128);
    Some(reverse_mx::Settings {
        max_mx_hosts: max_mx_hosts?,
        private_addresses: private_addresses?,
        match_prefix_v4: u8::try_from(v4?).ok()?,
        match_prefix_v6: u8::try_from(v6?).ok()?,
    })
}

/// `None` where no rule has that action: then there is no file either.
fn greylist(
    raw: &Raw,
    policy: &Policy,
    reverse_mx: Option<&reverse_mx::Settings>,
    state: &Path,
    reader: &mut Reader<'_>,
) -> Option<greylist::Settings> {
    let delay = reader.time("greylist.delay", &raw.greylist.delay)?;
    let expire = reader.time("greylist.expire", &raw.greylist.expire)?;
    if delay >= expire {
        reader.refuse_together(
            &["greylist.delay", "greylist.expire"],
            "greylist.delay must be less than greylist.expire, or nobody could come again in time",
        );
    }
    let reverse_mx = reverse_mx.filter(|_| policy.greylists())?;
    Some(greylist::Settings {
        path: state.join(GREYLIST),
        delay,
        expire,
        prefix_v4: reverse_mx.match_prefix_v4,
        prefix_v6: reverse_mx.match_prefix_v6,
    })
}

fn history(raw: &raw::History, state: &Path, reader: &mut Reader<'_>) -> Option<history::Settings> {
    let keep = reader.time("history.keep", &raw.keep);
    let size = reader.size("history.size", &raw.size, MOST_OCTETS);
    if size.is_some_and(|size| size < LEAST_HISTORY) {
        reader.refuse("history.size", format!("{:?} is not allowed: at least 1MiB", raw.size));
    }
    if raw.path.contains('\0') {
        reader.refuse("history.path", format!("{:?} is not the path of a folder", raw.path));
    }
    let path = Some(state.join(&raw.path)).filter(|_| !raw.path.is_empty())?;
    Some(history::Settings { path, keep: keep?, size: size? })
}

fn dns(raw: &Raw, reader: &mut Reader<'_>) -> dns::Settings {
    let cache = &raw.dns.cache;
    let min_ttl = reader.duration("dns.cache.min_ttl", &cache.min_ttl);
    let max_ttl = reader.duration("dns.cache.max_ttl", &cache.max_ttl);
    let max_negative_ttl = reader.duration("dns.cache.max_negative_ttl", &cache.max_negative_ttl);
    for (key, most) in [("dns.cache.max_ttl", max_ttl), ("dns.cache.max_negative_ttl", max_negative_ttl)] {
        if let (Some(least), Some(most)) = (min_ttl, most)
            && least > most
        {
            reader.refuse_together(
                &["dns.cache.min_ttl", key],
                format!("dns.cache.min_ttl must not be more than {key}"),
            );
        }
    }
    dns::Settings {
        servers: reader.list("dns.servers", &raw.dns.servers, dns_server).unwrap_or_default(),
        timeout: reader.time("dns.timeout", &raw.dns.timeout).unwrap_or_default(),
        cache: dns::CacheSettings {
            memory: reader.size("dns.cache.memory", &cache.memory, MOST_OCTETS).unwrap_or_default(),
            min_ttl: min_ttl.unwrap_or_default(),
            max_ttl: max_ttl.unwrap_or_default(),
            max_negative_ttl: max_negative_ttl.unwrap_or_default(),
            stale: reader.duration("dns.cache.stale", &cache.stale).unwrap_or_default(),
        },
    }
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    dns::parse_server(text).map_err(|error| error.to_string())
}

fn server(raw: &Raw, drain: Duration, reader: &mut Reader<'_>) -> server::Settings {
    let limits = &raw.limits;
    let socket = |text: &str| text.parse::<SocketAddr>().map_err(|_syntax| SOCKET_WANTED.to_owned());
    let listen = reader.list("listen.smtp", &raw.listen.smtp, socket);
    let per_client = reader.count("limits.connections_per_client", limits.connections_per_client, 1..=MOST);
    server::Settings {
        listen: listen.unwrap_or_default(),
        connections: reader.count("limits.connections", limits.connections, 1..=MOST).unwrap_or_default(),
        connections_per_client: per_client.unwrap_or_default(),
        trusted_proxy: reader.list("trusted.proxy", &raw.trusted.proxy, network).unwrap_or_default(),
        // The same as the door's, where its items are judged.
        trusted_xclient: raw.trusted.xclient.iter().filter_map(|item| network(item).ok()).collect(),
        drain,
    }
}

fn admin(raw: &Raw, reader: &mut Reader<'_>) -> admin::Settings {
    let (text, token) = (&raw.listen.admin, &raw.admin.token);
    // An Authorization header can carry no more (RFC 6750 2.1); the token itself is never shown.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.refuse("admin.token", "must be printable ASCII without blanks");
    }
    let listen = match text.parse::<SocketAddr>() {
        _ if text.is_empty() => None,
        Err(_) => {
            reader.refuse("listen.admin", SOCKET_WANTED);
            None
        }
        Ok(address) => {
            if !address.ip().to_canonical().is_loopback() && token.is_empty() {
                reader.refuse("listen.admin", "an address that is not loopback needs admin.token");
            }
            Some(address)
        }
    };
    admin::Settings { listen, token: admin::Token::new(token) }
}

fn tls(raw: &raw::Tls, reader: &mut Reader<'_>) -> Option<tls::Settings> {
    let raw::Tls { certificate, key } = raw;
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => None,
        (false, false) => Some(tls::Settings { certificate: certificate.into(), key: key.into() }),
        (true, false) | (false, true) => {
            reader.refuse_together(
                &["tls.certificate", "tls.key"],
                "tls.certificate and tls.key go together: both or neither",
            );
            None
        }
    }
}

fn log_settings(raw: &Raw, reader: &mut Reader<'_>) -> Option<log::Settings> {
    let words = [("text", log::Format::Text), ("json", log::Format::Json)];
    let format = reader.choice_with_later("log.format", &raw.log.format, &words, &["journald"]);
    let level = reader.parsed("log.level", log::filter(&raw.log.level));
    level?;
    Some(log::Settings { format: format?, level: raw.log.level.clone() })
}

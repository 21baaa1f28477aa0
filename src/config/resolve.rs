//! Converts the merged configuration into the settings of the layers.

use std::path::Path;
use std::time::Duration;

use crate::config::items::dns_server;
use crate::config::problem::Problem;
use crate::config::raw::{self, Raw};
use crate::config::reader::{MAX_COUNT, MAX_OCTETS, Reader};
use crate::config::settings::Settings;
use crate::config::{cluster, exempt, next_hop, own_relay, rules, senders};
use crate::exempt::entry::{network, pattern};
use crate::net::{Endpoint, Purpose};
use crate::policy::operator::Policy;
use crate::reverse_mx::PrivateAddresses;
use crate::smtp::address::DomainName;
use crate::smtp::framing::BareNewline;
use crate::smtp::pattern::DomainPattern;
use crate::store::{greylist, history};
use crate::{admin, dns, door, gate, log, reverse_mx, server, session, tls};

/// The header block is held in memory, so that the operator's limit has an upper bound (contract 1.6).
const MAX_HEADER_BLOCK: u64 = 16 << 20;
/// A client waits at most five minutes for the banner (RFC 5321 4.5.3.2.1).
const MAX_BANNER_DELAY: Duration = Duration::from_secs(240);
/// Postfix waits 30 s for the reply to a command at a milter (`milter_command_timeout`).
const MAX_MILTER_WAIT: Duration = Duration::from_secs(25);
/// Room for a few thousand decisions.
const MIN_HISTORY: u64 = 1 << 20;

/// The name of the file of greylist and permits.
const STATE_FILE: &str = "rmxd-state";

/// Returns the settings, or all problems. `system_name` gives the host name if the configuration has none; the folder
/// `state` is for data that outlives a restart.
pub(super) fn resolve(
    raw: &Raw,
    drain: Duration,
    state: &Path,
    system_name: impl FnOnce() -> String,
    mut reader: Reader<'_>,
) -> Result<Settings, Vec<Problem>> {
    let reading = &mut reader;
    let hostname = hostname(&raw.hostname, system_name, reading);
    let domains = reading.list("relay.domains", &raw.relay.domains, pattern).unwrap_or_default();
    let relay = next_hop::relay(raw, hostname.as_ref(), reading);
    let policy = rules::policy(&raw.policy, reading);
    let senders = senders::senders(&raw.policy.senders, &policy, reading);
    let gate = gate::Settings {
        policy: Policy { senders, ..policy },
        exempt: exempt::exemptions(&raw.exempt, reading),
        help_url: help_url(&raw.reply.help_url, reading),
    };
    let door = door(raw, domains, reading);
    let milter = milter(raw, reading);
    let session = session(raw, hostname.clone(), reading);
    let reverse_mx = reverse_mx(raw, reading);
    let greylist = greylist(raw, &gate.policy, reverse_mx.as_ref(), state, reading);
    let history = history(&raw.history, state, reading);
    let dns = dns(raw, reading);
    let server = server(raw, drain, reading);
    let admin = admin(raw, reading);
    if let Some(relay) = &relay {
        own_relay::refuse(&relay.next_hop, &server, &admin, reading);
    }
    let tls = tls(&raw.tls, hostname.as_ref(), reading);
    let log = log_settings(raw, reading);
    let node = cluster::node(&raw.cluster, reading);
    let cluster = cluster::cluster(raw, node, hostname.as_ref(), reading);
    let problems = reader.into_problems();
    match (hostname, session, relay, reverse_mx, milter, log) {
        (Some(hostname), Some(session), Some(relay), Some(reverse_mx), Some(milter), Some(log))
            if problems.is_empty() =>
        {
            Ok(Settings {
                hostname,
                session,
                door,
                milter,
                gate,
                reverse_mx,
                state: state.join(STATE_FILE),
                greylist,
                history,
                dns,
                relay,
                server,
                admin,
                tls,
                node: node.unwrap_or_default(),
                cluster,
                log,
                base: None,
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

fn help_url(text: &str, reader: &mut Reader<'_>) -> String {
    // A reply line has at most 512 octets (RFC 5321 4.5.3.1.5), and the id behind the URL must not be cut off.
    const MAX_URL: usize = 200;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let good = host
        .is_some_and(|host| host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '['))
        && text.len() <= MAX_URL
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !text.is_empty() && !good {
        reader.refuse(
            "reply.help_url",
            format!(
                "{text:?} is not allowed: an http:// or https:// URL of at most {MAX_URL} octets without white space"
            ),
        );
    }
    text.trim_end_matches('/').to_owned()
}

fn door(raw: &Raw, recipient_domains: Vec<DomainPattern>, reader: &mut Reader<'_>) -> door::Settings {
    let limits = &raw.limits;
    let bare_newline = [("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
    let banner_delay = reader.duration("limits.banner_delay", &limits.banner_delay).unwrap_or_default();
    if banner_delay > MAX_BANNER_DELAY {
        reader.refuse(
            "limits.banner_delay",
            format!(
                "{:?} is not allowed: at most 4 minutes, since clients wait \
            only 5 minutes for the banner (RFC 5321 4.5.3.2.1)",
                limits.banner_delay
            ),
        );
    }
    let header_block = reader.size("limits.header_block", &limits.header_block, MAX_HEADER_BLOCK);
    door::Settings {
        // RFC 5321 4.5.3.1.4: at least 512 octets. The upper bound is there because a line is held in memory whole.
        command_line: reader
            .count("limits.command_line", limits.command_line, 512..=65536)
            .unwrap_or_default(),
        header_block: header_block.and_then(|octets| usize::try_from(octets).ok()).unwrap_or_default(),
        message: reader.size("limits.message", &limits.message, MAX_OCTETS).unwrap_or_default(),
        command_timeout: reader
            .positive_duration("limits.command_timeout", &limits.command_timeout)
            .unwrap_or_default(),
        data_timeout: reader
            .positive_duration("limits.data_timeout", &limits.data_timeout)
            .unwrap_or_default(),
        session: reader.positive_duration("limits.session", &limits.session).unwrap_or_default(),
        banner_delay,
        trusted_xclient: reader.list("trusted.xclient", &raw.trusted.xclient, network).unwrap_or_default(),
        bare_newline: reader
            .choice("limits.bare_newline", &limits.bare_newline, &bare_newline)
            .unwrap_or(BareNewline::Reject),
        recipient_domains,
    }
}

fn milter(raw: &Raw, reader: &mut Reader<'_>) -> Option<door::milter::Settings> {
    use door::milter::Results::{Add, Keep, Remove};
    let choices = [("add", Add), ("remove", Remove), ("keep", Keep)];
    let results = reader.choice("milter.results", &raw.milter.results, &choices);
    Some(door::milter::Settings { results: results? })
}

fn session(raw: &Raw, hostname: Option<DomainName>, reader: &mut Reader<'_>) -> Option<session::Settings> {
    let recipients = reader.count("limits.recipients", raw.limits.recipients, 1..=MAX_COUNT);
    let errors = reader.count("limits.errors", raw.limits.errors, 1..=MAX_COUNT);
    let junk_commands = reader.count("limits.junk_commands", raw.limits.junk_commands, 1..=MAX_COUNT);
    Some(session::Settings {
        hostname: hostname?,
        recipients: recipients?,
        errors: errors?,
        junk_commands: junk_commands?,
    })
}

fn reverse_mx(raw: &Raw, reader: &mut Reader<'_>) -> Option<reverse_mx::Settings> {
    let choices = [("reject", PrivateAddresses::Reject), ("accept", PrivateAddresses::Accept)];
    let max_mx_hosts = reader.count("dns.max_mx_hosts", raw.dns.max_mx_hosts, 1..=1000);
    let private_addresses = reader.choice("dns.private_addresses", &raw.dns.private_addresses, &choices);
    let v4 = reader.count("policy.match_prefix_v4", raw.policy.match_prefix_v4, 0..=32);
    let v6 = reader.count("policy.match_prefix_v6", raw.policy.match_prefix_v6, 0..=128);
    Some(reverse_mx::Settings {
        max_mx_hosts: max_mx_hosts?,
        private_addresses: private_addresses?,
        match_prefix_v4: u8::try_from(v4?).ok()?,
        match_prefix_v6: u8::try_from(v6?).ok()?,
    })
}

/// `None` if no rule has the action `greylist`; then no file is made.
fn greylist(
    raw: &Raw,
    policy: &Policy,
    reverse_mx: Option<&reverse_mx::Settings>,
    state: &Path,
    reader: &mut Reader<'_>,
) -> Option<greylist::Settings> {
    let delay = reader.positive_duration("greylist.delay", &raw.greylist.delay)?;
    let expire = reader.positive_duration("greylist.expire", &raw.greylist.expire)?;
    if delay >= expire {
        reader.refuse_together(
            &["greylist.delay", "greylist.expire"],
            "greylist.delay must be less than greylist.expire, otherwise no retry could ever pass",
        );
    }
    let reverse_mx = reverse_mx.filter(|_| policy.greylists())?;
    Some(greylist::Settings {
        path: state.join(STATE_FILE),
        delay,
        expire,
        prefix_v4: reverse_mx.match_prefix_v4,
        prefix_v6: reverse_mx.match_prefix_v6,
    })
}

fn history(raw: &raw::History, state: &Path, reader: &mut Reader<'_>) -> Option<history::Settings> {
    let keep = reader.positive_duration("history.keep", &raw.keep);
    let size = reader.size("history.size", &raw.size, MAX_OCTETS);
    if size.is_some_and(|size| size < MIN_HISTORY) {
        reader.refuse("history.size", format!("{:?} is not allowed: at least 1MiB", raw.size));
    }
    if raw.path.contains('\0') {
        reader.refuse("history.path", format!("{:?} is not the path of a file", raw.path));
    }
    let path = Some(state.join(&raw.path)).filter(|_| !raw.path.is_empty())?;
    Some(history::Settings { path, keep: keep?, size: size? })
}

fn dns(raw: &Raw, reader: &mut Reader<'_>) -> dns::Settings {
    let cache = &raw.dns.cache;
    let min_ttl = reader.duration("dns.cache.min_ttl", &cache.min_ttl);
    let max_ttl = reader.duration("dns.cache.max_ttl", &cache.max_ttl);
    let max_negative_ttl = reader.duration("dns.cache.max_negative_ttl", &cache.max_negative_ttl);
    for (key, max) in [("dns.cache.max_ttl", max_ttl), ("dns.cache.max_negative_ttl", max_negative_ttl)] {
        if let (Some(min), Some(max)) = (min_ttl, max)
            && min > max
        {
            reader.refuse_together(
                &["dns.cache.min_ttl", key],
                format!("dns.cache.min_ttl must not be more than {key}"),
            );
        }
    }
    let timeout = reader.positive_duration("dns.timeout", &raw.dns.timeout).unwrap_or_default();
    if !raw.listen.milter.is_empty() && timeout * 3 >= MAX_MILTER_WAIT {
        reader.refuse_together(
            &["dns.timeout", "listen.milter"],
            "dns.timeout must be less than 8.3s with listen.milter: Postfix waits 30s for a milter, and rmxd up to \
             three times dns.timeout for DNS",
        );
    }
    dns::Settings {
        servers: reader.list("dns.servers", &raw.dns.servers, dns_server).unwrap_or_default(),
        timeout,
        cache: dns::CacheSettings {
            memory: reader.size("dns.cache.memory", &cache.memory, MAX_OCTETS).unwrap_or_default(),
            min_ttl: min_ttl.unwrap_or_default(),
            max_ttl: max_ttl.unwrap_or_default(),
            max_negative_ttl: max_negative_ttl.unwrap_or_default(),
            stale: reader.duration("dns.cache.stale", &cache.stale).unwrap_or_default(),
        },
    }
}

fn server(raw: &Raw, drain: Duration, reader: &mut Reader<'_>) -> server::Settings {
    let limits = &raw.limits;
    let listen = listen(&raw.listen, reader);
    let per_client =
        reader.count("limits.connections_per_client", limits.connections_per_client, 1..=MAX_COUNT);
    server::Settings {
        listen,
        connections: reader
            .count("limits.connections", limits.connections, 1..=MAX_COUNT)
            .unwrap_or_default(),
        connections_per_client: per_client.unwrap_or_default(),
        trusted_proxy: reader.list("trusted.proxy", &raw.trusted.proxy, network).unwrap_or_default(),
        // The door's list is the same; problems of its items are recorded there.
        trusted_xclient: raw.trusted.xclient.iter().filter_map(|item| network(item).ok()).collect(),
        trusted_postfix: reader.list("trusted.postfix", &raw.trusted.postfix, network).unwrap_or_default(),
        drain,
    }
}

/// The endpoints of all doors, each of them once.
fn listen(raw: &raw::Listen, reader: &mut Reader<'_>) -> Vec<(Purpose, Endpoint)> {
    let lists = [
        ("listen.smtp", &raw.smtp, Purpose::Smtp),
        ("listen.milter", &raw.milter, Purpose::Milter),
        ("listen.policy", &raw.policy, Purpose::Policy),
    ];
    let mut all: Vec<(Purpose, Endpoint)> = Vec::new();
    for (key, items, purpose) in lists {
        let endpoints = reader.list(key, items, |text| Endpoint::parse(text, purpose));
        for endpoint in endpoints.unwrap_or_default() {
            // Port 0 is any free port, another one for each.
            let has_port = endpoint.tcp().is_none_or(|address| address.port() != 0);
            if let Some((other, _)) = all.iter().find(|(_, taken)| has_port && *taken == endpoint) {
                reader.refuse(key, format!("\"{endpoint}\" is in listen.{other} too"));
            }
            all.push((purpose, endpoint));
        }
    }
    all
}

fn admin(raw: &Raw, reader: &mut Reader<'_>) -> admin::Settings {
    let (text, token) = (&raw.listen.admin, &raw.admin.token);
    // An Authorization header has room for nothing else (RFC 6750 2.1). The token itself is never shown.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.refuse("admin.token", "must be printable ASCII without white space");
    }
    let endpoint = (!text.is_empty()).then(|| Endpoint::parse(text, Purpose::Admin));
    let listen = endpoint.and_then(|endpoint| reader.parsed("listen.admin", endpoint));
    if token.is_empty() && listen.as_ref().is_some_and(|endpoint| !endpoint.is_local()) {
        reader.refuse("listen.admin", "an address that is not loopback needs admin.token");
    }
    admin::Settings { listen, token: admin::Token::new(token) }
}

fn tls(raw: &raw::Tls, hostname: Option<&DomainName>, reader: &mut Reader<'_>) -> Option<tls::Settings> {
    let raw::Tls { certificate, key } = raw;
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => None,
        (false, false) => hostname.map(|hostname| tls::Settings {
            certificate: certificate.into(),
            key: key.into(),
            hostname: hostname.clone(),
        }),
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
    let formats =
        [("text", log::Format::Text), ("json", log::Format::Json), ("journald", log::Format::Journald)];
    let format = reader.choice("log.format", &raw.log.format, &formats);
    let level = reader.parsed("log.level", log::filter(&raw.log.level));
    level?;
    Some(log::Settings { format: format?, level: raw.log.level.clone() })
}

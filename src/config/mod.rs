//! Loads the configuration and turns it into the settings of all modules.
//!
//! Four layers: built-in defaults < file < environment `RMXD__SECTION__KEY` < flags. `layer` checks the names and kinds of
//! each, the crate `config` merges them into one raw value (`raw`), and `resolve` converts that into [`Settings`].
//! Errors are found here, at start, and reported all at once; no value is guessed and no key is ignored.

mod base;
mod cluster;
mod document;
mod exempt;
mod items;
mod keys;
mod layer;
mod next_hop;
mod notes;
mod own_relay;
mod problem;
mod raw;
mod reader;
pub mod reference;
mod resolve;
mod rules;
mod senders;
mod settings;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::keys::Keys;
use crate::config::layer::Layer;
use crate::config::reader::Reader;

pub use crate::config::base::Base;
pub use crate::config::problem::{Origin, Problem};
pub use crate::config::settings::Settings;
pub use crate::config::value::{Row, Value};

/// The default of `serve --drain`.
pub const DRAIN: Duration = Duration::from_secs(30);

/// The part of the configuration that comes from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    /// Keys with values; commas separate the items of a list, and later entries override earlier ones.
    pub set: Vec<(String, String)>,
    /// [`crate::server::Settings::drain`].
    pub drain: Duration,
}

impl Default for Flags {
    fn default() -> Self {
        Self { set: Vec::new(), drain: DRAIN }
    }
}

/// The effective value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With its tables, as in `policy.helo.exists`.
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub settings: Settings,
    /// Every key, in the order of the commented default.
    pub entries: Vec<Entry>,
}

/// Loads the configuration, from the defaults, the environment and flags alone if `file` is `None`.
///
/// # Errors
/// All problems, in the order of the file, then environment, then flags.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &Flags,
) -> Result<Loaded, Vec<Problem>> {
    let Some(path) = file else {
        return load_text(None, environment, flags);
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let origin = Origin::File { path: path.to_owned(), position: None };
        vec![problem_of_all(origin, format!("can't be read: {error}"))]
    })?;
    load_text(Some((path, &text)), environment, flags)
}

/// As [`load`], with the text of a file that was read before or is compiled in.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &Flags,
) -> Result<Loaded, Vec<Problem>> {
    let defaults = keys::defaults().map_err(|errors| {
        errors.into_iter().map(|error| problem_of_all(Origin::Default, error.message)).collect::<Vec<_>>()
    })?;
    let keys = Keys::new(&defaults);
    let mut problems = Vec::new();
    let mut built_in = Layer::defaults(defaults);
    let mut layers = Vec::new();
    if let Some((path, text)) = file {
        layers.push(Layer::file(text, path, &keys, &mut problems));
    }
    if problems.iter().any(|problem| problem.key.is_empty()) {
        // The rest of a file with syntax errors would only give misleading problems.
        return Err(problems);
    }
    let environment: Vec<_> = environment.into_iter().collect();
    let state = state_folder(&environment);
    layers.push(Layer::environment(environment, &keys, &mut problems));
    layers.push(Layer::flags(&flags.set, &keys, &mut problems));
    let base = Base::new(std::iter::once(&built_in).chain(&layers).cloned().collect());
    drop_overridden_rungs(&mut built_in, &layers);
    layers.insert(0, built_in);

    let origins = origins(&layers);
    let resolved = merge(&layers)
        .map_err(|error| vec![problem_of_all(Origin::Default, error.to_string())])
        .and_then(|raw| resolve::resolve(&raw, flags.drain, &state, system_name, Reader::new(&origins)));
    match resolved {
        Ok(settings) if problems.is_empty() => {
            let entries = entries(&keys, &layers, &origins, &settings);
            Ok(Loaded { settings: Settings { base: Some(base), ..settings }, entries })
        }
        Ok(_) => Err(sorted(problems)),
        Err(more) => {
            problems.extend(more);
            Err(sorted(problems))
        }
    }
}

/// Rungs of `[policy]` that the operator sets apply to every identity for which the operator sets none: the built-in
/// rungs of that identity are removed. Those of `exists` for helo and ptr stay, since hardly any host name has an MX record.
fn drop_overridden_rungs(built_in: &mut Layer, layers: &[Layer]) {
    let rungs = [
        ("policy.exists_by", ["policy.from.exists_by", "policy.reply_to.exists_by"]),
        ("policy.matches_by", ["policy.from.matches_by", "policy.ptr.matches_by"]),
    ];
    for (general, own) in rungs {
        if layers.iter().any(|layer| layer.value(general).is_some()) {
            own.iter().for_each(|key| built_in.remove(key));
        }
    }
}

fn problem_of_all(origin: Origin, what: String) -> Problem {
    Problem { origin, key: String::new(), what }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|left, right| left.origin.cmp(&right.origin));
    problems.dedup();
    problems
}

fn merge(layers: &[Layer]) -> Result<raw::Raw, ::config::ConfigError> {
    let builder = ::config::Config::builder();
    let merged = layers.iter().fold(builder, |builder, layer| builder.add_source(layer.clone())).build()?;
    merged.try_deserialize()
}

fn origins(layers: &[Layer]) -> BTreeMap<String, Origin> {
    let all = layers.iter().flat_map(Layer::origins);
    all.map(|(key, origin)| (key.to_owned(), origin.clone())).collect()
}

/// Every key with its effective value: an identity without rungs of its own shows those of `[policy]`, and an empty
/// `hostname` the name of the system.
fn entries(
    keys: &Keys,
    layers: &[Layer],
    origins: &BTreeMap<String, Origin>,
    settings: &Settings,
) -> Vec<Entry> {
    let effective = |key: &str| {
        let value = match key {
            "hostname" => Value::Text(settings.hostname.as_str().to_owned()),
            _ => layers.iter().rev().find_map(|layer| layer.value(key))?.clone(),
        };
        Some((value, origins.get(key)?.clone()))
    };
    let entry = |key: &str| {
        let general = key.rsplit('.').next().map(|name| format!("policy.{name}"));
        let (value, origin) = effective(key).or_else(|| effective(&general?))?;
        Some(Entry { key: key.to_owned(), value, origin })
    };
    keys.names().filter_map(entry).collect()
}

/// The folder for files that outlive a restart: the first of those that systemd passes (`StateDirectory=`), else the
/// working directory, where a relative `maildir:` starts too.
fn state_folder(environment: &[(OsString, OsString)]) -> PathBuf {
    let given = environment.iter().find(|(name, _)| name == "STATE_DIRECTORY");
    given.and_then(|(_, folders)| std::env::split_paths(folders).next()).unwrap_or_default()
}

fn system_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Node;
    use crate::exempt::Exemptions;
    use crate::net::{Endpoint, Purpose};
    use crate::policy::operator::Policy;
    use crate::policy::rule::{Action, IdentityRules, Mode, OnDnsError, RejectAt, Rung};
    use crate::policy::senders::Senders;
    use crate::relay::{ClientIdentity, NextHop};
    use crate::reverse_mx::PrivateAddresses;
    use crate::smtp::address::DomainName;
    use crate::smtp::framing::BareNewline;
    use crate::store::{greylist, history};
    use crate::{admin, dns, door, gate, log, relay, reverse_mx, server, session};

    fn with(assignments: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let set = assignments.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load(None, [], &Flags { set, ..Flags::default() })
            .map(|loaded| loaded.settings)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn rules(exists: Action, matches: Action, exists_by: &[Rung], matches_by: &[Rung]) -> IdentityRules {
        IdentityRules { exists, matches, exists_by: exists_by.to_vec(), matches_by: matches_by.to_vec() }
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    #[test]
    fn the_defaults_are_as_documented() {
        use Rung::{Address, Dkim, Mx, Network, Organization, Ptr, Spf};
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let hostname = DomainName::parse("mx.example.com").unwrap();
        let expected = Settings {
            hostname: hostname.clone(),
            session: session::Settings { hostname, recipients: 1000, errors: 10, junk_commands: 100 },
            door: door::Settings {
                command_line: 2048,
                header_block: 256 << 10,
                message: 50 << 20,
                command_timeout: minutes(5),
                data_timeout: minutes(5),
                session: minutes(30),
                banner_delay: Duration::ZERO,
                trusted_xclient: vec![],
                bare_newline: BareNewline::Reject,
                recipient_domains: vec![],
            },
            milter: door::milter::Settings { results: door::milter::Results::Add },
            gate: gate::Settings {
                policy: Policy {
                    mode: Mode::Enforce,
                    reject_at: RejectAt::Rcpt,
                    on_dns_error: OnDnsError::Defer,
                    malformed: Action::Reject,
                    dmarc_quarantine: Action::Tag,
                    senders: Senders::default(),
                    helo: rules(Action::Off, Action::Off, &[Mx, Address], &[Mx, Network, Ptr, Spf]),
                    ptr: rules(Action::Tag, Action::Off, &[Mx, Organization], &[Mx, Network, Spf]),
                    mail_from: rules(Action::Reject, Action::Tag, &[Mx, Address], &[Mx, Network, Ptr, Spf]),
                    from: rules(
                        Action::Reject,
                        Action::Dmarc,
                        &[Mx, Address, Organization],
                        &[Mx, Network, Ptr, Spf, Dkim],
                    ),
                    reply_to: rules(
                        Action::Greylist,
                        Action::Off,
                        &[Mx, Address, Organization],
                        &[Mx, Network, Ptr, Spf],
                    ),
                },
                exempt: Exemptions {
                    recipients: vec!["postmaster".into(), "abuse".into()],
                    ..Exemptions::default()
                },
                help_url: String::new(),
            },
            reverse_mx: reverse_mx::Settings {
                max_mx_hosts: 20,
                private_addresses: PrivateAddresses::Reject,
                match_prefix_v4: 24,
                match_prefix_v6: 64,
            },
            state: "rmxd-state".into(),
            greylist: Some(greylist::Settings {
                path: "rmxd-state".into(),
                delay: minutes(5),
                expire: hours(36 * 24),
                prefix_v4: 24,
                prefix_v6: 64,
            }),
            history: Some(history::Settings {
                path: "rmxd-history".into(),
                keep: hours(14 * 24),
                size: 1 << 30,
            }),
            dns: dns::Settings {
                servers: vec![],
                timeout: Duration::from_secs(5),
                cache: dns::CacheSettings {
                    memory: 64 << 20,
                    min_ttl: Duration::from_secs(5),
                    max_ttl: hours(24),
                    max_negative_ttl: hours(1),
                    stale: hours(24),
                },
            },
            relay: relay::Settings {
                next_hop: NextHop::Maildir("mail".into()),
                identity: ClientIdentity::Auto,
                max_connections: 100,
                messages_per_connection: 100,
                data_rate: 1024,
                message_time: minutes(10),
                connect_timeout: Duration::from_secs(10),
                reply_timeout: minutes(5),
                xclient_required: false,
                hostname: "mx.example.com".to_owned(),
                tls: relay::Tls::None,
            },
            server: server::Settings {
                listen: vec![(Purpose::Smtp, Endpoint::Tcp("127.0.0.1:2525".parse().unwrap()))],
                connections: 10000,
                connections_per_client: 50,
                trusted_proxy: vec![],
                trusted_xclient: vec![],
                trusted_postfix: vec![],
                drain: Duration::from_secs(30),
            },
            admin: admin::Settings {
                listen: Some(Endpoint::Tcp("127.0.0.1:8025".parse().unwrap())),
                token: None,
            },
            tls: None,
            node: Node::default(),
            cluster: None,
            log: log::Settings { format: log::Format::Text, level: "info".to_owned() },
            base: None,
        };
        let found = with(&[("hostname", "MX.example.com")]).map(|found| Settings { base: None, ..found });
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn the_greylist_has_its_file_in_the_state_folder_and_only_if_a_rule_uses_it() {
        let with = |rule: &str, environment: &[(&str, &str)]| {
            let set = [(rule, "greylist"), ("greylist.delay", "1m"), ("policy.match_prefix_v4", "28")];
            let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let environment: Vec<(OsString, OsString)> =
                environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
            load(None, environment, &Flags { set, ..Flags::default() }).unwrap().settings.greylist.unwrap()
        };
        let expected = |path: &str| greylist::Settings {
            path: path.into(),
            delay: Duration::from_secs(60),
            expire: hours(36 * 24),
            prefix_v4: 28,
            prefix_v6: 64,
        };
        assert_eq!(with("policy.mail_from.matches", &[]), expected("rmxd-state"));
        let systemd = [("STATE_DIRECTORY", "/var/lib/rmxd:/var/lib/other")];
        assert_eq!(with("policy.reply_to.exists", &systemd), expected("/var/lib/rmxd/rmxd-state"));
        let without = super::tests::with(&[("hostname", "gate.test"), ("policy.reply_to.exists", "reject")]);
        assert_eq!(without.unwrap().greylist, None);
    }

    #[test]
    fn the_history_is_beside_the_greylist_unless_its_path_is_absolute() {
        let path = |path: &str, environment: &[(&str, &str)]| {
            let set = [("hostname", "gate.test"), ("history.path", path)];
            let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
            let loaded = load(None, environment, &Flags { set, drain: DRAIN }).unwrap();
            loaded.settings.history.map(|history| history.path)
        };
        let systemd = [("STATE_DIRECTORY", "/var/lib/rmxd")];
        assert_eq!(path("decisions", &[]), Some("decisions".into()));
        assert_eq!(path("decisions", &systemd), Some("/var/lib/rmxd/decisions".into()));
        assert_eq!(path("/srv/decisions", &systemd), Some("/srv/decisions".into()));
        assert_eq!(path("", &systemd), None);
    }

    #[test]
    fn an_identity_keeps_its_own_rungs_over_the_general_ones() {
        use Rung::{Address, Mx, Network, Organization, Ptr, Spf};
        let policy = |assignments: &[(&str, &str)]| with(assignments).unwrap().gate.policy;
        let general = policy(&[("policy.exists_by", "organization"), ("policy.matches_by", "mx, network")]);
        assert_eq!(general.mail_from.exists_by, [Organization]);
        assert_eq!(general.helo.exists_by, [Mx, Address]);
        assert_eq!(general.ptr.exists_by, [Mx, Organization]);
        assert_eq!(general.helo.matches_by, [Mx, Network]);
        assert_eq!(
            (general.from.exists_by, general.reply_to.exists_by),
            (vec![Organization], vec![Organization])
        );
        assert_eq!((general.from.matches_by, general.ptr.matches_by), (vec![Mx, Network], vec![Mx, Network]));
        let own = policy(&[("policy.helo.exists_by", "mx"), ("policy.from.matches_by", "network")]);
        assert_eq!((own.helo.exists_by, own.from.matches_by), (vec![Mx], vec![Network]));
        assert_eq!(own.mail_from.matches_by, [Mx, Network, Ptr, Spf]);
        assert_eq!(own.ptr.matches_by, [Mx, Network, Spf]);
        let both = policy(&[("policy.exists_by", "mx"), ("policy.from.exists_by", "mx, organization")]);
        assert_eq!((both.from.exists_by, both.reply_to.exists_by), (vec![Mx, Organization], vec![Mx]));
    }

    #[test]
    fn xclient_is_required_if_the_relay_decides_about_recipients() {
        let rows = [
            ("smtp://127.0.0.1:10025", "", true),
            ("smtp://127.0.0.1:10025", "example.com", false),
            ("maildir:mail", "", false),
        ];
        for (next_hop, domains, required) in rows {
            let relay = with(&[("relay.next_hop", next_hop), ("relay.domains", domains)]).unwrap().relay;
            assert_eq!(relay.xclient_required, required, "{next_hop} {domains}");
        }
    }

    #[test]
    fn each_way_to_name_the_client_has_its_keyword() {
        use ClientIdentity::{Auto, None as Nothing, ProxyV2, Xclient, Xforward};
        let words = [
            ("auto", Auto),
            ("xclient", Xclient),
            ("xforward", Xforward),
            ("proxy-v2", ProxyV2),
            ("none", Nothing),
        ];
        for (word, identity) in words {
            let hop = ("relay.next_hop", "smtp://127.0.0.1:10025");
            let own_list = [hop, ("relay.identity", word), ("relay.domains", "example.com")];
            assert_eq!(with(&own_list).unwrap().relay.identity, identity);
            let allowed = with(&[hop, ("relay.identity", word)]).is_ok();
            assert_eq!(allowed, matches!(identity, Auto | Xclient), "{word} without relay.domains");
        }
    }

    #[test]
    fn next_hops_are_parsed() {
        let smtp = |host: &str, port| NextHop::Smtp { host: host.to_owned(), port };
        let rows = [
            ("smtp://relay.example", smtp("relay.example", 25)),
            ("smtp://Relay.example:10025", smtp("relay.example", 10025)),
            ("smtp://192.0.2.1:26", smtp("192.0.2.1", 26)),
            ("smtp://[2001:db8::1]", smtp("2001:db8::1", 25)),
            ("smtp://[::1]:26", smtp("::1", 26)),
            ("maildir:/var/mail/in", NextHop::Maildir("/var/mail/in".into())),
        ];
        for (text, expected) in rows {
            assert_eq!(with(&[("relay.next_hop", text)]).unwrap().relay.next_hop, expected, "{text}");
            let again = with(&[("relay.next_hop", &expected.to_string())]).unwrap().relay.next_hop;
            assert_eq!(again, expected, "{text}, displayed and parsed again");
        }
        for bad in [
            "",
            "mail",
            "maildir:",
            "smtp://",
            "smtp://a:0",
            "smtp://a:99999",
            "smtp://a:",
            "smtp://a/",
            "smtp://u@a",
            "smtp://::1",
            "smtp://[::1]26",
            "smtp://300.0.0.1",
            "lmtp://a",
        ] {
            assert!(with(&[("relay.next_hop", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_parsed_into_settings() {
        let settings = with(&[
            ("dns.servers", "192.0.2.53, 127.0.0.1:5353, ::1, [::1]:5353"),
            ("exempt.clients", "192.0.2.0/24,192.0.2.1,2001:db8::/32"),
            ("exempt.recipients", "noc, Ops@Example.COM"),
            ("relay.domains", ".example.com"),
            ("reply.help_url", "https://example.com/mail/"),
            ("limits.message", "10000"),
            ("dns.cache.min_ttl", "0s"),
        ])
        .unwrap();
        let servers: Vec<String> = settings.dns.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "127.0.0.1:5353", "[::1]:53", "[::1]:5353"]);
        let exempt = &settings.gate.exempt;
        let is_exempt = |client: &str| exempt.client(client.parse().unwrap());
        assert!(is_exempt("192.0.2.255") && is_exempt("2001:db8::1"));
        assert!(!is_exempt("192.0.3.1") && !is_exempt("2001:db9::1"));
        assert_eq!(exempt.recipients, ["noc", "Ops@example.com"]);
        assert_eq!(settings.door.recipient_domains[0].to_string(), ".example.com");
        assert_eq!(settings.gate.help_url, "https://example.com/mail");
        assert_eq!(settings.door.message, 10000);
    }

    #[test]
    fn without_a_usable_system_name_hostname_must_be_set() {
        let defaults = keys::defaults().unwrap();
        let raw = merge(&[Layer::defaults(defaults)]).unwrap();
        let origins = BTreeMap::new();
        let resolve = |name: &str| {
            let name = name.to_owned();
            resolve::resolve(&raw, DRAIN, Path::new(""), move || name, Reader::new(&origins))
                .map(|settings| settings.hostname)
        };
        assert_eq!(resolve("Host1").unwrap().as_str(), "host1");
        for bad in ["", "my host", "(none)", "10.0.0.1"] {
            let problem = resolve(bad).unwrap_err()[0].to_string();
            assert!(problem.ends_with("(the system's name; set hostname to another)"), "{problem}");
        }
    }
}

//! `config/fleet/compose.yaml`, without a container: every key is one that the Compose specification has at its place, what is
//! mounted and built is there, addresses are those that the configurations name, and rmxd, Postfix and unbound take theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

use super::{read, root};
use crate::support::process::{self, Run, rmxd};

const FOLDER: &str = "config/fleet";
const SUBNET: &str = "10.89.25.";

/// Keys at each place, of those that the file may use (https://github.com/compose-spec/compose-spec, 05-services.md and on).
const TOP: [&str; 5] = ["name", "services", "networks", "volumes", "secrets"];
const SERVICE: [&str; 14] = [
    "image",
    "build",
    "command",
    "restart",
    "read_only",
    "cap_drop",
    "environment",
    "secrets",
    "depends_on",
    "ports",
    "volumes",
    "networks",
    "healthcheck",
    "init",
];
const BUILD: [&str; 3] = ["context", "dockerfile", "target"];
const HEALTH: [&str; 5] = ["test", "interval", "timeout", "retries", "start_period"];
const CONDITIONS: [&str; 3] = ["service_started", "service_healthy", "service_completed_successfully"];
const RESTART: [&str; 4] = ["no", "always", "on-failure", "unless-stopped"];

/// YAML with its merges carried out.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Null,
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    fn of(yaml: &Yaml<'_>) -> Self {
        if let Some(items) = yaml.as_vec() {
            return Self::List(items.iter().map(Self::of).collect());
        }
        let Some(mapping) = yaml.as_mapping() else {
            let text = yaml.as_str().map(str::to_owned);
            let text = text.or_else(|| yaml.as_bool().map(|value| value.to_string()));
            return text
                .or_else(|| yaml.as_integer().map(|value| value.to_string()))
                .map_or(Self::Null, Self::Text);
        };
        let (mut own, mut merged) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in mapping {
            match (key.as_str().unwrap(), Self::of(value)) {
                ("<<", Self::Map(map)) => merged = map,
                ("<<", other) => panic!("a merge of {other:?}"),
                (key, value) => assert!(own.insert(key.to_owned(), value).is_none(), "{key} occurs twice"),
            }
        }
        merged.extend(own);
        Self::Map(merged)
    }

    fn map(&self) -> &BTreeMap<String, Node> {
        let Self::Map(map) = self else { panic!("no mapping: {self:?}") };
        map
    }

    fn list(&self) -> &[Node] {
        let Self::List(list) = self else { panic!("no list: {self:?}") };
        list
    }

    fn text(&self) -> &str {
        let Self::Text(text) = self else { panic!("no text: {self:?}") };
        text
    }

    fn get(&self, key: &str) -> Option<&Node> {
        self.map().get(key)
    }

    fn at(&self, key: &str) -> &Node {
        self.get(key).unwrap_or_else(|| panic!("no {key}: {self:?}"))
    }

    fn has_only(&self, keys: &[&str], place: &str) {
        for key in self.map().keys() {
            assert!(keys.contains(&key.as_str()) || key.starts_with("x-"), "{place} has no key {key}");
        }
    }
}

fn compose() -> Node {
    let text = read(&format!("{FOLDER}/compose.yaml"));
    let documents = Yaml::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1);
    Node::of(&documents[0])
}

fn services(file: &Node) -> &BTreeMap<String, Node> {
    file.at("services").map()
}

fn folder() -> PathBuf {
    root().join(FOLDER)
}

#[test]
fn every_key_is_one_of_the_specification_and_every_name_is_declared() {
    let file = compose();
    file.has_only(&TOP, "the file");
    let names: BTreeSet<&str> = services(&file).keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["gate1", "gate2", "redis", "unbound", "postfix"]));
    let declared = |section: &str, name: &str| {
        assert!(file.at(section).map().contains_key(name), "{section} has no {name}");
    };
    for (name, service) in services(&file) {
        service.has_only(&SERVICE, name);
        assert!(service.get("image").is_some() || service.get("build").is_some(), "{name}");
        assert!(RESTART.contains(&service.at("restart").text()), "{name}");
        if let Some(build) = service.get("build") {
            build.has_only(&BUILD, name);
        }
        if let Some(check) = service.get("healthcheck") {
            check.has_only(&HEALTH, name);
            assert!(matches!(check.at("test").list()[0].text(), "CMD" | "CMD-SHELL"), "{name}");
        }
        for (other, on) in service.get("depends_on").into_iter().flat_map(Node::map) {
            let other = services(&file).get(other).unwrap_or_else(|| panic!("{name} depends on {other}"));
            on.has_only(&["condition"], name);
            let condition = on.at("condition").text();
            assert!(CONDITIONS.contains(&condition), "{name}: {condition}");
            assert_eq!(condition == "service_healthy", other.get("healthcheck").is_some(), "{name}");
        }
        for (network, settings) in service.at("networks").map() {
            declared("networks", network);
            settings.has_only(&["ipv4_address"], name);
        }
        for secret in service.get("secrets").into_iter().flat_map(Node::list) {
            declared("secrets", secret.text());
        }
        for volume in service.get("volumes").into_iter().flat_map(Node::list) {
            let parts: Vec<&str> = volume.text().split(':').collect();
            assert!(matches!(parts.as_slice(), [_, _] | [_, _, "ro"]), "{name}: {parts:?}");
            assert!(parts[1].starts_with('/'), "{name}: {parts:?}");
            if !parts[0].starts_with('.') {
                declared("volumes", parts[0]);
            }
        }
    }
    file.at("networks").at("fleet").has_only(&["ipam"], "networks");
    for secret in file.at("secrets").map().values() {
        secret.has_only(&["file"], "secrets");
    }
}

#[test]
fn what_is_mounted_and_built_is_there_and_what_is_not_is_made_by_the_guide() {
    let file = compose();
    let guide = read("systemd/README.md");
    for (name, service) in services(&file) {
        for volume in service.get("volumes").into_iter().flat_map(Node::list) {
            let from = volume.text().split(':').next().unwrap();
            assert!(!from.starts_with('.') || folder().join(from).is_file(), "{name}: {from}");
        }
        let Some(build) = service.get("build") else { continue };
        let containerfile = folder().join(build.at("context").text()).join(build.at("dockerfile").text());
        let text = std::fs::read_to_string(&containerfile)
            .unwrap_or_else(|error| panic!("{name}: {}: {error}", containerfile.display()));
        if let Some(target) = build.get("target") {
            let stage = format!(" AS {}", target.text());
            assert!(text.lines().any(|line| line.starts_with("FROM ") && line.ends_with(&stage)), "{name}");
        }
    }
    for (name, secret) in file.at("secrets").map() {
        let made = format!("> {FOLDER}/{}", secret.at("file").text().trim_start_matches("./"));
        assert!(guide.contains(&made), "{name}: the guide has no {made:?}");
    }
    let token = services(&file)["gate1"].at("environment").at("RMXD__ADMIN__TOKEN").text();
    let variable = token.strip_prefix("${").and_then(|rest| rest.split_once(":?")).unwrap().0;
    assert!(
        guide.contains(&format!("{variable}=$(")) && guide.contains(&format!("> {FOLDER}/.env")),
        "{variable}"
    );
    let ignored = read(".gitignore");
    assert!(ignored.contains("config/fleet/.env") && ignored.contains("config/fleet/fleet.secret"));
    // Both come from the repository's own Containerfile.
    for gate in ["gate1", "gate2"] {
        let build = services(&file)[gate].at("build");
        let place = folder().join(build.at("context").text()).canonicalize().unwrap();
        assert_eq!(place, root().canonicalize().unwrap());
        assert_eq!(build.at("dockerfile").text(), "Containerfile");
    }
}

#[test]
fn no_address_and_no_port_is_taken_twice_and_dashboards_are_for_this_machine() {
    let file = compose();
    let subnet = file.at("networks").at("fleet").at("ipam").at("config").list()[0].at("subnet").text();
    assert_eq!(subnet, format!("{SUBNET}0/24"));
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (name, service) in services(&file) {
        let address = service.at("networks").at("fleet").at("ipv4_address").text();
        assert!(address.starts_with(SUBNET) && addresses.insert(address), "{name}: {address}");
        for port in service.get("ports").into_iter().flat_map(Node::list) {
            let parts: Vec<&str> = port.text().split(':').collect();
            let (host, inside) = (parts[parts.len() - 2], parts[parts.len() - 1]);
            assert!(host.parse::<u16>().is_ok() && inside.parse::<u16>().is_ok(), "{name}: {port:?}");
            assert!(ports.insert(host), "{name}: {port:?}");
            assert_eq!(inside == "8025", parts[0] == "127.0.0.1", "{name}: {port:?}");
        }
    }
    assert_eq!(ports.len(), 4);
}

#[test]
fn the_configurations_are_valid_and_name_the_addresses_of_the_file() {
    let file = compose();
    let address =
        |name: &str| services(&file)[name].at("networks").at("fleet").at("ipv4_address").text().to_owned();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), [b'x'; 32]).unwrap();
    for (gate, node) in [("gate1", 1), ("gate2", 2)] {
        let service = &services(&file)[gate];
        let mounted = format!("./{gate}.toml:/etc/rmxd/rmxd.toml:ro");
        assert!(service.at("volumes").list().iter().any(|volume| volume.text() == mounted), "{gate}");
        let mut command = rmxd(&["config", "check", "--config"]);
        command.arg(folder().join(gate).with_extension("toml")).env("RMXD__ADMIN__TOKEN", "s3cret");
        let run = Run::of(command.arg("--set").arg(format!("cluster.secret={}", secret.path().display())));
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{gate}: {run:?}");
        let text: toml::Table = read(&format!("{FOLDER}/{gate}.toml")).parse().unwrap();
        let key = |section: &str, name: &str| text[section][name].clone();
        let expected: [(&str, &str, toml::Value); 7] = [
            ("listen", "smtp", vec!["0.0.0.0:2525"].into()),
            ("relay", "next_hop", format!("smtp://{}:25", address("postfix")).into()),
            ("dns", "servers", vec![address("unbound")].into()),
            ("cluster", "redis", format!("redis://{}:6379", address("redis")).into()),
            ("cluster", "node", node.into()),
            ("cluster", "secret", "/run/secrets/fleet".into()),
            ("cluster", "advertise", format!("http://{}:8025", address(gate)).into()),
        ];
        for (section, name, value) in expected {
            assert_eq!(key(section, name), value, "{gate}: {section}.{name}");
        }
    }
    let postfix = read(&format!("{FOLDER}/postfix.cf"));
    let believed = format!("smtpd_authorized_xclient_hosts = {}, {}\n", address("gate1"), address("gate2"));
    assert!(postfix.contains(&believed), "{postfix}");
    assert!(
        read(&format!("{FOLDER}/unbound.conf")).contains(&format!("access-control: {SUBNET}0/24 allow\n"))
    );
}

/// Without the check of unbound itself: each line is a clause or an option with its value.
#[test]
fn unbound_and_postfix_take_their_configurations() {
    const CLAUSES: [&str; 1] = ["server:"];
    const OPTIONS: [&str; 16] = [
        "interface",
        "access-control",
        "chroot",
        "directory",
        "username",
        "pidfile",
        "use-syslog",
        "logfile",
        "trust-anchor-file",
        "num-threads",
        "msg-cache-size",
        "rrset-cache-size",
        "prefetch",
        "serve-expired",
        "hide-identity",
        "hide-version",
    ];
    let unbound = read(&format!("{FOLDER}/unbound.conf"));
    let mut seen = BTreeSet::new();
    for line in unbound.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if CLAUSES.contains(&line) {
            continue;
        }
        let (option, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        assert!(OPTIONS.contains(&option) && seen.insert(option), "{line}");
        let value = value.trim();
        assert_eq!(value.matches('"').count() % 2, 0, "{line}");
        if ["use-syslog", "prefetch", "serve-expired", "hide-identity", "hide-version"].contains(&option) {
            assert!(["yes", "no"].contains(&value), "{line}");
        }
    }
    if let Some(program) = installed("unbound-checkconf") {
        let run = Run::of(process::command(program).arg(folder().join("unbound.conf")));
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let Some(postconf) = installed("postconf") else { return };
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("postfix.cf"), place.path().join("main.cf")).unwrap();
    std::fs::write(place.path().join("master.cf"), "smtp inet n - n - - smtpd\n").unwrap();
    let run = Run::of(process::command(postconf).arg("-c").arg(place.path()).arg("-n"));
    // An unknown parameter is a warning.
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.out.contains("virtual_mailbox_domains = example.com"), "{run:?}");
}

/// One that isn't asked for, even where peers are required.
fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

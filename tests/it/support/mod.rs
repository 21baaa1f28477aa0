//! What several tests share: settings from `KEY=VALUE` lines, a gate and a door made of them, files of cases.

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod log;
pub(crate) mod pattern;
pub(crate) mod process;
pub(crate) mod readme;
pub(crate) mod relay;
pub(crate) mod schema;
pub(crate) mod zone;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmxd::config::{DRAIN, Flags, Settings, load};
use rmxd::dns::{Clock, Dns};
use rmxd::door::SmtpDoor;
use rmxd::gate::Gate;

/// What differs from the built-in defaults: clients of the tests stand on loopback, and nobody waits for long.
const BASE: [(&str, &str); 4] = [
    ("hostname", "gate.test"),
    ("relay.domains", "here.test"),
    ("dns.timeout", "2s"),
    ("dns.private_addresses", "accept"),
];

/// Settings from lines such as `policy.mode=monitor` (a list is parted by commas) over the defaults of the tests.
pub(crate) fn settings<'a>(lines: impl IntoIterator<Item = &'a str>) -> Settings {
    let mut set: Vec<_> = BASE.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    for line in lines {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line} is not KEY=VALUE"));
        set.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    let loaded = load(None, [], &Flags { set, drain: DRAIN });
    loaded.unwrap_or_else(|problems| panic!("{problems:?}")).settings
}

/// A gate with a cache of its own over this name server.
pub(crate) fn gate(settings: &Settings, server: SocketAddr, clock: Clock) -> Arc<Gate> {
    rmxd::daemon::gate_over(dns(settings, server, clock), settings).unwrap()
}

/// A door before a gate of its own, with the next hop of the settings.
pub(crate) fn door(settings: &Settings, server: SocketAddr) -> SmtpDoor {
    rmxd::daemon::door_over(dns(settings, server, Clock::running()), settings).unwrap()
}

/// A resolver with a cache of its own over this name server.
pub(crate) fn dns(settings: &Settings, server: SocketAddr, clock: Clock) -> Dns {
    let dns = rmxd::dns::Settings { servers: vec![server], ..settings.dns.clone() };
    Dns::with_clock(dns, clock).unwrap()
}

/// The files with this ending in a folder below `tests/it`, by name.
pub(crate) fn case_files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == ending)).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    files
}

//! The policies that ship with rmxd, as gates over one DNS, for `rmxd audit`.

use std::path::Path;

use crate::audit::{Auditor, Judge};
use crate::config::{self, Flags, Settings};
use crate::daemon;
use crate::dns::Dns;

/// The strict policy: the path and the text of its file.
const STRICT: (&str, &str) = ("config/strict.toml", include_str!("../../config/strict.toml"));

/// The shipped policies, and on request the operator's own, over one DNS.
///
/// # Errors
/// The problems of a configuration, a line each.
pub fn auditor(dns: &Dns, own: &Settings, with_own: bool) -> Result<Auditor, String> {
    let judge = |name, settings: &Settings| {
        let gate = daemon::gate_over(dns.clone(), settings).map_err(|error| error.to_string());
        gate.map(|gate| Judge { name, gate })
    };
    let mut judges = vec![
        judge("default", &shipped(None, own)?)?,
        judge("strict", &shipped(Some((Path::new(STRICT.0), STRICT.1)), own)?)?,
    ];
    if with_own {
        judges.push(judge("yours", own)?);
    }
    Ok(Auditor::new(dns.clone(), own.reverse_mx.clone(), judges))
}

/// A policy as other sites run it, without this process's environment. Only the name servers and the addresses that
/// count are the operator's.
fn shipped(file: Option<(&Path, &str)>, own: &Settings) -> Result<Settings, String> {
    let set = vec![("hostname".to_owned(), own.hostname.to_string())];
    let loaded = config::load_text(file, [], &Flags { set, ..Flags::default() });
    let mut settings = loaded
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?
        .settings;
    settings.dns = own.dns.clone();
    settings.reverse_mx.private_addresses = own.reverse_mx.private_addresses;
    Ok(settings)
}

//! `rmxd serve` between the test's name server and the test's Postfix.

use super::postfix::Postfix;
use crate::support::daemon::{Daemon, any_port, configuration};
use crate::support::zone::Zone;

/// Starts one with the default policy; `more` is TOML that goes below (`[policy]`, `[limits]`).
pub(crate) async fn start(zone: &Zone, postfix: &Postfix, more: &str) -> Daemon {
    start_with(zone, postfix, more, &[]).await
}

/// The same, with `KEY=VALUE` over what the file says.
pub(crate) async fn start_with(zone: &Zone, postfix: &Postfix, more: &str, set: &[&str]) -> Daemon {
    let relay =
        format!("[relay]\nnext_hop = \"smtp://{}\"\nidentity = \"xclient\"\n\n{more}", postfix.address());
    let text = configuration("gate.relay.test", &[any_port()], zone.address(), &relay);
    let set = ["dns.timeout=2s"].iter().chain(set).flat_map(|line| ["--set", line]);
    Daemon::start_measured(&text, &set.collect::<Vec<_>>()).await
}

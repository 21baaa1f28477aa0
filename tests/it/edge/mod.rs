//! The edge of the real binary: crowds of clients, few descriptors, gateways that speak for others.
//!
//! The next hop is a folder, the name server `rmxd zone`; everything stays on loopback.

mod crowd;
mod gateways;

use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::measured_binary;
use crate::support::zone::Zone;

/// With `more` TOML below.
async fn start(zone: &Zone, more: &str) -> Daemon {
    Daemon::start_measured(&text(zone, more), &["--set", "dns.timeout=2s"]).await
}

/// One that may have this many file descriptors at most, with all that it can log.
async fn start_with_descriptors(zone: &Zone, most: u32) -> Daemon {
    let home = Home::with(&text(zone, ""));
    let script = format!(
        "ulimit -n {most} && exec \"$0\" serve --config \"$1\" --set dns.timeout=2s --set log.level=debug"
    );
    let mut command = home.command("sh");
    command.args(["-c", &script]).arg(measured_binary()).arg(home.file());
    Daemon::spawn(command, home).await
}

fn text(zone: &Zone, more: &str) -> String {
    configuration("gate.relay.test", &[any_port()], zone.address(), more)
}

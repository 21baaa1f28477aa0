//! `rmxd zone` as a process of its own: the only name server that the commands of the tests ask.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::process::{Run, rmxd, rmxd_asking};

/// A running name server. Dropping it ends it.
pub(crate) struct Zone {
    child: Child,
    address: SocketAddr,
}

impl Zone {
    /// With the sample zones.
    pub(crate) fn start() -> Self {
        Self::serving(&[])
    }

    /// The same with more arguments.
    pub(crate) fn serving(arguments: &[&str]) -> Self {
        let mut zone = rmxd(&["zone", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = zone.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        // it listens once it has printed where
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let printed: Value = serde_json::from_str(&line).unwrap();
        Self { child, address: printed["listen"].as_str().unwrap().parse().unwrap() }
    }

    /// For `dns.servers`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `rmxd check` with these arguments, parted by blanks.
    pub(crate) fn check(&self, arguments: &str) -> Run {
        self.run("check", arguments)
    }

    /// A command that takes a configuration and asks this server, with these arguments, parted by blanks.
    pub(crate) fn run(&self, command: &str, arguments: &str) -> Run {
        Run::of(rmxd_asking(command, self.address).args(arguments.split_whitespace()))
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

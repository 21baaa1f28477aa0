//! File descriptors: one for each connection, and those that look-ups and files need.
//!
//! The soft limit is what a process starts with (often 1024), the hard limit what it may have; so the first is raised
//! towards the second. Where that isn't enough the operator is told at the start, not by the first refused accept().

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Besides connections: DNS (a socket for each of 512 questions under way and of 512 late ones, 128 that are kept), those of `listen.admin` (128),
/// refusals, files, the runtime.
const BESIDES: u64 = 512 + 512 + 128 + 128 + 256;

/// Raises the limit to what this many connections need, as far as the system lets us.
pub fn raise_descriptor_limit(connections: usize) {
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(BESIDES);
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < needed) else {
        return;
    };
    let reachable = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: limit.maximum });
    let available = if raised.is_ok() { reachable } else { current };
    if available < needed {
        tracing::warn!(
            available,
            needed,
            "not enough file descriptors for limits.connections and relay.max_connections: raise the hard limit \
             (ulimit -n, LimitNOFILE=) or lower them"
        );
    }
}

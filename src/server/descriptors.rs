//! File descriptors: one for each connection, and more for lookups and files.
//!
//! A process starts with the soft limit (often 1024) and may raise it to the hard limit. If that isn't enough, the log
//! has a warning at the start, before accept() fails.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors besides connections: DNS (a socket for each of 512 open queries and of 512 late ones, 128 that are
/// kept), those of `listen.admin` (128), refusals, files, the runtime.
const BESIDES: u64 = 512 + 512 + 128 + 128 + 256;

/// Raises the soft limit to the need of so many connections, at most to the hard limit.
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

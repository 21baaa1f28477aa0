//! The merged configuration as the operator wrote it. Names and kinds are checked, values aren't.
//!
//! Every key has a value, since the built-in defaults contain them all. Only the rungs of an identity may be missing;
//! the identity then has those of `[policy]`. `policy.senders` has no default, and any of its keys may be missing.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) hostname: String,
    pub(super) listen: Listen,
    pub(super) relay: Relay,
    pub(super) policy: Policy,
    pub(super) exempt: Exempt,
    pub(super) greylist: Greylist,
    pub(super) dns: Dns,
    pub(super) limits: Limits,
    pub(super) tls: Tls,
    pub(super) trusted: Trusted,
    pub(super) milter: Milter,
    pub(super) reply: Reply,
    pub(super) admin: Admin,
    pub(super) history: History,
    pub(super) cluster: Cluster,
    pub(super) log: Log,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) smtp: Vec<String>,
    pub(super) milter: Vec<String>,
    pub(super) policy: Vec<String>,
    pub(super) admin: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) next_hop: String,
    pub(super) identity: String,
    pub(super) domains: Vec<String>,
    pub(super) tls: String,
    pub(super) max_connections: i64,
    pub(super) messages_per_connection: i64,
    pub(super) connect_timeout: String,
    pub(super) reply_timeout: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) mode: String,
    pub(super) reject_at: String,
    pub(super) on_dns_error: String,
    pub(super) malformed: String,
    pub(super) dmarc_quarantine: String,
    pub(super) exists_by: Vec<String>,
    pub(super) matches_by: Vec<String>,
    pub(super) match_prefix_v4: i64,
    pub(super) match_prefix_v6: i64,
    #[serde(default)]
    pub(super) senders: Vec<Sender>,
    pub(super) helo: Rules,
    pub(super) ptr: Rules,
    pub(super) mail_from: Rules,
    pub(super) from: Rules,
    pub(super) reply_to: Rules,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sender {
    #[serde(default)]
    pub(super) domains: Vec<String>,
    pub(super) matches: Option<String>,
    pub(super) matches_by: Option<Vec<String>>,
    pub(super) exists: Option<String>,
    pub(super) exists_by: Option<Vec<String>>,
    pub(super) identities: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    pub(super) exists: String,
    pub(super) matches: String,
    pub(super) exists_by: Option<Vec<String>>,
    pub(super) matches_by: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exempt {
    pub(super) clients: Vec<String>,
    pub(super) domains: Vec<String>,
    pub(super) recipients: Vec<String>,
    pub(super) files: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Greylist {
    pub(super) delay: String,
    pub(super) expire: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dns {
    pub(super) servers: Vec<String>,
    pub(super) timeout: String,
    pub(super) max_mx_hosts: i64,
    pub(super) private_addresses: String,
    pub(super) cache: Cache,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cache {
    pub(super) memory: String,
    pub(super) min_ttl: String,
    pub(super) max_ttl: String,
    pub(super) max_negative_ttl: String,
    pub(super) stale: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) connections: i64,
    pub(super) connections_per_client: i64,
    pub(super) command_line: i64,
    pub(super) header_block: String,
    pub(super) message: String,
    pub(super) recipients: i64,
    pub(super) errors: i64,
    pub(super) junk_commands: i64,
    pub(super) command_timeout: String,
    pub(super) data_timeout: String,
    pub(super) data_rate: String,
    pub(super) message_time: String,
    pub(super) session: String,
    pub(super) banner_delay: String,
    pub(super) bare_newline: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trusted {
    pub(super) proxy: Vec<String>,
    pub(super) xclient: Vec<String>,
    pub(super) postfix: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Milter {
    pub(super) results: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    pub(super) help_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) token: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    pub(super) path: String,
    pub(super) keep: String,
    pub(super) size: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) redis: String,
    pub(super) node: i64,
    pub(super) secret: String,
    pub(super) password: String,
    pub(super) ca: String,
    pub(super) timeout: String,
    pub(super) prefix: String,
    pub(super) advertise: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: String,
    pub(super) level: String,
}

//! `[cluster]`: the node, and Redis where several nodes share one.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::raw::{self, Raw};
use crate::config::reader::Reader;
use crate::decision::Node;
use crate::smtp::address::DomainName;
use crate::store::shared::{Secret, Settings, Target};

/// Octets of a secret, so that it can't be guessed.
const SHORTEST_SECRET: usize = 32;
/// Octets of a file; a larger one is a mistake.
const LONGEST_FILE: u64 = 1 << 20;
/// A client waits for Redis before it has the reply to RCPT.
const MAX_TIMEOUT: Duration = Duration::from_secs(2);
const LONGEST_PREFIX: usize = 64;

/// The node, also of a gate that stands alone.
pub(super) fn node(raw: &raw::Cluster, reader: &mut Reader<'_>) -> Option<Node> {
    let node = reader.count("cluster.node", raw.node, 0..=Node::MAX.into());
    let node = node.and_then(|number| Node::new(u8::try_from(number).ok()?))?;
    if !raw.redis.is_empty() && node == Node::default() {
        reader.refuse_together(
            &["cluster.node", "cluster.redis"],
            "cluster.node 0 is not allowed with cluster.redis: 1 to 15, another one on each node",
        );
    }
    Some(node)
}

/// `None` without `cluster.redis`, and where something is wrong.
pub(super) fn cluster(
    raw: &Raw,
    node: Option<Node>,
    hostname: Option<&DomainName>,
    reader: &mut Reader<'_>,
) -> Option<Settings> {
    let cluster = &raw.cluster;
    let timeout = timeout(cluster, reader);
    let prefix = prefix(cluster, reader);
    let advertise = advertise(raw, reader);
    if cluster.redis.is_empty() {
        return None;
    }
    let target = reader.parsed("cluster.redis", Target::parse(&cluster.redis));
    let secret = secret(cluster, reader);
    let password = password(cluster, target.as_ref(), reader);
    let ca = ca(cluster, target.as_ref(), reader);
    let mut target = target?;
    target.password = password.or(target.password);
    let hostname = hostname?.as_str().to_owned();
    Some(Settings {
        target,
        node: node?,
        secret: secret?,
        ca,
        timeout: timeout?,
        prefix: prefix?,
        advertise,
        hostname,
    })
}

fn timeout(raw: &raw::Cluster, reader: &mut Reader<'_>) -> Option<Duration> {
    let timeout = reader.positive_duration("cluster.timeout", &raw.timeout)?;
    if timeout > MAX_TIMEOUT {
        let text = &raw.timeout;
        reader.refuse(
            "cluster.timeout",
            format!("{text:?} is not allowed: at most 2s, since clients wait meanwhile"),
        );
        return None;
    }
    Some(timeout)
}

/// Braces would be a hash tag, by which a Redis Cluster keeps all keys on one node.
fn prefix(raw: &raw::Cluster, reader: &mut Reader<'_>) -> Option<String> {
    let prefix = &raw.prefix;
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(is_plain) {
        reader.refuse(
            "cluster.prefix",
            format!("{prefix:?} is not allowed: 1 to {LONGEST_PREFIX} ASCII letters, digits, \"-\", \"_\" and \".\""),
        );
        return None;
    }
    Some(prefix.clone())
}

fn advertise(raw: &Raw, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    const KEY: &str = "cluster.advertise";
    let text = &raw.cluster.advertise;
    if text.is_empty() {
        return None;
    }
    let address =
        text.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse::<SocketAddr>().ok());
    let address = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    if address.is_none() {
        reader.refuse(
            KEY,
            format!(
                "{text:?} is not allowed: an address with a port, such as \"http://10.0.0.3:8025\" or \
                     \"http://[2001:db8::3]:8025\""
            ),
        );
    }
    if raw.admin.token.is_empty() {
        reader.refuse_together(
            &[KEY, "admin.token"],
            "cluster.advertise needs admin.token, the same on all nodes: they ask each other with it",
        );
    }
    if raw.cluster.redis.is_empty() {
        reader.refuse_together(
            &[KEY, "cluster.redis"],
            "cluster.advertise needs cluster.redis, where the other nodes find it",
        );
    }
    address
}

fn secret(raw: &raw::Cluster, reader: &mut Reader<'_>) -> Option<Secret> {
    const KEY: &str = "cluster.secret";
    if raw.secret.is_empty() {
        reader.refuse_together(
            &[KEY, "cluster.redis"],
            "cluster.redis needs cluster.secret: a file with at least 32 octets, the same on all nodes \
             (openssl rand -hex 32)",
        );
        return None;
    }
    let octets = file(KEY, &raw.secret, reader)?;
    if octets.len() < SHORTEST_SECRET {
        let (name, found) = (&raw.secret, octets.len());
        reader.refuse(
            KEY,
            format!(
                "{name:?} has {found} octets: at least {SHORTEST_SECRET} are needed (openssl rand -hex 32)"
            ),
        );
        return None;
    }
    Some(Secret::new(&octets))
}

fn password(raw: &raw::Cluster, target: Option<&Target>, reader: &mut Reader<'_>) -> Option<Secret> {
    const KEY: &str = "cluster.password";
    if raw.password.is_empty() {
        return None;
    }
    if target.is_some_and(|target| target.password.is_some()) {
        reader.refuse_together(
            &[KEY, "cluster.redis"],
            "the password is in cluster.redis too: only one of them is allowed",
        );
    }
    let octets = file(KEY, &raw.password, reader)?;
    if octets.is_empty() || std::str::from_utf8(&octets).is_err() {
        reader.refuse(
            KEY,
            format!("{:?} is not allowed: a file with the password in UTF-8, in one line", raw.password),
        );
        return None;
    }
    Some(Secret::new(&octets))
}

fn ca(raw: &raw::Cluster, target: Option<&Target>, reader: &mut Reader<'_>) -> Option<Secret> {
    const KEY: &str = "cluster.ca";
    if raw.ca.is_empty() {
        return None;
    }
    if target.is_some_and(|target| !target.tls) {
        reader.refuse_together(
            &[KEY, "cluster.redis"],
            "cluster.ca needs a cluster.redis that begins with \"rediss\": without it nothing is encrypted",
        );
    }
    let octets = file(KEY, &raw.ca, reader)?;
    if memchr::memmem::find(&octets, b"-----BEGIN CERTIFICATE-----").is_none() {
        reader
            .refuse(KEY, format!("{:?} has no certificate in PEM (\"-----BEGIN CERTIFICATE-----\")", raw.ca));
        return None;
    }
    Some(Secret::new(&octets))
}

/// What a file has, without white space at its end: editors add a line end, and all nodes need the same octets.
fn file(key: &str, name: &str, reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let path = reader.folder(key).join(name);
    let read = || {
        // The type is checked before the file is opened: opening a named pipe would wait for its writer.
        let about = path.metadata()?;
        if !about.is_file() || about.len() > LONGEST_FILE {
            return Err(std::io::Error::other("not a regular file of at most 1 MiB"));
        }
        let mut octets = Vec::new();
        File::open(&path)?.take(LONGEST_FILE).read_to_end(&mut octets)?;
        octets.truncate(octets.trim_ascii_end().len());
        Ok(octets)
    };
    let octets = read();
    octets.map_err(|error| reader.refuse(key, format!("{path:?} can't be read: {error}"))).ok()
}

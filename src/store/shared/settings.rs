//! `[cluster]`: where Redis is, and which node this is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::decision::Node;

/// What `cluster.redis` may be.
pub const FORMS: &str = "\"redis://HOST:6379/0\", \"redis+unix:/PATH\", \"redis+cluster://HOST:6379,HOST:6379\" or \
     \"redis+sentinel://HOST:26379,HOST:26379/NAME\", with \"rediss\" for TLS (but for a unix socket), and with \"USER@\" in \
     front of the first host where Redis has users";

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// `[cluster]` with `cluster.redis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub target: Target,
    pub node: Node,
    /// Keys of what Redis holds are derived from it.
    pub secret: Secret,
    /// In PEM, for TLS; `None` = those of the system.
    pub ca: Option<Secret>,
    /// For one question.
    pub timeout: Duration,
    /// Of each key.
    pub prefix: String,
    /// Where other nodes ask for the decisions of this one.
    pub advertise: Option<SocketAddr>,
    /// This node's host name, for the others.
    pub hostname: String,
}

/// Octets that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        Self(octets.into())
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One Redis server, or several that are one. Shown without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub servers: Servers,
    /// The connections are encrypted: to each server, and to each Sentinel.
    pub tls: bool,
    /// Empty for the default user.
    pub user: String,
    pub password: Option<Secret>,
    pub database: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    Single(Host),
    Unix(PathBuf),
    /// Some nodes of a Redis Cluster.
    Cluster(Vec<Host>),
    /// Sentinels, and the name of the master that they watch.
    Sentinel(Vec<Host>, String),
}

/// A name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

impl Target {
    /// Reads `cluster.redis`.
    ///
    /// # Errors
    /// What is wrong and what is allowed; the text isn't quoted, since it may have a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("is not allowed: {FORMS}");
        if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(format!("has white space, which is not allowed: {FORMS}"));
        }
        if let Some(path) = text.strip_prefix("redis+unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') || path.len() == 1 {
                return Err(
                    "must name a unix socket by its absolute path: \"redis+unix:/run/redis/redis.sock\""
                        .to_owned(),
                );
            }
            let servers = Servers::Unix(PathBuf::from(path));
            return Ok(Self { servers, tls: false, user: String::new(), password: None, database: 0 });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let (protocol, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let several = matches!(kind, "cluster" | "sentinel");
        let tls = protocol == "rediss";
        if !(tls || protocol == "redis") || !(several || scheme == protocol) {
            return Err(unknown());
        }
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (user, password) = login.map_or(Ok((String::new(), None)), credentials)?;
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let hosts = hosts.split(',').map(|host| Host::parse(host, port)).collect::<Result<Vec<_>, _>>()?;
        let first = hosts.first().cloned().ok_or_else(unknown)?;
        if hosts.len() > 1 && !several {
            return Err(format!(
                "has several hosts: \"{protocol}+cluster://\" and \"{protocol}+sentinel://\" take them"
            ));
        }
        let (servers, database) = match kind {
            "cluster" if !path.is_empty() => {
                return Err("has a database, and a Redis Cluster has none to choose from".to_owned());
            }
            "cluster" => (Servers::Cluster(hosts), ""),
            "sentinel" => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(format!(
                        "lacks the name of the master: \"{scheme}://HOST:26379,HOST:26379/NAME\""
                    ));
                }
                (Servers::Sentinel(hosts, name.to_owned()), database)
            }
            _ => (Servers::Single(first), path),
        };
        let database = if database.is_empty() { Some(0) } else { database.parse::<u16>().ok() };
        let Some(database) = database else {
            return Err(format!("has a database that is no number: \"{scheme}://HOST:6379/0\""));
        };
        Ok(Self { servers, tls, user, password, database: database.into() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[Host]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.servers {
            Servers::Single(host) => write!(f, "{scheme}://{host}/{}", self.database),
            Servers::Unix(path) => write!(f, "{scheme}+unix:{}", path.display()),
            Servers::Cluster(hosts) => write!(f, "{scheme}+cluster://{}", list(hosts)),
            Servers::Sentinel(hosts, name) => {
                write!(f, "{scheme}+sentinel://{}/{name}/{}", list(hosts), self.database)
            }
        }
    }
}

impl Host {
    fn parse(text: &str, default: u16) -> Result<Self, String> {
        let wrong = || format!("has a host that can't be read: {FORMS}");
        let (name, port) = match text.strip_prefix('[') {
            Some(inner) => {
                let (address, after) = inner.split_once(']').ok_or_else(wrong)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_not_an_address| wrong())?;
                (address, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or_else(wrong)?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b':');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(wrong());
        }
        let port = if port.is_empty() { Ok(default) } else { port.parse() };
        match port {
            Ok(port) if port > 0 => Ok(Self { name: name.to_owned(), port }),
            Ok(_) | Err(_) => Err("has a port that isn't 1 to 65535".to_owned()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// `USER`, `USER:PASSWORD` or `:PASSWORD`, each with `%xx` for what a URL can't have.
fn credentials(login: &str) -> Result<(String, Option<Secret>), String> {
    let (user, password) = login.split_once(':').map_or((login, None), |(user, rest)| (user, Some(rest)));
    let wrong =
        || "has a user or password with a \"%\" that isn't followed by two hexadecimal digits".to_owned();
    let user = String::from_utf8(decoded(user).ok_or_else(wrong)?).map_err(|_not_utf_8| wrong())?;
    let password = password.filter(|password| !password.is_empty());
    let password = password.map(|password| decoded(password).ok_or_else(wrong)).transpose()?;
    if let Some(password) = &password
        && std::str::from_utf8(password).is_err()
    {
        return Err("has a password that isn't UTF-8".to_owned());
    }
    Ok((user, password.map(|password| Secret::new(&password))))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        let octet = if octet == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            octet
        };
        octets.push(octet);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_the_url_is_read() {
        let rows = [
            ("redis://h", "redis://h:6379/0"),
            ("redis://h:7000/3", "redis://h:7000/3"),
            ("redis://[2001:db8::1]:7000", "redis://[2001:db8::1]:7000/0"),
            ("rediss://u:p%40ss@h.test/1", "rediss://h.test:6379/1"),
            ("redis://:p@ss@h", "redis://h:6379/0"),
            ("redis+unix:/run/redis/redis.sock", "redis+unix:/run/redis/redis.sock"),
            ("redis+unix:///run/redis/redis.sock", "redis+unix:/run/redis/redis.sock"),
            ("redis+cluster://a:1,b,c:3", "redis+cluster://a:1,b:6379,c:3"),
            ("redis+sentinel://a,b:2/main", "redis+sentinel://a:26379,b:2/main/0"),
            ("redis+sentinel://rmxd@a/main/4", "redis+sentinel://a:26379/main/4"),
            ("rediss+cluster://u:p@a:1,b", "rediss+cluster://a:1,b:6379"),
            ("rediss+sentinel://a,[::1]:2/main/4", "rediss+sentinel://a:26379,[::1]:2/main/4"),
        ];
        for (text, shown) in rows {
            let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(
                (target.to_string(), target.tls),
                (shown.to_owned(), text.starts_with("rediss")),
                "{text}"
            );
        }
        let target = Target::parse("rediss://u%3a:p%40ss:@h").unwrap();
        assert_eq!((target.user.as_str(), target.password), ("u:", Some(Secret::new(b"p@ss:"))));
        let target = Target::parse("redis://:p@ss@h").unwrap();
        assert_eq!((target.user.as_str(), target.password), ("", Some(Secret::new(b"p@ss"))));
        assert_eq!(Target::parse("redis://rmxd@h").unwrap().password, None);
    }

    #[test]
    fn what_is_no_such_url_is_refused_with_what_is_allowed_and_without_its_password() {
        let rows = [
            ("localhost:6379", "is not allowed: \"redis://HOST:6379/0\""),
            ("http://h", "is not allowed: "),
            ("redis+tls://:s3cret@h", "is not allowed: "),
            ("redis://", "has a host that can't be read: "),
            ("redis://a b", "has white space"),
            ("redis://:s3cret@h:x", "has a port that isn't 1 to 65535"),
            ("redis://h:0", "has a port"),
            ("redis://h/main", "has a database that is no number"),
            ("redis://a,b", "has several hosts"),
            ("redis+cluster://a,b/1", "has a database, and a Redis Cluster has none"),
            ("redis+sentinel://a,b", "lacks the name of the master"),
            ("rediss+unix:/run/redis/redis.sock", "is not allowed: "),
            ("rediss+unix:///run/redis/redis.sock", "is not allowed: "),
            ("rediss+tls://h", "is not allowed: "),
            ("redis+://h", "is not allowed: "),
            ("rediss://a,b", "has several hosts: \"rediss+cluster://\" and \"rediss+sentinel://\" take them"),
            ("rediss+cluster://a,b/1", "has a database"),
            ("rediss+sentinel://a,b", "lacks the name of the master: \"rediss+sentinel://"),
            ("redis+unix:redis.sock", "must name a unix socket by its absolute path"),
            ("redis://u%4:s3cret@h", "has a user or password with a \"%\""),
            ("redis://[::1", "has a host that can't be read"),
        ];
        for (text, error) in rows {
            let found = Target::parse(text).unwrap_err();
            assert!(found.starts_with(error) && !found.contains("s3cret"), "{text}: {found}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let target = Target::parse("redis://u:s3cret@h").unwrap();
        assert!(!format!("{target:?} {target}").contains("s3cret"));
    }
}

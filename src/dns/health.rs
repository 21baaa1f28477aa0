//! The condition of the configured servers, and the log lines about it: one for each change, with what to do.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::dns::server::ServerName;
use crate::evidence::DnsFailure;

/// The result of a health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// No server answers.
    pub down: bool,
    /// In the order of `dns.servers`.
    pub servers: Vec<(SocketAddr, Condition)>,
}

/// The condition of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Not checked yet.
    Unknown,
    Good,
    /// No answer to any probe, and why.
    Silent(DnsFailure),
    /// Half of its answers took longer than this.
    Slow(Duration),
    /// It has an answer for a name that was made up: `NAME TYPE -> ANSWER`.
    Invents(String),
    /// NXDOMAIN for this name, which exists.
    Denies(&'static str),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("was not checked yet"),
            Self::Good => f.write_str("is as it should be"),
            Self::Silent(why) => write!(
                f,
                "doesn't answer ({}): each question that goes to it first has to wait; repair it, or remove it from dns.servers",
                silence(*why)
            ),
            Self::Slow(time) => write!(
                f,
                "is slow, half of its answers take {} ms or more: clients wait for it; use a nearer resolver, preferably one of your own (unbound)",
                time.as_millis()
            ),
            Self::Invents(what) => write!(
                f,
                "answers for names that can't exist ({what}): spoofed senders will pass; use a resolver of your own (unbound)"
            ),
            Self::Denies(name) => write!(
                f,
                "answers that {name:?} doesn't exist: mail from real senders will be refused; use a resolver of your own (unbound)"
            ),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.down {
            return write!(f, "no server answers ({})", self.names());
        }
        for (at, (server, condition)) in self.servers.iter().enumerate() {
            let server = ServerName(*server);
            write!(f, "{}{server} {condition}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Problem(String),
    Recovery(String),
}

impl Health {
    pub(super) fn unknown(servers: &[SocketAddr]) -> Self {
        Self { down: false, servers: servers.iter().map(|server| (*server, Condition::Unknown)).collect() }
    }

    /// Whether any server was checked.
    pub(super) fn is_known(&self) -> bool {
        self.servers.iter().any(|(_, condition)| *condition != Condition::Unknown)
    }

    /// The log lines for the change from this to `later`.
    pub(super) fn notices(&self, later: &Self) -> Vec<Notice> {
        let mut notices = Vec::new();
        match (self.down, later.down) {
            (false, true) => {
                notices.push(Notice::Problem(format!(
                    "no DNS server answers ({}): until one does, policy.on_dns_error decides about mail; repair the server \
                     or the network, or set dns.servers to others",
                    later.names()
                )));
            }
            (true, false) => notices.push(Notice::Recovery("DNS answers again".to_owned())),
            (true, true) | (false, false) => {}
        }
        if later.down {
            return notices;
        }
        for ((server, before), (_, now)) in self.servers.iter().zip(&later.servers) {
            let server = ServerName(*server);
            // The line about DNS being down covered its silence.
            let before = if self.down && matches!(before, Condition::Silent(_)) {
                &Condition::Unknown
            } else {
                before
            };
            if std::mem::discriminant(before) == std::mem::discriminant(now) {
                continue;
            }
            match (before, now) {
                (_, Condition::Unknown) | (Condition::Unknown, Condition::Good) => {}
                (_, Condition::Good) => {
                    notices.push(Notice::Recovery(format!("DNS server {server} {now} again")))
                }
                _ => notices.push(Notice::Problem(format!("DNS server {server} {now}"))),
            }
        }
        notices
    }

    fn names(&self) -> String {
        let name = |(server, condition): &(SocketAddr, Condition)| {
            let server = ServerName(*server);
            match condition {
                Condition::Silent(why) => format!("{server}: {}", silence(*why)),
                Condition::Unknown
                | Condition::Good
                | Condition::Slow(_)
                | Condition::Invents(_)
                | Condition::Denies(_) => server.to_string(),
            }
        };
        let names: Vec<_> = self.servers.iter().map(name).collect();
        names.join(", ")
    }
}

/// Why a server is silent, behind "doesn't answer".
fn silence(why: DnsFailure) -> String {
    let words = why.to_string();
    words.strip_prefix("no answer, ").unwrap_or(&words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_one_line_with_what_to_do() {
        use Condition::{Denies, Good, Invents, Silent, Slow, Unknown};
        let quiet = || Silent(DnsFailure::Timeout);
        let cut_off = || Silent(DnsFailure::NoRoute);
        let health = |down, one: &Condition, other: &Condition| {
            let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
            Health { down, servers: vec![(at(1), one.clone()), (at(2), other.clone())] }
        };
        let invents = |what: &str| Invents(what.to_owned());
        let slow = |seconds| Slow(Duration::from_secs(seconds));
        let rows = [
            ((false, Unknown, Unknown), (false, Good, Good), vec![]),
            (
                (false, Unknown, Unknown),
                (true, quiet(), quiet()),
                vec!["- no DNS server answers (127.0.0.1:1: timeout, 127.0.0.1:2: timeout): "],
            ),
            ((true, quiet(), quiet()), (true, quiet(), quiet()), vec![]),
            (
                (false, Good, Good),
                (true, cut_off(), Silent(DnsFailure::PortClosed)),
                vec![
                    "- no DNS server answers (127.0.0.1:1: no route to the server, 127.0.0.1:2: the server's port is closed): ",
                ],
            ),
            ((true, quiet(), quiet()), (false, Good, Good), vec!["+ DNS answers again"]),
            (
                (true, quiet(), quiet()),
                (false, Good, quiet()),
                vec![
                    "+ DNS answers again",
                    "- DNS server 127.0.0.1:2 doesn't answer (timeout): each question",
                ],
            ),
            ((true, quiet(), quiet()), (false, Unknown, Unknown), vec!["+ DNS answers again"]),
            ((false, Good, quiet()), (true, quiet(), quiet()), vec!["- no DNS server answers"]),
            ((false, Good, Good), (false, Good, quiet()), vec!["- DNS server 127.0.0.1:2 doesn't answer"]),
            (
                (false, Good, quiet()),
                (false, Good, Good),
                vec!["+ DNS server 127.0.0.1:2 is as it should be again"],
            ),
            (
                (false, Unknown, Unknown),
                (false, invents("x.invalid A -> 10.0.0.1"), Good),
                vec![
                    "- DNS server 127.0.0.1:1 answers for names that can't exist (x.invalid A -> 10.0.0.1): spoofed \
                      senders will pass; use a resolver of your own (unbound)",
                ],
            ),
            ((false, invents("x"), Good), (false, invents("y"), Good), vec![]),
            ((false, slow(2), Good), (false, slow(3), Good), vec![]),
            (
                (false, slow(2), Good),
                (false, Denies("com"), Good),
                vec!["- DNS server 127.0.0.1:1 answers that \"com\" doesn't exist"],
            ),
        ];
        for ((down, one, other), (down_later, one_later, other_later), expected) in rows {
            let (before, later) = (health(down, &one, &other), health(down_later, &one_later, &other_later));
            let lines: Vec<_> = before
                .notices(&later)
                .iter()
                .map(|notice| match notice {
                    Notice::Problem(text) => format!("- {text}"),
                    Notice::Recovery(text) => format!("+ {text}"),
                })
                .collect();
            assert_eq!(lines.len(), expected.len(), "{before:?} {later:?}: {lines:?}");
            for (line, expected) in lines.iter().zip(expected) {
                assert!(line.starts_with(expected), "{line}");
            }
        }
    }
}

//! Why a question to Redis has no answer, by the words of the server and of the crate.

use std::fmt;

use redis::{ErrorKind, RedisError};

use crate::metrics::ClusterOutcome;
use crate::smtp::escape::OneLine;

/// Characters of an error that are kept: a server may say much.
const LONGEST: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Redis is known to be away: nothing was asked.
    Away,
    TimedOut,
    /// The connection broke, or there is none.
    Lost(String),
    /// The server takes no questions for now: it loads its data, or the cluster has no master for the key.
    Busy(String),
    /// It is a replica, which takes no writes.
    ReadOnly(String),
    /// It takes no writes: its memory is full, or it can't save.
    Full(String),
    /// Wrong password, or a right is missing.
    Denied(String),
    /// The server isn't what `cluster.redis` says, or can't do what is needed.
    Unfit(String),
    /// The server doesn't know the script; it forgets them when it restarts.
    NoScript,
    /// Anything else that a server replies, such as an error about the value of a key.
    Refused(String),
}

impl Failure {
    pub(super) fn of(error: &RedisError) -> Self {
        let text = shown(&error.to_string());
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Denied(text),
            ErrorKind::InvalidClientConfig
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::EmptySentinelList
            | ErrorKind::RESP3NotSupported => Self::Unfit(text),
            _ => match error.code() {
                Some(code) => {
                    let detail = error.detail().unwrap_or_default();
                    Self::of_server(code, detail, shown(&format!("{code} {detail}")))
                }
                None if error.is_timeout() => Self::TimedOut,
                None => Self::Lost(text),
            },
        }
    }

    /// An error that a script caught.
    pub(super) fn of_script(text: &str) -> Self {
        let (code, detail) = text.split_once(' ').unwrap_or((text, ""));
        Self::of_server(code, detail, shown(text))
    }

    fn of_server(code: &str, detail: &str, text: String) -> Self {
        const UNFIT: [&str; 4] = [
            "DB index is out of range",
            "cluster support disabled",
            "unknown command",
            "is not allowed in cluster mode",
        ];
        const DENIED_TO_A_SCRIPT: [&str; 2] = ["ACL failure", "can't run this command"];
        match code {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Self::Denied(text),
            "READONLY" => Self::ReadOnly(text),
            "OOM" | "MISCONF" | "NOREPLICAS" => Self::Full(text),
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "UNBLOCKED" => Self::Busy(text),
            "NOSCRIPT" => Self::NoScript,
            "MOVED" | "ASK" | "CROSSSLOT" => Self::Unfit(text),
            _ if DENIED_TO_A_SCRIPT.iter().any(|words| detail.contains(words)) => Self::Denied(text),
            _ if UNFIT.iter().any(|words| detail.contains(words)) => Self::Unfit(text),
            _ => Self::Refused(text),
        }
    }

    /// Whether only the operator can end it.
    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Unfit(_))
    }

    /// `None` where nothing was asked.
    pub(super) fn outcome(&self) -> Option<ClusterOutcome> {
        Some(match self {
            Self::Away => return None,
            Self::TimedOut => ClusterOutcome::Timeout,
            Self::Lost(_) => ClusterOutcome::Lost,
            Self::Busy(_) => ClusterOutcome::Busy,
            Self::ReadOnly(_) => ClusterOutcome::ReadOnly,
            Self::Full(_) => ClusterOutcome::Full,
            Self::Denied(_) | Self::Unfit(_) => ClusterOutcome::Denied,
            Self::NoScript | Self::Refused(_) => ClusterOutcome::Error,
        })
    }
}

fn shown(text: &str) -> String {
    OneLine(text).to_string().chars().take(LONGEST).collect()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("it is away"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::NoScript => f.write_str("it doesn't know the script"),
            Self::Lost(text)
            | Self::Busy(text)
            | Self::ReadOnly(text)
            | Self::Full(text)
            | Self::Denied(text)
            | Self::Unfit(text)
            | Self::Refused(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut() {
        let Failure::Full(text) = Failure::of_script(&format!("OOM {}\n", "x".repeat(1 << 20))) else {
            panic!()
        };
        assert_eq!(text.chars().count(), LONGEST);
    }

    #[test]
    fn errors_of_a_server_are_told_apart() {
        let kinds: [(&str, fn(String) -> Failure); 13] = [
            ("OOM command not allowed when used memory > 'maxmemory'.", Failure::Full),
            ("MISCONF Redis is configured to save RDB snapshots", Failure::Full),
            ("READONLY You can't write against a read only replica.", Failure::ReadOnly),
            ("NOAUTH Authentication required.", Failure::Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", Failure::Denied),
            ("NOPERM this user has no permissions to run the 'set' command", Failure::Denied),
            ("ERR ACL failure in script: this user has no permissions", Failure::Denied),
            ("ERR The user executing the script can't run this command or subcommand", Failure::Denied),
            ("LOADING Redis is loading the dataset in memory", Failure::Busy),
            ("CLUSTERDOWN The cluster is down", Failure::Busy),
            ("ERR DB index is out of range", Failure::Unfit),
            ("MOVED 3999 127.0.0.1:6381", Failure::Unfit),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Failure::Refused),
        ];
        for (text, kind) in kinds {
            assert_eq!(Failure::of_script(text), kind(text.to_owned()), "{text}");
        }
    }
}

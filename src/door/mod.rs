//! How mail is presented (contract 7): each door speaks one protocol and drives [`crate::gate::Transaction`].

#[cfg(test)]
mod bomb;
mod iprev;
pub mod milter;
pub mod policy;
pub mod smtp;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

pub use crate::door::milter::MilterDoor;
pub use crate::door::policy::PolicyDoor;
pub use crate::door::smtp::{Settings, SmtpDoor};
use crate::net::Stream;
use crate::policy::reason::Reason;
use crate::smtp::reply::Reply;

/// A protocol by which mail is presented. One value serves all connections, each by a future of its own.
pub trait Door: fmt::Debug + Send + Sync + 'static {
    /// Serves one connection to its end. After `stop` is cancelled an idle one ends, and an open transaction may still be
    /// completed.
    fn serve(
        &self,
        stream: Stream,
        client: SocketAddr,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send;

    /// Turns a connection away, with the reason if the protocol has a place for it.
    fn refuse(&self, stream: Stream, why: &str) -> impl Future<Output = ()> + Send;
}

/// The refusal of a client whose address the mail server doesn't know.
fn unknown_client() -> Reply {
    Reason::DnsError.plain_reply("the client's address", "")
}

//! How a connection to a door fails, and how it is opened.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::net::{Endpoint, Stream};

/// A connection that can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("this machine has no socket or port left")]
    NoSocket,
    #[error("nothing listens there")]
    Refused,
    #[error("timeout")]
    TimedOut,
    #[error("the connection was closed")]
    Closed,
    /// What came isn't an answer.
    #[error("{0}")]
    NoAnswer(String),
}

impl Failure {
    fn of_connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            // A unix socket whose queue is full can't be waited for.
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse | io::ErrorKind::WouldBlock => {
                Self::NoSocket
            }
            _ => Self::Closed,
        }
    }
}

/// Connects to a door.
///
/// # Errors
/// Nothing listens there, or not within `patience`.
pub async fn dial(door: &Endpoint, patience: Duration) -> Result<Stream, Failure> {
    let opening = async {
        match door {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    };
    let opened = timeout(patience, opening).await.map_err(|_elapsed| Failure::TimedOut)?;
    opened.map_err(|error: io::Error| Failure::of_connecting(&error))
}

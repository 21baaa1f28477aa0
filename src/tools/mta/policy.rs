//! One connection to a policy server, which Postfix keeps for several sessions of SMTP.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::tools::mta::action::Action;
use crate::tools::mta::failure::Failure;
use crate::tools::mta::request::Request;

/// Octets of one read.
const READ: usize = 4096;

/// One connection to a policy server.
#[derive(Debug)]
pub struct Policy<S> {
    stream: S,
    /// For each answer.
    patience: Duration,
    out: Vec<u8>,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Policy<S> {
    #[must_use]
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, out: Vec::new(), input: BytesMut::new() }
    }

    /// The stream, to look at it.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// # Errors
    /// The server closes, is silent, or sends something that is no answer.
    pub async fn ask(&mut self, request: &Request<'_>) -> Result<Action, Failure> {
        self.out.clear();
        request.write_to(&mut self.out);
        let patience = self.patience;
        timeout(patience, self.exchange()).await.map_err(|_elapsed| Failure::TimedOut)?
    }

    async fn exchange(&mut self) -> Result<Action, Failure> {
        self.stream.write_all(&self.out).await.map_err(|_io| Failure::Closed)?;
        loop {
            let found = Action::first(&self.input).map_err(|error| Failure::NoAnswer(error.to_string()))?;
            if let Some((action, length)) = found {
                self.input.advance(length);
                return Ok(action);
            }
            self.input.reserve(READ);
            if !self.stream.read_buf(&mut self.input).await.is_ok_and(|octets| octets > 0) {
                return Err(Failure::Closed);
            }
        }
    }
}

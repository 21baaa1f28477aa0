//! The next hop of `--self`: an SMTP server that accepts every message, verifies it and records it in the ledger.
//!
//! It uses the strict framing of the gate. It offers XCLIENT, so that the gate can be configured with or without it, and
//! refuses nothing: the ledger counts messages that should not arrive.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::smtp::framing::{BareNewline, CommandReader, CommandStep, DataEvent, DataReader};
use crate::tools::load::ledger::Ledger;
use crate::tools::load::message::Reader;

/// A connection without input for this time is closed.
const IDLE: Duration = Duration::from_secs(300);

/// After a failed accept, such as without free descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);

const LONGEST_LINE: usize = 4096;

const CAPABILITIES: &str = "250-sink.load.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                            250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n";

/// Dropping it ends the accept loop.
pub(super) struct Sink {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Sink {
    pub(super) async fn start(ledger: Arc<Ledger>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let ledger = Arc::clone(&ledger);
                        // The gate reports a broken connection; the ledger has the complete messages.
                        tokio::spawn(async move { serve(stream, &ledger).await.ok() });
                    }
                    Err(_no_descriptors) => tokio::time::sleep(BACK_OFF).await,
                }
            }
        });
        Ok(Self { address, accepting })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Unread octets of a connection.
struct Input {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Input {
    /// Reads more; false at the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(16 << 10);
        Ok(timeout(IDLE, self.stream.read_buf(&mut self.buffer)).await?? > 0)
    }
}

async fn serve(stream: TcpStream, ledger: &Ledger) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Input { stream, buffer: Vec::new() };
    let mut commands = CommandReader::new(LONGEST_LINE, BareNewline::Reject);
    let mut replies = b"220 sink.load.test ESMTP\r\n".to_vec();
    loop {
        match commands.next(&input.buffer) {
            CommandStep::Line { length, consumed } => {
                let line = input.buffer.get(..length).unwrap_or_default();
                let verb = line.split(|octet| *octet == b' ').next().unwrap_or_default().to_ascii_uppercase();
                input.buffer.drain(..consumed);
                replies.extend_from_slice(answer(&verb).as_bytes());
                if verb == b"DATA" {
                    input.stream.write_all(&std::mem::take(&mut replies)).await?;
                    ledger.received(message(&mut input).await?.finish());
                    replies.extend_from_slice(b"250 2.0.0 taken\r\n");
                } else if verb == b"QUIT" {
                    return input.stream.write_all(&replies).await;
                }
            }
            CommandStep::More { discard: 0 } => {
                if !replies.is_empty() {
                    input.stream.write_all(&std::mem::take(&mut replies)).await?;
                }
                if !input.more().await? {
                    return Ok(());
                }
            }
            CommandStep::More { .. } | CommandStep::TooLong { .. } | CommandStep::Fault(_) => {
                return input.stream.write_all(b"521 5.5.2 no SMTP\r\n").await;
            }
        }
    }
}

fn answer(verb: &[u8]) -> &'static str {
    match verb {
        b"EHLO" => CAPABILITIES,
        b"XCLIENT" => "220 sink.load.test ESMTP\r\n",
        b"DATA" => "354 go on\r\n",
        b"QUIT" => "221 2.0.0 bye\r\n",
        b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"HELO" => "250 2.0.0 ok\r\n",
        _ => "502 5.5.1 not known here\r\n",
    }
}

/// Reads up to the final dot.
async fn message(input: &mut Input) -> io::Result<Reader> {
    let (mut data, mut reader) = (DataReader::new(BareNewline::Reject), Reader::new());
    loop {
        let step = data.next(&input.buffer);
        reader.push(input.buffer.get(..step.content).unwrap_or_default());
        reader.push(step.insert);
        input.buffer.drain(..step.consumed);
        match step.event {
            DataEvent::Again => {}
            DataEvent::End => return Ok(reader),
            DataEvent::More if input.more().await? => {}
            DataEvent::More | DataEvent::Fault(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::load::ledger::Balance;
    use crate::tools::load::message::{body, write_header};

    #[tokio::test]
    async fn complete_messages_are_recorded_and_a_truncated_one_is_not() {
        let ledger = Arc::new(Ledger::default());
        let sink = Sink::start(Arc::clone(&ledger)).await.unwrap();
        let mut wire = b"EHLO gate\r\nXCLIENT ADDR=127.0.0.1\r\nEHLO gate\r\n".to_vec();
        for token in 0..3 {
            wire.extend_from_slice(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
            write_header(token, 64, b"b.test", "c@d.test", &mut wire);
            wire.extend_from_slice(body(64, 0));
            wire.extend_from_slice(if token == 2 { b"no end" } else { b".\r\n" });
        }
        let mut stream = TcpStream::connect(sink.address()).await.unwrap();
        stream.write_all(&wire).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).await.unwrap();
        let last = |line: &&str| line.as_bytes()[3] == b' ';
        let codes: Vec<_> =
            replies.lines().filter(last).map(|line| line.split(' ').next().unwrap()).collect();
        let message = ["250", "250", "354", "250"];
        let expected = [&["220", "250", "220", "250"][..], &message, &message, &message[..3]].concat();
        assert_eq!(codes, expected);
        assert_eq!(ledger.balance(), Balance { received: 2, unanswered: 2, ..Balance::default() });
    }
}

//! A small SMTP client that sends one message from a given loopback address and returns the deciding reply.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For each reply; longer than the lookups of a gate may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One message with its envelope.
#[derive(Debug)]
pub(super) struct Mail<'a> {
    pub(super) client: IpAddr,
    pub(super) helo: &'a str,
    pub(super) mail_from: &'a str,
    pub(super) recipient: &'a str,
    /// Lines end in CRLF, and none begins with a dot.
    pub(super) message: &'a str,
}

/// The first reply that refuses, or the one to the final dot.
#[derive(Debug)]
pub(super) struct DecidingReply {
    /// The stage, such as "at RCPT".
    pub(super) when: &'static str,
    pub(super) code: u16,
    /// The last line.
    pub(super) text: String,
}

/// # Errors
/// The connection fails, or the input is not a reply.
pub(super) async fn send(mail: &Mail<'_>, server: SocketAddr) -> io::Result<DecidingReply> {
    let mut connection = Connection::open(mail.client, server).await?;
    let steps = [
        ("at connect", String::new()),
        ("at EHLO", format!("EHLO {}\r\n", mail.helo)),
        ("at MAIL", format!("MAIL FROM:<{}>\r\n", mail.mail_from)),
        ("at RCPT", format!("RCPT TO:<{}>\r\n", mail.recipient)),
        ("at DATA", "DATA\r\n".to_owned()),
    ];
    for (when, line) in steps {
        let (code, text) = connection.exchange(&line).await?;
        if code >= 400 {
            return connection.quit(DecidingReply { when, code, text }).await;
        }
    }
    let (code, text) = connection.exchange(&format!("{}.\r\n", mail.message)).await?;
    connection.quit(DecidingReply { when: "after DATA", code, text }).await
}

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn open(client: IpAddr, server: SocketAddr) -> io::Result<Self> {
        let socket = if client.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let here =
            |error: io::Error| io::Error::new(error.kind(), format!("can't connect from {client}: {error}"));
        socket.bind(SocketAddr::new(client, 0)).map_err(here)?;
        let stream = timeout(TIMEOUT, socket.connect(server)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command, and returns the code and the last line of the reply.
    async fn exchange(&mut self, text: &str) -> io::Result<(u16, String)> {
        self.stream.write_all(text.as_bytes()).await?;
        loop {
            let mut line = String::new();
            timeout(TIMEOUT, self.stream.read_line(&mut line)).await??;
            let Some(line) = line.strip_suffix("\r\n") else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
            };
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("not a reply: {line:?}")))?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok((code, line.to_owned()));
            }
        }
    }

    async fn quit(mut self, reply: DecidingReply) -> io::Result<DecidingReply> {
        // QUIT can't change the result.
        self.exchange("QUIT\r\n").await.ok();
        Ok(reply)
    }
}

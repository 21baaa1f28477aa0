//! The SMTP client of the tests: it sends exactly the octets that a test gives it, over TCP from a loopback address of
//! the test's choice, or over any other stream.
//!
//! Every wait has an end, and what doesn't come in time fails the test.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rmxd::tls::Stream;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For a reply, and for each piece of a message that a busy server takes. Longer than any time-out that a test gives to
/// rmxd.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough for a reply; there are tests with ten thousand clients.
const BUFFER: usize = 1024;

/// A reply of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The code of its lines.
    pub(crate) code: u16,
    /// The lines as they came, without CRLF, joined with LF.
    pub(crate) text: String,
}

impl Reply {
    /// 2xx or 3xx.
    pub(crate) fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }

    /// 4xx: try again later.
    pub(crate) fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Without CRLF.
    pub(crate) fn last_line(&self) -> &str {
        self.text.rsplit('\n').next().unwrap_or_default()
    }
}

/// A connection.
pub(crate) struct Client<S = TcpStream> {
    stream: BufReader<S>,
    patience: Duration,
}

impl Client {
    /// Connects; the greeting is the first [`Self::reply`].
    pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> Self {
        Self::try_connect(from, to).await.unwrap_or_else(|error| panic!("connect to {to}: {error}"))
    }

    /// The same where the server may be gone.
    pub(crate) async fn try_connect(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap_or_else(|error| panic!("bind to {from}: {error}"));
        let stream = timeout(PATIENCE, socket.connect(to)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Connects, reads the greeting and sends EHLO; both must be accepted.
    pub(crate) async fn greeted(from: IpAddr, to: SocketAddr, name: &str) -> Self {
        let mut client = Self::connect(from, to).await;
        let greeting = client.reply().await;
        assert_eq!(greeting.code, 220, "{}", greeting.text);
        let hello = client.command(&format!("EHLO {name}")).await;
        assert_eq!(hello.code, 250, "{}", hello.text);
        client
    }

    /// Begins TLS by STARTTLS; the certificate is not looked at.
    pub(crate) async fn into_tls(mut self) -> Client<Stream<TcpStream>> {
        let reply = self.command("STARTTLS").await;
        assert_eq!(reply.code, 220, "{}", reply.text);
        assert!(self.stream.buffer().is_empty());
        let server = self.stream.get_ref().peer_addr().unwrap().ip();
        let mut stream = Stream::Plain(self.stream.into_inner());
        timeout(PATIENCE, stream.connect("server.test", server)).await.expect("a handshake").unwrap();
        Client::over(stream)
    }
}

impl<S: AsyncRead + Unpin> Client<S> {
    /// Over a connection that is open.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(BUFFER, stream), patience: PATIENCE }
    }

    /// The same with another time for each wait.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The connection itself. No reply may be waiting in it.
    pub(crate) fn stream(&mut self) -> &mut S {
        assert!(self.stream.buffer().is_empty(), "{:?}", String::from_utf8_lossy(self.stream.buffer()));
        self.stream.get_mut()
    }

    /// Whether the other side has closed; nothing else may come.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let read = timeout(self.patience, self.stream.fill_buf()).await.expect("an end");
        read.map_or(true, |octets| {
            assert!(octets.is_empty(), "{:?}", String::from_utf8_lossy(octets));
            true
        })
    }

    /// The next line without its CRLF, or what came before the connection was closed.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        let mut line = Vec::new();
        let read = timeout(self.patience, self.stream.read_until(b'\n', &mut line)).await;
        assert!(read.is_ok(), "no line within {:?}; so far: {}", self.patience, line.escape_ascii());
        match line.strip_suffix(b"\r\n") {
            Some(whole) => Ok(whole.to_vec()),
            None => Err(line),
        }
    }

    /// The next reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_or_end()
            .await
            .unwrap_or_else(|so_far| panic!("the connection was closed; so far: {so_far:?}"))
    }

    /// The next reply, or what came of it before the connection was closed.
    pub(crate) async fn reply_or_end(&mut self) -> Result<Reply, String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            let text = match self.line().await {
                Ok(line) => String::from_utf8_lossy(&line).into_owned(),
                Err(so_far) => {
                    lines.push(String::from_utf8_lossy(&so_far).into_owned());
                    return Err(lines.join("\n"));
                }
            };
            let last = text.as_bytes().get(3) != Some(&b'-');
            let code = text.get(..3).and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("not a reply: {text:?}"));
            lines.push(text);
            if last {
                return Ok(Reply { code, text: lines.join("\n") });
            }
        }
    }

    /// All that still comes until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(self.patience, self.stream.read_to_end(&mut rest)).await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(read.is_ok(), "not closed within {:?}; so far: {rest:?}", self.patience);
        rest
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends octets as they are. A server that is gone shows at the next reply.
    pub(crate) async fn send(&mut self, octets: impl AsRef<[u8]>) {
        drop(self.try_send(octets).await);
    }

    /// Sends octets as they are; an error when the server is gone.
    pub(crate) async fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        let octets = octets.as_ref();
        let stream = self.stream.get_mut();
        let sending = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        let sent = timeout(self.patience * 2, sending).await;
        sent.unwrap_or_else(|_| {
            panic!("{} octets were not taken within {:?}", octets.len(), self.patience * 2)
        })
    }

    /// Sends nothing more; replies still come.
    pub(crate) async fn shut_down(&mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown().await
    }

    /// To read and to send at one time. No reply may be waiting.
    pub(crate) fn split(self) -> (Client<ReadHalf<S>>, WriteHalf<S>) {
        assert!(self.stream.buffer().is_empty());
        let (read, write) = tokio::io::split(self.stream.into_inner());
        (Client::over(read).with_patience(self.patience), write)
    }

    /// Sends a line and reads the reply.
    pub(crate) async fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// Sends commands; the last line of each reply must begin as the text beside the command.
    pub(crate) async fn talk(&mut self, dialogue: &[(&str, &str)]) {
        for (line, expected) in dialogue {
            let reply = self.command(line).await;
            assert!(reply.last_line().starts_with(expected), "{line}: {}", reply.text);
        }
    }

    /// One transaction. The reply is the first that isn't positive, or else the one to the end of data.
    pub(crate) async fn deliver(&mut self, sender: &str, recipient: &str, message: &[u8]) -> Reply {
        for line in [format!("MAIL FROM:<{sender}>"), format!("RCPT TO:<{recipient}>"), "DATA".to_owned()] {
            let reply = self.command(&line).await;
            if !reply.is_positive() {
                return reply;
            }
        }
        self.send(&on_the_wire(message)).await;
        self.reply().await
    }
}

/// Delivers messages over six connections at one time, commands pipelined; the replies in the order of the messages.
pub(crate) async fn deliver_all(
    from: IpAddr,
    to: SocketAddr,
    (sender, recipient): (&str, &str),
    messages: &[Vec<u8>],
) -> Vec<Reply> {
    let share = messages.len().div_ceil(6);
    let envelope = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
    let deliveries = messages.chunks(share).map(|messages| {
        let (messages, envelope) = (messages.to_vec(), envelope.clone());
        tokio::spawn(async move {
            let mut client = Client::greeted(from, to, "mail.good.test").await;
            let mut replies = Vec::new();
            for message in messages {
                client.send(envelope.as_bytes()).await;
                for code in [250, 250, 354] {
                    let reply = client.reply().await;
                    assert_eq!(reply.code, code, "{}", reply.text);
                }
                client.send(&on_the_wire(&message)).await;
                replies.push(client.reply().await);
            }
            replies
        })
    });
    let mut replies = Vec::new();
    for delivery in deliveries.collect::<Vec<_>>() {
        replies.extend(delivery.await.unwrap());
    }
    replies
}

/// The message dot-stuffed, with the end of data (RFC 5321 4.5.2). It must be empty or end with CRLF.
pub(crate) fn on_the_wire(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + message.len() / 64 + 3);
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

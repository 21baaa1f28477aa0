//! A small SMTP client that says exactly what it is told, from a loopback address of the test's choice.
//!
//! Every wait has an end, and what doesn't come in time fails the test.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// For a reply. Longer than any time-out that a test gives to rmxd.
const REPLY: Duration = Duration::from_secs(60);
/// For writing a message of the largest size to a busy server.
const WRITE: Duration = Duration::from_secs(120);

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
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; the greeting is the first [`Self::reply`].
    pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap_or_else(|error| panic!("bind to {from}: {error}"));
        let connecting = timeout(REPLY, socket.connect(to)).await;
        let stream = connecting
            .unwrap_or_else(|_| panic!("no connection to {to} within {REPLY:?}"))
            .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Over a connection that stands already; what it has sent may have been read in part.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Whether the other side has closed; nothing else may come.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let read = timeout(REPLY, self.stream.fill_buf()).await.expect("an end");
        read.map_or(true, |octets| {
            assert!(octets.is_empty(), "{:?}", String::from_utf8_lossy(octets));
            true
        })
    }

    /// Connects, reads the greeting and says EHLO; both must be accepted.
    pub(crate) async fn greeted(from: IpAddr, to: SocketAddr, name: &str) -> Self {
        let mut client = Self::connect(from, to).await;
        let greeting = client.reply().await;
        assert_eq!(greeting.code, 220, "{}", greeting.text);
        let hello = client.command(&format!("EHLO {name}")).await;
        assert_eq!(hello.code, 250, "{}", hello.text);
        client
    }

    /// The next reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_or_end()
            .await
            .unwrap_or_else(|so_far| panic!("the connection was closed; so far: {so_far}"))
    }

    /// The next reply, or what came before the connection was closed.
    pub(crate) async fn reply_or_end(&mut self) -> Result<Reply, String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = timeout(REPLY, self.stream.read_until(b'\n', &mut line)).await;
            let read = read.unwrap_or_else(|_| panic!("no reply within {REPLY:?}; so far: {lines:?}"));
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some(text) = line.strip_suffix("\r\n").filter(|_| read.is_ok()) else {
                return Err(format!("{lines:?} {line:?} {read:?}"));
            };
            let last = text.as_bytes().get(3) != Some(&b'-');
            let code = text.get(..3).and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("not a reply: {text:?}"));
            lines.push(text.to_owned());
            if last {
                return Ok(Reply { code, text: lines.join("\n") });
            }
        }
    }

    /// All that still comes until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(REPLY, self.stream.read_to_end(&mut rest)).await;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(read.is_ok(), "not closed within {REPLY:?}; so far: {rest:?}");
        rest
    }

    /// Sends a line and reads the reply.
    pub(crate) async fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Sends octets as they are. A server that is gone shows at the next reply.
    pub(crate) async fn send(&mut self, octets: &[u8]) {
        let sent = timeout(WRITE, self.stream.write_all(octets)).await;
        assert!(sent.is_ok(), "{} octets were not taken within {WRITE:?}", octets.len());
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

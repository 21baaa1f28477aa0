//! A relay that accepts everything, records the lines of each connection, and fails where a test wants it to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::relay::tests::settings;
use crate::relay::{NextHop, Relay, Settings};

/// The reply to a line instead of the usual one; `None` closes the connection. A message is one line.
pub(super) type Whim = fn(connection: usize, line: &str) -> Option<Option<&'static str>>;

/// Only the usual replies.
pub(super) const GOOD: Whim = |_, _| None;

pub(super) struct Robot {
    address: SocketAddr,
    heard: Heard,
    listening: AbortHandle,
}

/// The lines that each connection received. A message is one line, with `|` for CRLF and without the dot; `(end)` is
/// the last.
type Heard = Arc<Mutex<Vec<Vec<String>>>>;

impl Robot {
    /// `keywords` are the extensions of the relay, separated by blanks, with `_` for a blank within one. If the first
    /// is `PROXY`, each connection must begin with a PROXY header.
    pub(super) async fn start(keywords: &'static str, whim: Whim) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Heard::default();
        let memory = Arc::clone(&heard);
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = memory.lock().unwrap().len();
                memory.lock().unwrap().push(Vec::new());
                tokio::spawn(serve(stream, number, keywords, whim, Arc::clone(&memory)));
            }
        });
        Self { address, heard, listening: listening.abort_handle() }
    }

    pub(super) fn settings(&self) -> Settings {
        settings(NextHop::Smtp { host: self.address.ip().to_string(), port: self.address.port() })
    }

    pub(super) fn relay_with(&self, change: impl FnOnce(&mut Settings)) -> Relay {
        let mut settings = self.settings();
        change(&mut settings);
        Relay::new(settings)
    }

    pub(super) fn relay(&self) -> Relay {
        self.relay_with(|_| {})
    }

    /// Number of connections, open and closed.
    pub(super) fn connections(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// The lines of a connection so far, without the EHLO of the gate.
    pub(super) fn heard(&self, connection: usize) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard[connection].iter().filter(|line| !line.starts_with("EHLO gate.test")).cloned().collect()
    }

    /// Waits until the connection is closed, and returns its lines.
    pub(super) async fn ended(&self, connection: usize) -> Vec<String> {
        for _ in 0..2000 {
            if self.heard(connection).last().is_some_and(|line| line == "(end)") {
                return self.heard(connection);
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("connection {connection} stays open: {:?}", self.heard(connection));
    }

    /// Number of open connections.
    pub(super) fn open(&self) -> usize {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|lines| lines.last().is_none_or(|line| line != "(end)")).count()
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(stream: TcpStream, number: usize, keywords: &str, whim: Whim, heard: Heard) {
    let mut stream = BufReader::new(stream);
    if keywords.starts_with("PROXY") {
        let Some(named) = proxied(&mut stream).await else { return };
        heard.lock().unwrap()[number].push(named);
    }
    let last = keywords.split(' ').count();
    let mut hello = String::from("250-relay.test");
    for (at, keyword) in keywords.split(' ').enumerate() {
        let mark = if at + 1 == last { ' ' } else { '-' };
        hello.push_str(&format!("|250{mark}{}", keyword.replace('_', " ")));
    }
    let mut said = String::from("220 relay.test ESMTP");
    loop {
        let wire = format!("{}\r\n", said.replace('|', "\r\n"));
        if stream.write_all(wire.as_bytes()).await.is_err() {
            break;
        }
        let Some(line) = next(&mut stream, said.starts_with("354")).await else { break };
        heard.lock().unwrap()[number].push(line.clone());
        if line.starts_with("QUIT") {
            break;
        }
        said = match whim(number, &line) {
            Some(Some(said)) => said.to_owned(),
            Some(None) => break,
            None if said.starts_with("354") => "250 2.0.0 queued".to_owned(),
            None => due(&line, &hello),
        };
    }
    heard.lock().unwrap()[number].push("(end)".to_owned());
}

/// The client that a PROXY header names: the address of a TCP connection over IPv4, or none (LOCAL).
async fn proxied(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await.ok()?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut rest).await.ok()?;
    assert_eq!(head[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    Some(match (head[12], head[13]) {
        (0x20, _) => "PROXY LOCAL".to_owned(),
        (0x21, 0x11) => {
            let address = <[u8; 4]>::try_from(&rest[..4]).unwrap();
            let port = u16::from_be_bytes([rest[8], rest[9]]);
            format!("PROXY {}", SocketAddr::from((address, port)))
        }
        other => panic!("PROXY {other:?}"),
    })
}

/// The next line, or the whole message.
async fn next(stream: &mut BufReader<TcpStream>, message: bool) -> Option<String> {
    let mut whole = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.is_err() || !line.ends_with("\r\n") {
            return None;
        }
        let line = line.trim_end();
        match line {
            _ if !message => return Some(line.to_owned()),
            "." => return Some(whole),
            _ => whole.push_str(&format!("{line}|")),
        }
    }
}

fn due(line: &str, hello: &str) -> String {
    match line.split(' ').next().unwrap() {
        "EHLO" => hello,
        "DATA" => "354 go",
        "XCLIENT" => "220 relay.test ESMTP",
        _ => "250 2.0.0 Ok",
    }
    .to_owned()
}

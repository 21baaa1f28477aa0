//! A relay that plays scripts: one for each connection, with one step in each line.
//!
//! `S text` sends the text (`|` stands for CRLF, one is added), `C text` expects exactly that line, `M text` expects
//! exactly that message with its dot line, `TAKE n` reads n octets of any kind, `SIP n` does so slowly, `FLOOD n` sends
//! n octets of one line, `PAUSE n` waits n milliseconds, `TLS` is the handshake, `SWALLOW` reads to the end, `STALL`
//! reads nothing until the client is done or the test continues, `REST text` expects exactly that and the end of the
//! connection. After the last step the relay closes the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::relay::tests::settings;
use crate::relay::{NextHop, Relay, Settings};
use crate::tls::tests::Files;
use crate::tls::{Acceptor, Stream};

/// The greeting that most scripts begin with.
pub(super) const HELLO: &str = "\
S 220 relay.test ESMTP
C EHLO gate.test
S 250-relay.test|250-SIZE 100000|250 8BITMIME";

pub(super) struct ScriptedRelay {
    address: SocketAddr,
    playing: JoinHandle<()>,
    gone: Arc<Notify>,
    /// Number of steps played.
    steps: watch::Receiver<usize>,
}

impl ScriptedRelay {
    pub(super) async fn play(scripts: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts = scripts.to_vec();
        let gone = Arc::new(Notify::new());
        let told = Arc::clone(&gone);
        let (done, steps) = watch::channel(0);
        let acceptor = Files::new().acceptor();
        let playing = tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                play(stream, &script, &acceptor, &told, &done).await;
            }
        });
        Self { address, playing, gone, steps }
    }

    pub(super) fn hop(&self) -> NextHop {
        NextHop::Smtp { host: self.address.ip().to_string(), port: self.address.port() }
    }

    pub(super) fn relay(&self) -> Relay {
        self.relay_with(|_| {})
    }

    pub(super) fn relay_with(&self, change: impl FnOnce(&mut Settings)) -> Relay {
        let mut settings = settings(self.hop());
        change(&mut settings);
        Relay::new(settings)
    }

    /// Ends a `STALL`.
    pub(super) fn go_on(&self) {
        self.gone.notify_one();
    }

    /// Waits until so many steps were played, on all connections together.
    pub(super) async fn steps(&self, count: usize) {
        let mut steps = self.steps.clone();
        let played = steps.wait_for(|steps| *steps >= count);
        timeout(Duration::from_secs(20), played).await.expect("the script goes on").unwrap();
    }

    /// Waits until all scripts are at their end, and checks that the client kept to them.
    pub(super) async fn played(self) {
        self.gone.notify_one();
        timeout(Duration::from_secs(20), self.playing).await.expect("the script comes to its end").unwrap();
    }
}

async fn play(
    stream: TcpStream,
    script: &str,
    acceptor: &Acceptor,
    gone: &Notify,
    done: &watch::Sender<usize>,
) {
    stream.set_nodelay(true).unwrap(); // sends each step at once
    let mut stream = BufReader::with_capacity(4096, Stream::Plain(stream));
    for step in script.lines() {
        let (verb, text) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "S" => {
                // the client may have closed: the client's test decides whether it should have
                let said = format!("{}\r\n", text.replace('|', "\r\n"));
                let _gone = stream.write_all(said.as_bytes()).await;
                let _gone = stream.flush().await;
            }
            "C" => {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert_eq!(line, format!("{text}\r\n"), "in\n{script}");
            }
            "M" => {
                let expected = format!("{}\r\n", text.replace('|', "\r\n"));
                let mut heard = vec![0; expected.len()];
                stream.read_exact(&mut heard).await.unwrap();
                assert_eq!(String::from_utf8_lossy(&heard), expected);
            }
            "TAKE" => {
                let mut heard = vec![0; text.parse().unwrap()];
                stream.read_exact(&mut heard).await.unwrap();
            }
            "SIP" => {
                let mut left: usize = text.parse().unwrap();
                let mut sip = vec![0; 64 * 1024];
                while left > 0 {
                    let most = left.min(sip.len());
                    stream.read_exact(&mut sip[..most]).await.unwrap();
                    left -= most;
                    sleep(Duration::from_millis(10)).await;
                }
            }
            "FLOOD" => {
                let (piece, mut left) = ([b'2'; 1024], text.parse::<usize>().unwrap());
                while left > 0 && stream.write_all(&piece).await.is_ok() {
                    left -= piece.len();
                }
                assert!(left > 0, "the client drank it all");
            }
            "PAUSE" => sleep(Duration::from_millis(text.parse().unwrap())).await,
            "TLS" => {
                assert!(stream.buffer().is_empty(), "plain text behind STARTTLS");
                stream.get_mut().accept(acceptor).await.unwrap();
            }
            "SWALLOW" => {
                let _reset = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
            "STALL" => gone.notified().await,
            "REST" => {
                let mut heard = Vec::new();
                let _reset = stream.read_to_end(&mut heard).await;
                let expected = if text.is_empty() { String::new() } else { format!("{text}\r\n") };
                assert_eq!(String::from_utf8_lossy(&heard), expected.replace('|', "\r\n"), "in\n{script}");
            }
            other => panic!("no such step: {other}"),
        }
        done.send_modify(|steps| *steps += 1);
    }
}

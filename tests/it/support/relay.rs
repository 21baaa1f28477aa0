//! A relay that does as it is told, and writes down what comes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The time until a reply that begins with `(later) `.
pub(crate) const LATER: Duration = Duration::from_millis(600);

/// Answers by the beginning of a line; the latest that fits counts.
pub(crate) type Rules = Arc<Mutex<Vec<(String, String)>>>;

/// One listening relay.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) rules: Rules,
    /// `(connect)`, lines, `(close)`.
    pub(crate) seen: UnboundedReceiver<String>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn at(place: SocketAddr) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = unbounded_channel();
        let rules = Rules::default();
        let shared = Arc::clone(&rules);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), tell.clone()));
            }
        });
        Self { address, rules, seen }
    }
}

async fn serve(stream: TcpStream, rules: Rules, tell: UnboundedSender<String>) {
    let mut stream = BufReader::new(stream);
    let (mut data, mut line) = (false, Vec::new());
    let mut said = "connect".to_owned();
    tell.send("(connect)".to_owned()).ok();
    loop {
        let reply = if data { None } else { Some(answer(&rules, &said)) };
        if let Some(reply) = reply {
            if reply == "(close)" {
                break;
            }
            let reply = match reply.strip_prefix("(later) ") {
                None => reply,
                Some(reply) => {
                    tokio::time::sleep(LATER).await;
                    reply.to_owned()
                }
            };
            data = reply.starts_with("354");
            if reply != "(silence)" && stream.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
                break;
            }
        }
        line.clear();
        match stream.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        // a line that is cut off shows as one without its end
        said = match line.strip_suffix(b"\r\n") {
            Some(whole) => whole.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'"),
            None => format!("{} (cut off)", line.escape_ascii()),
        };
        tell.send(said.clone()).ok();
        data &= said != ".";
    }
    tell.send("(close)".to_owned()).ok();
}

fn answer(rules: &Rules, said: &str) -> String {
    let rules = rules.lock().unwrap();
    let rule = rules.iter().rev().find(|(start, _)| said.starts_with(start.as_str()));
    let usual = || match said.split(' ').next().unwrap_or_default() {
        "connect" => "220 relay.test",
        "EHLO" => "250-relay.test\r\n250-SIZE 10000000\r\n250 8BITMIME",
        "XCLIENT" => "220 relay.test",
        "DATA" => "354 go on",
        "QUIT" => "221 2.0.0 bye",
        "." => "250 2.0.0 queued",
        _ => "250 2.1.0 relay says ok",
    };
    rule.map_or_else(|| usual().to_owned(), |(_, reply)| reply.clone())
}

//! A flood of questions for silent names, and an honest client beside it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::responder::{Answer, Type};
use crate::support::client::{Client, Reply};
use crate::support::process::{SOON, eventually};

/// Clients, each in a network of its own.
const NETWORKS: u8 = 60;
/// How long a flooding connection stays. Its questions stay for `dns.timeout`, five times as long.
const STAYS: Duration = Duration::from_secs(1);
/// Of the honest client.
const MESSAGES: usize = 100;
const PAUSE: Duration = Duration::from_millis(30);
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 200, 1);

/// Names below `silent.test` are never answered, and the flooding clients' PTR records lead to ever new ones; all else is as
/// it should be.
pub(super) fn zone(name: &str, rtype: Type) -> Answer {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    match rtype {
        _ if name.ends_with(".silent.test") => Answer::Silence,
        Type::Ptr if name == "1.200.0.127.in-addr.arpa" => Answer::Ptr(vec!["out.honest.test".to_owned()]),
        Type::Ptr => {
            let first = NAMES.fetch_add(3, Ordering::Relaxed);
            Answer::Ptr((first..first + 3).map(|nth| format!("p{nth}.silent.test")).collect())
        }
        Type::Mx if name.starts_with("mx.") => Answer::NoData,
        Type::Mx => Answer::Mx(vec![format!("mx.{name}")]),
        Type::A => Answer::A(HONEST),
        _ => Answer::NoData,
    }
}

/// The flooding clients; dropping it ends them.
pub(super) struct Flood {
    connections: Arc<AtomicU64>,
    _clients: JoinSet<()>,
}

impl Flood {
    pub(super) fn start(to: SocketAddr) -> Self {
        let connections = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for nth in 1..=NETWORKS {
            clients.spawn(client(nth, to, Arc::clone(&connections)));
        }
        Self { connections, _clients: clients }
    }

    /// Waits until it has taken what it can get: each client is at its second connection.
    pub(super) async fn filled(&self) {
        let all = u64::from(NETWORKS) * 2;
        eventually("a flood", SOON, || (self.connections() >= all).then_some(())).await;
    }

    /// How many there were.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One connection after the other: each leaves before its answers come, and the next one has new names.
async fn client(nth: u8, to: SocketAddr, connections: Arc<AtomicU64>) {
    // They don't all come in the same moment.
    sleep(STAYS * u32::from(nth) / u32::from(NETWORKS)).await;
    loop {
        let left = sleep(STAYS);
        if let Ok(mut client) = Client::try_connect([127, 0, nth, 1].into(), to).await {
            let name = connections.fetch_add(1, Ordering::Relaxed);
            let lines =
                format!("EHLO x\r\nMAIL FROM:<a@d{name}.silent.test>\r\nRCPT TO:<user@here.test>\r\n");
            if timeout(STAYS, client.reply_or_end()).await.is_ok() {
                client.send(lines).await;
            }
            left.await;
        } else {
            left.await;
        }
    }
}

/// What became of the honest client's messages.
pub(super) struct Honest {
    /// Sorted.
    times: Vec<Duration>,
    /// Replies that were not 2xx or 3xx.
    pub(super) refused: Vec<String>,
}

impl Honest {
    fn nth(&self, percent: usize) -> Duration {
        self.times[self.times.len() * percent / 100 - 1]
    }

    pub(super) fn p99(&self) -> Duration {
        self.nth(99)
    }
}

impl fmt::Display for Honest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, refused) = (self.times.len(), self.refused.len());
        write!(f, "{refused} of {sent} deferred, p50 {:?}, p99 {:?}", self.nth(50), self.p99())
    }
}

/// 100 messages, each of new domains and over a connection of its own, from the connect to the reply to the message.
pub(super) async fn honest_messages(to: SocketAddr) -> Honest {
    let mut honest = Honest { times: Vec::new(), refused: Vec::new() };
    for nth in 0..MESSAGES {
        sleep(PAUSE).await;
        let began = Instant::now();
        honest.refused.extend(message(nth, to).await.err());
        honest.times.push(began.elapsed());
    }
    honest.times.sort();
    honest
}

/// The first reply that is not positive is an error.
async fn message(nth: usize, to: SocketAddr) -> Result<(), String> {
    let mut client = Client::connect(HONEST.into(), to).await;
    positive(client.reply().await)?;
    let lines = [
        "EHLO out.honest.test".to_owned(),
        format!("MAIL FROM:<a@mail{nth}.test>"),
        "RCPT TO:<user@here.test>".to_owned(),
        "DATA".to_owned(),
        format!("From: a@from{nth}.test\r\nReply-To: b@reply{nth}.test\r\n\r\nhello\r\n."),
    ];
    for line in lines {
        let reply = client.command(&line).await;
        positive(reply).map_err(|reply| format!("message {nth}: {line}: {reply}"))?;
    }
    Ok(())
}

fn positive(reply: Reply) -> Result<(), String> {
    if reply.is_positive() { Ok(()) } else { Err(reply.text) }
}

//! The senders: good ones whose triples both gates know as passed, an exchanger of its domain, which is never greylisted, new
//! ones that try again after the delay, new ones with many recipients, and spoofed ones.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::{CLIENT, SENDER};
use super::{DELAY, SOON, eventually};
use crate::support::client::Client;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// Triples that both gates know as passed.
const KNOWN: usize = 10;
/// Of one session.
const MANY: usize = 8;
/// Of one worker.
const MOST_SESSIONS: usize = 5_000;
/// Between two sessions of a worker: new triples stay far below what Redis gets in a second.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Of a triple that has passed at both gates.
    Known,
    /// By the exchanger of the sender's domain.
    Exchanger,
    New,
    /// New ones with many recipients.
    Many,
    /// Of a new one, after the delay, at the same gate.
    Retry,
    /// In a domain that doesn't exist.
    Spoofed,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Known, Self::Exchanger, Self::New, Self::Many, Self::Retry, Self::Spoofed];

    /// The reply to RCPT that refuses, or to the message.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Known | Self::Exchanger | Self::Retry => 250,
            Self::New | Self::Many => 450,
            Self::Spoofed => 550,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) kind: Kind,
    gate: usize,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) code: u16,
    pub(super) text: String,
    /// For the verdict on all recipients: the time of DNS, of the greylist, and of Redis.
    pub(super) waited: Duration,
}

pub(super) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sessions: Mutex<Vec<Session>>,
}

impl Load {
    /// After triples have passed at both gates.
    pub(super) async fn start(gates: [SocketAddr; 2]) -> Self {
        let shared = Arc::<Shared>::default();
        let mut workers = JoinSet::new();
        for gate in gates {
            for number in 0..KNOWN {
                assert_eq!(Shared::default().play(Kind::Known, (0, gate), &[known(number)]).await, 450);
            }
        }
        for gate in gates {
            for number in 0..KNOWN {
                passes(gate, &known(number)).await;
            }
        }
        for (index, gate) in gates.into_iter().enumerate() {
            for worker in 0..2 {
                workers.spawn(good(Arc::clone(&shared), (index, gate), worker));
            }
            workers.spawn(other(Arc::clone(&shared), (index, gate)));
        }
        Self { shared, workers }
    }

    /// Waits until so many more sessions of each kind have begun and ended at each gate.
    pub(super) async fn some(&self, count: usize) {
        let from = Instant::now();
        eventually(&format!("{count} sessions of each kind"), SOON, || {
            let mut counts: HashMap<(Kind, usize), usize> = HashMap::new();
            for session in self.shared.sessions.lock().unwrap().iter().filter(|session| session.began >= from)
            {
                *counts.entry((session.kind, session.gate)).or_default() += 1;
            }
            let is_there = |kind| (0..2).all(|gate| counts.get(&(kind, gate)).is_some_and(|it| *it >= count));
            Kind::ALL.into_iter().all(is_there).then_some(())
        })
        .await;
    }

    /// All sessions.
    pub(super) async fn stop(mut self) -> Vec<Session> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.shared.sessions.lock().unwrap())
    }
}

fn known(number: usize) -> String {
    format!("known{number}@here.test")
}

async fn passes(gate: SocketAddr, recipient: &str) {
    let end = Instant::now() + SOON;
    while Shared::default().play(Kind::Known, (0, gate), &[recipient.to_owned()]).await != 250 {
        assert!(Instant::now() < end, "{recipient} never passes");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Known ones, the exchanger, new ones and their retries.
async fn good(shared: Arc<Shared>, gate: (usize, SocketAddr), worker: usize) {
    let mut waiting: VecDeque<(Instant, String)> = VecDeque::new();
    for number in 0..MOST_SESSIONS {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let new = format!("new{worker}x{number}-{}@here.test", gate.0);
        match number % 4 {
            0 => drop(shared.play(Kind::Known, gate, &[known(number / 4 % KNOWN)]).await),
            1 => drop(shared.play(Kind::Exchanger, gate, &["someone@here.test".to_owned()]).await),
            2 => {
                shared.play(Kind::New, gate, std::slice::from_ref(&new)).await;
                waiting.push_back((Instant::now() + DELAY, new));
            }
            _ => {
                if waiting.front().is_some_and(|(due, _)| *due <= Instant::now())
                    && let Some((_, recipient)) = waiting.pop_front()
                {
                    shared.play(Kind::Retry, gate, &[recipient]).await;
                }
            }
        }
        sleep(PAUSE).await;
    }
    panic!("too many sessions");
}

/// Spoofed ones, and new ones with many recipients.
async fn other(shared: Arc<Shared>, gate: (usize, SocketAddr)) {
    for number in 0..MOST_SESSIONS {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        if number % 4 == 0 {
            let recipients: Vec<String> =
                (0..MANY).map(|recipient| format!("many{number}x{recipient}-{}@here.test", gate.0)).collect();
            shared.play(Kind::Many, gate, &recipients).await;
        } else {
            shared.play(Kind::Spoofed, gate, &["someone@here.test".to_owned()]).await;
        }
        sleep(PAUSE).await;
    }
    panic!("too many sessions");
}

impl Shared {
    /// One session; the code that decides it. Several recipients must have one code.
    async fn play(&self, kind: Kind, (gate, address): (usize, SocketAddr), recipients: &[String]) -> u16 {
        let (from, sender) = match kind {
            Kind::Exchanger => (EXCHANGER, SENDER),
            Kind::Spoofed => (CLIENT, "ann@nowhere.test"),
            _ => (CLIENT, SENDER),
        };
        let began = Instant::now();
        let mut client = Client::greeted(from, address, "mail.good.test").await;
        let asked = Instant::now();
        let mail = client.command(&format!("MAIL FROM:<{sender}>")).await;
        assert_eq!(mail.code, 250, "{}", mail.text);
        let mut reply = mail;
        for recipient in recipients {
            let next = client.command(&format!("RCPT TO:<{recipient}>")).await;
            assert!(reply.code == 250 || reply.code == next.code, "{}\n{}", reply.text, next.text);
            reply = next;
        }
        let waited = asked.elapsed();
        if reply.code == 250 {
            let data = client.command("DATA").await;
            assert_eq!(data.code, 354, "{}", data.text);
            client.send(format!("From: {sender}\r\n\r\nHello\r\n.\r\n")).await;
            reply = client.reply().await;
        }
        let ended = Instant::now();
        let code = reply.code;
        let session = Session { kind, gate, began, ended, code, text: reply.text, waited };
        self.sessions.lock().unwrap().push(session);
        code
    }
}

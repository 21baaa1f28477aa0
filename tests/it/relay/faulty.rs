//! A relay that errs on its first connection as it is told, serves well on all others, and remembers what it accepted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// What is amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Nothing is said any more, instead of that step's answer.
    HangsAt(Step),
    ClosesAt(Step),
    SaysAt(Step, &'static str),
    /// The same on all connections.
    AlwaysSaysAt(Step, &'static str),
    /// Ten MiB of one line.
    FloodsAt(Step),
    /// After 354, with nothing read of the message.
    ClosesBeforeBody,
    ClosesWithinBody,
    StopsReading,
    /// 354, and with it the answer to a message that nobody has sent.
    StrayReplyAfterData,
    /// On all connections.
    DefersRecipient(&'static str),
    ReadsSlowly,
    /// The answer to the message takes a while.
    AnswersLate,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Mail,
    Rcpt,
    Data,
    End,
    Other,
}

pub(super) struct Relay {
    pub(super) address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    listening: AbortHandle,
}

#[derive(Default)]
struct Memory {
    connections: usize,
    open: usize,
    /// Messages that were answered 250.
    accepted: Vec<String>,
    /// Messages whose dot came.
    dots: usize,
    /// Of the latest message that was accepted.
    sender: String,
    recipients: Vec<String>,
    /// Of the latest message, as far as it came.
    heard: String,
}

impl Memory {
    fn is_quiet(&self) -> bool {
        self.open == 0 || self.accepted.len() == self.dots && self.dots > 0
    }
}

impl Relay {
    pub(super) async fn start(fault: Fault, pipelining: bool) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if fault == Fault::ReadsSlowly {
            socket.set_recv_buffer_size(64 * 1024).unwrap();
        }
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let memory = Arc::new(Mutex::new(Memory::default()));
        let shared = Arc::clone(&memory);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let first = {
                    let mut memory = shared.lock().unwrap();
                    memory.connections += 1;
                    memory.open += 1;
                    memory.connections == 1
                };
                let lasting = matches!(fault, Fault::DefersRecipient(_) | Fault::AlwaysSaysAt(..));
                let fault = if first || lasting { fault } else { Fault::None };
                let memory = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut session = Session {
                        stream: BufReader::new(stream),
                        fault,
                        pipelining,
                        memory: Arc::clone(&memory),
                        sender: String::new(),
                        recipients: Vec::new(),
                    };
                    session.run().await;
                    drop(session);
                    memory.lock().unwrap().open -= 1;
                });
            }
        });
        Self { address, memory, listening: listening.abort_handle() }
    }

    pub(super) fn accepted(&self) -> Vec<String> {
        self.memory.lock().unwrap().accepted.clone()
    }

    pub(super) fn dots(&self) -> usize {
        self.memory.lock().unwrap().dots
    }

    pub(super) fn sender(&self) -> String {
        self.memory.lock().unwrap().sender.clone()
    }

    pub(super) fn recipients(&self) -> Vec<String> {
        self.memory.lock().unwrap().recipients.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.memory.lock().unwrap().connections
    }

    pub(super) fn heard_of_message(&self) -> String {
        self.memory.lock().unwrap().heard.clone()
    }

    /// Waits until this holds.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if holds(self) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the relay never had {what}, but {:?}", self.heard_of_message());
    }

    /// Waits until no connection is amid a transaction any more: each is closed, or has ended its message and waits.
    pub(super) async fn all_closed(&self) {
        for _ in 0..1000 {
            if self.memory.lock().unwrap().is_quiet() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("a connection to the relay stays open");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

struct Session {
    stream: BufReader<TcpStream>,
    fault: Fault,
    pipelining: bool,
    memory: Arc<Mutex<Memory>>,
    sender: String,
    recipients: Vec<String>,
}

impl Session {
    /// Until the connection ends, by whomever.
    async fn run(&mut self) -> Option<()> {
        self.say(Step::Connect, "220 relay.test ESMTP").await?;
        loop {
            let line = self.line().await?;
            let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
            let address = || rest.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            match verb {
                "EHLO" if self.pipelining => {
                    self.say(Step::Other, "250-relay.test\r\n250 PIPELINING").await?;
                }
                "MAIL" => {
                    self.sender = address();
                    self.recipients.clear();
                    self.say(Step::Mail, "250 2.1.0 Ok").await?;
                }
                "RCPT" if matches!(self.fault, Fault::DefersRecipient(who) if who == address()) => {
                    self.say(Step::Rcpt, "450 4.2.0 greylisted").await?;
                }
                "RCPT" => {
                    self.recipients.push(address());
                    self.say(Step::Rcpt, "250 2.1.5 Ok").await?;
                }
                "DATA" => self.data().await?,
                "QUIT" => return None,
                _ => self.say(Step::Other, "250 2.0.0 Ok").await?,
            }
        }
    }

    async fn data(&mut self) -> Option<()> {
        match self.fault {
            Fault::StrayReplyAfterData => self.say(Step::Data, "354 go\r\n250 2.0.0 queued").await?,
            _ => self.say(Step::Data, "354 go").await?,
        }
        match self.fault {
            Fault::ClosesBeforeBody => return None,
            Fault::ClosesWithinBody => {
                let mut part = vec![0; 100_000];
                self.stream.read_exact(&mut part).await.ok()?;
                return None;
            }
            Fault::StopsReading => std::future::pending().await,
            _ => {}
        }
        let message = self.message().await?;
        self.memory.lock().unwrap().dots += 1;
        if self.fault == Fault::AnswersLate {
            sleep(Duration::from_millis(300)).await;
        }
        let spoilt = matches!(
            self.fault,
            Fault::HangsAt(Step::End)
                | Fault::ClosesAt(Step::End)
                | Fault::SaysAt(Step::End, _)
                | Fault::AlwaysSaysAt(Step::End, _)
                | Fault::FloodsAt(Step::End)
        );
        if !spoilt {
            let mut memory = self.memory.lock().unwrap();
            memory.accepted.push(message);
            memory.sender.clone_from(&self.sender);
            memory.recipients.clone_from(&self.recipients);
        }
        self.say(Step::End, "250 2.0.0 queued").await
    }

    /// Up to the dot, which is not part of it.
    async fn message(&mut self) -> Option<String> {
        self.memory.lock().unwrap().heard.clear();
        let mut message = Vec::new();
        let mut part = vec![0; 64 * 1024];
        loop {
            let count = self.stream.read(&mut part).await.ok().filter(|&count| count > 0)?;
            message.extend_from_slice(&part[..count]);
            let heard = &message[message.len().saturating_sub(1000)..];
            self.memory.lock().unwrap().heard = String::from_utf8_lossy(heard).into_owned();
            if let Some(whole) = message.strip_suffix(b"\r\n.\r\n") {
                return Some(format!("{}\r\n", String::from_utf8_lossy(whole)));
            }
            if self.fault == Fault::ReadsSlowly {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    }

    /// Says what is due, or what the fault wants instead.
    async fn say(&mut self, step: Step, due: &str) -> Option<()> {
        let said = match self.fault {
            Fault::HangsAt(at) if at == step => std::future::pending().await,
            Fault::ClosesAt(at) if at == step => return None,
            Fault::SaysAt(at, said) | Fault::AlwaysSaysAt(at, said) if at == step => said,
            Fault::FloodsAt(at) if at == step => {
                let piece = vec![b'2'; 64 * 1024];
                for _ in 0..160 {
                    self.stream.write_all(&piece).await.ok()?;
                }
                std::future::pending().await
            }
            _ => due,
        };
        self.stream.write_all(format!("{said}\r\n").as_bytes()).await.ok()
    }
}

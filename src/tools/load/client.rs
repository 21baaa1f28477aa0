//! One session of a sender: connect from its address, speak SMTP, and tell how each message was answered.
//!
//! The reply that decides is the first one that refuses, or the one to the final dot. Every step has a time limit. A slow
//! client sends commands octet by octet and reads a few octets at a time. What the target says is read with distrust.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::policy::decide::Verdict;
use crate::relay::ReplyParser;
use crate::smtp::reply::Reply;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::message;
use crate::tools::load::outcome::{Decided, Failure, FailureKind, MessageResult, Stage};
use crate::tools::load::plan::{Plan, Session};

/// Content is sent in pieces of about this many octets; a slow client's pieces are smaller.
const PIECE: usize = 16 << 10;
const SLOW_PIECE: usize = 512;

/// How many octets a slow client reads at a time.
const SLOW_READ: usize = 16;

/// How long a slow client waits between two pieces.
const SLOW_PAUSE: Duration = Duration::from_millis(2);

/// How long the goodbye may take; what was answered before stands anyway.
const GOODBYE: Duration = Duration::from_secs(2);

/// How sessions are held.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) target: SocketAddr,
    pub(super) pipelining: bool,
    /// For each reply, and for the connection.
    pub(super) timeout: Duration,
}

/// The buffers of one client after another.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    out: Vec<u8>,
    input: Vec<u8>,
}

/// Plays a session; `began` is when it was due. Tells of each message.
pub(super) async fn play(
    manner: &Manner,
    plan: &Plan,
    session: &Session<'_>,
    buffers: &mut Buffers,
    ledger: Option<&Ledger>,
    began: Instant,
    mut tell: impl FnMut(MessageResult),
) {
    let mut client = match Client::connect(manner, session, buffers).await {
        Ok(client) => client,
        Err(failure) => return tell(MessageResult { result: Err(failure), took: began.elapsed() }),
    };
    let mut began = began;
    let mut greeted = false;
    for message in 0..plan.messages {
        let token = plan.token(session.number, message);
        let result = client.message(plan, session, token, greeted, ledger).await;
        tell(MessageResult { result, took: began.elapsed() });
        match result {
            Ok(answer) if answer.ends_session() => return,
            Ok(_) => greeted = true,
            Err(_) => return,
        }
        if result.is_ok_and(|answer| answer.verdict != Verdict::Accept) && message + 1 < plan.messages {
            client.out("RSET\r\n");
            if client.ask(Stage::Mail).await.is_err() {
                return;
            }
        }
        began = Instant::now();
    }
    client.quit().await;
}

struct Client<'a> {
    stream: TcpStream,
    buffers: &'a mut Buffers,
    parser: ReplyParser,
    timeout: Duration,
    /// Wanted; after EHLO: and offered.
    pipelining: bool,
    slow: bool,
}

/// A reply that refuses, or a failure.
enum Stop {
    Refused(Decided),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<'a> Client<'a> {
    async fn connect(
        manner: &Manner,
        session: &Session<'_>,
        buffers: &'a mut Buffers,
    ) -> Result<Self, Failure> {
        buffers.out.clear();
        buffers.input.clear();
        let opened = timeout(manner.timeout, open(session.address, manner.target)).await;
        let stream = opened.map_err(|_elapsed| FailureKind::TimedOut).and_then(|opened| opened);
        let stream = stream.map_err(|trouble| Failure { stage: Stage::Connect, trouble })?;
        Ok(Self {
            stream,
            buffers,
            parser: ReplyParser::default(),
            timeout: manner.timeout,
            pipelining: manner.pipelining,
            slow: session.slow,
        })
    }

    /// Sends one message, with the greetings before it if there were none yet.
    async fn message(
        &mut self,
        plan: &Plan,
        session: &Session<'_>,
        token: u64,
        greeted: bool,
        ledger: Option<&Ledger>,
    ) -> Result<Decided, Failure> {
        let answer = match self.transaction(plan, session, token, greeted).await {
            Ok(reply) => answer(&reply, Stage::Dot)?,
            Err(Stop::Refused(answer)) => answer,
            Err(Stop::Failed(failure)) => return Err(failure),
        };
        match (ledger, answer.stage, answer.verdict) {
            (Some(ledger), Stage::Dot, Verdict::Accept) => ledger.accepted(token),
            (Some(ledger), Stage::Dot, _) => ledger.refused(token),
            _ => {}
        }
        Ok(answer)
    }

    /// The reply to the final dot.
    async fn transaction(
        &mut self,
        plan: &Plan,
        session: &Session<'_>,
        token: u64,
        greeted: bool,
    ) -> Result<Reply, Stop> {
        if !greeted {
            self.greet(session).await?;
        }
        self.envelope(plan, session).await?;
        let size = plan.size(token);
        let out = &mut self.buffers.out;
        let mut from = Vec::with_capacity(64);
        session.sender.from.write(session.name, &mut from);
        message::write_header(token, size, &from, &plan.recipient, out);
        let mut at = 0;
        loop {
            let piece = message::body(size, at);
            if piece.is_empty() {
                break;
            }
            at += u64::try_from(piece.len()).unwrap_or_default();
            self.buffers.out.extend_from_slice(piece);
            if self.buffers.out.len() >= PIECE {
                self.send(Stage::Dot, SLOW_PIECE).await?;
            }
        }
        self.out(".\r\n");
        self.send(Stage::Dot, SLOW_PIECE).await?;
        Ok(self.reply(Stage::Dot).await?)
    }

    async fn greet(&mut self, session: &Session<'_>) -> Result<(), Stop> {
        go_on(&self.reply(Stage::Greeting).await?, Stage::Greeting, 2)?;
        self.out("EHLO ");
        session.sender.helo.write(session.name, &mut self.buffers.out);
        self.out("\r\n");
        let reply = self.ask(Stage::Ehlo).await?;
        go_on(&reply, Stage::Ehlo, 2)?;
        self.pipelining &= reply.text().lines().any(|line| line.eq_ignore_ascii_case("PIPELINING"));
        Ok(())
    }

    /// MAIL, RCPT and DATA, in one go or one by one.
    async fn envelope(&mut self, plan: &Plan, session: &Session<'_>) -> Result<(), Stop> {
        self.out("MAIL FROM:<load@");
        session.sender.domain.write(session.name, &mut self.buffers.out);
        self.out(">\r\n");
        if !self.pipelining {
            go_on(&self.ask(Stage::Mail).await?, Stage::Mail, 2)?;
        }
        self.out("RCPT TO:<");
        self.out(&plan.recipient);
        self.out(">\r\n");
        if !self.pipelining {
            go_on(&self.ask(Stage::Rcpt).await?, Stage::Rcpt, 2)?;
        }
        self.out("DATA\r\n");
        if !self.pipelining {
            return go_on(&self.ask(Stage::Data).await?, Stage::Data, 3);
        }
        let mail = self.ask(Stage::Mail).await?;
        let rcpt = self.reply(Stage::Rcpt).await?;
        let data = self.reply(Stage::Data).await?;
        let decided = go_on(&mail, Stage::Mail, 2)
            .and_then(|()| go_on(&rcpt, Stage::Rcpt, 2))
            .and_then(|()| go_on(&data, Stage::Data, 3));
        if decided.is_err() && data.code() == 354 {
            // RFC 2920 3.1: the server wants a message nevertheless, so it gets an empty one.
            self.out(".\r\n");
            self.ask(Stage::Data).await?;
        }
        decided
    }

    fn out(&mut self, text: &str) {
        self.buffers.out.extend_from_slice(text.as_bytes());
    }

    /// Sends what is to be sent, and reads a reply.
    async fn ask(&mut self, stage: Stage) -> Result<Reply, Failure> {
        self.send(stage, 1).await?;
        self.reply(stage).await
    }

    /// Sends what is to be sent; a slow client in pieces of `slow` octets.
    async fn send(&mut self, stage: Stage, slow: usize) -> Result<(), Failure> {
        let size = if self.slow { slow } else { usize::MAX };
        for piece in self.buffers.out.chunks(size) {
            let sent = timeout(self.timeout, self.stream.write_all(piece)).await;
            let sent = sent.map_err(|_elapsed| FailureKind::TimedOut);
            sent.and_then(|sent| sent.map_err(|_io| FailureKind::Closed))
                .map_err(|trouble| Failure { stage, trouble })?;
            if self.slow {
                sleep(SLOW_PAUSE).await;
            }
        }
        self.buffers.out.clear();
        Ok(())
    }

    async fn reply(&mut self, stage: Stage) -> Result<Reply, Failure> {
        let reply = timeout(self.timeout, self.next_reply()).await;
        let reply = reply.map_err(|_elapsed| FailureKind::TimedOut).and_then(|reply| reply);
        reply.map_err(|trouble| Failure { stage, trouble })
    }

    async fn next_reply(&mut self) -> Result<Reply, FailureKind> {
        let input = &mut self.buffers.input;
        loop {
            let found = self.parser.feed(input).map_err(|_how| FailureKind::NoReply)?;
            if let Some((reply, rest)) = found {
                let rest = rest.len();
                input.drain(..input.len() - rest);
                return Ok(reply);
            }
            input.clear();
            let read = if self.slow {
                sleep(SLOW_PAUSE).await;
                let mut few = [0; SLOW_READ];
                let read = self.stream.read(&mut few).await;
                input.extend_from_slice(few.get(..*read.as_ref().unwrap_or(&0)).unwrap_or_default());
                read
            } else {
                input.reserve(1024);
                self.stream.read_buf(input).await
            };
            if !read.is_ok_and(|read| read > 0) {
                return Err(FailureKind::Closed);
            }
        }
    }

    /// Leaves the closing to the server, so that the state that TCP keeps afterwards is the server's, as in real life.
    async fn quit(mut self) {
        self.out("QUIT\r\n");
        self.timeout = self.timeout.min(GOODBYE);
        if self.ask(Stage::Dot).await.is_ok_and(|reply| reply.code() == 221) {
            self.buffers.input.clear();
            self.buffers.input.reserve(64);
            // Whatever comes: the session is over.
            timeout(self.timeout, self.stream.read_buf(&mut self.buffers.input)).await.ok();
        }
    }
}

async fn open(address: Option<IpAddr>, target: SocketAddr) -> Result<TcpStream, FailureKind> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|_io| FailureKind::NoSocket)?;
    if let Some(address) = address.filter(|address| address.is_ipv4() == target.is_ipv4()) {
        socket.bind(SocketAddr::new(address, 0)).map_err(|_io| FailureKind::NoSocket)?;
    }
    let stream = socket.connect(target).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => FailureKind::ConnectionRefused,
        io::ErrorKind::TimedOut => FailureKind::TimedOut,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => FailureKind::NoSocket,
        _ => FailureKind::Closed,
    })?;
    stream.set_nodelay(true).map_err(|_io| FailureKind::Closed)?;
    Ok(stream)
}

/// Whether a reply lets the dialogue go on: it is of this class.
fn go_on(reply: &Reply, stage: Stage, class: u16) -> Result<(), Stop> {
    if reply.code() / 100 == class {
        return Ok(());
    }
    match answer(reply, stage)? {
        // A success of the wrong kind, as 250 to DATA.
        Decided { verdict: Verdict::Accept, .. } => {
            Err(Stop::Failed(Failure { stage, trouble: FailureKind::NoReply }))
        }
        refused => Err(Stop::Refused(refused)),
    }
}

/// What a reply comes to (RFC 5321 4.2.1).
fn answer(reply: &Reply, stage: Stage) -> Result<Decided, Failure> {
    let verdict = match reply.code() / 100 {
        2 => Verdict::Accept,
        4 => Verdict::Defer,
        5 => Verdict::Reject,
        _ => return Err(Failure { stage, trouble: FailureKind::NoReply }),
    };
    Ok(Decided { verdict, stage, code: reply.code(), enhanced: reply.enhanced() })
}

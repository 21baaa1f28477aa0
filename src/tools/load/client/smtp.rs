//! One SMTP session of a sender from its address, with a result for each message.
//!
//! The deciding reply is the first one that refuses, or the one to the final dot. Every step has a timeout. A slow client
//! sends commands octet by octet and reads a few octets at a time. Replies of the target are checked and bounded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::policy::decide::Verdict;
use crate::relay::ReplyParser;
use crate::smtp::reply::Reply;
use crate::tools::load::client::SessionOptions;
use crate::tools::load::ledger::Ledger;
use crate::tools::load::message;
use crate::tools::load::outcome::{Decided, Failure, FailureKind, MessageResult, Stage, Word};
use crate::tools::load::plan::{Plan, Session};

/// Content is sent in pieces of about this many octets; a slow client's pieces are smaller.
const PIECE: usize = 16 << 10;
const SLOW_PIECE: usize = 512;

/// Octets of one read of a slow client.
const SLOW_READ: usize = 16;

/// Between two pieces of a slow client.
const SLOW_PAUSE: Duration = Duration::from_millis(2);

/// For QUIT; it can't change the result.
const QUIT: Duration = Duration::from_secs(2);

/// Buffers that consecutive sessions reuse.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    out: Vec<u8>,
    input: Vec<u8>,
}

/// Plays a session; `began` is the time at which it was due. Calls `report` for each message.
pub(super) async fn play(
    target: SocketAddr,
    options: &SessionOptions,
    plan: &Plan,
    session: &Session<'_>,
    buffers: &mut Buffers,
    began: Instant,
    mut report: impl FnMut(MessageResult),
) {
    let ledger = options.ledger.as_deref();
    let mut client = match Client::connect(target, options, session, buffers).await {
        Ok(client) => client,
        Err(failure) => return report(MessageResult { result: Err(failure), took: began.elapsed() }),
    };
    let mut began = began;
    let mut greeted = false;
    for message in 0..plan.messages {
        let token = plan.token(session.number, message);
        let result = client.message(plan, session, token, greeted, ledger).await;
        report(MessageResult { result, took: began.elapsed() });
        match result {
            Ok(answer) if ends_session(&answer) => return,
            Ok(_) => greeted = true,
            Err(_) => return,
        }
        if result.is_ok_and(|answer| answer.verdict != Verdict::Accept) && message + 1 < plan.messages {
            client.out("RSET\r\n");
            if client.exchange(Stage::Mail).await.is_err() {
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
    /// Wanted by the options, and after EHLO also offered by the target.
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
        target: SocketAddr,
        options: &SessionOptions,
        session: &Session<'_>,
        buffers: &'a mut Buffers,
    ) -> Result<Self, Failure> {
        buffers.out.clear();
        buffers.input.clear();
        let opened = timeout(options.timeout, open(session.address, target)).await;
        let stream = opened.map_err(|_elapsed| FailureKind::TimedOut).and_then(|opened| opened);
        let stream = stream.map_err(|kind| Failure { stage: Stage::Connect, kind })?;
        Ok(Self {
            stream,
            buffers,
            parser: ReplyParser::default(),
            timeout: options.timeout,
            pipelining: options.pipelining,
            slow: session.slow,
        })
    }

    /// Sends one message, after banner and EHLO if it is the first one.
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

    /// Returns the reply to the final dot.
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
        expect_class(&self.reply(Stage::Greeting).await?, Stage::Greeting, 2)?;
        self.out("EHLO ");
        session.sender.helo.write(session.name, &mut self.buffers.out);
        self.out("\r\n");
        let reply = self.exchange(Stage::Ehlo).await?;
        expect_class(&reply, Stage::Ehlo, 2)?;
        self.pipelining &= reply.text().lines().any(|line| line.eq_ignore_ascii_case("PIPELINING"));
        Ok(())
    }

    /// Sends MAIL, RCPT and DATA, in one write or one by one.
    async fn envelope(&mut self, plan: &Plan, session: &Session<'_>) -> Result<(), Stop> {
        self.out("MAIL FROM:<load@");
        session.sender.domain.write(session.name, &mut self.buffers.out);
        self.out(">\r\n");
        if !self.pipelining {
            expect_class(&self.exchange(Stage::Mail).await?, Stage::Mail, 2)?;
        }
        self.out("RCPT TO:<");
        self.out(&plan.recipient);
        self.out(">\r\n");
        if !self.pipelining {
            expect_class(&self.exchange(Stage::Rcpt).await?, Stage::Rcpt, 2)?;
        }
        self.out("DATA\r\n");
        if !self.pipelining {
            return expect_class(&self.exchange(Stage::Data).await?, Stage::Data, 3);
        }
        let mail = self.exchange(Stage::Mail).await?;
        let rcpt = self.reply(Stage::Rcpt).await?;
        let data = self.reply(Stage::Data).await?;
        let decided = expect_class(&mail, Stage::Mail, 2)
            .and_then(|()| expect_class(&rcpt, Stage::Rcpt, 2))
            .and_then(|()| expect_class(&data, Stage::Data, 3));
        if decided.is_err() && data.code() == 354 {
            // RFC 2920 3.1: the server expects content nevertheless, so it gets an empty message.
            self.out(".\r\n");
            self.exchange(Stage::Data).await?;
        }
        decided
    }

    fn out(&mut self, text: &str) {
        self.buffers.out.extend_from_slice(text.as_bytes());
    }

    /// Sends the buffered commands, and reads a reply.
    async fn exchange(&mut self, stage: Stage) -> Result<Reply, Failure> {
        self.send(stage, 1).await?;
        self.reply(stage).await
    }

    /// Sends the buffer; a slow client sends it in pieces of `slow` octets.
    async fn send(&mut self, stage: Stage, slow: usize) -> Result<(), Failure> {
        let size = if self.slow { slow } else { usize::MAX };
        for piece in self.buffers.out.chunks(size) {
            let sent = timeout(self.timeout, self.stream.write_all(piece)).await;
            let sent = sent.map_err(|_elapsed| FailureKind::TimedOut);
            sent.and_then(|sent| sent.map_err(|_io| FailureKind::Closed))
                .map_err(|kind| Failure { stage, kind })?;
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
        reply.map_err(|kind| Failure { stage, kind })
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

    /// Lets the server close the connection first, so that TIME-WAIT (RFC 9293 3.6) stays with the server, as with real clients.
    async fn quit(mut self) {
        self.out("QUIT\r\n");
        self.timeout = self.timeout.min(QUIT);
        if self.exchange(Stage::Dot).await.is_ok_and(|reply| reply.code() == 221) {
            self.buffers.input.clear();
            self.buffers.input.reserve(64);
            // The session is over, whatever the read returns.
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

/// An error unless the first digit of the reply is `class`.
fn expect_class(reply: &Reply, stage: Stage, class: u16) -> Result<(), Stop> {
    if reply.code() / 100 == class {
        return Ok(());
    }
    match answer(reply, stage)? {
        // A positive reply of the wrong class, such as 250 to DATA.
        Decided { verdict: Verdict::Accept, .. } => {
            Err(Stop::Failed(Failure { stage, kind: FailureKind::NoReply }))
        }
        refused => Err(Stop::Refused(refused)),
    }
}

/// The verdict in a reply (RFC 5321 4.2.1).
fn answer(reply: &Reply, stage: Stage) -> Result<Decided, Failure> {
    let verdict = match reply.code() / 100 {
        2 => Verdict::Accept,
        4 => Verdict::Defer,
        5 => Verdict::Reject,
        _ => return Err(Failure { stage, kind: FailureKind::NoReply }),
    };
    Ok(Decided { verdict, stage, word: Word::Code(reply.code()), enhanced: reply.enhanced() })
}

/// Whether the server closes the connection after this reply, or no command can follow it.
fn ends_session(answer: &Decided) -> bool {
    matches!(answer.word, Word::Code(421 | 521))
        || (answer.stage <= Stage::Ehlo && answer.verdict != Verdict::Accept)
}

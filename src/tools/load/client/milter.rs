//! One session as a mail server reports it to a milter, with a result for each message.
//!
//! The deciding answer is the first one that refuses, or the last one to a message.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::time::Instant;

use crate::net::{Endpoint, Stream};
use crate::policy::decide::Verdict;
use crate::tools::load::client::{SessionOptions, client_of, failure, helo_of, sender_of};
use crate::tools::load::message;
use crate::tools::load::outcome::{Decided, Failure, MessageResult, Stage, Word};
use crate::tools::load::plan::{Plan, Session};
use crate::tools::mta::{Final, LARGEST_PIECE, Milter, Server, dial};

/// Plays a session; `began` is the time at which it was due. Calls `report` for each message.
pub(super) async fn play(
    target: &Endpoint,
    options: &SessionOptions,
    plan: &Plan,
    session: &Session<'_>,
    began: Instant,
    mut report: impl FnMut(MessageResult),
) {
    let mut began = began;
    let mut milter = match open(target, options).await {
        Ok(milter) => milter,
        Err(failure) => return report(MessageResult { result: Err(failure), took: began.elapsed() }),
    };
    let mut greeted = false;
    for number in 0..plan.messages {
        let token = plan.token(session.number, number);
        let result = message(&mut milter, plan, session, token, greeted).await;
        report(MessageResult { result, took: began.elapsed() });
        if result.is_err() || result.is_ok_and(|answer| answer.stage <= Stage::Ehlo) {
            return;
        }
        greeted = true;
        began = Instant::now();
    }
    // The results are there; the filter closes.
    milter.quit().await.ok();
}

async fn open(target: &Endpoint, options: &SessionOptions) -> Result<Milter<Stream>, Failure> {
    let stream = dial(target, options.timeout).await.map_err(failure::at(Stage::Connect))?;
    let server = Server {
        hostname: "mx.load.test".to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        next_hop: "sink.load.test".to_owned(),
    };
    let milter = Milter::negotiate(stream, server, options.timeout).await;
    milter.map_err(failure::at(Stage::Negotiation))
}

async fn message(
    milter: &mut Milter<Stream>,
    plan: &Plan,
    session: &Session<'_>,
    token: u64,
    greeted: bool,
) -> Result<Decided, Failure> {
    match transaction(milter, plan, session, token, greeted).await {
        Ok(decided) | Err(Stop::Decided(decided)) => Ok(decided),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// An answer that ends the message before its end, or a failure.
enum Stop {
    Decided(Decided),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Returns the answer to the end of the message.
async fn transaction(
    milter: &mut Milter<Stream>,
    plan: &Plan,
    session: &Session<'_>,
    token: u64,
    greeted: bool,
) -> Result<Decided, Stop> {
    use Stage::{Connect, Data, Ehlo, EndOfHeader, EndOfMessage, Mail, Rcpt};
    if !greeted {
        go_on(milter.connect(client_of(session), None).await.map_err(failure::at(Connect))?, Connect)?;
        go_on(milter.helo(&helo_of(session)).await.map_err(failure::at(Ehlo))?, Ehlo)?;
    }
    let queue = format!("4L{token:013X}");
    go_on(milter.mail(&sender_of(session), None, &queue).await.map_err(failure::at(Mail))?, Mail)?;
    go_on(milter.rcpt(&plan.recipient).await.map_err(failure::at(Rcpt))?, Rcpt)?;
    go_on(milter.data().await.map_err(failure::at(Data))?, Data)?;

    let size = plan.size(token);
    let (mut from, mut header) = (Vec::with_capacity(64), Vec::with_capacity(256));
    session.sender.from.write(session.name, &mut from);
    message::write_header(token, size, &from, &plan.recipient, &mut header);
    for (name, value) in fields(&header) {
        go_on(milter.header(name, value).await.map_err(failure::at(EndOfHeader))?, EndOfHeader)?;
    }
    go_on(milter.end_of_header().await.map_err(failure::at(EndOfHeader))?, EndOfHeader)?;
    let (mut piece, mut at) = (Vec::new(), 0);
    loop {
        let next = message::body(size, at);
        at += u64::try_from(next.len()).unwrap_or_default();
        piece.extend_from_slice(next);
        // Only the last piece is shorter than Postfix makes them.
        let whole = if next.is_empty() { piece.len() } else { piece.len() / LARGEST_PIECE * LARGEST_PIECE };
        if let Some(octets) = piece.get(..whole).filter(|octets| !octets.is_empty()) {
            go_on(milter.body(octets).await.map_err(failure::at(EndOfMessage))?, EndOfMessage)?;
            piece.drain(..whole);
        }
        if next.is_empty() {
            break;
        }
    }
    let (_edits, answer) = milter.end_of_message().await.map_err(failure::at(EndOfMessage))?;
    Ok(decided(&answer, EndOfMessage))
}

/// Name, and what is behind the colon, of each field.
fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|octet| *octet == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        Some((line.get(..colon)?, line.get(colon + 1..)?))
    })
}

/// An error unless the message goes on.
fn go_on(answer: Option<Final>, stage: Stage) -> Result<(), Stop> {
    match answer {
        None | Some(Final::Continue | Final::Skip) => Ok(()),
        Some(answer) => Err(Stop::Decided(decided(&answer, stage))),
    }
}

fn decided(answer: &Final, stage: Stage) -> Decided {
    let (verdict, name) = match answer {
        Final::Reply(reply) => {
            let verdict = if reply.code() < 500 { Verdict::Defer } else { Verdict::Reject };
            return Decided { verdict, stage, word: Word::Code(reply.code()), enhanced: reply.enhanced() };
        }
        Final::Continue | Final::Skip => (Verdict::Accept, "continue"),
        Final::Accept => (Verdict::Accept, "accept"),
        Final::Discard => (Verdict::Accept, "discard"),
        Final::Reject => (Verdict::Reject, "reject"),
        Final::TemporaryFailure => (Verdict::Defer, "temporary failure"),
        Final::Shutdown => (Verdict::Defer, "shutdown"),
    };
    Decided { verdict, stage, word: Word::Name(name), enhanced: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{Enhanced, Reply};

    #[test]
    fn an_answer_is_a_verdict_with_its_word() {
        let reply = |code, class| Final::Reply(Reply::new(code, Enhanced(class, 1, 8), "no"));
        let rows = [
            (Final::Continue, Verdict::Accept, "continue at RCPT"),
            (Final::Accept, Verdict::Accept, "accept at RCPT"),
            (reply(550, 5), Verdict::Reject, "550 5.1.8 at RCPT"),
            (reply(450, 4), Verdict::Defer, "450 4.1.8 at RCPT"),
            (Final::Reject, Verdict::Reject, "reject at RCPT"),
            (Final::TemporaryFailure, Verdict::Defer, "temporary failure at RCPT"),
            (Final::Shutdown, Verdict::Defer, "shutdown at RCPT"),
        ];
        for (answer, verdict, shown) in rows {
            let found = decided(&answer, Stage::Rcpt);
            assert_eq!((found.verdict, found.to_string().as_str()), (verdict, shown));
        }
    }

    #[test]
    fn a_header_block_is_its_fields() {
        let mut header = Vec::new();
        message::write_header(7, 64, b"good.test", "load@load.test", &mut header);
        let names: Vec<_> = fields(&header).map(|(name, _)| name.escape_ascii().to_string()).collect();
        assert_eq!(names, ["From", "To", "Subject", "Date", "Message-ID", "X-Rmxd-Load"]);
        assert_eq!(fields(&header).next().unwrap().1, b" <load@good.test>");
    }
}

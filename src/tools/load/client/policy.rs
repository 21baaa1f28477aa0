//! One session as Postfix asks a policy service about it: a request for the recipient of each message.
//!
//! Postfix keeps the connection for the sessions that follow.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::time::Instant;

use crate::net::{Endpoint, Stream};
use crate::policy::decide::Verdict;
use crate::tools::load::client::{SessionOptions, client_of, failure, helo_of, sender_of};
use crate::tools::load::outcome::{Decided, Failure, FailureKind, MessageResult, Stage, Word};
use crate::tools::load::plan::{Plan, Session};
use crate::tools::mta::{self, Action, Policy, Request, dial};

/// The connection of the sessions before.
pub(super) type Kept = Option<Policy<Stream>>;

/// Plays a session; `began` is the time at which it was due. Calls `report` for each message.
pub(super) async fn play(
    target: &Endpoint,
    options: &SessionOptions,
    plan: &Plan,
    session: &Session<'_>,
    kept: &mut Kept,
    began: Instant,
    mut report: impl FnMut(MessageResult),
) {
    let (sender, helo) = (sender_of(session), helo_of(session));
    let mut began = began;
    for message in 0..plan.messages {
        let instance = format!("{:x}.{:x}.{message}", std::process::id(), session.number);
        let request = Request {
            state: "RCPT",
            protocol: "ESMTP",
            client: client_of(session),
            client_name: "unknown",
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
            helo: &helo,
            sender: &sender,
            recipient: &plan.recipient,
            queue_id: "",
            instance: &instance,
            login: "",
        };
        let result = ask(target, options, kept, &request).await.and_then(|action| decided(&action));
        report(MessageResult { result, took: began.elapsed() });
        if result.is_err() {
            *kept = None;
            return;
        }
        began = Instant::now();
    }
}

/// Asks over the connection that is there. If the server has closed it meanwhile, Postfix connects anew.
async fn ask(
    target: &Endpoint,
    options: &SessionOptions,
    kept: &mut Kept,
    request: &Request<'_>,
) -> Result<Action, Failure> {
    if let Some(policy) = kept {
        match policy.ask(request).await {
            Err(mta::Failure::Closed) => *kept = None,
            answered => return answered.map_err(failure::at(Stage::Rcpt)),
        }
    }
    let stream = dial(target, options.timeout).await.map_err(failure::at(Stage::Connect))?;
    let policy = kept.insert(Policy::new(stream, options.timeout));
    policy.ask(request).await.map_err(failure::at(Stage::Rcpt))
}

fn decided(action: &Action) -> Result<Decided, Failure> {
    let stage = Stage::Rcpt;
    let (verdict, word, enhanced) = match action {
        Action::Dunno => (Verdict::Accept, Word::Name("DUNNO"), None),
        Action::Permit => (Verdict::Accept, Word::Name("OK"), None),
        Action::DeferIfPermit(reply) => (Verdict::Defer, Word::Name("DEFER_IF_PERMIT"), reply.enhanced()),
        Action::Reply(reply) => {
            let verdict = if reply.code() < 500 { Verdict::Defer } else { Verdict::Reject };
            (verdict, Word::Code(reply.code()), reply.enhanced())
        }
        Action::Other(_) => return Err(Failure { stage, kind: FailureKind::NoReply }),
    };
    Ok(Decided { verdict, stage, word, enhanced })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{Enhanced, Reply};

    #[test]
    fn an_action_is_a_verdict_with_its_word() {
        let reply = |code, class| Reply::new(code, Enhanced(class, 4, 3), "no");
        let rows = [
            (Action::Dunno, Verdict::Accept, "DUNNO at RCPT"),
            (Action::Permit, Verdict::Accept, "OK at RCPT"),
            (Action::Reply(reply(550, 5)), Verdict::Reject, "550 5.4.3 at RCPT"),
            (Action::Reply(reply(450, 4)), Verdict::Defer, "450 4.4.3 at RCPT"),
            (Action::DeferIfPermit(reply(450, 4)), Verdict::Defer, "DEFER_IF_PERMIT 4.4.3 at RCPT"),
        ];
        for (action, verdict, shown) in rows {
            let found = decided(&action).unwrap();
            assert_eq!((found.verdict, found.to_string().as_str()), (verdict, shown));
        }
        assert!(decided(&Action::Other("HOLD".to_owned())).is_err());
    }
}

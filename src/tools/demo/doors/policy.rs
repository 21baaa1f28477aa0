//! A session as Postfix asks a policy service about it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::net::Endpoint;
use crate::policy::decide::Verdict;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::judged::Judged;
use crate::tools::demo::doors::requests;
use crate::tools::demo::doors::scene::Scene;
use crate::tools::demo::doors::tap::Tap;
use crate::tools::mta::{Action, Failure, Policy, Request, dial};

/// What was seen on the wire, and the decisions.
pub(super) async fn play(
    scene: &Scene,
    number: u16,
    door: &Endpoint,
    patience: Duration,
) -> Result<(Vec<Frame>, Vec<Judged>), Failure> {
    let stream = Tap::new(dial(door, patience).await?);
    let mut policy = Policy::new(stream, patience);
    let mut judged = Vec::new();
    for (at, message) in scene.messages.iter().enumerate() {
        let instance = format!("1f0c.6b0b07a{number}.{at}");
        for (recipient, wanted) in &message.recipients {
            let request = Request {
                state: "RCPT",
                protocol: "ESMTP",
                client: SocketAddr::from((scene.client, 40_000 + number)),
                client_name: "unknown",
                server: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
                helo: scene.helo,
                sender: message.sender,
                recipient,
                queue_id: "",
                instance: &instance,
                login: scene.login.unwrap_or_default(),
            };
            let (verdict, reply) = match policy.ask(&request).await? {
                Action::Dunno => (Verdict::Accept, None),
                Action::Reply(reply) | Action::DeferIfPermit(reply) => {
                    (if reply.code() < 500 { Verdict::Defer } else { Verdict::Reject }, Some(reply))
                }
                // rmxd never skips the restrictions behind it
                Action::Permit | Action::Other(_) => (Verdict::Reject, None),
            };
            let mut judgement = Judged {
                at: format!("RCPT {recipient}"),
                verdict,
                reply,
                reason: None,
                wanted: *wanted,
                edits: Vec::new(),
                wanted_edits: &[],
            };
            judgement.name_message(scene.messages.len(), at);
            judged.push(judgement);
        }
    }
    let is_first = number == 1;
    Ok((requests::frames(policy.stream().seen(), is_first), judged))
}

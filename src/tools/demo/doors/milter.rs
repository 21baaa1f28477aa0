//! A session as Postfix reports it to a milter.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::net::Endpoint;
use crate::policy::decide::Verdict;
use crate::smtp::reply::Reply;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::judged::{Judged, Wanted};
use crate::tools::demo::doors::packets;
use crate::tools::demo::doors::scene::{Message, Scene};
use crate::tools::demo::doors::tap::Tap;
use crate::tools::mta::{Edit, Failure, Final, Milter, Server, dial};

/// What was seen on the wire, and the decisions.
pub(super) async fn play(
    scene: &Scene,
    number: u16,
    door: &Endpoint,
    patience: Duration,
) -> Result<(Vec<Frame>, Vec<Judged>), Failure> {
    let stream = Tap::new(dial(door, patience).await?);
    let server = Server {
        hostname: "mx.demo.test".to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 25)),
        next_hop: "demo.test".to_owned(),
    };
    let mut milter = Milter::negotiate(stream, server, patience).await?;
    milter.connect(SocketAddr::from((scene.client, 40_000 + number)), None).await?;
    milter.helo(scene.helo).await?;
    let mut judged = Vec::new();
    for (at, message) in scene.messages.iter().enumerate() {
        let queue = format!("4Lq8Zk{number:02}{at}1z5Nd");
        let before = judged.len();
        judge(scene, message, &queue, &mut milter, &mut judged).await?;
        judged.iter_mut().skip(before).for_each(|judged| judged.name_message(scene.messages.len(), at));
    }
    milter.quit().await?;
    Ok((packets::frames(milter.stream().seen()), judged))
}

/// One message, up to the first answer that ends it.
async fn judge(
    scene: &Scene,
    message: &Message,
    queue: &str,
    milter: &mut Milter<Tap>,
    judged: &mut Vec<Judged>,
) -> Result<(), Failure> {
    milter.mail(message.sender, scene.login, queue).await?;
    let mut passed = false;
    for (recipient, wanted) in &message.recipients {
        let answer = milter.rcpt(recipient).await?.unwrap_or(Final::Continue);
        let judgement = judgement(format!("RCPT {recipient}"), answer, *wanted);
        passed |= judgement.verdict == Verdict::Accept;
        judged.push(judgement);
    }
    if !passed {
        return Ok(());
    }
    milter.data().await?;
    for (name, value) in fields(scene, message) {
        milter.header(name.as_bytes(), format!(" {value}").as_bytes()).await?;
    }
    if let Some(refused @ Final::Reply(_)) = milter.end_of_header().await? {
        judged.push(judgement("the end of the header".to_owned(), refused, message.content));
        return Ok(());
    }
    milter.body(b"A message of rmxd's demo.\r\n").await?;
    let (edits, answer) = milter.end_of_message().await?;
    let end = judgement("the end of the message".to_owned(), answer, message.content);
    judged.push(Judged {
        edits: edits.iter().map(|edit: &Edit| packets::edit(edit)).collect(),
        wanted_edits: message.edits,
        ..end
    });
    Ok(())
}

fn fields(scene: &Scene, message: &Message) -> Vec<(&'static str, String)> {
    let mut fields: Vec<(&'static str, String)> =
        message.header.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if fields.is_empty() {
        fields.push(("From", format!("<{}>", message.sender)));
    }
    fields.push(("Subject", scene.title.to_owned()));
    fields
}

fn judgement(at: String, answer: Final, wanted: Wanted) -> Judged {
    let (verdict, reply): (Verdict, Option<Reply>) = match answer {
        Final::Continue | Final::Skip => (Verdict::Accept, None),
        Final::Reply(reply) => {
            (if reply.code() < 500 { Verdict::Defer } else { Verdict::Reject }, Some(reply))
        }
        // rmxd never accepts or discards what follows unseen
        Final::Accept | Final::Discard | Final::Reject => (Verdict::Reject, None),
        Final::TemporaryFailure | Final::Shutdown => (Verdict::Defer, None),
    };
    Judged { at, verdict, reply, reason: None, wanted, edits: Vec::new(), wanted_edits: &[] }
}

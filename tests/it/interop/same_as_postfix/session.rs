//! One input, played to one server.

use std::net::{IpAddr, SocketAddr};

use super::input::Input;
use crate::support::client::{Client, Reply};

/// All replies, with that of the end when the server has closed.
#[derive(Debug)]
pub(super) struct Played {
    replies: Vec<Reply>,
}

impl Played {
    /// Of the message that was taken.
    pub(super) fn queue_id(&self) -> Option<&str> {
        let named = |reply: &'_ Reply| reply.code == 250 && reply.text.contains(" queued as ");
        let reply = self.replies.iter().rev().find(|reply| named(reply))?;
        reply.text.rsplit(' ').next()
    }

    /// 4 or 5: the class of the reply that decided.
    pub(super) fn class(&self) -> u16 {
        self.refusal().map_or(0, |reply| reply.code / 100)
    }

    /// What was answered, shortly.
    pub(super) fn last(&self) -> String {
        match self.queue_id() {
            Some(_) => "takes it".to_owned(),
            None => self.refusal().map_or_else(|| "no reply".to_owned(), |reply| reply.text.clone()),
        }
    }

    /// The first that isn't positive.
    fn refusal(&self) -> Option<&Reply> {
        self.replies.iter().find(|reply| !reply.is_positive())
    }
}

pub(super) async fn play(input: &Input, from: IpAddr, to: SocketAddr) -> Played {
    let mut client = Client::connect(from, to).await;
    let mut replies = vec![client.reply().await];
    for (octets, count) in &input.steps {
        client.send(octets).await;
        for _ in 0..*count {
            match client.reply_or_end().await {
                Ok(reply) => replies.push(reply),
                Err(_closed) => return Played { replies },
            }
        }
        if replies.last().is_some_and(|reply| reply.code == 354) {
            client.send(&input.message).await;
            match client.reply_or_end().await {
                Ok(reply) => replies.push(reply),
                Err(_closed) => return Played { replies },
            }
        }
    }
    client.send(b"QUIT\r\n").await;
    drop(client.reply_or_end().await);
    Played { replies }
}

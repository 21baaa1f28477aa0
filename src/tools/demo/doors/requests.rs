//! Requests and answers of policy delegation as frames.

use crate::smtp::escape::Escaped;
use crate::smtp::reply::Reply;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::tap::Side;
use crate::tools::mta::Action;

/// The attributes that rmxd reads, but for those that say little here.
const READ: [&str; 8] = [
    "protocol_state",
    "client_address",
    "helo_name",
    "sender",
    "recipient",
    "queue_id",
    "instance",
    "sasl_username",
];

/// Decodes what was seen on a connection; `whole`: with all attributes of the requests.
pub(super) fn frames(seen: &[(Side, Vec<u8>)], whole: bool) -> Vec<Frame> {
    let mut sender = String::new();
    let mut frames = Vec::new();
    for (side, octets) in seen {
        let mut rest = String::from_utf8_lossy(octets).into_owned();
        while let Some(end) = rest.find("\n\n") {
            let (text, after) = rest.split_at_checked(end + 2).unwrap_or((&rest, ""));
            frames.push(match side {
                Side::Postfix => {
                    value(text, "sender").clone_into(&mut sender);
                    Frame::postfix("request", if whole { all(text) } else { read(text) })
                }
                Side::Rmxd => answer(text, &sender),
            });
            rest = after.to_owned();
        }
    }
    frames
}

/// The value of an attribute; empty where it isn't given.
fn value<'a>(request: &'a str, name: &str) -> &'a str {
    let found = request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_default()
}

fn all(request: &str) -> String {
    let lines = request.lines().filter(|line| !line.is_empty());
    lines.map(|line| Escaped::new(line).to_string()).collect::<Vec<_>>().join("  ")
}

fn read(request: &str) -> String {
    let named = READ.iter().filter(|name| !value(request, name).is_empty());
    let shown: Vec<String> =
        named.map(|name| format!("{name}={}", Escaped::new(value(request, name)))).collect();
    format!("{}  ...", shown.join("  "))
}

fn answer(text: &str, sender: &str) -> Frame {
    let shown = Escaped::new(text.trim_end()).to_string();
    let to_client = |reply: &Reply| {
        let line = reply.to_string();
        let text = reply.text();
        let codes = line.strip_suffix(text).unwrap_or(&line);
        format!("Postfix replies {codes}<{sender}>: Sender address rejected: {text}")
    };
    let effect = match Action::first(text.as_bytes()) {
        Ok(Some((Action::Dunno, _))) => "no objection: the next restriction of Postfix decides".to_owned(),
        Ok(Some((Action::Reply(reply), _))) => to_client(&reply),
        Ok(Some((Action::DeferIfPermit(reply), _))) => {
            format!("{}; a mail server tries again later", to_client(&reply))
        }
        _ => String::new(),
    };
    Frame::rmxd("answer", shown).with(effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_answer_are_two_frames() {
        let request =
            b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@x.test\nqueue_id=\nsize=0\n\n";
        let of = |action: &str| {
            vec![(Side::Postfix, request.to_vec()), (Side::Rmxd, format!("action={action}\n\n").into_bytes())]
        };
        let shown = frames(&of("DUNNO"), false);
        assert_eq!(shown[0], Frame::postfix("request", "protocol_state=RCPT  sender=a@x.test  ..."));
        let whole = frames(&of("DUNNO"), true);
        assert!(whole[0].text.ends_with("sender=a@x.test  queue_id=  size=0"), "{whole:?}");
        let rows = [
            ("DUNNO", "no objection: the next restriction of Postfix decides"),
            ("550 5.1.8 gone", "Postfix replies 550 5.1.8 <a@x.test>: Sender address rejected: gone"),
            (
                "DEFER_IF_PERMIT 4.7.1 later",
                "Postfix replies 450 4.7.1 <a@x.test>: Sender address rejected: later; a mail server tries again later",
            ),
        ];
        for (action, effect) in rows {
            let shown = frames(&of(action), false);
            assert_eq!(shown[1], Frame::rmxd("answer", format!("action={action}")).with(effect));
        }
    }
}

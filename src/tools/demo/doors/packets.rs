//! The packets of a milter connection as frames.

use crate::milter::{Client, Event, Macros, Packet};
use crate::smtp::escape::Escaped;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::tap::Side;
use crate::tools::mta::{Answer, Edit, Filter, Final, Stage};

/// Decodes what was seen on a connection.
pub(super) fn frames(seen: &[(Side, Vec<u8>)]) -> Vec<Frame> {
    let mut decoder = Decoder { frames: Vec::new(), macros: String::new(), ends_message: false };
    for (side, octets) in seen {
        let mut rest = octets.as_slice();
        while let Ok(Some((packet, length))) = Packet::first(rest) {
            match side {
                Side::Postfix => decoder.event(packet),
                Side::Rmxd => decoder.answer(packet),
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    decoder.frames
}

struct Decoder {
    frames: Vec<Frame>,
    /// For the event that follows.
    macros: String,
    /// The last event was the end of a message.
    ends_message: bool,
}

impl Decoder {
    fn event(&mut self, packet: Packet<'_>) {
        let Ok(event) = Event::parse(packet) else { return };
        let (name, text) = match event {
            Event::Macros(macros) => {
                self.macros = shown(macros);
                return;
            }
            Event::Negotiate(offer) => (
                "OPTNEG",
                format!("offers version {}, all events, and all changes of a message", offer.version()),
            ),
            Event::Connect { name, client: Client::Host { address, port } } => {
                let literal = format!("[{address}]");
                let name = text(name);
                let name = if name == literal { String::new() } else { format!("{name} ") };
                ("CONNECT", format!("{name}{literal} port {port}"))
            }
            Event::Connect { name, .. } => ("CONNECT", text(name)),
            Event::Helo(argument) => ("HELO", text(argument)),
            Event::Mail(path) => ("MAIL", text(path.argument)),
            Event::Rcpt(path) => ("RCPT", text(path.argument)),
            Event::Data => ("DATA", "the message follows".to_owned()),
            Event::Header(field) => ("HEADER", format!("{}:{}", text(field.name), text(field.value))),
            Event::EndOfHeader => ("EOH", "the end of the header".to_owned()),
            Event::Body(octets) => ("BODY", format!("{} octets", octets.len())),
            Event::EndOfMessage(_) => ("EOM", "the end of the message".to_owned()),
            Event::Abort => ("ABORT", "the transaction is over".to_owned()),
            Event::Quit => ("QUIT", "the session is over".to_owned()),
            Event::QuitNewConnection => ("QUIT_NC", "the client has left".to_owned()),
            Event::Unknown(line) => ("UNKNOWN", text(line)),
        };
        self.ends_message = matches!(event, Event::EndOfMessage(_));
        let macros = std::mem::take(&mut self.macros);
        self.frames.push(Frame { macros, ..Frame::postfix(name, text) });
    }

    fn answer(&mut self, packet: Packet<'_>) {
        if let Ok(filter) = Filter::read(packet) {
            return self.frames.push(Frame::rmxd("OPTNEG", terms(&filter)));
        }
        let Ok(answer) = Answer::parse(packet) else { return };
        self.frames.push(match answer {
            Answer::Progress => Frame::rmxd("progress", "still busy"),
            Answer::Edit(edit) => edited(&edit),
            Answer::Final(answer) => last(&answer, self.ends_message),
        });
    }
}

/// Which events are answered.
fn terms(filter: &Filter) -> String {
    let stages = [
        (Stage::Connect, "CONNECT"),
        (Stage::Helo, "HELO"),
        (Stage::Mail, "MAIL"),
        (Stage::Rcpt, "RCPT"),
        (Stage::Data, "DATA"),
        (Stage::Header, "HEADER"),
        (Stage::EndOfHeader, "EOH"),
        (Stage::Body, "BODY"),
        (Stage::EndOfMessage, "EOM"),
    ];
    let names = |which: &dyn Fn(Stage) -> bool| {
        let named = stages.iter().filter(|(stage, _)| which(*stage)).map(|(_, name)| *name);
        named.collect::<Vec<_>>().join(", ")
    };
    format!(
        "will answer {}\nand listen only to {}",
        names(&|stage| filter.answers(stage)),
        names(&|stage| filter.wants(stage) && !filter.answers(stage))
    )
}

/// What a person calls an edit.
pub(super) fn edit(edit: &Edit) -> String {
    match edit {
        Edit::Add { name, .. } => format!("add behind all fields: {name}"),
        Edit::Insert { position: 0, name, .. } => format!("insert before all fields: {name}"),
        Edit::Insert { position, name, .. } => format!("insert behind {position} fields: {name}"),
        Edit::Change { index, name, .. } => format!("change number {index} of: {name}"),
        Edit::Delete { index, name } => format!("delete number {index} of: {name}"),
        Edit::Other(letter) => format!("edit '{}'", letter.escape_ascii()),
    }
}

fn edited(edited: &Edit) -> Frame {
    match edited {
        Edit::Insert { position, name, value } => {
            let place = if *position == 0 {
                "before all fields".to_owned()
            } else {
                format!("behind {position} fields")
            };
            let value: Vec<String> = value.lines().map(|line| text(line.as_bytes())).collect();
            Frame::rmxd("insert", format!("{place}:\n{name}:{}", value.join("\n")))
        }
        Edit::Delete { index, name } => Frame::rmxd("delete", format!("{name} number {index}")),
        other => Frame::rmxd("edit", edit(other)),
    }
}

fn last(answer: &Final, ends_message: bool) -> Frame {
    match answer {
        Final::Continue if ends_message => Frame::rmxd("continue", "").with("Postfix takes the message"),
        Final::Continue => Frame::rmxd("continue", ""),
        Final::Reply(reply) => {
            let effect = "Postfix gives this reply to the client, to the letter";
            let later = if reply.code() < 500 { "; a mail server tries again later" } else { "" };
            Frame::rmxd("reply", reply.to_string()).with(format!("{effect}{later}"))
        }
        Final::TemporaryFailure => Frame::rmxd("tempfail", "").with("Postfix replies 451 4.7.1"),
        Final::Skip => Frame::rmxd("skip", ""),
        Final::Accept => Frame::rmxd("accept", ""),
        Final::Reject => Frame::rmxd("reject", ""),
        Final::Discard => Frame::rmxd("discard", ""),
        Final::Shutdown => Frame::rmxd("shutdown", ""),
    }
}

/// `(i=4F1, auth_authen=ann)`, without braces around names.
fn shown(macros: Macros<'_>) -> String {
    let pairs: Vec<String> = macros
        .iter()
        .map(|(name, value)| format!("{}={}", text(name).trim_matches(['{', '}']), text(value)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("({})", pairs.join(", ")) }
}

/// Printable.
fn text(octets: &[u8]) -> String {
    let readable: Vec<u8> = octets.iter().map(|octet| if *octet == b'\t' { b' ' } else { *octet }).collect();
    Escaped::new(&readable).to_string()
}

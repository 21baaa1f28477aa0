//! Parses a line of a Postfix log: the process that wrote it, and its event.
//!
//! Any form of `form` is read, any instance name (postfix-in/smtpd) and service name (postfix/submission/smtpd), and short and
//! long queue ids. Only lines with a client or a sender are events; other lines of Postfix and those of other programs are
//! ignored. A sender can put nearly any text into an address or a HELO and so forge a line about itself; the result is for
//! statistics only. A line that can't be parsed is counted as unreadable.

use std::net::IpAddr;

use crate::tools::replay::form::{Form, Head, form};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Of another program.
    Foreign,
    /// Of Postfix, with its time stamp.
    Postfix(&'a str, Entry<'a>),
    /// Not a log line, or an event without a required part.
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) host: &'a str,
    /// `postfix`, or the value of `syslog_name`.
    pub(super) instance: &'a str,
    /// With the process id this is what all lines of a session have in common.
    pub(super) program: &'a str,
    pub(super) pid: &'a str,
    /// The name of the service says that it is for authenticated users.
    pub(super) submission: bool,
    pub(super) event: Event<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// Without a client or a sender.
    Nothing,
    Connect {
        client: IpAddr,
    },
    Disconnect,
    /// A message begins; without a queue id Postfix passes it through to a filter.
    Begin {
        id: Option<&'a str>,
        client: IpAddr,
        origin: Origin,
    },
    /// The message is in the queue.
    Queued {
        id: &'a str,
        sender: &'a str,
    },
    /// A message, or one of its recipients, is refused. `id` is the queue id if it had one; `session` is the client
    /// address with its port, in lines of postscreen.
    Refused {
        id: Option<&'a str>,
        client: Option<IpAddr>,
        session: Option<&'a str>,
        sender: &'a str,
        helo: Option<&'a str>,
    },
    /// A client is refused before MAIL FROM.
    RefusedEarly,
    /// The filter accepted or refused a message.
    Proxied {
        accepted: bool,
        sender: &'a str,
        helo: Option<&'a str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Another mail server.
    External,
    /// An authenticated user of this server.
    Authenticated,
    /// A filter or another program on this machine.
    Internal,
}

/// `line` is without its line end.
pub(super) fn parse(line: &str) -> Line<'_> {
    match form(line) {
        Form::Known(head) => entry(head),
        Form::Nameless => Line::Foreign,
        Form::Unknown => Line::Unreadable,
    }
}

/// A line or an entry of the journal that has its parts.
pub(super) fn entry(head: Head<'_>) -> Line<'_> {
    let Head { stamp, host, program, pid, text } = head;
    // rsyslog's APP-NAME ends before a slash (parser.permitSlashInProgramName).
    let parts = names(program).or_else(|| is_cut(program).then_some((program, "", "")));
    let Some((instance, service, last)) = parts else { return Line::Foreign };
    // Solaris has this before the text: [ID 197553 mail.info]
    let text = match text.strip_prefix("[ID ").and_then(|rest| rest.split_once("] ")) {
        Some((_, text)) => text,
        None => text,
    };
    let submission = ["submission", "smtps"].iter().any(|name| service.contains(name));
    let event = match last {
        "smtpd" => smtpd(text),
        "postscreen" => postscreen(text),
        "qmgr" => qmgr(text),
        "cleanup" => cleanup(text),
        "" => by_text(text).unwrap_or(Some(Event::Nothing)),
        _ => Some(Event::Nothing),
    };
    match event {
        Some(event) => Line::Postfix(stamp, Entry { host, instance, program, pid, submission, event }),
        None => Line::Unreadable,
    }
}

/// A text alone, as `journalctl -o cat` writes it; `None` if Postfix doesn't begin an event so. Connections can't be told apart,
/// so the address of a refused client takes the place of its connection.
pub(super) fn bare(text: &str) -> Option<Line<'_>> {
    queue_id(text)?;
    let event = by_text(text)?.map(|event| match event {
        Event::Refused { id: None, client, session: None, sender, helo } => {
            let session = text.split_once(" from ").and_then(|(_, rest)| rest.split_once("]"));
            let session = session.map(|(client, _)| client);
            Event::Refused { id: None, client, session, sender, helo }
        }
        other => other,
    });
    let entry = |event| Entry { host: "", instance: "", program: "", pid: "", submission: false, event };
    Some(event.map_or(Line::Unreadable, |event| Line::Postfix("", entry(event))))
}

/// The event of a text whose program isn't known: each begins its texts in another way. The outer `None` is for a text that none
/// of them writes, the inner one for an event without a required part.
fn by_text(text: &str) -> Option<Option<Event<'_>>> {
    if ["connect from ", "disconnect from ", "proxy-"].iter().any(|start| text.starts_with(start)) {
        return Some(smtpd(text));
    }
    let (id, rest) = queue_id(text)?;
    if rest.starts_with("from=<") {
        Some(qmgr(text))
    } else if rest.starts_with("client=") || rest.starts_with("proxy-") {
        Some(smtpd(text))
    } else if refusal(rest).is_some() {
        Some(cleanup(text))
    } else {
        // NOQUEUE stands before events only.
        id.map(|_| Some(Event::Nothing))
    }
}

/// `postfix` or the name of an instance such as `postfix-out`.
fn is_cut(program: &str) -> bool {
    let rest = program.strip_prefix("postfix");
    rest.is_some_and(|rest| rest.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-'))
}

/// `postfix/submission/smtpd`: the first part, the parts in between, and the last one; `None` for other programs.
fn names(name: &str) -> Option<(&str, &str, &str)> {
    let (instance, rest) = name.split_once('/')?;
    let (service, program) = rest.rsplit_once('/').unwrap_or(("", rest));
    let known = ["smtpd", "postscreen", "qmgr", "cleanup"].contains(&program);
    let plain = !name.contains(' ') && !instance.is_empty();
    (plain && (known || instance.starts_with("postfix"))).then_some((instance, service, program))
}

fn smtpd(text: &str) -> Option<Event<'_>> {
    if let Some(rest) = text.strip_prefix("connect from ") {
        // a client that has disconnected at once is unknown[unknown]
        return Some(client(rest).map_or(Event::Nothing, |client| Event::Connect { client }));
    }
    if text.starts_with("disconnect from ") {
        return Some(Event::Disconnect);
    }
    if text.starts_with("proxy-") {
        return proxied(text);
    }
    let Some((id, rest)) = queue_id(text) else { return Some(Event::Nothing) };
    if let Some(rest) = rest.strip_prefix("client=") {
        return Some(Event::Begin { id, client: client(rest)?, origin: origin(rest) });
    }
    if rest.starts_with("proxy-") {
        return proxied(rest);
    }
    refusal(rest).map_or(Some(Event::Nothing), |rest| refused(id, rest))
}

/// `NOQUEUE: reject: RCPT from [192.0.2.1]:1234: 550 5.7.1 ...; from=<a>, to=<b>, proto=ESMTP, helo=<c>`
fn postscreen(text: &str) -> Option<Event<'_>> {
    match text.strip_prefix("NOQUEUE: reject: ") {
        Some(rest) => refused(None, rest),
        None => Some(Event::Nothing),
    }
}

/// `4KXN7Q2M: from=<a@b>, size=1, nrcpt=1 (queue active)`
fn qmgr(text: &str) -> Option<Event<'_>> {
    let Some((Some(id), rest)) = queue_id(text) else { return Some(Event::Nothing) };
    match rest.strip_prefix("from=<") {
        Some(rest) => {
            let (sender, _) = rest.rsplit_once(">, size=").or_else(|| rest.rsplit_once(">, "))?;
            Some(Event::Queued { id, sender })
        }
        None => Some(Event::Nothing),
    }
}

/// Milters and header checks: `ID: milter-reject: END-OF-MESSAGE from ...`, `ID: reject: header Subject: ... from ...; from=<a> ...`
fn cleanup(text: &str) -> Option<Event<'_>> {
    let Some((id, rest)) = queue_id(text) else { return Some(Event::Nothing) };
    let Some(rest) = refusal(rest) else { return Some(Event::Nothing) };
    let by_content = ["header ", "body ", "mime-header ", "nested-header ", "content "];
    if !by_content.iter().any(|start| rest.starts_with(start)) {
        return refused(id, rest);
    }
    let (_, fields) = rest.rsplit_once("; from=<")?;
    let (sender, helo) = (sender(fields)?, helo(fields));
    Some(Event::Refused { id, client: None, session: None, sender, helo })
}

fn refusal(text: &str) -> Option<&str> {
    text.strip_prefix("reject: ").or_else(|| text.strip_prefix("milter-reject: "))
}

/// `RCPT from name[192.0.2.1]: 550 5.1.1 ...; from=<a> to=<b> proto=ESMTP helo=<c>`
fn refused<'a>(id: Option<&'a str>, rest: &'a str) -> Option<Event<'a>> {
    let (stage, rest) = rest.split_once(" from ")?;
    if ["CONNECT", "HELO", "EHLO", "AUTH", "STARTTLS", "VRFY", "ETRN", "UNKNOWN"].contains(&stage) {
        return Some(Event::RefusedEarly);
    }
    if id.is_some() && ["RCPT", "MAIL"].contains(&stage) {
        // Postfix assigns the id with the first accepted recipient, so the message has one.
        return Some(Event::Nothing);
    }
    let Some((_, fields)) = rest.rsplit_once("; from=<") else {
        return (stage == "MAIL").then_some(Event::RefusedEarly);
    };
    if fields.contains("> sasl_username=<") {
        return Some(Event::Nothing);
    }
    let (sender, helo) = (sender(fields)?, helo(fields));
    let session = rest.strip_prefix('[').and_then(|_| rest.split_once(": ")).map(|(session, _)| session);
    Some(Event::Refused { id, client: Some(client(rest)?), session, sender, helo })
}

/// `proxy-accept: END-OF-MESSAGE: 250 2.0.0 Ok; from=<a> to=<b> proto=ESMTP helo=<c>`
fn proxied(text: &str) -> Option<Event<'_>> {
    let (accepted, rest) = match text.strip_prefix("proxy-accept: ") {
        Some(rest) => (true, rest),
        None => match text.strip_prefix("proxy-reject: ") {
            Some(rest) => (false, rest),
            None => return Some(Event::Nothing),
        },
    };
    let (_, fields) = rest.rsplit_once("; from=<")?;
    if fields.contains("> sasl_username=<") {
        return Some(Event::Nothing);
    }
    Some(Event::Proxied { accepted, sender: sender(fields)?, helo: helo(fields) })
}

/// The address after `from=<`, up to the next field or the end.
fn sender(fields: &str) -> Option<&str> {
    let ends = ["> to=<", ">, to=<", "> proto=", ">, proto=", "> helo=<", ">:"];
    let end = ends.iter().filter_map(|end| fields.find(end)).min();
    match end {
        Some(end) => fields.split_at_checked(end).map(|(sender, _)| sender),
        None => fields.strip_suffix('>'),
    }
}

fn helo(fields: &str) -> Option<&str> {
    let (_, rest) = fields.rsplit_once("helo=<")?;
    rest.split_once('>').map(|(helo, _)| helo).filter(|helo| !helo.is_empty())
}

/// The address in `name[192.0.2.1]` or `name[2001:db8::1]:1234`; the name has no brackets.
fn client(text: &str) -> Option<IpAddr> {
    let (_, rest) = text.split_once('[')?;
    let (address, _) = rest.split_once(']')?;
    let address = address.strip_prefix("IPv6:").unwrap_or(address);
    address.parse().ok().map(|address: IpAddr| address.to_canonical())
}

fn origin(client: &str) -> Origin {
    let field = |name| client.contains(name);
    if field(", sasl_username=") || field(", sasl_method=") {
        Origin::Authenticated
    } else if field(", orig_queue_id=")
        || field(", orig_client=")
        || client.starts_with("localhost[127.0.0.1]")
        || client.starts_with("localhost[::1]")
    {
        Origin::Internal
    } else {
        Origin::External
    }
}

/// The queue id (`None` for NOQUEUE) and the text after it.
fn queue_id(text: &str) -> Option<(Option<&str>, &str)> {
    let (id, rest) = text.split_once(": ")?;
    if id == "NOQUEUE" {
        return Some((None, rest));
    }
    // Short ids are hexadecimal; long ones are in base 52, which has no vowels.
    let short = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let long = |byte: u8| byte.is_ascii_alphanumeric() && !b"AEIOUaeiou".contains(&byte);
    let is_id =
        (5..=20).contains(&id.len()) && (id.bytes().all(short) || (id.len() >= 10 && id.bytes().all(long)));
    is_id.then_some((Some(id), rest))
}

#[cfg(test)]
mod tests;

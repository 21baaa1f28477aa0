//! Command lines: what was understood can be said again, and says the same to the next server.
//!
//! Input: the line without its CRLF, as framing gives it (no CR, LF or NUL).

use rmxd::smtp::command::{Body, Command, MailParameters, RcptParameters};
use rmxd::smtp::xclient::Xclient;

use super::wire::assert_strict;

pub fn check(line: &[u8]) {
    if line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        return;
    }
    let parsed = Command::parse(line);
    assert_eq!(Command::parse(&[line, b" \t"].concat()), parsed, "white space at the end matters");
    let command = match parsed {
        Ok(command) => command,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(['\r', '\n', '\0']), "{text:?}");
            return;
        }
    };
    let (said, command) = (said(&command), as_said(command));
    assert_strict(said.as_bytes());
    assert!(!said.contains(['\r', '\n']), "{said:?}");
    assert_eq!(
        Command::parse(said.as_bytes()),
        Ok(command),
        "{said:?} for {:?}",
        line.escape_ascii().to_string()
    );
    assert!(
        said.len() <= 3 * line.len() + 256,
        "{said:?}: longer than its source by more than A-labels can make it"
    );
}

/// What is left of a command when it is said again: of a U-label, only the A-label.
fn as_said(command: Command) -> Command {
    match command {
        Command::Rcpt(path, parameters) => {
            let utf8 = !path.to_string().is_ascii();
            Command::Rcpt(path, RcptParameters { utf8, ..parameters })
        }
        other => other,
    }
}

/// The command as one would send it on.
fn said(command: &Command) -> String {
    match command {
        Command::Helo(argument) | Command::Ehlo(argument) => {
            assert!(
                (1..=255).contains(&argument.len()) && argument.bytes().all(|octet| octet.is_ascii_graphic())
            );
            let verb = if matches!(command, Command::Helo(_)) { "HELO" } else { "EHLO" };
            format!("{verb} {argument}")
        }
        Command::Mail(path, parameters) => format!("MAIL FROM:<{path}>{}", mail_parameters(parameters)),
        Command::Rcpt(path, parameters) => {
            let said = format!("RCPT TO:<{path}>{}", rcpt_parameters(parameters));
            assert!(parameters.utf8 || path.to_string().is_ascii());
            said
        }
        Command::Data => "DATA".to_owned(),
        Command::Bdat { octets, last: false } => format!("BDAT {octets}"),
        Command::Bdat { octets, last: true } => format!("BDAT {octets} LAST"),
        Command::Rset => "RSET".to_owned(),
        Command::Noop => "NOOP".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        Command::Vrfy => "VRFY x".to_owned(),
        Command::Help => "HELP".to_owned(),
        Command::StartTls => "STARTTLS".to_owned(),
        Command::Xclient(arguments) => {
            assert_announced(arguments);
            format!("XCLIENT {arguments}")
        }
    }
}

/// The client that XCLIENT announces, if it does.
fn assert_announced(arguments: &str) {
    let Ok(Xclient { address, port: _, helo, extended: _ }) = Xclient::parse(arguments) else { return };
    assert!(address.is_none_or(|address| address == address.to_canonical()), "{address:?}");
    assert!(helo.is_none_or(|helo| helo.bytes().all(|octet| octet.is_ascii_graphic())), "{arguments:?}");
}

fn mail_parameters(parameters: &MailParameters) -> String {
    let MailParameters { size, body, smtputf8, ret, envid } = parameters;
    let body = body.map(|body| match body {
        Body::SevenBit => "7BIT",
        Body::EightBitMime => "8BITMIME",
    });
    let words = [
        size.map(|size| format!(" SIZE={size}")),
        body.map(|body| format!(" BODY={body}")),
        smtputf8.then(|| " SMTPUTF8".to_owned()),
        ret.as_ref().map(|ret| format!(" RET={ret}")),
        envid.as_ref().map(|envid| format!(" ENVID={envid}")),
    ];
    words.into_iter().flatten().collect()
}

fn rcpt_parameters(parameters: &RcptParameters) -> String {
    let RcptParameters { notify, orcpt, utf8: _ } = parameters;
    let words = [
        notify.as_ref().map(|notify| format!(" NOTIFY={notify}")),
        orcpt.as_ref().map(|orcpt| format!(" ORCPT={orcpt}")),
    ];
    words.into_iter().flatten().collect()
}

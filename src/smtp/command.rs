//! Reads command lines (RFC 5321 4.1.1) into values that can't be wrong.
//!
//! Case of verbs doesn't matter, white space around a command and after `FROM:` is skipped, the argument of HELO may be
//! anything, and addresses are read as leniently as in Postfix (`smtp::path`). An error names what is refused, for the
//! reply.

use compact_str::CompactString;

use crate::smtp::address::{AddressError, ForwardPath, ReversePath};
use crate::smtp::path;

/// Longest HELO argument (RFC 5321 4.5.3.1.2).
const MAX_HELO: usize = 255;
/// Longest ENVID. RFC 3461 4.4 allows 100; Postfix accepts longer ones.
const MAX_ENVID: usize = 500;
/// Longest ORCPT (RFC 3461 4.2).
const MAX_ORCPT: usize = 500;

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO with its argument: printable ASCII, not empty, not proven to be a domain.
    Helo(CompactString),
    /// EHLO, with the same.
    Ehlo(CompactString),
    Mail(ReversePath, MailParameters),
    Rcpt(ForwardPath, RcptParameters),
    Data,
    /// BDAT (RFC 3030 2): this many octets follow at once.
    Bdat {
        /// Octets of the chunk.
        octets: u64,
        /// The chunk is the last of the message.
        last: bool,
    },
    Rset,
    /// NOOP, with or without argument.
    Noop,
    Quit,
    /// VRFY; the argument doesn't matter, users aren't disclosed.
    Vrfy,
    Help,
    /// XCLIENT with its arguments unread: the reply to a client that may not use it doesn't depend on them.
    Xclient(CompactString),
    /// STARTTLS (RFC 3207).
    StartTls,
}

/// Parameters after the reverse path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// SIZE in octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY (RFC 6152).
    pub body: Option<Body>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET, `FULL` or `HDRS` (RFC 3461 4.3).
    pub ret: Option<CompactString>,
    /// ENVID in xtext (RFC 3461 4.4).
    pub envid: Option<CompactString>,
}

/// Parameters after the forward path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptParameters {
    /// NOTIFY: `NEVER`, or of `SUCCESS,FAILURE,DELAY` (RFC 3461 4.1).
    pub notify: Option<CompactString>,
    /// ORCPT: address type and address in xtext (RFC 3461 4.2).
    pub orcpt: Option<CompactString>,
    /// The domain has octets above 127, which isn't allowed in a transaction without SMTPUTF8 (RFC 6531 3.5).
    pub utf8: bool,
}

impl RcptParameters {
    /// Whether a parameter of DSN is given.
    #[must_use]
    pub fn asks_dsn(&self) -> bool {
        self.notify.is_some() || self.orcpt.is_some()
    }
}

/// BODY (RFC 6152 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// 7BIT.
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The verb doesn't exist: 500.
    #[error("command not known")]
    Unknown,
    /// A verb of RFC 5321 or an extension that this server doesn't have: 502.
    #[error("command not implemented")]
    NotImplemented,
    /// 501; the text is the expected syntax.
    #[error("syntax: {0}")]
    Syntax(&'static str),
    /// The path of MAIL: 501 5.1.7.
    #[error("{0}")]
    ReversePath(AddressError),
    /// The path of RCPT: 501 5.1.3.
    #[error("{0}")]
    ForwardPath(AddressError),
    /// A domain with octets above 127, without SMTPUTF8: 553 (RFC 6531 3.5).
    #[error("the address is not ASCII")]
    NotAscii,
    /// The number of octets that follow is unknown, so the connection can't go on: 501.
    #[error("syntax: BDAT octets [LAST]")]
    ChunkSize,
    /// 555.
    #[error("parameter {0} not known")]
    UnknownParameter(CompactString),
    /// 501.
    #[error("parameter {0} has no valid value")]
    BadParameter(CompactString),
}

impl Command {
    /// Reads a line, which is without its CRLF.
    ///
    /// # Errors
    /// The fault of the line.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii();
        let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(at).unwrap_or((line, b""));
        let rest = rest.trim_ascii_start();
        match verb.to_ascii_uppercase().as_slice() {
            b"HELO" => helo(rest, "HELO domain").map(Self::Helo),
            b"EHLO" => helo(rest, "EHLO domain").map(Self::Ehlo),
            b"MAIL" => mail(rest),
            b"RCPT" => rcpt(rest),
            b"DATA" => bare(rest, Self::Data),
            b"BDAT" => bdat(rest),
            b"RSET" => bare(rest, Self::Rset),
            b"QUIT" => bare(rest, Self::Quit),
            b"STARTTLS" => bare(rest, Self::StartTls),
            b"NOOP" => Ok(Self::Noop),
            b"HELP" => Ok(Self::Help),
            b"VRFY" if rest.is_empty() => Err(CommandError::Syntax("VRFY user")),
            b"VRFY" => Ok(Self::Vrfy),
            b"XCLIENT" => printable(rest, "XCLIENT NAME=value ...").map(Self::Xclient),
            b"EXPN" | b"AUTH" | b"ETRN" | b"TURN" => Err(CommandError::NotImplemented),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn bare(rest: &[u8], command: Command) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Syntax("this command takes no argument")) }
}

/// Visible ASCII and blanks.
fn printable(rest: &[u8], usage: &'static str) -> Result<CompactString, CommandError> {
    let valid = rest.iter().all(|octet| matches!(octet, b' '..=b'~'));
    std::str::from_utf8(rest)
        .ok()
        .filter(|_| valid)
        .map(CompactString::new)
        .ok_or(CommandError::Syntax(usage))
}

/// No argument is a reason for a refusal (RFC 5321 4.1.4). An octet that can't be shown becomes `?`, and an argument
/// that is longer than a domain is cut.
fn helo(rest: &[u8], usage: &'static str) -> Result<CompactString, CommandError> {
    let shown = |octet: &u8| if matches!(octet, b' '..=b'~') { char::from(*octet) } else { '?' };
    let text: CompactString = rest.iter().take(MAX_HELO).map(shown).collect();
    if text.is_empty() { Err(CommandError::Syntax(usage)) } else { Ok(text) }
}

fn bdat(rest: &[u8]) -> Result<Command, CommandError> {
    let mut words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let octets = words.next().filter(|word| word.len() <= 18 && word.iter().all(u8::is_ascii_digit));
    let octets = octets.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
    let last = match words.next() {
        None => Some(false),
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => Some(true),
        Some(_) => None,
    };
    match (octets, last, words.next()) {
        (Some(octets), Some(last), None) => Ok(Command::Bdat { octets, last }),
        _ => Err(CommandError::ChunkSize),
    }
}

fn mail(rest: &[u8]) -> Result<Command, CommandError> {
    const USAGE: &str = "MAIL FROM:<address>";
    let (inner, rest) = path(rest, b"FROM:", USAGE)?;
    let path = ReversePath::parse(inner).map_err(CommandError::ReversePath)?;
    if path == ReversePath::Null && !inner.contains('<') {
        return Err(CommandError::Syntax(USAGE));
    }
    let mut parameters = MailParameters::default();
    for Parameter { name, value } in parameters_of(rest)? {
        let fits = match (name.as_str(), value) {
            // Postfix accepts these more than once; the last one counts
            ("SIZE", Some(value)) => last(&mut parameters.size, size(value)),
            ("BODY", Some(value)) => last(&mut parameters.body, body(value)),
            ("SMTPUTF8", None) => {
                parameters.smtputf8 = true;
                true
            }
            // RFC 4954 5: read and ignored, since no client is trusted here
            ("AUTH", Some(_)) => true,
            ("RET", Some(value)) => {
                let value = value.to_ascii_uppercase();
                matches!(value.as_str(), "FULL" | "HDRS") && once(&mut parameters.ret, value.into())
            }
            ("ENVID", Some(value)) => {
                is_xtext(value) && value.len() <= MAX_ENVID && once(&mut parameters.envid, value.into())
            }
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID", _) => false,
            _ => return Err(CommandError::UnknownParameter(name)),
        };
        if !fits {
            return Err(CommandError::BadParameter(name));
        }
    }
    if has_u_label(inner) && !parameters.smtputf8 {
        return Err(CommandError::NotAscii);
    }
    Ok(Command::Mail(path, parameters))
}

fn rcpt(rest: &[u8]) -> Result<Command, CommandError> {
    const USAGE: &str = "RCPT TO:<address>";
    let (inner, rest) = path(rest, b"TO:", USAGE)?;
    let path = ForwardPath::parse(inner).map_err(CommandError::ForwardPath)?;
    let mut parameters = RcptParameters { utf8: has_u_label(inner), ..RcptParameters::default() };
    for Parameter { name, value } in parameters_of(rest)? {
        let fits = match (name.as_str(), value) {
            ("NOTIFY", Some(value)) => {
                let value = value.to_ascii_uppercase();
                is_notify(&value) && once(&mut parameters.notify, value.into())
            }
            ("ORCPT", Some(value)) => is_orcpt(value) && once(&mut parameters.orcpt, value.into()),
            ("NOTIFY" | "ORCPT", None) => false,
            _ => return Err(CommandError::UnknownParameter(name)),
        };
        if !fits {
            return Err(CommandError::BadParameter(name));
        }
    }
    Ok(Command::Rcpt(path, parameters))
}

/// Whether the domain of a path isn't ASCII. Without SMTPUTF8 Postfix accepts such a local part and refuses such a
/// domain.
fn has_u_label(path: &str) -> bool {
    path.rsplit_once('@').is_some_and(|(_, domain)| !domain.is_ascii())
}

/// Sets a parameter that may be given again.
fn last<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let valid = value.is_some();
    *place = value;
    valid
}

/// Sets a parameter that may be given only once.
fn once<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

/// xtext (RFC 3461 4): two hexadecimal digits, also in lower case, after each `+`, and no `=`. White space and control
/// characters can't be here.
fn is_xtext(value: &str) -> bool {
    let mut parts = value.split('+');
    parts.next();
    !value.is_empty()
        && !value.contains('=')
        && parts.all(|part| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2)
}

fn is_notify(value: &str) -> bool {
    value == "NEVER" || value.split(',').all(|word| matches!(word, "SUCCESS" | "FAILURE" | "DELAY"))
}

fn is_orcpt(value: &str) -> bool {
    value.len() <= MAX_ORCPT
        && value.split_once(';').is_some_and(|(kind, address)| {
            let atom =
                !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            atom && !address.is_empty() && (is_xtext(address) || kind.eq_ignore_ascii_case("utf-8"))
        })
}

/// Size-value (RFC 1870 3): 1 to 20 digits. A number over 64 bits is above any limit.
fn size(value: &str) -> Option<u64> {
    let valid = (1..=20).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| value.parse().unwrap_or(u64::MAX))
}

/// BINARYMIME is not offered.
fn body(value: &str) -> Option<Body> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(Body::SevenBit),
        "8BITMIME" => Some(Body::EightBitMime),
        _ => None,
    }
}

/// Splits `KEYWORD:path rest` into path and rest.
fn path<'a>(rest: &'a [u8], keyword: &[u8], usage: &'static str) -> Result<(&'a str, &'a str), CommandError> {
    let (head, tail) = rest.split_at_checked(keyword.len()).ok_or(CommandError::Syntax(usage))?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(CommandError::Syntax(usage));
    }
    let tail = std::str::from_utf8(tail).map_err(|_no_utf8| CommandError::Syntax(usage))?;
    let tail = tail.trim_start_matches([' ', '\t']);
    let (path, rest) = tail.split_at_checked(path::end(tail)).ok_or(CommandError::Syntax(usage))?;
    if path.is_empty() { Err(CommandError::Syntax(usage)) } else { Ok((path, rest)) }
}

struct Parameter<'a> {
    /// In capitals.
    name: CompactString,
    value: Option<&'a str>,
}

/// ` KEYWORD=value KEYWORD ...` (RFC 5321 4.1.2, esmtp-param). A word that is no parameter counts as an unknown one.
fn parameters_of(rest: &str) -> Result<Vec<Parameter<'_>>, CommandError> {
    rest.split([' ', '\t']).filter(|word| !word.is_empty()).map(parameter).collect()
}

fn parameter(word: &str) -> Result<Parameter<'_>, CommandError> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let named = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !named || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CommandError::UnknownParameter(CompactString::new(word)));
    }
    Ok(Parameter { name: CompactString::new(name.to_ascii_uppercase()), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail(path, parameters)) => {
                format!("mail <{path}> {:?} {:?}", parameters.size, parameters.body)
            }
            Ok(Command::Rcpt(path, parameters)) if !parameters.asks_dsn() => format!("rcpt <{path}>"),
            Ok(Command::Rcpt(path, parameters)) => {
                format!("rcpt <{path}> {:?} {:?}", parameters.notify, parameters.orcpt)
            }
            Ok(command) => format!("{command:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn lines_are_read_by_the_grammar() {
        let rows = [
            ("ehlo Mail.Good.test", "Ehlo(\"Mail.Good.test\")"),
            ("EHLO [127.0.0.1] ", "Ehlo(\"[127.0.0.1]\")"),
            ("HELO", "syntax: HELO domain"),
            ("EHLO a b", "Ehlo(\"a b\")"),
            ("mail from:<u@good.test>", "mail <u@good.test> None None"),
            ("MAIL FROM: <u@good.test>", "mail <u@good.test> None None"),
            ("MAIL FROM:<>", "mail <> None None"),
            (
                "MAIL FROM:<u@good.test> SIZE=100 body=8bitmime",
                "mail <u@good.test> Some(100) Some(EightBitMime)",
            ),
            (
                "MAIL FROM:<u@good.test> SIZE=99999999999999999999",
                "mail <u@good.test> Some(18446744073709551615) None",
            ),
            ("MAIL FROM:<\"a>b\"@good.test>", "mail <\"a>b\"@good.test> None None"),
            ("MAIL FROM:<\"a\\\">b\"@good.test>", "mail <\"a\\\">b\"@good.test> None None"),
            ("MAIL FROM:u@good.test", "mail <u@good.test> None None"),
            ("MAIL FROM:u@good.test SIZE=1", "mail <u@good.test> Some(1) None"),
            ("MAIL FROM:\"a b\"@good.test SIZE=1", "mail <\"a b\"@good.test> Some(1) None"),
            ("MAIL FROM:u\\ v@good.test SIZE=1", "mail <\"u v\"@good.test> Some(1) None"),
            ("MAIL FROM:(a b)u@good.test SIZE=1", "mail <u@good.test> Some(1) None"),
            ("MAIL FROM:(a\")u@good.test SIZE=1", "mail <u@good.test> Some(1) None"),
            ("MAIL FROM:<u @good.test> SIZE=1", "mail <u@good.test> Some(1) None"),
            ("MAIL FROM:() SIZE=1", "syntax: MAIL FROM:<address>"),
            (" MAIL  FROM:\t<u@good.test>\tSIZE=1", "mail <u@good.test> Some(1) None"),
            ("MAIL FROM:<MAILER-DAEMON>", "mail <MAILER-DAEMON> None None"),
            ("MAIL FROM:<u@good.test> AUTH=<>", "mail <u@good.test> None None"),
            ("MAIL FROM:<u@good.test> AUTH=", "mail <u@good.test> None None"),
            ("MAIL FROM:<u@good.test> AUTH", "parameter AUTH not known"),
            ("MAIL FROM:<u@good.test", "this is not one address"),
            ("MAIL FROM:<u@good.test>SIZE=10", "this is not one address"),
            ("MAIL FROM:<u@good.test> (c)", "parameter (c) not known"),
            ("MAIL FROM:<u@good.test> <v@x>", "parameter <v@x> not known"),
            ("MAIL FROM:<u@good.test> FOO=BAR=BAZ", "parameter FOO not known"),
            ("MAIL TO:<u@good.test>", "syntax: MAIL FROM:<address>"),
            ("MAIL", "syntax: MAIL FROM:<address>"),
            ("MAIL FROM:<u@good.test> COLOUR=blue", "parameter COLOUR not known"),
            ("MAIL FROM:<u@good.test> SMTPUTF8", "mail <u@good.test> None None"),
            ("MAIL FROM:<\u{fc}@b\u{fc}cher.test> SMTPUTF8", "mail <\u{fc}@xn--bcher-kva.test> None None"),
            ("MAIL FROM:<u@good.test> SMTPUTF8=1", "parameter SMTPUTF8 has no valid value"),
            ("MAIL FROM:<u@good.test> RET=HDRS ENVID=abc+2B1", "mail <u@good.test> None None"),
            ("MAIL FROM:<u@good.test> RET=SOME", "parameter RET has no valid value"),
            ("MAIL FROM:<u@good.test> ENVID=a+2", "parameter ENVID has no valid value"),
            ("MAIL FROM:<u@good.test> ENVID=a+2b", "mail <u@good.test> None None"),
            ("MAIL FROM:<u@good.test> BODY=BINARYMIME", "parameter BODY has no valid value"),
            ("MAIL FROM:<u@good.test> BODY=7bit", "mail <u@good.test> None Some(SevenBit)"),
            ("MAIL FROM:<u@good.test> ENVID=a=2B", "parameter ENVID has no valid value"),
            ("MAIL FROM:<u@good.test> X-A=1", "parameter X-A not known"),
            ("MAIL FROM:<u@good.test> -A=1", "parameter -A=1 not known"),
            ("MAIL FROM:<u@good.test> BODY=9BIT", "parameter BODY has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE=ten", "parameter SIZE has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE", "parameter SIZE has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE=1 SIZE=2", "mail <u@good.test> Some(2) None"),
            ("MAIL FROM:<u@b\u{fc}cher.test>", "the address is not ASCII"),
            ("RCPT TO:<Postmaster>", "rcpt <Postmaster>"),
            ("RCPT TO:<>", "the local part is not valid"),
            (
                "RCPT TO:<u@good.test> NOTIFY=success,delay ORCPT=rfc822;u+2Bx@good.test",
                "rcpt <u@good.test> Some(\"SUCCESS,DELAY\") Some(\"rfc822;u+2Bx@good.test\")",
            ),
            ("RCPT TO:<u@good.test> NOTIFY=NEVER,DELAY", "parameter NOTIFY has no valid value"),
            ("RCPT TO:<u@good.test> NOTIFY=", "parameter NOTIFY has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=u@good.test", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> NOTIFY=NEVER", "rcpt <u@good.test> Some(\"NEVER\") None"),
            ("RCPT TO:<u@good.test> NOTIFY", "parameter NOTIFY has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=utf-8;u+b", "rcpt <u@good.test> None Some(\"utf-8;u+b\")"),
            ("RCPT TO:<u@good.test> ORCPT=rfc822;u+b", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=rfc822;", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=utf-8;", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=;u@good.test", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> ORCPT=r_c;u@good.test", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> SIZE=1", "parameter SIZE not known"),
            ("BDAT 12 last", "Bdat { octets: 12, last: true }"),
            ("BDAT 0", "Bdat { octets: 0, last: false }"),
            ("BDAT", "syntax: BDAT octets [LAST]"),
            ("BDAT -1", "syntax: BDAT octets [LAST]"),
            ("BDAT 1 FIRST", "syntax: BDAT octets [LAST]"),
            ("BDAT 1 LAST x", "syntax: BDAT octets [LAST]"),
            ("BDAT 9999999999999999999", "syntax: BDAT octets [LAST]"),
            ("DATA now", "syntax: this command takes no argument"),
            ("starttls", "StartTls"),
            ("STARTTLS now", "syntax: this command takes no argument"),
            ("NOOP now", "Noop"),
            ("VRFY", "syntax: VRFY user"),
            ("XCLIENT ADDR=192.0.2.7 COLOUR=blue", "Xclient(\"ADDR=192.0.2.7 COLOUR=blue\")"),
            ("EXPN staff", "command not implemented"),
            ("FROB x", "command not known"),
            ("", "command not known"),
        ];
        for (line, expected) in rows {
            assert_eq!(shown(line), expected, "{line:?}");
        }
    }

    #[test]
    fn helo_and_ehlo_accept_any_argument() {
        let rows: [(&[u8], &str); 5] = [
            (b"EHLO a\x1bb", "a?b"),
            (b"EHLO \xff", "?"),
            (b"EHLO\ta b ", "a b"),
            (b"EHLO <a@b;c>", "<a@b;c>"),
            (b"EHLO ..", ".."),
        ];
        for (line, expected) in rows {
            assert_eq!(Command::parse(line), Ok(Command::Ehlo(expected.into())));
        }
        let long = Command::parse(format!("EHLO {}", "a".repeat(300)).as_bytes());
        assert_eq!(long, Ok(Command::Ehlo("a".repeat(255).into())));
    }
}

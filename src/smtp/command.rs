//! Command lines (RFC 5321 4.1.1) to values that can't be wrong.
//!
//! Case of verbs doesn't matter, trailing white space is read over, so is a space behind `FROM:` (common, harmless).
//! Everything else is the grammar; what it doesn't allow is named, so that the reply can say it.

use compact_str::CompactString;

use crate::smtp::address::{AddressError, ForwardPath, ReversePath};

/// Longest HELO argument (RFC 5321 4.5.3.1.2).
const MAX_HELO: usize = 255;
/// Longest ENVID (RFC 3461 4.4).
const MAX_ENVID: usize = 100;
/// Longest ORCPT (RFC 3461 4.2).
const MAX_ORCPT: usize = 500;

/// A command with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// HELO with its argument: printable, without white space, not proven to be a domain.
    Helo(CompactString),
    /// EHLO, likewise.
    Ehlo(CompactString),
    /// MAIL FROM.
    Mail(ReversePath, MailParameters),
    /// RCPT TO.
    Rcpt(ForwardPath, RcptParameters),
    /// DATA.
    Data,
    /// BDAT (RFC 3030 2): so many octets follow at once.
    Bdat {
        /// Octets of the chunk.
        octets: u64,
        /// The message ends with it.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, with or without argument.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY; the argument doesn't matter, users aren't disclosed.
    Vrfy,
    /// HELP.
    Help,
    /// XCLIENT with its arguments as they came: who may not say it is answered alike whatever they are.
    Xclient(CompactString),
    /// STARTTLS (RFC 3207).
    StartTls,
}

/// What may stand behind the reverse path.
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

/// What may stand behind the forward path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RcptParameters {
    /// NOTIFY: `NEVER`, or of `SUCCESS,FAILURE,DELAY` (RFC 3461 4.1).
    pub notify: Option<CompactString>,
    /// ORCPT: address type and address in xtext (RFC 3461 4.2).
    pub orcpt: Option<CompactString>,
    /// The path was written with octets above 127, which a transaction without SMTPUTF8 can't have (RFC 6531 3.5).
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
    /// No such verb: 500.
    #[error("command not known")]
    Unknown,
    /// A verb of RFC 5321 or an extension that this server doesn't have: 502.
    #[error("command not implemented")]
    NotImplemented,
    /// 501; the text says what is expected.
    #[error("syntax: {0}")]
    Syntax(&'static str),
    /// The path of MAIL: 501 5.1.7.
    #[error("{0}")]
    ReversePath(AddressError),
    /// The path of RCPT: 501 5.1.3.
    #[error("{0}")]
    ForwardPath(AddressError),
    /// An address with octets above 127, without SMTPUTF8: 553 (RFC 6531 3.5).
    #[error("the address is not ASCII")]
    NotAscii,
    /// How many octets follow isn't known, so the connection can't go on: 501.
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
    /// Reads a line without its CRLF.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let line = line.trim_ascii_end();
        let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(at).unwrap_or((line, b""));
        let rest = rest.trim_ascii_start();
        match verb.to_ascii_uppercase().as_slice() {
            b"HELO" => hello(rest, "HELO domain").map(Self::Helo),
            b"EHLO" => hello(rest, "EHLO domain").map(Self::Ehlo),
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
            b"XCLIENT" => Ok(Self::Xclient(CompactString::from_utf8_lossy(rest))),
            b"EXPN" | b"AUTH" | b"ETRN" | b"TURN" => Err(CommandError::NotImplemented),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn bare(rest: &[u8], command: Command) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Syntax("this command takes no argument")) }
}

fn hello(rest: &[u8], usage: &'static str) -> Result<CompactString, CommandError> {
    let valid = (1..=MAX_HELO).contains(&rest.len()) && rest.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(rest) {
        Ok(text) if valid => Ok(CompactString::new(text)),
        _ => Err(CommandError::Syntax(usage)),
    }
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
    let mut parameters = MailParameters::default();
    for Parameter { name, value } in parameters_of(rest, USAGE)? {
        let fits = match (name.as_str(), value) {
            ("SIZE", Some(value)) => size(value).is_some_and(|size| once(&mut parameters.size, size)),
            ("BODY", Some(value)) => body(value).is_some_and(|body| once(&mut parameters.body, body)),
            ("SMTPUTF8", None) => !std::mem::replace(&mut parameters.smtputf8, true),
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
    if !inner.is_ascii() && !parameters.smtputf8 {
        return Err(CommandError::NotAscii);
    }
    Ok(Command::Mail(path, parameters))
}

fn rcpt(rest: &[u8]) -> Result<Command, CommandError> {
    const USAGE: &str = "RCPT TO:<address>";
    let (inner, rest) = path(rest, b"TO:", USAGE)?;
    let path = ForwardPath::parse(inner).map_err(CommandError::ForwardPath)?;
    let mut parameters = RcptParameters { utf8: !inner.is_ascii(), ..RcptParameters::default() };
    for Parameter { name, value } in parameters_of(rest, USAGE)? {
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

/// Sets what may be given once.
fn once<T>(place: &mut Option<T>, value: T) -> bool {
    place.replace(value).is_none()
}

/// xtext (RFC 3461 4): `+` stands before two hexadecimal digits; the other characters that it excludes can't be here.
fn is_xtext(value: &str) -> bool {
    let mut parts = value.split('+');
    parts.next();
    parts.all(|part| {
        part.bytes().take(2).filter(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')).count() == 2
    })
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

/// Size-value (RFC 1870 3): 1 to 20 digits. More than 64 bits is more than any limit.
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

/// `KEYWORD:<inner>rest` to inner and rest; the closing bracket is the first one outside a quoted string.
fn path<'a>(rest: &'a [u8], keyword: &[u8], usage: &'static str) -> Result<(&'a str, &'a str), CommandError> {
    let (head, tail) = rest.split_at_checked(keyword.len()).ok_or(CommandError::Syntax(usage))?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(CommandError::Syntax(usage));
    }
    let tail = std::str::from_utf8(tail).map_err(|_no_utf8| CommandError::Syntax(usage))?;
    let tail = tail.trim_start_matches(' ').strip_prefix('<').ok_or(CommandError::Syntax(usage))?;
    let (mut quoted, mut escaped) = (false, false);
    let end = tail.bytes().position(|byte| {
        let closes = byte == b'>' && !quoted;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        closes
    });
    let (inner, rest) = end.and_then(|end| tail.split_at_checked(end)).ok_or(CommandError::Syntax(usage))?;
    Ok((inner, rest.strip_prefix('>').unwrap_or_default()))
}

struct Parameter<'a> {
    /// In capitals.
    name: CompactString,
    value: Option<&'a str>,
}

/// ` KEYWORD=value KEYWORD ...` (RFC 5321 4.1.2, esmtp-param).
fn parameters_of<'a>(rest: &'a str, usage: &'static str) -> Result<Vec<Parameter<'a>>, CommandError> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(CommandError::Syntax(usage));
    }
    rest.split(' ').filter(|word| !word.is_empty()).map(|word| parameter(word, usage)).collect()
}

fn parameter<'a>(word: &'a str, usage: &'static str) -> Result<Parameter<'a>, CommandError> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let named = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !named
        || value.is_some_and(|value| {
            value.is_empty() || !value.bytes().all(|byte| matches!(byte, 33..=60 | 62..=126))
        })
    {
        return Err(CommandError::Syntax(usage));
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
    fn lines_are_read_as_the_grammar_says() {
        let rows = [
            ("ehlo Mail.Good.test", "Ehlo(\"Mail.Good.test\")"),
            ("EHLO [127.0.0.1] ", "Ehlo(\"[127.0.0.1]\")"),
            ("HELO", "syntax: HELO domain"),
            ("EHLO a b", "syntax: EHLO domain"),
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
            ("MAIL FROM:u@good.test", "syntax: MAIL FROM:<address>"),
            ("MAIL FROM:<u@good.test", "syntax: MAIL FROM:<address>"),
            ("MAIL FROM:<u@good.test>SIZE=10", "syntax: MAIL FROM:<address>"),
            ("MAIL TO:<u@good.test>", "syntax: MAIL FROM:<address>"),
            ("MAIL", "syntax: MAIL FROM:<address>"),
            ("MAIL FROM:<u@good.test> COLOUR=blue", "parameter COLOUR not known"),
            ("MAIL FROM:<u@good.test> SMTPUTF8", "mail <u@good.test> None None"),
            ("MAIL FROM:<\u{fc}@b\u{fc}cher.test> SMTPUTF8", "mail <\u{fc}@xn--bcher-kva.test> None None"),
            ("MAIL FROM:<u@good.test> SMTPUTF8=1", "parameter SMTPUTF8 has no valid value"),
            ("MAIL FROM:<u@good.test> RET=HDRS ENVID=abc+2B1", "mail <u@good.test> None None"),
            ("MAIL FROM:<u@good.test> RET=SOME", "parameter RET has no valid value"),
            ("MAIL FROM:<u@good.test> ENVID=a+2", "parameter ENVID has no valid value"),
            ("MAIL FROM:<u@good.test> ENVID=a+2b", "parameter ENVID has no valid value"),
            ("MAIL FROM:<u@good.test> BODY=BINARYMIME", "parameter BODY has no valid value"),
            ("MAIL FROM:<u@good.test> BODY=9BIT", "parameter BODY has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE=ten", "parameter SIZE has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE", "parameter SIZE has no valid value"),
            ("MAIL FROM:<u@good.test> SIZE=1 SIZE=2", "parameter SIZE has no valid value"),
            ("MAIL FROM:<u@b\u{fc}cher.test>", "the address is not ASCII"),
            ("RCPT TO:<Postmaster>", "rcpt <Postmaster>"),
            ("RCPT TO:<>", "the local part is not valid"),
            (
                "RCPT TO:<u@good.test> NOTIFY=success,delay ORCPT=rfc822;u+2Bx@good.test",
                "rcpt <u@good.test> Some(\"SUCCESS,DELAY\") Some(\"rfc822;u+2Bx@good.test\")",
            ),
            ("RCPT TO:<u@good.test> NOTIFY=NEVER,DELAY", "parameter NOTIFY has no valid value"),
            ("RCPT TO:<u@good.test> NOTIFY=", "syntax: RCPT TO:<address>"),
            ("RCPT TO:<u@good.test> ORCPT=u@good.test", "parameter ORCPT has no valid value"),
            ("RCPT TO:<u@good.test> SIZE=1", "parameter SIZE not known"),
            ("BDAT 12 last", "Bdat { octets: 12, last: true }"),
            ("BDAT 0", "Bdat { octets: 0, last: false }"),
            ("BDAT", "syntax: BDAT octets [LAST]"),
            ("BDAT -1", "syntax: BDAT octets [LAST]"),
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
    fn hello_takes_printable_words_only() {
        for bad in [&b"EHLO a\x1bb"[..], b"EHLO b\xc3\xbccher.test", b"EHLO \xff"] {
            assert_eq!(Command::parse(bad), Err(CommandError::Syntax("EHLO domain")));
        }
        assert!(Command::parse(format!("EHLO {}", "a".repeat(256)).as_bytes()).is_err());
    }
}

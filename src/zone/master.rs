//! Master files (RFC 1035 5): text to records, one entry at a time, each error with its line and what is allowed.
//!
//! hickory has a parser too, but its errors name no line, it drops surplus words, reads `\DDD` wrongly and
//! refuses names such as `mail_1`; a file that an administrator wrote deserves better. Known here are the types
//! that mail is about. `$INCLUDE` is refused: several files are given instead.
//!
//! Beyond the RFC, a comment line that starts with `;!` makes a name, and all below it, misbehave:
//! `;! servfail NAME [TYPE]`, `;! refused NAME [TYPE]`, `;! silent NAME [TYPE]`, `;! delay 300ms NAME [TYPE]`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hickory_server::proto::serialize::txt::parse_ttl;

use super::words::{Entry, Word, Words};
use super::{Behaviour, Name, RData, RecordType, Zone, rdata, text};

/// Largest time to live (RFC 2181 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// The types that can be written, and how.
const FORMS: [(RecordType, &str); 8] = [
    (RecordType::A, "IPV4-ADDRESS"),
    (RecordType::AAAA, "IPV6-ADDRESS"),
    (RecordType::CNAME, "NAME"),
    (RecordType::MX, "PREFERENCE HOST"),
    (RecordType::NS, "HOST"),
    (RecordType::PTR, "NAME"),
    (RecordType::SOA, "HOST MAILBOX SERIAL REFRESH RETRY EXPIRE MINIMUM"),
    (RecordType::TXT, "\"TEXT\" ..."),
];

/// Why zone data can't be used.
#[derive(Debug)]
pub enum ZoneError {
    /// The file can't be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is no master file.
    Syntax {
        /// The file; `None` where the text came from none.
        path: Option<PathBuf>,
        /// Counted from 1.
        line: usize,
        /// What is wrong there and what is allowed.
        problem: String,
    },
}

impl Zone {
    /// Reads a master file's text. `origin` is what relative names are relative to until a `$ORIGIN` line.
    pub fn parse(text: &str, origin: Option<&Name>) -> Result<Self, ZoneError> {
        parse(text, origin).map_err(|Problem { line, problem }| ZoneError::Syntax {
            path: None,
            line,
            problem,
        })
    }

    /// Reads a master file. Relative names need a `$ORIGIN` line above them.
    pub fn read(path: &Path) -> Result<Self, ZoneError> {
        let path = path.to_owned();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ZoneError::Read { path, source }),
        };
        parse(&text, None).map_err(|Problem { line, problem }| ZoneError::Syntax {
            path: Some(path),
            line,
            problem,
        })
    }
}

/// `FILE:LINE: PROBLEM`, the form that editors jump to.
impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Syntax { path: Some(path), line, problem } => {
                write!(f, "{}:{line}: {problem}", path.display())
            }
            Self::Syntax { path: None, line, problem } => write!(f, "line {line}: {problem}"),
        }
    }
}

impl std::error::Error for ZoneError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Syntax { .. } => None,
        }
    }
}

/// What is wrong in which line.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) problem: String,
}

fn parse(text: &str, origin: Option<&Name>) -> Result<Zone, Problem> {
    let mut file =
        File { zone: Zone::new(), origin: origin.cloned(), owner: None, default_ttl: None, last_ttl: None };
    let mut words = Words::new(text);
    while let Some(entry) = words.next_entry()? {
        file.entry(&entry).map_err(|problem| Problem { line: entry.line, problem })?;
    }
    Ok(file.zone)
}

/// What the lines so far have set.
struct File {
    zone: Zone,
    origin: Option<Name>,
    owner: Option<Name>,
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl File {
    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        let Some((first, rest)) = entry.words.split_first() else { return Ok(()) };
        if entry.misbehaves {
            return self.behaviour(first, rest);
        }
        if entry.indented || first.quoted || !first.text.starts_with('$') {
            return self.record(entry);
        }
        match (first.text.to_ascii_uppercase().as_str(), rest) {
            ("$ORIGIN", [name]) => self.origin = Some(self.name(name)?),
            ("$TTL", [time]) => self.default_ttl = Some(ttl(&time.text)?),
            ("$ORIGIN", _) => return Err("$ORIGIN takes one name".to_owned()),
            ("$TTL", _) => return Err("$TTL takes one time, such as 300 or 1h".to_owned()),
            _ => return Err(format!("{} is not known; allowed are $ORIGIN and $TTL", first.text)),
        }
        Ok(())
    }

    /// `NAME [TTL] [CLASS] TYPE DATA`, TTL and class in either order; an indented entry goes on with the name above.
    fn record(&mut self, entry: &Entry) -> Result<(), String> {
        let (owner, mut rest) = match (entry.words.split_first(), &self.owner) {
            (Some((first, rest)), _) if !entry.indented => (self.name(first)?, rest),
            (_, Some(owner)) => (owner.clone(), entry.words.as_slice()),
            (_, None) => {
                return Err("a line that starts with a blank needs a name in a line above".to_owned());
            }
        };
        self.owner = Some(owner.clone());
        let mut own_ttl = None;
        let record_type = loop {
            let Some((word, after)) = rest.split_first() else {
                return Err(format!("{} has no record type; allowed are {}", text(&owner), types()));
            };
            rest = after;
            match word.text.to_ascii_uppercase().as_str() {
                "IN" => {}
                "CH" | "HS" | "CS" => return Err(format!("class {}: only IN is allowed", word.text)),
                time if own_ttl.is_none() && time.starts_with(|c: char| c.is_ascii_digit()) => {
                    own_ttl = Some(ttl(time)?);
                }
                name => break record_type(name)?,
            }
        };
        let data = self.data(record_type, rest).map_err(|problem| {
            let form = FORMS.iter().find(|(known, _)| *known == record_type).map_or("", |(_, form)| form);
            format!("{problem}; the form is NAME [TTL] [IN] {record_type} {form}")
        })?;
        let ttl = own_ttl
            .or(self.default_ttl)
            .or(self.last_ttl)
            .ok_or("no time to live: put one before the type, or a line `$TTL 300` above")?;
        self.last_ttl = Some(ttl);
        self.keep(&owner, ttl, data)
    }

    /// RFC 1034 3.6.2: an alias has no other data; RFC 1035 5.2: and a zone one SOA record.
    fn keep(&mut self, owner: &Name, ttl: u32, data: RData) -> Result<(), String> {
        let record_type = data.record_type();
        let alone = matches!(record_type, RecordType::CNAME | RecordType::SOA);
        if alone && self.zone.records(owner, record_type).iter().any(|known| *known != data) {
            return Err(format!("{} has a second {record_type} record; one is allowed", text(owner)));
        }
        let clash = |(other, _): &(RecordType, &str)| {
            let aliases = [*other, record_type].contains(&RecordType::CNAME);
            aliases && *other != record_type && !self.zone.records(owner, *other).is_empty()
        };
        if let Some((other, _)) = FORMS.iter().find(|form| clash(form)) {
            return Err(format!(
                "{} has {other} and {record_type}; beside a CNAME record no other is allowed",
                text(owner)
            ));
        }
        self.zone.insert(owner, ttl, data);
        Ok(())
    }

    fn data(&self, record_type: RecordType, words: &[Word]) -> Result<RData, String> {
        let count = || match words.len() {
            0 => "the data is missing".to_owned(),
            1 => "one word is the wrong number".to_owned(),
            count => format!("{count} words are the wrong number"),
        };
        Ok(match (record_type, words) {
            (RecordType::A, [address]) => RData::A(rdata::A(parsed(address, "an IPv4 address")?)),
            (RecordType::AAAA, [address]) => RData::AAAA(rdata::AAAA(parsed(address, "an IPv6 address")?)),
            (RecordType::CNAME, [name]) => RData::CNAME(rdata::CNAME(self.name(name)?)),
            (RecordType::NS, [name]) => RData::NS(rdata::NS(self.name(name)?)),
            (RecordType::PTR, [name]) => RData::PTR(rdata::PTR(self.name(name)?)),
            (RecordType::MX, [preference, host]) => {
                let preference = parsed(preference, "a preference (0 to 65535)")?;
                RData::MX(rdata::MX::new(preference, self.name(host)?))
            }
            (RecordType::SOA, [host, mailbox, serial, refresh, retry, expire, minimum]) => {
                let time = |word: &Word| ttl(&word.text).map(u32::cast_signed);
                RData::SOA(rdata::SOA::new(
                    self.name(host)?,
                    self.name(mailbox)?,
                    parsed(serial, "a serial number (0 to 4294967295)")?,
                    time(refresh)?,
                    time(retry)?,
                    time(expire)?,
                    ttl(&minimum.text)?,
                ))
            }
            (RecordType::TXT, [_, ..]) => {
                let parts = words.iter().map(character_string).collect::<Result<Vec<_>, _>>()?;
                RData::TXT(rdata::TXT::from_bytes(parts.iter().map(Vec::as_slice).collect()))
            }
            _ => return Err(count()),
        })
    }

    /// `ACTION [TIME] NAME [TYPE]`.
    fn behaviour(&mut self, action: &Word, rest: &[Word]) -> Result<(), String> {
        const FORM: &str = "allowed are `;! servfail NAME [TYPE]`, `;! refused NAME [TYPE]`, \
                            `;! silent NAME [TYPE]` and `;! delay 300ms NAME [TYPE]`";
        let (behaviour, rest) = match (action.text.as_str(), rest) {
            ("servfail", rest) => (Behaviour::ServFail, rest),
            ("refused", rest) => (Behaviour::Refused, rest),
            ("silent", rest) => (Behaviour::Silent, rest),
            ("delay", [time, rest @ ..]) => {
                let time = humantime::parse_duration(&time.text)
                    .map_err(|error| format!("`{}` is no time ({error}); {FORM}", time.text))?;
                (Behaviour::Delay(time), rest)
            }
            _ => return Err(format!("`;! {}`: {FORM}", action.text)),
        };
        let (name, record_type) = match rest {
            [name] => (name, None),
            [name, record_type] => {
                let upper = record_type.text.to_ascii_uppercase();
                let known = RecordType::from_str(&upper)
                    .map_err(|_unknown| format!("`{}` is no record type; {FORM}", record_type.text))?;
                (name, Some(known))
            }
            _ => return Err(format!("`;! {}` wants a name; {FORM}", action.text)),
        };
        self.zone.behave(&self.name(name)?, record_type, behaviour);
        Ok(())
    }

    /// RFC 1035 5.1: a name without a final dot is relative, `@` is the origin, `\.` is no label's end.
    fn name(&self, word: &Word) -> Result<Name, String> {
        let (mut labels, relative) = if word.text == "@" { (Vec::new(), true) } else { word.labels()? };
        if relative {
            let origin = self.origin.as_ref().ok_or_else(|| {
                format!("`{}` is relative: end it with a dot, or put a $ORIGIN line above", word.text)
            })?;
            labels.extend(origin.iter().map(<[u8]>::to_vec));
        }
        let name = Name::from_labels(labels.iter().map(Vec::as_slice));
        name.map_err(|error| format!("`{}` is no domain name: {error}", word.text))
    }
}

fn record_type(word: &str) -> Result<RecordType, String> {
    let known = FORMS.iter().find(|(known, _)| known.to_string() == word);
    known
        .map(|(record_type, _)| *record_type)
        .ok_or_else(|| format!("record type {word} is not known here; allowed are {}", types()))
}

fn types() -> String {
    FORMS.map(|(record_type, _)| record_type.to_string()).join(", ")
}

fn ttl(word: &str) -> Result<u32, String> {
    let time = parse_ttl(word).ok().filter(|time| *time <= MAX_TTL);
    time.ok_or_else(|| {
        format!("`{word}` is no time; allowed are 0 to {MAX_TTL} seconds, or such as 5m, 1h, 2d")
    })
}

fn parsed<T: FromStr>(word: &Word, what: &str) -> Result<T, String> {
    word.text.parse().map_err(|_error| format!("`{}` is not {what}", word.text))
}

/// RFC 1035 3.3: at most 255 octets.
fn character_string(word: &Word) -> Result<Vec<u8>, String> {
    let octets = word.octets()?;
    if octets.len() > 255 {
        return Err(format!(
            "a text of {} octets; one has at most 255, several may follow each other",
            octets.len()
        ));
    }
    Ok(octets)
}

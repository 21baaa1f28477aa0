//! Parses master files (RFC 1035 5). Each error has its line and what is allowed.
//!
//! `lib.rs` explains why hickory's parser isn't used. The known types are those that mail needs. `$INCLUDE` is refused;
//! an administrator passes several files instead.
//!
//! Beyond the RFC, a comment line that starts with `;!` makes a name, and all names below it, misbehave:
//! `;! servfail NAME [TYPE]`, `;! refused NAME [TYPE]`, `;! silent NAME [TYPE]`, `;! delay 300ms NAME [TYPE]`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hickory_server::proto::serialize::txt::parse_ttl;

use crate::zone::lexer::{Entry, Problem, Word, Words};
use crate::zone::{Behaviour, Name, RData, RecordType, Zone, rdata, text};

/// Largest time to live (RFC 2181 8).
const MAX_TTL: u32 = i32::MAX as u32;

/// The known types, and the form of their data.
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

#[derive(Debug)]
pub enum ZoneError {
    /// The file can't be read.
    Read { path: PathBuf, source: io::Error },
    /// The text isn't a valid master file.
    Syntax {
        /// `None` for text without a file.
        path: Option<PathBuf>,
        /// Counted from 1.
        line: usize,
        /// With what is allowed.
        problem: String,
    },
}

impl Zone {
    /// Parses the text of a master file. Relative names are relative to `origin`, until a `$ORIGIN` line.
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

/// `FILE:LINE: PROBLEM`, a form that editors can jump to.
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

fn parse(text: &str, origin: Option<&Name>) -> Result<Zone, Problem> {
    let mut file =
        File { zone: Zone::new(), origin: origin.cloned(), owner: None, default_ttl: None, last_ttl: None };
    let mut words = Words::new(text);
    while let Some(entry) = words.next_entry()? {
        file.entry(&entry).map_err(|problem| Problem { line: entry.line, problem })?;
    }
    Ok(file.zone)
}

/// The state after the lines read so far.
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
            _ => return Err(format!("{} is not supported; allowed are $ORIGIN and $TTL", first.text)),
        }
        Ok(())
    }

    /// `NAME [TTL] [CLASS] TYPE DATA`, TTL and class in either order; an indented entry has the name of the entry above.
    fn record(&mut self, entry: &Entry) -> Result<(), String> {
        let (owner, mut rest) = match (entry.words.split_first(), &self.owner) {
            (Some((first, rest)), _) if !entry.indented => (self.name(first)?, rest),
            (_, Some(owner)) => (owner.clone(), entry.words.as_slice()),
            (_, None) => {
                return Err("a line that starts with white space needs a name in a line above".to_owned());
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
            .ok_or("the record has no time to live: add one before the type, or a line `$TTL 300` above")?;
        self.last_ttl = Some(ttl);
        self.add(&owner, ttl, data)
    }

    /// RFC 1034 3.6.2: a name with a CNAME record has no other data. RFC 1035 5.2: a zone has one SOA record.
    fn add(&mut self, owner: &Name, ttl: u32, data: RData) -> Result<(), String> {
        let record_type = data.record_type();
        let is_single = matches!(record_type, RecordType::CNAME | RecordType::SOA);
        if is_single && self.zone.records(owner, record_type).iter().any(|known| *known != data) {
            return Err(format!("{} has a second {record_type} record; one is allowed", text(owner)));
        }
        let conflicts = |(other, _): &(RecordType, &str)| {
            let has_cname = [*other, record_type].contains(&RecordType::CNAME);
            has_cname && *other != record_type && !self.zone.records(owner, *other).is_empty()
        };
        if let Some((other, _)) = FORMS.iter().find(|form| conflicts(form)) {
            return Err(format!(
                "{} has {other} and {record_type}; no other record is allowed beside a CNAME record",
                text(owner)
            ));
        }
        self.zone.insert(owner, ttl, data);
        Ok(())
    }

    fn data(&self, record_type: RecordType, words: &[Word]) -> Result<RData, String> {
        let count = || match words.len() {
            0 => "the data is missing".to_owned(),
            1 => "the data has 1 field, which is the wrong number".to_owned(),
            count => format!("the data has {count} fields, which is the wrong number"),
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
                    .map_err(|error| format!("`{}` is not a duration ({error}); {FORM}", time.text))?;
                (Behaviour::Delay(time), rest)
            }
            _ => return Err(format!("`;! {}`: {FORM}", action.text)),
        };
        let (name, record_type) = match rest {
            [name] => (name, None),
            [name, record_type] => {
                let upper = record_type.text.to_ascii_uppercase();
                let known = RecordType::from_str(&upper)
                    .map_err(|_unknown| format!("`{}` is not a record type; {FORM}", record_type.text))?;
                (name, Some(known))
            }
            _ => return Err(format!("`;! {}` needs a name; {FORM}", action.text)),
        };
        self.zone.behave(&self.name(name)?, record_type, behaviour);
        Ok(())
    }

    /// RFC 1035 5.1: a name without a final dot is relative, `@` is the origin, `\.` doesn't end a label.
    fn name(&self, word: &Word) -> Result<Name, String> {
        let (mut labels, relative) = if word.text == "@" { (Vec::new(), true) } else { word.labels()? };
        if relative {
            let origin = self.origin.as_ref().ok_or_else(|| {
                format!("`{}` is relative: add a dot at its end, or a $ORIGIN line above", word.text)
            })?;
            labels.extend(origin.iter().map(<[u8]>::to_vec));
        }
        let name = Name::from_labels(labels.iter().map(Vec::as_slice));
        name.map_err(|error| format!("`{}` is not a domain name: {error}", word.text))
    }
}

fn record_type(word: &str) -> Result<RecordType, String> {
    let known = FORMS.iter().find(|(known, _)| known.to_string() == word);
    known
        .map(|(record_type, _)| *record_type)
        .ok_or_else(|| format!("record type {word} is not supported; allowed are {}", types()))
}

fn types() -> String {
    FORMS.map(|(record_type, _)| record_type.to_string()).join(", ")
}

fn ttl(word: &str) -> Result<u32, String> {
    let time = parse_ttl(word).ok().filter(|time| *time <= MAX_TTL);
    time.ok_or_else(|| {
        format!("`{word}` is not a time; allowed are 0 to {MAX_TTL} seconds, or a time such as 5m, 1h or 2d")
    })
}

fn parsed<T: FromStr>(word: &Word, what: &str) -> Result<T, String> {
    word.text.parse().map_err(|_error| format!("`{}` is not {what}", word.text))
}

/// RFC 1035 3.3: a character-string has at most 255 octets.
fn character_string(word: &Word) -> Result<Vec<u8>, String> {
    let octets = word.octets()?;
    if octets.len() > 255 {
        return Err(format!(
            "a text has {} octets; allowed are 255 per text, and several texts per record",
            octets.len()
        ));
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_server::proto::rr::LowerName;

    use super::*;

    fn absolute(text: &str) -> Name {
        Name::from_ascii(format!("{text}.")).unwrap()
    }

    fn records(text: &str, name: &str, record_type: RecordType) -> Vec<String> {
        let zone = Zone::parse(text, None).unwrap();
        zone.records(&absolute(name), record_type).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_forms_of_rfc_1035_are_parsed() {
        use RecordType::{A, MX, SOA, TXT};
        let rows: [(&str, &str, RecordType, &[&str]); 14] = [
            ("a.test. 60 IN A 127.0.0.1", "a.test", A, &["127.0.0.1"]),
            ("a.test. IN 60 A 127.0.0.1\n", "a.test", A, &["127.0.0.1"]),
            ("a.test. 1h in a 127.0.0.1 ; home\r\n", "a.test", A, &["127.0.0.1"]),
            ("$TTL 60\n$ORIGIN test.\na A 127.0.0.1", "a.test", A, &["127.0.0.1"]),
            ("$ORIGIN test.\n$ORIGIN b\n@ 1 MX 10 @\n", "b.test", MX, &["10 b.test."]),
            // An indented entry has the owner and the time to live of the entry above.
            (
                "a.test. 60 A 127.0.0.1\n\n; comment\n\tA 127.0.0.2\n",
                "a.test",
                A,
                &["127.0.0.1", "127.0.0.2"],
            ),
            ("a.test. 60 MX 0 .", "a.test", MX, &["0 ."]),
            ("a.test. 60 MX 10 mail_1.test.", "a.test", MX, &["10 mail_1.test."]),
            ("a.test. 60 TXT v=spf1 \"a b\" \"\"", "a.test", TXT, &["v=spf1a b"]),
            ("a.test. 60 TXT ( \"x;y\" ; no\n \"(z)\" )", "a.test", TXT, &["x;y(z)"]),
            ("a.test. 60 TXT \"say \\\"\\065\\092\\\"\"", "a.test", TXT, &["say \"A\\\""]),
            (
                "a.test. 60 SOA ns.test. me.test. (\n 2026010101 ; serial\n 1h 10m 1d 1m )",
                "a.test",
                SOA,
                &["ns.test. me.test. 2026010101 3600 600 86400 60"],
            ),
            ("a\\.b.test. 60 A 127.0.0.1", "a\\.b.test", A, &["127.0.0.1"]),
            ("A.Test. 60 A 127.0.0.1", "a.test", A, &["127.0.0.1"]),
        ];
        for (text, name, record_type, expected) in rows {
            assert_eq!(records(text, name, record_type), expected, "{text}");
        }
    }

    #[test]
    fn an_escape_can_stand_for_any_octet() {
        let zone = Zone::parse("\\000\\255.test. 60 TXT \\200", None).unwrap();
        let name = Name::from_labels([b"\0\xff".as_slice(), b"test"]).unwrap();
        let expected = RData::TXT(rdata::TXT::from_bytes(vec![b"\xc8"]));
        assert_eq!(zone.records(&name, RecordType::TXT), [expected]);
    }

    #[test]
    fn an_error_names_the_line_and_what_is_allowed() {
        let long = format!("a.test. 1 TXT {}", "x".repeat(256));
        let rows = [
            (
                "\n\na.test. 60 A 127.0.0",
                "line 3: `127.0.0` is not an IPv4 address; the form is NAME [TTL] [IN] A IPV4-ADDRESS",
            ),
            (
                "a.test. 60 AAAA 127.0.0.1",
                "line 1: `127.0.0.1` is not an IPv6 address; the form is NAME [TTL] [IN] AAAA IPV6-ADDRESS",
            ),
            (
                "a.test. 60 MX mail.test.",
                "line 1: the data has 1 field, which is the wrong number; the form is NAME [TTL] [IN] MX PREFERENCE HOST",
            ),
            ("a.test. 60 MX", "line 1: the data is missing; the form is NAME [TTL] [IN] MX PREFERENCE HOST"),
            (
                "a.test. 60 MX 70000 mail.test.",
                "line 1: `70000` is not a preference (0 to 65535); the form is NAME [TTL] [IN] MX PREFERENCE HOST",
            ),
            (
                "a.test. 60 A 127.0.0.1 127.0.0.2",
                "line 1: the data has 2 fields, which is the wrong number; the form is NAME [TTL] [IN] A IPV4-ADDRESS",
            ),
            (
                "a.test. 60 SRV 1 1 1 b.test.",
                "line 1: record type SRV is not supported; allowed are A, AAAA, CNAME, MX, NS, PTR, SOA, TXT",
            ),
            (
                "a.test. 60",
                "line 1: a.test has no record type; allowed are A, AAAA, CNAME, MX, NS, PTR, SOA, TXT",
            ),
            ("a.test. CH TXT x", "line 1: class CH: only IN is allowed"),
            (
                "a.test. A 127.0.0.1",
                "line 1: the record has no time to live: add one before the type, or a line `$TTL 300` above",
            ),
            (
                "a.test. 3000000000 A 127.0.0.1",
                "line 1: `3000000000` is not a time; allowed are 0 to 2147483647 seconds, or a time such as 5m, 1h or 2d",
            ),
            ("a 60 A 127.0.0.1", "line 1: `a` is relative: add a dot at its end, or a $ORIGIN line above"),
            (
                "a.test. 60 MX 10 mail",
                "line 1: `mail` is relative: add a dot at its end, or a $ORIGIN line above; the form is NAME [TTL] [IN] MX PREFERENCE HOST",
            ),
            ("a..test. 60 A 127.0.0.1", "line 1: `a..test.` has an empty label"),
            (
                "münchen.test. 60 A 127.0.0.1",
                "line 1: `münchen.test.` is not ASCII; write its A-labels (xn--...)",
            ),
            (
                "a\\25.test. 60 A 127.0.0.1",
                "line 1: `a\\25.test.` has an invalid escape; allowed are \\000 to \\255 and \\X",
            ),
            (
                "a\\256.test. 60 A 127.0.0.1",
                "line 1: `a\\256.test.` has an invalid escape; allowed are \\000 to \\255 and \\X",
            ),
            (" 60 A 127.0.0.1", "line 1: a line that starts with white space needs a name in a line above"),
            (
                "a.test. 60 CNAME b.test.\n 60 A 127.0.0.1",
                "line 2: a.test has CNAME and A; no other record is allowed beside a CNAME record",
            ),
            (
                "a.test. 60 A 127.0.0.1\n CNAME b.test.",
                "line 2: a.test has A and CNAME; no other record is allowed beside a CNAME record",
            ),
            (
                "a.test. 60 CNAME b.test.\n CNAME c.test.",
                "line 2: a.test has a second CNAME record; one is allowed",
            ),
            ("a.test. 60 TXT \"open\nclosed\"", "line 1: a quoted text doesn't end on its line"),
            ("a.test. 60 TXT (\n x\n", "line 1: `(` without `)`"),
            ("a.test. 60 TXT x )", "line 1: `)` without `(`"),
            ("a.test. 60 TXT ( (", "line 1: a second `(` before the `)`"),
            ("$INCLUDE other.zone", "line 1: $INCLUDE is not supported; allowed are $ORIGIN and $TTL"),
            ("$TTL", "line 1: $TTL takes one time, such as 300 or 1h"),
            ("$ORIGIN a.test. b.test.", "line 1: $ORIGIN takes one name"),
            (
                long.as_str(),
                "line 1: a text has 256 octets; allowed are 255 per text, and several texts per record; the form is NAME [TTL] [IN] TXT \"TEXT\" ...",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(Zone::parse(text, None).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_label_longer_than_63_octets_is_refused() {
        let text = format!("{}.test. 60 A 127.0.0.1", "x".repeat(64));
        let error = Zone::parse(&text, None).unwrap_err().to_string();
        assert!(error.starts_with("line 1: `xxx") && error.contains("is not a domain name"), "{error}");
    }

    #[test]
    fn lines_with_a_semicolon_and_an_exclamation_mark_make_names_misbehave() {
        let text = ";! servfail a.test.\n;! delay 1500ms b.test. mx\n;! silent c.test.\n;!refused d.test. ; why\n; ! silent e.test.";
        let zone = Zone::parse(text, None).unwrap();
        let of = |name: &str| zone.behaviour(&LowerName::from(absolute(name)), RecordType::MX);
        assert_eq!(of("below.a.test"), Some(Behaviour::ServFail));
        assert_eq!(of("b.test"), Some(Behaviour::Delay(Duration::from_millis(1500))));
        assert_eq!(of("c.test"), Some(Behaviour::Silent));
        assert_eq!(of("d.test"), Some(Behaviour::Refused));
        assert_eq!(of("e.test"), None);
        assert_eq!(of("test"), None);
        for invalid in [";! panic a.test.", ";! servfail", ";! delay soon a.test.", ";! silent a.test. FOO"] {
            if let Ok(zone) = Zone::parse(invalid, None) {
                panic!("{invalid}: {zone:?}");
            }
        }
    }

    #[test]
    fn an_error_starts_with_the_file_and_the_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("my.zone");
        let missing = Zone::read(&path).unwrap_err().to_string();
        assert!(missing.starts_with(&format!("{}: ", path.display())), "{missing}");
        fs::write(&path, "; mine\na.test. 60 A nowhere\n").unwrap();
        let wrong = Zone::read(&path).unwrap_err().to_string();
        assert!(wrong.starts_with(&format!("{}:2: `nowhere` is not", path.display())), "{wrong}");
        fs::write(&path, "a.test. 60 A 127.0.0.1\n").unwrap();
        assert_eq!(Zone::read(&path).unwrap().names(), 1);
    }
}

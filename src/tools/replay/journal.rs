//! Entries of the journal as `journalctl` writes them for programs: `-o json` (one object a line, also `json-seq` and
//! `json-sse`) and `-o export` (one field a line, a blank line behind each entry; fields that are no text have their length
//! before them). Both are described in "Journal Export Formats" and "Journal JSON Format" of the systemd project.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::tools::replay::form::Head;

/// The fields that matter.
const FIELDS: [&str; 6] =
    ["__REALTIME_TIMESTAMP", "_HOSTNAME", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "MESSAGE"];
/// Every entry begins with it.
const FIRST: &[u8] = b"__CURSOR=";
/// Octets before the data of a field that is no text: its length, little-endian.
const LENGTH: usize = 8;
/// A field that claims to be longer is no field of a mail log; `journalctl` has a core dump in a field, for instance.
const LONGEST: u64 = 64 << 20;

/// An entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct JournalEntry {
    stamp: String,
    host: String,
    program: String,
    pid: String,
    text: String,
}

impl JournalEntry {
    pub(super) fn head(&self) -> Head<'_> {
        let Self { stamp, host, program, pid, text } = self;
        Head { stamp, host, program, pid, text }
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "__REALTIME_TIMESTAMP" => {
                let micros = value.parse().map(Duration::from_micros).unwrap_or_default();
                let time = UNIX_EPOCH.checked_add(micros).unwrap_or(UNIX_EPOCH);
                self.stamp = humantime::format_rfc3339_seconds(time).to_string();
            }
            "_HOSTNAME" => self.host = value,
            "SYSLOG_IDENTIFIER" => self.program = value,
            // What the program says itself goes before what the journal knows of the sender.
            "SYSLOG_PID" => self.pid = value,
            "_PID" if self.pid.is_empty() => self.pid = value,
            "MESSAGE" => self.text = value,
            _ => {}
        }
    }
}

/// An entry of `-o json`; `None` if the line is no object with a message.
pub(super) fn json(line: &str) -> Option<JournalEntry> {
    let line = line.trim_start_matches('\u{1e}');
    let line = line.strip_prefix("data: ").unwrap_or(line);
    if !line.starts_with('{') {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return None };
    let mut entry = JournalEntry::default();
    for name in FIELDS {
        if let Some(value) = fields.get(name) {
            entry.set(name, text(value));
        }
    }
    (fields.contains_key("MESSAGE") && !entry.stamp.is_empty()).then_some(entry)
}

/// Octets that are no text are an array of numbers, and a field that is there several times an array of its values.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_u64) => {
            let octets = items.iter().filter_map(Value::as_u64).filter_map(|octet| u8::try_from(octet).ok());
            String::from_utf8_lossy(&octets.collect::<Vec<_>>()).into_owned()
        }
        Value::Array(items) => items.first().map(text).unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// The entry of `-o export` that is being read.
#[derive(Debug, Default)]
pub(super) struct Export {
    entry: Option<JournalEntry>,
    field: Option<Field>,
}

/// A field that is no text.
#[derive(Debug)]
struct Field {
    name: String,
    /// With the length.
    octets: Vec<u8>,
    /// Octets that have come; more than are kept of a field that doesn't matter. `None` before the first line.
    read: Option<u64>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exported {
    /// Not of this form.
    No,
    /// A part of an entry.
    Part,
    /// The end of an entry.
    End(JournalEntry),
}

impl Export {
    /// `line` is without the LF, but with a CR.
    pub(super) fn line(&mut self, line: &[u8]) -> Exported {
        if let Some(field) = self.field.take() {
            self.field = self.goes_on(field, line);
            return Exported::Part;
        }
        if line.starts_with(FIRST) {
            // Without a blank line before it, the entry before was cut off.
            self.entry = Some(JournalEntry::default());
            return Exported::Part;
        }
        let Some(entry) = &mut self.entry else { return Exported::No };
        if line.is_empty() {
            return self.end();
        }
        match line.iter().position(|octet| *octet == b'=') {
            Some(at) => {
                let (name, value) = line.split_at_checked(at).unwrap_or_default();
                let value = value.get(1..).unwrap_or_default();
                entry.set(&String::from_utf8_lossy(name), String::from_utf8_lossy(value).into_owned());
            }
            None => {
                let name = String::from_utf8_lossy(line).into_owned();
                self.field = Some(Field { name, octets: Vec::new(), read: None });
            }
        }
        Exported::Part
    }

    /// The beginning of a line that is too long to be kept; the entry is given up.
    pub(super) fn too_long(&mut self) {
        *self = Self::default();
    }

    /// The entry that the file ends with.
    pub(super) fn end(&mut self) -> Exported {
        self.field = None;
        self.entry.take().map_or(Exported::Part, Exported::End)
    }

    /// The data goes on with this line, and is over when its length is reached.
    fn goes_on(&mut self, mut field: Field, line: &[u8]) -> Option<Field> {
        let newline: &[u8] = if field.read.is_none() { b"" } else { b"\n" };
        let mut read = field.read.unwrap_or(0);
        let is_kept = FIELDS.contains(&field.name.as_str()) || field.octets.len() < LENGTH;
        for part in [newline, line] {
            read += u64::try_from(part.len()).unwrap_or(0);
            if is_kept {
                field.octets.extend_from_slice(part);
            }
        }
        field.read = Some(read);
        let Some(length) = field.octets.first_chunk::<LENGTH>() else { return Some(field) };
        let length = u64::from_le_bytes(*length);
        if length > LONGEST {
            self.entry = None;
            return None;
        }
        if read.saturating_sub(LENGTH as u64) < length {
            return Some(field);
        }
        let data = String::from_utf8_lossy(field.octets.get(LENGTH..).unwrap_or_default()).into_owned();
        if let Some(entry) = &mut self.entry {
            entry.set(&field.name, data);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> JournalEntry {
        let [stamp, host, program, pid, text] =
            ["2026-11-23T11:00:00Z", "mx", "postfix/smtpd", "12", "x: y"].map(str::to_owned);
        JournalEntry { stamp, host, program, pid, text }
    }

    #[test]
    fn an_object_of_json_has_the_parts_of_a_line() {
        let object =
            r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1795431600000000","_HOSTNAME":"mx","_PID":"12",
            "SYSLOG_IDENTIFIER":"postfix/smtpd","PRIORITY":"6","MESSAGE":"x: y"}"#
                .replace('\n', "");
        let octets = object.replace("\"x: y\"", "[120,58,32,121]");
        let several = object.replace("\"x: y\"", "[\"x: y\",\"z\"]");
        for line in [&object, &octets, &several, &format!("\u{1e}{object}"), &format!("data: {object}")] {
            assert_eq!(json(line), Some(expected()), "{line}");
        }
        for line in ["{", "{}", "[1]", "null", "", r#"{"MESSAGE":"x"}"#, r#"{"__REALTIME_TIMESTAMP":"1"}"#] {
            assert_eq!(json(line), None, "{line}");
        }
    }

    fn exported(text: &[u8]) -> Vec<JournalEntry> {
        let mut export = Export::default();
        let mut entries = Vec::new();
        let mut add = |exported| {
            if let Exported::End(entry) = exported {
                entries.push(entry);
            }
        };
        text.split(|octet| *octet == b'\n').for_each(|line| add(export.line(line)));
        add(export.end());
        entries
    }

    #[test]
    fn an_exported_entry_ends_with_a_blank_line_or_the_file() {
        let entry = "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795431600000000\n_HOSTNAME=mx\nSYSLOG_PID=12\n_PID=1\n\
                     SYSLOG_IDENTIFIER=postfix/smtpd\nMESSAGE=x: y\n";
        assert_eq!(exported(entry.as_bytes()), [expected()]);
        assert_eq!(exported(format!("{entry}\n{entry}\n").as_bytes()), [expected(), expected()]);
        // Without a blank line the first was cut off.
        assert_eq!(exported(format!("__CURSOR=s=0\nMESSAGE=z\n{entry}").as_bytes()), [expected()]);
        assert_eq!(exported(b"Nov 23 12:00:00 mx a: b\n"), []);
    }

    #[test]
    fn data_with_line_ends_and_lengths_that_look_like_them_is_passed_over() {
        let head = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795431600000000\n_HOSTNAME=mx\n_PID=12\n".to_vec();
        let field = |name: &str, data: &[u8]| {
            let length = u64::try_from(data.len()).unwrap().to_le_bytes();
            [name.as_bytes(), b"\n", &length, data, b"\n"].concat()
        };
        let rest = b"SYSLOG_IDENTIFIER=postfix/smtpd\n".to_vec();
        for data in [&b""[..], b"\n", b"0123456789", b"a\r\nb\n\n__CURSOR=no\n", &[b'\n'; 10], &[0; 2570]] {
            let entry =
                [head.clone(), field("COREDUMP", data), rest.clone(), field("MESSAGE", b"x: y")].concat();
            assert_eq!(exported(&entry), [expected()], "{data:?}");
        }
        let endless = [head, b"COREDUMP\n\xff\xff\xff\xff\xff\xff\xff\xff\n".to_vec(), rest].concat();
        assert_eq!(exported(&endless), []);
    }
}

//! Streams of a real Postfix (`tests/blackbox/fixtures`), read by the codecs of its protocols: whole, octet by octet and
//! by 7 they are the same, nothing in them panics, and answers come where Postfix waited for them.

pub(crate) mod mail_server;
mod milter;
mod policy;

use std::path::Path;

/// A recorded connection.
pub(crate) struct Connection {
    /// The file and the number in it.
    pub(crate) name: String,
    pub(crate) packets: Vec<Packet>,
}

/// A line of a file: a packet of the milter protocol, or a line of the other.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) from_postfix: bool,
    pub(crate) octets: Vec<u8>,
    /// What the recorder called it: the first word of the comment before.
    pub(crate) called: String,
}

impl Connection {
    /// What one side sent.
    fn of(&self, postfix: bool) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| packet.from_postfix == postfix)
    }

    /// All that Postfix sent.
    fn input(&self) -> Vec<u8> {
        self.of(true).flat_map(|packet| packet.octets.clone()).collect()
    }
}

/// The files of a folder, by name: their text.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/fixtures").join(folder);
    let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The connections of a file. `octets` reads what stands behind `> N ` and `< N `.
fn connections(name: &str, text: &str, octets: fn(&str) -> Vec<u8>) -> Vec<Connection> {
    let mut found: Vec<(&str, Connection)> = Vec::new();
    let mut comment = "";
    for line in text.lines() {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "#" {
            comment = rest.split_once(": ").map_or("", |(_, comment)| comment);
            continue;
        }
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if mark == "@" {
            continue;
        }
        assert!(matches!(mark, "<" | ">"), "{name}: {line}");
        if !found.iter().any(|(other, _)| *other == number) {
            found.push((number, Connection { name: format!("{name} {number}"), packets: Vec::new() }));
        }
        let (_, connection) = found.iter_mut().find(|(other, _)| *other == number).unwrap();
        let called = comment.split([' ', '\'']).next().unwrap_or_default().to_owned();
        connection.packets.push(Packet { from_postfix: mark == ">", octets: octets(rest), called });
    }
    found.into_iter().map(|(_, connection)| connection).collect()
}

/// Every octet changed, one at a time and in three ways.
fn with_one_octet_changed(input: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..input.len()).flat_map(move |at| {
        [0x01, 0x80, 0xff].map(|bits| {
            let mut changed = input.to_vec();
            changed[at] ^= bits;
            changed
        })
    })
}

/// `\t`, `\n`, `\\` and `\xNN` are what they stand for.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|octet| *octet == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let (octet, length) = match rest[at + 1] {
            b'x' => (octet(&rest[at + 2..at + 4]), 4),
            b't' => (b'\t', 2),
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b'\\' => (b'\\', 2),
            other => panic!("{} in {text}", other.escape_ascii()),
        };
        out.push(octet);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
    out
}

/// Two hexadecimal digits.
fn octet(digits: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
}

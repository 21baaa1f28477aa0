//! The table of messages; its form stands at its top.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dkim::opendkim::OpenDkim;
use crate::dkim::signer::Signer;

/// The domain and the selector of the key of opendkim.
const RSA: (&str, &str) = ("good.test", "real");
const BODY: &str = "Hello,\r\nthis is the body.\r\n";

/// One message, and what becomes of it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) helo: String,
    /// Empty for the null sender.
    pub(super) mail_from: String,
    pub(super) message: String,
    /// By RFC 9989: the result, and for `fail` the request.
    pub(super) expected: String,
    /// The same of opendmarc, which follows RFC 7489.
    pub(super) opendmarc: String,
    /// Why the two differ; empty where they agree.
    pub(super) reason: String,
}

/// A file of this test.
pub(super) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/interop/same_as_opendmarc").join(name)
}

/// All rows; the key `rsa` is that of opendkim.
pub(super) fn table(rsa: &OpenDkim) -> Vec<Row> {
    let table = fs::read_to_string(file("messages.table")).unwrap();
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| row(line, rsa)).collect()
}

fn row(line: &str, rsa: &OpenDkim) -> Row {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let [name, client, helo, mail_from, header, signatures, expected, opendmarc, reason] = columns[..] else {
        panic!("{line}: nine columns, not {}", columns.len());
    };
    let same = opendmarc == "=";
    assert_eq!(same, reason.is_empty(), "{line}: a reason stands where opendmarc differs, and only there");
    assert!(opendmarc != expected, "{line}: `=` is the sign of the same result");
    Row {
        name: name.to_owned(),
        client: format!("198.51.100.{client}"),
        helo: helo.to_owned(),
        mail_from: mail_from.trim_matches(['<', '>']).to_owned(),
        message: message(name, header, signatures, rsa),
        expected: expected.to_owned(),
        opendmarc: if same { expected } else { opendmarc }.to_owned(),
        reason: reason.to_owned(),
    }
}

/// The header fields, with the row's name in one of them, signed in the order of the signatures.
fn message(name: &str, header: &str, signatures: &str, rsa: &OpenDkim) -> String {
    let mut fields = String::new();
    for (at, field) in header.split(" ;; ").enumerate() {
        let prefix = if at == 0 { "From: " } else { "" };
        fields.push_str(&format!("{prefix}{field}\r\n"));
    }
    fields.push_str(&format!("To: user@relay.test\r\nSubject: row {name}\r\nX-Row: {name}\r\n"));
    fields.push_str(&format!("Message-ID: <{name}@row.test>\r\nDate: Sun, 01 Nov 2026 10:00:00 +0000\r\n"));
    let (mut above, mut body) = (String::new(), BODY.to_owned());
    for signature in signatures.split_whitespace().filter(|signature| *signature != "-") {
        if signature == "damaged" {
            body.push_str("-- \r\nadded by a list\r\n");
            continue;
        }
        let parts: Vec<&str> = signature.splitn(4, ':').collect();
        let [key, domain, selector, ref tags @ ..] = parts[..] else {
            panic!("{name}: {signature}: KEY:DOMAIN:SELECTOR[:TAGS]");
        };
        let signed = if key == "rsa" {
            assert_eq!((domain, selector, tags), (RSA.0, RSA.1, [].as_slice()), "{name}");
            rsa.sign(&format!("{fields}\r\n{body}"), "relaxed/relaxed", "SubDomains yes")
        } else {
            let signer = Signer::new(domain, key.parse().unwrap());
            signer.sign_with(&fields, &body, selector, tags.first().unwrap_or(&""))
        };
        let (field, _) = signed.split_once(&fields).unwrap();
        above.push_str(field);
    }
    format!("{above}{fields}\r\n{body}")
}

/// The zone: its file, with the keys in place of `%KEY1` and so on.
pub(super) fn zone(rsa: &OpenDkim) -> String {
    let mut zone = fs::read_to_string(file("owners.zone")).unwrap() + &rsa.records();
    for number in (1..=3).rev() {
        zone = zone.replace(&format!("%KEY{number}"), &Signer::new("any.test", number).record());
    }
    assert!(!zone.contains("%KEY"), "{zone}");
    zone
}

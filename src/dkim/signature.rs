//! One DKIM-Signature field (RFC 6376 3.5), read. Pure.
//!
//! A signature that can't count is dropped here, before DNS is asked for its key: another version, rsa-sha1 (RFC 8301 3.1), no
//! From: among the signed fields, an agent outside the domain, a signature that has expired.

use compact_str::CompactString;

use crate::dkim::body::{BodyHash, Form};
use crate::dkim::tags::{Tags, base64, items, number};
use crate::evidence::QuestionName;
use crate::smtp::address::DomainName;

/// How a signature is made; the hash is SHA-256 for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// PKCS#1 v1.5 (RFC 6376 3.3.2).
    Rsa,
    /// RFC 8463.
    Ed25519,
}

/// A signature that may count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) algorithm: Algorithm,
    pub(super) octets: Vec<u8>,
    body_hash: Vec<u8>,
    pub(super) header_form: Form,
    pub(super) body_form: Form,
    /// The domain that signs.
    pub(super) domain: DomainName,
    pub(super) selector: CompactString,
    /// Where its key stands.
    pub(super) key_name: QuestionName,
    /// Names of the signed fields, lower case.
    pub(super) fields: Vec<CompactString>,
    /// The agent is of the domain itself, not of one below.
    pub(super) agent_in_domain: bool,
    length: Option<u64>,
}

impl Signature {
    /// Reads the value of a field; `now` in seconds since 1970. `None` where it can't count, or not any more.
    pub(super) fn parse(value: &[u8], now: u64) -> Option<Self> {
        let tags = Tags::parse(value)?;
        if tags.get("v")? != b"1" || !reads_dns(&tags) || has_expired(&tags, now)? {
            return None;
        }
        let domain = name(tags.get("d")?)?;
        let selector = name(tags.get("s")?)?;
        let key_name = format!("{selector}._domainkey.{domain}");
        let fields: Vec<CompactString> = items(tags.get("h")?).map(field_name).collect::<Option<_>>()?;
        if !fields.iter().any(|field| field == "from") {
            return None; // RFC 6376 5.4: the field that the reader sees must be signed
        }
        let agent = tags.get("i").map_or(Some(domain.clone()), agent_domain)?;
        if !agent.is_at_or_below(&domain) {
            return None;
        }
        let (header_form, body_form) = forms(tags.get("c"))?;
        let length = match tags.get("l") {
            Some(text) => Some(number(text)?),
            None => None,
        };
        Some(Self {
            algorithm: algorithm(tags.get("a")?)?,
            octets: base64(tags.get("b")?).filter(|octets| !octets.is_empty())?,
            body_hash: base64(tags.get("bh")?)?,
            header_form,
            body_form,
            key_name: QuestionName::parse(key_name.as_bytes())?,
            fields,
            selector: selector.as_str().into(),
            agent_in_domain: agent == domain,
            length,
            domain,
        })
    }

    /// Whether this is the body that was signed, all of it: any relay could have added the octets after `l=`
    /// (RFC 6376 8.2), so a signature of a part is none.
    pub(super) fn covers(&self, body: &BodyHash) -> bool {
        self.body_hash == body.hash && self.length.is_none_or(|length| length == body.length)
    }
}

fn name(value: &[u8]) -> Option<DomainName> {
    DomainName::parse_unicode(std::str::from_utf8(value).ok()?).ok()
}

fn field_name(item: &[u8]) -> Option<CompactString> {
    let mut name = CompactString::new(std::str::from_utf8(item).ok()?);
    name.make_ascii_lowercase();
    name.bytes().all(|byte| byte.is_ascii_graphic()).then_some(name)
}

/// Behind the last `@` of `i=`; the part before it is quoted-printable and speaks to the signer only.
fn agent_domain(value: &[u8]) -> Option<DomainName> {
    name(value.rsplit(|&byte| byte == b'@').next().filter(|domain| domain.len() < value.len())?)
}

/// `q=`: methods to get the key; DNS is the only one there is.
fn reads_dns(tags: &Tags<'_>) -> bool {
    tags.get("q").is_none_or(|methods| items(methods).any(|method| method.eq_ignore_ascii_case(b"dns/txt")))
}

/// `None` for what is no time, or makes no sense: an end before the beginning.
fn has_expired(tags: &Tags<'_>, now: u64) -> Option<bool> {
    let time = |name| tags.get(name).map_or(Some(None), |value| number(value).map(Some));
    match (time("t")?, time("x")?) {
        (Some(signed), Some(expires)) if expires <= signed => None,
        (_, expires) => Some(expires.is_some_and(|expires| expires <= now)),
    }
}

fn algorithm(value: &[u8]) -> Option<Algorithm> {
    match value.to_ascii_lowercase().as_slice() {
        b"rsa-sha256" => Some(Algorithm::Rsa),
        b"ed25519-sha256" => Some(Algorithm::Ed25519),
        _ => None,
    }
}

/// Of header and body; the body's is simple where only one is named (RFC 6376 3.5).
fn forms(value: Option<&[u8]>) -> Option<(Form, Form)> {
    let form = |text: &[u8]| match text.to_ascii_lowercase().as_slice() {
        b"simple" => Some(Form::Simple),
        b"relaxed" => Some(Form::Relaxed),
        _ => None,
    };
    let mut parts = value.unwrap_or(b"simple").split(|&byte| byte == b'/');
    let header = form(parts.next()?)?;
    let body = parts.next().map_or(Some(Form::Simple), form)?;
    parts.next().is_none().then_some((header, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const GOOD: &str =
        "v=1; a=rsa-sha256; c=relaxed/simple; d=Good.test; s=a.b; h=From : to:\r\n Subject; bh=Zg==; b=Z m8=";

    fn parse(value: &str) -> Option<Signature> {
        Signature::parse(value.as_bytes(), NOW)
    }

    #[test]
    fn a_signature_is_read() {
        let signature = parse(GOOD).unwrap();
        assert_eq!((signature.algorithm, signature.octets.as_slice()), (Algorithm::Rsa, &b"fo"[..]));
        assert_eq!((signature.header_form, signature.body_form), (Form::Relaxed, Form::Simple));
        assert_eq!(signature.key_name.as_str(), "a.b._domainkey.good.test");
        assert_eq!(signature.fields, ["from", "to", "subject"]);
        assert!(signature.agent_in_domain);
    }

    #[test]
    fn what_can_not_count_is_refused() {
        let rows = [
            ("v=1;", "v=2;", false),
            ("v=1;", "", false),
            ("rsa-sha256", "rsa-sha1", false),
            ("rsa-sha256", "ed25519-sha256", true),
            ("rsa-sha256", "RSA-SHA256", true),
            ("relaxed/simple", "relaxed/nowsp", false),
            ("relaxed/simple", "relaxed", true),
            ("relaxed/simple", "simple/relaxed/simple", false),
            ("d=Good.test", "d=", false),
            ("d=Good.test", "d=b\u{fc}cher.test", true),
            ("s=a.b", "s=a..b", false),
            ("From : ", "", false),
            ("From : ", "X-From : ", false),
            ("bh=Zg==; ", "", false),
            ("b=Z m8=", "b=", false),
            ("b=Z m8=", "b=Z", false),
            ("v=1;", "v=1; v=1;", false),
            ("v=1;", "v=1; i=@good.test;", true),
            ("v=1;", "v=1; i=joe@news.GOOD.test;", true),
            ("v=1;", "v=1; i=@test;", false),
            ("v=1;", "v=1; i=@notgood.test;", false),
            ("v=1;", "v=1; i=good.test;", false),
            ("v=1;", "v=1; q=dns/txt;", true),
            ("v=1;", "v=1; q=http : dns/txt;", true),
            ("v=1;", "v=1; q=http;", false),
            ("v=1;", "v=1; x=1800000001;", true),
            ("v=1;", "v=1; x=1800000000;", false),
            ("v=1;", "v=1; x=soon;", false),
            ("v=1;", "v=1; t=1900000000; x=1900000000;", false),
            ("v=1;", "v=1; t=1700000000; x=1900000000;", true),
            ("v=1;", "v=1; l=-1;", false),
            ("v=1;", "v=1; unknown=tag; z=From:a@b.test|To:x;", true),
        ];
        for (from, to, good) in rows {
            assert_eq!(parse(&GOOD.replacen(from, to, 1)).is_some(), good, "{from:?} as {to:?}");
        }
    }

    #[test]
    fn a_signature_of_a_part_of_the_body_covers_nothing() {
        let body = BodyHash { hash: [7; 32], length: 100 };
        let signed = Signature { body_hash: vec![7; 32], ..parse(GOOD).unwrap() };
        let rows = [(None, true), (Some(100), true), (Some(99), false), (Some(0), false), (Some(101), false)];
        for (length, covers) in rows {
            assert_eq!(Signature { length, ..signed.clone() }.covers(&body), covers, "{length:?}");
        }
        assert!(!signed.covers(&BodyHash { hash: [8; 32], length: 100 }));
    }
}

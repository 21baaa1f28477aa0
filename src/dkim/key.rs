//! A signer's key record (RFC 6376 3.6.1) and the verification with it. Pure.
//!
//! A key in test mode (`t=y`) doesn't count: RFC 6376 3.6.1 asks to treat such mail as unsigned.

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use crate::dkim::signature::{Algorithm, Signature};
use crate::dkim::tags::{Tags, base64, items};

/// `1.2.840.113549.1.1.1`, rsaEncryption, in DER.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// DER: a list, and octets.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// A key that signatures can be verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    algorithm: Algorithm,
    octets: Vec<u8>,
    /// `t=s`: not for agents of domains below.
    exact: bool,
}

impl Key {
    /// Reads a record; `None` for one that is no key, was revoked (`p=`), is in test mode or meant for something else.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let tags = Tags::parse(text)?;
        let lists = |name: &str, any_of: &[&[u8]]| {
            tags.get(name).is_none_or(|value| {
                items(value).any(|item| any_of.iter().any(|wanted| item.eq_ignore_ascii_case(wanted)))
            })
        };
        let flagged = |flag: &[u8]| tags.get("t").is_some_and(|value| items(value).any(|item| item == flag));
        if tags.get("v").is_some_and(|version| version != b"DKIM1" || !tags.begins_with("v"))
            || !lists("h", &[b"sha256"])
            || !lists("s", &[b"*", b"email"])
            || flagged(b"y")
        {
            return None;
        }
        let octets = base64(tags.get("p")?)?;
        let (algorithm, octets) = match tags.get("k").unwrap_or(b"rsa").to_ascii_lowercase().as_slice() {
            b"rsa" => (Algorithm::Rsa, rsa_public_key(&octets)?.to_vec()),
            b"ed25519" if octets.len() == 32 => (Algorithm::Ed25519, octets),
            _ => return None,
        };
        Some(Self { algorithm, octets, exact: flagged(b"s") })
    }

    /// Whether the signature is this key's, over this canonical header. RSA keys shorter than 1024 bits verify nothing
    /// (RFC 8301 3.2).
    pub(super) fn verifies(&self, signature: &Signature, header: &[u8]) -> bool {
        if self.algorithm != signature.algorithm || (self.exact && !signature.agent_in_domain) {
            return false;
        }
        let verified = match self.algorithm {
            Algorithm::Rsa => {
                UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &self.octets)
                    .verify(header, &signature.octets)
            }
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.octets)
                .verify(digest(&SHA256, header).as_ref(), &signature.octets),
        };
        verified.is_ok()
    }
}

/// The RSAPublicKey (RFC 8017 A.1.1) that ring wants: it is within a SubjectPublicKeyInfo in nearly every record, and
/// bare in those that follow RFC 6376 to the letter.
fn rsa_public_key(der: &[u8]) -> Option<&[u8]> {
    let (content, rest) = element(SEQUENCE, der)?;
    if !rest.is_empty() {
        return None;
    }
    if content.first() == Some(&INTEGER) {
        return Some(der);
    }
    let (algorithm, rest) = element(SEQUENCE, content)?;
    if !algorithm.starts_with(RSA_ENCRYPTION) {
        return None;
    }
    let (bits, rest) = element(BIT_STRING, rest)?;
    let key = bits.strip_prefix(&[0])?; // no unused bits
    rest.is_empty().then_some(key)
}

/// The content of the element of this kind at the front, and what follows.
fn element(kind: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der.strip_prefix(&[kind])? {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8463 A.2: an Ed25519 key, and an RSA key as SubjectPublicKeyInfo.
    const ED25519_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const RSA_KEY: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id\
                           Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/B\
                           C/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G\
                           +2kryOTIKT+l/K4w3QIDAQAB";

    #[test]
    fn a_record_is_a_key_unless_it_says_otherwise() {
        let rows = [
            ("p=RSA", true),
            ("v=DKIM1; k=rsa; p=RSA", true),
            ("v=DKIM1; k=ed25519; p=ED", true),
            ("v=DKIM1; k=ed25519; p=RSA", false),
            ("v=DKIM1; k=rsa; p=ED", false),
            ("v=DKIM1; k=dsa; p=RSA", false),
            ("v=DKIM2; p=RSA", false),
            ("p=RSA; v=DKIM1", false),
            ("v=DKIM1; p=", false),
            ("v=DKIM1", false),
            ("v=DKIM1; p=!", false),
            ("v=DKIM1; h=sha1; p=RSA", false),
            ("v=DKIM1; h=sha1 : sha256; p=RSA", true),
            ("v=DKIM1; s=email; p=RSA", true),
            ("v=DKIM1; s=other:*; p=RSA", true),
            ("v=DKIM1; s=other; p=RSA", false),
            ("v=DKIM1; t=y; p=RSA", false),
            ("v=DKIM1; t=s:y; p=RSA", false),
            ("v=DKIM1; t=s; p=RSA", true),
            ("v=DKIM1; n=a note; x=unknown; p=RSA;", true),
            ("v=spf1 -all", false),
            ("", false),
        ];
        for (text, good) in rows {
            let text = text.replace("RSA", RSA_KEY).replace("ED", ED25519_KEY);
            assert_eq!(Key::parse(text.as_bytes()).is_some(), good, "{text}");
        }
        assert!(Key::parse(format!("t=s; p={RSA_KEY}").as_bytes()).unwrap().exact);
    }

    #[test]
    fn an_rsa_key_is_found_bare_and_wrapped_and_damage_is_no_key() {
        let wrapped = base64(RSA_KEY.as_bytes()).unwrap();
        let bare = rsa_public_key(&wrapped).unwrap().to_vec();
        assert_eq!(bare.first(), Some(&SEQUENCE));
        assert_eq!(rsa_public_key(&bare), Some(bare.as_slice()));
        for length in 0..wrapped.len() {
            assert_eq!(rsa_public_key(&wrapped[..length]), None, "the first {length} octets");
        }
        assert_eq!(rsa_public_key(&[wrapped, vec![0]].concat()), None);
    }
}

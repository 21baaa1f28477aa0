//! A signer for the tests (RFC 6376, RFC 8463): Ed25519, header relaxed, body simple, written without a look at the
//! verifier.

use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    domain: String,
}

impl Signer {
    /// Signs as a domain; the key is always the same for the same number.
    pub(crate) fn new(domain: impl Into<String>, number: u8) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap(), domain: domain.into() }
    }

    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// For the zone.
    pub(crate) fn record(&self) -> String {
        format!("v=DKIM1; k=ed25519; p={}", base64(self.pair.public_key().as_ref()))
    }

    /// The message with a signature on top. Fields are unfolded, the body ends in CRLF or is empty.
    pub(crate) fn sign(&self, header: &str, body: &str) -> String {
        self.sign_with(header, body, "sel", "")
    }

    /// The same with a selector and more tags; `l=` is heeded.
    pub(crate) fn sign_with(&self, header: &str, body: &str, selector: &str, tags: &str) -> String {
        let mut canonical = format!("{}\r\n", body.trim_end_matches("\r\n"));
        if let Some((_, length)) = tags.split_once("l=") {
            canonical.truncate(length.trim_end_matches(';').parse().unwrap());
        }
        let fields: Vec<(&str, &str)> = header.lines().map(|line| line.split_once(':').unwrap()).collect();
        let names: Vec<&str> = fields.iter().rev().map(|(name, _)| *name).collect();
        let value = format!(
            "v=1; a=ed25519-sha256; c=relaxed/simple; d={}; s={selector}; {tags}\r\n\th={};\r\n\tbh={};\r\n\tb=",
            self.domain,
            names.join(":"),
            base64(digest(&SHA256, canonical.as_bytes()).as_ref())
        );
        let mut signed = String::new();
        for (name, text) in fields.iter().rev() {
            signed.push_str(&format!("{}:{}\r\n", name.to_lowercase(), squeezed(text)));
        }
        signed.push_str(&format!("dkim-signature:{}", squeezed(&value)));
        let signature = self.pair.sign(digest(&SHA256, signed.as_bytes()).as_ref());
        format!("DKIM-Signature: {value}{}\r\n{header}\r\n{body}", base64(signature.as_ref()))
    }
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in octets.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
            text.push(if at <= three.len() { digit } else { '=' });
        }
    }
    text
}

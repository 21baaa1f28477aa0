//! Names of keys, and what makes their values trustworthy: both are under `cluster.secret`.
//!
//! A triple becomes a keyed hash. What nodes tell each other is sealed (encrypted and authenticated, with its key and the time
//! inside), so that a writer without the secret can't speak for a node: at most it can repeat a few seconds.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::decision::Node;
use crate::store::shared::Secret;

/// The version of the keys and values.
const VERSION: u8 = 1;

/// The names of the keys, and the key of the seal.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    triples: [u8; 32],
    seal: Seal,
}

#[derive(Debug)]
struct Seal(LessSafeKey);

impl Keys {
    /// `None` if the system's cryptography fails.
    pub(super) fn new(prefix: &str, secret: &Secret) -> Option<Self> {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.octets());
        let derived = |purpose: &str| {
            let purpose = format!("rmxd {VERSION} {purpose}");
            hmac::sign(&secret, purpose.as_bytes()).as_ref().try_into().unwrap_or([0; 32])
        };
        let seal = UnboundKey::new(&CHACHA20_POLY1305, &derived("seal")).ok()?;
        let prefix = format!("{prefix}:{VERSION}:");
        Some(Self { prefix, triples: derived("triples"), seal: Seal(LessSafeKey::new(seal)) })
    }

    /// The key of the hashes of triples.
    pub(super) fn of_triples(&self) -> &[u8; 32] {
        &self.triples
    }

    /// `PREFIX:1:g:HASH`.
    pub(super) fn triple(&self, hash: &[u8; 16]) -> String {
        let hash: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{}g:{hash}", self.prefix)
    }

    /// `PREFIX:1:n:NODE`.
    pub(super) fn node(&self, node: Node) -> String {
        format!("{}n:{node}", self.prefix)
    }

    /// `PREFIX:1:c:NODE`.
    pub(super) fn connections(&self, node: Node) -> String {
        format!("{}c:{node}", self.prefix)
    }

    /// Seals a text of this time (milliseconds since 1970 by the server's clock) for one key.
    pub(super) fn seal(&self, key: &str, at: u64, text: &[u8]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = [&at.to_be_bytes(), text].concat();
        let aad = Aad::from(key.as_bytes());
        self.seal.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// The time and the text; `None` if it wasn't sealed for this key under this secret.
    pub(super) fn open(&self, key: &str, sealed: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut octets = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.seal.0.open_in_place(nonce, Aad::from(key.as_bytes()), &mut octets).ok()?;
        let (at, text) = opened.split_first_chunk()?;
        Some((u64::from_be_bytes(*at), text.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &[u8]) -> Keys {
        Keys::new("rmxd", &Secret::new(secret)).unwrap()
    }

    #[test]
    fn only_the_same_secret_and_the_same_key_open_a_seal() {
        let (own, other) = (keys(&[1; 32]), keys(&[2; 32]));
        let (first, second) = (Node::new(1).unwrap(), Node::new(2).unwrap());
        let sealed = own.seal(&own.node(first), 7, b"mx1").unwrap();
        assert_eq!(own.open(&own.node(first), &sealed), Some((7, b"mx1".to_vec())));
        assert_eq!(own.open(&own.node(second), &sealed), None, "another node");
        assert_eq!(own.open(&own.connections(first), &sealed), None, "another kind");
        assert_eq!(other.open(&other.node(first), &sealed), None, "another secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(own.open(&own.node(first), &changed), None, "{at}");
            assert_eq!(own.open(&own.node(first), &sealed[..at]), None, "{at}");
        }
    }

    #[test]
    fn names_are_as_documented() {
        let keys = keys(&[1; 32]);
        let node = Node::new(12).unwrap();
        assert_eq!(keys.node(node), "rmxd:1:n:12");
        assert_eq!(keys.connections(node), "rmxd:1:c:12");
        assert_eq!(keys.triple(&[0xab; 16]), format!("rmxd:1:g:{}", "ab".repeat(16)));
        assert_ne!(keys.of_triples(), &[0; 32]);
    }
}

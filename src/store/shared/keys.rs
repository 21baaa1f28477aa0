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

/// Octets of the name of a permit's field.
pub(super) const FIELD: usize = 32;
/// What the seal adds to a text: the nonce, the time and the tag.
pub(super) const SEAL: usize = NONCE_LEN + 8 + 16;

/// The names of the keys, and the key of the seal.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    triples: [u8; 32],
    fields: hmac::Key,
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
        let fields = hmac::Key::new(hmac::HMAC_SHA256, &derived("permits"));
        Some(Self { prefix, triples: derived("triples"), fields, seal: Seal(LessSafeKey::new(seal)) })
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

    /// `PREFIX:1:{x}`: the hash of the permits of all nodes. What begins with it is in the same slot of a Redis Cluster.
    pub(super) fn permits(&self) -> String {
        format!("{}{{x}}", self.prefix)
    }

    /// `PREFIX:1:{x}:v`: the number that each change of the hash raises.
    pub(super) fn permits_number(&self) -> String {
        format!("{}:v", self.permits())
    }

    /// The name of the field of a permit: a keyed hash of its number, so that fleets with one prefix don't meet.
    pub(super) fn permit_field(&self, number: u64) -> [u8; FIELD] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let hash = hmac::sign(&self.fields, &number.to_be_bytes());
        let digits = hash.as_ref().iter().flat_map(|octet| [octet >> 4, octet & 15]);
        let mut field = [b'0'; FIELD];
        for (place, digit) in field.iter_mut().zip(digits) {
            *place = DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0');
        }
        field
    }

    /// Seals a text for one field of the hash.
    pub(super) fn seal_permit(&self, field: &[u8; FIELD], at: u64, text: &[u8]) -> Option<Vec<u8>> {
        self.seal(&self.place(field), at, text)
    }

    /// As [`Keys::open`].
    pub(super) fn open_permit(&self, field: &[u8; FIELD], sealed: &[u8]) -> Option<(u64, Vec<u8>)> {
        self.open(&self.place(field), sealed)
    }

    fn place(&self, field: &[u8; FIELD]) -> String {
        format!("{} {}", self.permits(), String::from_utf8_lossy(field))
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
        assert_eq!(
            (keys.permits(), keys.permits_number()),
            ("rmxd:1:{x}".to_owned(), "rmxd:1:{x}:v".to_owned())
        );
    }

    #[test]
    fn a_permit_is_sealed_for_its_field() {
        let (own, other) = (keys(&[1; 32]), keys(&[2; 32]));
        let (first, second) = (own.permit_field(17), own.permit_field(18));
        assert!(first.iter().all(u8::is_ascii_hexdigit) && first != second);
        assert_ne!(first, other.permit_field(17), "fleets with one prefix don't meet");
        let sealed = own.seal_permit(&first, 7, b"text").unwrap();
        assert_eq!(sealed.len(), "text".len() + SEAL);
        assert_eq!(own.open_permit(&first, &sealed), Some((7, b"text".to_vec())));
        assert_eq!(own.open_permit(&second, &sealed), None, "another field");
        assert_eq!(other.open_permit(&first, &sealed), None, "another secret");
        assert_eq!(own.open(&own.permits(), &sealed), None, "another kind");
    }
}

//! DKIM (RFC 6376, 8301, 8463): whether a domain vouches for a message by its signature.
//!
//! The verifier is our own, on ring, which is linked for TLS already. mail-auth (0.13) was weighed: it takes the whole
//! message in memory to choose and canonicalise fields, while a message is streamed here; what could be used of it, the
//! parsers, takes lists with repeated tags and signatures without a version; and it brings its resolver along, and more
//! of mail-parser's decoders than the reader of From: should have.
//!
//! `tags`, `signature`, `key`, `fields` and `body` are pure. Only signatures are looked at whose domain can count for an author,
//! which the caller decides: by the public suffix list ([`are_aligned`]) or by the tree walk of DMARC. Two rules are stricter than the RFC: `l=` must cover
//! the whole body, since any relay could have added the rest, and a key in test mode doesn't count. rsa-sha1 is no signature
//! (RFC 8301 3.1).

mod body;
mod fields;
mod key;
mod signature;
mod tags;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use compact_str::CompactString;
use futures_util::future::join_all;

pub use crate::dkim::body::{BodyHasher, BodyHashes};
use crate::dkim::fields::Fields;
use crate::dkim::key::Key;
use crate::dkim::signature::Signature;
use crate::dns::lookups::{Lookups, trouble};
use crate::dns::organization::organization;
use crate::dns::{Account, Dns};
use crate::evidence::{Answer, DnsFailure, Evidence, RecordType, Records};
use crate::policy::authentication::SignatureResult;
use crate::smtp::address::DomainName;

const FIELD: &[u8] = b"dkim-signature";
/// Signatures of one message that are verified, the nearest to the top first.
const MOST_SIGNATURES: usize = 10;
/// Records at one selector that are tried as keys; RFC 6376 3.6.2.2 leaves several undefined.
const MOST_KEYS: usize = 3;

/// The signatures of a message that may count for its authors, at least one.
#[derive(Debug, Clone)]
pub struct Signatures {
    block: Arc<[u8]>,
    /// Each with the place of its field.
    list: Vec<(usize, Signature)>,
}

/// The signatures, verified over the header; the hash of the body is open.
#[derive(Debug, Clone)]
pub struct Checked {
    list: Vec<CheckedSignature>,
}

#[derive(Debug, Clone)]
struct CheckedSignature {
    signature: Signature,
    /// The result over the header alone.
    outcome: DkimResult,
    has_key: bool,
    evidence: Vec<Evidence>,
}

/// The result of a message's signatures for one author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DkimResult {
    /// An aligned signature is valid.
    Pass,
    /// No aligned signature is valid.
    Fail,
    /// One may be valid, but the lookup of its key failed.
    TempError(DnsFailure),
}

impl Signatures {
    /// Reads those of a header block whose domain `counts`; `None` where there is none, which costs next to nothing. `now` in
    /// seconds since 1970.
    #[must_use]
    pub fn read(block: &[u8], now: u64, counts: impl Fn(&DomainName) -> bool) -> Option<Self> {
        let fields = Fields::new(block);
        let read = fields.named(FIELD).filter_map(|(place, value)| {
            let signature = Signature::parse(value, now)?;
            counts(&signature.domain).then_some((place, signature))
        });
        let list: Vec<_> = read.take(MOST_SIGNATURES).collect();
        (!list.is_empty()).then(|| Self { block: block.into(), list })
    }

    /// The domains that sign, top first.
    pub fn domains(&self) -> impl Iterator<Item = &DomainName> {
        self.list.iter().map(|(_, signature)| &signature.domain)
    }

    /// A hasher for the canonical forms that the signatures need.
    #[must_use]
    pub fn body_hasher(&self) -> BodyHasher {
        BodyHasher::new(self.list.iter().map(|(_, signature)| signature.body_form))
    }

    /// Looks up the keys on this account and verifies the header.
    pub async fn check(self, dns: &Dns, account: &Account) -> Checked {
        let keys = self.list.iter().map(|(_, signature)| async {
            let mut lookups = Lookups::new(dns, account);
            let answer = lookups.ask(signature.key_name.clone(), RecordType::Txt).await;
            (answer, lookups.into_evidence())
        });
        let keys = join_all(keys).await;
        self.verified(keys)
    }

    /// The same with the texts that the key's name has, whatever the selector: no DNS is asked.
    #[must_use]
    pub fn check_against(self, texts: &[Box<[u8]>]) -> Checked {
        let answer = Arc::new(Answer::Found(Records::Txt(texts.to_vec())));
        let keys = self.list.iter().map(|_| (Arc::clone(&answer), Vec::new())).collect();
        self.verified(keys)
    }

    fn verified(self, keys: Vec<(Arc<Answer>, Vec<Evidence>)>) -> Checked {
        let fields = Fields::new(&self.block);
        let verified = self.list.iter().zip(keys).map(|((place, signature), (answer, evidence))| {
            let keys = keys_in(&answer);
            let outcome = match trouble(&evidence) {
                _ if verifies(signature, &keys, &fields, *place) => DkimResult::Pass,
                Some(trouble) => DkimResult::TempError(trouble),
                None => DkimResult::Fail,
            };
            let has_key = !keys.is_empty();
            CheckedSignature { signature: signature.clone(), outcome, has_key, evidence }
        });
        Checked { list: verified.collect() }
    }
}

impl Checked {
    /// The result of the signatures whose domain `counts`, when the body has come.
    #[must_use]
    pub fn outcome(&self, body: &BodyHashes, counts: impl Fn(&DomainName) -> bool) -> DkimResult {
        let covering = self.list.iter().filter(|checked| checked.covers(body));
        let counting = covering.filter(|checked| counts(&checked.signature.domain));
        counting.fold(DkimResult::Fail, |best, checked| match (best, checked.outcome) {
            (DkimResult::Pass, _) | (_, DkimResult::Pass) => DkimResult::Pass,
            (DkimResult::TempError(trouble), _) | (_, DkimResult::TempError(trouble)) => {
                DkimResult::TempError(trouble)
            }
            (DkimResult::Fail, DkimResult::Fail) => DkimResult::Fail,
        })
    }

    /// Every question that was asked for the signatures whose domain `counts`.
    pub fn evidence(&self, counts: impl Fn(&DomainName) -> bool) -> impl Iterator<Item = &Evidence> {
        let counting = self.list.iter().filter(move |checked| counts(&checked.signature.domain));
        counting.flat_map(|checked| &checked.evidence)
    }

    /// The result of each signature, top first: its domain, its selector.
    pub fn results(
        &self,
        body: &BodyHashes,
    ) -> impl Iterator<Item = (&DomainName, &CompactString, SignatureResult)> {
        self.list.iter().map(|checked| {
            let result = match checked.outcome {
                DkimResult::Pass if checked.covers(body) => SignatureResult::Pass,
                DkimResult::TempError(_) => SignatureResult::TempError,
                DkimResult::Pass | DkimResult::Fail if checked.has_key => SignatureResult::Fail,
                DkimResult::Pass | DkimResult::Fail => SignatureResult::PermError,
            };
            (&checked.signature.domain, &checked.signature.selector, result)
        })
    }
}

impl CheckedSignature {
    /// Whether the body is the one that was signed.
    fn covers(&self, body: &BodyHashes) -> bool {
        body.of(self.signature.body_form).is_some_and(|hash| self.signature.covers(hash))
    }
}

fn keys_in(answer: &Answer) -> Vec<Key> {
    match answer {
        Answer::Found(Records::Txt(texts)) => {
            texts.iter().filter_map(|text| Key::parse(text)).take(MOST_KEYS).collect()
        }
        Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain | Answer::Unavailable(_) => Vec::new(),
    }
}

fn verifies(signature: &Signature, keys: &[Key], fields: &Fields<'_>, place: usize) -> bool {
    if keys.is_empty() {
        return false;
    }
    let header = fields.signed(&signature.fields, signature.header_form, place);
    keys.iter().any(|key| key.verifies(signature, &header))
}

/// Of one organisation by the public suffix list (as in RFC 7489 3.1.1); a public suffix is aligned with itself only.
#[must_use]
pub fn are_aligned(signer: &DomainName, author: &DomainName) -> bool {
    signer == author || organization(signer).is_some_and(|name| organization(author) == Some(name))
}

//! DKIM-Signature fields and key records: what may count for an author, and that what was signed can't be changed.
//!
//! Input: a line with a key record, then a message: header block, an empty line, the body.

use rmxd::dkim::{BodyHashes, DkimResult, Signatures, are_aligned};
use rmxd::smtp::address::DomainName;

/// Before the signatures of the corpus expire, if they do.
const NOW: u64 = 1_600_000_000;

pub fn check(input: &[u8]) {
    let (key, message) = split_at(input, b"\n");
    let (block, body) = split_at(message, b"\r\n\r\n");
    let block = [block, b"\r\n"].concat();
    let texts: [Box<[u8]>; 1] = [key.trim_ascii_end().into()];
    let author = DomainName::parse("football.example.com").unwrap();
    let stranger = DomainName::parse("other.example").unwrap();
    let Some(outcome) = outcome(&block, body, &texts, &author) else { return };
    assert_eq!(
        outcome_of(&block, body, &texts, &author, &stranger),
        DkimResult::Fail,
        "aligned with nobody else"
    );
    if outcome != DkimResult::Pass {
        return;
    }
    let again = |block: &[u8], body: &[u8]| self::outcome(block, body, &texts, &author);
    let above = [b"X-Above: 1\r\n", &*block].concat();
    assert_eq!(again(&above, body), Some(DkimResult::Pass), "a field that isn't signed changes nothing");
    // h= names From:, and fields are taken from the bottom: this is the one that is signed now
    let below = [&*block, b"From: <x@other.example>\r\n"].concat();
    assert_ne!(again(&below, body), Some(DkimResult::Pass), "{}", block.escape_ascii());
    let longer = [body, b"x\r\n"].concat();
    assert_ne!(again(&block, &longer), Some(DkimResult::Pass), "{}", body.escape_ascii());
    let revoked: [Box<[u8]>; 1] = [Box::from(&b"v=DKIM1; p="[..])];
    assert_ne!(self::outcome(&block, body, &revoked, &author), Some(DkimResult::Pass));
}

fn split_at<'a>(octets: &'a [u8], mark: &[u8]) -> (&'a [u8], &'a [u8]) {
    let at = octets.windows(mark.len()).position(|window| window == mark);
    at.map_or((octets, b""), |at| (&octets[..at], &octets[at + mark.len()..]))
}

/// `None` where no signature is the author's.
fn outcome(block: &[u8], body: &[u8], texts: &[Box<[u8]>], author: &DomainName) -> Option<DkimResult> {
    let signatures = Signatures::read(block, NOW, |signer| are_aligned(signer, author))?;
    assert!(signatures.domains().any(|signer| are_aligned(signer, author)));
    let hashes = hashes(&signatures, body);
    Some(signatures.check_against(texts).outcome(&hashes, |signer| are_aligned(signer, author)))
}

/// For somebody else, by the signatures that were read for the author.
fn outcome_of(
    block: &[u8],
    body: &[u8],
    texts: &[Box<[u8]>],
    author: &DomainName,
    other: &DomainName,
) -> DkimResult {
    let signatures = Signatures::read(block, NOW, |signer| are_aligned(signer, author)).unwrap();
    assert!(!signatures.domains().any(|signer| are_aligned(signer, other)));
    let hashes = hashes(&signatures, body);
    signatures.check_against(texts).outcome(&hashes, |signer| are_aligned(signer, other))
}

fn hashes(signatures: &Signatures, body: &[u8]) -> BodyHashes {
    let mut hasher = signatures.body_hasher();
    hasher.push(body);
    hasher.finish()
}

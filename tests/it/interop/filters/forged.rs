//! Results in our name that a client forges.

use crate::interop::forged_results::fields;

/// The result in each of them.
pub(super) const FORGED: &str = "; dkim=pass header.d=forged.test";

/// Spellings of our name that no line of a header is lost by, each with a result. Postfix takes the line with a folded name,
/// and all behind it, for the body.
pub(super) fn forged() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = fields().into_iter().filter(|field| !field.starts_with(NOT_OURS)).collect();
    assert!(all.len() >= 100, "{}", all.len());
    all.into_iter().map(|field| [field, FORGED.into()].concat()).collect()
}

/// With a colon in it, the name is another.
const NOT_OURS: &[u8] = b"ARC-Authentication-Results: i=1; x:";

//! Keys of later versions: known from the start, accepted only at the value that turns them off. Their values are
//! validated all the same, so that a file with a wrong one has the same problem in each version.

use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::net::{Endpoint, Purpose};

/// Refuses what this version can't do.
pub(super) fn refuse_unavailable(raw: &Raw, reader: &mut Reader<'_>) {
    let lists = [
        ("listen.milter", &raw.listen.milter, Purpose::Milter),
        ("listen.policy", &raw.listen.policy, Purpose::Policy),
    ];
    for (key, items, purpose) in lists {
        let read = reader.list(key, items, |text| Endpoint::parse(text, purpose));
        if read.is_some_and(|endpoints| !endpoints.is_empty()) {
            reader.refuse(key, format!("{items:?} is not available in this version: []"));
        }
    }
    if !raw.cluster.redis.is_empty() {
        // Not shown: the URL may hold a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
}

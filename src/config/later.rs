//! Keys of features that this version doesn't have. They are accepted only at the value that turns the feature off.
//! The other keys of such a section are validated, so that a file that loads today also loads in the later version.

use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::net::{Endpoint, Purpose};

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
        // The value isn't shown: the URL may contain a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
}

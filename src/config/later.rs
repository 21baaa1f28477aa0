//! Keys of later work: known from the start, accepted only at the value that turns them off. What is said in such a
//! section is validated all the same, so that a file which loads today loads when the work is done.

use crate::config::raw::Raw;
use crate::config::reader::Reader;

/// Refuses what this version can't do.
pub(super) fn refuse_unavailable(raw: &Raw, reader: &mut Reader<'_>) {
    let lists = [("listen.milter", &raw.listen.milter), ("listen.policy", &raw.listen.policy)];
    for (key, items) in lists {
        if !items.is_empty() {
            reader.refuse(key, format!("{items:?} is not available in this version: []"));
        }
    }
    if !raw.history.path.is_empty() {
        reader
            .refuse("history.path", format!("{:?} is not available in this version: \"\"", raw.history.path));
    }
    if !raw.cluster.redis.is_empty() {
        // Not shown: the URL may hold a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
    check_values(raw, reader);
}

fn check_values(raw: &Raw, reader: &mut Reader<'_>) {
    reader.time("history.keep", &raw.history.keep);
}

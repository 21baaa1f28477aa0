//! Keys of features that this version doesn't have. They are accepted only at the value that turns the feature off.
//! The other keys of such a section are validated, so that a file that loads today also loads in the later version.

use crate::config::raw::Raw;
use crate::config::reader::Reader;

pub(super) fn refuse_unavailable(raw: &Raw, reader: &mut Reader<'_>) {
    if !raw.cluster.redis.is_empty() {
        // The value isn't shown: the URL may contain a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
}

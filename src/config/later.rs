//! Keys of features that this version doesn't have. They are accepted only at the value that turns the feature off.
//! The other keys of such a section are validated, so that a file that loads today also loads in the later version.

use crate::config::raw::Raw;
use crate::config::reader::Reader;
use crate::net::{Endpoint, Purpose};

pub(super) fn refuse_unavailable(raw: &Raw, reader: &mut Reader<'_>) {
    // SWITCH for door/milter: without these lines `listen.milter` is accepted. Beside them the door needs its line in
    // `Parts::services` (src/daemon/parts.rs) and in `Sockets::open` (src/daemon/sockets.rs).
    let is_valid = |text: &String| Endpoint::parse(text, Purpose::Milter).is_ok();
    if !raw.listen.milter.is_empty() && raw.listen.milter.iter().all(is_valid) {
        reader
            .refuse("listen.milter", format!("{:?} is not available in this version: []", raw.listen.milter));
    }
    if !raw.cluster.redis.is_empty() {
        // The value isn't shown: the URL may contain a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
}

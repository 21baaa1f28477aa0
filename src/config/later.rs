//! Keys of later work: known from the start, accepted only at the value that turns them off. What is said in such a
//! section is validated all the same, so that a file which loads today loads when the work is done.

use std::net::SocketAddr;

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
    if !raw.listen.admin.is_empty() {
        reader
            .refuse("listen.admin", format!("{:?} is not available in this version: \"\"", raw.listen.admin));
    }
    if !raw.cluster.redis.is_empty() {
        // Not shown: the URL may hold a password.
        reader.refuse("cluster.redis", "is not available in this version: \"\"");
    }
    check_admin(raw, reader);
}

fn check_admin(raw: &Raw, reader: &mut Reader<'_>) {
    // An Authorization header can carry no more (RFC 6750 2.1); the token itself is never shown.
    if !raw.admin.token.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.refuse("admin.token", "must be printable ASCII without blanks");
    }
    if raw.listen.admin.is_empty() {
        return;
    }
    match raw.listen.admin.parse::<SocketAddr>() {
        Err(_) => reader.refuse("listen.admin", super::resolve::SOCKET_WANTED),
        Ok(address) if !address.ip().to_canonical().is_loopback() && raw.admin.token.is_empty() => {
            reader.refuse("listen.admin", "an address that is not loopback needs admin.token");
        }
        Ok(_) => {}
    }
}

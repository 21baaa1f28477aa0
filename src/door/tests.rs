//! What the tests of doors share: settings over the name server of a test.

use crate::config::{Flags, Settings, load};
use crate::dns::test_server::TestServer;

/// The defaults of the tests, and `lines` over them.
pub(super) fn settings(lines: &[(&str, &str)], server: &TestServer) -> Settings {
    let address = server.address().to_string();
    let base = [
        ("hostname", "gate.test"),
        ("dns.servers", &address),
        ("dns.timeout", "1s"),
        ("dns.private_addresses", "accept"),
        ("relay.domains", "here.test"),
    ];
    let set = base.iter().chain(lines).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    load(None, [], &Flags { set: set.collect(), ..Flags::default() }).unwrap().settings
}

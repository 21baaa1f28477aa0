//! What a decision can be found by: the kinds of keys, and the key for each text.

use std::net::IpAddr;

use compact_str::CompactString;

use crate::store::history::row::cut;

/// The kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id = 0,
    Queue = 1,
    Recipient = 2,
    Client = 3,
    /// A sender domain, from its last label to its first, each with a dot behind it: `test.spoof.`.
    Domain = 4,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Id, Self::Queue, Self::Recipient, Self::Client, Self::Domain];

    pub(super) fn code(self) -> i64 {
        self as i64
    }

    /// The key for a text of a column; `None` for a text that is damaged.
    pub(super) fn key(self, text: &str) -> Option<CompactString> {
        Some(match self {
            Self::Id | Self::Queue => CompactString::new(text),
            Self::Recipient => recipient_key(text),
            Self::Client => client_key(text.parse().ok()?),
            Self::Domain => domain_key(text),
        })
    }
}

/// The columns that [`key_texts`] needs.
pub(super) const KEY_COLUMNS: &str = "seq, at, id, queue, rcpt, recipients, client, domains";

/// Calls `each` for the texts of a row with [`KEY_COLUMNS`] that it can be found by, of which [`Kind::key`] makes keys.
pub(super) fn key_texts(row: &rusqlite::Row<'_>, mut each: impl FnMut(Kind, &str)) -> rusqlite::Result<()> {
    let text = |at: usize| row.get_ref(at).map(|value| value.as_str_or_null().ok().flatten());
    for (kind, at) in [(Kind::Id, 2), (Kind::Queue, 3)] {
        if let Some(text) = text(at)? {
            each(kind, text);
        }
    }
    match (text(5)?, text(4)?) {
        (Some(list), _) => {
            let all: Vec<String> = serde_json::from_str(list).unwrap_or_default();
            all.iter().for_each(|one| each(Kind::Recipient, one));
        }
        (None, Some(one)) => each(Kind::Recipient, one),
        (None, None) => {}
    }
    if let Some(client) = text(6)? {
        each(Kind::Client, client);
    }
    for domain in text(7)?.unwrap_or_default().split(' ').filter(|domain| !domain.is_empty()) {
        each(Kind::Domain, domain);
    }
    Ok(())
}

/// In lower case, as nobody remembers how a recipient was written.
pub(super) fn recipient_key(recipient: &str) -> CompactString {
    cut(recipient).to_ascii_lowercase().into()
}

/// Addresses of one family are in the order of their numbers.
pub(super) fn client_key(client: IpAddr) -> CompactString {
    match client.to_canonical() {
        IpAddr::V4(address) => compact_str::format_compact!("4{:08x}", address.to_bits()),
        IpAddr::V6(address) => compact_str::format_compact!("6{:032x}", address.to_bits()),
    }
}

pub(super) fn domain_key(domain: &str) -> CompactString {
    let mut key = CompactString::with_capacity(domain.len() + 1);
    for label in domain.rsplit('.') {
        key.push_str(label);
        key.push('.');
    }
    key
}

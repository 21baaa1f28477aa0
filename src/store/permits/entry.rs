//! What the nodes of a fleet know under the number of a permit: the permit, or its removal; and the text in which they tell
//! each other.
//!
//! Of two entries with one number that of the lower [`Entry::rank`] counts. The rank is a total order, so all nodes come to
//! the same, in whatever order and however often they hear of them. A removal ranks before its permit: an old copy of the
//! permit doesn't bring it back. Of two permits that got one number the first counts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::decision::Id;
use crate::exempt::entry;
use crate::exempt::permits::{Conditions, MOST_NOTE, TemporaryPermit};
use crate::policy::identity::Identity;

/// Octets of a text.
pub const LONGEST_TEXT: usize = 2 << 10;
/// Numbers that JSON keeps exactly.
const LARGEST_NUMBER: u64 = (1 << 53) - 1;

/// What is known under a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Permit(TemporaryPermit),
    Removal(Removal),
}

/// A permit of a fleet was removed. It is kept as long as the permit could be in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Of the permit, as `uid`, `created` and `until`.
    pub number: u64,
    pub uid: u64,
    pub created: SystemTime,
    pub until: Option<SystemTime>,
    /// When it was removed.
    pub at: SystemTime,
}

impl Removal {
    /// `None` for a permit that was made without a fleet: no other node has it.
    #[must_use]
    pub fn of(permit: &TemporaryPermit, at: SystemTime) -> Option<Self> {
        let TemporaryPermit { number, created, until, .. } = *permit;
        Some(Self { number, uid: permit.uid?, created, until, at })
    }
}

/// Which entry of a number counts: the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    created: SystemTime,
    uid: u64,
    is_permit: bool,
    removed: SystemTime,
}

impl Entry {
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Permit(permit) => permit.number,
            Self::Removal(removal) => removal.number,
        }
    }

    #[must_use]
    pub fn rank(&self) -> Rank {
        let (created, uid) = self.origin();
        let (is_permit, removed) = match self {
            Self::Permit(_) => (true, UNIX_EPOCH),
            Self::Removal(removal) => (false, removal.at),
        };
        Rank { created, uid, is_permit, removed }
    }

    /// Whether both are of one permit, and not of two with one number.
    #[must_use]
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        self.origin() == other.origin()
    }

    fn origin(&self) -> (SystemTime, u64) {
        match self {
            Self::Permit(permit) => (permit.created, permit.uid.unwrap_or_default()),
            Self::Removal(removal) => (removal.created, removal.uid),
        }
    }

    /// Whether the permit is over, so that nothing follows from it or from its removal.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        let until = match self {
            Self::Permit(permit) => permit.until,
            Self::Removal(removal) => removal.until,
        };
        until.is_some_and(|until| until <= now)
    }

    /// At most [`LONGEST_TEXT`] octets.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let text = match self {
            Self::Permit(permit) => {
                let TemporaryPermit { number, uid, conditions, note, created, until, decision } = permit;
                let Conditions { client, domain, recipient, identity } = conditions;
                Text {
                    number: *number,
                    uid: uid.unwrap_or_default(),
                    created: milliseconds(*created),
                    until: until.map(milliseconds),
                    removed: None,
                    client: client.map(|network| network.to_string()),
                    domain: domain.as_ref().map(ToString::to_string),
                    recipient: recipient.as_ref().map(ToString::to_string),
                    identity: identity.map(|identity| identity.name().to_owned()),
                    note: note.clone(),
                    decision: decision.map(|id| id.to_string()),
                }
            }
            Self::Removal(Removal { number, uid, created, until, at }) => Text {
                number: *number,
                uid: *uid,
                created: milliseconds(*created),
                until: until.map(milliseconds),
                removed: Some(milliseconds(*at)),
                ..Text::default()
            },
        };
        serde_json::to_vec(&text).unwrap_or_default()
    }

    /// `None` for a text of a later version that this one doesn't understand.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let text: Text = serde_json::from_slice(text).ok()?;
        let Text { number, uid, created, until, removed, .. } = text;
        if number == 0 || number > LARGEST_NUMBER || i64::try_from(uid).is_err() {
            return None;
        }
        let created = time(created)?;
        let until = until.map(|until| time(until).ok_or(())).transpose().ok()?;
        if let Some(at) = removed {
            return Some(Self::Removal(Removal { number, uid, created, until, at: time(at)? }));
        }
        let Text { client, domain, recipient, identity, note, decision, .. } = text;
        let conditions = conditions(client, domain, recipient, identity).ok()?;
        if note.chars().count() > MOST_NOTE || note.contains(char::is_control) {
            return None;
        }
        let decision = decision.and_then(|id| Id::parse(&id));
        Some(Self::Permit(TemporaryPermit {
            number,
            uid: Some(uid),
            conditions,
            note,
            created,
            until,
            decision,
        }))
    }
}

/// As JSON; times are milliseconds since 1970.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Text {
    number: u64,
    uid: u64,
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<String>,
}

/// Conditions from their texts.
///
/// # Errors
/// What is wrong with them.
pub(super) fn conditions(
    client: Option<String>,
    domain: Option<String>,
    recipient: Option<String>,
    identity: Option<String>,
) -> Result<Conditions, String> {
    let named = |name: String| {
        let found = Identity::ALL.into_iter().find(|identity| identity.name() == name);
        found.ok_or_else(|| "is for no identity".to_owned())
    };
    let conditions = Conditions {
        client: client.map(|text| entry::network(&text)).transpose()?,
        domain: domain.map(|text| entry::pattern(&text)).transpose()?,
        recipient: recipient.map(|text| entry::recipient(&text)).transpose()?,
        identity: identity.map(named).transpose()?,
    };
    if conditions.is_empty() { Err("has no condition".to_owned()) } else { Ok(conditions) }
}

pub(super) fn milliseconds(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// `None` past the year 9999, which RFC 3339 can't write.
pub(super) fn time(milliseconds: u64) -> Option<SystemTime> {
    const END_OF_TIMES: Duration = Duration::from_secs(253_402_300_800);
    let since = Duration::from_millis(milliseconds);
    UNIX_EPOCH.checked_add(since).filter(|_| since < END_OF_TIMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit() -> TemporaryPermit {
        TemporaryPermit {
            number: 18,
            uid: Some(7),
            conditions: conditions(Some("192.0.2.0/24".to_owned()), None, None, None).unwrap(),
            note: String::new(),
            created: UNIX_EPOCH + Duration::from_millis(1000),
            until: None,
            decision: None,
        }
    }

    #[test]
    fn a_text_gives_the_same_entry_again() {
        let some = |text: &str| Some(text.to_owned());
        let all = conditions(some("2001:db8::/32"), some(".example.org"), some("U@here.test"), some("from"));
        let full = TemporaryPermit {
            conditions: all.unwrap(),
            note: "a \"note\" of <them>, für später".to_owned(),
            until: time(2_000_000_000_000),
            decision: Id::parse("4KXN7Q2M"),
            ..permit()
        };
        let removal = Removal::of(&full, UNIX_EPOCH + Duration::from_millis(5000)).unwrap();
        for entry in [Entry::Permit(permit()), Entry::Permit(full), Entry::Removal(removal)] {
            assert_eq!(Entry::read(&entry.text()), Some(entry));
        }
        assert_eq!(Removal::of(&TemporaryPermit { uid: None, ..permit() }, UNIX_EPOCH), None);
    }

    #[test]
    fn the_longest_is_within_the_bound() {
        let name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        let recipient = format!("\"{}\"@{name}", "\\\"".repeat(31));
        let some = |text: &str| Some(text.to_owned());
        let client = some("2001:db8:1111:2222:3333:4444:5555:6666");
        let found =
            conditions(client.clone(), some(&format!(".{name}")), some(&recipient), some("mail_from"));
        // Where addresses are bounded more tightly, the one of those that is allowed.
        let found = found.or_else(|_too_long| {
            conditions(client, some(&format!(".{name}")), some(&"u".repeat(64)), some("mail_from"))
        });
        let longest = TemporaryPermit {
            number: LARGEST_NUMBER,
            uid: Some(u64::MAX >> 1),
            conditions: found.unwrap(),
            note: "\u{10ffff}".repeat(MOST_NOTE),
            created: time(253_402_300_799_999).unwrap(),
            until: time(253_402_300_799_999),
            decision: Id::parse("4KXN7Q2M"),
        };
        let text = Entry::Permit(longest).text();
        assert!(text.len() > 1200 && text.len() <= LONGEST_TEXT, "{}", text.len());
    }

    #[test]
    fn what_is_no_entry_is_not_understood() {
        let good = r#"{"number":18,"uid":7,"created":1,"client":"192.0.2.0/24"}"#;
        assert!(Entry::read(good.as_bytes()).is_some());
        assert!(Entry::read(good.replace("\"uid\"", "\"later\":[1],\"uid\"").as_bytes()).is_some());
        for (from, to) in [
            ("18", "0"),
            ("18", "9007199254740992"),
            ("\"uid\":7", "\"uid\":9223372036854775808"),
            ("\"uid\":7,", ""),
            ("\"created\":1", "\"created\":253402300800000"),
            ("\"created\":1", "\"created\":1,\"until\":253402300800000"),
            ("\"created\":1", "\"created\":1,\"removed\":253402300800000"),
            ("client", "client_"),
            ("192.0.2.0/24", "192.0.2"),
            ("\"created\":1", "\"created\":1,\"identity\":\"cc\""),
            ("\"created\":1", "\"created\":1,\"note\":\"a\\nb\""),
            ("}", ""),
        ] {
            let text = good.replace(from, to);
            assert_eq!(Entry::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_lower_rank_is_the_removal_and_of_two_permits_the_first() {
        let first = Entry::Permit(permit());
        let removed =
            |at| Entry::Removal(Removal::of(&permit(), UNIX_EPOCH + Duration::from_secs(at)).unwrap());
        let later = Entry::Permit(TemporaryPermit {
            created: UNIX_EPOCH + Duration::from_secs(9),
            uid: Some(1),
            ..permit()
        });
        let same_time = Entry::Permit(TemporaryPermit { uid: Some(8), ..permit() });
        let order = [&removed(2), &removed(3), &first, &same_time, &later];
        assert!(order.is_sorted_by_key(|entry| entry.rank()));
        assert!(first.is_of_the_same(&removed(2)) && !first.is_of_the_same(&same_time));
    }
}

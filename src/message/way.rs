//! Signs in a header that a message came over a list or a forwarder.
//!
//! Anyone can write these fields, so that they prove nothing alone: they count together with an envelope that holds
//! (contract 3.3).

use crate::message::fields::{Item, items};
use crate::policy::authentication::WaySign;

/// Instances of ARC sets, from 1 (RFC 8617 4.2.1).
const MOST_INSTANCES: u8 = 50;

/// The signs of one header block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WaySigns {
    list_id: bool,
    list_post: bool,
    arc: bool,
}

impl WaySigns {
    /// Reads a header block: every line with its CRLF.
    #[must_use]
    pub fn read(block: &[u8]) -> Self {
        let mut signs = Self::default();
        // For each of the three fields of an ARC set: the instances that it occurs with, one bit for each.
        let mut arc = [0_u64; 3];
        for item in items(block) {
            let Item::Field { name, value, .. } = item else { continue };
            let [seal, signature, results] = &mut arc;
            let instances = match name.to_ascii_lowercase().as_slice() {
                b"list-id" => {
                    signs.list_id |= !value.trim_ascii().is_empty();
                    continue;
                }
                b"list-post" => {
                    signs.list_post |= !value.trim_ascii().is_empty();
                    continue;
                }
                b"arc-seal" => seal,
                b"arc-message-signature" => signature,
                b"arc-authentication-results" => results,
                _ => continue,
            };
            *instances |= instance(value).map_or(0, |instance| 1 << instance);
        }
        signs.arc = arc.into_iter().fold(u64::MAX, |all, one| all & one) != 0;
        signs
    }

    /// The first one, in the order of [`WaySign::ALL`].
    #[must_use]
    pub fn first(self) -> Option<WaySign> {
        let found =
            [(self.list_id, WaySign::ListId), (self.list_post, WaySign::ListPost), (self.arc, WaySign::Arc)];
        found.into_iter().find_map(|(there, sign)| there.then_some(sign))
    }
}

/// `i=` of an ARC field, 1 to 50; the tag stands anywhere in `ARC-Seal:` and `ARC-Message-Signature:`.
fn instance(value: &[u8]) -> Option<u8> {
    let tag = value.split(|&byte| byte == b';').find_map(|tag| {
        let (name, number) = tag.split_at_checked(tag.iter().position(|&byte| byte == b'=')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"i").then_some(number.get(1..)?.trim_ascii())
    })?;
    let number: u8 = std::str::from_utf8(tag).ok()?.parse().ok()?;
    (1..=MOST_INSTANCES).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_whole_arc_sets_are_signs() {
        let seal = "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=f.test; s=s; b=x\r\n";
        let signature = "arc-message-signature: a=rsa-sha256;\r\n i = 1 ; d=f.test; b=x\r\n";
        let results = "ARC-Authentication-Results: i=1; f.test; spf=pass\r\n";
        let rows: [(String, Option<WaySign>); 15] = [
            ("From: a@b.test\r\n".into(), None),
            ("List-Id: dev <dev.l.test>\r\n".into(), Some(WaySign::ListId)),
            ("LIST-ID:<dev.l.test>\r\n".into(), Some(WaySign::ListId)),
            ("List-Id: \r\n".into(), None),
            ("List-Id: \r\n\t\r\n".into(), None),
            ("List-Post: <mailto:dev@l.test>\r\n".into(), Some(WaySign::ListPost)),
            ("List-Post: NO\r\nList-Id: x\r\n".into(), Some(WaySign::ListId)),
            ("List-Unsubscribe: <mailto:u@l.test>\r\n".into(), None),
            ("Subject: x\r\n List-Id: dev\r\n".into(), None),
            ([seal, signature, results].concat(), Some(WaySign::Arc)),
            ([seal, signature].concat(), None),
            ([seal, results].concat(), None),
            ([&seal.replace("i=1", "i=2"), signature, results].concat(), None),
            ([seal, signature, &results.replace("i=1", "i=51")].concat(), None),
            ([seal, signature, &results.replace("i=1", "i=0")].concat(), None),
        ];
        for (block, expected) in rows {
            assert_eq!(WaySigns::read(block.as_bytes()).first(), expected, "{block:?}");
        }
    }
}

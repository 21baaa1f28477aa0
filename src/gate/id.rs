//! Names for transactions: short enough to be read out on the telephone, unique for as long as logs are kept.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Base 32 without letters that look like digits (Crockford's).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 8 characters of 5 bits.
const BITS: u32 = 40;
const MASK: u64 = (1 << BITS) - 1;
/// Odd, so that multiplication modulo 2^40 is one to one: neighbours in time don't look alike.
const SPREAD: u64 = 0x9E_3779_B97F | 1;

/// The id of one transaction, in the reply, the log and (as Received `id`) the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id([u8; 8]);

impl Id {
    /// Its eight characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The next id: one sequence for the process, as several gates of it write one log. A process started later goes on
/// behind those of an earlier one (up to 1000 ids a second).
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AtomicU64::new(u64::try_from(since.as_millis()).unwrap_or_default())
});

/// Gives ids, each once.
#[derive(Debug)]
pub(super) struct Ids(&'static AtomicU64);

impl Ids {
    pub(super) fn new() -> Self {
        Self(&NEXT)
    }

    pub(super) fn next(&self) -> Id {
        let mut rest = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(SPREAD) & MASK;
        let mut text = [b'0'; 8];
        for place in text.iter_mut().rev() {
            let digit = usize::try_from(rest % 32).unwrap_or_default();
            *place = ALPHABET.get(digit).copied().unwrap_or(b'0');
            rest /= 32;
        }
        Id(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_and_of_eight_readable_characters() {
        let gates = [Ids::new(), Ids::new()];
        let given: HashSet<Id> = (0..50_000).flat_map(|_| gates.each_ref().map(Ids::next)).collect();
        assert_eq!(given.len(), 100_000);
        assert!(given.iter().all(|id| id.as_str().bytes().all(|byte| ALPHABET.contains(&byte))));
    }
}

//! The state of a triple: it waits, or it has passed. Times are milliseconds since 1970.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The first attempt was at this time, from this network.
    Waiting { since: u64, network: u32 },
    /// The last attempt was at this time.
    Passed { last: u64 },
}

impl State {
    pub(super) fn time(self) -> u64 {
        match self {
            Self::Waiting { since, .. } => since,
            Self::Passed { last } => last,
        }
    }

    pub(super) fn is_expired(self, now: u64, expire: u64) -> bool {
        now.saturating_sub(self.time()) >= expire
    }
}

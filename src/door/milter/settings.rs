//! What the milter door does beside judging (`[milter]`).

/// The settings of the milter door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub results: Results,
}

/// What becomes of `Authentication-Results` fields (RFC 8601) with our name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// Forged ones are removed, ours is added.
    Add,
    /// Forged ones are removed.
    Remove,
    /// The header stays as it is.
    Keep,
}

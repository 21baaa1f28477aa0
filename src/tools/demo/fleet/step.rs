//! What a step of the tour showed, and whether it is as expected.

/// One line of what was sent, answered, held or logged.
#[derive(Debug)]
pub(super) struct Frame {
    /// `client`, `gate 1`, `Redis`.
    pub(super) from: String,
    /// Such as `sends`, `replies`.
    pub(super) what: &'static str,
    /// Several lines are separated by LF.
    pub(super) text: String,
}

/// The result that counts.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) expected: String,
    pub(super) seen: String,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What is to be seen.
    pub(super) note: &'static str,
    pub(super) frames: Vec<Frame>,
    pub(super) checks: Vec<Check>,
    /// It broke.
    pub(super) error: Option<String>,
}

impl Step {
    pub(super) fn new(name: &'static str, title: &'static str, note: &'static str) -> Self {
        Self { name, title, note, frames: Vec::new(), checks: Vec::new(), error: None }
    }

    pub(super) fn show(&mut self, from: impl Into<String>, what: &'static str, text: impl Into<String>) {
        self.frames.push(Frame { from: from.into(), what, text: text.into() });
    }

    pub(super) fn check(&mut self, expected: impl Into<String>, seen: impl Into<String>) {
        self.checks.push(Check { expected: expected.into(), seen: seen.into() });
    }

    pub(super) fn is_wrong(&self) -> bool {
        self.error.is_some() || self.checks.is_empty() || self.checks.iter().any(Check::is_wrong)
    }
}

impl Check {
    pub(super) fn is_wrong(&self) -> bool {
        self.expected != self.seen
    }
}

//! Colour on a terminal, for tables with verdicts.

use std::io::{self, IsTerminal};

use crate::audit;

pub(crate) const RIGHT: char = audit::RIGHT;
pub(crate) const WRONG: char = audit::WRONG;

/// A colour of a verdict or a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Green = 32,
    Red = 31,
    Yellow = 33,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Colour(bool);

impl Colour {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(false);

    /// On a terminal, unless NO_COLOR is set (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        if self.0 { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn paint(self, text: &str, paint: Paint) -> String {
        if self.0 { format!("\x1b[{}m{text}\x1b[0m", paint as u8) } else { text.to_owned() }
    }

    /// Colours verdicts, which a mark precedes. Replies are ASCII, so they can't contain a mark.
    pub(crate) fn verdicts(self, line: &str) -> String {
        if !self.0 {
            return line.to_owned();
        }
        let mut line = line.replace(WRONG, &format!("\x1b[1;31m{WRONG}\x1b[0m"));
        for (verdict, paint) in [("accept", 32), ("all as expected", 32), ("reject", 31), ("defer", 33)] {
            let plain = format!("{RIGHT} {verdict}");
            line = line.replace(&plain, &format!("\x1b[{paint}m{plain}\x1b[0m"));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verdicts_are_coloured_and_only_when_wanted() {
        let line = "✓ reject at RCPT  550 reject";
        assert_eq!(Colour(false).verdicts(line), line);
        assert_eq!(Colour(true).verdicts(line), "\x1b[31m✓ reject\x1b[0m at RCPT  550 reject");
    }
}

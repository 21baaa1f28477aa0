//! A problem of the configuration and its origin.

use std::fmt;
use std::path::PathBuf;

use crate::smtp::escape::OneLine;

/// The origin of a value; later variants override earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        /// Line and column, from 1; `None` for the file as a whole.
        position: Option<(usize, usize)>,
    },
    /// The name of the variable.
    Environment(String),
    /// The name of the flag.
    Flag(String),
}

impl Origin {
    /// The source without a position: `default`, the file's path, the name of the variable or flag.
    #[must_use]
    pub fn source(&self) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
            Self::Environment(name) | Self::Flag(name) => name.clone(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { path, position: Some((line, column)) } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::File { path, position: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Shown as one line with the origin, the key, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub origin: Origin,
    /// With its tables, as in `policy.helo.matches`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, what } = self;
        write!(f, "{}: ", OneLine(origin))?;
        if !key.is_empty() {
            write!(f, "{}: ", OneLine(key))?;
        }
        write!(f, "{}", OneLine(what))
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn either<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

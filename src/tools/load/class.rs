//! The classes of senders, and the expected verdict of each.
//!
//! All senders of a class have the same expected verdict, whatever the policy. For the classes whose verdict depends on the
//! policy (`foreign`, `badhelo`), options set it.

use std::fmt;

use crate::policy::decide::Verdict;
use crate::smtp::reply::Enhanced;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Class {
    Clean,
    Spoofed,
    NoMx,
    NullMx,
    Foreign,
    BadHelo,
    BadFrom,
    ServFail,
}

impl Class {
    pub(super) const ALL: [Self; 8] = [
        Self::Clean,
        Self::Spoofed,
        Self::NoMx,
        Self::NullMx,
        Self::Foreign,
        Self::BadHelo,
        Self::BadFrom,
        Self::ServFail,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Spoofed => "spoofed",
            Self::NoMx => "nomx",
            Self::NullMx => "nullmx",
            Self::Foreign => "foreign",
            Self::BadHelo => "badhelo",
            Self::BadFrom => "badfrom",
            Self::ServFail => "servfail",
        }
    }

    /// # Errors
    /// What is allowed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|class| class.name()).collect();
            format!("{text:?} is not a class of senders; allowed are {}", names.join(", "))
        })
    }

    /// With the built-in configuration of rmxd.
    pub(super) fn by_default(self) -> Expected {
        let verdict = match self {
            Self::Clean | Self::Foreign | Self::BadHelo => Verdict::Accept,
            Self::Spoofed | Self::NoMx | Self::NullMx | Self::BadFrom => Verdict::Reject,
            Self::ServFail => Verdict::Defer,
        };
        Expected { verdict, enhanced: None }
    }

    /// With the strict daemon of `--self`, including the enhanced status code of its reply.
    pub(super) fn by_own_daemon(self) -> Expected {
        let (verdict, enhanced) = match self {
            Self::Clean => (Verdict::Accept, None),
            Self::Spoofed | Self::NoMx => (Verdict::Reject, Some(Enhanced(5, 1, 8))),
            Self::NullMx => (Verdict::Reject, Some(Enhanced(5, 7, 27))),
            Self::Foreign | Self::BadHelo | Self::BadFrom => (Verdict::Reject, Some(Enhanced(5, 7, 1))),
            Self::ServFail => (Verdict::Defer, Some(Enhanced(4, 4, 3))),
        };
        Expected { verdict, enhanced }
    }
}

/// The expected reply to a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) verdict: Verdict,
    /// `None`: any code.
    pub(super) enhanced: Option<Enhanced>,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.name())?;
        self.enhanced.map_or(Ok(()), |enhanced| write!(f, " {enhanced}"))
    }
}

/// One value for each class.
#[derive(Debug, Clone, Default)]
pub(super) struct PerClass<T>([T; 8]);

impl<T> PerClass<T> {
    pub(super) fn new(value: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(value))
    }

    pub(super) fn of(&self, class: Class) -> &T {
        let [clean, spoofed, no_mx, null_mx, foreign, bad_helo, bad_from, serv_fail] = &self.0;
        match class {
            Class::Clean => clean,
            Class::Spoofed => spoofed,
            Class::NoMx => no_mx,
            Class::NullMx => null_mx,
            Class::Foreign => foreign,
            Class::BadHelo => bad_helo,
            Class::BadFrom => bad_from,
            Class::ServFail => serv_fail,
        }
    }

    pub(super) fn of_mut(&mut self, class: Class) -> &mut T {
        let [clean, spoofed, no_mx, null_mx, foreign, bad_helo, bad_from, serv_fail] = &mut self.0;
        match class {
            Class::Clean => clean,
            Class::Spoofed => spoofed,
            Class::NoMx => no_mx,
            Class::NullMx => null_mx,
            Class::Foreign => foreign,
            Class::BadHelo => bad_helo,
            Class::BadFrom => bad_from,
            Class::ServFail => serv_fail,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Class, &T)> {
        Class::ALL.into_iter().zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_their_class_and_others_are_errors_with_what_is_allowed() {
        for class in Class::ALL {
            assert_eq!(Class::parse(class.name()), Ok(class));
        }
        let error = Class::parse("spam").unwrap_err();
        assert!(
            error.starts_with("\"spam\" is not a class of senders; allowed are clean, spoofed,"),
            "{error}"
        );
    }

    #[test]
    fn each_class_has_a_value_of_its_own() {
        let mut values = PerClass::new(Class::name);
        for class in Class::ALL {
            assert_eq!(*values.of(class), class.name());
            *values.of_mut(class) = "taken";
        }
        assert!(values.iter().all(|(_, value)| *value == "taken"));
    }
}

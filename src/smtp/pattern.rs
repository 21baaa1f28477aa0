//! Domains in lists of the configuration: `example.com`, or `.example.com` for it and all names below.

use std::fmt;

use crate::smtp::address::{AddressError, DomainName};

/// One entry of `relay.domains` or `exempt.domains`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPattern {
    name: DomainName,
    below: bool,
}

impl DomainPattern {
    /// Reads `example.com` (that name only) or `.example.com` (it and its subdomains); U-labels are converted.
    ///
    /// # Errors
    /// [`AddressError::Domain`] if it is no domain name.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (text, below) = text.strip_prefix('.').map_or((text, false), |rest| (rest, true));
        Ok(Self { name: DomainName::parse_unicode(text)?, below })
    }

    /// This name only.
    #[must_use]
    pub fn exactly(name: DomainName) -> Self {
        Self { name, below: false }
    }

    /// The name itself, also of a pattern that covers the names below.
    #[must_use]
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// Whether the pattern covers the names below, too.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.below
    }

    #[must_use]
    pub fn covers(&self, name: &DomainName) -> bool {
        if self.below { name.is_at_or_below(&self.name) } else { *name == self.name }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_dot_covers_all_names_below() {
        let name = |text| DomainName::parse(text).unwrap();
        let exact = DomainPattern::parse("Example.com").unwrap();
        let wide = DomainPattern::parse(".example.com").unwrap();
        assert!(exact.covers(&name("example.com")) && !exact.covers(&name("a.example.com")));
        assert!(wide.covers(&name("example.com")) && wide.covers(&name("a.b.example.com")));
        assert!(!wide.covers(&name("badexample.com")));
        assert!(DomainPattern::parse("*.example.com").is_err());
    }
}

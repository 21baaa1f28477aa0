//! The SMTP dialogue, pure: one event in, one effect out.

use crate::smtp::address::DomainName;

/// What the dialogue needs of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our own name: banner and EHLO.
    pub hostname: DomainName,
    /// Largest message in octets, for SIZE (RFC 1870).
    pub message: u64,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Errors before 421.
    pub errors: usize,
}

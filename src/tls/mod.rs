//! TLS for STARTTLS (RFC 3207), with clients and with the relay: the only place that names rustls.
//!
//! [`Stream`] is a connection that begins in plain text and may become TLS once, never back. [`Acceptor`] has our
//! certificate and follows its files as they change. TLS 1.2 and 1.3 are offered with rustls's own choice of ciphers,
//! nothing older. No certificate of a peer is checked: a client's doesn't vouch for its mail, and for the relay no key
//! names trusted roots. So TLS protects against eavesdroppers, not against an impostor in the relay's
//! place.

mod acceptor;
mod certificate;
mod connector;
mod leaf;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, CommonState, ProtocolVersion};

use crate::metrics::TlsVersion;
use crate::smtp::address::DomainName;
pub use crate::tls::acceptor::{Acceptor, CertificateState, Handshakes};
pub use crate::tls::certificate::LoadError;
pub use crate::tls::leaf::Leaf;
pub use crate::tls::stream::Stream;

/// `[tls]`: where our certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// PEM: our certificate first, then the intermediates up to a root.
    pub certificate: PathBuf,
    /// PEM: its private key, not encrypted.
    pub key: PathBuf,
    /// `hostname`: the name that the certificate should have.
    pub hostname: DomainName,
}

/// What a handshake agreed on; shown as `TLSv1.3 with cipher TLS_AES_256_GCM_SHA384`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    version: ProtocolVersion,
    cipher: CipherSuite,
}

impl Negotiated {
    fn of(state: &CommonState) -> Option<Self> {
        let cipher = state.negotiated_cipher_suite()?.suite();
        Some(Self { version: state.protocol_version()?, cipher })
    }

    /// Only these two are offered.
    #[must_use]
    pub fn version(self) -> TlsVersion {
        if self.version == ProtocolVersion::TLSv1_2 { TlsVersion::V1_2 } else { TlsVersion::V1_3 }
    }
}

impl fmt::Display for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // IANA's names have no version in them; rustls's names for TLS 1.3 have one.
        let cipher = self.cipher.as_str().unwrap_or("unknown");
        let (prefix, cipher) = cipher.strip_prefix("TLS13_").map_or(("", cipher), |rest| ("TLS_", rest));
        write!(f, "{} with cipher {prefix}{cipher}", self.version().name())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

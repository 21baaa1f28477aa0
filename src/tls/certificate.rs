//! Our certificate and its key, read from PEM files and checked to belong together.
//!
//! Nothing is repaired or guessed. Files that can't serve a handshake are refused here; the error names the
//! configuration key, the file and the fault.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use crate::tls::{Settings, provider};

/// Why the files can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {}: {what}", path.display())]
pub struct LoadError {
    key: &'static str,
    path: PathBuf,
    what: String,
}

pub(super) fn load(settings: &Settings) -> Result<CertifiedKey, LoadError> {
    let in_certificate = |what| error("tls.certificate", &settings.certificate, what);
    let in_key = |what| error("tls.key", &settings.key, what);

    let text = fs::read(&settings.certificate).map_err(|error| in_certificate(unreadable(&error)))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| in_certificate(not_pem(&error)))?;
    if chain.is_empty() {
        return Err(in_certificate("holds no certificate in PEM".to_owned()));
    }
    let text = fs::read(&settings.key).map_err(|error| in_key(unreadable(&error)))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => in_key("holds no private key in PEM, or an encrypted one".to_owned()),
        other => in_key(not_pem(&other)),
    })?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| {
        in_key(format!(
            "not a key that can be used (RSA from 2048 bits, ECDSA P-256 or P-384, Ed25519): {error}"
        ))
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(in_key(format!("is not the key of the certificate in {}", settings.certificate.display())))
        }
        Err(error) => Err(in_certificate(format!("the first certificate can't be used: {error}"))),
    }
}

pub(super) fn error(key: &'static str, path: &Path, what: String) -> LoadError {
    LoadError { key, path: path.to_owned(), what }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("can't be read: {error}")
}

fn not_pem(error: &pem::Error) -> String {
    format!("is not PEM: {error}")
}

/// The state of both files; it differs after they are written in place, renamed or linked anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<[i128; 7]>; 2]);

impl Fingerprint {
    pub(super) fn of(settings: &Settings) -> Self {
        Self([&settings.certificate, &settings.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some([
                meta.dev().into(),
                meta.ino().into(),
                meta.size().into(),
                meta.mtime().into(),
                meta.mtime_nsec().into(),
                meta.ctime().into(),
                meta.ctime_nsec().into(),
            ])
        }))
    }
}

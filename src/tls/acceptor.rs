//! The server's side of a handshake with a client, with a certificate that follows its files.
//!
//! A handshake checks the files, at most once a second, so that a renewed certificate needs no reload of the daemon.
//! Files that can't be used (half of a renewal, a wrong key) change nothing: the log has one line, and the old
//! certificate stays in use.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Metrics;
use crate::tls::certificate::{self, Fingerprint, LoadError};
use crate::tls::leaf::Leaf;
use crate::tls::{Negotiated, Settings, provider};

/// Least time between two checks of the files.
const LOOK: Duration = Duration::from_secs(1);

/// Turns a client's connection into TLS. Cheap to clone; all clones share the certificate and the counts.
#[derive(Debug, Clone)]
pub struct Acceptor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    config: Arc<ServerConfig>,
    certificate: Arc<Current>,
    files: Mutex<Fingerprint>,
    looked: Mutex<Instant>,
    /// Why the files, as they are now, can't be used.
    refused: Mutex<Option<LoadError>>,
    counts: Arc<Counts>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
}

/// Handshakes since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshakes {
    /// Handshakes that succeeded.
    pub done: u64,
    /// Handshakes that failed or were dropped.
    pub failed: u64,
}

/// The certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateState {
    /// `tls.certificate`.
    pub path: PathBuf,
    /// `None` for one that can't be read.
    pub leaf: Option<Leaf>,
    /// What is wrong with it, a sentence each that begins with the key and the file.
    pub faults: Vec<String>,
}

impl Acceptor {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// The configuration key, the file and the fault.
    pub fn load(settings: Settings) -> Result<Self, LoadError> {
        Self::with_metrics(settings, Metrics::default())
    }

    /// The same, counting its sessions in `metrics`.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn with_metrics(settings: Settings, metrics: Metrics) -> Result<Self, LoadError> {
        Self::counting(settings, Arc::default(), metrics)
    }

    /// An acceptor with other settings that goes on with the same counts. The files are read anew.
    ///
    /// # Errors
    /// As for [`Self::load`]; `self` stays as it was.
    pub fn with_settings(&self, settings: Settings) -> Result<Self, LoadError> {
        Self::counting(settings, Arc::clone(&self.inner.counts), self.inner.metrics.clone())
    }

    fn counting(settings: Settings, counts: Arc<Counts>, metrics: Metrics) -> Result<Self, LoadError> {
        let files = Mutex::new(Fingerprint::of(&settings));
        let certificate = Arc::new(Current(RwLock::new(Arc::new(certificate::load(&settings)?))));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder =
            builder.map_err(|error| certificate::error("tls", Path::new("rustls"), error.to_string()))?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&certificate) as _;
        let config = Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver));
        let looked = Mutex::new(Instant::now());
        let refused = Mutex::new(None);
        let inner = Inner { settings, config, certificate, files, looked, refused, counts, metrics };
        Ok(Self { inner: Arc::new(inner) })
    }

    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Handshakes { done: count(&self.inner.counts.done), failed: count(&self.inner.counts.failed) }
    }

    /// The certificate in use, with what is wrong with it at `now`.
    #[must_use]
    pub fn certificate(&self, now: SystemTime) -> CertificateState {
        self.inner.state(now)
    }

    /// Writes a warning into the log for each fault of the certificate.
    pub fn warn(&self) {
        for fault in self.certificate(SystemTime::now()).faults {
            tracing::warn!(target: "rmxd::tls", "{fault}");
        }
    }

    /// The handshake has no time limit of its own; dropping the future breaks it off.
    pub(super) async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let counted = Counted { counts: &self.inner.counts, done: false };
        self.look().await;
        let stream = TlsAcceptor::from(Arc::clone(&self.inner.config)).accept(stream).await?;
        counted.done();
        if let Some(negotiated) = Negotiated::of(stream.get_ref().1) {
            self.inner.metrics.tls_session(negotiated.version());
        }
        Ok(stream)
    }

    /// Loads changed files, at most once a second. Handshakes do it too, and others don't wait for it: they use the old
    /// certificate.
    pub async fn look(&self) {
        {
            let mut looked = self.inner.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < LOOK {
                return;
            }
            *looked = Instant::now();
        }
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.refresh()).await {
            Ok(false) => {}
            Ok(true) => self.warn(),
            Err(error) => {
                tracing::error!(target: "rmxd::tls", %error, "the certificate files were not looked at");
            }
        }
    }
}

impl Inner {
    /// Loads changed files; whether another certificate is in use now.
    fn refresh(&self) -> bool {
        // Taken before the files are read: the next check finds a change that comes meanwhile.
        let found = Fingerprint::of(&self.settings);
        let known = {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *files, found.clone())
        };
        if known == found {
            return false;
        }
        match certificate::load(&self.settings) {
            Ok(certificate) => {
                self.certificate.replace(certificate);
                *self.refused() = None;
                tracing::info!(target: "rmxd::tls", certificate = %self.settings.certificate.display(),
                    "a new certificate is in use");
                true
            }
            Err(error) => {
                tracing::error!(target: "rmxd::tls", %error,
                    "the certificate files have changed but can't be used; the old certificate stays in use");
                *self.refused() = Some(error);
                false
            }
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<LoadError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, now: SystemTime) -> CertificateState {
        let path = &self.settings.certificate;
        let about = |what: &dyn Display| format!("tls.certificate {} {what}", path.display());
        let (leaf, mut faults) = match self.certificate.leaf() {
            Ok(leaf) => {
                let faults = leaf.faults(&self.settings.hostname, now);
                (Some(leaf), faults.iter().map(|fault| about(fault)).collect())
            }
            Err(what) => (None, vec![about(&format_args!("can't be checked for dates and names: {what}"))]),
        };
        let refused = self.refused();
        let not_taken = refused.iter();
        faults.extend(not_taken.map(|error| format!("{error}: the old certificate stays in use")));
        CertificateState { path: path.clone(), leaf, faults }
    }
}

/// A handshake that counts as failed unless [`Self::done`] is called, also when it is dropped.
struct Counted<'a> {
    counts: &'a Counts,
    done: bool,
}

impl Counted<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let count = if self.done { &self.counts.done } else { &self.counts.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The certificate in use. There is only one, so the name that the client asks for (SNI) doesn't matter.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn replace(&self, certificate: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }

    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn leaf(&self) -> Result<Leaf, String> {
        let certified = self.get();
        Leaf::read(certified.end_entity_cert().map_err(|error| error.to_string())?)
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

//! Handshakes over an in-memory pipe, with certificates made for the test.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Duration, advance};
use tokio_rustls::TlsConnector;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What this thread logs.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Warnings and errors of this thread, as long as the guard lives.
pub(crate) fn warnings() -> (Lines, tracing::subscriber::DefaultGuard) {
    logged(tracing::Level::WARN)
}

/// What this thread logs, from this level up.
pub(crate) fn logged(level: tracing::Level) -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
    let subscriber = subscriber.with_writer(move || sink.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

/// A certificate for `gate.test` with its key, in files.
pub(crate) struct Files {
    _folder: TempDir,
    pub(crate) settings: Settings,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            hostname: DomainName::parse("gate.test").unwrap(),
        };
        let files = Self { _folder: folder, settings };
        files.renew();
        files
    }

    /// Writes another pair and returns its certificate.
    pub(crate) fn renew(&self) -> Vec<u8> {
        self.write(&pair())
    }

    /// The same of a certificate that began 90 days ago and expires in so many days.
    pub(crate) fn renew_until(&self, days: u32) {
        let mut parameters = CertificateParams::new(["gate.test".to_owned()]).unwrap();
        let now = SystemTime::now();
        parameters.not_before = (now - 90 * DAY).into();
        parameters.not_after = (now + days * DAY).into();
        let signing_key = KeyPair::generate().unwrap();
        let cert = parameters.self_signed(&signing_key).unwrap();
        self.write(&CertifiedKey { cert, signing_key });
    }

    fn write(&self, pair: &CertifiedKey<KeyPair>) -> Vec<u8> {
        fs::write(&self.settings.certificate, pair.cert.pem()).unwrap();
        fs::write(&self.settings.key, pair.signing_key.serialize_pem()).unwrap();
        pair.cert.der().to_vec()
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        Acceptor::load(self.settings.clone()).unwrap()
    }
}

fn pair() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["gate.test".to_owned()]).unwrap()
}

/// Both ends of a connection after the handshake.
async fn secured(acceptor: &Acceptor) -> (Stream<DuplexStream>, Stream<DuplexStream>) {
    let (near, far) = duplex(64 * 1024);
    let (mut client, mut server) = (Stream::Plain(near), Stream::Plain(far));
    let (connected, accepted) =
        tokio::join!(client.connect("gate.test", [127, 0, 0, 1].into()), server.accept(acceptor));
    connected.unwrap();
    accepted.unwrap();
    (client, server)
}

/// The certificate that a new client receives.
async fn shown(acceptor: &Acceptor) -> Vec<u8> {
    let (Stream::Tls(client), _server) = secured(acceptor).await else { panic!("not TLS") };
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_versions_are_supported_and_named() {
    let files = Files::new();
    let acceptor = files.acceptor();
    let mut roots = RootCertStore::empty();
    roots.add(shown(&acceptor).await.into()).unwrap();
    let rows: [(&SupportedProtocolVersion, &str); 2] = [
        (&rustls::version::TLS12, "TLSv1.2 with cipher TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (&rustls::version::TLS13, "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384"),
    ];
    for (version, expected) in rows {
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let config = config.unwrap().with_root_certificates(roots.clone()).with_no_client_auth();
        let (near, far) = duplex(64 * 1024);
        let mut server = Stream::Plain(far);
        let name = ServerName::try_from("gate.test").unwrap();
        let (client, accepted) =
            tokio::join!(TlsConnector::from(Arc::new(config)).connect(name, near), server.accept(&acceptor));
        accepted.unwrap();
        assert_eq!(server.negotiated().unwrap().to_string(), expected);

        let mut client = client.unwrap();
        server.write_all(b"220 ok\r\n").await.unwrap();
        server.flush().await.unwrap();
        let mut heard = [0; 8];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"220 ok\r\n");
    }
    assert_eq!(acceptor.handshakes(), Handshakes { done: 3, failed: 0 });
    let changed = acceptor.with_settings(files.settings.clone()).unwrap();
    assert_eq!(changed.handshakes(), Handshakes { done: 3, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn new_handshakes_see_a_renewed_certificate() {
    let files = Files::new();
    let acceptor = files.acceptor();
    let first = shown(&acceptor).await;
    let second = files.renew();
    assert_eq!(shown(&acceptor).await, first, "the files are looked at once a second at most");
    advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&acceptor).await, second);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_certificate_in_use_is_known() {
    let (log, _guard) = warnings();
    let files = Files::new();
    let path = files.settings.certificate.display();
    let acceptor = files.acceptor();
    let faults = |acceptor: &Acceptor| acceptor.certificate(SystemTime::now()).faults;
    assert_eq!(faults(&acceptor), Vec::<String>::new());
    acceptor.warn();
    assert_eq!(log.text(), "");

    files.renew_until(10);
    let about = |fault: &str| format!("tls.certificate {path} {fault}");
    advance(Duration::from_secs(1)).await;
    secured(&acceptor).await;
    let expires = humantime::format_rfc3339_seconds(SystemTime::now() + 10 * DAY).to_string();
    let expires = expires.split_once('T').unwrap().0;
    assert_eq!(faults(&acceptor), [about(&format!("expires in 9 days ({expires}): renew it"))]);
    assert_eq!(log.text().matches("expires in 9 days").count(), 1, "{}", log.text());

    fs::write(&files.settings.key, "").unwrap();
    advance(Duration::from_secs(1)).await;
    secured(&acceptor).await;
    let [_, refused] = &faults(&acceptor)[..] else { panic!("{:?}", faults(&acceptor)) };
    let expected = "or an encrypted one: the old certificate stays in use";
    assert!(refused.starts_with("tls.key: ") && refused.ends_with(expected), "{refused}");
    files.renew();
    advance(Duration::from_secs(1)).await;
    secured(&acceptor).await;
    assert_eq!(faults(&acceptor), Vec::<String>::new());

    let hostname = DomainName::parse("mx.example.com").unwrap();
    let other = acceptor.with_settings(Settings { hostname, ..files.settings.clone() }).unwrap();
    let [fault] = &faults(&other)[..] else { panic!("{:?}", faults(&other)) };
    assert!(fault.contains("isn't for hostname mx.example.com but for gate.test: "), "{fault}");
}

/// certbot renews a certificate in this way.
#[tokio::test(start_paused = true)]
async fn a_certificate_renewed_by_changing_links_is_seen() {
    let (old, new, files) = (Files::new(), Files::new(), Files::new());
    let link = |to: &Files| {
        for (target, name) in
            [(&to.settings.certificate, &files.settings.certificate), (&to.settings.key, &files.settings.key)]
        {
            fs::remove_file(name).unwrap();
            std::os::unix::fs::symlink(target, name).unwrap();
        }
    };
    link(&old);
    let acceptor = files.acceptor();
    assert_eq!(shown(&acceptor).await, shown(&old.acceptor()).await);
    link(&new);
    advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&acceptor).await, shown(&new.acceptor()).await);
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_used_leave_the_old_certificate_in_use() {
    let files = Files::new();
    let acceptor = files.acceptor();
    let first = shown(&acceptor).await;
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::write(&files.settings.certificate, pair().cert.pem()).unwrap(),
        &|| fs::write(&files.settings.key, "").unwrap(),
        &|| fs::remove_file(&files.settings.key).unwrap(),
        &|| fs::remove_file(&files.settings.certificate).unwrap(),
    ];
    for (at, spoil) in spoil.iter().enumerate() {
        spoil();
        advance(Duration::from_secs(1)).await;
        assert_eq!(shown(&acceptor).await, first, "{at}");
    }
    let second = files.renew();
    advance(Duration::from_secs(1)).await;
    assert_eq!(shown(&acceptor).await, second);
}

#[test]
fn errors_of_the_files_name_the_key_and_the_file() {
    let files = Files::new();
    let Settings { certificate, key, .. } = &files.settings;
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let (good_certificate, good_key) = (text(certificate), text(key));
    let garbage = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let other_key = pair().signing_key.serialize_pem();
    let rows: [(&str, &str, &str); 8] = [
        ("", &good_key, "tls.certificate: CERT: holds no certificate in PEM"),
        (&good_key, &good_key, "tls.certificate: CERT: holds no certificate in PEM"),
        (
            &garbage("CERTIFICATE"),
            &good_key,
            "tls.certificate: CERT: the first certificate can't be used: invalid peer certificate: BadEncoding",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", &good_key, "tls.certificate: CERT: is not PEM: "),
        (&good_certificate, "", "tls.key: KEY: holds no private key in PEM, or an encrypted one"),
        (
            &good_certificate,
            &garbage("ENCRYPTED PRIVATE KEY"),
            "tls.key: KEY: holds no private key in PEM, or an encrypted one",
        ),
        (&good_certificate, &garbage("PRIVATE KEY"), "tls.key: KEY: not a key that can be used (RSA from "),
        (&good_certificate, &other_key, "tls.key: KEY: is not the key of the certificate in CERT"),
    ];
    let error = || {
        let error = Acceptor::load(files.settings.clone()).unwrap_err().to_string();
        error.replace(&certificate.display().to_string(), "CERT").replace(&key.display().to_string(), "KEY")
    };
    for (certificate_text, key_text, expected) in rows {
        fs::write(certificate, certificate_text).unwrap();
        fs::write(key, key_text).unwrap();
        assert!(error().starts_with(expected), "{}\nnot {expected}", error());
    }
    fs::write(certificate, &good_certificate).unwrap();
    fs::remove_file(key).unwrap();
    assert_eq!(error(), "tls.key: KEY: can't be read: No such file or directory (os error 2)");
    fs::remove_file(certificate).unwrap();
    fs::create_dir(certificate).unwrap();
    assert_eq!(error(), "tls.certificate: CERT: can't be read: Is a directory (os error 21)");
}

#[tokio::test]
async fn a_stream_is_useless_after_a_failed_handshake() {
    let files = Files::new();
    let acceptor = files.acceptor();
    for garbage in
        [&b"EHLO c.test\r\nMAIL FROM:<u@good.test>\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[0; 600], b""]
    {
        let (mut client, far) = duplex(64 * 1024);
        let mut server = Stream::Plain(far);
        client.write_all(garbage).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(server.accept(&acceptor).await.is_err());
        assert!(server.write_all(b"220 ok\r\n").await.is_err());
        assert!(server.read(&mut [0; 8]).await.is_err());
        assert!(server.accept(&acceptor).await.is_err(), "not again");
        assert_eq!(server.negotiated(), None);
    }
    assert_eq!(acceptor.handshakes(), Handshakes { done: 0, failed: 4 });
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handshake_counts_as_failed() {
    let files = Files::new();
    let acceptor = files.acceptor();
    let (_client, far) = duplex(1024);
    let mut server = Stream::Plain(far);
    assert!(tokio::time::timeout(Duration::from_secs(5), server.accept(&acceptor)).await.is_err());
    assert!(server.read(&mut [0; 8]).await.is_err());
    assert_eq!(acceptor.handshakes(), Handshakes { done: 0, failed: 1 });
}

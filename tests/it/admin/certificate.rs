//! What an operator has to look after: the certificate, and a reload that was not applied. Log, metrics and status agree.

use std::fs;
use std::time::{Duration, SystemTime};

use rmxd::tls::Stream;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::admin::Site;
use crate::support::client::Client;
use crate::support::process::free_address;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate with its key, in files.
pub(crate) struct Pair(TempDir);

impl Pair {
    /// For this name, from 80 days ago on, for so many days from now.
    pub(crate) fn new(name: &str, days: u32) -> Self {
        let pair = Self(tempfile::tempdir().unwrap());
        pair.renew(name, days);
        pair
    }

    pub(crate) fn renew(&self, name: &str, days: u32) {
        let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        parameters.not_before = (SystemTime::now() - 80 * DAY).into();
        parameters.not_after = (SystemTime::now() + days * DAY + Duration::from_secs(60)).into();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn lines(&self) -> String {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| self.path(name));
        format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n")
    }
}

/// A session with TLS that ends at once.
async fn shake_hands(site: &Site) {
    let mut client = Client::over(Stream::Plain(TcpStream::connect(site.smtp).await.unwrap()));
    client.reply().await;
    for line in ["EHLO mail.good.test", "STARTTLS"] {
        assert!(client.command(line).await.is_positive());
    }
    client.stream().connect("gate.test", [127, 0, 0, 1].into()).await.unwrap();
    assert_eq!(client.command("QUIT").await.code, 221);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_needs_care_is_in_the_log_the_metrics_and_the_status() {
    let pair = Pair::new("mx.other.test", 9);
    let mut site = Site::start(&pair.lines()).await;
    let about = |what: &str| format!("WARN rmxd::tls: tls.certificate {} {what}", pair.path("cert.pem"));
    let warnings =
        [about("expires in 9 days ("), about("isn't for hostname gate.test but for mx.other.test: ")];
    for warning in &warnings {
        site.daemon.logged(warning).await;
    }
    let reloaded = site.daemon.reload().await;
    for warning in &warnings {
        site.daemon.logged_times(warning, 2).await;
    }
    assert!(reloaded.contains("reloaded"), "{reloaded}");

    let certificate = site.json("/api/v1/status").await["certificate"].clone();
    assert_eq!((&certificate["ok"], &certificate["days_left"]), (&json!(false), &json!(9)));
    assert_eq!(certificate["names"], json!(["mx.other.test"]));
    let detail = certificate["detail"].as_str().unwrap();
    assert!(detail.contains("expires in 9 days") && detail.contains("; tls.certificate"), "{detail}");

    // a renewal that helps only half
    tokio::time::sleep(Duration::from_millis(1100)).await; // the files are looked at once a second at most
    pair.renew("gate.test", 5);
    shake_hands(&site).await;
    site.daemon.logged(&about("expires in 5 days (")).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    pair.renew("gate.test", 70);
    shake_hands(&site).await;
    let log = site.daemon.logged_times("a new certificate is in use", 2).await;
    assert_eq!(log.matches("WARN rmxd::tls").count(), 5, "{log}");
    let certificate = site.json("/api/v1/status").await["certificate"].clone();
    assert_eq!((&certificate["ok"], &certificate["days_left"]), (&json!(true), &json!(70)));

    let expected = [(r#"rmxd_tls_sessions_total{version="TLSv1.3"}"#, 2.0)];
    let samples = site.counts(&expected).await;
    let left = samples["rmxd_tls_certificate_expiry_timestamp_seconds"] - now();
    assert!((left / 86400.0 - 70.0).abs() < 0.01, "{left}");
    let age = now() - samples["rmxd_tls_certificate_start_timestamp_seconds"];
    assert!((age / 86400.0 - 80.0).abs() < 0.01, "{age}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_was_not_applied_is_seen_until_one_is() {
    let mut site = Site::start("").await;
    let samples = site.counts(&[("rmxd_config_reload_success", 1.0)]).await;
    assert!(!samples.contains_key("rmxd_tls_certificate_expiry_timestamp_seconds"));
    let started = samples["rmxd_config_reload_timestamp_seconds"];
    assert!((0.0..60.0).contains(&(now() - started)), "{started}");
    let status = site.json("/api/v1/status").await;
    assert_eq!((&status["certificate"], &status["reload"]["applied"]), (&json!(null), &json!(true)));

    let admin = site.admin;
    let taken = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = (taken.local_addr().unwrap(), taken);
    let twice = format!("smtp = [\"{}\", \"{}\"]", site.smtp, taken.0);
    let once = format!("smtp = [\"{}\"]", site.smtp);
    let good = site.text(admin, "");
    assert!(good.contains(&once), "{good}");
    let rows = [
        (site.text(admin, "[limits]\nerrors = 0\nerors = 1"), "limits.errors", "; and 1 more"),
        (good.replace(&once, &twice), "listen.smtp: ", "Address already in use (os error 98)"),
    ];
    for (text, begins, ends) in rows {
        site.daemon.home().configure(&text);
        site.daemon.reload().await;
        let samples = site.counts(&[("rmxd_config_reload_success", 0.0)]).await;
        assert_eq!(samples["rmxd_config_reload_timestamp_seconds"], started);
        let reload = site.json("/api/v1/status").await["reload"].clone();
        assert_eq!(reload["applied"], json!(false));
        let detail = reload["detail"].as_str().unwrap();
        assert!(detail.contains(begins) && detail.ends_with(ends), "{detail}");
        assert!(reload["at"].is_string(), "{reload}");
    }
    site.daemon
        .home()
        .configure(&site.text(admin, &format!("[reply]\nhelp_url = \"https://{}/\"", free_address())));
    site.daemon.reload().await;
    let samples = site.counts(&[("rmxd_config_reload_success", 1.0)]).await;
    assert!(samples["rmxd_config_reload_timestamp_seconds"] > started);
    let reload = site.json("/api/v1/status").await["reload"].clone();
    assert_eq!(
        (&reload["applied"], &reload["at"], &reload["detail"]),
        (&json!(true), &reload["since"], &json!(null))
    );
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

//! The monitor's report: by the daemon at SIGUSR1 and at its end, and each day by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rmxd::daemon::gate_with_services;
use rmxd::dns::Clock;
use rmxd::gate::Services;
use rmxd::smtp::address::{ForwardPath, ReversePath};
use rmxd::stats::Monitor;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::daemon::{Daemon, configuration};
use crate::support::log::Log;
use crate::support::process::free_address;
use crate::support::zone::Zone;
use crate::support::{self, settings};

/// A place to send to, with a log in JSON.
struct Site {
    zone: Zone,
    address: SocketAddr,
}

impl Site {
    async fn new() -> Self {
        Self { zone: Zone::start(), address: free_address() }
    }

    fn text(&self, mode: &str) -> String {
        let more = format!(
            "[relay]\ndomains = [\"here.test\"]\n[log]\nformat = \"json\"\n[policy]\nmode = \"{mode}\"\n\
             [policy.mail_from]\nmatches = \"reject\"\nmatches_by = [\"mx\"]"
        );
        configuration("gate.test", &[self.address], self.zone.address(), &more)
    }

    async fn send(&self, client: u8, sender: &str, author: &str) -> u16 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, client));
        let mut client = Client::greeted(from, self.address, "mail.good.test").await;
        let message = format!("From: {author}\r\n\r\nHello\r\n");
        client.deliver(sender, "user@here.test", message.as_bytes()).await.code
    }
}

/// The events of the reports so far.
fn reports(log: &str) -> Vec<Value> {
    let events =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    events.filter(|event: &Value| event["target"] == "rmxd::monitor").collect()
}

/// The events that have this field, with these fields of them.
fn with(events: &[Value], field: &str, fields: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line =
        |event: &Value| fields.split(' ').map(|field| text(&event[field])).collect::<Vec<_>>().join(" ");
    events.iter().filter(|event| event.get(field).is_some()).map(line).collect()
}

const SUMMARY: &str = "occasion passed would_be_refused refused senders";
const SENDER: &str = "identity rule reason action domain would_be_refused refused client more_clients exempt";

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_reports_what_enforcing_would_refuse_since_the_last_report_and_the_end_reports_the_rest() {
    let site = Site::new().await;
    let daemon = start(&site, "monitor").await;
    for (client, sender, author) in [
        (10, "ann@good.test", "ann@good.test"),
        (12, "a@nomx.test", "a@nomx.test"),
        (12, "b@nomx.test", "a@nomx.test"),
        (11, "c@good.test", "c@good.test"),
        (27, "news@bulk.test", "it@bank-login.test"),
        (22, "a@broken.test", "ann@good.test"),
        (10, "ann@good.test", "a@good.test\r\nFrom: b@good.test"),
    ] {
        assert_eq!(site.send(client, sender, author).await, 250, "{sender}: nothing is refused");
    }
    daemon.signal("USR1");
    let events = reports(&daemon.logged("\"for [exempt], as far").await);
    assert_eq!(with(&events, "occasion", SUMMARY), ["asked 1 6 0 5"]);
    assert_eq!(
        with(&events, "domain", SENDER),
        [
            "mail_from exists no_mx reject nomx.test 2 0 127.0.0.12 false clients = [\"127.0.0.12\"]",
            "mail_from exists dns_error defer broken.test 1 0 127.0.0.22 false null",
            "mail_from matches not_an_exchanger reject good.test 1 0 127.0.0.11 false clients = [\"127.0.0.11\"]",
            "from exists no_such_domain reject bank-login.test 1 0 127.0.0.27 false clients = [\"127.0.0.27\"]",
            "from exists malformed_header reject 127.0.0.10 1 0 127.0.0.10 false clients = [\"127.0.0.10\"]",
        ]
    );
    let lines: Vec<_> =
        events.iter().filter(|event| event["identity"].is_null() && !event["exempt"].is_null()).collect();
    let lines: Vec<_> = lines.iter().map(|event| event["exempt"].as_str().unwrap()).collect();
    assert_eq!(lines, ["clients = [\"127.0.0.10\", \"127.0.0.11\", \"127.0.0.12\", \"127.0.0.27\"]"]);

    assert_eq!(site.send(12, "d@nomx.test", "a@nomx.test").await, 250);
    let home = daemon.terminate().await;
    let events = reports(&home.log()).split_off(events.len());
    assert_eq!(with(&events, "occasion", SUMMARY), ["end 0 1 0 1"]);
    assert_eq!(with(&events, "domain", "domain would_be_refused"), ["nomx.test 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_enforce_the_report_is_of_what_was_refused_and_only_when_asked() {
    let site = Site::new().await;
    let mut daemon = start(&site, "enforce").await;
    assert_eq!(site.send(10, "ann@good.test", "ann@good.test").await, 250);
    assert_eq!(site.send(12, "a@nomx.test", "a@nomx.test").await, 550);
    daemon.home().configure(&site.text("monitor"));
    daemon.reload().await;
    assert_eq!(site.send(12, "a@nomx.test", "a@nomx.test").await, 250);
    daemon.signal("USR1");
    let events = reports(&daemon.logged("\"for [exempt], as far").await);
    assert_eq!(with(&events, "occasion", SUMMARY), ["asked 1 1 1 1"], "both, over a reload");
    assert_eq!(with(&events, "domain", "domain would_be_refused refused"), ["nomx.test 1 1"]);
    daemon.home().configure(&site.text("enforce"));
    daemon.reload().await;
    assert_eq!(site.send(12, "a@nomx.test", "a@nomx.test").await, 550);
    let home = daemon.terminate().await;
    assert_eq!(reports(&home.log()).len(), events.len(), "nobody asked");
}

async fn start(site: &Site, mode: &str) -> Daemon {
    Daemon::start(&site.text(mode), &[]).await
}

#[tokio::test(start_paused = true)]
async fn a_day_with_something_to_tell_is_reported_and_one_without_is_not() {
    const DAY: Duration = Duration::from_secs(86_400);
    let log = Log::default();
    let _logging = log.start();
    let settings = settings(["policy.mode=monitor", "policy.ptr.exists=off"]);
    // Nobody is asked: the sender's domain is none.
    let dns = support::dns(&settings, "127.0.0.1:9".parse().unwrap(), Clock::running());
    let monitor = Monitor::default();
    let services = Services { monitor: monitor.clone(), ..Services::default() };
    let gate = gate_with_services(dns, &settings, services);
    let watch = monitor.clone();
    tokio::spawn(async move { watch.report_every(DAY).await });

    tokio::time::sleep(DAY * 2 + Duration::from_secs(1)).await;
    assert_eq!(log.text(), "");
    let mut client = gate.client("192.0.2.1".parse().unwrap());
    let mut transaction = client.transaction(&ReversePath::parse("a@[192.0.2.7]").unwrap());
    let passed = transaction.rcpt(&mut client, &ForwardPath::parse("b@here.test").unwrap()).await;
    assert!(passed.is_ok(), "{passed:?}");
    drop(transaction);
    tokio::time::sleep(DAY - Duration::from_secs(2)).await;
    assert_eq!(reports(&log.text()).len(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let events = reports(&log.text());
    assert_eq!(with(&events, "occasion", SUMMARY), ["daily 0 1 0 1"]);
    assert_eq!(
        with(&events, "domain", SENDER),
        ["mail_from exists invalid_domain reject [192.0.2.7] 1 0 192.0.2.1 false clients = [\"192.0.2.1\"]"]
    );
    tokio::time::sleep(DAY * 3).await;
    assert_eq!(reports(&log.text()).len(), events.len());
}

//! `/metrics` says what really happened: dialogues are played, and the counters must have moved by that and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::admin::http::Request;
use crate::admin::{GOOD, Site};
use crate::support::client::Client;
use crate::support::process::{SOON, free_address};
use crate::support::relay::Relay;

/// Every sample: its name with its labels, and its value.
pub(super) type Samples = BTreeMap<String, f64>;

impl Site {
    pub(super) async fn samples(&self) -> Samples {
        let answer = self.get("/metrics").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        let lines = answer.text().lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        lines.map(sample).collect()
    }

    /// Waits for the samples to be these.
    pub(super) async fn counts(&self, expected: &[(&str, f64)]) -> Samples {
        let began = Instant::now();
        loop {
            let samples = self.samples().await;
            let wrong: Vec<_> =
                expected.iter().filter(|(name, value)| of(&samples, name) != *value).collect();
            if wrong.is_empty() {
                return samples;
            }
            assert!(began.elapsed() < SOON, "not {wrong:?}:\n{samples:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What isn't there was never counted.
pub(super) fn of(samples: &Samples, name: &str) -> f64 {
    samples.get(name).copied().unwrap_or_default()
}

const ACCEPTED: &str =
    r#"rmxd_verdicts_total{verdict="accept",identity="none",reason="none",mode="enforce"}"#;

fn refused(identity: &str, reason: &str, mode: &str) -> String {
    format!(
        r#"rmxd_verdicts_total{{verdict="reject",identity="{identity}",reason="{reason}",mode="{mode}"}}"#
    )
}

fn outcome(name: &str, outcome: &str) -> String {
    format!(r#"rmxd_{name}_total{{outcome="{outcome}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_connections_look_ups_and_questions_are_counted_once_each() {
    let mut site = Site::start("[limits]\nconnections_per_client = 1").await;
    site.counts(&[(ACCEPTED, 0.0), (&outcome("connections", "served"), 0.0), ("rmxd_connections_open", 0.0)])
        .await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    site.counts(&[
        (ACCEPTED, 1.0),
        (&outcome("connections", "served"), 1.0),
        (&outcome("relay_transactions", "delivered"), 1.0),
        ("rmxd_verdict_seconds_count", 1.0),
    ])
    .await;
    let before = site.counts(&[("rmxd_connections_open", 0.0)]).await;

    assert_eq!(site.deliver("a@nodomain.test", "a@good.test").await, 550);
    let mail_from = refused("mail_from", "no_such_domain", "enforce");
    let denied = r#"rmxd_dns_queries_total{type="MX",outcome="no_such_domain"}"#;
    let negative = r#"rmxd_cache_lookups_total{result="negative"}"#;
    let after = site.counts(&[(&mail_from, 1.0), (ACCEPTED, 1.0), (denied, of(&before, denied) + 1.0)]).await;
    site.counts(&[("rmxd_connections_open", 0.0)]).await;

    // the sender that people see: the envelope is good, and the relay's side is open by then
    assert_eq!(site.deliver("a@good.test", "a@nodomain.test").await, 550);
    let from = refused("from", "no_such_domain", "enforce");
    let last = site
        .counts(&[
            (&from, 1.0),
            (&mail_from, 1.0),
            (&outcome("relay_transactions", "abandoned"), 1.0),
            (&outcome("relay_transactions", "delivered"), 1.0),
            (denied, of(&after, denied)),
            ("rmxd_verdict_seconds_count", 3.0),
        ])
        .await;
    assert!(of(&last, negative) > of(&after, negative), "{last:#?}");
    let lookups =
        last.iter().filter(|(name, _)| name.starts_with("rmxd_cache_lookups_total")).map(|(_, count)| count);
    assert!(lookups.sum::<f64>() >= 6.0, "{last:#?}");
    assert!(of(&last, "rmxd_cache_limit_bytes") == f64::from(64 << 20), "{last:#?}");
    site.counts(&[("rmxd_connections_open", 0.0)]).await;

    let open = Client::greeted(GOOD, site.smtp, "mail.good.test").await;
    assert_eq!(Client::connect(GOOD, site.smtp).await.reply().await.code, 421);
    site.counts(&[
        ("rmxd_connections_open", 1.0),
        (&outcome("connections", "client_limit"), 1.0),
        (&outcome("connections", "served"), 4.0),
    ])
    .await;
    drop(open);
    site.counts(&[("rmxd_connections_open", 0.0)]).await;

    // a reload goes on counting, in its own mode
    let monitor = "[limits]\nconnections_per_client = 1\nconnections = 77\n[policy]\nmode = \"monitor\"";
    site.daemon.home().configure(&site.text(site.admin, monitor));
    site.daemon.reload().await;
    assert_eq!(site.deliver("a@nodomain.test", "a@nodomain.test").await, 250);
    site.counts(&[
        (&mail_from, 1.0),
        (&refused("mail_from", "no_such_domain", "monitor"), 1.0),
        (&outcome("relay_transactions", "delivered"), 2.0),
        ("rmxd_connections_limit", 77.0),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_find_exemptions_and_the_greylist_are_counted_once_a_transaction() {
    let site = Site::start(
        "[policy.mail_from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]\n[greylist]\ndelay = \"1s\"\n\
         [exempt]\nclients = [\"127.0.0.77\"]\ndomains = [\"nodomain.test\"]\nrecipients = [\"boss@here.test\"]",
    )
    .await;
    let finding = |rule: &str, result: &str, reason: &str, action: &str| {
        format!(
            r#"rmxd_findings_total{{identity="mail_from",rule="{rule}",result="{result}",reason="{reason}",action="{action}"}}"#
        )
    };
    let exempt = |by: &str| format!(r#"rmxd_exempt_total{{by="{by}"}}"#);
    let greylist = |result: &str| format!(r#"rmxd_greylist_total{{result="{result}"}}"#);
    let (exists, no_mx) =
        (finding("exists", "pass", "none", "reject"), finding("exists", "fail", "no_mx", "reject"));
    let (is_one, is_none) = (
        finding("matches", "pass", "none", "greylist"),
        finding("matches", "fail", "not_an_exchanger", "greylist"),
    );
    let send = async |client: u8, sender: &str, recipient: &str| {
        let mut client = Client::greeted([127, 0, 0, client].into(), site.smtp, "mail.good.test").await;
        client.deliver(sender, recipient, b"From: a@good.test\r\n\r\nHello\r\n").await.code
    };
    assert_eq!(send(10, "a@good.test", "user@here.test").await, 250);
    site.counts(&[(&exists, 1.0), (&is_one, 1.0), (&is_none, 0.0)]).await;
    assert_eq!(send(10, "a@nomx.test", "user@here.test").await, 550);
    site.counts(&[(&exists, 1.0), (&no_mx, 1.0), (&is_none, 1.0)]).await;
    assert_eq!(send(12, "a@good.test", "user@here.test").await, 450);
    site.counts(&[(&is_none, 2.0), (&greylist("waits"), 1.0), (&greylist("passed"), 0.0)]).await;
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(send(12, "a@good.test", "user@here.test").await, 250);
    site.counts(&[(&exists, 3.0), (&is_none, 3.0), (&greylist("waits"), 1.0), (&greylist("passed"), 1.0)])
        .await;

    let lists = ["client", "domain", "recipient"];
    let [client, domain, recipient] = lists.map(exempt);
    site.counts(&[(&client, 0.0), (&domain, 0.0), (&recipient, 0.0)]).await;
    assert_eq!(send(77, "a@nomx.test", "user@here.test").await, 250);
    assert_eq!(send(10, "a@nodomain.test", "user@here.test").await, 250);
    assert_eq!(send(10, "a@nomx.test", "boss@here.test").await, 250);
    site.counts(&[(&client, 1.0), (&domain, 1.0), (&recipient, 1.0), (&no_mx, 1.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_transactions_with_the_relay_end_is_counted_and_its_connections_too() {
    let place = free_address();
    let more = format!(
        "[relay]\nnext_hop = \"smtp://{place}\"\nidentity = \"none\"\ndomains = [\"here.test\"]\nconnect_timeout = \"2s\""
    );
    let site = Site::start(&more).await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 451);
    let transactions = |name: &str| outcome("relay_transactions", name);
    site.counts(&[(&transactions("unreachable"), 1.0), ("rmxd_relay_reachable", 0.0), (ACCEPTED, 1.0)]).await;

    let relay = Relay::at(place).await;
    assert_eq!(site.deliver("a@good.test", "a@good.test").await, 250);
    site.counts(&[
        (&transactions("delivered"), 1.0),
        ("rmxd_relay_reachable", 1.0),
        ("rmxd_relay_connections_open", 1.0), // it waits for the next
    ])
    .await;
    for (at, reply, code, name) in [
        (".", "452 4.3.1 full", 452, "deferred"),
        (".", "554 5.7.1 no", 554, "rejected"),
        ("RCPT", "550 5.1.1 nobody", 550, "rejected"),
        (".", "(close)", 451, "lost"),
    ] {
        let before = site.samples().await;
        relay.rules.lock().unwrap().push((at.to_owned(), reply.to_owned()));
        assert_eq!(site.deliver("a@good.test", "a@good.test").await, code, "{at} {reply}");
        relay.rules.lock().unwrap().pop();
        let counted = of(&before, &transactions(name)) + 1.0;
        site.counts(&[(&transactions(name), counted), (&transactions("delivered"), 1.0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_openmetrics_gets_it() {
    let site = Site::start("[admin]\ntoken = \"s3cret\"").await;
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let request = Request::get("/metrics").with("accept", prometheus);
    assert_eq!(request.send(site.admin).await.status, 401);
    let request = Request::get("/metrics").with("accept", prometheus).with("authorization", "Bearer s3cret");
    let answer = request.send(site.admin).await;
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.text().ends_with("# EOF\n"), "{answer:?}");
}

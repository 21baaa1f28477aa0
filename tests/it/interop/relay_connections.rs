//! How a real Postfix sees the connections to it: how many there are, and whom each names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::client::Client;
use crate::support::daemon::Daemon;
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const SOON: Duration = Duration::from_secs(20);
/// Without XCLIENT rmxd needs a list of its own.
const OURS: &str = "relay.domains=relay.test";

/// Sends messages in one session; all must be taken.
async fn send(gate: &Daemon, numbers: std::ops::Range<usize>) {
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    for number in numbers {
        let reply = client.deliver("a@good.test", "user@relay.test", &mail::message(number, 1_000)).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
    }
    assert_eq!(client.command("QUIT").await.code, 221);
}

/// As systemd/README.md has it: our own address may have any number of connections.
#[tokio::test(flavor = "multi_thread")]
async fn postfix_limits_the_connections_and_messages_of_the_real_client() {
    let main_cf = |_: &Path| {
        "smtpd_client_event_limit_exceptions =\nsmtpd_client_connection_count_limit = 1\n\
         smtpd_client_message_rate_limit = 1\n"
            .to_owned()
    };
    let Some(postfix) = Postfix::start_with(main_cf) else { return };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, "").await;
    let mut open = Vec::new();
    let (second_connection, second_message) = ("too many connections from 127.0.0.10", "4.7.1");
    for (address, expected) in [("127.0.0.10", 250), ("127.0.0.66", 250), ("127.0.0.10", 451)] {
        let mut client = Client::greeted(address.parse().unwrap(), gate.address(), "mail.good.test").await;
        let reply = client.deliver("a@good.test", "user@relay.test", &mail::message(1, 10)).await;
        assert_eq!(reply.code, expected, "{address}: {}", reply.text);
        open.push(client);
    }
    gate.logged(second_connection).await;
    let reply = open[0].deliver("a@good.test", "user@relay.test", &mail::message(2, 10)).await;
    assert!(reply.code == 450 && reply.text.contains(second_message), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_xclient_a_session_has_one_connection_in_the_clients_name() {
    let Some(mut postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, "").await;
    let before = postfix.connections().await;
    send(&gate, 0..3).await;
    send(&gate, 3..5).await;
    assert_eq!(postfix.connections().await - before, 2, "{}", postfix.log());
    postfix.wait_for_messages("user", 5, SOON).await;
    assert_eq!(postfix.log().matches("client=mail.good.test[127.0.0.10]").count(), 5, "{}", postfix.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_named_all_sessions_share_a_connection() {
    let Some(mut postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    let gate = gate::start_with(&zone, &postfix, "", &["relay.identity=none", OURS]).await;
    let before = postfix.connections().await;
    for number in 0..5 {
        send(&gate, number..number + 1).await;
    }
    // one that is given up, and one whose sender is refused in its header
    let mut client = Client::greeted(EXCHANGER, gate.address(), "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<b@good.test>").await.code, 250);
    assert_eq!(client.command("RCPT TO:<other@relay.test>").await.code, 250);
    assert_eq!(client.command("RSET").await.code, 250);
    let reply = client.deliver("a@good.test", "other@relay.test", b"From: a@nowhere.test\r\n\r\nx\r\n").await;
    assert_eq!(reply.code, 550, "{}", reply.text);
    send(&gate, 5..6).await;
    assert_eq!(postfix.connections().await - before, 1, "{}", postfix.log());
    postfix.wait_for_messages("user", 6, SOON).await;
    postfix.wait_for_empty_queue().await;
    assert_eq!((postfix.mailbox("user").len(), postfix.mailbox("other").len()), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn by_xforward_the_log_names_each_client_on_a_shared_connection() {
    let main_cf = "smtpd_tls_security_level = none\nsmtpd_authorized_xforward_hosts = 127.0.0.0/8\n";
    let Some(mut postfix) = Postfix::start_without_xclient(main_cf) else { return };
    let zone = Zone::start();
    for identity in ["relay.identity=auto", "relay.identity=xforward"] {
        let gate = gate::start_with(&zone, &postfix, "", &[identity, OURS]).await;
        let before = postfix.connections().await;
        let logged = postfix.log().len();
        send(&gate, 0..2).await;
        send(&gate, 2..3).await;
        assert_eq!(postfix.connections().await - before, 1, "{}", postfix.log());
        let log = postfix.log();
        let of_this = log.get(logged..).unwrap();
        let lines: Vec<&str> = of_this.lines().filter(|line| line.contains("orig_client=")).collect();
        assert_eq!(lines.len(), 3, "{of_this}");
        for line in lines {
            assert!(line.contains("client=unknown[127.0.0.1]"), "{line}");
            assert!(line.contains("orig_client=mail.good.test[127.0.0.10]"), "{line}");
            let id = line.split("orig_queue_id=").nth(1).unwrap().split(',').next().unwrap();
            gate.logged(id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_proxy_header_postfix_takes_the_client_for_its_own() {
    let main_cf = "smtpd_tls_security_level = none\nsmtpd_upstream_proxy_protocol = haproxy\n";
    let Some(postfix) = Postfix::start_without_xclient(main_cf) else { return };
    let zone = Zone::start();
    let gate = gate::start_with(&zone, &postfix, "", &["relay.identity=proxy-v2", OURS]).await;
    send(&gate, 0..2).await;
    send(&gate, 2..3).await;
    postfix.wait_for_messages("user", 3, SOON).await;
    let log = postfix.log();
    assert_eq!(log.matches("client=unknown[127.0.0.10]").count(), 3, "{log}");
    assert_eq!(log.matches(": connect from unknown[127.0.0.10]").count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_xclient_a_client_that_postfix_refuses_at_once_is_told_so_and_others_are_served() {
    let main_cf = |_: &std::path::Path| {
        "smtpd_tls_security_level = none\nsmtpd_delay_reject = no\n\
         smtpd_client_restrictions = check_client_access inline:{ { 127.0.0.66 = REJECT not from you },\
         { 127.0.0.67 = 450 4.7.1 not yet } }\nsmtpd_helo_required = yes\n\
         smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname,\
         check_helo_access inline:{ { mail.spam.test = REJECT not by that name } }\n"
            .to_owned()
    };
    let Some(postfix) = Postfix::start_with(main_cf) else { return };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, "").await;
    let rows = [
        (
            "127.0.0.66",
            "mail.good.test",
            "554 5.7.1 <unknown[127.0.0.66]>: Client host rejected: not from you",
        ),
        ("127.0.0.67", "mail.good.test", "450 4.7.1 <unknown[127.0.0.67]>: Client host rejected: not yet"),
        (
            "127.0.0.10",
            "mail.spam.test",
            "554 5.7.1 <mail.spam.test>: Helo command rejected: not by that name",
        ),
        (
            "127.0.0.10",
            "localhost",
            "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname",
        ),
        ("127.0.0.10", "mail..good.test", "501 5.5.2 <mail..good.test>: Helo command rejected: Invalid name"),
    ];
    for (address, helo, expected) in rows {
        let mut client = Client::greeted(address.parse().unwrap(), gate.address(), helo).await;
        assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
        for _ in 0..2 {
            let reply = client.command("RCPT TO:<user@relay.test>").await;
            assert!(reply.text.starts_with(expected), "{address} {helo}: {}", reply.text);
        }
    }
    send(&gate, 0..2).await;
    postfix.wait_for_messages("user", 2, SOON).await;
    let log = gate.settled(" outcome=relay_refused ", rows.len()).await;
    assert_eq!(log.matches(" outcome=relay_refused ").count(), rows.len(), "{log}");
}

//! What the log says of a relay's refusals: one event for each, with the outcome and the relay's words.

use super::faulty::{Fault, Relay, Step};
use crate::support::client::Client;
use crate::support::daemon::{Daemon, configuration};
use crate::support::pattern::{Found, matches};
use crate::support::process::free_address;
use crate::support::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_by_the_relay_is_one_event_with_sender_recipient_and_the_relays_words() {
    let zone = Zone::start();
    let refused = |rcpt: &str, reply: &str| format!("relay_refused {rcpt}@here.test {reply}");
    let greylisted = refused("b", "\"450 4.2.0 greylisted\"");
    let rows = [
        (
            Fault::DefersRecipient("b@here.test"),
            vec![greylisted.clone(), greylisted, "delivered a@here.test \"250 *".to_owned()],
        ),
        (
            Fault::AlwaysSaysAt(Step::Mail, "550 5.7.1 \x1b[2Jnot you\u{202e}"),
            vec![refused("a", "\"550 5.7.1 ?[2Jnot you???\"")],
        ),
        (
            Fault::AlwaysSaysAt(Step::End, "554-5.6.0 not that\r\n554 5.6.0 virus"),
            vec![refused("a", "\"554 5.6.0 not that virus\"")],
        ),
        (Fault::AlwaysSaysAt(Step::Data, "452 4.3.1 full"), vec![refused("a", "\"452 4.3.1 full\"")]),
        (Fault::None, vec!["delivered a@here.test \"250 *".to_owned()]),
    ];
    for (fault, expected) in rows {
        let events = logged(&zone, fault, expected.len()).await;
        let fits = |(event, expected): (&String, &String)| matches(expected, event, &mut Found::new());
        let alike = events.len() == expected.len() && events.iter().zip(&expected).all(fits);
        assert!(alike, "{fault:?}: {events:#?}");
    }
}

/// What the log has of refusals by the relay after a transaction to three recipients, from the message on, once it has as
/// many as are expected.
async fn logged(zone: &Zone, fault: Fault, count: usize) -> Vec<String> {
    let (address, relay) = (free_address(), Relay::start(fault, true).await);
    let more = format!("[relay]\nnext_hop = \"smtp://{}\"\ndomains = [\"here.test\"]\n", relay.address);
    let daemon = Daemon::start(&configuration("gate.test", &[address], zone.address(), &more), &[]).await;
    let mut client = Client::greeted([127, 0, 0, 10].into(), address, "mail.good.test").await;
    client.command("MAIL FROM:<a@good.test>").await;
    for recipient in ["a", "b", "b"] {
        client.command(&format!("RCPT TO:<{recipient}@here.test>")).await;
    }
    if client.command("DATA").await.code == 354 {
        client.send(b"From: a@good.test\r\n\r\nx\r\n.\r\n").await;
        client.reply().await;
    }
    assert_eq!(client.command("QUIT").await.code, 221);
    let log = daemon.settled(" INFO rmxd::decision: ", count).await;
    let events = log.lines().filter(|line| line.contains(" INFO rmxd::decision: "));
    events
        .map(|event| {
            assert!(
                event.contains(" mail_from=<a@good.test> ") && event.contains(" client=127.0.0.10 "),
                "{event}"
            );
            assert!(event.contains(" verdict=accept "), "{event}");
            [" outcome=", " rcpt=", " relay_reply="].map(|name| value(event, name)).join(" ")
        })
        .collect()
}

/// A field as it stands in the line, with its quotes.
fn value<'e>(event: &'e str, name: &str) -> &'e str {
    let (_, rest) = event.split_once(name).unwrap_or_else(|| panic!("no{name} in {event}"));
    let end = match rest.strip_prefix('"') {
        Some(inner) => inner.find('"').unwrap() + 2,
        None => rest.find(' ').unwrap_or(rest.len()),
    };
    rest.split_at(end).0
}

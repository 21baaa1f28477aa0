//! What the log says of a relay's refusals: one line for each.

use super::faulty::{Fault, Relay, Step};
use crate::daemon::{Daemon, configuration, free_address};
use crate::interop::client::Client;
use crate::interop::zone::Zone;

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_by_the_relay_is_one_line_with_who_whom_and_why() {
    const WHO: &str = "client=127.0.0.10 mail_from=<a@good.test>";
    let zone = Zone::start().await;
    let rows = [
        (
            Fault::DefersRecipient("b@here.test"),
            vec![
                format!("rcpt refused by relay id=ID {WHO} rcpt=b@here.test reply=\"450 4.2.0 greylisted\""),
                format!("rcpt refused by relay id=ID {WHO} rcpt=b@here.test reply=\"450 4.2.0 greylisted\""),
            ],
        ),
        (
            Fault::AlwaysSaysAt(Step::Mail, "550 5.7.1 \x1b[2Jnot you\u{202e}"),
            vec![format!(
                "mail_from refused by relay id=ID {WHO} rcpt=a@here.test reply=\"550 5.7.1 ?[2Jnot you???\""
            )],
        ),
        (
            Fault::AlwaysSaysAt(Step::End, "554-5.6.0 not that\r\n554 5.6.0 virus"),
            vec![format!("message refused by relay id=ID {WHO} reply=\"554 5.6.0 not that\"")],
        ),
        (
            Fault::AlwaysSaysAt(Step::Data, "452 4.3.1 full"),
            vec![format!("message refused by relay id=ID {WHO} reply=\"452 4.3.1 full\"")],
        ),
        (Fault::None, vec![]),
    ];
    for (fault, expected) in rows {
        assert_eq!(logged(&zone, fault).await, expected, "{fault:?}");
    }
}

/// What the log has of refusals by the relay after a transaction to three recipients, from the message on.
async fn logged(zone: &Zone, fault: Fault) -> Vec<String> {
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
    let log = daemon.log();
    let events = log.lines().filter_map(|line| line.split_once(" INFO rmxd::relay: "));
    events.map(|(_, event)| without_id(event)).collect()
}

fn without_id(event: &str) -> String {
    let (before, id) = event.split_once("id=").unwrap();
    let (id, after) = id.split_once(' ').unwrap();
    assert_eq!(id.len(), 8, "{event}");
    format!("{before}id=ID {after}")
}

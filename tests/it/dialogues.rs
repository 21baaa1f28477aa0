//! SMTP dialogues: scripts played against a door, with a relay behind it that does as the script says.
//!
//! A file of `dialogues/*.script` shows one behaviour, which its first comment names. Its lines, in order:
//!
//!   = KEY=VALUE       configuration, over the defaults of the tests; before anything else
//!   @ ADDRESS         where the client stands, 127.0.0.10 if nothing is said; before anything else
//!   R: LINE => REPLY  what the relay answers to a line that begins like this, from now on; `connect` stands for the
//!                     connection; the reply may also be `(close)` or `(silence)`. What no such line is for is answered 250, DATA 354
//!   C: TEXT           the client sends a line; `C*9: TEXT` sends it nine times, `C| TEXT` sends it without CRLF
//!   C: (gone)         the client closes its connection
//!   S: TEXT           the next line that the client gets; `S: ...` passes over the lines of a reply up to its last
//!   S: (close)        rmxd closes the connection
//!   R< TEXT           the next that the relay gets: `(connect)`, a line, `(close)`; `R< ...` passes over lines until
//!                     that of the next `R<`, and at the end of the script over all that is left
//!   L: K=V K=V        some event in the log has these fields
//!
//! TEXT may hold the escapes of Rust strings, and in what is expected the holes of `support::pattern`. At the end
//! nothing may be left that was not expected, from rmxd or at the relay: a script without `R<` says that the relay
//! was not contacted. The sample zones are served.

mod player;

use std::time::Duration;

use rmxd::zone::{Server, Zone};
use tokio::time::Instant;

use crate::support::case_files;

#[tokio::test]
async fn every_script_goes_as_it_says() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let mut wrong = Vec::new();
    for file in case_files("dialogues", "script") {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(what) = player::play(&text, zone.address()).await {
            wrong.push(format!("{}:{what}", file.file_name().unwrap().display()));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The player itself: scripts that expect something else than what happens.
#[tokio::test]
async fn a_script_that_is_wrong_fails() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::sample()).await.unwrap();
    let greeting = "S: 220 gate.test ESMTP rmxd\n";
    let to_rcpt = "C: HELO x\nS: 250 gate.test\nC: MAIL FROM:<a@good.test>\nS: 250 *\nC: RCPT TO:<a@here.test>\nS: 250 *\n";
    let rows = [
        ("S: 221 other\n".to_owned(), "1: expected"),
        (format!("{greeting}C: NOOP\n"), "at the end"),
        (format!("{greeting}C: NOOP\nS: 250 *\nR< (connect)\n"), "4: the relay"),
        (format!("{greeting}{to_rcpt}"), "at the end"),
        (format!("{greeting}{to_rcpt}R< ...\nL: verdict=reject\n"), "9: no event"),
    ];
    for (script, expected) in rows {
        let what = player::play(&script, zone.address()).await.unwrap_err();
        assert!(what.starts_with(expected), "{script}: {what}");
    }
}

/// The client's name takes long to be known, or what the rules need for it does.
const SLOW_NAMES: &str = "$ORIGIN test.
$TTL 60
good MX 10 mail.good
mail.good A 127.0.0.10
slow A 127.0.0.62
;! silent slow MX
$ORIGIN 127.in-addr.arpa.
;! silent 61.0.0
62.0.0 PTR slow.test.
";

#[tokio::test]
async fn the_relay_waits_for_the_clients_name_only_and_only_if_it_is_told() {
    let zone = Server::start("127.0.0.1:0".parse().unwrap(), Zone::parse(SLOW_NAMES, None).unwrap());
    let zone = zone.await.unwrap();
    // how the relay learns the client, where that stands, what the relay is told, whether it takes a time-out of DNS
    let rows = [
        ("none", "127.0.0.61", "MAIL FROM:<a@good.test>", false),
        ("xclient", "127.0.0.61", "XCLIENT NAME=[TEMPUNAVAIL] ADDR=127.0.0.61", true),
        ("xclient", "127.0.0.62", "XCLIENT NAME=slow.test ADDR=127.0.0.62", false),
    ];
    for (identity, client, told, slow) in rows {
        let script = format!(
            "= relay.identity={identity}\n@ {client}\nR: EHLO => 250-relay.test\\r\\n250 XCLIENT NAME ADDR\n\
             S: 220 *\nC: HELO x\nS: 250 gate.test\nC: MAIL FROM:<a@good.test>\nS: 250 *\n\
             C: RCPT TO:<a@here.test>\nR< ...\nR< {told}\nS: 250 *\nR< ..."
        );
        let began = Instant::now();
        player::play(&script, zone.address())
            .await
            .unwrap_or_else(|what| panic!("{identity} {client} {what}"));
        assert_eq!(began.elapsed() > Duration::from_millis(1_500), slow, "{identity} {client}");
    }
}

//! STARTTLS towards the relay: the commands in plain text, those over TLS, and those that must not be sent.

use std::time::Duration;

use tokio::time::timeout;

use crate::relay::tests::script::ScriptedRelay;
use crate::relay::tests::{begin, deliver, permit};
use crate::relay::{Capabilities, Relay, Tls};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
const BANNER: &str = "S 220 relay.test ESMTP\nC EHLO gate.test";
const OFFER: &str = "S 250-relay.test|250-SIZE 1000|250 STARTTLS\nC STARTTLS";
/// The second EHLO and its reply.
const AGAIN: &str = "C EHLO gate.test\nS 250-relay.test|250 SIZE 2000";
const DELIVERY: &str = "\
C MAIL FROM:<a@good.test>\nS 250 2.1.0 Ok\nC RCPT TO:<u@relay.test>\nS 250 2.1.5 Ok\nC DATA\nS 354 go
M Subject: x||body|.\nS 250 2.0.0 queued\nREST QUIT";

fn script(parts: &[&str]) -> String {
    parts.join("\n")
}

fn relay(scripted: &ScriptedRelay, tls: Tls) -> Relay {
    scripted.relay_with(|settings| settings.tls = tls)
}

/// The capabilities of the relay after a message, and the reply to it.
async fn delivered(scripts: &[String], tls: Tls) -> (Capabilities, String) {
    let scripted = ScriptedRelay::play(scripts).await;
    let relay = relay(&scripted, tls);
    let reply = deliver(&relay, &[MESSAGE]).await;
    let offered = relay.capabilities();
    drop(relay);
    scripted.played().await;
    (offered, reply)
}

#[tokio::test]
async fn a_relay_that_offers_tls_is_greeted_again_and_gets_the_message_over_tls() {
    for tls in [Tls::Opportunistic, Tls::Required] {
        let script = script(&[BANNER, OFFER, "S 220 go\nTLS", AGAIN, DELIVERY]);
        let (offered, reply) = delivered(&[script], tls).await;
        assert_eq!(reply, "END 250 2.0.0 queued");
        assert_eq!(offered.size, Some(2000), "what was offered in plain text is forgotten");
    }
}

#[tokio::test]
async fn a_connection_over_tls_is_used_again_and_reset_like_any_other() {
    let twice = DELIVERY.replace("\nREST QUIT", "");
    let given_up =
        "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC RSET\nS 250 Ok";
    let script = script(&[BANNER, OFFER, "S 220 go\nTLS", AGAIN, &twice, given_up, DELIVERY]);
    let scripted = ScriptedRelay::play(&[script]).await;
    let relay = relay(&scripted, Tls::Required);
    assert_eq!(deliver(&relay, &[MESSAGE]).await, "END 250 2.0.0 queued");
    begin(&relay).await.unwrap().abandon().await;
    assert_eq!(deliver(&relay, &[MESSAGE]).await, "END 250 2.0.0 queued");
    drop(relay);
    scripted.played().await;
}

#[tokio::test]
async fn without_relay_tls_the_offer_is_ignored() {
    let script = script(&[BANNER, "S 250-relay.test|250 STARTTLS", DELIVERY]);
    assert_eq!(delivered(&[script], Tls::None).await.1, "END 250 2.0.0 queued");
}

#[tokio::test]
async fn a_relay_without_tls_gets_the_message_in_plain_text_only_where_that_is_allowed() {
    let unable = [
        ("S 250-relay.test|250 SIZE 1000".to_owned(), "REST QUIT"),
        (script(&[OFFER, "S 454 4.7.0 not now"]), "REST"),
        (script(&[OFFER, "S 502 5.5.1 what"]), "REST"),
    ];
    for (refusal, farewell) in unable {
        let plain = script(&[BANNER, &refusal, AGAIN, DELIVERY]);
        assert_eq!(delivered(&[plain], Tls::Opportunistic).await.1, "END 250 2.0.0 queued", "{refusal}");
        let closed = script(&[BANNER, &refusal, farewell]);
        let reply = delivered(&[closed], Tls::Required).await.1;
        assert!(reply.starts_with("MAIL 451 4.4.1 "), "{refusal}: {reply}");
    }
}

#[tokio::test]
async fn after_a_failed_handshake_a_new_connection_is_plain_only_where_that_is_allowed() {
    for failure in ["TAKE 5\nS what is this\nSWALLOW", "TAKE 5", "SWALLOW"] {
        let broken = script(&[BANNER, OFFER, "S 220 go", failure]);
        let again = script(&["S 220 relay.test ESMTP", AGAIN, DELIVERY]);
        for (tls, scripts, expected) in [
            (Tls::Opportunistic, vec![broken.clone(), again], "END 250 2.0.0 queued"),
            (Tls::Required, vec![broken], "MAIL 451 4.4.1 "),
        ] {
            let scripted = ScriptedRelay::play(&scripts).await;
            let relay = scripted.relay_with(|settings| {
                settings.tls = tls;
                settings.connect_timeout = Duration::from_secs(6); // a third of it for the handshake
            });
            let reply = deliver(&relay, &[MESSAGE]).await;
            assert!(reply.starts_with(expected), "{failure}: {reply}");
            drop(relay);
            scripted.played().await;
        }
    }
}

/// CVE-2011-0411 in the other direction: octets after the 220 must not be taken for the reply to EHLO over TLS.
#[tokio::test]
async fn plain_text_after_the_220_ends_the_connection() {
    for tls in [Tls::Opportunistic, Tls::Required] {
        let script = script(&[BANNER, OFFER, "S 220 go|250-relay.test|250 XCLIENT ADDR\nREST"]);
        let (offered, reply) = delivered(&[script], tls).await;
        assert!(reply.starts_with("MAIL 451 4.4.2 "), "{reply}");
        assert!(offered.xclient.is_none());
    }
}

#[tokio::test]
async fn over_tls_no_reply_is_taken_for_that_of_another_step() {
    for (said, expected) in [
        ("", "END 250 2.0.0 queued"), // session tickets and other records of TLS itself are no replies
        ("S 250 2.0.0 queued as 0\nREST", "END 451 4.4.2 "),
        ("S 421 4.3.2 bye", "END 451 4.4.2 "),
        ("S 552 5.3.4 too big", "END 552 5.3.4 too big"),
    ] {
        let upto = "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC DATA\nS 354 go\nTAKE 20000";
        let rest = if said.is_empty() { "M Subject: x||body|.\nS 250 2.0.0 queued\nREST QUIT" } else { said };
        let script = script(&[BANNER, OFFER, "S 220 go\nTLS", AGAIN, upto, rest]);
        let taken = script.lines().position(|step| step == "TAKE 20000").unwrap() + 1;
        let scripted = ScriptedRelay::play(&[script]).await;
        let mut transaction = begin(&relay(&scripted, Tls::Required)).await.unwrap();
        transaction.data().await.unwrap();
        transaction.write(&b"0123456789abcdefgh\r\n".repeat(1000)).await.unwrap();
        transaction.write(MESSAGE).await.unwrap(); // buffered until the end
        scripted.steps(taken + usize::from(!said.is_empty())).await;
        let reply = format!("END {}", transaction.finish(permit()).await);
        assert!(reply.starts_with(expected), "{said}: {reply}");
        scripted.played().await;
    }
}

#[tokio::test]
async fn large_messages_over_tls_reach_slow_relays_and_time_out_at_stalled_ones() {
    let piece = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1024);
    let message = vec![piece.as_slice(); 128];
    let size = 8 * 1024 * 1024;
    for (end, patience, expected) in [
        (format!("SIP {size}\nM .\nS 250 2.0.0 at last\nREST QUIT"), 3000, "END 250 2.0.0 at last"),
        ("STALL".to_owned(), 500, "WRITE 451 4.4.2 "),
        ("TAKE 1000\nS 552 5.3.4 too big\nSTALL".to_owned(), 20_000, "WRITE 552 5.3.4 too big"),
    ] {
        let upto =
            "C MAIL FROM:<a@good.test>\nS 250 Ok\nC RCPT TO:<u@relay.test>\nS 250 Ok\nC DATA\nS 354 go";
        let script = script(&[BANNER, OFFER, "S 220 go\nTLS", AGAIN, upto, &end]);
        let scripted = ScriptedRelay::play(&[script]).await;
        let relay = scripted.relay_with(|settings| {
            settings.tls = Tls::Required;
            settings.reply_timeout = Duration::from_millis(patience);
        });
        let reply = timeout(Duration::from_secs(30), deliver(&relay, &message)).await.expect("no deadlock");
        assert!(reply.starts_with(expected), "{end}: {reply}");
        drop(relay);
        scripted.played().await;
    }
}

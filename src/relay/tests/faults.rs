//! A relay that is absent, silent, broken or gone, at every step: 4xx for the client, never a false 250.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::{Instant, pause, resume, timeout};

use crate::relay::tests::script::ScriptedRelay;
use crate::relay::tests::{IMPATIENCE, begin, deliver, permit, recipient, settings};
use crate::relay::{NextHop, Recipient, Relay};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nbody\r\n";
/// The message in a script.
const SCRIPTED: &str = "M Subject: x||body|.";

/// The line that the relay reads, its reply, and the step's name for the client.
const DIALOGUE: [(&str, &str, &str); 6] = [
    ("", "S 220 relay.test ESMTP", "MAIL"),
    ("C EHLO gate.test", "S 250-relay.test|250 SIZE", "MAIL"),
    ("C MAIL FROM:<a@good.test>", "S 250 2.1.0 Ok", "MAIL"),
    ("C RCPT TO:<u@relay.test>", "S 250 2.1.5 Ok", "RCPT"),
    ("C DATA", "S 354 go ahead", "DATA"),
    (SCRIPTED, "S 250 2.0.0 queued as 1", "END"),
];

/// The dialogue up to the reply of step `at`, with `fault` in place of that reply.
fn broken_at(at: usize, fault: &str) -> String {
    let mut steps: Vec<&str> = DIALOGUE[..at].iter().flat_map(|(heard, said, _)| [*heard, *said]).collect();
    steps.extend([DIALOGUE[at].0, fault]);
    steps.retain(|step| !step.is_empty());
    steps.join("\n")
}

/// Plays `fault` at each step of the dialogue; returns the client's reply for each.
async fn at_every_step(fault: &str, reply_timeout: Duration) -> Vec<String> {
    let steps = DIALOGUE.iter().enumerate().map(async |(at, (_, _, name))| {
        let scripted = ScriptedRelay::play(&[broken_at(at, fault)]).await;
        let relay = scripted.relay_with(|settings| settings.reply_timeout = reply_timeout);
        let reply = deliver(&relay, &[MESSAGE]).await;
        scripted.played().await;
        reply.strip_prefix(&format!("{name} ")).expect(&reply).to_owned()
    });
    join_all(steps).await
}

#[tokio::test]
async fn a_whole_dialogue_is_250() {
    let scripted = ScriptedRelay::play(&[broken_at(5, "S 250 2.0.0 queued as 1\nREST QUIT")]).await;
    assert_eq!(deliver(&scripted.relay(), &[MESSAGE]).await, "END 250 2.0.0 queued as 1");
    scripted.played().await;
}

#[tokio::test]
async fn a_missing_or_broken_reply_is_451_at_every_step() {
    let patient = Duration::from_secs(20);
    let rows = [
        ("silence", "REST", IMPATIENCE),
        ("half a reply and silence", "S 250-2.0.0 so\nREST", IMPATIENCE),
        ("closes", "", patient),
        ("closes within a reply", "S 250-2.0.0 so", patient),
        ("another protocol", "S HTTP/1.1 400 Bad Request\nREST", patient),
        ("two codes", "S 250-a|550 b\nREST", patient),
        ("two replies", "S 250 a|250 b\nREST", patient),
        ("endless line", "FLOOD 10485760", patient),
        ("a success that answers nothing", "S 299 what\nREST", patient),
        ("another command's success", "S 334 user\nREST", patient),
    ];
    for (name, fault, reply_timeout) in rows {
        for (at, reply) in at_every_step(fault, reply_timeout).await.iter().enumerate() {
            assert!(reply.starts_with("451 4.4.2 "), "{name} at step {at}: {reply}");
        }
    }
}

#[tokio::test]
async fn replies_are_not_taken_for_those_of_other_steps() {
    for (at, said) in [(2, "354 go"), (3, "354 go"), (4, "250 2.0.0 Ok"), (5, "354 go"), (5, "220 hello")] {
        let scripted = ScriptedRelay::play(&[broken_at(at, &format!("S {said}\nREST"))]).await;
        let reply = deliver(&scripted.relay(), &[MESSAGE]).await;
        assert!(reply.contains(" 451 4.4.2 "), "{said} at step {at}: {reply}");
        scripted.played().await;
    }
}

#[tokio::test]
async fn a_421_is_never_passed_on() {
    let replies = at_every_step("S 421 4.3.2 shutting down\nREST", Duration::from_secs(20)).await;
    for (at, reply) in replies.iter().enumerate() {
        let expected = if at == 0 { "451 4.4.1 " } else { "451 4.4.2 " };
        assert!(reply.starts_with(expected), "step {at}: {reply}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_gate_itself_is_451_and_one_of_the_mail_is_passed_on() {
    for said in ["450 4.2.0 later", "554 5.7.1 never", "550 no enhanced code", "552-5.3.4 too|552 5.3.4 big"]
    {
        let first_line = said.replace("552-5.3.4 too|552 5.3.4 big", "552 5.3.4 too");
        for (at, (_, _, name)) in DIALOGUE.iter().enumerate() {
            // after EHLO, HELO is tried
            let again = if at == 1 && said.starts_with('5') { "\nC HELO gate.test\nS 550 no" } else { "" };
            let end = if at == 0 { "REST" } else { "REST QUIT" };
            let script = broken_at(at, &format!("S {said}{again}\n{end}"));
            let scripted = ScriptedRelay::play(&[script]).await;
            let reply = deliver(&scripted.relay(), &[MESSAGE]).await;
            if at < 2 {
                assert!(reply.starts_with("MAIL 451 4.4.1 "), "{said} at step {at}: {reply}");
            } else {
                assert_eq!(reply, format!("{name} {first_line}"));
            }
            scripted.played().await;
        }
    }
}

#[tokio::test]
async fn an_unreachable_relay_is_451() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // a label over 63 octets is no name: the system's resolver fails without a query
    for (host, port) in [("127.0.0.1".to_owned(), free), (format!("{}.test", "x".repeat(64)), 25)] {
        let relay = Relay::new(settings(NextHop::Smtp { host, port }));
        let reply = begin(&relay).await.unwrap_err();
        assert!(reply.to_string().starts_with("451 4.4.1 "), "{reply}");
        assert!(relay.probe().await.is_err());
    }
}

#[tokio::test]
async fn a_silent_banner_costs_no_more_than_the_connect_timeout() {
    let scripted = ScriptedRelay::play(&["REST".into()]).await;
    let relay = scripted.relay_with(|settings| settings.connect_timeout = IMPATIENCE);
    let started = Instant::now();
    assert!(deliver(&relay, &[MESSAGE]).await.starts_with("MAIL 451 4.4.1 "));
    assert!(started.elapsed() < Duration::from_secs(10));
    scripted.played().await;
}

#[tokio::test]
async fn every_address_of_the_host_is_tried() {
    let script = broken_at(5, "S 250 2.0.0 queued as 1\nREST QUIT");
    let scripted = ScriptedRelay::play(&[script]).await;
    let NextHop::Smtp { port, .. } = scripted.hop() else { unreachable!() };
    // ::1 comes first in most hosts files, and has no listener for this port
    let relay = Relay::new(settings(NextHop::Smtp { host: "localhost".into(), port }));
    assert_eq!(deliver(&relay, &[MESSAGE]).await, "END 250 2.0.0 queued as 1");
    drop(relay);
    scripted.played().await;
}

/// The client's reply if the relay plays `fault` within the message, after its 354 and some octets.
async fn amid_the_message(fault: &str, reply_timeout: Duration) -> String {
    let scripted = ScriptedRelay::play(&[broken_at(4, &format!("S 354 go\nTAKE 1000\n{fault}"))]).await;
    let relay = scripted.relay_with(|settings| settings.reply_timeout = reply_timeout);
    let piece = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(1024);
    let message = vec![piece.as_slice(); 256]; // 16 MiB: more than fits into any socket buffer
    let reply = timeout(Duration::from_secs(20), deliver(&relay, &message)).await.expect("no deadlock");
    drop(relay);
    scripted.played().await;
    reply
}

#[tokio::test]
async fn an_early_reply_counts_if_it_is_a_refusal() {
    let patient = Duration::from_secs(20);
    for (fault, expected) in [
        ("S 552 5.3.4 too big\nSTALL", "WRITE 552 5.3.4 too big"),
        ("S 452 4.3.1 full", "WRITE 452 4.3.1 full"),
        ("S 421 4.3.2 bye", "WRITE 451 4.4.2 "),
        ("S 250 2.0.0 queued already\nSTALL", "WRITE 451 4.4.2 "),
        ("S so what\nSTALL", "WRITE 451 4.4.2 "),
        ("", "WRITE 451 4.4.2 "),
    ] {
        let reply = amid_the_message(fault, patient).await;
        assert!(reply.starts_with(expected), "{fault}: {reply}");
    }
}

#[tokio::test]
async fn a_relay_that_stops_reading_times_out() {
    assert!(amid_the_message("STALL", IMPATIENCE).await.starts_with("WRITE 451 4.4.2 "));
}

#[tokio::test]
async fn a_relay_that_reads_slowly_does_not_time_out() {
    // the relay takes longer for the 16 MiB than the timeout of one write
    let rest = 16 * 1024 * 1024 - 1000;
    let fault = format!("SIP {rest}\nM .\nS 250 2.0.0 at last\nREST QUIT");
    let started = Instant::now();
    let reply = amid_the_message(&fault, Duration::from_millis(1500)).await;
    assert_eq!(reply, "END 250 2.0.0 at last");
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_stray_250_before_the_final_dot_is_not_the_reply_to_it() {
    let scripted = ScriptedRelay::play(&[broken_at(4, "S 354 go|250 2.0.0 queued as 0\nREST")]).await;
    assert!(deliver(&scripted.relay(), &[MESSAGE]).await.starts_with("DATA 451 4.4.2 "));
    scripted.played().await;

    // sent later, when the client has read 354 already
    let script = broken_at(4, "S 354 go\nSTALL\nS 250 2.0.0 queued as 0\nREST");
    let said = script.lines().count() - 1;
    let scripted = ScriptedRelay::play(&[script]).await;
    let mut transaction = begin(&scripted.relay()).await.unwrap();
    transaction.data().await.unwrap();
    transaction.write(MESSAGE).await.unwrap();
    scripted.go_on();
    scripted.steps(said).await;
    let reply = transaction.finish(permit()).await;
    assert!(reply.to_string().starts_with("451 4.4.2 "), "{reply}");
    scripted.played().await;
}

#[tokio::test]
async fn the_timeout_for_the_final_dot_is_twice_that_for_other_replies() {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let late = |minutes: u64, said: &str| format!("PAUSE {}\nS {said}", 60_000 * minutes);
    // the step, the relay's script instead of its reply, the client's reply, the minutes until then
    let rows = [
        (5, format!("{}\nREST QUIT", late(9, "250 2.0.0 at last")), "250 2.0.0 at last", 9),
        (5, format!("{}\nREST", late(11, "250 2.0.0 too late")), "451 4.4.2 ", 10),
        (5, "REST".to_owned(), "451 4.4.2 ", 10),
        (4, format!("{}\nREST", late(6, "354 too late")), "451 4.4.2 ", 5),
    ];
    for (at, fault, expected, waited) in rows {
        let scripted = ScriptedRelay::play(&[broken_at(at, &fault)]).await;
        let relay = scripted.relay_with(|settings| settings.reply_timeout = minutes(5));
        let mut transaction = begin(&relay).await.unwrap();
        let began = Instant::now();
        let reply = async {
            if at == 4 {
                pause();
                return transaction.data().await.unwrap_err();
            }
            transaction.data().await.unwrap();
            transaction.write(MESSAGE).await.unwrap();
            pause();
            transaction.finish(permit()).await
        };
        let reply = reply.await;
        let elapsed = began.elapsed();
        drop(relay);
        assert!(reply.to_string().starts_with(expected), "{fault}: {reply}");
        assert_eq!(elapsed.as_secs() / 60, waited, "{fault}");
        resume();
    }
}

#[tokio::test]
async fn the_reply_to_a_dropped_call_is_not_taken_for_the_next_one() {
    let script = broken_at(4, "REST").replace("C DATA", "C RCPT TO:<v@relay.test>");
    let scripted = ScriptedRelay::play(&[script]).await;
    let mut transaction = begin(&scripted.relay()).await.unwrap();
    let path = recipient("v@relay.test");
    let unanswered = timeout(IMPATIENCE, transaction.rcpt(permit(), Recipient::new(&path))).await;
    assert!(unanswered.is_err(), "the relay does not answer");
    let reply = transaction.rcpt(permit(), Recipient::new(&path)).await;
    assert!(reply.to_string().starts_with("451 4.4.2 "), "{reply}");
    assert!(transaction.data().await.is_err());
    transaction.abandon().await;
    scripted.played().await;
}

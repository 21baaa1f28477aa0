//! What the owner of the From: domain asks for (contract 3.3), where a signature decides: through the daemon, to the dot.

use std::net::IpAddr;

use super::{HEADER, STRANGER, Signer, Site, good, without_id};
use crate::support::client::{Client, Reply};

/// All of these stand in one /24; in the world they are no neighbours.
const APART: &str = "[policy]\nmatch_prefix_v4 = 32\n";
const REJECTED: &str =
    "550 5.7.1 <ann@good.test>: good.test asks to reject mail that neither its SPF nor its DKIM vouches for";
/// An exchanger of list.test, which has a list and forwards.
const LIST: &str = "127.0.50.1";
const ZONE: &str = "
_dmarc.good TXT \"v=DMARC1; p=reject\"
list MX 10 mail.list
mail.list A 127.0.50.1
";
const STRICT: &str = "
_dmarc.good TXT \"v=DMARC1; p=reject; adkim=s\"
list MX 10 mail.list
mail.list A 127.0.50.1
";

async fn send(site: &Site, client: &str, mail_from: &str, message: &str) -> Reply {
    let client: IpAddr = client.parse().unwrap();
    let mut client = Client::greeted(client, site.address, "mail.list.test").await;
    client.deliver(mail_from, "user@here.test", message.as_bytes()).await
}

fn news() -> Signer {
    Signer::new("news.good.test", 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aligned_signature_is_what_the_owner_asks_for() {
    let site = Site::with_zone(APART, ZONE).await;
    let body = "Hello\r\nyou\r\n";
    let signed = good().sign(HEADER, body);
    let rows = [
        ("signed as the domain", signed.clone(), "250"),
        ("of the same organisation", news().sign(HEADER, body), "250"),
        ("no signature", format!("{HEADER}\r\n{body}"), REJECTED),
        ("another's signature", Signer::new("other.test", 3).sign(HEADER, body), REJECTED),
        ("another body", signed.replace("you", "YOU"), REJECTED),
        ("no such key", good().sign_with(HEADER, body, "absent", ""), REJECTED),
        ("a revoked key", good().sign_with(HEADER, body, "revoked", ""), REJECTED),
        (
            "a key that can't be looked up",
            good().sign_with(HEADER, body, "broken", ""),
            "451 4.4.3 <ann@good.test>",
        ),
    ];
    for (what, message, expected) in &rows {
        for reply in [
            send(&site, &STRANGER.to_string(), "bounces@good.test", message).await,
            send(&site, &STRANGER.to_string(), "bounces@other.test", message).await,
            site.send_chunks(message, 100).await,
        ] {
            assert!(without_id(&reply).starts_with(expected), "{what}: {reply:?}");
        }
    }
    assert_eq!(site.delivered().await, 6);
}

/// Names below another's domain are the sender's choice: they can't make the check of that domain fail for want of questions.
#[tokio::test(flavor = "multi_thread")]
async fn many_made_up_signers_of_the_organisation_turn_no_refusal_into_trouble() {
    let site = Site::with_zone(APART, ZONE).await;
    let body = "Hello\r\n";
    let spoiled = good().sign(HEADER, body);
    let (signature, rest) = spoiled.split_once("From:").unwrap();
    let made_up = |nth: usize| {
        let name = ["a", "b", "c", "d", "e"].map(|label| format!("{label}{nth}")).join(".");
        signature.replace("d=good.test", &format!("d={name}.good.test"))
    };
    let signers: String = (0..10).map(made_up).collect();
    let reply = send(&site, &STRANGER.to_string(), "b@other.test", &format!("{signers}From:{rest}")).await;
    assert_eq!(without_id(&reply), REJECTED);
    assert_eq!(site.delivered().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_record_a_signature_of_the_very_name_passes() {
    let zone = "_dmarc.good TXT \"x\"\n;! servfail _dmarc.good\n";
    let site = Site::with_zone(APART, zone).await;
    let stranger = STRANGER.to_string();
    assert_eq!(send(&site, &stranger, "b@other.test", &good().sign(HEADER, "x\r\n")).await.code, 250);
    for message in [news().sign(HEADER, "x\r\n"), format!("{HEADER}\r\nx\r\n")] {
        let reply = send(&site, &stranger, "b@other.test", &message).await;
        assert!(reply.text.starts_with("451 4.4.3 <ann@good.test>"), "{reply:?}");
    }
    assert_eq!(site.delivered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_alignment_is_the_name_itself() {
    let site = Site::with_zone(APART, STRICT).await;
    let stranger = STRANGER.to_string();
    assert_eq!(send(&site, &stranger, "bounces@other.test", &good().sign(HEADER, "x\r\n")).await.code, 250);
    let reply = send(&site, &stranger, "bounces@other.test", &news().sign(HEADER, "x\r\n")).await;
    assert_eq!(without_id(&reply), REJECTED);
    assert_eq!(site.delivered().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_signature_is_a_sign_of_the_way_where_the_envelope_holds() {
    let site = Site::with_zone(APART, ZONE).await;
    let body = "Hello\r\nyou\r\n";
    let footed = format!("{}-- \r\nthe list\r\n", good().sign(HEADER, body));
    let rows = [
        ("a list that adds a footer", LIST, "d-bounces@list.test", &footed, "250"),
        ("a bot with the same octets", "127.0.60.1", "d-bounces@list.test", &footed, REJECTED),
        ("an envelope of the same organisation", LIST, "bounces@good.test", &footed, REJECTED),
        ("no envelope", LIST, "", &footed, REJECTED),
        ("no key", LIST, "d@list.test", &good().sign_with(HEADER, "other\r\n", "absent", ""), REJECTED),
        (
            "another's broken signature",
            LIST,
            "d@list.test",
            &Signer::new("other.test", 3).sign(HEADER, body).replace("you", "YOU"),
            REJECTED,
        ),
        ("nothing", LIST, "d@list.test", &format!("{HEADER}\r\n{body}"), REJECTED),
        (
            "a list-id beside the broken signature",
            LIST,
            "d@list.test",
            &format!("List-Id: d <d.list.test>\r\n{footed}"),
            "250",
        ),
    ];
    for (what, client, mail_from, message, expected) in rows {
        let reply = send(&site, client, mail_from, message).await;
        assert!(without_id(&reply).starts_with(expected), "{what}: {reply:?}");
    }
    let log = site.daemon.logged("from.matches.dmarc_quarantine").await;
    assert!(log.contains("mail_from=<d-bounces@list.test>"), "{log}");
    assert_eq!(site.delivered().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_spf_settles_it_or_nothing_is_asked_for_the_body_is_not_waited_for() {
    let zone = "
_dmarc.good TXT \"v=DMARC1; p=reject\"
good TXT \"v=spf1 ip4:127.0.0.99 -all\"
other TXT \"v=spf1 -all\"
";
    let site = Site::with_zone(APART, zone).await;
    let spoiled = good().sign(HEADER, "Hello\r\n").replace("Hello", "HELLO");
    let reply = send(&site, &STRANGER.to_string(), "bounces@good.test", &spoiled).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    let asked_nothing = Signer::new("other.test", 3)
        .sign(&HEADER.replace("ann@good.test", "ann@other.test"), "Hello\r\n")
        .replace("Hello", "HELLO");
    let reply = send(&site, &STRANGER.to_string(), "bounces@good.test", &asked_nothing).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    let messages = site.daemon.terminate().await.messages();
    let results: Vec<String> = messages
        .into_iter()
        .map(|message| String::from_utf8(message).unwrap().replace("\n\t", " "))
        .collect();
    assert!(results.iter().all(|text| !text.contains("dkim_pending")), "{results:?}");
    let spf = "spf=pass smtp.mailfrom=good.test;";
    let dmarc = "dmarc=pass (reject) header.from=good.test";
    assert!(results.iter().any(|text| text.contains(spf) && text.contains(dmarc)), "{results:?}");
    let none = "dmarc=none header.from=other.test";
    assert!(results.iter().any(|text| text.contains(none)), "{results:?}");
}

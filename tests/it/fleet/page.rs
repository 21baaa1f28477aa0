//! The dashboard of one gate of a fleet, in a real Chromium: the decisions of all gates, and a gate that is away.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::redis::Redis;
use super::{Gate, Site, TOKEN};
use crate::dashboard::browser::{Browser, DESK, ENTER, ESCAPE, PHONE};
use crate::support::daemon::Daemon;

const ROWS: &str = "document.querySelectorAll('.decisions tbody tr').length";
const IDS: &str =
    "[...document.querySelectorAll('.decisions tbody a')].map((one) => one.hash.split('/')[1]).join()";
const GATES: &str = "[...document.querySelectorAll('.decisions .gate')].map((one) => one.textContent).join()";
const MISSING: &str = "document.getElementById('latest-missing')";

/// Opens a view of a gate's dashboard, with the token.
async fn open(page: &Browser, gate: &Gate, view: &str) {
    page.open(&format!("http://{}/{view}", gate.admin)).await;
    page.until("document.activeElement.name === 'token'").await;
    page.press(TOKEN).await;
    page.press(ENTER).await;
    page.until("document.getElementById('link').textContent === 'live'").await;
}

/// Greylists one; its id.
async fn refused_at(gate: &Gate, recipient: &str) -> String {
    let reply = gate.send(recipient).await.0;
    assert_eq!(reply.code, 450, "{}", reply.text);
    reply.text.split("(id ").nth(1).unwrap().trim_end_matches(')').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_decisions_of_all_gates_or_of_this_one() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let Some(page) = Browser::start(DESK).await else { return };
    let site = Site::new(redis.url());
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    one.sees(&[2]).await;
    let first = refused_at(&one, "a@here.test").await;
    let second = refused_at(&two, "b@here.test").await;
    open(&page, &one, "").await;
    page.until(&format!("{IDS} === '{second},{first}' && {GATES} === 'gate2.test,gate1.test'")).await;
    assert_eq!(page.text("document.getElementById('gates').checkVisibility()").await, "true");
    assert_eq!(page.text(&format!("{MISSING}.hidden")).await, "true");
    // More of them come by themselves, each at its place.
    let third = refused_at(&two, "c@here.test").await;
    page.until(&format!("{IDS} === '{third},{second},{first}'")).await;
    page.screenshot("fleet-light").await;
    page.look(PHONE).await;
    assert_eq!(page.overflow().await, 0);
    page.screenshot("fleet-narrow").await;
    page.look(DESK).await;

    page.click("#gates label:has([value='this'])").await;
    page.until(&format!("{IDS} === '{first}' && location.hash === '#traffic?gates=this'")).await;
    page.fill("#filters [name=rcpt]", "b@here.test").await;
    page.press(ENTER).await;
    page.until("document.getElementById('rows').textContent.includes('No decision fits')").await;
    assert_eq!(page.text("location.hash").await, "#traffic?rcpt=b%40here.test&gates=this");
    page.click("#gates label:has([value='all'])").await;
    page.until(&format!("{IDS} === '{second}' && location.hash === '#traffic?rcpt=b%40here.test'")).await;

    // The id of a decision of the other gate, and a permit for it.
    page.fill("#find input", &second.to_lowercase()).await;
    page.press(ENTER).await;
    page.until("document.querySelector('#decision .tree')").await;
    let shown = page.text("document.getElementById('decision').innerText").await;
    assert!(shown.contains("gate2.test (node 2)") && shown.contains("b@here.test"), "{shown}");
    page.click("#decision-body button.main").await;
    page.until("document.getElementById('permit').open").await;
    page.press(ENTER).await;
    page.until("document.getElementById('done-text').textContent.startsWith('Mail like ')").await;
    let permits = one.get("/api/v1/permits").await;
    assert_eq!(permits["permits"][0]["decision"], json!(second));
    page.press(ESCAPE).await;
    // Before the token was there, requests were refused.
    let trouble = page.trouble().await;
    assert!(trouble.iter().all(|text| text.contains("a status of 401")), "{trouble:#?}");
    page.quit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_away_is_named_and_comes_back_by_itself() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let Some(page) = Browser::start(DESK).await else { return };
    let site = Site::new(redis.url());
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    one.sees(&[2]).await;
    let mut ids = Vec::new();
    for at in 0..45 {
        ids.push(refused_at(&two, &format!("user{at}@here.test")).await);
    }
    let own = refused_at(&one, "own@here.test").await;
    two.daemon.signal("STOP");
    open(&page, &one, "").await;
    let named = format!(
        "{MISSING}.checkVisibility() && {MISSING}.textContent === 'Without the decisions of gate2.test (node 2): no answer within 2s'"
    );
    page.until(&format!("{named} && {IDS} === '{own}'")).await;
    page.screenshot("fleet-away-light").await;
    // An id of that gate says where it is.
    page.fill("#find input", &ids[0]).await;
    page.press(ENTER).await;
    let told = "document.getElementById('find-text').textContent";
    page.until(&format!(
        "{told}.includes('node 2 (gate2.test) has this decision and did not give it: no answer within 2s')"
    ))
    .await;

    two.daemon.signal("CONT");
    page.until(&format!("{MISSING}.hidden && {ROWS} === 40")).await;
    page.until("document.getElementById('older').checkVisibility()").await;
    page.click("#older").await;
    ids.reverse();
    ids.insert(0, own);
    page.until(&format!("{IDS} === '{}' && document.getElementById('older').hidden", ids.join(","))).await;
    page.quit().await;
}

/// A decision whose texts try to be markup, as a gate in other hands could send it.
fn hostile(decision: &serde_json::Value) -> String {
    let mut decision = decision.clone();
    let markup = json!("<img/src=x/onerror=hit()>");
    for field in [
        "helo",
        "mail_from",
        "rcpt",
        "from",
        "reason",
        "outcome",
        "relay_reply",
        "identity",
        "rule",
        "mode",
        "door",
    ] {
        decision[field] = markup.clone();
    }
    for field in ["ptr", "tags", "recipients"] {
        decision[field] = json!([markup]);
    }
    json!({ "decisions": [decision], "positions": ["64a1f0"], "next": null }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_another_gate_is_text_and_never_markup() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let Some(page) = Browser::start(DESK).await else { return };
    let site = Site::new(redis.url());
    let (home, smtp, admin) = site.prepare(2);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let advertised = listener.local_addr().unwrap();
    home.configure(
        &site.text(2, smtp, admin).replace(&format!("http://{admin}"), &format!("http://{advertised}")),
    );
    let two = Gate { daemon: Daemon::spawn(home.serve(), home).await, smtp, admin };
    redis.has("rmxd:1:n:2").await;
    let one = site.gate(1).await;
    one.sees(&[2]).await;
    refused_at(&two, "user@here.test").await;
    let answer = hostile(&two.get("/api/v1/decisions").await["decisions"][0]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            let length = answer.len();
            let start = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            drop(
                stream.write_all(format!("{start}content-length: {length}\r\n\r\n{answer}").as_bytes()).await,
            );
        }
    });
    open(&page, &one, "").await;
    page.until(&format!("{ROWS} === 1 && {GATES} === 'gate2.test'")).await;
    let listed = page.text("document.getElementById('rows').innerText").await;
    assert!(listed.contains("<img/src=x/onerror=hit()>"), "{listed}");
    // What the stranger answers for the decision itself is another.
    page.click(".decisions tbody a").await;
    page.until("document.querySelector('#decision .problem')").await;
    let made = "document.querySelectorAll('main img, dialog img, main script, dialog script').length";
    assert_eq!(page.text(made).await, "0");
    assert_eq!(page.text("typeof window.hit").await, "undefined");
    page.quit().await;
}

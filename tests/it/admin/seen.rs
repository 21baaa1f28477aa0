//! What the daemon says of its own past and present over the API: status, series, the largest, decisions.

use serde_json::{Value, json};

use crate::admin::Site;
use crate::admin::http::Request;
use crate::support::client::Client;

/// From `127.0.0.CLIENT`; the code of the last reply.
async fn send(site: &Site, client: u8, sender: &str) -> u16 {
    let mut client = Client::greeted([127, 0, 0, client].into(), site.smtp, "mail.good.test").await;
    client.deliver(sender, "user@here.test", b"From: a@good.test\r\n\r\nHello\r\n").await.code
}

/// Asks until the answer has what is wanted: the counters are looked at once a second.
async fn until(site: &Site, target: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1500 {
        let said = site.json(target).await;
        if wanted(&said) {
            return said;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{}", site.json(target).await);
}

fn names(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|row| row[key].as_str().unwrap().to_owned()).collect()
}

const KEPT: &str = "[relay]\ndomains = [\"here.test\"]";

#[tokio::test(flavor = "multi_thread")]
async fn the_status_and_the_series_tell_what_came_in() {
    let site = Site::remembering(KEPT).await;
    for (client, sender, code) in
        [(10, "a@good.test", 250), (12, "a@nomx.test", 550), (12, "b@nomx.test", 550)]
    {
        assert_eq!(send(&site, client, sender).await, code, "{sender}");
    }
    let status = until(&site, "/api/v1/status", |status| status["verdicts_per_second"] != json!(0.0)).await;
    assert_eq!(status["verdicts"], json!({ "accept": 1, "reject": 2, "defer": 0 }));
    assert_eq!((&status["hostname"], &status["mode"]), (&json!("gate.test"), &json!("enforce")));
    assert_eq!(status["connections"]["total"], 3);
    assert_eq!(status["dns"]["servers"][0]["address"], site.zone.address().to_string());
    assert_eq!(status["relay"]["next_hop"], "maildir:mail");
    for part in ["dns", "relay"] {
        assert_eq!(status[part]["ok"], true, "{status}");
    }
    assert_eq!(status["history"]["on"], true);
    assert!(status["cache"]["entries"].as_u64().unwrap() > 0, "{status}");

    let sum = |row: &Value| -> u64 {
        row["values"].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum()
    };
    let rows = |series: &Value| series["series"].as_array().unwrap().clone();
    let whole = |series: &Value| rows(series).iter().map(sum).sum::<u64>() == 3;
    let series = until(&site, "/api/v1/series", whole).await;
    let row = |reason: Value| {
        let row = rows(&series).into_iter().find(|row| row["reason"] == reason);
        let row = row.unwrap_or_else(|| panic!("{series}"));
        (row["values"].as_array().unwrap().len(), sum(&row))
    };
    assert_eq!((row(Value::Null), row(json!("no_mx"))), ((360, 1), (360, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_found_page_by_page_and_one_with_its_evidence() {
    let site = Site::remembering(KEPT).await;
    for number in 0..5 {
        send(&site, 12, &format!("a{number}@nomx.test")).await;
    }
    send(&site, 11, "a@nowhere.test").await;
    send(&site, 10, "a@good.test").await;
    let all = site.json("/api/v1/decisions").await;
    assert_eq!(all["decisions"].as_array().unwrap().len(), 7);
    assert_eq!(all["next"], Value::Null);
    assert_eq!(all["decisions"][0]["mail_from"], "<a@good.test>", "the newest first");

    let mut senders = Vec::new();
    let mut target = "/api/v1/decisions?domain=nomx.test&limit=2".to_owned();
    loop {
        let page = site.json(&target).await;
        senders.extend(names(&page["decisions"], "mail_from"));
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/api/v1/decisions?domain=nomx.test&limit=2&before={next}");
    }
    let expected: Vec<String> = (0..5).rev().map(|number| format!("<a{number}@nomx.test>")).collect();
    assert_eq!(senders, expected);
    for (filter, count) in [
        ("verdict=accept", 1),
        ("reason=no_such_domain", 1),
        ("client=127.0.0.12", 5),
        ("client=127.0.0.8/29&verdict=reject", 6),
        ("would=true", 0),
        ("since=1h", 7),
        ("until=1h", 0),
    ] {
        let found = site.json(&format!("/api/v1/decisions?{filter}")).await;
        assert_eq!(found["decisions"].as_array().unwrap().len(), count, "{filter}");
    }
    let id = all["decisions"][1]["id"].as_str().unwrap();
    let one = site.json(&format!("/api/v1/decisions/{}", id.to_lowercase())).await;
    assert_eq!((&one["id"], &one["reason"]), (&json!(id), &json!("no_such_domain")));
    assert!(one["reply"].as_str().unwrap().contains(id), "{one}");
    assert_eq!(one["findings"][0]["evidence"][0]["answer"], "NXDOMAIN", "{one}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_are_counted_by_reason_and_by_client() {
    let site = Site::remembering(KEPT).await;
    for (client, sender) in
        [(12, "a@nomx.test"), (11, "b@nomx.test"), (11, "a@nowhere.test"), (10, "a@good.test")]
    {
        send(&site, client, sender).await;
    }
    let top = site.json("/api/v1/top").await;
    assert_eq!(
        top,
        json!({
            "minutes": 60,
            "domains": [
                { "domain": "nomx.test", "reason": "no_mx", "count": 2 },
                { "domain": "nowhere.test", "reason": "no_such_domain", "count": 1 },
            ],
            "clients": [{ "client": "127.0.0.11", "count": 2 }, { "client": "127.0.0.12", "count": 1 }],
            "whole": true,
            "reaches": null,
        })
    );
    assert_eq!(site.json("/api/v1/would").await["would_be_refused"], 0, "what is refused is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_mode_tells_what_it_would_refuse() {
    let site = Site::remembering(&format!("{KEPT}\n[policy]\nmode = \"monitor\"")).await;
    for (client, sender) in
        [(12, "a@nomx.test"), (12, "b@nomx.test"), (11, "a@nowhere.test"), (10, "a@good.test")]
    {
        assert_eq!(send(&site, client, sender).await, 250);
    }
    let would = site.json("/api/v1/would?since=1h").await;
    assert_eq!((&would["would_be_refused"], &would["whole"]), (&json!(3), &json!(true)));
    assert_eq!(names(&would["senders"], "domain"), ["nomx.test", "nowhere.test"]);
    let opens = "# all mail from these clients passes, whatever sender it names";
    assert_eq!(would["exempt"], json!([opens, "clients = [\"127.0.0.11\", \"127.0.0.12\"]"]));
    let one = site.json("/api/v1/would?domain=nowhere.test").await;
    assert_eq!(one["exempt"], json!([opens, "clients = [\"127.0.0.11\"]"]));
    assert_eq!(names(&site.json("/api/v1/would?limit=1").await["senders"], "domain"), ["nomx.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_that_is_said_and_what_is_wrong_is_named() {
    let none = Site::start(KEPT).await;
    for target in ["/api/v1/decisions", "/api/v1/decisions/4KXN7Q2M", "/api/v1/top", "/api/v1/would"] {
        let answer = none.get(target).await;
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!((answer.status, detail.contains("history.path")), (404, true), "{target}: {detail}");
    }
    assert_eq!(
        none.json("/api/v1/status").await["history"],
        json!({ "on": false, "bytes": 0, "dropped": 0 })
    );

    let site = Site::remembering(KEPT).await;
    for (target, status, detail) in [
        ("/api/v1/decisions?limit=0", 400, "limit: \"0\" must be a number from 1 to 1000"),
        ("/api/v1/decisions?before=x", 400, "before: \"x\" is not a position in the history"),
        ("/api/v1/decisions?verdict=maybe", 400, "verdict: \"maybe\" is not allowed: accept, defer, reject"),
        ("/api/v1/decisions?client=me", 400, "client: \"me\" is neither an address nor a network"),
        (
            "/api/v1/decisions/4KXN7Q2M",
            404,
            "no decision \"4KXN7Q2M\" is kept: The history has no decision yet. The log",
        ),
        ("/api/v1/decisions/%3Cb%3E", 404, "no decision \"<b>\" is kept: has '<', which no id has"),
        ("/api/v1/top?minutes=20161", 400, "minutes: \"20161\" must be a number from 1 to 20160"),
        ("/api/v1/series?minutes=0", 400, "minutes: \"0\" must be a number from 1 to 20160"),
        ("/api/v1/would?would=false", 400, "\"would\": is not a parameter"),
        ("/ui/nothing.js", 404, "the page has no file \"nothing.js\""),
    ] {
        let answer = Request::get(target).send(site.admin).await;
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(answer.status == status && said.contains(detail), "{target}: {} {said}", answer.status);
    }
}

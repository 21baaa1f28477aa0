//! Decisions stay on the gate that made them, and any other finds them there.

use std::time::{Duration, SystemTime};

use rmxd::decision::{Id, Node};
use serde_json::Value;

use super::redis::Redis;
use super::{Gate, Site};
use crate::support::process::{Run, rmxd};

/// In a time zone that the gates don't have.
fn run(gate: &Gate, arguments: &[&str]) -> Run {
    let home = gate.daemon.home();
    let mut command = rmxd(arguments);
    command.env("TZ", "CET-1");
    Run::of(command.arg("--config").arg(home.file()).current_dir(home.path()))
}

/// Greylists one; its id.
async fn refused_at(gate: &Gate, recipient: &str) -> String {
    let reply = gate.send(recipient).await.0;
    assert_eq!(reply.code, 450, "{}", reply.text);
    reply.text.split("(id ").nth(1).unwrap().trim_end_matches(')').to_owned()
}

async fn pair(redis: &Redis) -> (Site, Gate, Gate) {
    let site = Site::new(redis.url());
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    one.sees(&[2]).await;
    two.sees(&[1]).await;
    (site, one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_another_gate_is_explained_like_ones_own() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let (_site, one, two) = pair(&redis).await;
    let id = refused_at(&one, "user@here.test").await;
    let (own, other) = (run(&one, &["explain", &id]), run(&two, &["explain", &id]));
    assert_eq!((own.code, other.code), (Some(0), Some(0)), "{own:?} {other:?}");
    assert_eq!(own.out, other.out);
    assert!(own.out.contains(" CET, node 1\n") && own.out.contains("is greylisted"), "{}", own.out);
    let (own, other) = (run(&one, &["explain", &id, "--json"]), run(&two, &["explain", &id, "--json"]));
    assert_eq!(own.json(), other.json());
    let answer = two.get(&format!("/api/v1/decisions/{id}")).await;
    assert_eq!((&answer["id"], &answer["node"]), (&Value::from(id.as_str()), &Value::from(1)));
    let answer = two.get(&format!("/api/v1/decisions/{id}?local=true")).await;
    assert_eq!(answer["status"], 404, "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("The history has no decision yet"), "{detail}");
    // Once it has some of its own, it doesn't say where one of another gate would be among them.
    let own = refused_at(&two, "other@here.test").await;
    assert_eq!(run(&two, &["explain", &own]).code, Some(0));
    let answer = two.get(&format!("/api/v1/decisions/{id}?local=true")).await;
    let detail = answer["detail"].as_str().unwrap();
    assert!(
        detail.contains(&format!("It is an id of node 1, and those that are kept ({own} of node 2")),
        "{detail}"
    );

    // One that is lost: where it would be at its own gate.
    let lost = Id::parse(&id).map(|id| Id::nth(id.number() + 16)).unwrap();
    let other = run(&two, &["explain", lost.as_str()]);
    assert_eq!(other.code, Some(1), "{other:?}");
    let why =
        format!("rmxd: node 1 (gate1.test): no decision \"{lost}\" is kept: It would come after the latest");
    assert!(other.err.starts_with(&why), "{}", other.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_the_fleet_names_the_gate_that_does_not_answer() {
    let Some(mut redis) = Redis::start(&[]).await else { return };
    let (site, one, two) = pair(&redis).await;
    let ids = [refused_at(&one, "user@here.test").await, refused_at(&two, "other@here.test").await];
    let found = run(&one, &["history", "--fleet"]);
    assert_eq!((found.code, found.err.as_str()), (Some(0), ""), "{}", found.out);
    assert!(ids.iter().all(|id| found.out.contains(id)), "{}", found.out);
    let found = run(&one, &["history", "--fleet", "--json", "--rcpt", "other@here.test"]).json();
    let found: Vec<_> =
        found.as_array().unwrap().iter().map(|it| (it["id"].clone(), it["node"].clone())).collect();
    assert_eq!(found, [(Value::from(ids[1].as_str()), Value::from(2))]);
    // What the clock of that zone showed five minutes ago.
    let local = SystemTime::now() + Duration::from_secs(3600 - 300);
    let local = humantime::format_rfc3339_seconds(local).to_string().replace('Z', "");
    for (times, expected) in [("--since", Some(0)), ("--until", Some(1))] {
        let found = run(&one, &["history", "--fleet", times, &local]);
        assert_eq!(found.code, expected, "{times} {local}: {found:?}");
        assert!(expected != Some(0) || found.out.starts_with("TIME (CET) "), "{}", found.out);
    }
    let none = run(&one, &["history", "--fleet", "--domain", "none.test"]);
    assert_eq!((none.code, none.out.as_str()), (Some(1), ""), "{none:?}");

    // Without Redis the gates still find each other.
    redis.kill();
    one.knows(false).await;
    assert_eq!(run(&one, &["explain", &ids[1]]).code, Some(0));

    two.daemon.signal("STOP");
    let began = tokio::time::Instant::now();
    let found = run(&one, &["history", "--fleet"]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(found.code, Some(75), "{found:?}");
    assert!(found.out.contains(&ids[0]) && !found.out.contains(&ids[1]), "{}", found.out);
    assert!(found.err.contains("node 2 (gate2.test) is missing: no answer within 2s"), "{}", found.err);
    let other = run(&one, &["explain", &ids[1]]);
    assert_eq!(other.code, Some(75), "{other:?}");
    assert!(other.err.contains("node 2 (gate2.test) has this decision and did not give it"), "{}", other.err);
    two.daemon.signal("CONT");

    // Another token, and a node that nobody knows.
    let text = site.text(2, two.smtp, two.admin).replace(super::TOKEN, "another");
    let mut two = two;
    two.daemon.home().configure(&text);
    two.daemon.reload().await;
    let found = run(&one, &["history", "--fleet"]);
    assert!(found.code == Some(75) && found.err.contains("it has another admin.token"), "{found:?}");
    let unknown = Id::of(7, Node::new(9).unwrap());
    let other = run(&one, &["explain", unknown.as_str()]);
    assert!(other.code == Some(75) && other.err.contains("node 9 has this decision"), "{other:?}");
}

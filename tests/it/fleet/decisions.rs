//! Decisions stay on the gate that made them, and any other finds them there.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rmxd::decision::{Id, Node};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::redis::Redis;
use super::{Gate, Site};
use crate::support::daemon::Daemon;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_merged_list_has_every_decision_once_page_by_page_whatever_is_filtered() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let (_site, one, two) = pair(&redis).await;
    let mut ids = Vec::new();
    for at in 0..9 {
        let gate = if at % 3 == 0 { &one } else { &two };
        ids.push(refused_at(gate, &format!("user{at}@here.test")).await);
    }
    ids.reverse();
    let paged = async |gate: &Gate, filters: &str| {
        let (mut found, mut before, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = gate.get(&format!("/api/v1/decisions?fleet=true&limit=2{filters}{before}")).await;
            assert_eq!(page["missing"], json!([]), "{page}");
            for row in page["decisions"].as_array().unwrap() {
                let node = row["node"].as_u64().unwrap();
                assert_eq!(row["hostname"], format!("gate{node}.test"), "{row}");
                found.push(row["id"].as_str().unwrap().to_owned());
            }
            pages += 1;
            let Some(next) = page["next"].as_str() else { return (found, pages) };
            before = format!("&before={next}");
        }
    };
    for gate in [&one, &two] {
        assert_eq!(paged(gate, "").await, (ids.clone(), 5));
    }
    assert_eq!(paged(&one, "&rcpt=user4@here.test").await.0, [ids[4].clone()]);
    assert_eq!(paged(&one, "&verdict=accept").await.0, [""; 0]);
    // What comes meanwhile shifts no page.
    let page = one.get("/api/v1/decisions?fleet=true&limit=4").await;
    refused_at(&one, "late@here.test").await;
    refused_at(&two, "later@here.test").await;
    let rest = format!("/api/v1/decisions?fleet=true&before={}", page["next"].as_str().unwrap());
    let rest = two.get(&rest).await;
    let rest: Vec<_> = rest["decisions"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(rest, ids[4..]);

    // The command asks for as many pages as it needs, and says when there are more.
    let all = run(&two, &["history", "--fleet", "--limit", "1500", "--json"]).json();
    assert_eq!(all.as_array().unwrap().len(), 11);
    crate::schema::assert_conforms("history", &all);
    let some = run(&two, &["history", "--fleet", "--limit", "3"]);
    assert!(some.code == Some(0) && some.out.ends_with("and older ones (--limit)\n"), "{some:?}");
    let wrong = one.get("/api/v1/decisions?fleet=true&before=64a1f0").await;
    assert!(wrong["detail"].as_str().unwrap().contains("take the value of \"next\""), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_looked_for_at_its_node_and_no_question_goes_round() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let (_site, one, two) = pair(&redis).await;
    let id = refused_at(&one, "user@here.test").await;
    let requests = async |gate: &Gate| {
        let found = gate.get("/api/v1/decisions?fleet=true").await;
        found["decisions"].as_array().unwrap().len()
    };
    let list = async |gate: &Gate, filters: &str| gate.get(&format!("/api/v1/decisions?{filters}")).await;
    for filters in [format!("id={id}"), format!("id={id}&fleet=true"), format!("id={}", id.to_lowercase())] {
        for gate in [&one, &two] {
            let found = list(gate, &filters).await;
            assert_eq!((&found["decisions"][0]["id"], &found["next"]), (&json!(id), &Value::Null), "{found}");
            assert_eq!(found["decisions"].as_array().unwrap().len(), 1);
        }
    }
    // A node that is asked looks at its own only, and says where each row is.
    let found = list(&two, &format!("id={id}&local=true")).await;
    assert_eq!(found, json!({ "decisions": [], "next": null, "positions": [] }));
    let found = list(&one, "local=true").await;
    assert_eq!(found["positions"].as_array().unwrap().len(), 1);
    assert!(found["decisions"][0].get("hostname").is_none());
    let wrong = list(&one, "local=true&fleet=true").await;
    assert!(
        wrong["detail"].as_str().unwrap().starts_with("local: is not allowed with fleet=true"),
        "{wrong}"
    );
    assert_eq!((requests(&one).await, requests(&two).await), (1, 1));

    // Of a node that nobody knows.
    let unknown = Id::of(7, Node::new(9).unwrap());
    let found = list(&two, &format!("id={unknown}")).await;
    let missing = json!([{ "node": 9, "hostname": null, "why": "no such node was there in the last day" }]);
    assert_eq!((&found["decisions"], &found["missing"]), (&json!([]), &missing));
    let run = run(&two, &["history", "--fleet", "--id", unknown.as_str()]);
    assert_eq!(run.code, Some(75), "{run:?}");
    assert!(
        run.err.contains("rmxd: node 9 is missing: no such node was there in the last day"),
        "{}",
        run.err
    );

    two.daemon.signal("STOP");
    let other = Id::of(7, Node::new(2).unwrap());
    let began = tokio::time::Instant::now();
    let found = list(&one, &format!("id={other}")).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let missing = json!([{ "node": 2, "hostname": "gate2.test", "why": "no answer within 2s" }]);
    assert_eq!((&found["decisions"], &found["missing"]), (&json!([]), &missing));
    let found = list(&one, "fleet=true").await;
    assert_eq!((&found["decisions"][0]["id"], &found["missing"]), (&json!(id), &missing));
    two.daemon.signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_gate_refused_is_let_in_by_its_id() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let (_site, one, two) = pair(&redis).await;
    let id = refused_at(&one, "user@here.test").await;
    let made = run(&two, &["allow", &id]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.contains(" lets in mail of good.test from 127.0.0.0/24, until "), "{}", made.out);
    let permits = two.get("/api/v1/permits").await;
    assert_eq!(permits["permits"][0]["decision"], json!(id), "{permits}");
    assert_eq!(two.code("new@here.test").await, 250);

    // One that was let in needs none, and one that its node hasn't got is none.
    let passed = two.get("/api/v1/decisions?verdict=accept").await["decisions"][0]["id"].clone();
    let passed = passed.as_str().unwrap().to_owned();
    let run_of = |id: &str| run(&one, &["allow", id]);
    let none = run_of(&passed);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.err.contains("of node 2 wasn't refused, so it needs no permit"), "{}", none.err);
    let lost = Id::parse(&passed).map(|id| Id::nth(id.number() + 16)).unwrap();
    let none = run_of(lost.as_str());
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(
        none.err.contains(&format!("node 2 (gate2.test): no decision \"{lost}\" is kept")),
        "{}",
        none.err
    );
    assert!(none.err.contains("rmxd allow --client NET --domain DOMAIN"), "{}", none.err);

    let unknown = Id::of(7, Node::new(9).unwrap());
    let none = run_of(unknown.as_str());
    assert_eq!(none.code, Some(75), "{none:?}");
    assert!(
        none.err.contains("node 9 has decision ") && none.err.contains("rmxd allow --client NET"),
        "{}",
        none.err
    );
    two.daemon.signal("STOP");
    let none = run_of(&passed);
    assert_eq!(none.code, Some(75), "{none:?}");
    let why = format!(
        "rmxd: node 2 (gate2.test) has decision {passed} and did not give it: no answer within 2s; try rmxd allow {passed} on \
         that machine, or say it by hand: rmxd allow --client NET --domain DOMAIN\n"
    );
    assert_eq!(none.err, why);
    two.daemon.signal("CONT");
}

/// What stands where a gate says that it answers.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    Says(&'static str),
    Endless,
    Drips,
}

/// Answers every request so, in JSON.
async fn stranger(what: Stranger) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                drop(stream.read(&mut head).await);
                let start = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                // An error is the end that the gate makes.
                let answered: std::io::Result<()> = async {
                    match what {
                        Stranger::Says(text) => {
                            let length = text.len();
                            let answer = format!("{start}content-length: {length}\r\n\r\n{text}");
                            stream.write_all(answer.as_bytes()).await
                        }
                        Stranger::Endless => {
                            stream.write_all(format!("{start}\r\n{{\"decisions\":[").as_bytes()).await?;
                            let part = "[],".repeat(20_000);
                            loop {
                                stream.write_all(part.as_bytes()).await?;
                            }
                        }
                        Stranger::Drips => {
                            stream.write_all(format!("{start}\r\n").as_bytes()).await?;
                            loop {
                                stream.write_all(b" ").await?;
                                tokio::time::sleep(Duration::from_millis(100)).await;
                            }
                        }
                    }
                }
                .await;
                drop(answered);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_gate_costs_two_seconds_and_little_memory() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let rows = [
        (Stranger::Says("not JSON"), "what answers there is no rmxd"),
        (Stranger::Says("[]"), "it answers with something else"),
        (Stranger::Says(r#"{"decisions":[],"next":null}"#), "it answers with something else"),
        (
            Stranger::Says(r#"{"decisions":[{}],"positions":["1"],"next":null}"#),
            "it answers with something else",
        ),
        (
            Stranger::Says(r#"{"decisions":["<script>"],"positions":["x"],"next":7}"#),
            "it answers with something else",
        ),
        (Stranger::Endless, "what answers there is no rmxd"),
        (Stranger::Drips, "no answer within 2s"),
    ];
    for (what, why) in rows {
        redis.cli(&["FLUSHALL"]);
        let site = Site::new(redis.url());
        // The second gate says that it answers where the stranger is.
        let (home, smtp, admin) = site.prepare(2);
        let advertised = stranger(what).await;
        let text = site.text(2, smtp, admin);
        home.configure(&text.replace(&format!("http://{admin}"), &format!("http://{advertised}")));
        let two = Gate { daemon: Daemon::spawn(home.serve(), home).await, smtp, admin };
        redis.has("rmxd:1:n:2").await;
        let one = site.gate(1).await;
        one.sees(&[2]).await;
        let refused = refused_at(&one, "user@here.test").await;
        let of_two = refused_at(&two, "other@here.test").await;

        let memory = one.daemon.memory();
        let began = tokio::time::Instant::now();
        let list = one.get("/api/v1/decisions?fleet=true&limit=1000").await;
        assert!(began.elapsed() < Duration::from_secs(4), "{what:?}: {:?}", began.elapsed());
        assert_eq!(list["decisions"].as_array().unwrap().len(), 1, "{what:?}: {list}");
        assert_eq!(list["decisions"][0]["id"], json!(refused), "{what:?}");
        let missing = &list["missing"][0];
        assert_eq!((&missing["node"], &missing["hostname"]), (&json!(2), &json!("gate2.test")), "{what:?}");
        assert!(missing["why"].as_str().unwrap().starts_with(why), "{what:?}: {missing}");
        let one_decision = one.get(&format!("/api/v1/decisions/{of_two}")).await;
        assert_eq!(one_decision["status"], 504, "{what:?}: {one_decision}");
        let permit = run(&one, &["allow", &of_two]);
        assert_eq!(permit.code, Some(75), "{what:?}: {permit:?}");
        // An answer of a thousand decisions may have 4 MiB, and is never parsed where it has more.
        let grown = one.daemon.peak_memory().saturating_sub(memory);
        assert!(grown < 48 << 10, "{what:?}: {grown} KiB");
    }
}

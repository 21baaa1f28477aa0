//! Which nodes there are, and the connections that clients have at all of them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::redis::Redis;
use super::{CLIENT, Gate, Site};
use crate::support::client::Client;
use crate::support::process::{Run, SOON, rmxd};

const OTHER_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 9));

/// The code of the greeting.
async fn greeting(gate: &Gate, from: IpAddr) -> (Client, u16) {
    let mut client = Client::connect(from, gate.smtp).await;
    let code = client.reply().await.code;
    (client, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_at_another_gate_count_for_the_limit_of_a_client() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::new(redis.url());
    site.cluster = "[limits]\nconnections_per_client = 4".to_owned();
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    two.sees(&[1]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (client, code) = greeting(&one, CLIENT).await;
        assert_eq!(code, 220);
        held.push(client);
    }
    // Within four seconds the other gate has room for one more.
    let began = Instant::now();
    loop {
        let (first, second) = (greeting(&two, CLIENT).await, greeting(&two, CLIENT).await);
        assert_eq!(first.1, 220);
        if second.1 == 421 {
            break;
        }
        assert!(began.elapsed() < SOON, "the other gate doesn't count them");
        drop((first, second));
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(greeting(&two, OTHER_CLIENT).await.1, 220, "another client");
    drop(held);
    let began = Instant::now();
    loop {
        let clients = [greeting(&two, CLIENT).await, greeting(&two, CLIENT).await];
        if clients.iter().all(|(_, code)| *code == 220) {
            break;
        }
        assert!(began.elapsed() < SOON, "the other gate still counts them");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_fleet_and_what_is_wrong() {
    let Some(mut redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let (one, two) = (site.gate(1).await, site.gate(2).await);
    one.sees(&[2]).await;
    let status = |gate: &Gate| {
        let home = gate.daemon.home();
        let mut command = rmxd(&["status", "--config"]);
        let run = Run::of(command.arg(home.file()).current_dir(home.path()));
        (run.code, run.out.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let (code, text) = status(&one);
    let fleet = format!("fleet node 1 with 2 gate2.test; redis://127.0.0.1:{}/0 answers", redis.port());
    assert!(code == Some(0) && text.contains(&fleet), "{code:?} {text}");
    redis.kill();
    one.knows(false).await;
    let (code, text) = status(&one);
    assert!(code == Some(1) && text.contains("fleet node 1 goes on alone"), "{code:?} {text}");
    redis.again().await;
    two.sees(&[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_say_which_node_has_the_decision() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let gate = site.gate(5).await;
    let reply = gate.send(super::USER).await.0;
    let id = reply.text.split("(id ").nth(1).unwrap().trim_end_matches(')').to_owned();
    assert_eq!(gate.get(&format!("/api/v1/decisions/{id}")).await["node"], 5);
    let log = gate.daemon.logged(&format!("id={id} node=5 ")).await;
    assert!(log.contains("greylisted"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gates_with_one_number_are_an_error_in_the_log() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let site = Site::new(redis.url());
    let (one, _two) = (site.gate(1).await, site.gate(1).await);
    one.daemon.logged("another gate has this cluster.node too").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_fleet() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let mut site = Site::with_delay(String::new(), Duration::from_millis(300));
    site.redis = redis.url();
    let one = site.gate(1).await;
    let mut two = site.gate(2).await;
    assert_eq!(one.code(super::USER).await, 450);
    sleep(Duration::from_millis(400)).await;
    let text = site.text(2, two.smtp, two.admin);
    // To a server that refuses: nothing changes.
    let locked = Redis::start(&["--requirepass", "other"]).await.unwrap();
    two.daemon.home().configure(&text.replace(&redis.url(), &locked.url()));
    let log = two.daemon.reload().await;
    assert!(log.contains("not reloaded") && log.contains("NOAUTH"), "{log}");
    assert!(two.is_up().await);
    // Alone, and together again with another prefix and another number.
    let alone = text
        .replace(&format!("redis = \"{}\"", redis.url()), "redis = \"\"")
        .replace("advertise = \"http", "#");
    two.daemon.home().configure(&alone);
    assert!(two.daemon.reload().await.contains("reloaded hostname"));
    assert!(two.get("/readyz").await.get("cluster").is_none());
    two.daemon.home().configure(&text.replace("node = 2", "node = 3\ntimeout = \"200ms\""));
    assert!(two.daemon.reload().await.contains("reloaded hostname"));
    assert_eq!(two.get("/api/v1/status").await["cluster"]["node"], 3);
    assert_eq!(two.code(super::USER).await, 250);
}

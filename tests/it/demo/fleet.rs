//! `rmxd demo --fleet`: the tour, the demo as it is tried by hand, and the Redis that it starts and ends.

use std::fs;
use std::io::BufReader;
use std::process::Command;

use serde_json::Value;

use super::{Running, demo, is_empty};
use crate::support::process::{self, Run, SOON, eventually, rmxd, signal};

fn step<'a>(steps: &'a [Value], name: &str) -> &'a Value {
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("{name} is not there"))
}

/// `gate 1 replies 450 ...`, one line for each frame.
fn frames(step: &Value) -> String {
    let text = |frame: &Value, name: &str| frame[name].as_str().unwrap().to_owned();
    let frames = step["frames"].as_array().unwrap().iter();
    frames.map(|it| format!("{} {} {}\n", text(it, "from"), text(it, "what"), text(it, "text"))).collect()
}

/// The processes whose command line has this folder.
fn servers_of(folder: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let lines = entries.filter_map(|path| fs::read_to_string(path).ok());
    lines.filter(|line| line.contains("redis-server") && line.contains(folder)).collect()
}

#[test]
fn two_gates_share_what_they_know_and_go_on_without_redis() {
    if process::program("redis-server").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let ran = Run::of(&mut demo(scratch.path(), &["--fleet", "--once", "--json"]));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    assert!(is_empty(scratch.path()));
    let steps: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    for step in &steps {
        assert_eq!((&step["as_expected"], &step["error"]), (&Value::Bool(true), &Value::Null), "{step:#}");
        assert!(!step["checks"].as_array().unwrap().is_empty(), "{step:#}");
    }
    let rows = [
        (
            "greylisted",
            "gate 1 replies 450 4.7.1 <ann@good.test>: good.test is greylisted, try again in 3 seconds",
        ),
        ("greylisted", "Redis holds rmxd:1:g:"),
        ("passed", "gate 2 replies 250 2.0.0 "),
        ("explained", "because of mail_from: matches greylisted"),
        ("permit", "gate 1 replies 550 5.1.8 "),
        ("permit", "gate 1 made permit "),
        ("permit", "gate 2 replies 250 2.0.0 "),
        ("away", "gate 1 replies 250 2.0.0 "),
        ("away", "gate 2 replies 450 4.7.1 "),
        ("away", "Redis is away: this node goes on alone"),
        ("away", "gate 1 /readyz 200, \"cluster\": \"away\""),
        ("back", "Redis is back"),
        ("back", "gate 2 /readyz 200, \"cluster\": \"up\""),
    ];
    for (name, text) in rows {
        let shown = frames(step(&steps, name));
        assert!(shown.contains(text), "{name}: {text:?} is not in\n{shown}");
    }
    // What Redis holds names nobody.
    let held = frames(step(&steps, "greylisted"));
    let held = held.lines().find(|line| line.starts_with("Redis ")).unwrap();
    assert!(!held.contains("good.test") && !held.contains("127.0."), "{held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_tour_the_fleet_can_be_tried_and_redis_ends_with_the_demo() {
    if process::program("redis-server").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Running::start_with(scratch.path(), &["--fleet"]);
    let mut output = BufReader::new(demo.0.stdout.take().unwrap());
    let page = demo.read_to(&mut output, "Try it by hand");
    assert!(page.contains("✓ all as expected") && !page.contains(['\x1b', '\r', '✗']), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 120 && line.trim_end() == line), "{page}");
    assert_eq!(servers_of(scratch.path().to_str().unwrap()).len(), 1);

    let by_hand = |line: &str| {
        let run = Command::new("sh").args(["-c", line.trim()]).env_clear().output().unwrap();
        Run::from(run)
    };
    let mut command = |text: &str| demo.read_to(&mut output, text).lines().last().unwrap().to_owned();
    let explain = command(" explain ");
    let explained = by_hand(&explain);
    assert!(explained.code == Some(0) && explained.out.contains(", node 1\n"), "{explain}\n{explained:?}");
    let history = command(" history --fleet ");
    // The first gate looks for others every ten seconds.
    let both = eventually("the decisions of both gates", SOON, || {
        let run = by_hand(&history);
        (run.code == Some(0) && run.out.contains("away@demo.test")).then_some(run.out)
    })
    .await;
    assert!(both.contains("you@demo.test"), "{both}");
    let keys = command("redis-cli -s ");
    if process::program("redis-cli").is_some() {
        let keys = Run::from(Command::new("sh").args(["-c", keys.trim()]).output().unwrap());
        assert!(keys.out.contains("rmxd:1:n:1") && keys.out.contains("rmxd:1:g:"), "{keys:?}");
    }
    assert_eq!(demo.terminate(), Some(0));
    assert!(is_empty(scratch.path()));
    assert_eq!(servers_of(scratch.path().to_str().unwrap()), [""; 0]);
}

#[test]
fn ctrl_c_in_the_tour_ends_redis_too() {
    if process::program("redis-server").is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Running::start_with(scratch.path(), &["--fleet"]);
    let mut output = BufReader::new(demo.0.stdout.take().unwrap());
    demo.read_to(&mut output, "rmxd demo --fleet");
    signal(demo.0.id(), "INT");
    assert_eq!(demo.0.wait().unwrap().code(), Some(75));
    assert!(is_empty(scratch.path()));
    assert_eq!(servers_of(scratch.path().to_str().unwrap()), [""; 0]);
}

#[test]
fn without_redis_it_says_how_to_get_one_and_another_door_is_wrong_usage() {
    let scratch = tempfile::tempdir().unwrap();
    let wrong = Run::of(&mut demo(scratch.path(), &["--fleet", "--door", "milter"]));
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    let help = Run::of(&mut rmxd(&["demo", "--help"]));
    assert!(help.out.contains("--fleet") && help.out.contains("69 "), "{}", help.out);
    let ran = Run::of(demo(scratch.path(), &["--fleet", "--once"]).env("PATH", scratch.path()));
    assert_eq!(ran.code, Some(69), "{ran:?}");
    let why = "rmxd demo: --fleet starts a Redis server of its own, and there is neither redis-server nor valkey-server on this \
               machine: apt install redis-server (Debian), or install Valkey\n";
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", why));
    assert!(is_empty(scratch.path()));
}

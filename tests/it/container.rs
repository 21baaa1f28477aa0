//! The Containerfile, as far as it can be held to something without building it: what it copies is there, its compiler is the
//! one that the crate asks for, and its health check tells a daemon from none.

mod compose;

use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Daemon, configuration};
use crate::support::process::{self, SOON, free_address};

fn instructions() -> Vec<String> {
    let text = read("Containerfile");
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_is_copied_is_there_and_the_compiler_is_ours() {
    let instructions = instructions();
    let copies = instructions.iter().filter_map(|line| line.strip_prefix("COPY "));
    let mut sources = 0;
    for line in copies.filter(|line| !line.starts_with("--from")) {
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{line}");
            sources += 1;
        }
    }
    assert!(sources >= 6, "{instructions:?}");
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(
        instructions[0].starts_with(&format!("FROM rust:{}-", version.trim_matches('"'))),
        "{instructions:?}"
    );
    // what the port is changed from has to be what the package's configuration says
    assert!(read("systemd/debian/rmxd.toml").contains("127.0.0.1:2525"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_a_daemon_from_none() {
    let (smtp, admin) = (free_address(), free_address());
    let check = instructions().iter().find(|line| line.starts_with("HEALTHCHECK ")).unwrap().clone();
    let (_, words) = check.split_once(" CMD ").unwrap();
    let words: Vec<String> = serde_json::from_str(words).unwrap();
    let script = words[2].replace("127.0.0.1/8025", &format!("127.0.0.1/{}", admin.port()));
    assert_ne!(script, words[2]);
    let healthy = async || {
        let mut command = Command::new(&words[0]);
        command.args([&words[1], &script]);
        process::run(&mut command, Vec::new(), SOON).await.status.success()
    };
    assert!(!healthy().await);
    let text = configuration("gate.test", &[smtp], free_address(), "");
    let set = format!("listen.admin={admin}");
    let daemon = Daemon::start(&text, &["--set", &set]).await;
    assert!(healthy().await);
    daemon.terminate().await;
}

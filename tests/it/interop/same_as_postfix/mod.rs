//! Monitor mode and exemptions change nothing for the sender: what a Postfix alone takes is taken by the same Postfix behind
//! rmxd, with the same envelope and the same content (contract 1.9).
//!
//! The inputs stand in `inputs.table`. Each is played to Postfix alone, to rmxd in monitor mode and to rmxd as an exempt
//! client. What Postfix alone does is observed, not written down. A difference needs an item in "What is different
//! then" of systemd/README.md, and an item there that names a reply code has to be seen.

mod input;
mod session;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::gate;
use super::mail;
use super::postfix::Postfix;
use crate::support::process;
use crate::support::readme;
use crate::support::zone::Zone;
use input::Input;
use session::Played;

/// The address of mail.good.test, which is the exchanger of good.test.
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const EXEMPT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 29));
const SIDE_BY_SIDE: usize = 16;
const SOON: Duration = Duration::from_secs(20);

/// Every recipient of relay.test exists, and so do those without a domain, as in `mydestination = $myhostname`.
const MAIN_CF: &str = "smtpd_tls_security_level = none
virtual_mailbox_domains = relay.test, mail.relay.test, [127.0.0.1]
virtual_mailbox_maps = static:user/
";

const MONITOR: &str = "[policy]\nmode = \"monitor\"\n[exempt]\nclients = [\"127.0.0.29\"]\n";

/// How the three played one input, in the order of [`WAYS`].
type Three = [Played; 3];
const WAYS: [&str; 3] = ["Postfix alone", "monitor", "exempt"];

#[tokio::test(flavor = "multi_thread")]
async fn what_postfix_takes_alone_it_takes_behind_rmxd_but_for_what_the_guide_names() {
    let Some(postfix) = Postfix::start_with(|_| MAIN_CF.to_owned()) else { return };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, MONITOR).await;
    let inputs = input::table();
    let servers = [(EXCHANGER, postfix.address()), (EXCHANGER, gate.address()), (EXEMPT, gate.address())];
    let played = play(&inputs, servers).await;
    postfix.wait_for_empty_queue().await;

    let stored = Stored::of(&postfix, &played).await;
    let rows = readme::differences();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (input, three) in inputs.iter().zip(&played) {
        let allowed = input.difference.as_deref().map(|words| {
            rows.iter()
                .find(|row| row.what.starts_with(words))
                .unwrap_or_else(|| panic!("systemd/README.md has no {words:?}"))
        });
        for (at, way) in WAYS.iter().enumerate().skip(1) {
            let found = difference(&stored, &three[0], &three[at]);
            let expected = allowed.is_some() && (*way == "monitor" || !input.not_exempt);
            if found.is_some() != expected {
                wrong.push(format!(
                    "{way}: {}\n    {}",
                    input.line,
                    found.as_deref().unwrap_or("no difference")
                ));
            }
            seen.extend(allowed.filter(|_| found.is_some()).map(|row| row.what.as_str()));
        }
    }
    let unseen = rows.iter().filter(|row| row.is_refusal() && !seen.contains(row.what.as_str()));
    wrong.extend(unseen.map(|row| format!("systemd/README.md claims what was not seen: {row:?}")));
    assert!(wrong.is_empty(), "{} of {} inputs:\n{}", wrong.len(), inputs.len(), wrong.join("\n"));

    let taken = played.iter().filter(|three| three[0].queue_id().is_some()).count();
    assert!(inputs.len() > 150 && taken > 100, "{taken} of {} were taken by Postfix alone", inputs.len());
}

async fn play(inputs: &[Input], servers: [(IpAddr, SocketAddr); 3]) -> Vec<Three> {
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut sessions = JoinSet::new();
    for (at, input) in inputs.iter().cloned().enumerate() {
        let places = Arc::clone(&places);
        sessions.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let [alone, monitor, exempt] = servers.map(|(from, to)| session::play(&input, from, to));
            let (alone, monitor, exempt) = tokio::join!(alone, monitor, exempt);
            (at, [alone, monitor, exempt])
        });
    }
    let mut played = sessions.join_all().await;
    played.sort_by_key(|(at, _)| *at);
    played.into_iter().map(|(_, three)| three).collect()
}

/// What differs between Postfix alone and Postfix behind rmxd.
fn difference(stored: &Stored, alone: &Played, behind: &Played) -> Option<String> {
    match (alone.queue_id(), behind.queue_id()) {
        (Some(alone), Some(behind)) => {
            let (alone, behind) = (stored.message(alone), stored.message(behind));
            (alone != behind).then(|| format!("alone {alone}\n    behind {behind}"))
        }
        // the reply to the first command that failed, or its class alone: the words are each server's own
        (None, None) if alone.class() == behind.class() => None,
        _ => Some(format!("alone {}\n    behind {}", alone.last(), behind.last())),
    }
}

/// Postfix's log and its mailbox.
struct Stored {
    log: String,
    files: Vec<Vec<u8>>,
}

impl Stored {
    /// When all that was taken is there.
    async fn of(postfix: &Postfix, played: &[Three]) -> Self {
        let taken: Vec<&str> = played.iter().flatten().filter_map(Played::queue_id).collect();
        let all_logged = || {
            let log = postfix.log();
            taken.iter().all(|id| log.contains(&format!(" {id}: removed"))).then_some(log)
        };
        let log = process::eventually("the log of all messages", SOON, all_logged).await;
        let files = postfix.mailbox("user").iter().map(|file| std::fs::read(file).unwrap()).collect();
        Self { log, files }
    }

    /// Its envelope as logged, and its content without the trace fields.
    fn message(&self, id: &str) -> String {
        let mut text = String::new();
        for line in self.log.lines().filter(|line| line.contains(&format!(" {id}: "))) {
            for field in ["from=<", "to=<", "orig_to=<"] {
                let start = line.find(&format!(" {field}"));
                let rest = start.and_then(|at| line.get(at..)).unwrap_or_default();
                // up to what Postfix writes behind an address
                let end =
                    [">, size=", ">, orig_to=", ">, relay="].iter().filter_map(|end| rest.find(end)).min();
                text.push_str(end.and_then(|end| rest.get(..=end)).unwrap_or_default());
            }
        }
        let named = format!(" id {id}\n");
        let of_id = |file: &&Vec<u8>| file.windows(named.len()).any(|part| part == named.as_bytes());
        let file = self.files.iter().find(of_id).map(Vec::as_slice).unwrap_or_default();
        let (trace, content) = mail::split_trace(file);
        let trace = String::from_utf8_lossy(trace);
        for line in trace.lines().filter(|line| {
            ["Return-Path: ", "X-Original-To: ", "Delivered-To: "].iter().any(|name| line.starts_with(name))
        }) {
            text.push_str(&format!(" {line}"));
        }
        format!("{text} {}", content.escape_ascii())
    }
}

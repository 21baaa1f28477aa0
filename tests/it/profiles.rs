//! What each shipped configuration does with senders as they are today, as `config/README.md` lists it.

use serde_json::Value;

use crate::support::readme;
use crate::support::zone::Zone;

const PROFILES: [&str; 4] = ["rmxd.toml", "monitor.toml", "strict.toml", "ladder.toml"];

/// All of these stand in 127.0.0.0/24; in the world they are no neighbours.
const APART: &str = "--set policy.match_prefix_v4=32";

/// Who sends, and how.
const SENDERS: [(&str, &str); 9] = [
    (
        "a sender as it should be",
        "--client 127.0.0.10 --helo mail.good.test --mail-from ann@good.test --from ann@good.test",
    ),
    (
        "a big provider: MX and outgoing hosts apart",
        "--client 127.0.0.41 --helo out41.bigmail-hosting.test --mail-from ann@bigmail.test --from ann@bigmail.test",
    ),
    (
        "a newsletter, from a sub-domain without MX",
        "--client 127.0.0.34 --helo news.shop.test --mail-from bounce@news.shop.test --from offers@news.shop.test",
    ),
    (
        "a mailing list: its own envelope, the author's From:",
        "--client 127.0.0.27 --helo mail.bulk.test --mail-from crew-bounces@bulk.test --from ann@good.test",
    ),
    (
        "a forwarder without SRS",
        "--client 127.0.0.42 --helo mail.forward.test --mail-from ann@bigmail.test --from ann@bigmail.test",
    ),
    (
        "a company with two lines: over the first",
        "--client 127.0.1.1 --helo line1.twolines.test --mail-from ann@twolines.test --from ann@twolines.test",
    ),
    (
        "the same over the second, which no MX host names",
        "--client 127.0.1.2 --helo line2.twolines.test --mail-from ann@twolines.test --from ann@twolines.test",
    ),
    (
        "a spoofer in the name of a real domain",
        "--client 127.0.0.11 --helo mail.good.test --mail-from ann@good.test --from ann@good.test",
    ),
    (
        "a spoofer in a made-up name",
        "--client 127.0.0.11 --helo nowhere.test --mail-from ann@nowhere.test --from ann@nowhere.test",
    ),
];

#[test]
fn each_profile_does_with_each_sender_what_its_document_says() {
    let zone = Zone::start();
    let mut list = String::new();
    for (sender, arguments) in SENDERS {
        let outcomes = PROFILES.map(|profile| {
            let config = format!("{}/config/{profile}", env!("CARGO_MANIFEST_DIR"));
            let run = zone.check(&format!("{arguments} --json --config {config} {APART}"));
            let decided: Value =
                serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{sender}: {}", run.err));
            outcome(&decided)
        });
        list.push_str(&item(sender, &outcomes));
    }
    let document = readme::text("config/README.md");
    assert!(document.contains(&format!("\n\n{list}\n")), "config/README.md should have\n{list}\n");
}

/// The outcomes of one sender; profiles with the same outcome share a line.
fn item(sender: &str, outcomes: &[String; 4]) -> String {
    let mut item = format!("- {sender}");
    if outcomes.iter().all(|outcome| *outcome == outcomes[0]) {
        return item + &format!("\n  - all four: {}\n", outcomes[0]);
    }
    for (at, outcome) in outcomes.iter().enumerate() {
        if !outcomes[..at].contains(outcome) {
            let same = PROFILES.iter().zip(outcomes).filter(|(_, other)| *other == outcome);
            let names: Vec<_> = same.map(|(profile, _)| format!("`{profile}`")).collect();
            item.push_str(&format!("\n  - {}: {outcome}", names.join(", ")));
        }
    }
    item + "\n"
}

/// The reply, or the rung by which MAIL FROM's client was known for the domain's own.
fn outcome(decided: &Value) -> String {
    let text = |name: &str| decided[name].as_str().unwrap_or_default().to_owned();
    if text("verdict") != "accept" {
        let reply = text("reply");
        let (reason, code) = (text("reason"), reply.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        return match text("mode").as_str() {
            "monitor" => format!("accepted, logged: `{reason}`"),
            _ => format!("{code} `{reason}`"),
        };
    }
    let findings = decided["findings"].as_array().unwrap();
    let matches =
        findings.iter().find(|found| found["identity"] == "mail_from" && found["rule"] == "matches");
    match matches.and_then(|found| found["rung"].as_str()) {
        Some(rung) => format!("accepted ({rung})"),
        None => "accepted".to_owned(),
    }
}

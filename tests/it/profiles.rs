//! What each shipped configuration does with senders as they are today, as the README's table says.

use serde_json::Value;

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
        "a spoofer in a name that he made up",
        "--client 127.0.0.11 --helo nowhere.test --mail-from ann@nowhere.test --from ann@nowhere.test",
    ),
];

#[test]
fn each_profile_does_with_each_sender_what_the_readme_says() {
    let zone = Zone::start();
    let mut table = format!("| sender | {} |\n| --- |", PROFILES.map(|name| format!("`{name}`")).join(" | "));
    table.push_str(&" --- |".repeat(PROFILES.len()));
    for (who, arguments) in SENDERS {
        table.push_str(&format!("\n| {who} |"));
        for profile in PROFILES {
            let config = format!("{}/config/{profile}", env!("CARGO_MANIFEST_DIR"));
            let run = zone.check(&format!("{arguments} --json --config {config} {APART}"));
            let decided: Value =
                serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{who}: {}", run.err));
            table.push_str(&format!(" {} |", cell(&decided)));
        }
    }
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "the README's table should be\n{table}\n");
}

/// The reply, or the rung by which MAIL FROM's client was known for the domain's own.
fn cell(decided: &Value) -> String {
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
        Some(rung) => format!("accepted: {rung}"),
        None => "accepted".to_owned(),
    }
}

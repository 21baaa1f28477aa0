//! What is judged is what readers see: values of From: go through rmxd and a Postfix with its stock limits, and what
//! is delivered is read by Python's email, the crate mail-parser and nodemailer's mailparser.

mod corpus;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rmxd::smtp::address::DomainName;

use super::gate;
use super::postfix::Postfix;
use crate::support::client::deliver_all;
use crate::support::process;
use crate::support::zone::Zone;
use corpus::{Expected, Variant, variants};

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const LIMIT: Duration = Duration::from_secs(120);
/// From: alone can refuse.
const POLICY: &str = "[policy]\nmalformed = \"reject\"\n[policy.mail_from]\nexists = \"tag\"\nmatches = \"off\"\n\
                      [policy.from]\nexists = \"reject\"\nmatches = \"off\"\n[policy.reply_to]\nexists = \"off\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_another_sender_than_the_one_that_was_judged() {
    let (Some(python), Some(node)) = (process::program("python3"), process::program("node")) else { return };
    let Some(modules) = mailparser().await else { return };
    let Some(postfix) = Postfix::start() else { return };
    let zone = Zone::start();
    let gate = gate::start(&zone, &postfix, POLICY).await;
    let variants = variants();
    let distinct: BTreeSet<_> = variants.iter().map(|variant| &variant.value).collect();
    assert!(distinct.len() >= 300, "{}", distinct.len());

    let message = |(number, Variant { value, .. }): (usize, &Variant)| {
        let rest = format!("\r\nTo: user@relay.test\r\nX-Case: {number}.\r\n\r\nbody\r\n");
        [b"Subject: case\r\nFrom: ".as_slice(), value, rest.as_bytes()].concat()
    };
    let messages: Vec<_> = variants.iter().enumerate().map(message).collect();
    let envelope = ("a@good.test", "user@relay.test");
    let replies = deliver_all(EXCHANGER, gate.address(), envelope, &messages).await;
    assert_eq!(replies.len(), variants.len());
    let (mut taken, mut wrong) = (0, Vec::new());
    for (Variant { value, expected }, reply) in variants.iter().zip(replies) {
        taken += usize::from(reply.is_positive());
        let allowed = match expected {
            Expected::Taken => reply.is_positive(),
            Expected::Refused => reply.code == 550,
            Expected::Either => reply.is_positive() || reply.code == 550,
        };
        if !allowed {
            wrong.push(format!("{} {expected:?}: {}", begin(value), reply.text));
        }
    }
    let files = postfix.wait_for_messages("user", taken, LIMIT).await;
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    let script =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/interop/readers").join(name);
    let (mut python, mut node) = (Command::new(python), Command::new(node));
    python.arg(script("read.py"));
    node.arg(script("read.js")).env("NODE_PATH", modules);
    let (python, node) = tokio::join!(read_by(&mut python, &names), read_by(&mut node, &names));
    assert_eq!((files.len(), python.len(), node.len()), (taken, taken, taken));
    for (at, file) in files.iter().enumerate() {
        let stored = fs::read(file).unwrap();
        let judged = judged(&stored);
        for (reader, shown) in
            [("Python", &python[at]), ("mailparser", &node[at]), ("mail-parser", &by_mail_parser(&stored))]
        {
            if let Some(other) = shown.iter().find(|address| !is_among(address, &judged)) {
                let value = &variants[case(&stored)].value;
                wrong.push(format!("{}: {reader} shows {other:?}, judged {judged:?}", begin(value)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}, {taken} taken:\n{}", wrong.len(), variants.len(), wrong.join("\n"));
}

/// The folder of node's modules with mailparser in it, installed below `target/`.
async fn mailparser() -> Option<PathBuf> {
    let npm = process::program("npm")?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readers");
    let modules = folder.join("node_modules");
    if !modules.join("mailparser/package.json").is_file() {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("package.json"), "{}").unwrap();
        let options = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "mailparser@3"];
        let run = process::run(Command::new(npm).args(options).current_dir(&folder), Vec::new(), LIMIT).await;
        if !run.status.success() {
            process::missing(&format!(
                "mailparser is not installed: {}",
                String::from_utf8_lossy(&run.stderr)
            ));
            return None;
        }
    }
    Some(modules)
}

/// The addresses that a program shows, for each file.
async fn read_by(command: &mut Command, names: &str) -> Vec<Vec<String>> {
    let output = process::run(command, names.into(), LIMIT).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn by_mail_parser(stored: &[u8]) -> Vec<String> {
    let message = mail_parser::MessageParser::default().parse(stored);
    let from = message.as_ref().and_then(|message| message.from());
    let addresses = from.into_iter().flat_map(|from| from.iter());
    addresses.filter_map(|entry| entry.address.as_deref().map(str::to_owned)).collect()
}

/// The domains of `header.from` in our results.
fn judged(stored: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stored);
    let (_, results) = text.split_once("Authentication-Results: gate.relay.test;").expect("our results");
    let results = results.split_once("\nSubject: case").expect("our results above the header").0;
    let domains = results.split("header.from=").skip(1);
    domains.map(|domain| domain.split([' ', ';', '\n']).next().unwrap_or_default().to_owned()).collect()
}

/// Text without an `@` names no domain.
fn is_among(address: &str, judged: &[String]) -> bool {
    let Some((_, domain)) = address.rsplit_once('@') else { return true };
    let domain = domain.trim_end_matches(['>', ' ']);
    let name = DomainName::parse_unicode(domain).map_or_else(|_| domain.to_owned(), |name| name.to_string());
    judged.contains(&name)
}

fn case(stored: &[u8]) -> usize {
    let text = String::from_utf8_lossy(stored);
    text.split_once("\nX-Case: ").unwrap().1.split('.').next().unwrap().parse().unwrap()
}

fn begin(value: &[u8]) -> String {
    let from = value.len().saturating_sub(60);
    let (head, tail) = (value.get(..40).unwrap_or(value), value.get(from.max(40)..).unwrap_or_default());
    format!("\"{}...{}\" ({})", head.escape_ascii(), tail.escape_ascii(), value.len())
}

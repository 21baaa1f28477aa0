//! Messages that other projects test their mail readers with: each is read and judged, none takes more than 50 ms or
//! ends in a panic, and a table has what was refused and why.
//!
//! They are those of Python's own `test` package, of the crate mail-parser, and of the Python package of the same name,
//! whose source pip fetches into a folder below the target. Bounces come with the null sender. DNS has a mail exchanger
//! for every domain, so that only the header decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rmxd::decision::DecisionRecord;
use rmxd::dns::Clock;
use rmxd::gate::{DryMessage, DryRun, Gate};
use rmxd::message::{file, header};
use rmxd::policy::decide::Verdict;
use rmxd::smtp::address::ReversePath;
use rmxd::zone::{Server, Zone};
use tokio::time::Instant;

use crate::support;
use crate::support::process;

/// Every name there is takes mail.
const EVERY_DOMAIN: &str = "\
. 60 IN SOA ns.all. hostmaster.all. 1 3600 600 86400 60
*. 60 IN MX 10 mail.exchanger.
*. 60 IN A 127.0.0.10
";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// For the header's reader and a dry run of the whole message.
const MOST: Duration = Duration::from_millis(50);
/// The shortest counts: other tests run beside this one.
const RUNS: usize = 5;

/// A file of a corpus, and the decision on it.
struct Judged {
    corpus: &'static str,
    name: String,
    bounce: bool,
    took: Duration,
    record: DecisionRecord,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_other_projects_are_read_quickly_and_each_refusal_has_its_reason() {
    let zone = Zone::parse(EVERY_DOMAIN, None).unwrap();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap();
    let settings = support::settings(["policy.mail_from.matches=off", "policy.ptr.exists=off"]);
    let gate = support::gate(&settings, server.address(), Clock::running());
    let mut judged = Vec::new();
    for (corpus, root, files) in [python(), of_the_crate(), fetched()].into_iter().flatten() {
        for file in files {
            let content = std::fs::read(&file).unwrap();
            let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            let (block, body) = file::parts(&content);
            let bounce = is_bounce(&block);
            let sender = if bounce { "" } else { "ann@sender.test" };
            let mail_from = ReversePath::parse(sender).unwrap();
            let (took, record) = played(&gate, &mail_from, &block, &body).await;
            judged.push(Judged { corpus, name, bounce, took, record });
        }
    }
    let table = table(&judged);
    eprintln!("{table}");
    for Judged { corpus, name, took, record, .. } in &judged {
        assert!(*took < MOST, "{corpus} {name}: {took:?}\n{table}");
        assert_ne!(record.verdict, Verdict::Defer, "{corpus} {name}: DNS answers for every name\n{table}");
        assert_eq!(record.verdict == Verdict::Accept, record.reason().is_none(), "{corpus} {name}");
    }
    if !judged.is_empty() {
        assert!(judged.iter().any(|it| it.bounce), "bounces among them\n{table}");
        let accepted = judged.iter().filter(|it| it.record.verdict == Verdict::Accept).count();
        assert!(accepted * 10 > judged.len() * 6, "most of them are honest mail\n{table}");
    }
}

/// The decision on a message, and how long it takes to read the header and to judge.
async fn played(
    gate: &Arc<Gate>,
    mail_from: &ReversePath,
    block: &[u8],
    body: &[u8],
) -> (Duration, DecisionRecord) {
    let mut shortest: Option<(Duration, DecisionRecord)> = None;
    for _ in 0..RUNS {
        let (block, body) = (block.to_vec(), body.to_vec());
        let began = Instant::now();
        let header = header::read(&block);
        let mail_from = Some(mail_from.clone());
        let message = Some(DryMessage { header, block, body });
        let dry_run = DryRun { client: CLIENT, helo: None, mail_from, message };
        let record = gate.dry_run(&dry_run).await;
        let took = began.elapsed();
        if shortest.as_ref().is_none_or(|(least, _)| took < *least) {
            shortest = Some((took, record));
        }
    }
    shortest.unwrap()
}

/// A delivery report (RFC 3464), or a message that came with the null sender.
fn is_bounce(block: &[u8]) -> bool {
    let text =
        String::from_utf8_lossy(block).to_ascii_lowercase().replace("\r\n ", " ").replace("\r\n\t", " ");
    text.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| match name.trim_end() {
        "return-path" => value.trim() == "<>",
        "content-type" => value.contains("multipart/report") && value.contains("delivery-status"),
        "from" => value.contains("mailer-daemon"),
        _ => false,
    })
}

/// How many messages of each corpus were refused for each reason, and below the files.
fn table(judged: &[Judged]) -> String {
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut reasons: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut refused = String::new();
    for Judged { corpus, name, bounce, record, .. } in judged {
        let count = counts.entry(corpus).or_default();
        count[0] += 1;
        count[1] += usize::from(*bounce);
        let Some(reason) = record.reason() else { continue };
        count[2] += 1;
        let subject = record.deciding().map(|finding| finding.subject.to_string()).unwrap_or_default();
        let why = format!("{} {}", reason.name(), subject.escape_debug());
        refused += &format!("\n{corpus:7} {name:40} {why}");
        *reasons.entry((corpus, why)).or_default() += 1;
    }
    let slowest = judged.iter().map(|it| it.took).max().unwrap_or_default();
    let counts = counts.iter().map(|(corpus, [all, bounces, refused])| {
        format!("{corpus}: {all} messages, {bounces} of them bounces, {refused} refused\n")
    });
    let reasons = reasons.iter().map(|((corpus, why), count)| format!("{corpus:7} {count:3} {why}\n"));
    let tables = counts.chain(reasons).collect::<String>();
    format!("{tables}slowest message {slowest:?}{refused}")
}

/// A corpus: its name, its folder and its files.
type Corpus = (&'static str, PathBuf, Vec<PathBuf>);

/// All files in a folder and below that satisfy a condition, by name.
fn files(folder: &Path, wanted: fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.unwrap().path()) {
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            match () {
                () if path.is_dir() => folders.push(path),
                () if wanted(&extension) => found.push(path),
                () => {}
            }
        }
    }
    found.sort();
    found
}

/// The messages that Python's package `email` is tested with: those of the `python3` in PATH, or else of Debian's, which
/// another Python may hide.
fn python() -> Option<Corpus> {
    let program = "import os, test; print(os.path.dirname(test.__file__))";
    let output = Command::new("python3").args(["-c", program]).output().ok();
    let output = output.filter(|output| output.status.success());
    let first = output.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let debian = std::fs::read_dir("/usr/lib").into_iter().flatten().map(|entry| entry.unwrap());
    let debian = debian
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|it| it.path().join("test"));
    let mut folders = first.into_iter().chain(debian).map(|folder| folder.join("test_email/data"));
    let Some(folder) = folders.find(|folder| folder.is_dir()) else {
        process::missing("the messages of Python's test package (libpython3-testsuite)");
        return None;
    };
    let files = files(&folder, |extension| matches!(extension, "txt" | "eml"));
    Some(("python", folder, files))
}

/// Those of the crate mail-parser, which is here since rmxd is built with it.
fn of_the_crate() -> Option<Corpus> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    let output = metadata.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "mail-parser").unwrap();
    let folder =
        Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("resources/eml");
    let files = files(&folder, |extension| matches!(extension, "txt" | "eml"));
    Some(("crate", folder, files))
}

/// Those of the Python package mail-parser, fetched once.
fn fetched() -> Option<Corpus> {
    const PACKAGE: &str = "mail-parser";
    const VERSION: &str = "4.8.0";
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora");
    let folder = parent.join(format!("mail_parser-{VERSION}/tests/mails"));
    if !folder.is_dir() {
        std::fs::create_dir_all(&parent).unwrap();
        let script = format!(
            "timeout 100 python3 -m pip download --quiet --no-deps --no-binary {PACKAGE} --dest . {PACKAGE}=={VERSION} \
             && tar xzf mail_parser-{VERSION}.tar.gz"
        );
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", &script]).current_dir(&parent).status().unwrap();
        if !status.success() {
            process::missing(&format!("the source of the Python package {PACKAGE} (pip download)"));
            return None;
        }
    }
    let files = files(&folder, |_| true);
    Some(("pip", folder, files))
}

//! Messages that other projects test their mail readers with: each is read and judged, none takes long or ends in a panic,
//! and a table tells what was refused and why.
//!
//! They are those of Python's own `test` package, of the crate mail-parser, and of the Python package of the same name,
//! whose source pip fetches by its name into a folder below the target. DNS says of every domain that it has a mail
//! exchanger, so that only the header decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rmxd::dns::Clock;
use rmxd::gate::Rehearsal;
use rmxd::message::header::{self, Header};
use rmxd::message::mailbox_line;
use rmxd::policy::decide::Verdict;
use rmxd::record::Record;
use rmxd::smtp::address::ReversePath;
use rmxd::zone::{Server, Zone};
use tokio::time::Instant;

use crate::interop::peers;
use crate::support;

/// Every name there is takes mail.
const EVERY_DOMAIN: &str = "\
. 60 IN SOA ns.all. hostmaster.all. 1 3600 600 86400 60
*. 60 IN MX 10 mail.exchanger.
*. 60 IN A 127.0.0.10
";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// For reading one header block, and for judging it as well.
const MOST: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });

/// A file of a corpus, with what became of it.
struct Judged {
    corpus: &'static str,
    name: String,
    reading: Duration,
    record: Record,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_other_projects_are_read_quickly_and_each_refusal_has_its_reason() {
    let zone = Zone::parse(EVERY_DOMAIN, None).unwrap();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap();
    let settings = support::settings(["policy.mail_from.matches=off", "policy.ptr.exists=off"]);
    let gate = support::gate(&settings, server.address(), Clock::running());
    let mut judged = Vec::new();
    for (corpus, files) in [("python", python()), ("crate", of_the_crate()), ("pip", fetched())] {
        for file in files.unwrap_or_default() {
            let content = std::fs::read(&file).unwrap();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let (block, body) = parts(&content);
            let (header, reading) = timed(&block);
            let mail_from = Some(ReversePath::parse("ann@sender.test").unwrap());
            let rehearsal = Rehearsal { client: CLIENT, helo: None, mail_from, header, block, body };
            let record = gate.rehearse(&rehearsal).await;
            judged.push(Judged { corpus, name, reading, record });
        }
    }
    let table = table(&judged);
    eprintln!("{table}");
    for Judged { corpus, name, reading, record } in &judged {
        assert!(*reading < MOST, "{corpus} {name}: {reading:?}");
        assert_ne!(record.verdict, Verdict::Defer, "{corpus} {name}: DNS answers for every name\n{table}");
        assert_eq!(record.verdict == Verdict::Accept, record.reason().is_none(), "{corpus} {name}");
    }
    if !judged.is_empty() {
        let accepted = judged.iter().filter(|it| it.record.verdict == Verdict::Accept).count();
        assert!(accepted * 10 > judged.len() * 6, "most of them are honest mail\n{table}");
    }
}

/// The header, and the shortest of three times that reading it took: other tests run beside this one.
fn timed(block: &[u8]) -> (Header, Duration) {
    let once = || {
        let began = Instant::now();
        let header = header::read(block);
        (header, began.elapsed())
    };
    let (header, first) = once();
    let shortest = [once().1, once().1].into_iter().min();
    (header, shortest.map_or(first, |other| first.min(other)))
}

/// The header block and the body with CRLF, as `rmxd check --message` takes a file.
fn parts(content: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let lines = content.split_inclusive(|octet| *octet == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    });
    let mut lines = lines.collect::<Vec<_>>().into_iter();
    let ended = |line: &[u8]| [line, b"\r\n"].concat();
    let block: Vec<u8> = lines.by_ref().take_while(|line| !line.is_empty()).flat_map(ended).collect();
    (mailbox_line::as_field(&block).into_owned(), lines.flat_map(ended).collect())
}

/// How many of each corpus were accepted, and of the others each with its reason and how it was told.
fn table(judged: &[Judged]) -> String {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut refused = String::new();
    for Judged { corpus, name, record, .. } in judged {
        let count = counts.entry(corpus).or_default();
        count[0] += 1;
        let Some(reason) = record.reason() else { continue };
        count[1] += 1;
        let subject = record.deciding().map(|finding| finding.subject.to_string()).unwrap_or_default();
        refused += &format!("\n{corpus:7} {name:40} {:17} {}", reason.name(), subject.escape_debug());
    }
    let slowest = judged.iter().map(|it| it.reading).max().unwrap_or_default();
    let counts =
        counts.iter().map(|(corpus, [all, refused])| format!("{corpus}: {all} messages, {refused} refused"));
    format!("{}; slowest header {slowest:?}{refused}", counts.collect::<Vec<_>>().join("; "))
}

/// The files of a folder, by name; none of the folders in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The messages that Python's package `email` is tested with.
fn python() -> Option<Vec<PathBuf>> {
    let program =
        "import os, test; print(os.path.join(os.path.dirname(test.__file__), 'test_email', 'data'))";
    let output = Command::new("python3").args(["-c", program]).output().ok();
    let folder = output.filter(|output| output.status.success());
    let folder = folder.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        peers::missing("the messages of Python's test package (libpython3-testsuite)");
        return None;
    };
    let all = files(&folder).into_iter();
    Some(all.filter(|path| path.extension().is_some_and(|it| it == "txt" || it == "eml")).collect())
}

/// Those of the crate mail-parser, which is here since rmxd is built with it.
fn of_the_crate() -> Option<Vec<PathBuf>> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    let output = metadata.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "mail-parser").unwrap();
    let root = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("resources/eml");
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        for path in entries {
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "eml" || extension == "txt" => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    Some(found)
}

/// Those of the Python package mail-parser, fetched once.
fn fetched() -> Option<Vec<PathBuf>> {
    const PACKAGE: &str = "mail-parser";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora");
    let mails = || -> Option<PathBuf> {
        let unpacked = std::fs::read_dir(&folder).ok()?.map(|entry| entry.unwrap().path());
        unpacked.map(|path| path.join("tests/mails")).find(|path| path.is_dir())
    };
    if mails().is_none() {
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!(
            "timeout 100 python3 -m pip download --quiet --no-deps --no-binary {PACKAGE} --dest . {PACKAGE} && tar xzf *.tar.gz"
        );
        let mut shell = Command::new("sh");
        let status = shell.args(["-c", &script]).current_dir(&folder).status().unwrap();
        if !status.success() {
            peers::missing(&format!("the source of the Python package {PACKAGE} (pip download)"));
            return None;
        }
    }
    Some(files(&mails().expect("tests/mails in the package")))
}

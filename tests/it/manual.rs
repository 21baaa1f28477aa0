//! `rmxd man` and `rmxd completions`: nothing is missing, and those who read it (groff, mandoc, the shells) find no fault.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::process::{self, SOON, binary};

fn rmxd(arguments: &[&str]) -> Output {
    process::rmxd(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn manual() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = rmxd(&["man", folder.path().join("new/man").to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    folder
}

fn pages(manual: &TempDir) -> Vec<std::path::PathBuf> {
    fs::read_dir(manual.path().join("new/man")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The commands that `--help` names, with those below them: `rmxd`, `rmxd-config`, `rmxd-config-check`, ...
fn commands(above: &mut Vec<String>, found: &mut BTreeSet<String>) {
    found.insert([&["rmxd".to_owned()], above.as_slice()].concat().join("-"));
    let mut arguments: Vec<&str> = above.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = stdout(&rmxd(&arguments));
    let names =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // the text of a command begins deeper, where it is broken
    let names = names.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        above.push(name.to_owned());
        commands(above, found);
        above.pop();
    }
}

#[test]
fn every_command_has_a_page() {
    let mut expected = BTreeSet::new();
    commands(&mut Vec::new(), &mut expected);
    assert!(expected.contains("rmxd-config-check") && expected.len() > 12, "{expected:?}");
    let mut expected: BTreeSet<String> = expected.into_iter().map(|name| format!("{name}.1")).collect();
    expected.insert("rmxd.toml.5".to_owned());
    let manual = manual();
    let name = |page: &std::path::PathBuf| page.file_name().unwrap().to_str().unwrap().to_owned();
    let found: BTreeSet<String> = pages(&manual).iter().map(name).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn groff_finds_no_fault_with_the_pages_and_shows_every_option_and_key() {
    let Some(groff) = process::program("groff") else { return };
    let manual = manual();
    let mut everything = String::new();
    for page in pages(&manual) {
        let mut command = Command::new(&groff);
        command.args(["-man", "-ww", "-Tascii", "-Kutf8", "-rLL=1000n", "-P-cbou"]).arg(&page);
        let said = process::run(&mut command, Vec::new(), SOON).await;
        assert!(said.status.success() && said.stderr.is_empty(), "{page:?}: {said:?}");
        everything.push_str(&stdout(&said));
    }
    let shown = rmxd(&["config", "show", "--json", "--config", "/dev/null"]);
    let keys: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let keys = keys.as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap());
    let options = ["rmxd check [OPTIONS] --client <IP>", "--mail-from ADDRESS", "RMXD_CONFIG", "0.1.0"];
    let missing: Vec<&str> = keys.chain(options).filter(|text| !everything.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(everything.contains("greylist.delay = \"5m\"\n"), "{everything}");
}

#[tokio::test]
async fn mandoc_finds_no_fault_with_the_pages() {
    let mandoc = Path::new("/usr/bin/mandoc");
    if !mandoc.is_file() {
        eprintln!("skipped: mandoc is not installed; groff has read the pages");
        return;
    }
    let manual = manual();
    let mut command = Command::new(mandoc);
    let said =
        process::run(command.args(["-T", "lint", "-W", "warning"]).args(pages(&manual)), Vec::new(), SOON)
            .await;
    let said = stdout(&said);
    // the pages have no date, so that the same program makes the same pages
    let faults: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = file.path().join("man");
    let refused = rmxd(&["man", below.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(75));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.starts_with(&format!("rmxd man: {}: ", below.display())), "{said}");
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    let Some(bash) = process::program("bash") else { return };
    // as bash does it when Tab is pressed: the words, the one before the cursor last
    let script = r#"
        source <("$1" completions bash)
        complete -p rmxd
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _rmxd rmxd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        echo "${COMPREPLY[@]}"
    "#;
    let rows: [(&[&str], &str); 4] = [
        (&["rmxd", "che"], "check"),
        (&["rmxd", "config", "show", "--j"], "--json"),
        (&["rmxd", "completions", "z"], "zsh"),
        (&["rmxd", "load", "--self", "--names", ""], "warm cold"),
    ];
    for (words, expected) in rows {
        let mut command = Command::new(&bash);
        command.args(["--norc", "-c", script, "bash", binary()]).args(words);
        let said = process::run(&mut command, Vec::new(), SOON).await;
        let text = stdout(&said);
        let (complete, reply) = text.trim().split_once('\n').unwrap_or_default();
        assert!(complete.contains("-F _rmxd") && complete.ends_with(" rmxd"), "{said:?}");
        assert_eq!(reply, expected, "{words:?}: {said:?}");
    }
}

#[tokio::test]
async fn other_shells_can_read_their_completions() {
    for (shell, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let script = rmxd(&["completions", shell]);
        assert!(script.status.success() && !script.stdout.is_empty());
        let program = Path::new("/usr/bin").join(shell);
        if !program.is_file() {
            eprintln!("skipped: {shell} is not installed; bash has read its completions");
            continue;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &script.stdout).unwrap();
        let said = process::run(Command::new(program).arg(check).arg(file.path()), Vec::new(), SOON).await;
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    }
}

#[test]
fn an_unknown_shell_is_answered_with_those_that_are_known() {
    for arguments in [["completions", "tcsh"].as_slice(), &["completions"]] {
        let refused = rmxd(arguments);
        assert_eq!(refused.status.code(), Some(64));
        let said = String::from_utf8_lossy(&refused.stderr);
        let known = arguments.len() == 1 || said.contains("bash, elvish, fish, powershell, zsh");
        assert!(known && said.contains("SHELL"), "{said}");
    }
}

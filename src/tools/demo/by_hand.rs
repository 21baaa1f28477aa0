//! Commands to try the running demo by hand; they work without changes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::console::colour::Colour;
use crate::tools::demo::observed::RowResult;
use crate::tools::demo::stage::Stage;
use crate::tools::demo::tour::Policy;

pub(super) fn text(stage: &Stage, results: &[RowResult]) -> String {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port = |policy| stage.gate(policy, local).map_or(0, |address| address.port());
    let (first, public, strict) = (port(Policy::Default), port(Policy::Public), port(Policy::Strict));
    let (rmxd, folder) = (program(), quoted(&stage.folder));
    let (host, name_port) = (stage.name_server().ip(), stage.name_server().port());
    let id = results.iter().filter_map(RowResult::seen).find_map(|seen| seen.id.as_deref()).unwrap_or("ID");
    let page = |policy| stage.dashboard(policy).unwrap_or_default();
    let dashboard = page(Policy::Default);
    let others = format!(" (public: {}, strict: {})", page(Policy::Public), page(Policy::Strict));
    let title =
        Colour::of_stdout().bold("The demo keeps running until Ctrl-C. Try it by hand in another terminal:");
    format!(
        "
{title}

  the dashboard in a browser, with all decisions and their reasons{others}
    {dashboard}
  an invented sender (or a valid one: client 127.0.0.10, ann@good.test), with swaks or with nc:
    swaks --server 127.0.0.1:{first} --local-interface 127.0.0.11 --from ann@nowhere.test --to you@demo.test
    printf 'EHLO me\\r\\nMAIL FROM:<ann@nowhere.test>\\r\\nRCPT TO:<you@demo.test>\\r\\nQUIT\\r\\n' \
| nc -s 127.0.0.11 127.0.0.1 {first}
  the same decision without a message, with every DNS record:
    {rmxd} check --config {folder}/default.toml --client 127.0.0.11 --mail-from ann@nowhere.test
  the DNS records that a domain must add, so that none of its sending addresses is refused:
    {rmxd} audit bigmail.test --egress 127.0.0.41 --config {folder}/strict.toml
  why a message was refused, by the id in its reply, with the DNS records of that time (the log is {folder}/log):
    {rmxd} explain {id} --config {folder}/default.toml
  the zones, and their senders (other gates: public.toml on port {public}, strict.toml on port {strict}):
    dig @{host} -p {name_port} twolines.test MX
    {rmxd} zone --list
  the delivered messages, with Authentication-Results:
    head -n 20 {folder}/mail/new/*
"
    )
}

/// The path of this program, which must work in any folder.
pub(super) fn program() -> String {
    let argument = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let in_path = argument.components().count() == 1;
    if in_path {
        quoted(&argument)
    } else {
        std::env::current_exe().map_or(quoted(&argument), |path| quoted(&path))
    }
}

/// Quotes a path as one word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        let rows = [("/tmp/rmxd-demo-1", "/tmp/rmxd-demo-1"), ("/a b", "'/a b'"), ("/it's", r"'/it'\''s'")];
        for (path, expected) in rows {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}

//! The documents: short lines, links and paths that lead somewhere, and lists that are complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rmxd::policy::reason::Reason;
use serde_json::Value;

use crate::support::readme::{block, block_of, text};

/// Copies of texts that are kept elsewhere, and the list of changes.
const NOT_HERE: [&str; 2] = ["tests/blackbox/", "CHANGELOG.md"];
const WIDTH: usize = 120;
/// A path in backticks with one of these endings is a file of the repository, unless it is absolute.
const ENDINGS: [&str; 11] =
    [".rs", ".md", ".toml", ".script", ".table", ".zone", ".yaml", ".yml", ".json", ".socket", ".service"];
/// For those who have the source; the package leaves them out, or has them under another name.
const NOT_SHIPPED: [&str; 6] =
    ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "src/lib.rs", "tests/README.md", "Containerfile"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the repository, by their path from its root.
fn files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", ".git", "corpus", "artifacts", "__pycache__"].contains(&name) {
                folders.push(path);
            } else if path.is_file() {
                files.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

fn documents(files: &BTreeSet<String>) -> Vec<&str> {
    let ours = |path: &&str| path.ends_with(".md") && !NOT_HERE.iter().any(|start| path.starts_with(start));
    let documents: Vec<&str> = files.iter().map(String::as_str).filter(ours).collect();
    assert!(documents.len() >= 10, "{documents:?}");
    documents
}

/// The lines outside of fenced blocks.
fn prose(document: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// What is in single backticks. A span may be broken at the end of a line.
fn spans(prose: &str) -> Vec<String> {
    let paragraphs = prose.split("\n\n");
    let inside = paragraphs.flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    inside.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The targets of links.
fn links(prose: &str) -> Vec<&str> {
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(document: &str) -> BTreeSet<String> {
    let prose = prose(document);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchors = headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    });
    anchors.collect()
}

/// The path of a target that is relative to a document, from the root.
fn resolved(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What is wrong with the links of a document.
fn broken_links(name: &str, document: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let prose = prose(document);
    let relative = links(&prose).into_iter().filter(|link| !link.contains("://"));
    let broken = relative.filter(|link| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { name.to_owned() } else { resolved(name, path) };
        match read(&target) {
            None => true,
            Some(text) => !anchor.is_empty() && !anchors(&text).contains(anchor),
        }
    });
    broken.map(|link| format!("{name}: {link}")).collect()
}

/// Whether a path with at most one `*` names one of the files, or a folder with some.
fn names_a_file(path: &str, files: &BTreeSet<String>) -> bool {
    match path.split_once('*') {
        Some((start, end)) => files.iter().any(|file| file.starts_with(start) && file.ends_with(end)),
        None => {
            let folder = format!("{}/", path.trim_end_matches('/'));
            files.contains(path) || files.iter().any(|file| file.starts_with(&folder))
        }
    }
}

/// The paths in backticks that name no file.
fn missing_files(name: &str, document: &str, files: &BTreeSet<String>) -> Vec<String> {
    let top: BTreeSet<&str> = files.iter().filter_map(|file| Some(file.split_once('/')?.0)).collect();
    let spans = spans(&prose(document));
    let looks_like_a_path = |span: &&String| {
        let characters = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/*".contains(c));
        let first = span.split('/').next().unwrap_or_default();
        let inside = span.contains('/') && top.contains(first);
        let bare = !span.starts_with(['/', '*']) && ENDINGS.iter().any(|ending| span.ends_with(ending));
        characters && (inside || (bare && !span.starts_with("target/")))
    };
    let missing = spans.iter().filter(looks_like_a_path).filter(|span| {
        let beside = resolved(name, span);
        let anywhere = format!("/{span}");
        let somewhere = !span.contains('/') && files.iter().any(|file| file.ends_with(&anywhere));
        !names_a_file(span, files) && !names_a_file(&beside, files) && !somewhere
    });
    missing.map(|span| format!("{name}: {span}")).collect()
}

#[test]
fn lines_have_at_most_120_columns_and_the_first_page_150_lines() {
    let files = files();
    let mut long = Vec::new();
    for name in documents(&files) {
        for (at, line) in text(name).lines().enumerate() {
            let width = line.chars().count();
            if width > WIDTH {
                long.push(format!("{name}:{}: {width}", at + 1));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    assert!(text("README.md").lines().count() <= 150);
}

#[test]
fn every_link_and_every_path_leads_somewhere() {
    let files = files();
    let read = |path: &str| {
        let path = root().join(path);
        if path.is_dir() { Some(String::new()) } else { std::fs::read_to_string(path).ok() }
    };
    let mut wrong = Vec::new();
    for name in documents(&files) {
        let document = text(name);
        wrong.extend(broken_links(name, &document, read));
        wrong.extend(missing_files(name, &document, &files));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The functions, types and constants that the recipes name.
#[test]
fn every_name_in_the_recipes_is_in_the_code() {
    let of_code = |file: &&String| file.ends_with(".rs") || file.ends_with(".js");
    let code: String = files().iter().filter(of_code).map(|file| text(file)).collect();
    let words: BTreeSet<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let spans = spans(&prose(&text("CONTRIBUTING.md")));
    let mut named = 0;
    for span in &spans {
        let is_name = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_');
        if let Some(function) = span.strip_suffix("()") {
            assert!(code.contains(&format!("fn {function}(")), "{span}");
            named += 1;
        } else if span.starts_with(char::is_uppercase) && span.split("::").all(is_name) {
            assert!(span.split("::").all(|part| words.contains(part)), "{span}");
            named += 1;
        }
    }
    assert!(named > 10, "{spans:?}");
}

/// On an installed machine the documents are in the same tree as here.
#[test]
fn what_the_package_ships_links_to_what_it_ships() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let files = files();
    let mut shipped = BTreeSet::new();
    for asset in assets {
        let [from, to] = [0, 1].map(|at| asset[at].as_str().unwrap());
        let Some(folder) = to.strip_prefix("usr/share/doc/rmxd/") else { continue };
        let (start, end) = from.split_once('*').unwrap_or((from, ""));
        let matching = files.iter().filter(|file| file.starts_with(start) && file.ends_with(end));
        for file in matching {
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            let place = if to.ends_with('/') { format!("{folder}{name}") } else { folder.to_owned() };
            if place == *file {
                shipped.insert(place);
            }
        }
    }
    let documents: Vec<_> = shipped.iter().filter(|file| file.ends_with(".md")).collect();
    for wanted in ["README.md", "SECURITY.md", "config/README.md", "systemd/README.md", "src/admin/README.md"]
    {
        assert!(shipped.contains(wanted), "{shipped:?}");
    }
    let mut wrong = Vec::new();
    for name in documents {
        let prose = prose(&text(name));
        for link in links(&prose).into_iter().filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = resolved(name, link.split('#').next().unwrap_or_default());
            if !shipped.contains(&target) && !NOT_SHIPPED.contains(&target.as_str()) {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_first_page_has_the_lines_of_the_guide_and_the_version_of_rust() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let version = manifest["package"]["rust-version"].as_str().unwrap();
    for document in ["README.md", "CONTRIBUTING.md"] {
        assert!(text(document).contains(&format!("Rust {version} or later")), "{document}: {version}");
    }
    for info in ["master.cf", "toml", "sh"] {
        assert_eq!(block_of("README.md", info), block(info), "{info}");
    }
}

/// Cargo 1.65 of Debian 12 says so, if nothing before it stops it: a word as the value of `debug` does.
#[test]
fn the_first_page_has_the_words_of_a_cargo_that_is_too_old() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let package = &manifest["package"];
    let [edition, version] = ["edition", "rust-version"].map(|key| package[key].as_str().unwrap());
    let page = text("README.md").replace('\n', " ");
    for words in [
        format!("this version of Cargo is older than the `{edition}` edition"),
        format!("requires rustc {version}"),
    ] {
        assert!(page.contains(&words), "{words}");
    }
    for (name, profile) in manifest["profile"].as_table().unwrap() {
        let debug = profile.get("debug");
        assert!(debug.is_none_or(|debug| debug.is_integer() || debug.is_bool()), "{name}: {debug:?}");
    }
}

#[test]
fn every_key_and_every_reason_has_its_place_in_the_document() {
    let document = text("config/README.md");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_rmxd"))
        .args(["config", "show", "--json"])
        .env_clear()
        .output()
        .unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&shown.stdout).unwrap();
    let known: BTreeSet<&str> = rows.iter().map(|row| row["key"].as_str().unwrap()).collect();
    let listed = keys(&document);
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(listed, known);

    let replies = document.split("\n## Replies\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for reason in Reason::ALL {
        assert!(replies.contains(&format!("`{}`", reason.name())), "{}", reason.name());
    }
}

/// The keys in the table "Every key".
fn keys(document: &str) -> Vec<String> {
    let section = document.split("\n## Every key\n").nth(1).unwrap();
    let mut keys = Vec::new();
    for row in section.lines().filter(|line| line.starts_with("| `[") || line.starts_with("| (top)")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let table = cells[1].trim_start_matches("`[").trim_end_matches("]`");
        let prefix = if table == "(top)" { String::new() } else { format!("{table}.") };
        keys.extend(spans(cells[2]).into_iter().map(|key| format!("{prefix}{key}")));
    }
    keys
}

#[test]
fn the_checker_sees_what_leads_nowhere() {
    let read = |path: &str| match path {
        "a/b.md" => Some("# One: `two`, 3\n```\n# none\n```\n".to_owned()),
        "c.md" => Some("## End\n".to_owned()),
        _ => None,
    };
    let rows: [(&str, &[&str]); 6] = [
        ("[x](../c.md#end) [y](b.md) [z](#one-two-3) [w](http://a.test/#b)", &[]),
        ("[x](c.md)", &["a/b.md: c.md"]),
        ("[x](../c.md#none)", &["a/b.md: ../c.md#none"]),
        ("[x](#none)", &["a/b.md: #none"]),
        ("```\n[x](d.md)\n```", &[]),
        ("[x](d.md) and [y](e.md)", &["a/b.md: d.md", "a/b.md: e.md"]),
    ];
    for (document, expected) in rows {
        assert_eq!(broken_links("a/b.md", document, read), expected, "{document}");
    }
    let files = ["a/b.md", "a/x/y.rs", "c.toml"].map(str::to_owned).into();
    let rows: [(&str, &[&str]); 5] = [
        ("`a/b.md`, `a/x/`, `a/x`, `a/x/*.rs`, `x/y.rs`, `y.rs`, `c.toml`", &[]),
        ("`/etc/d.toml` `target/d.md` `a.b` `a::b` `main.cf` `x a/d.md`", &[]),
        ("`a/d`", &["a/b.md: a/d"]),
        ("`d.toml` and\n`a/x/*.md`", &["a/b.md: d.toml", "a/b.md: a/x/*.md"]),
        ("```\n`d.toml`\n```", &[]),
    ];
    for (document, expected) in rows {
        assert_eq!(missing_files("a/b.md", document, &files), expected, "{document}");
    }
    assert_eq!(PathBuf::from(resolved("a/b.md", "../c.md")), PathBuf::from("c.md"));
}

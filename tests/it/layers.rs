//! The map in `src/lib.rs` is true: imports point downwards only, each foreign crate stands behind one module, and the
//! top of the repository holds what it should. Tests inside `src/` may look up: the resolver's are run against the zone
//! server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that one place only may name.
const BEHIND: [(&str, &str); 11] = [
    ("axum", "src/admin/"),
    ("hyper", "src/admin/"),
    ("hyper_util", "src/admin/"),
    ("mail_parser", "src/message/"),
    ("hickory_resolver", "src/dns/message.rs"),
    ("moka", "src/dns/cache.rs"),
    ("prometheus_client", "src/metrics/exposition.rs"),
    ("redis", "src/store/shared/"),
    ("rusqlite", "src/store/"),
    ("rustls", "src/tls/"),
    ("tokio_rustls", "src/tls/"),
];

/// What may be at the top: what the product has of its own, and what convention puts there.
const TOP: [&str; 23] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "config",
    "tests",
    "benches",
    "systemd",
    "README.md",
    "LICENSE",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Containerfile",
    "clippy.toml",
    "rustfmt.toml",
    "rust-toolchain.toml",
    "deny.toml",
    ".ci",
    ".config",
    ".github",
    ".gitignore",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn imports_point_downwards() {
    let order = modules(&read(&root().join("src/lib.rs")));
    assert!(order.len() > 8, "{order:?}");
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        wrong.extend(upward(&path, &text, &order).into_iter().map(|name| format!("{path} names {name}")));
    }
    assert!(wrong.is_empty(), "against the order of lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn each_foreign_crate_stands_behind_one_module() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        wrong.extend(trespass(&path, &text).into_iter().map(|name| format!("{path} names {name}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Contract 8, promise (a): what is read from Redis can't even name a refusal.
#[test]
fn the_store_that_gates_share_knows_no_verdict_and_no_reply() {
    let shared = sources().into_iter().filter(|(path, _)| path.starts_with("src/store/shared/"));
    let shared: Vec<_> = shared.collect();
    assert!(shared.len() > 5, "{}", shared.len());
    for (path, text) in shared {
        let words = words(&code(&text));
        for name in ["policy", "session", "reply", "Reply", "Verdict", "Reason", "Decision", "Permit"] {
            assert!(!words.iter().any(|word| word == name), "{path} names {name}");
        }
    }
}

/// Lines of a file without its test module.
const MAX_LINES: usize = 400;

#[test]
fn no_file_outgrows_what_can_be_read_at_once() {
    let tests =
        |path: &str| path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("test_server");
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !tests(path)) {
        let lines = without_tests(&text).lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{path}: {lines}"));
        }
    }
    assert!(wrong.is_empty(), "more than {MAX_LINES} lines without tests: {}", wrong.join(", "));
}

#[test]
fn no_two_files_of_a_module_import_each_other() {
    let sources: Vec<(String, String)> =
        sources().into_iter().map(|(path, text)| (module_path(&path), code(&text))).collect();
    let imports: Vec<(&str, Vec<&str>)> = sources
        .iter()
        .map(|(module, code)| {
            let is_parent =
                |other: &str| module.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"));
            let named =
                |other: &&str| *other != module.as_str() && !is_parent(other) && names_inside(code, other);
            (module.as_str(), sources.iter().map(|(other, _)| other.as_str()).filter(named).collect())
        })
        .collect();
    let circle = circle(&imports);
    assert!(circle.is_empty(), "a circle of imports: {}", circle.join(" -> "));
}

#[test]
fn the_checker_sees_a_circle() {
    let row = |module, imports: &[&'static str]| (module, imports.to_vec());
    let straight = [row("a::b", &["a::c"]), row("a::c", &["a::d"]), row("a::d", &[])];
    assert_eq!(circle(&straight), Vec::<String>::new());
    let round = [row("a::b", &["a::c"]), row("a::c", &["a::d"]), row("a::d", &["a::b"])];
    assert_eq!(circle(&round).len(), 3);
    assert!(
        names_inside("use crate::a::b::Name;", "a::b") && !names_inside("use crate::a::bc::Name;", "a::b")
    );
}

/// `src/a/b.rs` -> `a::b`. The module of a folder may import from its files and they from it: it is left out.
fn module_path(path: &str) -> String {
    path.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::")
}

/// Whether the code imports from this module by its whole path.
fn names_inside(code: &str, module: &str) -> bool {
    let path = format!("crate::{module}::");
    code.contains(&path) && !module.ends_with("::mod") && !module.ends_with("::tests")
}

/// The modules of a circle, if there is one: those that are left when all that import nothing are taken away, again and
/// again, and then all that nothing imports.
fn circle(imports: &[(&str, Vec<&str>)]) -> Vec<String> {
    let mut left: Vec<(&str, Vec<&str>)> = imports.to_vec();
    loop {
        let before = left.len();
        let there: BTreeSet<&str> = left.iter().map(|(module, _)| *module).collect();
        left.retain(|(_, named)| named.iter().any(|other| there.contains(other)));
        let named: BTreeSet<&str> = left.iter().flat_map(|(_, named)| named.iter().copied()).collect();
        left.retain(|(module, _)| named.contains(module));
        if left.len() == before {
            return left.into_iter().map(|(module, _)| module.to_owned()).collect();
        }
    }
}

#[test]
fn the_top_of_the_repository_holds_what_it_should() {
    let listed = Command::new("git").arg("-C").arg(root()).arg("ls-files").output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: not a git work tree");
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let top: BTreeSet<&str> = listed.lines().filter_map(|path| path.split('/').next()).collect();
    let strange: Vec<_> = top.into_iter().filter(|name| !TOP.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// The modules of `lib.rs`, lowest first.
fn modules(lib: &str) -> Vec<String> {
    let lines = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    lines.map(str::to_owned).collect()
}

/// All of `src/` but `lib.rs` and `main.rs`: path from the root, and text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let mut sources: Vec<_> = files.iter().map(|path| (name(path), read(path))).collect();
    sources.retain(|(path, _)| path != "src/lib.rs" && path != "src/main.rs");
    sources.sort();
    sources
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The top modules that a file names although they stand above it, or that are not in the list.
fn upward(path: &str, text: &str, order: &[String]) -> Vec<String> {
    let place = |name: &str| order.iter().position(|known| known == name);
    let inside: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let own = inside[0];
    let Some(rank) = place(own) else {
        return vec![format!("itself, {own}, which lib.rs doesn't list")];
    };
    let depth = inside.iter().filter(|part| **part != "mod").count();
    if inside.last() == Some(&"tests") {
        return Vec::new();
    }
    named_modules(&code(text), depth)
        .into_iter()
        .filter(|name| name != own && place(name).is_none_or(|other| other > rank))
        .collect()
}

/// The foreign crates that a file names though they stand behind another.
fn trespass(path: &str, text: &str) -> Vec<&'static str> {
    let words = words(&code(text));
    // A field may have the name of a crate.
    let names = |pair: &[String], name: &str| {
        pair[0] == name && pair[1] == "::" || pair[0] == "use" && pair[1] == name
    };
    let named = |name: &str| words.windows(2).any(|pair| names(pair, name));
    let wrong = BEHIND.into_iter().filter(|(name, home)| !path.starts_with(home) && named(name));
    wrong.map(|(name, _)| name).collect()
}

/// What follows the root of the crate in each path: `crate::NAME`, `rmxd::NAME`, `super::NAME` with as many `super` as
/// the file is deep, and each name of a group `crate::{a::b, c}`.
fn named_modules(code: &str, depth: usize) -> BTreeSet<String> {
    let words = words(code);
    let mut found = BTreeSet::new();
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    for at in 0..words.len() {
        let mut next = match word(at) {
            "crate" | "rmxd" if word(at + 1) == "::" => at + 2,
            "super" if at < 2 || word(at - 2) != "super" => {
                let supers = (0..).take_while(|nth| word(at + 2 * nth) == "super").count();
                if supers != depth {
                    continue;
                }
                at + 2 * supers
            }
            _ => continue,
        };
        if word(next) != "{" {
            found.insert(word(next).to_owned());
            continue;
        }
        let mut open = 0;
        loop {
            match word(next) {
                "" => break,
                "{" => open += 1,
                "}" => open -= 1,
                _ => {}
            }
            if open == 0 {
                break;
            }
            let first = word(next) == "{" || word(next) == ",";
            if open == 1 && first && word(next + 1).starts_with(|c: char| c.is_alphabetic()) {
                found.insert(word(next + 1).to_owned());
            }
            next += 1;
        }
    }
    found.retain(|name| name != "self");
    found
}

/// Names, `::`, and other characters one by one.
fn words(code: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_name(first) {
            rest.find(|c: char| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        if !first.is_whitespace() {
            words.push(word.to_owned());
        }
        rest = after;
    }
    words
}

/// A file without its test module.
fn without_tests(text: &str) -> &str {
    let starts = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(super) mod "];
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// A file without its comments, its literals, and its test module.
fn code(text: &str) -> String {
    let text = without_tests(text);
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped(rest);
        if skipped == 0 {
            out.push(first);
        } else {
            out.push(' ');
        }
        rest = rest.split_at(skipped.max(first.len_utf8())).1;
    }
    out
}

/// How long the comment or literal is that begins here; zero for code.
fn skipped(text: &str) -> usize {
    let until = |start: usize, end: &str| {
        text.get(start..).and_then(|rest| rest.find(end)).map_or(text.len(), |at| start + at + end.len())
    };
    let hashes = text.strip_prefix('r').map_or(0, |rest| rest.chars().take_while(|c| *c == '#').count());
    let raw = format!("r{}\"", "#".repeat(hashes));
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        until(2, "*/")
    } else if text.starts_with(&raw) {
        until(raw.len(), &format!("\"{}", "#".repeat(hashes)))
    } else if text.starts_with('"') {
        string_end(text)
    } else if text.starts_with("'\"'") {
        3
    } else if text.starts_with("'\\") {
        until(3, "'")
    } else {
        0
    }
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn the_checker_sees_what_points_up() {
    let order = modules("//! Map.\npub mod low;\n\npub mod mid;\npub mod high;\nmod private;\n");
    assert_eq!(order, ["low", "mid", "high"]);
    let rows: [(&str, &str, &[&str]); 19] = [
        ("src/mid.rs", "use crate::low::X;", &[]),
        ("src/mid.rs", "use crate::mid::X;", &[]),
        ("src/mid.rs", "use crate::high::X;", &["high"]),
        ("src/mid/a.rs", "fn f() -> crate :: high::X {}", &["high"]),
        ("src/mid/a.rs", "use crate::{low::{a, high}, high::b};", &["high"]),
        ("src/mid/mod.rs", "use crate::{\n    high,\n};", &["high"]),
        ("src/mid/mod.rs", "use super::high::X;", &["high"]),
        ("src/mid/a.rs", "use super::super::high::X;", &["high"]),
        ("src/mid/a.rs", "use super::high::X;", &[]),
        ("src/mid/a.rs", "use super::super::{low, high};", &["high"]),
        ("src/mid.rs", "use rmxd::high;", &["high"]),
        ("src/mid.rs", "use crate::unlisted;", &["unlisted"]),
        ("src/mid.rs", "// crate::high\n/// [`crate::high`]\n/* crate::high */", &[]),
        ("src/mid.rs", "const A: &str = \"crate::high \\\" crate::high\";", &[]),
        ("src/mid.rs", "const A: (char, &str) = ('\"', r#\"crate::high\"#); use crate::high;", &["high"]),
        ("src/mid.rs", "const A: char = '\\''; use crate::high; const B: char = '\\\\';", &["high"]),
        ("src/mid.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::high;\n}", &[]),
        ("src/mid/tests.rs", "use crate::high;", &[]),
        ("src/other.rs", "", &["itself, other, which lib.rs doesn't list"]),
    ];
    for (path, text, expected) in rows {
        assert_eq!(upward(path, text, &order), expected, "{path}: {text}");
    }
}

#[test]
fn the_checker_sees_a_foreign_crate_out_of_its_place() {
    let rows: [(&str, &str, &[&str]); 8] = [
        ("src/message/parse.rs", "use mail_parser::X;", &[]),
        ("src/door/smtp.rs", "fn f(m: mail_parser::Message) {}", &["mail_parser"]),
        ("src/dns/message.rs", "use hickory_resolver::X;", &[]),
        ("src/dns/cache.rs", "use hickory_resolver::X; use moka::future::Cache;", &["hickory_resolver"]),
        ("src/dns/mod.rs", "// not moka", &[]),
        ("src/gate.rs", "use moka as m;", &["moka"]),
        ("src/tls/stream.rs", "use tokio_rustls::TlsStream;", &[]),
        ("src/door/wire.rs", "use rustls::Error; use tokio_rustls::TlsStream;", &["rustls", "tokio_rustls"]),
    ];
    for (path, text, expected) in rows {
        assert_eq!(trespass(path, text), expected, "{path}: {text}");
    }
}

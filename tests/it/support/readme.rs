//! The lines that the guide (`systemd/README.md`) has for configuration files: taken from it, so that the tests start
//! those and no others.

use std::path::Path;

/// The guide for operators, from the root of the repository.
const GUIDE: &str = "systemd/README.md";

/// The first fenced block that begins with ```` ```INFO ````, without its indentation.
pub(crate) fn block(info: &str) -> String {
    block_of(GUIDE, info)
}

/// The same of another document.
pub(crate) fn block_of(document: &str, info: &str) -> String {
    let text = text(document);
    let fence = format!("```{info}");
    let mut lines = text.lines().skip_while(|line| line.trim_start() != fence);
    let first = lines.next().unwrap_or_else(|| panic!("{document} has no block {fence}"));
    let indentation = first.len() - first.trim_start().len();
    let inside = lines.take_while(|line| line.trim() != "```");
    inside.map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default())).collect()
}

/// A document, by its path from the root of the repository.
pub(crate) fn text(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// An item of the section "What is different then": `- **WHAT**: BEFORE. Behind rmxd: BEHIND`.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Its bold words.
    pub(crate) what: String,
    /// Its end.
    pub(crate) behind: String,
}

impl Difference {
    /// Whether it says that rmxd refuses something: its end begins with a reply code.
    pub(crate) fn is_refusal(&self) -> bool {
        self.behind.as_bytes().iter().take(3).filter(|byte| byte.is_ascii_digit()).count() == 3
    }
}

/// All items of that section.
pub(crate) fn differences() -> Vec<Difference> {
    let text = text(GUIDE);
    let lines = text.lines().skip_while(|line| *line != "### What is different then").skip(1);
    let section: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    let items = section.join("\n");
    let items = items.split("\n\n").filter(|part| part.starts_with("- ")).flat_map(|list| {
        let list = format!("\n{list}");
        list.split("\n- ").skip(1).map(|item| item.replace("\n  ", " ")).collect::<Vec<_>>()
    });
    let parsed = items.map(|item| {
        let parts = item.strip_prefix("**").and_then(|item| {
            let (what, rest) = item.split_once("**: ")?;
            Some((what, rest.split_once(" Behind rmxd: ")?.1))
        });
        let (what, behind) = parts.unwrap_or_else(|| panic!("{GUIDE}: {item}"));
        Difference { what: what.to_owned(), behind: behind.to_owned() }
    });
    parsed.collect()
}

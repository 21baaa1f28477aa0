//! What the README tells people to write: taken from it, so that the tests start that and nothing else.

use std::path::Path;

/// The first fenced block that begins with ```` ```INFO ````, without its indentation.
pub(crate) fn block(info: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let fence = format!("```{info}");
    let mut lines = text.lines().skip_while(|line| line.trim_start() != fence);
    let first = lines.next().unwrap_or_else(|| panic!("README.md has no block {fence}"));
    let indentation = first.len() - first.trim_start().len();
    let inside = lines.take_while(|line| line.trim() != "```");
    inside.map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default())).collect()
}

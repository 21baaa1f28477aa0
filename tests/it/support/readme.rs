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

/// A row of the table "What else is different then".
#[derive(Debug)]
pub(crate) struct Difference {
    /// Its first column.
    pub(crate) what: String,
    /// Its last.
    pub(crate) behind: String,
}

impl Difference {
    /// Whether it says that rmxd refuses something: its last column begins with a reply code.
    pub(crate) fn is_refusal(&self) -> bool {
        self.behind.as_bytes().iter().take(3).filter(|byte| byte.is_ascii_digit()).count() == 3
    }
}

/// All rows of that table.
pub(crate) fn differences() -> Vec<Difference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| *line != "What else is different then:").skip(4);
    let rows = lines.take_while(|line| line.starts_with('|')).map(|line| {
        let columns: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [what, _before, behind] = columns.as_slice() else { panic!("{line}") };
        Difference { what: (*what).to_owned(), behind: (*behind).to_owned() }
    });
    rows.collect()
}

//! Help texts as roff: paragraphs, and the tables in them.

use roff::{Roff, bold, roman};

/// Lines up to this width keep their form: with the margin they fit a terminal of 80 columns.
const TABLE_WIDTH: usize = 70;

/// Renders paragraphs and indented lines. Indented lines that fit are a table. Longer ones, which a terminal would wrap, are
/// items: the text before the wide gap in bold, the rest indented below it.
pub(super) fn prose(roff: &mut Roff, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let mut first = true;
    for block in lines.chunk_by(|one, other| kind(one) == kind(other)) {
        match block.first().map(|line| kind(line)) {
            Some(Kind::Text) => {
                if !first {
                    roff.control("PP", []);
                }
                roff.text([roman(block.join("\n"))]);
                first = false;
            }
            Some(Kind::Table) if block.iter().all(|line| line.chars().count() <= TABLE_WIDTH) => {
                roff.control("PP", []).control("nf", []);
                for line in block {
                    roff.text([roman(*line)]);
                }
                roff.control("fi", []);
            }
            Some(Kind::Table) => items(roff, block),
            Some(Kind::Empty) | None => {}
        }
    }
}

/// Renders paragraphs, which empty lines separate; `between` is the macro before each but the first.
pub(super) fn paragraphs(roff: &mut Roff, text: &str, between: &str) {
    for (number, paragraph) in text.split("\n\n").enumerate() {
        if number > 0 {
            roff.control(between, []);
        }
        roff.text([roman(paragraph.trim())]);
    }
}

#[derive(PartialEq, Eq)]
enum Kind {
    Empty,
    Text,
    Table,
}

fn kind(line: &str) -> Kind {
    match line.chars().next() {
        None => Kind::Empty,
        Some(' ') => Kind::Table,
        Some(_) => Kind::Text,
    }
}

fn items(roff: &mut Roff, lines: &[&str]) {
    for line in lines {
        let (item, rest) = line.trim().split_once("  ").unwrap_or((line, ""));
        roff.control("TP", []);
        roff.text([bold(item.trim())]);
        roff.text([roman(rest.trim())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_tables_and_items_are_distinguished() {
        let long = "x".repeat(TABLE_WIDTH);
        let rows = [
            ("one\ntwo\n\nthree", "one\ntwo\n.PP\nthree\n".to_owned()),
            ("Codes:\n  0   good\n  64  bad\nEnd.", ".PP\n.nf\n  0   good\n  64  bad\n.fi\n".to_owned()),
            (&format!("  0   good\n  1   {long}"), format!(".TP\n\\fB0\\fR\ngood\n.TP\n\\fB1\\fR\n{long}\n")),
        ];
        for (text, expected) in rows {
            let mut roff = Roff::new();
            prose(&mut roff, text);
            assert!(roff.to_roff().contains(&expected), "{text}: {}", roff.to_roff());
        }
    }
}

//! The parts on a screen of 80 columns and 24 lines, whatever they say.

use crate::cli::status::parts::Part;
use crate::console::colour::{Colour, Paint, RIGHT, WRONG};

const COLUMNS: usize = 80;
const LINES: usize = 24;
/// Mark and name.
const MARGIN: usize = 14;

/// The title, the parts, and the sum of them.
pub(super) fn text(title: &str, parts: &[Part], colour: Colour) -> String {
    // Title, sum, the empty lines beside them, and the prompt behind.
    let room = LINES - 5;
    let wrapped: Vec<Vec<String>> = parts.iter().map(|part| wrap(&part.text, COLUMNS - MARGIN)).collect();
    let most = (1..=room).rev().find(|most| total(&wrapped, *most) <= room).unwrap_or(1);
    let mut text = format!("{}\n\n", colour.bold(&cut(title, COLUMNS)));
    for (part, lines) in parts.iter().zip(&wrapped) {
        let (mark, paint) = if part.wrong { (WRONG, Paint::Red) } else { (RIGHT, Paint::Green) };
        let mark = colour.paint(&mark.to_string(), paint);
        for (at, line) in lines.iter().take(most).enumerate() {
            let is_cut = at + 1 == most && lines.len() > most;
            let line = if is_cut { format!("{}...", cut(line, COLUMNS - MARGIN - 3)) } else { line.clone() };
            let line = if part.wrong { colour.paint(&line, paint) } else { line };
            let margin = if at == 0 { format!("{mark} {:<12}", part.name) } else { " ".repeat(MARGIN) };
            text.push_str(&format!("{margin}{line}\n"));
        }
    }
    let wrong: Vec<&str> = parts.iter().filter(|part| part.wrong).map(|part| part.name.as_str()).collect();
    let sum = if wrong.is_empty() {
        colour.paint("All is well.", Paint::Green)
    } else {
        colour.paint(&format!("Something is wrong: {}.", wrong.join(", ")), Paint::Red)
    };
    format!("{text}\n{sum}\n")
}

fn total(wrapped: &[Vec<String>], most: usize) -> usize {
    wrapped.iter().map(|lines| lines.len().min(most)).sum()
}

/// Lines of at most so many characters, broken at blanks where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        while length + word.len() > width {
            line.extend(word.drain(..width - length));
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        length += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, wrong: bool, text: &str) -> Part {
        Part { name: name.to_owned(), wrong, text: text.to_owned() }
    }

    #[test]
    fn a_long_text_is_broken_at_blanks_and_a_long_word_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("see /a/very/long/path now", 10), ["see", "/a/very/lo", "ng/path", "now"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn it_is_one_screen_even_if_everything_is_wrong() {
        let long = "/very/long/".repeat(40) + &" and words".repeat(40);
        let parts: Vec<Part> = (0..13).map(|at| part(&format!("part{at}"), true, &long)).collect();
        let shown = text(&"x".repeat(200), &parts, Colour::NONE);
        assert!(shown.lines().count() < 24, "{shown}");
        for line in shown.lines() {
            assert!(line.chars().count() <= 80 || line.starts_with("Something"), "{line}");
        }
        assert!(shown.contains("..."), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_marked_and_summed_up() {
        let parts = [part("dns", false, "answers"), part("relay", true, "is down")];
        assert_eq!(
            text("rmxd", &parts, Colour::NONE),
            "rmxd\n\n\u{2713} dns         answers\n\u{2717} relay       is down\n\nSomething is wrong: relay.\n"
        );
        assert!(text("rmxd", &parts[..1], Colour::NONE).ends_with("\n\nAll is well.\n"));
    }
}

//! A page of section 1, from the definition of a command in clap.
//!
//! clap_mangen isn't used: it omits the names of values in the synopsis, and it joins the lines of lists and tables.

use clap::builder::PossibleValue;
use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

use crate::cli::man::prose::{paragraphs, prose};
use crate::cli::man::{Page, document};
use crate::console::DEFAULT_FILE;

/// The pages of a command and of all its subcommands.
pub(super) fn all(command: Command) -> Vec<Page> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, None, &mut pages);
    pages
}

fn add(command: &Command, above: Option<&Command>, pages: &mut Vec<Page>) {
    pages.push(page(command, above));
    for below in shown(command) {
        add(below, Some(command), pages);
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Such as `rmxd-config-check`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, above: Option<&Command>) -> Page {
    let mut roff = document(name(command), "1", &text(command.get_about()));
    roff.control("SH", ["SYNOPSIS"]);
    synopsis(&mut roff, command);
    roff.control("SH", ["DESCRIPTION"]);
    prose(&mut roff, &description(command));
    roff.control("SH", ["OPTIONS"]);
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        option(&mut roff, argument);
    }
    if shown(command).next().is_some() {
        roff.control("SH", ["COMMANDS"]);
        for below in shown(command) {
            roff.control("TP", []);
            roff.text(reference(name(below), "1"));
            roff.text([roman(text(below.get_about()))]);
        }
    }
    if let Some(notes) = command.get_after_long_help() {
        roff.control("SH", ["NOTES"]);
        prose(&mut roff, &notes.to_string());
    }
    if above.is_none() {
        roff.control("SH", ["FILES"]);
        roff.control("TP", []);
        roff.text([italic(DEFAULT_FILE)]);
        roff.text([roman("The configuration file, unless --config or $RMXD_CONFIG names another one.")]);
    }
    see_also(&mut roff, command, above);
    Page { file: format!("{}.1", name(command)), text: roff.render() }
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled.map(ToString::to_string).unwrap_or_default()
}

/// The long help without the line under NAME, or that line if there is no long help.
fn description(command: &Command) -> String {
    let about = text(command.get_about());
    let long = text(command.get_long_about());
    match long.strip_prefix(&about).unwrap_or(&long).trim() {
        "" => about,
        more => more.to_owned(),
    }
}

/// The usage line of `--help`, with literal words in bold and placeholders in italics.
fn synopsis(roff: &mut Roff, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    for line in usage.trim_start_matches("Usage:").lines() {
        let mut inlines: Vec<Inline> = Vec::new();
        for word in line.split_whitespace() {
            let is_literal = word.starts_with(|first: char| first.is_ascii_lowercase() || first == '-');
            inlines.push(if is_literal { bold(word) } else { italic(word) });
            inlines.push(roman(" "));
        }
        inlines.pop();
        roff.text(inlines);
    }
}

fn option(roff: &mut Roff, argument: &Arg) {
    let mut heading = Vec::new();
    if let Some(short) = argument.get_short() {
        heading.extend([bold(format!("-{short}")), roman(", ")]);
    }
    if let Some(long) = argument.get_long() {
        heading.extend([bold(format!("--{long}")), roman(" ")]);
    }
    let takes_value = argument.get_action().takes_values();
    for value in argument.get_value_names().filter(|_| takes_value).unwrap_or_default() {
        heading.extend([italic(value.as_str()), roman(" ")]);
    }
    heading.pop();
    roff.control("TP", []);
    roff.text(heading);
    let mut help = text(argument.get_long_help().or_else(|| argument.get_help()));
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter(|_| takes_value)
        .map(|value| value.to_string_lossy())
        .collect();
    if !defaults.is_empty() {
        help.push_str(&format!(" [default: {}]", defaults.join(",")));
    }
    let mut values = argument.get_possible_values();
    values.retain(|value| takes_value && !value.is_hide_set());
    let explained = values.iter().any(|value| value.get_help().is_some());
    if !values.is_empty() && !explained {
        let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
        help.push_str(&format!(" [one of: {}]", names.join(", ")));
    }
    paragraphs(roff, &help, "IP");
    if explained {
        described(roff, &values);
    }
}

fn described(roff: &mut Roff, values: &[PossibleValue]) {
    roff.control("RS", []);
    for value in values {
        roff.control("TP", []);
        roff.text([bold(value.get_name())]);
        roff.text([roman(text(value.get_help()))]);
    }
    roff.control("RE", []);
}

/// The parent command, the subcommands, and the configuration.
fn see_also(roff: &mut Roff, command: &Command, above: Option<&Command>) {
    roff.control("SH", ["SEE ALSO"]);
    let mut pages: Vec<(&str, &str)> = above.map(|above| (name(above), "1")).into_iter().collect();
    pages.extend(shown(command).map(|below| (name(below), "1")));
    pages.push(("rmxd.toml", "5"));
    let mut inlines = Vec::new();
    for (page, section) in pages {
        inlines.extend(reference(page, section));
        inlines.push(roman(", "));
    }
    inlines.pop();
    roff.text(inlines);
}

fn reference(page: &str, section: &str) -> [Inline; 2] {
    [bold(page), roman(format!("({section})"))]
}

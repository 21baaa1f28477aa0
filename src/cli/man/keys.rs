//! The page of section 5: every key of the configuration.

use roff::{Roff, bold, roman};

use crate::cli::config::toml_value;
use crate::cli::man::{Page, document};
use crate::config::reference::{Key, Reference, Table};

pub(super) fn page(reference: &Reference) -> Page {
    let mut roff = document("rmxd.toml", "5", "configuration of rmxd");
    roff.control("SH", ["DESCRIPTION"]);
    several(&mut roff, &reference.introduction);
    roff.control("SH", ["KEYS"]);
    for table in &reference.tables {
        section(&mut roff, table);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("rmxd"), roman("(1), "), bold("rmxd-config"), roman("(1)")]);
    Page { file: "rmxd.toml.5".to_owned(), text: roff.render() }
}

fn section(roff: &mut Roff, table: &Table) {
    if !table.name.is_empty() {
        roff.control("SS", [format!("[{}]", table.name).as_str()]);
    }
    several(roff, &table.about);
    for key in &table.keys {
        entry(roff, key);
    }
}

fn several(roff: &mut Roff, paragraphs: &[String]) {
    for (number, paragraph) in paragraphs.iter().enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(paragraph)]);
    }
}

/// With the full name, as in error messages and in `--set`.
fn entry(roff: &mut Roff, key: &Key) {
    roff.control("TP", []);
    match &key.default {
        Some(value) => roff.text([bold(&key.name), roman(format!(" = {}", toml_value(value)))]),
        None => roff.text([bold(&key.name)]),
    };
    let general = key.name.rsplit('.').next().unwrap_or_default();
    match (&key.default, key.about.as_str()) {
        (None, _) => roff.text([roman(format!("default: the value of policy.{general}"))]),
        (Some(_), "") => roff.text([roman("see [policy]")]),
        (Some(_), about) => roff.text([roman(about)]),
    };
}

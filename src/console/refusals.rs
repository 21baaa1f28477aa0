//! Refusals as tables, by kind and by sender: for `rmxd replay` and `rmxd history --would`.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::smtp::escape::Escaped;
use crate::stats::refusals::{Kind, Row, Volume, as_toml, exempt_lines};

pub(crate) fn sum(kinds: &[(Kind, Volume)]) -> Volume {
    let mut sum = Volume::default();
    kinds.iter().for_each(|(_, volume)| sum += *volume);
    sum
}

/// The largest rows, and the lines for `[exempt]` with the mail that each lets pass.
pub(crate) fn shown(rows: &[Row], top: usize) -> (&[Row], Vec<String>) {
    let (shown, _) = rows.split_at_checked(top).unwrap_or((rows, &[]));
    (shown, as_toml(&exempt_lines(shown)))
}

pub(crate) fn kinds_table(kinds: &[(Kind, Volume)]) -> String {
    let mut table = table(&["IDENTITY", "RULE", "REASON", "ACTION", "TAKEN", "REFUSED"], &[4, 5]);
    for (kind, volume) in kinds {
        let [taken, refused] = [volume.taken, volume.refused].map(|number| number.to_string());
        let [identity, rule] = [kind.identity_name(), kind.rule_name()].map(Option::unwrap_or_default);
        let names = [identity, rule, kind.reason.name(), kind.action.name()];
        table.add_row(names.into_iter().map(str::to_owned).chain([taken, refused]));
    }
    table.trim_fmt()
}

pub(crate) fn list(text: &mut String, rows: &[Row], top: usize, flag: &str) {
    let mut table = table(&["DOMAIN", "IDENTITY", "REASON", "ACTION", "TAKEN", "REFUSED", "CLIENT"], &[4, 5]);
    let (shown, _) = shown(rows, top);
    for row in shown {
        let more = if row.clients_differ { " and others" } else { "" };
        table.add_row([
            Escaped::new(row.domain.as_str()).to_string(),
            row.kind.identity_name().unwrap_or_default().to_owned(),
            row.kind.reason.name().to_owned(),
            row.kind.action.name().to_owned(),
            row.volume.taken.to_string(),
            row.volume.refused.to_string(),
            format!("{}{more}", row.client),
        ]);
    }
    line(text, &table.trim_fmt());
    let rest = rows.len() - shown.len();
    if rest > 0 {
        line(text, &format!("and {rest} more ({flag})"));
    }
}

pub(crate) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(crate) fn line(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    writeln!(text, "{line}").ok();
}

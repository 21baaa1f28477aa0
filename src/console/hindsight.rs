//! What another configuration would have done, as tables: for `rmxd history --would --config`.

use std::path::Path;

use crate::console::colour::Colour;
use crate::console::refusals::{line, table};
use crate::console::time::LocalZone;
use crate::policy::reason::Reason;
use crate::smtp::escape::Escaped;
use crate::stats::hindsight::{Fate, Hindsight, Missing, Row, Total, Why};

const LOST: &str = "Taken, and would not be";
const EXEMPT_BESIDE: &str = "Of several recipients, those that are exempt there get the mail where its envelope is refused for the others.";

/// What is tried, and on which decisions.
pub(crate) struct Tried<'a> {
    pub(crate) file: &'a Path,
    pub(crate) history: &'a Path,
    pub(crate) monitor: bool,
}

/// At most `top` rows in each table.
pub(crate) fn shown(
    hindsight: &Hindsight,
    tried: &Tried<'_>,
    top: usize,
    zone: &LocalZone,
    colour: Colour,
) -> String {
    let mut text = String::new();
    let decisions = hindsight.decisions();
    let title = format!("What {} would have done with {}", tried.file.display(), counted(decisions));
    line(&mut text, &colour.bold(&title));
    if let Some((first, last)) = hindsight.times() {
        let (first, last) = (zone.full(first), zone.full(last));
        line(&mut text, &format!("{first} to {last}, from {}", tried.history.display()));
    }
    if tried.monitor {
        line(
            &mut text,
            "policy.mode is \"monitor\" there, which takes all mail; --set policy.mode=enforce tries its rules",
        );
    }
    let (changed, unknown) = (hindsight.changed(), hindsight.unknown());
    let same = decisions.saturating_sub(changed + unknown);
    line(&mut text, &format!("\n{same} the same, {changed} changed, {unknown} can't be known"));
    let mut totals = table(&["WAS", "WOULD BE", "DECISIONS"], &[2]);
    for (Total { before, after, at_least }, count) in hindsight.totals() {
        let after = after.map_or_else(|| "can't be known".to_owned(), |after| named(after, at_least));
        totals.add_row([before.name().to_owned(), after, count.to_string()]);
    }
    line(&mut text, &format!("\n{}", totals.trim_fmt()));

    let rows = hindsight.rows();
    let of = |wanted: fn(Fate, Option<Fate>) -> bool| -> Vec<&Row> {
        rows.iter().filter(|row| wanted(row.way.before, row.way.after)).collect()
    };
    let lost = of(|before, after| before == Fate::Taken && after.is_some_and(|after| after > Fate::Taken));
    let won = of(|before, after| before > Fate::Taken && after == Some(Fate::Taken));
    let other = of(|before, after| before > Fate::Taken && after.is_some_and(|after| after > Fate::Taken));
    let unknown = of(|_, after| after.is_none());
    let mut section = |title: &str, rows: &[&Row], columns: &[&str; 2]| {
        if !rows.is_empty() {
            line(&mut text, &format!("\n{}", colour.bold(title)));
            line(&mut text, &listed(rows, top, columns));
            if title == LOST {
                line(&mut text, EXEMPT_BESIDE);
            }
        }
    };
    section(LOST, &lost, &["WOULD BE", "REASON"]);
    section("Not taken, and would be", &won, &["WAS", "REASON"]);
    section("Not taken either way, but otherwise", &other, &["WOULD BE", "REASON"]);
    section("Can't be known", &unknown, &["WAS", "WHY"]);
    learn(&mut text, hindsight, colour);
    if let Some(id) = rows.iter().find_map(|row| row.example) {
        line(&mut text, &format!("\n\"rmxd explain {id}\" shows one of them, as EXAMPLE lists them."));
    }
    text
}

fn counted(decisions: u64) -> String {
    if decisions == 1 { "1 decision".to_owned() } else { format!("{decisions} decisions") }
}

fn named(fate: Fate, at_least: bool) -> String {
    format!("{}{}", if at_least { "at least " } else { "" }, fate.name())
}

fn listed(rows: &[&Row], top: usize, [fate, why]: &[&str; 2]) -> String {
    let mut list = table(&["DOMAIN", fate, "RULE", why, "DECISIONS", "CLIENT", "EXAMPLE"], &[4]);
    for row in rows.iter().take(top) {
        let (way, more) = (row.way, if row.clients_differ { " and others" } else { "" });
        let fate = match way.after.filter(|after| *after > Fate::Taken) {
            Some(after) => named(after, way.at_least),
            None => way.before.name().to_owned(),
        };
        let rule = way.rule.map(|(identity, rule)| format!("{identity}.{rule}")).unwrap_or_default();
        let reason = way.reason.map(Reason::name);
        list.add_row([
            Escaped::new(row.domain.as_str()).to_string(),
            fate,
            rule,
            reason.or(way.why.map(Why::text)).unwrap_or_default().to_owned(),
            row.count.to_string(),
            format!("{}{more}", row.client),
            row.example.map(|id| id.to_string()).unwrap_or_default(),
        ]);
    }
    let rest = rows.len().saturating_sub(top);
    let more = if rest > 0 { format!("\nand {rest} more (--limit)") } else { String::new() };
    format!("{}{more}", list.trim_fmt())
}

/// What is missing, and how the history comes to have it.
fn learn(text: &mut String, hindsight: &Hindsight, colour: Colour) {
    let missing = hindsight.learn();
    if missing.is_empty() {
        return;
    }
    line(
        text,
        &format!(
            "\n{}",
            colour.bold("What is missing, and what to set so that the history has it from then on")
        ),
    );
    let mut list = table(&["DECISIONS", "RULE", "WHY", "SET"], &[0]);
    for (rule, why, count) in missing {
        let name = rule.map(|(identity, rule)| format!("{identity}.{rule}")).unwrap_or_default();
        let set = Missing::set(rule, why).unwrap_or_default();
        list.add_row([count.to_string(), name, why.text().to_owned(), set]);
    }
    line(text, &list.trim_fmt());
}

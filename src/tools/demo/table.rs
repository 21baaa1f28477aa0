//! The tour as a table and as JSON, with the same facts.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde_json::json;

use crate::console::colour::{Colour, RIGHT, WRONG};
use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::tools::demo::observed::{Observed, RowResult};
use crate::tools::demo::stage::Stage;
use crate::tools::demo::tour::Expected;

/// Widths of the columns, 129 with the gaps.
const WIDTHS: [u16; 5] = [2, 24, 34, 20, 45];
const HEADER: [&str; 5] = [" #", "CLIENT AND ITS PTR NAME", "WHAT", "VERDICT AND REASON", "REPLY"];

pub(super) fn introduction(stage: &Stage, colour: Colour) -> String {
    format!(
        "{}\n\nA name server with sample zones ({}), three gates with different policies, a Maildir behind them, and\n\
         clients on loopback addresses. Each row is an SMTP session over TCP with its reply. The reason is from the log, or\n\
         from Authentication-Results in the Maildir. {RIGHT} means that verdict and reason are as expected.\n\n",
        colour.bold("rmxd demo: which senders are accepted?"),
        stage.name_server(),
    )
}

/// The rows of a chapter; `before` is the number of rows before it. The first chapter has the column names.
pub(super) fn chapter(title: &str, note: &str, rows: &[RowResult], before: usize, colour: Colour) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if before == 0 {
        table.set_header(HEADER);
    }
    for (at, result) in rows.iter().enumerate() {
        table.add_row(cells(before + at + 1, result));
    }
    table.set_constraints(WIDTHS.map(|width| ColumnConstraint::Absolute(Width::Fixed(width + 1))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        if at == usize::from(before == 0) {
            text.push_str(&format!("{}\n", colour.bold(&format!("-- {title}"))));
            if !note.is_empty() {
                text.push_str(&format!("   {note}\n"));
            }
        }
        text.push_str(&format!("{}\n", colour.verdicts(line.trim_end())));
    }
    text + "\n"
}

fn cells(number: usize, result: &RowResult) -> [String; 5] {
    let RowResult { row, ptr, observed } = result;
    let ptr = if ptr.is_empty() { "no PTR record".to_owned() } else { ptr.join(", ") };
    let what = [vec![row.what.to_owned()], row.sender()].concat().join("\n");
    let (verdict, reply) = match observed {
        None => ("- skipped".to_owned(), "this machine has no IPv6 on loopback".to_owned()),
        Some(Err(error)) => (format!("{WRONG} no reply\n{}", expected_text(&row.expected)), error.clone()),
        Some(Ok(observed)) => (verdict(observed, result), observed.reply.text.clone()),
    };
    [format!("{number:>2}"), format!("{}\n{ptr}", row.client), what, verdict, reply]
}

fn verdict(observed: &Observed, result: &RowResult) -> String {
    let mark = if result.is_wrong() { WRONG } else { RIGHT };
    let verdict = observed.verdict();
    let (at, tag) = match verdict {
        Verdict::Accept => (String::new(), "tag "),
        Verdict::Defer | Verdict::Reject => (format!(" {}", observed.reply.when), ""),
    };
    let mut lines = vec![format!("{mark} {}{at}", verdict.name())];
    lines.extend(observed.reasons.iter().map(|reason| format!("{tag}{reason}")));
    match (&observed.delivered, verdict) {
        (None, Verdict::Accept) => lines.push("not in the Maildir".to_owned()),
        (Some(_), Verdict::Defer | Verdict::Reject) => lines.push("but delivered".to_owned()),
        (Some(_), Verdict::Accept) | (None, Verdict::Defer | Verdict::Reject) => {}
    }
    if result.is_wrong() {
        lines.push(expected_text(&result.row.expected));
    }
    lines.join("\n")
}

fn expected_text(expected: &Expected) -> String {
    let reasons = expected.reasons().iter().map(|reason| format!(" {reason}")).collect::<String>();
    format!("expected {}{reasons}", expected.verdict().name())
}

pub(super) fn summary(results: &[RowResult], colour: Colour) -> String {
    let count =
        |verdict| results.iter().filter_map(RowResult::seen).filter(|seen| seen.verdict() == verdict).count();
    let (accepted, rejected, deferred) =
        (count(Verdict::Accept), count(Verdict::Reject), count(Verdict::Defer));
    let played = results.iter().filter(|result| !result.is_skipped()).count();
    let skipped = match results.len() - played {
        0 => String::new(),
        number => format!(" ({number} skipped)"),
    };
    let verdict = match results.iter().filter(|result| result.is_wrong()).count() {
        0 => format!("{RIGHT} all as expected"),
        wrong => format!("{WRONG} {wrong} not as expected"),
    };
    format!(
        "{played} messages{skipped}: {accepted} accepted and found in the Maildir, {rejected} rejected, {deferred} \
         deferred. {}\n",
        colour.verdicts(&verdict),
    )
}

pub(super) fn json(results: &[RowResult]) -> String {
    let names = |reasons: &[Reason]| reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>();
    let rows = results.iter().map(|result| {
        let RowResult { row, ptr, observed } = result;
        let seen = result.seen();
        json!({
            "name": row.name,
            "gate": row.policy.name(),
            "client": row.client.to_string(),
            "ptr": ptr,
            "what": row.what,
            "sender": row.sender(),
            "expected": { "verdict": row.expected.verdict().name(), "reasons": names(row.expected.reasons()) },
            "verdict": seen.map(|seen| seen.verdict().name()),
            "reasons": seen.map(|seen| names(&seen.reasons)),
            "reply": seen.map(|seen| &seen.reply.text),
            "when": seen.map(|seen| seen.reply.when),
            "id": seen.and_then(|seen| seen.id.as_ref()),
            "delivered": seen.map(|seen| seen.delivered.is_some()),
            "skipped": result.is_skipped(),
            "error": observed.as_ref().and_then(|result| result.as_ref().err()),
            "as_expected": !result.is_wrong(),
        })
    });
    format!("{:#}\n", serde_json::Value::Array(rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::demo::session::DecidingReply;
    use crate::tools::demo::tour::chapters;

    fn result(name: &str, code: u16, reasons: &[Reason], delivered: bool) -> RowResult {
        let row =
            chapters().into_iter().flat_map(|chapter| chapter.rows).find(|row| row.name == name).unwrap();
        let reply = DecidingReply { when: "at RCPT", code, text: format!("{code} text") };
        let delivered = delivered.then(|| "mail".into());
        let observed = Observed { reply, id: None, reasons: reasons.to_vec(), delivered };
        RowResult { row, ptr: vec![], observed: Some(Ok(observed)) }
    }

    #[test]
    fn every_difference_from_the_expected_result_is_marked() {
        let rows = [
            ("no_mx", 550, vec![Reason::NoMx], false, "✓ reject at RCPT\nno_mx"),
            ("no_mx", 450, vec![Reason::NoMx], false, "✗ defer at RCPT\nno_mx\nexpected reject no_mx"),
            ("no_mx", 550, vec![], false, "✗ reject at RCPT\nexpected reject no_mx"),
            (
                "no_mx",
                550,
                vec![Reason::NoMx],
                true,
                "✗ reject at RCPT\nno_mx\nbut delivered\nexpected reject no_mx",
            ),
            ("no_mx", 250, vec![], true, "✗ accept\nexpected reject no_mx"),
            ("no_ptr", 250, vec![Reason::NoPtr], true, "✓ accept\ntag no_ptr"),
            ("no_ptr", 250, vec![], true, "✗ accept\nexpected accept no_ptr"),
            ("valid", 250, vec![], true, "✓ accept"),
            ("valid", 250, vec![], false, "✗ accept\nnot in the Maildir\nexpected accept"),
        ];
        for (name, code, reasons, delivered, expected) in rows {
            let result = result(name, code, &reasons, delivered);
            assert_eq!(cells(1, &result)[3], expected, "{name} {code}");
            assert_eq!(result.is_wrong(), expected.contains(WRONG), "{name} {code}");
            let summary = summary(&[result], Colour::NONE);
            assert!(summary.contains(if expected.contains(WRONG) {
                "1 not as expected"
            } else {
                "all as expected"
            }));
        }
    }

    #[test]
    fn a_missing_reply_is_wrong_and_a_machine_without_ipv6_is_not() {
        let mut result = result("ipv6", 250, &[], true);
        result.observed = Some(Err("refused".to_owned()));
        assert!(result.is_wrong());
        assert_eq!(cells(1, &result)[3], "✗ no reply\nexpected accept");
        result.observed = None;
        assert!(!result.is_wrong());
        assert!(summary(&[result], Colour::NONE).starts_with("0 messages (1 skipped)"));
    }
}

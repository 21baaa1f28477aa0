//! The sum of many decisions, by sender domain.
//!
//! The memory is bounded as in [`crate::stats::refusals`]: each way to change has at most `HELD` domains, beyond that only the
//! `KEPT` largest stay. Totals are exact.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use compact_str::{CompactString, ToCompactString};
use foldhash::quality::RandomState;
use serde_json::{Value, json};

use crate::decision::{DecisionRecord, Id};
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::policy::rule::Rule;
use crate::smtp::escape::Escaped;
use crate::stats::hindsight::{Fate, Kind, Missing, Why, Would};

/// Domains of one way to change that stay when the smallest are removed, and at most.
const KEPT: usize = 500;
const HELD: usize = 1000;
/// Octets of a domain name at most; a longer text is cut.
const MAX_DOMAIN: usize = 255;

/// The way in which decisions change, or can't be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    pub before: Fate,
    /// As in [`Total`].
    pub after: Option<Fate>,
    pub at_least: bool,
    pub rule: Option<(Identity, Rule)>,
    pub reason: Option<Reason>,
    pub why: Option<Why>,
}

/// What decisions were and would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Total {
    pub before: Fate,
    /// `None`: it can't be known whether the decision changes, or whether the mail is taken.
    pub after: Option<Fate>,
    /// Something unknown could make it stronger.
    pub at_least: bool,
}

#[derive(Debug, Default)]
pub struct Hindsight {
    decisions: u64,
    times: Option<(SystemTime, SystemTime)>,
    changed: u64,
    unknown: u64,
    totals: HashMap<Total, u64, RandomState>,
    ways: HashMap<Way, HashMap<CompactString, Sender, RandomState>, RandomState>,
    learn: HashMap<(Option<(Identity, Rule)>, Why), u64, RandomState>,
}

#[derive(Debug)]
struct Sender {
    count: u64,
    client: IpAddr,
    clients_differ: bool,
    example: Option<Id>,
}

/// Decisions on one domain that change in one way.
#[derive(Debug, Clone)]
pub struct Row {
    pub way: Way,
    pub domain: CompactString,
    pub count: u64,
    pub client: IpAddr,
    pub clients_differ: bool,
    /// The newest.
    pub example: Option<Id>,
}

impl Hindsight {
    /// Counts one decision of the past; the newest come first.
    pub fn add(&mut self, record: &DecisionRecord, would: &Would) {
        self.decisions += 1;
        let (first, last) = self.times.unwrap_or((record.at, record.at));
        self.times = Some((first.min(record.at), last.max(record.at)));
        let before = Fate::of_past(record);
        let may_stay = !would.is_known() && (would.at_least..=would.at_most).contains(&before);
        let is_sure = would.is_known() || (would.at_least > Fate::Taken && !may_stay);
        let after = is_sure.then_some(would.at_least);
        let at_least = is_sure && !would.is_known();
        *self.totals.entry(Total { before, after, at_least }).or_default() += 1;
        if would.is_known() && before == would.at_least {
            return;
        }
        self.changed += u64::from(is_sure);
        self.unknown += u64::from(!is_sure);
        if after.is_none() {
            let mut seen: Vec<_> = Vec::new();
            for Missing { rule, why, .. } in &would.missing {
                if !seen.contains(&(*rule, *why)) {
                    seen.push((*rule, *why));
                    *self.learn.entry((*rule, *why)).or_default() += 1;
                }
            }
        }
        let (way, domain) = way(record, would, before, after);
        let name = match cut(&domain) {
            "" => record.client.to_compact_string(),
            name => CompactString::new(name),
        };
        let rows = self.ways.entry(way).or_default();
        let fresh = || Sender { count: 0, client: record.client, clients_differ: false, example: record.id };
        let sender = rows.entry(name).or_insert_with(fresh);
        sender.count += 1;
        sender.clients_differ |= sender.client != record.client;
        if rows.len() > HELD {
            remove_smallest(rows);
        }
    }

    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    #[must_use]
    pub fn changed(&self) -> u64 {
        self.changed
    }

    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The times of the oldest and the newest decision.
    #[must_use]
    pub fn times(&self) -> Option<(SystemTime, SystemTime)> {
        self.times
    }

    /// All decisions, those that stay the same too.
    #[must_use]
    pub fn totals(&self) -> Vec<(Total, u64)> {
        let mut all: Vec<_> = self.totals.iter().map(|(total, count)| (*total, *count)).collect();
        all.sort_unstable_by_key(|(total, count)| (Reverse(*count), *total));
        all
    }

    /// All counted domains, the largest first, and what is unknown last.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.ways.iter().flat_map(|(way, rows)| {
            rows.iter().map(|(domain, sender)| Row {
                way: *way,
                domain: domain.clone(),
                count: sender.count,
                client: sender.client,
                clients_differ: sender.clients_differ,
                example: sender.example,
            })
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable_by(|a, b| {
            (a.way.after.is_none(), Reverse(a.count), a.way, &a.domain).cmp(&(
                b.way.after.is_none(),
                Reverse(b.count),
                b.way,
                &b.domain,
            ))
        });
        rows
    }

    /// What would decide and isn't known, with the number of decisions.
    #[must_use]
    pub fn learn(&self) -> Vec<(Option<(Identity, Rule)>, Why, u64)> {
        let mut all: Vec<_> = self.learn.iter().map(|((rule, why), count)| (*rule, *why, *count)).collect();
        all.sort_unstable_by_key(|(rule, why, count)| (Reverse(*count), *rule, *why));
        all
    }

    /// The totals and the `top` largest rows.
    #[must_use]
    pub fn json(&self, top: usize) -> Value {
        let time = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let rows = self.rows();
        let totals = self.totals().into_iter().map(|(Total { before, after, at_least }, count)| {
            json!({ "before": before.name(), "after": name_of(after), "at_least": at_least, "count": count })
        });
        let learn = self.learn().into_iter().map(|(rule, why, count)| {
            json!({
                "identity": rule.map(|(identity, _)| identity.name()), "rule": rule.map(|(_, rule)| rule.name()),
                "why": why.name(), "count": count, "set": Missing::set(rule, why),
            })
        });
        json!({
            "decisions": self.decisions,
            "first": self.times.map(|(first, _)| time(first)),
            "last": self.times.map(|(_, last)| time(last)),
            "changed": self.changed,
            "unknown": self.unknown,
            "totals": totals.collect::<Vec<_>>(),
            "senders": rows.iter().take(top).map(Row::json).collect::<Vec<_>>(),
            "more": rows.len().saturating_sub(top),
            "learn": learn.collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn json(&self) -> Value {
        let Way { before, after, at_least, rule, reason, why } = self.way;
        json!({
            "domain": Escaped::new(self.domain.as_str()).to_string(),
            "before": before.name(), "after": name_of(after), "at_least": at_least,
            "identity": rule.map(|(identity, _)| identity.name()), "rule": rule.map(|(_, rule)| rule.name()),
            "reason": reason.map(Reason::name), "why": why.map(Why::name), "count": self.count,
            "client": self.client, "more_clients": self.clients_differ,
            "example": self.example.map(|id| id.to_string()),
        })
    }
}

fn name_of(after: Option<Fate>) -> &'static str {
    after.map_or("unknown", Fate::name)
}

/// The way and the sender domain: of what would refuse, else of what refused, else of what is missing.
fn way(record: &DecisionRecord, would: &Would, before: Fate, after: Option<Fate>) -> (Way, CompactString) {
    let at_least = after.is_some() && !would.is_known();
    let way = Way { before, after, at_least, rule: None, reason: None, why: None };
    let was = || record.cause.as_ref().map(|cause| Kind::of(cause, &record.findings));
    match (after, would.missing.first()) {
        (None, Some(missing)) => {
            let domain = if missing.domain.is_empty() { sender_of(record) } else { missing.domain.clone() };
            (Way { rule: missing.rule, why: Some(missing.why), ..way }, domain)
        }
        (_, missing) => match would.cause.clone().or_else(was) {
            Some(Kind { rule, reason, domain }) => {
                let why = missing.map(|missing| missing.why);
                (Way { rule, reason: Some(reason), why, ..way }, domain)
            }
            None => (way, sender_of(record)),
        },
    }
}

/// The domain of MAIL FROM, else that of From:.
fn sender_of(record: &DecisionRecord) -> CompactString {
    let domain = |text: &str| text.rsplit_once('@').map(|(_, domain)| CompactString::new(domain));
    let mail_from = domain(record.mail_from.trim_end_matches('>'));
    mail_from.or_else(|| domain(record.from.split(", ").next()?)).unwrap_or_default()
}

fn remove_smallest(rows: &mut HashMap<CompactString, Sender, RandomState>) {
    let mut counts: Vec<_> = rows.values().map(|sender| Reverse(sender.count)).collect();
    if counts.len() <= KEPT {
        return;
    }
    let (larger, smallest, _) = counts.select_nth_unstable(KEPT - 1);
    let mut equal = KEPT - larger.iter().filter(|count| *count < smallest).count();
    let smallest = smallest.0;
    rows.retain(|_, sender| {
        let stays = sender.count > smallest || (sender.count == smallest && equal > 0);
        if sender.count == smallest {
            equal = equal.saturating_sub(1);
        }
        stays
    });
}

fn cut(domain: &str) -> &str {
    let end = domain.floor_char_boundary(MAX_DOMAIN);
    domain.get(..end).unwrap_or(domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::tests::accepted;
    use crate::policy::decide::{Cause, Verdict};
    use crate::policy::rule::Action;
    use crate::stats::hindsight::Fate::{Deferred, Greylisted, Refused, Taken};

    fn record(before: Fate) -> DecisionRecord {
        let (verdict, action) = match before {
            Taken => (Verdict::Accept, None),
            Greylisted => (Verdict::Defer, Some(Action::Greylist)),
            Deferred => (Verdict::Defer, Some(Action::Defer)),
            Refused => (Verdict::Reject, Some(Action::Reject)),
        };
        let cause = action.map(|action| Cause { action, ..Cause::without_rule(Reason::NoMx, "a@d.test") });
        DecisionRecord { verdict, cause, rcpt: "user@here.test".into(), rcpts: 1, ..accepted(Vec::new()) }
    }

    #[test]
    fn totals_changes_and_rows_have_the_same_sums() {
        let rows = [
            (Taken, (Taken, Taken), Some((Taken, false))),
            (Taken, (Deferred, Refused), Some((Deferred, true))),
            (Taken, (Deferred, Deferred), Some((Deferred, false))),
            (Taken, (Taken, Refused), None),
            (Deferred, (Deferred, Refused), None),
            (Refused, (Deferred, Refused), None),
            (Refused, (Greylisted, Deferred), Some((Greylisted, true))),
            (Refused, (Taken, Deferred), None),
        ];
        let mut all = Hindsight::default();
        for (before, (at_least, at_most), expected) in rows {
            let known = at_least == at_most;
            let missing = if known { Vec::new() } else { vec![Missing::of_message(Why::Exempt)] };
            let would = Would { at_least, at_most, cause: None, missing };
            let mut one = Hindsight::default();
            for hindsight in [&mut one, &mut all] {
                hindsight.add(&record(before), &would);
            }
            let (after, at_least) = expected.map_or((None, false), |(after, more)| (Some(after), more));
            assert_eq!(one.totals(), [(Total { before, after, at_least }, 1)], "{would:?}");
        }
        assert_eq!((all.decisions(), all.changed(), all.unknown()), (8, 3, 4));
        let totals = all.totals();
        assert_eq!(totals.len(), 7, "{totals:?}");
        let open = |total: &Total| total.after.is_none();
        assert_eq!(totals.iter().filter(|(total, _)| open(total)).map(|(_, count)| count).sum::<u64>(), 4);
        let rows = all.rows();
        assert_eq!(rows.iter().filter(|row| row.way.after.is_none()).map(|row| row.count).sum::<u64>(), 4);
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 7);
        assert_eq!(all.learn(), [(None, Why::Exempt, 4)]);
    }

    #[test]
    fn a_flood_of_names_pushes_out_none_with_more_decisions() {
        let mut rows: HashMap<CompactString, Sender, RandomState> = HashMap::default();
        let client = IpAddr::from([192, 0, 2, 7]);
        for number in 0..5_000_u64 {
            let count = if number % 100 == 0 { 3 } else { 1 };
            let sender = Sender { count, client, clients_differ: false, example: None };
            rows.insert(format!("d{number}.test").into(), sender);
            if rows.len() > HELD {
                remove_smallest(&mut rows);
                assert_eq!(rows.len(), KEPT);
            }
        }
        assert_eq!(rows.values().filter(|sender| sender.count == 3).count(), 50);
        assert_eq!(cut(&"\u{fc}".repeat(200)).len(), 254);
    }
}

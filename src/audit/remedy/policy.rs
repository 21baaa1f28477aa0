//! The SPF part of the remedy.

use std::net::IpAddr;

use crate::audit::record::MissingRecord;
use crate::audit::remedy::{Draft, Zone};
use crate::smtp::address::DomainName;
use crate::spf::{InsertionPoint, Policy, Published, SpfResult};

/// MX hosts for the term `mx` at most (RFC 7208 4.6.4); with more, the result is an error.
const MAX_HOSTS: usize = 10;

impl Draft<'_> {
    /// Proposes one SPF record that lets all addresses send.
    pub(super) fn policy(&mut self) {
        let domain = self.domain().clone();
        match &self.facts.published {
            Published::Unavailable(trouble) => {
                self.remark(format!("The SPF record of {domain} can't be looked up now ({trouble})."));
            }
            Published::Several(records) => {
                let records: Vec<String> = records.iter().map(|record| format!("\"{record}\"")).collect();
                self.remark(format!(
                    "{domain} has {} SPF records, which counts as an error (RFC 7208 4.5): {}. Join them into one.",
                    records.len(),
                    records.join(", ")
                ));
            }
            Published::Malformed(record) => self.remark(format!(
                "The SPF record of {domain} can't be read, which counts as an error: \"{record}\". Correct it, then audit again."
            )),
            Published::Nothing => self.new_policy(&domain),
            Published::Policy(policy) => self.better_policy(&domain, policy),
        }
    }

    fn new_policy(&mut self, domain: &DomainName) {
        let by_mx = (1..=MAX_HOSTS).contains(&self.hosts.len());
        let others = self.facts.lines.iter().map(|line| line.address);
        let others: Vec<IpAddr> = others.filter(|address| !by_mx || !self.placed.contains(address)).collect();
        let policy = Policy::first(by_mx).with(&others, InsertionPoint::BeforeRefusals);
        let let_in = if by_mx { "lets the MX hosts send" } else { "lets these addresses send" };
        let why = format!(
            "{domain} has no SPF record. This one {let_in}. Add all other senders, such as a newsletter service; when \
             the record is complete, -all instead of ~all makes it strict."
        );
        self.step(Zone::Own, why, Vec::new(), vec![MissingRecord::txt(domain, policy.text())]);
    }

    fn better_policy(&mut self, domain: &DomainName, policy: &Policy) {
        let by_mx = policy.lets_exchangers() && self.hosts.len() <= MAX_HOSTS;
        if policy.asks_exchangers() && self.hosts.len() > MAX_HOSTS {
            self.remark(format!(
                "The SPF record of {domain} has the term mx, and with more than {MAX_HOSTS} MX hosts that is an error (RFC \
                 7208 4.6.4)."
            ));
        }
        let (mut missing, mut by_new_host, mut place) =
            (Vec::new(), Vec::new(), InsertionPoint::BeforeRefusals);
        for line in &self.facts.lines {
            match line.spf {
                SpfResult::Pass | SpfResult::TempError => {}
                SpfResult::PermError => {
                    missing.push(line.address);
                    place = InsertionPoint::First;
                }
                SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral | SpfResult::None => {
                    if by_mx && self.placed.contains(&line.address) {
                        by_new_host.push(line.address.to_string());
                    } else {
                        missing.push(line.address);
                    }
                }
            }
        }
        if place == InsertionPoint::First {
            self.remark(format!(
                "The SPF record of {domain} needs more than ten lookups, or includes a record that is missing or broken: for \
                 senders without a match in an earlier term, the result is permerror. Correct what it includes."
            ));
        }
        if !by_new_host.is_empty() {
            self.remark(format!(
                "SPF lets {} send as soon as the MX records below exist: its record has the term mx.",
                by_new_host.join(" and ")
            ));
        }
        if !missing.is_empty() {
            let addresses: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let why = format!(
                "SPF doesn't let {} send: the new record has a term for each.",
                addresses.join(" and ")
            );
            let better = MissingRecord::txt(domain, policy.with(&missing, place).text());
            self.step(Zone::Own, why, vec![MissingRecord::txt(domain, policy.text())], vec![better]);
        }
    }
}

//! The DMARC part of the remedy.

use crate::audit::owner::{Asks, Fate, Fault, FaultKind};
use crate::audit::record::MissingRecord;
use crate::audit::remedy::{Draft, Zone};
use crate::dns::organization::organization;
use crate::policy::authentication::Request;

/// The first record of a domain.
const FIRST: &str = "v=DMARC1; p=none";

impl Draft<'_> {
    /// Proposes a DMARC record where none is, and names what is wrong with those that are.
    pub(super) fn owner(&mut self) {
        let owner = &self.facts.owner;
        for fault in &owner.faults {
            self.remark(sentence(fault));
        }
        match &owner.asks {
            Asks::Unknown(trouble) => {
                let domain = self.domain();
                self.remark(format!(
                    "The DMARC record of {domain} can't be looked up now ({trouble}). Audit again later."
                ));
            }
            Asks::Nothing if owner.faults.is_empty() => self.first_record(),
            Asks::Nothing | Asks::Malformed => {}
            Asks::Record(_) => self.unsigned(),
        }
    }

    fn first_record(&mut self) {
        let domain = self.domain().clone();
        let Some(record) = MissingRecord::dmarc(&domain, FIRST) else { return };
        let above = organization(&domain).filter(|organization| *organization != domain);
        let above = above.map(|organization| {
            format!(" A record at _dmarc.{organization} instead covers {organization} and all names below.")
        });
        let why = format!(
            "{domain} has no DMARC record, so nothing asks receivers to refuse mail that others send in its name. p=none \
             comes first, since it refuses no mail of yours: add rua=mailto: with an address of yours, and receivers report \
             what would fail. When all your mail passes, write p=quarantine, then p=reject.{}",
            above.unwrap_or_default()
        );
        self.step(Zone::Own, why, Vec::new(), vec![record]);
    }

    /// Lines that only a signature lets through.
    fn unsigned(&mut self) {
        let (domain, owner) = (self.domain().clone(), &self.facts.owner);
        for request in [Request::Reject, Request::Quarantine] {
            let lines =
                self.facts.lines.iter().filter(|line| owner.fate(line.spf) == Fate::UnlessSigned(request));
            let addresses: Vec<String> = lines.map(|line| line.address.to_string()).collect();
            if !addresses.is_empty() {
                let remark = format!(
                    "DMARC asks receivers to {request} mail of {domain} over {} that is not signed: let SPF pass there, or \
                     sign all mail with DKIM ({}).",
                    addresses.join(" and "),
                    owner.signer(&domain)
                );
                self.remark(remark);
            }
        }
    }
}

fn sentence(fault: &Fault) -> String {
    let Fault { name, kind } = fault;
    match kind {
        FaultKind::Several(records) => {
            let all: Vec<String> = records.iter().map(|record| format!("\"{record}\"")).collect();
            format!(
                "_dmarc.{name} has {} DMARC records, which count as none (RFC 9989 4.10): {}. Join them into one.",
                records.len(),
                all.join(", ")
            )
        }
        FaultKind::Malformed(record) => format!(
            "The DMARC record at _dmarc.{name} can't be read, since a tag stands twice or it is too long; it counts as none: \
             \"{record}\". Correct it, then audit again."
        ),
        FaultKind::UnknownRequest(tag) => format!(
            "The DMARC record at _dmarc.{name} has {tag}, which is not none, quarantine or reject, so it asks for nothing \
             (RFC 9989 4.10.1). Correct it, then audit again."
        ),
        FaultKind::NotARecord(text) => format!(
            "The text at _dmarc.{name} is no DMARC record, since that begins with v=DMARC1 in this spelling: \"{text}\". \
             Correct it, then audit again."
        ),
    }
}

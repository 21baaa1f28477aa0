//! The standing of an address: why mail over it would be lost, or why that is unknown.
//!
//! The exit code follows from it (`rmxd audit --help`): the reverse MX lookup, the two policies, and SPF `fail`, for which
//! receivers refuse too (RFC 7208 8.4). DMARC doesn't count: an audit has no message, so signatures are unknown. The operator's own policy is shown but doesn't count, since other servers receive
//! this mail.

use crate::audit::facts::{Facts, Judged, Line};
use crate::audit::owner::{Asks, Fate, Owner};
use crate::policy::authentication::Request;
use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::reverse_mx::FcrdnsResult;
use crate::spf;

/// The names of the judges that count.
pub const COUNTING: [&str; 2] = ["default", "strict"];

/// Lists of sentences; if `lost` and `unknown` are empty, signed mail over this address is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) lost: Vec<String>,
    pub(super) unknown: Vec<String>,
    /// What happens to mail without an aligned DKIM signature.
    pub(super) unless_signed: Vec<String>,
}

impl Standing {
    pub(super) fn of(facts: &Facts, line: &Line) -> Self {
        let mut standing = Self { lost: Vec::new(), unknown: Vec::new(), unless_signed: Vec::new() };
        match (facts.mx_report.exchanger_with(line.address), facts.mx_report.trouble()) {
            (Some(_), _) => {}
            (None, Some(trouble)) => {
                standing.unknown.push(format!("the MX hosts can't all be looked up now ({trouble})"));
            }
            (None, None) => standing.lost.push(
                "no MX host has this address, so a receiver with reverse MX lookup refuses the mail"
                    .to_owned(),
            ),
        }
        for judged in line.judged.iter().filter(|judged| COUNTING.contains(&judged.policy)) {
            standing.judge(judged);
        }
        if let FcrdnsResult::TempError(trouble) = line.names {
            standing.unknown.push(format!("its PTR record can't be looked up now ({trouble})"));
        }
        match line.spf {
            spf::SpfResult::Fail => {
                standing
                    .lost
                    .push("SPF gives fail: by the domain's own policy, this mail is forged".to_owned());
            }
            spf::SpfResult::TempError => standing.unknown.push("SPF can't be looked up now".to_owned()),
            spf::SpfResult::Pass
            | spf::SpfResult::SoftFail
            | spf::SpfResult::Neutral
            | spf::SpfResult::None
            | spf::SpfResult::PermError => {}
        }
        standing.ask(&facts.owner, line);
        standing
    }

    fn ask(&mut self, owner: &Owner, line: &Line) {
        match (owner.fate(line.spf), &owner.asks) {
            (Fate::UnlessSigned(request @ (Request::Quarantine | Request::Reject)), _) => {
                self.unless_signed.insert(0, format!("DMARC asks receivers to {request} it"));
            }
            (Fate::Unknown, Asks::Unknown(trouble)) if line.spf != spf::SpfResult::Pass => {
                self.unknown.push(format!("the DMARC record can't be looked up now ({trouble})"));
            }
            _ => {}
        }
    }

    fn judge(&mut self, judged: &Judged) {
        let Some(cause) =
            judged.decision.cause.as_ref().filter(|_| judged.decision.verdict != Verdict::Accept)
        else {
            return;
        };
        let Some((identity, _)) = judged.refused_by else { return };
        let Judged { policy, .. } = judged;
        match cause.reason {
            Reason::DnsError => {
                self.unknown.push(format!("the {policy} policy can't decide now: DNS trouble at {identity}"));
            }
            reason if is_unless_signed(reason) => {
                self.unless_signed.push(format!("the {policy} policy refuses it: {identity} {reason}"));
            }
            reason => self.lost.push(format!("the {policy} policy refuses: {identity} {reason}")),
        }
    }
}

/// Whether an aligned DKIM signature would have let the mail pass.
pub(super) fn is_unless_signed(reason: Reason) -> bool {
    matches!(reason, Reason::DmarcReject | Reason::DmarcQuarantine)
}

//! The standing of an address: why mail over it would be lost, or why that is unknown.
//!
//! The exit code follows from it (`rmxd audit --help`): the reverse MX lookup, the two policies, and SPF `fail`, for which
//! receivers refuse too (RFC 7208 8.4). The operator's own policy is shown but doesn't count, since other servers receive
//! this mail.

use crate::audit::facts::{Facts, Judged, Line};
use crate::policy::decide::Verdict;
use crate::policy::reason::Reason;
use crate::reverse_mx::FcrdnsResult;
use crate::spf;

/// The names of the judges that count.
pub const COUNTING: [&str; 2] = ["default", "strict"];

/// Lists of sentences; if both are empty, mail over this address is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) lost: Vec<String>,
    pub(super) unknown: Vec<String>,
}

impl Standing {
    pub(super) fn of(facts: &Facts, line: &Line) -> Self {
        let mut standing = Self { lost: Vec::new(), unknown: Vec::new() };
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
        standing
    }

    fn judge(&mut self, judged: &Judged) {
        let Some(cause) =
            judged.decision.cause.as_ref().filter(|_| judged.decision.verdict != Verdict::Accept)
        else {
            return;
        };
        let Some((identity, _)) = judged.refused_by else { return };
        if cause.reason == Reason::DnsError {
            self.unknown
                .push(format!("the {} policy can't decide now: DNS trouble at {identity}", judged.policy));
        } else {
            self.lost.push(format!("the {} policy refuses: {identity} {}", judged.policy, cause.reason));
        }
    }
}

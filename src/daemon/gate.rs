//! Builds the gate and the SMTP door from settings, always with the same deadlines.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::daemon::StartError;
use crate::dns::Dns;
use crate::door::SmtpDoor;
use crate::gate::{Gate, Services};
use crate::policy::rule::{Action, IdentityRules, Rung};
use crate::relay::Relay;
use crate::reverse_mx::ReverseMx;
use crate::store::greylist::Greylist;
use crate::store::permits::PermitStore;
use crate::tls::Acceptor;

/// Time for SPF (RFC 7208 4.6.4), whose lookups come one after the other.
const SPF_TIME: Duration = Duration::from_secs(20);

/// A gate that decides as the daemon does, with a DNS cache of its own. Its greylist is empty and only in memory.
///
/// # Errors
/// The name servers can't be used.
pub fn gate(settings: &Settings) -> Result<Arc<Gate>, StartError> {
    gate_over(Dns::new(settings.dns.clone())?, settings)
}

/// The same over a DNS that is shared with others.
///
/// # Errors
/// The system has no random numbers.
pub fn gate_over(dns: Dns, settings: &Settings) -> Result<Arc<Gate>, StartError> {
    gate_with_permits(dns, settings, None)
}

/// The same with the temporary permits of a daemon.
///
/// # Errors
/// As [`gate_over`].
pub fn gate_with_permits(
    dns: Dns,
    settings: &Settings,
    permits: Option<PermitStore>,
) -> Result<Arc<Gate>, StartError> {
    let greylist = settings.greylist.clone().map(Greylist::in_memory).transpose();
    let greylist = greylist.map_err(StartError::Random)?;
    Ok(gate_with_services(dns, settings, Services { greylist, permits, ..Services::default() }))
}

/// A gate with the stores and counters of `services`.
#[must_use]
pub fn gate_with_services(dns: Dns, settings: &Settings, services: Services) -> Arc<Gate> {
    let reverse_mx = ReverseMx::new(dns, settings.reverse_mx.clone());
    Gate::with_services(settings.gate.clone(), reverse_mx, deadline(settings), services)
}

/// The SMTP door of [`gate_over`], to be served without listeners.
///
/// # Errors
/// The certificate can't be loaded, or the system has no random numbers.
pub fn door_over(dns: Dns, settings: &Settings) -> Result<SmtpDoor, StartError> {
    let tls = settings.tls.clone().map(Acceptor::load).transpose()?;
    Ok(smtp_door(settings, gate_over(dns, settings)?, Relay::new(settings.relay.clone()), tls))
}

pub(super) fn smtp_door(
    settings: &Settings,
    gate: Arc<Gate>,
    relay: Relay,
    tls: Option<Acceptor>,
) -> SmtpDoor {
    let session = Arc::new(settings.session.clone());
    SmtpDoor { settings: Arc::new(settings.door.clone()), session, gate, relay, tls }
}

/// Time for the longest chain of lookups without SPF, which can't run at the same time: MX, the address of its host,
/// and the same for the organisational domain.
fn deadline(settings: &Settings) -> Duration {
    let longest = settings.dns.timeout * 3;
    let uses_spf = |rules: &IdentityRules| match rules.matches {
        Action::Off => false,
        Action::Dmarc => true,
        Action::Tag | Action::Greylist | Action::Defer | Action::Reject => {
            rules.matches_by.contains(&Rung::Spf)
        }
    };
    if settings.gate.policy.all_rules().any(uses_spf) { longest.max(SPF_TIME) } else { longest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DRAIN, Flags, load};

    #[test]
    fn spf_has_its_time_where_a_rule_uses_it() {
        let no_owner = ("policy.from.matches", "off");
        let rows: [(&[(&str, &str)], u64); 6] = [
            (&[], 20),
            (&[("policy.matches_by", "mx,spf")], 20),
            (&[("policy.matches_by", "mx,spf"), ("dns.timeout", "10s")], 30),
            (&[no_owner, ("policy.matches_by", "mx,ptr")], 15),
            (&[no_owner, ("policy.mail_from.matches", "off")], 15),
            (&[("policy.mail_from.matches", "off")], 20),
        ];
        for (lines, seconds) in rows {
            let base = [("hostname", "gate.test"), ("relay.domains", "here.test")];
            let set = base.iter().chain(lines).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let settings = load(None, [], &Flags { set: set.collect(), drain: DRAIN }).unwrap().settings;
            assert_eq!(deadline(&settings).as_secs(), seconds, "{lines:?}");
        }
    }
}

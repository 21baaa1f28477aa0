//! `[policy]`: actions and rungs.

use crate::config::raw;
use crate::config::reader::Reader;
use crate::policy::identity::Identity;
use crate::policy::operator::Policy;
use crate::policy::rule::{Action, IdentityRules, Mode, OnDnsError, RejectAt, Rule, Rung};
use crate::policy::senders::Senders;

pub(super) const ACTIONS: [(&str, Action); 6] = [
    ("off", Action::Off),
    ("tag", Action::Tag),
    ("greylist", Action::Greylist),
    ("defer", Action::Defer),
    ("reject", Action::Reject),
    ("dmarc", Action::Dmarc),
];

/// Rungs of `matches` for every identity but `ptr` and `from`.
const MATCHES_RUNGS: [Rung; 4] = [Rung::Mx, Rung::Network, Rung::Ptr, Rung::Spf];
/// Rungs of `matches` for `from`.
pub(super) const FROM_MATCHES_RUNGS: [Rung; 5] = [Rung::Mx, Rung::Network, Rung::Ptr, Rung::Spf, Rung::Dkim];
/// Why `dkim` is a rung of `from` only.
const DKIM_IS_FOR_FROM: &str = "a DKIM signature vouches for From: only; set policy.from.matches_by";
/// Why `ptr` is no rung of its own identity.
const PTR_IS_ITS_OWN_PROOF: &str = "every PTR name would match itself";

/// Parses `[policy]`, all but `policy.senders`. A value that can't be parsed is recorded, and a weak one is taken instead.
pub(super) fn policy(raw: &raw::Policy, reader: &mut Reader<'_>) -> Policy {
    let modes = [("enforce", Mode::Enforce), ("monitor", Mode::Monitor)];
    let reject_at = [("rcpt", RejectAt::Rcpt), ("mail", RejectAt::Mail)];
    let on_dns_error = [("defer", OnDnsError::Defer), ("accept", OnDnsError::Accept)];
    let malformed = [("reject", Action::Reject), ("tag", Action::Tag)];
    let quarantine = ["tag", "greylist", "defer", "reject"];
    let quarantine: Vec<_> = ACTIONS.into_iter().filter(|(word, _)| quarantine.contains(word)).collect();
    let general = Rungs {
        exists: rungs(Rule::Exists, None, &raw.exists_by, reader),
        matches: rungs(Rule::Matches, None, &raw.matches_by, reader),
    };
    Policy {
        mode: reader.choice("policy.mode", &raw.mode, &modes).unwrap_or(Mode::Monitor),
        reject_at: reader.choice("policy.reject_at", &raw.reject_at, &reject_at).unwrap_or(RejectAt::Rcpt),
        on_dns_error: reader
            .choice("policy.on_dns_error", &raw.on_dns_error, &on_dns_error)
            .unwrap_or(OnDnsError::Defer),
        malformed: reader.choice("policy.malformed", &raw.malformed, &malformed).unwrap_or(Action::Tag),
        dmarc_quarantine: reader
            .choice("policy.dmarc_quarantine", &raw.dmarc_quarantine, &quarantine)
            .unwrap_or(Action::Tag),
        senders: Senders::default(),
        helo: rules(Identity::Helo, &raw.helo, &general, reader),
        ptr: rules(Identity::Ptr, &raw.ptr, &general, reader),
        mail_from: rules(Identity::MailFrom, &raw.mail_from, &general, reader),
        from: rules(Identity::From, &raw.from, &general, reader),
        reply_to: rules(Identity::ReplyTo, &raw.reply_to, &general, reader),
    }
}

/// The rungs of `[policy]`, for identities without rungs of their own.
struct Rungs {
    exists: Vec<Rung>,
    matches: Vec<Rung>,
}

fn rules(identity: Identity, raw: &raw::Rules, general: &Rungs, reader: &mut Reader<'_>) -> IdentityRules {
    let mut own = |rule, items: &Option<Vec<String>>, general: &Vec<Rung>| match items {
        Some(items) => rungs(rule, Some(identity), items, reader),
        None => general.clone(),
    };
    let exists_by = own(Rule::Exists, &raw.exists_by, &general.exists);
    let matches_by = own(Rule::Matches, &raw.matches_by, &general.matches);
    if identity == Identity::Ptr && raw.matches != Action::Off.name() && matches_by.contains(&Rung::Ptr) {
        reader.refuse_together(
            &["policy.ptr.matches", "policy.matches_by"],
            format!(
                "policy.ptr.matches needs a policy.ptr.matches_by without \"ptr\": {PTR_IS_ITS_OWN_PROOF}"
            ),
        );
    }
    IdentityRules {
        exists: action(identity, Rule::Exists, &raw.exists, reader),
        matches: action(identity, Rule::Matches, &raw.matches, reader),
        exists_by,
        matches_by,
    }
}

fn action(identity: Identity, rule: Rule, text: &str, reader: &mut Reader<'_>) -> Action {
    let key = format!("policy.{identity}.{rule}");
    let would_refuse = !matches!(text, "off" | "tag");
    if identity == Identity::Helo && rule == Rule::Matches && would_refuse {
        reader.refuse(
            &key,
            format!("{text:?} is not allowed: off or tag (RFC 5321 4.1.4 forbids refusing for it)"),
        );
        return Action::Off;
    }
    let takes_dmarc = identity == Identity::From && rule == Rule::Matches;
    let words: Vec<_> =
        ACTIONS.into_iter().filter(|(_, action)| takes_dmarc || *action != Action::Dmarc).collect();
    reader.choice(&key, text, &words).unwrap_or(Action::Off)
}

/// The rungs of one rule, for one identity or (`None`) for all.
fn rungs(rule: Rule, identity: Option<Identity>, items: &[String], reader: &mut Reader<'_>) -> Vec<Rung> {
    let key = identity.map_or_else(|| format!("policy.{rule}_by"), |one| format!("policy.{one}.{rule}_by"));
    let words: &[Rung] = match (rule, identity) {
        (Rule::Exists, _) => &[Rung::Mx, Rung::Address, Rung::Organization],
        (Rule::Matches, Some(Identity::Ptr)) => &[Rung::Mx, Rung::Network, Rung::Spf],
        (Rule::Matches, Some(Identity::From)) => &FROM_MATCHES_RUNGS,
        (Rule::Matches, _) => &MATCHES_RUNGS,
    };
    let allowed: Vec<&str> = words.iter().map(|rung| rung.name()).collect();
    let allowed = allowed.join(", ");
    if items.is_empty() {
        reader.refuse(
            &key,
            format!("is empty, so that no sender could satisfy the rule: one or more of {allowed}"),
        );
    }
    let read = |item: &str| match words.iter().find(|rung| rung.name() == item) {
        Some(rung) => Ok(*rung),
        None if rule == Rule::Matches && identity == Some(Identity::Ptr) && item == Rung::Ptr.name() => {
            Err(format!("is not allowed: {PTR_IS_ITS_OWN_PROOF}; one or more of {allowed}"))
        }
        None if rule == Rule::Matches && item == Rung::Dkim.name() => {
            Err(format!("is not allowed: {DKIM_IS_FOR_FROM}; one or more of {allowed}"))
        }
        None => Err(format!("is not allowed: one or more of {allowed}")),
    };
    reader.list(&key, items, read).unwrap_or_default()
}

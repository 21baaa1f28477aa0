//! The remedy: DNS records to add or remove, each step with its reason in a plain sentence.
//!
//! It proposes as little as possible: an existing name of the address goes before a new one, and an MX host that SPF lets
//! pass needs no `ip4:`. What the administrator must decide (two SPF records, an alias at the domain) becomes a remark. No
//! record diverts incoming mail: new MX hosts have the lowest priority.

mod owner;
mod policy;

use std::net::IpAddr;

use crate::audit::facts::{Facts, Line};
use crate::audit::record::MissingRecord;
use crate::evidence::Target;
use crate::policy::identity::Identity;
use crate::policy::reason::Reason;
use crate::reverse_mx::{Exchanger, Exchangers, FcrdnsResult};
use crate::smtp::address::DomainName;

/// The difference between the preferences of two MX hosts.
const STEP: u16 = 10;

#[derive(Debug, Default)]
pub(super) struct Remedy {
    /// Faults that no record here repairs, or that come first.
    pub(super) remarks: Vec<String>,
    pub(super) steps: Vec<Step>,
}

/// Records that belong together.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) why: String,
    pub(super) zone: Zone,
    pub(super) remove: Vec<MissingRecord>,
    pub(super) add: Vec<MissingRecord>,
}

/// The zone of a record, by its administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// The domain's administrator.
    Own,
    /// The provider of the address.
    Provider,
}

impl Remedy {
    pub(super) fn of(facts: &Facts) -> Self {
        let listed = facts.mx_report.listed();
        let last =
            listed.iter().filter(|exchanger| is_host(exchanger)).map(|exchanger| exchanger.preference).max();
        let mut draft = Draft {
            facts,
            remedy: Self::default(),
            last,
            hosts: listed.iter().map(|exchanger| exchanger.target.clone()).collect(),
            placed: Vec::new(),
        };
        if draft.can_be_repaired() {
            draft.exchangers();
            for line in &facts.lines {
                draft.line(line);
            }
            draft.count();
            draft.helo();
            draft.policy();
            draft.owner();
        }
        draft.remedy
    }
}

struct Draft<'a> {
    facts: &'a Facts,
    remedy: Remedy,
    /// The greatest preference so far.
    last: Option<u16>,
    /// The targets of the MX records after all steps.
    hosts: Vec<Target>,
    /// The addresses of MX hosts after all steps.
    placed: Vec<IpAddr>,
}

impl Draft<'_> {
    fn domain(&self) -> &DomainName {
        &self.facts.domain
    }

    fn remark(&mut self, what: String) {
        self.remedy.remarks.push(what);
    }

    fn step(&mut self, zone: Zone, why: String, remove: Vec<MissingRecord>, add: Vec<MissingRecord>) {
        self.remedy.steps.push(Step { why, zone, remove, add });
    }

    /// Whether records can help at all; otherwise adds a remark.
    fn can_be_repaired(&mut self) -> bool {
        let domain = self.domain().clone();
        let fault = match (&self.facts.mx_report.exchangers, &self.facts.mx_report.own.alias) {
            (_, Some(target)) => format!(
                "{domain} is an alias (CNAME) of {target}: beside a CNAME record no MX and no TXT record can stand (RFC 1034 \
                 3.6.2). Put {target}'s own records in its place, then audit again."
            ),
            (Exchangers::NoSuchDomain, None) => {
                format!(
                    "{domain} doesn't exist in DNS: replies to its mail can't be delivered. Check its spelling."
                )
            }
            (Exchangers::Unavailable(trouble), None) => {
                format!("The MX records of {domain} can't be looked up now ({trouble}). Audit again later.")
            }
            (Exchangers::Listed(_) | Exchangers::Null | Exchangers::Absent, None) => return true,
        };
        self.remark(fault);
        false
    }

    /// Checks the existing MX records.
    fn exchangers(&mut self) {
        let domain = self.domain().clone();
        match &self.facts.mx_report.exchangers {
            Exchangers::Null => self.step(
                Zone::Own,
                format!(
                    "{domain} has a null MX (RFC 7505): it takes no mail, so receivers should not accept mail from it. Remove this \
                     record."
                ),
                vec![MissingRecord::mx_to(&domain, 0, &Target::Root)],
                Vec::new(),
            ),
            Exchangers::Absent if self.facts.mx_report.own.addresses.is_empty() => {
                self.remark(format!("{domain} has no MX record: replies to its mail can't be delivered."));
            }
            Exchangers::Absent => {
                let record = self.mx(&domain);
                let why = format!(
                    "{domain} has no MX record. Mail for it goes to its own address, but many receivers, rmxd by default among \
                     them, require an MX record; this one has the same effect."
                );
                self.step(Zone::Own, why, Vec::new(), vec![record]);
            }
            Exchangers::Listed(list) => {
                for exchanger in list {
                    self.exchanger(exchanger);
                }
            }
            Exchangers::NoSuchDomain | Exchangers::Unavailable(_) => {}
        }
    }

    fn exchanger(&mut self, exchanger: &Exchanger) {
        let Exchanger { preference, target, holding, .. } = exchanger;
        let domain = self.domain().clone();
        let record = MissingRecord::mx_to(&domain, *preference, target);
        let Some(holding) = holding else {
            let why = if *target == Target::Root {
                "An MX record that names the root is a null MX only if it is the only MX record (RFC 7505 3)."
                    .to_owned()
            } else {
                format!(
                    "An MX record must name a host (RFC 5321 5.1), and {target} is none: mail can't be sent there."
                )
            };
            self.hosts.retain(|host| host != target);
            return self.step(Zone::Own, why, vec![record], Vec::new());
        };
        if let Some(alias) = &holding.alias {
            let why =
                format!("The MX host {target} is an alias (CNAME) of {alias}, which RFC 2181 10.3 forbids.");
            match alias {
                Target::Host(host) => {
                    let direct = MissingRecord::mx(&domain, *preference, host);
                    self.step(Zone::Own, why, vec![record], vec![direct]);
                }
                Target::Root | Target::Invalid(_) => self.remark(why),
            }
        }
        match (holding.trouble, exchanger.usable) {
            (Some(trouble), _) => self.remark(format!("The MX host {target} can't be looked up now ({trouble}).")),
            (None, true) => {}
            (None, false) if holding.addresses.is_empty() => self.remark(format!(
                "The MX host {target} has no address: mail can't be sent there. Give it one, or remove its MX record."
            )),
            (None, false) => self.remark(format!(
                "The MX host {target} has no address on the public Internet: mail can't be sent there."
            )),
        }
    }

    /// Proposes the records that one address needs.
    fn line(&mut self, line: &Line) {
        let address = line.address;
        if self.facts.mx_report.takes_mail_at(address) {
            self.placed.push(address);
            return self.ptr_of_exchanger(line);
        }
        if self.facts.mx_report.trouble().is_some() {
            return self.remark(format!(
                "Whether {address} is an address of an MX host can't be known now. Audit again later."
            ));
        }
        if let FcrdnsResult::TempError(trouble) = line.names {
            return self.remark(format!(
                "The PTR record of {address} can't be looked up now ({trouble}). Audit again later."
            ));
        }
        let named = line.own_name().or(line.fresh.as_ref()).cloned();
        let Some(host) = named else {
            return self.remark(format!(
                "{address} needs a host name, but no free name was found below {}.",
                self.domain()
            ));
        };
        self.placed.push(address);
        self.new_exchanger(line, &host);
        if line.own_name().is_none() {
            let why =
                format!("With this record, {address} has the name of its MX host, as receivers expect.");
            self.ptr(line, &host, why);
        }
    }

    /// Gives this name the address, and makes it an MX host.
    fn new_exchanger(&mut self, line: &Line, host: &DomainName) {
        let address = line.address;
        let mut why = vec![format!("{address} is not an address of any MX host.")];
        let mut add = Vec::new();
        match (line.own_name(), line.is_confirmed()) {
            (Some(_), true) => why.push(format!("Its name is {host} already.")),
            (Some(_), false) => why.push(format!("Its PTR name is {host}: give that name the address.")),
            (None, _) => why.push(format!("Give it a host name of its own, {host}.")),
        }
        if line.own_name().is_none() || !line.is_confirmed() {
            add.push(MissingRecord::address(host, address));
        }
        if !self.hosts.contains(&Target::Host(host.clone())) {
            let order = if self.hosts.is_empty() {
                "It is the only one, so all your incoming mail arrives there"
            } else {
                "It has the lowest priority, so incoming mail arrives there only if the others can't be reached"
            };
            why.push(format!("Make that an MX host. {order}: forward its port 25 to your mail server."));
            add.push(self.mx(host));
        }
        if !add.is_empty() {
            self.step(Zone::Own, why.join(" "), Vec::new(), add);
        }
    }

    /// Checks the PTR record of an MX host's address.
    fn ptr_of_exchanger(&mut self, line: &Line) {
        let address = line.address;
        let refused = line.judged.iter().find_map(|judged| judged.refused_for(Identity::Ptr));
        let why = match (&line.names, refused) {
            (FcrdnsResult::TempError(_), _) | (FcrdnsResult::Confirmed(_), None) => return,
            // Such a name lacks only the domain's own MX record.
            (FcrdnsResult::Confirmed(_), Some(_)) if line.own_name().is_some() => return,
            (FcrdnsResult::Confirmed(names), Some(reason)) => {
                let names: Vec<&str> = names.iter().map(DomainName::as_str).collect();
                format!(
                    "{address} has the PTR name {}, and a strict receiver refuses that name ({reason}).",
                    names.join(", ")
                )
            }
            (FcrdnsResult::NoPtr, _) => {
                format!("{address} has no PTR record, and many receivers refuse mail from such an address.")
            }
            (FcrdnsResult::NotConfirmed(names), _) => {
                if let Some(name) = line.own_name() {
                    let why = format!(
                        "The PTR record of {address} names {name}, but that name doesn't have the address."
                    );
                    let add = vec![MissingRecord::address(name, address)];
                    return self.step(Zone::Own, why, Vec::new(), add);
                }
                format!(
                    "The PTR record of {address} names {}, which doesn't have the address.",
                    names.join(", ")
                )
            }
        };
        match self.exchanger_of(address) {
            Some(host) => self.ptr(line, &host, why),
            None => self.remark(why),
        }
    }

    /// The name of the MX host with this address; for an alias its target.
    fn exchanger_of(&self, address: IpAddr) -> Option<DomainName> {
        let Some(exchanger) = self.facts.mx_report.exchanger_with(address) else {
            return Some(self.domain().clone());
        };
        match exchanger.holding.as_ref().and_then(|holding| holding.alias.as_ref()) {
            None => exchanger.host().cloned(),
            Some(Target::Host(name)) => Some(name.clone()),
            Some(Target::Root | Target::Invalid(_)) => None,
        }
    }

    /// Replaces the PTR records of an address; the provider has to do it.
    fn ptr(&mut self, line: &Line, host: &DomainName, why: String) {
        let names: Vec<String> = match &line.names {
            FcrdnsResult::Confirmed(names) => names.iter().map(ToString::to_string).collect(),
            FcrdnsResult::NotConfirmed(names) => names.iter().map(ToString::to_string).collect(),
            FcrdnsResult::NoPtr | FcrdnsResult::TempError(_) => Vec::new(),
        };
        let remove = names.iter().filter_map(|name| MissingRecord::ptr(line.address, name)).collect();
        let add = MissingRecord::ptr(line.address, host.as_str()).into_iter().collect();
        self.step(Zone::Provider, why, remove, add);
    }

    /// An MX record with a lower priority than all others.
    fn mx(&mut self, host: &DomainName) -> MissingRecord {
        let preference = self.last.map_or(STEP, |last| last.saturating_add(STEP));
        self.last = Some(preference);
        self.hosts.push(Target::Host(host.clone()));
        MissingRecord::mx(self.domain(), preference, host)
    }

    /// Receivers look up a limited number of hosts, by preference.
    fn count(&mut self) {
        let (count, max) = (self.hosts.len(), self.facts.max_hosts);
        if count > max {
            let domain = self.domain();
            self.remark(format!(
                "{domain} has {count} MX records with those proposed here, and rmxd looks up only the first {max}. Remove some."
            ));
        }
    }

    /// A HELO name that a policy refuses has to be changed in the mail server's configuration.
    fn helo(&mut self) {
        let mut names: Vec<(&str, Reason)> = Vec::new();
        for line in &self.facts.lines {
            let refused = line.judged.iter().filter_map(|judged| judged.refused_for(Identity::Helo));
            for reason in refused {
                let domain = line.helo == self.domain().as_str();
                if !domain && !names.contains(&(&line.helo, reason)) {
                    names.push((&line.helo, reason));
                }
            }
        }
        for (name, reason) in names {
            self.remark(format!(
                "The HELO name {name} is refused by strict receivers ({reason}): configure the mail server to send EHLO with the PTR \
                 name of its outgoing address."
            ));
        }
    }
}

fn is_host(exchanger: &Exchanger) -> bool {
    exchanger.holding.is_some()
}

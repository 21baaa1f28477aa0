//! Turns the options into a job. An option that can't be met is an error with its name, before anything starts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::net::lookup_host;

use crate::console::Exit;
use crate::net::{Endpoint, Purpose};
use crate::policy::door::DoorName;
use crate::smtp::address::ForwardPath;
use crate::tools::load::class::{Class, Expected, PerClass};
use crate::tools::load::client::Target;
use crate::tools::load::fitting;
use crate::tools::load::plan::{self, Address, Plan, Sender};
use crate::tools::load::run::Pace;
use crate::tools::load::values::{self, Mix, Pattern, Sizes};
use crate::tools::load::{Args, Names, Stop, Tolerated, own};
use crate::zone::{Row, generated, sample_rows};

/// Without --sessions and --duration.
const SESSIONS: u64 = 10_000;

/// Number of names of `--names warm`.
const WARM: u32 = 1000;

/// Limits for a target that isn't on loopback.
const MOST_RATE: u32 = 1000;
const MOST_CONNECTIONS: u32 = 200;

/// The mix for a target, and for --self, where the expected verdict of each class is known.
const MIX: &str = "spoofed=90,clean=10";
const OWN_MIX: &str = "spoofed=75,clean=15,nomx=2,nullmx=2,foreign=2,badhelo=1,badfrom=2,servfail=1";

const OWN_MIX_WITHOUT_HEADER: &str = "spoofed=77,clean=15,nomx=2,nullmx=2,foreign=2,badhelo=1,servfail=1";

/// Octets of a body.
const SIZE: Sizes = Sizes { least: 4096, most: 4096 };

/// Names that don't exist: RFC 6761 reserves .test, and no sample zone has this domain.
const SPOOFED: &str = "s%n.spoof.test";

const HELO: &str = "mail.good.test";

const SOURCE: &str = "127.200.0.0/16";

pub(super) struct Job {
    pub(super) door: DoorName,
    /// `None`: --self.
    pub(super) target: Option<Target>,
    pub(super) plan: Plan,
    pub(super) pace: Pace,
    pub(super) expected: PerClass<Expected>,
    pub(super) pipelining: bool,
    pub(super) timeout: Duration,
    pub(super) tolerate_defer: bool,
    pub(super) tolerate_failure: bool,
    /// With --self: the number of valid domains.
    pub(super) domains: u32,
    /// With --self: settings for the daemon.
    pub(super) set: Vec<String>,
}

pub(super) async fn job(args: &Args) -> Result<Job, Stop> {
    let wrong = |what| (Exit::Usage, what);
    fitting::check(args).map_err(wrong)?;
    let target = match &args.target {
        Some(text) => Some(target(args.door, text).await?),
        None => None,
    };
    compose(args, target).map_err(wrong)
}

async fn target(door: DoorName, text: &str) -> Result<Target, Stop> {
    let endpoint = async |purpose| match text.starts_with("unix:") {
        true => {
            let parsed = Endpoint::parse(text, purpose);
            parsed.map_err(|what| (Exit::Usage, format!("{text:?}: {what}")))
        }
        false => resolve(text).await.map(Endpoint::Tcp),
    };
    Ok(match door {
        DoorName::Smtp => Target::Smtp(resolve(text).await?),
        DoorName::Milter => Target::Milter(endpoint(Purpose::Milter).await?),
        DoorName::Policy => Target::Policy(endpoint(Purpose::Policy).await?),
    })
}

async fn resolve(text: &str) -> Result<SocketAddr, Stop> {
    let wrong = |what: String| (Exit::Usage, what);
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        return Err(wrong(format!("{text:?} is not HOST:PORT, such as 127.0.0.1:2525 or [::1]:25")));
    }
    let found = lookup_host(text).await.map_err(|error| (Exit::Temporary, format!("{text}: {error}")))?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| (Exit::Temporary, format!("{text} has no address")))
}

fn compose(args: &Args, target: Option<Target>) -> Result<Job, String> {
    let own = target.is_none();
    let remote = target.as_ref().is_some_and(|target| !target.endpoint().is_local());
    let mix = match &args.mix {
        Some(mix) => mix.clone(),
        None => values::mix(match (own, args.door) {
            (true, DoorName::Policy) => OWN_MIX_WITHOUT_HEADER,
            (true, DoorName::Smtp | DoorName::Milter) => OWN_MIX,
            (false, _) => MIX,
        })?,
    };
    if remote {
        refuse_remote(args, &mix)?;
    }
    let sessions = args.sessions.or_else(|| args.duration.is_none().then_some(SESSIONS));
    let names = match args.names {
        Names::Warm => plan::Names::Warm(u64::from(args.domains.unwrap_or(WARM))),
        Names::Cold => plan::Names::Cold,
    };
    let recipient = args.recipient.as_deref().unwrap_or(own::RECIPIENT);
    if !matches!(ForwardPath::parse(recipient), Ok(ForwardPath::Mailbox(_))) {
        return Err(format!("--recipient: {recipient:?} is not an address"));
    }
    let mut plan = Plan {
        seed: args.seed,
        mix,
        names,
        sizes: args.size.unwrap_or(SIZE),
        slow: args.slow,
        messages: args.messages,
        senders: PerClass::default(),
        // To a mail server behind another door the client's address is only told.
        sources: if remote && args.door == DoorName::Smtp { Vec::new() } else { sources(args)? },
        recipient: recipient.to_owned(),
    };
    let domains = domain_count(args);
    plan.senders = if own { own_senders(domains)? } else { senders(args, target.as_ref())? };
    if let Some((class, _)) = plan.mix.0.iter().find(|(class, _)| plan.senders.of(*class).is_empty()) {
        let name = class.name();
        return Err(format!(
            "no sender of class {name} can reach this target; name one with --domain {name}=DOMAIN"
        ));
    }
    let connections = usize::try_from(args.connections).unwrap_or(usize::MAX);
    Ok(Job {
        door: args.door,
        target,
        plan,
        pace: Pace { sessions, duration: args.duration, rate: args.rate, connections },
        expected: expected(args, own),
        pipelining: args.pipelining,
        timeout: args.timeout,
        tolerate_defer: args.tolerate.contains(&Tolerated::Defer),
        tolerate_failure: args.tolerate.contains(&Tolerated::Failure),
        domains,
        set: args.set.clone(),
    })
}

/// A target that isn't on loopback needs its owner's statement, a limited rate, and senders with a known verdict there.
fn refuse_remote(args: &Args, mix: &Mix) -> Result<(), String> {
    if !args.i_own_this_host {
        return Err("the target is not on loopback: add --i-own-this-host if it is yours to test".to_owned());
    }
    if args.rate.is_none_or(|rate| rate > MOST_RATE) {
        return Err(format!("the target is not on loopback: add --rate with at most {MOST_RATE}/s"));
    }
    if args.connections > MOST_CONNECTIONS {
        return Err(format!(
            "the target is not on loopback: --connections may be at most {MOST_CONNECTIONS}"
        ));
    }
    if !args.source.is_empty() {
        return Err("--source is allowed only for a target on loopback".to_owned());
    }
    if args.recipient.is_none() {
        return Err(
            "the target is not on loopback: add --recipient with an address that it accepts mail for"
                .to_owned(),
        );
    }
    let given = |class| class == Class::Spoofed || args.domain.iter().any(|given| given.class == class);
    match mix.0.iter().find(|(class, _)| !given(*class)) {
        None => Ok(()),
        Some((class, _)) => {
            let name = class.name();
            Err(format!("the target is not on loopback: name senders with --domain {name}=DOMAIN"))
        }
    }
}

fn sources(args: &Args) -> Result<Vec<Ipv4Net>, String> {
    if args.source.is_empty() { Ok(vec![values::source(SOURCE)?]) } else { Ok(args.source.clone()) }
}

fn expected(args: &Args, own: bool) -> PerClass<Expected> {
    let mut expected = PerClass::new(if own { Class::by_own_daemon } else { Class::by_default });
    for given in &args.expect {
        *expected.of_mut(given.class) = Expected { verdict: given.verdict, enhanced: None };
    }
    expected
}

/// The number of valid domains in the zones of --self.
fn domain_count(args: &Args) -> u32 {
    let size = args.domains.unwrap_or(match args.names {
        Names::Warm => WARM,
        Names::Cold => generated::MAX_DOMAINS,
    });
    size.clamp(1, generated::MAX_DOMAINS)
}

/// The senders of --self, from the generated zones.
fn own_senders(domains: u32) -> Result<PerClass<Vec<Sender>>, String> {
    let below = |start: &str, parent: &str| values::pattern(&format!("{start}%n.{parent}"));
    let valid = below("d", generated::VALID)?;
    let spoofed = below("s", generated::SPOOFED)?;
    // A clean client uses the name of its host in EHLO.
    let clean = Sender {
        helo: below("mx", generated::VALID)?,
        domain: valid.clone(),
        from: valid,
        address: Address::Generated,
        domains: Some(u64::from(domains)),
    };
    let stranger = |domain: Pattern| -> Result<Sender, String> {
        let (helo, from) = (values::pattern(generated::CLIENT)?, domain.clone());
        Ok(Sender { helo, domain, from, address: Address::Source, domains: None })
    };
    let mut senders = PerClass::default();
    for class in Class::ALL {
        let sender = match class {
            Class::Clean => clean.clone(),
            Class::Spoofed => stranger(spoofed.clone())?,
            Class::NoMx => stranger(below("d", generated::NO_MX)?)?,
            Class::NullMx => stranger(below("d", generated::NULL_MX)?)?,
            Class::ServFail => stranger(below("d", generated::BROKEN)?)?,
            Class::Foreign => Sender { address: Address::Source, ..clean.clone() },
            Class::BadHelo => Sender { helo: spoofed.clone(), ..clean.clone() },
            Class::BadFrom => Sender { from: spoofed.clone(), ..clean.clone() },
        };
        *senders.of_mut(class) = vec![sender];
    }
    Ok(senders)
}

/// The senders from the options, and for the other classes those of the sample zones.
fn senders(args: &Args, target: Option<&Target>) -> Result<PerClass<Vec<Sender>>, String> {
    let helo = match &args.helo {
        Some(helo) => helo.clone(),
        None => values::pattern(HELO)?,
    };
    let spoofed = match args.domain.iter().find(|given| given.class == Class::Spoofed) {
        Some(given) => given.domain.clone(),
        None => values::pattern(SPOOFED)?,
    };
    let sender = |class, domain: Pattern, address: Option<IpAddr>| Sender {
        helo: if class == Class::BadHelo { spoofed.clone() } else { helo.clone() },
        from: if class == Class::BadFrom { spoofed.clone() } else { domain.clone() },
        domain,
        address: address.map_or(Address::Source, Address::Fixed),
        domains: None,
    };
    let rows = sample_rows();
    let mut senders = PerClass::default();
    for class in Class::ALL {
        let mut kinds: Vec<Sender> = Vec::new();
        for given in args.domain.iter().filter(|given| given.class == class) {
            if let (Some(address), Some(Target::Smtp(target))) = (given.address, target)
                && address.is_ipv4() != target.is_ipv4()
            {
                return Err(format!("--domain: a client at {address} can't reach the target at {target}"));
            }
            kinds.push(sender(class, given.domain.clone(), given.address));
        }
        if kinds.is_empty() && class == Class::Spoofed {
            kinds.push(sender(class, spoofed.clone(), None));
        } else if kinds.is_empty() {
            for row in rows.iter().filter(|row| is_sample(class, row)) {
                kinds.push(sender(class, values::pattern(row.domain)?, row.client));
            }
        }
        *senders.of_mut(class) = kinds;
    }
    Ok(senders)
}

/// Whether a row of the sample zones is a sender of this class. Rows with slow DNS servers are left out.
fn is_sample(class: Class, row: &Row) -> bool {
    let is_fast = !matches!(row.domain, "slow.test" | "silent.test" | "loop.test");
    let fits = match class {
        Class::Clean | Class::BadFrom | Class::BadHelo => {
            row.exists == "pass" && row.matches == "yes" && row.ptr == "confirmed"
        }
        Class::Foreign => row.exists == "pass" && row.matches == "no",
        // These two have an address, which is an implicit MX (RFC 5321 5.1).
        Class::NoMx => row.exists == "no_mx" && !matches!(row.domain, "a-only.test" | "news.shop.test"),
        Class::NullMx => row.exists == "null_mx",
        Class::ServFail => row.exists == "dns_error",
        // Its names are generated.
        Class::Spoofed => false,
    };
    fits && is_fast && row.client.is_some_and(|client| client.is_ipv4())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(std::iter::once("load").chain(line.split_whitespace())).map(|it| it.args)
    }

    async fn refusal(line: &str) -> String {
        match job(&args(line).unwrap()).await {
            Err((Exit::Usage, what)) => what,
            Err(other) => panic!("{line}: {other:?}"),
            Ok(_) => panic!("{line} is accepted"),
        }
    }

    #[test]
    fn clap_refuses_wrong_values_and_combinations() {
        for line in [
            "",
            "127.0.0.1:25 --self",
            "--self --mix spam=1",
            "--self --sessions 0",
            "--self --connections 0",
            "--self --slow 101",
            "--self --domain clean=good.test",
            "127.0.0.1:25 --set a=b",
            "127.0.0.1:25 --tolerate everything",
            "127.0.0.1:25 --timeout 0s",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_target_off_loopback_needs_its_owner_and_a_limit() {
        let rows = [
            ("192.0.2.1:25", "add --i-own-this-host"),
            ("192.0.2.1:25 --rate 10", "add --i-own-this-host"),
            ("192.0.2.1:25 --i-own-this-host", "add --rate with at most 1000/s"),
            ("192.0.2.1:25 --i-own-this-host --rate 1001", "add --rate with at most 1000/s"),
            ("192.0.2.1:25 --i-own-this-host --rate 9 --connections 201", "--connections may be at most 200"),
            (
                "192.0.2.1:25 --i-own-this-host --rate 9 --source 127.0.0.1",
                "--source is allowed only for a target on loopback",
            ),
            ("192.0.2.1:25 --i-own-this-host --rate 9", "add --recipient"),
            ("192.0.2.1:25 --i-own-this-host --rate 9 --recipient a@b.test", "--domain clean=DOMAIN"),
            ("localhost", "is not HOST:PORT"),
            ("127.0.0.1:0", "is not HOST:PORT"),
            ("127.0.0.1:25 --recipient x", "--recipient: \"x\" is not an address"),
            ("[::1]:25 --domain clean=a.test@127.0.0.1", "can't reach the target at [::1]:25"),
        ];
        for (line, expected) in rows {
            let what = refusal(line).await;
            assert!(what.contains(expected), "{line}: {what}");
        }
        let line = "192.0.2.1:25 --i-own-this-host --rate 9 --recipient a@b.test --mix spoofed=1";
        let job =
            job(&args(line).unwrap()).await.map_err(|stop| stop.1).unwrap_or_else(|what| panic!("{what}"));
        assert_eq!(job.plan.session(0).unwrap().address, None, "the system chooses the address");
    }

    #[tokio::test]
    async fn every_class_has_senders_in_the_sample_zones_and_in_those_of_self() {
        for line in [
            "127.0.0.1:25",
            "--self",
            "--self --names cold --sessions 1000",
            "unix:/x --door milter",
            "--self --door milter",
        ] {
            let mix: Vec<_> = Class::ALL.iter().map(|class| format!("{}=1", class.name())).collect();
            let line = format!("{line} --mix {}", mix.join(","));
            let job = job(&args(&line).unwrap())
                .await
                .map_err(|stop| stop.1)
                .unwrap_or_else(|what| panic!("{what}"));
            for number in 0..1000 {
                let session = job.plan.session(number).unwrap();
                assert!(session.address.is_some_and(|address| address.is_loopback()), "{session:?}");
            }
        }
    }

    #[tokio::test]
    async fn options_change_the_expected_verdict_and_the_number_of_domains() {
        let rows = [
            ("127.0.0.1:25", "accept", 1000),
            ("127.0.0.1:25 --expect foreign=reject", "reject", 1000),
            ("--self", "reject 5.7.1", 1000),
            ("--self --expect foreign=accept --domains 7", "accept", 7),
            ("--self --names cold --duration 5s", "reject 5.7.1", generated::MAX_DOMAINS),
        ];
        for (line, foreign, domains) in rows {
            let job = job(&args(line).unwrap())
                .await
                .map_err(|stop| stop.1)
                .unwrap_or_else(|what| panic!("{what}"));
            assert_eq!(job.expected.of(Class::Foreign).to_string(), foreign, "{line}");
            assert_eq!(job.domains, domains, "{line}");
        }
    }
}

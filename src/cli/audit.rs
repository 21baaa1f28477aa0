//! `rmxd audit`: would mail over each outgoing address of one's own domain be accepted by a reverse MX look-up?
//!
//! It asks DNS as a receiver would and lets the gate itself decide, by the default policy and by that of
//! `config/strict.toml`; nothing is sent. What is missing is printed as records for a zone file. It changes no zone, and
//! doesn't try whether anybody answers at the addresses.

mod facts;
mod record;
mod remedy;
mod report;
mod standing;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::audit::facts::{Auditor, Judge};
use crate::cli::audit::remedy::Remedy;
use crate::cli::audit::report::Report;
use crate::cli::audit::standing::Standing;
use crate::cli::{ConfigSource, Exit, daemon, print, report};
use crate::config::{self, DRAIN, Flags, Settings};
use crate::dns::Dns;
use crate::reverse_mx::ReverseMx;
use crate::smtp::address::{Domain, DomainName, Mailbox};

/// The strict policy, the very file.
const STRICT: (&str, &str) = ("config/strict.toml", include_str!("../../config/strict.toml"));

/// Audit the outgoing addresses of your own domain: which of them a reverse MX lookup accepts, and what to add to DNS
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
For each address it shows the MX host that has it, its PTR name, the result of SPF, and what rmxd with its default policy (DEFAULT) and \
with config/strict.toml (STRICT) would do with a message from it; with --config, also what your own policy would do (YOURS). \
In monitor mode the verdict is shown as it would be enforced. DNS is asked as [dns] of the configuration says.

What is missing is printed as lines for a zone file, the reason above them as a comment. What stands after `; remove:` is a record \
that has to go.

Exit codes:
  0   mail over every address is accepted by all that is looked at here
  1   over at least one address mail would be lost: no MX host has the address (a receiver that asks for reverse MX refuses \
it), or the policy DEFAULT or STRICT refuses, or SPF gives fail
  75  DNS trouble kept it from knowing, and nothing else is wrong
  64  wrong usage
  78  configuration error
An SPF result between pass and fail, or none, is told, and makes no difference to the exit code.")]
pub struct Args {
    /// Your domain: what stands behind the @ of your senders
    #[arg(value_name = "DOMAIN", value_parser = domain)]
    domain: DomainName,
    /// An address that your mail leaves from, as others see it; can be given several times
    #[arg(long, value_name = "IP", required = true)]
    egress: Vec<IpAddr>,
    /// The sender in MAIL FROM and From:, an address at DOMAIN [default: postmaster@DOMAIN]
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    sender: Option<Mailbox>,
    /// The argument of EHLO [default: the confirmed PTR name of the address, else DOMAIN]
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// Show too which rungs of both rules hold for each address
    #[arg(long)]
    all_policies: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    audit(args).unwrap_or_else(|exit| exit).into()
}

fn audit(args: &Args) -> Result<Exit, Exit> {
    let own = args.source.load(DRAIN)?.settings;
    let sender = sender(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Exit::Temporary, &error.to_string()))?;
    let facts = runtime.block_on(async {
        let auditor = auditor(args, own, sender)?;
        let egress = egress(args, &auditor)?;
        Ok(auditor.gather(&egress).await)
    })?;
    let standings: Vec<Standing> = facts.lines.iter().map(|line| Standing::of(&facts, line)).collect();
    let exit = exit(&standings);
    let remedy = Remedy::of(&facts);
    let report = Report { facts: &facts, standings: &standings, remedy: &remedy };
    match print(&if args.json { report.json(exit) } else { report.text() }) {
        Exit::Done => Ok(exit),
        other => Err(other),
    }
}

fn failed(exit: Exit, what: &str) -> Exit {
    eprintln!("rmxd: {what}");
    exit
}

fn exit(standings: &[Standing]) -> Exit {
    if standings.iter().any(|standing| !standing.lost.is_empty()) {
        Exit::Reject
    } else if standings.iter().any(|standing| !standing.unknown.is_empty()) {
        Exit::Temporary
    } else {
        Exit::Done
    }
}

/// The policies that are shown, over one DNS.
fn auditor(args: &Args, own: Settings, sender: Mailbox) -> Result<Auditor, Exit> {
    let config = |error: daemon::StartError| failed(Exit::Config, &error.to_string());
    let dns = Dns::new(own.dns.clone()).map_err(|error| config(error.into()))?;
    let judge = |name, settings: &Settings| {
        daemon::gate_over(dns.clone(), settings).map(|gate| Judge { name, gate }).map_err(config)
    };
    let mut judges = vec![
        judge("default", &shipped(None, &own)?)?,
        judge("strict", &shipped(Some((Path::new(STRICT.0), STRICT.1)), &own)?)?,
    ];
    if args.source.config.is_some() {
        judges.push(judge("yours", &own)?);
    }
    Ok(Auditor {
        domain: args.domain.clone(),
        sender,
        helo: args.helo.clone(),
        rungs: args.all_policies,
        most_hosts: own.reverse_mx.max_mx_hosts,
        reverse_mx: ReverseMx::new(dns.clone(), own.reverse_mx),
        dns,
        judges,
    })
}

/// A policy as others have it, whatever the environment here says; only what DNS is asked, and which addresses count, is the
/// operator's.
fn shipped(file: Option<(&Path, &str)>, own: &Settings) -> Result<Settings, Exit> {
    let set = vec![("hostname".to_owned(), own.hostname.to_string())];
    let loaded = config::load_text(file, [], &Flags { set, ..Flags::default() });
    let mut settings = loaded
        .map_err(|problems| {
            report(&problems);
            Exit::Config
        })?
        .settings;
    settings.dns = own.dns.clone();
    settings.reverse_mx.private_addresses = own.reverse_mx.private_addresses;
    Ok(settings)
}

/// Each address once. One that nobody outside sees is a mistake that would make nonsense of the rest.
fn egress(args: &Args, auditor: &Auditor) -> Result<Vec<IpAddr>, Exit> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in args.egress.iter().map(IpAddr::to_canonical) {
        if !auditor.reverse_mx.is_usable(address) {
            let what = format!(
                "--egress {address}: not an address of the public Internet; give the one that receivers see (in a \
                 test network: --set dns.private_addresses=accept)"
            );
            return Err(failed(Exit::Usage, &what));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn sender(args: &Args) -> Result<Mailbox, Exit> {
    let domain = &args.domain;
    let sender = match &args.sender {
        Some(sender) => sender.clone(),
        None => mailbox(&format!("postmaster@{domain}")).map_err(|what| failed(Exit::Usage, &what))?,
    };
    if sender.domain().name() == Some(domain) {
        return Ok(sender);
    }
    Err(failed(Exit::Usage, &format!("--sender {sender}: must be an address at {domain}")))
}

fn domain(text: &str) -> Result<DomainName, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match DomainName::parse_unicode(name) {
        Ok(name) if !name.is_single_label() && !name.is_ip_text() => Ok(name),
        Ok(_) | Err(_) => Err("must be a domain name such as example.com".to_owned()),
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    let mailbox = Mailbox::parse(inner).map_err(|error| error.to_string())?;
    match mailbox.domain() {
        Domain::Name(_) => Ok(mailbox),
        Domain::Literal(_) => Err("must have a domain name behind the @".to_owned()),
    }
}

//! `rmxd audit`: whether receivers with reverse MX lookup accept mail over each sending address of the operator's domain.
//!
//! It applies the default policy, that of `config/strict.toml`, and with `--config` the operator's own; see [`crate::audit`].

use std::net::IpAddr;
use std::process::ExitCode;

use crate::audit::{AuditResult, Question, Report, Unfit, domain, mailbox};
use crate::config::DRAIN;
use crate::console::colour::Colour;
use crate::console::{ConfigSource, Exit, print};
use crate::daemon;
use crate::dns::Dns;
use crate::smtp::address::{DomainName, Mailbox};

/// Audit the sending addresses of your domain: which of them a reverse MX lookup accepts, and what to add to DNS
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
For each address it shows the MX host with that address, its PTR name, the SPF result, what DMARC comes to, and the verdict of rmxd with its default policy \
(DEFAULT) and with config/strict.toml (STRICT); with --config, also the verdict of your own policy (YOURS). In monitor mode the verdict is \
the one of enforce mode. DNS queries follow [dns] of the configuration.

DMARC passes by SPF or by a DKIM signature. The audit sees no message, so where SPF doesn't pass it says what happens \
unless the mail is signed.

Missing records are printed as lines for a zone file, each with its reason as a comment above. `; remove:` precedes a record \
that must be removed.

Exit codes:
  0   mail over every address passes all checks
  1   mail over at least one address would be lost: no MX host has the address (a receiver with reverse MX lookup refuses \
the mail), or the policy DEFAULT or STRICT refuses it, or the SPF result is fail
  75  a DNS error prevented a result, and nothing else is wrong
  64  wrong usage
  78  configuration error
An SPF result other than pass and fail is shown and does not change the exit code, nor does mail that is refused \
only if it is not signed.")]
pub struct Args {
    /// Your domain: the part after the @ of your senders
    #[arg(value_name = "DOMAIN", value_parser = domain)]
    domain: DomainName,
    /// An address from which your mail is sent, as receivers see it; may be given several times
    #[arg(long, value_name = "IP", required = true)]
    egress: Vec<IpAddr>,
    /// The sender in MAIL FROM and From:, an address at DOMAIN [default: postmaster@DOMAIN]
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    sender: Option<Mailbox>,
    /// The argument of EHLO [default: the confirmed PTR name of the address, else DOMAIN]
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// Also show which rungs of both rules hold for each address
    #[arg(long)]
    all_policies: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

pub fn run(args: &Args) -> ExitCode {
    audit(args).unwrap_or_else(|exit| exit).into()
}

fn audit(args: &Args) -> Result<Exit, Exit> {
    let own = args.source.load(DRAIN)?.settings;
    let question = question(args).map_err(|unfit| failed(Exit::Usage, &option(&unfit)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Exit::Temporary, &error.to_string()))?;
    let report = runtime.block_on(async {
        let config = |what: String| failed(Exit::Config, &what);
        let dns =
            Dns::new(own.dns.clone()).map_err(|error| config(daemon::StartError::from(error).to_string()))?;
        let auditor = daemon::auditor(&dns, &own, args.source.config.is_some()).map_err(config)?;
        let audited = auditor.audit(&question).await;
        audited.map_err(|unfit| failed(Exit::Usage, &option(&unfit)))
    })?;
    match print(&shown(&report, args.json)) {
        Exit::Done => Ok(match report.outcome() {
            AuditResult::Accepted => Exit::Done,
            AuditResult::Lost => Exit::Reject,
            AuditResult::Unknown => Exit::Temporary,
        }),
        other => Err(other),
    }
}

fn failed(exit: Exit, what: &str) -> Exit {
    eprintln!("rmxd: {what}");
    exit
}

fn question(args: &Args) -> Result<Question, Unfit> {
    let mut question = Question::new(args.domain.clone(), args.sender.clone(), &args.egress)?;
    question.helo = args.helo.clone();
    question.rungs = args.all_policies;
    Ok(question)
}

/// The error with the option to change.
fn option(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Address(_) => {
            format!("--egress {unfit} (in a test network: --set dns.private_addresses=accept)")
        }
        Unfit::Sender { .. } => format!("--sender {unfit}"),
        Unfit::Postmaster(what) => what.clone(),
    }
}

fn shown(report: &Report, json: bool) -> String {
    if json {
        return format!("{:#}\n", report.json());
    }
    let (colour, text) = (Colour::of_stdout(), report.text());
    let (title, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{}\n{}", colour.bold(title), colour.verdicts(rest))
}

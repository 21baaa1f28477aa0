//! `rmxd check`: one decision with its evidence, made as the daemon makes it, without sending a message.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::history::place;
use crate::config::{DRAIN, Settings};
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};
use crate::daemon::{self, StartError};
use crate::decision::report;
use crate::dns::Dns;
use crate::gate::{DryMessage, DryRun, author, sender};
use crate::message::file;
use crate::message::header::{self, Author, Field};
use crate::policy::decide::Verdict;
use crate::smtp::address::ReversePath;
use crate::store::permits::PermitStore;

/// Make one decision and show its evidence: every DNS record, rung by rung
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Identities without an option are not checked; with --message, From: is always checked, also if it is missing or malformed. \
In monitor mode the verdict is the one of enforce mode.

Exit codes: 0 accept, 1 reject, 75 defer (such as a DNS error), 64 wrong usage, 78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The address of the client
    #[arg(long, value_name = "IP")]
    client: IpAddr,
    /// The argument of HELO or EHLO
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// The sender of the envelope; <> or an empty value for the null sender
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    mail_from: Option<ReversePath>,
    /// An address of the From: field; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = author, conflicts_with = "message")]
    from: Vec<Author>,
    /// An address of the Reply-To: field; may be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = author, conflicts_with = "message")]
    reply_to: Vec<Author>,
    /// Read From: and Reply-To: from this message
    #[arg(long, value_name = "FILE.eml")]
    message: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    check(args).unwrap_or_else(|exit| exit).into()
}

fn check(args: &Args) -> Result<Exit, Exit> {
    let settings = args.source.load(DRAIN)?.settings;
    let dry_run = dry_run(args)?;
    let failed = |exit: Exit, what: String| {
        eprintln!("rmxd: {what}");
        exit
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Exit::Temporary, error.to_string()))?;
    let record = runtime.block_on(async {
        let dns = Dns::new(settings.dns.clone())
            .map_err(|error| failed(Exit::Config, StartError::Dns(error).to_string()))?;
        let gate =
            daemon::gate_with_permits(dns, &settings, permits(&settings, args.source.config.is_some()));
        let gate = gate.map_err(|error| failed(Exit::Config, error.to_string()))?;
        Ok(gate.dry_run(&dry_run).await)
    });
    let record = record?;
    let text = if args.json {
        format!("{:#}\n", report::json(&record))
    } else {
        let zone = LocalZone::of_system();
        report::tree(&record, |at| zone.exact(at))
    };
    match print(&text) {
        Exit::Done => Ok(match record.verdict {
            Verdict::Accept => Exit::Done,
            Verdict::Reject => Exit::Reject,
            Verdict::Defer => Exit::Temporary,
        }),
        other => Err(other),
    }
}

/// The permits of the daemon on this machine.
fn permits(settings: &Settings, named: bool) -> Option<PermitStore> {
    let read = PermitStore::read(&place(&settings.state, named));
    read.inspect_err(|error| eprintln!("rmxd: temporary permits are not considered: {error}")).ok()
}

fn dry_run(args: &Args) -> Result<DryRun, Exit> {
    let message = match &args.message {
        None => DryMessage::of_addresses(field(&args.from), field(&args.reply_to)),
        Some(path) => {
            let content = std::fs::read(path).map_err(|error| {
                eprintln!("rmxd: --message {}: {error}", path.display());
                Exit::Usage
            })?;
            let (block, body) = file::parts(&content);
            DryMessage { header: header::read(&block), block, body }
        }
    };
    let (helo, mail_from) = (args.helo.clone(), args.mail_from.clone());
    Ok(DryRun { client: args.client, helo, mail_from, message: Some(message) })
}

fn field(authors: &[Author]) -> Field {
    if authors.is_empty() { Field::Absent } else { Field::Authors(authors.to_vec()) }
}

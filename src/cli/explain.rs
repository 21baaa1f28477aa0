//! `rmxd explain`: a past decision with the DNS records of that time.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::timeout;

use crate::admin::{self, Client};
use crate::cli::fleet;
use crate::cli::history::{open, unreadable};
use crate::config::DRAIN;
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};
use crate::decision::{DecisionRecord, Id, report};
use crate::store::history::Archive;

/// The daemon writes its decisions once a second; after this time a new one is in the history, also on a slow disk.
const WRITTEN: Duration = Duration::from_secs(2);
/// For the daemon to say how many decisions it has left out.
const ANSWERED: Duration = Duration::from_secs(2);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Show why a message was refused or accepted: the decision with its evidence at that time
///
/// The reply to the client, the log and the Received: field of accepted mail contain the id.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The command reads the history in history.path of the configuration; the daemon need not run. For a decision of another node of \
a fleet it asks the daemon at listen.admin, which asks that node. The time is local, in JSON it is UTC.

Exit codes: 0 found, 1 no such decision, 64 wrong usage, 75 the history can't be read or the other node doesn't answer, \
78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The id, in upper or lower case
    #[arg(value_name = "ID", value_parser = id)]
    id: Id,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    explain(args).unwrap_or_else(|exit| exit).into()
}

fn explain(args: &Args) -> Result<Exit, Exit> {
    let settings = args.source.load(DRAIN)?.settings;
    if settings.cluster.is_some() && args.id.node() != settings.node {
        return fleet::explain(&args.source, args.id, args.json);
    }
    if settings.history.is_none() {
        eprintln!("rmxd: history.path is empty, so no history is kept. {}", args.id.in_the_log());
        return Err(Exit::Config);
    }
    let archive = open(&args.source).inspect_err(|_said| eprintln!("{}", args.id.in_the_log()))?;
    let records = find(&archive, args.id)?;
    match records.as_slice() {
        [] => {
            let id = args.id;
            let extent = archive.extent().map_err(unreadable)?;
            let dropped = if archive.is_live() { dropped(&settings.admin) } else { None };
            let why = extent.with_dropped(dropped).why_missing(id);
            eprintln!("rmxd: no decision {id} in {}", archive.path().display());
            eprintln!("{why}\n{}", id.in_the_log());
            Ok(Exit::Reject)
        }
        records if args.json => Ok(print(&format!("{:#}\n", report::transaction(records)))),
        records => {
            let zone = LocalZone::of_system();
            let trees: Vec<_> =
                records.iter().map(|record| report::tree(record, |at| zone.exact(at))).collect();
            Ok(print(&trees.join("\n")))
        }
    }
}

/// Tries again for a moment if a running daemon may not have written its last decisions yet.
fn find(archive: &Archive, id: Id) -> Result<Vec<DecisionRecord>, Exit> {
    let mut waited = Duration::ZERO;
    loop {
        let records = archive.find(id).map_err(unreadable)?;
        if !records.is_empty() || waited >= WRITTEN || !archive.is_live() {
            return Ok(records);
        }
        pause();
        waited += BETWEEN_TRIES;
    }
}

/// How many decisions the daemon has left out since its start; `None` if it doesn't say.
fn dropped(admin: &admin::Settings) -> Option<u64> {
    let client = Client::new(admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let status =
        runtime.block_on(async { timeout(ANSWERED, client.get("/api/v1/status")).await.ok()?.ok() })?;
    status.get("history")?.get("dropped")?.as_u64()
}

#[expect(clippy::disallowed_methods, reason = "this command has no runtime that a sleep could block")]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

fn id(text: &str) -> Result<Id, String> {
    let text = text.trim();
    Id::parse(text).ok_or_else(|| Id::why_malformed(text))
}

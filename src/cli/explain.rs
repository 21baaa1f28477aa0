//! `rmxd explain`: a past decision with the DNS records of that time.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::history::{open, unreadable};
use crate::console::{ConfigSource, Exit, print};
use crate::decision::{DecisionRecord, Id, report};
use crate::store::history::Archive;

/// The daemon writes its decisions once a second; after this time a new one is in the history.
const WRITTEN: Duration = Duration::from_millis(1300);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Show why a message was refused or accepted: the decision with its evidence at that time
///
/// The reply to the client, the log and the Received: field of accepted mail contain the id.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The command reads the history in history.path of the configuration; the daemon need not run.

Exit codes: 0 found, 1 no such decision, 64 wrong usage, 75 the history can't be read, 78 configuration error.")]
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
    let archive = open(&args.source)?;
    let records = find(&archive, args.id)?;
    match records.as_slice() {
        [] => {
            eprintln!("rmxd: no decision {} in {}", args.id, archive.path().display());
            Ok(Exit::Reject)
        }
        records if args.json => Ok(print(&format!("{:#}\n", report::transaction(records)))),
        records => {
            let trees: Vec<_> = records.iter().map(report::tree).collect();
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

#[expect(clippy::disallowed_methods, reason = "this command has no runtime that a sleep could block")]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

fn id(text: &str) -> Result<Id, String> {
    let wrong = "must be the eight letters and digits at the end of a reply, as in (id 4KXN7Q2M)";
    Id::parse(text.trim()).ok_or_else(|| wrong.to_owned())
}

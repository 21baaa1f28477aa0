//! `rmxd explain`: a decision of the past, with the records as they were then.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::history::{open, say_damage, trouble};
use crate::console::{ConfigSource, Exit, print};
use crate::decision::{Id, report};
use crate::store::history::{Archive, Page};

/// A daemon writes its decisions once a second: a new one is in the history by then.
const WRITTEN: Duration = Duration::from_millis(1300);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// Show why a mail was refused, or accepted: the decision with its evidence as it was then
///
/// The id stands in the reply to the client, in the log, and in the Received: field of accepted mail.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The history is read where the configuration says (history.path), whether the daemon runs or not. Exit codes: 0 found, 1 no such decision, 64 wrong usage, 75 the history can't be read,
78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The id, in any case
    #[arg(value_name = "ID", value_parser = id)]
    id: Id,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    explain(args).unwrap_or_else(|exit| exit).into()
}

fn explain(args: &Args) -> Result<Exit, Exit> {
    let archive = open(&args.source)?;
    let Page { records, damage, .. } = find(&archive, args.id)?;
    say_damage(&damage);
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

/// Tries again for a moment where a daemon has yet to write the decisions of the last second.
fn find(archive: &Archive, id: Id) -> Result<Page, Exit> {
    let mut waited = Duration::ZERO;
    loop {
        let page = archive.find(id).map_err(trouble)?;
        if !page.records.is_empty() || waited >= WRITTEN || !archive.is_live() {
            return Ok(page);
        }
        pause();
        waited += BETWEEN_TRIES;
    }
}

#[expect(clippy::disallowed_methods, reason = "the command has its thread for itself and no runtime")]
fn pause() {
    std::thread::sleep(BETWEEN_TRIES);
}

fn id(text: &str) -> Result<Id, String> {
    let wrong = "must be the eight letters and digits that a reply ends with, as in (id 4KXN7Q2M)";
    Id::parse(text.trim()).ok_or_else(|| wrong.to_owned())
}

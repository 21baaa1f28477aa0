//! `rmxd demo`: everything on one machine without a network, and a tour of messages through it.
//!
//! Nothing is acted: the name server, the gates, the SMTP sessions over TCP from many loopback addresses and the Maildir
//! are the real ones, and each verdict is read from the wire. A row that doesn't come out as expected fails the tour.
//! Afterwards all of it stays up, to be tried by hand. It asks no name server outside and takes no mail from outside.

mod by_hand;
mod observed;
mod session;
mod stage;
mod table;
mod tour;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::console::colour::Colour;
use crate::console::folder::Folder;
use crate::console::signals::Signals;
use crate::console::{Exit, print};
use crate::tools::demo::observed::RowResult;
use crate::tools::demo::stage::Stage;
use crate::tools::demo::tour::Row;

/// Show all of it on this machine, without a network
///
/// Starts a name server with sample zones and three gates with different policies, sends them messages from valid and
/// spoofed senders, and shows who was refused and why. Then it stays up until SIGTERM or Ctrl-C, to be tried by hand.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 every message had the verdict that was expected, 1 one had another, 64 wrong usage,
75 something could not be started, or the tour was interrupted.")]
pub struct Args {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// Print the tour as JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// Put mail, log and configuration into this folder, and leave them there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    let failed = |what: String| {
        eprintln!("rmxd demo: {what}");
        Exit::Temporary.into()
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(demo(args));
            runtime.shutdown_timeout(Duration::from_millis(100));
            ended.map_or_else(failed, Into::into)
        }
        Err(error) => failed(error.to_string()),
    }
}

async fn demo(args: &Args) -> Result<Exit, String> {
    let mut signals = Signals::new().map_err(|error| format!("signals can't be received: {error}"))?;
    let folder = Folder::new("demo", args.keep.as_deref())?;
    let stage = tokio::select! {
        stage = Stage::start(&folder) => stage?,
        () = signals.any() => return Ok(Exit::Temporary),
    };
    let toured = tokio::select! {
        toured = tour(args, &stage) => Some(toured),
        () = signals.any() => None,
    };
    let exit = match toured {
        None => {
            Progress::clear();
            Exit::Temporary
        }
        Some((told, _)) if told != Exit::Done => told,
        Some((_, outcomes)) => {
            let told = if args.once { Exit::Done } else { print(&by_hand::text(&stage, &outcomes)) };
            if !args.once && told == Exit::Done {
                signals.any().await;
            }
            if outcomes.iter().any(RowResult::is_wrong) { Exit::Reject } else { told }
        }
    };
    stage.stop().await;
    Ok(exit)
}

/// Plays all rows; the text comes chapter by chapter, as it is known.
async fn tour(args: &Args, stage: &Stage) -> (Exit, Vec<RowResult>) {
    let chapters = tour::chapters();
    let total = chapters.iter().map(|chapter| chapter.rows.len()).sum();
    let (colour, mut progress) = (Colour::of_stdout(), Progress { done: 0, total });
    let mut outcomes: Vec<RowResult> = Vec::new();
    let told = |text: &str| if args.json { Exit::Done } else { print(text) };
    let mut last = told(&table::introduction(stage, colour));
    for chapter in chapters {
        let first = outcomes.len();
        for row in chapter.rows {
            outcomes.push(play(stage, row, &mut progress).await);
        }
        Progress::clear();
        let rows = outcomes.get(first..).unwrap_or_default();
        if last == Exit::Done {
            last = told(&table::chapter(chapter.title, chapter.note, rows, first, colour));
        }
    }
    if last == Exit::Done {
        last = print(&if args.json { table::json(&outcomes) } else { table::summary(&outcomes, colour) });
    }
    (last, outcomes)
}

async fn play(stage: &Stage, row: Row, progress: &mut Progress) -> RowResult {
    if row.after_repair {
        stage.repair();
        for left in (1..=stage::OLD_RECORDS_LAST.as_secs()).rev() {
            progress.show(&format!("its DNS is repaired; its old records are cached for {left} s more"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    progress.done += 1;
    progress.show(row.what);
    observed::play(stage, row).await
}

/// One line on a terminal that is written over; nothing elsewhere.
struct Progress {
    done: usize,
    total: usize,
}

impl Progress {
    fn show(&self, what: &str) {
        Self::write(&format!("\r\x1b[K{} of {}: {what} ...", self.done, self.total));
    }

    fn clear() {
        Self::write("\r\x1b[K");
    }

    fn write(text: &str) {
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // A progress that can't be shown is no loss.
            stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok();
        }
    }
}

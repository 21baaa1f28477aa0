//! `rmxd demo`: a name server, gates and a Maildir on one machine without a network, and a tour of messages through them.
//!
//! No part is simulated: the sessions are SMTP over TCP from many loopback addresses, and each verdict is that of the reply. A
//! row with another result than expected fails the tour. Afterwards everything keeps running, to be tried by hand. The demo
//! uses no other name server and takes no mail from other machines.
//!
//! `--door` has another stage and tour (`doors`), and so has `--fleet` (`fleet`).

mod by_hand;
mod doors;
mod fleet;
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
use crate::policy::door::DoorName;
use crate::tools::demo::observed::RowResult;
use crate::tools::demo::stage::Stage;
use crate::tools::demo::tour::Row;

/// Demonstrate rmxd on this machine, without a network
///
/// Starts a name server with sample zones and three gates with different policies, sends them messages from valid and
/// spoofed senders, and shows each verdict with its reason. With --door milter or policy it takes the part of a Postfix that
/// has rmxd as its milter or policy service, and shows what the two send to each other. With --fleet it starts two gates with a
/// Redis server, and shows what they share and how they go on without it. Then it keeps running until SIGTERM or Ctrl-C, to be
/// tried by hand.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes: 0 every message has the expected verdict, 1 otherwise, 64 wrong usage, \
69 --fleet without an installed Redis or Valkey server, 75 a part could not be started, or the tour was interrupted.")]
pub struct Args {
    /// The door to demonstrate
    #[arg(long, value_name = "DOOR", value_enum, default_value_t = DoorName::Smtp)]
    door: DoorName,
    /// Demonstrate two gates that share what they know in Redis
    #[arg(long, conflicts_with = "door")]
    fleet: bool,
    /// Exit after the tour
    #[arg(long)]
    once: bool,
    /// Print the tour as JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// Write mail, log and configuration to this folder and keep them
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

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
    let signals = Signals::new().map_err(|error| format!("signals can't be received: {error}"))?;
    let redis = if args.fleet { fleet::redis_program() } else { None };
    if args.fleet && redis.is_none() {
        eprintln!("rmxd demo: {}", fleet::WITHOUT_REDIS);
        return Ok(Exit::Unavailable);
    }
    let folder = Folder::new("demo", args.keep.as_deref())?;
    match (redis, args.door) {
        (Some(redis), _) => Box::pin(show::<fleet::Stage>(args, redis, signals, &folder)).await,
        (None, DoorName::Smtp) => show::<Stage>(args, (), signals, &folder).await,
        (None, door) => show::<doors::Stage>(args, door, signals, &folder).await,
    }
}

/// What is demonstrated.
trait Show: Sized {
    /// What has to be known of it.
    type What;

    /// # Errors
    /// The part that can't be started, and why.
    async fn start(folder: &Folder, what: Self::What) -> Result<Self, String>;
    async fn tour(&self, args: &Args) -> Toured;
    async fn stop(self);
}

/// The end of a tour.
struct Toured {
    /// Whether its text could be printed.
    printed: Exit,
    /// Whether each result is as expected.
    as_expected: bool,
    /// What can be tried afterwards.
    by_hand: String,
}

async fn show<S: Show>(
    args: &Args,
    what: S::What,
    mut signals: Signals,
    folder: &Folder,
) -> Result<Exit, String> {
    let stage = tokio::select! {
        stage = S::start(folder, what) => stage?,
        () = signals.any() => return Ok(Exit::Temporary),
    };
    let toured = tokio::select! {
        toured = stage.tour(args) => Some(toured),
        () = signals.any() => None,
    };
    let exit = match toured {
        None => {
            Progress::clear();
            Exit::Temporary
        }
        Some(Toured { printed, .. }) if printed != Exit::Done => printed,
        Some(Toured { as_expected, by_hand, .. }) => {
            let printed = if args.once { Exit::Done } else { print(&by_hand) };
            if !args.once && printed == Exit::Done {
                signals.any().await;
            }
            if as_expected { printed } else { Exit::Reject }
        }
    };
    stage.stop().await;
    Ok(exit)
}

impl Show for Stage {
    type What = ();

    async fn start(folder: &Folder, (): ()) -> Result<Self, String> {
        Self::open(folder).await
    }

    async fn tour(&self, args: &Args) -> Toured {
        let (printed, results) = tour(args, self).await;
        let as_expected = !results.iter().any(RowResult::is_wrong);
        Toured { printed, as_expected, by_hand: by_hand::text(self, &results) }
    }

    async fn stop(self) {
        self.close().await;
    }
}

/// Plays all rows and prints each chapter when it is complete.
async fn tour(args: &Args, stage: &Stage) -> (Exit, Vec<RowResult>) {
    let chapters = tour::chapters();
    let total = chapters.iter().map(|chapter| chapter.rows.len()).sum();
    let (colour, mut progress) = (Colour::of_stdout(), Progress { done: 0, total });
    let mut results: Vec<RowResult> = Vec::new();
    let print_text = |text: &str| if args.json { Exit::Done } else { print(text) };
    let mut last = print_text(&table::introduction(stage, colour));
    for chapter in chapters {
        let first = results.len();
        for row in chapter.rows {
            results.push(play(stage, row, &mut progress).await);
        }
        Progress::clear();
        let rows = results.get(first..).unwrap_or_default();
        if last == Exit::Done {
            last = print_text(&table::chapter(chapter.title, chapter.note, rows, first, colour));
        }
    }
    if last == Exit::Done {
        last = print(&if args.json { table::json(&results) } else { table::summary(&results, colour) });
    }
    (last, results)
}

async fn play(stage: &Stage, row: Row, progress: &mut Progress) -> RowResult {
    if row.after_repair {
        stage.repair();
        for left in (1..=stage::OLD_RECORDS_LAST.as_secs()).rev() {
            progress.show(&format!("the DNS records are corrected; the old ones stay cached for {left} s"));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    progress.done += 1;
    progress.show(row.what);
    observed::play(stage, row).await
}

/// One line that each update overwrites, on a terminal only.
struct Progress {
    done: usize,
    total: usize,
}

impl Progress {
    /// The next part begins.
    fn next(&mut self, what: &str) {
        self.done += 1;
        self.show(what);
    }

    fn show(&self, what: &str) {
        Self::write(&format!("\r\x1b[K{} of {}: {what} ...", self.done, self.total));
    }

    fn clear() {
        Self::write("\r\x1b[K");
    }

    fn write(text: &str) {
        let mut stderr = io::stderr();
        if stderr.is_terminal() {
            // A failure to show the progress is ignored.
            stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok();
        }
    }
}

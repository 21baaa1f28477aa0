//! `rmxd load`: sends mail from spoofed and clean senders, and holds each verdict against the one that is expected.
//!
//! It is a test first and a measurement second: one false accept or false reject fails the run, whatever the rates. It is no
//! weapon: what isn't on loopback has to be called one's own, and gets a rate limit.

mod class;
mod client;
mod html;
mod job;
mod ledger;
mod message;
mod outcome;
mod own;
mod plan;
mod plot;
mod process;
mod progress;
mod report;
mod run;
mod sink;
mod stats;
mod summary;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::console::colour::Colour;
use crate::console::signals::Signals;
use crate::console::{Exit, print};
use crate::server::raise_descriptor_limit;
use crate::tools::load::job::Job;
use crate::tools::load::own::Own;
use crate::tools::load::run::Run;
use crate::tools::load::stats::LoadStats;
use crate::tools::load::summary::Summary;
use crate::tools::load::values::{Expectation, Mix, Pattern, SenderDomain, Sizes};

/// Test a gate under load, with spoofed and clean senders
///
/// Sends messages from senders of several classes, each with the verdict that it has to have, and compares. A single false
/// accept or false reject fails the run. Senders on loopback come from many addresses of 127.0.0.0/8.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Classes of senders, and the verdict expected of a gate with the built-in policy (of --self):
  clean     the domain has a valid MX, and the client is its host   accept
  spoofed   the domain doesn't exist                                reject
  nomx      the domain has no MX record                             reject
  nullmx    the domain takes no mail (RFC 7505)                     reject
  foreign   the domain is valid, the client is not its host         accept (reject)
  badhelo   the name in EHLO doesn't exist                          accept (reject)
  badfrom   the domain in the header field From: doesn't exist      reject
  servfail  the domain's name servers fail                          defer

Without --domain the senders are those of the zones that `rmxd zone` serves; with --self, of zones made for it. \
The daemon of --self refuses strictly and does not log its decisions (--set log.level=info changes that).

Latency is the time to the reply that decides. It counts from connect, or with --rate from when the session was due. \
That of slow clients is left out.

Exit codes: 0 every verdict as expected (with --self: and every accepted message in the sink once, none lost), 1 not so, \
64 wrong usage, 75 the target can't be reached, something could not be started, or the run was interrupted.")]
pub struct Args {
    /// The gate to test
    #[arg(value_name = "HOST:PORT", required_unless_present = "own")]
    target: Option<String>,
    /// Start a name server, a daemon and a sink behind it, and test these
    #[arg(long = "self", conflicts_with = "target")]
    own: bool,
    /// Which share of the sessions each class has [default: spoofed=90,clean=10; with --self all classes]
    #[arg(long, value_name = "CLASS=SHARE,...", value_parser = values::mix)]
    mix: Option<Mix>,
    /// Runs with the same seed and options send the same
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How many sessions [default: 10000, without --duration]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    sessions: Option<u64>,
    /// How long to begin new sessions
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    duration: Option<Duration>,
    /// Connections at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Begin this many sessions a second, whatever the target does; needed where it isn't on loopback
    #[arg(long, value_name = "NUMBER/s", value_parser = values::rate)]
    rate: Option<u32>,
    /// The body of a message, or from which size to which
    #[arg(long, value_name = "SIZE[-SIZE]", default_value = "4KiB", value_parser = values::sizes)]
    size: Sizes,
    /// Messages in a session, one after another
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    messages: u32,
    /// Send MAIL, RCPT and DATA in one go where the target offers it
    #[arg(long)]
    pipelining: bool,
    /// How many clients of a hundred send octet by octet and read slowly
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    slow: u8,
    /// Use the same sender names and client addresses again and again, or a new name each time
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Names::Warm)]
    names: Names,
    /// How many names, and with warm addresses, there are [default: warm 1000; cold as many as are needed, of which 1048576 are valid with --self]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    domains: Option<u32>,
    /// A class's sender domain; %n stands for a number. The address is where its sessions come from. Can be given several times
    #[arg(long, value_name = "CLASS=DOMAIN[@ADDRESS]", conflicts_with = "own", value_parser = values::sender_domain)]
    domain: Vec<SenderDomain>,
    /// The verdict expected of a class, where the target's policy differs
    #[arg(long, value_name = "CLASS=VERDICT", value_parser = values::expectation)]
    expect: Vec<Expectation>,
    /// What doesn't fail the run: messages deferred, or sessions without a verdict
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    tolerate: Vec<Tolerated>,
    /// The recipient of all messages [default: load@load.test]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "own")]
    recipient: Option<String>,
    /// The name in EHLO of all but badhelo [default: mail.good.test]
    #[arg(long, value_name = "NAME", conflicts_with = "own", value_parser = values::pattern)]
    helo: Option<Pattern>,
    /// Where clients without an address of their own come from, on loopback [default: 127.200.0.0/16]
    #[arg(long, value_name = "NETWORK", value_parser = values::source)]
    source: Vec<Ipv4Net>,
    /// For the connection, and for each reply
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    timeout: Duration,
    /// With --self: set a key of the daemon's configuration, as for `rmxd serve`
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "target")]
    set: Vec<String>,
    /// Print JSON; times are in microseconds
    #[arg(long)]
    json: bool,
    /// Also write a page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// The target is not on this machine, and is mine to test
    #[arg(long)]
    i_own_this_host: bool,
}

/// Which names senders get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Names {
    Warm,
    Cold,
}

/// What is let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tolerated {
    /// A message was deferred though another verdict was due
    Defer,
    /// A session ended without a verdict
    Failure,
}

/// Why there is no result.
type Stop = (Exit, String);

fn temporary(what: impl ToString) -> Stop {
    (Exit::Temporary, what.to_string())
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(temporary).and_then(
            |runtime| {
                let result = runtime.block_on(load(args));
                runtime.shutdown_timeout(Duration::from_millis(100));
                result
            },
        );
    match result {
        Ok(exit) => exit.into(),
        Err((exit, what)) => {
            eprintln!("rmxd load: {what}");
            exit.into()
        }
    }
}

async fn load(args: &Args) -> Result<Exit, Stop> {
    let mut signals = Signals::new().map_err(temporary)?;
    let job = tokio::select! {
        job = job::job(args) => job?,
        () = signals.any() => return Ok(Exit::Temporary),
    };
    // Both ends of a connection are here with --self.
    raise_descriptor_limit(job.pace.connections.saturating_mul(3));
    if let Some(path) = &args.report {
        // Before the run: it would be a pity afterwards.
        std::fs::write(path, "")
            .map_err(|error| (Exit::Usage, format!("--report {}: {error}", path.display())))?;
    }
    let started = tokio::select! {
        started = start(&job) => started?,
        () = signals.any() => return Ok(Exit::Temporary),
    };
    let summary = play(job, started, &mut signals).await?;
    if let Some(path) = &args.report {
        let page = html::page(&summary);
        std::fs::write(path, page)
            .map_err(|error| temporary(format!("--report {}: {error}", path.display())))?;
    }
    let text = if args.json { report::json(&summary) } else { report::text(&summary, Colour::of_stdout()) };
    let told = print(&text);
    Ok(match () {
        () if !summary.problems.is_empty() => Exit::Reject,
        () if summary.interrupted => Exit::Temporary,
        () => told,
    })
}

/// Whatever is tested.
enum Started {
    Target(SocketAddr),
    Own(Box<Own>),
}

async fn start(job: &Job) -> Result<Started, Stop> {
    let Some(target) = job.target else {
        let own = Own::start(job.crowd, job.pace.connections, &job.set).await.map_err(temporary)?;
        return Ok(Started::Own(Box::new(own)));
    };
    // Whether it is there at all is said before anything else.
    let tried = timeout(job.timeout, TcpStream::connect(target)).await;
    let reached =
        tried.map_err(|_elapsed| "no answer".to_owned()).and_then(|it| it.map_err(|e| e.to_string()));
    reached.map_err(|why| temporary(format!("{target} can't be reached: {why}")))?;
    Ok(Started::Target(target))
}

async fn play(job: Job, started: Started, signals: &mut Signals) -> Result<Summary, Stop> {
    let (target, ledger, pid) = match &started {
        Started::Target(target) => (*target, None, None),
        Started::Own(own) => (own.address, Some(Arc::clone(&own.ledger)), Some(own.pid())),
    };
    let stats = LoadStats::new(job.expected.clone()).map_err(temporary)?;
    let frame = summary::Frame::new(&job, target);
    let manner = client::Manner { target, pipelining: job.pipelining, timeout: job.timeout };
    let run = Run::new(job.plan, manner, job.pace, ledger, stats);
    let before = summary::Usage::of(pid);
    let watch = tokio::spawn(progress::watch(Arc::clone(&run), pid));
    let mut interrupted = false;
    let playing = run.play();
    tokio::pin!(playing);
    tokio::select! {
        () = &mut playing => {}
        () = signals.any() => interrupted = true,
    }
    if interrupted {
        run.stop.cancel();
        playing.await;
    }
    let elapsed = run.started.elapsed();
    watch.abort();
    // The bar is gone before anything is printed; an error says only that it was aborted.
    watch.await.ok();
    let usage = before.until(pid);
    let mut problems = Vec::new();
    let mut own_facts = None;
    if let Started::Own(own) = started {
        let (ledger, questions) = (Arc::clone(&own.ledger), own.questions());
        // The daemon drains: what it has accepted is in the sink already, or never will be.
        if let Err(problem) = own.stop().await {
            problems.push(problem);
        }
        own_facts = Some(summary::OwnFacts { balance: ledger.balance(), questions, usage });
    }
    let ended = summary::Ended { elapsed, interrupted, hopeless: run.is_hopeless(), problems };
    Ok(frame.summary(&run.stats(), ended, own_facts))
}

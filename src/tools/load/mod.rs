//! `rmxd load`: sends mail from spoofed and clean senders, and compares each verdict with the expected one.
//!
//! It is first a test and then a measurement: one false accept or false reject fails the run, whatever the rates. It must not
//! serve as a weapon: a target that isn't on loopback needs the owner's statement and a rate limit.

mod class;
mod client;
mod fitting;
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

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::console::colour::Colour;
use crate::console::signals::Signals;
use crate::console::{Exit, print};
use crate::policy::door::DoorName;
use crate::server::raise_descriptor_limit;
use crate::tools::load::client::Target;
use crate::tools::load::job::Job;
use crate::tools::load::own::Own;
use crate::tools::load::run::Run;
use crate::tools::load::stats::LoadStats;
use crate::tools::load::summary::Summary;
use crate::tools::load::values::{Expectation, Mix, Pattern, SenderDomain, Sizes};
use crate::tools::mta;

/// Test a gate under load, with spoofed and clean senders
///
/// Sends messages from senders of several classes and compares each verdict with the expected one. A single false
/// accept or false reject fails the run. For a target on loopback the clients have many addresses of 127.0.0.0/8. With
/// --door it acts as a Postfix that has rmxd as its milter or policy service.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Classes of senders, and the verdict expected of a gate with the built-in policy (in parentheses: with --self):
  clean     the domain has a valid MX, and the client is its host   accept
  spoofed   the domain doesn't exist                                reject
  nomx      the domain has no MX record                             reject
  nullmx    the domain has a null MX (RFC 7505)                     reject
  foreign   the domain is valid, the client is not its host         accept (reject)
  badhelo   the name in EHLO doesn't exist                          accept (reject)
  badfrom   the domain in the header field From: doesn't exist      reject
  servfail  the domain's name servers fail                          defer

Without --domain the senders are those of the zones that `rmxd zone` serves, or with --self of zones generated for the run. \
The daemon of --self has a strict policy and does not log its decisions (--set log.level=info changes that).

With --door milter each session is a connection to the milter, with CONNECT, HELO, and the events of each message. With --door policy it \
is a request for each message, over connections that are kept; a policy service doesn't see the header, so there is no class badfrom. \
The verdict is that of the answer. The target may be a unix socket. --pipelining and --slow are for SMTP, --size is not for policy.

With --self --door milter or policy no message is delivered. Instead the daemon's own numbers must be right: as many messages with the \
outcome `passed` in its metrics as were accepted, and as many `refused` as were refused or deferred.

Latency is the time until the deciding reply. It counts from the connect, or with --rate from the time at which the session was due. \
Slow clients do not count.

Exit codes: 0 every verdict is as expected (with --self: and the sink has every accepted message exactly once, or the daemon has counted all of them), 1 otherwise, \
64 wrong usage, 75 the target is unreachable, a part could not be started, or the run was interrupted.")]
pub struct Args {
    /// The gate to test; with --door milter or policy also unix:PATH
    #[arg(value_name = "HOST:PORT", required_unless_present = "own")]
    target: Option<String>,
    /// The door of the gate, which decides what the load test acts as
    #[arg(long, value_name = "DOOR", value_enum, default_value_t = DoorName::Smtp)]
    door: DoorName,
    /// Start a name server, a daemon and a sink behind it, and test these
    #[arg(long = "self", conflicts_with = "target")]
    own: bool,
    /// Share of the sessions for each class [default: spoofed=90,clean=10; with --self all classes]
    #[arg(long, value_name = "CLASS=SHARE,...", value_parser = values::mix)]
    mix: Option<Mix>,
    /// Runs with the same seed and options send the same messages
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Number of sessions [default: 10000, without --duration]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    sessions: Option<u64>,
    /// Begin new sessions for this time
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    duration: Option<Duration>,
    /// Connections at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Begin this many sessions a second, however slow the target is; required if the target is not on loopback
    #[arg(long, value_name = "NUMBER/s", value_parser = values::rate)]
    rate: Option<u32>,
    /// Size of the message bodies, or a range [default: 4KiB]
    #[arg(long, value_name = "SIZE[-SIZE]", value_parser = values::sizes)]
    size: Option<Sizes>,
    /// Messages of a session, one after another
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    messages: u32,
    /// Send MAIL, RCPT and DATA in one write if the target offers PIPELINING
    #[arg(long)]
    pipelining: bool,
    /// Percentage of clients that send octet by octet and read slowly
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    slow: u8,
    /// warm: use the same sender names and client addresses repeatedly; cold: use a new name for each session
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Names::Warm)]
    names: Names,
    /// Number of sender names, and with warm of addresses [default: warm 1000; cold one for each session, with --self up to 1048576 valid ones]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    domains: Option<u32>,
    /// Sender domain of a class, with %n for a number, and the client address of its sessions; may be given several times
    #[arg(long, value_name = "CLASS=DOMAIN[@ADDRESS]", conflicts_with = "own", value_parser = values::sender_domain)]
    domain: Vec<SenderDomain>,
    /// Expected verdict of a class, if the policy of the target differs
    #[arg(long, value_name = "CLASS=VERDICT", value_parser = values::expectation)]
    expect: Vec<Expectation>,
    /// Do not fail the run because of deferred messages, or of sessions without a verdict
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    tolerate: Vec<Tolerated>,
    /// Recipient of all messages [default: load@load.test]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "own")]
    recipient: Option<String>,
    /// Name in EHLO for all classes except badhelo [default: mail.good.test]
    #[arg(long, value_name = "NAME", conflicts_with = "own", value_parser = values::pattern)]
    helo: Option<Pattern>,
    /// Network on loopback for clients without an address of their own; may be given several times [default: 127.200.0.0/16]
    #[arg(long, value_name = "NETWORK", value_parser = values::source)]
    source: Vec<Ipv4Net>,
    /// Timeout for the connection and for each reply
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::time)]
    timeout: Duration,
    /// With --self: set a key of the daemon's configuration, as for `rmxd serve`
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "target")]
    set: Vec<String>,
    /// Print JSON; times are in microseconds
    #[arg(long)]
    json: bool,
    /// Also write an HTML page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// State that the target, which is not on loopback, is yours to test
    #[arg(long)]
    i_own_this_host: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Names {
    Warm,
    Cold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tolerated {
    /// A message was deferred although another verdict was expected
    Defer,
    /// A session ended without a verdict
    Failure,
}

/// The exit code and the error of a run without a result.
type Stop = (Exit, String);

fn temporary(what: impl ToString) -> Stop {
    (Exit::Temporary, what.to_string())
}

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
    // With --self this process has both ends of a connection.
    raise_descriptor_limit(job.pace.connections.saturating_mul(3));
    if let Some(path) = &args.report {
        // Before the run, so that a wrong path doesn't lose its result.
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
    let printed = print(&text);
    Ok(match () {
        () if !summary.problems.is_empty() => Exit::Reject,
        () if summary.interrupted => Exit::Temporary,
        () => printed,
    })
}

/// The target of the run.
enum Started {
    Target(Target),
    Own(Box<Own>),
}

async fn start(job: &Job) -> Result<Started, Stop> {
    let Some(target) = &job.target else {
        let own = Own::start(job.door, job.domains, job.pace.connections, &job.set).await;
        return Ok(Started::Own(Box::new(own.map_err(temporary)?)));
    };
    // An unreachable target is an error before the run begins.
    let tried = mta::dial(&target.endpoint(), job.timeout).await;
    tried.map_err(|why| temporary(format!("{target} can't be reached: {why}")))?;
    Ok(Started::Target(target.clone()))
}

async fn play(job: Job, started: Started, signals: &mut Signals) -> Result<Summary, Stop> {
    let (target, ledger, pid) = match &started {
        Started::Target(target) => (target.clone(), None, None),
        Started::Own(own) => (own.target.clone(), own.ledger.clone(), Some(own.pid())),
    };
    let stats = LoadStats::new(job.expected.clone()).map_err(temporary)?;
    let frame = summary::Frame::new(&job, target.clone());
    let options = client::SessionOptions { target, pipelining: job.pipelining, timeout: job.timeout, ledger };
    let run = Run::new(job.plan, options, job.pace, stats);
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
    // Wait until the bar is removed; the error is only that the task was aborted.
    watch.await.ok();
    let usage = before.until(pid);
    let mut problems = Vec::new();
    let mut own_facts = None;
    if let Started::Own(own) = started {
        let (ledger, questions) = (own.ledger.clone(), own.questions());
        let outcomes = match &ledger {
            Some(_) => None,
            None => own.outcomes(run.decided()).await.map_err(|problem| problems.push(problem)).ok(),
        };
        // The daemon drains: after its end no accepted message can still arrive at the sink.
        if let Err(problem) = own.stop().await {
            problems.push(problem);
        }
        let balance = ledger.map(|ledger| ledger.balance());
        own_facts = Some(summary::OwnFacts { balance, outcomes, questions, usage });
    }
    let ended = summary::Ended { elapsed, interrupted, unreachable: run.is_unreachable(), problems };
    Ok(frame.summary(&run.stats(), ended, own_facts))
}

//! `rmxd tail`: decisions as they come, one line each.
//!
//! It asks for the newest decisions again and again, as the dashboard does: a reader that stops here costs the daemon
//! nothing. Each question overlaps the one before, since decisions of one moment may become visible one after the other.

mod line;
mod seen;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::builder::PossibleValuesParser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{AskError, Client, encoded};
use crate::cli::running;
use crate::cli::tail::line::Writer;
use crate::cli::tail::seen::Seen;
use crate::console::colour::Colour;
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit};
use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::policy::outcome::Outcome;

/// Between two questions.
const BEAT: Duration = Duration::from_secs(1);
/// How far a question reaches back behind the one before.
const OVERLAP: Duration = Duration::from_secs(5);
/// Decisions of one page: the most that the API gives.
const PAGE: usize = 1000;
/// Pages of one question; decisions beyond are left out, and said to be.
const PAGES: usize = 10;

/// Show decisions as they come, one line each, until Ctrl-C
///
/// Times are local; the zone is named at the beginning. If the daemon restarts, it waits for it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The command asks the daemon at listen.admin of the configuration, with its admin.token. \"rmxd explain ID\" shows one decision with its \
evidence.

Exit codes: 64 wrong usage, 75 no daemon answers, 78 configuration error, or the daemon keeps no history.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// Only this verdict; in monitor mode that of enforce mode
    #[arg(long, value_name = "VERDICT", value_parser = PossibleValuesParser::new(Verdict::ALL.map(Verdict::name)))]
    verdict: Option<String>,
    /// Only this sender domain, including its subdomains
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Only this door
    #[arg(long, value_name = "DOOR", value_parser = PossibleValuesParser::new(DoorName::ALL.map(DoorName::name)))]
    door: Option<String>,
    /// Only this outcome
    #[arg(long, value_name = "OUTCOME", value_parser = PossibleValuesParser::new(Outcome::ALL.map(Outcome::name)))]
    outcome: Option<String>,
    /// How many decisions to begin with
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// Print JSON, one object a line, with times in UTC
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let followed = running::client(&args.source).and_then(|client| running::run(follow(args, &client)));
    followed.unwrap_or_else(|exit| exit).into()
}

/// Ends with the reader of its output. Signals keep their usual effect, so that a terminal that is stopped can't hold it.
async fn follow(args: &Args, client: &Client) -> Result<Exit, Exit> {
    let zone = LocalZone::of_system();
    let mut asked = SystemTime::now();
    let mut seen = Seen::default();
    let first = first(args, client, asked, &mut seen).await.map_err(|error| failed(client, &error))?;
    if !args.json {
        eprintln!("times in {}", zone.name(asked));
    }
    let mut writer = Writer::new(args.json, zone, Colour::of_stdout());
    for decision in &first {
        if !writer.write(decision)? {
            return Ok(Exit::Done);
        }
    }
    let (mut beat, mut away) = (interval(BEAT), false);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        if reader_is_gone() {
            return Ok(Exit::Done);
        }
        let (now, since) = (SystemTime::now(), asked.checked_sub(OVERLAP).unwrap_or(asked));
        let (decisions, whole) = match since_then(args, client, since).await {
            Ok(found) => found,
            Err(error) if is_final(&error) => return Err(failed(client, &error)),
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!(
                        "rmxd: no answer of the daemon at {}: {error}; waiting for it",
                        client.endpoint()
                    );
                }
                continue;
            }
        };
        if std::mem::take(&mut away) {
            eprintln!("rmxd: the daemon answers again");
        }
        if !whole {
            eprintln!("rmxd: more decisions than can be shown: some are left out");
        }
        for decision in decisions.iter().filter(|decision| seen.is_new(decision)) {
            if !writer.write(decision)? {
                return Ok(Exit::Done);
            }
        }
        seen.forget_before(since);
        asked = now;
    }
}

/// The last decisions, the oldest first. What the API can't filter is looked for among the newest thousand.
async fn first(
    args: &Args,
    client: &Client,
    now: SystemTime,
    seen: &mut Seen,
) -> Result<Vec<Value>, AskError> {
    // The next question reaches back to these, and more of them than are shown.
    let (before, _) = since_then(args, client, now.checked_sub(OVERLAP).unwrap_or(now)).await?;
    for decision in &before {
        seen.is_new(decision);
    }
    let lines = usize::from(args.lines);
    if lines == 0 {
        return Ok(Vec::new());
    }
    let limit = if args.door.is_some() { PAGE } else { lines };
    let (mut last, _) = page(args, client, limit, &[]).await?;
    last.truncate(lines);
    last.reverse();
    for decision in &last {
        seen.is_new(decision);
    }
    Ok(last)
}

/// The decisions since then, the oldest first, and whether they are all.
async fn since_then(args: &Args, client: &Client, since: SystemTime) -> Result<(Vec<Value>, bool), AskError> {
    let since = humantime::format_rfc3339_millis(since).to_string();
    let (mut all, mut before) = (Vec::new(), None);
    for _ in 0..PAGES {
        let mut more = vec![("since", since.as_str())];
        more.extend(before.as_deref().map(|before| ("before", before)));
        let (decisions, next) = page(args, client, PAGE, &more).await?;
        all.extend(decisions);
        before = next;
        if before.is_none() {
            break;
        }
    }
    all.reverse();
    Ok((all, before.is_none()))
}

/// The matching decisions of one page, the newest first, and where the next one begins.
async fn page(
    args: &Args,
    client: &Client,
    limit: usize,
    more: &[(&str, &str)],
) -> Result<(Vec<Value>, Option<String>), AskError> {
    let mut target = format!("/api/v1/decisions?limit={limit}");
    let filters =
        [("verdict", &args.verdict), ("domain", &args.domain), ("outcome", &args.outcome)].into_iter();
    let filters = filters.filter_map(|(name, value)| Some((name, value.as_deref()?)));
    for (name, value) in filters.chain(more.iter().copied()) {
        target.push_str(&format!("&{name}={}", encoded(value)));
    }
    let answer = client.get(&target).await?;
    let next = answer.get("next").and_then(Value::as_str).map(str::to_owned);
    let decisions = answer.get("decisions").and_then(Value::as_array).ok_or(AskError::Foreign)?;
    let wanted = |decision: &&Value| {
        let door = decision.get("door").and_then(Value::as_str);
        args.door.as_deref().is_none_or(|wanted| door == Some(wanted))
    };
    Ok((decisions.iter().filter(wanted).cloned().collect(), next))
}

/// Whether waiting doesn't help.
fn is_final(error: &AskError) -> bool {
    match error {
        AskError::Token | AskError::Foreign => true,
        AskError::Problem { status, .. } => (400..500).contains(status) && *status != 429,
        AskError::Connect(_) | AskError::Silent(_) | AskError::Broken(_) => false,
    }
}

/// Says why there is no answer, by its own words where the daemon refuses the question.
fn failed(client: &Client, error: &AskError) -> Exit {
    match error {
        AskError::Problem { status: 400, detail } => {
            eprintln!("rmxd: --{detail}");
            Exit::Usage
        }
        AskError::Problem { status: 404, detail } => {
            eprintln!("rmxd: {detail}");
            Exit::Config
        }
        error => running::no_answer(client, error),
    }
}

/// Whether nobody reads the output any more (`rmxd tail | head`), though there is nothing to write.
fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let answered = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
    let [polled] = &polled;
    answered && polled.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

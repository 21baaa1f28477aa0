//! `rmxd history`: past decisions, filtered; a summary of what monitor mode would have refused; and what another configuration
//! would have done.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::admin::encoded;
use crate::cli::fleet;
use crate::config::DRAIN;
use crate::console::colour::Colour;
use crate::console::hindsight::{Tried, shown as shown_hindsight};
use crate::console::refusals::{kinds_table, line, list, shown, sum, table};
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};
use crate::decision::{DecisionRecord, report};
use crate::gate::hindsight::Candidate;
use crate::policy::rule::Mode;
use crate::smtp::escape::{Escaped, OneLine};
use crate::stats::hindsight::Hindsight;
use crate::stats::refusals::{RefusalStats, Row};
use crate::store::history::{Archive, Filter, ReadError, Settings};

/// The state folder of the service (`StateDirectory=`): a relative `history.path` is relative to it for the service, but not
/// for this command.
const STATE: &str = "/var/lib/rmxd";

/// List past decisions, or sum up what monitor mode would have refused
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The command reads the history in history.path of the configuration; the daemon need not run. Decisions of the last second may be missing. \
Times are local, with the date where it isn't today's; in JSON they are UTC. \
\"rmxd explain ID\" shows one decision with its evidence.

With --would, --config FILE is the configuration to be tried: a whole one, as \"rmxd serve --config\" takes it, with RMXD__ variables and \
--set. The decisions of the past are made again by the findings that were kept with them; what would have to be looked up and wasn't is \
shown as unknown. The history is that of the usual configuration ($RMXD_CONFIG, /etc/rmxd/rmxd.toml or the defaults), or --history.

Exit codes: 0 found, 1 nothing found (with --would --config: no decision would be another), 64 wrong usage, 75 the history can't be read \
or a node of the fleet doesn't answer, 78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The id of a decision, as in the reply
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The sender's address in MAIL FROM, From: or Reply-To:, in upper or lower case; <> is the null sender
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// A sender domain, including its subdomains
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The address of the client, or a network
    #[arg(long, value_name = "IP")]
    client: Option<String>,
    /// A recipient, in upper or lower case
    #[arg(long, value_name = "ADDRESS")]
    rcpt: Option<String>,
    /// The id of the message at Postfix
    #[arg(long, value_name = "ID")]
    queue: Option<String>,
    /// accept, defer or reject; in monitor mode the verdict of enforce mode
    #[arg(long, value_name = "VERDICT")]
    verdict: Option<String>,
    /// The end of the transaction: delivered, refused, relay_refused, relay_failed, not_completed or passed
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,
    /// The reason, such as no_mx
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// The identity whose rule decided: helo, ptr, mail_from, from or reply_to
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// The reason of a failure that only tagged the message, such as not_an_exchanger
    #[arg(long, value_name = "REASON")]
    tag: Option<String>,
    /// Decisions at or after this time: an age such as 2h, a local time such as 2026-01-31 or "2026-01-31 12:00", or one with
    /// its zone such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Decisions before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Sum up by sender what monitor mode would have refused, with lines for [exempt]; with --config, what that configuration
    /// would have done
    #[arg(long)]
    would: bool,
    /// The file of the history, instead of history.path
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Decisions of all nodes of the fleet: the running daemon asks them
    #[arg(long, conflicts_with_all = ["would", "history"])]
    fleet: bool,
    /// Maximum number of decisions, the newest first; with --would, of senders
    #[arg(long, value_name = "N", default_value = "50")]
    limit: NonZeroUsize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    history(args).unwrap_or_else(|exit| exit).into()
}

fn history(args: &Args) -> Result<Exit, Exit> {
    let filter = filter(args)?;
    if args.fleet {
        return fleet::history(&args.source, &query(args, &filter), args.limit.get(), args.json);
    }
    let named = args.history.as_deref();
    match &args.source.config {
        Some(file) if args.would => hindsight(args, file, named, &filter),
        _ if args.would => would(args, &open_at(&args.source, named)?, &filter),
        _ => decisions(args, &open_at(&args.source, named)?, &filter),
    }
}

fn filter(args: &Args) -> Result<Filter, Exit> {
    let mut filter = Filter::default();
    let now = SystemTime::now();
    let refused = |key: &str, what: String| {
        eprintln!("rmxd: --{key}: {what}");
        Exit::Usage
    };
    for (key, value) in given(args) {
        filter.set(key, value, now).map_err(|what| refused(key, what))?;
    }
    let zone = LocalZone::of_system();
    let times = [("since", &args.since, &mut filter.since), ("until", &args.until, &mut filter.until)];
    for (key, text, time) in times {
        let Some(text) = text else { continue };
        *time = Some(zone.parse(text, now).map_err(|what| refused(key, what))?);
    }
    if args.would && args.source.config.is_none() {
        filter.would = Some(true);
    }
    Ok(filter)
}

/// The filters that are given, without times.
fn given(args: &Args) -> impl Iterator<Item = (&'static str, &str)> {
    let values = [
        ("id", &args.id),
        ("sender", &args.sender),
        ("domain", &args.domain),
        ("client", &args.client),
        ("rcpt", &args.rcpt),
        ("queue", &args.queue),
        ("verdict", &args.verdict),
        ("outcome", &args.outcome),
        ("reason", &args.reason),
        ("identity", &args.identity),
        ("tag", &args.tag),
    ];
    values.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
}

/// The same for the API, which takes no local times.
fn query(args: &Args, filter: &Filter) -> String {
    let mut query = String::new();
    let times = [("since", filter.since), ("until", filter.until)];
    let times = times.into_iter().filter_map(|(key, time)| Some((key, report::utc(time?))));
    let texts = given(args).map(|(key, value)| (key, value.to_owned()));
    for (key, value) in texts.chain(times) {
        query.push_str(&format!("&{key}={}", encoded(&value)));
    }
    query
}

fn decisions(args: &Args, archive: &Archive, filter: &Filter) -> Result<Exit, Exit> {
    let (limit, mut before) = (args.limit.get(), None);
    let mut records: Vec<DecisionRecord> = Vec::new();
    loop {
        let page = archive.search(filter, before, limit - records.len()).map_err(unreadable)?;
        records.extend(page.records);
        before = page.next;
        if before.is_none() || records.len() >= limit {
            break;
        }
    }
    let found = if records.is_empty() { Exit::Reject } else { Exit::Done };
    let text = if args.json {
        let all: Vec<_> = records.iter().map(report::summary).collect();
        format!("{:#}\n", Value::from(all))
    } else if records.is_empty() {
        eprintln!("rmxd: no matching decisions in {}", archive.path().display());
        return Ok(found);
    } else {
        let more = if before.is_some() { "and older ones (--limit)\n" } else { "" };
        format!("{}\n{more}", listed(&records, &LocalZone::of_system()))
    };
    printed(&text, found)
}

fn listed(records: &[DecisionRecord], zone: &LocalZone) -> String {
    let now = SystemTime::now();
    let (time, today) = (format!("TIME ({})", zone.short(now)), zone.date(now));
    let mut table = table(
        &[&time, "ID", "VERDICT", "OUTCOME", "REASON", "IDENTITY", "DOMAIN", "CLIENT", "RCPT", "RELAY"],
        &[],
    );
    for record in records {
        let mode = if record.would_be_refused() { " (monitor)" } else { "" };
        let finding = record.deciding();
        let shown = |text: &str| Escaped::new(text).to_string();
        table.add_row([
            zone.of_row(record.at, &today),
            record.id.map(|id| id.to_string()).unwrap_or_default(),
            format!("{}{mode}", record.verdict.name()),
            record.outcome().map(|outcome| outcome.name().to_owned()).unwrap_or_default(),
            record.reason().map(|reason| reason.name().to_owned()).unwrap_or_default(),
            finding.map(|finding| finding.identity.name().to_owned()).unwrap_or_default(),
            finding.map(|finding| shown(&finding.domain)).unwrap_or_default(),
            record.client.to_string(),
            shown(&record.rcpt),
            record.relay_reply().map(shown).unwrap_or_default(),
        ]);
    }
    table.trim_fmt()
}

fn would(args: &Args, archive: &Archive, filter: &Filter) -> Result<Exit, Exit> {
    let mut stats = RefusalStats::default();
    archive.all(filter, |record| stats.add_record(record)).map_err(unreadable)?;
    let found = if stats.is_empty() { Exit::Reject } else { Exit::Done };
    if args.json {
        return printed(&format!("{:#}\n", stats.json(args.limit.get())), found);
    }
    if stats.is_empty() {
        eprintln!("rmxd: no decision in {} would have been refused", archive.path().display());
        return Ok(found);
    }
    printed(&summed(&stats, args.limit.get(), Colour::of_stdout()), found)
}

fn summed(stats: &RefusalStats, top: usize, colour: Colour) -> String {
    let mut text = String::new();
    let kinds = stats.kinds();
    let rows: Vec<Row> = stats.rows();
    let title = format!("{} would have been refused, and why", sum(&kinds).taken);
    line(&mut text, &format!("{}\n{}", colour.bold(&title), kinds_table(&kinds)));
    line(&mut text, &format!("\n{}", colour.bold("By sender domain")));
    list(&mut text, &rows, top, "--limit");
    let (_, exempt) = shown(&rows, top);
    if !exempt.is_empty() {
        let title = "For the configuration, as far as you want this mail";
        line(&mut text, &format!("\n{}\n[exempt]\n{}", colour.bold(title), exempt.join("\n")));
    }
    text
}

/// What the configuration `file` would have done.
fn hindsight(args: &Args, file: &Path, named: Option<&Path>, filter: &Filter) -> Result<Exit, Exit> {
    let settings = args.source.load(DRAIN)?.settings;
    let archive = open_at(&ConfigSource::default(), named).inspect_err(|exit| {
        if named.is_none() {
            let hint = "the decisions come from the history of the usual configuration; --history FILE names another";
            eprintln!("rmxd: {hint}{}", if *exit == Exit::Config { " and needs no configuration" } else { "" });
        }
    })?;
    note_other_history(settings.history.as_ref(), file, &archive, named);
    let candidate = Candidate::new(&settings.gate, &settings.reverse_mx);
    let mut hindsight = Hindsight::default();
    let each = |record: &DecisionRecord| hindsight.add(record, &candidate.decides(record));
    archive.all(filter, each).map_err(unreadable)?;
    let same = hindsight.changed() + hindsight.unknown() == 0;
    let found = if same { Exit::Reject } else { Exit::Done };
    if args.json {
        return printed(&format!("{:#}\n", hindsight.json(args.limit.get())), found);
    }
    if hindsight.decisions() == 0 {
        eprintln!("rmxd: no matching decisions in {}", archive.path().display());
        return Ok(found);
    }
    let tried = Tried { file, history: archive.path(), monitor: settings.gate.policy.mode == Mode::Monitor };
    let (zone, colour) = (LocalZone::of_system(), Colour::of_stdout());
    printed(&shown_hindsight(&hindsight, &tried, args.limit.get(), &zone, colour), found)
}

/// The configuration that is tried would keep its decisions elsewhere: perhaps another history was meant.
fn note_other_history(tried: Option<&Settings>, file: &Path, archive: &Archive, named: Option<&Path>) {
    let (file, from) = (file.display(), archive.path().display());
    match tried {
        None => eprintln!("rmxd: note: history.path is empty in {file}; the decisions are read from {from}"),
        Some(tried) if named.is_none() && *archive.path() != place(&tried.path, false) => {
            let other = tried.path.display();
            eprintln!(
                "rmxd: note: history.path is {other} in {file}; the decisions are read from {from} (--history names another)"
            );
        }
        Some(_) => {}
    }
}

/// Prints the text; `found` is the exit code if that succeeds.
fn printed(text: &str, found: Exit) -> Result<Exit, Exit> {
    match print(text) {
        Exit::Done => Ok(found),
        other => Err(other),
    }
}

/// The history at a path that the user names, or else that of the configuration.
fn open_at(source: &ConfigSource, named: Option<&Path>) -> Result<Archive, Exit> {
    let Some(path) = named else { return open(source) };
    if path.is_dir() {
        eprintln!(
            "rmxd: --history: {} is a folder: name the file of the history in it, such as decisions",
            path.display()
        );
        return Err(Exit::Usage);
    }
    // What is still there is shown, however old it is.
    let settings = Settings { path: path.to_owned(), keep: Duration::MAX, size: u64::MAX };
    match Archive::open(settings) {
        Ok(Some(archive)) => Ok(archive),
        Ok(None) => {
            eprintln!("rmxd: there is no history in {}", path.display());
            Err(Exit::Temporary)
        }
        Err(error) => Err(unreadable(error)),
    }
}

pub(super) fn open(source: &ConfigSource) -> Result<Archive, Exit> {
    let settings = source.load(DRAIN)?.settings;
    let Some(mut settings) = settings.history else {
        eprintln!("rmxd: history.path is empty, so no history is kept");
        return Err(Exit::Config);
    };
    let wanted = settings.path.clone();
    settings.path = place(&settings.path, source.config.is_some());
    match Archive::open(settings) {
        Ok(Some(archive)) => Ok(archive),
        Ok(None) => {
            let wanted = std::path::absolute(&wanted).unwrap_or(wanted);
            eprintln!(
                "rmxd: there is no history in {} (history.path). A daemon that can't write there keeps its decisions in memory \
                 until it ends: its dashboard and API have them",
                wanted.display()
            );
            Err(Exit::Temporary)
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// Finds a file of the daemon. Without `--config`, a relative path that doesn't exist here is relative to the state
/// folder of the service, whose working folder differs from the administrator's.
pub(super) fn place(path: &Path, named: bool) -> PathBuf {
    let of_service = Path::new(STATE).join(path);
    let only_there =
        !named && path.is_relative() && !path.exists() && of_service.try_exists().unwrap_or(true);
    if only_there { of_service } else { path.to_owned() }
}

pub(super) fn unreadable(error: ReadError) -> Exit {
    // SQLite quotes the file, whatever is in it.
    eprintln!("rmxd: {}", OneLine(error));
    Exit::Temporary
}

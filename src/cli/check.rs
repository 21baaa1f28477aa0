//! `rmxd check`: one decision with its evidence, as the daemon would make it, without a message being sent.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{ConfigSource, Exit, daemon, print};
use crate::config::DRAIN;
use crate::gate::{Facts, Gate};
use crate::message::header::{self, Author, Field, Header};
use crate::policy::decide::Verdict;
use crate::record::{Record, report};
use crate::smtp::address::ReversePath;
use crate::smtp::address::{Domain, Mailbox};
use crate::smtp::framing::stuffed;

/// Make one decision and show its evidence: every record asked, rung by rung
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Identities that are not given are not judged; with --message, a From: that is missing or malformed is. Exit codes: 0 accept, 1 reject, 75 defer (DNS trouble), 64 wrong usage,
78 configuration error. In monitor mode the verdict is shown as it would be enforced.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// The client's address
    #[arg(long, value_name = "IP")]
    client: IpAddr,
    /// The argument of HELO or EHLO
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// The sender of the envelope; <> or an empty text for the null sender
    #[arg(long, value_name = "ADDRESS", value_parser = reverse_path)]
    mail_from: Option<ReversePath>,
    /// An address of the From: field; can be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox, conflicts_with = "message")]
    from: Vec<Author>,
    /// An address of the Reply-To: field; can be given several times
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox, conflicts_with = "message")]
    reply_to: Vec<Author>,
    /// Take From: and Reply-To: from a message
    #[arg(long, value_name = "FILE.eml")]
    message: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    check(args).unwrap_or_else(|exit| exit).into()
}

fn check(args: &Args) -> Result<Exit, Exit> {
    let settings = args.source.load(DRAIN)?.settings;
    let message = Message::read(args)?;
    let failed = |exit: Exit, what: String| {
        eprintln!("rmxd: {what}");
        exit
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Exit::Temporary, error.to_string()))?;
    let text = runtime.block_on(async {
        let gate = daemon::gate(&settings).map_err(|error| failed(Exit::Config, error.to_string()))?;
        Ok(decide(args, &gate, &message).await)
    });
    let (text, verdict) = text?;
    match print(&text) {
        Exit::Done => Ok(match verdict {
            Verdict::Accept => Exit::Done,
            Verdict::Reject => Exit::Reject,
            Verdict::Defer => Exit::Temporary,
        }),
        other => Err(other),
    }
}

async fn decide(args: &Args, gate: &Arc<Gate>, message: &Message) -> (String, Verdict) {
    let mut guest = gate.guest(args.client);
    if let Some(helo) = &args.helo {
        guest.hello(helo);
    }
    let mut inspection = guest.inspect(args.mail_from.as_ref().unwrap_or(&ReversePath::Null));
    // The daemon answers at RCPT, before it has seen the header; all findings are shown nevertheless.
    let envelope = inspection.envelope(&mut guest).await;
    let mut whole = inspection.header(&mut guest, &message.header, &message.block).await;
    if inspection.awaits_body() {
        inspection.body(&stuffed(&message.body));
        whole = inspection.whole().await;
    }
    let decision = if envelope.refuses() { envelope } else { whole };
    guest.names().await;
    let record = Record { id: None, ..inspection.record(&guest, &decision, &Facts::default()) };
    let text = if args.json { format!("{:#}\n", report::json(&record)) } else { report::tree(&record) };
    (text, decision.verdict)
}

/// What is to be judged beside the envelope.
struct Message {
    header: Header,
    block: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    /// From the command line or a file.
    fn read(args: &Args) -> Result<Self, Exit> {
        let Some(path) = &args.message else {
            let header = Header { from: field(&args.from), reply_to: field(&args.reply_to), received: 0 };
            return Ok(Self { header, block: Vec::new(), body: Vec::new() });
        };
        let content = std::fs::read(path).map_err(|error| {
            eprintln!("rmxd: --message {}: {error}", path.display());
            Exit::Usage
        })?;
        let (block, body) = parts(&content);
        Ok(Self { header: header::read(&block), block, body })
    }
}

fn field(authors: &[Author]) -> Field {
    if authors.is_empty() { Field::Absent } else { Field::Authors(authors.to_vec()) }
}

/// The header block and the body of a file, whose lines may end in LF; without the `From ` line of an mbox.
fn parts(content: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line));
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).enumerate();
    let mut lines = lines.filter(|(at, line)| *at > 0 || !line.starts_with(b"From ")).map(|(_, line)| line);
    let ended = |line: &[u8]| [line, b"\r\n"].concat();
    let block = lines.by_ref().take_while(|line| !line.is_empty()).flat_map(ended).collect();
    (block, lines.flat_map(ended).collect())
}

fn reverse_path(text: &str) -> Result<ReversePath, String> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    ReversePath::parse(inner).map_err(|error| error.to_string())
}

fn mailbox(text: &str) -> Result<Author, String> {
    let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
    let mailbox = Mailbox::parse(inner).map_err(|error| error.to_string())?;
    Ok(Author { address: inner.into(), domain: Domain::name(mailbox.domain()).cloned() })
}

//! `rmxd replay`: which mail in Postfix's logs the policy would have refused, before rmxd handles any mail.
//!
//! Logs are read once and in order. Each different sender is judged once by the code of the gate, with the DNS of now. Memory is
//! bounded for logs of any length: when the table of senders is full, its senders are judged and it is cleared.

mod bounded;
mod form;
mod input;
mod journal;
mod judge;
mod line;
mod mail;
mod progress;
mod report;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{DRAIN, Settings};
use crate::console::colour::Colour;
use crate::console::signals::Signals;
use crate::console::{ConfigSource, Exit, print};
use crate::daemon;
use crate::tools::replay::input::{Input, Octets, Piece};
use crate::tools::replay::judge::{Judge, refusing_rules};
use crate::tools::replay::mail::{Counts, Mail};
use crate::tools::replay::progress::Bar;

/// DNS queries per second: if all name servers are on this machine, and otherwise.
const RATES: (u32, u32) = (5_000, 500);
/// Different senders in the table: about 60 MB of memory.
const SENDERS: usize = 250_000;
/// Lines between two updates of the bar.
const UPDATE: u64 = 4_096;

/// Report which mail in Postfix's logs your policy would have refused
///
/// Reads lines of smtpd, postscreen, qmgr and cleanup, as syslog or journalctl write them, plain or gzip; - is standard input. Name rotated logs in the order of their
/// age, oldest first. Each different sender (client, HELO, domain of MAIL FROM) is judged once, as the daemon would judge it now.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Any time stamp of syslog, rsyslog and journalctl is known, RFC 5424, and journalctl -o json and export. journalctl -o cat leaves out the \
process: there, mail over a service for users counts unless it is authenticated, and attempts of one client in a row count as one.

A log has no header fields, so From: and Reply-To: are not judged, and exempt recipients are not considered. A log has HELO only for mail \
that Postfix refused or passed to a filter. For mail that Postfix accepted, MAIL FROM is the address of the queue, after canonical maps and \
SRS. TAKEN counts accepted messages, REFUSED attempts that Postfix itself refused. Mail of authenticated users, of services named submission \
or smtps, and from a filter on this machine is left out.

Exit codes: 0 success, 64 wrong usage or a log that can't be opened, 75 a log could not be read to its end or the run was \
interrupted (the report covers what was read), 78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// Postfix logs; - is standard input
    #[arg(value_name = "MAILLOG", required = true)]
    logs: Vec<PathBuf>,
    /// Send at most this many DNS queries per second [default: 500; 5000 if all of dns.servers are on this machine]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Judge this many senders at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// Show this many sender domains in each list
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    top: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The exit code and the error of a run without a report.
type Stop = (Exit, String);

fn temporary(what: impl ToString) -> Stop {
    (Exit::Temporary, what.to_string())
}

pub fn run(args: &Args) -> ExitCode {
    let settings = match args.source.load(DRAIN) {
        Ok(loaded) => loaded.settings,
        Err(exit) => return exit.into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(temporary);
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(replay(args, settings));
        runtime.shutdown_timeout(Duration::from_millis(100));
        result
    });
    match result {
        Ok(exit) => exit.into(),
        Err((exit, what)) => {
            eprintln!("rmxd replay: {what}");
            exit.into()
        }
    }
}

async fn replay(args: &Args, mut settings: Settings) -> Result<Exit, Stop> {
    let mut signals = Signals::new().map_err(temporary)?;
    settings.gate.policy = refusing_rules(&settings.gate.policy);
    let gate = daemon::gate(&settings).map_err(|error| (Exit::Config, error.to_string()))?;
    let rate = args.rate.unwrap_or_else(|| default_rate(&settings.dns.servers));
    let mut judge = Judge::new(gate, usize::from(args.concurrency), rate);
    let (inputs, octets) = input::open(&args.logs).map_err(|what| (Exit::Usage, what))?;
    let mut reader = Reader {
        inputs: inputs.into_iter(),
        current: None,
        octets,
        mail: Mail::new(SENDERS),
        problems: Vec::new(),
        before: (0, 0),
        without_mail: Vec::new(),
    };
    let began = Instant::now();
    let mut interrupted = false;
    let mut done = false;
    while !done && !interrupted {
        let reading = tokio::task::spawn_blocking(move || reader.fill());
        (reader, done) = tokio::select! {
            read = reading => read.map_err(temporary)?,
            () = signals.any() => return Err(temporary("interrupted while reading")),
        };
        let senders: Vec<_> = reader.mail.senders.drain().collect();
        let bar = Bar::judging(senders.len());
        tokio::select! {
            () = judge.batch(senders, &bar) => {}
            () = signals.any() => interrupted = true,
        }
    }
    let Reader { mail, problems, without_mail, .. } = reader;
    for name in &without_mail {
        eprintln!("rmxd replay: {name}: no line of Postfix. {}.", form::FORMS);
    }
    for problem in &problems {
        eprintln!("rmxd replay: {problem}");
    }
    let facts = report::ReplayFacts {
        counts: mail.counts(),
        years: mail.years(),
        judged: &judge.judged,
        problems,
        interrupted,
        took: began.elapsed(),
    };
    let text = if args.json {
        report::json(&facts, args.top)
    } else {
        report::text(&facts, args.top, Colour::of_stdout())
    };
    let complete = facts.problems.is_empty() && !interrupted;
    match print(&text) {
        Exit::Done if !complete => Ok(Exit::Temporary),
        printed => Ok(printed),
    }
}

/// A resolver on this machine gets more queries than that of a provider.
fn default_rate(servers: &[SocketAddr]) -> u32 {
    let own = !servers.is_empty() && servers.iter().all(|server| server.ip().to_canonical().is_loopback());
    if own { RATES.0 } else { RATES.1 }
}

struct Reader {
    inputs: std::vec::IntoIter<Input>,
    current: Option<Input>,
    octets: Octets,
    mail: Mail,
    problems: Vec<String>,
    /// Lines, and those of Postfix, before the current log.
    before: (u64, u64),
    /// Logs without a line of Postfix.
    without_mail: Vec<String>,
}

impl Reader {
    /// Reads until the table of senders is full or all logs have ended, which the second value says.
    fn fill(mut self) -> (Self, bool) {
        let bar = Bar::reading(&self.octets);
        while !self.mail.is_full() {
            let Some(input) = &mut self.current else {
                self.current = self.inputs.next();
                self.before = (self.mail.counts.lines, self.mail.counts.postfix);
                if self.current.is_none() {
                    drop(bar);
                    return (self, true);
                }
                continue;
            };
            match input.next() {
                Ok(Some(Piece::Line(line))) => self.mail.line(line),
                Ok(Some(Piece::TooLong(start))) => self.mail.too_long(start),
                Ok(None) => self.ended(),
                Err(problem) => {
                    self.problems.push(problem);
                    self.ended();
                }
            }
            if self.mail.counts.lines.is_multiple_of(UPDATE) {
                bar.read(&self.octets, self.mail.counts.lines, self.mail.senders.len());
            }
        }
        drop(bar);
        (self, false)
    }

    /// The current log has ended.
    fn ended(&mut self) {
        self.mail.end();
        let Counts { lines, postfix, .. } = self.mail.counts;
        let (lines, postfix) = (lines - self.before.0, postfix - self.before.1);
        if let Some(input) = self.current.take().filter(|_| lines > 0 && postfix == 0) {
            self.without_mail.push(input.name().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fmt::Write as _;

    #[test]
    fn senders_beyond_the_table_are_read_in_parts_and_none_is_lost_in_between() {
        let mut log = String::new();
        for number in 0..100 {
            let head = "Nov 23 12:00:00 mx postfix";
            writeln!(log, "{head}/smtpd[1]: 4F{number:08X}: client=a[192.0.2.1]").unwrap();
            // Each message is queued two messages later, so some are open at the end of a part.
            if let Some(id) = u32::checked_sub(number, 2) {
                let domain = id % 30;
                writeln!(
                    log,
                    "{head}/qmgr[2]: 4F{id:08X}: from=<a@d{domain}.test>, size=1, nrcpt=1 (queue active)"
                )
                .unwrap();
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        let (inputs, octets) = input::open(&[file.path().to_owned()]).unwrap();
        let mail = Mail::new(7);
        let mut reader = Reader {
            inputs: inputs.into_iter(),
            current: None,
            octets,
            mail,
            problems: Vec::new(),
            before: (0, 0),
            without_mail: Vec::new(),
        };
        let (mut parts, mut taken, mut done) = (0, HashMap::new(), false);
        while !done {
            (reader, done) = reader.fill();
            assert!(reader.mail.senders.len() <= 7);
            parts += 1;
            for (sender, volume) in reader.mail.senders.drain() {
                *taken.entry(sender.path.0.to_string().split_off(2)).or_insert(0) += volume.taken;
            }
        }
        assert!(parts > 10, "{parts}");
        assert_eq!((taken.len(), taken.values().sum::<u64>()), (30, 98));
    }

    #[test]
    fn a_resolver_on_this_machine_gets_more_queries() {
        let servers = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let rows: [(&[&str], u32); 4] = [
            (&[], RATES.1),
            (&["127.0.0.1:53", "[::1]:53"], RATES.0),
            (&["127.0.0.1:53", "192.0.2.1:53"], RATES.1),
            (&["192.0.2.1:53"], RATES.1),
        ];
        for (list, rate) in rows {
            assert_eq!(default_rate(&servers(list)), rate, "{list:?}");
        }
    }
}

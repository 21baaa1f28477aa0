//! `rmxd zone`: serves the sample zones, or zone files, until SIGTERM or SIGINT.
//!
//! For tests and demonstrations on one machine. It warns if it listens on an address that other machines can reach.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use tokio::signal::unix::{SignalKind, signal};

use crate::zone::{Row, Server, Zone, sample_rows};

/// A failure that may be gone at the next try.
const EX_TEMPFAIL: u8 = 75;

/// A zone file that can't be used.
const EX_CONFIG: u8 = 78;

/// Serve DNS zones from memory, for tests and demonstrations
///
/// Without --file it serves the sample zones: valid and invalid senders below .test, with clients on loopback
/// addresses (see --list). It forwards no queries; a name in no zone does not exist.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Zone files are master files (RFC 1035 5) with the types A, AAAA, CNAME, MX, NS, PTR, SOA and TXT. \
Lines that start with `;!` make a name, and all names below it, misbehave:
  ;! servfail NAME [TYPE]       ;! silent NAME [TYPE]
  ;! refused NAME [TYPE]        ;! delay 300ms NAME [TYPE]

Exit codes:
  0   stopped by SIGTERM or SIGINT
  64  wrong usage
  75  the server can't listen on the address
  78  a zone file can't be used")]
pub struct Args {
    /// Address and port for UDP and TCP; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5300")]
    listen: SocketAddr,

    /// Zone file to serve; may be given several times, and record sets of a later file replace earlier ones
    #[arg(long = "file", value_name = "ZONEFILE")]
    files: Vec<PathBuf>,

    /// Serve the zone files only, without the sample zones
    #[arg(long, requires = "files")]
    no_sample: bool,

    /// Print the senders of the sample zones and exit
    #[arg(long, conflicts_with_all = ["files", "no_sample"])]
    list: bool,

    /// Print JSON: the list, or one line with the address when the server has started
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let result = if args.list { list(args.json) } else { serve(args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closes the pipe, such as `head`, is no failure.
        Err((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err((code, error)) => {
            print_error(&error);
            ExitCode::from(code)
        }
    }
}

/// An exit code and the error.
type Failure = (u8, io::Error);

fn temporary(error: io::Error) -> Failure {
    (EX_TEMPFAIL, error)
}

fn print_error(what: &dyn std::fmt::Display) {
    // A failure to write the error can't be reported.
    writeln!(io::stderr(), "rmxd zone: {what}").ok();
}

fn list(json: bool) -> Result<(), Failure> {
    let rows = sample_rows();
    let text = if json {
        serde_json::to_string_pretty(&rows).map_err(|error| temporary(error.into()))?
    } else {
        table(&rows)
    };
    writeln!(io::stdout(), "{text}").map_err(temporary)
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["DOMAIN", "CLIENT", "EXISTS", "MATCHES", "PTR", "SHOWS"]);
    for row in rows {
        let client = row.client.map_or_else(|| "-".to_owned(), |client| client.to_string());
        table.add_row([row.domain, &client, row.exists, row.matches, row.ptr, row.shows]);
    }
    let mut text = table.trim_fmt();
    text.push_str(
        "\n\nEXISTS, MATCHES: the result of a reverse MX lookup by MX records, as if loopback addresses were public.\
         \nPTR: whether the name in the PTR record of the client has its address.",
    );
    text
}

fn serve(args: &Args) -> Result<(), Failure> {
    let zone = zone(args)?;
    if !args.listen.ip().is_loopback() {
        print_error(&format_args!(
            "other machines can reach {}, but this server is for tests on one machine only",
            args.listen
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(temporary)?;
    runtime.block_on(async {
        // Before the address is printed, so that a program that reads it can stop the server at once.
        let mut terminate = signal(SignalKind::terminate()).map_err(temporary)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(temporary)?;
        let names = zone.names();
        let server =
            Server::start(args.listen, zone).await.map_err(|error| cannot_listen(args.listen, &error))?;
        let announced = announce(server.address(), names, args);
        if announced.is_ok() {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        server.stop().await;
        announced.map_err(temporary)
    })
}

fn zone(args: &Args) -> Result<Zone, Failure> {
    let mut zone = if args.no_sample { Zone::new() } else { Zone::sample() };
    for file in &args.files {
        let more = Zone::read(file).map_err(|error| (EX_CONFIG, io::Error::other(error)))?;
        zone.merge(more);
    }
    Ok(zone)
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use by another program (UDP or TCP); choose another port with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{address}: {error}; ports below 1024 need privileges, choose another with --listen")
        }
        _ => format!("{address}: {error}"),
    };
    temporary(io::Error::new(error.kind(), text))
}

fn announce(address: SocketAddr, names: usize, args: &Args) -> io::Result<()> {
    let mut text = String::new();
    let written = if args.json {
        writeln!(text, "{}", serde_json::json!({ "listen": address, "names": names }))
    } else {
        let question = if args.no_sample { "MX YOUR.DOMAIN" } else { "MX good.test" };
        writeln!(
            text,
            "Serving {names} names on {address}, UDP and TCP, until SIGTERM or Ctrl-C.\n\n\
             Query it:         dig @{} -p {} {question}\n\
             Use it with rmxd: [dns] servers = [\"{address}\"], private_addresses = \"accept\"\n\
             List its senders: rmxd zone --list",
            address.ip(),
            address.port(),
        )
    };
    written.map_err(io::Error::other)?;
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Command::try_parse_from(std::iter::once("zone").chain(line.split_whitespace())).map(|it| it.args)
    }

    #[test]
    fn wrong_usage_is_an_error_before_anything_starts() {
        for line in ["--no-sample", "--list --file x", "--listen nowhere", "--listen 127.0.0.1"] {
            assert!(args(line).is_err(), "{line}");
        }
        assert!(args("").unwrap().listen.ip().is_loopback());
    }

    #[test]
    fn a_later_file_replaces_record_sets_and_a_bad_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("good"), "good.test. 60 MX 10 other.test.\n").unwrap();
        std::fs::write(path("bad"), "good.test. 60 MX\n").unwrap();

        let names = zone(&args("").unwrap()).unwrap().names();
        let good = args(&format!("--file {}", path("good").display())).unwrap();
        assert_eq!(zone(&good).unwrap().names(), names);
        let only = args(&format!("--no-sample --file {}", path("good").display())).unwrap();
        assert_eq!(zone(&only).unwrap().names(), 1);

        let bad = args(&format!("--file {}", path("bad").display())).unwrap();
        let (code, error) = zone(&bad).unwrap_err();
        assert_eq!(code, EX_CONFIG);
        assert!(error.to_string().starts_with(&format!("{}:1: ", path("bad").display())), "{error}");
    }

    #[test]
    fn an_address_in_use_is_a_temporary_failure_that_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (code, error) = serve(&args(&format!("--listen {address}")).unwrap()).unwrap_err();
        assert_eq!(code, EX_TEMPFAIL);
        assert!(error.to_string().starts_with(&format!("{address} is in use")), "{error}");
    }

    #[test]
    fn the_list_has_every_sender_once_a_line() {
        let text = table(&sample_rows());
        for row in sample_rows() {
            let client = row.client.map(|client| client.to_string()).unwrap_or_default();
            let lines = text.lines().filter(|line| {
                line.trim_start().starts_with(row.domain)
                    && line.contains(&client)
                    && line.contains(row.shows)
            });
            assert_eq!(lines.count(), 1, "{}", row.domain);
        }
    }
}

//! The command line: one file for each command.

pub mod allow;
pub mod audit;
pub mod check;
pub mod completions;
pub mod config;
pub mod explain;
mod fleet;
pub mod history;
pub mod man;
mod notify;
mod readable;
mod running;
pub mod schema;
pub mod serve;
pub mod status;
pub mod tail;
pub mod zone;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::console::Exit;
use crate::tools::{demo, load, replay};

/// Reverse MX lookup for inbound SMTP, in front of a mail server
#[derive(Debug, Parser)]
#[command(name = "rmxd", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Replay(replay::Args),
    Audit(audit::Args),
    Explain(explain::Args),
    History(history::Args),
    Allow(allow::Args),
    Status(status::Args),
    Tail(tail::Args),
    Zone(zone::Args),
    Demo(demo::Args),
    Load(Box<load::Args>),
    /// Validate or show the configuration.
    Config(config::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs a command line; the first argument is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command }) => match command {
            Command::Serve(arguments) => serve::run(&arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Replay(arguments) => replay::run(&arguments),
            Command::Audit(arguments) => audit::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::History(arguments) => history::run(&arguments),
            Command::Allow(arguments) => allow::run(&arguments),
            Command::Status(arguments) => status::run(&arguments),
            Command::Tail(arguments) => tail::run(&arguments),
            Command::Zone(arguments) => zone::run(&arguments),
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Load(arguments) => load::run(&arguments),
            Command::Config(arguments) => config::run(arguments),
            Command::Schema(arguments) => schema::run(&arguments),
            Command::Completions(arguments) => completions::run(&arguments),
            Command::Man(arguments) => man::run(&arguments),
        },
        Err(error) => {
            let is_help = !error.use_stderr();
            let printed = error.print().is_ok();
            if is_help && printed { Exit::Done.into() } else { Exit::Usage.into() }
        }
    }
}

fn commands() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

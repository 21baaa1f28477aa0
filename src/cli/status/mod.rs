//! `rmxd status`: one screen about the running daemon, and an exit code for scripts.

mod parts;
mod screen;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::admin::{AskError, Client};
use crate::cli::running;
use crate::cli::status::parts::Part;
use crate::console::colour::Colour;
use crate::console::time::LocalZone;
use crate::console::{ConfigSource, Exit, print};

/// Show whether the running daemon is well, on one screen
///
/// What is wrong has a mark, and says what to do.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The command asks the daemon at listen.admin of the configuration, with its admin.token.

Exit codes: 0 all is well, 1 something is wrong, 64 wrong usage, 75 no daemon answers, 78 configuration error.")]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let shown = running::client(&args.source).and_then(|client| running::run(show(args, &client)));
    shown.unwrap_or_else(|exit| exit).into()
}

async fn show(args: &Args, client: &Client) -> Result<Exit, Exit> {
    let (ready, status) = ask(client).await.map_err(|error| running::no_answer(client, &error))?;
    let zone = LocalZone::of_system();
    let parts = parts::all(&status, &ready, &zone);
    let wrong: Vec<&Part> = parts.iter().filter(|part| part.wrong).collect();
    let exit = if wrong.is_empty() { Exit::Done } else { Exit::Reject };
    let text = if args.json {
        let wrong = wrong.iter().map(|part| json!({ "part": part.name, "text": part.text }));
        let whole = json!({
            "ok": exit == Exit::Done,
            "wrong": wrong.collect::<Vec<_>>(),
            "address": client.endpoint().to_string(),
            "command_version": env!("CARGO_PKG_VERSION"),
            "daemon": status,
        });
        format!("{whole:#}\n")
    } else {
        screen::text(&parts::title(&status), &parts, Colour::of_stdout())
    };
    match print(&text) {
        Exit::Done => Ok(exit),
        other => Err(other),
    }
}

/// Readiness and status. Readiness first: it tries a relay that was not used for a while, so that the status knows.
async fn ask(client: &Client) -> Result<(Value, Value), AskError> {
    let ready = client.get("/readyz").await?;
    let status = client.get("/api/v1/status").await?;
    let is_ours = status.get("version").is_some_and(Value::is_string);
    if is_ours { Ok((ready, status)) } else { Err(AskError::Foreign) }
}

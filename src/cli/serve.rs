//! `rmxd serve`: the daemon, until SIGTERM or SIGINT. The first drains, a second one stops at once.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::daemon::{Daemon, StartError};
use crate::cli::{ConfigSource, Exit};
use crate::config::{DRAIN, Settings};
use crate::log;

/// Run the daemon
///
/// SIGTERM or SIGINT: no new connections, open transactions may finish; a second one stops at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// How long open connections may go on after SIGTERM
    #[arg(long, value_name = "DURATION", default_value_t = humantime::Duration::from(DRAIN))]
    drain: humantime::Duration,
}

/// Runs the command to its end.
pub fn run(args: &Args) -> ExitCode {
    let loaded = match args.source.load(args.drain.into()) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.into(),
    };
    if let Err(what) = log::start(&loaded.settings.log) {
        eprintln!("rmxd: {what}");
        return Exit::Config.into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(serve(&loaded.settings));
            runtime.shutdown_timeout(Duration::from_millis(100));
            exit.into()
        }
        Err(error) => {
            tracing::error!(%error, "no threads");
            Exit::Temporary.into()
        }
    }
}

async fn serve(settings: &Settings) -> Exit {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals can't be received");
                return Exit::Temporary;
            }
        };
    let started = tokio::select! {
        started = Daemon::start(settings) => started,
        () = either(&mut terminate, &mut interrupt) => {
            tracing::info!("stopped while starting");
            return Exit::Done;
        }
    };
    let daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => {
            tracing::error!("{error}");
            return match error {
                StartError::Listen { .. } => Exit::Temporary,
                StartError::Dns(_) | StartError::Relay(_) => Exit::Config,
            };
        }
    };
    for address in daemon.addresses() {
        tracing::info!(%address, hostname = %settings.hostname, mode = settings.gate.policy.mode.name(), "listening");
    }
    either(&mut terminate, &mut interrupt).await;
    tracing::info!("draining for at most {} s", settings.server.drain.as_secs());
    tokio::select! {
        cut_off = daemon.drain() => match cut_off {
            0 => tracing::info!("drained"),
            open => tracing::warn!(open, "the drain time is over, connections were cut off"),
        },
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("stopped while draining"),
    }
    Exit::Done
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

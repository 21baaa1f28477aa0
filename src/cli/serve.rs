//! `rmxd serve`: runs the daemon until SIGTERM or SIGINT. The first one drains, the second one stops at once; SIGHUP reloads,
//! SIGUSR1 logs the report of the monitor.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::Reload;
use crate::cli::notify;
use crate::config::{DRAIN, Loaded, Settings};
use crate::console::{ConfigSource, Exit};
use crate::daemon::Daemon;
use crate::log::{self, Log};
use crate::net::{self, Listener};
use crate::smtp::escape::OneLine;
use crate::stats::{DAILY, ReportTrigger};

/// Run the daemon
///
/// SIGTERM or SIGINT closes the listeners and lets open transactions finish; a second one stops at once. SIGHUP reads the
/// configuration again; if it has errors, they are logged and nothing changes. SIGUSR1 logs what was refused, or would have been,
/// since the last such report.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: ConfigSource,
    /// Time for open connections to finish after SIGTERM
    #[arg(long, value_name = "DURATION", default_value_t = humantime::Duration::from(DRAIN))]
    drain: humantime::Duration,
}

pub fn run(args: &Args) -> ExitCode {
    let loaded = match args.source.load(args.drain.into()) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.into(),
    };
    // Before any other thread exists, since it changes the environment.
    let passed = net::passed();
    let log = match log::start(&loaded.settings.log, log::Output::StandardError) {
        Ok(log) => log,
        Err(what) => {
            eprintln!("rmxd: {what}");
            return Exit::Config.into();
        }
    };
    let passed = match passed {
        Ok(passed) => passed,
        Err(error) => {
            tracing::error!("{error}");
            return Exit::Config.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(serve(args, loaded.settings, &log, passed));
            runtime.shutdown_timeout(Duration::from_millis(100));
            exit.into()
        }
        Err(error) => {
            tracing::error!(%error, "the threads of the runtime can't be started");
            Exit::Temporary.into()
        }
    }
}

async fn serve(args: &Args, settings: Settings, log: &Log, passed: Vec<Listener>) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals can't be received");
            return Exit::Temporary;
        }
    };
    notify::keep_alive();
    let started = tokio::select! {
        started = Daemon::start(settings, passed) => started,
        () = signals.stop() => return Exit::Done,
    };
    let mut daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => {
            tracing::error!("{error}");
            return if error.is_temporary() { Exit::Temporary } else { Exit::Config };
        }
    };
    for address in daemon.admin_endpoints() {
        tracing::info!(%address, "metrics and API");
    }
    for address in daemon.endpoints() {
        let settings = daemon.settings();
        tracing::info!(%address, hostname = %settings.hostname, mode = settings.gate.policy.mode.name(), "listening");
    }
    notify::ready(&status(&daemon)).await;
    let monitor = daemon.monitor().clone();
    let watch = monitor.clone();
    tokio::spawn(async move { watch.report_every(DAILY).await });
    loop {
        match signals.next().await {
            Wanted::Stop => break,
            Wanted::Report => monitor.report(ReportTrigger::Asked),
            Wanted::Reload => {
                notify::reloading().await;
                tokio::select! {
                    () = reload(args, &mut daemon, log) => {}
                    () = signals.stop() => break,
                }
                notify::ready(&status(&daemon)).await;
            }
        }
    }
    let exit = drain(daemon, &mut signals).await;
    monitor.report(ReportTrigger::End);
    exit
}

fn status(daemon: &Daemon) -> String {
    let addresses: Vec<_> = daemon.endpoints().iter().map(ToString::to_string).collect();
    let mode = daemon.settings().gate.policy.mode.name();
    let reload = match daemon.last_reload() {
        Some(Reload { at, applied: false, detail }) => {
            let (at, problem) = (humantime::format_rfc3339_seconds(at), detail.unwrap_or_default());
            format!("; the reload of {at} was not applied: {}", OneLine(&problem))
        }
        Some(_) | None => String::new(),
    };
    format!("listening on {}, mode {mode}{reload}", addresses.join(", "))
}

/// Applies all of the new configuration or nothing. If dropped before its end, it changes nothing.
async fn reload(args: &Args, daemon: &mut Daemon, log: &Log) {
    let Loaded { settings, .. } = match args.source.read(args.drain.into()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in &problems {
                tracing::error!("{problem}");
            }
            tracing::error!(problems = problems.len(), "not reloaded, the configuration stays as it was");
            let more = match problems.len() {
                0 | 1 => String::new(),
                all => format!("; and {} more", all - 1),
            };
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            note(daemon, false, Some(first + &more));
            return;
        }
    };
    let wanted = settings.log.clone();
    let admin = daemon.admin_endpoints();
    match daemon.reload(settings).await {
        Ok(moved) => {
            for address in &moved.opened {
                tracing::info!(%address, "listening");
            }
            for address in daemon.admin_endpoints().iter().filter(|address| !admin.contains(address)) {
                tracing::info!(%address, "metrics and API");
            }
            for address in &moved.closed {
                tracing::info!(%address, "not listening any more");
            }
        }
        Err(error) => {
            tracing::error!("{error}");
            tracing::error!("not reloaded, the configuration stays as it was");
            note(daemon, false, Some(error.to_string()));
            return;
        }
    }
    let unchanged = log.change(&wanted).err();
    if let Some(what) = &unchanged {
        tracing::warn!("{what}");
    }
    note(daemon, true, unchanged);
    let settings = daemon.settings();
    tracing::info!(hostname = %settings.hostname, mode = settings.gate.policy.mode.name(), "reloaded");
}

fn note(daemon: &Daemon, applied: bool, detail: Option<String>) {
    daemon.note_reload(Reload { at: SystemTime::now(), applied, detail });
}

async fn drain(daemon: Daemon, signals: &mut Signals) -> Exit {
    let time = daemon.settings().server.drain;
    notify::stopping(time).await;
    tracing::info!("draining for at most {}", humantime::format_duration(time));
    tokio::select! {
        cut_off = daemon.drain() => match cut_off {
            0 => tracing::info!("drained"),
            open => tracing::warn!(open, "the drain time is over, connections were cut off"),
        },
        () = signals.stop() => tracing::warn!("stopped while draining"),
    }
    Exit::Done
}

#[derive(Debug)]
enum Wanted {
    Reload,
    Report,
    Stop,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Registered at the start: by default SIGHUP ends the process. One during a reload causes another reload.
    hangup: Signal,
    report: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            report: signal(SignalKind::user_defined1())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.report.recv() => Wanted::Report,
        }
    }
}

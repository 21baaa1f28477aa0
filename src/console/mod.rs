//! Exit codes, the options for the configuration, and output to a terminal, for all commands.

pub mod colour;
pub mod folder;
pub(crate) mod hindsight;
pub mod refusals;
pub mod signals;
pub(crate) mod time;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Flags, Loaded, Problem};

pub(crate) const DEFAULT_FILE: &str = "/etc/rmxd/rmxd.toml";

/// Exit codes, those of sysexits.h where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, or the verdict is accept.
    Done = 0,
    /// The verdict is reject, a message of the demo has another verdict than expected, there is no such decision, or
    /// something is wrong with the daemon.
    Reject = 1,
    /// The command line is wrong (EX_USAGE).
    Usage = 64,
    /// A program that is needed isn't installed (EX_UNAVAILABLE).
    Unavailable = 69,
    /// A later try may succeed, or the verdict is defer (EX_TEMPFAIL).
    Temporary = 75,
    /// The configuration is wrong (EX_CONFIG).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Debug, Default, clap::Args)]
pub struct ConfigSource {
    /// Configuration file [default: $RMXD_CONFIG, or /etc/rmxd/rmxd.toml if it exists, or the built-in defaults]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a key, such as limits.errors=5; it overrides file and environment. Commas separate the items of a list
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl ConfigSource {
    /// Loads the configuration and prints its problems to standard error, one on each line.
    ///
    /// # Errors
    /// [`Exit::Config`].
    pub fn load(&self, drain: Duration) -> Result<Loaded, Exit> {
        self.read(drain).map_err(|problems| {
            report(&problems);
            Exit::Config
        })
    }

    /// # Errors
    /// All problems of the configuration.
    pub fn read(&self, drain: Duration) -> Result<Loaded, Vec<Problem>> {
        let flags = Flags { set: self.set.clone(), drain };
        crate::config::load(self.file().as_deref(), std::env::vars_os(), &flags)
    }

    /// `None`: the built-in defaults.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("RMXD_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        // A file whose existence can't be checked is used too, so that reading it gives the error.
        let usual =
            || Path::new(DEFAULT_FILE).try_exists().unwrap_or(true).then(|| PathBuf::from(DEFAULT_FILE));
        self.config.clone().or_else(named).or_else(usual)
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

pub(crate) fn report(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{problem}");
    }
}

/// Prints the result of a command. A reader that closes the pipe (`rmxd ... | head`) is no failure.
pub fn print(text: &str) -> Exit {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Exit::Done,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("rmxd: standard output: {error}");
            Exit::Temporary
        }
    }
}

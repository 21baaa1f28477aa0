//! The running daemon, for commands that ask it.

use crate::admin::{AskError, Client};
use crate::config::DRAIN;
use crate::console::{ConfigSource, Exit};

/// The daemon of this configuration.
///
/// # Errors
/// [`Exit::Config`], with a message on standard error.
pub(super) fn client(source: &ConfigSource) -> Result<Client, Exit> {
    let settings = source.load(DRAIN)?.settings.admin;
    Client::new(&settings).ok_or_else(|| {
        eprintln!(
            "rmxd: listen.admin is empty, so the daemon can't be asked; set it, such as \"unix:/run/rmxd/admin\""
        );
        Exit::Config
    })
}

/// Runs a command that waits for the daemon.
///
/// # Errors
/// [`Exit::Temporary`], with a message on standard error, and those of the command.
pub(super) fn run(command: impl Future<Output = Result<Exit, Exit>>) -> Result<Exit, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("rmxd: the runtime can't be started: {error}");
        Exit::Temporary
    })?;
    runtime.block_on(command)
}

/// Says why there is no answer.
pub(super) fn no_answer(client: &Client, error: &AskError) -> Exit {
    eprintln!("rmxd: no answer of the daemon at {} (listen.admin): {error}", client.endpoint());
    Exit::Temporary
}

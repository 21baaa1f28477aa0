//! `rmxd completions`: what a shell needs to complete our command lines.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::commands;
use crate::console::print;

/// Print the completions of a shell
///
/// The Debian package brings those for bash, zsh and fish. By hand, for bash: rmxd completions bash >
/// ~/.local/share/bash-completion/completions/rmxd
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which one
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut commands(), "rmxd", &mut script);
    print(&String::from_utf8_lossy(&script)).into()
}

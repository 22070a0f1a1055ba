//! `yadtq dlq`: what could not be run, or failed for good.

mod filter;
mod list;
mod show;

use clap::{Args, Subcommand};

use crate::{cli::Global, exit::Exit, failure::Failure};

/// List and show dead letters: what failed for good, or could not be run
///
/// A dead letter is the original record, byte for byte, with the reason. It stays until somebody deals with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq list --queue mail --newer-than 1h
  yadtq dlq show d5750c0e-ed82")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
}

impl Dlq {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self.command {
            Command::List(command) => command.run(global).await,
            Command::Show(command) => command.run(global).await,
        }
    }
}

//! `yadtq dlq`: dead letters, the tasks that failed for good or could not be run.

mod filter;
mod list;
mod purge;
mod replay;
mod show;

use clap::{Args, Subcommand};

use crate::{exit::Exit, failure::Failure, global::Global};

/// List, replay and purge dead letters: tasks that failed for good or could not be run
///
/// A dead letter is the original record, byte for byte, together with the reason. It is kept until it is replayed or purged.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq list --queue mail --newer-than 1h
  yadtq dlq show d5750c0e-ed82
  yadtq dlq replay --task send_email")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Replay(replay::Replay),
    Purge(purge::Purge),
}

impl Dlq {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self.command {
            Command::List(command) => command.run(global).await,
            Command::Show(command) => command.run(global).await,
            Command::Replay(command) => command.run(global).await,
            Command::Purge(command) => command.run(global).await,
        }
    }
}

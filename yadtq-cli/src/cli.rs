//! The command line: the list of commands, and the options of all of them.

use clap::{CommandFactory as _, Parser, Subcommand, builder::styling};

use crate::{command, exit, exit::Exit, failure::Failure, global::Global};

const STYLES: styling::Styles = styling::Styles::styled()
    .header(styling::AnsiColor::Green.on_default().bold())
    .usage(styling::AnsiColor::Green.on_default().bold())
    .literal(styling::AnsiColor::Cyan.on_default().bold())
    .placeholder(styling::AnsiColor::Cyan.on_default());

/// Send YADTQ tasks, inspect them, and manage queues, workers and dead letters
#[derive(Debug, Parser)]
#[command(name = "yadtq", bin_name = "yadtq", version, styles = STYLES, propagate_version = true, max_term_width = 110)]
#[command(after_help = exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Submit(command::submit::Submit),
    Status(command::status::Status),
    Result(command::result::GetResult),
    Revoke(command::revoke::Revoke),
    Workers(command::workers::Workers),
    Queues(command::queues::Queues),
    Pause(command::pause::Pause),
    Resume(command::pause::Resume),
    Purge(command::purge::Purge),
    Disable(command::disable::Disable),
    Enable(command::disable::Enable),
    Controls(command::controls::Controls),
    Dlq(command::dlq::Dlq),
    Scheduled(command::scheduled::Scheduled),
    Periodic(command::periodic::Periodic),
    Ping(command::ping::Ping),
    Completions(command::completions::Completions),
}

impl Command {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Submit(command) => command.run(global).await,
            Self::Status(command) => command.run(global).await,
            Self::Result(command) => command.run(global).await,
            Self::Revoke(command) => command.run(global).await,
            Self::Workers(command) => command.run(global).await,
            Self::Queues(command) => command.run(global).await,
            Self::Pause(command) => command.run(global).await,
            Self::Resume(command) => command.run(global).await,
            Self::Purge(command) => command.run(global).await,
            Self::Disable(command) => command.run(global).await,
            Self::Enable(command) => command.run(global).await,
            Self::Controls(command) => command.run(global).await,
            Self::Dlq(command) => command.run(global).await,
            Self::Scheduled(command) => command.run(global).await,
            Self::Periodic(command) => command.run(global).await,
            Self::Ping(command) => command.run(global).await,
            Self::Completions(command) => command.run(Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has none", command.get_name());
            assert!(help.contains(&format!("yadtq {}", command.get_name())), "{}: {help}", command.get_name());
        }
    }
}

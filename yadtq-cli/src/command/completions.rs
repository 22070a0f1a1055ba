//! `yadtq completions`: a script that teaches a shell this command.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, exit::Exit, failure::Failure, output};

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq completions bash > ~/.local/share/bash-completion/completions/yadtq
  yadtq completions zsh > \"${fpath[1]}/_yadtq\"
  yadtq completions fish > ~/.config/fish/completions/yadtq.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        // Not straight to stdout: the generator panics when it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "yadtq", &mut script);
        output::write(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

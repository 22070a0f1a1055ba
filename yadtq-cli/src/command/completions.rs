//! `yadtq completions`: a script with which a shell completes this command.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::{exit::Exit, failure::Failure, output};

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
    /// Prints a script for `yadtq`, the whole command.
    pub(crate) fn run(&self, mut yadtq: Command) -> Result<Exit, Failure> {
        // The generator panics if it cannot write, so it does not write to stdout itself.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut yadtq, "yadtq", &mut script);
        output::write(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

//! Asks for a confirmation before anything that cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;

use crate::failure::Failure;

/// The option that answers the question in advance.
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Purge without asking for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl Confirm {
    /// Fails if a question would be necessary and stdin is no terminal. `remedy` says what to do then.
    pub(crate) fn check(&self, remedy: &str) -> Result<(), Failure> {
        if self.yes || std::io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Failure::Input(format!("cannot ask for confirmation, because stdin is not a terminal; {remedy}")))
    }

    /// Asks on stderr whether to purge, and fails unless the answer is yes. `--yes` skips the question.
    pub(crate) fn ask(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let mut answer = String::new();
        let _ = write!(anstream::stderr(), "{question} This cannot be undone. [y/N] ");
        let unread = |error| Failure::Input(format!("cannot read the answer: {error}"));
        std::io::stdin().read_line(&mut answer).map_err(unread)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::Input("nothing was purged".to_owned())),
        }
    }
}

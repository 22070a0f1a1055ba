//! What the exit code tells a script.

use std::process::ExitCode;

/// How the command ended. The numbers are a contract: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done as asked.
    Done = 0,
    /// The task failed or was revoked, had ended before it could be, or cannot be replayed.
    TaskFailed = 1,
    /// What was typed or read is wrong. clap uses the same code.
    Usage = 2,
    /// Nothing is known of the task, or no longer.
    NotFound = 3,
    /// The task has not ended yet.
    NotEnded = 4,
    /// A server cannot be reached, or refused.
    Server = 5,
    /// Something else: the answer could not be written, the system has no thread left.
    Other = 6,
}

/// The table of exit codes, for the help text.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  the task failed, was revoked, had ended before (`revoke`) or cannot be replayed
  2  wrong usage or input
  3  the task or dead letter is not known, or its result has expired
  4  the task has not ended yet, or not within the timeout
  5  Kafka or Redis cannot be reached, or refused
  6  anything else, such as output that cannot be written";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

//! Exit codes, for scripts.

use std::process::ExitCode;

/// How the command ended. The numbers are a contract: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command did what it was asked to do.
    Done = 0,
    /// The task failed, was revoked, had already ended when it was to be revoked, or cannot be replayed.
    TaskFailed = 1,
    /// The arguments or the input are wrong. clap uses the same code.
    Usage = 2,
    /// The task is unknown, or its result has expired.
    NotFound = 3,
    /// The task has not ended yet.
    NotEnded = 4,
    /// Kafka or Redis cannot be reached, or refused the request.
    Server = 5,
    /// Any other error: the output could not be written, the runtime did not start.
    Other = 6,
}

/// The table of exit codes, for the help text.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success
  1  the task failed, was revoked, had already ended (`revoke`), or cannot be replayed
  2  wrong usage or input
  3  the task or dead letter is unknown, or its result has expired
  4  the task has not ended yet, or not within the timeout
  5  Kafka or Redis cannot be reached, or refused the request
  6  any other error, such as output that cannot be written";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

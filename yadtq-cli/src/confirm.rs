//! Asks before what cannot be undone.

use std::io::Write as _;

use crate::failure::Failure;

/// Asks on stderr whether to purge, and reads the answer; whatever is not a yes fails.
pub(crate) fn purge(question: &str) -> Result<(), Failure> {
    let mut answer = String::new();
    let _ = write!(anstream::stderr(), "{question} They cannot be had back. [y/N] ");
    let unread = |error| Failure::Input(format!("the answer cannot be read: {error}"));
    std::io::stdin().read_line(&mut answer).map_err(unread)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Input("nothing was purged".to_owned()))
}

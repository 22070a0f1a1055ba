//! Checks whether a call may have its ordering key.

use super::CallSpec;
use crate::{
    core::{text::is_plain, unique::MAX_KEY_BYTES},
    error::Error,
};

/// Refuses a key of a wrong length, and options that contradict the order.
pub(super) fn check(key: &str, call: &CallSpec) -> Result<(), Error> {
    let refused = |problem: &str| Err(Error::config("ordering_key", problem));
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return refused(&format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len()));
    }
    if !is_plain(key) {
        return refused("must not have control characters, such as line breaks");
    }
    if !call.priority.is_normal() {
        return refused(&format!(
            "cannot be combined with `priority` {}, because its tasks run in the order in which they were sent",
            call.priority
        ));
    }
    if call.countdown.is_some() || call.eta.is_some() {
        let field = if call.eta.is_some() { "eta" } else { "countdown" };
        return refused(&format!(
            "cannot be combined with `{field}`, because its tasks run in the order in which they were sent"
        ));
    }
    Ok(())
}

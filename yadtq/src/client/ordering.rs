//! Which calls may have an ordering key.

use crate::{call::Call, core::unique::MAX_KEY, error::Error};

/// Refuses a key that cannot be used, and what would make its order mean nothing.
pub(super) fn check<T>(key: &str, call: &Call<T>) -> Result<(), Error> {
    let refused = |problem: &str| Err(Error::config("ordering_key", problem));
    if key.is_empty() || key.len() > MAX_KEY {
        return refused(&format!("has 1 to {MAX_KEY} bytes, this one has {}", key.len()));
    }
    if !call.priority.is_normal() {
        return refused(&format!(
            "cannot be given beside `priority` {}: its tasks run in the order they were sent",
            call.priority
        ));
    }
    if call.countdown.is_some() || call.eta.is_some() {
        let field = if call.eta.is_some() { "eta" } else { "countdown" };
        return refused(&format!("cannot be given beside `{field}`: its tasks run in the order they were sent"));
    }
    Ok(())
}

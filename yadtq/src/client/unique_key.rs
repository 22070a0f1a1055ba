//! The unique key of a call: a key that the sender chose, or a digest of the arguments.

use std::time::Duration;

use serde_json::value::RawValue;

use super::MAX_TTL;
use crate::{
    core::{
        text::is_plain,
        unique::{MAX_KEY_BYTES, UniqueKey},
    },
    error::Error,
    wire::digest,
};

/// Shortest time for which a unique key is kept.
const MIN_UNIQUE_TTL: Duration = Duration::from_secs(1);

/// The unique key of a call, and for how long a later call with it makes no second task.
#[derive(Clone, Debug)]
pub(crate) struct Unique {
    /// The key; `None`: the arguments are the key.
    pub(crate) key: Option<String>,
    pub(crate) ttl: Duration,
}

impl Unique {
    /// Checks the key and the time. Returns the key, and how long it is kept, in ms.
    pub(crate) fn key(self, task: &str, args: &RawValue) -> Result<(UniqueKey, u64), Error> {
        if self.ttl < MIN_UNIQUE_TTL || self.ttl > MAX_TTL {
            return Err(Error::config("unique", "a key is kept for 1 s to 365 days"));
        }
        let key = self.key.unwrap_or_else(|| digest::of_arguments(args));
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let problem =
                format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}; use a hash of a longer key", key.len());
            return Err(Error::config("unique", problem));
        }
        if !is_plain(&key) {
            return Err(Error::config("unique", "a key must not have control characters, such as line breaks"));
        }
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        Ok((UniqueKey { task: task.into(), key: key.into() }, ttl_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_and_times_are_refused() {
        let args = RawValue::from_string("[]".to_owned()).unwrap();
        let hour = Duration::from_secs(3_600);
        let check = |key: &str, ttl| Unique { key: Some(key.to_owned()), ttl }.key("add", &args);
        assert!(check("k", hour).is_ok() && check(&"k".repeat(256), hour).is_ok());
        for refused in [
            check("", hour),
            check("a\nb", hour),
            check(&"k".repeat(257), hour),
            check("k", hour * 24 * 366),
            check("k", hour / 3_601),
        ] {
            assert!(matches!(&refused, Err(Error::Config { what, .. }) if what == "unique"), "{refused:?}");
        }
    }
}

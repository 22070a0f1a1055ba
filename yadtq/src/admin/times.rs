//! Times of what an operator sees. In JSON they are numbers: ms since the Unix epoch.

use std::time::SystemTime;

use serde::{Serialize as _, Serializer};

pub(crate) use crate::clock::at;
use crate::clock::millis;

/// In ms since the Unix epoch.
pub(super) fn ms(at: SystemTime) -> u64 {
    millis(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn write<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    ms(*at).serialize(serializer)
}

pub(super) fn write_some<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(ms).serialize(serializer)
}

//! The formats of what one process sends to another: task records, dead letters, controls, errors.

pub(crate) mod control;
pub(crate) mod dead;
pub(crate) mod digest;
pub(crate) mod envelope;
pub(crate) mod failure;
pub(crate) mod offer;
pub(crate) mod record;
pub(crate) mod settled;
#[cfg(test)]
pub(crate) mod strange;
#[cfg(test)]
mod tests;

use bytes::Bytes;

/// Headers of a record, in their order; a name may occur twice.
pub(crate) type Headers = Vec<(String, Bytes)>;

//! The bytes that cross process boundaries: task records, dead letters, errors.

pub mod control;
pub mod dead;
pub mod envelope;
pub mod failure;
pub mod settled;
#[cfg(test)]
mod tests;

use bytes::Bytes;

/// Headers of a record, in their order; a name may stand there twice.
pub type Headers = Vec<(String, Bytes)>;

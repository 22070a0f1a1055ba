//! One file a command: its options, its examples, what it answers.

pub(crate) mod completions;
pub(crate) mod dlq;
pub(crate) mod periodic;
pub(crate) mod ping;
pub(crate) mod queues;
pub(crate) mod result;
pub(crate) mod revoke;
pub(crate) mod scheduled;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod workers;

//! One file for each command: its options, its examples and its answer.

pub(crate) mod completions;
pub(crate) mod controls;
pub(crate) mod disable;
pub(crate) mod dlq;
pub(crate) mod pause;
pub(crate) mod periodic;
pub(crate) mod ping;
pub(crate) mod purge;
pub(crate) mod queues;
pub(crate) mod result;
pub(crate) mod revoke;
pub(crate) mod scheduled;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod workers;

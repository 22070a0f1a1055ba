//! Decisions as functions of values: no I/O, no clock, no async, and no imports from the rest of the crate.

mod as_text;
pub(crate) mod carry;
pub(crate) mod controls;
pub(crate) mod delayed;
pub(crate) mod finished_set;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod offsets;
pub(crate) mod ownership;
pub(crate) mod priority;
pub(crate) mod registry;
pub(crate) mod retry;
pub(crate) mod revocations;
pub(crate) mod schedule;
pub(crate) mod secret;
pub(crate) mod settings;
pub(crate) mod slots;
pub(crate) mod text;
pub(crate) mod ticks;
pub(crate) mod unique;

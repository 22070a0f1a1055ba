//! Decisions as functions of values: no I/O, no clock, no async, and nothing
//! of the rest of the crate.

pub mod delayed;
pub mod lifecycle;
pub mod limits;
pub mod names;
pub mod offsets;
pub mod orders;
pub mod priority;
pub mod retry;
pub mod schedule;
pub mod ticks;
pub mod unique;

//! The real binary against real servers, and a real worker in this process.

mod control;
mod dlq;
mod faults;
mod inspect;
mod results;
mod submit;
mod support;
mod usage;
